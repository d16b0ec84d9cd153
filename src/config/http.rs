//! The settings of the HTTP port (`[http]` in the config file). A server has this port only if an
//! address is configured.
//!
//! The port has no password. So an address that other machines can reach is an error, unless the
//! operator sets `exposed`.

use serde::Deserialize;

use super::address::is_loopback;
use super::redact::redact;
use super::{ConfigError, HerdConfig, Member, Overrides, address, invalid};
use crate::core::base::settings::HttpSettings;

/// `[http]` of the TOML file.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct FileHttp {
    /// The address of the port, for a server whose `[[servers]]` table has none.
    listen: Option<String>,
    /// Whether other machines may reach the port.
    exposed: Option<bool>,
    /// The names that the `Host` field of a request may have, besides `localhost` and the listen
    /// address.
    hosts: Option<Vec<String>>,
}

impl HerdConfig {
    /// Returns the settings of the HTTP port of `member`. `None` if no address is configured.
    ///
    /// # Errors
    /// - The address is invalid.
    /// - Other machines can reach the address, and `exposed` is not set.
    /// - An entry of `http.hosts` is not a host name.
    pub(super) fn http(
        &self,
        member: &Member,
        overrides: &Overrides,
    ) -> Result<Option<HttpSettings>, ConfigError> {
        let file = &self.file.http;
        let hosts = self.http_hosts()?;
        let listen = match (&overrides.http, &member.http, &file.listen) {
            (Some(text), ..) => address(text, "where to listen for HTTP (--http, HERD_HTTP)")?,
            (None, Some(listen), _) => listen.clone(),
            (None, None, Some(text)) => address(text, &format!("{}: http.listen", self.title))?,
            (None, None, None) => return Ok(None),
        };
        let is_exposed = overrides.http_exposed.or(file.exposed).unwrap_or_default();
        if !is_exposed && !is_loopback(&listen.host) {
            return invalid(format!(
                "the HTTP port is to listen on {listen}, which other machines can reach, and it asks nobody for a password; \
                 say that you want this with exposed = true in [http] (--http-exposed, HERD_HTTP_EXPOSED), or choose a loopback address"
            ));
        }
        Ok(Some(HttpSettings {
            listen,
            is_exposed,
            hosts,
        }))
    }

    fn http_hosts(&self) -> Result<Vec<String>, ConfigError> {
        let hosts = self.file.http.hosts.clone().unwrap_or_default();
        let is_name = |host: &String| {
            let is_known = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
            !host.is_empty() && host.bytes().all(is_known)
        };
        match hosts.iter().find(|host| !is_name(host)) {
            None => Ok(hosts),
            Some(host) => invalid(format!(
                "{}: http.hosts has {:?}; it lists host names without a port, such as \"riley.example\"",
                self.title,
                redact(host)
            )),
        }
    }
}
