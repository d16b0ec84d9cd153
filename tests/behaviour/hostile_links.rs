//! Links over mutual TLS. The other end has a wrong certificate, has none, or does not speak TLS.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Instant;

use herd_testkit::client::{Client, SOON};
use herd_testkit::herd::{Herd, Server};
use ring::hmac;
use rustix::process::Signal;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::server::WebPkiClientVerifier;
use rustls::{
    ClientConfig, RootCertStore, ServerConfig, ServerConnection, StreamOwned,
    SupportedProtocolVersion,
};

use crate::certificates::{Flaw, Identity, identity};
use crate::hostile_neighbours::wait_for_end;
use crate::neighbours::NONCE;
use crate::tls::{Authority, FOR_CLIENTS, FOR_PEERS, Secure, chain, connect};

/// A trust store with only this authority.
fn trusting(authority: &Authority) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(authority.pem().as_bytes()).unwrap())
        .unwrap();
    roots
}

/// Dials a server with the certificate of `identity`, or without one.
pub(crate) fn dial(
    herd: &Herd,
    name: &'static str,
    authority: &Authority,
    identity: Option<Identity>,
    version: &'static SupportedProtocolVersion,
) -> Secure {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(trusting(authority));
    let config = match identity {
        Some(Identity { chain, key }) => config.with_client_auth_cert(chain, key).unwrap(),
        None => config.with_no_client_auth(),
    };
    connect(herd.peers_address(name), config, name)
}

/// Sends a greeting. Returns the decrypted reply, and whether the connection ended with a TLS error
/// or a reset.
pub(crate) fn greet(stream: &mut Secure, greeting: &str) -> (String, bool) {
    // Our handshake may be complete before the other side has refused our certificate.
    let wrote = stream.write_all(greeting.as_bytes()).is_ok();
    let mut told = Vec::new();
    let mut buffer = [0; 1024];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return (String::from_utf8(told).unwrap(), false),
            Ok(count) if wrote => {
                told.extend_from_slice(&buffer[..count]);
                if told.ends_with(b"\n") {
                    return (String::from_utf8(told).unwrap(), false);
                }
            }
            // A timeout means that the other side neither replied nor closed.
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                panic!("it says nothing, and does not close")
            }
            Ok(_) | Err(_) => return (String::from_utf8(told).unwrap(), true),
        }
    }
}

const AS_ALICE: &str = "HERD 2 Alice Bob 000102030405060708090a0b0c0d0e0f\n";

#[test]
fn a_dialler_without_a_valid_certificate_gets_no_greeting() {
    let authority = Authority::new();
    let herd = chain(&authority);
    let bob = herd.start("Bob");
    for (flaw, reason) in [
        (Some(Flaw::Expired), "its certificate was refused: "),
        (Some(Flaw::NotYetValid), "its certificate was refused: "),
        (Some(Flaw::ForServersOnly), "its certificate was refused: "),
        (Some(Flaw::SelfSigned), "its certificate was refused: "),
        (
            Some(Flaw::UnknownAuthority),
            "its certificate was refused: ",
        ),
        (Some(Flaw::SignedByAPeer), "its certificate was refused: "),
        (None, "it showed no certificate"),
    ] {
        let identity = flaw.map(|flaw| identity(&authority, "Alice", flaw));
        let mut stranger = dial(&herd, "Bob", &authority, identity, &rustls::version::TLS13);
        let (told, refused) = greet(&mut stranger, AS_ALICE);
        assert_eq!((&*told, refused), ("", true), "{flaw:?}");
        let address = stranger.sock.local_addr().unwrap().to_string();
        drop(stranger);
        bob.wait_for_log(&address, &format!("refused: {reason}"));
    }
    // The name is checked after the certificate was accepted. So only the greeting is refused, with
    // a reason in plain words.
    for flaw in [Flaw::OtherName, Flaw::OtherWildcard, Flaw::SubjectOnly] {
        let identity = identity(&authority, "Alice", flaw);
        let mut stranger = dial(
            &herd,
            "Bob",
            &authority,
            Some(identity),
            &rustls::version::TLS13,
        );
        assert_eq!(
            greet(&mut stranger, AS_ALICE).0,
            "BYE its certificate is for another name than Alice\n",
            "{flaw:?}"
        );
    }
    // A server of the herd without a link to this server.
    let dave = identity(&authority, "Dave", Flaw::None);
    let mut stranger = dial(
        &herd,
        "Bob",
        &authority,
        Some(dave),
        &rustls::version::TLS13,
    );
    assert_eq!(
        greet(&mut stranger, &AS_ALICE.replace("Alice", "Dave")).0,
        "BYE Dave is not linked with Bob\n"
    );
    // Neighbours do not speak TLS before 1.3, because there the certificates are sent in plain
    // text.
    let alice = || Some(identity(&authority, "Alice", Flaw::None));
    let mut old = dial(&herd, "Bob", &authority, alice(), &rustls::version::TLS12);
    assert_eq!(greet(&mut old, AS_ALICE), (String::new(), true));
    // The correct certificate is accepted.
    let mut alice = dial(&herd, "Bob", &authority, alice(), &rustls::version::TLS13);
    assert!(
        greet(&mut alice, AS_ALICE)
            .0
            .starts_with("HERD 2 Bob Alice ")
    );
    assert_eq!(
        bob.client().ask("WHATSAT forged 1 1"),
        "? WHATSAT forged 1 1"
    );
}

