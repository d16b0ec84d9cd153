//! Google Places over HTTPS, as state machines: the question, the connection, TLS, the response,
//! and the answer made of it.

pub mod answer;
pub mod call;
pub mod exchange;
pub mod request;
pub mod response;
