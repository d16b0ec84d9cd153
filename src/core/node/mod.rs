//! One server, without a socket: events and the time go in, bytes and requests come out.
//!
//! A [`Node`] has four kinds of method, like quinn-proto's `Connection`:
//!
//! | kind | what it may do | which |
//! |---|---|---|
//! | constructors | begin a server | [`Node::new`], [`Node::keep_journal`], [`Node::restore`], [`Node::journal_opened`] |
//! | `handle_*(&mut self, …)` | an event happened: the only way in | a connection was accepted, made, flushed, lost; bytes, the end of input, a write; a name resolved; disk work done; deadlines; drain, stop, reload |
//! | `poll_*(&mut self, …)` | the next thing to do: the only way out | [`poll_request`](Node::poll_request), [`poll_disk_work`](Node::poll_disk_work), [`poll_dirty`](Node::poll_dirty), [`poll_output`](Node::poll_output), [`poll_disposition`](Node::poll_disposition) |
//! | getters `(&self)` | nothing: asking twice gives the same | [`wants_read`](Node::wants_read), [`next_deadline`](Node::next_deadline), [`connections`](Node::connections), [`records`](Node::records), … |
//!
//! A turn is one iteration of the event loop. It has this order, with real sockets and with
//! simulated ones:
//!
//! 1. `handle_*` is called for everything that happened: finished disk work, finished look-ups,
//!    new connections, bytes that were read.
//! 2. [`drive`] handles the deadlines that are due. Then it repeats three steps until nothing is
//!    left to do: requests, disk work, and each *dirty* connection, links first. A connection is
//!    dirty if its output or its disposition (stay open, finish or close) may have changed. Disk
//!    work starts before the connections are written, because answers wait for disk work. If a
//!    connection has to close, its output is written first.
//!
//! The connections that are dirty at the same time make a round. A round begins with a check of the
//! buffers of all connections. If the buffers hold more than `limits.buffer_bytes`, some
//! connections are closed in this round.
//!
//! Nearly all events run inside one function, `Node::handle`. After the event, this function gives
//! connections to waiting calls, and answers to clients, because any event can make that possible.
//! A call is one question to Google Places. The exceptions are `handle_writable`, `handle_flushed`,
//! `handle_turn_ended`, `handle_reload` and `handle_secrets`, because these events do not change
//! calls.
//!
//! # Sessions
//!
//! Each connection has a session: a client, a proxy's connection whose PROXY header has not arrived
//! yet, a link, an exchange, or a connection to the HTTP port. A link is a connection to a
//! neighbour, another server of the herd. An exchange is an HTTPS connection to Google Places. All
//! sessions implement the same trait, [`Protocol`]. TLS is below the session, in `connection.rs`.
//! If an event needs something outside its session, the session returns an effect. `Node::apply`
//! handles all effects:
//!
//! | kind | effects |
//! |---|---|
//! | [`Client`](crate::core::client::Client) | [`client::Effect`](crate::core::client::Effect): Places has to be asked; the connection is lost |
//! | [`Proxied`](crate::core::client::proxied::Proxied) | [`proxied::Effect`](crate::core::client::proxied::Effect): the header named the client; the connection is refused; the connection is lost |
//! | [`Link`](crate::core::link::Link) | [`link::Effect`](crate::core::link::Effect): the link replaces another one; this server's data was rolled back to an older copy; an operator asks for a drain; the connection is lost |
//! | [`Exchange`](crate::core::places::exchange::Exchange) | [`exchange::Effect`](crate::core::places::exchange::Effect): the TLS handshake is done; the response is complete; the exchange failed; the connection is lost |
//! | [`HttpConnection`](crate::core::http::HttpConnection) | [`http::Effect`](crate::core::http::Effect): an answer has to be made; the next step of an answer has to be made; the connection is lost |
//!
//! After the prefix `handle_`, and in the sessions, a method has the name of the matching method of
//! `asyncio.Protocol`, if there is one. Nothing here blocks or reads a clock: the time is an
//! argument. This example passes the events of one client by hand:
//!
//! ```
//! use herd_mio::config::{HerdConfig, Overrides, Source};
//! use herd_mio::core::base::clock::{Now, Time};
//! use herd_mio::core::session::disposition::Disposition;
//! use herd_mio::core::node::Node;
//!
//! let settings = HerdConfig::load(&Source::Name, Some("Riley"))?.server("Riley", &Overrides::default())?.settings;
//! let now = Now { time: Time::from_nanos(0), wall: 1_621_464_828_000_000_000 };
//! let mut node = Node::new(settings, &[7; 32], now);
//!
//! let client = node.handle_client_connected("192.0.2.1:4000".parse()?, now).ok_or("refused")?;
//! node.handle_data_received(client, b"IAMAT kiwi +34.068930-118.445127 1621464827.959", now);
//! assert_eq!(node.poll_output(client), b"", "half a line is no command");
//! node.handle_data_received(client, b"498503\n", now);
//! let answer = b"AT Riley +0.040501497 kiwi +34.068930-118.445127 1621464827.959498503\n";
//! assert_eq!(node.poll_output(client), answer);
//! node.handle_output_sent(client, answer.len(), now);
//! assert_eq!(node.poll_disposition(client, now), Disposition::Open);
//!
//! node.handle_eof_received(client, now);
//! assert_eq!(node.poll_disposition(client, now), Disposition::Close, "all is answered, and no more will come");
//! node.handle_connection_lost(client, None, now);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#[cfg(test)]
mod addresses_tests;
mod buffers;
mod certificates;
mod clients;
mod connection;
#[cfg(test)]
mod drained_tests;
mod draining;
mod drive;
#[cfg(test)]
mod exchange_tls_tests;
mod expiry;
#[cfg(test)]
mod flooded_tests;
#[cfg(test)]
mod followers_tests;
mod health;
mod http;
mod invariants;
mod journaling;
mod metrics;
mod neighbours;
#[cfg(test)]
mod operators_tests;
mod poll;
mod proxied;
mod questions;
#[cfg(test)]
mod quota_tests;
mod report;
mod session;
mod states;
mod turn_order;
mod unproven;
#[cfg(test)]
mod wall_clock_tests;

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};

