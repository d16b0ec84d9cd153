//! TLS as a layer of bytes: ciphertext of the socket on one side, plaintext of the protocol on the other.
//!
//! rustls is a state machine without a socket, as asyncio's `sslproto` drives OpenSSL through a `MemoryBIO`; this is the glue.

use std::io::{self, Read, Write};
use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection};

use crate::core::buffer::Buffer;

/// What came of received ciphertext.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Received {
    /// The other side closed its direction with `close_notify`: no byte was cut off.
    pub closed_cleanly: bool,
}

/// One side of a TLS connection, the client's.
pub struct Tls {
    connection: ClientConnection,
}

impl Tls {
    /// The client side, about to send its hello; the certificate must be for `host`.
    ///
    /// # Errors
    /// `host` is neither a DNS name nor an IP address.
    pub fn client(config: Arc<ClientConfig>, host: &str) -> Result<Tls, String> {
        let name = ServerName::try_from(host.to_owned())
            .map_err(|_| format!("{host:?} is no name that a certificate can have"))?;
        let connection = ClientConnection::new(config, name).map_err(|error| error.to_string())?;
        Ok(Tls { connection })
    }

    /// Whether the handshake is still going on.
    #[must_use]
    pub fn is_handshaking(&self) -> bool {
        self.connection.is_handshaking()
    }

    /// Takes ciphertext; appends the plaintext in it to `plaintext`, and what has to be said in return to `output`.
    ///
    /// # Errors
    /// The other side is not who it should be, or does not speak TLS. The alert that tells it so is in `output`.
    pub fn data_received(
        &mut self,
        mut data: &[u8],
        plaintext: &mut Vec<u8>,
        output: &mut Buffer,
    ) -> Result<Received, String> {
        let mut received = Received::default();
        while !data.is_empty() && !received.closed_cleanly {
            // Only as much as rustls has room for: what it took is worked off before it is given more.
            let taken = self
                .connection
                .read_tls(&mut data)
                .map_err(|error| error.to_string())?;
            let state = self.connection.process_new_packets();
            self.flush(output)?;
            let state = state.map_err(|error| describe(&error))?;
            let waiting = state.plaintext_bytes_to_read();
            let start = plaintext.len();
            plaintext.resize(start + waiting, 0);
            if waiting > 0 {
                self.connection
                    .reader()
                    .read_exact(&mut plaintext[start..])
                    .map_err(|error| error.to_string())?;
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
    pub fn send(&mut self, plaintext: &[u8], output: &mut Buffer) -> Result<(), String> {
        self.connection
            .writer()
            .write_all(plaintext)
            .map_err(|error| error.to_string())?;
        self.flush(output)
    }

    /// Says that nothing more will be sent.
    pub fn close(&mut self, output: &mut Buffer) {
        self.connection.send_close_notify();
        // Writing into memory does not fail, and if it did the connection is being closed anyway.
        let _ = self.flush(output);
    }

    /// Moves what rustls wants to send to `output`.
    ///
    /// # Errors
    /// None in practice: the destination is memory.
    pub fn flush(&mut self, output: &mut Buffer) -> Result<(), String> {
        while self.connection.wants_write() {
            let written: io::Result<usize> = self.connection.write_tls(output.tail());
            written.map_err(|error| error.to_string())?;
        }
        Ok(())
    }
}

/// rustls's errors in words for an operator or a client.
fn describe(error: &rustls::Error) -> String {
    match error {
        rustls::Error::InvalidCertificate(reason) => {
            format!("its certificate was refused: {reason}")
        }
        rustls::Error::InvalidMessage(_) => "it does not speak TLS".to_owned(),
        rustls::Error::AlertReceived(alert) => format!("it refused the TLS handshake: {alert:?}"),
        other => format!("TLS failed: {other}"),
    }
}
