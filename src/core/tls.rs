//! TLS as a layer of bytes: ciphertext of the socket on one side, plaintext of the protocol on the other.
//!
//! rustls is a state machine without a socket, as asyncio's `sslproto` drives OpenSSL through a `MemoryBIO`; [`Tls`] is the glue, and
//! all of it that a connection to Places needs. [`Secure`] puts it between a socket and a session that knows nothing of it: a
//! client's, or a link's.
//!
//! ```text
//!   Handshaking ──► Open ──► Closed (close_notify is said)
//!        └───────────┴─────► Failed (if there is an alert for that, it is said)
//! ```

use std::fmt;
use std::io::{self, Read, Write};
use std::sync::Arc;

use rustls::pki_types::{CertificateDer, ServerName};
use rustls::server::ParsedCertificate;
use rustls::{
    AlertDescription, CertificateError, ClientConfig, ClientConnection, Connection, PeerMisbehaved,
    ServerConfig, ServerConnection,
};

use crate::core::buffer::Buffer;
use crate::core::clock::Time;
use crate::core::disposition::Disposition;
use crate::core::limits::{Limits, ms};

/// What came of received ciphertext.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Received {
    /// The other side closed its direction with `close_notify`: no byte was cut off.
    pub closed_cleanly: bool,
    /// The record in which it ends began in it.
    pub is_new_record: bool,
}

/// Why TLS can not go on with a side that speaks none.
pub const NO_TLS: &str = "it does not speak TLS";

/// Whether bytes that were to be lines of text begin a record of TLS: a hello, or an alert (RFC
/// 8446, section 5.1).
#[must_use]
pub fn is_tls(bytes: &[u8]) -> bool {
    matches!(bytes, [0x15 | 0x16, 3, ..])
}

/// Why a connection can not go on.
#[derive(Clone, Debug, PartialEq)]
pub struct TlsError {
    /// In words for an operator or a client; the other side is its subject.
    pub reason: String,
    /// Why its certificate was refused, if it was: that does not mend itself. In a box, because every connection has room for it.
    pub mistrust: Option<Box<CertificateError>>,
}

impl From<rustls::Error> for TlsError {
    fn from(error: rustls::Error) -> TlsError {
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
            rustls::Error::InvalidMessage(_) => NO_TLS.to_owned(),
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
        TlsError { reason, mistrust }
    }
}

impl From<io::Error> for TlsError {
    fn from(error: io::Error) -> TlsError {
        TlsError {
            reason: format!("TLS failed: {error}"),
            mistrust: None,
        }
    }
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

/// One side of a TLS connection.
pub struct Tls {
    connection: Connection,
    /// Bytes of handshake that the other side may have rustls keep, if that is bounded.
    bound: Option<usize>,
    /// Ciphertext that came since plaintext came out of it last.
    unheard: usize,
    records: RecordLayer,
    /// The other side was told goodbye, or why not, and is not listened to any more.
    is_deaf: bool,
}

/// The longest record, its header included (RFC 5246, section 6.2.3).
const MAX_RECORD: usize = 5 + (1 << 14) + 2_048;
/// Ciphertext behind which there is no plaintext, and no cause for suspicion either: new keys, alerts.
const FEW_BYTES: usize = 1_024;

/// Where the records of a stream begin and end (RFC 8446, section 5.1): rustls keeps one until it is whole, and does not tell.
#[derive(Default)]
struct RecordLayer {
    /// Of the present record: type, version and length, as far as they are there.
    header: [u8; 5],
    header_bytes: usize,
    /// What is missing behind the header.
    left: usize,
}

impl RecordLayer {
    /// Takes what rustls was given; returns whether the record in which it ends began in it, too.
    fn take(&mut self, mut data: &[u8]) -> bool {
        let mut is_new = !self.is_inside();
        while !data.is_empty() {
            if self.header_bytes < self.header.len() {
                let bytes = data.len().min(self.header.len() - self.header_bytes);
                self.header[self.header_bytes..][..bytes].copy_from_slice(&data[..bytes]);
                self.header_bytes += bytes;
                data = &data[bytes..];
                let [.., high, low] = self.header;
                self.left = usize::from(u16::from_be_bytes([high, low]));
            } else {
                let bytes = data.len().min(self.left);
                self.left -= bytes;
                data = &data[bytes..];
            }
            if self.header_bytes == self.header.len() && self.left == 0 {
                self.header_bytes = 0;
                is_new = true;
            }
        }
        is_new
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
        let name = ServerName::try_from(host.to_owned()).map_err(|_| TlsError {
            reason: format!("{host:?} is no name that a certificate can have"),
            mistrust: None,
        })?;
        Ok(Tls::new(ClientConnection::new(config, name)?.into()))
    }

