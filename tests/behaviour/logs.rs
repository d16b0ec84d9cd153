//! The log: one line for each event, nothing unescaped from outside, and never in the way of the
//! server.

use std::fs;

use herd_testkit::client::wait_until;
use herd_testkit::herd::{Herd, Server};

use crate::places::stand_in;

/// Starts a server that logs to this file.
fn logging_to(herd: &Herd, path: &str) -> Server {
    let mut command = herd.command("Riley");
    command.args(["--log-file", path]);
    Server::start(&mut command)
}

#[test]
fn each_event_is_logged_in_one_line() {
    let places = stand_in();
    let server = Herd::single().asking(&places).level("info").start("Riley");
    let mut client = server.client();
    let from = client.stream().local_addr().unwrap();
    let at = client.ask("IAMAT x +1+2 3");
    client.send("WHATSAT x 10 5\n").places();
    client.send("no\n").expect("? no\n");
    let log = server.stop();
    for line in &log {
        let (time, rest) = line.split_once(' ').unwrap();
        assert_eq!(time.len(), "2026-11-21T00:41:37.655376Z".len(), "{line}");
        assert!(
            time.ends_with('Z') && time.as_bytes()[10] == b'T' && time.as_bytes()[19] == b'.',
            "{line}"
        );
        assert!(
            ["[INFO ] ", "[WARN ] "]
                .iter()
                .any(|level| rest.starts_with(level)),
            "{line}"
        );
    }
    let has = |text: &str| {
        assert!(
            log.iter().any(|line| line.contains(text)),
            "{text} in {log:#?}"
        )
    };
    has(&format!(" {from} <- IAMAT x +1+2 3"));
    has(&format!(" {from} -> {at}"));
    has(&format!(" {from} <- WHATSAT x 10 5"));
    has(&format!(" {from} -> {at} and "));
    has(" bytes of JSON, from Places");
    has("places call 1 1,2 within 10000 m: HTTP 200, ");
    has(&format!(" {from} <- no"));
    has(&format!(" {from} -> ? no"));
}

#[test]
fn outside_bytes_are_escaped_in_the_log() {
    let herd = Herd::single();
    let server = logging_to(&herd, "own.log");
    server
        .client()
        .send(b"a\x1b[31m\x07\\\xff\x00b\rc\td\xc2\x9b\n")
        .expect(b"? a\x1b[31m\x07\\\xff\x00b\rc\td\xc2\x9b\n");
    server.stop();
    let log = fs::read(herd.directory.path().join("own.log")).unwrap();
    assert!(log.iter().all(|byte| matches!(byte, b'\n' | b' '..=b'~')));
    let text = String::from_utf8(log).unwrap();
    assert!(
        text.contains(r"<- a\x1b[31m\x07\x5c\xff\x00b\x0dc\x09d\xc2\x9b"),
        "{text}"
    );
}

#[test]
fn an_existing_log_file_is_appended_to() {
    let herd = Herd::single();
    for _ in 0..2 {
        logging_to(&herd, "own.log").stop();
    }
    let text = fs::read_to_string(herd.directory.path().join("own.log")).unwrap();
    assert_eq!(text.matches("clients on").count(), 2);
    assert_eq!(text.matches("stopped").count(), 2);
}

#[test]
fn a_full_log_disk_is_logged_and_stops_no_client() {
    let herd = Herd::single();
    let server = logging_to(&herd, "/dev/full");
    server.wait_for_log(
        "cannot write the log /dev/full: No space left on device",
        "",
    );
    for _ in 0..100 {
        server.client().send("x\n").expect("? x\n");
    }
    let log = server.stop();
    assert_eq!(log.len(), 1, "told once: {log:?}");
}

#[test]
fn a_blocked_log_pipe_drops_and_counts_lines() {
    let herd = Herd::single().with("[limits]\nlog_buffer_bytes = 20000\nlog_faults_bytes = 1000000000\nlog_client_faults_bytes = 1000000000\n");
    let pipe = herd.directory.path().join("pipe");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &pipe,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
        0,
    )
    .unwrap();
    // Opened for both reading and writing, because opening only one end would block. The test does
    // not read yet.
    let mut reader = fs::File::options()
        .read(true)
        .write(true)
        .open(&pipe)
        .unwrap();
    let server = logging_to(&herd, "pipe");
    let mut client = server.client();
    for round in 0..3000 {
        client.send(format!("{round}{}\n", "x".repeat(100))).line();
    }
    let drained = std::sync::Arc::new(std::sync::Mutex::new(String::new()));
    std::thread::spawn({
        let drained = drained.clone();
        move || {
            let mut buffer = [0; 4096];
            while let Ok(count) = std::io::Read::read(&mut reader, &mut buffer) {
                drained
                    .lock()
                    .unwrap()
                    .push_str(&String::from_utf8_lossy(&buffer[..count]));
            }
        }
    });
    let lost = || {
        let text = drained.lock().unwrap();
        let told = |line: &str| {
            line.split_once("log: ")?
                .1
                .split(' ')
                .next()?
                .parse::<u64>()
                .ok()
        };
        text.lines().filter_map(told).sum::<u64>()
    };
    // Of about 6,000 lines, some 20,000 bytes and the content of the pipe are kept. One or more
    // lines count the rest.
    wait_until("the lost lines are counted", || {
        client.send("again\n").line();
        lost() > 1000
    });
    let text = drained.lock().unwrap().clone();
    let (text, _unfinished) = text.rsplit_once('\n').unwrap();
    assert!(
        text.lines()
            .all(|line| line.starts_with("20") || line.is_empty()),
        "every line is whole"
    );
}

