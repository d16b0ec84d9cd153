//! Peers that reach a server's ports without being neighbours, and neighbours that send false data:
//! they change nothing and cost little.

use std::fs;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};

use herd_testkit::client::{Client, SOON, wait_until};
use herd_testkit::herd::{Herd, Server};
use herd_testkit::ports::{free, free_at};

use crate::neighbours::{
    FORGIVING, NONCE, SECRET, linked_riley, pose_as_riley, proof, status_of, two, value,
};
use crate::tls::{Authority, FOR_PEERS};
use crate::turns::connect_from;

/// With these limits no heartbeat comes in between, even on a slow machine.
const PATIENT: &str = "[limits]\nheartbeat_ms = 60000\nlink_silence_ms = 120000\n";

/// The number of records of a server, and their digest.
fn standing(herd: &Herd, name: &str) -> (usize, String) {
    let status = status_of(herd, name, SECRET).unwrap();
    let records = value(&status, "records").parse().unwrap();
    (records, value(&status, "digest"))
}

/// The number of log lines that contain both texts.
fn told(server: &Server, one: &str, other: &str) -> usize {
    let lines = server.log_lines();
    lines
        .iter()
        .filter(|line| line.contains(one) && line.contains(other))
        .count()
}

/// Waits until the server has closed. It closes with a reset if it had unread input.
pub(crate) fn wait_for_end(client: &Client) {
    let mut stream = client.stream();
    loop {
        match stream.read(&mut [0; 1024]) {
            Ok(0) => return,
            Ok(_) => {}
            Err(error) => return assert_eq!(error.kind(), ErrorKind::ConnectionReset),
        }
    }
}

#[test]
fn forged_at_lines_are_ignored_on_both_ports() {
    let herd = Herd::new(
        &["Riley", "Jaquez", "Juzang"],
        &[("Riley", "Jaquez"), ("Jaquez", "Juzang")],
    );
    let servers = herd.start_all();
    let known = servers["Jaquez"].client().ask("IAMAT known +1+2 3");
    for name in herd.names() {
        servers[&name]
            .client()
            .wait_for_record("known", |line| line == known);
    }
    let before = standing(&herd, "Jaquez");
    assert_eq!(before.0, 1);
    let proof_of_nothing = "00".repeat(32);
    let lines = [
        "AT Jaquez +0.000000000 forged +1+2 7".to_owned(),
        "AT Riley +0.000000000 known +9+9 999999999".to_owned(),
        format!("HERD 2 Riley Jaquez {NONCE}"),
        format!("PROOF {proof_of_nothing}"),
        "LIFE 00000000000000aa 1 - 0".to_owned(),
        "SYNC 18446744073709551615".to_owned(),
        "STATUS 00000000000000aa 1 0000000000000000 1".to_owned(),
        "BYE".to_owned(),
    ];
    // On the clients' port, none of these lines is a valid command.
    let mut client = servers["Jaquez"].client();
    for line in &lines {
        client
            .send(format!("{line}\n"))
            .expect(format!("? {line}\n"));
    }
    // On the neighbours' port, each line is sent alone, and after a greeting without a proof.
    for line in &lines {
        for greeting in ["", &*format!("HERD 2 Riley Jaquez {NONCE}\n")] {
            let mut stranger = Client::connect(herd.peers_address("Jaquez"));
            stranger.send(format!(
                "{greeting}{line}\nAT Riley +0.000000000 forged +1+2 7\n"
            ));
            if !greeting.is_empty() {
                assert!(stranger.line().starts_with("HERD 2 Jaquez Riley "));
            }
            // A greeting is wrong, too, where it is the second one. The answer to all of this is
            // `BYE`.
            let farewell = String::from_utf8(stranger.rest()).unwrap();
            let last = farewell.lines().last().unwrap_or_default();
            assert!(
                last.starts_with("BYE ") || line == "BYE",
                "{line}: {farewell:?}"
            );
            let is_proof = |told: &str| told.starts_with("PROOF");
            assert!(!farewell.lines().any(is_proof), "{line}: {farewell:?}");
        }
    }
    // A server sends its updates in order. When this later one has arrived, all earlier ones have.
    let marker = servers["Jaquez"].client().ask("IAMAT marker +1+2 3");
    for name in herd.names() {
        let mut client = servers[&name].client();
        client.wait_for_record("marker", |line| line == marker);
        client
            .send("WHATSAT forged 1 1\n")
            .expect("? WHATSAT forged 1 1\n");
        client.wait_for_record("known", |line| line == known);
        assert_eq!(
            told(&servers[&name], "heard ", "forged"),
            0,
            "flooded to {name}"
        );
    }
    let standings: Vec<_> = herd
        .names()
        .iter()
        .map(|name| standing(&herd, name))
        .collect();
    assert!(standings.iter().all(|standing| standing.0 == 2));
    assert!(
        standings.iter().all(|standing| *standing == standings[0]),
        "{standings:?}"
    );
}

