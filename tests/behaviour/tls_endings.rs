//! How a TLS client ends its input: with or without `close_notify`, and with or without a FIN. The
//! end can be in the middle of a line, of a record or of the handshake. Every complete command is
//! answered. A command that was cut off is not run.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use herd_places::{Behaviour, Options, Places};
use herd_testkit::client::SOON;
use herd_testkit::herd::{Herd, Server};
use rustls::pki_types::ServerName;
use rustls::{ClientConnection, SupportedProtocolVersion};

use crate::hostile_clients_tls::{config, is_served};
use crate::tls::{Authority, FOR_CLIENTS, Secure, connect, line, secure_client, secure_server};

const VERSIONS: [&SupportedProtocolVersion; 2] = [&rustls::version::TLS12, &rustls::version::TLS13];

/// A client that has finished its handshake.
fn client(
    server: &Server,
    authority: &Authority,
    version: &'static SupportedProtocolVersion,
) -> Secure {
    let mut client = connect(server.address, config(authority, version), "localhost");
    while client.conn.is_handshaking() {
        client.conn.complete_io(&mut client.sock).unwrap();
    }
    client
}

/// All replies up to the server's `close_notify`. Any other end is an error.
fn answers(client: &mut Secure) -> String {
    let mut answers = String::new();
    client.read_to_string(&mut answers).unwrap();
    answers
}

/// The replies to the numbered lines.
fn quoted(lines: usize) -> String {
    (0..lines)
        .map(|number| format!("? no {number}\n"))
        .collect()
}

fn numbered(lines: usize) -> String {
    (0..lines).map(|number| format!("no {number}\n")).collect()
}

/// `ncat --ssl` ends like this, and so does any program that shuts down the raw socket.
#[test]
fn every_whole_command_before_a_bare_fin_is_answered() {
    // Even on a slow machine, the records are finished within this time.
    let (_herd, server, authority) = secure_server("line_ms = 120000");
    for version in VERSIONS {
        for lines in [1, 200, 5_000] {
            let mut client = client(&server, &authority, version);
            let mut reader = client.sock.try_clone().unwrap();
            let commands = numbered(lines);
            // These programs send everything before they read.
            let writer = std::thread::spawn(move || {
                client.write_all(commands.as_bytes()).unwrap();
                client.flush().unwrap();
                client.sock.shutdown(Shutdown::Write).unwrap();
                client
            });
            // This thread keeps the encrypted bytes and decrypts them later, so the writer never
            // waits for it.
            let mut ciphertext = Vec::new();
            reader.read_to_end(&mut ciphertext).unwrap();
            let mut client = writer.join().unwrap();
            let (mut rest, mut answers) = (&ciphertext[..], Vec::new());
            while !rest.is_empty() {
                client.conn.read_tls(&mut rest).unwrap();
                client.conn.process_new_packets().unwrap();
                match client.conn.reader().read_to_end(&mut answers) {
                    Ok(_) => {}
                    Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock),
                }
            }
            let said_goodbye = client.conn.process_new_packets().unwrap().peer_has_closed();
            assert!(said_goodbye, "{lines} lines: no close_notify");
            assert!(answers == quoted(lines).as_bytes(), "{lines} lines");
        }
    }
}

#[test]
fn an_unfinished_line_before_a_bare_fin_is_not_executed() {
    let (_herd, server, authority) = secure_server("");
    for version in VERSIONS {
        let mut victim = client(&server, &authority, version);
        victim
            .write_all(b"IAMAT whole +1+2 3\nIAMAT cut +1+2 3")
            .unwrap();
        victim.sock.shutdown(Shutdown::Write).unwrap();
        let answers = answers(&mut victim);
        assert!(
            answers.starts_with("AT Riley +") && answers.ends_with(" whole +1+2 3\n"),
            "{answers}"
        );
        assert_eq!(answers.lines().count(), 1);
        let address = victim.sock.local_addr().unwrap().to_string();
        server.wait_for_log(&address, "16 bytes of a line without a newline are dropped");
        server.wait_for_log(
            &address,
            "gone: it ended the connection without close_notify",
        );
        let mut asker = secure_client(server.address, &authority);
        asker.write_all(b"WHATSAT cut 1 1\n").unwrap();
        assert_eq!(line(&mut asker), "? WHATSAT cut 1 1\n");
    }
}

#[test]
fn a_truncated_tls_record_does_not_lose_earlier_commands() {
    let (_herd, server, authority) = secure_server("line_ms = 200");
    for version in VERSIONS {
        for begun in [1, 5, 6, 20] {
            let mut client = client(&server, &authority, version);
            client.write_all(numbered(50).as_bytes()).unwrap();
            client.flush().unwrap();
            client
                .conn
                .writer()
                .write_all(b"IAMAT cut +1+2 3\n")
                .unwrap();
            let mut record = Vec::new();
            client.conn.write_tls(&mut record).unwrap();
            client.sock.write_all(&record[..begun]).unwrap();
            client.sock.shutdown(Shutdown::Write).unwrap();
            assert_eq!(answers(&mut client), quoted(50), "{begun} bytes");
        }
    }
}

