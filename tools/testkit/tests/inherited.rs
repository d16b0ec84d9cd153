//! What a tool inherits from its parent process. This test program starts itself from a shell that
//! ignores signals, and checks its own signals.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test ends at what it did not expect"
)]

use std::process::Command;

use herd_testkit::signals;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

/// Runs one of the ignored tests below in its own process. The process inherits these signals as
/// ignored.
fn runs_with_ignored(signals: &str, test: &str) -> bool {
    let script = format!("trap '' {signals}; exec \"$0\" --ignored --exact {test}");
    let status = Command::new("sh")
        .args(["-c", &script])
        .arg(std::env::current_exe().unwrap())
        .status();
    status.unwrap().success()
}

#[test]
fn sighup_ends_a_tool_unless_it_is_ignored() {
    assert_eq!(signals::ends(), [SIGINT, SIGTERM, SIGHUP]);
    assert!(runs_with_ignored("HUP", "sighup_does_not_end_this_process"));
    // Ctrl-C and SIGTERM end a tool even if they were ignored.
    assert!(runs_with_ignored(
        "HUP INT TERM",
        "sighup_does_not_end_this_process"
    ));
}

#[test]
#[ignore = "run by another test, in a process of its own"]
fn sighup_does_not_end_this_process() {
    assert_eq!(signals::ends(), [SIGINT, SIGTERM]);
}

#[test]
fn children_can_be_waited_for_with_sigchld_ignored() {
    assert!(runs_with_ignored("CHLD", "this_process_waits_for_a_child"));
}

#[test]
#[ignore = "run by another test, in a process of its own"]
fn this_process_waits_for_a_child() {
    signals::keep_children().unwrap();
    let status = Command::new("sh").args(["-c", "exit 7"]).status();
    assert_eq!(status.unwrap().code(), Some(7));
}