#[test]
fn each_wrongly_claimed_name_is_logged_in_one_line() {
    let herd = two().level("info").with(PATIENT);
    let jaquez = herd.start("Jaquez");
    for (name, reason) in [
        ("Jaquez", "Jaquez is not linked with Jaquez"),
        ("Bernard", "Bernard is not linked with Jaquez"),
        ("riley", "riley is not linked with Jaquez"),
        ("Riley\0", "Riley\\x00 is not linked with Jaquez"),
        ("Riley\u{a0}", "Riley\\xc2\\xa0 is not linked with Jaquez"),
    ] {
        let mut stranger = Client::connect(herd.peers_address("Jaquez"));
        let said = stranger.stream().local_addr().unwrap();
        stranger.send(format!("HERD 2 {name} Jaquez {NONCE}\n"));
        assert_eq!(stranger.line(), format!("BYE {reason}"));
        stranger.expect_end();
        drop(stranger);
        let line = jaquez.wait_for_log(reason, "refused");
        assert!(line.contains("[WARN ] unproven peer "), "{line}");
        assert_eq!(told(&jaquez, &said.to_string(), ""), 1, "{reason}");
    }
    // The right name with a wrong proof is refused, too, and does not disturb the existing link.
    let mut riley = linked_riley(&herd);
    jaquez.wait_for_log("neighbour Riley", ": linked");
    let (mut stranger, theirs) = pose_as_riley(&herd);
    let said = stranger.stream().local_addr().unwrap().to_string();
    stranger.send(format!(
        "PROOF {}\n",
        proof(b"a guess", "dialler", NONCE, &theirs)
    ));
    assert!(stranger.line().starts_with("BYE a wrong proof"));
    drop(stranger);
    jaquez.wait_for_log(&said, "claiming to be Riley: refused: a wrong proof");
    let at = jaquez.client().ask("IAMAT x +1+2 3");
    assert_eq!(riley.line(), at, "the true one is still linked");
    assert_eq!(told(&jaquez, "neighbour Riley", "lost"), 0);
}

