//! Many clients, much input, slow readers: other clients are still served, and memory does not
//! grow.

use std::io::Write;
use std::net::Shutdown;
use std::time::{Duration, Instant};

use herd_testkit::client::{Client, wait_until, without_skew};
use herd_testkit::herd::{Herd, Server};

use crate::neighbours::{SECRET, status_of, value};
use crate::turns::connect_from;

fn quiet() -> Server {
    Herd::single().level("warn").start("Riley")
}

#[test]
fn two_hundred_clients_are_served_at_once() {
    let server = quiet();
    let mut clients: Vec<Client> = (0..200).map(|_| server.client()).collect();
    for round in 0..5 {
        for (number, client) in clients.iter_mut().enumerate() {
            client.send(format!("IAMAT c{number} +1+2 {round}\n"));
        }
        for (number, client) in clients.iter_mut().enumerate() {
            assert_eq!(
                without_skew(&client.line()),
                format!("AT Riley c{number} +1+2 {round}")
            );
        }
    }
}

#[test]
fn ten_thousand_pipelined_commands_are_answered() {
    let server = quiet();
    let mut client = server.client();
    let commands: String = (0..10_000)
        .map(|number| format!("IAMAT x{number} +1+2 {number}.5\n"))
        .collect();
    let writer = std::thread::spawn({
        let mut stream = client.stream().try_clone().unwrap();
        move || {
            stream.write_all(commands.as_bytes()).unwrap();
            stream.shutdown(Shutdown::Write).unwrap();
        }
    });
    for number in 0..10_000 {
        assert_eq!(
            without_skew(&client.line()),
            format!("AT Riley x{number} +1+2 {number}.5")
        );
    }
    client.expect_end();
    writer.join().unwrap();
}

#[test]
fn a_client_that_never_reads_is_paused_and_takes_little_memory() {
    let server = quiet();
    let before = server.status("VmRSS");
    let mut deaf = server.client();
    deaf.stream()
        .set_write_timeout(Some(Duration::from_millis(500)))
        .unwrap();
    let line = format!("{}\n", "x".repeat(4000));
    // The kernel's buffers in both directions fill up. Then the server stops reading, and this
    // write times out.
    let sent = (0..20_000)
        .take_while(|_| deaf.stream().write_all(line.as_bytes()).is_ok())
        .count();
    assert!(sent < 20_000, "80 MB were swallowed");
    let grown = server.status("VmRSS").saturating_sub(before);
    assert!(grown < 1024, "grown by {grown} KiB");
    let asked = Instant::now();
    server.client().send("x\n").expect("? x\n");
    assert!(asked.elapsed() < Duration::from_secs(1));
    // No reply is lost: the client gets all of them when it reads.
    deaf.expect(format!("? {line}").repeat(sent));
}

#[test]
fn a_client_paused_at_its_last_command_is_resumed() {
    let server = Herd::single()
        .level("warn")
        .with("[limits]\noutput_high_bytes = 10000\noutput_low_bytes = 100\n")
        .start("Riley");
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    socket.connect(&server.address.into()).unwrap();
    let mut client = Client::of(socket.into());
    client
        .stream()
        .set_write_timeout(Some(Duration::from_millis(300)))
        .unwrap();
    let line = format!("{}\n", "x".repeat(4000));
    // One command in each segment, with time for the server to answer it, until the server stops
    // reading.
    let mut sent = 0;
    while sent < 5000 && client.stream().write_all(line.as_bytes()).is_ok() {
        sent += 1;
        std::thread::park_timeout(Duration::from_micros(200));
    }
    client.expect(format!("? {line}").repeat(sent));
    // The write that timed out has sent a part of its line. The server answers this part, too.
    client.stream().shutdown(Shutdown::Write).unwrap();
    let rest = client.rest();
    assert!(
        rest.len() <= line.len() + 2 && rest.ends_with(b"\n"),
        "{} bytes",
        rest.len()
    );
}

#[test]
fn a_client_that_does_not_read_is_closed_after_output_stall_ms() {
    let server = Herd::single()
        .level("warn")
        .with("[limits]\noutput_stall_ms = 200\n")
        .start("Riley");
    let deaf = server.client();
    deaf.stream()
        .set_write_timeout(Some(Duration::from_millis(300)))
        .unwrap();
    let line = format!("{}\n", "x".repeat(4000));
    while deaf.stream().write_all(line.as_bytes()).is_ok() {}
    server.wait_for_log("closing: it did not read its answers for 200 ms", "");
}

