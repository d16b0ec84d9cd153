//! A certificate in a file: its names, its validity, and whether servers that trust its authority
//! would accept it.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use herd_mio::core::session::tls::is_valid_for;
use herd_testkit::failure::{Failure, system};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, DnsName, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::sign::CertifiedKey;
use rustls::{CertificateError, RootCertStore};
use time::OffsetDateTime;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use crate::subject::{Subject, Usage};

/// The parts of a certificate that this program needs.
#[derive(Debug)]
pub(crate) struct Certificate {
    pub(crate) der: CertificateDer<'static>,
    /// The common name, empty if there is none.
    pub(crate) common_name: String,
    /// The DNS names and IP addresses of its subject.
    pub(crate) names: Vec<ServerName<'static>>,
    pub(crate) not_before: OffsetDateTime,
    pub(crate) not_after: OffsetDateTime,
    /// Whether it may sign other certificates.
    pub(crate) is_authority: bool,
    /// The SubjectPublicKeyInfo in DER.
    pub(crate) public_key: Vec<u8>,
}

impl Certificate {
    /// All certificates of a PEM file. There is at least one.
    pub(crate) fn read_all(path: &Path) -> Result<Vec<Certificate>, Failure> {
        let shown = path.display();
        let pem = fs::read(path).map_err(system(format!("read {shown}")))?;
        let mut certificates = Vec::new();
        for der in CertificateDer::pem_slice_iter(&pem) {
            let certificate = der.map_err(|error| error.to_string());
            certificates.push(certificate.and_then(Certificate::parse).map_err(|what| {
                Failure::Failed(format!("{shown} has an invalid certificate: {what}"))
            })?);
        }
        if certificates.is_empty() {
            return Err(Failure::Failed(format!(
                "{shown} has no certificate in PEM"
            )));
        }
        Ok(certificates)
    }

    /// The first certificate of a PEM file. Those after it are the chain to its authority.
    pub(crate) fn read(path: &Path) -> Result<Certificate, Failure> {
        Ok(Certificate::read_all(path)?.remove(0))
    }

    /// Parses a certificate.
    pub(crate) fn parse(der: CertificateDer<'static>) -> Result<Certificate, String> {
        let (_, x509) = X509Certificate::from_der(&der).map_err(|error| error.to_string())?;
        let common_name = x509.subject().iter_common_name().next();
        let alternative_names = x509
            .subject_alternative_name()
            .map_err(|error| error.to_string())?
            .map_or(&[][..], |extension| &extension.value.general_names);
        let signs_others = x509
            .key_usage()
            .map_err(|error| error.to_string())?
            .is_none_or(|usage| usage.value.key_cert_sign());
        Ok(Certificate {
            common_name: common_name
                .and_then(|name| name.as_str().ok())
                .unwrap_or_default()
                .to_owned(),
            names: alternative_names.iter().filter_map(name).collect(),
            not_before: x509.validity().not_before.to_datetime(),
            not_after: x509.validity().not_after.to_datetime(),
            is_authority: x509.is_ca() && signs_others,
            public_key: x509.public_key().raw.to_vec(),
            der,
        })
    }

    /// Whole days until its end. Negative after its end.
    pub(crate) fn days_left(&self, now: OffsetDateTime) -> i64 {
        const DAY_S: i64 = 24 * 60 * 60;
        (self.not_after - now).whole_seconds().div_euclid(DAY_S)
    }

    /// Whether peers that trust `authority` accept it for `subject`, in every role of the subject.
    /// The servers' own verifiers check that, with the time at which the certificate begins. So
    /// this does not check whether it has ended.
    pub(crate) fn check(
        &self,
        subject: &Subject,
        authority: &CertificateDer<'static>,
    ) -> Result<(), String> {
        let provider = Arc::new(ring::default_provider());
        let mut roots = RootCertStore::empty();
        roots
            .add(authority.clone())
            .map_err(|error| format!("its authority cannot be trusted: {error}"))?;
        let roots = Arc::new(roots);
        let begin_s = u64::try_from(self.not_before.unix_timestamp()).unwrap_or_default();
        let begin = UnixTime::since_unix_epoch(Duration::from_secs(begin_s));

        if subject.usage != Usage::Dialling {
            let verifier =
                WebPkiServerVerifier::builder_with_provider(roots.clone(), provider.clone())
                    .build()
                    .map_err(|error| error.to_string())?;
            for name in &subject.names {
                verifier
                    .verify_server_cert(&self.der, &[], name, &[], begin)
                    .map_err(|error| in_words(error, subject))?;
            }
        }
        if subject.usage != Usage::Accepting {
            WebPkiClientVerifier::builder_with_provider(roots, provider)
                .build()
                .map_err(|error| error.to_string())?
                .verify_client_cert(&self.der, &[], begin)
                .map_err(|error| in_words(error, subject))?;
            if !subject
                .names
                .iter()
                .all(|name| is_valid_for(&self.der, &name.to_str()))
            {
                return Err(for_another_name(subject));
            }
        }
        Ok(())
    }

    /// Whether this PEM file has the private key of this certificate.
    pub(crate) fn check_key(&self, path: &Path, provider: &CryptoProvider) -> Result<(), String> {
        let shown = path.display();
        let key = PrivateKeyDer::from_pem_file(path)
            .map_err(|error| format!("cannot read a key from {shown}: {error}"))?;
        provider
            .key_provider
            .load_private_key(key)
            .and_then(|key| CertifiedKey::new(vec![self.der.clone()], key).keys_match())
            .map_err(|_| format!("the key in {shown} does not belong to the certificate"))
    }
}

/// TLS does not use other kinds of names (mail addresses, URIs).
fn name(name: &GeneralName<'_>) -> Option<ServerName<'static>> {
    match name {
        GeneralName::DNSName(name) => DnsName::try_from((*name).to_owned())
            .ok()
            .map(ServerName::DnsName),
        GeneralName::IPAddress(bytes) => {
            let v4 = <[u8; 4]>::try_from(*bytes).map(std::net::IpAddr::from);
            let v6 = || <[u8; 16]>::try_from(*bytes).map(std::net::IpAddr::from);
            let ip = v4.or_else(|_| v6()).ok()?;
            Some(ServerName::IpAddress(ip.into()))
        }
        _ => None,
    }
}

fn in_words(error: rustls::Error, subject: &Subject) -> String {
    match error {
        rustls::Error::InvalidCertificate(
            CertificateError::UnknownIssuer | CertificateError::BadSignature,
        ) => "this authority did not sign it".to_owned(),
        rustls::Error::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        ) => for_another_name(subject),
        rustls::Error::InvalidCertificate(reason) => reason.to_string(),
        other => other.to_string(),
    }
}

fn for_another_name(subject: &Subject) -> String {
    format!("it is not for {}", crate::subject::listed(&subject.names))
}
