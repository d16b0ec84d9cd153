//! Log lines about mistakes of clients are limited. Lines beyond the limit are counted.

use std::fs;
use std::time::{Duration, Instant};

use crate::small_disk::{obstacle, on_disk_of};
use herd_testkit::client::{Client, wait_until};
use herd_testkit::herd::{Herd, Server};

/// The number of bytes of these lines, with their newlines.
fn bytes_of<'a>(log: impl IntoIterator<Item = &'a String>) -> usize {
    log.into_iter().map(|line| line.len() + 1).sum()
}

/// How many lines were left out, according to the lines about single clients and about all clients.
fn left_out(log: &[String]) -> u64 {
    log.iter()
        .filter_map(|line| {
            let (before, _) = line.split_once(" left out within ")?;
            let (before, _) = before.split_once(" about ")?;
            let words: Vec<&str> = before.split(' ').collect();
            words[words.len() - 2].parse::<u64>().ok()
        })
        .sum()
}

fn said_and_answered(log: &[String]) -> u64 {
    let is_fault = |line: &&String| line.contains(" <- x") || line.contains(" -> ? x");
    log.iter().filter(is_fault).count() as u64
}

#[test]
fn a_client_s_logged_faults_have_a_byte_limit() {
    let herd = Herd::single()
        .level("info")
        .with("[limits]\nlog_client_faults_bytes = 8192\nlog_faults_ms = 600000\n");
    let server = herd.start("Riley");
    let mut client = server.client();
    for _ in 0..50 {
        client.send("x\n".repeat(100)).expect("? x\n".repeat(100));
    }
    // Valid commands are still logged, and so are another client's mistakes.
    let at = client.ask("IAMAT kiwi +1+2 3");
    server
        .client()
        .send("x of another\n")
        .expect("? x of another\n");
    client.finish().expect_end();
    drop(client);
    let log = server.stop();
    let has = |text: &str| log.iter().any(|line| line.contains(text));
    assert!(has("<- IAMAT kiwi +1+2 3") && has(&format!("-> {at}")));
    assert!(has("<- x of another"));
    assert_eq!(said_and_answered(&log) + left_out(&log), 10_002, "{log:#?}");
    let logged = bytes_of(log.iter().filter(|line| line.contains(" x")));
    assert!(
        (4_000..9_000).contains(&logged),
        "{logged} bytes are logged"
    );
    let told = log.iter().filter(|line| line.contains("left out")).count();
    assert_eq!(told, 1, "{log:#?}");
}

#[test]
fn a_client_s_log_share_refills_and_omissions_are_logged() {
    let herd = Herd::single()
        .level("info")
        .with("[limits]\nlog_client_faults_bytes = 4096\nlog_faults_ms = 500\n");
    let server = herd.start("Riley");
    let mut client = server.client();
    client.send("x\n".repeat(500)).expect("? x\n".repeat(500));
    server.wait_for_log("lines about its commands that are invalid", "");
    wait_until("its share is back", || {
        client.send("x again\n").expect("? x again\n");
        let log = server.log_lines();
        log.iter().any(|line| line.ends_with("<- x again"))
    });
}

#[test]
fn logged_faults_of_all_clients_have_a_byte_limit() {
    let herd = Herd::single()
        .level("info")
        .with("[limits]\nlog_faults_bytes = 16384\nlog_faults_ms = 600000\n");
    let server = herd.start("Riley");
    let before = bytes_of(&server.log_lines());
    for _ in 0..300 {
        let mut client = server.client();
        client.send("x\nx\n").expect("? x\n? x\n");
        client.finish().expect_end();
    }
    let log = server.stop();
    let logged = bytes_of(&log) - before;
    assert!(logged < 20_000, "{logged} bytes are logged");
    assert_eq!(said_and_answered(&log) + left_out(&log), 1_200, "{log:#?}");
    let of_all = |line: &&String| line.contains("(limits.log_faults_bytes)");
    assert_eq!(log.iter().filter(of_all).count(), 1, "{log:#?}");
}

