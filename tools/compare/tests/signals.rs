//! A signal ends the comparison, and everything that it has started.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test ends at what it did not expect"
)]

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// What a server may take to start or to stop, and some more.
const SOON: Duration = Duration::from_secs(30);
const GLANCE: Duration = Duration::from_millis(5);

#[allow(clippy::disallowed_methods, reason = "a test waits for processes")]
fn now() -> Instant {
    Instant::now()
}

/// Waits for what it gives.
fn await_some<T>(patience: Duration, what: &str, mut find: impl FnMut() -> Option<T>) -> T {
    let deadline = now() + patience;
    loop {
        if let Some(found) = find() {
            return found;
        }
        assert!(now() < deadline, "{what}: not after {patience:?}");
        thread::sleep(GLANCE);
    }
}

/// A comparison that keeps its files in a directory; what the test finds left of it is killed behind it.
struct Comparison<'a> {
    process: Child,
    directory: &'a Path,
}

impl Drop for Comparison<'_> {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        for (process, _) in processes_of(self.directory) {
            let _ = kill_process(process, Signal::KILL);
        }
    }
}

/// Processes whose environment names that directory, and their command lines: it is the comparison's own, so they are, too.
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

fn entries(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap();
    entries
        .map(|entry| entry.unwrap().path().display().to_string())
        .collect()
}

#[test]
fn a_signal_leaves_no_server_no_file_and_no_half_report() {
    if !Path::new("/proc/self/environ").exists() {
        println!("skipped: this system does not list processes in /proc");
        return;
    }
    for signal in [Signal::TERM, Signal::INT, Signal::HUP] {
        let place = tempfile::tempdir().unwrap();
        let logs = place.path().join("tmp");
        fs::create_dir(&logs).unwrap();
        let page_file = place.path().join("page.html");
        fs::write(&page_file, "an earlier report").unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_herd-compare"));
        // A load that would go on for an hour.
        command.args(["--worlds", "mio", "--settle", "3600", "--rounds", "1"]);
        command.arg("--out").arg(&page_file).env("TMPDIR", &logs);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut comparison = Comparison {
            process: command.spawn().unwrap(),
            directory: &logs,
        };
        let mut errors = BufReader::new(comparison.process.stderr.take().unwrap());
        let mut said = String::new();
        while !said.contains("starting") {
            assert!(errors.read_line(&mut said).unwrap() > 0, "{said}");
        }
        let running = await_some(SOON, "the server is loaded", || {
            let running = processes_of(&logs);
            let load = |(_, line): &(Pid, String)| line.contains("herd-load iamat ");
            running.iter().any(load).then_some(running)
        });
        // The comparison itself, the server, and its load; Redis where there is one.
        assert!(running.len() >= 3, "{running:?}");

        kill_process(Pid::from_child(&comparison.process), signal).unwrap();
        let status = await_some(SOON, "it ends", || comparison.process.try_wait().unwrap());
        errors.read_to_string(&mut said).unwrap();
        let number = signal.as_raw();
        assert_eq!(status.code(), Some(128 + number), "{said}");
        assert!(
            said.contains(&format!("stopped by signal {number}")),
            "{said}"
        );
        assert_eq!(processes_of(&logs), [], "{said}");
        assert_eq!(entries(&logs), [""; 0], "{said}");
        assert_eq!(fs::read_to_string(&page_file).unwrap(), "an earlier report");
    }
}
