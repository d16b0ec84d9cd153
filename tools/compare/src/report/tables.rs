//! Tables with captions: all figures, the targets, the claims, the worlds. They scroll sideways on
//! a narrow page.

use std::fmt::Write as _;

use super::text::{about, bytes, escape, short, spread, times, with_unit};
use super::{Comparison, Standing};
use crate::claims::{CLAIMS, Claim, Evidence, Finding, Verdict};
use crate::count::code_lines;
use crate::figures::{Figure, Figures, Metric, Setting};
use crate::targets::{Goal, Target, Unit, targets};

/// A table that can scroll sideways.
fn table(id: &str, caption: &str, head: &[&str], rows: &str) -> String {
    let head = head.iter().fold(String::new(), |mut head, cell| {
        let _ = write!(head, "<th scope=\"col\">{}</th>", escape(cell));
        head
    });
    format!(
        "<div class=\"scroll\" role=\"region\" aria-labelledby=\"{id}\" tabindex=\"0\"><table><caption id=\"{id}\">{}</caption>\
         <thead><tr>{head}</tr></thead><tbody>\n{rows}</tbody></table></div>\n",
        escape(caption)
    )
}

/// A cell: the median, or a dash with the reason.
fn cell(figures: &Figures, who: &str, metric: Metric) -> String {
    match figures.get(who, metric) {
        Some(Figure::Measured(sample)) => sample.median().map_or_else(
            || "<td>–</td>".to_owned(),
            |median| format!("<td>{}</td>", escape(&with_unit(metric, median))),
        ),
        Some(Figure::Missing(reason)) => format!("<td class=\"missing\">{}</td>", escape(reason)),
        None => "<td class=\"missing\">not in this run</td>".to_owned(),
    }
}

fn spread_cell(figures: &Figures, who: &str, metric: Metric) -> String {
    let sample = figures.sample(who, metric);
    format!("<td>{}</td>", sample.map_or_else(|| "–".to_owned(), spread))
}

fn row_head(who: &str) -> String {
    let own = if who == "mio" { " class=\"own\"" } else { "" };
    format!("<tr{own}><th scope=\"row\">{}</th>", escape(short(who)))
}

