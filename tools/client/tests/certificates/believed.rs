//! Handshakes in memory, with the settings that servers read from the files: which certificates are
//! accepted, and which are not.

use std::sync::Arc;

use herd_mio::config::{HerdConfig, Source};
use herd_mio::core::base::settings::{NeighbourTls, TlsSettings};
use herd_mio::core::session::tls::is_valid_for;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{
    CertificateError, ClientConfig, ClientConnection, Connection, Error, RootCertStore,
    ServerConfig, ServerConnection,
};

use crate::Bench;

/// The certificate that the acceptor got, if any, after both sides have accepted. Otherwise the
/// first error.
fn handshake(
    dialling: &Arc<ClientConfig>,
    accepting: &Arc<ServerConfig>,
    name: &str,
) -> Result<Option<CertificateDer<'static>>, Error> {
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let mut dialler: Connection = ClientConnection::new(dialling.clone(), name)?.into();
    let mut acceptor: Connection = ServerConnection::new(accepting.clone())?.into();
    while dialler.wants_write() || acceptor.wants_write() {
        pass(&mut dialler, &mut acceptor)?;
        pass(&mut acceptor, &mut dialler)?;
    }
    assert!(!dialler.is_handshaking() && !acceptor.is_handshaking());
    let shown = acceptor.peer_certificates();
    Ok(shown.map(|chain| chain[0].clone().into_owned()))
}

/// Moves the output of one side to the other.
fn pass(from: &mut Connection, to: &mut Connection) -> Result<(), Error> {
    let mut wire = Vec::new();
    while from.wants_write() {
        from.write_tls(&mut wire).unwrap();
    }
    let mut rest = wire.as_slice();
    while !rest.is_empty() {
        to.read_tls(&mut rest).unwrap();
        to.process_new_packets()?;
    }
    Ok(())
}

/// A herd with certificates. Its config file has the tables that the program printed.
fn certified(servers: &[&str], arguments: &[&str]) -> Bench {
    let bench = Bench::new(servers);
    let printed = bench.run(arguments);
    let tables: String = printed
        .lines()
        .filter(|line| line.starts_with('[') || line.contains(" = \""))
        .map(|line| format!("{line}\n"))
        .collect();
    bench.describe(servers, &tables);
    bench
}

/// The TLS settings of the server with this name.
fn settings(bench: &Bench, name: &str) -> TlsSettings {
    let herd = HerdConfig::load(&Source::File(bench.config()), None).unwrap();
    herd.tls_files(name).read().unwrap()
}

fn neighbour(bench: &Bench, name: &str) -> NeighbourTls {
    settings(bench, name).neighbours.unwrap()
}

fn is_for_another_name(error: &Error) -> bool {
    use CertificateError::{NotValidForName, NotValidForNameContext};
    matches!(
        error,
        Error::InvalidCertificate(NotValidForName | NotValidForNameContext { .. })
    )
}

#[test]
fn neighbours_accept_each_other_s_certificates() {
    let names = ["Alice", "bob.example.net", "Carol_3"];
    let bench = certified(&names, &[]);
    for dialler in names {
        for acceptor in names {
            let dialling = neighbour(&bench, dialler).dialling;
            let accepting = neighbour(&bench, acceptor).accepting;
            let shown = handshake(&dialling, &accepting, acceptor).unwrap().unwrap();
            for name in names {
                assert_eq!(
                    is_valid_for(&shown, name),
                    name == dialler,
                    "{name} for {dialler}"
                );
                if name != acceptor {
                    let error = handshake(&dialling, &accepting, name).unwrap_err();
                    assert!(is_for_another_name(&error), "{error}");
                }
            }
        }
    }
}

#[test]
fn the_operator_certificate_cannot_accept_links() {
    let bench = certified(&["Alice", "Bob"], &[]);
    let (alice, operator) = (neighbour(&bench, "Alice"), neighbour(&bench, "operator"));
    let shown = handshake(&operator.dialling, &alice.accepting, "Alice").unwrap();
    assert!(is_valid_for(&shown.unwrap(), "operator"));
    let error = handshake(&alice.dialling, &operator.accepting, "operator").unwrap_err();
    assert!(
        matches!(
            error,
            Error::InvalidCertificate(CertificateError::InvalidPurposeContext { .. })
        ),
        "{error}"
    );
}