use crate::core::base::boot_id::BootId;
use crate::core::base::clock::{Now, Time};
use crate::core::base::deadlines::Deadlines;
use crate::core::base::entropy::Entropy;
use crate::core::base::limits::{LimitValue, Limits};
use crate::core::base::process_facts::ProcessFacts;
use crate::core::base::settings::{Secrets, SecretsChange, Settings, TlsSettings};
use crate::core::base::slots::{Id, Slots};
use crate::core::client::proxied::Refusal;
use crate::core::journal::durability::DiskDone;
use crate::core::places::answer::Outcome;
use crate::core::places::call::{CallId, Calls};
use crate::core::session::admission::Admissions;
use crate::core::session::buffer_budget::{BufferBudget, BufferUsage};
use crate::core::session::connection_error::{ConnectionError, SocketError};
use crate::core::session::herd::{Herd, NeighbourId};
use crate::core::session::protocol::Protocol;
use crate::core::session::resolver::Resolver;
use crate::core::session::tally::Tally;
use crate::core::session::tls::TlsSession;
use crate::core::session::tls_clock::TlsClock;
use crate::core::session::turns::Turn;
use crate::core::session::unproven::UnprovenPeers;
use crate::core::table::records::Records;
use certificates::Certificates;
use draining::Drain;
use journaling::Journal;
use session::Session;

pub use buffers::clients_over_tls;
pub use drive::{Io, Wants, drive, perform_disk_work};
use poll::Dirty;
pub use poll::Request;

/// The id of a connection.
pub type ConnId = Id;

struct Slot {
    session: Session,
    /// TLS between the socket and the session.
    tls: Option<Box<TlsSession>>,
    /// Whether the connection is on the list of [`Node::poll_dirty`].
    is_dirty: bool,
    /// The connection's earliest entry in the heap of deadlines. `None` if it has no entry.
    armed: Option<Time>,
    /// Whether the connection is in `Journal::awaiting_space`, because it waits for disk space.
    awaits_disk_space: bool,
    /// When the node accepted or dialled the connection.
    since: Time,
    /// Whether the connection is in `Journal::held`, because its answers wait for a journal write.
    is_held: bool,
    /// The number of bytes of the connection's buffers, as last counted.
    usage: BufferUsage,
}

