//! What outlasts a crash: a file of everything that was accepted, in the order in which it was.
//!
//! ```text
//!   durability ─ what is written when, and which answers wait for it ──► DiskWork  ─► the shell's disk
//!      │    ▲                                                        ◄── DiskDone  ◄─
//!      │    └─ compaction ─ the file is written anew when it is mostly old
//!      └─► format ─ what an entry looks like, and what reading a file back finds
//! ```
//!
//! No file is opened here: the shell does what [`DiskWork`](durability::DiskWork) says, and reports
//! back.

pub mod durability;
pub mod format;
