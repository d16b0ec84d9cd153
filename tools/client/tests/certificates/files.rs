//! Which files are written, who can read them, and which stay unchanged.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use crate::{Bench, has, texts};

fn mode(path: &std::path::Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn key_files_have_mode_600_under_any_umask() {
    for umask in ["000", "022", "077"] {
        let bench = Bench::new(&["Alice"]);
        let output = Command::new("sh")
            .args(["-c", "umask $1; shift; exec \"$@\"", "sh", umask])
            .arg(env!("CARGO_BIN_EXE_herd-certificates"))
            .arg("--config")
            .arg(bench.config())
            .arg("--out")
            .arg(bench.out())
            .output()
            .unwrap();
        assert!(output.status.success(), "{:?}", texts(&output));
        assert_eq!(mode(&bench.out()), 0o700, "umask {umask}");
        for stem in ["ca", "Alice", "operator"] {
            assert_eq!(mode(&bench.file(&format!("{stem}.key"))), 0o600, "{umask}");
            let others = if umask == "077" { 0 } else { 0o044 };
            let certificate = mode(&bench.file(&format!("{stem}.pem")));
            assert_eq!(certificate, 0o600 | others, "{umask}");
        }
    }
}

#[test]
fn an_existing_directory_keeps_its_mode() {
    let bench = Bench::new(&["Alice"]);
    fs::create_dir(bench.out()).unwrap();
    fs::set_permissions(bench.out(), Permissions::from_mode(0o750)).unwrap();
    bench.run(&[]);
    assert_eq!(mode(&bench.out()), 0o750);
}

#[test]
fn a_second_run_changes_nothing_and_gives_the_same_advice() {
    let bench = Bench::new(&["Alice", "Bob"]);
    let first = bench.run(&["--client-names", "herd.example.net"]);
    let made = bench.snapshot();
    assert_eq!(
        bench.names(),
        [
            "Alice.key",
            "Alice.pem",
            "Bob.key",
            "Bob.pem",
            "ca.key",
            "ca.pem",
            "clients.key",
            "clients.pem",
            "operator.key",
            "operator.pem"
        ]
    );
    for again in [
        bench.run(&[]),
        bench.run(&["--client-names", "HERD.example.net", "--days", "3"]),
    ] {
        assert_eq!(again.replace("kept", "made"), first);
        assert!(bench.snapshot() == made);
    }
    has(
        &first,
        &[
            "made     ca.pem  ",
            "\n[peers.tls]\nca_file = \"certificates/ca.pem\"\ncertificate_file = \"certificates/{name}.pem\"\nkey_file = \"certificates/{name}.key\"\n",
            "\n[clients.tls]\ncertificate_file = \"certificates/clients.pem\"\nkey_file = \"certificates/clients.key\"\n",
            "\n  Alice     ca.pem Alice.pem Alice.key clients.pem clients.key\n",
            "\n  operator  ca.pem operator.pem operator.key (",
            "/certificates/ca.key here, or better offline",
        ],
    );
}

#[test]
fn a_new_server_gets_the_missing_certificates() {
    let bench = Bench::new(&["Alice", "Bob"]);
    bench.run(&[]);
    let before = bench.snapshot();
    bench.describe(&["Alice", "Bob", "Carol"], "");
    let said = bench.run(&["--client-names", "herd.example.net"]);
    has(
        &said,
        &["kept     ca.pem", "kept     Bob.pem", "made     Carol.pem"],
    );
    let mut after = bench.snapshot();
    for new in ["Carol.pem", "Carol.key", "clients.pem", "clients.key"] {
        after.remove(new).unwrap();
    }
    assert!(after == before);
}

#[test]
fn a_preset_needs_no_config_file() {
    let bench = Bench::new(&["unused"]);
    let output = Command::new(env!("CARGO_BIN_EXE_herd-certificates"))
        .args(["--herd", "2022", "--out"])
        .arg(bench.out())
        .output()
        .unwrap();
    let (out, err) = texts(&output);
    assert_eq!((output.status.code(), err.as_str()), (Some(0), ""));
    has(
        &out,
        &[
            "Clark.pem",
            "Johnson.pem",
            "Put this into the config file of your herd",
        ],
    );
}

#[test]
fn a_readable_key_file_is_warned_of() {
    let bench = Bench::new(&["Alice"]);
    bench.run(&[]);
    let key = bench.file("ca.key");
    fs::set_permissions(&key, Permissions::from_mode(0o644)).unwrap();
    let output = bench.command(&[]).output().unwrap();
    let (_, err) = texts(&output);
    assert!(output.status.success());
    let key = key.display();
    assert_eq!(
        err,
        format!(
            "herd-certificates: users other than its owner can read or write {key} (mode 644); fix it with: chmod 600 {key}\n"
        )
    );
}
