//! The timing of attempts to reconnect. The wait before an attempt doubles, and has jitter. The
//! number of attempts at once is limited, so that they do not flood a server that has just started.
//! This module has no socket and no clock.
//!
//! While attempts fail, only one connection at a time tries. The others follow when the server has
//! answered that one. So a server that is down gets about one attempt a second, for any number of
//! connections.

use std::collections::VecDeque;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::Duration;

use herd_mio::core::base::backoff::Backoff;

/// The first wait, before jitter.
const FIRST_WAIT: Duration = Duration::from_millis(50);
/// The longest wait.
const LONGEST_WAIT: Duration = Duration::from_secs(1);
/// The greatest number of attempts at once, if the last one succeeded. It is below the backlog of
/// any server.
const AT_ONCE: usize = 50;

/// Lost connections, and attempts to make them again.
pub(crate) struct Redial {
    waiting: VecDeque<usize>,
    /// Each attempt in progress, and its start.
    attempts: Vec<(usize, u64)>,
    backoff: Backoff,
    not_before_ns: u64,
    /// Whether the last attempt failed.
    is_failing: bool,
    random: fn() -> u64,
}

impl Redial {
    pub(crate) fn new() -> Redial {
        Redial {
            waiting: VecDeque::new(),
            attempts: Vec::new(),
            backoff: Backoff::new(FIRST_WAIT, LONGEST_WAIT),
            not_before_ns: 0,
            is_failing: false,
            random: || RandomState::new().build_hasher().finish(),
        }
    }

    /// A connection was lost.
    pub(crate) fn lost(&mut self, index: usize, now_ns: u64) {
        if self.is_idle() {
            self.wait(now_ns);
        }
        self.waiting.push_back(index);
    }

    /// An attempt failed.
    pub(crate) fn failed(&mut self, index: usize, now_ns: u64) {
        self.attempts.retain(|(attempt, _)| *attempt != index);
        self.waiting.push_front(index);
        self.is_failing = true;
        self.wait(now_ns);
    }

    /// An attempt succeeded.
    pub(crate) fn made(&mut self, index: usize) {
        self.attempts.retain(|(attempt, _)| *attempt != index);
        self.is_failing = false;
        self.not_before_ns = 0;
        self.backoff.reset();
    }

    fn wait(&mut self, now_ns: u64) {
        let wait = self.backoff.next_wait((self.random)());
        // At most a second.
        self.not_before_ns = now_ns + wait.as_nanos() as u64;
    }

    /// Whether no connection is lost.
    pub(crate) fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.attempts.is_empty()
    }

    /// The connection to try now, if one is due.
    pub(crate) fn next(&mut self, now_ns: u64) -> Option<usize> {
        let at_once = if self.is_failing { 1 } else { AT_ONCE };
        if now_ns < self.not_before_ns || self.attempts.len() >= at_once {
            return None;
        }
        let index = self.waiting.pop_front()?;
        self.attempts.push((index, now_ns));
        Some(index)
    }

    /// The time at which the next attempt may be due, if a connection waits.
    pub(crate) fn next_ns(&self) -> Option<u64> {
        let waits = !self.waiting.is_empty() && self.attempts.is_empty();
        waits.then_some(self.not_before_ns)
    }

    /// An attempt that has taken longer than `timeout_ns`.
    pub(crate) fn overdue(&self, now_ns: u64, timeout_ns: u64) -> Option<usize> {
        let is_overdue = |attempt: &&(usize, u64)| now_ns.saturating_sub(attempt.1) > timeout_ns;
        self.attempts
            .iter()
            .find(is_overdue)
            .map(|(index, _)| *index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn redial() -> Redial {
        Redial {
            random: || u64::MAX, // 90 % of each step
            ..Redial::new()
        }
    }

    #[test]
    fn one_connection_redials_with_growing_waits() {
        let mut redial = redial();
        for index in 0..100 {
            redial.lost(index, 0);
        }
        let mut now_ns = 0;
        for wait_ms in [45, 90, 180, 360, 720, 900, 900] {
            assert_eq!(redial.next_ns(), Some(now_ns + wait_ms * MS));
            assert_eq!(redial.next(now_ns + wait_ms * MS - 1), None);
            now_ns += wait_ms * MS;
            assert_eq!(redial.next(now_ns), Some(0));
            if now_ns > 45 * MS {
                assert_eq!(redial.next(now_ns), None, "one at a time");
            } else {
                // No attempt has failed yet, so others start too.
                for index in 1..50 {
                    assert_eq!(redial.next(now_ns), Some(index));
                }
                assert_eq!(redial.next(now_ns), None);
                for index in (1..50).rev() {
                    redial.attempts.retain(|(attempt, _)| *attempt != index);
                    redial.waiting.push_front(index);
                }
            }
            redial.failed(0, now_ns);
        }
        // The server answers again, so all others follow, fifty at once.
        now_ns += 900 * MS;
        assert_eq!(redial.next(now_ns), Some(0));
        redial.made(0);
        let begun = std::iter::from_fn(|| redial.next(now_ns)).count();
        assert_eq!(begun, 50);
        for index in 1..51 {
            redial.made(index);
        }
        let begun = std::iter::from_fn(|| redial.next(now_ns)).count();
        assert_eq!(begun, 49);
        for index in 51..100 {
            redial.made(index);
        }
        assert!(redial.is_idle() && redial.next_ns().is_none());
        // The next loss starts with the shortest wait.
        redial.lost(7, now_ns);
        assert_eq!(redial.next_ns(), Some(now_ns + 45 * MS));
    }

    #[test]
    fn an_attempt_without_an_answer_is_overdue() {
        let mut redial = redial();
        redial.lost(3, 0);
        assert_eq!(redial.next(MS * 45), Some(3));
        assert_eq!(redial.overdue(MS * 1045, MS * 1000), None);
        assert_eq!(redial.overdue(MS * 1045 + 1, MS * 1000), Some(3));
        redial.failed(3, MS * 1046);
        assert_eq!(redial.overdue(u64::MAX, MS), None);
    }

    #[test]
    fn redial_waits_have_jitter() {
        let mut redial = Redial::new();
        let mut waits = std::collections::BTreeSet::new();
        for _ in 0..10 {
            redial.backoff.reset();
            redial.wait(0);
            assert!((25 * MS..=45 * MS).contains(&redial.not_before_ns));
            waits.insert(redial.not_before_ns);
        }
        assert!(waits.len() > 1);
    }
}