#[test]
fn a_call_in_progress_is_answered_after_a_bare_fin() {
    let places = Places::start(Options {
        behaviour: Behaviour::Slow {
            delay: Duration::from_millis(300),
        },
        ..Options::default()
    })
    .unwrap();
    let herd = Herd::single().asking(&places).with(FOR_CLIENTS);
    let authority = Authority::new();
    authority.certify(herd.directory.path(), "clients", "localhost", false);
    let server = herd.start("Riley");
    for version in VERSIONS {
        let mut client = client(&server, &authority, version);
        client
            .write_all(b"IAMAT x +1+2 3\nWHATSAT x 10 1\nno 0\nno 1\nIAMAT cut +1+2")
            .unwrap();
        client.sock.shutdown(Shutdown::Write).unwrap();
        let answers = answers(&mut client);
        assert!(answers.contains("\"status\" : \"OK\""), "{answers}");
        assert!(answers.ends_with("\n\n? no 0\n? no 1\n"), "{answers}");
        assert!(!answers.contains("cut"), "{answers}");
    }
}

/// The client goes on reading, and its socket stays open in both directions.
#[test]
fn close_notify_is_handled_with_and_without_a_fin() {
    let (_herd, server, authority) = secure_server("linger_ms = 60000");
    for version in VERSIONS {
        for with_fin in [false, true] {
            let mut client = client(&server, &authority, version);
            client.write_all(numbered(200).as_bytes()).unwrap();
            client.write_all(b"a last line needs no newline").unwrap();
            client.conn.send_close_notify();
            client.flush().unwrap();
            if with_fin {
                client.sock.shutdown(Shutdown::Write).unwrap();
            }
            let expected = quoted(200) + "? a last line needs no newline\n";
            assert_eq!(answers(&mut client), expected, "FIN: {with_fin}");
            assert_eq!(client.sock.read(&mut [0]).unwrap(), 0, "and it is closed");
        }
    }
}

#[test]
fn commands_before_a_reset_are_executed() {
    let (_herd, server, authority) = secure_server("");
    for (number, version) in VERSIONS.into_iter().enumerate() {
        let mut client = client(&server, &authority, version);
        // The client reads its session tickets, because closing with unread input would reset the
        // connection anyway.
        client.write_all(b"no\n").unwrap();
        assert_eq!(line(&mut client), "? no\n");
        let command = format!("IAMAT reset{number} +1+2 3\nIAMAT cut +1+2 3");
        client.write_all(command.as_bytes()).unwrap();
        client.flush().unwrap();
        server.wait_for_log(&format!("<- IAMAT reset{number} "), "");
        socket2::SockRef::from(&client.sock)
            .set_linger(Some(Duration::ZERO))
            .unwrap();
        let address = client.sock.local_addr().unwrap();
        drop(client);
        server.wait_for_log(&format!("{address}: gone"), "");
        let mut asker = secure_client(server.address, &authority);
        asker.write_all(b"WHATSAT cut 1 1\n").unwrap();
        assert_eq!(line(&mut asker), "? WHATSAT cut 1 1\n");
    }
    is_served(secure_client(server.address, &authority));
}

#[test]
fn a_fin_in_the_handshake_ends_the_connection_at_once() {
    let (_herd, server, authority) = secure_server("tls_handshake_ms = 60000\nlinger_ms = 60000");
    for version in VERSIONS {
        let name = ServerName::try_from("localhost").unwrap();
        let config = Arc::new(config(&authority, version));
        let mut connection = ClientConnection::new(config, name).unwrap();
        let mut hello = Vec::new();
        connection.write_tls(&mut hello).unwrap();
        for said in [hello.len(), hello.len() / 2, 3] {
            let mut stream = TcpStream::connect(server.address).unwrap();
            stream.set_read_timeout(Some(SOON)).unwrap();
            stream.write_all(&hello[..said]).unwrap();
            stream.shutdown(Shutdown::Write).unwrap();
            let mut rest = Vec::new();
            stream.read_to_end(&mut rest).unwrap();
            assert!(!rest.is_empty(), "{said} bytes: no alert");
            let address = stream.local_addr().unwrap();
            server.wait_for_log(
                &format!("{address}: gone"),
                "it ended the connection in the TLS handshake",
            );
        }
    }
}

#[test]
fn a_half_closed_client_that_does_not_read_is_closed() {
    let herd = Herd::single()
        .level("warn") // 8 MB of lines
        .with(FOR_CLIENTS)
        .with("[limits]\noutput_stall_ms = 4000\noutput_high_bytes = 100000000\n");
    let authority = Authority::new();
    authority.certify(herd.directory.path(), "clients", "localhost", false);
    let server = herd.start("Riley");
    let mut client = client(&server, &authority, &rustls::version::TLS13);
    // So the kernel of the client holds few replies.
    socket2::SockRef::from(&client.sock)
        .set_recv_buffer_size(65_536)
        .unwrap();
    let command = format!("{}\n", "x".repeat(4_000));
    client.write_all(command.repeat(2_000).as_bytes()).unwrap();
    client.flush().unwrap();
    client.sock.shutdown(Shutdown::Write).unwrap();
    server.wait_for_log("it did not read its answers for 4000 ms", "client ");
    is_served(secure_client(server.address, &authority));
}
