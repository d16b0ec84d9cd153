//! The report, as one JSON object. [`table`](crate::table) prints it as text, and
//! [`picture`](crate::picture) draws it.
//!
//! | field | meaning |
//! |---|---|
//! | `program`, `version`, `mode` | `herd-load`, its version, the subcommand |
//! | `server` | its `name` and `address` |
//! | `parameters` | the value of every option; those of other modes are left out, and one that was not given is `null` |
//! | `interrupted` | a signal ended the run, and the figures are those until then |
//! | `duration_s` | the length of the measurement, without the warm-up |
//! | `answers` | the number of correct answers (a wrong one ends the program, with status 1 and no JSON); for a flood, the number of rounds |
//! | `rate_per_s` | `answers` / `duration_s` |
//! | `errors`, `first_error` | the number of answers with an error of Places, and the message of the first |
//! | `lost`, `oldest_lost_ms` | the number of commands in flight on lost connections, and the longest wait of one (`null` without any); the latencies do not contain them |
//! | `unanswered`, `oldest_unanswered_ms` | the same for commands that were sent and had no answer at the end |
//! | `unsent`, `oldest_unsent_ms` | open loop: the number of commands that were due but not sent, because the server was too slow or down, and the wait of the oldest at the end |
//! | `connections_lost`, `connections_remade` | the numbers of connections that were lost, and made again; like `lost` and `outages` these include the warm-up |
//! | `disconnected_s` | the time without any connection |
//! | `outages` | each time in which a connection was missing: `from_s` (since the end of the warm-up), `duration_s`, `is_over` (it ended before the run), `connections` (greatest number of missing ones), `disconnected_s` (without any connection) |
//! | `trouble` | the reason for an early end or for missing connections, as text; `null` if there is none |
//! | `latency_us` | of all answers: `count`, `min`, `mean`, `p50`, `p90`, `p99`, `p99_9`, `p99_99`, `max`, in microseconds; `null` without answers |
//! | `series` | the same in parts: `name`, `answers`, `rate_per_s`, `errors`, `latency_us` |
//! | `over_time` | the same by the time of the answers: `interval_s`, `until_s` (the end of the run), and `points`, one for each interval since the end of the warm-up: `at_s` (the start of the interval), `answers`, `p50_us`, `p99_us`, `max_us` (`null` without answers) |
//! | `processes` | for each `--pid`: `pid`, `ended` (it ended during the measurement, so its usage is unknown), `user_ms` and `system_ms` of processor time during the measurement, `cpu_us_per_answer`, `rss_before_bytes` (before the first connection), `rss_after_bytes` (after the last answer) |
//! | `generator` | the same for herd-load itself; if it used nearly one core, it limited the rate |
//! | `flood` | `polls`; `asked_places`: whether servers asked Places, whose time is then in the figures; `since_sent_us`: the same rounds, from the sending of the IAMAT; `resolution_us`: the time between a server's last refusal and its first answer with the update |
//! | `idle` | for each `--pid`: `pid`, `rss_before_bytes`, `rss_after_bytes`, `bytes_per_connection` |

use hdrhistogram::Histogram;
use herd_testkit::failure::Failure;
use serde::Serialize;

use crate::outages::Missing;
use crate::process::Usage;
use crate::timeline::{self, Timeline};
use crate::units::time;

/// The result of a run.
#[derive(Serialize)]
pub(crate) struct Report {
    pub(crate) program: &'static str,
    pub(crate) version: &'static str,
    pub(crate) mode: &'static str,
    pub(crate) server: Server,
    pub(crate) parameters: Parameters,
    pub(crate) interrupted: bool,
    pub(crate) duration_s: f64,
    pub(crate) answers: u64,
    pub(crate) rate_per_s: f64,
    pub(crate) errors: u64,
    pub(crate) first_error: Option<String>,
    pub(crate) lost: u64,
    pub(crate) oldest_lost_ms: Option<f64>,
    pub(crate) unanswered: u64,
    pub(crate) oldest_unanswered_ms: Option<f64>,
    pub(crate) unsent: u64,
    pub(crate) oldest_unsent_ms: Option<f64>,
    pub(crate) connections_lost: u64,
    pub(crate) connections_remade: u64,
    pub(crate) disconnected_s: f64,
    pub(crate) outages: Vec<Outage>,
    pub(crate) trouble: Option<String>,
    pub(crate) latency_us: Option<Latency>,
    pub(crate) series: Vec<Series>,
    pub(crate) over_time: Option<OverTime>,
    pub(crate) processes: Vec<Work>,
    pub(crate) generator: Work,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) flood: Option<Flood>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) idle: Option<Vec<IdleMemory>>,
}

