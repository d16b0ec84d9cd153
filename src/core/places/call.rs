//! The calls: questions to Places, the clients that wait for each answer, and the connection that
//! carries each question.
//!
//! ```text
//!   ask ──► Waiting ──may connect──► Connecting ──one is established──► InFlight ──► ended
//!            ▲  └───────────────an idle connection is free───────────────┘ │
//!            └───retry: the connection broke, or late clients still wait───┘
//! ```
//!
//! Clients with the same question share one call, but each client has its own deadline. A client
//! that joins later has as much time as the first one.
//!
//! Calls wait in a queue in which the origins of the clients take turns: see `queue.rs`. An
//! [origin](crate::core::session::origins) is an IPv4 address, or the first 64 bits of an IPv6
//! address.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fmt;
use std::net::{IpAddr, SocketAddr};

use crate::core::base::clock::Time;
use crate::core::base::invariants::ensure;
use crate::core::base::limits::{LimitValue, Limits};
use crate::core::base::slots::{Id, Slots};
use crate::core::places::exchange_error::ExchangeError;
use crate::core::places::queue::{First, Newest, Queue, Ticket};
use crate::core::places::request::Question;

/// The id of a call.
pub type CallId = Id;

/// The stage of a call.
#[derive(Debug)]
enum CallStage {
    /// In the queue, without a connection.
    Waiting,
    /// Connections are being made for the call, and no TLS handshake is done yet.
    Connecting(Race),
    /// The connection with this id carries the call.
    InFlight(Id),
}

/// The connections that are being made for one call, as in Happy Eyeballs (RFC 8305). The addresses
/// are tried one after the other, without waiting for earlier attempts to fail. The first
/// connection whose TLS handshake is done carries the call.
#[derive(Debug)]
struct Race {
    /// The addresses that were not tried yet, in the order in which they are tried.
    addresses: VecDeque<SocketAddr>,
    /// The connections that are being made.
    attempts: Vec<Id>,
    /// The time at which the next address is tried.
    next_at: Time,
    /// The reason why the certificate of an address was refused, if one was refused.
    certificate_error: Option<ExchangeError>,
}

/// What a call can still try or wait for, after a connection attempt has failed.
#[derive(Clone, Debug, PartialEq)]
pub enum Remaining {
    /// There are addresses that were not tried yet.
    Addresses,
    /// All addresses were tried, but other connections are being made.
    Connections,
    /// Nothing: all attempts have failed.
    Nothing {
        /// The reason why a certificate was refused, if one was refused.
        certificate_error: Option<ExchangeError>,
    },
}

/// A client that waits for the answer of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waiter {
    /// The id of the client's connection.
    pub id: Id,
    /// The client's deadline.
    pub deadline: Time,
    /// The [origin](crate::core::session::origins::origin) of the client's address.
    pub origin: IpAddr,
}

/// The result of [`Calls::ask`] for a question that waits for its answer.
pub struct Accepted {
    /// The call that the client waits for.
    pub call: CallId,
    /// Whether the call is new.
    pub is_new: bool,
    /// The call that was removed because the queue was full.
    pub displaced: Option<(CallId, Call)>,
}

/// Why a question is refused: too many other questions wait for Places.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Busy {
    /// The queue is full, and no call in the queue may be displaced. The field is the number of all
    /// calls.
    Full(usize),
    /// The queue was full, and the client's origin had the most calls in the queue. So a call of
    /// another origin displaced the newest call of the client's origin.
    Displaced,
}

impl std::error::Error for Busy {}

impl fmt::Display for Busy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Busy::Full(calls) => write!(
                f,
                "too many questions to Google Places ({calls}) are waiting; try again later"
            ),
            Busy::Displaced => f.write_str(
                "too many questions to Google Places are waiting, and your address has the most of them; try again later",
            ),
        }
    }
}

/// One question to Places, asked by one client or by several at once.
pub struct Call {
    question: Question,
    /// The waiting clients, in the order of their deadlines.
    waiters: Vec<Waiter>,
    /// The number of waiting clients of each origin.
    origins: BTreeMap<IpAddr, usize>,
    /// The number that orders the calls by age. A newer call has a greater ticket.
    ticket: Ticket,
    /// The number of flows of the queue that contain the call.
    queue_entries: usize,
    /// The origin whose share of the day's questions the question uses. `None` until the call has
    /// left the queue.
    charged_origin: Option<IpAddr>,
    since: Time,
    stage: CallStage,
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
    pub fn waiters(&self) -> &[Waiter] {
        &self.waiters
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

    /// Returns the origins of the waiting clients.
    pub fn origins(&self) -> impl Iterator<Item = IpAddr> {
        self.origins.keys().copied()
    }

    /// Returns the origin whose share of the day's questions the question uses: see
    /// [`places_budget`](crate::core::session::places_budget). `None` if the call has never left
    /// the queue.
    #[must_use]
    pub fn charged_origin(&self) -> Option<IpAddr> {
        self.charged_origin
    }

    /// Whether the call is in the queue.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        matches!(self.stage, CallStage::Waiting)
    }

