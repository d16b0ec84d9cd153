//! `cargo run --release --bin herd-torture` answers one question: how does a server behave if a
//! system call fails? It plays a short conversation many times. In each run one system call of the
//! server fails, by means of strace, and the result is judged.
//!
//! The files:
//!
//! | file | |
//! |---|---|
//! | `case.rs` | one fault, and its text form |
//! | `strace.rs`, `trace.rs` | strace's command line, and its output |
//! | `census.rs`, `catalogue.rs`, `plan.rs` | the server's calls, their errors, the faults to try |
//! | `stage.rs`, `server.rs` | the surroundings of a run, and server processes |
//! | `talk.rs`, `connection.rs` | the conversation |
//! | `ledger.rs`, `descriptors.rs`, `verdict.rs` | acknowledgements, descriptors, results |
//! | `run.rs`, `crew.rs` | one run, and many in parallel |
//! | `table.rs`, `progress.rs` | the output |

#![forbid(unsafe_code)]

use std::collections::HashSet;
use std::process::ExitCode;

use herd_testkit::clock;
use herd_testkit::output::{self, say};
use herd_testkit::signals;
use herd_testkit::stop::Stop;

use crate::case::{Case, Only};
use crate::census::Row;
use crate::cli::Cli;
use crate::plan::Depth;
use crate::progress::Progress;
use crate::run::{Common, Report};
use crate::stage::Earlier;
use crate::verdict::Outcome;

mod case;
mod catalogue;
mod census;
mod cli;
mod connection;
mod crew;
mod descriptors;
mod ledger;
mod plan;
mod progress;
mod run;
mod server;
mod stage;
mod strace;
mod table;
mod talk;
mod trace;
mod verdict;

/// The server is built with this program's own profile.
const PROFILE: &[&str] = if cfg!(debug_assertions) {
    &[]
} else {
    &["--release"]
};

/// How the program ends, unless it fails by itself.
enum End {
    /// No run failed.
    Well,
    /// A run failed.
    Badly,
    /// The command line asks for something that does not exist.
    Usage(String),
    /// A signal ended the program.
    Signal(u8),
}

fn main() -> ExitCode {
    signals::unblock();
    let cli: Cli = match output::command_line() {
        Ok(cli) => cli,
        Err(status) => return status,
    };
    if let Err(why) = strace::probe() {
        if cli.required {
            eprintln!("herd-torture: {why}");
            return ExitCode::FAILURE;
        }
        say(format_args!("skipped: {why}\n"));
        return output::status(0);
    }
    match torture(&cli) {
        Ok(End::Well) => output::status(0),
        Ok(End::Badly) => ExitCode::FAILURE,
        Ok(End::Usage(what)) => {
            eprintln!("herd-torture: {what}");
            ExitCode::from(2)
        }
        Ok(End::Signal(signal)) => ExitCode::from(128 + signal),
        Err(error) => {
            eprintln!("herd-torture: {error}");
            ExitCode::FAILURE
        }
    }
}

