//! The settings of one server, as the core sees them. The core does not read them itself: they come
//! from the configuration, or from a test.

use std::fmt;
use std::sync::Arc;

use rustls::pki_types::UnixTime;

use crate::core::base::limits::Limits;
use crate::core::base::network::Networks;

/// Secret bytes. The type has no `Display`, and its `Debug` prints only `(secret)`. So the bytes
/// cannot get into a log by mistake.
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

    /// Returns the bytes, for code that has to use them.
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

/// The herd's secret, or two secrets while the secret is being changed.
///
/// The server that dials proves itself with its primary secret. The server that accepts the link
/// tries each of its own secrets on this proof. It then proves itself with the secret that matches.
/// So two servers can link if the accepting server has the primary secret of the dialling server.
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
    /// Creates a pair of secrets. If both are equal, only one is kept.
    #[must_use]
    pub fn pair(primary: Secret, secondary: Secret) -> Secrets {
        let secondary = (secondary != primary).then_some(secondary);
        Secrets { primary, secondary }
    }

    /// The secret with which this server proves itself when it dials. It is empty if the herd has
    /// no secret.
    #[must_use]
    pub fn primary(&self) -> &Secret {
        &self.primary
    }

    /// Returns the secrets with which a neighbour's proof is checked, the primary one first.
    pub fn accepted(&self) -> impl Iterator<Item = &Secret> {
        [Some(&self.primary), self.secondary.as_ref()]
            .into_iter()
            .flatten()
    }

    /// The number of secrets: 1 or 2.
    #[must_use]
    pub fn count(&self) -> usize {
        self.accepted().count()
    }

    /// Compares these secrets with `old`, the secrets that the neighbours still have. Two servers
    /// can link, whichever of them dials, if each server has the primary secret of the other.
    #[must_use]
    pub fn change_from(&self, old: &Secrets) -> SecretsChange {
        if self == old {
            SecretsChange::Unchanged
        } else if old.accepted().any(|accepted| *accepted == self.primary)
            && self.accepted().any(|accepted| *accepted == old.primary)
        {
            SecretsChange::Compatible
        } else {
            SecretsChange::Incompatible
        }
    }

    /// Whether the herd has no secret.
    #[must_use]
    pub fn is_none(&self) -> bool {
        self.primary.expose().is_empty()
    }
}

/// Whether a server with new secrets can link with servers that have the old secrets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SecretsChange {
    /// The new secrets are equal to the old ones.
    Unchanged,
    /// A server with the new secrets and a server with the old ones can link, whichever of them
    /// dials.
    Compatible,
    /// A link between a server with the new secrets and a server with the old ones fails if one of
    /// them dials, and perhaps also if the other one dials. Probably the operator skipped a step of
    /// the change, or the secret file is incomplete.
    Incompatible,
}

/// A host (a name or an IP address) and a port.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HostPort {
    /// `127.0.0.1`, `::1` or `riley.example`.
    pub host: String,
    /// 1–65535, or 0 where the operating system chooses a port.
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

/// A neighbour: a server that this server is linked with.
#[derive(Clone, Debug)]
pub struct NeighbourSettings {
    /// The neighbour's name.
    pub name: String,
    /// The address at which the neighbour accepts links.
    pub address: HostPort,
    /// Whether this server dials the neighbour. Otherwise the neighbour dials this server.
    pub we_dial: bool,
}

/// Which of Google's two Places APIs is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlacesApi {
    /// Nearby Search (legacy): `GET /maps/api/place/nearbysearch/json`.
    Legacy,
    /// Nearby Search (New): `POST /v1/places:searchNearby`.
    New,
}

/// How many questions the server may send to Google Places. The value 0 stands for any number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PlacesQuota {
    /// The maximum number of questions in a second.
    pub per_second: u64,
    /// The maximum number of questions in any 24 hours.
    pub per_day: u64,
    /// The maximum number of questions for the clients of one address in 24 hours. It applies only
    /// after more than half of `per_day` is used. `None` stands for [`PlacesQuota::default_share`],
    /// and then loopback addresses have no maximum.
    pub per_day_per_address: Option<u64>,
}

impl PlacesQuota {
    /// Returns the maximum for one address if the config file sets none: a sixteenth of `per_day`,
    /// and at least 1.
    #[must_use]
    pub fn default_share(&self) -> u64 {
        (self.per_day / 16).max(1)
    }
}

/// How to query Google Places: which API, which server, which key.
#[derive(Clone)]
pub struct PlacesSettings {
    /// Which API is used.
    pub api: PlacesApi,
    /// The host and port of the API's server.
    pub origin: HostPort,
    /// The API key. Without one, a `WHATSAT` is answered with an error.
    pub key: Option<Secret>,
    /// The fields that the New API returns. They are sent in the header `X-Goog-FieldMask`.
    pub field_mask: String,
    /// How many questions the server may send to this API.
    pub quota: PlacesQuota,
    /// The TLS configuration, with the trusted authorities.
    pub tls: Arc<rustls::ClientConfig>,
}

