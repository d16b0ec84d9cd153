//! Bar charts. Each is a table with a drawn middle column. So a screen reader can read it, and its
//! text has the page's size.

use std::fmt::Write as _;

use super::text::{escape, short, times, with_unit};
use crate::figures::{Figure, Figures, Metric};

/// The length of a full bar. The drawing is stretched to the available width.
const FULL: f64 = 1000.0;

/// The good end of the scale.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Better {
    /// Longer bars.
    More,
    /// Shorter bars.
    Less,
}

impl Better {
    fn words(self) -> &'static str {
        match self {
            Better::More => "more is better",
            Better::Less => "less is better",
        }
    }
}

/// A chart of one metric.
#[derive(Clone, Copy, Debug)]
pub struct Chart<'a> {
    /// The title.
    pub title: &'a str,
    /// The metric.
    pub metric: Metric,
    /// The good end of the scale.
    pub better: Better,
    /// The worlds in the chart, in this order.
    pub who: &'a [&'static str],
}

impl Chart<'_> {
    /// The large chart, with an axis and with each figure's ratio to that of `than`.
    #[must_use]
    pub fn headline(&self, figures: &Figures, than: &str) -> String {
        let scale = Scale::of(self.highest(figures, &[self.metric]));
        let mut rows = String::new();
        for who in self.who {
            let ratio = figures.ratio(who, than, self.metric);
            let ratio = ratio.map_or_else(|| "–".to_owned(), times);
            let (bar, value) = drawn(figures, who, self.metric, &scale);
            let _ = write!(
                rows,
                "<tr{}><th scope=\"row\">{}</th><td class=\"bar\">{bar}</td><td class=\"value\">{value}</td><td class=\"ratio\">{ratio}</td></tr>",
                mark(who),
                escape(short(who)),
            );
        }
        let mut axis = String::new();
        for tick in scale.ticks() {
            let place = tick / scale.end * 100.0;
            let label = if tick >= 1e6 {
                format!("{} M", tick / 1e6)
            } else {
                format!("{:.0} k", tick / 1e3)
            };
            let label = if tick == 0.0 { "0".to_owned() } else { label };
            let _ = write!(axis, "<span style=\"left:{place:.2}%\">{label}</span>");
        }
        format!(
            "<table class=\"chart headline\"><caption>{} <small>({}; the thin line spans the middle half of the measurements)</small></caption>\
             <thead><tr><th scope=\"col\" class=\"who\">world</th><th scope=\"col\" class=\"bar\"><span class=\"hidden\">drawn</span></th>\
             <th scope=\"col\" class=\"value\">per second</th><th scope=\"col\" class=\"ratio\">× {}</th></tr></thead><tbody>{rows}</tbody>\
             <tfoot aria-hidden=\"true\"><tr><td></td><td class=\"axis\"><div>{axis}</div></td><td></td><td></td></tr></tfoot></table>\n",
            escape(self.title),
            self.better.words(),
            escape(short(than)),
        )
    }

    /// A small chart.
    #[must_use]
    pub fn small(&self, figures: &Figures) -> String {
        let scale = Scale::of(self.highest(figures, &[self.metric]));
        let mut rows = String::new();
        for who in self.who {
            let (bar, value) = drawn(figures, who, self.metric, &scale);
            self.row(&mut rows, who, &bar, &value);
        }
        self.table(&rows, "")
    }

    /// A small chart with two bars for each world: this metric, and `other`.
    #[must_use]
    pub fn pairs(&self, figures: &Figures, other: Metric, legend: [&str; 2]) -> String {
        let scale = Scale::of(self.highest(figures, &[self.metric, other]));
        let mut rows = String::new();
        for who in self.who {
            let (first, value) = drawn(figures, who, self.metric, &scale);
            let (second, other) = drawn(figures, who, other, &scale);
            let second = second.replacen("class=\"fill\"", "class=\"fill second\"", 1);
            self.row(
                &mut rows,
                who,
                &(first + &second),
                &format!("{value}<br>{other}"),
            );
        }
        let legend = format!(
            "<p class=\"legend\"><span class=\"key\"></span>{} <span class=\"key second\"></span>{}</p>",
            escape(legend[0]),
            escape(legend[1])
        );
        self.table(&rows, &legend)
    }

    fn row(&self, rows: &mut String, who: &str, bar: &str, value: &str) {
        let _ = write!(
            rows,
            "<tr{}><th scope=\"row\">{}</th><td class=\"bar\">{bar}</td><td class=\"value\">{value}</td></tr>",
            mark(who),
            escape(short(who))
        );
    }

    fn table(&self, rows: &str, legend: &str) -> String {
        format!(
            "<div class=\"card\"><table class=\"chart\"><caption>{} <small>{}</small></caption><tbody>{rows}</tbody></table>{legend}</div>\n",
            escape(self.title),
            self.better.words()
        )
    }

    /// The end of the longest whisker.
    fn highest(&self, figures: &Figures, metrics: &[Metric]) -> f64 {
        let samples = self
            .who
            .iter()
            .flat_map(|who| metrics.iter().map(move |metric| (who, metric)));
        let samples = samples.filter_map(|(who, metric)| figures.sample(who, *metric));
        samples
            .filter_map(|sample| sample.quantile(0.75))
            .fold(0.0, f64::max)
    }
}

