//! What an answer can be, and what a run can come to.

use std::fmt;

/// What became of a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reply {
    /// Every byte is right.
    Right,
    /// No answer, but a clean no: closed, reset, `? `, or an error in Google's shape. It may be asked again.
    Refused(String),
    /// It is not known there yet; not a no, if it is soon.
    NotYet(String),
    /// Nothing came within the time that an answer may take.
    Silence,
    /// Something that must never happen.
    Bad(Failure),
}

impl Reply {
    /// An answer that is wrong.
    pub(crate) fn wrong(what: impl Into<String>) -> Reply {
        Reply::Bad(Failure::new(Kind::Wrong, what))
    }
}

/// What must never happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// An answer that is not right, or somebody else's.
    Wrong,
    /// An update that was acknowledged is gone.
    Lost,
    /// No answer, and no end of the connection.
    Hung,
    /// The fault was over, and it was not well again.
    Unrecovered,
    /// The neighbours do not hold the same records.
    Diverged,
    /// More descriptors are open than without the fault.
    Leaked,
    /// A thread panicked.
    Panicked,
    /// The same call failed thousands of times: a loop without a pause.
    Spun,
    /// It did not stop when it was told to.
    Stubborn,
    /// It ended with another status than 0, 1 or 2, or without one line that says why.
    BadEnd,
    /// It did not start again on its own data directory.
    NoRestart,
    /// The neighbour, to which nothing was done, suffered.
    Neighbour,
}

impl Kind {
    fn words(self) -> &'static str {
        match self {
            Kind::Wrong => "WRONG ANSWER",
            Kind::Lost => "LOST UPDATE",
            Kind::Hung => "HANG",
            Kind::Unrecovered => "NOT WELL AGAIN",
            Kind::Diverged => "SERVERS DISAGREE",
            Kind::Leaked => "LEAK",
            Kind::Panicked => "PANIC",
            Kind::Spun => "BUSY LOOP",
            Kind::Stubborn => "DOES NOT STOP",
            Kind::BadEnd => "BAD END",
            Kind::NoRestart => "DOES NOT START AGAIN",
            Kind::Neighbour => "NEIGHBOUR HURT",
        }
    }
}

/// One thing that must never happen, and happened.
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

/// What a run came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Outcome {
    /// No client, and no neighbour, noticed anything.
    Unnoticed,
    /// Somebody was told no, cleanly; and whatever was to be well again was.
    Refused,
    /// The server ended by itself, with status 1 or 2 and one line that says why.
    Ended,
    /// The call was not made so often this time: nothing was failed.
    NotReached,
    /// Something happened that must never happen.
    Failed,
}

impl Outcome {
    /// All of them, in the order of the table's columns.
    pub(crate) const ALL: [Outcome; 5] = [
        Outcome::Unnoticed,
        Outcome::Refused,
        Outcome::Ended,
        Outcome::NotReached,
        Outcome::Failed,
    ];

    /// The head of its column.
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
