//! The progress bar, if there is a terminal to show it: nothing at all of it if not.

use std::io::{self, IsTerminal};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

const LAYOUT: &str = "[{bar:30}] {pos}/{len} {elapsed} (left: {eta}) {msg}";

/// A bar, or nothing.
pub(crate) struct Progress {
    bar: Option<ProgressBar>,
}

impl Progress {
    /// Draws on the standard error, if that is a terminal.
    pub(crate) fn of(runs: usize) -> Progress {
        let bar = io::stderr().is_terminal().then(|| {
            let bar =
                ProgressBar::with_draw_target(Some(runs as u64), ProgressDrawTarget::stderr());
            // The layout is right: a test looks at it.
            if let Ok(style) = ProgressStyle::with_template(LAYOUT) {
                bar.set_style(style.progress_chars("=> "));
            }
            bar
        });
        Progress { bar }
    }

    /// One more run is over.
    pub(crate) fn step(&self, what: String) {
        if let Some(bar) = &self.bar {
            bar.set_message(what);
            bar.inc(1);
        }
    }

    /// Lets something be printed that the bar must not disturb.
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
