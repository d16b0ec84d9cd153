//! Counts of what clients did: stamps far from our clock, unfinished lines, failed TLS handshakes,
//! questions to Google Places, and ignored PROXY headers. An `IAMAT` is the command with which a
//! client reports its position, and a stamp is the time in an `IAMAT`. If most stamps are far from
//! our clock, a warning is logged.

use std::fmt;

use std::net::IpAddr;

use log::{info, warn};

use crate::core::base::bucket::Rate;
use crate::core::base::clock::Time;
use crate::core::base::histogram::{Histogram, PLACES_BOUNDS_NS};
use crate::core::base::limits::{LimitValue, Limits};
use crate::core::session::buffer_budget::BufferBudget;
use crate::core::session::handshakes::Handshakes;
use crate::core::session::log_budget::LogBudget;
use crate::core::session::origins::{OriginBuckets, origin};
use crate::core::session::peer_label::PeerLabel;
use crate::core::session::places_budget::PlacesBudget;
use crate::core::session::turns::Turns;
use crate::core::wire::posix_time::Lead;

/// The length of the period in which [`Tally`] counts stamps that are far from our clock: one
/// minute, in nanoseconds.
const PERIOD_NANOS: u64 = 60_000_000_000;
/// The minimum number of `IAMAT`s in a period. After a period with fewer `IAMAT`s, the clocks are
/// not compared.
const MIN_IAMATS: u32 = 10;

/// How the stamps of most `IAMAT`s compare with our clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientClocks {
    /// Neither [`ClientClocks::Ahead`] nor [`ClientClocks::Behind`].
    Near,
    /// Most stamps are more than 60 s ahead of our clock.
    Ahead,
    /// Most stamps are more than 60 s behind our clock.
    Behind,
}

impl fmt::Display for ClientClocks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ClientClocks::Near => "near",
            ClientClocks::Ahead => "ahead",
            ClientClocks::Behind => "behind",
        })
    }
}

