//! Bytes in the pieces in which a network might deliver them.

/// Cuts `bytes` as `seed` says: 0 one by one, 255 not at all, otherwise into pieces of up to four times so many bytes.
pub(crate) fn pieces(mut bytes: &[u8], seed: u8) -> impl Iterator<Item = &[u8]> {
    let mut state = 0x9e37_79b9_7f4a_7c15 ^ u64::from(seed);
    std::iter::from_fn(move || {
        if bytes.is_empty() {
            return None;
        }
        // xorshift64: all that is asked of it is that pieces differ.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let length = match seed {
            0 => 1,
            u8::MAX => bytes.len(),
            _ => 1 + (state % (4 * u64::from(seed))) as usize,
        };
        let piece = bytes.split_off(..length.min(bytes.len()))?;
        Some(piece)
    })
}
