//! Workloads in which a response of Google Places is read, or its list is cut for a client.

use std::fmt::Write as _;
use std::hint::black_box;

use herd_mio::core::base::limits::Limits;
use herd_mio::core::base::settings::PlacesApi;
use herd_mio::core::places::answer::answer;
use herd_mio::core::places::response::Response;
use serde_json::Value;

use crate::crowd::Random;
use crate::workload::{Failure, Workload};

/// The number of results in a response of Google.
const RESULTS: usize = 20;
/// Bytes of one HTTP chunk, a usual size for web servers.
const CHUNK_BYTES: usize = 8_192;

/// A response body like those of Google's legacy Nearby Search, with the same white space: about 30
/// KB.
fn body() -> String {
    let mut random = Random::new(2022);
    let mut text = String::from("{\n   \"html_attributions\" : [],\n   \"results\" : [\n");
    for number in 0..RESULTS {
        let (latitude, longitude) = (34.0 + degrees(&mut random), -118.0 - degrees(&mut random));
        let id = letters(&mut random, 23);
        // Every other place has photos.
        let photos = match number % 2 {
            0 => photos(&letters(&mut random, 170)),
            _ => String::new(),
        };
        let separator = if number + 1 < RESULTS { "," } else { "" };
        let rating = random.below(50);
        // Writing into a String never fails.
        let _ = write!(
            text,
            r##"      {{
         "business_status" : "OPERATIONAL",
         "geometry" : {{
            "location" : {{
               "lat" : {latitude:.7},
               "lng" : {longitude:.7}
            }},
            "viewport" : {{
               "northeast" : {{
                  "lat" : {:.7},
                  "lng" : {:.7}
               }},
               "southwest" : {{
                  "lat" : {:.7},
                  "lng" : {:.7}
               }}
            }}
         }},
         "icon" : "https://maps.gstatic.com/mapfiles/place_api/icons/v1/png_71/restaurant-71.png",
         "icon_background_color" : "#FF9E67",
         "icon_mask_base_uri" : "https://maps.gstatic.com/mapfiles/place_api/icons/v2/restaurant_pinlet",
         "name" : "Caf\u00e9 \"Number {number}\" (fictional)",
         "opening_hours" : {{
            "open_now" : true
         }},
{photos}         "place_id" : "ChIJ{id}",
         "price_level" : 2,
         "rating" : {}.{},
         "reference" : "ChIJ{id}",
         "scope" : "GOOGLE",
         "types" : [ "restaurant", "food", "point_of_interest", "establishment" ],
         "user_ratings_total" : {},
         "vicinity" : "{} Nowhere Avenue, Los Angeles"
      }}{separator}
"##,
            latitude + 0.0013,
            longitude + 0.0013,
            latitude - 0.0013,
            longitude - 0.0013,
            rating / 10,
            rating % 10,
            random.below(5_000),
            random.below(20_000),
        );
    }
    text.push_str("   ],\n   \"status\" : \"OK\"\n}\n");
    text
}

fn photos(reference: &str) -> String {
    format!(
        r#"         "photos" : [
            {{
               "height" : 3024,
               "html_attributions" : [
                  "\u003ca href=\"https://maps.google.com/maps/contrib/1234567890\"\u003eA Contributor\u003c/a\u003e"
               ],
               "photo_reference" : "{reference}",
               "width" : 4032
            }}
         ],
"#
    )
}

fn degrees(random: &mut Random) -> f64 {
    random.below(10_000_000) as f64 / 10_000_000.0
}

fn letters(random: &mut Random, count: usize) -> String {
    let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    (0..count)
        .map(|_| char::from(alphabet[random.below(64) as usize]))
        .collect()
}

/// How the response marks the end of its body.
#[derive(Clone, Copy)]
pub(crate) enum Framing {
    Length,
    Chunked,
}

/// One response, cut into the pieces that the server reads.
pub(crate) struct Http {
    pieces: Vec<Vec<u8>>,
    body: String,
    limits: Limits,
    response: Option<Response>,
}

