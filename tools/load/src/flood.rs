//! Measures a flood. One server gets the `IAMAT` of a new client, and all other servers are asked
//! about that client until they know it.
//!
//! ```text
//!              ┌──────── still refused, after --interval ◄─ Resting ◄──┐
//!              ▼                                                       │
//!   round ─► Asked ──── "? WHATSAT …" ─────────────────────────────────┘
//!              └─────── "AT …" ───► Answering ── the JSON is there ──► Knows
//! ```
//!
//! In the clients' protocol, only the answer to a `WHATSAT` shows whether a server knows a client:
//! if not, the server refuses it at once. Each round has its own client. A server with a key for
//! Places asks Places before it answers. So this mode is made for servers without a key, which
//! answer with an error at once.

use std::time::Duration;

use hdrhistogram::Histogram;
use herd_client::dial::Target;
use herd_testkit::failure::{Failure, system};
use mio::Events;

use crate::clock::{MILLISECOND_NS, SECOND_NS};
use crate::conversation::Conversation;
use crate::crew::{Crew, Trouble};
use crate::load::GRACE_NS;
use crate::outages::Missing;
use crate::process::Watched;
use crate::progress::{Progress, TICK_NS};
use crate::socket::Received;
use crate::stop::Stop;
use crate::tally::histogram;
use crate::timeline::Timeline;
use crate::watcher::{State, Watcher};

/// The longest wait of a turn, so that signals are noticed.
const PATIENCE_NS: u64 = 100 * MILLISECOND_NS;
/// The token of the server that gets the `IAMAT`.
const SOURCE: usize = 0;

/// The options of a flood.
pub(crate) struct Plan {
    pub(crate) warm_up_ns: u64,
    pub(crate) duration_ns: u64,
    /// The greatest number of counted rounds.
    pub(crate) count: Option<u64>,
    /// The time limit of a round.
    pub(crate) timeout_ns: u64,
    /// The interval between questions to one server.
    pub(crate) poll_interval_ns: u64,
    pub(crate) spin: bool,
}

/// The result. All latencies are in nanoseconds.
pub(crate) struct Outcome {
    pub(crate) elapsed_ns: u64,
    pub(crate) interrupted: bool,
    /// From the answer until the last server knew the client.
    pub(crate) all: Histogram<u64>,
    /// From the answer until each server knew the client, with the server's name.
    pub(crate) each: Vec<(String, Histogram<u64>)>,
    /// From the sending of the `IAMAT` until the last server knew the client.
    pub(crate) since_sent: Histogram<u64>,
    /// From the last refused question until the first other answer.
    pub(crate) resolution: Histogram<u64>,
    /// The number of questions.
    pub(crate) polls: u64,
    /// Whether a server asked Places. Then the time of Places is in the figures.
    pub(crate) asked_places: bool,
    /// The round in which a signal came, if it did not end soon after.
    pub(crate) unanswered: Missing,
    /// The rounds by the time of their end.
    pub(crate) timeline: Timeline,
}

struct Round<'a> {
    crew: &'a mut Crew,
    plan: &'a Plan,
    stop: &'a Stop,
    watchers: Vec<Watcher>,
    events: Events,
    scratch: Box<[u8]>,
    question: Vec<u8>,
    refusal: Vec<u8>,
    /// The answer of the server that got the `IAMAT`.
    line: Vec<u8>,
    sent_ns: u64,
    answered_ns: Option<u64>,
}

