//! An exchange: the session of an HTTPS connection to Places. The session has an explicit state for
//! each `await` of the asyncio version.
//!
//! ```text
//!   Connecting  ─ Connected ───► Handshaking
//!   Handshaking ─ RequestSent ─► Exchanging
//!   Exchanging  ─ Answered ────► Idle
//!   Idle        ─ RequestSent ─► Exchanging
//!   Connecting  ─ Closed ──────► Closing
//!   Handshaking ─ Closed ──────► Closing
//!   Exchanging  ─ Closed ──────► Closing
//!   Idle        ─ Closed ──────► Closing
//!   Closing     ─ Closed ──────► Closing
//! ```
//!
//! The exchange handles only plaintext: TLS is a layer below. The request contains the key of the
//! Places API. So the request is put into the output only after the handshake has proven that the
//! other side is Places.
//!
//! A *call* is one question to Places, with all clients that asked it. Several connections can be
//! made for one call at the same time. The first connection whose TLS handshake is done carries the
//! question of the call.
//!
//! A NAT or a proxy can forget an idle connection without closing it. Then a question on that
//! connection gets no answer. So a question on a reused connection waits for a shorter time
//! (`places_silence_ms`) than a question on a new connection (`places_ms`).

use std::net::SocketAddr;
use std::time::Duration;

use crate::core::base::clock::Time;
use crate::core::base::invariants::ensure;
use crate::core::base::limits::{LimitValue, Limits};
use crate::core::base::transitions::assert_transition;
use crate::core::places::call::CallId;
use crate::core::places::exchange_error::ExchangeError;
use crate::core::places::response::Response;
use crate::core::session::buffer::Buffer;
use crate::core::session::buffer_budget::Eviction;
use crate::core::session::connection_error::ConnectionError;
use crate::core::session::context::Context;
use crate::core::session::disposition::Disposition;
use crate::core::session::handshakes::FailureKind;
use crate::core::session::protocol::{Protocol, StreamEnd};
use crate::core::session::tls::{TlsError, TlsSession};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// The socket is not connected yet.
    Connecting,
    /// The TLS handshake is not done yet.
    Handshaking,
    /// The request is sent, and the response is not complete.
    Exchanging,
    /// The connection stays open for the next question.
    Idle,
    /// The connection is being closed, and carries no question.
    Closing,
}

/// The reason why an exchange's state changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cause {
    /// The socket is connected.
    Connected,
    /// The request is in the output.
    RequestSent,
    /// The response is complete, and the connection can be used again.
    Answered,
    /// The exchange failed or was idle for too long, no client waits for its answer any more, the
    /// connection cannot be used again, or the server is stopping.
    Closed,
}

const TRANSITIONS: [(State, Cause, State); 9] = [
    (State::Connecting, Cause::Connected, State::Handshaking),
    (State::Handshaking, Cause::RequestSent, State::Exchanging),
    (State::Exchanging, Cause::Answered, State::Idle),
    (State::Idle, Cause::RequestSent, State::Exchanging),
    (State::Connecting, Cause::Closed, State::Closing),
    (State::Handshaking, Cause::Closed, State::Closing),
    (State::Exchanging, Cause::Closed, State::Closing),
    (State::Idle, Cause::Closed, State::Closing),
    (State::Closing, Cause::Closed, State::Closing),
];

/// The result of an exchange's event, for the node to handle.
pub enum Effect {
    /// The handshake is done, and this connection carries the call. Other connections for the call
    /// have to be closed.
    HandshakeDone(CallId),
    /// The response is complete. The exchange is [idle](Exchange::is_idle) if it can be used again.
    Answered {
        /// The call whose question was answered.
        call: CallId,
        /// The response.
        response: Box<Response>,
        /// The number of this response on its connection, from 1.
        response_number: u32,
    },
    /// The exchange failed, and is closing.
    Failed {
        /// The call that the exchange carried, if any.
        call: Option<CallId>,
        /// The reason.
        failure: Failure,
        /// The time at which the exchange entered the state in which it failed. If the exchange
        /// waited for a response, this is the time of the request.
        since: Time,
    },
    /// The connection is lost.
    Lost {
        /// The call that the exchange carried, if any.
        call: Option<CallId>,
        /// The reason.
        failure: Failure,
        /// Whether the TLS handshake was done.
        handshake_was_done: bool,
    },
}

