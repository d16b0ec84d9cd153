//! TLS as a layer of bytes: ciphertext of the socket on one side, plaintext of the protocol on the
//! other.
//!
//! rustls is a state machine without a socket, as asyncio's `sslproto` drives OpenSSL through a
//! `MemoryBIO`; [`Tls`] is the glue. [`TlsSession`] puts it between a socket and a session of any
//! kind.
//!
//! ```text
//!   Handshaking ─ HandshakeDone ─► Open
//!   Handshaking ─ HungUp ────────► Closed
//!   Handshaking ─ Error ─────────► Failed
//!   Open        ─ HungUp ────────► Closed
//!   Open        ─ Error ─────────► Failed
//! ```
//!
//! In `Closed`, `close_notify` was sent. In `Failed`, the alert was sent that belongs to the error,
//! if there is one.

use std::fmt;
use std::io::{self, Read, Write};
use std::sync::Arc;

use rustls::pki_types::{CertificateDer, ServerName};
use rustls::server::ParsedCertificate;
use rustls::{
    AlertDescription, CertificateError, ClientConfig, ClientConnection, Connection, PeerMisbehaved,
    ServerConfig, ServerConnection,
};

use crate::core::base::clock::Time;
use crate::core::base::limits::{Limits, count, ms};
use crate::core::base::transitions::assert_transition;
use crate::core::session::buffer::Buffer;
use crate::core::session::disposition::Disposition;
use crate::core::session::handshakes::Kind;
use crate::core::session::protocol::StreamEnd;
use crate::core::wire::proxy_header::may_be_header;

/// What came of received ciphertext.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Received {
    /// The other side closed its direction with `close_notify`: no byte was cut off.
    pub closed_cleanly: bool,
    /// The record in which it ends began in it.
    pub is_new_record: bool,
}

/// Why TLS cannot go on with a side that speaks none.
pub const NO_TLS: &str = "it does not speak TLS";

/// The first byte of a connection over TLS: the type of a record of the handshake (RFC 8446,
/// section 5.1). No line begins with it. Under TLS 1.3, encrypted records of it say that they are
/// data.
pub const HANDSHAKE: u8 = 0x16;

/// Whether bytes that were to be lines of text begin a record of TLS: a hello, or an alert (RFC
/// 8446, section 5.1).
#[must_use]
pub fn is_tls(bytes: &[u8]) -> bool {
    matches!(bytes, [0x15 | HANDSHAKE, 3, ..])
}

/// Whether bytes begin as a client's hello does: a record of the handshake, of SSL 3.0 to TLS 1.3,
/// with a `ClientHello` in it (RFC 8446, sections 4 and 5.1). No text does.
#[must_use]
pub fn is_hello(bytes: &[u8]) -> bool {
    matches!(bytes, [0x16, 3, 0..=4, _, _, 1, ..])
}

/// What a client over TLS is told that is not let in: a record in the clear, before its hello is
/// even read. The alert is internal_error (RFC 8446, section 6.2).
pub const NOT_LET_IN: &[u8] = &alert_in_the_clear(INTERNAL_ERROR);

/// The numbers of alerts that we send ourselves (RFC 8446, section 6).
const ILLEGAL_PARAMETER: u8 = 47;
const DECODE_ERROR: u8 = 50;
const INTERNAL_ERROR: u8 = 80;

/// A record with a fatal alert.
const fn alert_in_the_clear(alert: u8) -> [u8; 7] {
    [21, 3, 3, 0, 2, 2, alert]
}

/// Why a connection cannot go on.
#[derive(Clone, Debug, PartialEq)]
pub struct TlsError {
    /// In words for an operator or a client; the other side is its subject.
    pub reason: String,
    /// Why its certificate was refused, if it was: that does not mend itself. In a box, because
    /// every connection has room for it.
    pub mistrust: Option<Box<CertificateError>>,
    /// What kind of failure it is.
    pub kind: Kind,
}

impl TlsError {
    fn new(kind: Kind, reason: String) -> TlsError {
        TlsError {
            reason,
            mistrust: None,
            kind,
        }
    }
}

