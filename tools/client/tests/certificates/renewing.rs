//! Tests of `--renew`: it replaces certificates and keys, and changes nothing else.

use crate::{Bench, has};

#[test]
fn renew_replaces_only_the_named_certificates_and_keys() {
    let bench = Bench::new(&["Alice", "Bob", "Carol"]);
    bench.run(&[]);
    let before = bench.snapshot();
    let said = bench.run(&["--renew", "Alice", "operator", "Alice", "--days", "90"]);
    has(
        &said,
        &[
            "renewed  Alice.pem",
            "renewed  operator.pem",
            "SIGHUP",
            "\n  Alice.pem Alice.key to Alice\n",
        ],
    );
    assert_eq!(said.matches("renewed  Alice.pem").count(), 1);
    let after = bench.snapshot();
    assert!(after.keys().eq(before.keys()), "{:?}", bench.names());
    for (name, text) in &after {
        let is_renewed = name.starts_with("Alice.") || name.starts_with("operator.");
        assert_eq!(before[name] != *text, is_renewed, "{name}");
    }
    let (listing, _, _) = bench.list();
    has(&listing, &["Alice.pem", "   89\n", "  824\n"]);
}

#[test]
fn renew_replaces_damaged_files() {
    let bench = Bench::new(&["Alice", "Bob"]);
    bench.run(&[]);
    std::fs::remove_file(bench.file("Alice.key")).unwrap();
    std::fs::write(bench.file("Bob.pem"), "rubbish").unwrap();
    bench.run(&["--renew", "Alice", "Bob"]);
    has(&bench.run(&[]), &["kept     Alice.pem", "kept     Bob.pem"]);
}

#[test]
fn renew_keeps_client_names_unless_new_ones_are_given() {
    let bench = Bench::new(&["Alice"]);
    bench.run(&["--client-names", "a.example.net,192.0.2.7"]);
    has(
        &bench.run(&["--renew", "clients"]),
        &["clients.pem clients.key to all hosts"],
    );
    has(&bench.list().0, &["a.example.net,192.0.2.7  clients.pem"]);
    bench.run(&["--renew", "clients", "--client-names", "b.example.net"]);
    has(&bench.list().0, &["b.example.net  "]);
}

#[test]
fn renew_fails_without_an_existing_certificate() {
    let bench = Bench::new(&["Alice"]);
    has(
        &bench.fail(&["--renew", "Alice"], 1),
        &["cannot read the directory", "No such file"],
    );
    std::fs::create_dir(bench.out()).unwrap();
    has(
        &bench.fail(&["--renew", "Alice"], 1),
        &["has no authority (ca.pem, ca.key)", "without --renew"],
    );
    bench.run(&[]);
    bench.describe(&["Alice", "Bob"], "");
    has(
        &bench.fail(&["--renew", "Alice", "Bob"], 1),
        &["Bob has no certificate in "],
    );
    has(
        &bench.fail(&["--renew", "clients"], 1),
        &["clients has no certificate in "],
    );
    has(
        &bench.fail(&["--renew", "Carol"], 2),
        &["has no such server; there are: Alice Bob operator clients"],
    );
    has(
        &bench.fail(&["--renew", "ca"], 2),
        &["cannot be renewed in place", "in another directory"],
    );
    has(
        &bench.fail(&["--renew", "Alice", "--client-names", "a"], 2),
        &["--renew clients"],
    );
}
