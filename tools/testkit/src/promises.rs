//! A book of the records that servers have promised to keep. After each restart it checks that they
//! are there.
//!
//! A test reports to the book: answers to clients, records from neighbours, the end of each
//! process, times when the disk was full, times when a process or its disk was stopped, and older
//! copies of a data directory that were put back. At each restart the book names the first record
//! that must be there and is missing. The rules are those of the table in README.md. These records
//! must survive:
//!
//! | | the process ends | the machine loses power |
//! |---|---|---|
//! | [`Policy::Always`] | all answered ones | all answered ones |
//! | [`Policy::Interval`] | all answered ones | all but those answered in the last interval |
//! | [`Policy::Never`] | all answered ones | those with which this life began |
//! | [`Policy::NoJournal`] | none | none |
//!
//! A life is the time from a start of the server to its end. The records with which a life begins
//! are synced before the server accepts connections, so they survive every later end.
//!
//! A server tells a neighbour its position in the neighbour's feed, the ordered list of the
//! neighbour's changes. With that it claims to have every record up to there: see
//! [`Promises::claims`]. The claim holds in each life, also if a new life repeats the position of
//! an old one.
//!
//! The book shares no code with the server: [`crate::at_line`] reads the lines.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use crate::at_line::Line;

/// The time of an event since the beginning of the test.
pub type When = Duration;

/// When a server syncs its journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// The server has no journal.
    NoJournal,
    /// It syncs before each answer.
    Always,
    /// It syncs each answered record within this time.
    Interval(Duration),
    /// It does not sync.
    Never,
}

/// How a life ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The server stopped in order.
    Stopped,
    /// The process was killed, or gave up. The machine keeps running.
    Killed,
    /// The machine lost power, or was restarted.
    PowerLost,
}

/// An answer to a client.
#[derive(Clone, Debug)]
struct Answer {
    when: When,
    line: Line,
    /// The record was in the table when a life began.
    is_settled: bool,
}

/// A record that came from a neighbour.
#[derive(Clone, Debug)]
struct Lesson {
    position: u64,
    client: Vec<u8>,
    line: Line,
}

/// A feed: the neighbour, and the life of the neighbour.
type Feed = (usize, u64);

/// The book's page about one server.
#[derive(Clone, Debug)]
struct Server {
    policy: Policy,
    answers: BTreeMap<Vec<u8>, Vec<Answer>>,
    lessons: BTreeMap<Feed, Vec<Lesson>>,
    /// Times in which the process or its disk was stopped.
    pauses: Vec<(When, When)>,
    /// Times in which its disk was full.
    full: Vec<(When, When)>,
    /// The end of its last life, until it is started again.
    ended: Option<Ended>,
}

/// The end of a life.
#[derive(Clone, Copy, Debug)]
struct Ended {
    end: End,
    when: When,
    /// Records that were answered before this time are safe.
    safe_before: When,
    /// Records with which that life began are safe.
    keeps_settled: bool,
    /// A copy of the data directory was put back.
    is_copy: bool,
}

/// A record that must be there and is missing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing {
    /// The server that lacks the record.
    pub server: usize,
    /// The client of the record.
    pub client: Vec<u8>,
    /// The promised `AT` line. A later one of the same client would do.
    pub promised: Vec<u8>,
    /// The line that is there instead.
    pub found: Option<Vec<u8>>,
    /// The reason why the record must be there.
    pub why: String,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let found = self.found.as_deref().unwrap_or(b"nothing");
        write!(
            f,
            "server {} lacks {}, {}; it has {}",
            self.server,
            Short(&self.promised),
            self.why,
            Short(found)
        )
    }
}

/// Bytes as readable text: escaped, without the middle of long ones.
struct Short<'a>(&'a [u8]);

impl fmt::Display for Short<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = self.0;
        if bytes.len() <= 200 {
            return write!(f, "\"{}\"", bytes.escape_ascii());
        }
        let (head, tail) = (&bytes[..90], &bytes[bytes.len() - 90..]);
        let (head, tail) = (head.escape_ascii(), tail.escape_ascii());
        write!(f, "\"{head}…{tail}\" ({} bytes)", bytes.len())
    }
}

/// Looks up the record of a client in a server's table.
pub type Table<'a> = dyn FnMut(&[u8]) -> Option<Line> + 'a;

/// The book of promises.
#[derive(Clone, Debug, Default)]
pub struct Promises {
    servers: BTreeMap<usize, Server>,
    answered: u64,
    checked: u64,
}

