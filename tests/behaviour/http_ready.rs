//! `/healthz/ready`: a server gets clients only when it can serve them well, and a failure of
//! another server does not take it out of service.

use std::fs;

use herd_testkit::client::{Client, wait_until};
use herd_testkit::herd::{Herd, Server};
use rustix::process::Signal;

use crate::http::{Answer, HTTP, address, get};
use crate::outside;
use crate::small_disk;

#[test]
fn a_neighbour_that_is_down_does_not_make_a_server_unready() {
    let herd = Herd::new(&["Riley", "Jaquez"], &[("Riley", "Jaquez")]).with(HTTP);
    let riley = herd.start("Riley");
    let address = address(&riley);
    wait_until("it is known that Jaquez is down", || {
        get(address, "/healthz/ready").status == 200
    });
    let jaquez = herd.start("Jaquez");
    riley.wait_for_log("neighbour Jaquez ", ": linked, ");
    wait_until("the link is caught up", || {
        get(address, "/healthz/ready").status == 200
    });
    jaquez.kill();
    wait_until("the link is lost", || {
        get(address, "/links").json()["links"][0]["is_up"] == false
    });
    let ready = get(address, "/healthz/ready");
    assert_eq!(ready.status, 200, "{ready:?}");
}

#[test]
fn a_server_is_unready_until_a_neighbour_s_state_is_known() {
    // Jaquez dials, so Riley cannot try by itself.
    let limits = "[limits]\nlink_connect_ms = 1500\n";
    let herd = Herd::new(&["Riley", "Jaquez"], &[("Jaquez", "Riley")])
        .with(HTTP)
        .with(limits);
    let riley = herd.start("Riley");
    let ready = get(address(&riley), "/healthz/ready");
    assert_eq!(ready.status, 503);
    assert_eq!(
        ready.text(),
        "{\"ready\":false,\"reasons\":[\"it is not known yet whether neighbour Jaquez is up\"]}\n"
    );
    let live = get(address(&riley), "/healthz/live");
    assert_eq!(live.status, 200);
    wait_until("Jaquez had time to dial", || {
        get(address(&riley), "/healthz/ready").status == 200
    });
}

#[test]
fn a_server_is_unready_while_a_neighbour_sends_what_it_knows() {
    let herd = Herd::new(&["Riley", "Jaquez"], &[("Riley", "Jaquez")])
        .with(HTTP)
        .level("warn");
    let jaquez = herd.start("Jaquez");
    let mut mobile = jaquez.client();
    let padding = "x".repeat(3_000);
    let count = 3_000;
    let lines: String = (0..count)
        .map(|number| format!("IAMAT {padding}{number} +1+2 3\n"))
        .collect();
    let writer = mobile.send_meanwhile(lines.into_bytes());
    (0..count).for_each(|_| drop(mobile.line()));
    writer.join().unwrap();

    let mut command = herd.command("Riley");
    command.args(["--log-level", "info"]);
    let riley = Server::start(&mut command);
    let address = address(&riley);
    let mut was_catching_up = false;
    let mut last = String::new();
    wait_until("Riley has everything", || {
        let ready = get(address, "/healthz/ready");
        last = ready.text().to_owned();
        was_catching_up |= last.contains("neighbour Jaquez is still sending what it knows");
        ready.status == 200
    });
    assert!(was_catching_up, "{last}");
    let status = get(address, "/status").json();
    assert_eq!(status["records"], count, "{status}");
}

#[test]
fn a_stopping_server_is_unready_and_still_answers_what_it_began() {
    let herd = Herd::single()
        .with(HTTP)
        .with("[limits]\nhttp_output_bytes = 1000\n");
    let server = herd.start("Riley");
    let address = address(&server);
    let mobiles: Vec<Client> = (0..300).map(|_| server.client()).collect();
    let mut slow = Client::connect(address);
    slow.send("GET /connections HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let page = Answer::read(&mut slow, true).json();
    assert!(page["connections"].as_array().unwrap().len() >= mobiles.len());
    server.signal(Signal::TERM);
    slow.expect_end();
    drop(mobiles);
    let (status, log) = server.wait();
    assert_eq!(status.code(), Some(0), "{}", log.join("\n"));
}

#[test]
fn a_server_whose_disk_is_full_is_unready() {
    if let Some(why) = small_disk::obstacle() {
        return outside::skipped("readiness with a full disk", &why);
    }
    let herd = Herd::single()
        .with_top("data_dir = \"data\"\n")
        .with(HTTP)
        .with("[limits]\njournal_ahead_bytes = 16384\ncompact_bytes = 1\n");
    let server = Server::start(&mut small_disk::on_disk_of(&herd, "data", 256 << 10));
    let address = address(&server);
    wait_until("it is ready", || {
        get(address, "/healthz/ready").status == 200
    });
    let mut mobile = server.client();
    let padding = "x".repeat(3_000);
    let mut number = 0;
    wait_until("the disk is full", || {
        number += 1;
        mobile
            .ask(&format!("IAMAT {padding}{number} +1+2 3"))
            .starts_with('?')
    });
    let ready = get(address, "/healthz/ready");
    assert_eq!(ready.status, 503, "{ready:?}");
    assert!(
        ready
            .text()
            .contains("the disk has had no room for records"),
        "{ready:?}"
    );
    assert_eq!(get(address, "/healthz/live").status, 200);
    drop(fs::metadata(herd.directory.path()));
}
