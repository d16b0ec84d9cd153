//! Every mode against real servers: what is measured is what was asked for, and all of it was
//! right.

#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test ends at what it did not expect"
)]

mod common;

use std::io::{BufRead, BufReader};
use std::process::Child;

use common::{Herd, end, run, spawn};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

fn number(value: &Value) -> f64 {
    value
        .as_f64()
        .unwrap_or_else(|| panic!("{value} is no number"))
}

/// Percentiles in order, of so many answers.
fn is_a_distribution(latency_us: &Value, count: u64) {
    assert_eq!(latency_us["count"], count, "{latency_us}");
    let keys = ["min", "p50", "p90", "p99", "p99_9", "p99_99", "max"];
    let values: Vec<f64> = keys.iter().map(|key| number(&latency_us[key])).collect();
    assert!(values.is_sorted(), "{latency_us}");
}

#[test]
fn a_closed_loop_sends_count_commands() {
    let herd = Herd::start(&["Riley"]);
    let pid = herd.pid(0);
    let arguments = "--connections 7 --depth 5 --count 3000 --warm-up 0.05 --clients 100 --json";
    let mut words = vec!["iamat", "Riley", "--config", &herd.config, "--pid", &pid];
    words.extend(arguments.split(' '));
    let figures = run(&words).figures();
    assert_eq!(figures["mode"], "iamat");
    assert_eq!(figures["server"]["name"], "Riley");
    assert_eq!(figures["parameters"]["connections"], 7);
    assert_eq!(figures["parameters"]["depth"], 5);
    assert_eq!(figures["parameters"]["clients"], 100);
    assert_eq!(figures["answers"], 3000);
    assert_eq!(figures["errors"], 0);
    assert_eq!(figures["unsent"], 0);
    assert_eq!(figures["interrupted"], false);
    is_a_distribution(&figures["latency_us"], 3000);
    assert_eq!(figures["series"][0]["name"], "IAMAT");
    is_a_distribution(&figures["series"][0]["latency_us"], 3000);
    let rate = 3000.0 / number(&figures["duration_s"]);
    assert!((number(&figures["rate_per_s"]) / rate - 1.0).abs() < 0.001);
    let process = &figures["processes"][0];
    assert_eq!(process["pid"].to_string(), pid);
    assert!(number(&process["rss_before_bytes"]) > 500_000.0);
    assert!(number(&process["rss_after_bytes"]) > 500_000.0);
    assert!(number(&process["user_ms"]) + number(&process["system_ms"]) < 60_000.0);
}

#[test]
fn a_closed_loop_runs_for_the_duration_at_an_address() {
    let herd = Herd::start(&["Riley"]);
    let address = herd.servers[0].address.to_string();
    let arguments = "--duration 0.3 --warm-up 0 --connections 3 --json --spin";
    let mut words = vec!["iamat", address.as_str()];
    words.extend(arguments.split(' '));
    let figures = run(&words).figures();
    assert_eq!(figures["server"]["name"], "Riley", "it said so itself");
    assert_eq!(figures["server"]["address"], address.as_str());
    assert_eq!(figures["duration_s"], 0.3);
    let answers = figures["answers"].as_u64().unwrap();
    assert!(answers > 0);
    is_a_distribution(&figures["latency_us"], answers);
}

#[test]
fn an_open_loop_sends_at_the_given_rate() {
    let herd = Herd::start(&["Riley"]);
    let arguments = "--duration 0.5 --warm-up 0.1 --connections 3 --rate 2000 --json";
    let mut words = vec!["iamat", "Riley", "--config", &herd.config];
    words.extend(arguments.split(' '));
    let figures = run(&words).figures();
    assert_eq!(figures["parameters"]["rate_per_s"], 2000.0);
    let answers = figures["answers"].as_u64().unwrap();
    assert!((999..=1001).contains(&answers), "{figures}");
    assert_eq!(figures["unsent"], 0);
    is_a_distribution(&figures["latency_us"], answers);

    let figures = {
        words.extend(["--count", "50"]);
        run(&words).figures()
    };
    assert_eq!(figures["answers"], 50);
}

