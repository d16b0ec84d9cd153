//! The session of a connection to the HTTP port.
//!
//! ```text
//!   Reading   ─ Asked ─────────► Awaiting
//!   Awaiting  ─ Answered ──────► Reading
//!   Awaiting  ─ LastAnswer ────► Closing
//!   Awaiting  ─ StreamBegun ───► Streaming
//!   Streaming ─ StreamEnded ───► Reading
//!   Streaming ─ LastAnswer ────► Closing
//!   Reading   ─ LastAnswer ────► Closing
//!   Reading   ─ HeadRefused ───► Closing
//!   Reading   ─ HeadLate ──────► Closing
//!   Reading   ─ Idle ──────────► Closing
//!   Reading   ─ Displaced ─────► Closing
//!   Closing   ─ Displaced ─────► Closing
//!   Reading   ─ Stopped ───────► Closing
//!   Reading   ─ OutputStalled ─► Closing
//!   Streaming ─ OutputStalled ─► Closing
//!   Closing   ─ OutputStalled ─► Closing
//!   Closing   ─ Lingered ──────► Closing
//!   Reading   ─ Evicted ───────► Closing
//!   Awaiting  ─ Evicted ───────► Closing
//!   Streaming ─ Evicted ───────► Closing
//!   Closing   ─ Evicted ───────► Closing
//! ```
//!
//! Requests that arrive together are answered in their order. At most one answer is begun for each
//! write to the socket. So a connection with many requests does not make a turn (one iteration of
//! the event loop) long.

use std::fmt;
use std::net::SocketAddr;

use log::{debug, info};

use crate::core::base::clock::Time;
use crate::core::base::invariants::ensure;
use crate::core::base::limits::{LimitValue, Limits};
use crate::core::base::transitions::assert_transition;
use crate::core::http::head::{self, After, Head};
use crate::core::http::host::is_ours;
use crate::core::http::json::Json;
use crate::core::http::query::{Query, QueryError};
use crate::core::http::reply::{
    ContentType, Framing, Reply, Status, write_end, write_head, write_piece,
};
use crate::core::session::buffer::Buffer;
use crate::core::session::buffer_budget::Eviction;
use crate::core::session::connection_error::ConnectionError;
use crate::core::session::context::Context;
use crate::core::session::disposition::Disposition;
use crate::core::session::protocol::{Protocol, StreamEnd};
use crate::core::session::tls::TlsError;
use crate::core::wire::escape::Escaped;

/// The name of a connection in the log.
#[derive(Clone, Copy, Debug)]
struct Label {
    serial: u32,
    address: SocketAddr,
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http {} {}", self.serial, self.address)
    }
}

/// What the node has to do after an event of an HTTP connection.
pub enum Effect {
    /// The node has to look up the answer. Then it calls [`HttpConnection::answer`], or
    /// [`HttpConnection::begin_stream`].
    Asked(Query),
    /// The next step of a stream can be made: at most `limits.http_output_bytes` of output wait.
    /// The node calls [`HttpConnection::step`].
    Step(Query),
    /// The connection is closed.
    Lost,
}

/// How the present request is answered.
#[derive(Clone, Copy, Debug)]
struct Manner {
    /// The request was HEAD, so the answer has no body.
    has_no_body: bool,
    /// The request was HTTP/1.0.
    is_old: bool,
    after: After,
}

#[derive(Debug)]
enum State {
    /// Waiting for a request.
    Reading,
    /// The node looks up the answer.
    Awaiting(Manner),
    /// The answer is made in steps. The query says where the next step begins.
    Streaming(Box<(Manner, Query)>),
    /// No more requests are answered. The output is sent, then the connection lingers.
    Closing { linger: Linger },
}

/// How long the server still reads, and discards, input after its last output. Closing a socket
/// with unread input could destroy an answer that the client has not read yet (RFC 9112, section
/// 9.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Linger {
    No,
    /// For [`BRIEFLY_MS`], and at most `limits.linger_ms`. This is for an idle connection of a
    /// stopping server: no answer is being sent, but the client may be sending a request.
    Briefly,
    /// Until the client closes, for at most `limits.linger_ms`.
    Long,
}

/// The milliseconds of [`Linger::Briefly`].
const BRIEFLY_MS: u64 = 200;

/// A [`State`] without its data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Reading,
    Awaiting,
    Streaming,
    Closing,
}

