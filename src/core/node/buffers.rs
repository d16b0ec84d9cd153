//! How a [`Node`] keeps the buffers of all connections within one budget: see
//! [`crate::core::session::buffer_budget`].

use std::cmp::Reverse;

use super::session::Session;
use super::{ConnId, Node, Slot, Timer, context};
use crate::core::base::clock::{Now, Time};
use crate::core::base::limits::Limits;
use crate::core::client::proxied::Refusal;
use crate::core::session::buffer_budget::{EvictableKind, Eviction};
use crate::core::session::herd::LinkError;
use crate::core::session::protocol::Protocol;
use crate::core::session::tls::TlsSession;

/// The buffers of idle clients over TLS may use the budget except a quarter. This divisor gives the
/// quarter, which is for connections that are not idle.
const NON_IDLE_DIVISOR: u64 = 4;

/// Returns the number of idle clients over TLS for which `limits.buffer_bytes` is enough. Further
/// clients are refused: otherwise an idle client would have to be evicted for them. `None` if there
/// is no maximum.
#[must_use]
pub fn clients_over_tls(limits: &Limits) -> Option<u64> {
    let idle_bytes = limits.buffer_bytes - limits.buffer_bytes / NON_IDLE_DIVISOR;
    (idle_bytes > 0).then(|| idle_bytes / TlsSession::MIN_HELD_BYTES as u64)
}

impl Slot {
    /// Returns the number of bytes of memory that the connection's buffers hold.
    #[inline]
    pub(super) fn held_bytes(&self) -> usize {
        let tls = match &self.tls {
            None => 0,
            Some(tls) => tls.held_bytes(),
        };
        self.session.held_bytes() + tls
    }

    /// Returns the number of bytes that the connection holds even if it is idle.
    #[inline]
    pub(super) fn idle_held_bytes(&self) -> usize {
        match &self.tls {
            None => 0,
            Some(_) => TlsSession::MIN_HELD_BYTES,
        }
    }

    /// Returns the connection's kind, or `None` if the connection is never evicted. A link to a
    /// known neighbour is never evicted: its buffers are small, because unsent records stay in the
    /// table's feed (the list of changes that all links share).
    fn evictable(&self) -> Option<EvictableKind> {
        match &self.session {
            Session::Client(_) => Some(EvictableKind::Client),
            Session::Proxied(_) => Some(EvictableKind::Unidentified),
            Session::Link(link) if !link.is_known() => Some(EvictableKind::Unproven),
            Session::Link(_) => None,
            Session::Exchange(_) => Some(EvictableKind::Exchange),
            Session::Http(_) => Some(EvictableKind::Http),
        }
    }

    /// Returns the connection's rank. Connections with a greater rank are evicted first. The rank
    /// is bytes times age, then bytes. For the product, only the bytes count that the connection
    /// holds above what it would hold if it were idle.
    fn rank(&self, now: Time) -> (u64, u64) {
        let bytes = self.usage.bytes_above(self.idle_held_bytes());
        let age_ms = self.usage.age(now).as_millis() as u64;
        (bytes.saturating_mul(age_ms + 1), self.usage.bytes())
    }
}

impl Node {
    /// Counts the connection's buffers again. Call this if the output has grown after
    /// [`Node::poll_disposition`] counted the buffers.
    #[inline]
    pub fn handle_flushed(&mut self, id: ConnId, now: Now) {
        self.account(id, now.time);
    }

    #[inline]
    pub(super) fn account(&mut self, id: ConnId, now: Time) {
        if let Some(slot) = self.sessions.get_mut(id) {
            let (bytes, idle_bytes) = (slot.held_bytes(), slot.idle_held_bytes());
            self.tally
                .buffers
                .account(&mut slot.usage, bytes, idle_bytes, now);
        }
    }

    /// If all buffers together hold more than the budget, closes connections until the sum is low
    /// enough. The connections are sorted once.
    #[cold]
    pub(super) fn evict(&mut self) {
        let now = self.now;
        let mut holders: Vec<((u64, u64), ConnId)> = self
            .sessions
            .iter()
            .filter(|(_, slot)| slot.usage.bytes() > 0 && slot.evictable().is_some())
            .map(|(id, slot)| (slot.rank(now.time), id))
            .collect();
        holders.sort_unstable_by_key(|&(rank, id)| (Reverse(rank), id));
        for (_, id) in holders {
            if self.tally.buffers.is_below_target() {
                break;
            }
            self.evict_one(id, now);
        }
        let buffers = &mut self.tally.buffers;
        if let Some(due) = buffers.end_eviction(&self.settings.limits, now.time) {
            self.deadlines.call_at(due, Timer::LogEvictions);
        }
    }

