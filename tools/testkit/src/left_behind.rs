//! For tests of tools that start other programs: the processes and files that are left after a
//! signal has ended the tool.
//!
//! The tool gets its own directory for temporary files. All its children inherit that in their
//! environment, so the test can find them by it.

#![allow(clippy::unwrap_used, reason = "a test ends at what it did not expect")]

use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::clock;

/// A start or a clean-up takes a second or two, but the machine may be busy.
const SOON: Duration = Duration::from_secs(60);

/// The signals of `kill`, of Ctrl-C, and of a closed terminal.
pub const SIGNALS: [Signal; 3] = [Signal::TERM, Signal::INT, Signal::HUP];

/// A running program. Dropping it kills it and all its children.
#[derive(Debug)]
pub struct Program {
    process: Child,
    errors: ChildStderr,
    directory: PathBuf,
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        for (process, _) in processes_of(&self.directory) {
            let _ = kill_process(process, Signal::KILL);
        }
    }
}

impl Program {
    /// Starts the program with this directory for temporary files, which has to be empty.
    pub fn start(command: &mut Command, directory: &Path) -> Program {
        command
            .env("TMPDIR", directory)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut process = command.spawn().unwrap();
        let errors = process.stderr.take().unwrap();
        Program {
            process,
            errors,
            directory: directory.to_owned(),
        }
    }

    /// Waits until a child of the program runs whose command line contains these words.
    pub fn await_child(&mut self, words: &str) {
        let own = Pid::from_child(&self.process);
        await_some(words, || {
            let ended = self.process.try_wait().unwrap();
            assert!(ended.is_none(), "{ended:?}: {}", self.said());
            let mut running = processes_of(&self.directory).into_iter();
            running.find(|(process, line)| *process != own && line.contains(words))
        });
    }

    /// Sends the signal, and waits for the end. Asserts the exit status, and that no process and no
    /// file is left. Returns the standard error.
    pub fn end_with(mut self, signal: Signal) -> String {
        kill_process(Pid::from_child(&self.process), signal).unwrap();
        let status = await_some("its end", || self.process.try_wait().unwrap());
        let processes = processes_of(&self.directory);
        let left: Vec<PathBuf> = fs::read_dir(&self.directory)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        assert_eq!(processes, [], "left behind after {signal:?}");
        let said = self.said();
        assert_eq!(status.code(), Some(128 + signal.as_raw()), "{said}");
        assert!(
            left.is_empty(),
            "{left:?} left behind after {signal:?}: {said}"
        );
        said
    }

    /// Reads the standard error until every process that could write to it has ended.
    fn said(&mut self) -> String {
        let mut said = Vec::new();
        self.errors.read_to_end(&mut said).unwrap();
        String::from_utf8_lossy(&said).into_owned()
    }
}

/// Whether this system lists processes. If not, a message goes straight to stderr, because the test
/// harness would capture `eprintln!`.
pub fn can_be_seen() -> bool {
    let can = Path::new("/proc/self/environ").exists();
    if !can {
        let words = b"skipped: this system does not list processes in /proc\n";
        std::io::stderr().write_all(words).unwrap();
    }
    can
}

/// The processes whose environment contains this directory, with their command lines.
fn processes_of(directory: &Path) -> Vec<(Pid, String)> {
    let directory = directory.to_str().unwrap();
    let text = |path| String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned();
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let number = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok());
        let Some(process) = number.and_then(Pid::from_raw) else {
            continue;
        };
        // A process may end before its files are read. Then they read as empty.
        if text(entry.path().join("environ")).contains(directory) {
            let line = text(entry.path().join("cmdline")).replace('\0', " ");
            found.push((process, line));
        }
    }
    found
}

fn await_some<T>(what: &str, find: impl FnMut() -> Option<T>) -> T {
    let found = clock::wait_for(clock::now() + SOON, find);
    found.unwrap_or_else(|| panic!("{what} did not come within {SOON:?}"))
}
