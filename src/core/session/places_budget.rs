//! The limits on the number of questions to Google Places: per second, and per day.
//!
//! Google charges for each question. Clients need no login, so without these limits any client
//! could make the bill as high as it likes.
//!
//! - The limit per second is a token [`Bucket`]. If the bucket is empty, a question waits in the
//!   queue.
//! - The limit per day holds for any 24 hours, not only for a day of the calendar. Google's quotas
//!   begin anew at midnight Pacific time, and its bills use the time zone of the account. A limit
//!   on any 24 hours holds for the days of every time zone. If the limit is reached, a question is
//!   refused, because it cannot wait so long.
//! - If at least half of the day's questions were asked, each origin may use only its share of the
//!   day's questions. An [origin](crate::core::session::origins) is the address of a client, or the
//!   first 64 bits of an IPv6 address. So one origin alone cannot ask all questions of the day. The
//!   share is a [`Bucket`] that fills in 24 hours. Every question is taken out of this bucket, also
//!   in the first half. So an origin that asked all questions of the first half has nothing left in
//!   the second half.
//!
//! The counts are not stored: they begin at 0 when the server starts.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use log::warn;

use crate::core::base::bucket::{Bucket, Rate};
use crate::core::base::clock::Time;
use crate::core::base::counted::Counted;
use crate::core::base::settings::PlacesQuota;
use crate::core::session::origins::OriginBuckets;

/// The period of [`PlacesQuota::per_day`].
const DAY: Duration = Duration::from_secs(24 * 3_600);

/// The number of slots into which 24 hours are divided.
const SLOTS_IN_A_DAY: u64 = 96;

/// The number of slots that are counted: the present slot and the 96 slots before it. The present
/// slot is incomplete, so one slot more than a day is needed. Each question counts for at least 24
/// hours.
const SLOTS: usize = SLOTS_IN_A_DAY as usize + 1;

/// The length of a slot in nanoseconds: a quarter of an hour.
const SLOT_NANOS: u64 = 24 * 3_600 * 1_000_000_000 / SLOTS_IN_A_DAY;

/// Why a question is not asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OverQuota {
    /// The deadline of the question passed before the limit per second allowed the question.
    Second {
        /// The maximum number of questions in one second.
        max: u64,
    },
    /// The maximum number of questions was asked in the last 24 hours.
    Day {
        /// The maximum number of questions in 24 hours.
        max: u64,
        /// The time until the server may ask another question.
        wait: Duration,
    },
    /// At least half of the day's questions were asked, and the client's address (of IPv6, its
    /// first 64 bits) has used its share.
    Share {
        /// The maximum number of questions in 24 hours.
        max: u64,
        /// The time until the clients of this address may ask another question.
        wait: Duration,
    },
}

impl std::error::Error for OverQuota {}

impl fmt::Display for OverQuota {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OverQuota::Second { max } => write!(
                f,
                "this server asks Google Places at most {} a second (places.max_per_second), and too many are waiting; try again later",
                Counted(*max, "question")
            ),
            OverQuota::Day { max, wait } => write!(
                f,
                "this server has asked Google Places {max} times in 24 hours, and may not ask more (places.max_per_day); try again in {}",
                Minutes(*wait)
            ),
            OverQuota::Share { max, wait } => write!(
                f,
                "this server may ask Google Places {max} times in 24 hours (places.max_per_day); over half of that is used, and your address has used its share; try again in {}",
                Minutes(*wait)
            ),
        }
    }
}

/// A duration that is displayed in hours and minutes, rounded up.
struct Minutes(Duration);

impl fmt::Display for Minutes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let minutes = self.0.as_secs().div_ceil(60).max(1);
        match (minutes / 60, minutes % 60) {
            (0, minutes) => write!(f, "{minutes} min"),
            (hours, 0) => write!(f, "{hours} h"),
            (hours, minutes) => write!(f, "{hours} h {minutes} min"),
        }
    }
}

