//! Links between neighbours: their proofs, one link for each pair, and how links are lost and made
//! again.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ring::hmac;
use rustix::process::Signal;

use herd_testkit::client::{Client, SOON, wait_until};
use herd_testkit::herd::Herd;

pub(crate) const SECRET: &[u8] = b"the herd's own secret";
pub(crate) const NONCE: &str = "000102030405060708090a0b0c0d0e0f";

pub(crate) fn two() -> Herd {
    Herd::new(&["Riley", "Jaquez"], &[("Riley", "Jaquez")])
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The proof of `side` (dialler or acceptor) on a link between Riley, who dials, and Jaquez.
pub(crate) fn proof(
    secret: &[u8],
    side: &str,
    diallers_nonce: &str,
    acceptors_nonce: &str,
) -> String {
    let text =
        format!("herd-mio link 1\n{side}\nRiley\nJaquez\n{diallers_nonce}\n{acceptors_nonce}\n");
    hex(hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), text.as_bytes()).as_ref())
}

/// With these limits, a peer that broke the protocol may connect again at once.
pub(crate) const FORGIVING: &str = "[limits]\nredial_first_ms = 1\nredial_cap_ms = 1\n";

/// The reply to Riley if it had proven itself, broke the protocol, and connects again too soon.
pub(crate) const TOO_SOON: &str = "BYE Riley broke the protocol just now, and has to wait";

/// Connects a peer that claims to be Riley. Returns it, and the reply to its greeting.
pub(crate) fn hello_of_riley(herd: &Herd) -> (Client, String) {
    let mut riley = Client::connect(herd.peers_address("Jaquez"));
    riley.send(format!("HERD 2 Riley Jaquez {NONCE}\n"));
    let greeting = riley.line();
    (riley, greeting)
}

/// Connects a peer that claims to be Riley, and greets. Returns Jaquez's nonce, too. Dials again if
/// Jaquez asks it to wait.
pub(crate) fn pose_as_riley(herd: &Herd) -> (Client, String) {
    let (mut riley, mut greeting) = hello_of_riley(herd);
    wait_until("Riley is let in again", || {
        if greeting == TOO_SOON {
            (riley, greeting) = hello_of_riley(herd);
        }
        greeting != TOO_SOON
    });
    let theirs = greeting
        .strip_prefix("HERD 2 Jaquez Riley ")
        .unwrap_or_else(|| panic!("{greeting}"))
        .to_owned();
    assert_eq!(theirs.len(), 32);
    (riley, theirs)
}

/// A peer that knows the secret, and is linked with Jaquez as Riley.
pub(crate) fn linked_riley(herd: &Herd) -> Client {
    let (mut riley, theirs) = pose_as_riley(herd);
    riley.send(format!(
        "PROOF {}\n",
        proof(SECRET, "dialler", NONCE, &theirs)
    ));
    assert_eq!(
        riley.line(),
        format!("PROOF {}", proof(SECRET, "acceptor", NONCE, &theirs))
    );
    assert!(riley.line().starts_with("LIFE "));
    riley.send("LIFE 00000000000000aa 1 - 0\n");
    riley
}

/// The next line that Jaquez sends, except `KEPT`. A `KEPT` (the confirmation of Riley's records)
/// may come at any time.
pub(crate) fn of_feed(riley: &mut Client) -> String {
    loop {
        let line = riley.line();
        if !line.starts_with("KEPT ") {
            return line;
        }
    }
}

/// A peer that knows the secret and has not sent its own `LIFE` yet. Returns Jaquez's `LIFE`, too.
fn starting_riley(herd: &Herd) -> (Client, String) {
    let (mut riley, theirs) = pose_as_riley(herd);
    riley.send(format!(
        "PROOF {}\n",
        proof(SECRET, "dialler", NONCE, &theirs)
    ));
    riley.line();
    let life = riley.line();
    (riley, life)
}

#[test]
fn the_neighbour_protocol_matches_its_documentation() {
    let herd = two();
    let jaquez = herd.start("Jaquez");
    let known = jaquez.client().ask("IAMAT known +1+2 3");
    let mut riley = linked_riley(&herd);
    assert_eq!(
        riley.line(),
        known,
        "a fresh neighbour is sent the whole feed"
    );
    assert_eq!(riley.line(), "SYNC 1");
    riley.send("AT Riley +0.000000000 x +1+2 7\nSYNC 1\n");
    let told = jaquez
        .client()
        .wait_for_record("x", |line| line.starts_with("AT "));
    assert_eq!(told, "AT Riley +0.000000000 x +1+2 7");
    let later = jaquez.client().ask("IAMAT y +1+2 3");
    let sent_back = "and not sent back what it taught us";
    assert_eq!(of_feed(&mut riley), later, "{sent_back}");
    assert_eq!(of_feed(&mut riley), "SYNC 3");
}

