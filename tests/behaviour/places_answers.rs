//! Answers of Places in every form that HTTP allows, and in many that it forbids.

use std::time::Duration;

use herd_places::{Behaviour, End, Places};
use herd_testkit::client::{Client, SOON};
use herd_testkit::herd::{Herd, Server};

use crate::places::{message, stand_in};

pub(crate) struct Scene {
    pub(crate) places: Places,
    _server: Server,
    pub(crate) client: Client,
}

pub(crate) fn scene() -> Scene {
    let places = stand_in();
    let server = Herd::single().asking(&places).start("Riley");
    let mut client = server.client();
    client.ask("IAMAT kiwi +34.068930-118.445127 1621464827.959498503");
    Scene {
        places,
        _server: server,
        client,
    }
}

impl Scene {
    pub(crate) fn ask(&mut self, behaviour: Behaviour) -> String {
        self.places.push_behaviour(behaviour);
        self.client.send("WHATSAT kiwi 10 5\n").places().1
    }

    /// The answer when the stand-in sends exactly these bytes. Each piece is a TLS record.
    pub(crate) fn raw(&mut self, pieces: &[&[u8]], end: End) -> String {
        self.ask(Behaviour::Raw {
            segments: pieces.iter().map(|piece| piece.to_vec()).collect(),
            end,
        })
    }

    /// The answer must be refused with this reason. The next answer must be correct again, on any
    /// connection.
    pub(crate) fn refuses(&mut self, response: &str, end: End, why: &str) {
        let json = self.raw(&[response.as_bytes()], end);
        let json = serde_json::from_str(&json).unwrap();
        assert!(message(&json).contains(why), "{response:?}: {json}");
        self.is_in_step();
    }

    pub(crate) fn is_in_step(&mut self) {
        assert!(self.ask(Behaviour::Answer).contains("\"status\" : \"OK\""));
    }
}

#[test]
fn every_http_framing_gives_the_same_answer() {
    let mut scene = scene();
    let plain = scene.ask(Behaviour::Answer);
    assert!(plain.contains("\"status\" : \"OK\""));
    for behaviour in [
        Behaviour::Chunked { size: 1000 },
        Behaviour::Chunked { size: 1 },
        Behaviour::CloseDelimited,
        Behaviour::Slow {
            delay: Duration::from_millis(20),
        },
        Behaviour::Drip {
            every: Duration::from_millis(1),
            bytes: 701,
        },
    ] {
        assert_eq!(scene.ask(behaviour.clone()), plain, "{behaviour:?}");
    }
}

#[test]
fn a_response_split_at_any_byte_gives_the_same_answer() {
    let mut scene = scene();
    let response = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4;x=y\r\n{\"a\"\r\n4\r\n : 1\r\n1\r\n}\r\n0\r\nTrailer: x\r\n\r\n";
    for at in 1..response.len() {
        let (one, other) = response.split_at(at);
        assert_eq!(
            scene.raw(&[one, other], End::KeepAlive),
            "{\"a\" : 1}",
            "split at {at}"
        );
    }
    assert_eq!(
        scene.places.connections(),
        1,
        "and the connection is kept all the while"
    );
    let bytes: Vec<&[u8]> = response.chunks(1).collect();
    assert_eq!(scene.raw(&bytes, End::KeepAlive), "{\"a\" : 1}");
}

#[test]
fn interim_http_responses_are_skipped() {
    let mut scene = scene();
    let response = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}";
    assert_eq!(scene.raw(&[response], End::KeepAlive), "{}");
}

#[test]
fn ambiguous_http_responses_are_rejected() {
    let mut scene = scene();
    for headers in [
        "Content-Length: 2\r\nTransfer-Encoding: chunked",
        "Content-Length: 2\r\nContent-Length: 3",
        "Content-Length: +2",
        "Content-Length: 2, 2",
        "Content-Length: -2",
        "Content-Length:",
        "Transfer-Encoding: gzip, chunked",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
    ] {
        scene.refuses(
            &format!("HTTP/1.1 200 OK\r\n{headers}\r\n\r\n{{}}"),
            End::KeepAlive,
            "the length of its answer was ambiguous",
        );
    }
    for chunks in [
        "\r\n{}\r\n0\r\n\r\n",
        "+2\r\n{}\r\n0\r\n\r\n",
        "-2\r\n",
        "0x2\r\n{}\r\n",
        "2\n{}\r\n0\r\n\r\n",
        "2\r\n{}x\r\n0\r\n\r\n",
        "zz\r\n",
    ] {
        scene.refuses(
            &format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}"),
            End::KeepAlive,
            "wrongly chunked",
        );
    }
    scene.refuses(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n",
        End::KeepAlive,
        "too large",
    );
    scene.refuses(
        "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{}",
        End::KeepAlive,
        "not asked for",
    );
    scene.refuses(
        "220 smtp.test ESMTP\r\n\r\n",
        End::KeepAlive,
        "was not HTTP",
    );
    scene.refuses(
        &format!("HTTP/1.1 200 OK\r\nX: {}", "x".repeat(20_000)),
        End::KeepAlive,
        "head of its answer was too large",
    );
}