/// The part of the day's questions that the last warning reported as asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
enum WarningLevel {
    #[default]
    None,
    /// Four fifths of the day's questions were asked.
    FourFifths,
    /// All of the day's questions were asked.
    All,
}

/// The number of questions in the last 24 hours, in slots of a quarter of an hour.
struct Window {
    /// For each slot: the number of the slot since time 0 of the clock, and the number of questions
    /// in the slot.
    slots: [(u64, u64); SLOTS],
}

impl Default for Window {
    fn default() -> Window {
        Window {
            slots: [(0, 0); SLOTS],
        }
    }
}

impl Window {
    fn count(&mut self, now: Time) {
        let number = now.as_nanos() / SLOT_NANOS;
        // The index is less than SLOTS.
        let slot = &mut self.slots[(number % SLOTS as u64) as usize];
        if slot.0 != number {
            *slot = (number, 0);
        }
        slot.1 += 1;
    }

    /// Returns the slots with questions of the last 24 hours: the number of the slot, and the
    /// number of questions.
    fn used(&self, now: Time) -> impl Iterator<Item = (u64, u64)> {
        let number = now.as_nanos() / SLOT_NANOS;
        let counted = self.slots.iter().copied();
        counted.filter(move |(slot, count)| *count > 0 && slot + SLOTS as u64 > number)
    }

    fn sum(&self, now: Time) -> u64 {
        self.used(now).map(|(_, count)| count).sum()
    }

    /// Returns the time until the oldest slot with questions is no longer counted.
    fn wait(&self, now: Time) -> Duration {
        let oldest = self.used(now).map(|(slot, _)| slot).min();
        let end = (oldest.unwrap_or_default() + SLOTS as u64) * SLOT_NANOS;
        Duration::from_nanos(end.saturating_sub(now.as_nanos()))
    }
}

/// The number of questions that were sent to Google Places, and the state of the limits on this
/// number.
#[derive(Default)]
pub struct PlacesBudget {
    second: Bucket,
    day: Window,
    buckets: OriginBuckets,
    warned: WarningLevel,
}

impl PlacesBudget {
    /// Returns the time at which the limit per second allows another question. `None` if the limit
    /// allows a question now.
    #[must_use]
    pub fn wait_for_second(&self, quota: &PlacesQuota, now: Time) -> Option<Time> {
        let size = second_size(quota)?;
        (!self.second.contains(1, size, now)).then(|| self.second.available_at(1, size))
    }

    /// Takes one question out of the bucket of the limit per second.
    pub fn take_second(&mut self, quota: &PlacesQuota, now: Time) {
        if let Some(size) = second_size(quota) {
            self.second.take(1, size, now);
        }
    }

    /// Returns the number of questions in the last 24 hours. `None` if there is no limit per day.
    #[must_use]
    pub fn questions_in_a_day(&self, quota: &PlacesQuota, now: Time) -> Option<u64> {
        (quota.per_day > 0).then(|| self.day.sum(now))
    }

    /// Returns the first of `origins` that the limit per day allows to ask one more question now.
    /// The caller charges the question to this origin. Returns `None` if `origins` is empty.
    ///
    /// # Errors
    /// All questions of the day were asked; or half of them were asked, and each of `origins` has
    /// used its share.
    pub fn payer(
        &self,
        origins: impl IntoIterator<Item = IpAddr>,
        quota: &PlacesQuota,
        now: Time,
    ) -> Result<Option<IpAddr>, OverQuota> {
        let max = quota.per_day;
        let mut origins = origins.into_iter();
        let Some(asked) = self.questions_in_a_day(quota, now) else {
            return Ok(origins.next());
        };
        if asked >= max {
            let wait = self.day.wait(now);
            return Err(OverQuota::Day { max, wait });
        }
        if asked < max.div_ceil(2) {
            return Ok(origins.next());
        }
        let mut wait = DAY;
        for origin in origins {
            let Some(size) = share_size(quota, origin) else {
                return Ok(Some(origin));
            };
            match self.buckets.wait(origin, 1, size, now) {
                None => return Ok(Some(origin)),
                Some(more) => wait = wait.min(more),
            }
        }
        Err(OverQuota::Share { max, wait })
    }

