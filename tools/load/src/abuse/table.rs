//! The result of an attack, as text.

use std::fmt::{self, Display};

use crate::abuse::footprint::{Growth, Level};
use crate::abuse::report::{Links, Report};
use crate::process::Usage;
use crate::report::Latency;
use crate::table::{grouped, megabytes, number};
use crate::units::time;

/// The figures as text.
pub(crate) struct Table<'a>(pub(crate) &'a Report);

impl Display for Table<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let report = self.0;
        let interrupted = if report.interrupted {
            ", interrupted"
        } else {
            ""
        };
        let tls = if report.parameters.tls {
            " over TLS"
        } else {
            ""
        };
        writeln!(
            f,
            "abuse {}: {} at {}{tls}, {:.1} s{interrupted}\n",
            report.kind, report.server.name, report.server.address, report.duration_s
        )?;
        attack(f, report)?;
        polite(f, report)?;
        match &report.links {
            Some(it) => links(f, it)?,
            None => row(f, "links", "not measured")?,
        }
        if let Some(it) = &report.memory {
            row(f, "memory", &level(it, megabytes))?;
        }
        if let Some(it) = &report.descriptors {
            row(f, "descriptors", &level(it, grouped))?;
        }
        for (name, growth) in [("log", &report.log), ("data", &report.data)] {
            if let Some(it) = growth {
                row(f, name, &written(it))?;
            }
        }
        for usage in &report.processes {
            row(f, "server's CPU", &cpu(usage, report.duration_s))?;
        }
        row(
            f,
            "herd-load's CPU",
            &cpu(&report.generator, report.duration_s),
        )?;
        writeln!(f)?;
        for note in &report.notes {
            writeln!(f, "note: {note}")?;
        }
        if report.failures.is_empty() {
            return writeln!(
                f,
                "passed: no polite command was lost, refused or too slow, and no link was lost"
            );
        }
        for failure in &report.failures {
            writeln!(f, "failed: {failure}")?;
        }
        Ok(())
    }
}

fn row(f: &mut fmt::Formatter<'_>, name: &str, text: &str) -> fmt::Result {
    writeln!(f, "{name:<16}{text}")
}

fn attack(f: &mut fmt::Formatter<'_>, report: &Report) -> fmt::Result {
    let attack = &report.attack;
    let text = format!(
        "at most {} connections, from {}; {} made ({} per second), {} closed by the server",
        grouped(attack.most_open as u64),
        report.parameters.from,
        grouped(attack.connected),
        number(attack.connects_per_s),
        grouped(attack.closed_by_server)
    );
    row(f, "attack", &text)?;
    if attack.failed_connects > 0 {
        let text = format!(
            "{} connections failed, {} of them because no port was free",
            grouped(attack.failed_connects),
            grouped(attack.no_port)
        );
        row(f, "", &text)?;
    }
    if attack.sent_commands > 0 {
        let errors = match attack.places_errors {
            0 => String::new(),
            errors => format!(", {} errors of Places", grouped(errors)),
        };
        let text = format!(
            "{} sent; {} commands answered, {} refused ({} per second in total){errors}",
            bytes(attack.sent_bytes as f64),
            grouped(attack.answered),
            grouped(attack.refused),
            number(attack.replies_per_s)
        );
        row(f, "", &text)?;
    }
    match &attack.rejection {
        Some(said) => row(f, "", &format!("rejected: {said}")),
        None => Ok(()),
    }
}

fn polite(f: &mut fmt::Formatter<'_>, report: &Report) -> fmt::Result {
    let polite = &report.polite;
    let text = format!(
        "{} clients from {}; {} commands: {} answered, {} refused ({} of new clients), {} lost, {} unanswered",
        report.parameters.polite,
        report.parameters.polite_from,
        grouped(polite.asked),
        grouped(polite.answered),
        grouped(polite.refused),
        grouped(polite.refused_new),
        grouped(polite.lost),
        grouped(polite.unanswered)
    );
    row(f, "polite", &text)?;
    row(f, "IAMAT alone", &latency(polite.alone.as_ref()))?;
    row(f, "  under attack", &latency(polite.under_attack.as_ref()))?;
    if report.parameters.polite_whatsat {
        row(f, "WHATSAT alone", &latency(polite.whatsat_alone.as_ref()))?;
        row(
            f,
            "  under attack",
            &latency(polite.whatsat_under_attack.as_ref()),
        )?;
    }
    Ok(())
}

