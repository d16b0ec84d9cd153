//! Catches Ctrl-C, SIGTERM and a closed terminal (except under `nohup`). The first signal is only
//! noted, so that the tool can end its children and remove its files. A second one ends the tool at
//! once.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use signal_hook::flag;

use crate::signals;

/// The signal that came first, if one came.
#[derive(Clone, Debug)]
pub struct Stop(Arc<AtomicUsize>);

impl Stop {
    /// From now on the first of these signals is only noted.
    ///
    /// # Errors
    /// The system refuses a handler.
    pub fn catch() -> io::Result<Stop> {
        let which = Arc::new(AtomicUsize::new(0));
        signals::keep_children()?;
        for signal in signals::ends() {
            let came_before = Arc::new(AtomicBool::new(false));
            // The order matters: the shutdown on a second signal must read the flag before this
            // signal sets it.
            flag::register_conditional_shutdown(signal, 128 + signal, came_before.clone())?;
            flag::register(signal, came_before)?;
            flag::register_usize(signal, which.clone(), signal as usize)?;
        }
        Ok(Stop(which))
    }

    /// The signal that came.
    #[must_use]
    pub fn signal(&self) -> Option<u8> {
        let signal = self.0.load(Ordering::Relaxed);
        u8::try_from(signal).ok().filter(|signal| *signal > 0)
    }
}
