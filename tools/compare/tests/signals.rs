//! A signal ends the comparison and all its children.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test ends at what it did not expect"
)]

use std::fs;
use std::process::Command;

use herd_testkit::left_behind::{self, Program, SIGNALS};

#[test]
fn a_signal_ends_all_children_and_keeps_the_last_report() {
    if !left_behind::can_be_seen() {
        return;
    }
    for signal in SIGNALS {
        let place = tempfile::tempdir().unwrap();
        let logs = place.path().join("tmp");
        fs::create_dir(&logs).unwrap();
        let page_file = place.path().join("page.html");
        fs::write(&page_file, "an earlier report").unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_herd-compare"));
        // A load that would take an hour.
        command.args(["--worlds", "mio", "--settle", "3600"]);
        command.arg("--out").arg(&page_file);
        let mut comparison = Program::start(&mut command, &logs);
        comparison.await_child("herd-mio Riley ");
        comparison.await_child("herd-load iamat ");
        let said = comparison.end_with(signal);
        let words = format!("stopped by signal {}", signal.as_raw());
        assert!(said.contains(&words), "{said}");
        assert_eq!(fs::read_to_string(&page_file).unwrap(), "an earlier report");
        // There was no such file before.
        assert!(!page_file.with_extension("json").exists());
    }
}