impl From<rustls::Error> for TlsError {
    fn from(error: rustls::Error) -> TlsError {
        let kind = Kind::of(&error);
        let mistrust = match &error {
            rustls::Error::InvalidCertificate(reason) => Some(Box::new(reason.clone())),
            _ => None,
        };
        let reason = match error {
            rustls::Error::InvalidCertificate(reason) => {
                let advice = match reason {
                    CertificateError::Expired
                    | CertificateError::ExpiredContext { .. }
                    | CertificateError::NotValidYet
                    | CertificateError::NotValidYetContext { .. } => {
                        "; it has to be made anew, or the clock here is wrong"
                    }
                    _ => "",
                };
                format!("its certificate was refused: {reason}{advice}")
            }
            rustls::Error::NoCertificatesPresented => "it showed no certificate".to_owned(),
            rustls::Error::InvalidMessage(_) if kind == Kind::PlainText => NO_TLS.to_owned(),
            rustls::Error::AlertReceived(AlertDescription::NoApplicationProtocol) => {
                "it refused the TLS handshake: by ALPN it speaks no protocol that was offered"
                    .to_owned()
            }
            rustls::Error::PeerMisbehaved(PeerMisbehaved::SelectedUnofferedApplicationProtocol) => {
                "by ALPN it chose a protocol that was not offered".to_owned()
            }
            rustls::Error::AlertReceived(alert) => {
                let advice = match alert {
                    AlertDescription::CertificateExpired => {
                        "; the certificate here has to be made anew, or the clock there is wrong"
                    }
                    _ => "",
                };
                format!("it refused the TLS handshake: {alert:?}{advice}")
            }
            other => format!("TLS failed: {other}"),
        };
        TlsError {
            reason,
            mistrust,
            kind,
        }
    }
}

impl From<io::Error> for TlsError {
    fn from(error: io::Error) -> TlsError {
        TlsError::new(Kind::Malformed, format!("TLS failed: {error}"))
    }
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

impl std::error::Error for TlsError {}

/// One side of a TLS connection.
pub struct Tls {
    connection: Connection,
    /// What the other side may have rustls keep, if that is bounded.
    bound: Option<Bound>,
    records: RecordLayer,
    /// Something was sent: from then on it may be encrypted. Independent of `is_deaf`: a refusal
    /// may be the first that is sent.
    has_spoken: bool,
    /// The other side was sent a `close_notify` or an alert, and is not listened to any more.
    is_deaf: bool,
}

/// See [`Tls::bounded`].
#[derive(Clone, Copy)]
struct Bound {
    bytes: usize,
    records: u64,
}

/// The longest record, its header included (RFC 5246, section 6.2.3).
const MAX_RECORD: usize = HEADER + (1 << 14) + 2_048;
/// Type, version and length.
const HEADER: usize = 5;

/// Where the records of a stream begin and end (RFC 8446, section 5.1), and which of them rustls
/// may still keep: it keeps a record until it is whole, and a message of the handshake until all
/// records of it are there. It does not tell, so this is what it keeps at most.
#[derive(Default)]
struct RecordLayer {
    /// Of the present record: type, version and length, as far as they are there.
    header: [u8; HEADER],
    header_bytes: usize,
    /// What is missing behind the header.
    left: usize,
    /// Whole records since something came of one; of those of the handshake, what they carry.
    whole: usize,
    /// So many records came since there was plaintext.
    silent: u64,
}

impl RecordLayer {
    /// Takes what rustls was given; returns whether the record in which it ends began in it, too.
    fn take(&mut self, mut data: &[u8]) -> bool {
        let mut is_new = !self.is_inside();
        while !data.is_empty() {
            if self.header_bytes < HEADER {
                let bytes = data.len().min(HEADER - self.header_bytes);
                self.header[self.header_bytes..][..bytes].copy_from_slice(&data[..bytes]);
                self.header_bytes += bytes;
                data = &data[bytes..];
                self.left = self.length();
            } else {
                let bytes = data.len().min(self.left);
                self.left -= bytes;
                data = &data[bytes..];
            }
            if self.header_bytes == HEADER && self.left == 0 {
                self.whole += self.begun();
                self.silent += 1;
                self.header_bytes = 0;
                is_new = true;
            }
        }
        is_new
    }

