//! Tests of operators that follow the changes: which lines they get, when they get them, and how
//! their connections are closed. A *life* is the time from one start of a server until the next. A
//! *position* is `<life>-<number of a change>`.

use std::net::SocketAddr;

use super::tests::at;
use super::{ConnId, Node};
use crate::config::{HerdConfig, Overrides, Source};
use crate::core::base::boot_id::BootId;
use crate::core::base::hex::{Hex, unhex};
use crate::core::base::limits::Limits;
use crate::core::base::settings::Secret;
use crate::core::journal::durability::{DiskDone, DiskWork, Fsync, Opened};
use crate::core::journal::format::Entry;
use crate::core::link::OPERATOR;
use crate::core::link::proof::{Nonce, Parties, Side};
use crate::core::session::disposition::Disposition;

const NONCE: Nonce = [9; 16];

/// A server with a simulated disk. While `appends_wait` or `syncs_wait` is set, the disk does not
/// report that an append or a sync is done.
struct Scene {
    node: Node,
    ms: u64,
    appends_wait: bool,
    syncs_wait: bool,
    waiting: Vec<DiskDone>,
    client: ConnId,
}

impl Scene {
    fn new(limits: Limits, fsync: Option<Fsync>) -> Scene {
        Scene::restored(limits, fsync, &[], 1)
    }

