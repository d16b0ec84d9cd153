//! What the tools and the tests of herd-mio share.
//!
//! For every program:
//!
//! | module | what |
//! |---|---|
//! | [`signals`] | the signal mask and the dispositions that a program inherits |
//! | [`stop`] | Ctrl-C and SIGTERM as a flag |
//! | [`output`] | the standard output: what is written arrives, or the exit status says that it did not |
//! | [`failure`] | the exit status and the one line that says why |
//! | [`clock`] | the only place that reads the clocks |
//! | [`cargo`] | builds a program, and says where it is |
//!
//! For programs and tests that start servers:
//!
//! | module | what |
//! |---|---|
//! | [`ports`] | free ports, on a loopback address of the herd's own |
//! | [`server`] | the config file of a herd, the line that says ready, the end of a process |
//! | [`herd`] | a herd of real processes for a test, and its log |
//! | [`client`] | a client whose conversation is a transcript |
//! | [`transcripts`] | what a client is answered, as one suite that is played against everything |
//! | [`streams`], [`left_behind`] | what is tested of every program: its output, its signals, what it leaves |
//!
//! For tests of the core:
//!
//! | module | what | used by |
//! |---|---|---|
//! | [`at_line`] | `AT` lines and their order, read anew from the words of the protocol | `promises`, the simulator |
//! | [`fake_disk`] | a disk in memory that fails in every way that a real one does | property test, simulator, fuzzing |
//! | [`promises`] | a book of what was promised, and what must be there after each restart | the same, and the tests of real processes |
//! | [`rng`] | one source of chance | all of them |
//!
//! `at_line` and `promises` share no code with the server that they check. Only `fake_disk`,
//! `herd` and `transcripts` know the core: the types of its disk work, the reading of a journal, the
//! presets, and the grammar that judges lines made by chance.

#![forbid(unsafe_code)]
#![allow(
    clippy::panic,
    reason = "a panic is how a test is told what does not hold"
)]

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
