//! Turns of the event loop: each connection's share, interrupted system calls, and connections that
//! are aborted before `accept`. strace observes the server. Without strace, most of these tests are
//! skipped.

use std::collections::HashSet;
use std::io::Write as _;
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use herd_mio::core::base::limits::{LINE_BYTES, TURN_BYTES};
use herd_places::Behaviour;
use herd_testkit::client::{Client, SOON, wait_until};
use herd_testkit::herd::{Herd, Server};
use rustix::process::Signal;

use crate::neighbours::linked_riley;
use crate::outside;
use crate::places::stand_in;

/// A client that sends the same line again and again, and discards the replies.
struct Flood {
    stream: TcpStream,
    threads: Vec<JoinHandle<()>>,
}

impl Flood {
    fn of(client: &Client, line: impl Fn(u64) -> String + Send + 'static) -> Flood {
        let [mut reader, mut writer, stream] =
            [(); 3].map(|()| client.stream().try_clone().unwrap());
        let drain = move || {
            // This ends when the test or the server closes the connection.
            let _ = std::io::copy(&mut reader, &mut std::io::sink());
        };
        let pump = move || {
            for round in 0.. {
                let lines: String = (0..2000)
                    .map(|number| line(2000 * round + number))
                    .collect();
                if writer.write_all(lines.as_bytes()).is_err() {
                    return;
                }
            }
        };
        Flood {
            stream,
            threads: vec![thread::spawn(drain), thread::spawn(pump)],
        }
    }

    fn end(self) {
        // The server may have closed already.
        let _ = self.stream.shutdown(Shutdown::Both);
        for thread in self.threads {
            thread.join().unwrap();
        }
    }
}

fn two() -> Herd {
    Herd::new(&["Riley", "Jaquez"], &[("Riley", "Jaquez")]).level("warn")
}

/// A line of a neighbour that sends too much: a newer position of one of a hundred clients.
fn news(number: u64) -> String {
    format!("AT Riley +0.000000000 x{} +1+2 {number}\n", number % 100)
}

#[test]
fn each_connection_is_read_once_per_turn_within_its_share() {
    let what = "what is read in a turn";
    if !outside::can_trace(what) {
        return;
    }
    let herd = two();
    let trace = outside::Trace::new(&herd, &["-s", "0", "-e", "trace=recvfrom,epoll_wait"]);
    let jaquez = Server::start(&mut trace.command(&herd.command("Jaquez")));
    // Two clients and a linked neighbour that send without a pause, and a client that asks now and
    // then.
    let flooding = [
        (
            jaquez.client(),
            (|_| "IAMAT flood +1+2 3\n".to_owned()) as fn(u64) -> String,
        ),
        (jaquez.client(), |number| {
            format!("WHATSAT nobody{number} 1 1\n")
        }),
        (linked_riley(&herd), news),
    ];
    let floods: Vec<Flood> = flooding
        .iter()
        .map(|(client, line)| Flood::of(client, *line))
        .collect();
    let mut calm = jaquez.client();
    let mut round = 0;
    wait_until("many turns have several readers", || {
        for _ in 0..10 {
            round += 1;
            calm.ask(&format!("IAMAT calm +1+2 {round}"));
        }
        crowded_turns(&trace.text(), jaquez.pid()) >= 20
    });
    floods.into_iter().for_each(Flood::end);
    drop(calm);
    let process = jaquez.pid();
    jaquez.stop();
    crowded_turns(&trace.text(), process);
}

/// How many turns read from several connections. Checks that no turn reads from a connection twice,
/// or more than its share.
fn crowded_turns(trace: &str, process: u32) -> usize {
    let process = process.to_string();
    let mut reads: HashSet<&str> = HashSet::new();
    let mut crowded = 0;
    for line in trace.lines() {
        let Some(call) = line.strip_prefix(&process).map(str::trim_start) else {
            continue;
        };
        if call.starts_with("epoll_wait(") {
            crowded += usize::from(reads.len() >= 2);
            reads.clear();
        }
        // recvfrom(7, ""..., 65536, 0, NULL, NULL) = 65536
        let Some((descriptor, rest)) = call
            .strip_prefix("recvfrom(")
            .and_then(|arguments| arguments.split_once(", "))
        else {
            continue;
        };
        if rest.contains(", 64, ") {
            continue; // the signals' socket, which is read until it is empty
        }
        assert!(reads.insert(descriptor), "again in one turn: {line}");
        let result = rest.rsplit_once(" = ").map(|(_, result)| result.trim());
        if let Some(Ok(bytes)) = result.map(str::parse::<usize>) {
            assert!(bytes <= TURN_BYTES, "{line}");
        }
    }
    crowded
}

