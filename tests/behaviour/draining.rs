//! A drain: no new clients, the others are closed one after another, then the server stops.

use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use herd_places::Behaviour;
use herd_testkit::client::{Client, SOON, wait_until};
use herd_testkit::herd::{Herd, client_command};
use rustix::process::Signal;

use crate::neighbours::{SECRET, operator, status_of, two, value};
use crate::places::stand_in;

const CLIENTS: usize = 200;
/// So many of them send commands all the time.
const TALKING: usize = 20;

/// Sends commands until the server closes. Returns when that was. Each command is answered whole, or
/// not at all.
fn talk(mut client: Client, number: usize) -> Instant {
    for count in 0.. {
        let command = format!("IAMAT c{number} +1+2 {count}\n");
        match client.try_ask(&command) {
            Some(answer) => assert!(answer.ends_with(&format!(" c{number} +1+2 {count}"))),
            None => break,
        }
    }
    Instant::now()
}

#[test]
fn clients_are_closed_evenly_and_no_answer_is_lost() {
    let herd = two().level("info").with("[limits]\ndrain_ms = 2000\n");
    let mut servers = herd.start_all();
    let server = servers.remove("Riley").unwrap();
    let neighbour = servers.remove("Jaquez").unwrap();
    let address = server.address;
    let mut clients: Vec<Client> = (0..CLIENTS).map(|_| server.client()).collect();
    for client in &mut clients {
        client.send("x\n").expect("? x\n");
    }
    let talking = clients.split_off(CLIENTS - TALKING);
    let talking: Vec<_> = (0..)
        .zip(talking)
        .map(|(number, client)| thread::spawn(move || talk(client, number)))
        .collect();
    let silent: Vec<_> = clients
        .into_iter()
        .map(|mut client| {
            thread::spawn(move || {
                client.expect_end();
                Instant::now()
            })
        })
        .collect();
    let began = Instant::now();
    server.signal(Signal::USR2);
    server.wait_for_log("draining: 200 clients to close within 2000 ms", "");
    wait_until("new clients are refused", || {
        let refused = TcpStream::connect(address);
        refused.is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionRefused)
    });
    server.signal(Signal::USR2);
    server.wait_for_log("SIGUSR2 changes nothing: the server drains", "");
    let silent: Vec<Instant> = silent.into_iter().map(|it| it.join().unwrap()).collect();
    let talking: Vec<Instant> = talking.into_iter().map(|it| it.join().unwrap()).collect();
    assert!(
        silent.iter().max() < talking.iter().max(),
        "silent ones first"
    );
    let mut times: Vec<u128> = silent
        .iter()
        .chain(&talking)
        .map(|end| (*end - began).as_millis())
        .collect();
    times.sort_unstable();
    for (part, range) in [(1, 350..900), (2, 800..1_400), (3, 1_300..1_900)] {
        let time = times[CLIENTS * part / 4];
        assert!(range.contains(&time), "{part} of 4 are closed: {times:?}");
    }
    let (status, log) = server.wait();
    assert_eq!(status.code(), Some(0));
    let log = log.join("\n");
    assert!(
        log.contains("drained: 200 clients told to leave in "),
        "{log}"
    );
    assert!(log.contains(" ms, 0 clients left; stopping"), "{log}");
    assert!(log.ends_with("stopped"), "{log}");
    // The link was there until the end: Jaquez has the last answer that a client got.
    let lost = neighbour.wait_for_log("neighbour Riley ", "lost");
    assert!(lost.contains("stopping"), "{lost}");
    let talked = log.matches("<- IAMAT c").count();
    assert!(talked > TALKING, "they talked");
}

