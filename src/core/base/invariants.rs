//! The macro `ensure!`. Several parts of the core check their invariants with it.
//!
//! Each of these parts has a method `check_invariants`.
//! [`Node::check_invariants`](crate::core::node::Node::check_invariants) calls all of them. The
//! simulator and the fuzz targets call the method of `Node` after each turn.

/// `ensure!(condition, format, arguments)`: unless the condition is true, the calling function
/// returns an error with the formatted message.
macro_rules! ensure {
    ($condition:expr, $($words:tt)+) => {
        if !$condition {
            return Err(format!($($words)+));
        }
    };
}
pub(crate) use ensure;
