//! The neighbours' port: strangers, neighbours that prove themselves, operators, and what each of them may say.

use std::collections::BTreeMap;

use herd_mio::core::base::hex::{Hex, unhex};
use herd_mio::core::base::limits::{LINK_LINE_BYTES, TURN_BYTES};
use herd_mio::core::base::settings::Secret;
use herd_mio::core::journal::durability::Fsync;
use herd_mio::core::link::OPERATOR;
use herd_mio::core::link::proof::{Nonce, Parties, Side};
use herd_mio::core::node::{ConnId, Node};
use herd_mio::core::session::disposition::Disposition;
use herd_mio::core::session::tally::Counters;

use herd_testkit::fake_disk::FakeDisk;

use crate::disk;
use crate::pieces::pieces;
use crate::{log, reference, server};

/// What the herd shares, or nothing.
const SECRET: &[u8] = b"known to the herd alone";
/// Ends what one connection says, and begins the next one.
const NEXT: u8 = 0xff;

/// A byte for the server, then what is said over one connection after the other, each behind a byte that says who speaks and how.
///
/// What a stranger says changes nothing. What a neighbour says is believed as the protocol has it, line by line, whatever the pieces it
/// comes in; it is sent what it lacks, nothing that it taught, and nothing twice.
pub fn link_lines(data: &[u8]) {
    if !log::check(data) {
        return;
    }
    let Some((how, rest)) = data.split_first() else {
        return;
    };
    let whole = Story::new(*how).tell(rest, |_| u8::MAX);
    let cut = Story::new(*how).tell(rest, |how| how);
    assert_eq!(whole, cut, "in pieces");
}

/// Who speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Speaker {
    /// Says what it likes from the first byte on.
    Stranger,
    /// Dials the server, as it is to, and proves who it is.
    Neighbour(&'static str),
    /// The server dials it.
    Dialled,
    /// Knows the secret, and may ask how the server stands.
    Operator,
}

impl Speaker {
    fn name(self) -> &'static str {
        match self {
            Speaker::Stranger => "",
            Speaker::Neighbour(name) => name,
            Speaker::Dialled => "Campbell",
            Speaker::Operator => OPERATOR,
        }
    }
}

/// The server, and what it is to know.
struct Story {
    node: Node,
    disk: Option<FakeDisk>,
    secret: Secret,
    ms: u64,
    /// The greatest line of each client, and who taught it in which life.
    table: BTreeMap<Vec<u8>, (reference::At, Option<Teacher>)>,
    /// What each neighbour was last heard to say of its own position.
    heard: BTreeMap<&'static str, (Vec<u8>, u64)>,
    /// Which life of each neighbour was met last.
    lives: BTreeMap<&'static str, (Vec<u8>, u32)>,
    /// The link that counts for each neighbour.
    linked: BTreeMap<&'static str, ConnId>,
    /// What the server knows of each neighbour, beside that.
    known: BTreeMap<&'static str, Known>,
    /// The server's clients whose clock was far behind.
    behind: u32,
    /// How long those who dial are kept out.
    patience: BTreeMap<&'static str, Patience>,
    /// The connection that it is making.
    dialling: Option<ConnId>,
    /// Everything that the server said, for comparison.
    said: Vec<u8>,
}

/// What the server knows of a neighbour.
#[derive(Default)]
struct Known {
    /// The greatest position that it was told.
    told: u64,
    /// What it said to have kept, and to lack.
    kept: u64,
    lacks: u64,
    apart_ms: Option<i64>,
}

/// How a neighbour that breaks the protocol is backed off from.
struct Patience {
    /// The next wait is nine tenths of that.
    step_ms: u64,
    kept_out_until: u64,
    linked_since: u64,
}

impl Default for Patience {
    fn default() -> Patience {
        Patience {
            step_ms: 100,
            kept_out_until: 0,
            linked_since: 0,
        }
    }
}

/// A neighbour, and which of its lives it is; one that comes back after another is a new one.
type Teacher = (&'static str, u32);

/// Where a connection stands, after the protocol's documentation.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Stands {
    Starting,
    Linked(Vec<u8>),
    /// It is told why.
    Broken,
    /// It knows more of the server's life than that has told it.
    RolledBack,
    /// It said goodbye.
    Gone,
}

