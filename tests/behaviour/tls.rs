//! TLS with clients and between neighbours: which certificates are accepted, what is closed, and
//! how certificates are renewed.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, date_time_ymd};
use rustix::process::Signal;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use herd_testkit::client::{Client, SOON};
use herd_testkit::herd::{Herd, Server, status_command};

/// A certificate authority.
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub(crate) fn new() -> Authority {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Authority(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    pub(crate) fn issuer(&self) -> &CertifiedIssuer<'static, KeyPair> {
        &self.0
    }

    pub(crate) fn pem(&self) -> String {
        self.0.pem()
    }

    /// Writes `<directory>/<file>.pem` and `.key`: a certificate for `name`.
    pub(crate) fn certify(&self, directory: &Path, file: &str, name: &str, is_expired: bool) {
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        if is_expired {
            params.not_after = date_time_ymd(2020, 1, 1);
            params.not_before = date_time_ymd(2019, 1, 1);
        }
        self.write(directory, file, params);
    }

    /// Writes a server's certificate that is valid for this long.
    pub(crate) fn certify_until(&self, directory: &Path, name: &str, left: Duration) {
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        params.not_after = date_time_ymd(1970, 1, 1) + now.unwrap() + left;
        self.write(directory, name, params);
    }

    fn write(&self, directory: &Path, file: &str, params: CertificateParams) {
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        fs::write(directory.join(format!("{file}.pem")), certificate.pem()).unwrap();
        fs::write(directory.join(format!("{file}.key")), key.serialize_pem()).unwrap();
    }
}

pub(crate) const FOR_CLIENTS: &str =
    "[clients.tls]\ncertificate_file = \"clients.pem\"\nkey_file = \"clients.key\"\n";
pub(crate) const FOR_PEERS: &str = "[peers.tls]\nca_file = \"ca.pem\"\ncertificate_file = \"{name}.pem\"\nkey_file = \"{name}.key\"\n";

/// A server that speaks TLS with its clients, and the authority that signed its certificate.
pub(crate) fn secure_server(limits: &str) -> (Herd, Server, Authority) {
    let herd = Herd::single()
        .with(FOR_CLIENTS)
        .with(&format!("[limits]\n{limits}\n"));
    let authority = Authority::new();
    authority.certify(herd.directory.path(), "clients", "localhost", false);
    let server = herd.start("Riley");
    (herd, server, authority)
}

pub(crate) type Secure = StreamOwned<ClientConnection, TcpStream>;

/// A client that trusts `authority`.
pub(crate) fn secure_client(address: SocketAddr, authority: &Authority) -> Secure {
    secure_client_over(TcpStream::connect(address).unwrap(), authority)
}

/// The same over a socket that was made otherwise.
pub(crate) fn secure_client_over(stream: TcpStream, authority: &Authority) -> Secure {
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(authority.pem().as_bytes()).unwrap())
        .unwrap();
    let config = builder()
        .with_root_certificates(roots)
        .with_no_client_auth();
    over(stream, config, "localhost")
}

pub(crate) fn builder() -> rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier> {
    ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
}

pub(crate) fn connect(address: SocketAddr, config: ClientConfig, name: &'static str) -> Secure {
    over(TcpStream::connect(address).unwrap(), config, name)
}

fn over(stream: TcpStream, config: ClientConfig, name: &'static str) -> Secure {
    stream.set_read_timeout(Some(SOON)).unwrap();
    stream.set_nodelay(true).unwrap();
    let name = ServerName::try_from(name).unwrap();
    StreamOwned::new(
        ClientConnection::new(Arc::new(config), name).unwrap(),
        stream,
    )
}

pub(crate) fn line(client: &mut Secure) -> String {
    let mut line = Vec::new();
    let mut byte = [0];
    while byte != *b"\n" {
        client.read_exact(&mut byte).unwrap();
        line.push(byte[0]);
    }
    String::from_utf8(line).unwrap()
}

