//! Connections to Places that are dead without a FIN or a reset, calls that several clients share,
//! and front servers that speak another protocol.

use std::thread;
use std::time::{Duration, Instant};

use herd_places::{Behaviour, End, Options, Places};
use herd_testkit::client::{Client, SOON};
use herd_testkit::herd::{Herd, Server};

use crate::places::{message, stand_in};

fn kiwi(server: &Server) -> Client {
    let mut client = server.client();
    client.ask("IAMAT kiwi +34.068930-118.445127 1");
    client
}

fn ask(client: &mut Client, radius: usize) -> serde_json::Value {
    let command = format!("WHATSAT kiwi {radius} 5\n");
    serde_json::from_str(&client.send(command).places().1).unwrap()
}

/// Makes the server open and keep `count` connections to Places.
fn keep(places: &Places, server: &Server, count: usize) {
    let before = places.requests().len();
    places.set_behaviour(Behaviour::Hold);
    let mut clients: Vec<Client> = (1..=count)
        .map(|radius| {
            let mut client = server.client();
            client.send(format!("WHATSAT kiwi {radius} 1\n"));
            client
        })
        .collect();
    assert!(places.wait_for_requests(before + count, SOON));
    places.set_behaviour(Behaviour::Answer);
    places.release();
    for client in &mut clients {
        assert!(client.places().1.contains("\"OK\""));
    }
    assert_eq!(places.open_connections(), count);
}

#[test]
fn silently_dead_connections_cost_one_slow_answer() {
    let places = stand_in();
    let herd = Herd::single()
        .asking(&places)
        .with("[limits]\nplaces_silence_ms = 1000\n");
    let server = herd.start("Riley");
    let mut client = kiwi(&server);
    keep(&places, &server, 8);
    assert_eq!(places.forget_open(), 8);
    let mut slow = 0;
    for radius in 1..=8 {
        let begun = Instant::now();
        assert_eq!(ask(&mut client, radius)["status"], "OK");
        slow += usize::from(begun.elapsed() >= Duration::from_millis(900));
    }
    assert_eq!(slow, 1);
    assert!(places.wait_until(SOON, |counts| counts.open_connections == 1));
    assert_eq!(
        (places.connections(), places.requests().len()),
        (9, 8 + 1 + 8)
    );
    server.wait_for_log("no answer within 1 s", "asking once more");
    server.wait_for_log("7 more kept connections", "closed");
}

#[test]
fn a_short_deadline_leaves_time_to_retry() {
    let places = stand_in();
    let herd = Herd::single()
        .asking(&places)
        .with("[limits]\nplaces_ms = 1500\n");
    let server = herd.start("Riley");
    let mut client = kiwi(&server);
    keep(&places, &server, 4);
    places.forget_open();
    for radius in 1..=4 {
        assert_eq!(ask(&mut client, radius)["status"], "OK");
    }
    assert_eq!(places.connections(), 5);
}

#[test]
fn an_abandoned_call_still_retires_dead_connections() {
    let places = stand_in();
    let herd = Herd::single()
        .asking(&places)
        .with("[limits]\nplaces_silence_ms = 4000\n");
    let server = herd.start("Riley");
    let mut client = kiwi(&server);
    keep(&places, &server, 8);
    places.forget_open();
    let asked = places.requests().len();
    client.send("WHATSAT kiwi 10 5\n");
    assert!(places.wait_for_requests(asked + 1, SOON));
    let waits_until = Instant::now() + Duration::from_millis(1_200);
    while Instant::now() < waits_until {
        thread::park_timeout(waits_until.saturating_duration_since(Instant::now()));
    }
    socket2::SockRef::from(client.stream())
        .set_linger(Some(Duration::ZERO))
        .unwrap();
    drop(client);
    server.wait_for_log("given up, no client waits for it any more", "");
    let begun = Instant::now();
    assert_eq!(ask(&mut kiwi(&server), 11)["status"], "OK");
    assert!(begun.elapsed() < Duration::from_secs(3));
}

#[test]
fn a_connection_that_answered_is_kept_when_another_is_dead() {
    let places = stand_in();
    let herd = Herd::single()
        .asking(&places)
        .with("[limits]\nplaces_silence_ms = 800\n");
    let server = herd.start("Riley");
    let (mut one, mut other) = (kiwi(&server), kiwi(&server));
    keep(&places, &server, 3);
    // This connection is slow, not dead. Its question is asked again on a new connection. Of the
    // other two, only the one that has not answered since is closed.
    places.push_behaviour(Behaviour::Hold);
    let asked = places.requests().len();
    one.send("WHATSAT kiwi 10 5\n");
    assert!(places.wait_for_requests(asked + 1, SOON));
    assert_eq!(ask(&mut other, 11)["status"], "OK");
    assert!(one.places().1.contains("\"OK\""));
    server.wait_for_log("1 more kept connections", "closed");
    assert_eq!(ask(&mut other, 12)["status"], "OK");
    assert!(places.wait_until(SOON, |counts| counts.open_connections == 2));
    assert_eq!(places.connections(), 4);
}

