//! A mistake is reported in one line, before anything is written.

use std::fs;
use std::process::Command;

use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair, date_time_ymd};

use crate::{Bench, has, one_line};

/// A herd with its certificates.
fn certified() -> Bench {
    let bench = Bench::new(&["Alice", "Bob"]);
    bench.run(&[]);
    bench
}

/// Replaces the authority by another one, with the parameters that `change` sets.
fn other_authority(bench: &Bench, change: impl FnOnce(&mut CertificateParams)) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    change(&mut params);
    let certificate = params.self_signed(&key).unwrap();
    fs::write(bench.file("ca.pem"), certificate.pem()).unwrap();
    fs::write(bench.file("ca.key"), key.serialize_pem()).unwrap();
}

#[test]
fn usage() {
    let bench = Bench::new(&["Alice"]);
    for (arguments, what) in [
        (&["--days", "0"][..], "--days"),
        (&["--days", "3654"], "--days"),
        (&["--herd", "2021"], "cannot be used with"),
        (&["--list"], "cannot be used with"),
        (&["--renew"], "a value is required"),
        (&["--frobnicate"], "unexpected argument"),
        (
            &["--client-names", "a b"],
            "neither an IP address nor a DNS name",
        ),
        (&["--client-names", "alice"], "is the name of Alice"),
    ] {
        has(&bench.fail(arguments, 2), &[what]);
    }
    let bare = Command::new(env!("CARGO_BIN_EXE_herd-certificates"))
        .output()
        .unwrap();
    has(
        &one_line(&bare, 2),
        &["--out <DIR>", "see herd-certificates --help"],
    );
    assert!(!bench.out().exists());
}

#[test]
fn names_unfit_for_certificates_are_refused() {
    let bench = Bench::new(&["Alice", "B/../x"]);
    has(
        &bench.fail(&[], 2),
        &["herd.toml: ", "\"B/../x\"", "has to be a DNS name"],
    );
    bench.describe(&["Alice", "alice"], "");
    has(&bench.fail(&[], 2), &["upper and lower case"]);
    bench.describe(&["ca"], "");
    has(&bench.fail(&[], 2), &["ca.pem", "another name"]);
    fs::write(bench.config(), "servers = 3").unwrap();
    has(&bench.fail(&[], 2), &["herd.toml:1:11: "]);
    assert!(!bench.out().exists());
}

#[test]
fn an_unwritable_directory_is_reported() {
    let bench = Bench::new(&["Alice"]);
    fs::write(bench.out(), "a file").unwrap();
    let fail = |out: &std::path::Path| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_herd-certificates"));
        command.arg("--config").arg(bench.config()).arg("--out");
        one_line(&command.arg(out).output().unwrap(), 1)
    };
    has(
        &fail(&bench.out()),
        &["is not a directory; name one with --out"],
    );
    has(
        &fail(&bench.file("below")),
        &["cannot make the directory ", "Not a directory"],
    );
    // No user can make a file there, not even root.
    has(
        &fail("/proc/self".as_ref()),
        &["cannot write into the directory /proc/self: "],
    );
}

#[test]
fn an_authority_that_cannot_sign_is_reported() {
    let bench = certified();
    other_authority(&bench, |params| {
        params.not_before = date_time_ymd(2019, 1, 1);
        params.not_after = date_time_ymd(2020, 1, 1);
    });
    has(
        &bench.fail(&[], 1),
        &["ca.pem has expired on 2020-01-01; make a new one in another directory"],
    );
    has(&bench.fail(&["--renew", "Alice"], 1), &["has expired on"]);
    other_authority(&bench, |params| {
        params.not_before = date_time_ymd(4000, 1, 1);
    });
    has(
        &bench.fail(&[], 1),
        &["is valid from 4000-01-01 on", "check this machine's clock"],
    );
    other_authority(&bench, |params| params.is_ca = IsCa::NoCa);
    has(&bench.fail(&[], 1), &["is not a certificate authority"]);
}

#[test]
fn an_incomplete_authority_is_reported() {
    let bench = certified();
    let (pem, key) = (bench.file("ca.pem"), bench.file("ca.key"));
    let both = fs::read_to_string(&pem).unwrap().repeat(2);
    let stranger = KeyPair::generate().unwrap().serialize_pem();
    for (path, text, what) in [
        (&pem, both.as_str(), "has 2 certificates"),
        (&pem, "", "has no certificate in PEM"),
        (
            &pem,
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
            "has an invalid certificate",
        ),
        (&key, "", "has no usable private key"),
        (&key, &stranger, "is not the key of"),
    ] {
        let right = fs::read(path).unwrap();
        fs::write(path, text).unwrap();
        has(&bench.fail(&[], 1), &[what]);
        fs::write(path, right).unwrap();
    }
    for (path, what) in [
        (&pem, "ca.pem does not; put it back"),
        (&key, "nothing can be signed without it"),
    ] {
        let right = fs::read(path).unwrap();
        fs::remove_file(path).unwrap();
        has(&bench.fail(&[], 1), &[what, "put it back"]);
        fs::write(path, right).unwrap();
    }
    fs::remove_file(&pem).unwrap();
    fs::remove_file(&key).unwrap();
    has(
        &bench.fail(&[], 1),
        &["has files of Alice, but no authority"],
    );
}

#[test]
fn certificates_of_another_authority_are_reported() {
    let bench = certified();
    other_authority(&bench, |_| ());
    has(
        &bench.fail(&[], 1),
        &["Alice.pem cannot be used in this herd: this authority did not sign it"],
    );

    let bench = certified();
    let copy = |from: &str, to: &str| fs::copy(bench.file(from), bench.file(to)).unwrap();
    copy("Bob.pem", "Alice.pem");
    has(
        &bench.fail(&[], 1),
        &["it is not for Alice", "--renew Alice"],
    );
    copy("Bob.key", "Alice.key");
    has(&bench.fail(&[], 1), &["it is not for Alice"]);

    let bench = certified();
    fs::copy(bench.file("Bob.key"), bench.file("Alice.key")).unwrap();
    has(
        &bench.fail(&[], 1),
        &[
            "Alice.key does not belong to the certificate",
            "--renew Alice",
        ],
    );
    fs::remove_file(bench.file("Alice.key")).unwrap();
    has(
        &bench.fail(&[], 1),
        &["Alice.pem exists, but ", "Alice.key does not; put it back"],
    );
}

#[test]
fn changed_client_names_need_renew() {
    let bench = Bench::new(&["Alice"]);
    bench.run(&["--client-names", "a.example.net"]);
    has(
        &bench.fail(&["--client-names", "a.example.net,b.example.net"], 1),
        &[
            "clients.pem is for a.example.net; make one for a.example.net,b.example.net with --renew clients --client-names",
        ],
    );
}

#[test]
fn an_authority_with_name_constraints_is_reported() {
    use rcgen::{GeneralSubtree, NameConstraints};
    let bench = Bench::new(&["Alice"]);
    fs::create_dir(bench.out()).unwrap();
    other_authority(&bench, |params| {
        params.name_constraints = Some(NameConstraints {
            permitted_subtrees: vec![GeneralSubtree::DnsName("example.net".into())],
            excluded_subtrees: vec![],
        });
    });
    has(
        &bench.fail(&[], 1),
        &["servers would not accept a certificate for Alice from this authority: "],
    );
    bench.describe(&["alice.example.net"], "");
    has(
        &bench.fail(&[], 1),
        &["servers would not accept a certificate for operator"],
    );
}
