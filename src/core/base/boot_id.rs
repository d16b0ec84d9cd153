//! The name of one life of a server.

use std::fmt;

/// Which life of its process a server is in: a random number that it takes when it starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BootId(pub u64);

impl fmt::Display for BootId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl BootId {
    /// Reads sixteen hexadecimal digits.
    #[must_use]
    pub fn parse(text: &[u8]) -> Option<BootId> {
        let digits = std::str::from_utf8(text)
            .ok()
            .filter(|text| text.len() == 16 && text.bytes().all(|b| b.is_ascii_hexdigit()))?;
        u64::from_str_radix(digits, 16).ok().map(BootId)
    }
}
