//! The process around the server: its sockets, its clock, its disk, and the loop, as `src/shell/event_loop.rs` has them.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use herd_mio::core::clock::{Now, Time};
use herd_mio::core::durability::Fsync;
use herd_mio::core::disposition::Disposition;
use herd_mio::core::limits::{LINE_BYTES, LINK_LINE_BYTES, TURN_BYTES};
use herd_mio::core::node::{ConnId, Node, Request};
use herd_mio::core::settings::Settings;
use herd_testkit::at_line::Line;
use herd_testkit::fake_disk::{FakeDisk, Queue};
use herd_testkit::promises::{End, Policy, Promises};

use super::mobile::{Circumstances, Mobile};
use super::neighbour::{DIALLED, NAMES, Neighbour, Talk};
use super::places::Origin;
use super::tls::Shield;
use crate::disk;
use crate::reference::At;
use crate::server;

/// So many turns in a row may leave something undone that is due: the steps of a compaction.
const MOST_OVERDUE: u32 = 40;

/// The server's number in the book of promises.
const OURS: usize = 0;

/// Who is at the other end.
pub(crate) enum Peer {
    Mobile(Mobile),
    Neighbour(Talk),
    Origin(Origin),
}

/// A socket of the process.
pub(crate) struct Socket {
    pub(crate) id: ConnId,
    pub(crate) peer: Peer,
    /// Where it comes from.
    address: SocketAddr,
    /// TLS, at the other end.
    shield: Option<Box<Shield>>,
    /// What has arrived, and was not read.
    pub(crate) arrived: VecDeque<u8>,
    pub(crate) has_fin: bool,
    pub(crate) is_reset: bool,
    /// How much the socket takes.
    pub(crate) room: usize,
    /// Not connected yet.
    pub(crate) is_connecting: bool,
    /// A write may take something: true until one took less than it was given.
    is_writable: bool,
    is_finished: bool,
    /// The end of the stream was handed over.
    has_ended: bool,
    /// It is on the next turn's list.
    is_queued: bool,
}

impl Socket {
    /// The other end says something.
    pub(crate) fn says(&mut self, bytes: &[u8], ms: u64) {
        match &mut self.shield {
            Some(shield) => {
                self.arrived.extend(shield.seal(bytes));
                // When the server gets at it can not be seen from outside.
                if let Peer::Mobile(mobile) = &mut self.peer {
                    mobile.says(bytes, ms);
                }
            }
            None => self.arrived.extend(bytes),
        }
    }

    /// Bytes from outside come in, whatever is spoken there.
    pub(crate) fn disturb(&mut self, bytes: &[u8]) {
        self.arrived.extend(bytes);
        if let (Peer::Mobile(mobile), Some(_)) = (&mut self.peer, &self.shield) {
            mobile.give_up();
        }
    }

    /// The other end says no more; in TLS too, if it is polite.
    pub(crate) fn ends(&mut self, is_polite: bool) {
        self.has_fin = true;
        if let Some(shield) = &mut self.shield {
            if is_polite {
                self.arrived.extend(shield.close());
            }
            if let Peer::Mobile(mobile) = &mut self.peer {
                mobile.ends();
            }
        }
    }

    fn may_write(&self) -> bool {
        self.is_writable && !self.is_connecting && !self.is_finished
    }

    fn is_readable(&self) -> bool {
        let has_end = self.has_fin && !self.has_ended;
        !self.is_connecting && (!self.arrived.is_empty() || has_end || self.is_reset)
    }
}

/// The process, and all that is around it.
pub(crate) struct Host {
    pub(crate) settings: Settings,
    fsync: Fsync,
    pub(crate) node: Node,
    pub(crate) disk: Option<FakeDisk>,
    pub(crate) sockets: BTreeMap<usize, Socket>,
    ready: Vec<ConnId>,
    pub(crate) look_ups: VecDeque<String>,
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
        let mut host = Host {
            settings,
            fsync: journal.unwrap_or(Fsync::Never),
            node,
            disk: journal.map(|_| disk::new()),
            sockets: BTreeMap::new(),
            ready: Vec::new(),
            look_ups: VecDeque::new(),
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
        host.settle();
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
        let Some(disk) = &mut self.disk else {
            return;
        };
        let node = &mut self.node;
        node.keep_journal(self.fsync);
        match disk.open(|entry| node.restore(entry)) {
            Ok(opened) => node.journal_opened(opened),
            Err(error) => panic!("the journal is refused: {error}"),
        }
        // What this life begins with is synced before anybody is served.
        self.write_journal();
        while self.disk.as_mut().is_some_and(work_both) {
            self.hear_disk();
            self.write_journal();
        }
        if let Some(disk) = &mut self.disk {
            disk.finish();
        }
    }

