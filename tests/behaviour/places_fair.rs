//! Questions of one address do not keep those of another from Places, however many they are.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use herd_places::{Behaviour, Options, Places};
use herd_testkit::client::{Client, SOON};
use herd_testkit::herd::Herd;

use crate::places::{message, stand_in};
use crate::turns::connect_from;

/// The position that all questions are about.
pub(crate) fn kiwi(client: &mut Client) {
    client.ask("IAMAT kiwi +34.068930-118.445127 1621464827.959498503");
}

pub(crate) fn ask(client: &mut Client, radius: &str) -> serde_json::Value {
    let (_, json) = client.send(format!("WHATSAT kiwi {radius} 1\n")).places();
    serde_json::from_str(&json).unwrap()
}

/// Connections of 127.0.0.1 that ask one question after the other, each another one, until the
/// flood is ended.
pub(crate) struct Flood {
    ends: Arc<AtomicBool>,
    thread: JoinHandle<(u64, u64)>,
}

impl Flood {
    pub(crate) fn begin(server: SocketAddr, connections: usize) -> Flood {
        let connect = |_| {
            let stream = TcpStream::connect_timeout(&server, SOON).unwrap();
            stream.set_nonblocking(true).unwrap();
            (stream, Vec::new())
        };
        let mut sockets: Vec<(TcpStream, Vec<u8>)> = (0..connections).map(connect).collect();
        let ends = Arc::new(AtomicBool::new(false));
        let until = ends.clone();
        let thread = thread::spawn(move || {
            let (mut asked, mut refused) = (0_u64, 0);
            for (stream, _) in &mut sockets {
                asked += 1;
                Flood::ask(stream, asked);
            }
            while !until.load(Ordering::Relaxed) {
                for (stream, received) in &mut sockets {
                    if !Flood::is_answered(stream, received) {
                        continue;
                    }
                    let text = String::from_utf8_lossy(received);
                    refused += u64::from(text.contains("UNKNOWN_ERROR"));
                    received.clear();
                    asked += 1;
                    Flood::ask(stream, asked);
                }
                thread::sleep(Duration::from_millis(1)); // leaves the server some of the processor
            }
            (asked, refused)
        });
        Flood { ends, thread }
    }

    fn ask(stream: &mut TcpStream, number: u64) {
        let line = format!("WHATSAT kiwi 2.{number:07} 1\n");
        stream.write_all(line.as_bytes()).unwrap();
    }

    fn is_answered(stream: &mut TcpStream, received: &mut Vec<u8>) -> bool {
        let mut bytes = [0; 4096];
        match stream.read(&mut bytes) {
            Ok(count) => received.extend(&bytes[..count]),
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
        }
        received.ends_with(b"\n\n")
    }

    /// Returns how many questions were asked, and how many of them were refused.
    pub(crate) fn end(self) -> (u64, u64) {
        self.ends.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

#[test]
fn a_flood_of_whatsats_does_not_block_another_address() {
    let delay = Duration::from_millis(20);
    let places = Places::start(Options {
        behaviour: Behaviour::Slow { delay },
        ..Options::default()
    })
    .unwrap();
    let herd = Herd::single()
        .asking(&places)
        .with("[limits]\nmax_places_connections = 2\nmax_places_waiting = 32\n")
        .level("warn");
    let server = herd.start("Riley");
    kiwi(&mut server.client());
    let flood = Flood::begin(server.address, 300);
    assert!(places.wait_for_requests(10, SOON));
    let address = server.address;
    let polite: Vec<_> = (0..8)
        .map(|number| {
            thread::spawn(move || {
                let mut client = connect_from([127, 0, 0, 2], address);
                let radius = |turn: usize| format!("{}.{turn}", 10 + number);
                let answers = (0..5).map(|turn| ask(&mut client, &radius(turn)));
                answers.collect::<Vec<_>>()
            })
        })
        .collect();
    let answers: Vec<serde_json::Value> = polite
        .into_iter()
        .flat_map(|thread| thread.join().unwrap())
        .collect();
    let (asked, refused) = flood.end();
    assert_eq!(answers.len(), 40);
    for json in answers {
        assert_eq!(json["status"], "OK", "{json}; {refused} of {asked} refused");
    }
    assert!(refused > 300, "{refused} of {asked} refused: no flood");
}

#[test]
fn the_places_queue_is_fair_by_proxied_client_address() {
    let places = stand_in();
    places.set_behaviour(Behaviour::Hold);
    let herd = Herd::single()
        .asking(&places)
        .with("[limits]\nmax_places_connections = 1\nmax_places_waiting = 1\n")
        .with("[clients]\nproxy_protocol = true\nproxies = [\"127.0.0.0/8\"]\n");
    let server = herd.start("Riley");
    let client = |address: &str| {
        let mut client = server.client();
        client.send(format!("PROXY TCP4 {address} 192.0.2.100 1000 10000\r\n"));
        client
    };
    kiwi(&mut client("192.0.2.1"));
    let mut carried = client("192.0.2.1");
    carried.send("WHATSAT kiwi 1 1\n");
    assert!(places.wait_for_requests(1, SOON));
    let mut waiting = client("192.0.2.1");
    waiting.send("WHATSAT kiwi 2 1\n");
    server.wait_for_log("<- WHATSAT kiwi 2 1", "");
    let json = ask(&mut client("192.0.2.1"), "3");
    assert!(message(&json).contains("too many questions"), "{json}");
    let mut other = client("192.0.2.2");
    other.send("WHATSAT kiwi 4 1\n");
    let json = serde_json::from_str(&waiting.places().1).unwrap();
    assert!(
        message(&json).contains("your address has the most of them"),
        "{json}"
    );
    for requests in [1, 2] {
        assert!(places.wait_for_requests(requests, SOON));
        places.release();
    }
    for client in [&mut carried, &mut other] {
        assert!(client.places().1.contains("\"OK\""));
    }
}
