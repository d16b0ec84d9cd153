//! The process around the server: its sockets, its clock and its disk. What happens to them is handed
//! to the server as `src/shell/event_loop.rs` does it; then the server's own [`drive`] ends the turn.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use herd_mio::core::base::clock::{Now, Time};
use herd_mio::core::base::settings::Settings;
use herd_mio::core::journal::durability::Fsync;
use herd_mio::core::node::{ConnId, Node, drive, perform_disk_work};
use herd_testkit::at_line::Line;
use herd_testkit::fake_disk::{FakeDisk, Queue};
use herd_testkit::promises::{End, Policy, Promises};

use super::mobile::{Circumstances, Mobile};
use super::neighbour::{NAMES, Neighbour};
use super::outside::{Outside, Peer, Socket};
use super::tls::Shield;
use crate::disk;
use crate::reference::At;
use crate::server;

/// So many turns in a row may leave something undone that is due: the steps of a compaction.
const MOST_OVERDUE: u32 = 40;

/// The server's number in the book of promises.
const OURS: usize = 0;

/// The process, and all that is around it.
pub(crate) struct Host {
    pub(crate) settings: Settings,
    fsync: Fsync,
    pub(crate) node: Node,
    pub(crate) outside: Outside,
    pub(crate) neighbours: Vec<Neighbour>,
    pub(crate) ms: u64,
    /// The wall clock minus the right time.
    pub(crate) off_ns: i64,
    /// Bytes that one read brings.
    pub(crate) scratch: usize,
    /// What was answered: the greatest line of each client.
    promises: Promises,
    /// What the table had last.
    held: BTreeMap<Vec<u8>, At>,
    /// The disk is full, or something on it fails.
    pub(crate) is_disk_troubled: bool,
    /// It was so in this life.
    was_full: bool,
    /// A record was refused in some life.
    refused: bool,
    is_stopping: bool,
    overdue: u32,
    /// Which life of the process this is.
    pub(crate) life: u32,
}

/// What the operating system gives a life of the process for its random numbers: never the same twice.
fn seed(life: u32) -> [u8; 32] {
    let mut seed = server::SEED;
    seed[..4].copy_from_slice(&life.to_le_bytes());
    seed
}

impl Host {
    pub(crate) fn new(settings: Settings, journal: Option<Fsync>, scratch: usize) -> Host {
        let node = Node::new(settings.clone(), &seed(0), server::at(0));
        let limits = settings.limits.clone();
        let speaks_tls = settings.tls.clients.is_some();
        let mut host = Host {
            settings,
            fsync: journal.unwrap_or(Fsync::Never),
            node,
            outside: Outside::new(journal.map(|_| disk::new()), limits, speaks_tls),
            neighbours: NAMES.map(Neighbour::new).into(),
            ms: 0,
            off_ns: 0,
            scratch,
            promises: Promises::new(),
            held: BTreeMap::new(),
            is_disk_troubled: false,
            was_full: false,
            refused: false,
            is_stopping: false,
            overdue: 0,
            life: 0,
        };
        // Only the process ends here, never the machine.
        let policy = journal.map_or(Policy::NoJournal, |_| Policy::Never);
        host.promises.serves(OURS, policy);
        host.open_journal();
        host.drive();
        host
    }

    pub(crate) fn now(&self) -> Now {
        let now = server::at(self.ms);
        Now {
            time: now.time,
            wall: now.wall.saturating_add_signed(self.off_ns),
        }
    }

    fn open_journal(&mut self) {
        let Some(disk) = &mut self.outside.disk else {
            return;
        };
        let node = &mut self.node;
        node.keep_journal(self.fsync);
        match disk.open(|entry| node.restore(entry)) {
            Ok(opened) => node.journal_opened(opened),
            Err(error) => panic!("the journal is refused: {error}"),
        }
        // What this life begins with is synced before anybody is served.
        self.perform_disk_work();
        while self.outside.disk.as_mut().is_some_and(work_both) {
            self.hear_disk();
            self.perform_disk_work();
        }
        if let Some(disk) = &mut self.outside.disk {
            disk.finish();
        }
    }

