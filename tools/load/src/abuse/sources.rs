//! The source addresses of connections.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use herd_testkit::failure::Failure;

use crate::dial::bound_to;

/// The greatest number of addresses.
const MAX_SOURCES: usize = 65_536;

/// Addresses, in the order of the option. If it is empty, the system chooses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sources {
    text: String,
    addresses: Vec<IpAddr>,
}

impl Sources {
    /// Parses addresses and ranges of them, joined by commas.
    pub(crate) fn parse(text: &str) -> Result<Sources, String> {
        let mut addresses = Vec::new();
        for part in text.split(',').filter(|_| !text.is_empty()) {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last) = (address(first)?, address(last)?);
            let range = range(first, last).ok_or_else(|| {
                format!(
                    "{part} is not a range; give two addresses of one family, the lower one first"
                )
            })?;
            let room = MAX_SOURCES - addresses.len();
            addresses.extend(range.take(room + 1));
            if addresses.len() > MAX_SOURCES {
                return Err(format!("there are more than {MAX_SOURCES} addresses"));
            }
        }
        Ok(Sources {
            text: text.to_owned(),
            addresses,
        })
    }

    /// Parses one address.
    pub(crate) fn parse_one(text: &str) -> Result<Sources, String> {
        let sources = Sources::parse(text)?;
        match sources.addresses.len() {
            0 | 1 => Ok(sources),
            _ => Err("it must be one address".to_owned()),
        }
    }

    /// One address.
    pub(crate) fn of(address: IpAddr) -> Sources {
        Sources {
            text: address.to_string(),
            addresses: vec![address],
        }
    }

    /// The addresses.
    pub(crate) fn addresses(&self) -> &[IpAddr] {
        &self.addresses
    }

    /// Whether both have an address in common.
    pub(crate) fn share_one_with(&self, other: &Sources) -> bool {
        match (self.addresses.as_slice(), other.addresses.as_slice()) {
            ([], []) => true,
            (own, others) => own.iter().any(|address| others.contains(address)),
        }
    }

    /// Checks that this machine can connect from each of them to `server`.
    ///
    /// # Errors
    /// This machine does not have the address, or the address is of the other family.
    pub(crate) fn check(&self, option: &str, server: SocketAddr) -> Result<(), Failure> {
        for &source in &self.addresses {
            if source.is_ipv4() != server.is_ipv4() {
                let family = if server.is_ipv4() { 4 } else { 6 };
                return Err(Failure::Usage(format!(
                    "{option} {source}: the server's address is {}, so give an IPv{family} address",
                    server.ip()
                )));
            }
            if source.is_loopback() != server.ip().is_loopback() {
                return Err(Failure::Usage(format!(
                    "{option} {source}: there is no route from this address to {}; give an address of the server's network",
                    server.ip()
                )));
            }
            bound_to(source).map_err(|error| {
                Failure::Usage(format!(
                    "{option} {source}: this machine cannot connect from this address ({error}); give an address of this machine, or add this one with: ip address add {source} dev DEVICE"
                ))
            })?;
        }
        Ok(())
    }
}

impl fmt::Display for Sources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.text.as_str() {
            "" => f.write_str("addresses that the system chooses"),
            text => f.write_str(text),
        }
    }
}

fn address(text: &str) -> Result<IpAddr, String> {
    text.parse()
        .map_err(|_| format!("{text:?} is not an IP address; give one such as 127.0.1.1, or a range such as 127.0.1.1-127.0.1.100"))
}

/// The addresses from `first` to `last`.
fn range(first: IpAddr, last: IpAddr) -> Option<Box<dyn Iterator<Item = IpAddr>>> {
    match (first, last) {
        (IpAddr::V4(first), IpAddr::V4(last)) if first <= last => {
            Some(Box::new((first..=last).map(IpAddr::V4)))
        }
        (IpAddr::V6(first), IpAddr::V6(last)) if first <= last => {
            Some(Box::new((first..=last).map(IpAddr::V6)))
        }
        (IpAddr::V4(_) | IpAddr::V6(_), _) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Vec<String> {
        let sources = Sources::parse(text).unwrap();
        sources.addresses.iter().map(IpAddr::to_string).collect()
    }

    #[test]
    fn source_addresses_and_ranges_are_expanded_in_order() {
        assert!(parsed("").is_empty());
        assert_eq!(parsed("127.0.0.9"), ["127.0.0.9"]);
        assert_eq!(
            parsed("127.0.0.255-127.0.1.1,127.0.0.2"),
            ["127.0.0.255", "127.0.1.0", "127.0.1.1", "127.0.0.2"]
        );
        assert_eq!(
            parsed("fd00::f-fd00::11"),
            ["fd00::f", "fd00::10", "fd00::11"]
        );
        assert_eq!(parsed("127.0.0.0-127.0.255.255").len(), 65_536);
    }

    #[test]
    fn invalid_source_addresses_are_explained() {
        let mistake = |text: &str| Sources::parse(text).unwrap_err();
        for text in [",", "127.0.0.1,", "here", "127.0.0.1/24", "-"] {
            assert!(mistake(text).contains("is not an IP address"), "{text}");
        }
        for text in ["127.0.0.2-127.0.0.1", "127.0.0.1-::1"] {
            assert!(mistake(text).contains("is not a range"), "{text}");
        }
        let all = "::-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff";
        assert!(mistake(all).contains("more than 65536"));
        assert!(mistake(&format!("127.0.0.0-127.0.255.255,{all}")).contains("more than 65536"));
        assert!(Sources::parse_one("127.0.0.1-127.0.0.2").is_err());
    }

    #[test]
    fn an_unavailable_source_address_is_a_usage_error() {
        let check = |text: &str, server: &str| {
            let sources = Sources::parse(text).unwrap();
            sources.check("--from", server.parse().unwrap())
        };
        assert_eq!(check("127.0.0.1", "127.0.0.1:1"), Ok(()));
        for (text, server, part) in [
            (
                "192.0.2.1",
                "10.0.0.1:1",
                "this machine cannot connect from this address",
            ),
            ("127.0.0.1", "[::1]:1", "give an IPv6 address"),
            (
                "127.0.0.1",
                "10.0.0.1:1",
                "there is no route from this address",
            ),
        ] {
            let Err(Failure::Usage(what)) = check(text, server) else {
                panic!("{text} is accepted");
            };
            assert!(what.contains(part), "{what}");
        }
    }
}
