//! One client: what it has said, and whether it is answered as the wire's documentation says.

use herd_mio::core::base::limits::LINE_BYTES;
use herd_mio::core::places::answer::{google_error, is_json_object};
use herd_mio::core::session::tls::{REJECTED_ALERT, is_hello};

use crate::reference::{self, Command};
use crate::server;

/// What it takes to know which answers are right.
pub(crate) struct Circumstances {
    pub(crate) ms: u64,
    pub(crate) line_ms: u64,
    /// There was no room for a record, in the table or on the disk.
    pub(crate) may_refuse: bool,
}

/// A client, as seen from outside.
#[derive(Default)]
pub(crate) struct Mobile {
    /// What the server has read.
    said: Vec<u8>,
    /// Up to which byte it had read when.
    read_at: Vec<(usize, u64)>,
    has_ended: bool,
    /// What the server has written.
    heard: Vec<u8>,
    /// How much of both is accounted for.
    said_until: usize,
    heard_until: usize,
    /// It has been told its last.
    is_over: bool,
    /// What was said in its name makes no sense, so its answers are not waited for.
    has_given_up: bool,
    /// Why it is not let in has to be all that it hears.
    is_turned_away: bool,
}

/// What stands next in the input.
enum Next<'a> {
    Line(&'a [u8], usize),
    TooLong(&'a [u8]),
    Unfinished,
}

impl Mobile {
    /// One that is not let in.
    pub(crate) fn turned_away() -> Mobile {
        Mobile {
            is_over: true,
            is_turned_away: true,
            ..Mobile::default()
        }
    }

    pub(crate) fn is_turned_away(&self) -> bool {
        self.is_turned_away
    }

    /// Its answers are not waited for any more.
    pub(crate) fn give_up(&mut self) {
        self.has_given_up = true;
    }

    /// The server has ended its own side of the connection: what it reads from now on is not answered.
    pub(crate) fn hears_no_more(&mut self) {
        self.is_over = true;
    }

    /// The server has read this.
    pub(crate) fn says(&mut self, bytes: &[u8], ms: u64) {
        self.said.extend_from_slice(bytes);
        self.read_at.push((self.said.len(), ms));
    }

    /// The server has read the end of its stream.
    pub(crate) fn ends(&mut self) {
        self.has_ended = true;
    }

    fn next(&self) -> Next<'_> {
        let rest = &self.said[self.said_until..];
        let window = &rest[..rest.len().min(LINE_BYTES + 1)];
        match window.iter().position(|&byte| byte == b'\n') {
            Some(end) => Next::Line(&rest[..end], end + 1),
            None if rest.len() > LINE_BYTES => Next::TooLong(&rest[..LINE_BYTES]),
            None if self.has_ended && !rest.is_empty() => Next::Line(rest, rest.len()),
            None => Next::Unfinished,
        }
    }

    /// The server has written this: it has to be the next answers, in order. Returns the `AT` lines in it that promise something.
    pub(crate) fn hears(&mut self, bytes: &[u8], now: &Circumstances) -> Vec<reference::At> {
        self.heard.extend_from_slice(bytes);
        let mut promises = Vec::new();
        if self.is_turned_away {
            let (heard, end) = (&self.heard, self.heard.iter().position(|&b| b == b'\n'));
            let begins = |words: &[u8]| heard.starts_with(&words[..heard.len().min(words.len())]);
            let is_reason = begins(b"? there are ") || begins(REJECTED_ALERT);
            assert!(is_reason && end.is_none_or(|end| end + 1 == heard.len()));
            return promises;
        }
        while !self.is_over {
            let heard = &self.heard[self.heard_until..];
            if is_hello(&self.said[self.said_until..]) {
                // That is the end, in these words.
                const NO_TLS: &[u8] = b"? this port speaks plain text, not TLS\n";
                assert!(NO_TLS.starts_with(heard), "{}", self.show());
                if heard == NO_TLS {
                    self.heard_until = self.heard.len();
                    self.is_over = true;
                }
                break;
            }
            let (line, length) = match self.next() {
                Next::Line(line, length) => (line, length),
                Next::TooLong(line) => {
                    let answer = quote(line);
                    if heard.starts_with(&answer) {
                        self.heard_until += answer.len();
                        self.is_over = true;
                    } else if !answer.starts_with(heard) {
                        self.took_too_long(now);
                    }
                    break;
                }
                Next::Unfinished if heard.is_empty() => break,
                Next::Unfinished => {
                    self.took_too_long(now);
                    break;
                }
            };
            let command = reference::command(line);
            if command == Command::Blank {
                self.said_until += length;
                continue;
            }
            let Some(end) = heard.iter().position(|&byte| byte == b'\n') else {
                break;
            };
            let answer = &heard[..=end];
            let may_refuse = now.may_refuse || !matches!(command, Command::Iamat { .. });
            // A CR belongs to the line's end only if there is one.
            let unended = line.len() == length;
            let bare = line.strip_suffix(b"\r").filter(|_| !unended);
            let refusal = quote(bare.unwrap_or(line));
            let took = match command {
                _ if may_refuse && answer == refusal => answer.len(),
                Command::Iamat {
                    client,
                    location,
                    time,
                } if answer.starts_with(b"AT ") => {
                    let at = reference::At::read(&answer[..end]);
                    let tail = [b"", client, location, time].join(&b' ');
                    let server = format!("AT {} ", server::NAME);
                    assert!(
                        answer.starts_with(server.as_bytes()) && answer[..end].ends_with(&tail),
                        "{}",
                        self.show()
                    );
                    promises.extend(at);
                    answer.len()
                }
                Command::Whatsat { client, .. } if answer.starts_with(b"AT ") => {
                    let at = reference::At::read(&answer[..end]);
                    let json = &heard[end + 1..];
                    let Some(json_end) = json.windows(2).position(|pair| pair == b"\n\n") else {
                        break;
                    };
                    let text = String::from_utf8_lossy(&json[..json_end]);
                    let is_right = at.as_ref().is_some_and(|at| at.client == client);
                    let is_answer = is_json_object(&text) || google_error(&text).is_some();
                    assert!(is_right && is_answer, "{}", self.show());
                    // What a neighbour taught when the disk was full, it may have to teach again.
                    let own = format!("AT {} ", server::NAME);
                    promises.extend(at.filter(|at| at.line.starts_with(own.as_bytes())));
                    answer.len() + json_end + 2
                }
                Command::Blank
                | Command::Iamat { .. }
                | Command::Whatsat { .. }
                | Command::Invalid => {
                    self.took_too_long(now);
                    break;
                }
            };
            self.said_until += length;
            self.heard_until += took;
        }
        assert!(
            !self.is_over || self.heard_until == self.heard.len(),
            "more than the last: {}",
            self.show()
        );
        promises
    }

    /// What it hears can only be the beginning of a line that was not finished in time.
    fn took_too_long(&mut self, now: &Circumstances) {
        let (said, heard) = (
            &self.said[self.said_until..],
            &self.heard[self.heard_until..],
        );
        if !heard.ends_with(b"\n") {
            return; // not all of it is there
        }
        let quoted = heard
            .strip_prefix(b"? ")
            .and_then(|rest| rest.strip_suffix(b"\n"))
            .unwrap_or(b"\n");
        let began = self
            .read_at
            .iter()
            .find(|(until, _)| *until > self.said_until);
        let is_late = began.is_some_and(|(_, ms)| now.ms >= ms + now.line_ms);
        assert!(
            is_late && said.starts_with(quoted) && !quoted.contains(&b'\n'),
            "{}",
            self.show()
        );
        self.heard_until = self.heard.len();
        self.is_over = true;
    }

    /// How much it has heard.
    pub(crate) fn heard_bytes(&self) -> usize {
        self.heard.len()
    }

    /// Whether everything is answered that can be.
    pub(crate) fn is_content(&mut self) -> bool {
        while let Next::Line(line, length) = self.next()
            && reference::command(line) == Command::Blank
        {
            self.said_until += length;
        }
        let is_answered = matches!(self.next(), Next::Unfinished);
        self.is_over || self.has_given_up || is_answered && self.heard_until == self.heard.len()
    }

    /// The two sides, as far as they are not accounted for.
    pub(crate) fn show(&self) -> String {
        let (said, heard) = (
            &self.said[self.said_until..],
            &self.heard[self.heard_until..],
        );
        let short = |bytes: &[u8]| {
            let shown = bytes[..bytes.len().min(300)].escape_ascii();
            format!("{shown} ({} bytes)", bytes.len())
        };
        format!("said: {}; heard: {}", short(said), short(heard))
    }
}

fn quote(line: &[u8]) -> Vec<u8> {
    [b"? ", line, b"\n"].concat()
}