#[test]
fn a_blocked_log_pipe_does_not_delay_the_stop() {
    let herd = Herd::single()
        .with("[limits]\nlog_faults_bytes = 1000000000\nlog_client_faults_bytes = 1000000000\n");
    let pipe = herd.directory.path().join("pipe");
    let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    let _reader_who_never_reads = fs::File::options()
        .read(true)
        .write(true)
        .open(&pipe)
        .unwrap();
    let server = logging_to(&herd, "pipe");
    let mut client = server.client();
    for _ in 0..1500 {
        client.send(format!("{}\n", "x".repeat(100))).line();
    }
    drop(client);
    let begun = std::time::Instant::now();
    server.stop();
    assert!(
        begun.elapsed() < std::time::Duration::from_secs(5),
        "{:?}",
        begun.elapsed()
    );
}

#[test]
fn sighup_reopens_the_log() {
    let herd = Herd::single();
    let server = logging_to(&herd, "own.log");
    let (path, moved) = (
        herd.directory.path().join("own.log"),
        herd.directory.path().join("own.log.1"),
    );
    let mut client = server.client();
    client.send("before\n").line();
    let has = |path: &std::path::Path, text: &str| {
        fs::read_to_string(path).is_ok_and(|log| log.contains(text))
    };
    wait_until("the first line is written", || has(&path, "<- before"));
    fs::rename(&path, &moved).unwrap();
    server.signal(rustix::process::Signal::HUP);
    wait_until("lines go to the new file", || {
        client.send("after\n").line();
        has(&path, "<- after")
    });
    assert!(has(&moved, "<- before") && !has(&path, "<- before"));
}

#[test]
fn an_idle_server_reopens_its_log_at_once() {
    for signal in [rustix::process::Signal::HUP, rustix::process::Signal::USR1] {
        for level in ["info", "off"] {
            let herd = Herd::single().level(level);
            let server = logging_to(&herd, "own.log");
            let path = herd.directory.path().join("own.log");
            fs::rename(&path, herd.directory.path().join("own.log.1")).unwrap();
            server.signal(signal);
            wait_until("the new file is there", || path.exists());
            server.stop();
        }
    }
}

#[test]
fn reopening_the_log_is_retried() {
    let herd = Herd::single().level("info");
    let logs = herd.directory.path().join("logs");
    fs::create_dir(&logs).unwrap();
    let server = logging_to(&herd, "logs/own.log");
    let moved = herd.directory.path().join("moved");
    fs::rename(&logs, &moved).unwrap();
    server.signal(rustix::process::Signal::HUP);
    server.wait_for_log("cannot open the log logs/own.log anew: No such file", "");
    server.client().send("before\n").line();
    let has = |path: &std::path::Path, text: &str| {
        fs::read_to_string(path).is_ok_and(|log| log.contains(text))
    };
    wait_until("lines go on into the old file", || {
        has(&moved.join("own.log"), "<- before")
    });
    assert!(has(&moved.join("own.log"), "cannot open the log"));
    // The server opens the new file without another signal, and before another line is logged.
    fs::create_dir(&logs).unwrap();
    let path = logs.join("own.log");
    wait_until("the new file is there", || {
        has(&path, "opened anew at last")
    });
    server.client().send("after\n").line();
    wait_until("lines go to the new file", || has(&path, "<- after"));
    let told = server.stop();
    let count = |text: &str| told.iter().filter(|line| line.contains(text)).count();
    assert_eq!((count("cannot open"), count("at last")), (1, 1), "{told:?}");
}

#[test]
fn the_first_log_line_names_the_version() {
    let log = Herd::single().start("Riley").stop();
    let version = env!("CARGO_PKG_VERSION");
    let expected = format!("herd-mio {version} starts as Riley, process ");
    assert!(log[0].contains(&expected), "{log:#?}");
    assert!(log[0].ends_with("(neighbours' protocol 2)"), "{log:#?}");
}
