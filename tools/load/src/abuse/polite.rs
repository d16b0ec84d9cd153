//! Polite clients: an `IAMAT` each 50 ms, whatever the server does, and from some a `WHATSAT` now
//! and then. Their latencies show what
//! the attack does to others.
//!
//! A latency counts from when its command was due, so a server that stalls makes all commands slow
//! that were due meanwhile, and not only the one that it held up.

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use hdrhistogram::Histogram;
use herd_mio::core::wire::escape::Escaped;
use herd_testkit::failure::{Failure, system};
use memchr::{memchr, memmem};
use mio::{Events, Interest, Poll, Token};

use crate::abuse::payload::iamat;
use crate::answers::{Found, Rules, error_of, server_of};
use crate::clock::{Clock, MILLISECOND_NS};
use crate::dial::Dialler;
use crate::progress::{Progress, TICK_NS};
use crate::socket::{Received, Socket};
use crate::stop::{Stop, before_measuring};
use crate::tally::histogram;

/// How often each client sends an `IAMAT`.
const INTERVAL_NS: u64 = 50 * MILLISECOND_NS;
/// How often each of those that ask sends a `WHATSAT`: longer than Places takes, because answers
/// come in order.
const ASKING_NS: u64 = 500 * MILLISECOND_NS;
/// Of so many `IAMAT`s of a client one is of a new client, and which.
const NEW: (u64, u64) = (10, 7);
/// After so long a connection that was lost is made again.
const REDIAL_NS: u64 = 100 * MILLISECOND_NS;
/// How long the first answers may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);
/// How long the poll waits at most.
const POLL_NS: u64 = 50 * MILLISECOND_NS;
const READ_BYTES: usize = 64 * 1024;
/// The places that a `WHATSAT` asks for at most.
const BOUND: u8 = 5;
const RADIUS_KM: u8 = 10;

/// Who the polite clients are.
pub(crate) struct Manner {
    /// Those that say where they are, and those that ask what is near them.
    pub(crate) clients: usize,
    pub(crate) askers: usize,
    /// How their names begin.
    pub(crate) prefix: String,
    /// Tells the new names of this run from those of others.
    pub(crate) run: String,
}

/// Their commands and latencies.
pub(crate) struct Figures {
    pub(crate) asked: u64,
    pub(crate) answered: u64,
    /// Commands that were answered with a refusal, and those whose connection was rejected.
    pub(crate) refused: u64,
    /// Those of them that were `IAMAT`s of new clients.
    pub(crate) refused_new: u64,
    /// Commands that were sent on a connection that was lost.
    pub(crate) lost: u64,
    pub(crate) connections_lost: u64,
    pub(crate) connections_rejected: u64,
    /// What the first refusal said.
    pub(crate) first_refusal: Option<String>,
    /// Commands without an answer at the end, and how long the oldest was due.
    pub(crate) unanswered: u64,
    pub(crate) oldest_unanswered_ns: u64,
    /// Latencies of `IAMAT`s before the attack, and under it.
    pub(crate) alone: Histogram<u64>,
    pub(crate) under_attack: Histogram<u64>,
    /// The same of `WHATSAT`s.
    pub(crate) whatsat_alone: Histogram<u64>,
    pub(crate) whatsat_under_attack: Histogram<u64>,
    /// How late this program was: what it adds to the latencies itself.
    pub(crate) late: Histogram<u64>,
}

/// When a command was due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Nothing counts.
    Introduction,
    Alone,
    UnderAttack,
    /// Nothing more becomes due.
    Over,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Known,
    New,
    Whatsat,
}

struct Asked {
    kind: Kind,
    phase: Phase,
    due_ns: u64,
    /// With its LF.
    command: Vec<u8>,
}

#[derive(Default)]
struct Client {
    name: String,
    socket: Option<Socket>,
    is_open: bool,
    /// When it is connected again.
    redial_ns: Option<u64>,
    /// Commands without an answer, the oldest first; the first `sent` were given to the connection.
    asked: VecDeque<Asked>,
    sent: usize,
    out: Vec<u8>,
    /// An answer that has not come whole.
    tail: Vec<u8>,
    /// Whether it asks what is near it.
    is_asker: bool,
    next_due_ns: u64,
    number: u64,
}

