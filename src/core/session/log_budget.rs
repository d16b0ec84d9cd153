//! How much the log says of what clients do wrong.
//!
//! ```text
//!   a line about a client ──► its own share ──► the budget of all ──► the log
//!                                  └────── no room ─────┴──► counted ──► one line, once a period
//! ```
//!
//! Any client can send what is wrong, as often as it likes. Without a bound it fills the disk, and
//! hides the lines of others. A command that is answered is logged whatever else is; these bounds
//! are for what is invalid, refused or fails.
//!
//! What is left out is counted for each client, and told in one line when a period is over or the
//! client is gone. Where the budget of all has no room for that line either, its count goes into
//! the one line about all clients. So the log is bounded, and each line that is left out is
//! counted.

use log::warn;

use crate::core::base::bucket::{Bucket, Size};
use crate::core::base::clock::Time;
use crate::core::base::counted::Counted;
use crate::core::base::limits::{LimitValue, Limits};
use crate::core::session::peer_label::PeerLabel;

/// About what a line has beside what it quotes: its time, its level and the client's address.
const LINE_BYTES: usize = 96;
/// About what a line has that tells of lines which were left out.
const LEFT_OUT_BYTES: u64 = 192;

/// Lines of the log that may be written, or left out.
#[derive(Clone, Copy, Debug)]
pub struct Lines {
    /// How many.
    pub count: u64,
    /// What they quote, each of them.
    pub quoted_bytes: usize,
}

impl Lines {
    fn bytes(self) -> u64 {
        self.count * (LINE_BYTES + self.quoted_bytes) as u64
    }
}

/// What all clients share.
#[derive(Default)]
pub struct LogBudget {
    clients: Bucket,
    /// Of its own, so that no flood of wrong commands hides that Places fails.
    places: Bucket,
    /// Lines that were left out, and not told of yet.
    left_out: u64,
    /// When they are to be told of, until that is filed.
    due: Option<Time>,
}

/// What one client has of it, once it did something wrong.
#[derive(Default)]
pub struct LogShare {
    bucket: Bucket,
    left_out: u64,
    /// Since when.
    since: Option<Time>,
}

fn size_for_all(limits: &Limits) -> Size {
    Size {
        bytes: limits.log_faults_bytes,
        period: limits.log_faults_ms.to_duration(),
    }
}

fn size_for_one(limits: &Limits) -> Size {
    Size {
        bytes: limits.log_client_faults_bytes,
        period: limits.log_faults_ms.to_duration(),
    }
}

impl LogBudget {
    /// Whether lines about a question to Places that failed may be written. If not, they are
    /// counted.
    pub fn admit_of_places(&mut self, lines: Lines, limits: &Limits, now: Time) -> bool {
        let fits = self.places.take(lines.bytes(), size_for_all(limits), now);
        if !fits {
            self.leave_out(lines.count, limits, now);
        }
        fits
    }

    fn leave_out(&mut self, count: u64, limits: &Limits, now: Time) {
        if self.left_out == 0 {
            self.due = Some(now + limits.log_faults_ms.to_duration());
        }
        self.left_out += count;
    }

    /// When [`LogBudget::tell`] is to be called; once for each time.
    pub fn take_due(&mut self) -> Option<Time> {
        self.due.take()
    }

    /// Tells how many lines were left out, if any were.
    pub fn tell(&mut self, limits: &Limits) {
        let left_out = std::mem::take(&mut self.left_out);
        if left_out > 0 {
            warn!(
                "{} about commands and questions to Places that failed left out within {} ms (limits.log_faults_bytes)",
                Counted(left_out, "line"),
                limits.log_faults_ms
            );
        }
    }
}

impl LogShare {
    /// Whether lines about the client may be written. If not, they are counted.
    pub fn admit(
        &mut self,
        lines: Lines,
        budget: &mut LogBudget,
        limits: &Limits,
        now: Time,
    ) -> bool {
        let (bytes, own) = (lines.bytes(), size_for_one(limits));
        let fits = self.bucket.has(bytes, own, now)
            && budget.clients.take(bytes, size_for_all(limits), now);
        if fits {
            self.bucket.take(bytes, own, now);
        } else {
            self.left_out += lines.count;
            self.since.get_or_insert(now);
        }
        fits
    }

    /// When [`LogShare::tell`] is to be called.
    #[must_use]
    pub fn due(&self, limits: &Limits) -> Option<Time> {
        Some(self.since? + limits.log_faults_ms.to_duration())
    }

    /// Tells how many lines about the client were left out, if any were; or, if the budget has no
    /// room for that, leaves it to the line about all clients.
    pub fn tell(&mut self, who: PeerLabel, budget: &mut LogBudget, limits: &Limits, now: Time) {
        let left_out = std::mem::take(&mut self.left_out);
        let Some(since) = self.since.take() else {
            return;
        };
        if !budget
            .clients
            .take(LEFT_OUT_BYTES, size_for_all(limits), now)
        {
            return budget.leave_out(left_out, limits, now);
        }
        warn!(
            "{who}: {} about its commands that are invalid, refused or failed left out within {} ms (limits.log_client_faults_bytes, log_faults_bytes)",
            Counted(left_out, "line"),
            now.since(since).as_millis()
        );
    }
}
