//! An `AT` line that takes little memory. Its numbers are packed, two characters in a byte, and the
//! server's name is replaced by a number of two bytes.
//!
//! A herd with a million clients stores a million lines. Most of their characters are digits, signs
//! and points. Packing treats the numbers as text and computes nothing from them. So unpacking
//! returns the same line, byte for byte.
//!
//! ```text
//!   length of the client's name (1 byte, or 255 and 2 bytes) · the name · number of the server (2 bytes)
//!   · "skew location time", each character in half a byte, then one or two half bytes of value 15
//! ```
//!
//! The code of a character is the lower half of its ASCII code. Only the space has another code,
//! 10, because its lower half is the same as that of the digit `0`. These codes are simple to
//! compute, so eight characters can be packed or unpacked at once, in one register.

use std::ops::Range;

use crate::core::wire::swar::repeat_byte;

/// The character that ends the packed text. Its code is 15.
const END: u8 = b'/';
/// A byte with two codes of [`END`].
const TWO_ENDS: u8 = 0xff;
/// If a client's name has at least this many bytes, the length byte is 255, and two more bytes
/// contain the length.
const LONG_NAME: u8 = 255;
/// Packed text of at most this many bytes is unpacked into an array on the stack. Longer text needs
/// an allocation, but nearly no line has such a long text.
const MAX_STACK_BYTES: usize = 64;

/// A packed line, borrowed from its store.
#[derive(Clone, Copy)]
pub struct PackedLine<'a>(&'a [u8]);

/// The maximum number of stored names that neighbours have sent. A herd has only a few servers.
/// Without the limit, a neighbour that sends invented names could fill the memory, and slow down
/// the search for a name.
const MAX_NAMES: usize = 1_024;

/// The names of servers, each stored once. The number of a name is its index.
#[derive(Default)]
pub struct ServerNames(Vec<Box<[u8]>>);

impl ServerNames {
    /// Stores a name, even if `MAX_NAMES` names are stored already.
    pub fn add(&mut self, name: &[u8]) {
        if !self.0.iter().any(|found| **found == *name) {
            self.0.push(name.into());
        }
    }

    /// Returns the number of a name. A new name is stored first. Returns `None` if the name is new
    /// and at least `MAX_NAMES` names are stored.
    pub fn intern(&mut self, name: &[u8]) -> Option<u16> {
        let found = self.0.iter().position(|found| **found == *name);
        if found.is_none() && self.0.len() >= MAX_NAMES {
            return None;
        }
        let number = u16::try_from(found.unwrap_or(self.0.len())).ok()?;
        if found.is_none() {
            self.0.push(name.into());
        }
        Some(number)
    }

    fn name(&self, number: [u8; 2]) -> &[u8] {
        let name = self.0.get(usize::from(u16::from_le_bytes(number)));
        debug_assert!(name.is_some(), "a number is given with its name");
        name.map_or(&[], |name| name)
    }
}

