//! The JSON that a client gets for a `WHATSAT`: Google's own text with at most `bound` places, or
//! an error in Google's format.
//!
//! The layout of Google's JSON varies, and clients get the layout unchanged. So the JSON is not
//! parsed and serialized again. serde_json only finds where a value begins and ends. Then parts of
//! the text are cut out.

use std::fmt;
use std::ops::Range;

use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::core::base::settings::PlacesApi;

/// A response of Google's that is passed on to clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// Data of Google Places. The list of places in it is cut to each client's bound.
    Data(String),
    /// An error. Its text is not cut.
    Error(String),
}

/// Why there is no response from Google that can be passed on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlacesError {
    /// The kind of the failure.
    pub kind: ErrorKind,
    /// What went wrong, and what to do about it.
    pub message: String,
}

/// The kinds of failures. Each has a code of the New API: see [`ErrorKind::code`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// This server has no key for Google Places.
    NoKey,
    /// Too many questions are waiting for Google Places.
    Busy,
    /// This server may not ask Google Places more questions for now.
    OverQuota,
    /// Google Places cannot be reached, or this server is stopping.
    Unavailable,
    /// No answer came in time.
    TimedOut,
    /// The response of Google Places cannot be used.
    BadAnswer,
}

impl ErrorKind {
    /// Returns the HTTP status and the name of the google.rpc.Code for an error of the New API.
    #[must_use]
    pub fn code(self) -> (u16, &'static str) {
        match self {
            ErrorKind::NoKey => (403, "PERMISSION_DENIED"),
            ErrorKind::Busy | ErrorKind::OverQuota => (429, "RESOURCE_EXHAUSTED"),
            ErrorKind::Unavailable => (503, "UNAVAILABLE"),
            ErrorKind::TimedOut => (504, "DEADLINE_EXCEEDED"),
            ErrorKind::BadAnswer => (500, "INTERNAL"),
        }
    }

    /// Creates an error of this kind.
    #[must_use]
    pub fn error(self, message: impl Into<String>) -> PlacesError {
        PlacesError {
            kind: self,
            message: message.into(),
        }
    }
}

impl fmt::Display for PlacesError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// The result of a call, which is one question to Places, for all clients that asked it. The answer
/// is cut once for each different bound, not once for each client.
pub struct Outcome {
    api: PlacesApi,
    answer: Result<Reply, PlacesError>,
    cuts: Vec<(u8, String)>,
}

impl Outcome {
    /// Creates the outcome from Google's own text, or from the reason why there is none.
    #[must_use]
    pub fn new(api: PlacesApi, answer: Result<Reply, PlacesError>) -> Outcome {
        Outcome {
            api,
            answer,
            cuts: Vec::new(),
        }
    }

    /// Whether the answer is data of Places, and no error.
    #[must_use]
    pub fn is_data(&self) -> bool {
        matches!(self.answer, Ok(Reply::Data(_)))
    }

    /// Returns the number of bytes of memory that the texts hold. This includes unused capacity.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        let answer = match &self.answer {
            Ok(Reply::Data(text) | Reply::Error(text)) => text.capacity(),
            Err(reason) => reason.message.capacity(),
        };
        let cuts: usize = self.cuts.iter().map(|(_, json)| json.capacity()).sum();
        answer + cuts
    }

    /// Returns where the text comes from, for the log.
    #[must_use]
    pub fn source(&self) -> &'static str {
        match self.answer {
            Ok(Reply::Data(_)) => "from Places",
            Ok(Reply::Error(_)) => "an error of Places",
            Err(_) => "an error of our own",
        }
    }

    /// Returns the JSON for a client that wants at most `bound` places.
    pub fn json(&mut self, bound: u8) -> &str {
        let index = self
            .cuts
            .iter()
            .position(|(cut, _)| *cut == bound)
            .unwrap_or_else(|| {
                let json = match &self.answer {
                    Ok(Reply::Data(text)) => {
                        answer(text, self.api, bound).unwrap_or_else(|NotJson| {
                            let message = "Google Places answered with something that is not JSON";
                            error(self.api, &ErrorKind::BadAnswer.error(message))
                        })
                    }
                    Ok(Reply::Error(text)) => without_blank_lines(text),
                    Err(reason) => error(self.api, reason),
                };
                self.cuts.push((bound, json));
                self.cuts.len() - 1
            });
        &self.cuts[index].1
    }
}

/// The error for a text that is not a JSON object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotJson;

/// Makes the answer for one client from Google's text: at most `bound` places, no blank line, and
/// no newline at the beginning or the end. `bound` is 1 to 20.
///
/// ```
/// use herd_mio::core::{base::settings::PlacesApi, places::answer::answer};
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
    if surplus.is_empty() {
        return Ok(without_blank_lines(text));
    }
    let mut kept = String::with_capacity(text.len());
    let mut from = 0;
    for cut in surplus {
        kept.push_str(&text[from..cut.start]);
        from = cut.end;
    }
    kept.push_str(&text[from..]);
    Ok(without_blank_lines(&kept))
}

