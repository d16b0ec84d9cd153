//! TLS between neighbours with the mode "offered": which servers link, whether the link uses TLS,
//! and what the logs say.

use std::fs;
use std::io::Read;
use std::net::TcpListener;
use std::process::Command;
use std::sync::Arc;

use herd_testkit::client::Client;
use herd_testkit::herd::{Server, status_command};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConnection, RootCertStore};

use crate::fleet::{Fleet, PeersTls};
use crate::neighbours::status_of;
use crate::tls::{Authority, builder};

const SECRET: &[u8] = b"the old secret of the herd";

/// Two servers with certificates. Alice dials. A server may ignore its certificate.
fn fleet(alice: PeersTls, bob: PeersTls, authority: &Authority) -> Fleet {
    let mut fleet = Fleet::new(&["Alice", "Bob"], &[("Alice", "Bob")]);
    for (name, tls) in [("Alice", alice), ("Bob", bob)] {
        fleet.configure(
            name,
            tls,
            "[limits]\nredial_first_ms = 50\nredial_cap_ms = 100\n",
        );
        fleet.trust(name, &[authority]);
        fleet.certify(name, authority);
    }
    fleet
}

/// The warnings about a link, without those about a neighbour that does not listen yet.
fn warnings(server: &Server) -> Vec<String> {
    let log = server.log_lines();
    let of_link = |line: &String| {
        line.contains("[WARN ] neighbour ") || line.contains("[WARN ] unproven peer ")
    };
    let warned = log.into_iter().filter(of_link);
    warned
        .filter(|line| !line.contains("Connection refused"))
        .collect()
}

/// The table in the README.
#[test]
fn every_pair_of_tls_modes_links_as_documented() {
    use PeersTls::{None, Offered, Required};
    let authority = Authority::new();
    for alices in PeersTls::ALL {
        for bobs in PeersTls::ALL {
            let how = match (alices, bobs) {
                (None, None | Offered) | (Offered, None) => Some("plain"),
                (Offered | Required, Offered | Required) => Some("over TLS"),
                (None, Required) | (Required, None) => Option::None,
            };
            let fleet = fleet(alices, bobs, &authority);
            let (bob, alice) = (fleet.start("Bob"), fleet.start("Alice"));
            let case = format!("{alices:?} dials {bobs:?}");
            let Some(how) = how else {
                alice.wait_for_nth_log(4, "dialling again in", "");
                let told = [&alice, &bob].map(warnings);
                assert_eq!(told.each_ref().map(Vec::len), [1, 1], "{case}: {told:#?}");
                assert!(
                    told.iter()
                        .flatten()
                        .all(|line| line.contains("[peers.tls] has to be"))
                );
                continue;
            };
            for (server, other) in [(&alice, "Bob"), (&bob, "Alice")] {
                let linked = server.wait_for_log(&format!("neighbour {other}"), ": linked, ");
                assert!(linked.ends_with(&format!(", {how}")), "{case}: {linked}");
            }
            let at = alice.client().ask("IAMAT x +1+2 3");
            bob.client().wait_for_record("x", |line| line == at);
            // A neighbour without TLS is normal for the server that offers TLS, so it logs no
            // warning.
            assert_eq!(warnings(&alice), [""; 0], "{case}");
            let of_bob = warnings(&bob);
            match (alices, bobs) {
                (Offered, None) => {
                    assert!(of_bob.len() == 1 && of_bob[0].contains("it speaks TLS"))
                }
                _ => assert_eq!(of_bob, [""; 0], "{case}"),
            }
            // A start with "offered" logs a warning, because links may be plain.
            for (server, tls) in [(&alice, alices), (&bob, bobs)] {
                let log = server.log_lines();
                let told = log
                    .iter()
                    .any(|line| line.contains("[WARN ] TLS is only offered"));
                assert_eq!(told, tls == Offered, "{case}: {log:#?}");
            }
        }
    }
}

/// However often the link is lost, its next connection is plain again after one attempt with TLS.
#[test]
fn a_plain_neighbour_is_dialled_without_tls_after_a_refusal() {
    let fleet = fleet(PeersTls::Offered, PeersTls::None, &Authority::new());
    let alice = fleet.start("Alice");
    for life in 1..=3 {
        let bob = fleet.start("Bob");
        alice.wait_for_nth_log(life, "neighbour Bob", ": linked, ");
        bob.stop();
        alice.wait_for_nth_log(life, "neighbour Bob", "lost: ");
    }
    let log = alice.stop();
    let count = |text: &str| log.iter().filter(|line| line.contains(text)).count();
    let refusal = "it does not speak TLS; dialled without it, for it is only offered here";
    assert_eq!(count(refusal), 3, "{log:#?}");
    // The server dials without TLS at once.
    for (place, line) in log.iter().enumerate() {
        if line.contains(refusal) {
            assert!(!log[place + 1].contains("dialling again"), "{log:#?}");
        }
    }
}

