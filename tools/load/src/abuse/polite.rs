//! Polite clients. Each sends an `IAMAT` every 50 ms, whatever the server does. Some also send a
//! `WHATSAT` at times. Their latencies show the effect of the attack on other clients.
//!
//! A latency starts when its command is due. So if a server stalls, all commands that become due in
//! that time are slow, and not only the first one.

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

/// The interval between `IAMAT`s of a client.
const INTERVAL_NS: u64 = 50 * MILLISECOND_NS;
/// The interval between `WHATSAT`s of a client. It is longer than Places takes, because answers
/// come in order.
const ASKING_NS: u64 = 500 * MILLISECOND_NS;
/// Of this many `IAMAT`s of a client, the one with this number is of a new client.
const NEW: (u64, u64) = (10, 7);
/// The wait before a lost connection is made again.
const REDIAL_NS: u64 = 100 * MILLISECOND_NS;
/// The time limit of the first answers.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);
/// The longest wait of the poll.
const POLL_NS: u64 = 50 * MILLISECOND_NS;
const READ_BYTES: usize = 64 * 1024;
/// The greatest number of places that a `WHATSAT` asks for.
const BOUND: u8 = 5;
const RADIUS_KM: u8 = 10;

/// The options of the polite clients.
pub(crate) struct Manner {
    /// The number of clients with `IAMAT`s, and the number with `WHATSAT`s.
    pub(crate) clients: usize,
    pub(crate) askers: usize,
    /// The beginning of their names.
    pub(crate) prefix: String,
    /// A part of the new names, which differs between runs.
    pub(crate) run: String,
}

/// Their commands and latencies.
pub(crate) struct Figures {
    pub(crate) asked: u64,
    pub(crate) answered: u64,
    /// Refused commands, and commands on a rejected connection.
    pub(crate) refused: u64,
    /// Those of them with a new client.
    pub(crate) refused_new: u64,
    /// Commands on a lost connection.
    pub(crate) lost: u64,
    pub(crate) connections_lost: u64,
    pub(crate) connections_rejected: u64,
    /// The text of the first refusal.
    pub(crate) first_refusal: Option<String>,
    /// Commands without an answer at the end, and the wait of the oldest one.
    pub(crate) unanswered: u64,
    pub(crate) oldest_unanswered_ns: u64,
    /// Latencies of `IAMAT`s before the attack, and under attack.
    pub(crate) alone: Histogram<u64>,
    pub(crate) under_attack: Histogram<u64>,
    /// The same of `WHATSAT`s.
    pub(crate) whatsat_alone: Histogram<u64>,
    pub(crate) whatsat_under_attack: Histogram<u64>,
    /// The delay of this program, which is a part of the latencies.
    pub(crate) late: Histogram<u64>,
}

/// The phase in which a command was due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Latencies do not count.
    Introduction,
    Alone,
    UnderAttack,
    /// No more commands become due.
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
    /// The time of the next attempt to connect.
    redial_ns: Option<u64>,
    /// Commands without an answer, the oldest first. The first `sent` of them were given to the
    /// connection.
    asked: VecDeque<Asked>,
    sent: usize,
    out: Vec<u8>,
    /// An incomplete answer.
    tail: Vec<u8>,
    /// Whether it sends `WHATSAT`s.
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
    /// The server's name in its answers.
    server: String,
    scratch: Vec<u8>,
}

impl Polite {
    /// Connects the clients, and sends the position of each.
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
            Some(refusal) => format!("refused the polite clients before the attack: ? {refusal}"),
            None if self.figures.connections_lost > 0 => {
                "closed the connections of the polite clients before the attack".to_owned()
            }
            None if self.is_waiting() => format!(
                "did not answer the polite clients before the attack, within {} s",
                PATIENCE.as_secs()
            ),
            None => return Ok(()),
        };
        Err(Failure::Failed(format!(
            "the server {what}; run herd-client status to find the problem"
        )))
    }

    /// The server's name.
    pub(crate) fn server(&self) -> &str {
        &self.server
    }

    /// Runs until that time, or until a signal comes. If no more commands become due, it also ends
    /// when all are answered.
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
            // Includes commands that became due shortly before the end, while this thread did not
            // run.
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
                // A signal. The next turn checks for it.
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

    /// Spreads the first commands evenly over the interval.
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

    /// Gives new commands to the connection, and writes.
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
            // The server may have sent a reason before it closed the connection, so read it first.
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

    /// Takes all complete answers.
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
                    // It does not repeat the command, so it is the reason of a rejected connection.
                    self.reject(index);
                    return Ok(());
                }
                client.tail.drain(..=end);
                self.answered(index, Outcome::Refused);
                continue;
            }
            let wrong = |asked: &[u8]| {
                Failure::Failed(format!(
                    "wrong answer for a polite client\n  sent      {}\n  got       {}",
                    Escaped(asked.trim_ascii_end()),
                    Escaped(line)
                ))
            };
            let Some(asked) = client.asked.front().filter(|_| client.sent > 0) else {
                return Err(wrong(b""));
            };
            let command = asked.command.trim_ascii_end();
            let outcome = match (asked.kind, server_of(line)) {
                (_, None) => return Err(wrong(&asked.command)),
                (Kind::Known | Kind::New, Some(server)) => {
                    let arguments = command.strip_prefix(b"IAMAT ").unwrap_or(command);
                    if !line.ends_with(arguments) {
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

    /// The oldest command is answered.
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

    /// The server rejects the connection. All commands on it are refused.
    fn reject(&mut self, index: usize) {
        self.figures.connections_rejected += 1;
        let client = &mut self.clients[index];
        for asked in client.asked.drain(..client.sent) {
            self.figures.refuse(&asked);
        }
        self.disconnect(index);
    }

    /// The connection is lost, with all commands on it.
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

    /// The longest wait of the poll. Its timeout is in milliseconds, rounded up. So the last
    /// millisecond is spent without sleep, and no command is late because of it.
    fn patience(&self, now_ns: u64, until_ns: u64) -> Duration {
        let mut wait_ns = POLL_NS.min(until_ns - now_ns);
        if self.issues() {
            let due = self.clients.iter().map(|client| client.next_due_ns);
            let wait = due.min().unwrap_or(until_ns).saturating_sub(now_ns);
            wait_ns = wait_ns.min(wait / MILLISECOND_NS * MILLISECOND_NS);
        }
        Duration::from_nanos(wait_ns)
    }

    /// The commands and latencies so far.
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

/// A duration in nanoseconds. It has to be below an hour.
pub(crate) fn ns(length: Duration) -> u64 {
    u64::try_from(length.as_nanos()).unwrap_or(u64::MAX)
}
