//! Time as an argument. The core never reads a clock: the caller passes the present time with every
//! event.
//!
//! asyncio's `loop.time()` is [`Now::time`]; `time.time()` is [`Now::wall`].

use std::fmt;
use std::num::NonZeroU64;
use std::ops::{Add, Sub};
use std::time::Duration;

/// A moment on the monotonic clock, in nanoseconds since an origin. The shell or the simulator
/// chooses the origin.
///
/// Deadlines and intervals use only this clock. So a step of the wall clock does not move a
/// deadline.
///
/// The stored number is the nanoseconds plus 1, so it is never 0. `Option<Time>` therefore takes
/// eight bytes, like `Time`. This matters because each connection stores several optional times.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(NonZeroU64);

impl Time {
    /// Creates the moment `nanos` nanoseconds after the origin.
    #[must_use]
    pub const fn from_nanos(nanos: u64) -> Time {
        Time(NonZeroU64::MIN.saturating_add(nanos))
    }

    /// The nanoseconds since the origin.
    #[must_use]
    pub const fn as_nanos(self) -> u64 {
        self.0.get() - 1
    }

    /// Returns the moment `ms` milliseconds later. The argument is a plain number and no
    /// [`Duration`], because limits are in milliseconds. This function must be fast: an active link
    /// to a neighbour computes two deadlines (its heartbeat and the neighbour's silence) in every
    /// iteration of the event loop.
    #[must_use]
    pub const fn plus_ms(self, ms: u64) -> Time {
        Time(self.0.saturating_add(ms.saturating_mul(1_000_000)))
    }

    /// Returns the time from `earlier` to this moment, or zero if this moment is not after
    /// `earlier`.
    #[must_use]
    pub const fn since(self, earlier: Time) -> Duration {
        Duration::from_nanos(self.as_nanos().saturating_sub(earlier.as_nanos()))
    }
}

impl Default for Time {
    /// The origin.
    fn default() -> Time {
        Time::from_nanos(0)
    }
}

impl fmt::Debug for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Time({})", self.as_nanos())
    }
}

impl Add<Duration> for Time {
    type Output = Time;

    fn add(self, length: Duration) -> Time {
        let nanos = u64::try_from(length.as_nanos()).unwrap_or(u64::MAX);
        Time(self.0.saturating_add(nanos))
    }
}

impl Sub for Time {
    type Output = Duration;

    fn sub(self, earlier: Time) -> Duration {
        self.since(earlier)
    }
}

/// The moment of one event, on both clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// The monotonic clock, for deadlines and intervals.
    pub time: Time,
    /// The wall clock, in nanoseconds since the POSIX epoch. The server uses it as the time at
    /// which it received an `IAMAT`.
    pub wall: u64,
}
