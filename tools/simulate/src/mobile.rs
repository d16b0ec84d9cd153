//! A simulated client. It writes the bytes of its script, and checks every byte of the answers.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use herd_mio::core::base::clock::Time;
use herd_mio::core::base::limits::LINE_BYTES;

use crate::chronicle::{Shown, Subject};
use crate::host::Host;
use crate::ledger::Ledger;
use crate::network::{OPENER, Party, Received};
use crate::outside::{Outside, failed};
use crate::plan::{Command, Ending, Meaning, Session};
use crate::timeline::{Event, Key};
use herd_testkit::at_line::{Fields, Line, receipt};

/// The longest time after a refused write in which a server may close a client: a little more than
/// `journal_wait_ms` and the longest freeze.
const LET_GO: Duration = Duration::from_secs(20);

/// The beginning and the end of an error in Google's format. The message is between them.
const JSON_HEAD: &[u8] =
    b"{\"html_attributions\" : [], \"results\" : [], \"status\" : \"UNKNOWN_ERROR\", \"error_message\" : \"";
const JSON_TAIL: &[u8] = b"\"}\n\n";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Its start time has not come.
    Before,
    Connecting,
    Open,
    /// It has shut down its writing side.
    HalfClosed,
    Done,
}

/// A command without an answer.
struct Expected {
    command: Command,
    /// The offset after its last byte in the stream.
    end: usize,
    /// The time at which that byte was written.
    sent: Option<Time>,
    /// Whether its end is missing, because the client left in the middle of it.
    is_cut: bool,
}

/// A client and its connection.
pub(crate) struct Mobile {
    number: usize,
    plan: Session,
    path: usize,
    state: State,
    key: Option<Key>,
    /// The server's life at the time of the connect.
    life: Option<u32>,
    stream: Vec<u8>,
    chunks: VecDeque<(Duration, usize)>,
    /// The time of the next chunk, if it is known.
    next_chunk: Option<Time>,
    /// The number of bytes that may be written by now, and of those that were.
    allowed: usize,
    written: usize,
    expected: VecDeque<Expected>,
    input: Vec<u8>,
    /// The time of its next read, if it pauses.
    reads_again: Option<Time>,
    /// The newest line of each client in the answers on this connection.
    shown: BTreeMap<Vec<u8>, Line>,
    /// Whether the server closes after the last answer.
    last_words: bool,
}

impl Mobile {
    /// A client that has not started.
    pub(crate) fn new(number: usize, plan: Session, path: usize) -> Mobile {
        let mut stream = Vec::new();
        let mut expected = VecDeque::new();
        for command in &plan.commands {
            stream.extend_from_slice(&command.bytes);
            expected.push_back(Expected {
                command: command.clone(),
                end: stream.len(),
                sent: None,
                is_cut: false,
            });
        }
        Mobile {
            number,
            chunks: plan.chunks.iter().copied().collect(),
            plan,
            path,
            state: State::Before,
            key: None,
            life: None,
            stream,
            next_chunk: None,
            allowed: 0,
            written: 0,
            expected,
            input: Vec::new(),
            reads_again: None,
            shown: BTreeMap::new(),
            last_words: false,
        }
    }

    /// Whether it has finished.
    pub(crate) fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Whether its storm is still to come.
    pub(crate) fn is_before(&self) -> bool {
        self.state == State::Before
    }

    /// Its state as text.
    pub(crate) fn describe(&self) -> String {
        format!(
            "client {} of host {} is {:?}, has written {} of {} bytes, and waits for {} answers",
            self.number,
            self.plan.host,
            self.state,
            self.written,
            self.stream.len(),
            self.expected.len()
        )
    }

    /// Its number in this run.
    pub(crate) fn number(&self) -> usize {
        self.number
    }

    /// Its server.
    pub(crate) fn host(&self) -> usize {
        self.plan.host
    }

