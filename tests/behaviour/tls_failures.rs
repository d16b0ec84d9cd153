//! TLS failures. The client gets an alert. The log has the first failure of each kind, then those
//! whose number is a power of two. The server's status counts them all.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use herd_testkit::client::{Client, SOON};
use herd_testkit::herd::{Herd, Server, status_command};
use rustls::{ClientConfig, RootCertStore};

use crate::hostile_clients_tls::{config, is_served};
use crate::tls::{
    Authority, FOR_CLIENTS, FOR_PEERS, builder, connect, secure_client, secure_server,
};

/// The log lines at `warn` that contain `words`.
fn warnings(server: &Server, words: &str) -> Vec<String> {
    let lines = server.log_lines().into_iter();
    lines
        .filter(|line| line.contains("[WARN ]") && line.contains(words))
        .collect()
}

/// Closes the client, and waits until the server has noticed.
fn gone(server: &Server, stream: &TcpStream) {
    let address = stream.local_addr().unwrap();
    // The connection may be closed already.
    let _ = stream.shutdown(Shutdown::Both);
    server.wait_for_log(&format!("{address}: gone"), "");
}

/// Sends these bytes. Returns the number of the alert that comes back.
fn alert(server: &Server, said: &[u8]) -> u8 {
    let mut client = Client::connect(server.address);
    client.send(said);
    let told_it = client.rest();
    let [21, 3, _, 0, 2, 2, alert] = told_it[..] else {
        panic!("no alert: {}", told_it.escape_ascii());
    };
    gone(server, client.stream());
    alert
}

#[test]
fn tls_failures_are_logged_at_each_power_of_two() {
    let (_herd, server, _authority) = secure_server("");
    for _ in 0..9 {
        alert(&server, b"IAMAT x +1+2 3\n");
    }
    let told = warnings(&server, "it does not speak TLS");
    assert_eq!(told.len(), 4, "the 1st, 2nd, 4th and 8th: {told:#?}");
    for (line, count) in told.iter().zip([1, 2, 4, 8]) {
        assert!(
            line.contains("client ") && line.contains(" 127.0.0.1:"),
            "{line}"
        );
        assert!(line.contains("clients have to speak TLS"), "{line}");
        assert!(line.ends_with(&format!("; {count} so far")), "{line}");
    }
    // A failure of another kind is logged, however many there were of the first kind.
    let header = b"\x16\x03\x01\x00\x04\x4d\x00\x00\x00";
    alert(&server, header);
    assert_eq!(warnings(&server, "the client is broken").len(), 1);
}

#[test]
fn a_client_that_rejects_the_certificate_is_logged() {
    let (_herd, server, authority) = secure_server("");
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let mut client = connect(
            server.address,
            config(&Authority::new(), version),
            "localhost",
        );
        client.write_all(b"no\n").unwrap_err();
        gone(&server, &client.sock);
    }
    let mut by_another_name = connect(
        server.address,
        config(&authority, &rustls::version::TLS13),
        "elsewhere",
    );
    by_another_name.write_all(b"no\n").unwrap_err();
    gone(&server, &by_another_name.sock);
    let told = warnings(&server, "it refused the TLS handshake: ");
    assert_eq!(told.len(), 2, "the 1st and 2nd of 3: {told:#?}");
    for line in told {
        assert!(
            line.contains("the client has to trust the authority"),
            "{line}"
        );
    }
}

/// A load balancer checks every second whether the port is open.
#[test]
fn a_port_probe_is_not_logged_as_a_tls_failure() {
    let (_herd, server, authority) = secure_server("");
    for _ in 0..4 {
        let client = Client::connect(server.address);
        gone(&server, client.stream());
        let reset = Client::connect(server.address);
        socket2::SockRef::from(reset.stream())
            .set_linger(Some(Duration::ZERO))
            .unwrap();
        let address = reset.stream().local_addr().unwrap();
        drop(reset);
        server.wait_for_log(&format!("{address}: gone"), "");
    }
    is_served(secure_client(server.address, &authority));
    assert_eq!(warnings(&server, "client "), Vec::<String>::new());
    // A client that closes within its ClientHello is a failure.
    let mut client = Client::connect(server.address);
    client.send(b"\x16\x03\x01\x02").finish();
    gone(&server, client.stream());
    assert_eq!(
        warnings(&server, "ended the connection in the TLS").len(),
        1
    );
}

