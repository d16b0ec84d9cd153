//! The macro `hold!`, with which parts of the core check their invariants.
//!
//! Each of these parts has a method `check_invariants`.
//! [`Node::check_invariants`](crate::core::node::Node::check_invariants) calls all of them. The
//! simulator and the fuzz targets call it after each turn.

/// Makes the calling function return an error with this message, unless the condition is true.
macro_rules! hold {
    ($condition:expr, $($words:tt)+) => {
        if !$condition {
            return Err(format!($($words)+));
        }
    };
}
pub(crate) use hold;
