//! A socket, with or without TLS on it. One thread may send while another receives.
//!
//! ```text
//!   send    ──► lock: encrypt ──► unlock ──► write to the socket
//!   receive ──► read from the socket ──► lock: decrypt ──► unlock
//! ```
//!
//! The lock is never held while a socket makes somebody wait: a server that reads nothing until its answers are read would
//! otherwise wait for a reader that waits for the writer (test: who_sends_keeps_nobody_from_receiving).

use std::io::{self, Error, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use herd_mio::core::buffer::Buffer;
use herd_mio::core::tls::{Tls, TlsError};

use crate::answers::Answers;
use crate::tls::Trust;

/// Plaintext that is encrypted at once. rustls keeps no more than 64 KiB that was not written.
const PIECE_BYTES: usize = 16 * 1024;
/// Bytes that a part of the handshake may bring.
const HANDSHAKE_BYTES: usize = 16 * 1024;
/// What a TLS record begins with that a server may say first: an alert, or a part of the handshake.
const FIRST_BYTES: [u8; 2] = [0x15, 0x16];

/// The socket, and the TLS on it. A copy of it is the same connection.
pub(crate) struct Wire {
    pub(crate) stream: TcpStream,
    layer: Option<Arc<Mutex<Layer>>>,
}

struct Layer {
    tls: Tls,
    /// Ciphertext for the socket, which the next send takes along. Only one thread sends, so it stays in order.
    output: Buffer,
    /// Plaintext of the end of the handshake, and then of each read.
    plaintext: Vec<u8>,
    /// The server has said `close_notify`.
    is_over: bool,
}

impl Layer {
    fn data_received(&mut self, data: &[u8]) -> Result<(), TlsError> {
        let received = self
            .tls
            .data_received(data, &mut self.plaintext, &mut self.output)?;
        self.is_over |= received.closed_cleanly;
        Ok(())
    }

    fn take_output(&mut self) -> Vec<u8> {
        let taken = self.output.as_slice().to_vec();
        self.output.consume(taken.len());
        taken
    }
}

fn lock(layer: &Mutex<Layer>) -> MutexGuard<'_, Layer> {
    layer.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Wire {
    /// Without TLS.
    pub(crate) fn plain(stream: TcpStream) -> Wire {
        Wire {
            stream,
            layer: None,
        }
    }

    /// With TLS: waits until it is known who is there, for each part no longer than the socket's timeout.
    ///
    /// # Errors
    /// The other side is not to be trusted, or does not speak TLS: what, and what to do.
    pub(crate) fn secure(mut stream: TcpStream, trust: &Trust) -> Result<Wire, String> {
        let lost = |error: Error| match error.kind() {
            ErrorKind::WouldBlock | ErrorKind::TimedOut => {
                trust.not_tls("it does not answer a TLS handshake")
            }
            ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => {
                trust.not_tls("it ended the connection in the TLS handshake")
            }
            _ => error.to_string(),
        };
        let explain = |error| trust.explain(error);
        let mut layer = Layer {
            tls: Tls::client(trust.config.clone(), &trust.name).map_err(explain)?,
            output: Buffer::default(),
            plaintext: Vec::new(),
            is_over: false,
        };
        layer.tls.flush(&mut layer.output).map_err(explain)?;
        let mut chunk = vec![0; HANDSHAKE_BYTES];
        let mut is_first = true;
        loop {
            stream.write_all(&layer.take_output()).map_err(lost)?;
            if !layer.tls.is_handshaking() {
                break;
            }
            let count = loop {
                match stream.read(&mut chunk) {
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    other => break other.map_err(lost)?,
                }
            };
            if count == 0 {
                return Err(trust.not_tls("it ended the connection in the TLS handshake"));
            }
            if std::mem::take(&mut is_first) && !FIRST_BYTES.contains(&chunk[0]) {
                return Err(trust.not_tls("it answers a TLS handshake with something else"));
            }
            let received = layer.data_received(&chunk[..count]);
            if let Err(error) = received {
                // An alert, for the server's log; nothing more depends on it.
                let _ = stream.write_all(&layer.take_output());
                return Err(trust.explain(error));
            }
        }
        Ok(Wire {
            stream,
            layer: Some(Arc::new(Mutex::new(layer))),
        })
    }

    /// The same connection for another thread.
    pub(crate) fn try_clone(&self) -> io::Result<Wire> {
        Ok(Wire {
            stream: self.stream.try_clone()?,
            layer: self.layer.clone(),
        })
    }

    /// Sends all of it.
    pub(crate) fn send(&self, bytes: &[u8]) -> io::Result<()> {
        let Some(layer) = &self.layer else {
            return (&self.stream).write_all(bytes);
        };
        let ciphertext = {
            let layer = &mut *lock(layer);
            for piece in bytes.chunks(PIECE_BYTES) {
                layer.tls.send(piece, &mut layer.output).map_err(other)?;
            }
            layer.take_output()
        };
        (&self.stream).write_all(&ciphertext)
    }

    /// Says that nothing more will be sent; answers still come. The server may have closed it already.
    pub(crate) fn finish(&self) {
        if let Some(layer) = &self.layer {
            let farewell = {
                let layer = &mut *lock(layer);
                layer.tls.close(&mut layer.output);
                layer.take_output()
            };
            let _ = (&self.stream).write_all(&farewell);
        }
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    /// Waits for bytes and hands them to `answers`; `false` if none will come any more. An end that TLS does not know of is an end
    /// like any other: answers say themselves where they end, so none that was cut off is taken for a whole one.
    pub(crate) fn receive(&self, chunk: &mut [u8], answers: &mut Answers) -> io::Result<bool> {
        loop {
            if let Some(layer) = &self.layer {
                let layer = &mut *lock(layer);
                if !layer.plaintext.is_empty() {
                    answers.data_received(&std::mem::take(&mut layer.plaintext));
                    return Ok(true);
                }
                if layer.is_over {
                    return Ok(false);
                }
            }
            let count = match (&self.stream).read(chunk) {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                other => other?,
            };
            match &self.layer {
                _ if count == 0 => return Ok(false),
                // It may bring no answer, but a ticket for another session.
                Some(layer) => lock(layer).data_received(&chunk[..count]).map_err(other)?,
                None => {
                    answers.data_received(&chunk[..count]);
                    return Ok(true);
                }
            }
        }
    }
}

fn other(error: TlsError) -> Error {
    Error::other(error.reason)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::answers::{Answer, Expected};
    use crate::connection::Connection;
    use crate::target::Target;
    use crate::tls::TlsOptions;
    use herd_mio::core::settings::HostPort;
    use rcgen::{CertifiedKey, generate_simple_self_signed};
    use rustls::pki_types::PrivateKeyDer;
    use rustls::{ServerConfig, ServerConnection, StreamOwned, crypto::ring};
    use std::net::{SocketAddr, TcpListener};
    use std::sync::mpsc::channel;
    use std::thread;
    use std::time::Duration;

    /// Longer than anything takes here: reached only by a failure.
    const DEADLINE: Duration = Duration::from_secs(60);

    type Peer = StreamOwned<ServerConnection, TcpStream>;

    /// A server that does on a connection what `script` says; that stays open as long as what it returns is kept.
    fn serving<T: Send + 'static>(
        script: impl FnOnce(Peer) -> T + Send + 'static,
    ) -> (Target, thread::JoinHandle<T>) {
        let CertifiedKey { cert, signing_key } =
            generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![cert.der().clone()],
                PrivateKeyDer::try_from(signing_key.serialize_der()).unwrap(),
            )
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address: SocketAddr = listener.local_addr().unwrap();
        let server = thread::spawn(move || {
            let (stream, _) = listener.accept().unwrap();
            stream.set_read_timeout(Some(DEADLINE)).unwrap();
            let connection = ServerConnection::new(Arc::new(config)).unwrap();
            script(StreamOwned::new(connection, stream))
        });
        let directory = tempfile::tempdir().unwrap();
        let ca = directory.path().join("ca.pem");
        std::fs::write(&ca, cert.pem()).unwrap();
        let options = TlsOptions {
            ca: Some(ca),
            ..TlsOptions::default()
        };
        let target = Target {
            label: "localhost".into(),
            address: HostPort {
                host: address.ip().to_string(),
                port: address.port(),
            },
            tls: options.trust("localhost", None).unwrap(),
        };
        (target, server)
    }

    /// The same, and a connection to it.
    fn connected<T: Send + 'static>(
        script: impl FnOnce(Peer) -> T + Send + 'static,
    ) -> (Wire, thread::JoinHandle<T>) {
        let (target, server) = serving(script);
        let connection = Connection::open(&target, DEADLINE).unwrap();
        (connection.wire, server)
    }

    #[test]
    fn tickets_make_no_connection_stale_and_a_farewell_does() {
        let (target, server) = serving(|mut peer| {
            peer.conn.complete_io(&mut peer.sock).unwrap();
            peer.read_exact(&mut [0]).unwrap();
            peer.conn.send_close_notify();
            peer.flush().unwrap();
            peer
        });
        let mut connection = Connection::open(&target, DEADLINE).unwrap();
        let something_came = |connection: &Connection| {
            assert_eq!(connection.wire.stream.peek(&mut [0]).unwrap(), 1);
        };
        something_came(&connection);
        assert_eq!(connection.staleness(), None);
        assert!(connection.send(b"x").is_ok());
        let peer = server.join().unwrap();
        something_came(&connection);
        assert_eq!(connection.staleness(), Some("has closed the connection"));
        drop(peer);
    }

    #[test]
    fn who_sends_keeps_nobody_from_receiving() {
        let (wire, server) = connected(|mut peer| {
            peer.read_exact(&mut [0]).unwrap();
            peer.write_all(b"? x\n").unwrap();
            peer.flush().unwrap();
            peer // and nothing more is read
        });
        let sending = wire.try_clone().unwrap();
        // More than all sockets hold.
        let sender = thread::spawn(move || sending.send(&vec![b'x'; 64 << 20]));
        let (done, received) = channel();
        let receiving = wire.try_clone().unwrap();
        thread::spawn(move || {
            let mut answers = Answers::default();
            let is_open = receiving.receive(&mut [0; 1000], &mut answers).unwrap();
            let is_there = answers.next(Expected::Line).unwrap() == Some(Answer::Refused(b"? x"));
            done.send((is_open, is_there)).unwrap();
        });
        assert_eq!(received.recv_timeout(DEADLINE), Ok((true, true)));
        assert!(!sender.is_finished());
        drop(server.join().unwrap());
        assert!(sender.join().unwrap().is_err());
    }

    #[test]
    fn tickets_are_no_answer_and_a_farewell_is_an_end() {
        let (wire, server) = connected(|mut peer| {
            peer.read_exact(&mut [0]).unwrap();
            peer.write_all(b"? x\n").unwrap();
            peer.conn.send_close_notify();
            peer.flush().unwrap();
            peer // the socket stays open
        });
        wire.send(b"x").unwrap();
        let peer = server.join().unwrap();
        let (mut answers, mut chunk) = (Answers::default(), [0; 1000]);
        assert!(wire.receive(&mut chunk, &mut answers).unwrap());
        assert!(!answers.is_empty());
        assert!(!wire.receive(&mut chunk, &mut answers).unwrap());
        drop(peer);
    }
}
