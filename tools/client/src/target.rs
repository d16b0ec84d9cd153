//! Which server is meant: a name of a herd, or an address.

use std::fmt;

use herd_mio::config::{self, HerdConfig, Source};
use herd_mio::core::settings::HostPort;

use crate::failure::{Failure, Status};
use crate::tls::{TlsOptions, Trust};

/// A server, and where it is.
pub(crate) struct Target {
    /// What to call it at the prompt.
    pub(crate) label: String,
    pub(crate) address: HostPort,
    /// `None` is plain TCP.
    pub(crate) tls: Option<Trust>,
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let address = self.address.to_string();
        if self.label == address {
            f.write_str(&address)
        } else {
            write!(f, "{} at {address}", self.label)
        }
    }
}

impl Target {
    /// Finds `server` in the herd that `source` names. Without such a herd ([`Source::Name`]), a text with a colon is an address.
    pub(crate) fn resolve(
        server: &str,
        source: Source,
        options: &TlsOptions,
    ) -> Result<Target, Failure> {
        let no_herd = matches!(source, Source::Name);
        let target = if no_herd && server.contains(':') {
            let address = config::address(server, "SERVER").map_err(|error| usage(error.0))?;
            let tls = options.trust(&address.host, None);
            Target {
                label: address.to_string(),
                address,
                tls: tls.map_err(|error| usage(error.0))?,
            }
        } else {
            let or_address = if no_herd {
                " or give an address, such as 127.0.0.1:10000"
            } else {
                ""
            };
            let herd = HerdConfig::load(&source, Some(server))
                .map_err(|error| usage(error.0 + or_address))?;
            let files = herd.tls_files(server);
            let member = herd
                .members
                .into_iter()
                .find(|member| member.name == server);
            // `load` has refused a name that the herd does not have.
            let member =
                member.ok_or_else(|| usage(format!("{} has no server {server:?}", herd.title)))?;
            let tls = options.trust(&member.clients.host, Some(&files));
            Target {
                label: member.name,
                address: member.clients,
                tls: tls.map_err(|error| usage(error.0))?,
            }
        };
        if target.address.port == 0 {
            return Err(usage(format!(
                "{target}: nobody can be called at port 0; herd-mio says at its start which port it got, give that as host:port"
            )));
        }
        Ok(target)
    }
}

fn usage(message: String) -> Failure {
    Failure {
        status: Status::Usage,
        message,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolved(server: &str, source: Source) -> String {
        match Target::resolve(server, source, &TlsOptions::default()) {
            Ok(target) => target.to_string(),
            Err(failure) => format!("{:?}: {}", failure.status, failure.message),
        }
    }

    #[test]
    fn names_are_those_of_herd_mio() {
        assert_eq!(resolved("Riley", Source::Name), "Riley at 127.0.0.1:10000");
        assert_eq!(
            resolved("Jaquez", Source::Name),
            "Jaquez at 127.0.0.1:10001",
            "2021 wins"
        );
        assert_eq!(
            resolved("Clark", Source::Preset("2022".into())),
            "Clark at 127.0.0.1:10000"
        );
        let unknown = resolved("Bob", Source::Name);
        assert!(
            unknown.starts_with("Usage: no preset has a server \"Bob\"; there are: 2016 (Alford "),
            "{unknown}"
        );
        assert!(unknown.ends_with("or give an address, such as 127.0.0.1:10000"));
        let unknown = resolved("Riley", Source::Preset("2022".into()));
        assert!(unknown.ends_with("it has: Clark Jaquez Juzang Bernard Johnson"));
    }

    #[test]
    fn addresses_need_no_herd() {
        assert_eq!(resolved("localhost:1", Source::Name), "localhost:1");
        assert_eq!(resolved("[::1]:10000", Source::Name), "[::1]:10000");
        assert!(resolved("localhost:", Source::Name).contains("must be host:port"));
        assert!(resolved("localhost:0", Source::Name).contains("port 0"));
    }
}
