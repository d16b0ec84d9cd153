//! What the tests over real sockets share: a herd of real server processes, a client that knows the protocol, and waiting for
//! events with a deadline.
//!
//! Each herd lives on a loopback address of its own, on ports that the system chose there; so no two tests ever meet, and no
//! outgoing connection takes a port between its being chosen and its being used.

#![allow(dead_code, reason = "each test program uses its own part of this")]
#![allow(
    clippy::disallowed_methods,
    reason = "deadlines of tests are real time"
)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test ends at what it did not expect"
)]

use std::collections::HashMap;
use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// How long anything that should happen soon may take on a slow, busy machine.
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// A loopback address that no other herd of this or another test process has.
fn own_address() -> Ipv4Addr {
    static COUNTER: AtomicU32 = AtomicU32::new(0);
    let count = COUNTER.fetch_add(1, Ordering::Relaxed) + 1;
    let [_, _, high, low] = (std::process::id()).to_be_bytes();
    let [.., c] = count.to_be_bytes();
    Ipv4Addr::new(127, 1 + high % 250, low, c)
}

/// So many free ports of `ip`, chosen by the system; all are taken before any is let go, so no two are the same.
fn free_ports(ip: Ipv4Addr, count: usize) -> Vec<SocketAddr> {
    let taken: Vec<TcpListener> = (0..count)
        .map(|_| TcpListener::bind((ip, 0)).unwrap())
        .collect();
    taken
        .iter()
        .map(|listener| listener.local_addr().unwrap())
        .collect()
}

/// A herd on paper: its config file, and the options that every one of its servers is started with.
pub(crate) struct Herd {
    pub(crate) directory: TempDir,
    members: Vec<(String, SocketAddr, SocketAddr)>,
    links: Vec<(String, String)>,
    extra: String,
    top: String,
    environment: HashMap<String, String>,
    pub(crate) level: &'static str,
}

impl Herd {
    /// Servers and links; nothing is started.
    pub(crate) fn new(names: &[&str], links: &[(&str, &str)]) -> Herd {
        let ports = free_ports(own_address(), 2 * names.len());
        let members: Vec<_> = names
            .iter()
            .zip(ports.chunks(2))
            .map(|(name, ports)| (*name, ports[0], ports[1]))
            .collect();
        Herd::at(&members, links)
    }

