//! The queue of calls that wait for a connection to Places. A *call* is one question to Places,
//! with all clients that asked it. In the queue, the origins of the clients take turns.
//!
//! ```text
//!   retried   ──────────────────────────► c9 ┐   first: it has used its turn
//!   192.0.2.1 ─ c1 c4 c5 c6 c7 ─┐            │
//!   192.0.2.2 ─ c2              ├─ in turn ──┴──► a connection
//!   192.0.2.3 ─ c3 c8 ──────────┘
//! ```
//!
//! An *origin* is the address of clients that share limits: an IPv4 address, or the first 64 bits
//! of an IPv6 address. The calls of one origin are a *flow*, as in fair queueing (RFC 970). The
//! queue serves the flows round-robin: at the turn of an origin, the oldest call of its flow leaves
//! the queue. So an origin with many calls does not delay the calls of another origin. If the queue
//! is full, a new call displaces the newest call of the origin that has the most calls in the
//! queue. So an origin that floods the queue displaces only its own calls.
//!
//! # Calls that several origins share
//!
//! Clients with the same question share a call. A shared call is in the flow of each of its
//! origins. It leaves the queue at the earliest turn of these origins, and uses up only that turn.
//! All clients of the call get the answer.
//!
//! If one of these origins has the most calls, the shared call loses its entry in that flow only.
//! It still leaves the queue at a turn of the other origins. It is displaced only when it is in no
//! flow any more. So two origins cannot protect their calls from displacement by sharing them.
//!
//! Each operation on the flows takes O(log n) time for n waiting calls.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;

use crate::core::base::invariants::ensure;
use crate::core::places::call::CallId;

/// A number that orders the calls by age. A newer call has a greater ticket.
pub(super) type Ticket = u64;

/// The waiting calls of one origin.
#[derive(Debug)]
struct Flow {
    calls: BTreeMap<Ticket, CallId>,
    /// The key in [`Queue::order`] of the origin to which this flow belongs. The origin with the
    /// smallest key has the next turn.
    order_key: u64,
}

impl Flow {
    /// Returns the key of this flow in [`Queue::sizes`].
    fn size_key(&self, origin: IpAddr) -> (usize, Ticket, IpAddr) {
        let newest = self.calls.last_key_value().map(|(ticket, _)| *ticket);
        (self.calls.len(), newest.unwrap_or_default(), origin)
    }
}

/// The first call of the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct First {
    /// The call.
    pub(super) id: CallId,
    /// The origin whose turn it is. `None` if the call is a retried call.
    pub(super) origin: Option<IpAddr>,
}

/// The newest call of the origin that has the most calls in the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Newest {
    pub(super) id: CallId,
    pub(super) origin: IpAddr,
    pub(super) ticket: Ticket,
    /// The number of calls that the origin has in the queue.
    pub(super) count: usize,
}

/// The queue. No flow is empty. Each flow has one entry in `order` and one entry in `sizes`.
#[derive(Debug, Default)]
pub(super) struct Queue {
    /// Calls whose connection failed or gave no answer in time. These calls have already used a
    /// turn, and are never displaced.
    retried: VecDeque<CallId>,
    flows: BTreeMap<IpAddr, Flow>,
    /// The origins in the order of their next turns. Each key is used once, and a later key is
    /// greater.
    order: BTreeMap<u64, IpAddr>,
    /// The origins in the order of the number of their calls. If two origins have the same number,
    /// the origin with the newer call is later.
    sizes: BTreeSet<(usize, Ticket, IpAddr)>,
    last_order_key: u64,
}