    /// What the header says, once it is there.
    fn length(&self) -> usize {
        let [.., high, low] = self.header;
        usize::from(u16::from_be_bytes([high, low]))
    }

    /// How much of the present record is there. A record of the handshake is in the clear or of TLS
    /// 1.2, and not padded: it counts as what it carries, so that its message may come in records
    /// of one byte each.
    fn begun(&self) -> usize {
        match self.header_bytes {
            HEADER if self.header[0] == HANDSHAKE => self.length() - self.left,
            HEADER => HEADER + self.length() - self.left,
            bytes => bytes,
        }
    }

    /// Something came of the whole records.
    fn worked_off(&mut self) {
        self.whole = 0;
    }

    /// Whether one was begun, and is not over.
    fn is_inside(&self) -> bool {
        self.header_bytes > 0
    }
}

impl Tls {
    /// The client side, about to send its hello; the certificate must be for `host`.
    ///
    /// # Errors
    /// `host` is neither a DNS name nor an IP address.
    pub fn client(config: Arc<ClientConfig>, host: &str) -> Result<Tls, TlsError> {
        let name = ServerName::try_from(host.to_owned()).map_err(|_| {
            let reason = format!("{host:?} is no name that a certificate can have");
            TlsError::new(Kind::Certificate, reason)
        })?;
        Ok(Tls::new(ClientConnection::new(config, name)?.into()))
    }

    /// The server side, waiting for a hello.
    ///
    /// # Errors
    /// The configuration cannot be used.
    pub fn server(config: Arc<ServerConfig>) -> Result<Tls, TlsError> {
        Ok(Tls::new(ServerConnection::new(config)?.into()))
    }

    fn new(connection: Connection) -> Tls {
        Tls {
            connection,
            bound: None,
            records: RecordLayer::default(),
            has_spoken: false,
            is_deaf: false,
        }
    }

    /// For a client, which may be anything: rustls keeps a message of the handshake until it is
    /// whole, which may take 64 KiB, in the handshake and behind it. No more is kept of one than
    /// `limits.tls_handshake_bytes` (test: `a_handshake_has_so_many_bytes_and_no_more`), once
    /// records may be encrypted, and padded, beside one whole record; there are no more than
    /// `limits.tls_handshake_records` in a row without plaintext; and what was begun has to be
    /// finished ([`Tls::is_unfinished`]).
    #[must_use]
    pub fn bounded(mut self, limits: &Limits) -> Tls {
        self.bound = Some(Bound {
            bytes: count(limits.tls_handshake_bytes),
            records: limits.tls_handshake_records,
        });
        self
    }

    /// Whether a bounded other side has begun a record, or a message of more bytes than a record
    /// has, and not finished it. Less is not told from padding, which may be all that a record has.
    #[must_use]
    pub fn is_unfinished(&self) -> bool {
        self.bound.is_some() && (self.records.is_inside() || self.records.whole > MAX_RECORD)
    }

    /// Ciphertext was taken: is there too much of it that nothing came of?
    fn check(&self) -> Result<(), TlsError> {
        let Some(Bound { bytes, records }) = self.bound else {
            return Ok(());
        };
        // What is encrypted may be padded: one whole record beside the one that is coming.
        let is_too_much = if self.has_spoken {
            self.records.whole > bytes + MAX_RECORD
        } else {
            self.records.whole + self.records.begun() > bytes
        };
        let what = if is_too_much {
            format!("{bytes} bytes (limits.tls_handshake_bytes)")
        } else if self.records.silent > records {
            format!("{records} records (limits.tls_handshake_records)")
        } else {
            return Ok(());
        };
        let where_ = if self.connection.is_handshaking() {
            "its TLS handshake has"
        } else {
            "without any data it sent"
        };
        Err(TlsError::new(
            Kind::TooLarge,
            format!("{where_} more than {what}"),
        ))
    }