impl Http {
    pub(crate) fn new(framing: Framing, piece_bytes: usize) -> Http {
        let body = body();
        let mut bytes = b"HTTP/1.1 200 OK\r\nContent-Type: application/json; charset=UTF-8\r\n\
            Date: Thu, 20 May 2021 00:00:00 GMT\r\nExpires: Thu, 20 May 2021 00:05:00 GMT\r\nCache-Control: public, max-age=300\r\n\
            Vary: Accept-Language\r\nServer: scaffolding on HTTPServer2\r\nX-XSS-Protection: 0\r\nX-Frame-Options: SAMEORIGIN\r\n\
            Alt-Svc: h3=\":443\"; ma=2592000\r\n"
            .to_vec();
        match framing {
            Framing::Length => {
                bytes.extend_from_slice(
                    format!("Content-Length: {}\r\n\r\n", body.len()).as_bytes(),
                );
                bytes.extend_from_slice(body.as_bytes());
            }
            Framing::Chunked => {
                bytes.extend_from_slice(b"Transfer-Encoding: chunked\r\n\r\n");
                for chunk in body.as_bytes().chunks(CHUNK_BYTES) {
                    bytes.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
                    bytes.extend_from_slice(chunk);
                    bytes.extend_from_slice(b"\r\n");
                }
                bytes.extend_from_slice(b"0\r\n\r\n");
            }
        }
        let piece_bytes = piece_bytes.min(bytes.len());
        Http {
            pieces: bytes.chunks(piece_bytes).map(<[u8]>::to_vec).collect(),
            body,
            limits: Limits::default(),
            response: None,
        }
    }
}

impl Workload for Http {
    fn operations(&self) -> u64 {
        1
    }

    fn prepare(&mut self) -> Result<(), Failure> {
        self.response = None;
        Ok(())
    }

    fn pass(&mut self) {
        let mut response = Response::new(&self.limits);
        let is_good = self
            .pieces
            .iter()
            .all(|piece| response.data_received(black_box(piece)).is_ok());
        self.response = is_good.then_some(response);
    }

    fn check(&mut self) -> Result<(), Failure> {
        let response = self
            .response
            .as_ref()
            .ok_or("the response cannot be parsed")?;
        let is_right = response.is_done()
            && response.status() == 200
            && response.keep_alive()
            && response.body() == self.body.as_bytes();
        is_right
            .then_some(())
            .ok_or_else(|| "the body is wrong".into())
    }
}

/// Google's list, cut to `bound` results for a client.
pub(crate) struct Cut {
    body: String,
    bound: u8,
    cut: Option<String>,
}

impl Cut {
    pub(crate) fn new(bound: u8) -> Cut {
        Cut {
            body: body(),
            bound,
            cut: None,
        }
    }
}

impl Workload for Cut {
    fn operations(&self) -> u64 {
        1
    }

    fn prepare(&mut self) -> Result<(), Failure> {
        self.cut = None;
        Ok(())
    }

    fn pass(&mut self) {
        self.cut = answer(black_box(&self.body), PlacesApi::Legacy, self.bound).ok();
    }

    fn check(&mut self) -> Result<(), Failure> {
        let cut = self.cut.as_ref().ok_or("the response cannot be parsed")?;
        let read = |text: &str| serde_json::from_str(text).map_err(|error| error.to_string());
        let (mut expected, found): (Value, Value) = (read(&self.body)?, read(cut)?);
        if let Some(results) = expected["results"].as_array_mut() {
            results.truncate(self.bound.into());
        }
        let is_right = found == expected && !cut.contains("\n\n");
        is_right
            .then_some(())
            .ok_or_else(|| "the list is wrong".into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_places_body_has_its_documented_size() {
        let body = body();
        assert!((28_000..=32_000).contains(&body.len()), "{}", body.len());
        let value: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(value["results"].as_array().map(Vec::len), Some(RESULTS));
    }
}
