//! A herd of real server processes for a test, and their logs.
//!
//! Each herd has its own loopback address, and ports that the system chose there: see
//! [`crate::ports`].

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test ends at what it did not expect"
)]

use std::collections::HashMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::client::{Client, SOON};
use crate::server::{self, Listening, Member, Process};
use crate::{clock, ports};

/// A server that takes the place of Google Places.
pub trait PlacesServer {
    /// Its URL, `https://host:port`.
    fn url(&self) -> String;
    /// The certificate authority that signed its certificate.
    fn ca_pem(&self) -> &str;
}

/// The config file of a herd, and the options with which each of its servers is started.
#[derive(Debug)]
pub struct Herd {
    /// The directory of its files, which is the working directory of its servers.
    pub directory: TempDir,
    members: Vec<(String, SocketAddr, SocketAddr)>,
    links: Vec<(String, String)>,
    extra: String,
    top: String,
    environment: HashMap<String, String>,
    /// The log level of the servers.
    pub level: &'static str,
}

impl Herd {
    /// A herd with these servers and links. No server is started.
    pub fn new(names: &[&str], links: &[(&str, &str)]) -> Herd {
        let ports = ports::free(2 * names.len()).unwrap();
        let members: Vec<_> = names
            .iter()
            .zip(ports.chunks(2))
            .map(|(name, ports)| (*name, ports[0], ports[1]))
            .collect();
        Herd::at(&members, links)
    }

    /// A herd with these servers and links. The test chooses the address for clients and the
    /// address for neighbours of each server. No server is started.
    pub fn at(members: &[(&str, SocketAddr, SocketAddr)], links: &[(&str, &str)]) -> Herd {
        let members = members
            .iter()
            .map(|(name, clients, peers)| (name.to_string(), *clients, *peers))
            .collect();
        let links = links
            .iter()
            .map(|(a, b)| (a.to_string(), b.to_string()))
            .collect();
        Herd {
            directory: tempfile::tempdir().unwrap(),
            members,
            links,
            extra: String::new(),
            top: String::new(),
            environment: HashMap::from([("HERD_SECRET".into(), "the herd's own secret".into())]),
            level: "debug",
        }
    }

    /// A herd of one server.
    pub fn single() -> Herd {
        Herd::new(&["Riley"], &[])
    }

    /// The servers and links of a preset, on free ports.
    pub fn preset(year: &str) -> Herd {
        let preset = herd_mio::presets::by_year(year).unwrap();
        Herd::new(&preset.servers, preset.links)
    }

    /// Adds TOML tables to the config file.
    pub fn with(mut self, toml: &str) -> Herd {
        self.extra.push_str(toml);
        self
    }

    /// Replaces the TOML tables that were added to the config file.
    pub fn with_instead(mut self, toml: &str) -> Herd {
        self.extra = toml.to_owned();
        self
    }

    /// The same for a herd whose config file changes between two starts of a server.
    pub fn replace_tables(&mut self, toml: &str) {
        self.extra = toml.to_owned();
    }

    /// Adds TOML keys at the top of the config file.
    pub fn with_top(mut self, toml: &str) -> Herd {
        self.top.push_str(toml);
        self
    }

    /// Sets an environment variable of the servers.
    pub fn env(mut self, name: &str, value: &str) -> Herd {
        self.environment.insert(name.into(), value.into());
        self
    }

    /// Lets the servers ask `places`, with its certificate authority and the right key.
    pub fn asking(self, places: &impl PlacesServer) -> Herd {
        let ca = self.directory.path().join("ca.pem");
        fs::write(&ca, places.ca_pem()).unwrap();
        let toml = format!("[places]\nurl = {:?}\nca_file = {ca:?}\n", places.url());
        self.with(&toml).env("HERD_PLACES_KEY", "test-key")
    }

    /// Sets the log level of the servers.
    pub fn level(mut self, level: &'static str) -> Herd {
        self.level = level;
        self
    }

