//! The key for Places, the herd's secret and private keys do not appear in any output of a server.
//! This is true whatever happens, at every log level, in any form.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use herd_places::{Behaviour, End, Options, Places};
use herd_testkit::client::{Client, SOON, wait_until};
use herd_testkit::herd::{Herd, server_command, status_command};
use memchr::memmem;
use rustix::process::{Pid, Signal, kill_process};
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use rustls::version::TLS13;

use crate::certificates::{Flaw, identity};
use crate::hostile_links::{dial, greet};
use crate::impostors::{Guise, Impostor};
use crate::neighbours::NONCE;
use crate::tls::{Authority, FOR_CLIENTS, FOR_PEERS, Secure, line, secure_client};

/// It contains characters that a URL escapes.
const KEY: &str = "AIzaThe+Key/Of=Places&Riley~0123456789";
const REFUSED_KEY: &str = "AIzaTheKeyThatIsRefused_Jaquez-9876543";
const SECRET: &str = "5f1e0b7c2d9a48e6b3c4d5e6f70819a2b4c6d8e0";
const OTHER_SECRET: &str = "correct horse battery staple of another herd";

/// Bytes that must not appear anywhere, in all forms in which they could appear.
struct Secret {
    name: String,
    forms: Vec<Vec<u8>>,
}

impl Secret {
    fn new(name: &str, bytes: &[u8]) -> Secret {
        // Even a half of them must not appear.
        let (first, second) = bytes.split_at(bytes.len() / 2);
        let halves = [first, second];
        Secret {
            name: name.to_owned(),
            forms: halves.into_iter().flat_map(forms).collect(),
        }
    }

    fn is_in(&self, text: &[u8]) -> bool {
        self.forms
            .iter()
            .any(|form| memmem::find(text, form).is_some())
    }
}

fn forms(bytes: &[u8]) -> Vec<Vec<u8>> {
    let each = |form: &dyn Fn(&u8) -> String| bytes.iter().map(form).collect::<String>();
    let percent = |byte: &u8| match byte.is_ascii_alphanumeric() || b"-._~".contains(byte) {
        true => char::from(*byte).to_string(),
        false => format!("%{byte:02X}"),
    };
    let decimal: Vec<String> = bytes.iter().map(u8::to_string).collect();
    let mut forms: Vec<String> = vec![
        each(&percent),
        each(&percent).to_lowercase(),
        each(&|byte| format!("%{byte:02X}")),
        each(&|byte| format!("{byte:02x}")),
        each(&|byte| format!("{byte:02X}")),
        each(&|byte| format!("\\x{byte:02x}")),
        bytes.escape_ascii().to_string(),
        decimal.join(", "),
        decimal.join(","),
    ];
    // Base64 encodes three bytes as four characters. The three may begin at any of three offsets.
    for skipped in 0..3 {
        let whole = (bytes.len() - skipped) / 3 * 3;
        let text = base64(&bytes[skipped..skipped + whole]);
        forms.push(text.replace('+', "-").replace('/', "_"));
        forms.push(text);
    }
    let mut forms: Vec<Vec<u8>> = forms.into_iter().map(String::into_bytes).collect();
    forms.push(bytes.to_vec());
    forms.push(bytes.to_ascii_lowercase());
    forms.push(bytes.to_ascii_uppercase());
    forms
}

/// Base64 (RFC 4648 §4) of whole groups of three bytes.
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let groups = bytes.chunks_exact(3).flat_map(|group| {
        let bits = group
            .iter()
            .fold(0, |bits, byte| bits << 8 | usize::from(*byte));
        [18, 12, 6, 0].map(|shift| char::from(ALPHABET[bits >> shift & 63]))
    });
    groups.collect()
}

