//! Tests of WHATSAT. The answer is the record, then Google's JSON cut to the bound, or the server's
//! own error in Google's format.

use std::time::Duration;

use herd_compare::workshop::Program;
use herd_mio::core::base::settings::PlacesApi;
use herd_mio::core::places::answer::answer;
use herd_places::{Behaviour, End};
use herd_testkit::client::{Client, SOON};

use crate::scene::{KEY, Scene};

/// All tests of WHATSAT, with one server.
pub(crate) fn transcript(program: &Program) {
    let mut scene = Scene::new(program);
    question(&scene);
    cuts(&scene);
    framings(&scene);
    errors(&scene);
    connections(&scene);
    nobody_there(&mut scene);
}

/// A client after an IAMAT of kiwi.
fn kiwi(scene: &Scene) -> Client {
    let mut client = scene.client();
    client.ask("IAMAT kiwi +34.068930-118.445127 1621464827.959498503");
    client
}

/// The JSON of the answer to a WHATSAT.
fn json(client: &mut Client, bound: usize) -> String {
    client.send(format!("WHATSAT kiwi 10 {bound}\n")).places().1
}

/// Asserts that the JSON is an error of the server itself, in Google's format. Returns the message.
pub(crate) fn own_error(json: &str) -> String {
    let start = r#"{"html_attributions" : [], "results" : [], "status" : "UNKNOWN_ERROR", "error_message" : ""#;
    assert!(json.starts_with(start) && json.ends_with("\"}"), "{json}");
    let value: serde_json::Value = serde_json::from_str(json).unwrap();
    let message = value["error_message"].as_str().unwrap();
    assert!(!message.is_empty() && !message.contains(KEY), "{json}");
    message.to_owned()
}

/// The request that Places receives.
fn question(scene: &Scene) {
    let mut client = kiwi(scene);
    let at = client.ask("IAMAT kiwi +34.068930-118.445127 1621464827.959498504");
    client.send("WHATSAT kiwi 10 3\n");
    let (line, json) = client.places();
    assert_eq!(line, at);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["status"], "OK");
    assert_eq!(json["results"].as_array().unwrap().len(), 3);

    client.ask("IAMAT zeros +034.068930-000.50 1");
    for radius in ["2.5", "0.00125", "050", "0.00000000000000001"] {
        client.send(format!("WHATSAT zeros {radius} 1\n")).places();
    }
    let requests = scene.places.requests();
    let asked: Vec<[String; 3]> = requests
        .iter()
        .map(|request| {
            assert_eq!(request.method, "GET");
            let encoding = request.header("accept-encoding");
            assert!(
                encoding.is_none(),
                "what is packed cannot be passed on byte for byte: {encoding:?}"
            );
            let (path, query) = request.target.split_once('?').unwrap();
            assert_eq!(path, "/maps/api/place/nearbysearch/json");
            let value = |key: &str| {
                let found = query
                    .split('&')
                    .find_map(|pair| pair.strip_prefix(key)?.strip_prefix('='));
                found
                    .unwrap_or_else(|| panic!("no {key} in {query}"))
                    .replace("%2C", ",")
            };
            [value("location"), value("radius"), value("key")]
        })
        .collect();
    let expected = |location: &str, radius: &str| [location, radius, KEY].map(str::to_owned);
    assert_eq!(
        asked,
        [
            expected("34.068930,-118.445127", "10000"),
            expected("34.068930,-0.50", "2500"),
            expected("34.068930,-0.50", "1.25"),
            expected("34.068930,-0.50", "50000"),
            expected("34.068930,-0.50", "0.000000001"),
        ]
    );
}

fn with_length(status: &str, body: &[u8]) -> Behaviour {
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    Behaviour::Raw {
        segments: vec![[head.as_bytes(), body].concat()],
        end: End::KeepAlive,
    }
}

