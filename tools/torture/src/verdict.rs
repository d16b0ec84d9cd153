//! The results of a command and of a run.

use std::fmt;

/// The result of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reply {
    /// Every byte is right.
    Right,
    /// A correct refusal: closed, reset, `? `, or an error in Google's format. The command may be
    /// sent again.
    Refused(String),
    /// The server does not have the record yet. That is no refusal, unless it lasts.
    NotYet(String),
    /// No answer within the time limit.
    Silence,
    /// A result that must never occur.
    Bad(Failure),
}

impl Reply {
    /// A wrong answer.
    pub(crate) fn wrong(what: impl Into<String>) -> Reply {
        Reply::Bad(Failure::new(Kind::Wrong, what))
    }
}

/// The results that must never occur.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A wrong answer, or the answer to another command.
    Wrong,
    /// An acknowledged update is lost.
    Lost,
    /// Neither an answer nor the end of the connection came.
    Hung,
    /// The fault was over, and the server did not recover.
    Unrecovered,
    /// The neighbours do not hold the same records.
    Diverged,
    /// More descriptors are open than without the fault.
    Leaked,
    /// A thread panicked.
    Panicked,
    /// The same call failed thousands of times: a loop without a pause.
    Spun,
    /// The server did not stop when it was told to.
    Stubborn,
    /// The server ended with another status than 0, 1 or 2, or without one line that says why.
    BadEnd,
    /// The server did not start again on its own data directory.
    NoRestart,
    /// The neighbour failed, although it had no fault.
    Neighbour,
}

impl Kind {
    fn words(self) -> &'static str {
        match self {
            Kind::Wrong => "WRONG ANSWER",
            Kind::Lost => "LOST UPDATE",
            Kind::Hung => "HANG",
            Kind::Unrecovered => "NO RECOVERY",
            Kind::Diverged => "SERVERS DISAGREE",
            Kind::Leaked => "LEAK",
            Kind::Panicked => "PANIC",
            Kind::Spun => "BUSY LOOP",
            Kind::Stubborn => "DOES NOT STOP",
            Kind::BadEnd => "WRONG EXIT",
            Kind::NoRestart => "NO RESTART",
            Kind::Neighbour => "NEIGHBOUR FAILED",
        }
    }
}

/// A result that must never occur, and its description.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) kind: Kind,
    pub(crate) what: String,
}

impl Failure {
    pub(crate) fn new(kind: Kind, what: impl Into<String>) -> Failure {
        Failure {
            kind,
            what: what.into(),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.kind.words(), self.what)
    }
}

/// The result of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Outcome {
    /// No client noticed anything.
    Unnoticed,
    /// A client got a correct refusal. After a fault that ended, the server recovered.
    Refused,
    /// The server ended by itself, with status 1 or 2 and one line that says why.
    Ended,
    /// The server made fewer calls this time, so no call failed.
    NotReached,
    /// A result occurred that must never occur.
    Failed,
}

impl Outcome {
    /// All outcomes, in the order of the table's columns.
    pub(crate) const ALL: [Outcome; 5] = [
        Outcome::Unnoticed,
        Outcome::Refused,
        Outcome::Ended,
        Outcome::NotReached,
        Outcome::Failed,
    ];

    /// The heading of its column.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Outcome::Unnoticed => "unnoticed",
            Outcome::Refused => "refused",
            Outcome::Ended => "ended",
            Outcome::NotReached => "not reached",
            Outcome::Failed => "FAILED",
        }
    }
}
