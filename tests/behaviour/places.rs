//! Requests to Places over real TLS: which certificates are trusted, what is sent, which
//! connections are used, and how long clients wait.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use herd_places::{Behaviour, Options, Places};

use herd_testkit::client::{Client, SOON};
use herd_testkit::herd::Herd;

pub(crate) fn stand_in() -> Places {
    Places::start(Options::default()).unwrap()
}

/// Sends the position of the client `kiwi`.
fn kiwi(client: &mut Client) -> String {
    client.ask("IAMAT kiwi +34.068930-118.445127 1621464827.959498503")
}

fn ask(client: &mut Client, radius: &str, bound: u8) -> serde_json::Value {
    let (_, json) = client
        .send(format!("WHATSAT kiwi {radius} {bound}\n"))
        .places();
    serde_json::from_str(&json).unwrap()
}

/// The message of an error that the server itself made, in the shape of either API.
pub(crate) fn message(json: &serde_json::Value) -> &str {
    if let Some(message) = json["error"]["message"].as_str() {
        return message;
    }
    assert_eq!(json["status"], "UNKNOWN_ERROR", "{json}");
    json["error_message"].as_str().unwrap()
}

#[test]
fn whatsat_answers_the_record_and_google_s_truncated_json() {
    let places = stand_in();
    let server = Herd::single().asking(&places).start("Riley");
    let mut client = server.client();
    let at = kiwi(&mut client);
    client.send("WHATSAT kiwi 10 3\n");
    let (line, json) = client.places();
    assert_eq!(line, at);
    let request = &places.requests()[0];
    assert_eq!(
        (request.method.as_str(), request.target.as_str()),
        (
            "GET",
            "/maps/api/place/nearbysearch/json?location=34.068930,-118.445127&radius=10000&key=test-key"
        ),
    );
    assert_eq!(
        request.header("host"),
        Some(places.url().strip_prefix("https://").unwrap())
    );
    assert_eq!(request.header("accept-encoding"), None);
    // The text is the stand-in's, without the results beyond the bound and without the last
    // newline.
    let full = full_answer(&places, &request.target);
    let parsed: serde_json::Value = serde_json::from_str(&full).unwrap();
    assert_eq!(parsed["results"].as_array().unwrap().len(), 20);
    let fourth = full.match_indices("\n      {").nth(3).unwrap().0;
    let last_end = full.find("\n   ],\n   \"status\"").unwrap();
    let third_end = full[..fourth].rfind(',').unwrap();
    assert_eq!(
        json,
        format!(
            "{}{}",
            &full[..third_end],
            full[last_end..].trim_end_matches('\n')
        )
    );
}

/// The stand-in's answer to this request, asked for without any code of the server.
fn full_answer(places: &Places, target: &str) -> String {
    use rustls::pki_types::{CertificateDer, pem::PemObject};
    let mut roots = rustls::RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(places.ca_pem().as_bytes()).unwrap())
        .unwrap();
    let config = rustls::ClientConfig::builder_with_provider(std::sync::Arc::new(
        rustls::crypto::ring::default_provider(),
    ))
    .with_safe_default_protocol_versions()
    .unwrap()
    .with_root_certificates(roots)
    .with_no_client_auth();
    let connection =
        rustls::ClientConnection::new(std::sync::Arc::new(config), "localhost".try_into().unwrap())
            .unwrap();
    let mut stream = rustls::StreamOwned::new(
        connection,
        std::net::TcpStream::connect(places.address()).unwrap(),
    );
    write!(
        stream,
        "GET {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    )
    .unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text.split_once("\r\n\r\n").unwrap().1.to_owned()
}

