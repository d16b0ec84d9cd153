//! Limits the log lines about commands that are invalid, refused or failed.
//!
//! ```text
//!   a line about a client ──► the client's share ──► the budget of all clients ──► the log
//!                                     └───── no room ─────────┴──► counted ──► one line per period
//! ```
//!
//! Any client can send invalid commands as often as it likes. Without a limit, log lines about
//! these commands would fill the disk and hide log lines about other clients. Log lines about
//! commands that succeed are not limited.
//!
//! The share and the budget are token buckets of bytes. If one of them has too few bytes for a log
//! line, the line is left out. A line that is left out is not written, but added to the client's
//! count of such lines. When the period (`limits.log_faults_ms`) is over, or the client's
//! connection is lost, one log line shows the client's count. If the budget has too few bytes for
//! this log line too, the client's count is added to the count in the budget. After another period,
//! one log line about all clients shows the count in the budget. So each log line is either written
//! or counted.

use log::warn;

use crate::core::base::bucket::{Bucket, Rate};
use crate::core::base::clock::Time;
use crate::core::base::counted::Counted;
use crate::core::base::limits::{LimitValue, Limits};
use crate::core::session::peer_label::PeerLabel;

/// The approximate length of a log line without quoted text. This is the length of the timestamp,
/// the level and the client's address.
const LINE_BYTES: usize = 96;
/// The approximate length of a log line that shows how many lines were left out.
const LEFT_OUT_BYTES: u64 = 192;

/// The size of a group of log lines that are all written or all left out.
#[derive(Clone, Copy, Debug)]
pub struct Lines {
    /// The number of lines.
    pub count: u64,
    /// The number of bytes that each line quotes.
    pub quoted_bytes: usize,
}

impl Lines {
    fn bytes(self) -> u64 {
        self.count * (LINE_BYTES + self.quoted_bytes) as u64
    }
}

/// The budget of bytes in log lines that all clients share.
#[derive(Default)]
pub struct LogBudget {
    clients: Bucket,
    /// A separate bucket for lines about failed questions to Google Places, so that lines about
    /// many invalid commands cannot crowd them out. A question is one HTTP request.
    places: Bucket,
    /// The number of lines that were left out. Lines that are still counted in a [`LogShare`] are
    /// not included.
    left_out: u64,
    /// The time at which [`LogBudget::log_left_out`] has to be called. [`LogBudget::take_due`] sets
    /// this to `None`.
    due: Option<Time>,
}

/// One client's share of the budget. Created for the first log line about an invalid, refused or
/// failed command of the client.
#[derive(Default)]
pub struct LogShare {
    bucket: Bucket,
    left_out: u64,
    /// The time at which the first of the `left_out` lines was left out.
    since: Option<Time>,
}

fn size_for_all(limits: &Limits) -> Rate {
    Rate {
        capacity: limits.log_faults_bytes,
        period: limits.log_faults_ms.to_duration(),
    }
}

fn size_for_one(limits: &Limits) -> Rate {
    Rate {
        capacity: limits.log_client_faults_bytes,
        period: limits.log_faults_ms.to_duration(),
    }
}

impl LogBudget {
    /// Returns whether lines about a failed question to Places may be written. If so, takes their
    /// bytes out of the bucket for Places. If not, counts the lines as left out.
    pub fn admit_places_failure(&mut self, lines: Lines, limits: &Limits, now: Time) -> bool {
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

    /// Returns the time at which [`LogBudget::log_left_out`] has to be called. Returns each such
    /// time only once. If there is no new time, returns `None`.
    pub fn take_due(&mut self) -> Option<Time> {
        self.due.take()
    }

    /// Logs how many lines were left out, if any.
    pub fn log_left_out(&mut self, limits: &Limits) {
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
    /// Returns whether lines about the client may be written. If so, takes their bytes out of both
    /// buckets. If not, counts the lines as left out.
    pub fn admit(
        &mut self,
        lines: Lines,
        budget: &mut LogBudget,
        limits: &Limits,
        now: Time,
    ) -> bool {
        let (bytes, own) = (lines.bytes(), size_for_one(limits));
        let fits = self.bucket.contains(bytes, own, now)
            && budget.clients.take(bytes, size_for_all(limits), now);
        if fits {
            self.bucket.take(bytes, own, now);
        } else {
            self.left_out += lines.count;
            self.since.get_or_insert(now);
        }
        fits
    }

    /// Returns the time at which [`LogShare::log_left_out`] has to be called. `None` if no line was
    /// left out.
    #[must_use]
    pub fn due(&self, limits: &Limits) -> Option<Time> {
        Some(self.since? + limits.log_faults_ms.to_duration())
    }

    /// Logs how many lines about the client were left out, if any. If the budget has too few
    /// bytes for this log line, adds the number of lines to the number in `budget`.
    pub fn log_left_out(
        &mut self,
        label: PeerLabel,
        budget: &mut LogBudget,
        limits: &Limits,
        now: Time,
    ) {
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
            "{label}: {} about its commands that are invalid, refused or failed left out within {} ms (limits.log_client_faults_bytes, log_faults_bytes)",
            Counted(left_out, "line"),
            now.since(since).as_millis()
        );
    }
}
