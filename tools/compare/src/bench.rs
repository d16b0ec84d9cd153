//! The measurements. A world is one implementation of the server, such as asyncio or Go. The worlds
//! are measured on the same cores, in turn, round after round.
//!
//! All servers of the single-server measurements run at the same time, and only one of them is
//! loaded. So the worlds can take turns (A B C, B C A, …) without restarts, and other work of the
//! machine affects all of them alike.

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

/// The secret of the herds' servers. It never leaves this machine.
const SECRET: &str = "only as long as the comparison";

/// A running comparison.
#[derive(Debug)]
pub struct Bench<'a> {
    /// The plan of the measurements.
    pub plan: &'a Plan,
    /// The cores of the server and of the generator.
    pub cores: Cores,
    /// The load generator.
    pub generator: &'a Generator,
    /// The counters that this machine has.
    pub counters: &'a Counters,
    /// The directory of the servers' logs.
    pub directory: &'a Path,
    /// The figures so far.
    pub figures: Figures,
    /// The errors so far, for the report's page.
    pub troubles: Vec<String>,
    /// Redis's version, or why it was left out.
    pub redis: Result<String, String>,
    /// The progress bar.
    pub progress: Progress,
}

impl Bench<'_> {
    /// Measures all of these programs.
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

    /// Returns a result. After an error, notes it as a trouble, and as the reason why `metrics` are
    /// missing.
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

    /// Removes the log directory's path, which means nothing to a reader of the page.
    fn without_paths(&self, text: &str) -> String {
        text.replace(&self.directory.display().to_string(), "…")
    }

    /// An empty directory with this name, for logs.
    fn room(&self, name: &str) -> Result<PathBuf, String> {
        let room = self.directory.join(name);
        let told = |error| format!("{}: {error}", room.display());
        if room.exists() {
            fs::remove_dir_all(&room).map_err(told)?;
        }
        fs::create_dir_all(&room).map_err(told)?;
        Ok(room)
    }

    /// Starts a single server on the server's core.
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

/// All elements. Each round begins with another one.
fn in_turn<T>(all: &[T], round: u32) -> impl Iterator<Item = &T> {
    let first = (round as usize).checked_rem(all.len()).unwrap_or(0);
    all[first..].iter().chain(&all[..first])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_server_is_measured_first_once() {
        let order = |round| in_turn(&['a', 'b', 'c'], round).collect::<String>();
        assert_eq!(
            [order(0), order(1), order(2), order(3)],
            ["abc", "bca", "cab", "abc"]
        );
        assert_eq!(in_turn::<char>(&[], 1).count(), 0);
    }
}
