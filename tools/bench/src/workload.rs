//! What can be measured, and the list of all that is.

use std::fmt;

use crate::iamat::{Age, Iamat};
use crate::neighbours::Neighbours;
use crate::parsing::Parsing;
use crate::places::{Cut, Framing, Http};
use crate::turn::Turn;

/// Why a workload cannot be measured, or that it did something wrong; in words.
pub type Failure = String;

/// Something that a server does over and over. Only [`Workload::pass`] is measured.
///
/// ```text
///   prepare ─► pass ─► check ─┐
///      ▲                      │
///      └──────────────────────┘
/// ```
pub trait Workload {
    /// How many operations a pass consists of.
    fn operations(&self) -> u64;

    /// Makes what the next pass works on.
    ///
    /// # Errors
    /// The stage could not be set.
    fn prepare(&mut self) -> Result<(), Failure>;

    /// The work.
    fn pass(&mut self);

    /// Whether the pass did what it should.
    ///
    /// # Errors
    /// It did something else.
    fn check(&mut self) -> Result<(), Failure>;
}

/// A workload's place in the list.
#[derive(Debug)]
pub struct Entry {
    /// What it is called on the command line and in tables.
    pub name: &'static str,
    /// What one operation is.
    pub operation: &'static str,
    make: fn() -> Result<Box<dyn Workload>, Failure>,
}