#[test]
fn garbage_closes_only_the_link_that_sent_it() {
    let herd = two().with(FORGIVING);
    let jaquez = herd.start("Jaquez");
    let long = "9".repeat(400);
    let kinds: Vec<Vec<u8>> = vec![
        b"\xff\xfe\xfd".to_vec(),
        b"AT Riley +0.000000000 x +1+2 7\0".to_vec(),
        b"\0".to_vec(),
        vec![b'x'; 5_000],
        [&b"AT Riley +0.000000000 "[..], &[b'x'; 5_000], b" +1+2 7"].concat(),
        b"AT".to_vec(),
        b"AT ".to_vec(),
        b"AT  +0.000000000 x +1+2 7".to_vec(),
        b"AT Riley +0.000000000  +1+2 7".to_vec(),
        b"AT Riley +0.000000000 x +1+2 7 8".to_vec(),
        b"AT Riley +0.000000000 x +1+2".to_vec(),
        b"AT Riley +0.000000000 x +91+2 7".to_vec(),
        b"AT Riley +0.000000000 x +1+181 7".to_vec(),
        b"AT Riley +0.000000000 x +1+2 -7".to_vec(),
        b"AT Riley +0.000000000 x +1+2 1e9".to_vec(),
        b"AT Riley +0.000000000 x +1+2 nan".to_vec(),
        b"AT Riley ++0.000000000 x +1+2 7".to_vec(),
        b"AT Riley 0.000000000 x +1+2 7".to_vec(),
        format!("AT Riley +{long}.000000000 x +1+2 7").into_bytes(),
        format!("AT Riley -{long}.000000000 x +1+2 7").into_bytes(),
        format!("AT Riley +0.{long} x +1+2 7").into_bytes(),
        format!("AT Riley +0.000000000 x +1+2 {long}").into_bytes(),
        b"AT Riley -9.000000000 x +1+2 7".to_vec(),
        b"SYNC".to_vec(),
        b"SYNC ".to_vec(),
        b"SYNC -1".to_vec(),
        b"SYNC +1".to_vec(),
        b"SYNC 1 2".to_vec(),
        b"SYNC 18446744073709551616".to_vec(),
        format!("SYNC {long}").into_bytes(),
        b"LIFE 00000000000000aa 1 - 0".to_vec(),
        format!("HERD 2 Riley Jaquez {NONCE}").into_bytes(),
        format!("PROOF {}", "00".repeat(32)).into_bytes(),
        b"STATUS 00000000000000aa 1 0000000000000000 1".to_vec(),
        b"IAMAT x +1+2 3".to_vec(),
        b"GET / HTTP/1.1\r".to_vec(),
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc".to_vec(),
    ];
    for (number, garbage) in (1..).zip(&kinds) {
        let shown = garbage.escape_ascii().to_string();
        let mut riley = linked_riley(&herd);
        // The record before the garbage is accepted, because it comes from a neighbour.
        riley.send(format!("AT Riley +0.000000000 before +1+2 {number}\n"));
        riley.send([&garbage[..], b"\nAT Riley +0.000000000 after +1+2 7\n"].concat());
        let told = riley.rest();
        let farewell = told.split(|&byte| byte == b'\n').rev().nth(1).unwrap();
        assert!(farewell.starts_with(b"BYE "), "{shown}: {farewell:?}");
        assert!(
            farewell.iter().all(|byte| matches!(byte, b' '..=b'~')),
            "{shown}"
        );
        drop(riley);
        jaquez.wait_for_nth_log(number, "neighbour Riley", "lost: ");
    }
    let mut client = jaquez.client();
    client.wait_for_record("before", |line| {
        line.ends_with(&format!(" {}", kinds.len()))
    });
    for name in ["after", "x"] {
        assert_eq!(
            client.ask(&format!("WHATSAT {name} 1 1")),
            format!("? WHATSAT {name} 1 1")
        );
    }
}

#[test]
fn an_invalid_life_line_prevents_the_link() {
    let herd = two();
    let jaquez = herd.start("Jaquez");
    for life in [
        "LIFE",
        "LIFE 00000000000000aa 1 -",
        "LIFE 00000000000000aa 1 - 0 0",
        "LIFE aa 1 - 0",
        "LIFE 000000000000000000aa 1 - 0",
        "LIFE +0000000000000aa 1 - 0",
        "LIFE 00000000000000aa x - 0",
        "LIFE 00000000000000aa 18446744073709551616 - 0",
        "LIFE 00000000000000aa 1 - x",
        "LIFE 00000000000000aa 1 - 18446744073709551616",
        "SYNC 1",
        "AT Riley +0.000000000 forged +1+2 7",
    ] {
        let (mut riley, theirs) = pose_as_riley(&herd);
        let proof = proof(SECRET, "dialler", NONCE, &theirs);
        riley.send(format!("PROOF {proof}\n{life}\n"));
        assert!(riley.line().starts_with("PROOF "));
        assert!(riley.line().starts_with("LIFE "));
        let farewell = riley.line();
        assert!(farewell.starts_with("BYE "), "{life}: {farewell}");
        riley.expect_end();
    }
    assert_eq!(told(&jaquez, "neighbour Riley", ": linked"), 0);
    assert_eq!(
        jaquez.client().ask("WHATSAT forged 1 1"),
        "? WHATSAT forged 1 1"
    );
}

