//! Figures. They are taken from a report of `cargo compare` into a small file. From there they go
//! into tables and checks of the page.

use std::collections::BTreeMap;
use std::path::PathBuf;

use herd_compare::count::code_lines;
use herd_compare::figures::{Metric, Setting};
use herd_compare::report::text::{about, short, with_unit};
use serde_json::{Value, json};

use super::page::{Page, comment};
use super::path;

/// The worlds of the tour, in the order of its tables.
const WORLDS: [&str; 5] = ["streams", "protocols", "uvloop", "tokio", "mio"];

/// A part of the programs that has its own files. Code of libraries is not counted.
struct Part {
    name: &'static str,
    /// The worlds that have this part, and its files.
    worlds: &'static [(&'static str, &'static [&'static str])],
}

const PARTS: [Part; 2] = [
    Part {
        name: "the loop, its sockets, threads and timers",
        worlds: &[(
            "mio",
            &[
                "src/shell/event_loop.rs",
                "src/shell/transport.rs",
                "src/shell/executor.rs",
                "src/core/base/deadlines.rs",
            ],
        )],
    },
    Part {
        name: "asking Places",
        worlds: &[
            ("streams", PYTHON_PLACES),
            ("protocols", PYTHON_PLACES),
            ("uvloop", PYTHON_PLACES),
            ("tokio", &["tools/compare/worlds/tokio/src/places.rs"]),
            (
                "mio",
                &[
                    "src/core/node/questions.rs",
                    "src/core/places/answer.rs",
                    "src/core/places/call.rs",
                    "src/core/places/exchange.rs",
                    "src/core/places/request.rs",
                    "src/core/places/response.rs",
                ],
            ),
        ],
    },
];
const PYTHON_PLACES: &[&str] = &[
    "tools/compare/worlds/python/herd/places.py",
    "tools/compare/worlds/python/herd/answers.py",
];

/// The measured medians, by the key of the figure and by world.
pub(crate) struct Figures {
    run: Value,
    medians: BTreeMap<String, BTreeMap<String, f64>>,
}

impl Figures {
    pub(crate) fn parse(text: &str) -> Result<Figures, String> {
        let mut all: Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
        let medians = all["medians"].take();
        Ok(Figures {
            run: all["run"].take(),
            medians: serde_json::from_value(medians).map_err(|error| error.to_string())?,
        })
    }

    fn median(&self, key: &str, world: &str) -> Option<f64> {
        self.medians.get(key)?.get(world).copied()
    }

    /// The machine and the tools of the measurement.
    fn run(&self) -> String {
        let text = |key: &str| self.run[key].as_str().unwrap_or("?").to_owned();
        let mut run = format!(
            "Measured on {} with {} and {}, {}: {}.",
            text("machine"),
            text("python"),
            text("rust"),
            text("date"),
            text("plan")
        );
        let noise = self.run["noise"].as_array().map(Vec::as_slice);
        let noise: Vec<&str> = noise
            .unwrap_or_default()
            .iter()
            .filter_map(Value::as_str)
            .collect();
        if !noise.is_empty() {
            run.push_str(&format!(" The run was noisy: {}.", noise.join("; ")));
        }
        run
    }

    fn table(&self, keys: &str) -> Result<Vec<String>, String> {
        let names: Vec<&str> = WORLDS.iter().map(|world| short(world)).collect();
        let mut lines = vec![
            format!("| | {} |", names.join(" | ")),
            "|---|--:|--:|--:|--:|--:|".to_owned(),
        ];
        for key in keys.split(';').map(str::trim) {
            let metric = metric(key)?;
            let cells = WORLDS.map(|world| {
                let median = self.median(key, world);
                median.map_or_else(|| "–".to_owned(), |median| with_unit(metric, median))
            });
            if cells.iter().all(|cell| cell == "–") {
                return Err(format!("`{key}` was not measured"));
            }
            let what = match key.split_once(" of ") {
                Some((_, part)) => format!("{}: {part}", about(metric)),
                None if key.ends_with(" info") => {
                    format!("{}, every command logged", about(metric))
                }
                None => about(metric),
            };
            lines.push(format!("| {what} | {} |", cells.join(" | ")));
        }
        Ok(lines)
    }

