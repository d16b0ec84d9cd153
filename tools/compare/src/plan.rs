//! What is measured, how often and for how long.

use std::time::Duration;

use crate::figures::{HEADLINE, PATIENT, SINGLE, Setting};
use crate::generator::Span;

/// The plan of a whole comparison.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The loads, the headline's first.
    pub settings: Vec<Setting>,
    /// The loads under which system calls and instructions are counted.
    pub counted: Vec<Setting>,
    /// How often each is measured; the worlds take turns.
    pub rounds: u32,
    /// For how long, each time.
    pub span: Span,
    /// Compilers at run time need to see some load before they compile: so long, once, before anything is measured.
    pub settling: Duration,
    /// Worlds that are also measured with the log as shipped; none is all.
    pub logged: Option<&'static [&'static str]>,
    /// How many connections fall silent.
    pub idle_connections: u32,
    /// How often silence, floods, convergence and recovery are measured.
    pub herd_rounds: u32,
    /// Whether it is the short one.
    pub is_quick: bool,
}

/// The worlds whose cost of logging is always asked for.
const LOGGED: &[&str] = &["mio", "streams", "protocols", "uvloop"];
/// A process of the generator comes and goes, and its connections are made.
const COMING_AND_GOING: Duration = Duration::from_millis(60);
/// Until five servers are up and linked, and down again, on the average of the worlds.
const HERD_UP: Duration = Duration::from_millis(1800);
/// A herd is loaded twice as long as a server, unless that is longer than this anyway.
const LONG_ENOUGH: Duration = Duration::from_millis(500);
/// Until one server is up.
const SERVER_UP: Duration = Duration::from_millis(350);

impl Plan {
    /// Everything, long enough to be believed on a quiet machine.
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

    /// Half of the loads, and shorter: a first look, in less than three minutes once everything is built.
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

    /// Whether that world is measured with its log as well.
    #[must_use]
    pub fn is_logged(&self, world: &str) -> bool {
        self.logged.is_none_or(|worlds| worlds.contains(&world))
    }

    /// The two lengths of the runs in which something is counted: what differs between them is what answers cost.
    #[must_use]
    pub fn counted_spans(&self) -> [Span; 2] {
        let of = |duration| Span {
            duration,
            warm_up: Duration::ZERO,
        };
        [of(self.span.duration / 8), of(self.span.duration)]
    }

    /// How long one run takes.
    #[must_use]
    pub fn one_run(&self) -> Duration {
        self.span.duration + self.span.warm_up + COMING_AND_GOING
    }

    /// How long both runs take in which something is counted.
    #[must_use]
    pub fn one_count(&self) -> Duration {
        let spans = self.counted_spans();
        spans
            .iter()
            .map(|span| span.duration + 2 * COMING_AND_GOING)
            .sum()
    }

    /// How long it takes to learn what silence costs.
    #[must_use]
    pub fn one_silence(&self) -> Duration {
        SERVER_UP
            + 2 * self.silence_span().duration
            + Duration::from_micros(50) * self.idle_connections
    }

    /// It is the memory that counts there, not the latency.
    #[must_use]
    pub fn silence_span(&self) -> Span {
        Span {
            duration: Duration::from_millis(50),
            warm_up: Duration::ZERO,
        }
    }

    /// For how long a herd is loaded: long enough that the last updates' way does not count for more than it should.
    #[must_use]
    pub fn convergence(&self) -> Duration {
        self.span
            .duration
            .max(2 * self.span.duration.min(LONG_ENOUGH))
    }

    /// How long a herd of five takes: up, flood, load, recovery.
    #[must_use]
    pub fn one_herd(&self) -> Duration {
        HERD_UP + self.span.duration + 3 * self.convergence() + SERVER_UP
    }

    /// How long all of it takes with so many worlds, so many of them with their log too.
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
    fn the_quick_one_is_quick() {
        assert!(Plan::quick().estimate(9, 4) < Duration::from_secs(180));
        assert!(Plan::full().estimate(9, 9) > 4 * Plan::quick().estimate(9, 4));
    }

    #[test]
    fn the_headline_comes_first() {
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