/// Why and at which stage an exchange failed. The stage decides whether the question is sent again.
#[derive(Clone, Debug, PartialEq)]
pub struct Failure {
    /// The reason.
    pub reason: ExchangeError,
    /// The stage at which the exchange failed.
    pub stage: FailureStage,
}

/// The point at which an exchange failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureStage {
    /// Before any request was sent. Another address may work.
    Unconnected,
    /// Before any request was sent, because the certificate was refused. Trying again later does
    /// not help.
    CertificateRefused,
    /// On a reused connection, before the first byte of the response. Most likely the connection
    /// broke while it was idle.
    BrokenWhileIdle,
    /// On a reused connection, because no byte of the response arrived within `places_silence_ms`.
    /// Other idle connections of the same age may be broken too.
    Silent,
    /// After the request was sent, because the response was not complete in time.
    TimedOut,
    /// For any other reason after the request was sent, also while the exchange was idle or
    /// closing.
    Sent,
    /// The buffers of all connections together are full, and the server chose this connection to
    /// free memory.
    Evicted,
}

/// The session of a connection to Places.
pub struct Exchange {
    /// The call that this connection was opened for, or whose question it carries. `None` while the
    /// exchange is idle or closing.
    call: Option<CallId>,
    state: State,
    since: Time,
    /// The request that waits for the handshake. Empty after the request was moved to the output.
    request: Vec<u8>,
    response: Response,
    output: Buffer,
    /// The number of complete responses on this connection.
    responses: u32,
    /// Whether the first byte of the present response has arrived.
    response_begun: bool,
    address: SocketAddr,
    /// Whether the TLS handshake is done.
    handshake_done: bool,
}

impl Exchange {
    /// Creates the exchange for a new connection to `address`. It will carry `request` for `call`.
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
            responses: 0,
            response_begun: false,
            address,
            handshake_done: false,
        }
    }

    /// Returns the call that this connection was opened for, or whose question it carries. `None`
    /// while the exchange is idle or closing.
    #[must_use]
    pub fn call(&self) -> Option<CallId> {
        self.call
    }

    /// Returns the address that the connection is made to.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Whether the TLS handshake is done. This stays true after the exchange is closed. Only a
    /// connection whose handshake is done carries a request.
    #[must_use]
    pub fn handshake_done(&self) -> bool {
        self.handshake_done
    }

    /// Returns the time at which the exchange entered its present state. For a closing exchange,
    /// returns the time at which it entered its last other state.
    #[must_use]
    pub fn since(&self) -> Time {
        self.since
    }

    /// Begins the handshake, because the socket is connected. Returns `false` if the exchange has
    /// been closed in the meantime. Then no TLS is needed.
    pub fn begin_handshake(&mut self, now: Time) -> bool {
        let is_wanted = self.state == State::Connecting;
        if is_wanted {
            self.enter(Cause::Connected, State::Handshaking, now);
        }
        is_wanted
    }

    /// Sends the next question over an idle connection.
    pub fn send_question(&mut self, call: CallId, request: Vec<u8>, limits: &Limits, now: Time) {
        self.call = Some(call);
        self.request = request;
        self.response = Response::new(limits);
        self.response_begun = false;
        self.send_request(now);
    }

    fn send_request(&mut self, now: Time) {
        self.output.extend(&std::mem::take(&mut self.request));
        self.enter(Cause::RequestSent, State::Exchanging, now);
    }

    /// Whether ALPN can be the cause of a failure. This is so on a new connection for which ALPN
    /// has chosen no protocol.
    fn is_alpn_suspect(&self, context: &Context<'_>) -> bool {
        let has_agreed = context.tls.is_some_and(TlsSession::has_alpn);
        self.responses == 0 && !has_agreed
    }

    /// If the response is complete, returns it. The connection becomes idle, or closes if it cannot
    /// be used again.
    fn finish_response(&mut self, context: &Context<'_>) -> Option<Effect> {
        if self.state != State::Exchanging || !self.response.is_done() {
            return None;
        }
        let limits = &context.settings.limits;
        let response = std::mem::replace(&mut self.response, Response::new(limits));
        self.responses += 1;
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
            response_number: self.responses,
        })
    }

    /// Closes the exchange because of `failure`.
    fn fail(&mut self, failure: Failure) -> Option<Effect> {
        let (call, since) = (self.call, self.since);
        self.close();
        Some(Effect::Failed {
            call,
            failure,
            since,
        })
    }

    fn fail_for(&mut self, reason: ExchangeError) -> Option<Effect> {
        let failure = self.failure(reason);
        self.fail(failure)
    }

    /// Closes the exchange at once, because the buffers of all connections are full. The buffers
    /// are freed now.
    pub fn evict(&mut self, eviction: Eviction, limits: &Limits) -> Option<Effect> {
        self.request = Vec::new();
        self.response = Response::new(limits);
        self.fail(Failure {
            reason: ExchangeError::Evicted(eviction),
            stage: FailureStage::Evicted,
        })
    }

    /// Whether the connection is kept for the next question.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.state == State::Idle
    }

    /// Whether the connection is being closed.
    #[must_use]
    pub fn is_closing(&self) -> bool {
        self.state == State::Closing
    }

    /// Creates a failure. The present state of the exchange decides the failure's stage.
    fn failure(&self, reason: ExchangeError) -> Failure {
        let stage = match self.state {
            State::Connecting | State::Handshaking => FailureStage::Unconnected,
            State::Idle | State::Exchanging if self.awaits_first_byte() => {
                FailureStage::BrokenWhileIdle
            }
            State::Idle | State::Exchanging | State::Closing => FailureStage::Sent,
        };
        Failure { reason, stage }
    }

    /// Whether the connection is reused, and no byte of the present response has arrived.
    fn awaits_first_byte(&self) -> bool {
        self.responses > 0 && !self.response_begun
    }

    /// Whether a reused connection has been silent for so long that it is probably broken. Then
    /// other idle connections of the same age may be broken too.
    #[must_use]
    pub fn is_suspect(&self, limits: &Limits, now: Time) -> bool {
        let is_silent = self.state == State::Exchanging && self.awaits_first_byte();
        is_silent && now.since(self.since) >= silence(limits) / SUSPECT_DIVISOR
    }

    /// Closes the exchange. Output that was not sent is dropped.
    pub fn close(&mut self) {
        self.call = None;
        self.output.clear();
        self.set_state(Cause::Closed, State::Closing);
    }

    fn time_limit(&self, limits: &Limits) -> Option<Duration> {
        match self.state {
            State::Connecting => Some(limits.places_connect_ms.to_duration()),
            State::Handshaking => Some(limits.places_handshake_ms.to_duration()),
            State::Idle => Some(limits.places_idle_ms.to_duration()),
            State::Exchanging if self.awaits_first_byte() => Some(silence(limits)),
            State::Exchanging => Some(limits.places_ms.to_duration()),
            State::Closing => None,
        }
    }

    fn enter(&mut self, cause: Cause, state: State, now: Time) {
        self.set_state(cause, state);
        self.since = now;
    }

    /// Changes the state. The state changes only here.
    fn set_state(&mut self, cause: Cause, state: State) {
        assert_transition(&TRANSITIONS, (self.state, cause, state));
        self.state = state;
    }
}