    /// The process ends without a word, and another begins.
    pub(crate) fn restart(&mut self) {
        self.life += 1;
        let when = Duration::from_millis(self.ms);
        self.promises.ends(OURS, End::Killed, when);
        if let Some(disk) = &mut self.disk {
            disk.end(End::Killed);
        }
        self.sockets.clear();
        self.ready.clear();
        self.look_ups.clear();
        self.is_stopping = false;
        self.was_full = false;
        self.held.clear();
        self.node = Node::new(self.settings.clone(), &seed(self.life), self.now());
        self.open_journal();
        let node = &self.node;
        let mut table = |client: &[u8]| {
            let mut line = node.records().line(client)?;
            line.pop();
            Line::new(&line, node.records().epoch(client)?)
        };
        let outcome = self.promises.restarted(OURS, &mut table);
        // What is left out for want of room for records has been answered all the same.
        if let (Err(missing), false) = (outcome, self.refused) {
            panic!("{missing}");
        }
        self.settle();
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
        let at = At::read(records.line(client)?.strip_suffix(b"\n")?)?;
        let epoch = records.epoch(client)?;
        Some(At { epoch, ..at })
    }

    /// Somebody comes in, from one of a few addresses.
    pub(crate) fn accept(&mut self, peer: Peer, first: &[u8], from: u8) {
        let address = SocketAddr::from(([192, 0, 2, from % 3], 4_000));
        let (now, speaks_tls) = (self.now(), self.speaks_tls());
        let (admitted, shield, is_welcome) = match &peer {
            Peer::Mobile(_) => {
                let is_welcome = self.may_enter(address);
                let shield = (is_welcome && speaks_tls).then(Shield::mobile);
                (self.node.client_connected(address), shield, is_welcome)
            }
            Peer::Neighbour(talk) => {
                let name = NAMES[talk.neighbour];
                let shield = speaks_tls.then(|| Shield::neighbour(name, false));
                (self.node.neighbour_connected(address, now), shield, true)
            }
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
        self.adopt(id, peer, address, shield, false);
        if let Some(socket) = self.sockets.get_mut(&id.index()) {
            socket.says(first, self.ms);
        }
        self.notice(id.index());
    }

    fn speaks_tls(&self) -> bool {
        self.settings.tls.clients.is_some()
    }

    /// How many clients were let in, of all or from one address.
    fn clients(&self, address: Option<SocketAddr>) -> u64 {
        let sockets = self.sockets.values().filter(|socket| match &socket.peer {
            Peer::Mobile(mobile) => !mobile.is_turned_away(),
            Peer::Neighbour(_) | Peer::Origin(_) => false,
        });
        let from = |socket: &&Socket| address.is_none_or(|address| socket.address == address);
        sockets.filter(from).count() as u64
    }

    fn may_enter(&self, address: SocketAddr) -> bool {
        let limits = &self.settings.limits;
        self.clients(None) < limits.max_clients
            && self.clients(Some(address)) < limits.max_clients_per_address
    }

    fn adopt(
        &mut self,
        id: ConnId,
        peer: Peer,
        address: SocketAddr,
        shield: Option<Shield>,
        is_connecting: bool,
    ) {
        let socket = Socket {
            id,
            peer,
            address,
            shield: shield.map(Box::new),
            arrived: VecDeque::new(),
            has_fin: false,
            is_reset: false,
            room: 1 << 20,
            is_connecting,
            is_writable: !is_connecting,
            is_finished: false,
            has_ended: false,
            is_queued: false,
        };
        let old = self.sockets.insert(id.index(), socket);
        assert!(old.is_none(), "two connections have one place");
        self.notice(id.index());
    }

    /// Something happened to a socket: what epoll would tell.
    pub(crate) fn notice(&mut self, place: usize) {
        if let Some(socket) = self.sockets.get_mut(&place) {
            socket.is_writable |= socket.room > 0 && !socket.is_connecting;
            if !std::mem::replace(&mut socket.is_queued, true) {
                self.ready.push(socket.id);
            }
        }
    }

    /// A connection that is being made is made, or can not be.
    pub(crate) fn connect(&mut self, place: usize, works: bool) {
        let now = self.now();
        let Some(socket) = self.sockets.get_mut(&place).filter(|it| it.is_connecting) else {
            return;
        };
        let id = socket.id;
        if works {
            socket.is_connecting = false;
            self.node.connection_made(id, now);
            self.notice(place);
        } else {
            self.lose(id, Some("refused"));
        }
    }

    /// One turn of the loop.
    pub(crate) fn turn(&mut self) {
        self.hear_disk();
        for id in std::mem::take(&mut self.ready) {
            self.receive(id);
        }
        self.node.deadlines_due(self.now());
        self.settle();
        // One that has given up looks after nothing any more.
        if self.node.failure().is_none() {
            self.look_around();
        }
        let disk = self.disk.as_ref();
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
        while let Some(done) = self.disk.as_mut().and_then(FakeDisk::finished) {
            self.node.disk_done(done, now);
        }
    }

    fn write_journal(&mut self) {
        let now = self.now();
        let Some(disk) = &mut self.disk else {
            return;
        };
        self.was_full |= self.is_disk_troubled;
        while let Some(work) = self.node.next_disk_work(now) {
            disk.submit(work);
        }
    }

    /// One ready connection: reads once.
    fn receive(&mut self, id: ConnId) {
        let (now, ms, scratch) = (self.now(), self.ms, self.scratch);
        let socket = self.sockets.get_mut(&id.index());
        let Some(socket) = socket.filter(|socket| socket.id == id) else {
            return;
        };
        socket.is_queued = false;
        if socket.is_connecting {
            return;
        }
        if !self.node.wants_read(id) {
            if socket.is_reset {
                return self.lose(id, Some("reset"));
            }
        } else if !socket.arrived.is_empty() {
            let count = socket.arrived.len().min(scratch);
            let bytes: Vec<u8> = socket.arrived.drain(..count).collect();
            if let (Peer::Mobile(mobile), None) = (&mut socket.peer, &socket.shield) {
                mobile.says(&bytes, ms);
            }
            self.node.data_received(id, &bytes, now);
        } else if socket.is_reset {
            return self.lose(id, Some("reset"));
        } else if socket.has_fin && !std::mem::replace(&mut socket.has_ended, true) {
            if let (Peer::Mobile(mobile), None) = (&mut socket.peer, &socket.shield) {
                mobile.ends();
            }
            self.node.eof_received(id, now);
        }
        self.node.touch(id);
    }

    /// Does what the core asked for, then writes, finishes and closes, until nobody is touched any more.
    fn settle(&mut self) {
        for round in 0.. {
            assert!(round < 10_000, "a turn without an end");
            while let Some(request) = self.node.next_request() {
                self.carry_out(request);
            }
            self.write_journal();
            if self.node.failure().is_some() {
                return; // nothing leaves any more
            }
            let mut touched = Vec::new();
            self.node.take_touched(&mut touched);
            if touched.is_empty() {
                return;
            }
            for id in touched {
                self.settle_one(id);
            }
        }
    }

    fn carry_out(&mut self, request: Request) {
        match request {
            Request::LookUp { host } => self.look_ups.push_back(host),
            Request::Connect { id, address } => {
                let (peer, shield) = if address.port() == 443 {
                    (Peer::Origin(Origin::default()), Some(Shield::places()))
                } else {
                    let (talk, _) = Talk::new(DIALLED, true);
                    let tls = self.speaks_tls();
                    let shield = tls.then(|| Shield::neighbour(NAMES[DIALLED], true));
                    (Peer::Neighbour(talk), shield)
                };
                self.adopt(id, peer, address, shield, true);
            }
        }
    }

    /// The most that may wait for a connection.
    fn most_output(&self, peer: &Peer) -> usize {
        let limits = &self.settings.limits;
        // What TLS adds to that: a record, or the handshake.
        TURN_BYTES / 4
            + match peer {
                // Below the mark, one more command is answered.
                Peer::Mobile(_) => {
                    let one = LINK_LINE_BYTES + limits.places_body_bytes as usize + LINE_BYTES;
                    limits.output_high_bytes as usize + one
                }
                Peer::Neighbour(_) => TURN_BYTES + 2 * LINK_LINE_BYTES,
                Peer::Origin(_) => TURN_BYTES,
            }
    }

    /// Writes what waits, once; then finishes or closes the connection if its session is through with it.
    fn settle_one(&mut self, id: ConnId) {
        let now = self.now();
        let Some(mut socket) = self.sockets.remove(&id.index()) else {
            return;
        };
        assert_eq!(socket.id, id, "of those who are there");
        let mut written = Vec::new();
        if socket.may_write() {
            let output = self.node.output(id);
            written = output[..output.len().min(socket.room)].to_vec();
            if !output.is_empty() {
                let waiting = output.len();
                assert!(waiting <= self.most_output(&socket.peer), "{waiting} bytes");
                socket.room -= written.len();
                socket.is_writable = written.len() == waiting;
                self.node.output_sent(id, written.len(), now);
            }
        }
        let before = socket.arrived.len();
        self.deliver(&mut socket, &written);
        let has_answer = socket.arrived.len() > before;
        let disposition = self.node.disposition(id, now);
        let more = socket.is_readable() && self.node.wants_read(id)
            || socket.may_write() && !self.node.output(id).is_empty();
        socket.is_finished |= disposition == Disposition::Finish;
        self.sockets.insert(id.index(), socket);
        if disposition == Disposition::Close {
            self.lose(id, None);
        } else if more || has_answer {
            self.notice_read(id.index());
        }
    }

    /// There is something to be read, or to be written still.
    fn notice_read(&mut self, place: usize) {
        if let Some(socket) = self.sockets.get_mut(&place)
            && !std::mem::replace(&mut socket.is_queued, true)
        {
            self.ready.push(socket.id);
        }
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
                let (says, claims) = talk.hears(heard, neighbour, &self.settings.secret);
                for claim in claims {
                    self.has(&claim);
                }
                socket.says(&says, self.ms);
            }
            Peer::Origin(origin) => origin.hears(heard),
        }
    }

    /// The one death of a connection.
    fn lose(&mut self, id: ConnId, why: Option<&str>) {
        self.sockets.remove(&id.index());
        self.node.connection_lost(id, why, self.now());
    }

    /// What has to hold after every turn.
    fn look_around(&mut self) {
        let (node, limits) = (&mut self.node, &self.settings.limits);
        for socket in self.sockets.values().filter(|socket| !socket.is_queued) {
            let forgets_output = socket.may_write() && !node.output(socket.id).is_empty();
            let forgets_input = socket.is_readable() && node.wants_read(socket.id);
            let who = match &socket.peer {
                Peer::Mobile(mobile) => mobile.show(),
                Peer::Neighbour(_) => "a neighbour".to_owned(),
                Peer::Origin(_) => "Places".to_owned(),
            };
            assert!(!forgets_output, "output is forgotten: {who}");
            assert!(!forgets_input, "input is forgotten: {who}");
        }
        assert_eq!(node.connections(), self.sockets.len());
        let peers = self.sockets.values().map(|socket| &socket.peer);
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
            let busy = !self.ready.is_empty();
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

    /// Tells the process to stop.
    pub(crate) fn stop(&mut self) {
        self.is_stopping = true;
        self.node.stop(self.now());
    }
}

/// Each queue of a disk does its first job; whether there was one.
pub(crate) fn work_both(disk: &mut FakeDisk) -> bool {
    let done = Queue::ALL.map(|queue| disk.work(queue));
    done.contains(&true)
}
