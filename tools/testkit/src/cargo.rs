//! Cargo builds a program that is to be started, and says where it put it: that depends on profile, target directory and platform.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::Value;

/// Any manifest of the workspace will do, as packages are named; this one is known. Without it cargo would have to be run inside.
pub const MANIFEST: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");

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

/// Cargo, the one that runs this program if one does, as it would be called by hand.
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

/// The cargo that builds the program of that name. It tells on its standard output what it has
/// built ([`executable_in`]); its words to a reader go to the standard error.
///
/// The workspace is selected, not the program's package alone: cargo unifies the features of
/// dependencies over what is selected, so this builds what `cargo build --workspace` builds, and
/// nothing of it twice.
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

/// The path, if this line of cargo's says that the program of that name is there.
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
    fn the_executable_is_found_among_cargos_messages() {
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
    fn what_the_workspace_has_built_is_not_built_again() {
        let build = build("herd-mio");
        let arguments: Vec<_> = build.get_args().collect();
        assert!(arguments.contains(&"--workspace".as_ref()));
        assert!(!arguments.contains(&"--package".as_ref()));
    }

    #[test]
    fn what_is_told_of_this_package_is_not_handed_on() {
        // A test is told its own package's name.
        assert!(std::env::var_os("CARGO_PKG_NAME").is_some());
        let cargo = command();
        let removed = |name: &str| {
            let mut changes = cargo.get_envs();
            changes.any(|(changed, value)| changed == name && value.is_none())
        };
        assert!(removed("CARGO_PKG_NAME") && !removed("PATH"));
    }
}