#[test]
fn a_late_client_of_a_shared_call_has_a_full_deadline() {
    let places = stand_in();
    let herd = Herd::single()
        .asking(&places)
        .with("[limits]\nplaces_ms = 1500\n");
    let server = herd.start("Riley");
    let (mut early, mut late, mut last) = (kiwi(&server), kiwi(&server), kiwi(&server));
    places.set_behaviour(Behaviour::Hold);
    let begun = Instant::now();
    early.send("WHATSAT kiwi 10 5\n");
    assert!(places.wait_for_requests(1, SOON));
    let joins_at = begun + Duration::from_millis(400);
    while Instant::now() < joins_at {
        thread::park_timeout(joins_at.saturating_duration_since(Instant::now()));
    }
    let joined = Instant::now();
    for client in [&mut late, &mut last] {
        client.send("WHATSAT kiwi 10 2\n");
    }
    let error = serde_json::from_str(&early.places().1).unwrap();
    assert!(
        message(&error).contains("did not answer within 1.5 s"),
        "{error}"
    );
    // The server does not wait for the hanging call again. It asks once more on a new connection,
    // for the clients that still have time.
    assert!(places.wait_for_requests(2, SOON));
    let error = serde_json::from_str(&late.places().1).unwrap();
    let waited = joined.elapsed();
    assert!(
        message(&error).contains("did not answer within 1.5 s"),
        "{error}"
    );
    let expected = Duration::from_millis(1_400)..Duration::from_millis(2_400);
    assert!(expected.contains(&waited), "{waited:?}");
    last.places();
    assert_eq!(places.requests().len(), 2);
    assert!(places.wait_until(SOON, |counts| counts.open_connections == 0));

    // An answer after the first client's deadline still goes to the clients that joined later.
    early.send("WHATSAT kiwi 10 5\n");
    assert!(places.wait_for_requests(3, SOON));
    let joins_at = Instant::now() + Duration::from_millis(800);
    while Instant::now() < joins_at {
        thread::park_timeout(joins_at.saturating_duration_since(Instant::now()));
    }
    late.send("WHATSAT kiwi 10 2\n");
    assert!(early.places().1.contains("did not answer"));
    assert!(places.wait_for_requests(4, SOON));
    places.release();
    let json: serde_json::Value = serde_json::from_str(&late.places().1).unwrap();
    assert_eq!(json["results"].as_array().unwrap().len(), 2, "{json}");
}

#[test]
fn a_client_of_a_queued_call_has_its_own_deadline() {
    let places = stand_in();
    let herd = Herd::single()
        .asking(&places)
        .with("[limits]\nplaces_ms = 1500\nmax_places_connections = 1\n");
    let server = herd.start("Riley");
    let mut holder = kiwi(&server);
    let (mut early, mut late) = (kiwi(&server), kiwi(&server));
    places.push_behaviour(Behaviour::Hold);
    early.send("WHATSAT kiwi 11 5\n");
    assert!(places.wait_for_requests(1, SOON));
    // Two clients with the same question wait for the connection, one after the other.
    holder.send("WHATSAT kiwi 12 5\n");
    server.wait_for_log("<- WHATSAT kiwi 12 5", "");
    let joins_at = Instant::now() + Duration::from_millis(700);
    while Instant::now() < joins_at {
        thread::park_timeout(joins_at.saturating_duration_since(Instant::now()));
    }
    late.send("WHATSAT kiwi 12 3\n");
    assert!(early.places().1.contains("did not answer"));
    // The connection is free now. That is in time for the client that joined later, if not for the
    // first one.
    holder.places();
    let json: serde_json::Value = serde_json::from_str(&late.places().1).unwrap();
    assert_eq!(json["status"], "OK", "{json}");
}

#[test]
fn a_shared_call_survives_its_first_client() {
    let places = stand_in();
    let server = Herd::single().asking(&places).start("Riley");
    let (mut first, mut second) = (kiwi(&server), kiwi(&server));
    places.push_behaviour(Behaviour::Hold);
    first.send("WHATSAT kiwi 10 5\n");
    assert!(places.wait_for_requests(1, SOON));
    second.send("WHATSAT kiwi 10 2\n");
    server.wait_for_log("<- WHATSAT kiwi 10 2", "");
    let gone = first.stream().local_addr().unwrap().to_string();
    socket2::SockRef::from(first.stream())
        .set_linger(Some(Duration::ZERO))
        .unwrap();
    drop(first);
    server.wait_for_log(&gone, ": gone: ");
    places.release();
    let json: serde_json::Value = serde_json::from_str(&second.places().1).unwrap();
    assert_eq!(json["results"].as_array().unwrap().len(), 2, "{json}");
    assert_eq!((places.connections(), places.requests().len()), (1, 1));
}

#[test]
fn a_server_without_http_1_1_is_reported_by_alpn() {
    let front = |alpn: &[&str]| {
        let alpn = alpn.iter().map(|name| (*name).to_owned()).collect();
        Places::start(Options {
            alpn,
            ..Options::default()
        })
        .unwrap()
    };
    let settings = Behaviour::Raw {
        segments: vec![b"\0\0\x06\x04\0\0\0\0\0\0\x03\0\0\0\x64".to_vec()],
        end: End::CloseNotify,
    };
    for (places, behaviour, words) in [
        (
            front(&["h2"]),
            Behaviour::Answer,
            "by ALPN it speaks no protocol that was offered",
        ),
        (
            front(&[]),
            settings,
            "its answer was not HTTP/1.1 but HTTP/2",
        ),
        (front(&[]), Behaviour::Drop, "by ALPN it chose no protocol"),
    ] {
        places.set_behaviour(behaviour);
        let server = Herd::single().asking(&places).start("Riley");
        let error = ask(&mut kiwi(&server), 10);
        assert!(message(&error).contains(words), "{words}: {error}");
        server.wait_for_log(words, "WARN");
    }
    // A front server that ignores ALPN may still speak HTTP/1.1, and so may one that offers both.
    for places in [front(&[]), front(&["h2", "http/1.1"])] {
        let server = Herd::single().asking(&places).start("Riley");
        assert_eq!(ask(&mut kiwi(&server), 10)["status"], "OK");
    }
}
