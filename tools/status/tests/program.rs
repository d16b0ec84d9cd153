//! The program against servers that are played here: what it prints, and how it ends.

#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test ends at what it did not expect"
)]

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener};
use std::process::{Command, Output};
use std::thread;
use std::time::{SystemTime, UNIX_EPOCH};

use herd_mio::core::proof::{Hex, Parties, Side, unhex};
use herd_mio::core::settings::Secret;

/// Plays a server that answers one question with that status line, as one that knows `secret`.
fn server(name: &'static str, secret: &'static str, status: String) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut lines = BufReader::new(stream.try_clone().unwrap())
            .lines()
            .map_while(Result::ok);
        let greeting = lines.next().unwrap();
        let nonce = greeting
            .strip_prefix(&format!("HERD 2 operator {name} "))
            .unwrap();
        let theirs = unhex(nonce.as_bytes()).unwrap();
        let own = [7; 16];
        writeln!(stream, "HERD 2 {name} operator {}", Hex(&own)).unwrap();
        let secret = Secret::new(secret.as_bytes().to_vec());
        let parties = Parties {
            dialler: ("operator", &theirs),
            acceptor: (name, &own),
        };
        let proof = lines.next().unwrap();
        if !parties.is_proven(
            Side::Dialler,
            &secret,
            proof.strip_prefix("PROOF ").unwrap().as_bytes(),
        ) {
            writeln!(stream, "BYE a wrong proof").unwrap();
            return;
        }
        writeln!(
            stream,
            "PROOF {}\n{status}",
            parties.prove(Side::Acceptor, &secret)
        )
        .unwrap();
    });
    address
}

/// A status with that many records and clients, that last digit of the digest, and those links; the
/// clock is right but for so many seconds.
fn standing(records: u32, digest: char, clients: u32, links: &[&str], clock_s: i64) -> String {
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let wall = i64::try_from(wall.as_nanos()).unwrap() + clock_s * 1_000_000_000;
    let links: String = links.iter().map(|link| format!(" link={link}")).collect();
    format!(
        "STATUS boot=00 wall={wall} records={records} digest=00000000000000f{digest} clients={clients} stale=0 refused=0 ahead=0 behind=0{links}"
    )
}

fn ask(servers: &[(&str, SocketAddr)]) -> Output {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("herd.toml");
    let mut text = String::new();
    for (number, (name, address)) in servers.iter().enumerate() {
        text.push_str(&format!(
            "[[servers]]\nname = {name:?}\nclients = \"127.0.0.1:{}\"\npeers = \"{address}\"\n",
            number + 1
        ));
    }
    fs::write(&path, text).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_herd-status"));
    command
        .arg("--config")
        .arg(&path)
        .env("HERD_SECRET", "right")
        .env_remove("HERD_SECRET_FILE")
        .output()
        .unwrap()
}

fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[test]
fn servers_that_agree() {
    let a = server("A", "right", standing(12, 'f', 3, &["0:0:0:B"], 0));
    let b = server("B", "right", standing(12, 'f', 0, &["0:?:0:A"], 0));
    let output = ask(&[("A", a), ("B", b)]);
    assert_eq!(output.status.code(), Some(0), "{}", out(&output));
    assert_eq!(
        out(&output),
        "server     records  digest             clients  linked with\n\
         A               12  00000000000000ff         3  B\n\
         B               12  00000000000000ff         0  A\n\
         all 2 hold the same 12 records\n"
    );
}

#[test]
fn what_is_unconfirmed_lacking_or_late_is_said_and_changes_no_exit_status() {
    let a = server("A", "right", standing(12, 'f', 3, &["7:-90000:5:B"], 0));
    let b = server("B", "right", standing(12, 'f', 0, &["0:90000:0:A"], -90));
    let output = ask(&[("A", a), ("B", b)]);
    assert_eq!(output.status.code(), Some(0), "{}", out(&output));
    let text = out(&output);
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[1].ends_with("  B (7 unconfirmed)"), "{text}");
    assert_eq!(
        lines[3],
        "B lacks 5 records that it had to refuse because of its limits (max_records, max_record_bytes)"
    );
    let (_, late) = lines[4].split_once("the clock of B is ").unwrap();
    assert!(late.ends_with(" s behind this machine's"), "{text}");
    assert_eq!(
        (lines[5], lines.len()),
        ("all 2 hold the same 12 records", 6)
    );
}

#[test]
fn servers_that_differ_or_do_not_answer() {
    let a = server("A", "right", standing(12, 'f', 3, &["0:0:0:B"], 0));
    let b = server("B", "right", standing(12, 'e', 0, &[], 0));
    let output = ask(&[("A", a), ("B", b)]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        out(&output).contains("linked with\n")
            && out(&output).contains("nobody")
            && out(&output).contains("they differ"),
        "{}",
        out(&output)
    );

    let a = server("A", "right", standing(12, 'f', 3, &[], 0));
    let refusing = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let stranger = server("C", "wrong", standing(12, 'f', 3, &[], 0));
    let output = ask(&[("A", a), ("B", refusing), ("C", stranger)]);
    assert_eq!(output.status.code(), Some(1));
    let text = out(&output);
    assert!(
        text.contains("Connection refused") && text.contains("it said: a wrong proof"),
        "{text}"
    );
    assert!(text.ends_with("\n1 of 3 answered\n"), "{text}");

    let output = ask(&[("B", refusing)]);
    let text = out(&output);
    assert_eq!(output.status.code(), Some(1));
    assert!(text.contains("nobody answered: do they run"), "{text}");
}

#[test]
fn a_server_that_says_nothing_is_told_as_silent() {
    // The system takes the connection; nobody else does.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap();
    let output = ask(&[("A", address)]);
    assert_eq!(output.status.code(), Some(1));
    let text = out(&output);
    let expected = format!(" no answer: {address}: it said nothing for 3 s\n");
    assert!(text.contains(&expected), "{text}");
}

#[test]
fn a_mistake_is_told_in_one_line() {
    let output = Command::new(env!("CARGO_BIN_EXE_herd-status"))
        .args(["--herd", "1999"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(
        text.starts_with("herd-status: there is no preset \"1999\"") && text.lines().count() == 1,
        "{text}"
    );
}
