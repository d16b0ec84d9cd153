//! What may have expired at some server, as far as an onlooker can know: the clock that is furthest ahead decides.
//!
//! A record that won by its epoch can expire before what it replaced. Then a server that lagged brings that back, for as long as it
//! lasts. So whatever is less than a record that has expired is promised no more, either.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use herd_testkit::at_line::Line;

/// Which records may be there, or may not.
#[derive(Clone, Debug)]
pub(crate) struct Expired {
    /// What is older, in attoseconds since the epoch, may have expired.
    horizon: i128,
    /// The greatest record of each client that may have.
    greatest: Arc<BTreeMap<Vec<u8>, Line>>,
    /// All records of each client that servers have held, and that have not.
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

    /// What is older may have expired from now on.
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

    /// Whether this record may have expired, or be back though it was replaced.
    pub(crate) fn covers(&self, line: &Line) -> bool {
        line.is_before(self.horizon)
            || !self.greatest.is_empty()
                && self
                    .greatest
                    .get(line.client())
                    .is_some_and(|greatest| line <= greatest)
    }
}
