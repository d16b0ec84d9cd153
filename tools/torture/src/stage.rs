//! The surroundings of the server under test: a directory, a stand-in for Places, a healthy
//! neighbour, and a data directory with the journal of an earlier life.
//!
//! ```text
//!   clients ──► Riley ══ dials ══► Jaquez ◄── a client
//!                 └── TLS ──► Places
//! ```
//!
//! The system chooses every port. The neighbour and Places have a host name in the config file, so
//! the server resolves names too.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use herd_client::standing::Standing;
use herd_mio::core::base::settings::Secret;
use herd_places::{Options, Places};
use herd_testkit::clock;
use herd_testkit::server::{self, Listening, Member};
use rustix::process::Signal;
use tempfile::TempDir;

use crate::connection::{Connection, Cut, cut, left};
use crate::ledger::{EARLIER, Ledger};
use crate::server::{ERR, Server};
use crate::strace::{self, Watch};
use crate::verdict::Reply;

/// The server under test.
pub(crate) const VICTIM: &str = "Riley";
/// The healthy neighbour.
pub(crate) const NEIGHBOUR: &str = "Jaquez";
/// The secret that both share.
const SECRET: &str = "not a secret: this herd lives for seconds, on loopback alone";

/// Files in the run's directory.
pub(crate) const LOG: &str = "riley.log";
pub(crate) const ROTATED_LOG: &str = "riley.log.1";
const DATA: &str = "data";
const JOURNAL: &str = "journal";
const CONFIG: &str = "herd.toml";
const CA: &str = "ca.pem";
/// The directory of the neighbour, and the one for the output of the server's next life.
const ASIDE: &str = "neighbour";
const NEXT_LIFE: &str = "next";

/// A healthy server is ready within half a second, but the machine may be busy.
const READY: Duration = Duration::from_secs(10);
/// The time limit for an answer of a healthy server.
const ANSWER: Duration = Duration::from_secs(10);
/// The time limit for a stop. A healthy server without open requests stops at once.
const STOP: Duration = Duration::from_secs(10);
/// The number of positions that each client sends in the earlier life. Old ones stay in the
/// journal, so that it needs compaction.
const EARLIER_UPDATES: usize = 16;

/// Shorter limits than the defaults, so that a run with waits ends soon. The journal reserves
/// little room, so its copy is quick.
const LIMITS: &str = "\
line_ms = 2000
output_stall_ms = 2000
linger_ms = 300
stop_ms = 1500
link_connect_ms = 600
link_proof_ms = 600
heartbeat_ms = 1000
link_silence_ms = 3000
redial_first_ms = 20
redial_cap_ms = 100
places_ms = 2000
lookup_ms = 800
places_connect_ms = 800
places_handshake_ms = 1000
journal_ahead_bytes = 65536
";
/// The journal is compacted when it is twice as long as its current records: at once, and again in
/// the conversation.
const COMPACTED: &str = "compact_bytes = 1\n";

/// The data directory of an earlier life. It is made once and copied for each run.
#[derive(Debug)]
pub(crate) struct Earlier {
    directory: TempDir,
    ledger: Ledger,
}

impl Earlier {
    /// Runs that life: some clients send several positions each.
    pub(crate) fn live(program: &Path) -> Result<Earlier, String> {
        let directory = directory()?;
        let path = directory.path();
        write_config(path, "127.0.0.1:4", "", "")?;
        let mut server = Server::start(victim(path, Command::new(program)), path)?;
        let mut ledger = Ledger::default();
        if let Err(what) = live_well(&mut server, &mut ledger) {
            let words = server.words();
            return Err(format!(
                "the server fails even without a fault: {what}; its standard error is {:?}",
                words.trim_end()
            ));
        }
        Ok(Earlier { directory, ledger })
    }

    /// The positions that were sent in it.
    pub(crate) fn ledger(&self) -> Ledger {
        self.ledger.clone()
    }
}

