//! The memory that the buffers of all connections hold together, and the choice of the connections
//! that are closed if this is too much.
//!
//! ```text
//!   a connection was flushed ──► its usage is updated ──► the sum ── above limits.buffer_bytes ──► eviction
//! ```
//!
//! A limit on each connection does not bound the sum: the default limits allow gigabytes. So all
//! buffers share one budget, `limits.buffer_bytes`. If the sum is greater than the budget,
//! connections are evicted: they are closed until the sum is at most 7/8 of the budget. (Redis also
//! calls this eviction.) After an eviction, another 1/8 of the budget has to fill before the next
//! eviction. So scans over all connections are rare.
//!
//! The connections with the greatest product of bytes and age are evicted first.
//! [`BufferUsage::age`] is the time for which the connection has held bytes. The age decreases when
//! the socket accepts output. So a client that reads nothing is evicted before a client that reads
//! slowly. A client that reads as fast as it gets answers is evicted last.

use std::fmt;
use std::time::Duration;

use log::warn;

use crate::core::base::clock::Time;
use crate::core::base::counted::Counted;
use crate::core::base::limits::{LimitValue, Limits};

/// An eviction frees this part of the budget: one eighth. The answers of Places that wait for their
/// clients may hold one eighth of the budget too.
const FREED_DIVISOR: u64 = 8;

/// The bytes that the buffers of one connection hold, and their age.
#[derive(Clone, Copy, Debug, Default)]
pub struct BufferUsage {
    /// The number of bytes that the buffers held at the last [`BufferBudget::account`].
    bytes: u32,
    /// The number of bytes that the socket accepted after the last [`BufferBudget::account`].
    sent: u32,
    /// The time from which the age is measured. First, this is the time when the connection began
    /// to hold more bytes than an idle connection. [`BufferUsage::reduce_age`] moves this time
    /// towards the present.
    since: Time,
}

impl BufferUsage {
    /// Returns the number of bytes that the connection's buffers hold.
    #[inline]
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes.into()
    }

    /// Returns the age of the held bytes. The age decreases when the socket accepts output.
    #[must_use]
    pub fn age(&self, now: Time) -> Duration {
        now.since(self.since)
    }

    /// Returns how many bytes the connection holds beyond `idle_bytes`. An idle connection holds
    /// `idle_bytes` bytes.
    #[inline]
    #[must_use]
    pub fn bytes_above(&self, idle_bytes: usize) -> u64 {
        self.bytes().saturating_sub(idle_bytes as u64)
    }

    /// Adds `count` to the number of bytes that the socket accepted.
    #[inline]
    pub fn output_sent(&mut self, count: usize) {
        self.sent = self.sent.saturating_add(count as u32);
    }

    /// Multiplies the age by the part of the bytes that the socket did not accept. So for a peer
    /// that reads one byte now and then, the age hardly decreases.
    #[cold]
    fn reduce_age(&mut self, idle_bytes: usize, now: Time) {
        let (sent, held) = (f64::from(self.sent), self.bytes_above(idle_bytes) as f64);
        let part = (sent / held).min(1.0);
        self.since = self.since + self.age(now).mul_f64(part);
    }
}

/// The kinds of connections that can be evicted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EvictableKind {
    /// A client.
    Client,
    /// A connection from a proxy that has not sent its PROXY header yet.
    Unidentified,
    /// A connection to the neighbours' port that has not proven a name.
    Unproven,
    /// A connection to Places.
    Exchange,
    /// A connection to the HTTP port.
    Http,
}

impl EvictableKind {
    const COUNT: usize = 5;
    const ALL: [EvictableKind; EvictableKind::COUNT] = [
        EvictableKind::Client,
        EvictableKind::Unidentified,
        EvictableKind::Unproven,
        EvictableKind::Exchange,
        EvictableKind::Http,
    ];

    fn name(self) -> &'static str {
        match self {
            EvictableKind::Client => "client",
            EvictableKind::Unidentified => "connection without a PROXY header",
            EvictableKind::Unproven => "unproven peer",
            EvictableKind::Exchange => "connection to Places",
            EvictableKind::Http => "connection to the HTTP port",
        }
    }
}

/// Why a connection was evicted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Eviction {
    /// The number of bytes that the connection's buffers held.
    pub bytes: u64,
    /// The age of these bytes in milliseconds: see [`BufferUsage::age`].
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
struct Unlogged {
    counts: [u64; EvictableKind::COUNT],
    bytes: u64,
}

/// The number of bytes that all buffers hold together, and the limit on this number.
pub struct BufferBudget {
    /// The maximum number of bytes that the buffers and the waiting answers may hold together.
    budget: u64,
    /// The number of bytes in the buffers of all connections: the sum of their usages.
    connection_bytes: u64,
    /// The number of bytes in answers of Places that wait for their clients.
    answer_bytes: u64,
    /// An eviction begins when the buffers hold more bytes than this. This is the budget, or more
    /// if the last eviction could not close enough connections.
    evict_above: u64,
    unlogged: Unlogged,
    /// No line about evictions is logged before this time.
    next_log_at: Time,
    last_eviction: Option<Time>,
}