impl Story {
    fn new(how: u8) -> Story {
        let mut settings = server::settings();
        let secret = Secret::new(if how & 1 == 0 { SECRET } else { b"" }.to_vec());
        settings.secrets = secret.clone().into();
        settings.limits.max_unproven_new = 1_000_000; // a story is short, and its links are many
        let mut node = Node::new(settings, &server::SEED, server::at(0));
        let mut disk = None;
        if how & 2 != 0 {
            node.keep_journal(Fsync::Always);
            let mut empty = disk::new();
            match empty.open(|entry| node.restore(entry)) {
                Ok(opened) => node.journal_opened(opened),
                Err(error) => panic!("an empty journal is refused: {error}"),
            }
            disk = Some(empty);
        }
        let mut story = Story {
            node,
            disk,
            secret,
            ms: 0,
            table: BTreeMap::new(),
            heard: BTreeMap::new(),
            lives: BTreeMap::new(),
            linked: BTreeMap::new(),
            known: BTreeMap::new(),
            behind: 0,
            patience: BTreeMap::new(),
            dialling: None,
            said: Vec::new(),
        };
        story.settle();
        if how & 4 != 0 {
            story.hear_clients();
        }
        story
    }

    /// Some positions of the server's own clients.
    fn hear_clients(&mut self) {
        let address = "192.0.2.1:1".parse();
        let admitted = address
            .ok()
            .and_then(|it| self.node.handle_client_connected(it, server::at(self.ms)));
        let Some(client) = admitted else {
            panic!("a client is admitted");
        };
        let commands = b"IAMAT a +1+2 1621464827\nIAMAT b +3-4.5 1621464826.25\nIAMAT c -6-7 9\n";
        self.node
            .handle_data_received(client, commands, server::at(0));
        self.settle();
        let answers = self.node.poll_output(client).to_vec();
        for line in answers.split(|&byte| byte == b'\n') {
            if let Some(at) = reference::At::read(line) {
                self.table.insert(at.client.clone(), (at, None));
            }
        }
        assert_eq!(self.table.len(), 3);
        self.behind = 1; // that is 9 s after the epoch
        self.node
            .handle_connection_lost(client, None, server::at(0));
    }

    /// Has the journal written, and looks at whoever is to be looked at; what is to be sent is left.
    fn settle(&mut self) {
        let now = server::at(self.ms);
        let outside = disk::turn(&mut self.node, self.disk.as_mut(), now);
        let (dialled, closed) = (outside.dialled, outside.closed);
        for id in dialled {
            assert!(self.dialling.replace(id).is_none(), "it dials once");
        }
        for id in closed {
            self.forget(id);
        }
    }

    fn lose(&mut self, id: ConnId) {
        let now = server::at(self.ms);
        self.node.handle_connection_lost(id, None, now);
        self.forget(id);
    }

    /// A connection is closed.
    fn forget(&mut self, id: ConnId) {
        for (name, _) in self.linked.extract_if(.., |_, link| *link == id) {
            let patience = self.patience.entry(name).or_default();
            // It was a good one.
            if self.ms >= patience.linked_since + 2_000 {
                patience.step_ms = 100;
            }
        }
        self.dialling = self.dialling.filter(|dialling| *dialling != id);
    }

    fn tell(mut self, speeches: &[u8], cut: impl Fn(u8) -> u8) -> (Vec<u8>, u64) {
        let speeches = speeches.split(|&byte| byte == NEXT).take(8);
        for speech in speeches.filter(|speech| !speech.is_empty()) {
            let (how, said) = (speech[0], &speech[1..]);
            let speaker = match how & 7 {
                0 | 1 => Speaker::Stranger,
                2 | 3 => Speaker::Neighbour("Riley"),
                4 => Speaker::Neighbour("Bernard"),
                5 | 6 => Speaker::Dialled,
                _ => Speaker::Operator,
            };
            self.ms += 100;
            self.connection(speaker, how & 8 != 0, said, cut(how >> 4));
            // An operator may ask for that; the server takes nothing from anybody then.
            if self.node.is_draining() || self.node.is_stopping() {
                break;
            }
        }
        let digest = self.node.records().digest();
        (self.said, digest)
    }