#[test]
fn positions_beyond_the_feed_start_a_new_life() {
    const MOST: u64 = u64::MAX;
    let herd = two().with_top("data_dir = \"data\"").with(PATIENT);
    let mut jaquez = herd.start("Jaquez");
    let mut known = Vec::new();
    for _life in 0..2 {
        let mut client = jaquez.client();
        known.push(client.ask(&format!("IAMAT c{} +1+2 3", known.len())));
        // For two lives of Jaquez (two runs of its process), Riley reports positions that its feed
        // never reached.
        for their_position in [MOST, MOST - 1, 1 << 63, 1_000_000] {
            let (mut riley, theirs) = pose_as_riley(&herd);
            let first = proof(SECRET, "dialler", NONCE, &theirs);
            riley.send(format!("PROOF {first}\n"));
            riley.line();
            let life = riley.line();
            let boot = life.split(' ').nth(1).unwrap().to_owned();
            // Riley's own life is unknown to Jaquez, and its clock is far in the future.
            riley.send(format!(
                "LIFE 00000000000000aa {MOST} {boot} {their_position}\n"
            ));
            // Jaquez never sent that much in this life. It assumes that its history was rolled
            // back, and begins a new life.
            let farewell = "BYE its history was rolled back; it begins a new life";
            assert_eq!(riley.line(), farewell);
            riley.expect_end();
            let (mut riley, theirs) = pose_as_riley(&herd);
            let proof = proof(SECRET, "dialler", NONCE, &theirs);
            riley.send(format!("PROOF {proof}\n"));
            riley.line();
            let life = riley.line();
            assert_ne!(life.split(' ').nth(1), Some(&*boot));
            riley.send(format!(
                "LIFE 00000000000000aa {MOST} {boot} {their_position}\n"
            ));
            for expected in &known {
                assert_eq!(
                    riley.line(),
                    *expected,
                    "it has not got that: it is sent all"
                );
            }
            assert_eq!(riley.line(), format!("SYNC {}", known.len()));
            // Positions that jump forwards and backwards, up to the largest number.
            let positions = [MOST, 0, MOST, 1, MOST - 1, MOST];
            riley.send(
                positions
                    .map(|position| format!("SYNC {position}\n"))
                    .concat(),
            );
            riley.send("BYE enough\n");
            riley.expect_end();
            drop(riley);
        }
        jaquez.wait_for_nth_log(4, "neighbour Riley", "lost: it said goodbye: enough");
        drop(client);
        let journal = herd.directory.path().join("data/Jaquez/journal");
        wait_until("what was heard is written down", || {
            let written = fs::read(&journal).unwrap();
            written.windows(8).any(|bytes| bytes == [0xff; 8])
        });
        jaquez.stop();
        jaquez = herd.start("Jaquez");
    }
    let (mut riley, theirs) = pose_as_riley(&herd);
    let proof = proof(SECRET, "dialler", NONCE, &theirs);
    riley.send(format!("PROOF {proof}\n"));
    riley.line();
    let life = riley.line();
    assert!(
        life.ends_with(&format!(" 00000000000000aa {MOST}")),
        "it believes what it is told of the other's feed: {life}"
    );
}

/// Plays Jaquez for Riley's next connection: proves itself, is linked, and sends `garbage`. Returns
/// when Riley has closed.
fn serve_garbage(listener: &TcpListener, garbage: &[u8]) {
    let (stream, _) = listener.accept().unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    let mut lines = BufReader::new(stream.try_clone().unwrap());
    let mut line = || {
        let mut line = String::new();
        lines.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    };
    let say = |text: &[u8]| (&stream).write_all(text).unwrap();
    let greeting = line();
    let theirs = greeting.strip_prefix("HERD 2 Riley Jaquez ").unwrap();
    say(format!("HERD 2 Jaquez Riley {NONCE}\n").as_bytes());
    let proven = line();
    assert_eq!(
        proven,
        format!("PROOF {}", proof(SECRET, "dialler", theirs, NONCE))
    );
    let own = proof(SECRET, "acceptor", theirs, NONCE);
    say(format!("PROOF {own}\nLIFE 00000000000000bb 1 - 0\n").as_bytes());
    assert!(line().starts_with("LIFE "));
    say(garbage);
    while !line().is_empty() {}
}

#[test]
fn protocol_errors_back_off_the_dialler() {
    const DIALS: usize = 7;
    let herd = two().with("[limits]\nredial_first_ms = 20\nredial_cap_ms = 60000\n");
    let listener = TcpListener::bind(herd.peers_address("Jaquez")).unwrap();
    let riley = herd.start("Riley");
    for dial in 1..=DIALS {
        serve_garbage(&listener, b"nonsense\n");
        riley.wait_for_nth_log(
            dial,
            "neighbour Jaquez",
            "lost: not the neighbours' protocol: nonsense",
        );
    }
    let line = riley.wait_for_nth_log(DIALS, "neighbour Jaquez: dialling again in ", "");
    let waits: Vec<u64> = riley
        .log_lines()
        .iter()
        .filter_map(|line| {
            let (_, wait) = line.split_once("dialling again in ")?;
            wait.split(' ').next()?.parse().ok()
        })
        .collect();
    // Each wait is 50 to 90 % of a step, and each step is twice the previous one. A successful
    // proof does not reset the steps.
    for (place, wait) in waits.iter().enumerate() {
        let step = 20 << place;
        assert!(
            (step / 2..=step).contains(wait),
            "{waits:?}, the last in {line}"
        );
    }
    assert_eq!(waits.len(), DIALS);
}

