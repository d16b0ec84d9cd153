//! A socket with or without TLS. One thread may send while another receives.
//!
//! ```text
//!   send    ──► lock: encrypt ──► unlock ──► write to the socket
//!   receive ──► read from the socket ──► lock: decrypt ──► unlock
//! ```
//!
//! The lock is never held while a socket blocks. A server may read nothing until its answers are
//! read. With the lock held in a write, the receiver could not read them, and both would wait for
//! ever (test: a_blocked_send_does_not_block_receive).

use std::io::{self, Error, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::dial::{Session, Trust};

use crate::answers::Answers;

/// The socket and its TLS. A clone is the same connection.
pub(crate) struct Wire {
    pub(crate) stream: TcpStream,
    session: Option<Arc<Mutex<Session>>>,
}

fn lock(session: &Mutex<Session>) -> MutexGuard<'_, Session> {
    session.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Wire {
    /// A connection without TLS.
    pub(crate) fn plain(stream: TcpStream) -> Wire {
        Wire {
            stream,
            session: None,
        }
    }

    /// A connection with TLS. Waits for the handshake, and for each part no longer than the
    /// socket's timeout.
    ///
    /// # Errors
    /// The other side is not trusted, or does not speak TLS. The text says what to do.
    pub(crate) fn secure(mut stream: TcpStream, trust: &Trust) -> Result<Wire, String> {
        let session = Session::shake_hands(&mut stream, trust)?;
        Ok(Wire {
            stream,
            session: Some(Arc::new(Mutex::new(session))),
        })
    }

    /// The same connection for another thread.
    pub(crate) fn try_clone(&self) -> io::Result<Wire> {
        Ok(Wire {
            stream: self.stream.try_clone()?,
            session: self.session.clone(),
        })
    }

    /// Sends all bytes.
    pub(crate) fn send(&self, mut bytes: &[u8]) -> io::Result<()> {
        let Some(session) = &self.session else {
            return (&self.stream).write_all(bytes);
        };
        // Only one thread sends, so the ciphertext stays in order.
        let ciphertext = {
            let session = &mut *lock(session);
            while !bytes.is_empty() {
                let count = session.encrypt(bytes).map_err(Error::other)?;
                bytes = &bytes[count..];
            }
            session.take_output()
        };
        (&self.stream).write_all(&ciphertext)
    }

    /// Shuts down the writing side. Answers still come. An error means that the server has already
    /// closed.
    pub(crate) fn finish(&self) {
        if let Some(session) = &self.session {
            let farewell = {
                let session = &mut *lock(session);
                session.close();
                session.take_output()
            };
            let _ = (&self.stream).write_all(&farewell);
        }
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    /// Waits for bytes, and passes them to `answers`. Returns `false` at the end. An end without
    /// `close_notify` is treated like any other: answers mark their own end, so a truncated one is
    /// not taken for a whole one.
    pub(crate) fn receive(&self, chunk: &mut [u8], answers: &mut Answers) -> io::Result<bool> {
        loop {
            if let Some(session) = &self.session {
                let session = &mut *lock(session);
                let plaintext = session.take_plaintext();
                if !plaintext.is_empty() {
                    answers.data_received(&plaintext);
                    return Ok(true);
                }
                if session.is_over() {
                    return Ok(false);
                }
            }
            let count = match (&self.stream).read(chunk) {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                other => other?,
            };
            match &self.session {
                _ if count == 0 => return Ok(false),
                // The bytes may hold no answer, but a session ticket.
                Some(session) => {
                    let received = lock(session).receive(&chunk[..count]);
                    received.map_err(Error::other)?;
                }
                None => {
                    answers.data_received(&chunk[..count]);
                    return Ok(true);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::answers::{Answer, Expected};
    use crate::connection::Connection;
    use crate::dial::{Target, TlsOptions};
    use herd_mio::core::base::settings::HostPort;
    use rcgen::{CertifiedKey, generate_simple_self_signed};
    use rustls::pki_types::PrivateKeyDer;
    use rustls::{ServerConfig, ServerConnection, StreamOwned, crypto::ring};
    use std::net::{SocketAddr, TcpListener};
    use std::sync::mpsc::channel;
    use std::thread;
    use std::time::Duration;

    /// Longer than any step of a test needs.
    const DEADLINE: Duration = Duration::from_secs(60);

    type Peer = StreamOwned<ServerConnection, TcpStream>;

    /// A server that runs `script` on a connection. The connection stays open as long as the result
    /// is kept.
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
            name: Some("localhost".into()),
            address: HostPort {
                host: address.ip().to_string(),
                port: address.port(),
            },
            tls: options.trust("localhost", None).unwrap(),
        };
        (target, server)
    }

    /// The same, with a connection to it.
    fn connected<T: Send + 'static>(
        script: impl FnOnce(Peer) -> T + Send + 'static,
    ) -> (Wire, thread::JoinHandle<T>) {
        let (target, server) = serving(script);
        let connection = Connection::open(&target, DEADLINE).unwrap();
        (connection.wire, server)
    }

    #[test]
    fn close_notify_makes_a_connection_stale_and_tickets_do_not() {
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
    fn a_blocked_send_does_not_block_receive() {
        let (wire, server) = connected(|mut peer| {
            peer.read_exact(&mut [0]).unwrap();
            peer.write_all(b"? x\n").unwrap();
            peer.flush().unwrap();
            peer // and nothing more is read
        });
        let sending = wire.try_clone().unwrap();
        // More than the buffers of both sockets hold.
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
    fn session_tickets_are_no_data_and_close_notify_is_eof() {
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