    /// One connection, from its beginning on; with `stays`, it is not closed.
    fn connection(&mut self, speaker: Speaker, stays: bool, said: &[u8], cut: u8) {
        let Some(id) = self.open(speaker) else {
            return;
        };
        // What waits for those who are linked is told them first.
        for link in self.linked.values().copied().collect::<Vec<_>>() {
            self.take(link);
        }
        let wants_proof = speaker != Speaker::Stranger;
        if wants_proof && !self.prove(id, speaker) {
            return;
        }
        let is_operator = speaker == Speaker::Operator;
        let own = self.node.boot().to_string();
        let before = self.node.records().digest();
        for piece in pieces(said, cut) {
            assert!(self.node.wants_read(id), "it is heard");
            self.node
                .handle_data_received(id, piece, server::at(self.ms));
            self.settle();
        }
        if !wants_proof || is_operator {
            assert_eq!(self.node.records().digest(), before, "nobody is believed");
            let told = self.take(id);
            let is_public = |line: &[u8]| line.starts_with(b"HERD 2 ") || line.starts_with(b"BYE ");
            assert!(
                is_operator || told.split_inclusive(|&b| b == b'\n').all(is_public),
                "a stranger learns nothing"
            );
            for line in told.split(|&byte| byte == b'\n') {
                self.judge_change(line);
            }
        } else {
            self.judge(id, speaker, &own, said);
        }
        let end = self.node.poll_disposition(id, server::at(self.ms));
        if !stays || end != Disposition::Open {
            self.end(id);
        }
        self.settle();
    }

    /// What a follower is told is in the table, and nothing else.
    fn judge_change(&self, line: &[u8]) {
        let Some(rest) = line.strip_prefix(b"CHANGE ") else {
            return;
        };
        let text = String::from_utf8_lossy(rest).into_owned();
        let number = text.split(['-', ' ']).nth(1).and_then(|it| it.parse().ok());
        let start = rest.windows(3).position(|three| three == b"AT ");
        let at = &rest[start.unwrap_or_else(|| panic!("{text}"))..];
        let client = at.split(|&byte| byte == b' ').nth(3);
        let client = client.unwrap_or_else(|| panic!("{text}"));
        let records = self.node.records();
        let held = records.record(client);
        assert_eq!(held, Some([at, b"\n"].concat()), "{text}");
        assert_eq!(records.seq(client), number, "{text}");
    }

    /// A new connection; nothing if the server would have to dial, and has no cause to.
    fn open(&mut self, speaker: Speaker) -> Option<ConnId> {
        if speaker != Speaker::Dialled {
            let address = "192.0.2.2:2".parse().ok()?;
            let now = server::at(self.ms);
            let id = self.node.handle_neighbour_connected(address, now);
            assert!(id.is_some(), "{} are no crowd", self.node.connections());
            return id;
        }
        // It waits before it dials again, and gives up what takes too long.
        for _ in 0..2 {
            self.ms += 2_000;
            self.settle();
        }
        let id = self.dialling.take()?;
        self.node.handle_connection_made(id, server::at(self.ms));
        Some(id)
    }

    /// The other side closes a connection.
    fn end(&mut self, id: ConnId) {
        let now = server::at(self.ms);
        self.node.handle_eof_received(id, now);
        self.take(id);
        assert_eq!(self.node.poll_disposition(id, now), Disposition::Close);
        self.lose(id);
    }

