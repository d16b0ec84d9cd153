//! Tests of `herd-client status` and `herd-client follow` with scripted servers: their output and
//! their exit status.

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

use herd_mio::core::base::hex::{Hex, unhex};
use herd_mio::core::base::settings::Secret;
use herd_mio::core::link::proof::{Parties, Side};

/// A server that knows `secret`, and answers one question with this status line. Lines may follow
/// the status.
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
        if !parties.is_valid_proof(
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
        lines.for_each(drop); // until the client closes, so that it can read everything
    });
    address
}

/// A status line with so many records and clients, this last digit of the digest, and these links.
/// The clock is wrong by `clock_s` seconds.
fn standing(records: u32, digest: char, clients: u32, links: &[&str], clock_s: i64) -> String {
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let wall = i64::try_from(wall.as_nanos()).unwrap() + clock_s * 1_000_000_000;
    let links: String = links.iter().map(|link| format!(" link={link}")).collect();
    format!(
        "STATUS boot=00 wall={wall} records={records} digest=00000000000000f{digest} clients={clients} stale=0 refused=0 ahead=0 behind=0{links}"
    )
}

/// Asks a herd of these servers, each of which is linked with the next.
fn ask(servers: &[(&str, SocketAddr)]) -> Output {
    let links: Vec<_> = servers
        .windows(2)
        .map(|pair| (pair[0].0, pair[1].0))
        .collect();
    ask_with(servers, &links, &[])
}

fn ask_with(servers: &[(&str, SocketAddr)], links: &[(&str, &str)], arguments: &[&str]) -> Output {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("herd.toml");
    let links: Vec<_> = links
        .iter()
        .map(|(a, b)| format!("[{a:?}, {b:?}]"))
        .collect();
    let mut text = format!("links = [{}]\n", links.join(", "));
    for (number, (name, address)) in servers.iter().enumerate() {
        text.push_str(&format!(
            "[[servers]]\nname = {name:?}\nclients = \"127.0.0.1:{}\"\npeers = \"{address}\"\n",
            number + 1
        ));
    }
    fs::write(&path, text).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_herd-client"));
    command
        .arg("status")
        .arg("--config")
        .arg(&path)
        .args(arguments)
        .env("HERD_SECRET", "right")
        .env_remove("HERD_SECRET_FILE")
        .output()
        .unwrap()
}

#[test]
fn a_follower_has_caught_up_when_all_changes_of_its_start_were_sent() {
    const LIFE: &str = "00000000000000aa";
    let position = |number: u64| format!("{LIFE}-{number}");
    let change = |number: u64| {
        format!(
            "CHANGE {} AT A +0.100000000 kiwi +1+2 {number}",
            position(number)
        )
    };
    let lines = [
        format!("{} followers=0", standing(2, '0', 0, &[], 0)),
        format!(
            "FOLLOWING {} behind=2 heartbeat=3000 silence=10000 ttl=0",
            position(0)
        ),
        "RESTART the life is unknown".to_owned(),
        change(1),
        format!("SYNC {}", position(1)), // a heartbeat
        change(2),
        format!("SYNC {}", position(2)),
        change(3),
    ];
    let address = server("A", "right", lines.join("\n"));
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("herd.toml");
    let herd = format!(
        "links = []\n[[servers]]\nname = \"A\"\nclients = \"127.0.0.1:1\"\npeers = \"{address}\"\n"
    );
    fs::write(&path, herd).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_herd-client"))
        .args([
            "follow",
            "A",
            "--from",
            "all",
            "--until-caught-up",
            "--config",
        ])
        .arg(&path)
        .env("HERD_SECRET", "right")
        .env_remove("HERD_SECRET_FILE")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let expected = [
        lines[2].clone(),
        change(1),
        change(2),
        format!("SYNC {}\n", position(2)),
    ];
    assert_eq!(out(&output), expected.join("\n"));
}

fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[test]
fn servers_that_agree_give_status_0() {
    let a = server("A", "right", standing(12, 'f', 3, &["0:0:0:B"], 0));
    let b = server("B", "right", standing(12, 'f', 0, &["0:?:0:A"], 0));
    let output = ask(&[("A", a), ("B", b)]);
    assert_eq!(output.status.code(), Some(0), "{}", out(&output));
    assert_eq!(
        out(&output),
        "server     records  digest             clients  journal   linked with\n\
         A               12  00000000000000ff         3  ?         B\n\
         B               12  00000000000000ff         0  ?         A\n\
         all 2 hold the same 12 records\n"
    );
}

