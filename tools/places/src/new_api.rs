//! The New API's Nearby Search: `POST /v1/places:searchNearby`.
//!
//! Errors have their HTTP status here. Two things differ from Google. This server takes the key and
//! the field mask only from the headers, but Google also from the query (`key` and `fields`). And
//! it accepts `includedTypes`, `rankPreference` and the other filters without applying them.

use serde_json::Value;

use crate::http::{Answer, Request};
use crate::invented::{self, Place};
use crate::json::Json;

/// The path of this API.
pub(crate) const PATH: &str = "/v1/places:searchNearby";

const RESULTS_MAX: u64 = 20;
const RADIUS_MAX_M: f64 = 50_000.0;
const NO_KEY: &str = "Method doesn't allow unregistered callers (callers without established identity). \
                      Please use API Key or other form of API consumer identity to call this API.";
const WRONG_KEY: &str = "API key not valid. Please pass a valid API key.";
const NO_MASK: &str = "FieldMask is a required parameter. See https://cloud.google.com/apis/docs/system-parameters \
                       on how to provide it. As an example, you can set the header 'X-Goog-FieldMask' to value \
                       'places.displayName,places.id' to ask for the display name and the place id of a place. You \
                       can also set the value to '*' in manual testing to get all the available response fields.";

/// Answers a request for this path.
pub(crate) fn answer(key: &str, request: &Request) -> Answer {
    match found(key, request) {
        Ok(body) => Answer::modern(200, body.modern()),
        Err(error) => Answer::modern(error.code, error.body().modern()),
    }
}

/// Google's error for an HTTP status that the caller has chosen.
pub(crate) fn failure(code: u16) -> Answer {
    let message = match code {
        429 => {
            "Quota exceeded for quota metric 'SearchNearbyRequest' (a fault that herd-places was told to make)."
        }
        503 => "The service is currently unavailable (a fault that herd-places was told to make).",
        _ => "A fault that herd-places was told to make.",
    };
    let error = Failure {
        code,
        message: message.to_owned(),
        details: vec![],
    };
    Answer::modern(code, error.body().modern())
}

fn found(key: &str, request: &Request) -> Result<Json, Failure> {
    match request.header("X-Goog-Api-Key").unwrap_or_default() {
        "" => {
            return Err(Failure {
                code: 403,
                message: NO_KEY.to_owned(),
                details: vec![],
            });
        }
        given if given != key => return Err(Failure::wrong_key()),
        _ => {}
    }
    let mask = Mask::parse(request.header("X-Goog-FieldMask").unwrap_or_default())?;
    let search = Search::parse(&request.body)?;
    let places: Vec<Json> = invented::places(search.latitude, search.longitude, search.radius_m)
        .iter()
        .take(search.results)
        .map(place)
        .collect();
    // proto3's JSON leaves out fields with their default value, and an empty list is one: `{}`.
    let whole = if places.is_empty() {
        vec![]
    } else {
        vec![("places", Json::List(places))]
    };
    Ok(mask.keep(Json::Object(whole), &mut Vec::new()))
}

/// The parameters of a search.
#[derive(Debug, PartialEq)]
struct Search {
    latitude: f64,
    longitude: f64,
    radius_m: f64,
    results: usize,
}

