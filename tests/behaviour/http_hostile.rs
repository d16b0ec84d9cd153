//! The HTTP port against clients that break the rules: each is refused, and the connection is
//! closed, because it is unknown where its next request begins.

use std::net::SocketAddr;

use herd_testkit::client::Client;
use herd_testkit::herd::{Herd, Server};

use crate::http::{Answer, HTTP, address, get, metric};

fn single() -> (Server, SocketAddr) {
    let server = Herd::single().with(HTTP).start("Riley");
    let address = address(&server);
    (server, address)
}

/// A second request that must not be answered.
const SMUGGLED: &str = "GET /healthz/live HTTP/1.1\r\nHost: localhost\r\n\r\n";

#[test]
fn requests_that_two_readers_read_differently_are_refused() {
    let (_server, address) = single();
    let with =
        |fields: &str| format!("GET /status HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n\r\n");
    for (request, status) in [
        (with("Content-Length: 0\r\nTransfer-Encoding: chunked"), 400),
        (with("Transfer-Encoding: chunked\r\nContent-Length: 4"), 400),
        (with("Content-Length: 4\r\nContent-Length: 0"), 400),
        (with("Content-Length: 0\r\nContent-Length: 0"), 400),
        (with("Content-Length: 4, 4"), 400),
        (with("Content-Length: -1"), 400),
        (with("Content-Length: 0x1"), 400),
        (with("Content-Length: "), 400),
        (with("Content-Length: 4"), 413),
        (with("Transfer-Encoding: chunked"), 413),
        (with("Transfer-Encoding: xchunked"), 413),
        (with("Transfer-Encoding:\u{b}chunked"), 400),
        (with("Transfer-Encoding : chunked"), 400),
        (with("X: y\r\n Transfer-Encoding: chunked"), 400),
        (with("X: y\r\n\tz"), 400),
        (with("X: y\rTransfer-Encoding: chunked"), 400),
        (with("X: y\nContent-Length: 4"), 400),
        (with("X: \0"), 400),
        (with("Host: evil.example"), 400),
        ("GET /status HTTP/1.1\r\n\r\n".to_owned(), 400),
        ("GET /status HTTP/1.1\n\n".to_owned(), 400),
        ("GET /status\r\n\r\n".to_owned(), 400),
        (
            "GET  /status HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned(),
            400,
        ),
        (
            "GET /status HTTP/1.1 \r\nHost: localhost\r\n\r\n".to_owned(),
            400,
        ),
        (
            "GET /status HTTP/9.9\r\nHost: localhost\r\n\r\n".to_owned(),
            505,
        ),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(), 505),
        ("\u{16}\u{3}\u{1}\u{2}\0\u{1}\0".to_owned(), 400),
        ("IAMAT kiwi +1+2 3\n".to_owned(), 400),
    ] {
        let mut client = Client::connect(address);
        client.send(format!("{request}{SMUGGLED}"));
        let answer = Answer::read(&mut client, true);
        assert_eq!(answer.status, status, "{request:?}: {answer:?}");
        assert!(
            answer.head.contains("\r\nConnection: close\r\n"),
            "{answer:?}"
        );
        assert!(answer.json()["error"].is_string(), "{answer:?}");
        client.expect_end();
    }
    assert_eq!(get(address, "/healthz/live").status, 200);
}

#[test]
fn a_header_flood_is_cut_off() {
    let (server, address) = single();
    let before = server.status("VmRSS");
    for _ in 0..50 {
        let mut client = Client::connect(address);
        let mut flood = "GET / HTTP/1.1\r\nHost: localhost\r\n".to_owned();
        (0..10_000).for_each(|number| flood.push_str(&format!("X-{number}: y\r\n")));
        // The server may have closed before everything is sent.
        let writer = client.stream().try_clone().unwrap();
        let writer = std::thread::spawn(move || {
            let _ = std::io::Write::write_all(&mut &writer, flood.as_bytes());
        });
        assert_eq!(Answer::read(&mut client, true).status, 431);
        drop(client);
        writer.join().unwrap();
    }
    let grown = server.status("VmRSS").saturating_sub(before);
    assert!(grown < 4_096, "grown by {grown} KiB");
}

#[test]
fn a_deaf_client_that_asks_for_everything_takes_little_memory() {
    let (server, address) = single();
    get(address, "/metrics");
    let before = server.status("VmRSS");
    let mut deaf = Client::connect(address);
    let requests = "GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(10_000);
    let writer = deaf.send_meanwhile(requests.into_bytes());
    let mut mobile = server.client();
    for number in 0..200 {
        mobile.ask(&format!("IAMAT kiwi +1+2 {number}"));
    }
    let held = metric(get(address, "/metrics").text(), "herd_buffer_bytes");
    assert!(held < 300_000.0, "{held}");
    let grown = server.status("VmRSS").saturating_sub(before);
    assert!(grown < 4_096, "grown by {grown} KiB");
    // No answer is lost: the client gets all of them when it reads.
    for _ in 0..10_000 {
        assert_eq!(Answer::read(&mut deaf, true).status, 200);
    }
    writer.join().unwrap();
}

#[test]
fn a_client_that_resets_in_the_middle_of_an_answer_does_no_harm() {
    let (server, address) = single();
    for _ in 0..100 {
        let mut client = Client::connect(address);
        client.send("GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(100));
        let socket = socket2::SockRef::from(client.stream());
        socket.set_linger(Some(std::time::Duration::ZERO)).unwrap();
    }
    let text = get(address, "/metrics");
    herd_testkit::client::wait_until("the connections are gone", || {
        metric(
            get(address, "/metrics").text(),
            "herd_connections{kind=\"http\"}",
        ) < 2.0
    });
    assert_eq!(text.status, 200);
    server.stop();
}
