//! One server of any world as a process: its command line, its start, its end.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use herd_testkit::clock::{self, now};
use herd_testkit::server::{Listening, Member, config, without_settings};
use rustix::process::{Pid, Signal, kill_process};

use crate::children::Running;
use crate::workshop::Program;
use crate::worlds::Recipe;

/// A server is ready within a second or two, but the machine may be busy.
const READY: Duration = Duration::from_secs(30);
/// After SIGTERM a server may finish its answers. After this time it gets SIGKILL.
const STOP: Duration = Duration::from_secs(8);
/// The log level of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    /// A line for each command and answer.
    Info,
    /// Warnings only.
    Warn,
}

impl LogLevel {
    /// Its name on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            LogLevel::Info => "info",
            LogLevel::Warn => "warn",
        }
    }
}

/// The server that is asked for places.
#[derive(Clone, Debug)]
pub struct Places {
    /// The URL, `https://host:port`.
    pub url: String,
    /// The only trusted certificate authority.
    pub ca_file: PathBuf,
    /// The API key. It is passed in the environment, because process listings show arguments.
    pub key: String,
}

/// The settings of a server.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Its name.
    pub name: String,
    /// Its address for clients.
    pub clients: SocketAddr,
    /// Its address for neighbours.
    pub peers: SocketAddr,
    /// The neighbours that it dials, with their addresses.
    pub dial: Vec<(String, SocketAddr)>,
    /// The neighbours that dial it.
    pub accept: Vec<String>,
    /// The herd's secret.
    pub secret: String,
    /// The server that it asks for places. `None` means that it has no key.
    pub places: Option<Places>,
    /// Its log level.
    pub log_level: LogLevel,
    /// The directory for its log, its config file and its standard error.
    pub directory: PathBuf,
}

impl Plan {
    /// Its log file.
    #[must_use]
    pub fn log_file(&self) -> PathBuf {
        self.directory.join(format!("{}.log", self.name))
    }

    /// The file with its standard error.
    #[must_use]
    pub fn error_file(&self) -> PathBuf {
        self.directory.join(format!("{}.stderr", self.name))
    }

    /// The command that starts it. herd-mio needs a config file for its neighbours, so the file is
    /// written.
    ///
    /// # Errors
    /// The config file cannot be written.
    pub fn command(&self, program: &Program) -> io::Result<Command> {
        let mut command = Command::new(&program.executable);
        command.args(&program.arguments).arg(&self.name);
        command.args(["--listen", &self.clients.to_string()]);
        command.args(["--listen-peers", &self.peers.to_string()]);
        match program.world.recipe {
            Recipe::Mio => {
                let path = self.directory.join(format!("{}.toml", self.name));
                fs::write(&path, self.config())?;
                command.arg("--config").arg(path);
            }
            Recipe::Python { .. }
            | Recipe::Node
            | Recipe::Java { .. }
            | Recipe::Go
            | Recipe::Cargo { .. } => {
                for (name, address) in &self.dial {
                    command.arg("--dial").arg(format!("{name}={address}"));
                }
                for name in &self.accept {
                    command.args(["--accept", name]);
                }
            }
        }
        if let Some(places) = &self.places {
            command.args(["--places-url", &places.url]);
            command.arg("--places-ca").arg(&places.ca_file);
        }
        command.arg("--log-file").arg(self.log_file());
        command.args(["--log-level", self.log_level.name()]);
        without_settings(&mut command);
        command.env("HERD_SECRET", &self.secret);
        if let Some(places) = &self.places {
            command.env("HERD_PLACES_KEY", &places.key);
        }
        command.envs(program.environment.iter().cloned());
        command.current_dir(&self.directory);
        Ok(command)
    }

    /// herd-mio's config file: this server and its neighbours, as a herd.
    fn config(&self) -> String {
        // The command line overrides this address for clients. Those of other servers are not used.
        let member = |name, peers| Member {
            name,
            clients: "127.0.0.1:0",
            peers,
        };
        // The command line overrides this address for neighbours too, but the file has to contain a
        // port.
        let never_dialled = "0.0.0.0:1";
        let dialled: Vec<_> = self.dial.iter().map(|(_, at)| at.to_string()).collect();
        let mut members = vec![member(&self.name, never_dialled)];
        let mut links = Vec::new();
        for ((name, _), address) in self.dial.iter().zip(&dialled) {
            members.push(member(name, address));
            links.push((self.name.as_str(), name.as_str()));
        }
        for name in &self.accept {
            members.push(member(name, never_dialled));
            links.push((name, &self.name));
        }
        config(&links, &members)
    }
}