impl Default for BufferBudget {
    fn default() -> BufferBudget {
        BufferBudget::new(0)
    }
}

impl BufferBudget {
    /// Creates the budget. `bytes` is the maximum, or 0 for no maximum. The shell, which is the
    /// part of the server that does the input and output, replaces a 0 in `limits.buffer_bytes` by
    /// a part of the machine's memory before it calls this function.
    #[must_use]
    pub fn new(bytes: u64) -> BufferBudget {
        let budget = if bytes == 0 { u64::MAX } else { bytes };
        BufferBudget {
            budget,
            connection_bytes: 0,
            answer_bytes: 0,
            evict_above: budget,
            unlogged: Unlogged::default(),
            next_log_at: Time::default(),
            last_eviction: None,
        }
    }

    /// Sets the number of bytes that the connection's buffers hold to `bytes`. `idle_bytes` is the
    /// number of bytes that the connection holds when it is idle. Only this method changes the sum
    /// of all usages.
    #[inline]
    pub fn account(&mut self, usage: &mut BufferUsage, bytes: usize, idle_bytes: usize, now: Time) {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        if bytes as usize <= idle_bytes && bytes == usage.bytes {
            return; // most connections are idle
        }
        match usage.bytes_above(idle_bytes) {
            0 => usage.since = now,
            1.. if usage.sent > 0 => usage.reduce_age(idle_bytes, now),
            1.. => {}
        }
        usage.sent = 0;
        self.connection_bytes = self.connection_bytes - usage.bytes() + u64::from(bytes);
        usage.bytes = bytes;
    }

    /// Adds `bytes`, the size of an answer of Places that waits for its clients.
    pub fn add_answer(&mut self, bytes: usize) {
        self.answer_bytes += bytes as u64;
    }

    /// Subtracts `bytes`, the size of an answer of Places that no longer waits.
    pub fn remove_answer(&mut self, bytes: usize) {
        debug_assert!(self.answer_bytes >= bytes as u64, "it was counted");
        self.answer_bytes = self.answer_bytes.saturating_sub(bytes as u64);
    }

    /// Whether answers of Places hold more than 1/8 of the budget. Then no new question is asked.
    #[must_use]
    pub fn has_too_many_answers(&self) -> bool {
        self.answer_bytes > self.budget / FREED_DIVISOR
    }

    /// Returns the number of bytes that the buffers and the waiting answers hold together.
    #[inline]
    #[must_use]
    pub fn held_bytes(&self) -> u64 {
        self.connection_bytes + self.answer_bytes
    }

