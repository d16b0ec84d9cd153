//! Measures the parts of a turn, for the page `/slow` of the HTTP port and for the metrics. A turn
//! is one iteration of the event loop, without the wait for events.

use std::time::Duration;

use crate::core::base::clock::Time;
use crate::core::session::turns::{Part, Turn};

/// The times of one turn. Only for the measurement, the loop reads the clock two times in each
/// turn, and two times for each piece of disk work. All other times come from readings that the
/// loop needs anyway.
#[derive(Default)]
pub(super) struct Stopwatch {
    /// When the wait for events ended. `None` if no turn is being measured.
    began: Option<Time>,
    /// When all input of the turn was read and handled.
    input_until: Time,
    /// The last reading of the clock by [`Io::now`](crate::core::node::Io::now).
    last_read: Time,
    /// When the deadlines were handled.
    deadlines_until: Time,
    /// When all output was written.
    output_until: Time,
    disk: Duration,
    ready: usize,
}

impl Stopwatch {
    /// Begins a turn. `now` is the time at which the wait for events ended.
    pub(super) fn began(&mut self, now: Time) {
        self.began = Some(now);
        self.disk = Duration::ZERO;
    }

    /// Stores `now` as the time at which all input of the turn was read and handled. `ready` is the
    /// number of connections that the turn served.
    pub(super) fn has_read(&mut self, now: Time, ready: usize) {
        self.input_until = now;
        self.ready = ready;
    }

    /// Stores `now` as the time at which all output was written. The function `drive` calls
    /// `Io::now` only once, directly after it handled the deadlines. So `last_read` is the end of
    /// that part.
    pub(super) fn has_written(&mut self, now: Time) {
        self.deadlines_until = self.last_read;
        self.output_until = now;
    }

    /// Stores a time that [`Io::now`](crate::core::node::Io::now) has read.
    #[inline]
    pub(super) fn time_was_read(&mut self, now: Time) {
        self.last_read = now;
    }

    /// Adds the time that the loop's thread spent on a piece of disk work.
    pub(super) fn add_disk(&mut self, length: Duration) {
        self.disk += length;
    }

    /// Ends the turn, after the log was flushed. Returns the times of the turn, or `None` if no
    /// turn has begun since the last call.
    pub(super) fn ended(&mut self, now: Time, wall: u64) -> Option<Turn> {
        let began = self.began.take()?;
        let ns = |length: Duration| length.as_nanos() as u64;
        let part_ns = |part| {
            ns(match part {
                Part::Input => self.input_until.since(began),
                Part::Deadlines => self.deadlines_until.since(self.input_until),
                Part::Disk => self.disk,
                Part::Output => {
                    let all = self.output_until.since(self.deadlines_until);
                    all.saturating_sub(self.disk)
                }
                Part::Log => now.since(self.output_until),
            })
        };
        Some(Turn {
            wall,
            parts_ns: Part::ALL.map(part_ns),
            ready: u32::try_from(self.ready).unwrap_or(u32::MAX),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_part_of_a_turn_gets_its_own_time() {
        let at = Time::from_nanos;
        let mut watch = Stopwatch::default();
        assert_eq!(watch.ended(at(5), 0), None, "no turn has begun");
        watch.time_was_read(at(90)); // before the wait
        watch.began(at(100));
        watch.time_was_read(at(101)); // a connection was read
        watch.has_read(at(110), 3);
        watch.time_was_read(at(130)); // by `drive`
        watch.add_disk(Duration::from_nanos(7));
        watch.has_written(at(200));
        watch.time_was_read(at(205)); // by the next turn
        let turn = watch.ended(at(205), 9).unwrap();
        assert_eq!(turn.parts_ns, [10, 20, 7, 63, 5]);
        assert_eq!((turn.ready, turn.wall, turn.total_ns()), (3, 9, 105));
        assert_eq!(watch.ended(at(300), 9), None);
    }
}