#[test]
fn an_impossible_rate_is_reported() {
    let herd = Herd::start(&["Riley"]);
    let arguments = "--duration 0.2 --warm-up 0 --rate 100000000 --depth 4 --timeout 2";
    let mut words = vec!["iamat", "Riley", "--config", &herd.config];
    words.extend(arguments.split(' '));
    let ended = run(&words);
    assert_eq!(ended.status, Some(0), "{ended:?}");
    assert!(
        ended.stdout.contains("commands were due and never sent"),
        "{ended:?}"
    );
    words.push("--json");
    let figures = run(&words).figures();
    let (answers, unsent) = (number(&figures["answers"]), number(&figures["unsent"]));
    assert!(answers > 0.0 && unsent > 0.0, "{figures}");
    // What waited counts from when it was due: the slowest did for about as long as all of it took.
    assert!(
        number(&figures["latency_us"]["max"]) > 100_000.0,
        "{figures}"
    );
}

#[test]
fn whatsat_and_mix_modes_measure_places_answers() {
    let places = herd_places::Places::start(herd_places::Options {
        remember: false,
        ..herd_places::Options::default()
    })
    .unwrap();
    let directory = tempfile::tempdir().unwrap();
    let (ca, key) = (directory.path().join("ca"), directory.path().join("key"));
    std::fs::write(&ca, places.ca_pem()).unwrap();
    std::fs::write(&key, "test-key").unwrap();
    let url = places.url();
    let more = format!("[places]\nurl = {url:?}\nca_file = {ca:?}\nkey_file = {key:?}\n");
    let herd = Herd::start_with(&["Riley"], &[], "warn", &more);

    let arguments = "--count 200 --connections 4 --clients 50 --warm-up 0 --bound 3 --json";
    let mut words = vec!["whatsat", "Riley", "--config", &herd.config];
    words.extend(arguments.split(' '));
    let figures = run(&words).figures();
    assert_eq!(figures["answers"], 200);
    assert_eq!(figures["errors"], 0, "{figures}");
    assert_eq!(figures["series"][0]["name"], "WHATSAT");
    assert_eq!(figures["parameters"]["bound"], 3);

    words[0] = "mix";
    words.extend(["--whatsat", "25", "--depth", "3"]);
    let figures = run(&words).figures();
    assert_eq!(figures["answers"], 200);
    assert_eq!(figures["errors"], 0, "{figures}");
    let series = figures["series"].as_array().unwrap();
    let counts: Vec<(&str, u64)> = series
        .iter()
        .map(|part| {
            (
                part["name"].as_str().unwrap(),
                part["answers"].as_u64().unwrap(),
            )
        })
        .collect();
    assert_eq!(counts, [("both", 200), ("IAMAT", 150), ("WHATSAT", 50)]);
}

#[test]
fn places_errors_are_counted_and_shown() {
    let herd = Herd::start(&["Riley"]);
    let mut words = vec!["whatsat", "Riley", "--config", &herd.config];
    words.extend("--count 50 --clients 5 --warm-up 0".split(' '));
    let ended = run(&words);
    assert_eq!(ended.status, Some(0), "{ended:?}");
    let told = "note: 50 answers had an error of Places; the first error: UNKNOWN_ERROR: ";
    assert!(ended.stdout.contains(told), "{ended:?}");
    words.push("--json");
    let figures = run(&words).figures();
    assert_eq!(figures["errors"], 50);
    let error = figures["first_error"].as_str().unwrap();
    assert!(error.contains("no key"), "{error}");
}