    /// The names of its servers.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        self.members.iter().map(|(name, ..)| name.clone()).collect()
    }

    /// Its links. The first of two servers dials.
    #[must_use]
    pub fn links(&self) -> &[(String, String)] {
        &self.links
    }

    /// The address for clients of a server.
    pub fn clients_address(&self, name: &str) -> SocketAddr {
        let member = self.members.iter().find(|(other, ..)| other == name);
        member.unwrap().1
    }

    /// The address for neighbours of a server.
    pub fn peers_address(&self, name: &str) -> SocketAddr {
        self.members
            .iter()
            .find(|(other, ..)| other == name)
            .unwrap()
            .2
    }

    /// Writes the config file, and returns its path.
    pub fn config_file(&self) -> PathBuf {
        let links = self.links.iter();
        let links: Vec<_> = links.map(|(a, b)| (a.as_str(), b.as_str())).collect();
        let addresses = |(_, clients, peers): &(String, SocketAddr, SocketAddr)| {
            (clients.to_string(), peers.to_string())
        };
        let addresses: Vec<_> = self.members.iter().map(addresses).collect();
        let mut members = Vec::new();
        for ((name, ..), (clients, peers)) in self.members.iter().zip(&addresses) {
            members.push(Member {
                name,
                clients,
                peers,
            });
        }
        let text = server::config(&links, &members);
        let path = self.directory.path().join("herd.toml");
        fs::write(&path, format!("{}\n{text}{}", self.top, self.extra)).unwrap();
        path
    }

    /// The command that starts one of its servers. The log goes to the standard error.
    #[must_use]
    pub fn command(&self, name: &str) -> Command {
        let mut command = server_command();
        command
            .current_dir(self.directory.path())
            .args([name, "--log-file", "-", "--log-level", self.level])
            .arg("--config")
            .arg(self.config_file())
            .envs(&self.environment);
        command
    }

    /// Starts one of its servers and waits until it is ready.
    #[must_use]
    pub fn start(&self, name: &str) -> Server {
        Server::start(&mut self.command(name))
    }

    /// Starts all servers, and waits until every link is up.
    #[must_use]
    pub fn start_all(&self) -> HashMap<String, Server> {
        let servers = self.start_all_quietly();
        for (a, b) in &self.links {
            servers[a].wait_for_log(&format!("neighbour {b} "), "linked");
            servers[b].wait_for_log(&format!("neighbour {a} "), "linked");
        }
        servers
    }

    /// Starts all servers without waiting for links. That is for log levels that do not report
    /// links.
    #[must_use]
    pub fn start_all_quietly(&self) -> HashMap<String, Server> {
        let names = self.names().into_iter();
        names
            .map(|name| (name.clone(), self.start(&name)))
            .collect()
    }
}

/// The server's program. Cargo and nextest pass its path to tests of the server's own package. For
/// tests of other packages, cargo builds it if it is not up to date.
#[must_use]
pub fn server_program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    let told = || {
        ["CARGO_BIN_EXE_herd-mio", "NEXTEST_BIN_EXE_herd-mio"]
            .into_iter()
            .find_map(std::env::var_os)
    };
    PROGRAM.get_or_init(|| match told() {
        Some(program) => program.into(),
        None => server::build("herd-mio", &[]).unwrap(),
    })
}

/// A command that runs the server's program, without the settings of this process's environment.
#[must_use]
pub fn server_command() -> Command {
    let mut command = Command::new(server_program());
    server::without_settings(&mut command);
    command
}

/// `herd-client status`, without the settings of this process's environment.
#[must_use]
pub fn status_command() -> Command {
    let mut command = client_command();
    command.arg("status");
    command
}

/// `herd-client`, without the settings of this process's environment. The program is taken
/// from the server's directory, because `cargo test` builds both there. It is built here only if it
/// is missing: a build for one package would compile half the workspace again, with other features.
#[must_use]
pub fn client_command() -> Command {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    let program = PROGRAM.get_or_init(|| {
        let beside = server_program().with_file_name("herd-client");
        match beside.exists() {
            true => beside,
            false => server::build("herd-client", &[]).unwrap(),
        }
    });
    let mut command = Command::new(program);
    server::without_settings(&mut command);
    command
}

#[derive(Debug, Default)]
struct Lines {
    lines: Vec<String>,
    has_ended: bool,
}

#[derive(Debug, Default)]
struct Log {
    lines: Mutex<Lines>,
    more: Condvar,
}

