//! The time of a log line, to be compared with the time at which the test did something.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

const DAY_US: u64 = 24 * 60 * 60 * 1_000_000;

/// A time of day, UTC. It needs no date, because no test runs for half a day.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment {
    us: u64,
}

impl Moment {
    pub(crate) fn now() -> Moment {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        Moment {
            us: u64::try_from(now.as_micros()).unwrap() % DAY_US,
        }
    }

    /// The time at which a log line was written. The line begins with it:
    /// `2026-11-21T00:41:37.655376Z`.
    pub(crate) fn of(line: &str) -> Moment {
        let us = || {
            let (_, time) = line.split_once('Z')?.0.split_once('T')?;
            let mut fields = time.split([':', '.']).map(|field| field.parse().ok());
            let mut field = || -> Option<u64> { fields.next()? };
            let seconds = (field()? * 60 + field()?) * 60 + field()?;
            Some(seconds * 1_000_000 + field()?)
        };
        Moment {
            us: us().unwrap_or_else(|| panic!("a log line without a time: {line}")),
        }
    }

    /// How much later this is than `earlier`, also across midnight. `None` if it is not later.
    pub(crate) fn since(self, earlier: Moment) -> Option<Duration> {
        let us = (self.us + DAY_US - earlier.us) % DAY_US;
        (us < DAY_US / 2).then(|| Duration::from_micros(us))
    }
}

#[test]
fn moments_are_read_from_log_lines_and_compared_over_midnight() {
    let late = Moment::of("2026-11-20T23:59:59.900000Z [INFO ] x");
    let early = Moment::of("2026-11-21T00:00:00.150001Z [INFO ] x");
    assert_eq!(early.since(late), Some(Duration::from_micros(250_001)));
    assert_eq!(late.since(early), None);
}
