//! Checks the `Host` of a request, against DNS rebinding.
//!
//! In DNS rebinding, an attacker changes the address of a web page's host name to 127.0.0.1. Then a
//! browser treats this port as the page's own origin, and the page can read every answer. The
//! browser sends the page's host name in `Host`. So a request with an unknown name is refused.
//!
//! An IP address in `Host` needs no DNS, so DNS rebinding cannot use it. A port that other machines
//! may reach (`HttpSettings::is_exposed`) accepts every IP address, because health checks use the
//! address of a container or of a port mapping, which this server does not know.

use std::net::{IpAddr, Ipv6Addr};

use crate::core::base::settings::HttpSettings;

/// Whether a request with this `Host` is for this server. The port number in `Host` can be any: a
/// tunnel changes this number.
///
/// ```
/// use herd_mio::core::base::settings::{HostPort, HttpSettings};
/// use herd_mio::core::http::host::is_ours;
///
/// let listen = HostPort { host: "127.0.0.1".into(), port: 9100 };
/// let http = HttpSettings { listen, is_exposed: false, hosts: vec!["riley.example".into()] };
/// assert!(is_ours("localhost:9100", &http) && is_ours("Riley.example", &http));
/// assert!(!is_ours("evil.example:9100", &http) && !is_ours("192.0.2.1", &http));
/// ```
#[must_use]
pub fn is_ours(host: &str, http: &HttpSettings) -> bool {
    let Some(host) = without_port(host) else {
        return false;
    };
    if let Some(address) = address(host) {
        let is_listened_on = address_of(&http.listen.host) == Some(address);
        return http.is_exposed || is_listened_on || address.is_loopback();
    }
    let names = ["localhost", &http.listen.host].into_iter();
    let mut names = names.chain(http.hosts.iter().map(String::as_str));
    names.any(|name| name.eq_ignore_ascii_case(host))
}

/// Returns the host without `:port`. `None` if the text after the colon is not a port number.
fn without_port(host: &str) -> Option<&str> {
    let after_address = host.rfind(']').map_or(0, |at| at + 1);
    match host[after_address..].find(':') {
        None => Some(host),
        Some(colon) => {
            let (host, port) = host.split_at(after_address + colon);
            let is_port = port.len() <= 6 && port[1..].bytes().all(|byte| byte.is_ascii_digit());
            is_port.then_some(host)
        }
    }
}

/// Returns the IP address in `Host`. `None` if the host is a name. An IPv6 address is in brackets.
fn address(host: &str) -> Option<IpAddr> {
    let v6 = host.strip_prefix('[').and_then(|it| it.strip_suffix(']'));
    match v6 {
        Some(v6) => Some(v6.parse::<Ipv6Addr>().ok()?.to_canonical()),
        None => host.parse::<std::net::Ipv4Addr>().ok().map(IpAddr::V4),
    }
}

/// Returns the IP address that the port listens on. `None` if the configuration has a host name.
fn address_of(host: &str) -> Option<IpAddr> {
    host.parse()
        .ok()
        .map(|address: IpAddr| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::base::settings::HostPort;

    fn http(host: &str, is_exposed: bool) -> HttpSettings {
        HttpSettings {
            listen: HostPort {
                host: host.into(),
                port: 9100,
            },
            is_exposed,
            hosts: vec!["riley.example".into()],
        }
    }

    #[test]
    fn only_our_own_hosts_are_served() {
        let loopback = http("::1", false);
        for ours in [
            "localhost",
            "LOCALHOST:1",
            "127.0.0.1:9100",
            "127.0.0.1",
            "[::1]:9100",
            "[::1]",
            "riley.example",
            "riley.example:80",
            "localhost:",
        ] {
            assert!(is_ours(ours, &loopback), "{ours}");
        }
        for other in [
            "",
            "evil.example",
            "localhost.evil.example",
            "127.0.0.1.nip.io",
            "192.0.2.1",
            "[::2]:9100",
            "::1",
            "localhost:80:80",
            "localhost:http",
            "a@localhost",
            "[::1",
            "0.0.0.0",
            "127.1",
            "2130706433",
            "localhost.",
            "localhost:999999",
        ] {
            assert!(!is_ours(other, &loopback), "{other}");
        }
    }

    #[test]
    fn an_exposed_port_accepts_every_address_and_no_other_name() {
        let exposed = http("0.0.0.0", true);
        // A kubelet sends the pod's address.
        assert!(is_ours("10.244.0.5:8000", &exposed) && is_ours("[fd00::5]:8000", &exposed));
        assert!(!is_ours("evil.example:8000", &exposed));
    }
}
