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

/// Compares herd-mio with the same server written for other worlds
///
/// Without a command, it builds and starts every world's server, and puts load on them in turn, on
/// the same core and with the same generator. Then it writes one page with all figures. If this
/// machine cannot run a world, that world is skipped, and the page gives the reason.
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
    /// Use only half of the loads, and shorter ones; less than three minutes after the builds
    #[arg(long)]
    quick: bool,
    /// The file for the page [default: compare/report.html in cargo's target directory]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// The file for the figures as JSON [default: beside the page]
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Measure only these worlds
    #[arg(long, value_name = "NAME", value_delimiter = ',', value_parser = PossibleValuesParser::new(WORLDS.map(|world| world.name)))]
    worlds: Option<Vec<String>>,
    /// The number of measurements of each load [default: 5, or 3 with --quick]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: Option<u32>,
    /// The length of each measurement [default: 2, or 0.3 with --quick]
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    duration: Option<Duration>,
    /// The length of the load before all measurements, for just-in-time compilers [default: 3, or
    /// 0.5 with --quick]
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    settle: Option<Duration>,
    /// The number of idle connections [default: 5000, or 1000 with --quick]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=50_000))]
    idle: Option<u32>,
}

#[derive(Subcommand)]
enum What {
    /// List the worlds, with the length of their servers, and whether this machine can run them
    Worlds {
        /// Also build those that this machine can run, with the options of a measurement
        #[arg(long)]
        prepare: bool,
    },
}

const AFTER_HELP: &str = "\
Examples:
  herd-compare                            measure all, and write a page with charts and tables
  herd-compare --quick                    the same, shorter
  herd-compare --worlds mio,streams,node  only these worlds
  herd-compare worlds                     list the worlds and missing tools
  herd-compare worlds --prepare           build all worlds that this machine can build

Use a quiet machine: the load of other programs affects the figures, and the page
then has a warning. tools/compare/README.md explains the asyncio servers and
herd-mio side by side.

Ctrl-C ends all child processes, and does not change the last report.

Exit status: 0 if there was no error (a missing world is not an error); 1 if a
world could not be built or measured; 2 for a mistake in usage; 128 + N after
signal N.";

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
            "herd-compare: stopped by signal {number}; all child processes have ended, and no report is written"
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
        .map_err(|_| "it must be a number of seconds".to_owned())?;
    if (0.01..=3600.0).contains(&seconds) {
        Ok(Duration::from_secs_f64(seconds))
    } else {
        Err("it must be from 0.01 to 3600 seconds".to_owned())
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
    say!(
        "{page}: {met} of {measured} measured targets are reached; the measurement took {seconds} s"
    );
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
        "description",
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
