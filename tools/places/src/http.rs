//! HTTP/1.1 without a socket: requests are read from a buffer, answers are written to one.

use std::fmt::Write as _;
use std::time::{Duration, SystemTime};

use crate::behaviour::{Behaviour, End};

/// The greatest length of a request's head, in bytes.
pub(crate) const HEAD_MAX: usize = 64 * 1024;
/// The greatest length of a request's body, in bytes.
pub(crate) const BODY_MAX: usize = 1024 * 1024;
/// The greatest number of headers.
const HEADERS_MAX: usize = 100;

/// A complete request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The number of its connection, from 1.
    pub connection: u64,
    /// `GET`, `POST`, …
    pub method: String,
    /// The path and the query as they came. A legacy request's key is in here.
    pub target: String,
    /// The headers in order, with their names as they came. Bytes that are not UTF-8 have become
    /// U+FFFD.
    pub headers: Vec<(String, String)>,
    /// The bytes that `Content-Length` announced.
    pub body: Vec<u8>,
}

impl Request {
    /// The value of the first header with this name. Upper and lower case are the same.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(found, _)| found.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    /// The target without its query.
    #[must_use]
    pub fn path(&self) -> &str {
        self.target
            .split_once('?')
            .map_or(&self.target, |(path, _)| path)
    }

    /// The target for a log: each `key` in the query is hidden, and all characters are visible
    /// ASCII.
    #[must_use]
    pub fn target_without_key(&self) -> String {
        let mut shown = visible(self.path());
        let Some((_, query)) = self.target.split_once('?') else {
            return shown;
        };
        for (index, pair) in query.split('&').enumerate() {
            shown.push(if index == 0 { '?' } else { '&' });
            let name = pair.split_once('=').map_or(pair, |(name, _)| name);
            // The name is decoded first, because `%6bey=` is a key too.
            if decoded(name).trim().eq_ignore_ascii_case("key") {
                shown.push_str("key=[hidden]");
            } else {
                shown.push_str(&visible(pair));
            }
        }
        shown
    }
}

/// Why a request is refused and its connection closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    Malformed(&'static str),
    TimedOut,
    LengthRequired,
    BodyTooLong,
    HeadTooLong,
    TransferCoding,
}

impl Refusal {
    fn status(self) -> u16 {
        match self {
            Refusal::Malformed(_) => 400,
            Refusal::TimedOut => 408,
            Refusal::LengthRequired => 411,
            Refusal::BodyTooLong => 413,
            Refusal::HeadTooLong => 431,
            Refusal::TransferCoding => 501,
        }
    }

    pub(crate) fn reason(self) -> &'static str {
        match self {
            Refusal::Malformed(reason) => reason,
            Refusal::TimedOut => "the request did not end in time",
            Refusal::LengthRequired => "POST requests require a Content-Length header",
            Refusal::BodyTooLong => "the body is longer than 1 MiB",
            Refusal::HeadTooLong => "the head is longer than 64 KiB, or has more than 100 headers",
            Refusal::TransferCoding => "request bodies with a transfer coding are not supported",
        }
    }

    pub(crate) fn answer(self) -> Answer {
        Answer::page(self.status(), self.reason())
    }
}

/// A request's head, and what the reader needs for the rest.
#[derive(Debug)]
pub(crate) struct Head {
    /// The request. Its body is still empty.
    pub(crate) request: Request,
    /// Bytes of the head in the buffer.
    pub(crate) length: usize,
    /// Bytes of the body after the head.
    pub(crate) body: usize,
    /// False if the client wants the connection closed after the answer.
    pub(crate) keep_alive: bool,
    /// True if the client waits for `100 Continue` before it sends the body.
    pub(crate) expects_continue: bool,
}

