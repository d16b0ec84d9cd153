//! The session of a link, from the connection to its end. The other side is a neighbour or an
//! operator.
//!
//! ```text
//!   Connecting ─ Connected ──────► Greeting
//!   Greeting   ─ Greeted ────────► Proving
//!   Proving    ─ Proven ─────────► Starting
//!   Starting   ─ LifeReceived ───► Linked
//!   Proving    ─ StatusSent ─────► Serving
//!   Serving    ─ ForgetReceived ─► Forgetting
//!   Serving    ─ FollowReceived ─► Following
//!   Connecting ─ Closed ─────────► Closing
//!   Greeting   ─ Closed ─────────► Closing
//!   Proving    ─ Closed ─────────► Closing
//!   Starting   ─ Closed ─────────► Closing
//!   Linked     ─ Closed ─────────► Closing
//!   Serving    ─ Closed ─────────► Closing
//!   Forgetting ─ Closed ─────────► Closing
//!   Following  ─ Closed ─────────► Closing
//!   Closing    ─ Closed ─────────► Closing
//! ```

mod acknowledgement;
mod drain;
mod feed;
mod follow;
mod forget;
mod greeting;
mod status;

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use log::{debug, info, warn};

use self::acknowledgement::Acknowledgement;
use self::feed::{CatchUp, PendingSync};
use self::follow::Following;
use crate::core::base::boot_id::BootId;
use crate::core::base::clock::Time;
use crate::core::base::invariants::ensure;
use crate::core::base::limits::{LINK_LINE_BYTES, LimitValue, Limits, TURN_BYTES};
use crate::core::base::settings::TlsMode;
use crate::core::base::slots::Id;
use crate::core::base::transitions::assert_transition;
use crate::core::journal::durability::JournalSpace;
use crate::core::link::proof::{Nonce, Side};
use crate::core::session::buffer::Buffer;
use crate::core::session::connection_error::ConnectionError;
use crate::core::session::context::Context;
use crate::core::session::disposition::Disposition;
use crate::core::session::herd::tls_offer::AttemptOutcome;
use crate::core::session::herd::{FeedPosition, Herd, LinkError, NeighbourId, Repeat};
use crate::core::session::protocol::{Protocol, StreamEnd};
use crate::core::session::tls::{TlsError, is_tls};
use crate::core::table::records::{Origin, ReaderId};
use crate::core::wire::escape::Escaped;
use crate::core::wire::lines::{Split, split};
use crate::core::wire::proxy_header::{is_header, may_be_signature};

/// The maximum number of bytes that a log line or an error shows of a received line.
const MAX_SHOWN_BYTES: usize = 100;

/// The version of the neighbours' protocol.
pub const VERSION: u64 = 2;

/// The minimum time between two `CLOCK` lines on a link, in milliseconds.
const CLOCK_INTERVAL_MS: u64 = 60_000;

/// If no record arrives on a new link for this time, [`Link::is_caught_up`] assumes that the
/// neighbour has sent all its records.
const QUIET: Duration = Duration::from_millis(500);
/// The feed cuts off a batch of records at about [`TURN_BYTES`]. A batch that is shorter than this
/// constant was not cut off.
const SHORT_BATCH_BYTES: usize = TURN_BYTES - 2 * LINK_LINE_BYTES;

/// The name under which a tool connects to get the status of a server. No server has this name.
pub const OPERATOR: &str = "operator";

/// What the node has to do after an event of a link.
pub enum Effect {
    /// Close the older link to the same neighbour. The older link has this id. Most likely the
    /// older connection is broken, although this server has not noticed that.
    Replaces(Id),
    /// Begin a new life. The neighbour has a position that no `SYNC` of ours has sent, so our
    /// history was rolled back.
    RolledBack,
    /// Begin to drain, because an operator asks for it.
    Drain,
    /// Dial the neighbour again, because a connection that we dialled is lost.
    Lost {
        /// The neighbour that was dialled.
        neighbour: NeighbourId,
        /// The address to dial at once without TLS. `None` if the lost attempt is not repeated
        /// without TLS.
        plaintext_retry: Option<SocketAddr>,
    },
}

