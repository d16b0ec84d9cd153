//! Virtual time: what happens when. Nothing waits; time jumps from one event to the next.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::time::Duration;

use herd_mio::core::base::clock::Time;
use herd_testkit::fake_disk::Queue;

/// The name of a connection; never used again.
pub(crate) type Key = usize;

/// So much earlier.
pub(crate) fn before(time: Time, by: Duration) -> Time {
    Time::from_nanos(time.as_nanos().saturating_sub(by.as_nanos() as u64))
}

/// What happens.
#[derive(Clone, Debug)]
pub(crate) enum Event {
    /// A request to connect reaches its target; `attempt` counts what was lost before.
    Syn { key: Key, attempt: u32 },
    /// The request to connect is answered.
    SynAnswered { key: Key, refused: bool },
    /// What `side` of a connection sent reaches the other side.
    Arrive { key: Key, side: usize },
    /// The other side has read `count` bytes, and `side` learns that it may send as many more.
    Room { key: Key, side: usize, count: usize },
    /// A server's loop wakes up.
    Turn { host: usize },
    /// A server's name look-up is finished.
    LookedUp {
        host: usize,
        life: u32,
        name: String,
    },
    /// A queue of a server's disk has done something.
    DiskWorked {
        host: usize,
        life: u32,
        queue: Queue,
    },
    /// A server comes back.
    Start { host: usize },
    /// A client does what is next in its script.
    Act { session: usize },
    /// An acknowledged update has to be everywhere by now.
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
    /// The earliest is the greatest, as the heap wants it; of two at the same time, the one that was planned first.
    fn cmp(&self, other: &Entry) -> Ordering {
        (other.time, other.serial).cmp(&(self.time, self.serial))
    }
}

/// Everything that is going to happen.
#[derive(Default)]
pub(crate) struct Timeline {
    now: Time,
    serial: u64,
    heap: BinaryHeap<Entry>,
}

impl Timeline {
    /// What time it is.
    pub(crate) fn now(&self) -> Time {
        self.now
    }

    /// Plans an event at a time that is not over.
    pub(crate) fn at(&mut self, time: Time, event: Event) {
        self.serial += 1;
        self.heap.push(Entry {
            time: time.max(self.now),
            serial: self.serial,
            event,
        });
    }

    /// Plans an event.
    pub(crate) fn after(&mut self, wait: Duration, event: Event) {
        self.at(self.now + wait, event);
    }

    /// The next event, if it happens before `end`; time moves on to it, or else to `end`.
    pub(crate) fn next_before(&mut self, end: Time) -> Option<Event> {
        if self.heap.peek().is_none_or(|entry| entry.time >= end) {
            self.now = self.now.max(end);
            return None;
        }
        let entry = self.heap.pop()?;
        self.now = entry.time;
        Some(entry.event)
    }

    /// How many events were planned so far.
    pub(crate) fn planned(&self) -> u64 {
        self.serial
    }
}