/// The TLS configurations towards clients and neighbours. They hold the certificates, the keys and
/// the trusted authorities. A new `TlsSettings` can replace this one while the server runs. Open
/// connections keep the configuration with which they began.
#[derive(Clone, Default)]
pub struct TlsSettings {
    /// The configuration towards clients. If it is `None`, clients connect over plain TCP.
    pub clients: Option<Arc<rustls::ServerConfig>>,
    /// The configuration towards neighbours. If it is `None`, links use plain TCP.
    pub neighbours: Option<NeighbourTls>,
    /// The certificates that this server sends in TLS handshakes, and when they expire.
    pub own: Vec<OwnCertificate>,
}

/// A certificate that this server sends in TLS handshakes, to prove its identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnCertificate {
    /// The file that contains the certificate.
    pub file: String,
    /// The earliest time at which this certificate, or an intermediate certificate of its chain,
    /// expires.
    pub not_after: UnixTime,
}

/// Whether a server that has TLS also allows links without TLS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TlsMode {
    /// Every link uses TLS.
    #[default]
    Required,
    /// A link uses plain TCP if the neighbour does not support TLS, or if TLS fails. This is for
    /// the time in which only some servers of a herd have TLS. An attacker who can change the
    /// traffic between two such servers can force plain TCP.
    Offered,
}

/// Mutual TLS between neighbours. Each side sends a certificate for its own server name, signed by
/// the herd's authority.
#[derive(Clone)]
pub struct NeighbourTls {
    /// Whether links without TLS are allowed.
    pub mode: TlsMode,
    /// The configuration for links that this server dials.
    pub dialling: Arc<rustls::ClientConfig>,
    /// The configuration for links that this server accepts.
    pub accepting: Arc<rustls::ServerConfig>,
}

/// The settings of the HTTP port, which serves health, metrics and states to operators.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpSettings {
    /// The address that the port listens on.
    pub listen: HostPort,
    /// Whether other machines may reach the port.
    pub is_exposed: bool,
    /// The names, apart from `localhost` and the listen address, that a request's `Host` may have.
    pub hosts: Vec<String>,
}

/// All settings of one server.
#[derive(Clone)]
pub struct Settings {
    /// The server's name.
    pub name: String,
    /// The names of all servers of the herd, this server included.
    pub herd: Vec<String>,
    /// The neighbours: the servers that this server links with.
    pub neighbours: Vec<NeighbourSettings>,
    /// The secrets with which the servers of the herd prove their identity to each other.
    pub secrets: Secrets,
    /// The addresses of trusted proxies. A connection from one of them must begin with a PROXY
    /// header, which contains the client's address.
    pub proxies: Networks,
    /// TLS towards clients and neighbours. The TLS towards Google Places is in `places`.
    pub tls: TlsSettings,
    /// The settings for Google Places, or for a test server in its place.
    pub places: PlacesSettings,
    /// The HTTP port. `None` if the server has none.
    pub http: Option<HttpSettings>,
    /// The limits on memory, connections and time.
    pub limits: Limits,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secrets_change_is_a_step_if_old_and_new_can_link() {
        let secret = |text: &str| Secret::new(text.as_bytes().to_vec());
        let steps = [
            secret("old").into(),
            Secrets::pair(secret("old"), secret("new")),
            Secrets::pair(secret("new"), secret("old")),
            Secrets::from(secret("new")),
        ];
        for (from, old) in steps.iter().enumerate() {
            for (to, new) in steps.iter().enumerate() {
                let expected = match from.abs_diff(to) {
                    0 => SecretsChange::Unchanged,
                    1 => SecretsChange::Compatible,
                    _ => SecretsChange::Incompatible,
                };
                assert_eq!(new.change_from(old), expected, "from {from} to {to}");
            }
        }
        let half_written = Secrets::from(secret("ol"));
        assert_eq!(
            half_written.change_from(&steps[0]),
            SecretsChange::Incompatible
        );
    }

    #[test]
    fn debug_formats_mask_a_secret() {
        let secret = Secret::new(b"key".to_vec());
        let container = (Some(secret.clone()), vec![secret.clone()], &secret);
        for shown in [
            format!("{secret:?}"),
            format!("{secret:#?}"),
            format!("{secret:02x?}"),
            format!("{container:?}"),
            format!("{container:#X?}"),
        ] {
            assert!(shown.contains("(secret)"), "{shown}");
            for form in ["key", "107", "6b", "6B"] {
                assert!(!shown.contains(form), "{shown}");
            }
        }
    }
}
