//! Links to neighbours that the test plays: which neighbours are accepted, what crosses a link, and
//! which record wins.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::net::TcpListener;
use std::time::{Duration, Instant};

use herd_compare::workshop::Program;
use herd_mio::core::base::hex::{Hex, unhex};
use herd_mio::core::base::settings::Secret;
use herd_mio::core::link::proof::{Nonce, Parties, Side};
use herd_testkit::client::{Client, SOON, wait_until};
use herd_testkit::ports;
use herd_testkit::rng::Rng;
use socket2::{Domain, Socket, Type};

use crate::model::{Record, Table};
use crate::scene::{SECRET, Scene, wait_for};

const NONCE: Nonce = [7; 16];

fn prove(secret: &str, speaker: Side, dialler: (&str, &Nonce), acceptor: (&str, &Nonce)) -> String {
    let secret = Secret::new(secret.as_bytes().to_vec());
    Parties { dialler, acceptor }.prove(speaker, &secret)
}

/// A server with the name Jaquez. Riley and Bernard dial it.
pub(crate) fn jaquez(program: &Program) -> Scene {
    Scene::planned(program, |plan| {
        plan.name = "Jaquez".to_owned();
        plan.accept = vec!["Riley".to_owned(), "Bernard".to_owned()];
    })
}

/// Dials with this name, and sends the greeting. Returns Jaquez's nonce too. A wrong peer can do
/// the same.
fn pose_as(name: &str, mut link: Client) -> (Client, Nonce) {
    link.send(format!("HERD 2 {name} Jaquez {}\n", Hex(&NONCE)));
    let greeting = link.line();
    let nonce = greeting
        .strip_prefix(&format!("HERD 2 Jaquez {name} "))
        .and_then(|text| unhex(text.as_bytes()));
    let nonce = nonce.unwrap_or_else(|| panic!("{greeting}"));
    (link, nonce)
}

/// A neighbour that has proved the secret, and has not sent its `LIFE`. Returns Jaquez's `LIFE`
/// too.
pub(crate) fn proven(name: &str, link: Client) -> (Client, String) {
    let (mut link, theirs) = pose_as(name, link);
    let proof = |speaker| prove(SECRET, speaker, (name, &NONCE), ("Jaquez", &theirs));
    link.send(format!("PROOF {}\n", proof(Side::Dialler)));
    assert_eq!(link.line(), format!("PROOF {}", proof(Side::Acceptor)));
    let life = link.line();
    (link, life)
}

/// A linked neighbour in the life `boot`. `known` is the boot id of Jaquez and the position in its
/// feed.
pub(crate) fn linked(name: &str, link: Client, boot: &str, known: &str) -> Client {
    let (mut link, its_life) = proven(name, link);
    life(&its_life);
    link.send(format!("LIFE {boot} {} {known}\n", wall_clock()));
    link
}

pub(crate) fn wall_clock() -> u128 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.unwrap().as_nanos()
}

/// The parts of a `LIFE` line: the sender's boot id, the receiver's boot id as the sender knows it,
/// and the sender's position in the receiver's feed.
fn life(line: &str) -> (String, String, String) {
    let words: Vec<&str> = line.split(' ').collect();
    let ["LIFE", boot, wall, known, position] = words[..] else {
        panic!("{line}")
    };
    assert!(unhex::<8>(boot.as_bytes()).is_some(), "{line}");
    let apart = wall.parse::<u128>().unwrap().abs_diff(wall_clock());
    assert!(apart < 1_000_000_000, "its clock is {apart} ns off");
    assert!(
        known == "-" || unhex::<8>(known.as_bytes()).is_some(),
        "{line}"
    );
    position.parse::<u64>().unwrap();
    (boot.to_owned(), known.to_owned(), position.to_owned())
}

/// Whether a line is a notice, which a neighbour may send at any time, and no record.
fn is_notice(line: &str) -> bool {
    let verbs = ["KEPT ", "LACKS ", "CLOCK "];
    verbs.iter().any(|verb| line.starts_with(verb))
}

