//! The output of a [`Node`]: requests, dirty connections, bytes, dispositions.
//!
//! Each `poll_*` method returns the next thing to do. [`drive`](super::drive) calls these methods
//! in the order of a turn (one iteration of the event loop).

use std::net::SocketAddr;

use super::{ConnId, Node, Phase, Progress, Timer, context};
use crate::core::base::clock::Now;
use crate::core::session::disposition::Disposition;
use crate::core::session::protocol::{Protocol, TurnEnd};
use crate::core::session::tls::TlsSession;

/// An action that the core requests from its driver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Make a TCP connection. Then call [`Node::handle_connection_made`], or
    /// [`Node::handle_connection_lost`] if connecting fails.
    Connect {
        /// The id that the connection already has.
        id: ConnId,
        /// The address to connect to.
        address: SocketAddr,
    },
    /// Measure the process for an answer of the HTTP port. Then call [`Node::handle_measured`] at
    /// once.
    Measure {
        /// The connection that the answer is for.
        id: ConnId,
    },
    /// Look up a host name without blocking the loop. Then call [`Node::handle_resolved`].
    Resolve {
        /// The name.
        host: String,
    },
}

impl Node {
    /// Returns the next request.
    pub fn poll_request(&mut self) -> Option<Request> {
        self.requests.pop_front()
    }

    /// Returns the next connection of this round whose output or disposition may have changed.
    /// Links come before clients. So neighbours get an update before the client that sent the
    /// update gets the answer.
    ///
    /// A round contains each connection that was dirty when the round began, once. It ends with
    /// `None`, and the next call begins the next round. For each connection, call
    /// [`Node::poll_output`], then [`Node::poll_disposition`].
    pub fn poll_dirty(&mut self) -> Option<ConnId> {
        if !self.dirty.is_round {
            self.begin_round();
        }
        while let Some(id) = self.dirty.next() {
            if let Some(slot) = self.sessions.get_mut(id) {
                slot.is_dirty = false;
                return Some(id);
            }
        }
        None
    }

    #[inline(never)]
    fn begin_round(&mut self) {
        self.announce_progress();
        if self.tally.buffers.is_exceeded() {
            self.evict();
        }
        self.dirty.begin_round();
    }

    /// Marks all links and followers dirty, and the clients whose answers wait for the journal.
    /// Does nothing if the [`Progress`] has not changed since the last call.
    fn announce_progress(&mut self) {
        let last_seq = self.records.last_seq();
        let progress = Progress {
            sendable_through: self.sendable_through().min(last_seq),
            appended_through: self.appended_through().min(last_seq),
            refused_records: self.herd.refused_records(),
        };
        if self.announced != progress {
            self.announced = progress;
            self.release_held();
            self.mark_links_dirty();
        }
    }

    /// Returns the bytes to write to the socket, or an empty slice. For a link, this method also
    /// adds the next changes of the table to the output.
    pub fn poll_output(&mut self, id: ConnId) -> &[u8] {
        if self.failure().is_some() {
            return &[]; // the output may promise a record that the disk has lost
        }
        let Some(slot) = self.sessions.get_mut(id) else {
            return &[];
        };
        let plaintext = slot.session.output(&mut context!(self, None, self.now));
        match &mut slot.tls {
            Some(tls) => tls.output(plaintext),
            None => plaintext,
        }
    }

    /// Returns what to do with the connection: keep it open, finish or close it. Call this after
    /// the output was written. This method also adds the connection's next deadline to the heap. If
    /// the connection waits for the journal, the method puts the connection on the journal's lists.
    pub fn poll_disposition(&mut self, id: ConnId, now: Now) -> Disposition {
        if self.phase == Phase::Overdue {
            return Disposition::Close;
        }
        let Some(slot) = self.sessions.get_mut(id) else {
            return Disposition::Open;
        };
        if let Some(journal) = &mut self.journal {
            journal.update_waiting(id, slot, &self.herd, now);
        }
        let TurnEnd {
            mut disposition,
            mut deadline,
            held_bytes: mut bytes,
        } = slot.session.end_turn(&mut context!(self, None, now));
        let (mut idle_bytes, mut has_more_output) = (0, false);
        if let Some(tls) = &mut slot.tls {
            let limits = &self.settings.limits;
            (disposition, has_more_output) =
                tls.disposition(disposition, slot.session.wants_read(), limits, now.time);
            deadline = tls.deadline(deadline, limits);
            bytes += tls.held_bytes();
            idle_bytes = TlsSession::MIN_HELD_BYTES;
        }
        let usage = &mut slot.usage;
        self.tally
            .buffers
            .account(usage, bytes, idle_bytes, now.time);
        if let Some(deadline) = deadline
            && slot.armed.is_none_or(|armed| deadline < armed)
        {
            slot.armed = Some(deadline);
            self.deadlines.call_at(deadline, Timer::Connection(id));
        }
        if has_more_output {
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
    /// The connections of this round. [`Dirty::next`] has already returned the first `next_index`
    /// of them.
    round: Vec<ConnId>,
    next_index: usize,
    is_round: bool,
}

impl Dirty {
    pub(super) fn add(&mut self, id: ConnId, is_link: bool) {
        match is_link {
            true => self.links.push(id),
            false => self.others.push(id),
        }
    }

    /// Returns all dirty connections. These include the connections of this round that were not
    /// returned yet.
    pub(super) fn iter(&self) -> impl Iterator<Item = ConnId> {
        let round = &self.round[self.next_index..];
        let lists = self.links.iter().chain(&self.others).chain(round);
        lists.copied()
    }

    fn begin_round(&mut self) {
        if self.links.is_empty() && self.others.is_empty() {
            return; // the last round is finished, so `next` returns `None`
        }
        self.is_round = true;
        self.round.clear();
        self.next_index = 0;
        self.round.append(&mut self.links);
        self.round.append(&mut self.others);
    }

    fn next(&mut self) -> Option<ConnId> {
        let next = self.round.get(self.next_index).copied();
        self.is_round = next.is_some();
        self.next_index += usize::from(self.is_round);
        next
    }
}