impl Log {
    /// Ignores poisoning: the log is still needed after a test failed while it held the lock.
    fn lock(&self) -> MutexGuard<'_, Lines> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A running server process. Dropping it kills it.
#[derive(Debug)]
pub struct Server {
    process: Process,
    /// Its address for clients.
    pub address: SocketAddr,
    log: Arc<Log>,
}

impl Server {
    /// Starts the process, collects the log from its standard error, and waits until it reports
    /// that it is ready.
    pub fn start(command: &mut Command) -> Server {
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut process = Process::spawn(command).unwrap();
        let log = Arc::new(Log::default());
        let errors = process.child.stderr.take().unwrap();
        thread::spawn({
            let log = log.clone();
            move || {
                for line in BufReader::new(errors).split(b'\n').map_while(Result::ok) {
                    let line = String::from_utf8_lossy(&line).into_owned();
                    log.lock().lines.push(line);
                    log.more.notify_all();
                }
                log.lock().has_ended = true;
                log.more.notify_all();
            }
        });
        let output = process.child.stdout.take().unwrap();
        let mut server = Server {
            process,
            address: SocketAddr::from(([0; 4], 0)),
            log,
        };
        let mut ready = String::new();
        BufReader::new(output).read_line(&mut ready).unwrap();
        let Some(listening) = Listening::from_line(&ready) else {
            server.wait_for_log_end();
            panic!(
                "the server did not start: {ready:?} {:?}",
                server.log_lines()
            );
        };
        server.address = listening.clients;
        server
    }

    /// The id of its process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Its process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// A client that is connected to it.
    #[must_use]
    pub fn client(&self) -> Client {
        Client::connect(self.address)
    }

    /// The lines that it has logged so far.
    #[must_use]
    pub fn log_lines(&self) -> Vec<String> {
        self.log.lock().lines.clone()
    }

    /// Waits for a log line that contains both texts, and returns it.
    pub fn wait_for_log(&self, one: &str, other: &str) -> String {
        self.wait_for_nth_log(1, one, other)
    }

    /// Waits for the `n`th such line (from 1).
    pub fn wait_for_nth_log(&self, n: usize, one: &str, other: &str) -> String {
        let is_it = |line: &&String| line.contains(one) && line.contains(other);
        let deadline = clock::now() + SOON;
        let mut state = self.log.lock();
        loop {
            if let Some(line) = state.lines.iter().filter(is_it).nth(n - 1) {
                return line.clone();
            }
            let left = deadline.saturating_duration_since(clock::now());
            assert!(
                !left.is_zero(),
                "no log line {n} with {one:?} and {other:?} in:\n{}",
                state.lines.join("\n")
            );
            state = self.log.more.wait_timeout(state, left).unwrap().0;
        }
    }

    fn wait_for_log_end(&self) {
        let more = &self.log.more;
        let wait = more.wait_timeout_while(self.log.lock(), SOON, |state| !state.has_ended);
        drop(wait.unwrap());
    }

    /// Sends a signal. The process must not have been reaped.
    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.process.child), signal).unwrap();
    }

    /// Sends SIGKILL and waits for the end.
    pub fn kill(mut self) {
        self.process.kill().unwrap();
    }

    /// Waits until the process ends by itself. Returns its status and its whole log.
    #[must_use]
    pub fn wait(mut self) -> (ExitStatus, Vec<String>) {
        let Some(status) = self.process.wait(clock::now() + SOON) else {
            panic!("the server did not end:\n{}", self.log_lines().join("\n"));
        };
        self.wait_for_log_end();
        (status, self.log_lines())
    }

    /// Stops it with SIGTERM, and asserts that it ends with status 0.
    pub fn stop(self) -> Vec<String> {
        self.signal(Signal::TERM);
        let (status, log) = self.wait();
        assert_eq!(status.code(), Some(0), "{}", log.join("\n"));
        log
    }

    /// A number from `/proc/<pid>/status`, such as `VmRSS` in KiB.
    pub fn status(&self, key: &str) -> u64 {
        let text = fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))
            .unwrap();
        line.split_whitespace().next().unwrap().parse().unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.process.kill();
        if thread::panicking() {
            eprintln!(
                "--- log of {} ---\n{}",
                self.address,
                self.log_lines().join("\n")
            );
        }
    }
}

/// Whether a file with that name is in a directory.
pub fn exists(directory: &Path, name: &str) -> bool {
    directory.join(name).exists()
}
