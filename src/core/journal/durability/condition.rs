//! The condition of the disk, for an operator.

use super::{Durability, JournalFile};
use crate::core::base::clock::Time;

/// The condition of the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// No requested write, sync or reservation is left to do.
    Healthy,
    /// Some requested work is not done yet: a write, a sync or a reservation.
    Busy {
        /// The time since which the oldest of this work waits.
        since: Time,
    },
    /// `IAMAT`s (the commands with which clients report positions) are refused, because the journal
    /// files have no space for their entries.
    Refusing {
        /// The time since which `IAMAT`s are refused.
        since: Time,
        /// About how many bytes must be free on the disk before `IAMAT`s are accepted again.
        wanted_bytes: u64,
    },
}

impl Durability {
    /// Returns the condition of the disk.
    #[must_use]
    pub fn condition(&self) -> Condition {
        if self.is_refusing {
            return Condition::Refusing {
                since: self.refusing_since,
                wanted_bytes: self.wanted_bytes,
            };
        }
        let batch = &self.batch;
        let waits = [
            batch.is_in_flight.then_some(batch.in_flight_since),
            batch.refused_since,
            self.syncing.map(|syncing| syncing.since),
            self.current.reserving_since(),
            self.next.as_ref().and_then(JournalFile::reserving_since),
        ];
        match waits.into_iter().flatten().min() {
            Some(since) => Condition::Busy { since },
            None => Condition::Healthy,
        }
    }
}
