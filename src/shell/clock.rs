//! The two clocks of the machine, read once for each event; the only place that reads them.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crate::core::base::clock::{Now, Time};

/// Counts from when it was made.
pub struct Clock {
    origin: Instant,
}

impl Clock {
    /// A monotonic clock that begins at zero.
    #[must_use]
    #[allow(
        clippy::disallowed_methods,
        reason = "this is the one place that asks what time it is"
    )]
    pub fn start() -> Clock {
        Clock {
            origin: Instant::now(),
        }
    }

    /// What both clocks say. A wall clock before 1970 reads as the epoch.
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
            time: Time::default() + self.origin.elapsed(),
            wall: u64::try_from(wall.as_nanos()).unwrap_or(u64::MAX),
        }
    }
}
