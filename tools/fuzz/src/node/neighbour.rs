//! The three neighbours: what each knows and teaches, and how it talks to the server.

use std::collections::BTreeMap;

use herd_mio::core::base::hex::{Hex, unhex};
use herd_mio::core::base::settings::Secret;
use herd_mio::core::link::proof::{Nonce, Parties, Side};

use crate::reference::At;
use crate::server;

/// Their names; the server dials the last.
pub(crate) const NAMES: [&str; 3] = ["Riley", "Bernard", "Campbell"];
/// Which of them the server dials.
pub(crate) const DIALLED: usize = 2;
const NONCE: Nonce = [9; 16];

/// What a neighbour knows, whatever becomes of its connections.
#[derive(Default)]
pub(crate) struct Neighbour {
    name: &'static str,
    /// Counts its lives.
    boot: u64,
    /// The greatest line of each client that it has met.
    pub(crate) table: BTreeMap<Vec<u8>, At>,
    /// Its own feed, with all that ever was in it.
    feed: Vec<At>,
    /// Up to where it said that its feed goes.
    synced: u64,
    /// The server's life that it knows, and up to where.
    knows: Option<(String, u64)>,
}

impl Neighbour {
    pub(crate) fn new(name: &'static str) -> Neighbour {
        Neighbour {
            name,
            boot: 1,
            ..Neighbour::default()
        }
    }

    /// It begins anew, and knows nothing.
    pub(crate) fn restart(&mut self) {
        *self = Neighbour {
            boot: self.boot + 1,
            ..Neighbour::new(self.name)
        };
    }

    /// One of its clients is somewhere: what it says of that, and `SYNC` with it if it is to say how far it has got.
    pub(crate) fn teach(&mut self, line: &[u8], syncs: bool) -> Vec<u8> {
        let Some(at) = At::read(line) else {
            return Vec::new();
        };
        let epoch = self.table.get(&at.client).map_or(0, |held| held.epoch);
        let at = At { epoch, ..at };
        let mut said = [&*at.to_link(), b"\n"].concat();
        self.meet(at);
        if syncs {
            said.extend_from_slice(&self.sync());
        }
        said
    }

    /// How far its feed goes.
    pub(crate) fn sync(&mut self) -> Vec<u8> {
        self.synced = self.feed.len() as u64;
        format!("SYNC {}\n", self.synced).into_bytes()
    }

    /// It learns of a position, from a client or from the server; if it is news, it is in its feed.
    fn meet(&mut self, at: At) {
        if self.table.get(&at.client) < Some(&at) {
            self.table.insert(at.client.clone(), at.clone());
            self.feed.push(at);
        }
    }

    /// It is told up to where the server has heard it: what the server has to have then, and what it lacks.
    fn heard(&mut self, boot: &str, position: &str) -> (Vec<At>, Vec<u8>) {
        let mut from = 0;
        if boot == format!("{:016x}", self.boot) {
            let position: u64 = position.parse().unwrap_or(u64::MAX);
            assert!(position <= self.synced, "{} never said so", self.name);
            from = position as usize;
        }
        let mut lacks = Vec::new();
        for at in &self.feed[from..] {
            lacks.extend_from_slice(&at.to_link());
            lacks.push(b'\n');
        }
        lacks.extend_from_slice(&self.sync());
        (self.feed[..from].to_vec(), lacks)
    }
}

/// One connection of a neighbour.
pub(crate) struct Talk {
    pub(crate) neighbour: usize,
    is_dialled: bool,
    /// What the server wrote that makes no whole line yet.
    heard: Vec<u8>,
    their_nonce: Option<Nonce>,
    /// It has told its life, and knows the server's.
    pub(crate) is_linked: bool,
    /// It says what the protocol wants.
    pub(crate) is_honest: bool,
    /// It was told why it is over.
    pub(crate) is_over: bool,
    boot: String,
}

impl Talk {
    /// A connection, and what the neighbour says first.
    pub(crate) fn new(neighbour: usize, is_honest: bool) -> (Talk, Vec<u8>) {
        let is_dialled = neighbour == DIALLED;
        let talk = Talk {
            neighbour,
            is_dialled,
            heard: Vec::new(),
            their_nonce: None,
            is_linked: false,
            is_honest,
            is_over: false,
            boot: String::new(),
        };
        let first = if is_honest && !is_dialled {
            talk.hello()
        } else {
            Vec::new()
        };
        (talk, first)
    }

