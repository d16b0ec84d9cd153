//! The measurement: one thread, one poll, one turn after the other.
//!
//! ```text
//!   poll ─► for each ready connection: read once ─► check every answer ─► add as many commands ─► write once
//!        ─► open loop: send commands that are due ─► at intervals: progress bar, signals, timeouts
//! ```
//!
//! *Closed loop*: each connection keeps a fixed number of commands in flight, and sends one more
//! for each answer. *Open loop*: commands become due at a steady rate, whatever the server does. A
//! latency starts when its command is *due*. A command may have to wait, because its connection has
//! too many in flight. This wait is a part of the latency. Without it, the figures would hide the
//! times in which the server was slow. (Most load generators have this *coordinated omission*.)
//!
//! A lost connection is made again (`load/reconnect.rs`). The commands in flight on it are lost,
//! and are not in the latencies. In an open loop, the commands that become due in that time are
//! sent late, and their latency starts when they were due. A closed loop sends nothing without a
//! connection, so only its rate shows the outage.
//!
//! A latency ends when the answer is read, not when it arrives. If many connections are ready at
//! once, it includes the generator's work on the earlier ones. So latencies are never too low, and
//! the report shows how busy the generator was.

use std::collections::BTreeSet;
use std::io;
use std::time::Duration;

use herd_mio::core::session::tls::is_tls;
use herd_testkit::failure::{Failure, system};
use mio::Events;

use crate::clock::MILLISECOND_NS;
use crate::conversation::Answered;
use crate::crew::{Crew, Stage, Trouble};
use crate::outages::{MissingByKind, Outages};
use crate::process::Watched;
use crate::progress::{Progress, TICK_NS};
use crate::redial::Redial;
use crate::schedule::Schedule;
use crate::socket::Received;
use crate::stop::Stop;
use crate::tally::Tally;

mod ending;
mod reconnect;

/// The number of bytes that one turn reads from one connection.
const TURN_BYTES: usize = 256 * 1024;
/// The greatest number of events in one turn.
const EVENTS: usize = 1024;
/// The longest wait of a turn, so that signals and the end are noticed.
const PATIENCE_NS: u64 = 100 * MILLISECOND_NS;
/// The longest wait for answers after a signal.
pub(crate) const GRACE_NS: u64 = 1000 * MILLISECOND_NS;

/// The kinds of commands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Work {
    Iamat,
    Whatsat,
    /// This percentage of commands are `WHATSAT`s, evenly spread.
    Mix {
        whatsat_percent: u32,
    },
}

/// The options of a measurement.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) work: Work,
    /// The greatest number of commands in flight on one connection.
    pub(crate) depth: usize,
    /// Open loop: commands a second, on all connections together.
    pub(crate) rate_per_s: Option<f64>,
    /// The length of the warm-up, which does not count.
    pub(crate) warm_up_ns: u64,
    pub(crate) duration_ns: u64,
    /// The greatest number of counted commands.
    pub(crate) count: Option<u64>,
    /// The longest wait for an answer.
    pub(crate) timeout_ns: u64,
    /// Whether the first lost connection ends the run.
    pub(crate) stops_at_loss: bool,
    /// Never sleep. This uses a whole core, so that no answer waits for a wake-up.
    pub(crate) spin: bool,
}

/// The result of a measurement.
pub(crate) struct Outcome {
    pub(crate) tally: Tally,
    /// The length of the time in which commands counted.
    pub(crate) elapsed_ns: u64,
    /// Whether a signal ended the run.
    pub(crate) interrupted: bool,
    /// Open loop: the number of commands that were due, and never sent.
    pub(crate) unsent: u64,
    /// The wait of the oldest of those.
    pub(crate) oldest_unsent_ns: u64,
    /// Commands that were sent, and had no answer at the end.
    pub(crate) unanswered: MissingByKind,
    /// Commands that were in flight on a lost connection.
    pub(crate) lost: MissingByKind,
    pub(crate) outages: Outages,
    /// The reason for an early end, or for missing connections, as text.
    pub(crate) trouble: Option<String>,
}

