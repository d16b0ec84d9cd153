//! The program from outside: what it writes, what it leaves alone, what it says, how it ends; and, in `believed.rs`, whether servers
//! believe what it makes.

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
    /// A herd of these servers, all linked with the first.
    fn new(servers: &[&str]) -> Bench {
        let bench = Bench {
            directory: tempfile::tempdir().unwrap(),
        };
        bench.describe(servers, "");
        bench
    }

    /// Writes the config file; `tables` goes to its end.
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

    /// The program on this herd, in this directory.
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_herd-certificates"));
        command.arg("--config").arg(self.config());
        command.arg("--out").arg(self.out()).args(arguments);
        command
    }

    /// Runs it; it has to succeed without a complaint. What it printed.
    fn run(&self, arguments: &[&str]) -> String {
        let output = self.command(arguments).output().unwrap();
        let (out, err) = texts(&output);
        assert_eq!((output.status.code(), err.as_str()), (Some(0), ""), "{out}");
        out
    }

    /// Runs it; it has to fail with that status, with one line that it writes, and nothing in the directory may change. The line.
    fn fail(&self, arguments: &[&str], status: i32) -> String {
        let before = self.snapshot();
        let line = one_line(&self.command(arguments).output().unwrap(), status);
        assert!(self.snapshot() == before, "{line}: but something changed");
        line
    }

    /// What `--list` says on both streams, and with which status it ends.
    fn list(&self) -> (String, String, Option<i32>) {
        let output = list(&self.out());
        let (out, err) = texts(&output);
        (out, err, output.status.code())
    }

    /// Everything in the directory.
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

    /// The names of all that is there.
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

/// The only thing that a failed run says.
fn one_line(output: &Output, status: i32) -> String {
    let (out, err) = texts(output);
    assert_eq!(output.status.code(), Some(status), "{out}{err}");
    assert_eq!(out, "", "{err}");
    assert_eq!(err.lines().count(), 1, "{err}");
    let line = err.trim_end().strip_prefix("herd-certificates: ");
    line.unwrap().to_owned()
}

/// Asserts that a text has all of these parts.
fn has(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "no {part:?} in:\n{text}");
    }
}
