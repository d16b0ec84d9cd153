//! Workloads in which clients send their positions. The server answers, and tells its neighbours.

use herd_mio::core::node::ConnId;

use crate::crowd::{CLIENTS, Crowd};
use crate::stage::{Read, SERVER, Stage, same};
use crate::workload::{Failure, Workload};

/// The age of a stale position: an hour.
const STALE_NS: u64 = 3_600_000_000_000;

/// Whether a message is newer than the server's record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Age {
    /// It is newer, and replaces the record.
    Newest,
    /// It is older, and changes nothing.
    Stale,
}

/// A thousand clients that the server knows, each on its own connection. In a pass each client
/// sends one `IAMAT`.
pub(crate) struct Iamat {
    stage: Stage,
    clients: Vec<ConnId>,
    links: Vec<ConnId>,
    crowd: Crowd,
    age: Age,
    /// Lines in one read. With more than one, several clients send over the connection of one of
    /// them.
    per_read: usize,
    /// Reads in one turn.
    per_turn: usize,
    reads: Vec<Read>,
    /// The expected output of each connection, in the order of `clients`.
    answers: Vec<String>,
    /// The digest of the records and their last sequence number, both before the pass.
    before: (u64, u64),
}

impl Iamat {
    /// A server with so many linked neighbours.
    pub(crate) fn new(age: Age, neighbours: usize) -> Result<Iamat, Failure> {
        let (mut stage, links) = Stage::new(neighbours)?;
        let clients = stage.clients(CLIENTS)?;
        let mut iamat = Iamat {
            stage,
            clients,
            links,
            crowd: Crowd::new(),
            age: Age::Newest,
            per_read: 1,
            per_turn: 1,
            reads: Vec::new(),
            answers: Vec::new(),
            before: (0, 0),
        };
        // The server learns all clients before the measurement begins.
        iamat.prepare()?;
        iamat.pass();
        iamat.check()?;
        iamat.age = age;
        Ok(iamat)
    }

    /// The same with so many lines in one read.
    pub(crate) fn per_read(self, per_read: usize) -> Iamat {
        Iamat { per_read, ..self }
    }

    /// The same with so many reads in one turn.
    pub(crate) fn per_turn(self, per_turn: usize) -> Iamat {
        Iamat { per_turn, ..self }
    }
}

impl Workload for Iamat {
    fn operations(&self) -> u64 {
        CLIENTS as u64
    }

    fn prepare(&mut self) -> Result<(), Failure> {
        // The server closes a link on which it hears nothing for too long.
        let synced = self.links.iter().map(|&id| Read {
            id,
            bytes: b"SYNC 0\n".to_vec(),
        });
        self.stage.turn(&synced.collect::<Vec<Read>>());
        self.stage.forget_written();
        self.reads.clear();
        self.answers = vec![String::new(); CLIENTS];
        for (place, client) in (0..CLIENTS).step_by(self.per_read).enumerate() {
            let receipt_ns = self.stage.receipt_ns(place);
            let mut bytes = Vec::new();
            for client in client..CLIENTS.min(client + self.per_read) {
                let said = match self.age {
                    Age::Newest => self.crowd.iamat(client, receipt_ns),
                    Age::Stale => self.crowd.iamat_aged(client, receipt_ns, STALE_NS),
                };
                bytes.extend_from_slice(said.line.as_bytes());
                self.answers[place].push_str(&said.answer(SERVER));
            }
            let id = self.clients[place];
            self.reads.push(Read { id, bytes });
        }
        let records = self.stage.node.records();
        self.before = (records.digest(), records.last_seq());
        Ok(())
    }

    fn pass(&mut self) {
        for ready in self.reads.chunks(self.per_turn) {
            self.stage.turn(ready);
        }
    }

    fn check(&mut self) -> Result<(), Failure> {
        self.stage.check()?;
        for (&id, answer) in self.clients.iter().zip(&self.answers) {
            same("a client", self.stage.written(id), answer.as_bytes())?;
        }
        let records = self.stage.node.records();
        let (digest, seq) = self.before;
        if records.len() != CLIENTS {
            return Err(format!("{} records", records.len()));
        }
        let news = match self.age {
            Age::Stale if records.digest() != digest => return Err("a stale record is kept".into()),
            Age::Stale => 0,
            Age::Newest => CLIENTS as u64,
        };
        if records.last_seq() - seq != news {
            return Err(format!("{} changes", records.last_seq() - seq));
        }
        for &id in &self.links {
            told(self.stage.written(id), &self.answers, seq, news)?;
        }
        Ok(())
    }
}

/// Checks that a neighbour got all of these lines in order, and then `SYNC` with the number of the
/// last change.
pub(crate) fn told(written: &[u8], lines: &[String], seq: u64, news: u64) -> Result<(), Failure> {
    let is_sync = |line: &&[u8]| line.starts_with(b"SYNC ");
    let parts = || written.split_inclusive(|&byte| byte == b'\n');
    let is_aside = |line: &&[u8]| line.starts_with(b"KEPT ") || line.starts_with(b"CLOCK ");
    let records: Vec<u8> = parts()
        .filter(|line| !is_sync(line) && !is_aside(line))
        .flatten()
        .copied()
        .collect();
    let expected = if news == 0 {
        String::new()
    } else {
        lines.concat()
    };
    same("a neighbour", &records, expected.as_bytes())?;
    if news > 0 {
        let last = parts().rfind(is_sync).unwrap_or_default();
        let position = format!("SYNC {}\n", seq + news);
        same("a neighbour's position", last, position.as_bytes())?;
    }
    Ok(())
}
