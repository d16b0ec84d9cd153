//! The framing of answers: it finds where one answer ends and the next begins.
//!
//! The stream does not name the command of an answer. Answers come in the order of the commands, so
//! the sender of the commands knows what comes next. This is a state machine without a socket:
//! bytes go in, whole answers come out.
//!
//! ```text
//!   command          answer
//!   blank            nothing
//!   WHATSAT …        AT line, JSON, LF LF        (in the JSON, LF LF never occurs)
//!                    or a refusal
//!   anything else    AT line, or a refusal: `? ` and a copy of the command
//! ```

use std::fmt;

use herd_mio::core::wire::lines::fields;

use crate::printable;

/// The greatest length of a line. A herd-mio server stays below 4,400 bytes, so a longer line comes
/// from another kind of server.
const LINE_BYTES_MAX: usize = 64 * 1024;
/// The greatest length of the JSON. Google's has about 30,000 bytes for 20 places.
const JSON_BYTES_MAX: usize = 64 * 1024 * 1024;
/// The first byte of a TLS alert. A server that expects TLS sends one.
const TLS_ALERT: u8 = 0x15;

/// The kind of answer to a command that is not refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expected {
    /// One line.
    Line,
    /// An AT line and JSON.
    Places,
}

impl Expected {
    /// The kind of answer to this line. `None` if the line gets no answer.
    pub(crate) fn for_line(line: &[u8]) -> Option<Expected> {
        match fields(line).next() {
            None => None,
            Some(b"WHATSAT") => Some(Expected::Places),
            Some(_) => Some(Expected::Line),
        }
    }
}

