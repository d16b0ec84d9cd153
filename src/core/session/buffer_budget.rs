//! The memory that the buffers of all connections hold together, and the choice of the connections
//! that are closed if this is too much.
//!
//! ```text
//!   a connection was flushed ──► its share is updated ──► the sum ── above limits.buffer_bytes ──► eviction
//! ```
//!
//! A limit on each connection does not bound the sum: the default limits allow gigabytes. So all
//! buffers share one budget, `limits.buffer_bytes`. If the sum is greater than the budget,
//! connections are closed ("evicted", as Redis calls it) until the sum is at most 7/8 of the
//! budget. Then another 1/8 of the budget has to fill before the next eviction. So scans over all
//! connections are rare.
//!
//! The connections with the greatest product of bytes and age are evicted first. [`Share::age`] is
//! the time for which the connection has held bytes. The age decreases when the socket takes
//! output. So a client that reads nothing is evicted first, then a client that reads slowly, then a
//! client that reads as fast as it is answered.

use std::fmt;
use std::time::Duration;

use log::warn;

use crate::core::base::clock::Time;
use crate::core::base::counted::Counted;
use crate::core::base::limits::{LimitValue, Limits};

/// An eviction frees one eighth of the budget. Waiting answers may hold one eighth too.
const FREED: u64 = 8;

/// The bytes of the budget that one connection holds, and their age.
#[derive(Clone, Copy, Debug, Default)]
pub struct Share {
    /// The number of bytes that the buffers held at the last [`BufferBudget::account`].
    bytes: u32,
    /// The number of bytes that the socket took after the last [`BufferBudget::account`].
    taken: u32,
    /// The time from which the age is measured. First, this is the time when the connection began
    /// to hold more bytes than an idle connection. [`Share::grow_younger`] moves it towards the
    /// present.
    since: Time,
}

impl Share {
    /// Returns the number of bytes that the connection's buffers hold.
    #[inline]
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes.into()
    }

    /// Returns the age of the held bytes. The age decreases when the socket takes output.
    #[must_use]
    pub fn age(&self, now: Time) -> Duration {
        now.since(self.since)
    }

    /// Returns how many bytes the connection holds beyond `least`. An idle connection holds `least`
    /// bytes.
    #[inline]
    #[must_use]
    pub fn above(&self, least: usize) -> u64 {
        self.bytes().saturating_sub(least as u64)
    }

    /// Adds `count` to the bytes that the socket took.
    #[inline]
    pub fn took(&mut self, count: usize) {
        self.taken = self.taken.saturating_add(count as u32);
    }

    /// Multiplies the age by the part of the bytes that the socket did not take. So a peer that
    /// takes one byte now and then stays nearly as old as a peer that takes nothing.
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
    /// The number of bytes that the connection's buffers held.
    pub bytes: u64,
    /// The age of these bytes in milliseconds: see [`Share::age`].
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

/// The evicted connections that no log line has reported yet.
#[derive(Default)]
struct Untold {
    counts: [u64; Kind::COUNT],
    bytes: u64,
}

/// The number of bytes that all buffers hold together, and the limit on this number.
pub struct BufferBudget {
    /// The maximum.
    budget: u64,
    /// The sum of the bytes in the shares of all connections.
    connections: u64,
    /// The number of bytes in answers of Places that wait for their clients.
    answers: u64,
    /// An eviction begins when the buffers hold more bytes than this. This is the budget, or more
    /// if the last eviction could not close enough connections.
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
    /// Creates the budget. `bytes` is the maximum, or 0 for no maximum. The shell replaces a 0 in
    /// `limits.buffer_bytes` by a part of the memory before it calls this function.
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

    /// Sets the number of bytes that the connection's buffers hold to `bytes`. `least` is the
    /// number of bytes that the connection holds when it is idle. Only this method changes the sum
    /// of all shares.
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

    /// Adds `bytes`, the size of an answer of Places that waits for its clients.
    pub fn answer_waits(&mut self, bytes: usize) {
        self.answers += bytes as u64;
    }

    /// Subtracts `bytes`, the size of an answer of Places that no longer waits.
    pub fn answer_is_gone(&mut self, bytes: usize) {
        debug_assert!(self.answers >= bytes as u64, "it was counted");
        self.answers = self.answers.saturating_sub(bytes as u64);
    }

    /// Whether answers of Places hold more than 1/8 of the budget. Then no new question is asked.
    #[must_use]
    pub fn has_enough_answers(&self) -> bool {
        self.answers > self.budget / FREED
    }

    /// Returns the number of bytes that the buffers and the waiting answers hold together.
    #[inline]
    #[must_use]
    pub fn held_bytes(&self) -> u64 {
        self.connections + self.answers
    }

    /// Returns two numbers of bytes: that of the connections' buffers, and that of the waiting
    /// answers.
    #[must_use]
    pub fn parts(&self) -> (u64, u64) {
        (self.connections, self.answers)
    }

    /// Returns the maximum in bytes. `None` if there is no maximum.
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

    /// Whether the buffers hold at most 7/8 of the budget, so that an eviction can end.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.held_bytes() <= self.budget - self.budget / FREED
    }

    /// A connection was evicted.
    pub fn evicted(&mut self, kind: Kind, bytes: u64) {
        self.untold.counts[kind as usize] += 1;
        self.untold.bytes += bytes;
    }

    /// Ends an eviction, and logs it. If the last log line about evictions is too recent, logs
    /// nothing. Then the caller has to call [`BufferBudget::tell`] at the returned time.
    pub fn eviction_is_over(&mut self, limits: &Limits, now: Time) -> Option<Time> {
        // If the eviction could not free enough, the next eviction waits until 1/8 of the budget
        // more is held.
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

    /// Logs the connections that were evicted since the last such line. Does nothing if there are
    /// none. The next line may follow after `limits.log_faults_ms`.
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
        // The bytes that an idle connection holds have no age.
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
