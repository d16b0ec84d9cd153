//! The latencies as a curve: an SVG that needs nothing else, readable on a light and on a dark page.
//!
//! To the right go *nines*: 90 %, 99 %, 99.9 % …, each as far from the one before; so the slow answers, which are few, get as much
//! room as the many. Upwards goes the latency, on a logarithmic scale too.

use std::fmt::{self, Display};

use crate::report::{Report, Series};

const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 480.0;
const LEFT: f64 = 78.0;
const RIGHT: f64 = 28.0;
const TOP: f64 = 78.0;
const BOTTOM: f64 = 62.0;
/// How finely the curve follows the histogram: steps while the rest halves.
const STEPS_PER_HALVING: u32 = 12;
/// What is shown of faster answers: nothing is.
const LEAST_NS: f64 = 100.0;

/// Colours of up to eight curves, on a light page and on a dark one.
const COLOURS: [(&str, &str); 8] = [
    ("#2a6fdb", "#6ea8ff"),
    ("#d1495b", "#ff8a97"),
    ("#2e8b57", "#66cc99"),
    ("#b8780c", "#f2b84b"),
    ("#7b4bb7", "#b794f6"),
    ("#0f8b8d", "#5fd4d6"),
    ("#a2427f", "#f090cb"),
    ("#6b6b6b", "#b5b5b5"),
];

/// Colours on a light page, and a font. They stand at each element too: viewers that know no style
/// sheets draw what has none black on black.
const TEXT: &str = "#33363b";
const NOTE: &str = "#6a6f78";
const PAGE: &str = "#ffffff";
const GRID: &str = "#e3e5e8";
const AXIS: &str = "#8a8f98";
const FONT: &str = "font-family=\"system-ui, sans-serif\" font-size=\"12\"";
const CURVE: &str = "fill=\"none\" stroke-width=\"2\" stroke-linejoin=\"round\"";

/// The curves of all series of a report that have answers.
pub(crate) struct Curve<'a>(pub(crate) &'a Report);

/// Where in the picture a latency and a quantile are.
struct Scale {
    /// Powers of ten of nanoseconds at the bottom and at the top.
    low: f64,
    high: f64,
    /// Nines at the right.
    nines: f64,
}

impl Scale {
    fn of(series: &[&Series]) -> Scale {
        let least = series.iter().map(|series| series.histogram.min()).min();
        let most = series.iter().map(|series| series.histogram.max()).max();
        let count = series.iter().map(|series| series.answers).max();
        let low = (least.unwrap_or(1000) as f64).max(LEAST_NS).log10();
        let high = (most.unwrap_or(1000) as f64).max(LEAST_NS).log10();
        // The last answer of a thousand is the one beyond 99.9 %: there are no finer quantiles.
        let nines = (count.unwrap_or(1) as f64).log10().max(1.0);
        let low = step_below(low);
        Scale {
            low,
            high: step_above(high).max(low + 0.3),
            nines,
        }
    }

    fn x(&self, nines: f64) -> f64 {
        LEFT + (WIDTH - LEFT - RIGHT) * nines.min(self.nines) / self.nines
    }

    fn y(&self, ns: f64) -> f64 {
        let part = (ns.max(LEAST_NS).log10() - self.low) / (self.high - self.low);
        HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * part
    }

    /// Latencies to mark: 1, 2 and 5 of each power of ten, or only the 1 if there are many.
    fn latencies_ns(&self) -> Vec<f64> {
        let fine = self.high - self.low <= 3.01;
        let digits: &[f64] = if fine { &[1.0, 2.0, 5.0] } else { &[1.0] };
        let mut marks = Vec::new();
        // From 10² to 10¹³ nanoseconds.
        for power in self.low.floor() as i32..=self.high.ceil() as i32 {
            for digit in digits {
                let ns = digit * 10f64.powi(power);
                if (self.low - 1e-9..=self.high + 1e-9).contains(&ns.log10()) {
                    marks.push(ns);
                }
            }
        }
        marks
    }
}