    /// Handles an event of its connection, or its start time.
    pub(crate) fn act(&mut self, hosts: &[Host], ledger: &mut Ledger, outside: &mut Outside) {
        if self.state == State::Before {
            let plan = self.plan.number;
            outside.log(&[Subject::Session(self.number)], || {
                format!(
                    "client {} (number {plan} of the plan) connects to host {}",
                    self.number, self.plan.host
                )
            });
            let own = Party::Session(self.number);
            let server = Party::Host {
                host: self.plan.host,
                life: 0,
            };
            let timeline = &mut outside.timeline;
            self.key = Some(outside.network.connect(self.path, own, server, timeline));
            self.state = State::Connecting;
            return;
        }
        let Some(key) = self.key.filter(|_| self.state != State::Done) else {
            return;
        };
        if self.state == State::Connecting {
            if outside.network.is_reset(key, OPENER) {
                return self.leave(outside);
            }
            if !outside.network.is_connected(key, OPENER) {
                return;
            }
            self.state = State::Open;
            if let Party::Host { life, .. } = outside.network.party(key, 1 - OPENER) {
                self.life = Some(life);
            }
            self.plan_chunk(outside);
        }
        self.read(key, hosts, ledger, outside);
        self.write(key, hosts, ledger, outside);
    }

    fn alarm(&self, wait: Duration, outside: &mut Outside) {
        let event = Event::Act {
            session: self.number,
        };
        outside.timeline.after(wait, event);
    }

    fn plan_chunk(&mut self, outside: &mut Outside) {
        if let Some((wait, _)) = self.chunks.front() {
            self.next_chunk = Some(outside.timeline.now() + *wait);
            self.alarm(*wait, outside);
        }
    }

    fn leave(&mut self, outside: &mut Outside) {
        if let Some(key) = self.key {
            outside.network.close(key, OPENER, &mut outside.timeline);
        }
        self.state = State::Done;
        outside.log(&[Subject::Session(self.number)], || {
            format!("client {} closes its connection", self.number)
        });
    }

    fn fail(&mut self, what: &str, outside: &mut Outside) {
        let text = format!("client {} of host {}: {what}", self.number, self.plan.host);
        let subjects = [Subject::Session(self.number), Subject::Host(self.plan.host)];
        failed(outside, &text, &subjects);
        self.state = State::Done;
    }

    fn write(&mut self, key: Key, hosts: &[Host], ledger: &mut Ledger, outside: &mut Outside) {
        let now = outside.timeline.now();
        while self.state == State::Open {
            if self.written < self.allowed {
                let bytes = &self.stream[self.written..self.allowed];
                let written = outside
                    .network
                    .write(key, OPENER, bytes, &mut outside.timeline);
                let Some(count) = written.filter(|count| *count > 0) else {
                    return; // There is no room, or the connection is lost. A read shows which.
                };
                let sent = &self.stream[self.written..][..count];
                outside.log(&[Subject::Session(self.number)], || {
                    format!("client {} writes {}", self.number, Shown(sent))
                });
                self.written += count;
                self.note_sent(now, ledger);
                continue;
            }
            match (self.next_chunk, self.chunks.front()) {
                (Some(at), Some(&(_, size))) if at <= now => {
                    self.allowed += size;
                    self.chunks.pop_front();
                    self.next_chunk = None;
                    if !self.plan.lockstep {
                        self.plan_chunk(outside);
                    }
                }
                (Some(_), _) => return,
                (None, Some(_)) if self.is_answered() => self.plan_chunk(outside),
                (None, Some(_)) => return,
                (None, None) => return self.end(key, hosts, ledger, outside),
            }
        }
    }

    /// Notes the commands that were written completely.
    fn note_sent(&mut self, now: Time, ledger: &mut Ledger) {
        let (written, host) = (self.written, self.plan.host);
        for expected in self.expected.iter_mut().filter(|e| e.sent.is_none()) {
            let length = expected.command.bytes.len();
            // A line is overlong before its end is written.
            let enough = match expected.command.meaning {
                Meaning::Overlong => expected.end - length + LINE_BYTES + 1,
                _ => expected.end,
            };
            if enough > written {
                break;
            }
            expected.sent = Some(now);
            if let Meaning::Iamat {
                client,
                location,
                time,
            } = &expected.command.meaning
            {
                ledger.told(host, client, location, time, now);
            }
        }
    }

