//! The outages of a run: lost connections with their durations, and commands without an answer.
//! This module has no clock. Times are in nanoseconds since the start of the run.

/// The greatest number of outages. Later ones are counted as parts of the last one.
const MAX_OUTAGES: usize = 1000;

/// Commands without an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Missing {
    pub(crate) count: u64,
    /// The wait of the oldest command.
    pub(crate) oldest_ns: u64,
}

impl Missing {
    /// Adds a command that has waited since `since_ns`.
    pub(crate) fn add(&mut self, since_ns: u64, now_ns: u64) {
        self.count += 1;
        self.oldest_ns = self.oldest_ns.max(now_ns.saturating_sub(since_ns));
    }

    /// The sum of both.
    pub(crate) fn with(self, other: Missing) -> Missing {
        Missing {
            count: self.count + other.count,
            oldest_ns: self.oldest_ns.max(other.oldest_ns),
        }
    }
}

/// Commands without an answer, by kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct MissingByKind {
    pub(crate) iamat: Missing,
    pub(crate) whatsat: Missing,
}

impl MissingByKind {
    /// The sum of all kinds.
    pub(crate) fn all(&self) -> Missing {
        self.iamat.with(self.whatsat)
    }

    /// The sum of both.
    pub(crate) fn with(&self, other: &MissingByKind) -> MissingByKind {
        MissingByKind {
            iamat: self.iamat.with(other.iamat),
            whatsat: self.whatsat.with(other.whatsat),
        }
    }
}

/// A time in which at least one connection was missing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Outage {
    pub(crate) from_ns: u64,
    /// The time at which no connection was missing any more. Before that, the time of the last
    /// update.
    pub(crate) to_ns: u64,
    /// Whether it ended before the run did.
    pub(crate) is_over: bool,
    /// The greatest number of missing connections.
    pub(crate) connections: usize,
    /// The part of this time without any connection.
    pub(crate) disconnected_ns: u64,
}

/// All outages.
#[derive(Debug)]
pub(crate) struct Outages {
    connections: usize,
    missing: usize,
    /// The time since which there is no connection, if there is none.
    none_since_ns: Option<u64>,
    /// The number of lost connections.
    pub(crate) lost: u64,
    /// The number of connections that were made again.
    pub(crate) remade: u64,
    pub(crate) list: Vec<Outage>,
}

impl Outages {
    /// No connection is missing.
    pub(crate) fn new(connections: usize) -> Outages {
        Outages {
            connections,
            missing: 0,
            none_since_ns: None,
            lost: 0,
            remade: 0,
            list: Vec::new(),
        }
    }

    /// A connection was lost.
    pub(crate) fn lost(&mut self, now_ns: u64) {
        self.lost += 1;
        self.missing += 1;
        let is_full = self.list.len() >= MAX_OUTAGES;
        match self.list.last_mut() {
            Some(outage) if !outage.is_over || is_full => {
                outage.is_over = false;
                outage.connections = outage.connections.max(self.missing);
            }
            Some(_) | None => self.list.push(Outage {
                from_ns: now_ns,
                to_ns: now_ns,
                is_over: false,
                connections: self.missing,
                disconnected_ns: 0,
            }),
        }
        if self.missing == self.connections {
            self.none_since_ns = Some(now_ns);
        }
    }

    /// A connection was made again. Returns the length of the outage, if this was its last
    /// connection.
    pub(crate) fn remade(&mut self, now_ns: u64) -> Option<u64> {
        self.remade += 1;
        self.missing -= 1;
        let none_ns = self.none_since_ns.take();
        let outage = self.list.last_mut()?;
        outage.disconnected_ns += none_ns.map_or(0, |since_ns| now_ns.saturating_sub(since_ns));
        outage.to_ns = now_ns;
        outage.is_over = self.missing == 0;
        outage
            .is_over
            .then(|| now_ns.saturating_sub(outage.from_ns))
    }

    /// The run ends.
    pub(crate) fn end(&mut self, now_ns: u64) {
        let none_ns = self.none_since_ns.take();
        if let Some(outage) = self.list.last_mut().filter(|outage| !outage.is_over) {
            outage.to_ns = now_ns;
            outage.disconnected_ns += none_ns.map_or(0, |since_ns| now_ns.saturating_sub(since_ns));
        }
    }

    /// The number of missing connections.
    pub(crate) fn missing(&self) -> usize {
        self.missing
    }

    /// Whether there is no connection.
    pub(crate) fn is_disconnected(&self) -> bool {
        self.none_since_ns.is_some()
    }

    /// The total time without any connection.
    pub(crate) fn disconnected_ns(&self) -> u64 {
        self.list.iter().map(|outage| outage.disconnected_ns).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_lasts_from_first_loss_to_full_reconnection() {
        let mut outages = Outages::new(2);
        outages.lost(10);
        outages.lost(20);
        assert!(outages.is_disconnected());
        assert_eq!(outages.remade(50), None);
        assert!(!outages.is_disconnected());
        assert_eq!(outages.remade(60), Some(50));
        outages.lost(100);
        outages.end(130);
        let outage = |from_ns, to_ns, is_over, connections, disconnected_ns| Outage {
            from_ns,
            to_ns,
            is_over,
            connections,
            disconnected_ns,
        };
        let expected = [outage(10, 60, true, 2, 30), outage(100, 130, false, 1, 0)];
        assert_eq!(outages.list, expected);
        assert_eq!((outages.lost, outages.remade, outages.missing()), (3, 2, 1));
        assert_eq!(outages.disconnected_ns(), 30);
    }

    #[test]
    fn the_number_of_recorded_outages_is_limited() {
        let mut outages = Outages::new(1);
        for turn in 0..5000 {
            outages.lost(turn * 10);
            outages.remade(turn * 10 + 5);
        }
        assert_eq!(outages.list.len(), MAX_OUTAGES);
        assert_eq!(outages.disconnected_ns(), 25_000);
        assert!(outages.list.last().unwrap().is_over);
    }

    #[test]
    fn the_oldest_missing_answer_is_recorded() {
        let mut missing = MissingByKind::default();
        missing.iamat.add(70, 100);
        missing.iamat.add(90, 100);
        missing.whatsat.add(10, 100);
        let all = Missing {
            count: 3,
            oldest_ns: 90,
        };
        assert_eq!(missing.all(), all);
        assert_eq!(missing.with(&missing).all().count, 6);
    }
}
