//! The output: the list of calls, the table of results, and the details of each failure.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::case::{Case, Target};
use crate::catalogue::{Entry, entry};
use crate::census::Row;
use crate::run::Report;
use crate::verdict::Outcome;

/// The list of the run without a fault. Each row has its errors and the number of runs, or the
/// reason why its call is not failed.
pub(crate) fn list(rows: &[Row], cases: &[Case]) -> String {
    let mut lines = vec![["call", "start", "later", "runs", "errors"].map(str::to_owned)];
    let mut alone: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for row in rows {
        let runs = cases.iter().filter(|case| case.target == row.target);
        let errors = match entry(&row.target) {
            Entry::Fail(errors) => errors.join(" "),
            Entry::Leave(why) => {
                alone.entry(why).or_default().push(row.target.to_string());
                continue;
            }
            Entry::Unknown => "not tried: the catalogue has no entry for it".to_owned(),
        };
        lines.push([
            row.target.to_string(),
            row.starting.to_string(),
            row.serving.to_string(),
            runs.count().to_string(),
            errors,
        ]);
    }
    let mut text = aligned(&lines);
    if !alone.is_empty() {
        text.push_str("\nCalls that are not tried:\n");
    }
    for (why, targets) in alone {
        // Writing into a String never fails.
        let _ = writeln!(text, "  {}: {why}", targets.join(" "));
    }
    text
}

/// The table of results, with a line for each target.
pub(crate) fn results(reports: &[Report]) -> String {
    struct Line {
        errors: Vec<String>,
        counts: BTreeMap<Outcome, usize>,
    }
    let mut by_target: BTreeMap<Target, Line> = BTreeMap::new();
    for report in reports {
        let line = by_target
            .entry(report.case.target.clone())
            .or_insert_with(|| Line {
                errors: Vec::new(),
                counts: BTreeMap::new(),
            });
        if !line.errors.contains(&report.case.error) {
            line.errors.push(report.case.error.clone());
        }
        *line.counts.entry(report.outcome).or_default() += 1;
    }
    let mut head = vec!["call".to_owned(), "runs".to_owned()];
    head.extend(Outcome::ALL.map(|outcome| outcome.name().to_owned()));
    head.push("errors".to_owned());
    let mut lines = vec![head];
    let mut row = |name: String, counts: &BTreeMap<Outcome, usize>, errors: String| {
        let mut cells = vec![name, counts.values().sum::<usize>().to_string()];
        cells.extend(Outcome::ALL.map(|outcome| match counts.get(&outcome) {
            Some(count) => count.to_string(),
            None => ".".to_owned(),
        }));
        cells.push(errors);
        lines.push(cells);
    };
    let mut total: BTreeMap<Outcome, usize> = BTreeMap::new();
    for (target, line) in &by_target {
        row(target.to_string(), &line.counts, line.errors.join(" "));
        for (outcome, count) in &line.counts {
            *total.entry(*outcome).or_default() += count;
        }
    }
    row("all".to_owned(), &total, String::new());
    aligned(&lines)
}

/// One line about a run, and a line for each refusal.
pub(crate) fn one(report: &Report) -> String {
    let name = report.outcome.name();
    let mut text = format!("{}: {name}; {}\n", report.case, report.end);
    for refusal in &report.refusals {
        // Writing into a String never fails.
        let _ = writeln!(text, "  refused: {refusal}");
    }
    text
}

/// The details of a failed run: what was wrong, the command that repeats it, the server's log and
/// the failed calls.
pub(crate) fn failure(report: &Report) -> String {
    let mut text = format!("FAILED {}\n", report.case);
    // Writing into a String never fails.
    for failure in &report.failures {
        let _ = writeln!(text, "  {failure}");
    }
    let _ = writeln!(
        text,
        "  to repeat it: cargo run --release --bin herd-torture -- --only '{}'",
        report.case
    );
    let _ = writeln!(text, "  exit of the server: {}", report.end);
    for refusal in &report.refusals {
        let _ = writeln!(text, "  refused: {refusal}");
    }
    let _ = writeln!(text, "  failed calls: {}", report.call_count);
    for call in &report.calls {
        let _ = writeln!(text, "    {call}");
    }
    let _ = writeln!(text, "  end of its log:");
    for line in &report.log {
        let _ = writeln!(text, "    {line}");
    }
    text
}

