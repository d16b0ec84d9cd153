//! The progress bar. Without a terminal there is none.

use std::io::{self, IsTerminal};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

const LAYOUT: &str = "[{bar:30}] {pos}/{len} {elapsed} (left: {eta}) {msg}";

/// A bar, or none.
pub(crate) struct Progress {
    bar: Option<ProgressBar>,
}

impl Progress {
    /// Draws on the standard error, if that is a terminal.
    pub(crate) fn of(runs: usize) -> Progress {
        let bar = io::stderr().is_terminal().then(|| {
            let bar =
                ProgressBar::with_draw_target(Some(runs as u64), ProgressDrawTarget::stderr());
            // The layout is valid: a test checks it.
            if let Ok(style) = ProgressStyle::with_template(LAYOUT) {
                bar.set_style(style.progress_chars("=> "));
            }
            bar
        });
        Progress { bar }
    }

    /// Counts one more finished run.
    pub(crate) fn step(&self, what: String) {
        if let Some(bar) = &self.bar {
            bar.set_message(what);
            bar.inc(1);
        }
    }

    /// Hides the bar while `print` runs.
    pub(crate) fn aside(&self, print: impl FnOnce()) {
        match &self.bar {
            Some(bar) => bar.suspend(print),
            None => print(),
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_layout_is_well_formed() {
        assert!(ProgressStyle::with_template(LAYOUT).is_ok());
    }
}
