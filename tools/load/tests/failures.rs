//! What must not pass: every way to answer wrongly, servers that are not there or go away, and
//! mistakes of who calls.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test ends at what it did not expect"
)]

mod common;

use std::net::TcpListener;
use std::sync::atomic::{AtomicU32, Ordering};

use common::{Herd, JSON, end, play, run, spawn};

/// Runs `iamat` against a server that answers the first fifty commands rightly, and each later one
/// with this.
fn iamat(wrong: impl Fn(&str) -> String + Send + Sync + 'static) -> common::Ended {
    let address = play(move |session, line| {
        let right = session.right(line);
        Some(if session.lines < 50 {
            right
        } else {
            wrong(&right)
        })
    });
    run(&["iamat", &address, "--warm-up", "0", "--depth", "3"])
}

#[test]
fn a_wrong_answer_to_an_iamat_fails_the_run_and_is_shown() {
    type Spoil = fn(&str) -> String;
    let cases: [(Spoil, &str); 14] = [
        (|at| at.replace("Played", "Riley"), ": the server's name\n"),
        (|at| at.replace(" +0.0", " 0.0"), ": the skew, which is"),
        (|at| at.replace(" +0.0", " --0.0"), ": the skew, which is"),
        (|at| at.replace("00001 ", "e-9 "), ": the skew, which is"),
        (|at| at.replace(" +0.0", " +5.0"), ": the skew: the server"),
        (|at| at.replace(" +0.0", " -5.0"), ": the skew: the server"),
        (|at| at.replace(" load-", " Load-"), ": the client's id\n"),
        (
            |at| {
                at.replacen(".0", ".1", 1)
                    .replace("+0.1", "+0.0")
                    .replace('\n', "0\n")
            },
            ": the time\n",
        ),
        (|at| at.replace(" load-", " load-0"), ": the client's id\n"),
        (
            |at| at.replace("AT ", "at "),
            ": the answer is no AT line\n",
        ),
        (
            |at| at.replace("AT Played +0.000000001", "? IAMAT"),
            ": the answer is no AT line\n",
        ),
        (|at| at.replace('\n', "\r\n"), ": the time\n"),
        (
            |at| at.replace('\n', " \n"),
            ": more fields than an AT line has\n",
        ),
        (
            |at| at.replace('\n', "\n\n"),
            ": the answer is no AT line\n",
        ),
    ];
    for (number, (spoil, what)) in cases.into_iter().enumerate() {
        let ended = iamat(spoil);
        ended.failed(
            1,
            &[
                "wrong answer from Played at 127.0.0.1:",
                " on connection 1, after ",
                what,
                "\n  sent      IAMAT load-",
                "\n  expected  AT Played <skew> load-",
                "\n  got       ",
            ],
        );
        assert!(ended.stderr.lines().count() == 4, "{number}: {ended:?}");
    }
}

#[test]
fn misplaced_reordered_and_unrequested_answers_are_wrong() {
    let ended = iamat(|at| {
        let mut fields: Vec<&str> = at.split(' ').collect();
        fields[4] = "+00.000000+000.000000";
        fields.join(" ")
    });
    ended.failed(1, &[": the place\n"]);

    // Two answers change places.
    let held = std::sync::Mutex::new(String::new());
    let ended = iamat(move |at| {
        let mut held = held.lock().unwrap();
        if held.is_empty() {
            at.clone_into(&mut held);
            String::new()
        } else {
            format!("{at}{}", std::mem::take(&mut *held))
        }
    });
    ended.failed(1, &["wrong answer from Played"]);

    let address = play(|session, line| {
        let right = session.right(line);
        Some(if session.lines == 9 {
            right.clone() + &right
        } else {
            right
        })
    });
    run(&["iamat", &address, "--warm-up", "0"]).failed(1, &["after 9 correct answers"]);

    let ended = iamat(|at| at.replace('\n', "") + &"x".repeat(100_000));
    ended.failed(1, &[": a line without an LF\n", "… ("]);
}

/// Runs `whatsat` against a server that answers every `WHATSAT` with this.
fn whatsat(wrong: impl Fn(&str) -> String + Send + Sync + 'static) -> common::Ended {
    let address = play(move |session, line| {
        let right = session.right(line);
        let is_whatsat = line.starts_with("WHATSAT");
        Some(if is_whatsat { wrong(&right) } else { right })
    });
    let options = "--warm-up 0 --clients 3 --count 5 --bound 2 --timeout 2 --json";
    let mut words = vec!["whatsat", address.as_str()];
    words.extend(options.split(' '));
    run(&words)
}

