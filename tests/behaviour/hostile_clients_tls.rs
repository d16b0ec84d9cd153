//! TLS clients that are old, slow, broken or hostile: each is served or closed, and costs little.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use herd_testkit::client::{Client, SOON, wait_until};
use herd_testkit::herd::{Herd, Server};
use ring::aead;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{
    ClientConfig, ClientConnection, ConnectionTrafficSecrets, RootCertStore,
    SupportedProtocolVersion,
};

use crate::tls::{Authority, FOR_CLIENTS, Secure, connect, line, secure_client, secure_server};

pub(crate) fn config(
    authority: &Authority,
    version: &'static SupportedProtocolVersion,
) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(authority.pem().as_bytes()).unwrap())
        .unwrap();
    ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth()
}

pub(crate) fn is_served(mut client: Secure) {
    client.write_all(b"IAMAT x +1+2 3\nno\n").unwrap();
    assert!(line(&mut client).starts_with("AT Riley +"));
    assert_eq!(line(&mut client), "? no\n");
}

/// The ClientHello of a correct client.
fn hello(authority: &Authority) -> Vec<u8> {
    let config = Arc::new(config(authority, &rustls::version::TLS13));
    let name = ServerName::try_from("localhost").unwrap();
    let mut connection = ClientConnection::new(config, name).unwrap();
    let mut hello = Vec::new();
    connection.write_tls(&mut hello).unwrap();
    hello
}

/// The log lines about this client.
fn told(server: &Server, client: &Client) -> Vec<String> {
    let address = client.stream().local_addr().unwrap().to_string();
    let lines = server.log_lines().into_iter();
    lines.filter(|line| line.contains(&address)).collect()
}

#[test]
fn tls_1_2_and_tls_1_3_are_accepted() {
    let (_herd, server, authority) = secure_server("");
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        is_served(connect(
            server.address,
            config(&authority, version),
            "localhost",
        ));
    }
}

/// A ClientHello of this version, without extensions, with the most common cipher suites of its
/// time.
fn old_hello(minor: u8) -> Vec<u8> {
    let mut body = vec![3, minor];
    body.extend_from_slice(&[7; 32]);
    body.push(0); // no session
    body.extend_from_slice(&[0, 8, 0xc0, 0x13, 0xc0, 0x14, 0x00, 0x2f, 0x00, 0x35]);
    body.extend_from_slice(&[1, 0]); // no compression
    let mut hello = vec![22, 3, minor.min(1), 0, body.len() as u8 + 4];
    hello.extend_from_slice(&[1, 0, 0, body.len() as u8]);
    hello.extend_from_slice(&body);
    hello
}

#[test]
fn older_tls_versions_are_refused_with_an_alert() {
    const FATAL_ALERT: [u8; 2] = [21, 2];
    let (_herd, server, _authority) = secure_server("");
    for minor in 0..=3 {
        // The last one is TLS 1.2 without the extensions that make it safe, so it is no better than
        // TLS 1.1.
        let mut old = Client::connect(server.address);
        old.send(old_hello(minor));
        let told_it = old.rest();
        assert_eq!(told_it.len(), 7, "3.{minor}: {}", told_it.escape_ascii());
        assert_eq!([told_it[0], told_it[5]], FATAL_ALERT, "3.{minor}");
        let address = old.stream().local_addr().unwrap().to_string();
        drop(old);
        server.wait_for_log(&address, "gone: TLS failed: ");
    }
    // SSL 2.0 has another framing.
    let mut older = Client::connect(server.address);
    older.send(b"\x80\x2e\x01\x00\x02\x00\x15\x00\x00\x00\x10\x07\x00\xc0");
    assert_eq!(older.rest()[0], 21);
}

#[test]
fn plain_text_on_a_tls_port_is_refused_and_logged_once() {
    let (_herd, server, authority) = secure_server("linger_ms = 60000");
    for number in 0..50 {
        let begun = Instant::now();
        let mut plain = Client::connect(server.address);
        plain.send(format!("IAMAT x{number} +1+2 3\nWHATSAT x{number} 1 1\n"));
        let told_it = plain.rest();
        assert_eq!(told_it[0], 21, "an alert: {}", told_it.escape_ascii());
        assert!(begun.elapsed() < SOON / 2);
        plain.finish();
        server.wait_for_log(
            &format!("{}: gone", plain.stream().local_addr().unwrap()),
            "",
        );
        let lines = told(&server, &plain);
        assert_eq!(lines.len(), 3, "connected, failed and gone: {lines:?}");
        let quiet = lines.iter().filter(|line| line.contains("[DEBUG]"));
        let is_told = u32::is_power_of_two(number + 1);
        assert_eq!(quiet.count(), 3 - usize::from(is_told), "{lines:?}");
    }
    is_served(secure_client(server.address, &authority));
}

