//! Building blocks that every other part of the core uses: time, ids, limits, settings, and state
//! machines as tables. Imports go only from left to right:
//!
//! ```text
//!   node ─► client ─► link, places, http ─► session ─► journal ─► table ─► wire ─► base
//! ```
//!
//! Of these modules, [`limits`] and [`settings`] are specific to this server: they list what can be
//! configured. Most of the other modules could be used in any program.

pub mod backoff;
pub mod boot_id;
pub mod bucket;
pub mod clock;
pub mod counted;
pub mod deadlines;
pub mod entropy;
pub mod hex;
pub mod histogram;
pub(crate) mod invariants;
pub mod limits;
pub mod network;
pub mod process_facts;
pub mod settings;
pub mod slots;
pub(crate) mod transitions;
