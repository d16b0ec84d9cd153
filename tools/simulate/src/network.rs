//! The simulated network. A TCP connection is two byte streams, with windows, delays, segments,
//! ends and resets. The network can have many kinds of faults.
//!
//! ```text
//!   write ──► in transit (delayed, cut into segments) ──► arrived (unread) ──► read
//!              └───────── at most `capacity` bytes, or the writer has to wait ─────────┘
//! ```
//!
//! Bytes in one direction arrive in order, as in TCP. Different connections and directions may
//! overtake each other.

use std::collections::VecDeque;
use std::time::Duration;

use herd_mio::core::base::clock::Time;

use crate::plan::{Path, Segments};
use crate::timeline::{Event, Key, Timeline};
use herd_testkit::rng::Rng;

/// The side that connected, and the side that was connected to.
pub(crate) const OPENER: usize = 0;
/// See [`OPENER`].
pub(crate) const ACCEPTOR: usize = 1;

/// The program at an end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Party {
    /// A server, in one of its lives.
    Host { host: usize, life: u32 },
    /// A client.
    Session(usize),
    /// An operator. The numbers of operators follow those of clients.
    Operator(usize),
    /// An address without a machine.
    Nobody,
}

/// What a path does with bytes that are sent over it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Flow {
    #[default]
    Open,
    /// It is delivered later.
    Stalled,
    /// It is lost.
    Swallowed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Presence {
    Open,
    /// Closed by its program, or lost by its kernel. Segments that arrive get a reset.
    Closed,
    /// Its machine has no power. Segments that arrive get no answer.
    Dark,
}

#[derive(Debug)]
struct End {
    party: Party,
    presence: Presence,
    connected: bool,
    /// A reset came, or the connect failed.
    reset: bool,
}

#[derive(Debug)]
enum Parcel {
    /// The last segment of the handshake. The acceptor's program sees the connection after it.
    Hello,
    Bytes(Vec<u8>),
    Fin,
    Reset,
}

/// One direction of a connection: from the side with this index to the other.
#[derive(Debug, Default)]
struct Pipe {
    transit: VecDeque<(Time, Parcel)>,
    last_arrival: Time,
    arrived: VecDeque<u8>,
    /// Whether the end of the stream was sent, and whether it has arrived.
    ended: [bool; 2],
    /// The number of bytes that count against the window.
    used: usize,
    /// Whether the writer has to wait.
    writer_waits: bool,
    /// Whether bytes were lost. Then no later bytes can be delivered.
    broken: bool,
}

struct Connection {
    ends: [End; 2],
    pipes: [Pipe; 2],
    path: usize,
}

/// The result of [`Network::read`].
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Received {
    Bytes(Vec<u8>),
    End,
    Nothing,
    Reset,
}

/// The notice of a network event for the program at that end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Notice {
    pub(crate) key: Key,
    pub(crate) side: usize,
    pub(crate) party: Party,
    /// Whether it is a new connection to accept.
    pub(crate) is_new: bool,
}

struct Stretch {
    now: Path,
    normally: Path,
    flow: [Flow; 2],
}

/// The whole network.
pub(crate) struct Network {
    connections: Vec<Connection>,
    stretches: Vec<Stretch>,
    rng: Rng,
    arrivals: u64,
}

impl Network {
    /// A network of these paths.
    pub(crate) fn new(paths: impl Iterator<Item = Path>, rng: Rng) -> Network {
        let stretch = |path: Path| Stretch {
            now: path.clone(),
            normally: path,
            flow: [Flow::Open; 2],
        };
        Network {
            connections: Vec::new(),
            stretches: paths.map(stretch).collect(),
            rng,
            arrivals: 0,
        }
    }

    /// The number of arrivals so far.
    pub(crate) fn arrivals(&self) -> u64 {
        self.arrivals
    }

    /// Starts to connect to `acceptor`. The machine there answers when the request arrives.
    pub(crate) fn connect(
        &mut self,
        path: usize,
        opener: Party,
        acceptor: Party,
        timeline: &mut Timeline,
    ) -> Key {
        let end = |party| End {
            party,
            presence: Presence::Open,
            connected: false,
            reset: false,
        };
        self.connections.push(Connection {
            ends: [end(opener), end(acceptor)],
            pipes: [Pipe::default(), Pipe::default()],
            path,
        });
        let key = self.connections.len() - 1;
        let wait = self.latency(path, OPENER);
        timeline.after(wait, Event::Syn { key, attempt: 0 });
        key
    }

    fn latency(&mut self, path: usize, side: usize) -> Duration {
        let path = &self.stretches[path].now;
        let jitter = path.jitter.as_micros() as u64;
        path.latency[side] + self.rng.micros(0, jitter)
    }

