//! The tutorial programs do what their first lines say.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use mio::Events;

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

#[test]
fn the_echo_server_echoes_more_than_it_keeps_and_what_came_before_a_half_close() {
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
    // A heartbeat is due later, whatever the real clock says.
    let before = world.crossed.len();
    world.wait_ms(3_000);
    assert!(
        world.crossed[before..].contains("SYNC"),
        "{}",
        &world.crossed[before..]
    );
}
