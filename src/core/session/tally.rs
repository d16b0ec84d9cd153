//! What a server counts of its clients: of their clocks, with when it warns of its own, of their
//! lines and handshakes, and of headers that it did not believe.

use std::fmt;

use log::{info, warn};

use crate::core::base::clock::Time;
use crate::core::session::handshakes::Handshakes;
use crate::core::session::peer_label::PeerLabel;
use crate::core::wire::posix_time::Lead;

/// Clocks are judged by the `IAMAT`s of so long.
const SPAN_NANOS: u64 = 60_000_000_000;
/// Fewer of them say nothing.
const LEAST: u32 = 10;

/// What most of the clients' clocks say of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opinion {
    /// They agree with it.
    Near,
    /// They are ahead of it.
    Ahead,
    /// They are behind it.
    Behind,
}

impl fmt::Display for Opinion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Opinion::Near => "near",
            Opinion::Ahead => "ahead",
            Opinion::Behind => "behind",
        })
    }
}

/// Counts of one server.
pub struct Tally {
    stale: u64,
    ahead: u64,
    behind: u64,
    passed_over_headers: u64,
    /// The present minute: since when, how many were heard in it, and how the other two counts
    /// stood when it began.
    since: Time,
    heard: u32,
    ahead_before: u64,
    behind_before: u64,
    told: Opinion,
    /// Lines that had no newline in time.
    unfinished: u64,
    /// TLS with clients that failed.
    pub handshakes: Handshakes,
}

impl Default for Tally {
    fn default() -> Tally {
        Tally {
            stale: 0,
            ahead: 0,
            behind: 0,
            passed_over_headers: 0,
            since: Time::default(),
            heard: 0,
            ahead_before: 0,
            behind_before: 0,
            told: Opinion::Near,
            unfinished: 0,
            handshakes: Handshakes::default(),
        }
    }
}

impl Tally {
    /// An `IAMAT` was heard, whose stamp was there.
    pub fn heard(&mut self, lead: Lead, now: Time) {
        if now.as_nanos() - self.since.as_nanos() >= SPAN_NANOS {
            self.judge(now);
        }
        self.heard = self.heard.saturating_add(1);
        match lead {
            Lead::Near => {}
            Lead::Ahead => self.ahead += 1,
            Lead::Behind => self.behind += 1,
        }
    }

    /// A minute is over; the log is told if most clients' clocks disagree with ours, when that
    /// begins and when it ends.
    #[cold]
    fn judge(&mut self, now: Time) {
        let (ahead, behind) = (
            self.ahead - self.ahead_before,
            self.behind - self.behind_before,
        );
        let heard = u64::from(self.heard);
        if self.heard >= LEAST {
            let opinion = match (2 * ahead > heard, 2 * behind > heard) {
                (true, _) => Opinion::Ahead,
                (false, true) => Opinion::Behind,
                (false, false) => Opinion::Near,
            };
            if opinion != self.told {
                self.told = opinion;
                match opinion {
                    Opinion::Near => info!("clients: most of their clocks agree with ours again"),
                    Opinion::Ahead => warn!(
                        "clients: {ahead} of {heard} IAMATs of a minute were stamped more than 60 s ahead of our clock; is this server's clock slow?"
                    ),
                    Opinion::Behind => warn!(
                        "clients: {behind} of {heard} IAMATs of a minute were stamped more than 60 s behind our clock; is this server's clock fast?"
                    ),
                }
            }
        }
        (self.since, self.heard) = (now, 0);
        (self.ahead_before, self.behind_before) = (self.ahead, self.behind);
    }

    /// A client that is no listed proxy sent a PROXY header, which is not believed. The log is told
    /// the first time and at every power of two; `is_on` says whether any proxy is listed.
    #[cold]
    pub fn passed_over_header(&mut self, who: PeerLabel, is_on: bool) {
        self.passed_over_headers += 1;
        let times = self.passed_over_headers;
        if !times.is_power_of_two() {
            return;
        }
        if is_on {
            warn!(
                "{who}: it sent a PROXY header, but its address is not in clients.proxies; {times} so far"
            );
        } else {
            warn!(
                "{who}: it sent a PROXY header, but clients.proxy_protocol is off; {times} so far"
            );
        }
    }

    /// An `IAMAT` was answered that changes nothing.
    pub fn was_stale(&mut self) {
        self.stale += 1;
    }

    /// A line had no newline in time; returns how many there were.
    pub fn was_unfinished(&mut self) -> u64 {
        self.unfinished += 1;
        self.unfinished
    }

    /// `IAMAT`s that were answered and changed nothing.
    #[must_use]
    pub fn stale(&self) -> u64 {
        self.stale
    }

    /// What most clients' clocks said of ours when that was judged last.
    #[must_use]
    pub fn opinion(&self) -> Opinion {
        self.told
    }

    /// `IAMAT`s that were stamped more than 60 s ahead of our clock.
    #[must_use]
    pub fn ahead(&self) -> u64 {
        self.ahead
    }

    /// `IAMAT`s that were stamped more than 60 s behind our clock.
    #[must_use]
    pub fn behind(&self) -> u64 {
        self.behind
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    /// Hears as many as that, all in one minute; returns what the log was told last.
    fn minute(tally: &mut Tally, now: &mut Time, leads: &[(Lead, u32)]) -> Opinion {
        for &(lead, count) in leads {
            (0..count).for_each(|_| tally.heard(lead, *now));
        }
        *now = *now + Duration::from_secs(60);
        tally.heard(Lead::Near, *now);
        tally.told
    }

    #[test]
    fn most_of_ten_clients_in_a_minute_have_a_say() {
        let (mut tally, mut now) = (Tally::default(), Time::from_nanos(SPAN_NANOS));
        tally.heard(Lead::Near, now);
        let mut told = |leads: &[_]| minute(&mut tally, &mut now, leads);
        assert_eq!(told(&[(Lead::Ahead, 8)]), Opinion::Near, "too few");
        assert_eq!(told(&[(Lead::Ahead, 9)]), Opinion::Ahead);
        assert_eq!(told(&[(Lead::Behind, 3)]), Opinion::Ahead, "too few");
        let most = [(Lead::Behind, 9), (Lead::Ahead, 5)];
        assert_eq!(told(&most), Opinion::Behind);
        let half = [(Lead::Near, 9), (Lead::Behind, 9)];
        assert_eq!(told(&half), Opinion::Near);
        assert_eq!((tally.ahead(), tally.behind()), (22, 21));
    }
}
