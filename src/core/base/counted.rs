//! A count with its noun, for log lines: `1 record`, `2 records`.

use std::fmt;

/// A count and its noun. `Display` adds an `s` to the noun unless the count is 1.
///
/// ```
/// use herd_mio::core::base::counted::Counted;
///
/// assert_eq!(Counted(1, "record").to_string(), "1 record");
/// assert_eq!(Counted(0, "record").to_string(), "0 records");
/// ```
pub struct Counted(pub u64, pub &'static str);

impl fmt::Display for Counted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Counted(count, name) = self;
        let plural = if *count == 1 { "" } else { "s" };
        write!(f, "{count} {name}{plural}")
    }
}
