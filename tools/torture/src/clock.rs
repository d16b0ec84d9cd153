//! What time it is; the only place that asks.

use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// How often something is looked at again that cannot be waited for.
const GLANCE: Duration = Duration::from_millis(2);

/// The monotonic clock, for deadlines.
#[allow(
    clippy::disallowed_methods,
    reason = "this is the one place that asks what time it is"
)]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// The wall clock, since 1970: what a client writes into its IAMAT. A clock before 1970 reads as the epoch.
#[allow(
    clippy::disallowed_methods,
    reason = "this is the one place that asks what time it is"
)]
pub(crate) fn since_1970() -> Duration {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
}

/// Looks again and again until there is something, or the deadline is over.
pub(crate) fn wait_for<T>(deadline: Instant, mut look: impl FnMut() -> Option<T>) -> Option<T> {
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
