//! A client whose machine vanishes: no FIN and no reset arrives, and no packet to it is ever
//! acknowledged.

use std::time::{Duration, Instant};

use herd_testkit::client::Client;
use herd_testkit::herd::{Herd, Server};
use rustix::process::Signal;

use crate::machine;
use crate::network::Network;

/// A server on Alice's host, which clients reach from Bob's host.
struct Scene {
    // Dropped before the network: the server stops before its host vanishes.
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

    /// Waits until the server closes the connection of a vanished client, and checks that it took
    /// about `keepalive_ms`.
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
fn a_client_whose_machine_vanished_is_closed() {
    if !machine::allows("clients whose machines vanish") {
        return;
    }
    let scene = Scene::new();
    let mut idle = scene.client();
    idle.send("x\n").expect("? x\n");
    // The server's kernel probes a silent client, and the client's kernel answers. So an idle
    // client stays connected.
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(6) {
        std::thread::park_timeout(Duration::from_secs(6).saturating_sub(begun.elapsed()));
    }
    idle.send("still here\n").expect("? still here\n");
    scene.network.cut("Bob", "Alice");
    scene.is_let_go(&idle, Instant::now());
}

#[test]
fn a_client_that_vanished_before_its_answer_is_closed() {
    if !machine::allows("clients whose machines vanish before an answer comes") {
        return;
    }
    let scene = Scene::new();
    let mut client = scene.client();
    client.send("x\n").expect("? x\n");
    // The client vanishes after its command arrived and before the answer. TCP sends no keepalive
    // probe while data is unacknowledged.
    scene.server.signal(Signal::STOP);
    client.send("never to be answered\n");
    // A second connection shows that the command has arrived: its handshake took the same way,
    // later.
    drop(scene.client());
    scene.network.cut("Bob", "Alice");
    scene.server.signal(Signal::CONT);
    let vanished = Instant::now();
    scene
        .server
        .wait_for_log(&Scene::address(&client), "-> ? never to be answered");
    scene.is_let_go(&client, vanished);
}
