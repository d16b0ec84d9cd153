//! Each kind of abuse against a real server whose limits are set: the limit is reached, and the
//! report is whole. Servers that are not one's own cannot be attacked.

#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test ends at what it did not expect"
)]

mod common;

use std::fs;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use common::{Ended, Running, play, run};
use herd_testkit::client::wait_until;
use herd_testkit::herd::{Herd, Server};
use rustix::process::Signal;
use serde_json::Value;

/// Where the attack comes from, and where polite clients do.
const FROM: &str = "127.0.7.1-127.0.7.4";
const POLITE_FROM: &str = "127.0.8.1";

/// Riley, linked with Jaquez.
struct Stage {
    herd: Herd,
    riley: Server,
    jaquez: Option<Server>,
}

impl Stage {
    /// Riley has these tables in its config file, a log in a file, and a data directory.
    fn new(tables: &str) -> Stage {
        Stage::of(Herd::new(&["Riley", "Jaquez"], &[("Riley", "Jaquez")]).with(tables))
    }

    fn of(herd: Herd) -> Stage {
        let herd = herd.level("info");
        let jaquez = herd.start("Jaquez");
        let mut command = herd.command("Riley");
        command.args(["--log-file", "riley.log", "--data-dir", "data"]);
        let riley = Server::start(&mut command);
        let stage = Stage {
            herd,
            riley,
            jaquez: Some(jaquez),
        };
        wait_until("the servers are linked", || {
            stage.log().contains("neighbour Jaquez ") && stage.log().contains("linked")
        });
        stage
    }

    fn path(&self, name: &str) -> PathBuf {
        self.herd.directory.path().join(name)
    }

    fn log(&self) -> String {
        fs::read_to_string(self.path("riley.log")).unwrap_or_default()
    }

