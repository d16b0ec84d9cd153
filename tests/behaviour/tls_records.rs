//! Unusual but correct records: padded (RFC 8446, section 5.4), or of one byte each.

use std::collections::HashMap;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::{Arc, Mutex};

use herd_testkit::client::SOON;
use herd_testkit::herd::Server;
use ring::{aead, hkdf};
use rustls::pki_types::ServerName;
use rustls::{ClientConnection, KeyLog, SupportedProtocolVersion};

use crate::hostile_clients_tls::{config, is_served};
use crate::tls::{Authority, line, secure_client, secure_server};

/// The largest content of a record, with its type and its padding.
const FULL: usize = (1 << 14) + 1;
const HEADER: usize = 5;

/// The secrets of one connection by their labels (NSS's key log format).
#[derive(Debug, Default)]
struct Secrets(Mutex<HashMap<String, Vec<u8>>>);

impl KeyLog for Secrets {
    fn log(&self, label: &str, _random: &[u8], secret: &[u8]) {
        let mut secrets = self.0.lock().unwrap();
        secrets.insert(label.to_owned(), secret.to_owned());
    }
}

/// The keys of one direction (RFC 8446, section 7.3), for TLS_AES_256_GCM_SHA384.
struct Keys {
    key: aead::LessSafeKey,
    iv: [u8; 12],
    sequence: u64,
}

struct Length(usize);

impl hkdf::KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}

impl Keys {
    fn of(secret: &[u8]) -> Keys {
        let secret = hkdf::Prk::new_less_safe(hkdf::HKDF_SHA384, secret);
        let expand = |label: &[u8], into: &mut [u8]| {
            let length = (into.len() as u16).to_be_bytes();
            let info = [
                &length[..],
                &[6 + label.len() as u8],
                b"tls13 ",
                label,
                &[0],
            ];
            let expanded = secret.expand(&info, Length(into.len())).unwrap();
            expanded.fill(into).unwrap();
        };
        let (mut key, mut iv) = ([0; 32], [0; 12]);
        expand(b"key", &mut key);
        expand(b"iv", &mut iv);
        let key = aead::UnboundKey::new(&aead::AES_256_GCM, &key).unwrap();
        Keys {
            key: aead::LessSafeKey::new(key),
            iv,
            sequence: 0,
        }
    }

    fn nonce(&self, sequence: u64) -> aead::Nonce {
        let mut nonce = self.iv;
        for (place, byte) in nonce[4..].iter_mut().zip(sequence.to_be_bytes()) {
            *place ^= byte;
        }
        aead::Nonce::assume_unique_for_key(nonce)
    }

    /// Decrypts a record that rustls made: the content, and its type at the end.
    fn open(&self, record: &[u8], sequence: u64) -> Vec<u8> {
        let mut inner = record[HEADER..].to_vec();
        let header = aead::Aad::from(&record[..HEADER]);
        let opened = self
            .key
            .open_in_place(self.nonce(sequence), header, &mut inner);
        opened.unwrap().to_vec()
    }

    /// Makes a record of `content` with this type, padded to `size` bytes.
    fn seal_record(&mut self, content: &[u8], kind: u8, size: usize) -> Vec<u8> {
        let mut inner = [content, &[kind]].concat();
        inner.resize(inner.len().max(size), 0);
        let length = (inner.len() + self.key.algorithm().tag_len()) as u16;
        let [high, low] = length.to_be_bytes();
        let header = [23, 3, 3, high, low];
        let nonce = self.nonce(self.sequence);
        self.sequence += 1;
        let sealed = self
            .key
            .seal_in_place_append_tag(nonce, aead::Aad::from(header), &mut inner);
        sealed.unwrap();
        [&header[..], &inner].concat()
    }
}

/// A client over TLS 1.3 that pads all its records, beginning with its Finished.
struct Padding {
    stream: TcpStream,
    connection: ClientConnection,
    keys: Keys,
    size: usize,
}