    /// Whether the call is in a flow of the queue. A retried call is in no flow: it waits before
    /// all flows.
    fn is_in_flow(&self) -> bool {
        self.is_waiting() && !self.was_retried
    }

    /// Whether connections are being made for the call.
    #[must_use]
    pub fn is_connecting(&self) -> bool {
        matches!(self.stage, CallStage::Connecting(_))
    }

    /// Returns the name of the call's state, for the operator.
    #[must_use]
    pub fn state_name(&self) -> &'static str {
        match &self.stage {
            CallStage::Waiting => "waiting",
            CallStage::Connecting(_) => "connecting",
            CallStage::InFlight(_) => "sent",
        }
    }

    fn race(&mut self) -> Option<&mut Race> {
        match &mut self.stage {
            CallStage::Connecting(race) => Some(race),
            CallStage::Waiting | CallStage::InFlight(_) => None,
        }
    }

    /// Returns the connections that are being made for this call, or the connection that carries
    /// it.
    #[must_use]
    pub fn connections(&self) -> &[Id] {
        match &self.stage {
            CallStage::Waiting => &[],
            CallStage::Connecting(race) => &race.attempts,
            CallStage::InFlight(connection) => std::slice::from_ref(connection),
        }
    }

    /// Whether the deadline of every waiting client has passed.
    #[must_use]
    pub fn is_due(&self, now: Time) -> bool {
        self.waiters
            .last()
            .is_none_or(|waiter| waiter.deadline <= now)
    }
}

/// All calls of one server.
pub struct Calls {
    calls: Slots<Call>,
    by_question: HashMap<Question, CallId>,
    queue: Queue,
    last_ticket: Ticket,
    /// The pool: idle connections that are kept for later questions. The last connection is the
    /// most recently used.
    idle: Vec<Id>,
    /// The number of open connections whose TLS handshake is done.
    established: usize,
    /// The number of calls for which connections are being made.
    races: usize,
    max_connections: usize,
    max_waiting: usize,
}

impl Calls {
    /// Creates an empty list of calls.
    #[must_use]
    pub fn new(limits: &Limits) -> Calls {
        Calls {
            calls: Slots::default(),
            by_question: HashMap::new(),
            queue: Queue::default(),
            last_ticket: 0,
            idle: Vec::new(),
            established: 0,
            races: 0,
            max_connections: limits.max_places_connections.to_count(),
            max_waiting: limits.max_places_waiting.to_count(),
        }
    }

    /// Whether a call with this question exists. A new client with the same question joins that
    /// call.
    #[must_use]
    pub fn contains_question(&self, question: &Question) -> bool {
        self.by_question.contains_key(question)
    }

    /// Adds the client `waiter` to the call with the same question. If there is no such call,
    /// creates a new call. If there are too many calls, the new call displaces the newest call of
    /// the origin that has the most calls in the queue. That origin must have more calls than the
    /// client's origin.
    ///
    /// All clients have the same time to wait. So a new client has the latest deadline, and
    /// `waiters` stays in the order of the deadlines.
    ///
    /// # Errors
    /// [`Busy::Full`]: there are too many calls, and no call may be displaced.
    pub fn ask(&mut self, question: Question, waiter: Waiter, now: Time) -> Result<Accepted, Busy> {
        if let Some(&id) = self.by_question.get(&question)
            && let Some(call) = self.calls.get_mut(id)
        {
            call.waiters.push(waiter);
            let origin_count = call.origins.entry(waiter.origin).or_default();
            *origin_count += 1;
            if *origin_count == 1 && call.is_in_flow() {
                call.queue_entries += 1;
                self.queue.enqueue(waiter.origin, call.ticket, id);
            }
            return Ok(Accepted {
                call: id,
                is_new: false,
                displaced: None,
            });
        }
        let displaced = match self.calls.len() >= self.max_connections + self.max_waiting {
            true => Some(self.displace(waiter.origin)?),
            false => None,
        };
        self.last_ticket += 1;
        let ticket = self.last_ticket;
        let id = self.calls.insert(Call {
            question: question.clone(),
            waiters: vec![waiter],
            origins: BTreeMap::from([(waiter.origin, 1)]),
            ticket,
            queue_entries: 1,
            charged_origin: None,
            since: now,
            stage: CallStage::Waiting,
            was_retried: false,
        });
        self.by_question.insert(question, id);
        self.queue.enqueue(waiter.origin, ticket, id);
        Ok(Accepted {
            call: id,
            is_new: true,
            displaced,
        })
    }

