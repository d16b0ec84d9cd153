//! The host name of Places has addresses that never answer: packets to them vanish, or they accept
//! connections and send nothing.

use std::fmt::Write as _;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::Command;
use std::time::{Duration, Instant};

use herd_places::{Options, Places};
use herd_testkit::client::Client;
use herd_testkit::herd::{Herd, Server};

use crate::machine;
use crate::network::Network;

/// Starts Riley in a mount namespace with its own `/etc/hosts`, in which `places.test` has these
/// addresses.
fn start(herd: &Herd, addresses: &[IpAddr], port: u16) -> Server {
    let hosts = herd.directory.path().join("hosts");
    let mut text = String::new();
    for address in addresses {
        writeln!(text, "{address} places.test").unwrap();
    }
    fs::write(&hosts, text).unwrap();
    let original = herd.command("Riley");
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "sh", "-c"])
        .arg("mount --bind \"$0\" /etc/hosts && exec \"$@\"")
        .arg(hosts)
        .arg(original.get_program())
        .args(original.get_args())
        .args(["--places-url", &format!("https://places.test:{port}")])
        .current_dir(herd.directory.path());
    for (name, value) in original.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    Server::start(&mut command)
}

fn at(address: SocketAddr) -> Options {
    Options {
        listen: address,
        ..Options::default()
    }
}

fn ask(client: &mut Client) -> (String, Duration) {
    let begun = Instant::now();
    let json = client.send("WHATSAT kiwi 10 5\n").places().1;
    (json, begun.elapsed())
}

#[test]
fn an_unreachable_places_address_is_tried_once() {
    if !machine::allows("addresses where packets vanish") {
        return;
    }
    for (silent, slow_ms) in [(1, None), (2, None), (4, None), (4, Some(2_000))] {
        let network = Network::new(&["Alice", "Bob"]).unwrap();
        let [clients, peers, places] = [("Alice", 10_000), ("Alice", 11_000), ("Bob", 443)]
            .map(|(name, port)| network.address(name, port));
        let addresses = match network.silent("Alice", "Bob", silent) {
            Ok(addresses) => addresses,
            Err(why) => return machine::skipped("addresses of IPv6 where packets vanish", &why),
        };
        let addresses: Vec<IpAddr> = addresses
            .into_iter()
            .map(IpAddr::from)
            .chain([places.ip()])
            .collect();
        let places = network.within("Bob", || Places::start(at(places)).unwrap());
        let mut herd = Herd::at(&[("Riley", clients, peers)], &[]).asking(&places);
        if let Some(ms) = slow_ms {
            herd = herd.with(&format!("[limits]\nplaces_attempt_ms = {ms}\n"));
        }
        let server = network.within("Alice", || start(&herd, &addresses, 443));
        let mut client = network.within("Alice", || server.client());
        client.ask("IAMAT kiwi +34.068930-118.445127 1");
        let (json, took) = ask(&mut client);
        assert!(
            json.contains("\"status\" : \"OK\""),
            "{silent} silent: {json}"
        );
        // The second attempt goes to the other address family, which works.
        let turn = Duration::from_millis(slow_ms.unwrap_or(250));
        assert!(
            (turn..turn + Duration::from_secs(2)).contains(&took),
            "{silent} silent addresses, then one that works: {took:?}"
        );
        let vanished = network.lost("Bob");
        assert!(vanished > 0, "no silent address was tried");
        // From now on the address that worked is tried first, also after the name was resolved
        // again.
        for connection in 2..=4 {
            assert_eq!(places.close_idle(), 1);
            let (json, _) = ask(&mut client);
            assert!(json.contains("\"status\" : \"OK\""), "{json}");
            assert_eq!(places.connections(), connection);
        }
        assert_eq!(
            network.lost("Bob"),
            vanished,
            "a silent address was tried again"
        );
    }
}

#[test]
fn a_silent_places_address_costs_one_short_delay() {
    if !machine::allows("names with several addresses") {
        return;
    }
    let own = |last| IpAddr::from(Ipv4Addr::new(127, 77, 0, last));
    let network = Network::new(&["Alice", "Bob"]).unwrap();
    network.within("Alice", || {
        let good = Places::start(at((own(5), 0).into())).unwrap();
        let port = good.address().port();
        let silent = Places::start(Options {
            silent_accept: true,
            ..at((own(2), port).into())
        })
        .unwrap();
        let impostor = Places::start(at((own(3), port).into())).unwrap();
        let peers = [10_000, 11_000].map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
        let herd = Herd::at(&[("Riley", peers[0], peers[1])], &[]).asking(&good);
        // Nothing listens at 127.77.0.4. In whatever order the addresses are tried, no bad one
        // delays the good one for long.
        let addresses = [2, 3, 4, 5].map(own);
        let server = start(&herd, &addresses, port);
        let mut client = server.client();
        client.ask("IAMAT kiwi +34.068930-118.445127 1");
        let (json, took) = ask(&mut client);
        assert!(json.contains("\"status\" : \"OK\""), "{json}");
        assert!(took < Duration::from_secs(2), "{took:?}");
        assert_eq!(good.requests().len(), 1);
        let counts = |places: &Places| places.connections();
        let tried = (counts(&silent), counts(&impostor));
        assert!(
            tried.0 > 0,
            "the order of the addresses has changed: {tried:?}"
        );
        // The connection that lost the race is closed long before the time limit of its handshake.
        assert!(
            silent.wait_until(Duration::from_secs(2), |counts| counts.open_connections
                == 0)
        );
        for connection in 2..=3 {
            assert_eq!(good.close_idle(), 1);
            assert!(ask(&mut client).0.contains("\"status\" : \"OK\""));
            assert_eq!(good.connections(), connection);
        }
        assert_eq!(
            (counts(&silent), counts(&impostor)),
            tried,
            "what worked is not remembered"
        );
        // When the good address is gone, the others are tried. The error names the most useful
        // reason.
        let port = good.address();
        drop(good);
        let error = ask(&mut client).0;
        assert!(
            error.contains("its certificate was refused"),
            "{error} at {port}"
        );
        assert!(silent.connections() > tried.0 && impostor.connections() > tried.1);
    });
}
