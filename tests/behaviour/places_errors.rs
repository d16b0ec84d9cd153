//! What a client gets when Google's answer is missing or is an error. An answer always ends at its
//! first empty line, because clients may read only that far.

use herd_places::{Behaviour, End, Options, Places};
use herd_testkit::client::Client;
use herd_testkit::herd::{Herd, Server};

use crate::places::stand_in;
use crate::places_answers::scene;

const KEY: &str = "AIzaSyD-9tSrke72PouQMnMX-a7eZSW0jkFMBWY";

/// Google's answer for a suspended key.
const SUSPENDED: &str = "{\n  \"error\": {\n    \"code\": 403,\n    \"message\": \"Permission denied: Consumer 'api_key:KEY' has been suspended.\",\n    \"status\": \"PERMISSION_DENIED\",\n    \"details\": [\n      {\n        \"@type\": \"type.googleapis.com/google.rpc.ErrorInfo\",\n        \"reason\": \"CONSUMER_SUSPENDED\",\n        \"metadata\": {\n          \"containerInfo\": \"api_key:KEY\",\n          \"consumer\": \"projects/1\"\n        }\n      }\n    ]\n  }\n}\n";

fn with_status(status: &str, body: &str) -> Behaviour {
    let length = body.len();
    Behaviour::Raw {
        segments: vec![
            format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\n\r\n{body}").into_bytes(),
        ],
        end: End::KeepAlive,
    }
}

/// A stand-in for Google with this key, a server that uses it, and a client with a known position.
fn asking(key: &str, api: &str) -> (Places, Server, Client) {
    let places = Places::start(Options {
        key: key.to_owned(),
        ..Options::default()
    })
    .unwrap();
    let server = Herd::single()
        .asking(&places)
        .with(&format!("api = {api:?}\n"))
        .env("HERD_PLACES_KEY", key)
        .start("Riley");
    let mut client = server.client();
    client.ask("IAMAT kiwi +34.068930-118.445127 1");
    (places, server, client)
}

fn ask(client: &mut Client) -> String {
    client.send("WHATSAT kiwi 10 5\n").places().1
}

#[test]
fn only_the_key_is_masked_in_a_google_error() {
    for api in ["new", "legacy"] {
        let (places, server, mut client) = asking(KEY, api);
        places.push_behaviour(with_status("403 Forbidden", &SUSPENDED.replace("KEY", KEY)));
        let expected = SUSPENDED.replace("KEY", "(key not shown)");
        assert_eq!(ask(&mut client), expected.trim_end());
        let line = server.wait_for_log("Google Places reports an error", "places call");
        assert!(
            line.contains("PERMISSION_DENIED (CONSUMER_SUSPENDED): Permission denied: Consumer 'api_key:(key not shown)' has been suspended."),
            "{line}"
        );
        // The key is hidden in data, too, if it should ever be there.
        let data = format!("{{\"results\" : [], \"places\" : [], \"next\" : \"?key={KEY}\"}}");
        places.push_behaviour(with_status("200 OK", &data));
        assert_eq!(ask(&mut client), data.replace(KEY, "(key not shown)"));
        let log = server.stop().join("\n");
        assert!(!log.contains(KEY), "{log}");
    }
}

#[test]
fn an_unusual_key_is_masked_in_every_encoding() {
    const ODD: &str = "k+y/with=odd&characters";
    let (places, server, mut client) = asking(ODD, "legacy");
    for shown in [
        ODD,
        "k%2By%2Fwith%3Dodd%26characters",
        "k%2by%2fwith%3dodd%26characters",
        "k%252By%252Fwith%253Dodd%2526characters",
        "k+y/with\\u003dodd\\u0026characters",
        "k\\u002By\\/with\\u003Dodd\\u0026characters",
        "k+y/with=odd&amp;characters",
    ] {
        let body = format!("{{\"error\" : \"bad gateway for /json?key={shown}&x\"}}");
        places.push_behaviour(with_status("502 Bad Gateway", &body));
        let hidden = body.replace(shown, "(key not shown)");
        assert_eq!(ask(&mut client), hidden, "{shown}");
    }
    let log = server.stop().join("\n");
    assert!(!log.contains("odd"), "{log}");
}

#[test]
fn server_errors_have_the_json_shape_of_the_api_in_use() {
    let (places, _server, mut client) = asking(KEY, "new");
    let mut refused = |behaviour: Behaviour, code: u16, status: &str, words: &str| {
        places.push_behaviour(behaviour);
        let text = ask(&mut client);
        let json: serde_json::Value = serde_json::from_str(&text).unwrap();
        let error = &json["error"];
        assert_eq!(
            (&error["code"], &error["status"]),
            (&code.into(), &status.into()),
            "{text}"
        );
        assert!(error["message"].as_str().unwrap().contains(words), "{text}");
        assert_eq!(json.as_object().unwrap().len(), 1, "{text}");
    };
    refused(with_status("200 OK", "<html>"), 500, "INTERNAL", "not JSON");
    refused(
        with_status("502 Bad Gateway", "<p>no"),
        500,
        "INTERNAL",
        "HTTP status 502",
    );
    refused(Behaviour::Truncated, 500, "INTERNAL", "cut off");

    let nobody = Herd::single().asking(&places).with("api = \"new\"\n");
    let server = Server::start(
        nobody
            .command("Riley")
            .args(["--places-url", "https://no-such-host.invalid"]),
    );
    let mut client = server.client();
    client.ask("IAMAT kiwi +34.068930-118.445127 1");
    let json: serde_json::Value = serde_json::from_str(&ask(&mut client)).unwrap();
    assert_eq!(json["error"]["status"], "UNAVAILABLE", "{json}");

    let keyless = Herd::single()
        .with("[places]\napi = \"new\"\n")
        .start("Riley");
    let mut client = keyless.client();
    client.ask("IAMAT kiwi +34.068930-118.445127 1");
    let json: serde_json::Value = serde_json::from_str(&ask(&mut client)).unwrap();
    assert_eq!(json["error"]["status"], "PERMISSION_DENIED", "{json}");

    let impatient = Herd::single()
        .asking(&places)
        .with("api = \"new\"\n[limits]\nplaces_ms = 200\n")
        .start("Riley");
    let mut client = impatient.client();
    client.ask("IAMAT kiwi +34.068930-118.445127 1");
    places.push_behaviour(Behaviour::Hold);
    let json: serde_json::Value = serde_json::from_str(&ask(&mut client)).unwrap();
    assert_eq!(json["error"]["status"], "DEADLINE_EXCEEDED", "{json}");
    assert_eq!(json["error"]["code"], 504, "{json}");
}

