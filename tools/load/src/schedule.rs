//! The schedule of an open loop: when each command is due, whatever the server does.
//!
//! The number of a command gives its time and its connection. So a backlog of any length is three
//! numbers.

use std::ops::Range;

use crate::clock::SECOND_NS;

/// Commands that become due at a steady rate, on each connection in turn.
#[derive(Clone, Debug)]
pub(crate) struct Schedule {
    start_ns: u64,
    interval_ns: f64,
    connections: u64,
    /// The first command that counts.
    first_counted: u64,
    /// The end of the commands.
    end: u64,
    /// Commands below this number have become due.
    released: u64,
    /// The number of sent commands.
    sent: u64,
}

impl Schedule {
    /// This many commands a second, from `start_ns` on. Those that are due in the window count, but
    /// at most `count` of them.
    pub(crate) fn new(
        start_ns: u64,
        rate_per_s: f64,
        connections: usize,
        window_ns: &Range<u64>,
        count: Option<u64>,
    ) -> Schedule {
        let mut schedule = Schedule {
            start_ns,
            interval_ns: SECOND_NS as f64 / rate_per_s,
            connections: connections as u64,
            first_counted: 0,
            end: u64::MAX,
            released: 0,
            sent: 0,
        };
        schedule.first_counted = schedule.first_due_at(window_ns.start);
        schedule.end = schedule.first_due_at(window_ns.end);
        if let Some(count) = count {
            let end = schedule.first_counted.saturating_add(count);
            schedule.end = schedule.end.min(end);
        }
        schedule
    }

    /// The time at which command `number` is due.
    pub(crate) fn due_ns(&self, number: u64) -> u64 {
        self.start_ns + (number as f64 * self.interval_ns) as u64
    }

    /// The time at which the next command becomes due.
    pub(crate) fn next_ns(&self) -> u64 {
        self.due_ns(self.released)
    }

    /// The first command that is not due before `ns`.
    fn first_due_at(&self, ns: u64) -> u64 {
        let passed = ns.saturating_sub(self.start_ns) as f64;
        (passed / self.interval_ns).ceil() as u64
    }

    /// The numbers of the commands that have become due.
    pub(crate) fn release(&mut self, now_ns: u64) -> Range<u64> {
        let before = self.released;
        let due = self.first_due_at(now_ns + 1).min(self.end);
        self.released = due.max(before);
        before..self.released
    }

    /// The next command of connection `index`, which has sent `sent` commands. `None` if none is
    /// due.
    pub(crate) fn next_of(&self, index: usize, sent: u64) -> Option<u64> {
        let number = index as u64 + sent * self.connections;
        (number < self.released).then_some(number)
    }

    /// Counts a sent command.
    pub(crate) fn sent(&mut self) {
        self.sent += 1;
    }

    /// Whether no more commands will become due.
    pub(crate) fn is_over(&self) -> bool {
        self.released == self.end
    }

    /// The number of commands that are due and not sent.
    pub(crate) fn owed(&self) -> u64 {
        self.released - self.sent
    }

    /// The time at which the first of those was due. `sent` has the number of sent commands for
    /// each connection.
    pub(crate) fn owed_since_ns(&self, sent: &[u64]) -> Option<u64> {
        let of_each = sent.iter().enumerate();
        let numbers = of_each.filter_map(|(index, sent)| self.next_of(index, *sent));
        numbers.min().map(|number| self.due_ns(number))
    }

    /// The number of those that count, if the others are sent first.
    pub(crate) fn owed_that_count(&self) -> u64 {
        self.released
            .saturating_sub(self.sent.max(self.first_counted))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A million a second from 1000 ns on, on two connections.
    fn schedule(window_ns: Range<u64>, count: Option<u64>) -> Schedule {
        Schedule::new(1000, 1e6, 2, &window_ns, count)
    }

    #[test]
    fn commands_are_due_at_even_intervals_up_to_the_end() {
        let mut schedule = schedule(3000..7000, None);
        assert_eq!(schedule.release(999), 0..0);
        assert_eq!(schedule.release(1000), 0..1);
        assert_eq!(schedule.release(1000), 1..1);
        assert_eq!(schedule.next_ns(), 2000);
        assert_eq!(
            (schedule.next_of(0, 0), schedule.next_of(1, 0)),
            (Some(0), None)
        );
        // The release is late, but the due times do not change.
        assert_eq!(schedule.release(9_000_000), 1..6);
        assert!(schedule.is_over());
        assert_eq!(schedule.due_ns(3), 4000);
        assert_eq!(schedule.next_of(1, 2), Some(5));
        assert_eq!(
            (schedule.next_of(0, 3), schedule.next_of(1, 3)),
            (None, None)
        );
    }

    #[test]
    fn owed_commands_are_due_and_not_sent() {
        let mut schedule = schedule(3000..7000, None);
        schedule.release(u64::MAX / 2);
        assert_eq!((schedule.owed(), schedule.owed_that_count()), (6, 4));
        assert_eq!(schedule.owed_since_ns(&[0, 0]), Some(1000));
        assert_eq!(schedule.owed_since_ns(&[2, 1]), Some(4000));
        assert_eq!(schedule.owed_since_ns(&[3, 3]), None);
        schedule.sent();
        assert_eq!((schedule.owed(), schedule.owed_that_count()), (5, 4));
        (0..3).for_each(|_| schedule.sent());
        assert_eq!((schedule.owed(), schedule.owed_that_count()), (2, 2));
    }

    #[test]
    fn at_most_count_commands_are_released() {
        let mut schedule = schedule(3000..u64::MAX, Some(3));
        assert_eq!(schedule.release(u64::MAX / 2), 0..5);
        assert_eq!(schedule.owed_that_count(), 3);
    }

    #[test]
    fn a_rate_that_does_not_divide_a_second_does_not_drift() {
        let schedule = Schedule::new(0, 3.0, 1, &(0..u64::MAX), None);
        assert_eq!(schedule.due_ns(3_000_000), 1_000_000 * SECOND_NS);
    }
}
