//! Tests of commands from a pipe: what is sent, what is printed, and that no wait is endless.

#![cfg(unix)]

mod common;

use std::io::{BufRead, BufReader, Read, Write};

use common::{Server, Told, client, end, run};

const AT: &str = "AT Riley +0.263873386 kiwi +34.068930-118.445127 1621464827.959498503\n";
const PLACES: &str =
    "{\n   \"results\" : [ { \"name\" : \"Caf\u{e9}\" } ],\n   \"status\" : \"OK\"\n}\n\n";

#[test]
fn piped_output_has_the_server_s_exact_bytes() {
    let server = Server::start(1, |mut peer| {
        let mut heard = peer.answer(AT);
        heard.extend(peer.line()); // a blank line: no answer
        heard.extend(peer.answer([AT, PLACES].concat()));
        heard.extend(peer.answer([AT, PLACES].concat()));
        heard.extend(peer.rest());
        heard
    });
    let commands = "IAMAT  kiwi\t+34.068930-118.445127 1621464827.959498503 \r\n \t\n\
                    whatsat kiwi\nWHATSAT kiwi 10 5";
    let ended = run([&*server.address], commands.as_bytes());
    assert_eq!(
        String::from_utf8(server.result()).unwrap(),
        commands.replace("whatsat kiwi", "WHATSAT kiwi 10 5"),
        "byte for byte, and a last line without LF stays one"
    );
    assert_eq!(
        String::from_utf8(ended.stdout).unwrap(),
        [AT, AT, PLACES, AT, PLACES].concat()
    );
    assert_eq!((ended.status, &*ended.stderr), (Some(0), ""));
}

#[test]
fn bytes_that_are_not_utf_8_pass_unchanged() {
    let server = Server::start(1, |mut peer| {
        let heard = peer.answer(b"AT Riley +1.000000000 \xff\xfe\x1b +1+1 0\n");
        peer.answer(b"? \x00\x80\xc3\n");
        heard
    });
    let ended = run(
        [&*server.address],
        b"IAMAT \xff\xfe\x1b +1+1 0\n\x00\x80\xc3\n",
    );
    assert_eq!(server.result(), b"IAMAT \xff\xfe\x1b +1+1 0\n");
    assert_eq!(
        ended.stdout,
        b"AT Riley +1.000000000 \xff\xfe\x1b +1+1 0\n? \x00\x80\xc3\n"
    );
    assert_eq!(ended.status, Some(1));
}

#[test]
fn pretty_output_has_no_colours_or_control_bytes() {
    let server = Server::start(1, |mut peer| {
        peer.answer([AT, PLACES].concat());
        peer.answer("? \x1b]0;title\x07\n");
    });
    let ended = run(
        [&*server.address, "--pretty"],
        b"whatsat kiwi\n\x1b]0;title\x07\n",
    );
    let stdout = String::from_utf8(ended.stdout).unwrap();
    let lines: Vec<&str> = stdout.lines().collect();
    assert_eq!(lines[0], AT.trim_end());
    assert!(lines[1].contains("34.068930 N, 118.445127 W on 2021-05-19 22:53:47.959498503 UTC"));
    assert_eq!(lines[2], "  1  Caf\u{e9}");
    assert_eq!(lines[3], "? \\x1b]0;title\\x07");
    assert!(!stdout.contains('\x1b'));
    assert_eq!(ended.status, Some(1));
}

/// The client must read answers while it still writes commands: this server reads a command only
/// after it has sent the answer before it.
#[test]
fn answers_are_read_while_commands_are_written() {
    const COMMANDS: usize = 10_000;
    // 30 MB in each direction, which is more than the sockets' buffers hold.
    let command = |number: usize| format!("{number:05} {}\n", "x".repeat(3_000));
    let server = Server::start(1, move |peer| {
        let stream = peer.0.into_inner();
        // A read takes at most 100 bytes.
        let mut commands = BufReader::with_capacity(100, &stream);
        let mut heard = 0;
        let mut line = Vec::new();
        while commands.read_until(b'\n', &mut line).unwrap() > 0 {
            assert_eq!(line, command(heard).as_bytes());
            (&stream).write_all(&[b"? ", &line[..]].concat()).unwrap();
            heard += 1;
            line.clear();
        }
        heard
    });
    let input: String = (0..COMMANDS).map(command).collect();
    let answers: String = (0..COMMANDS)
        .map(|number| format!("? {}", command(number)))
        .collect();
    let ended = run([&*server.address], input.as_bytes());
    assert_eq!(server.result(), COMMANDS);
    assert!(
        ended.stdout == answers.as_bytes(),
        "{} bytes",
        ended.stdout.len()
    );
    assert_eq!((ended.status, &*ended.stderr), (Some(1), ""));
}