/// The records, epochs included, up to a `SYNC`, and the position in that `SYNC`.
pub(crate) fn batch(link: &mut Client) -> (BTreeSet<String>, u64) {
    batch_or_goodbye(link).expect("a SYNC, and no goodbye")
}

fn batch_or_goodbye(link: &mut Client) -> Option<(BTreeSet<String>, u64)> {
    let mut lines = BTreeSet::new();
    loop {
        let line = link.line();
        if is_notice(&line) {
            continue;
        }
        if line.starts_with("BYE ") {
            return None;
        }
        match line.strip_prefix("SYNC ") {
            Some(position) => return Some((lines, position.parse().unwrap())),
            None => assert!(
                Record::parse(&line).is_some() && lines.insert(line.clone()),
                "{line}"
            ),
        }
    }
}

/// Reads until all of these records have come. Each may come only once, and only `SYNC`s and
/// notices may come besides.
pub(crate) fn hear(link: &mut Client, expected: &[&str]) -> u64 {
    let mut heard = BTreeSet::new();
    let expected: BTreeSet<String> = expected.iter().map(|line| (*line).to_owned()).collect();
    loop {
        let (lines, position) = batch(link);
        for line in lines {
            assert!(heard.insert(line.clone()), "twice: {line}");
        }
        if heard.len() >= expected.len() {
            assert_eq!(heard, expected);
            return position;
        }
    }
}

/// Asserts that the server sends `BYE` or closes, and sends nothing secret before.
fn is_refused(mut link: Client, who: &str) {
    while let Some(line) = link.line_or_end() {
        if line.starts_with("BYE ") {
            return;
        }
        assert!(
            !line.starts_with("PROOF")
                && !line.starts_with("LIFE")
                && !line.starts_with("STATUS")
                && !line.starts_with("AT ")
                && !line.starts_with("EPOCH "),
            "{who} was told {line}"
        );
    }
}

/// Tests with neighbours that dial the server.
pub(crate) fn dialled(program: &Program) {
    let scene = jaquez(program);
    the_protocol(&scene);
    confirming(&scene);
    passing_on(&scene);
    versions(&scene);
    wrong_proofs(&scene);
    strangers(&scene);
    nonsense(&scene);
    slow_neighbour(&scene);
    operator(&scene);
    order(&scene);
}

