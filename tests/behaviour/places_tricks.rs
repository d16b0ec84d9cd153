//! Answers of Places that try to pass for something else, and answers that try to last for ever.

use std::time::{Duration, Instant};

use herd_places::{Behaviour, End};
use herd_testkit::client::SOON;
use herd_testkit::herd::Herd;

use crate::places::{message, stand_in};
use crate::places_answers::scene;

/// Data that must never reach a client.
const FORGED: &str = "{\"forged\" : \"AT Riley +0.000000000 kiwi +9+9 9\"}";

#[test]
fn a_response_with_wrong_framing_is_refused() {
    const NOT_HTTP: &str = "its answer was not HTTP";
    const AMBIGUOUS: &str = "the length of its answer was ambiguous";
    const CHUNKS: &str = "wrongly chunked";
    let mut scene = scene();
    let sized = format!("Content-Length: {}\r\n\r\n{FORGED}", FORGED.len());
    let ok = |headers: &str| format!("HTTP/1.1 200 OK\r\n{headers}{sized}");
    let chunked =
        |chunks: &str| format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}");
    let length = format!("{:x}", FORGED.len());
    for (response, why) in [
        // Heads that another parser could read in another way.
        (
            format!(
                "HTTP/1.1 200 OK\r\nContent-Length:\r\n {}\r\n\r\n{FORGED}",
                FORGED.len()
            ),
            NOT_HTTP,
        ),
        (ok("X: a\r\n b\r\n"), NOT_HTTP),
        (ok("X: a\r\n\tTransfer-Encoding: chunked\r\n"), NOT_HTTP),
        (ok("Transfer-Encoding : chunked\r\n"), NOT_HTTP),
        (ok(": x\r\n"), NOT_HTTP),
        (ok("no colon\r\n"), NOT_HTTP),
        (ok("X: \0\r\n"), NOT_HTTP),
        (ok("X: a\rContent-Length: 1\r\n"), NOT_HTTP),
        (
            ok(&"X: y\r\n".repeat(100)),
            "the head of its answer was too large",
        ),
        (ok("Transfer-Encoding: chunked, chunked\r\n"), AMBIGUOUS),
        (ok("Transfer-Encoding: \u{b}chunked\r\n"), NOT_HTTP),
        (ok("Transfer-Encoding:\r\n"), AMBIGUOUS),
        (ok("Content-Length: 1\r\n"), AMBIGUOUS),
        (ok("content-length: 1\r\n"), AMBIGUOUS),
        (
            format!("HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551617\r\n\r\n{FORGED}"),
            "too large",
        ),
        (
            format!("HTTP/1.1 200 OK\r\nContent-Length: 0x35\r\n\r\n{FORGED}"),
            AMBIGUOUS,
        ),
        // Versions that the server does not speak.
        (format!("{FORGED}\r\n\r\n"), NOT_HTTP),
        (format!("HTTP/2 200 OK\r\n{sized}"), NOT_HTTP),
        (format!("HTTP/3.0 200 OK\r\n{sized}"), NOT_HTTP),
        (format!("HTTP/1.2 200 OK\r\n{sized}"), NOT_HTTP),
        (format!("http/1.1 200 OK\r\n{sized}"), NOT_HTTP),
        (format!("ICY 200 OK\r\n{sized}"), NOT_HTTP),
        (format!("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n{sized}"), NOT_HTTP),
        (
            format!("\0\0\x06\x04\0\0\0\0\0\0\x03\0\0\0\x64\r\n\r\n{FORGED}"),
            NOT_HTTP,
        ),
        (format!("HTTP/1.1 20 OK\r\n{sized}"), NOT_HTTP),
        (format!("HTTP/1.1 2000 OK\r\n{sized}"), NOT_HTTP),
        (format!("HTTP/1.1 +200 OK\r\n{sized}"), NOT_HTTP),
        // Endless interim answers, and one that switches the protocol.
        (
            format!("{}{}", "HTTP/1.1 100 Continue\r\n\r\n".repeat(50), ok("")),
            NOT_HTTP,
        ),
        (
            format!(
                "{}{}",
                "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n".repeat(50),
                ok("")
            ),
            NOT_HTTP,
        ),
        (
            format!(
                "HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\n\r\n{}",
                ok("")
            ),
            NOT_HTTP,
        ),
        // A status that allows no body, with a body; and statuses of answers without data.
        (
            format!("HTTP/1.1 204 No Content\r\n{sized}"),
            "HTTP status 204",
        ),
        (
            format!("HTTP/1.1 304 Not Modified\r\n{sized}"),
            "HTTP status 304",
        ),
        (
            format!("HTTP/1.1 205 Reset Content\r\n{sized}"),
            "HTTP status 205",
        ),
        (
            format!("HTTP/1.1 206 Partial Content\r\n{sized}"),
            "HTTP status 206",
        ),
        (
            format!("HTTP/1.1 201 Created\r\n{sized}"),
            "HTTP status 201",
        ),
        (format!("HTTP/1.1 999 ?\r\n{sized}"), "HTTP status 999"),
        // Chunked bodies.
        (chunked("10000000000000000\r\n"), "too large"),
        (
            chunked("fffffffffffffffffffffffffffffffff\r\n"),
            "too large",
        ),
        (
            chunked(&format!(
                "{length};{}\r\n{FORGED}\r\n0\r\n\r\n",
                "x".repeat(5_000)
            )),
            CHUNKS,
        ),
        (
            chunked(&format!(
                "{length}\r\n{FORGED}\r\n0\r\n{}\r\n",
                "X: y\r\n".repeat(5_000)
            )),
            CHUNKS,
        ),
        (chunked(&format!("{length}\r\n{FORGED}0\r\n\r\n")), CHUNKS),
        (chunked(&format!("{length}\r\n{FORGED}\n0\r\n\r\n")), CHUNKS),
        (
            chunked(&format!("{length} x\r\n{FORGED}\r\n0\r\n\r\n")),
            CHUNKS,
        ),
        (
            chunked(&format!("{length}\r;\n{FORGED}\r\n0\r\n\r\n")),
            CHUNKS,
        ),
        (
            chunked(&format!("{length}_\r\n{FORGED}\r\n0\r\n\r\n")),
            CHUNKS,
        ),
    ] {
        scene.refuses(&response, End::KeepAlive, why);
    }
    // A head without an end is no answer, neither if the connection stays open nor if it ends.
    for beginning in [
        FORGED,
        "HTTP/1.1 200 OK\r\n",
        "HTTP/1.1 200 OK\r\nX: y",
        "\r\n\r\n",
    ] {
        for end in [End::CloseNotify, End::Abrupt] {
            let json = scene.raw(&[beginning.as_bytes()], end);
            let error = serde_json::from_str(&json).unwrap();
            assert!(
                message(&error).contains("gave no answer that can be used"),
                "{json}"
            );
            scene.is_in_step();
        }
    }
}

