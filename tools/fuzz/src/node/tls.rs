//! TLS as the others speak it: certificates made when the process begins, and the far end of a connection.

use std::io::{Read, Write};
use std::sync::{Arc, OnceLock};

use herd_mio::core::base::settings::{NeighbourTls, TlsMode, TlsSettings};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, PKCS_ED25519, SerialNumber,
};
use rustls::client::Resumption;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::{
    ClientConfig, ClientConnection, Connection, RootCertStore, ServerConfig, ServerConnection,
};

use super::neighbour::NAMES;
use super::places::HOST;
use crate::server;

type Anyhow = Box<dyn std::error::Error>;

/// What one side needs to be believed, whichever side it is.
struct Identity {
    name: &'static str,
    /// Shows a certificate, and wants to see one.
    mutual: (Arc<ClientConfig>, Arc<ServerConfig>),
    /// Only the server shows one.
    one_sided: (Arc<ClientConfig>, Arc<ServerConfig>),
}

/// Everybody who has a certificate.
fn identities() -> &'static [Identity] {
    static IDENTITIES: OnceLock<Vec<Identity>> = OnceLock::new();
    IDENTITIES.get_or_init(|| match make_all() {
        Ok(identities) => identities,
        Err(error) => panic!("certificates can be made: {error}"),
    })
}

fn make_all() -> Result<Vec<Identity>, Anyhow> {
    // Ed25519, and numbers of our own: everything has the same length in each run.
    let mut ca = CertificateParams::default();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    ca.serial_number = Some(SerialNumber::from(1_u64));
    let ca = CertifiedIssuer::self_signed(ca, KeyPair::generate_for(&PKCS_ED25519)?)?;
    let mut roots = RootCertStore::empty();
    roots.add(ca.der().clone())?;
    let roots = Arc::new(roots);
    let names = NAMES.into_iter().chain([server::NAME, HOST]);
    names
        .map(|name| {
            let key = KeyPair::generate_for(&PKCS_ED25519)?;
            let mut leaf = CertificateParams::new([name.to_owned()])?;
            leaf.serial_number = Some(SerialNumber::from(2_u64));
            let leaf = leaf.signed_by(&key, &ca)?;
            let key = || PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
            make(name, &roots, leaf.der(), key)
        })
        .collect()
}

fn make(
    name: &'static str,
    roots: &Arc<RootCertStore>,
    leaf: &CertificateDer<'static>,
    key: impl Fn() -> PrivateKeyDer<'static>,
) -> Result<Identity, Anyhow> {
    let provider = Arc::new(default_provider());
    let verifier =
        WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone()).build()?;
    let client = || {
        let versions = ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions();
        versions.map(|builder| builder.with_root_certificates(roots.clone()))
    };
    let server = || {
        ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions()
    };
    // Nothing of one run is left in the next.
    let forgetful = |mut config: ClientConfig| {
        config.resumption = Resumption::disabled();
        Arc::new(config)
    };
    let chain = vec![leaf.clone()];
    Ok(Identity {
        name,
        mutual: (
            forgetful(client()?.with_client_auth_cert(chain.clone(), key())?),
            Arc::new(
                server()?
                    .with_client_cert_verifier(verifier)
                    .with_single_cert(chain.clone(), key())?,
            ),
        ),
        one_sided: (
            forgetful(client()?.with_no_client_auth()),
            Arc::new(
                server()?
                    .with_no_client_auth()
                    .with_single_cert(chain, key())?,
            ),
        ),
    })
}

fn identity(name: &str) -> &'static Identity {
    let Some(identity) = identities().iter().find(|identity| identity.name == name) else {
        panic!("{name} has a certificate");
    };
    identity
}

/// What the server under test trusts where it asks Places.
pub(crate) fn trust() -> Arc<ClientConfig> {
    identity(HOST).one_sided.0.clone()
}

/// How the server under test speaks TLS with clients and neighbours.
pub(crate) fn settings() -> TlsSettings {
    let own = identity(server::NAME);
    TlsSettings {
        clients: Some(own.one_sided.1.clone()),
        neighbours: Some(NeighbourTls {
            mode: TlsMode::Required,
            dialling: own.mutual.0.clone(),
            accepting: own.mutual.1.clone(),
        }),
        own: Vec::new(),
    }
}

/// The far end of a connection.
pub(crate) struct Shield {
    tls: Connection,
}

impl Shield {
    /// A client of the server.
    pub(crate) fn mobile() -> Shield {
        Shield::dialling(identity(server::NAME).one_sided.0.clone())
    }

    /// A neighbour that dials the server, or that is dialled.
    pub(crate) fn neighbour(name: &str, is_dialled: bool) -> Shield {
        let (client, server) = &identity(name).mutual;
        if is_dialled {
            Shield::accepting(server.clone())
        } else {
            Shield::dialling(client.clone())
        }
    }

    /// What stands in for Google Places.
    pub(crate) fn places() -> Shield {
        Shield::accepting(identity(HOST).one_sided.1.clone())
    }

    fn dialling(config: Arc<ClientConfig>) -> Shield {
        let begun = ServerName::try_from(server::NAME)
            .map_err(Anyhow::from)
            .and_then(|name| Ok(ClientConnection::new(config, name)?));
        match begun {
            Ok(tls) => Shield::of(tls.into()),
            Err(error) => panic!("TLS can begin: {error}"),
        }
    }

    fn accepting(config: Arc<ServerConfig>) -> Shield {
        match ServerConnection::new(config) {
            Ok(tls) => Shield::of(tls.into()),
            Err(error) => panic!("TLS can begin: {error}"),
        }
    }

    fn of(mut tls: Connection) -> Shield {
        // What is said before the handshake is over waits for that, however much it is.
        tls.set_buffer_limit(None);
        Shield { tls }
    }

    /// Says something, once the handshake is done; returns the bytes for the socket.
    pub(crate) fn seal(&mut self, plaintext: &[u8]) -> Vec<u8> {
        // Fails only if the connection is over.
        let _ = self.tls.writer().write_all(plaintext);
        let mut out = Vec::new();
        while self.tls.wants_write() && self.tls.write_tls(&mut out).is_ok() {}
        out
    }

    /// Says that there is no more; nothing while the handshake goes on, as rustls would not hear the other side's goodbye then.
    pub(crate) fn close(&mut self) -> Vec<u8> {
        if self.tls.is_handshaking() {
            return Vec::new();
        }
        self.tls.send_close_notify();
        self.seal(b"")
    }

    /// Takes what the server under test has written: the plaintext in it, and what TLS says to that.
    pub(crate) fn open(&mut self, mut bytes: &[u8]) -> (Vec<u8>, Vec<u8>) {
        let mut plaintext = Vec::new();
        while !bytes.is_empty() {
            let taken = self.tls.read_tls(&mut bytes).unwrap_or(0);
            let processed = self.tls.process_new_packets();
            let waiting = processed.map_or(0, |state| state.plaintext_bytes_to_read());
            let start = plaintext.len();
            plaintext.resize(start + waiting, 0);
            if waiting > 0
                && self
                    .tls
                    .reader()
                    .read_exact(&mut plaintext[start..])
                    .is_err()
            {
                plaintext.truncate(start);
            }
            if taken == 0 {
                break;
            }
        }
        (plaintext, self.seal(b""))
    }
}
