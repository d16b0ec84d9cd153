//! Tests of a neighbour that dials while an attacker floods the neighbours' port. A *slot* is the
//! right to one connection to this port whose peer has not proven its name yet. The time is
//! virtual.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::{ConnId, Node, Request};
use crate::config::{HerdConfig, Overrides, Source};
use crate::core::base::clock::{Now, Time};
use crate::core::base::hex::{Hex, unhex};
use crate::core::base::limits::Limits;
use crate::core::base::settings::{HostPort, NeighbourSettings, Secret};
use crate::core::link::proof::{Nonce, Parties, Side};
use crate::core::session::disposition::Disposition;
use crate::core::session::tally::Counters;

/// The time that bytes need from Riley to the server, or from the server to Riley.
const ONE_WAY_MS: u64 = 10;
/// The time within which Riley must be linked.
const SOON_MS: u64 = 5_000;
/// The number of connections that the attacker makes in each millisecond: 44,000 in each second.
const IN_A_MS: u64 = 44;
const NONCE: Nonce = [9; 16];

/// Returns the source address of the attacker's connection with this number.
type Flood = fn(u64) -> IpAddr;

/// The server Jaquez, and its neighbour Riley, which dials Jaquez.
struct Scene {
    node: Node,
    ms: u64,
    /// The connection of Riley, and the bytes that the server has sent on that connection.
    riley: Option<(ConnId, Vec<u8>)>,
}

impl Scene {
    /// Returns the server Jaquez. In its configuration, Riley has the address `host`.
    fn new(host: &str, limits: Limits) -> Scene {
        let config = HerdConfig::load(&Source::Name, Some("Jaquez")).unwrap();
        let mut settings = config
            .server("Jaquez", &Overrides::default())
            .unwrap()
            .settings;
        settings.secrets = Secret::new(b"secret".to_vec()).into();
        settings.limits = limits;
        settings.neighbours = vec![NeighbourSettings {
            name: "Riley".to_owned(),
            address: HostPort {
                host: host.to_owned(),
                port: 11_000,
            },
            we_dial: false,
        }];
        Scene {
            node: Node::new(settings, &[7; 32], at(0)),
            ms: 0,
            riley: None,
        }
    }

    fn connects(&mut self, from: IpAddr) -> Option<ConnId> {
        let address = SocketAddr::new(from, 4_000);
        self.node.handle_neighbour_connected(address, at(self.ms))
    }

    /// Ends one iteration of the event loop, and advances the clock by one millisecond.
    fn turn(&mut self) {
        let now = at(self.ms);
        self.node.handle_deadlines(now);
        while let Some(id) = self.node.poll_dirty() {
            let output = self.node.poll_output(id).to_vec();
            self.node.handle_output_sent(id, output.len(), now);
            if let Some((riley, received)) = &mut self.riley
                && *riley == id
            {
                received.extend(output);
            }
            if self.node.poll_disposition(id, now) == Disposition::Close {
                self.node.handle_connection_lost(id, None, now);
                self.riley.take_if(|(riley, _)| *riley == id);
            }
        }
        self.node.check_invariants().unwrap();
        self.ms += 1;
    }

    fn is_linked(&self) -> bool {
        let riley = self.node.herd.find(b"Riley").unwrap();
        self.node.herd.get(riley).link().is_some()
    }

    fn counters(&self) -> &Counters {
        &self.node.tally.counters
    }