#[test]
fn a_tls_client_gets_the_same_answers() {
    let (_herd, server, authority) = secure_server("");
    let mut client = secure_client(server.address, &authority);
    for byte in b"IAMAT x +1+2 3\n" {
        client.write_all(&[*byte]).unwrap();
    }
    let at = line(&mut client);
    assert!(
        at.starts_with("AT Riley +") && at.ends_with(" x +1+2 3\n"),
        "{at}"
    );
    client.write_all(b"WHATSAT nobody 1 1\n\nno\n").unwrap();
    assert_eq!(line(&mut client), "? WHATSAT nobody 1 1\n");
    assert_eq!(line(&mut client), "? no\n");
}

#[test]
fn commands_before_close_notify_are_answered() {
    let (_herd, server, authority) = secure_server("");
    let mut client = secure_client(server.address, &authority);
    // Several records, and more than the sockets' buffers hold. So replies wait in the server, and
    // are encrypted piece by piece.
    let command = format!("{}\n", "x".repeat(1_000));
    let writer = client.sock.try_clone().unwrap();
    client.write_all(command.repeat(400).as_bytes()).unwrap();
    client.write_all(b"IAMAT x +1+2 3").unwrap();
    client.conn.send_close_notify();
    client.flush().unwrap();
    let mut answers = String::new();
    client.read_to_string(&mut answers).unwrap(); // an error, unless it ends with close_notify
    let lines: Vec<&str> = answers.lines().collect();
    assert_eq!(lines.len(), 401);
    assert!(lines[..400].iter().all(|line| line.len() == 1_002));
    assert!(lines[400].starts_with("AT Riley +"), "{}", lines[400]);
    drop(writer);
}

#[test]
fn a_fin_without_close_notify_does_not_end_a_line() {
    let (_herd, server, authority) = secure_server("");
    let mut victim = secure_client(server.address, &authority);
    victim
        .write_all(b"IAMAT whole +1+2 3\nIAMAT cut +1+2 3")
        .unwrap();
    assert!(line(&mut victim).contains(" whole "));
    victim.sock.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(victim.read(&mut [0; 10]).unwrap(), 0, "close_notify");
    server.wait_for_log("it ended the connection without close_notify", "gone");
    let mut asker = secure_client(server.address, &authority);
    asker.write_all(b"WHATSAT cut 1 1\n").unwrap();
    assert_eq!(line(&mut asker), "? WHATSAT cut 1 1\n");
}

#[test]
fn a_plain_client_on_a_tls_port_gets_an_alert() {
    let (_herd, server, authority) = secure_server("");
    let mut plain = Client::connect(server.address);
    plain.send("IAMAT x +1+2 3\n");
    let told = plain.rest();
    assert_eq!(told[0], 21, "an alert: {}", told.escape_ascii());
    drop(plain);
    server.wait_for_log("it does not speak TLS", "gone");
    let mut asker = secure_client(server.address, &authority);
    asker.write_all(b"WHATSAT x 1 1\n").unwrap();
    assert_eq!(
        line(&mut asker),
        "? WHATSAT x 1 1\n",
        "nothing of it was believed"
    );
}

#[test]
fn a_tls_handshake_has_a_deadline() {
    let (_herd, server, authority) = secure_server("tls_handshake_ms = 300");
    let begun = Instant::now();
    let mut silent = Client::connect(server.address);
    assert_eq!(silent.rest(), b"\x15\x03\x03\x00\x02\x02\x50", "an alert");
    assert!(
        begun.elapsed() >= Duration::from_millis(290),
        "{:?}",
        begun.elapsed()
    );
    server.wait_for_log("no TLS handshake within 300 ms", "gone");
    let mut client = secure_client(server.address, &authority);
    client.write_all(b"x\n").unwrap();
    assert_eq!(
        line(&mut client),
        "? x\n",
        "one that is through it has all the time it wants"
    );
    // The handshake of this later connection times out first.
    let _half_made = TcpStream::connect(server.address).unwrap();
    server.wait_for_nth_log(2, "no TLS handshake within 300 ms", "gone");
    client.write_all(b"y\n").unwrap();
    assert_eq!(line(&mut client), "? y\n");
}

