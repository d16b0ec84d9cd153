//! The clocks: the only place of this program that asks what time it is.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Both clocks, in nanoseconds.
pub(crate) struct Clock {
    origin: Instant,
}

impl Clock {
    /// A monotonic clock that begins at zero.
    #[allow(
        clippy::disallowed_methods,
        reason = "measuring time is what this program is for, and this is the one place that reads the clocks"
    )]
    pub(crate) fn start() -> Clock {
        Clock {
            origin: Instant::now(),
        }
    }

    /// The monotonic clock: what latencies and deadlines are measured with.
    pub(crate) fn now_ns(&self) -> u64 {
        let elapsed = self.origin.elapsed();
        elapsed.as_secs() * SECOND_NS + u64::from(elapsed.subsec_nanos())
    }

    /// The wall clock since the POSIX epoch: what commands are stamped with.
    #[allow(
        clippy::disallowed_methods,
        reason = "measuring time is what this program is for, and this is the one place that reads the clocks"
    )]
    pub(crate) fn wall_ns(&self) -> u64 {
        // A clock before 1970 is no clock; the server's skew will say so.
        let wall = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        wall.as_secs() * SECOND_NS + u64::from(wall.subsec_nanos())
    }
}

/// Nanoseconds in a second.
pub(crate) const SECOND_NS: u64 = 1_000_000_000;
/// Nanoseconds in a millisecond.
pub(crate) const MILLISECOND_NS: u64 = 1_000_000;