fn torture(cli: &Cli) -> Result<End, String> {
    let stop = Stop::catch().map_err(|error| format!("cannot catch signals: {error}"))?;
    let program = match &cli.server {
        Some(program) => match program.canonicalize() {
            Ok(program) => program,
            Err(error) => {
                return Ok(End::Usage(format!(
                    "--server {}: {error}",
                    program.display()
                )));
            }
        },
        None => match (
            herd_testkit::server::build("herd-mio", PROFILE),
            stop.signal(),
        ) {
            (_, Some(signal)) => return Ok(End::Signal(signal)),
            (built, None) => built?,
        },
    };
    let began = clock::now();
    let earlier = Earlier::live(&program)?;
    let dry = run::dry(&program, &earlier)?;
    let rows = census::census(&trace::calls(&dry.trace), &dry.directory);
    let depth = if cli.quick { Depth::Quick } else { Depth::Full };
    let cases = match chosen(plan::plan(&rows, depth), &cli.only) {
        Ok(cases) => cases,
        Err(what) => return Ok(End::Usage(what)),
    };
    if cli.list {
        let list = table::list(&rows, &cases);
        say(format_args!("{list}\n{} runs\n", cases.len()));
        return Ok(End::Well);
    }

    let common = Common {
        program: &program,
        earlier: &earlier,
        baseline: dry.baseline,
    };
    let progress = Progress::of(cases.len());
    let mut reports: Vec<Report> = Vec::new();
    crew::do_all(
        &cases,
        usize::from(cli.jobs),
        || stop.signal().is_some(),
        |case| run::run(&common, case, cli.keep.as_deref()),
        |report| {
            // Ctrl-C may also have reached the server of this run. Then its result means nothing.
            if stop.signal().is_some() {
                return;
            }
            progress.step(report.case.to_string());
            if cli.each {
                progress.aside(|| {
                    say(table::one(&report));
                });
            }
            if report.outcome == Outcome::Failed {
                progress.aside(|| {
                    say(format_args!("{}\n", table::failure(&report)));
                });
            }
            reports.push(report);
        },
    )?;
    drop(progress);
    reports.sort_by(|one, other| one.case.cmp(&other.case));
    say(table::results(&reports));
    let seconds = clock::now().duration_since(began).as_secs_f64();
    let summary = summary(&rows, &reports, cases.len(), seconds);
    say(format_args!("\n{summary}\n"));
    if let Some(signal) = stop.signal() {
        return Ok(End::Signal(signal));
    }
    let has_failed = reports
        .iter()
        .any(|report| report.outcome == Outcome::Failed);
    Ok(if has_failed { End::Badly } else { End::Well })
}

/// The planned cases that `--only` selects, and the cases that it adds.
fn chosen(planned: Vec<Case>, only: &[Only]) -> Result<Vec<Case>, String> {
    if only.is_empty() {
        return Ok(planned);
    }
    let mut cases: Vec<Case> = Vec::new();
    for only in only {
        let before = cases.len();
        match only.case() {
            Some(case) => cases.push(case),
            None => cases.extend(planned.iter().filter(|case| only.admits(case)).cloned()),
        }
        if cases.len() == before {
            return Err(format!(
                "--only {only}: the plan has no such fault; --list prints the calls and their errors"
            ));
        }
    }
    let mut seen = HashSet::new();
    cases.retain(|case| seen.insert(case.clone()));
    Ok(cases)
}

fn summary(rows: &[Row], reports: &[Report], planned: usize, seconds: f64) -> String {
    let failed = reports
        .iter()
        .filter(|report| report.outcome == Outcome::Failed)
        .count();
    let unknown: Vec<String> = rows
        .iter()
        .filter(|row| catalogue::entry(&row.target) == catalogue::Entry::Unknown)
        .map(|row| row.target.to_string())
        .collect();
    let mut text = format!(
        "{} of {planned} runs in {seconds:.1} s: {failed} failed",
        reports.len()
    );
    if !unknown.is_empty() {
        text.push_str(&format!(
            "\nnot tried, because they have no entry in catalogue.rs: {}",
            unknown.join(" ")
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn only(text: &str) -> Only {
        text.parse().unwrap()
    }

    #[test]
    fn only_selects_from_the_plan_or_adds_a_case() {
        let planned: Vec<Case> = ["accept4:EMFILE:1", "accept4:ENFILE:1", "read@x:EIO:1"]
            .iter()
            .map(|text| only(text).case().unwrap())
            .collect();
        let chosen = |texts: &[&str]| {
            let only: Vec<Only> = texts.iter().map(|text| only(text)).collect();
            let cases = super::chosen(planned.clone(), &only)?;
            Ok::<_, String>(cases.iter().map(Case::to_string).collect::<Vec<_>>())
        };
        assert_eq!(chosen(&[]).unwrap().len(), 3);
        assert_eq!(chosen(&["read"]).unwrap(), ["read@x:EIO:1"]);
        let all = ["accept4:EMFILE", "accept4"];
        let expected = ["accept4:EMFILE:1", "accept4:ENFILE:1"];
        assert_eq!(chosen(&all).unwrap(), expected);
        assert_eq!(chosen(&["accept4:EPERM:77"]).unwrap(), ["accept4:EPERM:77"]);
        assert!(chosen(&["bind"]).is_err());
    }
}
