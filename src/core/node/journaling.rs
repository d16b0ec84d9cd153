//! What a [`Node`] does so that what it promised outlasts it: what to write down, what waits for it, what is read back.

use std::time::Duration;

use log::warn;

use super::{ConnId, Node, Session, Slot, Timer};
use crate::core::clock::{Now, Time};
use crate::core::durability::{DiskDone, DiskWork, Durability, Fsync};
use crate::core::journal::Entry;
use crate::core::limits::ms;
use crate::core::message::At;
use crate::core::records::Offer;

/// How long what was heard of a neighbour may be unwritten: a second's worth of its updates is sent again after a restart.
const HEARD_EVERY: Duration = Duration::from_secs(1);

/// The journal, and who waits for it.
pub(super) struct Journal {
    durability: Durability,
    /// Something that the disk is to do first.
    urgent: Option<DiskWork>,
    /// Connections whose next line waits until there is room.
    want_room: Vec<ConnId>,
    /// Clients whose answers wait until what they promise is written.
    held: Vec<ConnId>,
    /// When they are let go without, because the disk refuses it.
    held_due: Option<Time>,
    /// When what was heard of the neighbours is written down.
    heard_due: Option<Time>,
    /// The earliest deadline that is in the heap for it.
    armed: Option<Time>,
}

impl Journal {
    pub(super) fn durability(&mut self) -> &mut Durability {
        &mut self.durability
    }

    /// Puts a connection on the lists that it belongs on.
    pub(super) fn watch(&mut self, id: ConnId, slot: &mut Slot) {
        let (wants_room, held) = match &slot.session {
            Session::Client(client) => (
                client.wants_room(),
                client.held_until() > self.durability.released(),
            ),
            Session::Link(link) => (link.wants_room(), false),
            Session::Exchange(_) => (false, false),
        };
        if wants_room && !std::mem::replace(&mut slot.wants_room, true) {
            self.want_room.push(id);
        }
        if held && !std::mem::replace(&mut slot.held, true) {
            self.held.push(id);
        }
    }
}

impl Node {
    /// From now on, what is accepted is written down. Then comes [`Node::restore`] for each entry of the journal, and
    /// [`Node::journal_opened`]; all before the first other event.
    pub fn keep_journal(&mut self, fsync: Fsync) {
        self.journal = Some(Journal {
            durability: Durability::new(&self.settings.name, fsync, &self.settings.limits),
            urgent: None,
            want_room: Vec::new(),
            held: Vec::new(),
            held_due: None,
            heard_due: None,
            armed: None,
        });
    }

    /// What the journal tells of an earlier life.
    pub fn restore(&mut self, entry: Entry<'_>) {
        match entry {
            Entry::Life {
                boot,
                after,
                machine,
            } => {
                if let Some(journal) = &mut self.journal {
                    journal.durability.restore_life(boot, after, machine);
                }
            }
            Entry::Record { seq, epoch, line } => {
                match At::parse(line).map(|at| self.records.restore(seq, epoch, line, &at)) {
                    Some(Offer::Accepted | Offer::Stale) => {}
                    Some(Offer::Full | Offer::UnknownServer) | None => {
                        // Its place is taken all the same: neighbours may have heard of it.
                        self.records.restore_place(seq);
                        warn!(
                            "journal: change {seq} is no record that this version understands; it was left out"
                        );
                    }
                }
            }
            Entry::Synced { .. } => {}
            Entry::Heard {
                neighbour,
                boot,
                position,
            } => self.herd.restore(neighbour, boot, position),
        }
    }

    /// The journal is read: it is good up to byte `length`. The machine's own boot id is `machine`, 0 if it has none.
    pub fn journal_opened(&mut self, length: u64, machine: u64) {
        let last_seq = self.records.last_seq();
        if let Some(journal) = &mut self.journal {
            journal
                .durability
                .opened(length, machine, self.boot, last_seq);
        }
    }

