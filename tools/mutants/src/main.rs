//! `cargo run --release --bin herd-mutants` answers one question: do the simulator and the tests
//! notice bugs? It plants known bugs, one at a time, in a copy of the checkout. For each bug the
//! copy is built, and the check that should notice the bug runs.

#![forbid(unsafe_code)]

use std::fmt;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use herd_testkit::stop::Stop;
use herd_testkit::{output, say, signals};

use crate::cli::Cli;
use crate::copy::Copy;
use crate::mutants::{CaughtBy, MUTANTS, Mutant};
use crate::run::Ran;

mod cli;
mod copy;
mod mutants;
mod run;

/// The result for a planted bug.
enum Verdict {
    /// The check failed after this time, with this message.
    Caught(Duration, String),
    /// The check passed after this time.
    Missed(Duration),
    /// The copy does not compile, with this message.
    DoesNotBuild(String),
    /// The list is out of date: the source does not have the pattern exactly once.
    PatternMissing(usize),
    /// The list is out of date: there is no test of that name.
    NoSuchTest,
    /// The check did not end in time. Either the bug or a slow machine is the cause.
    TookTooLong(Duration),
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Verdict::Caught(after, why) => {
                write!(f, "caught after {:.1} s: {why}", after.as_secs_f64())
            }
            Verdict::Missed(after) => write!(
                f,
                "MISSED: the check passed in {:.1} s",
                after.as_secs_f64()
            ),
            Verdict::DoesNotBuild(why) => write!(f, "DOES NOT BUILD: {why}"),
            Verdict::PatternMissing(0) => write!(f, "PATTERN MISSING: the source has changed"),
            Verdict::PatternMissing(count) => {
                write!(f, "PATTERN AMBIGUOUS: the source contains it {count} times")
            }
            Verdict::NoSuchTest => write!(f, "NO SUCH TEST"),
            Verdict::TookTooLong(after) => {
                write!(
                    f,
                    "TIMEOUT: the check was killed after {} s",
                    after.as_secs()
                )
            }
        }
    }
}

fn main() -> ExitCode {
    signals::unblock();
    let cli: Cli = match output::command_line() {
        Ok(cli) => cli,
        Err(status) => return status,
    };
    if let Some(number) = cli
        .only
        .iter()
        .find(|&&number| !(1..=MUTANTS.len()).contains(&number))
    {
        eprintln!(
            "herd-mutants: there is no bug {number}; the numbers are 1 to {}",
            MUTANTS.len()
        );
        return ExitCode::from(2);
    }
    let chosen = (1..)
        .zip(MUTANTS)
        .filter(|(number, _)| cli.only.is_empty() || cli.only.contains(number));
    let chosen: Vec<(usize, &Mutant)> = chosen.collect();
    if cli.list {
        for (number, mutant) in chosen {
            say!(
                "{number:3} {} ({}; {})",
                mutant.name,
                mutant.file,
                mutant.caught_by
            );
        }
        return output::status(0);
    }
    let stop = match Stop::catch() {
        Ok(stop) => stop,
        Err(error) => {
            eprintln!("herd-mutants: cannot catch signals: {error}");
            return ExitCode::FAILURE;
        }
    };
    match plant_all(&chosen, &stop) {
        Ok(true) => output::status(0),
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("herd-mutants: {error}");
            // The exit status of a shell for a program that a signal ended.
            stop.signal()
                .map_or(ExitCode::FAILURE, |signal| ExitCode::from(128 + signal))
        }
    }
}

/// Plants the bugs one after the other. Returns whether all results were as expected.
fn plant_all(chosen: &[(usize, &Mutant)], stop: &Stop) -> Result<bool, String> {
    let copy = Copy::make(&root())?;
    sound(&copy, chosen, stop)?;
    let (mut caught, mut missed, mut broken, mut is_expected) = (0, 0, 0, true);
    for &(number, mutant) in chosen {
        let verdict = plant(&copy, mutant, stop)?;
        say!("{number:3} {}: {verdict}", mutant.name);
        match (&verdict, mutant.missed) {
            (Verdict::Caught(..), None) => caught += 1,
            (Verdict::Caught(..), Some(_)) => {
                caught += 1;
                say!("    the list expects that this bug is missed; update the list");
            }
            (Verdict::Missed(_), Some(reason)) => {
                missed += 1;
                say!("    as expected: {reason}");
            }
            (Verdict::Missed(_), None) => {
                missed += 1;
                is_expected = false;
            }
            _ => {
                broken += 1;
                is_expected = false;
            }
        }
    }
    let untried = match broken {
        0 => String::new(),
        _ => format!(", {broken} without a result"),
    };
    say!(
        "{} bugs planted: {caught} caught, {missed} missed{untried}",
        chosen.len()
    );
    Ok(is_expected)
}

/// Runs each check once without a bug. A check that fails then would prove nothing.
fn sound(copy: &Copy, chosen: &[(usize, &Mutant)], stop: &Stop) -> Result<(), String> {
    // Cargo prints nothing, and the first result takes a while.
    eprintln!(
        "herd-mutants: building a copy of the checkout, and running each check without a bug; \
         the first build takes minutes"
    );
    let mut seen: Vec<CaughtBy> = Vec::new();
    for (_, mutant) in chosen {
        let by = mutant.caught_by;
        if seen.contains(&by) {
            continue;
        }
        seen.push(by);
        match judge(copy, by, stop)? {
            Verdict::Missed(after) => {
                say!(
                    "    without a bug, {by} passes in {:.1} s",
                    after.as_secs_f64()
                );
            }
            verdict => return Err(format!("without a bug, {by} does not pass: {verdict}")),
        }
    }
    Ok(())
}

/// Plants one bug, judges it, and restores the file.
fn plant(copy: &Copy, mutant: &Mutant, stop: &Stop) -> Result<Verdict, String> {
    let source = copy.read(mutant.file)?;
    let count = source.matches(mutant.from).count();
    if count != 1 {
        return Ok(Verdict::PatternMissing(count));
    }
    copy.write(mutant.file, &source.replace(mutant.from, mutant.to))?;
    let verdict = judge(copy, mutant.caught_by, stop);
    copy.write(mutant.file, &source)?;
    verdict
}

/// Builds and runs the check in the copy.
fn judge(copy: &Copy, by: CaughtBy, stop: &Stop) -> Result<Verdict, String> {
    match run::build(copy, by, stop)? {
        Ran::Well(..) => {}
        Ran::Badly(_, text) => return Ok(Verdict::DoesNotBuild(run::reason(&text))),
        Ran::Killed(after) => return Ok(Verdict::TookTooLong(after)),
    }
    Ok(match run::check(copy, by, stop)? {
        Ran::Well(_, text) if run::ran_nothing(&text) => Verdict::NoSuchTest,
        Ran::Well(after, _) => Verdict::Missed(after),
        Ran::Badly(after, text) => Verdict::Caught(after, run::reason(&text)),
        Ran::Killed(after) => Verdict::TookTooLong(after),
    })
}

/// The checkout that this program was built from.
fn root() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}
