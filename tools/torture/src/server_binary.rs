//! The server's program: cargo builds it and says where it put it.
//!
//! Where that is depends on profile, target directory and platform; so it is asked for, not guessed.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::Value;

/// Any manifest of the workspace will do, as the package is named; this one is known.
const MANIFEST: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");

/// What `cargo run` and `cargo test` tell a program about its own package. Build scripts look at some of it (ring's does): a
/// build that inherits it would find them changed, and compile them again each time.
const ABOUT_THIS_PACKAGE: [&str; 6] = [
    "CARGO_PKG_",
    "CARGO_MANIFEST_",
    "CARGO_BIN_",
    "CARGO_CRATE_",
    "CARGO_PRIMARY_",
    "OUT_DIR",
];

/// Builds the server in the profile of this program, which is a question of seconds if it is there already; cargo's own words go to
/// the standard error.
pub(crate) fn build() -> Result<PathBuf, String> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
    let mut command = Command::new(&cargo);
    command
        .args(["build", "--manifest-path", MANIFEST])
        .args(["--package", "herd-mio", "--bin", "herd-mio"])
        .arg("--message-format=json-render-diagnostics")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit());
    if !cfg!(debug_assertions) {
        command.arg("--release");
    }
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if ABOUT_THIS_PACKAGE
            .iter()
            .any(|start| text.starts_with(start))
        {
            command.env_remove(&name);
        }
    }
    let output = command.output().map_err(|error| {
        let cargo = cargo.display();
        format!("cannot run {cargo} to build the server: {error}")
    })?;
    let text = String::from_utf8_lossy(&output.stdout);
    match text.lines().filter_map(executable_in).next_back() {
        Some(path) if output.status.success() => Ok(path),
        Some(_) | None => Err(format!(
            "the server could not be built ({}); what cargo says is above",
            output.status
        )),
    }
}

/// The path, if this is the message that the server is there.
fn executable_in(message: &str) -> Option<PathBuf> {
    let message: Value = serde_json::from_str(message).ok()?;
    let is_server =
        message["reason"] == "compiler-artifact" && message["target"]["name"] == "herd-mio";
    let path = message["executable"].as_str()?;
    is_server.then(|| PathBuf::from(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_executable_is_found_among_cargos_messages() {
        let message = |name: &str, executable: &str| {
            format!(
                r#"{{"reason":"compiler-artifact","target":{{"kind":["bin"],"name":"{name}"}},"executable":{executable},"fresh":true}}"#
            )
        };
        assert_eq!(
            executable_in(&message("herd-mio", r#""/t/debug/herd-mio""#)),
            Some(PathBuf::from("/t/debug/herd-mio"))
        );
        assert_eq!(executable_in(&message("herd-mio", "null")), None); // a library
        assert_eq!(
            executable_in(&message("other", r#""/t/debug/other""#)),
            None
        );
        assert_eq!(executable_in("not JSON"), None);
    }
}
