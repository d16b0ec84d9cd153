//! A histogram of durations, for metrics.

use std::time::Duration;

const US: u64 = 1_000;
const MS: u64 = 1_000_000;
const SECOND: u64 = 1_000_000_000;

/// The upper bounds of the buckets, in nanoseconds, for turns (iterations of the event loop). Most
/// turns take less than 0.1 ms.
pub const TURN_BOUNDS_NS: [u64; 12] = [
    50 * US,
    100 * US,
    250 * US,
    500 * US,
    MS,
    2_500 * US,
    5 * MS,
    10 * MS,
    25 * MS,
    100 * MS,
    SECOND,
    10 * SECOND,
];

/// The upper bounds of the buckets, in nanoseconds, for questions to Google Places and for syncs of
/// the journal.
pub const PLACES_BOUNDS_NS: [u64; 12] = [
    MS,
    5 * MS,
    10 * MS,
    25 * MS,
    50 * MS,
    100 * MS,
    250 * MS,
    500 * MS,
    SECOND,
    2_500 * MS,
    5 * SECOND,
    10 * SECOND,
];

/// A histogram: the number of durations in each bucket. A duration that is equal to the upper bound
/// of a bucket is in that bucket.
#[derive(Clone, Debug)]
pub struct Histogram {
    bounds_ns: &'static [u64; 12],
    counts: [u64; 12],
    /// The number of all durations, including those above the last bound.
    count: u64,
    sum_ns: u64,
}

impl Histogram {
    /// Creates an empty histogram with these bounds, in nanoseconds and in rising order.
    #[must_use]
    pub const fn new(bounds_ns: &'static [u64; 12]) -> Histogram {
        Histogram {
            bounds_ns,
            counts: [0; 12],
            count: 0,
            sum_ns: 0,
        }
    }

    /// Counts a duration.
    #[inline]
    pub fn add(&mut self, nanos: u64) {
        self.count += 1;
        self.sum_ns = self.sum_ns.saturating_add(nanos);
        let mut buckets = self.bounds_ns.iter().zip(&mut self.counts);
        if let Some((_, count)) = buckets.find(|(bound, _)| nanos <= **bound) {
            *count += 1;
        }
    }

    /// Returns each bound in seconds, with the number of durations up to this bound.
    ///
    /// ```
    /// use herd_mio::core::base::histogram::{Histogram, TURN_BOUNDS_NS};
    ///
    /// let mut histogram = Histogram::new(&TURN_BOUNDS_NS);
    /// histogram.add(50_000);
    /// histogram.add(50_001);
    /// let buckets: Vec<_> = histogram.buckets().take(3).collect();
    /// assert_eq!(buckets, [(0.00005, 1), (0.0001, 2), (0.00025, 2)]);
    /// ```
    pub fn buckets(&self) -> impl Iterator<Item = (f64, u64)> {
        let counts = self.counts.iter().scan(0, |sum, count| {
            *sum += count;
            Some(*sum)
        });
        let bounds = self.bounds_ns.iter();
        bounds
            .map(|&bound| bound as f64 / SECOND as f64)
            .zip(counts)
    }

    /// The number of durations.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The sum of all durations.
    #[must_use]
    pub fn sum(&self) -> Duration {
        Duration::from_nanos(self.sum_ns)
    }
}
