//! How long to wait before trying again: doubling, up to a cap, with jitter.

use std::time::Duration;

/// The wait before the next try of one thing that keeps failing.
///
/// ```
/// use std::time::Duration;
/// use herd_mio::core::base::backoff::Backoff;
///
/// let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1));
/// let waits: Vec<u128> = (0..6).map(|_| backoff.next_wait(u64::MAX).as_millis()).collect();
/// assert_eq!(waits, [90, 180, 360, 720, 900, 900]);
/// backoff.reset();
/// assert_eq!(backoff.next_wait(0).as_millis(), 50);
/// ```
#[derive(Clone, Debug)]
pub struct Backoff {
    first: Duration,
    cap: Duration,
    step: Duration,
}

impl Backoff {
    /// Starts at `first` and never waits longer than `cap`.
    #[must_use]
    pub fn new(first: Duration, cap: Duration) -> Backoff {
        Backoff {
            first,
            cap,
            step: first,
        }
    }

    /// The next wait: between 50 % and 90 % of the step, so that servers which lost the same
    /// neighbour do not all dial in the same millisecond, and one that is back is dialled within
    /// the cap, handshake included. `random` picks where.
    pub fn next_wait(&mut self, random: u64) -> Duration {
        let share = 0.5 + 0.4 * (random as f64 / u64::MAX as f64);
        let wait = self.step.mul_f64(share);
        self.step = (self.step * 2).min(self.cap);
        wait
    }

    /// It worked: the next failure starts from the beginning.
    pub fn reset(&mut self) {
        self.step = self.first;
    }
}
