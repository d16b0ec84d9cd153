//! Conditions that hold between turns, whatever happened in the turns. The simulator and the fuzz
//! targets check them after each turn.

use std::collections::BTreeSet;

use super::session::Session;
use super::{ConnId, Node};
use crate::core::base::invariants::ensure;
use crate::core::base::limits::LimitValue;
use crate::core::session::disposition::Disposition;
use crate::core::session::protocol::Protocol;

impl Node {
    /// Checks that the parts of the server agree with each other. Only for tests: the check visits
    /// every connection and record.
    ///
    /// # Errors
    /// A description of the condition that does not hold.
    pub fn check_invariants(&self) -> Result<(), String> {
        self.check_lists()?;
        for (_, slot) in self.sessions.iter() {
            slot.session.check_invariants()?;
        }
        self.check_clients()?;
        ensure!(
            self.is_draining() == self.tally.drain_ends.is_some(),
            "the server drains without an end, or has an end and does not drain"
        );
        self.check_links()?;
        self.check_exchanges()?;
        self.check_http()?;
        self.check_buffers()?;
        self.records.check_invariants()?;
        self.calls.check_invariants()
    }

    /// Checks that the flags `is_dirty`, `awaits_disk_space` and `is_held` of each connection agree
    /// with the three lists of connections. Also checks that each armed deadline is in the heap.
    fn check_lists(&self) -> Result<(), String> {
        let dirty: Vec<ConnId> = self.dirty.iter().collect();
        let once: BTreeSet<ConnId> = dirty.iter().copied().collect();
        ensure!(dirty.len() == once.len(), "a connection is dirty twice");
        let (awaiting_space, held) = match &self.journal {
            Some(journal) => journal.waiting(),
            None => (&[][..], &[][..]),
        };
        for (id, slot) in self.sessions.iter() {
            let name = id.serial();
            ensure!(
                slot.is_dirty == once.contains(&id),
                "connection {name} is dirty and not listed, or listed and not dirty"
            );
            ensure!(
                slot.awaits_disk_space == awaiting_space.contains(&id),
                "connection {name} waits for room and is not listed, or the reverse"
            );
            ensure!(
                slot.is_held == held.contains(&id),
                "connection {name} is held and not listed, or the reverse"
            );
            ensure!(
                slot.armed.is_none() || self.next_deadline() <= slot.armed,
                "the deadline of connection {name} is not in the heap"
            );
        }
        Ok(())
    }

    /// Checks that the budget's sums are the sum of the counted bytes of all connections, and the
    /// bytes of waiting answers. Also checks that the counted bytes of each connection are the
    /// bytes that its buffers hold now, unless the connection is dirty.
    fn check_buffers(&self) -> Result<(), String> {
        let mut counted = 0;
        for (id, slot) in self.sessions.iter() {
            counted += slot.usage.bytes();
            ensure!(
                slot.is_dirty || slot.usage.bytes() == slot.held_bytes() as u64,
                "the buffers of connection {} hold {} bytes, and {} are counted",
                id.serial(),
                slot.held_bytes(),
                slot.usage.bytes()
            );
        }
        let answers: usize = self.answers.iter().map(|(_, it)| it.held_bytes()).sum();
        let sums = self.tally.buffers.parts();
        ensure!(
            sums == (counted, answers as u64),
            "all buffers hold {counted} and {answers} bytes, and {sums:?} are counted"
        );
        Ok(())
    }

    /// Checks the list of connections to the HTTP port. It contains each connection that is not
    /// closing, no connection twice, and at most `limits.max_http_connections`.
    fn check_http(&self) -> Result<(), String> {
        let once: BTreeSet<&ConnId> = self.http.iter().collect();
        ensure!(
            once.len() == self.http.len(),
            "an HTTP connection is listed twice"
        );
        for (id, slot) in self.sessions.iter() {
            let Session::Http(http) = &slot.session else {
                continue;
            };
            ensure!(
                once.contains(&id) || http.disposition() == Disposition::Close,
                "HTTP connection {} is not counted",
                id.serial()
            );
        }
        let most = self.settings.limits.max_http_connections.to_count();
        ensure!(
            self.http.len() <= most,
            "{} connections to the HTTP port are open, and {most} are allowed",
            self.http.len()
        );
        Ok(())
    }