#[test]
fn a_flooding_client_does_not_delay_others() {
    let server = quiet();
    let flood = server.client();
    let mut reader = flood.stream().try_clone().unwrap();
    let mut writer = flood.stream().try_clone().unwrap();
    let drain = std::thread::spawn(move || std::io::copy(&mut reader, &mut std::io::sink()));
    let pump = std::thread::spawn(move || {
        let commands = "IAMAT flood +1+2 3\n".repeat(3000);
        while writer.write_all(commands.as_bytes()).is_ok() {}
    });
    let mut other = server.client();
    let mut slowest = Duration::ZERO;
    for round in 0..100 {
        let asked = Instant::now();
        other.ask(&format!("IAMAT other +1+2 {round}"));
        slowest = slowest.max(asked.elapsed());
    }
    flood.stream().shutdown(Shutdown::Both).unwrap();
    pump.join().unwrap();
    // Replies that arrive after the shutdown cause a reset, so `drain` may end with an error.
    let _ = drain.join().unwrap();
    assert!(slowest < Duration::from_secs(1), "{slowest:?}");
}

#[test]
fn an_idle_client_takes_less_than_1_kib() {
    let server = quiet();
    let mut clients: Vec<Client> = (0..100).map(|_| server.client()).collect();
    for client in &mut clients {
        client.send("x\n").expect("? x\n");
    }
    let before = server.status("VmRSS");
    let count = 4000;
    for _ in 0..count {
        let mut client = server.client();
        client.send("x\n").expect("? x\n");
        clients.push(client);
    }
    let grown = server.status("VmRSS").saturating_sub(before);
    assert!(grown < count, "{grown} KiB for {count} clients");
}

#[test]
fn a_burst_of_connects_and_disconnects_leaks_no_descriptor() {
    let server = quiet();
    let descriptors = || {
        std::fs::read_dir(format!("/proc/{}/fd", server.pid()))
            .unwrap()
            .count()
    };
    server
        .client()
        .send("x\n")
        .finish()
        .expect("? x\n")
        .expect_end();
    wait_until("the first client is gone", || descriptors() > 0);
    let before = descriptors();
    for round in 0..300 {
        let mut client = server.client();
        match round % 4 {
            0 => drop(client.send("IAMAT x +1+2 3\n")),
            1 => drop(client.send("half a li")),
            2 => socket2::SockRef::from(client.stream())
                .set_linger(Some(Duration::ZERO))
                .unwrap(),
            _ => drop(client.send("mine\n").expect("? mine\n")),
        }
    }
    wait_until("every descriptor is closed", || descriptors() <= before);
    server.client().send("x\n").expect("? x\n");
}

#[test]
fn connected_clients_survive_descriptor_exhaustion() {
    let herd = Herd::single();
    let mut command = std::process::Command::new("sh");
    command
        .arg("-c")
        .arg("ulimit -n 40; exec \"$@\"")
        .arg("sh")
        .arg(env!("CARGO_BIN_EXE_herd-mio"));
    command
        .args(["Riley", "--log-file", "-", "--config"])
        .arg(herd.config_file())
        .env("HERD_SECRET", "x");
    let server = Server::start(&mut command);
    let mut first = server.client();
    first.send("x\n").expect("? x\n");
    // The kernel accepts all connections, but the server has no descriptors for all of them.
    let crowd: Vec<Client> = (0..60).map(|_| server.client()).collect();
    server.wait_for_log(
        "cannot accept connections: Too many open files",
        "trying again",
    );
    first.send("still\n").expect("? still\n");
    drop(crowd);
    server.client().send("x\n").expect("? x\n");
}

