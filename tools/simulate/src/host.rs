//! A simulated machine: one production [`Node`], its sockets and its clock. Events are passed to
//! the node as in `src/shell/event_loop.rs`. Then the node's own [`drive`] ends the turn.
//!
//! This file adds only checks. A writable connection must not be left with output. A link must not
//! hold more than its limit. The table must never go backwards. Neighbours must be written to
//! before clients.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use herd_mio::core::base::clock::{Now, Time};
use herd_mio::core::base::limits::{LINK_LINE_BYTES, LimitValue, Limits, TURN_BYTES};
use herd_mio::core::base::settings::Settings;
use herd_mio::core::journal::durability::{DiskDone, DiskWork, Fsync};
use herd_mio::core::node::{ConnId, Io, Node, Wants, drive, perform_disk_work};
use herd_mio::core::session::connection_error::SocketError;

use crate::chronicle::{Shown, Subject};
use crate::coverage::Cell;
use crate::herds;
use crate::network::{ACCEPTOR, Notice, OPENER, Party, Received};
use crate::outside::{Outside, failed};
use crate::plan::{DiskPlan, WALL_ORIGIN};
use crate::timeline::{Event, Key, before};
use herd_testkit::at_line::{Fields, Line, record};
use herd_testkit::fake_disk::{ENDLESS, FakeDisk, Queue, Snapshot, Strike};
use herd_testkit::promises::{End, Policy};
use herd_testkit::rng::Rng;

/// The port of a server on which a connection came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Port {
    Clients,
    Neighbours,
}

/// The condition of a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Condition {
    /// The process runs.
    Up,
    /// The kernel refuses connections.
    Down,
    /// There is no power.
    Dark,
}

/// A socket of the process.
struct Socket {
    id: ConnId,
    key: Key,
    side: usize,
    is_link: bool,
    /// Whether the connect is in progress.
    connecting: bool,
    opened: Time,
    /// Whether a write may take bytes. False after a short write.
    writable: bool,
    /// Whether its writing side is shut down.
    finished: bool,
    /// Whether the end of the stream was passed to the node.
    ended: bool,
    /// Whether it is on the next turn's list.
    queued: bool,
}

impl Socket {
    fn may_write(&self) -> bool {
        self.writable && !self.connecting && !self.finished
    }
}

/// A machine that lost power may have lost the last `fsync_ms`, and the time of these pieces of
/// work on its slowest disk.
const DISK_JOBS: u32 = 6;
/// The time of its turns, which is added to that.
const SYNC_GRACE: Duration = Duration::from_millis(100);

/// The greatest number of pieces of disk work to open a journal.
const MOST_BEGINNINGS: u32 = 1_000;

/// The greatest number of rounds over the connections in one turn.
const MOST_ROUNDS: u32 = 10_000;

/// The greatest number of turns in a row after which a deadline is still due. The steps of a
/// compaction need that many.
const MOST_OVERDUE: u32 = 40;

/// The greatest number of bytes that one turn may add to a journal at its limit: one read of a few
/// connections.
const TURN_GRACE: u64 = 4 * TURN_BYTES as u64;

/// Records from neighbours that are older than this are in the journal.
const HEARD_GRACE: Duration = Duration::from_millis(1_500);

/// The longest time after a full disk has room again in which a command may be refused. It is a
/// little longer than the longest freeze.
const REFUSALS: Duration = Duration::from_secs(20);

/// The constant settings of a machine.
pub(crate) struct Setup {
    pub(crate) settings: Settings,
    /// The nanoseconds by which its clock is ahead, until a fault sets the clock.
    pub(crate) clock_off_ns: i64,
    /// The greatest number of bytes of one read.
    pub(crate) scratch: usize,
    /// Whether its wall clock shows only whole seconds.
    pub(crate) coarse: bool,
    /// The length of one turn.
    pub(crate) turn: Duration,
    /// The edges of the herd at this server.
    pub(crate) edges: Vec<usize>,
    /// Its disk, if it has one.
    pub(crate) disk: Option<DiskPlan>,
    /// All clients of the run.
    pub(crate) clients: Arc<[Vec<u8>]>,
}

/// One machine.
pub(crate) struct Host {
    pub(crate) number: usize,
    pub(crate) setup: Setup,
    pub(crate) condition: Condition,
    /// The number of the process's life.
    pub(crate) life: u32,
    node: Option<Node>,
    sockets: Vec<Option<Socket>>,
    ready: Vec<ConnId>,
    /// Connections that the process has not accepted yet.
    backlog: VecDeque<(Port, Key)>,
    pub(crate) frozen: bool,
    /// Whether it was asked to stop, and accepts no connection.
    stopping: bool,
    /// The offset of the wall clock, and the time since which it holds.
    clock: Vec<(Time, i64)>,
    next_turn: Option<Time>,
    busy_until: Time,
    /// The number of turns in all its lives.
    pub(crate) turns: u64,
    /// The number of finished pieces of disk work in all its lives.
    pub(crate) disk_works: u64,
    pub(crate) disk: Option<FakeDisk>,
    /// The random length of its disk work.
    disk_rng: Rng,
    /// The queues that are busy.
    is_working: [bool; 2],
    /// While the process does not run: the records that it will find on its disk, by client.
    kept: BTreeMap<Vec<u8>, Line>,
    /// Whether the process has to end in the middle of its next write to the journal.
    pub(crate) doomed: bool,
    /// Faults that wait for a state of this server.
    pub(crate) aims: Vec<(usize, Cell)>,
    /// How the process ended, if it was not ended from outside. The world handles the rest.
    pub(crate) fallen: Option<Fallen>,
    /// The time of its last freeze.
    frozen_at: Time,
    thawed_at: Time,
    /// The first life since which no acknowledged update was lost.
    pub(crate) whole_since: u32,
    /// The number of turns in a row after which a deadline was still due.
    overdue: u32,
    /// The last time at which its disk was full.
    full_until: Option<Time>,
    /// The last time at which its disk refused a write.
    pub(crate) refused_at: Option<Time>,
    /// Whether it has less room for records than the others, or the time until which it had.
    tight_until: Option<Time>,
    /// Whether an older copy of its data directory was put back. Then it may begin a new life while
    /// it runs.
    is_restored: bool,
    /// The number of the last change whose epoch is noted.
    noted_seq: u64,
    /// The tombstones that it made, with the time and the life. Two lives may make the same one.
    pub(crate) tombstones: Vec<(Time, u32, Line)>,
    /// Whether its disk was full since the last time at which it held all records of its
    /// neighbours.
    was_full: bool,
}

