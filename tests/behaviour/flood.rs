//! A position that one server receives reaches all servers.

use std::collections::HashMap;

use herd_testkit::client::without_skew;
use herd_testkit::herd::{Herd, Server};

/// A position is sent to each server. All other servers must then give the same answer, byte for
/// byte.
fn floods_from_each_to_all(year: &str) {
    let herd = Herd::preset(year);
    let servers = herd.start_all();
    for name in herd.names() {
        let at = servers[&name]
            .client()
            .ask(&format!("IAMAT of-{name} +1.50-2.50 1621464827.000000001"));
        assert_eq!(
            without_skew(&at),
            format!("AT {name} of-{name} +1.50-2.50 1621464827.000000001")
        );
        for other in servers.values() {
            other
                .client()
                .wait_for_record(&format!("of-{name}"), |line| line == at);
        }
    }
    // And no record crossed a link twice in the same direction.
    for (name, server) in servers {
        let heard = server
            .stop()
            .iter()
            .filter(|line| line.contains("heard AT "))
            .count();
        assert_eq!(heard, 4, "{name} took each of the others' records once");
    }
}

#[test]
fn updates_flood_preset_2016() {
    floods_from_each_to_all("2016");
}

#[test]
fn updates_flood_preset_2018() {
    floods_from_each_to_all("2018");
}

#[test]
fn updates_flood_preset_2020() {
    floods_from_each_to_all("2020");
}

#[test]
fn updates_flood_preset_2021() {
    floods_from_each_to_all("2021");
}

#[test]
fn updates_flood_preset_2022() {
    floods_from_each_to_all("2022");
}

#[test]
fn updates_flood_preset_2023() {
    floods_from_each_to_all("2023");
}

fn two() -> (Herd, HashMap<String, Server>) {
    let herd = Herd::new(&["Riley", "Jaquez"], &[("Riley", "Jaquez")]);
    let servers = herd.start_all();
    (herd, servers)
}

#[test]
fn the_newest_position_wins_on_every_server() {
    let (_herd, servers) = two();
    let newer = servers["Jaquez"].client().ask("IAMAT x +1+1 1000.2");
    servers["Riley"]
        .client()
        .wait_for_record("x", |line| line == newer);
    let older = servers["Riley"].client().ask("IAMAT x +2+2 1000.1");
    assert!(older.starts_with("AT Riley "));
    // A server sends its updates in order. When this later one has arrived, all earlier ones have.
    let marker = servers["Riley"].client().ask("IAMAT marker +2+2 1");
    servers["Jaquez"]
        .client()
        .wait_for_record("marker", |line| line == marker);
    for server in servers.values() {
        assert_eq!(
            server
                .client()
                .wait_for_record("x", |line| line.starts_with("AT ")),
            newer
        );
    }
}

#[test]
fn an_update_is_sent_to_neighbours_before_it_is_answered() {
    let (_herd, servers) = two();
    let (mut teller, mut asker) = (servers["Riley"].client(), servers["Jaquez"].client());
    // Both servers run at the same time, so one round proves little. But if the server answered its
    // client first, the record would sometimes not even be sent when the other client asks.
    for round in 0..200 {
        let at = teller.ask(&format!("IAMAT x{round} +1+1 1"));
        asker.wait_for_record(&format!("x{round}"), |line| line == at);
    }
}

#[test]
fn client_ids_of_any_bytes_are_flooded() {
    let (_herd, servers) = two();
    let id = &b"\xff\x00\x1b?\xc2\xa0"[..];
    let mut teller = servers["Riley"].client();
    let at = teller
        .send([b"IAMAT ", id, b" +1+1 1\n"].concat())
        .until(b"\n");
    let mut asker = servers["Jaquez"].client();
    let deadline = std::time::Instant::now() + herd_testkit::client::SOON;
    loop {
        let line = asker
            .send([b"WHATSAT ", id, b" 1 1\n"].concat())
            .until(b"\n");
        if line == at {
            return;
        }
        assert!(
            line.starts_with(b"? ") && std::time::Instant::now() < deadline,
            "{}",
            line.escape_ascii()
        );
    }
}

#[test]
fn concurrent_updates_converge_on_every_server() {
    let herd = Herd::preset("2021").level("info");
    let servers = herd.start_all();
    let names = herd.names();
    let newest: HashMap<String, String> = std::thread::scope(|scope| {
        let tellers: Vec<_> = (0..4)
            .map(|teller| {
                let server = &servers[&names[teller]];
                scope.spawn(move || {
                    let mut client = server.client();
                    let mut newest = HashMap::new();
                    for round in 0..300 {
                        let id = format!("c{teller}-{}", round % 50);
                        newest.insert(
                            id.clone(),
                            client.ask(&format!(
                                "IAMAT {id} +1.{round}-2.{round} {}.5",
                                1000 + round
                            )),
                        );
                    }
                    newest
                })
            })
            .collect();
        tellers
            .into_iter()
            .flat_map(|teller| teller.join().unwrap())
            .collect()
    });
    assert_eq!(newest.len(), 200);
    for server in servers.values() {
        let mut client = server.client();
        for (id, at) in &newest {
            client.wait_for_record(id, |line| line == at);
        }
    }
}