    /// Servers, each with the address for clients and the one for neighbours that the test chose, and links; nothing is started.
    pub(crate) fn at(members: &[(&str, SocketAddr, SocketAddr)], links: &[(&str, &str)]) -> Herd {
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

    /// A herd of one.
    pub(crate) fn single() -> Herd {
        Herd::new(&["Riley"], &[])
    }

    /// The servers and links of a preset, on ports of our own.
    pub(crate) fn preset(year: &str) -> Herd {
        let preset = herd_mio::presets::by_year(year).unwrap();
        Herd::new(&preset.servers, preset.links)
    }

    /// TOML tables to be added to the config file.
    pub(crate) fn with(mut self, toml: &str) -> Herd {
        self.extra.push_str(toml);
        self
    }

    /// TOML tables to stand in the config file instead of those that were added before.
    pub(crate) fn with_instead(mut self, toml: &str) -> Herd {
        self.extra = toml.to_owned();
        self
    }

    /// The same between two starts of a server.
    pub(crate) fn replace_tables(&mut self, toml: &str) {
        self.extra = toml.to_owned();
    }

    /// TOML keys to stand at the top of the config file.
    pub(crate) fn with_top(mut self, toml: &str) -> Herd {
        self.top.push_str(toml);
        self
    }

    /// An environment variable for the servers.
    pub(crate) fn env(mut self, name: &str, value: &str) -> Herd {
        self.environment.insert(name.into(), value.into());
        self
    }

    /// Asks `places` with the key that is right for it.
    pub(crate) fn asking(self, places: &herd_places::Places) -> Herd {
        let ca = self.directory.path().join("ca.pem");
        fs::write(&ca, places.ca_pem()).unwrap();
        let toml = format!("[places]\nurl = {:?}\nca_file = {ca:?}\n", places.url());
        self.with(&toml).env("HERD_PLACES_KEY", "test-key")
    }

    /// How much the servers log.
    pub(crate) fn level(mut self, level: &'static str) -> Herd {
        self.level = level;
        self
    }

    pub(crate) fn names(&self) -> Vec<String> {
        self.members.iter().map(|(name, ..)| name.clone()).collect()
    }

    pub(crate) fn links(&self) -> &[(String, String)] {
        &self.links
    }

    /// Where clients of a server connect.
    pub(crate) fn clients_address(&self, name: &str) -> SocketAddr {
        let member = self.members.iter().find(|(other, ..)| other == name);
        member.unwrap().1
    }

    /// Where neighbours of a server connect.
    pub(crate) fn peers_address(&self, name: &str) -> SocketAddr {
        self.members
            .iter()
            .find(|(other, ..)| other == name)
            .unwrap()
            .2
    }

    pub(crate) fn config_file(&self) -> PathBuf {
        let mut links = String::new();
        for (a, b) in &self.links {
            write!(links, "[{a:?}, {b:?}], ").unwrap();
        }
        let mut text = format!("{}\nlinks = [{links}]\n", self.top);
        for (name, clients, peers) in &self.members {
            write!(
                text,
                "[[servers]]\nname = {name:?}\nclients = \"{clients}\"\npeers = \"{peers}\"\n"
            )
            .unwrap();
        }
        text.push_str(&self.extra);
        let path = self.directory.path().join("herd.toml");
        fs::write(&path, text).unwrap();
        path
    }

    /// The command that starts one of its servers, logging to its standard error.
    pub(crate) fn command(&self, name: &str) -> Command {
        let mut command = server_command();
        command.current_dir(self.directory.path());
        command
            .args([
                name,
                "--log-file",
                "-",
                "--log-level",
                self.level,
                "--config",
            ])
            .arg(self.config_file());
        command.envs(&self.environment);
        command
    }

    /// Starts one of its servers and waits until it is ready.
    pub(crate) fn start(&self, name: &str) -> Server {
        Server::start(&mut self.command(name))
    }

    /// Starts them all, and waits until every link is there.
    pub(crate) fn start_all(&self) -> HashMap<String, Server> {
        let servers: HashMap<String, Server> = self
            .members
            .iter()
            .map(|(name, ..)| (name.clone(), self.start(name)))
            .collect();
        for (a, b) in &self.links {
            servers[a].wait_for_log(&format!("neighbour {b} "), "linked");
            servers[b].wait_for_log(&format!("neighbour {a} "), "linked");
        }
        servers
    }
}

impl Herd {
    /// Starts them all without waiting for links, which a quiet log does not tell of.
    pub(crate) fn start_all_quietly(&self) -> HashMap<String, Server> {
        self.names()
            .into_iter()
            .map(|name| (name.clone(), self.start(&name)))
            .collect()
    }
}

/// The server program, without any setting from this process's environment.
pub(crate) fn server_command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_herd-mio"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("HERD_") {
            command.env_remove(name);
        }
    }
    command
}

#[derive(Default)]
struct Log {
    lines: Mutex<(Vec<String>, bool)>,
    more: Condvar,
}