#[test]
fn a_wrong_answer_to_a_whatsat_fails_the_run() {
    assert_eq!(whatsat(str::to_owned).figures()["answers"], 5);

    let other_line = ": the AT line, which must repeat the answer to the client's last IAMAT\n";
    whatsat(|right| right.replace("+0.000000001", "+0.000000002")).failed(1, &[other_line]);
    whatsat(|right| right.replace("Played", "Riley")).failed(1, &[other_line]);
    whatsat(|right| right.split_once('\n').unwrap().1.to_owned()).failed(1, &[other_line]);
    whatsat(|_| "? WHATSAT load-0000000 10 2\n".into()).failed(1, &[other_line]);

    let three = JSON.replace("{}, {}", "{}, {}, {}");
    whatsat(move |right| right.replace(JSON, &three))
        .failed(1, &[": 3 places, but the command asked for at most 2\n"]);
    let unreadable = ": the JSON cannot be read: ";
    whatsat(|right| right.replace("\"OK\"", "OK")).failed(1, &[unreadable]);
    whatsat(|right| right.replace(JSON, "")).failed(1, &[unreadable]);
    // A blank line in the middle of it ends it.
    whatsat(|right| right.replace("[],\n", "[],\n\n")).failed(1, &[unreadable]);
    whatsat(|right| right.replace("\n\n", "\n\n\n")).failed(1, &["wrong answer from Played"]);
    // The second LF does not come.
    whatsat(|right| right.replace("\n\n", "\n")).incomplete(&["sent nothing for 2."]);
}

#[test]
fn an_answer_of_another_server_is_wrong() {
    let herd = Herd::start(&["A"]);
    let directory = tempfile::tempdir().unwrap();
    let config = directory.path().join("herd.toml");
    let address = herd.servers[0].address;
    let text = format!("[[servers]]\nname = \"B\"\nclients = \"{address}\"\n");
    std::fs::write(&config, text).unwrap();
    run(&["iamat", "B", "--config", config.to_str().unwrap()]).failed(
        1,
        &[
            &format!("wrong answer from B at {address} on connection 1, after 0 correct answers there: the server's name"),
            "expected  AT B <skew> ",
            "got       AT A +",
        ],
    );
}

#[test]
fn wrong_answers_fail_the_flood_mode() {
    // A real server is told; a played one pretends to know, but another time.
    let herd = Herd::start(&["A"]);
    for (answer, what) in [
        (
            "AT A +0.000000000 x +1+2 3\n{}\n\n",
            "which must repeat the other server's answer",
        ),
        ("hello\n", ": neither\n"),
        (
            "AT A +0.000000000 x +1+2 3\n{\n\n",
            ": the JSON cannot be read",
        ),
    ] {
        let address = play(move |_, _| Some(answer.into()));
        let config = herd.directory().join("two.toml");
        let text = format!(
            "[[servers]]\nname = \"A\"\nclients = \"{}\"\n[[servers]]\nname = \"B\"\nclients = \"{address}\"\n",
            herd.servers[0].address
        );
        std::fs::write(&config, text).unwrap();
        let ended = run(&["flood", "A", "--config", config.to_str().unwrap()]);
        ended.failed(1, &["wrong answer from B at ", what]);
    }
}

#[test]
fn stop_on_loss_ends_the_run_at_the_first_loss() {
    // A server that goes in order.
    let address = play(|session, line| (session.lines < 20).then(|| session.right(line)));
    let words = "--depth 4 --warm-up 0 --stop-on-loss";
    let mut words: Vec<&str> = words.split(' ').collect();
    words.splice(0..0, ["iamat", &address]);
    run(&words).failed(
        1,
        &["connection 1", "stopped, or it rejected the connection"],
    );
    // One that does not.
    let mut herd = Herd::start_with(&["Riley"], &[], "info", "");
    let mut words = vec!["iamat", "Riley", "--config", &herd.config];
    words.extend(["--connections", "5", "--stop-on-loss"]);
    let child = spawn(&words);
    herd.servers[0].wait_for_nth_log(100, "<- IAMAT", "");
    herd.kill(0);
    end(child).failed(
        1,
        &["Riley at 127.", "stopped, or it rejected the connection"],
    );
}

/// Runs `idle` with three connections against a server that answers rightly; `spoil` is what it
/// does besides, once it has answered one of those three for the first time.
fn idle(
    spoil: impl Fn(&mut common::Session, String) -> String + Send + Sync + 'static,
) -> common::Ended {
    let connections = AtomicU32::new(0);
    let address = play(move |session, line| {
        let right = session.right(line);
        // Before them come one that asks for the server's name, the one that is measured, and the
        // one that asks whether the others are connected.
        let is_first_line = session.lines == 0;
        let is_idle = is_first_line && connections.fetch_add(1, Ordering::SeqCst) >= 3;
        Some(if is_idle {
            spoil(session, right)
        } else {
            right
        })
    });
    run(&[
        "idle",
        &address,
        "-c",
        "3",
        "--duration",
        "0.1",
        "--warm-up",
        "0",
    ])
}

