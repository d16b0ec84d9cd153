//! Ctrl-C and SIGTERM: the first one ends the measuring, a second one ends the program.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

use herd_testkit::failure::Failure;

/// Whether somebody wants this to end.
#[derive(Clone)]
pub(crate) struct Stop(Arc<AtomicBool>);

impl Stop {
    /// Begins to listen for signals. They also interrupt a poll that waits, so that the flag is looked at soon.
    pub(crate) fn listen() -> io::Result<Stop> {
        let stop = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM] {
            // In this order: the first signal finds the flag down, and raises it; the next one finds it up.
            flag::register_conditional_shutdown(signal, 128 + signal, stop.clone())?;
            flag::register(signal, stop.clone())?;
        }
        Ok(Stop(stop))
    }

    /// No signal ends it.
    #[cfg(test)]
    pub(crate) fn never() -> Stop {
        Stop(Arc::default())
    }

    /// Whether a signal came.
    pub(crate) fn is_wanted(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// A signal ended it before there was anything to print.
pub(crate) fn before_measuring() -> Failure {
    Failure::Failed("stopped by a signal before anything was measured".into())
}