#[test]
fn truncated_responses_are_refused() {
    let mut scene = scene();
    let cut_off = "its answer was cut off";
    scene.refuses(
        "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n{}",
        End::CloseNotify,
        cut_off,
    );
    scene.refuses(
        "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n{}",
        End::Abrupt,
        cut_off,
    );
    scene.refuses(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n",
        End::CloseNotify,
        cut_off,
    );
    // Without a length, the body ends with the connection, and only after `close_notify` is it
    // complete.
    scene.refuses("HTTP/1.1 200 OK\r\n\r\n{}", End::Abrupt, cut_off);
    assert_eq!(
        scene.raw(&[b"HTTP/1.1 200 OK\r\n\r\n{}"], End::CloseNotify),
        "{}"
    );
    scene.refuses("HTTP/1.1 200 OK\r\nContent-Le", End::CloseNotify, cut_off);
    let json = serde_json::from_str(&scene.ask(Behaviour::Truncated)).unwrap();
    assert!(message(&json).contains(cut_off), "{json}");
}

#[test]
fn bytes_after_a_response_are_not_the_next_response() {
    let mut scene = scene();
    let smuggled = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{\"a\" : 1}";
    assert_eq!(scene.raw(&[smuggled], End::KeepAlive), "{}");
    scene.is_in_step();
    // The same for bytes on an idle connection, which is closed then. Once the next request is
    // sent, HTTP/1.1 cannot tell such bytes from its answer. So the test waits until the connection
    // is closed.
    let unasked = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{\"a\" : 1}";
    assert_eq!(
        scene.raw(
            &[b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", unasked],
            End::KeepAlive
        ),
        "{}"
    );
    assert!(
        scene
            .places
            .wait_until(SOON, |counts| counts.open_connections == 0)
    );
    scene.is_in_step();
}

#[test]
fn a_connection_closed_after_its_response_is_not_reused() {
    let mut scene = scene();
    let response = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}";
    for _ in 0..3 {
        assert_eq!(scene.raw(&[response], End::CloseNotify), "{}");
    }
    scene.is_in_step();
    assert_eq!(scene.places.requests().len(), 4, "none was asked twice");
}

#[test]
fn a_response_that_is_no_json_object_is_refused() {
    let mut scene = scene();
    for body in [
        "",
        "<html>",
        "[]",
        "{\"a\":}",
        "{} trailing",
        "nul",
        "\u{feff}{}",
    ] {
        let response = format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        scene.refuses(&response, End::KeepAlive, "not JSON");
    }
    let response = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{\"a\":\"\xff\"}";
    assert!(scene.raw(&[response], End::KeepAlive).contains("not JSON"));
    scene.refuses(
        "HTTP/1.1 502 Bad Gateway\r\nContent-Length: 5\r\n\r\n<p>no",
        End::KeepAlive,
        "HTTP status 502",
    );
    scene.refuses(
        "HTTP/1.1 204 No Content\r\n\r\n",
        End::KeepAlive,
        "HTTP status 204",
    );
}

#[test]
fn redirects_are_not_followed() {
    let mut scene = scene();
    let before = scene.places.requests().len();
    let url = scene.places.url();
    scene.refuses(
        &format!(
            "HTTP/1.1 302 Found\r\nLocation: {url}/elsewhere\r\nContent-Length: 2\r\n\r\n{{}}"
        ),
        End::KeepAlive,
        "HTTP status 302",
    );
    assert_eq!(
        scene.places.requests().len(),
        before + 2,
        "the question, and the next one"
    );
}

#[test]
fn a_places_response_body_has_a_size_limit() {
    let places = stand_in();
    let server = Herd::single()
        .asking(&places)
        .with("[limits]\nplaces_body_bytes = 1000\n")
        .start("Riley");
    let mut client = server.client();
    client.ask("IAMAT kiwi +34.068930-118.445127 1");
    for behaviour in [
        Behaviour::Answer,
        Behaviour::Chunked { size: 100 },
        Behaviour::CloseDelimited,
    ] {
        places.push_behaviour(behaviour);
        let json = serde_json::from_str(&client.send("WHATSAT kiwi 10 5\n").places().1).unwrap();
        assert!(
            message(&json).contains("its answer was too large"),
            "{json}"
        );
    }
}

#[test]
fn empty_lines_are_removed_from_the_json() {
    let mut scene = scene();
    let body =
        "\n\n{\n\n\n\"results\" :\n\n[\n\n1\n\n,\n\n2,3,4,5,6\n\n]\n\n,\n\n\"a\":\"\\n\\n\"}\n\n\n";
    let response = format!(
        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let json = scene.raw(&[response.as_bytes()], End::KeepAlive);
    assert_eq!(
        json,
        "{\n\"results\" :\n[\n1\n,\n2,3,4,5\n]\n,\n\"a\":\"\\n\\n\"}"
    );
    scene.is_in_step();
}
