//! The commands and answers of one connection: it keeps the commands without an answer, and checks
//! each answer. It has no socket and no clock.

use std::collections::VecDeque;

use memchr::{memchr, memmem};

use crate::answers::{self, Found, JSON_BYTES, LINE_BYTES, Rules, Wrong};
use crate::commands::Commands;
use crate::outages::MissingByKind;

/// The start time of a command that introduces a client: its latency is not recorded.
pub(crate) const INTRODUCED: u64 = 0;

/// Answered commands are removed from the front of the buffer when they have this many bytes.
const COMPACT_BYTES: usize = 4096;

/// A command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Iamat,
    Whatsat,
}

/// A command without an answer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked {
    pub(crate) kind: Kind,
    pub(crate) client: u32,
    /// The start of its latency, on the monotonic clock.
    pub(crate) since_ns: u64,
    /// The time in the `IAMAT`.
    stamp_ns: u64,
    /// The length of the command in bytes.
    length: usize,
}

/// The answer to a command. It has passed every check.
pub(crate) struct Answered<'a> {
    pub(crate) asked: Asked,
    /// The `AT` line without its LF.
    pub(crate) line: &'a [u8],
    /// After a `WHATSAT`'s line: the JSON, and the kind of its content.
    pub(crate) json: Option<(Found, &'a [u8])>,
}

/// The last `AT` line of each client, which the answer to a `WHATSAT` must repeat. Without
/// `WHATSAT`s it stores nothing.
#[derive(Debug, Default)]
pub(crate) struct Heard {
    lines: Vec<Vec<u8>>,
}

impl Heard {
    /// Room for this many clients.
    pub(crate) fn of(clients: u32) -> Heard {
        Heard {
            lines: (0..clients).map(|_| Vec::new()).collect(),
        }
    }

    fn note(&mut self, client: u32, line: &[u8]) {
        if let Some(place) = self.lines.get_mut(client as usize) {
            place.clear();
            place.extend_from_slice(line);
        }
    }

    fn line(&self, client: u32) -> &[u8] {
        self.lines
            .get(client as usize)
            .map(Vec::as_slice)
            .unwrap_or_default()
    }
}

/// The commands and answers of one connection.
#[derive(Debug, Default)]
pub(crate) struct Conversation {
    /// The bytes of every command without an answer, and of some with one.
    commands: Vec<u8>,
    /// The start of the first command without an answer.
    unanswered: usize,
    /// The end of the bytes that the socket has taken.
    sent: usize,
    asked: VecDeque<Asked>,
    /// The beginning of an incomplete answer.
    tail: Vec<u8>,
    /// The number of answered commands.
    pub(crate) answers: u64,
}

impl Conversation {
    /// Room for this many commands without an answer, of this length.
    pub(crate) fn with_capacity(commands: usize, bytes: usize) -> Conversation {
        Conversation {
            commands: Vec::with_capacity(commands * bytes),
            asked: VecDeque::with_capacity(commands),
            ..Conversation::default()
        }
    }

    /// The commands without an answer. Introductions are left out, because they are not counted.
    pub(crate) fn missing(&self, now_ns: u64) -> MissingByKind {
        let mut missing = MissingByKind::default();
        for asked in self.asked.iter().filter(|it| it.since_ns != INTRODUCED) {
            match asked.kind {
                Kind::Iamat => missing.iamat.add(asked.since_ns, now_ns),
                Kind::Whatsat => missing.whatsat.add(asked.since_ns, now_ns),
            }
        }
        missing
    }

    /// The connection is lost. Drops all commands without an answer, so that the next connection
    /// starts afresh.
    pub(crate) fn abandon(&mut self) {
        self.commands.clear();
        self.unanswered = 0;
        self.sent = 0;
        self.asked.clear();
        self.tail.clear();
    }

    /// The number of commands without an answer.
    pub(crate) fn in_flight(&self) -> usize {
        self.asked.len()
    }

    /// The bytes that the socket has not taken yet.
    pub(crate) fn unsent(&self) -> &[u8] {
        &self.commands[self.sent..]
    }

    /// The socket took this many bytes.
    pub(crate) fn sent(&mut self, count: usize) {
        self.sent += count;
    }

