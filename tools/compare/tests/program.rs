//! Tests of the program on a machine that has some of the worlds, or none.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test ends at what it did not expect"
)]

use std::process::{Command, Output};

use herd_compare::worlds::WORLDS;

fn run(command: &mut Command) -> (Output, String) {
    let output = command.output().unwrap();
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    (output, text)
}

fn program() -> Command {
    Command::new(env!("CARGO_BIN_EXE_herd-compare"))
}

#[test]
fn worlds_lists_lines_of_code_and_missing_tools() {
    let (output, text) = run(program().arg("worlds"));
    assert!(output.status.success(), "{text}");
    for (world, line) in WORLDS.iter().zip(text.lines().skip(1)) {
        assert!(line.starts_with(world.name), "{line}");
        assert!(
            line.contains("can run it (") || line.contains("skipped: "),
            "{line}"
        );
    }
    let mio = text.lines().nth(1).unwrap();
    assert!(mio.contains("can run it (cargo "), "{mio}");
    let lines = mio.split("  can").next().unwrap().trim_end();
    let lines: usize = lines.rsplit(' ').next().unwrap().parse().unwrap();
    assert!(lines > 1000, "{mio}");
}

#[test]
fn missing_tools_are_listed_with_install_commands() {
    let nowhere = tempfile::tempdir().unwrap();
    let (output, text) = run(program().arg("worlds").env("PATH", nowhere.path()));
    assert!(output.status.success(), "{text}");
    for line in text.lines().skip(1) {
        assert!(line.contains("skipped: "), "{line}");
    }
    for told in [
        "skipped: python3: not found; apt install",
        "skipped: node: not found; apt install",
        "skipped: cargo: not found; https://rustup.rs/",
    ] {
        assert!(text.contains(told), "{told}\n{text}");
    }
}

#[test]
fn a_usage_error_exits_with_status_2() {
    for arguments in [
        &["wolrds"][..],
        &["worlds", "--no-such-option"],
        &["--worlds", "cobol"],
        &["--rounds", "0"],
        &["--duration", "soon"],
        &["--quick", "worlds"],
    ] {
        let (output, _) = run(program().args(arguments));
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(!output.stderr.is_empty());
    }
    let (output, text) = run(program().arg("--help"));
    assert!(
        output.status.success() && text.contains("--quick"),
        "{text}"
    );
    let (output, text) = run(program().args(["worlds", "--help"]));
    assert!(
        output.status.success() && text.contains("--prepare"),
        "{text}"
    );
}
