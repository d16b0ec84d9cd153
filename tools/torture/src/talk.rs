//! The conversation, which is the same in each run. Every answer is judged.
//!
//! A refused command is sent again. If the fault ends, the server has to recover: all answers have
//! to be right within a deadline. If the fault lasts, each answer may be a refusal.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use herd_testkit::clock;
use herd_testkit::server::Listening;
use rustix::process::Signal;

use crate::case::Case;
use crate::connection::{Connection, Cut};
use crate::descriptors::Descriptors;
use crate::ledger::{Client, Iamat, KIWI, Ledger, MANGO, PLUM, judge_places};
use crate::server::Server;
use crate::stage::{self, LOG, NEIGHBOUR, ROTATED_LOG, Stage, VICTIM};
use crate::verdict::{Failure, Kind, Reply};

/// The time limit for an answer. It is longer than every limit of the server.
const ANSWER: Duration = Duration::from_secs(5);
/// The time in which the server has to recover. It tries the disk again after one second,
/// everything else sooner.
const WELL_AGAIN: Duration = Duration::from_secs(6);
/// The time for which a step is repeated while a fault lasts.
const IN_VAIN: Duration = Duration::from_millis(300);
/// The time for which the descriptors of an idle server are watched.
const IDLE: Duration = Duration::from_millis(200);
/// The shortest and the longest pause before a command is sent again.
const PAUSE: Duration = Duration::from_millis(5);
const LONG_PAUSE: Duration = Duration::from_millis(100);
/// The time in which the log has to be reopened. The writer thread of the log collects lines for
/// 50 ms.
const ANEW: Duration = Duration::from_millis(500);
/// The number of positions in `move_a_lot`.
const MOVES: usize = 12;
/// The radius and the bound of each WHATSAT.
const RADIUS_KM: usize = 10;
const BOUND: usize = 2;

/// The state of a conversation.
pub(crate) struct Talk<'a> {
    stage: &'a Stage,
    victim: &'a mut Server,
    listening: Listening,
    ledger: &'a mut Ledger,
    case: Option<&'a Case>,
    /// No step begins after this time.
    deadline: Instant,
    /// The refusals so far.
    refusals: Vec<String>,
    failures: Vec<Failure>,
    /// The server accepts no connections or does not answer, so further steps would only wait.
    is_deaf: bool,
}

/// The result of a conversation.
#[derive(Debug, Default)]
pub(crate) struct Told {
    pub(crate) refusals: Vec<String>,
    pub(crate) failures: Vec<Failure>,
    /// The server's open descriptors when it was linked and had no clients.
    pub(crate) before: Descriptors,
}

/// Plays the conversation with a ready server. `baseline` has the descriptors that may be open when
/// all clients are gone. `None` if that is not known yet.
pub(crate) fn play(
    stage: &Stage,
    victim: &mut Server,
    listening: Listening,
    ledger: &mut Ledger,
    case: Option<&Case>,
    baseline: Option<&Descriptors>,
    deadline: Instant,
) -> Told {
    let mut talk = Talk {
        stage,
        victim,
        listening,
        ledger,
        case,
        deadline,
        refusals: Vec::new(),
        failures: Vec::new(),
        is_deaf: false,
    };
    // This comes first: the journal may not be ready yet, and the client does not wait for it.
    talk.persist("several commands in one write", Talk::ask_together);
    talk.await_link();
    let before = match baseline {
        Some(baseline) => baseline.clone(),
        None => talk.idle(),
    };
    talk.converse();
    talk.agree();
    talk.let_go(&before);
    Told {
        refusals: talk.refusals,
        failures: talk.failures,
        before,
    }
}

