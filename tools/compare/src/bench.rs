//! The measuring itself: every world in its turn, on the same cores, round after round.
//!
//! All servers that are measured alone are up at the same time and only one of them is loaded; so the worlds can take turns (A B C,
//! B C A, …) without being started anew, and whatever else the machine does meanwhile hits all of them alike.

use std::fs;
use std::path::{Path, PathBuf};

use herd_testkit::ports;

use crate::cores::{self, Cores};
use crate::counters::Counters;
use crate::figures::{Figures, Metric};
use crate::generator::Generator;
use crate::plan::Plan;
use crate::progress::Progress;
use crate::server::{self, LogLevel, Server};
use crate::workshop::Program;
use crate::worlds::World;

mod alone;
mod five;
mod silence;

/// What the servers of a herd know: it is never outside this machine.
const SECRET: &str = "only as long as the comparison";

/// A comparison that is under way.
#[derive(Debug)]
pub struct Bench<'a> {
    /// What is to be measured.
    pub plan: &'a Plan,
    /// Where.
    pub cores: Cores,
    /// With what.
    pub generator: &'a Generator,
    /// What this machine lets us count.
    pub counters: &'a Counters,
    /// Where the servers' logs go.
    pub directory: &'a Path,
    /// What is known so far.
    pub figures: Figures,
    /// What went wrong, for the page.
    pub troubles: Vec<String>,
    /// What Redis says of itself, or why it was left out.
    pub redis: Result<String, String>,
    /// How far it has got.
    pub progress: Progress,
}

impl Bench<'_> {
    /// Measures all of these.
    pub fn run(&mut self, programs: &[Program]) {
        self.alone(programs);
        for round in 0..self.plan.herd_rounds {
            for program in in_turn(programs, round) {
                self.silence(program);
                self.herd_of_five(program);
            }
        }
        self.progress.finish();
    }

    /// Notes what was found, or that it was not; `metrics` are those that are missing then.
    fn note<T>(
        &mut self,
        who: &'static World,
        what: &str,
        metrics: &[Metric],
        result: Result<T, String>,
    ) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(reason) => {
                let reason = self.without_paths(&reason);
                self.troubles
                    .push(format!("{}, {what}: {reason}", who.name));
                let line = reason.lines().next().unwrap_or("failed");
                for metric in metrics {
                    self.figures.miss(who.name, *metric, line);
                }
                None
            }
        }
    }

    /// Where the logs were while it ran says nothing to who reads the page.
    fn without_paths(&self, text: &str) -> String {
        text.replace(&self.directory.display().to_string(), "…")
    }

    /// A directory of that name for somebody's logs, without those of a round before.
    fn room(&self, name: &str) -> Result<PathBuf, String> {
        let room = self.directory.join(name);
        let told = |error| format!("{}: {error}", room.display());
        if room.exists() {
            fs::remove_dir_all(&room).map_err(told)?;
        }
        fs::create_dir_all(&room).map_err(told)?;
        Ok(room)
    }

    /// A server on its own, on the server's core.
    fn start(&self, program: &Program, log_level: LogLevel) -> Result<Server, String> {
        let name = format!("{}-{}", program.world.name, log_level.name());
        let addresses = ports::free(2).map_err(|error| format!("no free ports: {error}"))?;
        let &[clients, peers] = addresses.as_slice() else {
            return Err("no free ports".to_owned());
        };
        let plan = server::Plan {
            name: "Riley".to_owned(),
            clients,
            peers,
            dial: Vec::new(),
            accept: Vec::new(),
            secret: SECRET.to_owned(),
            places: None,
            log_level,
            directory: self.room(&name)?,
        };
        cores::on(self.cores.server, || Server::start(program, &plan))?
    }
}

/// All of them, each round beginning with another one.
fn in_turn<T>(all: &[T], round: u32) -> impl Iterator<Item = &T> {
    let first = (round as usize).checked_rem(all.len()).unwrap_or(0);
    all[first..].iter().chain(&all[..first])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_is_first_once() {
        let order = |round| in_turn(&['a', 'b', 'c'], round).collect::<String>();
        assert_eq!(
            [order(0), order(1), order(2), order(3)],
            ["abc", "bca", "cab", "abc"]
        );
        assert_eq!(in_turn::<char>(&[], 1).count(), 0);
    }
}
