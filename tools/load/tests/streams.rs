//! Its standard output, and signals that its starter blocked.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test ends at what it did not expect"
)]

use std::process::Command;

use rustix::process::Signal;

use herd_testkit::streams;

const PROGRAM: &str = env!("CARGO_BIN_EXE_herd-load");

#[test]
fn a_failed_write_to_stdout_fails_the_program() {
    streams::output_is_honest(PROGRAM, &[&["--version"]]);
}

#[test]
fn a_signal_blocked_by_the_parent_ends_the_program() {
    for signal in [Signal::TERM, Signal::INT] {
        let directory = tempfile::tempdir().unwrap();
        let mut command = Command::new(PROGRAM);
        command.args(["echo"]).current_dir(directory.path());
        let status = streams::ends_at(signal, &mut command);
        assert_eq!(status, Some(0), "{signal:?}");
    }
}
