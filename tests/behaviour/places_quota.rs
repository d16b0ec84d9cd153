//! How often Google Places is asked: in a second and in a day, and what everybody is told.

use std::time::{Duration, Instant};

use herd_places::{Behaviour, Places};
use herd_testkit::client::{Client, SOON};
use herd_testkit::herd::{Herd, Server, status_command};

use crate::places::{message, stand_in};
use crate::places_fair::{Flood, ask, kiwi};
use crate::turns::connect_from;

fn herd(places: &Places, quota: &str) -> Herd {
    Herd::single().asking(places).with(quota)
}

/// What `herd-client status` says of the server, as JSON.
fn status(herd: &Herd) -> serde_json::Value {
    let output = status_command()
        .args(["--json", "--config"])
        .arg(herd.config_file())
        .env_remove("HERD_SECRET_FILE")
        .env("HERD_SECRET", "the herd's own secret")
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {errors}"))
}

fn counters(herd: &Herd, names: &[&str]) -> Vec<u64> {
    let status = status(herd);
    let counters = &status["servers"][0]["counters"];
    let value = |name: &&str| counters[name].as_u64().unwrap();
    names.iter().map(value).collect()
}

#[test]
fn calls_of_all_clients_are_limited_by_max_per_second() {
    let places = stand_in();
    let herd = herd(&places, "max_per_second = 20\n").level("warn");
    let server = herd.start("Riley");
    kiwi(&mut server.client());
    let begun = Instant::now();
    let flood = Flood::begin(server.address, 300);
    assert!(places.wait_for_requests(10, SOON));
    // Each turn of the flood is followed by one of this client.
    let mut polite = connect_from([127, 0, 0, 2], server.address);
    for turn in 0..20 {
        let json = ask(&mut polite, &format!("9.{turn}"));
        assert_eq!(json["status"], "OK", "{json}");
    }
    let asked = places.counts().requests;
    let seconds = begun.elapsed().as_secs_f64();
    flood.end();
    let most = 20.0 + 20.0 * seconds;
    assert!(asked as f64 <= most, "{asked} in {seconds:.2} s");
    assert!(asked >= 40, "{asked}: the flood was asked for, too");
}

#[test]
fn calls_above_max_per_second_fail_in_time_and_are_counted() {
    let places = stand_in();
    let herd = herd(&places, "max_per_second = 1\n[limits]\nplaces_ms = 1500\n");
    let server = herd.start("Riley");
    kiwi(&mut server.client());
    let begun = Instant::now();
    let mut clients: Vec<Client> = (1..=4)
        .map(|radius| {
            let mut client = server.client();
            client.send(format!("WHATSAT kiwi {radius} 1\n"));
            server.wait_for_log(&format!("<- WHATSAT kiwi {radius} 1"), "");
            client
        })
        .collect();
    let answers: Vec<serde_json::Value> = clients
        .iter_mut()
        .map(|client| serde_json::from_str(&client.places().1).unwrap())
        .collect();
    assert!(begun.elapsed() >= Duration::from_millis(1400));
    let refused: Vec<_> = answers
        .iter()
        .filter(|json| json["status"] != "OK")
        .collect();
    assert_eq!(refused.len(), 2, "{answers:?}");
    for json in refused {
        assert!(
            message(json).contains("at most 1 question a second (places.max_per_second)"),
            "{json}"
        );
    }
    assert_eq!(
        counters(&herd, &["places_asked", "places_over_second"]),
        [2, 2]
    );
}

#[test]
fn a_retried_call_counts_twice_in_the_daily_quota() {
    let places = stand_in();
    let herd = herd(&places, "max_per_day = 3\n");
    let server = herd.start("Riley");
    let mut client = server.client();
    kiwi(&mut client);
    assert_eq!(ask(&mut client, "1")["status"], "OK");
    places.push_behaviour(Behaviour::Drop);
    assert_eq!(ask(&mut client, "2")["status"], "OK");
    assert_eq!(places.requests().len(), 3);
    let json = ask(&mut client, "3");
    assert!(
        message(&json).contains("3 times in 24 hours, and may not ask more (places.max_per_day)")
    );
    assert_eq!(places.requests().len(), 3);
}

