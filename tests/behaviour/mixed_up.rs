//! Clients connect and close while Places is asked, and new connections reuse the slots of closed
//! ones. Each client must get its own answers.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use herd_places::{Behaviour, Options, Places};
use herd_testkit::client::{Client, wait_until};
use herd_testkit::herd::Herd;

use crate::outside::descriptors;

/// A location that no other client has.
fn point(number: usize) -> String {
    format!("+{}.{number:04}-{}.5", number % 80, number % 170)
}

#[test]
fn no_client_gets_the_answer_of_another() {
    const CROWD: usize = 8;
    const ROUNDS: usize = 60;
    let places = Places::start(Options {
        behaviour: Behaviour::Slow {
            delay: Duration::from_millis(3),
        },
        ..Options::default()
    })
    .unwrap();
    let server = Herd::single()
        .asking(&places)
        .level("warn")
        .with("[limits]\nmax_places_connections = 4\n")
        .start("Riley");
    // The correct answer for a location. The stand-in for Google computes it from the location
    // alone.
    let asked_alone = |number: usize| {
        let mut client = server.client();
        client.ask(&format!("IAMAT only{number} {} 1", point(number)));
        client
            .send(format!("WHATSAT only{number} 10 3\n"))
            .places()
            .1
    };
    let samples: Vec<usize> = (0..CROWD * ROUNDS).step_by(37).collect();
    let expected: Vec<String> = samples.iter().map(|number| asked_alone(*number)).collect();
    let distinct: std::collections::BTreeSet<_> = expected.iter().collect();
    assert_eq!(distinct.len(), samples.len(), "no two answers are the same");

    let before = descriptors(&server);
    let answered = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for member in 0..CROWD {
            let (server, answered, samples, expected) = (&server, &answered, &samples, &expected);
            scope.spawn(move || {
                for round in 0..ROUNDS {
                    let number = round * CROWD + member;
                    let id = format!("c{number}");
                    let mut client: Client = server.client();
                    let at = client.ask(&format!("IAMAT {id} {} {number}", point(number)));
                    assert!(at.contains(&format!(" {id} ")), "{at}");
                    client.send(format!("WHATSAT {id} 10 3\nWHATSAT {id} 11 1\nmine-{id}\n"));
                    if round % 3 != 0 {
                        // The client closes while its question is asked or queued. The next client
                        // reuses its slot at once.
                        if round % 2 == 0 {
                            socket2::SockRef::from(client.stream())
                                .set_linger(Some(Duration::ZERO))
                                .unwrap();
                        }
                        continue;
                    }
                    let (line, json) = client.places();
                    assert_eq!(line, at);
                    assert!(json.contains("\"status\" : \"OK\""), "{json}");
                    if let Some(sample) = samples.iter().position(|sample| *sample == number) {
                        assert_eq!(json, expected[sample]);
                    }
                    assert_eq!(client.places().0, at);
                    client.expect(format!("? mine-{id}\n"));
                    client.finish().expect_end();
                    answered.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    assert_eq!(answered.into_inner(), CROWD * ROUNDS / 3);
    wait_until("everybody is gone", || descriptors(&server) <= before + 4);
    server.client().send("x\n").expect("? x\n");
    server.stop();
}
