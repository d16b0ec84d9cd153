//! A comparison from its options to its report. It finds the worlds that this machine can run,
//! measures them, and notes what a reader of the figures has to know.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Duration;

use herd_testkit::clock::{now, wall};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::bench::Bench;
use crate::children;
use crate::cores::Cores;
use crate::count::code_lines;
use crate::counters::Counters;
use crate::figures::{Figure, Figures, Metric, Sample};
use crate::generator::Generator;
use crate::machine::{Machine, Noise, load_average};
use crate::plan::Plan;
use crate::progress::Progress;
use crate::report::text::{about, short};
use crate::report::{Comparison, Standing, json, page};
use crate::workshop::{Profile, Program, Unprepared, Workshop};
use crate::worlds::{WORLDS, World};

/// The options of a comparison.
#[derive(Clone, Debug)]
pub struct Options {
    /// The plan of the measurements.
    pub plan: Plan,
    /// The worlds to measure. `None` stands for all.
    pub worlds: Option<Vec<String>>,
    /// The file for the HTML page.
    pub page_file: PathBuf,
    /// The file for the figures as JSON.
    pub json_file: PathBuf,
    /// The command that repeats the comparison.
    pub command: String,
}

/// The default file for the page. It is in cargo's target directory, so that `cargo clean` removes
/// it.
///
/// # Errors
/// Cargo does not name its target directory.
pub fn default_page_file() -> Result<PathBuf, String> {
    let place = Workshop::of_cargo(Profile::Release)?.place();
    fs::create_dir_all(&place).map_err(|error| format!("{}: {error}", place.display()))?;
    Ok(place.join("report.html"))
}

/// Builds, measures, and writes the report.
///
/// # Errors
/// Nothing could be measured, or the report cannot be written.
pub fn run(options: &Options) -> Result<Comparison, String> {
    let result = measure(options);
    if result.is_err() {
        // Removes the files that this run has created. A file from before is not empty.
        for file in [&options.page_file, &options.json_file] {
            if fs::metadata(file).is_ok_and(|is| is.is_file() && is.len() == 0) {
                let _ = fs::remove_file(file);
            }
        }
    }
    result
}

fn measure(options: &Options) -> Result<Comparison, String> {
    // Taken before the build: the build is not other programs' work, but would stay in the average
    // for a while.
    let load_before = load_average();
    let date = date()?;
    // A file that cannot be written is reported now, and not after half an hour. Old content stays
    // until there is new content.
    for file in [&options.page_file, &options.json_file] {
        let opened = File::options().append(true).create(true).open(file);
        opened.map_err(|error| {
            let file = file.display();
            format!("cannot write {file}: {error}; name another with --out (and --json)")
        })?;
    }
    let profile = if cfg!(debug_assertions) {
        Profile::Dev
    } else {
        Profile::Release
    };
    let workshop = Workshop::of_cargo(profile)?;
    let cores = Cores::choose()?;
    let mut preparing = Progress::on_stderr(Duration::ZERO);
    preparing.begin("building", "herd-load");
    let unbuilt = |why: Unprepared| format!("herd-load cannot be built: {why}");
    let executable = workshop.workspace_binary("herd-load").map_err(unbuilt)?;
    let generator = Generator {
        executable,
        core: cores.generator,
    };
    let directory = tempfile::tempdir()
        .map_err(|error| format!("cannot make a directory for logs: {error}"))?;

    let mut figures = Figures::default();
    let mut troubles = Vec::new();
    let (mut worlds, mut programs) = (Vec::new(), Vec::new());
    for world in &WORLDS {
        preparing.begin("building", world.name);
        let standing = match prepare(&workshop, world, options) {
            Ok((program, versions)) => {
                programs.push(program);
                Standing::Measured { versions }
            }
            Err(Unprepared::Missing(reason)) => Standing::Skipped(reason),
            Err(Unprepared::Failed(reason)) => {
                troubles.push(format!("{} cannot be built: {reason}", world.name));
                Standing::Skipped(reason)
            }
        };
        worlds.push((world, standing));
        if let Ok(lines) = world.sources().and_then(|files| code_lines(&files)) {
            figures.push(world.name, Metric::Lines, lines as f64);
        }
    }
    preparing.finish();
    children::go_on()?;
    if programs.is_empty() {
        return Err(
            "this machine can run none of these worlds; `herd-compare worlds` lists the missing tools"
                .to_owned(),
        );
    }
    let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    let logged = programs
        .iter()
        .filter(|program| options.plan.is_logged(program.world.name));
    let estimate = options
        .plan
        .estimate(count(programs.len()), count(logged.count()));
    let began = now();
    let mut bench = Bench {
        plan: &options.plan,
        cores,
        generator: &generator,
        counters: &Counters::find(directory.path()),
        directory: directory.path(),
        figures,
        troubles,
        redis: Err("not tried".to_owned()),
        progress: Progress::on_stderr(estimate),
    };
    bench.run(&programs);
    // After a signal there is no report of an incomplete comparison.
    children::go_on()?;
    let Bench {
        figures,
        troubles,
        redis,
        ..
    } = bench;
    let comparison = Comparison {
        date,
        command: options.command.clone(),
        took: began.elapsed(),
        is_optimized: profile == Profile::Release,
        machine: Machine::this(),
        cores,
        noise: noise(&figures, load_before, cores),
        plan: options.plan.clone(),
        worlds,
        redis,
        figures,
        troubles,
    };
    write(&options.page_file, &page(&comparison))?;
    write(
        &options.json_file,
        &format!("{:#}\n", json::json(&comparison)),
    )?;
    Ok(comparison)
}

