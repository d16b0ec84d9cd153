//! Tests of the program from outside: its files, its output and its exit status. `believed.rs`
//! tests whether servers accept its certificates.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test ends at what it did not expect"
)]

mod believed;
mod files;
mod listing;
mod mistakes;
mod renewing;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;

/// A config file, and a directory beside it for its certificates.
struct Bench {
    directory: TempDir,
}

impl Bench {
    /// A herd of these servers, which are all linked with the first.
    fn new(servers: &[&str]) -> Bench {
        let bench = Bench {
            directory: tempfile::tempdir().unwrap(),
        };
        bench.describe(servers, "");
        bench
    }

    /// Writes the config file, with `tables` at its end.
    fn describe(&self, servers: &[&str], tables: &str) {
        let links: Vec<String> = servers[1..]
            .iter()
            .map(|name| format!("[{:?}, {name:?}]", servers[0]))
            .collect();
        let mut text = format!("links = [{}]\n", links.join(", "));
        for (place, name) in (0..).zip(servers) {
            let (clients, peers) = (10_000 + place, 11_000 + place);
            text += &format!(
                "[[servers]]\nname = {name:?}\nclients = \"127.0.0.1:{clients}\"\npeers = \"127.0.0.1:{peers}\"\n"
            );
        }
        fs::write(self.config(), text + tables).unwrap();
    }

    fn config(&self) -> PathBuf {
        self.directory.path().join("herd.toml")
    }

    fn out(&self) -> PathBuf {
        self.directory.path().join("certificates")
    }

    fn file(&self, name: &str) -> PathBuf {
        self.out().join(name)
    }

    /// The command of the program for this herd and this directory.
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_herd-certificates"));
        command.arg("--config").arg(self.config());
        command.arg("--out").arg(self.out()).args(arguments);
        command
    }

    /// Runs the program, which has to succeed without a warning. Returns its output.
    fn run(&self, arguments: &[&str]) -> String {
        let output = self.command(arguments).output().unwrap();
        let (out, err) = texts(&output);
        assert_eq!((output.status.code(), err.as_str()), (Some(0), ""), "{out}");
        out
    }

    /// Runs the program, which has to fail with this status and one line, and must not change the
    /// directory. Returns the line.
    fn fail(&self, arguments: &[&str], status: i32) -> String {
        let before = self.snapshot();
        let line = one_line(&self.command(arguments).output().unwrap(), status);
        assert!(self.snapshot() == before, "{line}: but something changed");
        line
    }

    /// Both streams and the exit status of `--list`.
    fn list(&self) -> (String, String, Option<i32>) {
        let output = list(&self.out());
        let (out, err) = texts(&output);
        (out, err, output.status.code())
    }

    /// The content of all files in the directory.
    fn snapshot(&self) -> BTreeMap<String, Vec<u8>> {
        let Ok(entries) = fs::read_dir(self.out()) else {
            return BTreeMap::new();
        };
        let entry = |path: PathBuf| {
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            (name, fs::read(path).unwrap())
        };
        entries.map(|found| entry(found.unwrap().path())).collect()
    }

    /// The names of all files.
    fn names(&self) -> Vec<String> {
        self.snapshot().into_keys().collect()
    }
}

fn list(directory: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_herd-certificates"))
        .args(["--list", "--out"])
        .arg(directory)
        .output()
        .unwrap()
}

fn texts(output: &Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (text(&output.stdout), text(&output.stderr))
}

/// The only line of a failed run.
fn one_line(output: &Output, status: i32) -> String {
    let (out, err) = texts(output);
    assert_eq!(output.status.code(), Some(status), "{out}{err}");
    assert_eq!(out, "", "{err}");
    assert_eq!(err.lines().count(), 1, "{err}");
    let line = err.trim_end().strip_prefix("herd-certificates: ");
    line.unwrap().to_owned()
}

/// Asserts that a text contains all of these parts.
fn has(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "no {part:?} in:\n{text}");
    }
}
