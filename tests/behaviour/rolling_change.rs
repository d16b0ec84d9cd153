//! Changes the herd's secret, TLS between servers, and the authority, one server at a time, as the
//! README describes. Meanwhile clients move and servers are killed. No link between two running
//! servers may be down for more than a second.

use std::collections::HashMap;
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use herd_testkit::client::{Client, wait_until};
use herd_testkit::herd::Server;
use rustix::process::Signal;

use crate::fleet::{Fleet, PeersTls};
use crate::tls::Authority;

const OLD: &str = "the old secret of the herd";
const NEW: &str = "the new secret of the herd";

/// How long a link between two running servers may be down.
const MAX_DOWN_US: u64 = 1_000_000;
/// How many clients each server has.
const CLIENTS: u64 = 10;
/// The time between two updates of a client.
const PAUSE: Duration = Duration::from_millis(1);

/// The wall clock of this machine, in microseconds since midnight. The logs use the same clock.
fn now_us() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    since.as_micros() as u64 % DAY_US
}

const DAY_US: u64 = 86_400_000_000;

/// The time at which a line was logged: `2026-11-30T16:18:10.296212Z …`.
fn logged_us(line: &str) -> u64 {
    let part = |at: std::ops::Range<usize>| line[at].parse::<u64>().unwrap();
    let seconds = (part(11..13) * 60 + part(14..16)) * 60 + part(17..19);
    seconds * 1_000_000 + part(20..26)
}

/// One run of a server's process, which has ended.
struct Life {
    name: String,
    ready_us: u64,
    end_us: u64,
    log: Vec<String>,
}

impl Life {
    /// The times at which the link with `other` came up (true) and went down (false).
    fn link_events(&self, other: &str) -> Vec<(u64, bool)> {
        let label = format!("] neighbour {other} ");
        let of_other = self.log.iter().filter(|line| line.contains(&label));
        let event = |line: &String| match (line.contains(": linked, "), line.contains(": lost: ")) {
            (true, _) => Some((logged_us(line), true)),
            (false, true) => Some((logged_us(line), false)),
            (false, false) => None,
        };
        of_other.filter_map(event).collect()
    }

    /// The longest time that the link with `other` was down while both servers were running.
    fn longest_down_us(&self, other: &Life) -> u64 {
        let start = self.ready_us.max(other.ready_us);
        let end = self.end_us.min(other.end_us);
        let mut down_since = Some(start);
        let mut longest = 0;
        for (at, is_up) in self.link_events(&other.name) {
            match (is_up, down_since) {
                (true, Some(since)) => {
                    longest = longest.max(at.min(end).saturating_sub(since));
                    down_since = None;
                }
                (false, None) => down_since = Some(at.max(start)),
                (true, None) | (false, Some(_)) => {}
            }
        }
        down_since.map_or(longest, |since| longest.max(end.saturating_sub(since)))
    }
}

/// A running herd.
struct Running {
    fleet: Fleet,
    servers: HashMap<String, (Server, u64)>,
    lives: Vec<Life>,
    /// Decides the order in which the servers are changed, and which one is killed.
    seed: u64,
}

impl Running {
    fn start(fleet: Fleet) -> Running {
        let mut running = Running {
            fleet,
            servers: HashMap::new(),
            lives: Vec::new(),
            seed: now_us(),
        };
        eprintln!("seed {}", running.seed);
        for name in running.fleet.names() {
            running.begin(&name);
        }
        for name in running.fleet.names() {
            running.wait_for_links(&name);
        }
        running
    }

    fn begin(&mut self, name: &str) {
        let server = self.fleet.start(name);
        let ready = server.wait_for_log(": clients on ", "");
        self.servers
            .insert(name.to_owned(), (server, logged_us(&ready)));
    }

    /// Waits until all links of a server are up at both ends.
    fn wait_for_links(&self, name: &str) {
        let life = &self.servers[name];
        for (a, b) in self.fleet.links() {
            let other = match (a == name, b == name) {
                (true, _) => b,
                (_, true) => a,
                (false, false) => continue,
            };
            let label = format!("neighbour {other} ");
            life.0.wait_for_log(&label, ": linked, ");
        }
    }

    /// Waits until the latest log line about each link, at both ends, says that it uses TLS.
    fn wait_for_tls(&self) {
        for (a, b) in self.fleet.links() {
            for (name, other) in [(a, b), (b, a)] {
                let label = format!("] neighbour {other} ");
                let server = &self.servers[name].0;
                wait_until("a link over TLS", || {
                    let log = server.log_lines();
                    let of_other = log.iter().rev().filter(|line| line.contains(&label));
                    let mut events = of_other
                        .filter(|line| line.contains(": linked, ") || line.contains(": lost: "));
                    events
                        .next()
                        .is_some_and(|line| line.ends_with(", over TLS"))
                });
            }
        }
    }

