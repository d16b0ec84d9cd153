//! Tests of the New API.

use crate::client::{Client, header};
use crate::places;

const KEY: &str = "X-Goog-Api-Key: test-key\r\n";
const MASK: &str = "X-Goog-FieldMask: places.displayName,places.location,places.id,places.formattedAddress,places.types\r\n";

fn question(count: u32, latitude: f64, radius: u32) -> String {
    format!(
        r#"{{"maxResultCount": {count}, "locationRestriction": {{"circle":
            {{"center": {{"latitude": {latitude}, "longitude": -118.4452}}, "radius": {radius}}}}}}}"#
    )
}

#[test]
fn the_new_api_gives_only_the_fields_in_the_mask() {
    let places = places();
    let response = Client::new(&places).post(&format!("{KEY}{MASK}"), &question(3, 34.0689, 500));
    assert_eq!(response.status, 200);
    assert_eq!(
        header(&response.head, "Content-Type").unwrap(),
        "application/json; charset=UTF-8"
    );
    assert!(
        response
            .body
            .starts_with("{\n  \"places\": [\n    {\n      \"id\": \"ChIJ"),
        "{}",
        response.body
    );
    let json = response.json();
    let found = json["places"].as_array().unwrap();
    assert_eq!(found.len(), 3);
    for place in found {
        let fields: Vec<&String> = place.as_object().unwrap().keys().collect();
        assert_eq!(
            fields,
            ["displayName", "formattedAddress", "id", "location", "types"]
        );
        assert!(
            place["displayName"]["text"]
                .as_str()
                .unwrap()
                .ends_with(" (fictional)")
        );
        assert!(place["location"]["latitude"].is_f64());
    }
}

#[test]
fn a_mask_may_name_all_fields_or_a_subfield() {
    let places = places();
    let mut client = Client::new(&places);
    let all = client
        .post(
            &format!("{KEY}X-Goog-FieldMask: *\r\n"),
            &question(1, 34.0689, 500),
        )
        .json();
    assert_eq!(all["places"][0].as_object().unwrap().len(), 16);
    let part = client.post(
        &format!("{KEY}X-Goog-FieldMask: places.displayName.text\r\n"),
        &question(1, 34.0689, 500),
    );
    assert_eq!(
        part.json()["places"][0],
        serde_json::json!({"displayName": {"text": all["places"][0]["displayName"]["text"]}})
    );
}

#[test]
fn an_empty_result_is_an_empty_json_object() {
    let places = places();
    let mut client = Client::new(&places);
    assert_eq!(
        client
            .post(&format!("{KEY}{MASK}"), &question(20, 86.0, 500))
            .body,
        "{}\n"
    );
    let few = client
        .post(&format!("{KEY}{MASK}"), &question(20, 81.0, 500))
        .json();
    assert_eq!(few["places"].as_array().unwrap().len(), 7);
}

#[test]
fn errors() {
    let places = places();
    let mut client = Client::new(&places);
    let good = question(3, 34.0689, 500);
    let headers = format!("{KEY}{MASK}");
    for (headers, body, code, status, message) in [
        (
            MASK.to_owned(),
            good.clone(),
            403,
            "PERMISSION_DENIED",
            "Method doesn't allow unregistered callers",
        ),
        (
            headers.replace("test-key", "wrong"),
            good.clone(),
            400,
            "INVALID_ARGUMENT",
            "API key not valid.",
        ),
        (
            KEY.to_owned(),
            good.clone(),
            400,
            "INVALID_ARGUMENT",
            "FieldMask is a required parameter.",
        ),
        (
            format!("{KEY}X-Goog-FieldMask: places.colour\r\n"),
            good.clone(),
            400,
            "INVALID_ARGUMENT",
            "Request contains",
        ),
        (
            format!("{KEY}X-Goog-FieldMask: places.id, places.types\r\n"),
            good,
            400,
            "INVALID_ARGUMENT",
            "Request contains",
        ),
        (
            headers.clone(),
            question(0, 34.0, 500),
            400,
            "INVALID_ARGUMENT",
            "max_result_count",
        ),
        (
            headers.clone(),
            question(21, 34.0, 500),
            400,
            "INVALID_ARGUMENT",
            "max_result_count",
        ),
        (
            headers.clone(),
            question(3, 34.0, 0),
            400,
            "INVALID_ARGUMENT",
            "circle.radius",
        ),
        (
            headers.clone(),
            question(3, 34.0, 50_001),
            400,
            "INVALID_ARGUMENT",
            "circle.radius",
        ),
        (
            headers.clone(),
            question(3, 91.0, 500),
            400,
            "INVALID_ARGUMENT",
            "center.latitude",
        ),
        (
            headers.clone(),
            "{}".to_owned(),
            400,
            "INVALID_ARGUMENT",
            "Missing locationRestriction",
        ),
        (
            headers,
            "not JSON".to_owned(),
            400,
            "INVALID_ARGUMENT",
            "Invalid JSON payload received.",
        ),
    ] {
        let response = client.post(&headers, &body);
        let error = &response.json()["error"];
        assert_eq!(
            (response.status, error["code"].as_u64().unwrap()),
            (code, u64::from(code)),
            "{headers}{body}"
        );
        assert_eq!(error["status"], status, "{headers}{body}");
        assert!(
            error["message"].as_str().unwrap().contains(message),
            "{headers}{body}: {error}"
        );
    }
}

#[test]
fn a_wrong_key_gives_the_exact_error_bytes() {
    let headers = format!("{KEY}{MASK}").replace("test-key", "wrong");
    let response = Client::new(&places()).post(&headers, &question(3, 34.0689, 500));
    let expected = r#"{
  "error": {
    "code": 400,
    "message": "API key not valid. Please pass a valid API key.",
    "status": "INVALID_ARGUMENT",
    "details": [
      {
        "@type": "type.googleapis.com/google.rpc.ErrorInfo",
        "reason": "API_KEY_INVALID",
        "domain": "googleapis.com",
        "metadata": {
          "service": "places.googleapis.com"
        }
      },
      {
        "@type": "type.googleapis.com/google.rpc.LocalizedMessage",
        "locale": "en-US",
        "message": "API key not valid. Please pass a valid API key."
      }
    ]
  }
}
"#;
    assert_eq!(response.body, expected);
}

#[test]
fn the_wrong_method_is_not_found() {
    let places = places();
    assert_eq!(
        Client::new(&places).get("/v1/places:searchNearby").status,
        404
    );
}
