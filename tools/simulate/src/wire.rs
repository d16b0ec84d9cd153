//! Checks all traffic on the links between servers. These rules hold whatever the faults are:
//!
//! - a record crosses one connection at most once in each direction;
//! - a record is not sent back over the connection that it came from, nor over a later one to the same life of the same neighbour;
//! - a resumed link does not send confirmed records again (`AT … SYNC`), unless there were two connections at once; this holds after
//!   a restart with an intact journal too, except for the records of the last second;
//! - a server confirms only a position that the other side has sent before with a `SYNC`;
//! - the network never changes a byte, so no server sends `BYE` because it did not understand a line;
//! - only lines of the protocol are sent.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::time::Duration;

use herd_mio::core::base::clock::Time;
use herd_mio::core::base::limits::LINK_LINE_BYTES;

use crate::chronicle::{Chronicle, Shown, Subject, fnv};
use crate::expired::Expired;
use crate::timeline::{Key, before};
use herd_testkit::at_line::{Fields, Line, record};

/// Confirmations that a server sent this long before its last journal entry are in the journal too.
const TOLD_GRACE: Duration = Duration::from_secs(3);

/// A violated rule, and its subjects.
#[derive(Debug)]
pub(crate) struct Foul {
    pub(crate) what: String,
    pub(crate) subjects: Vec<Subject>,
}

/// The number of sent lines by kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) records: u64,
    pub(crate) syncs: u64,
    /// KEPT, LACKS and CLOCK.
    pub(crate) asides: u64,
    pub(crate) others: u64,
}

/// The traffic of one side of a connection.
#[derive(Default)]
struct Half {
    /// The incomplete lines at both ends of the stream.
    sent_tail: Vec<u8>,
    received_tail: Vec<u8>,
    /// Records that this side sent.
    sent: HashSet<u64>,
    /// Records that this side got from the other side first.
    learned: HashSet<u64>,
    /// Records that this side received and has not confirmed as kept, and the `SYNC`s among them.
    unkept: VecDeque<Heard>,
    /// Records that this side received, and that no `SYNC` covers yet.
    unconfirmed: Vec<u64>,
    /// The position up to which the other side's feed is confirmed here: first by this side's
    /// `LIFE`, then by the other side's `SYNC`s. A repeated `SYNC` confirms nothing, because a
    /// server without room in its journal repeats its last one.
    synced: u64,
    /// Whether this side received the other side's `LIFE`.
    linked: bool,
    /// Whether another connection has replaced this one. Then later input is not read.
    deaf: bool,
    /// Whether this side had no other connection to this neighbour when it sent its `LIFE`. Then
    /// the position in it is final.
    resumes: bool,
}

/// A received line.
enum Heard {
    Record(Vec<u8>),
    Sync(u64),
}

/// A server's confirmation that it keeps a record of a client.
pub(crate) struct Kept {
    pub(crate) host: usize,
    pub(crate) line: Line,
}

struct Tap {
    /// The positions of records in their sender's feed, if they are known.
    seqs: HashMap<(usize, u64), u64>,
    edge: usize,
    /// The servers at the two sides.
    hosts: [usize; 2],
    halves: [Half; 2],
    /// The sides whose servers still have the connection.
    open: [bool; 2],
    /// Whether one of its servers has ended. Then its confirmations belong to an earlier life.
    outlived: bool,
}

/// All links.
pub(crate) struct Wire {
    taps: BTreeMap<Key, Tap>,
    /// By edge: the open connections.
    edges: Vec<Vec<Key>>,
    /// By edge: its servers.
    ends: Vec<(usize, usize)>,
    /// By edge and receiving server: the records that it confirmed, with the first connection and
    /// the time.
    confirmed: BTreeMap<(usize, usize), HashMap<u64, (Key, Time)>>,
    /// By edge and receiving server: the records that it got from the other first.
    learned: BTreeMap<(usize, usize), HashSet<u64>>,
    /// Servers that were asked to stop.
    stopping: BTreeSet<usize>,
    /// Servers with room for only a few records.
    tight: BTreeSet<usize>,
    counts: Counts,
    /// The edge of the last line that was not a heartbeat.
    busiest: Option<usize>,
    /// Sent records whose positions in the feed are not noted yet.
    pub(crate) fresh: Vec<(Key, Vec<u8>)>,
    /// Confirmations of kept records that were not taken yet.
    pub(crate) kept: Vec<Kept>,
    /// The number of `SYNC` lines, by edge and sending server.
    beats: BTreeMap<(usize, usize), u64>,
}

