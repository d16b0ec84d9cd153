//! What there is to know for a program that starts servers: the config file of a herd, a clean
//! environment, the line that says ready, and the end of a process.

use std::fmt::Write as _;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Instant;

use rustix::process::{Pid, Signal, kill_process};

use crate::{cargo, clock};

/// A server of a config file.
#[derive(Clone, Copy, Debug)]
pub struct Member<'a> {
    /// Its name.
    pub name: &'a str,
    /// Where it listens for clients, or is said to.
    pub clients: &'a str,
    /// Where its neighbours dial it.
    pub peers: &'a str,
}

/// The links and servers of a herd, as the config file has them. Further tables may follow. The
/// first of two linked servers dials.
#[must_use]
pub fn config(links: &[(&str, &str)], members: &[Member<'_>]) -> String {
    let mut text = String::new();
    // Writing into a String does not fail.
    for (dialler, acceptor) in links {
        let _ = write!(text, "\n    [{dialler:?}, {acceptor:?}],");
    }
    text = match links {
        [] => "links = []\n".to_owned(),
        _ => format!("links = [{text}\n]\n"),
    };
    for member in members {
        let _ = write!(
            text,
            "\n[[servers]]\nname = {:?}\nclients = {:?}\npeers = {:?}\n",
            member.name, member.clients, member.peers
        );
    }
    text
}

/// Removes the settings of this process's environment (`HERD_…`). They are meant for other herds,
/// and would win over the config file of this one.
pub fn without_settings(command: &mut Command) -> &mut Command {
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("HERD_") {
            command.env_remove(name);
        }
    }
    command
}

/// Where a server that is ready listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listening {
    /// For clients.
    pub clients: SocketAddr,
    /// For neighbours.
    pub peers: SocketAddr,
}

impl Listening {
    /// Reads `herd-WORLD NAME: clients on ADDRESS, neighbours on ADDRESS`. More may follow behind
    /// another comma. Of several addresses, the first is read.
    #[must_use]
    pub fn from_line(line: &str) -> Option<Listening> {
        let (_, rest) = line.split_once(": clients on ")?;
        let (clients, rest) = rest.split_once(", neighbours on ")?;
        let clients = clients.split(',').next()?;
        let peers = rest.split([',', '\n']).next()?;
        Some(Listening {
            clients: clients.parse().ok()?,
            peers: peers.parse().ok()?,
        })
    }
}

/// A process that was started. Dropped, it is killed and reaped.
#[derive(Debug)]
pub struct Process {
    /// For its pipes.
    pub child: Child,
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.kill();
    }
}

impl Process {
    /// Starts it.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn spawn(command: &mut Command) -> io::Result<Process> {
        command.spawn().map(|child| Process { child })
    }

    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Whether it has ended.
    pub fn has_ended(&mut self) -> bool {
        self.status().is_some()
    }

    /// Its status, if it has ended.
    pub fn status(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Waits for its end until the deadline.
    pub fn wait(&mut self, deadline: Instant) -> Option<ExitStatus> {
        clock::wait_for(deadline, || self.status())
    }

    /// Sends a signal, if it has not ended.
    pub fn signal(&mut self, signal: Signal) {
        if !self.has_ended() {
            // Not reaped yet, so its id is still its own.
            let _ = kill_process(Pid::from_child(&self.child), signal);
        }
    }

    /// SIGKILL. It is gone when this returns.
    ///
    /// # Errors
    /// The system does not let it be killed.
    pub fn kill(&mut self) -> io::Result<()> {
        self.child.kill()?;
        self.child.wait().map(drop)
    }
}

/// Builds a program of the workspace, with what `more` adds to cargo's command line, and waits for
/// it. It takes a second if it is there already; one that is there and out of date is never used.
/// Cargo's own words go to the standard error.
///
/// # Errors
/// Cargo cannot be run, or the program cannot be built.
pub fn build(program: &str, more: &[&str]) -> Result<PathBuf, String> {
    let mut command = cargo::build(program);
    command.args(more).stderr(Stdio::inherit());
    let output = command.output().map_err(|error| {
        let cargo = command.get_program().display();
        format!("cannot run {cargo} to build {program}: {error}")
    })?;
    let text = String::from_utf8_lossy(&output.stdout);
    let mut built = text
        .lines()
        .filter_map(|line| cargo::executable_in(line, program));
    match built.next_back() {
        Some(path) if output.status.success() => Ok(path),
        Some(_) | None => Err(format!(
            "{program} could not be built ({}); what cargo says is above",
            output.status
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_server_says_alike_that_it_is_ready() {
        let listening = Listening {
            clients: "127.0.0.1:1".parse().unwrap(),
            peers: "[::1]:2".parse().unwrap(),
        };
        for line in [
            "herd-go Riley: clients on 127.0.0.1:1, neighbours on [::1]:2",
            "herd-mio Riley: clients on 127.0.0.1:1, neighbours on [::1]:2, log in /x, y\n",
            "herd-mio Riley: clients on 127.0.0.1:1, [::1]:1, neighbours on [::1]:2, 127.0.0.1:2",
        ] {
            assert_eq!(Listening::from_line(line), Some(listening), "{line}");
        }
        for line in ["", "herd-mio Riley: clients on 127.0.0.1:1", "Traceback"] {
            assert_eq!(Listening::from_line(line), None, "{line}");
        }
    }

    #[test]
    fn a_config_file_is_what_the_server_reads() {
        let member = |name| Member {
            name,
            clients: "127.0.0.1:1",
            peers: "127.0.0.1:2",
        };
        let text = config(&[("A", "B")], &[member("A"), member("B")]);
        assert_eq!(
            text,
            "links = [\n    [\"A\", \"B\"],\n]\n\
             \n[[servers]]\nname = \"A\"\nclients = \"127.0.0.1:1\"\npeers = \"127.0.0.1:2\"\n\
             \n[[servers]]\nname = \"B\"\nclients = \"127.0.0.1:1\"\npeers = \"127.0.0.1:2\"\n"
        );
    }

    #[test]
    fn a_process_that_is_dropped_is_gone() {
        let process = Process::spawn(Command::new("sleep").arg("600")).unwrap();
        let id = Pid::from_child(&process.child);
        drop(process);
        assert!(rustix::process::test_kill_process(id).is_err());
    }
}
