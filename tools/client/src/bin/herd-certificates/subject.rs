//! The subjects of certificates: a server of the herd, the operator's tools, or the port for
//! clients.

use std::collections::HashSet;

use herd_mio::config::HerdConfig;
use herd_mio::core::link::OPERATOR;
use rustls::pki_types::{DnsName, ServerName};

use herd_testkit::failure::Failure;

/// The files of the authority itself.
pub(crate) const AUTHORITY: &str = "ca";
/// The files of the certificate for TLS towards clients.
pub(crate) const CLIENTS: &str = "clients";

/// The roles in TLS for which a certificate is valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Usage {
    /// A server among neighbours dials and is dialled.
    Both,
    /// The operator's tools only dial.
    Dialling,
    /// Clients only connect to it. It is not valid for a neighbour that dials.
    Accepting,
}

/// The subject of a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Subject {
    /// The name of its files without the extension, and its common name.
    pub(crate) stem: String,
    /// The names and addresses in the certificate.
    pub(crate) names: Vec<ServerName<'static>>,
    pub(crate) usage: Usage,
}

impl Subject {
    /// The subject to which clients connect, with these names.
    pub(crate) fn clients(names: Vec<ServerName<'static>>) -> Subject {
        Subject {
            stem: CLIENTS.into(),
            names,
            usage: Usage::Accepting,
        }
    }
}

/// All servers of the herd, in its order, and the operator's tools.
pub(crate) fn of_herd(herd: &HerdConfig) -> Result<Vec<Subject>, Failure> {
    let names = herd.members.iter().map(|member| member.name.as_str());
    of_names(names).map_err(|what| Failure::Usage(format!("{}: {what}", herd.title)))
}

fn of_names<'a>(names: impl Iterator<Item = &'a str>) -> Result<Vec<Subject>, String> {
    let mut subjects = Vec::new();
    let mut seen = HashSet::new();
    for name in names {
        // TLS ignores the case of names, and some file systems do too.
        let folded = name.to_ascii_lowercase();
        if [AUTHORITY, CLIENTS, OPERATOR].contains(&folded.as_str()) {
            return Err(format!(
                "a server called {name:?} would need the files {folded}.pem and {folded}.key, which have another use; give it another name"
            ));
        }
        let Some(dns) = dns_name(name) else {
            return Err(format!(
                "no certificate is possible for a server called {name:?}: its name has to be a DNS name ({DNS_NAME}); give it another name"
            ));
        };
        if !seen.insert(folded) {
            return Err(format!(
                "{name:?} and another server differ only in upper and lower case, which certificates do not tell apart; give it another name"
            ));
        }
        subjects.push(Subject {
            stem: name.to_owned(),
            names: vec![dns],
            usage: Usage::Both,
        });
    }
    subjects.extend(dns_name(OPERATOR).map(|name| Subject {
        stem: OPERATOR.into(),
        names: vec![name],
        usage: Usage::Dialling,
    }));
    Ok(subjects)
}

const DNS_NAME: &str = "letters, digits, hyphens and underscores, in parts of at most 63 joined by dots; the last part is not a number";

/// A name as rustls checks it. A name with a dot at its end is refused, because a certificate
/// cannot contain it.
fn dns_name(name: &str) -> Option<ServerName<'static>> {
    let name = DnsName::try_from(name.to_owned()).ok()?;
    let is_absolute = name.as_ref().ends_with('.');
    (!is_absolute).then_some(ServerName::DnsName(name))
}

/// The subject of `--client-names`. A name of another subject is refused: all hosts have this
/// certificate, so each of them could pretend to be that subject.
pub(crate) fn of_clients(names: &[String], others: &[Subject]) -> Result<Subject, Failure> {
    let mut found = Vec::new();
    for text in names {
        let name = match text.parse::<std::net::IpAddr>() {
            Ok(ip) => ServerName::IpAddress(ip.into()),
            Err(_) => dns_name(text).ok_or_else(|| {
                Failure::Usage(format!(
                    "--client-names: {text:?} is neither an IP address nor a DNS name ({DNS_NAME})"
                ))
            })?,
        };
        if let Some(other) = others.iter().find(|other| other.names.contains(&name)) {
            let stem = &other.stem;
            return Err(Failure::Usage(format!(
                "--client-names: {text:?} is the name of {stem}, but {CLIENTS}.pem is the same on all hosts; use {stem}.pem for clients of that name"
            )));
        }
        if !found.contains(&name) {
            found.push(name);
        }
    }
    Ok(Subject::clients(found))
}

/// Names as text, joined by commas.
pub(crate) fn listed(names: &[ServerName<'_>]) -> String {
    let names: Vec<_> = names.iter().map(ServerName::to_str).collect();
    names.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stems(names: &[&str]) -> Result<Vec<String>, String> {
        let subjects = of_names(names.iter().copied())?;
        Ok(subjects.into_iter().map(|subject| subject.stem).collect())
    }

    #[test]
    fn servers_and_the_operator_get_a_certificate() {
        assert_eq!(
            stems(&["Riley", "b.example.net", "under_score", "x1"]).unwrap(),
            ["Riley", "b.example.net", "under_score", "x1", "operator"]
        );
    }

    #[test]
    fn a_name_that_is_no_dns_name_is_refused() {
        let long = "a".repeat(64);
        for bad in [
            "a/b", "..", "a.", "-a", "a-", "*", "*.a", "ä", "1", "10.0.0.1", "a:1", "::1", &long,
        ] {
            let error = stems(&["Riley", bad]).unwrap_err();
            assert!(
                error.contains(&format!("{bad:?}: its name has to be a DNS name (")),
                "{error}"
            );
        }
    }

    #[test]
    fn ambiguous_and_reserved_names_are_refused() {
        assert!(stems(&["A", "a"]).unwrap_err().contains("upper and lower"));
        for taken in ["ca", "CA", "clients", "Operator"] {
            let error = stems(&[taken]).unwrap_err();
            assert!(error.contains("have another use"), "{error}");
        }
    }

    fn clients(names: &[&str]) -> Result<String, Failure> {
        let others = of_names(["Riley", "herd.example.net"].into_iter()).unwrap();
        let names: Vec<String> = names.iter().map(|&name| name.into()).collect();
        of_clients(&names, &others).map(|subject| listed(&subject.names))
    }

    #[test]
    fn client_names_may_be_dns_names_or_ip_addresses() {
        assert_eq!(
            clients(&["www.example.net", "192.0.2.1", "2001:db8::1", "192.0.2.1"]).unwrap(),
            "www.example.net,192.0.2.1,2001:db8::1"
        );
        for bad in [
            "",
            "*.example.net",
            "a.",
            "[::1]",
            "www.example.net:443",
            "ä",
        ] {
            assert!(matches!(clients(&[bad]), Err(Failure::Usage(_))), "{bad}");
        }
    }

    #[test]
    fn client_names_must_not_be_server_names() {
        for taken in ["riley", "Herd.example.net", "operator"] {
            let Err(Failure::Usage(what)) = clients(&["a", taken]) else {
                panic!("{taken} was allowed");
            };
            assert!(what.contains("is the name of"), "{what}");
        }
    }
}
