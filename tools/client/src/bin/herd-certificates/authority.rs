//! The herd's certificate authority: how it is made, how it is read back, and how it signs.
//!
//! It has no name constraints. They would have to list the servers' names. But the authority's
//! certificate never changes, so a later server could not be added. Servers trust this authority
//! only for their neighbours, and compare names themselves.

use std::fs;

use herd_testkit::failure::{Failure, system};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
    PublicKeyData, SanType, SerialNumber,
};
use ring::rand::{SecureRandom, SystemRandom};
use rustls::pki_types::{CertificateDer, ServerName};
use time::{Duration, OffsetDateTime};

use crate::certificate::Certificate;
use crate::directory::{Directory, Pems};
use crate::subject::{AUTHORITY, Subject, Usage};

/// The validity of an authority: ten years, with their leap days.
pub(crate) const AUTHORITY_DAYS: i64 = 3653;
/// Certificates begin in the past, so that a host with a slow clock accepts them at once. Their
/// days are counted from that time, as systems do that accept only a certain number of days.
const BACKDATED: Duration = Duration::hours(1);

/// A certificate authority that can sign.
pub(crate) struct Authority {
    pub(crate) certificate: Certificate,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// A new authority, and the text of its files.
    pub(crate) fn make(now: OffsetDateTime) -> Result<(Authority, Pems), Failure> {
        let serial = serial_number()?;
        let mut params = params(now, AUTHORITY_DAYS);
        // Each authority has its own name, so that an operator can tell two apart.
        let digits: String = serial[..4]
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        params
            .distinguished_name
            .push(DnType::CommonName, format!("herd CA {digits}"));
        params.serial_number = Some(SerialNumber::from_slice(&serial));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let made = CertifiedIssuer::self_signed(params.clone(), key()?).map_err(unmade)?;
        let pems = Pems {
            certificate: made.pem(),
            key: made.key().serialize_pem(),
        };
        let certificate = parsed(made.der().clone())?;
        let key = KeyPair::from_pem(&pems.key).map_err(unmade)?;
        let issuer = Issuer::new(params, key);
        Ok((
            Authority {
                certificate,
                issuer,
            },
            pems,
        ))
    }

    /// Reads the authority in `directory`. An error if it cannot sign now.
    pub(crate) fn read(directory: &Directory, now: OffsetDateTime) -> Result<Authority, Failure> {
        let files = directory.files(AUTHORITY);
        let (shown, shown_key) = (files.certificate.display(), files.key.display());
        let mut certificates = Certificate::read_all(&files.certificate)?;
        if certificates.len() > 1 {
            return Err(Failure::Failed(format!(
                "{shown} has {} certificates, but only one can belong to {shown_key}; remove the others",
                certificates.len()
            )));
        }
        let certificate = certificates.remove(0);
        if !certificate.is_authority {
            return Err(Failure::Failed(format!(
                "{shown} is not a certificate authority: it must not sign certificates"
            )));
        }
        if certificate.not_after <= now {
            return Err(Failure::Failed(format!(
                "the authority {shown} has expired on {}; {NEW_AUTHORITY}",
                certificate.not_after.date()
            )));
        }
        if certificate.not_before > now {
            return Err(Failure::Failed(format!(
                "the authority {shown} is valid from {} on, and today is {}; check this machine's clock",
                certificate.not_before.date(),
                now.date()
            )));
        }
        let pem = fs::read_to_string(&files.key).map_err(system(format!("read {shown_key}")))?;
        let key = KeyPair::from_pem(&pem).map_err(|error| {
            Failure::Failed(format!(
                "{shown_key} has no usable private key ({error}); it has to be PKCS#8 in PEM, without a password"
            ))
        })?;
        if key.subject_public_key_info() != certificate.public_key {
            return Err(Failure::Failed(format!(
                "{shown_key} is not the key of {shown}: one of them belongs to another authority; put the right one back"
            )));
        }
        let issuer = Issuer::from_ca_cert_der(&certificate.der, key).map_err(|error| {
            Failure::Failed(format!("{shown} cannot be used as an authority: {error}"))
        })?;
        Ok(Authority {
            certificate,
            issuer,
        })
    }

    /// A new key and a certificate for `subject`. It is valid for so many days, but not longer than
    /// the authority.
    pub(crate) fn sign(
        &self,
        subject: &Subject,
        days: i64,
        now: OffsetDateTime,
    ) -> Result<(Certificate, Pems), Failure> {
        let mut params = params(now, days);
        params.not_after = params.not_after.min(self.certificate.not_after);
        params
            .distinguished_name
            .push(DnType::CommonName, subject.stem.as_str());
        params.serial_number = Some(SerialNumber::from_slice(&serial_number()?));
        params.subject_alt_names = subject
            .names
            .iter()
            .map(alternative_name)
            .collect::<Result<_, _>>()?;
        params.is_ca = IsCa::ExplicitNoCa;
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        let (server, client) = (
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        );
        params.extended_key_usages = match subject.usage {
            Usage::Both => vec![server, client],
            Usage::Dialling => vec![client],
            Usage::Accepting => vec![server],
        };
        let key = key()?;
        let signed = params.signed_by(&key, &self.issuer).map_err(unmade)?;
        let certificate = parsed(signed.der().clone())?;
        // An authority of another tool may have constraints. It is better to report that here than
        // in a handshake.
        certificate
            .check(subject, &self.certificate.der)
            .map_err(|what| {
                Failure::Failed(format!(
                    "servers would not accept a certificate for {} from this authority: {what}",
                    subject.stem
                ))
            })?;
        let pems = Pems {
            certificate: signed.pem(),
            key: key.serialize_pem(),
        };
        Ok((certificate, pems))
    }
}