    /// Displaces a waiting call, because the queue is full and `origin` has a new call. Removes the
    /// newest call of the origin with the most calls from the flow of that origin. Repeats this
    /// until a removed call is in no other flow. That call is removed and returned. Fails if no
    /// origin has more calls than `origin`.
    fn displace(&mut self, origin: IpAddr) -> Result<(CallId, Call), Busy> {
        let own = self.queue.count(origin);
        while let Some(newest) = self.queue.newest_of_longest_flow() {
            let Newest { id, count, .. } = newest;
            if count <= own {
                break;
            }
            self.queue.remove(newest.origin, newest.ticket);
            let Some(call) = self.calls.get_mut(id) else {
                debug_assert!(false, "the queue holds only calls that are out");
                continue;
            };
            call.queue_entries -= 1;
            if call.queue_entries == 0
                && let Some(call) = self.remove(id)
            {
                return Ok((id, call));
            }
        }
        Err(Busy::Full(self.calls.len()))
    }

    /// Returns the call with this id. `None` if the call has ended.
    #[must_use]
    pub fn get(&self, id: CallId) -> Option<&Call> {
        self.calls.get(id)
    }

    /// Whether no call waits. This runs for every event, so it must be fast.
    #[inline]
    #[must_use]
    pub fn is_queue_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Returns the call that leaves the queue next, and the origin whose turn it is. A retried call
    /// has already used a turn, so the origin of its first client is returned.
    #[must_use]
    pub fn first_waiting(&self) -> Option<(CallId, IpAddr)> {
        let first = self.queue.first()?;
        let first_waiter_origin = || Some(self.calls.get(first.id)?.waiters.first()?.origin);
        Some((first.id, first.origin.or_else(first_waiter_origin)?))
    }

    /// Returns the number of calls for which connections are being made.
    #[must_use]
    pub fn races(&self) -> usize {
        self.races
    }

    /// Whether the limit allows another connection. All attempts for one call count as one
    /// connection.
    #[must_use]
    pub fn may_connect(&self) -> bool {
        self.established + self.races < self.max_connections
    }

    /// Moves the call out of the queue. From now on, the server connects to `addresses` for the
    /// call, one after the other. The question is charged to `charged_origin`.
    pub fn begin_connecting(
        &mut self,
        id: CallId,
        charged_origin: IpAddr,
        addresses: VecDeque<SocketAddr>,
        now: Time,
    ) {
        self.charge(id, charged_origin);
        let race = Race {
            addresses,
            attempts: Vec::new(),
            next_at: now,
            certificate_error: None,
        };
        if self.set_stage(id, CallStage::Connecting(race)).is_some() {
            self.races += 1;
        }
    }

    fn race(&mut self, id: CallId) -> Option<&mut Race> {
        self.calls.get_mut(id)?.race()
    }

    /// Removes the next address to try for the call, and returns it. Also returns whether more
    /// addresses remain. The first remaining address is tried at `next_at`.
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

    /// Delays the next attempt until `next_at`. Returns whether an address remains to be tried.
    pub fn delay_attempt(&mut self, id: CallId, next_at: Time) -> bool {
        let race = self.race(id).filter(|race| !race.addresses.is_empty());
        race.map(|race| race.next_at = next_at).is_some()
    }

    /// Whether the time to try the next address has come.
    pub fn is_attempt_due(&mut self, id: CallId, now: Time) -> bool {
        self.race(id).is_some_and(|race| race.next_at <= now)
    }