impl Padding {
    /// Does the handshake. The Finished goes out in records of `piece` bytes of content, padded to
    /// `size` bytes each.
    fn begin(server: &Server, authority: &Authority, piece: usize, size: usize) -> Padding {
        let secrets = Arc::new(Secrets::default());
        let mut config = config(authority, &rustls::version::TLS13);
        config.key_log = secrets.clone();
        let name = ServerName::try_from("localhost").unwrap();
        let mut connection = ClientConnection::new(Arc::new(config), name).unwrap();
        let mut stream = TcpStream::connect(server.address).unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        stream.set_nodelay(true).unwrap();
        connection.write_tls(&mut stream).unwrap();
        while connection.is_handshaking() {
            assert!(connection.read_tls(&mut stream).unwrap() > 0);
            connection.process_new_packets().unwrap();
        }
        let mut flight = Vec::new();
        while connection.wants_write() {
            connection.write_tls(&mut flight).unwrap();
        }
        let secrets = secrets.0.lock().unwrap();
        let mut keys = Keys::of(&secrets["CLIENT_HANDSHAKE_TRAFFIC_SECRET"]);
        let mut rest = &flight[..];
        let mut finished = Vec::new();
        while !rest.is_empty() {
            let length = usize::from(u16::from_be_bytes([rest[3], rest[4]]));
            let (record, behind) = rest.split_at(HEADER + length);
            match record[0] {
                20 => stream.write_all(record).unwrap(),
                _ => finished = keys.open(record, 0),
            }
            rest = behind;
        }
        assert_eq!(finished.pop(), Some(22), "it is a message of the handshake");
        let pieces: Vec<u8> = finished
            .chunks(piece)
            .flat_map(|piece| keys.seal_record(piece, 22, size))
            .collect();
        stream.write_all(&pieces).unwrap();
        Padding {
            stream,
            connection,
            keys: Keys::of(&secrets["CLIENT_TRAFFIC_SECRET_0"]),
            size,
        }
    }

    fn says(&mut self, text: &[u8]) -> std::io::Result<()> {
        let record = self.keys.seal_record(text, 23, self.size);
        self.stream.write_all(&record)
    }

    fn line(&mut self) -> String {
        let mut line = Vec::new();
        while !line.ends_with(b"\n") {
            assert!(self.connection.read_tls(&mut self.stream).unwrap() > 0);
            self.connection.process_new_packets().unwrap();
            match self.connection.reader().read_to_end(&mut line) {
                Ok(_) => {}
                Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
            }
        }
        String::from_utf8(line).unwrap()
    }
}

#[test]
fn tls_records_may_have_maximum_padding() {
    let (_herd, server, authority) = secure_server("line_ms = 300");
    for size in [1, 4_096, 8_192, 10_000, FULL] {
        let mut client = Padding::begin(&server, &authority, 1_000, size);
        for _ in 0..5 {
            client.says(b"IAMAT x +1+2 3\n").unwrap();
            assert!(client.line().starts_with("AT Riley +"), "{size}");
        }
        // A command in many records, each with one byte of content and padding.
        for byte in b"no\n" {
            client.says(&[*byte]).unwrap();
        }
        assert_eq!(client.line(), "? no\n", "{size}");
        // A record may consist of padding only, which hides that there is nothing to send. No other
        // record may follow for long.
        client.says(b"").unwrap();
        let mut later = secure_client(server.address, &authority);
        later.write_all(b"unfinished").unwrap();
        assert_eq!(line(&mut later), "? unfinished\n", "its time is over");
        client.says(b"yes\n").unwrap();
        assert_eq!(client.line(), "? yes\n", "{size}");
    }
}

#[test]
fn a_tls_finished_may_arrive_one_byte_at_a_time() {
    let (_herd, server, authority) = secure_server("");
    for size in [2, 200] {
        let mut client = Padding::begin(&server, &authority, 1, size);
        client.says(b"no\n").unwrap();
        assert_eq!(client.line(), "? no\n", "{size}");
    }
}