#[test]
fn protocol_errors_back_off_the_acceptor() {
    const LINKS: u32 = 4;
    const FIRST: Duration = Duration::from_millis(200);
    let herd = two().with("[limits]\nredial_first_ms = 200\nredial_cap_ms = 60000\n");
    let jaquez = herd.start("Jaquez");
    for link in 0..LINKS {
        let mut riley = linked_riley(&herd);
        let broken = Instant::now();
        riley.send("nonsense\n");
        assert_eq!(
            riley.line(),
            "BYE not the neighbours' protocol: nonsense",
            "{link}"
        );
        // Riley tries again all the time, and is still refused for 90 % of a step. Each step is
        // twice the previous one.
        drop(pose_as_riley(&herd));
        let waited = broken.elapsed();
        assert!(waited >= FIRST.mul_f64(0.9) * 2_u32.pow(link), "{waited:?}");
    }
    // However often Riley tries, the log has a line for each link, and at most one line for the
    // refusals between two links.
    assert_eq!(told(&jaquez, "neighbour Riley", "linked"), LINKS as usize);
    let refused = "Riley broke the protocol just now, and has to wait";
    assert!((1..=LINKS as usize).contains(&told(&jaquez, "[WARN ]", refused)));
}

#[test]
fn unknown_server_names_do_not_fill_the_name_table() {
    const NAMES: usize = 20_000;
    let herd = two().level("warn").with(PATIENT);
    let jaquez = herd.start("Jaquez");
    let mut riley = linked_riley(&herd);
    let before = jaquez.status("VmRSS");
    // All these records are of one client, each later and from another server's name. So the table
    // stores one record of them, but could store all names.
    let name = "x".repeat(3_000);
    for thousand in 0..NAMES / 1_000 {
        let lines = (0..1_000).map(|place| {
            let number = thousand * 1_000 + place;
            format!("AT {name}{number} +0.000000000 c +1+2 {number}\n")
        });
        riley.send(lines.collect::<String>());
    }
    riley.send("AT Riley +0.000000000 last +1+2 7\nBYE enough\n");
    let told = String::from_utf8(riley.rest()).unwrap(); // all earlier lines are processed now
    assert!(
        told.lines().all(|line| line.starts_with("LACKS ")),
        "{told}"
    );
    let mut client = jaquez.client();
    client.wait_for_record("last", |line| line == "AT Riley +0.000000000 last +1+2 7");
    let grown = jaquez.status("VmRSS").saturating_sub(before);
    assert!(grown < 30_000, "grew by {grown} KiB"); // the names have 60,000 KiB
    jaquez.wait_for_log(
        "a neighbour's record was refused: it is from ",
        "which is no server of this herd",
    );
    // Jaquez still answers its own clients, and accepts records of the herd's servers.
    assert!(client.ask("IAMAT own +1+2 3").starts_with("AT Jaquez "));
    assert_eq!(standing(&herd, "Jaquez").0, 3);
}

#[test]
fn a_neighbour_cannot_grow_the_table_above_its_limit() {
    let herd = two()
        .level("warn")
        .with("[limits]\nmax_records = 100\nmax_record_bytes = 1000000\n");
    let jaquez = herd.start("Jaquez");
    let mut client = jaquez.client();
    client.ask("IAMAT own +1+2 3");
    let mut riley = linked_riley(&herd);
    let lines = (0..20_000).map(|number| format!("AT Riley +0.000000000 c{number} +1+2 7\n"));
    riley.send(lines.collect::<String>());
    // A known client's record is still accepted. When it has arrived, all earlier lines are
    // processed.
    riley.send("AT Riley +0.000000000 c0 +1+2 8\n");
    client.wait_for_record("c0", |line| line == "AT Riley +0.000000000 c0 +1+2 8");
    assert_eq!(standing(&herd, "Jaquez").0, 100);
    let full = "no room for a neighbour's record";
    jaquez.wait_for_log(full, "limits.max_records");
    let lines = told(&jaquez, full, "");
    assert!(lines <= 16, "{lines} lines of the same in the log");
    assert!(client.ask("IAMAT own +1+2 4").starts_with("AT Jaquez "));
}

