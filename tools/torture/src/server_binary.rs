//! The server's program, built if need be.

use std::path::PathBuf;
use std::process::Stdio;

/// Builds the server in the profile of this program, which is a question of seconds if it is there already; cargo's own words go to
/// the standard error.
pub(crate) fn build() -> Result<PathBuf, String> {
    let mut command = herd_programs::build("herd-mio");
    if !cfg!(debug_assertions) {
        command.arg("--release");
    }
    let output = command.stderr(Stdio::inherit()).output().map_err(|error| {
        let cargo = command.get_program().display();
        format!("cannot run {cargo} to build the server: {error}")
    })?;
    let text = String::from_utf8_lossy(&output.stdout);
    let mut built = text
        .lines()
        .filter_map(|line| herd_programs::executable_in(line, "herd-mio"));
    match built.next_back() {
        Some(path) if output.status.success() => Ok(path),
        Some(_) | None => Err(format!(
            "the server could not be built ({}); what cargo says is above",
            output.status
        )),
    }
}
