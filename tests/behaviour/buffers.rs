//! Clients that ask and do not read fill buffers. All buffers together have one budget, and those that hold most are closed.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use herd_testkit::client::{Client, SOON, wait_until};
use herd_testkit::herd::{Herd, Server, status_command};
use rustix::process::Signal;

use crate::neighbours::{SECRET, linked_riley, status_of, two, value};
use crate::outside::{skipped, wrapped};
use crate::places::stand_in;
use crate::tls::{Authority, FOR_CLIENTS, secure_client, secure_client_over};

/// A connection for which the kernels at both ends buffer little: with the segments of loopback, they would take megabytes.
fn small_socket(address: SocketAddr) -> TcpStream {
    let socket = socket2::Socket::new(
        socket2::Domain::for_address(address),
        socket2::Type::STREAM,
        None,
    )
    .unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    socket.set_tcp_mss(1460).unwrap();
    socket.connect(&address.into()).unwrap();
    socket.into()
}

/// Clients that send commands and read nothing.
#[derive(Default)]
struct Flood {
    sockets: Vec<Option<TcpStream>>,
    sent: Vec<usize>,
    closed: usize,
}

impl Flood {
    /// Adds so many clients.
    fn connect(&mut self, address: SocketAddr, count: usize) {
        for _ in 0..count {
            let socket = small_socket(address);
            socket.set_nonblocking(true).unwrap();
            self.sockets.push(Some(socket));
            self.sent.push(0);
        }
    }

    /// Each client sends `commands` once, as far as the server takes them. After each round of all clients, does something else. Ends
    /// when the server has closed `wanted` of all clients.
    fn send(&mut self, commands: &[u8], wanted: usize, mut meanwhile: impl FnMut()) {
        const OFTEN: usize = 16;
        let (began, mut rounds) = (Instant::now(), 0);
        while self.closed < wanted {
            rounds += 1;
            let closed = self.closed;
            assert!(began.elapsed() < 6 * SOON, "only {closed} were closed");
            for (place, sent) in self.sockets.iter_mut().zip(&mut self.sent) {
                let Some(socket) = place else {
                    continue;
                };
                // An empty line has no answer. It only shows whether the connection is there.
                let rest = match &commands[*sent..] {
                    [] if rounds % OFTEN > 0 => continue,
                    [] => b"\n",
                    rest => rest,
                };
                match socket.write(rest) {
                    Ok(count) => *sent = commands.len().min(*sent + count),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                    Err(_) => {
                        self.closed += 1;
                        *place = None;
                    }
                }
            }
            meanwhile();
        }
    }
}

/// A client with another address than the others.
fn from_elsewhere(address: SocketAddr) -> Client {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    let elsewhere: SocketAddr = "127.0.0.99:0".parse().unwrap();
    socket.bind(&elsewhere.into()).unwrap();
    socket.connect(&address.into()).unwrap();
    Client::of(socket.into())
}

/// A client that asks, reads, and waits for each answer.
struct Polite {
    client: Client,
    asked: u32,
    slowest: Duration,
}

impl Polite {
    fn new(server: &Server) -> Polite {
        Polite {
            client: from_elsewhere(server.address),
            asked: 0,
            slowest: Duration::ZERO,
        }
    }

    fn ask(&mut self) {
        self.asked += 1;
        let began = Instant::now();
        let answer = self
            .client
            .ask(&format!("IAMAT polite +1+2 {}", self.asked));
        assert!(answer.starts_with("AT Riley "), "{answer}");
        self.slowest = self.slowest.max(began.elapsed());
    }
}

/// Commands of so many bytes. They are long, so that there are few of them.
fn commands(bytes: usize) -> Vec<u8> {
    let name = "x".repeat(1000);
    let junk = format!("{}\n", "x".repeat(4000)).repeat(4);
    let some = format!("IAMAT {name} +1+2 3\nWHATSAT {name}y 10 5\n{junk}");
    some.repeat(bytes / some.len()).into_bytes()
}

fn mib(kib: u64) -> u64 {
    kib / 1024
}

