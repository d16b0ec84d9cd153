//! A ring of three servers: when one link is cut, updates still arrive over the other two links.

use std::time::{Duration, Instant};

use crate::fault::HEALED_WITHIN;
use crate::machine;
use crate::moment::Moment;
use crate::stage::Stage;

/// Far shorter than the time in which a server notices a cut.
const AT_ONCE: Duration = Duration::from_secs(3);

#[test]
fn a_cut_link_in_a_ring_loses_no_update() {
    if !machine::allows("a cut in a ring of three") {
        return;
    }
    let links = [("Alice", "Bob"), ("Bob", "Carol"), ("Carol", "Alice")];
    let stage = Stage::new(&["Alice", "Bob", "Carol"], &links);

    stage.network.cut("Alice", "Bob");
    stage.network.cut("Bob", "Alice");
    for (teller, hearer) in [("Alice", "Bob"), ("Bob", "Alice")] {
        let told = Moment::now();
        let update = stage.client(teller).ask(&format!("IAMAT {teller} +1+2 3"));
        let line = stage.heard(hearer, &update);
        let after = Moment::of(&line).since(told).unwrap_or_default();
        assert!(after <= AT_ONCE, "after {after:?}: {line}");
        eprintln!("a cut in a ring: {hearer}, after {after:.2?}: {line}");
    }
    let server = |name| stage.server(name);
    server("Alice").wait_for_log("neighbour Bob ", ": lost: ");
    server("Bob").wait_for_log("neighbour Alice ", ": lost: ");

    let mended = Instant::now();
    stage.network.mend();
    stage.wait_until_agreed(2, mended + HEALED_WITHIN);
    let took = mended.elapsed();
    eprintln!("a cut in a ring: all are linked {took:.2?} after it was mended");
    for (name, other) in [
        ("Alice", "neighbour Carol "),
        ("Bob", "neighbour Carol "),
        ("Carol", "neighbour "),
    ] {
        let log = server(name).log_lines();
        let lost = |line: &&String| line.contains(other) && line.contains(": lost: ");
        assert_eq!(
            log.iter().find(lost),
            None,
            "{name} lost a link that was not cut"
        );
    }
}