impl Promises {
    /// An empty book.
    #[must_use]
    pub fn new() -> Promises {
        Promises::default()
    }

    /// A server with this policy begins its first life.
    pub fn serves(&mut self, server: usize, policy: Policy) {
        let entry = Server {
            policy,
            answers: BTreeMap::new(),
            lessons: BTreeMap::new(),
            pauses: Vec::new(),
            full: Vec::new(),
            ended: None,
        };
        self.servers.insert(server, entry);
    }

    fn server(&mut self, server: usize) -> Option<&mut Server> {
        self.servers.get_mut(&server)
    }

    /// A client was answered with this line.
    pub fn answered(&mut self, server: usize, line: &Line, when: When) {
        self.kept(server, line, when);
        self.answered += 1;
    }

    /// The server told a neighbour that it keeps this record. That promises as much as an answer to
    /// a client.
    pub fn kept(&mut self, server: usize, line: &Line, when: When) {
        let Some(server) = self.server(server) else {
            return;
        };
        let answers = server.answers.entry(line.client().to_vec()).or_default();
        // An answer with an older or the same record promises nothing more.
        if answers.iter().all(|before| before.line < *line) {
            answers.push(Answer {
                when,
                line: line.clone(),
                is_settled: false,
            });
        }
    }

    /// Records for which `has_expired` holds are promised no more.
    pub fn expire(&mut self, has_expired: impl Fn(&Line) -> bool) {
        for server in self.servers.values_mut() {
            for answers in server.answers.values_mut() {
                answers.retain(|answer| !has_expired(&answer.line));
            }
            server.answers.retain(|_, answers| !answers.is_empty());
            for lessons in server.lessons.values_mut() {
                lessons.retain(|lesson| !has_expired(&lesson.line));
            }
        }
    }

    /// The number of reported answers.
    #[must_use]
    pub fn answers(&self) -> u64 {
        self.answered
    }

    /// The number of records that were checked and found.
    #[must_use]
    pub fn found(&self) -> u64 {
        self.checked
    }

    /// A neighbour sent this record to a server. It is change `position` of the neighbour's feed in
    /// the life `boot`.
    pub fn taught(
        &mut self,
        server: usize,
        neighbour: usize,
        boot: u64,
        position: u64,
        line: &Line,
    ) {
        if let Some(server) = self.server(server) {
            let lessons = server.lessons.entry((neighbour, boot)).or_default();
            // A feed holds only the last record of each client.
            lessons.retain(|lesson| lesson.client != line.client());
            lessons.push(Lesson {
                position,
                client: line.client().to_vec(),
                line: line.clone(),
            });
        }
    }

    /// The neighbour has a later record of this client now, which the server has not received yet.
    /// It is at the end of the feed. A server that asks for the rest of the feed gets it, so the
    /// earlier record need not be there.
    pub fn moved(&mut self, server: usize, neighbour: usize, boot: u64, client: &[u8]) {
        if let Some(server) = self.server(server) {
            let lessons = server.lessons.entry((neighbour, boot)).or_default();
            lessons.retain(|lesson| lesson.client != client);
        }
    }

    /// A server claims to have every record of a neighbour's feed up to `position`. It tells that
    /// to the neighbour, or writes it into its journal.
    ///
    /// # Errors
    /// The server received such a record, and does not have it.
    pub fn claims(
        &mut self,
        server: usize,
        neighbour: usize,
        boot: u64,
        position: u64,
        table: &mut Table<'_>,
    ) -> Result<(), Missing> {
        let lessons = self
            .servers
            .get(&server)
            .and_then(|server| server.lessons.get(&(neighbour, boot)));
        for lesson in lessons.into_iter().flatten() {
            if lesson.position > position {
                continue;
            }
            let why = || {
                format!(
                    "and says that it has all of server {neighbour}'s life {boot:016x} up to change {position}"
                )
            };
            look_for(server, &lesson.client, &lesson.line, table, why)?;
            self.checked += 1;
        }
        Ok(())
    }

    /// From `from` to `to`, the process or its disk was stopped.
    pub fn stood_still(&mut self, server: usize, from: When, to: When) {
        if let Some(server) = self.server(server) {
            server.pauses.push((from, to));
        }
    }

    /// The disk of a server is full from now on, or has room again.
    pub fn full(&mut self, server: usize, is_full: bool, when: When) {
        let Some(server) = self.server(server) else {
            return;
        };
        let open = server.full.last_mut().filter(|(_, to)| *to == When::MAX);
        match (open, is_full) {
            (None, true) => server.full.push((when, When::MAX)),
            (Some((_, to)), false) => *to = when,
            (None, false) | (Some(_), true) => {}
        }
    }

