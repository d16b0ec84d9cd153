//! The server to connect to, by a name of a herd or by an address, and the other servers of that
//! herd.

use std::fmt;

use herd_mio::config::{self, ConfigError, HerdConfig, Source};
use herd_mio::core::base::settings::HostPort;

use crate::dial::trust::{TlsOptions, Trust};

/// A server: its name, its address, and whether it speaks TLS.
#[derive(Clone, Debug)]
pub struct Target {
    /// `None` if only an address is known.
    pub name: Option<String>,
    /// The address for clients.
    pub address: HostPort,
    /// `None` stands for plain TCP.
    pub tls: Option<Trust>,
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            Some(name) => write!(f, "{name} at {}", self.address),
            None => write!(f, "{}", self.address),
        }
    }
}

impl Target {
    /// Finds `server` in the herd that `source` names. Without such a herd ([`Source::Name`]), a
    /// text with a colon is an address.
    ///
    /// # Errors
    /// There is no such server, its port is 0, or a file cannot be read or used.
    pub fn resolve(
        server: &str,
        source: &Source,
        options: &TlsOptions,
    ) -> Result<Target, ConfigError> {
        if matches!(source, Source::Name) && server.contains(':') {
            let address = config::address(server, "SERVER")?;
            return dialable(Target {
                name: None,
                tls: options.trust(&address.host, None)?,
                address,
            });
        }
        let (target, _) = Target::resolve_among(server, source, options, |name| name == server)?;
        Ok(target)
    }

    /// Finds `server`, which has to be a name, and all other servers of its herd.
    ///
    /// # Errors
    /// There is no such server, a port is 0, or a file cannot be read or used.
    pub fn resolve_with_others(
        server: &str,
        source: &Source,
        options: &TlsOptions,
    ) -> Result<(Target, Vec<Target>), ConfigError> {
        Target::resolve_among(server, source, options, |_| true)
    }

    /// Finds `server`, and those other servers of its herd that are `wanted`.
    fn resolve_among(
        server: &str,
        source: &Source,
        options: &TlsOptions,
        wanted: impl Fn(&str) -> bool,
    ) -> Result<(Target, Vec<Target>), ConfigError> {
        let or_address = match source {
            Source::Name => "; or give an address, such as 127.0.0.1:10000",
            Source::Preset(_) | Source::File(_) => "",
        };
        let mut herd = HerdConfig::load(source, Some(server))
            .map_err(|error| ConfigError(error.0 + or_address))?;
        let (mut target, mut others) = (None, Vec::new());
        for member in std::mem::take(&mut herd.members) {
            if !wanted(&member.name) {
                continue;
            }
            let files = herd.tls_files(&member.name);
            let is_target = member.name == server;
            let found = dialable(Target {
                name: Some(member.name),
                tls: options.trust(&member.clients.host, Some(&files))?,
                address: member.clients,
            })?;
            if is_target {
                target = Some(found);
            } else {
                others.push(found);
            }
        }
        // `load` has already refused an unknown name.
        let unknown = || ConfigError(format!("{} has no server {server:?}", herd.title));
        Ok((target.ok_or_else(unknown)?, others))
    }

    /// Its name, or its address.
    #[must_use]
    pub fn label(&self) -> String {
        match &self.name {
            Some(name) => name.clone(),
            None => self.address.to_string(),
        }
    }

    /// The command that starts the server, with its name if that is known.
    #[must_use]
    pub fn start_command(&self) -> String {
        format!("herd-mio {}", self.name.as_deref().unwrap_or("NAME"))
    }
}

fn dialable(target: Target) -> Result<Target, ConfigError> {
    if target.address.port == 0 {
        return Err(ConfigError(format!(
            "{target}: port 0 cannot be connected to; herd-mio logs its port at its start, so give that as host:port"
        )));
    }
    Ok(target)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolved(server: &str, source: &Source) -> String {
        match Target::resolve(server, source, &TlsOptions::default()) {
            Ok(target) => target.to_string(),
            Err(error) => format!("{error:?}"),
        }
    }

    #[test]
    fn server_names_resolve_as_in_herd_mio() {
        let name = &Source::Name;
        assert_eq!(resolved("Riley", name), "Riley at 127.0.0.1:10000");
        let newest = resolved("Jaquez", name);
        assert_eq!(newest, "Jaquez at 127.0.0.1:10001", "2021 wins");
        let preset = Source::Preset("2022".into());
        assert_eq!(resolved("Clark", &preset), "Clark at 127.0.0.1:10000");
        let unknown = resolved("Bob", name);
        assert!(
            unknown
                .starts_with("ConfigError(\"no preset has a server \\\"Bob\\\"; there are: 2016 (")
                && unknown.ends_with("; or give an address, such as 127.0.0.1:10000\")"),
            "{unknown}"
        );
        let unknown = resolved("Riley", &preset);
        assert!(unknown.ends_with("it has: Clark Jaquez Juzang Bernard Johnson\")"));
    }

    #[test]
    fn an_address_needs_no_preset() {
        let name = &Source::Name;
        assert_eq!(resolved("localhost:1", name), "localhost:1");
        assert_eq!(resolved("[::1]:10000", name), "[::1]:10000");
        assert!(resolved("localhost:", name).contains("must be host:port"));
        assert!(resolved("localhost:0", name).contains("port 0"));
    }

    #[test]
    fn resolve_with_others_returns_the_other_servers() {
        let options = TlsOptions::default();
        let found = Target::resolve_with_others("Juzang", &Source::Name, &options);
        let (target, others) = found.unwrap();
        assert_eq!(target.label(), "Juzang");
        let names: Vec<String> = others.iter().map(Target::label).collect();
        assert_eq!(names, ["Riley", "Jaquez", "Campbell", "Bernard"]);
    }
}
