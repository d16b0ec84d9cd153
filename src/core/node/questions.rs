//! How a [`Node`] asks Google Places. A *call* is one question, with all clients that wait for its
//! answer. An *origin* is a client's IPv4 address, or the first 64 bits of its IPv6 address. A call
//! gets a connection, the response arrives on the connection, and the clients of the call get the
//! answer.

use std::net::IpAddr;

use log::{debug, info, warn};

use super::session::Session;
use super::{ConnId, Node, Request, Slot, Timer};
use crate::core::base::clock::{Now, Time};
use crate::core::base::limits::LimitValue;
use crate::core::base::settings::Secret;
use crate::core::base::slots::Slots;
use crate::core::places::answer::{
    ErrorKind, Outcome, PlacesError, Reply, google_error, is_json_object,
};
use crate::core::places::call::{Busy, Call, CallId, Remaining, Waiter};
use crate::core::places::exchange::{Effect, Exchange, Failure, FailureStage};
use crate::core::places::request::{Question, without_key};
use crate::core::places::response::Response;
use crate::core::session::log_budget::Lines;
use crate::core::session::places_budget::OverQuota;
use crate::core::session::resolver::Resolution;
use crate::core::session::tls::{Tls, TlsError, TlsSession};
use crate::core::wire::escape::Escaped;

/// The maximum number of clients that are answered in one turn. The other clients are answered in
/// the next turns, so that many clients with the same question do not delay all others.
const MAX_ANSWERS_PER_TURN: usize = 64;

/// The minimum length of a key that is hidden in answers. A shorter key could occur in an answer by
/// chance. Keys of Google have 39 characters.
const MIN_KEY_BYTES: usize = 8;

/// The maximum length of a body that is searched for an error of Google. Such errors are short.
const MAX_ERROR_BYTES: usize = 65_536;

/// The size of the log line about a failed call, for [`Node::may_log_failure`].
const FAILED_CALL: Lines = Lines {
    count: 1,
    quoted_bytes: 200,
};

/// The maximum length of an error of Google in a log line.
const MAX_LOGGED_BYTES: usize = 500;

impl Node {
    /// Asks Places for the client `asker`, whose origin is `origin`. Returns the call that the
    /// client now waits for, or the error to answer with. The answer is delivered later through
    /// `deliver_answer`, never inside this function.
    pub(super) fn ask(
        &mut self,
        question: &Question,
        asker: ConnId,
        origin: IpAddr,
        now: Now,
    ) -> Result<CallId, PlacesError> {
        if self.settings.places.key.is_none() {
            return Err(ErrorKind::NoKey.error("this server has no key for Google Places; its operator can give it one (HERD_PLACES_KEY)"));
        }
        // If a call with the same question exists, the client joins that call. The question is not
        // sent again, so no quota is checked.
        if !self.calls.contains_question(question)
            && let Err(error) = self.payer([origin], now)
        {
            self.tally.counters.places_over_day += 1;
            return Err(ErrorKind::OverQuota.error(error.to_string()));
        }
        let until = now.time + self.settings.limits.places_ms.to_duration();
        let asker = Waiter {
            id: asker,
            deadline: until,
            origin,
        };
        let asked = self.calls.ask(question.clone(), asker, now.time);
        let asked = asked.map_err(|busy| ErrorKind::Busy.error(busy.to_string()))?;
        if let Some((id, call)) = asked.displaced {
            self.tally.counters.places_displaced += 1;
            let error = ErrorKind::Busy.error(Busy::Displaced.to_string());
            self.complete_call(id, &call, Err(error));
        }
        if asked.is_new {
            self.deadlines.call_at(until, Timer::Call(asked.call));
        }
        Ok(asked.call)
    }

    /// Returns the first of `origins` whose daily quota allows one more question. Later, the
    /// question is charged to that origin. `None` is possible only if `origins` is empty.
    fn payer(
        &self,
        origins: impl IntoIterator<Item = IpAddr>,
        now: Now,
    ) -> Result<Option<IpAddr>, OverQuota> {
        let quota = &self.settings.places.quota;
        self.tally.places_budget.payer(origins, quota, now.time)
    }

