//! What a client is told about what is near: Google's own text, cut to the bound, or an error in
//! Google's shape.
//!
//! Google's layout varies, so its text is never written anew: serde_json only says where a value
//! begins and ends.

use std::fmt;
use std::ops::Range;

use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::core::base::settings::PlacesApi;

/// What Google said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// What is near: cut to each client's bound.
    Data(String),
    /// An error: passed on whole.
    Error(String),
}

/// Why there is no answer of Google's, in words that a client can act on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlacesError {
    /// What kind of failure it is.
    pub kind: ErrorKind,
    /// What went wrong, and what to do.
    pub message: String,
}

/// The kinds of failure that the New API has codes for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// This server has no key.
    NoKey,
    /// Too many questions are waiting.
    Busy,
    /// Google Places cannot be reached, or this server stops.
    Unavailable,
    /// No answer came in time.
    TimedOut,
    /// What came is no answer.
    BadAnswer,
}

impl ErrorKind {
    /// The kind as the New API has it: google.rpc.Code, and the HTTP status that Google maps it to.
    #[must_use]
    pub fn code(self) -> (u16, &'static str) {
        match self {
            ErrorKind::NoKey => (403, "PERMISSION_DENIED"),
            ErrorKind::Busy => (429, "RESOURCE_EXHAUSTED"),
            ErrorKind::Unavailable => (503, "UNAVAILABLE"),
            ErrorKind::TimedOut => (504, "DEADLINE_EXCEEDED"),
            ErrorKind::BadAnswer => (500, "INTERNAL"),
        }
    }

    /// An error of this kind.
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

/// How a call to Places ended, for all who wait for it: the answer is cut once for each bound, not
/// once for each client.
pub struct Outcome {
    api: PlacesApi,
    answer: Result<Reply, PlacesError>,
    cuts: Vec<(u8, String)>,
}

impl Outcome {
    /// Google's own text, or why there is none.
    #[must_use]
    pub fn new(api: PlacesApi, answer: Result<Reply, PlacesError>) -> Outcome {
        Outcome {
            api,
            answer,
            cuts: Vec::new(),
        }
    }

    /// Where the text comes from, for the log.
    #[must_use]
    pub fn source(&self) -> &'static str {
        match self.answer {
            Ok(Reply::Data(_)) => "from Places",
            Ok(Reply::Error(_)) => "an error of Places",
            Err(_) => "an error of our own",
        }
    }

    /// The JSON for a client that wants at most `bound` places.
    pub fn json(&mut self, bound: u8) -> &str {
        let place = self
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
        &self.cuts[place].1
    }
}

/// The text is not a JSON object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotJson;

/// Google's answer for one client: at most `bound` elements of its list of places, no blank line,
/// no newline at either end.
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

/// The text with each run of line ends (LF, CR LF, CR) as one, the first of them, and with none at
/// the beginning or the end: whether a client reads to an LF or to a CR LF, and whether a lone CR
/// ends a line for it, the first empty line is the end of the answer.
///
/// Good JSON has line ends between its values only, so this changes none.
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

/// Where the first empty line of an answer ends, for a client that reads to LF and passes over CR.
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

/// What Google says of an error, in either of its shapes, for the log.
///
/// The text is one JSON object, or an array of them (as from methods that stream). The New API has
/// `error`; the legacy one has `error_message`, or a `status` that is neither of its good ones.
/// `None` if the text says nothing of an error, or brings places.
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

/// The server's own answer where there is none of Google's: an error in the shape of the API that
/// is spoken, in words a client can act on.
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
    fn an_error_of_google_is_told_from_data_in_every_shape() {
        for (text, told) in [
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
            assert_eq!(google_error(text).as_deref(), told, "{text}");
        }
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
        fn the_cut_keeps_exactly_the_first_elements(elements in proptest::collection::vec("[a-z\\]\\[{},]{0,8}", 0..25), bound in 1u8..=20, space in "[ \r\n]{0,4}") {
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