    /// Whether the disk of a server was full at some time in this period.
    #[must_use]
    pub fn was_full(&self, server: usize, from: When, to: When) -> bool {
        let full = self.servers.get(&server).map(|server| &server.full);
        let full = full.into_iter().flatten();
        full.clone()
            .any(|(since, until)| *since <= to && from <= *until)
    }

    /// A life of a server ends.
    pub fn ends(&mut self, server: usize, end: End, when: When) {
        if let Some(server) = self.server(server) {
            server.ended = Some(server.ended(end, when));
        }
    }

    /// A copy of the data directory from the time `copied` is put back while the process does not
    /// run.
    pub fn copy_put_back(&mut self, server: usize, copied: When) {
        if let Some(ended) = self.server(server).and_then(|it| it.ended.as_mut()) {
            // A copy from that life holds the file's content at that time, and later losses do not
            // change it. A copy from after the end holds what the end has left.
            if copied <= ended.when {
                ended.safe_before = copied;
                ended.keeps_settled = false;
            }
            ended.is_copy = true;
        }
    }

    /// The next life begins with this table.
    ///
    /// # Errors
    /// The first record that must be there and is missing.
    pub fn restarted(&mut self, server: usize, table: &mut Table<'_>) -> Result<(), Missing> {
        self.look_at(server, table, true)
    }

    /// Like [`Promises::restarted`], but the book does not change. The process does not run.
    ///
    /// # Errors
    /// The first record that must be there and is missing.
    pub fn would_restart(&mut self, server: usize, table: &mut Table<'_>) -> Result<(), Missing> {
        self.look_at(server, table, false)
    }

    fn look_at(
        &mut self,
        number: usize,
        table: &mut Table<'_>,
        begins: bool,
    ) -> Result<(), Missing> {
        let Some(server) = self.servers.get_mut(&number) else {
            return Ok(());
        };
        let Some(ended) = server.ended else {
            return Ok(());
        };
        for (client, answers) in &server.answers {
            let must_be_there = answers.iter().rfind(|answer| answer.is_safe(&ended));
            let Some(answer) = must_be_there else {
                continue;
            };
            let why = || {
                format!(
                    "answered at {:.6} s; its life ended at {:.6} s ({:?}, {:?}{})",
                    answer.when.as_secs_f64(),
                    ended.when.as_secs_f64(),
                    ended.end,
                    server.policy,
                    if ended.is_copy {
                        ", a copy was put back"
                    } else {
                        ""
                    },
                )
            };
            look_for(number, client, &answer.line, table, why)?;
            self.checked += 1;
        }
        if begins {
            server.ended = None;
            // Records that were allowed to be lost are no longer promised. Records in the table are
            // synced now.
            for (client, answers) in &mut server.answers {
                let held = table(client);
                answers.retain_mut(|answer| {
                    answer.is_settled = true;
                    held.as_ref() >= Some(&answer.line)
                });
            }
            server.answers.retain(|_, answers| !answers.is_empty());
        }
        Ok(())
    }

    /// The clients whose answers the book has.
    #[must_use]
    pub fn clients(&self, server: usize) -> BTreeSet<&[u8]> {
        let answers = self.servers.get(&server).map(|server| &server.answers);
        answers
            .into_iter()
            .flat_map(|answers| answers.keys().map(Vec::as_slice))
            .collect()
    }

    /// The records that must be there after such an end: each client's latest promised `AT` line.
    #[must_use]
    pub fn must_be_there(&self, server: usize, end: End, when: When) -> Vec<&Line> {
        let Some(server) = self.servers.get(&server) else {
            return Vec::new();
        };
        let ended = server.ended(end, when);
        let latest = |answers: &'_ Vec<Answer>| answers.iter().rposition(|it| it.is_safe(&ended));
        server
            .answers
            .values()
            .filter_map(|answers| Some(&answers[latest(answers)?].line))
            .collect()
    }
}

impl Server {
    fn ended(&self, end: End, when: When) -> Ended {
        Ended {
            end,
            when,
            safe_before: self.safe_before(end, when),
            keeps_settled: self.policy != Policy::NoJournal,
            is_copy: false,
        }
    }

