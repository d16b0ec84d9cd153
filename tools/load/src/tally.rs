//! The counted answers and their latencies. An answer counts if its command started during the
//! measurement.

use std::ops::Range;

use hdrhistogram::Histogram;
use herd_testkit::failure::Failure;

use crate::answers::{Found, error_of};
use crate::clock::SECOND_NS;
use crate::conversation::{Answered, Kind};
use crate::timeline::Timeline;

/// The greatest recorded latency, an hour. No wait for an answer is longer.
const MAX_LATENCY_NS: u64 = 3600 * SECOND_NS;
/// The number of significant decimal digits of a latency.
const DIGITS: u8 = 3;

/// An empty histogram of latencies in nanoseconds.
pub(crate) fn histogram() -> Result<Histogram<u64>, Failure> {
    Histogram::new_with_bounds(1, MAX_LATENCY_NS, DIGITS)
        .map_err(|error| Failure::Failed(format!("cannot make a histogram of latencies: {error}")))
}

/// The counted answers.
pub(crate) struct Tally {
    pub(crate) iamat: Histogram<u64>,
    pub(crate) whatsat: Histogram<u64>,
    /// Answers with an error of Places.
    pub(crate) errors: u64,
    /// The message of the first error.
    pub(crate) first_error: Option<String>,
    /// Commands that started in this window count.
    pub(crate) window_ns: Range<u64>,
    /// The time of the last counted answer.
    pub(crate) last_ns: u64,
    /// The answers over time.
    pub(crate) timeline: Timeline,
}

impl Tally {
    pub(crate) fn new(window_ns: Range<u64>) -> Result<Tally, Failure> {
        Ok(Tally {
            iamat: histogram()?,
            whatsat: histogram()?,
            errors: 0,
            first_error: None,
            last_ns: window_ns.start,
            timeline: Timeline::new(&window_ns)?,
            window_ns,
        })
    }

    /// The number of answers.
    pub(crate) fn answers(&self) -> u64 {
        self.iamat.len() + self.whatsat.len()
    }

    /// Counts an answer that came by `now_ns`.
    #[inline]
    pub(crate) fn answered(&mut self, answered: &Answered<'_>, now_ns: u64) {
        let Answered { asked, json, .. } = answered;
        if !self.window_ns.contains(&asked.since_ns) {
            return;
        }
        let latency_ns = now_ns.saturating_sub(asked.since_ns);
        match asked.kind {
            Kind::Iamat => self.iamat.saturating_record(latency_ns),
            Kind::Whatsat => self.whatsat.saturating_record(latency_ns),
        }
        self.last_ns = now_ns;
        self.timeline.record(now_ns, latency_ns);
        if let Some((Found::Error, json)) = json {
            self.errors += 1;
            self.first_error.get_or_insert_with(|| error_of(json));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_digits_are_kept_up_to_an_hour() {
        let mut histogram = histogram().unwrap();
        for value in [0, 1, 999, 1_000_000, MAX_LATENCY_NS, u64::MAX] {
            histogram.saturating_record(value);
        }
        assert_eq!(histogram.len(), 6);
        let near = |value: u64, expected: u64| value.abs_diff(expected) <= expected / 1000;
        assert!(near(histogram.value_at_quantile(0.5), 999));
        assert!(near(histogram.max(), MAX_LATENCY_NS));
        assert!(near(histogram.value_at_quantile(0.66), 1_000_000));
    }
}
