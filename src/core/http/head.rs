//! The head of a request: the request line and the header. A head that two parsers could read
//! differently is refused.
//!
//! If a proxy and a server read the same bytes differently, an attacker can smuggle a request past
//! the proxy (RFC 9112, section 11.2). So the following are refused, and the connection is closed:
//! line ends other than CRLF, folded lines, a body, two `Host` fields, and white space around a
//! field's name.

use std::fmt;

use httparse::{EMPTY_HEADER, Request};

use crate::core::base::limits::HTTP_FIELDS;
use crate::core::http::reply::Status;

/// The end of a head.
const END: &[u8] = b"\r\n\r\n";

/// What the connection does after the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum After {
    /// The connection stays open for another request.
    Keep,
    /// The connection is closed.
    Close,
}

/// The parts of a valid head that the server needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head<'a> {
    /// The method, such as `GET`.
    pub method: &'a str,
    /// The path, and the query after `?`. It begins with `/`.
    pub target: &'a str,
    /// The host that the request is for, from `Host` or from a target in absolute form. `None` is
    /// possible only in HTTP/1.0.
    pub host: Option<&'a str>,
    /// The value of `Accept`, or empty.
    pub accept: &'a str,
    /// Whether the connection stays open after the answer.
    pub after: After,
    /// Whether the version is HTTP/1.0, which has no chunked encoding.
    pub is_old: bool,
}

/// Why a head is refused. After each such refusal the connection is closed, because the server does
/// not know where the next request begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeadError {
    /// A line does not end with CRLF, or the bytes are not the head of an HTTP request.
    Malformed,
    /// A line of the header begins with white space.
    Folded,
    /// The version is not 1.0 or 1.1.
    Version,
    /// The request line is too long.
    LongTarget {
        /// `limits.http_head_bytes`.
        most: usize,
    },
    /// The head is too long.
    Long {
        /// `limits.http_head_bytes`.
        most: usize,
    },
    /// The header has more than [`HTTP_FIELDS`] fields.
    Fields,
    /// The length of the body is given in more than one field, or is not a number.
    Framing,
    /// The request has a body.
    Body,
    /// The request has no `Host`, or more than one.
    Host,
}

impl HeadError {
    /// Returns the status of the answer.
    #[must_use]
    pub fn status(self) -> Status {
        match self {
            HeadError::Malformed | HeadError::Folded | HeadError::Framing | HeadError::Host => {
                Status::BadRequest
            }
            HeadError::Version => Status::VersionNotSupported,
            HeadError::LongTarget { .. } => Status::UriTooLong,
            HeadError::Long { .. } | HeadError::Fields => Status::HeaderTooLarge,
            HeadError::Body => Status::ContentTooLarge,
        }
    }
}

impl std::error::Error for HeadError {}

impl fmt::Display for HeadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HeadError::Malformed => {
                f.write_str("this is no HTTP request with lines that end with CRLF")
            }
            HeadError::Folded => f.write_str("a line of the header begins with white space"),
            HeadError::Version => f.write_str("this port speaks HTTP/1.1 and HTTP/1.0"),
            HeadError::LongTarget { most } => write!(
                f,
                "the request line has more than {most} bytes (limits.http_head_bytes)"
            ),
            HeadError::Long { most } => write!(
                f,
                "the head has more than {most} bytes (limits.http_head_bytes)"
            ),
            HeadError::Fields => write!(f, "the header has more than {HTTP_FIELDS} fields"),
            HeadError::Framing => {
                f.write_str("the header does not say clearly how long the body is")
            }
            HeadError::Body => f.write_str("a request to this port has no body"),
            HeadError::Host => f.write_str("a request has exactly one Host"),
        }
    }
}

/// Parses the head at the beginning of `input`. A head may have at most `most` bytes. Returns the
/// head and its length in bytes, or `None` if the head is not complete.
///
/// # Errors
/// The bytes cannot be the beginning of a valid head.
pub fn parse(input: &[u8], most: usize) -> Result<Option<(Head<'_>, usize)>, HeadError> {
    // One empty line before the request line is allowed (RFC 9112, section 2.2).
    let start = if input.starts_with(b"\r\n") { 2 } else { 0 };
    let rest = &input[start..];
    if rest.starts_with(b"\r\n") {
        return Err(HeadError::Malformed);
    }
    let end = memchr::memmem::find(rest, END).map(|at| at + END.len());
    let shown = &rest[..end.unwrap_or(rest.len())];
    check_lines(shown)?;
    if end.unwrap_or(rest.len()) > most || end.is_none() && rest.len() == most {
        return Err(match memchr::memchr(b'\n', &rest[..most.min(rest.len())]) {
            None => HeadError::LongTarget { most },
            Some(_) => HeadError::Long { most },
        });
    }
    let mut fields = [EMPTY_HEADER; HTTP_FIELDS];
    let mut request = Request::new(&mut fields);
    match request.parse(shown) {
        Ok(httparse::Status::Complete(length)) => Ok(Some((Head::new(&request)?, start + length))),
        Ok(httparse::Status::Partial) if end.is_some() => Err(HeadError::Malformed),
        Ok(httparse::Status::Partial) => Ok(None),
        Err(httparse::Error::Version) => Err(HeadError::Version),
        Err(httparse::Error::TooManyHeaders) => Err(HeadError::Fields),
        Err(
            httparse::Error::HeaderName
            | httparse::Error::HeaderValue
            | httparse::Error::NewLine
            | httparse::Error::Status
            | httparse::Error::Token,
        ) => Err(HeadError::Malformed),
    }
}

