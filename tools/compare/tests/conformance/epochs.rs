//! Servers with wrong clocks. A record with a stamp far in the future must not freeze its client's
//! position. A record's epoch, which a server increases in such a case, decides before all times.

use herd_compare::workshop::Program;
use herd_testkit::client::Client;

use crate::neighbours::{batch, hear, jaquez, linked, proven, wall_clock};
use crate::scene::Scene;

const YEAR_S: i64 = 31_536_000;
const LAST_EPOCH: u32 = u32::MAX;

/// All tests of epochs, with one server.
pub(crate) fn transcript(program: &Program) {
    let mut test = Test::new(jaquez(program));
    epochs_are_passed_on(&mut test);
    an_update_inherits_the_epoch(&mut test);
    a_later_stamp_begins_an_epoch(&mut test);
    a_year_ahead(&mut test);
    the_last_epoch(&mut test);
    the_counts(&mut test);
}

/// A server with two neighbours. Riley sends it records, and Bernard receives them.
struct Test {
    scene: Scene,
    riley: Client,
    bernard: Client,
    client: Client,
    /// The number of IAMATs that changed nothing.
    stale: u64,
    /// The numbers of IAMATs with stamps more than 60 s ahead of the clock, and behind it.
    ahead: u64,
    behind: u64,
}

/// The time in so many seconds.
fn from_now(seconds: i64) -> i64 {
    i64::try_from(wall_clock() / 1_000_000_000).unwrap() + seconds
}

impl Test {
    fn new(scene: Scene) -> Test {
        let mut riley = linked("Riley", scene.neighbour(), "00000000000000e1", "- 0");
        let mut bernard = linked("Bernard", scene.neighbour(), "00000000000000e2", "- 0");
        batch(&mut riley);
        batch(&mut bernard);
        Test {
            client: scene.client(),
            scene,
            riley,
            bernard,
            stale: 0,
            ahead: 0,
            behind: 0,
        }
    }

    /// Riley sends a record that wins. Bernard gets the same line.
    fn taught(&mut self, told: &str) {
        self.riley.send(format!("{told}\nSYNC 1\n"));
        hear(&mut self.bernard, &[told]);
    }

    /// Riley sends a record whose server and client both have clocks so far ahead.
    fn taught_by_a_clock_ahead(&mut self, epoch: &str, id: &str, seconds: i64) {
        let stamp = from_now(seconds);
        self.taught(&format!("{epoch}AT Riley +0.000000000 {id} +1+2 {stamp}"));
    }

    fn iamat(&mut self, id: &str, place: &str, stamp: i64) -> String {
        self.ahead += u64::from(stamp > from_now(62));
        self.behind += u64::from(stamp < from_now(-62));
        self.client.ask(&format!("IAMAT {id} {place} {stamp}"))
    }

    /// Sends an IAMAT that wins, in this epoch. Both neighbours get it.
    fn counts(&mut self, id: &str, stamp: i64, epoch: u32) -> String {
        let line = self.iamat(id, "+3+4", stamp);
        let told = match epoch {
            0 => line.clone(),
            _ => format!("EPOCH {epoch} {line}"),
        };
        hear(&mut self.bernard, &[&told]);
        hear(&mut self.riley, &[&told]);
        assert_eq!(self.client.record(id), line);
        line
    }

    /// Sends an IAMAT that is answered and changes nothing. The neighbours get only the next
    /// record, which is another one.
    fn is_stale(&mut self, id: &str, stamp: i64) {
        let before = self.client.record(id);
        let line = self.iamat(id, "+5+6", stamp);
        assert!(line.starts_with("AT Jaquez "), "{line}");
        assert_eq!(self.client.record(id), before);
        self.stale += 1;
        self.counts(
            "something-else",
            from_now(0) + i64::try_from(self.stale).unwrap(),
            0,
        );
    }
}

/// The epoch decides before the times do. It is passed on unchanged, to later links too.
fn epochs_are_passed_on(test: &mut Test) {
    test.taught("AT Riley +0.000000000 passed +1+2 9");
    test.taught("EPOCH 9 AT Riley +0.000000000 passed +1+2 5");
    test.taught("EPOCH 10 AT Riley +0.000000000 passed +1+2 3");
    test.taught("EPOCH 10 AT Riley +0.000000000 passed +1+2 4");
    for older in [
        "AT Riley +0.000000000 passed +1+2 9",
        "EPOCH 9 AT Riley +0.000000000 passed +1+2 8",
        "EPOCH 10 AT Riley +0.000000000 passed +1+2 3",
        "EPOCH 10 AT Riley +0.000000000 passed +1+2 4",
    ] {
        test.riley.send(format!("{older}\n"));
    }
    test.taught("AT Riley +0.000000000 no-news-before +1+2 1");
    assert_eq!(
        test.client.record("passed"),
        "AT Riley +0.000000000 passed +1+2 4"
    );
    // The longest possible line.
    let id = "y".repeat(4096 - "IAMAT  +1+2 3".len());
    test.taught(&format!(
        "EPOCH {LAST_EPOCH} AT Riley +0.000000000 {id} +1+2 3"
    ));
    test.bernard = linked("Bernard", test.scene.neighbour(), "00000000000000e3", "- 0");
    let (lines, _) = batch(&mut test.bernard);
    assert!(
        lines.contains("EPOCH 10 AT Riley +0.000000000 passed +1+2 4"),
        "{lines:?}"
    );
}

