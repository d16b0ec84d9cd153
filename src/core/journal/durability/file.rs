//! One of the journal's files, as far as it is known here: how long it is, and how much room it
//! has.

use std::time::Duration;

use super::disk_work::{DiskError, DiskErrorKind, DiskWork, FileId};
use crate::core::base::clock::Time;
use crate::core::journal::format::Salt;

/// How long after a failure the disk is asked again.
pub(super) const RETRY: Duration = Duration::from_secs(1);
/// A disk that has no room for a piece is asked for half of it, down to so many bytes.
const LEAST_PIECE: u64 = 4 << 10;

/// A file of the journal.
#[derive(Clone, Debug)]
pub(super) struct JournalFile {
    pub(super) id: FileId,
    pub(super) salt: Salt,
    /// Bytes that were written into it.
    pub(super) length: u64,
    /// Bytes that are being written behind them.
    pub(super) on_its_way: u64,
    /// Up to where it has room.
    pub(super) reserved: u64,
    /// Up to where room is being reserved.
    reserving: Option<u64>,
    reserving_since: Time,
    /// How often the piece that was asked for last was halved.
    halved: u32,
    /// Since when the disk is known to have no room for it.
    full_since: Option<Time>,
    /// Up to where it was synced before it became the journal.
    pub(super) synced: u64,
}

impl JournalFile {
    /// A file with so many bytes and no room behind them.
    pub(super) fn new(id: FileId, salt: Salt, length: u64) -> JournalFile {
        JournalFile {
            id,
            salt,
            length,
            on_its_way: 0,
            reserved: length,
            reserving: None,
            reserving_since: Time::default(),
            halved: 0,
            full_since: None,
            synced: 0,
        }
    }

    /// Whether nothing was written into it.
    pub(super) fn is_untouched(&self) -> bool {
        self.length + self.on_its_way == 0
    }

    /// Asks for room up to `target`, unless it is there, being reserved, or was refused a moment
    /// ago.
    pub(super) fn reserve(&mut self, target: u64, now: Time) -> Option<DiskWork> {
        let waits = self.full_since.is_some_and(|since| now < since + RETRY);
        if self.reserving.is_some() || waits || target <= self.reserved {
            return None;
        }
        let wanted = target - self.reserved;
        let bytes = (wanted >> self.halved).max(wanted.min(LEAST_PIECE));
        self.reserving = Some(self.reserved + bytes);
        self.reserving_since = now;
        Some(DiskWork::Reserve {
            file: self.id,
            offset: self.reserved,
            bytes,
        })
    }

    /// The disk has answered. Returns why there is no room, if that is final for now.
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
                self.halved = 0;
                None
            }
            Err(error)
                if error.kind == DiskErrorKind::Full && end - self.reserved > LEAST_PIECE =>
            {
                self.halved += 1;
                None
            }
            Err(error) => {
                self.full_since = Some(now);
                self.halved = 0;
                Some(error)
            }
        }
    }

    /// Since when room is being reserved.
    pub(super) fn reserving_since(&self) -> Option<Time> {
        self.reserving.map(|_| self.reserving_since)
    }

    /// Whether the disk is known to have no room for it.
    pub(super) fn is_full(&self) -> bool {
        self.full_since.is_some()
    }

    /// The disk had no room, and may have some now.
    pub(super) fn ask_again(&mut self) {
        self.full_since = None;
    }

    /// When it is to be asked again for room that it refused.
    pub(super) fn retry_at(&self) -> Option<Time> {
        let since = self.full_since.filter(|_| self.reserving.is_none())?;
        Some(since + RETRY)
    }
}
