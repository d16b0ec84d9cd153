//! The server as a pure state machine: bytes and a time go in, bytes and a few requests come out.
//!
//! Nothing in here has a socket, a clock, a thread or a file; [`node::Node`] says how it is driven.
//! That is what lets a simulator drive the very same code under a virtual clock and a faulty
//! network.
//!
//! The same events give the same output, with these exceptions and no others:
//!
//! - Hash tables are keyed by the process's random numbers
//!   ([`RandomState`](std::hash::RandomState)), so that no client can choose names that collide.
//!   No output depends on the order of such a table.
//! - TLS has its own random numbers, from the system. Its time is that of the event: see
//!   [`tls_clock`].
//! - Lines of the log go to the `log` crate's logger, which may do with them what it likes.

pub mod admission;
pub mod backoff;
pub mod buffer;
pub mod client;
pub mod clock;
pub mod coordinates;
pub mod counted;
pub mod deadlines;
pub mod disposition;
pub mod durability;
pub mod entropy;
pub mod escape;
pub mod handshakes;
pub mod herd;
mod invariants;
pub mod journal;
pub mod limits;
pub mod line_store;
pub mod lines;
pub mod link;
mod machine;
pub mod message;
pub mod network;
pub mod node;
pub mod packed_line;
pub mod peer_label;
pub mod places;
pub mod posix_time;
pub mod proof;
pub mod proxied;
pub mod proxy_header;
pub mod records;
pub mod resolver;
pub mod settings;
pub mod slots;
pub mod swar;
pub mod tally;
pub mod tls;
pub mod tls_clock;
pub mod tls_offer;
