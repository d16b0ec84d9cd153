//! Parses addresses in a config file or on the command line.

use std::net::IpAddr;

use super::ConfigError;
use super::redact::{redact, redact_url};
use crate::core::base::settings::HostPort;

/// Parses `host:port` or `[v6]:port`. `setting` names the place of the text (a key of the config
/// file or a flag), for the error message.
///
/// # Errors
/// The text has another form.
pub fn address(text: &str, setting: &str) -> Result<HostPort, ConfigError> {
    let error = || {
        ConfigError(format!(
            "{setting} is {:?}; it must be host:port, such as 127.0.0.1:10000 or [::1]:10000",
            redact(text)
        ))
    };
    let (host, port) = text.rsplit_once(':').ok_or_else(error)?;
    let port = Some(port)
        .filter(|port| port.bytes().all(|byte| byte.is_ascii_digit()))
        .and_then(|port| port.parse().ok())
        .ok_or_else(error)?;
    let host = match host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
    {
        Some(v6) if v6.parse::<std::net::Ipv6Addr>().is_ok() => v6,
        Some(_) => return Err(error()),
        None if host.contains([':', '[', ']']) => return Err(error()),
        None => host,
    };
    let name = host
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || b".-_:".contains(&byte));
    if host.is_empty() || !name {
        Err(error())
    } else {
        Ok(HostPort {
            host: host.into(),
            port,
        })
    }
}

/// Parses `https://host[:port]`, the URL of Google Places or of a test server. A URL with a path is
/// refused, because the API determines the path.
pub(super) fn origin(url: &str) -> Result<HostPort, ConfigError> {
    let error = || {
        ConfigError(format!(
            "the Places URL {:?} (--places-url, HERD_PLACES_URL) must be https://host or https://host:port, without a path",
            redact_url(url)
        ))
    };
    let rest = url.strip_prefix("https://").ok_or_else(error)?;
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    let has_port = rest
        .rsplit_once(':')
        .is_some_and(|(host, _)| !host.contains(':') || host.ends_with(']'));
    let with_port = if has_port {
        rest.to_owned()
    } else {
        format!("{rest}:443")
    };
    address(&with_port, "the Places URL")
        .ok()
        .filter(|origin| origin.port != 0)
        .ok_or_else(error)
}

/// Whether `host` is a loopback address or `localhost`, so that only this machine can reach it.
pub(super) fn is_loopback(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost")
        || host
            .parse::<IpAddr>()
            .is_ok_and(|ip| ip.to_canonical().is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_origins_are_parsed() {
        let good = |text: &str| address(text, "x").map(|a| a.to_string()).ok();
        assert_eq!(good("localhost:0").as_deref(), Some("localhost:0"));
        assert_eq!(good("[::1]:80").as_deref(), Some("[::1]:80"));
        for bad in [
            "", "a", ":1", "a:", "a:65536", "a:+1", "::1:80", "[a]:1", "a b:1",
        ] {
            assert_eq!(good(bad), None, "{bad}");
        }
        let origin = |url: &str| origin(url).map(|o| o.to_string()).ok();
        assert_eq!(
            origin("https://maps.googleapis.com").as_deref(),
            Some("maps.googleapis.com:443")
        );
        assert_eq!(origin("https://[::1]/").as_deref(), Some("[::1]:443"));
        assert_eq!(
            origin("https://localhost:8443/").as_deref(),
            Some("localhost:8443")
        );
        for bad in [
            "http://a",
            "a",
            "https://",
            "https://a/b",
            "https://a:0",
            "https://u@a",
            "https://a?b",
        ] {
            assert_eq!(origin(bad), None, "{bad}");
        }
    }
}
