//! What a [`Node`] does to have Google Places asked: calls to connections, connections to answers, answers to clients.

use log::{debug, info, warn};

use super::{ConnId, Node, Request, Session, Timer};
use crate::core::clock::Now;
use crate::core::limits::ms;
use crate::core::names::Resolution;
use crate::core::places::answer::{self, Outcome};
use crate::core::places::call::{Call, CallId, Place};
use crate::core::places::exchange::{Exchange, Failure, Progress, Stage};
use crate::core::places::request::{Question, repeats};
use crate::core::places::response::Response;
use crate::core::settings::Secret;

/// Clients that one event may answer; the others are answered in the next turn, so that a crowd that waits for the same
/// answer does not hold up everybody else.
const ANSWERS_AT_ONCE: usize = 64;

/// A shorter key would be found in many an innocent answer; Google's have 39 characters.
const LEAST_KEY_BYTES: usize = 8;

impl Node {
    /// Asks Places for a client; the answer comes by `client_answered`, never from within this call.
    pub(super) fn ask(
        &mut self,
        question: &Question,
        asker: ConnId,
        now: Now,
    ) -> Result<CallId, String> {
        if self.settings.places.key.is_none() {
            return Err("this server has no key for Google Places; its operator can give it one (HERD_PLACES_KEY)".to_owned());
        }
        let (call, is_new) = self.calls.ask(question.clone(), asker, now.time)?;
        if is_new {
            self.deadlines.call_at(
                now.time + ms(self.settings.limits.places_ms),
                Timer::Call(call),
            );
        }
        Ok(call)
    }

    /// Gives waiting calls connections, and answers to those who wait for them, until there is nothing more to do. Every event
    /// ends with this, so an answer is never delivered while its client is still at work (and nothing here recurses).
    pub(super) fn work_off_questions(&mut self, now: Now) {
        let mut delivered = 0;
        loop {
            self.carry_calls(now);
            // Each answer that a socket takes is an event, too (test: `a_crowd_that_waits_for_one_answer_is_given_it_over_several_turns`).
            if self.answers_wait {
                return;
            }
            let Some((mut askers, mut outcome)) = self.answers.pop_front() else {
                return;
            };
            while let Some(asker) = askers.pop() {
                self.client_answered(asker, &mut outcome, now);
                delivered += 1;
                if delivered == ANSWERS_AT_ONCE {
                    self.answers.push_front((askers, outcome));
                    self.answers_wait = true;
                    return self.deadlines.call_at(now.time, Timer::Answers);
                }
            }
        }
    }

    fn carry_calls(&mut self, now: Now) {
        while let Some(id) = self.calls.first_waiting() {
            if !self.carry(id, now) {
                return;
            }
        }
    }

    /// Gives the first waiting call a connection, or ends it; `false` if it has to wait on.
    fn carry(&mut self, id: CallId, now: Now) -> bool {
        let (places, limits) = (&self.settings.places, &self.settings.limits);
        let (Some(call), Some(key)) = (self.calls.get_mut(id), &places.key) else {
            return false; // the waiting line holds only calls that are out, and without a key there are none
        };
        let wants_new = call.retried;
        let request = |call: &Call| call.question.request(places, key);
        if !wants_new && !self.calls.idle.is_empty() {
            let request = self.calls.get(id).map(request).unwrap_or_default();
            let Some(connection) = self.calls.idle.pop() else {
                return false;
            };
            if let Some(Session::Exchange(exchange)) = self
                .sessions
                .get_mut(connection)
                .map(|slot| &mut slot.session)
            {
                self.calls.carried(id, connection);
                if let Err(failure) = exchange.start(id, request, limits, now.time) {
                    self.exchange_failed(connection, &failure);
                }
                self.touch(connection);
            }
            return true;
        }
        if !self.calls.may_connect() {
            return false;
        }
        let request = self.calls.get(id).map(request).unwrap_or_default();
        let addresses = self
            .calls
            .get_mut(id)
            .and_then(|call| call.addresses.take());
        let origin = places.origin.clone();
        let mut addresses = match addresses {
            Some(addresses) => addresses,
            None => match self.resolve(&origin, now) {
                Resolution::Known(addresses) => addresses.into(),
                Resolution::Pending => return false,
                Resolution::Failed(reason) => {
                    self.finish_call(id, Err(format!("the address of Google Places can not be found: {reason}; try again later")));
                    return true;
                }
            },
        };
        let Some(address) = addresses.pop_front() else {
            self.finish_call(
                id,
                Err("Google Places can not be reached; try again later".to_owned()),
            );
            return true;
        };
        if let Some(call) = self.calls.get_mut(id) {
            call.addresses = Some(addresses);
        }
        let exchange = Exchange::new(id, request, &self.settings.limits, now.time);
        let connection = self.admit(None, |_| Session::Exchange(Box::new(exchange)));
        self.calls.connections += 1;
        self.calls.carried(id, connection);
        self.requests.push_back(Request::Connect {
            id: connection,
            address,
        });
        true
    }