    /// The process ends without a word, and another begins.
    pub(crate) fn restart(&mut self) {
        self.life += 1;
        let when = Duration::from_millis(self.ms);
        self.promises.ends(OURS, End::Killed, when);
        if let Some(disk) = &mut self.outside.disk {
            disk.end(End::Killed);
        }
        self.outside.restart();
        self.is_stopping = false;
        self.was_full = false;
        self.held.clear();
        self.node = Node::new(self.settings.clone(), &seed(self.life), self.now());
        self.open_journal();
        let node = &self.node;
        let mut table = |client: &[u8]| {
            let mut line = node.records().record(client)?;
            line.pop();
            Line::new(&line, node.records().epoch(client)?)
        };
        let outcome = self.promises.restarted(OURS, &mut table);
        // What is left out for want of room for records has been answered all the same.
        if let (Err(missing), false) = (outcome, self.refused) {
            panic!("{missing}");
        }
        self.drive();
    }

    /// Whether there was no room for a record, ever.
    pub(crate) fn has_refused(&self) -> bool {
        self.refused
    }

    /// The server has to have this, or what is later.
    fn has(&self, wanted: &At) {
        let held = self.line(&wanted.client);
        assert!(
            held.as_ref() >= Some(wanted),
            "{} is lost, there is {:?}",
            wanted.line.escape_ascii(),
            held.map(|at| at.line.escape_ascii().to_string())
        );
    }

    pub(crate) fn line(&self, client: &[u8]) -> Option<At> {
        let records = self.node.records();
        let at = At::read(records.record(client)?.strip_suffix(b"\n")?)?;
        let epoch = records.epoch(client)?;
        Some(At { epoch, ..at })
    }

    fn perform_disk_work(&mut self) {
        self.was_full |= self.outside.disk.is_some() && self.is_disk_troubled;
        let now = self.now();
        self.outside.turn_begins(now);
        perform_disk_work(&mut self.node, &mut self.outside, now);
    }

    /// Ends a turn. What was written in it arrives then.
    fn drive(&mut self) {
        let now = self.now();
        self.was_full |= self.outside.disk.is_some() && self.is_disk_troubled;
        self.outside.turn_begins(now);
        drive(&mut self.node, &mut self.outside, now);
        for (id, written) in std::mem::take(&mut self.outside.written) {
            let closed = self.outside.closed.iter().position(|it| it.id == id);
            if let Some(closed) = closed {
                let mut socket = self.outside.closed.swap_remove(closed);
                self.deliver(&mut socket, &written);
                self.outside.closed.push(socket);
            } else if let Some(mut socket) = self.outside.sockets.remove(&id.index()) {
                let before = socket.arrived.len();
                self.deliver(&mut socket, &written);
                let has_answer = socket.arrived.len() > before;
                self.outside.sockets.insert(id.index(), socket);
                if has_answer {
                    self.outside.notice_read(id.index());
                }
            }
        }
        self.outside.closed.clear();
        if !self.node.is_stopping() {
            self.nobody_is_cut_short();
        }
    }

    /// A client has all its answers when the server ends its own side of the connection, also while the server drains. What is said
    /// over TLS is not known here.
    fn nobody_is_cut_short(&mut self) {
        for socket in self.outside.sockets.values_mut() {
            if let (Peer::Mobile(mobile), None, true) =
                (&mut socket.peer, &socket.shield, socket.is_finished)
            {
                assert!(mobile.is_content(), "cut short: {}", mobile.show());
                mobile.hears_no_more();
            }
        }
    }

    /// Somebody comes in, from one of a few addresses.
    pub(crate) fn accept(&mut self, peer: Peer, first: &[u8], from: u8) {
        let address = SocketAddr::from(([192, 0, 2, from % 3], 4_000));
        let (now, speaks_tls) = (self.now(), self.speaks_tls());
        let (admitted, shield, is_welcome) = match &peer {
            // Its port is closed.
            Peer::Mobile(_) if self.node.is_draining() => return,
            Peer::Mobile(_) => {
                let is_welcome = self.may_enter(address);
                let shield = (is_welcome && speaks_tls).then(Shield::mobile);
                (
                    self.node.handle_client_connected(address, now),
                    shield,
                    is_welcome,
                )
            }
            Peer::Neighbour(talk) => {
                let name = NAMES[talk.neighbour];
                let shield = speaks_tls.then(|| Shield::neighbour(name, false));
                (
                    self.node.handle_neighbour_connected(address, now),
                    shield,
                    true,
                )
            }
            Peer::Visitor(_) => (self.node.handle_http_connected(address, now), None, true),
            Peer::Origin(_) => return,
        };
        let Some(id) = admitted else {
            return;
        };
        assert!(!self.is_stopping, "nobody is served any more");
        let peer = match peer {
            Peer::Mobile(_) if !is_welcome => Peer::Mobile(Mobile::turned_away()),
            peer => peer,
        };
        self.outside.adopt(id, peer, address, shield, false);
        if let Some(socket) = self.outside.sockets.get_mut(&id.index()) {
            socket.says(first, self.ms);
        }
        self.outside.notice(id.index());
    }

