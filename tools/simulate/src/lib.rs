//! The simulator. It runs whole herds of production servers ([`herd_mio::core::node::Node`]) in one
//! thread, under virtual time, with a simulated network and simulated disks. These have all faults
//! of real ones. A seed decides everything, so every failure can be repeated.
//!
//! ```text
//!   plan (what a seed means) ──► world (runs it) ──► host (a server and its sockets) ──┐
//!     herds                        │   │                                                │
//!                                  │   ├───────────► mobile (a client)  ───────────────┼──► network, timeline
//!                                  │   └───────────► operator (forgets clients)  ───────┘
//!                                  └─► ledger, wire (the rules), coverage (faults by state), chronicle (the events)
//! ```
//!
//! The disks, the random numbers and the promises of each disk are in [`herd_testkit`], because
//! other tests use them too. `herd-simulate` is the program around the simulator. `tests/seeds.rs`
//! runs a few hundred seeds.
//!
//! The simulator shares only the `Node` with the server that it checks. The order of records, the
//! answers to clients and the rules for links are written again here, from the description of the
//! protocol. The promises of the disk follow README.md.

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

/// All herds: those of the course, by year, then a pair of servers, then the large ones.
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

/// Runs a case. `None` if there is no such herd.
#[must_use]
pub fn simulate(case: &Case) -> Option<Story> {
    Some(world::run(Plan::new(case)?, false))
}

/// The report of a failed case: the smallest case that still fails, its events, and the commands to
/// repeat both.
#[must_use]
pub fn explain(case: &Case) -> String {
    let smallest = shrink::shrink(case);
    format!(
        "{}to repeat it:\n  cargo simulate {smallest} --verbose\nto repeat the whole case:\n  cargo simulate {case}\n",
        describe(&smallest, 80)
    )
}

/// A case as text: the herd, its faults, and the last `most` events about its failure. Without a
/// failure, it has all events.
#[must_use]
pub fn describe(case: &Case, most: usize) -> String {
    let Some(plan) = Plan::new(case) else {
        return String::new();
    };
    let mut text = format!(
        "herd: {}\nweather: {:?}\nfaults:\n",
        plan.herd.describe(),
        plan.weather
    );
    for fault in &plan.faults {
        text += &format!(
            "  {}: in storm {} at {:?} for {:?}: {:?}\n",
            fault.number, fault.storm, fault.at, fault.lasts, fault.trouble
        );
    }
    text += "events:\n";
    let log = world::run(plan, true).log;
    for line in &log[log.len().saturating_sub(most)..] {
        text += &format!("  {line}\n");
    }
    text
}
