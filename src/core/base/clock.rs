//! Time as an argument: the core never asks what time it is, it is told with every event.
//!
//! asyncio's `loop.time()` is [`Now::time`]; `time.time()` is [`Now::wall`].

use std::fmt;
use std::num::NonZeroU64;
use std::ops::{Add, Sub};
use std::time::Duration;

/// A moment on the monotonic clock, in nanoseconds since an origin that the shell (or the
/// simulator) chose.
///
/// Deadlines and intervals use this clock alone: a wall clock that is stepped by a day moves none
/// of them.
///
/// One more than the nanoseconds is kept, so that a moment that may be missing takes no more room
/// than one that is there: each connection has three.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(NonZeroU64);

impl Time {
    /// A moment `nanos` nanoseconds after the origin.
    #[must_use]
    pub const fn from_nanos(nanos: u64) -> Time {
        Time(NonZeroU64::MIN.saturating_add(nanos))
    }

    /// Nanoseconds since the origin.
    #[must_use]
    pub const fn as_nanos(self) -> u64 {
        self.0.get() - 1
    }

    /// So many milliseconds later: a limit, added without making a length of time of it first. Each
    /// connection's deadlines are asked for in each of its turns.
    #[must_use]
    pub const fn plus_ms(self, ms: u64) -> Time {
        Time(self.0.saturating_add(ms.saturating_mul(1_000_000)))
    }

    /// How long after `earlier` this moment is; zero if it is not after it.
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
    /// The monotonic clock: deadlines.
    pub time: Time,
    /// The wall clock, in nanoseconds since the POSIX epoch: the receipt of an `IAMAT`.
    pub wall: u64,
}
