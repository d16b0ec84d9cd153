//! How much memory the buffers of all connections hold together, and which connections are closed
//! when that is too much.
//!
//! ```text
//!   a connection was flushed ──► its share is updated ──► the sum ── above limits.buffer_bytes ──► eviction
//! ```
//!
//! A limit on each connection does not bound the sum: the default limits allow gigabytes. So all
//! buffers share one budget. If the sum passes the budget, connections are closed ("evicted", as
//! Redis calls it) until the sum is at most 7/8 of the budget. The next eviction comes only after
//! another eighth was filled, so the cost of a scan over all connections is small on average.
//!
//! The connections that are evicted first have the greatest product of bytes and time. The time is
//! [`Share::age`]: how long the connection has held bytes, less what it got rid of. A client that
//! reads nothing goes before one that reads slowly, and that one before one that reads as fast as
//! it is answered.

use std::fmt;
use std::time::Duration;

use log::warn;

use crate::core::base::clock::Time;
use crate::core::base::counted::Counted;
use crate::core::base::limits::{LimitValue, Limits};

/// The part of the budget that an eviction makes free: one eighth.
const FREED: u64 = 8;

/// What one connection has of the budget.
#[derive(Clone, Copy, Debug, Default)]
pub struct Share {
    /// The number of bytes that were counted last.
    bytes: u32,
    /// The number of bytes that the socket took since.
    taken: u32,
    /// When the connection began to hold more than it does while it is idle. The part of the time is left out that belongs to
    /// bytes which it got rid of.
    since: Time,
}

impl Share {
    /// Returns the number of bytes that the connection's buffers hold.
    #[inline]
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes.into()
    }

    /// Returns how long the connection has held its bytes.
    #[must_use]
    pub fn age(&self, now: Time) -> Duration {
        now.since(self.since)
    }

    /// Returns the number of bytes above `least`, which the connection holds even if it is idle.
    #[inline]
    #[must_use]
    pub fn above(&self, least: usize) -> u64 {
        self.bytes().saturating_sub(least as u64)
    }

    /// The socket took `count` bytes of output.
    #[inline]
    pub fn took(&mut self, count: usize) {
        self.taken = self.taken.saturating_add(count as u32);
    }

    /// Makes the age smaller in proportion to what the socket took. So a peer that takes a byte now
    /// and then does not look like one that reads.
    #[cold]
    fn grow_younger(&mut self, least: usize, now: Time) {
        let (taken, held) = (f64::from(self.taken), self.above(least) as f64);
        let part = (taken / held).min(1.0);
        self.since = self.since + self.age(now).mul_f64(part);
    }
}

/// The kinds of connections that can be evicted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A client.
    Client,
    /// A proxy's connection whose header has not arrived.
    Unidentified,
    /// A connection to the neighbours' port that has not proven a name.
    Unproven,
    /// A connection to Places.
    Exchange,
}

impl Kind {
    const COUNT: usize = 4;
    const ALL: [Kind; Kind::COUNT] = [
        Kind::Client,
        Kind::Unidentified,
        Kind::Unproven,
        Kind::Exchange,
    ];

    fn name(self) -> &'static str {
        match self {
            Kind::Client => "client",
            Kind::Unidentified => "connection without a PROXY header",
            Kind::Unproven => "unproven peer",
            Kind::Exchange => "connection to Places",
        }
    }
}

/// Why a connection was evicted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Eviction {
    /// The number of bytes that its buffers held.
    pub bytes: u64,
    /// How long it had held them: see [`Share::age`].
    pub age_ms: u64,
}

impl fmt::Display for Eviction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the buffers of all connections are full (limits.buffer_bytes), and it has held {} bytes of them for {} ms",
            self.bytes, self.age_ms
        )
    }
}

/// The connections that were evicted, and are not told of in the log yet.
#[derive(Default)]
struct Untold {
    counts: [u64; Kind::COUNT],
    bytes: u64,
}

/// The sum of all buffers, and its limit.
pub struct BufferBudget {
    /// The maximum.
    budget: u64,
    /// The sum of the shares of all connections.
    connections: u64,
    /// Answers of Places that wait for their clients.
    answers: u64,
    /// An eviction begins above this sum: the budget, or more if the last eviction found too little
    /// to close.
    evict_above: u64,
    untold: Untold,
    /// No line about evictions is logged before this time.
    quiet_until: Time,
    last_eviction: Option<Time>,
}

impl Default for BufferBudget {
    fn default() -> BufferBudget {
        BufferBudget::new(0)
    }
}

