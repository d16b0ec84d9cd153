//! The answers per second and their latencies, over the time of the run. The latencies have a gap
//! where no answer came. The page is shaded where connections were missing.

use std::fmt;

use crate::report::{OverTime, Point, Report};
use crate::svg::{
    AXIS, COLOURS, CURVE, FONT, GRID, LEFT, Latencies, NOTE, OUTAGE, RIGHT, TEXT, WIDTH, grid_line,
    legend, step_above, upwards,
};

/// Its height in the picture.
pub(crate) const HEIGHT: f64 = 440.0;
/// The top and the bottom of its two parts.
const RATES: [f64; 2] = [40.0, 150.0];
const LATENCIES: [f64; 2] = [196.0, 380.0];
/// The last interval's rate is shown only if at least this part of the interval has passed.
const LEAST_PART: f64 = 0.25;
/// The approximate number of marks on the time axis.
const MARKS: f64 = 10.0;

/// The position of a time in the picture.
struct Times {
    end_s: f64,
}

impl Times {
    fn x(&self, at_s: f64) -> f64 {
        let part = at_s.clamp(0.0, self.end_s) / self.end_s;
        LEFT + (WIDTH - LEFT - RIGHT) * part
    }

    /// The marked times: multiples of 1, 2 or 5 times a power of ten.
    fn marks_s(&self) -> Vec<f64> {
        let step_s = 10f64.powf(step_above((self.end_s / MARKS).log10()));
        let count = (self.end_s / step_s + 1e-9).floor() as u32; // at most ten
        (0..=count)
            .map(|number| f64::from(number) * step_s)
            .collect()
    }
}

/// Draws it below `top`.
pub(crate) fn draw(
    f: &mut fmt::Formatter<'_>,
    top: f64,
    report: &Report,
    over_time: &OverTime,
) -> fmt::Result {
    let ends_s = report.outages.iter().map(|it| it.from_s + it.duration_s);
    let longest_s = ends_s.fold(report.duration_s.max(over_time.until_s), f64::max);
    let times = Times {
        end_s: longest_s.max(1e-3),
    };
    let [rates, latencies] = [RATES, LATENCIES].map(|heights| heights.map(|y| top + y));
    outages(f, &times, report, rates[0], latencies[1])?;
    grid(f, &times, &[rates, latencies])?;
    draw_rates(f, &times, over_time, rates)?;
    draw_latencies(f, &times, over_time, latencies)
}

fn grid(f: &mut fmt::Formatter<'_>, times: &Times, parts: &[[f64; 2]]) -> fmt::Result {
    let right = WIDTH - RIGHT;
    for [top, bottom] in parts {
        for at_s in times.marks_s() {
            let x = times.x(at_s);
            writeln!(
                f,
                "<line class=\"grid\" stroke=\"{GRID}\" x1=\"{x:.1}\" y1=\"{top}\" x2=\"{x:.1}\" y2=\"{bottom}\"/>\
                 <text {FONT} fill=\"{TEXT}\" text-anchor=\"middle\" x=\"{x:.1}\" y=\"{:.1}\">{}</text>",
                bottom + 18.0,
                seconds(at_s)
            )?;
        }
        writeln!(
            f,
            "<path class=\"axis\" stroke=\"{AXIS}\" fill=\"none\" d=\"M{LEFT} {top}V{bottom}H{right}\"/>"
        )?;
    }
    let Some([_, bottom]) = parts.last() else {
        return Ok(());
    };
    writeln!(
        f,
        "<text class=\"note\" {FONT} fill=\"{NOTE}\" text-anchor=\"middle\" x=\"{:.1}\" y=\"{:.1}\">seconds since the end of the warm-up; an answer counts at its arrival</text>",
        f64::midpoint(LEFT, right),
        bottom + 40.0
    )
}

fn outages(
    f: &mut fmt::Formatter<'_>,
    times: &Times,
    report: &Report,
    top: f64,
    bottom: f64,
) -> fmt::Result {
    for outage in &report.outages {
        let [from, to] = [outage.from_s, outage.from_s + outage.duration_s].map(|s| times.x(s));
        if outage.from_s + outage.duration_s <= 0.0 {
            continue; // in the warm-up
        }
        // Even a very short outage has to be visible.
        let width = (to - from).max(1.5);
        let what = if outage.disconnected_s > 0.0 {
            "no connection"
        } else {
            "connections missing"
        };
        writeln!(
            f,
            "<rect class=\"outage\" {OUTAGE} x=\"{from:.1}\" y=\"{top}\" width=\"{width:.1}\" height=\"{:.1}\"><title>{what}: up to {} missing, from {:.2} s for {:.2} s</title></rect>",
            bottom - top,
            outage.connections,
            outage.from_s,
            outage.duration_s
        )?;
    }
    if report.outages.is_empty() {
        return Ok(());
    }
    writeln!(
        f,
        "<rect class=\"outage\" {OUTAGE} x=\"{:.1}\" y=\"{:.1}\" width=\"18\" height=\"10\"/>\
         <text {FONT} fill=\"{TEXT}\" x=\"{:.1}\" y=\"{:.1}\">connections missing: {}</text>",
        WIDTH - RIGHT - 210.0,
        top - 18.0,
        WIDTH - RIGHT - 186.0,
        top - 9.0,
        match report.outages.len() {
            1 => "once".to_owned(),
            times => format!("{times} times"),
        }
    )
}

