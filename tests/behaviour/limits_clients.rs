//! Limits for clients that no other file tests. They limit how many may wait to be accepted, how
//! much input they may send, and how long the server waits before it closes.

use std::io::{ErrorKind, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use herd_testkit::client::{Client, SOON, wait_until};
use herd_testkit::herd::{Herd, Server};

/// The number of log lines that contain both texts.
fn told(server: &Server, one: &str, other: &str) -> usize {
    let lines = server.log_lines();
    lines
        .iter()
        .filter(|line| line.contains(one) && line.contains(other))
        .count()
}

/// A client with a receive buffer of about `bytes`.
fn small_client(address: SocketAddr, bytes: usize) -> Client {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(bytes).unwrap();
    socket.connect(&address.into()).unwrap();
    Client::of(socket.into())
}

#[test]
fn every_connection_in_the_accept_backlog_is_served() {
    let server = Herd::single()
        .with("[limits]\naccept_backlog = 8\n")
        .start("Riley");
    server.client().send("x\n").expect("? x\n");
    // While the server is stopped, the kernel completes connections up to the backlog plus one
    // (Linux, listen(2)), and no more.
    server.signal(Signal::STOP);
    let mut knocking = Vec::new();
    while knocking.len() < 100 {
        match TcpStream::connect_timeout(&server.address, Duration::from_millis(500)) {
            Ok(stream) => knocking.push(Client::of(stream)),
            Err(error) if error.kind() == ErrorKind::TimedOut => break,
            Err(error) => panic!("{error}"),
        }
    }
    assert!((8..=9).contains(&knocking.len()), "{}", knocking.len());
    server.signal(Signal::CONT);
    for client in &mut knocking {
        client.send("x\n").expect("? x\n");
    }
    server.client().send("x\n").expect("? x\n");
}

#[test]
fn moving_clients_are_correct_with_few_unpacked_records() {
    for places in [0, 1, 2] {
        let herd = Herd::new(&["Riley", "Jaquez"], &[("Riley", "Jaquez")])
            .with(&format!("[limits]\nunpacked_records = {places}\n"));
        let servers = herd.start_all();
        let (mut told, mut asked) = (servers["Riley"].client(), servers["Jaquez"].client());
        let mut last = ["", "", ""].map(str::to_owned);
        // Each client moves often enough to get one of the unpacked places, and to lose it again.
        for step in 1..=60 {
            let who = step % 3;
            last[who] = told.ask(&format!("IAMAT client{who} +{step}.5-{step}.25 {step}.125"));
        }
        for (who, line) in last.iter().enumerate() {
            for client in [&mut told, &mut asked] {
                client.wait_for_record(&format!("client{who}"), |known| known == line);
            }
        }
    }
}

#[test]
fn a_full_table_is_logged_rarely() {
    for limit in ["max_records = 2", "max_record_bytes = 4096"] {
        let server = Herd::single()
            .level("warn")
            .with(&format!("[limits]\n{limit}\n"))
            .start("Riley");
        let mut client = server.client();
        let known = client.ask("IAMAT known +1+2 3");
        assert!(known.starts_with("AT "));
        // One long name uses up the bytes. After that there is no room for another client, however
        // short its name.
        let filler = format!("IAMAT {} +1+2 3", "f".repeat(3500));
        assert!(client.ask(&filler).starts_with("AT "), "{limit}");
        let mut refused = 0;
        for number in 0..1000 {
            let command = format!("IAMAT {number:0>500} +1+2 3");
            let answer = client.ask(&command);
            if answer.starts_with("? ") {
                assert_eq!(answer, format!("? {command}"));
                refused += 1;
            }
        }
        assert!(refused >= 999, "{limit}: {refused} refused");
        let again = client.ask("IAMAT known +1+2 4");
        assert!(again.starts_with("AT "), "{limit}: whom it knows may move");
        assert_eq!(client.wait_for_record("known", |_| true), again);
        server.wait_for_log("no room for its record", "[WARN ]");
        let lines = told(&server, "no room for its record", "limits.max_record");
        assert!(lines <= 10, "{limit}: {lines} lines for {refused} refusals");
    }
}

#[test]
fn unread_input_does_not_destroy_the_last_answer() {
    let server = Herd::single().level("warn").start("Riley");
    let mut client = small_client(server.address, 4096);
    // So many replies that some wait in the server and some in the kernel, but not so many that the
    // server stops reading.
    let line = format!("{}\n", "x".repeat(4000));
    client.send(line.repeat(50));
    client.send("z".repeat(4097));
    // All of this is sent before the first byte is read.
    client.send(vec![b'z'; 8 << 20]);
    client.stream().shutdown(Shutdown::Write).unwrap();
    client.expect(format!("? {line}").repeat(50));
    client
        .expect(format!("? {}\n", "z".repeat(4096)))
        .expect_end();
}

#[test]
fn a_closing_client_is_cut_off_after_linger_ms() {
    let server = Herd::single()
        .with("[limits]\nlinger_ms = 300\n")
        .start("Riley");
    let mut client = server.client();
    client.send("z".repeat(4097));
    client
        .expect(format!("? {}\n", "z".repeat(4096)))
        .expect_end();
    let told = Instant::now();
    // The server reads each byte, but none extends the time.
    while client.stream().write_all(b"x").is_ok() {
        assert!(told.elapsed() < SOON, "still there");
        std::thread::park_timeout(Duration::from_millis(20));
    }
    assert!(
        told.elapsed() >= Duration::from_millis(250),
        "{:?}",
        told.elapsed()
    );
}

/// A server with a high and a low output mark. Its log is long, and goes to a file.
struct Marked {
    herd: Herd,
    server: Server,
}

impl Marked {
    fn start(high: usize, low: usize) -> Marked {
        let herd = Herd::single()
            .with(&format!(
                "[limits]\noutput_high_bytes = {high}\noutput_low_bytes = {low}\n\
                 log_faults_bytes = 1_000_000_000\nlog_client_faults_bytes = 1_000_000_000\n"
            ))
            .level("info");
        let server = Server::start(herd.command("Riley").args(["--log-file", "own.log"]));
        Marked { herd, server }
    }

    /// Connects a client that sends commands until the server stops reading, and reads no replies.
    /// Returns the client, and how many of its commands were run.
    fn deaf(&self) -> (Client, usize) {
        let client = small_client(self.server.address, 65_536);
        let timeout = Some(Duration::from_millis(300));
        client.stream().set_write_timeout(timeout).unwrap();
        let line = format!("{}\n", "x".repeat(4000));
        while client.stream().write_all(line.as_bytes()).is_ok() {}
        let acted_on = self.settled();
        (client, acted_on)
    }

    /// Waits until the server can do nothing more: three later clients are answered, and the log is
    /// written. Returns how many commands of the first client were run.
    fn settled(&self) -> usize {
        let log = || std::fs::read_to_string(self.herd.directory.path().join("own.log")).unwrap();
        for _ in 0..3 {
            let before = log().matches("-> ? mark").count();
            self.server.client().ask("mark");
            wait_until("it is in the log", || {
                log().matches("-> ? mark").count() > before
            });
        }
        log().matches(" <- xxx").count()
    }
}

#[test]
fn the_output_water_marks_pause_and_resume_a_client() {
    const PART: usize = 256 * 1024;
    // With a high mark of 1 byte, only the kernel's buffers hold replies.
    let (_client, little) = Marked::start(1, 0).deaf();
    // The server stops at the high mark. This one is 4 MiB higher, so 4 MiB more are answered.
    let marked = Marked::start(16 * PART, 15 * PART);
    let (mut client, much) = marked.deaf();
    let more = much.saturating_sub(little) * 4003;
    assert!(
        (12 * PART..=20 * PART).contains(&more),
        "{little} and {much} commands: {more} bytes"
    );
    // The server goes on when less than the low mark is waiting. Half of the output is read here,
    // and a sixteenth would do.
    let answer = format!("? {}\n", "x".repeat(4000));
    let half = 8 * PART / answer.len();
    client.expect(answer.repeat(half));
    wait_until("it goes on", || marked.settled() > much);

    // With a low mark of 0 it does not go on yet, because there is still output.
    let marked = Marked::start(16 * PART, 0);
    let (mut client, much) = marked.deaf();
    client.expect(answer.repeat(half));
    assert_eq!(marked.settled(), much);
    client.expect(answer.repeat(much - half));
    wait_until("it goes on", || marked.settled() > much);
}