/// While TLS is only offered, a TLS error is logged, and the link is plain.
#[test]
fn a_refused_certificate_allows_plain_only_if_tls_is_offered() {
    use PeersTls::{Offered, Required};
    let (authority, other) = (Authority::new(), Authority::new());
    for (name, case, reason) in [
        ("Bob", "another authority", "its certificate was refused"),
        ("Alice", "another authority", "it refused the TLS handshake"),
    ] {
        // This server trusts both authorities. It would not start with a certificate that it does
        // not trust.
        let break_it = |fleet: &Fleet| {
            let directory = fleet.directory(name);
            let both = authority.pem() + &other.pem();
            std::fs::write(directory.join("ca.pem"), both).unwrap();
            other.certify(directory, name, name, false);
        };
        let offered = fleet(Offered, Offered, &authority);
        break_it(&offered);
        let (bob, alice) = (offered.start("Bob"), offered.start("Alice"));
        let linked = alice.wait_for_log("neighbour Bob", ": linked, ");
        assert!(linked.ends_with(", plain"), "{name}, {case}: {linked}");
        alice.wait_for_log(
            "[WARN ] neighbour Bob",
            &format!("not linked over TLS: {reason}"),
        );
        alice.wait_for_log(reason, "; dialled without TLS, for it is only offered here");
        assert_eq!(
            warnings(&alice).len(),
            1,
            "{name}, {case}: {:#?}",
            warnings(&alice)
        );
        let status = status_of(offered.herd("Alice"), "Bob", SECRET).unwrap();
        assert!(status.contains(" plain=1 "), "{status}");
        drop((alice, bob));

        for (alices, bobs) in [(Required, Offered), (Offered, Required)] {
            let required = fleet(alices, bobs, &authority);
            break_it(&required);
            let (_bob, alice) = (required.start("Bob"), required.start("Alice"));
            alice.wait_for_nth_log(4, "dialling again in", "");
            let log = alice.log_lines();
            assert!(
                !log.iter().any(|line| line.contains(": linked, ")),
                "{name}, {case}: {log:#?}"
            );
        }
    }
}

/// A neighbour that accepts the connection and sends nothing may be restarting. So the server tries
/// TLS twice before it dials without.
#[test]
fn a_silent_neighbour_is_dialled_with_tls_twice() {
    let fleet = fleet(PeersTls::Offered, PeersTls::Offered, &Authority::new());
    let listener = TcpListener::bind(fleet.herd("Alice").peers_address("Bob")).unwrap();
    let alice = fleet.start("Alice");
    let first_byte = || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        byte[0]
    };
    let heard: Vec<u8> = (0..6).map(|_| first_byte()).collect();
    assert_eq!(heard, [0x16, 0x16, b'H', 0x16, 0x16, b'H']);
    drop(listener);
    // If the connection is refused, the next attempt uses TLS.
    let dials = |alice: &Server| {
        let log = alice.log_lines();
        log.iter()
            .filter(|line| line.contains("dialling again in"))
            .count()
    };
    alice.wait_for_nth_log(dials(&alice) + 2, "dialling again in", "");
    let bob = fleet.start("Bob");
    let linked = bob.wait_for_log("neighbour Alice", ": linked, ");
    assert!(linked.ends_with(", over TLS"), "{linked}");
}

/// The TLS client with which Alice dials Bob.
fn hello(fleet: &Fleet, authority: &Authority) -> ClientConnection {
    let directory = fleet.directory("Alice");
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(authority.pem().as_bytes()).unwrap())
        .unwrap();
    let chain = vec![CertificateDer::from_pem_file(directory.join("Alice.pem")).unwrap()];
    let key = PrivateKeyDer::from_pem_file(directory.join("Alice.key")).unwrap();
    let config = builder()
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)
        .unwrap();
    ClientConnection::new(Arc::new(config), "Bob".try_into().unwrap()).unwrap()
}

/// Bytes that are neither TLS nor the protocol, on a port that accepts both.
#[test]
fn garbage_is_refused_as_tls_or_plain_by_its_first_byte() {
    let authority = Authority::new();
    let fleet = fleet(PeersTls::Offered, PeersTls::Offered, &authority);
    let bob = fleet.start("Bob");
    let address = fleet.herd("Bob").peers_address("Bob");
    let told = |bytes: &[u8]| {
        let mut client = Client::connect(address);
        client.send(bytes).finish();
        client.rest()
    };
    // The reply is a TLS alert or a line of the protocol.
    let begun = told(b"\x16\x03\x01\x00\x05hello");
    assert_eq!(begun, b"\x15\x03\x03\x00\x02\x02\x32", "decode_error");
    bob.wait_for_log("refused: TLS failed", "");
    for plain in [
        &b"\x15\x03\x01\x00\x02\x02\x28"[..],
        b"x\n",
        b"\n",
        b"GET / HTTP/1.1\r\n",
    ] {
        let answer = told(plain);
        assert!(answer.starts_with(b"BYE "), "{}", answer.escape_ascii());
    }
    let cut_off = told(b"\x16");
    assert_eq!(cut_off, b"\x15\x03\x03\x00\x02\x02\x50", "internal_error");
    for nothing in [&b""[..], b"H"] {
        assert_eq!(told(nothing).escape_ascii().to_string(), "");
    }
    // A ClientHello may come one byte at a time.
    let mut alice = hello(&fleet, &authority);
    let mut bytes = Vec::new();
    alice.write_tls(&mut bytes).unwrap();
    let mut slow = Client::connect(address);
    bytes.chunks(1).for_each(|byte| {
        slow.send(byte);
    });
    let mut answer = [0; 6];
    slow.stream().read_exact(&mut answer).unwrap();
    assert_eq!((answer[0], answer[5]), (0x16, 2), "a hello in return");
    // A ClientHello after a line of the protocol is not accepted.
    let answer =
        told(b"HERD 2 operator Bob 000102030405060708090a0b0c0d0e0f\n\x16\x03\x01\x00\x05hello\n");
    let answer = String::from_utf8(answer).unwrap();
    assert!(
        answer.starts_with("HERD 2 Bob operator ")
            && answer.contains("\nBYE not the neighbours' protocol"),
        "{answer}"
    );
    bob.stop();
}

