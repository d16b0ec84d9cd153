//! Builds the server's program. A signal ends the build.

use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Child;

use herd_testkit::cargo::executable_in;
use rustix::process::{Pid, Signal, kill_process_group};

use crate::events::{Event, Events};
use crate::stop::{Stop, failure};

/// A running cargo and its compilers, which form a process group. Dropping it early ends the whole
/// group.
struct Build {
    cargo: Child,
    ended: bool,
}

impl Drop for Build {
    fn drop(&mut self) {
        if !self.ended {
            // Fails if cargo has just ended by itself.
            let _ = kill_process_group(Pid::from_child(&self.cargo), Signal::TERM);
            let _ = self.cargo.wait();
        }
    }
}

/// Builds the server with the profile and options of the demo's own build. Cargo's messages go to
/// the standard error.
pub(crate) fn build(events: &mut Events) -> Result<PathBuf, Stop> {
    let mut command = herd_testkit::cargo::build("herd-mio");
    command.process_group(0);
    let mut build = match command.spawn() {
        Ok(cargo) => Build {
            cargo,
            ended: false,
        },
        Err(error) => {
            let cargo = command.get_program().display();
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
            Some(Event::Line { text, .. }) => {
                executable = executable_in(&text, "herd-mio").or(executable)
            }
            Some(Event::Closed { .. }) => break,
            None => {}
        }
    }
    let status = build.cargo.wait()?;
    build.ended = true;
    match executable {
        Some(path) if status.success() => Ok(path),
        Some(_) | None => failure(format!(
            "the build of the server failed ({status}); cargo's messages are above"
        )),
    }
}
