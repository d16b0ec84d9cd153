//! Workloads in which lines are found in received bytes, and parsed.

use std::hint::black_box;

use herd_mio::core::base::limits::LINE_BYTES;
use herd_mio::core::wire::lines::{Split, split};
use herd_mio::core::wire::message::{At, Command, Radius};

use crate::crowd::{CLIENTS, Crowd, WALL_NS};
use crate::workload::{Failure, Workload};

/// The work for one line. Returns whether it succeeded. Its result goes into a [`black_box`].
type Act = fn(&[u8]) -> bool;
/// Whether the parsed line has the fields of the text.
type Means = fn(&[u8]) -> bool;

/// A thousand lines of a thousand clients.
pub(crate) struct Parsing {
    /// All lines in one buffer, with their LFs.
    text: Vec<u8>,
    /// The same lines without their LFs.
    lines: Vec<Vec<u8>>,
    work: Work,
    done: usize,
}

enum Work {
    Split { limit: usize },
    Parse { act: Act, means: Means },
}

impl Parsing {
    fn new(lines: Vec<String>, work: Work) -> Parsing {
        Parsing {
            text: lines.concat().into_bytes(),
            lines: lines
                .iter()
                .map(|line| line.trim_end_matches('\n').as_bytes().to_vec())
                .collect(),
            work,
            done: 0,
        }
    }

    pub(crate) fn split() -> Parsing {
        Parsing::new(iamats(), Work::Split { limit: LINE_BYTES })
    }

    pub(crate) fn iamat() -> Parsing {
        let act: Act = |line| matches!(black_box(Command::parse(line)), Command::Iamat(_));
        let means: Means = |line| {
            let Command::Iamat(iamat) = Command::parse(line) else {
                return false;
            };
            let fields: Vec<&[u8]> = line.split(|&byte| byte == b' ').collect();
            fields == [b"IAMAT", iamat.client, iamat.location, iamat.time]
        };
        Parsing::new(iamats(), Work::Parse { act, means })
    }

    pub(crate) fn whatsat() -> Parsing {
        let crowd = Crowd::new();
        let lines = (0..CLIENTS)
            .map(|client| {
                let (radius, bound) = (client % 50 + 1, client % 20 + 1);
                format!("WHATSAT {} {radius} {bound}\n", crowd.name(client))
            })
            .collect();
        let act: Act = |line| matches!(black_box(Command::parse(line)), Command::Whatsat(_));
        let means: Means = |line| {
            let Command::Whatsat(whatsat) = Command::parse(line) else {
                return false;
            };
            let fields: Vec<&[u8]> = line.split(|&byte| byte == b' ').collect();
            let bound = whatsat.bound.to_string();
            matches!(*fields, [b"WHATSAT", client, radius, number] if client == whatsat.client
                && Radius::parse(radius) == Some(whatsat.radius) && number == bound.as_bytes())
        };
        Parsing::new(lines, Work::Parse { act, means })
    }

    pub(crate) fn at() -> Parsing {
        let mut crowd = Crowd::new();
        let lines = (0..CLIENTS)
            .map(|client| crowd.iamat(client, WALL_NS).answer("Bernard"))
            .collect();
        let act: Act = |line| black_box(At::parse(line)).is_some();
        let means: Means = |line| {
            let Some(at) = At::parse(line) else {
                return false;
            };
            let fields: Vec<&[u8]> = line.split(|&byte| byte == b' ').collect();
            matches!(*fields, [b"AT", server, _, client, location, _] if
                (server, client, location) == (at.server, at.client, at.location)
                && line[at.client_offset..].starts_with(client))
        };
        Parsing::new(lines, Work::Parse { act, means })
    }
}

fn iamats() -> Vec<String> {
    let mut crowd = Crowd::new();
    (0..CLIENTS)
        .map(|client| crowd.iamat(client, WALL_NS).line)
        .collect()
}

impl Workload for Parsing {
    fn operations(&self) -> u64 {
        self.lines.len() as u64
    }

    fn prepare(&mut self) -> Result<(), Failure> {
        self.done = 0;
        Ok(())
    }

    fn pass(&mut self) {
        match self.work {
            Work::Split { limit } => {
                let mut rest = &*self.text;
                while let Split::Line(line, used) = black_box(split(rest, limit)) {
                    black_box(line);
                    rest = &rest[used..];
                    self.done += 1;
                }
            }
            Work::Parse { act, .. } => {
                self.done = self.lines.iter().filter(|line| act(line)).count();
            }
        }
    }

    fn check(&mut self) -> Result<(), Failure> {
        if self.done != self.lines.len() {
            return Err(format!("{} of {} lines", self.done, self.lines.len()));
        }
        let wrong = match self.work {
            Work::Parse { means, .. } => self.lines.iter().find(|line| !means(line)),
            Work::Split { limit } => {
                let mut rest = &*self.text;
                self.lines.iter().find(|line| {
                    let Split::Line(found, used) = split(rest, limit) else {
                        return true;
                    };
                    rest = &rest[used..];
                    found != **line
                })
            }
        };
        wrong.map_or(Ok(()), |line| {
            Err(format!("at {}", String::from_utf8_lossy(line)))
        })
    }
}
