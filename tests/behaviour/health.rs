//! What `herd-client status` reports of real servers that have a problem.

use std::time::{Duration, Instant};

use herd_testkit::client::wait_until;
use herd_testkit::herd::status_command;
use herd_testkit::herd::{Herd, Server};
use rustix::process::{Pid, Resource, Rlimit, Signal, prlimit};

use crate::journal::keeping;

fn two() -> Herd {
    Herd::new(&["Riley", "Jaquez"], &[("Riley", "Jaquez")])
}

/// Runs `herd-client status` with the herd's secret. Returns its status and its output.
fn status(herd: &Herd, arguments: &[&str]) -> (i32, String) {
    let output = status_command()
        .arg("--config")
        .arg(herd.config_file())
        .args(arguments)
        .env_remove("HERD_SECRET_FILE")
        .env("HERD_SECRET", "the herd's own secret")
        .output()
        .unwrap();
    let told = String::from_utf8(output.stdout).unwrap();
    let errors = String::from_utf8(output.stderr).unwrap();
    (output.status.code().unwrap_or(-1), told + &errors)
}

/// Waits until the herd has no problem.
fn wait_until_well(herd: &Herd) {
    wait_until("all is well", || status(herd, &[]).0 == 0);
}

/// Waits until the output contains `expected`, with this status.
fn wait_until_told(herd: &Herd, code: i32, expected: &str) -> String {
    let mut last = String::new();
    wait_until(expected, || {
        let (status, told) = status(herd, &[]);
        last = told;
        status == code && last.contains(expected)
    });
    last
}

#[test]
fn a_server_that_refuses_every_iamat_is_reported_unhealthy() {
    let herd = keeping(two());
    let servers = herd.start_all();
    let riley = &servers["Riley"];
    wait_until_well(&herd);
    let limit = |bytes: Option<u64>| {
        let limit = Rlimit {
            current: bytes,
            maximum: None,
        };
        prlimit(Pid::from_raw(riley.pid() as i32), Resource::Fsize, limit).unwrap();
    };
    // A limit of the file size acts like a full disk.
    limit(Some(6 << 20));
    let mut client = riley.client();
    let is_refused = |number: usize, client: &mut herd_testkit::client::Client| {
        let command = format!("IAMAT x{number} +1.{}-2 3", "0".repeat(3000));
        !client.ask(&command).starts_with("AT ")
    };
    assert!((0..10_000).any(|number| is_refused(number, &mut client)));
    wait_until_told(&herd, 1, "disk: Riley has refused IAMATs for ");
    // The problem is also reported when all servers hold the same records.
    let told = wait_until_told(&herd, 1, "hold the same ");
    assert!(
        told.contains("disk: Riley has refused IAMATs for ")
            && told.contains("free 128 KiB on the disk of its data directory"),
        "{told}"
    );
    let alone = status(&herd, &["--server", "Riley", "--json"]);
    assert!(
        alone.0 == 1 && alone.1.contains("\"healthy\":false"),
        "{}",
        alone.1
    );
    assert_eq!(status(&herd, &["--server", "Jaquez"]).0, 0);
    limit(None);
    wait_until_well(&herd);
}

#[test]
fn status_shows_a_full_table_clock_errors_and_no_journal() {
    let herd = Herd::single().with("[limits]\nmax_records = 2\n");
    let server = herd.start("Riley");
    let (code, told) = status(&herd, &[]);
    assert_eq!(code, 0, "{told}");
    assert!(
        told.contains("Riley has no data directory, so it keeps no records on disk"),
        "{told}"
    );
    let mut client = server.client();
    client.ask("IAMAT a +1+2 3");
    client.ask("IAMAT b +1+2 3");
    let (code, told) = status(&herd, &[]);
    assert_eq!(code, 1, "{told}");
    assert!(
        told.contains("table: the table of Riley is full, with 2 records"),
        "{told}"
    );
    assert!(
        told.contains("since its start, Riley got 0 IAMATs with stamps more than 60 s ahead of its clock, and 2 with stamps more than 60 s behind it"),
        "{told}"
    );
}