/// How a process ended by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fallen {
    /// In the middle of a write.
    Torn,
    /// Its disk broke a promise.
    GaveUp,
}

impl Host {
    /// A machine whose process does not run yet.
    pub(crate) fn new(number: usize, setup: Setup, rng: Rng) -> Host {
        let (disk, clock_off_ns) = (setup.disk, setup.clock_off_ns);
        let disk_rng = rng.clone();
        let disk = disk.map(|plan| {
            let mut disk = FakeDisk::new(&setup.settings.name, rng);
            disk.set_reserves(plan.reserves);
            disk
        });
        Host {
            number,
            setup,
            condition: Condition::Down,
            life: 0,
            node: None,
            sockets: Vec::new(),
            ready: Vec::new(),
            backlog: VecDeque::new(),
            frozen: false,
            stopping: false,
            clock: vec![(Time::default(), clock_off_ns)],
            next_turn: None,
            busy_until: Time::default(),
            turns: 0,
            disk_works: 0,
            disk,
            disk_rng,
            is_working: [false; 2],
            kept: BTreeMap::new(),
            doomed: false,
            aims: Vec::new(),
            fallen: None,
            frozen_at: Time::default(),
            thawed_at: Time::default(),
            whole_since: 1,
            overdue: 0,
            full_until: None,
            refused_at: None,
            tight_until: None,
            is_restored: false,
            noted_seq: 0,
            tombstones: Vec::new(),
            was_full: false,
        }
    }

    /// The `AT` line, without its LF, that the server holds of a client.
    pub(crate) fn line(&self, client: &[u8]) -> Option<Vec<u8>> {
        let mut line = self.node.as_ref()?.records().line(client)?;
        line.pop();
        Some(line)
    }

    /// Its line or tombstone of a client, in a form that can be compared.
    pub(crate) fn held(&self, client: &[u8]) -> Option<Line> {
        let records = self.node.as_ref()?.records();
        let line = records.record(client)?;
        Line::new(line.strip_suffix(b"\n")?, records.epoch(client)?)
    }

    /// Notes the epochs of the lines that it holds, if they may have changed.
    fn note_epochs(&mut self, outside: &mut Outside) {
        let Some(records) = self.node.as_ref().map(Node::records) else {
            return;
        };
        if std::mem::replace(&mut self.noted_seq, records.last_seq()) == records.last_seq() {
            return;
        }
        let now = outside.timeline.now();
        for client in self.setup.clients.iter() {
            if let (Some(mut line), Some(epoch)) = (records.record(client), records.epoch(client)) {
                line.pop();
                if let Some(tombstone) = Line::new(&line, epoch).filter(Line::is_tombstone)
                    && Fields::of(&line).is_some_and(|it| it.server == self.name())
                    && !self
                        .tombstones
                        .iter()
                        .any(|(_, life, known)| *life == self.life && *known == tombstone)
                {
                    self.tombstones.push((now, self.life, tombstone));
                }
                if outside.expired.is_on()
                    && let Some(line) = Line::new(&line, epoch)
                {
                    outside.expired.note(line);
                }
                outside.epochs.note(client, line, epoch);
            }
        }
    }

    fn name(&self) -> &[u8] {
        self.setup.settings.name.as_bytes()
    }

    /// The time before which records have expired for sure, if records expire. A second is added
    /// for the clock.
    pub(crate) fn expired_before(&self, time: Time) -> Option<i128> {
        let ttl_ms = self.setup.settings.limits.record_ttl_ms;
        let wall = i128::from(self.now(time).wall);
        (ttl_ms > 0).then(|| (wall - i128::from(ttl_ms + 1_000) * 1_000_000) * 1_000_000_000)
    }

    /// The same, or the record that it will find on its disk when it starts again.
    pub(crate) fn sure(&self, client: &[u8]) -> Option<Line> {
        match self.node {
            Some(_) => self.held(client),
            None => self.kept.get(client).cloned(),
        }
    }

    /// The number of its records.
    pub(crate) fn records(&self) -> usize {
        self.node.as_ref().map_or(0, |node| node.records().len())
    }

    /// Whether the process runs, and was not asked to stop.
    pub(crate) fn is_up(&self) -> bool {
        self.condition == Condition::Up && !self.stopping
    }

    /// The program that answers at this machine's address. `None` if not even the kernel answers.
    pub(crate) fn listener(&self) -> Option<Party> {
        match self.condition {
            Condition::Up if !self.stopping => Some(Party::Host {
                host: self.number,
                life: self.life,
            }),
            Condition::Up | Condition::Down => Some(Party::Nobody),
            Condition::Dark => None,
        }
    }

    fn look_at_clock(&self, outside: &mut Outside) {
        let wall = self.now(outside.timeline.now()).wall;
        outside.saw(wall, self.setup.settings.limits.record_ttl_ms);
    }

    fn now(&self, time: Time) -> Now {
        let off = self.clock.last().map_or(0, |(_, off)| *off);
        let wall = self.wall(time, off);
        Now { time, wall }
    }

    /// The wall clock with this offset.
    fn wall(&self, time: Time, off: i64) -> u64 {
        let wall = (WALL_ORIGIN + time.as_nanos()).saturating_add_signed(off);
        if self.setup.coarse {
            wall - wall % 1_000_000_000
        } else {
            wall
        }
    }