#[test]
fn the_log_shows_the_beginning_of_a_long_line_only() {
    let herd = Herd::single()
        .level("info")
        .with("[limits]\nlog_quote_bytes = 20\n");
    let server = herd.start("Riley");
    let mut client = server.client();
    let line = format!("{}\n", "y".repeat(4_000));
    client.send(&line).expect(format!("? {line}"));
    let too_long = "z".repeat(4_097);
    client
        .send(&too_long)
        .expect(format!("? {}\n", &too_long[..4_096]));
    let log = server.stop();
    let has = |text: &str| log.iter().any(|line| line.ends_with(text));
    let shown = format!("{} ... and 3980 bytes more", "y".repeat(20));
    assert!(
        has(&format!("<- {}", shown.replace(" ...", "..."))),
        "{log:#?}"
    );
    assert!(
        has(&format!("-> ? {}", shown.replace(" ...", "..."))),
        "{log:#?}"
    );
    assert!(has("closing: a line of more than 4096 bytes"));
    assert!(has(&format!(
        "-> ? {}... and 4076 bytes more",
        "z".repeat(20)
    )));
}

/// Clients make all kinds of mistakes for some seconds, with the default limits.
#[test]
fn client_faults_log_less_than_1_mb_per_second() {
    const SPAN: Duration = Duration::from_secs(3);
    let herd = Herd::single().level("info");
    let server = herd.start("Riley");
    let address = herd.clients_address("Riley");
    let before = bytes_of(&server.log_lines());
    let begun = Instant::now();
    let bad_lines = [
        "x\n".repeat(4_000),
        "\u{1}".repeat(4_000) + "\n",
        "IAMAT kiwi +1+2 3 4\n".repeat(200),
        "WHATSAT nobody 1 1\n".repeat(200),
    ];
    std::thread::scope(|scope| {
        for lines in &bad_lines {
            scope.spawn(move || {
                let mut client = Client::connect(address);
                client.send("IAMAT known +1+2 3\n").line();
                let count = lines.matches('\n').count();
                while begun.elapsed() < SPAN {
                    client.send(lines);
                    (0..count).for_each(|_| drop(client.until(b"\n")));
                }
            });
        }
        // Each of these fails, because the server has no key for Places.
        scope.spawn(move || {
            let mut client = Client::connect(address);
            client.send("IAMAT known +1+2 3\n").line();
            while begun.elapsed() < SPAN {
                client.send("WHATSAT known 1 1\n").places();
            }
        });
        // Connections that open, send something wrong, and close.
        for said in [
            "",
            "x\n",
            "\x16\x03\x01\x02\0\x01",
            "PROXY TCP4 1.2.3.4 1.2.3.4 1 2\r\n",
        ] {
            scope.spawn(move || {
                while begun.elapsed() < SPAN {
                    let mut client = Client::connect(address);
                    client.send(said).finish();
                    client.rest();
                }
            });
        }
    });
    let elapsed = begun.elapsed();
    let log = server.stop();
    let rate = (bytes_of(&log) - before) as f64 / elapsed.as_secs_f64();
    assert!(rate < 1_000_000.0, "{rate} bytes of log a second");
    let left_out = left_out(&log);
    assert!(left_out > 1_000, "only {left_out} lines were left out");
}

/// The log and its older files that exist, each with its length. The newest file is the last.
fn files(herd: &Herd) -> Vec<(String, u64)> {
    let name = |number: u32| match number {
        0 => "own.log".to_owned(),
        number => format!("own.log.{number}"),
    };
    let length = |name: &String| fs::metadata(herd.directory.path().join(name)).ok();
    let there = (0..).map(name);
    let mut files: Vec<_> = there
        .map_while(|name| Some((name.clone(), length(&name)?.len())))
        .collect();
    files.reverse();
    files
}

