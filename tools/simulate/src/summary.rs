//! The summary of all runs.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use herd_simulate::{Coverage, Story};

/// The sums.
#[derive(Default)]
pub(crate) struct Summary {
    runs: u64,
    events: u64,
    length: Duration,
    faults: BTreeMap<&'static str, u64>,
    pub(crate) coverage: Coverage,
    acknowledged: u64,
    kept: u64,
    records_sent: u64,
    slowest: Duration,
}

impl Summary {
    /// Adds a run.
    pub(crate) fn add(&mut self, story: &Story) {
        self.runs += 1;
        self.events += story.events;
        self.length += story.length;
        for (kind, count) in &story.faults {
            *self.faults.entry(kind).or_default() += count;
        }
        self.coverage.add(&story.coverage);
        self.acknowledged += story.acknowledged;
        self.kept += story.kept;
        self.records_sent += story.records_sent;
        self.slowest = self.slowest.max(story.slowest);
    }

    /// The summary as text, after `wall` of real time.
    pub(crate) fn describe(&self, wall: Duration) -> String {
        let mut text = String::new();
        let kinds: Vec<String> = self
            .faults
            .iter()
            .map(|(kind, count)| format!("{kind} {count}"))
            .collect();
        let days = self.length.as_secs_f64() / 86_400.0;
        let speed = self.length.as_secs_f64() / wall.as_secs_f64().max(0.001);
        // Writing into a String does not fail.
        let _ = writeln!(text, "seeds                {}", self.runs);
        let _ = writeln!(text, "events               {}", self.events);
        let _ = writeln!(
            text,
            "virtual time         {days:.2} days, {speed:.0} times faster than real time"
        );
        let _ = writeln!(text, "faults               {}", kinds.join(", "));
        let _ = writeln!(text, "updates acknowledged {}", self.acknowledged);
        let _ = writeln!(text, "promises kept        {}", self.kept);
        let _ = writeln!(text, "records sent         {}", self.records_sent);
        let _ = writeln!(
            text,
            "slowest recovery     {:.1} s after the end of a storm",
            self.slowest.as_secs_f64()
        );
        let _ = writeln!(text, "wall time            {:.1} s", wall.as_secs_f64());
        text.push_str(&self.coverage.describe());
        text
    }
}

/// One run as a line.
pub(crate) fn of_one(story: &Story) -> String {
    format!(
        "{} events in {:.0} s, {} faults, {} updates acknowledged, recovered after {:.1} s, hash {:016x}",
        story.events,
        story.length.as_secs_f64(),
        story.faults.values().sum::<u64>(),
        story.acknowledged,
        story.slowest.as_secs_f64(),
        story.hash
    )
}