/// The number of bytes of memory for each connection apart from its buffers: its slot, the
/// generation of the slot (a `u32`, see [`Slots`]), and two entries in the heap of deadlines.
pub const CONNECTION_BYTES: usize =
    size_of::<Slot>() + size_of::<u32>() + 2 * size_of::<(Time, Timer)>();

/// What to check when a deadline is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    Connection(ConnId),
    /// A client of this call may have waited for `limits.places_ms`.
    Call(CallId),
    /// The next address of Places may be tried for this call.
    Attempt(CallId),
    Redial(NeighbourId),
    Resolve,
    /// The addresses of neighbours that dial are looked up again.
    NeighbourLookUps,
    /// The last turn did not deliver all answers of Places. The rest is delivered now.
    Answers,
    /// `places.max_per_second` allows another question now.
    PlacesRate,
    /// A certificate may have ended, or may end soon.
    Certificates,
    /// The next step of the sweep for expired records.
    Sweep,
    /// The time for stopping is nearly over. The remaining calls are cancelled, so that their
    /// clients get an answer.
    CancelCalls,
    /// The number of lines about failed commands that were left out of the log is logged now.
    LogLeftOut,
    /// The connections that were evicted are logged now.
    LogEvictions,
    /// The journal may have disk work or positions to write, or clients may have waited too long
    /// for the disk.
    Journal,
    /// The next step of a drain.
    Drain,
    /// The server is stopping. The connections that are still open are closed now.
    Stop,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Running,
    /// The server takes no new clients, and closes its clients one after another. Then it stops.
    Draining,
    /// The server was asked to stop. It finishes the answers that it has begun.
    Stopping,
    /// The time for stopping is over, or a second stop was requested. All connections are closed.
    Overdue,
}

impl Phase {
    fn is_stopping(self) -> bool {
        match self {
            Phase::Running | Phase::Draining => false,
            Phase::Stopping | Phase::Overdue => true,
        }
    }
}

/// Three numbers. When one of them changes, links or waiting clients may have output to send: see
/// `Node::announce_progress`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Progress {
    /// The sequence number of the last change that may be sent to clients and neighbours.
    sendable_through: u64,
    /// The sequence number of the last change that is in the journal.
    appended_through: u64,
    /// The number of neighbours' records that this server refused because of a limit.
    refused_records: u64,
}

/// One server.
pub struct Node {
    settings: Settings,
    boot: BootId,
    phase: Phase,
    /// The progress of the drain, if the phase is `Draining`.
    drain: Drain,
    sessions: Slots<Slot>,
    admission: Admissions,
    /// The connections to the neighbours' port whose peers have not proven a name.
    unproven: UnprovenPeers,
    /// The number of neighbours whose look-up is finished in this round of look-ups: see
    /// `unproven.rs`.
    look_ups_done: usize,
    /// The proxies' connections that wait for a PROXY header, the oldest first. Connections that
    /// got their header or were closed are removed only when the list is full.
    unidentified: VecDeque<ConnId>,
    /// The number of refused proxies' connections, by [`Refusal::kind`].
    proxied_refused: [u64; Refusal::KINDS],
    /// The connections to the HTTP port, without displaced ones.
    http: Vec<ConnId>,
    traffic: Traffic,
    /// When this server started, on both clocks.
    began: Now,
    records: Records,
    /// The number of records that have expired.
    expired: u64,
    tally: Tally,
    herd: Herd,
    calls: Calls,
    /// Answers of Places, each with the clients that wait for the answer. `handle` delivers answers
    /// after every event.
    answers: VecDeque<(Vec<ConnId>, Outcome)>,
    /// Whether this turn has delivered the maximum number of answers. The other answers wait for
    /// the next turn.
    answers_are_deferred: bool,
    /// The time at which `places.max_per_second` allows the next question. Before this time, no
    /// waiting call gets a connection.
    next_question_at: Option<Time>,
    resolver: Resolver,
    /// The journal, if the server has a data directory.
    journal: Option<Journal>,
    deadlines: Deadlines<Timer>,
    requests: VecDeque<Request>,
    dirty: Dirty,
    /// The progress at the last change that `Node::announce_progress` found.
    announced: Progress,
    entropy: Entropy,
    /// The wall clock that rustls reads.
    tls_clock: TlsClock,
    certificates: Certificates,
    /// The time of the latest event.
    now: Now,
    plaintext: Vec<u8>,
}

