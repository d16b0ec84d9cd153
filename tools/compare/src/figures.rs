//! The measured figures, with median, spread and ratio.

use std::collections::BTreeMap;
use std::fmt;

use crate::server::LogLevel;

/// The load of a server during a measurement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Setting {
    /// The number of connections.
    pub connections: u32,
    /// The greatest number of commands in flight on each.
    pub depth: u32,
    /// The log level of the server.
    pub log: LogLevel,
}

impl Setting {
    /// So many connections with so many commands in flight. The server logs only warnings.
    #[must_use]
    pub const fn new(connections: u32, depth: u32) -> Setting {
        Setting {
            connections,
            depth,
            log: LogLevel::Warn,
        }
    }

    /// The same load with the default log: a line for each command and answer.
    #[must_use]
    pub const fn with_log(self) -> Setting {
        Setting {
            log: LogLevel::Info,
            ..self
        }
    }
}

/// The form that the page uses: `50 × 16`.
impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} × {}", self.connections, self.depth)
    }
}

/// The load of the headline, and of most targets and claims.
pub const HEADLINE: Setting = Setting::new(50, 16);
/// One command at a time.
pub const SINGLE: Setting = Setting::new(1, 1);
/// Many clients. Each waits for its answer.
pub const PATIENT: Setting = Setting::new(50, 1);

/// The metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Metric {
    /// Answers per second.
    Rate(Setting),
    /// The median latency in microseconds.
    P50(Setting),
    /// The latency's 99th percentile.
    P99(Setting),
    /// The latency's 99.9th percentile.
    P999(Setting),
    /// Microseconds of processor time per answer.
    Cpu(Setting),
    /// The part of the time in which the generator was busy. Near 1, the generator limited the
    /// rate.
    Generator(Setting),
    /// System calls per answer.
    Syscalls(Setting),
    /// User-mode instructions per answer.
    Instructions(Setting),
    /// Resident memory after the load of the headline.
    Memory,
    /// Bytes of resident memory per idle connection, which has sent one command.
    Idle,
    /// The median time until the other four servers have an update.
    FloodP50,
    /// The 99th percentile of that time.
    FloodP99,
    /// Updates per second that reach all five servers of a herd on one core.
    Converged,
    /// The time from SIGKILL of one of five servers until it runs again, is linked, and holds all
    /// records.
    Recovery,
    /// Lines of code.
    Lines,
}

impl Metric {
    /// Its name in JSON.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Metric::Rate(_) => "rate_per_s",
            Metric::P50(_) => "latency_p50_us",
            Metric::P99(_) => "latency_p99_us",
            Metric::P999(_) => "latency_p99_9_us",
            Metric::Cpu(_) => "cpu_us_per_answer",
            Metric::Generator(_) => "generator_share_of_core",
            Metric::Syscalls(_) => "syscalls_per_answer",
            Metric::Instructions(_) => "user_instructions_per_answer",
            Metric::Memory => "memory_bytes",
            Metric::Idle => "idle_connection_bytes",
            Metric::FloodP50 => "flood_p50_us",
            Metric::FloodP99 => "flood_p99_us",
            Metric::Converged => "converged_updates_per_s",
            Metric::Recovery => "recovery_ms",
            Metric::Lines => "lines_of_code",
        }
    }

    /// The load of the measurement, if it has one.
    #[must_use]
    pub fn setting(self) -> Option<Setting> {
        match self {
            Metric::Rate(setting)
            | Metric::P50(setting)
            | Metric::P99(setting)
            | Metric::P999(setting)
            | Metric::Cpu(setting)
            | Metric::Generator(setting)
            | Metric::Syscalls(setting)
            | Metric::Instructions(setting) => Some(setting),
            Metric::Memory
            | Metric::Idle
            | Metric::FloodP50
            | Metric::FloodP99
            | Metric::Converged
            | Metric::Recovery
            | Metric::Lines => None,
        }
    }
}

/// The values of repeated measurements.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sample {
    values: Vec<f64>,
}

impl Sample {
    /// A sample of these values. NaN and infinite values are left out.
    #[must_use]
    pub fn new(values: impl IntoIterator<Item = f64>) -> Sample {
        let mut values: Vec<f64> = values
            .into_iter()
            .filter(|value| value.is_finite())
            .collect();
        values.sort_by(f64::total_cmp);
        Sample { values }
    }

    /// The values in ascending order.
    #[must_use]
    pub fn values(&self) -> &[f64] {
        &self.values
    }

    fn push(&mut self, value: f64) {
        if value.is_finite() {
            let place = self.values.partition_point(|before| *before < value);
            self.values.insert(place, value);
        }
    }

    /// The value below which this part (0 to 1) of the values lies. Between two values it is
    /// interpolated.
    #[must_use]
    pub fn quantile(&self, part: f64) -> Option<f64> {
        let last = self.values.len().checked_sub(1)?;
        let place = part.clamp(0.0, 1.0) * last as f64;
        let (low, high) = (place.floor() as usize, place.ceil() as usize);
        let (below, above) = (self.values[low], self.values[high]);
        Some(below + (above - below) * (place - place.floor()))
    }

