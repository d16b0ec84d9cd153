//! One server without a socket: a [`Node`], driven as [`herd_mio::shell::event_loop`] drives it.
//! Memory takes the place of sockets. The clock advances by a millisecond with each read.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use herd_mio::config::{HerdConfig, Overrides, Source};
use herd_mio::core::base::clock::{Now, Time};
use herd_mio::core::base::hex::{Hex, unhex};
use herd_mio::core::base::settings::{HostPort, NeighbourSettings, Secret, Settings};
use herd_mio::core::journal::durability::{DiskDone, DiskWork};
use herd_mio::core::link::proof::{Nonce, Parties, Side};
use herd_mio::core::node::{ConnId, Io, Node, Wants, drive};
use herd_mio::core::session::connection_error::SocketError;

use crate::crowd::WALL_NS;
use crate::workload::Failure;

/// The name of the measured server.
pub(crate) const SERVER: &str = "Riley";
/// The neighbours that it can have. They dial it.
pub(crate) const NEIGHBOURS: [&str; 4] = ["Jaquez", "Juzang", "Campbell", "Bernard"];

const MILLISECOND_NS: u64 = 1_000_000;
const SECRET: &[u8] = b"known to the herd alone";
const SEED: [u8; 32] = [7; 32];
const NONCE: Nonce = [9; 16];

/// The settings of a server without a config file, and without neighbours.
pub(crate) fn settings() -> Result<Settings, Failure> {
    let herd = HerdConfig::load(&Source::Name, Some(SERVER)).map_err(|error| error.to_string())?;
    let config = herd.server(SERVER, &Overrides::default());
    let mut settings = config.map_err(|error| error.to_string())?.settings;
    settings.neighbours.clear();
    settings.secrets = Secret::new(SECRET.to_vec()).into();
    Ok(settings)
}

/// Bytes that come in on a connection in one read.
pub(crate) struct Read {
    pub(crate) id: ConnId,
    pub(crate) bytes: Vec<u8>,
}

/// The server and all its output.
pub(crate) struct Stage {
    pub(crate) node: Node,
    memory: Memory,
}

/// An [`Io`] without sockets: it stores all output at once.
struct Memory {
    now: Now,
    /// What was written to each connection, by the connection's index.
    written: Vec<Vec<u8>>,
    /// Connections whose output was not written to the end.
    unfinished: Vec<ConnId>,
    /// Connections that were closed or shut down.
    closed: usize,
}

impl Io for Memory {
    fn now(&mut self) -> Now {
        self.now
    }

    fn connect(&mut self, _id: ConnId, address: SocketAddr) -> Result<(), SocketError> {
        Err(format!("there is no path to {address}").into())
    }

    fn resolve(&mut self, host: &str) -> Result<(), String> {
        Err(format!("there is no resolver for {host}"))
    }

    fn perform(&mut self, _node: &Node, _work: DiskWork) -> Option<DiskDone> {
        None // There is no data directory.
    }

    fn is_writable(&self, _id: ConnId) -> bool {
        true
    }

    fn write(&mut self, id: ConnId, bytes: &[u8]) -> Result<usize, SocketError> {
        // A copy, as in the kernel.
        self.written[id.index()].extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn finish(&mut self, _id: ConnId) {
        self.closed += 1;
    }

    fn close(&mut self, _id: ConnId, _why: Option<&SocketError>) {
        self.closed += 1;
    }

    fn flushed(&mut self, _node: &Node, id: ConnId, wants: Wants) {
        if wants.write {
            self.unfinished.push(id);
        }
    }
}

impl Stage {
    /// A server with so many linked neighbours, and without records.
    pub(crate) fn new(neighbours: usize) -> Result<(Stage, Vec<ConnId>), Failure> {
        let mut settings = settings()?;
        settings.neighbours = NEIGHBOURS[..neighbours]
            .iter()
            .map(|name| NeighbourSettings {
                name: (*name).to_owned(),
                address: HostPort {
                    host: "192.0.2.1".to_owned(),
                    port: 1,
                },
                we_dial: false,
            })
            .collect();
        let now = Now {
            time: Time::from_nanos(0),
            wall: WALL_NS,
        };
        let mut stage = Stage {
            node: Node::new(settings, &SEED, now),
            memory: Memory {
                now,
                written: Vec::new(),
                unfinished: Vec::new(),
                closed: 0,
            },
        };
        let links = NEIGHBOURS[..neighbours]
            .iter()
            .map(|name| stage.link(name))
            .collect::<Result<Vec<ConnId>, Failure>>()?;
        stage.forget_written();
        Ok((stage, links))
    }

