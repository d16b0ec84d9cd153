//! The session of a mobile client: it reads commands, and answers them in their order.
//!
//! ```text
//!   Reading  ─ PlacesAsked ────► Awaiting
//!   Awaiting ─ PlacesAnswered ─► Reading
//!   Awaiting ─ LastAnswer ─────► Closing
//!   Awaiting ─ OutputStalled ──► Closing
//!   Reading  ─ LineTooLong ────► Closing
//!   Reading  ─ LineUnfinished ─► Closing
//!   Reading  ─ TlsUnexpected ──► Closing
//!   Reading  ─ OutputStalled ──► Closing
//!   Reading  ─ Stopped ────────► Closing
//!   Reading  ─ Left ───────────► Closing
//!   Reading  ─ JournalRefused ─► Closing
//!   Closing  ─ JournalRefused ─► Closing
//!   Reading  ─ Evicted ────────► Closing
//!   Awaiting ─ Evicted ────────► Closing
//!   Closing  ─ Evicted ────────► Closing
//!   Closing  ─ OutputStalled ──► Closing
//!   Closing  ─ Lingered ───────► Closing
//! ```
//!
//! A client that waits for Places is in the state `Awaiting`. In the asyncio version, this state is
//! in the frame of a suspended coroutine. The client's later commands are not read from the socket.
//! Commands that arrived together with the `WHATSAT` wait in `input`. The client waits for a
//! *call*: one question to Places, with all clients that asked it.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use log::{debug, info, warn};

use crate::core::base::clock::Time;
use crate::core::base::invariants::ensure;
use crate::core::base::limits::{LINE_BYTES, LimitValue, Limits};
use crate::core::base::settings::PlacesApi;
use crate::core::base::transitions::assert_transition;
use crate::core::client::close_reason::CloseReason;
use crate::core::client::proxied::ClientSource;
use crate::core::journal::durability::JournalSpace;
use crate::core::places::answer::{Outcome, first_empty_line};
use crate::core::places::call::CallId;
use crate::core::places::request::Question;
use crate::core::session::buffer::Buffer;
use crate::core::session::buffer_budget::Eviction;
use crate::core::session::connection_error::ConnectionError;
use crate::core::session::context::Context;
use crate::core::session::disposition::Disposition;
use crate::core::session::handshakes::FailureKind;
use crate::core::session::log_budget::{Lines, LogShare};
use crate::core::session::peer_label::PeerLabel;
use crate::core::session::protocol::{Protocol, StreamEnd};
use crate::core::session::tls::{TlsError, is_hello};
use crate::core::table::records::{Merge, Records};
use crate::core::wire::coordinates::Coordinates;
use crate::core::wire::escape::{Escaped, Shortened};
use crate::core::wire::lines::{Split, split, without_cr};
use crate::core::wire::message::{At, Command, Iamat, Whatsat};
use crate::core::wire::posix_time::{PosixTime, Skew};
use crate::core::wire::proxy_header::is_header_line;

/// What the node has to do after an event of a client, outside the client's session.
pub enum Effect {
    /// The node has to ask Places before the next command of the client runs. If the call begins,
    /// the node calls [`suspend`](Client::suspend). If no call can begin, the node calls
    /// [`answer_now`](Client::answer_now) at once, and then
    /// [`resume_input`](Protocol::resume_input).
    AskPlaces(PendingWhatsat),
    /// The client's connection is closed.
    Lost {
        /// The address that the client connected from.
        address: IpAddr,
        /// Whether the client was rejected.
        was_rejected: bool,
        /// The call that the client waited for. `None` if it did not wait for Places.
        call: Option<CallId>,
    },
}

/// A valid `WHATSAT` command that waits for its answer: the question for Places, and the parts of
/// the answer that do not come from Places.
#[derive(Default)]
pub struct PendingWhatsat {
    /// The question for Places.
    pub question: Question,
    /// The command, for the log.
    line: Box<[u8]>,
    /// The `AT` line of the record that the command names, copied when the command ran. It is the
    /// first line of the answer.
    at_line: Box<[u8]>,
    /// The sequence number of the change that stored the record.
    seq: u64,
    bound: u8,
}

/// The activity of a client. A drain closes silent clients first, and busy clients last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activity {
    /// The client is between two commands, and no input has arrived since the last call of
    /// [`Client::activity`].
    Silent,
    /// The client is between two commands, and input has arrived since the last call of
    /// [`Client::activity`].
    BetweenCommands,
    /// A command has not arrived completely, or its answer is not sent completely.
    Busy,
}

enum State {
    Reading,
    Awaiting(Box<(CallId, PendingWhatsat)>),
    /// The client's commands are not run any more. The output is sent, then the connection lingers.
    Closing {
        linger: Linger,
    },
}

/// A [`State`] without its data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum StateKind {
    Reading,
    Awaiting,
    Closing,
}

