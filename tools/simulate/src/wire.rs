//! A listener on the links between servers: what may never cross them, whatever goes wrong elsewhere.
//!
//! - a record crosses one connection at most once in each direction;
//! - a record is not sent back over the connection that taught it, nor over a later one to the same life of the same neighbour;
//! - a link that is resumed is not sent again what it confirmed (`AT … SYNC`), unless two connections were there at once; nor is it
//!   if one of the two servers was started anew meanwhile and its journal was not harmed, but for what came in its last second;
//! - what a server says it has kept, it was sent before, and told that it is all up to there;
//! - the network never changes a byte, so no server ever says `BYE` because it did not understand;
//! - only lines of the protocol cross.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::time::Duration;

use herd_mio::core::base::clock::Time;
use herd_mio::core::base::limits::LINK_LINE_BYTES;

use crate::chronicle::{Chronicle, Shown, Subject, fnv};
use crate::expired::Expired;
use crate::timeline::{Key, before};
use herd_testkit::at_line::{Fields, Line, record};

/// What a server told a neighbour so long before what it had heard is written down, too.
const TOLD_GRACE: Duration = Duration::from_secs(3);

/// What the listener heard that must not be, and whom it concerns.
#[derive(Debug)]
pub(crate) struct Foul {
    pub(crate) what: String,
    pub(crate) subjects: Vec<Subject>,
}

/// How many lines of which kind were sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) records: u64,
    pub(crate) syncs: u64,
    /// What rides along: KEPT, LACKS and CLOCK.
    pub(crate) asides: u64,
    pub(crate) others: u64,
}

/// What one side of a connection sent and received.
#[derive(Default)]
struct Half {
    /// The unfinished lines at either end of the stream.
    sent_tail: Vec<u8>,
    received_tail: Vec<u8>,
    /// Records that this side sent.
    sent: HashSet<u64>,
    /// Records that this side had not, until the other side sent them here.
    learned: HashSet<u64>,
    /// Records that this side received, and has not said to have kept; and the `SYNC`s among them.
    unkept: VecDeque<Heard>,
    /// Records that this side received, and that no `SYNC` has confirmed yet.
    unconfirmed: Vec<u64>,
    /// Up to where the other side's feed is confirmed here: as this side's `LIFE` said, then as the other side's `SYNC`s do. One that says
    /// the same again confirms nothing: whoever has no room in its journal has no more to say.
    synced: u64,
    /// This side received the other side's `LIFE`.
    linked: bool,
    /// Another connection took this one's place: what still comes in is not read.
    deaf: bool,
    /// This side sent its `LIFE` when it had no other connection to this neighbour: it meant what it said.
    resumes: bool,
}

/// What a side received.
enum Heard {
    Record(Vec<u8>),
    Sync(u64),
}

/// A server has said that it keeps a record of a client.
pub(crate) struct Kept {
    pub(crate) host: usize,
    pub(crate) line: Line,
}

struct Tap {
    /// The places of records in their sender's feed, where they are known.
    seqs: HashMap<(usize, u64), u64>,
    edge: usize,
    /// The servers at the two sides.
    hosts: [usize; 2],
    halves: [Half; 2],
    /// Which sides' servers still have it.
    open: [bool; 2],
    /// One of its servers has ended since: what it confirms is about a life that is over.
    outlived: bool,
}

/// All links.
pub(crate) struct Wire {
    taps: BTreeMap<Key, Tap>,
    /// By edge: the connections that a server still has.
    edges: Vec<Vec<Key>>,
    /// By edge: its servers.
    ends: Vec<(usize, usize)>,
    /// By edge and receiving server: the records that it confirmed to have from the other, on which connection it first did, and when.
    confirmed: BTreeMap<(usize, usize), HashMap<u64, (Key, Time)>>,
    /// By edge and receiving server: the records that it had not, until the other taught them.
    learned: BTreeMap<(usize, usize), HashSet<u64>>,
    /// Servers that were told to stop.
    stopping: BTreeSet<usize>,
    /// Servers that have room for few records only.
    tight: BTreeSet<usize>,
    counts: Counts,
    /// Where the last line crossed that is no heartbeat.
    busiest: Option<usize>,
    /// Records that were sent, until their places in the feed are noted.
    pub(crate) fresh: Vec<(Key, Vec<u8>)>,
    /// What servers have said to keep, until it is taken.
    pub(crate) kept: Vec<Kept>,
    /// `SYNC` lines by edge and sending server.
    beats: BTreeMap<(usize, usize), u64>,
}

impl Wire {
    /// Hears nothing yet.
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

    /// A connection over an edge has been asked for; the servers at its two sides.
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