#[test]
fn the_new_api_is_requested_and_truncated() {
    let places = stand_in();
    let herd = Herd::single()
        .asking(&places)
        .with("api = \"new\"\nfield_mask = \"places.displayName,places.id\"\n");
    let server = herd.start("Riley");
    let mut client = server.client();
    client.ask("IAMAT kiwi +034.068930-000.50 1");
    let json = ask(&mut client, "2.5", 7);
    assert_eq!(json["places"].as_array().unwrap().len(), 7, "{json}");
    let request = &places.requests()[0];
    assert_eq!(
        (request.method.as_str(), request.target.as_str()),
        ("POST", "/v1/places:searchNearby")
    );
    assert_eq!(request.header("x-goog-api-key"), Some("test-key"));
    assert_eq!(
        request.header("x-goog-fieldmask"),
        Some("places.displayName,places.id")
    );
    let body: serde_json::Value = serde_json::from_slice(&request.body).unwrap();
    let circle =
        serde_json::json!({"center": {"latitude": 34.068930, "longitude": -0.5}, "radius": 2500});
    assert_eq!(
        body,
        serde_json::json!({"maxResultCount": 7, "locationRestriction": {"circle": circle}})
    );
    // Nothing is near the pole. The stand-in answers with an empty object, which the client gets as
    // it is.
    client.ask("IAMAT kiwi +89+0 2");
    client.send("WHATSAT kiwi 1 1\n");
    assert_eq!(client.places().1, "{}");
}

#[test]
fn google_errors_are_forwarded_unchanged() {
    let places = stand_in();
    let herd = Herd::single()
        .asking(&places)
        .env("HERD_PLACES_KEY", "a-wrong-key");
    let server = herd.start("Riley");
    let mut client = server.client();
    kiwi(&mut client);
    let json = ask(&mut client, "10", 5);
    assert_eq!(
        (&json["status"], &json["error_message"]),
        (
            &"REQUEST_DENIED".into(),
            &"The provided API key is invalid.".into()
        )
    );
    for status in [403, 429, 500, 503] {
        places.push_behaviour(Behaviour::Status(status));
        assert_eq!(ask(&mut client, "10", 5)["error"]["code"], status);
    }
    assert_eq!(places.requests().len(), 5, "none is asked again");
}

#[test]
fn the_key_is_never_sent_to_an_impostor() {
    let impostor = Places::start(Options {
        names: vec!["elsewhere.test".into()],
        ..Options::default()
    })
    .unwrap();
    let unknown_ca = stand_in();
    let trusted = stand_in();
    for (places, herd, reason) in [
        (
            &impostor,
            Herd::single().asking(&impostor),
            "not valid for name",
        ),
        (&unknown_ca, Herd::single().asking(&trusted), "BadSignature"),
    ] {
        let mut command = herd.command("Riley");
        command.args(["--places-url", &places.url()]);
        let server = herd_testkit::herd::Server::start(&mut command);
        let mut client = server.client();
        kiwi(&mut client);
        let json = ask(&mut client, "10", 5);
        assert!(
            message(&json).contains("its certificate was refused")
                && message(&json).contains(reason),
            "{json}"
        );
        assert!(
            places.wait_until(SOON, |counts| counts.handshakes_failed > 0
                && counts.open_connections == 0)
        );
        assert_eq!(places.requests(), []);
        let log = server.stop().join("\n");
        assert!(!log.contains("test-key"), "{log}");
    }
}

/// A server that does not speak TLS. It sends `greeting` on each connection. Returns its URL, and a
/// channel with the bytes of each connection.
fn plain(greeting: &'static [u8]) -> (String, std::sync::mpsc::Receiver<Vec<u8>>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let url = format!(
        "https://localhost:{}",
        listener.local_addr().unwrap().port()
    );
    let (heard, receiver) = channel();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            stream.write_all(greeting).unwrap();
            let mut bytes = Vec::new();
            let _ = stream.read_to_end(&mut bytes); // a reset is an end, too
            if heard.send(bytes).is_err() {
                return;
            }
        }
    });
    (url, receiver)
}

#[test]
fn a_places_server_without_tls_gets_no_request() {
    let places = stand_in();
    for greeting in [
        &b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"[..],
        b"\x15\x03\x03\x00\x02\x02\x28",
        b"\x16\x03\x03\xff\xff garbage",
        b"\0\0\0\0\0\0\0\0",
    ] {
        let (url, heard) = plain(greeting);
        let herd = Herd::single().asking(&places);
        let server =
            herd_testkit::herd::Server::start(herd.command("Riley").args(["--places-url", &url]));
        let mut client = server.client();
        kiwi(&mut client);
        let json = ask(&mut client, "10", 5);
        assert!(
            message(&json).contains("Google Places cannot be reached"),
            "{json}"
        );
        let heard = heard.recv_timeout(SOON).unwrap();
        assert!(!heard.windows(8).any(|window| window == b"test-key"));
    }
}