/// Replaces each run of line ends (LF, CR LF, CR) by the first line end of the run. Removes the
/// line ends at the beginning and the end of `text`. An empty line marks the end of the whole
/// answer, so the returned text contains no empty line. A client can take LF, CR LF or CR as the
/// line end.
///
/// Valid JSON has line ends between values only, so no value is changed.
fn without_blank_lines(text: &str) -> String {
    const ENDS: [char; 2] = ['\r', '\n'];
    let mut rest = text.trim_matches(ENDS);
    let mut kept = String::with_capacity(rest.len());
    while let Some(at) = memchr::memchr2(b'\r', b'\n', rest.as_bytes()) {
        let next = rest[at..].trim_start_matches(ENDS);
        let end = if rest[at..].starts_with("\r\n") { 2 } else { 1 };
        kept.push_str(&rest[..at + end]);
        rest = next;
    }
    kept.push_str(rest);
    kept
}

/// Returns the offset after the first empty line of an answer. A line ends with LF here, and CR is
/// ignored.
#[must_use]
pub fn first_empty_line(answer: &[u8]) -> Option<usize> {
    let mut end = 0;
    for line in answer.split_inclusive(|&byte| byte == b'\n') {
        end += line.len();
        if line.iter().all(|byte| matches!(byte, b'\r' | b'\n')) {
            return Some(end);
        }
    }
    None
}

/// Whether the text is one JSON object.
#[must_use]
pub fn is_json_object(text: &str) -> bool {
    surplus(text, PlacesApi::Legacy, usize::MAX).is_ok()
}

/// Returns Google's description of an error, for the log. `None` if the text contains no error, or
/// contains places.
///
/// The text is a JSON object, or an array of objects (methods that stream send arrays). An error of
/// the New API is in `error`. An error of the legacy API has a `status` other than `OK` and
/// `ZERO_RESULTS`, or an `error_message` without a `status`.
///
/// ```
/// use herd_mio::core::places::answer::google_error;
///
/// let text = r#"[{"error": {"code": 403, "message": "No.", "status": "PERMISSION_DENIED",
///     "details": [{"reason": "CONSUMER_SUSPENDED"}]}}]"#;
/// assert_eq!(google_error(text).unwrap(), "PERMISSION_DENIED (CONSUMER_SUSPENDED): No.");
/// assert_eq!(google_error(r#"{"results" : [], "status" : "OK"}"#), None);
/// ```
#[must_use]
pub fn google_error(text: &str) -> Option<String> {
    match serde_json::from_str(text).ok()? {
        Value::Array(elements) => elements.iter().find_map(error_in),
        value => error_in(&value),
    }
}

fn error_in(value: &Value) -> Option<String> {
    let text = |value: &Value, key: &str| value.get(key).and_then(Value::as_str).map(str::to_owned);
    let has_places = ["results", "places"]
        .iter()
        .any(|key| matches!(value.get(key), Some(Value::Array(list)) if !list.is_empty()));
    if has_places {
        return None;
    }
    let (status, message, reason) = match value.get("error") {
        Some(error @ Value::Object(_)) => {
            let details = error.get("details").and_then(Value::as_array);
            let reason = details.and_then(|all| all.iter().find_map(|one| text(one, "reason")));
            let code = || error.get("code").map(Value::to_string);
            let status = text(error, "status").or_else(code);
            (status, text(error, "message"), reason)
        }
        Some(Value::String(message)) => (None, Some(message.clone()), None),
        Some(Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_)) | None => {
            let bad = |status: &String| !matches!(status.as_str(), "OK" | "ZERO_RESULTS");
            let (status, message) = (text(value, "status"), text(value, "error_message"));
            if status.as_ref().is_some_and(|status| !bad(status)) {
                return None;
            }
            (status, message, None)
        }
    };
    let reason = reason.map(|reason| format!("({reason})"));
    let name: Vec<String> = status.into_iter().chain(reason).collect();
    let words = [Some(name.join(" ")), message];
    let words: Vec<String> = words
        .into_iter()
        .flatten()
        .filter(|text| !text.is_empty())
        .collect();
    match value.get("error") {
        None | Some(Value::Null) if words.is_empty() => None,
        _ if words.is_empty() => Some("an error without a word".to_owned()),
        _ => Some(words.join(": ")),
    }
}

