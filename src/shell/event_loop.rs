//! The loop: one thread, one poll, one turn after the other: asyncio's `BaseEventLoop._run_once`.
//!
//! ```text
//!   hand the log over ─► poll ─► note what is ready ─► accept ─► each ready connection: read ─► core
//!        ─► drive: deadlines, the journal, then each connection with output: write, finish or close
//! ```
//!
//! A turn runs only what was ready when it began, and reads at most one buffer of each connection.
//! What is still ready then is on the next turn's list, and that turn polls without waiting. So no
//! connection is served twice before each was served once.

use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use log::{info, warn};
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token, Waker};
use ring::rand::{SecureRandom, SystemRandom};
use rustix::io::Errno;
use rustix::net::sockopt;

use crate::core::clock::{Now, Time};
use crate::core::durability::Fsync;
use crate::core::journal::Entry;
use crate::core::limits::{TURN_BYTES, ms};
use crate::core::node::{ConnId, Io, Node, drive, expected_connections, perform_disk_work};
use crate::core::settings::{HostPort, Secrets, SecretsChange, Settings, TlsSettings};
use crate::shell::clock::Clock;
use crate::shell::disk::{Disk, OpenError};
use crate::shell::executor::Executor;
use crate::shell::listen::{self, Bound};
use crate::shell::look_up::{self, LookedUp};
use crate::shell::signals::{Requests, Signals};
use crate::shell::sockets::Sockets;
use crate::shell::transport::{Received, Transport};

// A connection's token is its id: index and generation.
const _: () = assert!(
    usize::BITS == 64,
    "a mio token has to hold an index and a generation"
);
const CLIENTS: Token = Token(usize::MAX);
const NEIGHBOURS: Token = Token(usize::MAX - 1);
const SIGNALS: Token = Token(usize::MAX - 2);
const EXECUTOR: Token = Token(usize::MAX - 3);

/// Events taken from the system at once.
const EVENTS: usize = 1024;
/// Connections accepted from one listener in one turn.
const ACCEPTS: usize = 64;
/// How long no connection is accepted after the system refused a new socket (out of descriptors, of
/// memory).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How long a start or a stop waits for the disk at once, until it looks whether a signal came.
const STOP_CHECK: Duration = Duration::from_millis(50);

/// How long `--check` waits for a name server at most.
const LOOK_UP_CHECK: Duration = Duration::from_secs(3);

/// A port, and who comes in there.
struct Listener {
    socket: TcpListener,
    token: Token,
    /// A connection may be waiting.
    ready: bool,
}

/// A server that runs.
pub struct Server {
    node: Node,
    sockets: Sockets,
    listeners: Vec<Listener>,
    /// After a failed accept: when to try again.
    accept_again: Option<Time>,
    /// An accept failed, and the connections that wait have not been accepted since.
    is_accept_failing: bool,
    /// Connections of this turn.
    running: Vec<ConnId>,
    looked_up: Receiver<LookedUp>,
    /// What is read anew when a signal asks for it, and the thread that reads.
    reload: Reload,
    reloads: Executor<Reload, Reloaded>,
    reloaded: Receiver<Reloaded>,
    signals: Signals,
    /// How long a stop waits for the disk.
    stop_timeout: Duration,
    scratch: Box<[u8]>,
}

/// Reads something anew, which takes files.
pub type Read<T> = Arc<dyn Fn() -> Result<T, String> + Send + Sync>;

/// What is read anew while a server runs.
#[derive(Clone, Default)]
pub struct Reload {
    /// Certificates and keys, if it has any.
    pub certificates: Option<Read<TlsSettings>>,
    /// The herd's secrets, if they are in a file; and what the operator should know of them.
    pub secrets: Option<Read<(Secrets, Vec<String>)>>,
}

/// What was read, and why it could not be.
struct Reloaded {
    certificates: Option<Result<TlsSettings, String>>,
    secrets: Option<Result<(Secrets, Vec<String>), String>>,
}