    /// Says what a neighbour says to prove itself; `false` if the server will not have it.
    fn prove(&mut self, id: ConnId, speaker: Speaker) -> bool {
        let nonce: Nonce = [9; 16];
        let (own, name) = (server::NAME, speaker.name());
        let hello = format!("HERD 2 {name} {own} {}\n", Hex(&nonce));
        let now = server::at(self.ms);
        self.node.handle_data_received(id, hello.as_bytes(), now);
        let told = self.take(id);
        let their_nonce = told
            .strip_prefix(format!("HERD 2 {own} {name} ").as_bytes())
            .and_then(|rest| unhex(rest.get(..32)?));
        let kept_out = self.patience.get(name).map_or(0, |it| it.kept_out_until);
        if matches!(speaker, Speaker::Neighbour(_)) && self.ms < kept_out {
            let reason = format!("BYE {name} broke the protocol just now, and has to wait\n");
            assert_eq!(told, reason.as_bytes());
            self.end(id);
            return false;
        }
        let Some(their_nonce) = their_nonce else {
            panic!("{name} is told {}", told.escape_ascii());
        };
        let (us, them) = ((name, &nonce), (own, &their_nonce));
        let (side, parties) = match speaker {
            Speaker::Dialled => (
                Side::Acceptor,
                Parties {
                    dialler: them,
                    acceptor: us,
                },
            ),
            _ => (
                Side::Dialler,
                Parties {
                    dialler: us,
                    acceptor: them,
                },
            ),
        };
        let proof = format!("PROOF {}\n", parties.prove(side, &self.secret));
        let their_proof = format!("PROOF {}\n", parties.prove(side.other(), &self.secret));
        self.node.handle_data_received(id, proof.as_bytes(), now);
        let later = self.take(id);
        let told = [told, later].concat();
        let text = String::from_utf8_lossy(&told);
        let Some((_, greeting)) = text.split_once(&their_proof) else {
            panic!("it proves itself, too: {text}");
        };
        let expected = match speaker {
            Speaker::Operator => {
                let records = self.node.records();
                let counters = Counters {
                    behind: self.behind.into(),
                    ..Counters::default()
                };
                let counters: String = counters
                    .all()
                    .map(|(name, value)| format!(" {name}={value}"))
                    .collect();
                let mut line = format!(
                    "STATUS boot={} wall={} records={} digest={:016x} clients=0 refused={}{counters} version={}",
                    self.node.boot(),
                    now.wall,
                    records.positions(),
                    records.digest(),
                    records.refused(),
                    env!("CARGO_PKG_VERSION"),
                );
                // In the order of its settings.
                for name in ["Riley", "Bernard", "Campbell"] {
                    let Some(known) = self
                        .known
                        .get(name)
                        .filter(|_| self.linked.contains_key(name))
                    else {
                        continue;
                    };
                    let unconfirmed = records.last_seq() - known.kept;
                    let apart = known.apart_ms.map_or("?".to_owned(), |it| it.to_string());
                    line = format!("{line} link={unconfirmed}:{apart}:{}:{name}", known.lacks);
                }
                line
            }
            _ => {
                let (boot, wall) = (self.node.boot(), now.wall);
                let heard = match self.heard.get(name) {
                    Some((boot, position)) => format!("{} {position}", boot.escape_ascii()),
                    None => "- 0".to_owned(),
                };
                format!("LIFE {boot} {wall} {heard}")
            }
        };
        // Other tests check the keys about disk, clocks, drains, secrets, TLS, buffers and limits by address.
        let others = [
            "secret=",
            "plain=",
            "handshakes=",
            "disk=",
            "table=",
            "clocks=",
            "max_clients=",
            "forgotten=",
            "followers=",
            "phase=",
            "buffers=",
            "unlinked=",
            "lag=",
            "refused_by_address=",
            "unproven_",
        ];
        let is_known = |word: &&str| !others.iter().any(|key| word.starts_with(key));
        let known = |line: &str| {
            let words: Vec<_> = line.trim_end().split(' ').filter(is_known).collect();
            words.join(" ")
        };
        assert_eq!(known(greeting), known(&expected));
        true
    }

    /// Everything that waits to be sent.
    fn take(&mut self, id: ConnId) -> Vec<u8> {
        let mut all = Vec::new();
        loop {
            let output = self.node.poll_output(id).to_vec();
            if output.is_empty() {
                break;
            }
            assert!(output.len() <= TURN_BYTES + 2 * LINK_LINE_BYTES, "bounded");
            all.extend_from_slice(&output);
            self.node
                .handle_output_sent(id, output.len(), server::at(self.ms));
        }
        self.said.extend_from_slice(&all);
        let name = self.linked.iter().find(|(_, link)| **link == id);
        if let Some(name) = name.map(|(name, _)| *name) {
            let known = self.known.entry(name).or_default();
            for line in all.split(|&byte| byte == b'\n') {
                let position = line.strip_prefix(b"SYNC ").and_then(number);
                known.told = known.told.max(position.unwrap_or(0));
            }
        }
        assert!(all.last().is_none_or(|&byte| byte == b'\n'), "whole lines");
        all
    }