    /// Gives connections to waiting calls, and delivers answers to clients, until nothing more can
    /// be done. This runs after nearly every event. So an answer is never delivered while its
    /// client handles an event, and nothing here recurses.
    #[inline]
    pub(super) fn advance_calls(&mut self, now: Now) {
        if !self.calls.is_queue_empty() || !self.answers.is_empty() {
            self.advance_waiting_calls(now);
        }
    }

    #[inline(never)]
    fn advance_waiting_calls(&mut self, now: Now) {
        let mut delivered = 0;
        loop {
            self.start_waiting_calls(now);
            // Each write to a socket is an event too. Without this check, one turn would deliver
            // all answers (test: `a_shared_answer_is_sent_over_several_turns`).
            if self.answers_are_deferred {
                return;
            }
            let Some((mut askers, mut outcome)) = self.answers.pop_front() else {
                return;
            };
            self.tally.buffers.remove_answer(outcome.held_bytes());
            while let Some(asker) = askers.pop() {
                self.deliver_answer(asker, &mut outcome, now);
                delivered += 1;
                self.account(asker, now.time);
                if delivered == MAX_ANSWERS_PER_TURN || self.tally.buffers.is_exceeded() {
                    self.tally.buffers.add_answer(outcome.held_bytes());
                    self.answers.push_front((askers, outcome));
                    self.answers_are_deferred = true;
                    return self.deadlines.call_at(now.time, Timer::Answers);
                }
            }
        }
    }

    fn start_waiting_calls(&mut self, now: Now) {
        if self.next_question_at.is_some_and(|due| now.time < due) {
            return;
        }
        while let Some((id, origin)) = self.calls.first_waiting() {
            if self.tally.buffers.has_too_many_answers() || !self.start_call(id, origin, now) {
                return;
            }
        }
    }

    /// Gives call `id` a connection, or ends the call. `origin` is the next origin in the queue of
    /// origins whose clients wait: see `core/places/queue.rs`. Returns `false` if the call has to
    /// wait.
    fn start_call(&mut self, id: CallId, origin: IpAddr, now: Now) -> bool {
        let Some(call) = self.calls.get(id) else {
            debug_assert!(false, "the queue holds only calls that are out");
            return false;
        };
        let may_reuse = !call.was_retried() && !self.calls.idle_connections().is_empty();
        let payer = match self.payer([origin].into_iter().chain(call.origins()), now) {
            Ok(payer) => payer.unwrap_or(origin),
            Err(error) => {
                self.tally.counters.places_over_day += 1;
                self.finish_call(id, Err(ErrorKind::OverQuota.error(error.to_string())));
                return true;
            }
        };
        if !may_reuse && !self.calls.may_connect() {
            return false;
        }
        if !self.quota_allows_question(now) {
            return false;
        }
        let quota = &self.settings.places.quota;
        if may_reuse {
            let request = self.request(id);
            let Some(connection) = self.calls.take_idle(id, payer) else {
                return false;
            };
            self.tally.places_budget.take_second(quota, now.time);
            let limits = &self.settings.limits;
            if let Some(exchange) = exchange(&mut self.sessions, connection) {
                exchange.send_question(id, request, limits, now.time);
                self.mark_dirty(connection);
            }
            self.count_question(payer, now);
            return true;
        }
        let host = self.settings.places.origin.clone();
        match self.resolve(&host, now) {
            Resolution::Known(addresses) => {
                let quota = &self.settings.places.quota;
                self.tally.places_budget.take_second(quota, now.time);
                self.calls
                    .begin_connecting(id, payer, addresses.into(), now.time);
                self.next_attempt(id, now);
            }
            Resolution::Pending => return false,
            Resolution::Failed(reason) => {
                let message = format!(
                    "the address of Google Places cannot be found: {reason}; try again later"
                );
                self.finish_call(id, Err(ErrorKind::Unavailable.error(message)));
            }
        }
        true
    }

