//! An HTTP/1.1 response, which can arrive in pieces of any size.
//!
//! httparse parses the head. This module finds the end of the body, by RFC 9112 §6.3. A response
//! that can be understood in two ways is refused. Otherwise a proxy and this server could disagree
//! about the end of the response, and one of them would read the rest as another response.
//!
//! ```text
//!   Head ─┬─► Sized ───────────────────────────────► Done
//!         ├─► ChunkSize ⇄ ChunkData                  ▲ ▲
//!         │       └─────► Trailers ──────────────────┘ │
//!         └─► UntilClose ── clean end of the stream ───┘
//! ```

use std::fmt;

use crate::core::base::limits::{LimitValue, Limits};

/// The maximum number of headers in a head.
const MAX_HEADERS: usize = 64;
/// The maximum number of interim (1xx) responses before the final one.
const MAX_INTERIM: u8 = 8;
/// The maximum number of bytes of a line with a chunk's size, or of a trailer line. CRLF and
/// extensions are included.
const MAX_CHUNK_LINE: usize = 1024;
/// The maximum number of bytes of all trailer lines together.
const MAX_TRAILERS: usize = 8192;

/// Why a response is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ResponseError {
    /// The head is not HTTP/1.x, or has an unexpected status.
    BadHead,
    /// The head has more bytes or headers than the limits allow.
    HeadTooLarge,
    /// The length of the body is given twice, or can be understood in two ways.
    AmbiguousLength(&'static str),
    /// The chunked coding has an error.
    BadChunk,
    /// The body is longer than the limit allows.
    BodyTooLarge,
    /// The body has a content coding, which was not requested.
    Encoded,
    /// The connection ended before the response was complete.
    Truncated,
}

impl fmt::Display for ResponseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            ResponseError::BadHead => "its answer was not HTTP",
            ResponseError::HeadTooLarge => "the head of its answer was too large",
            ResponseError::AmbiguousLength(how) => {
                return write!(f, "the length of its answer was ambiguous ({how})");
            }
            ResponseError::BadChunk => "its answer was wrongly chunked",
            ResponseError::BodyTooLarge => "its answer was too large",
            ResponseError::Encoded => "its answer was encoded in a way that was not asked for",
            ResponseError::Truncated => "its answer was cut off",
        };
        f.write_str(text)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Head,
    Sized { remaining: usize },
    ChunkSize,
    ChunkData { remaining: usize },
    ChunkEnd,
    Trailers { bytes: usize },
    UntilClose,
    Done,
}

/// A response that is being received.
///
/// ```
/// use herd_mio::core::{base::limits::Limits, places::response::Response};
///
/// let mut response = Response::new(&Limits::default());
/// response.data_received(b"HTTP/1.1 200 OK\r\nTransfer-Enc")?;
/// response.data_received(b"oding: chunked\r\n\r\n4\r\n{\"a\"\r\n3\r\n:1}\r\n0\r\n\r\n")?;
/// assert!(response.is_done());
/// assert_eq!(response.body(), b"{\"a\":1}");
/// # Ok::<(), herd_mio::core::places::response::ResponseError>(())
/// ```
pub struct Response {
    state: State,
    status: u16,
    keep_alive: bool,
    interim: u8,
    /// The bytes of an unfinished head, chunk size or trailer line.
    pending: Vec<u8>,
    body: Vec<u8>,
    max_head: usize,
    max_body: usize,
}

impl Response {
    /// Creates a response that has received no bytes yet.
    #[must_use]
    pub fn new(limits: &Limits) -> Response {
        Response {
            state: State::Head,
            status: 0,
            keep_alive: false,
            interim: 0,
            pending: Vec::new(),
            body: Vec::new(),
            max_head: limits.places_head_bytes.to_count(),
            max_body: limits.places_body_bytes.to_count(),
        }
    }

    /// Whether the response is complete.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Returns the status code. 0 until the head is complete.
    #[must_use]
    pub fn status(&self) -> u16 {
        self.status
    }

    /// Returns the body received so far.
    #[must_use]
    pub fn body(&self) -> &[u8] {
        &self.body
    }

