//! The standard output of `herd-package`.

use herd_testkit::streams;

#[test]
fn a_failed_write_to_stdout_fails_the_program() {
    streams::output_is_honest(crate::PROGRAM, &[&["--version"], &["deb", "--help"]]);
}