impl<'a> PackedLine<'a> {
    /// Borrows a line that [`pack`] has packed into `bytes`.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> PackedLine<'a> {
        PackedLine(bytes)
    }

    /// Returns the client's name, and the bytes after it.
    fn split(self) -> (&'a [u8], &'a [u8]) {
        match self.0 {
            [LONG_NAME, low, high, rest @ ..] => {
                rest.split_at(usize::from(u16::from_le_bytes([*low, *high])))
            }
            [length, rest @ ..] => rest.split_at(usize::from(*length)),
            [] => {
                debug_assert!(false, "nothing is packed into no bytes");
                (&[], &[])
            }
        }
    }

    /// Returns the client's name.
    #[must_use]
    pub fn client(self) -> &'a [u8] {
        self.split().0
    }

    /// Unpacks the line and appends it to `out`, without an LF.
    pub fn write(self, servers: &ServerNames, out: &mut Vec<u8>) {
        let (client, rest) = self.split();
        let Some((server, packed)) = rest.split_first_chunk::<2>() else {
            debug_assert!(false, "the server's number is always packed");
            return;
        };
        let server = servers.name(*server);
        let (mut short, mut long);
        let text = if packed.len() <= MAX_STACK_BYTES {
            short = [0; 2 * MAX_STACK_BYTES];
            &mut short[..]
        } else {
            long = vec![0; 2 * packed.len().next_multiple_of(4)];
            &mut long[..]
        };
        unpack(packed, text);
        let text = &text[..2 * packed.len() - count_end_codes(packed)];
        // In the line, the client's name comes after the skew.
        let skew = memchr::memchr(b' ', text).unwrap_or(text.len());
        out.reserve(b"AT ".len() + server.len() + 2 + client.len() + text.len());
        out.extend_from_slice(b"AT ");
        out.extend_from_slice(server);
        out.push(b' ');
        out.extend_from_slice(&text[..skew]);
        out.push(b' ');
        out.extend_from_slice(client);
        out.extend_from_slice(&text[skew..]);
    }

    /// Returns the skew and the time of the line. These two fields decide which of two lines of one
    /// client is newer. `line` is this line, unpacked; the returned fields borrow from `line`. The
    /// skew is `None` if it is not negative.
    #[must_use]
    pub fn skew_and_time<'b>(
        self,
        servers: &ServerNames,
        line: &'b [u8],
    ) -> (Option<&'b [u8]>, &'b [u8]) {
        let (_, rest) = self.split();
        let server = rest
            .first_chunk()
            .map_or(0, |server| servers.name(*server).len());
        let skew = line.get(b"AT ".len() + server + 1..).unwrap_or_default();
        let skew = (skew.first() != Some(&b'+')).then(|| {
            let end = memchr::memchr(b' ', skew).unwrap_or(skew.len());
            &skew[..end]
        });
        let time = memchr::memrchr(b' ', line).map_or(0, |space| space + 1);
        (skew, &line[time..])
    }
}

/// Packs `line`, an `AT` line without its LF. Replaces the content of `bytes` with the packed line.
/// `client` is the range of the client's name in `line`. Returns `None` if the server's name cannot
/// be stored (see [`ServerNames::intern`]).
#[must_use]
pub fn pack(
    line: &[u8],
    client: Range<usize>,
    servers: &mut ServerNames,
    bytes: &mut Vec<u8>,
) -> Option<()> {
    // `location_and_time` begins with a space.
    let (before, location_and_time) = (&line[..client.start - 1], &line[client.end..]);
    let client = &line[client];
    let server_and_skew = &before[b"AT ".len()..];
    let (server, skew) = server_and_skew.split_at(memchr::memchr(b' ', server_and_skew)?);
    let (server, skew) = (servers.intern(server)?, &skew[1..]);
    bytes.clear();
    match u8::try_from(client.len()) {
        Ok(length) if length < LONG_NAME => bytes.push(length),
        Ok(_) | Err(_) => {
            bytes.push(LONG_NAME);
            bytes.extend_from_slice(&u16::try_from(client.len()).ok()?.to_le_bytes());
        }
    }
    bytes.extend_from_slice(client);
    bytes.extend_from_slice(&server.to_le_bytes());
    // Append `END` at least once, until the length is a multiple of eight. Then pack eight
    // characters at a time, in place.
    let start = bytes.len();
    bytes.extend_from_slice(skew);
    bytes.extend_from_slice(location_and_time);
    let length = bytes.len() - start;
    bytes.resize(start + (length + 1).next_multiple_of(8), END);
    let (words, _) = bytes[start..].as_chunks_mut::<8>();
    for index in 0..words.len() {
        let quad = pack_eight(words[index]);
        words[index / 2][index % 2 * 4..][..4].copy_from_slice(&quad);
    }
    bytes.truncate(start + (length + 1).div_ceil(2));
    Some(())
}

/// Packs two characters into each byte; the first one is in the upper half. Each character is a
/// digit, `+`, `-`, `.`, a space or [`END`]. Other characters have no code.
fn pack_eight(characters: [u8; 8]) -> [u8; 4] {
    let word = u64::from_le_bytes(characters);
    // Of these characters, only the space has zeros in its lower five bits. So adding 127 to these
    // bits sets the top bit of the byte, except for a space.
    let nonzero = (word & repeat_byte(0x1f)) + repeat_byte(0x7f);
    let spaces = (!nonzero & repeat_byte(0x80)) >> 7;
    let codes = (word & repeat_byte(0x0f)) + spaces * 10;
    let pairs = (codes << 4 | codes >> 8) & 0x00ff_00ff_00ff_00ff;
    let quads = (pairs | pairs >> 8) & 0x0000_ffff_0000_ffff;
    ((quads | quads >> 16) as u32).to_le_bytes()
}

