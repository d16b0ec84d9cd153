//! Which server is meant: a name of a herd, or an address. And, for a flood, who else is in that herd.

use std::fmt;

use herd_mio::config::{self, HerdConfig, Member, Source};
use herd_mio::core::settings::HostPort;

use crate::failure::Failure;

/// A server, and where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    /// `None` until it says so itself, if all that is known is an address.
    pub(crate) name: Option<String>,
    pub(crate) address: HostPort,
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
    /// Finds `server` in the herd that `source` names. Without such a herd ([`Source::Name`]), a text with a colon is an address.
    pub(crate) fn resolve(server: &str, source: &Source) -> Result<Target, Failure> {
        if matches!(source, Source::Name) && server.contains(':') {
            let address =
                config::address(server, "SERVER").map_err(|error| Failure::Usage(error.0))?;
            return callable(Target {
                name: None,
                address,
            });
        }
        Target::resolve_with_others(server, source).map(|(target, _)| target)
    }

    /// Finds `server`, which has to be a name, and all other servers of its herd.
    pub(crate) fn resolve_with_others(
        server: &str,
        source: &Source,
    ) -> Result<(Target, Vec<Target>), Failure> {
        let or_address = match source {
            Source::Name => "; or give an address, such as 127.0.0.1:10000",
            Source::Preset(_) | Source::File(_) => "",
        };
        let herd = HerdConfig::load(source, Some(server))
            .map_err(|error| Failure::Usage(error.0 + or_address))?;
        let (mut target, mut others) = (None, Vec::new());
        for member in herd.members {
            let Member { name, clients, .. } = member;
            let is_target = name == server;
            let found = callable(Target {
                name: Some(name),
                address: clients,
            })?;
            if is_target {
                target = Some(found);
            } else {
                others.push(found);
            }
        }
        // `load` has refused a name that the herd does not have.
        let target = target
            .ok_or_else(|| Failure::Usage(format!("{} has no server {server:?}", herd.title)))?;
        Ok((target, others))
    }
}

fn callable(target: Target) -> Result<Target, Failure> {
    if target.address.port == 0 {
        return Err(Failure::Usage(format!(
            "{target}: nobody can be called at port 0; herd-mio says at its start which port it got, give that as host:port"
        )));
    }
    Ok(target)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolved(server: &str, source: Source) -> String {
        match Target::resolve(server, &source) {
            Ok(target) => target.to_string(),
            Err(failure) => format!("{failure:?}"),
        }
    }

    #[test]
    fn names_are_those_of_herd_mio_and_addresses_need_no_herd() {
        assert_eq!(
            resolved("Juzang", Source::Name),
            "Juzang at 127.0.0.1:10002"
        );
        assert_eq!(
            resolved("Clark", Source::Preset("2022".into())),
            "Clark at 127.0.0.1:10000"
        );
        assert_eq!(resolved("[::1]:10000", Source::Name), "[::1]:10000");
        let unknown = resolved("Bob", Source::Name);
        assert!(
            unknown.starts_with("Usage(\"no preset has a server \\\"Bob\\\"; there are: 2016")
                && unknown.ends_with("; or give an address, such as 127.0.0.1:10000\")"),
            "{unknown}"
        );
        assert!(resolved("localhost:", Source::Name).contains("must be host:port"));
        assert!(resolved("localhost:0", Source::Name).contains("port 0"));
    }

    #[test]
    fn the_others_are_all_but_the_one() {
        let (target, others) = Target::resolve_with_others("Juzang", &Source::Name).unwrap();
        assert_eq!(target.name.as_deref(), Some("Juzang"));
        let names: Vec<&str> = others.iter().filter_map(|o| o.name.as_deref()).collect();
        assert_eq!(names, ["Riley", "Jaquez", "Campbell", "Bernard"]);
    }
}
