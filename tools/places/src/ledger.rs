//! The state that all threads of a server share: received requests, open connections, and the next
//! behaviours.
//!
//! It has one mutex and one condition variable. Every change notifies the waiting threads. The only
//! network operation in here is the shutdown of a socket, which never blocks.

use std::collections::{HashMap, VecDeque};
use std::net::{Shutdown, TcpStream};
use std::num::NonZeroU64;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::behaviour::Behaviour;
use crate::http::Request;

/// The numbers of a server so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Complete requests.
    pub requests: u64,
    /// Accepted TCP connections, including those that were closed at once because there were too
    /// many.
    pub connections: u64,
    /// Open TCP connections.
    pub open_connections: usize,
    /// Completed TLS handshakes.
    pub handshakes_done: u64,
    /// Failed TLS handshakes, for example because the client closed or did not trust the
    /// certificate.
    pub handshakes_failed: u64,
}

/// The phase of a connection.
///
/// ```text
///     Busy ──► Idle ──► Dismissed      (close_idle)
///      ▲        │
///      └────────┘                      (the first byte of the next request)
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// In the handshake, or with an unanswered request.
    Busy,
    /// Between two requests. The last piece of an answer may still be on its way.
    Idle,
    /// Its thread closes it as soon as it sees this.
    Dismissed,
}

struct Open {
    socket: Arc<TcpStream>,
    phase: Phase,
}

struct Inner {
    stopping: bool,
    standing: Behaviour,
    every: NonZeroU64,
    queue: VecDeque<Behaviour>,
    remember: bool,
    requests: Vec<Request>,
    releases: u64,
    /// Connections with this number or a lower one get no more answers.
    forgotten: u64,
    counts: Counts,
    open: HashMap<u64, Open>,
}

/// The shared state and the condition variable for its changes.
pub(crate) struct Ledger {
    inner: Mutex<Inner>,
    changed: Condvar,
}

/// What the accepting thread has to do with a new connection.
pub(crate) enum Admission<'a> {
    Welcome(Visit<'a>),
    Full,
    Stopping,
}

/// The end of a wait.
pub(crate) enum Until {
    /// The next call of `Places::release` after this many calls.
    Released(u64),
    Time(Instant),
}

/// The result of a wait.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Waited {
    Done,
    NotYet,
    Stopping,
}

impl Ledger {
    pub(crate) fn new(standing: Behaviour, every: NonZeroU64, remember: bool) -> Ledger {
        let inner = Inner {
            stopping: false,
            standing,
            every,
            queue: VecDeque::new(),
            remember,
            requests: Vec::new(),
            releases: 0,
            forgotten: 0,
            counts: Counts::default(),
            open: HashMap::new(),
        };
        Ledger {
            inner: Mutex::new(inner),
            changed: Condvar::new(),
        }
    }

    /// Ignores poisoning: each change below is one or two statements, so a panic leaves no half of
    /// one.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change<T>(&self, act: impl FnOnce(&mut Inner) -> T) -> T {
        let result = act(&mut self.lock());
        self.changed.notify_all();
        result
    }

    // --- for the owner of the server ---

    pub(crate) fn counts(&self) -> Counts {
        self.lock().counts
    }

    pub(crate) fn requests(&self) -> Vec<Request> {
        self.lock().requests.clone()
    }

    pub(crate) fn set_behaviour(&self, behaviour: Behaviour) {
        self.change(|inner| inner.standing = behaviour);
    }

    pub(crate) fn push_behaviour(&self, behaviour: Behaviour) {
        self.change(|inner| inner.queue.push_back(behaviour));
    }

    pub(crate) fn release(&self) {
        self.change(|inner| inner.releases += 1);
    }

    /// Connections that were admitted so far get no more answers. Returns how many of them are
    /// open.
    pub(crate) fn forget_open(&self) -> usize {
        self.change(|inner| {
            inner.forgotten = inner.counts.connections;
            inner.open.len()
        })
    }

    /// Waits for the condition. Returns false after `patience`.
    pub(crate) fn wait_until(
        &self,
        patience: Duration,
        condition: impl Fn(&Counts) -> bool,
    ) -> bool {
        let inner = self.lock();
        let waiting = |inner: &mut Inner| !condition(&inner.counts);
        let waited = self
            .changed
            .wait_timeout_while(inner, patience, waiting)
            .unwrap_or_else(PoisonError::into_inner);
        !waited.1.timed_out()
    }

    /// Closes all idle connections, and waits until they are gone. Returns how many there were.
    pub(crate) fn close_idle(&self, patience: Duration) -> usize {
        let dismissed = self.change(|inner| {
            let mut dismissed = Vec::new();
            for (id, open) in inner
                .open
                .iter_mut()
                .filter(|(_, open)| open.phase == Phase::Idle)
            {
                open.phase = Phase::Dismissed;
                // Its thread waits in a read, which now returns the end. Output that is under way
                // is still sent. An error means that the client has closed first, which is fine
                // too.
                let _ = open.socket.shutdown(Shutdown::Read);
                dismissed.push(*id);
            }
            dismissed
        });
        let inner = self.lock();
        let waiting = |inner: &mut Inner| dismissed.iter().any(|id| inner.open.contains_key(id));
        // The result does not matter: the caller goes on in any case.
        drop(self.changed.wait_timeout_while(inner, patience, waiting));
        dismissed.len()
    }

    /// From now on no connection is admitted. Every wait ends, and every open socket is shut down.
    pub(crate) fn stop(&self) {
        self.change(|inner| {
            inner.stopping = true;
            for open in inner.open.values() {
                let _ = open.socket.shutdown(Shutdown::Both);
            }
        });
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.lock().stopping
    }

    // --- for the accepting thread ---

    pub(crate) fn admit(&self, socket: &Arc<TcpStream>, most: usize) -> Admission<'_> {
        self.change(|inner| {
            if inner.stopping {
                return Admission::Stopping;
            }
            inner.counts.connections += 1;
            if inner.open.len() >= most {
                return Admission::Full;
            }
            let id = inner.counts.connections;
            inner.open.insert(
                id,
                Open {
                    socket: Arc::clone(socket),
                    phase: Phase::Busy,
                },
            );
            inner.counts.open_connections = inner.open.len();
            Admission::Welcome(Visit { ledger: self, id })
        })
    }

    // --- for a connection's thread ---

    pub(crate) fn handshake(&self, done: bool) {
        self.change(|inner| {
            let count = if done {
                &mut inner.counts.handshakes_done
            } else {
                &mut inner.counts.handshakes_failed
            };
            *count += 1;
        });
    }

    /// Records a request. Returns its behaviour, and the number of releases so far: the next
    /// release is meant for this request too.
    pub(crate) fn heard(&self, request: &Request) -> (Behaviour, u64) {
        self.change(|inner| {
            inner.counts.requests += 1;
            if inner.remember {
                inner.requests.push(request.clone());
            }
            let its_turn = inner.counts.requests % inner.every == 0;
            let behaviour = match inner.queue.pop_front() {
                Some(behaviour) => behaviour,
                None if its_turn => inner.standing.clone(),
                None => Behaviour::Answer,
            };
            (behaviour, inner.releases)
        })
    }

    /// Waits for at most `tick`.
    pub(crate) fn wait(&self, until: &Until, tick: Duration) -> Waited {
        let is_done = |inner: &Inner| match until {
            Until::Released(before) => inner.releases > *before,
            Until::Time(time) => Instant::now() >= *time,
        };
        let tick = match until {
            Until::Released(_) => tick,
            Until::Time(time) => tick.min(time.saturating_duration_since(Instant::now())),
        };
        let waiting = |inner: &mut Inner| !inner.stopping && !is_done(inner);
        let (inner, _) = self
            .changed
            .wait_timeout_while(self.lock(), tick, waiting)
            .unwrap_or_else(PoisonError::into_inner);
        match (inner.stopping, is_done(&inner)) {
            (true, _) => Waited::Stopping,
            (false, true) => Waited::Done,
            (false, false) => Waited::NotYet,
        }
    }
}