/// The polite clients.
pub(crate) struct Polite {
    manner: Manner,
    poll: Poll,
    dialler: Dialler,
    clients: Vec<Client>,
    rules: Rules,
    pub(crate) clock: Clock,
    phase: Phase,
    new_names: u64,
    figures: Figures,
    /// The server's name, as its answers have it.
    server: String,
    scratch: Vec<u8>,
}

impl Polite {
    /// Connects them, and has each say where it is.
    pub(crate) fn connect(
        manner: Manner,
        mut dialler: Dialler,
        progress: &mut Progress,
        stop: &Stop,
    ) -> Result<Polite, Failure> {
        let poll = Poll::new().map_err(system("create a poll"))?;
        let mut clients = Vec::new();
        let all = manner.clients + manner.askers;
        for number in 0..all {
            let line = dialler.call(number)?;
            let mut socket = line.into_socket().map_err(system("use a socket"))?;
            watch(&poll, &mut socket, number).map_err(system("watch a socket"))?;
            clients.push(Client {
                name: format!("{}-polite-{number}", manner.prefix),
                socket: Some(socket),
                is_open: true,
                is_asker: number >= manner.clients,
                ..Client::default()
            });
            progress.connecting(number + 1, all);
        }
        let mut polite = Polite {
            manner,
            poll,
            dialler,
            clients,
            rules: Rules::new(b"", 0, BOUND),
            clock: Clock::start(),
            phase: Phase::Introduction,
            new_names: 0,
            figures: Figures {
                asked: 0,
                answered: 0,
                refused: 0,
                refused_new: 0,
                lost: 0,
                connections_lost: 0,
                connections_rejected: 0,
                first_refusal: None,
                unanswered: 0,
                oldest_unanswered_ns: 0,
                alone: histogram()?,
                under_attack: histogram()?,
                whatsat_alone: histogram()?,
                whatsat_under_attack: histogram()?,
                late: histogram()?,
            },
            server: String::new(),
            scratch: vec![0; READ_BYTES],
        };
        polite.introduce(progress, stop)?;
        Ok(polite)
    }

    fn introduce(&mut self, progress: &mut Progress, stop: &Stop) -> Result<(), Failure> {
        for index in 0..self.clients.len() {
            self.ask(index, Kind::Known, 0);
        }
        let until_ns = self.clock.now_ns() + ns(PATIENCE);
        self.run(Phase::Introduction, until_ns, progress, stop)?;
        if stop.is_wanted() {
            return Err(before_measuring());
        }
        let what = match &self.figures.first_refusal {
            Some(refusal) => format!("refuses the polite clients before the attack: ? {refusal}"),
            None if self.figures.connections_lost > 0 => {
                "closes the connections of the polite clients before the attack".to_owned()
            }
            None if self.is_waiting() => format!(
                "does not answer the polite clients before the attack; {} s were waited for it",
                PATIENCE.as_secs()
            ),
            None => return Ok(()),
        };
        Err(Failure::Failed(format!(
            "the server {what}; herd-client status says how it is"
        )))
    }

    /// The server's name.
    pub(crate) fn server(&self) -> &str {
        &self.server
    }

