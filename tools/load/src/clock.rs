//! The clocks, in nanoseconds.

use std::time::Instant;

use herd_testkit::clock;

/// Both clocks, in nanoseconds.
pub(crate) struct Clock {
    origin: Instant,
}

impl Clock {
    /// A monotonic clock that starts at zero.
    pub(crate) fn start() -> Clock {
        Clock {
            origin: clock::now(),
        }
    }

    /// The monotonic clock, for latencies and deadlines.
    pub(crate) fn now_ns(&self) -> u64 {
        let elapsed = self.origin.elapsed();
        elapsed.as_secs() * SECOND_NS + u64::from(elapsed.subsec_nanos())
    }

    /// The wall clock since the POSIX epoch, for the stamps of commands.
    pub(crate) fn wall_ns(&self) -> u64 {
        let wall = clock::since_1970();
        wall.as_secs() * SECOND_NS + u64::from(wall.subsec_nanos())
    }
}

/// Nanoseconds in a second.
pub(crate) const SECOND_NS: u64 = 1_000_000_000;
/// Nanoseconds in a millisecond.
pub(crate) const MILLISECOND_NS: u64 = 1_000_000;
