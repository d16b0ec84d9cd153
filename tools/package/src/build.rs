//! Runs cargo and git in the checkout.

use std::path::{Path, PathBuf};
use std::process::Command;

use herd_testkit::failure::{Failure, system};
use herd_testkit::{cargo, server};

/// The checkout from which this program was built.
pub(crate) fn root() -> PathBuf {
    let tool = Path::new(env!("CARGO_MANIFEST_DIR"));
    tool.ancestors().nth(2).unwrap_or(tool).to_owned()
}

/// Where `herd-package files` writes. The list of files of the Debian package, in Cargo.toml, has the same directory.
pub(crate) fn files_dir() -> PathBuf {
    root().join("target/package")
}

/// Builds a program, and returns its path.
///
/// # Errors
/// It cannot be built.
pub(crate) fn program(name: &str, arguments: &[&str]) -> Result<PathBuf, Failure> {
    server::build(name, arguments).map_err(Failure::Failed)
}

/// Runs cargo with these arguments in the checkout, and returns its standard output.
///
/// # Errors
/// Cargo cannot be run, or fails.
pub(crate) fn cargo(arguments: &[&str]) -> Result<String, Failure> {
    output(cargo::command().args(arguments))
}

/// The target triple of this machine.
///
/// # Errors
/// Cargo cannot be run.
pub(crate) fn host() -> Result<String, Failure> {
    let version = cargo(&["--version", "--verbose"])?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned)
        .ok_or_else(|| Failure::Failed("cargo does not name its host".to_owned()))
}

/// Runs git with these arguments in the checkout, and returns its standard output.
///
/// # Errors
/// Git cannot be run, or fails.
pub(crate) fn git(arguments: &[&str]) -> Result<String, Failure> {
    output(Command::new("git").args(arguments))
}

/// Runs a command in the checkout, and returns its standard output.
///
/// # Errors
/// It cannot be run, or fails.
pub(crate) fn output(command: &mut Command) -> Result<String, Failure> {
    let program = command.get_program().display().to_string();
    let ran = command
        .current_dir(root())
        .output()
        .map_err(system(format_args!("run {program}")))?;
    let stderr = String::from_utf8_lossy(&ran.stderr);
    if !ran.status.success() {
        let first: Vec<_> = command.get_args().take(2).collect();
        return Err(Failure::Failed(format!(
            "{program} {first:?} failed ({}): {}",
            ran.status,
            stderr.trim()
        )));
    }
    String::from_utf8(ran.stdout)
        .map_err(|error| Failure::Failed(format!("{program} printed no UTF-8: {error}")))
}
