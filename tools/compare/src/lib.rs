//! The same server, written for other worlds: asyncio, uvloop, Node, Java, Go and tokio, next to herd-mio.
//!
//! Each speaks the clients' and the neighbours' protocol, takes the same command line, and is written as an engineer of that world
//! would write it. So any of them can be measured next to any other, and they can be mixed in one herd; the test `conformance` holds
//! all of them to the same transcript.
//!
//! | to understand | read |
//! |---|---|
//! | which worlds there are | [`worlds`] |
//! | what a world needs of the machine | [`tools`] |
//! | how its server is built | [`workshop`] |
//! | one running server | [`server`] |
//! | what becomes of them when a signal comes | [`children`] |
//! | a herd of them | [`herd`] |
//! | whether all hold the same records | [`herd_client::standing`] |
//! | how long a program is | [`count`] |
//! | a comparison, from its options to its report | [`comparison`] |
//! | what is measured, and how | [`plan`], [`mod@bench`] |
//! | with what | [`generator`], [`counters`], [`redis`], [`cores`] |
//! | what came of it | [`figures`], [`targets`], [`claims`] |
//! | the page | [`report`] |
//!
//! `README.md` of this crate reads the asyncio servers and herd-mio side by side, concept by concept; the test `tour` holds it to their code
//! and to the figures of a measured run.
//!
//! The servers themselves are in `worlds/`, each with its own dependencies; this crate builds without any of their tools.

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