    /// Tells the other side in a fatal alert that it cannot go on, if rustls has not.
    #[cold]
    fn alert(&mut self, kind: Kind, output: &mut Buffer) {
        if !self.has_spoken {
            let alert = match kind {
                Kind::TooSlow | Kind::CutOff => INTERNAL_ERROR,
                Kind::TooLarge => ILLEGAL_PARAMETER,
                Kind::PlainText
                | Kind::Version
                | Kind::Cipher
                | Kind::Distrust
                | Kind::Alert
                | Kind::Certificate
                | Kind::Malformed
                | Kind::Unexpected => DECODE_ERROR,
            };
            output.extend(&alert_in_the_clear(alert));
            self.has_spoken = true;
            return;
        }
        // Only rustls knows whether an alert has to be encrypted, and it sends none that it is
        // asked for. So it is given what ends any record, and then is none: its alert is
        // decode_error, or bad_record_mac.
        const NO_RECORD: [u8; 4_096] = [0xff; 4_096];
        for _ in 0..=(HEADER + MAX_RECORD) / NO_RECORD.len() {
            let taken = self.connection.read_tls(&mut &NO_RECORD[..]);
            if !matches!(taken, Ok(1..)) || self.connection.process_new_packets().is_err() {
                break;
            }
        }
        // Does nothing if a fatal alert was sent.
        self.connection.send_close_notify();
        // Writing into memory does not fail, and if it did the connection is being closed anyway.
        let _ = self.flush(output);
    }

    /// Whether the handshake is still going on.
    #[must_use]
    pub fn is_handshaking(&self) -> bool {
        self.connection.is_handshaking()
    }

    /// The protocol that was agreed on by ALPN, if one was.
    #[must_use]
    pub fn alpn(&self) -> Option<&[u8]> {
        self.connection.alpn_protocol()
    }

    /// The certificate that the other side has proven to be its own, if it was asked for one.
    #[must_use]
    pub fn certificate(&self) -> Option<&CertificateDer<'static>> {
        self.connection.peer_certificates()?.first()
    }

    /// Takes ciphertext; appends the plaintext in it to `plaintext`, and what has to be said in
    /// return to `output`.
    ///
    /// # Errors
    /// The other side is not who it should be, does not speak TLS, or says too much. Where there is
    /// an alert for that, it is in `output`.
    pub fn data_received(
        &mut self,
        data: &[u8],
        plaintext: &mut Vec<u8>,
        output: &mut Buffer,
    ) -> Result<Received, TlsError> {
        // Nobody waits for what comes behind a goodbye; of what is wrong in it nobody could be told
        // any more, for which rustls is not made (test: `garbage_behind_a_goodbye_is_passed_over`).
        if self.is_deaf {
            return Ok(Received::default());
        }
        let received = self.take(data, plaintext, output);
        if let Err(error) = &received {
            self.refuse(error.kind, output);
        }
        received
    }

    /// The other side is told in an alert that it cannot go on, and not listened to any more.
    pub fn refuse(&mut self, kind: Kind, output: &mut Buffer) {
        if !std::mem::replace(&mut self.is_deaf, true) {
            self.alert(kind, output);
        }
    }

    fn take(
        &mut self,
        mut data: &[u8],
        plaintext: &mut Vec<u8>,
        output: &mut Buffer,
    ) -> Result<Received, TlsError> {
        let mut received = Received::default();
        while !data.is_empty() && !received.closed_cleanly {
            // Only as much as rustls has room for: what it took is worked off before it is given
            // more.
            let given = data;
            let taken = self.connection.read_tls(&mut data)?;
            received.is_new_record |= self.records.take(&given[..taken]);
            let was_handshaking = self.connection.is_handshaking();
            let state = self.connection.process_new_packets();
            let has_answered = self.connection.wants_write();
            self.flush(output)?;
            let state = state.map_err(|error| self.error(error))?;
            let waiting = state.plaintext_bytes_to_read();
            let is_made = was_handshaking && !self.connection.is_handshaking();
            if waiting > 0 || is_made {
                self.records.silent = 0;
            }
            if waiting > 0 || is_made || has_answered {
                self.records.worked_off();
            }
            self.check()?;
            let start = plaintext.len();
            plaintext.resize(start + waiting, 0);
            if waiting > 0 {
                self.connection
                    .reader()
                    .read_exact(&mut plaintext[start..])?;
            }
            received.closed_cleanly = state.peer_has_closed();
            if taken == 0 {
                break; // after close_notify rustls takes nothing more
            }
        }
        Ok(received)
    }