    /// A request to connect arrives at `target`. `None` is a machine without power.
    pub(crate) fn syn(
        &mut self,
        key: Key,
        attempt: u32,
        target: Option<Party>,
        timeline: &mut Timeline,
    ) {
        let connection = &mut self.connections[key];
        let (path, opener) = (connection.path, &connection.ends[OPENER]);
        if opener.presence != Presence::Open || opener.reset {
            return;
        }
        let passes = self.stretches[path].flow == [Flow::Open; 2];
        let Some(target) = target.filter(|_| passes) else {
            // The request is lost, and sent again after one second, then two, then four (RFC 6298).
            let again = Event::Syn {
                key,
                attempt: attempt + 1,
            };
            return timeline.after(Duration::from_secs(1 << attempt.min(6)), again);
        };
        connection.ends[ACCEPTOR].party = target;
        connection.ends[ACCEPTOR].presence = Presence::Open;
        let refused = target == Party::Nobody;
        let wait = self.latency(path, ACCEPTOR);
        timeline.after(wait, Event::SynAnswered { key, refused });
    }

    /// The answer to a request to connect.
    pub(crate) fn syn_answered(
        &mut self,
        key: Key,
        refused: bool,
        timeline: &mut Timeline,
    ) -> Option<Notice> {
        let connection = &mut self.connections[key];
        let opener = &mut connection.ends[OPENER];
        if opener.presence != Presence::Open || opener.reset {
            return None;
        }
        if refused {
            opener.reset = true;
        } else {
            opener.connected = true;
            connection.ends[ACCEPTOR].connected = true;
            self.send(key, OPENER, Parcel::Hello, timeline);
        }
        Some(self.notice(key, OPENER))
    }

    fn notice(&self, key: Key, side: usize) -> Notice {
        Notice {
            key,
            side,
            party: self.connections[key].ends[side].party,
            is_new: false,
        }
    }

    fn send(&mut self, key: Key, side: usize, parcel: Parcel, timeline: &mut Timeline) {
        let path = self.connections[key].path;
        let arrival = timeline.now() + self.latency(path, side);
        let pipe = &mut self.connections[key].pipes[side];
        let arrival = arrival.max(pipe.last_arrival);
        pipe.last_arrival = arrival;
        pipe.transit.push_back((arrival, parcel));
        timeline.at(arrival, Event::Arrive { key, side });
    }

    /// The program at an end, or the one that the connect was for.
    pub(crate) fn party(&self, key: Key, side: usize) -> Party {
        self.connections[key].ends[side].party
    }

    /// Whether the connection is made, as `side` sees it.
    pub(crate) fn is_connected(&self, key: Key, side: usize) -> bool {
        self.connections[key].ends[side].connected
    }

    /// Whether `side` has got a reset.
    pub(crate) fn is_reset(&self, key: Key, side: usize) -> bool {
        self.connections[key].ends[side].reset
    }

    /// Whether a read would return bytes or the end of the stream.
    pub(crate) fn is_readable(&self, key: Key, side: usize) -> bool {
        let incoming = &self.connections[key].pipes[1 - side];
        self.is_reset(key, side) || !incoming.arrived.is_empty() || incoming.ended[1]
    }

    /// Whether a write would take bytes.
    pub(crate) fn is_writable(&self, key: Key, side: usize) -> bool {
        let connection = &self.connections[key];
        let capacity = self.stretches[connection.path].now.capacity;
        self.is_reset(key, side) || connection.pipes[side].used < capacity
    }

    /// Writes as many bytes as fit. `None` if the connection is dead.
    pub(crate) fn write(
        &mut self,
        key: Key,
        side: usize,
        bytes: &[u8],
        timeline: &mut Timeline,
    ) -> Option<usize> {
        if self.is_reset(key, side) {
            return None;
        }
        let path = self.connections[key].path;
        let Path {
            capacity, segments, ..
        } = self.stretches[path].now;
        let pipe = &mut self.connections[key].pipes[side];
        let count = bytes.len().min(capacity.saturating_sub(pipe.used));
        pipe.used += count;
        pipe.writer_waits = count < bytes.len();
        let mut rest = &bytes[..count];
        while !rest.is_empty() {
            let size = match segments {
                Segments::Whole => rest.len(),
                Segments::UpTo(most) => (1 + self.rng.below(most)).min(rest.len()),
            };
            let (segment, others) = rest.split_at(size);
            self.send(key, side, Parcel::Bytes(segment.to_vec()), timeline);
            rest = others;
            if !rest.is_empty() {
                let gap = self.rng.micros(0, 60);
                let pipe = &mut self.connections[key].pipes[side];
                pipe.last_arrival = pipe.last_arrival + gap;
            }
        }
        Some(count)
    }

