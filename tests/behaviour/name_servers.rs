//! A name server that hangs or is slow. Clients that ask Places wait for it, up to a deadline.
//! Other clients do not wait.
//!
//! The server under test runs in a mount namespace with its own `/etc/resolv.conf`, which names a
//! name server in the test. This needs root, `unshare` and port 53. Where one of these is missing,
//! the tests are skipped, and the standard error says why.

use std::fs;
use std::io::Write as _;
use std::net::{Ipv4Addr, UdpSocket};
use std::process::Command;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use herd_testkit::client::{Client, SOON};
use herd_testkit::herd::{Herd, Server};

use crate::places::{message, stand_in};

/// A name server with its own loopback address.
struct NameServer {
    address: Ipv4Addr,
    /// Receives one message for each question.
    asked: Receiver<()>,
}

impl NameServer {
    /// Answers each question with 127.0.0.1 after this delay, or never. It never answers a question
    /// for `hangs.test`. Returns `None`, with a message, where that is not possible.
    fn start(delay: Option<Duration>) -> Option<NameServer> {
        match NameServer::try_start(delay) {
            Ok(server) => Some(server),
            Err(why) => {
                let what = "a name server that hangs";
                let _ = writeln!(
                    std::io::stderr(),
                    "skipped: {what}: {why} (it takes root, unshare and mount)"
                );
                None
            }
        }
    }

    fn try_start(delay: Option<Duration>) -> Result<NameServer, String> {
        static COUNTER: AtomicU8 = AtomicU8::new(0);
        let [.., high, low] = std::process::id().to_be_bytes();
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let address = Ipv4Addr::new(127, 200 + number % 50, high, low.clamp(1, 254));
        let can_mount = Command::new("unshare")
            .args([
                "--mount",
                "mount",
                "--bind",
                "/etc/hostname",
                "/etc/resolv.conf",
            ])
            .output()
            .map_err(|error| format!("`unshare`: {error}"))?;
        if !can_mount.status.success() {
            let said = String::from_utf8_lossy(&can_mount.stderr);
            return Err(format!("`unshare --mount`: {}", said.trim()));
        }
        let socket = UdpSocket::bind((address, 53)).map_err(|error| format!("port 53: {error}"))?;
        let (ask, asked) = channel();
        thread::spawn(move || {
            let mut question = [0; 512];
            while let Ok((length, asker)) = socket.recv_from(&mut question) {
                if ask.send(()).is_err() {
                    return;
                }
                let hangs = question[..length].windows(5).any(|name| name == b"hangs");
                if let Some(delay) = delay.filter(|_| !hangs) {
                    thread::sleep(delay);
                    let _ = socket.send_to(&answer(&question[..length]), asker);
                }
            }
        });
        Ok(NameServer { address, asked })
    }

    /// Starts a server that uses this name server.
    fn ask_for(&self, herd: &Herd, arguments: &[&str]) -> Server {
        let file = herd.directory.path().join("resolv.conf");
        let text = format!(
            "nameserver {}\noptions timeout:30 attempts:1\n",
            self.address
        );
        fs::write(&file, text).unwrap();
        let original = herd.command("Riley");
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c"]);
        command.args(["mount --bind \"$0\" /etc/resolv.conf && exec \"$@\""]);
        command.arg(file).arg(original.get_program());
        command.args(original.get_args()).args(arguments);
        command.current_dir(herd.directory.path());
        for (name, value) in original.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        Server::start(&mut command)
    }
}

