//! What time it is; the only place that asks.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

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
