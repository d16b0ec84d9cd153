//! Every client's position, in the order in which the positions changed.
//!
//! ```text
//!   records ─ which position wins, the feed, its readers
//!      └─► line_store ─ the bytes of each record's AT line, named by its number: an interface
//!             ├─► naive_store ─ each line in a box of its own: read this one
//!             └─► packed_store ─ what the server runs with
//!                    └─► packed_line ─ a line in half of its bytes
//! ```
//!
//! [`records`] is all that the other rooms use. It knows of its lines only what the interface
//! [`line_store::LineStore`] says, so the two stores below it can be read last, or not at all.

pub mod line_store;
pub mod naive_store;
pub mod packed_line;
pub mod packed_store;
pub mod records;
