//! What a client is told about what is near: Google's own text, cut to the bound, or an error in Google's shape.
//!
//! Google's layout varies, so its text is never written anew: serde_json only says where a value begins and ends.

use std::fmt;
use std::ops::Range;

use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::core::settings::PlacesApi;

/// How a call to Places ended, for all who wait for it: the answer is cut once for each bound, not once for each client.
pub struct Outcome {
    api: PlacesApi,
    answer: Result<String, String>,
    cuts: Vec<(u8, String)>,
}

impl Outcome {
    /// Google's own text, or why there is none, in words that a client can act on.
    #[must_use]
    pub fn new(api: PlacesApi, answer: Result<String, String>) -> Outcome {
        Outcome {
            api,
            answer,
            cuts: Vec::new(),
        }
    }

    /// Whether it is Google's own text.
    #[must_use]
    pub fn is_google_s(&self) -> bool {
        self.answer.is_ok()
    }

    /// The JSON for a client that wants at most `bound` places.
    pub fn json(&mut self, bound: u8) -> &str {
        let place = self
            .cuts
            .iter()
            .position(|(cut, _)| *cut == bound)
            .unwrap_or_else(|| {
                let json = match &self.answer {
                    Ok(text) => answer(text, self.api, bound).unwrap_or_else(|NotJson| {
                        error("Google Places answered with something that is not JSON")
                    }),
                    Err(reason) => error(reason),
                };
                self.cuts.push((bound, json));
                self.cuts.len() - 1
            });
        &self.cuts[place].1
    }
}

/// The text is not a JSON object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotJson;

/// Google's answer for one client: at most `bound` elements of its list of places, no two newlines in a row, none at the end.
///
/// ```
/// use herd_mio::core::{places::answer::answer, settings::PlacesApi};
///
/// let google = "{\n   \"results\" : [\n      1,\n\n      2, 3\n   ],\n   \"status\" : \"OK\"\n}\n";
/// let ours = answer(google, PlacesApi::Legacy, 2).unwrap();
/// assert_eq!(ours, "{\n   \"results\" : [\n      1,\n      2\n   ],\n   \"status\" : \"OK\"\n}");
/// ```
///
/// # Errors
/// Google's text is not a JSON object.
pub fn answer(text: &str, api: PlacesApi, bound: u8) -> Result<String, NotJson> {
    let surplus = surplus(text, api, usize::from(bound))?;
    let mut kept = String::with_capacity(text.len());
    let mut from = 0;
    for cut in surplus {
        push_without_blank_lines(&mut kept, &text[from..cut.start]);
        from = cut.end;
    }
    push_without_blank_lines(&mut kept, &text[from..]);
    kept.truncate(kept.trim_end_matches('\n').len());
    Ok(kept)
}

/// Appends `text`, each run of newlines as one.
fn push_without_blank_lines(kept: &mut String, text: &str) {
    for line in text.split_inclusive('\n') {
        if line != "\n" || !kept.ends_with('\n') {
            kept.push_str(line);
        }
    }
}

/// Whether the text is one JSON object.
#[must_use]
pub fn is_json_object(text: &str) -> bool {
    surplus(text, PlacesApi::Legacy, usize::MAX).is_ok()
}

/// The server's own answer where there is none of Google's: an error in Google's shape, in words a client can act on.
///
/// ```
/// use herd_mio::core::places::answer::error;
///
/// assert_eq!(
///     error("a \"quoted\" reason"),
///     r#"{"html_attributions" : [], "results" : [], "status" : "UNKNOWN_ERROR", "error_message" : "a \"quoted\" reason"}"#,
/// );
/// ```
#[must_use]
pub fn error(message: &str) -> String {
    let message = serde_json::Value::from(message);
    format!(
        r#"{{"html_attributions" : [], "results" : [], "status" : "UNKNOWN_ERROR", "error_message" : {message}}}"#
    )
}

/// Which parts of the text are list elements beyond the bound, each with the comma before it.
fn surplus(text: &str, api: PlacesApi, bound: usize) -> Result<Vec<Range<usize>>, NotJson> {
    let list_key = match api {
        PlacesApi::Legacy => "results",
        PlacesApi::New => "places",
    };
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let lists = deserializer
        .deserialize_map(ListFinder(list_key))
        .map_err(|_| NotJson)?;
    deserializer.end().map_err(|_| NotJson)?;
    Ok(lists
        .into_iter()
        .filter_map(|list| {
            let elements: Vec<&RawValue> = serde_json::from_str(list).ok()?;
            let last_kept = elements.get(bound.checked_sub(1)?)?;
            let last = elements.last()?;
            (elements.len() > bound).then(|| end(text, last_kept.get())..end(text, last.get()))
        })
        .collect())
}

