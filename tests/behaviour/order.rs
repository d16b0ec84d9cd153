//! Replies come in the order of the commands, even if one of them takes long.

use std::fmt::Write as _;

use herd_places::Behaviour;
use herd_testkit::client::{SOON, without_skew};
use herd_testkit::herd::Herd;

use crate::places::stand_in;

#[test]
fn commands_after_a_whatsat_wait_for_its_answer() {
    let places = stand_in();
    let server = Herd::single().asking(&places).start("Riley");
    places.push_behaviour(Behaviour::Hold);
    let mut client = server.client();
    client.send("IAMAT x +1+2 1\nWHATSAT x 10 5\nIAMAT x +3+4 2\nWHATSAT x 10 5\nlast\n");
    assert!(places.wait_for_requests(1, SOON));
    let first = client.line();
    // Meanwhile another client is served. The record of x is still the first one, because the
    // second IAMAT waits.
    assert_eq!(server.client().ask("other"), "? other");
    assert_eq!(server.client().send("WHATSAT x 1 1\n").places().0, first);
    places.release();
    let (at, json) = client.places();
    assert_eq!(at, first, "the record as it stood when it was asked for");
    assert!(json.contains("\"OK\""));
    let second = client.line();
    assert_eq!(without_skew(&second), "AT Riley x +3+4 2");
    let (at, _) = client.places();
    assert_eq!(at, second);
    client.expect("? last\n");
}

#[test]
fn a_half_closed_client_gets_every_answer() {
    let places = stand_in();
    let server = Herd::single().asking(&places).start("Riley");
    places.push_behaviour(Behaviour::Hold);
    let mut client = server.client();
    client.send("IAMAT x +1+2 1\nWHATSAT x 10 5\nlast").finish();
    assert!(places.wait_for_requests(1, SOON));
    places.release();
    let at = client.line();
    assert_eq!(client.places().0, at);
    client.expect("? last\n").expect_end();
}

#[test]
fn a_thousand_mixed_commands_are_answered_in_order() {
    let places = stand_in();
    let server = Herd::single().asking(&places).level("warn").start("Riley");
    let mut commands = String::new();
    for round in 0..250 {
        writeln!(
            commands,
            "IAMAT x +1+2 {round}\nWHATSAT x 10 1\nnonsense {round}\n\nWHATSAT nobody 1 1"
        )
        .unwrap();
    }
    let mut client = server.client();
    let writer = std::thread::spawn({
        let mut stream = client.stream().try_clone().unwrap();
        move || std::io::Write::write_all(&mut stream, commands.as_bytes()).unwrap()
    });
    for round in 0..250 {
        let at = client.line();
        assert_eq!(without_skew(&at), format!("AT Riley x +1+2 {round}"));
        let (line, json) = client.places();
        assert_eq!(line, at);
        assert!(json.contains("\"status\" : \"OK\""));
        client.expect(format!("? nonsense {round}\n? WHATSAT nobody 1 1\n"));
    }
    writer.join().unwrap();
}

#[test]
fn a_late_answer_never_reaches_the_slot_s_next_client() {
    let places = stand_in();
    let server = Herd::single().asking(&places).start("Riley");
    server.client().ask("IAMAT x +1+2 1");
    for _ in 0..20 {
        // The next client reuses the slot of this connection while the call is still running.
        let asked = places.requests().len();
        places.push_behaviour(Behaviour::Hold);
        let mut gone = server.client();
        gone.send("WHATSAT x 10 1\n");
        assert!(places.wait_for_requests(asked + 1, SOON));
        socket2::SockRef::from(gone.stream())
            .set_linger(Some(std::time::Duration::ZERO))
            .unwrap();
        drop(gone);
        let mut next = server.client();
        places.release();
        next.send("first\n").expect("? first\n");
        next.finish().expect_end();
    }
}