/// The number of bytes that sockets received and sent, by [`Session::kind`].
#[derive(Default)]
struct Traffic {
    received: [u64; Session::KINDS.len()],
    sent: [u64; Session::KINDS.len()],
}

/// Makes the [`Context`](crate::core::session::context::Context) that a session gets for one event.
/// This is a macro because a method would borrow the whole node, including the session.
macro_rules! context {
    ($node:expr, $tls:expr, $now:expr) => {
        crate::core::session::context::Context {
            now: $now,
            settings: &$node.settings,
            boot: $node.boot,
            is_stopping: $node.phase.is_stopping(),
            clients: $node.admission.clients(),
            records: &mut $node.records,
            herd: &mut $node.herd,
            unproven: &mut $node.unproven,
            durability: $node
                .journal
                .as_mut()
                .map(crate::core::node::journaling::Journal::durability),
            tally: &mut $node.tally,
            tls: $tls,
        }
    };
}
use context;

/// Returns the number of connections for which address space is reserved at start. It is the sum of
/// the limits, but at most 131,072, because a config can allow far more connections than are
/// likely.
#[must_use]
pub fn expected_connections(limits: &Limits) -> usize {
    // The 1,024 are for neighbours and for rejected clients that are sent the reason.
    let others =
        limits.max_unproven + limits.max_unidentified + limits.max_places_connections + 1_024;
    (limits.max_clients + others).to_count().min(131_072)
}

impl Node {
    /// Returns a server with an empty table, and begins to dial the neighbours. All random numbers
    /// of the server are derived from `seed`.
    #[must_use]
    pub fn new(mut settings: Settings, seed: &[u8; 32], now: Now) -> Node {
        let mut entropy = Entropy::new(seed);
        let tls_clock = TlsClock::default();
        settings.tls = tls_clock.settings(settings.tls);
        settings.places.tls = tls_clock.client(&settings.places.tls);
        let neighbours = std::mem::take(&mut settings.neighbours);
        let limits = &settings.limits;
        let mut records = Records::new(limits);
        records.add_server_names(settings.herd.iter().map(String::as_str));
        let mut node = Node {
            boot: BootId(entropy.next_u64()),
            phase: Phase::Running,
            drain: Drain::default(),
            sessions: Slots::with_capacity(expected_connections(limits)),
            admission: Admissions::default(),
            unproven: UnprovenPeers::default(),
            look_ups_done: 0,
            unidentified: VecDeque::new(),
            proxied_refused: [0; Refusal::KINDS],
            http: Vec::new(),
            traffic: Traffic::default(),
            began: now,
            records,
            expired: 0,
            tally: Tally::new(BufferBudget::new(limits.buffer_bytes)),
            herd: Herd::new(neighbours, limits),
            calls: Calls::new(limits),
            answers: VecDeque::new(),
            answers_are_deferred: false,
            next_question_at: None,
            resolver: Resolver::new(limits.lookup_ms.to_duration()),
            journal: None,
            deadlines: Deadlines::default(),
            requests: VecDeque::new(),
            dirty: Dirty::default(),
            announced: Progress::default(),
            entropy,
            tls_clock,
            certificates: Certificates::default(),
            now,
            plaintext: Vec::new(),
            settings,
        };
        let over_tls = node.settings.tls.clients.is_some();
        node.admission.set_max_in_memory(
            over_tls
                .then(|| clients_over_tls(&node.settings.limits))
                .flatten(),
        );
        node.tally.max_clients = node.admission.max_clients(&node.settings.limits);
        node.watch_own_certificates(now);
        node.begin_expiry(now);
        node.dial_all(now);
        node.look_up_diallers(now);
        node
    }

