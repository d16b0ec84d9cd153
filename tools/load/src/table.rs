//! The figures as text.

use std::fmt::{self, Display, Write as _};

use crate::report::{self, Latency, Report, Work};
use crate::units::time;

/// The greatest number of outages with their own line.
const OUTAGES_SHOWN: usize = 10;

/// The figures as text.
pub(crate) struct Table<'a>(pub(crate) &'a Report);

impl Display for Table<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let report = self.0;
        writeln!(f, "{}\n", headline(report))?;
        let (many, one) = match report.flood {
            Some(_) => ("rounds", "a round"),
            None => ("answers", "an answer"),
        };
        let head = [
            "", many, "per s", "p50", "p90", "p99", "p99.9", "max", "errors",
        ];
        let mut rows = vec![head.map(str::to_owned)];
        rows.extend(report.series.iter().map(|series| {
            let [p50, p90, p99, p99_9, max] = percentiles(series.latency_us.as_ref());
            let slowest_us = series
                .latency_us
                .as_ref()
                .map_or(0.0, |latency| latency.max);
            let max = if series.waited_us > slowest_us {
                format!("> {}", time(series.waited_us))
            } else {
                max
            };
            let errors = grouped(series.errors);
            [
                series.name.clone(),
                grouped(series.answers),
                number(series.rate_per_s),
                p50,
                p90,
                p99,
                p99_9,
                max,
                errors,
            ]
        }));
        write_rows(f, &rows)?;
        writeln!(f)?;
        for work in &report.processes {
            let name = format!("process {}", work.usage.pid);
            writeln!(f, "{}", used(&name, work, report.duration_s, one))?;
        }
        let own = used(
            "herd-load itself",
            &report.generator,
            report.duration_s,
            one,
        );
        writeln!(f, "{own}")?;
        notes(f, report)
    }
}

fn headline(report: &Report) -> String {
    let parameters = &report.parameters;
    let mut text = format!(
        "{}: {} at {}{}",
        report.mode,
        report.server.name,
        report.server.address,
        if parameters.tls { " over TLS" } else { "" }
    );
    // Writing into a String does not fail.
    let mut add = |part: fmt::Arguments<'_>| {
        let _ = write!(text, ", {part}");
    };
    match parameters.connections {
        Some(1) => add(format_args!("1 connection")),
        Some(connections) => add(format_args!("{} connections", grouped(connections as u64))),
        None => {}
    }
    if let Some(depth) = parameters.depth {
        match parameters.rate_per_s {
            Some(rate) => add(format_args!(
                "{} per second, depth up to {depth}",
                number(rate)
            )),
            None => add(format_args!("depth {depth}")),
        }
    }
    if let Some(percent) = parameters.whatsat_percent {
        add(format_args!("{percent} % WHATSAT"));
    }
    add(format_args!(
        "{:.2} s after a warm-up of {} s",
        report.duration_s, parameters.warm_up_s
    ));
    if report.interrupted {
        add(format_args!("interrupted"));
    }
    text
}

fn notes(f: &mut fmt::Formatter<'_>, report: &Report) -> fmt::Result {
    if let Some(flood) = &report.flood {
        let since_sent = percentiles(flood.since_sent_us.as_ref()).join(" ");
        writeln!(
            f,
            "from the sending of the IAMAT until all servers had it: {since_sent} (p50 p90 p99 p99.9 max)"
        )?;
        if let Some(resolution) = &flood.resolution_us {
            writeln!(
                f,
                "resolution: {} (p50) to {} (p99) between a server's last refusal and its first answer with the update; {} polls",
                time(resolution.p50),
                time(resolution.p99),
                grouped(flood.polls)
            )?;
        }
        if flood.asked_places {
            writeln!(
                f,
                "note: servers asked Places before they answered, and that time is in the figures; start them without a key for Places"
            )?;
        }
    }
    for memory in report.idle.iter().flatten() {
        writeln!(
            f,
            "process {}: {} bytes of memory for each idle connection ({} before, {} after)",
            memory.pid,
            number(memory.bytes_per_connection),
            megabytes(memory.rss_before_bytes),
            megabytes(memory.rss_after_bytes)
        )?;
    }
    missing(f, report)?;
    if let Some(error) = &report.first_error {
        writeln!(
            f,
            "note: {} answers had an error of Places; the first error: {error}",
            grouped(report.errors)
        )?;
    }
    Ok(())
}