/// A running server. Dropping it kills it.
#[derive(Debug)]
pub struct Server {
    plan: Plan,
    process: Running,
    /// Its address for clients.
    pub clients: SocketAddr,
    /// Its address for neighbours.
    pub peers: SocketAddr,
}

impl Server {
    /// Starts the server, and waits until it reports that it is ready.
    ///
    /// # Errors
    /// The server cannot be started, ends, or does not become ready. The text contains its standard
    /// error.
    pub fn start(program: &Program, plan: &Plan) -> Result<Server, String> {
        let name = &plan.name;
        let world = program.world.name;
        let told = |error: io::Error| format!("{name} ({world}): {error}");
        let mut command = plan.command(program).map_err(told)?;
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(File::create(plan.error_file()).map_err(told)?);
        let mut process = Running::spawn(&mut command).map_err(|error| {
            let executable = program.executable.display();
            format!("{name} ({world}): cannot run {executable}: {error}")
        })?;
        let output = process.child.stdout.take();
        let mut server = Server {
            plan: plan.clone(),
            process,
            clients: plan.clients,
            peers: plan.peers,
        };
        let line = output.map(first_line);
        let line = line.and_then(|line| line.recv_timeout(READY).ok());
        match line.as_deref().and_then(Listening::from_line) {
            Some(Listening { clients, peers }) => {
                (server.clients, server.peers) = (clients, peers);
                Ok(server)
            }
            None => {
                let how = match (&line, server.process.try_wait()) {
                    (None, Ok(None)) => format!("is not ready after {} s", READY.as_secs()),
                    (Some(line), Ok(None)) => {
                        format!("prints {line:?} when it is ready, which is not the expected line")
                    }
                    (_, Ok(Some(status))) => format!("does not start: {status}"),
                    (_, Err(error)) => format!("does not start: {error}"),
                };
                Err(format!("{name} ({world}) {how}\n{}", server.errors()))
            }
        }
    }

    /// The settings with which it was started.
    #[must_use]
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// The id of its process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.child.id()
    }

    /// The content of its log so far.
    #[must_use]
    pub fn log(&self) -> String {
        text_of(&self.plan.log_file())
    }

    /// The content of its standard error.
    #[must_use]
    pub fn errors(&self) -> String {
        text_of(&self.plan.error_file())
    }

    /// Sends SIGKILL, and waits for the end.
    ///
    /// # Errors
    /// The system refuses the signal.
    pub fn kill(mut self) -> io::Result<()> {
        self.process.kill()
    }

    /// Sends SIGTERM, and waits for the end.
    ///
    /// # Errors
    /// The server ended with a failure, or had to be killed after a while.
    pub fn stop(mut self) -> Result<(), String> {
        self.ask_to_stop();
        self.await_stop(now() + STOP)
    }

    /// Sends SIGTERM.
    pub(crate) fn ask_to_stop(&self) {
        // A server that has ended by itself is not reaped yet, so no other process has its id.
        let _ = kill_process(Pid::from_child(&self.process.child), Signal::TERM);
    }

    /// Waits for its end.
    pub(crate) fn await_stop(&mut self, deadline: Instant) -> Result<(), String> {
        let name = &self.plan.name;
        match clock::wait_for(deadline, || self.process.try_wait().ok().flatten()) {
            Some(status) if status.success() => Ok(()),
            Some(status) => Err(format!(
                "{name} did not stop cleanly: {status}\n{}",
                self.errors()
            )),
            None => Err(format!(
                "{name} still ran {} s after SIGTERM, so it was killed",
                STOP.as_secs()
            )),
        }
    }

    /// The deadline of a stop that begins now.
    pub(crate) fn stop_deadline() -> Instant {
        now() + STOP
    }
}

fn text_of(path: &Path) -> String {
    String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned()
}

/// The first line of an output, as soon as it is there. The rest is read and dropped, so that the
/// writer never blocks.
fn first_line(output: impl Read + Send + 'static) -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut output = BufReader::new(output);
        let mut line = String::new();
        if output.read_line(&mut line).is_ok_and(|count| count > 0) {
            let _ = sender.send(line.trim_end().to_owned());
        }
        let _ = io::copy(&mut output, &mut io::sink());
    });
    receiver
}