fn an_update_inherits_the_epoch(test: &mut Test) {
    test.counts("passed", 100, 10);
    test.is_stale("passed", 99);
    test.counts("passed", 101, 10);
    test.taught("EPOCH 11 AT Riley +0.000000000 passed +1+2 7");
    test.counts("passed", 102, 11);
}

/// The neighbour's clock is about 100 s ahead, which is tolerated. Its client, whose clock is ahead
/// too, then comes to this server.
fn a_later_stamp_begins_an_epoch(test: &mut Test) {
    test.taught_by_a_clock_ahead("", "roaming", 90);
    // The new stamp is later than the old one, but this server's clock makes the record the older
    // one. So a new epoch begins.
    test.counts("roaming", from_now(95), 1);
    // The new stamp is right and earlier. This server cannot tell which of the two clocks is wrong,
    // so the record stays.
    test.taught_by_a_clock_ahead("", "tolerated", 100);
    test.is_stale("tolerated", from_now(0));
    test.is_stale("tolerated", from_now(50));
}

/// The neighbour's clock is far ahead, or was far ahead before.
fn a_year_ahead(test: &mut Test) {
    test.taught_by_a_clock_ahead("", "frozen", YEAR_S);
    let line = test.counts("frozen", from_now(0), 1);
    // Within an epoch the times decide.
    test.is_stale("frozen", from_now(-10));
    // The neighbour's record of the epoch before does not win any more.
    let told = format!("AT Riley +0.000000000 frozen +1+2 {}", from_now(YEAR_S));
    test.riley.send(format!("{told}\n"));
    test.taught("AT Riley +0.000000000 no-news-before +1+2 2");
    assert_eq!(test.client.record("frozen"), line);
    test.counts("frozen", from_now(2), 1);
    test.taught_by_a_clock_ahead("EPOCH 1 ", "frozen", 200);
    test.counts("frozen", 7, 2);
    test.taught_by_a_clock_ahead("EPOCH 4294967294 ", "frozen", 140);
    test.counts("frozen", from_now(0), LAST_EPOCH);
}

fn the_last_epoch(test: &mut Test) {
    let last = format!("EPOCH {LAST_EPOCH} ");
    test.taught_by_a_clock_ahead(&last, "last", YEAR_S);
    test.is_stale("last", from_now(0));
    test.taught(&format!("{last}AT Riley +0.000000000 not-frozen +1+2 5"));
    test.counts("not-frozen", 6, LAST_EPOCH);
}

/// The status for an operator has the server's counters as `key=value`, and the state of each link.
fn the_counts(test: &mut Test) {
    let (_, status) = proven("operator", test.scene.neighbour());
    let words = status.strip_prefix("STATUS ").unwrap().split(' ');
    let words: Vec<(&str, &str)> = words.map(|word| word.split_once('=').unwrap()).collect();
    let value = |wanted: &str| {
        let word = words.iter().find(|(key, _)| *key == wanted);
        word.unwrap_or_else(|| panic!("no {wanted} in {status}")).1
    };
    assert_eq!(value("boot").len(), 16, "{status}");
    assert_eq!(value("digest").len(), 16, "{status}");
    assert_eq!(value("clients"), "1", "{status}");
    assert_eq!(value("stale"), test.stale.to_string(), "{status}");
    assert_eq!(value("refused"), "0", "{status}");
    assert_eq!(value("ahead"), test.ahead.to_string(), "{status}");
    assert_eq!(value("behind"), test.behind.to_string(), "{status}");
    assert!(test.ahead > 0 && test.behind > 0);
    let apart = value("wall")
        .parse::<u128>()
        .unwrap()
        .abs_diff(wall_clock());
    assert!(apart < 1_000_000_000, "{status}");
    let links: Vec<&str> = words
        .iter()
        .filter(|(key, _)| *key == "link")
        .map(|word| word.1)
        .collect();
    assert_eq!(links.len(), 2, "{status}");
    for link in links {
        // No neighbour has confirmed a change or reported a refused record.
        let parts: Vec<&str> = link.splitn(4, ':').collect();
        let [unconfirmed, apart_ms, lacks, name] = parts[..] else {
            panic!("{status}")
        };
        assert!(unconfirmed.parse::<u64>().unwrap() > 20, "{status}");
        assert!(
            apart_ms == "?" || apart_ms.parse::<i64>().unwrap() < 1000,
            "{status}"
        );
        assert_eq!(lacks, "0", "{status}");
        assert!(name == "Riley" || name == "Bernard", "{status}");
    }
}
