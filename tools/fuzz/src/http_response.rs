//! What comes back from Places: the HTTP response, and the JSON in it.

use std::collections::BTreeMap;

use herd_mio::core::base::limits::Limits;
use herd_mio::core::base::settings::PlacesApi;
use herd_mio::core::places::answer::{
    ErrorKind, Outcome, Reply, answer, error, first_empty_line, google_error, is_json_object,
};
use herd_mio::core::places::response::{Response, ResponseError};
use serde_json::Value;

use crate::pieces::pieces;

/// Three bytes that say how, then either a stream that a server might send, or the JSON alone.
///
/// A stream has to be read as the same response whatever the pieces it comes in; where it is complete, its body has to be what the head
/// says it is, and nothing behind its end may be taken for a part of it. JSON has to be cut to the bound and be otherwise the same.
pub fn http_response(data: &[u8]) {
    let Some(([how, cut, bound], rest)) = data.split_first_chunk() else {
        return;
    };
    let api = match how & 1 {
        0 => PlacesApi::Legacy,
        _ => PlacesApi::New,
    };
    let bound = 1 + bound % 20;
    if how & 2 == 0 {
        let text = String::from_utf8_lossy(rest);
        json(&text, api, bound);
        words(&text);
        return;
    }
    let limits = if how & 4 == 0 {
        Limits::default()
    } else {
        Limits {
            places_head_bytes: 256,
            places_body_bytes: 256,
            ..Limits::default()
        }
    };
    let stream = Stream {
        bytes: rest,
        ends_cleanly: how & 8 == 0,
        limits,
    };
    let whole = stream.read(u8::MAX);
    assert_eq!(stream.read(*cut), whole, "in pieces");
    stream.byte_by_byte(&whole);
    if let Ok(Done { body, .. }) = whole
        && let Ok(text) = std::str::from_utf8(&body)
    {
        json(text, api, bound);
    }
}

/// What a server sends until it closes the connection.
struct Stream<'a> {
    bytes: &'a [u8],
    ends_cleanly: bool,
    limits: Limits,
}

/// A response that was read to its end.
#[derive(Debug, PartialEq, Eq)]
struct Done {
    status: u16,
    body: Vec<u8>,
    /// Before the stream ended.
    is_done: bool,
    keep_alive: bool,
}

impl Stream<'_> {
    fn read(&self, cut: u8) -> Result<Done, ResponseError> {
        let mut response = Response::new(&self.limits);
        let fed = pieces(self.bytes, cut).try_for_each(|piece| response.data_received(piece));
        let body_bytes = self.limits.places_body_bytes as usize;
        assert!(response.body().len() <= body_bytes, "within its limit");
        fed?;
        let (is_done, keep_alive) = (response.is_done(), response.keep_alive());
        response.eof_received(self.ends_cleanly)?;
        assert!(response.is_done() && !response.keep_alive());
        Ok(Done {
            status: response.status(),
            body: response.body().to_vec(),
            is_done,
            keep_alive,
        })
    }

    /// The same, looking at the response after each byte.
    fn byte_by_byte(&self, whole: &Result<Done, ResponseError>) {
        let mut response = Response::new(&self.limits);
        let mut end = None;
        for (at, byte) in self.bytes.iter().enumerate() {
            if let Err(error) = response.data_received(&[*byte]) {
                assert_eq!(whole.as_ref().err(), Some(&error), "one by one");
                assert!(end.is_none(), "nothing behind its end spoils a response");
                return;
            }
            if response.is_done() {
                end.get_or_insert((at + 1, response.body().len()));
            }
        }
        match (whole, end) {
            (Ok(done), Some((end, body_bytes))) => {
                assert_eq!(done.body.len(), body_bytes, "nothing behind the end counts");
                assert!(!done.keep_alive || end == self.bytes.len());
                self.judge(done, end);
            }
            (Ok(done), None) => {
                assert!(self.ends_cleanly, "cut off");
                self.judge(done, self.bytes.len());
            }
            (Err(error), end) => {
                assert_eq!(*error, ResponseError::Truncated);
                assert!(end.is_none());
            }
        }
    }

    /// Whether the body is what the head says, if the response ends at `end`.
    fn judge(&self, done: &Done, end: usize) {
        let (head, body) = last_head(&self.bytes[..end]);
        let headers = headers(head);
        let raw = &self.bytes[body..end];
        let (length, coding) = (
            headers.get("content-length"),
            headers.get("transfer-encoding"),
        );
        match (length, coding) {
            _ if done.status == 204 || done.status == 304 => assert!(raw.is_empty()),
            (Some(length), None) => {
                assert_eq!(raw, done.body);
                assert_eq!(length.parse(), Ok(raw.len()));
            }
            (None, Some(coding)) => {
                assert!(coding.eq_ignore_ascii_case("chunked"));
                assert_eq!(unchunked(raw).as_ref(), Some(&done.body));
            }
            (None, None) => {
                assert_eq!(raw, done.body);
                assert!(!done.is_done && !done.keep_alive && end == self.bytes.len());
            }
            (Some(_), Some(_)) => panic!("a length and chunks"),
        }
        let closes = |words: &String| words.split(',').any(|word| word.trim() == "close");
        assert!(!done.keep_alive || !headers.get("connection").is_some_and(closes));
    }
}

