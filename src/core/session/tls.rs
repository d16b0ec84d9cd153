//! TLS as a layer of bytes: the socket's ciphertext on one side, the protocol's plaintext on the
//! other.
//!
//! rustls is a state machine without a socket. It is used here as asyncio's `sslproto` uses OpenSSL
//! with a `MemoryBIO`. [`Tls`] wraps rustls. [`TlsSession`] is the layer between a socket and a
//! session of any kind. A session handles only plaintext.
//!
//! ```text
//!   Handshaking ─ HandshakeDone ─► Open
//!   Handshaking ─ HungUp ────────► Closed
//!   Handshaking ─ Error ─────────► Failed
//!   Open        ─ HungUp ────────► Closed
//!   Open        ─ Error ─────────► Failed
//! ```
//!
//! In `Closed`, `close_notify` is in the output or sent. In `Failed`, the last alert is in the
//! output or sent.

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
use crate::core::base::limits::{LimitValue, Limits};
use crate::core::base::transitions::assert_transition;
use crate::core::session::buffer::Buffer;
use crate::core::session::disposition::Disposition;
use crate::core::session::handshakes::FailureKind;
use crate::core::session::protocol::StreamEnd;
use crate::core::wire::proxy_header::may_be_header;

/// What [`Tls::data_received`] found in the received ciphertext.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Received {
    /// Whether the other side has sent `close_notify`: no more data follows, and nothing is
    /// missing.
    pub closed_cleanly: bool,
    /// Whether a TLS record began or ended in the received bytes.
    pub is_new_record: bool,
}

/// The text of the error if the other side does not speak TLS.
pub const NO_TLS: &str = "it does not speak TLS";

/// The first byte of a connection over TLS: the type of a TLS record with handshake messages (RFC
/// 8446, section 5.1). No line of text begins with this byte. In TLS 1.3, encrypted handshake
/// messages are in TLS records of the type application data.
pub const HANDSHAKE: u8 = 0x16;

/// Whether `bytes` begin with a TLS record of the type handshake or alert (RFC 8446, section 5.1).
/// Called where plain text is expected.
#[must_use]
pub fn is_tls(bytes: &[u8]) -> bool {
    matches!(bytes, [0x15 | HANDSHAKE, 3, ..])
}

/// Whether bytes begin like a TLS record of SSL 3.0 to TLS 1.3 that contains a `ClientHello`, which
/// is a client's first message (RFC 8446, sections 4 and 5.1). No text begins like this.
#[must_use]
pub fn is_hello(bytes: &[u8]) -> bool {
    matches!(bytes, [0x16, 3, 0..=4, _, _, 1, ..])
}

/// The bytes for a rejected client over TLS: an unencrypted TLS record with the alert
/// internal_error (RFC 8446, section 6.2). The server sends this alert before it reads the client's
/// hello.
pub const REJECTED_ALERT: &[u8] = &plaintext_alert(INTERNAL_ERROR);

/// The numbers of the alerts that this module builds itself (RFC 8446, section 6).
const ILLEGAL_PARAMETER: u8 = 47;
const DECODE_ERROR: u8 = 50;
const INTERNAL_ERROR: u8 = 80;

/// Returns an unencrypted TLS record with a fatal alert.
const fn plaintext_alert(alert: u8) -> [u8; 7] {
    [21, 3, 3, 0, 2, 2, alert]
}

/// The reason why a TLS connection failed.
#[derive(Clone, Debug, PartialEq)]
pub struct TlsError {
    /// A text for an operator or a client. In this text, "it" is the other side.
    pub reason: String,
    /// The reason why the other side's certificate was refused, and `None` after any other failure.
    /// After such a refusal, another attempt with the same certificate fails too. The reason is in
    /// a box to keep `TlsError` small, because every TLS session has space for a `TlsError`.
    pub certificate_error: Option<Box<CertificateError>>,
    /// The kind of the failure.
    pub kind: FailureKind,
}

impl TlsError {
    fn new(kind: FailureKind, reason: String) -> TlsError {
        TlsError {
            reason,
            certificate_error: None,
            kind,
        }
    }
}