    pub(super) fn log_evictions(&mut self, now: Now) {
        let limits = &self.settings.limits;
        self.tally.buffers.log_evictions(limits, now.time);
    }

    /// Closes connection `id` and frees its buffers. No more bytes are sent on the connection.
    fn evict_one(&mut self, id: ConnId, now: Now) {
        let Some(slot) = self.sessions.get_mut(id) else {
            return;
        };
        let Some(kind) = slot.evictable() else {
            return;
        };
        let eviction = Eviction {
            bytes: slot.usage.bytes(),
            age_ms: slot.usage.age(now.time).as_millis() as u64,
        };
        // The TLS session is dropped first, so no alert and no `close_notify` is sent.
        slot.tls = None;
        match &mut slot.session {
            Session::Client(client) => {
                let call = client.evict(eviction, &mut context!(self, None, now));
                if let Some(call) = call {
                    self.asker_lost(call, id, now);
                }
            }
            Session::Proxied(_) => self.refuse_proxied(id, Refusal::Evicted(eviction)),
            Session::Link(link) => link.abort(LinkError::Evicted(eviction), now.time),
            Session::Exchange(exchange) => {
                let effect = exchange.evict(eviction, &self.settings.limits);
                if let Some(effect) = effect {
                    self.apply_exchange_effect(id, effect, now);
                }
            }
            Session::Http(http) => http.evict(eviction),
        }
        self.mark_dirty(id);
        self.account(id, now.time);
        self.tally.counters.evicted += 1;
        self.tally.buffers.count_eviction(kind, eviction.bytes);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::net::SocketAddr;

    use super::super::tests::at;
    use super::*;
    use crate::config::{HerdConfig, Overrides, Source};
    use crate::core::base::settings::Secret;
    use crate::core::journal::durability::{DiskDone, DiskWork};
    use crate::core::node::{Io, Request, Wants, drive};
    use crate::core::session::connection_error::SocketError;

    /// Simulated sockets. Each write to a socket accepts the number of bytes in `taken`. A socket
    /// that is not in `taken` is not writable.
    #[derive(Default)]
    struct Sockets {
        now: u64,
        taken: BTreeMap<ConnId, usize>,
        closed: BTreeSet<ConnId>,
    }

    impl Io for Sockets {
        fn now(&mut self) -> Now {
            at(self.now)
        }

        fn connect(&mut self, _: ConnId, _: SocketAddr) -> Result<(), SocketError> {
            Ok(())
        }

        fn resolve(&mut self, _: &str) -> Result<(), String> {
            Ok(())
        }

        fn perform(&mut self, _: &Node, _: DiskWork) -> Option<DiskDone> {
            None
        }

        fn is_writable(&self, id: ConnId) -> bool {
            self.taken.contains_key(&id)
        }

        fn write(&mut self, id: ConnId, bytes: &[u8]) -> Result<usize, SocketError> {
            Ok(self.taken[&id].min(bytes.len()))
        }

        fn finish(&mut self, _: ConnId) {}

        fn close(&mut self, id: ConnId, _: Option<&SocketError>) {
            self.closed.insert(id);
        }

        fn flushed(&mut self, _: &Node, _: ConnId, _: Wants) {}
    }

    struct Scene {
        node: Node,
        sockets: Sockets,
    }

    impl Scene {
        fn new(buffer_bytes: u64) -> Scene {
            Scene::with(buffer_bytes, false)
        }

        fn with(buffer_bytes: u64, has_neighbours: bool) -> Scene {
            let herd = HerdConfig::load(&Source::Name, Some("Riley")).unwrap();
            let server = herd.server("Riley", &Overrides::default()).unwrap();
            let mut settings = server.settings;
            settings.neighbours.retain(|_| has_neighbours);
            settings.places.key = Some(Secret::new(b"a key of Google's".to_vec()));
            settings.limits = Limits {
                buffer_bytes,
                ..Limits::default()
            };
            Scene {
                node: Node::new(settings, &[7; 32], at(0)),
                sockets: Sockets::default(),
            }
        }

        fn client(&mut self) -> ConnId {
            let address = "192.0.2.1:1".parse().unwrap();
            let id = self.node.handle_client_connected(address, at(0)).unwrap();
            self.end_turn(0);
            id
        }

        /// Passes `bytes` from the connection to the server at the time `ms`, and ends the turn.
        fn send(&mut self, id: ConnId, bytes: &[u8], ms: u64) {
            self.node.handle_data_received(id, bytes, at(ms));
            self.end_turn(ms);
        }

        /// Sends commands whose answers have about `bytes` bytes together.
        fn ask(&mut self, id: ConnId, bytes: usize, ms: u64) {
            for _ in 0..bytes / 4_000 {
                self.send(id, &[&vec![b'x'; 3_997][..], b"\n"].concat(), ms);
            }
        }

        fn end_turn(&mut self, ms: u64) {
            self.sockets.now = ms;
            drive(&mut self.node, &mut self.sockets, at(ms));
            self.node.check_invariants().unwrap();
        }

        /// From now on, each write to the socket accepts `bytes` bytes. Ends a turn in which the
        /// server writes.
        fn take(&mut self, id: ConnId, bytes: usize, ms: u64) {
            self.sockets.taken.insert(id, bytes);
            self.node.handle_writable(id);
            self.end_turn(ms);
        }

        fn closed(&self) -> Vec<ConnId> {
            self.sockets.closed.iter().copied().collect()
        }
    }

    #[test]
    fn a_big_slow_reader_goes_before_a_big_fast_one_and_before_many_small_ones() {
        let mut scene = Scene::new(1_000_000);
        let [fast, slow] = [scene.client(), scene.client()];
        let small: Vec<ConnId> = (0..50).map(|_| scene.client()).collect();
        for &id in &small {
            scene.ask(id, 4_000, 0);
        }
        // Both clients have the same number of unread bytes, from the same time. The slow client
        // takes one byte per second, which hardly lowers its age.
        for id in [fast, slow] {
            scene.ask(id, 200_000, 0);
        }
        for second in 1..10 {
            scene.take(slow, 1, second * 1_000);
            scene.take(fast, 1_000_000, second * 1_000);
            scene.sockets.taken.clear();
            scene.ask(fast, 100_000, second * 1_000);
        }
        assert_eq!(scene.closed(), []);
        let late = scene.client();
        let mut asked = 0;
        while scene.closed().is_empty() {
            scene.ask(late, 4_000, 9_001);
            asked += 4_000;
            assert!(asked < 250_000, "the sum is bounded");
        }
        assert_eq!(scene.closed(), [slow]);
        assert_eq!(scene.node.tally.counters.evicted, 1);
        assert!(scene.node.tally.buffers.is_below_target());
        // The next evictions take the big clients that no longer read, although the small clients
        // have waited longer.
        while !scene.sockets.closed.contains(&fast) {
            let more = scene.client();
            scene.ask(more, 40_000, 30_000);
        }
        assert!(scene.sockets.closed.contains(&late));
        let gone = small.iter().filter(|id| scene.sockets.closed.contains(id));
        assert!(gone.count() <= 1, "they hold little");
    }

    #[test]
    fn one_scan_closes_as_many_as_are_needed_and_their_memory_is_free_at_once() {
        let mut scene = Scene::new(1_000_000);
        let ids: Vec<ConnId> = (0..100).map(|_| scene.client()).collect();
        for &id in &ids {
            scene.ask(id, 4_000, 0);
        }
        let held = scene.node.tally.buffers.held_bytes();
        assert!((400_000..1_000_000).contains(&held), "{held}");
        assert_eq!(scene.closed(), []);
        for &id in &ids {
            let many = b"x\n".repeat(4_000);
            scene.node.handle_data_received(id, &many, at(5));
        }
        scene.end_turn(5);
        assert!(
            (50..=80).contains(&scene.closed().len()),
            "{:?}",
            scene.closed()
        );
        let (tally, closed) = (&scene.node.tally, scene.closed().len());
        assert!(tally.buffers.is_below_target() && tally.buffers.held_bytes() > 800_000);
        assert_eq!(tally.counters.evicted, closed as u64);
    }

    #[test]
    fn an_evicted_client_is_sent_nothing_more_and_read_no_more() {
        let mut scene = Scene::new(100_000);
        let client = scene.client();
        scene.ask(client, 40_000, 0);
        assert!(scene.node.poll_output(client).len() > 30_000);
        scene.node.evict_one(client, at(1));
        assert!(scene.node.poll_output(client).is_empty() && !scene.node.wants_read(client));
        assert_eq!(scene.node.tally.buffers.held_bytes(), 0);
        scene.end_turn(1);
        assert_eq!(scene.closed(), [client]);
        // A connection that is lost without an eviction is not counted any more either.
        let client = scene.client();
        scene.ask(client, 40_000, 1);
        scene.node.handle_connection_lost(client, None, at(1));
        assert_eq!(scene.node.tally.buffers.held_bytes(), 0);
    }

    #[test]
    fn a_client_that_waits_for_places_can_be_evicted_and_leaves_its_call() {
        let mut scene = Scene::new(80_000);
        let waiting = scene.client();
        let name = "x".repeat(4_000);
        scene.send(waiting, format!("IAMAT {name} +1+2 3\n").as_bytes(), 0);
        scene.take(waiting, 10_000, 0);
        scene.sockets.taken.clear();
        let question = format!("WHATSAT {name} 10 5\n");
        scene.send(waiting, question.as_bytes(), 0);
        let held = scene.node.tally.buffers.held_bytes();
        assert!(held > 8_000, "the question is counted: {held}");
        assert!(scene.node.calls.first_waiting().is_some());
        // Bytes that the client sends after its question stay in the client's input buffer.
        scene.send(waiting, &vec![b'x'; 20_000], 0);
        let late = scene.client();
        scene.ask(late, 36_000, 5_000);
        assert_eq!(scene.closed(), [waiting]);
        assert!(
            scene.node.calls.first_waiting().is_none(),
            "no client waits"
        );
    }

    #[test]
    fn an_unproven_peer_and_a_connection_without_a_header_are_evicted_too() {
        let mut scene = Scene::new(40_000);
        let peer = "192.0.2.2:1".parse().unwrap();
        let unproven = scene.node.handle_neighbour_connected(peer, at(0)).unwrap();
        let unidentified = scene.node.proxy_connected(peer);
        scene.end_turn(0);
        scene.send(unproven, &vec![b'x'; 4_000], 0);
        let header = format!("PROXY UNKNOWN {}", "x".repeat(80));
        scene.send(unidentified, header.as_bytes(), 0);
        let client = scene.client();
        scene.ask(client, 40_000, 900);
        assert_eq!(scene.closed(), [unproven, unidentified, client]);
        assert_eq!(scene.node.tally.counters.evicted, 3);
        assert_eq!(scene.node.tally.buffers.held_bytes(), 0);
    }

    #[test]
    fn a_link_that_is_known_stays() {
        let mut scene = Scene::with(1_000, true);
        scene.end_turn(0);
        let links: Vec<ConnId> = scene.node.link_states().map(|(id, _)| id).collect();
        assert!(!links.is_empty(), "it dials");
        for &link in &links {
            scene.node.handle_connection_made(link, at(0));
        }
        scene.end_turn(0);
        let held = scene.node.tally.buffers.held_bytes();
        assert!(held > 1_000, "its first line: {held}");
        let client = scene.client();
        scene.ask(client, 8_000, 1);
        assert_eq!(scene.closed(), [client]);
        assert_eq!(scene.node.link_states().count(), links.len());
    }

    #[test]
    fn no_question_is_asked_while_many_answers_wait_for_their_clients() {
        let mut scene = Scene::new(80_000);
        let node = &mut scene.node;
        node.tally.buffers.add_answer(10_001);
        let address = "192.0.2.1:1".parse().unwrap();
        let client = node.handle_client_connected(address, at(0)).unwrap();
        node.handle_data_received(client, b"IAMAT x +1+2 3\nWHATSAT x 10 5\n", at(0));
        assert_eq!(node.poll_request(), None);
        node.tally.buffers.remove_answer(10_001);
        node.handle_deadlines(at(1));
        assert!(matches!(node.poll_request(), Some(Request::Resolve { .. })));
    }
}
