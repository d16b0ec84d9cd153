//! What lines say: bytes of the wire as values, and back.
//!
//! ```text
//!   bytes ─► lines ─► message ─┬─► coordinates     +34.068930-118.445127
//!                              └─► posix_time      1621464827.959498503
//!   bytes ─► proxy_header                          PROXY TCP4 192.0.2.7 …
//!   log   ◄─ escape                                \x16\x03
//! ```
//!
//! Everything here is a function of its input: no state, no time, no table. What is read is
//! borrowed from the bytes that it came in.

pub mod coordinates;
pub mod escape;
pub mod lines;
pub mod message;
pub mod posix_time;
pub mod proxy_header;
pub mod swar;