#[test]
fn commands_after_a_bad_response_get_their_own_answers() {
    let mut scene = scene();
    let smuggled = format!(
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{{}}HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{FORGED}",
        FORGED.len()
    );
    let spoilt = [
        smuggled,
        format!(
            "HTTP/1.1 204 No Content\r\nContent-Length: {}\r\n\r\n{FORGED}",
            FORGED.len()
        ),
        format!(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{{}}\r\n0\r\n\r\n{FORGED}"
        ),
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n{}".to_owned(),
    ];
    for response in &spoilt {
        scene.is_in_step();
        let connections = scene.places.connections();
        scene.places.push_behaviour(Behaviour::Raw {
            segments: vec![response.clone().into_bytes()],
            end: End::KeepAlive,
        });
        // The two questions differ, so they do not share one call.
        scene.client.send(
            "WHATSAT kiwi 10 5\nno\nWHATSAT kiwi 11 5\nIAMAT other +1+2 3\nWHATSAT kiwi 12 1\n",
        );
        let (_, spoilt) = scene.client.places();
        assert!(!spoilt.contains("forged"), "{spoilt}");
        scene.client.expect("? no\n");
        assert!(scene.client.places().1.contains("\"status\" : \"OK\""));
        assert!(scene.client.line().starts_with("AT Riley "));
        assert!(scene.client.places().1.contains("\"status\" : \"OK\""));
        // The connection is closed, so the rest of the bad answer reaches no client.
        assert_eq!(scene.places.connections(), connections + 1, "{response}");
    }
}