/// Google's text is passed on byte for byte, except for results beyond the bound and for newlines.
/// Text that is no JSON object is not passed on.
fn cuts(scene: &Scene) {
    let mut client = kiwi(scene);
    let google = "{\n   \"html_attributions\" : [],\n   \"results\" : [\n      {\n         \"name\" : \"A \\\"b\\\" ] } , [ { \\\\\"\n      },\n      {\n         \"name\" : \"Café (fictional) \\u00e9\",\n         \"types\" : [ \"a\", \"b\" ]\n      },\n      3\n   ],\n   \"status\" : \"OK\"\n}\n";
    for text in [
        google,
        "{\n\n\n\"a\" :\n1\n\n}\n\n\n",
        "\n\n{\n\n\n\"results\" :\n\n[\n\n1\n\n,\n\n2,3,4,5,6\n\n]\n\n,\n\n\"a\":\"\\n\\n\"}\n\n\n",
        "\r\n{\r\n\r\n\"results\" :\r\n[1\r\n\r\n,\n\r\n2\r\n\n,3]\r\r\n}\r\n\r\n",
        r#"{"a":{"results":[1,2,3]},"results":[ {"results":[1,2]} , [2,"]"] ,3 ],"places":[1,2]}"#,
        r#"{"r\u0065sults":[1,2,3]}"#,
        r#"{"results":{"a":[1,2,3]}}"#,
        r#"{"results":[]}"#,
        r#"{"results":[ ]  , "x" : -1.50e+3 , "y":[true,false,null]}"#,
        r#"{"results":"[1,2,3]"}"#,
        r#"{"results":[[],{},"",0,1]}"#,
        "{}",
        " {} ",
        "{\"error_message\" : \"The provided API key is invalid.\", \"results\" : [], \"status\" : \"REQUEST_DENIED\"}",
        "",
        "null",
        "[]",
        "1",
        "<html>",
        "{\"a\":}",
        "{\"a\":1,}",
        "{\"results\":[1,]}",
        "{} trailing",
        "{\"a\":1}{}",
        "\u{feff}{}",
        "{\"a\":NaN}",
        "{\"a\":01}",
        "{\"a\":\"\u{1}\"}",
        "{'a':1}",
        "{\"a\" 1}",
        "{\"results\":[1,2",
    ] {
        for bound in [1, 2, 20] {
            scene
                .places
                .push_behaviour(with_length("200 OK", text.as_bytes()));
            let came = json(&mut client, bound);
            match answer(text, PlacesApi::Legacy, u8::try_from(bound).unwrap()) {
                Ok(expected) => assert_eq!(came, expected, "of {text:?}"),
                Err(_) => drop(own_error(&came)),
            }
        }
    }
    scene
        .places
        .push_behaviour(with_length("200 OK", b"{\"a\":\"\xff\"}"));
    own_error(&json(&mut client, 1));
}

/// The framing of the response does not change the answer.
fn framings(scene: &Scene) {
    let mut client = kiwi(scene);
    let expected = json(&mut client, 7);
    assert!(expected.contains("(fictional)"));
    for behaviour in [
        Behaviour::Chunked { size: 700 },
        Behaviour::CloseDelimited,
        Behaviour::Drip {
            every: Duration::from_millis(1),
            bytes: 1000,
        },
        Behaviour::Slow {
            delay: Duration::from_millis(100),
        },
        Behaviour::Answer,
    ] {
        scene.places.push_behaviour(behaviour.clone());
        assert_eq!(json(&mut client, 7), expected, "{behaviour:?}");
    }
}

