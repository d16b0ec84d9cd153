//! Tests of `herd-torture` as a user runs it: real servers, real strace. If strace is missing or
//! may not trace, the tests are skipped, and say so.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test may fail"
)]

use std::io::Write as _;
use std::process::{Command, Output};

fn torture(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_herd-torture"));
    command
        .args(arguments)
        // A user may have set this for another herd. It must not reach the servers of this one.
        .env("HERD_LISTEN", "127.0.0.1:1");
    command
}

fn run(mut command: Command) -> (Option<i32>, String, String) {
    let Output {
        status,
        stdout,
        stderr,
    } = command.output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (status.code(), text(stdout), text(stderr))
}

/// Whether all was skipped. If so, the message goes straight to stderr, because the test harness
/// would capture `eprintln!`.
fn is_skipped(output: &str) -> bool {
    let skipped = output.starts_with("skipped: ");
    if skipped {
        std::io::stderr().write_all(output.as_bytes()).unwrap();
    }
    skipped
}

#[test]
fn a_server_survives_a_few_faults() {
    let only = ["accept4", "fdatasync", "read@data/journal"];
    let mut arguments = vec!["--quick"];
    arguments.extend(only.iter().flat_map(|call| ["--only", call]));
    let (status, output, errors) = run(torture(&arguments));
    if is_skipped(&output) {
        return;
    }
    assert_eq!(status, Some(0), "{output}{errors}");
    for row in [
        "accept4  ",
        "fdatasync@data/journal  ",
        "read@data/journal  ",
        "all  ",
    ] {
        assert!(output.lines().any(|line| line.starts_with(row)), "{output}");
    }
    assert!(output.contains(": 0 failed\n"), "{output}");
    // If the journal cannot be read, the server ends at its start with a reason.
    let (status, output, errors) = run(torture(&["--each", "--only", "read@data/journal:EIO:1"]));
    assert_eq!(status, Some(0), "{output}{errors}");
    assert!(
        output.starts_with("read@data/journal:EIO:1: ended; status 1, \"herd-mio: cannot read"),
        "{output}"
    );
}

#[test]
fn a_descriptor_leak_is_reported_with_its_case() {
    // strace does not close the descriptor when it makes `close` fail, so the descriptor leaks.
    let case = "close@data/journal:EIO:1";
    let kept = tempfile::tempdir().unwrap();
    let directory = kept.path().to_str().unwrap();
    let (status, output, errors) = run(torture(&["--only", case, "--keep", directory]));
    if is_skipped(&output) {
        return;
    }
    assert_eq!(status, Some(1), "{output}{errors}");
    assert!(output.contains("\n  LEAK: "), "{output}");
    assert!(output.contains(&format!(" --only '{case}'\n")), "{output}");
    let trace = kept.path().join("close@data_journal:EIO:1/trace");
    let trace = std::fs::read_to_string(trace).unwrap();
    assert!(trace.contains("(INJECTED)"), "{trace}");
}

#[test]
fn without_strace_all_cases_are_skipped_unless_required() {
    let nowhere = tempfile::tempdir().unwrap();
    let without = |arguments: &[&str]| {
        let mut command = torture(arguments);
        command.env("PATH", nowhere.path());
        run(command)
    };
    let (status, output, errors) = without(&[]);
    let expected = "skipped: strace is not installed (apt install strace)\n";
    assert_eq!(
        (status, output.as_str(), errors.as_str()),
        (Some(0), expected, "")
    );
    let (status, output, errors) = without(&["--required"]);
    let expected = "herd-torture: strace is not installed (apt install strace)\n";
    assert_eq!(
        (status, output.as_str(), errors.as_str()),
        (Some(1), "", expected)
    );
}

#[test]
fn invalid_arguments_are_rejected() {
    for (arguments, words) in [
        (
            &["--only", "accept4:emfile"][..],
            "\"emfile\" is not the name of an error",
        ),
        (&["--jobs", "0"], "invalid value '0' for '--jobs <N>'"),
        (&["accept4"], "unexpected argument 'accept4'"),
    ] {
        let (status, output, errors) = run(torture(arguments));
        assert_eq!((status, output.as_str()), (Some(2), ""));
        assert!(errors.contains(words), "{errors}");
    }
}

#[test]
fn a_program_that_is_no_server_is_reported() {
    let (status, output, errors) = run(torture(&["--server", "/bin/false"]));
    if is_skipped(&output) {
        return;
    }
    assert_eq!((status, output.as_str()), (Some(1), ""));
    let words = "the server fails even without a fault";
    assert!(errors.contains(words), "{errors}");
}
