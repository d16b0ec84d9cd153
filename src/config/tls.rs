//! Reads certificates and keys from PEM files, and makes the configurations of rustls from them.
//!
//! Connections with clients and Places use TLS 1.2 or 1.3. Links between servers use only TLS 1.3.
//! Reason: TLS 1.3 also encrypts the certificates, and no server needs an older version.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::danger::ServerCertVerifier;
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::sign::CertifiedKey;
use rustls::{CertificateError, ClientConfig, RootCertStore, ServerConfig, version};
use serde::Deserialize;

use super::redact::redact;
use super::{ConfigError, invalid};
use crate::core::base::settings::{NeighbourTls, OwnCertificate, TlsMode, TlsSettings};
use crate::core::session::certificate::{Minute, future_not_before, not_after};
use crate::core::session::tls::is_valid_for;
use crate::core::wire::escape::Escaped;

/// `[clients]` of the TOML file.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct FileClients {
    pub(super) proxy_protocol: Option<bool>,
    pub(super) proxies: Option<Vec<String>>,
    pub(super) tls: Option<FileClientsTls>,
}

/// `[clients.tls]` of the TOML file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FileClientsTls {
    certificate_file: String,
    key_file: String,
}

/// `[peers]` of the TOML file.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct FilePeers {
    pub(super) tls: Option<FilePeersTls>,
}

/// `[peers.tls]` of the TOML file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FilePeersTls {
    /// `required` or `offered`.
    mode: Option<String>,
    ca_file: String,
    certificate_file: String,
    key_file: String,
}

impl FilePeersTls {
    /// Returns whether TLS is required for links or only offered.
    pub(super) fn mode(&self) -> Result<TlsMode, String> {
        match self.mode.as_deref() {
            None => Ok(TlsMode::default()),
            Some(word) if word.eq_ignore_ascii_case("required") => Ok(TlsMode::Required),
            Some(word) if word.eq_ignore_ascii_case("offered") => Ok(TlsMode::Offered),
            Some(other) => Err(format!(
                "peers.tls.mode is {:?}; it may be \"required\" or \"offered\"",
                redact(other)
            )),
        }
    }
}

/// The files with which a server proves its name: a certificate chain, and the private key of the
/// first certificate in the chain.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Identity {
    certificate: PathBuf,
    key: PathBuf,
}

/// The files with a server's certificates and keys. They can be read again while the server runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsFiles {
    clients: Option<Identity>,
    neighbours: Option<PeersFiles>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct PeersFiles {
    /// The server's name. The server's certificate must be for this name.
    name: String,
    mode: TlsMode,
    ca: PathBuf,
    own: Identity,
}

impl TlsFiles {
    /// Finds the files of the server `name` in the tables of the config file. Paths are relative to
    /// `directory`. `{name}` in a path stands for the server's name.
    pub(super) fn new(
        name: &str,
        directory: &Path,
        clients: &FileClients,
        peers: &FilePeers,
    ) -> TlsFiles {
        let path = |path: &str| directory.join(path.replace("{name}", name));
        let identity = |certificate: &str, key: &str| Identity {
            certificate: path(certificate),
            key: path(key),
        };
        TlsFiles {
            clients: clients
                .tls
                .as_ref()
                .map(|tls| identity(&tls.certificate_file, &tls.key_file)),
            neighbours: peers.tls.as_ref().map(|tls| PeersFiles {
                name: name.to_owned(),
                mode: tls.mode().unwrap_or_default(), // checked when the file was read
                ca: path(&tls.ca_file),
                own: identity(&tls.certificate_file, &tls.key_file),
            }),
        }
    }

    /// Returns whether TLS with neighbours is required or offered. `None` if links use no TLS.
    #[must_use]
    pub fn for_neighbours(&self) -> Option<TlsMode> {
        self.neighbours.as_ref().map(|files| files.mode)
    }

    /// Whether clients connect with TLS.
    #[must_use]
    pub fn has_clients(&self) -> bool {
        self.clients.is_some()
    }

    /// Returns the file with the herd's own certificate authorities, if the herd has one.
    #[must_use]
    pub fn authority(&self) -> Option<&Path> {
        self.neighbours.as_ref().map(|files| files.ca.as_path())
    }

    /// Returns the files with private keys.
    pub(super) fn keys(&self) -> impl Iterator<Item = PathBuf> {
        let neighbours = self.neighbours.as_ref().map(|files| &files.own);
        let identities = self.clients.iter().chain(neighbours);
        identities.map(|identity| identity.key.clone())
    }

