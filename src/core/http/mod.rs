//! The HTTP port: health, metrics and states, for operators and their tools. It is read-only.
//!
//! ```text
//!   bytes ─► head ─► HttpConnection ─ Effect::Asked(Query) ─► Node: looks it up ─┐
//!                         │  ▲                                                   │
//!                output ◄─┘  └────────────── answer, or one step of a stream ◄───┘
//! ```
//!
//! [`machine`] is the session of one connection. It checks a request ([`head`], [`host`]), parses
//! the requested path ([`query`]), and appends the answer to its output ([`reply`]). The data of an
//! answer comes from the node, which has the records, the connections and the calls (questions to
//! Google Places). This folder has the formats: JSON in [`json`], the text of Prometheus and of
//! OpenMetrics in [`exposition`].
//!
//! Most answers are made at once. A page of a long list is a *stream*: it is made in steps. A step
//! is made only when at most `limits.http_output_bytes` of output wait for the socket. So a long
//! answer needs little memory, and no step blocks the loop for long.

pub mod exposition;
pub mod head;
pub mod host;
pub mod json;
pub mod machine;
pub mod query;
pub mod reply;

pub use machine::{Effect, HttpConnection};