    /// Returns the id of the server's present life. A life begins when the process starts. A life
    /// also begins when a neighbour reports a change of this server that the server no longer has:
    /// then the server's data was rolled back to an older copy.
    #[must_use]
    pub fn boot(&self) -> BootId {
        self.boot
    }

    /// Returns the table: the record of every client.
    #[must_use]
    pub fn records(&self) -> &Records {
        &self.records
    }

    /// Runs the handler of an event, then does what can follow from any event. Nearly all events go
    /// through this function.
    #[inline]
    fn handle<T>(&mut self, now: Now, event: impl FnOnce(&mut Node) -> T) -> T {
        self.tls_clock.set(now.wall);
        self.now = now;
        let outcome = event(self);
        self.advance_calls(now);
        if let Some(due) = self.tally.log_budget.take_due() {
            self.deadlines.call_at(due, Timer::LogLeftOut);
        }
        outcome
    }

    /// A client connected. Returns `None` if the server is stopping, if TLS cannot begin, or if
    /// there are too many clients and too many rejected clients are being answered already. After
    /// `None`, the caller closes the socket.
    pub fn handle_client_connected(&mut self, address: SocketAddr, now: Now) -> Option<ConnId> {
        self.handle(now, |node| node.client_connected(address))
    }

    /// A peer connected to the neighbours' port. Returns `None` if all slots that the peer could
    /// get are taken by connections younger than `limits.unproven_grace_ms`, if the peer's network
    /// connects too often, if the server is stopping, or if TLS cannot begin. After `None`, the
    /// caller closes the socket.
    pub fn handle_neighbour_connected(&mut self, address: SocketAddr, now: Now) -> Option<ConnId> {
        self.handle(now, |node| node.neighbour_connected(address, now))
    }

    /// A connection to the HTTP port was made. Returns `None` if the server is stopping, or if
    /// `limits.max_http_connections` are open and none of them is idle. After `None`, the caller
    /// closes the socket.
    pub fn handle_http_connected(&mut self, address: SocketAddr, now: Now) -> Option<ConnId> {
        self.handle(now, |node| node.http_connected(address, now))
    }

    /// The caller has measured the facts that [`Request::Measure`] requested for this connection.
    pub fn handle_measured(&mut self, id: ConnId, facts: &ProcessFacts, now: Now) {
        self.handle(now, |node| node.measured(id, facts, now));
        self.mark_dirty(id);
    }

    /// A turn (an iteration of the event loop) has ended. The shell has measured its parts.
    #[inline]
    pub fn handle_turn_ended(&mut self, turn: Turn) {
        let slow_ms = self.settings.limits.slow_turn_ms;
        self.tally.turns.add(turn, slow_ms);
    }

    /// A connection that [`Request::Connect`] requested is connected.
    pub fn handle_connection_made(&mut self, id: ConnId, now: Now) {
        self.handle(now, |node| node.socket_connected(id, now));
        self.mark_dirty(id);
    }

    /// Bytes arrived from the socket.
    pub fn handle_data_received(&mut self, id: ConnId, data: &[u8], now: Now) {
        self.handle(now, |node| node.bytes_received(id, data, now));
        self.mark_dirty(id);
    }

    /// The other side has shut down its writing side, but may still read.
    pub fn handle_eof_received(&mut self, id: ConnId, now: Now) {
        self.handle(now, |node| node.socket_ended(id, now));
        self.mark_dirty(id);
    }

    /// The socket may accept output again.
    pub fn handle_writable(&mut self, id: ConnId) {
        self.mark_dirty(id);
    }

    /// The socket accepted the first `count` bytes of [`Node::poll_output`].
    pub fn handle_output_sent(&mut self, id: ConnId, count: usize, now: Now) {
        self.handle(now, |node| node.output_sent(id, count, now));
    }

