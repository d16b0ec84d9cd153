//! Servers that go away, come back, or freeze while they are loaded: the run goes on, and what has
//! no answer is counted.

#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test ends at what it did not expect"
)]

mod common;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use common::{DEADLINE, Ended, Herd, Running, play};
use rustix::process::Signal;
use serde_json::Value;

/// Longer than any test: the run is ended by a signal, once what was waited for has come.
const LONG: &str = "--warm-up 0 --duration 3600";

/// The program with these arguments against the first server of a herd.
fn load(herd: &Herd, mode: &str, options: &str) -> Running {
    let mut words = vec![mode, "Riley", "--config", &herd.config];
    words.extend(options.split_whitespace());
    Running::start(&words)
}

/// The same against the server at an address.
fn load_at(address: &str, options: &str) -> Running {
    let mut words = vec!["iamat", address];
    words.extend(options.split_whitespace());
    Running::start(&words)
}

fn number(value: &Value) -> f64 {
    value
        .as_f64()
        .unwrap_or_else(|| panic!("no number: {value}"))
}

/// A herd of one that logs each command.
fn talkative() -> Herd {
    Herd::start_with(&["Riley"], &[], "info", "")
}

#[test]
fn a_closed_loop_continues_after_a_server_restart() {
    let mut herd = talkative();
    let pid = herd.pid(0);
    let mut load = load(
        &herd,
        "iamat",
        &format!("-c 5 --depth 2 {LONG} --json --pid {pid}"),
    );
    herd.servers[0].wait_for_nth_log(200, "<- IAMAT", "");
    herd.kill(0);
    load.wait_for("; trying again\n");
    thread::sleep(Duration::from_millis(500)); // the outage
    herd.start_again(0);
    load.wait_for("reconnected to Riley at ");
    herd.servers[0].wait_for_nth_log(200, "<- IAMAT", "");
    let figures = load.interrupt().incomplete(&[
        "; reconnecting\n",
        "Connection refused (os error 111); no server listens there; start it with herd-mio Riley; trying again\n",
        "lost with a connection (longest wait ",
    ]);
    let lost = number(&figures["lost"]);
    assert!((1.0..=10.0).contains(&lost), "{figures}");
    assert!(number(&figures["oldest_lost_ms"]) < 60_000.0);
    assert_eq!(figures["connections_lost"], 5, "{figures}");
    assert_eq!(figures["connections_remade"], 5);
    assert_eq!(
        (&figures["unanswered"], &figures["trouble"]),
        (&0.into(), &Value::Null)
    );
    assert!(number(&figures["disconnected_s"]) >= 0.5, "{figures}");
    let outage = &figures["outages"][0];
    assert_eq!(
        (&outage["is_over"], &outage["connections"]),
        (&true.into(), &5.into())
    );
    assert!(
        number(&outage["duration_s"]) >= number(&outage["disconnected_s"]),
        "{figures}"
    );
    // The process that was watched is not there any more.
    assert_eq!(figures["processes"][0]["ended"], true);
}

#[test]
fn an_open_loop_sends_commands_due_in_an_outage_late() {
    let mut herd = talkative();
    let options = "-c 4 --rate 250 --warm-up 0.2 --duration 8 --json";
    let mut load = load(&herd, "iamat", options);
    herd.servers[0].wait_for_nth_log(150, "<- IAMAT", "");
    herd.kill(0);
    load.wait_for("; trying again\n");
    thread::sleep(Duration::from_millis(700)); // the outage
    herd.start_again(0);
    let ended = load.end();
    // At this rate it may be that none was in flight when the server was killed.
    let figures: Value = serde_json::from_str(&ended.stdout).unwrap();
    let [answers, lost] = ["answers", "lost"].map(|field| number(&figures[field]));
    assert_eq!(ended.status, Some(i32::from(lost > 0.0)), "{ended:?}");
    assert_eq!(
        (&figures["unsent"], &figures["unanswered"]),
        (&0.into(), &0.into())
    );
    // All that was due was answered or lost (in the warm-up too, if it was lost there).
    assert!((1999.0..=2050.0).contains(&(answers + lost)), "{figures}");
    // Who was due at the beginning of the outage waited for about all of it.
    let longest_us = number(&figures["outages"][0]["duration_s"]) * 1e6;
    let max_us = number(&figures["latency_us"]["max"]);
    assert!(
        longest_us >= 700_000.0 && max_us > longest_us * 0.8,
        "{figures}"
    );
    // The outage is a gap in the course of the run, in intervals of 100 ms.
    assert_eq!(figures["over_time"]["interval_s"], 0.1);
    let points = figures["over_time"]["points"].as_array().unwrap();
    let gap = points.iter().filter(|point| point["p50_us"].is_null());
    assert!(gap.count() >= 5, "{figures}");
    let sum: f64 = points.iter().map(|point| number(&point["answers"])).sum();
    assert_eq!(sum, answers);
}