/// The measured server.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Server {
    pub(crate) name: String,
    pub(crate) address: String,
}

/// A time in which at least one connection was missing.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Outage {
    pub(crate) from_s: f64,
    pub(crate) duration_s: f64,
    pub(crate) is_over: bool,
    pub(crate) connections: usize,
    pub(crate) disconnected_s: f64,
}

/// Answers by their time.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct OverTime {
    pub(crate) interval_s: f64,
    pub(crate) until_s: f64,
    pub(crate) points: Vec<Point>,
}

/// The answers of one interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Point {
    pub(crate) at_s: f64,
    pub(crate) answers: u64,
    pub(crate) p50_us: Option<f64>,
    pub(crate) p99_us: Option<f64>,
    pub(crate) max_us: Option<f64>,
}

impl OverTime {
    pub(crate) fn of(timeline: &Timeline) -> OverTime {
        let interval_ns = timeline.interval_ns();
        let point = |(number, point): (u64, &timeline::Point)| {
            let us = |ns: u64| (point.answers > 0).then_some(ns as f64 / 1000.0);
            Point {
                at_s: seconds(number * interval_ns),
                answers: point.answers,
                p50_us: us(point.p50_ns),
                p99_us: us(point.p99_ns),
                max_us: us(point.max_ns),
            }
        };
        OverTime {
            interval_s: seconds(interval_ns),
            until_s: seconds(timeline.until_ns()),
            points: (0..).zip(timeline.points()).map(point).collect(),
        }
    }
}

/// Nanoseconds as seconds, to the microsecond.
pub(crate) fn seconds(ns: u64) -> f64 {
    (ns as f64 / 1000.0).round() / 1e6
}

/// The wait of the oldest missing command.
pub(crate) fn oldest_ms(missing: Missing) -> Option<f64> {
    (missing.count > 0).then(|| (missing.oldest_ns as f64 / 1000.0).round() / 1000.0)
}

/// The options, including defaults.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Parameters {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) connections: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) depth: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) stop_on_loss: Option<bool>,
    /// Whether the connections use TLS.
    pub(crate) tls: bool,
    /// `null` in a closed loop.
    pub(crate) rate_per_s: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) clients: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) whatsat_percent: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) radius_km: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) bound: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) speak: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) poll_interval_us: Option<u64>,
    pub(crate) duration_s: f64,
    pub(crate) count: Option<u64>,
    pub(crate) warm_up_s: f64,
    pub(crate) timeout_s: f64,
    pub(crate) clock_tolerance_ms: f64,
    pub(crate) prefix: String,
    pub(crate) spin: bool,
}

/// One kind of answers, or one server's.
#[derive(Serialize)]
pub(crate) struct Series {
    pub(crate) name: String,
    pub(crate) answers: u64,
    pub(crate) rate_per_s: f64,
    pub(crate) errors: u64,
    pub(crate) latency_us: Option<Latency>,
    /// The longest wait of a command without an answer, if it is longer than the slowest answer.
    #[serde(skip)]
    pub(crate) waited_us: f64,
    /// The data for the curve.
    #[serde(skip)]
    pub(crate) histogram: Histogram<u64>,
}

impl Series {
    /// Answers that came within `duration_s`.
    pub(crate) fn new(
        name: impl Into<String>,
        histogram: Histogram<u64>,
        duration_s: f64,
        errors: u64,
    ) -> Series {
        let answers = histogram.len();
        Series {
            name: name.into(),
            answers,
            rate_per_s: rate(answers, duration_s),
            errors,
            latency_us: Latency::of(&histogram),
            waited_us: 0.0,
            histogram,
        }
    }

    /// The same series, with the longest wait of its commands without an answer.
    pub(crate) fn beside(self, missing: Missing) -> Series {
        Series {
            waited_us: missing.oldest_ns as f64 / 1000.0,
            ..self
        }
    }
}

/// `1 command`, `2 commands`.
pub(crate) fn counted(count: u64, what: &str) -> String {
    match count {
        1 => format!("1 {what}"),
        _ => format!("{count} {what}s"),
    }
}

