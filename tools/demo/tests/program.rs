//! Tests of `herd-demo` as a user runs it: real processes, real ports, real signals.

#![cfg(unix)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test may fail"
)]

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use tempfile::TempDir;

/// Some seconds are enough, but the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(60);
/// A first run compiles the server.
const PATIENCE_TO_BUILD: Duration = Duration::from_secs(1200);

/// A running demo with its own directory for temporary files. Dropping it sends a signal, so that
/// its servers end too.
struct Demo {
    child: Child,
    lines: Receiver<String>,
    seen: String,
    errors: Option<JoinHandle<String>>,
    temporary: TempDir,
    deadline: Instant,
}

/// The status and the output of an ended demo.
struct End {
    status: ExitStatus,
    output: String,
    errors: String,
    temporary: TempDir,
}

impl Demo {
    fn start(arguments: &[&str], patience: Duration) -> Demo {
        let temporary = tempfile::tempdir().unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_herd-demo"))
            .args(arguments)
            .env("TMPDIR", temporary.path())
            // A user may have set this for another herd. It must not reach the servers of this one.
            .env("HERD_LISTEN", "127.0.0.1:1")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in output.lines() {
                let _ = sender.send(line.unwrap());
            }
        });
        let mut errors = child.stderr.take().unwrap();
        let errors = thread::spawn(move || {
            let mut text = String::new();
            errors.read_to_string(&mut text).unwrap();
            text
        });
        Demo {
            child,
            lines,
            seen: String::new(),
            errors: Some(errors),
            temporary,
            deadline: now() + patience,
        }
    }

    /// The next line, or `None` at the end.
    fn line(&mut self) -> Option<String> {
        match self
            .lines
            .recv_timeout(self.deadline.saturating_duration_since(now()))
        {
            Ok(line) => {
                self.seen.push_str(&line);
                self.seen.push('\n');
                Some(line)
            }
            Err(RecvTimeoutError::Disconnected) => None,
            Err(RecvTimeoutError::Timeout) => panic!("too slow; so far:\n{}", self.seen),
        }
    }

    /// Reads up to a line that contains this text.
    fn until(&mut self, text: &str) {
        while let Some(line) = self.line() {
            if line.contains(text) {
                return;
            }
        }
        panic!("no {text:?} in:\n{}", self.seen);
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Reads all that is left.
    fn end(mut self) -> End {
        while self.line().is_some() {}
        End {
            status: self.child.wait().unwrap(),
            output: std::mem::take(&mut self.seen),
            errors: self.errors.take().unwrap().join().unwrap(),
            temporary: std::mem::replace(&mut self.temporary, tempfile::tempdir().unwrap()),
        }
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        if self.child.try_wait().unwrap().is_none() {
            self.signal(Signal::TERM);
            self.child.wait().unwrap();
        }
    }
}

impl End {
    /// Asserts the exit status. A failure shows all output.
    #[track_caller]
    fn assert_status(&self, code: i32) {
        assert_eq!(
            self.status.code(),
            Some(code),
            "{}\n{}",
            self.output,
            self.errors
        );
    }

    /// Asserts that no process and no file is left.
    #[track_caller]
    fn assert_nothing_is_left(&self) {
        assert_ended(&processes(&self.output));
        let left: Vec<PathBuf> = files_in(self.temporary.path());
        assert!(left.is_empty(), "{left:?}");
    }
}

#[allow(
    clippy::disallowed_methods,
    reason = "this is the one place that asks what time it is"
)]
fn now() -> Instant {
    Instant::now()
}

/// A whole run. The first test that calls this runs the demo, which compiles the server if needed.
/// So no other test waits for a compiler.
fn whole_run() -> &'static End {
    static RUN: OnceLock<End> = OnceLock::new();
    RUN.get_or_init(|| Demo::start(&["--once"], PATIENCE_TO_BUILD).end())
}

/// Starts a demo, after the server was built.
fn demo(arguments: &[&str]) -> Demo {
    whole_run();
    Demo::start(arguments, PATIENCE)
}

