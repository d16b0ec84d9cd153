//! The report: one self-contained HTML page, and the same figures as JSON.
//!
//! The page has no script and loads nothing. Charts come first, then tables. In the place of a
//! missing figure stands the reason.

use std::fmt::Write as _;
use std::time::Duration;

use crate::cores::Cores;
use crate::figures::{Figures, HEADLINE, Metric, PATIENT, SINGLE};
use crate::machine::{Machine, Noise};
use crate::plan::Plan;
use crate::redis::REDIS;
use crate::targets::targets;
use crate::worlds::World;
use charts::{Better, Chart};
use text::{bytes, duration_us, escape, short, times};

pub mod charts;
pub mod json;
pub mod tables;
pub mod text;

const STYLE: &str = include_str!("report/page.css");

/// A finished comparison.
#[derive(Debug)]
pub struct Comparison {
    /// The time of its beginning, as text.
    pub date: String,
    /// The command that repeats it.
    pub command: String,
    /// Its length.
    pub took: Duration,
    /// Whether the servers were built with optimization.
    pub is_optimized: bool,
    /// The measuring machine.
    pub machine: Machine,
    /// The cores of server and generator.
    pub cores: Cores,
    /// How exact the figures are.
    pub noise: Noise,
    /// The plan of the measurements.
    pub plan: Plan,
    /// All worlds, and whether they were measured.
    pub worlds: Vec<(&'static World, Standing)>,
    /// Redis's version, or why it was left out.
    pub redis: Result<String, String>,
    /// The figures.
    pub figures: Figures,
    /// The errors.
    pub troubles: Vec<String>,
}

/// Whether a world was measured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It was measured, with these tools.
    Measured {
        /// Their versions.
        versions: String,
    },
    /// It was not measured, for this reason.
    Skipped(String),
}

impl Comparison {
    /// The names of the measured worlds, the fastest first. Redis is among them if it was measured.
    fn by_rate(&self, with_redis: bool) -> Vec<&'static str> {
        let measured = self
            .worlds
            .iter()
            .filter(|(_, standing)| matches!(standing, Standing::Measured { .. }));
        let mut names: Vec<&'static str> = measured.map(|(world, _)| world.name).collect();
        if with_redis && self.redis.is_ok() {
            names.push(REDIS);
        }
        let rate = |name: &str| {
            self.figures
                .median(name, Metric::Rate(HEADLINE))
                .unwrap_or(0.0)
        };
        names.sort_by(|one, other| rate(other).total_cmp(&rate(one)));
        names
    }
}

/// The HTML page.
#[must_use]
pub fn page(of: &Comparison) -> String {
    let all = of.by_rate(true);
    let worlds = of.by_rate(false);
    let mut page = String::new();
    let title = headline(&of.figures);
    // Writing into a String never fails.
    let _ = write!(
        page,
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n<title>One server, many worlds</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n\
         <header>\n<p class=\"kicker\">One server, many worlds · {}</p>\n<h1>{}</h1>\n<p class=\"lead\">{}</p>\n</header>\n<main>\n",
        escape(&of.date),
        escape(&title),
        lead(of)
    );
    page.push_str(&noise(of));
    let chart = Chart {
        title: "IAMATs per second that one server on one core answers: 50 connections, 16 in flight on each, log off",
        metric: Metric::Rate(HEADLINE),
        better: Better::More,
        who: &all,
    };
    let _ = write!(
        page,
        "<section>\n{}{}</section>\n",
        chart.headline(&of.figures, "streams"),
        limits(of)
    );
    page.push_str(&small_multiples(of, &worlds));
    let _ = write!(
        page,
        "<section>\n<h2>{}</h2>\n{}</section>\n",
        escape(&score(&of.figures)),
        tables::goals(&of.figures)
    );
    let _ = write!(
        page,
        "<section>\n<h2>Claims of reports</h2>\n<p>UCLA’s course CS 131 has set this project since 2016, and its students’ reports compare \
         asyncio with other worlds. A verdict here is about this machine and these versions. It does not judge a report.</p>\n{}</section>\n",
        tables::claims(&of.figures)
    );
    page.push_str("<section>\n<h2>All figures</h2>\n");
    for setting in &of.plan.settings {
        page.push_str(&tables::load(of, &worlds, *setting));
    }
    let logged: Vec<&'static str> = worlds
        .iter()
        .copied()
        .filter(|name| of.plan.is_logged(name))
        .collect();
    page.push_str(&tables::load(of, &logged, HEADLINE.with_log()));
    page.push_str(&tables::counts(of, &worlds));
    page.push_str(&tables::herd(of, &worlds));
    page.push_str("</section>\n");
    let _ = write!(
        page,
        "<section>\n<h2>How it was measured</h2>\n{}{}</section>\n</main>\n",
        tables::worlds(of),
        method(of)
    );
    // No line break within `50 × 16`.
    page = page.replace(" × ", "\u{a0}×\u{a0}");
    // `</` would end the script element. JSON allows an escaped slash.
    let json = json::json(of).to_string().replace("</", "<\\/");
    let _ = write!(
        page,
        "<script type=\"application/json\" id=\"figures\">{json}</script>\n</body>\n</html>\n"
    );
    page
}

