//! Google Places over HTTPS: the question, the connection, TLS, the response, and the answer made
//! of it.
//!
//! ```text
//!   client ─ Question ─► call ─ one question, several clients; a pool; a waiting line
//!                         │
//!                         ▼
//!                      exchange ─ one connection: TLS, then a request and its response at a time
//!                      │      ▲
//!              request ▼      │ response
//!                       Google
//!   client ◄─ Outcome ─ answer ─ the JSON cut to the client's bound, or an error in its shape
//! ```

pub mod answer;
pub mod call;
pub mod exchange;
pub mod request;
pub mod response;