/// The answer to a question: its first name has the address 127.0.0.1 and no IPv6 address (RFC 1035
/// §4).
fn answer(question: &[u8]) -> Vec<u8> {
    const HEADER: usize = 12;
    let name_length = question[HEADER..]
        .iter()
        .position(|&byte| byte == 0)
        .unwrap()
        + 1;
    let end = HEADER + name_length + 4;
    let is_ipv4 = question[end - 4..end - 2] == [0, 1];
    let mut answer = question[..end].to_vec();
    answer[2..4].copy_from_slice(&[0x81, 0x80]);
    answer[6..HEADER].copy_from_slice(&[0, u8::from(is_ipv4), 0, 0, 0, 0]);
    if is_ipv4 {
        answer.extend_from_slice(&[0xc0, HEADER as u8, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
        answer.extend_from_slice(&[127, 0, 0, 1]);
    }
    answer
}

/// Sends two hundred updates, one after the other. Returns the longest time for an answer.
fn slowest_of_many(client: &mut Client) -> Duration {
    let mut slowest = Duration::ZERO;
    for round in 0..200 {
        let asked = Instant::now();
        let at = client.ask(&format!("IAMAT other +1+2 {round}"));
        assert!(at.starts_with("AT Riley "), "{at}");
        slowest = slowest.max(asked.elapsed());
    }
    slowest
}

#[test]
fn a_hung_name_server_delays_no_other_client() {
    let Some(names) = NameServer::start(None) else {
        return;
    };
    let places = stand_in();
    let herd = Herd::single()
        .asking(&places)
        .with("[limits]\nlookup_ms = 2000\nplaces_ms = 4000\n");
    let url = format!("https://places.test:{}", places.address().port());
    let server = names.ask_for(&herd, &["--places-url", &url]);
    let (mut asker, mut second, mut other) = (server.client(), server.client(), server.client());
    asker.ask("IAMAT kiwi +34.068930-118.445127 1");
    let begun = Instant::now();
    asker.send("WHATSAT kiwi 10 5\n");
    names.asked.recv_timeout(SOON).unwrap();
    second.send("WHATSAT kiwi 11 5\n");
    let slowest = slowest_of_many(&mut other);
    assert!(
        begun.elapsed() < Duration::from_millis(1_900),
        "the others were held up: the slowest took {slowest:?}"
    );
    for client in [&mut asker, &mut second] {
        let error = serde_json::from_str(&client.places().1).unwrap();
        assert!(
            message(&error).contains("no answer from the name server within 2 s"),
            "{error}"
        );
    }
    let took = begun.elapsed();
    assert!(took >= Duration::from_millis(1_900), "{took:?}");
    assert!(took < Duration::from_secs(4), "{took:?}");
    assert_eq!(places.connections(), 0);
    drop((asker, second, other));
    // The stop does not wait for the thread that waits for the name server.
    let told = Instant::now();
    server.stop();
    assert!(told.elapsed() < Duration::from_secs(4));
}

#[test]
fn a_hung_lookup_does_not_block_other_lookups() {
    let Some(names) = NameServer::start(Some(Duration::ZERO)) else {
        return;
    };
    let places = stand_in();
    let herd = Herd::new(&["Riley"], &[("Riley", "Jaquez")])
        .with("[[servers]]\nname = \"Jaquez\"\nclients = \"hangs.test:10\"\npeers = \"hangs.test:11\"\n")
        .asking(&places)
        .with("[limits]\nlookup_ms = 4000\n");
    let url = format!("https://places.test:{}", places.address().port());
    let server = names.ask_for(&herd, &["--places-url", &url]);
    // The server resolves its neighbour's name at the start, and again after each failure.
    names.asked.recv_timeout(SOON).unwrap();
    let mut client = server.client();
    client.ask("IAMAT kiwi +34.068930-118.445127 1");
    let (_, json) = client.send("WHATSAT kiwi 10 5\n").places();
    assert!(!json.contains("UNKNOWN_ERROR"), "{json}");
    let reason = "not linked: no answer from the name server within 4 s";
    server.wait_for_log("neighbour Jaquez", reason);
}

#[test]
fn a_places_deadline_includes_the_name_lookup() {
    let Some(names) = NameServer::start(None) else {
        return;
    };
    let places = stand_in();
    let herd = Herd::single()
        .asking(&places)
        .with("[limits]\nlookup_ms = 60000\nplaces_ms = 1000\n");
    let url = format!("https://places.test:{}", places.address().port());
    let server = names.ask_for(&herd, &["--places-url", &url]);
    let mut client = server.client();
    client.ask("IAMAT kiwi +34.068930-118.445127 1");
    // The second time, the first look-up is still running.
    for _ in 0..2 {
        let begun = Instant::now();
        client.send("WHATSAT kiwi 10 5\n");
        let error = serde_json::from_str(&client.places().1).unwrap();
        assert!(
            message(&error).contains("did not answer within 1 s"),
            "{error}"
        );
        assert!(begun.elapsed() < Duration::from_secs(3));
    }
}

#[test]
fn a_slow_name_server_s_answer_is_used() {
    let Some(names) = NameServer::start(Some(Duration::from_millis(600))) else {
        return;
    };
    let places = stand_in();
    let herd = Herd::single()
        .asking(&places)
        .with("[limits]\nlookup_ms = 20000\nplaces_ms = 20000\n");
    let url = format!("https://places.test:{}", places.address().port());
    let server = names.ask_for(&herd, &["--places-url", &url]);
    let (mut asker, mut other) = (server.client(), server.client());
    asker.ask("IAMAT kiwi +34.068930-118.445127 1");
    asker.send("WHATSAT kiwi 10 5\n");
    names.asked.recv_timeout(SOON).unwrap();
    slowest_of_many(&mut other);
    assert_eq!(
        places.connections(),
        0,
        "the others were answered meanwhile"
    );
    let json: serde_json::Value = serde_json::from_str(&asker.places().1).unwrap();
    assert_eq!(json["status"], "OK", "{json}");
}