/// The lines after the table.
fn below(output: &Output) -> Vec<String> {
    let text = out(output);
    let lines = text.lines().skip_while(|line| !line.starts_with("server "));
    let is_row = |line: &&str| {
        line.starts_with("server ") || line.chars().nth(1) == Some(' ') && line.len() > 40
    };
    lines.skip_while(is_row).map(str::to_owned).collect()
}

/// The status line of a server with these keys, which is linked with `other`.
fn saying(keys: &str, other: &str) -> String {
    standing(12, 'f', 3, &[&format!("0:0:0:{other}")], 0)
        .replace(" link=", &format!(" {keys} link="))
}

#[test]
fn lacking_records_and_clock_offsets_are_problems() {
    let a = server("A", "right", standing(12, 'f', 3, &["7:-90000:5:B"], 0));
    let b = server("B", "right", standing(12, 'f', 0, &["0:90000:0:A"], -90));
    let output = ask(&[("A", a), ("B", b)]);
    assert_eq!(output.status.code(), Some(1), "{}", out(&output));
    assert!(
        out(&output).contains("  B (7 unconfirmed)\n"),
        "{}",
        out(&output)
    );
    let lines = below(&output);
    assert_eq!(
        lines[0],
        "lacks: B has refused 5 records of its neighbours because of its limits (max_records, max_record_bytes); raise them, and restart it"
    );
    let (_, late) = lines[1].split_once("clock: the clock of B is ").unwrap();
    assert!(late.contains(" s behind this machine's; "), "{late}");
    assert_eq!(lines[2], "all 2 hold the same 12 records; 2 problems");
    // Ignored problems are shown, but do not count.
    let a = server("A", "right", standing(12, 'f', 3, &["7:-90000:5:B"], 0));
    let b = server("B", "right", standing(12, 'f', 0, &["0:90000:0:A"], -90));
    let herd = [("A", a), ("B", b)];
    let output = ask_with(&herd, &[("A", "B")], &["--ignore", "clock,lacks"]);
    assert_eq!(output.status.code(), Some(0), "{}", out(&output));
    let lines = below(&output);
    assert!(lines[0].starts_with("lacks (ignored): "), "{lines:?}");
    assert_eq!(lines[2], "all 2 hold the same 12 records");
}

#[test]
fn each_problem_is_a_line_and_a_status() {
    const WELL: &str = "version=9.9.9 disk=ok table=ok clocks=near max_clients=50";
    let wrong = |from: &str, to: &str| saying(&WELL.replace(from, to), "B");
    for (status, expected) in [
        (
            wrong("disk=ok", "disk=refusing:12000:4300800"),
            "disk: A has refused IAMATs for 12.0 s, because its disk is full; free 4200 KiB",
        ),
        (
            wrong("disk=ok", "disk=busy:2500"),
            "disk: a write or a sync of A has taken 2.5 s so far",
        ),
        (
            wrong("table=ok", "table=full"),
            "table: the table of A is full, with 12 records",
        ),
        (
            wrong("max_clients=50", "max_clients=3"),
            "clients: A has 3 clients, which is its limit",
        ),
        (
            wrong(
                "max_clients=50",
                "max_clients=50 evicted=7 buffers=9:10:61000",
            ),
            "buffers: A has closed 7 connections since its start, the last 61.0 s ago, because the buffers of all connections held more than 10 bytes; ",
        ),
        (
            wrong("clocks=near", "clocks=behind"),
            "client-clocks: the stamps of most clients of A are more than 60 s behind its clock; check whether the clock of A is fast",
        ),
        (
            wrong("max_clients=50", "max_clients=50 places_day=7:7"),
            "places: A asked Google Places 7 times in 24 hours, and its limit is 7; it answers a WHATSAT with an error until the oldest question is 24 hours old; raise places.max_per_day",
        ),
        (
            wrong("9.9.9", "9.9.8"),
            "version: the servers' versions differ: 9.9.8 (A), 9.9.9 (B)",
        ),
        (
            wrong("version=9.9.9 ", ""),
            "version: the servers' versions differ: 9.9.9 (B), unknown version (A)",
        ),
        (
            wrong("max_clients=50", "max_clients=50 lag=2500:B"),
            "lag: B has not confirmed changes that A sent 2.5 s ago",
        ),
        (
            wrong("max_clients=50", "max_clients=50 unlinked=70:C"),
            "file: A is configured to link with C, a server that this file does not have",
        ),
        (
            saying(WELL, "B").replace(" link=0:0:0:B", ""),
            "file: A was started without the link between A and B",
        ),
        (
            saying(&format!("{WELL} unlinked=4000:B"), "B").replace(" link=0:0:0:B", ""),
            "link: B is linked with A, but A is not linked with B",
        ),
    ] {
        let a = server("A", "right", status);
        let b = server("B", "right", saying(WELL, "A"));
        let output = ask(&[("A", a), ("B", b)]);
        let lines = below(&output);
        assert_eq!(output.status.code(), Some(1), "{lines:?}");
        let told = lines.iter().any(|line| line.starts_with(expected));
        assert!(told, "{expected:?} in {lines:#?}");
        assert!(lines.last().unwrap().ends_with("; 1 problem"), "{lines:#?}");
    }
    // A short wait for the disk is no problem, and neither is a key that older versions leave out.
    for well in [
        wrong("disk=ok", "disk=busy:300"),
        wrong("disk=ok", "disk=none"),
        wrong("max_clients=50", "max_clients=50 buffers=9:10"),
        wrong("max_clients=50", "max_clients=50 buffers=9:10:600000"),
    ] {
        let a = server("A", "right", well);
        let b = server("B", "right", saying(WELL, "A"));
        let output = ask(&[("A", a), ("B", b)]);
        assert_eq!(output.status.code(), Some(0), "{}", out(&output));
    }
}