#[test]
fn places_connections_are_reused_and_replaced_when_closed() {
    let places = stand_in();
    let server = Herd::single().asking(&places).start("Riley");
    let mut client = server.client();
    kiwi(&mut client);
    for _ in 0..3 {
        assert_eq!(ask(&mut client, "10", 5)["status"], "OK");
    }
    assert_eq!(places.connections(), 1);
    assert_eq!(places.close_idle(), 1);
    assert_eq!(ask(&mut client, "10", 5)["status"], "OK");
    assert_eq!(places.connections(), 2);
    // The connection closes while the request is on its way. The server asks once more, on a new
    // connection.
    places.push_behaviour(Behaviour::Drop);
    assert_eq!(ask(&mut client, "10", 5)["status"], "OK");
    assert_eq!((places.connections(), places.requests().len()), (3, 6));
    // It does not ask a third time, and not again where the connection was new.
    places.push_behaviour(Behaviour::Drop);
    places.push_behaviour(Behaviour::Drop);
    assert!(message(&ask(&mut client, "10", 5)).contains("it closed the connection"));
    places.push_behaviour(Behaviour::Drop);
    assert!(message(&ask(&mut client, "10", 5)).contains("it closed the connection"));
    assert_eq!(places.requests().len(), 9);
}

#[test]
fn identical_whatsats_share_one_call() {
    let places = stand_in();
    let server = Herd::single().asking(&places).start("Riley");
    kiwi(&mut server.client());
    places.push_behaviour(Behaviour::Hold);
    let mut clients: Vec<Client> = (1..=5)
        .map(|bound| {
            let mut client = server.client();
            client.send(format!("WHATSAT kiwi 10 {bound}\n"));
            client
        })
        .collect();
    assert!(places.wait_for_requests(1, SOON));
    server.wait_for_nth_log(5, "<- WHATSAT", "");
    places.release();
    for (bound, client) in (1..).zip(&mut clients) {
        let json: serde_json::Value = serde_json::from_str(&client.places().1).unwrap();
        assert_eq!(json["results"].as_array().unwrap().len(), bound);
    }
    assert_eq!(places.requests().len(), 1);
    // Answers are not cached: a later question is a new call.
    assert_eq!(ask(&mut server.client(), "10", 5)["status"], "OK");
    assert_eq!(places.requests().len(), 2);
}

#[test]
fn places_connections_and_their_queue_are_limited() {
    let places = stand_in();
    places.set_behaviour(Behaviour::Hold);
    let herd = Herd::single()
        .asking(&places)
        .with("[limits]\nmax_places_connections = 2\nmax_places_waiting = 3\n");
    let server = herd.start("Riley");
    kiwi(&mut server.client());
    let mut clients: Vec<Client> = (1..=5)
        .map(|radius| {
            let mut client = server.client();
            client.send(format!("WHATSAT kiwi {radius} 1\n"));
            server.wait_for_log(&format!("<- WHATSAT kiwi {radius} 1"), "");
            client
        })
        .collect();
    assert!(message(&ask(&mut server.client(), "6", 1)).contains("too many questions"));
    assert!(places.wait_for_requests(2, SOON));
    assert_eq!(places.connections(), 2);
    for waited_for in [2, 4, 5] {
        assert!(places.wait_for_requests(waited_for, SOON));
        places.release();
    }
    for client in &mut clients {
        assert!(client.places().1.contains("\"OK\""));
    }
    assert_eq!((places.connections(), places.requests().len()), (2, 5));
}

