//! The program against servers that are played here: what it prints, and how it ends.

#![allow(
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

use herd_mio::core::proof::{Hex, Parties, Side, unhex};
use herd_mio::core::settings::Secret;

/// Plays a server that answers one question with that status line, as one that knows `secret`.
fn server(name: &'static str, secret: &'static str, status: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut lines = BufReader::new(stream.try_clone().unwrap())
            .lines()
            .map_while(Result::ok);
        let greeting = lines.next().unwrap();
        let nonce = greeting
            .strip_prefix(&format!("HERD 1 operator {name} "))
            .unwrap();
        let theirs = unhex(nonce.as_bytes()).unwrap();
        let own = [7; 16];
        writeln!(stream, "HERD 1 {name} operator {}", Hex(&own)).unwrap();
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
    let a = server("A", "right", "STATUS 00 12 00000000000000ff 3 B");
    let b = server("B", "right", "STATUS 01 12 00000000000000ff 0 A");
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
fn servers_that_differ_or_do_not_answer() {
    let a = server("A", "right", "STATUS 00 12 00000000000000ff 3 B");
    let b = server("B", "right", "STATUS 01 12 00000000000000fe 0");
    let output = ask(&[("A", a), ("B", b)]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        out(&output).contains("linked with\n")
            && out(&output).contains("nobody")
            && out(&output).contains("they differ"),
        "{}",
        out(&output)
    );

    let a = server("A", "right", "STATUS 00 12 00000000000000ff 3");
    let refusing = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let stranger = server("C", "wrong", "STATUS 00 12 00000000000000ff 3");
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
