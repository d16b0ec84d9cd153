//! The id of one life of a server. A *life* begins when the server's process starts, or when the
//! server learns from a neighbour that an older copy of its data was restored.

use std::fmt;

/// A random number that a server chooses when a life begins. The number distinguishes the present
/// life of the server from the earlier lives of the same server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BootId(pub u64);

impl fmt::Display for BootId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl BootId {
    /// Parses sixteen hexadecimal digits. Returns `None` for any other text.
    #[must_use]
    pub fn parse(text: &[u8]) -> Option<BootId> {
        let digits = std::str::from_utf8(text)
            .ok()
            .filter(|text| text.len() == 16 && text.bytes().all(|b| b.is_ascii_hexdigit()))?;
        u64::from_str_radix(digits, 16).ok().map(BootId)
    }
}