    /// Checks that the numbers of admitted and rejected clients are right. A client that waits must
    /// be listed either in its call or in an answer, not in both. A proxy's connection without a
    /// header must be dirty or in `unidentified`.
    fn check_clients(&self) -> Result<(), String> {
        let (mut admitted, mut rejected) = (0, 0);
        for (id, slot) in self.sessions.iter() {
            let Session::Client(client) = &slot.session else {
                continue;
            };
            match client.is_rejected() {
                true => rejected += 1,
                false => admitted += 1,
            }
            let Some(call) = client.awaited_call() else {
                continue;
            };
            let is_asker = self
                .calls
                .get(call)
                .is_some_and(|call| call.waiters().iter().any(|asker| asker.id == id));
            let is_answered = self.answers.iter().any(|(askers, _)| askers.contains(&id));
            ensure!(
                is_asker != is_answered,
                "client {} waits for call {}, which does not know it",
                id.serial(),
                call.serial()
            );
        }
        for (id, slot) in self.sessions.iter() {
            let is_unidentified = matches!(slot.session, Session::Proxied(_));
            ensure!(
                !is_unidentified || self.unidentified.contains(&id) || slot.is_dirty,
                "connection {} has no client yet and is not counted",
                id.serial()
            );
        }
        self.admission.check_invariants(admitted, rejected)
    }

    /// Checks that the link of each neighbour is a connection to that neighbour. Each unproven link
    /// must be closing or in `unproven`. The feed (the table's list of changes) must have the
    /// readers of all links, and at most two more.
    fn check_links(&self) -> Result<(), String> {
        for neighbour_id in self.herd.ids() {
            let neighbour = self.herd.get(neighbour_id);
            let Some(id) = neighbour.link() else {
                continue;
            };
            let name = neighbour.name();
            let link = self.sessions.get(id).map(|slot| &slot.session);
            ensure!(
                matches!(link, Some(Session::Link(link)) if link.neighbour() == Some(neighbour_id)),
                "the link of {name} is another connection, or none"
            );
        }
        for (id, slot) in self.sessions.iter() {
            if let Session::Link(link) = &slot.session {
                let is_listed = self.unproven.contains(id);
                ensure!(
                    is_listed || link.is_known() || link.is_closing(),
                    "link {} is unproven and not counted",
                    id.serial()
                );
                if let Some(reader) = link.reader() {
                    ensure!(
                        self.records.has_reader(reader),
                        "link {} has no place in the feed",
                        id.serial()
                    );
                }
            }
        }
        let is_following = |id: &ConnId| {
            let link = self.sessions.get(*id).and_then(|slot| slot.session.link());
            link.is_some_and(|link| link.reader().is_some() && link.neighbour().is_none())
        };
        ensure!(
            self.herd.followers().iter().all(is_following),
            "a follower is another connection, or none"
        );
        let readers = self.sessions.iter().filter(
            |(_, slot)| matches!(&slot.session, Session::Link(link) if link.reader().is_some()),
        );
        let (links, all) = (readers.count(), self.records.readers());
        // The journal has up to two readers: one for changes that are not in the journal, and one
        // that copies the table.
        ensure!(
            (links..=links + 2).contains(&all),
            "{all} places in the feed for {links} links"
        );
        Ok(())
    }

    /// Checks that the connections in the pool are idle, and that each exchange (a connection to
    /// Places) is listed in its call (the question that it carries). Also checks the number of
    /// connections to Places.
    fn check_exchanges(&self) -> Result<(), String> {
        let exchange = |id: ConnId| self.sessions.get(id)?.session.exchange();
        for &id in self.calls.idle_connections() {
            let is_idle = exchange(id).is_some_and(|it| it.is_idle());
            ensure!(
                is_idle,
                "connection {} is in the pool and not idle",
                id.serial()
            );
        }
        let mut made = 0;
        for (id, slot) in self.sessions.iter() {
            let Session::Exchange(exchange) = &slot.session else {
                continue;
            };
            made += usize::from(exchange.handshake_done());
            let Some(call) = exchange.call() else {
                continue;
            };
            let is_listed = self
                .calls
                .get(call)
                .is_some_and(|call| call.connections().contains(&id));
            ensure!(
                is_listed,
                "connection {} is for call {}, which has others",
                id.serial(),
                call.serial()
            );
        }
        ensure!(
            made == self.calls.connections(),
            "{made} connections to Places are made, and {} are counted",
            self.calls.connections()
        );
        Ok(())
    }
}