#[test]
fn many_unproven_peers_are_logged_in_few_lines() {
    const CROWD: usize = 300;
    let herd =
        two().with("[limits]\nmax_unproven = 4\nlink_proof_ms = 60000\nunproven_grace_ms = 0\n");
    let jaquez = herd.start("Jaquez");
    let address = herd.peers_address("Jaquez");
    // Each peer sends something else.
    for number in 0..CROWD {
        let mut stranger = Client::connect(address);
        stranger.send(format!("nonsense {number}\n"));
        let farewell = stranger.line();
        assert_eq!(
            farewell,
            format!("BYE not the neighbours' protocol: nonsense {number}")
        );
        stranger.expect_end();
    }
    // Then more peers than `max_unproven` connect, and send nothing.
    let _crowd: Vec<Client> = (0..CROWD).map(|_| Client::connect(address)).collect();
    jaquez.wait_for_nth_log(2 * CROWD - 4, "unproven peer ", "refused: ");
    let warnings = told(&jaquez, "[WARN ]", "unproven peer ");
    assert!((3..=30).contains(&warnings), "{warnings} warnings");
    jaquez.wait_for_log("[WARN ] unproven peers: ", "more are at level debug only");
    assert!(jaquez.client().ask("IAMAT x +1+2 3").starts_with("AT "));
}

#[test]
fn unproven_peers_do_not_block_a_neighbour() {
    let herd = two().with("[limits]\nmax_unproven = 4\nlink_proof_ms = 60000\nunproven_grace_ms = 0\nlinger_ms = 60000\n");
    let jaquez = herd.start("Jaquez");
    let address = herd.peers_address("Jaquez");
    let sockets = || fs::read_dir(format!("/proc/{}/fd", jaquez.pid())).map(Iterator::count);
    let before = sockets();
    // Some peers send nothing, some only greet, and some stay connected after a `BYE`.
    let mut crowd = Vec::new();
    for _ in 0..20 {
        crowd.push(Client::connect(address));
        crowd.push(pose_as_riley(&herd).0);
        let mut told_to_go = Client::connect(address);
        told_to_go.send("nonsense\n");
        assert!(told_to_go.line().starts_with("BYE "));
        crowd.push(told_to_go);
    }
    let mut riley = linked_riley(&herd);
    jaquez.wait_for_log("neighbour Riley", ": linked");
    let at = jaquez.client().ask("IAMAT x +1+2 3");
    assert_eq!(riley.line(), at);
    // There are no more of them than `max_unproven`. The server picks at random which one it
    // closes, so the first one is almost certainly closed.
    if let (Ok(before), Ok(now)) = (before, sockets()) {
        assert!(now <= before + 4 + 2, "{before} and then {now} descriptors");
    }
    wait_for_end(&crowd[0]);
    jaquez.wait_for_log("as many as limits.max_unproven", "unproven peer ");
}

#[test]
fn unproven_peers_of_one_address_do_not_block_another() {
    let herd =
        two().with("[limits]\nmax_unproven = 4\nlink_proof_ms = 60000\nunproven_grace_ms = 0\n");
    let jaquez = herd.start("Jaquez");
    let from_elsewhere = || {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket
            .bind(&SocketAddr::from(([127, 0, 0, 9], 0)).into())
            .unwrap();
        socket
            .connect(&herd.peers_address("Jaquez").into())
            .unwrap();
        TcpStream::from(socket)
    };
    let mut crowd: Vec<TcpStream> = (0..3).map(|_| from_elsewhere()).collect();
    // Between any two lines of Riley, more of them connect than there is room for.
    let (mut riley, theirs) = pose_as_riley(&herd);
    for _ in 0..100 {
        crowd.push(from_elsewhere());
    }
    let refused = |stream: &mut TcpStream| stream.read_to_end(&mut Vec::new());
    let _ = refused(&mut crowd[0]);
    riley.send(format!(
        "PROOF {}\n",
        proof(SECRET, "dialler", NONCE, &theirs)
    ));
    assert!(riley.line().starts_with("PROOF "));
    jaquez.wait_for_log("as many as limits.max_unproven", "unproven peer 127.0.0.9");
}