#[test]
fn a_tls_handshake_may_arrive_one_byte_at_a_time() {
    let (_herd, server, authority) = secure_server("");
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let name = ServerName::try_from("localhost").unwrap();
        let config = Arc::new(config(&authority, version));
        let mut connection = ClientConnection::new(config, name).unwrap();
        let mut stream = TcpStream::connect(server.address).unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        stream.set_nodelay(true).unwrap();
        connection
            .writer()
            .write_all(b"IAMAT x +1+2 3\nno\n")
            .unwrap();
        let mut answers = String::new();
        while !answers.ends_with("? no\n") {
            while connection.wants_write() {
                let mut bytes = Vec::new();
                connection.write_tls(&mut bytes).unwrap();
                for byte in bytes {
                    stream.write_all(&[byte]).unwrap();
                }
            }
            connection.read_tls(&mut stream).unwrap();
            connection.process_new_packets().unwrap();
            match connection.reader().read_to_string(&mut answers) {
                Ok(_) => {}
                Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
            }
        }
        assert!(answers.starts_with("AT Riley +"), "{answers}");
    }
}

#[test]
fn slow_bytes_do_not_extend_the_handshake_deadline() {
    let (_herd, server, authority) = secure_server("tls_handshake_ms = 500");
    let hello = hello(&authority);
    let begun = Instant::now();
    let mut slow = TcpStream::connect(server.address).unwrap();
    slow.set_nodelay(true).unwrap();
    let mut sent = 0;
    for byte in hello.iter().cycle() {
        if slow.write_all(&[*byte]).is_err() {
            break;
        }
        sent += 1;
        assert!(begun.elapsed() < SOON, "still there after {sent} bytes");
        std::thread::park_timeout(Duration::from_millis(10));
    }
    assert!(begun.elapsed() >= Duration::from_millis(490));
    assert!(sent < hello.len(), "it was through");
    server.wait_for_log("no TLS handshake within 500 ms", "gone");
}

#[test]
fn a_tls_record_must_be_finished_within_line_ms() {
    let (_herd, server, authority) = secure_server("line_ms = 500");
    let config = || config(&authority, &rustls::version::TLS13);
    let mut idle = connect(server.address, config(), "localhost");
    idle.write_all(b"IAMAT x +1+2 3\n").unwrap();
    assert!(line(&mut idle).starts_with("AT Riley +"));
    for begun in [1, 5, 6, 3_000] {
        let mut client = connect(server.address, config(), "localhost");
        client.write_all(b"no\n").unwrap();
        assert_eq!(line(&mut client), "? no\n");
        let asked = Instant::now();
        client
            .conn
            .writer()
            .write_all(&b"IAMAT x +1+2 3\n".repeat(1_000))
            .unwrap();
        let mut record = Vec::new();
        client.conn.write_tls(&mut record).unwrap();
        client.sock.write_all(&record[..begun]).unwrap();
        let mut rest = Vec::new();
        client.sock.read_to_end(&mut rest).unwrap();
        assert!(
            asked.elapsed() >= Duration::from_millis(490),
            "{begun} bytes"
        );
        let address = client.sock.local_addr().unwrap().to_string();
        server.wait_for_log(&address, "gone: no end of a TLS record within 500 ms");
    }
    // An idle client stays connected. When it begins a record, it has the same time as any client.
    idle.conn.writer().write_all(b"no\n").unwrap();
    let mut record = Vec::new();
    idle.conn.write_tls(&mut record).unwrap();
    let (half, rest) = record.split_at(7);
    idle.sock.write_all(half).unwrap();
    connect(server.address, config(), "localhost")
        .write_all(b"what is there is read by then\n")
        .unwrap();
    server.wait_for_log("what is there is read by then", "");
    idle.sock.write_all(rest).unwrap();
    assert_eq!(line(&mut idle), "? no\n");
}

