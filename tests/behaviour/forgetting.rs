//! An operator has the herd forget a client: no server finds it, whatever happens, until it moves.

use std::time::Instant;

use herd_places::Behaviour;
use herd_testkit::client::{Client, SOON, wait_until};
use herd_testkit::herd::{Herd, Server, client_command};

use crate::expiry::{knows, seconds_ago};
use crate::inspect::herd_journal;
use crate::neighbours::{SECRET, linked_riley, operator, status_of, value};
use crate::places::stand_in;

const THREE: [&str; 3] = ["Riley", "Jaquez", "Juzang"];

/// In a row, so that what Riley says comes to Juzang by Jaquez.
fn three() -> Herd {
    Herd::new(&THREE, &[("Riley", "Jaquez"), ("Jaquez", "Juzang")])
        .with_top("data_dir = \"data\"\n")
}

/// Runs `herd-client forget`. Returns its status, and what it says.
pub(crate) fn forget(herd: &Herd, client: &str, arguments: &[&str]) -> (i32, String) {
    let output = client_command()
        .arg("forget")
        .arg("--config")
        .arg(herd.config_file())
        .args(arguments)
        .env("HERD_SECRET", "the herd's own secret")
        .args(["--", client])
        .output()
        .unwrap();
    let told = String::from_utf8(output.stdout).unwrap();
    let errors = String::from_utf8(output.stderr).unwrap();
    (output.status.code().unwrap_or(-1), told + &errors)
}

fn digest(herd: &Herd, name: &str) -> String {
    value(&status_of(herd, name, SECRET).unwrap(), "digest")
}

/// Says where a client is, and waits until each of these servers knows it.
fn say_everywhere(clients: &mut [Client], name: &str, time: &str) {
    let answer = clients[0].ask(&format!("IAMAT {name} +1+2 {time}"));
    assert!(answer.starts_with("AT "), "{answer}");
    for client in clients {
        client.wait_for_record(name, |line| line == answer);
    }
}

fn no_server_knows(clients: &mut [Client], name: &str) {
    for client in clients {
        wait_until("it is forgotten", || !knows(client, name));
    }
}

#[test]
fn a_client_that_one_server_forgets_is_forgotten_by_all_until_it_moves() {
    let herd = three();
    let servers = herd.start_all();
    let mut clients = THREE.map(|name| servers[name].client());
    say_everywhere(&mut clients, "kiwi", &seconds_ago(0));
    say_everywhere(&mut clients, "ada", &seconds_ago(0));
    let (status, told) = forget(&herd, "kiwi", &["--server", "Juzang"]);
    assert_eq!(
        (status, &*told),
        (
            0,
            "kiwi is forgotten: Juzang has stored a tombstone, and sends it to its neighbours\n\
             it never removes the tombstone, because limits.record_ttl_ms is 0; the next IAMAT of kiwi ends that, and sets a new position\n"
        )
    );
    no_server_knows(&mut clients, "kiwi");
    assert!(clients.iter_mut().all(|client| knows(client, "ada")));
    let status = status_of(&herd, "Riley", SECRET).unwrap();
    assert_eq!(
        (&*value(&status, "records"), &*value(&status, "forgotten")),
        ("1", "1")
    );
    let log = servers["Juzang"].wait_for_log(
        "operator 127.",
        ": forgets client kiwi, which was known: AT Juzang +",
    );
    assert!(log.contains("[INFO ]") && log.contains(" kiwi - "), "{log}");
    // A client that moves is known again, at any server.
    clients.reverse();
    say_everywhere(&mut clients, "kiwi", &seconds_ago(0));
    wait_until("all agree", || {
        let digests = THREE.map(|name| digest(&herd, name));
        digests.iter().all(|digest| *digest == digests[0])
    });
    let status = status_of(&herd, "Riley", SECRET).unwrap();
    assert_eq!(value(&status, "forgotten"), "0");
}