#[test]
fn google_errors_of_every_shape_are_forwarded() {
    for api in ["new", "legacy"] {
        let (places, server, mut client) = asking(KEY, api);
        for body in [
            "[{\n  \"error\": {\n    \"code\": 400,\n    \"message\": \"Invalid.\",\n    \"status\": \"INVALID_ARGUMENT\"\n  }\n}\n]\n",
            "{\"error\": {\"code\": 429, \"message\": \"Quota.\", \"status\": \"RESOURCE_EXHAUSTED\"}}",
            "{\"error_message\" : \"No.\", \"html_attributions\" : [], \"results\" : [], \"status\" : \"REQUEST_DENIED\"}",
            "{\"html_attributions\" : [], \"results\" : [], \"status\" : \"OVER_QUERY_LIMIT\"}",
        ] {
            for status in [
                "400 Bad Request",
                "403 Forbidden",
                "500 Internal Server Error",
                "503 x",
                "302 Found",
            ] {
                places.push_behaviour(with_status(status, body));
                assert_eq!(ask(&mut client), body.trim_end(), "{status} {body}");
            }
        }
        server.wait_for_log("reports an error", "INVALID_ARGUMENT: Invalid.");
        server.wait_for_log("reports an error", "OVER_QUERY_LIMIT");
    }
}

#[test]
fn only_a_status_200_body_is_data() {
    let mut scene = scene();
    let good =
        "{\"html_attributions\" : [], \"results\" : [{\"name\" : \"x\"}], \"status\" : \"OK\"}";
    let none = "{\"html_attributions\" : [], \"results\" : [], \"status\" : \"ZERO_RESULTS\"}";
    let new = "{\"places\" : [{\"id\" : \"x\"}]}";
    // A body with both data and an error counts as neither.
    let both = "{\"places\" : [{\"id\" : \"x\"}], \"error\" : {\"code\" : 500}}";
    for body in [
        good,
        none,
        new,
        both,
        "{}",
        "[]",
        "[{}]",
        "{\"error\" : null}",
    ] {
        for status in [
            "201 Created",
            "203 x",
            "206 Partial Content",
            "300 x",
            "400 x",
            "404 Not Found",
            "500 x",
            "502 x",
            "599 x",
        ] {
            let length = body.len();
            let response = format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\n\r\n{body}");
            scene.refuses(
                &response,
                End::KeepAlive,
                &format!("HTTP status {}", &status[..3]),
            );
        }
    }
    assert_eq!(scene.ask(with_status("200 OK", good)), good);
}

#[test]
fn an_answer_ends_at_its_first_empty_line() {
    let places = stand_in();
    let server = Herd::single().asking(&places).start("Riley");
    let mut client = server.client();
    let at = client.ask("IAMAT kiwi +34.068930-118.445127 1");
    for (body, passed_on) in [
        ("\n{}", "{}"),
        ("\r\n{}\r\n", "{}"),
        ("\n\n\n{}\n\n\n", "{}"),
        ("\r{}\r", "{}"),
        (
            "\r\n\r\n{\r\n\r\n\"a\" : 1\r\n}\r\n\r\n",
            "{\r\n\"a\" : 1\r\n}",
        ),
        ("{\n\r\n\"a\" : 1\r\n\n}", "{\n\"a\" : 1\r\n}"),
        ("{\r\r\n\"a\" : 1\n\r\n\r}", "{\r\"a\" : 1\n}"),
        (
            "{\"results\" : [1\r\n\r\n,\r\n\r\n2\r\n\r\n,3\r\n\r\n]\r\n\r\n}",
            "{\"results\" : [1\r\n]\r\n}",
        ),
        ("{\"a\" : \"\\r\\n\\r\\n\"}", "{\"a\" : \"\\r\\n\\r\\n\"}"),
    ] {
        for status in ["200 OK", "400 Bad Request"] {
            let is_error = status != "200 OK";
            let (body, passed_on) = if is_error {
                let wrapped = |text: &str| {
                    let open = text.find('{').unwrap() + 1;
                    let comma = if text.contains('"') { "," } else { "" };
                    format!("{}\"error\":\"x\"{comma}{}", &text[..open], &text[open..])
                };
                (wrapped(body), wrapped(passed_on))
            } else {
                (body.to_owned(), passed_on.to_owned())
            };
            if is_error && body.contains("results") {
                continue; // it would have both data and an error
            }
            places.push_behaviour(with_status(status, &body));
            client.send("WHATSAT kiwi 10 1\n");
            client.expect(format!("{at}\n{passed_on}\n\n"));
            // The client gets exactly one answer for each command.
            client.send("no\n").expect("? no\n");
        }
    }
}