#[test]
fn a_link_down_at_both_ends_is_a_problem() {
    let keys = |other: &str, ms: u32| format!("disk=none unlinked={ms}:{other}");
    let a = saying(&keys("B", 4_000), "C").replace(" link=0:0:0:C", "");
    let b = saying(&keys("A", 5_000), "C").replace(" link=0:0:0:C", "");
    let (a, b) = (server("A", "right", a), server("B", "right", b));
    let output = ask(&[("A", a), ("B", b)]);
    let lines = below(&output);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(
        lines,
        [
            "A, B have no data directory, so they keep no records on disk",
            "link: A and B are not linked for 5.0 s; the log of A, which dials, says why",
            "all 2 hold the same 12 records; 1 problem",
        ]
    );
}

#[test]
fn status_explains_connections_refused_by_address() {
    const FLOOD: &str = "disk=ok unproven_displaced=3 unproven_crowded=4 unproven_throttled=5";
    let note = "since its start, B closed connections to its neighbours' port: 7 because all places for unproven connections were taken (max_unproven, max_unproven_per_neighbour), 5 because too many came from one network (max_unproven_new); its log has their addresses";
    let crowded = "since its start, A refused 6 clients because limits.max_clients_per_address were connected from their address; behind a load balancer without the PROXY protocol, all clients have one address, so raise the limit there";
    let a = server("A", "right", saying("disk=ok refused_by_address=6", "B"));
    let b = server("B", "right", saying(FLOOD, "A"));
    let output = ask(&[("A", a), ("B", b)]);
    assert_eq!(output.status.code(), Some(0), "{}", out(&output));
    assert_eq!(
        below(&output),
        [crowded, note, "all 2 hold the same 12 records"]
    );
    let keys = |keys: &str, other: &str| format!("{keys} unlinked=4000:{other}");
    let a = saying(&keys("disk=ok", "B"), "C").replace(" link=0:0:0:C", "");
    let b = saying(&keys(FLOOD, "A"), "C").replace(" link=0:0:0:C", "");
    let (a, b) = (server("A", "right", a), server("B", "right", b));
    let output = ask(&[("A", a), ("B", b)]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(
        below(&output),
        [
            note,
            "link: A and B are not linked for 4.0 s; the log of A, which dials, says why; B has closed connections to its neighbours' port; if A dials from an address that the config file does not have for it, B keeps no place free for it",
            "all 2 hold the same 12 records; 1 problem",
        ]
    );
}

#[test]
fn an_offset_of_the_local_clock_is_no_server_problem() {
    let late = |other: &str| standing(12, 'f', 0, &[&format!("0:0:0:{other}")], -90);
    let a = server("A", "right", late("B"));
    let b = server("B", "right", late("A"));
    let output = ask(&[("A", a), ("B", b)]);
    assert_eq!(output.status.code(), Some(0), "{}", out(&output));
    let lines = below(&output);
    assert!(
        lines[0].starts_with("the clock of this machine is ")
            && lines[0].ends_with(" s ahead of the servers'"),
        "{lines:?}"
    );
}

#[test]
fn one_server_s_status_is_shown_in_json() {
    let a = server(
        "A",
        "right",
        saying("version=1.2.3 disk=refusing:7:9 unlinked=70:C", "B"),
    );
    let nowhere = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let herd = [("A", a), ("B", nowhere)];
    let arguments = ["--server", "A", "--json", "--timeout", "2"];
    let output = ask_with(&herd, &[("A", "B")], &arguments);
    assert_eq!(output.status.code(), Some(1), "{}", out(&output));
    let told: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(told["healthy"], false);
    assert_eq!(told["servers"].as_array().unwrap().len(), 1);
    let server = &told["servers"][0];
    assert_eq!(
        (&server["name"], &server["journal"]),
        (&"A".into(), &"refusing".into())
    );
    assert_eq!(
        server["unlinked"][0],
        serde_json::json!({"name": "C", "for_ms": 70})
    );
    let problems = told["problems"].as_array().unwrap();
    let kinds: Vec<_> = problems
        .iter()
        .map(|it| it["kind"].as_str().unwrap())
        .collect();
    assert_eq!(kinds, ["disk", "file"]);
    assert_eq!(problems[0]["server"], "A");
    let output = ask_with(&herd, &[("A", "B")], &["--server", "D"]);
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(
        output.status.code() == Some(2) && told.contains("\"D\""),
        "{told}"
    );
}

/// The server sends something now and then, but never an answer.
#[test]
fn a_slow_sending_server_hits_the_timeout() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        while stream.write_all(b"H").is_ok() {
            thread::park_timeout(std::time::Duration::from_millis(20));
        }
    });
    let begun = SystemTime::now();
    let output = ask_with(&[("A", address)], &[], &["--timeout", "0.5"]);
    let took = begun.elapsed().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", out(&output));
    assert!(
        out(&output).contains("no-answer: A does not answer: "),
        "{}",
        out(&output)
    );
    assert!(took < std::time::Duration::from_secs(5), "{took:?}");
}