#[test]
fn what_is_forgotten_stays_so_after_a_restart_and_in_the_journal() {
    let herd = three();
    let servers = herd.start_all();
    let mut clients = THREE.map(|name| servers[name].client());
    let time = seconds_ago(0);
    say_everywhere(&mut clients, "kiwi", &time);
    say_everywhere(&mut clients, "ada", &time);
    assert_eq!(forget(&herd, "kiwi", &[]).0, 0);
    no_server_knows(&mut clients, "kiwi");
    for server in servers.into_values() {
        server.stop();
    }
    let journal = |arguments: &[&str]| {
        let output = herd_journal()
            .args(arguments)
            .arg(herd.directory.path().join("data/Juzang"))
            .output()
            .unwrap();
        let told = String::from_utf8(output.stdout).unwrap();
        told + &String::from_utf8(output.stderr).unwrap()
    };
    let listed = journal(&["list", "--client", "kiwi"]);
    assert!(
        listed.starts_with("AT Riley +")
            && listed.ends_with(&format!(" kiwi - {time} (forgotten)\n")),
        "{listed}"
    );
    let all = journal(&["list", "--all"]);
    assert!(all.contains("  forgot   "), "{all}");
    let stats = journal(&["stats"]);
    assert!(
        stats.contains("  clients       1\n  forgotten     1\n"),
        "{stats}"
    );
    assert_eq!(
        journal(&["export", "--format", "iamat"]),
        format!("IAMAT ada +1+2 {time}\nherd-journal: 1 client was forgotten, and left out\n")
    );
    assert!(journal(&["export"]).contains("{\"client\":\"kiwi\",\"forgotten\":true,"));
    let servers = herd.start_all();
    let mut clients = THREE.map(|name| servers[name].client());
    for client in &mut clients {
        assert!(!knows(client, "kiwi") && knows(client, "ada"));
    }
    say_everywhere(&mut clients, "kiwi", &seconds_ago(0));
}

#[test]
fn what_was_said_to_be_forgotten_survives_a_kill_at_once() {
    for fsync in ["always", "interval"] {
        let herd = Herd::single().with_top("data_dir = \"data\"\n");
        let start = || Server::start(herd.command("Riley").args(["--fsync", fsync]));
        let mut server = start();
        for round in 0..5 {
            let mut client = server.client();
            client.ask(&format!("IAMAT kiwi +1+2 {}", seconds_ago(0)));
            assert!(knows(&mut client, "kiwi"));
            let (mut operator, _) = operator(&herd, "Riley", SECRET).unwrap();
            operator.send("FORGET kiwi\n");
            assert_eq!(operator.line(), "FORGOTTEN known 0", "round {round}");
            server.kill();
            server = start();
            assert!(!knows(&mut server.client(), "kiwi"), "round {round}");
        }
    }
}

#[test]
fn a_neighbour_that_was_down_does_not_bring_a_forgotten_client_back() {
    let herd = three();
    let mut servers = herd.start_all();
    let mut clients = THREE.map(|name| servers[name].client());
    say_everywhere(&mut clients, "kiwi", &seconds_ago(0));
    drop(clients);
    servers.remove("Juzang").unwrap().stop();
    let (status, told) = forget(&herd, "kiwi", &[]);
    assert_eq!(status, 0);
    assert!(
        told.starts_with("kiwi is forgotten: Riley ")
            && told.contains("\nJuzang does not answer (")
            && told.ends_with(
                "): it will forget kiwi when it is linked again, if it runs this version\n"
            ),
        "{told}"
    );
    // The others are started anew too, so each link sends what it has.
    for name in ["Riley", "Jaquez"] {
        servers.remove(name).unwrap().stop();
    }
    let juzang = herd.start("Juzang");
    assert!(knows(&mut juzang.client(), "kiwi"), "it cannot know better");
    let others = ["Riley", "Jaquez"].map(|name| herd.start(name));
    let mut clients = [juzang.client(), others[0].client(), others[1].client()];
    no_server_knows(&mut clients, "kiwi");
    wait_until("all agree", || {
        let digests = THREE.map(|name| digest(&herd, name));
        digests.iter().all(|digest| *digest == digests[0])
    });
    assert!(!clients.iter_mut().any(|client| knows(client, "kiwi")));
}

#[test]
fn a_neighbour_is_sent_the_tombstone_and_never_the_old_position() {
    let herd = Herd::new(&["Riley", "Jaquez"], &[("Riley", "Jaquez")]);
    let jaquez = herd.start("Jaquez");
    let old = jaquez.client().ask("IAMAT kiwi +1+2 3");
    let (mut operator, _) = operator(&herd, "Jaquez", SECRET).unwrap();
    operator.send("FORGET kiwi\n").expect("FORGOTTEN known 0\n");
    let mut riley = linked_riley(&herd);
    let line = riley.line();
    assert!(
        line.starts_with("AT Jaquez +") && line.ends_with(" kiwi - 3"),
        "{line}"
    );
    assert_eq!(riley.line(), "SYNC 2");
    // A neighbour that lags says where the client was.
    riley.send(format!("{old}\nAT Riley +0.000000000 other +1+2 3\n"));
    let mut client = jaquez.client();
    wait_until("the other is known", || knows(&mut client, "other"));
    assert!(!knows(&mut client, "kiwi"));
}

