//! TLS with one server as a layer of bytes: ciphertext of the socket on one side, plaintext of the
//! protocol on the other. No socket is in it, so that it serves blocking tools and polling ones.

use std::io::{self, ErrorKind, Read, Write};

use herd_mio::core::session::buffer::Buffer;
use herd_mio::core::session::tls::{Tls, TlsError};

use crate::dial::trust::Trust;

/// Plaintext that is encrypted at once. rustls keeps no more than 64 KiB that was not written.
const PIECE_BYTES: usize = 16 * 1024;
/// Bytes that a part of the handshake may bring.
const HANDSHAKE_BYTES: usize = 16 * 1024;
/// What a TLS record begins with that a server may say first: an alert, or a part of the handshake
/// (RFC 8446, section 5.1).
const FIRST_BYTES: [u8; 2] = [0x15, 0x16];

/// TLS with one server, from the hello on.
pub struct Session {
    tls: Tls,
    trust: Trust,
    /// Ciphertext for the socket.
    output: Buffer,
    /// Plaintext that was not taken yet.
    plaintext: Vec<u8>,
    /// The server has said `close_notify`.
    is_over: bool,
    /// Nothing came yet.
    is_first: bool,
}

impl Session {
    /// The handshake begins: the hello is in [`Session::output`].
    ///
    /// # Errors
    /// The name is none that a certificate can have.
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

    /// Makes the whole handshake over a stream that blocks: waits until it is known who is there,
    /// for each part no longer than the stream's timeouts.
    ///
    /// # Errors
    /// The other side is not to be trusted, or does not speak TLS: what, and what to do.
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
                // An alert, for the server's log; nothing more depends on it.
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

    /// Takes ciphertext; the plaintext in it is added to [`Session::plaintext`], and what has to be
    /// said in return to [`Session::output`].
    ///
    /// # Errors
    /// The other side is not to be trusted, or does not speak TLS: what, and what to do.
    pub fn receive(&mut self, ciphertext: &[u8]) -> Result<(), String> {
        let first = ciphertext.first().copied();
        if let (true, Some(first)) = (self.is_first, first) {
            self.is_first = false;
            if !FIRST_BYTES.contains(&first) {
                let what = "it answers a TLS handshake with something else";
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

    /// The plaintext that came and was not taken or cleared.
    #[must_use]
    pub fn plaintext(&self) -> &[u8] {
        &self.plaintext
    }

    /// Moves plaintext to the front of `into`; returns how much.
    pub fn read_plaintext(&mut self, into: &mut [u8]) -> usize {
        let count = self.plaintext.len().min(into.len());
        into[..count].copy_from_slice(&self.plaintext[..count]);
        self.plaintext.drain(..count);
        count
    }

    /// Forgets the plaintext, and keeps its room for what comes next.
    pub fn clear_plaintext(&mut self) {
        self.plaintext.clear();
    }

    /// The plaintext that came.
    pub fn take_plaintext(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.plaintext)
    }

    /// Encrypts some of `plaintext`, at most 16 KiB, into [`Session::output`]; returns how much.
    ///
    /// # Errors
    /// The session is over.
    pub fn encrypt(&mut self, plaintext: &[u8]) -> Result<usize, String> {
        let piece = &plaintext[..plaintext.len().min(PIECE_BYTES)];
        let sent = self.tls.send(piece, &mut self.output);
        sent.map_err(|error| error.reason)?;
        Ok(piece.len())
    }

    /// Says that nothing more will be sent; answers still come.
    pub fn close(&mut self) {
        self.tls.close(&mut self.output);
    }

    /// Ciphertext for the socket.
    #[must_use]
    pub fn output(&self) -> &[u8] {
        self.output.as_slice()
    }

    /// The socket took so many bytes of it.
    pub fn output_sent(&mut self, bytes: usize) {
        self.output.consume(bytes);
    }

    /// All ciphertext for the socket, which is to take the whole of it.
    pub fn take_output(&mut self) -> Vec<u8> {
        let taken = self.output.as_slice().to_vec();
        self.output.consume(taken.len());
        taken
    }

    /// Whether the server has said that it sends no more.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.is_over
    }

    /// What it means if the stream ends in the handshake, and what to do.
    #[must_use]
    pub fn ended(&self) -> String {
        let what = "it ended the connection in the TLS handshake";
        self.trust.no_answer(what)
    }

    /// What it means if the stream breaks in the handshake, and what to do.
    #[must_use]
    pub fn lost(&self, error: &io::Error) -> String {
        match error.kind() {
            // Which of the two a timeout is, is up to the system (`TcpStream::set_read_timeout`).
            ErrorKind::WouldBlock | ErrorKind::TimedOut => self.silent(),
            ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => self.ended(),
            _ => error.to_string(),
        }
    }

    /// What it means if the server does not answer the handshake, and what to do.
    #[must_use]
    pub fn silent(&self) -> String {
        self.trust.no_answer("it does not answer a TLS handshake")
    }
}
