//! The HTTP port: what it answers to a client that behaves.

use std::io::Write as _;
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::Duration;

use herd_testkit::client::{Client, wait_until};
use herd_testkit::herd::{Herd, Server, server_command};
use serde_json::Value;

use crate::outside;

/// A table of a config file that opens the HTTP port.
pub(crate) const HTTP: &str = "[http]\nlisten = \"127.0.0.1:0\"\n";

/// The address of a server's HTTP port.
pub(crate) fn address(server: &Server) -> SocketAddr {
    let line = server.wait_for_log(": clients on ", ", HTTP on ");
    let (_, rest) = line.split_once(", HTTP on ").unwrap();
    rest.split(',').next().unwrap().parse().unwrap()
}

/// An answer of the HTTP port.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    /// Reads an answer. `has_body` is whether the request was not HEAD.
    pub(crate) fn read(client: &mut Client, has_body: bool) -> Answer {
        let head = String::from_utf8(client.until(b"\r\n\r\n")).unwrap();
        let status = head.split(' ').nth(1).and_then(|it| it.parse().ok());
        let field = |name: &str| {
            head.lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
        };
        let length = field("Content-Length").map(|it| it.parse::<usize>().unwrap());
        let is_chunked = field("Transfer-Encoding") == Some("chunked");
        assert!(!(is_chunked && length.is_some()), "{head}");
        let mut body = Vec::new();
        if !has_body {
        } else if let Some(length) = length {
            body = client.bytes(length);
        } else if is_chunked {
            loop {
                let line = String::from_utf8(client.until(b"\r\n")).unwrap();
                let length = usize::from_str_radix(line.trim_end(), 16).unwrap();
                body.extend(client.bytes(length));
                client.expect(b"\r\n");
                if length == 0 {
                    break;
                }
            }
        } else {
            body = client.rest();
        }
        Answer {
            status: status.unwrap(),
            head,
            body,
        }
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }
}