#[test]
fn a_log_is_rotated_by_the_server_and_the_oldest_is_deleted() {
    let rotated = "[log]\nfile = \"own.log\"\nlevel = \"info\"\nmax_bytes = 20000\nkeep = 3\n";
    let herd = Herd::single().with(rotated);
    let mut command = herd.command("Riley");
    command.args(["--log-file", "own.log"]);
    let server = Server::start(&mut command);
    let mut client = server.client();
    for stamp in 0..1_000 {
        client.ask(&format!("IAMAT kiwi +1+2 {stamp}"));
    }
    // The log is moved away by hand and opened anew. The next rotation then moves the new file.
    let there = |name: &str| herd.directory.path().join(name);
    wait_until("three older files are there", || files(&herd).len() == 4);
    wait_until("the last line is written", || {
        fs::read_to_string(there("own.log")).is_ok_and(|log| log.contains(" kiwi +1+2 999"))
    });
    fs::rename(there("own.log"), there("moved")).unwrap();
    server.signal(rustix::process::Signal::HUP);
    wait_until("it is opened anew", || there("own.log").exists());
    for stamp in 1_000..2_000 {
        client.ask(&format!("IAMAT kiwi +1+2 {stamp}"));
    }
    drop(client);
    server.stop();
    let files = files(&herd);
    assert_eq!(files.len(), 4, "{files:?}");
    assert!(
        files.iter().all(|(_, length)| *length <= 20_000),
        "{files:?}"
    );
    let text: String = files
        .iter()
        .map(|(name, _)| fs::read_to_string(there(name)).unwrap())
        .collect();
    let stamps: Vec<u32> = text
        .lines()
        .filter_map(|line| line.split_once("<- IAMAT kiwi +1+2 ")?.1.parse().ok())
        .collect();
    assert!(stamps.len() > 300, "{} commands are there", stamps.len());
    let newest: Vec<u32> = (2_000 - stamps.len() as u32..2_000).collect();
    assert_eq!(stamps, newest, "no line is lost or out of order");
    assert!(text.ends_with("[INFO ] stopped\n"));
}

#[test]
fn the_log_leaves_the_journal_its_room_on_the_disk() {
    if let Some(obstacle) = obstacle() {
        eprintln!("skipped, as no small disk can be had: {obstacle}");
        return;
    }
    const DISK_BYTES: u64 = 64 << 20;
    const RESERVE: u64 = 8 << 20;
    let herd = Herd::single()
        .level("info")
        .with_top("data_dir = \"disk\"\n")
        .with("[limits]\nlog_reserve_bytes = 8388608\njournal_ahead_bytes = 65536\n");
    let mut command = on_disk_of(&herd, "disk", DISK_BYTES);
    command.args(["--log-file", "disk/own.log"]);
    let server = Server::start(&mut command);
    // The log of valid commands is limited only by the disk.
    let mut client = server.client();
    let lines: String = (0..50)
        .map(|_| format!("IAMAT {} +1+2 3\n", "k".repeat(3_000)))
        .collect();
    let deadline = Instant::now() + Duration::from_secs(30);
    let stopped = |server: &Server| {
        let told = |line: &String| line.contains("the log stops: ");
        server.log_lines().iter().any(told)
    };
    while !stopped(&server) {
        assert!(Instant::now() < deadline, "the log does not stop");
        client.send(&lines);
        (0..50).for_each(|_| drop(client.line()));
    }
    let disk = format!(
        "/proc/{}/root{}",
        server.pid(),
        herd.directory.path().join("disk").display()
    );
    let free = || {
        let disk = rustix::fs::statvfs(disk.as_str()).unwrap();
        disk.f_bavail * disk.f_frsize
    };
    // These commands are not logged any more. The journal still has room for new clients.
    for _ in 0..100 {
        client.send(&lines);
        (0..50).for_each(|_| assert!(client.line().starts_with("AT ")));
    }
    assert!(free() > RESERVE - (1 << 20), "{} bytes are free", free());
    for number in 0..200 {
        let answer = client.ask(&format!("IAMAT new{number} +1+2 3"));
        assert!(answer.starts_with("AT "), "refused: {answer}");
    }
    // When there is room again, the server goes on logging, and counts the lost lines.
    let log = format!("{disk}/own.log");
    fs::File::options()
        .write(true)
        .open(&log)
        .unwrap()
        .set_len(0)
        .unwrap();
    wait_until("the lost lines are counted", || {
        client.ask("IAMAT again +1+2 3");
        fs::read_to_string(&log).is_ok_and(|text| text.contains("lines were dropped"))
    });
    drop(client);
    let told = server.stop();
    let told: Vec<_> = told.iter().filter(|line| line.contains("stops")).collect();
    assert_eq!(told.len(), 1, "told once: {told:?}");
}