    /// Returns whether `places.max_per_day` and `places.max_per_second` allow one more question
    /// now. If only the rate forbids the question, also sets a timer for the time at which the next
    /// question is allowed.
    fn quota_allows_question(&mut self, now: Now) -> bool {
        let (budget, quota) = (&self.tally.places_budget, &self.settings.places.quota);
        // A call whose connection is still being made counts as one question. If its connection
        // cannot be made, the waiting calls are tried again after that failure.
        let asked = budget.questions_in_a_day(quota, now.time);
        if asked.is_some_and(|asked| asked + self.calls.races() as u64 >= quota.per_day) {
            return false;
        }
        let Some(due) = budget.wait_for_second(quota, now.time) else {
            return true;
        };
        self.next_question_at = Some(due);
        self.deadlines.call_at(due, Timer::PlacesRate);
        false
    }

    /// Counts a question that is sent, and charges the question to `payer`.
    fn count_question(&mut self, payer: IpAddr, now: Now) {
        self.tally.counters.places_asked += 1;
        let quota = &self.settings.places.quota;
        self.tally
            .places_budget
            .record_question(payer, quota, now.time);
    }

    /// Returns the HTTP request for a call.
    fn request(&self, id: CallId) -> Vec<u8> {
        let places = &self.settings.places;
        match (self.calls.get(id), &places.key) {
            (Some(call), Some(key)) => call.question().request(places, key),
            (None, _) | (_, None) => {
                debug_assert!(false, "without a key there are no calls");
                Vec::new()
            }
        }
    }

    /// Tries the next address for a call. Earlier attempts continue.
    fn next_attempt(&mut self, id: CallId, now: Now) {
        let request = self.request(id);
        let limits = &self.settings.limits;
        let next_at = now.time + limits.places_attempt_ms.to_duration();
        let Some((address, has_more)) = self.calls.next_address(id, next_at) else {
            return;
        };
        if has_more {
            self.deadlines.call_at(next_at, Timer::Attempt(id));
        }
        let exchange = Exchange::new(id, address, request, limits, now.time);
        let connection = self.admit(None, |_| Session::Exchange(Box::new(exchange)));
        self.calls.attempt_begun(id, connection);
        self.requests.push_back(Request::Connect {
            id: connection,
            address,
        });
    }

    pub(super) fn attempt_due(&mut self, id: CallId, now: Now) {
        if self.calls.is_attempt_due(id, now.time) {
            self.next_attempt(id, now);
        }
    }

    /// Begins the handshake of an exchange whose socket is connected. Returns the TLS session, or
    /// `None` if the exchange was closed.
    pub(super) fn tls_of_exchange(
        &mut self,
        id: ConnId,
        now: Now,
    ) -> Result<Option<TlsSession>, TlsError> {
        let Some(exchange) = exchange(&mut self.sessions, id) else {
            return Ok(None);
        };
        if !exchange.begin_handshake(now.time) {
            return Ok(None);
        }
        // The next address is tried only if the handshake is not done after
        // `limits.places_attempt_ms`.
        let next_at = now.time + self.settings.limits.places_attempt_ms.to_duration();
        if let Some(call) = exchange.call()
            && self.calls.delay_attempt(call, next_at)
        {
            self.deadlines.call_at(next_at, Timer::Attempt(call));
        }
        let places = &self.settings.places;
        let tls = Tls::client(places.tls.clone(), &places.origin.host)?;
        Ok(Some(TlsSession::new(tls).without_timeout()))
    }

    /// Handles an effect of an exchange.
    pub(super) fn apply_exchange_effect(&mut self, id: ConnId, effect: Effect, now: Now) {
        match effect {
            Effect::HandshakeDone(call) => self.exchange_made(id, call, now),
            Effect::Answered {
                call,
                response,
                response_number,
            } => self.exchange_answered(id, call, &response, response_number, now),
            Effect::Failed {
                call,
                failure,
                since,
            } => {
                self.calls.remove_idle(id);
                self.mark_dirty(id);
                if failure.stage == FailureStage::Silent {
                    self.close_pooled(since);
                }
                self.call_failed(call, id, &failure, now);
            }
            Effect::Lost {
                call,
                failure,
                handshake_was_done,
            } => {
                if handshake_was_done {
                    self.calls.connection_closed();
                }
                self.calls.remove_idle(id);
                self.call_failed(call, id, &failure, now);
            }
        }
    }

