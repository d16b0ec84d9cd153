//! The header of the PROXY protocol, versions 1 and 2 (HAProxy, `doc/proxy-protocol.txt`). A proxy
//! sends this header before all other bytes, so that the server knows the client's address.
//!
//! ```text
//!   version 1   PROXY TCP4 192.0.2.9 198.51.100.1 56324 10000 CR LF       at most 107 bytes
//!   version 2   signature │ version, command │ family, transport │ length │ addresses │ TLVs
//! ```
//!
//! The source address in the header is the client's address. Nothing else in the header is used.
//! The destination address is checked in version 1 only: a line with an invalid destination does
//! not have the right form.
//!
//! TLVs (additional fields in version 2) are skipped. One of the TLVs can be a checksum
//! (`PP2_TYPE_CRC32C`), which is not verified. The specification allows a receiver to ignore this
//! checksum, and TCP has a checksum of its own.
//!
//! A valid header can lack a client address. In version 1, such a header has the word `UNKNOWN`. In
//! version 2, it has the command `LOCAL`, or an address family and a transport other than TCP over
//! IPv4 or IPv6. HAProxy sends `LOCAL` in its health checks. If the header has no client address,
//! the server uses the source address of the TCP connection.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The maximum number of bytes that a header of version 1 can have, its CR LF included.
pub const LINE_BYTES: usize = 107;

/// The first bytes of a header of version 1.
const LINE: &[u8] = b"PROXY ";

/// The first bytes of a header of version 2. The specification chose these bytes so that no other
/// known protocol begins with them.
const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// The number of bytes before the addresses in a header of version 2.
const FIXED_BYTES: usize = SIGNATURE.len() + 4;

/// A complete header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The client's address. An IPv4-mapped IPv6 address is turned into the IPv4 address. `None` if
    /// the header has no client address, for example because the proxy made the connection for
    /// itself.
    pub source: Option<SocketAddr>,
    /// The length of the header in bytes. The bytes after the header are from the client.
    pub length: usize,
}

/// The result of [`parse`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// More bytes are needed. The received bytes are the beginning of a header, or there are no
    /// bytes yet.
    Incomplete,
    /// A complete header. More bytes can follow it.
    Header(Header),
    /// The bytes are not a header, whatever bytes follow.
    Invalid(HeaderError),
}

/// Why the received bytes are not a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeaderError {
    /// The bytes do not begin like a header of either version.
    Absent,
    /// Version 1: the line does not have the right form.
    Line,
    /// Version 1: there is no CR LF in the first [`LINE_BYTES`] bytes.
    LongLine,
    /// Version 2: the version field has this value instead of 2.
    Version(u8),
    /// Version 2: the command has this value. It is neither `LOCAL` (0) nor `PROXY` (1).
    Command(u8),
    /// Version 2: the byte of address family and transport has this value, which has no meaning.
    Family(u8),
    /// Version 2: the addresses do not fit into the bytes that follow. The field is the number of
    /// these bytes.
    Short(usize),
    /// Version 2: the header is longer than the limit.
    Long {
        /// The length of the header in bytes.
        bytes: usize,
        /// The limit in bytes.
        max: usize,
    },
}

impl fmt::Display for HeaderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HeaderError::Absent => f.write_str("it did not begin with a PROXY header"),
            HeaderError::Line => f.write_str(
                "its PROXY header of version 1 is not of the form PROXY TCP4|TCP6 source destination port port, CR LF",
            ),
            HeaderError::LongLine => write!(
                f,
                "its PROXY header of version 1 has no CR LF within {LINE_BYTES} bytes"
            ),
            HeaderError::Version(version) => {
                write!(f, "its PROXY header says version {version}, not 1 or 2")
            }
            HeaderError::Command(command) => write!(
                f,
                "its PROXY header has the command {command:#x}, neither LOCAL nor PROXY"
            ),
            HeaderError::Family(family) => write!(
                f,
                "its PROXY header has the address family and transport {family:#04x}, which have no meaning"
            ),
            HeaderError::Short(bytes) => write!(
                f,
                "its PROXY header leaves {bytes} bytes for the addresses, which need more"
            ),
            HeaderError::Long { bytes, max } => write!(
                f,
                "its PROXY header has {bytes} bytes, more than limits.proxy_header_bytes ({max})"
            ),
        }
    }
}