    /// What a neighbour said has its effect, and it is told what it has to be told.
    fn judge(&mut self, id: ConnId, speaker: Speaker, own: &str, said: &[u8]) {
        let wall = server::at(self.ms).wall;
        let mut stands = Stands::Starting;
        let mut resumes_after = None;
        let mut is_known = false;
        let mut rest = said;
        while matches!(stands, Stands::Starting | Stands::Linked(_)) {
            let window = &rest[..rest.len().min(LINK_LINE_BYTES + 1)];
            let Some(end) = window.iter().position(|&byte| byte == b'\n') else {
                if rest.len() > LINK_LINE_BYTES {
                    stands = Stands::Broken;
                }
                break;
            };
            let line = &rest[..end];
            rest = &rest[end + 1..];
            let words: Vec<&[u8]> = line.split(|&byte| byte == b' ').collect();
            stands = match (&*words, stands) {
                ([b"BYE", ..], _) => Stands::Gone,
                ([b"LIFE", boot, said_wall, own_boot, position], Stands::Starting) => {
                    match (number(said_wall), number(position)) {
                        (Some(theirs), Some(position)) if is_boot(boot) => {
                            let is_own = own_boot.eq_ignore_ascii_case(own.as_bytes());
                            let known = self.known.entry(speaker.name()).or_default();
                            if is_own && position > known.told {
                                Stands::RolledBack
                            } else {
                                is_known = true;
                                resumes_after = Some(position).filter(|_| is_own);
                                known.kept = resumes_after.unwrap_or(0);
                                known.lacks = 0;
                                known.apart_ms = Some(apart_ms(theirs, wall));
                                self.lives(speaker.name(), boot);
                                Stands::Linked(boot.to_ascii_lowercase())
                            }
                        }
                        _ => Stands::Broken,
                    }
                }
                ([b"AT" | b"EPOCH", ..], Stands::Linked(boot)) => {
                    match reference::At::of_link(line) {
                        Some(at) => {
                            let teacher = self.teacher(speaker.name());
                            let held = self.table.get(&at.client);
                            if held.is_none_or(|(held, _)| *held < at) {
                                self.table.insert(at.client.clone(), (at, teacher));
                            }
                            Stands::Linked(boot)
                        }
                        None => Stands::Broken,
                    }
                }
                ([b"KEPT", position], Stands::Linked(boot)) => {
                    let known = self.known.entry(speaker.name()).or_default();
                    match number(position).filter(|at| *at <= known.told) {
                        Some(position) => {
                            known.kept = known.kept.max(position);
                            Stands::Linked(boot)
                        }
                        None => Stands::Broken,
                    }
                }
                ([b"LACKS", records], Stands::Linked(boot)) => match number(records) {
                    Some(records) => {
                        self.known.entry(speaker.name()).or_default().lacks = records;
                        Stands::Linked(boot)
                    }
                    None => Stands::Broken,
                },
                ([b"CLOCK", theirs], Stands::Linked(boot)) => match number(theirs) {
                    Some(theirs) => {
                        let known = self.known.entry(speaker.name()).or_default();
                        known.apart_ms = Some(apart_ms(theirs, wall));
                        Stands::Linked(boot)
                    }
                    None => Stands::Broken,
                },
                ([b"SYNC", position], Stands::Linked(boot)) => match number(position) {
                    Some(position) => {
                        self.heard.insert(speaker.name(), (boot.clone(), position));
                        Stands::Linked(boot)
                    }
                    None => Stands::Broken,
                },
                _ => Stands::Broken,
            };
        }
        self.compare_table();
        if is_known {
            self.replace(id, speaker);
        }
        let told = self.take(id);
        let disposition = self.node.poll_disposition(id, server::at(self.ms));
        match stands {
            Stands::Starting => assert!(told.is_empty() && disposition == Disposition::Open),
            Stands::Linked(_) => {
                assert_eq!(disposition, Disposition::Open);
                self.compare_feed(&told, self.teacher(speaker.name()), resumes_after);
            }
            Stands::Broken => {
                let last = told.split_inclusive(|&byte| byte == b'\n').next_back();
                assert!(last.is_some_and(|line| line.starts_with(b"BYE ")));
                assert_eq!(disposition, Disposition::Finish);
                let patience = self.patience.entry(speaker.name()).or_default();
                patience.kept_out_until = self.ms + patience.step_ms * 9 / 10;
                patience.step_ms = (patience.step_ms * 2).min(1_000);
            }
            Stands::RolledBack => {
                assert_eq!(told, ROLLED_BACK);
                assert_eq!(disposition, Disposition::Finish);
                self.begins_life(own);
            }
            Stands::Gone => assert!(told.is_empty() && disposition == Disposition::Finish),
        }
    }