impl Reload {
    fn read(self) -> Reloaded {
        Reloaded {
            certificates: self.certificates.map(|read| read()),
            secrets: self.secrets.map(|read| read()),
        }
    }

    /// For the log.
    fn describe(&self) -> &'static str {
        match (&self.certificates, &self.secrets) {
            (Some(_), Some(_)) => {
                "certificates, keys and the herd secret are read anew; a changed config file or Places key takes a restart"
            }
            (Some(_), None) => {
                "certificates and keys are read anew; a changed config file, secret or Places key takes a restart"
            }
            (None, Some(_)) => {
                "the herd secret is read anew, there are no certificates to read anew; a changed config file or Places key takes a restart"
            }
            (None, None) => {
                "there are no certificates to read anew; a changed config file, secret or Places key takes a restart"
            }
        }
    }
}

/// Where a server keeps its journal, and how safely.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JournalConfig {
    /// The data directory.
    pub directory: PathBuf,
    /// When what was appended is synced.
    pub fsync: Fsync,
}

/// Why a server could not be started.
#[derive(Debug)]
pub enum StartError {
    /// The system lacks something that every server needs.
    System {
        /// What was being done.
        what: String,
        /// What the system said.
        error: io::Error,
    },
    /// A port could not be opened.
    Listen {
        /// Where.
        address: HostPort,
        /// What the system said.
        error: io::Error,
    },
    /// The journal cannot be used; in words.
    Journal(String),
    /// A signal stopped it before it served.
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
            _ => f.write_str("; choose where to listen with --listen and --listen-peers"),
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

impl Server {
    /// Opens the ports and begins to dial the neighbours. No client is served before
    /// [`Server::run`]. From here on SIGTERM and SIGINT are an orderly stop.
    ///
    /// # Errors
    /// A port cannot be opened, or the system lacks something that every server needs.
    pub fn start(
        settings: Settings,
        clients: &HostPort,
        neighbours: Option<&HostPort>,
        journal: Option<&JournalConfig>,
        reload: Reload,
        requests: Requests,
    ) -> Result<Server, StartError> {
        let needed = |error| StartError::System {
            what: "cannot start the event loop".into(),
            error,
        };
        let poll = Poll::new().map_err(needed)?;
        let expected = expected_connections(&settings.limits);
        let mut listeners = Vec::new();
        for port in Port::bind_all(clients, neighbours)? {
            port.bound.warnings.iter().for_each(|it| warn!("{it}"));
            listeners.extend(port.listen(&settings)?);
        }
        for listener in &mut listeners {
            poll.registry()
                .register(&mut listener.socket, listener.token, Interest::READABLE)
                .map_err(needed)?;
        }
        let mut signals = Signals::catch(requests).map_err(needed)?;
        poll.registry()
            .register(signals.source(), SIGNALS, Interest::READABLE)
            .map_err(needed)?;
        let waker = Arc::new(Waker::new(poll.registry(), EXECUTOR).map_err(needed)?);
        let mut seed = [0; 32];
        SystemRandom::new()
            .fill(&mut seed)
            .map_err(|_| needed(io::Error::other("no random numbers")))?;
        let clock = Clock::start();
        let name = settings.name.clone();
        let stop_timeout = ms(settings.limits.stop_ms);
        let mut node = Node::new(settings, &seed, clock.now());
        let mut disk = None;
        if let Some(JournalConfig { directory, fsync }) = journal {
            node.keep_journal(*fsync);
            let is_stopped = || signals.is_stop_asked();
            let restore = |entry: Entry<'_>| node.restore(entry);
            let (files, opened) = Disk::open(directory, &name, &waker, is_stopped, restore)?;
            node.journal_opened(opened);
            let clients = node.records().len();
            info!("journal: {clients} clients have a record now");
            disk = Some(files);
        }
        let (report_looked_up, looked_up) = channel();
        let (report_reloaded, reloaded) = channel();
        let resolver = Executor::new(
            "names",
            look_up::MAX_THREADS,
            waker.clone(),
            report_looked_up,
            look_up::look_up,
        );
        let mut server = Server {
            node,
            sockets: Sockets::new(poll, clock, resolver, disk, expected),
            listeners,
            accept_again: None,
            is_accept_failing: false,
            running: Vec::new(),
            looked_up,
            reload,
            reloads: Executor::new("reload", 1, waker, report_reloaded, Reload::read),
            reloaded,
            signals,
            stop_timeout,
            scratch: vec![0; TURN_BYTES].into_boxed_slice(),
        };
        server.begin_journal()?;
        Ok(server)
    }

