//! The event loop: one thread, one poll, one turn after another, as in asyncio's
//! `BaseEventLoop._run_once`.
//!
//! ```text
//!   flush the log ─► poll ─► note what is ready ─► accept ─► each ready connection: read ─► core
//!        ─► drive: deadlines, the journal, then each connection with output: write, finish or close
//! ```
//!
//! A turn reads only the connections that were ready when the turn began. It reads at most one
//! buffer from each connection. A connection that is still ready at the end is put on the list of
//! the next turn, and the next turn polls without waiting. So no connection is served twice before
//! every other ready connection was served once.
//!
//! A turn reads for a limited time (`limits.turn_ms`). After that time, the turn handles deadlines
//! and output, even if there is more input. If a turn had no time for all its connections, the next
//! turn is *crowded*. A crowded turn serves neighbours and Places first, for at most half of the
//! time. Then it serves clients in rounds ([`Node::order_fairly`]). It reads fewer bytes from each
//! client.

use std::io;
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use log::{info, warn};
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token, Waker};
use ring::rand::{SecureRandom, SystemRandom};

use crate::core::base::clock::{Now, Time};
use crate::core::base::limits::{LINE_BYTES, LimitValue, TURN_BYTES};
use crate::core::base::settings::{SecretsChange, Settings};
use crate::core::journal::format::Entry;
use crate::core::node::{ConnId, Io, Node, drive, expected_connections, perform_disk_work};
use crate::core::session::connection_error::SocketError;
use crate::shell::clock::Clock;
use crate::shell::disk::Disk;
use crate::shell::executor::Executor;
use crate::shell::look_up::{self, LookedUp};
use crate::shell::ports::{CLIENTS, HTTP, Listener, NEIGHBOURS, Port, Ports};
use crate::shell::reload::{Reload, Reloaded};
use crate::shell::service_manager::{ServiceManager, Standing};
use crate::shell::signals::{SignalFlags, Signals};
use crate::shell::sockets::Sockets;
use crate::shell::start::{JournalConfig, StartError};
use crate::shell::transport::{Received, Transport};

// A connection's token is its id: an index and a generation, 64 bits together.
const _: () = assert!(
    usize::BITS == 64,
    "a mio token has to hold an index and a generation"
);
const SIGNALS: Token = Token(usize::MAX - 2);
const EXECUTOR: Token = Token(usize::MAX - 3);

/// The largest number of events that one poll returns.
const MAX_EVENTS: usize = 1024;
/// The largest number of connections that one listener accepts in one turn.
const MAX_ACCEPTS: usize = 64;
/// The largest number of times that a draining server accepts up to [`MAX_ACCEPTS`] clients from
/// each listener, before it closes the clients' port. The product of the two numbers is the maximum
/// of `limits.accept_backlog`, plus one.
const LAST_ACCEPTS: usize = 1_024;
/// The largest number of connections that a listener of the HTTP port accepts in one turn. In a
/// crowded turn, the listener accepts one. Reason: a new connection can displace an idle
/// connection. So a connection needs time to send its first request before many others are
/// accepted.
const MAX_HTTP_ACCEPTS: usize = 16;
/// The number of bytes that a crowded turn reads from each client: one line of the greatest
/// length.
const CROWDED_READ_BYTES: usize = LINE_BYTES + 1;
/// The maximum time by which deadlines are delayed if turns are crowded. During the delay, the
/// server reads input that arrived before the deadline.
const MAX_DEADLINE_DELAY: Duration = Duration::from_secs(1);
/// The time during which no connection is accepted after the system refused a new socket, for
/// example because it has no free descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A start or a stop waits for the disk in steps of this length, and checks for signals after each
/// step.
const STOP_CHECK: Duration = Duration::from_millis(50);