#[test]
fn sighup_reloads_certificates_and_keeps_connections() {
    let (herd, server, old) = secure_server("");
    let mut before = secure_client(server.address, &old);
    before.write_all(b"x\n").unwrap();
    assert_eq!(line(&mut before), "? x\n");

    fs::write(herd.directory.path().join("clients.key"), "no key").unwrap();
    server.signal(Signal::HUP);
    server.wait_for_log(
        "the old certificates stay in use: cannot read a key from",
        "clients.key",
    );
    let mut still = secure_client(server.address, &old);
    still.write_all(b"x\n").unwrap();
    assert_eq!(line(&mut still), "? x\n");

    let new = Authority::new();
    new.certify(herd.directory.path(), "clients", "localhost", false);
    server.signal(Signal::HUP);
    server.wait_for_log("TLS: certificates and keys were read anew", "");
    let mut after = secure_client(server.address, &new);
    after.write_all(b"x\n").unwrap();
    assert_eq!(line(&mut after), "? x\n");
    let mut outdated = secure_client(server.address, &old);
    assert!(
        outdated.write_all(b"x\n").is_err(),
        "that is not who it trusts"
    );
    before.write_all(b"y\n").unwrap();
    assert_eq!(line(&mut before), "? y\n");
}

#[test]
fn a_stop_sends_close_notify() {
    let (_herd, server, authority) = secure_server("");
    let mut client = secure_client(server.address, &authority);
    client.write_all(b"x\n").unwrap();
    assert_eq!(line(&mut client), "? x\n");
    server.signal(Signal::TERM);
    assert_eq!(client.read(&mut [0; 10]).unwrap(), 0, "close_notify");
    drop(client);
    assert_eq!(server.wait().0.code(), Some(0));
}

/// Three servers in a row, without a secret. They trust `authority`, and each has its own
/// certificate.
pub(crate) fn chain(authority: &Authority) -> Herd {
    let herd = Herd::new(
        &["Alice", "Bob", "Carol"],
        &[("Alice", "Bob"), ("Bob", "Carol")],
    )
    .with(FOR_PEERS)
    .env("HERD_SECRET", "");
    for name in herd.names() {
        authority.certify(herd.directory.path(), &name, &name, false);
    }
    fs::write(herd.directory.path().join("ca.pem"), authority.pem()).unwrap();
    herd
}

#[test]
fn updates_are_flooded_over_mutual_tls_without_a_secret() {
    let herd = chain(&Authority::new());
    let servers = herd.start_all();
    let at = servers["Alice"].client().ask("IAMAT x +1+2 3");
    let mut carol = servers["Carol"].client();
    assert_eq!(
        carol.wait_for_record("x", |line| line.starts_with("AT ")),
        at
    );
    // Now many records, in the other direction.
    let commands: String = (0..3_000).map(|n| format!("IAMAT c{n} +1+2 3\n")).collect();
    carol.send(commands);
    let mut last = String::new();
    for _ in 0..3_000 {
        last = carol.line();
    }
    let mut alice = servers["Alice"].client();
    assert_eq!(
        alice.wait_for_record("c2999", |line| line.starts_with("AT ")),
        last
    );
}

#[test]
fn status_works_with_an_operator_certificate() {
    let authority = Authority::new();
    let herd = chain(&authority);
    let _servers = herd.start_all();
    let ask = || {
        status_command()
            .arg("--config")
            .arg(herd.config_file())
            .env_remove("HERD_SECRET")
            .output()
            .unwrap()
    };
    let without = ask();
    assert_eq!(without.status.code(), Some(2));
    let said = String::from_utf8(without.stderr).unwrap();
    assert!(said.contains("operator.pem"), "{said}");
    authority.certify(herd.directory.path(), "operator", "operator", false);
    let with = ask();
    let said = String::from_utf8(with.stdout).unwrap();
    assert!(said.contains("all 3 hold the same 0 records"), "{said}");
    authority.certify(herd.directory.path(), "operator", "Alice", false);
    let posing = ask();
    assert_eq!(
        posing.status.code(),
        Some(1),
        "a name that it has no certificate for"
    );
}