/// Answers per second. Zero if the duration is zero.
pub(crate) fn rate(answers: u64, duration_s: f64) -> f64 {
    if duration_s > 0.0 {
        (answers as f64 / duration_s * 1000.0).round() / 1000.0
    } else {
        0.0
    }
}

/// A distribution of latencies, in microseconds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Latency {
    pub(crate) count: u64,
    pub(crate) min: f64,
    pub(crate) mean: f64,
    pub(crate) p50: f64,
    pub(crate) p90: f64,
    pub(crate) p99: f64,
    pub(crate) p99_9: f64,
    pub(crate) p99_99: f64,
    pub(crate) max: f64,
}

impl Latency {
    /// `None` if there are none. The histogram is of nanoseconds.
    pub(crate) fn of(histogram: &Histogram<u64>) -> Option<Latency> {
        let us = |ns: u64| ns as f64 / 1000.0;
        let at = |quantile: f64| us(histogram.value_at_quantile(quantile));
        (!histogram.is_empty()).then(|| Latency {
            count: histogram.len(),
            min: us(histogram.min()),
            mean: (histogram.mean() * 1000.0).round() / 1_000_000.0,
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p99_9: at(0.999),
            p99_99: at(0.9999),
            max: us(histogram.max()),
        })
    }
}

/// The usage of a process, and its processor time for each answer.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Work {
    #[serde(flatten)]
    pub(crate) usage: Usage,
    pub(crate) cpu_us_per_answer: Option<f64>,
}

impl Work {
    pub(crate) fn new(usage: Usage, answers: u64) -> Work {
        let cpu_us = (usage.user_ms + usage.system_ms) as f64 * 1000.0;
        let per_answer = (cpu_us / answers as f64 * 1000.0).round() / 1000.0;
        Work {
            usage,
            cpu_us_per_answer: (answers > 0).then_some(per_answer),
        }
    }
}

/// The figures that only a flood has.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Flood {
    pub(crate) polls: u64,
    pub(crate) asked_places: bool,
    pub(crate) since_sent_us: Option<Latency>,
    pub(crate) resolution_us: Option<Latency>,
}

/// The memory of idle connections in a process.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct IdleMemory {
    pub(crate) pid: u32,
    pub(crate) rss_before_bytes: u64,
    pub(crate) rss_after_bytes: u64,
    pub(crate) bytes_per_connection: f64,
}

impl Report {
    /// The reasons why the run failed: commands without an answer, and trouble.
    pub(crate) fn failure(&self) -> Option<String> {
        let mut parts = Vec::new();
        for (count, what, oldest_ms) in [
            (self.lost, "lost with a connection", self.oldest_lost_ms),
            (
                self.unanswered,
                "without an answer at the end",
                self.oldest_unanswered_ms,
            ),
        ] {
            if count > 0 {
                let commands = counted(count, "command");
                let waited = time(oldest_ms.unwrap_or_default() * 1000.0);
                parts.push(format!("{commands} {what} (longest wait {waited})"));
            }
        }
        parts.extend(self.trouble.clone());
        (!parts.is_empty()).then(|| parts.join("; "))
    }

