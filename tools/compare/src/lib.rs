//! The same server in several worlds: asyncio, uvloop, Node, Java, Go and tokio, beside herd-mio. A
//! world is a language with its way to do many things at once.
//!
//! Each server speaks the clients' and the neighbours' protocol, and takes the same command line.
//! Each is written in the usual style of its world. So any two can be compared, and they can be
//! mixed in one herd. The test `conformance` plays the same transcripts against all of them.
//!
//! | to understand | read |
//! |---|---|
//! | the list of worlds | [`worlds`] |
//! | the tools that a world needs | [`tools`] |
//! | how its server is built | [`workshop`] |
//! | one running server | [`server`] |
//! | child processes and signals | [`children`] |
//! | a herd of servers | [`herd`] |
//! | whether all hold the same records | [`herd_client::standing`] |
//! | the length of a program | [`count`] |
//! | a comparison, from its options to its report | [`comparison`] |
//! | the measurements | [`plan`], [`mod@bench`] |
//! | their tools | [`generator`], [`counters`], [`redis`], [`cores`] |
//! | their results | [`figures`], [`targets`], [`claims`] |
//! | the HTML page | [`report`] |
//!
//! `README.md` of this crate explains the asyncio servers and herd-mio side by side, concept by
//! concept. The test `tour` compares its excerpts with their code, and its figures with a measured
//! run.
//!
//! The servers themselves are in `worlds/`, each with its own dependencies. This crate builds
//! without their tools.

#![forbid(unsafe_code)]

pub mod bench;
pub mod children;
pub mod claims;
pub mod comparison;
pub mod cores;
pub mod count;
pub mod counters;
pub mod figures;
pub mod generator;
pub mod herd;
pub mod machine;
pub mod plan;
pub mod progress;
pub mod redis;
pub mod report;
pub mod server;
pub mod targets;
pub mod tools;
pub mod workshop;
pub mod worlds;
