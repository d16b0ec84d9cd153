//! File descriptors: a server without free ones waits until it has some. However a client closes,
//! no descriptor leaks.

use std::io::Write as _;
use std::time::{Duration, Instant};

use herd_places::Behaviour;
use herd_testkit::client::{Client, SOON, wait_until};
use herd_testkit::herd::{Herd, Server};

use crate::outside::{self, descriptors, processor_time, wrapped};
use crate::places::stand_in;

/// Closes the connection with a reset.
fn reset(client: Client) {
    socket2::SockRef::from(client.stream())
        .set_linger(Some(Duration::ZERO))
        .unwrap();
}

#[test]
fn descriptor_exhaustion_is_logged_once_without_spinning() {
    let herd = Herd::single().level("info");
    let limited = wrapped(
        &["sh", "-c", "ulimit -n 40; exec \"$@\"", "sh"],
        &[],
        &herd.command("Riley"),
    );
    // strace shows how often the server calls `accept4`. Without strace that part is not tested.
    let trace = outside::can_trace("how often a server without descriptors tries to accept")
        .then(|| outside::Trace::new(&herd, &["-e", "trace=accept4"]));
    let server = Server::start(&mut match &trace {
        Some(trace) => trace.command(&limited),
        None => limited,
    });
    let mut first = server.client();
    first.send("x\n").expect("? x\n");
    // The kernel accepts all connections, but the server has no descriptors for all of them.
    let mut crowd: Vec<Client> = (0..60).map(|_| server.client()).collect();
    server.wait_for_log("cannot accept connections: Too many open files", "[WARN ]");
    let tries = || {
        let text = trace.as_ref().map(outside::Trace::text);
        text.unwrap_or_default().matches(" EMFILE ").count()
    };
    let (begun, used_before, tried_before) = (Instant::now(), processor_time(&server), tries());
    while begun.elapsed() < Duration::from_secs(1) {
        first.send("still\n").expect("? still\n");
        std::thread::park_timeout(Duration::from_millis(20));
    }
    let (tried, took) = (tries() - tried_before, begun.elapsed());
    let used = processor_time(&server) - used_before;
    // The server tries ten times in a second.
    assert!(
        tried as u128 <= took.as_millis() / 100 + 2,
        "{tried} tries in {took:?}"
    );
    assert!(used < took / 4, "{used:?} in {took:?}");
    // Accepted clients are served. The others are served after some clients have left.
    crowd[0].send("x\n").expect("? x\n");
    let mut last = crowd.split_off(40);
    drop(crowd);
    for client in &mut last {
        client.send("x\n").expect("? x\n");
    }
    server.client().send("x\n").expect("? x\n");
    server.wait_for_log("connections are accepted again", "");
    let log = server.stop();
    let told = log.iter().filter(|line| line.contains("cannot accept"));
    assert_eq!(told.count(), 1, "{log:#?}");
}

#[test]
fn resets_at_any_point_leak_no_descriptor() {
    let places = stand_in();
    places.set_behaviour(Behaviour::Hold);
    let server = Herd::single().asking(&places).level("info").start("Riley");
    server.client().ask("IAMAT x +1+2 3");
    // A client that stays connected shows that the server still works. The server may also keep its
    // connections to Places.
    let mut stays = server.client();
    stays.ask("begin");
    server.wait_for_log("-> ? begin", "");
    let before = descriptors(&server);
    let begun = server.log_lines().len();

    let rounds = 40;
    for round in 0..rounds {
        // Before the client sent anything.
        reset(server.client());
        // In the middle of a line.
        let mut client = server.client();
        client.send("IAMAT half a li");
        reset(client);
        // While there are unread replies.
        let mut client = server.client();
        client.send("x\n".repeat(100));
        reset(client);
        // While there are so many unread replies that the server has stopped reading.
        let client = server.client();
        let timeout = Some(Duration::from_millis(20));
        client.stream().set_write_timeout(timeout).unwrap();
        let line = format!("{}\n", "y".repeat(4000));
        while round % 10 == 0 && client.stream().write_all(line.as_bytes()).is_ok() {}
        reset(client);
        // While the last reply, before the server closes, is unread.
        let mut client = server.client();
        client.send("z".repeat(4097));
        reset(client);
        // While the server waits for Places, and another command waits behind it.
        let asked = places.requests().len();
        let mut client = server.client();
        client.send(format!("WHATSAT x 1.{round} 5\nnext\n"));
        assert!(places.wait_for_requests(asked + 1, SOON));
        reset(client);
        // After the client has shut down its writing side.
        let mut client = server.client();
        client.send("x\n").finish();
        reset(client);
    }
    wait_until("every descriptor is closed", || {
        descriptors(&server) <= before
    });
    stays.send("x\n").expect("? x\n");
    assert!(places.wait_until(SOON, |counts| counts.open_connections == 0));
    let told: Vec<String> = server.log_lines().split_off(begun);
    // The log has commands, replies, calls to Places that no client waits for any more, and lines
    // that were too long. It has no other lines because of the resets.
    let strange: Vec<_> = told
        .iter()
        .filter(|line| !line.contains(" <- ") && !line.contains(" -> "))
        .filter(|line| !line.contains(" left out within "))
        .filter(|line| !line.contains("places call ") && !line.contains("a line of more than 4096"))
        .collect();
    assert!(strange.is_empty(), "{strange:#?}");
    server.stop();
}