/// Why a client's state changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cause {
    /// A `WHATSAT` has to wait for Places.
    PlacesAsked,
    /// The call ended: Places answered, or the call failed or took too long.
    PlacesAnswered,
    /// The call ended, and the server is stopping.
    LastAnswer,
    /// A line is longer than [`LINE_BYTES`].
    LineTooLong,
    /// A line was not finished within `limits.line_ms`.
    LineUnfinished,
    /// The client speaks TLS where no TLS is expected.
    TlsUnexpected,
    /// The server is stopping.
    Stopped,
    /// A drain has called [`Client::leave`], and the client is between two commands.
    Left,
    /// The client did not read its answers for `limits.output_stall_ms`.
    OutputStalled,
    /// The disk refuses writes to the journal. The output that is held back reports records as
    /// stored, but the journal does not contain them.
    JournalRefused,
    /// The buffers of all connections together are full. The server chose this client to free
    /// memory.
    Evicted,
    /// The time for lingering is over.
    Lingered,
}

const TRANSITIONS: [(StateKind, Cause, StateKind); 17] = {
    use StateKind::{Awaiting, Closing, Reading};
    [
        (Reading, Cause::PlacesAsked, Awaiting),
        (Awaiting, Cause::PlacesAnswered, Reading),
        (Awaiting, Cause::LastAnswer, Closing),
        (Awaiting, Cause::OutputStalled, Closing),
        (Reading, Cause::LineTooLong, Closing),
        (Reading, Cause::LineUnfinished, Closing),
        (Reading, Cause::TlsUnexpected, Closing),
        (Reading, Cause::OutputStalled, Closing),
        (Reading, Cause::Stopped, Closing),
        (Reading, Cause::Left, Closing),
        (Reading, Cause::JournalRefused, Closing),
        (Closing, Cause::JournalRefused, Closing),
        (Reading, Cause::Evicted, Closing),
        (Awaiting, Cause::Evicted, Closing),
        (Closing, Cause::Evicted, Closing),
        (Closing, Cause::OutputStalled, Closing),
        (Closing, Cause::Lingered, Closing),
    ]
};

impl State {
    fn kind(&self) -> StateKind {
        match self {
            State::Reading => StateKind::Reading,
            State::Awaiting(_) => StateKind::Awaiting,
            State::Closing { .. } => StateKind::Closing,
        }
    }
}

/// How long the server continues to read input after all output is sent. A client can lose answers
/// that it has not read yet if the server closes a socket with unread input (RFC 9293 §3.6.1).
#[derive(Clone, Copy, PartialEq, Eq)]
enum Linger {
    No,
    /// For [`BRIEF_LINGER`], because all answers were sent before the server stopped.
    Briefly,
    /// Until the client closes, for at most `linger_ms`.
    Long,
}

/// Whether more input can arrive, and if not, how the input ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum InputState {
    /// More input can arrive.
    Open,
    /// The input has ended with a FIN, and over TLS with `close_notify`. A last line without LF is
    /// run like a line with LF.
    Ended,
    /// The input has ended without `close_notify`, so an attacker may have cut it off. A last line
    /// without LF may be incomplete, and is not run.
    CutOff,
}

/// The answer to a client that speaks TLS on a plain-text port. The client's TLS library reports
/// that this is not TLS.
const NO_TLS_HERE: &[u8] = b"? this port speaks plain text, not TLS\n";

/// The duration of [`Linger::Briefly`]: at least one round trip to most clients.
const BRIEF_LINGER: Duration = Duration::from_millis(200);

/// The session of one client.
pub struct Client {
    label: PeerLabel,
    state: State,
    /// Bytes that were read but not handled yet: an unfinished line, or commands that have to wait.
    input: Buffer,
    output: Buffer,
    /// Whether more input can arrive. This is independent of the state, because the input can end
    /// in each state.
    input_state: InputState,
    /// Whether reading is paused. The client pauses when its output has more than
    /// `output_high_bytes`, and goes on when the output has at most `output_low_bytes`. This is
    /// independent of the state: an answer of Places can pass the limit, and a client in `Closing`
    /// has output too.
    paused: bool,
    /// Whether the next command waits until the journal has reserved disk space for its record.
    /// Each call of [`run`](Client::run) computes this flag again. Only a client in the state
    /// `Reading` starts to wait.
    awaits_disk_space: bool,
    /// The sequence number of a change. Output is held back until the journal has stored this
    /// change.
    required_seq: u64,
    /// The time at which the unfinished line began. `None` if there is no unfinished line.
    line_since: Option<Time>,
    /// The start of the present stall or lingering. `Some` while output may be sent, or while the
    /// state is `Closing`. Each time the socket accepts output, the time begins again.
    stalled_since: Option<Time>,
    /// Whether the client was rejected. The session never changes this flag. The node counts
    /// rejected clients apart from other clients. A rejected client is `Closing` from the
    /// beginning.
    is_rejected: bool,
    /// Whether a drain has called [`Client::leave`]. The flag is independent of the state, because
    /// a drain can call `leave` in each state.
    is_leaving: bool,
    /// Whether input has arrived since the last call of [`Client::activity`] or
    /// [`Client::begin_drain`]. Before the first call, `true`: a new client does not count as
    /// silent.
    has_spoken: bool,
    /// The token bucket for log lines about invalid, refused and failed commands of this client.
    /// `None` until there is such a line.
    log_share: Option<Box<LogShare>>,
}