/// Google's errors are passed on. Responses that cannot be trusted are not.
fn errors(scene: &Scene) {
    let mut client = kiwi(scene);
    for status in [400, 403, 429, 500, 503] {
        scene.places.push_behaviour(Behaviour::Status(status));
        let json: serde_json::Value = serde_json::from_str(&json(&mut client, 5)).unwrap();
        assert_eq!(json["error"]["code"], status);
    }
    let elsewhere = format!(
        "HTTP/1.1 302 Found\r\nLocation: {}/elsewhere\r\nContent-Length: 2\r\n\r\n{{}}",
        scene.places.url()
    );
    let repeats_the_key = format!("{{\"error\" : \"bad gateway for /json?key={KEY}\"}}");
    for behaviour in [
        Behaviour::Truncated,
        with_length("502 Bad Gateway", b"<p>no"),
        Behaviour::Raw {
            segments: vec![elsewhere.into_bytes()],
            end: End::KeepAlive,
        },
        Behaviour::Raw {
            segments: vec![b"HTTP/1.1 204 No Content\r\n\r\n".to_vec()],
            end: End::KeepAlive,
        },
    ] {
        scene.places.push_behaviour(behaviour.clone());
        own_error(&json(&mut client, 5));
        assert!(
            json(&mut client, 5).contains("\"OK\""),
            "after {behaviour:?}"
        );
    }
    // The key is hidden, or the whole text that repeats it.
    for status in ["502 Bad Gateway", "200 OK"] {
        scene
            .places
            .push_behaviour(with_length(status, repeats_the_key.as_bytes()));
        let came = json(&mut client, 5);
        assert!(!came.contains(KEY), "{came}");
        assert!(came.contains("bad gateway") || !own_error(&came).is_empty());
        assert!(json(&mut client, 5).contains("\"OK\""));
    }
    // This is no HTTP. Some HTTP clients retry then, which is fine too.
    scene.places.push_behaviour(Behaviour::Raw {
        segments: vec![b"220 smtp.test ESMTP\r\n\r\n".to_vec()],
        end: End::CloseNotify,
    });
    let came = json(&mut client, 5);
    assert!(came.contains("\"OK\"") || !own_error(&came).is_empty());
    assert!(
        scene
            .places
            .requests()
            .iter()
            .all(|request| !request.target.contains("elsewhere")),
        "a redirect was followed"
    );
}

/// Connections are used again. A connection that was closed while idle is replaced without an
/// error.
fn connections(scene: &Scene) {
    let mut client = kiwi(scene);
    json(&mut client, 1);
    let before = scene.places.connections();
    for _ in 0..10 {
        assert!(json(&mut client, 1).contains("\"OK\""));
    }
    assert_eq!(
        scene.places.connections(),
        before,
        "each question had a connection of its own"
    );
    for _ in 0..3 {
        scene.places.close_idle();
        assert!(json(&mut client, 1).contains("\"OK\""));
    }

    // A slow request does not delay other clients.
    scene.places.push_behaviour(Behaviour::Hold);
    let asked = scene.places.requests().len();
    client.send("WHATSAT kiwi 10 5\n");
    assert!(scene.places.wait_for_requests(asked + 1, SOON));
    let mut other = kiwi(scene);
    other.send("WHATSAT kiwi 11 5\n");
    assert!(other.places().1.contains("\"OK\""));
    scene.places.release();
    assert!(client.places().1.contains("\"OK\""));

    // A client that resets its connection meanwhile does not disturb others.
    scene.places.push_behaviour(Behaviour::Hold);
    let asked = scene.places.requests().len();
    client.send("WHATSAT kiwi 10 5\n");
    assert!(scene.places.wait_for_requests(asked + 1, SOON));
    socket2::SockRef::from(client.stream())
        .set_linger(Some(Duration::ZERO))
        .unwrap();
    drop(client);
    scene.places.release();
    assert!(json(&mut kiwi(scene), 5).contains("\"OK\""));
}

/// No program listens at the address of Places any more.
fn nobody_there(scene: &mut Scene) {
    let other = herd_places::Places::start(herd_places::Options::default()).unwrap();
    let gone = std::mem::replace(&mut scene.places, other);
    drop(gone);
    let mut client = kiwi(scene);
    let at = client.ask("IAMAT kiwi +34.068930-118.445127 1621464827.959498505");
    for _ in 0..2 {
        client.send("WHATSAT kiwi 10 5\n");
        let (line, json) = client.places();
        assert_eq!(line, at);
        own_error(&json);
    }
}
