//! One server, without a socket: events and a time go in, bytes and requests come out.
//!
//! A [`Node`] has four kinds of method, as quinn-proto's `Connection` has them:
//!
//! | kind | what it may do | which |
//! |---|---|---|
//! | constructors | begin a server | [`Node::new`], [`Node::keep_journal`], [`Node::restore`], [`Node::journal_opened`] |
//! | `handle_*(&mut self, …)` | an event happened: the only way in | a connection was accepted, made, lost; bytes, the end of input, a write; a name resolved; disk work done; deadlines; stop, reload |
//! | `poll_*(&mut self, …)` | the next thing to do: the only way out | [`poll_request`](Node::poll_request), [`poll_disk_work`](Node::poll_disk_work), [`poll_dirty`](Node::poll_dirty), [`poll_output`](Node::poll_output), [`poll_disposition`](Node::poll_disposition) |
//! | getters `(&self)` | nothing: asking twice gives the same | [`wants_read`](Node::wants_read), [`next_deadline`](Node::next_deadline), [`connections`](Node::connections), [`records`](Node::records), … |
//!
//! One turn, in this order, whether sockets are real or simulated:
//!
//! 1. `handle_*` for all that happened: disk work and look-ups that are done, connections that are
//!    new, bytes that were read.
//! 2. [`drive`]: deadlines that are due; then requests, disk work, and the output of each dirty
//!    connection, links first, until nothing is left to do. Disk work is begun before anything is
//!    written, and a connection closes when its output is written.
//!
//! Every `handle_*` ends in the same place (`Node::handle`), where what may follow from any event
//! is done: questions for Places are given connections, answers are given to their clients.
//!
//! # Sessions
//!
//! A connection has a session: a client, a proxy's connection whose header has not come, a link, or
//! an exchange. All have one face, [`Protocol`]; TLS is below it, in `connection.rs`. What an event
//! wants done outside its session is returned, and done in one place, `Node::apply`:
//!
//! | kind | effects |
//! |---|---|
//! | [`Client`](crate::core::client::Client) | [`client::Effect`](crate::core::client::Effect): ask Places; it is lost |
//! | [`Proxied`](crate::core::client::proxied::Proxied) | [`proxied::Effect`](crate::core::client::proxied::Effect): its client is named; it is refused; it is lost |
//! | [`Link`](crate::core::link::Link) | [`link::Effect`](crate::core::link::Effect): it replaces another one; our history was rolled back; it is lost |
//! | [`Exchange`](crate::core::places::exchange::Exchange) | [`exchange::Effect`](crate::core::places::exchange::Effect): it is made; it is answered; it failed; it is lost |
//!
//! Behind `handle_` and in the sessions, the names are asyncio's: a reader who knows
//! `asyncio.Protocol` knows what each is for. Nothing here blocks, and nothing here reads a clock:
//! the time is an argument. One client, walked through by hand:
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
mod addresses;
mod clients;
mod connection;
mod drive;
mod invariants;
mod journaling;
mod neighbours;
mod poll;
mod proxied;
mod questions;
mod session;
mod states;
#[cfg(test)]
mod tls_time;
mod turn_order;
#[cfg(test)]
mod wall_clock;

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};

use crate::core::base::boot_id::BootId;
use crate::core::base::clock::{Now, Time};
use crate::core::base::deadlines::Deadlines;
use crate::core::base::entropy::Entropy;
use crate::core::base::limits::{Limits, count, ms};
use crate::core::base::settings::{Secrets, SecretsChange, Settings, TlsSettings};
use crate::core::base::slots::{Id, Slots};
use crate::core::client::proxied::Refusal;
use crate::core::journal::durability::DiskDone;
use crate::core::places::answer::Outcome;
use crate::core::places::call::{CallId, Calls};
use crate::core::session::admission::Admissions;
use crate::core::session::herd::{Herd, NeighbourId};
use crate::core::session::protocol::Protocol;
use crate::core::session::resolver::Resolver;
use crate::core::session::tally::Tally;
use crate::core::session::tls::TlsSession;
use crate::core::session::tls_clock::TlsClock;
use crate::core::table::records::Records;
use journaling::Journal;
use session::Session;

pub use drive::{Io, Wants, drive, perform_disk_work};
use poll::Dirty;
pub use poll::Request;

/// The name of a connection.
pub type ConnId = Id;

