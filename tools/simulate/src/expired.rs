//! The records that may have expired at some server. The clock that is furthest ahead decides.
//!
//! A record that won by its epoch can expire before the record that it replaced. Then a slow server
//! may bring the replaced record back, until that expires too. So a record below an expired one is
//! not promised either.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use herd_testkit::at_line::Line;

/// The records that may have expired.
#[derive(Clone, Debug)]
pub(crate) struct Expired {
    /// Records before this time may have expired, in attoseconds since the epoch.
    horizon: i128,
    /// The greatest record of each client that may have expired.
    greatest: Arc<BTreeMap<Vec<u8>, Line>>,
    /// All other records of each client that servers have held.
    held: Arc<BTreeMap<Vec<u8>, BTreeSet<Line>>>,
}

impl Default for Expired {
    fn default() -> Expired {
        Expired {
            horizon: i128::MIN,
            greatest: Arc::default(),
            held: Arc::default(),
        }
    }
}

impl Expired {
    /// Whether records expire at all.
    pub(crate) fn is_on(&self) -> bool {
        self.horizon > i128::MIN
    }

    /// A server has held this record.
    pub(crate) fn note(&mut self, line: Line) {
        let client = line.client().to_vec();
        if line.is_before(self.horizon) {
            self.expires(client, line);
        } else if self.is_on() && !self.held.get(&client).is_some_and(|it| it.contains(&line)) {
            let held = Arc::make_mut(&mut self.held);
            held.entry(client).or_default().insert(line);
        }
    }

    /// Moves the horizon. Records before it may have expired.
    pub(crate) fn advance(&mut self, horizon: i128) {
        if horizon <= self.horizon {
            return;
        }
        self.horizon = horizon;
        let has_expired = |lines: &BTreeSet<Line>| lines.iter().any(|it| it.is_before(horizon));
        if !self.held.values().any(has_expired) {
            return;
        }
        let mut expired = Vec::new();
        for (client, lines) in Arc::make_mut(&mut self.held) {
            let lines = lines.extract_if(.., |line| line.is_before(horizon));
            expired.extend(lines.last().map(|line| (client.clone(), line)));
        }
        for (client, line) in expired {
            self.expires(client, line);
        }
    }

    fn expires(&mut self, client: Vec<u8>, line: Line) {
        if self.greatest.get(&client) < Some(&line) {
            Arc::make_mut(&mut self.greatest).insert(client, line);
        }
    }

    /// Whether this record may have expired, or may be back after it was replaced.
    pub(crate) fn covers(&self, line: &Line) -> bool {
        line.is_before(self.horizon)
            || !self.greatest.is_empty()
                && self
                    .greatest
                    .get(line.client())
                    .is_some_and(|greatest| line <= greatest)
    }
}