#[test]
fn a_paused_client_is_not_closed_for_an_unfinished_record() {
    let (_herd, server, authority) = secure_server("line_ms = 500\noutput_high_bytes = 100000");
    let mut client = connect(
        server.address,
        config(&authority, &rustls::version::TLS13),
        "localhost",
    );
    client.write_all(b"no\n").unwrap();
    assert_eq!(line(&mut client), "? no\n");
    // This client reads no replies. So the server stops reading in the end, in the middle of a
    // record.
    let command = format!("{}\n", "x".repeat(1_000));
    let mut sent = 0;
    let stuck = Some(Duration::from_millis(500));
    client.sock.set_write_timeout(stuck).unwrap();
    let error = loop {
        client.conn.writer().write_all(command.as_bytes()).unwrap();
        match client.conn.write_tls(&mut client.sock) {
            // A partial write has waited for the timeout, too.
            Ok(_) if client.conn.wants_write() => break ErrorKind::WouldBlock,
            Ok(_) => sent += 1,
            Err(error) => break error.kind(),
        }
    };
    assert_eq!(error, ErrorKind::WouldBlock);
    // The server still reads from this second client. It begins a record later than the first
    // client, and is closed because it does not finish it. By then the first client's time would be
    // over, too.
    let mut other = connect(
        server.address,
        config(&authority, &rustls::version::TLS13),
        "localhost",
    );
    other.write_all(b"no\n").unwrap();
    assert_eq!(line(&mut other), "? no\n");
    other.sock.write_all(&[23, 3, 3]).unwrap();
    let address = other.sock.local_addr().unwrap().to_string();
    server.wait_for_log(&address, "gone: no end of a TLS record within 500 ms");
    let (mut answers, wanted) = (Vec::new(), sent * (2 + command.len()));
    while answers.len() < wanted {
        assert!(client.conn.read_tls(&mut client.sock).unwrap() > 0);
        client.conn.process_new_packets().unwrap();
        match client.conn.reader().read_to_end(&mut answers) {
            Ok(_) => {}
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
        }
    }
}

/// A client that has finished its handshake, and then sends handshake records with any content.
struct Babbler {
    stream: TcpStream,
    key: aead::LessSafeKey,
    iv: [u8; 12],
    sequence: u64,
}

impl Babbler {
    fn begin(server: &Server, authority: &Authority) -> Babbler {
        let mut config = config(authority, &rustls::version::TLS13);
        config.enable_secret_extraction = true;
        let mut client = connect(server.address, config, "localhost");
        client.write_all(b"no\n").unwrap();
        assert_eq!(line(&mut client), "? no\n");
        let (sequence, secrets) = client.conn.dangerous_extract_secrets().unwrap().tx;
        let (algorithm, key, iv) = match secrets {
            ConnectionTrafficSecrets::Aes128Gcm { key, iv } => (&aead::AES_128_GCM, key, iv),
            ConnectionTrafficSecrets::Aes256Gcm { key, iv } => (&aead::AES_256_GCM, key, iv),
            ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => {
                (&aead::CHACHA20_POLY1305, key, iv)
            }
            _ => panic!("a cipher of another kind"),
        };
        let key = aead::UnboundKey::new(algorithm, key.as_ref()).unwrap();
        Babbler {
            stream: client.sock,
            key: aead::LessSafeKey::new(key),
            iv: iv.as_ref().try_into().unwrap(),
            sequence,
        }
    }

    /// Sends a handshake record (RFC 8446, section 5.2).
    fn says(&mut self, words: &[u8]) -> std::io::Result<()> {
        let mut inner = [words, &[22]].concat();
        let length = (inner.len() + self.key.algorithm().tag_len()) as u16;
        let [high, low] = length.to_be_bytes();
        let header = [23, 3, 3, high, low];
        let mut nonce = self.iv;
        for (place, byte) in nonce[4..].iter_mut().zip(self.sequence.to_be_bytes()) {
            *place ^= byte;
        }
        self.sequence += 1;
        let nonce = aead::Nonce::assume_unique_for_key(nonce);
        let sealed = self
            .key
            .seal_in_place_append_tag(nonce, aead::Aad::from(header), &mut inner);
        sealed.unwrap();
        self.stream.write_all(&[&header[..], &inner].concat())
    }
}

#[test]
fn post_handshake_messages_have_the_handshake_s_limit() {
    let (_herd, server, authority) = secure_server("tls_handshake_bytes = 2048\nline_ms = 500");
    // The header of a KeyUpdate message of 65,000 bytes.
    let begun = [24, 0, 253, 232];
    for (bytes, records, reason) in [
        // The content of one record cannot be told from padding. A message over several records has
        // to be finished.
        (7_000, 3, "gone: no end of a TLS record within 500 ms"),
        (
            16_000,
            2,
            "gone: without any data it sent more than 2048 bytes",
        ),
    ] {
        let mut babbler = Babbler::begin(&server, &authority);
        let address = babbler.stream.local_addr().unwrap().to_string();
        babbler
            .says(&[&begun[..], &vec![0; bytes]].concat())
            .unwrap();
        for _ in 1..records {
            // The server may have closed the connection.
            let _ = babbler.says(&vec![0; bytes - 1_000]);
        }
        server.wait_for_log(&address, reason);
    }
}