impl Client {
    /// The names of a client's states, for the operator. The state `Reading` has three of these
    /// names: `reading`, `paused`, and `waiting for room` (disk space for the journal).
    pub const STATES: [&'static str; 5] = [
        "reading",
        "paused",
        "waiting for room",
        "awaiting",
        "closing",
    ];

    /// Creates the session of a client that has connected, either directly or through a proxy.
    #[must_use]
    pub fn new(serial: u32, from: ClientSource) -> Client {
        let label = PeerLabel::new(serial, from.client);
        match from.proxy {
            None => debug!("{label}: connected"),
            Some(proxy) => debug!("{label}: connected through {proxy}"),
        }
        Client {
            label,
            state: State::Reading,
            input: Buffer::default(),
            output: Buffer::default(),
            input_state: InputState::Open,
            paused: false,
            awaits_disk_space: false,
            required_seq: 0,
            line_since: None,
            stalled_since: None,
            is_rejected: false,
            is_leaving: false,
            has_spoken: true,
            log_share: None,
        }
    }

    /// Creates the session of a rejected client. The session sends `last_line`, then closes.
    #[must_use]
    pub fn rejected(serial: u32, address: SocketAddr, last_line: &[u8]) -> Client {
        let from = ClientSource {
            client: address,
            proxy: None,
        };
        let mut client = Client::new(serial, from);
        client.is_rejected = true;
        client.state = State::Closing {
            linger: Linger::Long,
        };
        client.output.extend(last_line);
        client
    }

    /// Whether the client was rejected.
    #[must_use]
    pub fn is_rejected(&self) -> bool {
        self.is_rejected
    }

