//! One of the servers that a flood has to reach. It is asked repeatedly whether it knows a client.

use std::time::Duration;

use herd_client::dial::Target;
use herd_testkit::failure::{Failure, system};
use memchr::{memchr, memmem};

use crate::answers::{Found, JSON_BYTES, Rules, Wrong};
use crate::conversation::Conversation;
use crate::crew::{Crew, Trouble};
use crate::dial::Dialler;
use crate::socket::Socket;

/// One of the other servers.
pub(crate) struct Watcher {
    pub(crate) target: Target,
    pub(crate) socket: Socket,
    unsent: Vec<u8>,
    pub(crate) inquiry: Inquiry,
}

/// A question, and the state of its answer.
pub(crate) struct Inquiry {
    answer: Vec<u8>,
    pub(crate) state: State,
    /// The time of the last question.
    pub(crate) asked_ns: u64,
    /// The time of the last refused question. At first, the time at which the `IAMAT` was sent.
    pub(crate) unknowing_ns: u64,
    pub(crate) knows_ns: u64,
    pub(crate) polls: u64,
    pub(crate) asked_places: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Asked,
    Resting,
    Answering,
    Knows,
}

impl Watcher {
    pub(crate) fn connect(
        crew: &Crew,
        target: Target,
        number: usize,
        timeout_ns: u64,
    ) -> Result<Watcher, Failure> {
        let patience = Duration::from_nanos(timeout_ns);
        let line = Dialler::new(&target, patience, &crew.stop).call(0)?;
        let mut socket = line.into_socket().map_err(system("use a socket"))?;
        crew.watch(&mut socket, number)
            .map_err(system("watch a socket"))?;
        Ok(Watcher {
            target,
            socket,
            unsent: Vec::new(),
            inquiry: Inquiry {
                answer: Vec::new(),
                state: State::Resting,
                asked_ns: 0,
                unknowing_ns: 0,
                knows_ns: 0,
                polls: 0,
                asked_places: false,
            },
        })
    }

    pub(crate) fn ask(&mut self, question: &[u8], now_ns: u64) {
        self.unsent.extend_from_slice(question);
        let inquiry = &mut self.inquiry;
        inquiry.answer.clear();
        inquiry.asked_ns = now_ns;
        inquiry.state = State::Asked;
        inquiry.polls += 1;
    }

    pub(crate) fn flush(&mut self) -> Result<(), Failure> {
        match self.socket.write(&self.unsent) {
            Ok(count) => {
                self.unsent.drain(..count);
                Ok(())
            }
            Err(error) => {
                Err(Trouble::from(error).in_words(&self.target, 0, &Conversation::default()))
            }
        }
    }

    /// Checks the server's `AT` line.
    pub(crate) fn compare(&self, line: &[u8], question: &[u8]) -> Result<(), Failure> {
        if self.inquiry.answer == line {
            return Ok(());
        }
        let wrong = Wrong {
            what: "the AT line, which must repeat the other server's answer".into(),
            sent: question.to_vec(),
            expected: herd_mio::core::wire::escape::Escaped(line).to_string(),
            got: self.inquiry.answer.clone(),
        };
        let trouble = Trouble::Wrong(Box::new(wrong));
        Err(trouble.in_words(&self.target, 0, &Conversation::default()))
    }
}

impl Inquiry {
    pub(crate) fn receive(
        &mut self,
        bytes: &[u8],
        now_ns: u64,
        refusal: &[u8],
        rules: &Rules,
    ) -> Result<(), Box<Wrong>> {
        self.answer.extend_from_slice(bytes);
        let wrong = |what: &str, expected: &str, got: &[u8]| {
            Box::new(Wrong {
                what: what.into(),
                sent: refusal[2..].to_vec(),
                expected: expected.into(),
                got: got.to_vec(),
            })
        };
        if !matches!(self.state, State::Asked | State::Answering) {
            return Err(wrong("an answer without a command", "nothing", bytes));
        }
        if self.answer == refusal {
            self.unknowing_ns = self.asked_ns;
            self.state = State::Resting;
            return Ok(());
        }
        let Some(line_end) = memchr(b'\n', &self.answer) else {
            return Ok(());
        };
        if !self.answer.starts_with(b"AT ") {
            let expected = "the client's AT line, or a refusal";
            return Err(wrong("neither", expected, &self.answer));
        }
        if self.state == State::Asked {
            self.state = State::Answering;
            self.knows_ns = now_ns;
        }
        let behind = &self.answer[line_end + 1..];
        match memmem::find(behind, b"\n\n") {
            None if behind.len() > JSON_BYTES => {
                Err(wrong("a JSON without two LFs after it", "two LFs", behind))
            }
            None => Ok(()),
            Some(length) => {
                let json = &behind[..length];
                let found = rules
                    .check_json(json)
                    .map_err(|what| wrong(&what, "a JSON object with at most 1 place", json))?;
                self.asked_places |= found == Found::Places;
                if behind.len() > length + 2 {
                    let more = &behind[length + 2..];
                    return Err(wrong("an answer without a command", "nothing", more));
                }
                self.answer.truncate(line_end);
                self.state = State::Knows;
                Ok(())
            }
        }
    }
}