/// The process ids in the demo's output.
fn processes(output: &str) -> Vec<i32> {
    let words: Vec<&str> = output.split_whitespace().collect();
    let numbers = words.windows(2).filter(|pair| pair[0] == "process");
    numbers.filter_map(|pair| pair[1].parse().ok()).collect()
}

#[track_caller]
fn assert_ended(processes: &[i32]) {
    for process in processes {
        let there = test_kill_process(Pid::from_raw(*process).unwrap());
        assert_eq!(there, Err(rustix::io::Errno::SRCH), "process {process}");
    }
}

fn files_in(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).unwrap();
    entries.map(|entry| entry.unwrap().path()).collect()
}

/// A shell script that takes the place of the server.
fn program(directory: &Path, script: &str) -> String {
    let path = directory.join("server");
    fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn a_full_run_succeeds_and_leaves_nothing() {
    let end = whole_run();
    end.assert_status(0);
    for line in [
        "All six links are up",
        "  → Riley     IAMAT kiwi.cs.ucla.edu +34.068930-118.445127 ",
        "  ← Riley     AT Riley +0.",
        "  → Campbell  WHATSAT kiwi.cs.ucla.edu 10 3",
        "  ⇢ Places    GET /maps/api/place/nearbysearch/json",
        "  ← Campbell  AT Riley +0.",
        "  ← Juzang    ? IAMAT kiwi.cs.ucla.edu 34.068930,-118.445127 1621464827",
        "  ← Riley     AT Bernard +0.",
        "Jaquez (down)",
        "  ← Jaquez    AT Bernard +0.",
        "All 9 answers were correct",
    ] {
        assert!(end.output.contains(line), "no {line:?} in:\n{}", end.output);
    }
    assert!(!end.output.contains('\x1b'), "colours in a pipe");
    assert!(!end.output.contains("runs until Ctrl-C"));
    assert_eq!(
        processes(&end.output).len(),
        6,
        "five, and Jaquez's second life"
    );
    end.assert_nothing_is_left();
}

#[test]
fn the_herd_uses_other_ports_if_one_is_in_use() {
    let usual = |place: u16| [10_000 + place, 11_000 + place];
    // If none can be bound, another test's herd may have them all. The demo then uses other ports
    // too, unless that herd ends first. So the test asserts less in that case.
    let squatter = (0..5)
        .flat_map(usual)
        .find_map(|port| TcpListener::bind(("127.0.0.1", port)).ok());
    let end = demo(&["--once"]).end();
    if squatter.is_some() {
        assert!(
            end.output.contains("listens on free ports instead"),
            "{}",
            end.output
        );
        for port in (0..5).flat_map(usual) {
            assert!(
                !end.output.contains(&format!("127.0.0.1:{port} ")),
                "{}",
                end.output
            );
        }
    }
    end.assert_status(0);
    end.assert_nothing_is_left();
}

#[test]
fn the_herd_stays_up_until_a_signal() {
    let mut demo = demo(&[]);
    demo.until("runs until Ctrl-C");
    demo.until("kill -9");
    demo.signal(Signal::TERM);
    let end = demo.end();
    end.assert_status(0);
    assert!(
        end.output.contains("All servers have stopped"),
        "{}",
        end.output
    );
    end.assert_nothing_is_left();
}

#[test]
fn a_server_that_ends_while_the_herd_is_up_is_reported() {
    let mut demo = demo(&[]);
    demo.until("kill -9");
    let juzang = processes(&demo.seen)[2];
    kill_process(Pid::from_raw(juzang).unwrap(), Signal::KILL).unwrap();
    demo.until("Juzang has ended");
    demo.until("[INFO ] ");
    demo.signal(Signal::INT);
    let end = demo.end();
    end.assert_status(0); // A user's `kill` is no failure of the server.
    end.assert_nothing_is_left();
}

#[test]
fn a_signal_during_the_start_leaves_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let list = directory.path().join("list");
    let sleeper = format!("echo $$ >>{}\nexec sleep 600", list.display());
    let demo = demo(&["--server-binary", &program(directory.path(), &sleeper)]);
    let started = await_list(&list, demo.deadline);
    demo.signal(Signal::TERM);
    let end = demo.end();
    end.assert_status(128 + 15);
    assert_ended(&started);
    end.assert_nothing_is_left();
}