#[test]
fn a_whatsat_that_waits_for_places_does_not_tell_a_forgotten_position() {
    let places = stand_in();
    let herd = Herd::single().asking(&places);
    let server = herd.start("Riley");
    let mut client = server.client();
    for name in ["kiwi", "ada"] {
        client.ask(&format!("IAMAT {name} +1+2 {}", seconds_ago(0)));
    }
    places.push_behaviour(Behaviour::Hold);
    let mut other = server.client();
    client.send("WHATSAT kiwi 10 5\n");
    other.send("WHATSAT ada 10 5\n");
    server.wait_for_nth_log(2, "<- WHATSAT", "");
    assert!(places.wait_for_requests(1, SOON));
    let (mut operator, _) = operator(&herd, "Riley", SECRET).unwrap();
    operator.send("FORGET kiwi\n").expect("FORGOTTEN known 0\n");
    places.release();
    client.expect("? WHATSAT kiwi 10 5\n");
    assert!(other.places().0.contains(" ada "), "they shared the answer");
    client.ask(&format!("IAMAT kiwi +1+2 {}", seconds_ago(0)));
    assert!(knows(&mut client, "kiwi"));
}

#[test]
fn a_tombstone_ends_when_its_time_is_over() {
    let herd = three().with("[limits]\nrecord_ttl_ms = 4000\n");
    let servers = herd.start_all();
    let mut clients = THREE.map(|name| servers[name].client());
    say_everywhere(&mut clients, "kiwi", &seconds_ago(0));
    let (_, told) = forget(&herd, "kiwi", &[]);
    assert!(
        told.contains("\nit keeps the tombstone for 4 s; "),
        "{told}"
    );
    no_server_knows(&mut clients, "kiwi");
    let forgotten = |name: &str| value(&status_of(&herd, name, SECRET).unwrap(), "forgotten");
    wait_until("no server has a tombstone", || {
        THREE.iter().all(|name| forgotten(name) == "0")
    });
    assert!(!clients.iter_mut().any(|client| knows(client, "kiwi")));
}

#[test]
fn a_client_that_a_server_does_not_know_is_forgotten_for_the_others() {
    let herd = Herd::single().with("[limits]\nrecord_ttl_ms = 86400000\n");
    let server = herd.start("Riley");
    let (status, told) = forget(&herd, "nobody", &[]);
    assert_eq!(
        (status, &*told),
        (
            0,
            "Riley did not know nobody; it has stored a tombstone for nobody, and sends it to its neighbours, which may know it\n\
             it keeps the tombstone for 86400 s; the next IAMAT of nobody ends that, and sets a new position\n"
        )
    );
    // Its clock may be a little behind.
    let mut client = server.client();
    client.ask(&format!("IAMAT nobody +1+2 {}", seconds_ago(50)));
    assert!(knows(&mut client, "nobody"));
}

#[test]
fn an_operator_that_asks_for_nothing_or_for_what_cannot_be_is_told_so() {
    let herd = Herd::single().with("[limits]\nmax_records = 1\nlinger_ms = 300\n");
    let server = herd.start("Riley");
    let forget_of = |name: &[u8]| {
        let (mut operator, _) = operator(&herd, "Riley", SECRET).unwrap();
        operator.send([b"FORGET ", name, b"\n"].concat());
        let answer = operator.line();
        operator.expect_end();
        answer
    };
    let no_name =
        "BYE that cannot be the name of a client: it has white space, or more than 4083 bytes";
    for bad in [&b"a\tb"[..], b"a\r", b"", &[b'x'; 4_084]] {
        assert_eq!(forget_of(bad), no_name, "{}", bad.escape_ascii());
    }
    assert_eq!(
        forget_of(b"a b"),
        "BYE not the neighbours' protocol: FORGET a b"
    );
    assert_eq!(forget_of(&[b'x'; 4_083]), "FORGOTTEN unknown 0");
    assert_eq!(
        forget_of(b"y"),
        "BYE no room to write down that a client is forgotten: the disk is full, or limits.max_records or limits.max_record_bytes is reached"
    );
    assert_eq!(forget(&herd, "a b", &[]).0, 2);
    assert_eq!(forget(&herd, "x", &["--server", "Nobody"]).0, 2);
    let (status, told) = forget(&herd, "y", &[]);
    assert!(
        status == 1 && told.contains("no room to write down"),
        "{told}"
    );
    // A client cannot say it, and an operator that says nothing is let go.
    let mut client = server.client();
    client.send("FORGET x\nIAMAT x - 3\n");
    client.expect("? FORGET x\n? IAMAT x - 3\n");
    let (mut silent, _) = operator(&herd, "Riley", SECRET).unwrap();
    silent.expect_end();
    server.stop();
    let stopped = Instant::now();
    let (status, told) = forget(&herd, "x", &[]);
    assert!(
        status == 1
            && told.starts_with("herd-client: nothing is forgotten: Riley does not answer ("),
        "{told}"
    );
    assert!(stopped.elapsed().as_secs() < 10);
}
