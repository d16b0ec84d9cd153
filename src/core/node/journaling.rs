//! How a [`Node`] uses its journal: which changes it writes, which output waits for these writes,
//! and what it restores at start. A *feed* is the sequence of changes of a server's table. A
//! *position* is the number of a change in a feed: a server at that position has all changes up to
//! that change.

use std::time::Duration;

use log::warn;

use super::session::Session;
use super::{ConnId, Node, Slot, Timer};
use crate::core::base::clock::{Now, Time};
use crate::core::base::entropy::Entropy;
use crate::core::base::limits::LimitValue;
use crate::core::journal::durability::{
    CompactionPhase, DiskDone, DiskWork, Durability, Fsync, JournalFailure, JournalSpace, Opened,
    journal_bytes,
};
use crate::core::journal::format::Entry;
use crate::core::session::herd::{FeedPosition, Herd, Neighbour};
use crate::core::session::protocol::Protocol;
use crate::core::table::records::Merge;
use crate::core::wire::message::At;

/// The time from a change of a neighbour's position until the server writes that position to the
/// journal. After a crash, the neighbour usually repeats at most the updates of this time.
const POSITIONS_INTERVAL: Duration = Duration::from_secs(1);

/// The journal, and the connections that wait for the journal.
pub(super) struct Journal {
    durability: Durability,
    /// Connections whose next line waits until the journal has reserved disk space.
    awaiting_space: Vec<ConnId>,
    /// Clients and operators whose answers wait until the records that the answers promise are
    /// written.
    held: Vec<ConnId>,
    /// The time at which the connections in `held` are closed without an answer. Set only while the
    /// disk refuses journal writes.
    held_due: Option<Time>,
    /// The time at which [`Node::journal_positions`] runs next.
    positions_due: Option<Time>,
    /// The journal's earliest deadline in the heap.
    armed: Option<Time>,
}

impl Journal {
    pub(super) fn durability(&mut self) -> &mut Durability {
        &mut self.durability
    }

    pub(super) fn durability_ref(&self) -> &Durability {
        &self.durability
    }

    /// Returns the lists `awaiting_space` and `held`.
    pub(super) fn waiting(&self) -> (&[ConnId], &[ConnId]) {
        (&self.awaiting_space, &self.held)
    }

    /// Adds a connection that waits for disk space to `awaiting_space`. Adds a connection whose
    /// answers wait for a write to `held`. For a link, also calls
    /// [`Journal::schedule_journal_positions`].
    #[inline]
    pub(super) fn update_waiting(&mut self, id: ConnId, slot: &mut Slot, herd: &Herd, now: Now) {
        let held = slot.session.required_seq() > self.durability.sendable_through();
        if slot.session.awaits_disk_space() && !std::mem::replace(&mut slot.awaits_disk_space, true)
        {
            self.awaiting_space.push(id);
        }
        if held && !std::mem::replace(&mut slot.is_held, true) {
            self.held.push(id);
        }
        if let Session::Link(link) = &slot.session
            && let Some(neighbour) = link.neighbour()
        {
            self.schedule_journal_positions(herd.get(neighbour), now);
        }
    }

    /// Schedules [`Node::journal_positions`] within a second, if a position of the neighbour is not
    /// in the journal yet. A neighbour has two positions: how far its feed was received, and the
    /// greatest position that a `SYNC` has sent to it.
    pub(super) fn schedule_journal_positions(&mut self, neighbour: &Neighbour, now: Now) {
        let is_unjournaled =
            neighbour.unjournaled_received().is_some() || neighbour.unjournaled_synced().is_some();
        if self.positions_due.is_none() && is_unjournaled {
            self.positions_due = Some(now.time + POSITIONS_INTERVAL);
        }
    }
}

impl Node {
    /// Begins to use a journal: from now on, accepted records are written to it. Next, call
    /// [`Node::restore`] for each entry of the journal, then [`Node::journal_opened`], all before
    /// any other event.
    pub fn keep_journal(&mut self, fsync: Fsync) {
        let neighbours = self.herd.iter();
        // Each neighbour has two entries in the journal: `Received`, how far its feed was received,
        // and `Confirmed`, how far our feed was sent to it.
        let heard_bytes = neighbours
            .map(|neighbour| Entry::position_bytes(neighbour.name().len()) as u64 * 2)
            .sum();
        let (one, other) = (self.entropy.next_bytes(), self.entropy.next_bytes());
        let mut seed = [0; 32];
        seed[..16].copy_from_slice(&one);
        seed[16..].copy_from_slice(&other);
        self.journal = Some(Journal {
            durability: Durability::new(
                &self.settings.name,
                fsync,
                &self.settings.limits,
                heard_bytes,
                Entropy::new(&seed),
            ),
            awaiting_space: Vec::new(),
            held: Vec::new(),
            held_due: None,
            positions_due: None,
            armed: None,
        });
    }