/// The documented protocol.
fn the_protocol(scene: &Scene) {
    let mut client = scene.client();
    let known = client.ask("IAMAT known +1+2 3");
    let mut riley = linked("Riley", scene.neighbour(), "00000000000000aa", "- 0");
    hear(&mut riley, &[&known]);
    // Jaquez takes Riley's record, and does not send it back.
    let taught = "AT Riley +0.000000000 taught\u{e9}\x1b +1+2 7".to_owned();
    riley.send(format!("{taught}\nSYNC 5\n"));
    wait_until("Jaquez believes Riley", || {
        client.send("WHATSAT taught\u{e9}\x1b 1 1\n");
        let is_known = client.line() == taught;
        if is_known {
            client.until(b"\n\n");
        }
        is_known
    });
    // The neighbour gets the record before the client gets its answer. So it is on its way by now.
    let later = client.ask("IAMAT later +1+2 3");
    let position = hear(&mut riley, &[&later]);
    // An older record is not sent.
    client.ask("IAMAT later +1+2 2");
    let latest = client.ask("IAMAT later +1+2 4");
    hear(&mut riley, &[&latest]);
    let known = client.ask("IAMAT known +1+2 4");
    hear(&mut riley, &[&known]);
    assert_eq!(scene.standing().linked, ["Riley"]);

    // Riley returns in the same life. Jaquez sends Riley's position, and the records that Riley
    // lacks, perhaps more. It does not send Riley's own record.
    drop(riley);
    wait_until("Jaquez notices that Riley is gone", || {
        scene.standing().linked.is_empty()
    });
    let boot = scene.standing().boot;
    let (mut riley, its_life) = proven("Riley", scene.neighbour());
    let (its_boot, knows, heard) = life(&its_life);
    assert_eq!(its_boot, boot);
    assert!(
        (knows.as_str(), heard.as_str()) == ("00000000000000aa", "5")
            || (knows.as_str(), heard.as_str()) == ("-", "0"),
        "{knows} {heard}"
    );
    riley.send(format!(
        "LIFE 00000000000000aa {} {boot} {position}\n",
        wall_clock()
    ));
    let (lines, _) = batch(&mut riley);
    assert!(
        lines.contains(&latest) && lines.contains(&known),
        "{lines:?}"
    );
    assert!(!lines.contains(&taught), "{lines:?}");

    // A newer connection replaces the older one. A new life gets all records, also those that came
    // from Riley.
    let mut anew = linked("Riley", scene.neighbour(), "00000000000000bb", "- 0");
    hear(&mut anew, &[&known, &taught, &latest]);
    while riley.line_or_end().is_some() {}
    let last = client.ask("IAMAT last +1+2 3");
    hear(&mut anew, &[&last]);
    drop(anew);
    // A neighbour with a position in another life, or with one beyond the feed's end, gets all
    // records too.
    for says in [
        "ffffffffffffffff 1000000".to_owned(),
        format!("{boot} 1000000"),
    ] {
        let link = |says| linked("Riley", scene.neighbour(), "00000000000000cc", says);
        // A server whose journal can be restored from a copy assumes that this happened. It ends
        // the link, and sends all records over the next one.
        let told =
            batch_or_goodbye(&mut link(&says)).or_else(|| batch_or_goodbye(&mut link("- 0")));
        let all = [&known, &taught, &latest, &last].map(String::clone);
        assert_eq!(told.expect("everything").0, BTreeSet::from(all));
    }
    // An AT line from a client is refused.
    client.refused("AT Riley +0.000000000 forged +1+2 7");
    client.refused("WHATSAT forged 1 1");
}

/// A record from one neighbour goes to the other one: once, and only if it wins.
fn passing_on(scene: &Scene) {
    let mut riley = linked("Riley", scene.neighbour(), "00000000000000d1", "- 0");
    let mut bernard = linked("Bernard", scene.neighbour(), "00000000000000d2", "- 0");
    batch(&mut riley);
    batch(&mut bernard);
    let at = |id: &str, stamp: u32| format!("AT Campbell -0.500000000 {id} +1+2 {stamp}");
    riley.send(format!("{}\nSYNC 1\n", at("passed", 5)));
    hear(&mut bernard, &[&at("passed", 5)]);
    // The same record again and an older one are not passed on. The record after them is.
    let no_news = format!("{}\n{}\n", at("passed", 5), at("passed", 4));
    riley.send(format!("{no_news}{}\nSYNC 2\n", at("of-riley", 6)));
    hear(&mut bernard, &[&at("of-riley", 6)]);
    bernard.send(format!("{no_news}{}\nSYNC 1\n", at("of-bernard", 6)));
    hear(&mut riley, &[&at("of-bernard", 6)]);
    // Either neighbour may send the next version.
    bernard.send(format!("{}\nSYNC 2\n", at("passed", 7)));
    hear(&mut riley, &[&at("passed", 7)]);
    assert_eq!(scene.standing().linked.len(), 2);
}

/// Reads up to the next `KEPT`.
fn kept(link: &mut Client) -> u64 {
    loop {
        if let Some(position) = link.line().strip_prefix("KEPT ") {
            return position.parse().unwrap();
        }
    }
}