#[test]
fn a_neighbour_that_all_changes_come_from_does_not_lag() {
    let herd = keeping(two());
    let servers = herd.start_all();
    wait_until_well(&herd);
    let mut client = servers["Jaquez"].client();
    let begun = Instant::now();
    let mut number = 0;
    // Longer than the report needs, and than the time between two heartbeats.
    while begun.elapsed() < Duration::from_secs(4) {
        number += 1;
        client.ask(&format!("IAMAT x +1+2 {number}"));
        let (_, told) = status(&herd, &["--server", "Riley"]);
        assert!(
            !told.contains("lag: "),
            "after {:?}: {told}",
            begun.elapsed()
        );
        std::thread::sleep(Duration::from_millis(50)); // as a client that moves 20 times a second
    }
}

#[test]
fn status_reports_stopped_frozen_and_misconfigured_servers() {
    let herd = Herd::new(
        &["Riley", "Jaquez", "Juzang"],
        &[("Riley", "Jaquez"), ("Riley", "Juzang")],
    );
    let mut servers = herd.start_all();
    wait_until_well(&herd);
    // The kernel accepts connections for a frozen server, but the server sends nothing.
    servers["Jaquez"].signal(Signal::STOP);
    let (code, told) = status(&herd, &["--timeout", "0.5"]);
    assert_eq!(code, 1, "{told}");
    assert!(
        told.contains("no-answer: Jaquez does not answer: ")
            && told.contains("it sent nothing for 0.5 s"),
        "{told}"
    );
    servers["Jaquez"].signal(Signal::CONT);
    wait_until_well(&herd);
    // A frozen neighbour does not confirm what it is sent.
    servers["Jaquez"].signal(Signal::STOP);
    servers["Riley"].client().ask("IAMAT x +1+2 3");
    let lag = |herd: &Herd| status(herd, &["--server", "Riley"]);
    wait_until("the lag is told", || {
        lag(&herd)
            .1
            .contains("lag: Jaquez has not confirmed changes that Riley")
    });
    servers["Jaquez"].signal(Signal::CONT);
    wait_until_well(&herd);
    servers.remove("Jaquez").unwrap().kill();
    let told = wait_until_told(&herd, 1, "no-answer: Jaquez does not answer: ");
    assert!(
        told.contains("2 of 3 answered; these hold the same records; 1 problem"),
        "{told}"
    );
    let alone = status(&herd, &["--server", "Riley"]);
    assert!(
        alone.0 == 1
            && alone
                .1
                .contains("link: Riley and Jaquez are not linked for "),
        "{}",
        alone.1
    );
    assert_eq!(
        status(&herd, &["--server", "Riley", "--ignore", "link"]).0,
        0
    );
    // A server that was started with a file without this link.
    let other = herd.directory.path().join("other.toml");
    let text = std::fs::read_to_string(herd.config_file()).unwrap();
    let lacking = text.replace("[\"Riley\", \"Jaquez\"],", "");
    assert_ne!(lacking, text);
    std::fs::write(&other, lacking).unwrap();
    let mut command = herd.command("Jaquez");
    command.arg("--config").arg(&other);
    let _jaquez = Server::start(&mut command);
    wait_until_told(
        &herd,
        1,
        "file: Jaquez was started without the link between Riley and Jaquez",
    );
    // A file in which two names have each other's address.
    let crossed = herd.directory.path().join("crossed.toml");
    let text = std::fs::read_to_string(herd.config_file()).unwrap();
    let (one, other) = (herd.peers_address("Riley"), herd.peers_address("Juzang"));
    let text = text
        .replace(&one.to_string(), "here")
        .replace(&other.to_string(), &one.to_string())
        .replace("here", &other.to_string());
    std::fs::write(&crossed, text).unwrap();
    let output = status_command()
        .arg("--config")
        .arg(&crossed)
        .env("HERD_SECRET", "the herd's own secret")
        .output()
        .unwrap();
    let told = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(
        told.contains("it looks for Riley, this is Juzang"),
        "{told}"
    );
}
