//! A question to Google Places, and its HTTP/1.1 request in either of Google's interfaces.

use crate::core::coordinates::Coordinates;
use crate::core::message::Radius;
use crate::core::proof::unhex;
use crate::core::settings::{PlacesApi, PlacesSettings, Secret};

/// What is asked. Two clients whose questions are equal share one call.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Question {
    /// Degrees, as the client wrote them.
    pub latitude: String,
    /// Degrees, as the client wrote them.
    pub longitude: String,
    /// How far around.
    pub radius: Radius,
    /// At most so many places; the legacy interface can not be told, so there it is `None` and the answer is cut.
    pub max_results: Option<u8>,
}

impl Question {
    /// What is near `place`.
    #[must_use]
    pub fn new(api: PlacesApi, place: Coordinates<'_>, radius: Radius, bound: u8) -> Question {
        let max_results = match api {
            PlacesApi::Legacy => None,
            PlacesApi::New => Some(bound),
        };
        Question {
            latitude: place.latitude(),
            longitude: place.longitude(),
            radius,
            max_results,
        }
    }

    /// The bytes to send.
    #[must_use]
    pub fn request(&self, places: &PlacesSettings, key: &Secret) -> Vec<u8> {
        let host = match places.origin.port {
            443 => places
                .origin
                .to_string()
                .trim_end_matches(":443")
                .to_owned(),
            _ => places.origin.to_string(),
        };
        let common = format!(
            "Host: {host}\r\nAccept: application/json\r\nUser-Agent: herd-mio/{}\r\n",
            env!("CARGO_PKG_VERSION"),
        );
        let Question {
            latitude,
            longitude,
            radius,
            max_results,
        } = self;
        let radius = radius.metres();
        match places.api {
            PlacesApi::Legacy => {
                let key = percent_encoded(key.expose());
                let path = "/maps/api/place/nearbysearch/json";
                format!("GET {path}?location={latitude},{longitude}&radius={radius}&key={key} HTTP/1.1\r\n{common}\r\n").into_bytes()
            }
            PlacesApi::New => {
                let bound = max_results.unwrap_or(20);
                let body = format!(
                    "{{\"maxResultCount\":{bound},\"locationRestriction\":{{\"circle\":{{\"center\":\
                     {{\"latitude\":{latitude},\"longitude\":{longitude}}},\"radius\":{radius}}}}}}}"
                );
                let mut request = b"POST /v1/places:searchNearby HTTP/1.1\r\n".to_vec();
                request.extend_from_slice(common.as_bytes());
                request.extend_from_slice(b"X-Goog-Api-Key: ");
                request.extend_from_slice(key.expose());
                let rest = format!(
                    "\r\nX-Goog-FieldMask: {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
                    places.field_mask,
                    body.len(),
                );
                request.extend_from_slice(rest.as_bytes());
                request
            }
        }
    }
}

/// Everything but RFC 3986's unreserved characters as `%XX`.
fn percent_encoded(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for &byte in bytes {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            text.push(char::from(byte));
        } else {
            text.push_str(&format!("%{byte:02X}"));
        }
    }
    text
}

/// Whether `text` repeats the key: as it is, or as it stands in the address of a request.
#[must_use]
pub fn repeats(text: &[u8], key: &Secret) -> bool {
    let is_in = |text: &[u8]| memchr::memmem::find(text, key.expose()).is_some();
    is_in(text) || memchr::memchr(b'%', text).is_some() && is_in(&percent_decoded(text))
}

/// What `%XX` stands for is put in its place; what is no such code stays.
fn percent_decoded(mut text: &[u8]) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(text.len());
    while let Some(at) = memchr::memchr(b'%', text) {
        decoded.extend_from_slice(&text[..at]);
        let (byte, length) = match text.get(at + 1..at + 3).and_then(unhex) {
            Some([byte]) => (byte, 3),
            None => (b'%', 1),
        };
        decoded.push(byte);
        text = &text[at + length..];
    }
    decoded.extend_from_slice(text);
    decoded
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::core::settings::HostPort;
    use std::sync::Arc;

    /// Settings for tests that never get as far as TLS.
    pub(crate) fn settings(api: PlacesApi) -> PlacesSettings {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth();
        PlacesSettings {
            api,
            origin: HostPort {
                host: "maps.googleapis.com".into(),
                port: 443,
            },
            key: Some(Secret::new(b"a&key/1".to_vec())),
            field_mask: "places.displayName,places.location".into(),
            tls: Arc::new(tls),
        }
    }

    fn request(api: PlacesApi, port: u16) -> String {
        let mut settings = settings(api);
        settings.origin.port = port;
        let place = Coordinates::parse(b"+034.068930-118.445127").unwrap();
        let question = Question::new(api, place, Radius::parse(b"2.5").unwrap(), 7);
        String::from_utf8(question.request(&settings, settings.key.as_ref().unwrap())).unwrap()
    }

    #[test]
    fn the_legacy_request_as_google_documents_it() {
        let expected = format!(
            "GET /maps/api/place/nearbysearch/json?location=34.068930,-118.445127&radius=2500&key=a%26key%2F1 HTTP/1.1\r\n\
             Host: maps.googleapis.com\r\nAccept: application/json\r\nUser-Agent: herd-mio/{}\r\n\r\n",
            env!("CARGO_PKG_VERSION"),
        );
        assert_eq!(request(PlacesApi::Legacy, 443), expected);
        assert!(request(PlacesApi::Legacy, 8443).contains("Host: maps.googleapis.com:8443\r\n"));
    }

    #[test]
    fn the_new_request_as_google_documents_it() {
        let text = request(PlacesApi::New, 443);
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("POST /v1/places:searchNearby HTTP/1.1\r\n"));
        assert!(head.contains("\r\nX-Goog-Api-Key: a&key/1\r\nX-Goog-FieldMask: places.displayName,places.location\r\n"));
        assert!(head.ends_with(&format!("Content-Length: {}", body.len())));
        let body: serde_json::Value = serde_json::from_str(body).unwrap();
        let expected = serde_json::json!({"maxResultCount": 7, "locationRestriction": {"circle":
            {"center": {"latitude": 34.068930, "longitude": -118.445127}, "radius": 2500}}});
        assert_eq!(body, expected);
    }

    #[test]
    fn a_key_is_found_however_an_address_has_it() {
        let key = Secret::new(b"a&key/1%".to_vec());
        for text in [
            "a&key/1%",
            "x?key=a%26key%2F1%25&y",
            "a%26key%2f1%25",
            "%a&key/1%",
            "%%61&key/1%25",
        ] {
            assert!(repeats(text.as_bytes(), &key), "{text}");
        }
        for text in [
            "",
            "%",
            "%2",
            "%zz",
            "a&key/1",
            "a%2526key%2F1%25",
            "a&key/2%",
        ] {
            assert!(!repeats(text.as_bytes(), &key), "{text}");
        }
    }
}