    /// The server side, waiting for a hello.
    ///
    /// # Errors
    /// The configuration can not be used.
    pub fn server(config: Arc<ServerConfig>) -> Result<Tls, TlsError> {
        Ok(Tls::new(ServerConnection::new(config)?.into()))
    }

    fn new(connection: Connection) -> Tls {
        Tls {
            connection,
            bound: None,
            unheard: 0,
            records: RecordLayer::default(),
            is_deaf: false,
        }
    }

    /// For somebody whom nobody knows: rustls keeps a message of the handshake until it is whole, which may take 64 KiB, in the handshake
    /// and behind it. No more than `bytes` of one are kept (test: `a_handshake_has_so_many_bytes_and_no_more`), and what was begun has to
    /// be finished ([`Tls::is_unfinished`]).
    #[must_use]
    pub fn bounded(mut self, bytes: usize) -> Tls {
        self.bound = Some(bytes);
        self
    }

    /// Whether somebody who is bounded has begun a record, or a message of many bytes, and not finished it.
    #[must_use]
    pub fn is_unfinished(&self) -> bool {
        self.bound.is_some() && (self.records.is_inside() || self.unheard > FEW_BYTES)
    }

    /// Ciphertext came, and so much plaintext with it.
    fn hear(&mut self, taken: usize, plaintext: usize) -> Result<(), TlsError> {
        self.unheard = if plaintext > 0 {
            0
        } else {
            self.unheard + taken
        };
        let record = if self.connection.is_handshaking() {
            0
        } else {
            MAX_RECORD
        };
        match self.bound {
            Some(bytes) if self.unheard > bytes + record => Err(TlsError {
                reason: "it said too much in the TLS handshake".to_owned(),
                mistrust: None,
            }),
            Some(_) | None => Ok(()),
        }
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

    /// Takes ciphertext; appends the plaintext in it to `plaintext`, and what has to be said in return to `output`.
    ///
    /// # Errors
    /// The other side is not who it should be, does not speak TLS, or says too much. Where there is an alert for that, it is in `output`.
    pub fn data_received(
        &mut self,
        data: &[u8],
        plaintext: &mut Vec<u8>,
        output: &mut Buffer,
    ) -> Result<Received, TlsError> {
        // Nobody waits for what comes behind a goodbye; of what is wrong in it nobody could be told any more, for which rustls is not
        // made (test: `garbage_behind_a_goodbye_is_passed_over`).
        if self.is_deaf {
            return Ok(Received::default());
        }
        let received = self.take(data, plaintext, output);
        self.is_deaf = received.is_err();
        received
    }

    fn take(
        &mut self,
        mut data: &[u8],
        plaintext: &mut Vec<u8>,
        output: &mut Buffer,
    ) -> Result<Received, TlsError> {
        let mut received = Received::default();
        while !data.is_empty() && !received.closed_cleanly {
            // Only as much as rustls has room for: what it took is worked off before it is given more.
            let given = data;
            let taken = self.connection.read_tls(&mut data)?;
            received.is_new_record |= self.records.take(&given[..taken]);
            let state = self.connection.process_new_packets();
            self.flush(output)?;
            let state = state?;
            let waiting = state.plaintext_bytes_to_read();
            self.hear(taken, waiting)?;
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
    /// It can not go on.
    Failed(TlsError),
}

/// What received ciphertext meant for the session above.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct News {
    /// The handshake is over: it is known who is there.
    pub is_made: bool,
    /// The other side will say no more, and nothing that it said was cut off.
    pub is_over: bool,
}

/// TLS between a socket and a session.
pub struct Secure {
    tls: Tls,
    state: State,
    /// When the present wait began, once somebody asked: for the end of the handshake, for the end of a record, for the other side to
    /// take an alert.
    since: Option<Time>,
    /// Ciphertext that waits for the socket.
    output: Buffer,
    /// How much of the session's output is in it, all of that or none.
    sealed: usize,
    /// The other side said `close_notify`.
    is_over: bool,
    /// The stream has ended.
    eof: bool,
}

impl Secure {
    /// A connection whose handshake begins.
    #[must_use]
    pub fn new(mut tls: Tls) -> Secure {
        let mut output = Buffer::default();
        let begun = tls.flush(&mut output);
        Secure {
            tls,
            state: begun.map_or_else(State::Failed, |()| State::Handshaking),
            since: None,
            output,
            sealed: 0,
            is_over: false,
            eof: false,
        }
    }

    /// The certificate that the other side has proven to be its own, if it was asked for one.
    #[must_use]
    pub fn certificate(&self) -> Option<&CertificateDer<'static>> {
        self.tls.certificate()
    }

    /// Why it can not go on.
    #[must_use]
    pub fn failure(&self) -> Option<&str> {
        match &self.state {
            State::Failed(error) => Some(&error.reason),
            State::Handshaking | State::Open | State::Closed => None,
        }
    }

    /// Takes ciphertext; appends the plaintext in it.
    pub fn data_received(&mut self, data: &[u8], plaintext: &mut Vec<u8>) -> News {
        let mut news = News::default();
        match self.tls.data_received(data, plaintext, &mut self.output) {
            Ok(received) => {
                if self.state == State::Handshaking && !self.tls.is_handshaking() {
                    self.tls.unheard = 0;
                    self.state = State::Open;
                    self.since = None;
                    news.is_made = true;
                }
                if self.state == State::Open && received.is_new_record {
                    self.since = None;
                }
                news.is_over = received.closed_cleanly && !self.is_over;
                self.is_over |= received.closed_cleanly;
            }
            Err(error) => self.fail(error),
        }
        news
    }

    /// The socket's stream ended; returns whether that is news for the session. It is an end for it only if nothing of what it
    /// still waits for can be lost: otherwise somebody else may have cut the stream off, in the middle of a line.
    pub fn eof_received(&mut self) -> bool {
        self.eof = true;
        match self.state {
            State::Closed => !self.is_over,
            State::Handshaking | State::Open if !self.is_over => {
                self.fail(TlsError {
                    reason: "it ended the connection without saying so in TLS".to_owned(),
                    mistrust: None,
                });
                false
            }
            State::Handshaking | State::Open | State::Failed(_) => false,
        }
    }

    fn fail(&mut self, error: TlsError) {
        self.state = State::Failed(error);
        self.tls.is_deaf = true;
        self.since = None;
        self.sealed = 0;
    }

    /// Ciphertext that waits for the socket. When none does, some of `plaintext`, the session's output, is encrypted.
    pub fn output(&mut self, plaintext: &[u8]) -> &[u8] {
        if self.state == State::Open && self.output.is_empty() && !plaintext.is_empty() {
            let piece = &plaintext[..plaintext.len().min(RECORD_BYTES)];
            match self.tls.send(piece, &mut self.output) {
                Ok(()) => self.sealed = piece.len(),
                Err(error) => self.fail(error),
            }
        }
        self.output.as_slice()
    }

    /// The socket took `count` bytes of ciphertext. Returns how many bytes of the session's output are gone with them.
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
            self.since = None; // the other side can not help it
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
            (State::Handshaking, Disposition::Finish | Disposition::Close) => {
                (Disposition::Close, false)
            }
            (State::Open, Disposition::Finish | Disposition::Close) => {
                self.tls.hang_up(&mut self.output);
                self.state = State::Closed;
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

    /// When somebody has to look at it again, if its session has this deadline. That of a session whose connection has failed counts no
    /// more: there is nothing that it could do about it.
    #[must_use]
    pub fn deadline(&self, session: Option<Time>, limits: &Limits) -> Option<Time> {
        let session = session.filter(|_| self.failure().is_none());
        session.into_iter().chain(self.own_deadline(limits)).min()
    }

    fn own_deadline(&self, limits: &Limits) -> Option<Time> {
        let wait = match self.state {
            State::Handshaking => limits.tls_handshake_ms,
            State::Failed(_) => limits.linger_ms,
            // It may begin anything, and has to finish it.
            State::Open if self.tls.is_unfinished() => limits.line_ms,
            State::Open | State::Closed => return None,
        };
        Some(self.since? + ms(wait))
    }

    /// The deadline has come.
    pub fn deadline_reached(&mut self, limits: &Limits, now: Time) {
        if self.own_deadline(limits).is_none_or(|due| due > now) {
            return;
        }
        let reason = match self.state {
            State::Handshaking => format!("no TLS handshake within {} ms", limits.tls_handshake_ms),
            State::Open => format!("no end of a TLS record within {} ms", limits.line_ms),
            State::Closed | State::Failed(_) => return,
        };
        self.fail(TlsError {
            reason,
            mistrust: None,
        });
        self.eof = true; // it is not waited for
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
