//! `herd-compare`: measures the worlds' servers side by side. It also lists the worlds and whether
//! this machine can run them.

#![forbid(unsafe_code)]

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::builder::PossibleValuesParser;
use clap::{Args, Parser, Subcommand};

use herd_compare::children;
use herd_compare::comparison::{self, Options};
use herd_compare::count::code_lines;
use herd_compare::plan::Plan;
use herd_compare::targets::targets;
use herd_compare::workshop::{Profile, Unprepared, Workshop};
use herd_compare::worlds::{WORLDS, World};
use herd_testkit::{output, say, signals};

/// Runs herd-mio next to the same server written for other worlds
///
/// Without a command, it builds every world's server, starts each, loads them in turn on the same core with the same generator, and writes
/// one page with all figures. What this machine cannot run is skipped, and the page says why.
#[derive(Parser)]
#[command(name = "herd-compare", version, after_help = AFTER_HELP, max_term_width = 110)]
#[command(args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<What>,
    #[command(flatten)]
    measuring: Measuring,
}

#[derive(Args)]
struct Measuring {
    /// A first look: half of the loads, shorter; less than three minutes once all is built
    #[arg(long)]
    quick: bool,
    /// Where the page goes [default: compare/report.html in cargo's target directory]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Where the figures go as JSON [default: beside the page]
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Only these worlds
    #[arg(long, value_name = "NAME", value_delimiter = ',', value_parser = PossibleValuesParser::new(WORLDS.map(|world| world.name)))]
    worlds: Option<Vec<String>>,
    /// How often each load is measured [default: 5, or 3 with --quick]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: Option<u32>,
    /// How long, each time [default: 2, or 0.3 with --quick]
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    duration: Option<Duration>,
    /// How long compilers at run time get to see some load before that [default: 3, or 0.5 with --quick]
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    settle: Option<Duration>,
    /// How many connections fall silent [default: 5000, or 1000 with --quick]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=50_000))]
    idle: Option<u32>,
}

#[derive(Subcommand)]
enum What {
    /// List the worlds: how long their servers are, and whether this machine can run them
    Worlds {
        /// Also build those that it can run, as they are measured
        #[arg(long)]
        prepare: bool,
    },
}

const AFTER_HELP: &str = "\
Examples:
  herd-compare                            measure all, and write a page with charts and tables
  herd-compare --quick                    the same, shorter
  herd-compare --worlds mio,streams,node  only some
  herd-compare worlds                     what is there, and what is missing
  herd-compare worlds --prepare           build all that can be built

On a quiet machine: others' load is in the figures, and the page says so.
tools/compare/README.md reads the programs of asyncio and herd-mio side by side.

Ctrl-C ends all that was started, and leaves the last report as it is.

Exit status: 0 if all went well, worlds that are missing included; 1 if one could
not be built or measured; 2 for a mistake in usage; 128 + N after signal N.";

fn main() -> ExitCode {
    signals::unblock();
    let Cli { command, measuring } = match output::command_line() {
        Ok(cli) => cli,
        Err(status) => return status,
    };
    let told = |error| format!("cannot catch signals: {error}");
    let result = children::catch_signals()
        .map_err(told)
        .and_then(|()| match command {
            Some(What::Worlds { prepare }) => worlds(prepare),
            None => compare(&measuring),
        });
    if let Some(number) = children::signal() {
        let _ = writeln!(
            io::stderr(),
            "herd-compare: stopped by signal {number}; nothing that was started is left, and no report is written"
        );
        // The exit status of a shell for a program that a signal ended. Signal numbers are small
        // enough for it.
        return ExitCode::from(u8::try_from(128 + number).unwrap_or(u8::MAX));
    }
    match result {
        Ok(all_well) => output::status(u8::from(!all_well)),
        Err(error) => {
            let _ = writeln!(io::stderr(), "herd-compare: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Parses a time between a hundredth of a second and an hour.
fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text
        .parse()
        .map_err(|_| "is not a number of seconds".to_owned())?;
    if (0.01..=3600.0).contains(&seconds) {
        Ok(Duration::from_secs_f64(seconds))
    } else {
        Err("has to be from 0.01 to 3600 seconds".to_owned())
    }
}

/// Measures. Returns false if a measurement failed.
fn compare(measuring: &Measuring) -> Result<bool, String> {
    let mut plan = if measuring.quick {
        Plan::quick()
    } else {
        Plan::full()
    };
    plan.rounds = measuring.rounds.unwrap_or(plan.rounds);
    plan.span.duration = measuring.duration.unwrap_or(plan.span.duration);
    plan.settling = measuring.settle.unwrap_or(plan.settling);
    plan.idle_connections = measuring.idle.unwrap_or(plan.idle_connections);
    let words: Vec<String> = std::env::args().skip(1).collect();
    let page_file = match &measuring.out {
        Some(file) => file.clone(),
        None => comparison::default_page_file()?,
    };
    let options = Options {
        plan,
        worlds: measuring.worlds.clone(),
        json_file: measuring
            .json
            .clone()
            .unwrap_or_else(|| page_file.with_extension("json")),
        page_file,
        command: ["cargo compare".to_owned()]
            .into_iter()
            .chain(words)
            .collect::<Vec<_>>()
            .join(" "),
    };
    let comparison = comparison::run(&options)?;
    let all = targets(&comparison.figures);
    let met = all
        .iter()
        .filter(|target| target.is_met() == Some(true))
        .count();
    let measured = all
        .iter()
        .filter(|target| target.measured.is_some())
        .count();
    let page = options.page_file.display();
    let seconds = comparison.took.as_secs();
    say!("{page}: {met} of {measured} measured targets are met; measuring took {seconds} s");
    for complaint in comparison.noise.complaints(comparison.machine.cores) {
        say!("noise: {complaint}");
    }
    for trouble in &comparison.troubles {
        let _ = writeln!(io::stderr(), "herd-compare: {trouble}");
    }
    Ok(comparison.troubles.is_empty())
}

/// Prints the list. Returns false if a server could not be built.
fn worlds(prepare: bool) -> Result<bool, String> {
    let workshop = match prepare {
        true => Some(Workshop::of_cargo(Profile::Release)?),
        false => None,
    };
    let mut all_well = true;
    say!(
        "{:<13} {:<40} {:>5}  this machine",
        "world",
        "what it is",
        "lines"
    );
    for world in &WORLDS {
        let standing = match (&workshop, world.check()) {
            (_, Err(missing)) => format!("skipped: {missing}"),
            (None, Ok(versions)) => format!("can run it ({versions})"),
            (Some(workshop), Ok(versions)) => match workshop.prepare(world) {
                Ok(_) => format!("is ready to run it ({versions})"),
                Err(unprepared) => {
                    all_well &= matches!(unprepared, Unprepared::Missing(_));
                    unprepared.to_string()
                }
            },
        };
        say!(
            "{:<13} {:<40} {:>5}  {standing}",
            world.name,
            world.label,
            length(world)
        );
    }
    Ok(all_well)
}

/// Its lines of code without comments and tests. "?" if they cannot be read.
fn length(world: &World) -> String {
    let lines = world.sources().and_then(|files| code_lines(&files));
    lines.map_or_else(|_| "?".to_owned(), |lines| lines.to_string())
}