#[test]
fn the_leak_search_finds_every_encoding_of_a_secret() {
    assert_eq!(base64(b"Many hands"), "TWFueSBoYW5k");
    let secret = Secret::new("key", KEY.as_bytes());
    for told in [
        KEY.to_owned(),
        format!("key={}&x", "AIzaThe%2BKey%2FOf%3DPlaces%26Riley~0123456789"),
        format!("{:?}", KEY.as_bytes()),
        format!("..{}..", base64(format!("x{KEY}yz").as_bytes())),
        KEY.to_lowercase(),
        format!("only {}", &KEY[KEY.len() / 2..]),
    ] {
        assert!(secret.is_in(told.as_bytes()), "{told}");
    }
    assert!(!secret.is_in(b"AIza, 0123456789"));
}

/// A server whose complete output goes to files.
struct Process {
    child: Child,
    address: SocketAddr,
}

impl Process {
    fn start(herd: &Herd, name: &str, prepare: impl FnOnce(&mut Command)) -> Process {
        let mut command = herd.command(name);
        let directory = herd.directory.path();
        let file = |kind: &str| File::create(directory.join(format!("{name}.{kind}"))).unwrap();
        let log = directory.join(format!("{name}.log"));
        command
            .arg("--log-file")
            .arg(&log)
            .stdin(Stdio::null())
            .stdout(file("stdout"))
            .stderr(file("stderr"));
        prepare(&mut command);
        let child = command.spawn().unwrap();
        let ready = directory.join(format!("{name}.stdout"));
        let address = || {
            let text = fs::read_to_string(&ready).ok()?;
            let (_, rest) = text.split_once("clients on ")?;
            rest.split(',').next()?.parse().ok()
        };
        wait_until("it is ready", || address().is_some());
        let address = address().unwrap();
        Process { child, address }
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// What other users can see of the process.
    fn shown_in_proc(&self) -> Vec<u8> {
        let mut shown = Vec::new();
        let proc = PathBuf::from(format!("/proc/{}", self.child.id()));
        for name in ["cmdline", "comm", "status", "maps"] {
            // Not every system has all of these files.
            shown.extend(fs::read(proc.join(name)).unwrap_or_default());
        }
        for task in fs::read_dir(proc.join("task")).into_iter().flatten() {
            shown.extend(fs::read(task.unwrap().path().join("comm")).unwrap_or_default());
        }
        shown
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // The process may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Finds all files below a directory, except the files with the secrets themselves.
fn files(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let is_given = path
            .extension()
            .is_some_and(|kind| kind == "key" || kind == "secret" || kind == "pem");
        if path.is_dir() {
            files(&path, found);
        } else if !is_given {
            found.push(path);
        }
    }
}

/// All outputs, each with the place where it appeared.
#[derive(Default)]
struct Shown(Vec<(String, Vec<u8>)>);

impl Shown {
    fn add(&mut self, place: impl Into<String>, bytes: impl Into<Vec<u8>>) {
        self.0.push((place.into(), bytes.into()));
    }

    fn add_output(&mut self, place: &str, output: Output) {
        self.add(place, [output.stdout, output.stderr].concat());
    }

    fn tells_nothing_of(&self, secrets: &[Secret]) {
        for (place, bytes) in &self.0 {
            for secret in secrets {
                let text = String::from_utf8_lossy(bytes);
                assert!(
                    !secret.is_in(bytes),
                    "{} is in {place}:\n{text}",
                    secret.name
                );
            }
        }
    }
}

/// The answer to a `WHATSAT`: the record and the JSON.
fn places(client: &mut Secure, command: &str) -> String {
    client.write_all(command.as_bytes()).unwrap();
    let mut answer = line(client);
    while !answer.ends_with("\n\n") {
        answer.push_str(&line(client));
    }
    answer
}

#[test]
fn a_session_at_trace_level_logs_no_secret() {
    let authority = Authority::new();
    let stand_in = Places::start(Options {
        key: KEY.to_owned(),
        ..Options::default()
    })
    .unwrap();
    let impostor = Impostor::start(Guise::Showing(Flaw::OtherName, &TLS13), &authority);
    let herd = Herd::new(
        &["Riley", "Jaquez", "Juzang"],
        &[("Riley", "Jaquez"), ("Jaquez", "Juzang")],
    )
    .level("trace")
    .env("HERD_SECRET", "")
    .with_top("data_dir = \"data\"\nsecret_file = \"herd.secret\"\n")
    .with(FOR_CLIENTS)
    .with(FOR_PEERS)
    .asking(&stand_in)
    .env("HERD_PLACES_KEY", "");
    let directory = herd.directory.path().to_owned();
    let write = |name: &str, text: &str| fs::write(directory.join(name), text).unwrap();
    // The stand-in's authority gets its own file.
    fs::rename(directory.join("ca.pem"), directory.join("places.pem")).unwrap();
    write("ca.pem", &authority.pem());
    write("herd.secret", &format!("{SECRET}\n"));
    write("places.key", KEY);
    for name in ["Riley", "Jaquez", "Juzang", "operator"] {
        authority.certify(&directory, name, name, false);
    }
    authority.certify(&directory, "clients", "localhost", false);

    let mut secrets = vec![
        Secret::new("the key", KEY.as_bytes()),
        Secret::new("the refused key", REFUSED_KEY.as_bytes()),
        Secret::new("the herd's secret", SECRET.as_bytes()),
        Secret::new("another herd's secret", OTHER_SECRET.as_bytes()),
    ];
    for name in ["Riley", "Jaquez", "Juzang", "clients"] {
        let key = PrivateKeyDer::from_pem_file(directory.join(format!("{name}.key"))).unwrap();
        // The DER bytes before and after this part are the same for all keys.
        secrets.push(Secret::new(
            &format!("{name}'s private key"),
            &key.secret_der()[36..68],
        ));
    }

    let mut shown = Shown::default();
    let ca = directory.join("places.pem");
    let riley = |command: &mut Command| {
        command.arg("--places-ca").arg(&ca);
        command
            .arg("--places-key-file")
            .arg(directory.join("places.key"));
    };
    let jaquez = |command: &mut Command| {
        command.arg("--places-ca").arg(&ca);
        command.env("HERD_PLACES_KEY", REFUSED_KEY);
    };
    // A server with another herd's secret, and with an impostor instead of Google.
    let juzang = |command: &mut Command| {
        command.args(["--places-url", &impostor.url, "--places-api", "new"]);
        command.arg("--places-ca").arg(directory.join("ca.pem"));
        command
            .env("HERD_PLACES_KEY", KEY)
            .env("HERD_SECRET", OTHER_SECRET);
    };
    for (name, prepare) in [
        ("Riley", &riley as &dyn Fn(&mut Command)),
        ("Jaquez", &jaquez),
        ("Juzang", &juzang),
    ] {
        let mut command = herd.command(name);
        prepare(&mut command);
        let output = command.arg("--check").output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        shown.add_output("what --check says", output);
    }
    let jaquez = Process::start(&herd, "Jaquez", jaquez);
    let riley = Process::start(&herd, "Riley", riley);
    let juzang = Process::start(&herd, "Juzang", juzang);
    let log = |name: &str| fs::read_to_string(directory.join(format!("{name}.log"))).unwrap();
    let wait_for = |name: &str, text: &str| {
        wait_until(text, || log(name).contains(text));
    };
    wait_for("Riley", "neighbour Jaquez");
    wait_for("Jaquez", ": linked");
    wait_for("Jaquez", "a wrong proof");

    // Clients, with good answers of Places, refusals, and an impostor.
    for (server, expected) in [
        (&riley, "\"status\" : \"OK\""),
        (&jaquez, "REQUEST_DENIED"),
        (&juzang, "its certificate was refused"),
    ] {
        let mut client = secure_client(server.address, &authority);
        client
            .write_all(b"IAMAT kiwi +34.068930-118.445127 1\n")
            .unwrap();
        shown.add("an answer", line(&mut client));
        let answer = places(&mut client, "WHATSAT kiwi 10 2\n");
        assert!(answer.contains(expected), "{answer}");
        shown.add("an answer", answer);
    }
    let mut client = secure_client(riley.address, &authority);
    let error_page = format!("{{\"error\" : \"no way to /json?key={KEY}\"}}");
    let response = format!(
        "HTTP/1.1 502 {KEY}\r\nX: {KEY}\r\nContent-Length: {}\r\n\r\n{error_page}",
        error_page.len()
    );
    for behaviour in [
        Behaviour::Status(403),
        Behaviour::Status(500),
        Behaviour::Truncated,
        Behaviour::Drop,
        Behaviour::Raw {
            segments: vec![response.into_bytes()],
            end: End::KeepAlive,
        },
        Behaviour::Raw {
            segments: vec![format!("{KEY}\r\n\r\n").into_bytes()],
            end: End::Abrupt,
        },
    ] {
        stand_in.push_behaviour(behaviour);
        shown.add("an answer", places(&mut client, "WHATSAT kiwi 10 2\n"));
    }
    client.write_all(b"no\n").unwrap();
    shown.add("an answer", line(&mut client));
    drop(client);

    // Peers that do not belong here.
    let mut plain = Client::connect(riley.address);
    plain.send("GET / HTTP/1.1\r\n\r\n");
    shown.add("told in plain text", plain.rest());
    let mut plain = Client::connect(herd.peers_address("Jaquez"));
    plain.send(format!("HERD 2 Riley Jaquez {NONCE}\n"));
    shown.add("told in plain text", plain.rest());
    for flaw in [Flaw::None, Flaw::OtherName, Flaw::UnknownAuthority] {
        let posing = Some(identity(&authority, "Riley", flaw));
        let mut stranger = dial(&herd, "Jaquez", &authority, posing, &TLS13);
        let (told, refused) = greet(&mut stranger, &format!("HERD 2 Riley Jaquez {NONCE}\n"));
        shown.add("told a stranger", told);
        if !refused {
            let proof = format!("PROOF {}\n", "ab".repeat(32));
            shown.add("told a stranger", greet(&mut stranger, &proof).0);
        }
    }

    // An operator with the right secret, and one with another secret.
    for secret in ["", OTHER_SECRET] {
        let mut command = status_command();
        command.arg("--config").arg(herd.config_file());
        command
            .env_remove("HERD_SECRET_FILE")
            .env("HERD_SECRET", secret);
        shown.add_output("what herd-client status says", command.output().unwrap());
    }

    // New certificates: unreadable ones, the wrong file, and correct ones again.
    let key = fs::read_to_string(directory.join("clients.key")).unwrap();
    let certificate = fs::read_to_string(directory.join("clients.pem")).unwrap();
    let broken = [
        ("clients.key", key.replace('A', "?")),
        ("clients.key", key[..key.len() / 2].to_owned()),
        ("clients.key", key.replacen('\n', "", 1)),
        (
            "clients.key",
            key.replace("-----BEGIN PRIVATE KEY-----\n", "-----BEGIN "),
        ),
        ("clients.pem", key.clone()),
        ("ca.pem", key.clone()),
    ];
    for (number, (file, text)) in (1..).zip(&broken) {
        let right = fs::read(directory.join(file)).unwrap();
        write(file, text);
        riley.signal(Signal::HUP);
        let kept = "the old certificates stay in use";
        wait_until(kept, || log("Riley").matches(kept).count() == number);
        fs::write(directory.join(file), right).unwrap();
    }
    assert_eq!(
        fs::read_to_string(directory.join("clients.pem")).unwrap(),
        certificate
    );
    riley.signal(Signal::HUP);
    wait_for("Riley", "certificates and keys were read anew");

    for (name, server) in [("Riley", riley), ("Jaquez", jaquez), ("Juzang", juzang)] {
        shown.add(format!("/proc, of {name}"), server.shown_in_proc());
        server.signal(Signal::TERM);
        let mut server = server;
        wait_until("it has stopped", || {
            server.child.try_wait().unwrap().is_some()
        });
    }
    let mut written = Vec::new();
    files(&directory, &mut written);
    let has = |name: &str| written.iter().any(|path| path.ends_with(name));
    assert!(
        has("Riley.log") && has("data/Riley/journal") && has("Juzang.stderr"),
        "{written:?}"
    );
    for path in written {
        let mut bytes = fs::read(&path).unwrap();
        // Reserved room, which is full of zeros, follows the entries of a journal.
        let end = bytes.iter().rposition(|&byte| byte != 0);
        bytes.truncate(end.map_or(0, |last| last + 1));
        shown.add(path.display().to_string(), bytes);
    }
    shown.tells_nothing_of(&secrets);
    // The stand-in did receive the key.
    assert!(
        stand_in
            .requests()
            .iter()
            .any(|request| request.target.contains("AIzaThe%2BKey"))
    );
}

#[test]
fn config_errors_do_not_repeat_a_misplaced_secret() {
    const PLAIN_KEY: &str = "AIzaSyD-9tSrke72PouQMnMX_a7eZSW0jkFMBWY";
    let secrets = [
        Secret::new("the key", PLAIN_KEY.as_bytes()),
        Secret::new("the herd's secret", SECRET.as_bytes()),
        Secret::new("a passphrase", OTHER_SECRET.as_bytes()),
    ];
    let server = "[[servers]]\nname = \"Riley\"\nclients = \"127.0.0.1:0\"\n";
    let url = "https://maps.googleapis.com/maps/api/place/nearbysearch/json?key=";
    let files: Vec<String> = vec![
        format!("{server}[places]\nkey = {PLAIN_KEY:?}\n"),
        format!("{server}[places]\nkey = {PLAIN_KEY}\n"),
        format!("{server}[places]\nkey_file = {PLAIN_KEY:?}\n"),
        format!("{server}[places]\nkey_file = {PLAIN_KEY}\n"),
        format!("{server}[places]\nkey_file = \"{PLAIN_KEY}\n"),
        format!("{server}[places]\nkey_file = ['{PLAIN_KEY}']\n"),
        format!("{server}[places]\n{PLAIN_KEY} = 1\n"),
        format!("{server}[places]\n{PLAIN_KEY}\n"),
        format!("{server}[{PLAIN_KEY}]\n"),
        format!("{server}[places.{PLAIN_KEY}]\n"),
        format!("{server}[places]\napi = {PLAIN_KEY:?}\n"),
        format!("{server}[places]\nfield_mask = \"{PLAIN_KEY} {PLAIN_KEY}\"\n"),
        format!("{server}[places]\nurl = \"{url}{PLAIN_KEY}\"\n"),
        format!("{server}[places]\nurl = \"https://{PLAIN_KEY}@maps.googleapis.com\"\n"),
        format!("{server}[places]\nurl = {PLAIN_KEY:?}\n"),
        format!("{server}[log]\nlevel = {PLAIN_KEY:?}\n"),
        format!("{server}[limits]\nmax_clients = {PLAIN_KEY:?}\n"),
        format!("{server}[limits]\nmax_clients = {OTHER_SECRET:?}\n"),
        format!("places = {PLAIN_KEY:?}\n{server}"),
        format!("places = {OTHER_SECRET:?}\n{server}"),
        format!("secret = {SECRET:?}\n{server}"),
        format!("secret = {OTHER_SECRET:?}\n{server}"),
        format!("secret = {OTHER_SECRET}\n{server}"),
        format!("secret_file = {SECRET:?}\n{server}"),
        format!("secret_file = {SECRET}\n{server}"),
        format!("secret_file = {{ secret = {SECRET:?} }}\n{server}"),
        format!("fsync = {SECRET:?}\n{server}"),
        format!("{SECRET} = 1\n{SECRET} = 2\n{server}"),
        format!("links = {SECRET:?}\n{server}"),
        format!("servers = {OTHER_SECRET:?}\n"),
        format!("{server}peers = {SECRET:?}\n"),
        format!(
            "{server}[clients.tls]\ncertificate_file = \"a\"\nkey_file = {{ key = {SECRET:?} }}\n"
        ),
    ];
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("herd.toml");
    let is_refused = |what: &str, output: Output| {
        assert_eq!(output.status.code(), Some(2), "{what}");
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(said.lines().count(), 1, "{what}: {said}");
        assert!(said.len() > 40, "{what}: {said}");
        let mut shown = Shown::default();
        shown.add(
            format!("what is said of {what}"),
            [said.into_bytes(), output.stdout].concat(),
        );
        shown.tells_nothing_of(&secrets);
    };
    for text in &files {
        fs::write(&path, text).unwrap();
        let mut command = server_command();
        command.args(["Riley", "--config"]).arg(&path);
        is_refused(text, command.output().unwrap());
    }
    // In the environment, which only this user can read.
    for (variable, value) in [
        ("HERD_PLACES_KEY_FILE", PLAIN_KEY.to_owned()),
        ("HERD_SECRET_FILE", SECRET.to_owned()),
        ("HERD_PLACES_URL", format!("{url}{PLAIN_KEY}")),
        ("HERD_PLACES_URL", PLAIN_KEY.to_owned()),
        ("HERD_PLACES_API", PLAIN_KEY.to_owned()),
        ("HERD_PLACES_FIELD_MASK", format!("{PLAIN_KEY} x")),
        ("HERD_LISTEN", PLAIN_KEY.to_owned()),
        ("HERD_LISTEN_PEERS", SECRET.to_owned()),
        ("HERD_LOG_LEVEL", PLAIN_KEY.to_owned()),
        ("HERD_FSYNC", SECRET.to_owned()),
        ("HERD_PLACES_KEY", format!("{PLAIN_KEY} {PLAIN_KEY}")),
        ("HERD_PLACES_KEY", format!("{PLAIN_KEY}\n{PLAIN_KEY}")),
    ] {
        let mut command = server_command();
        command.arg("Riley").env(variable, &value);
        command.current_dir(directory.path());
        is_refused(variable, command.output().unwrap());
    }
    // Unknown flags. Their value is already in the list of arguments, but the output must not
    // repeat it.
    for arguments in [
        vec!["Riley", "--places-key", PLAIN_KEY],
        vec!["Riley", "--secret", SECRET],
        vec!["Riley", PLAIN_KEY],
        vec!["Riley", "--places-api", PLAIN_KEY],
    ] {
        let output = server_command().args(&arguments).output().unwrap();
        is_refused(&arguments.join(" "), output);
    }
}

#[test]
fn secrets_of_the_environment_are_not_in_the_arguments() {
    let herd = Herd::single()
        .env("HERD_PLACES_KEY", KEY)
        .env("HERD_SECRET", SECRET);
    let server = herd.start("Riley");
    let cmdline = fs::read(format!("/proc/{}/cmdline", server.pid()));
    let Ok(cmdline) = cmdline else {
        let _ = writeln!(
            std::io::stderr(),
            "skipped: the list of arguments: there is no /proc"
        );
        return;
    };
    assert!(memmem::find(&cmdline, b"Riley").is_some());
    for secret in [KEY, SECRET] {
        assert!(!Secret::new("it", secret.as_bytes()).is_in(&cmdline));
    }
    let mut client = server.client();
    client.stream().set_read_timeout(Some(SOON)).unwrap();
    client.send("no\n").finish();
    let mut rest = String::new();
    client.stream().read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "? no\n");
}
