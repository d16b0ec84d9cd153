//! The journal's state machine ([`herd_mio::core::journal::durability::Durability`]) over a disk that fails in every way: whatever the order in
//! which things happen, nothing that was answered is lost, and nothing is answered that can be.
//!
//! `story.rs` plays the server around it; `steps.rs` lets chance write stories; `faults.rs` has those that were found by hand.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test ends at what it did not expect"
)]

mod faults;
mod steps;
mod story;
