//! How tools reach a server: [`dial`] for clients, [`standing`] for an operator's question about
//! its status.

#![forbid(unsafe_code)]

pub mod dial;
pub mod standing;