    /// The handshake of an exchange is done, so the request of its call is sent on this exchange.
    /// Closes the other connections that are being made for the call.
    fn exchange_made(&mut self, id: ConnId, call: CallId, now: Now) {
        let others = self.calls.connection_established(call, id);
        if let Some(payer) = self.calls.get(call).and_then(Call::charged_origin) {
            self.count_question(payer, now);
        }
        if let Some(exchange) = exchange(&mut self.sessions, id) {
            let host = &self.settings.places.origin.host;
            self.resolver
                .mark_working(host, exchange.address().ip(), now.time);
        }
        for other in others {
            self.close_exchange(other, now);
        }
    }

    fn exchange_answered(
        &mut self,
        id: ConnId,
        call_id: CallId,
        response: &Response,
        response_number: u32,
        now: Now,
    ) {
        if exchange(&mut self.sessions, id).is_some_and(|exchange| exchange.is_idle()) {
            self.calls.add_idle(id);
        }
        if let Some(call) = self.calls.get(call_id) {
            info!(
                "{}: HTTP {}, {} bytes in {:.6} s over connection {}, its answer {response_number}",
                CallLabel(call_id, call.question()),
                response.status(),
                response.body().len(),
                now.time.since(call.since()).as_secs_f64(),
                id.serial(),
            );
        }
        let (answer, error) = check_response(response, self.settings.places.key.as_ref());
        if let (Some(error), Some(call)) = (error, self.calls.get(call_id)) {
            let end = error.floor_char_boundary(MAX_LOGGED_BYTES);
            let (shown, more) = (&error[..end], if end < error.len() { "…" } else { "" });
            warn!(
                "{}: Google Places reports an error: {}{more}",
                CallLabel(call_id, call.question()),
                Escaped(shown.as_bytes())
            );
        }
        self.finish_call(call_id, answer);
    }

    /// Handles the failure of a connection of `call`. Depending on the failure, tries another
    /// address, sends the request again on a new connection, or ends the call.
    fn call_failed(
        &mut self,
        call: Option<CallId>,
        connection: ConnId,
        failure: &Failure,
        now: Now,
    ) {
        let Failure { reason, stage } = failure;
        let Some(id) = call else {
            return debug!(
                "places connection {}: closed: {reason}",
                connection.serial()
            );
        };
        let Some(call) = self.calls.get(id) else {
            return;
        };
        if call.is_connecting() {
            return self.attempt_failed(id, connection, failure, now);
        }
        match stage {
            FailureStage::BrokenWhileIdle | FailureStage::Silent if !call.was_retried() => {
                debug!(
                    "{}: a kept connection had died ({reason}); asking once more",
                    CallLabel(id, call.question())
                );
                self.calls.retry(id);
            }
            FailureStage::TimedOut | FailureStage::Silent => {
                // `expire` answers the clients whose time is over. For the clients that joined
                // later, there is time for another attempt.
                self.expire(id, now);
                if let Some(call) = self.calls.get(id) {
                    info!(
                        "{}: {reason}; asking once more for the clients that joined late",
                        CallLabel(id, call.question())
                    );
                    self.calls.retry(id);
                }
            }
            FailureStage::Evicted => {
                let message =
                    "this server has no memory for the answer of Google Places; try again later";
                self.finish_call(id, Err(ErrorKind::Busy.error(message)));
            }
            FailureStage::BrokenWhileIdle
            | FailureStage::Sent
            | FailureStage::Unconnected
            | FailureStage::CertificateRefused => {
                let message = format!(
                    "Google Places gave no answer that can be used: {reason}; try again later"
                );
                self.finish_call(id, Err(ErrorKind::BadAnswer.error(message)));
            }
        }
    }

