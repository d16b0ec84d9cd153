//! The server as a pure state machine: bytes and the time go in, bytes and a few requests come out.
//!
//! Nothing in this module has a socket, a clock, a thread or a file. So a simulator can drive the
//! same code with a virtual clock and a faulty network. [`node::Node`] explains how the server is
//! driven.
//!
//! # Seven layers
//!
//! Each row of this table is a layer. A layer imports only from layers below it; a test checks the
//! imports. The kinds of session import nothing from each other, with one exception: [`client`]
//! imports [`places`], because the command `WHATSAT` of a client asks Google Places.
//!
//! | layer | what it is for |
//! |---|---|
//! | [`node`] | the server: passes events to sessions, owns what sessions share |
//! | [`client`], [`link`], [`places`], [`http`] | the kinds of session: a mobile client, a neighbour, Google Places, an operator's tool |
//! | [`session`] | what sessions use: TLS, buffers, admission, host names |
//! | [`journal`] | the records on disk, which survive a crash |
//! | [`table`] | the position of every client, and the feed of changes |
//! | [`wire`] | the formats of lines and headers |
//! | [`base`] | ids, time, limits, settings |
//!
//! # The same events give the same output
//!
//! There are only these exceptions:
//!
//! - Hash maps use hash keys that are random for each process
//!   ([`RandomState`](std::hash::RandomState)), so that no client can choose names that collide. No
//!   output depends on the order of such a map.
//! - TLS uses random numbers of the system. The time that TLS uses is the time of the event: see
//!   [`session::tls_clock`].
//! - Log lines go to the logger of the `log` crate. The core does not control what that logger
//!   does.

pub mod base;
pub mod client;
pub mod http;
pub mod journal;
pub mod link;
pub mod node;
pub mod places;
pub mod session;
pub mod table;
pub mod wire;
