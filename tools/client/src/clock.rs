//! The one place that asks what time it is.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Time since the POSIX epoch.
#[allow(
    clippy::disallowed_methods,
    reason = "the `iamat` helper stamps a command with the current time; it takes this function as an argument"
)]
pub(crate) fn now() -> Duration {
    // A clock before 1970 is no clock; the server's skew will say so.
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
}
