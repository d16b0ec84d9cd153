//! Tests of TLS with real servers: how it is switched on, which certificates are accepted, the
//! messages for refused ones, and that pipes and prompts work as without TLS.

#![cfg(unix)]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test ends at what it did not expect"
)]

mod common;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::thread;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, date_time_ymd};
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection};
use tempfile::TempDir;

use common::{DEADLINE, Ended, client, end, run};

const CLIENTS_TLS: &str =
    "[clients.tls]\ncertificate_file = \"clients.pem\"\nkey_file = \"clients.key\"\n";
const PEERS_TLS: &str = "[peers.tls]\nca_file = \"ca.pem\"\ncertificate_file = \"clients.pem\"\nkey_file = \"clients.key\"\n";

/// A certificate authority.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Authority {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Authority(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// Writes `ca.pem`, `clients.pem` and `clients.key`: a certificate for `name` from the first
    /// year to the second.
    fn certify(&self, directory: &Path, name: &str, years: [i32; 2]) {
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        params.not_before = date_time_ymd(years[0], 1, 1);
        params.not_after = date_time_ymd(years[1], 1, 1);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        let write = |file: &str, pem: String| fs::write(directory.join(file), pem).unwrap();
        write("ca.pem", self.0.pem());
        write("clients.pem", certificate.pem());
        write("clients.key", key.serialize_pem());
    }
}

const NOW: [i32; 2] = [2000, 4000];

/// The server's program. It is in the client's directory, if the whole workspace was built.
fn server_program() -> PathBuf {
    let program = Path::new(env!("CARGO_BIN_EXE_herd-client")).with_file_name("herd-mio");
    if !program.exists() {
        let mut build = Command::new(env!("CARGO"));
        let built = build.args(["build", "--quiet", "-p", "herd-mio"]).status();
        assert!(built.unwrap().success());
    }
    program
}

/// A server process, and the directory with its config file and certificates.
struct Server {
    directory: TempDir,
    process: Child,
    address: SocketAddr,
    tables: String,
}

impl Server {
    /// A server with TLS. The authority in `ca.pem` has signed its certificate for `name`.
    fn secure(name: &str) -> Server {
        let directory = tempfile::tempdir().unwrap();
        Authority::new().certify(directory.path(), name, NOW);
        Server::start(directory, CLIENTS_TLS)
    }

    fn plain() -> Server {
        Server::start(tempfile::tempdir().unwrap(), "")
    }