    /// What an error of rustls means. A server's handshake is over when the client has accepted it;
    /// a client may still be refused when its own is.
    fn error(&self, error: rustls::Error) -> TlsError {
        match (&self.connection, &error) {
            (Connection::Server(server), rustls::Error::AlertReceived(alert))
                if !server.is_handshaking() =>
            {
                let reason = format!("it ended TLS with the alert {alert:?}");
                TlsError::new(Kind::of(&error), reason)
            }
            (Connection::Server(_) | Connection::Client(_), _) => error.into(),
        }
    }

    /// Sends plaintext.
    ///
    /// # Errors
    /// The connection is already closed.
    pub fn send(&mut self, plaintext: &[u8], output: &mut Buffer) -> Result<(), TlsError> {
        self.connection.writer().write_all(plaintext)?;
        self.flush(output)
    }

    /// Says that nothing more will be sent, and listens no more.
    pub fn hang_up(&mut self, output: &mut Buffer) {
        self.is_deaf = true;
        self.close(output);
    }

    /// Says that nothing more will be sent; what comes is still listened to.
    pub fn close(&mut self, output: &mut Buffer) {
        self.connection.send_close_notify();
        // Writing into memory does not fail, and if it did the connection is being closed anyway.
        let _ = self.flush(output);
    }

    /// Moves what rustls wants to send to `output`.
    ///
    /// # Errors
    /// None in practice: the destination is memory.
    pub fn flush(&mut self, output: &mut Buffer) -> Result<(), TlsError> {
        while self.connection.wants_write() {
            self.connection.write_tls(output.tail())?;
            self.has_spoken = true;
        }
        Ok(())
    }
}

/// Whether a certificate is for `name`.
#[must_use]
pub fn is_for(certificate: &CertificateDer<'_>, name: &str) -> bool {
    let (Ok(certificate), Ok(name)) = (
        ParsedCertificate::try_from(certificate),
        ServerName::try_from(name),
    ) else {
        return false;
    };
    rustls::client::verify_server_name(&certificate, &name).is_ok()
}

/// Why a handshake failed whose connection ended.
const CUT_OFF: &str = "it ended the connection in the TLS handshake";

/// Plaintext that is encrypted at once: what fits into one TLS record.
const RECORD_BYTES: usize = 16 * 1024;

#[derive(Clone, Debug, PartialEq)]
enum State {
    /// TLS is finding out who is there.
    Handshaking,
    /// Both directions may be used.
    Open,
    /// `close_notify` is said.
    Closed,
    /// It cannot go on.
    Failed(TlsError),
}

/// A [`State`] without what it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Handshaking,
    Open,
    Closed,
    Failed,
}

/// What changes the state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cause {
    /// Both sides have finished the handshake.
    HandshakeDone,
    /// The session above wants the connection closed.
    HungUp,
    /// The other side broke a rule of TLS, a limit or a deadline, or the stream was cut off.
    Error,
}

const TRANSITIONS: [(Stage, Cause, Stage); 5] = [
    (Stage::Handshaking, Cause::HandshakeDone, Stage::Open),
    (Stage::Handshaking, Cause::HungUp, Stage::Closed),
    (Stage::Handshaking, Cause::Error, Stage::Failed),
    (Stage::Open, Cause::HungUp, Stage::Closed),
    (Stage::Open, Cause::Error, Stage::Failed),
];

impl State {
    fn stage(&self) -> Stage {
        match self {
            State::Handshaking => Stage::Handshaking,
            State::Open => Stage::Open,
            State::Closed => Stage::Closed,
            State::Failed(_) => Stage::Failed,
        }
    }
}