impl From<rustls::Error> for TlsError {
    fn from(error: rustls::Error) -> TlsError {
        let kind = FailureKind::of(&error);
        let certificate_error = match &error {
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
            rustls::Error::InvalidMessage(_) if kind == FailureKind::PlainText => NO_TLS.to_owned(),
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
            certificate_error,
            kind,
        }
    }
}

impl From<io::Error> for TlsError {
    fn from(error: io::Error) -> TlsError {
        TlsError::new(FailureKind::Malformed, format!("TLS failed: {error}"))
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
    /// The limits that [`Tls::with_input_limits`] sets. `None` if the connection has no such
    /// limits.
    input_limits: Option<InputLimits>,
    records: RecordLayer,
    /// Whether this side has sent any bytes. If so, later TLS records of both sides may be
    /// encrypted.
    has_sent: bool,
    /// Whether `close_notify` or a fatal alert was sent by [`Tls::hang_up`] or [`Tls::refuse`].
    /// Then received bytes are ignored.
    read_closed: bool,
}

/// See [`Tls::with_input_limits`].
#[derive(Clone, Copy)]
struct InputLimits {
    bytes: usize,
    records: u64,
}

/// The maximum length of a TLS record, with its header (RFC 5246, section 6.2.3).
const MAX_RECORD: usize = HEADER + (1 << 14) + 2_048;
/// The length of a TLS record's header: type, version and length.
const HEADER: usize = 5;

/// Finds where the TLS records of a stream begin and end (RFC 8446, section 5.1), and counts the
/// bytes that rustls may have stored. rustls stores a TLS record until the record is whole, and a
/// handshake message until all TLS records of the message have arrived. rustls does not report how
/// much it stores, so the count is an upper bound.
#[derive(Default)]
struct RecordLayer {
    /// The received bytes of the present TLS record's header: type, version and length.
    header: [u8; HEADER],
    header_bytes: usize,
    /// The number of bytes of the present TLS record's body that have not arrived.
    remaining: usize,
    /// The number of bytes of whole TLS records since rustls last produced plaintext or output, or
    /// finished the handshake. For TLS records of the type handshake, only the bodies count.
    buffered: usize,
    /// The number of TLS records since the last plaintext, or since the end of the handshake.
    without_plaintext: u64,
}

impl RecordLayer {
    /// Counts the bytes in `data`, which rustls received. Returns whether a TLS record began or
    /// ended in `data`.
    fn data_received(&mut self, mut data: &[u8]) -> bool {
        let mut is_new = !self.is_in_record();
        while !data.is_empty() {
            if self.header_bytes < HEADER {
                let bytes = data.len().min(HEADER - self.header_bytes);
                self.header[self.header_bytes..][..bytes].copy_from_slice(&data[..bytes]);
                self.header_bytes += bytes;
                data = &data[bytes..];
                self.remaining = self.length();
            } else {
                let bytes = data.len().min(self.remaining);
                self.remaining -= bytes;
                data = &data[bytes..];
            }
            if self.header_bytes == HEADER && self.remaining == 0 {
                self.buffered += self.partial_bytes();
                self.without_plaintext += 1;
                self.header_bytes = 0;
                is_new = true;
            }
        }
        is_new
    }

    /// Returns the length of the body, from a complete header.
    fn length(&self) -> usize {
        let [.., high, low] = self.header;
        usize::from(u16::from_be_bytes([high, low]))
    }

    /// Returns how many bytes of the present TLS record rustls may have stored. A TLS record of the
    /// type handshake is unencrypted or of TLS 1.2, so it has no padding, and rustls stores only
    /// its body. If its header counted too, a short handshake in TLS records of one byte each would
    /// exceed the limit.
    fn partial_bytes(&self) -> usize {
        match self.header_bytes {
            HEADER if self.header[0] == HANDSHAKE => self.length() - self.remaining,
            HEADER => HEADER + self.length() - self.remaining,
            bytes => bytes,
        }
    }

    /// rustls has processed all complete TLS records, and stores none of them any more.
    fn mark_processed(&mut self) {
        self.buffered = 0;
    }