/// Why the state changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cause {
    /// The node has to look up the answer to a request.
    Asked,
    /// The answer is complete.
    Answered,
    /// The answer is complete, and the connection is closed after it.
    LastAnswer,
    /// The head of a stream and its first step are in the output.
    StreamBegun,
    /// The last step of a stream is in the output.
    StreamEnded,
    /// The head of a request is refused.
    HeadRefused,
    /// The head of a request did not arrive within `limits.http_head_ms`.
    HeadLate,
    /// No request came for `limits.http_idle_ms`.
    Idle,
    /// The connection was idle, and is closed so that the node can accept a new connection.
    Displaced,
    /// The server is stopping.
    Stopped,
    /// The socket accepted no output for `limits.output_stall_ms`.
    OutputStalled,
    /// The time for lingering is over.
    Lingered,
    /// The buffers of all connections together held more than `limits.buffer_bytes`.
    Evicted,
}

const TRANSITIONS: [(Stage, Cause, Stage); 21] = [
    (Stage::Reading, Cause::Asked, Stage::Awaiting),
    (Stage::Awaiting, Cause::Answered, Stage::Reading),
    (Stage::Awaiting, Cause::LastAnswer, Stage::Closing),
    (Stage::Awaiting, Cause::StreamBegun, Stage::Streaming),
    (Stage::Streaming, Cause::StreamEnded, Stage::Reading),
    (Stage::Streaming, Cause::LastAnswer, Stage::Closing),
    (Stage::Reading, Cause::LastAnswer, Stage::Closing),
    (Stage::Reading, Cause::HeadRefused, Stage::Closing),
    (Stage::Reading, Cause::HeadLate, Stage::Closing),
    (Stage::Reading, Cause::Idle, Stage::Closing),
    (Stage::Reading, Cause::Displaced, Stage::Closing),
    (Stage::Closing, Cause::Displaced, Stage::Closing),
    (Stage::Reading, Cause::Stopped, Stage::Closing),
    (Stage::Reading, Cause::OutputStalled, Stage::Closing),
    (Stage::Streaming, Cause::OutputStalled, Stage::Closing),
    (Stage::Closing, Cause::OutputStalled, Stage::Closing),
    (Stage::Closing, Cause::Lingered, Stage::Closing),
    (Stage::Reading, Cause::Evicted, Stage::Closing),
    (Stage::Awaiting, Cause::Evicted, Stage::Closing),
    (Stage::Streaming, Cause::Evicted, Stage::Closing),
    (Stage::Closing, Cause::Evicted, Stage::Closing),
];

impl State {
    fn stage(&self) -> Stage {
        match self {
            State::Reading => Stage::Reading,
            State::Awaiting(_) => Stage::Awaiting,
            State::Streaming(_) => Stage::Streaming,
            State::Closing { .. } => Stage::Closing,
        }
    }
}

/// The session of one connection to the HTTP port.
pub struct HttpConnection {
    who: Label,
    state: State,
    /// Requests that wait, or the beginning of a request.
    input: Buffer,
    output: Buffer,
    /// The query whose answer needs facts about the process, such as its memory, until the node has
    /// these facts. `Some` only in `Awaiting`.
    measured: Option<Query>,
    /// Whether the input has ended. This is independent of the state, because the input can end in
    /// each state.
    has_ended: bool,
    /// When the wait for the rest of an unfinished head began. `None` if there is no unfinished
    /// head.
    head_since: Option<Time>,
    /// When the wait for a request, for the socket to accept output, or for the client to close
    /// began. `head_since` is the same for the rest of a head.
    since: Time,
}

impl HttpConnection {
    /// The names of the states, for the operator.
    pub const STATES: [&'static str; 5] = ["idle", "reading", "awaiting", "streaming", "closing"];

    /// Creates the session of a connection that was accepted.
    #[must_use]
    pub fn new(serial: u32, address: SocketAddr, now: Time) -> HttpConnection {
        let who = Label { serial, address };
        debug!("{who}: connected");
        HttpConnection {
            who,
            state: State::Reading,
            input: Buffer::default(),
            output: Buffer::default(),
            measured: None,
            has_ended: false,
            head_since: None,
            since: now,
        }
    }

    /// Returns the address that the connection comes from.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.who.address
    }

