//! A server without sockets: a journal, a table, a fake disk, and a neighbour that sends and
//! receives records. [`Promises`] notes what the server has promised.

use std::collections::BTreeMap;
use std::time::Duration;

use herd_mio::core::base::boot_id::BootId;
use herd_mio::core::base::clock::Time;
use herd_mio::core::base::entropy::Entropy;
use herd_mio::core::base::limits::Limits;
use herd_mio::core::journal::durability::{
    CompactionPhase, Durability, Fsync, JournalFailure, JournalSpace, journal_bytes,
};
use herd_mio::core::journal::format::Entry;
use herd_mio::core::table::records::{Merge, Origin, Records};
use herd_mio::core::wire::message::At;
use herd_testkit::at_line::Line;
use herd_testkit::fake_disk::{ENDLESS, FakeDisk, Queue, Snapshot, Strike};
use herd_testkit::promises::{End, Policy, Promises, When};
use herd_testkit::rng::Rng;

/// The server's number in [`Promises`], and its neighbour's.
const OURS: usize = 0;
const THEIRS: usize = 1;
const NEIGHBOUR: &str = "Jaquez";

/// Within this time after the disk works again, it has done all work, and updates are accepted. It
/// is longer than a minute because an abandoned compaction is tried again only after a minute.
const RECOVERY: Duration = Duration::from_secs(130);

/// A result whose error is a sentence for the reader of the test's output.
pub(crate) type Outcome<T = ()> = Result<T, String>;

/// A fault that happens as soon as the compaction is in some phase.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Blow {
    /// The disk becomes full.
    Full,
    /// A disk operation fails.
    Strike(Strike),
    /// The server's process ends.
    End(End),
    /// A queue of the disk stops working.
    Freeze(Queue),
}

/// The neighbour: what it has of our feed, and its own feed.
#[derive(Default)]
struct Neighbour {
    /// The records that we sent to it.
    table: BTreeMap<Vec<u8>, Line>,
    /// What it reports when we start again: the last life (run of our process) whose feed it read,
    /// and its position in that feed.
    known: Option<(BootId, u64)>,
    /// A position in our feed, and the change up to which the journal must be written before the
    /// neighbour may confirm this position.
    unconfirmed: Option<(u64, u64)>,
    /// The position up to which we sent our feed in this life.
    sent: u64,
    /// Its own feed: each client's latest record, by its position.
    feed: BTreeMap<u64, Vec<u8>>,
    /// The position of its latest change, and the position up to which we read its feed.
    last: u64,
    read: u64,
}

/// One run of the process.
struct Life {
    boot: BootId,
    durability: Durability,
    records: Records,
    /// Answers that wait: the number of the change that must be durable first, and the line.
    waiting: Vec<(u64, Vec<u8>)>,
    /// The position up to which we read the neighbour's feed, and whether the journal knows it.
    heard: u64,
    is_noted: bool,
    /// How many bytes of records this turn has accepted.
    accepted: u64,
    /// The last change whose output had been released when the journal failed.
    failed_at: Option<u64>,
}

/// The state of one scenario.
pub(crate) struct Story {
    limits: Limits,
    fsync: Fsync,
    life: Life,
    lives: u64,
    pub(crate) disk: FakeDisk,
    pub(crate) now: Time,
    promises: Promises,
    neighbour: Neighbour,
    aims: Vec<(CompactionPhase, Blow)>,
    /// The faults that have happened, each with its phase.
    pub(crate) met: Vec<(CompactionPhase, Blow)>,
    stamp: u64,
    copy: Option<(When, Snapshot)>,
    pub(crate) accepted: usize,
    pub(crate) refused: usize,
    pub(crate) failures: usize,
}

impl Story {
    /// Starts with an empty journal, for which room is reserved in small pieces. `seed` decides all
    /// random choices.
    pub(crate) fn begin(fsync: Fsync, reserves: bool, seed: u64) -> Outcome<Story> {
        Story::begin_with(fsync, reserves, 16_384, seed)
    }

