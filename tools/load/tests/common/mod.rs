//! A herd of real servers, a server that does what a test tells it, and the program to load them. Everything has a deadline.

#![allow(dead_code, reason = "each test program uses its own part of this")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test ends at what it did not expect"
)]

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::thread;

use herd_testkit::herd::{self, Server};
use herd_testkit::streams;
pub(crate) use herd_testkit::streams::DEADLINE;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// Some servers that run, linked in a line unless it is said otherwise.
pub(crate) struct Herd {
    pub(crate) config: String,
    pub(crate) servers: Vec<Server>,
    pub(crate) herd: herd::Herd,
}

impl Herd {
    /// Servers with these names, each linked with the next.
    pub(crate) fn start(names: &[&str]) -> Herd {
        let links = names.windows(2).map(|pair| (pair[0], pair[1]));
        Herd::start_with(names, &links.collect::<Vec<_>>(), "warn", "")
    }

    /// Servers with these links that log at this level; `more` is added to the config file.
    pub(crate) fn start_with(
        names: &[&str],
        links: &[(&str, &str)],
        level: &'static str,
        more: &str,
    ) -> Herd {
        Herd::of(herd::Herd::new(names, links).level(level).with(more))
    }

    /// Where its files are.
    pub(crate) fn directory(&self) -> &Path {
        self.herd.directory.path()
    }

    /// All servers of that herd.
    pub(crate) fn of(herd: herd::Herd) -> Herd {
        let config = herd.config_file().to_str().unwrap().to_owned();
        let names = herd.names();
        Herd {
            config,
            servers: names.iter().map(|name| herd.start(name)).collect(),
            herd,
        }
    }

    /// Kills a server without a warning.
    pub(crate) fn kill(&mut self, number: usize) {
        self.servers[number].process().kill().unwrap();
    }

    /// Starts it again, where it was.
    pub(crate) fn start_again(&mut self, number: usize) {
        self.servers[number] = self.herd.start(&self.herd.names()[number]);
    }

    pub(crate) fn pid(&self, number: usize) -> String {
        self.servers[number].pid().to_string()
    }
}

/// What a played server knows of one connection.
#[derive(Default)]
pub(crate) struct Session {
    /// How many lines came before.
    pub(crate) lines: usize,
    /// The next answer is the last one: then the connection is closed.
    pub(crate) closes: bool,
    /// For the script to remember which connection it is.
    pub(crate) number: usize,
    /// The last right answer for each client.
    known: HashMap<String, String>,
}

/// An answer of Places.
pub(crate) const JSON: &str =
    "{\n   \"html_attributions\" : [],\n   \"results\" : [ {}, {} ],\n   \"status\" : \"OK\"\n}";

impl Session {
    /// The right answer to a line, as the server `Played` would give it.
    pub(crate) fn right(&mut self, line: &str) -> String {
        let fields: Vec<&str> = line.split(' ').collect();
        match fields[..] {
            ["IAMAT", client, place, time] => {
                let at = format!("AT Played +0.000000001 {client} {place} {time}\n");
                self.known.insert(client.to_owned(), at.clone());
                at
            }
            ["WHATSAT", client, _, _] => match self.known.get(client) {
                Some(at) => format!("{at}{JSON}\n\n"),
                None => format!("? {line}\n"),
            },
            _ => format!("? {line}\n"),
        }
    }
}

/// Plays a server that answers each line with what the script says; where that says nothing, it closes the connection.
pub(crate) fn play(
    script: impl Fn(&mut Session, &str) -> Option<String> + Send + Sync + 'static,
) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let script = Arc::new(script);
    thread::spawn(move || {
        for stream in listener.incoming() {
            let script = script.clone();
            let stream = stream.unwrap();
            thread::spawn(move || converse(stream, script.as_ref()));
        }
    });
    address
}

