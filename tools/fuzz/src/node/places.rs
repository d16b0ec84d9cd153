//! What stands in for Google Places: requests that are looked at, and answers of every kind.

use arbitrary::Unstructured;

use crate::server::KEY;

/// Its host's name.
pub(crate) const HOST: &str = "places.example";

/// The far end of one connection.
#[derive(Default)]
pub(crate) struct Origin {
    request: Vec<u8>,
    /// Whole requests that are not answered.
    pub(crate) asked: usize,
}

impl Origin {
    /// The server under test has said this.
    pub(crate) fn hears(&mut self, bytes: &[u8]) {
        self.request.extend_from_slice(bytes);
        while let Some(end) = self.request.windows(4).position(|end| end == b"\r\n\r\n") {
            let head: Vec<u8> = self.request.drain(..end + 4).collect();
            let is_new = head.starts_with(b"POST /v1/places:searchNearby HTTP/1.1\r\n");
            let is_legacy = head.starts_with(b"GET /maps/api/place/nearbysearch/json?location=");
            assert!(is_new || is_legacy, "{}", head.escape_ascii());
            if is_new {
                // The body is short, and is sent with the head.
                assert!(self.request.starts_with(b"{\"maxResultCount\":"));
                self.request.clear();
            }
            self.asked += 1;
        }
    }

    /// An answer, of whatever kind the input chooses, and whether TLS is closed behind it.
    pub(crate) fn answer(
        &mut self,
        input: &mut Unstructured<'_>,
    ) -> arbitrary::Result<(Vec<u8>, bool)> {
        let json = match input.int_in_range(0..=5_u8)? {
            0 => "{}".to_owned(),
            1 => "{\n   \"results\" : [ 1, 2, 3 ],\n\n   \"places\" : [ {} ]\n}\n".to_owned(),
            2 => format!("{{\"results\":[\"{}\"]}}", "x".repeat(3_000)),
            3 => "not JSON".to_owned(),
            4 => format!("{{\"error\":\"{}\"}}", String::from_utf8_lossy(KEY)),
            _ => {
                let length = input.int_in_range(0..=40)?;
                String::from_utf8_lossy(input.bytes(length)?).into_owned()
            }
        };
        let status = *input.choose(&["200 OK", "200 OK", "503 Busy", "302 Found"])?;
        let length = json.len();
        let (stream, may_close) = match input.int_in_range(0..=7_u8)? {
            0..=2 => (
                format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\n\r\n{json}"),
                true,
            ),
            3 => (
                format!(
                    "HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{json}"
                ),
                true,
            ),
            4 => (
                format!(
                    "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 {status}\r\nTransfer-Encoding: chunked\r\n\r\n{length:x}\r\n{json}\r\n0\r\n\r\n"
                ),
                true,
            ),
            5 => (format!("HTTP/1.1 {status}\r\n\r\n{json}"), true),
            6 => (
                format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\n\r\n{json}and more"),
                false,
            ),
            _ => (json, true),
        };
        self.asked = self.asked.saturating_sub(1);
        let closes = may_close && input.ratio(1, 4)?;
        Ok((stream.into_bytes(), closes))
    }
}