#[test]
fn a_plain_peer_on_a_tls_port_gets_only_an_alert() {
    let herd = chain(&Authority::new());
    let _bob = herd.start("Bob");
    // A plain connection gets no line of the protocol, only a TLS alert.
    let mut stranger = Client::connect(herd.peers_address("Bob"));
    stranger.send("HERD 2 Alice Bob 000102030405060708090a0b0c0d0e0f\n");
    let told = stranger.rest();
    assert_eq!(told[0], 21, "an alert: {}", told.escape_ascii());
}

#[test]
fn a_peer_without_a_certificate_for_its_name_is_refused() {
    let authority = Authority::new();
    let other = Authority::new();
    let herd = chain(&authority);
    let directory = herd.directory.path();
    // Bob starts while `ca.pem` also has the authority of his own certificate.
    let both = authority.pem() + &other.pem();
    fs::write(directory.join("ca.pem"), both).unwrap();
    other.certify(directory, "Bob", "Bob", false);
    let _bob = herd.start("Bob");
    fs::write(directory.join("ca.pem"), authority.pem()).unwrap();
    let alice = herd.start("Alice");
    alice.wait_for_log("neighbour Bob", "its certificate was refused");
    let at = alice.client().ask("IAMAT x +1+2 3");
    assert!(at.starts_with("AT Alice"), "{at}");
}

/// A herd in which `prepare` has changed the files of certificates.
fn with_own(prepare: &dyn Fn(&Authority, &Path)) -> (Herd, Authority) {
    let authority = Authority::new();
    let herd = chain(&authority);
    prepare(&authority, herd.directory.path());
    (herd, authority)
}

#[test]
fn a_server_does_not_start_with_a_certificate_peers_refuse() {
    type Prepare = dyn Fn(&Authority, &Path);
    let cases: [(&str, &Prepare); 3] = [
        (
            "Alice.pem is for another name than Alice; ",
            &|authority, directory| {
                authority.certify(directory, "Alice", "Carol", false);
            },
        ),
        (
            "Alice.pem ended on 2020-01-01 00:00 UTC; ",
            &|authority, directory| {
                authority.certify(directory, "Alice", "Alice", true);
            },
        ),
        ("ca.pem, which its neighbours trust; ", &|_, directory| {
            Authority::new().certify(directory, "Alice", "Alice", false);
        }),
    ];
    for (reason, prepare) in cases {
        let (herd, _) = with_own(prepare);
        for mode in [&["--check"][..], &[]] {
            let output = herd.command("Alice").args(mode).output().unwrap();
            let said = String::from_utf8(output.stderr).unwrap();
            assert_eq!(output.status.code(), Some(2), "{said}");
            assert!(said.contains(reason), "{said}");
        }
    }
}

#[test]
fn an_expired_client_port_certificate_prevents_the_start() {
    let herd = Herd::single().with(FOR_CLIENTS);
    let directory = herd.directory.path();
    Authority::new().certify(directory, "clients", "localhost", true);
    let output = herd.command("Riley").arg("--check").output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("clients.pem ended on 2020-01-01"), "{said}");
}

