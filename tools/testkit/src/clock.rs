//! The clocks. Only this module of the tools reads them.

use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The pause between two looks at a condition.
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

/// The wall clock as the time since the POSIX epoch, which clients write into IAMAT. A clock before
/// 1970 reads as the epoch.
#[must_use]
pub fn since_1970() -> Duration {
    wall().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// Calls `look` again and again until it returns a value, or until the deadline.
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