/// What received ciphertext meant for the session above.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TlsEvents {
    /// The handshake is over: it is known who is there.
    pub is_made: bool,
    /// The other side will say no more, and nothing that it said was cut off.
    pub is_over: bool,
    /// TLS cannot go on: see [`TlsSession::error`].
    pub is_failed: bool,
}

/// What the end of the socket's stream means for the session above.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsEnd {
    /// Nothing: it is known already.
    Known,
    /// The other side says no more.
    Ended(StreamEnd),
    /// TLS cannot go on: see [`TlsSession::error`].
    Failed,
}

/// TLS between a socket and a session.
pub struct TlsSession {
    tls: Tls,
    state: State,
    /// When the present wait began, once it was asked for: for the end of the handshake, for the
    /// end of a record, for the other side to take an alert.
    since: Option<Time>,
    /// Ciphertext that waits for the socket.
    output: Buffer,
    /// How much of the session's output is in it, all of that or none.
    sealed: usize,
    /// The other side said `close_notify`. Independent of the state, which is our own direction.
    is_over: bool,
    /// The socket's stream has ended, or is not waited for. Independent of the state: an end may
    /// come in any of them.
    eof: bool,
    /// The other side has said something, whether it is TLS or not. Independent of the state: a
    /// connection that fails may have said nothing.
    has_spoken: bool,
    /// Its handshake has a deadline here.
    is_timed: bool,
}

impl TlsSession {
    /// A connection whose handshake begins.
    #[must_use]
    pub fn new(mut tls: Tls) -> TlsSession {
        let mut output = Buffer::default();
        let begun = tls.flush(&mut output);
        let mut session = TlsSession {
            tls,
            state: State::Handshaking,
            since: None,
            output,
            sealed: 0,
            is_over: false,
            eof: false,
            has_spoken: false,
            is_timed: true,
        };
        if let Err(error) = begun {
            session.fail(error);
        }
        session
    }

    /// The one place where its state changes. Each state has a wait of its own.
    fn enter(&mut self, cause: Cause, state: State) {
        assert_transition(&TRANSITIONS, (self.state.stage(), cause, state.stage()));
        self.state = state;
        self.since = None;
    }

    /// For a session that has a deadline of its own for the handshake.
    #[must_use]
    pub fn untimed(mut self) -> TlsSession {
        self.is_timed = false;
        self
    }

    /// Whether the other side has said something, be it TLS or not.
    #[must_use]
    pub fn has_spoken(&self) -> bool {
        self.has_spoken
    }

