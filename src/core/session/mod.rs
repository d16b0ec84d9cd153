//! The parts that sessions use: admission of clients, TLS, buffers, host names, counts, and how a
//! connection ends.
//!
//! ```text
//!   socket ─► admission ─► tls ─► a session: client, link, exchange … ─► tls ─► socket
//!                           │                       │
//!                       handshakes            disposition ─ open, half-closed or closed
//! ```
//!
//! # The interface of a session
//!
//! Each kind of session implements [`Protocol`](protocol::Protocol). The method for an event gets
//! the [`Context`](context::Context): the parts of the server that its sessions share. If the event
//! requires an action outside the session, the method returns this action as an effect. A turn is
//! one iteration of the event loop.
//!
//! | | methods |
//! |---|---|
//! | events | `connection_made`, `data_received`, `eof_received`, `tls_failed`, `output_sent`, `resume_input`, `deadline_reached`, `stop`, `connection_lost` |
//! | a turn's end | `output`, `end_turn`, which calls `flushed` |
//! | derived from state | `disposition`, `wants_read`, `awaits_disk_space`, `required_seq`, `deadline`, `held_bytes`, `state_name` |
//! | for tests | `check_invariants` |

pub mod admission;
pub mod buffer;
pub mod buffer_budget;
pub mod certificate;
pub mod connection_error;
pub mod context;
pub mod disposition;
pub mod follower;
pub mod handshakes;
pub mod herd;
pub mod log_budget;
pub mod origins;
pub mod peer_label;
pub mod places_budget;
pub mod protocol;
pub mod resolver;
pub mod tally;
pub mod tls;
pub mod tls_clock;
pub mod turns;
pub mod unproven;
