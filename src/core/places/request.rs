//! A question to Google Places, and its HTTP/1.1 request for the legacy API or the New API.

use std::borrow::Cow;

use crate::core::base::hex::unhex;
use crate::core::base::settings::{PlacesApi, PlacesSettings, Secret};
use crate::core::wire::coordinates::Coordinates;
use crate::core::wire::message::Radius;

/// A question to Google Places. Clients with equal questions share one call.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Question {
    /// The latitude in degrees, with the client's digits, but without `+` and leading zeros.
    pub latitude: String,
    /// The longitude in degrees, in the same format.
    pub longitude: String,
    /// The radius of the search around the point of this latitude and longitude.
    pub radius: Radius,
    /// The maximum number of places. The legacy API has no such parameter: there the value is
    /// `None`, and the answer is cut for each client.
    pub max_results: Option<u8>,
}

impl Question {
    /// Creates the question for the places within `radius` of `coordinates`. `bound` is the maximum
    /// number of places that the client wants.
    #[must_use]
    pub fn new(
        api: PlacesApi,
        coordinates: Coordinates<'_>,
        radius: Radius,
        bound: u8,
    ) -> Question {
        let max_results = match api {
            PlacesApi::Legacy => None,
            PlacesApi::New => Some(bound),
        };
        Question {
            latitude: coordinates.latitude(),
            longitude: coordinates.longitude(),
            radius,
            max_results,
        }
    }

    /// Returns the HTTP request as bytes.
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

/// Writes all bytes except RFC 3986's unreserved characters as `%XX`.
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

/// The text that replaces the key.
const HIDDEN: &str = "(key not shown)";

/// Replaces the key in `text` by a fixed text. The key is found in these spellings: unchanged; in a
/// URL (`%XX`, escaped once or twice); in a JSON string (`\u00XX`, `\/`); in HTML (`&amp;`,
/// `&#38;`). Each byte of the key can have its own spelling. All other bytes stay the same, so
/// valid JSON remains valid.
#[must_use]
pub fn without_key<'a>(text: &'a str, key: &Secret) -> Cow<'a, str> {
    let key = key.expose();
    let mut redacted = String::new();
    let mut copied_to = 0;
    let mut at = 0;
    // A text without these characters can contain the key only unchanged.
    let is_plain = memchr::memchr3(b'%', b'\\', b'&', text.as_bytes()).is_none();
    while at < text.len() {
        let found = if is_plain {
            memchr::memmem::find(&text.as_bytes()[at..], key).map(|start| (at + start, key.len()))
        } else {
            (at..text.len())
                .find_map(|start| Some((start, encoded_length(&text.as_bytes()[start..], key)?)))
        };
        let Some((start, length)) = found else {
            break;
        };
        redacted.push_str(text.get(copied_to..start).unwrap_or_default());
        redacted.push_str(HIDDEN);
        copied_to = start + length;
        at = copied_to;
    }
    if copied_to == 0 {
        return Cow::Borrowed(text);
    }
    redacted.push_str(text.get(copied_to..).unwrap_or_default());
    Cow::Owned(redacted)
}

/// If `text` begins with the key, in any spelling, returns the length of that spelling in bytes.
fn encoded_length(text: &[u8], key: &[u8]) -> Option<usize> {
    let mut length = 0;
    for &byte in key {
        length += encoded_byte_length(text.get(length..)?, byte)?;
    }
    (length > 0).then_some(length)
}

