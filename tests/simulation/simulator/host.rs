//! A simulated machine: one production [`Node`], its sockets, its clock, and the loop that drives them as
//! `src/shell/event_loop.rs` does.
//!
//! ```text
//!   accept ─► for each ready connection: read ─► node ─► deadlines ─► for each touched connection: write, obey its fate
//! ```
//!
//! What this file adds to the production loop are only questions: is a connection that could write left with output, does a link
//! hold more than it may, does the table ever go backwards, are the neighbours written to before the clients.

use std::collections::VecDeque;
use std::time::Duration;

use herd_mio::core::clock::{Now, Time};
use herd_mio::core::fate::Fate;
use herd_mio::core::limits::{LINK_LINE_BYTES, TURN_BYTES};
use herd_mio::core::node::{ConnId, Node, Request};
use herd_mio::core::settings::Settings;

use super::chronicle::{Shown, Subject};
use super::herds;
use super::network::{ACCEPTOR, Key, Notice, OPENER, Party, Received};
use super::order::{Fields, Line};
use super::plan::WALL_ORIGIN;
use super::timeline::Event;
use super::world::{Outside, failed};

/// Which of a server's ports somebody comes in by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Door {
    Clients,
    Neighbours,
}

/// How a machine is.
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
    /// Not connected yet.
    connecting: bool,
    opened: Time,
    /// A write may take something: true until one took less than it was given.
    writable: bool,
    /// Its writing side is shut down.
    finished: bool,
    /// The end of the stream was handed over.
    ended: bool,
    /// It is on the next turn's list.
    queued: bool,
}

impl Socket {
    fn may_write(&self) -> bool {
        self.writable && !self.connecting && !self.finished
    }
}

/// What never changes about a machine.
pub(crate) struct Setup {
    pub(crate) settings: Settings,
    /// Bytes that are read at once.
    pub(crate) scratch: usize,
    /// Its wall clock shows whole seconds only.
    pub(crate) coarse: bool,
    /// How long one turn takes.
    pub(crate) turn: Duration,
    /// The edges of the herd that end here.
    pub(crate) edges: Vec<usize>,
}

/// One machine.
pub(crate) struct Host {
    pub(crate) number: usize,
    pub(crate) setup: Setup,
    pub(crate) condition: Condition,
    /// Counts the lives of the process.
    pub(crate) life: u32,
    node: Option<Node>,
    sockets: Vec<Option<Socket>>,
    ready: Vec<ConnId>,
    /// Connections that the kernel has made and the process has not accepted.
    backlog: VecDeque<(Door, Key)>,
    pub(crate) frozen: bool,
    /// It was told to stop, and accepts nobody.
    stopping: bool,
    /// Wall clock minus the right time, since when.
    clock: Vec<(Time, i64)>,
    next_turn: Option<Time>,
    busy_until: Time,
    touched: Vec<ConnId>,
    /// How many turns there were, in all its lives.
    pub(crate) turns: u64,
}

