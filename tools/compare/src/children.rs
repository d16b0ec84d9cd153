//! Processes that are started and never left behind, also when a signal ends the comparison.
//!
//! ```text
//!   SIGINT, SIGTERM, SIGHUP ──► SIGTERM to every child ──► whoever waits for one hears of its end, and
//!                               no new one is started      passes the failure up; guards clean up on the way
//! ```
//!
//! Once signals are caught, each child is a process group of its own: compilers that cargo started end with it, and a Ctrl-C on the
//! terminal comes here first, so that no server's end is taken for a failure. Where nobody catches signals (tests), children stay
//! in the group of their parent, and what ends that ends them as well.

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

/// Cleaning up takes this long at most, which is more than a server gets to finish what it is answering; what is left then is killed.
const CLEANING: Duration = Duration::from_secs(10);

/// All children that were started and not yet reaped: their ids are theirs as long as they are in here.
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
                // They may have ended by themselves.
                let _ = kill_process_group(process, signal);
            }
        }
    }
}

/// From now on SIGINT, SIGTERM and SIGHUP (but after `nohup`) end all children; a second one does
/// not wait for anything.
///
/// # Errors
/// The system does not let them be caught.
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

/// For whoever waits for something else than a child.
///
/// # Errors
/// A signal came.
pub fn go_on() -> Result<(), String> {
    match signal() {
        Some(number) => Err(format!("stopped by signal {number}")),
        None => Ok(()),
    }
}

/// A child that was started. Dropped, it is killed and reaped, with all that it started.
#[derive(Debug)]
pub struct Running {
    /// For its pipes; it is only reaped through `Running`.
    pub child: Child,
    is_group: bool,
    is_reaped: bool,
}

impl Running {
    /// Starts it.
    ///
    /// # Errors
    /// It cannot be started, or a signal came before.
    pub fn spawn(command: &mut Command) -> io::Result<Running> {
        // Held until it is in the list: a signal finds it there, or keeps it from being started.
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
    /// The system does not say.
    pub fn try_wait(&mut self) -> io::Result<Option<ExitStatus>> {
        // Held until it is out of the list: nobody sends a signal to an id that may be another's by then.
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
    /// The system does not say.
    pub fn wait(&mut self) -> io::Result<ExitStatus> {
        let child = WaitId::Pid(Pid::from_child(&self.child));
        loop {
            if let Some(status) = self.try_wait()? {
                return Ok(status);
            }
            // It stays what it is until it is reaped above, so signals still find it.
            match waitid(child.clone(), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// SIGKILL. It is gone when this returns.
    ///
    /// # Errors
    /// The system does not let it be killed.
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
        // It fails only if it has ended already.
        let _ = self.kill();
    }
}

/// Runs a command to its end, as [`Command::output`] does.
///
/// # Errors
/// It cannot be run, or a signal came before.
pub fn output(command: &mut Command) -> io::Result<Output> {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut running = Running::spawn(command)?;
    let errors = running.child.stderr.take();
    // Both at once, so that it never waits for somebody to read.
    let errors = thread::spawn(move || all_of(errors));
    let stdout = all_of(running.child.stdout.take())?;
    let status = running.wait()?;
    let stderr = errors
        .join()
        .unwrap_or_else(|_| Err(io::Error::other("its errors could not be read")))?;
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
    fn both_outputs_and_the_status_are_there() {
        let mut command = Command::new("sh");
        // More than a pipe holds, on either.
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
    fn a_child_that_is_dropped_is_gone() {
        let running = Running::spawn(Command::new("sleep").arg("600")).unwrap();
        let process = Pid::from_child(&running.child);
        drop(running);
        assert!(rustix::process::test_kill_process(process).is_err());
    }
}