    /// Whether there are no files to read.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == TlsFiles::default()
    }

    /// Reads all files, and checks that this server's own certificates have not expired. The
    /// certificate for links is checked in the same way as a neighbour will check it.
    ///
    /// # Errors
    /// A file cannot be read, or its contents cannot be used. A certificate has expired, or is for
    /// another name or from another authority.
    pub fn read(&self) -> Result<TlsSettings, ConfigError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let clients = self
            .clients
            .as_ref()
            .map(|identity| for_clients(identity, &provider))
            .transpose()?;
        Ok(TlsSettings {
            clients,
            neighbours: self.read_for_neighbours()?,
            own: self.check_own(UnixTime::now())?,
        })
    }

    /// Returns this server's own certificates with the times at which they expire.
    ///
    /// # Errors
    /// A client or a neighbour would refuse one of the certificates at the time `now`.
    fn check_own(&self, now: UnixTime) -> Result<Vec<OwnCertificate>, ConfigError> {
        let clients = self.clients.iter().map(|identity| identity.check(now));
        let neighbours = self.neighbours.iter().map(|files| files.check(now));
        let mut own = clients.chain(neighbours).collect::<Result<Vec<_>, _>>()?;
        own.dedup(); // clients and neighbours may share a certificate
        Ok(own)
    }

    /// Reads the files for TLS with neighbours. `None` if links use no TLS.
    ///
    /// # Errors
    /// A file cannot be read, or its contents cannot be used.
    pub fn read_for_neighbours(&self) -> Result<Option<NeighbourTls>, ConfigError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        self.neighbours
            .as_ref()
            .map(|files| for_neighbours(files, &provider))
            .transpose()
    }

    /// Describes for `--check` how the server connects with clients (first text) and with
    /// neighbours (second text): with TLS or plain TCP.
    pub(super) fn describe(&self) -> (String, String) {
        let identity = |identity: &Identity| format!("TLS, as {}", identity.certificate.display());
        (
            self.clients.as_ref().map_or("plain TCP".into(), identity),
            self.neighbours.as_ref().map_or(
                "plain TCP".into(),
                |PeersFiles { mode, ca, own, .. }| {
                    let mode = match mode {
                        TlsMode::Required => "required",
                        TlsMode::Offered => "offered, links may be plain",
                    };
                    let (own, ca) = (identity(own), ca.display());
                    format!("mutual {own}, trusting {ca}; {mode}")
                },
            ),
        )
    }
}

fn for_clients(
    identity: &Identity,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<ServerConfig>, ConfigError> {
    let (chain, key) = identity.read(provider)?;
    let config = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(unusable)?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(|error| identity.unusable(&error))?;
    Ok(Arc::new(config))
}

fn for_neighbours(
    files: &PeersFiles,
    provider: &Arc<CryptoProvider>,
) -> Result<NeighbourTls, ConfigError> {
    let PeersFiles {
        mode,
        ca,
        own: identity,
        ..
    } = files;
    let roots = Arc::new(read_roots(ca, "peers.tls.ca_file")?);
    let verifier = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone())
        .build()
        .map_err(|error| {
            ConfigError(format!(
                "the certificates in {} cannot be used: {error}",
                ca.display()
            ))
        })?;
    let (chain, key) = identity.read(provider)?;
    let mut accepting = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&version::TLS13])
        .map_err(unusable)?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain.clone(), key.clone_key())
        .map_err(|error| identity.unusable(&error))?;
    let mut dialling = ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&version::TLS13])
        .map_err(unusable)?
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)
        .map_err(|error| identity.unusable(&error))?;
    // Links never resume a TLS session. Resumption sends no certificate (RFC 8446, section 2.2), so
    // it would admit a neighbour whose certificate has expired or is not trusted any more.
    accepting.send_tls13_tickets = 0;
    dialling.resumption = Resumption::disabled();
    Ok(NeighbourTls {
        mode: *mode,
        dialling: Arc::new(dialling),
        accepting: Arc::new(accepting),
    })
}

/// Returns the TLS configuration of a client program, such as herd-client. With `only` (the file of
/// `--ca`), the program trusts only the authorities in that file. Otherwise it trusts the
/// authorities that browsers trust, and those in the file `own`, the herd's own authorities.
///
/// # Errors
/// A file cannot be read, or its contents cannot be used.
pub fn client_tls_config(
    only: Option<&Path>,
    own: Option<&Path>,
) -> Result<Arc<ClientConfig>, ConfigError> {
    let mut roots = match only {
        Some(_) => RootCertStore::empty(),
        None => browser_roots(),
    };
    if let Some(path) = only.or(own) {
        roots.roots.extend(read_roots(path, "--ca")?.roots);
    }
    client_config(roots, &[])
}

/// Returns the certificate authorities that browsers trust. The list is from the time of the build.
pub(super) fn browser_roots() -> RootCertStore {
    RootCertStore {
        roots: webpki_roots::TLS_SERVER_ROOTS.to_vec(),
    }
}

