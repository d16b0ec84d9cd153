//! The parts that all kinds of sessions use: admission, TLS, buffers, host names, counts, and how a
//! connection ends.
//!
//! ```text
//!   socket ─► admission ─► tls ─► a session: client, link or exchange ─► buffer ─► tls ─► socket
//!                           │                       │
//!                       handshakes            disposition ─ open, half-closed or closed
//! ```

pub mod admission;
pub mod buffer;
pub mod disposition;
pub mod handshakes;
pub mod herd;
pub mod peer_label;
pub mod resolver;
pub mod tally;
pub mod tls;
pub mod tls_clock;