impl Talk<'_> {
    fn await_link(&mut self) {
        self.persist("the link with the neighbour", |talk| {
            let patience = clock::now() + talk.patience();
            match talk.stage.is_linked(patience) {
                true => Reply::Right,
                false => Reply::NotYet("the neighbour is not linked".to_owned()),
            }
        });
    }

    fn converse(&mut self) {
        let mut first = None;
        self.persist("an IAMAT", |talk| {
            let iamat = talk.ledger.iamat(VICTIM, KIWI);
            talk.ask(&mut first, &iamat)
        });
        self.ask_about("a WHATSAT of another client", &mut None, MANGO);
        let plum = self.stage.neighbour_listening.clients;
        let told = self.ledger.iamat(NEIGHBOUR, PLUM);
        if let Err(failure) = move_at_neighbour(self.ledger, plum, &told) {
            return self.failures.push(failure);
        }
        let mut second = None;
        self.persist("a WHATSAT about a position at the neighbour", |talk| {
            talk.whatsat(&mut second, PLUM)
        });
        self.persist("many IAMATs of one client", Talk::move_a_lot);
        self.persist("one more IAMAT of that client", |talk| {
            let iamat = talk.ledger.iamat(VICTIM, KIWI);
            talk.ask(&mut second, &iamat)
        });
        if self.ledger.has_acknowledged(VICTIM, KIWI) {
            self.persist("an update from the neighbour", |talk| {
                match recall(talk.ledger, talk.stage.neighbour_listening, KIWI) {
                    // The record may still be on its way.
                    Reply::Bad(Failure {
                        kind: Kind::Lost,
                        what,
                    }) => Reply::NotYet(what),
                    Reply::Refused(why) => Reply::NotYet(why),
                    reply => reply,
                }
            });
        }
        self.persist("a new log after SIGHUP", Talk::rotate);
        // The stand-in closes the server's idle connection. The server notices that only when it
        // uses the connection.
        self.stage.places.close_idle();
        self.ask_about("a WHATSAT", &mut first, KIWI);
        if self.ledger.has_acknowledged(VICTIM, KIWI) {
            self.persist("a client's shutdown of its writing side", |talk| {
                talk.finish(&mut first)
            });
        }
    }

    /// Sends a WHATSAT, if the server has acknowledged a position of this client.
    fn ask_about(&mut self, what: &str, connection: &mut Option<Connection>, client: Client) {
        if self.ledger.has_acknowledged(VICTIM, client) {
            self.persist(what, |talk| talk.whatsat(connection, client));
        }
    }

    /// Sends three commands in one write, and reads their answers in order.
    fn ask_together(&mut self) -> Reply {
        let iamat = self.ledger.iamat(VICTIM, MANGO);
        let others = ["WHATSAT nobody 10 2", "hello there"];
        let text = format!("{}\n{}\n", iamat.text, others.join("\n"));
        let deadline = self.answer_deadline();
        let mut together = || -> Result<Reply, Cut> {
            let mut connection = Connection::open(self.listening.clients, deadline)?;
            connection.send(&text, deadline)?;
            let line = connection.until(b"\n", deadline)?;
            let told = self.ledger.answered(&iamat, &line);
            for other in others {
                let line = connection.until(b"\n", deadline)?;
                let line = String::from_utf8_lossy(&line);
                if *line != *format!("? {other}") {
                    return Ok(Reply::wrong(format!("the answer to {other:?} is {line:?}")));
                }
            }
            Ok(told)
        };
        together().unwrap_or_else(reply)
    }

    /// Sends so many commands in one write that the journal grows to twice its length.
    fn move_a_lot(&mut self) -> Reply {
        let deadline = self.answer_deadline();
        let iamats: Vec<Iamat> = (0..MOVES)
            .map(|_| self.ledger.iamat(VICTIM, MANGO))
            .collect();
        let texts: Vec<&str> = iamats.iter().map(|iamat| iamat.text.as_str()).collect();
        let mut moves = || -> Result<Reply, Cut> {
            let mut connection = Connection::open(self.listening.clients, deadline)?;
            connection.send(&format!("{}\n", texts.join("\n")), deadline)?;
            let mut all = Reply::Right;
            for iamat in &iamats {
                let line = connection.until(b"\n", deadline)?;
                match self.ledger.answered(iamat, &line) {
                    Reply::Right => {}
                    Reply::Refused(why) => all = Reply::Refused(why),
                    other => return Ok(other),
                }
            }
            Ok(all)
        };
        moves().unwrap_or_else(reply)
    }

    /// Sends one IAMAT. The connection is made if there is none.
    fn ask(&mut self, connection: &mut Option<Connection>, iamat: &Iamat) -> Reply {
        let deadline = self.answer_deadline();
        let listening = self.listening;
        let ledger = &mut *self.ledger;
        over(connection, listening, deadline, |connection| {
            connection.send(&format!("{}\n", iamat.text), deadline)?;
            let line = connection.until(b"\n", deadline)?;
            Ok(ledger.answered(iamat, &line))
        })
    }

    fn whatsat(&mut self, connection: &mut Option<Connection>, client: Client) -> Reply {
        let deadline = self.answer_deadline();
        let question = question(client);
        over(connection, self.listening, deadline, |connection| {
            connection.send(&format!("{question}\n"), deadline)?;
            read_places(self.ledger, connection, &question, client, deadline)
        })
    }

    /// The client shuts down its writing side. The server has to answer, and then to close without
    /// more bytes.
    fn finish(&mut self, connection: &mut Option<Connection>) -> Reply {
        let deadline = self.answer_deadline();
        let question = question(KIWI);
        let reply = over(connection, self.listening, deadline, |connection| {
            connection.send(&question, deadline)?; // without an LF: the end of input ends the line
            connection.finish()?;
            let reply = read_places(self.ledger, connection, &question, KIWI, deadline)?;
            let rest = connection.rest(deadline)?;
            Ok(match rest.is_empty() {
                true => reply,
                false => Reply::wrong(format!("{} bytes without a command", rest.len())),
            })
        });
        *connection = None;
        reply
    }

    /// Moves the log away, and lets the server open a new one.
    fn rotate(&mut self) -> Reply {
        let log = self.stage.path().join(LOG);
        let rotated = self.stage.path().join(ROTATED_LOG);
        if log.exists()
            && !rotated.exists()
            && let Err(error) = fs::rename(&log, &rotated)
        {
            return Reply::Refused(format!("cannot move the log: {error}"));
        }
        self.victim.process.signal(Signal::HUP);
        // The server opens the new file at the next log line, so a command makes it log.
        let iamat = self.ledger.iamat(VICTIM, MANGO);
        match self.ask(&mut None, &iamat) {
            Reply::Right => {}
            other => return other,
        }
        let has_words = || fs::metadata(&log).is_ok_and(|metadata| metadata.len() > 0);
        match clock::wait_for(clock::now() + ANEW, || has_words().then_some(())) {
            Some(()) => Reply::Right,
            None => Reply::Refused("the log is not reopened".to_owned()),
        }
    }

    /// Waits until both servers hold the same records.
    fn agree(&mut self) {
        self.persist_or(Kind::Diverged, "the neighbours' agreement", |talk| {
            let deadline = talk.answer_deadline();
            let neighbours = talk.stage.neighbour_listening.peers;
            let theirs = match stage::standing(neighbours, NEIGHBOUR, deadline) {
                Ok(theirs) => theirs,
                Err(cut) => {
                    return Reply::Bad(Failure::new(Kind::Neighbour, format!("{cut:?}")));
                }
            };
            match stage::standing(talk.listening.peers, VICTIM, deadline) {
                Ok(ours) if ours.digest == theirs.digest && !ours.linked.is_empty() => Reply::Right,
                Ok(ours) => Reply::NotYet(format!(
                    "{VICTIM} has {} records and {NEIGHBOUR} has {}, and they differ",
                    ours.records, theirs.records
                )),
                Err(cut) => reply(cut),
            }
        });
    }

    /// All clients are gone. Waits until no more descriptors are open than before.
    fn let_go(&mut self, baseline: &Descriptors) {
        self.stage.places.close_idle();
        let mut last = Descriptors::default();
        let well = clock::wait_for(clock::now() + WELL_AGAIN, || {
            if self.victim.process.has_ended() {
                return Some(());
            }
            last = Descriptors::of(self.victim.process.id()).unwrap_or_default();
            last.beyond(baseline).is_none().then_some(())
        });
        if well.is_none()
            && let Some(more) = last.beyond(baseline)
        {
            let seconds = WELL_AGAIN.as_secs();
            self.failures.push(Failure::new(
                Kind::Leaked,
                format!(
                    "{seconds} s after the last client closed, these descriptors are still open: {more}"
                ),
            ));
        }
    }

    /// The open descriptors of the idle server: the fewest that were seen for a while.
    fn idle(&self) -> Descriptors {
        let deadline = clock::now() + IDLE;
        let mut fewest: Option<Descriptors> = None;
        let look = || -> Option<()> {
            let seen = Descriptors::of(self.victim.process.id()).ok()?;
            if fewest
                .as_ref()
                .is_none_or(|fewest| fewest.beyond(&seen).is_some())
            {
                fewest = Some(seen);
            }
            None
        };
        clock::wait_for(deadline, look);
        fewest.unwrap_or_default()
    }

    /// The time for which a step is repeated.
    fn patience(&self) -> Duration {
        match self.case {
            Some(case) if !case.when.ends() => IN_VAIN,
            Some(_) | None => WELL_AGAIN,
        }
    }

    fn answer_deadline(&self) -> Instant {
        (clock::now() + ANSWER).min(self.deadline)
    }

    /// Repeats a step until it succeeds, fails for good, or its time is over.
    fn persist(&mut self, what: &str, attempt: impl FnMut(&mut Self) -> Reply) {
        self.persist_or(Kind::Unrecovered, what, attempt);
    }

    /// The same. `kind` is the failure if a fault has ended and the step still does not succeed.
    fn persist_or(&mut self, kind: Kind, what: &str, mut attempt: impl FnMut(&mut Self) -> Reply) {
        let until = (clock::now() + self.patience()).min(self.deadline);
        let mut pause = PAUSE;
        while !self.is_deaf && !self.victim.process.has_ended() {
            match attempt(self) {
                Reply::Right => return,
                Reply::Bad(failure) => return self.failures.push(failure),
                Reply::Silence if self.case.is_some_and(Case::deafens) => {
                    self.is_deaf = true;
                    return self.refusals.push(format!(
                        "{what}: no connection is accepted while the fault lasts"
                    ));
                }
                Reply::Silence if self.victim.process.has_ended() => return,
                Reply::Silence => {
                    let seconds = ANSWER.as_secs();
                    self.is_deaf = true; // One hang is enough to report.
                    return self.failures.push(Failure::new(
                        Kind::Hung,
                        format!("{what}: no answer within {seconds} s"),
                    ));
                }
                reply @ (Reply::Refused(_) | Reply::NotYet(_)) => {
                    let is_late = clock::now() >= until;
                    let (is_told, why) = match reply {
                        Reply::NotYet(why) => (is_late, why),
                        Reply::Refused(why) => (true, why),
                        Reply::Right | Reply::Silence | Reply::Bad(_) => return,
                    };
                    let why = format!("{what}: {why}");
                    if is_late && self.patience() == WELL_AGAIN && !self.victim.process.has_ended()
                    {
                        return self.failures.push(Failure::new(kind, why));
                    }
                    // Only the first reason of each step is reported.
                    let step = format!("{what}: ");
                    if is_told && !self.refusals.iter().any(|told| told.starts_with(&step)) {
                        self.refusals.push(why);
                    }
                    if is_late {
                        return;
                    }
                    thread::sleep(pause);
                    pause = (2 * pause).min(LONG_PAUSE);
                }
            }
        }
    }
}

