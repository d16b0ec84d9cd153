//! Tests of the standard output, and of signals that the parent process has blocked.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test ends at what it did not expect"
)]

use std::net::TcpListener;
use std::process::Command;

use herd_testkit::streams;
use rustix::process::{Pid, Signal, kill_process};

const PROGRAM: &str = env!("CARGO_BIN_EXE_herd-client");

const CERTIFICATES: &str = env!("CARGO_BIN_EXE_herd-certificates");

#[test]
fn a_failed_write_to_stdout_fails_the_program() {
    streams::output_is_honest(CERTIFICATES, &[&["--version"]]);
    streams::output_is_honest(
        PROGRAM,
        &[
            &["--version"],
            &["status", "--help"],
            &["status", "--version"],
        ],
    );
}

/// The program waits for a server that sends nothing. It handles no signal, so a signal ends it.
#[test]
fn a_signal_blocked_by_the_parent_ends_the_program() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let directory = tempfile::tempdir().unwrap();
    let herd = directory.path().join("herd.toml");
    let address = silent.local_addr().unwrap();
    let text =
        format!("[[servers]]\nname = \"A\"\nclients = \"127.0.0.1:1\"\npeers = \"{address}\"\n");
    std::fs::write(&herd, text).unwrap();
    let mut command = Command::new(PROGRAM);
    command
        .arg("status")
        .arg("--config")
        .arg(&herd)
        .env("HERD_SECRET", "x");
    let mut child = streams::with_all_blocked(|| command.spawn().unwrap());
    let _asked = silent.accept().unwrap();
    let process = Pid::from_raw(child.id().try_into().unwrap()).unwrap();
    kill_process(process, Signal::INT).unwrap();
    assert_eq!(streams::ends_soon(&mut child), None, "by the signal");
}

#[test]
fn an_empty_environment_variable_counts_as_unset() {
    let run = |file: &str| {
        let mut command = Command::new(PROGRAM);
        command.arg("status");
        command.env("HERD_SECRET_FILE", file).env("HERD_SECRET", "");
        let output = command.output().unwrap();
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code(), told)
    };
    // The result does not depend on a server at that address.
    let (status, told) = run("");
    assert!(status != Some(2) && told.is_empty(), "{status:?}: {told}");
    let (status, told) = run("/nonexistent/secret");
    assert!(
        status == Some(2) && told.contains("HERD_SECRET_FILE"),
        "{told}"
    );
}