    /// Reads at most `most` bytes.
    pub(crate) fn read(
        &mut self,
        key: Key,
        side: usize,
        most: usize,
        timeline: &mut Timeline,
    ) -> Received {
        let connection = &mut self.connections[key];
        let incoming = &mut connection.pipes[1 - side];
        let count = incoming.arrived.len().min(most);
        if count == 0 {
            return match (connection.ends[side].reset, incoming.ended[1]) {
                (true, _) => Received::Reset,
                (false, true) => Received::End,
                (false, false) => Received::Nothing,
            };
        }
        let bytes = incoming.arrived.drain(..count).collect();
        let writer_waits = incoming.writer_waits;
        let path = connection.path;
        match self.stretches[path].flow[side] {
            Flow::Open if connection.pipes[side].broken => {} // The acknowledgement is lost.
            Flow::Open if !writer_waits => self.connections[key].pipes[1 - side].used -= count,
            Flow::Open | Flow::Stalled => {
                let wait = self.latency(path, side);
                let room = Event::Room {
                    key,
                    side: 1 - side,
                    count,
                };
                timeline.after(wait, room);
            }
            Flow::Swallowed => {}
        }
        Received::Bytes(bytes)
    }

    /// The other side has read bytes that `side` sent.
    pub(crate) fn room(
        &mut self,
        key: Key,
        side: usize,
        count: usize,
        timeline: &mut Timeline,
    ) -> Option<Notice> {
        let connection = &mut self.connections[key];
        match self.stretches[connection.path].flow[1 - side] {
            Flow::Open if !connection.pipes[1 - side].broken => {}
            Flow::Stalled => {
                let again = Event::Room { key, side, count };
                timeline.after(Duration::from_millis(200), again);
                return None;
            }
            Flow::Open | Flow::Swallowed => return None,
        }
        let pipe = &mut connection.pipes[side];
        pipe.used -= count;
        self.wakes_writer(key, side).then(|| self.notice(key, side))
    }

    /// Whether a waiting writer is woken. Like on Linux, this happens when a third of the window is
    /// free.
    fn wakes_writer(&mut self, key: Key, side: usize) -> bool {
        let connection = &mut self.connections[key];
        let capacity = self.stretches[connection.path].now.capacity;
        let pipe = &mut connection.pipes[side];
        let enough = pipe.used <= capacity * 2 / 3;
        enough && std::mem::take(&mut pipe.writer_waits)
    }

    /// Ends one direction. Earlier bytes still arrive, then the end of the stream.
    pub(crate) fn finish(&mut self, key: Key, side: usize, timeline: &mut Timeline) {
        let connection = &mut self.connections[key];
        if connection.ends[side].connected
            && !connection.ends[side].reset
            && !std::mem::replace(&mut connection.pipes[side].ended[0], true)
        {
            self.send(key, side, Parcel::Fin, timeline);
        }
    }

    /// Closes an end, like a kernel. If there are unread bytes, it sends a reset (RFC 1122
    /// §4.2.2.13).
    pub(crate) fn close(&mut self, key: Key, side: usize, timeline: &mut Timeline) {
        let unread = !self.connections[key].pipes[1 - side].arrived.is_empty();
        if unread {
            self.abort(key, side, timeline);
        } else {
            self.finish(key, side, timeline);
        }
        self.connections[key].ends[side].presence = Presence::Closed;
    }

    /// Closes an end with a reset. Bytes in transit may be lost.
    pub(crate) fn abort(&mut self, key: Key, side: usize, timeline: &mut Timeline) {
        let connection = &mut self.connections[key];
        connection.ends[side].presence = Presence::Closed;
        if connection.ends[side].connected && !connection.ends[side].reset {
            if self.rng.percent(50) {
                self.connections[key].pipes[side].transit.clear();
            }
            self.send(key, side, Parcel::Reset, timeline);
        }
    }

    /// Delivers the bytes of `side` whose time has come.
    pub(crate) fn arrive(
        &mut self,
        key: Key,
        side: usize,
        timeline: &mut Timeline,
    ) -> Option<Notice> {
        let connection = &mut self.connections[key];
        match self.stretches[connection.path].flow[side] {
            Flow::Open => {}
            Flow::Stalled => return None,
            Flow::Swallowed => connection.pipes[side].broken = true,
        }
        let (pipe, end) = (&mut connection.pipes[side], &mut connection.ends[1 - side]);
        if pipe.broken {
            pipe.transit.clear();
            return None;
        }
        let mut changed = false;
        let mut is_new = false;
        let mut answer_with_reset = false;
        while let Some((time, _)) = pipe.transit.front()
            && *time <= timeline.now()
            && let Some((_, parcel)) = pipe.transit.pop_front()
        {
            if end.presence != Presence::Open {
                answer_with_reset |=
                    end.presence == Presence::Closed && matches!(parcel, Parcel::Bytes(_));
                continue;
            }
            changed = true;
            self.arrivals += 1;
            match parcel {
                Parcel::Hello => is_new = true,
                Parcel::Bytes(bytes) => pipe.arrived.extend(bytes),
                Parcel::Fin => pipe.ended[1] = true,
                Parcel::Reset => {
                    end.reset = true;
                    if self.rng.percent(50) {
                        pipe.arrived.clear(); // Some systems drop unread bytes.
                    }
                }
            }
        }
        if answer_with_reset {
            self.send(key, 1 - side, Parcel::Reset, timeline);
        }
        changed.then(|| Notice {
            is_new,
            ..self.notice(key, 1 - side)
        })
    }

