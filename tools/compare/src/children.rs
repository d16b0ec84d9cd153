//! Child processes that always end with the comparison, also after a signal.
//!
//! ```text
//!   SIGINT, SIGTERM, SIGHUP ──► SIGTERM to every child ──► the wait for a child returns a failure,
//!                               no new one is started      and guards clean up on the way
//! ```
//!
//! After [`catch_signals`], each child is its own process group. So compilers that cargo started
//! end with it. And a Ctrl-C on the terminal reaches only this program, so the end of a server does
//! not look like a failure. In tests, which do not call it, children stay in their parent's group,
//! and a signal to the group ends them too.

use std::collections::BTreeSet;
use std::io::{self, Read};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use herd_testkit::signals;
use rustix::process::{
    Pid, Signal, WaitId, WaitIdOptions, kill_process, kill_process_group, waitid,
};
use signal_hook::iterator::Signals;

/// The time limit of the clean-up. A server needs less for its last answers. After it, children
/// that are left are killed.
const CLEANING: Duration = Duration::from_secs(10);

/// All children that were started and not reaped yet. As long as a child is in this set, no other
/// process has its id.
static CHILDREN: Mutex<Children> = Mutex::new(Children {
    running: BTreeSet::new(),
    is_caught: false,
    signal: None,
});

struct Children {
    running: BTreeSet<u32>,
    is_caught: bool,
    signal: Option<i32>,
}

impl Children {
    fn all() -> MutexGuard<'static, Children> {
        CHILDREN.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn signal_all(&self, signal: Signal) {
        for process in &self.running {
            let process = i32::try_from(*process).ok().and_then(Pid::from_raw);
            if let Some(process) = process {
                // Fails if the children have ended by themselves.
                let _ = kill_process_group(process, signal);
            }
        }
    }
}

/// From now on SIGINT, SIGTERM and SIGHUP (except under `nohup`) end all children. A second signal
/// kills them at once.
///
/// # Errors
/// The system refuses a handler.
pub fn catch_signals() -> io::Result<()> {
    signals::keep_children()?;
    let mut signals = Signals::new(signals::ends())?;
    Children::all().is_caught = true;
    let end = |signal: i32| {
        Children::all().signal_all(Signal::KILL);
        std::process::exit(128 + signal);
    };
    thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || {
            let mut signals = signals.forever();
            let Some(first) = signals.next() else {
                return;
            };
            {
                let mut children = Children::all();
                children.signal = Some(first);
                children.signal_all(Signal::TERM);
            }
            thread::spawn(move || {
                thread::sleep(CLEANING);
                end(first);
            });
            if let Some(second) = signals.next() {
                end(second);
            }
        })?;
    Ok(())
}

/// The signal that ends the comparison, if one came.
#[must_use]
pub fn signal() -> Option<i32> {
    Children::all().signal
}

/// A check for loops that do not wait for a child.
///
/// # Errors
/// A signal came.
pub fn go_on() -> Result<(), String> {
    match signal() {
        Some(number) => Err(format!("stopped by signal {number}")),
        None => Ok(()),
    }
}

/// A child process. Dropping it kills and reaps its group, if it has one.
#[derive(Debug)]
pub struct Running {
    /// The child, for access to its pipes. Only `Running` may reap it.
    pub child: Child,
    is_group: bool,
    is_reaped: bool,
}

impl Running {
    /// Starts the child.
    ///
    /// # Errors
    /// The child cannot be started, or a signal came before.
    pub fn spawn(command: &mut Command) -> io::Result<Running> {
        // Locked until the child is in the set. So a signal either finds it there, or prevents its
        // start.
        let mut children = Children::all();
        if let Some(number) = children.signal {
            return Err(io::Error::new(
                io::ErrorKind::Interrupted,
                format!("stopped by signal {number}"),
            ));
        }
        if children.is_caught {
            command.process_group(0);
        }
        let child = command.spawn()?;
        children.running.insert(child.id());
        Ok(Running {
            child,
            is_group: children.is_caught,
            is_reaped: false,
        })
    }

    /// Its status, if it has ended.
    ///
    /// # Errors
    /// The system does not return a status.
    pub fn try_wait(&mut self) -> io::Result<Option<ExitStatus>> {
        // Locked until the child is out of the set: its id may belong to another process then,
        // which must not get a signal.
        let mut children = Children::all();
        let status = self.child.try_wait()?;
        if status.is_some() {
            children.running.remove(&self.child.id());
            self.is_reaped = true;
        }
        Ok(status)
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// The system does not return a status.
    pub fn wait(&mut self) -> io::Result<ExitStatus> {
        let child = WaitId::Pid(Pid::from_child(&self.child));
        loop {
            if let Some(status) = self.try_wait()? {
                return Ok(status);
            }
            // NOWAIT leaves the child a zombie until it is reaped above. So its id stays valid for
            // signals.
            match waitid(child.clone(), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Sends SIGKILL and reaps the child.
    ///
    /// # Errors
    /// The system refuses the signal.
    pub fn kill(&mut self) -> io::Result<()> {
        if self.is_reaped {
            return Ok(());
        }
        let process = Pid::from_child(&self.child);
        match self.is_group {
            true => kill_process_group(process, Signal::KILL)?,
            false => kill_process(process, Signal::KILL)?,
        }
        self.wait().map(drop)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Fails only if the child has ended already.
        let _ = self.kill();
    }
}

/// Runs a command to its end, like [`Command::output`].
///
/// # Errors
/// The command cannot be run, or a signal came before.
pub fn output(command: &mut Command) -> io::Result<Output> {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut running = Running::spawn(command)?;
    let errors = running.child.stderr.take();
    // Both pipes are read at the same time, so that the child never blocks on a full one.
    let errors = thread::spawn(move || all_of(errors));
    let stdout = all_of(running.child.stdout.take())?;
    let status = running.wait()?;
    let stderr = errors
        .join()
        .unwrap_or_else(|_| Err(io::Error::other("its standard error could not be read")))?;
    Ok(Output {
        status,
        stdout,
        stderr,
    })
}

fn all_of(pipe: Option<impl Read>) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    if let Some(mut pipe) = pipe {
        pipe.read_to_end(&mut bytes)?;
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stdout_stderr_and_status_are_captured() {
        let mut command = Command::new("sh");
        // More than a pipe holds, on both streams.
        command.args([
            "-c",
            "head -c 300000 /dev/zero >&2; head -c 300001 /dev/zero; exit 7",
        ]);
        let output = output(&mut command).unwrap();
        assert_eq!(output.status.code(), Some(7));
        assert_eq!(
            (output.stdout.len(), output.stderr.len()),
            (300_001, 300_000)
        );
    }

    #[test]
    fn a_dropped_child_is_killed() {
        let running = Running::spawn(Command::new("sleep").arg("600")).unwrap();
        let process = Pid::from_child(&running.child);
        drop(running);
        assert!(rustix::process::test_kill_process(process).is_err());
    }
}
