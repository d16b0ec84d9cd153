//! Tests of the standard output, and of signals that the parent process has blocked.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test ends at what it did not expect"
)]

use herd_testkit::streams;

const PROGRAM: &str = env!("CARGO_BIN_EXE_herd-demo");

#[test]
fn a_failed_write_to_stdout_fails_the_program() {
    streams::output_is_honest(PROGRAM, &[]);
}