fn converse(
    mut stream: TcpStream,
    script: &(impl Fn(&mut Session, &str) -> Option<String> + ?Sized),
) {
    let mut session = Session::default();
    let lines = BufReader::new(stream.try_clone().unwrap()).lines();
    for line in lines.map_while(Result::ok) {
        let Some(answer) = script(&mut session, &line) else {
            return;
        };
        session.lines += 1;
        if stream.write_all(answer.as_bytes()).is_err() || session.closes {
            return;
        }
    }
}

/// How the program ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Ended {
    pub(crate) status: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ended {
    /// The figures, of a run that went well and told nothing to a standard error that is no terminal.
    pub(crate) fn figures(&self) -> Value {
        assert_eq!(
            (self.status, self.stderr.as_str()),
            (Some(0), ""),
            "{self:?}"
        );
        assert_eq!(self.stdout.lines().count(), 1, "{self:?}");
        serde_json::from_str(&self.stdout).unwrap()
    }

    /// The figures, of a run that ended with status 1, having said this.
    pub(crate) fn incomplete(&self, parts: &[&str]) -> Value {
        assert_eq!(self.status, Some(1), "{self:?}");
        for part in parts {
            assert!(self.stderr.contains(part), "{part:?} is not in {self:?}");
        }
        assert_eq!(self.stdout.lines().count(), 1, "{self:?}");
        serde_json::from_str(&self.stdout).unwrap()
    }

    /// It ended with this status, having said this and printed nothing.
    pub(crate) fn failed(&self, status: i32, parts: &[&str]) {
        assert_eq!(
            (self.status, self.stdout.as_str()),
            (Some(status), ""),
            "{self:?}"
        );
        assert!(self.stderr.starts_with("herd-load: "), "{self:?}");
        for part in parts {
            assert!(self.stderr.contains(part), "{part:?} is not in {self:?}");
        }
    }
}

/// The program with these arguments.
pub(crate) fn spawn(arguments: &[&str]) -> Child {
    Command::new(env!("CARGO_BIN_EXE_herd-load"))
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// The program while it runs; it is killed if the test does not come to its end.
pub(crate) struct Running {
    child: Child,
    stdout: Receiver<Vec<u8>>,
    stderr: Receiver<String>,
    /// What came of the standard error.
    said: String,
}

impl Running {
    /// The program with these arguments.
    pub(crate) fn start(arguments: &[&str]) -> Running {
        let mut child = spawn(arguments);
        let stdout = streams::all_of(child.stdout.take());
        let (sender, stderr) = channel();
        let errors = BufReader::new(child.stderr.take().unwrap());
        thread::spawn(move || {
            for line in errors.lines().map_while(Result::ok) {
                // The test may have heard enough.
                let _ = sender.send(line + "\n");
            }
        });
        Running {
            child,
            stdout,
            stderr,
            said: String::new(),
        }
    }

    /// Waits until its standard error has this text.
    pub(crate) fn wait_for(&mut self, text: &str) {
        while !self.said.contains(text) {
            match self.stderr.recv_timeout(DEADLINE) {
                Ok(line) => self.said.push_str(&line),
                Err(_) => panic!("{text:?} is not in {:?}", self.said),
            }
        }
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Ends it by Ctrl-C.
    pub(crate) fn interrupt(self) -> Ended {
        self.signal(Signal::INT);
        self.end()
    }

    /// Waits for the end.
    pub(crate) fn end(mut self) -> Ended {
        let stdout = self.stdout.recv_timeout(DEADLINE);
        let stdout = stdout.expect("the program is still running");
        self.said.extend(self.stderr.iter());
        Ended {
            status: self.child.wait().unwrap().code(),
            stdout: String::from_utf8(stdout).unwrap(),
            stderr: self.said.clone(),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It has ended, if the test went well.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs the program to its end.
pub(crate) fn run(arguments: &[&str]) -> Ended {
    end(spawn(arguments))
}

/// Waits for the end; a program that does not come to it is killed, and the test fails.
pub(crate) fn end(child: Child) -> Ended {
    let ended = streams::end(child);
    Ended {
        status: ended.status,
        stdout: String::from_utf8(ended.stdout).unwrap(),
        stderr: ended.stderr,
    }
}