fn question(client: Client) -> String {
    format!("WHATSAT {} {RADIUS_KM} {BOUND}", client.name)
}

/// Calls `ask` with a connection, which is made if there is none. After an error the connection is
/// not used again.
fn over(
    connection: &mut Option<Connection>,
    listening: Listening,
    deadline: Instant,
    ask: impl FnOnce(&mut Connection) -> Result<Reply, Cut>,
) -> Reply {
    let opened = match connection.take() {
        Some(opened) => Ok(opened),
        None => Connection::open(listening.clients, deadline),
    };
    let mut opened = match opened {
        Ok(opened) => opened,
        Err(cut) => return reply(cut),
    };
    match ask(&mut opened) {
        Ok(reply) => {
            *connection = Some(opened);
            reply
        }
        Err(cut) => reply(cut),
    }
}

fn reply(cut: Cut) -> Reply {
    match cut {
        Cut::Gone(why) => Reply::Refused(why),
        Cut::Late => Reply::Silence,
    }
}

/// Reads the whole answer to a WHATSAT: the line and the JSON.
fn read_places(
    ledger: &Ledger,
    connection: &mut Connection,
    question: &str,
    client: Client,
    deadline: Instant,
) -> Result<Reply, Cut> {
    let line = connection.until(b"\n", deadline)?;
    match ledger.recalled(question, client, &line) {
        Reply::Right => {}
        Reply::Refused(why) if !ledger.has_acknowledged(VICTIM, client) => {
            return Ok(Reply::NotYet(why));
        }
        Reply::Refused(_) => {
            return Ok(Reply::Bad(Failure::new(
                Kind::Lost,
                format!("the answer to {question} says that the client is unknown"),
            )));
        }
        other => return Ok(other),
    }
    let json = connection.until(b"\n\n", deadline)?;
    Ok(judge_places(question, client, BOUND, &json))
}

