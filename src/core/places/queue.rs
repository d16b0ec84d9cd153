//! The queue of waiting calls, which is fair by origin.
//!
//! ```text
//!   retried   ──────────────────────────► c9 ┐   first: it has had its turn
//!   192.0.2.1 ─ c1 c4 c5 c6 c7 ─┐            │
//!   192.0.2.2 ─ c2              ├─ in turn ──┴──► a connection
//!   192.0.2.3 ─ c3 c8 ──────────┘
//! ```
//!
//! The calls of one origin are a flow, as in fair queueing (RFC 970). The origins take turns, and
//! the oldest call of a flow goes first. So many questions of one origin do not delay those of
//! another. If the queue is full, a new call displaces the newest call of the origin that has the
//! most. A flood fills only what the other origins leave.
//!
//! # Calls that several origins share
//!
//! Clients with the same question share a call. Such a call stands in the flow of each of their
//! origins, and goes at the earliest turn of any. The turns of the other origins are not used up.
//! When one of its origins has the most calls, the call loses its place in that flow only. It goes
//! at a turn of the others, and its answer is for all. It is displaced when it has no place left.
//! So two origins cannot protect their calls from displacement by sharing them.
//!
//! Each operation takes O(log n) time for n waiting calls.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;

use crate::core::base::invariants::hold;
use crate::core::places::call::CallId;

/// The age of a call. A newer call has a greater ticket.
pub(super) type Ticket = u64;

/// The calls of one origin that wait.
#[derive(Debug)]
struct Flow {
    calls: BTreeMap<Ticket, CallId>,
    /// The place of the origin among the turns.
    turn: u64,
}

impl Flow {
    /// Returns the key of this flow in [`Queue::sizes`].
    fn size(&self, origin: IpAddr) -> (usize, Ticket, IpAddr) {
        let newest = self.calls.last_key_value().map(|(ticket, _)| *ticket);
        (self.calls.len(), newest.unwrap_or_default(), origin)
    }
}

/// The first call of the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct First {
    /// The call.
    pub(super) id: CallId,
    /// The origin whose turn it is. `None` if the call was retried.
    pub(super) origin: Option<IpAddr>,
}

/// The newest call of the origin that has the most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Newest {
    pub(super) id: CallId,
    pub(super) origin: IpAddr,
    pub(super) ticket: Ticket,
    /// The number of calls that the origin has in the queue.
    pub(super) count: usize,
}

/// The queue. A flow is never empty, and has one entry in `turns` and one in `sizes`.
#[derive(Debug, Default)]
pub(super) struct Queue {
    /// Calls that lost their connection. They have had their turn, and none is displaced.
    retried: VecDeque<CallId>,
    flows: BTreeMap<IpAddr, Flow>,
    /// The origins by their turns.
    turns: BTreeMap<u64, IpAddr>,
    /// The origins by the number of their calls. Of two with the same number, the one with the
    /// newer call is later.
    sizes: BTreeSet<(usize, Ticket, IpAddr)>,
    last_turn: u64,
}

impl Queue {
    /// Whether no call waits.
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.flows.is_empty() && self.retried.is_empty()
    }

    /// Gives the call a place in the flow of `origin`. An origin without a flow gets its first
    /// turn after those of all others.
    pub(super) fn stand(&mut self, origin: IpAddr, ticket: Ticket, id: CallId) {
        let (turns, last_turn) = (&mut self.turns, &mut self.last_turn);
        let flow = self.flows.entry(origin).or_insert_with(|| {
            *last_turn += 1;
            turns.insert(*last_turn, origin);
            Flow {
                calls: BTreeMap::new(),
                turn: *last_turn,
            }
        });
        self.sizes.remove(&flow.size(origin));
        flow.calls.insert(ticket, id);
        self.sizes.insert(flow.size(origin));
    }

    /// Removes the call from the flow of `origin`. Returns whether it was there.
    pub(super) fn leave(&mut self, origin: IpAddr, ticket: Ticket) -> bool {
        let Some(flow) = self.flows.get_mut(&origin) else {
            return false;
        };
        let size = flow.size(origin);
        if flow.calls.remove(&ticket).is_none() {
            return false;
        }
        self.sizes.remove(&size);
        if flow.calls.is_empty() {
            self.turns.remove(&flow.turn);
            self.flows.remove(&origin);
        } else {
            self.sizes.insert(flow.size(origin));
        }
        true
    }

    /// Puts a call that lost its connection before all others.
    pub(super) fn retry(&mut self, id: CallId) {
        self.retried.push_front(id);
    }

    /// Removes a call that was retried. There are at most as many as connections.
    pub(super) fn leave_retried(&mut self, id: CallId) {
        self.retried.retain(|&retried| retried != id);
    }

    /// Returns the call that goes next.
    pub(super) fn first(&self) -> Option<First> {
        if let Some(&id) = self.retried.front() {
            return Some(First { id, origin: None });
        }
        let (_, origin) = self.turns.first_key_value()?;
        let (_, id) = self.flows.get(origin)?.calls.first_key_value()?;
        Some(First {
            id: *id,
            origin: Some(*origin),
        })
    }

    /// Uses the present turn up, which has to be that of `origin`. The next turn of this origin
    /// comes after those of all others.
    pub(super) fn use_turn(&mut self, origin: IpAddr) {
        let Some(flow) = self.flows.get_mut(&origin) else {
            return;
        };
        self.turns.remove(&flow.turn);
        self.last_turn += 1;
        flow.turn = self.last_turn;
        self.turns.insert(flow.turn, origin);
    }

    /// Returns the number of calls that `origin` has in the queue.
    pub(super) fn count(&self, origin: IpAddr) -> usize {
        self.flows.get(&origin).map_or(0, |flow| flow.calls.len())
    }

    /// Returns the newest call of the origin that has the most.
    pub(super) fn newest_of_most(&self) -> Option<Newest> {
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

    /// Returns each place of a call in the queue: the call, and the origin if it is in a flow. For
    /// tests.
    pub(super) fn places(&self) -> impl Iterator<Item = (CallId, Option<IpAddr>)> {
        let queued = self.flows.iter().flat_map(|(origin, flow)| {
            let ids = flow.calls.values();
            ids.map(|id| (*id, Some(*origin)))
        });
        self.retried.iter().map(|id| (*id, None)).chain(queued)
    }

    /// Checks that the flows agree with the turns and the sizes. For tests.
    pub(super) fn check_invariants(&self) -> Result<(), String> {
        for (origin, flow) in &self.flows {
            hold!(!flow.calls.is_empty(), "the flow of {origin} is empty");
            hold!(
                self.turns.get(&flow.turn) == Some(origin),
                "{origin} has no turn"
            );
            hold!(
                self.sizes.contains(&flow.size(*origin)),
                "the number of calls of {origin} is not listed"
            );
        }
        let count = self.flows.len();
        hold!(
            self.turns.len() == count && self.sizes.len() == count,
            "{count} origins wait, with {} turns and {} sizes",
            self.turns.len(),
            self.sizes.len()
        );
        Ok(())
    }
}