/// Returns the TLS configuration for connections to servers that have a certificate from one of
/// `roots`. The configuration has no client certificate. It offers `protocols` by ALPN.
pub(super) fn client_config(
    roots: RootCertStore,
    protocols: &[&[u8]],
) -> Result<Arc<ClientConfig>, ConfigError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(unusable)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
    Ok(Arc::new(config))
}

impl Identity {
    /// Reads the certificate chain and the private key, and checks that the key belongs to the
    /// first certificate.
    fn read(
        &self,
        provider: &CryptoProvider,
    ) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), ConfigError> {
        let chain = read_certificates(&self.certificate, "certificate_file")?;
        let key = PrivateKeyDer::from_pem_file(&self.key).map_err(|error| {
            ConfigError(format!(
                "cannot read a key from {}: {}; name a PEM file in key_file",
                self.key.display(),
                pem_error_text(&error)
            ))
        })?;
        // rustls also checks later that key and certificate match. This earlier check is for a
        // better error message: it can name both files.
        let pair = provider
            .key_provider
            .load_private_key(key.clone_key())
            .and_then(|key| CertifiedKey::new(chain.clone(), key).keys_match());
        pair.map_err(|error| self.unusable(&error))?;
        Ok((chain, key))
    }

    /// Returns when the certificate expires. The other certificates of the chain are not checked: a
    /// client can have another chain to an authority that it trusts.
    ///
    /// # Errors
    /// The certificate has expired, or cannot be parsed.
    fn check(&self, now: UnixTime) -> Result<OwnCertificate, ConfigError> {
        let chain = read_certificates(&self.certificate, "certificate_file")?;
        let Some(not_after) = chain.first().and_then(not_after) else {
            return self.refused("is broken: no end can be read in it");
        };
        if not_after < now {
            return self.refused(&format!("ended on {}", Minute(not_after)));
        }
        Ok(OwnCertificate {
            file: self.certificate.display().to_string(),
            not_after,
        })
    }

    fn refused<T>(&self, why: &str) -> Result<T, ConfigError> {
        invalid(format!(
            "the certificate {} {why}; put a good one in its place (herd-certificates makes them)",
            self.certificate.display()
        ))
    }

    fn unusable(&self, error: &rustls::Error) -> ConfigError {
        ConfigError(format!(
            "the certificate {} and the key {} cannot be used: {error}",
            self.certificate.display(),
            self.key.display()
        ))
    }
}

impl PeersFiles {
    /// Like [`Identity::check`]. Also checks that neighbours will accept the certificate: the
    /// certificate has to be for this server's name, and signed by the authority that the
    /// neighbours trust.
    fn check(&self, now: UnixTime) -> Result<OwnCertificate, ConfigError> {
        let identity = &self.own;
        let own = identity.check(now)?;
        let chain = read_certificates(&identity.certificate, "certificate_file")?;
        let Some((certificate, intermediates)) = chain.split_first() else {
            return identity.refused("is none");
        };
        let roots = Arc::new(read_roots(&self.ca, "peers.tls.ca_file")?);
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        // After a boot, this machine's clock can be slow for a while. So a certificate that is not
        // valid yet is no error: it is checked as if its validity had begun.
        let now = future_not_before(certificate, now).unwrap_or(now);
        let as_server = |at| {
            let verifier =
                WebPkiServerVerifier::builder_with_provider(roots.clone(), provider.clone());
            let name = ServerName::try_from(self.name.as_str())
                .map_err(|_| CertificateError::NotValidForName)?;
            let verified = match verifier.build() {
                Ok(it) => it.verify_server_cert(certificate, intermediates, &name, &[], at),
                Err(error) => return Err(rustls::Error::General(error.to_string())),
            };
            verified.map(drop)
        };
        // A server that only dials is always the TLS client, so a client certificate is enough.
        let as_client = |at| {
            let verifier =
                WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone());
            let verified = match verifier.build() {
                Ok(it) => it.verify_client_cert(certificate, intermediates, at),
                Err(error) => return Err(rustls::Error::General(error.to_string())),
            };
            match is_valid_for(certificate, &self.name) {
                true => verified.map(drop),
                false => Err(CertificateError::NotValidForName.into()),
            }
        };
        let verify = |at| as_server(at).or_else(|error| as_client(at).map_err(|_| error));
        match verify(now) {
            Ok(()) => Ok(match verify(own.not_after) {
                // An intermediate certificate expires before the server's own certificate does.
                // Report this earlier time.
                Err(rustls::Error::InvalidCertificate(CertificateError::ExpiredContext {
                    not_after,
                    ..
                })) => OwnCertificate { not_after, ..own },
                Err(_) | Ok(()) => own,
            }),
            Err(rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => identity.refused(&format!("is for another name than {}", self.name)),
            Err(rustls::Error::InvalidCertificate(
                CertificateError::UnknownIssuer | CertificateError::BadSignature,
            )) => identity.refused(&format!(
                "is from no authority in {}, which its neighbours trust",
                self.ca.display()
            )),
            Err(rustls::Error::InvalidCertificate(reason)) => {
                identity.refused(&format!("will be refused: {reason}"))
            }
            Err(error) => identity.refused(&format!("cannot be checked: {error}")),
        }
    }
}

