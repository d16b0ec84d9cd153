//! The latencies as a curve, by percentile.
//!
//! The horizontal axis has *nines*: 90 %, 99 %, 99.9 % …, at equal distances. So the few slow
//! answers get as much room as the many fast ones. The vertical axis has the latency, on a
//! logarithmic scale too.

use std::fmt;

use crate::report::Series;
use crate::svg::{
    AXIS, COLOURS, CURVE, FONT, GRID, LEFT, Latencies, NOTE, RIGHT, TEXT, WIDTH, legend,
};

/// The top and the bottom of the curve in the picture.
const TOP: f64 = 78.0;
const BOTTOM: f64 = 418.0;
/// The resolution of the curve: the number of steps for each halving of the rest.
const STEPS_PER_HALVING: u32 = 12;

/// The position of a latency and of a quantile in the picture.
struct Scale {
    latencies: Latencies,
    /// The nines at the right end.
    nines: f64,
}

impl Scale {
    fn of(series: &[&Series]) -> Scale {
        let least = series.iter().map(|series| series.histogram.min()).min();
        let most = series.iter().map(|series| series.histogram.max()).max();
        let count = series.iter().map(|series| series.answers).max();
        let [least_ns, most_ns] = [least, most].map(|ns| ns.unwrap_or(1000) as f64);
        Scale {
            latencies: Latencies::from_to(least_ns, most_ns, TOP, BOTTOM),
            // Of a thousand answers, the last one is beyond 99.9 %. There are no finer quantiles.
            nines: (count.unwrap_or(1) as f64).log10().max(1.0),
        }
    }

    fn x(&self, nines: f64) -> f64 {
        LEFT + (WIDTH - LEFT - RIGHT) * nines.min(self.nines) / self.nines
    }
}

/// Draws the curves of these series.
pub(crate) fn draw(f: &mut fmt::Formatter<'_>, series: &[&Series]) -> fmt::Result {
    let scale = Scale::of(series);
    axes(f, &scale)?;
    if series.len() > 1 {
        let names = series.iter().map(|series| series.name.as_str());
        legend(f, LEFT, 61.0, names)?;
    }
    for (number, series) in series.iter().enumerate() {
        curve(f, &scale, number % COLOURS.len(), series)?;
    }
    Ok(())
}

fn axes(f: &mut fmt::Formatter<'_>, scale: &Scale) -> fmt::Result {
    let right = WIDTH - RIGHT;
    scale.latencies.grid(f)?;
    for (nines, label) in quantiles(scale.nines) {
        let x = scale.x(nines);
        writeln!(
            f,
            "<line class=\"grid\" stroke=\"{GRID}\" x1=\"{x:.1}\" y1=\"{TOP}\" x2=\"{x:.1}\" y2=\"{BOTTOM}\"/>\
             <text {FONT} fill=\"{TEXT}\" text-anchor=\"middle\" x=\"{x:.1}\" y=\"{:.1}\">{label}</text>",
            BOTTOM + 18.0
        )?;
    }
    writeln!(
        f,
        "<path class=\"axis\" stroke=\"{AXIS}\" fill=\"none\" d=\"M{LEFT} {TOP}V{BOTTOM}H{right}\"/>\n\
         <text class=\"note\" {FONT} fill=\"{NOTE}\" text-anchor=\"middle\" x=\"{:.1}\" y=\"{:.1}\">percentile: this part of all answers was at least as fast</text>",
        f64::midpoint(LEFT, right),
        BOTTOM + 40.0
    )
}

/// The marked percentiles, as nines and as text.
fn quantiles(most: f64) -> Vec<(f64, String)> {
    let mut marks = vec![(0.0, "0".to_owned()), (2f64.log10(), "50 %".to_owned())];
    // At most 19, because the number of answers fits in 64 bits.
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

fn curve(f: &mut fmt::Formatter<'_>, scale: &Scale, colour: usize, series: &Series) -> fmt::Result {
    let (light, _) = COLOURS[colour];
    let histogram = &series.histogram;
    let own_nines = (series.answers as f64).log10();
    let mut points = format!(
        "M{:.1} {:.1}",
        scale.x(0.0),
        scale.latencies.y(histogram.min() as f64)
    );
    for step in histogram.iter_quantiles(STEPS_PER_HALVING) {
        let rest = 1.0 - step.quantile_iterated_to();
        let nines = if rest > 0.0 {
            (-rest.log10()).min(own_nines)
        } else {
            own_nines
        };
        let y = scale.latencies.y(step.value_iterated_to() as f64);
        points.push_str(&format!("L{:.1} {y:.1}", scale.x(nines.max(0.0))));
    }
    writeln!(
        f,
        "<path class=\"curve c{colour}\" {CURVE} stroke=\"{light}\" d=\"{points}\"/>"
    )
}
