//! Which proxies may name their clients in a PROXY header (`[clients]` in the config file).
//!
//! There are two keys, as in nginx and MySQL: a switch and a list of addresses. One key without the
//! other is an error at the start. Otherwise the mistake would be found late: all clients would be
//! refused, or all would be counted as one.

use super::{ConfigError, HerdConfig, Overrides, wrong};
use crate::config::redact::redact;
use crate::core::base::network::{Network, Networks};

impl HerdConfig {
    /// Returns the networks of the proxies that may send a PROXY header. Empty if the switch is
    /// off.
    ///
    /// # Errors
    /// An address is invalid, or the switch and the list contradict each other.
    pub(super) fn proxies(&self, overrides: &Overrides) -> Result<Networks, ConfigError> {
        let (texts, place): (Vec<&str>, _) = match (&overrides.proxies, &self.file.clients.proxies)
        {
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
                    return wrong(format!("{place}: {:?}: {error}", redact(text)));
                }
            }
        }
        let switch = overrides
            .proxy_protocol
            .or(self.file.clients.proxy_protocol);
        match switch {
            Some(true) if proxies.is_empty() => wrong(
                "clients.proxy_protocol is on, and clients.proxies is empty; list the addresses or networks of the proxies there (--proxies, HERD_PROXIES)",
            ),
            Some(true) => Ok(proxies),
            Some(false) => Ok(Networks::default()),
            None if proxies.is_empty() => Ok(proxies),
            None => wrong(
                "clients.proxies lists proxies, and clients.proxy_protocol is not set; set it to true to take the client's address from their PROXY header, or to false (--proxy-protocol, HERD_PROXY_PROTOCOL)",
            ),
        }
    }
}