/// The advice when an authority ends.
pub(crate) const NEW_AUTHORITY: &str = "make a new one in another directory, and make servers trust both until all have new certificates (see --help)";

fn params(now: OffsetDateTime, days: i64) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.not_before = now - BACKDATED;
    params.not_after = params.not_before + Duration::days(days);
    params
}

fn key() -> Result<KeyPair, Failure> {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(unmade)
}

/// Sixteen random bytes that begin with the bits 01. So the number is positive, and its length is
/// always the same.
fn serial_number() -> Result<[u8; 16], Failure> {
    let mut serial = [0; 16];
    SystemRandom::new()
        .fill(&mut serial)
        .map_err(|_| Failure::Failed("the system gives no random numbers".into()))?;
    serial[0] = (serial[0] & 0x3f) | 0x40;
    Ok(serial)
}

fn alternative_name(name: &ServerName<'_>) -> Result<SanType, Failure> {
    let name = match name {
        ServerName::IpAddress(ip) => return Ok(SanType::IpAddress((*ip).into())),
        other => other.to_str().into_owned(),
    };
    Ok(SanType::DnsName(name.try_into().map_err(unmade)?))
}

fn parsed(der: CertificateDer<'static>) -> Result<Certificate, Failure> {
    Certificate::parse(der)
        .map_err(|what| Failure::Failed(format!("the new certificate cannot be read: {what}")))
}

fn unmade(error: rcgen::Error) -> Failure {
    Failure::Failed(format!("cannot make the certificate: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use x509_parser::prelude::{FromDer, X509Certificate};

    fn now() -> OffsetDateTime {
        OffsetDateTime::from_unix_timestamp(1_800_000_000).unwrap()
    }

    fn riley() -> Subject {
        Subject {
            stem: "Riley".into(),
            names: vec![ServerName::try_from("Riley").unwrap()],
            usage: Usage::Both,
        }
    }

    #[test]
    fn an_authority_can_only_sign_leaf_certificates() {
        let (authority, _) = Authority::make(now()).unwrap();
        let (_, x509) = X509Certificate::from_der(&authority.certificate.der).unwrap();
        let constraints = x509.basic_constraints().unwrap().unwrap().value;
        assert!(constraints.ca && constraints.path_len_constraint == Some(0));
        let usage = x509.key_usage().unwrap().unwrap().value;
        assert!(usage.key_cert_sign() && usage.crl_sign() && !usage.digital_signature());
        assert_eq!(authority.certificate.days_left(now()), AUTHORITY_DAYS - 1);
    }

    #[test]
    fn a_leaf_has_the_subject_names_and_validity() {
        let (authority, _) = Authority::make(now()).unwrap();
        let (leaf, _) = authority.sign(&riley(), 825, now()).unwrap();
        assert_eq!(leaf.common_name, "Riley");
        assert_eq!(
            leaf.names[0].to_str(),
            "Riley",
            "in the letters of the herd"
        );
        assert_eq!(leaf.not_before, now() - Duration::hours(1));
        assert_eq!(leaf.not_after, leaf.not_before + Duration::days(825));
        let (_, x509) = X509Certificate::from_der(&leaf.der).unwrap();
        assert!(!x509.is_ca());
        let usage = x509.extended_key_usage().unwrap().unwrap().value;
        assert!(usage.server_auth && usage.client_auth && !usage.any);
        assert_eq!(
            x509.public_key().algorithm.algorithm.to_string(),
            "1.2.840.10045.2.1",
            "an elliptic curve"
        );
        assert_eq!(x509.raw_serial().len(), 16);
    }

    #[test]
    fn leaves_end_with_their_authority_and_serials_are_unique() {
        let (authority, _) = Authority::make(now()).unwrap();
        let later = now() + Duration::days(AUTHORITY_DAYS - 100);
        let (leaf, _) = authority.sign(&riley(), 825, later).unwrap();
        assert_eq!(leaf.not_after, authority.certificate.not_after);
        assert_eq!(leaf.days_left(later), 99);
        assert_ne!(serial_number().unwrap(), serial_number().unwrap());
    }

    #[test]
    fn a_leaf_is_valid_for_its_names_usage_and_authority_only() {
        let (authority, _) = Authority::make(now()).unwrap();
        let (leaf, _) = authority.sign(&riley(), 825, now()).unwrap();
        let authority = authority.certificate.der;
        assert_eq!(leaf.check(&riley(), &authority), Ok(()));

        let mut other = riley();
        other.names = vec![ServerName::try_from("Juzang").unwrap()];
        for usage in [Usage::Both, Usage::Dialling, Usage::Accepting] {
            other.usage = usage;
            let error = leaf.check(&other, &authority).unwrap_err();
            assert_eq!(error, "it is not for Juzang");
        }
        let (stranger, _) = Authority::make(now()).unwrap();
        let error = leaf.check(&riley(), &stranger.certificate.der).unwrap_err();
        assert_eq!(error, "this authority did not sign it");
    }

    #[test]
    fn a_dialling_leaf_cannot_accept_and_vice_versa() {
        let (authority, _) = Authority::make(now()).unwrap();
        for (usage, others) in [
            (Usage::Dialling, [Usage::Accepting, Usage::Both]),
            (Usage::Accepting, [Usage::Dialling, Usage::Both]),
        ] {
            let subject = |usage| Subject { usage, ..riley() };
            let (leaf, _) = authority.sign(&subject(usage), 825, now()).unwrap();
            for other in others {
                leaf.check(&subject(other), &authority.certificate.der)
                    .unwrap_err();
            }
        }
    }
}