#[test]
fn every_tls_refusal_sends_an_alert() {
    const ILLEGAL_PARAMETER: u8 = 47;
    const DECODE_ERROR: u8 = 50;
    const HANDSHAKE_FAILURE: u8 = 40;
    const INTERNAL_ERROR: u8 = 80;
    let (_herd, server, _) = secure_server("tls_handshake_ms = 300\ntls_handshake_bytes = 1024");
    assert_eq!(alert(&server, b"GET / HTTP/1.1\r\n\r\n"), DECODE_ERROR);
    assert_eq!(alert(&server, b""), INTERNAL_ERROR, "too slow");
    assert_eq!(alert(&server, b"\x16\x03\x01\x02\x00\x01"), INTERNAL_ERROR);
    let huge = [&b"\x16\x03\x01\x20\x00\x01\x00\x1f\xfc"[..], &[0; 2_000]].concat();
    assert_eq!(alert(&server, &huge), ILLEGAL_PARAMETER, "too large");
    // A message that is too long for rustls, for which rustls sends no alert of its own.
    let endless = b"\x16\x03\x01\x00\x04\x01\x02\x00\x00\x16\x03\x01\x00\x01\x00";
    assert_eq!(alert(&server, endless), DECODE_ERROR);
    let mut old = vec![22, 3, 1, 0, 45, 1, 0, 0, 41, 3, 2];
    old.extend_from_slice(&[7; 32]);
    old.extend_from_slice(&[0, 0, 2, 0x00, 0x2f, 1, 0]);
    assert_eq!(alert(&server, &old), HANDSHAKE_FAILURE);
    let told = warnings(&server, "this server speaks TLS 1.2 and 1.3");
    assert_eq!(told.len(), 1, "{told:?}");
}

#[test]
fn a_tls_client_above_max_clients_gets_an_alert() {
    let (_herd, server, authority) = secure_server("max_clients = 1");
    let first = {
        let mut client = secure_client(server.address, &authority);
        client.write_all(b"no\n").unwrap();
        assert_eq!(crate::tls::line(&mut client), "? no\n");
        client
    };
    for _ in 0..3 {
        let mut client = secure_client(server.address, &authority);
        let error = client.write_all(b"no\n").unwrap_err().to_string();
        assert!(error.contains("InternalError"), "{error}");
    }
    server.wait_for_nth_log(2, "which is limits.max_clients", "[WARN ]");
    drop(first);
}

/// After the handshake the alert is encrypted, so the client's own TLS library has to report it.
#[test]
fn an_unfinished_tls_record_ends_with_an_alert() {
    let (_herd, server, authority) = secure_server("line_ms = 300");
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        for begun in [1, 4, 5, 6, 20] {
            let mut client = connect(server.address, config(&authority, version), "localhost");
            client.write_all(b"no\n").unwrap();
            assert_eq!(crate::tls::line(&mut client), "? no\n");
            client.conn.writer().write_all(b"no, not whole\n").unwrap();
            let mut record = Vec::new();
            client.conn.write_tls(&mut record).unwrap();
            client.sock.write_all(&record[..begun]).unwrap();
            let error = client.read(&mut [0]).unwrap_err().to_string();
            assert!(
                error.contains("fatal alert"),
                "{version:?}, {begun} bytes: {error}"
            );
        }
    }
}