/// The server confirms each position once. It accepts a neighbour's confirmations, reports of
/// refused records, and clock.
fn confirming(scene: &Scene) {
    let mut riley = linked("Riley", scene.neighbour(), "00000000000000c1", "- 0");
    let (_, told) = batch(&mut riley);
    riley.send("AT Riley +0.000000000 kept +1+2 7\nSYNC 5\n");
    assert_eq!(kept(&mut riley), 5);
    riley.send("SYNC 5\nSYNC 5\n");
    let clock = wall_clock();
    riley.send(format!(
        "KEPT {told}\nLACKS 2\nCLOCK {clock}\nLACKS 0\nCLOCK {clock}\n"
    ));
    riley.send("AT Riley +0.000000000 kept +1+2 8\nSYNC 6\nSYNC 7\n");
    // Position 6 need not be confirmed, because 7 includes it.
    let position = kept(&mut riley);
    assert!(position == 6 || position == 7, "{position}");
    if position == 6 {
        assert_eq!(kept(&mut riley), 7);
    }
    assert_eq!(
        scene.client().record("kept"),
        "AT Riley +0.000000000 kept +1+2 8"
    );
    assert_eq!(scene.standing().linked, ["Riley"]);
}

/// A server of another protocol version gets a message that names both versions.
fn versions(scene: &Scene) {
    for version in ["1", "3", "02", "two"] {
        let mut link = scene.neighbour();
        link.send(format!("HERD {version} Riley Jaquez {}\n", Hex(&NONCE)));
        is_told_the_versions(&mut link, version);
    }
}

fn is_told_the_versions(link: &mut Client, version: &str) {
    let line = link.line();
    let is_told = line.starts_with("BYE ")
        && line.contains(&format!("version {version} "))
        && line.contains("this server 2");
    assert!(is_told, "{line}");
}

/// Wrong, guessed, reflected and replayed proofs are refused. Records after them are not taken.
fn wrong_proofs(scene: &Scene) {
    let (old, old_nonce) = pose_as("Riley", scene.neighbour());
    drop(old);
    type Forge = fn(&Nonce, &Nonce) -> String;
    let forged: [Forge; 6] = [
        |_, theirs| {
            prove(
                "another secret",
                Side::Dialler,
                ("Riley", &NONCE),
                ("Jaquez", theirs),
            )
        },
        |_, theirs| {
            prove(
                SECRET,
                Side::Acceptor,
                ("Riley", &NONCE),
                ("Jaquez", theirs),
            )
        },
        |old, _| prove(SECRET, Side::Dialler, ("Riley", &NONCE), ("Jaquez", old)),
        |_, theirs| {
            prove(
                SECRET,
                Side::Dialler,
                ("Bernard", &NONCE),
                ("Jaquez", theirs),
            )
        },
        |_, _| String::new(),
        |_, _| "00".repeat(32),
    ];
    for forge in forged {
        let (mut riley, theirs) = pose_as("Riley", scene.neighbour());
        let proof = forge(&old_nonce, &theirs);
        riley.send(format!(
            "PROOF {proof}\nLIFE 00000000000000cc 1 - 0\nAT Riley +0.000000000 forged +1+2 7\n"
        ));
        is_refused(riley, "a forger");
    }
    scene.client().refused("WHATSAT forged 1 1");
}

/// No record is taken before the proof, and only known neighbours may dial.
fn strangers(scene: &Scene) {
    for said in [
        "AT Riley +0.000000000 forged +1+2 7\n",
        "LIFE 00000000000000aa 1 - 0\n",
        "IAMAT forged +1+2 7\n",
        "HERD 2 Campbell Jaquez 000102030405060708090a0b0c0d0e0f\n",
        "HERD 2 Jaquez Jaquez 000102030405060708090a0b0c0d0e0f\n",
        "HERD 2 Riley Juzang 000102030405060708090a0b0c0d0e0f\n",
        "HERD 2 Riley Jaquez 0001\n",
        "HERD 2 Riley Jaquez 000102030405060708090a0b0c0d0e0g\n",
        "\x1b[2J\n",
        "\n",
    ] {
        let mut stranger = scene.neighbour();
        stranger.send(said);
        is_refused(stranger, said);
    }
    let mut stranger = scene.neighbour();
    stranger.send("x".repeat(5000));
    is_refused(stranger, "a long one");
    scene.client().refused("WHATSAT forged 1 1");
}

/// Waits until the server accepts this neighbour. A server may refuse it for a while after an
/// invalid line.
fn let_in(scene: &Scene, name: &str) {
    wait_until("it is let in again", || {
        let mut link = scene.neighbour();
        link.send(format!("HERD 2 {name} Jaquez {}\n", Hex(&NONCE)));
        link.line().starts_with("HERD ")
    });
}