    /// Checks `KEY: ONE > [FACTOR] OTHER`.
    fn holds(&self, claim: &str) -> Result<(), String> {
        let unclear = || format!("`{claim}` is not `FIGURE: WORLD > [FACTOR] WORLD`");
        let (key, relation) = claim.split_once(": ").ok_or_else(unclear)?;
        metric(key)?;
        let words: Vec<&str> = relation.split(' ').collect();
        let (one, sign, factor, other) = match words[..] {
            [one, sign, other] => (one, sign, 1.0, other),
            [one, sign, factor, other] => {
                (one, sign, factor.parse().map_err(|_| unclear())?, other)
            }
            _ => return Err(unclear()),
        };
        let median = |world: &str| {
            let median = self.median(key, world);
            median.ok_or_else(|| format!("{key} of {world} was not measured"))
        };
        let (left, right) = (median(one)?, factor * median(other)?);
        let holds = match sign {
            ">" => left > right,
            "<" => left < right,
            _ => return Err(unclear()),
        };
        match holds {
            true => Ok(()),
            false => Err(format!(
                "`{claim}` does not hold ({left} and {right}); the text near it says something that is not so"
            )),
        }
    }
}

/// The figure with this name. It is the name in JSON, with the load if there is one (`rate_per_s
/// 50x16`, `rate_per_s 50x16 info`).
fn metric(key: &str) -> Result<Metric, String> {
    let unknown = || format!("`{key}` is no figure");
    if let Some((_, part)) = key.split_once("lines_of_code of ") {
        let is_one = PARTS.iter().any(|one| one.name == part);
        return is_one.then_some(Metric::Lines).ok_or_else(unknown);
    }
    let mut words = key.split(' ');
    let name = words.next().unwrap_or_default();
    let setting = match words.next() {
        None => Setting::new(0, 0),
        Some(load) => {
            let (connections, depth) = load.split_once('x').ok_or_else(unknown)?;
            let number = |text: &str| text.parse().map_err(|_| unknown());
            let setting = Setting::new(number(connections)?, number(depth)?);
            match words.next() {
                None => setting,
                Some("info") => setting.with_log(),
                Some(_) => return Err(unknown()),
            }
        }
    };
    let all = [
        Metric::Rate(setting),
        Metric::P50(setting),
        Metric::P99(setting),
        Metric::Cpu(setting),
        Metric::Syscalls(setting),
        Metric::Instructions(setting),
        Metric::Memory,
        Metric::Idle,
        Metric::FloodP50,
        Metric::FloodP99,
        Metric::Converged,
        Metric::Recovery,
        Metric::Lines,
    ];
    let has_load = key.contains(' ');
    all.into_iter()
        .find(|metric| metric.name() == name && metric.setting().is_some() == has_load)
        .ok_or_else(unknown)
}

