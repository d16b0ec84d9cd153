//! `herd-load`: puts load on a server, checks every answer, and reports the latencies.
//!
//! ```text
//!   cli ─► modes ─┬─► load   (iamat, whatsat, mix)       ─┐
//!                 ├─► flood  (until every server knows)   ├─► crew ─► dial, line, socket    sockets, with or without TLS
//!                 └─► idle   (many silent connections)   ─┘     └──► conversation           due commands, checked answers
//!         echo (a server that only answers)                            └──► commands, answers
//!         abuse (an attack, and its effect on other clients): see its own page
//!         load ─► redial (when to reconnect), outages, timeline, tally                      the results
//!                 report ─► table (text), JSON (programs), picture (SVG: curve, course)
//! ```
//!
//! There is one thread and one [`mio::Poll`]; abuse has one of each for the attack and for the
//! polite clients. The measuring path has no future, and no allocation for a message. A command is
//! a copy of a template. An answer is compared with the command's bytes in the connection's buffer.

#![forbid(unsafe_code)]

use std::process::ExitCode;

use herd_testkit::failure::{self, Failure, system};
use herd_testkit::{output, say, signals};

use crate::cli::{Cli, Common, Mode};
use crate::load::Work;
use crate::picture::Picture;
use crate::report::Report;
use crate::stop::Stop;
use crate::table::Table;

mod abuse;
mod answers;
mod cli;
mod clock;
mod commands;
mod conversation;
mod course;
mod crew;
mod curve;
mod dial;
mod echo;
mod files;
mod flood;
mod idle;
mod line;
mod load;
mod modes;
mod outages;
mod picture;
mod process;
mod progress;
mod redial;
mod report;
mod schedule;
mod socket;
mod stop;
mod svg;
mod table;
mod tally;
mod timeline;
mod units;
mod values;
mod watcher;

/// The command line as clap knows it: for the manual page and the completions of shells.
#[must_use]
pub fn command() -> clap::Command {
    <Cli as clap::CommandFactory>::command()
}

/// Runs the whole program. Returns the exit status.
#[must_use]
pub fn main() -> ExitCode {
    signals::unblock();
    // Abuse has its own options and its own help.
    let is_abuse = std::env::args_os()
        .nth(1)
        .is_some_and(|mode| mode == "abuse");
    let program = if is_abuse {
        "herd-load abuse"
    } else {
        "herd-load"
    };
    let cli: Cli = match failure::command_line(program) {
        Ok(cli) => cli,
        Err(status) => return status,
    };
    match run(&cli.mode) {
        Ok(()) => output::status(0),
        Err(failure) => failure.tell(),
    }
}

fn run(mode: &Mode) -> Result<(), Failure> {
    let stop = Stop::listen().map_err(system("listen for signals"))?;
    let (report, common) = match mode {
        Mode::Iamat(load) => (
            modes::load("iamat", load, None, Work::Iamat, &stop)?,
            &load.common,
        ),
        Mode::Whatsat { load, question } => (
            modes::load("whatsat", load, Some(question), Work::Whatsat, &stop)?,
            &load.common,
        ),
        Mode::Mix {
            load,
            question,
            whatsat,
        } => {
            let work = Work::Mix {
                whatsat_percent: *whatsat,
            };
            (
                modes::load("mix", load, Some(question), work, &stop)?,
                &load.common,
            )
        }
        Mode::Flood(flood) => (modes::flood(flood, &stop)?, &flood.common),
        Mode::Idle(idle) => (modes::idle(idle, &stop)?, &idle.common),
        Mode::Echo { listen } => {
            let ready = |address| say!("herd-load echo: listening on {address}");
            return echo::run(*listen, ready, &stop);
        }
        Mode::Abuse(abuse) => return abuse::run(abuse, &stop),
    };
    print(&report, common)?;
    match report.failure() {
        Some(what) => Err(Failure::Failed(what)),
        None => Ok(()),
    }
}

fn print(report: &Report, common: &Common) -> Result<(), Failure> {
    if common.json {
        output::say(report.json()? + "\n");
    } else {
        output::say(Table(report));
    }
    if let Some(path) = &common.svg {
        let doing = format!("write {}", path.display());
        std::fs::write(path, Picture(report).to_string()).map_err(system(&doing))?;
    }
    Ok(())
}