/// Measures.
pub(crate) fn run(
    crew: &mut Crew,
    plan: &Plan,
    watched: &mut Watched,
    progress: &mut Progress,
    stop: &Stop,
) -> Result<Outcome, Failure> {
    let start_ns = crew.clock.now_ns();
    let counts_from = start_ns + plan.warm_up_ns;
    let tally = Tally::new(counts_from..counts_from + plan.duration_ns)?;
    let connections = crew.connections.len();
    let (window, count) = (&tally.window_ns, plan.count);
    let run = Run {
        schedule: plan
            .rate_per_s
            .map(|rate| Schedule::new(start_ns, rate, connections, window, count)),
        sent: vec![0; connections],
        remaining: plan.count.unwrap_or(u64::MAX),
        scratch: vec![0; TURN_BYTES].into(),
        again: Vec::new(),
        redial: Redial::new(),
        outages: Outages::new(connections),
        lost: MissingByKind::default(),
        reported: BTreeSet::new(),
        away: None,
        stopping_ns: None,
        issuing: true,
        given_up: false,
        in_flight: 0,
        answers: 0,
        mixed: 0,
        progress_ns: start_ns,
        tally,
        start_ns,
        plan,
        crew,
    };
    run.through(watched, progress, stop)
}

struct Run<'a> {
    crew: &'a mut Crew,
    plan: &'a Plan,
    start_ns: u64,
    tally: Tally,
    scratch: Box<[u8]>,
    /// Connections that have more to read than one turn reads.
    again: Vec<usize>,
    redial: Redial,
    outages: Outages,
    /// Commands that were in flight on lost connections.
    lost: MissingByKind,
    /// The kinds of losses that were reported.
    reported: BTreeSet<String>,
    /// The reason of the last failed attempt to connect. `None` after a successful one.
    away: Option<String>,
    /// The time at which a signal came.
    stopping_ns: Option<u64>,
    /// Whether more commands may become due.
    issuing: bool,
    /// Closed loop: the number of commands that still count.
    remaining: u64,
    /// Open loop: the time after which commands that are due are no longer sent.
    given_up: bool,
    in_flight: u64,
    answers: u64,
    /// The time of the last answer, or the start of the wait for the first one.
    progress_ns: u64,
    /// In a mix: the due part of the next `WHATSAT`, in hundredths.
    mixed: u32,
    schedule: Option<Schedule>,
    /// Open loop: the number of commands that each connection has sent.
    sent: Vec<u64>,
}

