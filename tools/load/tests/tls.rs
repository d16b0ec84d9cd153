//! TLS with real servers: every mode speaks it, whom it trusts is said, and each mistake is told
//! with a way out.

#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test ends at what it did not expect"
)]

mod common;

use std::fs;
use std::path::Path;
use std::thread;
use std::time::Duration;

use common::{Herd, Running, play, run};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

const NAME: &str = "herd.example";

/// Writes `ca.pem`, and a certificate for [`NAME`] of that authority.
fn certify(directory: &Path) {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new([NAME.to_owned()]).unwrap();
    let certificate = params.signed_by(&key, &authority).unwrap();
    let write = |file: &str, pem: String| fs::write(directory.join(file), pem).unwrap();
    write("ca.pem", authority.pem());
    write("clients.pem", certificate.pem());
    write("clients.key", key.serialize_pem());
}

const CLIENTS_TLS: &str =
    "[clients.tls]\ncertificate_file = \"clients.pem\"\nkey_file = \"clients.key\"\n";

/// A herd that uses TLS with its clients.
fn herd(names: &[&str]) -> Herd {
    herd_with(names, "")
}

/// The same; `more` is added to the config file.
fn herd_with(names: &[&str], more: &str) -> Herd {
    let links: Vec<_> = names.windows(2).map(|pair| (pair[0], pair[1])).collect();
    let herd = herd_testkit::herd::Herd::new(names, &links).level("info");
    certify(herd.directory.path());
    Herd::of(herd.with(&format!("{CLIENTS_TLS}{more}")))
}

/// The arguments that name a server by the config file, and whom to trust.
fn arguments<'a>(herd: &'a Herd, mode: &'a str, ca: &'a str, options: &'a str) -> Vec<&'a str> {
    let mut words = vec![mode, "Riley", "--config", &herd.config];
    words.extend(["--ca", ca, "--tls-name", NAME]);
    words.extend(options.split(' '));
    words
}

fn ca(herd: &Herd) -> String {
    let path = herd.directory().join("ca.pem");
    path.to_str().unwrap().to_owned()
}

#[test]
fn every_mode_works_over_tls() {
    let herd = herd(&["Riley", "B"]);
    let ca = ca(&herd);
    for (mode, options, answers) in [
        ("iamat", "--count 3000 -c 7 --depth 50 --json", 3000),
        ("iamat", "--count 200 --rate 2000 -c 3 --json", 200),
        (
            "whatsat",
            "--count 300 -c 3 --clients 700 --depth 5 --json",
            300,
        ),
        ("mix", "--count 300 -c 3 --clients 50 --json", 300),
        ("flood", "--count 20 --warm-up 0 --json", 20),
    ] {
        let figures = run(&arguments(&herd, mode, &ca, options)).figures();
        assert_eq!(figures["answers"], answers, "{mode}: {figures}");
        assert_eq!(figures["parameters"]["tls"], true);
    }
    for speak in ["never", "once", "half"] {
        let options = format!("-c 10 --duration 0.2 --warm-up 0 --json --speak {speak}");
        let figures = run(&arguments(&herd, "idle", &ca, &options)).figures();
        assert_eq!(figures["parameters"]["connections"], 10, "{figures}");
    }
    // By its address too: that it speaks TLS has to be said then, and --ca says it.
    let address = herd.servers[0].address.to_string();
    let words = [
        "iamat",
        &address,
        "--ca",
        &ca,
        "--tls-name",
        NAME,
        "--count",
        "9",
    ];
    let ended = run(&words);
    assert_eq!(
        (ended.status, ended.stderr.as_str()),
        (Some(0), ""),
        "{ended:?}"
    );
    assert!(
        ended
            .stdout
            .starts_with(&format!("iamat: Riley at {address} over TLS, "))
    );
}

#[test]
fn an_untrusted_certificate_is_reported_with_a_fix() {
    let herd = herd(&["Riley"]);
    let address = herd.servers[0].address.to_string();
    let ca = ca(&herd);
    let cannot = format!("cannot connect to {address} (connection 1): ");
    for (options, part) in [
        (
            &["--tls"][..],
            "from an authority that is not trusted; the trusted authorities are those that browsers trust; give its authority's file with --ca",
        ),
        (&["--ca", &ca], "its certificate is not for 127."),
        (
            &["--ca", &ca, "--tls-name", "other.example"],
            "is not for other.example, but for herd.example; if that is the right server, give its name with --tls-name",
        ),
    ] {
        for mode in ["iamat", "idle", "mix"] {
            let ended = run(&[&[mode, &address], options].concat());
            ended.failed(1, &[&cannot, part]);
            assert_eq!(ended.stderr.lines().count(), 1, "{ended:?}");
        }
    }
    run(&["iamat", &address, "--ca", "/nowhere/ca.pem"]).failed(2, &["/nowhere/ca.pem"]);
    run(&["iamat", &address, "--tls-name", "a b"]).failed(2, &["a DNS name or an IP address"]);
}

