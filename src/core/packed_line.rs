//! An `AT` line in little memory: the numbers at two characters a byte, the server's name as a number.
//!
//! A herd of a million clients holds a million lines, most of whose characters are digits, signs and points. Nothing is computed: a line comes back byte
//! for byte.
//!
//! ```text
//!   length of the client's name (1 byte, or 255 and 2 bytes) · the name · number of the server (2 bytes)
//!   · "skew location time", each character half a byte, ended by a half byte 15
//! ```

use crate::core::message::At;

/// The characters that numbers are written with; their places are their codes.
const CHARACTERS: &[u8; 14] = b"0123456789+-. ";
/// Room for the numbers of a common line.
const LINE_BYTES: usize = 96;
/// The half byte behind the last character.
const END: u8 = 15;
/// A name of so many bytes or more has its length in two more bytes.
const LONG_NAME: u8 = 255;

/// The line.
pub struct PackedLine(Box<[u8]>);

/// The names of servers, each told once. A herd has a handful.
#[derive(Default)]
pub struct ServerNames(Vec<Box<[u8]>>);

impl ServerNames {
    /// The number of a name; `None` if there are 65,536 others already.
    fn number_of(&mut self, name: &[u8]) -> Option<u16> {
        let known = self.0.iter().position(|known| **known == *name);
        let number = u16::try_from(known.unwrap_or(self.0.len())).ok()?;
        if known.is_none() {
            self.0.push(name.into());
        }
        Some(number)
    }

    fn name(&self, number: [u8; 2]) -> &[u8] {
        self.0
            .get(usize::from(u16::from_le_bytes(number)))
            .map_or(&[], |name| name)
    }
}

impl PackedLine {
    /// Packs `line` (without its LF), taken apart as `at`. `None` if there are too many servers to number.
    #[must_use]
    pub fn pack(line: &[u8], at: &At<'_>, servers: &mut ServerNames) -> Option<PackedLine> {
        let server = servers.number_of(at.server)?;
        let skew = &line[b"AT ".len() + at.server.len() + 1..at.client_offset - 1];
        let place_and_time = &line[at.client_offset + at.client.len()..]; // from its space on
        let halves = skew.len() + place_and_time.len() + 1;
        let short = u8::try_from(at.client.len())
            .ok()
            .filter(|&length| length < LONG_NAME);
        let length = if short.is_some() { 1 } else { 3 };
        // Exactly what is needed: a box that has to shrink is moved.
        let mut bytes = Vec::with_capacity(length + at.client.len() + 2 + halves.div_ceil(2));
        match short {
            Some(length) => bytes.push(length),
            None => {
                bytes.push(LONG_NAME);
                bytes.extend_from_slice(&u16::try_from(at.client.len()).ok()?.to_le_bytes());
            }
        }
        bytes.extend_from_slice(at.client);
        bytes.extend_from_slice(&server.to_le_bytes());
        let mut first = None;
        for code in skew
            .iter()
            .chain(place_and_time)
            .map(|&character| code_of(character))
            .chain([END])
        {
            match first.take() {
                None => first = Some(code),
                Some(first) => bytes.push(first << 4 | code),
            }
        }
        bytes.extend(first.map(|first| first << 4 | END));
        Some(PackedLine(bytes.into_boxed_slice()))
    }

    /// The client's name, and what follows it.
    fn split(&self) -> (&[u8], &[u8]) {
        match &*self.0 {
            [LONG_NAME, low, high, rest @ ..] => {
                rest.split_at(usize::from(u16::from_le_bytes([*low, *high])))
            }
            [length, rest @ ..] => rest.split_at(usize::from(*length)),
            [] => (&[], &[]), // nothing is packed like this
        }
    }

    /// The client's name.
    #[must_use]
    pub fn client(&self) -> &[u8] {
        self.split().0
    }

