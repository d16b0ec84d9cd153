//! Tests of the order in which the addresses of a name are tried, and of the time between two
//! attempts. The time is virtual.

use std::net::{IpAddr, SocketAddr};

use super::{ConnId, Node, Request};
use crate::config::{HerdConfig, Overrides, Source};
use crate::core::base::clock::{Now, Time};
use crate::core::base::settings::{HostPort, NeighbourSettings, Secret};
use crate::core::session::disposition::Disposition;

const HOST: &str = "places.test";

struct Scene {
    node: Node,
    now: Now,
    client: ConnId,
}

impl Scene {
    /// Returns a server whose client has asked Places. The name of Places resolves to `addresses`.
    fn new(addresses: &str) -> Scene {
        let mut scene = Scene::with(Vec::new());
        scene.ask();
        scene.looks_up(addresses);
        scene
    }

    fn with(neighbours: Vec<NeighbourSettings>) -> Scene {
        let config = HerdConfig::load(&Source::Name, Some("Riley")).unwrap();
        let mut settings = config
            .server("Riley", &Overrides::default())
            .unwrap()
            .settings;
        settings.neighbours = neighbours;
        settings.limits.max_places_connections = 1; // all attempts of a call count as one
        settings.places.key = Some(Secret::new(b"a key of Google's".to_vec()));
        settings.places.origin = HostPort {
            host: HOST.into(),
            port: 443,
        };
        let now = Now {
            time: Time::from_nanos(0),
            wall: 1_700_000_000_000_000_000,
        };
        let mut node = Node::new(settings, &[7; 32], now);
        let client = node
            .handle_client_connected("192.0.2.9:1".parse().unwrap(), now)
            .unwrap();
        Scene { node, now, client }
    }

    fn ask(&mut self) {
        let commands = b"IAMAT x +1+2 3\nWHATSAT x 1 1\n";
        self.node
            .handle_data_received(self.client, commands, self.now);
    }

    fn looks_up(&mut self, addresses: &str) {
        let asked = self.node.poll_request();
        assert_eq!(asked, Some(Request::Resolve { host: HOST.into() }));
        let found: Vec<IpAddr> = addresses
            .split(' ')
            .map(|address| address.parse().unwrap())
            .collect();
        self.node.handle_resolved(HOST, Ok(found), self.now);
    }

    /// Advances the clock to `ms`. Handles each deadline up to that time, in order.
    fn at(&mut self, ms: u64) -> &mut Scene {
        let until = Time::from_nanos(ms * 1_000_000);
        while let Some(due) = self.node.next_deadline().filter(|due| *due <= until) {
            self.now.time = due;
            self.node.handle_deadlines(self.now);
            self.flush_all();
        }
        self.now.time = until;
        self
    }

    /// Flushes all dirty connections once, as the event loop does at the end of a turn.
    fn flush_all(&mut self) {
        while let Some(id) = self.node.poll_dirty() {
            let waiting = self.node.poll_output(id).len();
            self.node.handle_output_sent(id, waiting, self.now);
            if self.node.poll_disposition(id, self.now) == Disposition::Close {
                self.node.handle_connection_lost(id, None, self.now);
            }
        }
    }

    /// Returns the addresses and connections that the server has requested to connect since the
    /// last call.
    fn tried(&mut self) -> Vec<(IpAddr, ConnId)> {
        self.flush_all();
        let mut tried = Vec::new();
        while let Some(request) = self.node.poll_request() {
            match request {
                Request::Connect { id, address } => {
                    assert_eq!(address, SocketAddr::new(address.ip(), 443));
                    tried.push((address.ip(), id));
                }
                Request::Resolve { host } => panic!("{host} is looked up"),
                Request::Measure { .. } => {}
            }
        }
        tried
    }

    fn tries(&mut self, address: &str) -> ConnId {
        let tried = self.tried();
        assert_eq!(tried.len(), 1, "{tried:?}");
        assert_eq!(tried[0].0, address.parse::<IpAddr>().unwrap());
        tried[0].1
    }

    fn tries_none(&mut self) {
        assert_eq!(self.tried(), []);
    }

    fn lost(&mut self, id: ConnId, why: &str) {
        self.node
            .handle_connection_lost(id, Some(&why.into()), self.now);
    }

    fn answer(&mut self) -> String {
        String::from_utf8_lossy(self.node.poll_output(self.client)).into_owned()
    }
}

