//! The surroundings of servers and clients: network, time, log and checks. It also has the failure
//! of a run.

use std::time::Duration;

use herd_mio::core::base::clock::Time;
use herd_testkit::at_line::{Epochs, Line};
use herd_testkit::rng::Rng;

use crate::chronicle::{Chronicle, Subject};
use crate::expired::Expired;
use crate::network::Network;
use crate::timeline::{Event, Key, Timeline};
use crate::wire::Wire;

/// Without faults, all servers are linked by this time.
const LINKED: Time = Time::from_nanos(3_500_000_000);

/// The surroundings of servers and clients.
pub(crate) struct Outside {
    pub(crate) timeline: Timeline,
    pub(crate) network: Network,
    pub(crate) wire: Wire,
    pub(crate) epochs: Epochs,
    pub(crate) chronicle: Chronicle,
    pub(crate) rng: Rng,
    /// The herd's edges. The first server of a pair dials.
    pub(crate) edges: Vec<(usize, usize)>,
    /// The time in which an update has to reach every server, if there are no faults; and the
    /// acknowledged updates, by client.
    pub(crate) prompt: Option<Duration>,
    pub(crate) promises: Vec<(Vec<u8>, Line)>,
    pub(crate) expired: Expired,
    pub(crate) failure: Option<Failure>,
}

/// A violated rule.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The virtual time at which it was noticed.
    pub time: Time,
    /// The violation as text.
    pub what: String,
    pub(crate) subjects: Vec<Subject>,
}

/// Makes the run fail. Only the first failure counts.
pub(crate) fn failed(outside: &mut Outside, what: &str, subjects: &[Subject]) {
    let time = outside.timeline.now();
    outside.failure.get_or_insert_with(|| Failure {
        time,
        what: what.to_owned(),
        subjects: subjects.to_vec(),
    });
}

impl Outside {
    /// A server has read `wall` nanoseconds since the epoch from its wall clock. Its records expire
    /// after `ttl_ms`.
    pub(crate) fn saw(&mut self, wall: u64, ttl_ms: u64) {
        if ttl_ms > 0 {
            let horizon = (i128::from(wall) - i128::from(ttl_ms) * 1_000_000) * 1_000_000_000;
            self.expired.advance(horizon);
        }
    }

    /// Adds to the event log.
    pub(crate) fn log(&mut self, subjects: &[Subject], text: impl FnOnce() -> String) {
        self.chronicle.log(self.timeline.now(), subjects, text);
    }

    /// Adds an event about a connection of a server to the log.
    pub(crate) fn log_of(&mut self, key: Key, host: usize, text: impl FnOnce() -> String) {
        let edge = self.wire.edge(key);
        let subjects = [Subject::Host(host)]
            .into_iter()
            .chain(edge.map(Subject::Edge));
        let subjects: Vec<Subject> = subjects.collect();
        self.log(&subjects, text);
    }

    /// An update was acknowledged.
    pub(crate) fn promise(&mut self, client: &[u8], line: &Line) {
        if let Some(prompt) = self.prompt.filter(|_| self.timeline.now() > LINKED) {
            let promise = self.promises.len();
            self.promises.push((client.to_vec(), line.clone()));
            self.timeline.after(prompt, Event::Due { promise });
        }
    }

    /// A server has sent bytes to a neighbour.
    pub(crate) fn sent(&mut self, key: Key, side: usize, bytes: &[u8], is_restored: bool) {
        let now = self.timeline.now();
        let foul = self.wire.sent(
            key,
            side,
            bytes,
            is_restored,
            (now, &self.expired),
            &mut self.chronicle,
        );
        if let Some(foul) = foul {
            failed(self, &foul.what, &foul.subjects);
        }
    }
}