#[test]
fn clients_that_never_read_are_closed_and_others_are_served() {
    const CLIENTS: usize = 400;
    const BUDGET: u64 = 16 << 20;
    let herd = two().level("info").with(&format!(
        "[limits]\nbuffer_bytes = {BUDGET}\nlink_silence_ms = 60000\nlog_faults_ms = 300\n"
    ));
    let jaquez = herd.start("Jaquez");
    jaquez.wait_for_log(
        "buffers of connections: 16777216 bytes, from the config",
        "",
    );
    // A neighbour that reads nothing: its link stalls, and stays.
    let mut stalled = linked_riley(&herd);
    let mut polite = from_elsewhere(jaquez.address);
    let mut rounds = 0;
    let mut slowest = Duration::ZERO;
    std::fs::write(format!("/proc/{}/clear_refs", jaquez.pid()), "5").unwrap();
    let before = jaquez.status("VmRSS");
    let mut flood = Flood::default();
    flood.connect(jaquez.address, CLIENTS);
    flood.send(&commands(600_000), CLIENTS * 3 / 4, || {
        rounds += 1;
        let began = Instant::now();
        let answer = polite.ask(&format!("IAMAT polite +1+2 {rounds}"));
        assert!(answer.starts_with("AT Jaquez "), "{answer}");
        slowest = slowest.max(began.elapsed());
    });
    let grown = jaquez.status("VmHWM").saturating_sub(before);
    eprintln!("grown {grown} KiB, slowest {slowest:?}, rounds {rounds}");
    assert!(mib(grown) <= 3 * (BUDGET >> 20), "grown by {grown} KiB");
    assert!(slowest < Duration::from_secs(2), "{slowest:?}");
    // The link is the one that was there before.
    stalled.send("CLOCK 2\n");
    jaquez.wait_for_log("neighbour Riley", "its clock is ");
    polite.send("IAMAT after +1+2 3\n").line();
    while !stalled.line().contains(" after +1+2 ") {}
    let one = jaquez.wait_for_log(": closing: the buffers of all connections are full (limits.buffer_bytes), and it has held ", "");
    assert!(one.contains("] client "), "{one}");
    let told = jaquez.wait_for_log(
        "the buffers of all connections were full (limits.buffer_bytes, 16777216 bytes): closed ",
        "",
    );
    assert!(told.contains(" clients, which freed "), "{told}");
    let counted = |line: &String| {
        let (_, rest) = line.split_once("bytes): closed ")?;
        rest.split(' ').next()?.parse::<usize>().ok()
    };
    wait_until("each closing is in a summary", || {
        let lines = jaquez.log_lines();
        let told: usize = lines.iter().filter_map(counted).sum();
        let status = status_of(&herd, "Jaquez", b"the herd's own secret").unwrap();
        assert!(value(&status, "buffers").contains(":16777216:"), "{status}");
        told >= CLIENTS * 3 / 4 && value(&status, "evicted") == told.to_string()
    });
    let lines = jaquez.log_lines();
    assert!(
        !lines.iter().any(|line| line.contains(": lost: ")),
        "{lines:?}"
    );
}

#[test]
fn a_process_with_little_memory_survives_the_flood_that_the_default_limits_allow() {
    const CLIENTS: usize = 1_000;
    let most = rlimit::increase_nofile_limit(rlimit::INFINITY).unwrap_or_default();
    if most < CLIENTS as u64 + 200 {
        return skipped(
            "a thousand clients",
            &format!("a process may open {most} files here"),
        );
    }
    let herd = Herd::single().level("warn");
    let command = herd.command("Riley");
    let limited = ["sh", "-c", "ulimit -v 393216 && exec \"$@\"", "sh"];
    let server = Server::start(&mut wrapped(&limited, &[], &command));
    let mut polite = Polite::new(&server);
    let mut flood = Flood::default();
    flood.connect(server.address, CLIENTS);
    flood.send(&commands(600_000), CLIENTS / 2, || polite.ask());
    eprintln!(
        "peak {} KiB, size {} KiB, slowest {:?}",
        server.status("VmHWM"),
        server.status("VmPeak"),
        polite.slowest
    );
    assert!(mib(server.status("VmHWM")) < 192);
    polite.ask();
    drop(flood);
    drop(polite);
    server.stop();
}

#[test]
fn clients_over_tls_that_never_read_are_closed_and_idle_ones_stay() {
    const BUDGET: u64 = 8 << 20;
    let herd = Herd::single()
        .level("warn")
        .with(FOR_CLIENTS)
        .with(&format!("[limits]\nbuffer_bytes = {BUDGET}\n"));
    let authority = Authority::new();
    authority.certify(herd.directory.path(), "clients", "localhost", false);
    let server = herd.start("Riley");
    let mut first = secure_client(server.address, &authority);
    first.write_all(b"x\n").unwrap();
    let mut answer = [0; 4];
    first.read_exact(&mut answer).unwrap();
    let before = server.status("VmRSS");
    let mut idle: Vec<_> = (0..100)
        .map(|_| {
            let mut client = secure_client(server.address, &authority);
            client.write_all(b"x\n").unwrap();
            client.read_exact(&mut [0; 4]).unwrap();
            client
        })
        .collect();
    eprintln!(
        "an idle client over TLS: {} bytes",
        (server.status("VmRSS") - before) * 1024 / 100
    );
    let many = commands(350_000);
    let mut deaf: Vec<_> = (0..60)
        .map(|_| {
            let mut client = secure_client_over(small_socket(server.address), &authority);
            let timeout = Some(Duration::from_millis(100));
            client.sock.set_write_timeout(timeout).unwrap();
            let _ = client.write_all(&many);
            client
        })
        .collect();
    let told = server.wait_for_log("the buffers of all connections were full", "");
    assert!(
        told.contains("closed ") && told.contains(" client"),
        "{told}"
    );
    for client in idle.iter_mut().chain([&mut first]) {
        client.write_all(b"y\n").unwrap();
        client.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"? y\n");
    }
    deaf.clear();
    let line = server.log_lines();
    assert!(
        !line.iter().any(|line| line.contains("TLS handshake")),
        "{line:?}"
    );
}

