//! The one place where this program reads the clock.

use std::time::{Instant, SystemTime};

/// What time it is.
#[allow(
    clippy::disallowed_methods,
    reason = "this program is a shell: it waits for processes"
)]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// What the calendar says.
#[allow(
    clippy::disallowed_methods,
    reason = "this program is a shell: a report has a date"
)]
pub(crate) fn today() -> SystemTime {
    SystemTime::now()
}