/// What an impostor does on the address where Bob should be.
enum Posing {
    As(Flaw),
    InTls12,
    /// Speaks the neighbours' protocol without TLS.
    InTheClear,
}

/// Accepts Alice's next connection. Returns all bytes that Alice sent: decrypted, or raw where no
/// TLS was spoken.
fn meet_alice(listener: &TcpListener, authority: &Authority, posing: &Posing) -> Vec<u8> {
    let (mut stream, _) = listener.accept().unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    let (flaw, version) = match posing {
        Posing::As(flaw) => (*flaw, &rustls::version::TLS13),
        Posing::InTls12 => (Flaw::None, &rustls::version::TLS12),
        Posing::InTheClear => {
            // Alice may have closed already.
            let _ = writeln!(stream, "HERD 2 Bob Alice {NONCE}");
            let mut heard = Vec::new();
            let _ = stream.read_to_end(&mut heard);
            return heard;
        }
    };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let roots = Arc::new(trusting(authority));
    let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider.clone())
        .build()
        .unwrap();
    let Identity { chain, key } = identity(authority, "Bob", flaw);
    let config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[version])
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)
        .unwrap();
    let connection = ServerConnection::new(Arc::new(config)).unwrap();
    let mut stream = StreamOwned::new(connection, stream);
    let mut heard = Vec::new();
    let mut byte = [0];
    loop {
        match stream.read(&mut byte) {
            Ok(1..) => heard.push(byte[0]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                panic!("it says nothing, and does not hang up")
            }
            Ok(0) | Err(_) => return heard,
        }
        if byte == *b"\n" {
            return heard;
        }
    }
}

#[test]
fn an_impostor_at_a_neighbour_s_address_gets_no_greeting() {
    let authority = Authority::new();
    let herd = chain(&authority).with("[limits]\nredial_first_ms = 10\nredial_cap_ms = 20\n");
    let listener = TcpListener::bind(herd.peers_address("Bob")).unwrap();
    let alice = herd.start("Alice");
    for posing in [
        Posing::As(Flaw::OtherName),
        Posing::As(Flaw::OtherWildcard),
        Posing::As(Flaw::SubjectOnly),
        Posing::As(Flaw::Expired),
        Posing::As(Flaw::NotYetValid),
        Posing::As(Flaw::ForClientsOnly),
        Posing::As(Flaw::SelfSigned),
        Posing::As(Flaw::UnknownAuthority),
        Posing::As(Flaw::SignedByAPeer),
        Posing::InTls12,
    ] {
        let heard = meet_alice(&listener, &authority, &posing);
        assert_eq!(heard.escape_ascii().to_string(), "");
    }
    let heard = meet_alice(&listener, &authority, &Posing::InTheClear);
    assert!(!heard.windows(4).any(|window| window == b"HERD"));
    let heard = meet_alice(&listener, &authority, &Posing::As(Flaw::None));
    assert!(heard.starts_with(b"HERD 2 Alice Bob "));
    alice.wait_for_log("neighbour Bob", "its certificate was refused");
    alice.wait_for_log("neighbour Bob", "it does not speak TLS");
    // Alice warns when the reason is new, not at each attempt.
    let warnings = alice.log_lines();
    let warnings = warnings
        .iter()
        .filter(|line| line.contains("[WARN ] neighbour Bob"));
    assert!(warnings.count() <= 12);
}

