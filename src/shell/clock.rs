//! The two clocks of the machine, monotonic and wall. The server's event loop reads the time only
//! here.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crate::core::base::clock::{Now, Time};

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
            time: Time::default() + self.start.elapsed(),
            wall: u64::try_from(wall.as_nanos()).unwrap_or(u64::MAX),
        }
    }
}