#[test]
fn a_hung_places_call_ends_at_its_deadline() {
    let places = stand_in();
    places.set_behaviour(Behaviour::Hold);
    let server = Herd::single()
        .asking(&places)
        .with("[limits]\nplaces_ms = 1500\n")
        .start("Riley");
    let mut client = server.client();
    let at = kiwi(&mut client);
    let begun = Instant::now();
    client.send("WHATSAT kiwi 10 5\n");
    assert!(places.wait_for_requests(1, SOON));
    let mut other = server.client();
    let mut slowest = Duration::ZERO;
    for round in 0..300 {
        let asked = Instant::now();
        other.ask(&format!("IAMAT other +1+2 {round}"));
        slowest = slowest.max(asked.elapsed());
    }
    let others_done = begun.elapsed();
    let (line, json) = client.places();
    let waited = begun.elapsed();
    assert_eq!(line, at);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert!(message(&json).contains("did not answer within"), "{json}");
    assert!(waited >= Duration::from_millis(1400), "{waited:?}");
    assert!(
        others_done < waited,
        "300 others took {others_done:?}, the slowest {slowest:?}, the call {waited:?}"
    );
    // The connection that hung is closed, and not used again.
    assert!(places.wait_until(SOON, |counts| counts.open_connections == 0));
}

#[test]
fn a_places_handshake_has_a_deadline() {
    let places = Places::start(Options {
        silent_accept: true,
        ..Options::default()
    })
    .unwrap();
    let herd = Herd::single()
        .asking(&places)
        .with("[limits]\nplaces_handshake_ms = 200\n");
    let server = herd.start("Riley");
    let mut client = server.client();
    kiwi(&mut client);
    assert!(message(&ask(&mut client, "10", 5)).contains("no TLS handshake within 0.2 s"));
}

#[test]
fn a_lost_client_cancels_its_places_call() {
    let places = stand_in();
    places.set_behaviour(Behaviour::Hold);
    let server = Herd::single().asking(&places).start("Riley");
    let mut client = server.client();
    kiwi(&mut client);
    client.send("WHATSAT kiwi 10 5\n");
    assert!(places.wait_for_requests(1, SOON));
    // A reset is certain to be noticed as the end of the client. After a FIN, the client could
    // still read.
    let socket = socket2::SockRef::from(client.stream());
    socket.set_linger(Some(Duration::ZERO)).unwrap();
    drop(client);
    server.wait_for_log("given up, no client waits for it any more", "");
    assert!(
        places.wait_until(SOON, |counts| counts.open_connections == 0),
        "the call was not hung up"
    );
}

#[test]
fn an_unresolvable_places_name_is_answered_with_a_reason() {
    let places = stand_in();
    let herd = Herd::single().asking(&places);
    let server = herd_testkit::herd::Server::start(
        herd.command("Riley")
            .args(["--places-url", "https://no-such-host.invalid"]),
    );
    let mut client = server.client();
    kiwi(&mut client);
    let json = ask(&mut client, "10", 5);
    assert!(
        message(&json).contains("the address of Google Places cannot be found"),
        "{json}"
    );
}

#[test]
fn a_refused_places_connection_is_answered_with_a_reason() {
    let places = stand_in();
    let herd = Herd::single().asking(&places);
    // The port is bound but does not listen. So no other program gets it, and connections are
    // refused.
    let taken = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    taken
        .bind(&std::net::SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())
        .unwrap();
    let port = taken.local_addr().unwrap().as_socket().unwrap().port();
    let server = herd_testkit::herd::Server::start(
        herd.command("Riley")
            .args(["--places-url", &format!("https://127.0.0.1:{port}")]),
    );
    let mut client = server.client();
    kiwi(&mut client);
    let json = ask(&mut client, "10", 5);
    assert!(
        message(&json).contains("cannot be reached: Connection refused"),
        "{json}"
    );
}

#[test]
fn different_places_calls_run_concurrently() {
    let places = stand_in();
    let server = Herd::single().asking(&places).start("Riley");
    let (mut slow, mut quick) = (server.client(), server.client());
    kiwi(&mut slow);
    places.push_behaviour(Behaviour::Hold);
    slow.send("WHATSAT kiwi 10 5\n");
    assert!(places.wait_for_requests(1, SOON));
    assert_eq!(ask(&mut quick, "11", 5)["status"], "OK");
    places.release();
    assert!(slow.places().1.contains("\"OK\""));
}
