//! The table: the newest position of each client, in the order in which the positions changed.
//!
//! ```text
//!   records ─ which position wins, the feed, its readers
//!      └─► line_store ─ an interface to the bytes of each record's AT line, found by its number
//!             ├─► naive_store ─ each line in a `Box` of its own: read this first
//!             └─► packed_store ─ the store that the server uses
//!                    └─► packed_line ─ a line in about half of its bytes
//! ```
//!
//! The *feed* is the sequence of all records in the order of their last change, and a *reader* is a
//! cursor in the feed. Code outside this folder uses only [`records`]. The code of [`records`]
//! accesses the stored lines only through the interface [`line_store::LineStore`]. So the two
//! stores can be read last, or not at all.

pub mod line_store;
pub mod naive_store;
pub mod packed_line;
pub mod packed_store;
pub mod records;