    /// The names of the servers in a random order.
    fn shuffled(&mut self) -> Vec<String> {
        let mut names = self.fleet.names();
        for place in (1..names.len()).rev() {
            names.swap(place, self.random(place as u64 + 1) as usize);
        }
        names
    }

    fn random(&mut self, below: u64) -> u64 {
        self.seed = self
            .seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.seed >> 33) % below
    }

    /// Stops or kills a server, and starts it again.
    fn restart(&mut self, name: &str, is_kill: bool) {
        let (server, ready_us) = self.servers.remove(name).unwrap();
        let end_us = now_us();
        let log = if is_kill {
            let log = server.log_lines();
            server.kill();
            log
        } else {
            server.stop()
        };
        let name = name.to_owned();
        self.begin(&name);
        self.lives.push(Life {
            name,
            ready_us,
            end_us,
            log,
        });
    }

    /// Lets a server read its files again, and waits for this log line.
    fn reload(&self, name: &str, said: &str) {
        let (server, _) = &self.servers[name];
        let log = server.log_lines();
        let before = log.iter().filter(|line| line.contains(said)).count();
        server.signal(Signal::HUP);
        server.wait_for_nth_log(before + 1, said, "");
    }

    /// Changes files of each server, in a random order, and lets it read them. In between, one
    /// server is killed and started again.
    fn change_files(&mut self, said: &str, change: impl Fn(&Fleet, &str)) {
        let kill_after = self.random(5) as usize;
        for (place, name) in self.shuffled().iter().enumerate() {
            change(&self.fleet, name);
            self.reload(name, said);
            if place == kill_after {
                let victim = self.random(5) as usize;
                let victim = self.fleet.names().swap_remove(victim);
                self.restart(&victim, true);
                self.wait_for_links(&victim);
            }
        }
    }

    /// Changes the config files of these servers, and restarts each.
    fn change_tls(&mut self, names: &[String], tls: PeersTls) {
        for name in names {
            self.fleet.configure(name, tls, "");
            self.restart(name, false);
            self.wait_for_links(name);
        }
    }

    /// Ends the test: stops all servers, and checks how long links were down.
    fn end(mut self) {
        let end_us = now_us();
        for (name, (server, ready_us)) in self.servers.drain() {
            let log = server.log_lines();
            server.signal(Signal::TERM);
            self.lives.push(Life {
                name,
                ready_us,
                end_us,
                log,
            });
        }
        let mut longest = 0;
        for one in &self.lives {
            for other in &self.lives {
                let is_link = |(a, b): &(String, String)| {
                    [(a, b), (b, a)].contains(&(&one.name, &other.name))
                };
                if self.fleet.links().iter().any(is_link) {
                    let down_us = one.longest_down_us(other);
                    assert!(
                        down_us <= MAX_DOWN_US,
                        "{} was not linked with {} for {down_us} us; ready at {} and {}, ended at {} and {}:\n{}\n---\n{}",
                        one.name,
                        other.name,
                        one.ready_us,
                        other.ready_us,
                        one.end_us,
                        other.end_us,
                        one.log.join("\n"),
                        other.log.join("\n"),
                    );
                    longest = longest.max(down_us);
                }
            }
        }
        eprintln!(
            "{} lives, no link down for more than {longest} us",
            self.lives.len()
        );
    }
}

/// Clients of all servers that send new positions until `stop`.
struct Movers {
    stop: Arc<AtomicBool>,
    acknowledged: Arc<AtomicU64>,
    threads: Vec<JoinHandle<HashMap<String, String>>>,
}

impl Movers {
    fn start(fleet: &Fleet) -> Movers {
        let (stop, acknowledged) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicU64::new(0)),
        );
        let move_at = |name: String| {
            let address = fleet.clients_address(&name);
            let (stop, acknowledged) = (stop.clone(), acknowledged.clone());
            thread::spawn(move || move_clients(&name, address, &stop, &acknowledged))
        };
        Movers {
            threads: fleet.names().into_iter().map(move_at).collect(),
            stop,
            acknowledged,
        }
    }

    /// Stops the clients. Returns the last answer that each of them got.
    fn stop(self) -> HashMap<String, String> {
        self.stop.store(true, Ordering::SeqCst);
        let answers = self.threads.into_iter().map(|it| it.join().unwrap());
        let answers: HashMap<_, _> = answers.flatten().collect();
        eprintln!("{} updates", self.acknowledged.load(Ordering::SeqCst));
        answers
    }
}

