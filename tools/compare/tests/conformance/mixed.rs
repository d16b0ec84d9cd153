//! Herds in which every server is of another world. All servers end with the same records, also
//! after conflicts, floods and kills.

use std::collections::HashMap;
use std::thread;
use std::time::{SystemTime, UNIX_EPOCH};

use herd_client::standing::Standing;
use herd_compare::herd::{Common, Herd};
use herd_compare::server::LogLevel;
use herd_compare::workshop::Program;
use herd_mio::presets;
use herd_testkit::client::Client;
use herd_testkit::rng::Rng;

use crate::model::Record;
use crate::neighbours::{batch, hear, linked};
use crate::scene::{SECRET, prepared, stand_in, wait_for};

/// The worlds of the servers, in the order of the preset: Riley, Jaquez, Juzang, Campbell, Bernard.
/// Riley and Bernard dial all their neighbours, Juzang dials and is dialled. So each world has both
/// roles in one of these herds, beside different other worlds.
const CASTS: [[&str; 5]; 4] = [
    ["mio", "streams", "protocols", "node", "uvloop"],
    ["go", "java-threads", "java-nio", "tokio", "mio"],
    ["node", "uvloop", "streams", "go", "java-nio"],
    ["java-threads", "mio", "go", "protocols", "tokio"],
];

/// A neighbour that the test plays, and the server that it dials.
const GUEST: (&str, &str) = ("Guest", "Jaquez");

#[test]
fn mio_streams_protocols_node_and_uvloop_form_a_herd() {
    play(0);
}

#[test]
fn go_java_threads_java_nio_tokio_and_mio_form_a_herd() {
    play(1);
}

#[test]
fn node_uvloop_streams_go_and_java_nio_form_a_herd() {
    play(2);
}

#[test]
fn java_threads_mio_go_protocols_and_tokio_form_a_herd() {
    play(3);
}

/// A running herd that shows its logs if a test fails.
struct Stage {
    herd: Option<Herd>,
    names: Vec<&'static str>,
}

impl Stage {
    fn herd(&self) -> &Herd {
        self.herd.as_ref().unwrap()
    }

    fn client(&self, name: &str) -> Client {
        Client::connect(self.herd().server(name).unwrap().clients)
    }

    /// Waits until all running servers hold the same records, and so many.
    fn await_agreement(&self, records: usize) {
        let herd = self.herd();
        let running: Vec<&str> = self
            .names
            .iter()
            .copied()
            .filter(|name| herd.server(name).is_some())
            .collect();
        wait_for(|| {
            let standings: Vec<_> = running.iter().map(|name| herd.ask(name).unwrap()).collect();
            let holds = |standing: &Standing| (standing.records, standing.digest);
            let wanted = (records as u64, standings[0].digest);
            match standings.iter().all(|standing| holds(standing) == wanted) {
                true => Ok(()),
                false => Err(format!(
                    "all hold the same {records} records: {running:?} {standings:#?}"
                )),
            }
        });
    }

    /// Asserts that all running servers have this line as the client's record.
    fn everybody_tells(&self, id: &str, line: &str) {
        for name in self
            .names
            .iter()
            .filter(|name| self.herd().server(name).is_some())
        {
            assert_eq!(
                self.client(name).record(id),
                line,
                "{name} tells something else"
            );
        }
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if let (true, Some(herd)) = (thread::panicking(), &self.herd) {
            let logs = herd.logs();
            eprintln!("{}", &logs[..logs.floor_char_boundary(20_000)]);
        }
    }
}