impl Search {
    fn parse(body: &[u8]) -> Result<Search, Failure> {
        const KNOWN: [&str; 10] = [
            "languageCode",
            "regionCode",
            "includedTypes",
            "excludedTypes",
            "includedPrimaryTypes",
            "excludedPrimaryTypes",
            "maxResultCount",
            "locationRestriction",
            "rankPreference",
            "routingParameters",
        ];
        let body: Value = serde_json::from_slice(body).map_err(|error| {
            Failure::invalid(format!("Invalid JSON payload received. {error}."))
        })?;
        let fields = body.as_object().ok_or_else(|| {
            Failure::invalid(
                "Invalid JSON payload received. The request body must be an object.".to_owned(),
            )
        })?;
        if let Some(name) = fields.keys().find(|name| !KNOWN.contains(&name.as_str())) {
            let message = format!(
                "Invalid JSON payload received. Unknown name \"{name}\": Cannot find field."
            );
            return Err(Failure::invalid(message));
        }
        let results = match fields.get("maxResultCount") {
            None => RESULTS_MAX,
            Some(count) => count
                .as_u64()
                .filter(|count| (1..=RESULTS_MAX).contains(count))
                .ok_or_else(|| {
                    Failure::invalid(
                        "Invalid max_result_count: it must be between 1 and 20 inclusive."
                            .to_owned(),
                    )
                })?,
        };
        let circle = "/locationRestriction/circle";
        Ok(Search {
            latitude: number(&body, circle, "/center/latitude", |degrees| {
                degrees.abs() <= 90.0
            })?,
            longitude: number(&body, circle, "/center/longitude", |degrees| {
                degrees.abs() <= 180.0
            })?,
            radius_m: number(&body, circle, "/radius", |metres| {
                metres > 0.0 && metres <= RADIUS_MAX_M
            })?,
            results: results as usize,
        })
    }
}

/// A number at this path of the body, if it is a number in its range.
fn number(
    body: &Value,
    circle: &str,
    path: &str,
    fits: impl Fn(f64) -> bool,
) -> Result<f64, Failure> {
    let pointer = format!("{circle}{path}");
    let name = pointer.trim_start_matches('/').replace('/', ".");
    let value = body
        .pointer(&pointer)
        .ok_or_else(|| Failure::invalid(format!("Missing {name}.")))?;
    value
        .as_f64()
        .filter(|number| fits(*number))
        .ok_or_else(|| {
            Failure::invalid(format!("Invalid {name}: it is no number, or out of range."))
        })
}

/// The wanted fields of the answer: `*`, or paths such as `places.displayName.text`.
#[derive(Debug, PartialEq)]
enum Mask {
    Everything,
    Paths(Vec<Vec<String>>),
}

/// What may follow a field's name in a mask.
enum Below {
    /// Nothing, because the field is a plain value.
    Nothing,
    /// One of these, and nothing below it.
    Fields(&'static [&'static str]),
    /// A box: `low` or `high`, and a coordinate below them.
    Corners,
    /// Anything. This server accepts the field, never fills it, and does not know its parts.
    Anything,
}

impl Mask {
    fn parse(text: &str) -> Result<Mask, Failure> {
        if text.is_empty() {
            return Err(Failure::invalid(NO_MASK.to_owned()));
        }
        let mut paths = Vec::new();
        for path in text.split(',') {
            if path == "*" {
                // The other paths are still checked: one unknown path makes the whole mask invalid.
                paths.push(Vec::new());
            } else if is_known(path) {
                paths.push(path.split('.').map(str::to_owned).collect());
            } else {
                return Err(Failure::unknown_field(path));
            }
        }
        Ok(if paths.iter().any(Vec::is_empty) {
            Mask::Everything
        } else {
            Mask::Paths(paths)
        })
    }

    /// Returns `value` without the unwanted fields. `here` is its path in the answer.
    fn keep(&self, value: Json, here: &mut Vec<&'static str>) -> Json {
        match value {
            Json::Object(fields) => {
                let mut kept = Vec::new();
                for (name, value) in fields {
                    here.push(name);
                    if self.wants(here) {
                        kept.push((name, self.keep(value, here)));
                    }
                    here.pop();
                }
                Json::Object(kept)
            }
            Json::List(items) => Json::List(
                items
                    .into_iter()
                    .map(|item| self.keep(item, here))
                    .collect(),
            ),
            plain @ (Json::Text(_) | Json::Number(_)) => plain,
        }
    }