    /// The connection is closed. No other event with this id follows. `why` is the system's error,
    /// or `None` if the core decided to close the connection.
    pub fn handle_connection_lost(&mut self, id: ConnId, why: Option<&SocketError>, now: Now) {
        self.handle(now, |node| {
            let Some(mut slot) = node.sessions.remove(id) else {
                return;
            };
            node.tally.buffers.account(&mut slot.usage, 0, 0, now.time);
            let tls = slot.tls.as_deref();
            let why = match tls.and_then(TlsSession::error) {
                Some(error) => Some(ConnectionError::Tls(error.clone())),
                None => why.cloned().map(ConnectionError::Socket),
            };
            let context = &mut context!(node, tls, now);
            if let Some(effect) = slot.session.connection_lost(why.as_ref(), context) {
                node.apply(id, effect, now);
            }
        });
    }

    /// A look-up that [`Request::Resolve`] requested has ended with this result.
    pub fn handle_resolved(&mut self, host: &str, found: Result<Vec<IpAddr>, String>, now: Now) {
        self.handle(now, |node| {
            node.resolver.resolved(host, found, now.time);
            node.dial_resolved(now);
            node.look_up_diallers(now);
        });
    }

    /// A piece of disk work has ended with this result.
    pub fn handle_disk_done(&mut self, done: DiskDone, now: Now) {
        self.handle(now, |node| node.disk_done(done, now));
    }

    /// Handles every deadline that has been reached.
    pub fn handle_deadlines(&mut self, now: Now) {
        self.handle(now, |node| {
            while let Some(timer) = node.deadlines.due(now.time) {
                match timer {
                    Timer::Connection(id) => node.connection_due(id, now),
                    Timer::Call(call) => node.call_due(call, now),
                    Timer::Attempt(call) => node.attempt_due(call, now),
                    Timer::Redial(neighbour) => node.redial_due(neighbour, now),
                    Timer::Resolve => node.dial_resolved(now),
                    Timer::NeighbourLookUps => node.begin_look_ups(now),
                    Timer::Sweep => node.sweep_due(now),
                    Timer::Answers => node.answers_are_deferred = false, // `handle` delivers the rest
                    // `handle` then gives connections to the waiting calls.
                    Timer::PlacesRate => {
                        node.next_question_at.take_if(|due| *due <= now.time);
                    }
                    Timer::CancelCalls => node.cancel_calls(now),
                    Timer::Certificates => node.certificates_due(now),
                    Timer::LogLeftOut => node.tally.log_budget.log_left_out(&node.settings.limits),
                    Timer::LogEvictions => node.log_evictions(now),
                    Timer::Journal => node.journal_due(now),
                    Timer::Drain => node.drain_due(now),
                    Timer::Stop => {
                        node.phase = Phase::Overdue;
                        node.mark_all_dirty();
                    }
                }
            }
        });
    }

    /// Connections that begin from now on use the TLS certificates and keys in `tls`. Open
    /// connections keep the old ones.
    pub fn handle_reload(&mut self, tls: TlsSettings, now: Now) {
        self.settings.tls = self.tls_clock.settings(tls);
        self.warn_of_own_certificates(now);
        self.watch_own_certificates(now);
    }

    /// Links that begin from now on are proven with these secrets. Open links stay open. Returns
    /// whether this server can still link with neighbours that have the old secrets.
    pub fn handle_secrets(&mut self, secrets: Secrets) -> SecretsChange {
        let old = std::mem::replace(&mut self.settings.secrets, secrets);
        self.settings.secrets.change_from(&old)
    }

    /// Begins to stop. No new client is served, answers that have begun are finished, and records
    /// are sent to the neighbours. After `limits.stop_ms`, or at a second stop, all remaining
    /// connections are closed.
    pub fn handle_stop(&mut self, now: Now) {
        self.handle(now, |node| node.stop(now));
    }

