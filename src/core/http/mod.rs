//! The HTTP port: health, metrics and states, for operators and their tools. It is read-only.
//!
//! ```text
//!   bytes ─► head ─► HttpConnection ─ Effect::Asked(Query) ─► Node: looks it up ─┐
//!                         │  ▲                                                   │
//!                output ◄─┘  └────────────── answer, or one step of a stream ◄───┘
//! ```
//!
//! [`machine`] is the session of one connection. It checks a request ([`head`], [`host`]), finds
//! out what it asks for ([`query`]), and appends the answer to its output ([`reply`]). What an
//! answer says is not known here: the node knows it, because it has the records, the connections
//! and the calls. The formats are here: JSON in [`json`], the text of Prometheus and of OpenMetrics
//! in [`exposition`].
//!
//! An answer is complete at once, or a *stream*. A stream is made in steps. Each step begins only
//! when the output has room again, so an answer of any length needs little memory, and no step
//! takes long.

pub mod exposition;
pub mod head;
pub mod host;
pub mod json;
pub mod machine;
pub mod query;
pub mod reply;

pub use machine::{Effect, HttpConnection};
