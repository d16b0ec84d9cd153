//! The result of an attack, as one JSON object. [`table`](crate::abuse::table) prints it as text.
//! `herd-load abuse --help` lists the fields.

use std::collections::{BTreeMap, BTreeSet};

use herd_testkit::failure::Failure;
use serde::Serialize;

use crate::abuse::attack;
use crate::abuse::footprint::{Growth, Level, Seen};
use crate::abuse::links;
use crate::abuse::polite::Figures;
use crate::process::Usage;
use crate::report::{Latency, Server, counted};
use crate::units::time;

/// The result of an attack.
#[derive(Serialize)]
pub(crate) struct Report {
    pub(crate) program: &'static str,
    pub(crate) version: &'static str,
    pub(crate) mode: &'static str,
    pub(crate) kind: &'static str,
    pub(crate) server: Server,
    pub(crate) parameters: Parameters,
    pub(crate) interrupted: bool,
    /// The length of the attack.
    pub(crate) duration_s: f64,
    pub(crate) attack: Attack,
    pub(crate) polite: Polite,
    pub(crate) links: Option<Links>,
    pub(crate) memory: Option<Level>,
    pub(crate) descriptors: Option<Level>,
    pub(crate) log: Option<Growth>,
    pub(crate) data: Option<Growth>,
    pub(crate) processes: Vec<Usage>,
    pub(crate) generator: Usage,
    pub(crate) notes: Vec<String>,
    /// The reasons for exit status 1.
    pub(crate) failures: Vec<String>,
}

/// The values of the options.
#[derive(Serialize)]
pub(crate) struct Parameters {
    pub(crate) tls: bool,
    pub(crate) peers: Option<String>,
    pub(crate) duration_s: f64,
    pub(crate) connections: usize,
    pub(crate) from: String,
    pub(crate) polite: u32,
    pub(crate) polite_from: String,
    pub(crate) polite_whatsat: bool,
    pub(crate) polite_p99_ms: f64,
    pub(crate) whatsat_p99_ms: f64,
    pub(crate) prefix: String,
}

/// The actions of the attack, and the answers of the server.
#[derive(Serialize)]
pub(crate) struct Attack {
    pub(crate) connected: u64,
    pub(crate) failed_connects: u64,
    pub(crate) no_port: u64,
    pub(crate) closed_by_server: u64,
    pub(crate) most_open: usize,
    pub(crate) sent_commands: u64,
    pub(crate) sent_bytes: u64,
    pub(crate) received_bytes: u64,
    pub(crate) answered: u64,
    pub(crate) refused: u64,
    pub(crate) places_errors: u64,
    pub(crate) connects_per_s: f64,
    /// Of answers and refusals together.
    pub(crate) replies_per_s: f64,
    pub(crate) rejection: Option<String>,
}

/// The polite clients' commands and latencies.
#[derive(Serialize)]
pub(crate) struct Polite {
    pub(crate) asked: u64,
    pub(crate) answered: u64,
    pub(crate) refused: u64,
    pub(crate) refused_new: u64,
    pub(crate) lost: u64,
    pub(crate) unanswered: u64,
    pub(crate) oldest_unanswered_ms: Option<f64>,
    pub(crate) connections_lost: u64,
    pub(crate) connections_rejected: u64,
    pub(crate) first_refusal: Option<String>,
    pub(crate) alone: Option<Latency>,
    pub(crate) under_attack: Option<Latency>,
    pub(crate) whatsat_alone: Option<Latency>,
    pub(crate) whatsat_under_attack: Option<Latency>,
    pub(crate) late_us: Option<Latency>,
}

