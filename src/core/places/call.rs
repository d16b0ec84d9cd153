//! The calls: questions to Places, the clients that wait for each answer, and the connection that
//! carries each question.
//!
//! ```text
//!   ask ──► Waiting ──a connection may be made──► Connecting ──the first is ready──► On ──► over
//!            ▲  └─────────────────────a kept connection is free────────────────────►─┘│
//!            └────retry: a kept connection had broken, or late clients still wait─────┘
//! ```
//!
//! Clients with the same question share one call, but each client has its own deadline. A client
//! that joins later has as much time as the first one.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;

use crate::core::base::clock::Time;
use crate::core::base::invariants::hold;
use crate::core::base::limits::{LimitValue, Limits};
use crate::core::base::slots::{Id, Slots};
use crate::core::places::request::Question;

/// The id of a call.
pub type CallId = Id;

/// The stage of a call.
#[derive(Debug)]
enum Place {
    /// In the queue, without a connection.
    Waiting,
    /// Connections are being made for the call, and none of them is ready.
    Connecting(Race),
    /// The connection with this id carries the call.
    On(Id),
}

/// The connections that are being made for one call, as in Happy Eyeballs (RFC 8305). The addresses
/// are tried one after the other, without waiting for earlier attempts to fail. The first
/// connection whose TLS handshake is done carries the call.
#[derive(Debug)]
struct Race {
    /// The addresses that were not tried yet, in the order to try.
    addresses: VecDeque<SocketAddr>,
    /// The connections that are being made.
    attempts: Vec<Id>,
    /// The time at which the next address is tried.
    next_at: Time,
    /// The reason why the certificate of an address was refused, if one was refused.
    mistrust: Option<String>,
}

/// What a call can still try or wait for, after a connection for it could not be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Left {
    /// There are addresses that were not tried yet.
    Addresses,
    /// All addresses were tried, but other connections are being made.
    Connections,
    /// Nothing: all attempts have failed.
    Nothing {
        /// The reason why a certificate was refused, if one was refused.
        mistrust: Option<String>,
    },
}

/// A client that waits for the answer of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asker {
    /// The id of the client's connection.
    pub id: Id,
    /// The client's deadline.
    pub until: Time,
}

/// One question to Places, asked by one client or by several at once.
pub struct Call {
    question: Question,
    /// The waiting clients, in the order of their deadlines.
    askers: Vec<Asker>,
    since: Time,
    place: Place,
    was_retried: bool,
}

impl Call {
    /// Returns the question that is sent to Places.
    #[must_use]
    pub fn question(&self) -> &Question {
        &self.question
    }

    /// Returns the clients that wait for the answer, in the order of their deadlines.
    #[must_use]
    pub fn askers(&self) -> &[Asker] {
        &self.askers
    }

    /// Returns the time at which the first client asked.
    #[must_use]
    pub fn since(&self) -> Time {
        self.since
    }

    /// Whether [`Calls::retry`] has put the call back into the queue. Then the question is sent
    /// only over a new connection, because other kept connections may be broken too.
    #[must_use]
    pub fn was_retried(&self) -> bool {
        self.was_retried
    }

    /// Whether connections are being made for the call.
    #[must_use]
    pub fn is_connecting(&self) -> bool {
        matches!(self.place, Place::Connecting(_))
    }

    fn race(&mut self) -> Option<&mut Race> {
        match &mut self.place {
            Place::Connecting(race) => Some(race),
            Place::Waiting | Place::On(_) => None,
        }
    }

    /// Returns the connections that are being made for this call, or the connection that carries
    /// it.
    #[must_use]
    pub fn connections(&self) -> &[Id] {
        match &self.place {
            Place::Waiting => &[],
            Place::Connecting(race) => &race.attempts,
            Place::On(connection) => std::slice::from_ref(connection),
        }
    }

    /// Whether the deadline of every waiting client has passed.
    #[must_use]
    pub fn is_due(&self, now: Time) -> bool {
        self.askers.last().is_none_or(|asker| asker.until <= now)
    }
}

/// All calls of one server.
pub struct Calls {
    calls: Slots<Call>,
    by_question: HashMap<Question, CallId>,
    waiting: VecDeque<CallId>,
    /// The pool: connections that are kept for the next question. The most recently used one is the
    /// last.
    idle: Vec<Id>,
    /// The number of open connections whose TLS handshake is done.
    made: usize,
    /// The number of calls for which connections are being made.
    races: usize,
    max_connections: usize,
    max_waiting: usize,
}

impl Calls {
    /// Creates the list of calls, which is empty.
    #[must_use]
    pub fn new(limits: &Limits) -> Calls {
        Calls {
            calls: Slots::default(),
            by_question: HashMap::new(),
            waiting: VecDeque::new(),
            idle: Vec::new(),
            made: 0,
            races: 0,
            max_connections: limits.max_places_connections.to_count(),
            max_waiting: limits.max_places_waiting.to_count(),
        }
    }