/// A connection from this local address.
pub(crate) fn connect_from(source: [u8; 4], to: SocketAddr) -> Client {
    let kind = (socket2::Domain::IPV4, socket2::Type::STREAM);
    let socket = socket2::Socket::new(kind.0, kind.1, None).unwrap();
    socket.bind(&SocketAddr::from((source, 0)).into()).unwrap();
    socket.connect_timeout(&to.into(), SOON).unwrap();
    Client::of(socket.into())
}

#[test]
fn clients_of_one_address_do_not_delay_another_in_a_turn() {
    let what = "the order of a crowded turn";
    if !outside::can_trace(what) {
        return;
    }
    let herd = Herd::single().level("warn").with("[limits]\nturn_ms = 1\n");
    let trace = outside::Trace::new(&herd, &["-s", "0", "-e", "trace=recvfrom,epoll_wait"]);
    let riley = Server::start(&mut trace.command(&herd.command("Riley")));
    let floods: Vec<Flood> = (0..60)
        .map(|_| {
            let client = connect_from([127, 0, 0, 66], riley.address);
            Flood::of(&client, |_| format!("{}\n", "\u{1}".repeat(LINE_BYTES)))
        })
        .collect();
    let mut calm = riley.client();
    let mut round = 0;
    wait_until("the calm client is read in crowded turns", || {
        round += 1;
        calm.ask(&format!("IAMAT calm +1+2 {round}"));
        places_in_crowded_turns(&trace.text(), riley.pid()).len() >= 10
    });
    floods.into_iter().for_each(Flood::end);
    let places = places_in_crowded_turns(&trace.text(), riley.pid());
    assert!(places.iter().all(|&place| place <= 1), "{places:?}");
    riley.stop();
}

/// For each short read of a client in a crowded turn: how many connections were read before it in
/// this turn.
fn places_in_crowded_turns(trace: &str, process: u32) -> Vec<usize> {
    let process = process.to_string();
    let mut places = Vec::new();
    let mut reads = 0;
    for line in trace.lines() {
        let Some(call) = line.strip_prefix(&process).map(str::trim_start) else {
            continue;
        };
        if call.starts_with("epoll_wait(") {
            reads = 0;
        }
        // A read of this size happens only in a crowded turn.
        let is_crowded = call.starts_with("recvfrom(") && call.contains(", 4097, ");
        let bytes = call
            .rsplit_once(" = ")
            .and_then(|(_, it)| it.trim().parse::<usize>().ok());
        if let (true, Some(bytes)) = (is_crowded, bytes) {
            if bytes < 64 {
                places.push(reads);
            }
            reads += 1;
        }
    }
    places
}

#[test]
fn a_flooding_neighbour_does_not_delay_clients() {
    let herd = two().with("[limits]\nmax_records = 1000\n");
    let jaquez = herd.start("Jaquez");
    let mut other = jaquez.client();
    other.ask("IAMAT other +1+2 0");
    let riley = linked_riley(&herd);
    // The table is soon full. After that, records of new clients are refused.
    let flood = Flood::of(&riley, |number| {
        format!("AT Riley +0.000000000 y{number} +1+2 {number}\n")
    });
    jaquez.wait_for_log("no room for a neighbour's record", "");
    let before = jaquez.status("VmHWM");
    let mut slowest = Duration::ZERO;
    for round in 1..=200 {
        let asked = Instant::now();
        other.ask(&format!("IAMAT other +1+2 {round}"));
        slowest = slowest.max(asked.elapsed());
    }
    assert!(slowest < Duration::from_secs(1), "{slowest:?}");
    let grown = jaquez.status("VmHWM") - before;
    assert!(grown < 2048, "grown by {grown} KiB");
    // The log does not have each refusal, only each doubling of their number.
    let told = jaquez.log_lines().len();
    assert!(told < 40, "{told} lines");
    flood.end();
    jaquez.wait_for_log("neighbour Riley", "lost: ");
    jaquez.stop();
}

/// The largest number of successful calls of this kind in one turn.
fn most_in_a_turn(trace: &str, process: u32, call: &str) -> usize {
    let process = process.to_string();
    let (call, mut most, mut count) = (format!("{call}("), 0, 0);
    for line in trace.lines() {
        let Some(line) = line.strip_prefix(&process).map(str::trim_start) else {
            continue;
        };
        if line.starts_with("epoll_wait(") {
            count = 0;
        } else if line.starts_with(&call) && !line.contains(" = -1 ") {
            count += 1;
            most = most.max(count);
        }
    }
    most
}

