//! `kill -9` under load: every start works, and no answered update is lost, whatever the names of
//! clients are.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use herd_testkit::at_line::Line;
use herd_testkit::promises::{End, Policy, Promises};
use herd_testkit::rng::Rng;
use rustix::process::Signal;

use herd_testkit::client::{Client, SOON};
use herd_testkit::herd::{Herd, Server};

/// How often the test kills servers. `HERD_KILLS=300 cargo test --release kill_9` sets the number.
fn kills() -> usize {
    std::env::var("HERD_KILLS").map_or(10, |text| text.parse().expect("HERD_KILLS is a number"))
}

/// How many commands a client has in flight. With so many, one write of the journal has several
/// pages, and a kill can leave some of them.
const IN_FLIGHT: usize = 16;
/// How many names each client uses.
const NAMES: usize = 20;

/// A random byte that is allowed in a name: any byte but white space.
fn name_byte(rng: &mut Rng) -> u8 {
    loop {
        let byte = rng.next_u64() as u8;
        if !b" \t\n\x0b\x0c\r".contains(&byte) {
            return byte;
        }
    }
}

/// CRC-32 (IEEE), the checksum of the journal's format 1.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0_u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            (crc >> 1) ^ (0xedb8_8320 & 0_u32.wrapping_sub(crc & 1))
        })
    })
}

/// The bytes of a whole journal entry, allowed in a name: format 1 with a correct checksum, or
/// format 2 with a guessed one.
fn forged_entry(rng: &mut Rng) -> Vec<u8> {
    loop {
        let mut payload = rng.pick(&[b"L", b"S", b"R", b"H"]).to_vec();
        let numbers = if payload == b"S" || payload == b"R" {
            1
        } else {
            3
        };
        for _ in 0..numbers * 8 {
            payload.push(name_byte(rng));
        }
        let length = (payload.len() as u32).to_le_bytes();
        let checked = [&length[..], &payload].concat();
        let checksum = if rng.percent(70) {
            crc32(&checked).to_le_bytes().to_vec()
        } else {
            (0..8).map(|_| name_byte(rng)).collect()
        };
        let entry = [&length[..], &checksum, &payload].concat();
        if !entry.iter().any(|byte| b" \t\n\x0b\x0c\r".contains(byte)) {
            return entry;
        }
    }
}

/// A name of up to 4,000 arbitrary bytes. `tag` makes it unique.
fn name(rng: &mut Rng, tag: &str) -> Vec<u8> {
    let length = match rng.below(3) {
        0 => 1 + rng.below(40),
        1 => 500 + rng.below(1_000),
        _ => 3_000 + rng.below(900),
    };
    let mut name = tag.as_bytes().to_vec();
    let is_forged = rng.percent(70);
    while name.len() < length {
        if is_forged && rng.percent(50) {
            name.extend(forged_entry(rng));
        } else {
            let count = 1 + rng.below(60);
            name.extend((0..count).map(|_| name_byte(rng)));
        }
    }
    name.truncate(4_000);
    name
}

/// Asks a server for the record of a client until it is this `AT` line or a later one.
fn wait_for(asker: &mut Client, client: &[u8], wanted: &Line) {
    let deadline = Instant::now() + SOON;
    loop {
        asker.send([b"WHATSAT ", client, b" 1 1\n"].concat());
        let mut line = asker.until(b"\n");
        line.pop();
        if line.starts_with(b"AT ") {
            asker.until(b"\n\n");
        }
        let held = Line::new(&line, 0);
        if held.as_ref() >= Some(wanted) {
            return;
        }
        assert!(
            Instant::now() < deadline,
            "{} was answered, and there is {}",
            wanted.bytes().escape_ascii(),
            line.escape_ascii()
        );
        std::thread::park_timeout(Duration::from_millis(2));
    }
}

