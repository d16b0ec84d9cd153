//! Tests for every tool: its standard output, and signals that its parent process has blocked.

#![allow(clippy::unwrap_used, reason = "a test ends at what it did not expect")]

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use nix::sys::signal::SigSet;
use rustix::process::{Pid, Signal, kill_process};

use crate::clock;

/// Runs the program with `--help` and with each of `more`. The output goes to a full disk, and then
/// to a pipe without a reader.
pub fn output_is_honest(program: &str, more: &[&[&str]]) {
    for arguments in [&[&["--help"][..]], more].concat() {
        let command = || {
            let mut command = Command::new(program);
            command.args(arguments);
            command
        };
        let full = File::options().write(true).open("/dev/full").unwrap();
        let output = command().stdout(full).output().unwrap();
        let told = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {told}");
        assert!(
            told.contains("No space left on device"),
            "{arguments:?}: {told}"
        );

        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = command().stdout(writer).output().unwrap();
        let told = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {told}");
    }
}

/// Runs `start` on a thread that has blocked every signal. Children inherit the mask.
pub fn with_all_blocked<T: Send>(start: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| {
        let starter = scope.spawn(|| {
            SigSet::all().thread_block().unwrap();
            start()
        });
        starter.join().unwrap()
    })
}

/// The exit status of a child that has to end now. `None` if a signal ended it.
pub fn ends_soon(child: &mut Child) -> Option<i32> {
    let deadline = clock::now() + Duration::from_secs(20);
    let Some(status) = clock::wait_for(deadline, || child.try_wait().unwrap()) else {
        child.kill().unwrap();
        panic!("it does not end");
    };
    status.code()
}

/// Starts a program with every signal blocked, waits for its first line, and sends it a signal.
/// Returns its exit status as [`ends_soon`] does.
pub fn ends_at(signal: Signal, command: &mut Command) -> Option<i32> {
    command.stdout(Stdio::piped());
    let mut child = with_all_blocked(|| command.spawn().unwrap());
    let mut ready = String::new();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    stdout.read_line(&mut ready).unwrap();
    kill_process(Pid::from_child(&child), signal).unwrap();
    ends_soon(&mut child)
}

/// Longer than any program of a test needs.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// The status and the output of an ended program.
#[derive(Debug, PartialEq, Eq)]
pub struct Ended {
    /// Its exit status. `None` if a signal ended it.
    pub status: Option<i32>,
    /// Its standard output.
    pub stdout: Vec<u8>,
    /// Its standard error.
    pub stderr: String,
}

/// Waits for the end of a program whose standard output and error are pipes. At [`DEADLINE`] it is
/// killed, and the test fails.
#[must_use]
pub fn end(mut child: Child) -> Ended {
    drop(child.stdin.take());
    let (stdout, stderr) = (all_of(child.stdout.take()), all_of(child.stderr.take()));
    // When both pipes are closed, the program has ended or is about to.
    let (stdout, stderr) = match (stdout.recv_timeout(DEADLINE), stderr.recv_timeout(DEADLINE)) {
        (Ok(stdout), Ok(stderr)) => (stdout, stderr),
        _ => {
            child.kill().unwrap();
            panic!("the program is still running after {DEADLINE:?}");
        }
    };
    Ended {
        status: child.wait().unwrap().code(),
        stdout,
        stderr: String::from_utf8(stderr).unwrap(),
    }
}

/// Reads a pipe to its end on a thread of its own.
pub fn all_of(pipe: Option<impl Read + Send + 'static>) -> Receiver<Vec<u8>> {
    let (sender, receiver) = channel();
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            pipe.read_to_end(&mut bytes).unwrap();
        }
        // Fails if the test is over.
        let _ = sender.send(bytes);
    });
    receiver
}
