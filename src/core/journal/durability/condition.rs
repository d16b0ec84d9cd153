//! How the disk is, for an operator.

use super::{Durability, JournalFile};
use crate::core::base::clock::Time;

/// How the disk is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// It has done what it was asked.
    Well,
    /// Something that it was asked is not done: a write, a sync, or room.
    Busy {
        /// Since when, at the longest.
        since: Time,
    },
    /// `IAMAT`s are refused, because there is no room for them.
    Refusing {
        /// Since when.
        since: Time,
        /// So many bytes have to be free, about.
        wanted_bytes: u64,
    },
}

impl Durability {
    /// How the disk is.
    #[must_use]
    pub fn condition(&self) -> Condition {
        if self.refuses {
            return Condition::Refusing {
                since: self.refuses_since,
                wanted_bytes: self.wanted_bytes,
            };
        }
        let batch = &self.batch;
        let waits = [
            batch.is_on_its_way.then_some(batch.on_its_way_since),
            batch.refused_since,
            self.syncing.map(|syncing| syncing.since),
            self.current.reserving_since(),
            self.next.as_ref().and_then(JournalFile::reserving_since),
        ];
        match waits.into_iter().flatten().min() {
            Some(since) => Condition::Busy { since },
            None => Condition::Well,
        }
    }
}
