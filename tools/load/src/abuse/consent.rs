//! The servers that may be attacked: those on this machine or in a private network, and others only
//! with the owner's consent.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs};

use herd_mio::core::base::settings::HostPort;
use herd_testkit::failure::Failure;

/// Looks up an address, and checks that it may be attacked. The attack connects to the result
/// without another look-up, so a name cannot lead to another address later.
///
/// # Errors
/// The name has no address, or one of its addresses may not be attacked.
pub(crate) fn resolve(place: &HostPort, is_owned: bool) -> Result<SocketAddr, Failure> {
    let found = (place.host.as_str(), place.port).to_socket_addrs();
    let found: Vec<SocketAddr> = found
        .map_err(|error| Failure::Failed(format!("cannot look up {place}: {error}")))?
        .collect();
    for address in &found {
        if !is_owned && !is_near(address.ip()) {
            return Err(Failure::Usage(format!(
                "{place} ({}) is neither a loopback nor a private address, and abuse is an attack; run it only against your own server, and confirm that with --i-own-this-server",
                address.ip()
            )));
        }
    }
    let nowhere = || Failure::Failed(format!("{place} has no address"));
    // A server listens on IPv4 more often than on IPv6, and a name may have both.
    let v4 = found.iter().find(|address| address.is_ipv4());
    v4.or(found.first()).copied().ok_or_else(nowhere)
}

/// Whether an address belongs to this machine, to its network segment, or to a private network.
/// Such an address does not lead to a machine on the internet. (RFC 1918, 3927, 4193, 4291; not RFC
/// 6598, because a provider gives those addresses to its customers.)
fn is_near(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => v4.is_loopback() || v4.is_private() || v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unique_local() || v6.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_local_addresses_are_attacked_without_consent() {
        for near in [
            "127.0.0.1",
            "127.9.9.9",
            "10.1.2.3",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.1.1",
            "169.254.1.1",
            "::1",
            "fd00::1",
            "fe80::1",
            "::ffff:10.0.0.1",
        ] {
            assert!(is_near(near.parse().unwrap()), "{near}");
        }
        for far in [
            "0.0.0.0",
            "8.8.8.8",
            "172.15.0.1",
            "172.32.0.1",
            "192.169.0.1",
            "100.64.0.1",
            "192.0.2.1",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "2001:db8::1",
            "ff02::1",
            "::ffff:8.8.8.8",
            "64:ff9b::808:808",
        ] {
            assert!(!is_near(far.parse().unwrap()), "{far}");
        }
    }

    #[test]
    fn a_public_address_needs_i_own_this_server() {
        let place = HostPort {
            host: "192.0.2.7".into(),
            port: 10_000,
        };
        let Err(Failure::Usage(what)) = resolve(&place, false) else {
            panic!("it is attacked");
        };
        assert!(what.contains("--i-own-this-server"), "{what}");
        assert_eq!(
            resolve(&place, true),
            Ok("192.0.2.7:10000".parse().unwrap())
        );
    }
}