#[test]
fn records_are_confirmed_once_and_a_false_kept_is_refused() {
    let herd = two().level("info").with(FORGIVING);
    let jaquez = herd.start("Jaquez");
    jaquez.client().ask("IAMAT known +1+2 3");
    let mut riley = linked_riley(&herd);
    riley.line();
    assert_eq!(riley.line(), "SYNC 1");
    riley.send("AT Riley +0.000000000 x +1+2 7\nSYNC 1\n");
    assert_eq!(riley.line(), "KEPT 1");
    // A repeated `SYNC` is not confirmed again. The next one is.
    riley.send("SYNC 1\nEPOCH 3 AT Riley +0.000000000 x +1+2 6\nSYNC 2\n");
    assert_eq!(riley.line(), "KEPT 2");
    let mut client = jaquez.client();
    client.wait_for_record("x", |line| line == "AT Riley +0.000000000 x +1+2 6");
    // The neighbour has caught up when it confirms the records, not when all are sent.
    let has_caught_up = || {
        let lines = jaquez.log_lines();
        lines.iter().any(|line| line.contains("caught up"))
    };
    assert!(!has_caught_up());
    riley.send("KEPT 1\n");
    jaquez.wait_for_log("neighbour Riley", "caught up, 1 record sent and kept");
    riley.send("KEPT 99\n");
    let farewell = of_feed(&mut riley);
    assert!(
        farewell.starts_with("BYE it has kept 99, and was told "),
        "{farewell}"
    );
}

#[test]
fn a_record_is_forwarded_with_its_epoch() {
    let herd = two();
    let jaquez = herd.start("Jaquez");
    let mut riley = linked_riley(&herd);
    // The record of a server whose clock is years ahead.
    riley.send("AT Riley +0.000000000 x +1+2 4000000000\nSYNC 1\n");
    let mut client = jaquez.client();
    client.wait_for_record("x", |line| line.ends_with(" 4000000000"));
    let answer = client.ask("IAMAT x +1+2 3");
    assert_eq!(of_feed(&mut riley), format!("EPOCH 1 {answer}"));
    riley.send("AT Riley +0.000000000 x +1+2 4000000001\nAT Riley +0.000000000 y +1+2 3\n");
    client.wait_for_record("y", |line| line.starts_with("AT Riley "));
    client.send("WHATSAT x 1 1\n");
    assert_eq!(client.places().0, answer);
}

#[test]
fn a_refused_record_is_unconfirmed_and_asked_for_again() {
    let herd = two()
        .level("info")
        .with_top("data_dir = \"data\"")
        .with("[limits]\nmax_records = 2\n");
    let jaquez = herd.start("Jaquez");
    let mut riley = linked_riley(&herd);
    riley.send("AT Riley +0.000000000 a +1+2 7\nSYNC 1\n");
    assert_eq!(riley.line(), "KEPT 1");
    for (number, client) in ["b", "c", "d"].into_iter().enumerate() {
        let position = number + 2;
        riley.send(format!(
            "AT Riley +0.000000000 {client} +1+2 7\nSYNC {position}\n"
        ));
    }
    // `KEPT` waits for the disk and `LACKS` does not, so they come in any order.
    let mut told = Vec::new();
    while !["KEPT 2", "LACKS 2"]
        .iter()
        .all(|line| told.iter().any(|told| told == line))
    {
        told.push(riley.line());
    }
    let known = ["KEPT 2", "LACKS 1", "LACKS 2"];
    assert!(
        told.iter().all(|line| known.contains(&line.as_str())),
        "{told:?}"
    );
    riley.send("LACKS 5\n");
    jaquez.wait_for_log(
        "neighbour Riley",
        "it had to refuse records because of its limits",
    );
    let status = status_of(&herd, "Jaquez", SECRET).unwrap();
    assert!(
        status.contains(" refused=2 ") && status.contains(":5:Riley"),
        "{status}"
    );
    let journal = herd.directory.path().join("data/Jaquez/journal");
    let heard = [&2_u64.to_le_bytes()[..], b"Riley"].concat();
    wait_until("what was heard is written down", || {
        let written = fs::read(&journal).unwrap();
        written.windows(heard.len()).any(|bytes| bytes == heard)
    });
    drop(riley);
    jaquez.stop();
    let herd = herd.with_instead("[limits]\nmax_records = 9\n");
    let jaquez = herd.start("Jaquez");
    let (mut riley, life) = starting_riley(&herd);
    assert!(life.ends_with(" 00000000000000aa 2"), "{life}");
    riley.send("LIFE 00000000000000aa 1 - 0\n");
    riley.send("AT Riley +0.000000000 c +1+2 7\nAT Riley +0.000000000 d +1+2 7\nSYNC 4\n");
    let kept = loop {
        let line = riley.line();
        assert!(!line.starts_with("LACKS"), "{line}");
        if line.starts_with("KEPT ") {
            break line;
        }
    };
    assert_eq!(kept, "KEPT 4");
    let mut client = jaquez.client();
    client.wait_for_record("d", |line| line.starts_with("AT Riley "));
}

