//! TLS with one server as a layer of bytes: ciphertext for the socket on one side, plaintext of the
//! protocol on the other. It has no socket, so it serves blocking tools and polling ones.

use std::io::{self, ErrorKind, Read, Write};

use herd_mio::core::session::buffer::Buffer;
use herd_mio::core::session::tls::{Tls, TlsError};

use crate::dial::trust::Trust;

/// The plaintext that one call encrypts. rustls buffers at most 64 KiB of output.
const PIECE_BYTES: usize = 16 * 1024;
/// The greatest number of bytes of one read in the handshake.
const HANDSHAKE_BYTES: usize = 16 * 1024;
/// The first byte of the TLS records that a server may send first: an alert, or a part of the
/// handshake (RFC 8446, section 5.1).
const FIRST_BYTES: [u8; 2] = [0x15, 0x16];

/// TLS with one server, from the ClientHello on.
pub struct Session {
    tls: Tls,
    trust: Trust,
    /// Ciphertext for the socket.
    output: Buffer,
    /// Plaintext that was not taken yet.
    plaintext: Vec<u8>,
    /// Whether the server has sent `close_notify`.
    is_over: bool,
    /// Whether no byte has come yet.
    is_first: bool,
}

impl Session {
    /// Begins the handshake. The ClientHello is in [`Session::output`].
    ///
    /// # Errors
    /// The name cannot be in a certificate.
    pub fn begin(trust: &Trust) -> Result<Session, String> {
        let explain = |error| trust.explain(error);
        let mut session = Session {
            tls: Tls::client(trust.config.clone(), &trust.name).map_err(explain)?,
            trust: trust.clone(),
            output: Buffer::default(),
            plaintext: Vec::new(),
            is_over: false,
            is_first: true,
        };
        session.tls.flush(&mut session.output).map_err(explain)?;
        Ok(session)
    }

    /// Does the whole handshake over a blocking stream. Each read and write waits no longer than
    /// the stream's timeouts.
    ///
    /// # Errors
    /// The other side is not trusted, or does not speak TLS. The text says what to do.
    pub fn shake_hands<S: Read + Write>(stream: &mut S, trust: &Trust) -> Result<Session, String> {
        let mut session = Session::begin(trust)?;
        let mut chunk = vec![0; HANDSHAKE_BYTES];
        loop {
            let written = stream.write_all(&session.take_output());
            written.map_err(|error| session.lost(&error))?;
            if !session.is_handshaking() {
                return Ok(session);
            }
            let count = loop {
                match stream.read(&mut chunk) {
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    other => break other.map_err(|error| session.lost(&error))?,
                }
            };
            if count == 0 {
                return Err(session.ended());
            }
            if let Err(what) = session.receive(&chunk[..count]) {
                // Sends the alert for the server's log. A failed write does not matter.
                let _ = stream.write_all(&session.take_output());
                return Err(what);
            }
        }
    }

    /// Whether the handshake is still going on.
    #[must_use]
    pub fn is_handshaking(&self) -> bool {
        self.tls.is_handshaking()
    }

    /// Takes ciphertext. Its plaintext is added to [`Session::plaintext`], and the reply to
    /// [`Session::output`].
    ///
    /// # Errors
    /// The other side is not trusted, or does not speak TLS. The text says what to do.
    pub fn receive(&mut self, ciphertext: &[u8]) -> Result<(), String> {
        let first = ciphertext.first().copied();
        if let (true, Some(first)) = (self.is_first, first) {
            self.is_first = false;
            if !FIRST_BYTES.contains(&first) {
                let what = "it answers the TLS handshake with another protocol";
                return Err(self.trust.not_tls(what));
            }
        }
        let received = self
            .tls
            .data_received(ciphertext, &mut self.plaintext, &mut self.output)
            .map_err(|error: TlsError| self.trust.explain(error))?;
        self.is_over |= received.closed_cleanly;
        if !self.tls.is_handshaking() {
            self.trust.spoke();
        }
        Ok(())
    }

    /// The plaintext that was not taken or cleared yet.
    #[must_use]
    pub fn plaintext(&self) -> &[u8] {
        &self.plaintext
    }

    /// Moves plaintext to the front of `into`. Returns the number of bytes.
    pub fn read_plaintext(&mut self, into: &mut [u8]) -> usize {
        let count = self.plaintext.len().min(into.len());
        into[..count].copy_from_slice(&self.plaintext[..count]);
        self.plaintext.drain(..count);
        count
    }

    /// Drops the plaintext, and keeps its memory for the next one.
    pub fn clear_plaintext(&mut self) {
        self.plaintext.clear();
    }

    /// Takes all plaintext.
    pub fn take_plaintext(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.plaintext)
    }

    /// Encrypts at most 16 KiB of `plaintext` into [`Session::output`]. Returns the number of
    /// bytes.
    ///
    /// # Errors
    /// The session is over.
    pub fn encrypt(&mut self, plaintext: &[u8]) -> Result<usize, String> {
        let piece = &plaintext[..plaintext.len().min(PIECE_BYTES)];
        let sent = self.tls.send(piece, &mut self.output);
        sent.map_err(|error| error.reason)?;
        Ok(piece.len())
    }

    /// Sends `close_notify`. Answers still come.
    pub fn close(&mut self) {
        self.tls.close(&mut self.output);
    }

    /// Ciphertext for the socket.
    #[must_use]
    pub fn output(&self) -> &[u8] {
        self.output.as_slice()
    }

    /// The socket has taken so many bytes of the output.
    pub fn output_sent(&mut self, bytes: usize) {
        self.output.consume(bytes);
    }

    /// Takes all ciphertext. The caller has to write the whole of it.
    pub fn take_output(&mut self) -> Vec<u8> {
        let taken = self.output.as_slice().to_vec();
        self.output.consume(taken.len());
        taken
    }

    /// Whether the server has sent `close_notify`.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.is_over
    }

    /// The message for a stream that ends in the handshake, with what to do.
    #[must_use]
    pub fn ended(&self) -> String {
        let what = "it closed the connection in the TLS handshake";
        self.trust.no_answer(what)
    }

    /// The message for a stream that breaks in the handshake, with what to do.
    #[must_use]
    pub fn lost(&self, error: &io::Error) -> String {
        match error.kind() {
            // The kind of a timeout depends on the system (`TcpStream::set_read_timeout`).
            ErrorKind::WouldBlock | ErrorKind::TimedOut => self.silent(),
            ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => self.ended(),
            _ => error.to_string(),
        }
    }

    /// The message for a server that does not answer the handshake, with what to do.
    #[must_use]
    pub fn silent(&self) -> String {
        self.trust.no_answer("it does not answer the TLS handshake")
    }
}
