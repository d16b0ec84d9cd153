//! What every other room stands on: time, ids, limits, settings, and how a state machine is
//! written down.
//!
//! ```text
//!   node ─► client ─► link, places ─► session ─► journal ─► table ─► wire ─► base
//! ```
//!
//! Nothing in here knows what a herd is, but for [`limits`] and [`settings`], which name what can
//! be configured.

pub mod backoff;
pub mod boot_id;
pub mod clock;
pub mod counted;
pub mod deadlines;
pub mod entropy;
pub mod hex;
pub(crate) mod invariants;
pub mod limits;
pub mod network;
pub mod settings;
pub mod slots;
pub(crate) mod transitions;