#[test]
fn clients_above_max_clients_are_rejected() {
    let server = Herd::single()
        .with("[limits]\nmax_clients = 3\n")
        .start("Riley");
    let mut clients: Vec<Client> = (0..3).map(|_| server.client()).collect();
    for client in &mut clients {
        client.send("x\n").expect("? x\n");
    }
    let mut refused = server.client();
    refused
        .send("IAMAT late +1+2 3\n")
        .expect("? there are 3 clients, which is limits.max_clients\n")
        .expect_end();
    server.wait_for_log(
        "refused: there are 3 clients, which is limits.max_clients; 1 so far",
        "",
    );
    // Two hundred more refused clients cost only a few lines of the log.
    let crowd: Vec<Client> = (0..200).map(|_| server.client()).collect();
    server.wait_for_log("which is limits.max_clients; 128 so far", "WARN");
    let lines = server.log_lines();
    let told = lines
        .iter()
        .filter(|line| line.contains("[WARN ]") && line.contains("refused: there are 3"));
    assert!((1..=10).contains(&told.count()), "{lines:?}");
    clients[0].send("x\n").expect("? x\n");
    drop((crowd, refused));
    clients.pop();
    wait_until("there is room again", || {
        let client = server.client();
        let _ = client.stream().write_all(b"x\n");
        matches!(
            std::io::Read::read(&mut client.stream(), &mut [0; 4]),
            Ok(4)
        )
    });
}

#[test]
fn clients_above_max_clients_per_address_are_rejected() {
    let server = Herd::single()
        .with("[limits]\nmax_clients_per_address = 2\n")
        .start("Riley");
    let _two = [server.client(), server.client()].map(|mut client| {
        client.send("x\n").expect("? x\n");
        client
    });
    server.client().send("x\n").expect(
        "? there are 2 clients from its address, which is limits.max_clients_per_address\n",
    );
    connect_from([127, 0, 0, 77], server.address)
        .send("x\n")
        .expect("? x\n");
}

#[test]
fn status_counts_clients_refused_by_address() {
    let herd = Herd::new(&["Riley", "Jaquez"], &[("Riley", "Jaquez")])
        .with("[limits]\nmax_clients_per_address = 1\n");
    let jaquez = herd.start("Jaquez");
    let mut one = jaquez.client();
    one.send("x\n").expect("? x\n");
    for _ in 0..3 {
        jaquez.client().expect(
            "? there are 1 clients from its address, which is limits.max_clients_per_address\n",
        );
    }
    let status = status_of(&herd, "Jaquez", SECRET).unwrap();
    assert_eq!(value(&status, "refused_by_address"), "3");
}

#[test]
fn records_above_max_records_are_refused() {
    let server = Herd::single()
        .with("[limits]\nmax_records = 2\n")
        .start("Riley");
    let mut client = server.client();
    assert!(client.ask("IAMAT a +1+2 3").starts_with("AT "));
    assert!(client.ask("IAMAT b +1+2 3").starts_with("AT "));
    assert_eq!(client.ask("IAMAT c +1+2 3"), "? IAMAT c +1+2 3");
    assert!(
        client.ask("IAMAT a +1+2 4").starts_with("AT "),
        "whom it knows may still move"
    );
    server.wait_for_log("no room for its record: limits.max_records or limits.max_record_bytes; 2 records are there", "");
}

#[test]
fn an_idle_server_uses_almost_no_cpu() {
    let herd = Herd::preset("2021");
    let servers = herd.start_all();
    let ticks = |server: &Server| {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", server.pid())).unwrap();
        let fields: Vec<&str> = stat
            .rsplit_once(')')
            .unwrap()
            .1
            .split_whitespace()
            .collect();
        fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
    };
    let wakes = |server: &Server| server.status("voluntary_ctxt_switches");
    let before: Vec<_> = servers
        .values()
        .map(|server| (ticks(server), wakes(server)))
        .collect();
    let until = Instant::now() + Duration::from_secs(3);
    while Instant::now() < until {
        std::thread::park_timeout(until.saturating_duration_since(Instant::now()));
    }
    for (server, (ticks_before, wakes_before)) in servers.values().zip(before) {
        // In 3 s there is one heartbeat in each direction of each link, and the server reads those
        // of its neighbours.
        assert!(
            wakes(server) - wakes_before < 40,
            "{} wake-ups in 3 s",
            wakes(server) - wakes_before
        );
        assert!(
            ticks(server) - ticks_before <= 1,
            "{} ticks of CPU in 3 s",
            ticks(server) - ticks_before
        );
    }
}