#[test]
fn a_shared_answer_is_sent_over_several_turns() {
    const CROWD: usize = 400;
    let what = "how many are answered in a turn";
    if !outside::can_trace(what) {
        return;
    }
    let places = stand_in();
    places.set_behaviour(Behaviour::Hold);
    let herd = Herd::single().asking(&places).level("warn");
    let trace = outside::Trace::new(&herd, &["-s", "0", "-e", "trace=sendto,epoll_wait"]);
    let server = Server::start(&mut trace.command(&herd.command("Riley")));
    let at = server.client().ask("IAMAT x +1+2 3");
    let mut crowd: Vec<Client> = (0..CROWD)
        .map(|_| {
            let mut client = server.client();
            client.send("WHATSAT x 10 5\n");
            client
        })
        .collect();
    // By this answer, the server has read the input of all earlier clients.
    server.client().ask("all");
    assert!(places.wait_for_requests(1, SOON));
    places.release();
    for client in &mut crowd {
        assert_eq!(client.places().0, at);
    }
    assert_eq!(places.requests().len(), 1);
    let process = server.pid();
    drop(crowd);
    server.stop();
    let most = most_in_a_turn(&trace.text(), process, "sendto");
    assert!(
        (32..=80).contains(&most),
        "{most} of {CROWD} were written to in one turn"
    );
}

#[test]
fn pending_connections_are_accepted_over_several_turns() {
    const CROWD: usize = 400;
    let what = "how many are let in in a turn";
    if !outside::can_trace(what) {
        return;
    }
    let herd = Herd::single().level("warn");
    let trace = outside::Trace::new(&herd, &["-e", "trace=accept4,epoll_wait"]);
    let server = Server::start(&mut trace.command(&herd.command("Riley")));
    server.client().ask("begin");
    server.signal(Signal::STOP);
    let mut crowd: Vec<Client> = (0..CROWD).map(|_| server.client()).collect();
    server.signal(Signal::CONT);
    for client in &mut crowd {
        client.ask("x");
    }
    let process = server.pid();
    drop(crowd);
    server.stop();
    let most = most_in_a_turn(&trace.text(), process, "accept4");
    assert!(
        (32..=64).contains(&most),
        "{most} of {CROWD} were let in in one turn"
    );
}

/// Checks that with this fault a server works and stops as usual, and logs no unexpected warning.
fn serves_with(call: &str, fault: &str) {
    let herd = Herd::single().level("info");
    let calls = format!("trace={call}");
    let inject = format!("inject={call}:{fault}");
    let trace = outside::Trace::new(&herd, &["-e", &calls, "-e", &inject]);
    let server = Server::start(&mut trace.command(&herd.command("Riley")));
    for number in 0..30 {
        let mut client = server.client();
        for round in 0..5 {
            let at = client.ask(&format!("IAMAT x{number} +1+2 {round}"));
            assert!(at.starts_with("AT "), "{at}");
        }
        client.send("last").finish().expect("? last\n").expect_end();
    }
    let log = server.stop();
    wait_until("strace is through", || {
        trace.text().contains("+++ exited with 0 +++")
    });
    let injected = trace.text().matches("(INJECTED)").count();
    assert!(injected >= 5, "{injected} calls failed");
    // Warnings about the configuration and the machine are expected.
    let is_known = |line: &&String| {
        line.contains("no key for Google Places") || line.contains("files may be open at once")
    };
    let complaints: Vec<_> = log
        .iter()
        .filter(|line| line.contains("[WARN ]") && !is_known(line))
        .collect();
    assert!(complaints.is_empty(), "{inject}: {complaints:#?}");
}

#[test]
fn interrupted_system_calls_are_retried() {
    let what = "system calls that are interrupted";
    if !outside::can_trace(what) {
        return;
    }
    for call in ["epoll_wait", "recvfrom", "sendto", "accept4"] {
        serves_with(call, "error=EINTR:when=1+2");
    }
}

#[test]
fn aborted_connections_do_not_stop_accepting() {
    let what = "connections that are aborted before they are accepted";
    if !outside::can_trace(what) {
        return;
    }
    serves_with("accept4", "error=ECONNABORTED:when=1+2");
}