/// The head that counts, the interim ones before it passed over, and where the body begins behind it.
fn last_head(bytes: &[u8]) -> (&[u8], usize) {
    let mut start = 0;
    loop {
        let (mut end, mut is_first) = (start, true);
        for line in bytes[start..].split_inclusive(|&byte| byte == b'\n') {
            end += line.len();
            if !is_first && (line == b"\n" || line == b"\r\n") {
                break;
            }
            is_first = false;
        }
        let head = &bytes[start..end];
        let status = head.split(|&byte| byte == b' ').nth(1).unwrap_or_default();
        if !status.starts_with(b"1") || end == start {
            return (head, end);
        }
        start = end;
    }
}

/// The headers of a head, by their names in lower case; the values of those that are there more than once are joined.
fn headers(head: &[u8]) -> BTreeMap<String, String> {
    let text = String::from_utf8_lossy(head).to_lowercase();
    let mut headers: BTreeMap<String, String> = BTreeMap::new();
    for (name, value) in text.lines().skip(1).filter_map(|line| line.split_once(':')) {
        headers
            .entry(name.trim().to_owned())
            .and_modify(|known| *known = format!("{known},{}", value.trim()))
            .or_insert_with(|| value.trim().to_owned());
    }
    headers
}

/// The body behind a chunked coding that ends where `raw` does; nothing if it is not well made.
fn unchunked(mut raw: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let end = raw.windows(2).position(|pair| pair == b"\r\n")?;
        let line = std::str::from_utf8(&raw[..end]).ok();
        // Extensions need not be text, but the size in front of them is.
        let size = match line {
            Some(line) => line.split(';').next()?.trim_end().to_owned(),
            None => {
                let size = raw[..end].split(|&byte| byte == b';').next()?;
                String::from_utf8(size.trim_ascii_end().to_vec()).ok()?
            }
        };
        raw = &raw[end + 2..];
        let size = usize::from_str_radix(&size, 16).ok()?;
        if size == 0 {
            let is_end = raw == b"\r\n" || raw.ends_with(b"\r\n\r\n");
            return is_end.then_some(body);
        }
        let (chunk, rest) = raw.split_at_checked(size)?;
        body.extend_from_slice(chunk);
        raw = rest.strip_prefix(b"\r\n")?;
    }
}

/// Cuts Google's JSON.
fn json(text: &str, api: PlacesApi, bound: u8) {
    let found = answer(text, api, bound);
    assert_eq!(is_json_object(text), found.is_ok());
    // Deeper or larger than `Value` takes it may still be good JSON.
    let expected = serde_json::from_str(text).ok().filter(Value::is_object);
    assert!(expected.is_none() || found.is_ok(), "an object");
    // An error is passed on whole, but for blank lines.
    if google_error(text).is_some() {
        let told = Outcome::new(api, Ok(Reply::Error(text.to_owned())))
            .json(bound)
            .to_owned();
        assert_eq!(
            serde_json::from_str::<Value>(&told).ok(),
            serde_json::from_str(text).ok()
        );
        ends_once(&told);
    }
    let mut outcome = Outcome::new(api, Ok(Reply::Data(text.to_owned())));
    let told = outcome.json(bound).to_owned();
    assert_eq!(outcome.json(bound), told, "remembered");
    let Ok(cut) = found else {
        assert!(is_json_object(&told), "an error of our own");
        return;
    };
    assert_eq!(told, cut);
    ends_once(&cut);
    assert!(cut.len() <= text.len());
    assert!(is_json_object(&cut), "still an object: {cut}");
    assert_eq!(answer(&cut, api, bound).as_ref(), Ok(&cut), "cut once");
    if let Some(mut expected) = expected {
        let list = match api {
            PlacesApi::Legacy => "results",
            PlacesApi::New => "places",
        };
        if let Some(Value::Array(elements)) = expected.get_mut(list) {
            elements.truncate(usize::from(bound));
        }
        assert_eq!(serde_json::from_str(&cut).ok(), Some(expected));
    }
}

/// The first empty line of a whole answer is its end.
fn ends_once(json: &str) {
    let whole = format!("AT line\n{json}\n\n");
    assert_eq!(first_empty_line(whole.as_bytes()), Some(whole.len()));
    assert!(!whole.contains("\r\n\r\n"));
}

/// An error of our own is JSON whatever its words are.
fn words(text: &str) {
    for api in [PlacesApi::Legacy, PlacesApi::New] {
        let told: Option<Value> =
            serde_json::from_str(&error(api, &ErrorKind::BadAnswer.error(text))).ok();
        let message = told.as_ref().and_then(|told| match api {
            PlacesApi::Legacy => told.get("error_message"),
            PlacesApi::New => told.get("error")?.get("message"),
        });
        assert_eq!(message.and_then(Value::as_str), Some(text));
    }
}
