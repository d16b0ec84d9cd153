//! The signal mask and the dispositions that a tool inherits from its starter, also across `exec`.
//!
//! | the starter | the tool |
//! |---|---|
//! | blocked a signal | unblocks it: Ctrl-C and SIGTERM end a tool wherever it was started |
//! | ignores SIGHUP (`nohup`) | goes on when the terminal is closed |
//! | ignores SIGCHLD | replaces that: no status of a child could be waited for (wait(2)) |

use std::io;
use std::sync::Arc;

use nix::sys::signal::{SigSet, Signal};
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;

/// To be called first of all, by every program: threads inherit the mask.
pub fn unblock() {
    let signals = [
        Signal::SIGINT,
        Signal::SIGTERM,
        Signal::SIGHUP,
        Signal::SIGQUIT,
        Signal::SIGTSTP,
    ];
    // These are signals, and this is their mask: it does not fail.
    let _ = signals.into_iter().collect::<SigSet>().thread_unblock();
}

/// Signals that end a tool in order: SIGINT, SIGTERM, and SIGHUP unless it was ignored when this is
/// first called.
#[must_use]
pub fn ends() -> Vec<i32> {
    let mut signals = vec![SIGINT, SIGTERM];
    if !is_ignored(SIGHUP) {
        signals.push(SIGHUP);
    }
    signals
}

/// Lets children be waited for, also if the starter ignores SIGCHLD.
///
/// # Errors
/// The system does not let it be caught.
pub fn keep_children() -> io::Result<()> {
    flag::register(SIGCHLD, Arc::default()).map(drop)
}

/// Whether this process ignores a signal. Only Linux tells without unsafe code; elsewhere no signal
/// counts as ignored.
fn is_ignored(signal: i32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status
        .lines()
        .find_map(|line| line.strip_prefix("SigIgn:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    ignored.is_some_and(|mask| mask >> (signal - 1) & 1 == 1)
}