#[test]
fn differing_and_unreachable_servers_give_status_1() {
    let a = server("A", "right", standing(12, 'f', 3, &["0:0:0:B"], 0));
    let b = server("B", "right", standing(12, 'e', 0, &[], 0));
    let output = ask(&[("A", a), ("B", b)]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        out(&output).contains("linked with\n")
            && out(&output).contains("no neighbour")
            && out(&output).contains("the servers' records differ"),
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
    // The report does not ask whether a server runs that refused.
    let asks = |what: &str| {
        let line = text
            .lines()
            .find(|line| line.starts_with("no-answer: ") && line.contains(what));
        line.unwrap().contains("check that it runs")
    };
    assert!(
        asks("Connection refused") && !asks("a wrong proof"),
        "{text}"
    );
    assert!(text.ends_with("\n1 of 3 answered; 2 problems\n"), "{text}");

    let output = ask(&[("B", refusing)]);
    let text = out(&output);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        text.contains("no server answered; check that they run"),
        "{text}"
    );
}

#[test]
fn a_silent_server_is_reported() {
    // The kernel accepts the connection, but no program does.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap();
    let output = ask(&[("A", address)]);
    assert_eq!(output.status.code(), Some(1));
    let text = out(&output);
    // On a slow machine, the survey's own deadline may come before the thread's message.
    assert!(
        text.contains(" no answer: ") && text.contains("it sent nothing for 3 s\n"),
        "{text}"
    );
}

#[test]
fn a_status_usage_error_is_one_line() {
    let output = Command::new(env!("CARGO_BIN_EXE_herd-client"))
        .args(["status", "--herd", "1999"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(
        text.starts_with("herd-client: there is no preset \"1999\"") && text.lines().count() == 1,
        "{text}"
    );
}

#[test]
fn a_server_may_be_called_status() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let answered = thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        let mut line = String::new();
        BufReader::new(&stream).read_line(&mut line).unwrap();
        write!(&stream, "? {line}").unwrap();
        line
    });
    let directory = tempfile::tempdir().unwrap();
    let herd = directory.path().join("herd.toml");
    let text = format!("[[servers]]\nname = \"status\"\nclients = \"{address}\"\n");
    fs::write(&herd, text).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_herd-client"))
        .arg("--config")
        .arg(&herd)
        .args(["status", "hello"])
        .output()
        .unwrap();
    assert_eq!(out(&output), "? hello\n", "{output:?}");
    assert_eq!(output.status.code(), Some(1), "a command was refused");
    assert_eq!(answered.join().unwrap(), "hello\n");
}
