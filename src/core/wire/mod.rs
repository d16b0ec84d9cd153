//! The wire formats. These modules parse received bytes into values, and write values as bytes.
//!
//! ```text
//!   bytes ─► lines ─► message ─┬─► coordinates     +34.068930-118.445127
//!                              └─► posix_time      1621464827.959498503
//!   bytes ─► proxy_header                          PROXY TCP4 192.0.2.7 …
//!   log   ◄─ escape                                \x16\x03
//!   tools ◄─ json                                  {"client":"kiwi",…}
//! ```
//!
//! The results of all functions in these modules depend only on the arguments: the functions keep
//! no state and read no clock. Parsed values borrow from the input bytes.

pub mod coordinates;
pub mod escape;
pub mod json;
pub mod lines;
pub mod message;
pub mod posix_time;
pub mod proxy_header;
pub mod swar;
