//! Fuzz targets for herd-mio's core.
//!
//! Each target is a function of bytes that panics if something about the server does not hold. libFuzzer drives it (`fuzz_targets`, by
//! way of `run`), and `tests/replay.rs` gives it every input of `corpus` and `findings` again: inputs that reach something new, and inputs that
//! once found a mistake.

#![forbid(unsafe_code)]
#![allow(
    clippy::panic,
    reason = "a panic is how a target tells what it has found"
)]

mod client_line;
mod disk;
mod http_response;
mod journal;
mod link_lines;
mod log;
mod node;
mod pieces;
mod proxy_header;
mod reference;
mod server;

pub use client_line::client_line;
pub use http_response::http_response;
pub use journal::journal;
pub use link_lines::link_lines;
pub use node::node;
pub use proxy_header::proxy_header;