/// The link of a proven neighbour that sends an invalid line is closed.
fn nonsense(scene: &Scene) {
    let names = ["Riley", "Bernard"];
    for (name, said) in names.into_iter().cycle().zip([
        "AT Riley 0.5 x +1+2 7",
        "AT Riley +0.5 x +1+2 7",
        "AT Riley +00.500000000 x +1+2 7",
        "AT Riley -0.000000000 x +1+2 7",
        "AT Riley +0.000000000 x +91+2 7",
        "AT Riley -9.000000000 x +1+2 7",
        "AT  Riley +0.000000000 x +1+2 7",
        "AT Riley +0.000000000 x +1+2 7 ",
        "AT Riley +0.000000000 x +1+2 7\r",
        "AT Riley +0.000000000 x\ty +1+2 7",
        "AT Riley +0.000000000 x +1+2",
        "AT Riley +0.000000000 x +1+2 1000000000000000000",
        "EPOCH 0 AT Riley +0.000000000 x +1+2 7",
        "EPOCH 01 AT Riley +0.000000000 x +1+2 7",
        "EPOCH +1 AT Riley +0.000000000 x +1+2 7",
        "EPOCH -1 AT Riley +0.000000000 x +1+2 7",
        "EPOCH x AT Riley +0.000000000 x +1+2 7",
        "EPOCH 4294967296 AT Riley +0.000000000 x +1+2 7",
        "EPOCH 18446744073709551617 AT Riley +0.000000000 x +1+2 7",
        "EPOCH  1 AT Riley +0.000000000 x +1+2 7",
        "EPOCH 1  AT Riley +0.000000000 x +1+2 7",
        "EPOCH AT Riley +0.000000000 x +1+2 7",
        "EPOCH 1 EPOCH 1 AT Riley +0.000000000 x +1+2 7",
        "EPOCH 1 AT Riley +0.5 x +1+2 7",
        "EPOCH 1 SYNC 3",
        "EPOCH 1 ",
        "EPOCH 1",
        "EPOCH",
        "SYNC x",
        "SYNC",
        "KEPT x",
        "KEPT",
        "LACKS -1",
        "CLOCK",
        "HELLO",
        "",
    ]) {
        let_in(scene, name);
        let mut riley = linked(name, scene.neighbour(), "00000000000000dd", "- 0");
        riley.send(format!("{said}\n"));
        while let Some(line) = riley.line_or_end() {
            if line.starts_with("BYE ") {
                break;
            }
            assert!(
                line.starts_with("SYNC ") || is_notice(&line) || Record::parse(&line).is_some(),
                "{said:?}: {line}"
            );
        }
    }
    names.iter().for_each(|name| let_in(scene, name));
    scene.client().refused("WHATSAT x 1 1");
}

/// A neighbour that does not read for a while then gets the newest record of each client, and not
/// all that it missed.
fn slow_neighbour(scene: &Scene) {
    const ROUNDS: usize = 4000;
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(16 * 1024).unwrap();
    socket.connect(&scene.server().peers.into()).unwrap();
    let mut riley = linked(
        "Riley",
        Client::of(socket.into()),
        "00000000000000ee",
        "- 0",
    );
    wait_until("Riley is linked", || scene.standing().linked == ["Riley"]);
    let id = "slow-".repeat(780);
    let mut commands = String::new();
    for round in 0..ROUNDS {
        commands.push_str(&format!("IAMAT {id} +1+2 {round}\n"));
    }
    let most = commands.len() * 3 / 4;
    let mut client = scene.client();
    let writer = client.send_meanwhile(commands.into_bytes());
    for round in 0..ROUNDS {
        client.expect_at(&format!("AT Jaquez {id} +1+2 {round}"));
    }
    writer.join().unwrap();
    let mut bytes = 0;
    let last = format!(" {}", ROUNDS - 1);
    loop {
        let line = riley.line();
        bytes += line.len() + 1;
        if line.contains(&id) && line.ends_with(&last) {
            break;
        }
    }
    assert!(
        bytes < most,
        "{bytes} bytes waited for a neighbour that did not read"
    );
}

