//! The server's links during the attack, from its STATUS.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use herd_client::standing::{self, Standing, is_wrong_proof};
use herd_mio::core::base::settings::{NeighbourTls, Secrets};
use herd_testkit::clock::now;

/// The interval between questions.
const INTERVAL: Duration = Duration::from_millis(250);
/// The time limit of one answer.
const PATIENCE: Duration = Duration::from_secs(2);
/// The time limit of repeated questions after the attack, if the server does not answer.
const AFTERWARDS: Duration = Duration::from_secs(5);

/// Asks a server for its STATUS.
pub(crate) struct Operator {
    pub(crate) address: SocketAddr,
    pub(crate) name: String,
    pub(crate) secrets: Secrets,
    pub(crate) tls: Option<NeighbourTls>,
}

/// The state of the links.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Links {
    /// The linked neighbours before the attack, and after it.
    pub(crate) before: Vec<String>,
    /// `None` if the server did not answer.
    pub(crate) after: Option<Vec<String>>,
    /// The neighbours of `before` that were not linked at some time.
    pub(crate) lost: BTreeSet<String>,
    /// The number of questions during the attack, and the number of answers.
    pub(crate) asked: u64,
    pub(crate) answered: u64,
    pub(crate) slowest_ms: u64,
    pub(crate) first_failure: Option<String>,
    /// The greatest delay of a neighbour's confirmation, and the greatest number of unconfirmed
    /// changes.
    pub(crate) max_lag_ms: u64,
    pub(crate) max_unconfirmed: u64,
    /// Whether the server restarted.
    pub(crate) restarted: bool,
    /// The server's counters that have increased.
    pub(crate) counted: BTreeMap<&'static str, u64>,
}

impl Operator {
    /// Asks once.
    pub(crate) fn ask(&self) -> Result<Standing, String> {
        let mut failure = "the herd has no secret".to_owned();
        for secret in self.secrets.accepted() {
            match standing::ask(
                self.address,
                &self.name,
                secret,
                self.tls.as_ref(),
                PATIENCE,
            ) {
                Ok(standing) => return Ok(standing),
                Err(error) => {
                    failure = format!("{}: {error}", self.address);
                    if !is_wrong_proof(&error) {
                        break;
                    }
                }
            }
        }
        Err(failure)
    }

    /// Asks until the attack ends, and once after it.
    pub(crate) fn watch(&self, before: &Standing, ends: &AtomicBool) -> Links {
        let mut links = Links {
            before: before.linked.clone(),
            ..Links::default()
        };
        while !ends.load(Ordering::Relaxed) {
            let begun = now();
            let answer = self.ask();
            let took = begun.elapsed();
            links.asked += 1;
            match answer {
                Ok(standing) => {
                    links.answered += 1;
                    let ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
                    links.slowest_ms = links.slowest_ms.max(ms);
                    links.note(before, &standing);
                }
                Err(failure) => {
                    links.first_failure.get_or_insert(failure);
                }
            }
            thread::sleep(INTERVAL.saturating_sub(took));
        }
        let until = now() + AFTERWARDS;
        loop {
            match self.ask() {
                Ok(standing) => {
                    links.note(before, &standing);
                    links.after = Some(standing.linked.clone());
                    return links;
                }
                Err(_) if now() < until => thread::sleep(INTERVAL),
                Err(failure) => {
                    links.first_failure.get_or_insert(failure);
                    return links;
                }
            }
        }
    }
}

impl Links {
    /// Compares an answer with the one before the attack.
    fn note(&mut self, before: &Standing, now: &Standing) {
        let is_lost = |name: &&String| !now.linked.contains(name);
        self.lost
            .extend(before.linked.iter().filter(is_lost).cloned());
        for link in &now.links {
            self.max_lag_ms = self.max_lag_ms.max(link.lag_ms);
            self.max_unconfirmed = self.max_unconfirmed.max(link.unconfirmed);
        }
        self.restarted |= before.boot != now.boot;
        let counters = before.counters.all().zip(now.counters.all());
        let more = counters.map(|((name, before), (_, now))| (name, now.saturating_sub(before)));
        self.counted.extend(more.filter(|(_, more)| *more > 0));
    }
}