    /// Handles the failure of a connection that was being made for a call. Tries the next address
    /// at once. If no address remains, waits for the call's other attempts. If no attempt remains
    /// either, ends the call.
    fn attempt_failed(&mut self, id: CallId, connection: ConnId, failure: &Failure, now: Now) {
        let Failure { reason, stage } = failure;
        let Some(call) = self.calls.get(id) else {
            return;
        };
        let name = CallLabel(id, call.question()).to_string();
        let certificate_error = Some(reason).filter(|_| *stage == FailureStage::CertificateRefused);
        let (reason, advice) = match self.calls.attempt_failed(id, connection, certificate_error) {
            Remaining::Addresses => {
                debug!("{name}: {reason}; trying the next address");
                return self.next_attempt(id, now);
            }
            Remaining::Connections => {
                return debug!("{name}: {reason}; waiting for other addresses");
            }
            Remaining::Nothing {
                certificate_error: Some(certificate_error),
            } => (
                certificate_error,
                "its operator has to look at the certificate authority that it trusts (--places-ca)",
            ),
            Remaining::Nothing {
                certificate_error: None,
            } => (reason.clone(), "try again later"),
        };
        self.resolver
            .mark_unreachable(&self.settings.places.origin.host, now.time);
        let message = format!("Google Places cannot be reached: {reason}; {advice}");
        self.finish_call(id, Err(ErrorKind::Unavailable.error(message)));
    }

    /// Handles [`Timer::Call`]: the earliest deadline of the call's clients may have been reached.
    pub(super) fn call_due(&mut self, id: CallId, now: Now) {
        self.expire(id, now);
        let left = self.calls.get(id).and_then(|call| call.waiters().first());
        if let Some(until) = left.map(|asker| asker.deadline) {
            self.deadlines.call_at(until, Timer::Call(id));
        }
    }

    /// Answers the clients of a call that have reached their own deadline. If no other client waits
    /// for the call, ends the call.
    fn expire(&mut self, id: CallId, now: Now) {
        let Some(call) = self.calls.get(id) else {
            return;
        };
        let error = match call.is_waiting() && self.next_question_at.is_some() {
            true => {
                self.tally.counters.places_over_second += 1;
                let max = self.settings.places.quota.per_second;
                ErrorKind::OverQuota.error(OverQuota::Second { max }.to_string())
            }
            false => {
                let waited = self.settings.limits.places_ms.to_duration().as_secs_f32();
                ErrorKind::TimedOut.error(format!(
                    "Google Places did not answer within {waited} s; try again later"
                ))
            }
        };
        if call.is_due(now.time) {
            let connections = call.connections().to_vec();
            for connection in connections {
                self.close_exchange(connection, now);
            }
            return self.finish_call(id, Err(error));
        }
        let due = self.calls.take_due(id, now.time);
        if !due.is_empty() {
            let may_log = self.may_log_failure();
            if let Some(call) = self.calls.get(id).filter(|_| may_log) {
                info!(
                    "{}: {error}; {} clients that joined later wait on",
                    CallLabel(id, call.question()),
                    call.waiters().len()
                );
            }
            let outcome = Outcome::new(self.settings.places.api, Err(error));
            self.queue_answer(due, outcome);
        }
    }

    /// Removes a lost client from its call. If no other client waits for the call, cancels the
    /// call, as with asyncio's `Task.cancel`.
    pub(super) fn asker_lost(&mut self, call: CallId, asker: ConnId, now: Now) {
        if let Some(abandoned) = self.calls.leave(call, asker) {
            if self.may_log_failure() {
                info!(
                    "{}: given up, no client waits for it any more",
                    CallLabel(call, abandoned.question())
                );
            }
            for &connection in abandoned.connections() {
                self.close_exchange(connection, now);
            }
        }
    }

    /// Whether a line about a failed call may be logged. Clients can cause any number of failed
    /// calls, so the number of lines is limited.
    fn may_log_failure(&mut self) -> bool {
        let (budget, limits) = (&mut self.tally.log_budget, &self.settings.limits);
        budget.admit_places_failure(FAILED_CALL, limits, self.now.time)
    }

    fn close_exchange(&mut self, connection: ConnId, now: Now) {
        let limits = &self.settings.limits;
        let Some(exchange) = exchange(&mut self.sessions, connection) else {
            return;
        };
        let (is_suspect, since) = (exchange.is_suspect(limits, now.time), exchange.since());
        exchange.close();
        self.mark_dirty(connection);
        if is_suspect {
            self.close_pooled(since);
        }
    }