impl Host {
    /// A machine whose process does not run yet.
    pub(crate) fn new(number: usize, setup: Setup) -> Host {
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
            clock: vec![(Time::default(), 0)],
            next_turn: None,
            busy_until: Time::default(),
            touched: Vec::new(),
            turns: 0,
        }
    }

    /// The `AT` line, without its LF, that the server holds of a client.
    pub(crate) fn line(&self, client: &[u8]) -> Option<Vec<u8>> {
        let mut line = self.node.as_ref()?.records().line(client)?;
        line.pop();
        Some(line)
    }

    /// The same, to be compared with others of that client.
    pub(crate) fn held(&self, client: &[u8]) -> Option<Line> {
        Line::new(&self.line(client)?)
    }

    /// How many clients it holds a line of.
    pub(crate) fn records(&self) -> usize {
        self.node.as_ref().map_or(0, |node| node.records().len())
    }

    /// Whether the process runs, and will go on doing so.
    pub(crate) fn is_up(&self) -> bool {
        self.condition == Condition::Up && !self.stopping
    }

    /// Who answers at this machine's address; `None` if nothing does, not even its kernel.
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

    fn now(&self, time: Time) -> Now {
        let off = self.clock.last().map_or(0, |(_, off)| *off);
        let wall = self.wall(time, off);
        Now { time, wall }
    }

    /// What a wall clock that is off by so much shows.
    fn wall(&self, time: Time, off: i64) -> u64 {
        let wall = (WALL_ORIGIN + time.as_nanos()).saturating_add_signed(off);
        if self.setup.coarse {
            wall - wall % 1_000_000_000
        } else {
            wall
        }
    }

    /// Whether the wall clock showed `wall` (in attoseconds since the epoch) at some moment between the two.
    pub(crate) fn showed(&self, wall: i128, from: Time, to: Time) -> bool {
        let ends = self.clock.iter().skip(1).map(|(since, _)| *since);
        let mut spans = self.clock.iter().zip(ends.chain([to]));
        spans.any(|(&(since, off), until)| {
            let (low, high) = (since.max(from), until.min(to));
            let shown = |time| i128::from(self.wall(time, off));
            // A skew has nine decimals, a stamp up to 18: the receipt that they add up to may lack most of a nanosecond.
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
        self.life += 1;
        self.condition = Condition::Up;
        self.stopping = false;
        self.frozen = false;
        self.busy_until = now;
        let seed = outside.rng.seed();
        self.node = Some(Node::new(self.setup.settings.clone(), &seed, self.now(now)));
        outside.network.forget(self.number);
        outside.say(&[Subject::Host(self.number)], || {
            format!("host {} starts, life {}", self.number, self.life)
        });
        self.wake(outside);
    }

    /// The process ends without a word; its table is lost.
    pub(crate) fn end(&mut self, dark: bool, outside: &mut Outside) {
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
            // Connections that were about to be made find nobody.
            outside.network.darken(self.number);
            outside.network.forget(self.number);
        }
        outside.wire.died(self.number, &self.setup.edges);
        self.node = None;
        self.ready.clear();
        self.touched.clear();
        self.next_turn = None;
        self.frozen = false;
        self.condition = if dark {
            Condition::Dark
        } else {
            Condition::Down
        };
    }

    /// Tells the process to stop: SIGTERM.
    pub(crate) fn stop(&mut self, outside: &mut Outside) {
        let now = self.now(outside.timeline.now());
        if let Some(node) = &mut self.node {
            self.stopping = true;
            outside.wire.stopping(self.number);
            for (_, key) in self.backlog.drain(..) {
                outside.network.abort(key, ACCEPTOR, &mut outside.timeline);
            }
            node.stop(now);
            self.wake(outside);
        }
    }

    /// Whether it has stopped as it was told to.
    pub(crate) fn is_stopped(&self) -> bool {
        self.node.as_ref().is_some_and(Node::is_stopped)
    }

    /// The process is run again.
    pub(crate) fn thaw(&mut self, outside: &mut Outside) {
        self.frozen = false;
        self.wake(outside);
    }

    /// Something happened to one of its connections.
    pub(crate) fn notice(&mut self, notice: Notice, outside: &mut Outside) {
        if notice.is_new {
            if self.stopping {
                outside
                    .network
                    .abort(notice.key, ACCEPTOR, &mut outside.timeline);
                return;
            }
            let door = match outside.network.party(notice.key, OPENER) {
                Party::Host { .. } => Door::Neighbours,
                Party::Session(_) | Party::Nobody => Door::Clients,
            };
            self.backlog.push_back((door, notice.key));
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

    /// Plans the next turn for as soon as it can be, unless one is planned already.
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

    /// What the name server said.
    pub(crate) fn looked_up(&mut self, life: u32, name: &str, works: bool, outside: &mut Outside) {
        let now = self.now(outside.timeline.now());
        if life != self.life {
            return;
        }
        let Some(node) = &mut self.node else {
            return;
        };
        let found = herds::look_up(name).filter(|_| works);
        node.looked_up(name, found.ok_or_else(|| "no answer".to_owned()), now);
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
        outside.chronicle.mix(time, &[1, self.number as u64], &[]);
        let now = self.now(time);
        self.accept(now, outside);
        let mut ready = std::mem::take(&mut self.ready);
        outside.rng.shuffle(&mut ready);
        for id in ready {
            self.receive(id, now, outside);
        }
        if let Some(node) = &mut self.node {
            node.deadlines_due(now);
        }
        self.settle(now, outside);
        self.look_around(outside);
        self.busy_until = time + self.setup.turn;
        if !self.ready.is_empty() || !self.backlog.is_empty() {
            self.turn_at(self.busy_until, outside);
        }
        if let Some(deadline) = self.node.as_ref().and_then(Node::next_deadline) {
            self.turn_at(deadline.max(self.busy_until), outside);
        }
    }

    fn accept(&mut self, now: Now, outside: &mut Outside) {
        while let Some((door, key)) = self.backlog.pop_front() {
            let Some(node) = &mut self.node else {
                return;
            };
            let admitted = match door {
                Door::Clients => node.client_connected(herds::client_address(key)),
                Door::Neighbours => node.neighbour_connected(herds::client_address(key), now),
            };
            let Some(id) = admitted else {
                outside.network.close(key, ACCEPTOR, &mut outside.timeline);
                continue;
            };
            if door == Door::Neighbours {
                outside.wire.accepted(key);
            }
            self.adopt(id, key, ACCEPTOR, door == Door::Neighbours, outside);
        }
    }

    fn adopt(&mut self, id: ConnId, key: Key, side: usize, is_link: bool, outside: &mut Outside) {
        if self.sockets.len() <= id.index() {
            self.sockets.resize_with(id.index() + 1, || None);
        }
        if self.sockets[id.index()].is_some() {
            failed(
                outside,
                "two connections have one place",
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

    /// The socket of a connection that is alive.
    fn socket(&mut self, id: ConnId) -> Option<&mut Socket> {
        let socket = self.sockets.get_mut(id.index())?.as_mut();
        socket.filter(|socket| socket.id == id)
    }

    /// One ready connection: finishes connecting, or reads once.
    fn receive(&mut self, id: ConnId, now: Now, outside: &mut Outside) {
        let scratch = self.setup.scratch;
        let Some(socket) = self.socket(id) else {
            return;
        };
        socket.queued = false;
        let (key, side, is_link) = (socket.key, socket.side, socket.is_link);
        if socket.connecting {
            if outside.network.is_reset(key, side) {
                return self.lose(id, Some("refused"), now, outside);
            }
            if !outside.network.is_connected(key, side) {
                return;
            }
            socket.connecting = false;
            if let Some(node) = &mut self.node {
                node.connection_made(id, now);
            }
        }
        let wants_read = self.node.as_ref().is_some_and(|node| node.wants_read(id));
        if !wants_read {
            if outside.network.is_reset(key, side) {
                return self.lose(id, Some("reset"), now, outside);
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
                        node.eof_received(id, now);
                    }
                }
                Received::Nothing => {}
                Received::Reset => return self.lose(id, Some("reset"), now, outside),
            }
        }
        if let Some(node) = &mut self.node {
            node.touch(id);
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
            outside.wire.received(key, side, bytes)
        } else {
            Vec::new()
        };
        let clients: Vec<&[u8]> = records
            .iter()
            .filter_map(|line| Some(Fields::of(line)?.client))
            .collect();
        let before: Vec<Option<Vec<u8>>> = clients.iter().map(|client| self.line(client)).collect();
        if let Some(node) = &mut self.node {
            node.data_received(id, bytes, now);
        }
        for ((record, client), before) in records.iter().zip(clients).zip(before) {
            self.judge(key, side, record, client, before.as_deref(), outside);
        }
    }

    /// A record came in by a link: afterwards the table must hold it, or what is greater in the protocol's order.
    fn judge(
        &self,
        key: Key,
        side: usize,
        record: &[u8],
        client: &[u8],
        before: Option<&[u8]>,
        outside: &mut Outside,
    ) {
        let after = self.line(client);
        let after = after.as_deref();
        if after == Some(record) && before != after {
            outside.wire.learned(key, side, record);
        }
        let order = |line: Option<&[u8]>| line.and_then(Line::new);
        // One that stops has said goodbye, and takes nothing more.
        let wanted = order(Some(record)).filter(|_| !self.stopping);
        if order(after) < wanted.max(order(before)) {
            let text = format!(
                "host {} was sent {} and keeps {}; before, it had {}",
                self.number,
                Shown(record),
                Shown(after.unwrap_or_default()),
                Shown(before.unwrap_or_default()),
            );
            let subjects = [Subject::Host(self.number), Subject::Record(client.to_vec())];
            failed(outside, &text, &subjects);
        }
    }

    /// Does what the core asked for, then writes, finishes and closes, until nobody is touched any more.
    fn settle(&mut self, now: Now, outside: &mut Outside) {
        loop {
            while let Some(request) = self.node.as_mut().and_then(Node::next_request) {
                self.carry_out(request, outside);
            }
            let mut touched = std::mem::take(&mut self.touched);
            if let Some(node) = &mut self.node {
                node.take_touched(&mut touched);
            }
            if touched.is_empty() {
                return;
            }
            let mut clients_began = false;
            for id in touched.drain(..) {
                let is_link = self.socket(id).is_some_and(|socket| socket.is_link);
                if is_link && clients_began {
                    failed(
                        outside,
                        "a client was written to before a neighbour",
                        &[Subject::Host(self.number)],
                    );
                }
                clients_began |= !is_link && self.socket(id).is_some();
                self.settle_one(id, now, outside);
            }
            self.touched = touched;
        }
    }

    fn carry_out(&mut self, request: Request, outside: &mut Outside) {
        let now = self.now(outside.timeline.now());
        match request {
            Request::LookUp { host: name } => {
                let wait = outside.rng.millis(0, 300);
                let event = Event::LookedUp {
                    host: self.number,
                    life: self.life,
                    name,
                };
                outside.timeline.after(wait, event);
            }
            Request::Connect { id, address } => {
                let target = herds::listener(address);
                let edge = self.setup.edges.iter().copied().find(|&edge| {
                    let (dialler, acceptor) = outside.edges[edge];
                    dialler == self.number && Some(acceptor) == target
                });
                let own = Party::Host {
                    host: self.number,
                    life: self.life,
                };
                // An address where nobody lives is reached by the way to any neighbour.
                let path = edge.or(self.setup.edges.first().copied());
                let Some(path) = path else {
                    let Some(node) = &mut self.node else {
                        return;
                    };
                    return node.connection_lost(id, Some("no way"), now);
                };
                let wanted = match edge.and(target) {
                    Some(host) => Party::Host { host, life: 0 },
                    None => Party::Nobody,
                };
                let key = outside
                    .network
                    .connect(path, own, wanted, &mut outside.timeline);
                if let (Some(edge), Some(target)) = (edge, target) {
                    outside.wire.connecting(key, edge, [self.number, target]);
                }
                outside.say(&[Subject::Host(self.number), Subject::Edge(path)], || {
                    format!("host {} dials {address}: connection {key}", self.number)
                });
                self.adopt(id, key, OPENER, true, outside);
            }
        }
    }

    /// Writes what waits, once; then finishes or closes the connection if its session is through with it.
    fn settle_one(&mut self, id: ConnId, now: Now, outside: &mut Outside) {
        let number = self.number;
        let Some(socket) = self.sockets.get_mut(id.index()).and_then(Option::as_mut) else {
            return;
        };
        let Some(node) = self.node.as_mut().filter(|_| socket.id == id) else {
            return;
        };
        let (key, side, is_link) = (socket.key, socket.side, socket.is_link);
        if socket.may_write() {
            let output = node.output(id);
            if !output.is_empty() {
                if is_link && output.len() > TURN_BYTES + LINK_LINE_BYTES {
                    let text = format!("{} bytes wait for one neighbour", output.len());
                    failed(outside, &text, &[Subject::Host(number)]);
                }
                let written = outside
                    .network
                    .write(key, side, output, &mut outside.timeline);
                let Some(count) = written else {
                    return self.lose(id, Some("reset"), now, outside);
                };
                socket.writable = count == output.len();
                let sent = &output[..count];
                outside
                    .chronicle
                    .mix(now.time, &[3, key as u64, side as u64], sent);
                if is_link {
                    outside.sent(key, side, sent);
                }
                node.output_sent(id, count, now);
            }
        }
        match node.fate(id, now) {
            Fate::Open => {}
            Fate::Finish => {
                socket.finished = true;
                outside.network.finish(key, side, &mut outside.timeline);
            }
            Fate::Close => return self.lose(id, None, now, outside),
        }
        let is_readable = outside.network.is_readable(key, side)
            && (!socket.ended || outside.network.is_reset(key, side));
        let more = !socket.connecting && is_readable && node.wants_read(id)
            || socket.may_write() && !node.output(id).is_empty();
        if more && !std::mem::replace(&mut socket.queued, true) {
            self.ready.push(id);
        }
    }

    /// The one death of a connection: its socket closes, its session hears of it.
    fn lose(&mut self, id: ConnId, why: Option<&str>, now: Now, outside: &mut Outside) {
        let place = self.sockets.get_mut(id.index());
        if let Some(socket) = place.and_then(Option::take) {
            outside
                .network
                .close(socket.key, socket.side, &mut outside.timeline);
            if socket.is_link {
                outside.wire.closed(socket.key, socket.side);
                outside.say_of(socket.key, self.number, || {
                    format!(
                        "connection {}: host {} closes it ({})",
                        socket.key,
                        self.number,
                        why.unwrap_or("the core wants it so")
                    )
                });
            }
        }
        if let Some(node) = &mut self.node {
            node.connection_lost(id, why, now);
        }
    }

    /// Whoever could be written to and has something to be written must have been written to: nobody else would ever see to it.
    fn look_around(&mut self, outside: &mut Outside) {
        let Some(node) = &mut self.node else {
            return;
        };
        for socket in self.sockets.iter().flatten() {
            let could_write = socket.may_write() && !socket.queued;
            if could_write && !node.output(socket.id).is_empty() {
                let text = format!(
                    "host {} has something to write on connection {}, and forgets it",
                    self.number, socket.key
                );
                let subjects = [Subject::Host(self.number)];
                failed(outside, &text, &subjects);
            }
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

    /// Whether it has been dialling somebody for longer than it may.
    pub(crate) fn dials_in_vain(&self, since: Time) -> bool {
        let dialling = |socket: &Socket| socket.connecting && socket.opened < since;
        self.sockets.iter().flatten().any(dialling)
    }

    /// How many connections it has: to neighbours, to clients.
    pub(crate) fn connections(&self) -> (usize, usize) {
        let sockets = || self.sockets.iter().flatten();
        let links = sockets().filter(|socket| socket.is_link).count();
        (links, sockets().count() - links)
    }
}