    /// A field is wanted if a path names it, one of its parts, or one of its parents.
    fn wants(&self, here: &[&str]) -> bool {
        match self {
            Mask::Everything => true,
            Mask::Paths(paths) => paths
                .iter()
                .any(|path| path.iter().zip(here).all(|(a, b)| a == b)),
        }
    }
}

fn is_known(path: &str) -> bool {
    let mut names = path.split('.');
    match (names.next(), names.next()) {
        (Some("places" | "routingSummaries"), None) => return true,
        (Some("places"), Some(field)) => match below(field) {
            None => return false,
            Some(Below::Nothing) => {}
            Some(Below::Anything) => return names.all(|name| !name.is_empty()),
            Some(Below::Fields(known)) => match names.next() {
                None => return true,
                Some(name) if !known.contains(&name) => return false,
                Some(_) => {}
            },
            Some(Below::Corners) => match (names.next(), names.next()) {
                (None, _) | (Some("low" | "high"), None | Some("latitude" | "longitude")) => {}
                (Some(_), _) => return false,
            },
        },
        (_, _) => return false,
    }
    names.next().is_none()
}

/// The fields of a `Place`
/// (<https://developers.google.com/maps/documentation/places/web-service/reference/rest/v1/places>).
fn below(field: &str) -> Option<Below> {
    match field {
        "name"
        | "id"
        | "types"
        | "primaryType"
        | "formattedAddress"
        | "shortFormattedAddress"
        | "rating"
        | "userRatingCount"
        | "businessStatus"
        | "iconMaskBaseUri"
        | "iconBackgroundColor"
        | "googleMapsUri" => Some(Below::Nothing),
        "displayName" | "primaryTypeDisplayName" => Some(Below::Fields(&["text", "languageCode"])),
        "location" => Some(Below::Fields(&["latitude", "longitude"])),
        "plusCode" => Some(Below::Fields(&["globalCode", "compoundCode"])),
        "viewport" => Some(Below::Corners),
        // Google has these fields, but this server never fills them.
        "nationalPhoneNumber"
        | "internationalPhoneNumber"
        | "websiteUri"
        | "utcOffsetMinutes"
        | "adrFormatAddress"
        | "priceLevel"
        | "takeout"
        | "delivery"
        | "dineIn"
        | "curbsidePickup"
        | "reservable"
        | "servesBreakfast"
        | "servesLunch"
        | "servesDinner"
        | "servesBeer"
        | "servesWine"
        | "servesBrunch"
        | "servesVegetarianFood"
        | "servesCocktails"
        | "servesDessert"
        | "servesCoffee"
        | "outdoorSeating"
        | "liveMusic"
        | "menuForChildren"
        | "goodForChildren"
        | "allowsDogs"
        | "restroom"
        | "goodForGroups"
        | "goodForWatchingSports"
        | "pureServiceAreaBusiness" => Some(Below::Nothing),
        "addressComponents"
        | "postalAddress"
        | "regularOpeningHours"
        | "currentOpeningHours"
        | "regularSecondaryOpeningHours"
        | "currentSecondaryOpeningHours"
        | "timeZone"
        | "photos"
        | "reviews"
        | "attributions"
        | "editorialSummary"
        | "paymentOptions"
        | "parkingOptions"
        | "subDestinations"
        | "fuelOptions"
        | "evChargeOptions"
        | "accessibilityOptions"
        | "generativeSummary"
        | "containingPlaces"
        | "addressDescriptor"
        | "googleMapsLinks"
        | "priceRange"
        | "reviewSummary"
        | "evChargeAmenitySummary"
        | "neighborhoodSummary" => Some(Below::Anything),
        _ => None,
    }
}

/// An error in Google's format (google.rpc.Status).
#[derive(Debug)]
struct Failure {
    code: u16,
    message: String,
    details: Vec<Json>,
}

impl Failure {
    fn invalid(message: String) -> Failure {
        Failure {
            code: 400,
            message,
            details: vec![],
        }
    }

