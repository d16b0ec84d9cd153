//! The questions that are out: who asks them, which connection carries them, and who waits for one.
//!
//! ```text
//!   ask ──► Waiting ──a connection is free or may be made──► On(connection) ──answer, failure──► gone
//!              ▲                                                  │
//!              └──── the next address, or once more after a connection that had died idle
//! ```

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;

use crate::core::clock::Time;
use crate::core::limits::{Limits, count};
use crate::core::places::request::Question;
use crate::core::slots::{Id, Slots};

/// The name of a call.
pub type CallId = Id;

/// Where a call stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In the waiting line.
    Waiting,
    /// Carried by that connection.
    On(Id),
}

/// One question to Places, asked by one client or by several at once.
pub struct Call {
    /// What is asked.
    pub question: Question,
    /// The clients that wait for its answer.
    pub askers: Vec<Id>,
    /// When it was asked first.
    pub since: Time,
    /// Where it stands.
    pub place: Place,
    /// Addresses not tried yet, the next one first; `None` before the name was looked up.
    pub addresses: Option<VecDeque<SocketAddr>>,
    /// A kept connection died under it; it now wants a new one, and no third.
    pub retried: bool,
}

/// All calls of one server.
pub struct Calls {
    calls: Slots<Call>,
    by_question: HashMap<Question, CallId>,
    waiting: VecDeque<CallId>,
    /// Connections without a question, the latest used last.
    pub idle: Vec<Id>,
    /// Connections in any state.
    pub connections: usize,
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
            connections: 0,
            max_connections: count(limits.max_places_connections),
            max_waiting: count(limits.max_places_waiting),
        }
    }

    /// Asks `question` for `asker`; one that is already out is joined. Says whether the call is new.
    ///
    /// # Errors
    /// Too many questions wait already.
    pub fn ask(
        &mut self,
        question: Question,
        asker: Id,
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
            addresses: None,
            retried: false,
        });
        self.by_question.insert(question, id);
        self.waiting.push_back(id);
        Ok((id, true))
    }

    /// The call, while it is out.
    #[must_use]
    pub fn get_mut(&mut self, id: CallId) -> Option<&mut Call> {
        self.calls.get_mut(id)
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
        self.connections < self.max_connections
    }

    /// The call leaves the waiting line for a connection.
    pub fn carried(&mut self, id: CallId, connection: Id) {
        self.waiting.retain(|&waiting| waiting != id);
        if let Some(call) = self.calls.get_mut(id) {
            call.place = Place::On(connection);
        }
    }

    /// The call lost its connection, and goes back to the head of the waiting line.
    pub fn wait_again(&mut self, id: CallId) {
        if let Some(call) = self.calls.get_mut(id) {
            call.place = Place::Waiting;
            self.waiting.push_front(id);
        }
    }

    /// The call is over, for whatever reason.
    pub fn remove(&mut self, id: CallId) -> Option<Call> {
        let call = self.calls.remove(id)?;
        self.by_question.remove(&call.question);
        self.waiting.retain(|&waiting| waiting != id);
        Some(call)
    }

    /// A client no longer wants the answer. If nobody does, the call is over, and is returned.
    pub fn leave(&mut self, id: CallId, asker: Id) -> Option<Call> {
        let call = self.calls.get_mut(id)?;
        call.askers.retain(|&other| other != asker);
        if call.askers.is_empty() {
            self.remove(id)
        } else {
            None
        }
    }

    /// Every call that is out.
    pub fn ids(&self) -> Vec<CallId> {
        self.calls.iter().map(|(id, _)| id).collect()
    }
}
