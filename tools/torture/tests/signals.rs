//! A signal ends the program, its servers and their straces.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test ends at what it did not expect"
)]

use std::process::Command;

use herd_testkit::left_behind::{self, Program, SIGNALS};

#[test]
fn a_signal_ends_the_server_and_strace() {
    let strace = Command::new(env!("CARGO_BIN_EXE_herd-torture"))
        .args(["--required", "--only", "no-such-call"])
        .args(["--server", "/no/such/server"])
        .output()
        .unwrap();
    if strace.status.code() == Some(1) {
        use std::io::Write as _;
        let words = [b"skipped: ", strace.stderr.as_slice()].concat();
        std::io::stderr().write_all(&words).unwrap();
        return;
    }
    if !left_behind::can_be_seen() {
        return;
    }
    for signal in SIGNALS {
        let place = tempfile::tempdir().unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_herd-torture"));
        let mut torture = Program::start(&mut command, place.path());
        torture.await_child("strace -D ");
        torture.await_child("herd-mio Riley ");
        torture.end_with(signal);
    }
}
