//! Code that the tools and the tests of herd-mio share.
//!
//! For every program:
//!
//! | module | what |
//! |---|---|
//! | [`signals`] | the signal mask and the dispositions that a program inherits |
//! | [`stop`] | Ctrl-C and SIGTERM as a flag |
//! | [`output`] | the standard output: a failed write changes the exit status |
//! | [`failure`] | the exit status and the one line that says why |
//! | [`clock`] | the only place that reads the clocks |
//! | [`cargo`] | builds a program, and finds it |
//!
//! For programs and tests that start servers:
//!
//! | module | what |
//! |---|---|
//! | [`ports`] | free ports, on a loopback address that only one herd has |
//! | [`server`] | the config file of a herd, the line that says ready, the end of a process |
//! | [`herd`] | a herd of real processes for a test, and its log |
//! | [`client`] | a client for transcripts |
//! | [`transcripts`] | the right answers to a client, for every implementation of the server |
//! | [`streams`], [`left_behind`] | tests of every program: its output, its signals, its clean-up |
//!
//! For tests of the core:
//!
//! | module | what | used by |
//! |---|---|---|
//! | [`at_line`] | a second implementation of `AT` lines and their order | `promises`, simulator |
//! | [`fake_disk`] | a disk in memory, with every failure of a real one | properties, simulator, fuzzing |
//! | [`promises`] | the records that must survive a restart | the same, tests of real processes |
//! | [`rng`] | the random numbers | all of them |
//!
//! `at_line` and `promises` share no code with the server that they check. Only `fake_disk`, `herd`
//! and `transcripts` use the server's library: the types of its disk work, the reader of a journal,
//! the presets, and the parser that judges random lines.

#![forbid(unsafe_code)]
#![allow(clippy::panic, reason = "a failed check of a test panics")]

pub mod at_line;
pub mod cargo;
pub mod client;
pub mod clock;
pub mod failure;
pub mod fake_disk;
pub mod herd;
pub mod left_behind;
pub mod output;
pub mod ports;
pub mod promises;
pub mod rng;
pub mod server;
pub mod signals;
pub mod stop;
pub mod streams;
pub mod transcripts;