    fn stop(&mut self, now: Now) {
        if self.phase.is_stopping() {
            self.phase = Phase::Overdue;
            return self.mark_all_dirty();
        }
        self.phase = Phase::Stopping;
        self.drain = Drain::default();
        self.tally.drain_ends = None;
        // Without these two calls, the lines would be logged at later deadlines, and the server may
        // end before then.
        self.log_evictions(now);
        self.tally.log_budget.log_left_out(&self.settings.limits);
        let stop_ms = self.settings.limits.stop_ms;
        self.deadlines
            .call_at(now.time + stop_ms.to_duration(), Timer::Stop);
        self.deadlines.call_at(
            now.time + (stop_ms - stop_ms / 10).to_duration(),
            Timer::CancelCalls,
        );
        let ids: Vec<ConnId> = self.sessions.iter().map(|(id, _)| id).collect();
        for id in ids {
            self.on_session(id, now, |it, context| {
                it.stop(context);
                None
            });
        }
        self.mark_all_dirty();
    }

    /// Whether the session wants bytes from the socket now. In place of asyncio's `pause_reading`
    /// and `resume_reading`, this is computed from the session's state.
    #[must_use]
    pub fn wants_read(&self, id: ConnId) -> bool {
        let slot = self.sessions.get(id);
        slot.is_some_and(|slot| slot.session.wants_read())
    }