    /// Returns a server that has read `entries` from its journal. `machine` is the kernel's boot
    /// id.
    fn restored(
        limits: Limits,
        fsync: Option<Fsync>,
        entries: &[Entry<'_>],
        machine: u64,
    ) -> Scene {
        let config = HerdConfig::load(&Source::Name, Some("Riley")).unwrap();
        let server = config.server("Riley", &Overrides::default()).unwrap();
        let mut settings = server.settings;
        settings.neighbours.clear();
        settings.secrets = Secret::new(b"secret".to_vec()).into();
        settings.limits = limits;
        settings.limits.new_names_per_address = 1_000_000;
        let mut node = Node::new(settings, &[7; 32], at(0));
        if let Some(fsync) = fsync {
            node.keep_journal(fsync);
            for entry in entries {
                node.restore(*entry);
            }
            node.journal_opened(Opened {
                length: 0,
                format: None,
                machine,
            });
        }
        let client = node
            .handle_client_connected("192.0.2.9:1".parse().unwrap(), at(0))
            .unwrap();
        let mut scene = Scene {
            node,
            ms: 0,
            appends_wait: false,
            syncs_wait: false,
            waiting: Vec::new(),
            client,
        };
        scene.end_turn();
        scene
    }

    /// Does the disk's work, and empties the list of dirty connections. Writes nothing to sockets.
    fn end_turn(&mut self) {
        let now = at(self.ms);
        self.node.handle_deadlines(now);
        while let Some(work) = self.node.poll_disk_work(now) {
            let outcome = Ok(());
            let (done, waits) = match work {
                DiskWork::Append(chunks) => {
                    let outcome = Ok(());
                    (DiskDone::Appended { chunks, outcome }, self.appends_wait)
                }
                DiskWork::Reserve { file, .. } => (DiskDone::Reserved { file, outcome }, false),
                DiskWork::Create { file } => (DiskDone::Created { file, outcome }, false),
                DiskWork::Sync { files } => (DiskDone::Synced { files, outcome }, self.syncs_wait),
                DiskWork::Switch { .. } | DiskWork::Discard { .. } => panic!("no compaction"),
            };
            match waits {
                true => self.waiting.push(done),
                false => self.node.handle_disk_done(done, now),
            }
        }
        while self.node.poll_dirty().is_some() {}
    }

    /// The disk reports all work that is done and not reported yet. From now on, the disk reports
    /// its work at once.
    fn disk_goes_on(&mut self) {
        (self.appends_wait, self.syncs_wait) = (false, false);
        for done in std::mem::take(&mut self.waiting) {
            self.node.handle_disk_done(done, at(self.ms));
        }
        self.end_turn();
    }

    fn say(&mut self, line: &str) {
        let line = format!("{line}\n");
        self.node
            .handle_data_received(self.client, line.as_bytes(), at(self.ms));
        self.end_turn();
        let count = self.node.poll_output(self.client).len();
        self.node
            .handle_output_sent(self.client, count, at(self.ms));
        self.node.poll_disposition(self.client, at(self.ms));
    }

    /// Takes the whole output of a connection, in as many turns as this needs. Returns the output
    /// and the connection's disposition.
    fn take(&mut self, id: ConnId) -> (String, Disposition) {
        let mut said = Vec::new();
        loop {
            self.end_turn();
            let output = self.node.poll_output(id).to_vec();
            if !output.is_empty() {
                self.node.handle_output_sent(id, output.len(), at(self.ms));
            }
            let disposition = self.node.poll_disposition(id, at(self.ms));
            self.node.check_invariants().unwrap();
            let is_due = self
                .node
                .next_deadline()
                .is_some_and(|due| due <= at(self.ms).time);
            said.extend_from_slice(&output);
            if output.is_empty() && !is_due {
                return (String::from_utf8(said).unwrap(), disposition);
            }
        }
    }

    /// Connects an operator, which sends the line `says` after its proof. Returns the connection
    /// and the output after that line.
    fn operator(&mut self, says: &str) -> (ConnId, String) {
        let address: SocketAddr = "192.0.2.1:4000".parse().unwrap();
        let id = self
            .node
            .handle_neighbour_connected(address, at(self.ms))
            .unwrap();
        let herd = format!("HERD 2 {OPERATOR} Riley {}\n", Hex(&NONCE));
        self.node
            .handle_data_received(id, herd.as_bytes(), at(self.ms));
        let (said, _) = self.take(id);
        let theirs = said.trim_ascii_end().rsplit(' ').next().unwrap();
        let parties = Parties {
            dialler: (OPERATOR, &NONCE),
            acceptor: ("Riley", &unhex::<16>(theirs.as_bytes()).unwrap()),
        };
        let proof = parties.prove(Side::Dialler, &Secret::new(b"secret".to_vec()));
        let said = format!("PROOF {proof}\n");
        self.node
            .handle_data_received(id, said.as_bytes(), at(self.ms));
        assert!(self.take(id).0.contains("STATUS boot="));
        let said = format!("{says}\n");
        self.node
            .handle_data_received(id, said.as_bytes(), at(self.ms));
        (id, self.take(id).0)
    }

    /// Connects a follower that begins at `start`. Returns the connection and its output, in which
    /// each position has only the number of the change.
    fn follow(&mut self, start: &str) -> (ConnId, String) {
        let (id, told) = self.operator(&format!("FOLLOW {start}"));
        (id, self.short(&told))
    }

    fn news(&mut self, id: ConnId) -> String {
        let told = self.take(id).0;
        self.short(&told)
    }

    fn short(&self, told: &str) -> String {
        told.replace(&self.life(), "")
    }

    fn life(&self) -> String {
        format!("{}-", self.node.boot())
    }
}

/// Returns the sequence numbers in the `CHANGE` lines.
fn changes(told: &str) -> Vec<u64> {
    let changes = told.lines().filter_map(|line| line.strip_prefix("CHANGE "));
    changes
        .map(|rest| rest.split(' ').next().unwrap().parse().unwrap())
        .collect()
}

fn clients(told: &str) -> Vec<&str> {
    let changes = told.lines().filter(|line| line.starts_with("CHANGE "));
    changes
        .map(|line| line.split(' ').nth_back(2).unwrap())
        .collect()
}

#[test]
fn a_follower_is_told_all_records_then_each_change_and_resumes_anywhere() {
    let mut scene = Scene::new(Limits::default(), None);
    let (empty, told) = scene.follow("all");
    assert_eq!(
        told, "FOLLOWING 0 behind=0 heartbeat=3000 silence=10000 ttl=0\nSYNC 0\n",
        "a follower of an empty table is answered at once"
    );
    for name in ["a", "b", "a", "c"] {
        scene.ms += 1;
        scene.say(&format!("IAMAT {name} +1+2 {}", 1_700_000_000 + scene.ms));
    }
    let told = scene.news(empty);
    assert_eq!(
        (changes(&told), clients(&told)),
        (vec![2, 3, 4], vec!["b", "a", "c"])
    );
    assert!(told.starts_with("CHANGE 2 AT Riley -"), "{told}");
    let (late, told) = scene.follow("now");
    assert_eq!(
        told,
        "FOLLOWING 4 behind=0 heartbeat=3000 silence=10000 ttl=0\nSYNC 4\n"
    );
    for (from, rest) in [
        (0, &[2, 3, 4][..]),
        (1, &[2, 3, 4]),
        (2, &[3, 4]),
        (3, &[4]),
        (4, &[]),
    ] {
        let start = format!("{}{from}", scene.life());
        let told = scene.follow(&start).1;
        assert!(
            told.starts_with(&format!("FOLLOWING {from} behind={} ", 4 - from)),
            "{told}"
        );
        assert!(
            told.ends_with("SYNC 4\n") && changes(&told) == rest,
            "{told}"
        );
    }
    scene
        .node
        .handle_data_received(late, b"ALIVE\n", at(scene.ms));
    scene.say("IAMAT d +1+2 1700000000");
    assert_eq!(clients(&scene.news(late)), ["d"]);
}

#[test]
fn a_position_that_cannot_be_resumed_restarts_the_stream_and_says_so() {
    let mut scene = Scene::new(Limits::default(), Some(Fsync::Interval));
    scene.say("IAMAT a +1+2 3");
    for (start, reason) in [
        (
            format!("{}2", scene.life()),
            "fewer changes than that position",
        ),
        (
            "00000000000000aa-1".to_owned(),
            "does not know the changes of that life",
        ),
        (
            format!("{}{}", scene.life(), u64::MAX),
            "fewer changes than that position",
        ),
    ] {
        let told = scene.follow(&start).1;
        let lines: Vec<&str> = told.lines().collect();
        assert!(lines[0].starts_with("FOLLOWING 0 behind=1 "), "{told}");
        assert!(
            lines[1].starts_with("RESTART ") && lines[1].contains(reason),
            "{told}"
        );
        assert_eq!((changes(&told), lines[3]), (vec![1], "SYNC 1"), "{told}");
    }
    for bad in [
        "",
        "later",
        "ALL",
        "7",
        "00000000000000aa",
        "00000000000000aa-",
        "00000000000000AA-1",
        "00000000000000aa-01",
        "00000000000000aa--1",
    ] {
        let (_, told) = scene.follow(bad);
        assert!(
            told.starts_with("BYE FOLLOW needs now, all, or a position")
                || bad.is_empty() && told.starts_with("BYE FOLLOW needs"),
            "{bad}: {told}"
        );
    }
}

#[test]
fn a_position_of_an_earlier_life_resumes_up_to_the_end_of_that_life() {
    let line = |number: u64| format!("AT Riley +0.000000000 client{number} +1+2 3");
    let lines = [1, 2, 3].map(line);
    let life = |boot, after| Entry::Life {
        boot: BootId(boot),
        last_seq_before: after,
        machine: 1,
    };
    let record = |seq: u64| Entry::Record {
        seq,
        epoch: 0,
        line: lines[seq as usize - 1].as_bytes(),
    };
    // The life bb had the changes 2 and 3. The present life has none yet.
    let entries = [
        life(0xaa, 0),
        record(1),
        life(0xbb, 1),
        record(2),
        record(3),
    ];
    let follow = |start: &str, machine| {
        let fsync = Some(Fsync::Interval);
        let mut scene = Scene::restored(Limits::default(), fsync, &entries, machine);
        let told = scene.follow(start).1;
        (told.contains("RESTART"), changes(&told), told)
    };
    for (start, rest) in [
        ("00000000000000aa-0", &[1, 2, 3][..]),
        ("00000000000000aa-1", &[2, 3]),
        ("00000000000000bb-2", &[3]),
        ("00000000000000bb-3", &[]),
    ] {
        let (restarts, changes, told) = follow(start, 1);
        assert!(!restarts && changes == rest, "{start}: {told}");
        assert!(
            told.starts_with(&format!("FOLLOWING {} ", 3 - rest.len())),
            "{told}"
        );
    }
    // The first two positions are after the last change of life aa and of life bb. In the last row,
    // the machine was restarted, so it may have lost power, and with it the last changes of life
    // bb.
    for (start, machine, reason) in [
        ("00000000000000aa-2", 1, "fewer changes"),
        ("00000000000000bb-4", 1, "fewer changes"),
        ("00000000000000bb-3", 2, "does not know"),
    ] {
        let (restarts, changes, told) = follow(start, machine);
        assert!(
            restarts && changes == [1, 2, 3] && told.contains(reason),
            "{start}: {told}"
        );
    }
}

#[test]
fn a_change_is_told_when_its_answer_would_be_and_not_before() {
    let mut scene = Scene::new(Limits::default(), Some(Fsync::Always));
    let (follower, _) = scene.follow("all");
    scene.syncs_wait = true;
    scene.say("IAMAT a +1+2 3");
    assert_eq!(scene.news(follower), "");
    let (late, told) = scene.follow("now");
    assert!(
        told.starts_with("FOLLOWING 0 behind=1 ") && changes(&told).is_empty(),
        "{told}"
    );
    scene.disk_goes_on();
    for id in [follower, late] {
        assert_eq!(changes(&scene.news(id)), [1]);
    }
}

#[test]
fn a_change_waits_until_the_journal_has_what_replaced_the_changes_before_it() {
    let mut scene = Scene::new(Limits::default(), Some(Fsync::Interval));
    for (name, time) in [("a", 3), ("c", 3)] {
        scene.say(&format!("IAMAT {name} +1+2 {time}"));
    }
    // Change 3 replaces the record of change 1, and is not in the journal yet. So change 2 is not
    // sent yet: after a crash, the server would have the record of change 1 again, and a follower
    // that got only change 2 would lack it.
    scene.appends_wait = true;
    scene.say("IAMAT a +1+2 4");
    let (follower, told) = scene.follow("all");
    assert!(changes(&told).is_empty(), "{told}");
    assert!(!told.contains("SYNC"), "{told}");
    scene.ms += 3_000;
    assert_eq!(scene.news(follower), "SYNC 0\n", "heartbeats do not wait");
    scene.disk_goes_on();
    let told = scene.news(follower);
    assert_eq!(changes(&told), [2, 3]);
    assert!(told.ends_with("SYNC 3\n"), "{told}");
}

#[test]
fn a_follower_that_is_far_behind_is_served_in_steps() {
    let mut scene = Scene::new(Limits::default(), None);
    let count = 20_000;
    for number in 0..count {
        scene.say(&format!("IAMAT client{number} +1+2 1699999999"));
    }
    // Followers begin before the first change, after the first change, and before the last change.
    for from in [0, 1, count - 1] {
        let start = format!("{}{from}", scene.life());
        let (follower, told) = scene.follow(&start);
        assert!(changes(&told).into_iter().eq(from + 1..=count));
        assert_eq!(told.matches("SYNC").count(), 1);
        scene.node.handle_eof_received(follower, at(scene.ms));
        scene
            .node
            .handle_connection_lost(follower, None, at(scene.ms));
    }
    // The size of one output is bounded, and so is the memory that the connection uses.
    let (id, _) = scene.operator("");
    scene.node.handle_connection_lost(id, None, at(scene.ms));
    let (id, _) = scene.follow("now");
    for number in 0..count {
        scene.say(&format!("IAMAT client{number} +1+2 1700000000"));
    }
    let piece = scene.node.poll_output(id).len();
    assert!((16_384..17_000).contains(&piece), "{piece} bytes");
    let held = scene.node.sessions.get(id).unwrap().held_bytes();
    assert!(held < 40_000, "it holds {held} bytes");
    assert_eq!(clients(&scene.news(id)).len() as u64, count);
}

#[test]
fn expired_records_are_passed_over_in_steps_and_not_told() {
    let limits = Limits {
        record_ttl_ms: 60_000,
        ..Limits::default()
    };
    let mut scene = Scene::new(limits, None);
    for number in 0..10_000 {
        scene.say(&format!("IAMAT client{number} +1+2 1700000000"));
    }
    scene.ms = 59_990;
    scene.say("IAMAT young +1+2 1700000059");
    // The sweep has not removed any expired record yet.
    let now = crate::core::wire::posix_time::PosixTime::from_nanos(1_700_000_030_000_000_000);
    scene.node.records.expire_before(now);
    assert_eq!(scene.node.records.len(), 10_001);
    let (_, told) = scene.follow("all");
    assert_eq!(clients(&told), ["young"]);
    assert!(told.ends_with("SYNC 10001\n"), "{told}");
}

#[test]
fn a_follower_that_reads_nothing_or_says_nothing_is_closed() {
    let mut scene = Scene::new(Limits::default(), None);
    let (deaf, _) = scene.follow("now");
    let (mute, _) = scene.follow("now");
    scene.say("IAMAT a +1+2 3");
    let (silence_ms, stall_ms) = (10_000, 60_000);
    let mut ended = Vec::new();
    while scene.ms < stall_ms + 1_000 {
        scene.ms += 500;
        scene
            .node
            .handle_data_received(deaf, b"ALIVE\n", at(scene.ms));
        scene.end_turn();
        scene.node.poll_output(deaf);
        for id in [deaf, mute] {
            if ended.iter().any(|(ended, _)| *ended == id) {
                continue;
            }
            let end = match id == mute {
                true => scene.take(id).1,
                false => scene.node.poll_disposition(id, at(scene.ms)),
            };
            if end == Disposition::Close {
                scene.node.handle_connection_lost(id, None, at(scene.ms));
                ended.push((id, scene.ms));
            }
        }
    }
    let [(first, first_ms), (second, second_ms)] = ended[..] else {
        panic!("{} ended", ended.len());
    };
    assert_eq!((first, first_ms), (mute, silence_ms));
    assert_eq!(second, deaf);
    assert!(
        (stall_ms..=stall_ms + 500).contains(&second_ms),
        "{second_ms}"
    );
    assert!(scene.node.herd.followers().is_empty());
    assert_eq!(scene.node.records.readers(), 0);
}

#[test]
fn heartbeats_go_both_ways_and_keep_a_follower() {
    let mut scene = Scene::new(Limits::default(), None);
    let (follower, _) = scene.follow("now");
    let mut beats = 0;
    for _ in 0..60 {
        scene.ms += 1_000;
        scene
            .node
            .handle_data_received(follower, b"ALIVE\n", at(scene.ms));
        let (told, end) = scene.take(follower);
        beats += scene.short(&told).matches("SYNC 0\n").count();
        assert_eq!(end, Disposition::Open);
    }
    assert_eq!(beats, 20);
    scene
        .node
        .handle_data_received(follower, b"FORGET a\n", at(scene.ms));
    let (told, end) = scene.take(follower);
    assert_eq!(told, "BYE not the neighbours' protocol: FORGET a\n");
    assert_eq!(end, Disposition::Finish);
}

#[test]
fn a_stop_ends_a_follower_that_has_been_told_everything() {
    let mut scene = Scene::new(Limits::default(), None);
    let (follower, _) = scene.follow("now");
    scene.say("IAMAT a +1+2 3");
    scene.node.handle_stop(at(scene.ms));
    let told = scene.news(follower);
    assert!(
        told.starts_with("CHANGE 1 AT ") && told.ends_with("\nBYE stopping\n"),
        "{told}"
    );
}
