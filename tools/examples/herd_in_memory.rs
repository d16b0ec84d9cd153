//! Tutorial 2: two servers of a herd without a socket, a thread or a clock.
//!
//! [`Node`] is the whole server as a value. Events and a time go in by `handle_*` methods. The next
//! things to do come out by `poll_*` methods. [`drive`] calls those in the order of a turn, and
//! passes the results to an [`Io`]. The real server's `Io` has sockets. The `Io` of this example
//! has byte queues, and the "network" copies bytes between two of them.
//!
//! ```text
//!   client ─ IAMAT ─► Riley ─ AT ─► the link ─► Jaquez
//!   client ◄─ AT ─┘
//! ```
//!
//! Run it with `cargo run --example herd_in_memory`.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use herd_mio::config::{HerdConfig, Overrides, Source};
use herd_mio::core::base::clock::{Now, Time};
use herd_mio::core::journal::durability::{DiskDone, DiskWork};
use herd_mio::core::node::{ConnId, Io, Node, Wants, drive};
use herd_mio::core::session::connection_error::SocketError;

/// The time `ms` after the beginning. In this example time advances only when the program says so.
fn at(ms: u64) -> Now {
    Now {
        time: Time::from_nanos(ms * 1_000_000),
        wall: 1_621_464_827_000_000_000 + ms * 1_000_000,
    }
}

/// The [`Io`] of one server: the bytes that it wrote to each connection, and the addresses that it
/// wants to connect to.
#[derive(Default)]
struct Queues {
    now_ms: u64,
    written: BTreeMap<ConnId, Vec<u8>>,
    dialled: Vec<ConnId>,
}

impl Io for Queues {
    fn now(&mut self) -> Now {
        at(self.now_ms)
    }

    fn connect(&mut self, id: ConnId, _: SocketAddr) -> Result<(), SocketError> {
        self.dialled.push(id);
        Ok(())
    }

    fn resolve(&mut self, host: &str) -> Result<(), String> {
        Err(format!("there are no names here, and no {host}"))
    }

    fn perform(&mut self, _: &Node, _: DiskWork) -> Option<DiskDone> {
        None // Without a data directory no disk work comes out.
    }

    fn is_writable(&self, _: ConnId) -> bool {
        true
    }

    fn write(&mut self, id: ConnId, bytes: &[u8]) -> Result<usize, SocketError> {
        self.written.entry(id).or_default().extend(bytes);
        Ok(bytes.len())
    }

    fn finish(&mut self, _: ConnId) {}

    fn close(&mut self, _: ConnId, _: Option<&SocketError>) {}

    fn flushed(&mut self, _: &Node, _: ConnId, _: Wants) {}
}

/// A server and its `Io`.
struct Machine {
    node: Node,
    io: Queues,
}

impl Machine {
    /// One of the 2021 herd's servers, with `neighbour` as its only neighbour.
    fn new(name: &str, neighbour: &str) -> Result<Machine, String> {
        let config = HerdConfig::load(&Source::Name, Some(name)).map_err(|it| it.to_string())?;
        let server = config.server(name, &Overrides::default());
        let mut settings = server.map_err(|error| error.to_string())?.settings;
        settings.neighbours.retain(|it| it.name == neighbour);
        // The seed decides everything random in the server.
        let seed = [name.as_bytes()[0]; 32];
        let node = Node::new(settings, &seed, at(0));
        let io = Queues::default();
        Ok(Machine { node, io })
    }

    /// Ends a turn: due deadlines are handled, and output is written.
    fn turn(&mut self) {
        let now = self.io.now();
        drive(&mut self.node, &mut self.io, now);
    }

    /// Bytes arrive on a connection. Returns whether there were any.
    fn receive(&mut self, id: ConnId, bytes: &[u8]) -> bool {
        if !bytes.is_empty() {
            let now = self.io.now();
            self.node.handle_data_received(id, bytes, now);
            self.turn();
        }
        !bytes.is_empty()
    }

    /// Takes what was written to a connection.
    fn take(&mut self, id: ConnId) -> Vec<u8> {
        self.io.written.remove(&id).unwrap_or_default()
    }
}