impl BufferBudget {
    /// Creates the budget. `bytes` is `limits.buffer_bytes`. With 0, there is no maximum: the shell
    /// knows how much memory there is, and has put a number there.
    #[must_use]
    pub fn new(bytes: u64) -> BufferBudget {
        let budget = if bytes == 0 { u64::MAX } else { bytes };
        BufferBudget {
            budget,
            connections: 0,
            answers: 0,
            evict_above: budget,
            untold: Untold::default(),
            quiet_until: Time::default(),
            last_eviction: None,
        }
    }

    /// The buffers of a connection hold `bytes` now, of which it holds `least` even if it is idle.
    /// All changes of the sum of connections come through here.
    #[inline]
    pub fn account(&mut self, share: &mut Share, bytes: usize, least: usize, now: Time) {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        if bytes as usize <= least && bytes == share.bytes {
            return; // it is idle, as most are
        }
        match share.above(least) {
            0 => share.since = now,
            1.. if share.taken > 0 => share.grow_younger(least, now),
            1.. => {}
        }
        share.taken = 0;
        self.connections = self.connections - share.bytes() + u64::from(bytes);
        share.bytes = bytes;
    }

    /// An answer of Places waits for its clients, and holds `bytes`.
    pub fn answer_waits(&mut self, bytes: usize) {
        self.answers += bytes as u64;
    }

    /// An answer of Places that held `bytes` does not wait any more.
    pub fn answer_is_gone(&mut self, bytes: usize) {
        debug_assert!(self.answers >= bytes as u64, "it was counted");
        self.answers = self.answers.saturating_sub(bytes as u64);
    }

    /// Whether so much is held by answers of Places that wait for their clients that no further
    /// question is asked.
    #[must_use]
    pub fn has_enough_answers(&self) -> bool {
        self.answers > self.budget / FREED
    }

    /// Returns the number of bytes that all buffers hold.
    #[inline]
    #[must_use]
    pub fn held_bytes(&self) -> u64 {
        self.connections + self.answers
    }

    /// Returns the number of bytes that the buffers of connections hold, and that of answers.
    #[must_use]
    pub fn parts(&self) -> (u64, u64) {
        (self.connections, self.answers)
    }

    /// Returns the maximum, or `None` if there is none.
    #[must_use]
    pub fn maximum(&self) -> Option<u64> {
        (self.budget < u64::MAX).then_some(self.budget)
    }

    /// Returns the time since the last eviction, if there was one.
    #[must_use]
    pub fn since_eviction(&self, now: Time) -> Option<Duration> {
        self.last_eviction.map(|last| now.since(last))
    }

    /// Whether connections have to be evicted now.
    #[inline]
    pub fn is_exceeded(&mut self) -> bool {
        if self.held_bytes() <= self.budget {
            self.evict_above = self.budget;
            return false;
        }
        self.held_bytes() > self.evict_above
    }

    /// Whether an eviction has closed enough connections.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.held_bytes() <= self.budget - self.budget / FREED
    }

    /// A connection was evicted.
    pub fn evicted(&mut self, kind: Kind, bytes: u64) {
        self.untold.counts[kind as usize] += 1;
        self.untold.bytes += bytes;
    }

    /// An eviction is over. Returns the time at which [`BufferBudget::tell`] has to be called, if
    /// the log was told of an eviction a short time ago.
    pub fn eviction_is_over(&mut self, limits: &Limits, now: Time) -> Option<Time> {
        // If only what may not be closed is left, the next scan waits until more is held.
        self.evict_above = self.budget.max(self.held_bytes() + self.budget / FREED);
        if self.untold.counts.iter().all(|count| *count == 0) {
            return None;
        }
        self.last_eviction = Some(now);
        if now < self.quiet_until {
            return Some(self.quiet_until);
        }
        self.tell(limits, now);
        None
    }

    /// Logs what was evicted since the last such line, if anything was. There is at most one line
    /// in each `limits.log_faults_ms`.
    pub fn tell(&mut self, limits: &Limits, now: Time) {
        let untold = std::mem::take(&mut self.untold);
        let evicted: Vec<String> = Kind::ALL
            .into_iter()
            .map(|kind| (untold.counts[kind as usize], kind))
            .filter(|(count, _)| *count > 0)
            .map(|(count, kind)| kind.counted(count))
            .collect();
        if evicted.is_empty() {
            return;
        }
        self.quiet_until = now + limits.log_faults_ms.to_duration();
        warn!(
            "the buffers of all connections were full (limits.buffer_bytes, {} bytes): closed {}, which freed {} bytes; {} bytes are held now",
            self.budget,
            evicted.join(", "),
            untold.bytes,
            self.held_bytes()
        );
    }
}