#[test]
fn a_full_server_s_tls_alert_is_explained() {
    let more = "[limits]\nmax_clients = 3\n";
    let herd = herd_with(&["Riley"], more);
    let ca = ca(&herd);
    let ended = run(&arguments(&herd, "iamat", &ca, "-c 5"));
    ended.failed(
        1,
        &[
            "(connection 4): ",
            "a server with too many connections answers so",
        ],
    );
}

#[test]
fn tls_at_one_end_only_is_reported() {
    let herd = herd(&["Riley"]);
    let address = herd.servers[0].address.to_string();
    let way_out = "uses TLS with its clients; add --tls, and --ca FILE";
    for mode in ["iamat", "whatsat", "idle"] {
        run(&[mode, &address]).failed(1, &[&address, way_out]);
    }
    let plain = play(|session, line| Some(session.right(line)));
    let seems = "so it seems not to use TLS; without --tls, --ca and --tls-name this program uses plain TCP";
    run(&["iamat", &plain, "--tls"]).failed(1, &[&plain, seems]);
    // A server of the herd, too, whose config file has a table that it was not started with.
    let plain = Herd::start(&["Riley"]);
    certify(plain.directory());
    let text = fs::read_to_string(&plain.config).unwrap();
    let table = "[clients.tls]\ncertificate_file = \"clients.pem\"\nkey_file = \"clients.key\"\n";
    fs::write(&plain.config, text + table).unwrap();
    let seems = "so it seems not to use TLS; was it started with the config file's [clients.tls]?";
    run(&["iamat", "Riley", "--config", &plain.config]).failed(1, &[seems]);
}

/// Longer than any test: the run is ended by a signal, once what was waited for has come.
const LONG: &str = "-c 3 --warm-up 0 --duration 3600 --json";

#[test]
fn a_lost_tls_connection_is_redialled() {
    let mut herd = herd(&["Riley"]);
    let ca = ca(&herd);
    let mut load = Running::start(&arguments(&herd, "iamat", &ca, LONG));
    herd.servers[0].wait_for_nth_log(100, "<- IAMAT", "");
    herd.kill(0);
    load.wait_for("; trying again\n");
    herd.start_again(0);
    load.wait_for("connected to Riley at ");
    herd.servers[0].wait_for_nth_log(100, "<- IAMAT", "");
    let figures = load.interrupt().incomplete(&["lost with a connection"]);
    assert_eq!(figures["connections_lost"], 3, "{figures}");
    assert_eq!(figures["connections_remade"], 3, "{figures}");
    assert_eq!(figures["trouble"], serde_json::Value::Null);
}

#[test]
fn a_changed_certificate_is_reported_once() {
    let mut herd = herd(&["Riley"]);
    let ca = ca(&herd);
    let kept = herd.directory().join("kept.pem");
    fs::copy(&ca, &kept).unwrap();
    let kept = kept.to_str().unwrap().to_owned();
    let mut load = Running::start(&arguments(&herd, "iamat", &kept, LONG));
    herd.servers[0].wait_for_nth_log(100, "<- IAMAT", "");
    herd.kill(0);
    certify(herd.directory());
    herd.start_again(0);
    let why = "its certificate is from an authority that is not trusted";
    load.wait_for(why);
    // As often again as a second has room for.
    thread::sleep(Duration::from_secs(1));
    let ended = load.interrupt();
    ended.incomplete(&["3 of 3 connections to Riley at ", why]);
    let told = ended
        .stderr
        .lines()
        .filter(|line| line.ends_with("; trying again"));
    assert!(
        told.filter(|line| line.contains(why)).count() == 1,
        "{ended:?}"
    );
}

#[test]
fn a_restart_with_another_tls_mode_is_reported() {
    let mut herd = herd(&["Riley"]);
    let ca = ca(&herd);
    let secure = fs::read_to_string(&herd.config).unwrap();
    let plain = secure.split("[clients.tls]").next().unwrap().to_owned();
    let other = herd.directory().join("plain.toml");
    fs::write(&other, &plain).unwrap();
    let mut load = Running::start(&arguments(&herd, "iamat", &ca, LONG));
    herd.servers[0].wait_for_nth_log(100, "<- IAMAT", "");
    herd.kill(0);
    herd.herd.replace_tables("");
    herd.start_again(0);
    load.wait_for("so it seems not to use TLS");
    load.interrupt().incomplete(&["so it seems not to use TLS"]);

    let mut words = vec!["iamat", "Riley", "--config", other.to_str().unwrap()];
    words.extend(LONG.split(' '));
    let mut load = Running::start(&words);
    herd.servers[0].wait_for_nth_log(100, "<- IAMAT", "");
    herd.kill(0);
    herd.herd.replace_tables(CLIENTS_TLS);
    herd.start_again(0);
    load.wait_for("uses TLS with its clients; add --tls");
    load.interrupt()
        .incomplete(&["uses TLS with its clients; add --tls"]);
}
