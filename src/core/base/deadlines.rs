//! What is to happen when: asyncio's `call_later`, without the callback.
//!
//! A heap of (time, what to look at). An entry is a hint, not a command: what is due is asked
//! whether it really is, since a deadline that moved leaves its old entry behind. So a deadline
//! that only ever moves later (a heartbeat, a line that was finished in time) costs nothing when it
//! moves.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::core::base::clock::Time;

/// The heap; `T` says whom to look at.
pub struct Deadlines<T> {
    heap: BinaryHeap<Reverse<(Time, T)>>,
}

impl<T: Ord> Default for Deadlines<T> {
    fn default() -> Deadlines<T> {
        Deadlines {
            heap: BinaryHeap::new(),
        }
    }
}

impl<T: Ord> Deadlines<T> {
    /// Asks to be told of `what` at `time`.
    ///
    /// ```
    /// use herd_mio::core::{clock::Time, deadlines::Deadlines};
    ///
    /// let mut deadlines = Deadlines::default();
    /// deadlines.call_at(Time::from_nanos(20), "later");
    /// deadlines.call_at(Time::from_nanos(10), "sooner");
    /// assert_eq!(deadlines.next(), Some(Time::from_nanos(10)));
    /// assert_eq!(deadlines.due(Time::from_nanos(15)), Some("sooner"));
    /// assert_eq!(deadlines.due(Time::from_nanos(15)), None);
    /// ```
    pub fn call_at(&mut self, time: Time, what: T) {
        self.heap.push(Reverse((time, what)));
    }

    /// The earliest entry's time.
    #[must_use]
    pub fn next(&self) -> Option<Time> {
        self.heap.peek().map(|Reverse((time, _))| *time)
    }

    /// Takes the earliest entry out, if its time has come.
    pub fn due(&mut self, now: Time) -> Option<T> {
        if self.next()? > now {
            return None;
        }
        self.heap.pop().map(|Reverse((_, what))| what)
    }
}
