//! Workloads in which a neighbour sends records. The server passes the new ones on to another
//! neighbour.

use herd_mio::core::node::ConnId;

use crate::crowd::{CLIENTS, Crowd};
use crate::iamat::{Age, told};
use crate::stage::{NEIGHBOURS, Read, Stage};
use crate::workload::{Failure, Workload};

/// A thousand clients whose records came from the first neighbour. In a pass one neighbour sends
/// each record once: the first one newer records, or the second one duplicates.
pub(crate) struct Neighbours {
    stage: Stage,
    links: Vec<ConnId>,
    crowd: Crowd,
    age: Age,
    lines: Vec<String>,
    reads: Vec<Read>,
    /// The digest of the records and their last sequence number, both before the pass.
    before: (u64, u64),
    /// The position of each neighbour in its own feed. A feed is a server's ordered list of
    /// changes.
    positions: [u64; 2],
}

impl Neighbours {
    pub(crate) fn new(age: Age) -> Result<Neighbours, Failure> {
        let (stage, links) = Stage::new(2)?;
        let mut neighbours = Neighbours {
            stage,
            links,
            crowd: Crowd::new(),
            age: Age::Newest,
            lines: Vec::new(),
            reads: Vec::new(),
            before: (0, 0),
            positions: [0; 2],
        };
        // The server learns all clients before the measurement begins.
        neighbours.prepare()?;
        neighbours.pass();
        neighbours.check()?;
        neighbours.age = age;
        Ok(neighbours)
    }

    /// One read for each line. As a real neighbour does, it ends with `SYNC` and the position of
    /// that line in the feed.
    fn told_by(&mut self, neighbour: usize) -> Vec<Read> {
        let (id, position) = (self.links[neighbour], &mut self.positions[neighbour]);
        let told = self.lines.iter().map(|line| {
            *position += 1;
            let bytes = format!("{line}SYNC {position}\n").into_bytes();
            Read { id, bytes }
        });
        told.collect()
    }
}

impl Workload for Neighbours {
    fn operations(&self) -> u64 {
        CLIENTS as u64
    }

    fn prepare(&mut self) -> Result<(), Failure> {
        // The server closes a link on which it hears nothing for too long.
        let synced = self.links.iter().zip(self.positions);
        let synced = synced.map(|(&id, position)| Read {
            id,
            bytes: format!("SYNC {position}\n").into_bytes(),
        });
        self.stage.turn(&synced.collect::<Vec<Read>>());
        self.lines.clear();
        for client in 0..CLIENTS {
            let said = self.crowd.iamat(client, self.stage.receipt_ns(client));
            self.lines.push(said.answer(NEIGHBOURS[0]));
        }
        self.reads = self.told_by(0);
        if self.age == Age::Stale {
            self.pass();
            self.reads = self.told_by(1);
        }
        self.stage.forget_written();
        let records = self.stage.node.records();
        self.before = (records.digest(), records.last_seq());
        Ok(())
    }

    fn pass(&mut self) {
        for read in &self.reads {
            self.stage.turn(std::slice::from_ref(read));
        }
    }

    fn check(&mut self) -> Result<(), Failure> {
        self.stage.check()?;
        let records = self.stage.node.records();
        let (digest, seq) = self.before;
        let news = match self.age {
            Age::Newest => CLIENTS as u64,
            Age::Stale => 0,
        };
        if records.len() != CLIENTS || records.last_seq() - seq != news {
            let changes = records.last_seq() - seq;
            return Err(format!("{} records, {changes} changes", records.len()));
        }
        if self.age == Age::Stale && records.digest() != digest {
            return Err("a duplicate changed a record".into());
        }
        for (client, line) in self.lines.iter().enumerate() {
            let name = self.crowd.name(client);
            if records.line(name.as_bytes()).as_deref() != Some(line.as_bytes()) {
                return Err(format!("the record of {name} is not the newest"));
            }
        }
        // A record is not sent back to the neighbour that it came from.
        told(self.stage.written(self.links[0]), &[], seq, 0)?;
        told(self.stage.written(self.links[1]), &self.lines, seq, news)
    }
}
