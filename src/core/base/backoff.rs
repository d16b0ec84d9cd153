//! The wait before the next try: it doubles after each failure up to a cap, with jitter.

use std::time::Duration;

/// Computes the waits between the tries of one operation, such as dialling one neighbour.
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
    /// Creates a backoff whose step starts at `first` and doubles up to `cap`.
    #[must_use]
    pub fn new(first: Duration, cap: Duration) -> Backoff {
        Backoff {
            first,
            cap,
            step: first,
        }
    }

    /// Returns the next wait, and doubles the step for the wait after it. The wait is between 50 %
    /// and 90 % of the step, and `random` chooses the value. So servers that lost the same
    /// neighbour do not all dial in the same millisecond.
    ///
    /// No wait is longer than 90 % of the cap. The remaining 10 % of the cap are for the handshake.
    /// So a link to a neighbour should be up again at most one cap after the neighbour accepts
    /// connections again.
    pub fn next_wait(&mut self, random: u64) -> Duration {
        let fraction = 0.5 + 0.4 * (random as f64 / u64::MAX as f64);
        let wait = self.step.mul_f64(fraction);
        self.step = (self.step * 2).min(self.cap);
        wait
    }

    /// Resets the step to `first`. Call this after a success.
    pub fn reset(&mut self) {
        self.step = self.first;
    }
}
