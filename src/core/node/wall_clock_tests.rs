//! Tests that a change of the wall clock moves no deadline, because waits are measured with the
//! monotonic clock. The simulator changes wall clocks too, but its clients never ask Places. So
//! these tests have a client that asks Places.

use super::{Node, Request};
use crate::config::{HerdConfig, Overrides, Source};
use crate::core::base::clock::{Now, Time};
use crate::core::base::settings::Secret;
use crate::core::session::disposition::Disposition;

const SECOND: u64 = 1_000_000_000;

/// Runs a server for twelve seconds while its wall clock shows `wall(nanoseconds)`. Returns, for
/// each step, the server's next deadline and the dispositions of its connections.
fn twelve_seconds(wall: impl Fn(u64) -> u64) -> Vec<(u64, Vec<Disposition>)> {
    let at = |nanos| Now {
        time: Time::from_nanos(nanos),
        wall: wall(nanos),
    };
    let herd = HerdConfig::load(&Source::Name, Some("Riley")).unwrap();
    let server = herd.server("Riley", &Overrides::default()).unwrap();
    let mut settings = server.settings;
    settings.places.key = Some(Secret::new(b"key".to_vec()));
    let mut node = Node::new(settings, &[7; 32], at(0));
    let client =
        |node: &mut Node| node.handle_client_connected("192.0.2.1:1".parse().unwrap(), at(0));
    // Three clients: one does not finish its line, one asks Places, whose name is never resolved,
    // and one does not read its answers.
    let [half_line, waits_for_places, reads_nothing] = [(); 3].map(|()| client(&mut node).unwrap());
    node.handle_data_received(half_line, b"half a li", at(10));
    node.handle_data_received(waits_for_places, b"IAMAT x +1+2 3\nWHATSAT x 1 1\n", at(20));
    node.handle_data_received(reads_nothing, b"x\n", at(30));
    let mut steps = Vec::new();
    let mut now = 40;
    while now < 12 * SECOND {
        // No look-up gets a result. Connections succeed in even steps, and fail in odd steps.
        // Connections that are made get no bytes.
        while let Some(request) = node.poll_request() {
            if let Request::Connect { id, .. } = request {
                match steps.len() % 2 {
                    0 => node.handle_connection_made(id, at(now)),
                    _ => node.handle_connection_lost(id, Some(&"refused".into()), at(now)),
                }
            }
        }
        let mut dispositions = Vec::new();
        while let Some(id) = node.poll_dirty() {
            let disposition = node.poll_disposition(id, at(now));
            if disposition == Disposition::Close {
                node.handle_connection_lost(id, None, at(now));
            }
            dispositions.push(disposition);
        }
        let next = node.next_deadline().unwrap().as_nanos();
        steps.push((next, dispositions));
        now = next.max(now + 1);
        node.handle_deadlines(at(now));
    }
    steps
}

#[test]
fn a_wall_clock_change_moves_no_deadline() {
    const NOW: u64 = 1_700_000_000 * SECOND;
    let steady = twelve_seconds(|nanos| NOW + nanos);
    assert!(steady.len() > 10, "{steady:?}");
    for seconds in [1, 3_600, 1_000_000_000] {
        let back = twelve_seconds(|nanos| match nanos {
            0..100 => NOW + nanos,
            _ => NOW + nanos - seconds * SECOND,
        });
        assert_eq!(back, steady, "{seconds} s back");
        let forth = twelve_seconds(|nanos| NOW + nanos * seconds);
        assert_eq!(forth, steady, "{seconds} times as fast");
    }
}
