//! The limits of the HTTP port, each reached by a test.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use herd_mio::core::base::limits::HTTP_FIELDS;
use herd_testkit::client::{Client, wait_until};
use herd_testkit::herd::{Herd, Server};

use crate::http::{Answer, HTTP, address, get, metric};

const REQUEST: &str = "GET /healthz/live HTTP/1.1\r\nHost: localhost\r\n\r\n";

fn limited(limits: &str) -> (Server, SocketAddr) {
    let toml = format!("{HTTP}[limits]\n{limits}\n");
    let server = Herd::single().with(&toml).start("Riley");
    let address = address(&server);
    (server, address)
}

#[test]
fn an_idle_connection_makes_room_and_a_busy_one_does_not() {
    let (server, address) = limited("max_http_connections = 2");
    let mut first = Client::connect(address);
    first.send(REQUEST);
    Answer::read(&mut first, true);
    // When the answer has come, the beginning of the next request was read, too.
    let busy = || {
        let mut busy = Client::connect(address);
        busy.send(format!("{REQUEST}GET /healthz/live HTTP/1.1\r\n"));
        Answer::read(&mut busy, true);
        busy
    };
    let mut second = busy();
    let _third = busy(); // takes the place of `first`
    first.expect_end();
    let mut fourth = Client::connect(address);
    server.wait_for_log(
        "http ",
        "refused: as many as limits.max_http_connections are busy",
    );
    fourth.expect_end();
    second.send("Host: localhost\r\n\r\n");
    assert_eq!(Answer::read(&mut second, true).status, 200);
}

#[test]
fn a_head_above_http_head_bytes_is_refused() {
    let (_server, address) = limited("http_head_bytes = 300");
    let field = |count: usize| {
        let value = "x".repeat(count);
        format!("GET /healthz/live HTTP/1.1\r\nHost: localhost\r\nX: {value}\r\n\r\n")
    };
    let fixed = field(0).len();
    for (request, status) in [
        (field(300 - fixed), 200),
        (field(301 - fixed), 431),
        (field(10_000), 431),
        (format!("GET /{}", "x".repeat(300)), 414),
    ] {
        let mut client = Client::connect(address);
        client.send(&request);
        assert_eq!(
            Answer::read(&mut client, true).status,
            status,
            "{}",
            request.len()
        );
    }
    for (count, status) in [(HTTP_FIELDS - 1, 200), (HTTP_FIELDS, 431)] {
        let (_server, address) = limited("http_head_bytes = 8000");
        let mut client = Client::connect(address);
        let fields = "a: b\r\n".repeat(count);
        client.send(format!(
            "GET /healthz/live HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n"
        ));
        assert_eq!(Answer::read(&mut client, true).status, status, "{count}");
    }
}