/// Riley, which dials from 127.0.0.1 and is there by the file of the herd, and Jaquez. These limits
/// hold for loopback, because the file sets them.
fn two_at_known_addresses(limits: &str) -> Herd {
    let jaquez = free(2).unwrap();
    let riley = free_at(Ipv4Addr::LOCALHOST, 2).unwrap();
    let members = [
        ("Riley", riley[0], riley[1]),
        ("Jaquez", jaquez[0], jaquez[1]),
    ];
    Herd::at(&members, &[("Riley", "Jaquez")]).with(&format!("[limits]\n{limits}"))
}

#[test]
fn young_unproven_connections_do_not_block_a_neighbour() {
    let herd = two_at_known_addresses(
        "max_unproven = 4\nmax_unproven_per_neighbour = 2\nunproven_grace_ms = 60000\nlink_proof_ms = 60000\n",
    );
    let jaquez = herd.start("Jaquez");
    let address = herd.peers_address("Jaquez");
    let kept: Vec<Client> = (0..4)
        .map(|number| connect_from([127, 0, 9, number], address))
        .collect();
    for _ in 0..300 {
        connect_from([127, 0, 8, 1], address).expect_end();
    }
    let reason = "as many as limits.max_unproven are there, and none is older than 60000 ms";
    jaquez.wait_for_log(
        &format!("{reason}; 256 so far"),
        "[WARN ] unproven peer 127.0.8.1",
    );
    assert_eq!(told(&jaquez, reason, "[WARN ]"), 9, "1, 2, 4, … 256");
    // The neighbour has places of its own, which are few, too.
    let silent = [(); 2].map(|()| connect_from([127, 0, 0, 1], address));
    let mut third = connect_from([127, 0, 0, 1], address);
    third.expect_end();
    jaquez.wait_for_log(
        "as many as limits.max_unproven_per_neighbour are there",
        "127.0.0.1",
    );
    drop(silent);
    let riley = herd.start("Riley");
    riley.wait_for_log("neighbour Jaquez", ": linked");
    jaquez.wait_for_log("neighbour Riley", ": linked");
    let status = status_of(&herd, "Jaquez", SECRET).unwrap();
    let crowded: u64 = value(&status, "unproven_crowded").parse().unwrap();
    assert!(crowded > 300, "{status}");
    assert_eq!(value(&status, "unproven_displaced"), "0");
    assert_eq!(told(&jaquez, "its place was needed", ""), 0);
    drop(kept);
}

#[test]
fn a_dialling_neighbour_known_by_name_has_its_own_slots() {
    let herd = two_at_known_addresses(
        "max_unproven = 1\nmax_unproven_per_neighbour = 1\nunproven_grace_ms = 60000\nlink_proof_ms = 60000\n",
    );
    let riley = herd.peers_address("Riley").port();
    let mut command = herd.command("Jaquez");
    let file = herd.directory.path().join("herd.toml");
    let text = fs::read_to_string(&file).unwrap();
    let by_name = text.replace(&format!("127.0.0.1:{riley}"), &format!("localhost:{riley}"));
    assert_ne!(text, by_name);
    fs::write(&file, by_name).unwrap();
    let _jaquez = Server::start(&mut command);
    let address = herd.peers_address("Jaquez");
    let _takes_the_general_place = connect_from([127, 0, 9, 1], address);
    wait_until("the name is looked up", || {
        let riley = connect_from([127, 0, 0, 1], address);
        let greeting = format!("HERD 2 Riley Jaquez {NONCE}\n");
        let _ = riley.stream().write_all(greeting.as_bytes());
        matches!(riley.stream().read(&mut [0; 8]), Ok(1..))
    });
}

