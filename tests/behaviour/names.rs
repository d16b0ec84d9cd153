//! A share of new clients for each address: no address fills the table for all others.

use std::time::Duration;

use herd_testkit::client::{Client, wait_until};
use herd_testkit::herd::{Herd, Server};

use crate::expiry::{knows, seconds_ago};
use crate::forgetting::forget;
use crate::neighbours::{SECRET, status_of, value};
use crate::proxy::{PROXY, from, header_1};
use crate::turns::connect_from;

const ONE: [u8; 4] = [127, 0, 0, 90];
const OTHER: [u8; 4] = [127, 0, 0, 91];

/// Whether an `IAMAT` of that client is answered, and not refused.
fn says(client: &mut Client, name: &str, time: &str) -> bool {
    let command = format!("IAMAT {name} +1+2 {time}");
    let answer = client.ask(&command);
    let is_answered = answer.starts_with("AT Riley ");
    assert!(is_answered || answer == format!("? {command}"), "{answer}");
    is_answered
}

fn refused(herd: &Herd) -> String {
    let status = status_of(herd, "Riley", SECRET).unwrap();
    value(&status, "new_names_refused")
}

#[test]
fn an_address_that_introduces_too_many_clients_is_refused_more_and_others_are_not() {
    let herd =
        Herd::single().with("[limits]\nnew_names_per_address = 3\nrecord_ttl_ms = 86400000\n");
    let server = herd.start("Riley");
    let (now, later) = (seconds_ago(1), seconds_ago(0));
    let mut one = connect_from(ONE, server.address);
    assert!(says(&mut one, "a", &now) && says(&mut one, "b", &now));
    // What is not kept takes nothing: old ones, the same again, and clients that are known.
    assert!(says(&mut one, "old", &seconds_ago(90_000)));
    for _ in 0..5 {
        assert!(says(&mut one, "a", &now) && says(&mut one, "b", &now));
    }
    assert!(says(&mut one, "c", &now));
    assert!(!says(&mut one, "d", &now) && !knows(&mut one, "d"));
    // Another connection of that address has no other share.
    let mut again = connect_from(ONE, server.address);
    assert!(!says(&mut again, "e", &now));
    assert!(says(&mut again, "a", &later), "a known client moves on");
    let mut other = connect_from(OTHER, server.address);
    for name in ["d", "e", "f"] {
        assert!(says(&mut other, name, &now), "{name}");
    }
    assert!(!says(&mut other, "g", &now));
    assert!(says(&mut one, "d", &later), "it is known now");
    assert_eq!(refused(&herd), "3");
    server.wait_for_log(
        "client 1 127.0.0.90:",
        "a new client is refused: its address has introduced 3 within 3600000 ms (limits.new_names_per_address, new_names_ms)",
    );
    // A client that was forgotten is new.
    assert_eq!(forget(&herd, "a", &[]).0, 0);
    assert!(!says(&mut one, "a", &seconds_ago(0)) && !knows(&mut one, "a"));
    assert!(says(&mut one, "b", &seconds_ago(0)));
}

#[test]
fn an_address_may_introduce_clients_again_when_its_share_has_come_back() {
    let herd = Herd::single().with("[limits]\nnew_names_per_address = 2\nnew_names_ms = 400\n");
    let server = herd.start("Riley");
    let mut client = connect_from(ONE, server.address);
    let mut number = 0;
    let mut next = |client: &mut Client| {
        number += 1;
        says(client, &format!("x{number}"), "3")
    };
    wait_until("a client is refused", || !next(&mut client));
    std::thread::park_timeout(Duration::from_millis(200));
    wait_until("a client is let in", || next(&mut client));
}

#[test]
fn a_proxy_s_client_is_counted_by_its_own_address() {
    let herd = Herd::single()
        .with(&format!(
            "[clients]\nproxy_protocol = true\nproxies = [\"{PROXY}\"]\n"
        ))
        .with("[limits]\nnew_names_per_address = 1\n");
    let server = herd.start("Riley");
    let through = |server: &Server, source: &str| {
        let mut client = from(PROXY, server.address);
        client.send(header_1(source));
        client
    };
    let mut one = through(&server, "203.0.113.9:1");
    assert!(says(&mut one, "a", "3") && !says(&mut one, "b", "3"));
    let mut same = through(&server, "203.0.113.9:2");
    assert!(!says(&mut same, "b", "3"));
    let mut other = through(&server, "203.0.113.10:1");
    assert!(says(&mut other, "b", "3"));
    // Of IPv6, 64 bits are one address.
    let mut six = through(&server, "[2001:db8::1]:1");
    assert!(says(&mut six, "c", "3"));
    let mut near = through(&server, "[2001:db8::ffff:1]:1");
    assert!(!says(&mut near, "d", "3"));
}

#[test]
fn a_client_on_this_machine_is_limited_only_if_the_config_file_says_so() {
    let server = Herd::single().level("warn").start("Riley");
    let mut client = server.client();
    for number in 0..2_100 {
        assert!(says(&mut client, &format!("x{number}"), "3"), "{number}");
    }
}

#[test]
fn what_neighbours_know_is_taken_from_no_share() {
    let herd = Herd::new(&["Riley", "Jaquez"], &[("Riley", "Jaquez")])
        .with("[limits]\nnew_names_per_address = 2\n");
    let servers = herd.start_all();
    let mut clients: Vec<Client> = (0..4)
        .map(|place| connect_from([127, 0, 0, 92 + place], servers["Riley"].address))
        .collect();
    for (place, client) in clients.iter_mut().enumerate() {
        for number in 0..2 {
            assert!(says(client, &format!("x{place}-{number}"), "3"));
        }
    }
    let mut other = servers["Jaquez"].client();
    wait_until("all are known", || knows(&mut other, "x3-1"));
    let answer = other.ask("IAMAT own +1+2 3");
    assert!(answer.starts_with("AT Jaquez "), "{answer}");
}