#[test]
fn a_record_refused_on_two_links_is_counted_once() {
    let herd = two().with("[limits]\nmax_records = 1\n");
    let jaquez = herd.start("Jaquez");
    let records = "AT Riley +0.000000000 a +1+2 7\nSYNC 1\nAT Riley +0.000000000 b +1+2 7\nAT Riley +0.000000000 c +1+2 7\nSYNC 3\n";
    let mut riley = linked_riley(&herd);
    riley.send(records);
    let mut told = vec![riley.line(), riley.line()];
    told.sort();
    assert_eq!(told, ["KEPT 1", "LACKS 2"]);
    drop(riley);
    jaquez.wait_for_log("neighbour Riley", "lost: ");
    let (mut riley, life) = starting_riley(&herd);
    assert!(life.ends_with(" 00000000000000aa 1"), "{life}");
    riley.send("LIFE 00000000000000aa 1 - 0\n");
    let (_, again) = records.split_once("SYNC 1\n").unwrap();
    riley.send(again);
    assert_eq!(of_feed(&mut riley), "SYNC 1");
    assert_eq!(of_feed(&mut riley), "LACKS 2");
}

#[test]
fn a_server_whose_history_was_rolled_back_begins_a_new_life() {
    let herd = two();
    let jaquez = herd.start("Jaquez");
    let known = jaquez.client().ask("IAMAT known +1+2 3");
    let mut riley = linked_riley(&herd);
    assert_eq!(
        (riley.line(), riley.line()),
        (known.clone(), "SYNC 1".to_owned())
    );
    riley.send("AT Riley +0.000000000 x +1+2 7\nSYNC 1\n");
    assert_eq!(riley.line(), "KEPT 1");
    let boot = |life: &str| life.split(' ').nth(1).unwrap().to_owned();
    // Riley reports a position that Jaquez has not reached.
    let (mut again, life) = starting_riley(&herd);
    assert!(life.ends_with(" 00000000000000aa 1"), "{life}");
    let first = boot(&life);
    again.send(format!(
        "LIFE 00000000000000aa 1 {first} 9\nAT Riley +0.000000000 y +1+2 7\n"
    ));
    let farewell = "BYE its history was rolled back; it begins a new life";
    assert_eq!(
        (again.line(), riley.line()),
        (farewell.to_owned(), farewell.to_owned())
    );
    again.expect_end();
    riley.expect_end();
    jaquez.wait_for_log("[WARN ]", "this server's history was rolled back");
    // Both sides exchange everything again, including the records that Riley sent in the earlier
    // life.
    let (mut riley, life) = starting_riley(&herd);
    assert!(life.ends_with(" 00000000000000aa 0"), "{life}");
    assert_ne!(boot(&life), first);
    riley.send(format!("LIFE 00000000000000aa 1 {first} 9\n"));
    assert_eq!(riley.line(), known);
    assert_eq!(riley.line(), "AT Riley +0.000000000 x +1+2 7");
    assert_eq!(riley.line(), "SYNC 2");
}

#[test]
fn a_link_resumes_at_the_neighbour_s_position() {
    let herd = two();
    let jaquez = herd.start("Jaquez");
    let mut client = jaquez.client();
    client.ask("IAMAT one +1+2 3");
    let mut first = linked_riley(&herd);
    first.line();
    assert_eq!(first.line(), "SYNC 1");
    drop(first);
    let two = client.ask("IAMAT two +1+2 3");
    let (mut riley, theirs) = pose_as_riley(&herd);
    riley.send(format!(
        "PROOF {}\n",
        proof(SECRET, "dialler", NONCE, &theirs)
    ));
    riley.line();
    let life = riley.line();
    let boot = life.split(' ').nth(1).unwrap();
    riley.send(format!("LIFE 00000000000000aa 1 {boot} 1\n"));
    assert_eq!(of_feed(&mut riley), two);
    assert_eq!(riley.line(), "SYNC 2");
}