    /// The certificate that the other side has proven to be its own, if it was asked for one.
    #[must_use]
    pub fn certificate(&self) -> Option<&CertificateDer<'static>> {
        self.tls.certificate()
    }

    /// Whether a protocol was agreed on by ALPN. We offer none but HTTP/1.1, and that only to
    /// Places.
    #[must_use]
    pub fn has_agreed(&self) -> bool {
        self.tls.alpn().is_some()
    }

    /// Why it cannot go on.
    #[must_use]
    pub fn error(&self) -> Option<&TlsError> {
        match &self.state {
            State::Failed(error) => Some(error),
            State::Handshaking | State::Open | State::Closed => None,
        }
    }

    /// Why it cannot go on, in words.
    #[must_use]
    pub fn failure(&self) -> Option<&str> {
        self.error().map(|error| &*error.reason)
    }

    /// Why it failed, in the handshake or behind it, if it did or if the connection is lost now,
    /// and what kind of failure that is. A connection that said nothing has not failed: its port
    /// was looked at.
    #[must_use]
    pub fn failure_to_count(&self) -> Option<(Kind, &str)> {
        match &self.state {
            State::Failed(error) if error.kind == Kind::CutOff && self.is_silent() => None,
            State::Failed(error) => Some((error.kind, &error.reason)),
            State::Handshaking if !self.is_silent() => Some((Kind::CutOff, CUT_OFF)),
            State::Handshaking | State::Open | State::Closed => None,
        }
    }

    /// Whether the other side began with a PROXY header, which is not TLS.
    #[must_use]
    pub fn is_header_instead(&self) -> bool {
        let records = &self.tls.records;
        let is_first = records.silent == 0 && records.header_bytes == HEADER;
        is_first && may_be_header(&records.header)
    }

    fn is_silent(&self) -> bool {
        self.tls.records.silent == 0 && !self.tls.records.is_inside()
    }

    /// Takes ciphertext; appends the plaintext in it.
    pub fn data_received(&mut self, data: &[u8], plaintext: &mut Vec<u8>) -> TlsEvents {
        let mut news = TlsEvents::default();
        self.has_spoken = true;
        match self.tls.data_received(data, plaintext, &mut self.output) {
            Ok(received) => {
                if self.state == State::Handshaking && !self.tls.is_handshaking() {
                    self.enter(Cause::HandshakeDone, State::Open);
                    news.is_made = true;
                }
                if self.state == State::Open && received.is_new_record {
                    self.since = None;
                }
                news.is_over = received.closed_cleanly && !self.is_over;
                self.is_over |= received.closed_cleanly;
            }
            Err(error) => {
                news.is_failed = true;
                self.fail(error);
            }
        }
        news
    }

    /// The socket's stream ended; returns what that means for the session.
    pub fn eof_received(&mut self) -> TlsEnd {
        self.eof = true;
        match self.state {
            State::Closed if !self.is_over => TlsEnd::Ended(StreamEnd::Whole),
            State::Handshaking => {
                self.fail(TlsError::new(Kind::CutOff, CUT_OFF.to_owned()));
                TlsEnd::Failed
            }
            State::Open if !self.is_over => TlsEnd::Ended(StreamEnd::CutOff),
            State::Open | State::Closed | State::Failed(_) => TlsEnd::Known,
        }
    }

    /// It cannot go on; the other side is told in an alert, if it was not told already.
    #[cold]
    #[inline(never)]
    fn fail(&mut self, error: TlsError) {
        self.tls.refuse(error.kind, &mut self.output);
        self.enter(Cause::Error, State::Failed(error));
        self.sealed = 0;
    }

    /// Ciphertext that waits for the socket. Unless some of `plaintext`, the session's output, is
    /// in it already, some is encrypted behind it: so the end of a handshake and what is said first
    /// leave in one write.
    pub fn output(&mut self, plaintext: &[u8]) -> &[u8] {
        if self.state == State::Open && self.sealed == 0 && !plaintext.is_empty() {
            let piece = &plaintext[..plaintext.len().min(RECORD_BYTES)];
            match self.tls.send(piece, &mut self.output) {
                Ok(()) => self.sealed = piece.len(),
                Err(error) => self.fail(error),
            }
        }
        self.output.as_slice()
    }

    /// The socket took `count` bytes of ciphertext. Returns how many bytes of the session's output
    /// are gone with them.
    pub fn output_sent(&mut self, count: usize) -> usize {
        self.output.consume(count);
        if self.output.is_empty() {
            std::mem::take(&mut self.sealed)
        } else {
            0
        }
    }

    /// What happens to the connection, if its session wants `disposition` and does or does not
    /// read. The flag says to ask again, once the farewell was tried to be written.
    pub fn disposition(
        &mut self,
        disposition: Disposition,
        is_read: bool,
        limits: &Limits,
        now: Time,
    ) -> (Disposition, bool) {
        let since = *self.since.get_or_insert(now);
        if self.state == State::Open && !is_read {
            self.since = None; // the other side cannot help it
        }
        match (&self.state, disposition) {
            (State::Failed(_), _) if self.eof || now >= since + ms(limits.linger_ms) => {
                (Disposition::Close, false)
            }
            // Its session does not wait for it.
            (State::Failed(_), Disposition::Close) => (Disposition::Close, false),
            // It is told why, and listened to until it has heard that.
            (State::Failed(_), _) if self.output.is_empty() => (Disposition::Finish, false),
            (State::Failed(_), _) => (Disposition::Open, false),
            (State::Handshaking | State::Open | State::Closed, Disposition::Open) => {
                (Disposition::Open, false)
            }
            (State::Handshaking | State::Open, Disposition::Finish | Disposition::Close) => {
                self.tls.hang_up(&mut self.output);
                self.enter(Cause::HungUp, State::Closed);
                (Disposition::Open, true)
            }
            (State::Closed, Disposition::Finish) if !self.output.is_empty() => {
                (Disposition::Open, false)
            }
            (State::Closed, disposition @ (Disposition::Finish | Disposition::Close)) => {
                (disposition, false)
            }
        }
    }

    /// When the next deadline is, if its session has this one. That of a session
    /// whose connection has failed counts no more: there is nothing that it could do about it.
    #[must_use]
    pub fn deadline(&self, session: Option<Time>, limits: &Limits) -> Option<Time> {
        let session = session.filter(|_| self.failure().is_none());
        session.into_iter().chain(self.own_deadline(limits)).min()
    }

    fn own_deadline(&self, limits: &Limits) -> Option<Time> {
        let wait = match self.state {
            State::Handshaking if self.is_timed => limits.tls_handshake_ms,
            State::Failed(_) => limits.linger_ms,
            // It may begin anything, and has to finish it.
            State::Open if self.tls.is_unfinished() && !self.eof => limits.line_ms,
            State::Handshaking | State::Open | State::Closed => return None,
        };
        Some(self.since? + ms(wait))
    }

    /// The deadline may have come. Returns whether TLS cannot go on: see [`TlsSession::error`].
    pub fn deadline_reached(&mut self, limits: &Limits, now: Time) -> bool {
        if self.own_deadline(limits).is_none_or(|due| due > now) {
            return false;
        }
        let reason = match self.state {
            State::Handshaking => format!("no TLS handshake within {} ms", limits.tls_handshake_ms),
            State::Open => format!("no end of a TLS record within {} ms", limits.line_ms),
            State::Closed | State::Failed(_) => return false,
        };
        self.fail(TlsError::new(Kind::TooSlow, reason));
        self.eof = true; // it is not waited for
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::base::transitions::assert_drawn;

    #[test]
    fn the_page_shows_the_transitions() {
        assert_drawn(include_str!("tls.rs"), &TRANSITIONS);
    }

    #[test]
    fn where_records_begin_and_end() {
        let record = |bytes: u8| [&[23, 3, 3, 0, bytes][..], &vec![b'x'; bytes.into()]].concat();
        let stream = [record(3), record(0), record(200)].concat();
        let ends = [8, 13, stream.len()];
        for step in 1..stream.len() {
            let mut records = RecordLayer::default();
            let mut at = 0;
            for piece in stream.chunks(step) {
                let was_inside = records.is_inside();
                let is_new = records.take(piece);
                let passed = ends
                    .iter()
                    .any(|end| (at + 1..=at + piece.len()).contains(end));
                assert_eq!(is_new, passed || !was_inside, "{step} {at}");
                at += piece.len();
                assert_eq!(records.is_inside(), !ends.contains(&at), "{step} {at}");
            }
        }
    }

    #[test]
    fn what_records_may_have_kept() {
        let mut records = RecordLayer::default();
        let handshake = [22, 3, 3, 0, 1, 7];
        // A header alone counts until it is known what it is of.
        records.take(&handshake[..3]);
        assert_eq!(records.begun(), 3);
        records.take(&handshake[3..5]);
        assert_eq!(records.begun(), 0);
        records.take(&handshake[5..]);
        assert_eq!((records.whole, records.begun()), (1, 0));
        // Of one byte each, they count as that byte.
        records.take(&handshake.repeat(99));
        assert_eq!((records.whole, records.silent), (100, 100));
        // What may be encrypted counts with all that it has.
        records.take(&[23, 3, 3, 0, 9, 1, 2]);
        assert_eq!((records.whole, records.begun()), (100, 7));
        records.take(&[0; 7]);
        assert_eq!((records.whole, records.silent), (114, 101));
        records.worked_off();
        records.take(&[23]);
        assert_eq!((records.whole, records.begun()), (0, 1));
    }
}
