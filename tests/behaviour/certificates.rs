//! Certificates with every kind of flaw, and one without. Tests show them where a peer poses as
//! another one.

use rcgen::{
    CertificateParams, ExtendedKeyUsagePurpose, Issuer, KeyPair, KeyUsagePurpose, date_time_ymd,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::tls::Authority;

/// The flaw of a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flaw {
    /// No flaw.
    None,
    /// It is for another name.
    OtherName,
    /// It is for all names of a domain, and the expected name is not in this domain.
    OtherWildcard,
    /// It has the name only in the subject, and no subject alternative name.
    SubjectOnly,
    /// It has expired.
    Expired,
    /// It is not valid yet.
    NotYetValid,
    /// It is valid only for TLS clients.
    ForClientsOnly,
    /// It is valid only for TLS servers.
    ForServersOnly,
    /// It is self-signed.
    SelfSigned,
    /// It is signed by an untrusted authority that has the name of the trusted one.
    UnknownAuthority,
    /// It is signed with a good certificate of another server, which is not an authority.
    SignedByAPeer,
}

/// The certificate chain that one side of TLS presents, and its key.
pub(crate) struct Identity {
    pub(crate) chain: Vec<CertificateDer<'static>>,
    pub(crate) key: PrivateKeyDer<'static>,
}

/// A certificate for `name`, signed by `authority`, with this flaw.
pub(crate) fn identity(authority: &Authority, name: &str, flaw: Flaw) -> Identity {
    let names: &[&str] = match flaw {
        Flaw::OtherName => &["elsewhere.test"],
        Flaw::OtherWildcard => &["*.test", "*"],
        Flaw::SubjectOnly => &[],
        Flaw::None
        | Flaw::Expired
        | Flaw::NotYetValid
        | Flaw::ForClientsOnly
        | Flaw::ForServersOnly
        | Flaw::SelfSigned
        | Flaw::UnknownAuthority
        | Flaw::SignedByAPeer => &[name],
    };
    let mut params = CertificateParams::new(
        names
            .iter()
            .map(|name| (*name).to_owned())
            .collect::<Vec<_>>(),
    )
    .unwrap();
    params
        .distinguished_name
        .push(rcgen::DnType::CommonName, name);
    match flaw {
        Flaw::Expired => {
            params.not_before = date_time_ymd(2019, 1, 1);
            params.not_after = date_time_ymd(2020, 1, 1);
        }
        Flaw::NotYetValid => params.not_before = date_time_ymd(2090, 1, 1),
        Flaw::ForClientsOnly => {
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        }
        Flaw::ForServersOnly => {
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        }
        Flaw::None
        | Flaw::OtherName
        | Flaw::OtherWildcard
        | Flaw::SubjectOnly
        | Flaw::SelfSigned
        | Flaw::UnknownAuthority
        | Flaw::SignedByAPeer => {}
    }
    let key = KeyPair::generate().unwrap();
    let chain = match flaw {
        Flaw::SelfSigned => vec![params.self_signed(&key).unwrap().der().clone()],
        Flaw::UnknownAuthority => {
            let signed = params.signed_by(&key, Authority::new().issuer()).unwrap();
            vec![signed.der().clone()]
        }
        Flaw::SignedByAPeer => {
            let mut peer = CertificateParams::new(["Carol".to_owned()]).unwrap();
            peer.key_usages = vec![
                KeyUsagePurpose::DigitalSignature,
                KeyUsagePurpose::KeyCertSign,
            ];
            let peers_key = KeyPair::generate().unwrap();
            let of_peer = peer.signed_by(&peers_key, authority.issuer()).unwrap();
            let signed = params
                .signed_by(&key, &Issuer::new(peer, peers_key))
                .unwrap();
            vec![signed.der().clone(), of_peer.der().clone()]
        }
        Flaw::None
        | Flaw::OtherName
        | Flaw::OtherWildcard
        | Flaw::SubjectOnly
        | Flaw::Expired
        | Flaw::NotYetValid
        | Flaw::ForClientsOnly
        | Flaw::ForServersOnly => {
            let signed = params.signed_by(&key, authority.issuer()).unwrap();
            vec![signed.der().clone()]
        }
    };
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    Identity { chain, key }
}