/// Commands are pipelined: this server answers only after it has read all of them.
#[test]
fn ten_thousand_commands_are_pipelined() {
    const COMMANDS: usize = 10_000;
    let server = Server::start(1, |mut peer| {
        let heard = peer.rest().iter().filter(|&&byte| byte == b'\n').count();
        for _ in 0..heard / 2 {
            peer.send([AT, AT, PLACES].concat());
        }
        heard
    });
    let ended = run(
        [&*server.address],
        "iamat kiwi 34.07 -118.44\nwhatsat kiwi\n"
            .repeat(COMMANDS / 2)
            .as_bytes(),
    );
    assert_eq!(server.result(), COMMANDS);
    assert!(ended.stdout == [AT, AT, PLACES].concat().repeat(COMMANDS / 2).as_bytes());
    assert_eq!((ended.status, &*ended.stderr), (Some(0), ""));
}

#[test]
fn an_answer_is_printed_before_the_next_command_is_read() {
    let server = Server::start(1, |mut peer| {
        peer.answer("? one\n");
        peer.answer("? two\n");
    });
    let mut child = client([&*server.address]);
    let mut stdin = child.stdin.take().unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    for word in ["one", "two"] {
        writeln!(stdin, "{word}").unwrap();
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        assert_eq!(line, format!("? {word}\n"));
    }
    drop(stdin);
    assert_eq!(end(child).status, Some(1));
}

#[test]
fn an_invalid_line_is_reported_and_the_rest_is_sent() {
    let server = Server::start(1, |mut peer| {
        let heard = peer.answer(AT);
        [heard, peer.rest()].concat()
    });
    let ended = run(
        [&*server.address],
        b"iamat kiwi 91 0\nIAMAT kiwi +34-118 1\n",
    );
    assert_eq!(server.result(), b"IAMAT kiwi +34-118 1\n");
    ended.told("line 1: the latitude 91 is out of range: from -90 to 90 degrees");
    assert_eq!(ended.stdout, AT.as_bytes());
    assert_eq!(ended.status, Some(2));
}

/// The server closes the connection after such a line, so later lines need another connection.
#[test]
fn commands_after_an_overlong_line_are_answered() {
    let server = Server::start(2, |mut peer| {
        let mut heard = Vec::new();
        loop {
            let line = peer.line();
            heard.push(line.len());
            match line.len() {
                0 => return heard,
                1..=4096 => peer.send([b"? ", &line[..]].concat()),
                _ => {
                    peer.send([b"? ", &line[..4096], b"\n"].concat());
                    return heard;
                }
            }
        }
    });
    let long = "x".repeat(100_000);
    let ended = run([&*server.address], format!("a\n{long}\nb\nc\n").as_bytes());
    assert_eq!(server.result(), [2, 4097]);
    assert_eq!(server.result(), [2, 2, 0]);
    let answers = format!("? a\n? {}\n? b\n? c\n", &long[..4096]);
    assert!(ended.stdout == answers.as_bytes());
    assert_eq!((ended.status, &*ended.stderr), (Some(1), ""));
}

#[test]
fn a_closed_output_pipe_is_no_error() {
    let server = Server::start(1, |mut peer| {
        while !peer.line().is_empty() {
            // The client closes the connection in the middle.
            if peer.0.get_mut().write_all(&[b'?'; 1]).is_err()
                || peer.0.get_mut().write_all(&[b' '; 5_000]).is_err()
                || peer.0.get_mut().write_all(b"\n").is_err()
            {
                return;
            }
        }
    });
    let mut child = client([&*server.address]);
    let mut stdin = child.stdin.take().unwrap();
    let mut stdout = child.stdout.take().unwrap();
    // More answers than a pipe holds, so the client's writes must meet the closed pipe.
    stdin.write_all(&b"x\n".repeat(1_000)).unwrap();
    stdout.read_exact(&mut [0; 10]).unwrap();
    drop(stdout);
    drop(stdin);
    let ended = end(child);
    assert_eq!((ended.status, &*ended.stderr), (Some(0), ""));
}