/// Reads a head from the front of the received bytes. `None` if its end has not arrived yet.
pub(crate) fn head(received: &[u8], connection: u64) -> Result<Option<Head>, Refusal> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut parsed = httparse::Request::new(&mut headers);
    let length = match parsed.parse(received) {
        Ok(httparse::Status::Complete(length)) if length <= HEAD_MAX => length,
        Ok(httparse::Status::Partial) if received.len() < HEAD_MAX => return Ok(None),
        Ok(_) | Err(httparse::Error::TooManyHeaders) => return Err(Refusal::HeadTooLong),
        Err(_) => return Err(Refusal::Malformed("this is not an HTTP request")),
    };
    let request = Request {
        connection,
        method: parsed.method.unwrap_or_default().to_owned(),
        target: origin_form(parsed.path.unwrap_or_default()),
        headers: parsed
            .headers
            .iter()
            .map(|header| {
                (
                    header.name.to_owned(),
                    String::from_utf8_lossy(header.value).into_owned(),
                )
            })
            .collect(),
        body: Vec::new(),
    };
    let old = parsed.version == Some(0);
    let values = |name: &str| -> Vec<&str> {
        let named = request
            .headers
            .iter()
            .filter(|(found, _)| found.eq_ignore_ascii_case(name));
        named.map(|(_, value)| value.trim()).collect()
    };

    if !old && values("Host").len() != 1 {
        return Err(Refusal::Malformed("there must be one Host header"));
    }
    if !values("Transfer-Encoding").is_empty() {
        return Err(Refusal::TransferCoding);
    }
    let body = match values("Content-Length").as_slice() {
        [] if request.method == "POST" => return Err(Refusal::LengthRequired),
        [] => 0,
        [digits] if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) => {
            // A number that does not fit into a usize is above the limit too.
            digits
                .parse()
                .ok()
                .filter(|length| *length <= BODY_MAX)
                .ok_or(Refusal::BodyTooLong)?
        }
        _ => return Err(Refusal::Malformed("Content-Length is not one number")),
    };
    let says = |name: &str, word: &str| {
        values(name)
            .iter()
            .flat_map(|value| value.split(','))
            .any(|token| token.trim().eq_ignore_ascii_case(word))
    };
    let keep_alive = !says("Connection", "close") && (!old || says("Connection", "keep-alive"));
    let expects_continue = says("Expect", "100-continue");
    Ok(Some(Head {
        keep_alive,
        expects_continue,
        request,
        length,
        body,
    }))
}

/// Reduces a target to path and query. A target may be a whole URL (RFC 9112, 3.2.2).
fn origin_form(target: &str) -> String {
    let rest = ["https://", "http://"]
        .iter()
        .find_map(|scheme| target.strip_prefix(scheme));
    match rest {
        None => target.to_owned(),
        Some(rest) => rest
            .find('/')
            .map_or("/", |start| &rest[start..])
            .to_owned(),
    }
}

/// The names and values of a target's query, decoded.
pub(crate) fn query(target: &str) -> Vec<(String, String)> {
    let Some((_, query)) = target.split_once('?') else {
        return Vec::new();
    };
    query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(name, value)| (decoded(name), decoded(value)))
        .collect()
}

/// Decodes `application/x-www-form-urlencoded`. A `%` without two digits stands for itself.
fn decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let digit = |offset: usize| {
            bytes
                .get(at + offset)
                .and_then(|byte| char::from(*byte).to_digit(16))
        };
        match (bytes[at], digit(1), digit(2)) {
            (b'%', Some(high), Some(low)) => {
                out.push((high * 16 + low) as u8);
                at += 2;
            }
            (b'+', _, _) => out.push(b' '),
            (byte, _, _) => out.push(byte),
        }
        at += 1;
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// Writes everything but visible ASCII as `%XX`, so that a log line cannot move a terminal's
/// cursor.
fn visible(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_graphic() {
            shown.push(char::from(byte));
        } else {
            shown.push_str(&format!("%{byte:02X}"));
        }
    }
    shown
}

/// An answer before its framing is chosen.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
}

/// The headers of every answer of Google's.
const COMMON: [(&str, &str); 3] = [
    ("X-XSS-Protection", "0"),
    ("X-Frame-Options", "SAMEORIGIN"),
    (
        "Alt-Svc",
        "h3=\":443\"; ma=2592000,h3-29=\":443\"; ma=2592000",
    ),
];