    /// Returns since when the connection has waited for a request, or for the client to close.
    /// `None` if an answer is being made or sent, or if a part of a request has arrived.
    #[must_use]
    pub fn idle_since(&self) -> Option<Time> {
        let is_idle = match self.state {
            State::Reading | State::Closing { .. } => {
                self.input.is_empty() && self.output.is_empty()
            }
            State::Awaiting(_) | State::Streaming(_) => false,
        };
        is_idle.then_some(self.since)
    }

    /// Returns when the present wait began. The deadline measures this wait.
    #[must_use]
    pub fn since(&self) -> Time {
        self.head_since.unwrap_or(self.since)
    }

    /// Stores `query`, because its answer needs facts about the process. The node gets these facts
    /// later in this turn.
    pub fn measure(&mut self, query: Query) {
        self.measured = Some(query);
    }

    /// Takes the query that [`HttpConnection::measure`] stored. `None` if the connection does not
    /// wait for facts any more.
    pub fn take_measured(&mut self) -> Option<Query> {
        self.measured.take()
    }

    /// Appends the complete answer to the present request.
    pub fn answer(&mut self, reply: &Reply, context: &mut Context<'_>) {
        let State::Awaiting(manner) = self.state else {
            return; // the connection was closed before the answer was known
        };
        let after = self.append(reply, manner, context);
        match after {
            After::Keep => self.enter(Cause::Answered, State::Reading),
            After::Close => self.close(Cause::LastAnswer),
        }
    }

    /// Begins an answer in steps with its first step. `next` is where the next step begins, or
    /// `None` if this step is the last.
    pub fn begin_stream(
        &mut self,
        content: ContentType,
        first: &[u8],
        next: Option<Query>,
        context: &mut Context<'_>,
    ) {
        let State::Awaiting(mut manner) = self.state else {
            return;
        };
        manner.after = after(manner, context);
        self.begin_output(context.now.time);
        context.tally.counters.http_ok += 1;
        let out = self.output.tail();
        let closes = manner.after == After::Close;
        let framing = framing(manner);
        let wall = context.now.wall;
        write_head(out, Status::Ok, content, framing, closes, wall);
        if manner.has_no_body {
            return match closes {
                true => self.close(Cause::LastAnswer),
                false => self.enter(Cause::Answered, State::Reading),
            };
        }
        // A placeholder if `next` is `None`: then `step` ends the stream at once.
        let query = next.clone().unwrap_or(Query::Live);
        self.enter(
            Cause::StreamBegun,
            State::Streaming(Box::new((manner, query))),
        );
        self.step(first, next, context);
    }

    /// Appends a step of the present stream. `next` is where the next step begins, or `None` if
    /// this step is the last. A step must not be empty: the next step is made only after the socket
    /// has accepted output.
    pub fn step(&mut self, piece: &[u8], next: Option<Query>, context: &mut Context<'_>) {
        let State::Streaming(stream) = &mut self.state else {
            return;
        };
        let manner = stream.0;
        let framing = framing(manner);
        write_piece(self.output.tail(), piece, framing);
        match next {
            Some(next) => stream.1 = next,
            None => {
                write_end(self.output.tail(), framing);
                match after(manner, context) {
                    After::Keep => self.enter(Cause::StreamEnded, State::Reading),
                    After::Close => self.close(Cause::LastAnswer),
                }
            }
        }
    }

    /// Closes the connection if it is idle, so that the node can accept a new connection.
    pub fn displace(&mut self) {
        if self.idle_since().is_some() {
            self.enter(Cause::Displaced, State::Closing { linger: Linger::No });
        }
    }

    /// Closes the connection at once and discards its buffers, because the buffers of all
    /// connections together hold more than `limits.buffer_bytes`.
    pub fn evict(&mut self, eviction: Eviction) {
        info!("{}: closing: {eviction}", self.who);
        self.drop_all(Cause::Evicted);
    }

    /// Runs the first request of the input, if at most `limits.http_output_bytes` of output wait.
    fn run(&mut self, context: &mut Context<'_>) -> Option<Effect> {
        let limits = &context.settings.limits;
        if !matches!(self.state, State::Reading) || !self.has_room(limits) {
            return None;
        }
        let mut input = std::mem::take(&mut self.input);
        let (used, effect) = self.run_first(input.as_slice(), context);
        input.consume(used);
        self.input = input;
        if matches!(self.state, State::Closing { .. }) {
            self.input.clear();
        }
        // A request that waits behind an answer must not time out.
        let is_unfinished =
            matches!(self.state, State::Reading) && used == 0 && !self.input.is_empty();
        self.head_since = match is_unfinished {
            true => self.head_since.or(Some(context.now.time)),
            false => None,
        };
        effect
    }