    /// Removes a connection attempt that failed. `certificate_error` is the error if the
    /// certificate was refused. Returns what the call can still try or wait for.
    pub fn attempt_failed(
        &mut self,
        id: CallId,
        connection: Id,
        certificate_error: Option<&ExchangeError>,
    ) -> Remaining {
        let Some(race) = self.race(id) else {
            return Remaining::Nothing {
                certificate_error: None,
            };
        };
        race.attempts.retain(|&attempt| attempt != connection);
        if let Some(reason) = certificate_error {
            race.certificate_error.get_or_insert_with(|| reason.clone());
        }
        match (race.addresses.is_empty(), race.attempts.is_empty()) {
            (false, _) => Remaining::Addresses,
            (true, false) => Remaining::Connections,
            (true, true) => Remaining::Nothing {
                certificate_error: race.certificate_error.take(),
            },
        }
    }

    /// Removes the waiting clients that have reached their own deadline, and returns them.
    pub fn take_due(&mut self, id: CallId, now: Time) -> Vec<Id> {
        let Some(call) = self.calls.get_mut(id) else {
            return Vec::new();
        };
        let due = call
            .waiters
            .partition_point(|waiter| waiter.deadline <= now);
        let due: Vec<Waiter> = call.waiters.drain(..due).collect();
        due.iter()
            .for_each(|waiter| self.waiter_left(id, waiter.origin));
        due.iter().map(|waiter| waiter.id).collect()
    }

    /// Updates the counts of the call `id` after a client of `origin` has stopped waiting for the
    /// call. If no other client of `origin` waits for the call, the call leaves the flow of
    /// `origin`.
    fn waiter_left(&mut self, id: CallId, origin: IpAddr) {
        let Some(call) = self.calls.get_mut(id) else {
            return;
        };
        let Some(origin_count) = call.origins.get_mut(&origin) else {
            debug_assert!(false, "the origin of each client is counted");
            return;
        };
        *origin_count -= 1;
        if *origin_count > 0 {
            return;
        }
        call.origins.remove(&origin);
        if self.queue.remove(origin, call.ticket) {
            call.queue_entries -= 1;
        }
        // In the flows of the other origins, the call may have been displaced. Then it is in no
        // flow now, so it enters the flow of its first client's origin.
        if call.is_in_flow()
            && call.queue_entries == 0
            && let Some(waiter) = call.waiters.first()
        {
            call.queue_entries = 1;
            self.queue.enqueue(waiter.origin, call.ticket, id);
        }
    }

    /// From now on, `connection` carries the call, because the TLS handshake of `connection` is
    /// done. Returns the other connections that are being made for the call. The caller closes
    /// these.
    pub fn connection_established(&mut self, id: CallId, connection: Id) -> Vec<Id> {
        self.established += 1;
        match self.set_stage(id, CallStage::InFlight(connection)) {
            Some(CallStage::Connecting(mut race)) => {
                race.attempts.retain(|&other| other != connection);
                race.attempts
            }
            Some(CallStage::Waiting | CallStage::InFlight(_)) | None => Vec::new(),
        }
    }

    /// Adds an idle connection to the pool.
    pub fn add_idle(&mut self, connection: Id) {
        debug_assert!(!self.idle.contains(&connection), "it is kept once");
        self.idle.push(connection);
    }

    /// Returns the connections in the pool.
    #[must_use]
    pub fn idle_connections(&self) -> &[Id] {
        &self.idle
    }

    /// Takes the most recently used connection out of the pool. From now on, this connection
    /// carries the call, and the question is charged to `charged_origin`.
    pub fn take_idle(&mut self, id: CallId, charged_origin: IpAddr) -> Option<Id> {
        let connection = self.idle.pop()?;
        self.charge(id, charged_origin);
        self.set_stage(id, CallStage::InFlight(connection));
        Some(connection)
    }

    /// Removes `connection` from the pool. Does nothing if the pool does not contain `connection`.
    pub fn remove_idle(&mut self, connection: Id) {
        self.idle.retain(|&idle| idle != connection);
    }

    /// Removes from the pool all connections for which `is_old` returns `true`, and returns them.
    pub fn take_expired(&mut self, mut is_old: impl FnMut(Id) -> bool) -> Vec<Id> {
        self.idle.extract_if(.., |id| is_old(*id)).collect()
    }

    /// Handles the loss of a connection whose TLS handshake was done: subtracts 1 from
    /// [`Calls::connections`].
    pub fn connection_closed(&mut self) {
        debug_assert!(
            self.established > 0,
            "a connection that is gone was counted"
        );
        self.established -= 1;
    }

