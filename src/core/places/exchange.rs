//! One HTTPS connection to Places: an explicit state for each place where the asyncio version would
//! `await`.
//!
//! ```text
//!   Connecting  ─ Connected ─► Handshaking
//!   Handshaking ─ Asked ─────► Exchanging
//!   Exchanging  ─ Answered ──► Idle
//!   Idle        ─ Asked ─────► Exchanging
//!   Connecting  ─ Closed ────► Closing
//!   Handshaking ─ Closed ────► Closing
//!   Exchanging  ─ Closed ────► Closing
//!   Idle        ─ Closed ────► Closing
//!   Closing     ─ Closed ────► Closing
//! ```
//!
//! TLS is below it, as it is below every session; the exchange sees its beginning and its end. The
//! request, and with it the key, is not in the output before the handshake has proven where it
//! goes. Several connections may be made for one question at once; the one whose handshake is done
//! first is [made](Exchange::is_made), and carries it.
//!
//! A kept connection may be dead without a word: a NAT or a proxy forgot it. So on one that was
//! kept, silence counts sooner.

use std::net::SocketAddr;
use std::time::Duration;

use crate::core::base::clock::Time;
use crate::core::base::invariants::hold;
use crate::core::base::limits::{Limits, ms};
use crate::core::base::transitions::assert_transition;
use crate::core::places::call::CallId;
use crate::core::places::response::Response;
use crate::core::session::buffer::Buffer;
use crate::core::session::context::Context;
use crate::core::session::disposition::Disposition;
use crate::core::session::handshakes::Kind;
use crate::core::session::protocol::{Protocol, StreamEnd};
use crate::core::session::tls::{TlsError, TlsSession};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// The socket is not connected yet.
    Connecting,
    /// TLS is finding out who is there.
    Handshaking,
    /// A request is out, and its answer not complete.
    Exchanging,
    /// Kept for the next question.
    Idle,
    /// Nothing more is expected of it.
    Closing,
}

/// What changes an exchange's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cause {
    /// The socket is connected.
    Connected,
    /// The request is on its way.
    Asked,
    /// The answer is whole, and the connection may be used again.
    Answered,
    /// It failed, it is not used for too long, or no client waits for it.
    Closed,
}

const TRANSITIONS: [(State, Cause, State); 9] = [
    (State::Connecting, Cause::Connected, State::Handshaking),
    (State::Handshaking, Cause::Asked, State::Exchanging),
    (State::Exchanging, Cause::Answered, State::Idle),
    (State::Idle, Cause::Asked, State::Exchanging),
    (State::Connecting, Cause::Closed, State::Closing),
    (State::Handshaking, Cause::Closed, State::Closing),
    (State::Exchanging, Cause::Closed, State::Closing),
    (State::Idle, Cause::Closed, State::Closing),
    (State::Closing, Cause::Closed, State::Closing),
];

/// What an event of an exchange has for an effect outside.
pub enum Effect {
    /// The handshake is done: it carries the call, and no other connection is needed for that.
    Made(CallId),
    /// The response is whole. The exchange is [idle](Exchange::is_idle) if it may be used again.
    Answered {
        /// Whose question it was.
        call: CallId,
        /// The response.
        response: Box<Response>,
        /// Its place among the responses that came over this connection, from 1.
        place: u32,
    },
    /// The exchange cannot go on, and closes.
    Failed {
        /// Whose question it carried, if it carried one.
        call: Option<CallId>,
        /// Why.
        failure: Failure,
        /// Since when nothing was heard.
        since: Time,
    },
    /// The connection is gone.
    Lost {
        /// Whose question it carried, if it carried one.
        call: Option<CallId>,
        /// Why.
        failure: Failure,
        /// Its handshake was done.
        was_made: bool,
    },
}

/// Why an exchange failed, and whether asking again may help.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// In words: "Places" is its subject.
    pub reason: String,
    /// What stage it was in.
    pub stage: Stage,
}

/// How far an exchange had got when it failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Before any request was sent: another address may do better.
    Unconnected,
    /// The same, because its certificate was refused: waiting does not help.
    Mistrusted,
    /// On a connection kept from before, with not a byte of the answer seen: it had died idle.
    DiedIdle,
    /// The same, but it has not even said so: others that were kept as long may be dead too.
    Silent,
    /// After the request was sent, and no answer came in time.
    Overdue,
    /// After the request was sent.
    Sent,
}

