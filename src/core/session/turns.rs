//! The durations of turns, and the last slow turns. A turn is one iteration of the event loop.
//! asyncio's debug mode logs slow callbacks for the same purpose. The shell measures a turn and
//! passes the times to the core, which reads no clock.

use std::collections::VecDeque;
use std::fmt;

use crate::core::base::histogram::{Histogram, TURN_BOUNDS_NS};

/// The number of slow turns that are kept.
const KEPT: usize = 128;

/// A part of a turn. The wait for events does not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Accepting connections, reading sockets, and handling the bytes that were read.
    Input,
    /// Handling deadlines.
    Deadlines,
    /// Disk work of the journal on the loop's thread.
    Disk,
    /// Making output and writing it to sockets. This includes the answers of the HTTP port.
    Output,
    /// The end of the turn: mainly handing the log lines to the thread that writes them.
    Log,
}

impl Part {
    /// All parts, in the order of a turn.
    pub const ALL: [Part; 5] = [
        Part::Input,
        Part::Deadlines,
        Part::Disk,
        Part::Output,
        Part::Log,
    ];
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Part::Input => "input",
            Part::Deadlines => "deadlines",
            Part::Disk => "disk",
            Part::Output => "output",
            Part::Log => "log",
        })
    }
}

/// One turn, as the shell measured it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Turn {
    /// The wall clock at the turn's end, in nanoseconds since 1970.
    pub wall: u64,
    /// The nanoseconds of each part, in the order of [`Part::ALL`].
    pub parts_ns: [u64; Part::ALL.len()],
    /// The number of ready connections that the turn served.
    pub ready: u32,
}

impl Turn {
    /// Returns the duration of the turn in nanoseconds: the sum of all parts.
    #[must_use]
    pub fn total_ns(&self) -> u64 {
        self.parts_ns
            .iter()
            .fold(0, |sum, ns| sum.saturating_add(*ns))
    }

    /// Returns the part that took longest.
    #[must_use]
    pub fn slowest(&self) -> Part {
        let parts = Part::ALL.into_iter().zip(self.parts_ns);
        // If several parts took the same time, this returns the last of them.
        parts
            .max_by_key(|(_, ns)| *ns)
            .map_or(Part::Input, |(part, _)| part)
    }
}

/// The durations of all turns, and the last slow turns.
#[derive(Clone, Debug)]
pub struct Turns {
    times: Histogram,
    /// The sum of [`Turn::ready`] of all turns.
    ready: u64,
    most_ready: u32,
    slow: VecDeque<Turn>,
    slow_count: u64,
}

impl Default for Turns {
    fn default() -> Turns {
        Turns {
            times: Histogram::new(&TURN_BOUNDS_NS),
            ready: 0,
            most_ready: 0,
            slow: VecDeque::new(),
            slow_count: 0,
        }
    }
}

impl Turns {
    /// Counts a turn. A turn of more than `slow_ms` milliseconds is kept. If 128 turns are already
    /// kept, the oldest of these is removed.
    #[inline]
    pub fn add(&mut self, turn: Turn, slow_ms: u64) {
        let total_ns = turn.total_ns();
        self.times.add(total_ns);
        self.ready += u64::from(turn.ready);
        self.most_ready = self.most_ready.max(turn.ready);
        if total_ns > slow_ms.saturating_mul(1_000_000) {
            self.keep(turn);
        }
    }

    #[cold]
    fn keep(&mut self, turn: Turn) {
        self.slow_count += 1;
        if self.slow.len() == KEPT {
            self.slow.pop_front();
        }
        self.slow.push_back(turn);
    }

    /// Returns the durations of all turns.
    #[must_use]
    pub fn times(&self) -> &Histogram {
        &self.times
    }

    /// Returns the slow turns that are kept, the oldest first.
    pub fn slow(&self) -> impl Iterator<Item = &Turn> {
        self.slow.iter()
    }

    /// Returns the number of all slow turns.
    #[must_use]
    pub fn slow_count(&self) -> u64 {
        self.slow_count
    }

    /// Returns the sum of [`Turn::ready`] of all turns, and the largest [`Turn::ready`] of one
    /// turn.
    #[must_use]
    pub fn ready(&self) -> (u64, u32) {
        (self.ready, self.most_ready)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turn(parts_ns: [u64; 5]) -> Turn {
        Turn {
            wall: 1,
            parts_ns,
            ready: 2,
        }
    }

    #[test]
    fn the_last_128_slow_turns_are_kept() {
        let mut turns = Turns::default();
        turns.add(turn([600_000, 0, 0, 400_000, 0]), 1);
        assert_eq!(turns.slow().count(), 0, "1 ms is not more than 1 ms");
        for extra in 1..=200 {
            turns.add(turn([600_000, 0, 0, 400_000 + extra, 0]), 1);
        }
        assert_eq!((turns.slow().count(), turns.slow_count()), (KEPT, 200));
        assert_eq!(turns.slow().next().map(|it| it.parts_ns[3]), Some(400_073));
        assert_eq!((turns.times().count(), turns.ready()), (201, (402, 2)));
    }

    #[test]
    fn the_slowest_part_of_a_turn_is_named() {
        for (place, part) in Part::ALL.into_iter().enumerate() {
            let mut parts_ns = [5; 5];
            parts_ns[place] = 6;
            assert_eq!(turn(parts_ns).slowest(), part);
        }
    }
}
