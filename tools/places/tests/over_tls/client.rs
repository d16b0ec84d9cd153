//! A TLS client that shows the borders of records, and how a connection ends.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;

use herd_places::Places;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use serde_json::Value;

use crate::PATIENCE;

/// How a connection ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    CloseNotify,
    /// A FIN without a `close_notify`.
    Abrupt,
}

/// A response with a decoded body.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Response {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error} in {}", self.body))
    }
}

pub(crate) struct Client {
    tls: ClientConnection,
    socket: TcpStream,
    received: Vec<u8>,
    /// All bytes from the socket after the handshake.
    ciphertext: Vec<u8>,
    /// So many of these bytes were passed to rustls.
    digested: usize,
}

/// The configuration of a client that trusts this CA.
pub(crate) fn trust(ca_pem: &str) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(ca_pem.as_bytes()).unwrap())
        .unwrap();
    ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth()
}

impl Client {
    pub(crate) fn new(places: &Places) -> Client {
        Client::try_new(places, trust(places.ca_pem()), "localhost").unwrap()
    }

    /// Connects, and finishes the handshake.
    pub(crate) fn try_new(
        places: &Places,
        config: ClientConfig,
        name: &str,
    ) -> std::io::Result<Client> {
        let mut socket = TcpStream::connect(places.address())?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.set_nodelay(true)?;
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let mut tls = ClientConnection::new(Arc::new(config), name).unwrap();
        while tls.is_handshaking() {
            tls.complete_io(&mut socket)?;
        }
        Ok(Client {
            tls,
            socket,
            received: Vec::new(),
            ciphertext: Vec::new(),
            digested: 0,
        })
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) {
        // rustls buffers at most 64 KiB of output.
        for part in bytes.chunks(16 * 1024) {
            self.tls.writer().write_all(part).unwrap();
            while self.tls.wants_write() {
                self.tls.write_tls(&mut self.socket).unwrap();
            }
        }
    }

    pub(crate) fn get(&mut self, target: &str) -> Response {
        self.send(format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes());
        self.response()
    }

    pub(crate) fn post(&mut self, headers: &str, body: &str) -> Response {
        let length = body.len();
        let head = format!(
            "POST /v1/places:searchNearby HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n{headers}\r\n"
        );
        self.send(head.as_bytes());
        self.send(body.as_bytes());
        self.response()
    }

    /// Sends a FIN without a `close_notify`.
    pub(crate) fn shut_down_writing(&mut self) {
        self.socket.shutdown(Shutdown::Write).unwrap();
    }

    /// Reads more plaintext, or returns how the connection ended.
    pub(crate) fn read(&mut self) -> Result<usize, Ending> {
        loop {
            let mut buffer = [0; 32 * 1024];
            match self.tls.reader().read(&mut buffer) {
                Ok(0) => return Err(Ending::CloseNotify),
                Ok(count) => {
                    self.received.extend_from_slice(&buffer[..count]);
                    return Ok(count);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => {
                    return Err(Ending::Abrupt);
                }
                Err(error) => panic!("{error}"),
            }
            if self.digested == self.ciphertext.len() {
                // A reset would panic here: the server always ends with a FIN.
                let count = self.socket.read(&mut buffer).unwrap();
                self.ciphertext.extend_from_slice(&buffer[..count]);
            }
            // At the end of the input this reads 0 bytes, which tells rustls about the end.
            self.digested += self
                .tls
                .read_tls(&mut &self.ciphertext[self.digested..])
                .unwrap();
            self.tls.process_new_packets().unwrap();
        }
    }

    /// The bytes of plaintext in each received TLS 1.3 record. Around them are 5 bytes of header, 1
    /// of type and 16 of tag (RFC 8446, 5.2). The first records may hold session tickets.
    pub(crate) fn records(&self) -> Vec<usize> {
        let mut lengths = Vec::new();
        let mut rest = self.ciphertext.as_slice();
        while let [_, _, _, high, low, behind @ ..] = rest {
            let length = usize::from(u16::from_be_bytes([*high, *low]));
            lengths.push(length - 17);
            rest = &behind[length..];
        }
        lengths
    }

    /// Takes the received plaintext that no test has checked yet.
    pub(crate) fn take_received(&mut self) -> String {
        String::from_utf8(std::mem::take(&mut self.received)).unwrap()
    }

    /// Reads until the connection ends.
    pub(crate) fn read_to_end(&mut self) -> (String, Ending) {
        loop {
            if let Err(ending) = self.read() {
                return (self.take_received(), ending);
            }
        }
    }

    /// Reads one response. Its length, chunks or the end of the connection mark the end of its
    /// body.
    pub(crate) fn response(&mut self) -> Response {
        let head = self.take_through("\r\n\r\n");
        let status = head
            .split(' ')
            .nth(1)
            .and_then(|status| status.parse().ok())
            .expect("a status");
        let body = if let Some(length) = header(&head, "Content-Length") {
            self.take(length.parse().unwrap())
        } else if header(&head, "Transfer-Encoding").as_deref() == Some("chunked") {
            let mut body = Vec::new();
            loop {
                let line = self.take_through("\r\n");
                let chunk = self.take(usize::from_str_radix(line.trim_end(), 16).unwrap() + 2);
                if chunk == b"\r\n" {
                    break body;
                }
                body.extend_from_slice(chunk.strip_suffix(b"\r\n").unwrap());
            }
        } else {
            let (body, ending) = self.read_to_end();
            assert_eq!(ending, Ending::CloseNotify);
            body.into_bytes()
        };
        Response {
            status,
            head,
            body: String::from_utf8(body).unwrap(),
        }
    }

    fn take(&mut self, length: usize) -> Vec<u8> {
        while self.received.len() < length {
            self.read()
                .unwrap_or_else(|ending| panic!("{ending:?} before {length} bytes"));
        }
        self.received.drain(..length).collect()
    }

    fn take_through(&mut self, end: &str) -> String {
        loop {
            let found = self
                .received
                .windows(end.len())
                .position(|window| window == end.as_bytes());
            if let Some(start) = found {
                return String::from_utf8(self.take(start + end.len())).unwrap();
            }
            self.read().unwrap_or_else(|ending| {
                panic!(
                    "{ending:?} after {:?}",
                    String::from_utf8_lossy(&self.received)
                );
            });
        }
    }
}

/// The value of a header.
pub(crate) fn header(head: &str, name: &str) -> Option<String> {
    let mut lines = head.lines().filter_map(|line| line.split_once(": "));
    lines
        .find(|(found, _)| found.eq_ignore_ascii_case(name))
        .map(|(_, value)| value.to_owned())
}
