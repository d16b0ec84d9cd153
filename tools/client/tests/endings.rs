//! Tests of exit statuses, and of the one line that says why.

#![cfg(unix)]

mod common;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use common::{Server, Told, client, end, run};

const AT: &str = "AT Riley +0.263873386 kiwi +34.068930-118.445127 1621464827.959498503\n";

#[test]
fn a_command_given_as_arguments_is_sent() {
    let server = Server::start(1, |mut peer| (peer.answer(AT), peer.rest()));
    let arguments = [&*server.address, "iamat", "kiwi", "34.07", "-118.44", "7.5"];
    let ended = run(arguments, b"the standard input is not read");
    let heard = server.result();
    assert_eq!(heard, (b"IAMAT kiwi +34.07-118.44 7.5\n".to_vec(), vec![]));
    assert_eq!(ended.stdout, AT.as_bytes());
    assert_eq!((ended.status, &*ended.stderr), (Some(0), ""));
}

#[test]
fn a_refused_command_exits_with_status_1() {
    let server = Server::start(1, |mut peer| peer.answer("? WHATSAT nobody 10 5\n"));
    let ended = run([&*server.address, "whatsat", "nobody"], b"");
    assert_eq!(ended.stdout, b"? WHATSAT nobody 10 5\n");
    assert_eq!((ended.status, &*ended.stderr), (Some(1), ""));
}