/// Parses a header at the start of a connection. `max` is the maximum length in bytes of a header
/// of version 2. It is at least [`LINE_BYTES`].
///
/// If the result is not [`Parsed::Incomplete`], more bytes do not change it. With `max` bytes or
/// more, the result is never [`Parsed::Incomplete`].
///
/// ```
/// use herd_mio::core::wire::proxy_header::{Header, Parsed, parse};
///
/// let bytes = b"PROXY TCP4 192.0.2.9 198.51.100.1 56324 10000\r\nIAMAT ";
/// let header = Header { source: Some("192.0.2.9:56324".parse()?), length: 47 };
/// assert_eq!(parse(bytes, 4_096), Parsed::Header(header));
/// assert_eq!(parse(&bytes[..46], 4_096), Parsed::Incomplete);
/// # Ok::<(), std::net::AddrParseError>(())
/// ```
#[must_use]
pub fn parse(bytes: &[u8], max: usize) -> Parsed {
    let read = if starts_like(bytes, LINE) {
        version_1(bytes)
    } else if starts_like(bytes, SIGNATURE) {
        version_2(bytes, max)
    } else {
        Err(HeaderError::Absent)
    };
    match read {
        Ok(Some(header)) => Parsed::Header(header),
        Ok(None) => Parsed::Incomplete,
        Err(error) => Parsed::Invalid(error),
    }
}

/// Whether the bytes begin with the signature of version 2, or with the first two words of version
/// 1. Use this function to recognise a header on a connection on which no header is expected.
#[must_use]
pub fn is_header(bytes: &[u8]) -> bool {
    bytes.starts_with(SIGNATURE) || is_version_1(bytes)
}

/// Whether the bytes received so far can be the beginning of a header of either version.
#[must_use]
pub fn may_be_header(bytes: &[u8]) -> bool {
    starts_like(bytes, LINE) || starts_like(bytes, SIGNATURE)
}

/// Whether a line that was split off as a command is in fact a part of a header. A header of
/// version 1 is one line. In version 2, the signature contains a line that is a single NUL.
#[must_use]
pub fn is_header_line(line: &[u8]) -> bool {
    line == b"\0" || is_version_1(line)
}

/// Whether the bytes received so far are an incomplete signature of version 2 that already has a
/// newline in it. If so, more bytes are needed before the first line can be read as a message.
#[must_use]
pub fn may_be_signature(bytes: &[u8]) -> bool {
    bytes.len() < SIGNATURE.len() && bytes.contains(&b'\n') && starts_like(bytes, SIGNATURE)
}

fn is_version_1(bytes: &[u8]) -> bool {
    let has_family = |rest: &[u8]| {
        [&b"TCP4 "[..], b"TCP6 ", b"UNKNOWN"]
            .iter()
            .any(|word| rest.starts_with(word))
    };
    bytes.strip_prefix(LINE).is_some_and(has_family)
}

/// Whether `bytes` begin with `start`, or are themselves the beginning of `start`.
fn starts_like(bytes: &[u8], start: &[u8]) -> bool {
    let common = bytes.len().min(start.len());
    bytes[..common] == start[..common]
}

fn version_1(bytes: &[u8]) -> Result<Option<Header>, HeaderError> {
    let line = &bytes[..bytes.len().min(LINE_BYTES)];
    if let Some(end) = line.windows(2).position(|pair| pair == b"\r\n") {
        let source = source(&line[..end]).ok_or(HeaderError::Line)?;
        let length = end + 2;
        return Ok(Some(Header { source, length }));
    }
    // A line that begins with `PROXY UNKNOWN` can have any bytes before its CR LF, also an LF.
    // These bytes are ignored.
    if line.contains(&b'\n') && !line.starts_with(b"PROXY UNKNOWN ") {
        return Err(HeaderError::Line);
    }
    if line.len() == LINE_BYTES {
        return Err(HeaderError::LongLine);
    }
    Ok(None)
}

