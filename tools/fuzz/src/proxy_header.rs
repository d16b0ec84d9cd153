//! Headers of the PROXY protocol.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use herd_mio::core::base::limits::Limits;
use herd_mio::core::client::proxied::Proxied;
use herd_mio::core::wire::proxy_header::{Header, Parsed, is_header, parse};

/// The least that `limits.proxy_header_bytes` may be.
const MOST: usize = 232;

/// One byte says in pieces of how many bytes the rest comes. The header that is found, if one is,
/// has to be the one that the specification has there; each piece of it has to leave the answer
/// open, and what follows it has to be left for the client.
pub fn proxy_header(data: &[u8]) {
    let Some((&step, bytes)) = data.split_first() else {
        return;
    };
    let parsed = parse(bytes, MOST);
    let expected = version_1(bytes).or_else(|| version_2(bytes));
    match parsed {
        Parsed::Header(header) => assert_eq!(Some(header), expected),
        Parsed::Incomplete => {
            assert!(expected.is_none() && bytes.len() < MOST);
        }
        Parsed::Invalid(error) => {
            assert_eq!(expected, None, "{error}");
            assert!(error.to_string().is_ascii());
        }
    }
    for end in 0..bytes.len().min(MOST + 8) {
        let part = parse(&bytes[..end], MOST);
        let is_whole = matches!(expected, Some(header) if header.length <= end);
        assert!(part == Parsed::Incomplete || part == parsed, "{end}");
        assert_eq!(matches!(part, Parsed::Header(_)), is_whole, "{end}");
    }
    if expected.is_some() && !bytes.starts_with(b"PROXY UNKNOWN") {
        assert!(is_header(bytes));
    }
    in_pieces(bytes, usize::from(step) + 1, parsed);
}

/// The session finds the same, and as much of it.
fn in_pieces(bytes: &[u8], step: usize, parsed: Parsed) {
    let limits = Limits {
        proxy_header_bytes: MOST as u64,
        ..Limits::default()
    };
    let mut proxied = Proxied::new(SocketAddr::from(([10, 0, 0, 2], 1)));
    let mut before = 0;
    for piece in bytes.chunks(step) {
        match proxied.receive(piece, &limits) {
            Ok(None) => before += piece.len(),
            Ok(Some((header, used))) => {
                assert_eq!(parsed, Parsed::Header(header));
                assert_eq!(before + used, header.length);
                return;
            }
            Err(_) => {
                assert!(matches!(parsed, Parsed::Invalid(_)));
                return;
            }
        }
    }
    assert_eq!(parsed, Parsed::Incomplete);
}

/// A header of version 1, by its grammar.
fn version_1(bytes: &[u8]) -> Option<Header> {
    let start = &bytes[..bytes.len().min(107)];
    let at = (1..start.len()).find(|&at| start[at - 1] == b'\r' && start[at] == b'\n')?;
    let (line, length) = (&start[..at - 1], at + 1);
    let words: Vec<&[u8]> = line.split(|&byte| byte == b' ').collect();
    if words.first() != Some(&&b"PROXY"[..]) {
        return None;
    }
    let source = match (*words.get(1)?, words.len()) {
        (b"UNKNOWN", _) => None,
        (b"TCP4", 6) => {
            v4(words[3])?;
            Some(IpAddr::V4(v4(words[2])?))
        }
        (b"TCP6", 6) => {
            v6(words[3])?;
            Some(IpAddr::V6(v6(words[2])?))
        }
        _ => return None,
    };
    let source = match source {
        None => None,
        Some(ip) => {
            number(words[5], 65_535)?;
            Some(plain(ip, number(words[4], 65_535)? as u16))
        }
    };
    Some(Header { source, length })
}

/// Decimal, without leading zeros.
fn number(digits: &[u8], most: u32) -> Option<u32> {
    let text = String::from_utf8(digits.to_vec()).ok()?;
    let number: u32 = text.parse().ok()?;
    (number.to_string() == text && number <= most).then_some(number)
}

fn v4(text: &[u8]) -> Option<Ipv4Addr> {
    let parts: Vec<&[u8]> = text.split(|&byte| byte == b'.').collect();
    let [a, b, c, d] = parts[..] else {
        return None;
    };
    let octet = |digits| number(digits, 255).map(|octet| octet as u8);
    Some(Ipv4Addr::new(octet(a)?, octet(b)?, octet(c)?, octet(d)?))
}

/// The standard library knows all the ways to write one.
fn v6(text: &[u8]) -> Option<Ipv6Addr> {
    String::from_utf8(text.to_vec()).ok()?.parse().ok()
}

/// A header of version 2, byte by byte.
fn version_2(bytes: &[u8]) -> Option<Header> {
    let signature: Vec<u8> = [0x0d0a_0d0a_u32, 0x000d_0a51, 0x5549_540a]
        .iter()
        .flat_map(|word| word.to_be_bytes())
        .collect();
    if bytes.len() < 16 || bytes[..12] != signature {
        return None;
    }
    let length = 16 + 256 * usize::from(bytes[14]) + usize::from(bytes[15]);
    if length > MOST || bytes.len() < length {
        return None;
    }
    let none = Header {
        source: None,
        length,
    };
    let needs = match (bytes[12], bytes[13]) {
        (0x20, _) | (0x21, 0x00..=0x02 | 0x10 | 0x20 | 0x30) => return Some(none),
        (0x21, 0x11 | 0x12) => 12,
        (0x21, 0x21 | 0x22) => 36,
        (0x21, 0x31 | 0x32) => 216,
        _ => return None,
    };
    if length < 16 + needs {
        return None;
    }
    let port = |at: usize| 256 * u16::from(bytes[at]) + u16::from(bytes[at + 1]);
    let source = match bytes[13] {
        0x11 => {
            let octets: [u8; 4] = *bytes[16..].first_chunk()?;
            plain(octets.into(), port(24))
        }
        0x21 => {
            let octets: [u8; 16] = *bytes[16..].first_chunk()?;
            plain(octets.into(), port(48))
        }
        _ => return Some(none),
    };
    Some(Header {
        source: Some(source),
        length,
    })
}

/// One form for each address.
fn plain(ip: IpAddr, port: u16) -> SocketAddr {
    let mapped = match ip {
        IpAddr::V6(v6) => v6.to_ipv4_mapped(),
        IpAddr::V4(_) => None,
    };
    SocketAddr::new(mapped.map_or(ip, IpAddr::V4), port)
}