    /// Whether the wall clock showed `wall` (in attoseconds since the epoch) at some moment between
    /// the two.
    pub(crate) fn showed(&self, wall: i128, from: Time, to: Time) -> bool {
        let ends = self.clock.iter().skip(1).map(|(since, _)| *since);
        let mut spans = self.clock.iter().zip(ends.chain([to]));
        spans.any(|(&(since, off), until)| {
            let (low, high) = (since.max(from), until.min(to));
            let shown = |time| i128::from(self.wall(time, off));
            // A skew has nine decimals, and a stamp up to 18. So their sum, the receipt, may be too
            // early by almost a nanosecond.
            low <= high && (shown(low) - 1..=shown(high)).contains(&(wall / 1_000_000_000))
        })
    }

    /// Sets the wall clock.
    pub(crate) fn set_clock(&mut self, time: Time, off_by_ns: i64) {
        self.clock.push((time, off_by_ns));
    }

    /// Starts the process, in a new life.
    pub(crate) fn start(&mut self, outside: &mut Outside) {
        let now = outside.timeline.now();
        self.look_at_clock(outside);
        self.life += 1;
        self.condition = Condition::Up;
        self.stopping = false;
        self.frozen = false;
        self.busy_until = now;
        let seed = outside.rng.seed();
        let mut node = Node::new(self.setup.settings.clone(), &seed, self.now(now));
        let fsync = self.setup.disk.map(|plan| plan.fsync);
        let opened = self.disk.as_mut().map(|disk| {
            node.keep_journal(fsync.unwrap_or(Fsync::Never));
            let opened = disk.open(|entry| node.restore(entry));
            opened.map(|opened| node.journal_opened(opened))
        });
        outside.log(&[Subject::Host(self.number)], || {
            let (life, records) = (self.life, node.records().len());
            format!(
                "host {} starts, life {life}, with {records} records",
                self.number
            )
        });
        if let Some(Err(error)) = opened {
            let text = format!("host {} refuses its journal: {error}", self.number);
            failed(outside, &text, &[Subject::Host(self.number)]);
        }
        self.node = Some(node);
        self.noted_seq = 0;
        self.note_epochs(outside);
        self.kept.clear();
        self.is_working = [false; 2];
        self.begin_journal(outside);
        outside.network.forget(self.number);
        self.wake(outside);
    }

    /// Makes the beginning of this life safe before the server serves. It takes no virtual time,
    /// because no client can observe it.
    fn begin_journal(&mut self, outside: &mut Outside) {
        let now = self.now(outside.timeline.now());
        for round in 0.. {
            if self.disk.is_none() {
                return;
            }
            if round > MOST_BEGINNINGS {
                let text = format!("host {} does not begin to serve", self.number);
                return failed(outside, &text, &[Subject::Host(self.number)]);
            }
            self.perform_disk_work(now, outside);
            let (Some(node), Some(disk)) = (&mut self.node, &mut self.disk) else {
                return;
            };
            if node.failure().is_some() {
                self.fallen = Some(Fallen::GaveUp);
                return;
            }
            if self.fallen.is_some() {
                return;
            }
            if disk.is_idle() {
                if node.next_deadline().is_some_and(|due| due <= now.time) {
                    node.handle_deadlines(now); // The next step of a compaction.
                    continue;
                }
                disk.finish();
                return;
            }
            disk.do_all();
            if disk.is_idle() {
                continue;
            }
            match disk.finished() {
                Some(done) => node.handle_disk_done(done, now),
                None => return, // A queue is frozen, and continues later.
            }
        }
    }

    /// The process ends without a clean stop.
    pub(crate) fn end(&mut self, end: End, outside: &mut Outside) {
        let dark = end == End::PowerLost;
        let (loses_nothing, kept) = (self.loses_nothing(end), self.heard_until(end));
        let sockets = self.sockets.drain(..).flatten();
        let keys = sockets.map(|socket| (socket.key, socket.side));
        let waiting = self.backlog.drain(..).map(|(_, key)| (key, ACCEPTOR));
        let keys: Vec<(Key, usize)> = keys.chain(waiting).collect();
        if dark {
            outside.network.darken(self.number);
        } else {
            for (key, side) in keys {
                outside.network.close(key, side, &mut outside.timeline);
            }
            // Connections in progress find no program.
            outside.network.darken(self.number);
            outside.network.forget(self.number);
        }
        let kept = kept.filter(|_| loses_nothing);
        outside.wire.died(self.number, &self.setup.edges, kept);
        if !loses_nothing {
            self.whole_since = self.life + 1;
        }
        if let Some(disk) = &mut self.disk {
            disk.end(end);
            self.look_at_kept();
        }
        self.doomed = false;
        self.node = None;
        self.ready.clear();
        self.next_turn = None;
        self.frozen = false;
        self.condition = if dark {
            Condition::Dark
        } else {
            Condition::Down
        };
    }

    /// While the process does not run: the records that the next one will find on the disk. None if
    /// it will refuse the journal.
    fn look_at_kept(&mut self) {
        let table = self.disk.as_ref().map(FakeDisk::table);
        self.kept = table.and_then(Result::ok).unwrap_or_default();
    }

    /// Whether this end loses no acknowledged update: see "What outlasts what" in README.md.
    fn loses_nothing(&self, end: End) -> bool {
        match (self.setup.disk, end) {
            (None, _) => false,
            (Some(_), End::Stopped | End::Killed) => true,
            (Some(plan), End::PowerLost) => plan.fsync == Fsync::Always,
        }
    }

    /// The promises of its disk.
    pub(crate) fn policy(&self) -> Policy {
        match self.setup.disk {
            None => Policy::NoJournal,
            Some(plan) => match plan.fsync {
                Fsync::Always => Policy::Always,
                Fsync::Never => Policy::Never,
                Fsync::Interval => {
                    let limit = self.setup.settings.limits.fsync_ms.to_duration() + SYNC_GRACE;
                    Policy::Interval(limit + plan.slowness * DISK_JOBS)
                }
            },
        }
    }

