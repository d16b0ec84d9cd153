//! The reasons for which a link ends or cannot be made.

use std::fmt;

use crate::core::base::limits::LINK_LINE_BYTES;
use crate::core::session::buffer_budget::Eviction;
use crate::core::session::handshakes::FailureKind;
use crate::core::session::tls::{NO_TLS, TlsError};
use crate::core::session::unproven::SlotKind;
use crate::core::wire::message::MAX_CLIENT_BYTES;

/// The advice for the case that only one side uses TLS.
const ONE_SIDED: &str = "[peers.tls] has to be in the config of both servers, or of neither, or with mode = \"offered\" in one";

/// The reason why a link ends or cannot be made. The text of a reason is written by `Display`. In
/// this text, "it" is the other side, and quoted input is escaped. The line `BYE`, which ends a
/// link, carries the same text to the other side.
#[derive(Clone, Debug, PartialEq)]
pub enum LinkError {
    /// The neighbour's host name cannot be resolved. The text is from the resolver.
    Unresolved(String),
    /// The connection cannot be made, or is broken. The text is from the system.
    System(String),
    /// This server closed the connection, and there is no other reason.
    Closed,
    /// The connection was not made within this number of milliseconds.
    ConnectTimeout(u64),
    /// The other side did not prove its name within this number of milliseconds.
    ProofTimeout(u64),
    /// Nothing was received for this number of milliseconds.
    Silence(u64),
    /// The other side did not close the connection in time.
    CloseTimeout,
    /// The other side closed the connection.
    PeerClosed,
    /// The other side closed the connection over TLS without `close_notify`.
    CutOff,
    /// The other side ended the link with `BYE`. The text is the reason in that line.
    Bye(String),
    /// TLS failed.
    Tls(TlsError),
    /// The other side does not use TLS, but this server requires TLS.
    NoTls,
    /// The other side uses TLS, but this server does not.
    UnexpectedTls,
    /// The other side requires TLS. This server dialled without TLS, after an attempt with TLS had
    /// failed.
    TlsRequired,
    /// The other side sent a PROXY header.
    ProxyHeader,
    /// A line begins with a known verb, but the rest is invalid. The text says what is wrong.
    Malformed(&'static str),
    /// A line is too long.
    LineTooLong,
    /// A line is not part of the neighbours' protocol. The text is that line.
    NotProtocol(String),
    /// A record is not a valid `AT` line. The text is that line.
    InvalidRecord(String),
    /// The other side speaks another version of the protocol.
    Version {
        /// The other side's version.
        theirs: String,
        /// The version that this server speaks.
        ours: u64,
        /// Which of the two servers is older, for the advice to upgrade it.
        outdated: &'static str,
    },
    /// The `HERD` of the other side names another server than this one as its receiver.
    WrongReceiver {
        /// The name of that other server.
        name: String,
        /// The name of this server.
        own_name: String,
    },
    /// The other side claims this name, but its certificate is for another name.
    WrongCertificate(String),
    /// The other side claims a name that is not the name of a neighbour.
    NoNeighbour {
        /// The name that the other side claims.
        name: String,
        /// The name of this server.
        own_name: String,
    },
    /// The server with this name answered instead of the neighbour that was dialled.
    WrongServer(String),
    /// The neighbour dialled this server, but the config says that this server dials.
    WeDial {
        /// The neighbour's name.
        name: String,
        /// The name of this server.
        own_name: String,
    },
    /// The neighbour with this name broke the protocol a short time ago. This server rejects the
    /// neighbour until a wait is over.
    Rejected(String),
    /// The neighbour with this name has no secret, but this server has one.
    NoPeerSecret(String),
    /// The neighbour with this name has a secret, but this server has none.
    NoOwnSecret(String),
    /// The neighbour's secret is not one of this server's secrets.
    WrongSecret {
        /// The neighbour's name.
        name: String,
        /// The number of secrets of this server.
        count: usize,
    },
    /// The neighbour confirms with `KEPT` a position that no `SYNC` of this server has sent.
    KeptBeyondSync {
        /// The position that the neighbour confirms.
        position: u64,
        /// The greatest position that a `SYNC` of this server has sent.
        max: u64,
    },
    /// This connection of an unproven peer was closed so that a new connection could take its slot.
    /// The field is the kind of slot, whose limit was reached: see [`SlotKind::limit`].
    Displaced(SlotKind),
    /// The buffers of all connections are full, and this connection was closed to free memory. Its
    /// peer had not proven a name.
    Evicted(Eviction),
    /// A newer connection to the same neighbour replaced this one.
    Replaced,
    /// This server begins a new life, because its history was rolled back.
    RolledBack,
    /// This server is stopping.
    Stopping,
    /// The server's status was sent to an operator, and the operator sent no command after that.
    StatusSent,
    /// The name in an operator's `FORGET` cannot be the name of a client.
    NoClientName,
    /// An operator's `FORGET` needs a tombstone, which is the record that a client is forgotten.
    /// The disk or the table has no space for this record.
    NoRoomToForget,
    /// An operator's `FORGET` has waited for disk space for this number of milliseconds.
    DiskBusy(u64),
    /// The journal has not stored the tombstone of an operator's `FORGET` within this number of
    /// milliseconds.
    JournalTimeout(u64),
    /// An operator's `FORGET` was answered.
    Forgotten,
    /// Already this number of operators follow the changes.
    TooManyFollowers(u64),
    /// The socket of a follower accepted no output for this number of milliseconds.
    NotRead(u64),
    /// An operator's `DRAIN` was answered.
    Draining,
}

impl LinkError {
    /// Whether the other side answered a TLS handshake in plain text.
    #[must_use]
    pub fn is_plain_text(&self) -> bool {
        matches!(self, LinkError::Tls(error) if error.kind == FailureKind::PlainText)
    }
}

impl From<&'static str> for LinkError {
    fn from(what: &'static str) -> LinkError {
        LinkError::Malformed(what)
    }
}

