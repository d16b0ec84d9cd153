//! A client of the HTTP port: sends requests, and checks the answers.

use arbitrary::Unstructured;

/// What may be asked, and whether the answer has no body.
const REQUESTS: [(&str, bool); 12] = [
    ("GET /healthz/live HTTP/1.1\r\nHost: localhost\r\n\r\n", false),
    ("GET /healthz/ready HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", false),
    ("GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n", false),
    ("GET /metrics HTTP/1.1\r\nHost: localhost\r\nAccept: application/openmetrics-text\r\n\r\n", false),
    ("HEAD /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n", true),
    ("GET /status HTTP/1.1\r\nHost: localhost\r\n\r\n", false),
    ("GET /links HTTP/1.1\r\nHost: localhost\r\n\r\n", false),
    ("GET /connections HTTP/1.1\r\nHost: localhost\r\n\r\n", false),
    ("GET /connections?after=2&limit=2 HTTP/1.1\r\nHost: localhost\r\n\r\n", false),
    ("GET /calls HTTP/1.1\r\nHost: localhost\r\n\r\n", false),
    ("GET /clients/kiwi HTTP/1.1\r\nHost: localhost\r\n\r\n", false),
    ("GET /slow HTTP/1.1\r\nHost: evil.example\r\n\r\n", false),
];

/// The head's end.
const END: &[u8] = b"\r\n\r\n";

/// A client of the HTTP port.
#[derive(Default)]
pub(crate) struct Visitor {
    /// For each request that has no answer yet: whether the answer has no body.
    asked: Vec<bool>,
    /// What has come of an answer.
    heard: Vec<u8>,
    /// It has said what is no request, so anything may follow.
    is_rude: bool,
    /// It waits for no answer any more: it has ended, or the server closes.
    is_over: bool,
}

impl Visitor {
    /// Asks for something; often only the beginning of that, which makes it rude.
    pub(crate) fn asks(&mut self, input: &mut Unstructured<'_>) -> arbitrary::Result<Vec<u8>> {
        if input.ratio(1, 4)? {
            self.is_rude = true;
            let length = input.int_in_range(0..=40)?;
            let (request, _) = input.choose(&REQUESTS)?;
            let mut said = request.as_bytes()[..length.min(request.len())].to_vec();
            said.extend(input.bytes(length.min(input.len()).min(8))?);
            return Ok(said);
        }
        let (request, has_no_body) = input.choose(&REQUESTS)?;
        self.asked.push(*has_no_body);
        Ok(request.as_bytes().to_vec())
    }

    /// Others break into what it says.
    pub(crate) fn is_disturbed(&mut self) {
        self.is_rude = true;
    }

    /// It says no more.
    pub(crate) fn ends(&mut self) {
        self.is_over = true;
    }

    /// Hears bytes of the server.
    pub(crate) fn hears(&mut self, bytes: &[u8]) {
        self.heard.extend_from_slice(bytes);
        while let Some(length) = self.answer() {
            self.heard.drain(..length);
        }
    }

    /// The length of the first answer, if it is whole; it has to be a good one.
    fn answer(&mut self) -> Option<usize> {
        let head = self.heard.windows(END.len()).position(|it| it == END)? + END.len();
        let text = std::str::from_utf8(&self.heard[..head]).ok()?.to_owned();
        let status: u16 = text.split(' ').nth(1).and_then(|it| it.parse().ok())?;
        assert!(text.starts_with("HTTP/1.1 "), "{text}");
        self.is_over |= text.contains("\r\nConnection: close\r\n");
        let has_no_body = match self.asked.first() {
            Some(has_no_body) => *has_no_body && !self.is_rude,
            None => {
                assert!(self.is_rude, "an answer to nothing: {text}");
                false
            }
        };
        // What was said between makes it unknowable which request was HEAD.
        if self.is_rude {
            self.heard.clear();
            return None;
        }
        assert!(matches!(status, 200 | 404 | 421 | 503), "{text}");
        let rest = &self.heard[head..];
        let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name));
        let (body, length) = if has_no_body {
            (Vec::new(), 0)
        } else if let Some(length) = field("Content-Length: ") {
            let length: usize = length.parse().ok()?;
            (rest.get(..length)?.to_vec(), length)
        } else {
            assert!(field("Transfer-Encoding: chunked").is_some(), "{text}");
            chunks(rest)?
        };
        if !has_no_body && text.contains("application/json") {
            let json: Result<serde_json::Value, _> = serde_json::from_slice(&body);
            assert!(json.is_ok(), "{:?}", String::from_utf8_lossy(&body));
        }
        self.asked.remove(0);
        Some(head + length)
    }

    /// Whether everything that it asked was answered.
    pub(crate) fn is_content(&self) -> bool {
        self.is_rude || self.is_over || self.asked.is_empty()
    }
}

/// The body in chunks, and how long it is with them; if it is whole.
fn chunks(bytes: &[u8]) -> Option<(Vec<u8>, usize)> {
    let (mut body, mut at) = (Vec::new(), 0);
    loop {
        let line = bytes[at..].windows(2).position(|it| it == b"\r\n")?;
        let digits = std::str::from_utf8(&bytes[at..at + line]).ok()?;
        let length = usize::from_str_radix(digits, 16);
        assert!(length.is_ok(), "{digits:?} is no length");
        let length = length.ok()?;
        at += line + 2;
        body.extend_from_slice(bytes.get(at..at + length)?);
        assert_eq!(bytes.get(at + length..at + length + 2)?, b"\r\n");
        at += length + 2;
        if length == 0 {
            return Some((body, at));
        }
    }
}