    fn hello(&self) -> Vec<u8> {
        let name = NAMES[self.neighbour];
        format!("HERD 2 {name} {} {}\n", server::NAME, Hex(&NONCE)).into_bytes()
    }

    /// The server has written this. Returns what the neighbour says to it, and the records that the server claims to have of it.
    pub(crate) fn hears(
        &mut self,
        bytes: &[u8],
        neighbour: &mut Neighbour,
        secret: &Secret,
    ) -> (Vec<u8>, Vec<At>) {
        self.heard.extend_from_slice(bytes);
        let (mut says, mut claims) = (Vec::new(), Vec::new());
        while let Some(end) = self.heard.iter().position(|&byte| byte == b'\n') {
            let line: Vec<u8> = self.heard.drain(..=end).collect();
            if self.is_honest && !self.is_over {
                self.hears_line(&line[..end], neighbour, secret, &mut says, &mut claims);
            }
        }
        (says, claims)
    }

    fn hears_line(
        &mut self,
        line: &[u8],
        neighbour: &mut Neighbour,
        secret: &Secret,
        says: &mut Vec<u8>,
        claims: &mut Vec<At>,
    ) {
        if let Some(at) = At::of_link(line) {
            assert!(self.is_linked, "nothing before both have told their lives");
            return neighbour.meet(at);
        }
        let text = String::from_utf8_lossy(line).into_owned();
        let words: Vec<&str> = text.split(' ').collect();
        match *words {
            ["HERD", "2", from, to, nonce] if from == server::NAME && to == neighbour.name => {
                self.their_nonce = unhex(nonce.as_bytes());
                if self.is_dialled {
                    says.extend_from_slice(&self.hello());
                } else {
                    says.extend_from_slice(self.proof(secret, Side::Dialler).as_bytes());
                }
            }
            ["PROOF", _] if self.is_dialled => {
                assert_eq!(format!("{text}\n"), self.proof(secret, Side::Dialler));
                says.extend_from_slice(self.proof(secret, Side::Acceptor).as_bytes());
            }
            ["PROOF", _] => assert_eq!(format!("{text}\n"), self.proof(secret, Side::Acceptor)),
            ["LIFE", boot, _, own_boot, position] => {
                self.boot = boot.to_owned();
                self.is_linked = true;
                let (known, at) = match &neighbour.knows {
                    Some((known, at)) => (known.as_str(), *at),
                    None => ("-", 0),
                };
                let life = format!(
                    "LIFE {:016x} {} {known} {at}\n",
                    neighbour.boot,
                    server::at(0).wall
                );
                says.extend_from_slice(life.as_bytes());
                let (claimed, lacks) = neighbour.heard(own_boot, position);
                claims.extend(claimed);
                says.extend_from_slice(&lacks);
            }
            ["SYNC", position] if self.is_linked => {
                neighbour.knows = Some((self.boot.clone(), position.parse().unwrap_or(u64::MAX)));
                says.extend_from_slice(format!("KEPT {position}\n").as_bytes());
            }
            ["KEPT", position] if self.is_linked => {
                let position: u64 = position.parse().unwrap_or(u64::MAX);
                assert!(
                    position <= neighbour.synced,
                    "{} never said so",
                    neighbour.name
                );
                claims.extend_from_slice(&neighbour.feed[..position as usize]);
            }
            ["LACKS" | "CLOCK", number] if self.is_linked => {
                assert!(number.parse::<u64>().is_ok(), "{text}");
            }
            ["BYE", ..] => self.is_over = true,
            _ => panic!("{} is told {text}", neighbour.name),
        }
    }

    fn proof(&self, secret: &Secret, speaker: Side) -> String {
        let Some(their_nonce) = &self.their_nonce else {
            panic!("a proof before a nonce");
        };
        let own = (NAMES[self.neighbour], &NONCE);
        let other = (server::NAME, their_nonce);
        let parties = if self.is_dialled {
            Parties {
                dialler: other,
                acceptor: own,
            }
        } else {
            Parties {
                dialler: own,
                acceptor: other,
            }
        };
        format!("PROOF {}\n", parties.prove(speaker, secret))
    }
}