impl Protocol for Exchange {
    type Effect = Effect;

    /// Sends the request, because the TLS handshake is done.
    fn connection_made(&mut self, context: &mut Context<'_>) -> Option<Effect> {
        if self.state != State::Handshaking {
            return None; // the exchange was closed before
        }
        self.handshake_done = true;
        self.send_request(context.now.time);
        self.call.map(Effect::HandshakeDone)
    }

    fn data_received(&mut self, data: &[u8], context: &mut Context<'_>) -> Option<Effect> {
        match self.state {
            State::Exchanging => {
                let is_first_byte = !std::mem::replace(&mut self.response_begun, true);
                if is_first_byte && is_http_2(data) {
                    let is_alpn_suspect = self.is_alpn_suspect(context);
                    return self.fail_for(ExchangeError::Http2 { is_alpn_suspect });
                }
                match self.response.data_received(data) {
                    Ok(()) => self.finish_response(context),
                    Err(error) => self.fail_for(ExchangeError::Response(error)),
                }
            }
            State::Idle => self.fail_for(ExchangeError::Unsolicited),
            State::Connecting | State::Handshaking | State::Closing => None,
        }
    }

    /// Completes a response without a length, because such a response ends where the stream ends.
    /// Without `close_notify`, the stream may have been cut off, so the response is refused.
    fn eof_received(&mut self, end: StreamEnd, context: &mut Context<'_>) -> Option<Effect> {
        match self.state {
            State::Exchanging => match self.response.eof_received(end == StreamEnd::Whole) {
                Ok(()) => self.finish_response(context),
                Err(error) if self.response_begun => self.fail_for(ExchangeError::Response(error)),
                Err(_) => {
                    let is_alpn_suspect = self.is_alpn_suspect(context);
                    self.fail_for(ExchangeError::Closed { is_alpn_suspect })
                }
            },
            State::Connecting | State::Handshaking | State::Idle => self.fail_for(CLOSED),
            State::Closing => None,
        }
    }