    /// Like `begin`, but room is reserved in pieces of `ahead_bytes`.
    pub(crate) fn begin_with(
        fsync: Fsync,
        reserves: bool,
        ahead_bytes: u64,
        seed: u64,
    ) -> Outcome<Story> {
        let limits = Limits {
            compact_bytes: 600,
            journal_ahead_bytes: ahead_bytes,
            ..Limits::default()
        };
        let mut disk = FakeDisk::new("Riley", Rng::new(seed, "disk"));
        disk.set_reserves(reserves);
        let mut promises = Promises::new();
        let policy = match fsync {
            Fsync::Always => Policy::Always,
            // For `Policy::Interval`, `Promises` would have to know when the disk stood still, and
            // the scenarios do not tell it. So the tests expect only what `Policy::Never` promises.
            Fsync::Interval | Fsync::Never => Policy::Never,
        };
        promises.serves(OURS, policy);
        let life = Life::begin(&limits, fsync, 1, &mut disk, |_, _| ())?;
        let mut story = Story {
            limits,
            fsync,
            life,
            lives: 1,
            disk,
            now: Time::default(),
            promises,
            neighbour: Neighbour::default(),
            aims: Vec::new(),
            met: Vec::new(),
            stamp: 0,
            copy: None,
            accepted: 0,
            refused: 0,
            failures: 0,
        };
        story.settle_start()?;
        Ok(story)
    }

    pub(crate) fn phase(&self) -> CompactionPhase {
        self.life.durability.phase()
    }

    pub(crate) fn length(&self) -> u64 {
        self.life.durability.length()
    }

    pub(crate) fn bound(&self) -> u64 {
        let table = journal_bytes(&self.life.records);
        self.life.durability.bound(table)
    }

    pub(crate) fn released(&self) -> u64 {
        self.life.durability.sendable_through()
    }

    pub(crate) fn failure(&self) -> Option<&JournalFailure> {
        self.life.durability.failure()
    }

    fn when(&self) -> When {
        self.now.since(Time::default())
    }

    fn next_line(&mut self, server: &str, client: &str) -> Vec<u8> {
        self.stamp += 1;
        format!("AT {server} +0.000000000 {client} +1+2 {}", self.stamp).into_bytes()
    }

    /// One of our clients sends its position. Returns whether the server accepts it.
    pub(crate) fn update(&mut self, client: &str) -> Outcome<bool> {
        if self.failure().is_some() {
            return Ok(false);
        }
        let line = self.next_line("Riley", client);
        let life = &mut self.life;
        if JournalSpace::for_a_record(Some(&life.durability), &life.records) != JournalSpace::Enough
        {
            self.refused += 1;
            return Ok(false);
        }
        if !life.take(&line)? {
            return Err("the table does not take what is new".to_owned());
        }
        let seq = life.records.last_seq();
        life.durability.record(seq, 0, &line);
        life.waiting.push((seq, line));
        self.accepted += 1;
        Ok(true)
    }

    /// The neighbour accepts a record, and we read it unless reading has to wait.
    pub(crate) fn teach(&mut self, client: &str) -> Outcome {
        let line = self.next_line(NEIGHBOUR, client);
        self.neighbour.last += 1;
        let is_same =
            |other: &Vec<u8>| At::parse(other).is_some_and(|at| at.client == client.as_bytes());
        self.neighbour.feed.retain(|_, other| !is_same(other));
        self.promises.moved(OURS, THEIRS, 1, client.as_bytes());
        self.neighbour.feed.insert(self.neighbour.last, line);
        self.listen()
    }

    /// Reads the neighbour's feed as far as there is room, as `src/core/link/machine/feed.rs` does.
    fn listen(&mut self) -> Outcome {
        while self.failure().is_none() {
            let room = JournalSpace::for_a_record(Some(&self.life.durability), &self.life.records);
            let next = self.neighbour.feed.range(self.neighbour.read + 1..).next();
            let Some((&position, line)) = next.filter(|_| room != JournalSpace::Wait) else {
                break;
            };
            let line = line.clone();
            self.neighbour.read = position;
            let taught = Line::new(&line, 0).expect("an AT line");
            self.promises.taught(OURS, THEIRS, 1, position, &taught);
            let life = &mut self.life;
            if life.take(&line)? {
                let seq = life.records.last_seq();
                match room {
                    JournalSpace::Enough => life.durability.record(seq, 0, &line),
                    JournalSpace::Wait | JournalSpace::Full => {
                        life.durability.record_unwritten(seq, &line)
                    }
                }
            }
            (life.heard, life.is_noted) = (position, false);
        }
        Ok(())
    }