fn live_well(server: &mut Server, ledger: &mut Ledger) -> Result<(), String> {
    let listening = server
        .ready(clock::now() + READY)
        .ok_or("it is not ready in time")?;
    move_all(ledger, listening).map_err(|cut| format!("{cut:?}"))?;
    server.process.signal(Signal::TERM);
    match server.process.wait(clock::now() + STOP) {
        Some(status) if status.success() => Ok(()),
        Some(status) => Err(format!("it ended with {status}")),
        None => Err("it does not stop".to_owned()),
    }
}

fn move_all(ledger: &mut Ledger, listening: Listening) -> Result<(), Cut> {
    let deadline = clock::now() + ANSWER;
    let mut connection = Connection::open(listening.clients, deadline)?;
    for _ in 0..EARLIER_UPDATES {
        for client in EARLIER {
            let iamat = ledger.iamat(VICTIM, client);
            connection.send(&format!("{}\n", iamat.text), deadline)?;
            let line = connection.until(b"\n", deadline)?;
            if ledger.answered(&iamat, &line) != Reply::Right {
                return Err(Cut::Gone("a wrong answer".to_owned()));
            }
        }
    }
    Ok(())
}

/// The surroundings of one run.
#[derive(Debug)]
pub(crate) struct Stage {
    /// Dropped first: fields are dropped in this order, and the directory comes last.
    pub(crate) neighbour: Server,
    pub(crate) neighbour_listening: Listening,
    pub(crate) places: Places,
    program: PathBuf,
    path: PathBuf,
    _directory: TempDir,
}

impl Stage {
    /// Starts everything except the server under test.
    pub(crate) fn set(program: &Path, earlier: &Earlier) -> Result<Stage, String> {
        let told = |what: &'static str| move |error: io::Error| format!("cannot {what}: {error}");
        let temporary = directory()?;
        let path = temporary
            .path()
            .canonicalize()
            .map_err(told("find the run's directory"))?;
        let places = Places::start(Options::default()).map_err(told("start a Places"))?;
        fs::write(path.join(CA), places.ca_pem()).map_err(told("write a certificate"))?;

        let data = path.join(DATA);
        let journal = earlier.directory.path().join(DATA).join(JOURNAL);
        fs::create_dir(&data)
            .and_then(|()| fs::copy(journal, data.join(JOURNAL)))
            .map_err(told("copy the earlier life's journal"))?;

        let aside = path.join(ASIDE);
        fs::create_dir(&aside).map_err(told("make the neighbour's directory"))?;
        write_config(&aside, "127.0.0.1:4", "", "")?;
        let command = common(Command::new(program), NEIGHBOUR, &aside, &aside);
        let mut neighbour = Server::start(command, &aside)?;
        let Some(neighbour_listening) = neighbour.ready(clock::now() + READY) else {
            let words = neighbour.words();
            return Err(format!(
                "the neighbour does not start: {}",
                words.trim_end()
            ));
        };
        let port = neighbour_listening.peers.port();
        let asked = format!(
            "url = \"{}\"\nca_file = \"{}\"\n",
            places.url(),
            path.join(CA).display()
        );
        write_config(&path, &format!("localhost:{port}"), &asked, COMPACTED)?;
        Ok(Stage {
            neighbour,
            neighbour_listening,
            places,
            program: program.to_owned(),
            path,
            _directory: temporary,
        })
    }

    /// The run's directory.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Starts the server under test, traced.
    pub(crate) fn start_victim(&self, watch: Watch<'_>) -> Result<Server, String> {
        let mut command = strace::command(watch, &self.path);
        command.arg(&self.program);
        let mut command = victim(&self.path, command);
        command.env("HERD_PLACES_KEY", Options::default().key);
        Server::start(command, &self.path)
    }