    /// That this life has begun is safe before a neighbour hears of it; a journal of an old format
    /// is written anew first.
    fn begin_journal(&mut self) -> Result<(), StartError> {
        let mut is_synced = false;
        loop {
            let now = self.sockets.now();
            perform_disk_work(&mut self.node, &mut self.sockets, now);
            if let Some(reason) = self.node.failure() {
                return Err(StartError::Journal(reason.to_owned()));
            }
            let now = self.sockets.now();
            let Some(disk) = &mut self.sockets.disk else {
                return Ok(());
            };
            if let Some(done) = disk.wait(STOP_CHECK) {
                self.node.handle_disk_done(done, now);
            } else if self.node.next_deadline().is_some_and(|due| due <= now.time) {
                self.node.handle_deadlines(now); // the next step of a compaction
            } else if !disk.is_busy() {
                if std::mem::replace(&mut is_synced, true) {
                    return Ok(());
                }
                if let Some(done) = disk.sync_all() {
                    self.node.handle_disk_done(done, now);
                }
            }
            if self.signals.is_stop_asked() {
                return Err(StartError::Stopped);
            }
        }
    }

    /// What is left to be written is written: updates of neighbours, which nobody waited for. A
    /// disk without room is not waited for, one that hangs for `limits.stop_ms`, or until a second
    /// signal.
    fn finish_journal(&mut self) -> io::Result<()> {
        self.node.note_heard(self.sockets.now());
        let give_up_at = self.sockets.now().time + self.stop_timeout;
        let mut is_synced = false;
        loop {
            let now = self.sockets.now();
            perform_disk_work(&mut self.node, &mut self.sockets, now);
            if let Some(reason) = self.node.failure() {
                return Err(io::Error::other(reason.to_owned()));
            }
            let now = self.sockets.now();
            if self.signals.asked().stop || give_up_at <= now.time {
                return Err(io::Error::other(
                    "stopped before the disk had finished: a loss of power may undo what it was asked to keep last",
                ));
            }
            match &mut self.sockets.disk {
                None => return Ok(()),
                Some(disk) if disk.is_busy() => {
                    if let Some(done) = disk.wait(STOP_CHECK) {
                        self.node.handle_disk_done(done, now);
                    }
                }
                Some(disk) if !is_synced => {
                    is_synced = true;
                    if let Some(done) = disk.sync_all() {
                        self.node.handle_disk_done(done, now);
                    }
                }
                Some(_) => {
                    if let Some(disk) = self.sockets.disk.take() {
                        disk.close();
                    }
                    return Ok(());
                }
            }
        }
    }

    /// Where clients connect, with the port that the system chose if it had the choice.
    ///
    /// # Errors
    /// What the system says.
    pub fn clients_addresses(&self) -> io::Result<Vec<SocketAddr>> {
        self.addresses(CLIENTS)
    }

    /// Where neighbours connect, if anywhere.
    ///
    /// # Errors
    /// What the system says.
    pub fn neighbours_addresses(&self) -> io::Result<Vec<SocketAddr>> {
        self.addresses(NEIGHBOURS)
    }

    fn addresses(&self, token: Token) -> io::Result<Vec<SocketAddr>> {
        let listeners = self
            .listeners
            .iter()
            .filter(|listener| listener.token == token);
        listeners
            .map(|listener| listener.socket.local_addr())
            .collect()
    }