/// Only an operator with the secret gets the server's status.
fn operator(scene: &Scene) {
    let standing = scene.standing();
    let server = scene.server();
    assert!(herd_compare::herd::ask(server.peers, "Jaquez", "another secret").is_err());
    assert!(herd_compare::herd::ask(server.peers, "Juzang", SECRET).is_err());
    let before = standing.clients;
    let clients: Vec<Client> = (0..3).map(|_| scene.client()).collect();
    wait_until("three clients more are counted", || {
        scene.standing().clients == before + 3
    });
    drop(clients);
    wait_until("they are gone", || scene.standing().clients == before);
}

/// Tests with neighbours that the server dials.
pub(crate) fn dialling(program: &Program) {
    // Jaquez is not there yet: its port is bound, but no program listens.
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&ports::free(1).unwrap()[0].into()).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    let scene = Scene::planned(program, |plan| {
        plan.dial = vec![("Jaquez".to_owned(), address)];
    });
    // Most servers log a failed connect. The others have this time for it.
    let patience = Instant::now() + Duration::from_millis(500);
    while !scene.server().log().contains("Jaquez") && Instant::now() < patience {
        std::thread::park_timeout(Duration::from_millis(5));
    }
    socket.listen(16).unwrap();
    let listener = TcpListener::from(socket);
    listener.set_nonblocking(true).unwrap();
    let accept = || {
        let deadline = Instant::now() + SOON;
        let stream = loop {
            match listener.accept() {
                Ok((stream, _)) => break stream,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    assert!(Instant::now() < deadline, "Riley does not dial");
                    std::thread::park_timeout(Duration::from_millis(5));
                }
                Err(error) => panic!("{error}"),
            }
        };
        stream.set_nonblocking(false).unwrap();
        let mut link = Client::of(stream);
        let greeting = link.line();
        let nonce = greeting
            .strip_prefix("HERD 2 Riley Jaquez ")
            .and_then(|text| unhex(text.as_bytes()));
        let nonce: Nonce = nonce.unwrap_or_else(|| panic!("{greeting}"));
        (link, nonce)
    };
    let greeting = |name: &str| format!("HERD 2 {name} Riley {}\n", Hex(&NONCE));
    // Riley dials Jaquez, so Jaquez itself must not dial.
    let mut jaquez = scene.neighbour();
    jaquez.send(format!("HERD 2 Jaquez Riley {}\n", Hex(&NONCE)));
    is_refused(jaquez, "Jaquez");
    // Wrong acceptors: one with another name, one with an old version, one that reflects the proof,
    // one that guesses it.
    let (mut link, _) = accept();
    link.send(greeting("Bernard"));
    is_refused(link, "Bernard");
    let (mut link, _) = accept();
    link.send(format!("HERD 1 Jaquez Riley {}\n", Hex(&NONCE)));
    is_told_the_versions(&mut link, "1");
    let (mut link, nonce) = accept();
    link.send(greeting("Jaquez"));
    let reflected = link.line();
    assert_eq!(
        reflected,
        format!(
            "PROOF {}",
            prove(SECRET, Side::Dialler, ("Riley", &nonce), ("Jaquez", &NONCE))
        )
    );
    link.send(format!(
        "{reflected}\nLIFE 00000000000000aa 1 - 0\nAT Jaquez +0.000000000 forged +1+2 7\n"
    ));
    is_refused(link, "who sends a proof back");
    let (mut link, nonce) = accept();
    link.send(greeting("Jaquez"));
    link.line();
    let guess = prove(
        "another secret",
        Side::Acceptor,
        ("Riley", &nonce),
        ("Jaquez", &NONCE),
    );
    link.send(format!(
        "PROOF {guess}\nLIFE 00000000000000aa 1 - 0\nAT Jaquez +0.000000000 forged +1+2 7\n"
    ));
    is_refused(link, "who guesses");
    scene.client().refused("WHATSAT forged 1 1");

    // The server keeps dialling, and links with a neighbour that knows the secret. The second round
    // is like a lost link.
    let mut client = scene.client();
    let at = client.ask("IAMAT x +1+2 3");
    for (known, boot) in [(1, "00000000000000aa"), (2, "00000000000000bb")] {
        let (mut link, nonce) = accept();
        link.send(greeting("Jaquez"));
        link.line();
        let proof = prove(
            SECRET,
            Side::Acceptor,
            ("Riley", &nonce),
            ("Jaquez", &NONCE),
        );
        link.send(format!("PROOF {proof}\nLIFE {boot} {} - 0\n", wall_clock()));
        let (_, knows, _) = life(&link.line());
        assert!(knows == "-" || knows == "00000000000000aa", "{knows}");
        let (lines, _) = batch(&mut link);
        assert!(lines.contains(&at), "{lines:?}");
        let taught = format!("AT Jaquez +0.000000000 {boot} +1+2 7");
        link.send(format!("{taught}\nSYNC 1\n"));
        wait_until("Riley believes Jaquez", || {
            let standing = scene.standing();
            standing.linked == ["Jaquez"] && standing.records == known + 1
        });
        assert_eq!(client.record(boot), taught);
    }
}