    pub(super) fn exchange_connected(&mut self, id: ConnId, now: Now) {
        let (config, host) = (
            self.settings.places.tls.clone(),
            self.settings.places.origin.host.clone(),
        );
        if let Some(Session::Exchange(exchange)) = self.session(id)
            && let Err(failure) = exchange.connection_made(config, &host, now.time)
        {
            self.exchange_failed(id, &failure);
        }
    }

    pub(super) fn exchange_sent(&mut self, id: ConnId, data: &[u8], now: Now) {
        if let Some(Session::Exchange(exchange)) =
            self.sessions.get_mut(id).map(|slot| &mut slot.session)
        {
            let progress = exchange.data_received(data, &mut self.plaintext, now.time);
            self.exchange_got(id, progress, now);
        }
    }

    pub(super) fn exchange_ended(&mut self, id: ConnId, now: Now) {
        if let Some(Session::Exchange(exchange)) = self.session(id) {
            let progress = exchange.eof_received();
            self.exchange_got(id, progress, now);
        }
    }

    fn exchange_got(&mut self, id: ConnId, progress: Result<Progress, Failure>, now: Now) {
        match progress {
            Ok(Progress::Waiting) => {}
            Ok(Progress::Answered) => self.exchange_answered(id, now),
            Err(failure) => self.exchange_failed(id, &failure),
        }
    }

    fn exchange_answered(&mut self, id: ConnId, now: Now) {
        let Some(Session::Exchange(exchange)) =
            self.sessions.get_mut(id).map(|slot| &mut slot.session)
        else {
            return;
        };
        let (call, served) = (exchange.call, exchange.served());
        let response = exchange.finish(&self.settings.limits, now.time);
        if exchange.is_idle() {
            self.calls.idle.push(id);
        }
        let Some(call_id) = call else {
            return;
        };
        if let Some(call) = self.calls.get(call_id) {
            info!(
                "{}: HTTP {}, {} bytes in {:.6} s over connection {}, its answer {}",
                Named(call_id, &call.question),
                response.status(),
                response.body().len(),
                now.time.since(call.since).as_secs_f64(),
                id.serial(),
                served + 1,
            );
        }
        let answer = judge(&response, self.settings.places.key.as_ref());
        self.finish_call(call_id, answer);
    }

    pub(super) fn exchange_failed(&mut self, id: ConnId, failure: &Failure) {
        let Some(Session::Exchange(exchange)) = self.session(id) else {
            return;
        };
        let call = exchange.call.take();
        exchange.close();
        self.calls.idle.retain(|&idle| idle != id);
        self.touch(id);
        self.call_failed(call, id, failure);
    }

    pub(super) fn exchange_lost(&mut self, id: ConnId, mut exchange: Exchange, why: Option<&str>) {
        self.calls.connections -= 1;
        self.calls.idle.retain(|&idle| idle != id);
        let failure = exchange.failure(why.unwrap_or("it closed the connection").to_owned());
        let call = exchange.call.take();
        self.call_failed(call, id, &failure);
    }

