//! Tests of the legacy API.

use std::collections::HashSet;

use crate::client::{Client, header};
use crate::{HERE, places};

const PATH: &str = "/maps/api/place/nearbysearch/json";

#[test]
fn the_legacy_api_gives_twenty_places_in_google_s_layout() {
    let places = places();
    let response = Client::new(&places).get(HERE);
    assert_eq!(response.status, 200);
    assert_eq!(
        header(&response.head, "Content-Type").unwrap(),
        "application/json; charset=UTF-8"
    );
    assert_eq!(
        header(&response.head, "Server").unwrap(),
        "scaffolding on HTTPServer2"
    );
    assert!(header(&response.head, "Date").unwrap().ends_with(" GMT"));
    assert!(
        response
            .body
            .starts_with("{\n   \"html_attributions\" : [],\n   \"next_page_token\" : \"")
    );
    assert!(
        response
            .body
            .ends_with("      }\n   ],\n   \"status\" : \"OK\"\n}\n"),
        "{}",
        response.body
    );

    let json = response.json();
    let results = json["results"].as_array().unwrap();
    assert_eq!(results.len(), 20);
    for result in results {
        let fields: Vec<&String> = result.as_object().unwrap().keys().collect();
        assert_eq!(
            fields,
            [
                "business_status",
                "geometry",
                "icon",
                "icon_background_color",
                "icon_mask_base_uri",
                "name",
                "place_id",
                "plus_code",
                "rating",
                "reference",
                "scope",
                "types",
                "user_ratings_total",
                "vicinity"
            ]
        );
        assert!(result["name"].as_str().unwrap().ends_with(" (fictional)"));
        assert!(result["vicinity"].as_str().unwrap().ends_with(", Nowhere"));
        assert!(result["geometry"]["viewport"]["northeast"]["lat"].is_f64());
    }
    assert!(response.body.contains("\\\""), "one name has quotes");
    assert!(
        response.body.contains("\\u0026"),
        "and one an ampersand, which Google escapes"
    );
    assert!(!response.body.is_ascii(), "and one letters beyond ASCII");
}

#[test]
fn the_same_question_has_the_same_answer_from_any_server() {
    let first = Client::new(&places()).get(HERE);
    let second = Client::new(&places()).get(HERE);
    assert_eq!(first.body, second.body);
}

#[test]
fn the_legacy_api_gives_three_pages() {
    let places = places();
    let mut client = Client::new(&places);
    let mut ids = HashSet::new();
    let mut target = HERE.to_owned();
    for page in 1..=3 {
        let json = client.get(&target).json();
        assert_eq!(json["status"], "OK");
        ids.extend(
            json["results"]
                .as_array()
                .unwrap()
                .iter()
                .map(|result| result["place_id"].to_string()),
        );
        match json["next_page_token"].as_str() {
            Some(token) => target = format!("{PATH}?pagetoken={token}&key=test-key"),
            None => assert_eq!(page, 3),
        }
    }
    assert_eq!(ids.len(), 60);
    assert_eq!(places.connections(), 1);
}

#[test]
fn statuses() {
    let places = places();
    let mut client = Client::new(&places);
    for (query, status, message) in [
        ("location=86,0&radius=1000&key=test-key", "ZERO_RESULTS", ""),
        ("location=81,0&radius=1000&key=test-key", "OK", ""),
        (
            "location=34.0689%2C-118.4452&radius=50000&key=test%2Dkey",
            "OK",
            "",
        ),
        (
            "location=+34.0689,-118.4452&radius=50000&key=test-key",
            "OK",
            "",
        ),
        (
            "radius=1000&key=test-key",
            "INVALID_REQUEST",
            "Missing the 'location'",
        ),
        (
            "location=34.0689&radius=1000&key=test-key",
            "INVALID_REQUEST",
            "'location'",
        ),
        (
            "location=34,-118&key=test-key",
            "INVALID_REQUEST",
            "Missing the 'radius'",
        ),
        (
            "location=34,-118&radius=50001&key=test-key",
            "INVALID_REQUEST",
            "'radius'",
        ),
        (
            "pagetoken=made-up&key=test-key",
            "INVALID_REQUEST",
            "'pagetoken'",
        ),
        (
            "location=34,-118&radius=1000&key=wrong",
            "REQUEST_DENIED",
            "The provided API key is invalid.",
        ),
        (
            "location=34,-118&radius=1000",
            "REQUEST_DENIED",
            "You must use an API key to authenticate each request",
        ),
        (
            "location=34,-118&radius=1000&key=",
            "REQUEST_DENIED",
            "You must use an API key to authenticate each request",
        ),
    ] {
        let response = client.get(&format!("{PATH}?{query}"));
        let json = response.json();
        assert_eq!(
            (response.status, json["status"].as_str().unwrap()),
            (200, status),
            "{query}"
        );
        assert_eq!(
            json["error_message"].is_string(),
            !message.is_empty(),
            "{query}"
        );
        assert!(
            json["error_message"]
                .as_str()
                .unwrap_or_default()
                .contains(message),
            "{query}: {json}"
        );
        assert_eq!(
            json["results"].as_array().unwrap().is_empty(),
            status != "OK",
            "{query}"
        );
    }
}

#[test]
fn a_legacy_error_has_the_exact_bytes() {
    let response = Client::new(&places()).get(&HERE.replace("test-key", "wrong"));
    let expected = r#"{
   "error_message" : "The provided API key is invalid.",
   "html_attributions" : [],
   "results" : [],
   "status" : "REQUEST_DENIED"
}
"#;
    assert_eq!(response.body, expected);
}

#[test]
fn other_paths_are_not_found() {
    let places = places();
    let mut client = Client::new(&places);
    let response = client.get("/maps/<b>?key=test-key");
    assert_eq!(response.status, 404);
    assert_eq!(
        header(&response.head, "Content-Type").unwrap(),
        "text/html; charset=UTF-8"
    );
    assert!(
        response
            .body
            .contains("/maps/&lt;b&gt; was not found on this server"),
        "{}",
        response.body
    );
    assert!(!response.body.contains("test-key"));
    // The answer to HEAD has no body, so the next answer begins right after its head.
    client.send(b"HEAD / HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!(client.response().status, 405);
    assert_eq!(client.get(HERE).status, 200);
}
