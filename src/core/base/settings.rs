//! What one server has to know before it starts, from wherever it comes: the core's side of the
//! configuration.

use std::fmt;
use std::sync::Arc;

use crate::core::base::limits::Limits;
use crate::core::base::network::Networks;

/// Secret bytes: no `Display`, and a `Debug` that says only that they are there.
///
/// ```compile_fail,E0277
/// # use herd_mio::core::base::settings::Secret;
/// let shown = format!("{}", Secret::new(b"key".to_vec())); // is not written by mistake
/// ```
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Secret(Vec<u8>);

impl Secret {
    /// Wraps the bytes.
    #[must_use]
    pub fn new(bytes: Vec<u8>) -> Secret {
        Secret(bytes)
    }

    /// The bytes themselves, for the one who has to use them.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

/// The herd's secret; two while it is being changed. A server proves itself with the primary one,
/// as the side that dials; it takes a proof with either, and answers with the one that it was
/// proven with. So two servers link if the one that dials has a primary secret that the other one
/// has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Secrets {
    primary: Secret,
    secondary: Option<Secret>,
}

impl From<Secret> for Secrets {
    fn from(primary: Secret) -> Secrets {
        Secrets {
            primary,
            secondary: None,
        }
    }
}

impl Secrets {
    /// Two of them; one, if they are the same.
    #[must_use]
    pub fn two(primary: Secret, secondary: Secret) -> Secrets {
        let secondary = (secondary != primary).then_some(secondary);
        Secrets { primary, secondary }
    }

    /// The one to prove oneself with; empty on a herd without a secret.
    #[must_use]
    pub fn primary(&self) -> &Secret {
        &self.primary
    }

    /// All that a proof is taken with, the primary one first.
    pub fn accepted(&self) -> impl Iterator<Item = &Secret> {
        [Some(&self.primary), self.secondary.as_ref()]
            .into_iter()
            .flatten()
    }

    /// How many a proof is taken with: 1 or 2.
    #[must_use]
    pub fn count(&self) -> usize {
        self.accepted().count()
    }

    /// What it means to neighbours that still have those secrets when a server has these. Where
    /// each side takes what the other one proves, they link.
    #[must_use]
    pub fn change_from(&self, old: &Secrets) -> SecretsChange {
        if self == old {
            SecretsChange::Same
        } else if old.accepted().any(|taken| *taken == self.primary)
            && self.accepted().any(|taken| *taken == old.primary)
        {
            SecretsChange::Step
        } else {
            SecretsChange::Break
        }
    }

    /// Whether the herd has no secret.
    #[must_use]
    pub fn is_none(&self) -> bool {
        self.primary.expose().is_empty()
    }
}

/// What new secrets of one server mean to the links to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SecretsChange {
    /// They are the old ones.
    Same,
    /// Servers with the old and with the new ones link with one another.
    Step,
    /// They do not: a step was skipped, or the file is not whole.
    Break,
}

/// A host, by name or by number, and a port.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HostPort {
    /// `127.0.0.1`, `::1` or `riley.example`.
    pub host: String,
    /// 1–65535; 0 where the system may choose.
    pub port: u16,
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

/// A server that this one is linked with.
#[derive(Clone, Debug)]
pub struct NeighbourSettings {
    /// Its name.
    pub name: String,
    /// Where it listens for neighbours.
    pub address: HostPort,
    /// Whether this side dials; the other side waits.
    pub we_dial: bool,
}

/// Which of Google's two interfaces is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlacesApi {
    /// Nearby Search (legacy): `GET /maps/api/place/nearbysearch/json`.
    Legacy,
    /// Nearby Search (New): `POST /v1/places:searchNearby`.
    New,
}

/// Whom to ask what is near, and how.
#[derive(Clone)]
pub struct PlacesSettings {
    /// Which interface.
    pub api: PlacesApi,
    /// Where: the host and port of the origin.
    pub origin: HostPort,
    /// The API key. Without one, a `WHATSAT` is answered with an error.
    pub key: Option<Secret>,
    /// Which fields the New API is to return.
    pub field_mask: String,
    /// Whom to trust, and with which cryptography.
    pub tls: Arc<rustls::ClientConfig>,
}

/// Who this server is to others, and whom it believes, where TLS is spoken. May be renewed while
/// the server runs; what is connected already stays as it is.
#[derive(Clone, Default)]
pub struct TlsSettings {
    /// Towards clients; without it, they speak plain TCP.
    pub clients: Option<Arc<rustls::ServerConfig>>,
    /// Towards neighbours, both ways; without it, they speak plain TCP.
    pub neighbours: Option<NeighbourTls>,
}

/// Whether a neighbour is linked without TLS, by a server that speaks it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TlsMode {
    /// It is not.
    #[default]
    Required,
    /// It is, if it does not speak TLS or TLS fails: for as long as not all servers of a herd speak
    /// it. Who can change what passes between two such servers can have them go without.
    Offered,
}

/// Mutual TLS between neighbours: both sides show a certificate of the herd's authority, for their
/// own name.
#[derive(Clone)]
pub struct NeighbourTls {
    /// Whether a link may go without.
    pub mode: TlsMode,
    /// For links that we dial.
    pub dialling: Arc<rustls::ClientConfig>,
    /// For links that we accept.
    pub accepting: Arc<rustls::ServerConfig>,
}

/// One server.
#[derive(Clone)]
pub struct Settings {
    /// Its name.
    pub name: String,
    /// All servers of the herd, this one too.
    pub herd: Vec<String>,
    /// Those it is linked with.
    pub neighbours: Vec<NeighbourSettings>,
    /// What the servers of the herd know and no other program does.
    pub secrets: Secrets,
    /// From where clients come through a proxy that says so, in a header of the PROXY protocol.
    pub proxies: Networks,
    /// Where TLS is spoken, Places aside.
    pub tls: TlsSettings,
    /// Google Places, or what stands in for it.
    pub places: PlacesSettings,
    /// What it may use up.
    pub limits: Limits,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_a_step_if_servers_on_both_sides_of_it_link() {
        let secret = |text: &str| Secret::new(text.as_bytes().to_vec());
        let steps = [
            secret("old").into(),
            Secrets::two(secret("old"), secret("new")),
            Secrets::two(secret("new"), secret("old")),
            Secrets::from(secret("new")),
        ];
        for (from, old) in steps.iter().enumerate() {
            for (to, new) in steps.iter().enumerate() {
                let expected = match from.abs_diff(to) {
                    0 => SecretsChange::Same,
                    1 => SecretsChange::Step,
                    _ => SecretsChange::Break,
                };
                assert_eq!(new.change_from(old), expected, "from {from} to {to}");
            }
        }
        let half_written = Secrets::from(secret("ol"));
        assert_eq!(half_written.change_from(&steps[0]), SecretsChange::Break);
    }

    #[test]
    fn a_secret_is_masked_however_it_is_debugged() {
        let secret = Secret::new(b"key".to_vec());
        let held = (Some(secret.clone()), vec![secret.clone()], &secret);
        for shown in [
            format!("{secret:?}"),
            format!("{secret:#?}"),
            format!("{secret:02x?}"),
            format!("{held:?}"),
            format!("{held:#X?}"),
        ] {
            assert!(shown.contains("(secret)"), "{shown}");
            for form in ["key", "107", "6b", "6B"] {
                assert!(!shown.contains(form), "{shown}");
            }
        }
    }
}