impl Wire {
    /// A checker without any connection.
    pub(crate) fn new(ends: &[(usize, usize)]) -> Wire {
        Wire {
            taps: BTreeMap::new(),
            edges: vec![Vec::new(); ends.len()],
            ends: ends.to_vec(),
            confirmed: BTreeMap::new(),
            learned: BTreeMap::new(),
            stopping: BTreeSet::new(),
            tight: BTreeSet::new(),
            counts: Counts::default(),
            busiest: None,
            fresh: Vec::new(),
            kept: Vec::new(),
            beats: BTreeMap::new(),
        }
    }

    /// A server starts to connect over an edge. `hosts` are the servers at the two sides.
    pub(crate) fn connecting(&mut self, key: Key, edge: usize, hosts: [usize; 2]) {
        let tap = Tap {
            seqs: HashMap::new(),
            edge,
            hosts,
            halves: [Half::default(), Half::default()],
            open: [true, false],
            outlived: false,
        };
        self.taps.insert(key, tap);
        self.edges[edge].push(key);
    }

    /// The server at the acceptor's side has accepted the connection.
    pub(crate) fn accepted(&mut self, key: Key) {
        if let Some(tap) = self.taps.get_mut(&key) {
            tap.open[1] = true;
        }
    }

    /// A server has closed its side.
    pub(crate) fn closed(&mut self, key: Key, side: usize) {
        if let Some(tap) = self.taps.get_mut(&key) {
            tap.open[side] = false;
            if tap.open == [false; 2] {
                self.edges[tap.edge].retain(|&other| other != key);
                self.taps.remove(&key);
            }
        }
    }

    /// A server was asked to stop.
    pub(crate) fn stopping(&mut self, host: usize) {
        self.stopping.insert(host);
    }

    /// Sets whether a server has room for only a few records.
    pub(crate) fn set_tight(&mut self, host: usize, is_tight: bool) {
        if is_tight {
            self.tight.insert(host);
        } else {
            self.tight.remove(&host);
        }
    }

    /// A server's life has ended. Its confirmations, and those that it got, no longer count. If its
    /// journal has survived, those before `kept` still count.
    pub(crate) fn died(&mut self, host: usize, edges: &[usize], kept: Option<Time>) {
        self.stopping.remove(&host);
        match kept {
            None => self.confirmed.retain(|(edge, _), _| !edges.contains(edge)),
            Some(kept) => {
                for ((edge, receiver), confirmed) in &mut self.confirmed {
                    // Its confirmations may have to wait for room in the journal.
                    let kept = match *receiver == host {
                        true => kept,
                        false => before(kept, TOLD_GRACE),
                    };
                    if edges.contains(edge) {
                        confirmed.retain(|_, (_, when)| *when < kept);
                    }
                }
            }
        }
        self.learned.retain(|(edge, _), _| !edges.contains(edge));
        for &edge in edges {
            for key in self.edges[edge].clone() {
                if let Some(tap) = self.taps.get_mut(&key) {
                    tap.outlived = true;
                }
                for side in [0, 1] {
                    if self
                        .taps
                        .get(&key)
                        .is_some_and(|tap| tap.hosts[side] == host)
                    {
                        self.closed(key, side);
                    }
                }
            }
        }
    }

    /// A server has begun a new life while it runs. Its records then count as its own, and it asks
    /// its neighbours for all records.
    fn lives_anew(&mut self, host: usize) {
        let ends = &self.ends;
        let is_its = |edge: usize| ends[edge].0 == host || ends[edge].1 == host;
        self.learned.retain(|(edge, _), _| !is_its(*edge));
        self.confirmed.retain(|(edge, _), _| !is_its(*edge));
        for tap in self.taps.values_mut() {
            tap.outlived |= tap.hosts.contains(&host);
        }
    }