    /// Restores one entry that this server wrote to the journal before it was restarted.
    pub fn restore(&mut self, entry: Entry<'_>) {
        match entry {
            Entry::Life {
                boot,
                last_seq_before,
                machine,
            } => {
                if let Some(journal) = &mut self.journal {
                    journal
                        .durability
                        .restore_life(boot, last_seq_before, machine);
                }
            }
            Entry::Record { seq, epoch, line } => {
                match At::parse(line).map(|at| self.records.restore(seq, epoch, line, &at)) {
                    Some(Merge::Accepted | Merge::Stale | Merge::Expired) => {}
                    Some(Merge::Full | Merge::UnknownServer | Merge::NotAdmitted) | None => {
                        // No other change may get this sequence number, because neighbours may have
                        // received this change.
                        self.records.skip_seq(seq);
                        warn!(
                            "journal: change {seq} is no record that this version understands; it was left out"
                        );
                    }
                }
            }
            Entry::Synced { .. } => {}
            Entry::Received {
                neighbour,
                boot,
                position,
            } => self
                .herd
                .restore_received(neighbour, FeedPosition { boot, position }),
            Entry::Confirmed {
                neighbour,
                position,
            } => {
                // A compaction does not copy expired records. So the last changes up to `position`
                // may be missing from the journal. No new change may get one of their numbers.
                // Otherwise the neighbour would already have a greater position than this server's
                // last change, as if this server's data had been rolled back.
                self.records.skip_seq(position);
                self.herd.restore_synced(neighbour, position);
            }
        }
    }

    /// The whole journal has been read.
    pub fn journal_opened(&mut self, opened: Opened) {
        let last_seq = self.records.last_seq();
        if let Some(journal) = &mut self.journal {
            journal.durability.opened(opened, self.boot, last_seq);
        }
    }

    /// Returns the phase of the journal's compaction, or `None` without a journal.
    #[must_use]
    pub fn journal_phase(&self) -> Option<CompactionPhase> {
        self.journal
            .as_ref()
            .map(|journal| journal.durability.phase())
    }

    /// Returns the maximum length of the journal for the present table, or `None` without a
    /// journal.
    #[must_use]
    pub fn journal_bound(&self) -> Option<u64> {
        let journal = self.journal.as_ref()?;
        Some(journal.durability.bound(journal_bytes(&self.records)))
    }

    /// Returns the next piece of disk work. The driver calls this until it returns `None`, before
    /// the driver writes output to sockets.
    #[inline]
    pub fn poll_disk_work(&mut self, now: Now) -> Option<DiskWork> {
        self.journal.as_ref()?;
        self.poll_journal_work(now)
    }

    fn poll_journal_work(&mut self, now: Now) -> Option<DiskWork> {
        let work = self.next_journal_work(now);
        if work.is_none() && self.handle(now, |node| node.resume_awaiting_space(now)) {
            return self.next_journal_work(now);
        }
        work
    }

    fn next_journal_work(&mut self, now: Now) -> Option<DiskWork> {
        let journal = self.journal.as_mut()?;
        let herd = &self.herd;
        let write_positions = |out: &mut Vec<u8>| {
            for neighbour in herd.iter() {
                let name = neighbour.name().as_bytes();
                if let Some(received) = neighbour.received() {
                    Entry::Received {
                        neighbour: name,
                        boot: received.boot,
                        position: received.position,
                    }
                    .write(out);
                }
                Entry::Confirmed {
                    neighbour: name,
                    position: neighbour.synced().max(neighbour.journaled_synced()),
                }
                .write(out);
            }
        };
        let work = journal
            .durability
            .next_work(&mut self.records, now.time, write_positions);
        let time_limit = self.settings.limits.journal_wait_ms.to_duration();
        journal.held_due = (journal.durability.is_refused() && !journal.held.is_empty())
            .then(|| journal.held_due.unwrap_or(now.time + time_limit));
        let deadlines = [
            journal.durability.deadline(now.time),
            journal.positions_due,
            journal.held_due,
        ];
        if work.is_none()
            && let Some(deadline) = deadlines.into_iter().flatten().min()
            && journal.armed.is_none_or(|armed| deadline < armed)
        {
            journal.armed = Some(deadline);
            self.deadlines.call_at(deadline, Timer::Journal);
        }
        work
    }

    pub(super) fn disk_done(&mut self, done: DiskDone, now: Now) {
        if let Some(journal) = &mut self.journal {
            journal
                .durability
                .handle_disk_done(done, &mut self.records, now.time);
        }
    }