fn links(f: &mut fmt::Formatter<'_>, links: &Links) -> fmt::Result {
    let names = |names: Vec<&str>| match names.is_empty() {
        true => "none".to_owned(),
        false => names.join(" "),
    };
    let before = names(links.before.iter().map(String::as_str).collect());
    let lost = names(links.lost.iter().map(String::as_str).collect());
    let text = format!(
        "{before} before, lost: {lost}; slowest confirmation of a change {} ms",
        grouped(links.max_lag_ms)
    );
    row(f, "links", &text)?;
    let text = format!(
        "{} of {} STATUS questions answered, the slowest in {} ms",
        grouped(links.answered),
        grouped(links.asked),
        grouped(links.slowest_ms)
    );
    row(f, "", &text)?;
    if let Some(failure) = links
        .first_failure
        .as_ref()
        .filter(|_| links.after.is_some())
    {
        row(f, "", &format!("the first failed question: {failure}"))?;
    }
    if links.counted.is_empty() {
        return Ok(());
    }
    let counted = links.counted.iter();
    let counted: Vec<String> = counted
        .map(|(name, more)| format!("{name} +{}", grouped(*more)))
        .collect();
    row(f, "server counted", &counted.join(", "))
}

fn latency(latency: Option<&Latency>) -> String {
    match latency {
        None => "no answer".to_owned(),
        Some(it) => format!(
            "p50 {:<9}p99 {:<9}max {}",
            time(it.p50),
            time(it.p99),
            time(it.max)
        ),
    }
}

fn level(level: &Level, shown: impl Fn(u64) -> String) -> String {
    format!(
        "{} before, maximum {}, {} after",
        shown(level.before),
        shown(level.most),
        shown(level.after)
    )
}

fn written(growth: &Growth) -> String {
    format!(
        "{} before, {} written ({} per second)",
        bytes(growth.before_bytes as f64),
        bytes(growth.written_bytes as f64),
        bytes(growth.bytes_per_s)
    )
}

fn cpu(usage: &Usage, duration_s: f64) -> String {
    if usage.ended {
        return "the process ended under attack".to_owned();
    }
    let ms = (usage.user_ms + usage.system_ms) as f64;
    format!("{:.0} % of a core", ms / duration_s.max(0.001) / 10.0)
}

/// Bytes in a suitable unit.
fn bytes(bytes: f64) -> String {
    match bytes {
        bytes if bytes < 999.5 => format!("{bytes:.0} B"),
        bytes if bytes < 999_950.0 => format!("{:.1} kB", bytes / 1e3),
        bytes if bytes < 999.95e6 => format!("{:.1} MB", bytes / 1e6),
        bytes => format!("{:.1} GB", bytes / 1e9),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::abuse::report::tests::report;

    #[test]
    fn the_table_shows_the_figures() {
        let expected = "\
abuse faults: Riley at 127.0.0.1:10000, 10.0 s

attack          at most 64 connections, from 127.0.1.1-127.0.1.9; 70 made (7.0 per second), 6 closed by the server
                2.0 MB sent; 0 commands answered, 999,000 refused (99,900 per second in total)
polite          4 clients from 127.0.0.1; 880 commands: 880 answered, 0 refused (0 of new clients), 0 lost, 0 unanswered
IAMAT alone     p50 50.0 ms  p99 99.0 ms  max 100 ms
  under attack  p50 50.0 ms  p99 99.0 ms  max 100 ms
links           Jaquez Juzang before, lost: none; slowest confirmation of a change 3 ms
                40 of 40 STATUS questions answered, the slowest in 12 ms
server counted  stale +3
memory          10.0 MB before, maximum 30.0 MB, 20.0 MB after
descriptors     20 before, maximum 84, 20 after
log             5 B before, 260.0 kB written (26.0 kB per second)
server's CPU    15 % of a core
herd-load's CPU 15 % of a core

note: something to know
passed: no polite command was lost, refused or too slow, and no link was lost
";
        assert_eq!(Table(&report()).to_string(), expected);
    }

    #[test]
    fn a_failure_is_the_last_line() {
        let mut report = report();
        report.failures = vec!["polite p99 is 2.00 s".into()];
        report.attack.rejection = Some("there are 3 clients".into());
        report.links = None;
        let text = Table(&report).to_string();
        assert!(text.ends_with("\nfailed: polite p99 is 2.00 s\n"), "{text}");
        assert!(text.contains("rejected: there are 3 clients\n"), "{text}");
        assert!(text.contains("links           not measured\n"), "{text}");
    }

    #[test]
    fn byte_counts_have_a_suitable_unit() {
        for (value, text) in [
            (0.0, "0 B"),
            (999.6, "1.0 kB"),
            (26_040.0, "26.0 kB"),
            (4.1e6, "4.1 MB"),
            (5.06e9, "5.1 GB"),
        ] {
            assert_eq!(bytes(value), text);
        }
    }
}