    /// Serves until a signal stops it.
    ///
    /// # Errors
    /// The poll itself failed; nothing that a client or a neighbour does leads here.
    pub fn run(mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(EVENTS);
        let now = self.sockets.now();
        drive(&mut self.node, &mut self.sockets, now);
        while !self.node.is_stopped() {
            log::logger().flush(); // before sleeping
            self.turn(&mut events)?;
            if let Some(reason) = self.node.failure() {
                return Err(io::Error::other(reason.to_owned()));
            }
        }
        self.finish_journal()
    }

    /// One turn: waits until something is ready, and serves it. [`Server::run`] is this again and
    /// again; a benchmark has it to itself.
    ///
    /// # Errors
    /// The poll itself failed.
    pub fn turn(&mut self, events: &mut Events) -> io::Result<()> {
        // All that the poll has to tell is noted, also if it is more than it can tell at once. See
        // `drive` for why deadlines are those of the moment before. One that ends the poll's wait
        // is one of the next turn.
        let began = self.sockets.now();
        self.poll(events, self.poll_timeout(began.time))?;
        for _ in 0..=self.node.connections() / EVENTS {
            if events.iter().count() < EVENTS {
                break;
            }
            self.poll(events, Some(Duration::ZERO))?;
        }
        self.accept();
        // Only who was ready when the turn began: whoever becomes ready in it is on the next turn's
        // list.
        self.sockets.take_ready(&mut self.running);
        for place in 0..self.running.len() {
            self.receive(self.running[place]);
        }
        self.running.clear();
        drive(&mut self.node, &mut self.sockets, began);
        Ok(())
    }

