//! The errors of a start, and `--check`, which does everything that a start does except serving.

use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;
use std::sync::mpsc::channel;
use std::time::Duration;

use rustix::io::Errno;

use crate::core::base::settings::{HostPort, Settings};
use crate::core::journal::durability::Fsync;
use crate::core::journal::format::Entry;
use crate::core::node::Node;
use crate::shell::clock::Clock;
use crate::shell::disk::{Disk, OpenError};
use crate::shell::look_up;
use crate::shell::ports::{Port, Ports};

/// `--check` waits this long for the next look-up to end. After that, it does not wait for the
/// others.
const LOOK_UP_CHECK: Duration = Duration::from_secs(3);

/// The directory of a server's journal, and how durable the journal is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JournalConfig {
    /// The data directory.
    pub directory: PathBuf,
    /// When the server syncs appended entries to the disk.
    pub fsync: Fsync,
}

/// Why a server could not be started.
#[derive(Debug)]
pub enum StartError {
    /// The system lacks something that every server needs.
    System {
        /// What the server tried to do.
        what: String,
        /// The error from the system.
        error: io::Error,
    },
    /// A port could not be opened.
    Listen {
        /// The address on which the server tried to listen.
        address: HostPort,
        /// The error from the system.
        error: io::Error,
    },
    /// The journal cannot be used. The text says why.
    Journal(String),
    /// A signal stopped the server before it served.
    Stopped,
}

impl std::fmt::Display for StartError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let error = match self {
            StartError::Journal(what) => return f.write_str(what),
            StartError::Stopped => return f.write_str("stopped before it served"),
            StartError::System { what, error } => {
                write!(f, "{what}: {error}")?;
                error
            }
            StartError::Listen { address, error } => {
                write!(f, "cannot listen on {address}: {error}")?;
                error
            }
        };
        match error.kind() {
            _ if Errno::from_io_error(error) == Some(Errno::MFILE) => {
                f.write_str("; raise the limit of open files (ulimit -n)")
            }
            _ if matches!(self, StartError::System { .. }) => Ok(()),
            io::ErrorKind::AddrInUse => {
                f.write_str("; another program has that port: end it, or choose another port")
            }
            io::ErrorKind::AddrNotAvailable => {
                f.write_str("; no interface of this machine has that address: choose another")
            }
            io::ErrorKind::PermissionDenied => {
                f.write_str("; this user may not: choose a port from 1024 up")
            }
            _ => f.write_str("; choose where to listen with --listen, --listen-peers and --http"),
        }
    }
}

impl From<OpenError> for StartError {
    fn from(error: OpenError) -> StartError {
        match error {
            OpenError::Unusable(what) => StartError::Journal(what),
            OpenError::Stopped => StartError::Stopped,
        }
    }
}

/// Does everything that [`Server::start`](crate::shell::event_loop::Server::start) does, except
/// serving: it binds the ports and reads the journal. It leaves no files behind. Returns notes for
/// the operator, which do not prevent a start.
///
/// # Errors
/// The reason why the server would not start.
pub fn check(
    settings: &Settings,
    ports: &Ports,
    journal: Option<&JournalConfig>,
) -> Result<Vec<String>, StartError> {
    let ports = Port::bind_all(ports)?;
    let mut notes: Vec<String> = ports
        .into_iter()
        .flat_map(|port| port.bound.warnings)
        .collect();
    if let Some(JournalConfig { directory, .. }) = journal {
        let mut node = Node::new(settings.clone(), &[0; 32], Clock::start().now());
        let restore = |entry: Entry<'_>| node.restore(entry);
        let note = Disk::check(directory, &settings.name, restore)?;
        notes.extend(note);
    }
    notes.extend(unresolved(settings));
    Ok(notes)
}

/// Looks up the names that the server needs while it serves: the names of neighbours that it dials,
/// and the name of Google Places. Returns a note for each name that has no address now. A start
/// does not wait for look-ups, so such a name is no error.
fn unresolved(settings: &Settings) -> Vec<String> {
    let dialled = settings.neighbours.iter().filter(|it| it.we_dial);
    let dialled = dialled.map(|it| it.address.host.clone());
    let mut waiting: BTreeSet<String> = dialled.collect();
    if settings.places.key.is_some() {
        waiting.insert(settings.places.origin.host.clone());
    }
    let (report, found) = channel();
    for host in waiting.clone() {
        let report = report.clone();
        std::thread::spawn(move || report.send(look_up::look_up(host)));
    }
    let mut notes = Vec::new();
    let mut note = |host: &str, what: &str| {
        notes.push(format!(
            "the name {host} has no address now: {what}; the server starts all the same, and asks again"
        ));
    };
    while !waiting.is_empty()
        && let Ok((host, addresses)) = found.recv_timeout(LOOK_UP_CHECK)
    {
        waiting.remove(&host);
        if let Err(error) = addresses {
            note(&host, &error);
        }
    }
    for host in &waiting {
        note(host, "no answer from a name server yet");
    }
    notes
}
