//! Records that are too old leave the table of every server.

use std::time::{Duration, SystemTime};

use herd_testkit::client::{Client, wait_until};
use herd_testkit::herd::{Herd, Server};

use crate::inspect::herd_journal;

pub(crate) fn seconds_ago(seconds: u64) -> String {
    let then = SystemTime::now() - Duration::from_secs(seconds);
    let since = then.duration_since(SystemTime::UNIX_EPOCH).unwrap();
    format!("{}.{:09}", since.as_secs(), since.subsec_nanos())
}

/// Whether a server has a record of this client.
pub(crate) fn knows(client: &mut Client, name: &str) -> bool {
    let answer = client.ask(&format!("WHATSAT {name} 1 1"));
    let is_known = answer.starts_with("AT ");
    match is_known {
        true => drop(client.until(b"\n\n")),
        false => assert_eq!(answer, format!("? WHATSAT {name} 1 1")),
    }
    is_known
}

#[test]
fn a_record_expires_on_every_server_and_after_a_restart() {
    let herd = Herd::new(&["Riley", "Jaquez"], &[("Riley", "Jaquez")])
        .with("[limits]\nrecord_ttl_ms = 60000\n");
    let data = herd.directory.path().join("data");
    let start = |name: &str| {
        let mut command = herd.command(name);
        command.arg("--data-dir").arg(data.join(name));
        Server::start(&mut command)
    };
    let (riley, jaquez) = (start("Riley"), start("Jaquez"));
    let mut client = riley.client();
    let mut other = jaquez.client();
    // This record is 57 s old, so it expires in 3 s.
    let old = client.ask(&format!("IAMAT old +1+2 {}", seconds_ago(57)));
    let new = client.ask(&format!("IAMAT new +1+2 {}", seconds_ago(0)));
    assert!(old.starts_with("AT Riley ") && new.starts_with("AT Riley "));
    wait_until("the neighbour knows both", || knows(&mut other, "new"));
    wait_until("the old one has expired there", || {
        !knows(&mut other, "old")
    });
    assert!(knows(&mut other, "new"));
    // A record that is already too old is answered, but no server stores it.
    let late = client.ask(&format!("IAMAT late +1+2 {}", seconds_ago(61)));
    assert!(late.starts_with("AT Riley "), "{late}");
    riley.stop();
    let riley = start("Riley");
    let mut client = riley.client();
    assert!(knows(&mut client, "new"));
    assert!(!knows(&mut client, "old") && !knows(&mut client, "late"));
}

#[test]
fn a_journal_that_lost_its_newest_records_by_expiry_is_no_older_copy() {
    let herd = Herd::new(&["Riley", "Jaquez"], &[("Riley", "Jaquez")])
        .with_top("data_dir = \"data\"\n")
        .with("[limits]\nrecord_ttl_ms = 1500\ncompact_bytes = 1\n")
        .level("info");
    let mut servers = herd.start_all();
    let mut client = servers["Riley"].client();
    let time = seconds_ago(0);
    for name in 0..200 {
        client.ask(&format!("IAMAT x{name} +1+2 {time}"));
    }
    let mut other = servers["Jaquez"].client();
    wait_until("the neighbour knows them", || knows(&mut other, "x199"));
    let journal = herd.directory.path().join("data/Riley");
    wait_until("the journal is written anew, without them", || {
        let list = herd_journal().arg("list").arg(&journal).output().unwrap();
        list.status.success() && list.stdout.is_empty()
    });
    servers.remove("Riley").unwrap().stop();
    let riley = herd.start("Riley");
    let linked = riley.wait_for_log("neighbour Jaquez ", ": ");
    assert!(linked.contains(": linked, 0 changes behind"), "{linked}");
}