/// If `text` begins with `byte`, in any spelling, returns the length of that spelling in bytes.
fn encoded_byte_length(text: &[u8], byte: u8) -> Option<usize> {
    let hex = |digits: &[u8]| unhex(digits).is_some_and(|[found]: [u8; 1]| found == byte);
    // The longer spelling is tried first: `%25` alone is an encoded `%`, but it also begins a byte
    // that was encoded twice (`%25XX`).
    match text {
        [b'%', b'2', b'5', high, low, ..] if hex(&[*high, *low]) => Some(5),
        [b'%', high, low, ..] if hex(&[*high, *low]) => Some(3),
        [b'\\', b'u', b'0', b'0', high, low, ..] if hex(&[*high, *low]) => Some(6),
        [b'\\', escaped, ..] if *escaped == byte && b"/\\\"".contains(&byte) => Some(2),
        [b'&', b'#', rest @ ..] => {
            let end = rest.iter().take(6).position(|&byte| byte == b';')?;
            let number = std::str::from_utf8(&rest[..end]).ok()?;
            let found = match number.strip_prefix(['x', 'X']) {
                Some(digits) => u8::from_str_radix(digits, 16),
                None => number.parse(),
            };
            (found == Ok(byte)).then_some(2 + end + 1)
        }
        [b'&', ..] => {
            let entities = [
                (b'&', &b"&amp;"[..]),
                (b'<', b"&lt;"),
                (b'>', b"&gt;"),
                (b'"', b"&quot;"),
                (b'\'', b"&apos;"),
            ];
            let name = entities
                .iter()
                .find(|(entities, name)| *entities == byte && text.starts_with(name));
            match name {
                Some((_, name)) => Some(name.len()),
                None => (byte == b'&').then_some(1),
            }
        }
        [first, ..] => (*first == byte).then_some(1),
        [] => None,
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::core::base::settings::{HostPort, PlacesQuota};
    use std::sync::Arc;

    /// Returns settings for tests that do not begin a TLS handshake.
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
            quota: PlacesQuota::default(),
            tls: Arc::new(tls),
        }
    }

    fn request(api: PlacesApi, port: u16) -> String {
        let mut settings = settings(api);
        settings.origin.port = port;
        let coordinates = Coordinates::parse(b"+034.068930-118.445127").unwrap();
        let question = Question::new(api, coordinates, Radius::parse(b"2.5").unwrap(), 7);
        String::from_utf8(question.request(&settings, settings.key.as_ref().unwrap())).unwrap()
    }

    #[test]
    fn the_legacy_request_matches_google_s_documentation() {
        let expected = format!(
            "GET /maps/api/place/nearbysearch/json?location=34.068930,-118.445127&radius=2500&key=a%26key%2F1 HTTP/1.1\r\n\
             Host: maps.googleapis.com\r\nAccept: application/json\r\nUser-Agent: herd-mio/{}\r\n\r\n",
            env!("CARGO_PKG_VERSION"),
        );
        assert_eq!(request(PlacesApi::Legacy, 443), expected);
        assert!(request(PlacesApi::Legacy, 8443).contains("Host: maps.googleapis.com:8443\r\n"));
    }

    #[test]
    fn the_new_request_matches_google_s_documentation() {
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
    fn only_the_key_is_masked_in_every_encoding() {
        let key = Secret::new(b"a&key/1%=x".to_vec());
        for written in [
            "a&key/1%=x",
            "a%26key%2F1%25%3Dx",
            "a%26key%2f1%25%3dx",
            "%61&key/1%%3dx",
            "a%2526key%252F1%2525%253Dx",
            "a\\u0026key\\/1%\\u003dx",
            "a\\u0026key\\u002F1\\u0025\\u003Dx",
            "a&amp;key/1%=x",
            "a&#38;key&#x2F;1%=x",
        ] {
            for (before, after) in [
                ("", ""),
                ("?key=", "&y"),
                ("%", "%"),
                ("ä\\", "ü"),
                ("a", ""),
            ] {
                let text = format!("{before}{written}{after}{written}.");
                let hidden = format!("{before}{HIDDEN}{after}{HIDDEN}.");
                assert_eq!(without_key(&text, &key), hidden, "{text}");
            }
        }
        for text in [
            "",
            "%",
            "%2",
            "%zz",
            "&#;&#x;&#999;&",
            "a&key/1",
            "a&key/2%=x",
            "A&KEY/1%=X",
        ] {
            assert!(matches!(without_key(text, &key), Cow::Borrowed(same) if same == text));
        }
    }

    #[test]
    fn an_ordinary_key_is_masked_in_an_error_text() {
        let key = Secret::new(b"AIzaSyD-9tSrke72PouQMnMX".to_vec());
        let text = "Consumer 'api_key:AIzaSyD-9tSrke72PouQMnMX' has been suspended.";
        let hidden = "Consumer 'api_key:(key not shown)' has been suspended.";
        assert_eq!(without_key(text, &key), hidden);
        assert_eq!(without_key(hidden, &key), hidden);
    }
}
