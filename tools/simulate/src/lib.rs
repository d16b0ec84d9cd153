//! The simulator: whole herds of production servers ([`herd_mio::core::node::Node`]) in one thread, under virtual time, on a
//! network and disks that do everything that networks and disks do. A seed decides all of it, so whatever fails can be seen again.
//!
//! ```text
//!   plan (what a seed means) ──► world (runs it) ──► host (a server and its sockets) ──┐
//!     herds                        │   │                                                │
//!                                  │   ├───────────► mobile (a client)  ───────────────┼──► network, timeline
//!                                  │   └───────────► operator (has clients forgotten) ──┘
//!                                  └─► ledger, wire (what must hold), coverage (what was met), chronicle (what happened)
//! ```
//!
//! Disks, chance, and the book of what each disk has to keep are in [`herd_testkit`], which other tests share. `herd-simulate` is
//! the program around it; `tests/seeds.rs` runs a few hundred seeds.
//!
//! It shares one thing with the server that it checks: the `Node`. How records are ordered, what a client is answered and what may
//! cross a link is written anew here, from DESIGN.md and PROTOCOL.md; what outlasts what, from README.md.

#![forbid(unsafe_code)]

mod chronicle;
mod coverage;
mod expired;
mod herds;
mod host;
mod ledger;
mod mobile;
mod network;
mod operator;
mod outside;
mod plan;
mod shrink;
mod timeline;
mod wire;
mod world;

pub use crate::coverage::{Cell, Coverage};
pub use crate::outside::Failure;
pub use crate::plan::Case;
pub use crate::world::Story;

use crate::plan::Plan;

/// The herds that there are: those of the course, by year, then a pair of servers, then the large ones.
#[must_use]
pub fn herds() -> Vec<&'static str> {
    herds::names().collect()
}

/// The names of all kinds of faults.
#[must_use]
pub fn faults() -> &'static [&'static str] {
    &coverage::FAULTS
}

/// The case of a seed in a herd.
#[must_use]
pub fn case(seed: u64, herd: &str) -> Case {
    Case {
        seed,
        herd: herd.to_owned(),
        faults: None,
        sessions: None,
    }
}

/// Runs a case; `None` if there is no such herd.
#[must_use]
pub fn simulate(case: &Case) -> Option<Story> {
    Some(world::run(Plan::new(case)?, false))
}

/// What a person needs to know about a case that failed: the smallest that still does, what happened in it, and how to run it.
#[must_use]
pub fn explain(case: &Case) -> String {
    let smallest = shrink::shrink(case);
    format!(
        "{}run it again:\n  cargo simulate {smallest} --verbose\nall of it:\n  cargo simulate {case}\n",
        tell(&smallest, 80)
    )
}

/// A case in words: the herd, its faults, and the last `most` events that concern its failure; all of them if it does not fail.
#[must_use]
pub fn tell(case: &Case, most: usize) -> String {
    let Some(plan) = Plan::new(case) else {
        return String::new();
    };
    let mut text = format!(
        "the herd: {}\nthe weather: {:?}\nits faults:\n",
        plan.herd.describe(),
        plan.weather
    );
    for fault in &plan.faults {
        text += &format!(
            "  {}: in storm {} at {:?} for {:?}: {:?}\n",
            fault.number, fault.storm, fault.at, fault.lasts, fault.trouble
        );
    }
    text += "what happens:\n";
    let log = world::run(plan, true).log;
    for line in &log[log.len().saturating_sub(most)..] {
        text += &format!("  {line}\n");
    }
    text
}
