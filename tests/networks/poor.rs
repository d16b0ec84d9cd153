//! A network that works, but badly: packets are short, some are lost, and all arrive late.

use std::thread;
use std::time::{Duration, Instant};

use crate::machine;
use crate::stage::Stage;

const LOST_PERCENT: u32 = 5;
const DELAY_MS: u32 = 100;
const PACKET_BYTES: u32 = 576;
/// Longer than a link may be silent.
const LASTS: Duration = Duration::from_secs(12);
/// After the last update, both servers must hold the same records within this time.
const AGREED_WITHIN: Duration = Duration::from_secs(10);
/// How many clients send a position to each server, each time.
const CLIENTS: usize = 200;
const PAUSE: Duration = Duration::from_millis(250);

#[test]
fn a_link_holds_and_delivers_over_a_lossy_network() {
    let what = "packets that are short, lost and late";
    if !machine::allows(what) {
        return;
    }
    let stage = Stage::new(&["Alice", "Bob"], &[("Alice", "Bob")]);
    stage.network.shorten_packets(PACKET_BYTES);
    stage.network.lose(LOST_PERCENT);
    // Many kernels lack netem. The other two faults are worth a test without it.
    if let Err(why) = stage.network.delay(DELAY_MS) {
        machine::skipped("packets that are late", &why);
    }

    let mut clients = ["Alice", "Bob"].map(|name| (name, stage.client(name)));
    let start = Instant::now();
    let mut count = 0;
    let told = loop {
        for (name, client) in &mut clients {
            let numbers = count..count + CLIENTS;
            let command = |number| format!("IAMAT {name}{number} +1+2 3\n");
            client.send(numbers.map(command).collect::<String>());
            for _ in 0..CLIENTS {
                client.line();
            }
        }
        count += CLIENTS;
        if start.elapsed() > LASTS {
            break Instant::now();
        }
        thread::sleep(PAUSE);
    };
    stage.wait_until_agreed(2 * count, told + AGREED_WITHIN);
    let took = told.elapsed();
    let lost = ["Alice", "Bob"].map(|name| stage.network.lost(name));
    eprintln!(
        "a poor network: {took:.2?} after the last both hold {} updates, {lost:?} packets did not arrive",
        2 * count
    );
    assert!(lost.iter().all(|&lost| lost > 0), "not a poor network");
    for name in ["Alice", "Bob"] {
        let log = stage.server(name).log_lines();
        let lost = log.iter().find(|line| line.contains(": lost: "));
        assert_eq!(lost, None, "{name} gave up a link that worked");
    }
}