#[test]
fn an_alert_during_the_handshake_closes_the_connection() {
    let (_herd, server, authority) = secure_server("tls_handshake_ms = 60000\nlinger_ms = 60000");
    let hello = hello(&authority);
    let handshake_failure = b"\x15\x03\x03\x00\x02\x02\x28";
    let close_notify = b"\x15\x03\x03\x00\x02\x01\x00";
    let (whole, half) = (&hello[..], &hello[..hello.len() / 2]);
    for (said, ends_by_itself) in [
        (vec![&handshake_failure[..]], true),
        (vec![&close_notify[..]], false),
        (vec![whole, handshake_failure], true),
        (vec![whole, close_notify], false),
        (vec![half], false),
        (vec![whole], false),
        (vec![], false),
    ] {
        let mut client = Client::connect(server.address);
        client.send(said.concat());
        if !ends_by_itself {
            client.finish();
        }
        client.rest();
        client.stream().shutdown(Shutdown::Both).ok();
        let address = client.stream().local_addr().unwrap().to_string();
        server.wait_for_log(&format!("{address}: gone"), "");
    }
    is_served(secure_client(server.address, &authority));
}

#[test]
fn invalid_tls_records_close_the_connection() {
    let (_herd, server, authority) = secure_server("linger_ms = 300");
    let hello = hello(&authority);
    let zeros = vec![0; 17_000];
    let header = |kind: u8, length: u16| [&[kind, 3, 3][..], &length.to_be_bytes()].concat();
    let records: Vec<Vec<u8>> = vec![
        header(22, u16::MAX),
        [header(22, 16_385 + 2_048), zeros.clone()].concat(),
        [header(99, 10), zeros[..10].to_vec()].concat(),
        [header(23, 10), zeros[..10].to_vec()].concat(),
        [header(20, 1), vec![2]].concat(),
        [header(22, 4), vec![1, 0xff, 0xff, 0xff]].concat(),
        [header(22, 4), vec![77, 0, 0, 0]].concat(),
        header(22, 0).repeat(50),
        zeros.clone(),
    ];
    for (number, record) in records.iter().enumerate() {
        for before in [&[][..], &hello[..]] {
            let mut client = Client::connect(server.address);
            // The server may close before all bytes are written.
            let _ = client.stream().write_all(&[before, record].concat());
            let told_it = client.rest();
            // If the server sends anything, it is an alert. The alert is in plain text while
            // nothing is encrypted.
            assert!(
                !before.is_empty() || told_it.first().is_none_or(|kind| *kind == 21),
                "{number}: {}",
                told_it.escape_ascii()
            );
        }
        // The same record after a good handshake.
        let mut client = secure_client(server.address, &authority);
        client.write_all(b"x\n").unwrap();
        assert_eq!(line(&mut client), "? x\n");
        let _ = client.sock.write_all(record);
        let mut more = Vec::new();
        assert!(
            client.read_to_end(&mut more).is_err(),
            "{number}: no goodbye"
        );
        assert_eq!(more, b"", "{number}");
    }
    is_served(secure_client(server.address, &authority));
}

#[test]
fn bytes_after_close_notify_are_ignored() {
    let (_herd, server, authority) = secure_server("linger_ms = 300");
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let config = config(&authority, version);
        let mut client = connect(server.address, config, "localhost");
        let address = client.sock.local_addr().unwrap().to_string();
        // The server quotes a line that is too long, and closes.
        client.write_all(&[b'x'; 5_000]).unwrap();
        client.write_all(b"\n").unwrap();
        assert_eq!(line(&mut client).len(), 2 + 4_096 + 1);
        assert_eq!(client.read(&mut [0; 10]).unwrap(), 0, "close_notify");
        for garbage in [
            &b"\x17\x03\x03\x00\x0a0123456789"[..],
            b"\x15\x03\x03\x00\x02\x02\x28",
            &[0; 100],
        ] {
            // The server may have closed already.
            let _ = client.sock.write_all(garbage);
        }
        server.wait_for_log(&format!("{address}: gone"), "");
    }
    is_served(secure_client(server.address, &authority));
}

