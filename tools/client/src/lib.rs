//! How tools reach a server: [`dial`] as a client, [`standing`] as an operator who asks how it is.

#![forbid(unsafe_code)]

pub mod dial;
pub mod standing;