impl Answer {
    /// An answer of the legacy API, which always has status 200.
    pub(crate) fn legacy(body: String) -> Answer {
        let expires = httpdate::fmt_http_date(SystemTime::now() + Duration::from_secs(300));
        Answer::with(
            200,
            body,
            [
                ("Content-Type", "application/json; charset=UTF-8"),
                ("Expires", &expires),
                ("Cache-Control", "public, max-age=300"),
                ("Server", "scaffolding on HTTPServer2"),
                ("Vary", "Accept-Language"),
                ("Access-Control-Allow-Origin", "*"),
            ],
        )
    }

    /// An answer of the New API, and any error of Google's in JSON.
    pub(crate) fn modern(status: u16, body: String) -> Answer {
        Answer::with(
            status,
            body,
            [
                ("Content-Type", "application/json; charset=UTF-8"),
                ("Vary", "Origin, X-Origin, Referer"),
                ("Server", "scaffolding on HTTPServer2"),
                ("Cache-Control", "private"),
                ("X-Content-Type-Options", "nosniff"),
            ],
        )
    }

    /// An HTML page like those of Google's front end.
    pub(crate) fn page(status: u16, words: &str) -> Answer {
        let words = words
            .replace('&', "&amp;")
            .replace('<', "&lt;")
            .replace('>', "&gt;");
        let body = format!(
            "<!DOCTYPE html>\n<html lang=en>\n  <meta charset=utf-8>\n  \
             <title>Error {status} ({reason})!!1</title>\n  \
             <p><b>{status}.</b> <ins>That’s an error.</ins>\n  \
             <p>{words}  <ins>That’s all we know.</ins>\n",
            reason = reason(status),
        );
        Answer::with(
            status,
            body,
            [
                ("Content-Type", "text/html; charset=UTF-8"),
                ("Referrer-Policy", "no-referrer"),
            ],
        )
    }

    /// An answer to HEAD, which must have no body.
    pub(crate) fn without_body(self) -> Answer {
        Answer {
            body: Vec::new(),
            ..self
        }
    }