impl Run<'_> {
    fn through(
        mut self,
        watched: &mut Watched,
        progress: &mut Progress,
        stop: &Stop,
    ) -> Result<Outcome, Failure> {
        let mut events = Events::with_capacity(EVENTS);
        let (mut begun, mut ended) = (false, false);
        let mut next_tick_ns = self.start_ns;
        self.begin(progress)?;
        let end = loop {
            let now_ns = self.crew.clock.now_ns();
            let window = &self.tally.window_ns;
            if now_ns >= window.start && !begun {
                watched.begin()?;
                begun = true;
            }
            // An open loop ends with its last answer, which may come long after the last command
            // was due.
            if now_ns >= window.end && self.schedule.is_none() && !ended {
                watched.end()?;
                ended = true;
            }
            if let Some(end) = self.end(now_ns, stop) {
                break end;
            }
            if now_ns >= next_tick_ns {
                next_tick_ns = now_ns + TICK_NS;
                self.show(progress, now_ns);
            }
            self.reconnect(now_ns, progress)?;

            let patience = self.patience(now_ns);
            match self.crew.poll.poll(&mut events, Some(patience)) {
                Ok(()) => {}
                // A signal. The next turn checks for it.
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(system("wait for answers")(error)),
            }
            let again = std::mem::take(&mut self.again);
            for event in &events {
                let index = event.token().0;
                if let Some(socket) = &mut self.crew.connections[index].socket {
                    socket.note(event);
                    self.serve(index, progress)?;
                }
            }
            for index in again {
                self.crew.connections[index].queued = false;
                self.serve(index, progress)?;
            }
            self.ask_what_is_due(progress)?;
        };
        if !begun {
            watched.begin()?;
        }
        if !ended {
            watched.end()?;
        }
        Ok(self.outcome(end))
    }

    /// Closed loop: fills every connection up to its depth.
    fn begin(&mut self, progress: &Progress) -> Result<(), Failure> {
        if self.schedule.is_none() {
            for index in 0..self.crew.connections.len() {
                self.ask_more(index);
                self.flush(index, progress)?;
            }
        }
        Ok(())
    }

    /// Reads once, checks the answers, adds commands, and writes once.
    fn serve(&mut self, index: usize, progress: &Progress) -> Result<(), Failure> {
        let connection = &mut self.crew.connections[index];
        if connection.stage == Stage::Making {
            return self.advance(index, progress);
        }
        let Some(socket) = &mut connection.socket else {
            return Ok(());
        };
        match socket.read(&mut self.scratch) {
            Ok(Received::Bytes(bytes)) if connection.stage != Stage::Open && is_tls(bytes) => {
                return self.lose(index, Trouble::Tls, progress);
            }
            Ok(Received::Bytes(bytes)) => {
                let now_ns = self.crew.clock.now_ns();
                let wall_ns = self.crew.clock.wall_ns();
                let tally = &mut self.tally;
                let before = connection.conversation.answers;
                let checked = connection.conversation.receive(
                    bytes,
                    wall_ns,
                    &self.crew.rules,
                    &mut self.crew.heard,
                    |answered: &Answered<'_>| tally.answered(answered, now_ns),
                );
                let answers = connection.conversation.answers - before;
                self.answers += answers;
                self.in_flight -= answers;
                self.progress_ns = now_ns;
                if socket.is_readable() && !connection.queued {
                    connection.queued = true;
                    self.again.push(index);
                }
                if let Err(wrong) = checked {
                    return Err(self.trouble(index, Trouble::Wrong(wrong)));
                }
                if connection.stage == Stage::Open {
                    self.ask_more_at(index, now_ns, wall_ns);
                } else {
                    self.introduce(index, now_ns, wall_ns, progress);
                }
            }
            Ok(Received::Nothing) => {}
            Ok(Received::End) => return self.lose(index, Trouble::Ended, progress),
            Err(error) => return self.lose(index, error.into(), progress),
        }
        self.flush(index, progress)
    }

    fn flush(&mut self, index: usize, progress: &Progress) -> Result<(), Failure> {
        match self.crew.connections[index].flush() {
            Ok(()) => Ok(()),
            Err(error) => self.lose(index, error.into(), progress),
        }
    }

    /// Open loop: gives the commands that have become due to their connections.
    fn ask_what_is_due(&mut self, progress: &Progress) -> Result<(), Failure> {
        let now_ns = self.crew.clock.now_ns();
        let schedule = self.schedule.as_mut();
        let Some(schedule) = schedule.filter(|_| self.stopping_ns.is_none()) else {
            return Ok(());
        };
        let due = schedule.release(now_ns);
        let connections = self.crew.connections.len() as u64;
        // If every connection has a command, no connection needs to be visited twice.
        let visited = due.start..due.end.min(due.start.saturating_add(connections));
        for number in visited {
            // Below the number of connections.
            let index = (number % connections) as usize;
            self.ask_more(index);
            self.flush(index, progress)?;
        }
        Ok(())
    }

    /// Open loop: the number of commands that are due and not sent.
    fn owed(&self) -> u64 {
        self.schedule.as_ref().map_or(0, Schedule::owed)
    }

    fn ask_more(&mut self, index: usize) {
        let now_ns = self.crew.clock.now_ns();
        let wall_ns = self.crew.clock.wall_ns();
        self.ask_more_at(index, now_ns, wall_ns);
    }

    /// Adds as many commands as the connection has room for.
    fn ask_more_at(&mut self, index: usize, now_ns: u64, wall_ns: u64) {
        if self.crew.connections[index].stage != Stage::Open {
            return;
        }
        while self.crew.connections[index].conversation.in_flight() < self.plan.depth {
            let since_ns = match &mut self.schedule {
                None if !self.issuing || self.remaining == 0 => return,
                None => {
                    if self.tally.window_ns.contains(&now_ns) {
                        self.remaining -= 1;
                    }
                    now_ns
                }
                Some(_) if self.given_up => return,
                Some(schedule) => {
                    let sent = &mut self.sent[index];
                    let Some(number) = schedule.next_of(index, *sent) else {
                        return;
                    };
                    *sent += 1;
                    schedule.sent();
                    schedule.due_ns(number)
                }
            };
            if self.in_flight == 0 {
                self.progress_ns = now_ns;
            }
            self.ask(index, since_ns, wall_ns);
        }
    }

    fn ask(&mut self, index: usize, since_ns: u64, wall_ns: u64) {
        let whatsat = match self.plan.work {
            Work::Iamat => false,
            Work::Whatsat => true,
            Work::Mix { whatsat_percent } => {
                self.mixed += whatsat_percent;
                let is_due = self.mixed >= 100;
                self.mixed -= if is_due { 100 } else { 0 };
                is_due
            }
        };
        let crew = &mut *self.crew;
        let connections = crew.connections.len() as u32;
        let connection = &mut crew.connections[index];
        let client = connection.next_client;
        connection.next_client += connections;
        if connection.next_client >= crew.clients {
            connection.next_client = index as u32;
        }
        let conversation = &mut connection.conversation;
        if whatsat {
            conversation.whatsat(&mut crew.commands, client, since_ns);
        } else {
            conversation.iamat(&mut crew.commands, client, since_ns, wall_ns);
        }
        self.in_flight += 1;
    }

    /// The longest wait of the poll.
    fn patience(&self, now_ns: u64) -> Duration {
        if self.plan.spin || !self.again.is_empty() {
            return Duration::ZERO;
        }
        let window = &self.tally.window_ns;
        let boundary = if now_ns < window.start {
            window.start
        } else {
            window.end
        };
        let mut wait_ns = PATIENCE_NS;
        if boundary > now_ns {
            wait_ns = wait_ns.min(boundary - now_ns);
        }
        if let (Some(schedule), true) = (&self.schedule, self.issuing) {
            // epoll's timeout is in milliseconds, and mio rounds up. So the last millisecond is
            // spent without sleep, because a late command would count as a slow answer.
            let due_ns = schedule.next_ns().saturating_sub(now_ns);
            let whole_ms_ns = due_ns / MILLISECOND_NS * MILLISECOND_NS;
            wait_ns = wait_ns.min(whole_ms_ns);
        }
        if let (Some(due_ns), false) = (self.redial.next_ns(), self.given_up) {
            wait_ns = wait_ns.min(due_ns.saturating_sub(now_ns));
        }
        Duration::from_nanos(wait_ns)
    }

    fn show(&self, progress: &mut Progress, now_ns: u64) {
        let window = &self.tally.window_ns;
        let (phase, from, to) = if now_ns < window.start {
            ("warming up", self.start_ns, window.start)
        } else if self.outages.is_disconnected() {
            ("no server", window.start, window.end)
        } else if self.issuing {
            ("measuring", window.start, window.end)
        } else {
            ("finishing", window.start, window.end)
        };
        let passed = now_ns.saturating_sub(from) as f64 / (to - from).max(1) as f64;
        let counted = match self.plan.count {
            Some(count) => self.tally.answers() as f64 / count as f64,
            None => 0.0,
        };
        progress.measuring(phase, passed.max(counted), self.answers, now_ns);
    }

    #[cold]
    fn trouble(&self, index: usize, trouble: Trouble) -> Failure {
        let connection = &self.crew.connections[index];
        trouble.in_words(&self.crew.target, index, &connection.conversation)
    }
}
