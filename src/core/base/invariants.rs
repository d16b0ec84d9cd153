//! How a part of the core says what always holds of it.
//!
//! Each part has a `check_invariants`, and
//! [`Node::check_invariants`](crate::core::node::Node::check_invariants) asks them all. Simulator
//! and fuzz targets call that after each turn.

/// Returns an error with these words unless the condition holds.
macro_rules! hold {
    ($condition:expr, $($words:tt)+) => {
        if !$condition {
            return Err(format!($($words)+));
        }
    };
}
pub(crate) use hold;
