//! The places of an answer, read from either of Google's two formats.
//!
//! The legacy Nearby Search always has a `status`. The New API has an `error` object after an error
//! only.

use herd_mio::core::wire::coordinates::Coordinates;
use serde_json::Value;

/// Types that nearly every place has, so they say nothing.
const EMPTY_TYPES: [&str; 2] = ["point_of_interest", "establishment"];
/// At most so many types of a place are shown.
const TYPES_SHOWN: usize = 3;
/// The mean radius of the earth (IUGG).
const EARTH_RADIUS_M: f64 = 6_371_008.8;

/// The result of a search.
#[derive(Debug, PartialEq)]
pub(crate) enum Found {
    Places(Vec<Place>),
    /// The error as text.
    Error(String),
}

/// One place. Missing fields are empty.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Place {
    pub(crate) name: String,
    pub(crate) address: String,
    pub(crate) rating: Option<f64>,
    pub(crate) ratings: Option<u64>,
    pub(crate) types: Vec<String>,
    pub(crate) spot: Option<Spot>,
}

/// A point on the earth, in degrees.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Spot {
    latitude: f64,
    longitude: f64,
}

impl Found {
    /// Reads the JSON of a WHATSAT's answer.
    pub(crate) fn read(json: &[u8]) -> Found {
        let mut whole: Value = match serde_json::from_slice(json) {
            Ok(whole) => whole,
            Err(error) => return Found::Error(format!("the places are not JSON: {error}")),
        };
        // Some errors of Google come in an array.
        let elements = whole.as_array_mut().into_iter().flatten();
        if let Some(element) = elements.into_iter().find(|one| one.get("error").is_some()) {
            whole = element.take();
        }
        if !whole.is_object() {
            return Found::Error("the places are not a JSON object".into());
        }
        if let Some(error) = whole.get("error") {
            return Found::Error(new_error(error));
        }
        let places = match &whole["status"] {
            Value::Null => &whole["places"],
            Value::String(status) if status == "OK" || status == "ZERO_RESULTS" => {
                &whole["results"]
            }
            status => return Found::Error(legacy_error(status, &whole["error_message"])),
        };
        let places = places.as_array().into_iter().flatten();
        Found::Places(places.map(Place::read).collect())
    }
}

fn legacy_error(status: &Value, message: &Value) -> String {
    let status = status.as_str().unwrap_or("(a status that is not text)");
    let meaning = match status {
        "INVALID_REQUEST" => "Places rejected the request as invalid",
        "OVER_QUERY_LIMIT" => "Places got too many requests, or billing is not set up",
        "REQUEST_DENIED" => "Places denied the request; the server's API key may be wrong",
        "NOT_FOUND" => "Places did not find the requested place",
        "UNKNOWN_ERROR" => "Places could not answer",
        _ => "Places reported an error",
    };
    match message.as_str() {
        Some(message) => format!("{meaning} ({status}): {message}"),
        None => format!("{meaning} ({status})"),
    }
}

fn new_error(error: &Value) -> String {
    let status = error["status"].as_str().unwrap_or("no status");
    let message = error["message"].as_str().unwrap_or("no message");
    match error["code"].as_u64() {
        Some(code) => format!("Places reported an error ({status}, HTTP {code}): {message}"),
        None => format!("Places reported an error ({status}): {message}"),
    }
}

impl Place {
    /// A field of a wrong type counts as missing: this program shows answers, and does not check
    /// them.
    fn read(place: &Value) -> Place {
        let text = |names: [&str; 2]| {
            let found = names.iter().find_map(|name| place.pointer(name)?.as_str());
            found.unwrap_or_default().to_owned()
        };
        let number = |names: [&str; 2]| names.iter().find_map(|name| place.pointer(name)?.as_f64());
        let spot = number(["/geometry/location/lat", "/location/latitude"])
            .zip(number(["/geometry/location/lng", "/location/longitude"]));
        let types = place["types"].as_array().into_iter().flatten();
        let types = types.filter_map(Value::as_str);
        let count = ["user_ratings_total", "userRatingCount"];
        // The order matters: the New API's `name` is the name of a resource ("places/ChIJ…").
        let name = text(["/displayName/text", "/name"]);
        Place {
            name: if name.is_empty() {
                "(no name)".into()
            } else {
                name
            },
            address: text(["/vicinity", "/formattedAddress"]),
            rating: number(["/rating", "/rating"]),
            ratings: count.iter().find_map(|name| place[name].as_u64()),
            types: types
                .filter(|kind| !EMPTY_TYPES.contains(kind))
                .take(TYPES_SHOWN)
                .map(str::to_owned)
                .collect(),
            spot: spot.map(|(latitude, longitude)| Spot {
                latitude,
                longitude,
            }),
        }
    }
}

impl Spot {
    /// The position of a client.
    pub(crate) fn of(place: &Coordinates<'_>) -> Option<Spot> {
        Some(Spot {
            latitude: place.latitude().parse().ok()?,
            longitude: place.longitude().parse().ok()?,
        })
    }