    /// So many clients connect, each from its own address.
    pub(crate) fn clients(&mut self, count: usize) -> Result<Vec<ConnId>, Failure> {
        let first = u32::from(Ipv4Addr::new(198, 18, 0, 1));
        (first..)
            .take(count)
            .map(|address| {
                let address = SocketAddr::new(IpAddr::V4(address.into()), 4_000);
                let client = self.node.handle_client_connected(address, self.memory.now);
                let client = client.ok_or("a client is refused")?;
                self.make_room(client);
                Ok(client)
            })
            .collect()
    }

    /// A neighbour dials, proves its name, and says that it has no records.
    fn link(&mut self, name: &str) -> Result<ConnId, Failure> {
        let address = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 4_000);
        let id = self
            .node
            .handle_neighbour_connected(address, self.memory.now);
        let id = id.ok_or("a neighbour is refused")?;
        self.make_room(id);

        self.hear(id, &format!("HERD 2 {name} {SERVER} {}\n", Hex(&NONCE)));
        let greeting = self.take_text(id);
        let nonce = greeting.split_whitespace().last().map(str::as_bytes);
        let nonce: Nonce = nonce
            .and_then(unhex)
            .ok_or_else(|| format!("the greeting for {name} is {greeting:?}"))?;
        let parties = Parties {
            dialler: (name, &NONCE),
            acceptor: (SERVER, &nonce),
        };
        let proof = parties.prove(Side::Dialler, &Secret::new(SECRET.to_vec()));
        self.hear(id, &format!("PROOF {proof}\n"));
        let answer = self.take_text(id);
        if !answer.contains("\nLIFE ") {
            return Err(format!("the proof of {name} was refused: {answer:?}"));
        }
        let wall = self.memory.now.wall;
        self.hear(
            id,
            &format!("LIFE {:016x} {wall} - 0\nSYNC 0\n", id.to_u64()),
        );
        Ok(id)
    }

    fn hear(&mut self, id: ConnId, text: &str) {
        let read = Read {
            id,
            bytes: text.as_bytes().to_vec(),
        };
        self.turn(&[read]);
    }

    fn take_text(&mut self, id: ConnId) -> String {
        let written = std::mem::take(&mut self.memory.written[id.index()]);
        String::from_utf8_lossy(&written).into_owned()
    }

    fn make_room(&mut self, id: ConnId) {
        if self.memory.written.len() <= id.index() {
            self.memory.written.resize_with(id.index() + 1, Vec::new);
        }
    }

    /// The wall clock at which the server receives a read, if so many reads come before it.
    pub(crate) fn receipt_ns(&self, reads_before: usize) -> u64 {
        self.memory.now.wall + (reads_before as u64 + 1) * MILLISECOND_NS
    }

    /// One turn of the loop for these reads. More turns follow until all output is written.
    pub(crate) fn turn(&mut self, ready: &[Read]) {
        for Read { id, bytes } in ready {
            let now = &mut self.memory.now;
            now.wall += MILLISECOND_NS;
            now.time = Time::from_nanos(now.time.as_nanos().saturating_add(MILLISECOND_NS));
            self.node.handle_writable(*id);
            if self.node.wants_read(*id) {
                self.node.handle_data_received(*id, bytes, *now);
            }
        }
        loop {
            let now = self.memory.now;
            drive(&mut self.node, &mut self.memory, now);
            if self.memory.unfinished.is_empty() {
                return;
            }
            for id in self.memory.unfinished.drain(..) {
                self.node.handle_writable(id);
            }
        }
    }

    /// What was written to a connection since [`Stage::forget_written`].
    pub(crate) fn written(&self, id: ConnId) -> &[u8] {
        &self.memory.written[id.index()]
    }

    /// Empties the buffers but keeps their memory: a pass must not pay for allocations that a
    /// socket would not need.
    pub(crate) fn forget_written(&mut self) {
        self.memory.written.iter_mut().for_each(Vec::clear);
    }

    /// Checks that no connection was closed.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        match self.memory.closed {
            0 => Ok(()),
            count => Err(format!("{count} connections were closed")),
        }
    }
}

/// Checks that `written` is `expected`. The error names the first line that differs.
pub(crate) fn same(what: &str, written: &[u8], expected: &[u8]) -> Result<(), Failure> {
    if written == expected {
        return Ok(());
    }
    let mut lines = written.split(|&byte| byte == b'\n');
    for line in expected.split(|&byte| byte == b'\n') {
        let found = lines.next().unwrap_or(b"(nothing)");
        if found != line {
            let (found, line) = (
                String::from_utf8_lossy(found),
                String::from_utf8_lossy(line),
            );
            return Err(format!("{what}: {found:?} instead of {line:?}"));
        }
    }
    Err(format!("{what}: more output than expected"))
}
