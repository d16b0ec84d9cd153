//! The two clocks of the machine, monotonic and wall. The server's event loop reads the time only
//! here.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};

use crate::core::base::clock::{Now, Time};

/// Returns the time of the system's monotonic clock in microseconds. All processes of the machine
/// read the same time, so the service manager can compare it with its own.
#[must_use]
pub fn monotonic_micros() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
    let nanos = u64::try_from(time.tv_nsec).unwrap_or_default();
    seconds * 1_000_000 + nanos / 1_000
}

/// A pair of clocks: monotonic time counts from the moment when the pair was created, wall time
/// from 1970.
pub struct Clock {
    start: Instant,
}

impl Clock {
    /// Creates a pair of clocks. The monotonic one begins at zero.
    #[must_use]
    #[allow(
        clippy::disallowed_methods,
        reason = "this is the one place that asks what time it is"
    )]
    pub fn start() -> Clock {
        Clock {
            start: Instant::now(),
        }
    }

    /// Reads the monotonic clock only.
    #[must_use]
    #[allow(
        clippy::disallowed_methods,
        reason = "this is the one place that asks what time it is"
    )]
    pub fn time(&self) -> Time {
        Time::default() + self.start.elapsed()
    }

    /// Reads both clocks. A wall clock before 1970 reads as 1970.
    #[must_use]
    #[allow(
        clippy::disallowed_methods,
        reason = "this is the one place that asks what time it is"
    )]
    pub fn now(&self) -> Now {
        let wall = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        Now {
            time: self.time(),
            wall: u64::try_from(wall.as_nanos()).unwrap_or(u64::MAX),
        }
    }
}
