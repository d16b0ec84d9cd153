//! The server as a pure state machine: bytes and a time go in, bytes and a few requests come out.
//!
//! Nothing in here has a socket, a clock, a thread or a file; [`node::Node`] says how it is driven.
//! That is what lets a simulator drive the very same code under a virtual clock and a faulty
//! network.
//!
//! # Seven rooms
//!
//! A room imports from the rooms below it, never from one above it; a test reads the imports.
//! Of the kinds of session, only a client imports another one: it asks Places.
//!
//! | room | what it is for |
//! |---|---|
//! | [`node`] | the server: hands events to sessions, owns what sessions share |
//! | [`client`], [`link`], [`places`] | the kinds of session: a mobile client, a neighbour, Google Places |
//! | [`session`] | what a session stands on: TLS, buffers, admission, names |
//! | [`journal`] | what outlasts a crash |
//! | [`table`] | every client's position, and the feed of changes |
//! | [`wire`] | what lines say |
//! | [`base`] | ids, time, limits, settings |
//!
//! # The same events give the same output
//!
//! There are these exceptions and no others:
//!
//! - Hash tables are keyed by the process's random numbers
//!   ([`RandomState`](std::hash::RandomState)), so that no client can choose names that collide.
//!   No output depends on the order of such a table.
//! - TLS has its own random numbers, from the system. Its time is that of the event: see
//!   [`session::tls_clock`].
//! - Lines of the log go to the `log` crate's logger, which may do with them what it likes.

pub mod base;
pub mod client;
pub mod journal;
pub mod link;
pub mod node;
pub mod places;
pub mod session;
pub mod table;
pub mod wire;