#[test]
fn a_certificate_that_expires_soon_is_logged() {
    let soon = |authority: &Authority, directory: &Path| {
        authority.certify_until(directory, "Alice", Duration::from_secs(60 * 60 * 60));
    };
    let (herd, authority) = with_own(&soon);
    let warning = "Alice.pem ends on ";
    let output = herd.command("Alice").arg("--check").output().unwrap();
    let told = String::from_utf8(output.stdout).unwrap();
    assert!(told.contains("note        the certificate "), "{told}");
    assert!(
        told.contains(warning) && told.contains(", in 2 days: "),
        "{told}"
    );
    let alice = herd.start("Alice");
    alice.wait_for_log("[WARN ] the certificate ", warning);
    alice.signal(Signal::HUP);
    alice.wait_for_log("[WARN ] TLS: the certificate ", warning);
    // An expired certificate is not accepted, and the current one stays in use.
    let directory = herd.directory.path();
    authority.certify(directory, "Alice", "Alice", true);
    alice.signal(Signal::HUP);
    alice.wait_for_log(
        "TLS: the old certificates stay in use: ",
        " ended on 2020-01-01",
    );
    // A certificate that is valid for long causes no warning.
    authority.certify(directory, "Alice", "Alice", false);
    alice.signal(Signal::HUP);
    alice.wait_for_nth_log(2, "TLS: certificates and keys were read anew", "");
    let log = alice.stop();
    let told = log.iter().filter(|line| line.contains(warning)).count();
    assert_eq!(told, 2, "{log:#?}");
}

#[test]
fn a_certificate_is_accepted_for_its_own_name_only() {
    let authority = Authority::new();
    let herd = chain(&authority);
    let bob = herd.start("Bob");
    let directory = herd.directory.path();
    let pose = |certificate: &str, greeting: &str| {
        let read =
            |suffix: &str| fs::read(directory.join(format!("{certificate}.{suffix}"))).unwrap();
        let mut roots = RootCertStore::empty();
        roots
            .add(CertificateDer::from_pem_slice(authority.pem().as_bytes()).unwrap())
            .unwrap();
        let chain = vec![CertificateDer::from_pem_slice(&read("pem")).unwrap()];
        let key = PrivateKeyDer::from_pem_slice(&read("key")).unwrap();
        let config = builder()
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key)
            .unwrap();
        let mut posing = connect(herd.peers_address("Bob"), config, "Bob");
        posing.write_all(greeting.as_bytes()).unwrap();
        line(&mut posing)
    };
    let greeting = "HERD 2 Alice Bob 000102030405060708090a0b0c0d0e0f\n";
    assert_eq!(
        pose("Carol", greeting),
        "BYE its certificate is for another name than Alice\n"
    );
    assert!(pose("Alice", greeting).starts_with("HERD 2 Bob Alice "));
    bob.wait_for_log("its certificate is for another name than Alice", "refused");
}

#[test]
fn certificate_errors_are_reported_by_check() {
    let authority = Authority::new();
    let said = |prepare: &dyn Fn(&Path)| {
        let herd = chain(&authority);
        prepare(herd.directory.path());
        let output = herd.command("Alice").arg("--check").output().unwrap();
        assert_eq!(output.status.code(), Some(2));
        String::from_utf8(output.stderr).unwrap()
    };
    let missing = said(&|directory| fs::remove_file(directory.join("Alice.key")).unwrap());
    assert!(
        missing.contains("cannot read a key from") && missing.contains("Alice.key"),
        "{missing}"
    );
    let swapped = said(&|directory| {
        fs::copy(directory.join("Bob.key"), directory.join("Alice.key")).unwrap();
    });
    assert!(
        swapped.contains("Alice.pem and the key") && swapped.contains("cannot be used"),
        "{swapped}"
    );
    let empty = said(&|directory| fs::write(directory.join("ca.pem"), "").unwrap());
    assert!(
        empty.contains("there is no PEM certificate in it"),
        "{empty}"
    );
    let cut = said(&|directory| {
        let path = directory.join("Alice.pem");
        let whole = fs::read_to_string(&path).unwrap();
        fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    });
    assert!(
        cut.contains("it ends before a line -----END CERTIFICATE-----: is it whole?"),
        "{cut}"
    );
    let herd = Herd::new(&["A b", "B"], &[]).with(FOR_PEERS);
    let output = herd.command("B").arg("--check").output().unwrap();
    assert_eq!(output.status.code(), Some(2));
}
