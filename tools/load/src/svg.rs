//! The common parts of the picture: its size, colours, scales and text. The SVG needs no other
//! file, and is readable on a light and on a dark page.

use std::fmt;

pub(crate) const WIDTH: f64 = 860.0;
pub(crate) const LEFT: f64 = 78.0;
pub(crate) const RIGHT: f64 = 28.0;
/// The lowest shown latency.
const LEAST_NS: f64 = 100.0;

/// The colours of up to eight curves, on a light page and on a dark one.
pub(crate) const COLOURS: [(&str, &str); 8] = [
    ("#2a6fdb", "#6ea8ff"),
    ("#d1495b", "#ff8a97"),
    ("#2e8b57", "#66cc99"),
    ("#b8780c", "#f2b84b"),
    ("#7b4bb7", "#b794f6"),
    ("#0f8b8d", "#5fd4d6"),
    ("#a2427f", "#f090cb"),
    ("#6b6b6b", "#b5b5b5"),
];

/// The colours on a light page, and the font. Each element has them too, because viewers without
/// style sheets would draw it black on black.
pub(crate) const TEXT: &str = "#33363b";
pub(crate) const NOTE: &str = "#6a6f78";
pub(crate) const PAGE: &str = "#ffffff";
pub(crate) const GRID: &str = "#e3e5e8";
pub(crate) const AXIS: &str = "#8a8f98";
pub(crate) const OUTAGE: &str = "fill=\"#d1495b\" fill-opacity=\"0.13\"";
pub(crate) const FONT: &str = "font-family=\"system-ui, sans-serif\" font-size=\"12\"";
pub(crate) const CURVE: &str = "fill=\"none\" stroke-width=\"2\" stroke-linejoin=\"round\"";

/// A logarithmic scale of latencies, upwards.
pub(crate) struct Latencies {
    /// The powers of ten of nanoseconds at the bottom and at the top.
    low: f64,
    high: f64,
    top: f64,
    bottom: f64,
}

impl Latencies {
    /// From round latencies at or below `least_ns` to round ones at or above `most_ns`, between
    /// these heights of the picture.
    pub(crate) fn from_to(least_ns: f64, most_ns: f64, top: f64, bottom: f64) -> Latencies {
        let low = step_below(least_ns.max(LEAST_NS).log10());
        Latencies {
            low,
            high: step_above(most_ns.max(LEAST_NS).log10()).max(low + 0.3),
            top,
            bottom,
        }
    }

    pub(crate) fn y(&self, ns: f64) -> f64 {
        let part = (ns.max(LEAST_NS).log10() - self.low) / (self.high - self.low);
        self.bottom - (self.bottom - self.top) * part
    }

    /// The marked latencies: 1, 2 and 5 times each power of ten, or only 1 if there are many.
    fn marks_ns(&self) -> Vec<f64> {
        let room = (self.bottom - self.top) / (self.high - self.low);
        let digits: &[f64] = if room > 100.0 {
            &[1.0, 2.0, 5.0]
        } else {
            &[1.0]
        };
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

    /// Draws the marks, and the name of the axis.
    pub(crate) fn grid(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for ns in self.marks_ns() {
            grid_line(f, self.y(ns), &mark(ns))?;
        }
        upwards(f, "latency", self.top, self.bottom)
    }
}

/// A horizontal line with a label.
pub(crate) fn grid_line(f: &mut fmt::Formatter<'_>, y: f64, label: &str) -> fmt::Result {
    writeln!(
        f,
        "<line class=\"grid\" stroke=\"{GRID}\" x1=\"{LEFT}\" y1=\"{y:.1}\" x2=\"{}\" y2=\"{y:.1}\"/>\
         <text {FONT} fill=\"{TEXT}\" text-anchor=\"end\" x=\"{:.1}\" y=\"{:.1}\">{label}</text>",
        WIDTH - RIGHT,
        LEFT - 8.0,
        y + 4.0
    )
}

/// The name of the vertical axis.
pub(crate) fn upwards(
    f: &mut fmt::Formatter<'_>,
    what: &str,
    top: f64,
    bottom: f64,
) -> fmt::Result {
    writeln!(
        f,
        "<text class=\"note\" {FONT} fill=\"{NOTE}\" text-anchor=\"middle\" transform=\"translate(18 {:.1}) rotate(-90)\">{what}</text>",
        f64::midpoint(top, bottom)
    )
}

/// The legend: names, each after a piece of its curve, from `x` on at the height `y`.
pub(crate) fn legend<'a>(
    f: &mut fmt::Formatter<'_>,
    mut x: f64,
    y: f64,
    names: impl Iterator<Item = &'a str>,
) -> fmt::Result {
    for (number, name) in names.enumerate() {
        let colour = number % COLOURS.len();
        let (light, _) = COLOURS[colour];
        writeln!(
            f,
            "<line class=\"curve c{colour}\" {CURVE} stroke=\"{light}\" x1=\"{x:.1}\" y1=\"{y}\" x2=\"{:.1}\" y2=\"{y}\"/>\
             <text {FONT} fill=\"{TEXT}\" x=\"{:.1}\" y=\"{}\">{}</text>",
            x + 18.0,
            x + 24.0,
            y + 4.0,
            escaped(name)
        )?;
        // Wide enough for any font.
        x += 44.0 + 7.5 * name.chars().count() as f64;
    }
    Ok(())
}

/// The style sheet: the same colours, and others for a dark page.
pub(crate) fn style(f: &mut fmt::Formatter<'_>) -> fmt::Result {
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
    let colours = COLOURS.iter().enumerate();
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

/// The greatest of 1, 2 or 5 times a power of ten that is not above, as a power of ten.
pub(crate) fn step_below(power: f64) -> f64 {
    let whole = power.floor();
    let steps = [5f64.log10(), 2f64.log10(), 0.0];
    let step = steps.into_iter().find(|step| whole + step <= power + 1e-9);
    whole + step.unwrap_or(0.0)
}

/// The lowest of them that is not below.
pub(crate) fn step_above(power: f64) -> f64 {
    let whole = power.floor();
    let steps = [0.0, 2f64.log10(), 5f64.log10(), 1.0];
    let step = steps.into_iter().find(|step| whole + step >= power - 1e-9);
    whole + step.unwrap_or(1.0)
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

/// Text, escaped for XML.
pub(crate) fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            // XML 1.0 cannot contain them.
            control if control.is_control() => out.push('\u{fffd}'),
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn the_server_name_is_escaped_in_the_svg() {
        assert_eq!(
            escaped("<a & \"b\">\x1b"),
            "&lt;a &amp; &quot;b&quot;&gt;\u{fffd}"
        );
    }
}