#[test]
fn wrong_guessed_reflected_and_replayed_proofs_are_refused() {
    let herd = two();
    let jaquez = herd.start("Jaquez");
    let refused = |proof: String, riley: &mut Client| {
        riley.send(format!(
            "PROOF {proof}\nLIFE 00000000000000aa 1 - 0\nAT Riley +0.000000000 forged +1+2 7\n"
        ));
        assert_eq!(
            riley.line(),
            "BYE a wrong proof: the secret that Riley proves is not the one here; both need the same"
        );
        riley.expect_end();
    };
    let (mut riley, theirs) = pose_as_riley(&herd);
    let old_proof = proof(SECRET, "dialler", NONCE, &theirs);
    refused(
        proof(b"another secret", "dialler", NONCE, &theirs),
        &mut riley,
    );
    let (mut riley, theirs) = pose_as_riley(&herd);
    refused(proof(SECRET, "acceptor", NONCE, &theirs), &mut riley); // Jaquez's own proof
    let (mut riley, _) = pose_as_riley(&herd);
    refused(old_proof, &mut riley);
    let (mut riley, _) = pose_as_riley(&herd);
    refused(String::new(), &mut riley);
    let (mut riley, _) = pose_as_riley(&herd);
    refused("00".repeat(32), &mut riley);
    assert_eq!(
        jaquez.client().ask("WHATSAT forged 1 1"),
        "? WHATSAT forged 1 1"
    );
    jaquez.wait_for_log(
        "claiming to be Riley: refused: a wrong proof",
        "unproven peer ",
    );
}

#[test]
fn lines_before_the_proof_are_refused() {
    let herd = two();
    let jaquez = herd.start("Jaquez");
    for (said, farewell) in [
        (
            "AT Riley +0.000000000 forged +1+2 7\n",
            "BYE not the neighbours' protocol: AT Riley +0.000000000 forged +1+2 7",
        ),
        (
            "LIFE 00000000000000aa 1 - 0\n",
            "BYE not the neighbours' protocol: LIFE 00000000000000aa 1 - 0",
        ),
        (
            "IAMAT forged +1+2 7\n",
            "BYE not the neighbours' protocol: IAMAT forged +1+2 7",
        ),
        (
            "HERD 2 Bernard Jaquez 000102030405060708090a0b0c0d0e0f\n",
            "BYE Bernard is not linked with Jaquez",
        ),
        (
            "HERD 2 Jaquez Jaquez 000102030405060708090a0b0c0d0e0f\n",
            "BYE Jaquez is not linked with Jaquez",
        ),
        (
            "HERD 2 Riley Juzang 000102030405060708090a0b0c0d0e0f\n",
            "BYE it looks for Juzang, this is Jaquez",
        ),
        (
            "HERD 1 Riley Jaquez 00\n",
            "BYE it speaks version 1 of the neighbours' protocol, this server 2; upgrade it",
        ),
        (
            "HERD 3 Riley Jaquez 00\n",
            "BYE it speaks version 3 of the neighbours' protocol, this server 2; upgrade this one",
        ),
        (
            "HERD 2 Riley Jaquez 0001\n",
            "BYE a nonce that is not 32 hexadecimal digits",
        ),
        ("\x1b[2J\n", "BYE not the neighbours' protocol: \\x1b[2J"),
    ] {
        let mut stranger = Client::connect(herd.peers_address("Jaquez"));
        stranger.send(said);
        assert_eq!(stranger.line(), farewell);
        stranger.expect_end();
    }
    let mut stranger = Client::connect(herd.peers_address("Jaquez"));
    stranger.send("x".repeat(5000));
    assert_eq!(stranger.line(), "BYE a line of more than 4352 bytes");
    assert_eq!(
        jaquez.client().ask("WHATSAT forged 1 1"),
        "? WHATSAT forged 1 1"
    );
}

#[test]
fn a_protocol_error_closes_a_proven_link() {
    let herd = two().with(FORGIVING);
    let jaquez = herd.start("Jaquez");
    for nonsense in [
        "AT Riley 0.5 x +1+2 7",
        "AT Riley +0.000000000 x +91+2 7",
        "AT Riley -9.000000000 x +1+2 7",
        "SYNC x",
        "KEPT 1",
        "EPOCH 0 AT Riley +0.000000000 x +1+2 7",
        "EPOCH 01 AT Riley +0.000000000 x +1+2 7",
        "LACKS",
        "CLOCK -1",
        "HELLO",
        "",
    ] {
        let mut riley = linked_riley(&herd);
        riley.send(format!("{nonsense}\n"));
        let farewell = riley.line();
        assert!(farewell.starts_with("BYE "), "{farewell}");
        riley.expect_end();
    }
    jaquez.wait_for_nth_log(11, "neighbour Riley", "lost: ");
}

#[test]
fn a_dialled_neighbour_that_dials_is_refused() {
    let herd = two();
    let riley = herd.start("Riley");
    let mut jaquez = Client::connect(herd.peers_address("Riley"));
    jaquez.send(format!("HERD 2 Jaquez Riley {NONCE}\n"));
    assert_eq!(jaquez.line(), "BYE it is Riley that dials Jaquez");
    jaquez.expect_end();
    drop(riley);
}

