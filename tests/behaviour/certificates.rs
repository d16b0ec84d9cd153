//! Certificates of every kind, one of them good: what somebody may show who poses as somebody else.

use rcgen::{
    CertificateParams, ExtendedKeyUsagePurpose, Issuer, KeyPair, KeyUsagePurpose, date_time_ymd,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::tls::Authority;

/// What is wrong with a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flaw {
    /// Nothing.
    None,
    /// It is for another name.
    OtherName,
    /// It is for all names of a domain that the name is not in.
    OtherWildcard,
    /// It has no name that counts, only a subject that looks like one.
    SubjectOnly,
    /// It was good until some years ago.
    Expired,
    /// It will be good in some years.
    NotYetValid,
    /// Who is a client may show it, and nobody else.
    ForClientsOnly,
    /// Who is a server may show it, and nobody else.
    ForServersOnly,
    /// It vouches for itself.
    SelfSigned,
    /// An authority that is not trusted vouches for it; it has the name of the one that is.
    UnknownAuthority,
    /// Somebody vouches for it who has a good certificate, and is no authority.
    SignedByAPeer,
}

/// What a side of TLS shows of itself.
pub(crate) struct Identity {
    pub(crate) chain: Vec<CertificateDer<'static>>,
    pub(crate) key: PrivateKeyDer<'static>,
}

/// A certificate for `name` from `authority`, but for its flaw.
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
