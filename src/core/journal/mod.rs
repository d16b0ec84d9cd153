//! The journal: a file with every accepted record, in the order in which the records were accepted.
//! It survives a crash of the server.
//!
//! ```text
//!   durability ─ what is written when, and which answers wait for it ──► DiskWork  ─► the shell's disk
//!      │    ▲                                                        ◄── DiskDone  ◄─
//!      │    └─ compaction ─ the file is written anew when it is mostly old
//!      └─► format ─ what an entry looks like, and what reading a file back finds
//! ```
//!
//! The core opens no file. The shell executes [`DiskWork`](durability::DiskWork) and reports the
//! result.

pub mod durability;
pub mod format;