    /// Lets Riley dial from the address `from`, and wait between attempts as a server does, until
    /// Riley is linked. Meanwhile an attacker makes connections from the addresses that `flood`
    /// returns. Returns the milliseconds from the first dial until the link.
    fn links_within(&mut self, from: IpAddr, flood: Flood) -> Option<u64> {
        let begun = self.ms;
        let (mut number, mut wait, mut dial_at) = (0, 100, begun + 1_000);
        let mut proof_at = None;
        while self.ms < begun + 1_000 + SOON_MS {
            for _ in 0..IN_A_MS {
                self.connects(flood(number));
                number += 1;
            }
            let now = at(self.ms);
            if self.riley.is_none() && self.ms >= dial_at {
                proof_at = None;
                // Riley learns that the attempt has failed only one round trip later.
                dial_at = self.ms + 2 * ONE_WAY_MS + wait;
                wait = (wait * 2).min(1_000);
                if let Some(id) = self.connects(from) {
                    self.riley = Some((id, Vec::new()));
                    let herd = format!("HERD 2 Riley Jaquez {}\n", Hex(&NONCE));
                    self.node.handle_data_received(id, herd.as_bytes(), now);
                }
            }
            if let Some((id, received)) = &self.riley
                && received.ends_with(b"\n")
            {
                let due = *proof_at.get_or_insert(self.ms + 2 * ONE_WAY_MS);
                if due == self.ms {
                    let nonce = received.trim_ascii().rsplit(|&byte| byte == b' ').next();
                    let theirs = unhex::<16>(nonce.unwrap()).unwrap();
                    let proof = prove(&theirs);
                    let line = format!("PROOF {proof}\nLIFE 0123456789abcdef 7 - 0\n");
                    self.node.handle_data_received(*id, line.as_bytes(), now);
                }
            }
            self.turn();
            if self.is_linked() {
                return Some(self.ms - begun - 1_000);
            }
        }
        None
    }
}

fn at(ms: u64) -> Now {
    Now {
        time: Time::from_nanos(ms * 1_000_000),
        wall: 1_700_000_000_000_000_000 + ms * 1_000_000,
    }
}