    /// Runs the request at the beginning of `input`. Returns the number of bytes to consume. This
    /// is 0 if the request is not complete, and all bytes if the head is refused.
    fn run_first(&mut self, input: &[u8], context: &mut Context<'_>) -> (usize, Option<Effect>) {
        let limits = &context.settings.limits;
        if input.is_empty() {
            return (0, None);
        }
        match head::parse(input, limits.http_head_bytes.to_count()) {
            Ok(None) => (0, None),
            Ok(Some((head, length))) => (length, self.request(&head, context)),
            Err(error) => {
                debug!("{}: refused: {error}", self.who);
                let manner = Manner {
                    has_no_body: false,
                    is_old: false,
                    after: After::Close,
                };
                self.append(&refusal(error.status(), error), manner, context);
                self.close(Cause::HeadRefused);
                (input.len(), None)
            }
        }
    }

    fn request(&mut self, head: &Head<'_>, context: &mut Context<'_>) -> Option<Effect> {
        let settings = context.settings;
        let manner = Manner {
            has_no_body: head.method == "HEAD",
            is_old: head.is_old,
            after: head.after,
        };
        debug!(
            "{} <- {} {}",
            self.who,
            Escaped(head.method.as_bytes()),
            Escaped(head.target.as_bytes())
        );
        let is_ours = match (head.host, &settings.http) {
            (Some(host), Some(http)) => is_ours(host, http),
            (None, _) => true, // HTTP/1.0, which no browser sends
            (Some(_), None) => false,
        };
        let reply = if !is_ours {
            let host = head.host.unwrap_or_default();
            let words =
                format!("this server is not {host}; its operator can list that name in http.hosts");
            refusal(Status::Misdirected, words)
        } else if !matches!(head.method, "GET" | "HEAD") {
            refusal(Status::MethodNotAllowed, "this port answers GET and HEAD")
        } else {
            match Query::parse(head.target, head.accept, &settings.limits) {
                Ok(query) => {
                    self.enter(Cause::Asked, State::Awaiting(manner));
                    return Some(Effect::Asked(query));
                }
                Err(QueryError::NotFound) => refusal(Status::NotFound, "there is no such path"),
                Err(QueryError::Encoding) => refusal(
                    Status::BadRequest,
                    "a % in the path is followed by two hexadecimal digits",
                ),
                Err(QueryError::Parameter) => refusal(
                    Status::BadRequest,
                    "the parameters are after and limit, and their values are whole numbers",
                ),
            }
        };
        if self.append(&reply, manner, context) == After::Close {
            self.close(Cause::LastAnswer);
        }
        None
    }

    /// Appends an answer to the output. Returns what the connection does after the answer.
    fn append(&mut self, reply: &Reply, manner: Manner, context: &mut Context<'_>) -> After {
        self.begin_output(context.now.time);
        let counters = &mut context.tally.counters;
        match reply.status.parts().0 {
            ..400 => counters.http_ok += 1,
            400..500 => counters.http_refused += 1,
            500.. => counters.http_unavailable += 1,
        }
        let after = after(manner, context);
        let out = self.output.tail();
        let framing = Framing::Length(reply.body.len());
        let closes = after == After::Close;
        write_head(
            out,
            reply.status,
            reply.content,
            framing,
            closes,
            context.now.wall,
        );
        if !manner.has_no_body {
            out.extend_from_slice(&reply.body);
        }
        after
    }

    /// Begins to measure how long the output waits for the socket, unless output waits already.
    fn begin_output(&mut self, now: Time) {
        if self.output.is_empty() {
            self.since = now;
        }
    }

    fn has_room(&self, limits: &Limits) -> bool {
        self.output.len() <= limits.http_output_bytes.to_count()
    }

    /// Changes the state. Only this method changes the state.
    fn enter(&mut self, cause: Cause, state: State) {
        assert_transition(&TRANSITIONS, (self.state.stage(), cause, state.stage()));
        self.state = state;
    }

    /// Begins to close the connection: its output is still sent, then the connection lingers.
    fn close(&mut self, cause: Cause) {
        self.head_since = None;
        let linger = Linger::Long;
        self.enter(cause, State::Closing { linger });
    }

    fn drop_all(&mut self, cause: Cause) {
        self.output.clear();
        self.input.clear();
        self.head_since = None;
        self.measured = None;
        self.enter(cause, State::Closing { linger: Linger::No });
    }
}