/// Parses a `u64` that is written in decimal digits, without a sign.
fn parse_number(text: &[u8]) -> Option<u64> {
    let digits = std::str::from_utf8(text)
        .ok()
        .filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))?;
    digits.parse().ok()
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// The socket is not connected yet.
    Connecting,
    /// This server waits for the other side's `HERD`.
    Greeting,
    /// This server waits for the other side's `PROOF`.
    Proving { their_nonce: Nonce },
    /// The other side has proven its name. This server waits for the other side's `LIFE`.
    Starting,
    /// Both sides send records. `reader` is the link's cursor in our feed. `boot` is the
    /// neighbour's life. Our table stores `origin` with each record that the neighbour sends in
    /// this life, so the record is not sent back.
    Linked {
        reader: ReaderId,
        origin: Origin,
        boot: BootId,
    },
    /// The other side is an operator, and was sent the status. The operator may send one
    /// `FORGET`, `FOLLOW` or `DRAIN`.
    Serving,
    /// An operator has sent `FORGET`. The answer waits until the tombstone, which is the change
    /// `seq`, is stored as durably as the record of an answered `IAMAT`. `had_position` is whether
    /// the table had a location of the client.
    Forgetting { seq: u64, had_position: bool },
    /// An operator follows the changes. [`Link::following`] contains the cursor.
    Following,
    /// The link ends: it handles no more lines, and appends nothing more to the output. If
    /// `awaits_end`, the connection is closed when the other side has closed it, or after
    /// `linger_ms`. If not, the connection is closed at once.
    Closing { awaits_end: bool },
}

/// Whether the other side's name is known and proven.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Identity {
    Unknown,
    /// The other side has claimed a name: a neighbour's, or `operator` if the link has no
    /// neighbour.
    Claimed,
    Proven,
}

/// A [`State`] without its fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Connecting,
    Greeting,
    Proving,
    Starting,
    Linked,
    Serving,
    Forgetting,
    Following,
    Closing,
}

/// The reason why a link's state changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cause {
    /// The socket of the connection that we dialled is connected.
    Connected,
    /// The other side's `HERD` arrived.
    Greeted,
    /// The other side's `PROOF` arrived.
    Proven,
    /// The other side's `LIFE` arrived.
    LifeReceived,
    /// The other side has proven that it is an operator, and was sent the status.
    StatusSent,
    /// An operator's `FORGET` arrived.
    ForgetReceived,
    /// An operator's `FOLLOW` arrived.
    FollowReceived,
    /// Either side ends the link, for any reason.
    Closed,
}

const TRANSITIONS: [(Stage, Cause, Stage); 16] = [
    (Stage::Connecting, Cause::Connected, Stage::Greeting),
    (Stage::Greeting, Cause::Greeted, Stage::Proving),
    (Stage::Proving, Cause::Proven, Stage::Starting),
    (Stage::Starting, Cause::LifeReceived, Stage::Linked),
    (Stage::Proving, Cause::StatusSent, Stage::Serving),
    (Stage::Serving, Cause::ForgetReceived, Stage::Forgetting),
    (Stage::Serving, Cause::FollowReceived, Stage::Following),
    (Stage::Connecting, Cause::Closed, Stage::Closing),
    (Stage::Greeting, Cause::Closed, Stage::Closing),
    (Stage::Proving, Cause::Closed, Stage::Closing),
    (Stage::Starting, Cause::Closed, Stage::Closing),
    (Stage::Linked, Cause::Closed, Stage::Closing),
    (Stage::Serving, Cause::Closed, Stage::Closing),
    (Stage::Forgetting, Cause::Closed, Stage::Closing),
    (Stage::Following, Cause::Closed, Stage::Closing),
    (Stage::Closing, Cause::Closed, Stage::Closing),
];

impl State {
    fn stage(&self) -> Stage {
        match self {
            State::Connecting => Stage::Connecting,
            State::Greeting => Stage::Greeting,
            State::Proving { .. } => Stage::Proving,
            State::Starting => Stage::Starting,
            State::Linked { .. } => Stage::Linked,
            State::Serving => Stage::Serving,
            State::Forgetting { .. } => Stage::Forgetting,
            State::Following => Stage::Following,
            State::Closing { .. } => Stage::Closing,
        }
    }
}