#[test]
fn pending_handshakes_are_bounded_in_count_and_memory() {
    const PLACES: usize = 600;
    let (_herd, server, authority) =
        secure_server(&format!("max_clients = {PLACES}\ntls_handshake_ms = 8000"));
    is_served(secure_client(server.address, &authority));
    let before = server.status("VmRSS");
    let hello = hello(&authority);
    let crowd: Vec<Client> = (0..PLACES)
        .map(|_| {
            let mut client = Client::connect(server.address);
            client.send(&hello); // it never reads the server's flight
            client
        })
        .collect();
    wait_until("all places are taken", || {
        let one_more = Client::connect(server.address);
        let mut header = [0; 3];
        let quickly = Some(Duration::from_millis(500));
        one_more.stream().set_read_timeout(quickly).unwrap();
        let is_told = one_more.stream().read_exact(&mut header).is_ok();
        is_told && header[0] == 21
    });
    let grown = server.status("VmRSS").saturating_sub(before);
    let each = grown as usize / PLACES;
    assert!(each < 64, "{each} KiB each");
    // The server closes them all. Then new clients get their places.
    for mut client in crowd {
        client.rest();
    }
    server.wait_for_nth_log(PLACES / 2, "no TLS handshake within 8000 ms", "gone");
    wait_until("there is a place", || {
        let mut client = secure_client(server.address, &authority);
        client.write_all(b"x\n").is_ok() && client.read(&mut [0; 4]).is_ok_and(|count| count > 0)
    });
}

/// A ClientHello with a length of 65,000 bytes, of which the last one is missing.
fn endless_hello() -> Vec<u8> {
    const BYTES: u32 = 65_000;
    let mut message = vec![1];
    message.extend_from_slice(&BYTES.to_be_bytes()[1..]);
    message.resize(3 + BYTES as usize, 0);
    let records = message.chunks(16_384).map(|piece| {
        let length = (piece.len() as u16).to_be_bytes();
        [&[22, 3, 1], &length[..], piece].concat()
    });
    records.collect::<Vec<_>>().concat()
}

#[test]
fn a_handshake_above_tls_handshake_bytes_is_refused() {
    const CROWD: usize = 300;
    let (_herd, server, authority) =
        secure_server("tls_handshake_bytes = 2048\ntls_handshake_ms = 60000\nlinger_ms = 60000");
    is_served(secure_client(server.address, &authority));
    let endless = endless_hello();
    let before = server.status("VmRSS");
    let crowd: Vec<Client> = (0..CROWD)
        .map(|_| {
            let client = Client::connect(server.address);
            // The server may close before all bytes are written.
            let _ = client.stream().write_all(&endless);
            client
        })
        .collect();
    for mut client in crowd {
        assert_eq!(client.rest(), b"\x15\x03\x03\x00\x02\x02\x2f", "an alert");
    }
    let reason = "gone: its TLS handshake has more than 2048 bytes (limits.tls_handshake_bytes)";
    server.wait_for_nth_log(CROWD, reason, "");
    let grown = server.status("VmHWM").saturating_sub(before) as usize;
    assert!(
        grown < 16 * CROWD,
        "{grown} KiB for {CROWD} hellos without end"
    );
    // Application data that arrives together with the end of the handshake does not count as
    // handshake.
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let config = config(&authority, version);
        let mut client = connect(server.address, config, "localhost");
        let line_of_its_own = format!("{}\n", "x".repeat(4_000));
        client
            .write_all(line_of_its_own.repeat(5).as_bytes())
            .unwrap();
        for _ in 0..5 {
            assert_eq!(line(&mut client), format!("? {line_of_its_own}"));
        }
    }
}

#[test]
fn key_updates_are_accepted_up_to_a_limit() {
    let (_herd, server, authority) = secure_server("linger_ms = 300");
    let config = config(&authority, &rustls::version::TLS13);
    let mut client = connect(server.address, config, "localhost");
    client.write_all(b"x\n").unwrap();
    assert_eq!(line(&mut client), "? x\n");
    client.conn.refresh_traffic_keys().unwrap();
    client.write_all(b"y\n").unwrap();
    assert_eq!(line(&mut client), "? y\n");
    // From now on the client sends nothing but key updates, and reads nothing.
    let before = server.status("VmRSS");
    let mut sent = 0;
    while client.conn.refresh_traffic_keys().is_ok() && client.flush().is_ok() {
        sent += 1;
        assert!(sent < 100_000, "no end to it");
    }
    let ended = loop {
        match client.read(&mut [0; 100]) {
            Ok(0) => break false,
            Ok(_) => {}
            Err(error) => break error.kind() != ErrorKind::WouldBlock,
        }
    };
    assert!(ended, "cut off");
    assert!(server.status("VmRSS") < before + 10_000);
    is_served(secure_client(server.address, &authority));
}