    /// Returns the address that the client connected from.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.label.address()
    }

    /// Returns the client's name in the log.
    #[must_use]
    pub fn label(&self) -> PeerLabel {
        self.label
    }

    /// Runs the commands in `bytes` until a command has to wait, the output is full, or no whole
    /// command is left. Returns the number of bytes that the caller has to remove from the input.
    fn run(&mut self, bytes: &[u8], context: &mut Context<'_>) -> (usize, Option<Effect>) {
        let mut consumed = 0;
        // A client whose commands cannot run for another reason (its state, or too much output)
        // does not wait for disk space.
        self.awaits_disk_space = false;
        while self.may_run(&context.settings.limits) {
            let rest = &bytes[consumed..];
            if rest.is_empty() {
                break;
            }
            let before = consumed;
            let line = match split(rest, LINE_BYTES) {
                Split::Line(line, length) => {
                    consumed += length;
                    without_cr(line)
                }
                Split::Unfinished | Split::TooLong if is_hello(rest) => {
                    self.refuse_tls(context);
                    break;
                }
                // At the end of the input, the last line needs no LF.
                Split::Unfinished if self.input_state == InputState::Ended => {
                    consumed += rest.len();
                    rest
                }
                Split::Unfinished if self.input_state == InputState::CutOff => {
                    self.drop_unfinished(rest.len(), context);
                    consumed += rest.len();
                    break;
                }
                Split::Unfinished => break,
                Split::TooLong => {
                    self.log_too_long(&rest[..LINE_BYTES], context);
                    self.reply_invalid(&rest[..LINE_BYTES]);
                    self.close(Cause::LineTooLong, Linger::Long);
                    break;
                }
            };
            // Only an `IAMAT` waits for space, because only its record is written to the journal.
            self.awaits_disk_space = context.room() == JournalSpace::Wait
                && matches!(Command::parse(line), Command::Iamat(_));
            if self.awaits_disk_space {
                consumed = before;
                break;
            }
            if let Some(pending) = self.command(line, rest, context) {
                return (consumed, Some(Effect::AskPlaces(pending)));
            }
        }
        let is_closing = matches!(self.state, State::Closing { .. });
        (if is_closing { bytes.len() } else { consumed }, None)
    }

    fn may_run(&mut self, limits: &Limits) -> bool {
        self.paused = match self.paused {
            true => self.output.len() > limits.output_low_bytes.to_count(),
            false => self.output.len() > limits.output_high_bytes.to_count(),
        };
        matches!(self.state, State::Reading) && !self.paused
    }

    /// Runs the command in `line`. Returns the command if it is a `WHATSAT` that Places has to
    /// answer. `input` is all unhandled input of the client, and begins with `line`.
    fn command(
        &mut self,
        line: &[u8],
        input: &[u8],
        context: &mut Context<'_>,
    ) -> Option<PendingWhatsat> {
        let command = Command::parse(line);
        // A `ClientHello` can contain the byte LF anywhere, even in its length field. So the
        // beginning of a `ClientHello` can look like a line.
        if matches!(command, Command::Invalid) && is_hello(input) {
            self.refuse_tls(context);
            return None;
        }
        let counters = &mut context.tally.counters;
        match command {
            Command::Blank => counters.blanks += 1,
            Command::Iamat(iamat) => {
                counters.iamats += 1;
                match self.iamat(&iamat, line, context) {
                    true => context.tally.counters.ats_answered += 1,
                    false => self.refuse(line, context),
                }
            }
            Command::Whatsat(whatsat) => {
                counters.whatsats += 1;
                let api = context.settings.places.api;
                let pending = PendingWhatsat::new(&whatsat, line, context.records, api);
                if pending.is_none() {
                    self.refuse(line, context);
                }
                return pending;
            }
            Command::Invalid => {
                counters.invalids += 1;
                self.refuse(line, context);
                self.log_proxy_header(line, context);
            }
        }
        None
    }

    /// Answers the `IAMAT` in `command`, and merges its record into the table. Returns `false` if
    /// the table or the journal has no space for the record.
    fn iamat(&mut self, iamat: &Iamat<'_>, command: &[u8], context: &mut Context<'_>) -> bool {
        if context.room() == JournalSpace::Full {
            return false;
        }
        let wall = PosixTime::from_nanos(context.now.wall);
        let skew = Skew::between(wall, iamat.stamp);
        context.tally.count_iamat(skew.lead(), context.now.time);
        let output = self.output.tail();
        let start = output.len();
        let at = At::write(output, &context.settings.name, skew, iamat);
        let line = &output[start..output.len() - 1];
        let (tally, limits, now) = (
            &mut *context.tally,
            &context.settings.limits,
            context.now.time,
        );
        let may_add_client = || tally.admit_new_name(self.label.address().ip(), limits, now);
        match at.map(|at| context.records.merge_own(line, &at, wall, may_add_client)) {
            Some(merged @ (Merge::Accepted | Merge::Stale)) => {
                if merged == Merge::Stale {
                    context.tally.counters.stale += 1;
                }
                if let Some(durability) = &mut context.durability {
                    let seq = if merged == Merge::Accepted {
                        let seq = context.records.last_seq();
                        durability.record(seq, context.records.last_epoch(), line);
                        seq
                    } else {
                        // The answer to a stale `IAMAT` is sent when the journal has stored the
                        // newer record.
                        let seq = context.records.seq(iamat.client);
                        debug_assert!(seq.is_some(), "a newer record made it stale");
                        seq.unwrap_or_default()
                    };
                    self.required_seq = self.required_seq.max(seq);
                }
                info!("{} <- {}", self.label, Escaped(command));
                info!("{} -> {}", self.label, Escaped(line));
                true
            }
            // The table does not store the record, so the answer does not wait for the journal.
            Some(Merge::Expired) => {
                context.tally.counters.stale += 1;
                info!("{} -> {}", self.label, Escaped(line));
                true
            }
            Some(Merge::NotAdmitted) => {
                output.truncate(start);
                self.log_not_admitted(context);
                false
            }
            Some(Merge::Full | Merge::UnknownServer) | None => {
                output.truncate(start);
                if context.records.refused().is_power_of_two() {
                    warn!(
                        "{}: no room for its record: limits.max_records or limits.max_record_bytes; {} records are there",
                        self.label,
                        context.records.len()
                    );
                }
                false
            }
        }
    }

    #[cold]
    fn drop_unfinished(&mut self, bytes: usize, context: &mut Context<'_>) {
        if self.may_log(1, 0, context) {
            info!(
                "{}: {bytes} bytes of a line without a newline are dropped: the connection ended without close_notify",
                self.label
            );
        }
    }

    #[cold]
    fn log_not_admitted(&mut self, context: &mut Context<'_>) {
        if self.may_log(1, 0, context) {
            let limits = &context.settings.limits;
            info!(
                "{}: a new client is refused: its address has introduced {} within {} ms (limits.new_names_per_address, new_names_ms)",
                self.label, limits.new_names_per_address, limits.new_names_ms
            );
        }
    }

    #[cold]
    fn log_too_long(&mut self, line: &[u8], context: &mut Context<'_>) {
        let line = shortened(line, &context.settings.limits);
        if self.may_log(2, line.max_text_bytes(), context) {
            let label = self.label;
            warn!("{label}: closing: {}", CloseReason::LineTooLong);
            info!("{label} -> ? {line}");
        }
    }

    /// Whether the log may contain `count` more lines about an invalid, refused or failed command.
    /// Each line quotes `quoted_bytes` bytes from the client. If the log may not contain the lines,
    /// `log_share` counts them as left out.
    fn may_log(&mut self, count: u64, quoted_bytes: usize, context: &mut Context<'_>) -> bool {
        let lines = Lines {
            count,
            quoted_bytes,
        };
        let (budget, limits) = (&mut context.tally.log_budget, &context.settings.limits);
        let share = self.log_share.get_or_insert_default();
        share.admit(lines, budget, limits, context.now.time)
    }

    /// Refuses a client that begins a TLS handshake on a plain connection or inside TLS. The bytes
    /// of a handshake contain no commands. So the server sends [`NO_TLS_HERE`], and closes the
    /// connection.
    #[cold]
    fn refuse_tls(&mut self, context: &mut Context<'_>) {
        let reason = match &context.settings.tls.clients {
            None => "it speaks TLS, where plain text is expected",
            Some(_) => "it speaks TLS within TLS",
        };
        let handshakes = &mut context.tally.handshakes;
        handshakes.count_failure(self.label, FailureKind::Unexpected, reason);
        self.output.extend(NO_TLS_HERE);
        self.close(Cause::TlsUnexpected, Linger::Long);
    }

    /// Logs an invalid command that is a PROXY header. Most likely, a proxy sent the header, and
    /// the address of this proxy is missing in `settings.proxies`.
    #[inline(never)]
    fn log_proxy_header(&self, line: &[u8], context: &mut Context<'_>) {
        if is_header_line(line) {
            let expects_headers = !context.settings.proxies.is_empty();
            context
                .tally
                .count_ignored_header(self.label, expects_headers);
        }
    }

    /// Logs a command that is invalid or refused, and answers with a copy of the line.
    fn refuse(&mut self, line: &[u8], context: &mut Context<'_>) {
        let shown = shortened(line, &context.settings.limits);
        if self.may_log(2, shown.max_text_bytes(), context) {
            info!("{} <- {shown}", self.label);
            info!("{} -> ? {shown}", self.label);
        }
        context.tally.counters.quoted += 1;
        self.reply_invalid(line);
    }

    /// Answers an invalid or refused line with `? ` and a copy of the line.
    fn reply_invalid(&mut self, line: &[u8]) {
        let output = self.output.tail();
        output.extend_from_slice(b"? ");
        output.extend_from_slice(line);
        output.push(b'\n');
    }

    /// Changes the state. Only this method changes the state.
    fn enter(&mut self, cause: Cause, state: State) {
        assert_transition(&TRANSITIONS, (self.state.kind(), cause, state.kind()));
        self.state = state;
    }

    fn close(&mut self, cause: Cause, linger: Linger) {
        self.enter(cause, State::Closing { linger });
    }

    /// Suspends the client until `call` is answered. Until then, the client's commands do not run,
    /// and the server does not read from the client's socket.
    pub fn suspend(&mut self, call: CallId, pending: PendingWhatsat) {
        info!("{} <- {}", self.label, Escaped(&pending.line));
        self.line_since = None;
        self.enter(
            Cause::PlacesAsked,
            State::Awaiting(Box::new((call, pending))),
        );
    }

    /// Appends the answer of the call. After this, the caller has to call
    /// [`resume_input`](Protocol::resume_input). If the server is stopping, this is the client's
    /// last answer, and the client is closed.
    ///
    /// If the record was forgotten or has expired while the call lasted, the command is refused.
    pub fn resume(&mut self, outcome: &mut Outcome, context: &mut Context<'_>) {
        let State::Awaiting(awaited) = &mut self.state else {
            return; // the client was closed before the answer came
        };
        let pending = std::mem::take(&mut awaited.1);
        match context.is_stopping {
            true => self.close(Cause::LastAnswer, Linger::Long),
            false => self.enter(Cause::PlacesAnswered, State::Reading),
        }
        if !pending.still_has_position(context.records) {
            return self.refuse(&pending.line, context);
        }
        let at_line = pending.at_line.trim_ascii_end();
        if outcome.is_data() || self.may_log(1, at_line.len(), context) {
            self.log_answer(&pending, outcome);
        }
        context.tally.counters.places_answered += 1;
        self.answer(&pending, outcome);
    }

    /// Answers a `WHATSAT` for which no call began.
    pub fn answer_now(
        &mut self,
        pending: &PendingWhatsat,
        outcome: &mut Outcome,
        context: &mut Context<'_>,
    ) {
        let command = shortened(&pending.line, &context.settings.limits);
        let at_line = pending.at_line.trim_ascii_end();
        if self.may_log(2, command.max_text_bytes().max(at_line.len()), context) {
            info!("{} <- {command}", self.label);
            self.log_answer(pending, outcome);
        }
        context.tally.counters.places_answered += 1;
        self.answer(pending, outcome);
    }

    fn log_answer(&self, pending: &PendingWhatsat, outcome: &mut Outcome) {
        let source = outcome.source();
        let json = outcome.json(pending.bound);
        info!(
            "{} -> {} and {} bytes of JSON, {source}",
            self.label,
            Escaped(pending.at_line.trim_ascii_end()),
            json.len(),
        );
    }

    /// Appends the answer to a `WHATSAT`: the record's line, the JSON, and two LF.
    fn answer(&mut self, pending: &PendingWhatsat, outcome: &mut Outcome) {
        let json = outcome.json(pending.bound);
        let output = self.output.tail();
        let start = output.len();
        output.extend_from_slice(&pending.at_line);
        output.extend_from_slice(json.as_bytes());
        output.extend_from_slice(b"\n\n");
        debug_assert_eq!(
            first_empty_line(&output[start..]),
            Some(output.len() - start),
            "the first empty line is the answer's end"
        );
        self.required_seq = self.required_seq.max(pending.seq);
    }

    /// Returns the call that the client waits for. `None` if the client does not wait for Places.
    #[must_use]
    pub fn awaited_call(&self) -> Option<CallId> {
        match &self.state {
            State::Awaiting(awaited) => Some(awaited.0),
            State::Reading | State::Closing { .. } => None,
        }
    }

    /// Handles the beginning of a drain: input that arrived earlier does not count as activity.
    pub fn begin_drain(&mut self) {
        self.has_spoken = false;
    }

    /// Returns the activity of the client, for a drain. Returns `None` if the client is closing.
    pub fn activity(&mut self) -> Option<Activity> {
        let has_spoken = std::mem::take(&mut self.has_spoken);
        match self.state {
            State::Closing { .. } => None,
            State::Reading if self.input.is_empty() && self.output.is_empty() => {
                Some(match has_spoken {
                    true => Activity::BetweenCommands,
                    false => Activity::Silent,
                })
            }
            State::Reading | State::Awaiting(..) => Some(Activity::Busy),
        }
    }

    /// Marks the client to be closed, because the server drains. The client is closed as soon as
    /// every command that has arrived is answered, and no part of another command has arrived.
    pub fn leave(&mut self) {
        self.is_leaving = true;
    }

    /// Returns since when the server has waited for the client: to finish a line, to read output,
    /// or to close. `None` if the server does not wait for the client.
    #[must_use]
    pub fn waits_since(&self) -> Option<Time> {
        self.line_since.or(self.stalled_since)
    }

    /// Closes the client without the output that is held back, because the disk refuses the records
    /// that this output reports as stored. Does nothing if the client waits for Places.
    pub fn close_unstored(&mut self) {
        if self.awaited_call().is_none() {
            // Later commands are dropped too. If they were answered, the client would take the
            // answer to a later command for the answer to an earlier command.
            self.output.clear();
            self.input.clear();
            self.line_since = None;
            self.close(Cause::JournalRefused, Linger::No);
        }
    }

    /// Closes the client at once, because the buffers of all connections together are full. The
    /// server sends nothing more to the client, and frees the client's buffers. Returns the call
    /// that the client waited for, or `None` if it did not wait for Places.
    pub fn evict(&mut self, eviction: Eviction, context: &mut Context<'_>) -> Option<CallId> {
        let call = self.awaited_call();
        if self.may_log(1, 0, context) {
            info!("{}: closing: {eviction}", self.label);
        }
        self.output.clear();
        self.input.clear();
        self.line_since = None;
        self.close(Cause::Evicted, Linger::No);
        call
    }

    /// Returns the output that may be sent. `sendable` is the last change that may be sent (see
    /// `Durability::sendable_through`). If the output waits for a later change, returns no bytes.
    #[inline]
    fn sendable_output(&self, sendable: u64) -> &[u8] {
        if self.required_seq > sendable {
            &[]
        } else {
            self.output.as_slice()
        }
    }

    /// Whether the client was paused, and its output has fallen to `output_low_bytes`. The caller
    /// then has to call [`resume_input`](Protocol::resume_input), even if no command waits in
    /// `input`. Otherwise the client would stay paused and its socket would never be read again.
    fn can_resume_commands(&self, limits: &Limits) -> bool {
        let is_low = self.output.len() <= limits.output_low_bytes.to_count();
        matches!(self.state, State::Reading) && self.paused && is_low
    }

    /// Stores the time at which the unfinished line in `input` began. `progress` says whether a
    /// command was just removed from the input.
    fn watch_line(&mut self, progress: bool, now: Time) {
        // If the client waits for space in the journal, or is paused, `input` can contain whole
        // lines. Then `input` does not count as an unfinished line.
        let is_read =
            matches!(self.state, State::Reading) && !self.paused && !self.awaits_disk_space;
        let unfinished = is_read && !self.input.is_empty();
        if progress || !unfinished {
            self.line_since = None;
        }
        if unfinished && self.line_since.is_none() {
            self.line_since = Some(now);
        }
    }

    fn linger(&self, limits: &Limits) -> Duration {
        match self.state {
            State::Closing {
                linger: Linger::Briefly,
            } => BRIEF_LINGER.min(limits.linger_ms.to_duration()),
            State::Reading | State::Awaiting(..) | State::Closing { .. } => {
                limits.linger_ms.to_duration()
            }
        }
    }

    /// Logs an unfinished line. Clients can leave lines unfinished as often as they like. So the
    /// log has a warning only for the 1st, 2nd, 4th, 8th … unfinished line of all clients.
    #[cold]
    fn log_unfinished(&mut self, line: &[u8], context: &mut Context<'_>) {
        let count = context.tally.count_unfinished();
        let shown = shortened(line, &context.settings.limits);
        let line_ms = context.settings.limits.line_ms;
        if !self.may_log(2, shown.max_text_bytes(), context) {
            return;
        }
        let label = self.label;
        let reason = CloseReason::LineUnfinished {
            bytes: line.len(),
            line_ms,
        };
        if count.is_power_of_two() {
            warn!(
                "{label}: closing: {reason}; a command ends with a newline (\\n); {count} so far"
            );
        } else {
            info!("{label}: closing: {reason}");
        }
        if Command::parse(line) != Command::Blank {
            info!("{label} -> ? {shown}");
        }
    }

    /// Logs the number of lines about this client that were left out of the log. Does nothing
    /// before the time that [`LogShare::due`] returns, unless the connection has ended (`is_over`).
    fn log_left_out(&mut self, context: &mut Context<'_>, is_over: bool) {
        let (limits, now) = (&context.settings.limits, context.now.time);
        if let Some(share) = &mut self.log_share
            && share.due(limits).is_some_and(|due| is_over || due <= now)
        {
            share.log_left_out(self.label, &mut context.tally.log_budget, limits, now);
        }
    }
}