/// The session of a connection between this server and a neighbour or an operator.
pub struct Link {
    id: Id,
    address: SocketAddr,
    side: Side,
    /// The neighbour that we dialled, or the neighbour whose name the other side of an accepted
    /// link claims. `None` on an accepted link from an operator, or before `HERD` has arrived on
    /// it.
    neighbour: Option<NeighbourId>,
    state: State,
    nonce: Nonce,
    input: Buffer,
    output: Buffer,
    /// The time at which the link entered its present state. `Proving`, `Starting` and `Linked` do
    /// not change the value: in these states, it is the time at which `Greeting` began.
    since: Time,
    /// Whether the other side's name is known and proven. The value does not change in `Closing`:
    /// the log still needs it, and so does the decision whether the next dial uses TLS.
    identity: Identity,
    last_received: Time,
    last_sent: Time,
    /// Whether the next line waits until our journal has reserved disk space for a record.
    /// [`Link::process_lines`] sets the value before each line. Only a link in `Linked` or
    /// `Serving` begins to wait, but the value can remain `true` in `Closing`.
    awaits_disk_space: bool,
    /// The link's cursor in our feed, from `Linked` or `Following` on. The cursor is closed when
    /// the connection is lost.
    reader: Option<ReaderId>,
    /// The first reason why the link ends.
    close_reason: Option<LinkError>,
    /// The position of our feed that the next `SYNC` sends. All records up to this position were
    /// appended to the output. [`Link::advance_sync`] explains why this can be less than the
    /// position up to which our feed was read.
    next_sync: u64,
    /// The position in the last `SYNC` that this link sent. Before the first `SYNC`, the position
    /// after which the link began to read our feed.
    last_sync: u64,
    /// A position greater than `next_sync`, which becomes `next_sync` when our journal contains
    /// enough changes: see [`PendingSync`].
    pending_sync: Option<PendingSync>,
    /// Whether a `SYNC` has to follow the records that were sent.
    needs_sync: bool,
    /// The progress in sending the changes that the neighbour did not have when the link began.
    /// `None` if there were none, or after a `KEPT` has confirmed all of them.
    catch_up: Option<CatchUp>,
    /// The life and the position of the other side's feed, as our `LIFE` sent them. `None` if our
    /// `LIFE` sent `- 0`, or was not sent yet.
    resume_position: Option<FeedPosition>,
    /// The positions of the other side's feed that are to be confirmed by `KEPT`.
    acknowledgement: Acknowledgement,
    /// The number of records that this link received and our table refused.
    refused: u64,
    /// The position of the neighbour's feed at which all records that our table refused on earlier
    /// links have arrived again. `u64::MAX` if this position is not known. `None` if no such record
    /// is missing.
    resend_end: Option<u64>,
    /// The number of bytes of records that arrived since the last `SYNC`.
    batch_bytes: usize,
    /// The time of the last `SYNC` that ended a batch of records. Before the first batch, the time
    /// at which the link began.
    last_batch: Time,
    /// Whether a batch of records was shorter than [`SHORT_BATCH_BYTES`]. See
    /// [`Link::is_caught_up`].
    received_all: bool,
    /// The number in the last `LACKS` that this link sent. 0 before the first `LACKS`.
    last_lacks: u64,
    /// The time at which our wall clock was last sent.
    last_clock: Time,
    /// The state that only a follower's link has, from `Following` on, until the connection is
    /// lost.
    following: Option<Box<Following>>,
}

/// The text that names the other side in the log. Without a proof of its name, the other side of an
/// accepted connection is an "unproven peer".
struct PeerLabel<'a>(&'a Link, &'a Herd);

impl fmt::Display for PeerLabel<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let PeerLabel(link, herd) = self;
        let name = link.neighbour.map(|neighbour| herd.get(neighbour).name());
        match name {
            Some(name) if link.is_known() => write!(f, "neighbour {name} {}", link.address),
            Some(name) => write!(f, "unproven peer {}, claiming to be {name}", link.address),
            None if link.identity == Identity::Proven => write!(f, "operator {}", link.address),
            None => write!(f, "unproven peer {}", link.address),
        }
    }
}

/// Returns the first [`MAX_SHOWN_BYTES`] bytes of a received line, escaped for the log.
fn excerpt(bytes: &[u8]) -> Escaped<'_> {
    Escaped(&bytes[..bytes.len().min(MAX_SHOWN_BYTES)])
}

impl Link {
    /// The names of the states that a link can be in.
    pub const STATES: [&'static str; 9] = [
        "connecting",
        "greeting",
        "proving",
        "starting",
        "linked",
        "serving",
        "forgetting",
        "following",
        "closing",
    ];

    /// Creates the link for a connection that this server dials.
    #[must_use]
    pub fn dial(
        id: Id,
        neighbour: NeighbourId,
        address: SocketAddr,
        nonce: Nonce,
        now: Time,
    ) -> Link {
        let neighbour = Some(neighbour);
        Link {
            side: Side::Dialler,
            neighbour,
            state: State::Connecting,
            ..Link::accept(id, address, nonce, now)
        }
    }

    /// Creates the link for a connection that this server accepted.
    #[must_use]
    pub fn accept(id: Id, address: SocketAddr, nonce: Nonce, now: Time) -> Link {
        Link {
            id,
            address,
            side: Side::Acceptor,
            neighbour: None,
            state: State::Greeting,
            nonce,
            input: Buffer::default(),
            output: Buffer::default(),
            since: now,
            identity: Identity::Unknown,
            last_received: now,
            last_sent: now,
            awaits_disk_space: false,
            reader: None,
            close_reason: None,
            next_sync: 0,
            last_sync: 0,
            pending_sync: None,
            needs_sync: false,
            catch_up: None,
            resume_position: None,
            acknowledgement: Acknowledgement::default(),
            refused: 0,
            resend_end: None,
            batch_bytes: 0,
            last_batch: now,
            received_all: false,
            last_lacks: 0,
            last_clock: now,
            following: None,
        }
    }