    fn speaks_tls(&self) -> bool {
        self.settings.tls.clients.is_some()
    }

    /// How many clients were let in, of all or from one address.
    fn clients(&self, address: Option<SocketAddr>) -> u64 {
        let sockets = self
            .outside
            .sockets
            .values()
            .filter(|socket| match &socket.peer {
                Peer::Mobile(mobile) => !mobile.is_turned_away(),
                Peer::Neighbour(_) | Peer::Origin(_) | Peer::Visitor(_) => false,
            });
        let from = |socket: &&Socket| address.is_none_or(|address| socket.address == address);
        sockets.filter(from).count() as u64
    }

    fn may_enter(&self, address: SocketAddr) -> bool {
        let limits = &self.settings.limits;
        self.clients(None) < limits.max_clients
            && self.clients(Some(address)) < limits.max_clients_per_address
    }

    /// A connection that is being made is made, or cannot be.
    pub(crate) fn connect(&mut self, place: usize, works: bool) {
        let now = self.now();
        let Some(socket) = self
            .outside
            .sockets
            .get_mut(&place)
            .filter(|it| it.is_connecting)
        else {
            return;
        };
        let id = socket.id;
        if works {
            socket.is_connecting = false;
            self.node.handle_connection_made(id, now);
            self.outside.notice(place);
        } else {
            self.lose(id, "refused");
        }
    }

    /// One turn of the loop.
    pub(crate) fn turn(&mut self) {
        self.hear_disk();
        for id in std::mem::take(&mut self.outside.ready) {
            self.receive(id);
        }
        self.drive();
        // One that has given up looks after nothing any more.
        if self.node.failure().is_none() {
            self.look_around();
        }
        let disk = self.outside.disk.as_ref();
        let (may, must) = disk.map_or((false, false), |disk| {
            (disk.may_give_up(), disk.must_give_up() && disk.is_idle())
        });
        match self.node.failure() {
            Some(reason) => {
                assert!(may, "it gives up: {reason}");
                self.restart();
            }
            None => assert!(!must, "it goes on, though it cannot know what its disk has"),
        }
    }

    fn hear_disk(&mut self) {
        let now = self.now();
        while let Some(done) = self.outside.disk.as_mut().and_then(FakeDisk::finished) {
            self.node.handle_disk_done(done, now);
        }
    }

    /// One ready connection: reads once.
    fn receive(&mut self, id: ConnId) {
        let (now, ms, scratch) = (self.now(), self.ms, self.scratch);
        let socket = self.outside.sockets.get_mut(&id.index());
        let Some(socket) = socket.filter(|socket| socket.id == id) else {
            return;
        };
        socket.is_queued = false;
        if socket.is_connecting {
            return;
        }
        if !self.node.wants_read(id) {
            if socket.is_reset {
                return self.lose(id, "reset");
            }
        } else if !socket.arrived.is_empty() {
            let count = socket.arrived.len().min(scratch);
            let bytes: Vec<u8> = socket.arrived.drain(..count).collect();
            if let (Peer::Mobile(mobile), None) = (&mut socket.peer, &socket.shield) {
                mobile.says(&bytes, ms);
            }
            self.node.handle_data_received(id, &bytes, now);
        } else if socket.is_reset {
            return self.lose(id, "reset");
        } else if socket.has_fin && !std::mem::replace(&mut socket.has_ended, true) {
            if let (Peer::Mobile(mobile), None) = (&mut socket.peer, &socket.shield) {
                mobile.ends();
            }
            self.node.handle_eof_received(id, now);
        }
        self.node.handle_writable(id);
    }

