//! Certificates and keys, from PEM files to what rustls wants.
//!
//! Clients and Places may speak TLS 1.2 or 1.3. Servers speak 1.3 with one another: it encrypts
//! certificates too, and there is no old server to be kind to.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, RootCertStore, ServerConfig, version};
use serde::Deserialize;

use super::redact::redact;
use super::{ConfigError, wrong};
use crate::core::base::settings::{NeighbourTls, TlsMode, TlsSettings};
use crate::core::wire::escape::Escaped;

/// `[clients]` of the TOML file.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct FileClients {
    pub(super) proxy_protocol: Option<bool>,
    pub(super) proxies: Option<Vec<String>>,
    pub(super) tls: Option<FileClientsTls>,
}

/// `[clients.tls]`
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

/// `[peers.tls]`
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
    /// Whether links may go without TLS.
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

/// Proof of a name: a certificate, with those that lead to its authority, and its key.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Identity {
    certificate: PathBuf,
    key: PathBuf,
}

/// The files that make up a server's side of TLS; they can be read anew while it runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsFiles {
    clients: Option<Identity>,
    neighbours: Option<PeersFiles>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct PeersFiles {
    mode: TlsMode,
    ca: PathBuf,
    own: Identity,
}

impl TlsFiles {
    /// What `name` uses of the file's tables; paths are relative to `directory`, and `{name}` in
    /// them is the server's name.
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
                mode: tls.mode().unwrap_or_default(), // checked when the file was read
                ca: path(&tls.ca_file),
                own: identity(&tls.certificate_file, &tls.key_file),
            }),
        }
    }

    /// Whether TLS is spoken with neighbours, and if so, whether a link may go without.
    #[must_use]
    pub fn for_neighbours(&self) -> Option<TlsMode> {
        self.neighbours.as_ref().map(|files| files.mode)
    }

    /// Whether TLS is spoken with clients.
    #[must_use]
    pub fn has_clients(&self) -> bool {
        self.clients.is_some()
    }

    /// The file with the herd's own authority, if it has one.
    #[must_use]
    pub fn authority(&self) -> Option<&Path> {
        self.neighbours.as_ref().map(|files| files.ca.as_path())
    }

    /// The files with private keys.
    pub(super) fn keys(&self) -> impl Iterator<Item = PathBuf> {
        let neighbours = self.neighbours.as_ref().map(|files| &files.own);
        let identities = self.clients.iter().chain(neighbours);
        identities.map(|identity| identity.key.clone())
    }

    /// Whether there is anything to be read.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == TlsFiles::default()
    }

    /// Reads all of them.
    ///
    /// # Errors
    /// A file cannot be read, or what is in it cannot be used.
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
        })
    }

    /// Reads what TLS with neighbours takes, if that is spoken.
    ///
    /// # Errors
    /// A file cannot be read, or what is in it cannot be used.
    pub fn read_for_neighbours(&self) -> Result<Option<NeighbourTls>, ConfigError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        self.neighbours
            .as_ref()
            .map(|files| for_neighbours(files, &provider))
            .transpose()
    }

    /// For `--check`: towards clients, towards neighbours.
    pub(super) fn describe(&self) -> (String, String) {
        let identity = |identity: &Identity| format!("TLS, as {}", identity.certificate.display());
        (
            self.clients.as_ref().map_or("plain TCP".into(), identity),
            self.neighbours
                .as_ref()
                .map_or("plain TCP".into(), |PeersFiles { mode, ca, own }| {
                    let mode = match mode {
                        TlsMode::Required => "required",
                        TlsMode::Offered => "offered, links may be plain",
                    };
                    let (own, ca) = (identity(own), ca.display());
                    format!("mutual {own}, trusting {ca}; {mode}")
                }),
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
    } = files;
    let roots = Arc::new(roots_of(ca, "peers.tls.ca_file")?);
    let verifier = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone())
        .build()
        .map_err(|error| {
            ConfigError(format!(
                "the certificates in {} cannot be used: {error}",
                ca.display()
            ))
        })?;
    let (chain, key) = identity.read(provider)?;
    let accepting = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&version::TLS13])
        .map_err(unusable)?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain.clone(), key.clone_key())
        .map_err(|error| identity.unusable(&error))?;
    let dialling = ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&version::TLS13])
        .map_err(unusable)?
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)
        .map_err(|error| identity.unusable(&error))?;
    Ok(NeighbourTls {
        mode: *mode,
        dialling: Arc::new(dialling),
        accepting: Arc::new(accepting),
    })
}

/// What a client of a herd trusts: the authorities in `only` (`--ca`), or else those that browsers
/// trust and those in `own`, the herd's.
///
/// # Errors
/// A file cannot be read, or what is in it cannot be used.
pub fn for_a_client(
    only: Option<&Path>,
    own: Option<&Path>,
) -> Result<Arc<ClientConfig>, ConfigError> {
    let mut roots = match only {
        Some(_) => RootCertStore::empty(),
        None => of_browsers(),
    };
    if let Some(path) = only.or(own) {
        roots.roots.extend(roots_of(path, "--ca")?.roots);
    }
    trusting(roots, &[])
}

/// The authorities that browsers trust, as they were when this was built.
pub(super) fn of_browsers() -> RootCertStore {
    RootCertStore {
        roots: webpki_roots::TLS_SERVER_ROOTS.to_vec(),
    }
}

/// How to dial servers that one of `roots` vouches for, without a certificate of one's own; by ALPN
/// they are offered `protocols`.
pub(super) fn trusting(
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
    /// The certificate chain, and the key that belongs to it.
    fn read(
        &self,
        provider: &CryptoProvider,
    ) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), ConfigError> {
        let chain = certificates_in(&self.certificate, "certificate_file")?;
        let key = PrivateKeyDer::from_pem_file(&self.key).map_err(|error| {
            ConfigError(format!(
                "cannot read a key from {}: {}; name a PEM file in key_file",
                self.key.display(),
                in_words(&error)
            ))
        })?;
        // Said here, where both files can be named.
        let pair = provider
            .key_provider
            .load_private_key(key.clone_key())
            .and_then(|key| CertifiedKey::new(chain.clone(), key).keys_match());
        pair.map_err(|error| self.unusable(&error))?;
        Ok((chain, key))
    }

    fn unusable(&self, error: &rustls::Error) -> ConfigError {
        ConfigError(format!(
            "the certificate {} and the key {} cannot be used: {error}",
            self.certificate.display(),
            self.key.display()
        ))
    }
}

fn unusable(error: rustls::Error) -> ConfigError {
    ConfigError(format!("TLS cannot be set up: {error}"))
}

/// What is wrong with a PEM file. Where a section begins or ends, the library's own words show
/// bytes as numbers.
fn in_words(error: &pem::Error) -> String {
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

fn certificates_in(path: &Path, option: &str) -> Result<Vec<CertificateDer<'static>>, ConfigError> {
    let failed = |what: String| {
        ConfigError(format!(
            "cannot read certificates from {}: {what}; name a PEM file with {option}",
            path.display()
        ))
    };
    let certificates = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| failed(in_words(&error)))?;
    if certificates.is_empty() {
        return Err(failed("there is no PEM certificate in it".into()));
    }
    Ok(certificates)
}

/// The certificate authorities in a PEM file; `option` is where it was named.
pub(super) fn roots_of(path: &Path, option: &str) -> Result<RootCertStore, ConfigError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates_in(path, option)? {
        if let Err(error) = roots.add(certificate) {
            return wrong(format!(
                "cannot use a certificate of {}: {error}; name a PEM file with {option}",
                path.display()
            ));
        }
    }
    Ok(roots)
}
