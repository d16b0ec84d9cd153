//! A client whose machine vanishes: no FIN and no reset comes, and nothing that is sent there is ever acknowledged.

use std::time::{Duration, Instant};

use herd_testkit::client::Client;
use herd_testkit::herd::{Herd, Server};
use rustix::process::Signal;

use crate::machine;
use crate::network::Network;

/// A server on Alice's host, and how clients on Bob's reach it.
struct Scene {
    // Before the network, so that it is gone when that goes.
    server: Server,
    network: Network,
}

impl Scene {
    fn new() -> Scene {
        let network = Network::new(&["Alice", "Bob"]).unwrap();
        let [clients, peers] = [10_000, 11_000].map(|port| network.address("Alice", port));
        let herd =
            Herd::at(&[("Alice", clients, peers)], &[]).with("[limits]\nkeepalive_ms = 4000\n");
        let server = network.within("Alice", || herd.start("Alice"));
        Scene { server, network }
    }

    fn client(&self) -> Client {
        self.network.within("Bob", || self.server.client())
    }

    fn address(client: &Client) -> String {
        client.stream().local_addr().unwrap().to_string()
    }

    /// Waits until a client that has vanished is let go, which takes as long as it is said to.
    fn is_let_go(&self, client: &Client, vanished: Instant) {
        self.server
            .wait_for_log(&Scene::address(client), ": gone: Connection timed out");
        let took = vanished.elapsed();
        assert!(
            (Duration::from_millis(3500)..Duration::from_millis(7500)).contains(&took),
            "{took:?}"
        );
    }
}

#[test]
fn a_client_whose_machine_vanished_is_let_go() {
    if !machine::allows("clients whose machines vanish") {
        return;
    }
    let scene = Scene::new();
    let mut idle = scene.client();
    idle.send("x\n").expect("? x\n");
    // TCP asks whoever is silent, and is answered: one that is only idle stays.
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(6) {
        std::thread::park_timeout(Duration::from_secs(6).saturating_sub(begun.elapsed()));
    }
    idle.send("still here\n").expect("? still here\n");
    scene.network.cut("Bob", "Alice");
    scene.is_let_go(&idle, Instant::now());
}

#[test]
fn a_client_that_vanished_before_its_answer_came_is_let_go_as_soon() {
    if !machine::allows("clients whose machines vanish before an answer comes") {
        return;
    }
    let scene = Scene::new();
    let mut client = scene.client();
    client.send("x\n").expect("? x\n");
    // It vanishes between its command, which is there, and the answer, which no probe goes behind while it is not acknowledged.
    scene.server.signal(Signal::STOP);
    client.send("never to be answered\n");
    // The command arrives before the network fails: the way is the same for a second connection, and its handshake comes later.
    drop(scene.client());
    scene.network.cut("Bob", "Alice");
    scene.server.signal(Signal::CONT);
    let vanished = Instant::now();
    scene
        .server
        .wait_for_log(&Scene::address(&client), "-> ? never to be answered");
    scene.is_let_go(&client, vanished);
}
