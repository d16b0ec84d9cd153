//! Many commands at once. All get their answers in order, and the server's memory stays bounded.

use std::fmt::Write as _;
use std::io::{ErrorKind, Write as _};
use std::time::Duration;

use herd_compare::server::LogLevel;
use herd_compare::workshop::Program;
use herd_places::Behaviour;
use herd_testkit::client::{Client, SOON};
use socket2::{Domain, Socket, Type};

use crate::scene::Scene;

/// All tests of floods, with one server.
pub(crate) fn transcript(program: &Program) {
    // A log of ten thousand commands is not needed.
    let scene = Scene::planned(program, |plan| plan.log_level = LogLevel::Warn);
    behind_a_whatsat(&scene);
    mixed(&scene);
    thousands(&scene);
    who_does_not_read(&scene);
    let log = scene.server().log();
    assert!(
        !log.contains("pipe"),
        "at `warn`, only trouble is logged: {log}"
    );
}

/// Commands after a WHATSAT wait for its answer. Meanwhile the client may shut down its writing
/// side.
fn behind_a_whatsat(scene: &Scene) {
    let asked = scene.places.requests().len();
    scene.places.push_behaviour(Behaviour::Hold);
    let mut client = scene.client();
    client
        .send("IAMAT x +1+2 1\nWHATSAT x 10 5\nIAMAT x +3+4 2\nWHATSAT x 10 5\nlast")
        .finish();
    assert!(scene.places.wait_for_requests(asked + 1, SOON));
    let first = client.expect_at("AT Riley x +1+2 1");
    // Other clients are served meanwhile. The record of x is still the first one, because the
    // second IAMAT waits behind the WHATSAT.
    let mut other = scene.client();
    other.refused("other");
    assert_eq!(other.send("WHATSAT x 1 1\n").places().0, first);
    scene.places.release();
    let (at, json) = client.places();
    assert_eq!(at, first, "the record as it stood when it was asked for");
    assert!(json.contains("\"OK\""));
    let second = client.expect_at("AT Riley x +3+4 2");
    assert_eq!(client.places().0, second);
    client.expect("? last\n").expect_end();
}

/// Commands of all kinds in one write.
fn mixed(scene: &Scene) {
    const ROUNDS: u32 = 60;
    let mut commands = String::new();
    for round in 0..ROUNDS {
        writeln!(
            commands,
            "IAMAT mixed +1+2 {round}\nWHATSAT mixed 10 1\nnonsense {round}\n\nWHATSAT nobody 1 1"
        )
        .unwrap();
    }
    let mut client = scene.client();
    let writer = client.send_meanwhile(commands.into_bytes());
    for round in 0..ROUNDS {
        let at = client.expect_at(&format!("AT Riley mixed +1+2 {round}"));
        let (line, json) = client.places();
        assert_eq!(line, at);
        assert!(json.contains("\"status\" : \"OK\""));
        client.expect(format!("? nonsense {round}\n? WHATSAT nobody 1 1\n"));
    }
    writer.join().unwrap();
}

/// One client sends as fast as possible.
fn thousands(scene: &Scene) {
    const COMMANDS: u32 = 10_000;
    let mut commands = String::new();
    for number in 0..COMMANDS {
        writeln!(
            commands,
            "IAMAT pipe-{} +34.068930-118.445127 {number}.{number}",
            number % 100
        )
        .unwrap();
    }
    let mut client = scene.client();
    let writer = client.send_meanwhile(commands.into_bytes());
    for number in 0..COMMANDS {
        client.expect_at(&format!(
            "AT Riley pipe-{} +34.068930-118.445127 {number}.{number}",
            number % 100
        ));
    }
    writer.join().unwrap();
    client.finish().expect_end();
}

/// One client sends and does not read. At some point the server stops reading from it. When the
/// client reads, it gets every answer.
fn who_does_not_read(scene: &Scene) {
    const MOST_BYTES: usize = 48 * 1024 * 1024;
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(64 * 1024).unwrap();
    socket.set_send_buffer_size(64 * 1024).unwrap();
    socket.connect(&scene.server().clients.into()).unwrap();
    let mut client = Client::of(socket.into());
    client
        .stream()
        .set_write_timeout(Some(Duration::from_millis(300)))
        .unwrap();
    let line = |number: usize| format!("{number:0>4000}\n").into_bytes();
    let (mut lines, mut sent, mut rest) = (0, 0, Vec::new());
    loop {
        if rest.is_empty() {
            rest = line(lines);
            lines += 1;
        }
        match client.stream().write(&rest) {
            Ok(count) => {
                sent += count;
                rest.drain(..count);
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                break;
            }
            Err(error) => panic!("{error} after {sent} bytes"),
        }
        assert!(
            sent < MOST_BYTES,
            "{sent} bytes were taken from a client that reads none of its answers"
        );
    }
    scene.client().refused("others are served");
    client.stream().set_write_timeout(Some(SOON)).unwrap();
    let writer = client.send_meanwhile(rest);
    for number in 0..lines {
        client.expect([b"? ", &line(number)[..]].concat());
    }
    writer.join().unwrap();
    client.finish().expect_end();
}