    fn wrong_key() -> Failure {
        let info = Json::Object(vec![
            (
                "@type",
                Json::text("type.googleapis.com/google.rpc.ErrorInfo"),
            ),
            ("reason", Json::text("API_KEY_INVALID")),
            ("domain", Json::text("googleapis.com")),
            (
                "metadata",
                Json::Object(vec![("service", Json::text("places.googleapis.com"))]),
            ),
        ]);
        let message = Json::Object(vec![
            (
                "@type",
                Json::text("type.googleapis.com/google.rpc.LocalizedMessage"),
            ),
            ("locale", Json::text("en-US")),
            ("message", Json::text(WRONG_KEY)),
        ]);
        Failure {
            code: 400,
            message: WRONG_KEY.to_owned(),
            details: vec![info, message],
        }
    }

    fn unknown_field(path: &str) -> Failure {
        let description = format!(
            "Error expanding 'fields' parameter. Cannot find matching fields for path '{path}'."
        );
        let violation = Json::Object(vec![
            ("field", Json::text(path)),
            ("description", Json::Text(description)),
        ]);
        let bad_request = Json::Object(vec![
            (
                "@type",
                Json::text("type.googleapis.com/google.rpc.BadRequest"),
            ),
            ("fieldViolations", Json::List(vec![violation])),
        ]);
        Failure {
            code: 400,
            message: "Request contains an invalid argument.".to_owned(),
            details: vec![bad_request],
        }
    }

    fn body(&self) -> Json {
        let mut error = vec![
            ("code", Json::Number(f64::from(self.code))),
            ("message", Json::text(&self.message)),
            ("status", Json::text(canonical(self.code))),
        ];
        if !self.details.is_empty() {
            error.push(("details", Json::List(self.details.clone())));
        }
        Json::Object(vec![("error", Json::Object(error))])
    }
}

/// The name of an HTTP status in google.rpc.Code.
fn canonical(code: u16) -> &'static str {
    match code {
        400 => "INVALID_ARGUMENT",
        401 => "UNAUTHENTICATED",
        403 => "PERMISSION_DENIED",
        404 => "NOT_FOUND",
        409 => "ABORTED",
        429 => "RESOURCE_EXHAUSTED",
        499 => "CANCELLED",
        500 => "INTERNAL",
        501 => "UNIMPLEMENTED",
        503 => "UNAVAILABLE",
        504 => "DEADLINE_EXCEEDED",
        _ => "UNKNOWN",
    }
}