#[test]
fn pipelined_commands_are_answered_in_order() {
    const COMMANDS: usize = 5_000;
    let (_herd, server, authority) = secure_server("");
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let mut client = connect(server.address, config(&authority, version), "localhost");
        let mut socket = client.sock.try_clone().unwrap();
        socket.set_nodelay(true).unwrap();
        let commands: String = (0..COMMANDS)
            .map(|number| format!("no {number}\n"))
            .collect();
        // The client sends all commands and then `close_notify`. Only after that it reads the
        // replies.
        client.write_all(commands.as_bytes()).unwrap();
        client.conn.send_close_notify();
        client.flush().unwrap();
        let mut answers = String::new();
        client.read_to_string(&mut answers).unwrap();
        let expected: String = (0..COMMANDS)
            .map(|number| format!("? no {number}\n"))
            .collect();
        assert!(answers == expected, "{} bytes", answers.len());
        socket.flush().unwrap();
    }
}

#[test]
fn a_tls_client_that_does_not_read_is_paused_then_closed() {
    let herd = Herd::single()
        .level("warn") // lines that wait for the log use memory, too
        .with(FOR_CLIENTS)
        .with("[limits]\noutput_stall_ms = 1500\n");
    let authority = Authority::new();
    authority.certify(herd.directory.path(), "clients", "localhost", false);
    let server = herd.start("Riley");
    let mut client = secure_client(server.address, &authority);
    client.write_all(b"x\n").unwrap();
    assert_eq!(line(&mut client), "? x\n");
    let before = server.status("VmHWM"); // the highest memory use so far
    client
        .sock
        .set_write_timeout(Some(Duration::from_millis(500)))
        .unwrap();
    let command = format!("{}\n", "x".repeat(4_000)).repeat(16);
    let mut written = 0;
    while client.write_all(command.as_bytes()).is_ok() && client.flush().is_ok() {
        written += command.len();
        assert!(written < 400_000_000, "it is read without end");
    }
    let grown = server.status("VmHWM").saturating_sub(before);
    assert!(grown < 3_000, "{grown} KiB for one client");
    server.wait_for_log("it did not read its answers for 1500 ms", "client ");
    is_served(secure_client(server.address, &authority));
}

#[test]
fn renegotiation_is_refused() {
    let (_herd, server, authority) = secure_server("");
    let Ok(_) = Command::new("openssl").arg("version").output() else {
        let _ = writeln!(
            std::io::stderr(),
            "skipped: renegotiation: there is no program `openssl`"
        );
        return;
    };
    let ca = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(ca.path(), authority.pem()).unwrap();
    let mut openssl = Command::new("openssl")
        .args(["s_client", "-tls1_2", "-legacy_renegotiation", "-connect"])
        .arg(server.address.to_string())
        .args(["-servername", "localhost", "-CAfile"])
        .arg(ca.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut keyboard = openssl.stdin.take().unwrap();
    let mut screen = openssl.stdout.take().unwrap();
    let mut shown = String::new();
    let mut buffer = [0; 4096];
    keyboard.write_all(b"before\n").unwrap();
    while !shown.contains("? before") {
        let count = screen.read(&mut buffer).unwrap();
        assert!(count > 0, "{shown}");
        shown.push_str(&String::from_utf8_lossy(&buffer[..count]));
    }
    assert!(shown.contains("TLSv1.2"), "{shown}");
    keyboard.write_all(b"R\n").unwrap(); // asks `s_client` for a renegotiation
    keyboard.flush().unwrap();
    let mut rest = String::new();
    let deadline = Instant::now() + SOON;
    while openssl.try_wait().unwrap().is_none() {
        assert!(Instant::now() < deadline, "openssl is satisfied");
        std::thread::park_timeout(Duration::from_millis(5));
    }
    openssl
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut rest)
        .unwrap();
    assert!(
        rest.contains("no renegotiation") || rest.contains("alert"),
        "{rest}"
    );
    drop(keyboard);
    is_served(secure_client(server.address, &authority));
}