    /// Lets the journal note how far the neighbour's feed was read.
    pub(crate) fn note(&mut self) {
        let life = &mut self.life;
        if life.heard > 0 && !life.is_noted && life.durability.failure().is_none() {
            let table = journal_bytes(&life.records);
            life.is_noted = life
                .durability
                .add_received(table, NEIGHBOUR, BootId(1), life.heard);
        }
    }

    /// Runs a turn of the loop.
    pub(crate) fn turn(&mut self) -> Outcome {
        self.hear();
        self.listen()?;
        self.life.durability.begin_turn();
        let mut works = 0;
        loop {
            let life = &mut self.life;
            let heard = life.heard;
            let work = life
                .durability
                .next_work(&mut life.records, self.now, |out| {
                    if heard > 0 {
                        let (neighbour, boot) = (NEIGHBOUR.as_bytes(), BootId(1));
                        let position = heard;
                        Entry::Received {
                            neighbour,
                            boot,
                            position,
                        }
                        .write(out);
                    }
                });
            let Some(work) = work else {
                break;
            };
            works += 1;
            if works > 100 {
                return Err(format!("a turn without an end: {work:?}"));
            }
            self.disk.submit(work);
            self.check()?;
        }
        self.leave();
        self.life.accepted = 0;
        self.check()
    }

    /// Lets a queue of the disk do its first job.
    pub(crate) fn work(&mut self, queue: Queue) -> Outcome {
        self.disk.work(queue);
        self.check()
    }

    /// Gives the results of the disk's work to the journal.
    fn hear(&mut self) {
        while let Some(done) = self.disk.finished() {
            let life = &mut self.life;
            life.durability
                .handle_disk_done(done, &mut life.records, self.now);
        }
    }

    /// Sends what may leave the server: answers, and records of the feed.
    fn leave(&mut self) {
        if self.failure().is_some() {
            return;
        }
        let when = self.when();
        let life = &mut self.life;
        let released = life.durability.sendable_through();
        for (_, line) in life.waiting.extract_if(.., |(seq, _)| *seq <= released) {
            let line = Line::new(&line, 0).expect("an AT line");
            self.promises.answered(OURS, &line, when);
        }
        // Sends the feed as `src/core/link/machine/feed.rs` does.
        let after = self.neighbour.sent;
        let reader = life.records.open_reader(after);
        let mut out = Vec::new();
        let no_one = Origin::LOCAL.next();
        life.records
            .read(reader, no_one, released, usize::MAX, &mut out);
        let position = life.records.position(reader).max(after);
        life.records.close_reader(reader);
        for line in out.split(|&byte| byte == b'\n') {
            if let Some(line) = Line::of_link(line) {
                let held = self.neighbour.table.entry(line.client().to_vec());
                let held = held.or_insert(line.clone());
                *held = line.max(held.clone());
            }
        }
        self.neighbour.sent = position;
        let (appended, last_seq) = (life.durability.appended_through(), life.records.last_seq());
        if appended >= last_seq {
            self.neighbour.known = Some((life.boot, position));
            self.neighbour.unconfirmed = None;
        } else if let Some((before, _)) = self
            .neighbour
            .unconfirmed
            .filter(|(_, last_seq)| appended >= *last_seq)
        {
            self.neighbour.known = Some((life.boot, before));
            self.neighbour.unconfirmed = None;
        }
        if self
            .neighbour
            .known
            .is_none_or(|(_, known)| position > known)
        {
            self.neighbour
                .unconfirmed
                .get_or_insert((position, last_seq));
        }
    }

    /// Lets a fault happen as soon as the compaction is in this phase.
    pub(crate) fn aim(&mut self, phase: CompactionPhase, blow: Blow) {
        self.aims.push((phase, blow));
    }

    /// Checks the invariants, then plays the faults that wait for the current phase.
    fn check(&mut self) -> Outcome {
        let (failure, released) = (self.failure().cloned(), self.released());
        match (&failure, self.disk.may_give_up()) {
            (Some(failure), false) => {
                return Err(format!("it gives up, and the disk is only full: {failure}"));
            }
            (None, _) if self.disk.must_give_up() && self.disk.is_idle() => {
                return Err("it goes on, though it cannot know what the disk has".to_owned());
            }
            (Some(_), true) | (None, _) => {}
        }
        if failure.is_some() {
            let before = *self.life.failed_at.get_or_insert(released);
            if before != released {
                return Err("something was released after a failure".to_owned());
            }
        }
        let most = self.bound() + self.life.accepted;
        if self.length() > most {
            let length = self.length();
            return Err(format!("the journal has {length} bytes, more than {most}"));
        }
        let phase = self.phase();
        let Some(place) = self.aims.iter().position(|(at, _)| *at == phase) else {
            return Ok(());
        };
        let (_, blow) = self.aims.remove(place);
        self.met.push((phase, blow));
        match blow {
            Blow::Full => self.disk.set_full(true),
            Blow::Strike(strike) => self.disk.strike(strike),
            Blow::Freeze(queue) => self.disk.set_frozen(queue, true),
            Blow::End(end) => return self.end(end),
        }
        Ok(())
    }