/// Parses a line of version 1 without its CR LF, and returns the source address. Returns
/// `Some(None)` if the line has no source address, and `None` if the line is invalid.
fn source(line: &[u8]) -> Option<Option<SocketAddr>> {
    let rest = line.strip_prefix(LINE)?;
    if let Some(ignored) = rest.strip_prefix(b"UNKNOWN") {
        return (ignored.is_empty() || ignored.starts_with(b" ")).then_some(None);
    }
    let fields: Vec<&str> = str::from_utf8(rest).ok()?.split(' ').collect();
    let [family, source, destination, source_port, destination_port] = fields[..] else {
        return None;
    };
    let address = |text: &str| -> Option<IpAddr> {
        match family {
            "TCP4" => Some(text.parse::<Ipv4Addr>().ok()?.into()),
            "TCP6" => Some(text.parse::<Ipv6Addr>().ok()?.into()),
            _ => None,
        }
    };
    let (source, _) = (address(source)?, address(destination)?);
    let (port, _) = (port(source_port)?, port(destination_port)?);
    Some(Some(SocketAddr::new(source.to_canonical(), port)))
}

/// Parses a decimal port number without a sign or leading zeros.
fn port(digits: &str) -> Option<u16> {
    let is_plain = digits.bytes().all(|byte| byte.is_ascii_digit())
        && (digits.len() == 1 || !digits.starts_with('0'));
    digits.parse().ok().filter(|_| is_plain)
}

/// The kind of addresses in a header of version 2.
#[derive(Clone, Copy)]
enum Family {
    /// No addresses, or addresses that are not used here.
    Other,
    V4,
    V6,
}

fn version_2(bytes: &[u8], max: usize) -> Result<Option<Header>, HeaderError> {
    // Each byte is checked as soon as it has arrived. So an error is found before the rest of the
    // header arrives.
    let Some(&version_and_command) = bytes.get(12) else {
        return Ok(None);
    };
    let (version, command) = (version_and_command >> 4, version_and_command & 0xf);
    if version != 2 {
        return Err(HeaderError::Version(version));
    }
    let is_local = match command {
        0 => true,
        1 => false,
        other => return Err(HeaderError::Command(other)),
    };
    let Some(&family_byte) = bytes.get(13) else {
        return Ok(None);
    };
    let (family, address_bytes) = if is_local {
        (Family::Other, 0) // specification: "including the family which is ignored"
    } else {
        family(family_byte).ok_or(HeaderError::Family(family_byte))?
    };
    let Some(&[high, low]) = bytes.get(14..FIXED_BYTES) else {
        return Ok(None);
    };
    let following = usize::from(u16::from_be_bytes([high, low]));
    if following < address_bytes {
        return Err(HeaderError::Short(following));
    }
    let length = FIXED_BYTES + following;
    if length > max {
        return Err(HeaderError::Long { bytes: length, max });
    }
    let Some(block) = bytes.get(FIXED_BYTES..length) else {
        return Ok(None);
    };
    let source = match family {
        Family::Other => None,
        Family::V4 => socket_address::<4>(block, 8),
        Family::V6 => socket_address::<16>(block, 32),
    };
    Ok(Some(Header { source, length }))
}

/// Decodes the byte of address family (high four bits) and transport (low four bits). Returns the
/// kind of addresses, and the minimum number of bytes of the addresses. Returns `None` if the
/// specification gives the byte no meaning.
///
/// For UDP and Unix sockets, returns [`Family::Other`], because such a client has no TCP address.
/// The specification allows a receiver to treat such a header like a header without an address.
fn family(byte: u8) -> Option<(Family, usize)> {
    match (byte >> 4, byte & 0xf) {
        (0, 0..=2) | (1..=3, 0) => Some((Family::Other, 0)),
        (1, 1) => Some((Family::V4, 12)),
        (1, 2) => Some((Family::Other, 12)),
        (2, 1) => Some((Family::V6, 36)),
        (2, 2) => Some((Family::Other, 36)),
        (3, 1 | 2) => Some((Family::Other, 216)),
        _ => None,
    }
}

