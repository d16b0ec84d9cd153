//! The legacy Nearby Search: `GET /maps/api/place/nearbysearch/json`.
//!
//! Errors are in the body's `status`, and the HTTP status is always 200. Where Google documents
//! nothing, this server takes the stricter choice:
//!
//! - a radius above 50,000 m is an `INVALID_REQUEST`, which detects a mix-up of kilometres and
//!   metres;
//! - a page token is valid at once and for ever, and overrides the other parameters, as Google
//!   documents. Google's tokens become valid after a few seconds;
//! - `rankby`, `type`, `keyword` and all others are ignored.

use crate::http::{Answer, query};
use crate::invented::{self, Place, checksum};
use crate::json::Json;

/// The path of this API.
pub(crate) const PATH: &str = "/maps/api/place/nearbysearch/json";

const PAGE: usize = 20;
const RADIUS_MAX_M: f64 = 50_000.0;
const NO_KEY: &str = "You must use an API key to authenticate each request to Google Maps Platform APIs. \
                      For additional information, please refer to http://g.co/dev/maps-no-account";
const WRONG_KEY: &str = "The provided API key is invalid.";

/// Answers a request for this path. `target` is the path with its query.
pub(crate) fn answer(key: &str, target: &str) -> Answer {
    let parameters = query(target);
    let parameter = |name: &str| {
        parameters
            .iter()
            .find(|(found, _)| found == name)
            .map(|(_, value)| value.as_str())
            .filter(|v| !v.is_empty())
    };
    let body = match parameter("key") {
        None => failure("REQUEST_DENIED", NO_KEY),
        Some(given) if given != key => failure("REQUEST_DENIED", WRONG_KEY),
        Some(_) => match search(
            parameter("pagetoken"),
            parameter("location"),
            parameter("radius"),
        ) {
            Ok(search) => found(&search),
            Err(message) => failure("INVALID_REQUEST", message),
        },
    };
    Answer::legacy(body.legacy())
}

/// The parameters of a search.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Search {
    latitude: f64,
    longitude: f64,
    radius_m: f64,
    /// 0, 1 or 2.
    page: usize,
}

fn search(
    token: Option<&str>,
    location: Option<&str>,
    radius: Option<&str>,
) -> Result<Search, &'static str> {
    if let Some(token) = token {
        return Search::from_token(token).ok_or("Invalid value for the 'pagetoken' parameter.");
    }
    let location = location.ok_or("Missing the 'location' parameter.")?;
    let (latitude, longitude) =
        coordinates(location).ok_or("Invalid value for the 'location' parameter.")?;
    let radius = radius.ok_or("Missing the 'radius' parameter.")?;
    let radius_m = decimal(radius)
        .filter(|metres| *metres > 0.0 && *metres <= RADIUS_MAX_M)
        .ok_or("Invalid value for the 'radius' parameter: it must be above 0 and at most 50000 metres.")?;
    Ok(Search {
        latitude,
        longitude,
        radius_m,
        page: 0,
    })
}

/// Parses `<lat>,<lng>`. An unescaped `+` in a query stands for a space, so spaces are trimmed.
fn coordinates(text: &str) -> Option<(f64, f64)> {
    let (latitude, longitude) = text.split_once(',')?;
    let (latitude, longitude) = (decimal(latitude.trim())?, decimal(longitude.trim())?);
    (latitude.abs() <= 90.0 && longitude.abs() <= 180.0).then_some((latitude, longitude))
}

/// Parses a plain decimal. Other forms that `f64` accepts (`nan`, `inf`, `1e3`) are refused.
fn decimal(text: &str) -> Option<f64> {
    let plain = text
        .bytes()
        .all(|byte| byte.is_ascii_digit() || b"+-.".contains(&byte));
    text.parse().ok().filter(|_| plain)
}

impl Search {
    /// A token holds the whole search, so that the server need not store it: a prefix, then the
    /// numbers and a checksum in hexadecimal. To a client it is opaque, as Google's is.
    fn token(&self) -> String {
        let numbers = self.numbers();
        let mut token = String::from("fictional-");
        for number in numbers.iter().chain([&checksum(&numbers)]) {
            token.push_str(&format!("{number:016x}"));
        }
        token
    }

    fn from_token(token: &str) -> Option<Search> {
        let digits = token
            .strip_prefix("fictional-")
            .filter(|digits| digits.is_ascii() && digits.len() == 5 * 16)?;
        let number =
            |index: usize| u64::from_str_radix(&digits[index * 16..(index + 1) * 16], 16).ok();
        let search = Search {
            latitude: f64::from_bits(number(0)?),
            longitude: f64::from_bits(number(1)?),
            radius_m: f64::from_bits(number(2)?),
            page: usize::try_from(number(3)?).ok()?,
        };
        (number(4)? == checksum(&search.numbers())).then_some(search)
    }