#[test]
fn an_unexpected_body_is_not_the_next_answer() {
    let mut scene = scene();
    for status in ["204 No Content", "304 Not Modified"] {
        scene.is_in_step();
        let connections = scene.places.connections();
        // The head announces a body for a status without one. If it came after the next request, it
        // would look like that request's answer.
        let head = format!("HTTP/1.1 {status}\r\nContent-Length: 40\r\n\r\n");
        scene.refuses(&head, End::KeepAlive, &status[..3]);
        assert_eq!(scene.places.connections(), connections + 1, "{status}");
    }
}

#[test]
fn a_slow_response_ends_at_the_deadline() {
    let places = stand_in();
    let server = Herd::single()
        .asking(&places)
        .with("[limits]\nplaces_ms = 1200\n")
        .start("Riley");
    let mut client = server.client();
    client.ask("IAMAT kiwi +34.068930-118.445127 1");
    places.push_behaviour(Behaviour::Drip {
        every: Duration::from_millis(30),
        bytes: 1,
    });
    let begun = Instant::now();
    let (_, json) = client.send("WHATSAT kiwi 10 5\n").places();
    let took = begun.elapsed();
    let error = serde_json::from_str(&json).unwrap();
    assert!(message(&error).contains("did not answer within"), "{json}");
    assert!(
        (Duration::from_millis(1_100)..SOON / 2).contains(&took),
        "{took:?}"
    );
    assert!(places.wait_until(SOON, |counts| counts.open_connections == 0));
    assert_eq!(places.requests().len(), 1, "and is not asked again");
    let (_, json) = client.send("WHATSAT kiwi 10 5\n").places();
    assert!(json.contains("\"status\" : \"OK\""), "{json}");
}

#[test]
fn a_request_is_not_retried_after_a_response_byte() {
    let mut scene = scene();
    let mut asked = 0;
    for beginning in [
        "H",
        "HTTP/1.1 200 OK\r\nContent-Le",
        "HTTP/1.1 100 Continue\r\n\r\n",
    ] {
        for end in [End::CloseNotify, End::Abrupt] {
            scene.is_in_step(); // so the connection is a kept one
            let json = scene.raw(&[beginning.as_bytes()], end);
            let error = serde_json::from_str(&json).unwrap();
            assert!(message(&error).contains("cut off"), "{json}");
            asked += 2;
            assert_eq!(scene.places.requests().len(), asked, "{beginning:?}");
        }
    }
}

#[test]
fn no_kind_of_redirect_is_followed() {
    let elsewhere = stand_in();
    let mut scene = scene();
    for status in [300, 301, 302, 303, 305, 307, 308] {
        let url = elsewhere.url();
        scene.refuses(
            &format!(
                "HTTP/1.1 {status} Elsewhere\r\nLocation: {url}/maps/api/place/nearbysearch/json\r\nRefresh: 0; url={url}\r\nContent-Length: {}\r\n\r\n{FORGED}",
                FORGED.len()
            ),
            End::KeepAlive,
            &format!("HTTP status {status}"),
        );
    }
    assert_eq!(elsewhere.connections(), 0);
    assert_eq!(scene.places.requests().len(), 14, "each question once");
}

#[test]
fn a_retry_after_response_is_not_retried() {
    let mut scene = scene();
    for (asked, status) in (1..).zip([429, 500, 502, 503, 504]) {
        let body = format!("{{\"error\" : {{\"code\" : {status}}}}}");
        let response = format!(
            "HTTP/1.1 {status} Later\r\nRetry-After: 0\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let json = scene.raw(&[response.as_bytes()], End::KeepAlive);
        assert_eq!(json, body, "passed on as it is");
        assert_eq!(scene.places.requests().len(), asked);
    }
    assert_eq!(scene.places.connections(), 1);
}