    /// The time since which it is frozen, if it is.
    pub(crate) fn frozen_since(&self) -> Option<Time> {
        self.frozen.then_some(self.frozen_at)
    }

    /// The time before which all records from its neighbours are in the journal for sure.
    fn heard_until(&self, end: End) -> Option<Time> {
        if end == End::PowerLost || self.setup.disk.is_none() || self.was_full {
            return None;
        }
        let is_waking = before(self.busy_until, HEARD_GRACE) < self.thawed_at
            && self.thawed_at > Time::default();
        let last = if self.frozen || is_waking {
            self.frozen_at
        } else {
            self.busy_until
        };
        Some(before(last, HEARD_GRACE))
    }

    /// Sets the free bytes of its disk. `None` stands for unlimited room.
    pub(crate) fn set_disk_room(&mut self, room: Option<u64>, now: Time) {
        if let Some(disk) = &mut self.disk {
            let used = disk.used();
            disk.set_capacity(room.map_or(ENDLESS, |room| used + room));
            self.was_full |= room.is_some();
            self.full_until = match room {
                Some(_) => Some(Time::from_nanos(u64::MAX)),
                None => self.full_until.map(|_| now),
            };
        }
    }

    /// Makes the next operation of a kind fail on its disk.
    pub(crate) fn strike_disk(&mut self, strike: Strike) {
        if let Some(disk) = &mut self.disk {
            disk.strike(strike);
            self.was_full = true;
            self.full_until = Some(Time::from_nanos(u64::MAX));
        }
    }

    /// Ends the failures of its disk.
    pub(crate) fn mend_disk(&mut self, now: Time) {
        if let Some(disk) = &mut self.disk {
            disk.clear_strikes();
            self.full_until = self.full_until.map(|_| now);
        }
    }

    /// Freezes these queues of its disk, or lets them work again.
    pub(crate) fn set_frozen_disk(
        &mut self,
        queues: &[Queue],
        is_frozen: bool,
        outside: &mut Outside,
    ) {
        for &queue in queues {
            if let Some(disk) = &mut self.disk {
                disk.set_frozen(queue, is_frozen);
                // Records from neighbours wait for a slow disk too.
                self.was_full |= is_frozen;
            }
            self.begin_job(queue, outside);
        }
    }

    /// Sets the room for records from its next start on. `None` stands for the room of the others.
    pub(crate) fn set_room(&mut self, records: Option<u64>, now: Time) {
        let limits = &mut self.setup.settings.limits;
        limits.max_records = records.unwrap_or(Limits::default().max_records);
        self.tight_until = Some(match records {
            Some(_) => Time::from_nanos(u64::MAX),
            None => now,
        });
    }

    /// Whether it has room for only a few records.
    pub(crate) fn is_tight(&self) -> bool {
        self.setup.settings.limits.max_records < Limits::default().max_records
    }

    /// Puts back an older copy of its data directory. The process does not run.
    pub(crate) fn put_back(&mut self, copy: &Snapshot, outside: &mut Outside) {
        if let Some(disk) = &mut self.disk {
            disk.put_back(copy);
            self.look_at_kept();
            self.whole_since = self.life + 1;
            self.is_restored = true;
            outside.wire.died(self.number, &self.setup.edges, None);
        }
    }

    /// Whether an `IAMAT` that was sent at this time may be refused, because the journal had no
    /// room.
    pub(crate) fn may_refuse(&self, sent: Time) -> bool {
        let until = self.full_until.max(self.tight_until);
        until.is_some_and(|until| sent < until + REFUSALS)
    }

    /// Sends SIGTERM.
    pub(crate) fn stop(&mut self, outside: &mut Outside) {
        let now = self.now(outside.timeline.now());
        if let Some(node) = &mut self.node {
            self.stopping = true;
            outside.wire.stopping(self.number);
            for (_, key) in self.backlog.drain(..) {
                outside.network.abort(key, ACCEPTOR, &mut outside.timeline);
            }
            node.handle_stop(now);
            self.wake(outside);
        }
    }

