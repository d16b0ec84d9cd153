//! The list of all workloads.

use crate::iamat::{Age, Iamat};
use crate::neighbours::Neighbours;
use crate::parsing::Parsing;
use crate::places::{Cut, Framing, Http};
use crate::turn::Turn;
use crate::workload::Entry;

/// All workloads, from the smallest part to the whole server.
pub const WORKLOADS: &[Entry] = &[
    Entry {
        name: "split",
        operation: "one line is found in the input",
        make: || Ok(Box::new(Parsing::split())),
    },
    Entry {
        name: "parse_iamat",
        operation: "one IAMAT line is parsed",
        make: || Ok(Box::new(Parsing::iamat())),
    },
    Entry {
        name: "parse_whatsat",
        operation: "one WHATSAT line is parsed",
        make: || Ok(Box::new(Parsing::whatsat())),
    },
    Entry {
        name: "parse_at",
        operation: "one AT line of a neighbour is parsed",
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
        operation: "one IAMAT that is older than the record, from read to answer",
        make: || Ok(Box::new(Iamat::new(Age::Stale, 0)?)),
    },
    Entry {
        name: "feed_1",
        operation: "one IAMAT with a new position, which is answered and sent to 1 neighbour",
        make: || Ok(Box::new(Iamat::new(Age::Newest, 1)?)),
    },
    Entry {
        name: "feed_4",
        operation: "one IAMAT with a new position, which is answered and sent to 4 neighbours",
        make: || Ok(Box::new(Iamat::new(Age::Newest, 4)?)),
    },
    Entry {
        name: "feed_4_busy",
        operation: "the same with 50 clients ready in each turn",
        make: || Ok(Box::new(Iamat::new(Age::Newest, 4)?.per_turn(50))),
    },
    Entry {
        name: "at_newest",
        operation: "one new AT line of a neighbour, which is sent to another neighbour",
        make: || Ok(Box::new(Neighbours::new(Age::Newest)?)),
    },
    Entry {
        name: "at_duplicate",
        operation: "one AT line of a neighbour that another neighbour has already sent",
        make: || Ok(Box::new(Neighbours::new(Age::Stale)?)),
    },
    Entry {
        name: "http_length",
        operation: "one response of Places, 30 KB with Content-Length, in one piece",
        make: || Ok(Box::new(Http::new(Framing::Length, usize::MAX))),
    },
    Entry {
        name: "http_length_pieces",
        operation: "the same in pieces of 64 bytes",
        make: || Ok(Box::new(Http::new(Framing::Length, 64))),
    },
    Entry {
        name: "http_chunked",
        operation: "one response of Places, 30 KB in chunks, in one piece",
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

    #[test]
    fn workload_names_are_unique() {
        let mut names: Vec<&str> = WORKLOADS.iter().map(|entry| entry.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), WORKLOADS.len());
    }
}