impl Protocol for Client {
    type Effect = Effect;

    /// Does nothing, because the client sends the first bytes.
    fn connection_made(&mut self, _: &mut Context<'_>) -> Option<Effect> {
        None
    }

    fn data_received(&mut self, data: &[u8], context: &mut Context<'_>) -> Option<Effect> {
        self.has_spoken = true;
        if !self.input.is_empty() {
            self.input.extend(data);
            return self.resume_input(context);
        }
        let (consumed, effect) = self.run(data, context);
        self.input.extend(&data[consumed..]);
        self.watch_line(consumed > 0, context.now.time);
        effect
    }

    /// Runs the commands that arrived before the end. If the stream was cut off, a last line
    /// without LF is not run, because an attacker can have shortened it (RFC 8446, section 6.1).
    fn eof_received(&mut self, end: StreamEnd, context: &mut Context<'_>) -> Option<Effect> {
        self.input_state = match end {
            StreamEnd::Whole => InputState::Ended,
            StreamEnd::CutOff => InputState::CutOff,
        };
        self.resume_input(context)
    }

    /// Does nothing here: the failure is counted when the connection is lost.
    fn tls_failed(&mut self, _: &TlsError, _: &mut Context<'_>) -> Option<Effect> {
        None
    }

    fn connection_lost(
        &mut self,
        why: Option<&ConnectionError>,
        context: &mut Context<'_>,
    ) -> Option<Effect> {
        if let Some(tls) = context.tls
            && let Some((kind, reason)) = tls.failure_to_count()
            && !context.is_stopping
        {
            let tally = &mut context.tally;
            if tls.began_with_header() {
                tally.count_ignored_header(self.label, !context.settings.proxies.is_empty());
            }
            tally.handshakes.count_failure(self.label, kind, reason);
        }
        self.log_left_out(context, true);
        let unanswered = match self.state {
            State::Awaiting(..) => ", without waiting for an answer of Places",
            State::Reading | State::Closing { .. } => "",
        };
        let reason = match (why, self.input_state) {
            (Some(why), _) => CloseReason::Lost(why.clone()),
            (None, InputState::Open | InputState::Ended) => CloseReason::Closed,
            (None, InputState::CutOff) => CloseReason::CutOff,
        };
        debug!(
            "{}: gone: {reason}{unanswered}, {} bytes unsent",
            self.label,
            self.output.len()
        );
        Some(Effect::Lost {
            address: self.address().ip(),
            was_rejected: self.is_rejected,
            call: self.awaited_call(),
        })
    }