/// The state of the links.
#[derive(Serialize)]
pub(crate) struct Links {
    pub(crate) before: Vec<String>,
    pub(crate) after: Option<Vec<String>>,
    pub(crate) lost: BTreeSet<String>,
    pub(crate) asked: u64,
    pub(crate) answered: u64,
    pub(crate) slowest_ms: u64,
    pub(crate) max_lag_ms: u64,
    pub(crate) max_unconfirmed: u64,
    pub(crate) restarted: bool,
    pub(crate) counted: BTreeMap<&'static str, u64>,
    pub(crate) first_failure: Option<String>,
}

impl Attack {
    /// The figures of an attack of this length.
    pub(crate) fn of(attack: attack::Attack, seconds: f64) -> Attack {
        let per_s = |count: u64| count as f64 / seconds.max(0.001);
        let attack::Attack {
            connected,
            failed_connects,
            no_port,
            closed_by_server,
            most_open,
            sent_commands,
            sent_bytes,
            received_bytes,
            answered,
            refused,
            places_errors,
            rejection,
            first_failure: _,
        } = attack;
        Attack {
            connected,
            failed_connects,
            no_port,
            closed_by_server,
            most_open,
            sent_commands,
            sent_bytes,
            received_bytes,
            answered,
            refused,
            places_errors,
            connects_per_s: per_s(connected),
            replies_per_s: per_s(answered + refused),
            rejection,
        }
    }
}

impl Polite {
    pub(crate) fn of(figures: Figures) -> Polite {
        let Figures {
            asked,
            answered,
            refused,
            refused_new,
            lost,
            connections_lost,
            connections_rejected,
            first_refusal,
            unanswered,
            oldest_unanswered_ns,
            alone,
            under_attack,
            whatsat_alone,
            whatsat_under_attack,
            late,
        } = figures;
        Polite {
            asked,
            answered,
            refused,
            refused_new,
            lost,
            unanswered,
            oldest_unanswered_ms: (unanswered > 0).then_some(oldest_unanswered_ns as f64 / 1e6),
            connections_lost,
            connections_rejected,
            first_refusal,
            alone: Latency::of(&alone),
            under_attack: Latency::of(&under_attack),
            whatsat_alone: Latency::of(&whatsat_alone),
            whatsat_under_attack: Latency::of(&whatsat_under_attack),
            late_us: Latency::of(&late),
        }
    }
}

impl From<links::Links> for Links {
    fn from(links: links::Links) -> Links {
        let links::Links {
            before,
            after,
            lost,
            asked,
            answered,
            slowest_ms,
            first_failure,
            max_lag_ms,
            max_unconfirmed,
            restarted,
            counted,
        } = links;
        Links {
            before,
            after,
            lost,
            asked,
            answered,
            slowest_ms,
            max_lag_ms,
            max_unconfirmed,
            restarted,
            counted,
            first_failure,
        }
    }
}

impl Report {
    /// The report, with the samples of the server's process and files.
    pub(crate) fn beside(self, seen: Seen) -> Report {
        let Seen {
            memory,
            descriptors,
            log,
            data,
        } = seen;
        Report {
            memory,
            descriptors,
            log,
            data,
            ..self
        }
    }

    /// The report, with a note if this program was late itself.
    pub(crate) fn warned(mut self) -> Report {
        let half_us = self.parameters.polite_p99_ms * 1000.0 / 2.0;
        if let Some(late) = self.polite.late_us.as_ref().filter(|it| it.p99 > half_us) {
            self.notes.push(format!(
                "herd-load itself was late by {} (p99), and this delay is in the polite latencies; give herd-load its own cores",
                time(late.p99)
            ));
        }
        self
    }

    /// The report, with the reasons for exit status 1.
    pub(crate) fn judged(self, first_failure: Option<&str>) -> Report {
        let failures = self.judge(first_failure);
        Report { failures, ..self }
    }

