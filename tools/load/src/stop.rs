//! Ctrl-C and SIGTERM. The first signal ends the measurement, a second one ends the program.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

use herd_testkit::failure::Failure;

/// Whether a signal has come.
#[derive(Clone)]
pub(crate) struct Stop(Arc<AtomicBool>);

impl Stop {
    /// Starts to listen for signals. A signal also interrupts a waiting poll, so the flag is
    /// checked soon.
    pub(crate) fn listen() -> io::Result<Stop> {
        let stop = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM] {
            // The order matters: at the first signal the flag is not set yet. The second handler
            // then sets it.
            flag::register_conditional_shutdown(signal, 128 + signal, stop.clone())?;
            flag::register(signal, stop.clone())?;
        }
        Ok(Stop(stop))
    }

    /// A flag that no signal sets.
    #[cfg(test)]
    pub(crate) fn never() -> Stop {
        Stop(Arc::default())
    }

    /// Whether a signal came.
    pub(crate) fn is_wanted(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// The failure if a signal came before there were figures.
pub(crate) fn before_measuring() -> Failure {
    Failure::Failed("a signal ended the run before the measurement".into())
}