    /// Starts the server again on the same data directory, without a fault and without a key for
    /// Places. Waits until it is ready.
    ///
    /// # Errors
    /// The server does not start. The text is its own message.
    pub(crate) fn start_again(&self) -> Result<(Server, Listening), String> {
        let aside = self.path.join(NEXT_LIFE);
        fs::create_dir_all(&aside)
            .map_err(|error| format!("cannot make a directory for its output: {error}"))?;
        let mut server = Server::start(victim(&self.path, Command::new(&self.program)), &aside)?;
        match server.ready(clock::now() + READY) {
            Some(listening) => Ok((server, listening)),
            None => Err(format!(
                "its standard error is: {}",
                server.words().trim_end()
            )),
        }
    }

    /// The server's log: the file that was moved away, then the new file.
    pub(crate) fn log(&self) -> String {
        let read = |name: &str| fs::read(self.path.join(name)).unwrap_or_default();
        let log = [read(ROTATED_LOG), read(LOG)].concat();
        String::from_utf8_lossy(&log).into_owned()
    }

    /// Copies the logs, the config file and the trace of a run to a directory.
    pub(crate) fn keep(&self, to: &Path) -> io::Result<()> {
        fs::create_dir_all(to)?;
        for name in [LOG, ROTATED_LOG, ERR, CONFIG, strace::TRACE] {
            let from = self.path.join(name);
            if from.exists() {
                fs::copy(from, to.join(name))?;
            }
        }
        let log = self.path.join(ASIDE).join(LOG);
        fs::copy(log, to.join("neighbour.log")).map(drop)
    }

    /// Waits until the neighbour reports a link with the server under test.
    pub(crate) fn is_linked(&self, deadline: Instant) -> bool {
        clock::wait_for(deadline, || {
            let address = self.neighbour_listening.peers;
            let standing = standing(address, NEIGHBOUR, deadline).ok()?;
            standing
                .linked
                .iter()
                .any(|name| name == VICTIM)
                .then_some(())
        })
        .is_some()
    }
}

/// Asks a server for its status.
///
/// # Errors
/// There is no answer before the deadline, or the answer breaks the protocol.
pub(crate) fn standing(
    neighbours: SocketAddr,
    name: &str,
    deadline: Instant,
) -> Result<Standing, Cut> {
    let secret = Secret::new(SECRET.as_bytes().to_vec());
    herd_client::standing::ask(neighbours, name, &secret, None, left(deadline)).map_err(cut)
}

fn directory() -> Result<TempDir, String> {
    tempfile::Builder::new()
        .prefix("herd-torture-")
        .tempdir()
        .map_err(|error| format!("cannot make a directory: {error}"))
}

/// The command of the server under test. It is added to `command`, which may begin with strace.
fn victim(directory: &Path, command: Command) -> Command {
    let mut command = common(command, VICTIM, directory, directory);
    command
        .arg("--data-dir")
        .arg(directory.join(DATA))
        .args(["--fsync", "always"]);
    command
}

fn common(mut command: Command, name: &str, config: &Path, log: &Path) -> Command {
    server::without_settings(&mut command);
    command
        .arg(name)
        .arg("--config")
        .arg(config.join(CONFIG))
        .args(["--listen", "127.0.0.1:0", "--listen-peers", "127.0.0.1:0"])
        .arg("--log-file")
        .arg(log.join(LOG))
        .args(["--log-level", "debug"])
        .env("HERD_SECRET", SECRET)
        .current_dir(log);
    command
}

/// Writes the herd's config file. The command lines override the listen addresses in it. Only the
/// address at which the neighbour is dialled matters.
fn write_config(
    directory: &Path,
    neighbour: &str,
    places: &str,
    more_limits: &str,
) -> Result<(), String> {
    let member = |name, clients, peers| Member {
        name,
        clients,
        peers,
    };
    let members = [
        member(VICTIM, "127.0.0.1:1", "127.0.0.1:2"),
        member(NEIGHBOUR, "127.0.0.1:3", neighbour),
    ];
    let herd = server::config(&[(VICTIM, NEIGHBOUR)], &members);
    let text = format!("{herd}\n[places]\n{places}\n[limits]\n{LIMITS}{more_limits}");
    let path = directory.join(CONFIG);
    fs::write(&path, text).map_err(|error| format!("cannot write {}: {error}", path.display()))
}
