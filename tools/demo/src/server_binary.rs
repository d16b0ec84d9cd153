//! The server's program: cargo builds it and says where it put it.
//!
//! Where that is depends on profile, target directory and platform; so it is asked for, not guessed.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::Value;

use crate::events::{Event, Events};
use crate::stop::{Stop, failure};

/// Any manifest of the workspace will do, as the package is named; this one is known. Without it cargo would have to be run inside.
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

/// A cargo at work, and the compilers that it started: a process group. Dropped before its time, all of it is ended.
struct Build {
    cargo: Child,
    ended: bool,
}

impl Drop for Build {
    fn drop(&mut self) {
        if !self.ended {
            // It may have ended by itself just now.
            let _ = kill_process_group(Pid::from_child(&self.cargo), Signal::TERM);
            let _ = self.cargo.wait();
        }
    }
}

/// Builds the server as cargo was told to build the demo; cargo's own words go to the standard error.
pub(crate) fn build(events: &mut Events) -> Result<PathBuf, Stop> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
    let mut command = Command::new(&cargo);
    command
        .args(["build", "--manifest-path", MANIFEST])
        .args(["--package", "herd-mio", "--bin", "herd-mio"])
        .arg("--message-format=json-render-diagnostics")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .process_group(0);
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if ABOUT_THIS_PACKAGE
            .iter()
            .any(|start| text.starts_with(start))
        {
            command.env_remove(&name);
        }
    }
    let mut build = match command.spawn() {
        Ok(cargo) => Build {
            cargo,
            ended: false,
        },
        Err(error) => {
            let cargo = cargo.display();
            return failure(format!("cannot run {cargo} to build the server: {error}"));
        }
    };
    let process = build.cargo.id();
    if let Some(output) = build.cargo.stdout.take() {
        events.listen(process, output)?;
    }
    let mut executable = None;
    loop {
        match events.next(None)? {
            Some(Event::Line { text, .. }) => executable = executable_in(&text).or(executable),
            Some(Event::Closed { .. }) => break,
            None => {}
        }
    }
    let status = build.cargo.wait()?;
    build.ended = true;
    match executable {
        Some(path) if status.success() => Ok(path),
        Some(_) | None => failure(format!(
            "the server could not be built ({status}); what cargo says is above"
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
        assert_eq!(
            executable_in(r#"{"reason":"build-finished","success":true}"#),
            None
        );
        assert_eq!(executable_in("not JSON"), None);
    }
}
