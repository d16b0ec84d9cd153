//! Which proxies may send the addresses of their clients in a PROXY header (`[clients]` in the
//! config file).
//!
//! `proxy_protocol` is a flag, and `proxies` lists addresses, as in nginx and MySQL. One of these
//! keys without the other is an error at the start of the server. Otherwise the operator would
//! notice the mistake late: the server would read each PROXY header as an invalid command, and
//! count all clients under the proxy's address.

use super::{ConfigError, HerdConfig, Overrides, invalid};
use crate::config::redact::redact;
use crate::core::base::network::{Network, Networks};

impl HerdConfig {
    /// Returns the networks of the proxies that may send a PROXY header. Empty if `proxy_protocol`
    /// is false or not set.
    ///
    /// # Errors
    /// An address is invalid; or `proxy_protocol` is true and `proxies` is empty; or `proxies` is
    /// not empty and `proxy_protocol` is not set.
    pub(super) fn proxies(&self, overrides: &Overrides) -> Result<Networks, ConfigError> {
        let (texts, setting): (Vec<&str>, _) =
            match (&overrides.proxies, &self.file.clients.proxies) {
                (Some(text), _) => (
                    text.split(',').map(str::trim).collect(),
                    "the proxies (--proxies, HERD_PROXIES)".to_owned(),
                ),
                (None, Some(list)) => (
                    list.iter().map(String::as_str).collect(),
                    format!("{}: clients.proxies", self.title),
                ),
                (None, None) => (Vec::new(), String::new()),
            };
        let mut proxies = Networks::default();
        for text in texts {
            match text.parse::<Network>() {
                Ok(network) => proxies.0.push(network),
                Err(error) => {
                    return invalid(format!("{setting}: {:?}: {error}", redact(text)));
                }
            }
        }
        let is_enabled = overrides
            .proxy_protocol
            .or(self.file.clients.proxy_protocol);
        match is_enabled {
            Some(true) if proxies.is_empty() => invalid(
                "clients.proxy_protocol is on, and clients.proxies is empty; list the addresses or networks of the proxies there (--proxies, HERD_PROXIES)",
            ),
            Some(true) => Ok(proxies),
            Some(false) => Ok(Networks::default()),
            None if proxies.is_empty() => Ok(proxies),
            None => invalid(
                "clients.proxies lists proxies, and clients.proxy_protocol is not set; set it to true to take the client's address from their PROXY header, or to false (--proxy-protocol, HERD_PROXY_PROTOCOL)",
            ),
        }
    }
}
