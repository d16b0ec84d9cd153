//! Decides whether a [`Node`] should get clients. `/healthz/ready` returns the result.
//!
//! Readiness is not liveness: a server that is not ready should not be restarted, because a restart
//! does not help. A neighbour that is down does not make this server unready. Otherwise one failure
//! would take the whole herd out of service.

use std::fmt;

use super::{Node, Phase};
use crate::core::base::clock::Time;
use crate::core::journal::durability::{Condition, Durability};

/// Why a server should get no clients now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unready {
    /// The server is stopping.
    Stopping,
    /// The server drains: it closes its clients one after another, and accepts no new clients.
    Draining,
    /// The disk has no space for new records.
    DiskRefuses {
        /// How long the disk has refused space, in milliseconds.
        for_ms: u64,
        /// The number of bytes that must be free.
        wanted_bytes: u64,
    },
    /// The neighbour with this name is linked, but has not sent all records that it had when the
    /// link began.
    CatchingUp(String),
    /// This server has just started, and no attempt to link with the neighbour of this name has
    /// succeeded or failed yet.
    NotTried(String),
}

impl fmt::Display for Unready {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unready::Stopping => f.write_str("it is stopping"),
            Unready::Draining => f.write_str("it is draining"),
            Unready::DiskRefuses {
                for_ms,
                wanted_bytes,
            } => write!(
                f,
                "the disk has had no room for records for {for_ms} ms; about {wanted_bytes} bytes must be free"
            ),
            Unready::CatchingUp(name) => {
                write!(f, "neighbour {name} is still sending what it knows")
            }
            Unready::NotTried(name) => {
                write!(f, "it is not known yet whether neighbour {name} is up")
            }
        }
    }
}

impl Node {
    /// Returns the reasons why the server should get no clients now. The list is empty if the
    /// server is ready. A server that still reads its journal at start answers no request, so the
    /// list needs no reason for that.
    #[must_use]
    pub fn unready(&self, now: Time) -> Vec<Unready> {
        let mut reasons = Vec::new();
        match self.phase {
            Phase::Running => {}
            Phase::Draining => reasons.push(Unready::Draining),
            Phase::Stopping | Phase::Overdue => reasons.push(Unready::Stopping),
        }
        let durability = self
            .journal
            .as_ref()
            .map(|journal| journal.durability_ref());
        match durability.map(Durability::condition) {
            Some(Condition::Refusing {
                since,
                wanted_bytes,
            }) => reasons.push(Unready::DiskRefuses {
                for_ms: now.since(since).as_millis() as u64,
                wanted_bytes,
            }),
            Some(Condition::Healthy | Condition::Busy { .. }) | None => {}
        }
        let limits = &self.settings.limits;
        // At this time, each running neighbour that dials this server has made at least one
        // attempt.
        let tried_at = self
            .began
            .time
            .plus_ms(limits.link_connect_ms + limits.redial_cap_ms);
        for neighbour in self.herd.iter() {
            let name = || neighbour.name().to_owned();
            match neighbour.link() {
                Some(id) => {
                    let link = self.sessions.get(id).and_then(|slot| slot.session.link());
                    if link.is_some_and(|link| !link.is_caught_up(now)) {
                        reasons.push(Unready::CatchingUp(name()));
                    }
                }
                None => {
                    let was_linked = neighbour.unlinked_since() > Time::default();
                    let is_known = neighbour.failures() > 0 || was_linked || now >= tried_at;
                    if !is_known {
                        reasons.push(Unready::NotTried(name()));
                    }
                }
            }
        }
        reasons
    }
}