/// Checks that each line ends with CRLF, that CR and LF occur nowhere else, and that no line
/// begins with white space. `httparse` alone would accept a bare LF.
fn check_lines(head: &[u8]) -> Result<(), HeadError> {
    for at in memchr::memchr2_iter(b'\r', b'\n', head) {
        let is_pair = match head[at] {
            b'\r' => matches!(head.get(at + 1), Some(b'\n') | None),
            _ => at > 0 && head[at - 1] == b'\r',
        };
        if !is_pair {
            return Err(HeadError::Malformed);
        }
        if head[at] == b'\n' && matches!(head.get(at + 1), Some(b' ' | b'\t')) {
            return Err(HeadError::Folded);
        }
    }
    Ok(())
}

impl<'a> Head<'a> {
    fn new(request: &Request<'_, 'a>) -> Result<Head<'a>, HeadError> {
        let values = |name: &'static str| {
            let fields = request.headers.iter();
            let named = fields.filter(move |field| field.name.eq_ignore_ascii_case(name));
            named.map(|field| field.value)
        };
        let mut lengths = values("content-length");
        let has_coding = values("transfer-encoding").next().is_some();
        match (lengths.next(), lengths.next()) {
            (None, None) if has_coding => return Err(HeadError::Body),
            (None, _) => {}
            (Some(_), Some(_)) => return Err(HeadError::Framing),
            (Some(_), None) if has_coding => return Err(HeadError::Framing),
            (Some(b"0"), None) => {}
            (Some(length), None) => {
                let is_number = !length.is_empty() && length.iter().all(u8::is_ascii_digit);
                return Err(match is_number {
                    true => HeadError::Body,
                    false => HeadError::Framing,
                });
            }
        }
        let text = |value: &'a [u8]| std::str::from_utf8(value).map_err(|_| HeadError::Malformed);
        let is_old = request.version == Some(0);
        let mut hosts = values("host");
        let host = match (hosts.next(), hosts.next()) {
            (Some(host), None) => Some(text(host)?.trim_ascii()),
            (None, None) if is_old => None,
            (_, _) => return Err(HeadError::Host),
        };
        let closes = values("connection").any(|value| {
            let mut words = value.split(|&byte| byte == b',');
            words.any(|word| word.trim_ascii().eq_ignore_ascii_case(b"close"))
        });
        let accept = values("accept").next().map(text).transpose()?;
        let target = request.path.ok_or(HeadError::Malformed)?;
        let (host, target) = match target.strip_prefix("http://") {
            // The host of a target in absolute form replaces `Host` (RFC 9112, section 3.2.2).
            Some(rest) => match rest.find('/') {
                Some(at) => (Some(&rest[..at]), &rest[at..]),
                None => (Some(rest), "/"),
            },
            None => (host, target),
        };
        if !target.starts_with('/') || !target.is_ascii() {
            return Err(HeadError::Malformed);
        }
        Ok(Head {
            method: request.method.ok_or(HeadError::Malformed)?,
            target,
            host,
            accept: accept.unwrap_or_default(),
            after: match closes || is_old {
                true => After::Close,
                false => After::Keep,
            },
            is_old,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str =
        "GET /metrics?a=b HTTP/1.1\r\nHost: localhost:9100\r\naccept: text/plain\r\n\r\n";

    fn error(head: &str) -> HeadError {
        parse(head.as_bytes(), 8_192).unwrap_err()
    }

    #[test]
    fn a_head_is_the_same_in_any_pieces() {
        for length in 0..GOOD.len() {
            assert_eq!(
                parse(&GOOD.as_bytes()[..length], 8_192),
                Ok(None),
                "{length}"
            );
        }
        let more = format!("{GOOD}GET /");
        let (head, length) = parse(more.as_bytes(), 8_192).unwrap().unwrap();
        assert_eq!(length, GOOD.len());
        assert_eq!(
            head,
            Head {
                method: "GET",
                target: "/metrics?a=b",
                host: Some("localhost:9100"),
                accept: "text/plain",
                after: After::Keep,
                is_old: false,
            }
        );
    }

    #[test]
    fn one_empty_line_before_a_request_is_allowed() {
        let one = format!("\r\n{GOOD}");
        assert_eq!(parse(one.as_bytes(), 8_192).unwrap().unwrap().1, one.len());
        for count in 2..5 {
            let empty = "\r\n".repeat(count);
            assert_eq!(error(&empty), HeadError::Malformed);
            assert_eq!(error(&format!("{empty}{GOOD}")), HeadError::Malformed);
            let more = "x".repeat(10_000);
            assert_eq!(error(&format!("{empty}{more}")), HeadError::Malformed);
        }
    }

    #[test]
    fn heads_with_two_meanings_are_refused() {
        let with = |fields: &str| format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
        for (head, expected) in [
            (
                with("Content-Length: 0\r\nTransfer-Encoding: chunked\r\n"),
                HeadError::Framing,
            ),
            (
                with("Content-Length: 5\r\nContent-Length: 5\r\n"),
                HeadError::Framing,
            ),
            (with("Content-Length: +5\r\n"), HeadError::Framing),
            (with("Content-Length: 0, 0\r\n"), HeadError::Framing),
            (with("Content-Length: 5\r\n"), HeadError::Body),
            (with("Transfer-Encoding: chunked\r\n"), HeadError::Body),
            (with("Transfer-Encoding: identity\r\n"), HeadError::Body),
            (with("Host: b\r\n"), HeadError::Host),
            ("GET / HTTP/1.1\r\n\r\n".into(), HeadError::Host),
            (with("X: y\r\n z: 1\r\n"), HeadError::Folded),
            (with(" X: y\r\n"), HeadError::Folded),
            (with("X : y\r\n"), HeadError::Malformed),
            (with("X: a\rb\r\n"), HeadError::Malformed),
            (with("X: a\nY: b\r\n"), HeadError::Malformed),
            (with("X: \0\r\n"), HeadError::Malformed),
            ("GET / HTTP/1.1\nHost: a\n\n".into(), HeadError::Malformed),
            (
                "GET  / HTTP/1.1\r\nHost: a\r\n\r\n".into(),
                HeadError::Malformed,
            ),
            ("\n\nGET / HTTP/1.1\r\n".into(), HeadError::Malformed),
            ("GET / HTTP/2.0\r\n".into(), HeadError::Version),
            ("PRI * HTTP/2.0\r\n\r\n".into(), HeadError::Version),
            (
                "GET / HTTP/1.2\r\nHost: a\r\n\r\n".into(),
                HeadError::Version,
            ),
            (
                "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n".into(),
                HeadError::Malformed,
            ),
            (
                "CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n".into(),
                HeadError::Malformed,
            ),
            (
                "GET a HTTP/1.1\r\nHost: a\r\n\r\n".into(),
                HeadError::Malformed,
            ),
            ("\u{16}\u{3}\u{1}\0".into(), HeadError::Malformed),
            (with(&"a: b\r\n".repeat(HTTP_FIELDS)), HeadError::Fields),
        ] {
            assert_eq!(error(&head), expected, "{head:?}");
        }
    }

    #[test]
    fn a_head_has_a_greatest_length() {
        let long = format!("GET /{} HTTP/1.1\r\n", "x".repeat(300));
        let most = 256;
        assert_eq!(
            parse(long.as_bytes(), most),
            Err(HeadError::LongTarget { most })
        );
        assert_eq!(parse(&long.as_bytes()[..255], most), Ok(None));
        let long = format!(
            "GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n",
            "x".repeat(300)
        );
        assert_eq!(parse(long.as_bytes(), most), Err(HeadError::Long { most }));
        assert_eq!(
            parse(&long.as_bytes()[..256], most),
            Err(HeadError::Long { most })
        );
        assert_eq!(
            parse(GOOD.as_bytes(), GOOD.len()).map(|it| it.is_some()),
            Ok(true)
        );
    }

    #[test]
    fn the_absolute_form_replaces_the_host() {
        for (target, host, path) in [("http://a:1/b?c", "a:1", "/b?c"), ("http://a", "a", "/")] {
            let head = format!("GET {target} HTTP/1.1\r\nHost: other\r\n\r\n");
            let (head, _) = parse(head.as_bytes(), 8_192).unwrap().unwrap();
            assert_eq!((head.host, head.target), (Some(host), path));
        }
    }

    #[test]
    fn a_connection_is_closed_if_the_request_says_so() {
        let after = |head: &str| parse(head.as_bytes(), 8_192).unwrap().unwrap().0.after;
        let with = |words: &str| {
            after(&format!(
                "GET / HTTP/1.1\r\nHost: a\r\nConnection: {words}\r\n\r\n"
            ))
        };
        assert_eq!(with("keep-alive"), After::Keep);
        assert_eq!(with("upgrade, CLOSE"), After::Close);
        assert_eq!(after("GET / HTTP/1.0\r\n\r\n"), After::Close);
        assert_eq!(after("\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"), After::Keep);
    }
}