#[test]
fn certificates_of_another_authority_are_refused() {
    let (ours, theirs) = (
        certified(&["Alice", "Bob"], &[]),
        certified(&["Alice", "Bob"], &[]),
    );
    let (alice, stranger) = (neighbour(&ours, "Alice"), neighbour(&theirs, "Bob"));
    handshake(&alice.dialling, &stranger.accepting, "Bob").unwrap_err();
    handshake(&stranger.dialling, &alice.accepting, "Alice").unwrap_err();

    // A client that trusts the authority but has no certificate is refused too.
    let error = handshake(&client(&ours), &alice.accepting, "Alice").unwrap_err();
    assert_eq!(error, Error::NoCertificatesPresented);
}

/// A client that trusts the authority, and has no certificate.
fn client(bench: &Bench) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    let authority = CertificateDer::from_pem_file(bench.file("ca.pem")).unwrap();
    roots.add(authority).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    Arc::new(config)
}

#[test]
fn the_client_certificate_has_the_given_names() {
    let names = ["herd.example.net", "192.0.2.7", "2001:db8::7"];
    let bench = certified(&["Alice", "Bob"], &["--client-names", &names.join(",")]);
    let accepting = settings(&bench, "Bob").clients.unwrap();
    for name in names {
        assert_eq!(handshake(&client(&bench), &accepting, name), Ok(None));
    }
    for other in ["Alice", "www.herd.example.net", "192.0.2.8"] {
        let error = handshake(&client(&bench), &accepting, other).unwrap_err();
        assert!(is_for_another_name(&error), "{other}: {error}");
    }
}

#[test]
fn the_client_certificate_is_refused_on_the_peer_port() {
    let bench = certified(&["Alice", "Bob"], &["--client-names", "herd.example.net"]);
    let alice = neighbour(&bench, "Alice");
    // A peer dials with a stolen clients.key. No server starts with it as its own.
    let mut roots = RootCertStore::empty();
    let ca = CertificateDer::from_pem_file(bench.file("ca.pem")).unwrap();
    roots.add(ca).unwrap();
    let chain = CertificateDer::pem_file_iter(bench.file("clients.pem")).unwrap();
    let key = PrivateKeyDer::from_pem_file(bench.file("clients.key")).unwrap();
    let dialling = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_client_auth_cert(chain.map(Result::unwrap).collect(), key)
        .unwrap();
    let error = handshake(&Arc::new(dialling), &alice.accepting, "Alice").unwrap_err();
    assert!(
        matches!(
            error,
            Error::InvalidCertificate(CertificateError::InvalidPurposeContext { .. })
        ),
        "{error}"
    );
}

#[test]
fn renewed_and_old_certificates_accept_each_other() {
    let bench = certified(&["Alice", "Bob"], &[]);
    let old = neighbour(&bench, "Bob");
    bench.run(&["--renew", "Alice"]);
    let new = neighbour(&bench, "Alice");
    handshake(&new.dialling, &old.accepting, "Bob").unwrap();
    handshake(&old.dialling, &new.accepting, "Alice").unwrap();
}

#[test]
fn old_and_new_authorities_are_both_trusted() {
    let servers = ["Alice", "Bob"];
    let (old, new) = (certified(&servers, &[]), certified(&servers, &[]));
    let (first, second) = (neighbour(&old, "Alice"), neighbour(&new, "Bob"));
    handshake(&first.dialling, &second.accepting, "Bob").unwrap_err();

    // As --help advises: cat old new.
    let read = |bench: &Bench| std::fs::read_to_string(bench.file("ca.pem")).unwrap();
    let both = read(&old) + &read(&new);
    for bench in [&old, &new] {
        std::fs::write(bench.file("ca.pem"), &both).unwrap();
    }
    let (first, second) = (neighbour(&old, "Alice"), neighbour(&new, "Bob"));
    handshake(&first.dialling, &second.accepting, "Bob").unwrap();
    handshake(&second.dialling, &first.accepting, "Alice").unwrap();
}