#[test]
fn slow_bytes_do_not_extend_the_time_for_a_head() {
    let (_server, address) = limited("http_head_ms = 600");
    let mut client = Client::connect(address);
    // The answer to the first request ends the wait for it.
    client.send(REQUEST);
    Answer::read(&mut client, true);
    let began = Instant::now();
    let mut slow = client.stream().try_clone().unwrap();
    let writer = std::thread::spawn(move || {
        for byte in b"GET /healthz/live HTTP/1.1\r\nHost: localhost\r\n"
            .iter()
            .cycle()
        {
            if std::io::Write::write_all(&mut slow, &[*byte]).is_err() {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    });
    let answer = Answer::read(&mut client, true);
    assert_eq!(answer.status, 408, "{answer:?}");
    assert!(answer.text().contains("limits.http_head_ms"), "{answer:?}");
    assert!(
        began.elapsed() >= Duration::from_millis(550),
        "{:?}",
        began.elapsed()
    );
    drop(client.rest());
    let _ = client.stream().shutdown(std::net::Shutdown::Both);
    writer.join().unwrap();
}

#[test]
fn an_idle_connection_is_closed_after_http_idle_ms() {
    let (_server, address) = limited("http_idle_ms = 400");
    let mut silent = Client::connect(address);
    let mut used = Client::connect(address);
    for _ in 0..3 {
        used.send(REQUEST);
        Answer::read(&mut used, true);
        std::thread::sleep(Duration::from_millis(200)); // half of http_idle_ms
    }
    silent.expect_end();
    used.send(REQUEST);
    Answer::read(&mut used, true);
    used.expect_end();
}

#[test]
fn an_answer_in_steps_waits_for_http_output_bytes() {
    let (server, address) = limited("http_output_bytes = 1000\nmax_clients = 20000");
    let before = server.status("VmRSS");
    // A page of about 200 KiB, and more of them than the kernel's buffers hold.
    let mobiles: Vec<Client> = (0..800).map(|_| server.client()).collect();
    let mut deaf = Client::connect(address);
    let request = "GET /connections HTTP/1.1\r\nHost: localhost\r\n\r\n";
    deaf.send(request.repeat(60));
    let held = || metric(get(address, "/metrics").text(), "herd_buffer_bytes");
    wait_until("a step waits", || held() > 1_000.0);
    let grown = server.status("VmRSS").saturating_sub(before);
    assert!(held() < 100_000.0 && grown < 8_192, "{} {grown}", held());
    for _ in 0..60 {
        let page = Answer::read(&mut deaf, true).json();
        let list = page["connections"].as_array().unwrap();
        assert!(list.len() >= mobiles.len(), "{}", list.len());
    }
}

#[test]
fn a_page_has_http_page_entries_and_the_next_page_follows() {
    let (server, address) = limited("http_page_entries = 7");
    let mobiles: Vec<Client> = (0..20).map(|_| server.client()).collect();
    wait_until("all are connected", || {
        metric(
            get(address, "/metrics").text(),
            "herd_connections{kind=\"client\"}",
        ) == 20.0
    });
    let (mut seen, mut target) = (Vec::new(), "/connections?limit=100".to_owned());
    loop {
        let page = get(address, &target).json();
        let list = page["connections"].as_array().unwrap();
        assert!(list.len() <= 7, "{page}");
        let addresses = list
            .iter()
            .map(|it| it["address"].as_str().unwrap().to_owned());
        seen.extend(addresses);
        let Some(next) = page["next"].as_u64() else {
            break;
        };
        target = format!("/connections?after={next}");
    }
    for mobile in &mobiles {
        let own = mobile.stream().local_addr().unwrap().to_string();
        assert_eq!(seen.iter().filter(|it| **it == own).count(), 1, "{own}");
    }
    let two = get(address, "/connections?limit=2").json();
    assert_eq!(two["connections"].as_array().unwrap().len(), 2);
    for wrong in ["limit=x", "after=", "limits=1"] {
        assert_eq!(get(address, &format!("/connections?{wrong}")).status, 400);
    }
}

#[test]
fn a_slow_turn_is_shown_with_its_slowest_part() {
    // A turn with this many commands takes more than a millisecond.
    let (server, address) = limited("slow_turn_ms = 1\nturn_ms = 1000");
    let mut mobile = server.client();
    let lines: String = (0..2_000)
        .map(|number| format!("IAMAT c{number} +1+2 3\n"))
        .collect();
    let writer = mobile.send_meanwhile(lines.into_bytes());
    (0..2_000).for_each(|_| drop(mobile.line()));
    writer.join().unwrap();
    let page = get(address, "/slow").json();
    assert_eq!(page["slow_turn_ms"], 1);
    let turns = page["turns"].as_array().unwrap();
    let is_input = |turn: &&serde_json::Value| turn["slowest"] == "input";
    let turn = turns
        .iter()
        .find(is_input)
        .unwrap_or_else(|| panic!("{page}"));
    assert!(turn["ms"].as_f64() > Some(1.0), "{turn}");
    assert_eq!(turn["ready"], 1);
    let text = get(address, "/metrics");
    let slow = metric(text.text(), "herd_turns_slow_total");
    assert!(slow >= turns.len() as f64, "{slow}");
}

#[test]
fn a_burst_of_connections_above_the_limit_is_served() {
    let (server, address) = limited("max_http_connections = 64");
    // All of them are there before the server accepts the first.
    server.signal(rustix::process::Signal::STOP);
    let mut clients: Vec<Client> = (0..300).map(|_| Client::connect(address)).collect();
    for client in &mut clients {
        client.send(REQUEST.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n"));
    }
    server.signal(rustix::process::Signal::CONT);
    for client in &mut clients {
        assert_eq!(Answer::read(client, true).status, 200);
    }
    let text = get(address, "/metrics");
    let refused = metric(text.text(), "herd_http_connections_refused_total");
    assert_eq!(refused, 0.0);
}