    /// Whether this server has received all records that the neighbour's feed had when the link
    /// began. No line of the protocol reports this, so there are two signs. A batch of records that
    /// was not cut off ends at the end of the feed. A neighbour that sends no record for half a
    /// second is assumed to have none to send.
    #[must_use]
    pub fn is_caught_up(&self, now: Time) -> bool {
        let is_quiet = self.batch_bytes == 0 && now.since(self.last_batch) >= QUIET;
        matches!(self.state, State::Linked { .. }) && (self.received_all || is_quiet)
    }

    /// Returns when the link entered its present state. For a link between two servers that is up
    /// or in its handshake, this is when the handshake began.
    #[must_use]
    pub fn since(&self) -> Time {
        self.since
    }

    /// Handles the complete lines in `bytes`. Returns the number of bytes that were consumed, and
    /// the effect of a `LIFE` or `DRAIN` line, if there is one. Other lines have no effect. A
    /// closing link consumes all bytes.
    fn process_lines(
        &mut self,
        bytes: &[u8],
        context: &mut Context<'_>,
    ) -> (usize, Option<Effect>) {
        let (mut used, mut effect) = (0, None);
        self.awaits_disk_space = false;
        while !self.is_closing() {
            if matches!(self.state, State::Greeting) {
                if is_tls(bytes) {
                    let reason = match context.settings.tls.neighbours {
                        // This server dialled without TLS because an attempt with TLS had failed.
                        Some(_) if self.side == Side::Dialler => LinkError::TlsRequired,
                        Some(_) | None => LinkError::UnexpectedTls,
                    };
                    self.protocol_error(reason, context);
                    break;
                }
                if is_header(bytes) {
                    self.protocol_error(LinkError::ProxyHeader, context);
                    break;
                }
                if may_be_signature(bytes) {
                    return (used, effect);
                }
            }
            // A line waits for disk space if it may write to the journal: each line of a neighbour,
            // because it may be a record, and a `FORGET`, because it writes a tombstone. All other
            // lines of an operator do not wait.
            let takes_records = matches!(self.state, State::Linked { .. })
                || matches!(self.state, State::Serving)
                    && bytes[used..].starts_with(b"FORGET ")
                    && bytes[used..].contains(&b'\n');
            self.awaits_disk_space = takes_records && context.room() == JournalSpace::Wait;
            if self.awaits_disk_space {
                return (used, effect);
            }
            let outcome = match split(&bytes[used..], LINK_LINE_BYTES) {
                Split::Line(line, length) => {
                    used += length;
                    self.line_received(line, context)
                }
                Split::Unfinished => return (used, effect),
                Split::TooLong => Err(LinkError::LineTooLong),
            };
            match outcome {
                Ok(None) => {}
                // Only `LIFE` and `DRAIN` have an effect. A link handles at most one of these
                // lines, so no effect is overwritten.
                Ok(wanted) => effect = wanted,
                Err(reason) => self.protocol_error(reason, context),
            }
        }
        (bytes.len(), effect)
    }

    /// Ends the link because the other side broke the protocol. If a proven neighbour dialled this
    /// link, new links from this neighbour are rejected for a while. If this server dialled, this
    /// server waits longer before it dials again.
    fn protocol_error(&mut self, reason: LinkError, context: &mut Context<'_>) {
        self.end(reason, context.now.time);
        if self.identity == Identity::Proven
            && self.side == Side::Acceptor
            && let Some(neighbour) = self.neighbour
        {
            let neighbour = context.herd.get_mut(neighbour);
            neighbour.reject_for_a_while(self.id, context.now.time);
        }
    }