    /// The states of the machines of one kind: of all of them, or of those that concern one edge.
    pub(crate) fn states(
        &self,
        machine: &str,
        edge: Option<usize>,
        outside: &Outside,
    ) -> Vec<&'static str> {
        let Some(node) = &self.node else {
            return Vec::new();
        };
        match machine {
            "link" => {
                let is_meant = |id: ConnId| {
                    let socket = self.sockets.get(id.index()).and_then(Option::as_ref);
                    socket.is_some_and(|socket| {
                        edge.is_none() || outside.wire.edge(socket.key) == edge
                    })
                };
                let links = node.link_states().filter(|(id, _)| is_meant(*id));
                links.map(|(_, state)| state).collect()
            }
            "dial" => {
                // Neighbours are configured in the order of the edges.
                let place = edge.map(|edge| self.setup.edges.iter().position(|own| *own == edge));
                let neighbours = &self.setup.settings.neighbours;
                let other = place.map(|place| place.map(|place| &*neighbours[place].name));
                let dials = node
                    .dial_states()
                    .filter(|(name, _)| other.is_none_or(|other| other == Some(*name)));
                dials.map(|(_, state)| state).collect()
            }
            "compaction" => self.phase().into_iter().collect(),
            "client" => node.client_states().map(|(_, state)| state).collect(),
            other => unreachable!("there is no machine called {other}"),
        }
    }

    /// Whether it has stopped after SIGTERM.
    pub(crate) fn is_stopped(&self) -> bool {
        self.node.as_ref().is_some_and(Node::is_stopped)
    }

    /// Freezes the process.
    pub(crate) fn freeze(&mut self, now: Time) {
        if self.is_up() && !self.frozen {
            self.frozen = true;
            self.frozen_at = now;
        }
    }

    /// Lets the process run again.
    pub(crate) fn thaw(&mut self, outside: &mut Outside) {
        self.frozen = false;
        self.thawed_at = outside.timeline.now();
        self.wake(outside);
    }

    /// An event for one of its connections.
    pub(crate) fn notice(&mut self, notice: Notice, outside: &mut Outside) {
        if notice.is_new {
            if self.stopping {
                outside
                    .network
                    .abort(notice.key, ACCEPTOR, &mut outside.timeline);
                return;
            }
            let port = match outside.network.party(notice.key, OPENER) {
                Party::Host { .. } | Party::Operator(_) => Port::Neighbours,
                Party::Session(_) | Party::Nobody => Port::Clients,
            };
            self.backlog.push_back((port, notice.key));
        } else {
            let sockets = self.sockets.iter_mut().flatten();
            let mut own = sockets.filter(|s| (s.key, s.side) == (notice.key, notice.side));
            let Some(socket) = own.next() else {
                return;
            };
            socket.writable |= outside.network.is_writable(notice.key, notice.side);
            if !std::mem::replace(&mut socket.queued, true) {
                self.ready.push(socket.id);
            }
        }
        self.wake(outside);
    }

    /// Plans the next turn for the earliest possible time, unless one is planned already.
    fn wake(&mut self, outside: &mut Outside) {
        let soon = outside.timeline.now().max(self.busy_until);
        self.turn_at(soon, outside);
    }

    fn turn_at(&mut self, time: Time, outside: &mut Outside) {
        if self.next_turn.is_none_or(|planned| time < planned) {
            self.next_turn = Some(time);
            outside.timeline.at(time, Event::Turn { host: self.number });
        }
    }

    /// The answer of the name server.
    pub(crate) fn looked_up(&mut self, life: u32, name: &str, works: bool, outside: &mut Outside) {
        let now = self.now(outside.timeline.now());
        if life != self.life {
            return;
        }
        let Some(node) = &mut self.node else {
            return;
        };
        let found = herds::look_up(name).filter(|_| works);
        node.handle_resolved(name, found.ok_or_else(|| "no answer".to_owned()), now);
        self.wake(outside);
    }

    /// One turn of the loop, if this is the event that was planned for it.
    pub(crate) fn turn(&mut self, outside: &mut Outside) {
        let time = outside.timeline.now();
        if self.next_turn != Some(time) {
            return;
        }
        self.next_turn = None;
        if self.frozen || self.node.is_none() {
            return;
        }
        self.turns += 1;
        self.look_at_clock(outside);
        outside.chronicle.mix(time, &[1, self.number as u64], &[]);
        let now = self.now(time);
        if self.hear_disk(now) {
            return self.turn_at(time, outside);
        }
        self.accept(now, outside);
        let mut ready = std::mem::take(&mut self.ready);
        outside.rng.shuffle(&mut ready);
        for id in ready {
            self.receive(id, now, outside);
        }
        let is_aimed_at = self.drive(now, outside);
        self.note_epochs(outside);
        if self.fallen.is_none() {
            self.look_at_disk(outside);
        }
        if self.fallen.is_some() {
            return;
        }
        if is_aimed_at {
            return self.turn_at(time, outside);
        }
        self.look_around(outside);
        self.is_spinning(time, outside);
        self.busy_until = time + self.setup.turn;
        if !self.ready.is_empty() || !self.backlog.is_empty() {
            self.turn_at(self.busy_until, outside);
        }
        if let Some(deadline) = self.node.as_ref().and_then(Node::next_deadline) {
            self.turn_at(deadline.max(self.busy_until), outside);
        }
    }

    /// Handles finished disk work. Returns whether a fault waits for the new state.
    fn hear_disk(&mut self, now: Now) -> bool {
        while let (Some(node), Some(done)) = (
            &mut self.node,
            self.disk.as_mut().and_then(FakeDisk::finished),
        ) {
            self.disk_works += 1;
            node.handle_disk_done(done, now);
            if self
                .node
                .as_ref()
                .is_some_and(|node| self.is_aimed_at(node))
            {
                return true;
            }
        }
        false
    }

    /// Whether a fault waits for the present phase of the compaction. Some phases begin and end
    /// within a turn.
    fn is_aimed_at(&self, node: &Node) -> bool {
        let phase = node.journal_phase().map(|phase| phase.name());
        let is_meant =
            |(machine, state, _): &Cell| *machine == "compaction" && phase == Some(state);
        self.aims.iter().any(|(_, cell)| is_meant(cell))
    }

    fn phase(&self) -> Option<&'static str> {
        Some(self.node.as_ref()?.journal_phase()?.name())
    }

    /// A queue of its disk has finished a piece of work.
    pub(crate) fn disk_worked(&mut self, life: u32, queue: Queue, outside: &mut Outside) {
        if life != self.life || self.node.is_none() {
            return;
        }
        self.is_working[queue as usize] = false;
        if let Some(disk) = &mut self.disk {
            let before = disk.refusals();
            disk.work(queue);
            if disk.refusals() > before {
                self.refused_at = Some(outside.timeline.now());
            }
        }
        self.begin_job(queue, outside);
        self.wake(outside);
    }

    fn begin_job(&mut self, queue: Queue, outside: &mut Outside) {
        let is_busy = self.disk.as_ref().is_some_and(|disk| disk.is_busy(queue));
        let most = self.setup.disk.map_or(0, |plan| plan.slowness.as_micros());
        if is_busy && !std::mem::replace(&mut self.is_working[queue as usize], true) {
            let event = Event::DiskWorked {
                host: self.number,
                life: self.life,
                queue,
            };
            let wait = self.disk_rng.micros(0, most as u64);
            outside.timeline.after(wait, event);
        }
    }

    /// Makes the process end in the middle of a write of its journal: the one in progress, or the
    /// next one.
    pub(crate) fn doom(&mut self) {
        self.doomed = true;
        self.look_at_doom();
    }

    /// Whether a write of its journal is in progress.
    pub(crate) fn is_writing(&self) -> bool {
        let writes = |disk: &FakeDisk| disk.jobs(Queue::Writer) > 0;
        self.condition == Condition::Up && self.disk.as_ref().is_some_and(writes)
    }

    fn look_at_doom(&mut self) {
        if self.doomed && self.is_writing() {
            self.fallen = Some(Fallen::Torn);
        }
    }

    /// Runs `act` with the server and its machine. Returns whether a fault waits for the new state.
    fn with_machine(
        &mut self,
        now: Now,
        outside: &mut Outside,
        act: impl FnOnce(&mut Node, &mut Machine<'_>),
    ) -> bool {
        let Some(mut node) = self.node.take() else {
            return false;
        };
        let mut machine = Machine {
            host: self,
            outside,
            now,
            rounds: 0,
            clients_began: false,
            is_aimed_at: false,
        };
        act(&mut node, &mut machine);
        let is_aimed_at = machine.is_aimed_at;
        self.node = Some(node);
        is_aimed_at
    }

    /// Ends a turn. Returns early, with `true`, if a fault waits for the new state.
    fn drive(&mut self, now: Now, outside: &mut Outside) -> bool {
        self.with_machine(now, outside, |node, machine| drive(node, machine, now))
    }

    fn perform_disk_work(&mut self, now: Now, outside: &mut Outside) {
        self.with_machine(now, outside, |node, machine| {
            perform_disk_work(node, machine, now);
        });
    }

    /// Checks the disk. A server gives up only if its disk broke a promise. The journal must not
    /// exceed its limit.
    fn look_at_disk(&mut self, outside: &mut Outside) {
        let (Some(node), Some(disk)) = (&self.node, &self.disk) else {
            return;
        };
        let wrong = match node.failure() {
            Some(_) if disk.may_give_up() => {
                self.fallen = Some(Fallen::GaveUp);
                return;
            }
            Some(reason) => Some(format!("gives up: {reason}")),
            None if disk.must_give_up() && disk.is_idle() => {
                Some("continues, but cannot know what its disk has".to_owned())
            }
            None => None,
        };
        let most = node.journal_bound().map(|bound| bound + TURN_GRACE);
        let long = most.filter(|most| disk.length() > *most).map(|most| {
            let length = disk.length();
            format!("has a journal of {length} bytes, but its limit is {most}")
        });
        if let Some(what) = wrong.or(long) {
            let text = format!("host {} {what}", self.number);
            failed(outside, &text, &[Subject::Host(self.number)]);
        }
    }

    fn accept(&mut self, now: Now, outside: &mut Outside) {
        while let Some((port, key)) = self.backlog.pop_front() {
            let Some(node) = &mut self.node else {
                return;
            };
            let admitted = match port {
                Port::Clients => node.handle_client_connected(herds::client_address(key), now),
                Port::Neighbours => {
                    let from = match outside.network.party(key, OPENER) {
                        Party::Host { host, .. } => herds::server_address(host),
                        Party::Session(_) | Party::Operator(_) | Party::Nobody => {
                            herds::client_address(key)
                        }
                    };
                    node.handle_neighbour_connected(from, now)
                }
            };
            let Some(id) = admitted else {
                outside.network.close(key, ACCEPTOR, &mut outside.timeline);
                continue;
            };
            if port == Port::Neighbours {
                outside.wire.accepted(key);
            }
            self.adopt(id, key, ACCEPTOR, port == Port::Neighbours, outside);
        }
    }

    fn adopt(&mut self, id: ConnId, key: Key, side: usize, is_link: bool, outside: &mut Outside) {
        if self.sockets.len() <= id.index() {
            self.sockets.resize_with(id.index() + 1, || None);
        }
        if self.sockets[id.index()].is_some() {
            failed(
                outside,
                "two connections have the same slot",
                &[Subject::Host(self.number)],
            );
        }
        let is_readable = outside.network.is_readable(key, side);
        self.sockets[id.index()] = Some(Socket {
            id,
            key,
            side,
            is_link,
            connecting: side == OPENER,
            opened: outside.timeline.now(),
            writable: true,
            finished: false,
            ended: false,
            queued: is_readable,
        });
        if is_readable {
            self.ready.push(id);
        }
    }

    /// The socket of an open connection.
    fn socket(&mut self, id: ConnId) -> Option<&mut Socket> {
        let socket = self.sockets.get_mut(id.index())?.as_mut();
        socket.filter(|socket| socket.id == id)
    }

    /// Serves one ready connection: finishes its connect, or reads once.
    fn receive(&mut self, id: ConnId, now: Now, outside: &mut Outside) {
        let scratch = self.setup.scratch;
        let Some(socket) = self.socket(id) else {
            return;
        };
        socket.queued = false;
        let (key, side, is_link) = (socket.key, socket.side, socket.is_link);
        if socket.connecting {
            if outside.network.is_reset(key, side) {
                return self.lose(id, "refused", now, outside);
            }
            if !outside.network.is_connected(key, side) {
                return;
            }
            socket.connecting = false;
            if let Some(node) = &mut self.node {
                node.handle_connection_made(id, now);
            }
        }
        let wants_read = self.node.as_ref().is_some_and(|node| node.wants_read(id));
        if !wants_read {
            if outside.network.is_reset(key, side) {
                return self.lose(id, "reset", now, outside);
            }
        } else {
            let received = outside
                .network
                .read(key, side, scratch, &mut outside.timeline);
            match received {
                Received::Bytes(bytes) => {
                    self.deliver(id, key, side, is_link, &bytes, now, outside)
                }
                Received::End => {
                    let seen = self
                        .socket(id)
                        .is_none_or(|socket| std::mem::replace(&mut socket.ended, true));
                    if !seen && let Some(node) = &mut self.node {
                        node.handle_eof_received(id, now);
                    }
                }
                Received::Nothing => {}
                Received::Reset => return self.lose(id, "reset", now, outside),
            }
        }
        if let Some(node) = &mut self.node {
            node.handle_writable(id);
        }
    }

    #[allow(clippy::too_many_arguments, reason = "a socket and what came in by it")]
    fn deliver(
        &mut self,
        id: ConnId,
        key: Key,
        side: usize,
        is_link: bool,
        bytes: &[u8],
        now: Now,
        outside: &mut Outside,
    ) {
        outside
            .chronicle
            .mix(now.time, &[2, key as u64, side as u64], bytes);
        let records = if is_link {
            outside.wire.received(key, side, bytes, now.time)
        } else {
            Vec::new()
        };
        let clients: Vec<&[u8]> = records
            .iter()
            .filter_map(|bytes| Some(Fields::of(record(bytes)?.1)?.client))
            .collect();
        let before: Vec<Option<Line>> = clients.iter().map(|client| self.held(client)).collect();
        if let Some(node) = &mut self.node {
            node.handle_data_received(id, bytes, now);
            // The record waits for room in the journal. A lost record would show after the storm.
            let is_waiting = is_link && !node.wants_read(id);
            self.note_epochs(outside);
            if is_waiting {
                return outside.wire.not_understood_yet(key, side, now.time);
            }
        }
        for ((record, client), before) in records.iter().zip(clients).zip(before) {
            self.judge(key, side, record, client, before, outside);
        }
    }

    /// Checks the table after a record of a link: it must hold that record, or a greater one in the
    /// protocol's order.
    fn judge(
        &self,
        key: Key,
        side: usize,
        record: &[u8],
        client: &[u8],
        before: Option<Line>,
        outside: &mut Outside,
    ) {
        let after = self.held(client);
        let sent = Line::of_link(record);
        if after == sent && before != after {
            outside.wire.learned(key, side, record);
        }
        // A stopping server has closed its links, and takes no more records. A full server takes no
        // new client.
        let has_room = before.is_some()
            || self
                .tight_until
                .is_none_or(|until| until <= outside.timeline.now());
        // A server whose history was rolled back has closed the link, if this was its first notice
        // of that.
        let wanted = sent.filter(|_| !self.stopping && has_room && !self.is_restored);
        // A server need not keep a record that may have expired.
        let wanted = wanted.max(before.clone());
        let wanted = wanted.filter(|line| !outside.expired.covers(line));
        if after < wanted {
            let text = format!(
                "host {} got {} and holds {}; before, it held {}",
                self.number,
                Shown(record),
                Shown(after.as_ref().map_or(b"nothing", Line::bytes)),
                Shown(before.as_ref().map_or(b"nothing", Line::bytes)),
            );
            let subjects = [Subject::Host(self.number), Subject::Record(client.to_vec())];
            failed(outside, &text, &subjects);
        }
    }

    /// Closes a socket.
    fn close(&mut self, id: ConnId, why: Option<&SocketError>, outside: &mut Outside) {
        let place = self.sockets.get_mut(id.index());
        if let Some(socket) = place.and_then(Option::take) {
            let (network, timeline) = (&mut outside.network, &mut outside.timeline);
            network.close(socket.key, socket.side, timeline);
            if socket.is_link {
                outside.wire.closed(socket.key, socket.side);
                outside.log_of(socket.key, self.number, || {
                    format!(
                        "connection {}: host {} closes it ({})",
                        socket.key,
                        self.number,
                        why.map_or_else(
                            || "the core asked for it".to_owned(),
                            SocketError::to_string
                        )
                    )
                });
            }
        }
    }

    /// A socket has broken.
    fn lose(&mut self, id: ConnId, why: &str, now: Now, outside: &mut Outside) {
        let why = SocketError::from(why);
        self.close(id, Some(&why), outside);
        if let Some(node) = &mut self.node {
            node.handle_connection_lost(id, Some(&why), now);
        }
    }

    /// Checks for a busy loop: a deadline that is still due after a turn wakes the loop at once.
    fn is_spinning(&mut self, time: Time, outside: &mut Outside) {
        let deadline = self.node.as_ref().and_then(Node::next_deadline);
        self.overdue = if deadline.is_some_and(|deadline| deadline <= time) {
            self.overdue + 1
        } else {
            0
        };
        if self.overdue > MOST_OVERDUE {
            let text = format!("host {} is in a busy loop", self.number);
            failed(outside, &text, &[Subject::Host(self.number)]);
        }
    }

    /// Checks that no writable connection is left with output, because no later event would flush
    /// it.
    fn look_around(&mut self, outside: &mut Outside) {
        let Some(node) = &mut self.node else {
            return;
        };
        for socket in self.sockets.iter().flatten() {
            let could_write = socket.may_write() && !socket.queued;
            if could_write && !node.poll_output(socket.id).is_empty() {
                let text = format!(
                    "host {} has unsent output on the writable connection {}",
                    self.number, socket.key
                );
                let subjects = [Subject::Host(self.number)];
                failed(outside, &text, &subjects);
            }
        }
        if let Err(wrong) = node.check_invariants() {
            let text = format!("host {}: {wrong}", self.number);
            failed(outside, &text, &[Subject::Host(self.number)]);
        }
        let sockets = self.sockets.iter().flatten().count();
        if node.connections() != sockets {
            let text = format!(
                "host {} has {} sessions and {sockets} sockets",
                self.number,
                node.connections()
            );
            failed(outside, &text, &[Subject::Host(self.number)]);
        }
    }

    /// Whether it has dialled a neighbour for longer than its limit.
    pub(crate) fn dials_in_vain(&self, since: Time) -> bool {
        let dialling = |socket: &Socket| socket.connecting && socket.opened < since;
        self.sockets.iter().flatten().any(dialling)
    }

    /// The numbers of its connections to neighbours and to clients.
    pub(crate) fn connections(&self) -> (usize, usize) {
        let sockets = || self.sockets.iter().flatten();
        let links = sockets().filter(|socket| socket.is_link).count();
        (links, sockets().count() - links)
    }
}