fn prove(theirs: &Nonce) -> String {
    let parties = Parties {
        dialler: ("Riley", &NONCE),
        acceptor: ("Jaquez", theirs),
    };
    parties.prove(Side::Dialler, &Secret::new(b"secret".to_vec()))
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// Returns one of the 256 /64 networks in one IPv6 /56.
fn one_56(number: u64) -> IpAddr {
    Ipv6Addr::new(0x2001, 0xdb8, 7, (number % 256) as u16, 0, 0, 0, 1).into()
}

/// Returns one of a hundred IPv4 addresses. Each address is in another network.
fn a_hundred(number: u64) -> IpAddr {
    Ipv4Addr::new(203, (number % 100) as u8, 113, 7).into()
}

#[test]
fn a_flood_does_not_block_a_neighbour_at_its_address() {
    let (riley, riley_v6) = ("192.0.2.7", "2001:db8:7:7::7");
    let near: Flood = |number| Ipv4Addr::new(192, 0, 2, 8 + (number % 200) as u8).into();
    let near_v6: Flood = |number| {
        let host = 8 + (number % 200) as u16;
        Ipv6Addr::new(0x2001, 0xdb8, 7, 7, 0, 0, 0, host).into()
    };
    let floods: [(&str, &str, Flood); 5] = [
        ("one /56", riley, one_56),
        ("a hundred addresses", riley, a_hundred),
        ("its own /24", riley, near),
        ("its own /48", riley_v6, one_56),
        ("its own /64", riley_v6, near_v6),
    ];
    for (name, host, flood) in floods {
        let mut scene = Scene::new(host, Limits::default());
        let linked = scene.links_within(ip(host), flood);
        assert!(linked.is_some_and(|ms| ms < 100), "{name}: {linked:?}");
    }
}

#[test]
fn a_flood_from_few_networks_does_not_block_another_address() {
    for (name, networks, flood) in [
        ("one /56", 1, one_56 as Flood),
        ("a hundred addresses", 100, a_hundred),
    ] {
        let mut scene = Scene::new("192.0.2.7", Limits::default());
        let linked = scene.links_within(ip("198.51.100.9"), flood);
        assert!(linked.is_some(), "{name}: {:?}", scene.counters());
        // A network may make 20 connections at once, and 2 per second after that.
        let attempts = IN_A_MS * scene.ms;
        let most = networks * (20 + 2 * scene.ms / 1_000 + 1);
        let throttled = scene.counters().unproven_throttled;
        assert!(
            throttled >= attempts - most,
            "{name}: {throttled} of {attempts}"
        );
    }
}

#[test]
fn only_old_unproven_connections_are_displaced() {
    let limits = Limits {
        max_unproven: 2,
        ..Limits::default()
    };
    let mut scene = Scene::new("192.0.2.7", limits);
    let from = |number: u8| Ipv4Addr::new(203, number, 113, 7).into();
    let first = scene.connects(from(1)).unwrap();
    scene.ms = 100;
    let second = scene.connects(from(2)).unwrap();
    scene.ms = 499;
    assert_eq!(scene.connects(from(3)), None, "both are young");
    assert_eq!(scene.counters().unproven_crowded, 1);
    scene.ms = 500;
    let third = scene.connects(from(3)).unwrap();
    scene.turn();
    assert!(scene.node.session(first).is_none() && scene.node.session(second).is_some());
    assert_eq!(scene.counters().unproven_displaced, 1);
    // A connection that is closing loses its slot at once.
    let now = at(scene.ms);
    scene.node.handle_data_received(third, b"nonsense\n", now);
    scene.node.handle_data_received(second, b"HERD ", now);
    assert!(scene.connects(from(4)).is_some());
    scene.turn();
    assert!(scene.node.session(third).is_none() && scene.node.session(second).is_some());
    // A new connection takes the slot of a connection from its own origin, if there is one. If that
    // connection is young, the new connection is refused.
    scene.ms = 700;
    let [two, four] = [from(2), from(4)];
    assert_eq!(scene.connects(four), None, "its own connection is young");
    assert!(scene.connects(two).is_some());
    scene.turn();
    assert!(scene.node.session(second).is_none());
}

#[test]
fn neighbour_addresses_have_their_own_unproven_slots() {
    let limits = Limits {
        max_unproven: 1,
        max_unproven_per_neighbour: 2,
        ..Limits::default()
    };
    let mut scene = Scene::new("192.0.2.7", limits);
    let (riley, near, far) = (ip("192.0.2.7"), ip("192.0.2.8"), ip("203.0.113.1"));
    let other = scene.connects(near).unwrap();
    let own = [(); 2].map(|()| scene.connects(riley).unwrap());
    assert_eq!(
        scene.connects(ip("::ffff:192.0.2.7")),
        None,
        "both are young"
    );
    scene.ms = 500;
    let displaced = scene.connects(far).unwrap();
    scene.turn();
    assert!(scene.node.session(other).is_none());
    assert!(own.iter().all(|&id| scene.node.session(id).is_some()));
    assert!(scene.connects(riley).is_some());
    scene.turn();
    let left = own.iter().filter(|&&id| scene.node.session(id).is_some());
    assert_eq!(left.count(), 1);
    assert!(scene.node.session(displaced).is_some());
    // The rate limit of Riley's network does not apply to Riley's own address.
    while scene.counters().unproven_throttled == 0 {
        scene.connects(ip("192.0.2.9"));
    }
    scene.ms = 2_000;
    assert!(scene.connects(riley).is_some());
}

#[test]
fn unproven_slots_are_counted_per_neighbour_and_address() {
    let mut scene = Scene::with_diallers(&["192.0.2.1", "192.0.2.2", "192.0.2.2"]);
    let [one, two] = [ip("192.0.2.1"), ip("192.0.2.2")];
    let of_one = [(); 4].map(|()| scene.connects(one).unwrap());
    assert!((0..8).all(|_| scene.connects(two).is_some()));
    scene.ms = 500;
    for _ in 0..8 {
        assert!(scene.connects(two).is_some());
        scene.turn();
    }
    assert_eq!(scene.connects(two), None, "all are young again");
    assert!(of_one.iter().all(|&id| scene.node.session(id).is_some()));
    assert_eq!(scene.counters().unproven_displaced, 8);
}

#[test]
fn unproven_limits_cover_loopback_only_if_set() {
    let mut limits = Limits {
        max_unproven: 30,
        ..Limits::default()
    };
    let accepted = |limits: &Limits| {
        let mut scene = Scene::new("127.0.0.1", limits.clone());
        let accepted = (0..40).filter_map(|_| scene.connects(ip("127.0.0.1")));
        accepted.count()
    };
    assert_eq!(accepted(&limits), 30);
    limits.set.insert("max_unproven_new".to_owned());
    assert_eq!(accepted(&limits), 20);
    limits.set.insert("max_unproven_per_neighbour".to_owned());
    assert_eq!(accepted(&limits), 4);
}

/// Returns the names whose look-up the server requests now.
fn asked(scene: &mut Scene) -> Vec<String> {
    let requests = std::iter::from_fn(|| scene.node.poll_request());
    let host = |request| match request {
        Request::Resolve { host } => host,
        Request::Connect { address, .. } => panic!("{address} is dialled"),
        Request::Measure { id } => panic!("an answer to {id:?} is wanted"),
    };
    requests.map(host).collect()
}

impl Scene {
    /// Returns a scene with one neighbour for each host in `hosts`. All neighbours dial.
    fn with_diallers(hosts: &[&str]) -> Scene {
        let mut scene = Scene::new("192.0.2.7", Limits::default());
        let mut settings = scene.node.settings.clone();
        settings.neighbours = hosts
            .iter()
            .enumerate()
            .map(|(number, host)| NeighbourSettings {
                name: format!("Server{number}"),
                address: HostPort {
                    host: (*host).to_owned(),
                    port: 11_000,
                },
                we_dial: false,
            })
            .collect();
        settings.limits.max_unproven = 1;
        scene.node = Node::new(settings, &[7; 32], at(0));
        scene
    }

    fn resolved(&mut self, host: &str, addresses: &[&str]) {
        let addresses = addresses.iter().map(|address| ip(address)).collect();
        self.node.handle_resolved(host, Ok(addresses), at(self.ms));
    }

    /// Advances the clock to `ms`. Returns the names whose look-up the server then requests.
    fn asked_at(&mut self, ms: u64) -> Vec<String> {
        self.ms = ms;
        self.node.handle_deadlines(at(ms));
        asked(self)
    }
}

#[test]
fn names_of_dialling_neighbours_are_resolved_in_sequence() {
    let mut scene = Scene::with_diallers(&["a.test", "192.0.2.7", "b.test", "a.test"]);
    scene.connects(ip("203.0.113.1")); // takes the only shared slot
    assert_eq!(asked(&mut scene), ["a.test"]);
    assert!(
        scene.connects(ip("192.0.2.7")).is_some(),
        "a number needs no look-up"
    );
    assert!(scene.connects(ip("192.0.2.1")).is_none());
    scene.resolved("a.test", &["192.0.2.1", "2001:db8::1"]);
    assert!(scene.connects(ip("192.0.2.1")).is_some());
    assert!(scene.connects(ip("2001:db8::1")).is_some());
    assert_eq!(asked(&mut scene), ["b.test"]);
    // The look-up of `b.test` has no result yet. No other look-up begins until it has ended.
    assert_eq!(scene.asked_at(400), [""; 0]);
    scene.ms = 450;
    scene
        .node
        .handle_resolved("b.test", Err("no such name".into()), at(450));
    assert_eq!(asked(&mut scene), [""; 0]);
    assert!(scene.connects(ip("192.0.2.2")).is_none());
    // If a name has no address, the next round of look-ups begins after 5 s, not 60 s.
    assert_eq!(scene.asked_at(5_449), [""; 0]);
    assert_eq!(scene.asked_at(5_450), ["b.test"]);
    scene.resolved("b.test", &["192.0.2.2"]);
    assert!(scene.connects(ip("192.0.2.2")).is_some());
    assert_eq!(scene.asked_at(65_449), [""; 0]);
    assert_eq!(scene.asked_at(65_450), ["a.test"]);
    scene.resolved("a.test", &["192.0.2.3"]);
    assert_eq!(asked(&mut scene), ["b.test"]);
    // After a failed look-up, the addresses of the last successful look-up stay in use.
    scene
        .node
        .handle_resolved("b.test", Err("refused".into()), at(65_450));
    scene.connects(ip("203.0.113.1"));
    for (address, is_own) in [
        ("192.0.2.1", false),
        ("192.0.2.2", true),
        ("192.0.2.3", true),
    ] {
        assert_eq!(scene.connects(ip(address)).is_some(), is_own, "{address}");
    }
    scene.node.handle_stop(at(65_451));
    assert_eq!(scene.asked_at(200_000), [""; 0]);
}

#[test]
fn a_hung_name_lookup_blocks_only_one_thread() {
    let mut scene = Scene::with_diallers(&["a.test", "b.test", "c.test"]);
    assert_eq!(asked(&mut scene), ["a.test"]);
    for second in 1..300 {
        assert_eq!(scene.asked_at(second * 1_000), [""; 0]);
    }
    scene.resolved("a.test", &["192.0.2.1"]);
    assert_eq!(asked(&mut scene), ["b.test"]);
}
