//! A herd in which each server is a host of a network that a test can break.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use herd_mio::core::base::hex::{Hex, unhex};
use herd_mio::core::base::settings::Secret;
use herd_mio::core::link::OPERATOR;
use herd_mio::core::link::proof::{Nonce, Parties, Side};
use herd_testkit::client::Client;
use herd_testkit::herd::{Herd, Server};

use crate::network::Network;

/// The port on which every server listens for clients, on its own host's loopback. The faults of
/// the network do not reach it.
const CLIENTS_PORT: u16 = 10_000;
/// The port on which every server listens for neighbours, at its host's address.
const PEERS_PORT: u16 = 11_000;
const SECRET: &str = "known to each of the hosts";

/// The status that a server reports to an operator.
#[derive(Debug)]
struct Standing {
    records: usize,
    digest: String,
    /// The number of neighbours that it is linked with.
    linked: usize,
}

/// Running, linked servers.
pub(crate) struct Stage {
    // Dropped before the network: the servers stop before their hosts vanish.
    servers: HashMap<String, Server>,
    pub(crate) network: Network,
    herd: Herd,
}

impl Stage {
    /// Starts a server on each host, and waits until all links are up. The first name of a link
    /// dials.
    pub(crate) fn new(names: &[&str], links: &[(&str, &str)]) -> Stage {
        let network = Network::new(names).unwrap();
        let members: Vec<_> = (1..)
            .zip(names)
            .map(|(number, name)| {
                let clients = SocketAddr::from(([127, 0, 0, number], CLIENTS_PORT));
                (*name, clients, network.address(name, PEERS_PORT))
            })
            .collect();
        let herd = Herd::at(&members, links).env("HERD_SECRET", SECRET);
        let start = |name: &&str| {
            let server = network.within(name, || herd.start(name));
            ((*name).to_owned(), server)
        };
        let stage = Stage {
            servers: names.iter().map(start).collect(),
            network,
            herd,
        };
        for (a, b) in links {
            for (name, other) in [(a, b), (b, a)] {
                let other = format!("neighbour {other} ");
                stage.server(name).wait_for_log(&other, ": linked, ");
            }
        }
        stage
    }

    pub(crate) fn server(&self, name: &str) -> &Server {
        &self.servers[name]
    }

    /// Connects a client on the server's own host.
    pub(crate) fn client(&self, name: &str) -> Client {
        self.network.within(name, || self.server(name).client())
    }

    /// Asks a server for its status, as an operator does.
    fn standing(&self, name: &str) -> Standing {
        let address = self.herd.peers_address(name);
        let mut operator = self.network.within(name, || Client::connect(address));
        let nonce: Nonce = [7; 16];
        operator.send(format!("HERD 2 {OPERATOR} {name} {}\n", Hex(&nonce)));
        let greeting = operator.line();
        let theirs = greeting.rsplit(' ').next().unwrap();
        let theirs: Nonce = unhex(theirs.as_bytes()).unwrap_or_else(|| panic!("{greeting}"));
        let parties = Parties {
            dialler: (OPERATOR, &nonce),
            acceptor: (name, &theirs),
        };
        let secret = Secret::new(SECRET.into());
        operator.send(format!("PROOF {}\n", parties.prove(Side::Dialler, &secret)));
        operator.line();
        let status = operator.line();
        let pairs = status.split(' ').filter_map(|pair| pair.split_once('='));
        let values = |key: &'static str| {
            let own = pairs.clone().filter(move |(known, _)| *known == key);
            own.map(|(_, value)| value)
        };
        let [Some(records), Some(digest)] = ["records", "digest"].map(|key| values(key).next())
        else {
            panic!("{status}");
        };
        Standing {
            records: records.parse().unwrap(),
            digest: digest.to_owned(),
            linked: values("link").count(),
        }
    }

    /// Waits until all servers hold the same records, this many, and each has all its links. Fails
    /// at the deadline.
    pub(crate) fn wait_until_agreed(&self, records: usize, deadline: Instant) {
        let names = self.herd.names();
        loop {
            let standings: Vec<Standing> = names.iter().map(|name| self.standing(name)).collect();
            let agreed = names.iter().zip(&standings).all(|(name, standing)| {
                let ends = self
                    .herd
                    .links()
                    .iter()
                    .filter(|(a, b)| a == name || b == name);
                standing.records == records
                    && standing.digest == standings[0].digest
                    && standing.linked == ends.count()
            });
            if agreed {
                return;
            }
            assert!(
                Instant::now() < deadline,
                "not all hold the same {records} records and have all their links in time: {names:?} {standings:#?}"
            );
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// Waits for the log line that says that a server received this update from a neighbour.
    pub(crate) fn heard(&self, name: &str, update: &str) -> String {
        self.server(name).wait_for_log(" heard ", update)
    }
}
