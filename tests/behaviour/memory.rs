//! Measures how much memory hostile clients use: clients that stop in the middle of a line, never
//! end a line, or never read.

use std::io::Write as _;
use std::time::{Duration, Instant};

use herd_testkit::client::Client;
use herd_testkit::herd::{Herd, Server};

use crate::neighbours::{linked_riley, two};
use crate::outside::skipped;
use crate::places::stand_in;

/// Measures a server's peak memory use from now on.
struct Peak<'a> {
    server: &'a Server,
    before: u64,
}

impl Peak<'_> {
    fn of(server: &Server) -> Peak<'_> {
        // Resets the peak to the current use (proc(5)).
        std::fs::write(format!("/proc/{}/clear_refs", server.pid()), "5").unwrap();
        Peak {
            server,
            before: server.status("VmRSS"),
        }
    }

    fn grown(&self) -> u64 {
        self.server.status("VmHWM").saturating_sub(self.before)
    }
}

/// A server that has answered commands of each kind, so that all shared buffers exist.
fn warm(herd: Herd) -> Server {
    let server = herd.level("warn").start("Riley");
    for _ in 0..20 {
        let mut client = server.client();
        client.ask("IAMAT x +1+2 3");
        client.send("WHATSAT x 10 20\n").places();
        client.send("x".repeat(4096)).send("\n").line();
    }
    server
}

#[test]
fn ten_thousand_stalled_clients_take_little_memory() {
    const CROWD: u64 = 10_000;
    let most = rlimit::increase_nofile_limit(rlimit::INFINITY).unwrap_or_default();
    if most < CROWD + 200 {
        return skipped(
            "ten thousand clients",
            &format!("a process may open {most} files here"),
        );
    }
    let server = warm(Herd::single().with("[limits]\nline_ms = 600000\n"));
    let peak = Peak::of(&server);
    let half = format!("IAMAT {}", "x".repeat(2000));
    let mut crowd: Vec<Client> = (0..CROWD)
        .map(|_| {
            let mut client = server.client();
            client.send(&half);
            client
        })
        .collect();
    let mut slowest = Duration::ZERO;
    let mut live = server.client();
    for round in 0..200 {
        let asked = Instant::now();
        live.ask(&format!("IAMAT live +1+2 {round}"));
        slowest = slowest.max(asked.elapsed());
    }
    let grown = peak.grown();
    assert!(grown <= 16 * CROWD, "{grown} KiB for {CROWD} clients");
    assert!(
        grown >= CROWD,
        "{grown} KiB: their halves are not there yet"
    );
    assert!(slowest < Duration::from_secs(1), "{slowest:?}");
    // The server still waits for the rest of their lines.
    for client in crowd.iter_mut().step_by(997) {
        client.send(" +1+2 3\n");
        assert!(client.line().starts_with("AT Riley "));
    }
}

#[test]
fn a_line_of_64_mib_takes_less_than_1_mib() {
    let server = warm(Herd::single());
    let peak = Peak::of(&server);
    let client = server.client();
    let megabyte = vec![b'z'; 1 << 20];
    let mut reader = Client::of(client.stream().try_clone().unwrap());
    // After its answer the server reads on for a while, and then closes.
    let sent = (0..64).take_while(|_| client.stream().write_all(&megabyte).is_ok());
    let sent = sent.count();
    reader.expect(format!("? {}\n", "z".repeat(4096)));
    assert!(sent >= 1, "nothing could be sent");
    let grown = peak.grown();
    assert!(grown < 1024, "grown by {grown} KiB");
    server.client().send("x\n").expect("? x\n");
}

#[test]
fn a_client_that_never_reads_takes_less_than_1_mib() {
    let places = stand_in();
    let server = warm(Herd::single().asking(&places));
    let longest = format!(
        "IAMAT {} +1+2 3\n",
        "x".repeat(4080 - "IAMAT  +1+2 3".len())
    );
    for command in [&*longest, "WHATSAT x 10 20\n", "? \n"] {
        server.client().send(&longest).line(); // the memory of its record is not measured
        let peak = Peak::of(&server);
        let deaf = server.client();
        let timeout = Some(Duration::from_millis(700));
        deaf.stream().set_write_timeout(timeout).unwrap();
        let many = command.repeat(65_536 / command.len());
        let mut sent = 0;
        while sent < 100 << 20 && deaf.stream().write_all(many.as_bytes()).is_ok() {
            sent += many.len();
        }
        assert!(sent < 100 << 20, "100 MiB were swallowed");
        let grown = peak.grown();
        assert!(
            grown < 1024,
            "grown by {grown} KiB for {:?}",
            command.split(' ').next()
        );
        server.client().send("x\n").expect("? x\n");
    }
}

#[test]
fn a_neighbour_that_never_reads_takes_little_memory() {
    const RECORDS: usize = 8_000;
    let herd = two().level("warn");
    let jaquez = herd.start("Jaquez");
    let filler = "f".repeat(3_000);
    let commands = (0..RECORDS).map(|number| format!("IAMAT {number}{filler} +1+2 3\n"));
    let mut client = jaquez.client();
    for command in commands {
        client.ask(command.trim_end());
    }
    let peak = Peak::of(&jaquez);
    // Riley has to be sent 24 MB, and reads nothing.
    let mut deaf = linked_riley(&herd);
    deaf.send("CLOCK 2\n");
    jaquez.wait_for_log("neighbour Riley: its clock is ", ""); // so the link is up
    for round in 0..100 {
        client.ask(&format!("IAMAT other +1+2 {round}"));
    }
    let grown = peak.grown();
    assert!(grown < 1024, "grown by {grown} KiB");
    drop(deaf);
}