/// This takes 6 seconds, the time that the demo waits after SIGTERM.
#[test]
fn servers_that_ignore_sigterm_are_killed() {
    let directory = tempfile::tempdir().unwrap();
    let list = directory.path().join("list");
    // An ignored signal stays ignored across exec.
    let stubborn = format!("trap '' TERM\necho $$ >>{}\nexec sleep 600", list.display());
    let demo = demo(&["--server-binary", &program(directory.path(), &stubborn)]);
    let started = await_list(&list, demo.deadline);
    demo.signal(Signal::HUP);
    let end = demo.end();
    end.assert_status(128 + 1);
    assert_ended(&started);
    end.assert_nothing_is_left();
}

/// The five processes that wrote their ids into the file.
fn await_list(path: &Path, deadline: Instant) -> Vec<i32> {
    loop {
        let text = fs::read_to_string(path).unwrap_or_default();
        if text.ends_with('\n') && text.lines().count() == 5 {
            return text.lines().map(|line| line.parse().unwrap()).collect();
        }
        assert!(now() < deadline, "only these started:\n{text}");
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_server_that_does_not_start_is_reported_and_files_kept() {
    let directory = tempfile::tempdir().unwrap();
    let broken = program(directory.path(), "echo 'it is broken' >&2\nexit 3");
    let end = demo(&["--once", "--server-binary", &broken]).end();
    end.assert_status(1);
    for line in [
        "does not start",
        "exit status: 3",
        "it is broken",
        "The logs and the config file are in",
    ] {
        assert!(end.errors.contains(line), "no {line:?} in:\n{}", end.errors);
    }
    let [kept] = &files_in(end.temporary.path())[..] else {
        panic!("{:?}", files_in(end.temporary.path()));
    };
    assert!(kept.join("herd.toml").exists());
    assert!(
        end.errors.contains(kept.to_str().unwrap()),
        "{}",
        end.errors
    );
}

/// Between the choice of free ports and their use, another program may take one.
#[test]
fn a_port_taken_meanwhile_is_retried_five_times() {
    let directory = tempfile::tempdir().unwrap();
    let unlucky =
        "echo 'herd-mio: cannot listen: Address already in use (os error 98)' >&2\nexit 1";
    let end = demo(&[
        "--once",
        "--server-binary",
        &program(directory.path(), unlucky),
    ])
    .end();
    end.assert_status(1);
    let tries = end.output.matches("Trying other ports.").count();
    assert_eq!(tries, 5, "{}", end.output);
    assert!(
        end.errors
            .contains("in 5 attempts, another program took a chosen port"),
        "{}",
        end.errors
    );
}

#[test]
fn a_wrong_ready_line_is_reported() {
    let directory = tempfile::tempdir().unwrap();
    let other = program(
        directory.path(),
        "echo 'herd-mio: here I am'\nexec sleep 600",
    );
    let end = demo(&["--once", "--server-binary", &other]).end();
    end.assert_status(1);
    assert!(
        end.errors.contains("got       herd-mio: here I am"),
        "{}",
        end.errors
    );
}

#[test]
fn a_missing_server_binary_is_reported() {
    let end = demo(&["--server-binary", "/nonexistent"]).end();
    end.assert_status(1);
    assert!(
        end.errors.contains("there is no server /nonexistent"),
        "{}",
        end.errors
    );
    end.assert_nothing_is_left();
}

#[test]
fn the_herd_is_stopped_when_stdout_is_closed() {
    whole_run();
    let temporary = tempfile::tempdir().unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_herd-demo"))
        .env("TMPDIR", temporary.path())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let mut errors = String::new();
    child
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut errors)
        .unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0), "{errors}");
    assert!(!errors.contains("panicked"), "{errors}");
    assert!(files_in(temporary.path()).is_empty());
}
