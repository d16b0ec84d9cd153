//! Why a link ends, or does not come about.

use std::fmt;

use crate::core::base::limits::LINK_LINE_BYTES;
use crate::core::session::handshakes::Kind;
use crate::core::session::tls::{NO_TLS, TlsError};

/// With TLS at one end only, nothing that the other end says makes sense.
const ONE_SIDED: &str = "[peers.tls] has to be in the config of both servers, or of neither, or with mode = \"offered\" in one";

/// A reason. As text, the other side is its subject, and text of the other side is escaped. The
/// other side is told the same text in `BYE`.
#[derive(Clone, Debug, PartialEq)]
pub enum LinkError {
    /// The neighbour's name cannot be resolved, in the resolver's words.
    Unresolved(String),
    /// The connection cannot be made, or broke, in the system's words.
    System(String),
    /// This server closed the connection, for no other reason.
    Closed,
    /// The connection was not made in so many milliseconds.
    NotConnected(u64),
    /// The other side did not prove who it is in so many milliseconds.
    NotProven(u64),
    /// Nothing was heard for so many milliseconds.
    Silent(u64),
    /// The other side did not close.
    NotClosed,
    /// The other side closed the connection.
    PeerClosed,
    /// The same, but without `close_notify`.
    CutOff,
    /// The other side ended the link with `BYE`.
    Goodbye(String),
    /// TLS cannot go on.
    Tls(TlsError),
    /// The other side does not speak TLS, which is required here.
    NoTls,
    /// The other side speaks TLS, which is not spoken here.
    SpeaksTls,
    /// TLS was tried and failed, and the other side speaks nothing else.
    OnlyTls,
    /// A PROXY header came.
    ProxyHeader,
    /// A line of a known verb, and something is wrong with it.
    Malformed(&'static str),
    /// A line that is too long.
    LongLine,
    /// A line that is none of the protocol.
    NotProtocol(String),
    /// A record that is none.
    NotARecord(String),
    /// The other side speaks another version of the protocol.
    Version {
        /// Its version.
        theirs: String,
        /// The version that this server speaks.
        ours: u64,
        /// Which of the two is older, as far as that is known.
        outdated: &'static str,
    },
    /// The other side means another server.
    LooksFor {
        /// The name that it means.
        name: String,
        /// The name of this server.
        here: String,
    },
    /// The certificate is for another name than the one that is claimed.
    OtherCertificate(String),
    /// The name that is claimed is no neighbour's.
    NoNeighbour {
        /// That name.
        name: String,
        /// The name of this server.
        here: String,
    },
    /// Another server than the one that was dialled.
    AnsweredInstead(String),
    /// It is this server that dials that neighbour.
    WeDial {
        /// The neighbour.
        name: String,
        /// The name of this server.
        here: String,
    },
    /// The neighbour broke the protocol just now.
    KeptOut(String),
    /// The neighbour has no secret, and this server has one.
    NoSecretThere(String),
    /// The neighbour has a secret, and this server has none.
    NoSecretHere(String),
    /// The neighbour's secret is none of this server's.
    OtherSecret {
        /// The neighbour.
        name: String,
        /// How many secrets this server has.
        count: usize,
    },
    /// The neighbour confirms what it was not told.
    KeptTooMuch {
        /// The position that it confirms.
        position: u64,
        /// The greatest position that it was told.
        most: u64,
    },
    /// Another unproven peer needed the place.
    Displaced,
    /// A newer connection to the same neighbour took its place.
    Replaced,
    /// This server begins a new life.
    RolledBack,
    /// This server stops.
    Stopping,
    /// An operator was told how the server stands.
    StatusTold,
}

impl LinkError {
    /// Whether the other side answered a handshake in plain text.
    #[must_use]
    pub fn is_plain_text(&self) -> bool {
        matches!(self, LinkError::Tls(error) if error.kind == Kind::PlainText)
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
            LinkError::NotConnected(ms) => write!(f, "no connection within {ms} ms"),
            LinkError::NotProven(ms) => write!(f, "it did not prove who it is within {ms} ms"),
            LinkError::Silent(ms) => write!(f, "nothing heard for {ms} ms"),
            LinkError::NotClosed => f.write_str("it did not close"),
            LinkError::PeerClosed => f.write_str("it closed the connection"),
            LinkError::CutOff => f.write_str("it ended the connection without saying so in TLS"),
            LinkError::Goodbye(reason) => write!(f, "it said goodbye: {reason}"),
            LinkError::Tls(error) => write!(f, "{error}"),
            LinkError::NoTls => write!(f, "{NO_TLS}; {ONE_SIDED}"),
            LinkError::SpeaksTls => write!(f, "it speaks TLS; {ONE_SIDED}"),
            LinkError::OnlyTls => f.write_str("it takes nothing but TLS"),
            // What stands in front of the neighbours' port is to pass bytes on as they are.
            LinkError::ProxyHeader => f.write_str("it sent a PROXY header, which only the clients' port takes; have the proxy send none to the neighbours' port"),
            LinkError::Malformed(what) => f.write_str(what),
            LinkError::LongLine => write!(f, "a line of more than {LINK_LINE_BYTES} bytes"),
            LinkError::NotProtocol(line) => write!(f, "not the neighbours' protocol: {line}"),
            LinkError::NotARecord(line) => write!(f, "not an AT line: {line}"),
            LinkError::Version {
                theirs,
                ours,
                outdated,
            } => write!(
                f,
                "it speaks version {theirs} of the neighbours' protocol, this server {ours}; upgrade {outdated}"
            ),
            LinkError::LooksFor { name, here } => write!(f, "it looks for {name}, this is {here}"),
            LinkError::OtherCertificate(name) => {
                write!(f, "its certificate is for another name than {name}")
            }
            LinkError::NoNeighbour { name, here } => write!(f, "{name} is not linked with {here}"),
            LinkError::AnsweredInstead(name) => write!(f, "{name} answered instead"),
            LinkError::WeDial { name, here } => write!(f, "it is {here} that dials {name}"),
            LinkError::KeptOut(name) => {
                write!(f, "{name} broke the protocol just now, and has to wait")
            }
            LinkError::NoSecretThere(name) => write!(
                f,
                "a wrong proof: {name} has no herd secret, and this server has one"
            ),
            LinkError::NoSecretHere(name) => write!(
                f,
                "a wrong proof: {name} has a herd secret, and this server has none"
            ),
            LinkError::OtherSecret { name, count: 1 } => write!(
                f,
                "a wrong proof: the secret that {name} proves is not the one here; both need the same"
            ),
            LinkError::OtherSecret { name, count } => write!(
                f,
                "a wrong proof: the secret that {name} proves is none of the {count} here; both need the same"
            ),
            LinkError::KeptTooMuch { position, most } => {
                write!(f, "it has kept {position}, and was told {most} at most")
            }
            LinkError::Displaced => f.write_str(
                "as many as limits.max_unproven were there, and its place was needed",
            ),
            LinkError::Replaced => f.write_str("a newer connection took its place"),
            LinkError::RolledBack => {
                f.write_str("its history was rolled back; it begins a new life")
            }
            LinkError::Stopping => f.write_str("stopping"),
            LinkError::StatusTold => f.write_str("told how the server stands"),
        }
    }
}