/// Returns how the body of a stream is framed.
fn framing(manner: Manner) -> Framing {
    match manner.is_old {
        true => Framing::UntilClose,
        false => Framing::Chunks,
    }
}

/// Returns what the connection does after an answer. A stopping server closes the connection.
fn after(manner: Manner, context: &Context<'_>) -> After {
    match context.is_stopping {
        true => After::Close,
        false => manner.after,
    }
}

/// Returns an answer that says in JSON why a request is refused.
fn refusal(status: Status, words: impl std::fmt::Display) -> Reply {
    let mut body = String::new();
    Json::object(&mut body).text("error", words);
    body.push('\n');
    Reply {
        status,
        content: ContentType::Json,
        body: body.into_bytes(),
    }
}

impl Protocol for HttpConnection {
    type Effect = Effect;

    /// Does nothing, because the client speaks first.
    fn connection_made(&mut self, _: &mut Context<'_>) -> Option<Effect> {
        None
    }

    #[cold]
    fn data_received(&mut self, data: &[u8], context: &mut Context<'_>) -> Option<Effect> {
        if matches!(self.state, State::Closing { .. }) {
            return None; // a lingering connection discards its input
        }
        self.input.extend(data);
        // While output waits, `output_sent` runs the next request.
        match self.output.is_empty() {
            true => self.run(context),
            false => None,
        }
    }

    /// Records that the input has ended. Requests that arrived before the end are still answered.
    #[cold]
    fn eof_received(&mut self, _: StreamEnd, _: &mut Context<'_>) -> Option<Effect> {
        self.has_ended = true;
        None
    }

    fn tls_failed(&mut self, _: &TlsError, _: &mut Context<'_>) -> Option<Effect> {
        None
    }

    #[cold]
    fn connection_lost(
        &mut self,
        why: Option<&ConnectionError>,
        _: &mut Context<'_>,
    ) -> Option<Effect> {
        match why {
            Some(why) => debug!("{}: gone: {why}", self.who),
            None => debug!("{}: gone", self.who),
        }
        Some(Effect::Lost)
    }

    /// Runs the next request. The node does not call this method, because no request to this port
    /// waits for disk space.
    fn resume_input(&mut self, context: &mut Context<'_>) -> Option<Effect> {
        match self.output.is_empty() {
            true => self.run(context),
            false => None,
        }
    }

    #[cold]
    fn deadline_reached(&mut self, context: &mut Context<'_>) -> Option<Effect> {
        let limits = &context.settings.limits;
        let now = context.now.time;
        if self.deadline(limits).is_none_or(|due| due > now) {
            return None;
        }
        if !self.output.is_empty() {
            debug!(
                "{}: closing: it does not read (limits.output_stall_ms)",
                self.who
            );
            self.drop_all(Cause::OutputStalled);
        } else if matches!(self.state, State::Closing { .. }) {
            self.enter(Cause::Lingered, State::Closing { linger: Linger::No });
        } else if self.head_since.is_some() {
            let words = format!(
                "the request did not arrive within {} ms (limits.http_head_ms)",
                limits.http_head_ms
            );
            let manner = Manner {
                has_no_body: false,
                is_old: false,
                after: After::Close,
            };
            self.append(&refusal(Status::RequestTimeout, words), manner, context);
            self.input.clear();
            self.close(Cause::HeadLate);
        } else {
            self.enter(Cause::Idle, State::Closing { linger: Linger::No });
        }
        None
    }

    /// Closes an idle connection, or a connection after the answer that has begun. A request whose
    /// answer has not begun is discarded.
    fn stop(&mut self, context: &mut Context<'_>) {
        match self.state {
            State::Reading => {
                let linger = match self.output.is_empty() {
                    true => Linger::Briefly,
                    false => Linger::Long,
                };
                self.head_since = None;
                self.since = context.now.time;
                self.enter(Cause::Stopped, State::Closing { linger });
            }
            State::Awaiting(_) | State::Streaming(_) | State::Closing { .. } => {}
        }
        self.input.clear();
    }

    fn output(&mut self, _: &mut Context<'_>) -> &[u8] {
        self.output.as_slice()
    }