    /// Whether everything that was written has been answered.
    fn is_answered(&self) -> bool {
        let silent = |expected: &Expected| expected.command.meaning == Meaning::Blank;
        self.expected
            .iter()
            .take_while(|expected| expected.sent.is_some())
            .all(silent)
    }

    /// All chunks are written, so the client leaves as planned.
    fn end(&mut self, key: Key, hosts: &[Host], ledger: &mut Ledger, outside: &mut Outside) {
        match self.plan.ending {
            Ending::Leave if !self.is_answered() => {}
            Ending::Leave => self.leave(outside),
            Ending::Abort => {
                outside.network.abort(key, OPENER, &mut outside.timeline);
                self.state = State::Done;
            }
            Ending::Vanish => {
                self.cut_short(hosts, ledger, outside);
                self.leave(outside);
            }
            Ending::HalfClose => {
                self.cut_short(hosts, ledger, outside);
                outside.network.finish(key, OPENER, &mut outside.timeline);
                self.state = State::HalfClosed;
                outside.log(&[Subject::Session(self.number)], || {
                    format!("client {} shuts down its writing side", self.number)
                });
            }
        }
    }

    /// The end of input ends the last line too, wherever it was cut.
    fn cut_short(&mut self, hosts: &[Host], ledger: &mut Ledger, outside: &mut Outside) {
        let now = outside.timeline.now();
        let cut = self.expected.iter().position(|e| e.sent.is_none());
        let Some(mut cut) = cut.map(|first| self.expected.drain(first..).next()) else {
            return;
        };
        let Some(expected) = cut.as_mut() else {
            return;
        };
        let start = expected.end - expected.command.bytes.len();
        expected.command.bytes.truncate(self.written - start);
        let spaces = |byte: &u8| matches!(byte, b' ' | b'\t' | 0x0b | 0x0c | b'\r' | b'\n');
        let fields: Vec<&[u8]> = expected
            .command
            .bytes
            .split(spaces)
            .filter(|field| !field.is_empty())
            .collect();
        if fields.is_empty() {
            return;
        }
        if let [b"IAMAT", client, location, time] = *fields {
            ledger.told(hosts[self.plan.host].number, client, location, time, now);
        }
        expected.sent = Some(now);
        expected.is_cut = true;
        self.expected.extend(cut);
    }

    fn read(&mut self, key: Key, hosts: &[Host], ledger: &mut Ledger, outside: &mut Outside) {
        let now = outside.timeline.now();
        loop {
            if self.state == State::Done || self.reads_again.is_some_and(|again| now < again) {
                return;
            }
            let most = self.plan.sips.map_or(usize::MAX, |(most, _)| most);
            let received = outside
                .network
                .read(key, OPENER, most, &mut outside.timeline);
            match received {
                Received::Nothing => return,
                Received::Bytes(bytes) => {
                    outside.chronicle.mix(now, &[4, self.number as u64], &bytes);
                    self.input.extend_from_slice(&bytes);
                    self.take_answers(hosts, ledger, outside);
                    if let Some((_, pause)) = self.plan.sips {
                        self.reads_again = Some(now + pause);
                        self.alarm(pause, outside);
                    }
                }
                Received::End => return self.ended(hosts, outside),
                Received::Reset => {
                    self.lost(hosts, outside);
                    return self.leave(outside);
                }
            }
        }
    }

    /// The server closed its direction.
    fn ended(&mut self, hosts: &[Host], outside: &mut Outside) {
        let complete = self.is_answered() && self.input.is_empty();
        if !(complete && self.state == State::HalfClosed) {
            self.lost(hosts, outside);
        }
        if self.state != State::Done {
            self.leave(outside);
        }
    }