#[test]
fn the_tls_mode_of_a_config_file_is_checked_and_shown() {
    let authority = Authority::new();
    let mut fleet = fleet(PeersTls::Offered, PeersTls::Required, &authority);
    let check = |fleet: &Fleet, name: &str| {
        let mut command: Command = fleet.herd(name).command(name);
        let output = command.arg("--check").output().unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8(text).unwrap())
    };
    let (status, said) = check(&fleet, "Alice");
    assert_eq!(status, Some(0), "{said}");
    assert!(said.contains("; offered, links may be plain\n"), "{said}");
    assert!(
        said.contains("note        TLS is only offered to neighbours"),
        "{said}"
    );
    let (_, said) = check(&fleet, "Bob");
    assert!(
        said.contains("; required\n") && !said.contains("only offered"),
        "{said}"
    );
    fleet.configure("Bob", PeersTls::Required, "mode = \"maybe\"\n");
    let (status, said) = check(&fleet, "Bob");
    assert_eq!(status, Some(2));
    assert!(
        said.contains("peers.tls.mode is \"maybe\"; it may be \"required\" or \"offered\""),
        "{said}"
    );
    // Without a secret, links to another machine must require TLS.
    fs::remove_file(fleet.directory("Alice").join("herd.secret")).unwrap();
    let config = fleet.herd("Alice").config_file();
    let text = fs::read_to_string(&config).unwrap();
    let far = text.replace("secret_file = \"herd.secret\"\n", "");
    let bobs = fleet.herd("Bob").peers_address("Bob").to_string();
    let far = far.replace(&format!("peers = \"{bobs}\""), "peers = \"192.0.2.1:1\"");
    for (mode, wanted) in [("offered", Some(2)), ("required", Some(0))] {
        fs::write(&config, far.replace("offered", mode)).unwrap();
        let mut command = herd_testkit::herd::server_command();
        command
            .args(["Alice", "--log-file", "-", "--check", "--config"])
            .arg(&config);
        let output = command.output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), wanted, "{mode}: {said}");
        assert_eq!(
            said.contains("[peers.tls], required"),
            mode == "offered",
            "{said}"
        );
    }
}

/// `herd-client status` asks both kinds of servers, and says which ones are not finished.
#[test]
fn status_asks_with_and_without_tls() {
    let authority = Authority::new();
    let fleet = fleet(PeersTls::Offered, PeersTls::None, &authority);
    let (bob, alice) = (fleet.start("Bob"), fleet.start("Alice"));
    alice.wait_for_log("neighbour Bob", ": linked, ");
    authority.certify(fleet.directory("Alice"), "operator", "operator", false);
    let status = |secret: &str| {
        fleet.secret("Alice", secret);
        let mut status = status_command();
        status
            .arg("--config")
            .arg(fleet.herd("Alice").config_file());
        let output = status.env_remove("HERD_SECRET").output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let said = status("the old secret of the herd\n");
    assert!(said.contains("all 2 hold the same 0 records"), "{said}");
    for name in ["Alice", "Bob"] {
        assert!(
            said.contains(&format!("{name} has 1 link, 1 without TLS\n")),
            "{said}"
        );
    }
    let said = status("the new secret of the herd\nthe old secret of the herd\n");
    assert!(
        said.contains("Bob does not have the first of these secrets, only the second\n"),
        "{said}"
    );
    assert!(said.contains("all 2 hold the same 0 records"), "{said}");
    fleet.secret(
        "Bob",
        "the new secret of the herd\nthe old secret of the herd\n",
    );
    bob.signal(rustix::process::Signal::HUP);
    bob.wait_for_log("the herd secret was read anew", "");
    let said = status("the new secret of the herd\n");
    assert!(
        said.contains("Bob has this secret first, and another one second\n"),
        "{said}"
    );
    assert!(
        said.contains("Alice   no answer: ") && said.contains("a wrong proof"),
        "{said}"
    );
    let said = status("the old secret of the herd\n");
    assert!(
        said.contains("Bob has another secret first, and this one second\n"),
        "{said}"
    );
}