    /// Whether the present TLS record has begun and is not whole.
    fn is_in_record(&self) -> bool {
        self.header_bytes > 0
    }
}

impl Tls {
    /// Creates the client side. Its first output is the hello. The other side's certificate must be
    /// for `host`.
    ///
    /// # Errors
    /// `host` is neither a DNS name nor an IP address.
    pub fn client(config: Arc<ClientConfig>, host: &str) -> Result<Tls, TlsError> {
        let name = ServerName::try_from(host.to_owned()).map_err(|_| {
            let reason = format!("{host:?} is no name that a certificate can have");
            TlsError::new(FailureKind::Certificate, reason)
        })?;
        Ok(Tls::new(ClientConnection::new(config, name)?.into()))
    }

    /// Creates the server side, which waits for a hello.
    ///
    /// # Errors
    /// The configuration cannot be used.
    pub fn server(config: Arc<ServerConfig>) -> Result<Tls, TlsError> {
        Ok(Tls::new(ServerConnection::new(config)?.into()))
    }

    fn new(connection: Connection) -> Tls {
        Tls {
            connection,
            input_limits: None,
            records: RecordLayer::default(),
            has_sent: false,
            read_closed: false,
        }
    }

    /// Limits what rustls stores of the other side's input. A server needs these limits, because
    /// any machine can connect as a client. Without them, rustls stores up to 64 KiB of a handshake
    /// message until the message is whole, even after the handshake.
    ///
    /// - At most `limits.tls_handshake_bytes` bytes are stored (test:
    ///   `a_handshake_above_tls_handshake_bytes_is_refused`). After the server has sent something,
    ///   TLS records may be encrypted and padded, so one whole TLS record is allowed in addition.
    /// - At most `limits.tls_handshake_records` TLS records in a row may be without plaintext.
    /// - A TLS record or handshake message that has begun must be finished in time
    ///   ([`Tls::is_unfinished`]).
    #[must_use]
    pub fn with_input_limits(mut self, limits: &Limits) -> Tls {
        self.input_limits = Some(InputLimits {
            bytes: limits.tls_handshake_bytes.to_count(),
            records: limits.tls_handshake_records,
        });
        self
    }

    /// Whether the other side has begun a TLS record, or a handshake message longer than a TLS
    /// record, and has not finished it. An incomplete message of up to one TLS record in length
    /// does not count: its TLS records may be encrypted, so their bytes may also be only padding.
    /// Always `false` if the connection is not limited by [`Tls::with_input_limits`].
    #[must_use]
    pub fn is_unfinished(&self) -> bool {
        self.input_limits.is_some()
            && (self.records.is_in_record() || self.records.buffered > MAX_RECORD)
    }

    /// Checks the limits of [`Tls::with_input_limits`] after ciphertext was received.
    fn check_limits(&self) -> Result<(), TlsError> {
        let Some(InputLimits { bytes, records }) = self.input_limits else {
            return Ok(());
        };
        // Encrypted TLS records may be padded, so one whole TLS record is allowed in addition.
        let is_too_much = if self.has_sent {
            self.records.buffered > bytes + MAX_RECORD
        } else {
            self.records.buffered + self.records.partial_bytes() > bytes
        };
        let what = if is_too_much {
            format!("{bytes} bytes (limits.tls_handshake_bytes)")
        } else if self.records.without_plaintext > records {
            format!("{records} records (limits.tls_handshake_records)")
        } else {
            return Ok(());
        };
        let subject = if self.connection.is_handshaking() {
            "its TLS handshake has"
        } else {
            "without any data it sent"
        };
        Err(TlsError::new(
            FailureKind::TooLarge,
            format!("{subject} more than {what}"),
        ))
    }