    /// The connection ended early. This is allowed only if the server has ended, or if its disk
    /// refuses writes.
    fn lost(&mut self, hosts: &[Host], outside: &mut Outside) {
        let host = &hosts[self.plan.host];
        let dooms = |e: &Expected| e.command.meaning == Meaning::Overlong && e.sent.is_some();
        let is_doomed = self.last_words || self.expected.iter().any(dooms);
        let now = outside.timeline.now();
        let is_refused = host.refused_at.is_some_and(|at| now < at + LET_GO);
        let is_excused = Some(host.life) != self.life || !host.is_up() || is_doomed || is_refused;
        if !is_excused {
            let text = format!(
                "the server closed the connection without {} answers, after {}",
                self.expected.len(),
                Shown(&self.input)
            );
            self.fail(&text, outside);
        }
    }

    fn take_answers(&mut self, hosts: &[Host], ledger: &mut Ledger, outside: &mut Outside) {
        while !self.input.is_empty() && self.state != State::Done {
            let silent = |e: &Expected| {
                let blank = e.command.line().iter().all(|b| matches!(b, 9..=13 | 32));
                e.sent.is_some() && blank
            };
            while self.expected.front().is_some_and(silent) {
                self.expected.pop_front();
            }
            let Some(expected) = self.expected.front().filter(|e| e.sent.is_some()) else {
                let text = format!("an answer without a command: {}", Shown(&self.input));
                return self.fail(&text, outside);
            };
            match self.judge(expected, hosts, ledger, outside.timeline.now()) {
                Verdict::More => return,
                Verdict::Wrong(why) => {
                    let text = format!(
                        "the answer to {} is {}: {why}",
                        Shown(expected.command.line()),
                        Shown(&self.input)
                    );
                    return self.fail(&text, outside);
                }
                Verdict::Right {
                    length,
                    shows,
                    is_ack,
                } => {
                    let answer = &self.input[..length];
                    outside.log(&[Subject::Session(self.number)], || {
                        format!("client {} gets the answer {}", self.number, Shown(answer))
                    });
                    self.last_words |= expected.command.meaning == Meaning::Overlong;
                    self.input.drain(..length);
                    self.expected.pop_front();
                    if let Some(line) = shows {
                        self.show(line, is_ack, hosts, ledger, outside);
                    }
                }
            }
        }
    }

    fn show(
        &mut self,
        line: Line,
        is_ack: bool,
        hosts: &[Host],
        ledger: &mut Ledger,
        outside: &mut Outside,
    ) {
        let host = self.plan.host;
        let client = Fields::of(line.bytes()).map_or(Vec::new(), |fields| fields.client.to_vec());
        if !ledger.was_told(line.bytes(), hosts, outside.timeline.now()) {
            let text = format!("it got {}, which no client has sent", Shown(line.bytes()));
            return self.fail(&text, outside);
        }
        let Some(line) = outside.epochs.record(line.bytes()) else {
            return;
        };
        if let (true, Some(life)) = (is_ack, self.life) {
            if let Err(text) =
                ledger.acknowledged(host, life, &line, &client, hosts, outside.timeline.now())
            {
                return self.fail(&text, outside);
            }
            outside.promise(&client, &line);
        }
        let before = self.shown.get(&client);
        if !is_ack && before > Some(&line) {
            let text = format!(
                "it got {}, but had got a newer one before",
                Shown(line.bytes())
            );
            return self.fail(&text, outside);
        }
        if before < Some(&line) {
            self.shown.insert(client, line);
        }
    }