    fn judge(&self, first_failure: Option<&str>) -> Vec<String> {
        let mut failures = Vec::new();
        if self.attack.connected == 0 {
            let why = first_failure.unwrap_or("the time was too short");
            failures.push(format!("the attack made no connection: {why}"));
        }
        let (polite, parameters) = (&self.polite, &self.parameters);
        if polite.under_attack.is_none() {
            failures.push("no polite IAMAT was answered under attack".to_owned());
        }
        for (latency, what, limit_ms) in [
            (&polite.under_attack, "IAMAT", parameters.polite_p99_ms),
            (
                &polite.whatsat_under_attack,
                "WHATSAT",
                parameters.whatsat_p99_ms,
            ),
        ] {
            let limit_us = limit_ms * 1000.0;
            if let Some(latency) = latency.as_ref().filter(|it| it.p99 >= limit_us) {
                let (p99, limit) = (time(latency.p99), time(limit_us));
                failures.push(format!(
                    "the p99 of polite {what}s is {p99}, which is not below {limit}"
                ));
            }
        }
        let said = match &polite.first_refusal {
            Some(words) => format!("; the first refusal said: {words}"),
            None => String::new(),
        };
        for (count, what) in [
            (polite.refused, "refused"),
            (polite.lost, "lost with the connection"),
            (polite.unanswered, "without an answer at the end"),
        ] {
            if count > 0 {
                let said = if what == "refused" { said.as_str() } else { "" };
                let commands = counted(count, "polite command");
                failures.push(format!("{commands} {what}{said}"));
            }
        }
        for (count, what) in [
            (polite.connections_lost, "lost"),
            (polite.connections_rejected, "rejected"),
        ] {
            if count > 0 {
                failures.push(format!("{} {what}", counted(count, "polite connection")));
            }
        }
        if self.processes.iter().any(|process| process.ended) {
            failures.push("the server's process ended".to_owned());
        }
        let Some(links) = &self.links else {
            return failures;
        };
        if !links.lost.is_empty() {
            let lost: Vec<&str> = links.lost.iter().map(String::as_str).collect();
            failures.push(format!("the link with {} was lost", lost.join(", ")));
        }
        if links.after.is_none() {
            let why = links.first_failure.as_deref().unwrap_or_default();
            failures.push(format!(
                "the state of the links after the attack is unknown: {why}"
            ));
        }
        if links.restarted {
            failures.push("the server restarted".to_owned());
        }
        failures
    }

    /// The failures, in one line.
    pub(crate) fn failure(&self) -> Option<String> {
        (!self.failures.is_empty()).then(|| self.failures.join("; "))
    }