/// The content of the first chart, in one sentence.
fn headline(figures: &Figures) -> String {
    let rate = Metric::Rate(HEADLINE);
    let parts: Vec<String> = ["streams", "tokio"]
        .into_iter()
        .filter_map(|who| Some((who, figures.ratio("mio", who, rate)?)))
        .map(|(who, ratio)| {
            format!(
                "{} as many commands per second as {}",
                times(ratio).replace('×', " times"),
                short(who)
            )
        })
        .collect();
    match parts.as_slice() {
        [] => "The same server, written for many worlds".to_owned(),
        parts => format!("herd-mio answers {}", parts.join(" and ")),
    }
}

fn lead(of: &Comparison) -> String {
    let Machine {
        processor,
        cores,
        kernel,
        ..
    } = &of.machine;
    let kind = if of.plan.is_quick {
        "A quick look"
    } else {
        "The full comparison"
    };
    let plural = if *cores == 1 { "core" } else { "cores" };
    format!(
        "{kind} on {} ({cores} {plural}, {}). Every world’s server does the same, passes the same transcripts, and ran on the same core.",
        escape(processor),
        escape(kernel)
    )
}

fn noise(of: &Comparison) -> String {
    let mut complaints = of.noise.complaints(of.machine.cores);
    if !of.is_optimized {
        complaints.push(
            "the servers were built without optimization; run this with --release".to_owned(),
        );
    }
    if complaints.is_empty() {
        return String::new();
    }
    let list = complaints
        .iter()
        .fold(String::new(), |mut list, complaint| {
            let _ = write!(list, "<li>{}</li>", escape(complaint));
            list
        });
    format!(
        "<aside class=\"noise\" role=\"note\"><p><strong>This run was noisy.</strong> Rates and their ratios are rough, and latencies are even less exact. Processor time, system calls and instructions are affected least.</p><ul>{list}</ul></aside>\n"
    )
}

/// A note for worlds that the generator limited: their real ratio is at least the shown one.
fn limits(of: &Comparison) -> String {
    let busy = of.by_rate(false).into_iter().filter(|name| {
        let share = of.figures.median(name, Metric::Generator(HEADLINE));
        share.is_some_and(|share| share > 0.9)
    });
    let names: Vec<&str> = busy.map(short).collect();
    if names.is_empty() {
        return String::new();
    }
    format!(
        "<p class=\"note\">The generator used more than 90 % of its own core with {}, so it may have limited the rate. The real rate is at least the shown one.</p>\n",
        escape(&names.join(", "))
    )
}