    fn judge(&self, expected: &Expected, hosts: &[Host], ledger: &Ledger, now: Time) -> Verdict {
        let input = &self.input[..];
        let Some(end) = input.iter().position(|&byte| byte == b'\n') else {
            return Verdict::More;
        };
        let answer = &input[..end];
        let line = if expected.is_cut {
            &expected.command.bytes[..]
        } else {
            expected.command.line()
        };
        let copy = &line[..line.len().min(LINE_BYTES)];
        let quoted = answer.strip_prefix(b"? ");
        let plain = |shows| Verdict::Right {
            length: end + 1,
            shows,
            is_ack: true,
        };
        let echo = |client: &[u8], location: &[u8], time: &[u8]| {
            let host = &hosts[self.plan.host];
            let fields = Fields::of(answer)?;
            let wanted = Fields {
                server: host.setup.settings.name.as_bytes(),
                skew: fields.skew,
                client,
                location,
                time,
            };
            let heard = host.showed(receipt(&fields)?, expected.sent?, now);
            let nine = fields.skew.rsplit(|&byte| byte == b'.').next()?.len() == 9;
            (fields == wanted && heard && nine).then(|| Line::new(answer, 0))?
        };
        // The journal had no room for it.
        let refused = quoted == Some(line)
            && (expected.sent).is_some_and(|sent| hosts[self.plan.host].may_refuse(sent));
        if expected.is_cut {
            let spaces = |byte: &u8| matches!(byte, 9..=13 | 32);
            let fields: Vec<&[u8]> = line.split(spaces).filter(|f| !f.is_empty()).collect();
            return match *fields {
                [b"IAMAT", ..] if refused => plain(None),
                [b"IAMAT", client, location, time] if quoted.is_none() => {
                    match echo(client, location, time) {
                        Some(line) => plain(Some(line)),
                        None => Verdict::Wrong("it does not repeat the command"),
                    }
                }
                [b"WHATSAT", client, ..] if quoted.is_none() => self.places(client, answer),
                _ if quoted == Some(copy) => plain(None),
                _ => Verdict::Wrong("it is not a copy of the end of input"),
            };
        }
        match &expected.command.meaning {
            Meaning::Iamat { .. } if refused => plain(None),
            Meaning::Iamat {
                client,
                location,
                time,
            } => match echo(client, location, time) {
                Some(line) => plain(Some(line)),
                None => Verdict::Wrong("it does not repeat the command"),
            },
            Meaning::Whatsat { client } if quoted == Some(line) => {
                let shown = self.shown.get(client);
                if shown.is_some_and(|line| !ledger.may_be_gone(client, line)) {
                    Verdict::Wrong(
                        "an earlier answer on this connection had that client's position",
                    )
                } else {
                    plain(None)
                }
            }
            Meaning::Whatsat { client } => self.places(client, answer),
            Meaning::Garbage if quoted == Some(line) => plain(None),
            Meaning::Overlong if quoted == Some(copy) => plain(None),
            Meaning::Garbage | Meaning::Overlong => {
                Verdict::Wrong("it is not a copy of the command")
            }
            Meaning::Blank => Verdict::Wrong("a blank line has no answer"),
        }
    }

    /// Judges the answer to a valid `WHATSAT`: the stored line, and an error in Google's format,
    /// because there is no key.
    fn places(&self, client: &[u8], answer: &[u8]) -> Verdict {
        let json = &self.input[answer.len() + 1..];
        let (Some(fields), Some(line)) = (Fields::of(answer), Line::new(answer, 0)) else {
            return Verdict::Wrong("it is not an AT line");
        };
        if fields.client != client {
            return Verdict::Wrong("it is about another client");
        }
        let Some(end) = json.windows(2).position(|two| two == b"\n\n") else {
            return Verdict::More;
        };
        let json = &json[..end + 2];
        if !json.starts_with(JSON_HEAD) || !json.ends_with(JSON_TAIL) {
            return Verdict::Wrong("the JSON is not an error in Google's format");
        }
        Verdict::Right {
            length: answer.len() + 1 + json.len(),
            shows: Some(line),
            is_ack: false,
        }
    }

    /// Its server's life has ended, so no more answers come.
    pub(crate) fn give_up(&mut self, hosts: &[Host], outside: &mut Outside) {
        if self.state != State::Done
            && self
                .life
                .is_some_and(|life| life != hosts[self.plan.host].life)
        {
            self.leave(outside);
        }
    }
}

/// The judgement of an answer.
enum Verdict {
    /// It is incomplete.
    More,
    Right {
        length: usize,
        /// The line in the answer.
        shows: Option<Line>,
        /// Whether it acknowledges an update. Otherwise it answers a `WHATSAT`.
        is_ack: bool,
    },
    Wrong(&'static str),
}
