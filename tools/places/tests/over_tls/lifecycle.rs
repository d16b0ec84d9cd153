//! Tests of connections (their start, waits and end), of certificates, of invalid requests, and of
//! the stop.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use herd_places::{Behaviour, Options, Places};

use crate::client::{Client, Ending, header, trust};
use crate::{HERE, PATIENCE, places, places_that};

/// Far less than any timeout of the server, far more than a stop needs.
const PROMPT: Duration = Duration::from_secs(2);

fn stops_promptly(places: Places) {
    let address = places.address();
    let begun = Instant::now();
    drop(places);
    assert!(begun.elapsed() < PROMPT, "{:?}", begun.elapsed());
    assert!(
        TcpStream::connect(address).is_err(),
        "nobody listens any more"
    );
}

#[test]
fn requests_are_recorded() {
    let places = places();
    let mut client = Client::new(&places);
    client.get("/first?a=b");
    client.post("X-Odd:  two words \r\n", "{\"body\": \"é\"}");
    let mut other = Client::new(&places);
    other.get("/third");
    assert!(places.wait_for_requests(3, PATIENCE));
    let requests = places.requests();
    let lines: Vec<(u64, &str, &str)> = requests
        .iter()
        .map(|heard| {
            (
                heard.connection,
                heard.method.as_str(),
                heard.target.as_str(),
            )
        })
        .collect();
    assert_eq!(
        lines,
        [
            (1, "GET", "/first?a=b"),
            (1, "POST", "/v1/places:searchNearby"),
            (2, "GET", "/third")
        ]
    );
    assert_eq!(requests[1].header("x-odd"), Some("two words"));
    assert_eq!(requests[1].body, "{\"body\": \"é\"}".as_bytes());
    assert!(!places.wait_for_requests(4, Duration::ZERO));
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let places = places();
    let mut client = Client::new(&places);
    let post = "POST /two HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nGET ";
    client.send(
        format!("GET /one HTTP/1.1\r\nHost: a\r\n\r\n{post}GET /three HTTP/1.1\r\nHost: a\r\n\r\n")
            .as_bytes(),
    );
    for path in ["/one", "/two", "/three"] {
        assert!(
            client
                .response()
                .body
                .contains(&format!("{path} was not found")),
            "{path}"
        );
    }
}

#[test]
fn connection_close_is_answered_with_close_notify() {
    let places = places();
    let mut client = Client::new(&places);
    client.send(format!("GET {HERE} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").as_bytes());
    let (text, ending) = client.read_to_end();
    assert_eq!(
        (header(&text, "Connection").as_deref(), ending),
        (Some("close"), Ending::CloseNotify)
    );
}

#[test]
fn a_large_body_is_accepted_after_100_continue() {
    let places = places();
    let mut client = Client::new(&places);
    client.send(
        b"POST /x HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 1048576\r\n\r\n",
    );
    // An interim response is a head without a body.
    let mut interim = String::new();
    while !interim.ends_with("\r\n\r\n") {
        client.read().unwrap();
        interim += &client.take_received();
    }
    assert_eq!(interim, "HTTP/1.1 100 Continue\r\n\r\n");
    client.send(&vec![b'x'; 1024 * 1024]);
    assert_eq!(client.response().status, 404);
    assert_eq!(places.requests()[0].body.len(), 1024 * 1024);
}

#[test]
fn an_invalid_request_is_refused_and_the_connection_closed() {
    let places = places();
    for (bytes, status) in [
        ("hello\r\n\r\n".to_owned(), 400),
        ("GET / HTTP/1.1\r\n\r\n".to_owned(), 400),
        ("POST / HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), 411),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1048577\r\n\r\n".to_owned(),
            413,
        ),
        (
            format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "a".repeat(70_000)),
            431,
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".to_owned(),
            501,
        ),
    ] {
        let mut client = Client::new(&places);
        client.send(bytes.as_bytes());
        let response = client.response();
        assert_eq!(response.status, status);
        assert_eq!(
            header(&response.head, "Connection").as_deref(),
            Some("close")
        );
        assert_eq!(client.read_to_end(), (String::new(), Ending::CloseNotify));
    }
    assert!(places.requests().is_empty());
}

#[test]
fn an_idle_connection_is_closed_after_keep_alive() {
    let options = Options {
        keep_alive: Duration::from_millis(30),
        ..Options::default()
    };
    let places = Places::start(options).unwrap();
    let mut client = Client::new(&places);
    client.get(HERE);
    assert_eq!(client.read_to_end(), (String::new(), Ending::CloseNotify));
    assert!(places.wait_until(PATIENCE, |counts| counts.open_connections == 0));
}

