//! The tutorial programs do what their first lines say, and the recipes name only existing files.

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use mio::Events;

use herd_places::{Behaviour, Options, Places};
use herd_testkit::client::SOON;

#[allow(
    dead_code,
    unreachable_pub,
    reason = "a program of its own, whose main is not called here"
)]
#[path = "../../tools/examples/echo.rs"]
mod echo;
#[allow(
    dead_code,
    unreachable_pub,
    reason = "a program of its own, whose main is not called here"
)]
#[path = "../../tools/examples/herd_in_memory.rs"]
mod herd_in_memory;
#[allow(
    dead_code,
    unreachable_pub,
    reason = "a program of its own, whose main is not called here"
)]
#[path = "../../tools/examples/https_get.rs"]
mod https_get;

#[test]
fn the_echo_server_echoes_past_its_buffer_and_a_half_close() {
    let mut server = echo::Server::bind(([127, 0, 0, 1], 0).into()).unwrap();
    let address = server.address().unwrap();
    let is_over = Arc::new(AtomicBool::new(false));
    let ends = is_over.clone();
    let serving = thread::spawn(move || {
        let mut events = Events::with_capacity(64);
        while !ends.load(Ordering::Relaxed) {
            server
                .turn(&mut events, Some(Duration::from_millis(10)))
                .unwrap();
        }
    });
    let mut idle = TcpStream::connect(address).unwrap();
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    let sent: Vec<u8> = (0..8_000_000_u32)
        .map(|number| (number % 251) as u8)
        .collect();
    let (mut writer, all) = (stream.try_clone().unwrap(), sent.clone());
    let writing = thread::spawn(move || {
        writer.write_all(&all).unwrap();
        writer.shutdown(Shutdown::Write).unwrap();
    });
    let mut echoed = Vec::new();
    { &stream }.read_to_end(&mut echoed).unwrap();
    assert!(echoed == sent, "{} of {} bytes", echoed.len(), sent.len());
    writing.join().unwrap();
    idle.set_read_timeout(Some(SOON)).unwrap();
    idle.write_all(b"x").unwrap();
    let mut one = [0];
    idle.read_exact(&mut one).unwrap();
    assert_eq!(&one, b"x");
    is_over.store(true, Ordering::Relaxed);
    serving.join().unwrap();
}

#[test]
fn an_update_crosses_the_link_between_two_servers_in_memory() {
    let mut world = herd_in_memory::World::new().unwrap();
    assert!(
        world
            .crossed
            .contains("Riley ─► Jaquez  HERD 2 Riley Jaquez ")
    );
    let unknown = world.say_to_jaquez("WHATSAT kiwi 10 5\n");
    assert_eq!(unknown, "? WHATSAT kiwi 10 5\n");
    let answer = world.say_to_riley("IAMAT kiwi +34.068930-118.445127 1621464827\n");
    assert_eq!(
        answer,
        "AT Riley +0.000000000 kiwi +34.068930-118.445127 1621464827\n"
    );
    world.wait_ms(1);
    assert!(
        world
            .crossed
            .contains(&format!("Riley ─► Jaquez  {answer}"))
    );
    assert!(
        world
            .say_to_jaquez("WHATSAT kiwi 10 5\n")
            .starts_with(&answer)
    );
    // A heartbeat is due later in virtual time, whatever the real clock says.
    let before = world.crossed.len();
    world.wait_ms(3_000);
    assert!(
        world.crossed[before..].contains("SYNC"),
        "{}",
        &world.crossed[before..]
    );
}

const QUESTION: &str =
    "/maps/api/place/nearbysearch/json?location=34.068930,-118.445127&radius=10000&key=test-key";

#[test]
fn an_https_get_accepts_only_a_trusted_server() {
    let places = Places::start(Options::default()).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let ca = directory.path().join("ca.pem");
    fs::write(&ca, places.ca_pem()).unwrap();
    let mut https = https_get::Https::new(&places.url(), Some(ca.clone())).unwrap();
    let response = https.get(QUESTION).unwrap();
    assert_eq!(response.status(), 200);
    let json: serde_json::Value = serde_json::from_slice(response.body()).unwrap();
    assert_eq!(json["status"], "OK", "{json}");
    assert_eq!(places.requests()[0].target, QUESTION);

    places.push_behaviour(Behaviour::Hold);
    https.settings.limits.places_ms = 50;
    let error = https.get(QUESTION).err().unwrap();
    assert_eq!(error, "no answer within 0.05 s");

    // This certificate is signed by another authority, so the program sends nothing.
    let other = Places::start(Options::default()).unwrap();
    let mut https = https_get::Https::new(&other.url(), Some(ca)).unwrap();
    let error = https.get(QUESTION).err().unwrap();
    assert!(error.contains("certificate"), "{error}");
    assert!(other.requests().is_empty());
}

/// A path on the page is in backticks, and begins with `src/`, `tests/` or `tools/`.
#[test]
fn every_file_named_in_how_to_change_exists() {
    let page = include_str!("../../src/how_to_change.rs");
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let is_path = |text: &&str| {
        ["src/", "tests/", "tools/"]
            .iter()
            .any(|folder| text.starts_with(folder))
    };
    let named: Vec<&str> = page.split('`').filter(is_path).collect();
    assert!(named.len() >= 20, "{named:?}");
    // The recipe creates this file, so it does not exist.
    let is_gone = |path: &&str| *path != "src/core/echo.rs" && !root.join(path).is_file();
    let gone: Vec<&str> = named.into_iter().filter(is_gone).collect();
    assert!(gone.is_empty(), "not there any more: {gone:?}");
}