    /// One line.
    pub(crate) fn json(&self) -> Result<String, Failure> {
        serde_json::to_string(self)
            .map_err(|error| Failure::Failed(format!("cannot write the figures as JSON: {error}")))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    fn usage() -> Usage {
        Usage {
            pid: 7,
            ended: false,
            user_ms: 1_200,
            system_ms: 300,
            rss_before_bytes: 1,
            rss_after_bytes: 1,
        }
    }

    pub(crate) fn report() -> Report {
        let hundred = {
            let mut hundred = crate::tally::histogram().unwrap();
            for ms in 1..=100 {
                hundred.record(ms * 1_000_000).unwrap();
            }
            Latency::of(&hundred)
        };
        Report {
            program: "herd-load",
            version: "0",
            mode: "abuse",
            kind: "faults",
            server: Server {
                name: "Riley".into(),
                address: "127.0.0.1:10000".into(),
            },
            parameters: Parameters {
                tls: false,
                peers: Some("127.0.0.1:11000".into()),
                duration_s: 10.0,
                connections: 64,
                from: "127.0.1.1-127.0.1.9".into(),
                polite: 4,
                polite_from: "127.0.0.1".into(),
                polite_whatsat: false,
                polite_p99_ms: 100.0,
                whatsat_p99_ms: 2000.0,
                prefix: "abuse".into(),
            },
            interrupted: false,
            duration_s: 10.0,
            attack: Attack {
                connected: 70,
                failed_connects: 0,
                no_port: 0,
                closed_by_server: 6,
                most_open: 64,
                sent_commands: 1_000_000,
                sent_bytes: 2_000_000,
                received_bytes: 4_000_000,
                answered: 0,
                refused: 999_000,
                places_errors: 0,
                connects_per_s: 7.0,
                replies_per_s: 99_900.0,
                rejection: None,
            },
            polite: Polite {
                asked: 880,
                answered: 880,
                refused: 0,
                refused_new: 0,
                lost: 0,
                unanswered: 0,
                oldest_unanswered_ms: None,
                connections_lost: 0,
                connections_rejected: 0,
                first_refusal: None,
                alone: hundred.clone(),
                under_attack: hundred.clone(),
                whatsat_alone: None,
                whatsat_under_attack: None,
                late_us: hundred,
            },
            links: Some(Links {
                before: vec!["Jaquez".into(), "Juzang".into()],
                after: Some(vec!["Jaquez".into(), "Juzang".into()]),
                lost: BTreeSet::new(),
                asked: 40,
                answered: 40,
                slowest_ms: 12,
                max_lag_ms: 3,
                max_unconfirmed: 8,
                restarted: false,
                counted: BTreeMap::from([("stale", 3)]),
                first_failure: None,
            }),
            memory: Some(Level {
                before: 10_000_000,
                most: 30_000_000,
                after: 20_000_000,
            }),
            descriptors: Some(Level {
                before: 20,
                most: 84,
                after: 20,
            }),
            log: Some(Growth {
                before_bytes: 5,
                after_bytes: 260_005,
                written_bytes: 260_000,
                bytes_per_s: 26_000.0,
            }),
            data: None,
            processes: vec![usage()],
            generator: usage(),
            notes: vec!["something to know".into()],
            failures: Vec::new(),
        }
    }

    #[test]
    fn a_run_passes_if_latencies_are_within_limits() {
        assert_eq!(report().judge(None), Vec::<String>::new());
        let mut slow = report();
        slow.parameters.polite_p99_ms = 98.0;
        let iamat = "the p99 of polite IAMATs is 99.0 ms, which is not below 98.0 ms";
        assert_eq!(slow.judge(None), [iamat]);
        slow.polite.whatsat_under_attack = slow.polite.alone.clone();
        assert_eq!(slow.judge(None), [iamat]);
        slow.parameters.whatsat_p99_ms = 90.0;
        let whatsat = "the p99 of polite WHATSATs is 99.0 ms, which is not below 90.0 ms";
        assert_eq!(slow.judge(None), [iamat, whatsat]);
    }

    #[test]
    fn each_loss_fails_the_run() {
        type Change = fn(&mut Report);
        let cases: [(Change, &str); 10] = [
            (
                |it| it.processes[0].ended = true,
                "the server's process ended",
            ),
            (
                |it| it.attack.connected = 0,
                "the attack made no connection: no",
            ),
            (|it| it.polite.refused = 2, "2 polite commands refused"),
            (|it| it.polite.lost = 2, "2 polite commands lost with the"),
            (
                |it| it.polite.unanswered = 1,
                "1 polite command without an answer at the end",
            ),
            (
                |it| it.polite.connections_rejected = 1,
                "1 polite connection rejected",
            ),
            (|it| it.polite.under_attack = None, "no polite IAMAT was"),
            (
                |it| {
                    let links = it.links.as_mut().unwrap();
                    links.lost.insert("Jaquez".into());
                },
                "the link with Jaquez was lost",
            ),
            (
                |it| it.links.as_mut().unwrap().after = None,
                "the state of the links after the attack is unknown",
            ),
            (
                |it| it.links.as_mut().unwrap().restarted = true,
                "the server restarted",
            ),
        ];
        for (change, part) in cases {
            let mut report = report();
            change(&mut report);
            let failures = report.judge(Some("no"));
            assert_eq!(failures.len(), 1, "{part}: {failures:?}");
            assert!(failures[0].contains(part), "{part}: {failures:?}");
        }
    }
}