    /// Returns the number of bytes of memory that the received parts hold. This includes unused
    /// capacity.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        self.pending.capacity() + self.body.capacity()
    }

    /// Whether the connection can be used for another request.
    #[must_use]
    pub fn keep_alive(&self) -> bool {
        self.is_done() && self.keep_alive
    }

    /// Handles received bytes. Bytes after the end of the response belong to no request. If such
    /// bytes arrive, the response remains valid, but the connection cannot be used again.
    ///
    /// # Errors
    /// The response is refused. Its connection must be closed.
    pub fn data_received(&mut self, mut data: &[u8]) -> Result<(), ResponseError> {
        while !data.is_empty() {
            data = match self.state {
                State::Head => self.head(data)?,
                State::Sized { remaining } => {
                    let next_state = |remaining| {
                        if remaining == 0 {
                            State::Done
                        } else {
                            State::Sized { remaining }
                        }
                    };
                    self.take_body(data, remaining, next_state)?
                }
                State::ChunkSize => self.chunk_size(data)?,
                State::ChunkData { remaining } => {
                    let next_state = |remaining| {
                        if remaining == 0 {
                            State::ChunkEnd
                        } else {
                            State::ChunkData { remaining }
                        }
                    };
                    self.take_body(data, remaining, next_state)?
                }
                State::ChunkEnd => match self.line(data, 2)? {
                    (Some(line), rest) if line.is_empty() => {
                        self.state = State::ChunkSize;
                        rest
                    }
                    (Some(_), _) => return Err(ResponseError::BadChunk),
                    (None, rest) => rest,
                },
                State::Trailers { bytes } => self.trailer(data, bytes)?,
                State::UntilClose => self.take_body(data, usize::MAX, |_| State::UntilClose)?,
                State::Done => {
                    self.keep_alive = false;
                    &[]
                }
            };
        }
        Ok(())
    }

    /// Handles the end of the stream. `cleanly` means that TLS's `close_notify` was received, so
    /// nothing cut the stream off.
    ///
    /// # Errors
    /// The response is not complete.
    pub fn eof_received(&mut self, cleanly: bool) -> Result<(), ResponseError> {
        self.keep_alive = false;
        match self.state {
            State::Done => Ok(()),
            State::UntilClose if cleanly => {
                self.state = State::Done;
                Ok(())
            }
            State::Head
            | State::Sized { .. }
            | State::ChunkSize
            | State::ChunkData { .. }
            | State::ChunkEnd
            | State::Trailers { .. }
            | State::UntilClose => Err(ResponseError::Truncated),
        }
    }

    /// Appends at most `remaining` bytes of `data` to the body. `next_state` returns the next
    /// state; its argument is `remaining` minus the number of appended bytes. Returns the rest of
    /// `data`.
    fn take_body<'a>(
        &mut self,
        data: &'a [u8],
        remaining: usize,
        next_state: impl FnOnce(usize) -> State,
    ) -> Result<&'a [u8], ResponseError> {
        let (appended, rest) = data.split_at(data.len().min(remaining));
        if self.body.len() + appended.len() > self.max_body {
            return Err(ResponseError::BodyTooLarge);
        }
        self.body.extend_from_slice(appended);
        self.state = next_state(remaining - appended.len());
        Ok(rest)
    }

    /// Collects bytes until the blank line, then parses the head. Returns the rest of `data`.
    fn head<'a>(&mut self, data: &'a [u8]) -> Result<&'a [u8], ResponseError> {
        let before = self.pending.len();
        let space = self.max_head.saturating_sub(before).min(data.len());
        self.pending.extend_from_slice(&data[..space]);
        // The blank line can begin in bytes that were received before. httparse accepts LF alone as
        // a line end, so `head_end` accepts it too.
        let searched_from = before.saturating_sub(3);
        let Some(end) = head_end(&self.pending, searched_from) else {
            return if space < data.len() {
                Err(ResponseError::HeadTooLarge)
            } else {
                Ok(&[])
            };
        };
        let rest = &data[end - before..];
        let head = std::mem::take(&mut self.pending);
        self.read_head(&head[..end])?;
        Ok(rest)
    }

    fn read_head(&mut self, head: &[u8]) -> Result<(), ResponseError> {
        let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
        let mut response = httparse::Response::new(&mut headers);
        match response.parse(head) {
            Ok(httparse::Status::Complete(length)) if length == head.len() => {}
            Err(httparse::Error::TooManyHeaders) => return Err(ResponseError::HeadTooLarge),
            Ok(_) | Err(_) => return Err(ResponseError::BadHead),
        }
        let (Some(status), Some(minor)) = (response.code, response.version) else {
            return Err(ResponseError::BadHead);
        };
        if (100..200).contains(&status) {
            self.interim += 1;
            // 101 would switch the connection to a protocol that was not requested.
            return if status == 101 || self.interim > MAX_INTERIM {
                Err(ResponseError::BadHead)
            } else {
                Ok(())
            };
        }
        self.status = status;
        let framing = Framing::of(response.headers)?;
        self.keep_alive = minor == 1 && !framing.close;
        self.state = match (framing.chunked, framing.length) {
            (true, Some(_)) => {
                return Err(ResponseError::AmbiguousLength("both a length and chunks"));
            }
            (true, None) if minor == 0 => {
                return Err(ResponseError::AmbiguousLength("chunks in HTTP/1.0"));
            }
            _ if status == 204 || status == 304 => {
                // A response with one of these statuses has no body. If the head announces a body,
                // Places may send one in error. The bytes of that body would be read as the next
                // response, so the connection is not used again.
                self.keep_alive &= !framing.chunked && framing.length.unwrap_or(0) == 0;
                State::Done
            }
            (true, None) => State::ChunkSize,
            (false, Some(0)) => State::Done,
            (false, Some(length)) if length > self.max_body => {
                return Err(ResponseError::BodyTooLarge);
            }
            (false, Some(length)) => State::Sized { remaining: length },
            (false, None) => {
                self.keep_alive = false;
                State::UntilClose
            }
        };
        Ok(())
    }

    /// Collects bytes until CRLF. Returns the line without CRLF, if it is complete, and the rest of
    /// `data`. A line that ends with LF alone is refused, and a line of more than `max` bytes too.
    fn line<'a>(
        &mut self,
        data: &'a [u8],
        max: usize,
    ) -> Result<(Option<Vec<u8>>, &'a [u8]), ResponseError> {
        let end = memchr::memchr(b'\n', data);
        let appended = end.map_or(data.len(), |lf| lf + 1);
        if self.pending.len() + appended > max {
            return Err(ResponseError::BadChunk);
        }
        self.pending.extend_from_slice(&data[..appended]);
        if end.is_none() {
            return Ok((None, &[]));
        }
        let mut line = std::mem::take(&mut self.pending);
        if !line.ends_with(b"\r\n") {
            return Err(ResponseError::BadChunk);
        }
        line.truncate(line.len() - 2);
        Ok((Some(line), &data[appended..]))
    }

    fn chunk_size<'a>(&mut self, data: &'a [u8]) -> Result<&'a [u8], ResponseError> {
        let (Some(line), rest) = self.line(data, MAX_CHUNK_LINE)? else {
            return Ok(&[]);
        };
        // The size is hexadecimal digits only. An extension after a semicolon is allowed, and
        // ignored.
        let digits = line
            .iter()
            .position(|&byte| byte == b';')
            .map_or(&line[..], |at| line[..at].trim_ascii_end());
        let all_hex = !digits.is_empty() && digits.iter().all(u8::is_ascii_hexdigit);
        if !all_hex || line.contains(&b'\r') {
            return Err(ResponseError::BadChunk);
        }
        let size = std::str::from_utf8(digits)
            .ok()
            .and_then(|digits| usize::from_str_radix(digits, 16).ok());
        self.state = match size {
            None => return Err(ResponseError::BodyTooLarge),
            Some(size) if size > self.max_body => return Err(ResponseError::BodyTooLarge),
            Some(0) => State::Trailers { bytes: 0 },
            Some(remaining) => State::ChunkData { remaining },
        };
        Ok(rest)
    }

    fn trailer<'a>(&mut self, data: &'a [u8], bytes: usize) -> Result<&'a [u8], ResponseError> {
        let (Some(line), rest) = self.line(data, MAX_CHUNK_LINE)? else {
            return Ok(&[]);
        };
        let bytes = bytes + line.len();
        if bytes > MAX_TRAILERS {
            return Err(ResponseError::BadChunk);
        }
        self.state = if line.is_empty() {
            State::Done
        } else {
            State::Trailers { bytes }
        };
        Ok(rest)
    }
}