    /// Sends a fatal alert, if rustls has not sent one.
    #[cold]
    fn alert(&mut self, kind: FailureKind, output: &mut Buffer) {
        if !self.has_sent {
            let alert = match kind {
                FailureKind::TooSlow | FailureKind::CutOff => INTERNAL_ERROR,
                FailureKind::TooLarge => ILLEGAL_PARAMETER,
                FailureKind::PlainText
                | FailureKind::Version
                | FailureKind::Cipher
                | FailureKind::Distrust
                | FailureKind::Alert
                | FailureKind::Certificate
                | FailureKind::Malformed
                | FailureKind::Unexpected => DECODE_ERROR,
            };
            output.extend(&plaintext_alert(alert));
            self.has_sent = true;
            return;
        }
        // This module cannot build the alert itself, because the alert may have to be encrypted
        // with the keys of rustls. But rustls has no function that sends a fatal alert. So rustls
        // gets bytes that complete any TLS record and are not a valid TLS record. Then rustls sends
        // the alert decode_error or bad_record_mac.
        const NO_RECORD: [u8; 4_096] = [0xff; 4_096];
        for _ in 0..=(HEADER + MAX_RECORD) / NO_RECORD.len() {
            let taken = self.connection.read_tls(&mut &NO_RECORD[..]);
            if !matches!(taken, Ok(1..)) || self.connection.process_new_packets().is_err() {
                break;
            }
        }
        // If the error was an alert from the other side, rustls sends no fatal alert. Then
        // `close_notify` is the last TLS record. Otherwise this call does nothing.
        self.connection.send_close_notify();
        // Writing to memory does not fail.
        let _ = self.flush(output);
    }

    /// Whether the handshake is not finished.
    #[must_use]
    pub fn is_handshaking(&self) -> bool {
        self.connection.is_handshaking()
    }

    /// Returns the protocol that was negotiated by ALPN, if any.
    #[must_use]
    pub fn alpn(&self) -> Option<&[u8]> {
        self.connection.alpn_protocol()
    }

    /// Returns the certificate of the other side, if a certificate was requested. The other side
    /// has proven that it has the private key of this certificate.
    #[must_use]
    pub fn certificate(&self) -> Option<&CertificateDer<'static>> {
        self.connection.peer_certificates()?.first()
    }

    /// Receives ciphertext. Appends its plaintext to `plaintext`, and the bytes to send in reply to
    /// `output`.
    ///
    /// # Errors
    /// The other side's certificate is refused, the bytes are not valid TLS, or a limit is
    /// exceeded. An alert for the other side is in `output`.
    pub fn data_received(
        &mut self,
        data: &[u8],
        plaintext: &mut Vec<u8>,
        output: &mut Buffer,
    ) -> Result<Received, TlsError> {
        // After our `close_notify` or alert, received bytes are not needed. If they are invalid,
        // rustls cannot send an alert any more (test: `bytes_after_close_notify_are_ignored`).
        if self.read_closed {
            return Ok(Received::default());
        }
        let received = self.process(data, plaintext, output);
        if let Err(error) = &received {
            self.refuse(error.kind, output);
        }
        received
    }

    /// Sends a fatal alert, and ignores all bytes that are received later. Does nothing after an
    /// earlier [`Tls::refuse`] or [`Tls::hang_up`].
    pub fn refuse(&mut self, kind: FailureKind, output: &mut Buffer) {
        if !std::mem::replace(&mut self.read_closed, true) {
            self.alert(kind, output);
        }
    }

    fn process(
        &mut self,
        mut data: &[u8],
        plaintext: &mut Vec<u8>,
        output: &mut Buffer,
    ) -> Result<Received, TlsError> {
        let mut received = Received::default();
        while !data.is_empty() && !received.closed_cleanly {
            // The buffer of rustls is limited. So rustls processes the bytes that it has before it
            // gets more.
            let before = data;
            let taken = self.connection.read_tls(&mut data)?;
            received.is_new_record |= self.records.data_received(&before[..taken]);
            let was_handshaking = self.connection.is_handshaking();
            let state = self.connection.process_new_packets();
            let has_answered = self.connection.wants_write();
            self.flush(output)?;
            let state = state.map_err(|error| self.error(error))?;
            let waiting = state.plaintext_bytes_to_read();
            let handshake_done = was_handshaking && !self.connection.is_handshaking();
            if waiting > 0 || handshake_done {
                self.records.without_plaintext = 0;
            }
            if waiting > 0 || handshake_done || has_answered {
                self.records.mark_processed();
            }
            self.check_limits()?;
            let start = plaintext.len();
            plaintext.resize(start + waiting, 0);
            if waiting > 0 {
                self.connection
                    .reader()
                    .read_exact(&mut plaintext[start..])?;
            }
            received.closed_cleanly = state.peer_has_closed();
            if taken == 0 {
                break; // after close_notify, rustls takes no more bytes
            }
        }
        Ok(received)
    }