fn small_multiples(of: &Comparison, who: &[&'static str]) -> String {
    let figures = &of.figures;
    let small = |title, metric, better| {
        Chart {
            title,
            metric,
            better,
            who,
        }
        .small(figures)
    };
    let mut page = String::from(
        "<section>\n<h2>More figures: all charts have the fastest world at 50 × 16 first</h2>\n<div class=\"cards\">\n",
    );
    for setting in of
        .plan
        .settings
        .iter()
        .filter(|setting| **setting != HEADLINE)
    {
        let title = format!("Answers per second, {setting}");
        let chart = Chart {
            title: &title,
            metric: Metric::Rate(*setting),
            better: Better::More,
            who,
        };
        page.push_str(&chart.small(figures));
    }
    page.push_str(&small(
        "99th percentile of the latency, 50 × 1",
        Metric::P99(PATIENT),
        Better::Less,
    ));
    page.push_str(&small(
        "Median latency, 1 × 1",
        Metric::P50(SINGLE),
        Better::Less,
    ));
    page.push_str(&small(
        "Processor time per answer, 50 × 16",
        Metric::Cpu(HEADLINE),
        Better::Less,
    ));
    page.push_str(&small(
        "System calls per answer, 50 × 1",
        Metric::Syscalls(PATIENT),
        Better::Less,
    ));
    page.push_str(&small(
        "System calls per answer, 50 × 16",
        Metric::Syscalls(HEADLINE),
        Better::Less,
    ));
    page.push_str(&small(
        "User instructions per answer, 50 × 16",
        Metric::Instructions(HEADLINE),
        Better::Less,
    ));
    page.push_str(&small(
        "Converged updates per second, five servers on one core",
        Metric::Converged,
        Better::More,
    ));
    page.push_str(&small(
        "Median flood time to four other servers",
        Metric::FloodP50,
        Better::Less,
    ));
    page.push_str(&small(
        "Recovery after kill −9: restarted, linked, with all records",
        Metric::Recovery,
        Better::Less,
    ));
    page.push_str(&small(
        "Memory per idle connection",
        Metric::Idle,
        Better::Less,
    ));
    page.push_str(&small(
        "Memory after the load at 50 × 16",
        Metric::Memory,
        Better::Less,
    ));
    page.push_str(&small(
        "Lines of code, without comments and blanks",
        Metric::Lines,
        Better::Less,
    ));
    let logged: Vec<&'static str> = who
        .iter()
        .copied()
        .filter(|name| of.plan.is_logged(name))
        .collect();
    let pairs = Chart {
        title: "Rate with and without a log of every command, 50 × 16",
        metric: Metric::Rate(HEADLINE),
        better: Better::More,
        who: &logged,
    };
    page.push_str(&pairs.pairs(
        figures,
        Metric::Rate(HEADLINE.with_log()),
        ["only warnings", "every command and answer"],
    ));
    page.push_str("</div>\n</section>\n");
    page
}

fn score(figures: &Figures) -> String {
    let all = targets(figures);
    let met = all
        .iter()
        .filter(|target| target.is_met() == Some(true))
        .count();
    let measured = all
        .iter()
        .filter(|target| target.measured.is_some())
        .count();
    format!("{met} of {measured} measured targets are reached")
}

fn method(of: &Comparison) -> String {
    let Plan {
        rounds,
        herd_rounds,
        span,
        idle_connections,
        ..
    } = &of.plan;
    let machine = &of.machine;
    let seconds = |time: Duration| duration_us(time.as_secs_f64() * 1e6);
    let mut text = String::from("<dl>\n");
    let mut entry = |term: &str, what: &str| {
        let _ = writeln!(text, "<dt>{}</dt><dd>{}</dd>", escape(term), what);
    };
    entry(
        "Command to repeat it",
        &format!("<code>{}</code>", escape(&of.command)),
    );
    let hypervisor = if machine.is_virtual {
        ", a virtual machine"
    } else {
        ""
    };
    entry(
        "Machine",
        &escape(&format!(
            "{}, {} cores, {} of memory, {}{hypervisor}",
            machine.processor,
            machine.cores,
            bytes(machine.memory_bytes as f64),
            machine.kernel
        )),
    );
    entry(
        "Date",
        &escape(&format!("{}; it took {} s", of.date, of.took.as_secs())),
    );
    entry(
        "Cores",
        &format!(
            "the server on core {}, the generator on core {}; the five servers of a herd share the server’s core",
            of.cores.server, of.cores.generator
        ),
    );
    entry(
        "Load",
        &format!(
            "herd-load, a closed loop that checks every answer; {rounds} rounds of {} after {} of warm-up; the worlds take turns, and each \
             round starts with another one; the figures are medians",
            seconds(span.duration),
            seconds(span.warm_up)
        ),
    );
    entry(
        "Spread",
        "the interquartile range of a figure’s measurements, as a part of the median",
    );
    entry(
        "Counting",
        "perf stat (or strace) counts a short and a longer run; the difference is divided by the difference in answers, so the cost of connecting cancels out",
    );
    entry(
        "Idle connections",
        &format!(
            "{idle_connections} on a server that was just started; each sent one IAMAT; the figure is the growth of the resident memory per connection"
        ),
    );
    entry(
        "Five servers",
        &format!(
            "the herd of 2021, {herd_rounds} times; the flood time is measured by repeated questions to all other servers; the rate of converged updates \
             is the number of updates to one server, divided by the time until all five have the same records; recovery is the time from SIGKILL \
             until the server has restarted, is linked, and has all records"
        ),
    );
    entry(
        "Lines of code",
        "without comments, blank lines and tests; only herd-mio has a journal on disk, TLS for clients and neighbours, limits and a config \
         file, and their lines count",
    );
    let load = of
        .noise
        .load_before
        .map_or_else(|| "unknown".to_owned(), |load| format!("{load:.2}"));
    let typical = of.noise.typical_spread.map_or_else(
        || "unknown".to_owned(),
        |spread| format!("{:.1} %", spread * 100.0),
    );
    let widest = of
        .noise
        .widest
        .as_ref()
        .map_or_else(String::new, |(spread, whose)| {
            format!("; the widest {:.0} % ({})", spread * 100.0, escape(whose))
        });
    entry(
        "Noise",
        &format!(
            "load average {load} before the start; typical spread of a rate {typical}{widest}"
        ),
    );
    text.push_str("</dl>\n");
    if !of.troubles.is_empty() {
        text.push_str("<h3>Errors</h3>\n<ul class=\"troubles\">");
        for trouble in &of.troubles {
            let _ = write!(text, "<li>{}</li>", escape(trouble));
        }
        text.push_str("</ul>\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::worlds::WORLDS;

    /// A comparison with two measured worlds. The others are skipped. Some text needs escaping in
    /// HTML.
    fn comparison() -> Comparison {
        let mut figures = Figures::default();
        for (who, rate) in [("mio", 400_000.0), ("streams", 20_000.0)] {
            for part in [0.9, 1.0, 1.1] {
                figures.push(who, Metric::Rate(HEADLINE), rate * part);
            }
        }
        figures.miss(
            "streams",
            Metric::Instructions(HEADLINE),
            "perf </script> is not there",
        );
        let standing = |world: &World| match world.name {
            "mio" | "streams" => Standing::Measured {
                versions: "cargo 1.95".into(),
            },
            _ => Standing::Skipped("no <tool>".into()),
        };
        let noise = Noise {
            load_before: Some(9.0),
            typical_spread: Some(0.2),
            widest: Some((0.5, "mio".into())),
            one_core: false,
        };
        Comparison {
            date: "2026-01-02 03:04 UTC".into(),
            command: "cargo compare --worlds mio,streams".into(),
            took: Duration::from_secs(5),
            is_optimized: true,
            machine: Machine::this(),
            cores: Cores {
                server: 1,
                generator: 0,
            },
            noise,
            plan: Plan::quick(),
            worlds: WORLDS
                .iter()
                .map(|world| (world, standing(world)))
                .collect(),
            redis: Err("redis-server: not found".into()),
            figures,
            troubles: vec!["mio, flood: <wrong>".into()],
        }
    }

    /// Asserts that all elements are closed in order. The check is simple, but it knows the void
    /// elements of this page.
    pub(crate) fn assert_well_formed(page: &str) {
        let mut open = Vec::new();
        let mut rest = page;
        while let Some(start) = rest.find('<') {
            rest = &rest[start + 1..];
            let end = rest.find('>').expect("a tag ends");
            let (tag, after) = (&rest[..end], &rest[end + 1..]);
            rest = after;
            let name: &str = tag
                .trim_start_matches('/')
                .split([' ', '\n', '/'])
                .next()
                .unwrap();
            if tag.starts_with('!') || tag.ends_with('/') || ["meta", "br"].contains(&name) {
                continue;
            }
            if tag.starts_with('/') {
                assert_eq!(
                    open.pop(),
                    Some(name),
                    "…</{name}>{}",
                    &after[..after.len().min(80)]
                );
            } else {
                open.push(name);
                // The content of these elements is no markup.
                if ["style", "script"].contains(&name) {
                    rest = &rest[rest.find(&format!("</{name}>")).expect("it is closed")..];
                }
            }
        }
        assert!(open.is_empty(), "{open:?}");
    }

    #[test]
    fn the_page_is_well_formed_and_self_contained() {
        let page = page(&comparison());
        assert_well_formed(&page);
        assert!(page.starts_with("<!DOCTYPE html>"));
        for outside in ["http:", "https:", "src=", "@import", "url("] {
            assert!(!page.contains(outside), "{outside}");
        }
        for world in &WORLDS {
            assert!(page.contains(&escape(short(world.name))), "{}", world.name);
        }
        assert!(
            page.contains("skipped: no &lt;tool&gt;") && page.contains("redis-server: not found")
        );
        assert!(page.contains("This run was noisy.") && page.contains("9.0 on"));
        assert!(
            page.contains(
                "herd-mio answers 20 times as many commands per second as asyncio streams"
            ),
            "the headline"
        );
        assert!(page.contains("mio, flood: &lt;wrong&gt;"));
    }

    #[test]
    fn every_table_has_a_caption_and_every_claim_a_verdict() {
        let page = page(&comparison());
        assert_eq!(
            page.matches("<table").count(),
            page.matches("<caption").count()
        );
        let verdicts = [
            "confirmed here</td>",
            "refuted here</td>",
            "undecided: the figures are too close</td>",
            "not measured</td>",
        ];
        let told: usize = verdicts
            .iter()
            .map(|verdict| page.matches(verdict).count())
            .sum();
        assert!(told >= crate::claims::CLAIMS.len());
    }

    #[test]
    fn the_page_embeds_the_report_s_json() {
        let of = comparison();
        let page = page(&of);
        let (_, rest) = page.split_once("id=\"figures\">").unwrap();
        let (text, _) = rest.split_once("</script>").unwrap();
        let found: serde_json::Value = serde_json::from_str(text).unwrap();
        assert_eq!(found, json::json(&of));
        assert_eq!(found["worlds"].as_array().unwrap().len(), WORLDS.len());
        assert_eq!(found["figures"][0]["values"].as_array().unwrap().len(), 3);
    }

    #[test]
    fn a_run_without_noise_has_no_warning() {
        let mut of = comparison();
        of.noise = Noise {
            load_before: Some(0.0),
            typical_spread: Some(0.01),
            widest: None,
            one_core: false,
        };
        assert!(!page(&of).contains("noisy"));
    }
}