    /// Puts the call back at the head of the queue, because its connection failed or gave no answer
    /// in time. From now on, the call uses only new connections: see [`Call::was_retried`].
    pub fn retry(&mut self, id: CallId) {
        if let Some(call) = self.calls.get_mut(id) {
            call.was_retried = true;
        }
        if self.set_stage(id, CallStage::Waiting).is_some() {
            self.queue.push_retried(id);
        }
    }

    /// Charges the question to `charged_origin` just before the call leaves the queue for a
    /// connection. If the call is the first of the queue and was not retried, this uses up the turn
    /// of the origin that is first in the queue.
    fn charge(&mut self, id: CallId, charged_origin: IpAddr) {
        if let Some(call) = self.calls.get_mut(id) {
            call.charged_origin = Some(charged_origin);
        }
        if let Some(First {
            id: first,
            origin: Some(origin),
        }) = self.queue.first()
            && first == id
        {
            self.queue.move_to_back(origin);
        }
    }

    /// Changes [`Call::stage`], and returns the previous value. Only this method changes it.
    fn set_stage(&mut self, id: CallId, stage: CallStage) -> Option<CallStage> {
        let call = self.calls.get_mut(id)?;
        let before = std::mem::replace(&mut call.stage, stage);
        match before {
            CallStage::Waiting => {
                call.queue_entries = 0;
                leave_queue(&mut self.queue, id, call);
            }
            CallStage::Connecting(_) => self.race_ended(),
            CallStage::InFlight(_) => {}
        }
        Some(before)
    }

    fn race_ended(&mut self) {
        debug_assert!(self.races > 0, "a race that is over was counted");
        self.races -= 1;
    }

    /// Removes a call that has ended, for whatever reason.
    pub fn remove(&mut self, id: CallId) -> Option<Call> {
        let call = self.calls.remove(id)?;
        self.by_question.remove(&call.question);
        match &call.stage {
            CallStage::Waiting => leave_queue(&mut self.queue, id, &call),
            CallStage::Connecting(_) => self.race_ended(),
            CallStage::InFlight(_) => {}
        }
        Some(call)
    }

    /// Removes a client from the call. If no client waits any more, removes the call and returns
    /// it.
    pub fn leave(&mut self, id: CallId, waiter: Id) -> Option<Call> {
        let call = self.calls.get_mut(id)?;
        let index = call.waiters.iter().position(|other| other.id == waiter)?;
        let origin = call.waiters.remove(index).origin;
        if call.waiters.is_empty() {
            self.remove(id)
        } else {
            self.waiter_left(id, origin);
            None
        }
    }

    /// Returns the number of open connections whose handshake is done.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.established
    }

    /// Checks that the queue, the counts and the pool agree with the calls. For tests.
    pub(crate) fn check_invariants(&self) -> Result<(), String> {
        self.queue.check_invariants()?;
        let mut in_queue: BTreeMap<CallId, Vec<Option<IpAddr>>> = BTreeMap::new();
        for (id, origin) in self.queue.entries() {
            ensure!(self.calls.get(id).is_some(), "a call that is over waits");
            in_queue.entry(id).or_default().push(origin);
        }
        let mut races = 0;
        for (id, call) in self.calls.iter() {
            let name = id.serial();
            let entries = in_queue.remove(&id).unwrap_or_default();
            let is_right = match (call.is_waiting(), call.was_retried) {
                (false, _) => entries.is_empty(),
                (true, true) => entries == [None],
                (true, false) => {
                    let is_own = |entry: &Option<IpAddr>| {
                        entry.is_some_and(|origin| call.origins.contains_key(&origin))
                    };
                    !entries.is_empty() && entries.iter().all(is_own)
                }
            };
            ensure!(is_right, "call {name} stands in the queue at {entries:?}");
            ensure!(
                call.queue_entries == entries.iter().flatten().count(),
                "call {name} has {} places in the queue, not {}",
                entries.iter().flatten().count(),
                call.queue_entries
            );
            let mut origins: BTreeMap<IpAddr, usize> = BTreeMap::new();
            for waiter in &call.waiters {
                *origins.entry(waiter.origin).or_default() += 1;
            }
            ensure!(
                origins == call.origins,
                "the clients of call {name} are counted as {:?}",
                call.origins
            );
            ensure!(
                self.by_question.get(&call.question) == Some(&id),
                "call {name} is not found by its question"
            );
            ensure!(!call.waiters.is_empty(), "call {name} has no asker");
            races += usize::from(matches!(call.stage, CallStage::Connecting(_)));
        }
        ensure!(
            self.by_question.len() == self.calls.len(),
            "{} questions for {} calls",
            self.by_question.len(),
            self.calls.len()
        );
        ensure!(
            self.races == races,
            "{races} calls have connections made for them, and {} are counted",
            self.races
        );
        Ok(())
    }

    /// The number of slots in the table of calls. A slot can be empty.
    #[must_use]
    pub fn places(&self) -> usize {
        self.calls.places()
    }

    /// Returns the call in a slot of the table, or `None` if the slot is empty.
    #[must_use]
    pub fn at(&self, place: usize) -> Option<(CallId, &Call)> {
        self.calls.at(place)
    }

    /// The number of calls that have no answer yet.
    #[must_use]
    pub fn len(&self) -> usize {
        self.calls.len()
    }

    /// The number of calls that wait for a connection. This number can be too small for a moment: a
    /// connection that is being closed counts as if it had a call.
    #[must_use]
    pub fn waiting(&self) -> usize {
        let carried = self.established.saturating_sub(self.idle.len());
        self.calls.len().saturating_sub(self.races + carried)
    }

    /// Whether there are no calls.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.calls.is_empty()
    }

    /// Returns the ids of all calls.
    pub fn ids(&self) -> Vec<CallId> {
        self.calls.iter().map(|(id, _)| id).collect()
    }
}