/// A device that changes bytes on the way, or a broken client, would otherwise stay unnoticed.
#[test]
fn tls_failures_after_the_handshake_are_logged() {
    let (_herd, server, authority) = secure_server("line_ms = 300");
    let versions = [&rustls::version::TLS12, &rustls::version::TLS13];
    // The last bytes of a record are changed, or are missing.
    for (is_changed, words) in [
        (true, "the client is broken, or something between"),
        (false, "no end of a TLS record within 300 ms"),
    ] {
        for version in versions {
            let mut client = connect(server.address, config(&authority, version), "localhost");
            client.write_all(b"no\n").unwrap();
            assert_eq!(crate::tls::line(&mut client), "? no\n");
            client.conn.writer().write_all(b"changed\n").unwrap();
            let mut record = Vec::new();
            client.conn.write_tls(&mut record).unwrap();
            let last = record.pop().unwrap();
            if is_changed {
                record.push(last ^ 1);
            }
            client.sock.write_all(&record).unwrap();
            client.read(&mut [0]).unwrap_err();
            let _ = client.sock.shutdown(Shutdown::Both);
            gone(&server, &client.sock);
        }
        let told = warnings(&server, words);
        assert_eq!(told.len(), 2, "the 1st and 2nd: {told:#?}");
    }
    // After a complete handshake, a client's alert is not called a refused handshake.
    let tls_12 = config(&authority, &rustls::version::TLS12);
    let mut client = connect(server.address, tls_12, "localhost");
    client.write_all(b"no\n").unwrap();
    assert_eq!(crate::tls::line(&mut client), "? no\n");
    // Bytes that are no record make the client's own TLS library send an alert.
    let junk = client.conn.read_tls(&mut &[0xff; 64][..]);
    junk.unwrap();
    client.conn.process_new_packets().unwrap_err();
    let mut alert = Vec::new();
    client.conn.write_tls(&mut alert).unwrap();
    client.sock.write_all(&alert).unwrap();
    let _ = client.sock.shutdown(Shutdown::Write);
    gone(&server, &client.sock);
    assert_eq!(warnings(&server, "it ended TLS with the alert ").len(), 1);
    assert!(warnings(&server, "handshake").is_empty());
}

#[test]
fn tls_on_a_plain_port_is_closed_and_logged_rarely() {
    let server = Herd::single()
        .with("[limits]\nline_ms = 60000\nlinger_ms = 60000\n")
        .start("Riley");
    for _ in 0..5 {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates([]);
        let config: ClientConfig = builder()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let mut client = connect(server.address, config, "localhost");
        client.sock.set_read_timeout(Some(SOON / 2)).unwrap();
        let error = client.write_all(b"no\n").unwrap_err().to_string();
        assert!(error.contains("InvalidContentType"), "{error}");
        gone(&server, &client.sock);
    }
    let told = warnings(&server, "it speaks TLS, where plain text is expected");
    assert_eq!(told.len(), 3, "the 1st, 2nd and 4th: {told:#?}");
    assert!(told[0].contains("set [clients.tls]"), "{}", told[0]);
    // None of the bytes was run as a command.
    let lines = server.log_lines();
    assert!(!lines.iter().any(|line| line.contains("<- ")), "{lines:#?}");
    // A newline may be among the bytes, even in the length.
    for hello in [
        &b"\x16\x03\x01\x02\x0a\x01\x00"[..],
        b"\x16\x03\x01\x0a\x00\x01\x00\n\n",
    ] {
        let mut client = server.client();
        client.send(hello);
        assert_eq!(client.rest(), b"? this port speaks plain text, not TLS\n");
    }
    // The bytes may come one by one. Bytes that only resemble TLS are a line.
    let mut client = server.client();
    for byte in b"\x16\x03\x01\x02\x00\x01" {
        client.send([*byte]);
    }
    assert_eq!(client.rest(), b"? this port speaks plain text, not TLS\n");
    server
        .client()
        .send(b"\x16\x03\x01\n\x15\x03\x01\x00\x02\x02F\n")
        .expect(b"? \x16\x03\x01\n? \x15\x03\x01\x00\x02\x02F\n");
}

#[test]
fn status_shows_the_tls_failure_counts() {
    let authority = Authority::new();
    let herd = Herd::new(&["Alice", "Bob"], &[("Alice", "Bob")])
        .with(FOR_CLIENTS)
        .with(FOR_PEERS);
    let directory = herd.directory.path();
    authority.certify(directory, "clients", "localhost", false);
    for name in ["Alice", "Bob", "operator"] {
        authority.certify(directory, name, name, false);
    }
    std::fs::write(directory.join("ca.pem"), authority.pem()).unwrap();
    let servers = herd.start_all_quietly();
    for _ in 0..3 {
        let mut plain = Client::connect(servers["Bob"].address);
        plain.send("no\n");
        plain.rest();
        gone(&servers["Bob"], plain.stream());
    }
    let mut half = Client::connect(servers["Bob"].address);
    half.send(b"\x16\x03").finish();
    gone(&servers["Bob"], half.stream());
    let output = status_command()
        .arg("--config")
        .arg(herd.config_file())
        .env("HERD_SECRET", "the herd's own secret")
        .output()
        .unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    let line = "TLS handshakes of clients with Bob failed 4 times: 3 plain-text, 1 cut-off; its log has the reasons\n";
    assert!(said.contains(line), "{said}");
    assert!(!said.contains("clients of Alice"), "{said}");
}
