//! Limits for connections and calls that a server makes, where no other file tests them: dialling,
//! resolving names, asking Places, writing to the disk.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::fs::MetadataExt as _;
use std::time::{Duration, Instant};

use herd_places::{Behaviour, End};
use herd_testkit::client::{Client, SOON, wait_until};
use herd_testkit::herd::{Herd, Server};
use rustix::process::{Pid, Resource, Rlimit, prlimit};

use crate::outside;
use crate::places::{message, stand_in};

/// An address where connecting neither succeeds nor fails: the listener accepts nothing, and its
/// queue is full.
struct Silence {
    address: SocketAddr,
    _listener: socket2::Socket,
    _queue: Vec<TcpStream>,
}

impl Silence {
    fn at(address: SocketAddr) -> Silence {
        let listener =
            socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        listener.bind(&address.into()).unwrap();
        listener.listen(0).unwrap();
        let address = listener.local_addr().unwrap().as_socket().unwrap();
        let knock = || TcpStream::connect_timeout(&address, Duration::from_millis(300)).ok();
        let queue = std::iter::from_fn(knock).take(10).collect::<Vec<_>>();
        assert!(queue.len() < 10, "the queue has no end");
        Silence {
            address,
            _listener: listener,
            _queue: queue,
        }
    }
}

/// The error message in the answer to a `WHATSAT`.
fn complaint(server: &Server) -> String {
    let mut client = server.client();
    client.ask("IAMAT x +1+2 3");
    let json = client.send("WHATSAT x 10 5\n").places().1;
    message(&serde_json::from_str(&json).unwrap()).to_owned()
}

#[test]
fn an_unreachable_neighbour_is_dialled_again() {
    let herd = Herd::new(&["Riley", "Jaquez"], &[("Riley", "Jaquez")])
        .with("[limits]\nlink_connect_ms = 200\nredial_first_ms = 10\n");
    let _silence = Silence::at(herd.peers_address("Jaquez"));
    let riley = herd.start("Riley");
    riley.wait_for_log(
        "neighbour Jaquez",
        "not linked: no connection within 200 ms",
    );
    riley.wait_for_nth_log(2, "neighbour Jaquez: dialling again", "");
}

#[test]
fn redial_waits_grow_from_the_first_to_the_cap() {
    let herd = Herd::new(&["Riley", "Jaquez"], &[("Riley", "Jaquez")])
        .with("[limits]\nredial_first_ms = 20\nredial_cap_ms = 160\n");
    let riley = herd.start("Riley"); // and nothing listens at Jaquez's address
    let wait_ms = |n| -> u64 {
        let line = riley.wait_for_nth_log(n, "neighbour Jaquez: dialling again in ", " ms");
        let (_, ms) = line.split_once(" in ").unwrap();
        ms.strip_suffix(" ms").unwrap().parse().unwrap()
    };
    // Each wait is between half and nine tenths of its step.
    for (n, step) in [20, 40, 80, 160, 160, 160].into_iter().enumerate() {
        let waited = wait_ms(n + 1);
        assert!(
            (step / 2..=step * 9 / 10).contains(&waited),
            "wait {n}: {waited} ms"
        );
    }
}

#[test]
fn a_connect_to_places_times_out() {
    let places = stand_in(); // only its CA is used
    let silence = Silence::at((Ipv4Addr::LOCALHOST, 0).into());
    let herd = Herd::single()
        .asking(&places)
        .with("[limits]\nplaces_connect_ms = 200\n");
    let url = format!("https://{}", silence.address);
    let server = Server::start(herd.command("Riley").args(["--places-url", &url]));
    let said = complaint(&server);
    assert!(said.contains("no connection within 0.2 s"), "{said}");
}

#[test]
fn a_name_lookup_times_out() {
    let what = "a name server that does not answer";
    if let Err(why) = outside::run_to_end("unshare --mount mount --bind /dev/null /etc/resolv.conf")
    {
        return outside::skipped(what, &why);
    }
    // A name server that receives questions and never answers, on an address of its own.
    let [.., high, low] = std::process::id().to_be_bytes();
    let address = Ipv4Addr::new(127, 253, high, low);
    let silent = match std::net::UdpSocket::bind((address, 53)) {
        Ok(silent) => silent,
        Err(error) => return outside::skipped(what, &format!("port 53 of {address}: {error}")),
    };
    let places = stand_in();
    let herd = Herd::single()
        .asking(&places)
        .with("[limits]\nlookup_ms = 300\n");
    let resolver = herd.directory.path().join("resolv.conf");
    fs::write(&resolver, format!("nameserver {address}\n")).unwrap();
    // A separate mount namespace, where this is the system's name server.
    let command = herd.command("Riley");
    let mut within = outside::wrapped(
        &["unshare", "--mount", "sh", "-c"],
        &[
            "mount --bind \"$0\" /etc/resolv.conf && exec \"$@\"",
            resolver.to_str().unwrap(),
        ],
        &command,
    );
    let server = Server::start(within.args(["--places-url", "https://places.herd.test"]));
    let begun = Instant::now();
    let said = complaint(&server);
    assert!(
        said.contains("no answer from the name server within 0.3 s"),
        "{said}"
    );
    assert!(
        begun.elapsed() < Duration::from_secs(4),
        "{:?}: the resolver itself waits for 5 s",
        begun.elapsed()
    );
    drop(silent);
}

