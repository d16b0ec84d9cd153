//! Reads certificates and keys from PEM files, and makes the configurations of rustls from them.
//!
//! Connections with clients and Places use TLS 1.2 or 1.3. Links use only 1.3: it encrypts
//! certificates too, and no old server has to be supported.

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
    /// Returns the mode: whether TLS is required for links or only offered.
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

/// The files that prove a name: a certificate chain, and the key of its first certificate.
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

    /// Reads all files.
    ///
    /// # Errors
    /// A file cannot be read, or its contents cannot be used.
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

    /// Describes for `--check` the connections with clients, and those with neighbours.
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

/// Returns the TLS configuration of a client program. With `only` (`--ca`), it trusts the
/// authorities in that file alone. Otherwise it trusts the authorities of browsers, and those in
/// `own`, the herd's file.
///
/// # Errors
/// A file cannot be read, or its contents cannot be used.
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

/// Returns the certificate authorities that browsers trust. The list is from the time of the build.
pub(super) fn of_browsers() -> RootCertStore {
    RootCertStore {
        roots: webpki_roots::TLS_SERVER_ROOTS.to_vec(),
    }
}

/// Returns the TLS configuration for dialling servers that one of `roots` vouches for. It has no
/// client certificate, and offers `protocols` by ALPN.
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
    /// Reads the certificate chain and its key, and checks that they belong together.
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
        // Check this here, where the error can name both files.
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

/// Describes an error in a PEM file. For a section that begins or ends wrongly, the library would
/// print bytes as numbers.
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

/// Reads the certificate authorities in a PEM file. `option` is the setting that named the file; an
/// error repeats it.
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