#[test]
fn flood_mode_measures_every_other_server() {
    let herd = Herd::start(&["A", "B", "C"]);
    let mut words = vec!["flood", "A", "--config", &herd.config];
    words.extend("--count 20 --warm-up 0.1 --json".split(' '));
    let figures = run(&words).figures();
    assert_eq!(figures["answers"], 20);
    let series = figures["series"].as_array().unwrap();
    let names: Vec<&str> = series.iter().map(|s| s["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["all servers", "B", "C"]);
    for part in series {
        is_a_distribution(&part["latency_us"], 20);
    }
    let all = number(&series[0]["latency_us"]["max"]);
    let each = [&series[1], &series[2]].map(|part| number(&part["latency_us"]["max"]));
    assert_eq!(all, each[0].max(each[1]), "{figures}");
    let flood = &figures["flood"];
    is_a_distribution(&flood["since_sent_us"], 20);
    is_a_distribution(&flood["resolution_us"], 40);
    assert!(number(&flood["polls"]) >= 40.0);
    assert_eq!(flood["asked_places"], false);

    // Again, of the same servers: nobody knows these clients either. And not at once, but now and
    // then.
    words.extend(["--poll-interval", "2000"]);
    let ended = run(&words[..words.len() - 3]);
    assert!(ended.stdout.contains("rounds"), "{ended:?}");
    assert_eq!(
        run(&words).figures()["parameters"]["poll_interval_us"],
        2000
    );
}

#[test]
fn an_unlinked_server_is_named_in_flood_mode() {
    let herd = Herd::start_with(&["A", "B", "C"], &[("A", "B")], "warn", "");
    let words = ["flood", "A", "--config", &herd.config, "--timeout", "2"];
    let c = herd.servers[2].address;
    run(&words).failed(
        1,
        &[&format!(
            "the update did not reach C at {c} within 2.0 s; run herd-client status"
        )],
    );
}

#[test]
fn idle_mode_measures_memory_per_connection() {
    let herd = Herd::start(&["Riley"]);
    let pid = herd.pid(0);
    for speak in ["never", "once", "half"] {
        let mut words = vec!["idle", "Riley", "--config", &herd.config, "--pid", &pid];
        words.extend("--connections 300 --duration 0.2 --warm-up 0.05 --json".split(' '));
        words.extend(["--speak", speak]);
        let figures = run(&words).figures();
        assert_eq!(figures["parameters"]["speak"], speak);
        assert_eq!(figures["parameters"]["connections"], 300);
        let names: Vec<&str> = figures["series"]
            .as_array()
            .unwrap()
            .iter()
            .map(|series| series["name"].as_str().unwrap())
            .collect();
        assert_eq!(names, ["alone", "among them"]);
        let memory = &figures["idle"][0];
        assert_eq!(memory["pid"].to_string(), pid);
        let grown = number(&memory["rss_after_bytes"]) - number(&memory["rss_before_bytes"]);
        assert_eq!(number(&memory["bytes_per_connection"]), grown / 300.0);
        assert!((0.0..300.0 * 65_536.0).contains(&grown), "{memory}");
    }
}

#[test]
fn a_run_prints_a_table_and_writes_an_svg() {
    let herd = Herd::start(&["Riley"]);
    let picture = herd.directory().join("latency.svg");
    let path = picture.to_str().unwrap();
    let mut words = vec!["iamat", "Riley", "--config", &herd.config, "--svg", path];
    words.extend("--count 500 --warm-up 0".split(' '));
    let ended = run(&words);
    assert_eq!((ended.status, ended.stderr.as_str()), (Some(0), ""));
    assert!(ended.stdout.starts_with("iamat: Riley at "), "{ended:?}");
    for part in ["p99.9", "\nIAMAT ", " 500 ", "herd-load itself: "] {
        assert!(ended.stdout.contains(part), "{part} is not in {ended:?}");
    }
    let svg = std::fs::read_to_string(picture).unwrap();
    assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"));
}

#[test]
fn the_echo_server_answers_the_load_generator() {
    struct Echo(Child);
    impl Drop for Echo {
        fn drop(&mut self) {
            // It has ended, if the test went well.
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }
    let mut echo = Echo(spawn(&["echo"]));
    let mut ready = String::new();
    BufReader::new(echo.0.stdout.take().unwrap())
        .read_line(&mut ready)
        .unwrap();
    let address = ready
        .trim_end()
        .strip_prefix("herd-load echo: listening on ")
        .unwrap();
    let mut words = vec!["iamat", address];
    words.extend("--connections 20 --depth 200 --count 20000 --warm-up 0 --json".split(' '));
    let figures = run(&words).figures();
    assert_eq!(figures["server"]["name"], "Echo");
    assert_eq!(figures["answers"], 20_000);
    run(&["whatsat", address, "--count", "1"]).failed(1, &["? WHATSAT load-0000000 10 5"]);

    kill_process(Pid::from_child(&echo.0), Signal::TERM).unwrap();
    assert_eq!(echo.0.wait().unwrap().code(), Some(0));
}

#[test]
fn a_signal_ends_the_run_and_prints_the_figures() {
    for signal in [Signal::INT, Signal::TERM] {
        let (sender, heard) = std::sync::mpsc::channel();
        let address = common::play(move |session, line| {
            if session.lines == 100 {
                let _ = sender.send(());
            }
            Some(session.right(line))
        });
        let child = spawn(&[
            "iamat",
            &address,
            "--duration",
            "3600",
            "--warm-up",
            "0",
            "--json",
        ]);
        heard.recv_timeout(common::DEADLINE).unwrap();
        kill_process(Pid::from_child(&child), signal).unwrap();
        let figures = end(child).figures();
        assert_eq!(figures["interrupted"], true);
        assert!(number(&figures["answers"]) >= 90.0, "{figures}");
        assert!(number(&figures["duration_s"]) < 3600.0);
    }
}