struct Slot {
    session: Session,
    /// TLS between the socket and the session.
    secure: Option<Box<TlsSession>>,
    /// It is on the list of [`Node::poll_dirty`].
    is_dirty: bool,
    /// The earliest deadline that is in the heap for it.
    armed: Option<Time>,
    /// It is on the list of those that wait for room in the journal.
    wants_room: bool,
    /// It is on the list of those whose answers wait for the journal.
    held: bool,
}

/// What a deadline is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    Connection(ConnId),
    /// A client has waited long enough for a call.
    Call(CallId),
    /// The next address of Places may be tried for a call.
    Attempt(CallId),
    Redial(NeighbourId),
    Resolve,
    /// Answers are left to be delivered.
    Answers,
    /// Of a server that stops: who still waits for Places is told that there will be no answer.
    LastAnswers,
    /// The disk is to do something.
    Journal,
    /// Of a server that stops: who is still there is cut off.
    Stop,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Running,
    /// Told to stop; what is being answered is finished.
    Stopping,
    /// The time for that is over.
    Overdue,
}

/// One server.
pub struct Node {
    settings: Settings,
    boot: BootId,
    phase: Phase,
    sessions: Slots<Slot>,
    admission: Admissions,
    /// Connections to the neighbours' port that had not proven who they are when last looked at.
    unproven: Vec<ConnId>,
    /// Connections of proxies whose header had not come when last looked at, the oldest first.
    unidentified: VecDeque<ConnId>,
    /// How many connections of proxies were refused, by [`Refusal::kind`].
    proxied_refused: [u64; Refusal::KINDS],
    records: Records,
    tally: Tally,
    herd: Herd,
    calls: Calls,
    /// Answers of Places, with the clients that wait for each; worked off at the end of every
    /// event.
    answers: VecDeque<(Vec<ConnId>, Outcome)>,
    /// This turn has delivered its share of them.
    answers_wait: bool,
    resolver: Resolver,
    /// What outlasts this server, if it has a data directory.
    journal: Option<Journal>,
    deadlines: Deadlines<Timer>,
    requests: VecDeque<Request>,
    dirty: Dirty,
    /// What links and clients know: up to which change things may leave, up to which everything is
    /// written down, and how many records the table lacks.
    announced: (u64, u64, u64),
    entropy: Entropy,
    /// What rustls takes for the wall clock.
    tls_clock: TlsClock,
    /// The time of the latest event.
    now: Now,
    plaintext: Vec<u8>,
}