    fn line_received(
        &mut self,
        line: &[u8],
        context: &mut Context<'_>,
    ) -> Result<Option<Effect>, LinkError> {
        if let State::Linked { origin, boot, .. } = self.state {
            if let Some((epoch, line)) = feed::parse_record(line) {
                return self
                    .record_received(epoch, line, origin, context)
                    .map(|()| None);
            }
            // A `SYNC` comes with nearly every record. So it is parsed without splitting the line.
            if let Some(position) = line.strip_prefix(b"SYNC ").and_then(parse_number) {
                self.sync_received(boot, position, context);
                return Ok(None);
            }
        }
        let mut words = line.split(|&byte| byte == b' ');
        let verb = words.next().unwrap_or_default();
        let rest: Vec<&[u8]> = words.collect();
        let outcome = match (verb, &*rest, self.state) {
            (b"BYE", reason, _) => {
                let reason = excerpt(&reason.join(&b' ')).to_string();
                self.close(LinkError::Bye(reason), true, context.now.time);
                Ok(())
            }
            (b"HERD", [b"2", from, to, nonce], State::Greeting) => {
                self.herd_received(from, to, nonce, context)
            }
            (b"HERD", [version, ..], State::Greeting) if *version != b"2" => {
                let outdated = match parse_number(version) {
                    Some(version) if version > VERSION => "this one",
                    Some(_) | None => "it",
                };
                Err(LinkError::Version {
                    theirs: excerpt(version).to_string(),
                    ours: VERSION,
                    outdated,
                })
            }
            (b"PROOF", [mac], State::Proving { their_nonce }) => {
                self.proof_received(mac, &their_nonce, context)
            }
            (b"LIFE", [boot, wall, own_boot, position], State::Starting) => {
                return self.life_received([boot, wall, own_boot, position], context);
            }
            (b"FORGET", [client], State::Serving) => self.forget_received(client, context),
            (b"FOLLOW", [start], State::Serving) => self.follow_received(start, context),
            (b"ALIVE", [], State::Following) => Ok(()),
            (b"DRAIN", [], State::Serving) => return Ok(Some(self.drain_received(context))),
            (b"SYNC", [_], State::Linked { .. }) => Err("a SYNC without a position".into()),
            (b"KEPT", [position], State::Linked { .. }) => {
                let position = parse_number(position).ok_or("a KEPT without a position")?;
                self.kept_received(position, context)
            }
            (b"LACKS", [records], State::Linked { .. }) => {
                let records = parse_number(records).ok_or("a LACKS without a number")?;
                self.lacks_received(records, context.herd);
                Ok(())
            }
            (b"CLOCK", [wall], State::Linked { .. }) => {
                let wall = parse_number(wall).ok_or("a CLOCK without a time")?;
                if let Some(neighbour) = self.neighbour {
                    greeting::compare_clocks(neighbour, wall, context);
                }
                Ok(())
            }
            _ => Err(LinkError::NotProtocol(excerpt(line).to_string())),
        };
        outcome.map(|()| None)
    }

    /// Ends the link. A `BYE` sends the reason to the other side.
    pub fn end(&mut self, reason: LinkError, now: Time) {
        match self.state {
            // A closing link has sent its last line, and a `Connecting` link cannot send.
            State::Closing { .. } | State::Connecting => {}
            State::Greeting
            | State::Proving { .. }
            | State::Starting
            | State::Linked { .. }
            | State::Serving
            | State::Forgetting { .. }
            | State::Following => self.send_line(format_args!("BYE {reason}")),
        }
        let awaits_end = !matches!(self.state, State::Connecting);
        self.close(reason, awaits_end, now);
    }

    /// Changes the state. The state changes only here.
    fn enter(&mut self, cause: Cause, state: State) {
        assert_transition(&TRANSITIONS, (self.state.stage(), cause, state.stage()));
        self.state = state;
    }

    /// Begins to close the link, or changes how a closing link is closed. `awaits_end` is whether
    /// the link waits for the other side to close the connection. After a call with `false`, the
    /// link never waits again.
    fn close(&mut self, reason: LinkError, awaits_end: bool, now: Time) {
        let awaited_end = match self.state {
            State::Closing { awaits_end } => awaits_end,
            State::Connecting
            | State::Greeting
            | State::Proving { .. }
            | State::Starting
            | State::Linked { .. }
            | State::Serving
            | State::Forgetting { .. }
            | State::Following => {
                self.since = now;
                true
            }
        };
        self.close_reason.get_or_insert(reason);
        let awaits_end = awaits_end && awaited_end;
        self.enter(Cause::Closed, State::Closing { awaits_end });
        self.input.clear();
    }

    /// Ends the link because this server stops. Does nothing while the link still has something to
    /// send: records or output in `Linked`, changes or output in `Following`, the answer in
    /// `Forgetting`.
    fn end_if_drained(&mut self, context: &Context<'_>) {
        let is_drained = match self.state {
            State::Linked { reader, .. } => {
                context.records.is_caught_up(reader) && self.output.is_empty()
            }
            State::Forgetting { .. } => false,
            State::Following => self.has_followed_all(),
            State::Connecting
            | State::Greeting
            | State::Proving { .. }
            | State::Starting
            | State::Serving
            | State::Closing { .. } => true,
        };
        if is_drained {
            if matches!(self.state, State::Linked { .. }) {
                self.send_kept();
            }
            self.end(LinkError::Stopping, context.now.time);
        }
    }

    /// Appends a line to the output.
    fn send_line(&mut self, line: fmt::Arguments<'_>) {
        let output = self.output.tail();
        // Writing into memory does not fail.
        let _ = std::io::Write::write_fmt(output, line);
        output.push(b'\n');
    }

    /// Returns the link's cursor in our feed. `None` before the link was `Linked` or `Following`,
    /// and after the connection is lost.
    #[must_use]
    pub fn reader(&self) -> Option<ReaderId> {
        self.reader
    }

    /// Whether the link is in `Closing`. A closing link handles no more lines.
    #[must_use]
    pub fn is_closing(&self) -> bool {
        matches!(self.state, State::Closing { .. })
    }

