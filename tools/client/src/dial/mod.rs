//! How tools of this workspace reach a server. [`Target`] is the server, [`TlsOptions`] and
//! [`Trust`] say whether TLS is used and which authorities are trusted. [`Session`] is that TLS as
//! a layer of bytes without a socket. So it serves tools that block on a socket and tools that poll
//! it.

mod session;
mod target;
mod trust;

pub use session::Session;
pub use target::Target;
pub use trust::{TlsOptions, Trust};
