//! A mobile client's connection: commands in, answers out, in order.
//!
//! ```text
//!   PROXY header ─► proxied ─► Client ◄─► table
//!                                │ ▲
//!                       Question │ │ Outcome
//!                                ▼ │
//!                              places
//! ```
//!
//! [`Client`] is the state machine. [`proxied`] stands before it where clients come through a
//! proxy.

mod machine;
pub mod proxied;

pub use self::machine::{Asked, Client, Effect};
