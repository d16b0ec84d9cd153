//! Every client's position, in the order in which the positions changed.
//!
//! ```text
//!   records ─ which position wins, the feed, its readers
//!      └─► line_store ─ the bytes of each record's AT line, named by its number
//!             └─► packed_line ─ how a line is kept in a third of its bytes
//! ```
//!
//! [`records`] is all that the other rooms use. It knows of its lines only what
//! [`line_store`]'s methods say.

pub mod line_store;
pub mod packed_line;
pub mod records;