impl Kind {
    fn counted(self, count: u64) -> String {
        match (self, count) {
            // The plural of the first word.
            (Kind::Unidentified | Kind::Exchange, 2..) => {
                let name = self.name().replacen("connection", "connections", 1);
                format!("{count} {name}")
            }
            (Kind::Client | Kind::Unproven | Kind::Unidentified | Kind::Exchange, _) => {
                Counted(count, self.name()).to_string()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Time {
        Time::from_nanos(ms * 1_000_000)
    }

    #[test]
    fn the_sum_follows_each_share() {
        let mut budget = BufferBudget::new(8_000);
        let mut shares = [Share::default(); 2];
        budget.account(&mut shares[0], 5_000, 0, at(0));
        budget.account(&mut shares[1], 3_000, 0, at(0));
        assert!(!budget.is_exceeded() && !budget.has_room());
        budget.account(&mut shares[1], 3_001, 0, at(1));
        assert!(budget.is_exceeded());
        budget.account(&mut shares[0], 3_999, 0, at(2));
        assert_eq!((budget.held_bytes(), budget.has_room()), (7_000, true));
        budget.answer_waits(1_001);
        assert!(budget.is_exceeded() && budget.has_enough_answers());
        budget.answer_is_gone(1_001);
        budget.account(&mut shares[0], 0, 0, at(3));
        assert_eq!(budget.parts(), (3_001, 0));
    }

    #[test]
    fn an_age_begins_with_the_first_byte_and_shrinks_with_what_is_taken() {
        let mut budget = BufferBudget::new(0);
        let mut share = Share::default();
        share.took(100); // it held nothing when it was counted
        budget.account(&mut share, 1_000, 0, at(1_000));
        assert_eq!(share.age(at(3_000)).as_millis(), 2_000);
        budget.account(&mut share, 2_000, 0, at(3_000));
        share.took(500);
        budget.account(&mut share, 2_000, 0, at(5_000));
        assert_eq!(share.age(at(5_000)).as_millis(), 3_000);
        share.took(9_999);
        budget.account(&mut share, 2_000, 0, at(5_000));
        assert_eq!(share.age(at(5_000)).as_millis(), 0);
        // What an idle connection holds has no age.
        let mut share = Share::default();
        budget.account(&mut share, 12_000, 12_000, at(0));
        budget.account(&mut share, 13_000, 12_000, at(7_000));
        assert_eq!(share.age(at(8_000)).as_millis(), 1_000);
        share.took(500);
        budget.account(&mut share, 13_000, 12_000, at(8_000));
        assert_eq!(share.age(at(8_000)).as_millis(), 500);
    }

    #[test]
    fn where_nothing_can_be_closed_the_next_scan_waits() {
        let mut budget = BufferBudget::new(8_000);
        let mut share = Share::default();
        budget.account(&mut share, 9_000, 0, at(0));
        assert!(budget.is_exceeded());
        let limits = Limits::default();
        assert_eq!(budget.eviction_is_over(&limits, at(0)), None);
        assert!(!budget.is_exceeded(), "nothing has changed");
        budget.account(&mut share, 10_001, 0, at(0));
        assert!(budget.is_exceeded(), "an eighth more is held");
        budget.account(&mut share, 8_000, 0, at(0));
        assert!(!budget.is_exceeded());
        budget.account(&mut share, 8_001, 0, at(0));
        assert!(budget.is_exceeded());
    }

    #[test]
    fn one_line_in_a_period_counts_each_kind() {
        let limits = Limits::default();
        let mut budget = BufferBudget::new(8_000);
        budget.evicted(Kind::Client, 5);
        assert_eq!(budget.eviction_is_over(&limits, at(0)), None);
        budget.evicted(Kind::Exchange, 5);
        assert_eq!(
            budget.eviction_is_over(&limits, at(1)),
            Some(at(limits.log_faults_ms))
        );
        assert_eq!(budget.since_eviction(at(3)), Some(Duration::from_millis(2)));
        let counted = |count| Kind::ALL.map(|kind| kind.counted(count));
        assert_eq!(counted(1)[3], "1 connection to Places");
        assert_eq!(counted(2)[1], "2 connections without a PROXY header");
        assert_eq!(counted(2)[2], "2 unproven peers");
    }
}
