//! The parts that all kinds of sessions use: admission, TLS, buffers, host names, counts, and how a
//! connection ends.
//!
//! ```text
//!   socket ─► admission ─► tls ─► a session: client, link or exchange ─► tls ─► socket
//!                           │                       │
//!                       handshakes            disposition ─ open, half-closed or closed
//! ```
//!
//! # The face of a session
//!
//! Each kind has the methods of [`Protocol`](protocol::Protocol), with the same signatures. An
//! event is given the [`Context`](context::Context), what the sessions of a server share, and
//! returns its effect outside, if it has one.
//!
//! | | methods |
//! |---|---|
//! | events | `connection_made`, `data_received`, `eof_received`, `tls_failed`, `output_sent`, `go_on`, `deadline_reached`, `stop`, `connection_lost` |
//! | a turn's end | `output`, `flushed` |
//! | derived from state | `disposition`, `wants_read`, `wants_room`, `held_until`, `deadline`, `state_name` |
//! | for tests | `check_invariants` |

pub mod admission;
pub mod buffer;
pub mod certificate;
pub mod context;
pub mod disposition;
pub mod handshakes;
pub mod herd;
pub mod log_budget;
pub mod origins;
pub mod peer_label;
pub mod protocol;
pub mod resolver;
pub mod tally;
pub mod tls;
pub mod tls_clock;
