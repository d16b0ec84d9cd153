//! What is tested of every tool: its standard output, and signals that its starter blocked.

#![allow(dead_code, reason = "each test program uses its own part of this")]
#![allow(
    clippy::disallowed_methods,
    reason = "deadlines of tests are real time"
)]

use std::fs::File;
use std::process::{Child, Command};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::SigSet;

/// `--help` and what else is given here, each into a full disk and into a pipe that has no reader
/// any more.
pub(crate) fn output_is_honest(program: &str, more: &[&[&str]]) {
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

/// Does that as a program does that has blocked every signal: children inherit it.
pub(crate) fn with_all_blocked<T: Send>(start: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| {
        let starter = scope.spawn(|| {
            SigSet::all().thread_block().unwrap();
            start()
        });
        starter.join().unwrap()
    })
}

/// The exit status of a child that has to end now; `None` if a signal ended it.
pub(crate) fn ends_soon(child: &mut Child) -> Option<i32> {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status.code();
        }
        if Instant::now() > deadline {
            child.kill().unwrap();
            panic!("it does not end");
        }
        thread::park_timeout(Duration::from_millis(5));
    }
}