    /// Records that were answered before this time survive such an end.
    fn safe_before(&self, end: End, when: When) -> When {
        match (self.policy, end) {
            (Policy::NoJournal, _) | (Policy::Never, End::PowerLost) => When::ZERO,
            (Policy::Always | Policy::Interval(_) | Policy::Never, End::Stopped | End::Killed)
            | (Policy::Always, End::PowerLost) => When::MAX,
            (Policy::Interval(within), End::PowerLost) => {
                self.worked_until(when, within).saturating_sub(within)
            }
        }
    }

    /// The end of the last period of at least `within` without a pause. It is at most `when`.
    fn worked_until(&self, when: When, within: Duration) -> When {
        let mut until = when;
        let mut pauses = self.pauses.clone();
        pauses.sort_unstable();
        for &(from, to) in pauses.iter().rev() {
            if from < until && to.saturating_add(within) > until {
                until = from;
            }
        }
        until
    }
}

impl Answer {
    fn is_safe(&self, ended: &Ended) -> bool {
        self.is_settled && ended.keeps_settled || self.when < ended.safe_before
    }
}

/// Checks that the table has this line of a client, or a later one.
fn look_for(
    server: usize,
    client: &[u8],
    promised: &Line,
    table: &mut Table<'_>,
    why: impl FnOnce() -> String,
) -> Result<(), Missing> {
    let found = table(client);
    if found.as_ref() >= Some(promised) {
        return Ok(());
    }
    Err(Missing {
        server,
        client: client.to_vec(),
        promised: promised.bytes().to_vec(),
        found: found.map(|line| line.bytes().to_vec()),
        why: why(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn line(client: &str, stamp: u32) -> Line {
        let text = format!("AT Riley +0.000000000 {client} +1+2 {stamp}");
        Line::new(text.as_bytes(), 0).expect("an AT line")
    }

    /// A table with these lines.
    fn table(lines: &[Line]) -> impl FnMut(&[u8]) -> Option<Line> {
        let lines = lines.to_vec();
        move |client| lines.iter().find(|line| line.client() == client).cloned()
    }

    /// A book with one server, which answered at 1 s and at 4 s.
    fn book(policy: Policy) -> Promises {
        let mut book = Promises::new();
        book.serves(0, policy);
        book.answered(0, &line("old", 1), SECOND);
        book.answered(0, &line("new", 1), 4 * SECOND);
        book
    }

    /// For each of the two answers: whether it may be lost if the life ends so at 4.5 s.
    fn lost(policy: Policy, end: End) -> [bool; 2] {
        ["old", "new"].map(|left_out| {
            let mut book = book(policy);
            book.ends(0, end, Duration::from_millis(4_500));
            let there: Vec<Line> = ["old", "new"]
                .iter()
                .filter(|client| **client != left_out)
                .map(|client| line(client, 1))
                .collect();
            book.restarted(0, &mut table(&there)).is_ok()
        })
    }

    #[test]
    fn lost_answers_match_the_readme_s_table() {
        let interval = Policy::Interval(SECOND);
        for end in [End::Stopped, End::Killed] {
            for policy in [Policy::Always, interval, Policy::Never] {
                assert_eq!(lost(policy, end), [false, false], "{policy:?} {end:?}");
            }
            assert_eq!(lost(Policy::NoJournal, end), [true, true]);
        }
        assert_eq!(lost(Policy::Always, End::PowerLost), [false, false]);
        assert_eq!(lost(interval, End::PowerLost), [false, true]);
        assert_eq!(lost(Policy::Never, End::PowerLost), [true, true]);
    }

    #[test]
    fn missing_items_are_named() {
        let mut book = book(Policy::Always);
        book.ends(0, End::Killed, 5 * SECOND);
        let missing = book
            .restarted(0, &mut table(&[line("old", 1)]))
            .unwrap_err();
        assert_eq!(missing.client, b"new");
        assert_eq!(missing.found, None);
        let words = missing.to_string();
        assert!(words.contains("new +1+2 1"), "{words}");
        assert!(words.contains("4.000000 s"), "{words}");
    }

    #[test]
    fn a_later_line_keeps_the_promise_and_an_earlier_breaks_it() {
        for (stamp, is_enough) in [(1, false), (2, true), (3, true)] {
            let mut book = Promises::new();
            book.serves(0, Policy::Always);
            book.answered(0, &line("x", 2), SECOND);
            book.ends(0, End::Killed, SECOND);
            let outcome = book.restarted(0, &mut table(&[line("x", stamp)]));
            assert_eq!(outcome.is_ok(), is_enough, "{stamp}");
        }
    }

    #[test]
    fn an_older_answer_adds_no_promise() {
        let mut book = Promises::new();
        book.serves(0, Policy::Interval(SECOND));
        book.answered(0, &line("x", 1), SECOND);
        book.answered(0, &line("x", 9), 4 * SECOND);
        // This answer changed nothing, because its record is older.
        book.answered(0, &line("x", 5), 4 * SECOND);
        let now = Duration::from_millis(4_500);
        assert_eq!(book.must_be_there(0, End::PowerLost, now), [&line("x", 1)]);
        assert_eq!(book.must_be_there(0, End::Killed, now), [&line("x", 9)]);
    }

    #[test]
    fn records_restored_at_a_start_survive_every_later_end() {
        let mut book = book(Policy::Never);
        book.ends(0, End::Killed, 5 * SECOND);
        let both = [line("old", 1), line("new", 1)];
        book.restarted(0, &mut table(&both)).unwrap();
        book.ends(0, End::PowerLost, 6 * SECOND);
        assert!(book.would_restart(0, &mut table(&both[..1])).is_err());
        book.restarted(0, &mut table(&both)).unwrap();
    }

    #[test]
    fn records_lost_legitimately_are_no_longer_promised() {
        let mut book = book(Policy::Never);
        book.ends(0, End::PowerLost, 5 * SECOND);
        book.restarted(0, &mut table(&[line("old", 1)])).unwrap();
        book.ends(0, End::Killed, 6 * SECOND);
        book.restarted(0, &mut table(&[line("old", 1)])).unwrap();
        assert_eq!(book.clients(0).len(), 1);
    }

    #[test]
    fn time_of_a_frozen_machine_does_not_count_for_syncs() {
        let mut still = book(Policy::Interval(SECOND));
        still.stood_still(0, Duration::from_millis(1_500), Duration::from_secs(4));
        // Only half a second has passed since the pause. So answers in the last second before the
        // pause may be lost.
        assert!(
            still
                .must_be_there(0, End::PowerLost, Duration::from_millis(4_500))
                .is_empty()
        );
        assert_eq!(
            still.must_be_there(0, End::PowerLost, 6 * SECOND).len(),
            2,
            "it had a second and more since"
        );
    }

    #[test]
    fn a_copy_must_have_the_records_of_its_time() {
        for policy in [Policy::Always, Policy::Never] {
            let mut book = book(policy);
            book.ends(0, End::Killed, 5 * SECOND);
            book.restarted(0, &mut table(&[line("old", 1), line("new", 1)]))
                .unwrap();
            book.ends(0, End::PowerLost, 6 * SECOND);
            book.copy_put_back(0, 2 * SECOND);
            assert!(book.would_restart(0, &mut table(&[])).is_err());
            book.restarted(0, &mut table(&[line("old", 1)])).unwrap();
        }
    }

    #[test]
    fn a_copy_after_a_power_loss_has_only_surviving_records() {
        let mut book = book(Policy::Interval(SECOND));
        book.ends(0, End::PowerLost, Duration::from_millis(4_500));
        book.copy_put_back(0, 5 * SECOND);
        assert!(book.would_restart(0, &mut table(&[])).is_err());
        book.restarted(0, &mut table(&[line("old", 1)])).unwrap();
    }

    #[test]
    fn a_claimed_feed_position_needs_all_its_records() {
        let mut book = Promises::new();
        book.serves(0, Policy::Always);
        book.taught(0, 7, 1, 10, &line("x", 1));
        book.taught(0, 7, 1, 11, &line("y", 1));
        book.taught(0, 7, 1, 12, &line("x", 2));
        let holds = [line("y", 1)];
        book.claims(0, 7, 1, 11, &mut table(&holds)).unwrap();
        let missing = book.claims(0, 7, 1, 12, &mut table(&holds)).unwrap_err();
        assert_eq!(missing.client, b"x");
        book.claims(0, 7, 2, 99, &mut table(&holds)).unwrap();
        book.claims(0, 7, 1, 12, &mut table(&[line("x", 3), line("y", 1)]))
            .unwrap();
    }

    #[test]
    fn full_disk_periods_are_recorded() {
        let mut book = book(Policy::Always);
        book.full(0, true, 2 * SECOND);
        assert!(book.was_full(0, 5 * SECOND, 6 * SECOND));
        book.full(0, false, 3 * SECOND);
        assert!(book.was_full(0, SECOND, 2 * SECOND));
        assert!(!book.was_full(0, 4 * SECOND, 5 * SECOND));
    }
}