fn write(file: &Path, text: &str) -> Result<(), String> {
    fs::write(file, text).map_err(|error| format!("cannot write {}: {error}", file.display()))
}

fn prepare(
    workshop: &Workshop,
    world: &'static World,
    options: &Options,
) -> Result<(Program, String), Unprepared> {
    let is_asked_for = |names: &Vec<String>| names.iter().any(|name| name == world.name);
    if !options.worlds.as_ref().is_none_or(is_asked_for) {
        return Err(Unprepared::Missing("not selected (--worlds)".to_owned()));
    }
    let versions = world.check().map_err(Unprepared::Missing)?;
    Ok((workshop.prepare(world)?, versions))
}

/// The spread of the rates.
fn noise(figures: &Figures, load_before: Option<f64>, cores: Cores) -> Noise {
    let mut spreads = Vec::new();
    for (who, metric, figure) in figures.iter() {
        if let (Metric::Rate(_), Figure::Measured(sample)) = (metric, figure)
            && let Some(spread) = sample.spread()
        {
            spreads.push((spread, format!("{}, {}", short(who), about(metric))));
        }
    }
    let typical = Sample::new(spreads.iter().map(|(spread, _)| *spread));
    Noise {
        load_before,
        typical_spread: typical.median(),
        widest: spreads
            .into_iter()
            .max_by(|(one, _), (other, _)| one.total_cmp(other)),
        one_core: !cores.are_two(),
    }
}

/// The date and time in UTC, to the minute.
fn date() -> Result<String, String> {
    let date = OffsetDateTime::from(wall());
    let text = date
        .format(&Rfc3339)
        .map_err(|error| format!("the date: {error}"))?;
    let minutes = text.get(..16).unwrap_or(&text);
    Ok(format!("{} UTC", minutes.replace('T', " ")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figures::HEADLINE;

    #[test]
    fn the_widest_spread_is_named() {
        let mut figures = Figures::default();
        for (who, values) in [("mio", [99.0, 100.0, 101.0]), ("go", [50.0, 100.0, 150.0])] {
            for value in values {
                figures.push(who, Metric::Rate(HEADLINE), value);
            }
        }
        let noise = noise(
            &figures,
            Some(0.5),
            Cores {
                server: 1,
                generator: 0,
            },
        );
        let (spread, whose) = noise.widest.unwrap();
        assert!((spread - 0.5).abs() < 1e-9);
        assert_eq!(whose, "Go, answers at 50 × 16");
        assert!(!noise.one_core);
    }

    #[test]
    fn the_date_has_minute_precision() {
        let date = date().unwrap();
        assert!(
            date.ends_with(" UTC") && date.len() == "2026-01-02 03:04 UTC".len(),
            "{date}"
        );
    }
}