impl Log {
    /// A test that failed with the lock in its hand is still to be shown the log.
    fn lock(&self) -> MutexGuard<'_, (Vec<String>, bool)> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A running server process. It is killed when the test is through with it.
pub(crate) struct Server {
    child: Child,
    pub(crate) address: SocketAddr,
    log: Arc<Log>,
}

impl Server {
    /// Starts it, collects what it logs to its standard error, and waits until it says that it is ready.
    pub(crate) fn start(command: &mut Command) -> Server {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = Arc::new(Log::default());
        let errors = child.stderr.take().unwrap();
        thread::spawn({
            let log = log.clone();
            move || {
                for line in BufReader::new(errors).split(b'\n').map_while(Result::ok) {
                    log.lock()
                        .0
                        .push(String::from_utf8_lossy(&line).into_owned());
                    log.more.notify_all();
                }
                log.lock().1 = true;
                log.more.notify_all();
            }
        });
        let mut ready = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut ready)
            .unwrap();
        let server = |address| Server {
            child,
            address,
            log,
        };
        match ready
            .split_once("clients on ")
            .and_then(|(_, rest)| rest.split([',', '\n']).next()?.parse().ok())
        {
            Some(address) => server(address),
            None => {
                let server = server(SocketAddr::from(([0; 4], 0)));
                server.wait_for_log_end();
                panic!(
                    "the server did not start: {ready:?} {:?}",
                    server.log_lines()
                );
            }
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// A client connected to it.
    pub(crate) fn client(&self) -> Client {
        Client::connect(self.address)
    }

    pub(crate) fn log_lines(&self) -> Vec<String> {
        self.log.lock().0.clone()
    }

    /// Waits for a log line with both texts in it, and returns it.
    pub(crate) fn wait_for_log(&self, one: &str, other: &str) -> String {
        self.wait_for_nth_log(1, one, other)
    }

    /// Waits for the `n`th such line (from 1).
    pub(crate) fn wait_for_nth_log(&self, n: usize, one: &str, other: &str) -> String {
        let found = |lines: &[String]| {
            lines
                .iter()
                .filter(|line| line.contains(one) && line.contains(other))
                .nth(n - 1)
                .cloned()
        };
        let deadline = Instant::now() + SOON;
        let mut state = self.log.lock();
        loop {
            if let Some(line) = found(&state.0) {
                return line;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(
                !left.is_zero(),
                "no log line {n} with {one:?} and {other:?} in:\n{}",
                state.0.join("\n")
            );
            state = self.log.more.wait_timeout(state, left).unwrap().0;
        }
    }

    fn wait_for_log_end(&self) {
        let state = self.log.lock();
        drop(
            self.log
                .more
                .wait_timeout_while(state, SOON, |state| !state.1)
                .unwrap(),
        );
    }

    /// The server's program answers whatever the system lets it.
    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// `kill -9`, and waits until it is gone.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Waits until it ended by itself; returns how, and its whole log.
    pub(crate) fn wait(mut self) -> (ExitStatus, Vec<String>) {
        let deadline = Instant::now() + SOON;
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(
                Instant::now() < deadline,
                "the server did not end:\n{}",
                self.log_lines().join("\n")
            );
            thread::park_timeout(Duration::from_millis(5));
        };
        self.wait_for_log_end();
        (status, self.log_lines())
    }

    /// Stops it with SIGTERM, and checks that it stopped cleanly.
    pub(crate) fn stop(self) -> Vec<String> {
        self.signal(Signal::TERM);
        let (status, log) = self.wait();
        assert_eq!(status.code(), Some(0), "{}", log.join("\n"));
        log
    }

    /// A number from `/proc/<pid>/status`, such as `VmRSS` in KiB.
    pub(crate) fn status(&self, key: &str) -> u64 {
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
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            eprintln!(
                "--- log of {} ---\n{}",
                self.address,
                self.log_lines().join("\n")
            );
        }
    }
}

/// A client that says what it sends and expects as a transcript.
pub(crate) struct Client {
    stream: TcpStream,
    received: Vec<u8>,
}

impl Client {
    pub(crate) fn connect(address: SocketAddr) -> Client {
        Client::of(TcpStream::connect_timeout(&address, SOON).unwrap())
    }

    /// A client over a socket that was made otherwise.
    pub(crate) fn of(stream: TcpStream) -> Client {
        stream.set_read_timeout(Some(SOON)).unwrap();
        stream.set_write_timeout(Some(SOON)).unwrap();
        stream.set_nodelay(true).unwrap();
        Client {
            stream,
            received: Vec::new(),
        }
    }

    pub(crate) fn stream(&self) -> &TcpStream {
        &self.stream
    }

    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) -> &mut Client {
        self.stream.write_all(bytes.as_ref()).unwrap();
        self
    }

    /// Ends the writing side.
    pub(crate) fn finish(&mut self) -> &mut Client {
        self.stream.shutdown(Shutdown::Write).unwrap();
        self
    }

