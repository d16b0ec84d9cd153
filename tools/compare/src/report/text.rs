//! Text and numbers for the page.

use crate::figures::{Metric, Sample};
use crate::redis::REDIS;

/// Escapes text for HTML, between tags or in a quoted attribute.
#[must_use]
pub fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            other => safe.push(other),
        }
    }
    safe
}

/// A number with three significant digits and commas between thousands. More digits would claim too
/// much.
#[must_use]
pub fn number(value: f64) -> String {
    if value == 0.0 || !value.is_finite() {
        return "0".to_owned();
    }
    let digits_before = value.abs().log10().floor() as i32 + 1;
    let decimals = (3 - digits_before).clamp(0, 4) as usize;
    if digits_before > 3 {
        let unit = 10f64.powi(digits_before - 3);
        return thousands((value / unit).round() * unit);
    }
    format!("{value:.decimals$}")
}

/// A whole number with commas between thousands.
#[must_use]
pub fn thousands(value: f64) -> String {
    let digits = format!("{:.0}", value.abs());
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    if value < 0.0 {
        format!("−{text}")
    } else {
        text
    }
}

/// A ratio such as `3.2×`.
#[must_use]
pub fn times(ratio: f64) -> String {
    match ratio {
        ratio if ratio >= 9.95 => format!("{ratio:.0}×"),
        ratio if ratio >= 0.995 => format!("{ratio:.1}×"),
        ratio => format!("{ratio:.2}×"),
    }
}

/// A figure with its usual unit.
#[must_use]
pub fn with_unit(metric: Metric, value: f64) -> String {
    match metric {
        Metric::Rate(_) | Metric::Converged if value >= 1e6 => {
            format!("{} M/s", number(value / 1e6))
        }
        Metric::Rate(_) | Metric::Converged => format!("{}/s", number(value)),
        Metric::P50(_) | Metric::P99(_) | Metric::P999(_) | Metric::FloodP50 | Metric::FloodP99 => {
            duration_us(value)
        }
        Metric::Cpu(_) => format!("{} µs", number(value)),
        Metric::Generator(_) => format!("{:.0} %", value * 100.0),
        Metric::Syscalls(_) => format!("{value:.2}"),
        Metric::Instructions(_) | Metric::Lines => number(value),
        Metric::Memory | Metric::Idle => bytes(value),
        Metric::Recovery => duration_us(value * 1000.0),
    }
}

/// Microseconds, in the unit that makes the number short.
#[must_use]
pub fn duration_us(us: f64) -> String {
    match us {
        us if us >= 1e6 => format!("{} s", number(us / 1e6)),
        us if us >= 1e3 => format!("{} ms", number(us / 1e3)),
        us => format!("{} µs", number(us)),
    }
}

/// Bytes, in the unit that makes the number short.
#[must_use]
pub fn bytes(value: f64) -> String {
    match value {
        value if value >= 1e6 => format!("{} MB", number(value / 1e6)),
        value if value >= 1e4 => format!("{} kB", number(value / 1e3)),
        value => format!("{value:.0} B"),
    }
}

/// The spread as text.
#[must_use]
pub fn spread(sample: &Sample) -> String {
    match (sample.spread(), sample.values().len()) {
        (Some(spread), _) => format!("{:.0} %", spread * 100.0),
        (None, 1) => "once".to_owned(),
        (None, _) => "–".to_owned(),
    }
}

/// The short name of a world.
#[must_use]
pub fn short(name: &str) -> &str {
    match name {
        "mio" => "herd-mio",
        "streams" => "asyncio streams",
        "protocols" => "asyncio protocols",
        "uvloop" => "asyncio on uvloop",
        "node" => "Node",
        "java-threads" => "Java, threads",
        "java-nio" => "Java, selector",
        "go" => "Go",
        "tokio" => "tokio",
        REDIS => "Redis GEOADD",
        other => other,
    }
}

/// The name of a metric in a sentence.
#[must_use]
pub fn about(metric: Metric) -> String {
    let at = metric
        .setting()
        .map_or_else(String::new, |setting| format!(" at {setting}"));
    let what = match metric {
        Metric::Rate(_) => "answers",
        Metric::P50(_) => "median latency",
        Metric::P99(_) => "99th percentile",
        Metric::P999(_) => "99.9th percentile",
        Metric::Cpu(_) => "processor time per answer",
        Metric::Generator(_) => "generator's share of its core",
        Metric::Syscalls(_) => "system calls per answer",
        Metric::Instructions(_) => "user instructions per answer",
        Metric::Memory => "resident memory after the load at 50 × 16",
        Metric::Idle => "memory per idle connection",
        Metric::FloodP50 => "median flood time",
        Metric::FloodP99 => "99th percentile of the flood time",
        Metric::Converged => "converged updates",
        Metric::Recovery => "recovery",
        Metric::Lines => "lines of code",
    };
    format!("{what}{at}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figures::HEADLINE;

    #[test]
    fn numbers_have_three_significant_digits() {
        for (value, text) in [
            (412_345.0, "412,000"),
            (1234.0, "1,230"),
            (999.6, "1000"),
            (123.4, "123"),
            (12.34, "12.3"),
            (1.234, "1.23"),
            (0.1234, "0.123"),
            (0.0, "0"),
            (f64::NAN, "0"),
        ] {
            assert_eq!(number(value), text);
        }
        assert_eq!(thousands(-1_234_567.0), "−1,234,567");
        assert_eq!(
            (times(17.26), times(1.54), times(0.5)),
            ("17×".into(), "1.5×".into(), "0.50×".into())
        );
        assert_eq!(
            (bytes(147.5), bytes(15_000.0), bytes(6.6e7)),
            ("148 B".into(), "15.0 kB".into(), "66.0 MB".into())
        );
        assert_eq!(
            (duration_us(12.0), duration_us(1500.0), duration_us(2e6)),
            ("12.0 µs".into(), "1.50 ms".into(), "2.00 s".into())
        );
        assert_eq!(with_unit(Metric::Syscalls(HEADLINE), 0.1234), "0.12");
        assert_eq!(with_unit(Metric::Rate(HEADLINE), 1_390_000.0), "1.39 M/s");
    }

    #[test]
    fn text_is_escaped() {
        assert_eq!(
            escape("<a href=\"x\">&"),
            "&lt;a href=&quot;x&quot;&gt;&amp;"
        );
    }
}