/// Throughput and latency under one load.
#[must_use]
pub fn load(of: &Comparison, who: &[&'static str], setting: Setting) -> String {
    let mut rows = String::new();
    let rate = Metric::Rate(setting);
    for who in who {
        rows.push_str(&row_head(who));
        rows.push_str(&cell(&of.figures, who, rate));
        rows.push_str(&spread_cell(&of.figures, who, rate));
        let others = [
            Metric::P50(setting),
            Metric::P99(setting),
            Metric::P999(setting),
            Metric::Cpu(setting),
            Metric::Generator(setting),
        ];
        for metric in others {
            rows.push_str(&cell(&of.figures, who, metric));
        }
        rows.push_str("</tr>\n");
    }
    let (connections, depth) = (setting.connections, setting.depth);
    let plural = if connections == 1 { "" } else { "s" };
    let log = match setting.log {
        crate::server::LogLevel::Warn => "the log has only warnings",
        crate::server::LogLevel::Info => "the log has every command and answer",
    };
    let caption =
        format!("IAMAT on {connections} connection{plural}, with {depth} in flight on each; {log}");
    let id = format!("load-{connections}-{depth}-{}", setting.log.name());
    let head = [
        "world",
        "answers",
        "spread",
        "p50",
        "p99",
        "p99.9",
        "CPU per answer",
        "generator busy",
    ];
    table(&id, &caption, &head, &rows)
}

/// System calls and instructions.
#[must_use]
pub fn counts(of: &Comparison, who: &[&'static str]) -> String {
    let settings = &of.plan.counted;
    let mut rows = String::new();
    for who in who {
        rows.push_str(&row_head(who));
        for setting in settings {
            rows.push_str(&cell(&of.figures, who, Metric::Syscalls(*setting)));
        }
        for setting in settings {
            rows.push_str(&cell(&of.figures, who, Metric::Instructions(*setting)));
        }
        rows.push_str("</tr>\n");
    }
    let mut head = vec!["world".to_owned()];
    head.extend(
        settings
            .iter()
            .map(|setting| format!("system calls, {setting}")),
    );
    head.extend(
        settings
            .iter()
            .map(|setting| format!("instructions, {setting}")),
    );
    let head: Vec<&str> = head.iter().map(String::as_str).collect();
    table(
        "counts",
        "System calls and user instructions per answer",
        &head,
        &rows,
    )
}

/// Memory, the herd of five, and the program's length.
#[must_use]
pub fn herd(of: &Comparison, who: &[&'static str]) -> String {
    let metrics = [
        Metric::Converged,
        Metric::FloodP50,
        Metric::FloodP99,
        Metric::Recovery,
        Metric::Idle,
        Metric::Memory,
        Metric::Lines,
    ];
    let mut rows = String::new();
    for who in who {
        rows.push_str(&row_head(who));
        for metric in metrics {
            rows.push_str(&cell(&of.figures, who, metric));
        }
        rows.push_str("</tr>\n");
    }
    let head = [
        "world",
        "converged updates",
        "flood p50",
        "flood p99",
        "recovery",
        "idle connection",
        "memory after load",
        "lines of code",
    ];
    let caption = "Five servers on one core, memory, and length of the program";
    table("herd", caption, &head, &rows)
}

/// The targets of this project.
#[must_use]
pub fn goals(figures: &Figures) -> String {
    let mut rows = String::new();
    for target in targets(figures) {
        let (class, word) = match target.is_met() {
            Some(true) => ("good", "✓ met"),
            Some(false) => ("bad", "✗ missed"),
            None => ("missing", "not measured"),
        };
        let (relation, goal) = match target.goal {
            Goal::AtLeast(goal) => ("≥ ", goal),
            Goal::AtMost(goal) => ("≤ ", goal),
            Goal::About(goal) => ("", goal),
        };
        let measured = target
            .measured
            .map_or_else(|| "–".to_owned(), |value| in_unit(&target, value));
        let _ = writeln!(
            rows,
            "<tr><th scope=\"row\">{}</th><td>{relation}{}</td><td>{}</td><td class=\"{class}\">{word}</td></tr>",
            escape(target.what),
            escape(&in_unit(&target, goal)),
            escape(&measured)
        );
    }
    table(
        "goals",
        "Targets of this project",
        &["target", "goal", "measured", "verdict"],
        &rows,
    )
}

fn in_unit(target: &Target, value: f64) -> String {
    match target.unit {
        Unit::Times => format!("{}×", trimmed(format!("{value:.2}"))),
        Unit::Syscalls => trimmed(format!("{value:.3}")),
        Unit::Instructions => super::text::thousands(value),
        Unit::Bytes => bytes(value),
    }
}

/// A number without zeros after the last decimal that counts.
fn trimmed(number: String) -> String {
    let short = match number.contains('.') {
        true => number.trim_end_matches('0').trim_end_matches('.'),
        false => number.as_str(),
    };
    match short {
        "-0" => "0".to_owned(),
        short => short.replace('-', "−"),
    }
}

/// The claims of reports.
#[must_use]
pub fn claims(figures: &Figures) -> String {
    let mut rows = String::new();
    for claim in CLAIMS {
        let finding = claim.finding(figures);
        let (class, word) = match finding.verdict {
            Verdict::Confirmed => ("good", "✓ confirmed here"),
            Verdict::Refuted => ("bad", "✗ refuted here"),
            Verdict::Undecided => ("open", "≈ undecided: the figures are too close"),
            Verdict::NotMeasured => ("missing", "not measured"),
        };
        let _ = writeln!(
            rows,
            "<tr><th scope=\"row\" class=\"says\">{}<small>{}</small></th><td class=\"evidence\">{}</td><td class=\"{class}\">{word}</td></tr>",
            escape(claim.says),
            escape(&source(claim)),
            escape(&evidence(&finding)),
        );
    }
    let caption =
        "Claims of published reports on this project, in our words, and what was measured here";
    table(
        "claims",
        caption,
        &["claim and its author", "figure", "verdict"],
        &rows,
    )
}

fn source(claim: &Claim) -> String {
    format!("{}, {} – {}", claim.author, claim.year, claim.found)
}

fn evidence(finding: &Finding) -> String {
    match &finding.evidence {
        Evidence::Two {
            metric,
            first,
            second,
            ratio,
        } => format!(
            "{}: {} {}, {} {} ({})",
            about(*metric),
            short(first.0),
            with_unit(*metric, first.1),
            short(second.0),
            with_unit(*metric, second.1),
            times(*ratio)
        ),
        Evidence::Kept {
            at,
            before,
            first,
            second,
        } => format!(
            "rate at {at}, as a part of the rate at {before}: {} {:.0} %, {} {:.0} %",
            short(first.0),
            first.1 * 100.0,
            short(second.0),
            second.1 * 100.0
        ),
        Evidence::None(reason) => (*reason).to_owned(),
    }
}

/// The measured worlds with their tools, and the others with the reasons.
#[must_use]
pub fn worlds(of: &Comparison) -> String {
    let mut rows = String::new();
    for (world, standing) in &of.worlds {
        let (class, told) = match standing {
            Standing::Measured { versions } => ("", versions.clone()),
            Standing::Skipped(reason) => (" class=\"missing\"", format!("skipped: {reason}")),
        };
        let lines = world.sources().and_then(|files| code_lines(&files));
        let lines = lines.map_or_else(
            |_| "–".to_owned(),
            |lines| super::text::thousands(lines as f64),
        );
        let _ = writeln!(
            rows,
            "{}<td>{}</td><td{class}>{}</td><td>{lines}</td></tr>",
            row_head(world.name),
            escape(world.label),
            escape(&told)
        );
    }
    let (class, told) = match &of.redis {
        Ok(version) => (
            "",
            format!("redis-server {version}, loaded by redis-benchmark"),
        ),
        Err(reason) => (" class=\"missing\"", format!("skipped: {reason}")),
    };
    let _ = writeln!(
        rows,
        "{}<td>C: GEOADD to one key, without a file on disk</td><td{class}>{}</td><td>–</td></tr>",
        row_head(crate::redis::REDIS),
        escape(&told)
    );
    table(
        "worlds",
        "The worlds",
        &["world", "description", "tools", "lines of code"],
        &rows,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trailing_zeros_are_removed() {
        for (number, text) in [
            ("1.50", "1.5"),
            ("10.00", "10"),
            ("-0.000", "0"),
            ("-0.003", "−0.003"),
            ("100", "100"),
        ] {
            assert_eq!(trimmed(number.to_owned()), text);
        }
    }
}
