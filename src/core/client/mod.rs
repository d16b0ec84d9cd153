//! The session of a mobile client: it reads commands, and answers them in their order.
//!
//! ```text
//!   PROXY header ─► proxied ─► Client ◄─► table
//!                                │ ▲
//!                       Question │ │ Outcome
//!                                ▼ │
//!                              places
//! ```
//!
//! [`Client`] is the state machine. If a client comes through a proxy, its connection first has a
//! [`proxied`] session.

mod close_reason;
mod machine;
pub mod proxied;

pub use self::close_reason::CloseReason;
pub use self::machine::{Activity, Client, Effect, PendingWhatsat};