/// The machine of a server during one turn.
struct Machine<'a> {
    host: &'a mut Host,
    outside: &'a mut Outside,
    now: Now,
    /// The number of rounds over the connections in this turn.
    rounds: u32,
    /// Whether a client was flushed in this round.
    clients_began: bool,
    /// Whether a fault waits for the new state.
    is_aimed_at: bool,
}

impl Machine<'_> {
    fn failed(&mut self, text: &str) {
        failed(self.outside, text, &[Subject::Host(self.host.number)]);
    }

    fn look_at_order(&mut self, id: ConnId) {
        let Some(is_link) = self.host.socket(id).map(|socket| socket.is_link) else {
            return;
        };
        if is_link && self.clients_began {
            self.failed("a client was written to before a neighbour");
        }
        self.clients_began |= !is_link;
    }
}

impl Io for Machine<'_> {
    fn now(&mut self) -> Now {
        self.now
    }

    fn connect(&mut self, id: ConnId, address: SocketAddr) -> Result<(), SocketError> {
        let (host, outside) = (&mut *self.host, &mut *self.outside);
        let target = herds::listener(address);
        let edge = host.setup.edges.iter().copied().find(|&edge| {
            let (dialler, acceptor) = outside.edges[edge];
            dialler == host.number && Some(acceptor) == target
        });
        let own = Party::Host {
            host: host.number,
            life: host.life,
        };
        // An address without a machine is reached over the path to any neighbour.
        let path = edge.or(host.setup.edges.first().copied());
        let path = path.ok_or("there is no path")?;
        let wanted = match edge.and(target) {
            Some(host) => Party::Host { host, life: 0 },
            None => Party::Nobody,
        };
        let key = outside
            .network
            .connect(path, own, wanted, &mut outside.timeline);
        if let (Some(edge), Some(target)) = (edge, target) {
            outside.wire.connecting(key, edge, [host.number, target]);
        }
        outside.log(&[Subject::Host(host.number), Subject::Edge(path)], || {
            format!("host {} dials {address}: connection {key}", host.number)
        });
        host.adopt(id, key, OPENER, true, outside);
        Ok(())
    }

    fn resolve(&mut self, host: &str) -> Result<(), String> {
        let wait = self.outside.rng.millis(0, 300);
        let event = Event::LookedUp {
            host: self.host.number,
            life: self.host.life,
            name: host.to_owned(),
        };
        self.outside.timeline.after(wait, event);
        Ok(())
    }

    fn perform(&mut self, node: &Node, work: DiskWork) -> Option<DiskDone> {
        let disk = self.host.disk.as_mut()?;
        if let DiskWork::Append(chunks) = &work {
            for chunk in chunks {
                let file = u64::from(chunk.file.0);
                let parts = [6, self.host.number as u64, file, chunk.offset];
                let chronicle = &mut self.outside.chronicle;
                chronicle.mix(self.now.time, &parts, &chunk.bytes);
            }
        }
        let queue = Queue::of(&work);
        disk.submit(work);
        self.host.look_at_doom();
        if self.host.fallen.is_none() {
            self.host.begin_job(queue, self.outside);
            self.is_aimed_at |= self.host.is_aimed_at(node);
        }
        None
    }

    fn is_writable(&self, id: ConnId) -> bool {
        let socket = self.host.sockets.get(id.index()).and_then(Option::as_ref);
        socket.is_some_and(|socket| socket.id == id && socket.may_write())
    }

    fn write(&mut self, id: ConnId, output: &[u8]) -> Result<usize, SocketError> {
        let Some(socket) = self.host.socket(id) else {
            return Ok(0);
        };
        let (key, side, is_link) = (socket.key, socket.side, socket.is_link);
        if is_link && output.len() > TURN_BYTES + LINK_LINE_BYTES {
            self.failed(&format!(
                "{} bytes of output wait for one neighbour",
                output.len()
            ));
        }
        let (network, timeline) = (&mut self.outside.network, &mut self.outside.timeline);
        let written = network.write(key, side, output, timeline);
        let count = written.ok_or("reset")?;
        if let Some(socket) = self.host.socket(id) {
            socket.writable = count == output.len();
        }
        let sent = &output[..count];
        let parts = [3, key as u64, side as u64];
        self.outside.chronicle.mix(self.now.time, &parts, sent);
        if is_link {
            let is_restored = self.host.is_restored;
            self.outside.sent(key, side, sent, is_restored);
        }
        Ok(count)
    }

    fn finish(&mut self, id: ConnId) {
        if let Some(socket) = self.host.socket(id) {
            socket.finished = true;
            let (key, side) = (socket.key, socket.side);
            let (network, timeline) = (&mut self.outside.network, &mut self.outside.timeline);
            network.finish(key, side, timeline);
        }
    }

    fn close(&mut self, id: ConnId, why: Option<&SocketError>) {
        self.look_at_order(id);
        self.host.close(id, why, self.outside);
    }

    fn flushed(&mut self, node: &Node, id: ConnId, wants: Wants) {
        self.look_at_order(id);
        let Some(socket) = self.host.socket(id) else {
            return;
        };
        let (key, side) = (socket.key, socket.side);
        let records = node.records();
        for (key, line) in std::mem::take(&mut self.outside.wire.fresh) {
            let at = record(&line).map_or(&b""[..], |(_, at)| at);
            let client = Fields::of(at).map_or(&b""[..], |fields| fields.client);
            // A newer record may have replaced it since it was read.
            let is_held = records
                .record(client)
                .is_some_and(|held| held.strip_suffix(b"\n") == Some(at));
            if let Some(seq) = records.seq(client).filter(|_| is_held) {
                self.outside.wire.note_seq(key, side, &line, seq);
            }
        }
        let network = &self.outside.network;
        let is_readable = !socket.connecting
            && network.is_readable(key, side)
            && (!socket.ended || network.is_reset(key, side));
        let more = wants.write || wants.read && is_readable;
        if more && !std::mem::replace(&mut socket.queued, true) {
            self.host.ready.push(id);
        }
    }

    fn is_interrupted(&mut self) -> bool {
        self.clients_began = false;
        self.rounds += 1;
        if self.rounds > MOST_ROUNDS {
            let text = format!("a turn of host {} does not end", self.host.number);
            self.failed(&text);
            return true;
        }
        self.host.fallen.is_some() || self.is_aimed_at
    }
}