/// The connection.
pub struct Exchange {
    /// Whose question it carries.
    call: Option<CallId>,
    state: State,
    since: Time,
    /// The request, until the connection is made.
    request: Vec<u8>,
    response: Response,
    output: Buffer,
    /// Answers that came over it.
    served: u32,
    /// Whether a byte of the present answer has come.
    heard: bool,
    address: SocketAddr,
    /// Its handshake is done.
    is_made: bool,
}

impl Exchange {
    /// A connection about to be made to `address`, to carry `request` for `call`.
    #[must_use]
    pub fn new(
        call: CallId,
        address: SocketAddr,
        request: Vec<u8>,
        limits: &Limits,
        now: Time,
    ) -> Exchange {
        Exchange {
            call: Some(call),
            state: State::Connecting,
            since: now,
            request,
            response: Response::new(limits),
            output: Buffer::default(),
            served: 0,
            heard: false,
            address,
            is_made: false,
        }
    }

    /// Whose question it carries.
    #[must_use]
    pub fn call(&self) -> Option<CallId> {
        self.call
    }

    /// Where it leads.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Whether its handshake was done: a request goes, or went, over it.
    #[must_use]
    pub fn is_made(&self) -> bool {
        self.is_made
    }

    /// When it entered its state: as it was connected, was asked, or was answered last.
    #[must_use]
    pub fn since(&self) -> Time {
        self.since
    }

    /// The socket is connected, and TLS begins. Returns whether it does: the connection may have
    /// been given up in the same moment.
    pub fn handshake_begun(&mut self, now: Time) -> bool {
        let is_wanted = self.state == State::Connecting;
        if is_wanted {
            self.enter(Cause::Connected, State::Handshaking, now);
        }
        is_wanted
    }

    /// Gives an idle connection its next question.
    pub fn start(&mut self, call: CallId, request: Vec<u8>, limits: &Limits, now: Time) {
        self.call = Some(call);
        self.request = request;
        self.response = Response::new(limits);
        self.heard = false;
        self.send_request(now);
    }

    fn send_request(&mut self, now: Time) {
        self.output.extend(&std::mem::take(&mut self.request));
        self.enter(Cause::Asked, State::Exchanging, now);
    }

    /// What ALPN said, where that may be why a new connection is of no use.
    fn alpn(&self, context: &Context<'_>) -> &'static str {
        let has_agreed = context.tls.is_some_and(TlsSession::has_agreed);
        match self.served == 0 && !has_agreed {
            true => {
                "; by ALPN it chose no protocol, where HTTP/1.1 was offered: it may speak only HTTP/2"
            }
            false => "",
        }
    }

    /// If the response is whole, the connection goes idle, or closes if it may not be used again.
    fn progress(&mut self, context: &Context<'_>) -> Option<Effect> {
        if self.state != State::Exchanging || !self.response.is_done() {
            return None;
        }
        let limits = &context.settings.limits;
        let response = std::mem::replace(&mut self.response, Response::new(limits));
        self.served += 1;
        let call = self.call.take();
        if response.keep_alive() {
            self.enter(Cause::Answered, State::Idle, context.now.time);
        } else {
            self.close();
        }
        debug_assert!(call.is_some(), "a question is a call's");
        Some(Effect::Answered {
            call: call?,
            response: Box::new(response),
            place: self.served,
        })
    }

    /// It closes, for this reason.
    fn fail(&mut self, failure: Failure) -> Option<Effect> {
        let (call, since) = (self.call, self.since);
        self.close();
        Some(Effect::Failed {
            call,
            failure,
            since,
        })
    }

    fn fail_for(&mut self, reason: impl Into<String>) -> Option<Effect> {
        let failure = self.failure(reason.into());
        self.fail(failure)
    }

    /// Whether it waits for a question.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.state == State::Idle
    }

    /// Whether nothing more is expected of it.
    #[must_use]
    pub fn is_closing(&self) -> bool {
        self.state == State::Closing
    }