/// Makes the answer of this server when there is no response of Google's: an error in the format of
/// the API that this server uses.
///
/// ```
/// use herd_mio::core::places::answer::{ErrorKind, error};
/// use herd_mio::core::base::settings::PlacesApi;
///
/// let reason = ErrorKind::TimedOut.error("a \"quoted\" reason");
/// assert_eq!(
///     error(PlacesApi::Legacy, &reason),
///     r#"{"html_attributions" : [], "results" : [], "status" : "UNKNOWN_ERROR", "error_message" : "a \"quoted\" reason"}"#,
/// );
/// assert_eq!(
///     error(PlacesApi::New, &reason),
///     r#"{"error": {"code": 504, "message": "a \"quoted\" reason", "status": "DEADLINE_EXCEEDED"}}"#,
/// );
/// ```
#[must_use]
pub fn error(api: PlacesApi, reason: &PlacesError) -> String {
    let message = Value::from(reason.message.as_str());
    match api {
        PlacesApi::Legacy => format!(
            r#"{{"html_attributions" : [], "results" : [], "status" : "UNKNOWN_ERROR", "error_message" : {message}}}"#
        ),
        PlacesApi::New => {
            let (code, status) = reason.kind.code();
            format!(
                r#"{{"error": {{"code": {code}, "message": {message}, "status": "{status}"}}}}"#
            )
        }
    }
}

/// Returns the parts of the text to cut out. In each list of places, these are the elements after
/// the first `bound`, with the comma before them. `bound` is at least 1.
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

/// Returns the offset in `text` at which `part` ends. `part` must be a subslice of `text`.
fn end(text: &str, part: &str) -> usize {
    part.as_ptr() as usize - text.as_ptr() as usize + part.len()
}

/// Collects the texts of all values that a JSON object has for one key. The field is the key.
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
    fn only_the_top_level_list_is_truncated() {
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
    fn an_answer_contains_no_empty_line() {
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
        assert_eq!(answer("\n\n{}\n", PlacesApi::New, 1).unwrap(), "{}");
        assert_eq!(
            answer(
                "\r\n{\r\n\r\n\"a\" :\r\n1\n\r\n,\r\r\"b\":\r\r\n2 \n \n}\r\n\r\n",
                PlacesApi::Legacy,
                1
            )
            .unwrap(),
            "{\r\n\"a\" :\r\n1\n,\r\"b\":\r2 \n \n}"
        );
        assert_eq!(
            answer("{\"results\":[1\r\n,2\r\n\r\n]}", PlacesApi::Legacy, 1).unwrap(),
            "{\"results\":[1\r\n]}"
        );
    }

    #[test]
    fn google_errors_are_recognised_in_every_shape() {
        for (text, expected) in [
            (r#"{"error": {"code": 503}}"#, Some("503")),
            (r#"{"error": "bad gateway"}"#, Some("bad gateway")),
            (r#"{"error": {}}"#, Some("an error without a word")),
            (r#"[{"a": 1}, {"error": {"message": "m"}}]"#, Some("m")),
            (
                r#"{"results": [], "status": "REQUEST_DENIED", "error_message": "no"}"#,
                Some("REQUEST_DENIED: no"),
            ),
            (
                r#"{"results": [], "status": "OVER_QUERY_LIMIT"}"#,
                Some("OVER_QUERY_LIMIT"),
            ),
            (r#"{"results": [], "status": "OK"}"#, None),
            (r#"{"results": [], "status": "ZERO_RESULTS"}"#, None),
            (r#"{"results": [1], "status": "OK", "error": "x"}"#, None),
            (r#"{"places": [1], "error": {"code": 500}}"#, None),
            (r#"{"error": null}"#, None),
            ("{}", None),
            ("[]", None),
            ("[[]]", None),
            ("null", None),
            ("<html>", None),
        ] {
            assert_eq!(google_error(text).as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn a_body_that_is_no_json_object_is_rejected() {
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
        fn truncation_keeps_exactly_the_first_elements(elements in proptest::collection::vec("[a-z\\]\\[{},]{0,8}", 0..25), bound in 1u8..=20, space in "[ \r\n]{0,4}") {
            let list: Vec<String> = elements.iter().map(|e| format!("{space}{}{space}", serde_json::json!({"name": e}))).collect();
            let text = format!("{{{space}\"results\"{space}:{space}[{}]{space},\"status\":\"OK\"}}", list.join(","));
            let ours = answer(&text, PlacesApi::Legacy, bound).unwrap();
            let whole = format!("AT x\n{ours}\n\n");
            prop_assert_eq!(first_empty_line(whole.as_bytes()), Some(whole.len()));
            prop_assert!(!whole.contains("\r\n\r\n"));
            let (mut expected, ours): (serde_json::Value, serde_json::Value) = (serde_json::from_str(&text).unwrap(), serde_json::from_str(&ours).unwrap());
            expected["results"].as_array_mut().unwrap().truncate(usize::from(bound));
            prop_assert_eq!(ours, expected);
        }
    }
}
