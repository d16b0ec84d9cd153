//! The questions that are out: who asks them, which connection carries them, and who waits for one.
//!
//! ```text
//!   ask ──► Waiting ──a connection may be made──► Connecting(race) ──the first that is made──► On(connection) ──► gone
//!             ▲  └──────────────────────────────────one is free──────────────────────────────────►─┘  │
//!             └──────── once more, after a connection that had died idle, or for those who joined late ┘
//! ```
//!
//! Each client has a deadline of its own, also for an answer that it shares: who joins late waits
//! as long as any.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;

use crate::core::base::clock::Time;
use crate::core::base::invariants::hold;
use crate::core::base::limits::{Limits, count};
use crate::core::base::slots::{Id, Slots};
use crate::core::places::request::Question;

/// The name of a call.
pub type CallId = Id;

/// Where a call stands.
#[derive(Debug)]
enum Place {
    /// In the waiting line.
    Waiting,
    /// Connections are being made for it.
    Connecting(Race),
    /// Carried by that connection.
    On(Id),
}

/// Happy Eyeballs (RFC 8305): one address after the other is tried, without waiting for those
/// before it to fail; the first connection that is made is used.
#[derive(Debug)]
struct Race {
    /// Addresses not tried yet, the next one first.
    addresses: VecDeque<SocketAddr>,
    /// Connections that are being made.
    attempts: Vec<Id>,
    /// When the next address is tried.
    next_at: Time,
    /// Why a certificate was refused, if one was.
    mistrust: Option<String>,
}

/// What is left to a call after a connection that was being made for it is not made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Left {
    /// Addresses that were not tried.
    Addresses,
    /// No more of them, but other connections that are being made.
    Connections,
    /// Nothing.
    Nothing {
        /// Why a certificate was refused, if one was.
        mistrust: Option<String>,
    },
}

/// A client that waits for the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asker {
    /// Its connection.
    pub id: Id,
    /// Until when.
    pub until: Time,
}

/// One question to Places, asked by one client or by several at once.
pub struct Call {
    question: Question,
    /// In the order of their deadlines.
    askers: Vec<Asker>,
    since: Time,
    place: Place,
    was_retried: bool,
}

impl Call {
    /// What is asked.
    #[must_use]
    pub fn question(&self) -> &Question {
        &self.question
    }

    /// The clients that wait for its answer, in the order of their deadlines.
    #[must_use]
    pub fn askers(&self) -> &[Asker] {
        &self.askers
    }

    /// When it was asked first.
    #[must_use]
    pub fn since(&self) -> Time {
        self.since
    }

    /// Whether a kept connection died under it: it wants a new one, and no third.
    #[must_use]
    pub fn was_retried(&self) -> bool {
        self.was_retried
    }

    /// Whether connections are being made for it.
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

    /// The connections that it has to itself.
    #[must_use]
    pub fn connections(&self) -> &[Id] {
        match &self.place {
            Place::Waiting => &[],
            Place::Connecting(race) => &race.attempts,
            Place::On(connection) => std::slice::from_ref(connection),
        }
    }

    /// Whether the deadline of each client has come.
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
    /// The pool: connections that are kept for the next question, the latest used last.
    idle: Vec<Id>,
    /// Connections that are made.
    made: usize,
    /// Calls for which one is being made.
    races: usize,
    max_connections: usize,
    max_waiting: usize,
}

impl Calls {
    /// None yet.
    #[must_use]
    pub fn new(limits: &Limits) -> Calls {
        Calls {
            calls: Slots::default(),
            by_question: HashMap::new(),
            waiting: VecDeque::new(),
            idle: Vec::new(),
            made: 0,
            races: 0,
            max_connections: count(limits.max_places_connections),
            max_waiting: count(limits.max_places_waiting),
        }
    }

    /// Asks `question` for `asker`; one that is already out is joined. Says whether the call is
    /// new.
    ///
    /// The deadlines of those who join are in order, for all clients wait as long.
    ///
    /// # Errors
    /// Too many questions wait already.
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

    /// The call, while it is out.
    #[must_use]
    pub fn get(&self, id: CallId) -> Option<&Call> {
        self.calls.get(id)
    }

    /// The first in the waiting line.
    #[must_use]
    pub fn first_waiting(&self) -> Option<CallId> {
        self.waiting.front().copied()
    }

