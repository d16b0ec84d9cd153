//! Virtual time and the planned events. No thread waits: time jumps from one event to the next.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::time::Duration;

use herd_mio::core::base::clock::Time;
use herd_testkit::fake_disk::Queue;

/// The number of a connection. It is never reused.
pub(crate) type Key = usize;

/// The time `by` earlier.
pub(crate) fn before(time: Time, by: Duration) -> Time {
    Time::from_nanos(time.as_nanos().saturating_sub(by.as_nanos() as u64))
}

/// An event.
#[derive(Clone, Debug)]
pub(crate) enum Event {
    /// A request to connect reaches its target. `attempt` counts lost requests before it.
    Syn { key: Key, attempt: u32 },
    /// The request to connect is answered.
    SynAnswered { key: Key, refused: bool },
    /// Bytes of `side` of a connection reach the other side.
    Arrive { key: Key, side: usize },
    /// The other side has read `count` bytes, so `side` may send as many more.
    Room { key: Key, side: usize, count: usize },
    /// A server's loop wakes up.
    Turn { host: usize },
    /// A server's name look-up is finished.
    LookedUp {
        host: usize,
        life: u32,
        name: String,
    },
    /// A queue of a server's disk has finished a piece of work.
    DiskWorked {
        host: usize,
        life: u32,
        queue: Queue,
    },
    /// A server comes back.
    Start { host: usize },
    /// A client continues its script.
    Act { session: usize },
    /// An acknowledged update has to have reached every server.
    Due { promise: usize },
    /// A fault begins.
    Strike { fault: usize },
    /// A fault is over.
    Relieve { fault: usize },
}

struct Entry {
    time: Time,
    serial: u64,
    event: Event,
}

impl PartialEq for Entry {
    fn eq(&self, other: &Entry) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Entry {}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Entry) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    /// The earliest event is the greatest, because the heap pops the greatest. Of two at the same
    /// time, this is the one that was planned first.
    fn cmp(&self, other: &Entry) -> Ordering {
        (other.time, other.serial).cmp(&(self.time, self.serial))
    }
}

/// All planned events.
#[derive(Default)]
pub(crate) struct Timeline {
    now: Time,
    serial: u64,
    heap: BinaryHeap<Entry>,
}

impl Timeline {
    /// The present virtual time.
    pub(crate) fn now(&self) -> Time {
        self.now
    }

    /// Plans an event at a time that is not in the past.
    pub(crate) fn at(&mut self, time: Time, event: Event) {
        self.serial += 1;
        self.heap.push(Entry {
            time: time.max(self.now),
            serial: self.serial,
            event,
        });
    }

    /// Plans an event after a wait.
    pub(crate) fn after(&mut self, wait: Duration, event: Event) {
        self.at(self.now + wait, event);
    }

    /// The next event before `end`. Time advances to it, or else to `end`.
    pub(crate) fn next_before(&mut self, end: Time) -> Option<Event> {
        if self.heap.peek().is_none_or(|entry| entry.time >= end) {
            self.now = self.now.max(end);
            return None;
        }
        let entry = self.heap.pop()?;
        self.now = entry.time;
        Some(entry.event)
    }

    /// The number of events that were planned so far.
    pub(crate) fn planned(&self) -> u64 {
        self.serial
    }
}
