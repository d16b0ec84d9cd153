//! One HTTPS connection to Places: an explicit state for each place where the asyncio version would `await`.
//!
//! ```text
//!   Connecting ──► Handshaking ──► Exchanging ──► Idle
//!        │               │           │   ▲          │ │
//!        │               │           │   └──start───┘ │ closed, or idle for too long
//!        └───────────────┴───────────┴─► Closing ◄────┘
//! ```
//!
//! The request, and with it the key, is not even encrypted before the handshake has proven whom it goes to.

use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;

use crate::core::buffer::Buffer;
use crate::core::clock::Time;
use crate::core::limits::{Limits, ms};
use crate::core::places::call::CallId;
use crate::core::places::response::Response;
use crate::core::tls::{Tls, TlsError};

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

/// How far an event brought the exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// There is more to come.
    Waiting,
    /// The response is complete: see [`Exchange::finish`].
    Answered,
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
    /// After the request was sent.
    Sent,
}

/// The connection.
pub struct Exchange {
    /// Whose question it carries.
    pub call: Option<CallId>,
    state: State,
    since: Time,
    tls: Option<Box<Tls>>,
    request: Vec<u8>,
    response: Response,
    output: Buffer,
    /// Answers that came over it.
    served: u32,
    /// Whether a byte of the present answer has come.
    heard: bool,
}

impl Exchange {
    /// A connection about to be made, to carry `request` for `call`.
    #[must_use]
    pub fn new(call: CallId, request: Vec<u8>, limits: &Limits, now: Time) -> Exchange {
        Exchange {
            call: Some(call),
            state: State::Connecting,
            since: now,
            tls: None,
            request,
            response: Response::new(limits),
            output: Buffer::default(),
            served: 0,
            heard: false,
        }
    }

    /// The socket is connected: TLS begins.
    ///
    /// # Errors
    /// The host's name is none that a certificate can have.
    pub fn connection_made(
        &mut self,
        config: Arc<ClientConfig>,
        host: &str,
        now: Time,
    ) -> Result<(), Failure> {
        let mut tls = Tls::client(config, host).map_err(|error| self.tls_failure(error))?;
        tls.flush(&mut self.output)
            .map_err(|error| self.tls_failure(error))?;
        self.tls = Some(Box::new(tls));
        self.enter(State::Handshaking, now);
        Ok(())
    }

    /// Gives an idle connection its next question.
    ///
    /// # Errors
    /// The connection turned out to be closed.
    pub fn start(
        &mut self,
        call: CallId,
        request: Vec<u8>,
        limits: &Limits,
        now: Time,
    ) -> Result<(), Failure> {
        self.call = Some(call);
        self.request = request;
        self.response = Response::new(limits);
        self.heard = false;
        self.send_request(now)
    }

    fn send_request(&mut self, now: Time) -> Result<(), Failure> {
        let request = std::mem::take(&mut self.request);
        let Some(tls) = &mut self.tls else {
            return Ok(()); // not connected yet: sent when the handshake is done
        };
        let sent = tls.send(&request, &mut self.output);
        self.enter(State::Exchanging, now);
        sent.map_err(|error| self.tls_failure(error))
    }

    /// Takes bytes from the socket; `scratch` is room for plaintext.
    ///
    /// # Errors
    /// The exchange can not go on.
    pub fn data_received(
        &mut self,
        data: &[u8],
        scratch: &mut Vec<u8>,
        now: Time,
    ) -> Result<Progress, Failure> {
        let Some(tls) = &mut self.tls else {
            return Ok(Progress::Waiting);
        };
        scratch.clear();
        let received = tls.data_received(data, scratch, &mut self.output);
        let handshake_done = !tls.is_handshaking();
        let received = received.map_err(|error| self.tls_failure(error))?;
        if self.state == State::Handshaking && handshake_done {
            self.send_request(now)?;
        }
        match self.state {
            State::Exchanging => {
                self.heard |= !scratch.is_empty();
                self.response
                    .data_received(scratch)
                    .map_err(|error| self.failure(error.to_string()))?;
                if received.closed_cleanly {
                    return self.stream_ended(true);
                }
            }
            State::Idle if !scratch.is_empty() => {
                return Err(self.failure("it answered without having been asked".to_owned()));
            }
            State::Idle | State::Handshaking if received.closed_cleanly => {
                return Err(self.failure("it closed the connection".to_owned()));
            }
            State::Connecting | State::Handshaking | State::Idle | State::Closing => {}
        }
        Ok(self.progress())
    }

