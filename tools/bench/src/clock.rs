//! The one place that asks what time it is.

use std::time::{SystemTime, UNIX_EPOCH};

/// The wall clock, in nanoseconds since the POSIX epoch. A clock before 1970 reads as the epoch.
#[allow(
    clippy::disallowed_methods,
    reason = "clients of a server with a clock of its own have to stamp their commands with the present time"
)]
pub(crate) fn wall_ns() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