/// Makes [`Counters`] from two lists. Both lists become metrics. Only the first list is in the
/// `STATUS` line.
macro_rules! counters {
    (
        status { $($(#[doc = $about:literal])+ $name:ident => $metric:literal;)+ }
        metrics { $($(#[doc = $more_about:literal])+ $more:ident => $more_metric:literal;)+ }
    ) => {
        /// Counters of one server since it started. The metrics contain all counters. The `STATUS`
        /// line and `herd-client status` contain the counters of the first list: the name of a
        /// counter is its key.
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        pub struct Counters {
            $($(#[doc = $about])+ pub $name: u64,)+
            $($(#[doc = $more_about])+ pub $more: u64,)+
        }

        impl Counters {
            /// Returns the name and the value of each counter of the `STATUS` line, in the order of
            /// the first list.
            pub fn all(&self) -> impl Iterator<Item = (&'static str, u64)> {
                [$((stringify!($name), self.$name),)+].into_iter()
            }

            /// Creates the counters of a `STATUS` line. `value` returns the value of the counter
            /// with a given name. Returns `None` if a value is missing.
            pub fn read(value: impl Fn(&str) -> Option<u64>) -> Option<Counters> {
                Some(Counters {
                    $($name: value(stringify!($name))?,)+
                    ..Counters::default()
                })
            }

            /// Returns all counters as metrics. Counters with the same metric name are consecutive.
            pub fn metrics(&self) -> impl Iterator<Item = CounterMetric> {
                [
                    $(CounterMetric::new($metric, concat!($($about),+), self.$name),)+
                    $(CounterMetric::new($more_metric, concat!($($more_about),+), self.$more),)+
                ]
                .into_iter()
            }
        }
    };
}

/// A counter as a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CounterMetric {
    /// The name of the metric. It ends with `_total`.
    pub name: &'static str,
    /// The label and its value. `None` if no other counter has the same metric name.
    pub label: Option<(&'static str, &'static str)>,
    /// What is counted.
    pub help: &'static str,
    /// The count.
    pub value: u64,
}

impl CounterMetric {
    /// Creates a metric. `metric` has the form `name` or `name label value`.
    fn new(metric: &'static str, help: &'static str, value: u64) -> CounterMetric {
        let mut words = metric.split(' ');
        let name = words.next().unwrap_or_default();
        CounterMetric {
            name,
            label: words.next().zip(words.next()),
            help: help.trim_ascii(),
            value,
        }
    }
}

counters! {
    // The help of a metric is the comment of its counter. If counters share a metric name, the help
    // is the comment of the first of these counters.
    status {
        /// `IAMAT`s that were answered, but whose record was not stored. The record was not newer
        /// than the stored record, or it had expired.
        stale => "herd_iamats_stale_total";
        /// `IAMAT`s with a stamp more than 60 s ahead of our clock.
        ahead => "herd_iamats_ahead_total";
        /// `IAMAT`s with a stamp more than 60 s behind our clock.
        behind => "herd_iamats_behind_total";
        /// Clients that were refused because too many clients were connected from their address.
        refused_by_address => "herd_clients_refused_by_address_total";
        /// Unproven peers that were closed so that a new unproven peer could take their slot.
        unproven_displaced => "herd_unproven_displaced_total";
        /// Connections to the neighbours' port that were closed because all slots for unproven
        /// peers were taken.
        unproven_crowded => "herd_unproven_crowded_total";
        /// Connections to the neighbours' port that were closed because too many connections came
        /// from their network within `limits.unproven_new_ms`.
        unproven_throttled => "herd_unproven_throttled_total";
        /// Questions that were sent to Google Places. Sending a question again counts as another
        /// question.
        places_asked => "herd_places_questions_total";
        /// Questions to Google Places that a question of another address displaced from the queue.
        places_displaced => "herd_places_displaced_total";
        /// Questions whose deadline passed before `places.max_per_second` allowed them.
        places_over_second => "herd_places_over_second_total";
        /// Questions that were refused because of `places.max_per_day`.
        places_over_day => "herd_places_over_day_total";
        /// Connections that were closed because all buffers together held more than
        /// `limits.buffer_bytes`.
        evicted => "herd_connections_evicted_total";
        /// `IAMAT`s of new clients that were refused because their address had introduced too many
        /// new clients within `limits.new_names_ms`.
        new_names_refused => "herd_new_names_refused_total";
    }
    metrics {
        /// Commands of clients, by kind. A refused command has the kind that it was read as.
        iamats => "herd_commands_total command iamat";
        /// `WHATSAT`s.
        whatsats => "herd_commands_total command whatsat";
        /// Blank lines, which get no answer.
        blanks => "herd_commands_total command blank";
        /// Lines that are no command.
        invalids => "herd_commands_total command invalid";
        /// Answers to clients, by kind. `quote` is a line that was quoted with `? `.
        ats_answered => "herd_answers_total answer at";
        /// Answers with JSON of Google Places, or with an error in its place.
        places_answered => "herd_answers_total answer places";
        /// Lines that were quoted.
        quoted => "herd_answers_total answer quote";
        /// Questions to Google Places that ended, by outcome. `data` is an answer with status 200,
        /// `error` is an error of Google, `failed` is no answer that can be used.
        places_data => "herd_places_outcomes_total outcome data";
        /// Errors of Google.
        places_errors => "herd_places_outcomes_total outcome error";
        /// Questions without an answer that can be used.
        places_failed => "herd_places_outcomes_total outcome failed";
        /// Answers on the HTTP port, by the class of their status.
        http_ok => "herd_http_answers_total code 2xx";
        /// Requests that were refused.
        http_refused => "herd_http_answers_total code 4xx";
        /// Answers that say that the server is not ready, or that it does not know the version.
        http_unavailable => "herd_http_answers_total code 5xx";
        /// Connections to the HTTP port that were closed at once because `limits.max_http_connections`
        /// were busy.
        http_crowded => "herd_http_connections_refused_total";
    }
}

/// The counts of one server since it started.
pub struct Tally {
    /// The counters in the `STATUS` line and in the metrics.
    pub counters: Counters,
    ignored_headers: u64,
    /// The time at which the present period began.
    since: Time,
    /// The number of `IAMAT`s in the present period.
    iamats: u32,
    /// The value of `counters.ahead` at the beginning of the present period.
    ahead_before: u64,
    /// The value of `counters.behind` at the beginning of the present period.
    behind_before: u64,
    /// The result in the last log line about the clocks of clients. `Near` if there was no such
    /// line.
    logged_clocks: ClientClocks,
    /// The number of lines that were not finished within `limits.line_ms`.
    unfinished: u64,
    /// Failures of TLS with clients.
    pub handshakes: Handshakes,
    /// The limit on log lines about commands that are invalid, refused or failed.
    pub log_budget: LogBudget,
    /// The limits on questions to Google Places, and the number of questions.
    pub places_budget: PlacesBudget,
    /// The number of bytes that all buffers hold together, and the limit on this number.
    pub buffers: BufferBudget,
    /// The maximum number of clients, for the `STATUS` line.
    pub max_clients: u64,
    /// The time at which the drain ends, if the server drains: it closes its clients one after
    /// another, and then stops. For the `STATUS` line.
    pub drain_ends: Option<Time>,
    /// A bucket for each origin. The bucket contains one token for each new client that `IAMAT`s
    /// from this origin may still add.
    new_names: OriginBuckets,
    /// The durations of the turns of the event loop, and the last slow turns.
    pub turns: Turns,
    /// The durations of questions to Google Places, each from the question until its outcome.
    pub places_times: Histogram,
}

impl Default for Tally {
    fn default() -> Tally {
        Tally::new(BufferBudget::default())
    }
}

impl Tally {
    /// Creates the counts of a server whose buffers have this budget.
    #[must_use]
    pub fn new(buffers: BufferBudget) -> Tally {
        Tally {
            counters: Counters::default(),
            ignored_headers: 0,
            since: Time::default(),
            iamats: 0,
            ahead_before: 0,
            behind_before: 0,
            logged_clocks: ClientClocks::Near,
            unfinished: 0,
            handshakes: Handshakes::default(),
            log_budget: LogBudget::default(),
            places_budget: PlacesBudget::default(),
            buffers,
            max_clients: 0,
            drain_ends: None,
            new_names: OriginBuckets::default(),
            turns: Turns::default(),
            places_times: Histogram::new(&PLACES_BOUNDS_NS),
        }
    }

    /// Counts an `IAMAT`. `lead` is whether the stamp of the `IAMAT` is near, ahead of or behind
    /// our clock.
    pub fn count_iamat(&mut self, lead: Lead, now: Time) {
        if now.as_nanos() - self.since.as_nanos() >= PERIOD_NANOS {
            self.compare_clocks(now);
        }
        self.iamats = self.iamats.saturating_add(1);
        match lead {
            Lead::Near => {}
            Lead::Ahead => self.counters.ahead += 1,
            Lead::Behind => self.counters.behind += 1,
        }
    }

    /// Compares clients' clocks with ours, from the `IAMAT`s of the period that ends. Then begins
    /// the next period. The result is logged only when it changes.
    #[cold]
    fn compare_clocks(&mut self, now: Time) {
        let (ahead, behind) = (
            self.counters.ahead - self.ahead_before,
            self.counters.behind - self.behind_before,
        );
        let iamats = u64::from(self.iamats);
        if self.iamats >= MIN_IAMATS {
            let client_clocks = match (2 * ahead > iamats, 2 * behind > iamats) {
                (true, _) => ClientClocks::Ahead,
                (false, true) => ClientClocks::Behind,
                (false, false) => ClientClocks::Near,
            };
            if client_clocks != self.logged_clocks {
                self.logged_clocks = client_clocks;
                match client_clocks {
                    ClientClocks::Near => {
                        info!("clients: most of their clocks agree with ours again")
                    }
                    ClientClocks::Ahead => warn!(
                        "clients: {ahead} of {iamats} IAMATs of a minute were stamped more than 60 s ahead of our clock; is this server's clock slow?"
                    ),
                    ClientClocks::Behind => warn!(
                        "clients: {behind} of {iamats} IAMATs of a minute were stamped more than 60 s behind our clock; is this server's clock fast?"
                    ),
                }
            }
        }
        (self.since, self.iamats) = (now, 0);
        (self.ahead_before, self.behind_before) = (self.counters.ahead, self.counters.behind);
    }

    /// Counts a PROXY header from a client whose address is not in `clients.proxies`. The server
    /// ignores what such a header says, and handles it as an invalid command. A warning is logged
    /// only when the count is a power of two. `has_proxies` is whether `clients.proxies` lists any
    /// proxy.
    #[cold]
    pub fn count_ignored_header(&mut self, label: PeerLabel, has_proxies: bool) {
        self.ignored_headers += 1;
        let times = self.ignored_headers;
        if !times.is_power_of_two() {
            return;
        }
        if has_proxies {
            warn!(
                "{label}: it sent a PROXY header, but its address is not in clients.proxies; {times} so far"
            );
        } else {
            warn!(
                "{label}: it sent a PROXY header, but clients.proxy_protocol is off; {times} so far"
            );
        }
    }

    /// Returns the number of lines that were not finished in time, and the number of PROXY headers
    /// that were ignored.
    #[must_use]
    pub fn of_lines(&self) -> (u64, u64) {
        (self.unfinished, self.ignored_headers)
    }

    /// Counts a line that had no newline in time. Returns the new count.
    pub fn count_unfinished(&mut self) -> u64 {
        self.unfinished += 1;
        self.unfinished
    }

    /// Returns whether an `IAMAT` from `address` may add a client that has no record yet. If so,
    /// takes one token out of the bucket of the address's [`origin`]. If not, counts the refusal.
    pub fn admit_new_name(&mut self, address: IpAddr, limits: &Limits, now: Time) -> bool {
        if !limits.holds_for("new_names_per_address", address) {
            return true;
        }
        let size = Rate {
            capacity: limits.new_names_per_address,
            period: limits.new_names_ms.to_duration(),
        };
        let fits = self.new_names.take(origin(address), 1, size, now);
        self.counters.new_names_refused += u64::from(!fits);
        fits
    }

    /// Returns how clients' clocks compared with ours in the last period that had enough `IAMAT`s.
    #[must_use]
    pub fn client_clocks(&self) -> ClientClocks {
        self.logged_clocks
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    /// Counts the given number of `IAMAT`s for each lead, all in one minute. Returns the result
    /// that was logged last.
    fn minute(tally: &mut Tally, now: &mut Time, leads: &[(Lead, u32)]) -> ClientClocks {
        for &(lead, count) in leads {
            (0..count).for_each(|_| tally.count_iamat(lead, *now));
        }
        *now = *now + Duration::from_secs(60);
        tally.count_iamat(Lead::Near, *now);
        tally.logged_clocks
    }

    #[test]
    fn clocks_are_judged_by_a_majority_of_ten_clients() {
        let (mut tally, mut now) = (Tally::default(), Time::from_nanos(PERIOD_NANOS));
        tally.count_iamat(Lead::Near, now);
        let mut after_minute = |leads: &[_]| minute(&mut tally, &mut now, leads);
        assert_eq!(
            after_minute(&[(Lead::Ahead, 8)]),
            ClientClocks::Near,
            "too few"
        );
        assert_eq!(after_minute(&[(Lead::Ahead, 9)]), ClientClocks::Ahead);
        assert_eq!(
            after_minute(&[(Lead::Behind, 3)]),
            ClientClocks::Ahead,
            "too few"
        );
        let most = [(Lead::Behind, 9), (Lead::Ahead, 5)];
        assert_eq!(after_minute(&most), ClientClocks::Behind);
        let half = [(Lead::Near, 9), (Lead::Behind, 9)];
        assert_eq!(after_minute(&half), ClientClocks::Near);
        assert_eq!((tally.counters.ahead, tally.counters.behind), (22, 21));
    }
}