    /// Adds an `IAMAT` with this wall time.
    pub(crate) fn iamat(
        &mut self,
        commands: &mut Commands,
        client: u32,
        since_ns: u64,
        wall_ns: u64,
    ) {
        let start = self.commands.len();
        let stamp_ns = commands.iamat(&mut self.commands, client, wall_ns);
        self.asked.push_back(Asked {
            kind: Kind::Iamat,
            client,
            since_ns,
            stamp_ns,
            length: self.commands.len() - start,
        });
    }

    /// Adds a `WHATSAT`.
    pub(crate) fn whatsat(&mut self, commands: &mut Commands, client: u32, since_ns: u64) {
        let start = self.commands.len();
        commands.whatsat(&mut self.commands, client);
        self.asked.push_back(Asked {
            kind: Kind::Whatsat,
            client,
            since_ns,
            stamp_ns: 0,
            length: self.commands.len() - start,
        });
    }

    /// Takes bytes that arrived by this wall time, and passes on each answer that is complete and
    /// correct.
    pub(crate) fn receive(
        &mut self,
        bytes: &[u8],
        wall_ns: u64,
        rules: &Rules,
        heard: &mut Heard,
        answered: impl FnMut(&Answered<'_>),
    ) -> Result<(), Box<Wrong>> {
        if self.tail.is_empty() {
            let used = self.take_answers(bytes, wall_ns, rules, heard, answered)?;
            self.tail.extend_from_slice(&bytes[used..]);
        } else {
            let mut tail = std::mem::take(&mut self.tail);
            tail.extend_from_slice(bytes);
            let used = self.take_answers(&tail, wall_ns, rules, heard, answered)?;
            tail.drain(..used);
            self.tail = tail;
        }
        self.compact();
        Ok(())
    }

    /// Returns the number of bytes in complete answers.
    fn take_answers(
        &mut self,
        bytes: &[u8],
        wall_ns: u64,
        rules: &Rules,
        heard: &mut Heard,
        mut answered: impl FnMut(&Answered<'_>),
    ) -> Result<usize, Box<Wrong>> {
        let mut used = 0;
        while used < bytes.len() {
            let rest = &bytes[used..];
            let Some(&asked) = self.asked.front() else {
                return Err(wrong("an answer without a command", b"", "nothing", rest));
            };
            let end = self.unanswered + asked.length;
            let command = &self.commands[self.unanswered..end];
            if end > self.sent {
                let what = "an answer to a command that was not completely sent";
                return Err(wrong(what, command, "nothing yet", rest));
            }
            let Some(line_end) = memchr(b'\n', rest) else {
                if rest.len() > LINE_BYTES {
                    let what = "a line without an LF";
                    return Err(wrong(what, command, "an LF", rest));
                }
                break;
            };
            let line = &rest[..line_end];
            let (answer, length) = match asked.kind {
                Kind::Iamat => {
                    let command = &command[..asked.length - 1];
                    rules.check_at(line, command, asked.stamp_ns, wall_ns)?;
                    heard.note(asked.client, line);
                    let answer = Answered {
                        asked,
                        line,
                        json: None,
                    };
                    (answer, line_end + 1)
                }
                Kind::Whatsat => {
                    let expected = heard.line(asked.client);
                    let behind = &rest[line_end + 1..];
                    let Some((found, json)) = whatsat(line, behind, command, expected, rules)?
                    else {
                        break;
                    };
                    let answer = Answered {
                        asked,
                        line,
                        json: Some((found, json)),
                    };
                    (answer, line_end + 1 + json.len() + 2)
                }
            };
            answered(&answer);
            used += length;
            self.unanswered = end;
            self.asked.pop_front();
            self.answers += 1;
        }
        Ok(used)
    }

    /// Removes the bytes of answered commands, if there are many.
    fn compact(&mut self) {
        if self.unanswered == self.commands.len() {
            self.commands.clear();
        } else if self.unanswered >= COMPACT_BYTES {
            self.commands.drain(..self.unanswered);
        } else {
            return;
        }
        self.sent -= self.unanswered;
        self.unanswered = 0;
    }
}

/// Checks the answer to a `WHATSAT`: its line, and the JSON after it. `None` if the answer is
/// incomplete.
fn whatsat<'a>(
    line: &[u8],
    behind: &'a [u8],
    command: &[u8],
    expected: &[u8],
    rules: &Rules,
) -> Result<Option<(Found, &'a [u8])>, Box<Wrong>> {
    if line != expected {
        let what = "the AT line, which must repeat the answer to the client's last IAMAT";
        let expected = herd_mio::core::wire::escape::Escaped(expected).to_string();
        return Err(wrong(what, command, &expected, line));
    }
    let Some(length) = memmem::find(behind, b"\n\n") else {
        if behind.len() > JSON_BYTES {
            let what = "a JSON without two LFs after it";
            return Err(wrong(what, command, "two LFs", behind));
        }
        return Ok(None);
    };
    let json = &behind[..length];
    match rules.check_json(json) {
        Ok(found) => Ok(Some((found, json))),
        Err(what) => {
            let expected = format!("a JSON object with at most {} places", rules.bound);
            Err(wrong(&what, command, &expected, json))
        }
    }
}

#[cold]
fn wrong(what: &str, sent: &[u8], expected: &str, got: &[u8]) -> Box<Wrong> {
    Box::new(answers::Wrong {
        what: what.into(),
        sent: sent.to_vec(),
        expected: expected.into(),
        got: got.to_vec(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const WALL: u64 = 1_795_225_348_000_000_000;
    const JSON: &str =
        "{\n   \"html_attributions\" : [],\n   \"results\" : [],\n   \"status\" : \"OK\"\n}";

    struct Talk {
        conversation: Conversation,
        commands: Commands,
        rules: Rules,
        heard: Heard,
        sent: Vec<String>,
    }

    impl Talk {
        /// Sends these commands, all of client 1.
        fn new(kinds: &[Kind]) -> Talk {
            let mut talk = Talk {
                conversation: Conversation::default(),
                commands: Commands::new("load", "10", 5),
                rules: Rules::new(b"Riley", 0, 5),
                heard: Heard::of(2),
                sent: Vec::new(),
            };
            for kind in kinds {
                match kind {
                    Kind::Iamat => talk.conversation.iamat(&mut talk.commands, 1, 0, WALL),
                    Kind::Whatsat => talk.conversation.whatsat(&mut talk.commands, 1, 0),
                }
            }
            let unsent = String::from_utf8(talk.conversation.unsent().to_vec()).unwrap();
            talk.sent = unsent.lines().map(str::to_owned).collect();
            talk.conversation.sent(unsent.len());
            talk
        }

        /// The right answer to the nth command, an `IAMAT`.
        fn at(&self, number: usize) -> String {
            let arguments = self.sent[number].strip_prefix("IAMAT ").unwrap();
            format!("AT Riley +0.00000001{number} {arguments}\n")
        }

        fn receive(&mut self, bytes: &[u8]) -> Result<Vec<(Kind, Vec<u8>)>, Box<Wrong>> {
            let mut answers = Vec::new();
            let note = |answered: &Answered<'_>| {
                answers.push((answered.asked.kind, answered.line.to_vec()));
            };
            self.conversation
                .receive(bytes, WALL + 1000, &self.rules, &mut self.heard, note)?;
            Ok(answers)
        }

        fn what(&mut self, bytes: &str) -> String {
            self.receive(bytes.as_bytes()).unwrap_err().what
        }
    }

    #[test]
    fn answers_in_pieces_of_any_size_are_checked() {
        use Kind::{Iamat, Whatsat};
        for size in [1, 2, 3, 7, 50, 100, 10_000] {
            let mut talk = Talk::new(&[Iamat, Whatsat, Iamat, Iamat, Whatsat]);
            let (first, second, third) = (talk.at(0), talk.at(2), talk.at(3));
            let all = format!("{first}{first}{JSON}\n\n{second}{third}{third}{JSON}\n\n");
            let mut answers = Vec::new();
            for piece in all.as_bytes().chunks(size) {
                answers.extend(talk.receive(piece).unwrap());
            }
            let expected = [
                (Iamat, first.trim_end().as_bytes().to_vec()),
                (Whatsat, first.trim_end().as_bytes().to_vec()),
                (Iamat, second.trim_end().as_bytes().to_vec()),
                (Iamat, third.trim_end().as_bytes().to_vec()),
                (Whatsat, third.trim_end().as_bytes().to_vec()),
            ];
            assert_eq!(answers, expected, "{size}");
            assert_eq!(talk.conversation.in_flight(), 0);
            assert_eq!(talk.conversation.unsent(), b"");
        }
    }

    #[test]
    fn answers_in_the_wrong_order_are_wrong() {
        let mut talk = Talk::new(&[Kind::Iamat, Kind::Iamat]);
        let (first, second) = (talk.at(0), talk.at(1));
        assert_eq!(talk.what(&format!("{second}{first}")), "the place");
    }

    #[test]
    fn unrequested_answers_are_wrong() {
        let mut talk = Talk::new(&[Kind::Iamat]);
        let line = talk.at(0);
        assert_eq!(
            talk.what(&format!("{line}\n")),
            "an answer without a command"
        );
        let mut talk = Talk::new(&[]);
        assert_eq!(talk.what("hello"), "an answer without a command");
        talk.conversation.iamat(&mut talk.commands, 1, 0, WALL);
        assert_eq!(
            talk.what("AT Riley"),
            "an answer to a command that was not completely sent"
        );
    }

    #[test]
    fn a_whatsat_must_repeat_the_last_at_line() {
        let mut talk = Talk::new(&[Kind::Iamat, Kind::Iamat, Kind::Whatsat]);
        let (first, second) = (talk.at(0), talk.at(1));
        talk.receive(format!("{first}{second}").as_bytes()).unwrap();
        let what = talk.what(&format!("{first}{JSON}\n\n"));
        assert!(what.starts_with("the AT line, which"), "{what}");
        let mut talk = Talk::new(&[Kind::Iamat, Kind::Whatsat]);
        let first = talk.at(0);
        talk.receive(first.as_bytes()).unwrap();
        let what = talk.what("? WHATSAT load-0000001 10 5\n");
        assert!(what.starts_with("the AT line, which"), "{what}");
    }

    #[test]
    fn invalid_json_is_a_wrong_answer() {
        let mut talk = Talk::new(&[Kind::Iamat, Kind::Whatsat]);
        let line = talk.at(0);
        talk.receive(line.as_bytes()).unwrap();
        let what = talk.what(&format!("{line}{{\"results\" : [\n\n"));
        assert!(what.starts_with("the JSON cannot be read"), "{what}");
    }

    #[test]
    fn endless_answers_are_wrong_at_a_size_limit() {
        let mut talk = Talk::new(&[Kind::Iamat]);
        talk.receive(&[b'x'; LINE_BYTES]).unwrap();
        assert_eq!(talk.what("x"), "a line without an LF");
        let mut talk = Talk::new(&[Kind::Iamat, Kind::Whatsat]);
        let line = talk.at(0);
        talk.receive(format!("{line}{line}").as_bytes()).unwrap();
        talk.receive(&vec![b' '; JSON_BYTES]).unwrap();
        assert_eq!(talk.what(" "), "a JSON without two LFs after it");
    }

    #[test]
    fn unanswered_commands_of_a_lost_connection_are_counted() {
        let mut talk = Talk::new(&[]);
        for since_ns in [INTRODUCED, 70, 90] {
            let commands = &mut talk.commands;
            talk.conversation.iamat(commands, 1, since_ns, WALL);
        }
        talk.conversation.whatsat(&mut talk.commands, 1, 40);
        let missing = talk.conversation.missing(100);
        let seen = [missing.iamat, missing.whatsat].map(|it| (it.count, it.oldest_ns));
        assert_eq!(seen, [(2, 30), (1, 60)]);
        talk.conversation.sent(100);
        talk.receive(b"AT Riley +0.0").unwrap();
        talk.conversation.abandon();
        assert_eq!(talk.conversation.in_flight(), 0);
        assert_eq!(talk.conversation.missing(100), MissingByKind::default());
        // The incomplete answer of the lost connection is not a part of the next connection's
        // answers.
        talk.conversation.iamat(&mut talk.commands, 1, 0, WALL + 50);
        let unsent = String::from_utf8(talk.conversation.unsent().to_vec()).unwrap();
        talk.conversation.sent(unsent.len());
        talk.sent = vec![unsent.trim_end().to_owned()];
        let line = talk.at(0);
        assert_eq!(talk.receive(line.as_bytes()).unwrap().len(), 1);
    }

    #[test]
    fn answered_commands_are_removed_from_memory() {
        let mut talk = Talk::new(&[Kind::Iamat, Kind::Iamat]);
        for _ in 0..500 {
            let line = talk.at(0);
            talk.receive(line.as_bytes()).unwrap();
            talk.conversation.iamat(&mut talk.commands, 1, 0, WALL);
            let unsent = String::from_utf8(talk.conversation.unsent().to_vec()).unwrap();
            talk.conversation.sent(unsent.len());
            talk.sent.remove(0);
            talk.sent.push(unsent.trim_end().to_owned());
        }
        assert_eq!(talk.conversation.in_flight(), 2);
        assert!(talk.conversation.commands.len() < COMPACT_BYTES + 1000);
    }
}