fn unusable(error: rustls::Error) -> ConfigError {
    ConfigError(format!("TLS cannot be set up: {error}"))
}

/// Describes an error in a PEM file. For a section that begins or ends wrongly, this function
/// writes the text: the library would print its bytes as numbers.
fn pem_error_text(error: &pem::Error) -> String {
    match error {
        pem::Error::MissingSectionEnd { end_marker } => format!(
            "it ends before a line -----END {}-----: is it whole?",
            Escaped(end_marker)
        ),
        pem::Error::IllegalSectionStart { line } => {
            format!("a section begins wrongly: {}", Escaped(line))
        }
        other => other.to_string(),
    }
}

fn read_certificates(
    path: &Path,
    option: &str,
) -> Result<Vec<CertificateDer<'static>>, ConfigError> {
    let failed = |what: String| {
        ConfigError(format!(
            "cannot read certificates from {}: {what}; name a PEM file with {option}",
            path.display()
        ))
    };
    let certificates = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| failed(pem_error_text(&error)))?;
    if certificates.is_empty() {
        return Err(failed("there is no PEM certificate in it".into()));
    }
    Ok(certificates)
}

/// Reads the certificate authorities in a PEM file. `option` is the flag or the key that sets
/// `path`; error messages name it.
pub(super) fn read_roots(path: &Path, option: &str) -> Result<RootCertStore, ConfigError> {
    let mut roots = RootCertStore::empty();
    for certificate in read_certificates(path, option)? {
        if let Err(error) = roots.add(certificate) {
            return invalid(format!(
                "cannot use a certificate of {}: {error}; name a PEM file with {option}",
                path.display()
            ));
        }
    }
    Ok(roots)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
    use rustls::{ClientConnection, HandshakeKind, ServerConnection};

    use super::*;

    /// Runs a handshake in memory, until neither side has more to send.
    fn handshake(dialling: &Arc<ClientConfig>, accepting: &Arc<ServerConfig>) -> HandshakeKind {
        let name = ServerName::try_from("Alice").unwrap();
        let mut client = ClientConnection::new(dialling.clone(), name).unwrap();
        let mut server = ServerConnection::new(accepting.clone()).unwrap();
        while client.wants_write() || server.wants_write() {
            let mut bytes = Vec::new();
            while client.wants_write() {
                client.write_tls(&mut bytes).unwrap();
            }
            server.read_tls(&mut &bytes[..]).unwrap();
            server.process_new_packets().unwrap();
            bytes.clear();
            while server.wants_write() {
                server.write_tls(&mut bytes).unwrap();
            }
            client.read_tls(&mut &bytes[..]).unwrap();
            client.process_new_packets().unwrap();
        }
        client.handshake_kind().unwrap()
    }

    #[test]
    fn no_session_is_resumed_between_neighbours_on_either_side() {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(["Alice".to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &authority).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let write = |name: &str, text: String| {
            let path = directory.path().join(name);
            fs::write(&path, text).unwrap();
            path
        };
        let files = TlsFiles {
            clients: None,
            neighbours: Some(PeersFiles {
                name: "Alice".into(),
                mode: TlsMode::Required,
                ca: write("ca.pem", authority.pem()),
                own: Identity {
                    certificate: write("own.pem", certificate.pem()),
                    key: write("own.key", key.serialize_pem()),
                },
            }),
        };
        let tls = files.read().unwrap().neighbours.unwrap();
        let resuming = || {
            let mut resuming = ClientConfig::clone(&tls.dialling);
            resuming.resumption = Resumption::default();
            Arc::new(resuming)
        };
        let mut remembering = ServerConfig::clone(&tls.accepting);
        remembering.session_storage = rustls::server::ServerSessionMemoryCache::new(16);
        remembering.send_tls13_tickets = 2;
        let remembering = Arc::new(remembering);
        for (dialling, accepting, second) in [
            (resuming(), &remembering, HandshakeKind::Resumed),
            (resuming(), &tls.accepting, HandshakeKind::Full),
            (tls.dialling.clone(), &remembering, HandshakeKind::Full),
            (tls.dialling.clone(), &tls.accepting, HandshakeKind::Full),
        ] {
            assert_eq!(handshake(&dialling, accepting), HandshakeKind::Full);
            assert_eq!(handshake(&dialling, accepting), second);
        }
    }
}
