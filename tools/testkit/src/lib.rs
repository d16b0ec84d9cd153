//! What the tests of herd-mio share.
//!
//! | module | what | used by |
//! |---|---|---|
//! | [`at_line`] | `AT` lines and their order, read anew from the words of the protocol | `promises`, the simulator |
//! | [`fake_disk`] | a disk in memory that fails in every way that a real one does | property test, simulator, fuzzing |
//! | [`promises`] | a book of what was promised, and what must be there after each restart | the same, and the tests of real processes |
//! | [`rng`] | one source of chance | all of them |
//!
//! `at_line` and `promises` share no code with the server that they check. Only `fake_disk` knows the core: the types of its disk work,
//! and the reading of a journal.

#![forbid(unsafe_code)]
#![allow(
    clippy::panic,
    reason = "a panic is how a test is told what does not hold"
)]

pub mod at_line;
pub mod fake_disk;
pub mod promises;
pub mod rng;