/// Reads the source's IP address of `N` bytes at the beginning of `block`, and its port at
/// `port_at`.
fn socket_address<const N: usize>(block: &[u8], port_at: usize) -> Option<SocketAddr>
where
    IpAddr: From<[u8; N]>,
{
    let address: [u8; N] = *block.first_chunk()?;
    let port: [u8; 2] = *block.get(port_at..)?.first_chunk()?;
    let ip = IpAddr::from(address).to_canonical();
    Some(SocketAddr::new(ip, u16::from_be_bytes(port)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    const MAX: usize = 536;

    fn header(source: Option<&str>, length: usize) -> Parsed {
        let source = source.map(|source| source.parse().unwrap());
        Parsed::Header(Header { source, length })
    }

    /// Builds a header of version 2.
    fn binary(version_and_command: u8, family: u8, block: &[u8]) -> Vec<u8> {
        let length = u16::try_from(block.len()).unwrap().to_be_bytes();
        let fixed = [version_and_command, family, length[0], length[1]];
        [SIGNATURE, &fixed, block].concat()
    }

    const V4_BLOCK: [u8; 12] = [192, 0, 2, 9, 198, 51, 100, 1, 0xdc, 0x04, 0x27, 0x10];

    fn v6_block(source: &str) -> Vec<u8> {
        let source: Ipv6Addr = source.parse().unwrap();
        let ports = [0xdc, 0x04, 0x27, 0x10];
        [&source.octets()[..], &[1; 16], &ports].concat()
    }

    #[test]
    fn proxy_version_1_lines_are_parsed_as_specified() {
        for (line, source) in [
            (
                "PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\n",
                Some("192.168.0.1:56324"),
            ),
            (
                "PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n",
                Some("255.255.255.255:65535"),
            ),
            (
                "PROXY TCP6 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n",
                Some("[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535"),
            ),
            (
                "PROXY TCP6 2001:DB8::1 ::1 1 0\r\n",
                Some("[2001:db8::1]:1"),
            ),
            (
                "PROXY TCP6 ::ffff:192.0.2.9 ::1 1 2\r\n",
                Some("192.0.2.9:1"),
            ),
            ("PROXY TCP4 0.0.0.0 0.0.0.0 0 0\r\n", Some("0.0.0.0:0")),
            ("PROXY UNKNOWN\r\n", None),
            (
                "PROXY UNKNOWN ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n",
                None,
            ),
            ("PROXY UNKNOWN any\nthing \r at all\r\n", None),
        ] {
            let whole = header(source, line.len());
            assert_eq!(parse(line.as_bytes(), MAX), whole, "{line:?}");
            let more = format!("{line}IAMAT\r\n");
            assert_eq!(parse(more.as_bytes(), MAX), whole, "{line:?}");
        }
    }

    #[test]
    fn a_malformed_version_1_line_is_rejected() {
        for line in [
            "PROXY \r\n",
            "PROXY TCP4\r\n",
            "PROXY TCP4 192.0.2.9 192.0.2.1 1\r\n",
            "PROXY TCP4 192.0.2.9 192.0.2.1 1 2 3\r\n",
            "PROXY TCP4 192.0.2.9 192.0.2.1 1 2 \r\n",
            "PROXY  TCP4 192.0.2.9 192.0.2.1 1 2\r\n",
            "PROXY TCP4  192.0.2.9 192.0.2.1 1 2\r\n",
            "PROXY\tTCP4 192.0.2.9 192.0.2.1 1 2\r\n",
            "PROXY TCP4 192.0.2.009 192.0.2.1 1 2\r\n",
            "PROXY TCP4 192.0.2 192.0.2.1 1 2\r\n",
            "PROXY TCP4 192.0.2.256 192.0.2.1 1 2\r\n",
            "PROXY TCP4 ::1 ::1 1 2\r\n",
            "PROXY TCP6 192.0.2.9 192.0.2.1 1 2\r\n",
            "PROXY TCP6 ::1 192.0.2.1 1 2\r\n",
            "PROXY TCP4 192.0.2.9 192.0.2.1 01 2\r\n",
            "PROXY TCP4 192.0.2.9 192.0.2.1 +1 2\r\n",
            "PROXY TCP4 192.0.2.9 192.0.2.1 65536 2\r\n",
            "PROXY TCP4 192.0.2.9 192.0.2.1 1 65536\r\n",
            "PROXY TCP4 192.0.2.9 192.0.2.1  2\r\n",
            "PROXY TCP4 192.0.2.9 192.0.2.1 1 2\n",
            "PROXY TCP4 192.0.2.9\n192.0.2.1 1 2\r\n",
            "PROXY TCP5 192.0.2.9 192.0.2.1 1 2\r\n",
            "PROXY UDP4 192.0.2.9 192.0.2.1 1 2\r\n",
            "PROXY tcp4 192.0.2.9 192.0.2.1 1 2\r\n",
            "PROXY UNKNOWNS\r\n",
            "PROXY unknown\r\n",
        ] {
            let parsed = parse(line.as_bytes(), MAX);
            let is_other = line.starts_with("PROXY\t");
            let error = if is_other {
                HeaderError::Absent
            } else {
                HeaderError::Line
            };
            assert_eq!(parsed, Parsed::Invalid(error), "{line:?}");
        }
        let long = format!("PROXY UNKNOWN {}\r\n", "x".repeat(LINE_BYTES - 15));
        assert_eq!(long.len(), LINE_BYTES + 1);
        let too_long = Parsed::Invalid(HeaderError::LongLine);
        assert_eq!(parse(long.as_bytes(), MAX), too_long);
        assert_eq!(parse(&long.as_bytes()[..LINE_BYTES], MAX), too_long);
        assert_eq!(
            parse(&long.as_bytes()[..LINE_BYTES - 1], MAX),
            Parsed::Incomplete
        );
    }

    #[test]
    fn proxy_version_2_headers_are_parsed_as_specified() {
        let tlvs = [&[3, 0, 4, 1, 2, 3, 4][..], &[4, 0, 100], &[0; 100]].concat();
        let v6 = v6_block("2001:db8::9");
        for (bytes, source) in [
            (binary(0x21, 0x11, &V4_BLOCK), Some("192.0.2.9:56324")),
            (
                binary(0x21, 0x11, &[&V4_BLOCK[..], &tlvs].concat()),
                Some("192.0.2.9:56324"),
            ),
            (binary(0x21, 0x21, &v6), Some("[2001:db8::9]:56324")),
            (
                binary(0x21, 0x21, &[&v6[..], &tlvs].concat()),
                Some("[2001:db8::9]:56324"),
            ),
            (
                binary(0x21, 0x21, &v6_block("::ffff:192.0.2.9")),
                Some("192.0.2.9:56324"),
            ),
            // The health check of HAProxy has no addresses. The health check of the AWS load
            // balancer has addresses.
            (binary(0x20, 0x00, &[]), None),
            (binary(0x20, 0x11, &[&V4_BLOCK[..], &tlvs].concat()), None),
            (binary(0x20, 0xff, &[7; 3]), None),
            (binary(0x21, 0x00, &[]), None),
            (binary(0x21, 0x00, &tlvs), None),
            (binary(0x21, 0x10, &V4_BLOCK), None),
            (binary(0x21, 0x12, &V4_BLOCK), None),
            (binary(0x21, 0x22, &v6), None),
            (binary(0x21, 0x31, &[b'/'; 216]), None),
            (binary(0x21, 0x32, &[b'/'; 216]), None),
            (binary(0x21, 0x31, &[b'/'; MAX - FIXED_BYTES]), None),
        ] {
            let whole = header(source, bytes.len());
            assert_eq!(parse(&bytes, MAX), whole, "{}", bytes.escape_ascii());
            let more = [&bytes[..], b"IAMAT\n"].concat();
            assert_eq!(parse(&more, MAX), whole, "{}", bytes.escape_ascii());
        }
    }

    #[test]
    fn a_version_2_error_is_reported_at_its_first_byte() {
        for (bytes, at, error) in [
            (binary(0x11, 0x11, &V4_BLOCK), 12, HeaderError::Version(1)),
            (binary(0x31, 0x11, &V4_BLOCK), 12, HeaderError::Version(3)),
            (binary(0x22, 0x11, &V4_BLOCK), 12, HeaderError::Command(2)),
            (binary(0x21, 0x41, &V4_BLOCK), 13, HeaderError::Family(0x41)),
            (binary(0x21, 0x13, &V4_BLOCK), 13, HeaderError::Family(0x13)),
            (
                binary(0x21, 0x11, &V4_BLOCK[..11]),
                15,
                HeaderError::Short(11),
            ),
            (binary(0x21, 0x21, &V4_BLOCK), 15, HeaderError::Short(12)),
            (binary(0x21, 0x31, &[0; 215]), 15, HeaderError::Short(215)),
            (
                binary(0x21, 0x11, &[0; MAX - FIXED_BYTES + 1]),
                15,
                HeaderError::Long {
                    bytes: MAX + 1,
                    max: MAX,
                },
            ),
            (
                binary(0x20, 0x00, &[0; 65_535]),
                15,
                HeaderError::Long {
                    bytes: 65_551,
                    max: MAX,
                },
            ),
        ] {
            assert_eq!(parse(&bytes[..at], MAX), Parsed::Incomplete);
            assert_eq!(parse(&bytes[..=at], MAX), Parsed::Invalid(error));
            assert_eq!(parse(&bytes, MAX), Parsed::Invalid(error));
        }
    }

    #[test]
    fn other_protocols_are_rejected_at_the_first_wrong_byte() {
        for (bytes, at) in [
            (&b"IAMAT kiwi +1+2 3\n"[..], 0),
            (b"\x16\x03\x01", 0),
            (b"GET / HTTP/1.1\r\n", 0),
            (b"PRI * HTTP/2.0\r\n", 2),
            (b"PROXIES\r\n", 4),
            (b"\n", 0),
            (b"\r\n\r\nIAMAT", 4),
            (b"\r\n\r\n\0\r\nQUIT\r", 11),
        ] {
            assert_eq!(parse(&bytes[..at], MAX), Parsed::Incomplete);
            assert_eq!(
                parse(&bytes[..=at], MAX),
                Parsed::Invalid(HeaderError::Absent),
                "{}",
                bytes.escape_ascii()
            );
        }
    }

    /// Generates bytes that often look like a header, so that parsing often gets past the first
    /// bytes.
    fn bytes() -> impl Strategy<Value = Vec<u8>> {
        let line = "PROXY (TCP4|TCP6|UNKNOWN|UDP4)( [0-9a-f:.]{1,20}){0,6}[ \r\n]{0,3}x{0,120}";
        let parts = (
            0x1fu8..0x23,
            any::<u8>(),
            0u16..600,
            vec(any::<u8>(), 0..600),
        );
        prop_oneof![
            line.prop_map(String::into_bytes),
            parts.prop_map(|(first, second, length, block)| {
                let length = length.to_be_bytes();
                let fixed = [first, second, length[0], length[1]];
                [SIGNATURE, &fixed, &block].concat()
            }),
            vec(any::<u8>(), 0..20),
        ]
    }

    proptest! {
        #[test]
        fn a_header_in_any_pieces_gives_the_same_result(bytes in bytes()) {
            let whole = parse(&bytes, MAX);
            let first = (0..=bytes.len())
                .map(|end| (end, parse(&bytes[..end], MAX)))
                .find(|(_, parsed)| *parsed != Parsed::Incomplete);
            match first {
                None => prop_assert_eq!(whole, Parsed::Incomplete),
                Some((end, parsed)) => {
                    prop_assert_eq!(parsed, whole);
                    if let Parsed::Header(header) = parsed {
                        prop_assert_eq!(header.length, end);
                    }
                }
            }
            prop_assert!(bytes.len() < MAX || whole != Parsed::Incomplete);
        }

        #[test]
        fn every_valid_proxy_header_is_parsed(source: SocketAddr, v4: Ipv4Addr, v6: Ipv6Addr, port: u16, tlvs in vec(any::<u8>(), 0..400)) {
            let (family, destination) = match source {
                SocketAddr::V4(_) => ("TCP4", IpAddr::from(v4)),
                SocketAddr::V6(_) => ("TCP6", IpAddr::from(v6)),
            };
            let line = format!(
                "PROXY {family} {} {destination} {} {port}\r\n", source.ip(), source.port()
            );
            let expected = Some(SocketAddr::new(source.ip().to_canonical(), source.port()));
            let length = line.len();
            prop_assert_eq!(parse(line.as_bytes(), MAX), Parsed::Header(Header { source: expected, length }));
            let octets = |ip: IpAddr| match ip {
                IpAddr::V4(v4) => v4.octets().to_vec(),
                IpAddr::V6(v6) => v6.octets().to_vec(),
            };
            let ports = [source.port().to_be_bytes(), port.to_be_bytes()].concat();
            let block = [octets(source.ip()), octets(destination), ports, tlvs].concat();
            let bytes = binary(0x21, if source.is_ipv4() { 0x11 } else { 0x21 }, &block);
            let length = bytes.len();
            prop_assert_eq!(parse(&bytes, MAX), Parsed::Header(Header { source: expected, length }));
        }
    }
}
