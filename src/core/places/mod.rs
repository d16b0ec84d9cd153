//! Google Places over HTTPS: from a client's question to the answer that the client gets.
//!
//! ```text
//!   client ─ Question ─► call ─ one question, several clients; a pool of connections; a queue
//!                         │
//!                         ▼
//!                      exchange ─ one connection: TLS, then one request and response after the other
//!                      │      ▲
//!              request ▼      │ response
//!                       Google
//!   client ◄─ Outcome ─ answer ─ the JSON cut to the client's bound, or an error in Google's format
//! ```

pub mod answer;
pub mod call;
pub mod exchange;
pub mod exchange_error;
mod queue;
pub mod request;
pub mod response;