    /// Converts an error of rustls. If a client sends an alert after the handshake, the error is
    /// not called a refusal, because the client has already accepted this server. An alert from a
    /// server can be a refusal at any time: in TLS 1.3, a client finishes its handshake before the
    /// server does.
    fn error(&self, error: rustls::Error) -> TlsError {
        match (&self.connection, &error) {
            (Connection::Server(server), rustls::Error::AlertReceived(alert))
                if !server.is_handshaking() =>
            {
                let reason = format!("it ended TLS with the alert {alert:?}");
                TlsError::new(FailureKind::of(&error), reason)
            }
            (Connection::Server(_) | Connection::Client(_), _) => error.into(),
        }
    }

    /// Encrypts `plaintext`, and appends the ciphertext to `output`.
    ///
    /// # Errors
    /// rustls does not accept all of the plaintext.
    pub fn send(&mut self, plaintext: &[u8], output: &mut Buffer) -> Result<(), TlsError> {
        self.connection.writer().write_all(plaintext)?;
        self.flush(output)
    }

    /// Sends `close_notify`, and ignores all bytes that are received later.
    pub fn hang_up(&mut self, output: &mut Buffer) {
        self.read_closed = true;
        self.close(output);
    }

    /// Sends `close_notify`. Received bytes are still processed.
    pub fn close(&mut self, output: &mut Buffer) {
        self.connection.send_close_notify();
        // Writing to memory does not fail.
        let _ = self.flush(output);
    }

    /// Appends all bytes that rustls wants to send to `output`.
    ///
    /// # Errors
    /// None in practice, because the bytes are written to memory.
    pub fn flush(&mut self, output: &mut Buffer) -> Result<(), TlsError> {
        while self.connection.wants_write() {
            self.connection.write_tls(output.tail())?;
            self.has_sent = true;
        }
        Ok(())
    }
}

/// Whether a certificate is for `name`.
#[must_use]
pub fn is_valid_for(certificate: &CertificateDer<'_>, name: &str) -> bool {
    let (Ok(certificate), Ok(name)) = (
        ParsedCertificate::try_from(certificate),
        ServerName::try_from(name),
    ) else {
        return false;
    };
    rustls::client::verify_server_name(&certificate, &name).is_ok()
}

/// The text of the error if the connection ended during the handshake.
const CUT_OFF: &str = "it ended the connection in the TLS handshake";

/// The maximum number of bytes of plaintext that are encrypted at once. They fit into one TLS
/// record.
const RECORD_BYTES: usize = 16 * 1024;

#[derive(Clone, Debug, PartialEq)]
enum State {
    /// The TLS handshake is in progress.
    Handshaking,
    /// This side has finished the handshake, and data may flow in both directions.
    Open,
    /// `close_notify` was sent.
    Closed,
    /// The connection failed.
    Failed(TlsError),
}

/// A [`State`] without its data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Handshaking,
    Open,
    Closed,
    Failed,
}

/// The causes of transitions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cause {
    /// This side has finished the handshake.
    HandshakeDone,
    /// The session above closes the connection or ends its output.
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

/// The events for the session after ciphertext arrived on its connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TlsEvents {
    /// This side has finished the handshake. If it requested a certificate, the certificate of the
    /// other side is verified.
    pub handshake_done: bool,
    /// The other side has sent `close_notify`: no more data follows, and nothing is missing.
    pub peer_closed: bool,
    /// TLS cannot go on: see [`TlsSession::error`].
    pub has_failed: bool,
}

/// What the end of the socket's stream means for the session above.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsEnd {
    /// The end changes nothing, because an earlier event has already reported to the session that
    /// no more data follows.
    Known,
    /// The other side sends no more data.
    Ended(StreamEnd),
    /// TLS cannot go on: see [`TlsSession::error`].
    Failed,
}