    /// Every connection over this path with at least one open end.
    fn over(&self, path: usize) -> Vec<Key> {
        let is_over = |connection: &Connection| {
            connection.path == path
                && connection
                    .ends
                    .iter()
                    .any(|end| end.presence == Presence::Open)
        };
        let all = self.connections.iter().enumerate();
        all.filter(|(_, connection)| is_over(connection))
            .map(|(key, _)| key)
            .collect()
    }

    /// Resets the connections over a path. A spared side gets the reset only when it sends bytes;
    /// with `mute` it never gets one.
    pub(crate) fn reset(&mut self, path: usize, spared: Option<usize>, mute: bool) -> Vec<Notice> {
        let mut notices = Vec::new();
        for key in self.over(path) {
            for side in [OPENER, ACCEPTOR] {
                let connection = &mut self.connections[key];
                connection.pipes[side].transit.clear();
                let end = &mut connection.ends[side];
                if spared == Some(side) || !end.connected {
                    continue;
                }
                end.reset = true;
                notices.push(self.notice(key, side));
            }
            if mute {
                self.connections[key]
                    .pipes
                    .iter_mut()
                    .for_each(|pipe| pipe.broken = true);
            }
        }
        notices
    }

    /// Sets the flow of these directions.
    pub(crate) fn set_flow(
        &mut self,
        path: usize,
        directions: [bool; 2],
        flow: Flow,
        timeline: &mut Timeline,
    ) {
        for side in [OPENER, ACCEPTOR] {
            if directions[side] {
                self.stretches[path].flow[side] = flow;
            }
        }
        for key in self.over(path) {
            for side in [OPENER, ACCEPTOR] {
                if !directions[side] {
                    continue;
                }
                if flow == Flow::Swallowed && self.connections[key].ends[OPENER].connected {
                    self.connections[key].pipes[side].broken = true;
                }
                if flow == Flow::Open {
                    let wait = self.latency(path, side);
                    timeline.after(wait, Event::Arrive { key, side });
                }
            }
        }
    }

    /// Makes a path narrow and slow.
    pub(crate) fn slow_down(&mut self, path: usize, capacity: usize, latency: Duration) {
        let stretch = &mut self.stretches[path];
        stretch.now = Path {
            latency: [latency; 2],
            capacity,
            ..stretch.normally.clone()
        };
    }

    /// Restores a path. Returns notices for writers that wait for room.
    pub(crate) fn speed_up(&mut self, path: usize) -> Vec<Notice> {
        self.stretches[path].now = self.stretches[path].normally.clone();
        let mut notices = Vec::new();
        for key in self.over(path) {
            for side in [OPENER, ACCEPTOR] {
                if self.wakes_writer(key, side) {
                    notices.push(self.notice(key, side));
                }
            }
        }
        notices
    }

    /// The machine of `host` loses its power.
    pub(crate) fn darken(&mut self, host: usize) {
        self.for_ends_of(host, |end| end.presence = Presence::Dark);
    }

    /// The machine of `host` has power again, without any of its connections.
    pub(crate) fn forget(&mut self, host: usize) {
        self.for_ends_of(host, |end| {
            if end.presence == Presence::Dark {
                end.presence = Presence::Closed;
            }
        });
    }

    fn for_ends_of(&mut self, host: usize, mut change: impl FnMut(&mut End)) {
        let ends = self
            .connections
            .iter_mut()
            .flat_map(|connection| &mut connection.ends);
        ends.filter(|end| matches!(end.party, Party::Host { host: at, .. } if at == host))
            .filter(|end| end.presence != Presence::Closed)
            .for_each(&mut change);
    }

    /// Whether both sides have the connection, and bytes get through in both directions.
    pub(crate) fn is_sound(&self, key: Key) -> bool {
        let connection = &self.connections[key];
        let ends_are = connection
            .ends
            .iter()
            .all(|end| end.presence == Presence::Open && end.connected && !end.reset);
        let pipes_are = connection
            .pipes
            .iter()
            .all(|pipe| !pipe.broken && !pipe.ended[0]);
        ends_are && pipes_are
    }
}