/// Splits the plaintext records into records of one byte each.
fn in_one_byte_records(bytes: &[u8]) -> Vec<u8> {
    let mut records = Vec::new();
    let mut rest = bytes;
    let mut is_clear = true;
    while !rest.is_empty() {
        let length = usize::from(u16::from_be_bytes([rest[3], rest[4]]));
        let (record, behind) = rest.split_at(HEADER + length);
        is_clear &= record[0] == 22;
        if is_clear {
            for byte in &record[HEADER..] {
                records.extend_from_slice(&[22, record[1], record[2], 0, 1, *byte]);
            }
        } else {
            records.extend_from_slice(record);
        }
        rest = behind;
    }
    records
}

fn handshake_in_one_byte_records(
    server: &Server,
    authority: &Authority,
    version: &'static SupportedProtocolVersion,
    protocols: usize,
) {
    let mut config = config(authority, version);
    // ALPN names make the ClientHello long. The server ignores them.
    config.alpn_protocols = (0..protocols).map(|_| vec![b'x'; 200]).collect();
    let name = ServerName::try_from("localhost").unwrap();
    let mut connection = ClientConnection::new(Arc::new(config), name).unwrap();
    let mut stream = TcpStream::connect(server.address).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    stream.set_nodelay(true).unwrap();
    connection.writer().write_all(b"no\n").unwrap();
    let mut answer = String::new();
    while answer != "? no\n" {
        let mut bytes = Vec::new();
        while connection.wants_write() {
            connection.write_tls(&mut bytes).unwrap();
        }
        stream.write_all(&in_one_byte_records(&bytes)).unwrap();
        assert!(connection.read_tls(&mut stream).unwrap() > 0, "{answer}");
        connection.process_new_packets().unwrap();
        match connection.reader().read_to_string(&mut answer) {
            Ok(_) => {}
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
        }
    }
}

#[test]
fn a_tls_handshake_may_use_records_of_one_byte() {
    let (_herd, server, authority) = secure_server("");
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        // A ClientHello with post-quantum keys has about 1,800 bytes.
        for protocols in [0, 8, 16] {
            handshake_in_one_byte_records(&server, &authority, version, protocols);
        }
    }
    is_served(secure_client(server.address, &authority));
}

#[test]
fn a_handshake_above_tls_handshake_records_is_refused() {
    let (_herd, server, authority) = secure_server("tls_handshake_records = 512");
    handshake_in_one_byte_records(&server, &authority, &rustls::version::TLS13, 0);
    let mut stream = TcpStream::connect(server.address).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    // A ClientHello of 4,000 bytes, of which only 600 are sent.
    let hello: Vec<u8> = [1, 0, 0x0f, 0xa0].into_iter().chain([0; 596]).collect();
    let records = hello.iter().flat_map(|byte| [22, 3, 1, 0, 1, *byte]);
    // The server may close before all bytes are written.
    let _ = stream.write_all(&records.collect::<Vec<u8>>());
    let mut told_it = Vec::new();
    let _ = stream.read_to_end(&mut told_it);
    assert_eq!(
        told_it, b"\x15\x03\x03\x00\x02\x02\x2f",
        "illegal_parameter"
    );
    let address = stream.local_addr().unwrap().to_string();
    server.wait_for_log(
        &address,
        "more than 512 records (limits.tls_handshake_records)",
    );
    // After the handshake, records without content are limited, too.
    let mut client = Padding::begin(&server, &authority, 1_000, 1);
    client.says(b"no\n").unwrap();
    assert_eq!(client.line(), "? no\n");
    let mut said = 0;
    while client.says(b"").is_ok() {
        said += 1;
        assert!(said < 1_000_000, "no end to it");
    }
    is_served(secure_client(server.address, &authority));
}