/// One connection's entry in the ledger. Dropping it removes the entry. The socket must be closed
/// before that, or a test would see the connection as closed too early.
pub(crate) struct Visit<'a> {
    ledger: &'a Ledger,
    id: u64,
}

impl Visit<'_> {
    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    /// From now on `close_idle` may close this connection.
    pub(crate) fn idle(&self) {
        self.phase(Phase::Idle);
    }

    /// Whether this connection gets no more answers.
    pub(crate) fn is_forgotten(&self) -> bool {
        self.id <= self.ledger.lock().forgotten
    }

    /// A request begins. Returns false if `close_idle` was faster; then the connection must be
    /// closed.
    #[must_use]
    pub(crate) fn busy(&self) -> bool {
        self.phase(Phase::Busy)
    }

    /// Changes the phase, unless it is `Dismissed`.
    fn phase(&self, phase: Phase) -> bool {
        self.ledger
            .change(|inner| match inner.open.get_mut(&self.id) {
                Some(open) if open.phase != Phase::Dismissed => {
                    open.phase = phase;
                    true
                }
                _ => false,
            })
    }
}

impl Drop for Visit<'_> {
    fn drop(&mut self) {
        self.ledger.change(|inner| {
            // The map holds the last handle on the socket, so this closes it.
            inner.open.remove(&self.id);
            inner.counts.open_connections = inner.open.len();
        });
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may fail")]
    use super::*;

    fn request() -> Request {
        Request {
            connection: 1,
            method: "GET".to_owned(),
            target: "/".to_owned(),
            headers: vec![],
            body: vec![],
        }
    }

    #[test]
    fn queued_behaviours_precede_the_one_for_each_nth_request() {
        let ledger = Ledger::new(Behaviour::Drop, NonZeroU64::new(3).unwrap(), true);
        ledger.push_behaviour(Behaviour::Truncated);
        let heard: Vec<Behaviour> = (0..6).map(|_| ledger.heard(&request()).0).collect();
        use Behaviour::{Answer, Drop, Truncated};
        assert_eq!(heard, [Truncated, Answer, Drop, Answer, Answer, Drop]);
        assert_eq!((ledger.requests().len(), ledger.counts().requests), (6, 6));
    }

    #[test]
    fn a_release_frees_only_earlier_requests() {
        let ledger = Ledger::new(Behaviour::Hold, NonZeroU64::MIN, false);
        let (_, early) = ledger.heard(&request());
        assert_eq!(
            ledger.wait(&Until::Released(early), Duration::ZERO),
            Waited::NotYet
        );
        ledger.release();
        let (_, late) = ledger.heard(&request());
        assert_eq!(
            ledger.wait(&Until::Released(early), Duration::ZERO),
            Waited::Done
        );
        assert_eq!(
            ledger.wait(&Until::Released(late), Duration::ZERO),
            Waited::NotYet
        );
        ledger.stop();
        assert_eq!(
            ledger.wait(&Until::Released(late), Duration::from_secs(60)),
            Waited::Stopping
        );
        assert!(
            ledger.requests().is_empty(),
            "it was told not to remember them"
        );
    }
}