    /// One line.
    pub(crate) fn json(&self) -> Result<String, Failure> {
        serde_json::to_string(self)
            .map_err(|error| Failure::Failed(format!("cannot write the figures as JSON: {error}")))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::tally::histogram;

    /// 1000 latencies, 1 µs to 1 ms.
    pub(crate) fn thousand() -> Histogram<u64> {
        let mut all = histogram().unwrap();
        for us in 1..=1000 {
            all.record(us * 1000).unwrap();
        }
        all
    }

    /// Four seconds, with no answer in the third one.
    pub(crate) fn over_time() -> OverTime {
        let point = |at: u32, answers| Point {
            at_s: at.into(),
            answers,
            p50_us: (answers > 0).then_some(100.0),
            p99_us: (answers > 0).then_some(200.0),
            max_us: (answers > 0).then_some(5000.0),
        };
        OverTime {
            interval_s: 1.0,
            until_s: 4.0,
            points: vec![point(0, 400), point(1, 300), point(2, 0), point(3, 300)],
        }
    }

    pub(crate) fn usage(pid: u32) -> Usage {
        Usage {
            pid,
            ended: false,
            user_ms: 400,
            system_ms: 600,
            rss_before_bytes: 5_000_000,
            rss_after_bytes: 7_340_032,
        }
    }

    pub(crate) fn report() -> Report {
        Report {
            program: "herd-load",
            version: "0.1.0",
            mode: "iamat",
            server: Server {
                name: "Riley".into(),
                address: "127.0.0.1:10000".into(),
            },
            parameters: Parameters {
                connections: Some(50),
                depth: Some(16),
                duration_s: 2.0,
                warm_up_s: 0.5,
                timeout_s: 10.0,
                clock_tolerance_ms: 1.0,
                prefix: "load".into(),
                ..Parameters::default()
            },
            interrupted: false,
            duration_s: 2.0,
            answers: 1000,
            rate_per_s: 500.0,
            errors: 0,
            first_error: None,
            lost: 0,
            oldest_lost_ms: None,
            unanswered: 0,
            oldest_unanswered_ms: None,
            unsent: 0,
            oldest_unsent_ms: None,
            connections_lost: 0,
            connections_remade: 0,
            disconnected_s: 0.0,
            outages: Vec::new(),
            trouble: None,
            latency_us: Latency::of(&thousand()),
            series: vec![Series::new("IAMAT", thousand(), 2.0, 0)],
            over_time: Some(over_time()),
            processes: vec![Work::new(usage(42), 1000)],
            generator: Work::new(usage(43), 1000),
            flood: None,
            idle: None,
        }
    }

    #[test]
    fn latencies_are_reported_in_microseconds() {
        let latency = Latency::of(&thousand()).unwrap();
        let near = |value: f64, expected: f64| (value - expected).abs() <= expected / 500.0;
        for (value, expected) in [
            (latency.min, 1.0),
            (latency.mean, 500.5),
            (latency.p50, 500.0),
            (latency.p90, 900.0),
            (latency.p99, 990.0),
            (latency.p99_9, 999.0),
            (latency.max, 1000.0),
        ] {
            assert!(near(value, expected), "{value} is not {expected}");
        }
        assert_eq!(Latency::of(&histogram().unwrap()), None);
    }

    #[test]
    fn the_json_is_one_line_and_has_all_fields() {
        let text = report().json().unwrap();
        assert!(!text.contains('\n'));
        let json: serde_json::Value = serde_json::from_str(&text).unwrap();
        for field in [
            "program",
            "version",
            "mode",
            "server",
            "parameters",
            "interrupted",
            "duration_s",
            "answers",
            "rate_per_s",
            "errors",
            "lost",
            "unanswered",
            "unsent",
            "connections_lost",
            "connections_remade",
            "disconnected_s",
            "outages",
            "over_time",
            "latency_us",
            "series",
            "processes",
            "generator",
        ] {
            assert!(!json[field].is_null(), "{field}: {text}");
        }
        assert_eq!(json["server"]["name"], "Riley");
        assert_eq!(json["parameters"]["depth"], 16);
        assert!(json["parameters"]["rate_per_s"].is_null());
        assert_eq!(json["processes"][0]["pid"], 42);
        assert_eq!(json["processes"][0]["user_ms"], 400);
        assert_eq!(json["processes"][0]["cpu_us_per_answer"], 1000.0);
        assert_eq!(json["series"][0]["name"], "IAMAT");
        assert_eq!(json["series"][0]["latency_us"]["count"], 1000);
    }

    #[test]
    fn unanswered_commands_fail_the_run() {
        let mut report = report();
        assert_eq!(report.failure(), None);
        report.unsent = 7;
        assert_eq!(report.failure(), None, "only the rate was too high");
        (report.lost, report.oldest_lost_ms) = (1, Some(0.232));
        (report.unanswered, report.oldest_unanswered_ms) = (3, Some(5123.0));
        report.trouble = Some("silence".into());
        assert_eq!(
            report.failure().unwrap(),
            "1 command lost with a connection (longest wait 232 µs); \
             3 commands without an answer at the end (longest wait 5.12 s); silence"
        );
    }

    #[test]
    fn a_rate_over_no_time_is_zero() {
        assert_eq!(rate(0, 0.0), 0.0);
        assert_eq!(rate(10, 4.0), 2.5);
        assert_eq!(Work::new(usage(1), 0).cpu_us_per_answer, None);
    }
}
