//! How tools of this workspace reach a server: which one is meant ([`Target`]), whether TLS is
//! spoken with it and whom to trust ([`TlsOptions`], [`Trust`]), and that TLS as a layer of bytes
//! without a socket ([`Session`]), for tools that wait for a socket and for those that poll it.

mod session;
mod target;
mod trust;

pub use session::Session;
pub use target::Target;
pub use trust::{TlsOptions, Trust};