    /// Returns the time at which [`Node::handle_deadlines`] has to be called next.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Time> {
        self.deadlines.next()
    }

    /// Whether the server is stopping: it was asked to stop, or has drained.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.phase.is_stopping()
    }

    /// Whether the server is stopping, and no connection is left.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.phase.is_stopping() && self.sessions.is_empty()
    }

    /// Returns the number of connections.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.sessions.len()
    }

    fn session(&mut self, id: ConnId) -> Option<&mut Session> {
        self.sessions.get_mut(id).map(|slot| &mut slot.session)
    }

    /// Adds a connection and returns its new id. No other function makes ids of connections.
    fn admit(
        &mut self,
        tls: Option<TlsSession>,
        session: impl FnOnce(ConnId) -> Session,
    ) -> ConnId {
        let id = self.sessions.insert_with(|id| Slot {
            session: session(id),
            tls: tls.map(Box::new),
            is_dirty: false,
            armed: None,
            awaits_disk_space: false,
            since: self.now.time,
            is_held: false,
            usage: BufferUsage::default(),
        });
        self.mark_dirty(id);
        id
    }

    /// Marks a connection dirty. Before the turn ends, [`Node::poll_dirty`] returns the connection.
    fn mark_dirty(&mut self, id: ConnId) {
        let Some(slot) = self.sessions.get_mut(id) else {
            return;
        };
        if !std::mem::replace(&mut slot.is_dirty, true) {
            // Links to neighbours are served before clients. Connections of followers (operators
            // that follow the changes) are not, so that clients do not wait for followers.
            let is_link = matches!(&slot.session, Session::Link(link) if !link.is_following());
            self.dirty.add(id, is_link);
        }
    }

    fn mark_all_dirty(&mut self) {
        let ids: Vec<ConnId> = self.sessions.iter().map(|(id, _)| id).collect();
        ids.into_iter().for_each(|id| self.mark_dirty(id));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{HerdConfig, Overrides, Source};
    use crate::core::journal::durability::{DiskDone, DiskWork, Fsync, Opened};
    use std::fmt::Write as _;

    /// Returns a server without neighbours and without a key for Places.
    pub(super) fn node(limits: crate::core::base::limits::Limits) -> Node {
        let config = HerdConfig::load(&Source::Name, Some("Riley")).unwrap();
        let mut settings = config
            .server("Riley", &Overrides::default())
            .unwrap()
            .settings;
        settings.neighbours.clear();
        settings.limits = limits;
        Node::new(settings, &[7; 32], at(0))
    }

    pub(super) fn at(ms: u64) -> Now {
        Now {
            time: Time::from_nanos(ms * 1_000_000),
            wall: 1_700_000_000_000_000_000 + ms * 1_000_000,
        }
    }

    #[test]
    fn a_paused_client_is_resumed_when_its_output_is_sent() {
        let limits = crate::core::base::limits::Limits {
            output_high_bytes: 10,
            output_low_bytes: 5,
            ..Default::default()
        };
        let mut node = node(limits);
        let client = node
            .handle_client_connected("192.0.2.1:1".parse().unwrap(), at(0))
            .unwrap();
        node.handle_data_received(client, b"a long line\nand another\n", at(0));
        assert!(!node.wants_read(client), "above the high mark");
        for _ in 0..2 {
            let waiting = node.poll_output(client).len();
            node.handle_output_sent(client, waiting, at(1));
        }
        assert!(node.poll_output(client).is_empty() && node.wants_read(client));
    }

    #[test]
    fn a_stop_polls_each_connection_a_bounded_number_of_times() {
        let mut node = node(Default::default());
        let mut ids: Vec<ConnId> = (0..20_000)
            .map(|number: u32| {
                let ip = std::net::Ipv4Addr::from_bits(number / 500);
                node.handle_client_connected((ip, 1).into(), at(0)).unwrap()
            })
            .collect();
        node.handle_stop(at(0));
        let mut polls = 0;
        while let Some(id) = ids.pop() {
            node.handle_connection_lost(id, None, at(1));
            polls += std::iter::from_fn(|| node.poll_dirty()).count();
        }
        assert!(node.is_stopped() && polls <= 20_000, "{polls} looks");
    }

    /// Does all disk work at once, except syncs. Returns the results of the syncs, so that the test
    /// can report them later.
    fn write_journal(node: &mut Node, now: Now) -> Vec<DiskDone> {
        let mut syncs = Vec::new();
        while let Some(work) = node.poll_disk_work(now) {
            let outcome = Ok(());
            let done = match work {
                DiskWork::Append(chunks) => DiskDone::Appended {
                    chunks,
                    outcome: Ok(()),
                },
                DiskWork::Reserve { file, .. } => DiskDone::Reserved { file, outcome },
                DiskWork::Create { file } => DiskDone::Created { file, outcome },
                DiskWork::Sync { files } => {
                    syncs.push(DiskDone::Synced { files, outcome });
                    continue;
                }
                DiskWork::Switch { .. } | DiskWork::Discard { .. } => {
                    panic!("nothing is to be compacted")
                }
            };
            node.handle_disk_done(done, now);
        }
        syncs
    }

    #[test]
    fn a_stale_update_is_answered_when_the_newer_is_synced() {
        let mut node = node(Default::default());
        node.keep_journal(Fsync::Always);
        node.journal_opened(Opened {
            length: 0,
            format: None,
            machine: 1,
        });
        write_journal(&mut node, at(0));
        let mut ids = ["192.0.2.1:1", "192.0.2.2:2", "192.0.2.3:3"].map(|address| {
            node.handle_client_connected(address.parse().unwrap(), at(0))
                .unwrap()
        });
        ids.sort_by_key(|id| id.index());
        let [newer, older, asker] = ids;
        node.handle_data_received(newer, b"IAMAT x +1+2 5\n", at(1));
        node.handle_data_received(older, b"IAMAT x +1+2 3\n", at(1));
        node.handle_data_received(asker, b"WHATSAT x 1 1\n", at(1));
        let syncs = write_journal(&mut node, at(1));
        assert_eq!(syncs.len(), 1);
        for id in ids {
            assert_eq!(node.poll_output(id), b"", "what it rests on is not synced");
        }
        for done in syncs {
            node.handle_disk_done(done, at(2));
        }
        write_journal(&mut node, at(2));
        for (id, answer) in ids.iter().zip(["AT Riley ", "AT Riley ", "AT Riley "]) {
            assert!(node.poll_output(*id).starts_with(answer.as_bytes()));
        }
    }

    #[test]
    fn the_same_seed_and_events_give_the_same_bytes() {
        let run = || {
            let mut node = node(Default::default());
            let mut output = String::new();
            let client = node
                .handle_client_connected("192.0.2.1:1".parse().unwrap(), at(0))
                .unwrap();
            node.handle_data_received(client, b"IAMAT x +1+2 3\nWHATSAT x 1 1\nno\n", at(5));
            write!(
                output,
                "{:?} {}",
                node.boot(),
                String::from_utf8_lossy(node.poll_output(client))
            )
            .unwrap();
            output
        };
        assert_eq!(run(), run());
    }
}