fn play(cast: usize) {
    let preset = presets::by_year("2021").unwrap();
    let mut programs: Vec<Program> = Vec::new();
    for world in CASTS[cast] {
        // herd-mio takes the place of a world that this machine cannot run.
        programs.extend(prepared(world).or_else(|| prepared("mio")));
    }
    assert_eq!(programs.len(), 5, "herd-mio itself can always be run here");
    let servers: Vec<(&str, &Program)> = preset.servers.iter().copied().zip(&programs).collect();
    let directory = tempfile::tempdir().unwrap();
    let (_places, told) = stand_in(directory.path());
    let common = Common {
        directory: directory.path().to_owned(),
        secret: SECRET.to_owned(),
        places: Some(told),
        log_level: LogLevel::Info,
    };
    let herd = Herd::start_with_guests(&servers, preset.links, &[GUEST], &common);
    let herd = herd.unwrap_or_else(|failure| panic!("{failure}"));
    let mut stage = Stage {
        herd: Some(herd),
        names: preset.servers.to_vec(),
    };
    stage.herd().await_links().unwrap();
    everybody_hears_everybody(&stage);
    conflicts(&stage);
    a_wrong_clock(&stage);
    storm(&stage);
    // Jaquez is only dialled, Riley only dials, and Juzang does both.
    for victim in ["Jaquez", "Riley", "Juzang"] {
        kill_9(&mut stage, victim);
    }
    assert_eq!(stage.herd.take().unwrap().stop(), Vec::<String>::new());
}

fn everybody_hears_everybody(stage: &Stage) {
    let mut lines = Vec::new();
    for (number, name) in (1..).zip(&stage.names) {
        let id = format!("client-of-{name}");
        let line = stage.client(name).ask(&format!(
            "IAMAT {id} +34.068930-118.445127 162146482{number}.959498503"
        ));
        lines.push((id, line));
        stage.await_agreement(number);
    }
    for (id, line) in &lines {
        stage.everybody_tells(id, line);
    }
}

fn now_s() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs()
}

/// The line that must win. All lines have the same epoch.
fn winner(lines: &[String]) -> &str {
    lines.iter().max_by_key(|line| Record::parse(line)).unwrap()
}

/// The guest is a server whose clock is a year ahead. The next update replaces its record on all
/// servers, whichever server receives the update. The new epoch reaches the whole herd.
fn a_wrong_clock(stage: &Stage) {
    let before = usize::try_from(stage.herd().ask(stage.names[0]).unwrap().records).unwrap();
    let (name, host) = GUEST;
    let host_peers = stage.herd().server(host).unwrap().peers;
    let mut guest = linked(name, Client::connect(host_peers), "00000000000000aa", "- 0");
    batch(&mut guest);
    let frozen = format!(
        "AT {name} +0.000000000 frozen +1+2 {}",
        now_s() + 31_536_000
    );
    let old = "AT Guest +0.000000000 of-an-epoch +1+2 5";
    let no_news = "AT Guest +0.000000000 of-an-epoch +3+4 6";
    guest.send(format!("{frozen}\nEPOCH 7 {old}\n{no_news}\nSYNC 3\n"));
    stage.await_agreement(before + 2);
    stage.everybody_tells("frozen", &frozen);
    stage.everybody_tells("of-an-epoch", old);
    let mut told = Vec::new();
    // First at the far end of the herd, then at the other servers, which inherit the epoch.
    for (step, name) in (0..).zip(["Campbell", "Jaquez", "Riley", "Juzang", "Bernard"]) {
        let stamp = now_s() + step;
        for (id, epoch) in [("frozen", 1), ("of-an-epoch", 7)] {
            let line = stage
                .client(name)
                .ask(&format!("IAMAT {id} +5+6 {stamp}.{step}"));
            told.push(format!("EPOCH {epoch} {line}"));
        }
        stage.await_agreement(before + 2);
        let latest = &told[told.len() - 2..];
        let latest: Vec<&str> = latest.iter().map(String::as_str).collect();
        guest.send("SYNC 3\n");
        hear(&mut guest, &latest);
        for line in latest {
            let record = Record::parse(line).unwrap();
            stage.everybody_tells(line.split(' ').nth(5).unwrap(), &record.line);
        }
    }
}

