//! Helpers for programs that start servers: the config file of a herd, a clean environment, the
//! line that reports readiness, and the end of a process.

use std::fmt::Write as _;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Instant;

use rustix::process::{Pid, Signal, kill_process};

use crate::{cargo, clock};

/// A server in a config file.
#[derive(Clone, Copy, Debug)]
pub struct Member<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its address for clients in the config file.
    pub clients: &'a str,
    /// The address that its neighbours dial.
    pub peers: &'a str,
}

/// The config file's text for these links and servers. Further tables may follow. The first of two
/// linked servers dials.
#[must_use]
pub fn config(links: &[(&str, &str)], members: &[Member<'_>]) -> String {
    let mut text = String::new();
    // Writing into a String never fails.
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

/// Removes the `HERD_…` settings of this process's environment. They are meant for other herds, and
/// would override the config file of this one.
pub fn without_settings(command: &mut Command) -> &mut Command {
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("HERD_") {
            command.env_remove(name);
        }
    }
    command
}

/// The addresses of a server that is ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listening {
    /// The address for clients.
    pub clients: SocketAddr,
    /// The address for neighbours.
    pub peers: SocketAddr,
}

impl Listening {
    /// Reads `herd-WORLD NAME: clients on ADDRESS, neighbours on ADDRESS`. More may follow after
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

/// A child process. Dropping it kills and reaps it.
#[derive(Debug)]
pub struct Process {
    /// The child, for access to its pipes.
    pub child: Child,
}

impl Drop for Process {
    fn drop(&mut self) {
        // Fails if the process has ended by itself.
        let _ = self.kill();
    }
}

impl Process {
    /// Starts the process.
    ///
    /// # Errors
    /// The process cannot be started.
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

    /// Its exit status, if it has ended.
    pub fn status(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Waits for its end until the deadline.
    pub fn wait(&mut self, deadline: Instant) -> Option<ExitStatus> {
        clock::wait_for(deadline, || self.status())
    }

    /// Sends a signal, unless the process has ended.
    pub fn signal(&mut self, signal: Signal) {
        if !self.has_ended() {
            // The process is not reaped yet, so no other process has its id.
            let _ = kill_process(Pid::from_child(&self.child), signal);
        }
    }

    /// Sends SIGKILL and reaps the process.
    ///
    /// # Errors
    /// The system refuses the signal.
    pub fn kill(&mut self) -> io::Result<()> {
        self.child.kill()?;
        self.child.wait().map(drop)
    }
}

/// Builds a program of the workspace, with the arguments `more` for cargo, and waits for the end.
/// An up-to-date program takes a second, and an outdated one is never used. Cargo's messages go to
/// the standard error.
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
            "the build of {program} failed ({}); cargo's messages are above",
            output.status
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ready_line_of_every_server_is_parsed() {
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
    fn the_config_file_has_the_expected_text() {
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
    fn a_dropped_process_is_killed() {
        let process = Process::spawn(Command::new("sleep").arg("600")).unwrap();
        let id = Pid::from_child(&process.child);
        drop(process);
        assert!(rustix::process::test_kill_process(id).is_err());
    }
}