    /// Runs the commands that wait in `input`.
    fn resume_input(&mut self, context: &mut Context<'_>) -> Option<Effect> {
        let mut input = std::mem::take(&mut self.input);
        let (consumed, effect) = self.run(input.as_slice(), context);
        input.consume(consumed);
        self.input = input;
        self.watch_line(consumed > 0, context.now.time);
        effect
    }

    fn deadline_reached(&mut self, context: &mut Context<'_>) -> Option<Effect> {
        self.log_left_out(context, false);
        let settings = context.settings;
        let (limits, now) = (&settings.limits, context.now.time);
        let is_due = |since: Option<Time>, time_limit: Duration| {
            since.is_some_and(|since| since + time_limit <= now)
        };
        if is_due(self.line_since, limits.line_ms.to_duration()) {
            let unfinished = std::mem::take(&mut self.input);
            self.log_unfinished(unfinished.as_slice(), context);
            if Command::parse(unfinished.as_slice()) != Command::Blank {
                self.reply_invalid(unfinished.as_slice());
            }
            self.line_since = None;
            self.close(Cause::LineUnfinished, Linger::Long);
        } else if self.output.is_empty() {
            if is_due(self.stalled_since, self.linger(limits)) {
                self.close(Cause::Lingered, Linger::No);
            }
        } else if is_due(self.stalled_since, limits.output_stall_ms.to_duration()) {
            if self.may_log(1, 0, context) {
                let reason = CloseReason::OutputStalled(limits.output_stall_ms);
                warn!("{}: closing: {reason}", self.label);
            }
            self.output.clear();
            self.close(Cause::OutputStalled, Linger::No);
        }
        None
    }