    fn start(directory: TempDir, tables: &str) -> Server {
        describe(&directory, "127.0.0.1:0", tables);
        let mut process = Command::new(server_program())
            .args(["Riley", "--config", "herd.toml"])
            .current_dir(directory.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut ready = String::new();
        let mut stdout = BufReader::new(process.stdout.take().unwrap());
        stdout.read_line(&mut ready).unwrap();
        let address = ready.split_once("clients on ").unwrap().1;
        let address = address.split([',', '\n']).next().unwrap().parse().unwrap();
        let server = Server {
            directory,
            process,
            address,
            tables: tables.to_owned(),
        };
        server.describe("");
        server
    }

    /// Writes a new config file for clients, with the port that the system chose and with `more`
    /// tables.
    fn describe(&self, more: &str) {
        let tables = self.tables.clone() + more;
        describe(&self.directory, &self.address.to_string(), &tables);
    }

    fn file(&self, name: &str) -> String {
        let path = self.directory.path().join(name);
        path.to_str().unwrap().to_owned()
    }

    /// Arguments that name the server by its config file.
    fn by_config(&self) -> Vec<String> {
        vec!["Riley".into(), "--config".into(), self.file("herd.toml")]
    }

    /// Arguments that name the server by its address, its authority, and the name in its
    /// certificate.
    fn by_address(&self, name: &str) -> Vec<String> {
        let ca = self.file("ca.pem");
        [&*self.address.to_string(), "--ca", &ca, "--tls-name", name]
            .map(str::to_owned)
            .to_vec()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Shows a certificate of these years to one client. herd-mio itself would not start with it.
/// Returns the arguments for the client.
fn shown_once(years: [i32; 2]) -> Vec<String> {
    let directory = tempfile::tempdir().unwrap();
    Authority::new().certify(directory.path(), "localhost", years);
    let file = |name: &str| directory.path().join(name);
    let chain = CertificateDer::pem_file_iter(file("clients.pem")).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            chain.map(Result::unwrap).collect(),
            PrivateKeyDer::from_pem_file(file("clients.key")).unwrap(),
        )
        .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let ca = file("ca.pem").to_str().unwrap().to_owned();
    thread::spawn(move || {
        let _files = directory; // until the client has ended
        let (mut stream, _) = listener.accept().unwrap();
        let mut tls = ServerConnection::new(Arc::new(config)).unwrap();
        // This fails with the client's alert, which the test looks at.
        let _ = tls.complete_io(&mut stream);
    });
    [&address, "--ca", &ca, "--tls-name", "localhost"]
        .map(str::to_owned)
        .to_vec()
}

fn describe(directory: &TempDir, clients: &str, tables: &str) {
    let text = format!("[[servers]]\nname = \"Riley\"\nclients = \"{clients}\"\n{tables}");
    fs::write(directory.path().join("herd.toml"), text).unwrap();
}

/// Sends one command. These arguments come before it.
fn ask(arguments: &[String]) -> Ended {
    let words = arguments.iter().map(String::as_str);
    run(words.chain(["iamat", "kiwi", "34.07", "-118.44"]), b"")
}

#[track_caller]
fn is_answered(ended: &Ended) {
    assert_eq!((ended.status, &*ended.stderr), (Some(0), ""), "{ended:?}");
    assert!(ended.stdout.starts_with(b"AT Riley +"), "{ended:?}");
}

/// Asserts that the program reports in one line that there is no connection. The line contains all
/// of these texts.
#[track_caller]
fn is_refused(ended: &Ended, told: &[&str]) {
    assert_eq!(
        (ended.status, &*ended.stdout),
        (Some(3), &b""[..]),
        "{ended:?}"
    );
    assert_eq!(ended.stderr.lines().count(), 1, "{ended:?}");
    for text in told {
        assert!(ended.stderr.contains(text), "{text:?} in {ended:?}");
    }
}

#[test]
fn a_config_file_enables_tls() {
    let server = Server::secure("127.0.0.1");
    server.describe(PEERS_TLS);
    is_answered(&ask(&server.by_config()));
    // The config file does not name the authority, so only --ca helps.
    server.describe("");
    is_refused(
        &ask(&server.by_config()),
        &[
            "the trusted authorities are those that browsers trust;",
            "--ca",
        ],
    );
    let given = [
        server.by_config(),
        vec!["--ca".into(), server.file("ca.pem")],
    ]
    .concat();
    is_answered(&ask(&given));
}

#[test]
fn an_address_needs_tls_options() {
    let server = Server::secure("herd.example.net");
    is_answered(&ask(&server.by_address("herd.example.net")));
    // Without --tls-name, the name is that of the address.
    let server = Server::secure("localhost");
    let address = format!("localhost:{}", server.address.port());
    is_answered(&ask(&[address, "--ca".into(), server.file("ca.pem")]));
}

#[test]
fn a_wrong_certificate_name_is_refused_and_shown() {
    let server = Server::secure("herd.example.net");
    let told = [
        "its certificate is not for 127.0.0.1, but for herd.example.net; ",
        "--tls-name",
    ];
    let ended = ask(&[
        server.address.to_string(),
        "--ca".into(),
        server.file("ca.pem"),
    ]);
    is_refused(&ended, &told);
    let ended = ask(&server.by_address("herd.example.com"));
    is_refused(
        &ended,
        &["not for herd.example.com, but for herd.example.net;"],
    );
}

#[test]
fn an_untrusted_authority_is_refused() {
    let server = Server::secure("localhost");
    let address = server.address.to_string();
    let told = [
        "its certificate is from an authority that is not trusted; the trusted authorities are those",
        "--ca",
    ];
    // Browsers do not trust this authority. And an authority of --ca with the same name but another
    // key does not help.
    is_refused(&ask(&[address.clone(), "--tls".into()]), &told);
    Authority::new().certify(server.directory.path(), "localhost", NOW);
    is_refused(&ask(&server.by_address("localhost")), &told);
    // --ca replaces the herd's own authority.
    let other = Server::secure("127.0.0.1");
    other.describe(PEERS_TLS);
    let ended = ask(&[
        other.by_config(),
        vec!["--ca".into(), server.file("ca.pem")],
    ]
    .concat());
    is_refused(&ended, &told);
}

#[test]
fn expired_and_future_certificates_are_refused() {
    let told = ["its certificate has expired on 2020-01-01; the server needs a new one"];
    is_refused(&ask(&shown_once([2000, 2020])), &told);
    let told = ["its certificate is not valid yet (from 3999-01-01 on); "];
    is_refused(&ask(&shown_once([3999, 4000])), &told);
}

#[test]
fn a_server_without_tls_is_reported() {
    let told = "it answers the TLS handshake with another protocol, so it seems not to use TLS; ";
    let server = Server::plain();
    let ended = ask(&[server.address.to_string(), "--tls".into()]);
    is_refused(&ended, &["cannot connect to ", told, "without --tls"]);
    // The config file was changed, but the server was not restarted.
    server.describe(CLIENTS_TLS);
    let advice = "was it started with the config file's [clients.tls]?";
    is_refused(&ask(&server.by_config()), &[told, advice]);
}

#[test]
fn a_server_silent_in_the_tls_handshake_is_reported() {
    let server = common::Server::start(1, |mut peer| {
        peer.0.fill_buf().unwrap();
    });
    let ended = ask(&[server.address.clone(), "--tls".into()]);
    let told = "it closed the connection in the TLS handshake, so it seems not to use TLS;";
    is_refused(&ended, &[told]);

    let server = common::Server::start(1, |mut peer| peer.rest());
    let ended = ask(&[&*server.address, "--tls", "--timeout=0.5"].map(str::to_owned));
    let told = "it does not answer the TLS handshake, so it seems not to use TLS;";
    is_refused(&ended, &[told]);
}

#[test]
fn a_server_that_needs_tls_is_reported() {
    let server = Server::secure("localhost");
    let ended = ask(&[server.address.to_string()]);
    is_refused(
        &ended,
        &["sent a TLS alert, so it uses TLS with its clients; add --tls"],
    );
}

#[test]
fn invalid_tls_options_exit_with_status_2() {
    for (arguments, told) in [
        (
            ["--ca", "/nonexistent/ca.pem"],
            "cannot read certificates from /nonexistent/ca.pem: ",
        ),
        (
            ["--tls-name", "no name"],
            "it must be a DNS name or an IP address",
        ),
    ] {
        let ended = run([&["127.0.0.1:1"], &arguments[..]].concat(), b"");
        assert_eq!((ended.status, ended.stderr.lines().count()), (Some(2), 1));
        assert!(ended.stderr.contains(told), "{ended:?}");
    }
}

/// The client ends its input with a close_notify. Without one, the server would not accept a last
/// line without LF.
#[test]
fn the_end_of_input_sends_close_notify() {
    let server = Server::secure("localhost");
    let arguments = server.by_address("localhost");
    let commands = "IAMAT kiwi +1+2 3\n\nwhatsat nobody\n".to_owned() + "IAMAT kiwi +1+2 4";
    let ended = run(arguments.iter().map(String::as_str), commands.as_bytes());
    let text = String::from_utf8(ended.stdout).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(
        (ended.status, &*ended.stderr, lines.len()),
        (Some(1), "", 3),
        "{text}"
    );
    assert!(lines[0].ends_with("kiwi +1+2 3") && lines[2].ends_with("kiwi +1+2 4"));
    assert_eq!(lines[1], "? WHATSAT nobody 10 5");
}

/// The server reads no commands while its answers are not read: the sending thread must not block
/// the reading one.
#[test]
fn answers_are_read_over_tls_while_commands_are_written() {
    let server = Server::secure("localhost");
    let line = |number: usize| format!("{number:05} {}\n", "x".repeat(3_000));
    let commands: String = (0..5_000).map(line).collect();
    let answers: String = (0..5_000)
        .map(|number| format!("? {}", line(number)))
        .collect();
    let arguments = server.by_address("localhost");
    let mut child = client(arguments.iter().map(String::as_str));
    let mut stdin = child.stdin.take().unwrap();
    let writer = thread::spawn(move || stdin.write_all(commands.as_bytes()));
    let ended = end(child);
    writer.join().unwrap().unwrap();
    assert_eq!((ended.status, &*ended.stderr), (Some(1), ""));
    assert!(
        ended.stdout == answers.as_bytes(),
        "{} bytes",
        ended.stdout.len()
    );
}

#[test]
fn commands_after_an_overlong_line_are_answered() {
    let server = Server::secure("localhost");
    let arguments = server.by_address("localhost");
    let long = "x".repeat(100_000);
    let input = format!("a\n{long}\nb\n");
    let ended = run(arguments.iter().map(String::as_str), input.as_bytes());
    assert_eq!((ended.status, &*ended.stderr), (Some(1), ""));
    assert!(ended.stdout == format!("? a\n? {}\n? b\n", &long[..4096]).as_bytes());
}

/// The client at a terminal, which script(1) provides.
struct Prompt {
    process: Child,
    keys: ChildStdin,
    shown: Receiver<Vec<u8>>,
    screen: String,
}

impl Prompt {
    fn new(arguments: &[String], home: &Path) -> Prompt {
        let program = env!("CARGO_BIN_EXE_herd-client");
        let mut process = Command::new("script")
            .args([
                "-qec",
                &format!("'{program}' '{}'", arguments.join("' '")),
                "/dev/null",
            ])
            .env("XDG_STATE_HOME", home)
            .env("TERM", "dumb")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let keys = process.stdin.take().unwrap();
        let mut stdout = process.stdout.take().unwrap();
        let (sender, shown) = channel();
        thread::spawn(move || {
            let mut chunk = [0; 4096];
            while let Ok(count @ 1..) = stdout.read(&mut chunk) {
                if sender.send(chunk[..count].to_vec()).is_err() {
                    return;
                }
            }
        });
        Prompt {
            process,
            keys,
            shown,
            screen: String::new(),
        }
    }

    /// Waits until the screen shows this text after all earlier ones. Returns the text up to it.
    fn until(&mut self, text: &str) -> String {
        loop {
            if let Some(at) = self.screen.find(text) {
                let rest = self.screen.split_off(at + text.len());
                return std::mem::replace(&mut self.screen, rest);
            }
            match self.shown.recv_timeout(DEADLINE) {
                Ok(bytes) => self.screen += &String::from_utf8_lossy(&bytes),
                Err(error) => panic!("{error} while waiting for {text:?}: {:?}", self.screen),
            }
        }
    }

    fn type_line(&mut self, line: &str) {
        writeln!(self.keys, "{line}").unwrap();
    }
}

impl Drop for Prompt {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn the_prompt_keeps_its_tls_connection_and_detects_its_end() {
    if Command::new("script").arg("--version").output().is_err() {
        eprintln!("skipped: there is no script(1) here, which makes a terminal");
        return;
    }
    let mut server = Server::secure("localhost");
    let address = server.address;
    let mut prompt = Prompt::new(&server.by_address("localhost"), server.directory.path());
    prompt.until(&format!("Connected to {address} over TLS."));
    // Session tickets that came after the handshake do not count as unexpected answers.
    for word in ["one", "two", "three"] {
        prompt.type_line(word);
        let shown = prompt.until(&format!("? {word}"));
        assert!(!shown.contains("herd-client:"), "{shown}");
    }
    server.process.kill().unwrap();
    server.process.wait().unwrap();
    prompt.type_line("four");
    prompt.until(&format!(
        "{address} has closed the connection; connecting again"
    ));
    prompt.until("no server listens there");
    prompt.type_line("quit");
    assert_eq!(prompt.process.wait().unwrap().code(), Some(0));
}