#[test]
fn an_idle_connection_to_places_is_closed() {
    let places = stand_in(); // it would keep the connection for a minute
    let server = Herd::single()
        .asking(&places)
        .with("[limits]\nplaces_idle_ms = 400\n")
        .start("Riley");
    let mut client = server.client();
    client.ask("IAMAT x +1+2 3");
    let ask = |client: &mut Client| {
        let json = client.send("WHATSAT x 10 5\n").places().1;
        assert!(json.contains("\"status\" : \"OK\""), "{json}");
    };
    ask(&mut client);
    assert!(places.wait_until(SOON, |counts| counts.open_connections == 0));
    ask(&mut client);
    assert_eq!(places.connections(), 2);
}

#[test]
fn a_places_response_head_has_a_size_limit() {
    let places = stand_in();
    let server = Herd::single()
        .asking(&places)
        .with("[limits]\nplaces_head_bytes = 300\n")
        .start("Riley");
    let head = |bytes: usize| {
        let frame = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX: \r\n\r\n";
        let x = "x".repeat(bytes - frame.len());
        let text = frame.replace("X: ", &format!("X: {x}"));
        Behaviour::Raw {
            segments: vec![text.into_bytes(), b"{}".to_vec()],
            end: End::KeepAlive,
        }
    };
    places.push_behaviour(head(301));
    let said = complaint(&server);
    assert!(
        said.contains("the head of its answer was too large"),
        "{said}"
    );
    places.push_behaviour(head(300));
    let json = server.client().send("WHATSAT x 10 5\n").places().1;
    assert_eq!(json, "{}");
}

#[test]
fn the_journal_reserves_journal_ahead_bytes() {
    for ahead in [16_384_u64, 1 << 20] {
        let herd = Herd::single()
            .with_top("data_dir = \"data\"\n")
            .with(&format!("[limits]\njournal_ahead_bytes = {ahead}\n"));
        let server = herd.start("Riley");
        let mut client = server.client();
        let journal = herd.directory.path().join("data/Riley/journal");
        let mut written = 0;
        let mut most = 0;
        for number in 0..200 {
            let id = format!("{number:0>500}");
            assert!(client.ask(&format!("IAMAT {id} +1+2 3")).starts_with("AT "));
            written += 500;
            let there = fs::metadata(&journal).unwrap();
            most = most.max(there.size().saturating_sub(written));
        }
        // An entry is a little longer than its name. More room is reserved before all of it is
        // used.
        assert!(
            (ahead * 3 / 4..=ahead * 2 + 20_000).contains(&most),
            "{most} bytes ahead, limit {ahead}"
        );
    }
}

#[test]
fn a_change_is_synced_after_fsync_ms() {
    let what = "when the journal is synced";
    if !outside::can_trace(what) {
        return;
    }
    let syncs_after_an_iamat = |fsync_ms: u64, wanted: usize| {
        let herd = Herd::single()
            .with_top("data_dir = \"data\"\nfsync = \"interval\"\n")
            .with(&format!("[limits]\nfsync_ms = {fsync_ms}\n"));
        let trace = outside::Trace::new(&herd, &["-e", "trace=fdatasync"]);
        let server = Server::start(&mut trace.command(&herd.command("Riley")));
        let before = trace.text().matches("fdatasync(").count();
        let mut client = server.client();
        let begun = Instant::now();
        assert!(client.ask("IAMAT x +1+2 3").starts_with("AT "));
        let synced = || trace.text().matches("fdatasync(").count() - before;
        if wanted > 0 {
            wait_until("it is synced", || synced() >= wanted);
        } else {
            // These commands run many turns of the loop. None of them may sync the journal.
            for _ in 0..50 {
                client.ask("x");
            }
        }
        (synced(), begun.elapsed())
    };
    let (_, took) = syncs_after_an_iamat(700, 1);
    assert!(took >= Duration::from_millis(650), "{took:?}");
    let (synced, _) = syncs_after_an_iamat(3_600_000, 0);
    assert_eq!(synced, 0);
}

#[test]
fn updates_are_refused_after_journal_wait_ms() {
    const WAIT: Duration = Duration::from_millis(300);
    let herd = Herd::single()
        .with_top("data_dir = \"data\"\n")
        .with("[limits]\njournal_wait_ms = 300\n");
    let server = herd.start("Riley");
    let mut client = server.client();
    client.ask("IAMAT kept +1+2 3");
    // The room is reserved, but the file system still refuses to write there, as one with
    // copy-on-write can.
    let allow = |bytes: Option<u64>| {
        let limit = Rlimit {
            current: bytes,
            maximum: None,
        };
        prlimit(Pid::from_raw(server.pid() as i32), Resource::Fsize, limit).unwrap();
    };
    allow(Some(1));
    let asked = Instant::now();
    client.send("IAMAT doubtful +1+2 3\n").expect_end();
    assert!(asked.elapsed() >= WAIT, "{:?}", asked.elapsed());
    server.wait_for_log("1 clients are let go without an answer", "300 ms");
    let refused = server.client().ask("IAMAT late +1+2 3");
    assert_eq!(refused, "? IAMAT late +1+2 3");
    // A `WHATSAT` for a record that may still be lost is not kept waiting either.
    server.client().send("WHATSAT doubtful 10 5\n").expect_end();
    let known = server.client().ask("WHATSAT kept 10 5");
    assert!(known.starts_with("AT Riley "), "{known}");
    allow(None);
    server.wait_for_log("there is room again", "");
    let (mut client, mut record) = (server.client(), String::new());
    wait_until("it is written", || {
        record = client.ask("IAMAT late +1+2 3");
        record.starts_with("AT ")
    });
    server.kill();
    let again = herd.start("Riley");
    for (client, written) in [("late", Some(&record)), ("kept", None), ("doubtful", None)] {
        let line = again.client().ask(&format!("WHATSAT {client} 10 5"));
        assert!(line.starts_with("AT Riley "), "{line}");
        assert!(written.is_none_or(|written| *written == line));
    }
}