/// Unpacks four bytes into eight characters.
fn unpack_eight(packed: [u8; 4]) -> [u8; 8] {
    let word = u64::from(u32::from_le_bytes(packed));
    let quads = (word | word << 16) & 0x0000_ffff_0000_ffff;
    let pairs = (quads | quads << 8) & 0x00ff_00ff_00ff_00ff;
    let codes = pairs >> 4 & repeat_byte(0x0f) | (pairs << 8) & repeat_byte(0x0f);
    // A code of at least 10 is the lower half of a character 0x2X. A code below 10 is the lower
    // half of a digit, 0x3X. Only the space is an exception: its code is 10, not 0.
    let punctuation = (codes + repeat_byte(6)) & repeat_byte(0x10);
    let nonzero = (codes ^ repeat_byte(10)) + repeat_byte(0x7f);
    let spaces = (!nonzero & repeat_byte(0x80)) >> 7;
    (codes + repeat_byte(0x30) - punctuation - spaces * 10).to_le_bytes()
}

/// Unpacks the codes in `packed`, two in each byte, into the characters of `text`. The length of
/// `text` is a multiple of eight, and at least twice the length of `packed`.
fn unpack(packed: &[u8], text: &mut [u8]) {
    let (quads, rest) = packed.as_chunks::<4>();
    let (words, _) = text.as_chunks_mut::<8>();
    for (word, &quad) in words.iter_mut().zip(quads) {
        *word = unpack_eight(quad);
    }
    if !rest.is_empty()
        && let Some(word) = words.get_mut(quads.len())
    {
        let mut last = [TWO_ENDS; 4];
        last[..rest.len()].copy_from_slice(rest);
        *word = unpack_eight(last);
    }
}

/// Returns the number of [`END`] codes in the last byte: 1 or 2. Returns 0 if `packed` is empty.
fn count_end_codes(packed: &[u8]) -> usize {
    match packed.last() {
        None => 0,
        Some(&TWO_ENDS) => 2,
        Some(_) => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::wire::message::At;
    use proptest::prelude::*;

    fn pack_and_unpack(line: &[u8]) -> (Vec<u8>, usize) {
        let mut servers = ServerNames::default();
        servers.intern(b"Somebody");
        let at = At::parse(line).unwrap_or_else(|| panic!("no AT line: {}", line.escape_ascii()));
        let mut bytes = Vec::new();
        pack(line, at.client_range(), &mut servers, &mut bytes).unwrap();
        let packed = PackedLine::new(&bytes);
        assert_eq!(packed.client(), at.client);
        let mut back = Vec::new();
        packed.write(&servers, &mut back);
        (back, bytes.len())
    }

    #[test]
    fn a_typical_line_is_packed_to_60_percent() {
        let line =
            b"AT Riley +0.263873386 client-0001234 +34.068930-118.445127 1621464827.959498503";
        let (back, length) = pack_and_unpack(line);
        assert_eq!(back, line);
        assert!(
            length <= line.len() * 6 / 10,
            "{length} of {} bytes",
            line.len()
        );
    }

    #[test]
    fn names_of_any_length_survive_packing() {
        for length in [1, 2, 253, 254, 255, 256, 4000] {
            let line = format!("AT Riley +0.000000000 {} +1+2 3", "x".repeat(length));
            assert_eq!(
                pack_and_unpack(line.as_bytes()).0,
                line.as_bytes(),
                "{length}"
            );
        }
    }

    proptest! {
        #[test]
        fn a_line_survives_packing_byte_for_byte(server in "[!-~]{1,20}", client in "[^ \t\r\n\x0b\x0c]{1,300}", skew in "[+-][1-9][0-9]{0,8}\\.[0-9]{9}", latitude in "[+-][0-8]?[0-9](\\.[0-9]{1,20})?", longitude in "[+-][01]?[0-7]?[0-9](\\.[0-9]{1,20})?", time in "[1-9][0-9]{11,17}(\\.[0-9]{1,18})?") {
            let line = format!("AT {server} {skew} {client} {latitude}{longitude} {time}");
            prop_assert_eq!(pack_and_unpack(line.as_bytes()).0, line.as_bytes());
        }
    }
}