impl From<TlsError> for LinkError {
    fn from(error: TlsError) -> LinkError {
        LinkError::Tls(error)
    }
}

impl std::error::Error for LinkError {}

impl fmt::Display for LinkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LinkError::Unresolved(reason) | LinkError::System(reason) => f.write_str(reason),
            LinkError::Closed => f.write_str("closed"),
            LinkError::ConnectTimeout(ms) => write!(f, "no connection within {ms} ms"),
            LinkError::ProofTimeout(ms) => write!(f, "it did not prove who it is within {ms} ms"),
            LinkError::Silence(ms) => write!(f, "nothing heard for {ms} ms"),
            LinkError::CloseTimeout => f.write_str("it did not close"),
            LinkError::PeerClosed => f.write_str("it closed the connection"),
            LinkError::CutOff => f.write_str("it ended the connection without saying so in TLS"),
            LinkError::Bye(reason) => write!(f, "it said goodbye: {reason}"),
            LinkError::Tls(error) => write!(f, "{error}"),
            LinkError::NoTls => write!(f, "{NO_TLS}; {ONE_SIDED}"),
            LinkError::UnexpectedTls => write!(f, "it speaks TLS; {ONE_SIDED}"),
            LinkError::TlsRequired => f.write_str("it takes nothing but TLS"),
            LinkError::ProxyHeader => f.write_str("it sent a PROXY header, which only the clients' port takes; have the proxy send none to the neighbours' port"),
            LinkError::Malformed(what) => f.write_str(what),
            LinkError::LineTooLong => write!(f, "a line of more than {LINK_LINE_BYTES} bytes"),
            LinkError::NotProtocol(line) => write!(f, "not the neighbours' protocol: {line}"),
            LinkError::InvalidRecord(line) => write!(f, "not an AT line: {line}"),
            LinkError::Version {
                theirs,
                ours,
                outdated,
            } => write!(
                f,
                "it speaks version {theirs} of the neighbours' protocol, this server {ours}; upgrade {outdated}"
            ),
            LinkError::WrongReceiver { name, own_name } => write!(f, "it looks for {name}, this is {own_name}"),
            LinkError::WrongCertificate(name) => {
                write!(f, "its certificate is for another name than {name}")
            }
            LinkError::NoNeighbour { name, own_name } => write!(f, "{name} is not linked with {own_name}"),
            LinkError::WrongServer(name) => write!(f, "{name} answered instead"),
            LinkError::WeDial { name, own_name } => write!(f, "it is {own_name} that dials {name}"),
            LinkError::Rejected(name) => {
                write!(f, "{name} broke the protocol just now, and has to wait")
            }
            LinkError::NoPeerSecret(name) => write!(
                f,
                "a wrong proof: {name} has no herd secret, and this server has one"
            ),
            LinkError::NoOwnSecret(name) => write!(
                f,
                "a wrong proof: {name} has a herd secret, and this server has none"
            ),
            LinkError::WrongSecret { name, count: 1 } => write!(
                f,
                "a wrong proof: the secret that {name} proves is not the one here; both need the same"
            ),
            LinkError::WrongSecret { name, count } => write!(
                f,
                "a wrong proof: the secret that {name} proves is none of the {count} here; both need the same"
            ),
            LinkError::KeptBeyondSync { position, max } => {
                write!(f, "it has kept {position}, and was told {max} at most")
            }
            LinkError::Displaced(slot_kind) => write!(
                f,
                "as many as limits.{} were there, and its place was needed",
                slot_kind.limit()
            ),
            LinkError::Evicted(eviction) => write!(f, "{eviction}"),
            LinkError::Replaced => f.write_str("a newer connection took its place"),
            LinkError::RolledBack => {
                f.write_str("its history was rolled back; it begins a new life")
            }
            LinkError::Stopping => f.write_str("stopping"),
            LinkError::StatusSent => f.write_str("told how the server stands"),
            LinkError::NoClientName => write!(
                f,
                "that cannot be the name of a client: it has white space, or more than {MAX_CLIENT_BYTES} bytes"
            ),
            LinkError::NoRoomToForget => f.write_str(
                "no room to write down that a client is forgotten: the disk is full, or limits.max_records or limits.max_record_bytes is reached",
            ),
            LinkError::DiskBusy(ms) => write!(
                f,
                "nothing is forgotten: its disk has made no room for the journal for {ms} ms"
            ),
            LinkError::JournalTimeout(ms) => write!(
                f,
                "its disk has not taken it for {ms} ms; the client is forgotten when it does, unless the server ends before"
            ),
            LinkError::Forgotten => f.write_str("told that the client is forgotten"),
            LinkError::TooManyFollowers(most) => {
                write!(f, "{most} followers are there, and limits.max_followers allows no more")
            }
            LinkError::NotRead(ms) => write!(
                f,
                "it read nothing for {ms} ms (limits.output_stall_ms); it may resume from its position"
            ),
            LinkError::Draining => f.write_str("told that this server drains"),
        }
    }
}
