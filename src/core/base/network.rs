//! Addresses and networks that are listed: which peers are meant, and how one is written.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// An address, or all addresses that share its first bits (CIDR, RFC 4632; of IPv6, RFC 4291
/// section 2.3). One that IPv6 maps from IPv4 is the IPv4 one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    first: IpAddr,
    /// Bits, of 32 or of 128.
    prefix: u32,
}

/// Why a text is no network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NetworkError {
    /// It is not an address, or an address, a slash and a length.
    Form,
    /// The length is more than the address has bits.
    Prefix {
        /// How many it has.
        most: u32,
    },
    /// The address is not the first one of its network, which is this.
    NotFirst(Network),
}

impl fmt::Display for NetworkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NetworkError::Form => f.write_str(
                "it must be an address or a network, such as 10.0.0.2, 10.0.0.0/8 or fd00::/8",
            ),
            NetworkError::Prefix { most } => {
                write!(f, "the length behind its slash must be 0 to {most}")
            }
            NetworkError::NotFirst(network) => write!(
                f,
                "it has bits set behind its prefix; write {network} for the network, or the address alone for one host"
            ),
        }
    }
}

impl Network {
    /// The network of `address` with this prefix, which has to be one that the address can have.
    fn of(address: IpAddr, prefix: u32) -> Network {
        // A shift by all bits is no shift.
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

    /// Whether `address` is in it. An IPv4 address is in no IPv6 network, however it is written.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        address.is_ipv4() == self.first.is_ipv4()
            && Network::of(address, self.prefix).first == self.first
    }

    /// Whether every address of its family is in it.
    #[must_use]
    pub fn is_everything(&self) -> bool {
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
        let most = if address.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix {
            None => most,
            Some(digits) if is_number(digits) => match digits.parse() {
                Ok(prefix) if prefix <= most => prefix,
                Ok(_) | Err(_) => return Err(NetworkError::Prefix { most }),
            },
            Some(_) => return Err(NetworkError::Form),
        };
        // ::ffff:10.0.0.0/104 is 10.0.0.0/8.
        let (address, prefix) = match address.to_canonical() {
            v4 @ IpAddr::V4(_) if most == 128 && prefix >= 96 => (v4, prefix - 96),
            _ => (address, prefix),
        };
        let network = Network::of(address, prefix);
        if network.first == address {
            Ok(network)
        } else {
            Err(NetworkError::NotFirst(network))
        }
    }
}

fn is_number(digits: &str) -> bool {
    !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let most = if self.first.is_ipv4() { 32 } else { 128 };
        if self.prefix == most {
            write!(f, "{}", self.first)
        } else {
            write!(f, "{}/{}", self.first, self.prefix)
        }
    }
}

/// Addresses and networks; empty, it has no address in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Networks(pub Vec<Network>);

impl Networks {
    /// Whether one of them has `address` in it.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(address))
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Display for Networks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, network) in self.0.iter().enumerate() {
            let comma = if place == 0 { "" } else { ", " };
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
    fn one_address_and_all_of_a_network_are_in_it() {
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
    fn what_is_wrong_is_said() {
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
        assert_eq!(wrong("10.0.0.0/33"), NetworkError::Prefix { most: 32 });
        assert_eq!(
            wrong("10.0.0.0/99999999999"),
            NetworkError::Prefix { most: 32 }
        );
        assert_eq!(wrong("::/129"), NetworkError::Prefix { most: 128 });
        assert_eq!(
            wrong("10.0.0.1/8"),
            NetworkError::NotFirst(network("10.0.0.0/8"))
        );
        assert_eq!(
            wrong("::ffff:10.0.0.1/104"),
            NetworkError::NotFirst(network("10.0.0.0/8"))
        );
    }

    proptest! {
        #[test]
        fn a_network_is_read_as_it_is_written(address: IpAddr, prefix in 0u32..=128) {
            let address = address.to_canonical();
            let prefix = prefix.min(if address.is_ipv4() { 32 } else { 128 });
            let network = Network::of(address, prefix);
            prop_assert!(network.contains(address));
            // The first address of a short prefix may be one that IPv6 maps.
            if network.first.to_canonical() == network.first {
                prop_assert_eq!(network.to_string().parse(), Ok(network));
            }
        }
    }
}