/// Measures round after round. The crew is one connection to the server that gets the `IAMAT`s.
pub(crate) fn run(
    crew: &mut Crew,
    others: Vec<Target>,
    plan: &Plan,
    watched: &mut Watched,
    progress: &mut Progress,
    stop: &Stop,
) -> Result<Outcome, Failure> {
    let mut watchers = Vec::with_capacity(others.len());
    for (number, target) in others.into_iter().enumerate() {
        watchers.push(Watcher::connect(crew, target, number + 1, plan.timeout_ns)?);
    }
    let begin_ns = crew.clock.now_ns();
    let counts_from_ns = begin_ns + plan.warm_up_ns;
    let end_ns = counts_from_ns + plan.duration_ns;
    let mut outcome = Outcome {
        elapsed_ns: 0,
        interrupted: false,
        all: histogram()?,
        each: Vec::new(),
        since_sent: histogram()?,
        resolution: histogram()?,
        polls: 0,
        asked_places: false,
        unanswered: Missing::default(),
        timeline: Timeline::new(&(counts_from_ns..end_ns))?,
    };
    for watcher in &watchers {
        let name = watcher.target.name.clone().unwrap_or_default();
        outcome.each.push((name, histogram()?));
    }
    let mut round = Round {
        crew,
        plan,
        stop,
        watchers,
        events: Events::with_capacity(64),
        scratch: vec![0; 64 * 1024].into(),
        question: Vec::new(),
        refusal: Vec::new(),
        line: Vec::new(),
        sent_ns: 0,
        answered_ns: None,
    };
    let (mut begun, mut next_tick_ns) = (false, begin_ns);
    // Client 0 was used for the introduction.
    for number in 1.. {
        let now_ns = round.crew.clock.now_ns();
        let counts = now_ns >= counts_from_ns;
        if counts && !begun {
            watched.begin()?;
            begun = true;
        }
        outcome.interrupted = stop.is_wanted();
        let enough = plan.count.is_some_and(|count| outcome.all.len() >= count);
        if outcome.interrupted || enough || now_ns >= end_ns {
            outcome.elapsed_ns = now_ns.saturating_sub(counts_from_ns);
            break;
        }
        if now_ns >= next_tick_ns {
            next_tick_ns = now_ns + TICK_NS;
            let phase = if counts { "measuring" } else { "warming up" };
            let done = (now_ns - begin_ns) as f64 / (end_ns - begin_ns).max(1) as f64;
            progress.measuring(phase, done, number.into(), now_ns);
        }
        let complete = round.play(number)?;
        let now_ns = round.crew.clock.now_ns();
        if !complete {
            outcome.unanswered.add(round.sent_ns, now_ns);
        } else if counts {
            round.note(&mut outcome, now_ns);
        }
    }
    if !begun {
        watched.begin()?;
    }
    watched.end()?;
    outcome.timeline = outcome.timeline.finish(round.crew.clock.now_ns());
    outcome.polls = round
        .watchers
        .iter()
        .map(|watcher| watcher.inquiry.polls)
        .sum();
    outcome.asked_places = round
        .watchers
        .iter()
        .any(|watcher| watcher.inquiry.asked_places);
    Ok(outcome)
}

