//! Tests of the journal's state machine ([`herd_mio::core::journal::durability::Durability`]) over
//! a fake disk that fails in every way. In whatever order things happen, no answered update is
//! lost, and no update is answered that a failure could still lose.
//!
//! `story.rs` plays the rest of the server. `steps.rs` generates random scenarios ("stories"), and
//! `faults.rs` has scenarios that were found by hand.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test ends at what it did not expect"
)]

mod faults;
mod steps;
mod story;
