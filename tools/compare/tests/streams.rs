//! Its standard output, and signals that its starter blocked.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test ends at what it did not expect"
)]

#[path = "../../programs/tests/common/mod.rs"]
mod common;

const PROGRAM: &str = env!("CARGO_BIN_EXE_herd-compare");

#[test]
fn what_is_not_written_is_no_success() {
    common::output_is_honest(PROGRAM, &[&["--version"], &["worlds"]]);
}