/// 1, 2 or 5 times a power of ten that is not above, as a power of ten.
fn step_below(power: f64) -> f64 {
    let whole = power.floor();
    let steps = [5f64.log10(), 2f64.log10(), 0.0];
    let step = steps.into_iter().find(|step| whole + step <= power + 1e-9);
    whole + step.unwrap_or(0.0)
}

/// The same that is not below.
fn step_above(power: f64) -> f64 {
    let whole = power.floor();
    let steps = [0.0, 2f64.log10(), 5f64.log10(), 1.0];
    let step = steps.into_iter().find(|step| whole + step >= power - 1e-9);
    whole + step.unwrap_or(1.0)
}

impl Display for Curve<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let report = self.0;
        let series: Vec<&Series> = report.series.iter().filter(|s| s.answers > 0).collect();
        let scale = Scale::of(&series);
        let name = escaped(&report.server.name);
        writeln!(
            f,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" width=\"{WIDTH}\" height=\"{HEIGHT}\" role=\"img\">\n\
             <title>Latency of {name}, herd-load {mode}</title>\n\
             <desc>Latency by percentile; both axes are logarithmic.</desc>",
            mode = report.mode
        )?;
        style(f, series.len())?;
        writeln!(
            f,
            "<rect class=\"page\" fill=\"{PAGE}\" width=\"{WIDTH}\" height=\"{HEIGHT}\"/>\n\
             <text class=\"title\" font-family=\"system-ui, sans-serif\" font-size=\"16\" font-weight=\"600\" fill=\"{TEXT}\" x=\"{LEFT}\" y=\"26\">Latency of {name}: {}</text>\n\
             <text class=\"note\" {FONT} fill=\"{NOTE}\" x=\"{LEFT}\" y=\"45\">{}</text>",
            report.mode,
            escaped(&subtitle(report))
        )?;
        axes(f, &scale)?;
        if series.len() > 1 {
            legend(f, &series)?;
        }
        for (number, series) in series.iter().enumerate() {
            curve(f, &scale, number % COLOURS.len(), series)?;
        }
        writeln!(f, "</svg>")
    }
}

fn subtitle(report: &Report) -> String {
    let parameters = &report.parameters;
    let mut parts = Vec::new();
    if let Some(connections) = parameters.connections {
        parts.push(format!("connections: {connections}"));
    }
    match (parameters.rate_per_s, parameters.depth) {
        (Some(rate), _) => parts.push(format!("due: {rate} a second")),
        (None, Some(depth)) => parts.push(format!("depth: {depth}")),
        (None, None) => {}
    }
    let what = match report.flood {
        Some(_) => "rounds",
        None => "answers",
    };
    parts.push(format!("{what}: {}", report.answers));
    parts.push(format!("{:.0} a second", report.rate_per_s));
    parts.join(" · ")
}

fn style(f: &mut fmt::Formatter<'_>, curves: usize) -> fmt::Result {
    writeln!(
        f,
        "<style>\n\
         text {{ font: 12px system-ui, sans-serif; fill: {TEXT} }}\n\
         .title {{ font-size: 16px; font-weight: 600 }}\n\
         .note {{ fill: {NOTE} }}\n\
         .page {{ fill: {PAGE} }}\n\
         .grid {{ stroke: {GRID} }}\n\
         .axis {{ stroke: {AXIS} }}\n\
         .curve {{ fill: none; stroke-width: 2; stroke-linejoin: round }}"
    )?;
    let colours = COLOURS.iter().take(curves).enumerate();
    for (number, (light, _)) in colours.clone() {
        writeln!(f, ".c{number} {{ stroke: {light} }}")?;
    }
    writeln!(
        f,
        "@media (prefers-color-scheme: dark) {{\n\
         text {{ fill: #e4e6ea }}\n\
         .note {{ fill: #9aa0aa }}\n\
         .page {{ fill: #16181c }}\n\
         .grid {{ stroke: #2b2e34 }}\n\
         .axis {{ stroke: #6d727b }}"
    )?;
    for (number, (_, dark)) in colours {
        writeln!(f, ".c{number} {{ stroke: {dark} }}")?;
    }
    writeln!(f, "}}\n</style>")
}