#[test]
fn an_unsent_call_does_not_count_in_the_daily_quota() {
    let places = stand_in();
    let herd = herd(&places, "max_per_day = 1\n");
    // Nothing listens there.
    let server = Server::start(
        herd.command("Riley")
            .args(["--places-url", "https://127.0.0.1:9"]),
    );
    let mut client = server.client();
    kiwi(&mut client);
    for _ in 0..3 {
        let json = ask(&mut client, "1");
        assert!(message(&json).contains("cannot be reached"), "{json}");
    }
}

/// Asks so many questions from this address, and expects data.
fn asks_well(server: &Server, host: u8, questions: usize) {
    let mut client = connect_from([127, 0, 0, host], server.address);
    for number in 0..questions {
        let json = ask(&mut client, &format!("{host}.{number}"));
        assert_eq!(json["status"], "OK", "{number} of 127.0.0.{host}: {json}");
    }
}

fn is_refused(server: &Server, host: u8) -> String {
    let mut client = connect_from([127, 0, 0, host], server.address);
    let json = ask(&mut client, "49");
    message(&json).to_owned()
}

#[test]
fn max_per_day_is_shared_between_addresses() {
    let places = stand_in();
    let quota = "max_per_day = 20\nmax_per_day_per_address = 2\n";
    let herd = herd(&places, quota);
    let server = herd.start("Riley");
    kiwi(&mut server.client());
    asks_well(&server, 1, 10);
    let told = is_refused(&server, 1);
    assert!(
        told.contains("your address has used its share; try again in 12"),
        "{told}"
    );
    asks_well(&server, 2, 2);
    assert!(is_refused(&server, 2).contains("share"), "it has used two");
    asks_well(&server, 3, 2);
    let is_told = |text: &str| {
        let lines = server.log_lines();
        lines.iter().filter(|line| line.contains(text)).count()
    };
    assert_eq!(is_told("asked 16 times in 24 hours, and may be"), 0);
    for host in 4..7 {
        asks_well(&server, host, 2);
    }
    let told = is_refused(&server, 8);
    assert!(
        told.contains(
            "20 times in 24 hours, and may not ask more (places.max_per_day); try again in 24 h"
        ),
        "{told}"
    );
    assert_eq!(places.requests().len(), 20);
    for line in [
        "asked 16 times in 24 hours, and may be asked 20 times (places.max_per_day)",
        "asked 20 times in 24 hours, and may not be asked more (places.max_per_day)",
    ] {
        server.wait_for_log("[WARN ] places: ", line);
        assert_eq!(is_told(line), 1);
    }
    let names = ["places_asked", "places_over_day", "places_displaced"];
    assert_eq!(counters(&herd, &names), [20, 3, 0]);
    let status = status(&herd);
    assert_eq!(
        status["servers"][0]["places_day"],
        serde_json::json!({"asked": 20, "most": 20})
    );
    assert_eq!(status["problems"][0]["kind"], "places", "{status}");
    // Nothing is stored: a server that starts anew may ask again.
    server.stop();
    let server = herd.start("Riley");
    kiwi(&mut server.client());
    asks_well(&server, 1, 1);
}

#[test]
fn an_exhausted_quota_gives_the_new_api_s_error_429() {
    let places = stand_in();
    let herd = herd(&places, "api = \"new\"\nmax_per_day = 1\n");
    let server = herd.start("Riley");
    let mut client = server.client();
    kiwi(&mut client);
    assert!(ask(&mut client, "1")["places"].is_array());
    let json = ask(&mut client, "2");
    assert_eq!(json["error"]["code"], 429);
    assert_eq!(json["error"]["status"], "RESOURCE_EXHAUSTED");
    assert!(message(&json).contains("(places.max_per_day)"), "{json}");
}