#[test]
fn a_newer_proven_link_replaces_the_old_one() {
    let herd = two();
    let jaquez = herd.start("Jaquez");
    let mut old = linked_riley(&herd);
    jaquez.wait_for_log("neighbour Riley", "linked");
    let mut new = linked_riley(&herd);
    assert_eq!(old.line(), "BYE a newer connection took its place");
    old.expect_end();
    let at = jaquez.client().ask("IAMAT x +1+2 3");
    assert_eq!(new.line(), at);
    // A peer that cannot prove itself does not replace the link.
    let (mut impostor, theirs) = pose_as_riley(&herd);
    impostor.send(format!(
        "PROOF {}\n",
        proof(b"guess", "dialler", NONCE, &theirs)
    ));
    assert!(impostor.line().starts_with("BYE "));
    let at = jaquez.client().ask("IAMAT y +1+2 3");
    assert_eq!((new.line(), new.line()), ("SYNC 1".to_owned(), at));
}

#[test]
fn a_dialler_refuses_an_acceptor_without_proof() {
    let herd = two();
    let listener = TcpListener::bind(herd.peers_address("Jaquez")).unwrap();
    let riley = herd.start("Riley");
    let accept = || {
        let (stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        stream
    };
    let line = |stream: &mut TcpStream| {
        let mut line = Vec::new();
        let mut byte = [0];
        while stream.read(&mut byte).unwrap() == 1 && byte != *b"\n" {
            line.push(byte[0]);
        }
        String::from_utf8(line).unwrap()
    };
    // Three wrong answers: another name, our own proof reflected, and a guessed proof.
    let mut stream = accept();
    line(&mut stream);
    writeln!(stream, "HERD 2 Bernard Riley {NONCE}").unwrap();
    assert_eq!(line(&mut stream), "BYE Bernard is not linked with Riley");
    let mut stream = accept();
    line(&mut stream);
    writeln!(stream, "HERD 2 Jaquez Riley {NONCE}").unwrap();
    let reflected = line(&mut stream);
    writeln!(
        stream,
        "{reflected}\nLIFE 00000000000000aa 1 - 0\nAT Jaquez +0.000000000 forged +1+2 7"
    )
    .unwrap();
    assert_eq!(
        line(&mut stream),
        "BYE a wrong proof: the secret that Jaquez proves is not the one here; both need the same"
    );
    assert_eq!(
        riley.client().ask("WHATSAT forged 1 1"),
        "? WHATSAT forged 1 1"
    );
}

#[test]
fn different_secrets_prevent_a_link_and_are_logged_once() {
    let herd = two();
    let jaquez = herd.start("Jaquez");
    let riley =
        herd_testkit::herd::Server::start(herd.command("Riley").env("HERD_SECRET", "another one"));
    riley.wait_for_log(
        "neighbour Jaquez",
        "not linked: it said goodbye: a wrong proof: the secret that Riley proves is not the one here; both need the same",
    );
    jaquez.wait_for_log(
        "unproven peer ",
        "claiming to be Riley: refused: a wrong proof",
    );
    // The server tries again and again, but logs the reason once.
    riley.wait_for_nth_log(4, "neighbour Jaquez: dialling again", "");
    let told = |server: &herd_testkit::herd::Server| {
        server
            .log_lines()
            .iter()
            .filter(|line| line.contains("[WARN ]") && line.contains("wrong proof"))
            .count()
    };
    assert_eq!(
        (told(&riley), told(&jaquez)),
        (1, 1),
        "{:#?}",
        riley.log_lines()
    );
}

#[test]
fn a_herd_without_a_secret_logs_a_warning() {
    let herd = two().env("HERD_SECRET", "");
    let servers = herd.start_all();
    servers["Riley"].wait_for_log("the herd has no secret", "[WARN ]");
}

#[test]
fn a_killed_neighbour_is_linked_1_s_after_its_restart() {
    let herd = Herd::preset("2021");
    let mut servers = herd.start_all();
    let neighbours = ["Riley", "Bernard"];
    for life in 2..4 {
        servers.remove("Jaquez").unwrap().kill();
        for name in neighbours {
            servers[name].wait_for_nth_log(life - 1, "neighbour Jaquez", "lost: ");
        }
        let missed = servers["Riley"]
            .client()
            .ask(&format!("IAMAT missed +1+2 {life}"));
        // The dialling delay has reached its maximum when Jaquez starts again.
        servers["Riley"].wait_for_nth_log(5 * (life - 1), "neighbour Jaquez: dialling again", "");
        let jaquez = herd.start("Jaquez");
        let back = Instant::now();
        for name in neighbours {
            servers[name].wait_for_nth_log(life, "neighbour Jaquez", ": linked");
            jaquez.wait_for_log(&format!("neighbour {name}"), ": linked");
        }
        let took = back.elapsed();
        assert!(took < Duration::from_millis(1300), "linked after {took:?}"); // 1 s, and the log
        jaquez
            .client()
            .wait_for_record("missed", |line| line == missed);
        servers.insert("Jaquez".into(), jaquez);
    }
}

#[test]
fn a_frozen_neighbour_is_dropped_and_catches_up_later() {
    let herd = Herd::new(
        &["Riley", "Jaquez", "Juzang"],
        &[("Riley", "Jaquez"), ("Riley", "Juzang")],
    )
    .with("[limits]\nheartbeat_ms = 100\nlink_silence_ms = 500\nlink_proof_ms = 500\n");
    let servers = herd.start_all();
    servers["Jaquez"].signal(Signal::STOP);
    let mut client = servers["Riley"].client();
    let mut slowest = Duration::ZERO;
    let mut last = String::new();
    for round in 0..500 {
        let asked = Instant::now();
        last = client.ask(&format!("IAMAT x +1+2 {round}"));
        slowest = slowest.max(asked.elapsed());
    }
    assert!(
        slowest < Duration::from_secs(1),
        "an IAMAT took {slowest:?}"
    );
    servers["Juzang"]
        .client()
        .wait_for_record("x", |line| line == last);
    servers["Riley"].wait_for_log("neighbour Jaquez", "lost: nothing heard for 500 ms");
    servers["Jaquez"].signal(Signal::CONT);
    servers["Jaquez"]
        .client()
        .wait_for_record("x", |line| line == last);
}

#[test]
fn pending_records_are_sent_before_a_stop() {
    const RECORDS: usize = 5_000;
    let herd = two().level("warn");
    let jaquez = herd.start("Jaquez");
    let mut client = jaquez.client();
    // 20 MB, which is more than the kernel's socket buffers hold.
    let id = "x".repeat(4_000);
    for hundred in 0..RECORDS / 100 {
        let lines = (0..100).map(|number| format!("IAMAT {id}{hundred}-{number} +1+2 3\n"));
        client.send(lines.collect::<String>());
        for _ in 0..100 {
            assert!(client.line().starts_with("AT Jaquez "));
        }
    }
    let mut riley = linked_riley(&herd);
    riley.line();
    jaquez.signal(Signal::TERM);
    let mut records = 1;
    let farewell = loop {
        let line = riley.line();
        if !line.starts_with("AT ") && !line.starts_with("SYNC ") {
            break line;
        }
        records += usize::from(line.starts_with("AT "));
    };
    assert_eq!((records, &*farewell), (RECORDS, "BYE stopping"));
}

#[test]
fn heartbeats_are_sent_and_a_silent_link_is_lost() {
    let herd = two().with("[limits]\nheartbeat_ms = 50\nlink_silence_ms = 1000\n");
    let jaquez = herd.start("Jaquez");
    let mut riley = linked_riley(&herd);
    for _ in 0..5 {
        assert_eq!(riley.line(), "SYNC 0");
    }
    // Riley sends no heartbeats, so the link is lost.
    jaquez.wait_for_log("neighbour Riley", "lost: nothing heard for 1000 ms");
}

#[test]
fn unproven_peers_are_limited_in_time_and_number() {
    let herd =
        two().with("[limits]\nlink_proof_ms = 200\nmax_unproven = 2\nunproven_grace_ms = 0\n");
    let jaquez = herd.start("Jaquez");
    let mut strangers: Vec<Client> = (0..2)
        .map(|_| Client::connect(herd.peers_address("Jaquez")))
        .collect();
    let mut third = Client::connect(herd.peers_address("Jaquez"));
    third.expect_end();
    jaquez.wait_for_log("refused: as many as limits.max_unproven", "");
    for stranger in &mut strangers {
        stranger.expect_end();
    }
    jaquez.wait_for_nth_log(2, "it did not prove who it is within 200 ms", "");
    linked_riley(&herd);
}

#[test]
fn a_refused_peer_is_closed_while_it_still_sends() {
    let herd = two().with("[limits]\nlinger_ms = 300\n");
    let jaquez = herd.start("Jaquez");
    let mut stranger = Client::connect(herd.peers_address("Jaquez"));
    stranger.send("nonsense\n");
    assert!(stranger.line().starts_with("BYE "));
    let told = Instant::now();
    // The peer goes on sending. The server reads each byte, but none extends the time.
    while stranger.stream().write_all(b"x").is_ok() {
        assert!(told.elapsed() < SOON, "still there");
        std::thread::park_timeout(Duration::from_millis(20));
    }
    jaquez.wait_for_log("refused: not the neighbours' protocol", "unproven peer ");
}

#[test]
fn at_lines_from_clients_are_refused() {
    let herd = two();
    let servers = herd.start_all();
    let mut client = servers["Riley"].client();
    client
        .send("AT Jaquez +0.000000000 forged +1+2 7\n")
        .expect("? AT Jaquez +0.000000000 forged +1+2 7\n");
    client
        .send("WHATSAT forged 1 1\n")
        .expect("? WHATSAT forged 1 1\n");
}

#[test]
fn a_neighbour_s_clock_offset_is_logged() {
    let herd = two();
    let jaquez = herd.start("Jaquez");
    let mut riley = linked_riley(&herd);
    // Only the second wrong time in a row counts, because one line may have been delayed on its
    // way. The first one was in Riley's `LIFE`.
    riley.send("CLOCK 2\n");
    jaquez.wait_for_log("neighbour Riley: its clock is", "s behind ours");
    riley.send("CLOCK 18446744073709551615\nCLOCK 4\n");
    let status = status_of(&herd, "Jaquez", SECRET).unwrap();
    let link = status.rsplit(' ').next().unwrap();
    assert!(
        link.starts_with("link=0:-") && link.ends_with(":0:Riley"),
        "{link}"
    );
    let told = "neighbour Riley: its clock";
    let lines = jaquez.log_lines();
    assert_eq!(lines.iter().filter(|line| line.contains(told)).count(), 1);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    riley.send(format!("CLOCK {}\n", now.as_nanos()));
    jaquez.wait_for_log(told, "agrees with ours again");
}

/// The keys and values of a status. Those of the links come last.
pub(crate) fn values(status: &str) -> Vec<(String, String)> {
    let pairs = status.strip_prefix("STATUS ").unwrap().split(' ');
    let pairs = pairs.map(|pair| pair.split_once('=').unwrap());
    pairs
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect()
}

/// The value of one key of a status.
pub(crate) fn value(status: &str, key: &str) -> String {
    let found = values(status).into_iter().find(|(known, _)| known == key);
    found.unwrap_or_else(|| panic!("{key}: {status}")).1
}

#[test]
fn status_counts_stale_updates_and_clock_errors() {
    let herd = two();
    let jaquez = herd.start("Jaquez");
    let mut client = jaquez.client();
    client.ask("IAMAT x +1+2 4000000000");
    client.ask("IAMAT x +1+2 1621464827.5");
    client.ask("IAMAT x +1+2 1621464826");
    let status = status_of(&herd, "Jaquez", SECRET).unwrap();
    let counts = ["stale", "refused", "ahead", "behind"].map(|key| value(&status, key));
    assert_eq!(counts, ["2", "0", "1", "2"]);
}

/// The status that a server sends to an operator with this secret, or the `BYE`.
pub(crate) fn status_of(herd: &Herd, name: &str, secret: &[u8]) -> Result<String, String> {
    let (mut operator, status) = operator(herd, name, secret)?;
    operator.send("AT Riley +0.000000000 forged +1+2 7\n");
    operator.expect("BYE not the neighbours' protocol: AT Riley +0.000000000 forged +1+2 7\n");
    operator.expect_end();
    Ok(status)
}

/// Dials as the operator, with that secret. Returns the connection and the server's status, or the
/// reason why the server refuses.
pub(crate) fn operator(herd: &Herd, name: &str, secret: &[u8]) -> Result<(Client, String), String> {
    let mut operator = Client::connect(herd.peers_address(name));
    operator.send(format!("HERD 2 operator {name} {NONCE}\n"));
    let greeting = operator.line();
    let theirs = greeting
        .strip_prefix(&format!("HERD 2 {name} operator "))
        .unwrap();
    let text =
        |side: &str| format!("herd-mio link 1\n{side}\noperator\n{name}\n{NONCE}\n{theirs}\n");
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
    let mac = |side: &str| hex(hmac::sign(&key, text(side).as_bytes()).as_ref());
    operator.send(format!("PROOF {}\n", mac("dialler")));
    let answer = operator.line();
    if answer != format!("PROOF {}", mac("acceptor")) {
        return Err(answer);
    }
    let status = operator.line();
    Ok((operator, status))
}

#[test]
fn status_needs_the_secret_and_takes_no_records() {
    let herd = two();
    let servers = herd.start_all();
    let mut client = servers["Riley"].client();
    client.ask("IAMAT x +1+2 3");
    let last = client.ask("IAMAT y +1+2 3");
    servers["Jaquez"]
        .client()
        .wait_for_record("y", |line| line == last);
    let status = |name: &str| status_of(&herd, name, SECRET).unwrap();
    let (riley, jaquez) = (status("Riley"), status("Jaquez"));
    let keys: Vec<String> = values(&riley).into_iter().map(|(key, _)| key).collect();
    assert_eq!(
        keys.join(" "),
        "boot wall records digest clients refused stale ahead behind refused_by_address unproven_displaced unproven_crowded unproven_throttled places_asked places_displaced places_over_second places_over_day evicted new_names_refused version secret plain disk table clocks max_clients forgotten followers phase buffers link"
    );
    assert_eq!(
        (&*value(&riley, "records"), &*value(&riley, "clients")),
        ("2", "1")
    );
    assert!(riley.ends_with(":0:Jaquez") && jaquez.ends_with(":0:Riley"));
    for key in ["records", "digest"] {
        assert_eq!(
            value(&jaquez, key),
            value(&riley, key),
            "the same table, the same digest"
        );
    }
    assert_ne!(
        value(&riley, "boot"),
        value(&jaquez, "boot"),
        "each its own life"
    );
    client.ask("IAMAT y +1+2 4");
    assert_ne!(
        value(&status("Riley"), "digest"),
        value(&riley, "digest"),
        "another table"
    );
    wait_until("what was sent is confirmed", || {
        status("Riley").contains(" link=0:")
    });
    assert_eq!(
        status_of(&herd, "Riley", b"a guess"),
        Err("BYE a wrong proof: the secret that operator proves is not the one here; both need the same".to_owned())
    );
    assert_eq!(client.ask("WHATSAT forged 1 1"), "? WHATSAT forged 1 1");
}

#[test]
fn two_servers_with_the_same_name_are_logged() {
    let herd = two().level("info");
    let jaquez = herd.start("Jaquez");
    let _one = linked_riley(&herd);
    jaquez.wait_for_log("neighbour Riley", ": linked");
    // Another process of that name, while the first one is linked.
    let (mut other, theirs) = pose_as_riley(&herd);
    other.send(format!(
        "PROOF {}\n",
        proof(SECRET, "dialler", NONCE, &theirs)
    ));
    other.line();
    other.line();
    other.send("LIFE 00000000000000bb 1 - 0\n");
    jaquez.wait_for_log("[WARN ] neighbour Riley: another process of that name was linked until now; does Riley run twice?", "");
}

#[test]
fn a_restored_old_data_directory_is_detected() {
    let herd = two().with_top("data_dir = \"data\"").level("info");
    let mut servers = herd.start_all();
    let jaquez = servers.remove("Jaquez").unwrap();
    let riley = servers.remove("Riley").unwrap();
    let mut client = jaquez.client();
    let journal = herd.directory.path().join("data/Jaquez/journal");
    let old = client.ask("IAMAT x +1+2 3");
    let copy = fs::read(&journal).unwrap();
    let new = client.ask("IAMAT x +1+2 4");
    let other = client.ask("IAMAT y +1+2 3");
    assert_ne!(old, new);
    riley.client().wait_for_record("y", |line| line == other);
    jaquez.kill();
    fs::write(&journal, copy).unwrap();

    let jaquez = herd.start("Jaquez");
    jaquez.wait_for_log("[WARN ]", "this server's history was rolled back");
    let mut client = jaquez.client();
    client.wait_for_record("x", |line| line == new);
    client.wait_for_record("y", |line| line == other);
    let later = client.ask("IAMAT z +1+2 3");
    riley.client().wait_for_record("z", |line| line == later);
    riley.wait_for_log(
        "neighbour Jaquez",
        "its history was rolled back; it begins a new life",
    );
}

/// Riley's position in the feed is true only for the table of that time. In an older copy of the
/// journal, x stands before this position, but Riley never received it.
#[test]
fn a_restored_old_data_directory_resends_moved_records() {
    let herd = two()
        .level("info")
        .with_top("data_dir = \"data\"")
        .with(FORGIVING);
    let journal = herd.directory.path().join("data/Jaquez/journal");
    let jaquez = herd.start("Jaquez");
    let mut client = jaquez.client();
    client.ask("IAMAT first +1+2 3");
    let mut riley = linked_riley(&herd);
    riley.line();
    assert_eq!(riley.line(), "SYNC 1");
    drop(riley);
    jaquez.wait_for_log("neighbour Riley", ": lost: ");
    // While Riley is disconnected: x, and after it so many records that they do not fit into one
    // batch.
    let x = client.ask("IAMAT x +1+2 3");
    for number in 0..40 {
        let name = format!("{}{number}", "y".repeat(4_000));
        client.ask(&format!("IAMAT {name} +1+2 3"));
    }
    let copy = fs::read(&journal).unwrap();
    client.ask("IAMAT x +1+2 4");
    // Riley connects again, and gets a part of the feed. x is not in it, because it moved to the
    // end.
    let (mut riley, life) = starting_riley(&herd);
    let boot = life.split(' ').nth(1).unwrap().to_owned();
    riley.send(format!("LIFE 00000000000000aa 1 {boot} 1\n"));
    let heard = loop {
        let line = of_feed(&mut riley);
        assert!(!line.contains(" x "), "{line}");
        if let Some(position) = line.strip_prefix("SYNC ") {
            break position.to_owned();
        }
    };
    drop(riley);
    jaquez.kill();
    fs::write(&journal, copy).unwrap();
    let _jaquez = herd.start("Jaquez");
    let (mut riley, _) = starting_riley(&herd);
    riley.send(format!("LIFE 00000000000000aa 1 {boot} {heard}\n"));
    wait_until("x comes", || of_feed(&mut riley) == x);
}