/// Waits until the server has the latest record that any server has answered, for all clients.
fn has_all(server: &Server, promises: &Promises, servers: usize) {
    let mut asker = server.client();
    for other in 0..servers {
        for line in promises.must_be_there(other, End::Killed, Duration::MAX) {
            wait_for(&mut asker, line.client(), line);
        }
    }
}

#[test]
fn kill_9_under_load_loses_no_answered_update() {
    let herd = Herd::preset("2021")
        .with_top("data_dir = \"data\"\n")
        .level("warn");
    let names = herd.names();
    let mut servers: HashMap<String, Server> = herd.start_all_quietly();
    let mut promises = Promises::new();
    for server in 0..names.len() {
        // The tests kill processes, but the machine never loses power.
        promises.serves(server, Policy::Never);
    }
    let mut rng = Rng::new(12_345, "kills");
    let clients: Vec<Vec<Vec<u8>>> = (0..names.len())
        .map(|teller| {
            let name = |number| name(&mut rng, &format!("x{teller}-{number}-"));
            (0..NAMES).map(name).collect()
        })
        .collect();
    let began = Instant::now();
    for round in 0..kills() {
        let stop = AtomicBool::new(false);
        let victims = *rng.pick(&[1, 2, names.len()]);
        let first = rng.below(names.len());
        let killed: Vec<usize> = (0..victims)
            .map(|place| (first + place) % names.len())
            .collect();
        let wait = rng.micros(3_000, 33_000);
        std::thread::scope(|scope| {
            let tell = |teller: usize| {
                let (stop, clients) = (&stop, &clients[teller]);
                let mut client = servers[&names[teller]].client();
                scope.spawn(move || {
                    let mut told = Vec::new();
                    for batch in 0.. {
                        let command = |place: usize| {
                            let count = batch * IN_FLIGHT + place;
                            let id = &clients[count % NAMES];
                            let rest = format!(" +1+2 {round}.{count:09}\n");
                            [b"IAMAT ", &id[..], rest.as_bytes()].concat()
                        };
                        let commands: Vec<Vec<u8>> = (0..IN_FLIGHT).map(command).collect();
                        // The server may be killed now. Commands without an answer were not
                        // promised.
                        let answers = client.try_ask_all(&commands);
                        let is_over = answers.len() < commands.len();
                        told.extend(answers);
                        if is_over || stop.load(Ordering::Relaxed) {
                            return told;
                        }
                    }
                    told
                })
            };
            let tellers: Vec<_> = (0..names.len()).map(tell).collect();
            std::thread::park_timeout(wait);
            for &victim in &killed {
                servers[&names[victim]].signal(Signal::KILL);
            }
            stop.store(true, Ordering::Relaxed);
            for (teller, told) in tellers.into_iter().enumerate() {
                for line in told.join().unwrap() {
                    let told = Line::new(&line, 0);
                    let told =
                        told.unwrap_or_else(|| panic!("no AT line: {}", line.escape_ascii()));
                    promises.answered(teller, &told, began.elapsed());
                }
            }
        });
        for &victim in &killed {
            let name = &names[victim];
            servers.remove(name).unwrap().kill();
            promises.ends(victim, End::Killed, began.elapsed());
        }
        for &victim in &killed {
            servers.insert(names[victim].clone(), herd.start(&names[victim]));
        }
        for &victim in &killed {
            // A server's journal alone has all updates that this server answered.
            let mut asker = servers[&names[victim]].client();
            let mut table = |client: &[u8]| {
                asker.send([b"WHATSAT ", client, b" 1 1\n"].concat());
                let mut line = asker.until(b"\n");
                line.pop();
                if line.starts_with(b"AT ") {
                    asker.until(b"\n\n");
                }
                Line::new(&line, 0)
            };
            let outcome = promises.restarted(victim, &mut table);
            outcome.unwrap_or_else(|missing| panic!("round {round}: {missing}"));
        }
        for server in servers.values() {
            has_all(server, &promises, names.len());
        }
    }
    assert!(promises.answers() > 0, "nothing was answered at all");
}