    /// The next thing that the disk is to do; asked until there is none, at the end of a turn before anything is written to a socket.
    pub fn next_disk_work(&mut self, now: Now) -> Option<DiskWork> {
        let journal = self.journal.as_mut()?;
        let herd = &self.herd;
        let heard = |out: &mut Vec<u8>| {
            for neighbour in &herd.neighbours {
                if let Some(heard) = neighbour.heard {
                    let name = neighbour.settings.name.as_bytes();
                    Entry::Heard {
                        neighbour: name,
                        boot: heard.boot,
                        position: heard.position,
                    }
                    .write(out);
                }
            }
        };
        let urgent = journal.urgent.take();
        let work = urgent.or_else(|| {
            journal
                .durability
                .next_work(&mut self.records, now.time, heard)
        });
        let patience = ms(self.settings.limits.journal_wait_ms);
        journal.held_due = (journal.durability.is_refused() && !journal.held.is_empty())
            .then(|| journal.held_due.unwrap_or(now.time + patience));
        let deadlines = [
            journal.durability.deadline(now.time),
            journal.heard_due,
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

    /// What became of it.
    pub fn disk_done(&mut self, done: DiskDone, now: Now) {
        let Some(journal) = &mut self.journal else {
            return;
        };
        let room_changed = matches!(done, DiskDone::Reserved(..) | DiskDone::Switched(_));
        journal.urgent = journal.durability.done(done, &mut self.records, now.time);
        if !room_changed {
            return;
        }
        for id in std::mem::take(&mut journal.want_room) {
            let Some(slot) = self.sessions.get_mut(id) else {
                continue;
            };
            slot.wants_room = false;
            match slot.session {
                Session::Client(_) => self.client_has_room(id, now),
                Session::Link(_) => self.link_has_room(id, now),
                Session::Exchange(_) => {}
            }
            self.touch(id);
        }
        self.work_off_questions(now);
    }

    /// Why the server can not go on: the disk broke a promise.
    #[must_use]
    pub fn failure(&self) -> Option<&str> {
        self.journal.as_ref()?.durability.failure()
    }

    /// Up to which change things may leave the server.
    pub(super) fn released(&self) -> u64 {
        self.journal
            .as_ref()
            .map_or(u64::MAX, |journal| journal.durability.released())
    }

    /// Up to which change everything is kept as safely as clients are promised.
    pub(super) fn kept_through(&self) -> u64 {
        self.journal
            .as_ref()
            .map_or(u64::MAX, |journal| journal.durability.kept_through())
    }

    /// Whether everything that was accepted is written down, where that is done at all.
    pub(super) fn is_all_written(&self) -> bool {
        let journal = self.journal.as_ref();
        journal.is_none_or(|journal| journal.durability.is_all_appended())
    }

    /// More may leave: clients whose answers waited for that look again.
    pub(super) fn release_held(&mut self) {
        let Some(journal) = &mut self.journal else {
            return;
        };
        for id in std::mem::take(&mut journal.held) {
            if let Some(slot) = self.sessions.get_mut(id) {
                slot.held = false;
                self.touch(id); // one that waits for more is put back on the list
            }
        }
    }

    /// What the answers of these clients promise can not be kept, and not be taken back either: others may have heard of it.
    fn let_held_go(&mut self) {
        let Some(journal) = &mut self.journal else {
            return;
        };
        let held = std::mem::take(&mut journal.held);
        warn!(
            "journal: the disk has refused it for {} ms; {} clients are let go without an answer",
            self.settings.limits.journal_wait_ms,
            held.len()
        );
        for id in held {
            if let Some(slot) = self.sessions.get_mut(id) {
                slot.held = false;
                if let Session::Client(client) = &mut slot.session {
                    client.let_go();
                }
                self.touch(id);
            }
        }
    }

    /// A turn begins, or a deadline of the journal's has come.
    pub(super) fn journal_due(&mut self, now: Now) {
        let Some(journal) = &mut self.journal else {
            return;
        };
        journal.armed = None;
        journal.durability.turn_begins();
        if journal.held_due.is_some_and(|due| due <= now.time) {
            journal.held_due = None;
            self.let_held_go();
        }
        let Some(journal) = &mut self.journal else {
            return;
        };
        if journal.heard_due.is_none_or(|due| now.time < due) {
            return;
        }
        journal.heard_due = None;
        for neighbour in &mut self.herd.neighbours {
            if let Some(heard) = neighbour.heard.as_mut().filter(|heard| !heard.is_noted) {
                heard.is_noted =
                    journal
                        .durability
                        .heard(&neighbour.settings.name, heard.boot, heard.position);
                if !heard.is_noted {
                    journal.heard_due = Some(now.time + HEARD_EVERY);
                }
            }
        }
    }

    /// What was heard of a neighbour is written down within a second.
    pub(super) fn note_heard_soon(&mut self, neighbour: usize, now: Now) {
        if let (Some(journal), Some(heard)) =
            (&mut self.journal, self.herd.neighbours[neighbour].heard)
            && !heard.is_noted
        {
            journal.heard_due.get_or_insert(now.time + HEARD_EVERY);
        }
    }
}