fn axes(f: &mut fmt::Formatter<'_>, scale: &Scale) -> fmt::Result {
    let (right, bottom) = (WIDTH - RIGHT, HEIGHT - BOTTOM);
    for ns in scale.latencies_ns() {
        let y = scale.y(ns);
        writeln!(
            f,
            "<line class=\"grid\" stroke=\"{GRID}\" x1=\"{LEFT}\" y1=\"{y:.1}\" x2=\"{right}\" y2=\"{y:.1}\"/>\
             <text {FONT} fill=\"{TEXT}\" text-anchor=\"end\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
            LEFT - 8.0,
            y + 4.0,
            mark(ns)
        )?;
    }
    for (nines, label) in quantiles(scale.nines) {
        let x = scale.x(nines);
        writeln!(
            f,
            "<line class=\"grid\" stroke=\"{GRID}\" x1=\"{x:.1}\" y1=\"{TOP}\" x2=\"{x:.1}\" y2=\"{bottom}\"/>\
             <text {FONT} fill=\"{TEXT}\" text-anchor=\"middle\" x=\"{x:.1}\" y=\"{:.1}\">{label}</text>",
            bottom + 18.0
        )?;
    }
    writeln!(
        f,
        "<path class=\"axis\" stroke=\"{AXIS}\" fill=\"none\" d=\"M{LEFT} {TOP}V{bottom}H{right}\"/>\n\
         <text class=\"note\" {FONT} fill=\"{NOTE}\" text-anchor=\"middle\" x=\"{:.1}\" y=\"{:.1}\">percentile: this part of all answers came at least as fast</text>\n\
         <text class=\"note\" {FONT} fill=\"{NOTE}\" text-anchor=\"middle\" transform=\"translate(18 {:.1}) rotate(-90)\">latency</text>",
        f64::midpoint(LEFT, right),
        HEIGHT - 16.0,
        f64::midpoint(TOP, bottom)
    )
}

/// Percentiles to mark, as nines and as words.
fn quantiles(most: f64) -> Vec<(f64, String)> {
    let mut marks = vec![(0.0, "0".to_owned()), (2f64.log10(), "50 %".to_owned())];
    // At most 19: there are no more answers than fit in 64 bits.
    for nines in 1..=most.floor() as usize {
        let label = match nines {
            1 => "90 %".to_owned(),
            2 => "99 %".to_owned(),
            more => format!("99.{} %", "9".repeat(more - 2)),
        };
        marks.push((nines as f64, label));
    }
    marks
}

fn legend(f: &mut fmt::Formatter<'_>, series: &[&Series]) -> fmt::Result {
    let mut x = LEFT;
    for (number, series) in series.iter().enumerate() {
        let colour = number % COLOURS.len();
        let (light, _) = COLOURS[colour];
        writeln!(
            f,
            "<line class=\"curve c{colour}\" {CURVE} stroke=\"{light}\" x1=\"{x:.1}\" y1=\"61\" x2=\"{:.1}\" y2=\"61\"/>\
             <text {FONT} fill=\"{TEXT}\" x=\"{:.1}\" y=\"65\">{}</text>",
            x + 18.0,
            x + 24.0,
            escaped(&series.name)
        )?;
        // Wide enough for any font.
        x += 44.0 + 7.5 * series.name.chars().count() as f64;
    }
    Ok(())
}