    /// The socket's stream ended, without `close_notify` or after it.
    ///
    /// # Errors
    /// The exchange can not go on.
    pub fn eof_received(&mut self) -> Result<Progress, Failure> {
        match self.state {
            State::Exchanging => self.stream_ended(false),
            State::Connecting | State::Handshaking | State::Idle => {
                Err(self.failure("it closed the connection".to_owned()))
            }
            State::Closing => Ok(Progress::Waiting),
        }
    }

    fn stream_ended(&mut self, cleanly: bool) -> Result<Progress, Failure> {
        let ended = self.response.eof_received(cleanly);
        ended.map_err(|error| {
            self.failure(if self.heard {
                error.to_string()
            } else {
                "it closed the connection".to_owned()
            })
        })?;
        Ok(self.progress())
    }

    fn progress(&self) -> Progress {
        if self.state == State::Exchanging && self.response.is_done() {
            Progress::Answered
        } else {
            Progress::Waiting
        }
    }

    /// Takes the finished response; the connection goes idle if it may be used again ([`Exchange::is_idle`]), or closes.
    pub fn finish(&mut self, limits: &Limits, now: Time) -> Response {
        let response = std::mem::replace(&mut self.response, Response::new(limits));
        self.call = None;
        self.served += 1;
        if response.keep_alive() {
            self.enter(State::Idle, now);
        } else {
            self.close();
        }
        response
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

    /// How many answers came over it before the present question.
    #[must_use]
    pub fn served(&self) -> u32 {
        self.served
    }

    /// What went wrong, seen from where the exchange is.
    #[must_use]
    pub fn failure(&self, reason: String) -> Failure {
        let stage = match self.state {
            State::Connecting | State::Handshaking => Stage::Unconnected,
            State::Idle | State::Exchanging if self.served > 0 && !self.heard => Stage::DiedIdle,
            State::Idle | State::Exchanging | State::Closing => Stage::Sent,
        };
        Failure { reason, stage }
    }

    fn tls_failure(&self, error: TlsError) -> Failure {
        let mut failure = self.failure(error.reason);
        if error.mistrust.is_some() {
            failure.stage = Stage::Mistrusted;
        }
        failure
    }

    /// Says goodbye, in TLS too if it was spoken.
    pub fn close(&mut self) {
        if let Some(tls) = &mut self.tls
            && self.state != State::Closing
        {
            tls.hang_up(&mut self.output);
        }
        self.state = State::Closing;
    }

    /// Ciphertext that waits for the socket.
    pub fn output(&mut self) -> &mut Buffer {
        &mut self.output
    }

    /// When somebody has to look at it again. The answer's own deadline is its call's.
    #[must_use]
    pub fn deadline(&self, limits: &Limits) -> Option<Time> {
        self.patience(limits).map(|patience| self.since + patience)
    }

    fn patience(&self, limits: &Limits) -> Option<Duration> {
        match self.state {
            State::Connecting => Some(ms(limits.places_connect_ms)),
            State::Handshaking => Some(ms(limits.places_handshake_ms)),
            State::Idle => Some(ms(limits.places_idle_ms)),
            State::Exchanging | State::Closing => None,
        }
    }

    /// What it means that the deadline has come.
    #[must_use]
    pub fn deadline_reached(&self, limits: &Limits) -> Failure {
        let patience = self.patience(limits).unwrap_or_default().as_secs_f32();
        let reason = match self.state {
            State::Connecting => format!("no connection within {patience} s"),
            State::Handshaking => format!("no TLS handshake within {patience} s"),
            State::Exchanging | State::Idle | State::Closing => format!("unused for {patience} s"),
        };
        self.failure(reason)
    }

    fn enter(&mut self, state: State, now: Time) {
        self.state = state;
        self.since = now;
    }
}