    fn with<const N: usize>(
        status: u16,
        body: String,
        headers: [(&'static str, &str); N],
    ) -> Answer {
        let headers = headers
            .into_iter()
            .chain(COMMON)
            .map(|(name, value)| (name, value.to_owned()))
            .collect();
        // RFC 9110, 6.4.1: these statuses never have a body.
        let body = if matches!(status, 100..=199 | 204 | 304) {
            Vec::new()
        } else {
            body.into_bytes()
        };
        Answer {
            status,
            headers,
            body,
        }
    }

    /// The status line and the headers, with the chosen framing.
    fn head(&self, framing: Option<(&str, &str)>, close: bool) -> Vec<u8> {
        let mut head = format!("HTTP/1.1 {} {}\r\n", self.status, reason(self.status));
        let date = httpdate::fmt_http_date(SystemTime::now());
        let headers = self
            .headers
            .iter()
            .map(|(name, value)| (*name, value.as_str()));
        let connection = close.then_some(("Connection", "close"));
        for (name, value) in headers
            .chain([("Date", date.as_str())])
            .chain(framing)
            .chain(connection)
        {
            // Writing into a String never fails.
            let _ = write!(head, "{name}: {value}\r\n");
        }
        head.push_str("\r\n");
        head.into_bytes()
    }

    fn with_length(&self, close: bool) -> Vec<u8> {
        let mut bytes = self.head(
            Some(("Content-Length", &self.body.len().to_string())),
            close,
        );
        bytes.extend_from_slice(&self.body);
        bytes
    }
}

/// The bytes to send, and the end after them.
#[derive(Debug)]
pub(crate) struct Delivery {
    /// The pieces. Each is written and flushed separately.
    pub(crate) pieces: Vec<Vec<u8>>,
    /// The pause between two pieces.
    pub(crate) pause: Duration,
    pub(crate) end: End,
    /// The HTTP status in the bytes, if there is one.
    pub(crate) status: Option<u16>,
}

/// The bytes of an answer under a behaviour. The waits of `Slow` and `Hold` are over, and `answer`
/// already has the status that `Status` demands.
pub(crate) fn deliver(answer: &Answer, behaviour: &Behaviour, keep_alive: bool) -> Delivery {
    let close = !keep_alive;
    let polite_end = if close {
        End::CloseNotify
    } else {
        End::KeepAlive
    };
    let (pieces, pause, end) = match behaviour {
        Behaviour::Answer | Behaviour::Slow { .. } | Behaviour::Hold | Behaviour::Status(_) => {
            (vec![answer.with_length(close)], Duration::ZERO, polite_end)
        }
        Behaviour::Chunked { size } => {
            let mut bytes = answer.head(Some(("Transfer-Encoding", "chunked")), close);
            for chunk in answer.body.chunks((*size).max(1)) {
                bytes.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
                bytes.extend_from_slice(chunk);
                bytes.extend_from_slice(b"\r\n");
            }
            bytes.extend_from_slice(b"0\r\n\r\n");
            (vec![bytes], Duration::ZERO, polite_end)
        }
        Behaviour::CloseDelimited => {
            let mut bytes = answer.head(None, true);
            bytes.extend_from_slice(&answer.body);
            (vec![bytes], Duration::ZERO, End::CloseNotify)
        }
        Behaviour::Truncated => {
            let mut bytes = answer.with_length(close);
            bytes.truncate(bytes.len() - answer.body.len().div_ceil(2));
            (vec![bytes], Duration::ZERO, End::Abrupt)
        }
        Behaviour::Drip { every, bytes } => {
            let pieces = answer
                .with_length(close)
                .chunks((*bytes).max(1))
                .map(<[u8]>::to_vec)
                .collect();
            (pieces, *every, polite_end)
        }
        Behaviour::Drop => (Vec::new(), Duration::ZERO, End::Abrupt),
        Behaviour::Raw { segments, end } => (segments.clone(), Duration::ZERO, *end),
    };
    let has_status = !matches!(behaviour, Behaviour::Drop | Behaviour::Raw { .. });
    Delivery {
        pieces,
        pause,
        end,
        status: has_status.then_some(answer.status),
    }
}

/// The reason phrase of a status (RFC 9110, 15).
fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        204 => "No Content",
        301 => "Moved Permanently",
        302 => "Found",
        304 => "Not Modified",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        409 => "Conflict",
        411 => "Length Required",
        413 => "Content Too Large",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        _ => "Unknown",
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may fail")]
    use super::*;

    fn refused(request: &str) -> Refusal {
        head(request.as_bytes(), 1).unwrap_err()
    }

    #[test]
    fn a_request_head_is_parsed_up_to_its_end() {
        let bytes = b"POST /v1/x HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{}GET";
        for end in 0..bytes.len() - 5 {
            assert!(
                head(&bytes[..end], 1).unwrap().is_none(),
                "{end} bytes are not a complete head"
            );
        }
        let head = head(bytes, 7).unwrap().unwrap();
        assert_eq!(
            (head.length, head.body, head.keep_alive),
            (bytes.len() - 5, 2, true)
        );
        assert_eq!((head.request.connection, head.request.path()), (7, "/v1/x"));
        assert_eq!(head.request.header("HOST"), Some("a"));
    }

    #[test]
    fn malformed_requests_are_refused() {
        assert!(matches!(
            refused("\x16\x03\x01 hello\r\n\r\n"),
            Refusal::Malformed(_)
        ));
        assert!(matches!(
            refused("GET / HTTP/1.1\r\n\r\n"),
            Refusal::Malformed(_)
        ));
        assert!(matches!(
            refused("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"),
            Refusal::Malformed(_)
        ));
        assert_eq!(
            refused("POST / HTTP/1.1\r\nHost: a\r\n\r\n"),
            Refusal::LengthRequired
        );
        assert_eq!(
            refused("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"),
            Refusal::TransferCoding
        );
        for length in ["+1", "-1", "1, 1", "x", ""] {
            let request = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n");
            assert!(
                matches!(refused(&request), Refusal::Malformed(_)),
                "{length}"
            );
        }
        for length in ["1048577", "99999999999999999999999"] {
            let request = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n");
            assert_eq!(refused(&request), Refusal::BodyTooLong, "{length}");
        }
        assert_eq!(
            refused(&format!("GET /{} HTTP/1.1\r\n", "a".repeat(HEAD_MAX))),
            Refusal::HeadTooLong
        );
        let many = format!(
            "GET / HTTP/1.1\r\n{}\r\n",
            "a: b\r\n".repeat(HEADERS_MAX + 1)
        );
        assert_eq!(refused(&many), Refusal::HeadTooLong);
    }

    #[test]
    fn keep_alive_follows_the_version_and_connection_header() {
        let keeps = |rest: &str| {
            head(format!("GET / HTTP/1.{rest}\r\n\r\n").as_bytes(), 1)
                .unwrap()
                .unwrap()
                .keep_alive
        };
        assert!(keeps("1\r\nHost: a"));
        assert!(!keeps("1\r\nHost: a\r\nconnection: x, Close"));
        assert!(!keeps("0"));
        assert!(keeps("0\r\nConnection: keep-alive"));
    }

    #[test]
    fn queries_and_absolute_urls_are_parsed() {
        let pairs = query("/x?location=1%2C-2&radius=+5&&flag&bad=%zz%4");
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(
            pairs,
            [
                pair("location", "1,-2"),
                pair("radius", " 5"),
                pair("flag", ""),
                pair("bad", "%zz%4")
            ]
        );
        assert_eq!(origin_form("https://places.test:443/x?y=/"), "/x?y=/");
        assert_eq!(origin_form("https://places.test"), "/");
    }

    #[test]
    fn the_key_is_masked_in_a_logged_target() {
        let shown = |target: &str| {
            let request = format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n");
            head(request.as_bytes(), 1)
                .unwrap()
                .unwrap()
                .request
                .target_without_key()
        };
        assert_eq!(
            shown("/x?location=1,2&key=AIza&radius=3"),
            "/x?location=1,2&key=[hidden]&radius=3"
        );
        assert_eq!(shown("/x?key=AIza"), "/x?key=[hidden]");
        assert_eq!(
            shown("/x?%6bey=AIza&KEY=AIza&+key=AIza"),
            "/x?key=[hidden]&key=[hidden]&key=[hidden]"
        );
        assert_eq!(shown("/plain"), "/plain");
        assert_eq!(visible("a\u{1b}[31mé"), "a%1B[31m%C3%A9");
    }

    #[test]
    fn each_behaviour_delivers_its_answer() {
        let answer = Answer::modern(200, "0123456789".to_owned());
        let text = |behaviour: Behaviour| {
            let delivery = deliver(&answer, &behaviour, true);
            (
                String::from_utf8(delivery.pieces.concat()).unwrap(),
                delivery.end,
            )
        };
        let (whole, end) = text(Behaviour::Answer);
        assert!(
            whole.contains("\r\nContent-Length: 10\r\n") && whole.ends_with("\r\n\r\n0123456789"),
            "{whole}"
        );
        assert_eq!(end, End::KeepAlive);
        let (chunked, _) = text(Behaviour::Chunked { size: 4 });
        assert!(
            chunked.ends_with("\r\n\r\n4\r\n0123\r\n4\r\n4567\r\n2\r\n89\r\n0\r\n\r\n"),
            "{chunked}"
        );
        assert!(!chunked.contains("Content-Length"));
        let (delimited, end) = text(Behaviour::CloseDelimited);
        assert!(
            delimited.contains("\r\nConnection: close\r\n")
                && delimited.ends_with("\r\n\r\n0123456789")
        );
        assert_eq!(end, End::CloseNotify);
        let (truncated, end) = text(Behaviour::Truncated);
        assert!(
            truncated.contains("\r\nContent-Length: 10\r\n")
                && truncated.ends_with("\r\n\r\n01234")
        );
        assert_eq!(end, End::Abrupt);
        let drip = deliver(
            &answer,
            &Behaviour::Drip {
                every: Duration::ZERO,
                bytes: 3,
            },
            true,
        );
        assert!(drip.pieces.iter().all(|piece| piece.len() <= 3));
        let (closed, end) = {
            let delivery = deliver(&answer, &Behaviour::Answer, false);
            (
                String::from_utf8(delivery.pieces.concat()).unwrap(),
                delivery.end,
            )
        };
        assert!(closed.contains("\r\nConnection: close\r\n"));
        assert_eq!(end, End::CloseNotify);
    }
}
