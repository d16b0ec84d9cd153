//! A drain: the server accepts no new clients, closes its clients one after another over
//! `limits.drain_ms`, and then stops. Links stay up until the stop.
//!
//! A client that was closed connects again to another server. A drain spreads these new
//! connections over time, as the lame duck mode of nats-server does.
//!
//! The caller closes the clients' port when [`Node::is_draining`] is true. A closed port refuses
//! connections, so a load balancer chooses another server at once. A client whose connection the
//! kernel had completed before the port was closed is served and drained like the others.

use std::collections::VecDeque;
use std::time::Duration;

use log::{debug, info};

use super::{ConnId, Node, Phase, Slot, Timer};
use crate::core::base::clock::{Now, Time};
use crate::core::base::counted::Counted;
use crate::core::base::limits::LimitValue;
use crate::core::client::{Activity, Client};

/// The minimum time between two steps of a drain. With many clients, one step closes several.
const LEAST_STEP: Duration = Duration::from_millis(10);
/// A step looks at no more than this number of clients, plus two for each client that it closes.
const LOOKS: usize = 256;

/// The progress of a drain.
#[derive(Default)]
pub(super) struct Drain {
    /// The clients for which [`Client::leave`] was not called yet. Ids of closed connections can be
    /// among them.
    queue: VecDeque<ConnId>,
    began: Time,
    ends: Time,
    next_step: Time,
    /// The number of clients for which [`Client::leave`] was called.
    told: u64,
}

impl Drain {
    /// Adds a client that has connected while the server drains.
    pub(super) fn add(&mut self, id: ConnId) {
        self.queue.push_back(id);
    }
}

impl Node {
    /// Begins to drain: see `draining.rs`. Does nothing if the server drains already or is
    /// stopping.
    pub fn handle_drain(&mut self, now: Now) {
        self.handle(now, |node| node.begin_drain(now));
    }

    /// Whether the server drains. Then the server is not ready for new clients, and the caller has
    /// to close the clients' port. Returns `false` again when the server
    /// [is stopping](Node::is_stopping).
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.phase == Phase::Draining
    }

    pub(super) fn begin_drain(&mut self, now: Now) {
        match self.phase {
            Phase::Running => {}
            Phase::Draining | Phase::Stopping | Phase::Overdue => return,
        }
        let drain_ms = self.settings.limits.drain_ms;
        let is_client = |(id, slot): (ConnId, &Slot)| slot.session.client().map(|_| id);
        let queue: VecDeque<ConnId> = self.sessions.iter().filter_map(is_client).collect();
        for id in &queue {
            if let Some(client) = self.client_mut(*id) {
                client.begin_drain();
            }
        }
        info!(
            "draining: {} to close within {drain_ms} ms, no new ones are accepted; then the server stops",
            Counted(self.admission.clients() as u64, "client")
        );
        let ends = now.time + drain_ms.to_duration();
        self.phase = Phase::Draining;
        self.tally.drain_ends = Some(ends);
        self.drain = Drain {
            queue,
            began: now.time,
            ends,
            next_step: now.time,
            told: 0,
        };
        // The first step comes later. Until then, a client whose connection the kernel had
        // completed before the drain can send a command.
        self.drain_again(ends.min(now.time + LEAST_STEP));
    }

    /// Ends the drain now, because the last client is closed.
    pub(super) fn end_drain_soon(&mut self) {
        self.deadlines.call_at(self.now.time, Timer::Drain);
    }

    /// Does the next step of a drain, if it is due.
    pub(super) fn drain_due(&mut self, now: Now) {
        if self.phase != Phase::Draining {
            return;
        }
        let clients = self.admission.clients();
        let left = self.drain.ends.since(now.time);
        if clients == 0 || left.is_zero() {
            info!(
                "drained: {} told to leave in {} ms, {} left; stopping",
                Counted(self.drain.told, "client"),
                now.time.since(self.drain.began).as_millis(),
                Counted(clients as u64, "client")
            );
            return self.stop(now);
        }
        if now.time < self.drain.next_step {
            return;
        }
        let waiting = self.drain.queue.len().min(clients);
        if waiting == 0 {
            return self.drain_again(self.drain.ends);
        }
        let each = left / u32::try_from(waiting).unwrap_or(u32::MAX);
        let step = each.max(LEAST_STEP).min(left);
        // The count is rounded up, so `leave` is called for the last client before the end.
        let count = (waiting as u128 * step.as_nanos()).div_ceil(left.as_nanos());
        self.tell_to_leave(usize::try_from(count).unwrap_or(waiting), now);
        self.drain_again(now.time + step);
    }

    fn drain_again(&mut self, at: Time) {
        self.drain.next_step = at;
        self.deadlines.call_at(at, Timer::Drain);
    }

    /// Calls [`Client::leave`] for at most `count` clients of the queue: first for silent clients,
    /// then for clients between two commands, then for busy clients (see [`Activity`]).
    fn tell_to_leave(&mut self, mut count: usize, now: Now) {
        let mut later = [const { Vec::new() }; 2];
        for _ in 0..LOOKS + 2 * count {
            if count == 0 {
                break;
            }
            let Some(id) = self.drain.queue.pop_front() else {
                break;
            };
            match self.client_mut(id).and_then(Client::activity) {
                None => {} // the client is closed or closing
                Some(Activity::Silent) => {
                    self.tell_one_to_leave(id, now);
                    count -= 1;
                }
                Some(Activity::BetweenCommands) => later[0].push(id),
                Some(Activity::Busy) => later[1].push(id),
            }
        }
        for id in later.into_iter().flatten() {
            match count {
                0 => self.drain.queue.push_back(id),
                _ => {
                    self.tell_one_to_leave(id, now);
                    count -= 1;
                }
            }
        }
    }

    fn tell_one_to_leave(&mut self, id: ConnId, now: Now) {
        self.drain.told += 1;
        self.on_session(id, now, |session, _| {
            let client = session.client_mut()?;
            debug!("{}: told to leave: the server drains", client.label());
            client.leave();
            None
        });
        self.mark_dirty(id);
    }

    fn client_mut(&mut self, id: ConnId) -> Option<&mut Client> {
        self.session(id)?.client_mut()
    }
}