#[test]
fn data_or_a_close_on_an_idle_connection_fails_the_run() {
    let ended = idle(|_, right| right);
    assert_eq!(ended.status, Some(0), "{ended:?}");
    idle(|_, right| right + "hello").failed(1, &["an answer without a command"]);
    let ended = idle(|session, right| {
        session.closes = true;
        right
    });
    ended.failed(1, &[" closed connection 2 when no answer was due"]);
}

#[test]
fn a_line_timeout_in_idle_mode_is_reported() {
    let herd = Herd::start_with(&["A"], &[], "warn", "[limits]\nline_ms = 100\n");
    let mut words = vec!["idle", "A", "--config", &herd.config, "--speak", "half"];
    words.extend("-c 3 --duration 1 --warm-up 0".split(' '));
    run(&words).failed(1, &["because of its incomplete command", "limits.line_ms"]);
}

#[test]
fn a_refused_connection_fails_every_mode() {
    let address = {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap().to_string()
    };
    let refused = format!("cannot connect to {address} (connection 1): Connection refused");
    for mode in ["iamat", "whatsat", "mix", "idle"] {
        let ended = run(&[mode, &address]);
        ended.failed(1, &[&refused, "no server listens there"]);
        assert_eq!(ended.stderr.lines().count(), 1);
    }
}

#[test]
fn a_silent_server_fails_the_run() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    run(&["iamat", &address, "--timeout", "0.2"]).failed(1, &["did not answer in time"]);
    // Or falls silent later.
    let address = play(|session, line| {
        let right = session.right(line);
        Some(if session.lines < 20 {
            right
        } else {
            String::new()
        })
    });
    let words = ["iamat", &address, "--timeout", "1", "--warm-up", "0"];
    let words = [&words[..], &["--json"]].concat();
    let figures = run(&words).incomplete(&[
        "1 command without an answer at the end (longest wait 1.",
        "sent nothing for 1.",
        "when 1 answer was due, after ",
    ]);
    assert_eq!(figures["answers"], 19, "the first one asked for the name");
    assert_eq!(figures["unanswered"], 1);
    let duration_s = figures["duration_s"].as_f64().unwrap();
    assert!((1.0..10.0).contains(&duration_s), "{figures}");
}

#[test]
fn a_usage_error_is_one_line_with_status_2() {
    for (arguments, part) in [
        ("", "requires a subcommand"),
        ("iamat", "<SERVER>"),
        ("iamat Riley --connections many", "--connections"),
        ("iamat Riley --rate=-1", "--rate"),
        ("iamat Riley --no-such-flag", "--no-such-flag"),
        ("iamat Nobody", "no preset has a server \"Nobody\""),
        ("iamat Riley --herd 1999", "there is no preset \"1999\""),
        (
            "iamat Riley --config /nowhere/herd.toml",
            "/nowhere/herd.toml",
        ),
        ("iamat 127.0.0.1:0", "port 0"),
        (
            "iamat 127.0.0.1:1 --svg /nowhere/x.svg",
            "the directory /nowhere",
        ),
        ("iamat 127.0.0.1:1 --svg /", "it is a directory"),
        (
            "iamat 127.0.0.1:1 --pid 4294967295",
            "there is no process 4294967295",
        ),
        ("flood 127.0.0.1:1", "needs the name of a server"),
    ] {
        let words: Vec<&str> = arguments.split_whitespace().collect();
        let ended = run(&words);
        ended.failed(2, &[part]);
        assert_eq!(ended.stderr.lines().count(), 1, "{arguments}: {ended:?}");
    }
}

#[test]
fn an_unwritable_svg_file_fails_the_run() {
    let address = play(|session, line| Some(session.right(line)));
    let words = [
        "iamat",
        &address,
        "--count",
        "1",
        "--warm-up",
        "0",
        "--svg",
        "/dev/full",
    ];
    let ended = run(&words);
    assert_eq!(ended.status, Some(1));
    assert!(
        ended.stdout.contains("IAMAT"),
        "the figures are not lost: {ended:?}"
    );
    assert!(
        ended
            .stderr
            .starts_with("herd-load: cannot write /dev/full: ")
    );
}

#[test]
fn help_has_examples_and_exit_status() {
    for words in [
        vec!["--help"],
        vec!["iamat", "--help"],
        vec!["flood", "--help"],
    ] {
        let ended = run(&words);
        assert_eq!((ended.status, ended.stderr.as_str()), (Some(0), ""));
    }
    let help = run(&["--help"]).stdout;
    for part in [
        "Examples:",
        "herd-load flood Riley",
        "Exit status:",
        "JSON:",
    ] {
        assert!(help.contains(part), "{part}");
    }
}