#[test]
fn close_idle_closes_at_once() {
    let places = places();
    places.push_behaviour(Behaviour::Hold);
    let mut busy = Client::new(&places);
    busy.send(format!("GET {HERE} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes());
    assert!(places.wait_for_requests(1, PATIENCE));
    // The test repeats this, because an answered client must be idle at every moment.
    for _ in 0..100 {
        let mut idle = Client::new(&places);
        idle.get(HERE);
        assert_eq!(places.close_idle(), 1);
        assert_eq!(places.open_connections(), 1);
        assert_eq!(idle.read_to_end(), (String::new(), Ending::CloseNotify));
    }
    places.release();
    assert_eq!(
        busy.response().status,
        200,
        "it was not idle, and is served"
    );
}

#[test]
fn the_certificate_is_valid_for_its_names_only() {
    let places = Places::start(Options {
        names: vec!["places.test".to_owned()],
        ..Options::default()
    })
    .unwrap();
    assert!(Client::try_new(&places, trust(places.ca_pem()), "places.test").is_ok());
    let error = Client::try_new(&places, trust(places.ca_pem()), "localhost")
        .err()
        .unwrap();
    assert!(error.to_string().contains("not valid for name"), "{error}");
    // The server may finish the second handshake before it counts the first.
    assert!(places.wait_until(PATIENCE, |counts| {
        (counts.handshakes_done, counts.handshakes_failed) == (1, 1)
    }));
}

#[test]
fn a_client_that_trusts_another_ca_fails_the_handshake() {
    let told = Arc::new(Mutex::new(Vec::new()));
    let observed = Arc::clone(&told);
    let options = Options {
        observer: Some(Arc::new(move |event| {
            observed.lock().unwrap().push(event.to_string())
        })),
        ..Options::default()
    };
    let places = Places::start(options).unwrap();
    assert!(Client::try_new(&places, trust(crate::places().ca_pem()), "localhost").is_err());
    assert!(
        places.wait_until(PATIENCE, |counts| counts.handshakes_failed == 1
            && counts.open_connections == 0)
    );
    let told = told.lock().unwrap().clone();
    assert_eq!(told.len(), 1);
    assert!(
        told[0].starts_with("connection 1: the TLS handshake failed: "),
        "{told:?}"
    );
}

#[test]
fn alpn() {
    let places = places();
    let with = |protocols: &[&str]| {
        let mut config = trust(places.ca_pem());
        config.alpn_protocols = protocols
            .iter()
            .map(|name| name.as_bytes().to_vec())
            .collect();
        Client::try_new(&places, config, "127.0.0.1")
    };
    assert_eq!(with(&["h2", "http/1.1"]).unwrap().get(HERE).status, 200);
    assert!(with(&["h2"]).is_err());
}

#[test]
fn bad_names_and_taken_addresses_are_errors() {
    for names in [vec![], vec!["näme".to_owned()]] {
        let error = Places::start(Options {
            names,
            ..Options::default()
        })
        .err()
        .unwrap();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
    }
    let places = places();
    let error = Places::start(Options {
        listen: places.address(),
        ..Options::default()
    })
    .err()
    .unwrap();
    assert_eq!(error.kind(), ErrorKind::AddrInUse);
}

#[test]
fn silent_accept_sends_nothing() {
    let places = Places::start(Options {
        silent_accept: true,
        ..Options::default()
    })
    .unwrap();
    let mut first = TcpStream::connect(places.address()).unwrap();
    first.write_all(b"\x16\x03\x01").unwrap();
    let mut second = TcpStream::connect(places.address()).unwrap();
    assert!(places.wait_until(PATIENCE, |counts| counts.open_connections == 2));
    drop(first);
    assert!(places.wait_until(PATIENCE, |counts| counts.open_connections == 1));
    assert_eq!((places.connections(), places.handshakes()), (2, (0, 0)));
    stops_promptly(places);
    assert_eq!(
        second.read(&mut [0; 1]).unwrap(),
        0,
        "not a byte but the end"
    );
}

#[test]
fn connections_above_max_connections_are_closed() {
    let options = Options {
        silent_accept: true,
        max_connections: 1,
        ..Options::default()
    };
    let places = Places::start(options).unwrap();
    let first = TcpStream::connect(places.address()).unwrap();
    assert!(places.wait_until(PATIENCE, |counts| counts.open_connections == 1));
    let mut second = TcpStream::connect(places.address()).unwrap();
    assert_eq!(second.read(&mut [0; 1]).unwrap(), 0);
    assert_eq!((places.connections(), places.open_connections()), (2, 1));
    drop(first);
    assert!(places.wait_until(PATIENCE, |counts| counts.open_connections == 0));
    let _third = TcpStream::connect(places.address()).unwrap();
    assert!(places.wait_until(PATIENCE, |counts| counts.open_connections == 1));
}

#[test]
fn the_stop_is_prompt_without_clients() {
    stops_promptly(places());
}

#[test]
fn the_stop_is_prompt_with_clients_in_every_state() {
    let places = places();
    let mut idle = Client::new(&places);
    idle.get(HERE);
    let _mute = TcpStream::connect(places.address()).unwrap();
    let mut half_a_request = Client::new(&places);
    half_a_request.send(b"GET / HTT");
    let mut waiting = Vec::new();
    for behaviour in [
        Behaviour::Hold,
        Behaviour::Slow {
            delay: Duration::MAX,
        },
        Behaviour::Drip {
            every: Duration::MAX,
            bytes: 1,
        },
    ] {
        let already = places.counts().requests as usize;
        places.push_behaviour(behaviour);
        let mut client = Client::new(&places);
        client.send(format!("GET {HERE} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes());
        assert!(places.wait_for_requests(already + 1, PATIENCE));
        waiting.push(client);
    }
    assert!(places.wait_until(PATIENCE, |counts| counts.open_connections == 6));
    stops_promptly(places);
    assert_eq!(
        waiting[0].read_to_end(),
        (String::new(), Ending::Abrupt),
        "no answer, just the end"
    );
}

#[test]
fn the_stop_is_prompt_when_a_client_does_not_read() {
    // 64 MiB do not fit into the buffers of two sockets, so the server's thread is blocked in a
    // write.
    let segments = vec![vec![b'x'; 64 * 1024 * 1024]];
    let places = places_that(Behaviour::Raw {
        segments,
        end: herd_places::End::KeepAlive,
    });
    let mut client = Client::new(&places);
    client.send(format!("GET {HERE} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes());
    client.read().unwrap();
    stops_promptly(places);
}

#[test]
fn the_port_can_be_bound_again() {
    let places = places();
    let address = places.address();
    Client::new(&places).get(HERE);
    drop(places);
    TcpListener::bind(address).unwrap();
}
