//! The wall clock: the only place of this program that asks what time it is.

use std::time::SystemTime;

use time::OffsetDateTime;

/// Now, in UTC. Certificates have no fractions of a second.
#[allow(
    clippy::disallowed_methods,
    reason = "certificates begin and end by the wall clock, and this is the one place that reads it"
)]
pub(crate) fn now() -> OffsetDateTime {
    let now = OffsetDateTime::from(SystemTime::now());
    now.replace_nanosecond(0).unwrap_or(now)
}
