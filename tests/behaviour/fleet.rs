//! The servers of one herd, each with its own directory and config file, as on separate machines.
//! So a test can change them one at a time.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use herd_testkit::herd::{Herd, Server};

use crate::tls::{Authority, FOR_PEERS};

/// One server, with its own copy of the herd's configuration.
struct Member {
    herd: Herd,
    clients: SocketAddr,
}

/// All servers of the herd.
pub(crate) struct Fleet {
    members: Vec<(String, Member)>,
}

/// The table `[peers.tls]` in one server's config file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PeersTls {
    None,
    Offered,
    Required,
}

impl PeersTls {
    pub(crate) const ALL: [PeersTls; 3] = [PeersTls::None, PeersTls::Offered, PeersTls::Required];

    fn toml(self) -> String {
        match self {
            PeersTls::None => String::new(),
            PeersTls::Offered => format!("{FOR_PEERS}mode = \"offered\"\n"),
            PeersTls::Required => FOR_PEERS.to_owned(),
        }
    }
}

impl Fleet {
    /// Writes the files of servers that share an old secret and these links. Starts nothing.
    pub(crate) fn new(names: &[&str], links: &[(&str, &str)]) -> Fleet {
        let ports = Herd::new(names, links);
        let addresses: Vec<_> = names
            .iter()
            .map(|name| {
                (
                    *name,
                    ports.clients_address(name),
                    ports.peers_address(name),
                )
            })
            .collect();
        let member = |&(name, clients, _): &(&str, SocketAddr, SocketAddr)| {
            let herd = Herd::at(&addresses, links)
                .env("HERD_SECRET", "")
                .with_top("secret_file = \"herd.secret\"\ndata_dir = \"data\"\n");
            (name.to_owned(), Member { herd, clients })
        };
        let fleet = Fleet {
            members: addresses.iter().map(member).collect(),
        };
        names
            .iter()
            .for_each(|name| fleet.secret(name, "the old secret of the herd\n"));
        fleet
    }

    pub(crate) fn names(&self) -> Vec<String> {
        self.members.iter().map(|(name, _)| name.clone()).collect()
    }

    pub(crate) fn links(&self) -> &[(String, String)] {
        self.members[0].1.herd.links()
    }

    fn member(&self, name: &str) -> &Member {
        let found = self.members.iter().find(|(other, _)| other == name);
        &found.unwrap().1
    }

    pub(crate) fn directory(&self, name: &str) -> &Path {
        self.member(name).herd.directory.path()
    }

    pub(crate) fn clients_address(&self, name: &str) -> SocketAddr {
        self.member(name).clients
    }

    /// The configuration of this server.
    pub(crate) fn herd(&self, name: &str) -> &Herd {
        &self.member(name).herd
    }

    /// Writes this server's `herd.secret`.
    pub(crate) fn secret(&self, name: &str, text: &str) {
        fs::write(self.directory(name).join("herd.secret"), text).unwrap();
    }

    /// Writes this server's `ca.pem`, the authorities that it trusts.
    pub(crate) fn trust(&self, name: &str, authorities: &[&Authority]) {
        let pem: String = authorities.iter().map(|it| it.pem()).collect();
        fs::write(self.directory(name).join("ca.pem"), pem).unwrap();
    }

    /// Writes this server's certificate and key.
    pub(crate) fn certify(&self, name: &str, authority: &Authority) {
        authority.certify(self.directory(name), name, name, false);
    }

    /// Rewrites this server's config file, with the tables in `more`. The server has to be
    /// restarted then.
    pub(crate) fn configure(&mut self, name: &str, tls: PeersTls, more: &str) {
        let found = self.members.iter_mut().find(|(other, _)| other == name);
        let member = &mut found.unwrap().1;
        member.herd.replace_tables(&format!("{}{more}", tls.toml()));
    }

    pub(crate) fn start(&self, name: &str) -> Server {
        self.member(name).herd.start(name)
    }
}