    /// The server at the acceptor's side has it too.
    pub(crate) fn accepted(&mut self, key: Key) {
        if let Some(tap) = self.taps.get_mut(&key) {
            tap.open[1] = true;
        }
    }

    /// A server has it no more.
    pub(crate) fn closed(&mut self, key: Key, side: usize) {
        if let Some(tap) = self.taps.get_mut(&key) {
            tap.open[side] = false;
            if tap.open == [false; 2] {
                self.edges[tap.edge].retain(|&other| other != key);
                self.taps.remove(&key);
            }
        }
    }

    /// A server was told to stop.
    pub(crate) fn stopping(&mut self, host: usize) {
        self.stopping.insert(host);
    }

    /// A server has room for few records only, or for all again.
    pub(crate) fn set_tight(&mut self, host: usize, is_tight: bool) {
        if is_tight {
            self.tight.insert(host);
        } else {
            self.tight.remove(&host);
        }
    }

    /// A server's life is over: nothing that it confirmed over its edges, or that was confirmed to it, counts any more; unless its
    /// journal has outlived it, with what it had heard and told up to `kept`.
    pub(crate) fn died(&mut self, host: usize, edges: &[usize], kept: Option<Time>) {
        self.stopping.remove(&host);
        match kept {
            None => self.confirmed.retain(|(edge, _), _| !edges.contains(edge)),
            Some(kept) => {
                for ((edge, receiver), confirmed) in &mut self.confirmed {
                    // What it told may have to wait for room before it is written down.
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

    /// A server has begun a new life while it runs: what it was taught counts as taught by no
    /// neighbour, and all is asked for.
    fn lives_anew(&mut self, host: usize) {
        let ends = &self.ends;
        let is_its = |edge: usize| ends[edge].0 == host || ends[edge].1 == host;
        self.learned.retain(|(edge, _), _| !is_its(*edge));
        self.confirmed.retain(|(edge, _), _| !is_its(*edge));
        for tap in self.taps.values_mut() {
            tap.outlived |= tap.hosts.contains(&host);
        }
    }

    /// The edge that a connection is of.
    pub(crate) fn edge(&self, key: Key) -> Option<usize> {
        self.taps.get(&key).map(|tap| tap.edge)
    }

    /// How many lines were sent so far.
    pub(crate) fn counts(&self) -> Counts {
        self.counts
    }

    /// The edge over which the last line crossed that is no heartbeat.
    pub(crate) fn busiest(&self) -> Option<usize> {
        self.busiest
    }

    /// How often a server said `SYNC` over an edge.
    pub(crate) fn beats(&self, edge: usize, host: usize) -> u64 {
        self.beats.get(&(edge, host)).copied().unwrap_or_default()
    }

    /// The one connection of an edge, if there is exactly one, both servers have it, and both have the other's `LIFE`.
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
                chronicle.tell(now, &subjects(tap, line), || {
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
                // What may have expired may be learned and sent anew.
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
                    return foul(tap, "sent a record back to who taught it");
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
                    return foul(tap, "kept what it was not told to be all");
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
                // Whoever stops says so, and so does whoever has a newer connection; nothing else is a reason here.
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
            _ => return foul(tap, "said what is not in the protocol"),
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

    /// Bytes that a server is about to be given; returns the records among them.
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
        // One that stops has said goodbye, and takes nothing more; and one that has no room may be
        // sent it again.
        let receiver = tap.hosts[side];
        if self.stopping.contains(&receiver) || self.tight.contains(&receiver) {
            return;
        }
        let place = (tap.edge, tap.hosts[side]);
        let confirmed = self.confirmed.entry(place).or_default();
        // What was sent since may come behind that position.
        let (seqs, sender) = (&tap.seqs, 1 - side);
        let is_covered = |record: &mut u64| {
            let seq = seqs.get(&(sender, *record));
            seq.is_some_and(|seq| *seq <= position)
        };
        for record in tap.halves[side].unconfirmed.extract_if(.., is_covered) {
            confirmed.entry(record).or_insert((key, now));
        }
    }

    /// Where a record that was sent stands in its sender's feed.
    pub(crate) fn note_seq(&mut self, key: Key, side: usize, line: &[u8], seq: u64) {
        if let Some(tap) = self.taps.get_mut(&key) {
            tap.seqs.insert((side, fnv(line)), seq);
        }
    }

    /// What a server was just given, it has not acted on.
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
        // Which of the connections' positions counts is the server's affair; the others are deaf from now on.
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

    /// A server took a record that it did not have.
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

/// Hands out the lines (without LF) that `bytes` finish behind `tail`; what is unfinished stays there.
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