    /// Polls, and notes what is ready.
    fn poll(&mut self, events: &mut Events, timeout: Option<Duration>) -> io::Result<()> {
        match self.sockets.poll.poll(events, timeout) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                events.clear();
            }
            Err(error) => return Err(error),
        }
        self.note(events);
        if self.signals.is_pending() {
            self.signalled();
        }
        Ok(())
    }

    /// How long the poll may wait: not at all if a connection is still ready, or a signal came.
    fn poll_timeout(&self, now: Time) -> Option<Duration> {
        let acceptable =
            self.accept_again.is_none() && self.listeners.iter().any(|listener| listener.ready);
        // The byte of a signal may be lost: its handler cannot try again.
        if acceptable || self.sockets.is_ready() || self.signals.is_pending() {
            return Some(Duration::ZERO);
        }
        let deadline = self
            .node
            .next_deadline()
            .into_iter()
            .chain(self.accept_again)
            .min()?;
        Some(deadline.since(now))
    }

    fn note(&mut self, events: &Events) {
        for event in events {
            match event.token() {
                token @ (CLIENTS | NEIGHBOURS) => {
                    self.listeners
                        .iter_mut()
                        .filter(|listener| listener.token == token)
                        .for_each(|listener| listener.ready = true);
                }
                SIGNALS => self.signalled(),
                EXECUTOR => self.work_finished(),
                Token(number) => {
                    self.sockets.note(ConnId::from_u64(number as u64), event);
                }
            }
        }
    }

    /// An executor's thread has finished something.
    fn work_finished(&mut self) {
        let now = self.sockets.now();
        while let Ok((host, found)) = self.looked_up.try_recv() {
            self.node.handle_resolved(&host, found, now);
        }
        while let Some(done) = self.sockets.disk.as_mut().and_then(Disk::finished) {
            self.node.handle_disk_done(done, now);
        }
        while let Ok(Reloaded {
            certificates,
            secrets,
        }) = self.reloaded.try_recv()
        {
            match certificates {
                Some(Ok(tls)) => {
                    self.node.handle_reload(tls);
                    info!("TLS: certificates and keys were read anew");
                }
                Some(Err(error)) => warn!("TLS: the old certificates stay in use: {error}"),
                None => {}
            }
            match secrets {
                Some(Ok((secrets, notes))) => {
                    let count = match secrets.count() {
                        1 => "there is one",
                        _ => "there are two: the first is proven, both are taken",
                    };
                    let change = self.node.handle_secrets(secrets);
                    let changed = match change {
                        SecretsChange::Same => "no change",
                        SecretsChange::Step | SecretsChange::Break => "changed",
                    };
                    info!("the herd secret was read anew: {changed}, {count}");
                    if change == SecretsChange::Break {
                        warn!(
                            "this server and neighbours that have the herd secret of before do not link anew: a step of the change was skipped, or the file is half written"
                        );
                    }
                    notes.iter().for_each(|note| warn!("{note}"));
                }
                Some(Err(error)) => warn!("the old herd secret stays in use: {error}"),
                None => {}
            }
        }
    }

    fn signalled(&mut self) {
        let asked = self.signals.asked();
        if asked.reload {
            self.reload();
        }
        if asked.reopen_log {
            info!("SIGUSR1: the log is opened anew");
        }
        if asked.drain {
            info!("SIGUSR2 is ignored: it has no meaning yet");
        }
        if asked.stop {
            info!("stopping: {} connections", self.node.connections());
            self.listeners.clear();
            self.is_accept_failing = false;
            self.node.handle_stop(self.sockets.now());
        }
    }

    /// SIGHUP. The log's own writer opens the log anew.
    fn reload(&mut self) {
        let Reload {
            certificates,
            secrets,
        } = &self.reload;
        info!("SIGHUP: the log is opened anew, {}", self.reload.describe());
        if (certificates.is_some() || secrets.is_some())
            && let Err(error) = self.reloads.submit(self.reload.clone())
        {
            warn!("nothing is read anew: no thread to read files: {error}");
        }
    }

    fn accept(&mut self) {
        let now = self.sockets.now();
        if self.accept_again.is_some_and(|again| now.time < again) {
            return;
        }
        self.accept_again = None;
        for listener in 0..self.listeners.len() {
            for _ in 0..ACCEPTS {
                if !self.listeners[listener].ready {
                    break;
                }
                match self.listeners[listener].socket.accept() {
                    Ok((stream, address)) => {
                        self.admit(self.listeners[listener].token, stream, address, now)
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        self.listeners[listener].ready = false
                    }
                    // This client has left already (accept(2)); the next one has not.
                    Err(error)
                        if matches!(
                            error.kind(),
                            io::ErrorKind::Interrupted | io::ErrorKind::ConnectionAborted
                        ) => {}
                    Err(error) => {
                        // Told once, however long it lasts.
                        if !std::mem::replace(&mut self.is_accept_failing, true) {
                            warn!(
                                "cannot accept connections: {error}; trying again every {} ms",
                                ACCEPT_PAUSE.as_millis()
                            );
                        }
                        self.accept_again = Some(now.time + ACCEPT_PAUSE);
                        return;
                    }
                }
            }
        }
        if self.is_accept_failing && self.listeners.iter().all(|listener| !listener.ready) {
            self.is_accept_failing = false;
            info!("connections are accepted again");
        }
    }

    fn admit(&mut self, listener: Token, stream: TcpStream, address: SocketAddr, now: Now) {
        let admitted = match listener {
            CLIENTS => self.node.handle_client_connected(address, now),
            _ => self.node.handle_neighbour_connected(address, now),
        };
        if let Some(id) = admitted
            && let Err(why) = self.sockets.adopt(Transport::new(id, stream, false))
        {
            self.node.handle_connection_lost(id, Some(&why), now);
        }
    }

    /// One ready connection: finishes connecting, or reads once.
    fn receive(&mut self, id: ConnId) {
        let Some(transport) = self.sockets.transport(id) else {
            return;
        };
        transport.unqueue();
        match transport.finish_connecting() {
            Ok(true) => {
                let now = self.sockets.now();
                self.node.handle_connection_made(id, now);
            }
            Ok(false) => {}
            Err(error) => return self.lose(id, &error.to_string()),
        }
        let Some(transport) = self.sockets.transport(id) else {
            return;
        };
        if transport.is_writable() {
            self.node.handle_writable(id);
        }
        if !self.node.wants_read(id) {
            if transport.is_hung_up() {
                let error = transport.error();
                self.lose(id, &error);
            }
            return;
        }
        if !transport.is_readable() {
            return;
        }
        let received = transport.read(&mut self.scratch);
        // The time of receipt: not before the last byte was sent, or a clock that agrees with ours
        // would seem ahead of it.
        let now = self.sockets.now();
        match received {
            Ok(Received::Bytes(count)) => {
                let bytes = &self.scratch[..count];
                self.node.handle_data_received(id, bytes, now);
            }
            Ok(Received::End) => self.node.handle_eof_received(id, now),
            Ok(Received::Nothing) => {}
            Err(error) => self.lose(id, &error.to_string()),
        }
    }

    /// A socket is broken.
    fn lose(&mut self, id: ConnId, why: &str) {
        let now = self.sockets.now();
        self.sockets.close(id, Some(why));
        self.node.handle_connection_lost(id, Some(why), now);
    }
}

