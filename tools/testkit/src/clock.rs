//! What time it is: the only place of the tools that asks.

use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// How often a condition is looked at again that cannot be waited for.
const GLANCE: Duration = Duration::from_millis(2);

/// The monotonic clock, for deadlines.
#[allow(
    clippy::disallowed_methods,
    reason = "the one place that reads the monotonic clock"
)]
#[must_use]
pub fn now() -> Instant {
    Instant::now()
}

/// The wall clock.
#[allow(
    clippy::disallowed_methods,
    reason = "the one place that reads the wall clock"
)]
#[must_use]
pub fn wall() -> SystemTime {
    SystemTime::now()
}

/// The wall clock, since the POSIX epoch: what a client writes into its IAMAT. A clock before 1970
/// reads as the epoch.
#[must_use]
pub fn since_1970() -> Duration {
    wall().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// Looks again and again until there is a value, or the deadline is over.
pub fn wait_for<T>(deadline: Instant, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    loop {
        if let Some(found) = look() {
            return Some(found);
        }
        if now() >= deadline {
            return None;
        }
        thread::sleep(GLANCE);
    }
}