/// The parts of a report that the tour needs, as the text of its file. They contain no name and no
/// path of the machine.
pub(crate) fn of_report(report: &str) -> Result<String, String> {
    let report: Value = serde_json::from_str(report).map_err(|error| error.to_string())?;
    let (machine, plan) = (&report["machine"], &report["plan"]);
    if report["optimized"] != true {
        return Err("that report is of servers that were built for debugging".to_owned());
    }
    let kernel = machine["kernel"].as_str().unwrap_or_default();
    // `Linux 6.18.44-…` becomes `Linux 6.18`.
    let kernel: Vec<&str> = kernel.splitn(3, '.').collect();
    let kind = if machine["virtual"] == true {
        " of a virtual machine"
    } else {
        ""
    };
    let length = if plan["quick"] == true {
        "a quick run"
    } else {
        "a full run"
    };
    let worlds = report["worlds"].as_array().ok_or("no worlds")?;
    let versions = |name: &str| {
        let world = worlds.iter().find(|world| world["name"] == name);
        world
            .and_then(|world| world["versions"].as_str())
            .unwrap_or("?")
            .to_owned()
    };
    let mut medians: BTreeMap<String, BTreeMap<&str, f64>> = BTreeMap::new();
    for figure in report["figures"].as_array().ok_or("no figures")? {
        let (Some(name), Some(world), Some(median)) = (
            figure["figure"].as_str(),
            figure["world"].as_str(),
            figure["median"].as_f64(),
        ) else {
            continue;
        };
        let mut key = name.to_owned();
        if let (Some(connections), Some(depth)) =
            (figure["connections"].as_u64(), figure["depth"].as_u64())
        {
            key.push_str(&format!(" {connections}x{depth}"));
            if figure["log"] == "info" {
                key.push_str(" info");
            }
        }
        if WORLDS.contains(&world) && metric(&key).is_ok() {
            medians
                .entry(key)
                .or_default()
                .insert(world, rounded(median));
        }
    }
    for Part { name, worlds } in PARTS {
        for (world, files) in worlds {
            let files: Vec<PathBuf> = files.iter().map(|file| path(file)).collect();
            let lines = code_lines(&files).map_err(|error| format!("{name}: {error}"))?;
            let key = format!("lines_of_code of {name}");
            medians.entry(key).or_default().insert(world, lines as f64);
        }
    }
    let date = report["date"].as_str().unwrap_or_default();
    let run = json!({
        "machine": format!("{} cores{kind}, {}", machine["cores"], kernel[..kernel.len().min(2)].join(".")),
        "python": versions("streams").replace("python3", "CPython"),
        "rust": versions("mio").replace("cargo", "Rust"),
        "date": date.get(..10).unwrap_or(date),
        "plan": format!("{length}, {} rounds of {} s, medians", plan["rounds"], plan["duration_s"]),
        "noise": report["noise"]["complaints"],
    });
    // One line for each figure, so that a diff shows what a new run changes.
    let medians: Vec<String> = medians
        .iter()
        .map(|(key, medians)| format!("    {}: {}", json!(key), json!(medians)))
        .collect();
    let medians = medians.join(",\n");
    Ok(format!(
        "{{\n  \"run\": {run},\n  \"medians\": {{\n{medians}\n  }}\n}}\n"
    ))
}

/// Four significant digits. The measurement is not more exact.
fn rounded(value: f64) -> f64 {
    format!("{value:.3e}").parse().unwrap_or(value)
}

/// The mistakes in the page's figures.
pub(crate) fn wrong(page: &Page, figures: &Figures) -> Vec<String> {
    let mut wrong = Vec::new();
    for (keys, body) in page.parts("figures") {
        let place = page.place(body.start - 1);
        match figures.table(&keys) {
            Ok(table) if page.lines[body.clone()] == table => {}
            Ok(_) => wrong.push(format!(
                "{place}: these are not the figures that were measured"
            )),
            Err(reason) => wrong.push(format!("{place}: {reason}")),
        }
    }
    for (_, body) in page.parts("run") {
        if page.lines[body.clone()] != [figures.run()] {
            let place = page.place(body.start - 1);
            wrong.push(format!("{place}: that is not the run that was measured"));
        }
    }
    for (line, text) in page.lines.iter().enumerate() {
        if let Some(claim) = comment(text).and_then(|said| said.strip_prefix("holds: "))
            && let Err(reason) = figures.holds(claim)
        {
            wrong.push(format!("{}: {reason}", page.place(line)));
        }
    }
    wrong
}

/// Writes the page's figures anew.
pub(crate) fn renew(page: &mut Page, figures: &Figures) {
    for (keys, body) in page.parts("figures").into_iter().rev() {
        if let Ok(table) = figures.table(&keys) {
            page.lines.splice(body, table);
        }
    }
    for (_, body) in page.parts("run").into_iter().rev() {
        page.lines.splice(body, [figures.run()]);
    }
}