    /// Returns two numbers of bytes: that of the connections' buffers, and that of the waiting
    /// answers.
    #[must_use]
    pub fn parts(&self) -> (u64, u64) {
        (self.connection_bytes, self.answer_bytes)
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

    /// Whether connections have to be evicted now. If the buffers hold at most the budget, this
    /// method also sets `evict_above` back to the budget.
    #[inline]
    pub fn is_exceeded(&mut self) -> bool {
        if self.held_bytes() <= self.budget {
            self.evict_above = self.budget;
            return false;
        }
        self.held_bytes() > self.evict_above
    }

    /// Whether the buffers hold at most 7/8 of the budget. Then an eviction ends.
    #[must_use]
    pub fn is_below_target(&self) -> bool {
        self.held_bytes() <= self.budget - self.budget / FREED_DIVISOR
    }

    /// Counts an evicted connection for the next log line. Its buffers held `bytes` bytes.
    pub fn count_eviction(&mut self, kind: EvictableKind, bytes: u64) {
        self.unlogged.counts[kind as usize] += 1;
        self.unlogged.bytes += bytes;
    }

    /// Ends an eviction, and logs the evicted connections. If the last such log line is too recent,
    /// logs nothing, and returns the time at which the next line is allowed. Then the caller has to
    /// call [`BufferBudget::log_evictions`] at that time.
    pub fn end_eviction(&mut self, limits: &Limits, now: Time) -> Option<Time> {
        // If the eviction could not free enough, the next eviction begins only when the buffers
        // hold another 1/8 of the budget.
        self.evict_above = self
            .budget
            .max(self.held_bytes() + self.budget / FREED_DIVISOR);
        if self.unlogged.counts.iter().all(|count| *count == 0) {
            return None;
        }
        self.last_eviction = Some(now);
        if now < self.next_log_at {
            return Some(self.next_log_at);
        }
        self.log_evictions(limits, now);
        None
    }

    /// Logs the connections that were evicted since the last such line. Does nothing if there are
    /// none. The next line may follow after `limits.log_faults_ms`.
    pub fn log_evictions(&mut self, limits: &Limits, now: Time) {
        let unlogged = std::mem::take(&mut self.unlogged);
        let evicted: Vec<String> = EvictableKind::ALL
            .into_iter()
            .map(|kind| (unlogged.counts[kind as usize], kind))
            .filter(|(count, _)| *count > 0)
            .map(|(count, kind)| kind.counted(count))
            .collect();
        if evicted.is_empty() {
            return;
        }
        self.next_log_at = now + limits.log_faults_ms.to_duration();
        warn!(
            "the buffers of all connections were full (limits.buffer_bytes, {} bytes): closed {}, which freed {} bytes; {} bytes are held now",
            self.budget,
            evicted.join(", "),
            unlogged.bytes,
            self.held_bytes()
        );
    }
}

impl EvictableKind {
    fn counted(self, count: u64) -> String {
        match (self, count) {
            // The plural of the first word.
            (EvictableKind::Unidentified | EvictableKind::Exchange | EvictableKind::Http, 2..) => {
                let name = self.name().replacen("connection", "connections", 1);
                format!("{count} {name}")
            }
            (
                EvictableKind::Client
                | EvictableKind::Unproven
                | EvictableKind::Unidentified
                | EvictableKind::Exchange
                | EvictableKind::Http,
                _,
            ) => Counted(count, self.name()).to_string(),
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
        let mut usages = [BufferUsage::default(); 2];
        budget.account(&mut usages[0], 5_000, 0, at(0));
        budget.account(&mut usages[1], 3_000, 0, at(0));
        assert!(!budget.is_exceeded() && !budget.is_below_target());
        budget.account(&mut usages[1], 3_001, 0, at(1));
        assert!(budget.is_exceeded());
        budget.account(&mut usages[0], 3_999, 0, at(2));
        assert_eq!(
            (budget.held_bytes(), budget.is_below_target()),
            (7_000, true)
        );
        budget.add_answer(1_001);
        assert!(budget.is_exceeded() && budget.has_too_many_answers());
        budget.remove_answer(1_001);
        budget.account(&mut usages[0], 0, 0, at(3));
        assert_eq!(budget.parts(), (3_001, 0));
    }

    #[test]
    fn an_age_begins_with_the_first_byte_and_shrinks_with_what_is_taken() {
        let mut budget = BufferBudget::new(0);
        let mut usage = BufferUsage::default();
        usage.output_sent(100); // it held nothing when it was counted
        budget.account(&mut usage, 1_000, 0, at(1_000));
        assert_eq!(usage.age(at(3_000)).as_millis(), 2_000);
        budget.account(&mut usage, 2_000, 0, at(3_000));
        usage.output_sent(500);
        budget.account(&mut usage, 2_000, 0, at(5_000));
        assert_eq!(usage.age(at(5_000)).as_millis(), 3_000);
        usage.output_sent(9_999);
        budget.account(&mut usage, 2_000, 0, at(5_000));
        assert_eq!(usage.age(at(5_000)).as_millis(), 0);
        // The bytes that an idle connection holds have no age.
        let mut usage = BufferUsage::default();
        budget.account(&mut usage, 12_000, 12_000, at(0));
        budget.account(&mut usage, 13_000, 12_000, at(7_000));
        assert_eq!(usage.age(at(8_000)).as_millis(), 1_000);
        usage.output_sent(500);
        budget.account(&mut usage, 13_000, 12_000, at(8_000));
        assert_eq!(usage.age(at(8_000)).as_millis(), 500);
    }

    #[test]
    fn where_nothing_can_be_closed_the_next_scan_waits() {
        let mut budget = BufferBudget::new(8_000);
        let mut usage = BufferUsage::default();
        budget.account(&mut usage, 9_000, 0, at(0));
        assert!(budget.is_exceeded());
        let limits = Limits::default();
        assert_eq!(budget.end_eviction(&limits, at(0)), None);
        assert!(!budget.is_exceeded(), "nothing has changed");
        budget.account(&mut usage, 10_001, 0, at(0));
        assert!(budget.is_exceeded(), "an eighth more is held");
        budget.account(&mut usage, 8_000, 0, at(0));
        assert!(!budget.is_exceeded());
        budget.account(&mut usage, 8_001, 0, at(0));
        assert!(budget.is_exceeded());
    }

    #[test]
    fn one_line_in_a_period_counts_each_kind() {
        let limits = Limits::default();
        let mut budget = BufferBudget::new(8_000);
        budget.count_eviction(EvictableKind::Client, 5);
        assert_eq!(budget.end_eviction(&limits, at(0)), None);
        budget.count_eviction(EvictableKind::Exchange, 5);
        assert_eq!(
            budget.end_eviction(&limits, at(1)),
            Some(at(limits.log_faults_ms))
        );
        assert_eq!(budget.since_eviction(at(3)), Some(Duration::from_millis(2)));
        let counted = |count| EvictableKind::ALL.map(|kind| kind.counted(count));
        assert_eq!(counted(1)[3], "1 connection to Places");
        assert_eq!(counted(2)[1], "2 connections without a PROXY header");
        assert_eq!(counted(2)[2], "2 unproven peers");
    }
}
