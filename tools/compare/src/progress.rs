//! The progress bar with an estimate. Without a terminal, a line for each part.

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use herd_testkit::clock::now;

const LAYOUT: &str = "[{bar:30}] {elapsed_precise}, about {eta} left: {msg}";

/// The progress of a comparison.
#[derive(Debug)]
pub struct Progress {
    bar: Option<ProgressBar>,
    started: std::time::Instant,
    /// The parts that have begun.
    parts: Vec<&'static str>,
}

impl Progress {
    /// The progress of a task that takes about so long.
    #[must_use]
    pub fn on_stderr(estimate: Duration) -> Progress {
        let steps = u64::try_from(estimate.as_millis()).unwrap_or(u64::MAX);
        let bar = io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::with_draw_target(Some(steps), ProgressDrawTarget::stderr());
            // The layout is a constant and valid.
            if let Ok(style) = ProgressStyle::with_template(LAYOUT) {
                bar.set_style(style.progress_chars("=> "));
            }
            bar
        });
        Progress {
            bar,
            started: now(),
            parts: Vec::new(),
        }
    }

    /// A part begins.
    pub fn begin(&mut self, part: &'static str, what: &str) {
        match &self.bar {
            Some(bar) => bar.set_message(format!("{part}: {what}")),
            None if !self.parts.contains(&part) => {
                let seconds = self.started.elapsed().as_secs();
                // A failed write is ignored.
                let _ = writeln!(io::stderr(), "{seconds:>4} s  {part}");
            }
            None => {}
        }
        if !self.parts.contains(&part) {
            self.parts.push(part);
        }
    }

    /// A step is done that was planned to take so long.
    pub fn done(&self, planned: Duration) {
        if let Some(bar) = &self.bar {
            bar.inc(u64::try_from(planned.as_millis()).unwrap_or_default());
        }
    }

    /// All steps are done.
    pub fn finish(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}