#[test]
fn clients_repeat_their_iamat_after_a_restart() {
    let mut herd = talkative();
    let load = load(
        &herd,
        "whatsat",
        &format!("-c 3 --clients 300 {LONG} --json"),
    );
    herd.servers[0].wait_for_nth_log(50, "<- WHATSAT", "");
    herd.kill(0);
    herd.start_again(0);
    herd.servers[0].wait_for_nth_log(300, "<- IAMAT", "");
    herd.servers[0].wait_for_nth_log(100, "<- WHATSAT", "");
    let figures = load.interrupt().incomplete(&["lost with a connection"]);
    assert_eq!(figures["connections_remade"], 3);
    assert_eq!(figures["series"][0]["name"], "WHATSAT");
}

/// A server that answers so many commands, and then is gone.
fn mortal(commands: usize) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    thread::spawn(move || {
        // The first connection asks for the name.
        for commands in [1, commands] {
            let (mut stream, _) = listener.accept().unwrap();
            let mut session = common::Session::default();
            let lines = BufReader::new(stream.try_clone().unwrap()).lines();
            for line in lines.map_while(Result::ok).take(commands) {
                let answer = session.right(&line);
                stream.write_all(answer.as_bytes()).unwrap();
            }
        }
    });
    address
}

#[test]
fn a_server_that_does_not_restart_fails_the_run() {
    let ended = load_at(&mortal(50), "--warm-up 0 --duration 2 --json").end();
    let figures = ended.incomplete(&[
        "1 of 1 connections to Played at ",
        " were lost, and reconnecting failed; the last attempt: cannot connect to ",
        "Connection refused",
    ]);
    assert_eq!(figures["duration_s"], 2.0, "it ended as planned");
    assert_eq!(figures["connections_remade"], 0);
    assert_eq!(figures["outages"][0]["is_over"], false);
    // Each kind of trouble is told once, however often it is tried.
    let refused = ended.stderr.matches("; trying again\n").count();
    assert_eq!(refused, 1, "{ended:?}");
}

#[test]
fn an_open_loop_reports_unsent_commands() {
    let ended = load_at(
        &mortal(50),
        "--rate 100 --warm-up 0 --duration 2 --timeout 1",
    )
    .end();
    assert_eq!(ended.status, Some(1), "{ended:?}");
    let note = "commands were due and never sent, because ";
    assert!(ended.stdout.contains(note), "{ended:?}");
    assert!(
        ended.stdout.contains("the server was down, or is too slow"),
        "{ended:?}"
    );
    // They waited longer than the slowest that was answered.
    assert!(row(&ended).contains("  > "), "{ended:?}");
}

/// The first row of the table.
fn row(ended: &Ended) -> &str {
    ended
        .stdout
        .lines()
        .find(|line| line.starts_with("IAMAT"))
        .unwrap()
}

/// Freezes a server under load; ends the load by a signal half a second later.
fn frozen(mode: &str, options: &str, names: &[&str]) -> Ended {
    let links: Vec<_> = names.windows(2).map(|pair| (pair[0], pair[1])).collect();
    let herd = Herd::start_with(names, &links, "info", "");
    let load = load(&herd, mode, options);
    herd.servers[0].wait_for_nth_log(50, "<- IAMAT", "");
    herd.servers[0].signal(Signal::STOP);
    thread::sleep(Duration::from_millis(500)); // frozen
    let ended = load.interrupt();
    herd.servers[0].signal(Signal::CONT);
    ended
}