    /// Counts a question of `origin` that is sent to Google Places. Warns when four fifths of the
    /// day's questions were asked, and when all were asked. Each warning is given again
    /// only after the number of questions in 24 hours has fallen below half of `quota.per_day`.
    pub fn record_question(&mut self, origin: IpAddr, quota: &PlacesQuota, now: Time) {
        let max = quota.per_day;
        if max == 0 {
            return;
        }
        self.day.count(now);
        if let Some(size) = share_size(quota, origin) {
            self.buckets.take(origin, 1, size, now);
        }
        let asked = self.day.sum(now);
        if asked < max.div_ceil(2) {
            self.warned = WarningLevel::None;
        }
        let level = match asked {
            _ if asked >= max => WarningLevel::All,
            _ if asked >= max - max / 5 => WarningLevel::FourFifths,
            _ => WarningLevel::None,
        };
        if level <= self.warned {
            return;
        }
        self.warned = level;
        match level {
            WarningLevel::None => {}
            WarningLevel::FourFifths => warn!(
                "places: Google Places was asked {asked} times in 24 hours, and may be asked {max} times (places.max_per_day)"
            ),
            WarningLevel::All => warn!(
                "places: Google Places was asked {max} times in 24 hours, and may not be asked more (places.max_per_day); a WHATSAT gets an error for the next {}",
                Minutes(self.day.wait(now))
            ),
        }
    }
}

fn second_size(quota: &PlacesQuota) -> Option<Rate> {
    let size = Rate {
        capacity: quota.per_second,
        period: Duration::from_secs(1),
    };
    (quota.per_second > 0).then_some(size)
}