    fn tls_failed(&mut self, error: &TlsError, _: &mut Context<'_>) -> Option<Effect> {
        let is_cut_off = self.state == State::Handshaking && error.kind == FailureKind::CutOff;
        let mut failure = self.failure(match is_cut_off {
            true => ExchangeError::ClosedInHandshake,
            false => ExchangeError::Lost(ConnectionError::Tls(error.clone())),
        });
        if error.certificate_error.is_some() {
            failure.stage = FailureStage::CertificateRefused;
        }
        self.fail(failure)
    }

    fn connection_lost(
        &mut self,
        why: Option<&ConnectionError>,
        _: &mut Context<'_>,
    ) -> Option<Effect> {
        Some(Effect::Lost {
            call: self.call.take(),
            failure: self.failure(why.map_or(CLOSED, |why| ExchangeError::Lost(why.clone()))),
            handshake_was_done: self.handshake_done,
        })
    }

    fn resume_input(&mut self, _: &mut Context<'_>) -> Option<Effect> {
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
        let time_limit = self.time_limit(limits).unwrap_or_default();
        let reason = match self.state {
            State::Connecting => ExchangeError::NotConnected(time_limit),
            State::Handshaking => ExchangeError::NoHandshake(time_limit),
            State::Exchanging => ExchangeError::NoAnswer(time_limit),
            State::Idle | State::Closing => ExchangeError::Unused(time_limit),
        };
        let mut failure = self.failure(reason);
        if self.state == State::Exchanging {
            failure.stage = match self.awaits_first_byte() {
                true => FailureStage::Silent,
                false => FailureStage::TimedOut,
            };
        }
        self.fail(failure)
    }

    /// Does nothing, because a question that was sent still gets its answer. [`Exchange::flushed`]
    /// closes the connection when the exchange is idle.
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

    fn awaits_disk_space(&self) -> bool {
        false
    }

    fn required_seq(&self) -> u64 {
        0
    }

    /// Returns the time at which the present state times out. The deadlines of the waiting clients
    /// are stored in the call.
    fn deadline(&self, limits: &Limits) -> Option<Time> {
        self.time_limit(limits)
            .map(|time_limit| self.since + time_limit)
    }

    fn held_bytes(&self) -> usize {
        self.request.capacity() + self.response.held_bytes() + self.output.held_bytes()
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
        ensure!(
            self.call.is_some() == has_call,
            "an exchange that is {state} has a call, or lacks one"
        );
        let needs_handshake = matches!(self.state, State::Exchanging | State::Idle);
        ensure!(
            self.handshake_done || !needs_handshake,
            "an exchange that is {state} was never made"
        );
        ensure!(
            self.output.is_empty() || self.handshake_done,
            "an exchange that was not made, and is {state}, has output"
        );
        Ok(())
    }
}

/// Places closed the connection, and ALPN is not the cause.
const CLOSED: ExchangeError = ExchangeError::Closed {
    is_alpn_suspect: false,
};

/// The maximum time without a byte of the response on a reused connection. It is at most half of
/// `places_ms`, so that a new connection has time for the same question.
fn silence(limits: &Limits) -> Duration {
    (limits.places_silence_ms.min(limits.places_ms / 2)).to_duration()
}

/// A reused connection is suspect if it stays silent for the time [`silence`] divided by this
/// number.
const SUSPECT_DIVISOR: u32 = 4;

/// Whether `bytes` begin with a SETTINGS frame. Every HTTP/2 server sends such a frame first (RFC
/// 9113, section 3.4). The frame has three bytes of length, the type 4, no flag except ACK, and the
/// stream 0.
fn is_http_2(bytes: &[u8]) -> bool {
    matches!(bytes, [0, _, _, 4, 0 | 1, 0, 0, 0, 0, ..])
}

#[cfg(test)]
mod tests {
    use super::TRANSITIONS;
    use crate::core::base::transitions::assert_diagram;

    #[test]
    fn the_module_docs_show_the_transitions() {
        assert_diagram(include_str!("exchange.rs"), &TRANSITIONS);
    }
}