    /// What went wrong, seen from where the exchange is.
    fn failure(&self, reason: String) -> Failure {
        let stage = match self.state {
            State::Connecting | State::Handshaking => Stage::Unconnected,
            State::Idle | State::Exchanging if self.is_unheard() => Stage::DiedIdle,
            State::Idle | State::Exchanging | State::Closing => Stage::Sent,
        };
        Failure { reason, stage }
    }

    /// Whether it was kept from before, and has said nothing since.
    fn is_unheard(&self) -> bool {
        self.served > 0 && !self.heard
    }

    /// Whether it was kept from before, and has not answered for so long that others which were
    /// kept as long may be dead too.
    #[must_use]
    pub fn is_suspect(&self, limits: &Limits, now: Time) -> bool {
        let is_silent = self.state == State::Exchanging && self.is_unheard();
        is_silent && now.since(self.since) >= silence(limits) / SUSPECT_AFTER
    }

    /// It is given up, or has failed. What waits is not sent any more.
    pub fn close(&mut self) {
        self.call = None;
        self.output.clear();
        self.change(Cause::Closed, State::Closing);
    }

    fn patience(&self, limits: &Limits) -> Option<Duration> {
        match self.state {
            State::Connecting => Some(ms(limits.places_connect_ms)),
            State::Handshaking => Some(ms(limits.places_handshake_ms)),
            State::Idle => Some(ms(limits.places_idle_ms)),
            State::Exchanging if self.is_unheard() => Some(silence(limits)),
            State::Exchanging => Some(ms(limits.places_ms)),
            State::Closing => None,
        }
    }

    fn enter(&mut self, cause: Cause, state: State, now: Time) {
        self.change(cause, state);
        self.since = now;
    }

    /// The one place where its state changes.
    fn change(&mut self, cause: Cause, state: State) {
        assert_transition(&TRANSITIONS, (self.state, cause, state));
        self.state = state;
    }
}

impl Protocol for Exchange {
    type Effect = Effect;

    /// The request goes out.
    fn connection_made(&mut self, context: &mut Context<'_>) -> Option<Effect> {
        if self.state != State::Handshaking {
            return None; // it was given up in the same moment
        }
        self.is_made = true;
        self.send_request(context.now.time);
        self.call.map(Effect::Made)
    }

    fn data_received(&mut self, data: &[u8], context: &mut Context<'_>) -> Option<Effect> {
        match self.state {
            State::Exchanging => {
                let is_beginning = !std::mem::replace(&mut self.heard, true);
                if is_beginning && is_http_2(data) {
                    let alpn = self.alpn(context);
                    return self.fail_for(format!("its answer was not HTTP/1.1 but HTTP/2{alpn}"));
                }
                match self.response.data_received(data) {
                    Ok(()) => self.progress(context),
                    Err(error) => self.fail_for(error.to_string()),
                }
            }
            State::Idle => self.fail_for("it answered without having been asked"),
            State::Connecting | State::Handshaking | State::Closing => None,
        }
    }

    /// Where the length of the answer was not told, a stream that was cut off has none.
    fn eof_received(&mut self, end: StreamEnd, context: &mut Context<'_>) -> Option<Effect> {
        match self.state {
            State::Exchanging => match self.response.eof_received(end == StreamEnd::Whole) {
                Ok(()) => self.progress(context),
                Err(error) if self.heard => self.fail_for(error.to_string()),
                Err(_) => {
                    let alpn = self.alpn(context);
                    self.fail_for(format!("it closed the connection{alpn}"))
                }
            },
            State::Connecting | State::Handshaking | State::Idle => {
                self.fail_for("it closed the connection")
            }
            State::Closing => None,
        }
    }

    fn tls_failed(&mut self, error: &TlsError, _: &mut Context<'_>) -> Option<Effect> {
        let is_cut_off = self.state == State::Handshaking && error.kind == Kind::CutOff;
        let mut failure = self.failure(match is_cut_off {
            true => "it closed the connection in the TLS handshake".to_owned(),
            false => error.reason.clone(),
        });
        if error.mistrust.is_some() {
            failure.stage = Stage::Mistrusted;
        }
        self.fail(failure)
    }