    /// The link that counted until now is told that it does not any more.
    fn replace(&mut self, id: ConnId, speaker: Speaker) {
        let patience = self.patience.entry(speaker.name()).or_default();
        patience.linked_since = self.ms;
        let Some(old) = self.linked.insert(speaker.name(), id) else {
            return;
        };
        let told = self.take(old);
        assert!(told.ends_with(b"BYE a newer connection took its place\n"));
        self.end(old);
    }

    /// The server has begun a new life: all links are over, all was taught by nobody, and all is
    /// asked for.
    fn begins_life(&mut self, before: &str) {
        assert_ne!(self.node.boot().to_string(), before, "a new life");
        for (name, link) in std::mem::take(&mut self.linked) {
            assert!(self.take(link).ends_with(ROLLED_BACK), "{name} is told");
            self.end(link);
            let patience = self.patience.entry(name).or_default();
            if self.ms >= patience.linked_since + 2_000 {
                patience.step_ms = 100;
            }
        }
        self.known
            .values_mut()
            .for_each(|known| *known = Known::default());
        self.lives.values_mut().for_each(|(boot, _)| boot.clear());
        self.heard
            .values_mut()
            .for_each(|(_, position)| *position = 0);
    }

    /// A neighbour says which life it is in.
    fn lives(&mut self, name: &'static str, boot: &[u8]) {
        let boot = boot.to_ascii_lowercase();
        let (known, count) = self.lives.entry(name).or_default();
        if *known != boot {
            *known = boot;
            *count += 1;
        }
    }

    fn teacher(&self, name: &'static str) -> Option<Teacher> {
        self.lives.get(name).map(|(_, count)| (name, *count))
    }

    fn compare_table(&self) {
        let records = self.node.records();
        assert_eq!(records.len(), self.table.len());
        for (client, (at, _)) in &self.table {
            let line = [&at.line[..], b"\n"].concat();
            assert_eq!(records.record(client), Some(line));
            assert_eq!(records.epoch(client), Some(at.epoch));
        }
    }

    /// A neighbour that has everything up to `from` is sent the rest, once, but for what it taught.
    fn compare_feed(&self, told: &[u8], teacher: Option<Teacher>, from: Option<u64>) {
        let records = self.node.records();
        let from = from.unwrap_or(0);
        let mut expected: BTreeMap<&[u8], &reference::At> = self
            .table
            .iter()
            .filter(|(client, (_, taught_by))| {
                let is_behind = records.seq(client).is_some_and(|seq| seq > from);
                is_behind && *taught_by != teacher
            })
            .map(|(client, (at, _))| (&**client, at))
            .collect();
        let mut synced = None;
        for line in told.split_inclusive(|&byte| byte == b'\n') {
            let line = line.strip_suffix(b"\n").unwrap_or(line);
            if let Some(position) = line.strip_prefix(b"SYNC ") {
                synced = number(position);
                continue;
            }
            if let Some(position) = line.strip_prefix(b"KEPT ") {
                let heard = self.heard.values();
                let is_heard = |(_, at): &(Vec<u8>, u64)| Some(*at) == number(position);
                assert!(heard.clone().any(is_heard), "it kept what was sent");
                continue;
            }
            let at = reference::At::of_link(line);
            let wanted = at.as_ref().and_then(|at| expected.remove(&*at.client));
            assert!(
                at.is_some() && wanted == at.as_ref(),
                "sent {}",
                line.escape_ascii()
            );
        }
        assert!(expected.is_empty(), "it lacks {expected:?}");
        assert!(synced.is_none_or(|position| position == records.last_seq()));
    }
}

/// What a server says that begins a new life.
const ROLLED_BACK: &[u8] = b"BYE its history was rolled back; it begins a new life\n";

/// Milliseconds by which a clock is ahead, cut towards zero, as far as numbers go.
fn apart_ms(theirs: u64, ours: u64) -> i64 {
    let apart = i128::from(theirs) - i128::from(ours);
    (apart.clamp(i64::MIN.into(), i64::MAX.into()) / 1_000_000) as i64
}

/// A whole number that fits.
fn number(text: &[u8]) -> Option<u64> {
    let is_number = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(text)
        .ok()
        .filter(|_| is_number)?
        .parse()
        .ok()
}

fn is_boot(text: &[u8]) -> bool {
    text.len() == 16 && text.iter().all(u8::is_ascii_hexdigit)
}
