//! What the log was told of, so that no failure is told every second.

use std::fmt;
use std::time::Duration;

use super::link_error::LinkError;
use crate::core::base::clock::Time;

/// Remembers what the log was told of, so that no failure is told every second: each kind of reason
/// once, then, every ten minutes as long as it comes, how often it came. Two that come in turn (one
/// address of a name refuses, the other is out of reach) are two kinds.
#[derive(Default)]
pub struct LogDedup {
    /// The latest last.
    told: Vec<Told>,
    /// All since [`LogDedup::clear`].
    count: u64,
}

struct Told {
    reason: LinkError,
    at: Time,
    /// So often it came since then.
    since: u64,
}

/// What the log is to be told of a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum News {
    /// It is new.
    First,
    /// It came so many times more since it was told last.
    Again(u64),
    /// It was told lately.
    Known,
}

/// As many kinds of reason are told apart.
const COMPLAINTS: usize = 16;
/// What goes on is told again so often.
const TOLD_AGAIN: Duration = Duration::from_secs(600);

impl LogDedup {
    /// Notes a failure; says what is news to the operator.
    pub fn note(&mut self, reason: &LinkError, now: Time) -> News {
        self.count += 1;
        let known = self.told.iter().position(|told| told.reason == *reason);
        let Some(place) = known else {
            if self.told.len() >= COMPLAINTS {
                self.told.remove(0);
            }
            self.told.push(Told {
                reason: reason.clone(),
                at: now,
                since: 0,
            });
            return News::First;
        };
        let mut told = self.told.remove(place);
        told.since += 1;
        let news = match now.since(told.at) >= TOLD_AGAIN {
            true => {
                told.at = now;
                News::Again(std::mem::take(&mut told.since))
            }
            false => News::Known,
        };
        self.told.push(told);
        news
    }

    /// How many failures there were since all was well.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }

    /// All is well: whatever fails next is news.
    pub fn clear(&mut self) {
        *self = LogDedup::default();
    }
}

impl fmt::Display for News {
    /// What stands behind the reason.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            News::First | News::Known => Ok(()),
            News::Again(times) => {
                let minutes = TOLD_AGAIN.as_secs() / 60;
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
    fn each_kind_of_reason_is_told_once_and_then_how_often_it_came() {
        let mut log_dedup = LogDedup::default();
        let mut told = Vec::new();
        // Two in turn, each once a second, for twenty minutes and a bit.
        for second in 0..1_210 {
            for reason in ["refused", "unreachable"] {
                let news = log_dedup.note(
                    &system(reason),
                    Time::default() + Duration::from_secs(second),
                );
                if news != News::Known {
                    told.push((second, reason, news));
                }
            }
        }
        assert_eq!(
            told,
            [
                (0, "refused", News::First),
                (0, "unreachable", News::First),
                (600, "refused", News::Again(600)),
                (600, "unreachable", News::Again(600)),
                (1_200, "refused", News::Again(600)),
                (1_200, "unreachable", News::Again(600)),
            ]
        );
        assert_eq!(log_dedup.count(), 2_420);
        log_dedup.clear();
        assert_eq!(
            log_dedup.note(&system("refused"), Time::default()),
            News::First
        );
        // One that makes up reasons does not make it grow.
        for reason in 0..1_000 {
            log_dedup.note(&system(&reason.to_string()), Time::default());
        }
        assert_eq!(log_dedup.told.len(), COMPLAINTS);
    }
}