impl Round<'_> {
    /// Sends an `IAMAT` to one server, and asks the others until all of them know the client.
    /// `false` if a signal ended the round.
    fn play(&mut self, number: u32) -> Result<bool, Failure> {
        self.question.clear();
        self.crew.commands.whatsat(&mut self.question, number);
        self.refusal.clear();
        self.refusal.extend_from_slice(b"? ");
        self.refusal.extend_from_slice(&self.question);
        self.answered_ns = None;
        self.sent_ns = self.crew.clock.now_ns();
        let wall_ns = self.crew.clock.wall_ns();
        let connection = &mut self.crew.connections[SOURCE];
        connection
            .conversation
            .iamat(&mut self.crew.commands, number, self.sent_ns, wall_ns);
        self.flush_source()?;
        for watcher in &mut self.watchers {
            watcher.inquiry.unknowing_ns = self.sent_ns;
            watcher.ask(&self.question, self.crew.clock.now_ns());
            watcher.flush()?;
        }
        let mut stopping_ns = None;
        while !self.is_over() {
            if self.stop.is_wanted() {
                let now_ns = self.crew.clock.now_ns();
                if now_ns - *stopping_ns.get_or_insert(now_ns) > GRACE_NS {
                    return Ok(false);
                }
            }
            self.turn()?;
        }
        // The other servers must repeat the client's answer, to the last byte.
        for watcher in &self.watchers {
            watcher.compare(&self.line, &self.question)?;
        }
        Ok(true)
    }

    fn is_over(&self) -> bool {
        let all_know = self
            .watchers
            .iter()
            .all(|w| w.inquiry.state == State::Knows);
        self.answered_ns.is_some() && all_know
    }

    fn turn(&mut self) -> Result<(), Failure> {
        let now_ns = self.crew.clock.now_ns();
        if now_ns - self.sent_ns > self.plan.timeout_ns {
            return Err(self.overdue());
        }
        let interval_ns = self.plan.poll_interval_ns;
        let mut wait_ns = PATIENCE_NS;
        for watcher in &mut self.watchers {
            if watcher.inquiry.state != State::Resting {
                continue;
            }
            let due_ns = watcher.inquiry.asked_ns + interval_ns;
            if due_ns <= now_ns {
                watcher.ask(&self.question, now_ns);
                watcher.flush()?;
            } else {
                // epoll's timeout is in milliseconds, so a part of one is spent without sleep.
                let whole_ms_ns = (due_ns - now_ns) / MILLISECOND_NS * MILLISECOND_NS;
                wait_ns = wait_ns.min(whole_ms_ns);
            }
        }
        if self.plan.spin {
            wait_ns = 0;
        }
        match self
            .crew
            .poll
            .poll(&mut self.events, Some(Duration::from_nanos(wait_ns)))
        {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => return Ok(()),
            Err(error) => return Err(system("wait for answers")(error)),
        }
        let ready: Vec<usize> = self
            .events
            .iter()
            .map(|event| {
                let index = event.token().0;
                match index.checked_sub(1) {
                    None => {
                        if let Some(socket) = &mut self.crew.connections[SOURCE].socket {
                            socket.note(event);
                        }
                    }
                    Some(other) => self.watchers[other].socket.note(event),
                }
                index
            })
            .collect();
        for index in ready {
            match index.checked_sub(1) {
                None => self.receive_source()?,
                Some(other) => self.receive_other(other)?,
            }
        }
        Ok(())
    }

    fn receive_source(&mut self) -> Result<(), Failure> {
        loop {
            let crew = &mut *self.crew;
            let connection = &mut crew.connections[SOURCE];
            let Some(socket) = &mut connection.socket else {
                break;
            };
            let received = match socket.read(&mut self.scratch) {
                Ok(Received::Bytes(bytes)) => Ok(bytes),
                Ok(Received::Nothing) => break,
                Ok(Received::End) => Err(Trouble::Ended),
                Err(error) => Err(error.into()),
            };
            let now_ns = crew.clock.now_ns();
            let wall_ns = crew.clock.wall_ns();
            let (line, answered_ns) = (&mut self.line, &mut self.answered_ns);
            let conversation = &mut connection.conversation;
            received
                .and_then(|bytes| {
                    conversation
                        .receive(bytes, wall_ns, &crew.rules, &mut crew.heard, |answered| {
                            line.clear();
                            line.extend_from_slice(answered.line);
                            *answered_ns = Some(now_ns);
                        })
                        .map_err(Trouble::Wrong)
                })
                .map_err(|trouble| trouble.in_words(&crew.target, SOURCE, conversation))?;
        }
        self.flush_source()
    }

    fn flush_source(&mut self) -> Result<(), Failure> {
        let connection = &mut self.crew.connections[SOURCE];
        connection.flush().map_err(|error| {
            Trouble::from(error).in_words(&self.crew.target, SOURCE, &connection.conversation)
        })
    }

    fn receive_other(&mut self, other: usize) -> Result<(), Failure> {
        let watcher = &mut self.watchers[other];
        let number = other + 1;
        loop {
            let received = watcher.socket.read(&mut self.scratch);
            let trouble = match received {
                Ok(Received::Bytes(bytes)) => {
                    let now_ns = self.crew.clock.now_ns();
                    let (refusal, rules) = (&self.refusal, &self.crew.rules);
                    match watcher.inquiry.receive(bytes, now_ns, refusal, rules) {
                        Ok(()) => continue,
                        Err(wrong) => Trouble::Wrong(wrong),
                    }
                }
                Ok(Received::Nothing) => break,
                Ok(Received::End) => Trouble::Ended,
                Err(error) => error.into(),
            };
            return Err(trouble.in_words(&watcher.target, number, &Conversation::default()));
        }
        if watcher.inquiry.state == State::Resting && self.plan.poll_interval_ns == 0 {
            watcher.ask(&self.question, self.crew.clock.now_ns());
        }
        watcher.flush()
    }

    /// The error if a round takes too long, with the servers that do not know the client.
    fn overdue(&self) -> Failure {
        let seconds = self.plan.timeout_ns as f64 / SECOND_NS as f64;
        if self.answered_ns.is_none() {
            let target = &self.crew.target;
            return Failure::Failed(format!(
                "{target} has not answered an IAMAT for {seconds:.1} s; see --timeout"
            ));
        }
        let unknowing = |watcher: &&Watcher| watcher.inquiry.state != State::Knows;
        let names: Vec<String> = self
            .watchers
            .iter()
            .filter(unknowing)
            .map(|watcher| watcher.target.to_string())
            .collect();
        Failure::Failed(format!(
            "the update did not reach {} within {seconds:.1} s; run herd-client status to check their links",
            names.join(", ")
        ))
    }

    fn note(&self, outcome: &mut Outcome, now_ns: u64) {
        let answered_ns = self.answered_ns.unwrap_or(self.sent_ns);
        let mut last_ns = self.sent_ns;
        for (watcher, (_, latencies)) in self.watchers.iter().zip(&mut outcome.each) {
            latencies.saturating_record(watcher.inquiry.knows_ns.saturating_sub(answered_ns));
            let unsure_ns = watcher.inquiry.knows_ns - watcher.inquiry.unknowing_ns;
            outcome.resolution.saturating_record(unsure_ns);
            last_ns = last_ns.max(watcher.inquiry.knows_ns);
        }
        let took_ns = last_ns.saturating_sub(answered_ns);
        outcome.all.saturating_record(took_ns);
        outcome.timeline.record(now_ns, took_ns);
        outcome.since_sent.saturating_record(last_ns - self.sent_ns);
    }
}
