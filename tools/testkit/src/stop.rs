//! Ctrl-C, SIGTERM, and a terminal that is closed (unless `nohup` is to outlast it): the first is
//! noted, so that what was started can be ended and what was made be removed; a second one does not
//! wait.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use signal_hook::flag;

use crate::signals;

/// The signal that came, if one did.
#[derive(Clone, Debug)]
pub struct Stop(Arc<AtomicUsize>);

impl Stop {
    /// From now on these signals are only noted, the first time.
    ///
    /// # Errors
    /// The system does not let them be caught.
    pub fn catch() -> io::Result<Stop> {
        let which = Arc::new(AtomicUsize::new(0));
        signals::keep_children()?;
        for signal in signals::ends() {
            let came_before = Arc::new(AtomicBool::new(false));
            // In this order: the second one finds the flag that the first one left.
            flag::register_conditional_shutdown(signal, 128 + signal, came_before.clone())?;
            flag::register(signal, came_before)?;
            flag::register_usize(signal, which.clone(), signal as usize)?;
        }
        Ok(Stop(which))
    }

    /// Which one came.
    #[must_use]
    pub fn signal(&self) -> Option<u8> {
        let signal = self.0.load(Ordering::Relaxed);
        u8::try_from(signal).ok().filter(|signal| *signal > 0)
    }
}