/// What the node lends a session for one event. A method would borrow the session too.
macro_rules! context {
    ($node:expr, $tls:expr, $now:expr) => {
        crate::core::session::context::Context {
            now: $now,
            settings: &$node.settings,
            boot: $node.boot,
            is_stopping: $node.phase != crate::core::node::Phase::Running,
            clients: $node.admission.clients(),
            records: &mut $node.records,
            herd: &mut $node.herd,
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

/// How many connections to have address space for at once: all that may be, unless a config allows
/// far more than are likely.
#[must_use]
pub fn expected_connections(limits: &Limits) -> usize {
    // Neighbours, and clients that are told why they cannot come in, are few beside these.
    let others =
        limits.max_unproven + limits.max_unidentified + limits.max_places_connections + 1_024;
    count(limits.max_clients + others).min(131_072)
}

impl Node {
    /// A server that has heard nothing yet, and begins to dial its neighbours. Everything
    /// unpredictable in it grows from `seed`.
    #[must_use]
    pub fn new(mut settings: Settings, seed: &[u8; 32], now: Now) -> Node {
        let mut entropy = Entropy::new(seed);
        let tls_clock = TlsClock::default();
        settings.tls = tls_clock.settings(settings.tls);
        settings.places.tls = tls_clock.client(&settings.places.tls);
        let neighbours = std::mem::take(&mut settings.neighbours);
        let limits = &settings.limits;
        let mut records = Records::new(limits);
        records.know_servers(settings.herd.iter().map(String::as_str));
        let mut node = Node {
            boot: BootId(entropy.number()),
            phase: Phase::Running,
            sessions: Slots::with_capacity(expected_connections(limits)),
            admission: Admissions::default(),
            unproven: Vec::new(),
            unidentified: VecDeque::new(),
            proxied_refused: [0; Refusal::KINDS],
            records,
            tally: Tally::default(),
            herd: Herd::new(neighbours, limits),
            calls: Calls::new(limits),
            answers: VecDeque::new(),
            answers_wait: false,
            resolver: Resolver::new(ms(limits.lookup_ms)),
            journal: None,
            deadlines: Deadlines::default(),
            requests: VecDeque::new(),
            dirty: Dirty::default(),
            announced: (0, 0, 0),
            entropy,
            tls_clock,
            now,
            plaintext: Vec::new(),
            settings,
        };
        node.dial_all(now);
        node
    }

    /// Which life of its process this server is in.
    #[must_use]
    pub fn boot(&self) -> BootId {
        self.boot
    }

    /// Everybody's position.
    #[must_use]
    pub fn records(&self) -> &Records {
        &self.records
    }

    /// Every event goes through here, so what may follow from any of them is done in one place.
    #[inline]
    fn handle<T>(&mut self, now: Now, event: impl FnOnce(&mut Node) -> T) -> T {
        self.tls_clock.set(now.wall);
        self.now = now;
        let outcome = event(self);
        self.work_off_questions(now);
        outcome
    }

    /// A client connected. `None` if there are too many, or the server stops: close the socket.
    pub fn handle_client_connected(&mut self, address: SocketAddr, now: Now) -> Option<ConnId> {
        self.handle(now, |node| node.client_connected(address))
    }

    /// A peer connected to the neighbours' port. `None` if the server stops: close the socket.
    pub fn handle_neighbour_connected(&mut self, address: SocketAddr, now: Now) -> Option<ConnId> {
        self.handle(now, |node| node.neighbour_connected(address, now))
    }

    /// A connection that was asked for by [`Request::Connect`] is made.
    pub fn handle_connection_made(&mut self, id: ConnId, now: Now) {
        self.handle(now, |node| node.socket_connected(id, now));
        self.mark_dirty(id);
    }

    /// Bytes came in.
    pub fn handle_data_received(&mut self, id: ConnId, data: &[u8], now: Now) {
        self.handle(now, |node| node.bytes_received(id, data, now));
        self.mark_dirty(id);
    }

    /// The other side will send no more; it may still be listening.
    pub fn handle_eof_received(&mut self, id: ConnId, now: Now) {
        self.handle(now, |node| node.socket_ended(id, now));
        self.mark_dirty(id);
    }

    /// The socket may take output again.
    pub fn handle_writable(&mut self, id: ConnId) {
        self.mark_dirty(id);
    }

    /// The socket took the first `count` bytes of [`Node::poll_output`].
    pub fn handle_output_sent(&mut self, id: ConnId, count: usize, now: Now) {
        self.handle(now, |node| node.output_sent(id, count, now));
    }

    /// The connection is closed. This is the last event of its id. `why` is what the system said,
    /// unless the core wanted it closed.
    pub fn handle_connection_lost(&mut self, id: ConnId, why: Option<&str>, now: Now) {
        self.handle(now, |node| {
            let Some(mut slot) = node.sessions.remove(id) else {
                return;
            };
            let tls = slot.secure.as_deref();
            let why = tls.and_then(TlsSession::failure).or(why);
            let context = &mut context!(node, tls, now);
            if let Some(effect) = slot.session.connection_lost(why, context) {
                node.apply(id, effect, now);
            }
        });
    }

    /// What the executor found for [`Request::Resolve`].
    pub fn handle_resolved(&mut self, host: &str, found: Result<Vec<IpAddr>, String>, now: Now) {
        self.handle(now, |node| {
            node.resolver.resolved(host, found, now.time);
            node.dial_resolved(now);
        });
    }

    /// What became of the disk's work.
    pub fn handle_disk_done(&mut self, done: DiskDone, now: Now) {
        self.handle(now, |node| node.disk_done(done, now));
    }

    /// Acts on every deadline that has come.
    pub fn handle_deadlines(&mut self, now: Now) {
        self.handle(now, |node| {
            while let Some(timer) = node.deadlines.due(now.time) {
                match timer {
                    Timer::Connection(id) => node.connection_due(id, now),
                    Timer::Call(call) => node.call_due(call, now),
                    Timer::Attempt(call) => node.attempt_due(call, now),
                    Timer::Redial(neighbour) => node.redial_due(neighbour, now),
                    Timer::Resolve => node.dial_resolved(now),
                    Timer::Answers => node.answers_wait = false, // the next share follows the event
                    Timer::LastAnswers => node.give_up_calls(now),
                    Timer::Journal => node.journal_due(now),
                    Timer::Stop => {
                        node.phase = Phase::Overdue;
                        node.mark_all_dirty();
                    }
                }
            }
        });
    }

    /// New certificates and keys are for connections to come; those that are there keep theirs.
    pub fn handle_reload(&mut self, tls: TlsSettings) {
        self.settings.tls = self.tls_clock.settings(tls);
    }

    /// From now on, links are proven with these secrets; those that are up stay up. Returns what
    /// that means to neighbours that have the old ones.
    pub fn handle_secrets(&mut self, secrets: Secrets) -> SecretsChange {
        let old = std::mem::replace(&mut self.settings.secrets, secrets);
        self.settings.secrets.change_from(&old)
    }

    /// Begins to stop: no new client is served, what is being answered is finished, records go out
    /// to the neighbours. After `limits.stop_ms`, or at a second stop, the rest is cut off.
    pub fn handle_stop(&mut self, now: Now) {
        self.handle(now, |node| node.stop(now));
    }

    fn stop(&mut self, now: Now) {
        if self.phase != Phase::Running {
            self.phase = Phase::Overdue;
            return self.mark_all_dirty();
        }
        self.phase = Phase::Stopping;
        let stop_ms = self.settings.limits.stop_ms;
        self.deadlines.call_at(now.time + ms(stop_ms), Timer::Stop);
        self.deadlines
            .call_at(now.time + ms(stop_ms - stop_ms / 10), Timer::LastAnswers);
        let ids: Vec<ConnId> = self.sessions.iter().map(|(id, _)| id).collect();
        for id in ids {
            self.on_session(id, now, |it, context| {
                it.stop(context);
                None
            });
        }
        self.mark_all_dirty();
    }

    /// Whether bytes from the socket are wanted now: asyncio's `pause_reading` and
    /// `resume_reading`, derived.
    #[must_use]
    pub fn wants_read(&self, id: ConnId) -> bool {
        let slot = self.sessions.get(id);
        slot.is_some_and(|slot| slot.session.wants_read())
    }

    /// When [`Node::handle_deadlines`] has to be called next.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Time> {
        self.deadlines.next()
    }

    /// Whether it was told to stop, and no connection is left.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.phase != Phase::Running && self.sessions.is_empty()
    }

    /// How many connections there are.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.sessions.len()
    }

    fn session(&mut self, id: ConnId) -> Option<&mut Session> {
        self.sessions.get_mut(id).map(|slot| &mut slot.session)
    }

    /// The one place where connections get their ids.
    fn admit(
        &mut self,
        secure: Option<TlsSession>,
        session: impl FnOnce(ConnId) -> Session,
    ) -> ConnId {
        let id = self.sessions.insert_with(|id| Slot {
            session: session(id),
            secure: secure.map(Box::new),
            is_dirty: false,
            armed: None,
            wants_room: false,
            held: false,
        });
        self.mark_dirty(id);
        id
    }

    /// Puts a connection on the list of those to flush before the turn ends.
    fn mark_dirty(&mut self, id: ConnId) {
        let Some(slot) = self.sessions.get_mut(id) else {
            return;
        };
        if !std::mem::replace(&mut slot.is_dirty, true) {
            let is_link = matches!(slot.session, Session::Link(_));
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

    /// A server without neighbours or a key for Places.
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
    fn a_client_paused_by_its_last_command_goes_on_when_its_output_is_taken() {
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
    fn a_stop_looks_at_each_connection_a_few_times_however_many_there_are() {
        let mut node = node(Default::default());
        let mut ids: Vec<ConnId> = (0..20_000)
            .map(|_| {
                node.handle_client_connected("192.0.2.1:1".parse().unwrap(), at(0))
                    .unwrap()
            })
            .collect();
        node.handle_stop(at(0));
        let mut looks = 0;
        while let Some(id) = ids.pop() {
            node.handle_connection_lost(id, None, at(1));
            looks += std::iter::from_fn(|| node.poll_dirty()).count();
        }
        assert!(node.is_stopped() && looks <= 20_000, "{looks} looks");
    }

    /// Does what the disk is asked for at once, but for syncs; returns those that were asked for.
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
    fn an_older_update_is_as_safe_as_the_newer_one_when_it_is_answered() {
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
            let mut said = String::new();
            let client = node
                .handle_client_connected("192.0.2.1:1".parse().unwrap(), at(0))
                .unwrap();
            node.handle_data_received(client, b"IAMAT x +1+2 3\nWHATSAT x 1 1\nno\n", at(5));
            write!(
                said,
                "{:?} {}",
                node.boot(),
                String::from_utf8_lossy(node.poll_output(client))
            )
            .unwrap();
            said
        };
        assert_eq!(run(), run());
    }
}
