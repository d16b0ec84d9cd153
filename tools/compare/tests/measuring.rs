//! A whole comparison, as short as possible, of the one world that every machine can build.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test ends at what it did not expect"
)]

use std::fs;
use std::process::Command;

use herd_compare::worlds::WORLDS;
use serde_json::Value;

#[test]
fn a_short_comparison_measures_mio() {
    let place = tempfile::tempdir().unwrap();
    let page_file = place.path().join("page.html");
    let mut command = Command::new(env!("CARGO_BIN_EXE_herd-compare"));
    command.args(["--quick", "--worlds", "mio", "--rounds", "1"]);
    command.args(["--duration", "0.05", "--settle", "0.05", "--idle", "50"]);
    let output = command.arg("--out").arg(&page_file).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.contains("measured targets are reached"), "{said}");

    let page = fs::read_to_string(&page_file).unwrap();
    assert!(page.starts_with("<!DOCTYPE html>") && page.ends_with("</html>\n"));
    assert!(!page.contains("http://") && !page.contains("https://"));
    assert!(page.contains("the servers were built without optimization"));
    assert!(page.contains("skipped: not selected (--worlds)"));

    let json = fs::read_to_string(place.path().join("page.json")).unwrap();
    let json: Value = serde_json::from_str(&json).unwrap();
    let worlds = json["worlds"].as_array().unwrap();
    assert_eq!(worlds.len(), WORLDS.len());
    for (world, told) in WORLDS.iter().zip(worlds) {
        assert_eq!(told["name"], world.name);
        assert_eq!(told["measured"], world.name == "mio", "{told}");
    }
    let figures = json["figures"].as_array().unwrap();
    let median = |name: &str, connections: Option<u64>| {
        let found = figures.iter().find(|figure| {
            figure["world"] == "mio"
                && figure["figure"] == name
                && figure["connections"].as_u64() == connections
        });
        found.unwrap_or_else(|| panic!("{name} is not there"))["median"].clone()
    };
    for connections in [1, 50] {
        for name in ["rate_per_s", "latency_p50_us", "latency_p99_9_us"] {
            assert!(
                median(name, Some(connections)).as_f64().unwrap() > 0.0,
                "{name}"
            );
        }
    }
    for name in [
        "flood_p50_us",
        "converged_updates_per_s",
        "recovery_ms",
        "idle_connection_bytes",
        "lines_of_code",
    ] {
        assert!(median(name, None).is_number(), "{name}");
    }
}

#[test]
fn an_unwritable_page_is_reported_before_the_build() {
    let place = tempfile::tempdir().unwrap();
    let nowhere = place.path().join("no/such/directory/page.html");
    let mut command = Command::new(env!("CARGO_BIN_EXE_herd-compare"));
    let output = command.arg("--out").arg(nowhere).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{errors}");
    assert!(errors.contains("cannot write "), "{errors}");
}