    /// The connection that carried `call` is of no more use: another address, once more, or the end of the call.
    fn call_failed(&mut self, call: Option<CallId>, connection: ConnId, failure: &Failure) {
        let Failure { reason, stage } = failure;
        let Some(id) = call else {
            return debug!(
                "places connection {}: closed: {reason}",
                connection.serial()
            );
        };
        let Some(call) = self.calls.get_mut(id) else {
            return;
        };
        let another_address = call
            .addresses
            .as_ref()
            .is_some_and(|addresses| !addresses.is_empty());
        match stage {
            Stage::Unconnected | Stage::Mistrusted if another_address => {
                debug!(
                    "{}: {reason}; trying the next address",
                    Named(id, &call.question)
                );
                self.calls.wait_again(id);
            }
            Stage::DiedIdle if !call.retried => {
                debug!(
                    "{}: a kept connection had died ({reason}); asking once more",
                    Named(id, &call.question)
                );
                call.retried = true;
                call.addresses = None;
                self.calls.wait_again(id);
            }
            Stage::Mistrusted => {
                let advice = "its operator has to look at the certificate authority that it trusts (--places-ca)";
                self.finish_call(
                    id,
                    Err(format!(
                        "Google Places can not be reached: {reason}; {advice}"
                    )),
                );
            }
            Stage::Unconnected => {
                self.finish_call(
                    id,
                    Err(format!(
                        "Google Places can not be reached: {reason}; try again later"
                    )),
                );
            }
            Stage::DiedIdle | Stage::Sent => {
                self.finish_call(
                    id,
                    Err(format!(
                        "Google Places gave no answer that can be used: {reason}; try again later"
                    )),
                );
            }
        }
    }

    pub(super) fn call_due(&mut self, id: CallId, now: Now) {
        let Some(call) = self.calls.get(id) else {
            return;
        };
        let waited = now.time.since(call.since).as_secs_f32();
        if let Place::On(connection) = call.place {
            self.close_exchange(connection);
        }
        self.finish_call(
            id,
            Err(format!(
                "Google Places did not answer within {waited:.0} s; try again later"
            )),
        );
    }

    /// A client that waited for an answer is gone: asyncio's `Task.cancel`. If it was the only one, so is the question.
    pub(super) fn asker_lost(&mut self, call: CallId, asker: ConnId) {
        if let Some(abandoned) = self.calls.leave(call, asker) {
            info!(
                "{}: given up, nobody waits for it any more",
                Named(call, &abandoned.question)
            );
            if let Place::On(connection) = abandoned.place {
                self.close_exchange(connection);
            }
        }
    }

    fn close_exchange(&mut self, connection: ConnId) {
        if let Some(Session::Exchange(exchange)) = self.session(connection) {
            exchange.call = None;
            exchange.close();
            self.touch(connection);
        }
    }

    fn finish_call(&mut self, id: CallId, answer: Result<String, String>) {
        let Some(call) = self.calls.remove(id) else {
            return;
        };
        if let Err(reason) = &answer {
            warn!("{}: {reason}", Named(id, &call.question));
        }
        let outcome = Outcome::new(self.settings.places.api, answer);
        self.answers.push_back((call.askers, outcome));
    }

    /// The server stops, and can not wait for Places any longer.
    pub(super) fn give_up_calls(&mut self) {
        for id in self.calls.ids() {
            if let Some(Place::On(connection)) = self.calls.get(id).map(|call| call.place) {
                self.close_exchange(connection);
            }
            self.finish_call(
                id,
                Err("this server is stopping; ask another one".to_owned()),
            );
        }
    }
}

/// Whether a response is an answer: what Google says with 200, and what it says in JSON of an error. Nothing that repeats the key,
/// as something between Google and us might in an error page, is one.
fn judge(response: &Response, key: Option<&Secret>) -> Result<String, String> {
    let status = response.status();
    let tells_key = |key: &Secret| repeats(response.body(), key);
    if key
        .filter(|key| key.expose().len() >= LEAST_KEY_BYTES)
        .is_some_and(tells_key)
    {
        return Err(format!(
            "Google Places answered with HTTP status {status}, and something that may not be shown"
        ));
    }
    let text = std::str::from_utf8(response.body())
        .ok()
        .filter(|text| answer::is_json_object(text));
    match (status, text) {
        (200 | 400..=599, Some(text)) => Ok(text.to_owned()),
        (200, None) => Err(
            "Google Places answered with something that is not JSON; try again later".to_owned(),
        ),
        _ => Err(format!(
            "Google Places answered with HTTP status {status}; try again later"
        )),
    }
}

/// A call's name in the log.
struct Named<'a>(CallId, &'a Question);

impl std::fmt::Display for Named<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Named(id, question) = self;
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
