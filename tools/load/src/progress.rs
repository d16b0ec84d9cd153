//! The progress bar. It is drawn only on a terminal.

use std::io::{self, IsTerminal};

use herd_testkit::output;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::clock::SECOND_NS;

/// The interval between two drawings.
pub(crate) const TICK_NS: u64 = 200_000_000;
/// The bar's length in steps.
const STEPS: u64 = 1000;
const LAYOUT: &str = "{prefix:>10} [{bar:30}] {msg}";

/// A bar, or nothing. It has no thread, so the measuring code calls it to draw.
pub(crate) struct Progress {
    bar: Option<ProgressBar>,
    /// The time of the last computed rate, and the number of answers at that time.
    last: (u64, u64),
}

impl Progress {
    /// Draws on the standard error, if that is a terminal.
    pub(crate) fn on_stderr() -> Progress {
        let bar = io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::with_draw_target(Some(STEPS), ProgressDrawTarget::stderr());
            // The layout is valid: a test draws it.
            if let Ok(style) = ProgressStyle::with_template(LAYOUT) {
                bar.set_style(style.progress_chars("=> "));
            }
            bar
        });
        Progress { bar, last: (0, 0) }
    }

    /// Connections are being made.
    pub(crate) fn connecting(&mut self, made: usize, of: usize) {
        if let Some(bar) = &self.bar {
            bar.set_prefix("connecting");
            bar.set_message(format!("{made} of {of}"));
            bar.set_position(step(made as f64 / of as f64));
        }
    }

    /// Shows the number of answers so far. `done` is the finished part of the run, from 0 to 1.
    pub(crate) fn measuring(&mut self, phase: &'static str, done: f64, answers: u64, now_ns: u64) {
        let Some(bar) = &self.bar else { return };
        let (then_ns, before) = self.last;
        // Both only increase, or start again with the next phase or run.
        let passed_ns = now_ns.saturating_sub(then_ns).max(1);
        let rate = answers.saturating_sub(before) as f64 * SECOND_NS as f64 / passed_ns as f64;
        self.last = (now_ns, answers);
        bar.set_prefix(phase);
        bar.set_message(format!("{rate:.0}/s"));
        bar.set_position(step(done));
    }

    /// Prints a line on the standard error, above the bar.
    pub(crate) fn print(&self, what: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| output::tell(what)),
            None => output::tell(what),
        }
    }

    /// Removes the bar.
    pub(crate) fn finish(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.finish();
    }
}

fn step(done: f64) -> u64 {
    // From 0 to 1000.
    (done.clamp(0.0, 1.0) * STEPS as f64) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_layout_is_well_formed() {
        assert!(ProgressStyle::with_template(LAYOUT).is_ok());
        assert_eq!((step(-1.0), step(0.5), step(2.0)), (0, 500, 1000));
        assert_eq!(step(f64::NAN), 0);
    }
}
