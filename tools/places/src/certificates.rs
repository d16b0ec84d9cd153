//! A certificate authority that exists as long as the process, and the one certificate that it
//! signs.

use std::io;
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose,
};
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

/// The server's certificate and key, and the CA certificate that its clients trust.
pub(crate) struct Identity {
    pub(crate) tls: Arc<ServerConfig>,
    /// The CA's certificate. The CA's private key is dropped after it has signed once.
    pub(crate) ca_pem: String,
}

/// Makes a CA and a server certificate for these DNS names and IP addresses. `alpn` has the
/// protocols of the server.
///
/// The validity is rcgen's default of thousands of years, so that a test with a wrong clock does
/// not fail because of the certificate.
pub(crate) fn make(names: &[String], alpn: &[String]) -> io::Result<Identity> {
    if names.is_empty() {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "a certificate needs at least one name",
        ));
    }

    let mut ca = CertificateParams::default();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    ca.distinguished_name
        .push(DnType::CommonName, "herd-places CA (tests only)");
    let ca =
        CertifiedIssuer::self_signed(ca, KeyPair::generate().map_err(invalid)?).map_err(invalid)?;

    let key = KeyPair::generate().map_err(invalid)?;
    let mut leaf = CertificateParams::new(names).map_err(invalid)?;
    leaf.distinguished_name
        .push(DnType::CommonName, "herd-places");
    leaf.use_authority_key_identifier_extension = true;
    leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let leaf = leaf.signed_by(&key, &ca).map_err(invalid)?;

    // The provider is explicit, because rustls cannot choose a default if a test binary links two.
    let mut tls = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(invalid)?
        .with_no_client_auth()
        .with_single_cert(
            vec![leaf.der().clone()],
            PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der())),
        )
        .map_err(invalid)?;
    // A client that offers h2 and HTTP/1.1 gets HTTP/1.1. A client that offers only h2 fails in the
    // handshake, with a clear reason. A client without ALPN is accepted.
    tls.alpn_protocols = alpn.iter().map(|name| name.clone().into_bytes()).collect();
    Ok(Identity {
        tls: Arc::new(tls),
        ca_pem: ca.pem(),
    })
}

fn invalid(error: impl std::error::Error + Send + Sync + 'static) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, error)
}
