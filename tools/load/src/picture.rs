//! The figures as a picture: the latencies by percentile above, and the answers over time below.

use std::fmt::{self, Display};

use crate::report::{Report, Series};
use crate::svg::{FONT, LEFT, NOTE, PAGE, TEXT, WIDTH, escaped, style};
use crate::{course, curve};

/// The height without the answers over time.
const HEIGHT: f64 = 480.0;

/// The picture of a report.
pub(crate) struct Picture<'a>(pub(crate) &'a Report);

impl Display for Picture<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let report = self.0;
        let series: Vec<&Series> = report.series.iter().filter(|s| s.answers > 0).collect();
        let name = escaped(&report.server.name);
        let (height, desc) = match report.over_time {
            Some(_) => (
                HEIGHT + course::HEIGHT,
                "Above: latency by percentile, both axes logarithmic. Below: answers per second and latency over time.",
            ),
            None => (HEIGHT, "Latency by percentile; both axes are logarithmic."),
        };
        writeln!(
            f,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" height=\"{height}\" role=\"img\">\n\
             <title>Latency of {name}, herd-load {mode}</title>\n\
             <desc>{desc}</desc>",
            mode = report.mode
        )?;
        style(f)?;
        writeln!(
            f,
            "<rect class=\"page\" fill=\"{PAGE}\" width=\"{WIDTH}\" height=\"{height}\"/>\n\
             <text class=\"title\" font-family=\"system-ui, sans-serif\" font-size=\"16\" font-weight=\"600\" fill=\"{TEXT}\" x=\"{LEFT}\" y=\"26\">Latency of {name}: {}</text>\n\
             <text class=\"note\" {FONT} fill=\"{NOTE}\" x=\"{LEFT}\" y=\"45\">{}</text>",
            report.mode,
            escaped(&subtitle(report))
        )?;
        curve::draw(f, &series)?;
        if let Some(over_time) = &report.over_time {
            course::draw(f, HEIGHT, report, over_time)?;
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
        (Some(rate), _) => parts.push(format!("planned: {rate} per second")),
        (None, Some(depth)) => parts.push(format!("depth: {depth}")),
        (None, None) => {}
    }
    let what = match report.flood {
        Some(_) => "rounds",
        None => "answers",
    };
    parts.push(format!("{what}: {}", report.answers));
    parts.push(format!("{:.0} per second", report.rate_per_s));
    for (count, what) in [
        (report.lost, "lost"),
        (report.unanswered, "unanswered"),
        (report.unsent, "never sent"),
    ] {
        if count > 0 {
            parts.push(format!("{what}: {count}"));
        }
    }
    parts.join(" · ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Outage;
    use crate::report::tests::{report, thousand};

    #[test]
    fn a_curve_is_drawn_with_both_axes() {
        let mut report = report();
        report.series.push(Series::new("a<b", thousand(), 2.0, 0));
        let svg = Picture(&report).to_string();
        for part in [
            ">Latency of Riley: iamat<",
            "connections: 50 · depth: 16 · answers: 1000 · 500 per second",
            "prefers-color-scheme: dark",
            ">99.9 %<",
            ">1 µs<",
            ">1 ms<",
            ">a&lt;b<",
            "class=\"curve c1\"",
        ] {
            assert!(svg.contains(part), "{part:?} is not in\n{svg}");
        }
        // Viewers without style sheets must not draw any part in black.
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
    fn a_curve_of_at_most_one_answer_is_drawn() {
        let mut report = report();
        let mut one = crate::tally::histogram().unwrap();
        one.record(0).unwrap();
        for histogram in [crate::tally::histogram().unwrap(), one] {
            report.series = vec![Series::new("IAMAT", histogram, 1.0, 0)];
            let svg = Picture(&report).to_string();
            assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
            assert!(svg.ends_with("</svg>\n"));
        }
    }

    #[test]
    fn a_time_without_answers_is_a_gap_and_an_outage_is_shaded() {
        let mut report = report();
        report.duration_s = 4.0;
        report.outages.push(Outage {
            from_s: 2.0,
            duration_s: 0.9,
            is_over: true,
            connections: 50,
            disconnected_s: 0.8,
        });
        let svg = Picture(&report).to_string();
        for part in [
            ">answers per second<",
            ">seconds since the end of the warm-up; an answer counts at its arrival<",
            ">connections missing: once<",
            "<title>no connection: up to 50 missing, from 2.00 s for 0.90 s</title>",
            ">p50<",
            ">p99<",
            ">max<",
            ">4 s<",
        ] {
            assert!(svg.contains(part), "{part:?} is not in\n{svg}");
        }
        // Three intervals with answers: two in one piece, and one behind the gap.
        let pieces: Vec<usize> = svg
            .lines()
            .filter(|line| line.starts_with("<path class=\"curve") && line.contains('H'))
            .map(|line| line.matches('M').count())
            .collect();
        assert_eq!(pieces, [1, 2, 2, 2], "{svg}");
        // Even without style sheets, the shade does not hide the curve behind it.
        assert!(svg.contains("fill=\"#d1495b\" fill-opacity=\"0.13\""));
        report.over_time = None;
        assert!(!Picture(&report).to_string().contains("answers per second"));
    }

    #[test]
    fn a_run_without_answers_is_drawn() {
        let mut report = report();
        report.series.clear();
        report.duration_s = 0.0;
        if let Some(over_time) = &mut report.over_time {
            over_time.points.clear();
            over_time.until_s = 0.0;
        }
        let svg = Picture(&report).to_string();
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
        assert!(svg.ends_with("</svg>\n"));
    }
}
