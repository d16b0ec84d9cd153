//! The state of one journal file in the core: its length and its reserved space.

use std::time::Duration;

use super::disk_work::{DiskError, DiskErrorKind, DiskWork, FileId};
use crate::core::base::clock::Time;
use crate::core::journal::format::Salt;

/// The time between a failed request to the disk and the next attempt.
pub(super) const RETRY: Duration = Duration::from_secs(1);
/// If the disk refuses to reserve space, the next request is half as long. This is the minimum
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
    /// The offset up to which space is reserved.
    pub(super) reserved: u64,
    /// The offset up to which space is being reserved.
    reserving: Option<u64>,
    reserving_since: Time,
    /// The number of times that the next request is halved, because the disk had no space for
    /// longer requests.
    halvings: u32,
    /// The time at which the last reservation for this file failed, and no shorter one is tried at
    /// once. `None` after a later success.
    full_since: Option<Time>,
    /// The offset up to which this file was synced before it became the journal.
    pub(super) synced: u64,
}

impl JournalFile {
    /// Creates the state of a file of `length` bytes, without reserved space after them.
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

    /// Whether the file is empty, and no append to it is in progress.
    pub(super) fn is_unwritten(&self) -> bool {
        self.length + self.in_flight_bytes == 0
    }

    /// Requests space up to the offset `target`. Returns `None` if this space is reserved already,
    /// if a reservation is in progress, or if the last reservation failed less than [`RETRY`] ago.
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

    /// Handles the result of a reservation. Returns the disk's error, or `None` after a success.
    /// Also returns `None` if the disk is full, but a shorter reservation is tried next.
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

    /// Whether the last reservation for this file failed, and no shorter one is tried at once.
    pub(super) fn is_full(&self) -> bool {
        self.full_since.is_some()
    }

    /// Forgets the last failed reservation. So space is requested again at once, and not only after
    /// [`RETRY`].
    pub(super) fn clear_full(&mut self) {
        self.full_since = None;
    }

    /// Returns the time at which refused space is requested again.
    pub(super) fn retry_at(&self) -> Option<Time> {
        let since = self.full_since.filter(|_| self.reserving.is_none())?;
        Some(since + RETRY)
    }
}