    /// Goes on until then, or until a signal comes; where nothing becomes due, only until all is
    /// answered.
    pub(crate) fn run(
        &mut self,
        phase: Phase,
        until_ns: u64,
        progress: &mut Progress,
        stop: &Stop,
    ) -> Result<(), Failure> {
        self.phase = phase;
        let start_ns = self.clock.now_ns();
        self.plan(start_ns);
        let mut events = Events::with_capacity(256);
        let mut tick_ns = start_ns;
        loop {
            let now_ns = self.clock.now_ns();
            // Also what became due while this thread was not run, shortly before the end.
            self.ask_what_is_due(now_ns.min(until_ns - 1));
            let is_done = !self.issues() && !self.is_waiting();
            if now_ns >= until_ns || is_done || (stop.is_wanted() && phase != Phase::Over) {
                return Ok(());
            }
            if now_ns >= tick_ns {
                tick_ns = now_ns + TICK_NS;
                let done = (now_ns - start_ns) as f64 / (until_ns - start_ns) as f64;
                progress.measuring(phase.shown(), done, self.figures.answered, now_ns);
            }
            self.redial(now_ns);
            let patience = self.patience(now_ns, until_ns);
            match self.poll.poll(&mut events, Some(patience)) {
                Ok(()) => {}
                // A signal, which the next turn looks for.
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(system("wait for answers")(error)),
            }
            for event in &events {
                let index = event.token().0;
                if let Some(socket) = &mut self.clients[index].socket {
                    socket.note(event);
                    self.serve(index)?;
                }
            }
        }
    }

    fn issues(&self) -> bool {
        matches!(self.phase, Phase::Alone | Phase::UnderAttack)
    }

    fn is_waiting(&self) -> bool {
        self.clients.iter().any(|client| !client.asked.is_empty())
    }

    /// The first commands become due one after the other, so that they are spread evenly.
    fn plan(&mut self, start_ns: u64) {
        let clients = self.clients.len() as u64;
        for (number, client) in (0..).zip(&mut self.clients) {
            client.next_due_ns = start_ns + client.interval_ns() * number / clients;
        }
    }

    fn ask_what_is_due(&mut self, now_ns: u64) {
        if !self.issues() {
            return;
        }
        for index in 0..self.clients.len() {
            while self.clients[index].next_due_ns <= now_ns {
                let client = &mut self.clients[index];
                let due_ns = client.next_due_ns;
                client.next_due_ns += client.interval_ns();
                let (of, which) = NEW;
                let kind = if client.is_asker {
                    Kind::Whatsat
                } else if client.number % of == which {
                    Kind::New
                } else {
                    Kind::Known
                };
                client.number += 1;
                self.figures.asked += 1;
                let late_ns = self.clock.now_ns().saturating_sub(due_ns);
                self.figures.late.saturating_record(late_ns);
                self.ask(index, kind, due_ns);
            }
        }
    }

    fn ask(&mut self, index: usize, kind: Kind, due_ns: u64) {
        let wall_ns = self.clock.wall_ns();
        let name = &self.clients[index].name;
        let command = match kind {
            Kind::Known => iamat(name, wall_ns),
            Kind::New => {
                let Manner { prefix, run, .. } = &self.manner;
                let number = self.new_names;
                self.new_names += 1;
                iamat(&format!("{prefix}-{run}-new-{number:x}"), wall_ns)
            }
            Kind::Whatsat => format!("WHATSAT {name} {RADIUS_KM} {BOUND}\n"),
        };
        self.clients[index].asked.push_back(Asked {
            kind,
            phase: self.phase,
            due_ns,
            command: command.into_bytes(),
        });
        self.send(index);
    }

    /// Gives the connection what it was not given, and writes.
    fn send(&mut self, index: usize) {
        let client = &mut self.clients[index];
        if !client.is_open {
            return;
        }
        for asked in client.asked.iter().skip(client.sent) {
            client.out.extend_from_slice(&asked.command);
        }
        client.sent = client.asked.len();
        let Some(socket) = &mut client.socket else {
            return;
        };
        match socket.write(&client.out) {
            Ok(count) => {
                client.out.drain(..count);
            }
            // What the server said before it closed the connection is read first.
            Err(_) if socket.is_readable() => {}
            Err(_) => self.lose(index),
        }
    }

