//! Keeps repeated failures from filling the log.

use std::fmt;
use std::time::Duration;

use super::link_error::LinkError;
use crate::core::base::clock::Time;

/// Decides which failures are logged. The first failure with a reason is logged. Later failures
/// with the same reason are logged at most every ten minutes, with the number of these failures.
///
/// Two reasons can alternate. For example, one address of a name refuses connections, and another
/// address cannot be reached. So each reason is remembered separately.
#[derive(Default)]
pub struct LogDedup {
    /// The reasons that were logged. The reason of the latest failure is the last element.
    logged: Vec<LoggedReason>,
    /// The number of failures since [`LogDedup::clear`].
    count: u64,
}

struct LoggedReason {
    reason: LinkError,
    logged_at: Time,
    /// The number of failures with this reason since the reason was last logged.
    repeats: u64,
}

/// How a failure has to be logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repeat {
    /// The failure is new: log it.
    First,
    /// Log the failure again. The field is the number of failures with this reason since the reason
    /// was last logged.
    Again(u64),
    /// The failure was logged a short time ago: do not log it as a warning.
    Suppressed,
}

/// The maximum number of reasons that are remembered.
const MAX_REASONS: usize = 16;
/// The time after which a failure that repeats is logged again.
const LOG_AGAIN_AFTER: Duration = Duration::from_secs(600);

impl LogDedup {
    /// Counts a failure, and returns how it has to be logged.
    pub fn record(&mut self, reason: &LinkError, now: Time) -> Repeat {
        self.count += 1;
        let found = self
            .logged
            .iter()
            .position(|logged| logged.reason == *reason);
        let Some(index) = found else {
            if self.logged.len() >= MAX_REASONS {
                self.logged.remove(0);
            }
            self.logged.push(LoggedReason {
                reason: reason.clone(),
                logged_at: now,
                repeats: 0,
            });
            return Repeat::First;
        };
        let mut logged = self.logged.remove(index);
        logged.repeats += 1;
        let repeat = match now.since(logged.logged_at) >= LOG_AGAIN_AFTER {
            true => {
                logged.logged_at = now;
                Repeat::Again(std::mem::take(&mut logged.repeats))
            }
            false => Repeat::Suppressed,
        };
        self.logged.push(logged);
        repeat
    }

    /// Returns the number of failures since [`LogDedup::clear`].
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Forgets all failures, because the operation succeeded. Then the next failure is logged,
    /// whatever its reason is.
    pub fn clear(&mut self) {
        *self = LogDedup::default();
    }
}

impl fmt::Display for Repeat {
    /// Writes the text that follows the reason in the log line: empty, or the number of
    /// repetitions.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Repeat::First | Repeat::Suppressed => Ok(()),
            Repeat::Again(times) => {
                let minutes = LOG_AGAIN_AFTER.as_secs() / 60;
                write!(f, " ({times} times more in the last {minutes} minutes)")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn system(reason: &str) -> LinkError {
        LinkError::System(reason.to_owned())
    }

    #[test]
    fn each_reason_is_logged_once_and_then_counted() {
        let mut log_dedup = LogDedup::default();
        let mut logged = Vec::new();
        // Two reasons that alternate, each once a second, for a little more than twenty minutes.
        for second in 0..1_210 {
            for reason in ["refused", "unreachable"] {
                let repeat = log_dedup.record(
                    &system(reason),
                    Time::default() + Duration::from_secs(second),
                );
                if repeat != Repeat::Suppressed {
                    logged.push((second, reason, repeat));
                }
            }
        }
        assert_eq!(
            logged,
            [
                (0, "refused", Repeat::First),
                (0, "unreachable", Repeat::First),
                (600, "refused", Repeat::Again(600)),
                (600, "unreachable", Repeat::Again(600)),
                (1_200, "refused", Repeat::Again(600)),
                (1_200, "unreachable", Repeat::Again(600)),
            ]
        );
        assert_eq!(log_dedup.count(), 2_420);
        log_dedup.clear();
        assert_eq!(
            log_dedup.record(&system("refused"), Time::default()),
            Repeat::First
        );
        // A peer that invents reasons does not make the list grow.
        for reason in 0..1_000 {
            log_dedup.record(&system(&reason.to_string()), Time::default());
        }
        assert_eq!(log_dedup.logged.len(), MAX_REASONS);
    }
}