/// Removes the call from the queue.
fn leave_queue(queue: &mut Queue, id: CallId, call: &Call) {
    if call.was_retried {
        queue.remove_retried(id);
    }
    for origin in call.origins.keys() {
        queue.remove(*origin, call.ticket);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    /// The calls of a server, with the clients that wait and the connections in use.
    struct Harness {
        calls: Calls,
        clients: Slots<()>,
        /// Clients that wait.
        waiting: BTreeSet<Id>,
        /// Calls that have a connection.
        carried: Vec<(CallId, Id)>,
    }

    fn origin(number: u8) -> IpAddr {
        [192, 0, 2, number].into()
    }

    fn question(number: u8) -> Question {
        Question {
            latitude: number.to_string(),
            ..Question::default()
        }
    }

    impl Harness {
        fn new(connections: u64, waiting: u64) -> Harness {
            Harness {
                calls: Calls::new(&Limits {
                    max_places_connections: connections,
                    max_places_waiting: waiting,
                    ..Limits::default()
                }),
                clients: Slots::default(),
                waiting: BTreeSet::new(),
                carried: Vec::new(),
            }
        }

        /// Asks the question `about` for a new client of the origin `from`. Returns the origins of
        /// the clients that were displaced.
        fn ask(&mut self, from: u8, about: u8) -> Result<Vec<IpAddr>, Busy> {
            let waiter = Waiter {
                id: self.clients.insert(()),
                deadline: Time::from_nanos(0),
                origin: origin(from),
            };
            let id = waiter.id;
            let asked = self
                .calls
                .ask(question(about), waiter, Time::from_nanos(0))?;
            self.waiting.insert(id);
            let displaced = asked.displaced.into_iter();
            let waiters = displaced.flat_map(|(_, call)| call.waiters);
            let displaced = waiters.map(|waiter| {
                assert!(self.waiting.remove(&waiter.id), "it waited");
                waiter.origin
            });
            Ok(displaced.collect())
        }

        /// Gives a connection to the next call. Returns the origin whose turn it was, and the
        /// question. The origin is `None` for a retried call.
        fn take(&mut self) -> Option<(Option<IpAddr>, String)> {
            let first = self.calls.queue.first()?;
            let (id, charged_origin) = self.calls.first_waiting().unwrap();
            assert_eq!(id, first.id);
            let connection = self.clients.insert(());
            match self.carried.len() % 2 {
                0 => {
                    self.calls.add_idle(connection);
                    let taken = self.calls.take_idle(id, charged_origin);
                    assert_eq!(taken, Some(connection));
                }
                _ => {
                    let now = Time::from_nanos(0);
                    self.calls
                        .begin_connecting(id, charged_origin, VecDeque::new(), now);
                    self.calls.attempt_begun(id, connection);
                    assert_eq!(self.calls.connection_established(id, connection), []);
                }
            }
            self.carried.push((id, connection));
            let latitude = &self.calls.get(id).unwrap().question.latitude;
            Some((first.origin, latitude.clone()))
        }

        fn take_many(&mut self, count: usize) -> String {
            let taken: Vec<String> = (0..count).map(|_| self.take().unwrap().1).collect();
            taken.join(" ")
        }

        fn answer(&mut self, number: usize) {
            let (id, _) = self.carried.remove(number);
            let Some(call) = self.calls.remove(id) else {
                return; // all its clients have left
            };
            for waiter in call.waiters {
                assert!(self.waiting.remove(&waiter.id), "it waited");
            }
        }

        fn leave(&mut self, number: usize) {
            let Some(&client) = self.waiting.iter().nth(number) else {
                return;
            };
            self.waiting.remove(&client);
            let call = self.calls.calls.iter().find_map(|(id, call)| {
                let is_own = call.waiters.iter().any(|waiter| waiter.id == client);
                is_own.then_some(id)
            });
            self.calls.leave(call.unwrap(), client);
        }

        /// Checks the invariants of the calls, and that exactly the clients in `waiting` wait for a
        /// call.
        fn check(&self) {
            assert_eq!(self.calls.check_invariants(), Ok(()));
            let ids = self.calls.calls.iter();
            let waiters = ids.flat_map(|(_, call)| call.waiters.iter().map(|waiter| waiter.id));
            assert_eq!(waiters.collect::<BTreeSet<Id>>(), self.waiting);
        }
    }

    #[test]
    fn the_call_queue_is_round_robin_and_fifo_per_origin() {
        let mut harness = Harness::new(100, 100);
        for about in [10, 11, 12, 13] {
            harness.ask(1, about).unwrap();
        }
        for about in [20, 21] {
            harness.ask(2, about).unwrap();
        }
        harness.ask(3, 30).unwrap();
        assert_eq!(harness.take_many(3), "10 20 30");
        // An origin that had left the queue and enters it again gets its turn after all other
        // origins.
        harness.ask(3, 31).unwrap();
        assert_eq!(harness.take_many(4), "11 21 31 12");
        assert_eq!(harness.take_many(1), "13");
        assert_eq!(harness.take(), None);
        harness.check();
    }

    #[test]
    fn a_shared_call_is_taken_at_its_origins_earliest_turn() {
        let mut harness = Harness::new(100, 100);
        for (from, about) in [(1, 10), (1, 11), (1, 12), (2, 20), (3, 12)] {
            harness.ask(from, about).unwrap();
        }
        assert_eq!(harness.take_many(4), "10 20 12 11");
        harness.check();
    }

    #[test]
    fn a_new_call_displaces_the_longest_origin_s_newest_call() {
        let mut harness = Harness::new(1, 4);
        for (from, about) in [(1, 10), (2, 20), (1, 11), (1, 12), (1, 13)] {
            harness.ask(from, about).unwrap();
        }
        assert_eq!(harness.ask(1, 14), Err(Busy::Full(5)), "none has more");
        assert_eq!(harness.ask(3, 30), Ok(vec![origin(1)]));
        assert_eq!(harness.ask(2, 21), Ok(vec![origin(1)]));
        // The origins 1 and 2 have two calls each. The call of origin 2 is the newest call of the
        // queue.
        assert_eq!(harness.ask(4, 40), Ok(vec![origin(2)]));
        assert_eq!(harness.ask(1, 15), Err(Busy::Full(5)));
        assert_eq!(harness.take_many(5), "10 20 30 40 11");
        harness.check();
    }

    #[test]
    fn a_shared_call_is_displaced_only_for_all_its_origins() {
        // Origin 1 has the most calls, but origin 2 also waits for the newest call of origin 1.
        let mut harness = Harness::new(1, 2);
        for (from, about) in [(1, 10), (1, 11), (1, 12), (2, 12)] {
            assert_eq!(harness.ask(from, about), Ok(vec![]));
        }
        assert_eq!(harness.ask(3, 30), Ok(vec![origin(1)]));
        harness.check();
        assert_eq!(harness.take_many(3), "10 12 30", "the answer is for both");
        // Origins 1 and 2 ask the same questions, so they share all calls. A call of theirs is
        // displaced only after it was removed from both flows.
        let mut harness = Harness::new(1, 2);
        for about in [10, 11, 12] {
            harness.ask(1, about).unwrap();
            harness.ask(2, about).unwrap();
        }
        assert_eq!(harness.ask(3, 30), Ok(vec![origin(1), origin(2)]));
        assert_eq!(harness.ask(4, 40), Ok(vec![origin(1), origin(2)]));
        harness.check();
    }

    #[test]
    fn a_shared_call_survives_the_loss_of_one_origin() {
        let mut harness = Harness::new(1, 2);
        for (from, about) in [(1, 10), (1, 11), (1, 12), (2, 12), (3, 30)] {
            harness.ask(from, about).unwrap();
        }
        harness.leave(2); // the client of origin 2; call 11 was displaced
        harness.check();
        assert_eq!(harness.take_many(3), "10 30 12");
    }

    #[test]
    fn a_retried_call_is_taken_first_and_not_displaced() {
        let mut harness = Harness::new(1, 1);
        harness.ask(1, 10).unwrap();
        harness.take_many(1);
        harness.ask(2, 20).unwrap();
        let (id, _) = harness.carried.remove(0);
        harness.calls.retry(id);
        assert_eq!(harness.ask(3, 30), Ok(vec![origin(2)]));
        assert_eq!(harness.take_many(2), "10 30");
        harness.check();
    }

    #[derive(Clone, Debug)]
    enum Step {
        Ask { from: u8, about: u8 },
        Leave(usize),
        Take,
        Answer(usize),
        Retry(usize),
        Due(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            6 => (0_u8..5, 0_u8..24).prop_map(|(from, about)| Step::Ask { from, about }),
            1 => (0_usize..20).prop_map(Step::Leave),
            3 => Just(Step::Take),
            2 => (0_usize..4).prop_map(Step::Answer),
            1 => (0_usize..4).prop_map(Step::Retry),
            1 => (0_usize..8).prop_map(Step::Due),
        ]
    }

    proptest! {
        /// For any sequence of events, no client and no call is lost. The queue stays within its
        /// limit. While an origin waits for its turn, no other origin gets more than one turn.
        #[test]
        fn the_call_queue_loses_no_call_and_starves_no_origin(
            steps in proptest::collection::vec(step(), 1..200),
        ) {
            let mut harness = Harness::new(3, 5);
            // For each pair of a waiting origin and another origin: the number of turns that the
            // other origin has had since the waiting origin had its last turn or began to wait.
            let mut passed: BTreeMap<(IpAddr, IpAddr), u32> = BTreeMap::new();
            for step in steps {
                match step {
                    Step::Ask { from, about } => {
                        let own = harness.calls.queue.count(origin(from));
                        let longest = harness.calls.queue.newest_of_longest_flow();
                        let was_asked = harness.calls.contains_question(&question(about));
                        match harness.ask(from, about) {
                            Ok(displaced) => prop_assert!(displaced.is_empty() || !was_asked),
                            Err(Busy::Full(calls)) => {
                                prop_assert_eq!(calls, 8);
                                prop_assert!(!was_asked);
                                // Although an origin has more calls than the new client's origin,
                                // it keeps all its calls only if other origins share some of them.
                                let has_shared = harness.calls.calls.iter().any(|(_, call)| {
                                    call.is_in_flow() && call.origins.len() > 1
                                });
                                let longest = longest.map_or(0, |longest| longest.count);
                                prop_assert!(longest <= own || has_shared);
                            }
                            Err(Busy::Displaced) => prop_assert!(false, "it is new"),
                        }
                    }
                    Step::Leave(number) => harness.leave(number),
                    Step::Take if harness.carried.len() < 3 => {
                        let others: Vec<IpAddr> = harness.calls.queue.origins().collect();
                        if let Some((Some(taken), _)) = harness.take() {
                            passed.retain(|(waits, _), _| *waits != taken);
                            for other in others.into_iter().filter(|other| *other != taken) {
                                let times = passed.entry((other, taken)).or_default();
                                *times += 1;
                                prop_assert!(*times < 2, "{} passed {} over", taken, other);
                            }
                        }
                    }
                    Step::Take => {}
                    Step::Answer(number) => {
                        if number < harness.carried.len() {
                            harness.answer(number);
                        }
                    }
                    Step::Retry(number) => {
                        if number < harness.carried.len() {
                            let (id, _) = harness.carried.remove(number);
                            harness.calls.retry(id);
                        }
                    }
                    Step::Due(number) => {
                        let ids = harness.calls.ids();
                        if let Some(&id) = ids.get(number) {
                            for client in harness.calls.take_due(id, Time::from_nanos(1)) {
                                prop_assert!(harness.waiting.remove(&client));
                            }
                            harness.calls.remove(id);
                        }
                    }
                }
                let queue = &harness.calls.queue;
                passed.retain(|(waits, _), _| queue.count(*waits) > 0);
                prop_assert!(harness.calls.calls.len() <= 8);
                harness.check();
            }
        }
    }
}