    fn numbers(&self) -> [u64; 4] {
        [
            self.latitude.to_bits(),
            self.longitude.to_bits(),
            self.radius_m.to_bits(),
            self.page as u64,
        ]
    }
}

fn found(search: &Search) -> Json {
    let places = invented::places(search.latitude, search.longitude, search.radius_m);
    let results: Vec<Json> = places
        .iter()
        .skip(search.page * PAGE)
        .take(PAGE)
        .map(result)
        .collect();
    let status = if results.is_empty() {
        "ZERO_RESULTS"
    } else {
        "OK"
    };
    let mut fields = vec![("html_attributions", Json::List(vec![]))];
    if places.len() > (search.page + 1) * PAGE {
        let next = Search {
            page: search.page + 1,
            ..*search
        };
        fields.push(("next_page_token", Json::Text(next.token())));
    }
    fields.push(("results", Json::List(results)));
    fields.push(("status", Json::text(status)));
    Json::Object(fields)
}

fn failure(status: &str, message: &str) -> Json {
    Json::Object(vec![
        ("error_message", Json::text(message)),
        ("html_attributions", Json::List(vec![])),
        ("results", Json::List(vec![])),
        ("status", Json::text(status)),
    ])
}

fn result(place: &Place) -> Json {
    let spot = |latitude, longitude| {
        Json::Object(vec![
            ("lat", Json::Number(latitude)),
            ("lng", Json::Number(longitude)),
        ])
    };
    let viewport = place.viewport();
    let (plus_code, short_code) = place.plus_code();
    let icons = "https://maps.gstatic.com/mapfiles/place_api/icons";
    Json::Object(vec![
        ("business_status", Json::text("OPERATIONAL")),
        (
            "geometry",
            Json::Object(vec![
                ("location", spot(place.latitude, place.longitude)),
                (
                    "viewport",
                    Json::Object(vec![
                        ("northeast", spot(viewport.north, viewport.east)),
                        ("southwest", spot(viewport.south, viewport.west)),
                    ]),
                ),
            ]),
        ),
        (
            "icon",
            Json::Text(format!("{icons}/v1/png_71/{}-71.png", place.kind.icon)),
        ),
        ("icon_background_color", Json::text(place.kind.colour)),
        (
            "icon_mask_base_uri",
            Json::Text(format!("{icons}/v2/{}_pinlet", place.kind.icon)),
        ),
        ("name", Json::text(&place.name)),
        ("place_id", Json::text(&place.id)),
        (
            "plus_code",
            Json::Object(vec![
                ("compound_code", Json::Text(format!("{short_code} Nowhere"))),
                ("global_code", Json::Text(plus_code)),
            ]),
        ),
        ("rating", Json::Number(place.rating)),
        ("reference", Json::text(&place.id)),
        ("scope", Json::text("GOOGLE")),
        ("types", Json::texts(place.kind.types)),
        ("user_ratings_total", Json::Number(place.ratings as f64)),
        ("vicinity", Json::text(&place.address)),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locations_and_radii_are_parsed() {
        assert_eq!(coordinates("34.0689,-118.4452"), Some((34.0689, -118.4452)));
        assert_eq!(
            coordinates(" 34.0689,-118.4452"),
            Some((34.0689, -118.4452)),
            "a + that became a space"
        );
        for bad in [
            "", "34", "34,", "34;5", "91,0", "0,181", "nan,0", "1e1,0", "34,5,6", "lat,lng",
        ] {
            assert_eq!(coordinates(bad), None, "{bad}");
        }
        for bad in ["0", "-1", "50000.1", "nan", "inf", "1e3", "1km"] {
            assert!(search(None, Some("1,2"), Some(bad)).is_err(), "{bad}");
        }
        assert!(search(None, Some("1,2"), Some("50000")).is_ok());
    }

    #[test]
    fn a_page_token_restores_its_search_and_a_forged_one_fails() {
        let search = Search {
            latitude: -33.86,
            longitude: 151.2,
            radius_m: 1_500.0,
            page: 2,
        };
        let token = search.token();
        assert_eq!(Search::from_token(&token), Some(search));
        let forged = token.replacen("fictional-c", "fictional-4", 1);
        assert_ne!(forged, token);
        for bad in [forged.as_str(), &token[1..], "", "fictional-", "CqQCHAEAAO"] {
            assert_eq!(Search::from_token(bad), None, "{bad}");
        }
    }
}