    /// The edge of a connection.
    pub(crate) fn edge(&self, key: Key) -> Option<usize> {
        self.taps.get(&key).map(|tap| tap.edge)
    }

    /// The number of sent lines so far.
    pub(crate) fn counts(&self) -> Counts {
        self.counts
    }

    /// The edge of the last line that was not a heartbeat.
    pub(crate) fn busiest(&self) -> Option<usize> {
        self.busiest
    }

    /// The number of `SYNC`s that a server sent over an edge.
    pub(crate) fn beats(&self, edge: usize, host: usize) -> u64 {
        self.beats.get(&(edge, host)).copied().unwrap_or_default()
    }

    /// The connection of an edge, if there is exactly one, both servers have it, and both have got
    /// the other's `LIFE`.
    pub(crate) fn link(&self, edge: usize) -> Option<Key> {
        let [key] = *self.edges[edge] else {
            return None;
        };
        let tap = self.taps.get(&key)?;
        let is_linked = tap.halves.iter().all(|half| half.linked);
        (tap.open == [true; 2] && is_linked).then_some(key)
    }

    /// Bytes that a socket took from a server.
    pub(crate) fn sent(
        &mut self,
        key: Key,
        side: usize,
        bytes: &[u8],
        is_restored: bool,
        (now, expired): (Time, &Expired),
        chronicle: &mut Chronicle,
    ) -> Option<Foul> {
        let tap = self.taps.get_mut(&key)?;
        let mut tail = std::mem::take(&mut tap.halves[side].sent_tail);
        let mut foul = None;
        for_lines(&mut tail, bytes, |line| {
            let tap = self.taps.get(&key);
            if let Some(tap) = tap {
                chronicle.log(now, &subjects(tap, line), || {
                    format!(
                        "connection {key}: host {} sends {}",
                        tap.hosts[side],
                        Shown(line)
                    )
                });
            }
            let found = self.line_sent(key, side, line, is_restored, expired);
            foul = foul.take().or(found);
        });
        if tail.len() > LINK_LINE_BYTES {
            foul = foul.or(Some(Foul {
                what: format!("a line of more than {LINK_LINE_BYTES} bytes on a link"),
                subjects: Vec::new(),
            }));
        }
        if let Some(tap) = self.taps.get_mut(&key) {
            tap.halves[side].sent_tail = tail;
        }
        foul
    }