/// A running server: its state machine, its sockets and its signals.
pub struct Server {
    node: Node,
    sockets: Sockets,
    listeners: Vec<Listener>,
    /// The time of the next try after a failed accept. `None` if accepting works.
    accept_retry_at: Option<Time>,
    /// Whether an accept has failed since the listeners last had no more connections to accept.
    /// Only the first failure is logged.
    is_accept_failing: bool,
    /// The connections that this turn serves. Those for which the turn before had no time come
    /// first.
    running: Vec<ConnId>,
    /// The time since which no turn has had time for all its connections. `None` if the last turn
    /// served all its connections.
    crowded_since: Option<Time>,
    /// All deadlines up to this time were handled.
    handled_until: Now,
    /// The time limit for reading in one turn.
    turn_time: Duration,
    looked_up: Receiver<LookedUp>,
    /// How to read files again after SIGHUP. The thread of `reloads` reads them.
    reload: Reload,
    reloads: Executor<Reload, Reloaded>,
    reloaded: Receiver<Reloaded>,
    signals: Signals,
    manager: ServiceManager,
    /// The longest time that a stop waits for the disk.
    stop_timeout: Duration,
    scratch: Box<[u8]>,
}

impl Server {
    /// Opens the ports and the journal. No client is served and no neighbour is dialled before
    /// [`Server::run`]. From now on, SIGTERM and SIGINT stop the server in an orderly way.
    ///
    /// # Errors
    /// A port cannot be opened, the journal cannot be used, a signal came, or the system lacks
    /// something that every server needs.
    pub fn start(
        settings: Settings,
        ports: &Ports,
        journal: Option<&JournalConfig>,
        reload: Reload,
        requests: SignalFlags,
        mut manager: ServiceManager,
    ) -> Result<Server, StartError> {
        let needed = |error| StartError::System {
            what: "cannot start the event loop".into(),
            error,
        };
        let poll = Poll::new().map_err(needed)?;
        let expected = expected_connections(&settings.limits);
        let mut listeners = Vec::new();
        for port in Port::bind_all(ports)? {
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
        let started = clock.now().wall;
        let name = settings.name.clone();
        let stop_timeout = settings.limits.stop_ms.to_duration();
        let turn_time = settings.limits.turn_ms.to_duration();
        let mut node = Node::new(settings, &seed, clock.now());
        let mut disk = None;
        if let Some(JournalConfig { directory, fsync }) = journal {
            node.keep_journal(*fsync);
            let is_stopped = || {
                manager.starting(clock.now().time);
                signals.is_stop_requested()
            };
            let restore = |entry: Entry<'_>| node.restore(entry);
            let (files, opened) = Disk::open(directory, &name, &waker, is_stopped, restore)?;
            node.journal_opened(opened);
            let clients = node.records().positions();
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
        let handled_until = clock.now();
        let mut server = Server {
            node,
            sockets: Sockets::new(poll, clock, resolver, disk, expected, started),
            listeners,
            accept_retry_at: None,
            is_accept_failing: false,
            running: Vec::new(),
            crowded_since: None,
            handled_until,
            turn_time,
            looked_up,
            reload,
            reloads: Executor::new("reload", 1, waker, report_reloaded, Reload::read),
            reloaded,
            signals,
            manager,
            stop_timeout,
            scratch: vec![0; TURN_BYTES].into_boxed_slice(),
        };
        server.begin_journal()?;
        Ok(server)
    }

    /// Writes the entry that begins this life of the server, and waits until it is synced. The
    /// server sends the boot id of this life to neighbours only afterwards. A journal of format 1
    /// is rewritten first.
    fn begin_journal(&mut self) -> Result<(), StartError> {
        let mut is_synced = false;
        loop {
            let now = self.sockets.now();
            perform_disk_work(&mut self.node, &mut self.sockets, now);
            if let Some(reason) = self.node.failure() {
                return Err(StartError::Journal(reason.to_string()));
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
            self.manager.starting(now.time);
            if self.signals.is_stop_requested() {
                return Err(StartError::Stopped);
            }
        }
    }

    /// Returns the numbers for the service manager.
    fn standing(&self) -> Standing {
        let (neighbours, links_up) = self.node.links();
        Standing {
            records: self.node.records().positions(),
            clients: self.node.clients(),
            links_up,
            neighbours,
            is_draining: self.node.is_draining(),
        }
    }

    /// Reports to the service manager that the server is ready.
    pub fn tell_ready(&mut self) {
        if self.manager.is_there() {
            let now = self.sockets.now().time;
            self.manager.ready(self.standing(), now);
        }
    }

    /// Sends the messages for the service manager that are due at the end of a turn.
    fn tell_manager(&mut self, now: Time) {
        if self.manager.is_there() {
            self.manager.turn_ended(self.standing(), now);
        }
    }

    /// Writes and syncs what is left for the journal, such as updates from neighbours. This
    /// function does not wait for space on a full disk. If the disk hangs, the function returns an
    /// error after `limits.stop_ms`, or when another SIGTERM or SIGINT comes.
    fn finish_journal(&mut self) -> io::Result<()> {
        self.node.journal_positions(self.sockets.now());
        let give_up_at = self.sockets.now().time + self.stop_timeout;
        let mut is_synced = false;
        loop {
            let now = self.sockets.now();
            perform_disk_work(&mut self.node, &mut self.sockets, now);
            if let Some(reason) = self.node.failure() {
                return Err(io::Error::other(reason.clone()));
            }
            let now = self.sockets.now();
            self.tell_manager(now.time);
            if self.signals.take_requests().stop || give_up_at <= now.time {
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

    /// Returns the addresses that clients can connect to. If the system chose the port, the
    /// addresses contain that port.
    ///
    /// # Errors
    /// The error from the system.
    pub fn clients_addresses(&self) -> io::Result<Vec<SocketAddr>> {
        self.addresses(CLIENTS)
    }

    /// Returns the addresses that neighbours can connect to. Empty if the server listens for none.
    ///
    /// # Errors
    /// The error from the system.
    pub fn neighbours_addresses(&self) -> io::Result<Vec<SocketAddr>> {
        self.addresses(NEIGHBOURS)
    }

    /// Returns the addresses of the HTTP port. Empty if the server has none.
    ///
    /// # Errors
    /// The error from the system.
    pub fn http_addresses(&self) -> io::Result<Vec<SocketAddr>> {
        self.addresses(HTTP)
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

    /// Serves until a signal stops the server.
    ///
    /// # Errors
    /// The poll failed, or the journal failed. Nothing that a client or a neighbour sends causes an
    /// error here.
    pub fn run(mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(MAX_EVENTS);
        let now = self.sockets.now();
        drive(&mut self.node, &mut self.sockets, now);
        self.obey_phase(now);
        while !self.node.is_stopped() {
            log::logger().flush(); // before sleeping
            self.turn(&mut events)?;
            if let Some(reason) = self.node.failure() {
                return Err(io::Error::other(reason.clone()));
            }
        }
        self.finish_journal()
    }

    /// Runs one turn: waits until something is ready, and serves it. [`Server::run`] repeats this.
    /// Benchmarks call it directly.
    ///
    /// # Errors
    /// The poll failed.
    pub fn turn(&mut self, events: &mut Events) -> io::Result<()> {
        // If more events are ready than one poll returns, poll again without waiting, so that all
        // of them are recorded. `drive` gets the time from before the poll: see its documentation
        // for the reason. So if a deadline ends this poll, the next turn handles it.
        let began = self.sockets.now();
        if let Some(turn) = self.sockets.stopwatch.ended(began.time, began.wall) {
            self.node.handle_turn_ended(turn);
        }
        self.poll(events, self.poll_timeout(began.time))?;
        for _ in 0..=self.node.connections() / MAX_EVENTS {
            if events.iter().count() < MAX_EVENTS {
                break;
            }
            self.poll(events, Some(Duration::ZERO))?;
        }
        let now = self.sockets.now();
        self.sockets.stopwatch.began(now.time);
        self.accept(now);
        let served = self.run_ready(now.time);
        let cutoff = self.deadline_cutoff(began, now.time);
        let read = self.sockets.clock.time();
        self.sockets.stopwatch.has_read(read, served);
        drive(&mut self.node, &mut self.sockets, cutoff);
        let written = self.sockets.clock.time();
        self.sockets.stopwatch.has_written(written);
        self.obey_phase(now);
        self.tell_manager(now.time);
        Ok(())
    }

    /// Closes the listeners that the server's phase (serving, draining or stopping) does not use. A
    /// draining server accepts no clients. A stopping server accepts no connections at all.
    fn obey_phase(&mut self, now: Now) {
        if self.node.is_draining() && self.listens_for_clients() {
            self.accept_last(now);
            self.listeners.retain(|it| it.token != CLIENTS);
            drive(&mut self.node, &mut self.sockets, now);
        }
        if self.node.is_stopping() && !self.listeners.is_empty() {
            self.listeners.clear();
            self.is_accept_failing = false;
            self.manager.stopping(now.time);
        }
    }

    fn listens_for_clients(&self) -> bool {
        self.listeners.iter().any(|it| it.token == CLIENTS)
    }

    /// Accepts the clients whose connections the kernel has completed, before the clients' port is
    /// closed. Closing the port would reset these connections. New connections can arrive
    /// meanwhile, so the number of accepts is limited.
    fn accept_last(&mut self, now: Now) {
        self.accept_retry_at = None;
        for _ in 0..LAST_ACCEPTS {
            let clients = |it: &&mut Listener| it.token == CLIENTS;
            self.listeners
                .iter_mut()
                .filter(clients)
                .for_each(|it| it.ready = true);
            self.accept(now);
            let has_more = |it: &Listener| it.token == CLIENTS && it.ready;
            if self.accept_retry_at.is_some() || !self.listeners.iter().any(has_more) {
                return;
            }
        }
    }

    /// Returns the time up to which this turn handles deadlines. This is `began` if all ready
    /// connections were read. Otherwise this is the time that the turn before used. Reason: unread
    /// input may have arrived before a deadline, and then the peer was not late. If every turn is
    /// crowded, deadlines are delayed by at most [`MAX_DEADLINE_DELAY`].
    fn deadline_cutoff(&mut self, began: Now, now: Time) -> Now {
        let is_caught_up = match self.running.is_empty() {
            true => {
                self.crowded_since = None;
                true
            }
            false => now >= *self.crowded_since.get_or_insert(now) + MAX_DEADLINE_DELAY,
        };
        if is_caught_up {
            self.handled_until = began;
        }
        self.handled_until
    }

    /// Serves the connections that were ready when the turn began, until the time limit for
    /// reading. A connection that becomes ready meanwhile is put on the next turn's list. Returns
    /// the number of connections that were served.
    fn run_ready(&mut self, began: Time) -> usize {
        let is_crowded = !self.running.is_empty();
        self.sockets.take_ready(&mut self.running);
        let non_clients = match is_crowded {
            true => self.node.order_fairly(&mut self.running),
            false => usize::MAX,
        };
        // Neighbours and Places come first, but clients get at least half of the time. Otherwise
        // many answers of Places could keep clients waiting in every turn.
        let non_clients = non_clients.min(self.running.len());
        let has_clients = non_clients < self.running.len();
        let first_until = began + self.turn_time / if has_clients { 2 } else { 1 };
        let first = self.receive_range(0..non_clients, TURN_BYTES, first_until);
        let clients = non_clients..self.running.len();
        let read_until = began + self.turn_time;
        let then = match has_clients {
            true => self.receive_range(clients, CROWDED_READ_BYTES, read_until),
            false => 0,
        };
        self.running.drain(non_clients..non_clients + then);
        self.running.drain(..first);
        first + then
    }

    /// Serves the connections of `running` in `range`, until the time `until`. Returns the number
    /// of connections that were served. This is at least one, if the range is not empty.
    fn receive_range(&mut self, range: Range<usize>, read_bytes: usize, until: Time) -> usize {
        let all = range.len();
        for (served, index) in (1..).zip(range) {
            let id = self.running[index];
            if self.receive(id, read_bytes).is_some_and(|at| at >= until) {
                return served;
            }
        }
        all
    }

    /// Polls once, and records which sockets are ready. Also handles signals and the results of
    /// executors.
    fn poll(&mut self, events: &mut Events, timeout: Option<Duration>) -> io::Result<()> {
        match self.sockets.poll.poll(events, timeout) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                events.clear();
            }
            Err(error) => return Err(error),
        }
        self.record_readiness(events);
        if self.signals.is_pending() {
            self.handle_signals();
        }
        Ok(())
    }

    /// Returns how long the poll may wait. `None` means without a limit. The poll must not wait if
    /// a connection is ready or a signal came.
    fn poll_timeout(&self, now: Time) -> Option<Duration> {
        let acceptable =
            self.accept_retry_at.is_none() && self.listeners.iter().any(|listener| listener.ready);
        // The flags of signals are checked too, because a signal's byte can be lost. If the signal
        // socket is full, the handler cannot write the byte, and does not try again.
        let is_ready = self.sockets.is_ready() || !self.running.is_empty();
        if acceptable || is_ready || self.signals.is_pending() {
            return Some(Duration::ZERO);
        }
        let for_manager = match self.manager.is_there() {
            true => self.manager.deadline(self.standing()),
            false => None,
        };
        let deadline = self
            .node
            .next_deadline()
            .into_iter()
            .chain(self.accept_retry_at)
            .chain(for_manager)
            .min()?;
        Some(deadline.since(now))
    }

    fn record_readiness(&mut self, events: &Events) {
        for event in events {
            match event.token() {
                token @ (CLIENTS | NEIGHBOURS | HTTP) => {
                    self.listeners
                        .iter_mut()
                        .filter(|listener| listener.token == token)
                        .for_each(|listener| listener.ready = true);
                }
                SIGNALS => self.handle_signals(),
                EXECUTOR => self.handle_finished_work(),
                Token(number) => {
                    self.sockets
                        .record_readiness(ConnId::from_u64(number as u64), event);
                }
            }
        }
    }

    /// Handles the results of all executors: look-ups, disk work and reloads.
    fn handle_finished_work(&mut self) {
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
                    self.node.handle_reload(tls, now);
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
                        SecretsChange::Unchanged => "no change",
                        SecretsChange::Compatible | SecretsChange::Incompatible => "changed",
                    };
                    info!("the herd secret was read anew: {changed}, {count}");
                    if change == SecretsChange::Incompatible {
                        warn!(
                            "this server and neighbours that have the herd secret of before do not link anew: a step of the change was skipped, or the file is half written"
                        );
                    }
                    notes.iter().for_each(|note| warn!("{note}"));
                }
                Some(Err(error)) => warn!("the old herd secret stays in use: {error}"),
                None => {}
            }
            self.manager.reload_ended(now.time);
        }
    }

    fn handle_signals(&mut self) {
        let requested = self.signals.take_requests();
        if requested.reload {
            self.reload();
        }
        if requested.reopen_log {
            info!("SIGUSR1: the log is opened anew");
        }
        if requested.drain {
            match self.node.is_draining() || self.node.is_stopping() {
                false => info!("SIGUSR2: the server drains"),
                true => info!("SIGUSR2 changes nothing: the server drains or stops already"),
            }
            self.node.handle_drain(self.sockets.now());
        }
        if requested.stop {
            info!("stopping: {} connections", self.node.connections());
            let now = self.sockets.now();
            self.node.handle_stop(now);
            self.obey_phase(now);
        }
    }

    /// Starts a reload after SIGHUP. The log's writer thread opens the log file again by itself.
    fn reload(&mut self) {
        let Reload {
            certificates,
            secrets,
        } = &self.reload;
        info!("SIGHUP: the log is opened anew, {}", self.reload.describe());
        let has_files = certificates.is_some() || secrets.is_some();
        let now = self.sockets.now().time;
        self.manager.reload_begins(now);
        if !has_files {
            return self.manager.reload_ended(now);
        }
        if let Err(error) = self.reloads.submit(self.reload.clone()) {
            warn!("nothing is read anew: no thread to read files: {error}");
            self.manager.reload_ended(now);
        }
    }

    fn accept(&mut self, now: Now) {
        if self.accept_retry_at.is_some_and(|again| now.time < again) {
            return;
        }
        self.accept_retry_at = None;
        for listener in 0..self.listeners.len() {
            let max_accepts = match self.listeners[listener].token {
                HTTP if self.running.is_empty() => MAX_HTTP_ACCEPTS,
                HTTP => 1,
                _ => MAX_ACCEPTS,
            };
            for _ in 0..max_accepts {
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
                    // A signal came, or the peer closed this connection before it was accepted
                    // (accept(2)). Try again.
                    Err(error)
                        if matches!(
                            error.kind(),
                            io::ErrorKind::Interrupted | io::ErrorKind::ConnectionAborted
                        ) => {}
                    Err(error) => {
                        self.sockets.process.accept_failures += 1;
                        // Log only the first failure in a row.
                        if !std::mem::replace(&mut self.is_accept_failing, true) {
                            warn!(
                                "cannot accept connections: {error}; trying again every {} ms",
                                ACCEPT_PAUSE.as_millis()
                            );
                        }
                        self.accept_retry_at = Some(now.time + ACCEPT_PAUSE);
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
            HTTP => self.node.handle_http_connected(address, now),
            _ => self.node.handle_neighbour_connected(address, now),
        };
        if let Some(id) = admitted
            && let Err(why) = self.sockets.adopt(Transport::new(id, stream, false))
        {
            self.node.handle_connection_lost(id, Some(&why), now);
        }
    }

    /// Serves one ready connection: finishes connecting, or reads once. Returns the time after the
    /// read, or `None` if the socket was not read.
    fn receive(&mut self, id: ConnId, read_bytes: usize) -> Option<Time> {
        let transport = self.sockets.transport(id)?;
        transport.unqueue();
        match transport.finish_connecting() {
            Ok(true) => {
                let now = self.sockets.now();
                self.node.handle_connection_made(id, now);
            }
            Ok(false) => {}
            Err(error) => {
                self.close_connection(id, &error.into());
                return None;
            }
        }
        let transport = self.sockets.transport(id)?;
        if transport.is_writable() {
            self.node.handle_writable(id);
        }
        if !self.node.wants_read(id) {
            if transport.is_hung_up() {
                let error = transport.error();
                self.close_connection(id, &error);
            }
            return None;
        }
        if !transport.is_readable() {
            return None;
        }
        let received = transport.read(&mut self.scratch[..read_bytes]);
        // The time of receipt has to be taken after the read. An earlier time could lie before the
        // moment when the last byte was sent. Then a client's clock that agrees with ours would
        // seem to be ahead.
        let now = self.sockets.now();
        match received {
            Ok(Received::Bytes(count)) => {
                let bytes = &self.scratch[..count];
                self.node.handle_data_received(id, bytes, now);
            }
            Ok(Received::End) => self.node.handle_eof_received(id, now),
            Ok(Received::Nothing) => {}
            Err(error) => self.close_connection(id, &error.into()),
        }
        Some(now.time)
    }

    /// Closes a connection whose socket is broken.
    fn close_connection(&mut self, id: ConnId, why: &SocketError) {
        let now = self.sockets.now();
        self.sockets.close(id, Some(why));
        self.node.handle_connection_lost(id, Some(why), now);
    }
}