/// Records come in random order, and the table ends like the model's.
fn order(scene: &Scene) {
    let mut table = Table::default();
    // The records that the server has already.
    let mut riley = linked("Riley", scene.neighbour(), "00000000000000f1", "- 0");
    let known = scene.standing().records;
    while table.sum().0 < known {
        if let Some(record) = Record::parse(&riley.line()) {
            table.offer(record);
        }
    }
    let mut rng = Rng::new(11, "records");
    for round in 1..=5 {
        let mut lines = String::new();
        for _ in 0..400 {
            let line = any_record(&mut rng);
            if let Some(record) = Record::parse(&line) {
                table.offer(record);
                lines.push_str(&format!("{line}\n"));
            }
        }
        riley.send(format!("{lines}SYNC {round}\n"));
        let (count, digest) = table.sum();
        wait_for(|| {
            let standing = scene.standing();
            if (standing.records, standing.digest) == (count, digest) {
                return Ok(());
            }
            Err(format!(
                "the table is the model's: {count} records, digest {digest:016x}; it is {} records, digest {:016x}",
                standing.records, standing.digest
            ))
        });
    }
    let mut client = scene.client();
    for id in 0..10 {
        let id = format!("id{id}");
        assert_eq!(client.record(&id), table.line(&id));
    }
}

/// A record with a time that is close to others, or equal in another spelling. Each client gets a
/// few of them.
fn any_record(rng: &mut Rng) -> String {
    let server = rng.pick(&["Riley", "Bernard", "Campbell"]);
    let skew = rng.pick(&[
        "+0.000000000",
        "+0.000000001",
        "+100.500000000",
        "-0.000000001",
        "-59.999999999",
        "-60.000000000",
        "-60.000000001",
        "-60.500000000",
        "-100.000000000",
        "-900.000000000",
        "-899.999999999",
    ]);
    let id = rng.below(200);
    let place = rng.pick(&["+1+2", "-1-2", "+34.068930-118.445127"]);
    let whole = rng.pick(&["160", "1000", "1060", "01060", "1960", "1900"]);
    let fraction = rng.pick(&[
        "",
        "",
        ".0",
        ".000",
        ".000000000000000001",
        ".000000001",
        ".5",
        ".999999999999999999",
        ".000000000999999999",
    ]);
    let epoch = match id % 4 {
        0 => rng.pick(&["", "", "EPOCH 1 ", "EPOCH 2 "]),
        1 => rng.pick(&["", "EPOCH 9 ", "EPOCH 10 ", "EPOCH 4294967295 "]),
        _ => "",
    };
    format!("{epoch}AT {server} {skew} id{id} {place} {whole}{fraction}")
}
