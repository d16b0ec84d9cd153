//! Tests of a herd whose network fails. The servers are real, and each runs in its own Linux
//! network namespace, with a veth cable to one switch. These tests show what tests on loopback
//! cannot: packets that vanish without a reset or a FIN, in both directions or in one. The kernel
//! then retransmits at growing intervals.
//!
//! The tests need root, `ip` and `nft`. Where one of these is missing they are skipped, and the
//! standard error says why. With `HERD_NETWORKS=required` in the environment they fail instead.
//! Only delayed packets stay optional, because many kernels lack them.
//!
//! `cargo test --test networks -- --nocapture` shows the times that the tests measure.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test ends at what it did not expect"
)]
#![allow(
    clippy::disallowed_methods,
    reason = "deadlines of tests are real time"
)]

mod around;
mod both_ways;
mod fault;
mod gone;
mod machine;
mod moment;
mod network;
mod one_way;
mod places;
mod poor;
mod stage;
mod vanished;
