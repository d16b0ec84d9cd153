//! Tests of `--list`.

use std::fs;

use rcgen::{CertificateParams, DnType, KeyPair};
use time::{Duration, OffsetDateTime};

use crate::{Bench, has, list, one_line};

/// Writes a certificate that begins a year before its end. `days` is the time until that end,
/// negative if it is past.
fn ending_in(bench: &Bench, file: &str, days: i64) {
    #[allow(
        clippy::disallowed_methods,
        reason = "the program reads the system's clock too"
    )]
    let now = OffsetDateTime::from(std::time::SystemTime::now());
    let mut params = CertificateParams::new(["Bob".to_owned()]).unwrap();
    params.not_after = now + Duration::days(days) + Duration::hours(12);
    params.not_before = params.not_after - Duration::days(365);
    let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
    fs::write(bench.file(file), certificate.pem()).unwrap();
}

#[test]
fn list_shows_all_certificates() {
    let bench = Bench::new(&["Alice", "Bob"]);
    bench.run(&["--days", "31"]);
    let (out, err, status) = bench.list();
    assert_eq!((err.as_str(), status), ("", Some(0)));
    let lines: Vec<Vec<&str>> = out.lines().map(|line| line.split("  ").collect()).collect();
    assert_eq!(lines.len(), 5, "{out}");
    assert_eq!(
        lines[0]
            .iter()
            .map(|word| word.trim())
            .filter(|word| !word.is_empty())
            .collect::<Vec<_>>(),
        ["name", "file", "until (UTC)", "days left"]
    );
    for (line, start) in [
        (1, "Alice "),
        (2, "Bob "),
        (3, "herd CA "),
        (4, "operator "),
    ] {
        assert!(lines[line][0].starts_with(start.trim()), "{out}");
        let days = if line == 3 { "3652" } else { "30" };
        assert_eq!(lines[line].last().unwrap().trim(), days, "{out}");
    }
}

#[test]
fn near_and_past_expiry_is_reported() {
    let bench = Bench::new(&["Alice"]);
    fs::create_dir(bench.out()).unwrap();
    ending_in(&bench, "Alice.pem", 30);
    assert_eq!(bench.list().1, "");
    ending_in(&bench, "Bob.pem", 29);
    let (_, err, status) = bench.list();
    has(
        &err,
        &[
            "Bob.pem expires on ",
            "days left: 29; make a new one with --renew Bob\n",
        ],
    );
    assert_eq!((err.lines().count(), status), (1, Some(0)));
    ending_in(&bench, "Bob.pem", -1);
    let (out, err, status) = bench.list();
    has(&out, &["expired\n"]);
    has(&err, &["Bob.pem has expired on ", "--renew Bob\n"]);
    assert_eq!((err.lines().count(), status), (1, Some(1)));
    ending_in(&bench, "Bob.pem", 400);
    let (_, err, status) = bench.list();
    has(
        &err,
        &["Bob.pem is valid from ", "check this machine's clock"],
    );
    assert_eq!(status, Some(0));
}

#[test]
fn each_certificate_is_listed_and_empty_files_are_reported() {
    let bench = Bench::new(&["Alice"]);
    bench.run(&[]);
    let read = |name: &str| fs::read_to_string(bench.file(name)).unwrap();
    fs::write(bench.file("both.pem"), read("ca.pem") + &read("Alice.pem")).unwrap();
    fs::write(bench.file("other.pem"), read("Alice.key")).unwrap();
    let (out, err, status) = bench.list();
    assert_eq!(out.matches("both.pem").count(), 2, "{out}");
    has(&err, &["other.pem has no certificate in PEM\n"]);
    assert_eq!((err.lines().count(), status), (1, Some(1)));
}

#[test]
fn names_in_certificates_are_escaped() {
    let bench = Bench::new(&["Alice"]);
    fs::create_dir(bench.out()).unwrap();
    let mut params = CertificateParams::default();
    params
        .distinguished_name
        .push(DnType::CommonName, "a\u{1b}[31m\nb");
    let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
    fs::write(bench.file("x.pem"), certificate.pem()).unwrap();
    has(&bench.list().0, &["\na\\x1b[31m\\x0ab  x.pem"]);
}

#[test]
fn listing_no_certificates_fails() {
    let bench = Bench::new(&["Alice"]);
    let line = one_line(&list(&bench.out()), 1);
    has(&line, &["cannot read the directory ", "No such file"]);
    fs::create_dir(bench.out()).unwrap();
    let line = one_line(&list(&bench.out()), 1);
    has(&line, &["there is no certificate (*.pem) in "]);
}