#[cfg(test)]
mod tests {
    use super::super::{measured, tour};
    use super::*;

    #[test]
    fn a_figure_that_differs_from_the_report_is_detected() {
        let (mut page, figures) = (tour(), measured());
        renew(&mut page, &figures);
        let before = wrong(&page, &figures).len();
        let mut tried = 0;
        for (_, body) in page.parts("figures").into_iter().chain(page.parts("run")) {
            for line in body {
                let mut other = page.clone();
                other.lines[line] =
                    other.lines[line].replace(|letter: char| letter.is_ascii_digit(), "7");
                if other.lines[line] != page.lines[line] {
                    tried += 1;
                    let noticed = wrong(&other, &figures).len() - before;
                    assert_eq!(noticed, 1, "{}", other.lines[line]);
                    renew(&mut other, &figures);
                    assert_eq!(other.text(), page.text());
                }
            }
        }
        assert!(tried > 10, "{tried}");
    }

    const REPORT: &str = r#"{
        "optimized": true, "date": "2026-11-21 05:17 UTC", "command": "cargo compare --json /some/where.json",
        "machine": {"cores": 2, "virtual": true, "kernel": "Linux 6.18.44-some-host x86_64"},
        "plan": {"quick": false, "rounds": 5, "duration_s": 2.0},
        "noise": {"complaints": []},
        "worlds": [{"name": "mio", "versions": "cargo 1.95"}, {"name": "streams", "versions": "python3 3.11"}],
        "figures": [
            {"world": "mio", "figure": "rate_per_s", "connections": 50, "depth": 16, "log": "warn", "median": 900000.0},
            {"world": "mio", "figure": "rate_per_s", "connections": 50, "depth": 16, "log": "info", "median": 400000.0},
            {"world": "streams", "figure": "rate_per_s", "connections": 50, "depth": 16, "log": "warn", "median": 60000.0},
            {"world": "go", "figure": "lines_of_code", "median": 5.0},
            {"world": "mio", "figure": "lines_of_code", "missing": "none"}
        ]
    }"#;

    #[test]
    fn the_tour_s_figures_are_extracted_from_a_report() {
        let text = of_report(REPORT).unwrap();
        assert!(
            !text.contains("/some") && !text.contains("some-host"),
            "{text}"
        );
        let figures = Figures::parse(&text).unwrap();
        assert_eq!(
            figures.run(),
            "Measured on 2 cores of a virtual machine, Linux 6.18 with CPython 3.11 and Rust 1.95, 2026-11-21: a full run, 5 rounds of 2.0 s, medians."
        );
        assert_eq!(
            figures
                .table("rate_per_s 50x16; rate_per_s 50x16 info")
                .unwrap()[2..],
            [
                "| answers at 50 × 16 | 60,000/s | – | – | – | 900,000/s |",
                "| answers at 50 × 16, every command logged | – | – | – | – | 400,000/s |",
            ]
        );
        assert!(
            figures.table("lines_of_code").is_err(),
            "nobody was measured"
        );
        assert!(of_report(&REPORT.replace("true, \"date", "false, \"date")).is_err());
    }

    #[test]
    fn comparisons_in_the_text_are_checked() {
        let figures = Figures::parse(&of_report(REPORT).unwrap()).unwrap();
        let rate = "rate_per_s 50x16: ";
        let holds = |claim: &str| figures.holds(&format!("{rate}{claim}"));
        assert_eq!(holds("mio > 10 streams"), Ok(()));
        assert_eq!(holds("streams < mio"), Ok(()));
        assert!(
            holds("mio > 20 streams")
                .unwrap_err()
                .contains("does not hold")
        );
        assert!(
            holds("mio > uvloop")
                .unwrap_err()
                .contains("was not measured")
        );
        assert!(holds("mio is fast").is_err());
        assert!(
            figures
                .holds("rate: mio > streams")
                .unwrap_err()
                .contains("is no figure")
        );
        assert!(figures.holds("memory_bytes 1x1: mio > streams").is_err());
    }
}