/// Does all that [`Server::start`] does, short of serving, and leaves nothing behind: binds the
/// ports, reads the journal. Returns what the operator should know, though the server would start.
///
/// # Errors
/// The server would not start.
pub fn check(
    settings: &Settings,
    clients: &HostPort,
    neighbours: Option<&HostPort>,
    journal: Option<&JournalConfig>,
) -> Result<Vec<String>, StartError> {
    let ports = Port::bind_all(clients, neighbours)?;
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

/// Resolver that the server looks up only once it serves. A start does not wait for them, so one
/// without an address is no failure.
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

/// A port of a server that is bound, and not listened to yet.
struct Port {
    token: Token,
    address: HostPort,
    bound: Bound,
}

impl Port {
    fn bind(token: Token, address: &HostPort) -> Result<Port, StartError> {
        match listen::bind(address) {
            Ok(bound) => Ok(Port {
                token,
                address: address.clone(),
                bound,
            }),
            Err(error) => Err(StartError::Listen {
                address: address.clone(),
                error,
            }),
        }
    }

    fn bind_all(
        clients: &HostPort,
        neighbours: Option<&HostPort>,
    ) -> Result<Vec<Port>, StartError> {
        let mut ports = vec![Port::bind(CLIENTS, clients)?];
        if let Some(neighbours) = neighbours {
            ports.push(Port::bind(NEIGHBOURS, neighbours)?);
        }
        Ok(ports)
    }

    fn listen(self, settings: &Settings) -> Result<Vec<Listener>, StartError> {
        let Port {
            token,
            address,
            bound,
        } = self;
        let sockets = bound.sockets.into_iter();
        let listeners: io::Result<_> = sockets
            .map(|socket| Listener::open(socket, token, settings))
            .collect();
        listeners.map_err(|error| StartError::Listen { address, error })
    }
}

impl Listener {
    fn open(socket: OwnedFd, token: Token, settings: &Settings) -> io::Result<Listener> {
        // Neighbours have heartbeats of their own.
        if token == CLIENTS {
            probe(&socket, ms(settings.limits.keepalive_ms))?;
        }
        let backlog = i32::try_from(settings.limits.accept_backlog).unwrap_or(i32::MAX);
        rustix::net::listen(&socket, backlog)?;
        Ok(Listener {
            socket: TcpListener::from_std(socket.into()),
            token,
            ready: false,
        })
    }
}

/// Has TCP ask the machines of clients that are silent for half of that time whether they are still
/// there, and give up after the other half (tcp(7)). What is accepted takes that over from the
/// socket that listens.
fn probe(listener: &OwnedFd, silence: Duration) -> rustix::io::Result<()> {
    const PROBES: u32 = 4;
    let half = silence / 2;
    sockopt::set_socket_keepalive(listener, true)?;
    sockopt::set_tcp_keepidle(listener, half.max(Duration::from_secs(1)))?;
    sockopt::set_tcp_keepintvl(listener, (half / PROBES).max(Duration::from_secs(1)))?;
    sockopt::set_tcp_keepcnt(listener, PROBES)?;
    // While something is not acknowledged, nothing is asked, and TCP would send it again for a
    // quarter of an hour.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    sockopt::set_tcp_user_timeout(
        listener,
        u32::try_from(silence.as_millis()).unwrap_or(u32::MAX),
    )?;
    Ok(())
}