/// Sends a GET on a connection of its own.
pub(crate) fn get(address: SocketAddr, target: &str) -> Answer {
    let mut client = Client::connect(address);
    client.send(format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
    Answer::read(&mut client, true)
}

fn single() -> (Server, SocketAddr) {
    let server = Herd::single().with(HTTP).start("Riley");
    let address = address(&server);
    (server, address)
}

/// The value of a metric without labels, or with this text between its braces.
pub(crate) fn metric(text: &str, name: &str) -> f64 {
    let value = text
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    let value = value.unwrap_or_else(|| panic!("no {name} in\n{text}"));
    value.parse().unwrap()
}

#[test]
fn a_server_has_no_http_port_unless_it_is_configured() {
    let server = Herd::single().start("Riley");
    let line = server.wait_for_log(": clients on ", "");
    assert!(!line.contains("HTTP"), "{line}");
}

#[test]
fn a_healthy_server_is_live_and_ready() {
    let (_server, address) = single();
    let live = get(address, "/healthz/live");
    assert_eq!((live.status, live.text()), (200, "{\"live\":true}\n"));
    let ready = get(address, "/healthz/ready");
    assert_eq!(
        (ready.status, ready.text()),
        (200, "{\"ready\":true,\"reasons\":[]}\n")
    );
}

#[test]
fn no_other_page_may_read_frame_or_store_an_answer() {
    let (_server, address) = single();
    for target in ["/healthz/live", "/connections", "/no"] {
        let mut client = Client::connect(address);
        client.send(format!(
            "GET {target} HTTP/1.1\r\nHost: localhost\r\nOrigin: http://evil.example\r\n\r\n"
        ));
        let head = Answer::read(&mut client, true).head;
        for field in [
            "Cache-Control: no-store",
            "X-Content-Type-Options: nosniff",
            "Content-Security-Policy: default-src 'none'",
        ] {
            assert!(head.contains(field), "{head}");
        }
        assert!(!head.contains("Access-Control"), "{head}");
    }
}

#[test]
fn requests_for_other_hosts_are_refused() {
    let toml = "[http]\nlisten = \"127.0.0.1:0\"\nhosts = [\"riley.example\"]\n";
    let server = Herd::single().with(toml).start("Riley");
    let address = address(&server);
    let mut client = Client::connect(address);
    for (host, status) in [
        ("localhost:1", 200),
        ("RILEY.example", 200),
        ("127.0.0.1:9100", 200),
        ("evil.example", 421),
        ("192.0.2.1", 421),
        ("localhost.evil.example", 421),
        ("", 421),
    ] {
        client.send(format!(
            "GET /healthz/live HTTP/1.1\r\nHost: {host}\r\n\r\n"
        ));
        let answer = Answer::read(&mut client, true);
        assert_eq!(answer.status, status, "{host}: {answer:?}");
    }
}

#[test]
fn only_get_and_head_are_answered() {
    let (_server, address) = single();
    let mut client = Client::connect(address);
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "TRACE", "get"] {
        client.send(format!(
            "{method} /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n"
        ));
        let answer = Answer::read(&mut client, true);
        assert_eq!(answer.status, 405, "{answer:?}");
        assert!(
            answer.head.contains("\r\nAllow: GET, HEAD\r\n"),
            "{answer:?}"
        );
    }
    for target in ["/metrics", "/connections", "/healthz/live"] {
        client.send(format!("HEAD {target} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
        assert_eq!(Answer::read(&mut client, false).status, 200);
    }
    client.send("GET /healthz/live HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    assert_eq!(Answer::read(&mut client, true).text(), "{\"live\":true}\n");
    client.expect_end();
}

#[test]
fn http_1_0_gets_whole_answers_that_end_with_the_connection() {
    let (_server, address) = single();
    for target in ["/metrics", "/connections"] {
        let mut client = Client::connect(address);
        client.send(format!("GET {target} HTTP/1.0\r\n\r\n"));
        let answer = Answer::read(&mut client, true);
        assert_eq!(answer.status, 200);
        assert!(!answer.head.contains("chunked"), "{answer:?}");
        client.expect_end();
    }
}

#[test]
fn ten_thousand_pipelined_requests_are_answered_in_order() {
    let (server, address) = single();
    let mut client = Client::connect(address);
    let requests: String = (0..10_000)
        .map(|number| format!("GET /clients/c{number} HTTP/1.1\r\nHost: a\r\n\r\n"))
        .collect();
    let requests = requests.replace("Host: a", "Host: localhost");
    let mut mobile = server.client();
    for number in [0, 9_999] {
        mobile.ask(&format!("IAMAT c{number} +1+2 3"));
    }
    let writer = client.send_meanwhile(requests.into_bytes());
    for number in 0..10_000 {
        let answer = Answer::read(&mut client, true);
        match number {
            0 | 9_999 => assert_eq!(answer.json()["client"], format!("c{number}")),
            _ => assert_eq!(answer.status, 404, "{number}"),
        }
    }
    writer.join().unwrap();
    // Other clients are served meanwhile.
    mobile.ask("IAMAT kiwi +1+2 3");
}

#[test]
fn a_client_that_closes_its_side_still_gets_its_answers() {
    let (_server, address) = single();
    let mut client = Client::connect(address);
    let request = "GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n";
    client.send(format!("{request}{request}GET /met"));
    client.finish();
    for _ in 0..2 {
        let answer = Answer::read(&mut client, true);
        assert!(answer.text().contains("herd_records 0\n"), "{answer:?}");
    }
    client.expect_end();
}

#[test]
fn a_request_may_come_byte_after_byte() {
    let (_server, address) = single();
    let mut client = Client::connect(address);
    for byte in b"\r\nGET /healthz/live HTTP/1.1\r\nHost: localhost\r\n\r\n" {
        client.send([*byte]);
    }
    assert_eq!(Answer::read(&mut client, true).status, 200);
}

#[test]
fn metrics_count_what_happened() {
    let (server, address) = single();
    let mut mobile = server.client();
    mobile.ask("IAMAT kiwi +1+2 3");
    mobile.ask("IAMAT kiwi +1+2 2");
    mobile.refused("hello");
    mobile.send("\nWHATSAT kiwi 1 1\n").places();
    let text = get(address, "/metrics");
    let text = text.text();
    for (name, expected) in [
        ("herd_commands_total{command=\"iamat\"}", 2.0),
        ("herd_commands_total{command=\"whatsat\"}", 1.0),
        ("herd_commands_total{command=\"blank\"}", 1.0),
        ("herd_commands_total{command=\"invalid\"}", 1.0),
        ("herd_answers_total{answer=\"at\"}", 2.0),
        ("herd_answers_total{answer=\"places\"}", 1.0),
        ("herd_answers_total{answer=\"quote\"}", 1.0),
        ("herd_iamats_stale_total", 1.0),
        ("herd_iamats_behind_total", 2.0),
        ("herd_records", 1.0),
        ("herd_connections{kind=\"client\"}", 1.0),
        ("herd_connections{kind=\"http\"}", 1.0),
        ("herd_received_bytes_total{kind=\"client\"}", 60.0),
        ("herd_ready", 1.0),
    ] {
        assert_eq!(metric(text, name), expected, "{name}");
    }
    for name in [
        "process_start_time_seconds",
        "process_resident_memory_bytes",
        "herd_turn_seconds_count",
        "herd_log_lines_total",
        "herd_buffer_max_bytes",
    ] {
        assert!(metric(text, name) > 0.0, "{name}");
    }
}

#[test]
fn metrics_do_not_grow_with_clients() {
    let (server, address) = single();
    let names = |text: &str| -> Vec<String> {
        let samples = text.lines().filter(|line| !line.starts_with('#'));
        samples
            .map(|line| line.split(' ').next().unwrap().to_owned())
            .collect()
    };
    let before = names(get(address, "/metrics").text());
    let mut mobiles: Vec<Client> = (0..100).map(|_| server.client()).collect();
    for (number, mobile) in mobiles.iter_mut().enumerate() {
        mobile.ask(&format!("IAMAT c{number} +1+2 3"));
    }
    assert_eq!(names(get(address, "/metrics").text()), before);
}

#[test]
fn a_family_of_metrics_occurs_once_in_both_formats() {
    let (_server, address) = single();
    for accept in ["text/plain", "application/openmetrics-text;version=1.0.0"] {
        let mut client = Client::connect(address);
        client.send(format!(
            "GET /metrics HTTP/1.1\r\nHost: localhost\r\nAccept: {accept}\r\n\r\n"
        ));
        let answer = Answer::read(&mut client, true);
        assert!(answer.head.contains(&format!(
            "Content-Type: {}",
            accept.split(';').next().unwrap()
        )));
        let families: Vec<&str> = answer
            .text()
            .lines()
            .filter_map(|line| line.strip_prefix("# TYPE "))
            .map(|line| line.split(' ').next().unwrap())
            .collect();
        let once: std::collections::BTreeSet<&&str> = families.iter().collect();
        assert_eq!(once.len(), families.len(), "{families:?}");
        assert_eq!(
            answer.text().ends_with("# EOF\n"),
            accept.contains("openmetrics")
        );
    }
}

#[test]
fn the_readme_explains_every_metric() {
    let herd = Herd::new(&["Riley", "Jaquez"], &[("Riley", "Jaquez")])
        .with_top("data_dir = \"data\"\n")
        .with(HTTP)
        .with("[places]\nmax_per_day = 5\n");
    let server = herd.start("Riley");
    let answer = get(address(&server), "/metrics");
    let families = answer
        .text()
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE "));
    let readme = include_str!("../../README.md");
    let missing: Vec<&str> = families
        .map(|line| line.split(' ').next().unwrap())
        .filter(|name| {
            !readme.contains(&format!("`{name}`")) && !readme.contains(&format!("`{name}{{"))
        })
        .collect();
    assert_eq!(missing, [""; 0]);
}

#[test]
fn promtool_accepts_the_metrics() {
    let tool = std::env::var("HERD_TEST_PROMTOOL").unwrap_or_else(|_| "promtool".to_owned());
    let herd =
        Herd::new(&["Riley", "Jaquez"], &[("Riley", "Jaquez")]).with_top("data_dir = \"data\"\n");
    let riley = herd.start("Riley");
    let mut command = herd.command("Jaquez");
    command.args(["--http", "127.0.0.1:0"]);
    let jaquez = Server::start(&mut command);
    riley.wait_for_log("neighbour Jaquez ", ": linked, ");
    let answer = get(address(&jaquez), "/metrics");
    let checked = Command::new(&tool)
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut checked = match checked {
        Ok(checked) => checked,
        Err(error) => return outside::skipped("metrics for promtool", &format!("{tool}: {error}")),
    };
    checked
        .stdin
        .take()
        .unwrap()
        .write_all(&answer.body)
        .unwrap();
    let output = checked.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.is_empty(), "{said}");
}

#[test]
fn the_pages_show_what_every_connection_does() {
    let herd = Herd::new(&["Riley", "Jaquez"], &[("Riley", "Jaquez")]).with(HTTP);
    let riley = herd.start("Riley");
    let address = address(&riley);
    let links = || get(address, "/links").json()["links"][0].clone();
    wait_until("the attempt failed", || {
        links()["failed_attempts"].as_u64() > Some(0)
    });
    assert_eq!(links()["is_up"], false);
    let _jaquez = herd.start("Jaquez");
    wait_until("linked", || links()["is_up"] == true);
    let link = links();
    assert_eq!(link["neighbour"], "Jaquez");
    assert_eq!(link["dialled_by"], "Riley");

    let mut mobile = riley.client();
    mobile.ask("IAMAT kiwi +1+2 3");
    mobile.send("IAMAT unfinished");
    let connection = |kind: &str| {
        let page = get(address, "/connections").json();
        let list = page["connections"].as_array().unwrap().clone();
        list.into_iter().find(|it| it["kind"] == kind).unwrap()
    };
    wait_until("the line began", || {
        connection("client")["due_in_ms"].is_u64()
    });
    let client = connection("client");
    assert_eq!(client["state"], "reading");
    assert_eq!(
        client["address"],
        mobile.stream().local_addr().unwrap().to_string()
    );
    assert!(
        client["waits_ms"].is_u64() && client["held_bytes"].as_u64() > Some(15),
        "{client}"
    );
    let link = connection("link");
    assert_eq!(
        (&link["state"], &link["neighbour"]),
        (&"linked".into(), &"Jaquez".into())
    );
    assert_eq!(connection("http")["state"], "awaiting");

    let status = get(address, "/status").json();
    assert_eq!(status["server"], "Riley");
    assert_eq!(status["records"], 1);
    assert_eq!(status["connections"]["links"], 1);
    assert_eq!(status["counters"]["behind"], 1);
    assert_eq!(
        get(address, "/calls").text(),
        "{\"calls\":[\n],\"next\":null}\n"
    );
}

#[test]
fn a_client_is_found_by_its_name_in_any_bytes() {
    let (server, address) = single();
    let mut mobile = server.client();
    mobile
        .send(b"IAMAT a/b?\xff%\" +34.068930-118.445127 1621464827.5\n")
        .line_of_bytes();
    let answer = get(address, "/clients/a%2Fb%3f%ff%25%22");
    assert_eq!(answer.status, 200, "{answer:?}");
    let json = answer.json();
    assert_eq!(json["client"], "a/b?\u{fffd}%\"");
    assert_eq!(json["client_hex"], "612f623fff2522");
    assert_eq!(json["latitude"], 34.068_930);
    assert_eq!(json["longitude"], -118.445_127);
    assert_eq!(json["time"], "1621464827.5");
    assert_eq!(json["change"], 1);
    assert_eq!(json["server"], "Riley");
    assert_eq!(json["is_safe"], true);
    assert_eq!(get(address, "/clients/a").status, 404);
    assert_eq!(get(address, "/clients/").status, 404);
    assert_eq!(get(address, "/clients/%4").status, 400);
}

#[test]
fn an_address_that_others_can_reach_must_be_asked_for() {
    let check = |arguments: &[&str]| {
        let output = server_command()
            .args(["Riley", "--check", "--log-file", "-"])
            .args(["--listen", "127.0.0.1:0", "--listen-peers", "127.0.0.1:0"])
            .args(arguments)
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        (
            output.status.code(),
            text,
            String::from_utf8(output.stderr).unwrap(),
        )
    };
    let (status, text, _) = check(&[]);
    assert_eq!(status, Some(0));
    assert!(
        text.contains("http        none: nothing listens for HTTP\n"),
        "{text}"
    );
    let (status, _, error) = check(&["--http", "0.0.0.0:0"]);
    assert_eq!(status, Some(2));
    assert!(
        error.contains("listen on 0.0.0.0:0, which other machines can reach")
            && error.contains("--http-exposed"),
        "{error}"
    );
    let (status, text, error) = check(&["--http", "0.0.0.0:0", "--http-exposed"]);
    assert_eq!(status, Some(0), "{error}");
    assert!(text.contains("http        0.0.0.0:0"), "{text}");
    assert!(
        text.contains("note        the HTTP port is exposed"),
        "{text}"
    );
    let (status, _, error) = check(&["--http", "localhost"]);
    assert_eq!(status, Some(2));
    assert!(error.contains("--http, HERD_HTTP"), "{error}");
}

#[test]
fn each_server_of_a_config_file_can_have_its_own_http_port() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("herd.toml");
    let text = "[[servers]]\nname = \"A\"\nclients = \"127.0.0.1:0\"\nhttp = \"127.0.0.1:0\"\n\
        [[servers]]\nname = \"B\"\nclients = \"127.0.0.1:0\"\nhttp = \"192.0.2.1:9100\"\n[http]\nhosts = []\n";
    std::fs::write(&file, text).unwrap();
    let check = |name: &str| {
        let mut command = server_command();
        command
            .args([name, "--check", "--log-file", "-", "--config"])
            .arg(&file);
        let output = command.output().unwrap();
        (
            output.status.code(),
            String::from_utf8(output.stderr).unwrap(),
        )
    };
    assert_eq!(check("A").0, Some(0));
    let (status, error) = check("B");
    assert_eq!(status, Some(2), "{error}");
    assert!(error.contains("192.0.2.1:9100"), "{error}");
    std::fs::write(&file, text.replace("hosts = []", "hosts = [\"a:1\"]")).unwrap();
    let (status, error) = check("A");
    assert_eq!(status, Some(2));
    assert!(error.contains("http.hosts has \"a:1\""), "{error}");
}

#[test]
fn a_stop_closes_idle_http_connections() {
    let (server, address) = single();
    let mut idle = Client::connect(address);
    idle.send("GET /healthz/live HTTP/1.1\r\nHost: localhost\r\n\r\n");
    Answer::read(&mut idle, true);
    let mut begun = Client::connect(address);
    // When the answer has come, the beginning of the next request was read, too.
    let request = "GET /healthz/live HTTP/1.1\r\n";
    begun.send(format!("{request}Host: localhost\r\n\r\n{request}"));
    Answer::read(&mut begun, true);
    let stopped = std::time::Instant::now();
    server.stop();
    idle.expect_end();
    begun.expect_end();
    assert!(
        stopped.elapsed() < Duration::from_secs(4),
        "{:?}",
        stopped.elapsed()
    );
}