#[test]
fn unanswered_commands_at_a_stop_are_counted() {
    let options = "-c 3 --warm-up 0 --duration 3600";
    let figures = frozen("iamat", &format!("{options} --json"), &["Riley"])
        .incomplete(&["3 commands without an answer at the end (longest wait "]);
    assert_eq!(figures["interrupted"], true);
    assert_eq!(figures["unanswered"], 3, "{figures}");
    let oldest_ms = number(&figures["oldest_unanswered_ms"]);
    assert!((500.0..30_000.0).contains(&oldest_ms), "{figures}");
    // Frozen in the warm-up, too: nothing counts yet, and three wait.
    let figures = frozen("iamat", "-c 3 --warm-up 3600 --json", &["Riley"]).incomplete(&[]);
    assert_eq!(
        (&figures["unanswered"], &figures["answers"]),
        (&3.into(), &0.into())
    );

    let ended = frozen("iamat", options, &["Riley"]);
    assert_eq!(ended.status, Some(1));
    assert!(
        row(&ended).contains("  > "),
        "max is more than any answer took: {ended:?}"
    );
    assert!(
        ended
            .stdout
            .contains("\nunanswered: 3 at the end; longest wait "),
        "{ended:?}"
    );
}

#[test]
fn unanswered_commands_are_counted_in_every_mode() {
    let figures = frozen(
        "mix",
        "--whatsat 50 --clients 60 --json --duration 3600",
        &["Riley"],
    )
    .incomplete(&["1 command without an answer"]);
    assert_eq!(figures["unanswered"], 1);
    let figures = frozen("idle", "-c 3 --duration 3600 --json", &["Riley"])
        .incomplete(&["1 command without an answer"]);
    assert_eq!(figures["unanswered"], 1);
    let figures = frozen("flood", "--duration 3600 --json", &["Riley", "B"])
        .incomplete(&["1 command without an answer"]);
    assert_eq!(figures["unanswered"], 1);
    assert!(number(&figures["oldest_unanswered_ms"]) > 500.0);
}

#[test]
fn a_command_lost_to_a_frozen_server_has_its_full_wait() {
    let mut herd = talkative();
    let mut load = load(&herd, "iamat", LONG);
    herd.servers[0].wait_for_nth_log(50, "<- IAMAT", "");
    herd.servers[0].signal(Signal::STOP);
    thread::sleep(Duration::from_millis(600)); // frozen
    herd.kill(0);
    load.wait_for("; reconnecting\n");
    herd.start_again(0);
    load.wait_for("reconnected to Riley at ");
    let ended = load.interrupt();
    assert_eq!(ended.status, Some(1), "{ended:?}");
    let told = "\nlost: 1 in flight on a lost connection";
    assert!(ended.stdout.contains(told), "{ended:?}");
    let oldest = ended.stdout.split("longest wait ").nth(1).unwrap();
    let oldest_ms: f64 = oldest.split(' ').next().unwrap().parse().unwrap();
    assert!(oldest.contains(" s;") || oldest_ms >= 500.0, "{ended:?}");
}

/// Plays a server that cuts one connection, of this number, after thirty answers; the first
/// connection, of number 0, asks for the name. Counts the connections, and tells of the second line
/// on each.
fn cutting(number: usize) -> (String, Arc<AtomicUsize>, Receiver<usize>) {
    let connections = Arc::new(AtomicUsize::new(0));
    let count = connections.clone();
    let (sender, spoken) = channel();
    let address = play(move |session, line| {
        if session.lines == 0 {
            session.number = count.fetch_add(1, Ordering::SeqCst);
        }
        if session.lines == 1 {
            let _ = sender.send(session.number);
        }
        let is_cut = session.number == number && session.lines == 30;
        (!is_cut).then(|| session.right(line))
    });
    (address, connections, spoken)
}