fn place(place: &Place) -> Json {
    let spot = |latitude, longitude| {
        Json::Object(vec![
            ("latitude", Json::Number(latitude)),
            ("longitude", Json::Number(longitude)),
        ])
    };
    let words = |text: &str| {
        Json::Object(vec![
            ("text", Json::text(text)),
            ("languageCode", Json::text("en")),
        ])
    };
    let viewport = place.viewport();
    let (plus_code, short_code) = place.plus_code();
    Json::Object(vec![
        ("name", Json::Text(format!("places/{}", place.id))),
        ("id", Json::text(&place.id)),
        ("types", Json::texts(place.kind.types)),
        (
            "formattedAddress",
            Json::Text(format!("{}, Fictionland", place.address)),
        ),
        (
            "plusCode",
            Json::Object(vec![
                ("globalCode", Json::Text(plus_code)),
                (
                    "compoundCode",
                    Json::Text(format!("{short_code} Nowhere, Fictionland")),
                ),
            ]),
        ),
        ("location", spot(place.latitude, place.longitude)),
        (
            "viewport",
            Json::Object(vec![
                ("low", spot(viewport.south, viewport.west)),
                ("high", spot(viewport.north, viewport.east)),
            ]),
        ),
        ("rating", Json::Number(place.rating)),
        ("businessStatus", Json::text("OPERATIONAL")),
        ("userRatingCount", Json::Number(place.ratings as f64)),
        (
            "iconMaskBaseUri",
            Json::Text(format!(
                "https://maps.gstatic.com/mapfiles/place_api/icons/v2/{}_pinlet",
                place.kind.icon
            )),
        ),
        ("iconBackgroundColor", Json::text(place.kind.colour)),
        ("displayName", words(&place.name)),
        ("primaryTypeDisplayName", words(place.kind.title)),
        ("primaryType", Json::text(place.kind.types[0])),
        ("shortFormattedAddress", Json::text(&place.address)),
    ])
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may fail")]
    use super::*;

    #[test]
    fn field_masks_are_accepted_as_by_google() {
        for good in [
            "*",
            "places",
            "places.id",
            "places.displayName,places.location,places.id,places.formattedAddress,places.types",
            "places.displayName.text",
            "places.viewport.low.latitude",
            "places.regularOpeningHours.openNow",
            "routingSummaries",
        ] {
            assert!(Mask::parse(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            " ",
            "places.id, places.types",
            "places.id,",
            ",",
            "displayName",
            "places.colour",
            "places.id.x",
            "places.displayName.text.x",
            "places.displayName.colour",
            "places.viewport.middle",
            "places.viewport.low.latitude.x",
            "places.photos.",
            "places.*",
            "*,places.colour",
        ] {
            assert!(Mask::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_field_mask_keeps_the_named_fields() {
        let whole = Json::Object(vec![(
            "places",
            Json::List(vec![
                place(&invented::places(1.0, 2.0, 3.0)[0]),
                place(&invented::places(1.0, 2.0, 3.0)[1]),
            ]),
        )]);
        let kept = |mask: &str| {
            Mask::parse(mask)
                .unwrap()
                .keep(whole.clone(), &mut Vec::new())
        };
        let names = |kept: Json| -> Vec<String> {
            let parsed: Value = serde_json::from_str(&kept.modern()).unwrap();
            parsed["places"][1]
                .as_object()
                .unwrap()
                .keys()
                .cloned()
                .collect()
        };
        assert_eq!(kept("*"), whole);
        assert_eq!(kept("places"), whole);
        assert_eq!(
            names(kept("places.id,places.displayName.text")),
            ["displayName", "id"]
        );
        let text: Value = serde_json::from_str(&kept("places.displayName.text").modern()).unwrap();
        assert_eq!(
            text["places"][0]["displayName"].as_object().unwrap().len(),
            1
        );
        assert_eq!(kept("routingSummaries"), Json::Object(vec![]));
    }

    #[test]
    fn bodies() {
        let circle = r#""locationRestriction":{"circle":{"center":{"latitude":1.5,"longitude":-2},"radius":500}}"#;
        let search =
            Search::parse(format!(r#"{{"maxResultCount":7,{circle}}}"#).as_bytes()).unwrap();
        assert_eq!(
            search,
            Search {
                latitude: 1.5,
                longitude: -2.0,
                radius_m: 500.0,
                results: 7
            }
        );
        assert_eq!(
            Search::parse(format!("{{{circle}}}").as_bytes())
                .unwrap()
                .results,
            20
        );
        for bad in [
            "",
            "[]",
            "{",
            "{}",
            r#"{"locationRestriction":{"circle":{"center":{"latitude":1.5,"longitude":-2}}}}"#,
            &format!(r#"{{"maxResultCount":0,{circle}}}"#),
            &format!(r#"{{"maxResultCount":21,{circle}}}"#),
            &format!(r#"{{"maxResultCount":"7",{circle}}}"#),
            &format!(r#"{{"colour":"red",{circle}}}"#),
            &format!("{{{}}}", circle.replace("500", "50001")),
            &format!("{{{}}}", circle.replace("500", "0")),
            &format!("{{{}}}", circle.replace("1.5", "90.1")),
        ] {
            assert_eq!(
                Search::parse(bad.as_bytes()).unwrap_err().code,
                400,
                "{bad}"
            );
        }
    }
}