#[test]
fn tls_on_a_plain_peer_port_is_refused_and_logged_once() {
    let authority = Authority::new();
    let herd =
        Herd::new(&["Alice", "Bob"], &[("Alice", "Bob")]).with("[limits]\nlink_proof_ms = 500\n");
    let bob = herd.start("Bob");
    let alice = identity(&authority, "Alice", Flaw::None);
    let begun = Instant::now();
    let mut stranger = dial(
        &herd,
        "Bob",
        &authority,
        Some(alice),
        &rustls::version::TLS13,
    );
    let (told, refused) = greet(&mut stranger, AS_ALICE);
    assert_eq!((&*told, refused), ("", true));
    assert!(begun.elapsed() < SOON / 2, "{:?}", begun.elapsed());
    let address = stranger.sock.local_addr().unwrap().to_string();
    drop(stranger);
    let line = bob.wait_for_log(&address, "refused: ");
    assert!(line.contains("[WARN ] unproven peer "), "{line}");
    assert_eq!(
        bob.log_lines()
            .iter()
            .filter(|line| line.contains(&address))
            .count(),
        1
    );
}

#[test]
fn a_link_needs_both_the_certificate_and_the_secret() {
    const SECRET: &[u8] = b"known to all but one of them";
    let authority = Authority::new();
    let herd = chain(&authority).env("HERD_SECRET", "known to all but one of them");
    let bob = herd.start("Bob");
    let prove = |flaw: Flaw, secret: &[u8]| {
        let alice = identity(&authority, "Alice", flaw);
        let mut stream = dial(
            &herd,
            "Bob",
            &authority,
            Some(alice),
            &rustls::version::TLS13,
        );
        let (greeting, refused) = greet(&mut stream, AS_ALICE);
        if refused {
            return None;
        }
        let theirs = greeting
            .trim_end()
            .strip_prefix("HERD 2 Bob Alice ")?
            .to_owned();
        let text = format!("herd-mio link 1\ndialler\nAlice\nBob\n{NONCE}\n{theirs}\n");
        let mac = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), text.as_bytes());
        let mac: String = mac
            .as_ref()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        Some(greet(&mut stream, &format!("PROOF {mac}\n")).0)
    };
    assert_eq!(prove(Flaw::UnknownAuthority, SECRET), None);
    assert_eq!(
        prove(Flaw::None, b"").as_deref(),
        Some("BYE a wrong proof: Alice has no herd secret, and this server has one\n")
    );
    assert!(prove(Flaw::None, SECRET).unwrap().starts_with("PROOF "));
    bob.wait_for_log("refused: a wrong proof", "claiming to be Alice");
}

#[test]
fn a_reload_keeps_links_and_ignores_a_broken_file() {
    let authority = Authority::new();
    let herd = chain(&authority);
    let servers = herd.start_all();
    let directory = herd.directory.path();
    let lost = |server: &Server| {
        let lines = server.log_lines();
        lines
            .iter()
            .filter(|line| line.contains(": lost: "))
            .count()
    };
    let flows = |marker: &str| {
        let at = servers["Alice"]
            .client()
            .ask(&format!("IAMAT {marker} +1+2 3"));
        let mut carol = servers["Carol"].client();
        carol.wait_for_record(marker, |line| line == at);
    };
    // The authority's file is half written, and later complete again.
    fs::write(directory.join("ca.pem"), "-----BEGIN CERTIFICATE-----\n").unwrap();
    for server in servers.values() {
        server.signal(Signal::HUP);
        server.wait_for_log("the old certificates stay in use", "");
    }
    flows("one");
    fs::write(directory.join("ca.pem"), authority.pem()).unwrap();
    for server in servers.values() {
        server.signal(Signal::HUP);
        server.wait_for_log("TLS: certificates and keys were read anew", "");
    }
    flows("two");
    assert!(servers.values().all(|server| lost(server) == 0));
}