    /// Resumes the connections in `awaiting_space`, unless the journal is still reserving disk
    /// space. If the disk is full, the commands of these connections are refused. Returns whether
    /// the list had any connection.
    fn resume_awaiting_space(&mut self, now: Now) -> bool {
        let Some(journal) = &mut self.journal else {
            return false;
        };
        let room = JournalSpace::for_a_record(Some(&journal.durability), &self.records);
        if journal.awaiting_space.is_empty() || room == JournalSpace::Wait {
            return false;
        }
        for id in std::mem::take(&mut journal.awaiting_space) {
            if let Some(slot) = self.sessions.get_mut(id) {
                slot.awaits_disk_space = false;
                self.on_session(id, now, Session::resume_input);
                self.mark_dirty(id);
            }
        }
        true
    }

    /// Returns why the server must stop, if the disk has failed.
    #[must_use]
    pub fn failure(&self) -> Option<&JournalFailure> {
        self.journal.as_ref()?.durability.failure()
    }

    /// Returns the sequence number of the last change that may be sent to clients and neighbours.
    pub(super) fn sendable_through(&self) -> u64 {
        self.journal
            .as_ref()
            .map_or(u64::MAX, |journal| journal.durability.sendable_through())
    }

    /// Returns the sequence number of the last change that is in the journal, together with all
    /// changes before it. Without a journal, returns `u64::MAX`.
    pub(super) fn appended_through(&self) -> u64 {
        let journal = self.journal.as_ref();
        journal.map_or(u64::MAX, |journal| journal.durability.appended_through())
    }

    /// Marks the connections in `held` dirty, because more changes may have been written, so that
    /// more of the waiting output may be sent.
    pub(super) fn release_held(&mut self) {
        let Some(journal) = &mut self.journal else {
            return;
        };
        for id in std::mem::take(&mut journal.held) {
            if let Some(slot) = self.sessions.get_mut(id) {
                slot.is_held = false;
                self.mark_dirty(id); // the flush puts the connection back on the list if it still waits
            }
        }
    }

    /// Closes the connections in `held`, because the disk refuses the records that their answers
    /// promise. The records stay in the table, because neighbours may have received them.
    fn close_held(&mut self, now: Now) {
        let Some(journal) = &mut self.journal else {
            return;
        };
        let held = std::mem::take(&mut journal.held);
        let waited_ms = self.settings.limits.journal_wait_ms;
        warn!(
            "journal: the disk has refused it for {} ms; {} clients are let go without an answer",
            waited_ms,
            held.len()
        );
        for id in held {
            if let Some(slot) = self.sessions.get_mut(id) {
                slot.is_held = false;
                match &mut slot.session {
                    Session::Client(client) => client.close_unstored(),
                    Session::Link(link) => link.end_unstored(waited_ms, now.time),
                    // The output of these sessions does not report records as stored.
                    Session::Proxied(_) | Session::Exchange(_) | Session::Http(_) => {}
                }
                self.mark_dirty(id);
            }
        }
    }

    /// Handles [`Timer::Journal`]: closes connections that waited too long for the disk, and writes
    /// the positions that are due. The next disk work is taken later in this turn.
    pub(super) fn journal_due(&mut self, now: Now) {
        let Some(journal) = &mut self.journal else {
            return;
        };
        journal.armed = None;
        journal.durability.begin_turn();
        if journal.held_due.is_some_and(|due| due <= now.time) {
            journal.held_due = None;
            self.close_held(now);
        }
        let Some(journal) = &self.journal else {
            return;
        };
        if journal.positions_due.is_some_and(|due| due <= now.time) {
            self.journal_positions(now);
        }
    }

    /// Writes the neighbours' positions that are not in the journal yet. This happens a second
    /// after a position has changed, and before the server ends.
    pub fn journal_positions(&mut self, now: Now) {
        let Some(journal) = &mut self.journal else {
            return;
        };
        journal.positions_due = None;
        for neighbour in self.herd.iter_mut() {
            let table = journal_bytes(&self.records);
            if let Some(FeedPosition { boot, position }) = neighbour.unjournaled_received() {
                let durability = &mut journal.durability;
                if durability.add_received(table, neighbour.name(), boot, position) {
                    neighbour.mark_received_journaled();
                } else {
                    journal.positions_due = Some(now.time + POSITIONS_INTERVAL);
                }
            }
            if let Some(told) = neighbour.unjournaled_synced() {
                if journal
                    .durability
                    .add_confirmed(table, neighbour.name(), told)
                {
                    neighbour.set_journaled_synced(told);
                } else {
                    journal.positions_due = Some(now.time + POSITIONS_INTERVAL);
                }
            }
        }
    }
}
