//! Addresses and networks in a configuration list: how they are written, and which addresses they
//! contain.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// One address, or all addresses that share its first bits. The notation is CIDR: RFC 4632 for
/// IPv4, RFC 4291 section 2.3 for IPv6. An IPv4-mapped IPv6 address, such as `::ffff:10.0.0.1`, is
/// treated as the IPv4 address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    first: IpAddr,
    /// The length of the prefix in bits: at most 32 for IPv4, at most 128 for IPv6.
    prefix: u32,
}

/// Why a text cannot be parsed as a [`Network`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NetworkError {
    /// The text is neither an address nor an address, a slash and a prefix length.
    Form,
    /// The prefix length is larger than the number of bits in the address.
    Prefix {
        /// The number of bits in the address: 32 or 128.
        max: u32,
    },
    /// The address has bits set after its prefix. The field is the network without these bits.
    HostBitsSet(Network),
}

impl fmt::Display for NetworkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NetworkError::Form => f.write_str(
                "it must be an address or a network, such as 10.0.0.2, 10.0.0.0/8 or fd00::/8",
            ),
            NetworkError::Prefix { max } => {
                write!(f, "the length behind its slash must be 0 to {max}")
            }
            NetworkError::HostBitsSet(network) => write!(
                f,
                "it has bits set behind its prefix; write {network} for the network, or the address alone for one host"
            ),
        }
    }
}

impl Network {
    /// Returns the network of `address` with this prefix length. `prefix` is at most the number of
    /// bits in `address`.
    fn of(address: IpAddr, prefix: u32) -> Network {
        // `checked_shl` returns `None` for a shift by all 32 or 128 bits. In this case the prefix
        // is 0, and so is the mask.
        let first = match address {
            IpAddr::V4(v4) => {
                let mask = u32::MAX.checked_shl(32 - prefix).unwrap_or(0);
                Ipv4Addr::from_bits(v4.to_bits() & mask).into()
            }
            IpAddr::V6(v6) => {
                let mask = u128::MAX.checked_shl(128 - prefix).unwrap_or(0);
                Ipv6Addr::from_bits(v6.to_bits() & mask).into()
            }
        };
        Network { first, prefix }
    }

    /// Whether the network contains `address`. An IPv4-mapped IPv6 address counts as the IPv4
    /// address. An IPv4 address is never in an IPv6 network.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        address.is_ipv4() == self.first.is_ipv4()
            && Network::of(address, self.prefix).first == self.first
    }

    /// Whether the network contains every address of its family: `0.0.0.0/0` or `::/0`.
    #[must_use]
    pub fn contains_every_address(&self) -> bool {
        self.prefix == 0
    }
}

impl FromStr for Network {
    type Err = NetworkError;

    /// Reads `10.0.0.2`, `10.0.0.0/8`, `fd00::1` or `fd00::/8`.
    ///
    /// ```
    /// use herd_mio::core::base::network::Network;
    ///
    /// let office: Network = "10.0.0.0/8".parse()?;
    /// assert!(office.contains("10.1.2.3".parse().unwrap()));
    /// assert!(office.contains("::ffff:10.1.2.3".parse().unwrap()));
    /// assert!(!office.contains("11.1.2.3".parse().unwrap()));
    /// # Ok::<(), herd_mio::core::base::network::NetworkError>(())
    /// ```
    fn from_str(text: &str) -> Result<Network, NetworkError> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| NetworkError::Form)?;
        let max = if address.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix {
            None => max,
            Some(digits) if is_number(digits) => match digits.parse() {
                Ok(prefix) if prefix <= max => prefix,
                Ok(_) | Err(_) => return Err(NetworkError::Prefix { max }),
            },
            Some(_) => return Err(NetworkError::Form),
        };
        // `::ffff:10.0.0.0/104` is the same network as `10.0.0.0/8`.
        let (address, prefix) = match address.to_canonical() {
            v4 @ IpAddr::V4(_) if max == 128 && prefix >= 96 => (v4, prefix - 96),
            _ => (address, prefix),
        };
        let network = Network::of(address, prefix);
        if network.first == address {
            Ok(network)
        } else {
            Err(NetworkError::HostBitsSet(network))
        }
    }
}