    /// Whether this server dialled the other side, or the other side has proven its name.
    #[must_use]
    pub fn is_known(&self) -> bool {
        self.side == Side::Dialler || self.identity == Identity::Proven
    }

    /// Returns the address of the other side.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns the neighbour that this server dialled, or the neighbour whose name the other side
    /// of an accepted link claims. `None` on an accepted link from an operator, or before `HERD`
    /// has arrived on it.
    #[must_use]
    pub fn neighbour(&self) -> Option<NeighbourId> {
        self.neighbour
    }

    /// Whether nothing has arrived yet on a connection that this server accepted.
    #[must_use]
    pub fn awaits_first_byte(&self) -> bool {
        self.side == Side::Acceptor
            && matches!(self.state, State::Greeting)
            && self.input.is_empty()
    }

    fn heartbeat_deadline(&self, limits: &Limits) -> Time {
        self.last_sent.plus_ms(limits.heartbeat_ms)
    }

    /// Returns the time at which the link counts as lost if nothing arrives before. `None` while
    /// the link is not read, because its next line waits for disk space.
    fn silence_deadline(&self, limits: &Limits) -> Option<Time> {
        (!self.awaits_disk_space).then(|| self.last_received.plus_ms(limits.link_silence_ms))
    }

    /// Ends the link at once: without a `BYE`, and without waiting for the other side to close.
    pub fn abort(&mut self, reason: LinkError, now: Time) {
        self.output.clear();
        self.close(reason, false, now);
    }

    /// Stores how a connection that we dialled ended. Returns `true` if this attempt with TLS
    /// failed, and our settings offer TLS but do not require it. Then the neighbour is to be
    /// dialled at once without TLS.
    fn report_attempt(&self, context: &mut Context<'_>) -> bool {
        let Some(neighbour) = self.dialled() else {
            return false;
        };
        let outcome = match context.tls {
            Some(_) if self.identity != Identity::Unknown => AttemptOutcome::Other, // TLS works
            Some(tls) if tls.has_received() => AttemptOutcome::TlsRefused,
            Some(_) => AttemptOutcome::TlsUnanswered,
            None => AttemptOutcome::Other,
        };
        let neighbour = context.herd.get_mut(neighbour);
        neighbour.record_attempt(outcome);
        let tls = context.settings.tls.neighbours.as_ref();
        let is_offered = tls.is_some_and(|tls| tls.mode == TlsMode::Offered);
        is_offered && neighbour.next_dial_is_plaintext() && !context.is_stopping
    }

    /// Returns the neighbour, if this server dialled it.
    fn dialled(&self) -> Option<NeighbourId> {
        self.neighbour.filter(|_| self.side == Side::Dialler)
    }

    /// Logs that the connection is lost, and reports the loss to the herd.
    fn log_lost(&self, reason: &LinkError, is_plaintext_retry: bool, context: &mut Context<'_>) {
        let reason = match reason.is_plain_text() && !is_plaintext_retry {
            true => &LinkError::NoTls,
            false => reason,
        };
        let label = PeerLabel(self, context.herd).to_string();
        if self.neighbour.is_none() && self.identity == Identity::Proven {
            return info!("{label}: {reason}");
        }
        let known = self.neighbour.filter(|_| self.is_known());
        let now = context.now.time;
        let Some(neighbour) = known else {
            return context.herd.log_refused_unproven(label, reason, now);
        };
        let neighbour = context.herd.get_mut(neighbour);
        if neighbour.set_unlinked(self.id, now) {
            match context.is_stopping {
                true => info!("{label}: lost: {reason}"),
                false => warn!("{label}: lost: {reason}"),
            }
        } else if neighbour.link().is_some() {
            debug!("{label}: {reason}");
        } else {
            match neighbour.link_failed(reason, now) {
                Repeat::Suppressed => debug!("{label}: {reason}"),
                // No warning: our settings offer TLS but do not require it, so a neighbour without
                // TLS is expected.
                repeat if is_plaintext_retry && reason.is_plain_text() => {
                    info!(
                        "{label}: {reason}; dialled without it, for it is only offered here{repeat}"
                    );
                }
                repeat if is_plaintext_retry => warn!(
                    "{label}: not linked over TLS: {reason}; dialled without TLS, for it is only offered here{repeat}"
                ),
                repeat => warn!("{label}: not linked: {reason}; trying on{repeat}"),
            }
        }
    }
}

impl Protocol for Link {
    type Effect = Effect;

    /// Sends our `HERD` if this server dialled. An acceptor waits for the dialler's `HERD`.
    fn connection_made(&mut self, context: &mut Context<'_>) -> Option<Effect> {
        if let (State::Connecting, Some(neighbour)) = (self.state, self.neighbour) {
            self.enter(Cause::Connected, State::Greeting);
            self.since = context.now.time;
            self.greet(&context.settings.name, context.herd.get(neighbour).name());
        }
        None
    }