    /// The command line of an attack on Riley for a second; `more` are options.
    fn words(&self, kind: &str, more: &str) -> Vec<String> {
        let secret = self.path("secret");
        fs::write(&secret, "the herd's own secret").unwrap();
        let config = self.herd.config_file();
        let paths = [secret, config, self.path("riley.log"), self.path("data")];
        let [secret, config, log, data] = paths.each_ref().map(|path| path.to_str().unwrap());
        let pid = self.riley.pid().to_string();
        let mut words = vec!["abuse", kind, "Riley", "--config", config, "--json"];
        words.extend(["--secret-file", secret, "--pid", &pid]);
        words.extend(["--log-file", log, "--data-dir", data]);
        words.extend(["--from", FROM, "--polite-from", POLITE_FROM]);
        // The machine may have other things to do: here it is not asked how fast it is.
        words.extend(["--duration", "1", "--polite-p99", "20s"]);
        words.extend(more.split_whitespace());
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    fn abuse(&self, kind: &str, more: &str) -> Ended {
        let words = self.words(kind, more);
        run(&words.iter().map(String::as_str).collect::<Vec<_>>())
    }
}

fn number(value: &Value) -> f64 {
    value
        .as_f64()
        .unwrap_or_else(|| panic!("{value} is no number"))
}

/// What every report says, whatever the attack was.
fn is_whole(figures: &Value, kind: &str) {
    assert_eq!(figures["mode"], "abuse");
    assert_eq!(figures["kind"], kind);
    assert_eq!(figures["server"]["name"], "Riley");
    assert_eq!(figures["parameters"]["from"], FROM);
    assert_eq!(figures["interrupted"], false);
    assert!(number(&figures["duration_s"]) >= 1.0);
    assert!(number(&figures["attack"]["connected"]) > 0.0, "{figures}");
    let polite = &figures["polite"];
    assert_eq!(polite["asked"], 160, "{figures}");
    assert_eq!(polite["alone"]["count"], 80, "{figures}");
    for key in [
        "lost",
        "unanswered",
        "connections_lost",
        "connections_rejected",
    ] {
        assert_eq!(polite[key], 0, "{key}: {figures}");
    }
    let links = &figures["links"];
    assert_eq!(links["before"], serde_json::json!(["Jaquez"]));
    assert_eq!(links["after"], links["before"]);
    assert_eq!(links["lost"], serde_json::json!([]));
    assert!(number(&links["asked"]) >= 1.0);
    for key in ["memory", "descriptors"] {
        let level = &figures[key];
        assert!(
            number(&level["most"]) >= number(&level["before"]),
            "{level}"
        );
        assert!(number(&level["before"]) > 5.0, "{level}");
    }
    assert!(number(&figures["descriptors"]["most"]) > number(&figures["descriptors"]["before"]));
    let data = &figures["data"];
    assert!(number(&data["before_bytes"]) > 0.0, "{data}");
    assert_eq!(figures["notes"], serde_json::json!([]));
}

/// The figures of a run that failed for nothing.
fn passed(ended: &Ended, kind: &str) -> Value {
    let figures = ended.figures();
    is_whole(&figures, kind);
    assert_eq!(figures["failures"], serde_json::json!([]));
    assert_eq!(figures["polite"]["answered"], 160);
    figures
}

#[test]
fn long_lines_reach_the_log_limit() {
    let stage = Stage::new(
        "[limits]\nlog_client_faults_bytes = 4096\nlog_faults_bytes = 16384\nlog_faults_ms = 500\n",
    );
    let figures = passed(&stage.abuse("lines", "--connections 50"), "lines");
    let attack = &figures["attack"];
    assert_eq!(attack["most_open"], 50);
    assert!(number(&attack["refused"]) > 100.0, "{attack}");
    assert!(number(&attack["received_bytes"]) > number(&attack["refused"]) * 4000.0);
    // What is left of the log is about the polite clients.
    let log = &figures["log"];
    assert!(number(&log["written_bytes"]) < 150_000.0, "{log}");
    wait_until("what was left out is told", || {
        stage.log().contains(" left out within ")
    });
}

#[test]
fn unread_answers_reach_the_output_limit() {
    let stage = Stage::new(
        "[limits]\noutput_high_bytes = 65536\noutput_low_bytes = 16384\noutput_stall_ms = 200\n",
    );
    // The system takes some megabytes of answers before the first one waits in the server.
    let ended = stage.abuse("unread", "--connections 1 --duration 2");
    let figures = ended.figures();
    let attack = &figures["attack"];
    assert_eq!(attack["received_bytes"], 0);
    assert!(number(&attack["closed_by_server"]) >= 1.0, "{attack}");
    assert!(number(&attack["connected"]) > 1.0, "it comes again");
    assert!(number(&figures["links"]["counted"]["stale"]) > 100.0);
}

#[test]
fn faults_reach_the_log_limit() {
    let stage = Stage::new("[limits]\nlog_faults_bytes = 16384\nlog_faults_ms = 500\n");
    let figures = passed(&stage.abuse("faults", "--connections 8"), "faults");
    assert!(number(&figures["attack"]["refused"]) > 1000.0, "{figures}");
    assert!(number(&figures["log"]["written_bytes"]) < 150_000.0);
    wait_until("what was left out is told", || {
        stage.log().contains(" left out within ")
    });
}

#[test]
fn new_names_reach_the_table_s_limit_and_refuse_new_clients() {
    let stage = Stage::new("[limits]\nmax_records = 500\njournal_ahead_bytes = 16384\n");
    let ended = stage.abuse("names", "");
    let figures = ended.incomplete(&["polite commands refused", "-new-"]);
    is_whole(&figures, "names");
    let attack = &figures["attack"];
    assert!(number(&attack["answered"]) > 300.0, "{attack}");
    assert!(number(&attack["refused"]) > 1000.0, "{attack}");
    let polite = &figures["polite"];
    assert_eq!(polite["refused"], polite["refused_new"], "{polite}");
    let answered = number(&polite["answered"]) + number(&polite["refused"]);
    assert_eq!(answered, 160.0, "{polite}");
    assert!(number(&figures["data"]["written_bytes"]) > 0.0, "{figures}");
}

#[test]
fn whatsats_reach_the_places_queue_limit() {
    let places = herd_places::Places::start(herd_places::Options {
        remember: false,
        ..herd_places::Options::default()
    })
    .unwrap();
    let herd = Herd::new(&["Riley", "Jaquez"], &[("Riley", "Jaquez")]);
    let (ca, key) = (
        herd.directory.path().join("ca"),
        herd.directory.path().join("key"),
    );
    fs::write(&ca, places.ca_pem()).unwrap();
    fs::write(&key, "test-key").unwrap();
    let url = places.url();
    let stage = Stage::of(herd.with(&format!(
        "[limits]\nmax_places_waiting = 2\nmax_places_connections = 1\n[places]\nurl = {url:?}\nca_file = {ca:?}\nkey_file = {key:?}\n"
    )));
    let figures = passed(&stage.abuse("places", "--connections 30"), "places");
    let attack = &figures["attack"];
    assert!(number(&attack["places_errors"]) > 10.0, "{attack}");
    assert!(number(&attack["answered"]) > number(&attack["places_errors"]));
    assert_eq!(attack["refused"], 0, "the questions are right: {attack}");
}

#[test]
fn unproven_connections_reach_max_unproven() {
    let stage = Stage::new("[limits]\nmax_unproven = 4\n");
    let figures = passed(&stage.abuse("links", "--connections 20"), "links");
    let attack = &figures["attack"];
    assert!(number(&attack["closed_by_server"]) > 100.0, "{attack}");
    assert!(number(&attack["connects_per_s"]) > 100.0, "{attack}");
    assert_eq!(attack["sent_bytes"], 0);
    // The table shows the same.
    let secret = stage.path("secret");
    let (peers, clients) = (stage.herd.peers_address("Riley"), stage.riley.address);
    let (peers, clients) = (peers.to_string(), clients.to_string());
    let mut words = vec!["abuse", "links", &clients, "--peers", &peers];
    words.extend([
        "--secret-file",
        secret.to_str().unwrap(),
        "--duration",
        "0.3",
    ]);
    words.extend(["--polite-p99", "20s", "--connections", "20"]);
    let ended = run(&words);
    assert_eq!(ended.status, Some(0), "{ended:?}");
    let beginning = format!("abuse links: Riley at {clients}, 0.3 s\n\nattack ");
    assert!(ended.stdout.starts_with(&beginning), "{ended:?}");
    for part in [
        "\npolite          4 clients from addresses that the system chooses; ",
        "\nlinks           Jaquez before, lost: none; ",
        "\nnote: the attack and the polite clients use the same address",
        "\npassed: no polite command was lost, refused or too slow, and no link was lost\n",
    ] {
        assert!(ended.stdout.contains(part), "{part:?} is not in {ended:?}");
    }
}

#[test]
fn the_attack_reaches_the_limit_per_address() {
    let stage = Stage::new("[limits]\nmax_clients_per_address = 4\n");
    let figures = passed(&stage.abuse("faults", "--connections 40"), "faults");
    let attack = &figures["attack"];
    assert_eq!(
        attack["rejection"],
        "there are 4 clients from its address, which is limits.max_clients_per_address"
    );
    assert!(number(&attack["closed_by_server"]) > 10.0, "{attack}");
}

#[test]
fn a_places_error_counts_as_a_refusal() {
    let stage = Stage::new("");
    let ended = stage.abuse("faults", "--connections 1 --polite-whatsat");
    let said =
        "8 polite commands refused; the first refusal said: UNKNOWN_ERROR: this server has no key";
    let figures = ended.incomplete(&[said]);
    assert_eq!(figures["polite"]["asked"], 168, "{figures}");
    assert_eq!(figures["polite"]["answered"], 160, "{figures}");
    assert_eq!(figures["polite"]["refused_new"], 0, "{figures}");
    assert_eq!(figures["polite"]["whatsat_under_attack"], Value::Null);
}

#[test]
fn a_lost_link_fails_the_run() {
    let mut stage = Stage::new("");
    let words = stage.words("faults", "--connections 1 --duration 60");
    let running = Running::start(&words.iter().map(String::as_str).collect::<Vec<_>>());
    wait_until("the attack is there", || stage.log().contains(" <- x"));
    drop(stage.jaquez.take());
    wait_until("the link is lost", || stage.log().contains(" lost"));
    // It is asked of four times a second.
    let questions = || stage.log().matches("operator").count();
    let before = questions();
    wait_until("STATUS was asked since", || questions() > before + 1);
    stage.jaquez = Some(stage.herd.start("Jaquez"));
    wait_until("the link is there again", || {
        stage.log().matches(": linked").count() == 2
    });
    let ended = running.interrupt();
    let figures = ended.incomplete(&["the link with Jaquez was lost"]);
    assert_eq!(figures["links"]["after"], figures["links"]["before"]);
    assert_eq!(figures["links"]["lost"], serde_json::json!(["Jaquez"]));
    assert_eq!(figures["interrupted"], true);
    assert!(number(&figures["duration_s"]) < 60.0);
}

/// The options of an attack of one connection on a played server.
const PLAYED: &str = "--connections 1 --duration 1 --polite 1 --json --polite-p99";

fn played(address: &str, polite_p99: &str) -> Ended {
    let mut words = vec!["abuse", "faults", address];
    words.extend(PLAYED.split(' '));
    words.push(polite_p99);
    run(&words)
}

#[test]
fn a_stall_counts_for_all_commands_due_in_it() {
    // Of the twenty commands of a second one is held up for 600 ms; eleven more were due until
    // then.
    let address = play(|session, line| {
        if line.contains("-polite-") && session.lines == 30 {
            thread::sleep(Duration::from_millis(600));
        }
        Some(session.right(line))
    });
    let ended = played(&address, "100ms");
    let figures = ended.incomplete(&[
        "the p99 of polite IAMATs is ",
        ", which is not below 100 ms",
    ]);
    let latency = &figures["polite"]["under_attack"];
    assert_eq!(latency["count"], 20, "{figures}");
    assert!(number(&latency["p90"]) > 400_000.0, "{latency}");
    assert!(number(&latency["max"]) > 590_000.0, "{latency}");
    assert_eq!(figures["polite"]["answered"], 40);
}

#[test]
fn lost_or_unanswered_commands_fail_the_run() {
    let address = play(|session, line| {
        session.closes = line.contains("-polite-") && session.lines == 30;
        (!session.closes).then(|| session.right(line))
    });
    let ended = played(&address, "20s");
    let figures = ended.incomplete(&["1 polite command lost with the connection"]);
    assert_eq!(figures["polite"]["connections_lost"], 1, "{figures}");
    assert_eq!(figures["polite"]["answered"], 39, "it connects again");

    let address = play(|session, line| {
        let is_swallowed = line != "x" && session.lines >= 30;
        Some(if is_swallowed {
            String::new()
        } else {
            session.right(line)
        })
    });
    let figures = played(&address, "20s").incomplete(&[" without an answer at the end"]);
    assert_eq!(figures["polite"]["unanswered"], 11, "{figures}");
    let oldest_ms = number(&figures["polite"]["oldest_unanswered_ms"]);
    assert!(oldest_ms > 2_000.0, "{figures}");
}

#[test]
fn a_rejection_fails_and_a_wrong_answer_ends_the_run() {
    let address = play(|session, line| {
        let is_late = line.contains("-polite-") && session.lines == 30;
        session.closes = is_late;
        Some(match is_late {
            true => "? there is no room\n".to_owned(),
            false => session.right(line),
        })
    });
    let ended = played(&address, "20s");
    let figures = ended.incomplete(&[
        "1 polite command refused; the first refusal said: there is no room",
        "1 polite connection rejected",
    ]);
    assert_eq!(figures["polite"]["connections_lost"], 0, "{figures}");

    let address = play(|session, line| {
        let right = session.right(line);
        Some(match session.lines {
            30 => right.replace("+34.", "+35."),
            _ => right,
        })
    });
    played(&address, "20s").failed(1, &["wrong answer for a polite client", "+35."]);
}

#[test]
fn a_signal_ends_the_attack_and_prints_the_figures() {
    let (sender, heard) = std::sync::mpsc::channel();
    let address = play(move |session, line| {
        if line == "x" {
            // The test may have ended.
            let _ = sender.send(());
        }
        Some(session.right(line))
    });
    let running = Running::start(&["abuse", "faults", &address, "--json", "--polite-p99", "20s"]);
    heard.recv_timeout(common::DEADLINE).unwrap();
    running.signal(Signal::TERM);
    let figures = running.end().figures();
    assert_eq!(figures["interrupted"], true);
    assert!(number(&figures["duration_s"]) < 10.0, "{figures}");
    assert_eq!(figures["links"], Value::Null);
    assert_eq!(figures["memory"], Value::Null);
}

#[test]
fn a_public_server_is_not_attacked_without_consent() {
    // Nothing is sent to these: the networks are for documentation (RFC 5737, RFC 3849).
    for (server, peers) in [
        // First what is this machine, so that a program that asks for no consent fails here and
        // calls no other machine.
        ("0.0.0.0:9", None),
        ("192.0.2.1:10000", None),
        ("[2001:db8::1]:10000", None),
        ("127.0.0.1:9", Some("198.51.100.1:11000")),
    ] {
        for kind in ["lines", "unread", "faults", "names", "places", "links"] {
            let mut words = vec!["abuse", kind, server];
            words.extend(peers.iter().flat_map(|peers| ["--peers", peers]));
            run(&words).failed(
                2,
                &["is neither a loopback nor a private", "--i-own-this-server"],
            );
        }
    }
}

#[test]
fn usage_errors_say_what_to_do() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let closed = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap().to_string()
    };
    let silent = silent.local_addr().unwrap().to_string();
    for (words, status, part) in [
        ("faults", 2, "; see herd-load abuse --help"),
        (
            "worms Riley",
            2,
            "lines, unread, faults, names, places, links",
        ),
        ("faults Riley --duration 301", 2, "seconds from 0.1 to 300"),
        (
            "faults Riley --polite-p99 100",
            2,
            "such as 500us, 100ms or 2s",
        ),
        (
            "faults Riley --from 127.0.0.0/24",
            2,
            "a range such as 127.0.1.1-127.0.1.100",
        ),
        (
            "faults 10.0.0.1:1 --from 192.0.2.9",
            2,
            "ip address add 192.0.2.9",
        ),
        (
            "links 127.0.0.1:1",
            2,
            "give --peers host:port, or the server's name",
        ),
        (
            "faults 127.0.0.1:1 --secret-file x",
            2,
            "give --peers host:port",
        ),
        (
            "faults Riley --pid 4294967295",
            2,
            "give --pid the id of a process on this machine",
        ),
        (
            "faults Riley --log-file /nowhere",
            2,
            "give --log-file the server's",
        ),
        (
            &format!("faults {closed}"),
            1,
            "no server listens there; start it with herd-mio",
        ),
        (
            &format!("faults {silent}"),
            1,
            "did not answer the polite clients before the attack",
        ),
    ] {
        let words = std::iter::once("abuse").chain(words.split(' '));
        run(&words.collect::<Vec<_>>()).failed(status, &[part]);
    }
}