    fn line_sent(
        &mut self,
        key: Key,
        side: usize,
        line: &[u8],
        is_restored: bool,
        expired: &Expired,
    ) -> Option<Foul> {
        let tap = self.taps.get_mut(&key)?;
        let (edge, sender, receiver) = (tap.edge, tap.hosts[side], tap.hosts[1 - side]);
        let foul = |tap: &Tap, what: &str| {
            Some(Foul {
                what: format!("on connection {key}, host {sender} {what}: {}", Shown(line)),
                subjects: subjects(tap, line),
            })
        };
        let verb = line.split(|&byte| byte == b' ').next();
        if !matches!(verb, Some(b"SYNC" | b"KEPT" | b"LACKS" | b"CLOCK")) {
            self.busiest = Some(edge);
        }
        match verb {
            Some(b"AT" | b"EPOCH") => {
                self.counts.records += 1;
                let hash = fnv(line);
                self.fresh.push((key, line.to_vec()));
                // A record that may have expired may be received and sent again.
                if expired.is_on() && Line::of_link(line).is_some_and(|line| expired.covers(&line))
                {
                    tap.halves[side].sent.insert(hash);
                    return None;
                }
                if !tap.halves[side].sent.insert(hash) {
                    return foul(tap, "sent a record twice");
                }
                let before = self.learned.get(&(edge, sender));
                if tap.halves[side].learned.contains(&hash)
                    || before.is_some_and(|before| before.contains(&hash))
                {
                    return foul(tap, "sent a record back to the server that it came from");
                }
                let confirmed = self.confirmed.get(&(edge, receiver));
                let before = confirmed.and_then(|confirmed| confirmed.get(&hash));
                if tap.halves[1 - side].resumes && before.is_some_and(|(before, _)| *before < key) {
                    return foul(tap, "sent a record that the other side had confirmed");
                }
            }
            Some(b"SYNC") => {
                self.counts.syncs += 1;
                *self.beats.entry((edge, sender)).or_default() += 1;
            }
            Some(b"KEPT") => {
                self.counts.asides += 1;
                let position = last_number(line);
                let half = &mut tap.halves[side];
                let is_told = |heard: &Heard| matches!(heard, Heard::Sync(at) if *at == position);
                let Some(place) = half.unkept.iter().rposition(is_told) else {
                    return foul(tap, "confirmed a position that the other side has not sent");
                };
                for heard in half.unkept.drain(..=place) {
                    if let Heard::Record(bytes) = heard
                        && let Some(line) = Line::of_link(&bytes)
                    {
                        self.kept.push(Kept { host: sender, line });
                    }
                }
            }
            Some(b"LACKS" | b"CLOCK") => self.counts.asides += 1,
            Some(b"BYE") if is_restored && line.starts_with(b"BYE its history was rolled back") => {
                self.counts.others += 1;
                self.lives_anew(sender);
            }
            Some(b"BYE") => {
                self.counts.others += 1;
                // A stopping server sends BYE, and so does a server with a newer connection. There
                // is no other valid reason here.
                if !(self.stopping.contains(&sender) || tap.halves[side].deaf) {
                    return foul(tap, "did not understand the other side");
                }
            }
            Some(b"LIFE") => {
                self.counts.others += 1;
                let alone = self.is_alone(key, side);
                if !alone {
                    self.confirmed.remove(&(edge, sender));
                }
                if let Some(tap) = self.taps.get_mut(&key) {
                    tap.halves[side].resumes = alone;
                    tap.halves[side].synced = last_number(line);
                }
            }
            Some(b"HERD" | b"PROOF") => self.counts.others += 1,
            _ => return foul(tap, "sent a line that is not in the protocol"),
        }
        None
    }

    /// Whether a server has no other connection over the same edge.
    fn is_alone(&self, key: Key, side: usize) -> bool {
        let Some(own) = self.taps.get(&key) else {
            return false;
        };
        self.edges[own.edge].iter().all(|other| {
            let has = |tap: &Tap, at: usize| tap.open[at] && tap.hosts[at] == own.hosts[side];
            *other == key
                || !self
                    .taps
                    .get(other)
                    .is_some_and(|tap| has(tap, 0) || has(tap, 1))
        })
    }

    /// Bytes that a server is about to read. Returns the records among them.
    pub(crate) fn received(
        &mut self,
        key: Key,
        side: usize,
        bytes: &[u8],
        now: Time,
    ) -> Vec<Vec<u8>> {
        let Some(tap) = self.taps.get_mut(&key) else {
            return Vec::new();
        };
        if tap.halves[side].deaf {
            return Vec::new();
        }
        let mut records = Vec::new();
        let mut tail = std::mem::take(&mut tap.halves[side].received_tail);
        for_lines(&mut tail, bytes, |line| {
            match line.split(|&byte| byte == b' ').next() {
                Some(b"AT" | b"EPOCH") => records.push(line.to_vec()),
                Some(b"SYNC") => self.confirm(key, side, last_number(line), now),
                Some(b"LIFE") => self.life_received(key, side),
                _ => {}
            }
            if let Some(tap) = self.taps.get_mut(&key) {
                let half = &mut tap.halves[side];
                if line.starts_with(b"AT ") || line.starts_with(b"EPOCH ") {
                    half.unconfirmed.push(fnv(line));
                    half.unkept.push_back(Heard::Record(line.to_vec()));
                } else if line.starts_with(b"SYNC ") {
                    half.unkept.push_back(Heard::Sync(last_number(line)));
                }
            }
        });
        if let Some(tap) = self.taps.get_mut(&key) {
            tap.halves[side].received_tail = tail;
        }
        records
    }

