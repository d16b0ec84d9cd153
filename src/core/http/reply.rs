//! The parts of an answer: status, header fields, and the framing of the body.

use std::fmt;
use std::io::Write as _;

use time::OffsetDateTime;
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;

/// The status of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// 200.
    Ok,
    /// 400: the request is malformed, or a parameter is wrong.
    BadRequest,
    /// 404: there is no such path, or no such client.
    NotFound,
    /// 405: the method is not GET or HEAD.
    MethodNotAllowed,
    /// 408: the request did not arrive in time.
    RequestTimeout,
    /// 413: the request has a body.
    ContentTooLarge,
    /// 414: the request line is too long.
    UriTooLong,
    /// 421: the request's `Host` does not belong to this server.
    Misdirected,
    /// 431: the head is too long, or has too many fields.
    HeaderTooLarge,
    /// 503: the server is not ready.
    Unavailable,
    /// 505: the version of HTTP is not 1.0 or 1.1.
    VersionNotSupported,
}

impl Status {
    /// Returns the code, such as 200, and its reason phrase, such as `OK`.
    #[must_use]
    pub fn parts(self) -> (u16, &'static str) {
        match self {
            Status::Ok => (200, "OK"),
            Status::BadRequest => (400, "Bad Request"),
            Status::NotFound => (404, "Not Found"),
            Status::MethodNotAllowed => (405, "Method Not Allowed"),
            Status::RequestTimeout => (408, "Request Timeout"),
            Status::ContentTooLarge => (413, "Content Too Large"),
            Status::UriTooLong => (414, "URI Too Long"),
            Status::Misdirected => (421, "Misdirected Request"),
            Status::HeaderTooLarge => (431, "Request Header Fields Too Large"),
            Status::Unavailable => (503, "Service Unavailable"),
            Status::VersionNotSupported => (505, "HTTP Version Not Supported"),
        }
    }
}

/// The type of an answer's body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContentType {
    /// JSON.
    Json,
    /// The text format of Prometheus, version 0.0.4.
    Prometheus,
    /// OpenMetrics, version 1.0.0.
    OpenMetrics,
}

impl fmt::Display for ContentType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ContentType::Json => "application/json",
            ContentType::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            ContentType::OpenMetrics => {
                "application/openmetrics-text; version=1.0.0; charset=utf-8"
            }
        })
    }
}

/// How the client finds the end of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// The body has this many bytes.
    Length(usize),
    /// The body comes in chunks.
    Chunks,
    /// The body ends when the connection closes, because HTTP/1.0 has no chunks.
    UntilClose,
}

/// A complete answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The status.
    pub status: Status,
    /// The type of the body.
    pub content: ContentType,
    /// The body.
    pub body: Vec<u8>,
}

/// Header fields of every answer. With these fields, a browser does not let a page of another
/// origin load an answer, show it in a frame, or run it as a script.
const FIELDS: &str = "Cache-Control: no-store\r\n\
    X-Content-Type-Options: nosniff\r\n\
    Content-Security-Policy: default-src 'none'; frame-ancestors 'none'\r\n\
    Cross-Origin-Resource-Policy: same-origin\r\n\
    Referrer-Policy: no-referrer\r\n";

/// The format of `Date` (RFC 9110, section 5.6.7).
const DATE: &[BorrowedFormatItem<'_>] = format_description!(
    "[weekday repr:short], [day] [month repr:short] [year] [hour]:[minute]:[second] GMT"
);

/// Appends the head of an answer. `wall_ns` is the wall clock, in nanoseconds since 1970.
pub fn write_head(
    out: &mut Vec<u8>,
    status: Status,
    content: ContentType,
    framing: Framing,
    closes: bool,
    wall_ns: u64,
) {
    let (code, words) = status.parts();
    let date = OffsetDateTime::from_unix_timestamp_nanos(wall_ns.into())
        .ok()
        .and_then(|time| time.format(DATE).ok());
    // Writing to memory does not fail.
    let _ = write!(
        out,
        "HTTP/1.1 {code} {words}\r\nContent-Type: {content}\r\n"
    );
    if let Some(date) = date {
        let _ = write!(out, "Date: {date}\r\n");
    }
    let _ = match framing {
        Framing::Length(length) => write!(out, "Content-Length: {length}\r\n"),
        Framing::Chunks => write!(out, "Transfer-Encoding: chunked\r\n"),
        Framing::UntilClose => Ok(()),
    };
    if status == Status::MethodNotAllowed {
        out.extend_from_slice(b"Allow: GET, HEAD\r\n");
    }
    if closes {
        out.extend_from_slice(b"Connection: close\r\n");
    }
    out.extend_from_slice(FIELDS.as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// Appends a piece of a body in this framing. An empty piece appends nothing, because an empty
/// chunk would end the body.
pub fn write_piece(out: &mut Vec<u8>, piece: &[u8], framing: Framing) {
    match framing {
        Framing::Chunks if !piece.is_empty() => {
            let _ = write!(out, "{:x}\r\n", piece.len());
            out.extend_from_slice(piece);
            out.extend_from_slice(b"\r\n");
        }
        Framing::Chunks | Framing::Length(_) | Framing::UntilClose => {
            out.extend_from_slice(piece);
        }
    }
}

/// Appends the end of a body in this framing.
pub fn write_end(out: &mut Vec<u8>, framing: Framing) {
    match framing {
        Framing::Chunks => out.extend_from_slice(b"0\r\n\r\n"),
        Framing::Length(_) | Framing::UntilClose => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_has_the_expected_head() {
        let mut out = Vec::new();
        let framing = Framing::Length(3);
        let wall_ns = 784_111_777_000_000_000;
        write_head(
            &mut out,
            Status::MethodNotAllowed,
            ContentType::Json,
            framing,
            true,
            wall_ns,
        );
        let head = String::from_utf8(out).unwrap();
        let fields = head
            .strip_prefix("HTTP/1.1 405 Method Not Allowed\r\n")
            .unwrap();
        for field in [
            "Content-Type: application/json",
            "Date: Sun, 06 Nov 1994 08:49:37 GMT",
            "Content-Length: 3",
            "Allow: GET, HEAD",
            "Connection: close",
            "Cache-Control: no-store",
        ] {
            assert!(fields.contains(&format!("{field}\r\n")), "{head}");
        }
        assert!(!head.contains("Access-Control"), "{head}");
    }

    #[test]
    fn chunks_have_their_length_in_front() {
        let mut out = Vec::new();
        for piece in [&b"a"[..], b"", &[b'b'; 16]] {
            write_piece(&mut out, piece, Framing::Chunks);
        }
        write_end(&mut out, Framing::Chunks);
        assert_eq!(out, b"1\r\na\r\n10\r\nbbbbbbbbbbbbbbbb\r\n0\r\n\r\n");
    }
}