/// The TLS layer between a socket and a session.
pub struct TlsSession {
    tls: Tls,
    state: State,
    /// The time at which the present wait began: the wait for the end of the handshake, of a TLS
    /// record, or of the connection. The state determines which end. If this is `None`, the next
    /// call of [`TlsSession::disposition`] sets it.
    since: Option<Time>,
    /// Ciphertext that is not written to the socket yet.
    output: Buffer,
    /// The number of bytes of the session's output whose ciphertext is in `output`.
    encrypted_bytes: usize,
    /// Whether the other side has sent `close_notify`. The state does not show this, because the
    /// state describes our own direction.
    peer_closed: bool,
    /// Whether the socket's stream of input has ended, or this layer does not wait for the end any
    /// more. The stream may end in every state, so the state does not show this.
    eof: bool,
    /// Whether any bytes were received, TLS or not. A connection may fail before any bytes are
    /// received.
    has_received: bool,
    /// Whether this layer has a deadline for the handshake: see [`TlsSession::without_timeout`].
    has_timeout: bool,
}

impl TlsSession {
    /// The approximate memory of a connection over TLS that is idle, in bytes: keys, state, and the
    /// smallest buffer for received records. rustls does not report this number, so it was
    /// measured.
    pub const MIN_HELD_BYTES: usize = 9 * 1024;

    /// Starts the handshake of a new connection.
    #[must_use]
    pub fn new(mut tls: Tls) -> TlsSession {
        let mut output = Buffer::default();
        let begun = tls.flush(&mut output);
        let mut session = TlsSession {
            tls,
            state: State::Handshaking,
            since: None,
            output,
            encrypted_bytes: 0,
            peer_closed: false,
            eof: false,
            has_received: false,
            has_timeout: true,
        };
        if let Err(error) = begun {
            session.fail(error);
        }
        session
    }

    /// Changes the state. No other function changes it. The wait of the new state begins at the
    /// next call of [`TlsSession::disposition`].
    fn enter(&mut self, cause: Cause, state: State) {
        assert_transition(&TRANSITIONS, (self.state.stage(), cause, state.stage()));
        self.state = state;
        self.since = None;
    }

    /// Removes the deadline for the handshake, because the session above has one.
    #[must_use]
    pub fn without_timeout(mut self) -> TlsSession {
        self.has_timeout = false;
        self
    }

