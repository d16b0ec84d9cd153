//! A token bucket. Its capacity limits the bytes that are used at one moment. The rate at which it
//! is refilled limits the bytes that are used on average.

use std::time::Duration;

use crate::core::base::clock::Time;

/// The state of a token bucket. It stores only the time at which the bucket will be full again, so
/// a bucket needs no timer.
///
/// ```
/// use std::time::Duration;
/// use herd_mio::core::base::bucket::{Bucket, Rate};
/// use herd_mio::core::base::clock::Time;
///
/// let rate = Rate { capacity: 100, period: Duration::from_secs(10) };
/// let mut bucket = Bucket::default();
/// let at = Time::from_nanos;
/// assert!(bucket.take(100, rate, at(0)), "as much as it holds, at once");
/// assert!(!bucket.take(20, rate, at(1_999_999_999)));
/// assert!(bucket.take(20, rate, at(2_000_000_000)), "a fifth of it comes in a fifth of its period");
/// bucket.refund(20, rate);
/// assert!(bucket.take(20, rate, at(2_000_000_000)), "what was given back is there again");
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct Bucket {
    full_at: Time,
}

/// The capacity of a bucket, and the time in which an empty bucket becomes full.
#[derive(Clone, Copy, Debug)]
pub struct Rate {
    /// The capacity, in bytes or in another unit.
    pub capacity: u64,
    /// The time in which an empty bucket becomes full.
    pub period: Duration,
}

impl Bucket {
    /// Takes `bytes` out of the bucket if the bucket contains at least that many. Returns whether
    /// the bytes were taken.
    pub fn take(&mut self, bytes: u64, rate: Rate, now: Time) -> bool {
        let full_at = self.full_at.max(now) + rate.refill_time(bytes);
        let fits = full_at.since(now) <= rate.period;
        if fits {
            self.full_at = full_at;
        }
        fits
    }

    /// Puts `bytes` back, up to the capacity of the bucket.
    pub fn refund(&mut self, bytes: u64, rate: Rate) {
        let start = Time::from_nanos(0);
        let full_at = self.full_at.since(start);
        self.full_at = start + full_at.saturating_sub(rate.refill_time(bytes));
    }

    /// Whether the bucket is full.
    #[must_use]
    pub fn is_full(&self, now: Time) -> bool {
        self.full_at <= now
    }

    /// Returns the time at which the bucket will contain `bytes` bytes, if nothing is taken until
    /// then. The time is in the past if the bucket already contains that many.
    #[must_use]
    pub fn available_at(&self, bytes: u64, rate: Rate) -> Time {
        let full_at = self.full_at + rate.refill_time(bytes);
        Time::from_nanos(0) + full_at.since(Time::from_nanos(0) + rate.period)
    }

    /// Whether the bucket contains at least `bytes` bytes.
    #[must_use]
    pub fn contains(mut self, bytes: u64, rate: Rate, now: Time) -> bool {
        self.take(bytes, rate, now)
    }
}

impl Rate {
    /// Returns the time in which `bytes` flow into the bucket.
    fn refill_time(self, bytes: u64) -> Duration {
        let period_nanos = self.period.as_nanos();
        let nanos = u128::from(bytes) * period_nanos / u128::from(self.capacity.max(1));
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn no_interval_takes_more_than_the_bucket_and_its_refill(
            takes in proptest::collection::vec((0_u64..400, 0_u64..2_000_000_000), 1..200),
        ) {
            let rate = Rate { capacity: 1_000, period: Duration::from_secs(10) };
            let mut bucket = Bucket::default();
            let mut now = 0;
            let mut taken: Vec<(u64, u64)> = Vec::new();
            for (bytes, pause) in takes {
                now += pause;
                if bucket.take(bytes, rate, Time::from_nanos(now)) {
                    taken.push((now, bytes));
                }
            }
            for first in 0..taken.len() {
                let mut sum = 0;
                for (at, bytes) in &taken[first..] {
                    sum += bytes;
                    let flowed_in = (at - taken[first].0) / 10_000_000; // 100 bytes a second
                    prop_assert!(sum <= 1_000 + flowed_in + 1);
                }
            }
        }
    }

    #[test]
    fn more_than_the_bucket_size_is_never_taken() {
        let rate = Rate {
            capacity: 10,
            period: Duration::from_secs(1),
        };
        let mut bucket = Bucket::default();
        assert!(!bucket.take(11, rate, Time::from_nanos(u64::MAX / 2)));
        assert!(!bucket.take(u64::MAX, rate, Time::from_nanos(u64::MAX / 2)));
        assert!(bucket.take(10, rate, Time::from_nanos(u64::MAX / 2)));
    }
}