/// Aligns the cells in columns. All columns but the first and the last have numbers.
fn aligned<L: AsRef<[String]>>(lines: &[L]) -> String {
    let columns = lines.iter().map(|line| line.as_ref().len()).max();
    let width = |column: usize| {
        let cells = lines.iter().filter_map(|line| line.as_ref().get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns.unwrap_or(0)).map(width).collect();
    let mut text = String::new();
    for line in lines {
        let mut shown = String::new();
        for (index, (cell, width)) in line.as_ref().iter().zip(&widths).enumerate() {
            // Writing into a String never fails.
            let _ = match index {
                0 => write!(shown, "{cell:<width$}"),
                last if last + 1 == widths.len() => write!(shown, "  {cell}"),
                _ => write!(shown, "  {cell:>width$}"),
            };
        }
        text.push_str(shown.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::case::Only;
    use crate::census::Reach;
    use crate::verdict::{Failure, Kind};

    fn case(text: &str) -> Case {
        text.parse::<Only>().unwrap().case().unwrap()
    }

    fn report(text: &str, outcome: Outcome) -> Report {
        Report {
            case: case(text),
            outcome,
            failures: Vec::new(),
            refusals: Vec::new(),
            end: "status 0".to_owned(),
            calls: Vec::new(),
            call_count: 0,
            log: Vec::new(),
        }
    }

    #[test]
    fn the_results_table_has_its_layout() {
        let reports = [
            report("read@x:EIO:1", Outcome::Ended),
            report("accept4:EMFILE:1", Outcome::Unnoticed),
            report("accept4:ENFILE:1", Outcome::Unnoticed),
            report("accept4:EMFILE:1+", Outcome::Failed),
        ];
        let expected = "\
call     runs  unnoticed  refused  ended  not reached  FAILED  errors
accept4     3          2        .      .            .       1  EMFILE ENFILE
read@x      1          .        .      1            .       .  EIO
all         4          2        .      1            .       1
";
        assert_eq!(results(&reports), expected);
    }

    #[test]
    fn the_list_of_calls_has_its_layout() {
        let row = |call: &str, starting, serving| Row {
            target: Target {
                call: call.to_owned(),
                object: None,
            },
            starting,
            serving,
            reach: Reach::default(),
        };
        let rows = [
            row("brk", 9, 9),
            row("flock", 1, 0),
            row("mmap", 1, 2),
            row("quotactl", 0, 12),
        ];
        let expected = "\
call      start  later  runs  errors
flock         1      0     1  EAGAIN ENOLCK
quotactl      0     12     0  not tried: the catalogue has no entry for it

Calls that are not tried:
  brk mmap: a Rust program aborts if it gets no memory, by design
";
        assert_eq!(list(&rows, &[case("flock:EAGAIN:1")]), expected);
    }

    #[test]
    fn a_failure_shows_how_to_repeat_it() {
        let failed = Report {
            failures: vec![Failure::new(Kind::Hung, "an IAMAT: no answer within 5 s")],
            refusals: vec!["a WHATSAT: closed".to_owned()],
            calls: vec!["accept4(5) = -1 EMFILE".to_owned()],
            call_count: 7,
            log: vec!["a line".to_owned()],
            ..report("accept4:EMFILE:2", Outcome::Failed)
        };
        let expected = "\
FAILED accept4:EMFILE:2
  HANG: an IAMAT: no answer within 5 s
  to repeat it: cargo run --release --bin herd-torture -- --only 'accept4:EMFILE:2'
  exit of the server: status 0
  refused: a WHATSAT: closed
  failed calls: 7
    accept4(5) = -1 EMFILE
  end of its log:
    a line
";
        assert_eq!(failure(&failed), expected);
    }
}
