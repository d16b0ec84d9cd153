//! The journal: a file with every accepted record, in the order in which the records were accepted.
//! After a crash, the server restores its table from this file.
//!
//! ```text
//!   durability ─ what is written when, and which answers wait for it ──► DiskWork  ─► the shell's disk
//!      │    ▲                                                        ◄── DiskDone  ◄─
//!      │    └─ compaction ─ rewrites the file when most of its entries are outdated
//!      └─► format ─ the bytes of an entry, and how a file is read back
//! ```
//!
//! The core opens no file. The shell executes [`DiskWork`](durability::DiskWork) and reports the
//! result.

pub mod durability;
pub mod format;