fn curve(f: &mut fmt::Formatter<'_>, scale: &Scale, colour: usize, series: &Series) -> fmt::Result {
    let (light, _) = COLOURS[colour];
    let histogram = &series.histogram;
    let own_nines = (series.answers as f64).log10();
    let mut points = format!(
        "M{:.1} {:.1}",
        scale.x(0.0),
        scale.y(histogram.min() as f64)
    );
    for step in histogram.iter_quantiles(STEPS_PER_HALVING) {
        let rest = 1.0 - step.quantile_iterated_to();
        let nines = if rest > 0.0 {
            (-rest.log10()).min(own_nines)
        } else {
            own_nines
        };
        let y = scale.y(step.value_iterated_to() as f64);
        points.push_str(&format!("L{:.1} {y:.1}", scale.x(nines.max(0.0))));
    }
    writeln!(
        f,
        "<path class=\"curve c{colour}\" {CURVE} stroke=\"{light}\" d=\"{points}\"/>"
    )
}

/// A marked latency: 1, 2 or 5 times a power of ten.
fn mark(ns: f64) -> String {
    let (value, unit) = match ns {
        ns if ns < 999.0 => (ns, "ns"),
        ns if ns < 999e3 => (ns / 1e3, "µs"),
        ns if ns < 999e6 => (ns / 1e6, "ms"),
        ns => (ns / 1e9, "s"),
    };
    format!("{value:.0} {unit}")
}

/// Text that may stand in XML.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            // XML 1.0 has no words for them.
            control if control.is_control() => out.push('\u{fffd}'),
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::{report, thousand};

    #[test]
    fn a_curve_is_drawn_with_both_axes() {
        let mut report = report();
        report.series.push(Series::new("a<b", thousand(), 2.0, 0));
        let svg = Curve(&report).to_string();
        for part in [
            ">Latency of Riley: iamat<",
            "connections: 50 · depth: 16 · answers: 1000 · 500 a second",
            "prefers-color-scheme: dark",
            ">99.9 %<",
            ">1 µs<",
            ">1 ms<",
            ">a&lt;b<",
            "class=\"curve c1\"",
        ] {
            assert!(svg.contains(part), "{part:?} is not in\n{svg}");
        }
        // Also for viewers that know no style sheets: nothing is left to be black.
        let elements = svg.split('<').filter(|it| {
            ["text", "line", "path", "rect"]
                .iter()
                .any(|name| it.starts_with(name))
        });
        for element in elements {
            let is_painted = ["fill=\"#", "stroke=\"#"]
                .iter()
                .any(|paint| element.contains(paint));
            assert!(is_painted, "<{element}");
            assert!(
                !element.starts_with("path") || element.contains("fill=\"none\""),
                "<{element}"
            );
        }
        assert!(!svg.contains("99.99") && !svg.contains("NaN") && !svg.contains("inf"));
        assert_eq!(svg.matches("<text").count(), svg.matches("</text>").count());
    }

    #[test]
    fn a_curve_of_nothing_or_of_one_answer_is_still_a_picture() {
        let mut report = report();
        let mut one = crate::tally::histogram().unwrap();
        one.record(0).unwrap();
        for histogram in [crate::tally::histogram().unwrap(), one] {
            report.series = vec![Series::new("IAMAT", histogram, 1.0, 0)];
            let svg = Curve(&report).to_string();
            assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
            assert!(svg.ends_with("</svg>\n"));
        }
    }

    #[test]
    fn the_scale_begins_and_ends_at_round_latencies() {
        let near = |a: f64, b: f64| (a - b).abs() < 1e-6;
        assert!(near(10f64.powf(step_below(3456f64.log10())), 2000.0));
        assert!(near(10f64.powf(step_above(3456f64.log10())), 5000.0));
        assert!(near(10f64.powf(step_below(1000f64.log10())), 1000.0));
        assert!(near(10f64.powf(step_above(1000f64.log10())), 1000.0));
        assert!(near(10f64.powf(step_above(6000f64.log10())), 10_000.0));
    }

    #[test]
    fn what_a_server_calls_itself_can_not_break_the_picture() {
        assert_eq!(
            escaped("<a & \"b\">\x1b"),
            "&lt;a &amp; &quot;b&quot;&gt;\u{fffd}"
        );
    }
}