    /// If at most `limits.http_output_bytes` of output wait, the next step of a stream or the next
    /// request begins.
    #[cold]
    fn output_sent(&mut self, count: usize, context: &mut Context<'_>) -> Option<Effect> {
        self.output.consume(count);
        self.since = context.now.time;
        match &self.state {
            State::Streaming(stream) if self.has_room(&context.settings.limits) => {
                Some(Effect::Step(stream.1.clone()))
            }
            State::Reading => self.run(context),
            State::Awaiting(_) | State::Streaming(_) | State::Closing { .. } => None,
        }
    }

    fn flushed(&mut self, _: &mut Context<'_>) {}

    #[cold]
    fn disposition(&self) -> Disposition {
        if !self.output.is_empty() {
            return Disposition::Open;
        }
        match self.state {
            // The input that is left is an incomplete request, and its rest cannot arrive any more.
            State::Reading if self.has_ended => Disposition::Close,
            State::Closing {
                linger: Linger::Briefly | Linger::Long,
            } if !self.has_ended => Disposition::Finish,
            State::Closing { .. } => Disposition::Close,
            State::Reading | State::Awaiting(_) | State::Streaming(_) => Disposition::Open,
        }
    }

    /// Input is not read while an answer is made or sent. So a client cannot send requests faster
    /// than it reads answers. A lingering connection reads and discards input.
    fn wants_read(&self) -> bool {
        if self.has_ended {
            return false;
        }
        match self.state {
            State::Reading => self.output.is_empty(),
            State::Awaiting(_) | State::Streaming(_) => false,
            State::Closing { linger } => linger != Linger::No,
        }
    }

    fn awaits_disk_space(&self) -> bool {
        false
    }

    fn required_seq(&self) -> u64 {
        0
    }

    #[cold]
    fn deadline(&self, limits: &Limits) -> Option<Time> {
        // This state needs no deadline, because the node answers within the same turn.
        if matches!(self.state, State::Awaiting(_)) {
            return None;
        }
        if !self.output.is_empty() {
            return Some(self.since.plus_ms(limits.output_stall_ms));
        }
        match (&self.state, self.head_since) {
            (State::Reading, Some(since)) => Some(since.plus_ms(limits.http_head_ms)),
            (State::Reading, None) => Some(self.since.plus_ms(limits.http_idle_ms)),
            (State::Closing { linger }, _) => {
                let linger_ms = match linger {
                    Linger::No => return None,
                    Linger::Briefly => BRIEFLY_MS.min(limits.linger_ms),
                    Linger::Long => limits.linger_ms,
                };
                Some(self.since.plus_ms(linger_ms))
            }
            (State::Awaiting(_) | State::Streaming(_), _) => None,
        }
    }

    fn held_bytes(&self) -> usize {
        let stream = match &self.state {
            State::Streaming(stream) => size_of_val(&**stream),
            State::Reading | State::Awaiting(_) | State::Closing { .. } => 0,
        };
        self.input.held_bytes() + self.output.held_bytes() + stream
    }

    /// Returns one of [`HttpConnection::STATES`].
    fn state_name(&self) -> &'static str {
        let place = match self.state {
            State::Reading if self.head_since.is_none() => 0,
            State::Reading => 1,
            State::Awaiting(_) => 2,
            State::Streaming(_) => 3,
            State::Closing { .. } => 4,
        };
        HttpConnection::STATES[place]
    }

    fn check_invariants(&self) -> Result<(), String> {
        let state = self.state_name();
        ensure!(
            self.head_since.is_none()
                || matches!(self.state, State::Reading) && !self.input.is_empty(),
            "an HTTP connection that is {state} waits for a head that has not begun"
        );
        ensure!(
            !matches!(self.state, State::Streaming(_)) || !self.output.is_empty(),
            "a stream waits for room in an empty output"
        );
        ensure!(
            !matches!(self.state, State::Closing { .. }) || self.input.is_empty(),
            "an HTTP connection that is closing keeps input"
        );
        ensure!(
            self.measured.is_none() || matches!(self.state, State::Awaiting(_)),
            "an HTTP connection that is {state} waits for a measurement"
        );
        let waits = matches!(self.state, State::Reading) && !self.output.is_empty();
        ensure!(
            waits
                || self.input.is_empty()
                || self.head_since.is_some()
                || !matches!(self.state, State::Reading),
            "a request waits behind no answer"
        );
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::base::transitions::assert_diagram;

    #[test]
    fn the_state_drawing_matches_the_transitions() {
        assert_diagram(include_str!("machine.rs"), &TRANSITIONS);
    }
}
