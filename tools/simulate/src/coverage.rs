//! The coverage of a run: for each state machine of the servers, how often each of its states met
//! each kind of fault.
//!
//! If thousands of seeds never reach a cell of this table, the simulator has a bug, unless
//! [`NEVER`] gives a reason. Half of the faults of a plan aim at a cell (see [`Cell`] and
//! [`crate::plan::Trouble::Aimed`]). Such a fault waits until the server is in that state.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use herd_mio::core::client::Client;
use herd_mio::core::journal::durability::CompactionPhase;
use herd_mio::core::link::Link;
use herd_mio::core::session::herd::Dial;

/// Short and rare states. More faults aim at them.
pub(crate) const RARE: [&str; 4] = ["waiting for room", "closing", "SwitchDue", "Switching"];

/// All kinds of faults, by the names that [`crate::plan::Trouble`] gives them.
pub(crate) const FAULTS: [&str; 21] = [
    "reset",
    "half-open",
    "silent cut",
    "one-way cut",
    "stall",
    "slow link",
    "freeze",
    "kill",
    "power cut",
    "stop",
    "clock set",
    "no name server",
    "kill of all",
    "power cut of all",
    "torn write",
    "full disk",
    "bad disk",
    "refusing disk",
    "slow disk",
    "older copy",
    "few records",
];

/// A state machine.
pub(crate) struct Machine {
    pub(crate) name: &'static str,
    pub(crate) states: &'static [&'static str],
    /// The faults that concern it.
    pub(crate) faults: &'static [&'static str],
}

/// The phases of a compaction.
const PHASES: [&str; CompactionPhase::ALL.len()] = {
    let mut names = [""; CompactionPhase::ALL.len()];
    let mut place = 0;
    while place < names.len() {
        names[place] = CompactionPhase::ALL[place].name();
        place += 1;
    }
    names
};

/// All state machines.
pub(crate) const MACHINES: [Machine; 4] = [
    Machine {
        name: "compaction",
        states: &PHASES,
        faults: &[
            "full disk",
            "refusing disk",
            "bad disk",
            "slow disk",
            "torn write",
            "older copy",
            "kill",
            "power cut",
            "stop",
            "freeze",
        ],
    },
    Machine {
        name: "link",
        states: &Link::STATES,
        faults: &[
            "reset",
            "half-open",
            "silent cut",
            "one-way cut",
            "stall",
            "slow link",
            "freeze",
            "kill",
            "power cut",
            "stop",
            "clock set",
            "full disk",
        ],
    },
    Machine {
        name: "dial",
        states: &Dial::STATES,
        faults: &[
            "reset",
            "half-open",
            "silent cut",
            "one-way cut",
            "stall",
            "slow link",
            "freeze",
            "kill",
            "power cut",
            "stop",
            "clock set",
            "no name server",
        ],
    },
    Machine {
        name: "client",
        states: &Client::STATES,
        faults: &[
            "freeze",
            "kill",
            "power cut",
            "stop",
            "clock set",
            "full disk",
            "refusing disk",
            "bad disk",
            "slow disk",
            "torn write",
        ],
    },
];

/// Unreachable cells: the machine, the states, the faults (an empty list stands for all), and the
/// reason.
const NEVER: [(&str, &[&str], &[&str], &str); 2] = [
    (
        "client",
        &["awaiting"],
        &[],
        "simulated servers have no key for Places, so no client waits for an answer of it",
    ),
    (
        "link",
        &["serving", "forgetting", "following"],
        &[
            "reset",
            "half-open",
            "silent cut",
            "one-way cut",
            "stall",
            "slow link",
        ],
        "an operator's connection does not use an edge of the herd",
    ),
];

/// A state of a machine, and a kind of fault.
pub type Cell = (&'static str, &'static str, &'static str);

/// The number of hits of each cell.
#[derive(Clone, Debug, Default)]
pub struct Coverage(BTreeMap<Cell, u64>);

impl Coverage {
    /// Counts a fault that met a machine in a state.
    pub(crate) fn met(&mut self, cell: Cell) {
        *self.0.entry(cell).or_default() += 1;
    }

    /// Adds the counts of another run.
    pub fn add(&mut self, other: &Coverage) {
        for (cell, count) in &other.0 {
            *self.0.entry(*cell).or_default() += count;
        }
    }

    /// The reachable cells that were not reached.
    #[must_use]
    pub fn empty(&self) -> Vec<Cell> {
        cells().filter(|cell| !self.0.contains_key(cell)).collect()
    }

    /// A table for each machine, with a line for each fault and a column for each state.
    #[must_use]
    pub fn describe(&self) -> String {
        let mut text = String::new();
        for machine in &MACHINES {
            let widths: Vec<usize> = machine
                .states
                .iter()
                .map(|state| state.len().max(7) + 2)
                .collect();
            let _ = write!(text, "{:<20} ", format!("faults by {} state", machine.name));
            for (state, width) in machine.states.iter().zip(&widths) {
                let _ = write!(text, "{state:>width$}");
            }
            text.push('\n');
            for fault in machine.faults {
                let _ = write!(text, "  {fault:<18} ");
                for (state, &width) in machine.states.iter().zip(&widths) {
                    let cell = (machine.name, *state, *fault);
                    let shown = match self.0.get(&cell) {
                        Some(count) => count.to_string(),
                        None if reason(cell).is_some() => "–".to_owned(),
                        None => "none".to_owned(),
                    };
                    let _ = write!(text, "{shown:>width$}");
                }
                text.push('\n');
            }
        }
        text
    }
}

/// All reachable cells.
pub(crate) fn cells() -> impl Iterator<Item = Cell> {
    let all = MACHINES.iter().flat_map(|machine| {
        let of_state = move |state: &&'static str| {
            let state = *state;
            let cell = move |fault: &&'static str| (machine.name, state, *fault);
            machine.faults.iter().map(cell)
        };
        machine.states.iter().flat_map(of_state)
    });
    all.filter(|cell| reason(*cell).is_none())
}

/// The reason why a cell is unreachable.
fn reason((machine, state, fault): Cell) -> Option<&'static str> {
    let is_meant = |(of, states, faults, _): &&(&str, &[&str], &[&str], &str)| {
        *of == machine && states.contains(&state) && (faults.is_empty() || faults.contains(&fault))
    };
    NEVER.iter().find(is_meant).map(|(.., why)| *why)
}

#[cfg(test)]
mod tests {
    use super::{FAULTS, MACHINES};

    #[test]
    fn a_fault_that_concerns_a_machine_is_one_that_there_is() {
        for machine in &MACHINES {
            for fault in machine.faults {
                assert!(FAULTS.contains(fault), "{fault}");
            }
        }
    }
}
