//! How tools reach a server: [`dial`] for clients, [`standing`] for an operator's question about
//! its status. [`program`] is `herd-client` itself, and [`certificates`] the command line of
//! `herd-certificates`.

#![forbid(unsafe_code)]

mod answers;
pub mod certificates;
mod cli;
mod connection;
pub mod dial;
mod drain;
mod failure;
mod follow;
mod forget;
mod helpers;
mod hints;
mod input;
mod operator;
mod pipe;
mod places;
mod printable;
pub mod program;
mod prompt;
mod session;
mod show;
pub mod standing;
mod status;
mod survey;
mod wire;