#[test]
fn an_unfinished_handshake_counts_as_an_unproven_peer() {
    let authority = Authority::new();
    let herd = chain(&authority)
        .with("[limits]\nmax_unproven = 3\ntls_handshake_ms = 700\nunproven_grace_ms = 0\nlink_proof_ms = 60000\n");
    let bob = herd.start("Bob");
    // The first bytes of a TLS record.
    let half: Vec<Client> = (0..3)
        .map(|_| {
            let mut half = Client::connect(herd.peers_address("Bob"));
            half.send(b"\x16\x03\x01\x02\x00\x01");
            half
        })
        .collect();
    let _one_more = Client::connect(herd.peers_address("Bob"));
    bob.wait_for_log("limits.max_unproven", "refused");
    for half in &half {
        wait_for_end(half);
    }
    bob.wait_for_log("no TLS handshake within 700 ms", "refused");
    let alice = identity(&authority, "Alice", Flaw::None);
    let mut alice = dial(
        &herd,
        "Bob",
        &authority,
        Some(alice),
        &rustls::version::TLS13,
    );
    assert!(
        greet(&mut alice, AS_ALICE)
            .0
            .starts_with("HERD 2 Bob Alice ")
    );
}

#[test]
fn a_peer_refused_in_tls_does_not_block_a_neighbour() {
    let authority = Authority::new();
    let herd = chain(&authority)
        .with("[limits]\nmax_unproven = 3\nlinger_ms = 60000\nlink_proof_ms = 60000\n");
    let bob = herd.start("Bob");
    let sockets = || fs::read_dir(format!("/proc/{}/fd", bob.pid())).map(Iterator::count);
    let before = sockets();
    let refused: Vec<Client> = (0..30)
        .map(|_| {
            let mut plain = Client::connect(herd.peers_address("Bob"));
            plain.send("GET / HTTP/1.1\r\n\r\n");
            assert_eq!(plain.until(b"\x15")[0], 21, "an alert");
            plain // it keeps the connection open
        })
        .collect();
    let alice = identity(&authority, "Alice", Flaw::None);
    let mut alice = dial(
        &herd,
        "Bob",
        &authority,
        Some(alice),
        &rustls::version::TLS13,
    );
    assert!(
        greet(&mut alice, AS_ALICE)
            .0
            .starts_with("HERD 2 Bob Alice ")
    );
    // Bob also dials Carol, which may take one descriptor.
    if let (Ok(before), Ok(now)) = (before, sockets()) {
        assert!(now <= before + 3 + 2, "{before} and then {now} descriptors");
    }
    wait_for_end(&refused[0]);
}

#[test]
fn a_herd_across_hosts_needs_a_secret_or_certificates() {
    let authority = Authority::new();
    let herd = |tables: &str| {
        let far = "192.0.2.7:11000".parse().unwrap();
        let near = ["127.0.0.1:0", "127.0.0.1:0", "127.77.0.9:11000"];
        let near = near.map(|address| address.parse().unwrap());
        let herd = Herd::at(
            &[("Alice", near[0], near[2]), ("Bob", near[1], far)],
            &[("Alice", "Bob")],
        )
        .with(tables)
        .env("HERD_SECRET", "");
        for file in ["Alice", "clients"] {
            authority.certify(herd.directory.path(), file, "Alice", false);
        }
        fs::write(herd.directory.path().join("ca.pem"), authority.pem()).unwrap();
        herd
    };
    let check = |herd: &Herd, secret: &str, arguments: &[&str]| {
        let mut command = herd.command("Alice");
        command.env("HERD_SECRET", secret).args(arguments);
        let output = command.output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        (output.status.code(), said)
    };
    for (tables, arguments) in [
        ("", &["--check"][..]),
        ("", &[]),
        (FOR_CLIENTS, &["--check"]),
    ] {
        let (status, said) = check(&herd(tables), "", arguments);
        assert_eq!(status, Some(2), "{said}");
        assert!(
            said.contains("the herd has no secret, and not all of its addresses are loopback (192.0.2.7:11000 is not)")
                && said.lines().count() == 1,
            "{said}"
        );
    }
    assert_eq!(
        check(&herd(""), "a secret of some length", &["--check"]).0,
        Some(0)
    );
    assert_eq!(check(&herd(FOR_PEERS), "", &["--check"]).0, Some(0));
}