fn move_clients(
    server: &str,
    address: SocketAddr,
    stop: &AtomicBool,
    acknowledged: &AtomicU64,
) -> HashMap<String, String> {
    let mut answers = HashMap::new();
    let mut connection: Option<Client> = None;
    for turn in 0.. {
        if stop.load(Ordering::SeqCst) {
            break;
        }
        let Some(client) = &mut connection else {
            connection = TcpStream::connect(address).ok().map(Client::of);
            thread::park_timeout(PAUSE);
            continue;
        };
        let name = format!("{server}-{}", turn % CLIENTS);
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let time = format!("{}.{:09}", since.as_secs(), since.subsec_nanos());
        match client.try_ask(&format!("IAMAT {name} +34.0-118.4 {time}\n")) {
            Some(answer) => {
                assert!(answer.starts_with(&format!("AT {server} ")), "{answer}");
                acknowledged.fetch_add(1, Ordering::SeqCst);
                answers.insert(name, answer);
            }
            None => connection = None, // the server restarts
        }
        thread::park_timeout(PAUSE);
    }
    answers
}

/// The client's time in an `AT` line. Here a later time is also a greater text.
fn time(line: &str) -> &str {
    line.rsplit(' ').next().unwrap()
}

#[test]
fn a_rolling_change_of_secret_and_tls_keeps_serving() {
    let preset = herd_mio::presets::by_year("2021").unwrap();
    let (old_authority, new_authority) = (Authority::new(), Authority::new());
    let fleet = Fleet::new(&preset.servers, preset.links);
    for name in fleet.names() {
        fleet.trust(&name, &[&old_authority]);
        fleet.certify(&name, &old_authority);
    }
    let mut herd = Running::start(fleet);
    let movers = Movers::start(&herd.fleet);

    for secret in [
        format!("{OLD}\n{NEW}\n"),
        format!("{NEW}\n{OLD}\n"),
        format!("{NEW}\n"),
    ] {
        let change = |fleet: &Fleet, name: &str| fleet.secret(name, &secret);
        herd.change_files("the herd secret was read anew: changed", change);
    }

    let order = herd.shuffled();
    herd.change_tls(&order[..3], PeersTls::Offered);
    // One of the servers goes back, and then all go on.
    herd.change_tls(&order[1..2], PeersTls::None);
    herd.change_tls(&order[3..], PeersTls::Offered);
    herd.change_tls(&order[1..2], PeersTls::Offered);
    // Each link was lost when its second server was restarted, and then came up with TLS.
    herd.wait_for_tls();
    let order = herd.shuffled();
    herd.change_tls(&order, PeersTls::Required);
    herd.wait_for_tls();

    let said = "TLS: certificates and keys were read anew";
    herd.change_files(said, |fleet, name| {
        fleet.trust(name, &[&old_authority, &new_authority])
    });
    herd.change_files(said, |fleet, name| fleet.certify(name, &new_authority));
    herd.change_files(said, |fleet, name| fleet.trust(name, &[&new_authority]));

    let answers = movers.stop();
    assert_eq!(
        answers.len() as u64,
        CLIENTS * herd.fleet.names().len() as u64
    );
    let held = Mutex::new(HashMap::<String, Vec<String>>::new());
    for (server, _) in herd.servers.values() {
        let mut client = server.client();
        for (name, answer) in &answers {
            // A command in flight when its server stopped may have been accepted, too.
            let line = client.wait_for_record(name, |line| {
                line.starts_with("AT ") && time(line) >= time(answer)
            });
            held.lock()
                .unwrap()
                .entry(name.clone())
                .or_default()
                .push(line);
        }
    }
    for (name, lines) in held.into_inner().unwrap() {
        assert!(
            lines.windows(2).all(|pair| pair[0] == pair[1]),
            "{name}: {lines:#?}"
        );
    }
    // Certificates of the old authority are now refused.
    let outdated = herd.shuffled().swap_remove(0);
    herd.fleet.certify(&outdated, &old_authority);
    herd.fleet
        .trust(&outdated, &[&old_authority, &new_authority]);
    herd.restart(&outdated, false);
    let (server, _) = &herd.servers[&outdated];
    server.wait_for_log("it refused the TLS handshake: ", "[WARN ] ");
    let log = server.log_lines();
    assert!(
        !log.iter().any(|line| line.contains(": linked, ")),
        "{log:#?}"
    );
    herd.servers.remove(&outdated);
    herd.end();
}
