//! The surroundings of a test: a built program, one server of it, a stand-in for Places, and waits
//! with a deadline.

use std::fs;
use std::io::{self, Write};
use std::path::Path;
use std::sync::{LazyLock, Mutex, PoisonError};
use std::thread;

use herd_compare::server::{self, LogLevel, Plan, Server};
use herd_compare::workshop::{Profile, Program, Unprepared, Workshop};
use herd_compare::worlds;
use herd_places::{Options, Places};
use herd_testkit::client::{Client, SOON};
use herd_testkit::transcripts::TRANSCRIPTS;
use herd_testkit::{clock, ports};
use tempfile::TempDir;

/// The secret of a herd's servers.
pub(crate) const SECRET: &str = "the herd's own secret";
/// The API key of the stand-in.
pub(crate) const KEY: &str = "test-key";

/// The program of a world's server. `None` if this machine cannot run it. The reason is shown once.
pub(crate) fn prepared(name: &'static str) -> Option<Program> {
    static WORKSHOP: LazyLock<Workshop> = LazyLock::new(|| {
        // Cargo gives each test program its own directory inside the target directory.
        let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
        Workshop::new(target, Profile::Dev)
    });
    static TOLD: Mutex<Vec<&str>> = Mutex::new(Vec::new());
    match WORKSHOP.prepare(worlds::by_name(name).unwrap()) {
        Ok(program) => Some(program),
        Err(Unprepared::Missing(reason)) => {
            let mut told = TOLD.lock().unwrap_or_else(PoisonError::into_inner);
            if !told.contains(&name) {
                told.push(name);
                tell(&format!("{name}: skipped: {reason}\n"));
            }
            None
        }
        Err(Unprepared::Failed(reason)) => panic!("{name} cannot be built: {reason}"),
    }
}

/// Writes to stderr directly: the test harness shows the output of `eprintln!` only after a
/// failure.
fn tell(text: &str) {
    io::stderr().write_all(text.as_bytes()).unwrap();
}

/// A stand-in for Google Places, with its certificate authority in a file.
pub(crate) fn stand_in(directory: &Path) -> (Places, server::Places) {
    let places = Places::start(Options::default()).unwrap();
    let ca_file = directory.join("ca.pem");
    fs::write(&ca_file, places.ca_pem()).unwrap();
    let told = server::Places {
        url: places.url(),
        ca_file,
        key: KEY.to_owned(),
    };
    (places, told)
}

/// One server, with the name Riley by default, and its stand-in for Places.
pub(crate) struct Scene {
    pub(crate) server: Option<Server>,
    pub(crate) places: Places,
    /// The directory of config, certificate and logs. It is removed with the scene.
    _directory: TempDir,
}

impl Scene {
    /// A single server.
    pub(crate) fn new(program: &Program) -> Scene {
        Scene::planned(program, |_| {})
    }

    /// A server with the settings that `change` makes.
    pub(crate) fn planned(program: &Program, change: impl FnOnce(&mut Plan)) -> Scene {
        let directory = tempfile::tempdir().unwrap();
        let (places, told) = stand_in(directory.path());
        let addresses = ports::free(2).unwrap();
        let mut plan = Plan {
            name: "Riley".to_owned(),
            clients: addresses[0],
            peers: addresses[1],
            dial: Vec::new(),
            accept: Vec::new(),
            secret: SECRET.to_owned(),
            places: Some(told),
            log_level: LogLevel::Info,
            directory: directory.path().to_owned(),
        };
        change(&mut plan);
        let server =
            Some(Server::start(program, &plan).unwrap_or_else(|failure| panic!("{failure}")));
        Scene {
            server,
            places,
            _directory: directory,
        }
    }

    pub(crate) fn server(&self) -> &Server {
        self.server.as_ref().unwrap()
    }

    /// A client that is connected to the server.
    pub(crate) fn client(&self) -> Client {
        Client::connect(self.server().clients)
    }

    /// A peer that is connected to the port for neighbours.
    pub(crate) fn neighbour(&self) -> Client {
        Client::connect(self.server().peers)
    }

    /// The status of the server.
    pub(crate) fn standing(&self) -> herd_client::standing::Standing {
        let server = self.server();
        herd_compare::herd::ask(server.peers, &server.plan().name, SECRET).unwrap()
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        if let (true, Some(server)) = (thread::panicking(), &self.server) {
            let log = server.log();
            let lines: Vec<&str> = log.lines().collect();
            let end = lines[lines.len().saturating_sub(40)..].join("\n");
            eprintln!(
                "--- the server's errors\n{}--- the end of its log\n{end}",
                server.errors()
            );
        }
    }
}

/// Waits until the condition returns no error.
pub(crate) fn wait_for<E: std::fmt::Display>(mut condition: impl FnMut() -> Result<(), E>) {
    let mut last = None;
    let holds = clock::wait_for(clock::now() + SOON, || match condition() {
        Ok(()) => Some(()),
        Err(why) => {
            last = Some(why);
            None
        }
    });
    if let (None, Some(why)) = (holds, last) {
        panic!("did not happen: {why}");
    }
}

/// The suite of transcripts, with one server.
pub(crate) fn clients(program: &Program) {
    let scene = Scene::new(program);
    for transcript in TRANSCRIPTS {
        transcript.play(&|| scene.client());
    }
}