    fn stop(&mut self, _: &mut Context<'_>) {
        match self.state {
            // The client's next command may be on its way. Closing with unread input could destroy
            // answers that the client has not read yet.
            State::Reading => {
                let is_idle = self.input.is_empty() && self.output.is_empty();
                let linger = if is_idle {
                    Linger::Briefly
                } else {
                    Linger::Long
                };
                self.close(Cause::Stopped, linger);
            }
            // `Awaiting`: the client gets its answer, and `resume` then closes the connection.
            // `Closing`: nothing to do.
            State::Awaiting(..) | State::Closing { .. } => {}
        }
        self.input.clear();
        self.line_since = None;
    }

    #[inline]
    fn output(&mut self, context: &mut Context<'_>) -> &[u8] {
        self.sendable_output(context.sendable_through())
    }

    /// If the client was paused and its output has fallen to `output_low_bytes`, runs the next
    /// commands.
    fn output_sent(&mut self, count: usize, context: &mut Context<'_>) -> Option<Effect> {
        self.output.consume(count);
        self.stalled_since = Some(context.now.time);
        match self.can_resume_commands(&context.settings.limits) {
            true => self.resume_input(context),
            false => None,
        }
    }

    /// Closes a client that a drain has marked, if the client is between two commands. Sets or
    /// clears `stalled_since`. Output that is held back for the journal does not count as a stall,
    /// because the client cannot read that output.
    #[inline]
    fn flushed(&mut self, context: &mut Context<'_>) {
        if self.is_leaving && self.activity().is_some_and(|it| it != Activity::Busy) {
            // `Linger::Long`: the client's next command may be on its way. Closing with unread
            // input could destroy answers that the client has not read yet.
            self.close(Cause::Left, Linger::Long);
        }
        let waits = !self.sendable_output(context.sendable_through()).is_empty()
            || matches!(self.state, State::Closing { .. });
        self.stalled_since = match waits {
            true => self.stalled_since.or(Some(context.now.time)),
            false => None,
        };
    }