    /// Adds the client `asker` to the call with the same question. If there is no such call,
    /// creates one. Returns the id of the call, and whether the call is new.
    ///
    /// All clients have the same time to wait. So adding at the end keeps `askers` in the order of
    /// their deadlines.
    ///
    /// # Errors
    /// There are too many calls already.
    pub fn ask(
        &mut self,
        question: Question,
        asker: Asker,
        now: Time,
    ) -> Result<(CallId, bool), String> {
        if let Some(&id) = self.by_question.get(&question)
            && let Some(call) = self.calls.get_mut(id)
        {
            call.askers.push(asker);
            return Ok((id, false));
        }
        if self.calls.len() >= self.max_connections + self.max_waiting {
            return Err(format!(
                "too many questions to Google Places ({}) are waiting; try again later",
                self.calls.len()
            ));
        }
        let id = self.calls.insert(Call {
            question: question.clone(),
            askers: vec![asker],
            since: now,
            place: Place::Waiting,
            was_retried: false,
        });
        self.by_question.insert(question, id);
        self.waiting.push_back(id);
        Ok((id, true))
    }

    /// Returns the call. `None` if it is over.
    #[must_use]
    pub fn get(&self, id: CallId) -> Option<&Call> {
        self.calls.get(id)
    }

    /// Returns the first call in the queue.
    #[must_use]
    pub fn first_waiting(&self) -> Option<CallId> {
        self.waiting.front().copied()
    }

    /// Whether the limit allows another connection. All attempts for one call count as one
    /// connection.
    #[must_use]
    pub fn may_connect(&self) -> bool {
        self.made + self.races < self.max_connections
    }

    /// Moves the call out of the queue. From now on, connections to `addresses` are made for it,
    /// one after the other.
    pub fn connecting(&mut self, id: CallId, addresses: VecDeque<SocketAddr>, now: Time) {
        let race = Race {
            addresses,
            attempts: Vec::new(),
            next_at: now,
            mistrust: None,
        };
        if self.moved(id, Place::Connecting(race)).is_some() {
            self.races += 1;
        }
    }

    fn race(&mut self, id: CallId) -> Option<&mut Race> {
        self.calls.get_mut(id)?.race()
    }

    /// Takes the next address to try for the call. Also returns whether more addresses remain. The
    /// first remaining address is tried at `next_at`.
    pub fn next_address(&mut self, id: CallId, next_at: Time) -> Option<(SocketAddr, bool)> {
        let race = self.race(id)?;
        let address = race.addresses.pop_front()?;
        race.next_at = next_at;
        Some((address, !race.addresses.is_empty()))
    }

    /// Adds a connection that is being made for the call.
    pub fn attempt_begun(&mut self, id: CallId, connection: Id) {
        if let Some(race) = self.race(id) {
            race.attempts.push(connection);
        }
    }

    /// Delays the next attempt until `next_at`. Returns whether there is another address to try.
    pub fn put_off_attempt(&mut self, id: CallId, next_at: Time) -> bool {
        let race = self.race(id).filter(|race| !race.addresses.is_empty());
        race.map(|race| race.next_at = next_at).is_some()
    }

    /// Whether it is time to try the next address.
    pub fn is_attempt_due(&mut self, id: CallId, now: Time) -> bool {
        self.race(id).is_some_and(|race| race.next_at <= now)
    }

    /// Removes a connection that could not be made for the call. `mistrust` is the reason if the
    /// certificate was refused. Returns what the call can still try or wait for.
    pub fn attempt_failed(&mut self, id: CallId, connection: Id, mistrust: Option<&str>) -> Left {
        let Some(race) = self.race(id) else {
            return Left::Nothing { mistrust: None };
        };
        race.attempts.retain(|&attempt| attempt != connection);
        if let Some(reason) = mistrust {
            race.mistrust.get_or_insert_with(|| reason.to_owned());
        }
        match (race.addresses.is_empty(), race.attempts.is_empty()) {
            (false, _) => Left::Addresses,
            (true, false) => Left::Connections,
            (true, true) => Left::Nothing {
                mistrust: race.mistrust.take(),
            },
        }
    }

    /// Removes the waiting clients that have reached their own deadline, and returns them.
    pub fn take_due(&mut self, id: CallId, now: Time) -> Vec<Id> {
        let Some(call) = self.calls.get_mut(id) else {
            return Vec::new();
        };
        let due = call.askers.partition_point(|asker| asker.until <= now);
        call.askers.drain(..due).map(|asker| asker.id).collect()
    }