fn draw_rates(
    f: &mut fmt::Formatter<'_>,
    times: &Times,
    over_time: &OverTime,
    [top, bottom]: [f64; 2],
) -> fmt::Result {
    let rates: Vec<Option<f64>> = over_time
        .points
        .iter()
        .map(|point| {
            let length_s = length_s(over_time, point);
            let is_shown = length_s >= over_time.interval_s * LEAST_PART;
            is_shown.then(|| point.answers as f64 / length_s)
        })
        .collect();
    let most = rates
        .iter()
        .flatten()
        .fold(1.0, |most: f64, rate| most.max(*rate));
    let high = 10f64.powf(step_above(most.log10()));
    let y = |rate: f64| bottom - (bottom - top) * rate / high;
    for part in [0.0, 0.5, 1.0] {
        grid_line(f, y(high * part), &short(high * part))?;
    }
    upwards(f, "answers per second", top, bottom)?;
    steps(f, times, over_time, 0, rates.iter().map(|rate| rate.map(y)))
}

fn draw_latencies(
    f: &mut fmt::Formatter<'_>,
    times: &Times,
    over_time: &OverTime,
    [top, bottom]: [f64; 2],
) -> fmt::Result {
    type Latency = fn(&Point) -> Option<f64>;
    let lines: [(&str, Latency); 3] = [
        ("p50", |point| point.p50_us),
        ("p99", |point| point.p99_us),
        ("max", |point| point.max_us),
    ];
    let points = over_time.points.iter();
    let all: Vec<f64> = points
        .flat_map(|it| [it.p50_us, it.max_us])
        .flatten()
        .collect();
    let (least_us, most_us) = match all[..] {
        [] => (1.0, 1.0),
        [..] => (
            all.iter().copied().fold(f64::MAX, f64::min),
            all.iter().copied().fold(0.0, f64::max),
        ),
    };
    let scale = Latencies::from_to(least_us * 1e3, most_us * 1e3, top, bottom);
    scale.grid(f)?;
    legend(f, LEFT, top - 14.0, lines.iter().map(|(name, _)| *name))?;
    // The slower ones are drawn first, so that they do not hide the faster ones.
    for (colour, (_, latency)) in lines.iter().enumerate().rev() {
        let heights = over_time.points.iter();
        let heights = heights.map(|point| latency(point).map(|us| scale.y(us * 1e3)));
        steps(f, times, over_time, colour, heights)?;
    }
    Ok(())
}

/// One step for each interval with a height, and a gap for one without.
fn steps(
    f: &mut fmt::Formatter<'_>,
    times: &Times,
    over_time: &OverTime,
    colour: usize,
    heights: impl Iterator<Item = Option<f64>>,
) -> fmt::Result {
    let (light, _) = COLOURS[colour % COLOURS.len()];
    let mut points = String::new();
    let mut is_begun = false;
    for (point, height) in over_time.points.iter().zip(heights) {
        let Some(y) = height else {
            is_begun = false;
            continue;
        };
        // The rest of an interval at the end of the run is a dot, not a drop to zero.
        let length_s = length_s(over_time, point);
        if is_begun && length_s >= over_time.interval_s * LEAST_PART {
            points.push_str(&format!("V{y:.1}"));
        } else {
            points.push_str(&format!("M{:.1} {y:.1}", times.x(point.at_s)));
        }
        is_begun = true;
        // Wide enough to be visible.
        let to = times.x(point.at_s + length_s);
        points.push_str(&format!("H{:.1}", to.max(times.x(point.at_s) + 1.0)));
    }
    if points.is_empty() {
        return Ok(());
    }
    writeln!(
        f,
        "<path class=\"curve c{colour}\" {CURVE} stroke=\"{light}\" d=\"{points}\"/>"
    )
}

/// The length of the part of its interval before the end of the run.
fn length_s(over_time: &OverTime, point: &Point) -> f64 {
    let left_s = over_time.until_s - point.at_s;
    over_time.interval_s.min(left_s.max(0.0))
}

/// A marked time.
fn seconds(at_s: f64) -> String {
    let text = format!("{at_s:.3}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    format!("{text} s")
}

/// A marked rate: 1, 2 or 5 times a power of ten, or half of that.
fn short(rate: f64) -> String {
    let (value, unit) = match rate {
        rate if rate >= 1e6 => (rate / 1e6, " M"),
        rate if rate >= 1e3 => (rate / 1e3, " k"),
        rate => (rate, ""),
    };
    let text = format!("{value:.1}");
    format!("{}{unit}", text.trim_end_matches('0').trim_end_matches('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axis_marks_are_round_numbers() {
        for (end_s, expected) in [
            (
                10.0,
                "0 s, 1 s, 2 s, 3 s, 4 s, 5 s, 6 s, 7 s, 8 s, 9 s, 10 s",
            ),
            (
                0.2,
                "0 s, 0.02 s, 0.04 s, 0.06 s, 0.08 s, 0.1 s, 0.12 s, 0.14 s, 0.16 s, 0.18 s, 0.2 s",
            ),
            (37.0, "0 s, 5 s, 10 s, 15 s, 20 s, 25 s, 30 s, 35 s"),
        ] {
            let marks: Vec<String> = Times { end_s }.marks_s().into_iter().map(seconds).collect();
            assert_eq!(marks.join(", "), expected);
        }
        let rates: Vec<String> = [0.0, 0.5, 25.0, 500.0, 2500.0, 5e4, 2e6].map(short).into();
        assert_eq!(rates, ["0", "0.5", "25", "500", "2.5 k", "50 k", "2 M"]);
    }
}