    fn serve(&mut self, index: usize) -> Result<(), Failure> {
        let client = &mut self.clients[index];
        let Some(socket) = &mut client.socket else {
            return Ok(());
        };
        if !client.is_open {
            match socket.advance(&mut self.scratch) {
                Ok(true) => client.is_open = true,
                Ok(false) => return Ok(()),
                Err(_) => {
                    self.lose(index);
                    return Ok(());
                }
            }
        }
        self.send(index);
        loop {
            let client = &mut self.clients[index];
            let Some(socket) = &mut client.socket else {
                return Ok(());
            };
            match socket.read(&mut self.scratch) {
                Ok(Received::Bytes(bytes)) => client.tail.extend_from_slice(bytes),
                Ok(Received::Nothing) => return Ok(()),
                Ok(Received::End) | Err(_) => {
                    self.lose(index);
                    return Ok(());
                }
            }
            self.take_answers(index)?;
        }
    }

    /// Takes all answers that have come whole.
    fn take_answers(&mut self, index: usize) -> Result<(), Failure> {
        loop {
            let client = &mut self.clients[index];
            let Some(end) = memchr(b'\n', &client.tail) else {
                return Ok(());
            };
            let line = &client.tail[..end];
            if let Some(said) = line.strip_prefix(b"? ") {
                let is_echo = |asked: &&Asked| asked.command.trim_ascii_end() == said;
                let words = Escaped(said).to_string();
                self.figures.first_refusal.get_or_insert(words);
                if client.asked.front().filter(is_echo).is_none() {
                    // It is not what was asked, so it is why the connection is rejected.
                    self.reject(index);
                    return Ok(());
                }
                client.tail.drain(..=end);
                self.answered(index, Outcome::Refused);
                continue;
            }
            let wrong = |asked: &[u8]| {
                Failure::Failed(format!(
                    "a polite client got a wrong answer\n  sent      {}\n  got       {}",
                    Escaped(asked.trim_ascii_end()),
                    Escaped(line)
                ))
            };
            let Some(asked) = client.asked.front().filter(|_| client.sent > 0) else {
                return Err(wrong(b""));
            };
            let told = asked.command.trim_ascii_end();
            let outcome = match (asked.kind, server_of(line)) {
                (_, None) => return Err(wrong(&asked.command)),
                (Kind::Known | Kind::New, Some(server)) => {
                    let told = told.strip_prefix(b"IAMAT ").unwrap_or(told);
                    if !line.ends_with(told) {
                        return Err(wrong(&asked.command));
                    }
                    if self.server.is_empty() {
                        self.server = Escaped(server).to_string();
                    }
                    client.tail.drain(..=end);
                    Outcome::Answered
                }
                (Kind::Whatsat, Some(_)) => {
                    let behind = &client.tail[end + 1..];
                    let Some(length) = memmem::find(behind, b"\n\n") else {
                        return Ok(());
                    };
                    let json = &behind[..length];
                    let outcome = match self.rules.check_json(json) {
                        Ok(Found::Places) => Outcome::Answered,
                        Ok(Found::Error) => {
                            self.figures
                                .first_refusal
                                .get_or_insert_with(|| error_of(json));
                            Outcome::Refused
                        }
                        Err(_) => return Err(wrong(&asked.command)),
                    };
                    client.tail.drain(..end + 1 + length + 2);
                    outcome
                }
            };
            self.answered(index, outcome);
        }
    }

    /// The oldest command has its answer.
    fn answered(&mut self, index: usize, outcome: Outcome) {
        let now_ns = self.clock.now_ns();
        let client = &mut self.clients[index];
        client.sent -= 1;
        let Some(asked) = client.asked.pop_front() else {
            return;
        };
        if outcome == Outcome::Refused {
            self.figures.refuse(&asked);
            return;
        }
        let latency_ns = now_ns.saturating_sub(asked.due_ns);
        let figures = &mut self.figures;
        let latencies = match (asked.phase, asked.kind) {
            (Phase::Introduction | Phase::Over, _) => return,
            (Phase::Alone, Kind::Known | Kind::New) => &mut figures.alone,
            (Phase::Alone, Kind::Whatsat) => &mut figures.whatsat_alone,
            (Phase::UnderAttack, Kind::Known | Kind::New) => &mut figures.under_attack,
            (Phase::UnderAttack, Kind::Whatsat) => &mut figures.whatsat_under_attack,
        };
        latencies.saturating_record(latency_ns);
        self.figures.answered += 1;
    }