/// One answer, byte for byte. Lines are without their LF, the JSON is without the two LFs after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer<'a> {
    /// An AT line.
    At(&'a [u8]),
    /// An AT line and the places near the client.
    Places { at: &'a [u8], json: &'a [u8] },
    /// `? ` and a copy of the command.
    Refused(&'a [u8]),
}

/// The bytes are no answer, so later answers cannot be found either.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Nonsense(String);

impl fmt::Display for Nonsense {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The received bytes, and the progress in them.
#[derive(Debug, Default)]
pub(crate) struct Answers {
    buffer: Vec<u8>,
    /// The beginning of the next answer.
    start: usize,
    /// The first bytes of that answer, in which no end was found. They need not be searched again.
    scanned: usize,
    /// The length of its AT line, LF included, if that is complete and JSON has to follow.
    at_bytes: Option<usize>,
}

impl Answers {
    /// Adds received bytes.
    pub(crate) fn data_received(&mut self, data: &[u8]) {
        self.buffer.drain(..self.start);
        self.start = 0;
        self.buffer.extend_from_slice(data);
    }

    /// Whether there are no bytes after the last answer.
    pub(crate) fn is_empty(&self) -> bool {
        self.buffer.len() == self.start
    }

    /// The next answer, if it is complete. Until then `expected` must stay the same.
    pub(crate) fn next(&mut self, expected: Expected) -> Result<Option<Answer<'_>>, Nonsense> {
        let Some(length) = self.length(expected)? else {
            return Ok(None);
        };
        let whole = &self.buffer[self.start..self.start + length];
        let at_bytes = self.at_bytes.take();
        self.start += length;
        self.scanned = 0;
        Ok(Some(match at_bytes {
            Some(at_bytes) => Answer::Places {
                at: &whole[..at_bytes - 1],
                json: &whole[at_bytes..length - 2],
            },
            None if whole[0] == b'?' => Answer::Refused(&whole[..length - 1]),
            None => Answer::At(&whole[..length - 1]),
        }))
    }

    /// The length of the next answer, if it is complete.
    fn length(&mut self, expected: Expected) -> Result<Option<usize>, Nonsense> {
        let rest = &self.buffer[self.start..];
        if self.at_bytes.is_none() {
            begins_well(rest)?;
            let Some(end) = rest[self.scanned..].iter().position(|&byte| byte == b'\n') else {
                self.scanned = rest.len();
                return fits(rest, LINE_BYTES_MAX, "a line");
            };
            let line_bytes = self.scanned + end + 1;
            if expected == Expected::Line || rest[0] == b'?' {
                return Ok(Some(line_bytes));
            }
            self.at_bytes = Some(line_bytes);
            self.scanned = line_bytes;
        }
        match rest[self.scanned..]
            .windows(2)
            .position(|two| two == b"\n\n")
        {
            Some(end) => Ok(Some(self.scanned + end + 2)),
            None => {
                // The last byte may be the first of the two LFs, unless it ends the AT line.
                let behind_at = self.at_bytes.unwrap_or(0);
                self.scanned = behind_at.max(rest.len() - 1);
                fits(rest, JSON_BYTES_MAX, "JSON")
            }
        }
    }
}

/// Checks the first bytes of an answer. So another kind of server is noticed before a whole line
/// has come.
fn begins_well(rest: &[u8]) -> Result<(), Nonsense> {
    let begins = |with: &[u8]| with.starts_with(&rest[..rest.len().min(with.len())]);
    if begins(b"AT ") || begins(b"? ") {
        return Ok(());
    }
    if rest.starts_with(&[TLS_ALERT]) {
        return Err(Nonsense(
            "a TLS alert, so it uses TLS with its clients; add --tls (and --ca FILE, if the herd has its own authority)"
                .to_owned(),
        ));
    }
    let line = rest.split(|&byte| byte == b'\n').next().unwrap_or_default();
    let shown = printable::line(&line[..line.len().min(40)]);
    Err(Nonsense(format!(
        "\"{shown}\", which is neither an AT line nor a refusal (is it a herd-mio server's port for clients?)"
    )))
}

fn fits<T>(rest: &[u8], limit: usize, what: &str) -> Result<Option<T>, Nonsense> {
    if rest.len() > limit {
        return Err(Nonsense(format!(
            "{what} of more than {limit} bytes (is it a herd-mio server's port for clients?)"
        )));
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: &[u8] = b"AT Riley +0.263873386 kiwi +34.068930-118.445127 1621464827.959498503";
    const JSON: &[u8] = b"{\n   \"results\" : [],\n   \"status\" : \"OK\"\n}";

    /// Commands, their answers, and the bytes that a server would send for them.
    fn transcript() -> (Vec<Expected>, Vec<Answer<'static>>, Vec<u8>) {
        let steps = [
            ("IAMAT a", Answer::At(AT)),
            ("WHATSAT kiwi 10 5", Answer::Places { at: AT, json: JSON }),
            ("WHATSAT kiwi 10 5", Answer::Places { at: AT, json: b"" }),
            (
                "WHATSAT kiwi 10 5",
                Answer::Places {
                    at: AT,
                    json: b"\n{}\nAT x\n? x",
                },
            ),
            ("WHATSAT x", Answer::Refused(b"? WHATSAT x")),
            ("x", Answer::Refused(b"? x")),
            ("AT x", Answer::Refused(b"? AT \xff\r \x1b")),
            ("IAMAT b", Answer::At(b"AT b")),
        ];
        let mut sent = Vec::new();
        for (_, answer) in steps {
            match answer {
                Answer::At(line) | Answer::Refused(line) => {
                    sent.extend_from_slice(line);
                    sent.push(b'\n');
                }
                Answer::Places { at, json } => {
                    sent.extend_from_slice(at);
                    sent.push(b'\n');
                    sent.extend_from_slice(json);
                    sent.extend_from_slice(b"\n\n");
                }
            }
        }
        let expected = steps.map(|(line, _)| Expected::for_line(line.as_bytes()).unwrap());
        (
            expected.to_vec(),
            steps.map(|(_, answer)| answer).to_vec(),
            sent,
        )
    }

    fn check(pieces: &[&[u8]]) {
        let (expected, wanted, _) = transcript();
        let mut answers = Answers::default();
        let mut found = 0;
        for piece in pieces {
            answers.data_received(piece);
            while let Some(&next) = expected.get(found) {
                match answers.next(next).unwrap() {
                    Some(answer) => assert_eq!(answer, wanted[found], "{pieces:?}"),
                    None => break,
                }
                found += 1;
            }
        }
        assert_eq!(found, wanted.len(), "{pieces:?}");
        assert!(answers.is_empty());
    }

    #[test]
    fn answers_are_parsed_at_every_split() {
        let (_, _, sent) = transcript();
        for first in 0..=sent.len() {
            for second in first..=sent.len() {
                check(&[&sent[..first], &sent[first..second], &sent[second..]]);
            }
        }
    }

    #[test]
    fn answers_are_parsed_byte_by_byte() {
        let (_, _, sent) = transcript();
        check(&sent.chunks(1).collect::<Vec<_>>());
    }

    #[test]
    fn the_kind_of_answer_is_derived_from_the_line() {
        for blank in [&b""[..], b" \t\r\x0b\x0c"] {
            assert_eq!(Expected::for_line(blank), None);
        }
        for (line, expected) in [
            (&b"WHATSAT"[..], Expected::Places),
            (b" \x0bWHATSAT\tkiwi", Expected::Places),
            (b"WHATSAT\xc2\xa0kiwi", Expected::Line), // A no-break space is no white space here.
            (b"\x1c", Expected::Line),
            (b"IAMAT", Expected::Line),
        ] {
            assert_eq!(Expected::for_line(line), Some(expected));
        }
    }

    #[test]
    fn an_unknown_protocol_is_reported_at_its_first_bytes() {
        for (sent, told) in [
            (&b"H"[..], "\"H\", which"),
            (
                b"HTTP/1.1 400 Bad Request\r\n",
                "\"HTTP/1.1 400 Bad Request\\x0d\", which",
            ),
            (b"\n", "\"\", which"),
            (b"ATx", "\"ATx\", which"),
            (b"?x\n", "\"?x\", which"),
        ] {
            let mut answers = Answers::default();
            answers.data_received(sent);
            let told_of = answers.next(Expected::Line).unwrap_err().to_string();
            assert!(told_of.starts_with(told), "{told_of}");
        }
        let mut answers = Answers::default();
        answers.data_received(b"AT ");
        answers.data_received(&[b'x'; LINE_BYTES_MAX]);
        assert!(answers.next(Expected::Line).is_err());
    }
}
