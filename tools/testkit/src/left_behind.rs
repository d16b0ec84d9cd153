//! What a program leaves behind when a signal ends it: processes and files. For the tests of tools that start others.
//!
//! The program is given a directory for its temporary files. All that it starts inherits that in its environment, and is found by it.

#![allow(clippy::unwrap_used, reason = "a test ends at what it did not expect")]

use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::clock;

/// Starting something, and cleaning up, are a matter of a second or two; the machine may be busy.
const SOON: Duration = Duration::from_secs(60);

/// What ends a program: `kill`, Ctrl-C, and a terminal that is closed.
pub const SIGNALS: [Signal; 3] = [Signal::TERM, Signal::INT, Signal::HUP];

/// A running program. Dropped, it is killed with everything that it has started.
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
    /// Starts it with that directory for temporary files, which has to be empty.
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

    /// Waits until something with these words on its command line runs, which the program has started.
    pub fn await_child(&mut self, words: &str) {
        let own = Pid::from_child(&self.process);
        await_some(words, || {
            let ended = self.process.try_wait().unwrap();
            assert!(ended.is_none(), "{ended:?}: {}", self.said());
            let mut running = processes_of(&self.directory).into_iter();
            running.find(|(process, line)| *process != own && line.contains(words))
        });
    }

    /// Sends it the signal, waits for its end as after such a signal, and looks for what is left. Returns what it said.
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

    /// All that it says on its standard error until every process that may write there has ended.
    fn said(&mut self) -> String {
        let mut said = Vec::new();
        self.errors.read_to_end(&mut said).unwrap();
        String::from_utf8_lossy(&said).into_owned()
    }
}

/// Whether this system lists processes; if not, that is told past the test harness, which would swallow it.
pub fn can_be_seen() -> bool {
    let can = Path::new("/proc/self/environ").exists();
    if !can {
        let words = b"skipped: this system does not list processes in /proc\n";
        std::io::stderr().write_all(words).unwrap();
    }
    can
}

/// Processes whose environment names that directory, and their command lines.
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
        // One may be gone before it is looked at; then it has neither.
        if text(entry.path().join("environ")).contains(directory) {
            let line = text(entry.path().join("cmdline")).replace('\0', " ");
            found.push((process, line));
        }
    }
    found
}

fn await_some<T>(what: &str, find: impl FnMut() -> Option<T>) -> T {
    let found = clock::wait_for(clock::now() + SOON, find);
    found.unwrap_or_else(|| panic!("{what}: not after {SOON:?}"))
}
