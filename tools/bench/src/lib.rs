//! Measures how much work herd-mio does for a message.
//!
//! ```text
//! cargo bench                                               both of these:
//! cargo bench -p herd-bench --bench times                   the time of each workload, with divan
//! cargo bench -p herd-bench --bench instructions            its instructions, counted by valgrind's callgrind
//! cargo bench -p herd-bench --bench instructions -- --save  … and save the figures
//! ```
//!
//! A [`Workload`] is a task that a server does for each message or answer. [`WORKLOADS`] lists
//! them. Their input looks like that of real clients and is the same in each run. The output is
//! checked after each pass, outside of the measurement. A benchmark with wrong answers fails.

#![forbid(unsafe_code)]

mod callgrind;
mod cli;
mod crowd;
pub mod figures;
mod iamat;
pub mod instructions;
mod list;
mod neighbours;
mod parsing;
mod places;
mod readme;
mod stage;
mod toolchain;
mod turn;
mod workload;

pub use list::WORKLOADS;
pub use workload::{Entry, Failure, Rounds, Workload};