/// The bar and the figure as text, or why there are none.
fn drawn(figures: &Figures, who: &str, metric: Metric, scale: &Scale) -> (String, String) {
    let reason = match figures.get(who, metric) {
        Some(Figure::Measured(sample)) => {
            let quantiles = [0.25, 0.5, 0.75].map(|part| sample.quantile(part));
            if let [Some(low), Some(median), Some(high)] = quantiles {
                return (
                    scale.bar(low, median, high),
                    escape(&with_unit(metric, median)),
                );
            }
            "no figure"
        }
        Some(Figure::Missing(reason)) => reason,
        None => "not measured in this run",
    };
    let told = format!("<span class=\"missing\">{}</span>", escape(reason));
    (told, "–".to_owned())
}

/// A class that highlights herd-mio's bar.
fn mark(who: &str) -> &'static str {
    match who {
        "mio" => " class=\"own\"",
        crate::redis::REDIS => " class=\"outside\"",
        _ => "",
    }
}

/// A linear scale from zero.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Scale {
    end: f64,
    step: f64,
}

impl Scale {
    /// A scale that reaches this value, with steps that are easy to read.
    fn of(highest: f64) -> Scale {
        if highest <= 0.0 {
            return Scale {
                end: 1.0,
                step: 1.0,
            };
        }
        let rough = highest / 5.0;
        let power = 10f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 2.5, 5.0, 10.0].map(|part| part * power);
        let step = step
            .into_iter()
            .find(|step| *step >= rough)
            .unwrap_or(rough);
        Scale {
            end: highest * 1.02,
            step,
        }
    }

    fn ticks(self) -> impl Iterator<Item = f64> {
        let count = (self.end / self.step).floor() as u32;
        (0..=count).map(move |number| f64::from(number) * self.step)
    }

    fn bar(self, low: f64, median: f64, high: f64) -> String {
        let x = |value: f64| (value / self.end * FULL).clamp(0.0, FULL);
        let mut drawing = String::from(
            "<svg viewBox=\"0 0 1000 20\" preserveAspectRatio=\"none\" aria-hidden=\"true\" focusable=\"false\">",
        );
        for tick in self.ticks() {
            let x = x(tick);
            let _ = write!(
                drawing,
                "<line class=\"grid\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"0\" y2=\"20\"/>"
            );
        }
        let _ = write!(
            drawing,
            "<rect class=\"fill\" x=\"0\" y=\"2\" width=\"{:.1}\" height=\"16\"/><line class=\"whisker\" x1=\"{:.1}\" x2=\"{:.1}\" y1=\"10\" y2=\"10\"/></svg>",
            x(median).max(1.0),
            x(low),
            x(high)
        );
        drawing
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figures::HEADLINE;

    #[test]
    fn scales_have_readable_steps() {
        let scale = Scale::of(413_000.0);
        assert_eq!(scale.step, 100_000.0);
        assert_eq!(scale.ticks().count(), 5);
        assert_eq!(Scale::of(0.0).ticks().count(), 2);
    }

    #[test]
    fn bar_lengths_are_proportional_to_their_figures() {
        let mut figures = Figures::default();
        let rate = Metric::Rate(HEADLINE);
        figures.push("mio", rate, 200.0);
        figures.push("streams", rate, 100.0);
        figures.miss("go", rate, "no <go>");
        let chart = Chart {
            title: "T",
            metric: rate,
            better: Better::More,
            who: &["mio", "streams", "go", "node"],
        };
        let drawn = chart.headline(&figures, "streams");
        assert!(
            drawn.contains("width=\"980.4\"") && drawn.contains("width=\"490.2\""),
            "{drawn}"
        );
        assert!(drawn.contains("<td class=\"ratio\">2.0×</td>"), "{drawn}");
        assert!(
            drawn.contains("no &lt;go&gt;") && drawn.contains("not measured in this run"),
            "{drawn}"
        );
    }
}