#[test]
fn an_operator_drains_a_server() {
    let herd = two().with("[limits]\ndrain_ms = 60000\n");
    let mut servers = herd.start_all();
    let server = servers.remove("Riley").unwrap();
    let mut clients: Vec<Client> = (0..3).map(|_| server.client()).collect();
    for client in &mut clients {
        client.send("x\n").expect("? x\n");
    }
    assert_eq!(
        value(&status_of(&herd, "Riley", SECRET).unwrap(), "phase"),
        "running"
    );
    let drain = |name: &str| {
        let output = client_command()
            .args(["drain", name, "--config"])
            .arg(herd.config_file())
            .env("HERD_SECRET", "the herd's own secret")
            .output()
            .unwrap();
        let told = String::from_utf8(output.stdout).unwrap();
        let errors = String::from_utf8(output.stderr).unwrap();
        (output.status.code().unwrap_or(-1), told + &errors)
    };
    let first = drain("Riley");
    let wanted = "Riley drains: it closes 3 clients, and stops within 60.0 s\n";
    assert_eq!(first, (0, wanted.to_owned()));
    let log = server.wait_for_log("operator 127.", ": asks this server to drain");
    assert!(log.contains("[INFO ]"), "{log}");
    // One client is closed at once, the next 20 s later.
    let mut closed = 0;
    wait_until("one client is closed", || {
        closed = clients.len() - value_of_clients(&herd);
        closed == 1
    });
    let status = status_of(&herd, "Riley", SECRET).unwrap();
    assert_eq!(value(&status, "phase"), "draining");
    let (code, told) = drain("Riley");
    assert!(
        code == 0
            && told.starts_with("Riley drains already: it closes 2 clients, and stops within 5"),
        "{told}"
    );
    server.wait_for_log(": asks this server to drain, and it drains already", "");
    let output = herd_testkit::herd::status_command()
        .arg("--config")
        .arg(herd.config_file())
        .env("HERD_SECRET", "the herd's own secret")
        .output()
        .unwrap();
    let told = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1), "{told}");
    let problem =
        "draining: Riley drains: it takes no new clients, has 2 clients left, and stops soon\n";
    assert!(told.contains(problem), "{told}");
    // SIGTERM stops it at once.
    let begun = Instant::now();
    server.stop();
    assert!(begun.elapsed() < Duration::from_secs(10));
    let (code, told) = drain("Riley");
    assert!(
        code == 1 && told.starts_with("herd-client: Riley did not say that it drains ("),
        "{told}"
    );
    assert_eq!(drain("Nobody").0, 2);
}

fn value_of_clients(herd: &Herd) -> usize {
    let status = status_of(herd, "Riley", SECRET).unwrap();
    value(&status, "clients").parse().unwrap()
}

#[test]
fn only_an_operator_may_have_a_server_drain() {
    let herd = two();
    let jaquez = herd.start("Jaquez");
    let mut client = jaquez.client();
    client.send("DRAIN\n").expect("? DRAIN\n");
    let mut peer = Client::connect(herd.peers_address("Jaquez"));
    peer.send("DRAIN\n");
    assert_eq!(peer.line(), "BYE not the neighbours' protocol: DRAIN");
    let mut riley = crate::neighbours::linked_riley(&herd);
    riley.send("DRAIN\n");
    let last = riley.rest();
    assert!(
        last.ends_with(b"BYE not the neighbours' protocol: DRAIN\n"),
        "{}",
        last.escape_ascii()
    );
    let (mut operator, _) = operator(&herd, "Jaquez", SECRET).unwrap();
    operator.send("DRAIN now\n");
    assert_eq!(
        operator.line(),
        "BYE not the neighbours' protocol: DRAIN now"
    );
    client.send("x\n").expect("? x\n");
    jaquez.stop();
}

#[test]
fn a_client_that_waits_for_places_gets_its_answer_before_it_is_closed() {
    let places = stand_in();
    places.push_behaviour(Behaviour::Hold);
    let server = Herd::single().asking(&places).start("Riley");
    let mut client = server.client();
    client.send("IAMAT x +1+2 3\nWHATSAT x 10 5\nafter it\n");
    assert!(places.wait_for_requests(1, SOON));
    server.signal(Signal::USR2);
    server.wait_for_log("told to leave", "");
    places.release();
    let at = client.line();
    let (line, json) = client.places();
    assert_eq!(line, at);
    assert!(json.contains("\"OK\""));
    client.expect("? after it\n");
    client.expect_end();
    assert_eq!(server.wait().0.code(), Some(0));
}

#[test]
fn clients_in_the_backlog_are_served_before_the_port_is_closed() {
    let server = Herd::single()
        .with("[limits]\ndrain_ms = 300\n")
        .start("Riley");
    server.signal(Signal::STOP);
    let mut clients: Vec<Client> = (0..100).map(|_| server.client()).collect();
    for client in &mut clients {
        client.send("x\n");
    }
    server.signal(Signal::USR2);
    server.signal(Signal::CONT);
    for client in &mut clients {
        client.expect("? x\n").expect_end();
    }
    assert_eq!(server.wait().0.code(), Some(0));
}

#[test]
fn a_drain_without_clients_stops_at_once() {
    let herd = two();
    let servers = herd.start_all();
    let begun = Instant::now();
    servers["Riley"].signal(Signal::USR2);
    let mut servers = servers;
    assert_eq!(servers.remove("Riley").unwrap().wait().0.code(), Some(0));
    assert!(begun.elapsed() < Duration::from_secs(5));
}