    /// The next bytes up to and with `end`.
    pub(crate) fn until(&mut self, end: &[u8]) -> Vec<u8> {
        loop {
            if let Some(at) = self
                .received
                .windows(end.len())
                .position(|window| window == end)
            {
                let rest = self.received.split_off(at + end.len());
                return std::mem::replace(&mut self.received, rest);
            }
            let mut buffer = [0; 65536];
            match self.stream.read(&mut buffer) {
                Ok(0) => panic!(
                    "the server closed; received so far: {}",
                    self.received.escape_ascii()
                ),
                Ok(count) => self.received.extend_from_slice(&buffer[..count]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => panic!("{error}; received so far: {}", self.received.escape_ascii()),
            }
        }
    }

    /// The next line, without its LF, as text.
    pub(crate) fn line(&mut self) -> String {
        let mut line = self.until(b"\n");
        line.pop();
        String::from_utf8(line).unwrap()
    }

    /// An answer to `WHATSAT`: the line, and the JSON as it came.
    pub(crate) fn places(&mut self) -> (String, String) {
        let line = self.line();
        assert!(line.starts_with("AT "), "{line}");
        let mut json = String::from_utf8(self.until(b"\n\n")).unwrap();
        json.truncate(json.len() - 2);
        (line, json)
    }

    /// The next bytes must be these.
    pub(crate) fn expect(&mut self, bytes: impl AsRef<[u8]>) -> &mut Client {
        let expected = bytes.as_ref();
        while self.received.len() < expected.len() {
            let mut buffer = [0; 65536];
            match self.stream.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => self.received.extend_from_slice(&buffer[..count]),
                Err(error) => panic!(
                    "{error}; expected {}\nreceived {}",
                    expected.escape_ascii(),
                    self.received.escape_ascii()
                ),
            }
        }
        let rest = self
            .received
            .split_off(expected.len().min(self.received.len()));
        let received = std::mem::replace(&mut self.received, rest);
        assert!(
            received == expected,
            "expected {}\nreceived {}",
            expected.escape_ascii(),
            received.escape_ascii()
        );
        self
    }

    /// Everything until the server closes, which it must do cleanly.
    pub(crate) fn rest(&mut self) -> Vec<u8> {
        let mut received = std::mem::take(&mut self.received);
        self.stream
            .read_to_end(&mut received)
            .unwrap_or_else(|error| panic!("{error} after {}", received.escape_ascii()));
        received
    }

    /// The server must close now, with nothing more said.
    pub(crate) fn expect_end(&mut self) {
        let rest = self.rest();
        assert!(rest.is_empty(), "more came: {}", rest.escape_ascii());
    }

    /// Sends commands and returns the answers, a line each without its LF, that came before the server was gone.
    pub(crate) fn try_ask_all(&mut self, commands: &[Vec<u8>]) -> Vec<Vec<u8>> {
        let mut answers = Vec::new();
        if self.stream.write_all(&commands.concat()).is_err() {
            return answers;
        }
        while answers.len() < commands.len() {
            if let Some(end) = memchr::memchr(b'\n', &self.received) {
                let rest = self.received.split_off(end + 1);
                let mut line = std::mem::replace(&mut self.received, rest);
                line.pop();
                answers.push(line);
                continue;
            }
            let mut buffer = [0; 65536];
            match self.stream.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => self.received.extend_from_slice(&buffer[..count]),
                // One that says nothing is not gone.
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock) => {
                    panic!("no answer within {SOON:?}")
                }
                Err(_) => break,
            }
        }
        answers
    }

    /// Sends a command and returns its one line of answer, or `None` if the server is gone before it is whole.
    pub(crate) fn try_ask(&mut self, command: &str) -> Option<String> {
        let answer = self.try_ask_all(&[command.into()]).pop()?;
        String::from_utf8(answer).ok()
    }

    /// Sends a command and returns its one line of answer.
    pub(crate) fn ask(&mut self, command: &str) -> String {
        self.send(format!("{command}\n")).line()
    }

    /// Asks where `client` was last, until the answer's AT line satisfies `wanted`. Needs no Places: without a key, a `WHATSAT`
    /// is still answered with the record first.
    pub(crate) fn wait_for_record(
        &mut self,
        client: &str,
        wanted: impl Fn(&str) -> bool,
    ) -> String {
        let deadline = Instant::now() + SOON;
        loop {
            let line = self.ask(&format!("WHATSAT {client} 1 1"));
            if line.starts_with("AT ") {
                self.until(b"\n\n");
            }
            if wanted(&line) {
                return line;
            }
            assert!(
                Instant::now() < deadline,
                "the record of {client} is still {line:?}"
            );
            thread::park_timeout(Duration::from_millis(2));
        }
    }
}

/// The `AT` line without its skew, which the clock decides.
pub(crate) fn without_skew(line: &str) -> String {
    let mut fields: Vec<&str> = line.split(' ').collect();
    assert!(
        fields.len() == 6 && fields[0] == "AT",
        "not an AT line: {line:?}"
    );
    fields.remove(2);
    fields.join(" ")
}

/// Waits until `condition` holds.
pub(crate) fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + SOON;
    while !condition() {
        assert!(Instant::now() < deadline, "did not happen: {what}");
        thread::park_timeout(Duration::from_millis(2));
    }
}

/// Whether a file with that name is in a directory.
pub(crate) fn exists(directory: &Path, name: &str) -> bool {
    directory.join(name).exists()
}
