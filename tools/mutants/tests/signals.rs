//! A signal ends the program, cargo and the compilers, and no part of the copy is left.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test ends at what it did not expect"
)]

use std::fs;
use std::io::Write;
use std::process::Command;

use herd_testkit::left_behind::{self, Program, SIGNALS};

/// Whether git can list this checkout. If not, a message goes straight to stderr, because the test
/// harness would capture `eprintln!`.
fn is_checkout() -> bool {
    let git = Command::new("git")
        .args(["ls-files", "--error-unmatch", "Cargo.toml"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output();
    let is_one = git.is_ok_and(|git| git.status.success());
    if !is_one {
        let words = b"skipped: this is no checkout that git can list\n";
        std::io::stderr().write_all(words).unwrap();
    }
    is_one
}

#[test]
fn a_signal_ends_cargo_and_removes_the_copy() {
    if !is_checkout() || !left_behind::can_be_seen() {
        return;
    }
    for signal in SIGNALS {
        let place = tempfile::tempdir().unwrap();
        let copies = place.path().join("tmp");
        fs::create_dir(&copies).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_herd-mutants"));
        // An empty target directory makes the build last long enough for the signal.
        command.args(["--only", "1"]);
        command.env("CARGO_TARGET_DIR", place.path().join("target"));
        let mut planting = Program::start(&mut command, &copies);
        planting.await_child("rustc --crate-name ");
        let said = planting.end_with(signal);
        let words = format!("stopped by signal {}", signal.as_raw());
        assert!(said.contains(&words), "{said}");
    }
}