/// Several servers get IAMATs of one client. The same line wins on all servers.
fn conflicts(stage: &Stage) {
    let now = now_s();
    let year = 31_536_000;
    let conflicts: [(&str, Vec<String>); 5] = [
        // The newer one comes first, older ones come to other servers.
        (
            "older",
            vec![
                "2000".into(),
                "1000".into(),
                "1999.999999999999999999".into(),
            ],
        ),
        // Only the last of eighteen decimals differs.
        (
            "close",
            vec![
                "1000.000000000000000001".into(),
                "1000.000000000000000002".into(),
                "1000".into(),
            ],
        ),
        // One time has several spellings: the greater bytes win.
        (
            "same",
            vec![
                "1000".into(),
                "1000.0".into(),
                "01000".into(),
                "1000".into(),
            ],
        ),
        // A stamp a year ahead counts as 60 s after its receipt. A later stamp would win.
        (
            "ahead",
            vec![
                (now + year).to_string(),
                (now + 50).to_string(),
                (now + year).to_string(),
            ],
        ),
        // Two stamps are far ahead: the record with the later receipt wins.
        (
            "far",
            vec![
                (now + 2 * year).to_string(),
                (now + year).to_string(),
                (now - 5).to_string(),
            ],
        ),
    ];
    let before = usize::try_from(stage.herd().ask(stage.names[0]).unwrap().records).unwrap();
    let mut won = Vec::new();
    for (id, stamps) in &conflicts {
        let servers = ["Campbell", "Riley", "Jaquez", "Bernard"];
        let lines: Vec<String> = stamps
            .iter()
            .zip(servers)
            .map(|(stamp, server)| {
                stage
                    .client(server)
                    .ask(&format!("IAMAT {id} +1+2 {stamp}"))
            })
            .collect();
        won.push((id, winner(&lines).to_owned()));
    }
    stage.await_agreement(before + conflicts.len());
    for (id, line) in won {
        stage.everybody_tells(id, &line);
    }
}

/// All servers get IAMATs of the same few clients at once.
fn storm(stage: &Stage) {
    const IDS: usize = 5;
    const ROUNDS: usize = 100;
    let before = usize::try_from(stage.herd().ask(stage.names[0]).unwrap().records).unwrap();
    let now = now_s();
    let heard: Vec<(usize, String)> = thread::scope(|scope| {
        let threads: Vec<_> = (1..)
            .zip(&stage.names)
            .map(|(seed, name)| {
                let mut client = stage.client(name);
                scope.spawn(move || {
                    let mut rng = Rng::new(seed, "updates");
                    (0..ROUNDS)
                        .map(|_| {
                            let id = rng.below(IDS);
                            let stamp = match rng.below(4) {
                                0 => format!("{}", now - 20 + rng.below(20) as u64),
                                1 => format!("{}.{:018}", now - 1, rng.below(3)),
                                // Always the same stamp. Different ones could begin a new epoch if
                                // the servers' clocks differ a little.
                                2 => format!("{}.{:0>2$}", now + 100_000, 0, 1 + rng.below(5)),
                                _ => format!("{}.5", now + rng.below(55) as u64),
                            };
                            (id, client.ask(&format!("IAMAT storm{id} -1-2 {stamp}")))
                        })
                        .collect::<Vec<_>>()
                })
            })
            .collect();
        threads
            .into_iter()
            .flat_map(|thread| thread.join().unwrap())
            .collect()
    });
    stage.await_agreement(before + IDS);
    let mut by_id: HashMap<usize, Vec<String>> = HashMap::new();
    for (id, line) in heard {
        by_id.entry(id).or_default().push(line);
    }
    for (id, lines) in by_id {
        stage.everybody_tells(&format!("storm{id}"), winner(&lines));
    }
}

/// One server is killed while the others run. After its restart it gets everything that it missed.
fn kill_9(stage: &mut Stage, victim: &str) {
    let before = usize::try_from(stage.herd().ask("Campbell").unwrap().records).unwrap();
    stage.herd.as_mut().unwrap().kill(victim).unwrap();
    let id = format!("missed-by-{victim}");
    let missed = stage.client("Campbell").ask(&format!("IAMAT {id} +1+2 3"));
    stage.await_agreement(before + 1);
    stage.herd.as_mut().unwrap().start_again(victim).unwrap();
    stage.herd().await_links().unwrap();
    stage.await_agreement(before + 1);
    stage.everybody_tells(&id, &missed);
    let back = stage
        .client(victim)
        .ask(&format!("IAMAT back-at-{victim} +1+2 3"));
    stage.await_agreement(before + 2);
    stage.everybody_tells(&format!("back-at-{victim}"), &back);
}
