//! A stop finishes the commands in progress, sends accepted updates to the neighbours, and frees
//! the ports.

use std::time::{Duration, Instant};

use herd_places::Behaviour;
use herd_testkit::client::{Client, SOON};
use herd_testkit::herd::Herd;
use rustix::process::Signal;

use crate::places::stand_in;

#[test]
fn sigterm_and_sigint_stop_the_server_with_status_0() {
    for signal in [Signal::TERM, Signal::INT] {
        let server = Herd::single().start("Riley");
        let mut idle = server.client();
        idle.send("x\n").expect("? x\n");
        let begun = Instant::now();
        server.signal(signal);
        let (status, log) = server.wait();
        assert_eq!(status.code(), Some(0));
        assert!(log.last().unwrap().ends_with("stopped"), "{log:?}");
        assert!(
            begun.elapsed() < Duration::from_secs(3),
            "{:?}",
            begun.elapsed()
        );
        idle.expect_end();
    }
}

#[test]
fn a_restarted_server_can_bind_its_port_at_once() {
    let herd = Herd::single();
    for _ in 0..3 {
        let server = herd.start("Riley");
        let mut client = server.client();
        client.send("x\n").expect("? x\n");
        server.stop();
        client.expect_end();
    }
}

#[test]
fn a_stop_finishes_the_answer_in_progress() {
    let places = stand_in();
    places.push_behaviour(Behaviour::Hold);
    let server = Herd::single().asking(&places).start("Riley");
    let address = server.address;
    let mut client = server.client();
    client.send("IAMAT x +1+2 3\nWHATSAT x 10 5\nnever answered\n");
    assert!(places.wait_for_requests(1, SOON));
    server.signal(Signal::TERM);
    server.wait_for_log("stopping", "");
    assert!(
        std::net::TcpStream::connect(address).is_err(),
        "nobody new is accepted"
    );
    places.release();
    let at = client.line();
    let (line, json) = client.places();
    assert_eq!(line, at);
    assert!(json.contains("\"OK\""));
    client.expect_end();
    assert_eq!(server.wait().0.code(), Some(0));
}

#[test]
fn a_stop_ends_after_stop_ms() {
    let places = stand_in();
    places.set_behaviour(Behaviour::Hold);
    let server = Herd::single()
        .asking(&places)
        .with("[limits]\nstop_ms = 300\n")
        .start("Riley");
    let mut client = server.client();
    client.send("IAMAT x +1+2 3\nWHATSAT x 10 5\n");
    assert!(places.wait_for_requests(1, SOON));
    let begun = Instant::now();
    server.signal(Signal::TERM);
    assert_eq!(server.wait().0.code(), Some(0));
    assert!(
        begun.elapsed() >= Duration::from_millis(300) && begun.elapsed() < Duration::from_secs(3),
        "{:?}",
        begun.elapsed()
    );
    let at = client.line();
    // The client gets an error instead of no answer.
    let (line, json) = client.places();
    assert_eq!(line, at);
    assert!(json.contains("this server is stopping"), "{json}");
    client.expect_end();
}

#[test]
fn commands_during_a_stop_destroy_no_answer() {
    let server = Herd::single().level("warn").start("Riley");
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(4096).unwrap(); // so replies wait in the server's kernel
    socket.connect(&server.address.into()).unwrap();
    let mut client = Client::of(socket.into());
    let line = format!("{}\n", "x".repeat(1000));
    client.send(line.repeat(100));
    client.expect(format!("? {line}"));
    client.send("one more\n");
    server.signal(Signal::TERM);
    // Commands that were not read yet get no reply. All other replies arrive whole, and no reset
    // cuts them off.
    let rest = client.rest();
    let answer = format!("? {line}");
    assert!(
        rest.chunks(answer.len())
            .all(|piece| piece == answer.as_bytes() || piece == b"? one more\n"),
        "{} bytes came",
        rest.len()
    );
    assert_eq!(server.wait().0.code(), Some(0));
}

#[test]
fn a_second_signal_stops_the_server_at_once() {
    let places = stand_in();
    places.set_behaviour(Behaviour::Hold);
    let server = Herd::single()
        .asking(&places)
        .with("[limits]\nstop_ms = 60000\nplaces_ms = 60000\n")
        .start("Riley");
    let mut client = server.client();
    client.send("IAMAT x +1+2 3\nWHATSAT x 10 5\n");
    assert!(places.wait_for_requests(1, SOON));
    server.signal(Signal::INT);
    server.wait_for_log("stopping", "");
    server.signal(Signal::INT);
    assert_eq!(server.wait().0.code(), Some(0));
}

#[test]
fn a_stop_loses_none_of_ten_thousand_answers() {
    let server = Herd::single().level("warn").start("Riley");
    let mut client = server.client();
    client.send("ready\n").expect("? ready\n");
    let commands = "q\n".repeat(10_000);
    client.send(&commands);
    // The first reply shows that the server is working on these commands.
    client.expect("? q\n");
    server.signal(Signal::TERM);
    let rest = client.rest();
    assert_eq!(rest.len() % "? q\n".len(), 0, "the last answer is whole");
    assert!(rest.chunks(4).all(|answer| answer == b"? q\n"));
    assert_eq!(server.wait().0.code(), Some(0));
}

#[test]
fn a_stop_sends_accepted_updates_to_neighbours() {
    let herd = Herd::new(&["Riley", "Jaquez"], &[("Riley", "Jaquez")]).level("info");
    for round in 0..5 {
        let mut servers = herd.start_all();
        let (riley, jaquez) = (
            servers.remove("Riley").unwrap(),
            servers.remove("Jaquez").unwrap(),
        );
        let mut client = riley.client();
        let mut last = String::new();
        for number in 0..200 {
            last = client.ask(&format!("IAMAT x{number} +1+2 {round}"));
        }
        riley.stop();
        let mut asker = jaquez.client();
        asker.wait_for_record("x199", |line| line == last);
        for number in 0..200 {
            assert!(
                asker
                    .wait_for_record(&format!("x{number}"), |_| true)
                    .starts_with("AT Riley ")
            );
        }
        jaquez.stop();
    }
}

#[test]
fn a_client_that_does_not_read_does_not_delay_the_stop() {
    let server = Herd::single()
        .level("warn")
        .with("[limits]\nstop_ms = 500\n")
        .start("Riley");
    let client: Client = server.client();
    let line = format!("{}\n", "x".repeat(4000)).repeat(2000);
    // Sends until the server stops reading, because this client reads no replies.
    client
        .stream()
        .set_write_timeout(Some(Duration::from_millis(500)))
        .unwrap();
    let _ = std::io::Write::write_all(&mut client.stream(), line.as_bytes());
    let begun = Instant::now();
    server.stop();
    assert!(
        begun.elapsed() < Duration::from_secs(5),
        "{:?}",
        begun.elapsed()
    );
}

#[test]
fn idle_clients_do_not_delay_the_stop() {
    let server = Herd::single().start("Riley");
    let mut clients: Vec<Client> = (0..20).map(|_| server.client()).collect();
    // Half of the clients have their reply, and half have sent nothing.
    for client in clients.iter_mut().step_by(2) {
        client.send("x\n").expect("? x\n");
    }
    let begun = Instant::now();
    server.signal(Signal::TERM);
    assert_eq!(server.wait().0.code(), Some(0));
    assert!(
        begun.elapsed() < Duration::from_secs(1),
        "{:?}",
        begun.elapsed()
    );
    clients.iter_mut().for_each(Client::expect_end);
}