    /// The median.
    #[must_use]
    pub fn median(&self) -> Option<f64> {
        self.quantile(0.5)
    }

    /// The interquartile range as a part of the median. `None` for fewer than three values.
    #[must_use]
    pub fn spread(&self) -> Option<f64> {
        let median = self.median().filter(|median| *median != 0.0)?;
        if self.values.len() < 3 {
            return None;
        }
        Some((self.quantile(0.75)? - self.quantile(0.25)?) / median.abs())
    }
}

/// The result of a measurement.
#[derive(Clone, Debug, PartialEq)]
pub enum Figure {
    /// Values.
    Measured(Sample),
    /// No values, for this reason.
    Missing(String),
}

/// All figures.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    all: BTreeMap<(&'static str, Metric), Figure>,
}

impl Figures {
    /// Adds a value.
    pub fn push(&mut self, who: &'static str, metric: Metric, value: f64) {
        let figure = self.all.entry((who, metric));
        let figure = figure.or_insert_with(|| Figure::Measured(Sample::default()));
        match figure {
            Figure::Measured(sample) => sample.push(value),
            // An earlier attempt failed. That is noted elsewhere, and the later value counts.
            Figure::Missing(_) => *figure = Figure::Measured(Sample::new([value])),
        }
    }

    /// Notes why there is no value, unless there is one already.
    pub fn miss(&mut self, who: &'static str, metric: Metric, reason: &str) {
        let figure = self.all.entry((who, metric));
        figure.or_insert_with(|| Figure::Missing(reason.to_owned()));
    }

    /// The result, if the measurement was tried.
    #[must_use]
    pub fn get(&self, who: &str, metric: Metric) -> Option<&Figure> {
        // The keys have static names, and `who` has a shorter lifetime. So `get` cannot be used.
        let found = self
            .all
            .iter()
            .find(|((name, of), _)| *name == who && *of == metric);
        found.map(|(_, figure)| figure)
    }

    /// The values, if there are any.
    #[must_use]
    pub fn sample(&self, who: &str, metric: Metric) -> Option<&Sample> {
        match self.get(who, metric)? {
            Figure::Measured(sample) => Some(sample),
            Figure::Missing(_) => None,
        }
    }

    /// The median, if it was measured.
    #[must_use]
    pub fn median(&self, who: &str, metric: Metric) -> Option<f64> {
        self.sample(who, metric)?.median()
    }

    /// The median of `who` divided by the median of `other`.
    #[must_use]
    pub fn ratio(&self, who: &str, other: &str, metric: Metric) -> Option<f64> {
        let below = self.median(other, metric).filter(|below| *below != 0.0)?;
        Some(self.median(who, metric)? / below)
    }

    /// All figures, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, Metric, &Figure)> {
        self.all
            .iter()
            .map(|((who, metric), figure)| (*who, *metric, figure))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn median_and_quartiles_are_computed() {
        let sample = Sample::new([4.0, 1.0, 3.0, 2.0, 5.0]);
        assert_eq!(sample.median(), Some(3.0));
        assert_eq!(sample.quantile(0.25), Some(2.0));
        assert_eq!(sample.quantile(0.75), Some(4.0));
        assert_eq!(Sample::new([1.0, 2.0]).median(), Some(1.5));
        assert_eq!(Sample::new([7.0]).median(), Some(7.0));
        assert_eq!(Sample::new([]).median(), None);
        assert_eq!(Sample::new([f64::NAN, 1.0]).median(), Some(1.0));
    }

    #[test]
    fn spread_is_the_interquartile_range_over_the_median() {
        let spread = Sample::new([90.0, 100.0, 110.0]).spread().unwrap();
        assert!((spread - 0.1).abs() < 1e-9, "{spread}");
        assert_eq!(Sample::new([1.0, 2.0]).spread(), None, "too few");
        assert_eq!(Sample::new([0.0, 0.0, 0.0]).spread(), None);
    }

    #[test]
    fn figures_are_collected_and_compared() {
        let mut figures = Figures::default();
        let rate = Metric::Rate(HEADLINE);
        for value in [300.0, 100.0, 200.0] {
            figures.push("mio", rate, value);
        }
        figures.push("go", rate, 100.0);
        figures.miss("node", rate, "no node");
        figures.miss("go", rate, "failed once");
        assert_eq!(figures.median("mio", rate), Some(200.0));
        assert_eq!(figures.ratio("mio", "go", rate), Some(2.0));
        assert_eq!(figures.ratio("mio", "node", rate), None);
        assert_eq!(
            figures.get("node", rate),
            Some(&Figure::Missing("no node".into()))
        );
        assert_eq!(
            figures.median("mio", Metric::Rate(HEADLINE.with_log())),
            None
        );
        figures.push("node", rate, 5.0);
        assert_eq!(
            figures.median("node", rate),
            Some(5.0),
            "a later attempt counts"
        );
    }
}