#[test]
fn idle_clients_over_tls_take_no_connection_from_others() {
    // Room for 85.
    let herd = Herd::single()
        .with(FOR_CLIENTS)
        .with("[limits]\nbuffer_bytes = 1048576\n");
    let authority = Authority::new();
    authority.certify(herd.directory.path(), "clients", "localhost", false);
    let server = herd.start("Riley");
    server.wait_for_log(
        "the buffers have room for 85 clients over TLS, more are refused; ",
        "[WARN ]",
    );
    let mut first = secure_client(server.address, &authority);
    let mut ask = || {
        first.write_all(b"y\n").unwrap();
        let mut answer = [0; 4];
        first.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"? y\n");
    };
    let mut idle = Vec::new();
    for _ in 0..84 {
        let mut client = secure_client(server.address, &authority);
        client.write_all(b"x\n").unwrap();
        client.read_exact(&mut [0; 4]).unwrap();
        idle.push(client);
        ask();
    }
    for _ in 0..100 {
        // It is sent an alert in place of a handshake.
        let mut refused = TcpStream::connect(server.address).unwrap();
        refused.set_read_timeout(Some(SOON)).unwrap();
        let mut first = [0; 1];
        refused.read_exact(&mut first).unwrap();
        assert_eq!(first[0], 0x15);
    }
    ask();
    server.wait_for_log(
        "there are 85 clients, and limits.buffer_bytes has room for no more over TLS; 64 so far",
        "[WARN ]",
    );
    let status = status_of(&herd, "Riley", SECRET).unwrap();
    assert_eq!(
        (
            &*value(&status, "clients"),
            &*value(&status, "max_clients"),
            &*value(&status, "evicted")
        ),
        ("85", "85", "0")
    );
    idle.pop();
    wait_until("a place is free", || {
        value(&status_of(&herd, "Riley", SECRET).unwrap(), "clients") == "84"
    });
    secure_client(server.address, &authority)
        .write_all(b"x\n")
        .unwrap();
}

#[test]
fn a_client_that_waits_for_places_gets_its_answer_in_a_flood() {
    let places = stand_in();
    let herd = Herd::single()
        .level("warn")
        .asking(&places)
        .with("[limits]\nbuffer_bytes = 8388608\n");
    let server = herd.start("Riley");
    let mut waiting = server.client();
    waiting.ask("IAMAT x +1+2 3");
    let mut polite = Polite::new(&server);
    let mut flood = Flood::default();
    flood.connect(server.address, 100);
    let mut answers = 0;
    flood.send(&commands(600_000), 60, || {
        polite.ask();
        let (_, json) = waiting.send("WHATSAT x 10 20\n").places();
        assert!(json.contains("\"status\" : \"OK\""), "{json}");
        answers += 1;
    });
    assert!(answers > 0);
}

#[test]
fn an_operator_is_shown_that_clients_were_closed_and_what_to_do() {
    let herd = Herd::single()
        .level("warn")
        .with("[limits]\nbuffer_bytes = 1048576\n");
    let server = herd.start("Riley");
    let status = || {
        let mut command = status_command();
        command.arg("--config").arg(herd.config_file());
        command.env("HERD_SECRET", "the herd's own secret");
        let output = command.output().unwrap();
        (
            output.status.code(),
            String::from_utf8(output.stdout).unwrap(),
        )
    };
    let (code, text) = status();
    assert!(
        code == Some(0) && !text.contains("buffer_bytes"),
        "{code:?} {text}"
    );
    let mut flood = Flood::default();
    flood.connect(server.address, 20);
    flood.send(&commands(600_000), 5, || {
        server.client().ask("x");
    });
    let (code, text) = status();
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("Riley has closed "), "{text}");
    assert!(
        text.contains(" connections since its start, the last ")
            && text.contains("raise limits.buffer_bytes"),
        "{text}"
    );
    server.signal(Signal::TERM);
}