    fn data_received(&mut self, data: &[u8], context: &mut Context<'_>) -> Option<Effect> {
        self.last_received = context.now.time;
        if !self.input.is_empty() {
            self.input.extend(data);
            return self.resume_input(context);
        }
        let (used, effect) = self.process_lines(data, context);
        self.input.extend(&data[used..]);
        effect
    }

    /// Ends the link. An incomplete line is dropped. If it was a record, it is not confirmed, so
    /// the neighbour sends it again on the next link.
    fn eof_received(&mut self, end: StreamEnd, context: &mut Context<'_>) -> Option<Effect> {
        let reason = match (self.state, end) {
            (State::Serving, _) => LinkError::StatusSent,
            (_, StreamEnd::Whole) => LinkError::PeerClosed,
            (_, StreamEnd::CutOff) => LinkError::CutOff,
        };
        self.close(reason, false, context.now.time);
        None
    }

    fn tls_failed(&mut self, error: &TlsError, context: &mut Context<'_>) -> Option<Effect> {
        let awaits_end = context.tls.is_some();
        self.close(error.clone().into(), awaits_end, context.now.time);
        None
    }

    /// Closes the cursor in our feed, logs the loss, and reports the loss to the herd.
    fn connection_lost(
        &mut self,
        why: Option<&ConnectionError>,
        context: &mut Context<'_>,
    ) -> Option<Effect> {
        if let Some(reader) = self.reader.take() {
            context.records.close_reader(reader);
        }
        if self.following.take().is_some() {
            context.herd.follower_is_lost(self.id);
        }
        let is_plaintext_retry = self.report_attempt(context);
        let lost = || why.map_or(LinkError::Closed, |why| LinkError::System(why.to_string()));
        let reason = self.close_reason.take().unwrap_or_else(lost);
        self.log_lost(&reason, is_plaintext_retry, context);
        let neighbour = self.dialled().filter(|_| !context.is_stopping)?;
        Some(Effect::Lost {
            neighbour,
            plaintext_retry: is_plaintext_retry.then_some(self.address),
        })
    }

    /// Handles the lines in `input`, which arrived incomplete or waited for disk space.
    fn resume_input(&mut self, context: &mut Context<'_>) -> Option<Effect> {
        // While the link was not read, the silence did not mean that the connection was lost.
        self.last_received = context.now.time;
        let mut input = std::mem::take(&mut self.input);
        let (used, effect) = self.process_lines(input.as_slice(), context);
        input.consume(used);
        self.input = input;
        effect
    }

    fn deadline_reached(&mut self, context: &mut Context<'_>) -> Option<Effect> {
        let (limits, now) = (&context.settings.limits, context.now.time);
        if self.deadline(limits).is_none_or(|due| due > now) {
            return None;
        }
        let reason = match self.state {
            State::Connecting => LinkError::ConnectTimeout(limits.link_connect_ms),
            State::Greeting | State::Proving { .. } | State::Starting => {
                LinkError::ProofTimeout(limits.link_proof_ms)
            }
            State::Serving if self.awaits_disk_space => {
                self.end(LinkError::DiskBusy(limits.link_silence_ms), now);
                return None;
            }
            State::Serving => {
                self.close(LinkError::StatusSent, true, now);
                return None;
            }
            State::Forgetting { .. } => {
                self.end(LinkError::JournalTimeout(limits.link_silence_ms), now);
                return None;
            }
            State::Linked { .. } | State::Following
                if self.silence_deadline(limits).is_some_and(|at| at <= now) =>
            {
                LinkError::Silence(limits.link_silence_ms)
            }
            State::Following => self.follower_due(limits, now)?,
            State::Linked { reader, .. } => {
                if self.heartbeat_deadline(limits) <= now {
                    let position = context.records.position(reader);
                    let (last_seq, floor) = (context.records.last_seq(), self.floor(context.herd));
                    self.advance_sync(position, last_seq, context.appended_through(), floor);
                    self.send_sync(context.herd);
                    self.send_lacks(context.herd.refused_records());
                }
                self.acknowledgement.advance(context.durable_through());
                self.send_kept();
                return None;
            }
            State::Closing { .. } => LinkError::CloseTimeout,
        };
        self.abort(reason, now);
        None
    }