/// Where `part`, a piece of `text` itself, ends in it.
fn end(text: &str, part: &str) -> usize {
    part.as_ptr() as usize - text.as_ptr() as usize + part.len()
}

/// Collects the texts of the values of one key of an object.
struct ListFinder(&'static str);

impl<'de> Visitor<'de> for ListFinder {
    type Value = Vec<&'de str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Vec<&'de str>, A::Error> {
        let mut lists = Vec::new();
        while let Some(key) = map.next_key::<std::borrow::Cow<'de, str>>()? {
            if key == self.0 {
                lists.push(map.next_value::<&RawValue>()?.get());
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(lists)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn only_the_list_at_the_top_is_cut() {
        let text = r#"{"a":{"results":[1,2,3]},"results":[ {"results":[1,2]} , [2,"]"] ,3 ],"places":[1,2]}"#;
        assert_eq!(
            answer(text, PlacesApi::Legacy, 2).unwrap(),
            r#"{"a":{"results":[1,2,3]},"results":[ {"results":[1,2]} , [2,"]"] ],"places":[1,2]}"#
        );
        assert_eq!(
            answer(text, PlacesApi::New, 1).unwrap(),
            r#"{"a":{"results":[1,2,3]},"results":[ {"results":[1,2]} , [2,"]"] ,3 ],"places":[1]}"#
        );
        assert_eq!(answer(text, PlacesApi::Legacy, 3).unwrap(), text);
        assert_eq!(
            answer(r#"{"r\u0065sults":[1,2]}"#, PlacesApi::Legacy, 1).unwrap(),
            r#"{"r\u0065sults":[1]}"#
        );
        assert_eq!(
            answer(r#"{"results":[1,2],"results":[3,4]}"#, PlacesApi::Legacy, 1).unwrap(),
            r#"{"results":[1],"results":[3]}"#
        );
        assert_eq!(
            answer(r#"{"results":{"a":1}}"#, PlacesApi::Legacy, 1).unwrap(),
            r#"{"results":{"a":1}}"#
        );
    }

    #[test]
    fn newlines_never_look_like_the_end_of_an_answer() {
        assert_eq!(
            answer("{\n\n\n\"a\" :\n1\n\n}\n\n\n", PlacesApi::Legacy, 1).unwrap(),
            "{\n\"a\" :\n1\n}"
        );
        assert_eq!(
            answer(
                "{\"results\":[1\n\n,2\n],\n\n\"b\":1}",
                PlacesApi::Legacy,
                1
            )
            .unwrap(),
            "{\"results\":[1\n],\n\"b\":1}"
        );
        assert_eq!(
            answer("{\"results\":[\n1\n,2],\n\n\"b\":1}", PlacesApi::Legacy, 1).unwrap(),
            "{\"results\":[\n1],\n\"b\":1}"
        );
        assert_eq!(answer("\n\n{}\n", PlacesApi::New, 1).unwrap(), "\n{}");
    }

    #[test]
    fn what_is_not_a_json_object_is_no_answer() {
        for bad in [
            "",
            "[]",
            "1",
            "<html>",
            "{",
            "{}x",
            "{\"results\":[1,}",
            "{\"a\":\"\u{1}\"}",
            "{\"a\":1,}",
            "null",
        ] {
            assert_eq!(answer(bad, PlacesApi::Legacy, 1), Err(NotJson), "{bad}");
        }
        let deep = format!("{{\"a\":{}1{}}}", "[".repeat(100_000), "]".repeat(100_000));
        assert!(
            answer(&deep, PlacesApi::Legacy, 1).is_ok_and(|text| text == deep)
                || answer(&deep, PlacesApi::Legacy, 1) == Err(NotJson)
        );
    }

    proptest! {
        #[test]
        fn the_cut_keeps_exactly_the_first_elements(elements in proptest::collection::vec("[a-z\\]\\[{},]{0,8}", 0..25), bound in 1u8..=20, space in "[ \n]{0,3}") {
            let list: Vec<String> = elements.iter().map(|e| format!("{space}{}{space}", serde_json::json!({"name": e}))).collect();
            let text = format!("{{{space}\"results\"{space}:{space}[{}]{space},\"status\":\"OK\"}}", list.join(","));
            let ours = answer(&text, PlacesApi::Legacy, bound).unwrap();
            prop_assert!(!ours.contains("\n\n") && !ours.ends_with('\n'));
            let (mut expected, ours): (serde_json::Value, serde_json::Value) = (serde_json::from_str(&text).unwrap(), serde_json::from_str(&ours).unwrap());
            expected["results"].as_array_mut().unwrap().truncate(usize::from(bound));
            prop_assert_eq!(ours, expected);
        }
    }
}