impl Entry {
    /// Sets the stage.
    ///
    /// # Errors
    /// It cannot be set; in words.
    pub fn rounds(&self) -> Result<Rounds, Failure> {
        let workload = (self.make)().map_err(|why| format!("{}: {why}", self.name))?;
        Ok(Rounds {
            name: self.name,
            workload,
            is_checked: true,
        })
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// A workload that is run, and never without its answers being looked at.
pub struct Rounds {
    name: &'static str,
    workload: Box<dyn Workload>,
    is_checked: bool,
}

impl Rounds {
    /// How many operations a pass consists of.
    #[must_use]
    pub fn operations(&self) -> u64 {
        self.workload.operations()
    }

    /// Checks the last pass and prepares the next one.
    ///
    /// # Errors
    /// The last pass did something wrong, or the stage cannot be set for the next one.
    pub fn prepare(&mut self) -> Result<(), Failure> {
        self.check()?;
        self.workload
            .prepare()
            .map_err(|why| format!("{}: {why}", self.name))
    }

    /// The pass itself.
    pub fn pass(&mut self) {
        self.is_checked = false;
        self.workload.pass();
    }

    /// Checks the last pass, if that is not done yet.
    ///
    /// # Errors
    /// It did something wrong.
    pub fn check(&mut self) -> Result<(), Failure> {
        if !std::mem::replace(&mut self.is_checked, true) {
            self.workload
                .check()
                .map_err(|why| format!("{}: wrong: {why}", self.name))?;
        }
        Ok(())
    }
}

/// Everything that is measured, from the smallest part to the whole server.
pub const WORKLOADS: &[Entry] = &[
    Entry {
        name: "split",
        operation: "one line is found in what came in",
        make: || Ok(Box::new(Parsing::split())),
    },
    Entry {
        name: "parse_iamat",
        operation: "one IAMAT line is understood",
        make: || Ok(Box::new(Parsing::iamat())),
    },
    Entry {
        name: "parse_whatsat",
        operation: "one WHATSAT line is understood",
        make: || Ok(Box::new(Parsing::whatsat())),
    },
    Entry {
        name: "parse_at",
        operation: "one AT line of a neighbour is understood",
        make: || Ok(Box::new(Parsing::at())),
    },
    Entry {
        name: "iamat_newest",
        operation: "one IAMAT with a new position, from read to answer, in a server without neighbours",
        make: || Ok(Box::new(Iamat::new(Age::Newest, 0)?)),
    },
    Entry {
        name: "iamat_newest_16",
        operation: "the same with 16 IAMATs in each read",
        make: || Ok(Box::new(Iamat::new(Age::Newest, 0)?.per_read(16))),
    },
    Entry {
        name: "iamat_stale",
        operation: "one IAMAT that is older than what is known, from read to answer",
        make: || Ok(Box::new(Iamat::new(Age::Stale, 0)?)),
    },
    Entry {
        name: "feed_1",
        operation: "one IAMAT with a new position that is answered and goes to 1 neighbour",
        make: || Ok(Box::new(Iamat::new(Age::Newest, 1)?)),
    },
    Entry {
        name: "feed_4",
        operation: "one IAMAT with a new position that is answered and goes to 4 neighbours",
        make: || Ok(Box::new(Iamat::new(Age::Newest, 4)?)),
    },
    Entry {
        name: "feed_4_busy",
        operation: "the same with 50 clients ready in each turn",
        make: || Ok(Box::new(Iamat::new(Age::Newest, 4)?.per_turn(50))),
    },
    Entry {
        name: "at_newest",
        operation: "one AT line of a neighbour that is news, and goes to another neighbour",
        make: || Ok(Box::new(Neighbours::new(Age::Newest)?)),
    },
    Entry {
        name: "at_duplicate",
        operation: "one AT line of a neighbour that another neighbour has told already",
        make: || Ok(Box::new(Neighbours::new(Age::Stale)?)),
    },
    Entry {
        name: "http_length",
        operation: "one response of Places, 30 KB with Content-Length, that comes whole",
        make: || Ok(Box::new(Http::new(Framing::Length, usize::MAX))),
    },
    Entry {
        name: "http_length_pieces",
        operation: "the same in pieces of 64 bytes",
        make: || Ok(Box::new(Http::new(Framing::Length, 64))),
    },
    Entry {
        name: "http_chunked",
        operation: "one response of Places, 30 KB in chunks, that comes whole",
        make: || Ok(Box::new(Http::new(Framing::Chunked, usize::MAX))),
    },
    Entry {
        name: "http_chunked_pieces",
        operation: "the same in pieces of 64 bytes",
        make: || Ok(Box::new(Http::new(Framing::Chunked, 64))),
    },
    Entry {
        name: "json_cut",
        operation: "20 results of Places are cut to 5",
        make: || Ok(Box::new(Cut::new(5))),
    },
    Entry {
        name: "turn_1",
        operation: "one IAMAT over TCP, in a turn of the loop in which 1 of 500 clients is ready",
        make: || Ok(Box::new(Turn::new(1)?)),
    },
    Entry {
        name: "turn_500",
        operation: "one IAMAT over TCP, in a turn of the loop in which all 500 clients are ready",
        make: || Ok(Box::new(Turn::new(500)?)),
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    /// Is wrong in its third pass.
    struct Forgetful(u64);

    impl Workload for Forgetful {
        fn operations(&self) -> u64 {
            1
        }

        fn prepare(&mut self) -> Result<(), Failure> {
            Ok(())
        }

        fn pass(&mut self) {
            self.0 += 1;
        }

        fn check(&mut self) -> Result<(), Failure> {
            (self.0 < 3).then_some(()).ok_or_else(|| "forgot".into())
        }
    }

    #[test]
    fn a_pass_that_was_wrong_is_noticed_before_the_next_one_and_at_the_end() {
        let rounds = || Rounds {
            name: "forgetful",
            workload: Box::new(Forgetful(0)),
            is_checked: true,
        };
        let wrong = Err("forgetful: wrong: forgot".to_owned());
        let (mut next, mut last) = (rounds(), rounds());
        for rounds in [&mut next, &mut last] {
            for _ in 0..3 {
                assert_eq!(rounds.prepare(), Ok(()));
                rounds.pass();
            }
        }
        assert_eq!(next.prepare(), wrong);
        assert_eq!(last.check(), wrong);
    }

    #[test]
    fn names_are_used_once() {
        let mut names: Vec<&str> = WORKLOADS.iter().map(|entry| entry.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), WORKLOADS.len());
    }
}
