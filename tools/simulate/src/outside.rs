//! Everything that is not a server or a client, as servers and clients see it; and the failure of a run.

use std::time::Duration;

use herd_mio::core::base::clock::Time;
use herd_testkit::at_line::{Epochs, Line};
use herd_testkit::rng::Rng;

use crate::chronicle::{Chronicle, Subject};
use crate::expired::Expired;
use crate::network::Network;
use crate::timeline::{Event, Key, Timeline};
use crate::wire::Wire;

/// Where nothing is wrong, all are linked by then.
const LINKED: Time = Time::from_nanos(3_500_000_000);

/// Everything that is not a server or a client, as servers and clients see it.
pub(crate) struct Outside {
    pub(crate) timeline: Timeline,
    pub(crate) network: Network,
    pub(crate) wire: Wire,
    pub(crate) epochs: Epochs,
    pub(crate) chronicle: Chronicle,
    pub(crate) rng: Rng,
    /// The herd's edges: the first of two dials.
    pub(crate) edges: Vec<(usize, usize)>,
    /// How soon an update has to be everywhere, if nothing is wrong; and those that were acknowledged, by client.
    pub(crate) prompt: Option<Duration>,
    pub(crate) promises: Vec<(Vec<u8>, Line)>,
    pub(crate) expired: Expired,
    pub(crate) failure: Option<Failure>,
}

/// What must not be, and was.
#[derive(Clone, Debug)]
pub struct Failure {
    /// When it was noticed, in virtual time.
    pub time: Time,
    /// What it is.
    pub what: String,
    pub(crate) subjects: Vec<Subject>,
}

/// The run fails; only the first failure counts.
pub(crate) fn failed(outside: &mut Outside, what: &str, subjects: &[Subject]) {
    let time = outside.timeline.now();
    outside.failure.get_or_insert_with(|| Failure {
        time,
        what: what.to_owned(),
        subjects: subjects.to_vec(),
    });
}

impl Outside {
    /// A server has seen its wall clock show `wall` nanoseconds since the epoch, and lets records of that age expire.
    pub(crate) fn saw(&mut self, wall: u64, ttl_ms: u64) {
        if ttl_ms > 0 {
            let horizon = (i128::from(wall) - i128::from(ttl_ms) * 1_000_000) * 1_000_000_000;
            self.expired.advance(horizon);
        }
    }

    /// Adds to the event log.
    pub(crate) fn say(&mut self, subjects: &[Subject], text: impl FnOnce() -> String) {
        self.chronicle.tell(self.timeline.now(), subjects, text);
    }

    /// Adds to the event log what concerns a connection of a server.
    pub(crate) fn say_of(&mut self, key: Key, host: usize, text: impl FnOnce() -> String) {
        let edge = self.wire.edge(key);
        let subjects = [Subject::Host(host)]
            .into_iter()
            .chain(edge.map(Subject::Edge));
        let subjects: Vec<Subject> = subjects.collect();
        self.say(&subjects, text);
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