    /// From now on, `connection` carries the call, because the TLS handshake of `connection` is
    /// done. Returns the other connections that are being made for the call. They are no longer
    /// needed.
    pub fn made(&mut self, id: CallId, connection: Id) -> Vec<Id> {
        self.made += 1;
        match self.moved(id, Place::On(connection)) {
            Some(Place::Connecting(mut race)) => {
                race.attempts.retain(|&other| other != connection);
                race.attempts
            }
            Some(Place::Waiting | Place::On(_)) | None => Vec::new(),
        }
    }

    /// Adds an idle connection to the pool.
    pub fn keep(&mut self, connection: Id) {
        debug_assert!(!self.idle.contains(&connection), "it is kept once");
        self.idle.push(connection);
    }

    /// Returns the connections in the pool.
    #[must_use]
    pub fn kept(&self) -> &[Id] {
        &self.idle
    }

    /// Takes the most recently used connection out of the pool. From now on, it carries the call.
    pub fn take_kept(&mut self, id: CallId) -> Option<Id> {
        let connection = self.idle.pop()?;
        self.moved(id, Place::On(connection));
        Some(connection)
    }

    /// Removes a connection from the pool, if it is there.
    pub fn forget(&mut self, connection: Id) {
        self.idle.retain(|&idle| idle != connection);
    }

    /// Removes the connections from the pool for which `is_old` returns `true`, and returns them.
    pub fn take_old(&mut self, mut is_old: impl FnMut(Id) -> bool) -> Vec<Id> {
        self.idle.extract_if(.., |id| is_old(*id)).collect()
    }

    /// Subtracts 1 from [`Calls::connections`], because a connection whose handshake was done is
    /// lost.
    pub fn unmade(&mut self) {
        debug_assert!(self.made > 0, "a connection that is gone was counted");
        self.made -= 1;
    }

    /// Puts the call back at the head of the queue, because its connection failed or gave no answer
    /// in time. From now on, the call uses only new connections: see [`Call::was_retried`].
    pub fn retry(&mut self, id: CallId) {
        if let Some(call) = self.calls.get_mut(id) {
            call.was_retried = true;
        }
        if self.moved(id, Place::Waiting).is_some() {
            self.waiting.push_front(id);
        }
    }

    /// Changes the stage of a call, and returns the previous stage. The stage changes only here.
    fn moved(&mut self, id: CallId, place: Place) -> Option<Place> {
        let call = self.calls.get_mut(id)?;
        let before = std::mem::replace(&mut call.place, place);
        self.left(id, &before);
        Some(before)
    }

    fn left(&mut self, id: CallId, place: &Place) {
        match place {
            Place::Waiting => self.waiting.retain(|&waiting| waiting != id),
            Place::Connecting(_) => {
                debug_assert!(self.races > 0, "a race that is over was counted");
                self.races -= 1;
            }
            Place::On(_) => {}
        }
    }

    /// Removes a call that is over, for any reason.
    pub fn remove(&mut self, id: CallId) -> Option<Call> {
        let call = self.calls.remove(id)?;
        self.by_question.remove(&call.question);
        self.left(id, &call.place);
        Some(call)
    }

    /// Removes a client from the call. If no other client waits, the call is over: it is removed
    /// and returned.
    pub fn leave(&mut self, id: CallId, asker: Id) -> Option<Call> {
        let call = self.calls.get_mut(id)?;
        call.askers.retain(|other| other.id != asker);
        if call.askers.is_empty() {
            self.remove(id)
        } else {
            None
        }
    }

    /// Returns the number of open connections whose handshake is done.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.made
    }

    /// Checks that the lists and the counts agree with the calls. For tests.
    pub(crate) fn check_invariants(&self) -> Result<(), String> {
        let mut races = 0;
        for (id, call) in self.calls.iter() {
            let name = id.serial();
            let is_waiting = matches!(call.place, Place::Waiting);
            let listed = self
                .waiting
                .iter()
                .filter(|&&waiting| waiting == id)
                .count();
            hold!(
                listed == usize::from(is_waiting),
                "call {name} is {listed} times in the waiting line"
            );
            hold!(
                self.by_question.get(&call.question) == Some(&id),
                "call {name} is not found by its question"
            );
            hold!(!call.askers.is_empty(), "call {name} has no asker");
            races += usize::from(matches!(call.place, Place::Connecting(_)));
        }
        hold!(
            self.by_question.len() == self.calls.len(),
            "{} questions for {} calls",
            self.by_question.len(),
            self.calls.len()
        );
        hold!(
            self.races == races,
            "{races} calls have connections made for them, and {} are counted",
            self.races
        );
        hold!(
            self.waiting.len() <= self.calls.len(),
            "a call that is over waits"
        );
        Ok(())
    }

    /// Returns the ids of all calls.
    pub fn ids(&self) -> Vec<CallId> {
        self.calls.iter().map(|(id, _)| id).collect()
    }
}
