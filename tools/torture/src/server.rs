//! A server process: started, waited for, signalled, and never left behind.

use std::fs::{self, File};
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Instant;

use rustix::process::{Pid, Signal, kill_process};

use crate::clock;

/// Where its standard output and error go, in its directory.
pub(crate) const OUT: &str = "out";
pub(crate) const ERR: &str = "err";

/// Where a server that is ready listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Doors {
    pub(crate) clients: SocketAddr,
    pub(crate) neighbours: SocketAddr,
}

/// A server. Dropped, it is killed and waited for.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
    directory: PathBuf,
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Server {
    /// Starts the command, with its output in files of that directory: so that they have names for strace.
    pub(crate) fn start(mut command: Command, directory: &Path) -> Result<Server, String> {
        let file = |name: &str| {
            let path = directory.join(name);
            File::create(&path).map_err(|error| format!("cannot make {}: {error}", path.display()))
        };
        let child = command
            .stdin(Stdio::null())
            .stdout(file(OUT)?)
            .stderr(file(ERR)?)
            .spawn()
            .map_err(|error| {
                let program = command.get_program().display();
                format!("cannot run {program}: {error}")
            })?;
        Ok(Server {
            child,
            directory: directory.to_owned(),
        })
    }

    pub(crate) fn process(&self) -> u32 {
        self.child.id()
    }

    /// Waits until it says that it is ready; none if it ends before, or is late.
    pub(crate) fn ready(&mut self, deadline: Instant) -> Option<Doors> {
        let out = self.directory.join(OUT);
        clock::wait_for(deadline, || {
            let has_ended = self.has_ended();
            match doors(&fs::read_to_string(&out).unwrap_or_default()) {
                Some(doors) => Some(Some(doors)),
                None => has_ended.then_some(None),
            }
        })
        .flatten()
    }

    /// Whether it is gone.
    pub(crate) fn has_ended(&mut self) -> bool {
        self.status().is_some()
    }

    /// How it ended, if it has.
    pub(crate) fn status(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Waits until it has ended by itself.
    pub(crate) fn wait(&mut self, deadline: Instant) -> Option<ExitStatus> {
        clock::wait_for(deadline, || self.status())
    }

    /// Sends a signal, if it has not ended.
    pub(crate) fn signal(&mut self, signal: Signal) {
        if !self.has_ended() {
            // Not reaped yet, so its number is still its own.
            let _ = kill_process(Pid::from_child(&self.child), signal);
        }
    }

    /// SIGKILL, and waits until it is gone.
    pub(crate) fn kill(&mut self) -> io::Result<()> {
        self.child.kill()?;
        self.child.wait().map(drop)
    }

    /// What it wrote to its standard error.
    pub(crate) fn words(&self) -> String {
        let words = fs::read(self.directory.join(ERR)).unwrap_or_default();
        String::from_utf8_lossy(&words).into_owned()
    }
}

/// The addresses in `herd-mio NAME: clients on ADDRESS, neighbours on ADDRESS, log in FILE`.
fn doors(line: &str) -> Option<Doors> {
    let (_, rest) = line.strip_suffix('\n')?.split_once(": clients on ")?;
    let (clients, rest) = rest.split_once(", neighbours on ")?;
    let (neighbours, _) = rest.split_once(", log in ")?;
    Some(Doors {
        clients: clients.parse().ok()?,
        neighbours: neighbours.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_doors_are_in_the_line_that_says_ready() {
        let line = "herd-mio Riley: clients on 127.0.0.1:7, neighbours on [::1]:8, log in /x, y";
        assert_eq!(doors(line), None); // not whole yet
        assert_eq!(
            doors(&format!("{line}\n")),
            Some(Doors {
                clients: "127.0.0.1:7".parse().unwrap(),
                neighbours: "[::1]:8".parse().unwrap()
            })
        );
        assert_eq!(
            doors("herd-mio Riley: clients on 127.0.0.1:7, log in x\n"),
            None
        );
    }
}