    /// Ends the process, and starts the next one with what the disk still holds.
    pub(crate) fn end(&mut self, end: End) -> Outcome {
        let when = self.when();
        self.promises.ends(OURS, end, when);
        self.disk.end(end);
        self.restart()
    }

    /// Copies the data directory.
    pub(crate) fn make_copy(&mut self) {
        self.copy = Some((self.when(), self.disk.snapshot()));
    }

    /// Ends the process, and puts the copy of the data directory back.
    pub(crate) fn put_copy_back(&mut self) -> Outcome {
        let Some((copied, snapshot)) = self.copy.take() else {
            return Ok(());
        };
        let when = self.when();
        self.promises.ends(OURS, End::Killed, when);
        self.disk.end(End::Killed);
        self.promises.copy_put_back(OURS, copied);
        self.disk.put_back(&snapshot);
        // How a neighbour recognises a restored copy is tested elsewhere. Here it asks for all
        // records.
        self.neighbour.known = None;
        self.restart()
    }

    fn restart(&mut self) -> Outcome {
        self.failures += usize::from(self.life.failed_at.is_some());
        self.lives += 1;
        let mut claims = Vec::new();
        self.life = Life::begin(
            &self.limits,
            self.fsync,
            self.lives,
            &mut self.disk,
            |boot, position| claims.push((boot, position)),
        )?;
        let records = &self.life.records;
        let mut table = |client: &[u8]| held(records, client);
        self.promises
            .restarted(OURS, &mut table)
            .map_err(|missing| missing.to_string())?;
        self.neighbour.read = 0;
        for (boot, position) in claims {
            self.neighbour.read = position;
            self.promises
                .claims(OURS, THEIRS, boot.0, position, &mut table)
                .map_err(|missing| missing.to_string())?;
            self.life.heard = position;
            self.life.is_noted = true;
        }
        // The neighbour says how far it has read our feed, and gets the rest. We do the same with
        // its feed.
        let known = self.neighbour.known;
        let resumed =
            known.and_then(|(boot, position)| self.life.durability.resume_position(boot, position));
        self.neighbour.sent = resumed.unwrap_or(0);
        self.neighbour.unconfirmed = None;
        self.settle_start()
    }

    /// A new process serves only when the disk has no more work.
    fn settle_start(&mut self) -> Outcome {
        let is_frozen = |story: &Story| {
            let busy = |queue: &Queue| story.disk.jobs(*queue) > 0;
            let mut stuck = Queue::ALL.iter().filter(|queue| busy(queue));
            stuck.all(|queue| !story.disk.is_busy(*queue))
        };
        for _ in 0..1_000 {
            self.turn()?;
            self.disk.do_all();
            self.hear();
            let is_due = |at: Time| at <= self.now;
            let is_waiting = self.life.durability.deadline(self.now).is_some_and(is_due);
            if self.disk.is_idle() && !is_waiting || self.failure().is_some() || is_frozen(self) {
                self.disk.finish();
                return self.turn();
            }
        }
        Err("it never begins to serve".to_owned())
    }

    /// If the server has given up, starts it again. `end` is a reboot where needed, because only
    /// after a reboot is it certain what the disk holds.
    pub(crate) fn restart_if_failed(&mut self, end: End) -> Outcome {
        if self.failure().is_none() {
            return Ok(());
        }
        self.check()?;
        self.end(end)
    }

