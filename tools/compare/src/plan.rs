//! The plan: what is measured, how often and for how long.

use std::time::Duration;

use crate::figures::{HEADLINE, PATIENT, SINGLE, Setting};
use crate::generator::Span;

/// The plan of a whole comparison.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The loads. The load of the headline is the first.
    pub settings: Vec<Setting>,
    /// The loads under which system calls and instructions are counted.
    pub counted: Vec<Setting>,
    /// The number of measurements of each load. The worlds take turns.
    pub rounds: u32,
    /// The time of each measurement.
    pub span: Span,
    /// The time of a load before all measurements, once for each server. Just-in-time compilers
    /// need some load before they compile.
    pub settling: Duration,
    /// The worlds that are also measured with the default log. `None` stands for all.
    pub logged: Option<&'static [&'static str]>,
    /// The number of idle connections.
    pub idle_connections: u32,
    /// The number of measurements of idle connections, floods, convergence and recovery.
    pub herd_rounds: u32,
    /// Whether this is the short plan.
    pub is_quick: bool,
}

/// The worlds that are measured with their log in the short plan too.
const LOGGED: &[&str] = &["mio", "streams", "protocols", "uvloop"];
/// The time to start and end a generator's process, and to make its connections.
const COMING_AND_GOING: Duration = Duration::from_millis(60);
/// The time to start, link and stop five servers, averaged over the worlds.
const HERD_UP: Duration = Duration::from_millis(1800);
/// A herd's load of less than twice this time is doubled, up to twice this time.
const LONG_ENOUGH: Duration = Duration::from_millis(500);
/// The time to start one server.
const SERVER_UP: Duration = Duration::from_millis(350);

impl Plan {
    /// The full plan. It is long enough for reliable figures on a quiet machine.
    #[must_use]
    pub fn full() -> Plan {
        Plan {
            settings: vec![
                HEADLINE,
                SINGLE,
                PATIENT,
                Setting::new(500, 16),
                Setting::new(1, 16),
                Setting::new(500, 1),
            ],
            counted: vec![HEADLINE, SINGLE, PATIENT],
            rounds: 5,
            span: Span {
                duration: Duration::from_millis(2000),
                warm_up: Duration::from_millis(400),
            },
            settling: Duration::from_millis(3000),
            logged: None,
            idle_connections: 5000,
            herd_rounds: 3,
            is_quick: false,
        }
    }

    /// Half of the loads, and shorter: a first look, in less than three minutes after the builds.
    #[must_use]
    pub fn quick() -> Plan {
        Plan {
            settings: vec![HEADLINE, SINGLE, PATIENT],
            counted: vec![HEADLINE, SINGLE, PATIENT],
            rounds: 3,
            span: Span {
                duration: Duration::from_millis(300),
                warm_up: Duration::from_millis(100),
            },
            settling: Duration::from_millis(500),
            logged: Some(LOGGED),
            idle_connections: 1000,
            herd_rounds: 1,
            is_quick: true,
        }
    }

    /// Whether this world is measured with its log too.
    #[must_use]
    pub fn is_logged(&self, world: &str) -> bool {
        self.logged.is_none_or(|worlds| worlds.contains(&world))
    }

    /// The two lengths of counted runs. The difference between them is the cost of the answers.
    #[must_use]
    pub fn counted_spans(&self) -> [Span; 2] {
        let of = |duration| Span {
            duration,
            warm_up: Duration::ZERO,
        };
        [of(self.span.duration / 8), of(self.span.duration)]
    }

    /// The time of one run.
    #[must_use]
    pub fn one_run(&self) -> Duration {
        self.span.duration + self.span.warm_up + COMING_AND_GOING
    }

    /// The time of a pair of counted runs.
    #[must_use]
    pub fn one_count(&self) -> Duration {
        let spans = self.counted_spans();
        spans
            .iter()
            .map(|span| span.duration + 2 * COMING_AND_GOING)
            .sum()
    }

    /// The time to measure idle connections.
    #[must_use]
    pub fn one_silence(&self) -> Duration {
        SERVER_UP
            + 2 * self.silence_span().duration
            + Duration::from_micros(50) * self.idle_connections
    }

    /// The short span of that measurement: only the memory counts, not the latency.
    #[must_use]
    pub fn silence_span(&self) -> Span {
        Span {
            duration: Duration::from_millis(50),
            warm_up: Duration::ZERO,
        }
    }

    /// The time of a herd's load. It is long enough that the spread of the last updates does not
    /// count too much.
    #[must_use]
    pub fn convergence(&self) -> Duration {
        self.span
            .duration
            .max(2 * self.span.duration.min(LONG_ENOUGH))
    }

    /// The time for a herd of five: start, flood, load, recovery.
    #[must_use]
    pub fn one_herd(&self) -> Duration {
        HERD_UP + self.span.duration + 3 * self.convergence() + SERVER_UP
    }

    /// The time of a whole comparison with so many worlds. `logged` of them are measured with their
    /// log too.
    #[must_use]
    pub fn estimate(&self, worlds: u32, logged: u32) -> Duration {
        let fielded = worlds + logged;
        let runs =
            self.rounds * (worlds * u32::try_from(self.settings.len()).unwrap_or(1) + logged);
        let counts = worlds * u32::try_from(self.counted.len()).unwrap_or(1) + logged;
        fielded * (SERVER_UP + self.settling)
            + runs * self.one_run()
            + counts * self.one_count()
            + worlds * self.herd_rounds * (self.one_silence() + self.one_herd())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_quick_plan_takes_less_than_three_minutes() {
        assert!(Plan::quick().estimate(9, 4) < Duration::from_secs(180));
        assert!(Plan::full().estimate(9, 9) > 4 * Plan::quick().estimate(9, 4));
    }

    #[test]
    fn the_headline_setting_comes_first() {
        for plan in [Plan::quick(), Plan::full()] {
            assert_eq!(plan.settings[0], HEADLINE);
            assert!(
                plan.counted
                    .iter()
                    .all(|setting| plan.settings.contains(setting))
            );
            let [short, long] = plan.counted_spans();
            assert!(short.duration < long.duration);
        }
    }
}
