//! `cargo bench -p herd-bench --bench instructions`: counts instructions, prints, compares and
//! saves them.

use std::fs;
use std::process::ExitCode;

use herd_testkit::{output, say, signals};

use crate::callgrind;
use crate::cli::Cli;
use crate::figures::{COMMAND, Figure, Figures, change_percent, readable, signed};
use crate::list::WORKLOADS;
use crate::readme;
use crate::toolchain::Toolchain;
use crate::workload::{Entry, Failure};

/// The whole program.
#[must_use]
pub fn main() -> ExitCode {
    // `cargo test` runs benchmarks without `--bench`. Then nothing is counted, because unit tests
    // check the answers.
    let is_wanted = |argument: String| ["--bench", callgrind::COUNT].contains(&&*argument);
    if !std::env::args().any(is_wanted) {
        say!("instructions are counted only by cargo bench, which adds --bench");
        return output::status(0);
    }
    signals::unblock();
    let cli: Cli = match output::command_line() {
        Ok(cli) => cli,
        Err(status) => return status,
    };
    run(&cli).unwrap_or_else(|why| {
        eprintln!("herd-bench: {why}");
        ExitCode::FAILURE
    })
}

fn run(cli: &Cli) -> Result<ExitCode, Failure> {
    if let Some(entry) = cli.count {
        return callgrind::be_counted(entry).map(|()| output::status(0));
    }
    if cli.list {
        for Entry {
            name, operation, ..
        } in WORKLOADS
        {
            say!("{name:20} {operation}");
        }
        return Ok(output::status(0));
    }
    let Some(valgrind) = callgrind::version()? else {
        let why =
            "instructions are not counted: valgrind is not installed (apt-get install valgrind)";
        if cli.save || cli.compare.is_some() {
            return Err(why.to_owned());
        }
        say!("skipped: {why}");
        return Ok(output::status(0));
    };
    let toolchain = Toolchain::here(valgrind)?;
    let kept = match Figures::kept() {
        // An unreadable file does not matter here, because it will be replaced.
        Err(_) if cli.save => None,
        kept => kept?,
    };
    if let Some(kept) = &kept
        && kept.made_with != toolchain
    {
        say!(
            "the saved figures are from another toolchain or machine, which may cause a part of the changes:\n  saved  {}\n  now    {}",
            kept.made_with,
            toolchain
        );
    }
    let workloads = match &*cli.workloads {
        [] => WORKLOADS.iter().collect(),
        chosen => chosen.to_vec(),
    };
    let Counted { figures, worst } = count(&workloads, kept.as_ref())?;
    if cli.save {
        let figures = Figures {
            command: COMMAND.to_owned(),
            made_with: toolchain,
            workloads: figures,
        };
        let file = Figures::file();
        fs::write(&file, figures.json()).map_err(|error| format!("{}: {error}", file.display()))?;
        readme::update(&figures)?;
        say!("saved in {} and in README.md beside it", file.display());
    }
    let Some(allowed) = cli.compare else {
        return Ok(output::status(0));
    };
    let (is_well, what) = verdict(worst, allowed)?;
    say!("{what}");
    Ok(match is_well {
        true => output::status(0),
        false => ExitCode::FAILURE,
    })
}

/// Whether the worst change is at most `allowed` percent, and a sentence that says so.
fn verdict(worst: Option<(&str, f64)>, allowed: f64) -> Result<(bool, String), Failure> {
    let nothing = || format!("there are no saved figures; save some first with: {COMMAND}");
    let (name, change) = worst.ok_or_else(nothing)?;
    let is_well = change <= allowed;
    let what = match is_well {
        true => format!("no workload is more than {allowed} % above its saved figure"),
        false => format!("{name}: {}; the limit is +{allowed} %", signed(change)),
    };
    Ok((is_well, what))
}

/// The counts of this run.
#[derive(Default)]
struct Counted {
    figures: Vec<Figure>,
    /// The workload with the greatest change, and that change in percent of the kept figure.
    worst: Option<(&'static str, f64)>,
}

/// Counts the workloads one after the other, and prints each count at once.
fn count(workloads: &[&'static Entry], kept: Option<&Figures>) -> Result<Counted, Failure> {
    say!(
        "{:20} {:>12} {:>12} {:>9}",
        "instructions",
        "now",
        "saved",
        "change"
    );
    let mut counted = Counted::default();
    for entry in workloads {
        let figure = Figure::new(entry, callgrind::count(entry)?);
        let before = kept.and_then(|kept| kept.of(entry.name));
        let change = change_percent(figure.instructions, before);
        say!(
            "{:20} {:>12} {:>12} {:>9}",
            entry.name,
            readable(figure.instructions),
            before.map_or("–".to_owned(), readable),
            change.map_or("–".to_owned(), signed),
        );
        if let Some(change) = change
            && counted.worst.is_none_or(|(_, most)| change > most)
        {
            counted.worst = Some((entry.name, change));
        }
        counted.figures.push(figure);
    }
    Ok(counted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_workload_above_the_allowed_increase_is_named() {
        let judged = |change| verdict(Some(("split", change)), 2.0);
        assert!(judged(-50.0).is_ok_and(|(is_well, _)| is_well));
        assert!(judged(2.0).is_ok_and(|(is_well, _)| is_well));
        let (is_well, what) = judged(2.26).unwrap();
        assert!(!is_well && what.starts_with("split: +2.3 %"), "{what}");
        assert!(verdict(None, 2.0).is_err_and(|why| why.contains(COMMAND)));
    }
}