    fn confirm(&mut self, key: Key, side: usize, position: u64, now: Time) {
        let Some(tap) = self.taps.get_mut(&key).filter(|tap| !tap.outlived) else {
            return;
        };
        if std::mem::replace(&mut tap.halves[side].synced, position) == position {
            return;
        }
        // A stopping server takes no more records. A server without room may get them again.
        let receiver = tap.hosts[side];
        if self.stopping.contains(&receiver) || self.tight.contains(&receiver) {
            return;
        }
        let place = (tap.edge, tap.hosts[side]);
        let confirmed = self.confirmed.entry(place).or_default();
        // Later records may have positions after that one.
        let (seqs, sender) = (&tap.seqs, 1 - side);
        let is_covered = |record: &mut u64| {
            let seq = seqs.get(&(sender, *record));
            seq.is_some_and(|seq| *seq <= position)
        };
        for record in tap.halves[side].unconfirmed.extract_if(.., is_covered) {
            confirmed.entry(record).or_insert((key, now));
        }
    }

    /// Notes the position of a sent record in its sender's feed.
    pub(crate) fn note_seq(&mut self, key: Key, side: usize, line: &[u8], seq: u64) {
        if let Some(tap) = self.taps.get_mut(&key) {
            tap.seqs.insert((side, fnv(line)), seq);
        }
    }

    /// The server has not handled the last bytes yet.
    pub(crate) fn not_understood_yet(&mut self, key: Key, side: usize, now: Time) {
        if let Some(tap) = self.taps.get(&key)
            && let Some(confirmed) = self.confirmed.get_mut(&(tap.edge, tap.hosts[side]))
        {
            confirmed.retain(|_, at| *at != (key, now));
        }
    }

    fn life_received(&mut self, key: Key, side: usize) {
        let alone = self.is_alone(key, side);
        let Some(tap) = self.taps.get_mut(&key) else {
            return;
        };
        tap.halves[side].linked = true;
        if alone {
            return;
        }
        // The server chooses the connection whose position counts. It no longer reads the others.
        let (edge, host) = (tap.edge, tap.hosts[side]);
        self.confirmed.remove(&(edge, host));
        self.learned.remove(&(edge, host));
        for other in self.edges[edge].clone() {
            if other != key
                && let Some(tap) = self.taps.get_mut(&other)
            {
                let side = usize::from(tap.hosts[1] == host);
                tap.halves[side].deaf |= tap.halves[side].linked;
            }
        }
    }

    /// A server accepted a record that it did not have.
    pub(crate) fn learned(&mut self, key: Key, side: usize, line: &[u8]) {
        if let Some(tap) = self.taps.get_mut(&key) {
            tap.halves[side].learned.insert(fnv(line));
            if !tap.outlived {
                let place = (tap.edge, tap.hosts[side]);
                self.learned.entry(place).or_default().insert(fnv(line));
            }
        }
    }
}

fn subjects(tap: &Tap, line: &[u8]) -> Vec<Subject> {
    let mut subjects = vec![Subject::Edge(tap.edge)];
    if let Some(fields) = record(line).and_then(|(_, line)| Fields::of(line)) {
        subjects.push(Subject::Record(fields.client.to_vec()));
    }
    subjects
}

/// Passes on the lines (without LF) that `bytes` complete. An incomplete line stays in `tail`.
fn for_lines(tail: &mut Vec<u8>, bytes: &[u8], mut act: impl FnMut(&[u8])) {
    tail.extend_from_slice(bytes);
    let mut start = 0;
    while let Some(length) = tail[start..].iter().position(|&byte| byte == b'\n') {
        act(&tail[start..start + length]);
        start += length + 1;
    }
    tail.drain(..start);
}

/// The number at the end of a line.
fn last_number(line: &[u8]) -> u64 {
    let word = line.rsplit(|&byte| byte == b' ').next();
    let number = word.and_then(|word| std::str::from_utf8(word).ok());
    number.and_then(|number| number.parse().ok()).unwrap_or(0)
}
