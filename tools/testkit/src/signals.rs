//! The signal mask and the dispositions that a tool inherits from its parent process, also across
//! `exec`.
//!
//! | the parent | the tool |
//! |---|---|
//! | blocked a signal | unblocks it, so that Ctrl-C and SIGTERM always end a tool |
//! | ignores SIGHUP (`nohup`) | keeps running when the terminal is closed |
//! | ignores SIGCHLD | replaces that, because wait(2) would not return a child's status |

use std::io;
use std::sync::Arc;

use nix::sys::signal::{SigSet, Signal};
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;

/// Unblocks the signals. Every program calls this first, because threads inherit the mask.
pub fn unblock() {
    let signals = [
        Signal::SIGINT,
        Signal::SIGTERM,
        Signal::SIGHUP,
        Signal::SIGQUIT,
        Signal::SIGTSTP,
    ];
    // This cannot fail: all of these are valid signals.
    let _ = signals.into_iter().collect::<SigSet>().thread_unblock();
}

/// The signals on which a tool cleans up and ends: SIGINT, SIGTERM, and SIGHUP. SIGHUP is left out
/// if it was ignored before the first call.
#[must_use]
pub fn ends() -> Vec<i32> {
    let mut signals = vec![SIGINT, SIGTERM];
    if !is_ignored(SIGHUP) {
        signals.push(SIGHUP);
    }
    signals
}

/// Makes it possible to wait for children, even if the parent process ignores SIGCHLD.
///
/// # Errors
/// The system refuses a handler for SIGCHLD.
pub fn keep_children() -> io::Result<()> {
    flag::register(SIGCHLD, Arc::default()).map(drop)
}

/// Whether this process ignores a signal. Without unsafe code only Linux can tell. Elsewhere no
/// signal counts as ignored.
fn is_ignored(signal: i32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status
        .lines()
        .find_map(|line| line.strip_prefix("SigIgn:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    ignored.is_some_and(|mask| mask >> (signal - 1) & 1 == 1)
}