/// The commands without an answer, and the lost connections.
fn missing(f: &mut fmt::Formatter<'_>, report: &Report) -> fmt::Result {
    let waited = |oldest_ms: Option<f64>| time(oldest_ms.unwrap_or_default() * 1000.0);
    if report.lost > 0 {
        writeln!(
            f,
            "lost: {} in flight on a lost connection; longest wait {}; not in the latencies (max shows > if the wait was longer)",
            grouped(report.lost),
            waited(report.oldest_lost_ms)
        )?;
    }
    if report.unanswered > 0 {
        writeln!(
            f,
            "unanswered: {} at the end; longest wait {}; not in the latencies (max shows > if the wait was longer)",
            grouped(report.unanswered),
            waited(report.oldest_unanswered_ms)
        )?;
    }
    if report.unsent > 0 {
        let why = if report.disconnected_s > 0.0 {
            "the server was down, or is"
        } else {
            "the server is"
        };
        writeln!(
            f,
            "note: {} commands were due and never sent, because {why} too slow for this rate; longest wait {}; not in the latencies",
            grouped(report.unsent),
            waited(report.oldest_unsent_ms)
        )?;
    }
    if report.connections_lost > 0 {
        writeln!(
            f,
            "connections: {} lost, {} made again; {} without any connection",
            grouped(report.connections_lost),
            grouped(report.connections_remade),
            time(report.disconnected_s * 1e6)
        )?;
    }
    for outage in report.outages.iter().take(OUTAGES_SHOWN) {
        let end = if outage.is_over {
            "all reconnected after"
        } else {
            "not all reconnected after"
        };
        writeln!(
            f,
            "outage at {:.2} s: up to {} missing, {end} {} ({} without any connection)",
            outage.from_s,
            report::counted(outage.connections as u64, "connection"),
            time(outage.duration_s * 1e6),
            time(outage.disconnected_s * 1e6)
        )?;
    }
    if report.outages.len() > OUTAGES_SHOWN {
        let more = report.outages.len() - OUTAGES_SHOWN;
        writeln!(f, "and {more} more outages; --json has all of them")?;
    }
    Ok(())
}

fn used(name: &str, work: &Work, duration_s: f64, one: &str) -> String {
    let usage = &work.usage;
    if usage.ended {
        return format!(
            "{name}: ended during the measurement; memory {} before",
            megabytes(usage.rss_before_bytes)
        );
    }
    let cpu_ms = usage.user_ms + usage.system_ms;
    let share = if duration_s > 0.0 {
        cpu_ms as f64 / duration_s / 10.0
    } else {
        0.0
    };
    let each = work
        .cpu_us_per_answer
        .map_or(String::new(), |us| format!(", {us:.2} µs {one}"));
    format!(
        "{name}: {:.2} s user, {:.2} s system: {share:.0} % of a core{each}; memory {} before, {} after",
        usage.user_ms as f64 / 1000.0,
        usage.system_ms as f64 / 1000.0,
        megabytes(usage.rss_before_bytes),
        megabytes(usage.rss_after_bytes),
    )
}

fn write_rows(f: &mut fmt::Formatter<'_>, rows: &[[String; 9]]) -> fmt::Result {
    let width = |column: usize| {
        let widths = rows.iter().map(|row| row[column].chars().count());
        widths.max().unwrap_or(0)
    };
    for row in rows {
        write!(f, "{:<width$}", row[0], width = width(0))?;
        for (column, cell) in row.iter().enumerate().skip(1) {
            write!(f, "  {cell:>width$}", width = width(column))?;
        }
        writeln!(f)?;
    }
    Ok(())
}

fn percentiles(latency: Option<&Latency>) -> [String; 5] {
    match latency {
        Some(l) => [l.p50, l.p90, l.p99, l.p99_9, l.max].map(time),
        None => std::array::from_fn(|_| "-".to_owned()),
    }
}

pub(crate) fn megabytes(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}

/// A number as text, with a decimal if it is small.
pub(crate) fn number(value: f64) -> String {
    if value < 100.0 {
        format!("{value:.1}")
    } else {
        // Not negative, and far below 2⁵³.
        grouped(value.round() as u64)
    }
}

/// `1234567` as `1,234,567`.
pub(crate) fn grouped(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Series;
    use crate::report::tests::{report, thousand};

    #[test]
    fn the_table_shows_the_figures() {
        let text = Table(&report()).to_string();
        assert_eq!(
            text,
            "iamat: Riley at 127.0.0.1:10000, 50 connections, depth 16, 2.00 s after a warm-up of 0.5 s\n\
             \n       \
             answers  per s     p50     p90     p99   p99.9      max  errors\n\
             IAMAT    1,000    500  500 µs  900 µs  990 µs  999 µs  1.00 ms       0\n\
             \n\
             process 42: 0.40 s user, 0.60 s system: 50 % of a core, 1000.00 µs an answer; memory 5.0 MB before, 7.3 MB after\n\
             herd-load itself: 0.40 s user, 0.60 s system: 50 % of a core, 1000.00 µs an answer; memory 5.0 MB before, 7.3 MB after\n"
        );
    }

    #[test]
    fn the_table_has_notes_on_errors_and_limits() {
        let mut report = report();
        report.unsent = 12_345;
        report.errors = 7;
        report.first_error = Some("UNKNOWN_ERROR: no key".into());
        report.interrupted = true;
        report.parameters.rate_per_s = Some(20_000.0);
        report.series.push(Series::new(
            "WHATSAT",
            crate::tally::histogram().unwrap(),
            2.0,
            0,
        ));
        let text = Table(&report).to_string();
        for part in [
            "20,000 per second, depth up to 16",
            "interrupted\n",
            "note: 12,345 commands were due and never sent",
            "note: 7 answers had an error of Places; the first error: UNKNOWN_ERROR: no key",
            "WHATSAT        0    0.0       -       -",
        ] {
            assert!(text.contains(part), "{part:?} is not in\n{text}");
        }
        assert!(thousand().len() == 1000);
    }

    #[test]
    fn numbers_are_grouped() {
        for (value, text) in [
            (0, "0"),
            (999, "999"),
            (1000, "1,000"),
            (1_234_567, "1,234,567"),
        ] {
            assert_eq!(grouped(value), text);
        }
        assert_eq!(number(2.25), "2.2");
        assert_eq!(number(1234.6), "1,235");
    }
}