#[test]
fn the_next_address_is_tried_in_parallel_after_250_ms() {
    let mut scene = Scene::new("::1 ::2 ::3 192.0.2.1");
    scene.tries("::1");
    scene.at(249).tries_none();
    let second = scene.at(250).tries("192.0.2.1");
    scene.at(499).tries_none();
    scene.at(500).tries("::2");
    scene.at(750).tries("::3");
    // An attempt ends only after its own time limit, because a slow address can still answer. The
    // limit is 3,000 ms.
    scene.at(2_999);
    assert_eq!(scene.node.connections(), 5, "four, and the client");
    scene.at(3_000).tries_none();
    assert_eq!(scene.node.connections(), 4);
    // The second address is connected. The other attempts continue, because the second connection
    // has no TLS yet.
    scene.node.handle_connection_made(second, scene.now);
    scene.at(3_750).tries_none();
    assert_eq!(scene.node.connections(), 2);
    assert_eq!(scene.answer(), "");
}

#[test]
fn a_failed_address_starts_the_next_attempt_at_once() {
    let mut scene = Scene::new("::1 ::2 192.0.2.1 192.0.2.2");
    let first = scene.tries("::1");
    scene.at(10).lost(first, "Network is unreachable");
    let second = scene.tries("192.0.2.1");
    scene.at(20).lost(second, "Connection refused");
    scene.tries("::2");
    // A failure restarts the 250 ms until the next attempt, so the next attempt begins at 270 ms.
    scene.at(250).tries_none();
    scene.at(269).tries_none();
    scene.at(270).tries("192.0.2.2");
    assert_eq!(scene.answer(), "");
}

#[test]
fn a_connected_address_has_250_ms_for_its_handshake() {
    let mut scene = Scene::new("::1 ::2");
    let first = scene.tries("::1");
    scene.at(200);
    scene.node.handle_connection_made(first, scene.now);
    scene.at(250).tries_none();
    scene.at(449).tries_none();
    scene.at(450).tries("::2");
}

#[test]
fn the_client_gets_an_error_when_all_addresses_fail() {
    let mut scene = Scene::new("::1 192.0.2.1");
    let first = scene.tries("::1");
    scene.at(10).lost(first, "No route to host");
    let second = scene.tries("192.0.2.1");
    scene.at(20).lost(second, "Connection refused");
    let answer = scene.answer();
    assert!(
        answer.contains("cannot be reached: Connection refused"),
        "{answer}"
    );
    assert_eq!(scene.node.connections(), 1);
    // For one second after a failure, a new question tries the same addresses. After that, the name
    // is looked up again, because its addresses may have changed.
    scene.at(100).ask();
    let first = scene.tries("::1");
    scene.lost(first, "No route to host");
    let second = scene.tries("192.0.2.1");
    scene.lost(second, "Connection refused");
    scene.at(1_100).ask();
    scene.looks_up("192.0.2.7");
    scene.tries("192.0.2.7");
}

#[test]
fn a_lost_client_cancels_its_connection_attempts() {
    let mut scene = Scene::new("::1 192.0.2.1 ::2");
    scene.at(600);
    let tried = scene.tried();
    assert_eq!(tried.len(), 3);
    let (_, first) = tried[0];
    scene.lost(scene.client, "reset");
    // The connection succeeds in the same turn in which the client is lost. Nothing is sent on the
    // connection.
    scene.node.handle_connection_made(first, scene.now);
    assert_eq!(scene.node.poll_output(first), b"");
    scene.flush_all();
    assert_eq!(scene.node.connections(), 0);
    let address = "192.0.2.9:2".parse().unwrap();
    scene.client = scene
        .node
        .handle_client_connected(address, scene.now)
        .unwrap();
    scene.ask();
    scene.tries("::1");
}

#[test]
fn the_last_working_address_is_redialled_first() {
    let mut scene = Scene::with(vec![NeighbourSettings {
        name: "Jaquez".to_owned(),
        address: HostPort {
            host: HOST.into(),
            port: 443,
        },
        we_dial: true,
    }]);
    scene.looks_up("::1 ::2 192.0.2.1");
    scene.tries("::1");
    scene.at(3_100); // limits.link_connect_ms
    let second = scene.tries("192.0.2.1");
    scene.node.handle_connection_made(second, scene.now);
    scene.at(3_200).lost(second, "reset");
    let third = scene.tries("::2");
    scene.lost(third, "Network is unreachable");
    scene.at(4_300).tries("192.0.2.1");
}
