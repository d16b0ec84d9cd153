//! Runs `herd-package`, and looks at what it makes.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test ends at what it did not expect"
)]

mod archive;
mod completions;
mod deb;
mod image;
mod man;
mod sbom;
mod streams;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// The programs that are packed.
const PROGRAMS: [&str; 6] = [
    "herd-mio",
    "herd-journal",
    "herd-client",
    "herd-certificates",
    "herd-load",
    "herd-places",
];

const PROGRAM: &str = env!("CARGO_BIN_EXE_herd-package");

/// The checkout.
fn root() -> PathBuf {
    let tool = Path::new(env!("CARGO_MANIFEST_DIR"));
    tool.ancestors().nth(2).unwrap().to_owned()
}

/// Runs `herd-package` and returns its standard output.
fn make(arguments: &[&str]) -> String {
    let output = Command::new(PROGRAM).args(arguments).output().unwrap();
    text(output)
}

/// The standard output of a program that succeeded.
fn text(output: Output) -> String {
    let told = String::from_utf8_lossy(&output.stderr);
    let stdout = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{}: {told}{stdout}", output.status);
    stdout
}

/// Whether this machine has the program. If not, the test says that it is skipped.
fn has(program: &str) -> bool {
    let found = Command::new("sh")
        .args(["-c", "command -v \"$0\"", program])
        .output()
        .is_ok_and(|output| output.status.success());
    if !found {
        eprintln!("skipped: there is no {program} here");
    }
    found
}
