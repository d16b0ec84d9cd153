//! The state of one journal file, as the core knows it: its length and its reserved room.

use std::time::Duration;

use super::disk_work::{DiskError, DiskErrorKind, DiskWork, FileId};
use crate::core::base::clock::Time;
use crate::core::journal::format::Salt;

/// The time between a failed request to the disk and the next attempt.
pub(super) const RETRY: Duration = Duration::from_secs(1);
/// If the disk refuses to reserve room, the next request is half as long. This is the minimum
/// number of bytes of such a shorter request.
const MIN_RESERVE_BYTES: u64 = 4 << 10;

/// The state of one journal file.
#[derive(Clone, Debug)]
pub(super) struct JournalFile {
    pub(super) id: FileId,
    pub(super) salt: Salt,
    /// The number of bytes that are written.
    pub(super) length: u64,
    /// The number of bytes of the append that is in progress.
    pub(super) in_flight_bytes: u64,
    /// The offset up to which room is reserved.
    pub(super) reserved: u64,
    /// The offset up to which room is being reserved.
    reserving: Option<u64>,
    reserving_since: Time,
    /// How many times the next request is halved, because the disk refused longer requests.
    halvings: u32,
    /// The time since which the disk is known to have no room for this file.
    full_since: Option<Time>,
    /// The offset up to which this file was synced when the switch to this file was requested.
    pub(super) synced: u64,
}

impl JournalFile {
    /// Describes a file of `length` bytes, without reserved room behind them.
    pub(super) fn new(id: FileId, salt: Salt, length: u64) -> JournalFile {
        JournalFile {
            id,
            salt,
            length,
            in_flight_bytes: 0,
            reserved: length,
            reserving: None,
            reserving_since: Time::default(),
            halvings: 0,
            full_since: None,
            synced: 0,
        }
    }

    /// Whether nothing was written to this file, and no append to it is in progress.
    pub(super) fn is_unwritten(&self) -> bool {
        self.length + self.in_flight_bytes == 0
    }

    /// Requests room up to the offset `target`. Returns `None` if this room is reserved already, if
    /// a reservation is in progress, or if the disk refused a reservation less than [`RETRY`] ago.
    pub(super) fn reserve(&mut self, target: u64, now: Time) -> Option<DiskWork> {
        let must_wait = self.full_since.is_some_and(|since| now < since + RETRY);
        if self.reserving.is_some() || must_wait || target <= self.reserved {
            return None;
        }
        let wanted = target - self.reserved;
        let bytes = (wanted >> self.halvings).max(wanted.min(MIN_RESERVE_BYTES));
        self.reserving = Some(self.reserved + bytes);
        self.reserving_since = now;
        Some(DiskWork::Reserve {
            file: self.id,
            offset: self.reserved,
            bytes,
        })
    }

    /// Handles the result of a reservation. Returns the disk's error. Returns `None` after a
    /// success, and if a shorter reservation is requested next.
    pub(super) fn reserve_done(
        &mut self,
        outcome: Result<(), DiskError>,
        now: Time,
    ) -> Option<DiskError> {
        let end = self.reserving.take().unwrap_or(self.reserved);
        match outcome {
            Ok(()) => {
                self.reserved = self.reserved.max(end);
                self.full_since = None;
                self.halvings = 0;
                None
            }
            Err(error)
                if error.kind == DiskErrorKind::Full && end - self.reserved > MIN_RESERVE_BYTES =>
            {
                self.halvings += 1;
                None
            }
            Err(error) => {
                self.full_since = Some(now);
                self.halvings = 0;
                Some(error)
            }
        }
    }

    /// Returns the time at which the reservation in progress began.
    pub(super) fn reserving_since(&self) -> Option<Time> {
        self.reserving.map(|_| self.reserving_since)
    }

    /// Whether the disk is known to have no room for this file.
    pub(super) fn is_full(&self) -> bool {
        self.full_since.is_some()
    }

    /// Forgets that the disk had no room, so that room is requested again at once.
    pub(super) fn clear_full(&mut self) {
        self.full_since = None;
    }

    /// Returns the time at which refused room is requested again.
    pub(super) fn retry_at(&self) -> Option<Time> {
        let since = self.full_since.filter(|_| self.reserving.is_none())?;
        Some(since + RETRY)
    }
}
