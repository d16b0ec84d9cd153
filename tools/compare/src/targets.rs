//! The targets of this project, beside the measured figures.

use crate::figures::{Figures, HEADLINE, Metric, PATIENT, SINGLE};
use crate::redis::REDIS;

/// The value to reach.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Goal {
    /// At least this value.
    AtLeast(f64),
    /// At most this value.
    AtMost(f64),
    /// At most this value, after rounding to one decimal.
    About(f64),
}

/// The unit of a figure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// A ratio to another figure.
    Times,
    /// System calls.
    Syscalls,
    /// Instructions.
    Instructions,
    /// Bytes.
    Bytes,
}

/// A target and its measured value.
#[derive(Clone, Debug, PartialEq)]
pub struct Target {
    /// The subject.
    pub what: &'static str,
    /// The value to reach.
    pub goal: Goal,
    /// The unit of the value.
    pub unit: Unit,
    /// The measured value. `None` if it was not measured.
    pub measured: Option<f64>,
}

impl Target {
    /// Whether the target is reached. `None` if it was not measured.
    #[must_use]
    pub fn is_met(&self) -> Option<bool> {
        let measured = self.measured?;
        Some(match self.goal {
            Goal::AtLeast(least) => measured >= least,
            Goal::AtMost(most) => measured <= most,
            Goal::About(about) => measured < about + 0.05,
        })
    }
}

/// All targets.
#[must_use]
pub fn targets(figures: &Figures) -> Vec<Target> {
    let rate = Metric::Rate(HEADLINE);
    let logged = Metric::Rate(HEADLINE.with_log());
    let times = |what, least, measured| Target {
        what,
        goal: Goal::AtLeast(least),
        unit: Unit::Times,
        measured,
    };
    let own = |metric| figures.median("mio", metric);
    let syscalls = |what, goal, measured| Target {
        what,
        goal,
        unit: Unit::Syscalls,
        measured,
    };
    let log_off = own(rate).filter(|rate| *rate > 0.0);
    let by_log = own(Metric::Syscalls(HEADLINE.with_log()))
        .zip(own(Metric::Syscalls(HEADLINE)))
        .map(|(with, without)| with - without);
    vec![
        times(
            "Throughput at 50 × 16, log off, against tokio",
            1.5,
            figures.ratio("mio", "tokio", rate),
        ),
        times(
            "… against asyncio streams",
            15.0,
            figures.ratio("mio", "streams", rate),
        ),
        times(
            "… against asyncio on uvloop",
            6.0,
            figures.ratio("mio", "uvloop", rate),
        ),
        times(
            "… against Redis GEOADD",
            4.0,
            figures.ratio("mio", REDIS, rate),
        ),
        times(
            "Throughput with the default log, against asyncio streams with theirs",
            10.0,
            figures.ratio("mio", "streams", logged),
        ),
        times(
            "Throughput with the default log, against herd-mio without",
            0.5,
            own(logged)
                .zip(log_off)
                .map(|(with, without)| with / without),
        ),
        Target {
            what: "User instructions per IAMAT at 50 × 16",
            goal: Goal::AtMost(2500.0),
            unit: Unit::Instructions,
            measured: own(Metric::Instructions(HEADLINE)),
        },
        syscalls(
            "System calls per IAMAT at 1 × 1",
            Goal::About(3.0),
            own(Metric::Syscalls(SINGLE)),
        ),
        syscalls(
            "… at 50 × 1",
            Goal::AtMost(2.1),
            own(Metric::Syscalls(PATIENT)),
        ),
        syscalls(
            "… at 50 × 16",
            Goal::AtMost(0.15),
            own(Metric::Syscalls(HEADLINE)),
        ),
        syscalls("… added by the log at 50 × 16", Goal::AtMost(0.01), by_log),
        times(
            "Converged updates of five servers on one core, against tokio",
            1.7,
            figures.ratio("mio", "tokio", Metric::Converged),
        ),
        Target {
            what: "Resident memory of an idle client that has sent one command",
            goal: Goal::AtMost(150.0),
            unit: Unit::Bytes,
            measured: own(Metric::Idle),
        },
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_met_missed_or_not_measured() {
        let mut figures = Figures::default();
        let rate = Metric::Rate(HEADLINE);
        figures.push("mio", rate, 300.0);
        figures.push("tokio", rate, 100.0);
        figures.push("streams", rate, 100.0);
        figures.push("mio", Metric::Syscalls(SINGLE), 3.04);
        figures.push("mio", Metric::Syscalls(HEADLINE), 0.1);
        figures.push("mio", Metric::Syscalls(HEADLINE.with_log()), 0.12);
        let all = targets(&figures);
        let of = |end: &str| {
            all.iter()
                .find(|target| target.what.ends_with(end))
                .unwrap()
        };
        assert_eq!(
            (
                of("log off, against tokio").measured,
                of("log off, against tokio").is_met()
            ),
            (Some(3.0), Some(true))
        );
        assert_eq!(of("… against asyncio streams").is_met(), Some(false));
        assert_eq!(of("uvloop").is_met(), None);
        assert_eq!(of("at 1 × 1").is_met(), Some(true));
        assert_eq!(of("added by the log at 50 × 16").is_met(), Some(false));
        assert_eq!(of("has sent one command").is_met(), None);
    }
}
