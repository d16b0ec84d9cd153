//! What is tested of every tool: its standard output, and signals that its starter blocked.

#![allow(clippy::unwrap_used, reason = "a test ends at what it did not expect")]

use std::fs::File;
use std::process::{Child, Command};
use std::thread;
use std::time::Duration;

use nix::sys::signal::SigSet;

use crate::clock;

/// `--help` and what else is given here, each into a full disk and into a pipe that has no reader
/// any more.
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

/// Does that as a program does that has blocked every signal: children inherit it.
pub fn with_all_blocked<T: Send>(start: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| {
        let starter = scope.spawn(|| {
            SigSet::all().thread_block().unwrap();
            start()
        });
        starter.join().unwrap()
    })
}

/// The exit status of a child that has to end now; `None` if a signal ended it.
pub fn ends_soon(child: &mut Child) -> Option<i32> {
    let deadline = clock::now() + Duration::from_secs(20);
    let Some(status) = clock::wait_for(deadline, || child.try_wait().unwrap()) else {
        child.kill().unwrap();
        panic!("it does not end");
    };
    status.code()
}
