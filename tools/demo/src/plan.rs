//! The servers, their links and addresses, and the config file with all that.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use herd_testkit::ports;
use herd_testkit::server::{self, Member};

/// The file with the certificate authority of the stand-in for Places, beside the config file.
pub(crate) const CA_FILE: &str = "ca.pem";

/// The client of the first steps, which the user may ask for later. Real clients have such long
/// names.
pub(crate) const KIWI: &str = "kiwi.cs.ucla.edu";

/// The first server's usual port for clients; the others follow in order.
const CLIENT_PORT: u16 = 10_000;
/// The first server's usual port for neighbours.
const PEER_PORT: u16 = 11_000;

/// A server of the herd of 2021.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Who {
    Riley,
    Jaquez,
    Juzang,
    Campbell,
    Bernard,
}

use Who::{Bernard, Campbell, Jaquez, Juzang, Riley};

impl Who {
    /// In the order of their ports.
    pub(crate) const ALL: [Who; 5] = [Riley, Jaquez, Juzang, Campbell, Bernard];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Riley => "Riley",
            Jaquez => "Jaquez",
            Juzang => "Juzang",
            Campbell => "Campbell",
            Bernard => "Bernard",
        }
    }

    pub(crate) fn neighbours(self) -> impl Iterator<Item = Who> {
        LINKS.into_iter().filter_map(move |(a, b)| {
            if a == self {
                Some(b)
            } else {
                (b == self).then_some(a)
            }
        })
    }
}

/// The pairs of linked servers. The first of a pair dials.
pub(crate) const LINKS: [(Who, Who); 6] = [
    (Riley, Jaquez),
    (Riley, Juzang),
    (Bernard, Jaquez),
    (Bernard, Juzang),
    (Bernard, Campbell),
    (Juzang, Campbell),
];

/// The addresses on which a server listens.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Doors {
    pub(crate) clients: SocketAddr,
    pub(crate) peers: SocketAddr,
}

/// The addresses of all servers.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// In the order of [`Who::ALL`].
    doors: [Doors; 5],
}

impl Plan {
    /// The ports that a bare `herd-mio NAME` uses.
    pub(crate) fn usual() -> Plan {
        let at = |port: u16| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let places = [0, 1, 2, 3, 4];
        Plan {
            doors: places.map(|place| Doors {
                clients: at(CLIENT_PORT + place),
                peers: at(PEER_PORT + place),
            }),
        }
    }

    /// Free ports that the system chooses. Another program may take one before the herd does.
    pub(crate) fn elsewhere() -> io::Result<Plan> {
        let free = ports::free_at(Ipv4Addr::LOCALHOST, 2 * Who::ALL.len())?;
        let mut plan = Plan::usual();
        for (doors, free) in plan.doors.iter_mut().zip(free.chunks_exact(2)) {
            *doors = Doors {
                clients: free[0],
                peers: free[1],
            };
        }
        Ok(plan)
    }

    /// The first address that another program has.
    pub(crate) fn taken(&self) -> Option<SocketAddr> {
        let addresses = self
            .doors
            .iter()
            .flat_map(|doors| [doors.clients, doors.peers]);
        addresses
            .into_iter()
            .find(|address| TcpListener::bind(address).is_err())
    }

    pub(crate) fn doors(&self, who: Who) -> Doors {
        self.doors[who as usize]
    }

    /// The config file that all five servers share.
    pub(crate) fn config_file(&self, places_url: &str) -> String {
        let addresses = self
            .doors
            .map(|doors| (doors.clients.to_string(), doors.peers.to_string()));
        let mut members = Vec::new();
        for (who, (clients, peers)) in Who::ALL.into_iter().zip(&addresses) {
            members.push(Member {
                name: who.name(),
                clients,
                peers,
            });
        }
        let herd = server::config(&LINKS.map(|(a, b)| (a.name(), b.name())), &members);
        format!(
            "# The herd that `cargo demo` shows.\n\n{herd}\n[places]\napi = \"legacy\"\nurl = \"{places_url}\"\nca_file = \"{CA_FILE}\"\n\n[log]\nlevel = \"info\"\n"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use herd_mio::presets;
    use std::collections::HashSet;

    #[test]
    fn the_demo_herd_is_the_default_preset() {
        let preset = presets::by_year(presets::DEFAULT_YEAR).unwrap();
        assert_eq!(Who::ALL.map(Who::name), preset.servers);
        assert_eq!(LINKS.map(|(a, b)| (a.name(), b.name())), preset.links);
        assert_eq!(
            (CLIENT_PORT, PEER_PORT),
            (presets::CLIENT_PORT, presets::PEER_PORT)
        );
    }

    #[test]
    fn each_server_is_at_its_index() {
        for (place, who) in Who::ALL.into_iter().enumerate() {
            assert_eq!(who as usize, place);
        }
    }

    #[test]
    fn ten_different_free_ports_are_found() {
        let plan = Plan::elsewhere().unwrap();
        let ports: HashSet<SocketAddr> = Who::ALL
            .map(|who| [plan.doors(who).clients, plan.doors(who).peers])
            .concat()
            .into_iter()
            .collect();
        assert_eq!(ports.len(), 10);
    }

    #[test]
    fn a_port_in_use_is_detected() {
        let mut plan = Plan::elsewhere().unwrap();
        let squatter = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        plan.doors[3].peers = squatter.local_addr().unwrap();
        assert_eq!(plan.taken(), squatter.local_addr().ok());
    }

    #[test]
    fn neighbours_are_symmetric() {
        assert!(Riley.neighbours().eq([Jaquez, Juzang]));
        assert!(Jaquez.neighbours().eq([Riley, Bernard]));
        assert!(Campbell.neighbours().eq([Bernard, Juzang]));
    }
}