#[test]
fn a_lost_connection_is_redialled_beside_the_others() {
    let (address, connections, spoken) = cutting(3);
    let load = load_at(&address, &format!("-c 3 {LONG} --json"));
    while spoken.recv_timeout(DEADLINE).unwrap() != 4 {}
    let figures = load
        .interrupt()
        .incomplete(&["1 command lost with a connection"]);
    assert_eq!(figures["lost"], 1);
    assert_eq!(figures["connections_lost"], 1);
    assert_eq!(figures["connections_remade"], 1);
    assert_eq!(figures["disconnected_s"], 0.0);
    assert_eq!(figures["outages"][0]["connections"], 1);
    assert_eq!(connections.load(Ordering::SeqCst), 5);
}

#[test]
fn a_run_with_count_ends_despite_a_lost_command() {
    let (address, ..) = cutting(3);
    let options = "-c 3 --count 3000 --warm-up 0 --duration 3600 --json";
    let figures = load_at(&address, options)
        .end()
        .incomplete(&["1 command lost"]);
    assert_eq!(
        (&figures["answers"], &figures["lost"]),
        (&2999.into(), &1.into())
    );
    assert!(number(&figures["duration_s"]) < 3599.0, "{figures}");
}

#[test]
fn redials_back_off_from_a_closing_server() {
    let connections = Arc::new(AtomicUsize::new(0));
    let count = connections.clone();
    let address = play(move |session, line| {
        if session.lines == 0 {
            session.number = count.fetch_add(1, Ordering::SeqCst);
        }
        let is_cut = session.number > 10 || session.lines == 20;
        (!is_cut).then(|| session.right(line))
    });
    let ended = load_at(&address, "-c 10 --warm-up 0 --duration 3 --json").end();
    let figures = ended.incomplete(&["connections to Played at "]);
    assert_eq!(figures["connections_remade"], 0, "{figures}");
    // The first eleven, up to ten at once, and then one by one with longer and longer waits.
    let connections = connections.load(Ordering::SeqCst);
    assert!((12..40).contains(&connections), "{connections}");
}

#[test]
fn a_signal_waits_for_commands_in_flight() {
    let (sender, asked) = channel();
    let address = play(move |session, line| {
        if session.lines == 10 {
            sender.send(()).unwrap();
            thread::sleep(Duration::from_millis(300)); // a slow answer
        }
        Some(session.right(line))
    });
    let load = load_at(&address, &format!("{LONG} --json"));
    asked.recv_timeout(DEADLINE).unwrap();
    let figures = load.interrupt().figures();
    assert_eq!(
        (&figures["answers"], &figures["unanswered"]),
        (&10.into(), &0.into())
    );
    assert_eq!(figures["interrupted"], true);
}

/// Accepts connections, reads from them, and answers nothing.
fn silent() -> (String, Receiver<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (sender, asked) = channel();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let sender = sender.clone();
            thread::spawn(move || {
                let mut stream = stream.unwrap();
                while stream.read(&mut [0; 1000]).unwrap_or(0) > 0 {
                    let _ = sender.send(());
                }
            });
        }
    });
    (address, asked)
}

#[test]
fn a_signal_ends_the_wait_for_a_silent_server() {
    for options in ["", "--tls"].repeat(5) {
        let (address, asked) = silent();
        // It would wait for an hour, and the test does not.
        let load = load_at(&address, &format!("--timeout 3600 {options}"));
        asked.recv_timeout(DEADLINE).unwrap();
        load.signal(Signal::TERM);
        let ended = load.end();
        ended.failed(1, &["a signal ended the run before the measurement"]);
    }
}

#[test]
fn a_second_signal_ends_the_run_at_once() {
    let (sender, asked) = channel();
    let address = play(move |session, line| {
        if session.lines == 10 {
            sender.send(()).unwrap();
            thread::sleep(DEADLINE);
        }
        Some(session.right(line))
    });
    let load = load_at(&address, LONG);
    asked.recv_timeout(DEADLINE).unwrap();
    load.signal(Signal::INT);
    // Two signals that come together are one to the system; the first one is to be seen first.
    thread::sleep(Duration::from_millis(200));
    let ended = load.interrupt();
    assert_eq!(
        (ended.status, ended.stdout.as_str()),
        (Some(130), ""),
        "{ended:?}"
    );
}