    fn connection_lost(&mut self, why: Option<&str>, _: &mut Context<'_>) -> Option<Effect> {
        Some(Effect::Lost {
            call: self.call.take(),
            failure: self.failure(why.unwrap_or("it closed the connection").to_owned()),
            was_made: self.is_made,
        })
    }

    fn go_on(&mut self, _: &mut Context<'_>) -> Option<Effect> {
        None
    }

    fn deadline_reached(&mut self, context: &mut Context<'_>) -> Option<Effect> {
        let limits = &context.settings.limits;
        if self
            .deadline(limits)
            .is_none_or(|due| due > context.now.time)
        {
            return None;
        }
        let patience = self.patience(limits).unwrap_or_default().as_secs_f32();
        let reason = match self.state {
            State::Connecting => format!("no connection within {patience} s"),
            State::Handshaking => format!("no TLS handshake within {patience} s"),
            State::Exchanging => format!("no answer within {patience} s"),
            State::Idle | State::Closing => format!("unused for {patience} s"),
        };
        let mut failure = self.failure(reason);
        if self.state == State::Exchanging {
            failure.stage = match self.is_unheard() {
                true => Stage::Silent,
                false => Stage::Overdue,
            };
        }
        self.fail(failure)
    }

    /// A question that is out is waited for: see [`Exchange::flushed`].
    fn stop(&mut self, _: &mut Context<'_>) {}

    fn output(&mut self, _: &mut Context<'_>) -> &[u8] {
        self.output.as_slice()
    }

    fn output_sent(&mut self, count: usize, _: &mut Context<'_>) -> Option<Effect> {
        self.output.consume(count);
        None
    }

    fn flushed(&mut self, context: &mut Context<'_>) {
        if context.is_stopping && self.is_idle() {
            self.close();
        }
    }

    fn disposition(&self) -> Disposition {
        match self.state {
            State::Closing => Disposition::Close,
            State::Connecting | State::Handshaking | State::Exchanging | State::Idle => {
                Disposition::Open
            }
        }
    }

    fn wants_read(&self) -> bool {
        true
    }

    fn wants_room(&self) -> bool {
        false
    }

    fn held_until(&self) -> u64 {
        0
    }

    /// The clients' own deadlines are their call's.
    fn deadline(&self, limits: &Limits) -> Option<Time> {
        self.patience(limits).map(|patience| self.since + patience)
    }

    fn state_name(&self) -> &'static str {
        match self.state {
            State::Connecting => "connecting",
            State::Handshaking => "handshaking",
            State::Exchanging => "exchanging",
            State::Idle => "idle",
            State::Closing => "closing",
        }
    }

    fn check_invariants(&self) -> Result<(), String> {
        let has_call = match self.state {
            State::Connecting | State::Handshaking | State::Exchanging => true,
            State::Idle | State::Closing => false,
        };
        let state = self.state_name();
        hold!(
            self.call.is_some() == has_call,
            "an exchange that is {state} has a call, or lacks one"
        );
        let is_made = matches!(self.state, State::Exchanging | State::Idle);
        hold!(
            self.is_made || !is_made,
            "an exchange that is {state} was never made"
        );
        hold!(
            self.output.is_empty() || self.is_made,
            "an exchange that was not made, and is {state}, has output"
        );
        Ok(())
    }
}

/// How long a kept connection may say nothing to a question. A new one has to have time for an
/// answer too.
fn silence(limits: &Limits) -> Duration {
    ms(limits.places_silence_ms.min(limits.places_ms / 2))
}

/// A connection that is given up after this part of the silence that is allowed casts doubt on the
/// others.
const SUSPECT_AFTER: u32 = 4;

/// Whether an answer begins with a SETTINGS frame, as each of HTTP/2 does (RFC 9113, section 3.4):
/// three bytes of length, the type 4, no flag but ACK, the stream 0.
fn is_http_2(bytes: &[u8]) -> bool {
    matches!(bytes, [0, _, _, 4, 0 | 1, 0, 0, 0, 0, ..])
}

#[cfg(test)]
mod tests {
    use super::TRANSITIONS;
    use crate::core::base::transitions::assert_drawn;

    #[test]
    fn the_page_shows_the_transitions() {
        assert_drawn(include_str!("exchange.rs"), &TRANSITIONS);
    }
}
