//! What a herd does when the network between its servers fails: real servers, each in a Linux network namespace of its own, with
//! veth cables to one switch. A cut made there is what the loopback of the other tests cannot show: packets that vanish without a
//! reset or a FIN, in both directions or in one, while the kernel retransmits ever more seldom.
//!
//! These tests take root, `ip` and `nft`. Where something is missing they are skipped, and the standard error says why; with
//! `HERD_NETWORKS=required` in the environment they fail instead (but not for want of packets that are late, which many kernels
//! cannot have). The times that they measure are shown by `cargo test --test networks -- --nocapture`.

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