    /// Does nothing, because the neighbour first gets the rest of the feed. [`Link::flushed`] ends
    /// the link afterwards.
    fn stop(&mut self, _: &mut Context<'_>) {}

    /// Returns the output. If the output is empty, first appends what comes next: records for a
    /// neighbour, or changes for a follower. Also appends the `FORGOTTEN` reply when it may be
    /// sent.
    fn output(&mut self, context: &mut Context<'_>) -> &[u8] {
        self.fill_output(context);
        self.fill_with_changes(context);
        self.reply_forgotten(context);
        self.output.as_slice()
    }

    fn output_sent(&mut self, count: usize, context: &mut Context<'_>) -> Option<Effect> {
        self.consume_output(count, context.now);
        self.follower_took(count);
        None
    }

    fn flushed(&mut self, context: &mut Context<'_>) {
        if context.is_stopping {
            self.end_if_drained(context);
        }
        if matches!(self.state, State::Linked { .. }) {
            let durable_through = context.durable_through();
            self.acknowledgement
                .update(durable_through, context.now.time);
        }
        self.follower_flushed(context.now.time);
    }

    fn disposition(&self) -> Disposition {
        match self.state {
            State::Closing { awaits_end: false } => Disposition::Close,
            State::Closing { awaits_end: true } if self.output.is_empty() => Disposition::Finish,
            State::Connecting
            | State::Greeting
            | State::Proving { .. }
            | State::Starting
            | State::Linked { .. }
            | State::Serving
            | State::Forgetting { .. }
            | State::Following
            | State::Closing { .. } => Disposition::Open,
        }
    }

    fn wants_read(&self) -> bool {
        !self.awaits_disk_space
    }

    fn awaits_disk_space(&self) -> bool {
        self.awaits_disk_space
    }

    /// Returns the number of the change that the journal has to store before the output is sent.
    /// Only the answer to a `FORGET` waits for the journal: `Link::fill_output` appends only
    /// records that may be sent.
    fn required_seq(&self) -> u64 {
        match self.state {
            State::Forgetting { seq, .. } => seq,
            State::Connecting
            | State::Greeting
            | State::Proving { .. }
            | State::Starting
            | State::Linked { .. }
            | State::Serving
            | State::Following
            | State::Closing { .. } => 0,
        }
    }

    fn deadline(&self, limits: &Limits) -> Option<Time> {
        Some(match self.state {
            State::Connecting => self.since + limits.link_connect_ms.to_duration(),
            State::Greeting | State::Proving { .. } | State::Starting => {
                self.since + limits.link_proof_ms.to_duration()
            }
            State::Linked { .. } => {
                let mut deadline = self.silence_deadline(limits);
                // While output waits for the socket, a heartbeat would only wait behind that
                // output.
                if self.output.is_empty() {
                    let heartbeat = self.heartbeat_deadline(limits);
                    let next = self
                        .acknowledgement
                        .due()
                        .map_or(heartbeat, |due| due.min(heartbeat));
                    deadline = Some(deadline.map_or(next, |silence| silence.min(next)));
                }
                deadline?
            }
            // The operator's `FORGET` arrived in time, and waits for disk space.
            State::Serving if self.awaits_disk_space => {
                self.since + limits.link_silence_ms.to_duration()
            }
            State::Serving => self.since + limits.linger_ms.to_duration(),
            State::Forgetting { .. } => self.since + limits.link_silence_ms.to_duration(),
            State::Following => self.follower_deadline(limits),
            State::Closing { .. } => self.since + limits.linger_ms.to_duration(),
        })
    }

    fn held_bytes(&self) -> usize {
        let following = self.following.as_ref().map_or(0, |it| it.held_bytes());
        self.input.held_bytes() + self.output.held_bytes() + following
    }

    /// Returns one of [`Link::STATES`].
    fn state_name(&self) -> &'static str {
        let place = match self.state {
            State::Connecting => 0,
            State::Greeting => 1,
            State::Proving { .. } => 2,
            State::Starting => 3,
            State::Linked { .. } => 4,
            State::Serving => 5,
            State::Forgetting { .. } => 6,
            State::Following => 7,
            State::Closing { .. } => 8,
        };
        Link::STATES[place]
    }

    fn check_invariants(&self) -> Result<(), String> {
        let state = self.state_name();
        let is_linked = matches!(self.state, State::Linked { .. });
        ensure!(
            !is_linked
                || self.reader.is_some()
                    && self.neighbour.is_some()
                    && self.identity == Identity::Proven,
            "a link that is linked has no neighbour that has proven itself, or no place in the feed"
        );
        ensure!(
            !matches!(self.state, State::Following)
                || self.reader.is_some() && self.following.is_some() && self.neighbour.is_none(),
            "a follower has no place in the feed, or is a neighbour"
        );
        ensure!(
            self.close_reason.is_some() == self.is_closing(),
            "a link that is {state} has a reason to close, or lacks one"
        );
        ensure!(
            !self.is_closing() || self.input.is_empty(),
            "a link that is closing has input"
        );
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::TRANSITIONS;
    use crate::core::base::transitions::assert_diagram;

    #[test]
    fn the_module_docs_show_the_transitions() {
        assert_diagram(include_str!("mod.rs"), &TRANSITIONS);
    }
}