/// Returns the size of the bucket of `origin`. `None` if no share limits `origin`.
fn share_size(quota: &PlacesQuota, origin: IpAddr) -> Option<Rate> {
    let capacity = match quota.per_day_per_address {
        Some(0) => return None,
        Some(max) => max,
        // Clients on the same machine are benchmarks and graders. Or they connect through a proxy
        // on the same machine, and the proxy does not send the client's address.
        None if origin.to_canonical().is_loopback() => return None,
        None => quota.default_share(),
    };
    Some(Rate {
        capacity,
        period: DAY,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(seconds: u64) -> Time {
        Time::from_nanos(seconds * 1_000_000_000)
    }

    fn origin(number: u8) -> IpAddr {
        [192, 0, 2, number].into()
    }

    const HOUR: u64 = 3_600;

    /// Asks a question of this origin, if the budget allows it.
    fn ask(
        budget: &mut PlacesBudget,
        origin: IpAddr,
        quota: &PlacesQuota,
        now: Time,
    ) -> Result<(), OverQuota> {
        let payer = budget.payer([origin], quota, now)?;
        budget.record_question(payer.unwrap(), quota, now);
        Ok(())
    }

    #[test]
    fn max_per_second_gives_the_wait_for_the_next_call() {
        let quota = PlacesQuota {
            per_second: 4,
            ..PlacesQuota::default()
        };
        let mut budget = PlacesBudget::default();
        let now = at(100);
        for _ in 0..4 {
            assert_eq!(budget.wait_for_second(&quota, now), None);
            budget.take_second(&quota, now);
        }
        let next = now + Duration::from_millis(250);
        assert_eq!(budget.wait_for_second(&quota, now), Some(next));
        let before = now + Duration::from_millis(249);
        assert_eq!(budget.wait_for_second(&quota, before), Some(next));
        assert_eq!(budget.wait_for_second(&quota, next), None);
        assert_eq!(
            budget.wait_for_second(&PlacesQuota::default(), now),
            None,
            "0 is any number"
        );
    }

    #[test]
    fn max_per_day_counts_calls_in_any_24_hours() {
        let quota = PlacesQuota {
            per_day: 3,
            per_day_per_address: Some(0),
            ..PlacesQuota::default()
        };
        let mut budget = PlacesBudget::default();
        let mut ask = |hour| ask(&mut budget, origin(1), &quota, at(hour * HOUR));
        assert_eq!((ask(1), ask(20), ask(20)), (Ok(()), Ok(()), Ok(())));
        let refused = ask(21).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "this server has asked Google Places 3 times in 24 hours, and may not ask more (places.max_per_day); try again in 4 h 15 min"
        );
        assert!(ask(25).is_err(), "the first one was in this slot");
        assert_eq!(ask(26), Ok(()));
        assert!(ask(27).is_err());
    }

    #[test]
    fn an_origin_is_limited_after_half_of_the_daily_quota() {
        let quota = PlacesQuota {
            per_day: 64,
            ..PlacesQuota::default()
        };
        let mut budget = PlacesBudget::default();
        let mut ask = |number, hour| ask(&mut budget, origin(number), &quota, at(hour * HOUR));
        for _ in 0..32 {
            assert_eq!(ask(1, 1), Ok(()), "no other origin asks");
        }
        let refused = ask(1, 1).unwrap_err();
        let wait = Duration::from_secs(6 * HOUR);
        assert_eq!(refused, OverQuota::Share { max: 64, wait });
        assert!(
            refused
                .to_string()
                .ends_with("used its share; try again in 6 h")
        );
        for other in 2..10 {
            for _ in 0..4 {
                assert_eq!(ask(other, 2), Ok(()));
            }
            assert!(ask(other, 2).is_err());
        }
        assert!(matches!(ask(10, 2), Err(OverQuota::Day { .. })));
    }

    #[test]
    fn the_daily_share_covers_loopback_only_if_set() {
        let mut quota = PlacesQuota {
            per_day: 64,
            ..PlacesQuota::default()
        };
        let local = "127.0.0.1".parse().unwrap();
        let asked = |quota: &PlacesQuota| {
            let mut budget = PlacesBudget::default();
            let mut times = 0;
            while ask(&mut budget, local, quota, at(0)).is_ok() {
                times += 1;
            }
            times
        };
        assert_eq!(asked(&quota), 64);
        quota.per_day_per_address = Some(4);
        assert_eq!(asked(&quota), 32);
    }

    #[test]
    fn a_shared_call_is_charged_to_an_origin_with_quota_left() {
        let quota = PlacesQuota {
            per_day: 16,
            ..PlacesQuota::default()
        };
        let mut budget = PlacesBudget::default();
        for _ in 0..8 {
            ask(&mut budget, origin(1), &quota, at(0)).unwrap();
        }
        let payer = |origins: [IpAddr; 2]| budget.payer(origins, &quota, at(0));
        assert_eq!(payer([origin(1), origin(2)]), Ok(Some(origin(2))));
        assert!(payer([origin(1), origin(1)]).is_err());
    }

    proptest! {
        #[test]
        fn no_24_hours_have_more_than_max_per_day_calls(
            pauses in proptest::collection::vec(0_u64..6 * HOUR, 1..200),
        ) {
            let quota = PlacesQuota {
                per_day: 7,
                per_day_per_address: Some(0),
                ..PlacesQuota::default()
            };
            let mut budget = PlacesBudget::default();
            let (mut now, mut asked, mut refused_since) = (0, Vec::new(), None);
            for pause in pauses {
                now += pause;
                match ask(&mut budget, origin(1), &quota, at(now)) {
                    Ok(()) => {
                        asked.push(now);
                        refused_since = None;
                    }
                    Err(OverQuota::Day { wait, .. }) => {
                        // While questions are refused, the time of the next allowed question
                        // stays the same.
                        let free_at = now + wait.as_secs();
                        prop_assert_eq!(*refused_since.get_or_insert(free_at), free_at);
                        prop_assert!(wait > Duration::ZERO);
                    }
                    Err(other) => prop_assert!(false, "{}", other),
                }
                let day = asked.iter().filter(|at| **at + 24 * HOUR > now);
                prop_assert!(day.count() <= 7);
            }
        }
    }
}
