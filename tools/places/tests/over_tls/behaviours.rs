//! Each behaviour, and what a client sees of it.

use std::num::NonZeroU64;
use std::time::{Duration, Instant};

use herd_places::{Behaviour, End, Options, Places};

use crate::client::{Client, Ending, header};
use crate::{HERE, PATIENCE, places, places_that};

fn good_body() -> String {
    Client::new(&places()).get(HERE).body
}

fn ask(client: &mut Client) {
    client.send(format!("GET {HERE} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes());
}

#[test]
fn answer_has_a_length_and_keeps_the_connection() {
    let places = places();
    let mut client = Client::new(&places);
    for _ in 0..3 {
        let response = client.get(HERE);
        assert_eq!(
            header(&response.head, "Content-Length").unwrap(),
            response.body.len().to_string()
        );
        assert_eq!(header(&response.head, "Connection"), None);
    }
    assert_eq!(
        (
            places.connections(),
            places.open_connections(),
            places.handshakes()
        ),
        (1, 1, (1, 0))
    );
}

#[test]
fn chunked_sends_the_same_body() {
    let places = places();
    let mut client = Client::new(&places);
    for size in [0, 1, 7, 1_000, 1_000_000] {
        places.set_behaviour(Behaviour::Chunked { size });
        let response = client.get(HERE);
        assert_eq!(
            header(&response.head, "Transfer-Encoding").unwrap(),
            "chunked"
        );
        assert_eq!(header(&response.head, "Content-Length"), None);
        assert_eq!(response.body, good_body());
    }
}

#[test]
fn close_delimited_ends_with_a_close_notify() {
    let places = places_that(Behaviour::CloseDelimited);
    let mut client = Client::new(&places);
    ask(&mut client);
    let (text, ending) = client.read_to_end();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    assert_eq!(ending, Ending::CloseNotify);
    assert_eq!(
        (
            header(head, "Content-Length"),
            header(head, "Connection").as_deref()
        ),
        (None, Some("close"))
    );
    assert_eq!(body, good_body());
}

#[test]
fn truncated_ends_abruptly_half_way() {
    let places = places_that(Behaviour::Truncated);
    let mut client = Client::new(&places);
    ask(&mut client);
    let (text, ending) = client.read_to_end();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    assert_eq!(ending, Ending::Abrupt);
    let announced: usize = header(head, "Content-Length").unwrap().parse().unwrap();
    assert_eq!(
        (announced, body.len()),
        (good_body().len(), good_body().len() / 2)
    );
}

#[test]
fn slow_delays_the_answer() {
    let delay = Duration::from_millis(120);
    let places = places_that(Behaviour::Slow { delay });
    let mut client = Client::new(&places);
    let begun = Instant::now();
    assert_eq!(client.get(HERE).body, good_body());
    assert!(begun.elapsed() >= delay);
}

#[test]
fn drip_sends_each_piece_in_its_own_record() {
    let places = places_that(Behaviour::Drip {
        every: Duration::from_millis(1),
        bytes: 500,
    });
    let mut client = Client::new(&places);
    let begun = Instant::now();
    let response = client.get(HERE);
    assert_eq!(response.body, good_body());
    let length = response.head.len() + response.body.len();
    assert!(
        begun.elapsed() >= Duration::from_millis(length as u64 / 500),
        "{:?}",
        begun.elapsed()
    );
    let mut pieces = vec![500; length / 500];
    pieces.extend(Some(length % 500).filter(|rest| *rest > 0));
    assert!(
        client.records().ends_with(&pieces),
        "{:?}",
        client.records()
    );
    places.set_behaviour(Behaviour::Answer);
    assert_eq!(client.get(HERE).status, 200, "the connection stays open");
}

#[test]
fn hold_waits_for_the_release_and_holds_again() {
    let places = places_that(Behaviour::Hold);
    let mut first = Client::new(&places);
    let mut second = Client::new(&places);
    ask(&mut first);
    ask(&mut second);
    assert!(places.wait_for_requests(2, PATIENCE));
    places.release();
    assert_eq!(first.response().status, 200);
    assert_eq!(second.response().status, 200);
    ask(&mut first);
    assert!(places.wait_for_requests(3, PATIENCE));
    assert!(!places.wait_for_requests(4, Duration::ZERO));
    places.release();
    assert_eq!(first.response().status, 200);
}

#[test]
fn a_held_client_that_disconnects_is_closed() {
    let places = places_that(Behaviour::Hold);
    let mut rude = Client::new(&places);
    ask(&mut rude);
    let mut half_open = Client::new(&places);
    ask(&mut half_open);
    assert!(places.wait_for_requests(2, PATIENCE));
    drop(rude);
    half_open.shut_down_writing();
    assert!(places.wait_until(PATIENCE, |counts| counts.open_connections == 0));
}

#[test]
fn drop_closes_without_an_answer() {
    let places = places_that(Behaviour::Drop);
    let mut client = Client::new(&places);
    ask(&mut client);
    assert_eq!(client.read_to_end(), (String::new(), Ending::Abrupt));
    assert_eq!(places.requests().len(), 1);
}

#[test]
fn status_has_googles_error_shape() {
    let places = places();
    let mut client = Client::new(&places);
    for (code, status) in [
        (403, "PERMISSION_DENIED"),
        (429, "RESOURCE_EXHAUSTED"),
        (500, "INTERNAL"),
        (503, "UNAVAILABLE"),
    ] {
        places.push_behaviour(Behaviour::Status(code));
        let response = client.get(HERE);
        let json = response.json();
        assert_eq!(
            (response.status, &json["error"]["code"]),
            (code, &code.into())
        );
        assert_eq!(json["error"]["status"], status);
    }
    assert_eq!(
        client.get(HERE).status,
        200,
        "the queue is empty, the connection still open"
    );
}

#[test]
fn raw_sends_the_given_bytes() {
    let segments = || {
        vec![
            b"HTTP/1.1 200 OK\r\nContent-Le".to_vec(),
            b"ngth: 2\r\n\r\n{".to_vec(),
            b"}".to_vec(),
        ]
    };
    let places = places();
    let mut client = Client::new(&places);
    places.push_behaviour(Behaviour::Raw {
        segments: segments(),
        end: End::KeepAlive,
    });
    assert_eq!(client.get("/anything").body, "{}");
    assert!(
        client
            .records()
            .ends_with(&segments().iter().map(Vec::len).collect::<Vec<_>>()),
        "{:?}",
        client.records()
    );
    for (end, expected) in [
        (End::CloseNotify, Ending::CloseNotify),
        (End::Abrupt, Ending::Abrupt),
    ] {
        places.push_behaviour(Behaviour::Raw {
            segments: segments(),
            end,
        });
        let mut client = Client::new(&places);
        ask(&mut client);
        let (text, ending) = client.read_to_end();
        assert_eq!(text, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}");
        assert_eq!(ending, expected);
    }
}

#[test]
fn the_behaviour_applies_to_every_nth_request() {
    let options = Options {
        behaviour: Behaviour::Status(503),
        every: NonZeroU64::new(3).unwrap(),
        ..Options::default()
    };
    let places = Places::start(options).unwrap();
    let mut client = Client::new(&places);
    let statuses: Vec<u16> = (0..6).map(|_| client.get(HERE).status).collect();
    assert_eq!(statuses, [200, 200, 503, 200, 200, 503]);
}
