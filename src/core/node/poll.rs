//! What a [`Node`] wants done: the only way out of it.
//!
//! Each `poll_*` gives the next thing to do. [`drive`](super::drive) asks them in the order of a
//! turn.

use std::net::SocketAddr;

use super::{ConnId, Node, Phase, Timer, context};
use crate::core::base::clock::Now;
use crate::core::session::disposition::Disposition;
use crate::core::session::protocol::Protocol;

/// What the core needs done outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Make a TCP connection; then [`Node::handle_connection_made`], or
    /// [`Node::handle_connection_lost`] if that fails.
    Connect {
        /// The id that the connection already has.
        id: ConnId,
        /// Where to.
        address: SocketAddr,
    },
    /// Look a host name up, without blocking the loop; then [`Node::handle_resolved`].
    Resolve {
        /// The name.
        host: String,
    },
}

impl Node {
    /// The next request.
    pub fn poll_request(&mut self) -> Option<Request> {
        self.requests.pop_front()
    }

    /// The next connection of this round whose output or disposition may have changed, links before
    /// clients: the herd hears of an update before its client hears that it was taken.
    ///
    /// A round names what was dirty when it began, each once, and ends with `None`. The call after
    /// that begins the next round. Ask each for its [`Node::poll_output`], then for its
    /// [`Node::poll_disposition`].
    pub fn poll_dirty(&mut self) -> Option<ConnId> {
        if !self.dirty.is_round {
            self.announce_released();
            self.dirty.begin_round();
        }
        while let Some(id) = self.dirty.next() {
            if let Some(slot) = self.sessions.get_mut(id) {
                slot.is_dirty = false;
                return Some(id);
            }
        }
        None
    }

    /// Wakes the clients and links that the journal's progress concerns, and the links if it has
    /// changed what the table lacks.
    fn announce_released(&mut self) {
        let last_seq = self.records.last_seq();
        let announced = (
            self.released().min(last_seq),
            self.appended_through().min(last_seq),
            self.herd.lacks(),
        );
        if self.announced != announced {
            self.announced = announced;
            self.release_held();
            self.mark_links_dirty();
        }
    }

    /// What the socket is to take; empty if nothing waits. A link pulls its feed here.
    pub fn poll_output(&mut self, id: ConnId) -> &[u8] {
        if self.failure().is_some() {
            return &[]; // what it rests on may be lost
        }
        let Some(slot) = self.sessions.get_mut(id) else {
            return &[];
        };
        let plaintext = slot.session.output(&mut context!(self, None, self.now));
        match &mut slot.secure {
            Some(secure) => secure.output(plaintext),
            None => plaintext,
        }
    }

    /// What happens to the connection next. Ask after its output was written: this also files the
    /// connection's next deadline, and what it waits for in the journal.
    pub fn poll_disposition(&mut self, id: ConnId, now: Now) -> Disposition {
        if self.phase == Phase::Overdue {
            return Disposition::Close;
        }
        let limits = &self.settings.limits;
        let Some(slot) = self.sessions.get_mut(id) else {
            return Disposition::Open;
        };
        if let Some(journal) = &mut self.journal {
            journal.watch(id, slot, &self.herd, now);
        }
        slot.session.flushed(&mut context!(self, None, now));
        let (mut disposition, mut deadline) =
            (slot.session.disposition(), slot.session.deadline(limits));
        let mut again = false;
        if let Some(secure) = &mut slot.secure {
            (disposition, again) =
                secure.disposition(disposition, slot.session.wants_read(), limits, now.time);
            deadline = secure.deadline(deadline, limits);
        }
        if let Some(deadline) = deadline
            && slot.armed.is_none_or(|armed| deadline < armed)
        {
            slot.armed = Some(deadline);
            self.deadlines.call_at(deadline, Timer::Connection(id));
        }
        if again {
            self.mark_dirty(id);
        }
        disposition
    }
}

/// Connections whose output or disposition may have changed.
#[derive(Default)]
pub(super) struct Dirty {
    links: Vec<ConnId>,
    others: Vec<ConnId>,
    /// This round, and how many of it were named.
    round: Vec<ConnId>,
    named: usize,
    is_round: bool,
}

impl Dirty {
    pub(super) fn add(&mut self, id: ConnId, is_link: bool) {
        match is_link {
            true => self.links.push(id),
            false => self.others.push(id),
        }
    }

    /// All of them.
    pub(super) fn iter(&self) -> impl Iterator<Item = ConnId> {
        let round = &self.round[self.named..];
        let lists = self.links.iter().chain(&self.others).chain(round);
        lists.copied()
    }

    fn begin_round(&mut self) {
        self.is_round = true;
        self.round.clear();
        self.named = 0;
        self.round.append(&mut self.links);
        self.round.append(&mut self.others);
    }

    fn next(&mut self) -> Option<ConnId> {
        let next = self.round.get(self.named).copied();
        self.is_round = next.is_some();
        self.named += usize::from(self.is_round);
        next
    }
}