/// Two servers, and the ids of their link on either side.
pub(crate) struct World {
    riley: Machine,
    jaquez: Machine,
    link: (ConnId, ConnId),
    /// Every byte that crossed the link, as text.
    pub(crate) crossed: String,
}

impl World {
    /// Two linked servers.
    ///
    /// # Errors
    /// The herd of that name is not configured.
    pub(crate) fn new() -> Result<World, String> {
        let mut riley = Machine::new("Riley", "Jaquez")?;
        let mut jaquez = Machine::new("Jaquez", "Riley")?;
        riley.turn();
        jaquez.turn();
        // One side dials. The program plays the network: it reports the new connection to both
        // sides.
        let from: SocketAddr = ([127, 0, 0, 1], 50_000).into();
        let (dialler, acceptor, riley_dials) = match riley.io.dialled.is_empty() {
            false => (&mut riley, &mut jaquez, true),
            true => (&mut jaquez, &mut riley, false),
        };
        let dialled = dialler.io.dialled.pop().ok_or("neither side dials")?;
        let accepted = acceptor
            .node
            .handle_neighbour_connected(from, at(0))
            .ok_or("the acceptor stops")?;
        dialler.node.handle_connection_made(dialled, at(0));
        dialler.turn();
        acceptor.turn();
        let link = match riley_dials {
            true => (dialled, accepted),
            false => (accepted, dialled),
        };
        let mut world = World {
            riley,
            jaquez,
            link,
            crossed: String::new(),
        };
        world.carry();
        Ok(world)
    }

    /// Carries bytes over the link in both directions until there are none.
    fn carry(&mut self) {
        loop {
            let to_jaquez = self.riley.take(self.link.0);
            let to_riley = self.jaquez.take(self.link.1);
            for (arrow, bytes) in [
                ("Riley ─► Jaquez", &to_jaquez),
                ("Riley ◄─ Jaquez", &to_riley),
            ] {
                for line in String::from_utf8_lossy(bytes).lines() {
                    self.crossed.push_str(&format!("{arrow}  {line}\n"));
                }
            }
            let is_heard = self.jaquez.receive(self.link.1, &to_jaquez);
            if !self.riley.receive(self.link.0, &to_riley) && !is_heard {
                return;
            }
        }
    }

    /// A client connects to Riley and sends this line. Returns the answer.
    pub(crate) fn say_to_riley(&mut self, line: &str) -> String {
        say(&mut self.riley, line)
    }

    /// The same at Jaquez.
    pub(crate) fn say_to_jaquez(&mut self, line: &str) -> String {
        say(&mut self.jaquez, line)
    }

    /// Lets time pass on both servers, and carries the bytes that they then send.
    pub(crate) fn wait_ms(&mut self, ms: u64) {
        for machine in [&mut self.riley, &mut self.jaquez] {
            machine.io.now_ms += ms;
            machine.turn();
        }
        self.carry();
    }
}

fn say(machine: &mut Machine, line: &str) -> String {
    let from: SocketAddr = ([192, 0, 2, 1], 40_000).into();
    let now = machine.io.now();
    let Some(client) = machine.node.handle_client_connected(from, now) else {
        return String::new();
    };
    machine.receive(client, line.as_bytes());
    let answer = machine.take(client);
    let now = machine.io.now();
    machine.node.handle_connection_lost(client, None, now);
    String::from_utf8_lossy(&answer).into_owned()
}

fn main() -> Result<(), String> {
    let mut world = World::new()?;
    let iamat = "IAMAT kiwi.cs.ucla.edu +34.068930-118.445127 1621464827\n";
    print!("to Riley:    {iamat}");
    print!("from Riley:  {}", world.say_to_riley(iamat));
    world.wait_ms(1);
    // Without a key for Places the second part of the answer is an error. The first part is the
    // position that came over the link.
    let whatsat = "WHATSAT kiwi.cs.ucla.edu 10 5\n";
    print!("to Jaquez:   {whatsat}");
    print!("from Jaquez: {}", world.say_to_jaquez(whatsat));
    print!("\nWhat crossed the link:\n{}", world.crossed);
    Ok(())
}