/// Sends a position to the neighbour. The neighbour has no fault, so it has to answer.
fn move_at_neighbour(
    ledger: &mut Ledger,
    neighbour: std::net::SocketAddr,
    iamat: &Iamat,
) -> Result<(), Failure> {
    let deadline = clock::now() + ANSWER;
    let told = Connection::open(neighbour, deadline).and_then(|mut connection| {
        connection.send(&format!("{}\n", iamat.text), deadline)?;
        connection.until(b"\n", deadline)
    });
    match told.map(|line| ledger.answered(iamat, &line)) {
        Ok(Reply::Right) => Ok(()),
        other => Err(Failure::new(
            Kind::Neighbour,
            format!("the answer to {} is {other:?}", iamat.text),
        )),
    }
}

/// Sends a WHATSAT to a server without a key for Places, and judges the record in the answer.
pub(crate) fn recall(ledger: &Ledger, listening: Listening, client: Client) -> Reply {
    let deadline = clock::now() + ANSWER;
    let question = question(client);
    let line = Connection::open(listening.clients, deadline).and_then(|mut connection| {
        connection.send(&format!("{question}\n"), deadline)?;
        connection.until(b"\n", deadline)
    });
    match line {
        Ok(line) => ledger.recalled(&question, client, &line),
        Err(cut) => reply(cut),
    }
}