    /// Appends the line, without an LF.
    pub fn write(&self, servers: &ServerNames, out: &mut Vec<u8>) {
        let (client, rest) = self.split();
        let Some((server, numbers)) = rest.split_first_chunk::<2>() else {
            return; // nothing is packed like this
        };
        let server = servers.name(*server);
        out.reserve(LINE_BYTES + server.len() + client.len());
        out.extend_from_slice(b"AT ");
        out.extend_from_slice(server);
        out.push(b' ');
        let skew = out.len();
        for &byte in numbers {
            out.extend_from_slice(&PAIRS[usize::from(byte)]);
        }
        let ends = numbers.last().map_or(0, |&last| ends_in(last));
        out.truncate(out.len() - ends);
        // The client's name stands behind the skew: what follows makes room for it.
        if let Some(place) = memchr::memchr(b' ', &out[skew..]).map(|space| skew + space) {
            let end = out.len();
            out.push(b' ');
            out.extend_from_slice(client);
            out[place..].rotate_right(1 + client.len());
            debug_assert_eq!(out.len(), end + 1 + client.len());
        }
    }

    /// How long the line is.
    #[must_use]
    pub fn len(&self, servers: &ServerNames) -> usize {
        let (client, rest) = self.split();
        let Some((server, numbers)) = rest.split_first_chunk::<2>() else {
            return 0; // nothing is packed like this
        };
        let ends = numbers.last().map_or(0, |&last| ends_in(last));
        let server = servers.name(*server).len();
        b"AT ".len() + server + 1 + 2 * numbers.len() - ends + 1 + client.len()
    }
}

/// How many of the last byte's halves are no characters.
const fn ends_in(last: u8) -> usize {
    if last >> 4 == END { 2 } else { 1 }
}

/// The two characters of each byte.
const PAIRS: [[u8; 2]; 256] = {
    let mut pairs = [[0; 2]; 256];
    let mut byte = 0;
    while byte < 256 {
        let halves = [byte >> 4, byte & 15];
        let mut half = 0;
        while half < 2 {
            if halves[half] < CHARACTERS.len() {
                pairs[byte][half] = CHARACTERS[halves[half]];
            }
            half += 1;
        }
        byte += 1;
    }
    pairs
};

/// The code of each character; `END` where there is none.
const CODES: [u8; 256] = {
    let mut codes = [END; 256];
    let mut code = 0;
    while code < CHARACTERS.len() {
        codes[CHARACTERS[code] as usize] = code as u8;
        code += 1;
    }
    codes
};

/// Whatever an `AT` line has there is one of them: its parser lets nothing else through.
fn code_of(character: u8) -> u8 {
    CODES[usize::from(character)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn there_and_back(line: &[u8]) -> (Vec<u8>, usize) {
        let mut servers = ServerNames::default();
        servers.number_of(b"Somebody");
        let at = At::parse(line).unwrap_or_else(|| panic!("no AT line: {}", line.escape_ascii()));
        let packed = PackedLine::pack(line, &at, &mut servers).unwrap();
        assert_eq!(packed.client(), at.client);
        assert_eq!(packed.len(&servers), line.len());
        let mut back = Vec::new();
        packed.write(&servers, &mut back);
        (back, packed.0.len())
    }

    #[test]
    fn a_common_line_takes_half_its_length() {
        let line =
            b"AT Riley +0.263873386 client-0001234 +34.068930-118.445127 1621464827.959498503";
        let (back, length) = there_and_back(line);
        assert_eq!(back, line);
        assert!(
            length <= line.len() * 6 / 10,
            "{length} of {} bytes",
            line.len()
        );
    }

    #[test]
    fn names_of_any_length_come_back() {
        for length in [1, 2, 253, 254, 255, 256, 4000] {
            let line = format!("AT Riley +0.000000000 {} +1+2 3", "x".repeat(length));
            assert_eq!(
                there_and_back(line.as_bytes()).0,
                line.as_bytes(),
                "{length}"
            );
        }
    }

    proptest! {
        #[test]
        fn a_line_comes_back_byte_for_byte(server in "[!-~]{1,20}", client in "[^ \t\r\n\x0b\x0c]{1,300}", skew in "[+-][1-9][0-9]{0,8}\\.[0-9]{9}", latitude in "[+-][0-8]?[0-9](\\.[0-9]{1,20})?", longitude in "[+-][01]?[0-7]?[0-9](\\.[0-9]{1,20})?", time in "[1-9][0-9]{11,17}(\\.[0-9]{1,18})?") {
            let line = format!("AT {server} {skew} {client} {latitude}{longitude} {time}");
            prop_assert_eq!(there_and_back(line.as_bytes()).0, line.as_bytes());
        }
    }
}