/// Returns the offset after the blank line that ends the head.
fn head_end(bytes: &[u8], from: usize) -> Option<usize> {
    memchr::memchr_iter(b'\n', &bytes[from..])
        .map(|at| from + at)
        .find_map(|lf| match bytes[..lf] {
            [.., b'\n'] | [.., b'\n', b'\r'] => Some(lf + 1),
            _ => None,
        })
}

/// The headers that decide where the body ends, and whether the connection closes then.
struct Framing {
    chunked: bool,
    length: Option<usize>,
    close: bool,
}

impl Framing {
    fn of(headers: &[httparse::Header<'_>]) -> Result<Framing, ResponseError> {
        let mut framing = Framing {
            chunked: false,
            length: None,
            close: false,
        };
        for header in headers {
            let value = header.value.trim_ascii();
            if header.name.eq_ignore_ascii_case("transfer-encoding") {
                if framing.chunked || !value.eq_ignore_ascii_case(b"chunked") {
                    return Err(ResponseError::AmbiguousLength(
                        "a transfer coding other than one chunked",
                    ));
                }
                framing.chunked = true;
            } else if header.name.eq_ignore_ascii_case("content-length") {
                if framing.length.is_some() {
                    return Err(ResponseError::AmbiguousLength("two lengths"));
                }
                if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
                    return Err(ResponseError::AmbiguousLength("a length that is no number"));
                }
                let number = std::str::from_utf8(value)
                    .ok()
                    .and_then(|digits| digits.parse().ok());
                framing.length = Some(number.ok_or(ResponseError::BodyTooLarge)?);
            } else if header.name.eq_ignore_ascii_case("connection") {
                framing.close |= value
                    .split(|&byte| byte == b',')
                    .any(|word| word.trim_ascii().eq_ignore_ascii_case(b"close"));
            } else if header.name.eq_ignore_ascii_case("content-encoding")
                && !value.eq_ignore_ascii_case(b"identity")
            {
                return Err(ResponseError::Encoded);
            }
        }
        Ok(framing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Passes the bytes to a response in pieces of `piece` bytes, and then the end of the stream.
    fn read(
        bytes: &[u8],
        piece: usize,
        cleanly: bool,
    ) -> Result<(u16, Vec<u8>, bool), ResponseError> {
        let mut response = Response::new(&Limits {
            places_head_bytes: 300,
            places_body_bytes: 256,
            ..Limits::default()
        });
        for piece in bytes.chunks(piece) {
            response.data_received(piece)?;
        }
        let keep_alive = response.keep_alive();
        response.eof_received(cleanly)?;
        Ok((response.status(), response.body().to_vec(), keep_alive))
    }

    fn every_way(bytes: &[u8]) -> Result<(u16, Vec<u8>, bool), ResponseError> {
        let whole = read(bytes, usize::MAX, false);
        for piece in 1..bytes.len() {
            assert_eq!(read(bytes, piece, false), whole, "in pieces of {piece}");
        }
        whole
    }

    fn ok(body: &str, keep_alive: bool) -> Result<(u16, Vec<u8>, bool), ResponseError> {
        Ok((200, body.as_bytes().to_vec(), keep_alive))
    }

    #[test]
    fn a_response_body_ends_where_its_head_says() {
        assert_eq!(
            every_way(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc"),
            ok("abc", true)
        );
        assert_eq!(
            every_way(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
            ok("", true)
        );
        assert_eq!(
            every_way(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: x, Close\r\n\r\nabc"),
            ok("abc", false)
        );
        assert_eq!(
            every_way(b"HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\nabc"),
            ok("abc", false)
        );
        assert_eq!(every_way(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n2;x=y\r\nab\r\n01\r\nc\r\n0\r\nT: 1\r\n\r\n"), ok("abc", true));
        assert_eq!(every_way(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Hints\r\nLink: a\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na"), ok("a", true));
        assert_eq!(
            every_way(b"HTTP/1.1 204 No Content\r\n\r\n"),
            Ok((204, vec![], true))
        );
        assert_eq!(
            read(b"HTTP/1.1 200 OK\r\n\r\nabc", 5, true),
            ok("abc", false)
        );
    }

    #[test]
    fn ambiguous_http_responses_are_rejected() {
        use ResponseError::{
            AmbiguousLength, BadChunk, BadHead, BodyTooLarge, Encoded, HeadTooLarge, Truncated,
        };
        let head = |headers: &str, body: &str| {
            every_way(format!("HTTP/1.1 200 OK\r\n{headers}\r\n\r\n{body}").as_bytes())
        };
        for (headers, body) in [
            (
                "Content-Length: 3\r\nTransfer-Encoding: chunked",
                "3\r\nabc\r\n0\r\n\r\n",
            ),
            ("Content-Length: 3\r\nContent-Length: 4", "abc"),
            ("Content-Length: 3\r\nContent-Length: 3", "abc"),
            ("Content-Length: 3, 3", "abc"),
            ("Content-Length: +3", "abc"),
            ("Content-Length: ", "abc"),
            ("Content-Length: 0x3", "abc"),
            ("Transfer-Encoding: gzip, chunked", ""),
            (
                "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
                "",
            ),
            ("Transfer-Encoding: identity", "abc"),
        ] {
            assert!(
                matches!(head(headers, body), Err(AmbiguousLength(_))),
                "{headers}"
            );
        }
        for chunks in [
            "\r\n",
            "+3\r\nabc\r\n0\r\n\r\n",
            "-1\r\n",
            "0x3\r\nabc",
            " 3\r\nabc",
            "g\r\n",
            ";x\r\n",
            "3\nabc\r\n",
            "3\r\nabcd\r\n",
            "3\r\nabc\n",
            "3\r\nabcXYZ",
        ] {
            assert_eq!(
                head("Transfer-Encoding: chunked", chunks),
                Err(BadChunk),
                "{chunks:?}"
            );
        }
        for chunks in ["", "3", "3\r\n", "3\r\nabc\r\n", "0\r\n", "0\r\nT: 1\r\n"] {
            assert_eq!(
                head("Transfer-Encoding: chunked", chunks),
                Err(Truncated),
                "{chunks:?}"
            );
        }
        assert_eq!(
            head("Transfer-Encoding: chunked", "ffffffffffffffffff\r\n"),
            Err(BodyTooLarge)
        );
        assert_eq!(
            head("Transfer-Encoding: chunked", "101\r\n"),
            Err(BodyTooLarge)
        );
        assert_eq!(head("Content-Length: 257", ""), Err(BodyTooLarge));
        assert_eq!(
            head("Content-Length: 99999999999999999999999", ""),
            Err(BodyTooLarge)
        );
        assert_eq!(head("Content-Length: 4", "abc"), Err(Truncated));
        assert_eq!(head("Content-Encoding: gzip", "abc"), Err(Encoded));
        assert_eq!(
            head(&format!("X: {}", "x".repeat(300)), ""),
            Err(HeadTooLarge)
        );
        assert_eq!(
            every_way(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nabc"),
            Err(Truncated),
            "no close_notify"
        );
        assert_eq!(
            every_way(b"HTTP/1.1 101 Switching Protocols\r\n\r\n"),
            Err(BadHead)
        );
        assert_eq!(every_way(b"HTTP/2 200 OK\r\n\r\n"), Err(BadHead));
        assert_eq!(every_way(b"SSH-2.0-x\r\n\r\n"), Err(BadHead));
        assert_eq!(
            every_way("HTTP/1.1 100 Continue\r\n\r\n".repeat(9).as_bytes()),
            Err(BadHead)
        );
        assert_eq!(
            every_way(b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
            Err(AmbiguousLength("chunks in HTTP/1.0"))
        );
    }

    #[test]
    fn bytes_after_a_response_close_the_connection() {
        assert_eq!(
            every_way(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabcHTTP/1.1 200 OK\r\n"),
            ok("abc", false)
        );
    }

    proptest! {
        #[test]
        fn chunk_boundaries_do_not_change_the_response(bytes in proptest::collection::vec(any::<u8>(), 0..200), head in 0usize..4, piece in 1usize..20, cleanly: bool) {
            let head = [&b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"[..], b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", b"HTTP/1.1 200 OK\r\n\r\n", b""][head];
            let bytes = [head, &bytes].concat();
            prop_assert_eq!(read(&bytes, piece, cleanly), read(&bytes, usize::MAX, cleanly));
        }

        #[test]
        fn any_chunked_encoding_is_decoded(body in proptest::collection::vec(any::<u8>(), 0..200), size in 1usize..50, piece in 1usize..30) {
            let mut bytes = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
            for chunk in body.chunks(size) {
                bytes.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
                bytes.extend_from_slice(chunk);
                bytes.extend_from_slice(b"\r\n");
            }
            bytes.extend_from_slice(b"0\r\n\r\n");
            prop_assert_eq!(read(&bytes, piece, false), Ok((200, body, true)));
        }
    }
}