fn is_number(digits: &str) -> bool {
    !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let max = if self.first.is_ipv4() { 32 } else { 128 };
        if self.prefix == max {
            write!(f, "{}", self.first)
        } else {
            write!(f, "{}/{}", self.first, self.prefix)
        }
    }
}

/// A list of addresses and networks. An empty list contains no address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Networks(pub Vec<Network>);

impl Networks {
    /// Whether one of the networks contains `address`.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(address))
    }

    /// Whether the list is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Display for Networks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, network) in self.0.iter().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            write!(f, "{comma}{network}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn network(text: &str) -> Network {
        text.parse().unwrap()
    }

    #[test]
    fn a_network_contains_its_addresses_only() {
        for (text, inside, outside) in [
            ("127.0.0.1", "127.0.0.1", "127.0.0.2"),
            ("10.0.0.0/8", "10.255.255.255", "11.0.0.0"),
            ("192.0.2.128/25", "192.0.2.255", "192.0.2.127"),
            ("0.0.0.0/0", "255.255.255.255", "::1"),
            ("::/0", "2001:db8::1", "192.0.2.1"),
            ("fd00::/8", "fdff::1", "fe00::1"),
            ("2001:db8::/33", "2001:db8:7fff::1", "2001:db8:8000::1"),
            ("::1", "::1", "::2"),
            ("::ffff:10.0.0.0/104", "10.9.9.9", "11.0.0.0"),
            ("::ffff:192.0.2.1", "192.0.2.1", "192.0.2.2"),
            ("192.0.2.1", "::ffff:192.0.2.1", "::192.0.2.1"),
        ] {
            let network = network(text);
            assert!(network.contains(inside.parse().unwrap()), "{inside} {text}");
            assert!(
                !network.contains(outside.parse().unwrap()),
                "{outside} {text}"
            );
        }
    }

    #[test]
    fn invalid_networks_give_the_right_error() {
        let wrong = |text: &str| text.parse::<Network>().unwrap_err();
        for text in [
            "",
            "proxy.example",
            "10.0.0",
            "10.0.0.1:80",
            "[::1]",
            "10.0.0.0/",
            "10.0.0.0/+8",
            "10.0.0.0/255.0.0.0",
            "010.0.0.1",
            " 10.0.0.1",
            "fe80::1%eth0",
            "10.0.0.0/8/8",
        ] {
            assert_eq!(wrong(text), NetworkError::Form, "{text:?}");
        }
        assert_eq!(wrong("10.0.0.0/33"), NetworkError::Prefix { max: 32 });
        assert_eq!(
            wrong("10.0.0.0/99999999999"),
            NetworkError::Prefix { max: 32 }
        );
        assert_eq!(wrong("::/129"), NetworkError::Prefix { max: 128 });
        assert_eq!(
            wrong("10.0.0.1/8"),
            NetworkError::HostBitsSet(network("10.0.0.0/8"))
        );
        assert_eq!(
            wrong("::ffff:10.0.0.1/104"),
            NetworkError::HostBitsSet(network("10.0.0.0/8"))
        );
    }

    proptest! {
        #[test]
        fn a_network_survives_display_and_parse(address: IpAddr, prefix in 0u32..=128) {
            let address = address.to_canonical();
            let prefix = prefix.min(if address.is_ipv4() { 32 } else { 128 });
            let network = Network::of(address, prefix);
            prop_assert!(network.contains(address));
            // A network whose first address is IPv4-mapped is skipped: its text is read as an IPv4
            // network.
            if network.first.to_canonical() == network.first {
                prop_assert_eq!(network.to_string().parse(), Ok(network));
            }
        }
    }
}
