//! Tests of `herd-places` as a program: its output, its files and its exit status.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test may fail"
)]
#![cfg(unix)]

use std::io::{BufRead, BufReader, Read};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

fn program(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_herd-places"));
    command
        .current_dir(folder)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// A running program. Dropping it kills it, also when a test fails.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // Fails if the program has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts the program and waits for its line. Returns the port too.
fn start(folder: &Path, arguments: &[&str]) -> (Running, String, u16) {
    let mut running = Running(
        program(folder, &["--listen", "127.0.0.1:0"])
            .args(arguments)
            .spawn()
            .unwrap(),
    );
    let mut line = String::new();
    BufReader::new(running.0.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    let port = line
        .strip_prefix("herd-places: https://localhost:")
        .expect(&line);
    let port = port.split(' ').next().unwrap().parse().unwrap();
    (running, line, port)
}

/// Ends the program with a signal. Returns its exit status and its standard error.
fn stop(mut running: Running, signal: &str) -> (Option<i32>, String) {
    let pid = running.0.id().to_string();
    assert!(
        Command::new("kill")
            .args(["-s", signal, &pid])
            .status()
            .unwrap()
            .success()
    );
    let mut stderr = String::new();
    running
        .0
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut stderr)
        .unwrap();
    (running.0.wait().unwrap().code(), stderr)
}

fn get(port: u16, ca: &Path, target: &str) -> String {
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_file(ca).unwrap())
        .unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let tls = ClientConnection::new(Arc::new(config), "localhost".try_into().unwrap()).unwrap();
    let mut stream = StreamOwned::new(
        tls,
        std::net::TcpStream::connect(("127.0.0.1", port)).unwrap(),
    );
    let request = format!("GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    std::io::Write::write_all(&mut stream, request.as_bytes()).unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).unwrap();
    response
}

const TARGET: &str =
    "/maps/api/place/nearbysearch/json?location=34.0689,-118.4452&radius=1000&key=";

#[test]
fn the_ready_line_is_true_and_no_key_is_shown() {
    let folder = tempfile::tempdir().unwrap();
    let ca = folder.path().join("places-ca.pem");
    let (running, line, port) = start(folder.path(), &["--key", "not-to-be-shown"]);
    assert!(line.ends_with(" (CA in places-ca.pem)\n"), "{line}");
    let good = get(port, &ca, &format!("{TARGET}not-to-be-shown"));
    assert!(
        good.starts_with("HTTP/1.1 200 OK\r\n") && good.contains("\"status\" : \"OK\""),
        "{good}"
    );
    assert!(get(port, &ca, &format!("{TARGET}someone-elses")).contains("REQUEST_DENIED"));
    let (status, log) = stop(running, "TERM");
    assert_eq!(status, Some(0));
    let lines: Vec<&str> = log.lines().collect();
    assert_eq!(lines.len(), 2, "{log}");
    assert!(
        lines[0].starts_with(&format!("GET {TARGET}[hidden] 200 {} bytes ", good.len())),
        "{log}"
    );
    assert!(lines[0].ends_with(" ms"), "{log}");
    assert!(
        !log.contains("not-to-be-shown") && !log.contains("someone-elses"),
        "{log}"
    );
    let left: Vec<_> = std::fs::read_dir(folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(left, ["places-ca.pem"], "no temporary file stays behind");
}

#[test]
fn fail_every_2_fails_each_second_request() {
    let folder = tempfile::tempdir().unwrap();
    let ca = folder.path().join("ca of this test.pem");
    let (running, _, port) = start(
        folder.path(),
        &[
            "--fail",
            "503",
            "--every",
            "2",
            "--quiet",
            "--ca-file",
            ca.to_str().unwrap(),
        ],
    );
    let first_lines: Vec<String> = (0..4)
        .map(|_| {
            get(port, &ca, &format!("{TARGET}test-key"))
                .lines()
                .next()
                .unwrap()
                .to_owned()
        })
        .collect();
    let (good, bad) = ("HTTP/1.1 200 OK", "HTTP/1.1 503 Service Unavailable");
    assert_eq!(first_lines, [good, bad, good, bad]);
    assert_eq!(stop(running, "INT"), (Some(0), String::new()));
}

fn fails(arguments: &[&str]) -> Output {
    let folder = tempfile::tempdir().unwrap();
    let output = program(folder.path(), arguments).output().unwrap();
    assert!(output.stdout.is_empty());
    output
}

#[test]
fn invalid_options_exit_with_status_2() {
    for arguments in [
        ["--fail", "200"],
        ["--chunk", "0"],
        ["--every", "2"],
        ["--key", ""],
        ["--listen", "nowhere"],
        ["--drop", "--truncate"],
    ] {
        assert_eq!(fails(&arguments).status.code(), Some(2), "{arguments:?}");
    }
    assert_eq!(fails(&["--silent", "--every", "2"]).status.code(), Some(2));
}

#[test]
fn a_run_time_error_is_one_line_with_status_1() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for (arguments, what) in [
        (
            ["--listen", &address],
            format!("herd-places: cannot listen on {address}: "),
        ),
        (
            ["--ca-file", "no/such/folder.pem"],
            "herd-places: cannot write no/such/folder.pem: ".to_owned(),
        ),
    ] {
        let mut arguments = arguments.to_vec();
        if arguments[0] != "--listen" {
            arguments.extend(["--listen", "127.0.0.1:0"]);
        }
        let output = fails(&arguments);
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(
            (output.status.code(), stderr.lines().count()),
            (Some(1), 1),
            "{stderr}"
        );
        assert!(stderr.starts_with(&what), "{stderr}");
    }
}
