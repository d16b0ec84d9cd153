//! Has cargo build a program, and finds the program. Its path depends on profile, target directory
//! and platform.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::Value;

/// Cargo needs any manifest of the workspace, because it gets packages by name. Without this path,
/// cargo would have to run inside the workspace.
pub const MANIFEST: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");

/// Variables that `cargo run` and `cargo test` set for a program's own package. Some build scripts
/// depend on them (ring's does). An inherited value would make cargo compile such a package again
/// each time.
const ABOUT_THIS_PACKAGE: [&str; 6] = [
    "CARGO_PKG_",
    "CARGO_MANIFEST_",
    "CARGO_BIN_",
    "CARGO_CRATE_",
    "CARGO_PRIMARY_",
    "OUT_DIR",
];

/// The cargo that runs this program, if one does, with the environment of a call from a shell.
#[must_use]
pub fn command() -> Command {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
    let mut command = Command::new(cargo);
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if ABOUT_THIS_PACKAGE
            .iter()
            .any(|start| text.starts_with(start))
        {
            command.env_remove(&name);
        }
    }
    command
}

/// The cargo command that builds this program. Its standard output names the programs that it
/// built, for [`executable_in`]. Messages for people go to the standard error.
///
/// The command selects the whole workspace, not only the program's package. Cargo unifies the
/// features of dependencies over all selected packages. So this is the same build as `cargo build
/// --workspace`, and nothing is compiled twice.
#[must_use]
pub fn build(program: &str) -> Command {
    let mut command = self::command();
    command
        .args(["build", "--manifest-path", MANIFEST])
        .args(["--workspace", "--bin", program])
        .arg("--message-format=json-render-diagnostics")
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    command
}

/// The path of the program, if this line of cargo's output names it.
///
/// ```
/// use herd_testkit::cargo;
///
/// let message = r#"{"reason":"compiler-artifact","target":{"name":"herd-mio"},"executable":"/t/debug/herd-mio"}"#;
/// let found = cargo::executable_in(message, "herd-mio");
/// assert_eq!(found, Some("/t/debug/herd-mio".into()));
/// assert_eq!(cargo::executable_in(message, "herd-load"), None);
/// ```
#[must_use]
pub fn executable_in(message: &str, name: &str) -> Option<PathBuf> {
    let message: Value = serde_json::from_str(message).ok()?;
    let is_it = message["reason"] == "compiler-artifact" && message["target"]["name"] == name;
    let path = message["executable"].as_str()?;
    is_it.then(|| PathBuf::from(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_executable_is_found_in_cargo_s_messages() {
        let message = |name: &str, executable: &str| {
            format!(
                r#"{{"reason":"compiler-artifact","target":{{"kind":["bin"],"name":"{name}"}},"executable":{executable},"fresh":true}}"#
            )
        };
        let of_server = |message: &str| executable_in(message, "herd-mio");
        assert_eq!(
            of_server(&message("herd-mio", r#""/t/debug/herd-mio""#)),
            Some(PathBuf::from("/t/debug/herd-mio"))
        );
        assert_eq!(of_server(&message("herd-mio", "null")), None); // a library
        assert_eq!(of_server(&message("other", r#""/t/debug/other""#)), None);
        assert_eq!(
            of_server(r#"{"reason":"build-finished","success":true}"#),
            None
        );
        assert_eq!(of_server("not JSON"), None);
    }

    #[test]
    fn the_server_is_built_with_the_whole_workspace() {
        let build = build("herd-mio");
        let arguments: Vec<_> = build.get_args().collect();
        assert!(arguments.contains(&"--workspace".as_ref()));
        assert!(!arguments.contains(&"--package".as_ref()));
    }

    #[test]
    fn cargo_package_variables_are_not_inherited() {
        // Cargo has set this for the test.
        assert!(std::env::var_os("CARGO_PKG_NAME").is_some());
        let cargo = command();
        let removed = |name: &str| {
            let mut changes = cargo.get_envs();
            changes.any(|(changed, value)| changed == name && value.is_none())
        };
        assert!(removed("CARGO_PKG_NAME") && !removed("PATH"));
    }
}