    /// Repairs the disk. Then all waiting answers must be written, updates accepted, and after
    /// another restart all records must still be there.
    pub(crate) fn recover(&mut self) -> Outcome {
        self.aims.clear();
        self.disk.set_capacity(ENDLESS);
        self.disk.set_others(0);
        self.disk.clear_strikes();
        for queue in Queue::ALL {
            self.disk.set_frozen(queue, false);
        }
        let until = self.now + RECOVERY;
        let mut accepted = false;
        while self.now < until {
            self.restart_if_failed(End::PowerLost)?;
            self.turn()?;
            self.disk.do_all();
            self.hear();
            self.note();
            if !accepted {
                accepted = self.update("recovered")?;
            }
            let is_through = accepted && self.life.waiting.is_empty() && self.disk.is_idle();
            let is_heard = self.life.heard == self.neighbour.last;
            let is_sent = self.neighbour.sent == self.life.records.last_seq();
            if is_through && is_heard && is_sent && self.life.is_noted == (self.life.heard > 0) {
                break;
            }
            self.now = self.now + Duration::from_millis(500);
        }
        if !accepted {
            return Err("updates are still refused".to_owned());
        }
        if !self.life.waiting.is_empty() {
            return Err("answers still wait".to_owned());
        }
        if self.life.heard != self.neighbour.last {
            return Err("the neighbour is still not listened to".to_owned());
        }
        if self.life.heard > 0 && !self.life.is_noted {
            return Err("what was heard of the neighbour is still not written".to_owned());
        }
        self.turn()?;
        self.agree("after the recovery")?;
        self.end(End::Killed)?;
        self.turn()?;
        self.agree("after the last restart")
    }

    /// Checks that the neighbour has all our records.
    fn agree(&mut self, when: &str) -> Outcome {
        let records = &self.life.records;
        let reader_table: Vec<Vec<u8>> = self.neighbour.table.keys().cloned().collect();
        let mut count = 0;
        for client in &reader_table {
            let ours = held(records, client);
            let theirs = self.neighbour.table.get(client);
            count += usize::from(ours.is_some());
            if ours.as_ref() > theirs {
                return Err(format!(
                    "{when}, the neighbour lacks {}",
                    ours.map_or_else(String::new, |line| line.bytes().escape_ascii().to_string())
                ));
            }
        }
        if count < records.len() {
            let ours = records.len();
            return Err(format!(
                "{when}, the neighbour has {count} of our {ours} records"
            ));
        }
        Ok(())
    }
}

impl Life {
    fn begin(
        limits: &Limits,
        fsync: Fsync,
        number: u64,
        disk: &mut FakeDisk,
        mut claim: impl FnMut(BootId, u64),
    ) -> Outcome<Life> {
        let mut seed = [0; 32];
        seed[..8].copy_from_slice(&number.to_le_bytes());
        let salts = Entropy::new(&seed);
        let heard_bytes = Entry::position_bytes(NEIGHBOUR.len()) as u64;
        let mut durability = Durability::new("Riley", fsync, limits, heard_bytes, salts);
        let mut records = Records::new(limits);
        let opened = disk.open(|entry| match entry {
            Entry::Life {
                boot,
                last_seq_before,
                machine,
            } => durability.restore_life(boot, last_seq_before, machine),
            Entry::Record { seq, epoch, line } => {
                let at = At::parse(line).expect("a record");
                records.restore(seq, epoch, line, &at);
            }
            Entry::Received { boot, position, .. } => claim(boot, position),
            Entry::Synced { .. } | Entry::Confirmed { .. } => {}
        });
        let opened = opened.map_err(|error| format!("the journal is refused: {error}"))?;
        let boot = BootId(1_000 + number);
        durability.opened(opened, boot, records.last_seq());
        Ok(Life {
            boot,
            durability,
            records,
            waiting: Vec::new(),
            heard: 0,
            is_noted: false,
            accepted: 0,
            failed_at: None,
        })
    }

    /// Offers a record to the table, and returns whether the table accepted it.
    fn take(&mut self, line: &[u8]) -> Outcome<bool> {
        let at = At::parse(line).ok_or("no AT line")?;
        match self.records.merge(line, &at, Origin::LOCAL) {
            Merge::Accepted => {
                self.accepted += Entry::record_bytes(line.len()) as u64;
                Ok(true)
            }
            Merge::Stale => Ok(false),
            other => Err(format!("the table says {other:?}")),
        }
    }
}

/// The record that a table holds of a client.
fn held(records: &Records, client: &[u8]) -> Option<Line> {
    let mut line = records.line(client)?;
    line.pop();
    Line::new(&line, records.epoch(client)?)
}