    #[inline]
    fn disposition(&self) -> Disposition {
        if !self.output.is_empty() {
            return Disposition::Open;
        }
        match self.state {
            State::Reading if self.input_state != InputState::Open && self.input.is_empty() => {
                Disposition::Close
            }
            State::Closing {
                linger: Linger::Briefly | Linger::Long,
            } if self.input_state == InputState::Open => Disposition::Finish,
            State::Closing { .. } => Disposition::Close,
            State::Reading | State::Awaiting(..) => Disposition::Open,
        }
    }

    fn wants_read(&self) -> bool {
        match self.state {
            State::Reading => {
                !self.paused && !self.awaits_disk_space && self.input_state == InputState::Open
            }
            State::Awaiting(..) => false,
            State::Closing { linger } => {
                linger != Linger::No && self.input_state == InputState::Open
            }
        }
    }

    fn awaits_disk_space(&self) -> bool {
        self.awaits_disk_space
    }

    fn required_seq(&self) -> u64 {
        if self.output.is_empty() {
            0
        } else {
            self.required_seq
        }
    }

    #[inline]
    fn deadline(&self, limits: &Limits) -> Option<Time> {
        let line = self
            .line_since
            .map(|since| since + limits.line_ms.to_duration());
        let stall = self
            .stalled_since
            .map(|since| match self.output.is_empty() {
                true => since + self.linger(limits),
                false => since + limits.output_stall_ms.to_duration(),
            });
        let left_out = self.log_share.as_ref().and_then(|share| share.due(limits));
        line.into_iter().chain(stall).chain(left_out).min()
    }

    #[inline]
    fn held_bytes(&self) -> usize {
        let pending = match &self.state {
            State::Awaiting(awaited) => size_of_val(&**awaited) + awaited.1.held_bytes(),
            State::Reading | State::Closing { .. } => 0,
        };
        self.input.held_bytes() + self.output.held_bytes() + pending
    }

    /// Returns one of [`Client::STATES`].
    fn state_name(&self) -> &'static str {
        let index = match self.state {
            State::Reading if self.awaits_disk_space => 2,
            State::Reading if self.paused => 1,
            State::Reading => 0,
            State::Awaiting(_) => 3,
            State::Closing { .. } => 4,
        };
        Client::STATES[index]
    }

    fn check_invariants(&self) -> Result<(), String> {
        let state = self.state_name();
        ensure!(
            self.line_since.is_none() || !self.input.is_empty(),
            "a line of a client that is {state} is unfinished, and not there"
        );
        ensure!(
            self.line_since.is_none() || matches!(self.state, State::Reading),
            "a client that is {state} is waited for to finish a line"
        );
        Ok(())
    }
}

/// Returns the part of a refused command that the log shows: the first `limits.log_quote_bytes`
/// bytes.
fn shortened<'a>(line: &'a [u8], limits: &Limits) -> Shortened<'a> {
    Shortened::new(line, limits.log_quote_bytes.to_count())
}

impl PendingWhatsat {
    /// Whether the table still has a location of the client that the command names.
    fn still_has_position(&self, records: &Records) -> bool {
        let at = At::parse(self.at_line.trim_ascii_end());
        at.is_some_and(|at| records.line(at.client).is_some())
    }

    fn held_bytes(&self) -> usize {
        self.line.len() + self.at_line.len()
    }

    /// Returns the question for Places that the `WHATSAT` in `line` contains. Returns `None` if the
    /// table has no record of the client whose name is in the command.
    fn new(
        whatsat: &Whatsat<'_>,
        line: &[u8],
        records: &Records,
        api: PlacesApi,
    ) -> Option<PendingWhatsat> {
        let at_line = records.line(whatsat.client)?.into_boxed_slice();
        let at = At::parse(at_line.strip_suffix(b"\n")?)?;
        let coordinates = Coordinates::parse(at.location)?;
        let question = Question::new(api, coordinates, whatsat.radius, whatsat.bound);
        Some(PendingWhatsat {
            question,
            line: line.into(),
            seq: records.seq(whatsat.client)?,
            at_line,
            bound: whatsat.bound,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::TRANSITIONS;
    use crate::core::base::transitions::assert_diagram;

    #[test]
    fn the_module_docs_show_the_transitions() {
        assert_diagram(include_str!("machine.rs"), &TRANSITIONS);
    }
}