    /// The server rejects the connection: all that was sent on it is refused.
    fn reject(&mut self, index: usize) {
        self.figures.connections_rejected += 1;
        let client = &mut self.clients[index];
        for asked in client.asked.drain(..client.sent) {
            self.figures.refuse(&asked);
        }
        self.disconnect(index);
    }

    /// The connection is lost, and all that was sent on it.
    fn lose(&mut self, index: usize) {
        let client = &mut self.clients[index];
        if client.is_open {
            self.figures.connections_lost += 1;
        }
        for asked in client.asked.drain(..client.sent) {
            self.figures.lost += u64::from(asked.phase != Phase::Introduction);
        }
        self.disconnect(index);
    }

    fn disconnect(&mut self, index: usize) {
        let client = &mut self.clients[index];
        client.socket = None;
        client.is_open = false;
        client.sent = 0;
        client.out.clear();
        client.tail.clear();
        client.redial_ns = Some(self.clock.now_ns() + REDIAL_NS);
    }

    fn redial(&mut self, now_ns: u64) {
        for index in 0..self.clients.len() {
            let client = &mut self.clients[index];
            if client.redial_ns.is_none_or(|due_ns| due_ns > now_ns) {
                continue;
            }
            client.redial_ns = None;
            let begun = self.dialler.begin(index).and_then(|mut socket| {
                watch(&self.poll, &mut socket, index)?;
                Ok(socket)
            });
            match begun {
                Ok(socket) => client.socket = Some(socket),
                Err(_) => client.redial_ns = Some(now_ns + REDIAL_NS),
            }
        }
    }

    /// How long the poll may wait. It counts in milliseconds, rounded up; so the last one is spent
    /// awake, and no command is late because of it.
    fn patience(&self, now_ns: u64, until_ns: u64) -> Duration {
        let mut wait_ns = POLL_NS.min(until_ns - now_ns);
        if self.issues() {
            let due = self.clients.iter().map(|client| client.next_due_ns);
            let wait = due.min().unwrap_or(until_ns).saturating_sub(now_ns);
            wait_ns = wait_ns.min(wait / MILLISECOND_NS * MILLISECOND_NS);
        }
        Duration::from_nanos(wait_ns)
    }

    /// Their commands and latencies until now.
    pub(crate) fn figures(mut self) -> Figures {
        let now_ns = self.clock.now_ns();
        for asked in self.clients.iter().flat_map(|client| &client.asked) {
            self.figures.unanswered += 1;
            let waited_ns = now_ns.saturating_sub(asked.due_ns);
            let oldest_ns = &mut self.figures.oldest_unanswered_ns;
            *oldest_ns = waited_ns.max(*oldest_ns);
        }
        self.figures
    }
}

impl Client {
    fn interval_ns(&self) -> u64 {
        if self.is_asker {
            ASKING_NS
        } else {
            INTERVAL_NS
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Answered,
    Refused,
}

impl Figures {
    fn refuse(&mut self, asked: &Asked) {
        if asked.phase == Phase::Introduction {
            return;
        }
        self.refused += 1;
        self.refused_new += u64::from(asked.kind == Kind::New);
    }
}

impl Phase {
    fn shown(self) -> &'static str {
        match self {
            Phase::Introduction => "connecting",
            Phase::Alone => "alone",
            Phase::UnderAttack => "attacking",
            Phase::Over => "finishing",
        }
    }
}

fn watch(poll: &Poll, socket: &mut Socket, index: usize) -> io::Result<()> {
    let interest = Interest::READABLE | Interest::WRITABLE;
    poll.registry()
        .register(socket.source(), Token(index), interest)
}

/// A length of time of some minutes at most.
pub(crate) fn ns(length: Duration) -> u64 {
    u64::try_from(length.as_nanos()).unwrap_or(u64::MAX)
}