    /// The distance and the direction at the start of the way: `320 m NE`, padded for a column.
    pub(crate) fn way_to(self, there: Spot) -> String {
        const WINDS: [&str; 8] = ["N", "NE", "E", "SE", "S", "SW", "W", "NW"];
        let metres = self.metres_to(there);
        // One of eight sectors. A bearing is below 360 degrees, so the index is below 8.
        let wind = WINDS[((self.bearing_to(there) / 45.0).round() as usize) % WINDS.len()];
        match metres {
            m if m < 0.5 => "here".into(),
            m if m < 999.5 => format!("{m:.0} m {wind:<2}"),
            m => format!("{:.1} km {wind:<2}", m / 1000.0),
        }
    }

    /// The great-circle distance on a sphere, by the haversine formula. It is numerically exact to
    /// centimetres.
    fn metres_to(self, there: Spot) -> f64 {
        let (from, to) = (self.latitude.to_radians(), there.latitude.to_radians());
        let north = ((to - from) / 2.0).sin();
        let east = ((there.longitude - self.longitude).to_radians() / 2.0).sin();
        let square = north * north + from.cos() * to.cos() * east * east;
        2.0 * EARTH_RADIUS_M * square.sqrt().min(1.0).asin()
    }

    /// The initial bearing of the great circle, from 0 to 360 degrees, clockwise from north.
    fn bearing_to(self, there: Spot) -> f64 {
        let (from, to) = (self.latitude.to_radians(), there.latitude.to_radians());
        let turn = (there.longitude - self.longitude).to_radians();
        let east = turn.sin() * to.cos();
        let north = from.cos() * to.sin() - from.sin() * to.cos() * turn.cos();
        east.atan2(north).to_degrees().rem_euclid(360.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(json: &str) -> String {
        match Found::read(json.as_bytes()) {
            Found::Error(what) => what,
            Found::Places(places) => panic!("{places:?}"),
        }
    }

    fn places(json: &str) -> Vec<Place> {
        match Found::read(json.as_bytes()) {
            Found::Places(places) => places,
            Found::Error(what) => panic!("{what}"),
        }
    }

    #[test]
    fn both_places_formats_give_the_same_result() {
        let legacy = places(
            r#"{"html_attributions": [], "status": "OK", "results": [{
                "name": "Café", "vicinity": "1 Main St", "rating": 4.5, "user_ratings_total": 7,
                "types": ["establishment", "cafe"], "geometry": {"location": {"lat": 1.5, "lng": -2}}}]}"#,
        );
        let new = places(
            r#"{"places": [{
                "name": "places/ChIJ", "displayName": {"text": "Café", "languageCode": "fr"}, "formattedAddress": "1 Main St",
                "rating": 4.5, "userRatingCount": 7,
                "types": ["cafe", "point_of_interest"], "location": {"latitude": 1.5, "longitude": -2}}]}"#,
        );
        assert_eq!(legacy, new);
        assert_eq!(legacy[0].name, "Café");
        assert_eq!(legacy[0].types, ["cafe"]);
        assert!(legacy[0].spot.is_some());
    }

    #[test]
    fn empty_and_incomplete_places_are_no_errors() {
        assert!(places("{}").is_empty(), "the New API, no results");
        assert!(places(r#"{"results": [], "status": "ZERO_RESULTS"}"#).is_empty());
        let odd = places(
            r#"{"status": "OK", "results": [{}, {"name": 3, "types": {}, "rating": "x"}, 7]}"#,
        );
        assert_eq!(odd.len(), 3);
        assert!(
            odd.iter()
                .all(|place| place.name == "(no name)" && place.rating.is_none())
        );
    }

    #[test]
    fn places_errors_are_explained() {
        assert_eq!(
            error(r#"{"results": [], "status": "UNKNOWN_ERROR", "error_message": "timed out"}"#),
            "Places could not answer (UNKNOWN_ERROR): timed out"
        );
        assert!(error(r#"{"status": "OVER_QUERY_LIMIT"}"#).contains("too many requests"));
        assert!(error(r#"{"status": 7}"#).contains("not text"));
        assert_eq!(
            error(
                r#"{"error": {"code": 400, "message": "API key not valid.", "status": "INVALID_ARGUMENT"}}"#
            ),
            "Places reported an error (INVALID_ARGUMENT, HTTP 400): API key not valid."
        );
        assert_eq!(
            error(r#"[{"error": {"code": 403, "message": "No.", "status": "PERMISSION_DENIED"}}]"#),
            "Places reported an error (PERMISSION_DENIED, HTTP 403): No."
        );
        assert!(error("").starts_with("the places are not JSON"));
        assert!(error("[]").contains("not a JSON object"));
    }

    #[test]
    fn ways() {
        let spot = |latitude, longitude| Spot {
            latitude,
            longitude,
        };
        let here = spot(0.0, 0.0);
        assert_eq!(here.way_to(here), "here");
        assert_eq!(here.way_to(spot(0.001, 0.0)), "111 m N ");
        assert_eq!(here.way_to(spot(-0.001, -0.001)), "157 m SW");
        assert_eq!(here.way_to(spot(0.008984, -0.000001)), "999 m N ");
        assert_eq!(here.way_to(spot(0.0, 180.0)), "20015.1 km E ");
        assert_eq!(
            spot(0.0, 179.9995).way_to(spot(0.0, -179.9995)),
            "111 m E ",
            "across the date line"
        );
    }
}