impl Queue {
    /// Whether no call waits.
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.flows.is_empty() && self.retried.is_empty()
    }

    /// Adds the call to the flow of `origin`. If `origin` has no flow, creates the flow, and
    /// `origin` gets a turn after all other origins.
    pub(super) fn enqueue(&mut self, origin: IpAddr, ticket: Ticket, id: CallId) {
        let (order, last_order_key) = (&mut self.order, &mut self.last_order_key);
        let flow = self.flows.entry(origin).or_insert_with(|| {
            *last_order_key += 1;
            order.insert(*last_order_key, origin);
            Flow {
                calls: BTreeMap::new(),
                order_key: *last_order_key,
            }
        });
        self.sizes.remove(&flow.size_key(origin));
        flow.calls.insert(ticket, id);
        self.sizes.insert(flow.size_key(origin));
    }

    /// Removes the call from the flow of `origin`. Returns whether the flow contained the call.
    pub(super) fn remove(&mut self, origin: IpAddr, ticket: Ticket) -> bool {
        let Some(flow) = self.flows.get_mut(&origin) else {
            return false;
        };
        let size_key = flow.size_key(origin);
        if flow.calls.remove(&ticket).is_none() {
            return false;
        }
        self.sizes.remove(&size_key);
        if flow.calls.is_empty() {
            self.order.remove(&flow.order_key);
            self.flows.remove(&origin);
        } else {
            self.sizes.insert(flow.size_key(origin));
        }
        true
    }

    /// Puts a call that is retried before all other calls.
    pub(super) fn push_retried(&mut self, id: CallId) {
        self.retried.push_front(id);
    }

    /// Removes a retried call. The scan is short: there are at most as many retried calls as
    /// connections.
    pub(super) fn remove_retried(&mut self, id: CallId) {
        self.retried.retain(|&retried| retried != id);
    }

    /// Returns the call that leaves the queue next, without removing it.
    pub(super) fn first(&self) -> Option<First> {
        if let Some(&id) = self.retried.front() {
            return Some(First { id, origin: None });
        }
        let (_, origin) = self.order.first_key_value()?;
        let (_, id) = self.flows.get(origin)?.calls.first_key_value()?;
        Some(First {
            id: *id,
            origin: Some(*origin),
        })
    }

    /// Uses up the turn of `origin`. The next turn of `origin` comes after the turns of all other
    /// origins.
    pub(super) fn move_to_back(&mut self, origin: IpAddr) {
        let Some(flow) = self.flows.get_mut(&origin) else {
            return;
        };
        self.order.remove(&flow.order_key);
        self.last_order_key += 1;
        flow.order_key = self.last_order_key;
        self.order.insert(flow.order_key, origin);
    }

    /// Returns the number of calls that `origin` has in the queue.
    pub(super) fn count(&self, origin: IpAddr) -> usize {
        self.flows.get(&origin).map_or(0, |flow| flow.calls.len())
    }

    /// Returns the newest call of the origin that has the most calls in the queue.
    pub(super) fn newest_of_longest_flow(&self) -> Option<Newest> {
        let &(count, ticket, origin) = self.sizes.last()?;
        let id = *self.flows.get(&origin)?.calls.get(&ticket)?;
        Some(Newest {
            id,
            origin,
            ticket,
            count,
        })
    }

    /// Returns the origins that have calls in the queue. For tests.
    #[cfg(test)]
    pub(super) fn origins(&self) -> impl Iterator<Item = IpAddr> {
        self.flows.keys().copied()
    }

    /// Returns each entry of a call in the queue: the call, and the origin of the flow. The origin
    /// is `None` for a retried call. For tests.
    pub(super) fn entries(&self) -> impl Iterator<Item = (CallId, Option<IpAddr>)> {
        let queued = self.flows.iter().flat_map(|(origin, flow)| {
            let ids = flow.calls.values();
            ids.map(|id| (*id, Some(*origin)))
        });
        self.retried.iter().map(|id| (*id, None)).chain(queued)
    }

    /// Checks that the flows agree with the turns and the sizes. For tests.
    pub(super) fn check_invariants(&self) -> Result<(), String> {
        for (origin, flow) in &self.flows {
            ensure!(!flow.calls.is_empty(), "the flow of {origin} is empty");
            ensure!(
                self.order.get(&flow.order_key) == Some(origin),
                "{origin} has no turn"
            );
            ensure!(
                self.sizes.contains(&flow.size_key(*origin)),
                "the number of calls of {origin} is not listed"
            );
        }
        let count = self.flows.len();
        ensure!(
            self.order.len() == count && self.sizes.len() == count,
            "{count} origins wait, with {} turns and {} sizes",
            self.order.len(),
            self.sizes.len()
        );
        Ok(())
    }
}