    /// Whether another connection may be made.
    #[must_use]
    pub fn may_connect(&self) -> bool {
        self.made + self.races < self.max_connections
    }

    /// The call leaves the waiting line: connections are made for it, to one of `addresses` after
    /// the other.
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

    /// Takes the address that is tried next for the call; the one after it is tried at `next_at`.
    /// The flag says whether there is one after it.
    pub fn next_address(&mut self, id: CallId, next_at: Time) -> Option<(SocketAddr, bool)> {
        let race = self.race(id)?;
        let address = race.addresses.pop_front()?;
        race.next_at = next_at;
        Some((address, !race.addresses.is_empty()))
    }

    /// A connection is being made for the call.
    pub fn attempt_begun(&mut self, id: CallId, connection: Id) {
        if let Some(race) = self.race(id) {
            race.attempts.push(connection);
        }
    }

    /// The next address is tried at `next_at`. Returns whether there is one.
    pub fn put_off_attempt(&mut self, id: CallId, next_at: Time) -> bool {
        let race = self.race(id).filter(|race| !race.addresses.is_empty());
        race.map(|race| race.next_at = next_at).is_some()
    }

    /// Whether the next address may be tried.
    pub fn is_attempt_due(&mut self, id: CallId, now: Time) -> bool {
        self.race(id).is_some_and(|race| race.next_at <= now)
    }

    /// A connection that was being made for the call is not made; its certificate was refused if
    /// there is a `mistrust`.
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

    /// Takes out the clients of the call whose deadline has come.
    pub fn take_due(&mut self, id: CallId, now: Time) -> Vec<Id> {
        let Some(call) = self.calls.get_mut(id) else {
            return Vec::new();
        };
        let due = call.askers.partition_point(|asker| asker.until <= now);
        call.askers.drain(..due).map(|asker| asker.id).collect()
    }

    /// A connection that was being made for the call is made, and carries it. Returns the others.
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

    /// A connection is kept for the next question.
    pub fn keep(&mut self, connection: Id) {
        debug_assert!(!self.idle.contains(&connection), "it is kept once");
        self.idle.push(connection);
    }

    /// Connections that are kept.
    #[must_use]
    pub fn kept(&self) -> &[Id] {
        &self.idle
    }

    /// Takes the kept connection that was used last, for the call.
    pub fn take_kept(&mut self, id: CallId) -> Option<Id> {
        let connection = self.idle.pop()?;
        self.moved(id, Place::On(connection));
        Some(connection)
    }

    /// A connection is of no more use.
    pub fn forget(&mut self, connection: Id) {
        self.idle.retain(|&idle| idle != connection);
    }

    /// Takes those out of the pool of which `is_old` is true.
    pub fn take_old(&mut self, mut is_old: impl FnMut(Id) -> bool) -> Vec<Id> {
        self.idle.extract_if(.., |id| is_old(*id)).collect()
    }

    /// A connection that was made is gone.
    pub fn unmade(&mut self) {
        debug_assert!(self.made > 0, "a connection that is gone was counted");
        self.made -= 1;
    }

    /// The call lost its connection, and goes back to the head of the waiting line. It is given a
    /// new connection, and no third.
    pub fn retry(&mut self, id: CallId) {
        if let Some(call) = self.calls.get_mut(id) {
            call.was_retried = true;
        }
        if self.moved(id, Place::Waiting).is_some() {
            self.waiting.push_front(id);
        }
    }

    /// The one place where a call's place changes; returns the one that it had.
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

    /// The call is over, for whatever reason.
    pub fn remove(&mut self, id: CallId) -> Option<Call> {
        let call = self.calls.remove(id)?;
        self.by_question.remove(&call.question);
        self.left(id, &call.place);
        Some(call)
    }

    /// A client no longer wants the answer. If no other does, the call is over, and is returned.
    pub fn leave(&mut self, id: CallId, asker: Id) -> Option<Call> {
        let call = self.calls.get_mut(id)?;
        call.askers.retain(|other| other.id != asker);
        if call.askers.is_empty() {
            self.remove(id)
        } else {
            None
        }
    }

    /// How many connections are made.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.made
    }

    /// Whether lists and counts agree with the calls. For tests.
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

    /// Every call that is out.
    pub fn ids(&self) -> Vec<CallId> {
        self.calls.iter().map(|(id, _)| id).collect()
    }
}