#[test]
fn new_connections_per_network_are_rate_limited() {
    const NO_TLS: &[u8] = b"GET / HTTP/1.1\r\n\r\n";
    let authority = Authority::new();
    let herd = two_at_known_addresses(
        "max_unproven_new = 5\nunproven_new_ms = 2000\nmax_unproven_per_neighbour = 3\n",
    )
    .with(FOR_PEERS);
    for name in herd.names() {
        authority.certify(herd.directory.path(), &name, &name, false);
    }
    fs::write(herd.directory.path().join("ca.pem"), authority.pem()).unwrap();
    let jaquez = herd.start("Jaquez");
    let address = herd.peers_address("Jaquez");
    let first = Instant::now();
    let mut taken = 0;
    for number in 0..100 {
        let plain = connect_from([127, 0, 9, number], address);
        let _ = plain.stream().write_all(NO_TLS);
        // A place begins with TLS, which refuses what is none. Without a place, there is no alert.
        let mut said = Vec::new();
        let _ = plain.stream().read_to_end(&mut said);
        taken += u128::from(!said.is_empty());
    }
    let most = 5 + first.elapsed().as_millis() / 400;
    assert!(
        (5..=most).contains(&taken),
        "{taken} of 100, at most {most}"
    );
    jaquez.wait_for_log(
        "refused: as many as limits.max_unproven_new came from its network within 2000 ms; 64 so far",
        "[WARN ] unproven peer 127.0.9.",
    );
    // Another network has its own share, and so has the neighbour.
    let alert = connect_from([127, 0, 10, 1], address)
        .send(NO_TLS)
        .until(b"\x15");
    assert_eq!(alert[0], 21);
    let riley = herd.start("Riley");
    riley.wait_for_log("neighbour Jaquez", ": linked");
    wait_until("its share comes back", || {
        let later = connect_from([127, 0, 9, 1], address);
        let _ = later.stream().write_all(NO_TLS);
        matches!(later.stream().read(&mut [0; 8]), Ok(1..))
    });
}

#[test]
fn connections_that_prove_a_name_are_not_rate_limited() {
    const ALLOWED: usize = 3;
    let herd = two().with(&format!(
        "[limits]\nmax_unproven_new = {ALLOWED}\nunproven_new_ms = 3600000\n"
    ));
    let _jaquez = herd.start("Jaquez");
    for _ in 0..4 * ALLOWED {
        status_of(&herd, "Jaquez", SECRET).unwrap();
    }
    let strangers = (0..4 * ALLOWED).filter(|_| {
        let stranger = Client::connect(herd.peers_address("Jaquez"));
        let greeting = format!("HERD 2 operator Jaquez {NONCE}\n");
        let _ = stranger.stream().write_all(greeting.as_bytes());
        matches!(stranger.stream().read(&mut [0; 8]), Ok(1..))
    });
    assert_eq!(strangers.count(), ALLOWED);
}

#[test]
fn slow_bytes_do_not_extend_the_proof_deadline() {
    let herd = two().with("[limits]\nlink_proof_ms = 600\n");
    let jaquez = herd.start("Jaquez");
    let begun = Instant::now();
    let mut slow = TcpStream::connect(herd.peers_address("Jaquez")).unwrap();
    let (mut greeted, _) = pose_as_riley(&herd);
    let (mut proven, theirs) = pose_as_riley(&herd);
    proven.send(format!(
        "PROOF {}\n",
        proof(SECRET, "dialler", NONCE, &theirs)
    ));
    assert!(proven.line().starts_with("PROOF "));
    assert!(proven.line().starts_with("LIFE "));
    // The start of a correct greeting, one byte at a time.
    let mut bytes = b"HERD 2 Riley Jaquez".iter().cycle();
    while slow.write_all(&[*bytes.next().unwrap()]).is_ok() {
        assert!(begun.elapsed() < SOON, "still there");
        std::thread::park_timeout(Duration::from_millis(20));
    }
    greeted.expect_end();
    proven.expect_end();
    let reason = "it did not prove who it is within 600 ms";
    jaquez.wait_for_nth_log(3, reason, "");
    assert!(begun.elapsed() >= Duration::from_millis(590));
    linked_riley(&herd);
}

#[test]
fn unread_input_does_not_destroy_a_bye_line() {
    let herd = two();
    let jaquez = herd.start("Jaquez");
    for is_proven in [false, true] {
        let mut talker = match is_proven {
            false => Client::connect(herd.peers_address("Jaquez")),
            true => linked_riley(&herd),
        };
        // All of this is sent before the first byte is read.
        talker.send("nonsense\n").send(vec![b'z'; 8 << 20]);
        talker.stream().shutdown(std::net::Shutdown::Write).unwrap();
        talker
            .expect("BYE not the neighbours' protocol: nonsense\n")
            .expect_end();
    }
    jaquez.wait_for_log("neighbour Riley", "lost: not the neighbours' protocol");
}
