//! Tests of `places.max_per_second`. The time is virtual.

use super::{Node, Request};
use crate::config::{HerdConfig, Overrides, Source};
use crate::core::base::clock::{Now, Time};
use crate::core::base::settings::{PlacesQuota, Secret};

fn at(ms: u64) -> Now {
    Now {
        time: Time::from_nanos(ms * 1_000_000),
        wall: 1_700_000_000_000_000_000 + ms * 1_000_000,
    }
}

/// Returns a server that may ask Places `per_second` questions per second. The address of Places
/// needs no look-up.
fn node(per_second: u64) -> Node {
    let config = HerdConfig::load(&Source::Name, Some("Riley")).unwrap();
    let server = config.server("Riley", &Overrides::default());
    let mut settings = server.unwrap().settings;
    settings.neighbours.clear();
    settings.places.key = Some(Secret::new(b"a key of Google's".to_vec()));
    settings.places.origin.host = "192.0.2.1".to_owned();
    settings.places.quota = PlacesQuota {
        per_second,
        ..PlacesQuota::default()
    };
    Node::new(settings, &[7; 32], at(0))
}

/// For each radius, connects a new client from the address 192.0.2.`origin`, which asks a question
/// with that radius.
fn ask(node: &mut Node, origin: u8, radii: std::ops::Range<u64>) {
    for radius in radii {
        let port = 1_000 + radius;
        let address = format!("192.0.2.{origin}:{port}").parse().unwrap();
        let client = node.handle_client_connected(address, at(0)).unwrap();
        let line = format!("IAMAT x +1+2 3\nWHATSAT x {radius} 1\n");
        node.handle_data_received(client, line.as_bytes(), at(0));
    }
}

/// Advances the clock to `ms`. Returns the number of connections to Places that the server has
/// requested.
fn connects(node: &mut Node, ms: u64) -> usize {
    while node.next_deadline().is_some_and(|due| due <= at(ms).time) {
        let due = node.next_deadline().unwrap();
        node.handle_deadlines(Now {
            time: due,
            wall: at(ms).wall,
        });
    }
    std::iter::from_fn(|| node.poll_request())
        .filter(|request| matches!(request, Request::Connect { .. }))
        .count()
}

#[test]
fn a_places_call_waits_for_max_per_second() {
    let mut node = node(4);
    ask(&mut node, 9, 1..9);
    assert_eq!(connects(&mut node, 0), 4);
    assert_eq!(connects(&mut node, 249), 0);
    assert_eq!(connects(&mut node, 250), 1);
    assert_eq!(connects(&mut node, 499), 0);
    assert_eq!(connects(&mut node, 1_000), 3);
    assert_eq!(node.check_invariants(), Ok(()));
}

#[test]
fn events_during_a_quota_wait_add_no_timers() {
    let mut node = node(1);
    ask(&mut node, 9, 1..3);
    assert_eq!(connects(&mut node, 0), 1);
    let busy = "192.0.2.9:1".parse().unwrap();
    let busy = node.handle_client_connected(busy, at(0)).unwrap();
    for _ in 0..1_000 {
        node.handle_data_received(busy, b"no\n", at(10));
    }
    let mut timers = 0;
    while node.deadlines.due(at(2_999).time).is_some() {
        timers += 1;
    }
    assert!(timers < 10, "{timers} timers");
}

#[test]
fn a_call_that_waits_for_the_rate_fails_at_its_deadline() {
    let mut node = node(1);
    ask(&mut node, 9, 1..3);
    let late = "192.0.2.9:1".parse().unwrap();
    let late = node.handle_client_connected(late, at(0)).unwrap();
    ask(&mut node, 9, 3..30);
    node.handle_data_received(late, b"WHATSAT x 40 1\n", at(0));
    connects(&mut node, 9_999);
    let answer = |node: &mut Node| String::from_utf8(node.poll_output(late).to_vec()).unwrap();
    assert_eq!(answer(&mut node), "");
    connects(&mut node, 10_000);
    let answer = answer(&mut node);
    assert!(
        answer.contains("at most 1 question a second (places.max_per_second)"),
        "{answer}"
    );
    assert!(answer.contains("UNKNOWN_ERROR"), "{answer}");
    assert!(node.tally.counters.places_over_second > 0);
}