#[test]
fn a_places_error_exits_with_1_and_no_places_with_0() {
    for (json, status) in [
        (r#"{"results": [], "status": "OVER_QUERY_LIMIT"}"#, 1),
        (
            r#"{"error": {"code": 403, "status": "PERMISSION_DENIED"}}"#,
            1,
        ),
        ("nonsense", 1),
        (r#"{"results": [], "status": "ZERO_RESULTS"}"#, 0),
        ("{}", 0),
    ] {
        let answer = format!("{AT}{json}\n\n");
        let sent = answer.clone();
        let server = Server::start(1, move |mut peer| peer.answer(&sent));
        let ended = run([&*server.address, "WHATSAT", "kiwi", "10", "5"], b"");
        assert_eq!(String::from_utf8(ended.stdout).unwrap(), answer);
        assert_eq!((ended.status, &*ended.stderr), (Some(status), ""), "{json}");
    }
}

#[test]
fn a_usage_error_exits_with_2_and_does_not_connect() {
    let ended = run(["Bob"], b"");
    assert_eq!(ended.status, Some(2));
    assert_eq!(ended.stderr.lines().count(), 1);
    assert!(ended.stderr.contains("\"Bob\"") && ended.stderr.contains("2021 (Riley "));

    // No server listens at port 1. The program does not connect, so it does not notice.
    let ended = run(["127.0.0.1:1", "iamat", "kiwi", "91", "0"], b"");
    ended.told("the latitude 91 is out of range: from -90 to 90 degrees");
    assert_eq!(ended.status, Some(2));

    let ended = run(["Riley", "--herd", "1999"], b"");
    assert_eq!(ended.status, Some(2));
    let ended = run(["--prot", "1"], b"");
    ended.told("unexpected argument '--prot' found; see herd-client --help");
    assert_eq!(ended.status, Some(2));
}

#[test]
fn a_config_file_gives_the_server_s_address() {
    let server = Server::start(1, |mut peer| peer.answer("? x\n"));
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("herd.toml");
    let text = format!(
        "[[servers]]\nname = \"Alice\"\nclients = \"{}\"\n",
        server.address
    );
    fs::write(&path, text).unwrap();
    let ended = run(["Alice", "--config", path.to_str().unwrap(), "x"], b"");
    assert_eq!((ended.status, &*ended.stderr), (Some(1), ""));
    let ended = run(["Bob", "--config", path.to_str().unwrap(), "x"], b"");
    assert_eq!(ended.status, Some(2));
    assert!(
        ended
            .stderr
            .ends_with("has no server \"Bob\"; it has: Alice\n")
    );
}

#[test]
fn a_refused_connection_exits_with_status_3() {
    // The port was bound and closed, so no server listens there.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    drop(listener);
    let ended = run([&*address], b"x\n");
    ended.told(&format!(
        "cannot connect to {address}: no server listens there; start it with: herd-mio NAME"
    ));
    assert_eq!(ended.status, Some(3));
}

#[test]
fn a_lost_connection_exits_with_3_and_keeps_the_answers() {
    let server = Server::start(1, |mut peer| {
        let mut heard = 0;
        while !peer.line().is_empty() {
            heard += 1;
        }
        // Of seven commands, one and a half get an answer.
        peer.send([AT, &AT[..20]].concat());
        heard
    });
    let ended = run([&*server.address], &b"IAMAT kiwi +34-118 1\n".repeat(7));
    assert_eq!(server.result(), 7);
    assert_eq!(ended.stdout, AT.as_bytes());
    let address = &server.address;
    ended.told(&format!(
        "{address} closed the connection; 6 commands were not answered"
    ));
    assert_eq!(ended.status, Some(3));
}

/// The server closes with unread commands, which resets the connection.
#[test]
fn a_connection_reset_exits_with_status_3() {
    let server = Server::start(1, |mut peer| {
        peer.line();
    });
    let mut child = client([&*server.address]);
    let mut stdin = child.stdin.take().unwrap();
    // The client may end before it has read all of this.
    let _ = stdin.write_all(&b"IAMAT kiwi +34-118 1\n".repeat(100_000));
    drop(stdin);
    let ended = end(child);
    assert!(
        ended.stderr.contains("closed the connection; "),
        "{ended:?}"
    );
    assert!(ended.stderr.ends_with("were not answered\n"));
    assert_eq!(ended.status, Some(3));
}

#[test]
fn a_missing_answer_exits_with_status_3() {
    let server = Server::start(1, |mut peer| {
        peer.answer(AT);
        // The peer is returned and not dropped, so the connection stays open.
        peer
    });
    let arguments = [&*server.address, "--timeout", "2"];
    let ended = run(arguments, b"IAMAT kiwi +34-118 1\nwhatsat kiwi\n");
    assert_eq!(ended.stdout, AT.as_bytes());
    let address = &server.address;
    ended.told(&format!(
        "{address} sent nothing for 2 s; 1 command was not answered"
    ));
    assert_eq!(ended.status, Some(3));
}

/// No answer is due, so none can be late: a pipe may be quiet for longer than the timeout.
#[test]
fn a_quiet_input_pipe_does_not_time_out() {
    let server = Server::start(1, |mut peer| {
        peer.answer("? one\n");
        peer.answer("? two\n");
    });
    let mut child = client([&*server.address, "--timeout", "1"]);
    let mut stdin = child.stdin.take().unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    writeln!(stdin, "one").unwrap();
    stdout.read_line(&mut line).unwrap();
    let (lines, next) = channel();
    thread::spawn(move || {
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        lines.send(line).unwrap();
    });
    // The test has to wait for longer than the timeout to see that nothing happens.
    let quiet = next.recv_timeout(Duration::from_millis(1500));
    assert_eq!(quiet, Err(RecvTimeoutError::Timeout));
    writeln!(stdin, "two").unwrap();
    assert_eq!(next.recv_timeout(common::DEADLINE).unwrap(), "? two\n");
    drop(stdin);
    let ended = end(child);
    assert_eq!((ended.status, &*ended.stderr), (Some(1), ""));
}

#[test]
fn another_protocol_exits_with_status_3() {
    let server = Server::start(1, |mut peer| {
        peer.answer("HTTP/1.1 400 \x1b[31mBad Request\r\n\r\n");
        peer.rest()
    });
    let ended = run([&*server.address, "hello"], b"");
    let address = &server.address;
    ended.told(&format!(
        "{address} sent \"HTTP/1.1 400 \\x1b[31mBad Request\\x0d\", which is neither an AT line nor a refusal \
         (is it a herd-mio server's port for clients?); 1 command was not answered"
    ));
    assert_eq!(ended.status, Some(3));
}

#[test]
fn help_documents_the_exit_status() {
    let ended = run(["--help"], b"");
    let help = String::from_utf8(ended.stdout).unwrap();
    for word in [
        "Exit status",
        "  3  the connection failed",
        "Examples:",
        "--timeout",
    ] {
        assert!(help.contains(word), "{help}");
    }
    assert_eq!(ended.status, Some(0));
}
