//! A herd of real servers, a server that does what a test tells it, and the program to load them. Everything has a deadline.

#![allow(dead_code, reason = "each test program uses its own part of this")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test ends at what it did not expect"
)]

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

/// Longer than anything takes here: reached only by a failure.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// The server's program. Cargo builds it, if it has not yet, and says where it is.
fn server_program() -> &'static PathBuf {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let mut build = herd_programs::build("herd-mio");
        let output = build.stderr(Stdio::inherit()).output().unwrap();
        assert!(output.status.success(), "the server cannot be built");
        let messages = String::from_utf8(output.stdout).unwrap();
        let executable = messages
            .lines()
            .find_map(|line| herd_programs::executable_in(line, "herd-mio"));
        executable.expect("cargo says where the server is")
    })
}

/// A loopback address that no other herd of this or another test process has.
fn own_address() -> Ipv4Addr {
    static COUNTER: AtomicU32 = AtomicU32::new(0);
    let count = COUNTER.fetch_add(1, Ordering::Relaxed) + 1;
    let [_, _, high, low] = std::process::id().to_be_bytes();
    let [.., c] = count.to_be_bytes();
    Ipv4Addr::new(127, 1 + high % 250, low, c)
}

/// Some servers that run, linked in a line.
pub(crate) struct Herd {
    pub(crate) directory: TempDir,
    pub(crate) config: String,
    pub(crate) servers: Vec<Server>,
}

/// One that runs; it is killed when the test is through with it.
pub(crate) struct Server {
    pub(crate) child: Child,
    pub(crate) address: SocketAddr,
    name: String,
    level: String,
    /// What it logs.
    pub(crate) log: Receiver<String>,
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
        level: &str,
        more: &str,
    ) -> Herd {
        Herd::start_in(tempfile::tempdir().unwrap(), names, links, level, more)
    }

    /// The same in this directory, which may have files that `more` names.
    pub(crate) fn start_in(
        directory: TempDir,
        names: &[&str],
        links: &[(&str, &str)],
        level: &str,
        more: &str,
    ) -> Herd {
        let ip = own_address();
        let ports: Vec<TcpListener> = (0..2 * names.len())
            .map(|_| TcpListener::bind((ip, 0)).unwrap())
            .collect();
        let links = links.iter().map(|(a, b)| format!("[{a:?}, {b:?}]"));
        let links = links.collect::<Vec<_>>().join(", ");
        let mut text = format!("links = [{links}]\n");
        for (name, ports) in names.iter().zip(ports.chunks(2)) {
            let [clients, peers] = [&ports[0], &ports[1]].map(|port| port.local_addr().unwrap());
            text.push_str(&format!(
                "[[servers]]\nname = {name:?}\nclients = \"{clients}\"\npeers = \"{peers}\"\n"
            ));
        }
        text.push_str(more);
        drop(ports);
        let config = directory.path().join("herd.toml");
        std::fs::write(&config, text).unwrap();
        let config = config.to_str().unwrap().to_owned();
        let servers = names
            .iter()
            .map(|name| Server::start(name, &config, level, &directory))
            .collect();
        Herd {
            directory,
            config,
            servers,
        }
    }

    /// Kills a server without a warning.
    pub(crate) fn kill(&mut self, number: usize) {
        self.servers[number].child.kill().unwrap();
        self.servers[number].child.wait().unwrap();
    }

    /// Starts it again, where it was.
    pub(crate) fn start_again(&mut self, number: usize) {
        let Server { name, level, .. } = &self.servers[number];
        self.servers[number] = Server::start(name, &self.config, level, &self.directory);
    }

    pub(crate) fn pid(&self, number: usize) -> String {
        self.servers[number].child.id().to_string()
    }
}

impl Server {
    fn start(name: &str, config: &str, level: &str, directory: &TempDir) -> Server {
        let mut command = Command::new(server_program());
        for (variable, _) in std::env::vars_os() {
            if variable.to_string_lossy().starts_with("HERD_") {
                command.env_remove(variable);
            }
        }
        let mut child = command
            .args([name, "--config", config, "--log-file", "-"])
            .args(["--log-level", level])
            .env("HERD_SECRET", "the secret of this herd")
            .current_dir(directory.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (sender, log) = channel();
        let errors = BufReader::new(child.stderr.take().unwrap());
        thread::spawn(move || {
            for line in errors.lines().map_while(Result::ok) {
                // The test may have heard enough.
                let _ = sender.send(line);
            }
        });
        let mut ready = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut ready)
            .unwrap();
        let address = ready
            .split_once("clients on ")
            .and_then(|(_, rest)| rest.split([',', '\n']).next()?.parse().ok());
        Server {
            address: address.unwrap_or_else(|| panic!("{name} did not start: {ready:?}")),
            name: name.to_owned(),
            level: level.to_owned(),
            child,
            log,
        }
    }

    /// Waits for so many log lines with this text in them.
    pub(crate) fn wait_for_logs(&self, count: usize, text: &str) {
        for _ in 0..count {
            self.wait_for_log(text);
        }
    }

    /// Waits for a log line with this text in it.
    pub(crate) fn wait_for_log(&self, text: &str) {
        while !self.log.recv_timeout(DEADLINE).unwrap().contains(text) {}
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
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
    stdout: Receiver<String>,
    stderr: Receiver<String>,
    /// What came of the standard error.
    said: String,
}

impl Running {
    /// The program with these arguments.
    pub(crate) fn start(arguments: &[&str]) -> Running {
        let mut child = spawn(arguments);
        let stdout = collect(child.stdout.take());
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
            stdout,
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
pub(crate) fn end(mut child: Child) -> Ended {
    let (stdout, stderr) = (collect(child.stdout.take()), collect(child.stderr.take()));
    match (stdout.recv_timeout(DEADLINE), stderr.recv_timeout(DEADLINE)) {
        (Ok(stdout), Ok(stderr)) => Ended {
            status: child.wait().unwrap().code(),
            stdout,
            stderr,
        },
        _ => {
            child.kill().unwrap();
            panic!("the program is still running after {DEADLINE:?}");
        }
    }
}

fn collect(stream: Option<impl Read + Send + 'static>) -> Receiver<String> {
    let (sender, receiver) = channel();
    thread::spawn(move || {
        let mut text = String::new();
        if let Some(mut stream) = stream {
            stream.read_to_string(&mut text).unwrap();
        }
        let _ = sender.send(text);
    });
    receiver
}