    /// Returns the number of bytes of memory that the layer holds: its own output, and an estimate
    /// of what rustls holds. The estimate is at least [`TlsSession::MIN_HELD_BYTES`].
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        let records = &self.tls.records;
        let inside = if records.is_in_record() {
            HEADER + records.length() - records.remaining
        } else {
            0
        };
        Self::MIN_HELD_BYTES + self.output.held_bytes() + records.buffered + inside
    }

    /// Whether any bytes were received from the other side, TLS or not.
    #[must_use]
    pub fn has_received(&self) -> bool {
        self.has_received
    }

    /// Returns the certificate of the other side, if a certificate was requested. The other side
    /// has proven that it has the private key of this certificate.
    #[must_use]
    pub fn certificate(&self) -> Option<&CertificateDer<'static>> {
        self.tls.certificate()
    }

    /// Whether the two sides agreed on a protocol by ALPN. Only connections to Places offer a
    /// protocol: HTTP/1.1.
    #[must_use]
    pub fn has_alpn(&self) -> bool {
        self.tls.alpn().is_some()
    }

    /// Returns the error if the connection has failed.
    #[must_use]
    pub fn error(&self) -> Option<&TlsError> {
        match &self.state {
            State::Failed(error) => Some(error),
            State::Handshaking | State::Open | State::Closed => None,
        }
    }

    /// Returns the kind and the reason of the failure, for the counters. A connection that is lost
    /// during its handshake has failed too. A connection that is lost before any bytes were
    /// received does not count: for example, a port scanner only tests whether the port is open.
    #[must_use]
    pub fn failure_to_count(&self) -> Option<(FailureKind, &str)> {
        match &self.state {
            State::Failed(error) if error.kind == FailureKind::CutOff && self.has_no_record() => {
                None
            }
            State::Failed(error) => Some((error.kind, &error.reason)),
            State::Handshaking if !self.has_no_record() => Some((FailureKind::CutOff, CUT_OFF)),
            State::Handshaking | State::Open | State::Closed => None,
        }
    }

    /// Whether the other side's first bytes are a PROXY header instead of a TLS record.
    #[must_use]
    pub fn began_with_header(&self) -> bool {
        let records = &self.tls.records;
        let is_first = records.without_plaintext == 0 && records.header_bytes == HEADER;
        is_first && may_be_header(&records.header)
    }

    fn has_no_record(&self) -> bool {
        self.tls.records.without_plaintext == 0 && !self.tls.records.is_in_record()
    }

    /// Receives ciphertext, and appends its plaintext to `plaintext`.
    pub fn data_received(&mut self, data: &[u8], plaintext: &mut Vec<u8>) -> TlsEvents {
        let mut events = TlsEvents::default();
        self.has_received = true;
        match self.tls.data_received(data, plaintext, &mut self.output) {
            Ok(received) => {
                if self.state == State::Handshaking && !self.tls.is_handshaking() {
                    self.enter(Cause::HandshakeDone, State::Open);
                    events.handshake_done = true;
                }
                if self.state == State::Open && received.is_new_record {
                    self.since = None;
                }
                events.peer_closed = received.closed_cleanly && !self.peer_closed;
                self.peer_closed |= received.closed_cleanly;
            }
            Err(error) => {
                events.has_failed = true;
                self.fail(error);
            }
        }
        events
    }

    /// Handles the end of the socket's stream. Returns what the end means for the session.
    pub fn eof_received(&mut self) -> TlsEnd {
        self.eof = true;
        match self.state {
            State::Closed if !self.peer_closed => TlsEnd::Ended(StreamEnd::Whole),
            State::Handshaking => {
                self.fail(TlsError::new(FailureKind::CutOff, CUT_OFF.to_owned()));
                TlsEnd::Failed
            }
            State::Open if !self.peer_closed => TlsEnd::Ended(StreamEnd::CutOff),
            State::Open | State::Closed | State::Failed(_) => TlsEnd::Known,
        }
    }

    /// Fails with `error`. Sends a fatal alert, if no alert or `close_notify` was sent before.
    #[cold]
    #[inline(never)]
    fn fail(&mut self, error: TlsError) {
        self.tls.refuse(error.kind, &mut self.output);
        self.enter(Cause::Error, State::Failed(error));
        self.encrypted_bytes = 0;
    }

    /// Returns the ciphertext to write to the socket. `plaintext` is the session's output. If no
    /// ciphertext of earlier plaintext waits, encrypts the next part of `plaintext`, and appends
    /// its ciphertext. So the end of a handshake and the first output leave in one write.
    pub fn output(&mut self, plaintext: &[u8]) -> &[u8] {
        if self.state == State::Open && self.encrypted_bytes == 0 && !plaintext.is_empty() {
            let piece = &plaintext[..plaintext.len().min(RECORD_BYTES)];
            match self.tls.send(piece, &mut self.output) {
                Ok(()) => self.encrypted_bytes = piece.len(),
                Err(error) => self.fail(error),
            }
        }
        self.output.as_slice()
    }

    /// The socket accepted `count` bytes of ciphertext. Returns how many bytes of the session's
    /// output are now completely sent.
    pub fn output_sent(&mut self, count: usize) -> usize {
        self.output.consume(count);
        if self.output.is_empty() {
            std::mem::take(&mut self.encrypted_bytes)
        } else {
            0
        }
    }

    /// Returns what happens to the connection. `disposition` is the session's own disposition, and
    /// `is_read` is the result of the session's `wants_read`. The returned `bool` is `true` if a
    /// `close_notify` was appended to the output. Then the caller has to write the output and call
    /// this function again.
    pub fn disposition(
        &mut self,
        disposition: Disposition,
        is_read: bool,
        limits: &Limits,
        now: Time,
    ) -> (Disposition, bool) {
        let since = *self.since.get_or_insert(now);
        if self.state == State::Open && !is_read {
            self.since = None; // the server does not read, so no end of a record can arrive
        }
        match (&self.state, disposition) {
            (State::Failed(_), _) if self.eof || now >= since + limits.linger_ms.to_duration() => {
                (Disposition::Close, false)
            }
            // The session closes without waiting for the other side.
            (State::Failed(_), Disposition::Close) => (Disposition::Close, false),
            // The alert is written. Read on: if the socket were closed with unread bytes, the
            // system would send RST, and the other side could lose the alert.
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

    /// Returns the earlier of the session's deadline and the deadline of TLS. After a failure, only
    /// the deadline of TLS counts, because the session cannot do anything any more.
    #[must_use]
    pub fn deadline(&self, session: Option<Time>, limits: &Limits) -> Option<Time> {
        let session = session.filter(|_| self.error().is_none());
        session.into_iter().chain(self.own_deadline(limits)).min()
    }

    fn own_deadline(&self, limits: &Limits) -> Option<Time> {
        let wait = match self.state {
            State::Handshaking if self.has_timeout => limits.tls_handshake_ms,
            State::Failed(_) => limits.linger_ms,
            // The other side may begin a TLS record at any time, but must finish the TLS record in
            // time.
            State::Open if self.tls.is_unfinished() && !self.eof => limits.line_ms,
            State::Handshaking | State::Open | State::Closed => return None,
        };
        Some(self.since? + wait.to_duration())
    }

    /// Fails if the deadline of the TLS layer has passed: see [`TlsSession::error`]. Returns
    /// whether this call failed the connection.
    pub fn deadline_reached(&mut self, limits: &Limits, now: Time) -> bool {
        if self.own_deadline(limits).is_none_or(|due| due > now) {
            return false;
        }
        let reason = match self.state {
            State::Handshaking => format!("no TLS handshake within {} ms", limits.tls_handshake_ms),
            State::Open => format!("no end of a TLS record within {} ms", limits.line_ms),
            State::Closed | State::Failed(_) => return false,
        };
        self.fail(TlsError::new(FailureKind::TooSlow, reason));
        self.eof = true; // the layer does not wait for the end of the stream
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::base::transitions::assert_diagram;

    #[test]
    fn the_module_docs_show_the_transitions() {
        assert_diagram(include_str!("tls.rs"), &TRANSITIONS);
    }

    #[test]
    fn tls_record_boundaries_are_found() {
        let record = |bytes: u8| [&[23, 3, 3, 0, bytes][..], &vec![b'x'; bytes.into()]].concat();
        let stream = [record(3), record(0), record(200)].concat();
        let ends = [8, 13, stream.len()];
        for step in 1..stream.len() {
            let mut records = RecordLayer::default();
            let mut at = 0;
            for piece in stream.chunks(step) {
                let was_inside = records.is_in_record();
                let is_new = records.data_received(piece);
                let passed = ends
                    .iter()
                    .any(|end| (at + 1..=at + piece.len()).contains(end));
                assert_eq!(is_new, passed || !was_inside, "{step} {at}");
                at += piece.len();
                assert_eq!(records.is_in_record(), !ends.contains(&at), "{step} {at}");
            }
        }
    }

    #[test]
    fn buffered_tls_record_bytes_are_counted() {
        let mut records = RecordLayer::default();
        let handshake = [22, 3, 3, 0, 1, 7];
        // The bytes of a header count until the header is complete. Then the type handshake shows
        // that the header does not count.
        records.data_received(&handshake[..3]);
        assert_eq!(records.partial_bytes(), 3);
        records.data_received(&handshake[3..5]);
        assert_eq!(records.partial_bytes(), 0);
        records.data_received(&handshake[5..]);
        assert_eq!((records.buffered, records.partial_bytes()), (1, 0));
        // Each TLS record of the type handshake with a body of one byte counts as one byte.
        records.data_received(&handshake.repeat(99));
        assert_eq!((records.buffered, records.without_plaintext), (100, 100));
        // TLS records that may be encrypted count with their headers.
        records.data_received(&[23, 3, 3, 0, 9, 1, 2]);
        assert_eq!((records.buffered, records.partial_bytes()), (100, 7));
        records.data_received(&[0; 7]);
        assert_eq!((records.buffered, records.without_plaintext), (114, 101));
        records.mark_processed();
        records.data_received(&[23]);
        assert_eq!((records.buffered, records.partial_bytes()), (0, 1));
    }
}