    /// The other end takes what was written, and may say something to that.
    fn deliver(&mut self, socket: &mut Socket, written: &[u8]) {
        let key = server::KEY;
        let tells_key = |bytes: &[u8]| bytes.windows(key.len()).any(|window| window == key);
        assert!(!tells_key(written), "the key leaves as it is");
        self.refused |= self.node.records().refused() > 0;
        let mut opened = None;
        if let Some(shield) = &mut socket.shield {
            let (plaintext, reply) = shield.open(written);
            socket.arrived.extend(reply);
            opened = Some(plaintext);
        }
        let heard = opened.as_deref().unwrap_or(written);
        if heard.is_empty() {
            return;
        }
        let now = Circumstances {
            ms: self.ms,
            line_ms: self.settings.limits.line_ms,
            may_refuse: self.refused || self.was_full,
        };
        match &mut socket.peer {
            Peer::Mobile(mobile) => {
                assert!(!tells_key(heard), "the key is in an answer");
                for promise in mobile.hears(heard, &now) {
                    // One that was too old to be taken is as safe as the one that was taken.
                    let Some(promise) = self
                        .line(&promise.client)
                        .filter(|held| held.line == promise.line)
                    else {
                        continue;
                    };
                    if let Some(line) = Line::new(&promise.line, promise.epoch) {
                        let when = Duration::from_millis(self.ms);
                        self.promises.answered(OURS, &line, when);
                    }
                }
            }
            Peer::Neighbour(talk) => {
                let neighbour = &mut self.neighbours[talk.neighbour];
                let (says, claims) = talk.hears(heard, neighbour, self.settings.secrets.primary());
                for claim in claims {
                    self.has(&claim);
                }
                socket.says(&says, self.ms);
            }
            Peer::Origin(origin) => origin.hears(heard),
            Peer::Visitor(visitor) => visitor.hears(heard),
        }
    }

    /// A socket is broken.
    fn lose(&mut self, id: ConnId, why: &str) {
        self.outside.sockets.remove(&id.index());
        self.node
            .handle_connection_lost(id, Some(&why.into()), self.now());
    }

    /// What has to hold after every turn.
    fn look_around(&mut self) {
        let (node, limits) = (&mut self.node, &self.settings.limits);
        for socket in self
            .outside
            .sockets
            .values()
            .filter(|socket| !socket.is_queued)
        {
            let forgets_output = socket.may_write() && !node.poll_output(socket.id).is_empty();
            let forgets_input = socket.is_readable() && node.wants_read(socket.id);
            let who = match &socket.peer {
                Peer::Mobile(mobile) => mobile.show(),
                Peer::Neighbour(_) => "a neighbour".to_owned(),
                Peer::Origin(_) => "Places".to_owned(),
                Peer::Visitor(_) => "a visitor of the HTTP port".to_owned(),
            };
            assert!(!forgets_output, "output is forgotten: {who}");
            assert!(!forgets_input, "input is forgotten: {who}");
        }
        if let Err(wrong) = node.check_invariants() {
            panic!("{wrong}");
        }
        assert_eq!(node.connections(), self.outside.sockets.len());
        let peers = self.outside.sockets.values().map(|socket| &socket.peer);
        let origins = peers.filter(|peer| matches!(peer, Peer::Origin(_))).count() as u64;
        assert!(origins <= limits.max_places_connections);
        let records = node.records();
        self.refused |= records.refused() > 0;
        assert!(records.len() as u64 <= limits.max_records);
        let is_due = |deadline: Time| deadline <= server::at(self.ms).time;
        if node.next_deadline().is_some_and(is_due) {
            self.overdue += 1;
            assert!(self.overdue <= MOST_OVERDUE, "it spins");
        } else {
            self.overdue = 0;
        }
        for client in super::CLIENTS {
            let Some(now) = self.line(client.as_bytes()) else {
                assert!(
                    !self.held.contains_key(client.as_bytes()),
                    "{client} is lost"
                );
                continue;
            };
            let before = self.held.insert(now.client.clone(), now.clone());
            assert!(before <= Some(now), "{client} goes back in time");
        }
    }

    /// Lets time pass; the process is woken whenever it wants to be.
    pub(crate) fn wait(&mut self, ms: u64) {
        let until = self.ms.saturating_add(ms);
        for _ in 0..200 {
            let busy = !self.outside.ready.is_empty();
            let deadline = self
                .node
                .next_deadline()
                .map(|at| at.as_nanos().div_ceil(1_000_000));
            let next = if busy { Some(self.ms) } else { deadline };
            match next {
                Some(next) if next <= until => self.ms = self.ms.max(next),
                _ => break,
            }
            self.turn();
        }
        self.ms = self.ms.max(until);
        self.turn();
    }

    /// Tells the process to drain.
    pub(crate) fn drain(&mut self) {
        self.node.handle_drain(self.now());
    }

    /// Tells the process to stop.
    pub(crate) fn stop(&mut self) {
        self.is_stopping = true;
        self.node.handle_stop(self.now());
    }
}

/// Each queue of a disk does its first job; whether there was one.
pub(crate) fn work_both(disk: &mut FakeDisk) -> bool {
    let done = Queue::ALL.map(|queue| disk.work(queue));
    done.contains(&true)
}
