//! Timers, like asyncio's `call_later`, but without a callback.
//!
//! The timers are a heap of entries (time, value). The value names what the caller has to check at
//! that time, for example a connection.
//!
//! An entry is only a hint. A deadline that moves leaves its old entry in the heap, so the caller
//! must check the real deadline when an entry is due. In return, moving a deadline to a later time
//! costs nothing. This is the usual case: for example, each heartbeat that is sent moves the time
//! of the next heartbeat.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::core::base::clock::Time;

/// The heap of entries. A value of type `T` names what to check.
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
    /// Adds an entry. [`Deadlines::due`] returns `value` when `time` has come.
    ///
    /// ```
    /// use herd_mio::core::base::{clock::Time, deadlines::Deadlines};
    ///
    /// let mut deadlines = Deadlines::default();
    /// deadlines.call_at(Time::from_nanos(20), "later");
    /// deadlines.call_at(Time::from_nanos(10), "sooner");
    /// assert_eq!(deadlines.next(), Some(Time::from_nanos(10)));
    /// assert_eq!(deadlines.due(Time::from_nanos(15)), Some("sooner"));
    /// assert_eq!(deadlines.due(Time::from_nanos(15)), None);
    /// ```
    pub fn call_at(&mut self, time: Time, value: T) {
        self.heap.push(Reverse((time, value)));
    }

    /// Returns the time of the earliest entry.
    #[must_use]
    pub fn next(&self) -> Option<Time> {
        self.heap.peek().map(|Reverse((time, _))| *time)
    }

    /// Removes and returns the earliest entry, if its time is at most `now`.
    pub fn due(&mut self, now: Time) -> Option<T> {
        if self.next()? > now {
            return None;
        }
        self.heap.pop().map(|Reverse((_, value))| value)
    }
}