    /// Closes the idle connections in the pool that have been idle since the time `since` or an
    /// earlier time. If a NAT or a proxy forgot one connection of that age, it has most likely
    /// forgotten the others too. Each of these connections would make one call fail.
    fn close_pooled(&mut self, since: Time) {
        let sessions = &mut self.sessions;
        let closed = self.calls.take_expired(|id| {
            let Some(exchange) = exchange(sessions, id) else {
                return true;
            };
            let is_old = exchange.since() <= since;
            if is_old {
                exchange.close();
            }
            is_old
        });
        if !closed.is_empty() {
            debug!(
                "{} more kept connections to Places of that age are closed",
                closed.len()
            );
        }
        closed.into_iter().for_each(|id| self.mark_dirty(id));
    }

    fn finish_call(&mut self, id: CallId, answer: Result<Reply, PlacesError>) {
        if let Some(call) = self.calls.remove(id) {
            self.complete_call(id, &call, answer);
        }
    }

    /// Counts a call that is over, logs a failure, and queues the answer for the clients of the
    /// call.
    fn complete_call(&mut self, id: CallId, call: &Call, answer: Result<Reply, PlacesError>) {
        if let Err(reason) = &answer
            && self.may_log_failure()
        {
            warn!("{}: {reason}", CallLabel(id, call.question()));
        }
        let nanos = self.now.time.since(call.since()).as_nanos() as u64;
        self.tally.places_times.add(nanos);
        let counters = &mut self.tally.counters;
        match &answer {
            Ok(Reply::Data(_)) => counters.places_data += 1,
            Ok(Reply::Error(_)) => counters.places_errors += 1,
            Err(_) => counters.places_failed += 1,
        }
        let askers = call.waiters().iter().map(|asker| asker.id).collect();
        let outcome = Outcome::new(self.settings.places.api, answer);
        self.queue_answer(askers, outcome);
    }

    fn queue_answer(&mut self, askers: Vec<ConnId>, outcome: Outcome) {
        self.tally.buffers.add_answer(outcome.held_bytes());
        self.answers.push_back((askers, outcome));
    }

    /// Ends all calls with an error, because the server is stopping.
    pub(super) fn cancel_calls(&mut self, now: Now) {
        for id in self.calls.ids() {
            let connections = self.calls.get(id).map(|call| call.connections().to_vec());
            for connection in connections.unwrap_or_default() {
                self.close_exchange(connection, now);
            }
            let error = ErrorKind::Unavailable.error("this server is stopping; ask another one");
            self.finish_call(id, Err(error));
        }
    }
}

/// Returns the exchange of connection `id`, if that connection is an exchange.
fn exchange(sessions: &mut Slots<Slot>, id: ConnId) -> Option<&mut Exchange> {
    sessions.get_mut(id)?.session.exchange_mut()
}

/// Checks a response. With status 200, the body must be a JSON object. With any other status, the
/// body is passed on only if it is an error of Google. The key for Places is removed from the body,
/// because an error can repeat the key. The second value is Google's error message, for the log.
fn check_response(
    response: &Response,
    key: Option<&Secret>,
) -> (Result<Reply, PlacesError>, Option<String>) {
    let status = response.status();
    let text = std::str::from_utf8(response.body()).unwrap_or_default();
    let text = match key.filter(|key| key.expose().len() >= MIN_KEY_BYTES) {
        Some(key) => without_key(text, key),
        None => text.into(),
    };
    let error = match text.len() {
        0..=MAX_ERROR_BYTES => google_error(&text),
        _ => None,
    };
    let bad = |what: String| {
        let message = format!("Google Places answered with {what}; try again later");
        Err(ErrorKind::BadAnswer.error(message))
    };
    let answer = match status {
        200 if is_json_object(&text) => Ok(Reply::Data(text.into_owned())),
        200 => bad("something that is not JSON".to_owned()),
        _ if error.is_some() => Ok(Reply::Error(text.into_owned())),
        _ => bad(format!("HTTP status {status}")),
    };
    (answer, error)
}

/// The name of a call in the log.
struct CallLabel<'a>(CallId, &'a Question);

impl std::fmt::Display for CallLabel<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let CallLabel(id, question) = self;
        let Question {
            latitude,
            longitude,
            radius,
            ..
        } = question;
        write!(
            f,
            "places call {} {latitude},{longitude} within {} m",
            id.serial(),
            radius.metres()
        )
    }
}
