//! An operator follows the changes of a server: nothing that a client was told is left out, in
//! order, however slow the follower is, and whatever happens to the server.

use std::collections::{BTreeSet, HashMap};
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, ChildStderr, ChildStdout, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use herd_testkit::client::{Client, wait_until};
use herd_testkit::herd::{Herd, Server, client_command};
use rustix::process::{Pid, Signal, kill_process};

use crate::expiry::seconds_ago;
use crate::forgetting::forget;
use crate::neighbours::{SECRET, operator, status_of, two, value};

/// How many changes a slow follower is given. `HERD_CHANGES=10000 cargo test` sets it.
fn many() -> usize {
    std::env::var("HERD_CHANGES").map_or(1_000_000, |text| text.parse().expect("a number"))
}

/// `herd-client follow`, running.
struct Follow {
    process: Child,
    lines: BufReader<ChildStdout>,
    errors: BufReader<ChildStderr>,
}

impl Follow {
    fn start(herd: &Herd, arguments: &[&str]) -> Follow {
        let mut process = client_command()
            .arg("follow")
            .args(arguments)
            .arg("--config")
            .arg(herd.config_file())
            .env("HERD_SECRET", "the herd's own secret")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(process.stdout.take().unwrap());
        let errors = BufReader::new(process.stderr.take().unwrap());
        Follow {
            process,
            lines,
            errors,
        }
    }

    /// Starts, and waits until the server has said where it begins.
    fn begun(herd: &Herd, arguments: &[&str]) -> Follow {
        let mut follow = Follow::start(herd, arguments);
        let mut line = String::new();
        follow.errors.read_line(&mut line).unwrap();
        assert!(line.contains(": following from "), "{line}");
        follow
    }

    /// The next line; the harness ends a test that waits for ever.
    fn line(&mut self) -> String {
        let mut line = String::new();
        self.lines.read_line(&mut line).unwrap();
        assert!(line.ends_with('\n'), "it ended: {:?}", self.process.wait());
        line.pop();
        line
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.process), signal).unwrap();
    }

    /// Waits for its end. Returns its status, the rest of its output, and its errors.
    fn end(mut self) -> (Option<i32>, String, String) {
        let (mut told, mut errors) = (String::new(), String::new());
        self.lines.read_to_string(&mut told).unwrap();
        self.errors.read_to_string(&mut errors).unwrap();
        (self.process.wait().unwrap().code(), told, errors)
    }

    fn once(herd: &Herd, arguments: &[&str]) -> (Option<i32>, String, String) {
        Follow::start(herd, arguments).end()
    }
}

impl Drop for Follow {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A `CHANGE` line: the number of the change, and the AT line.
fn change(line: &str) -> Option<(u64, String)> {
    let (position, at) = line.strip_prefix("CHANGE ")?.split_once(' ')?;
    let (life, number) = position.split_once('-').unwrap();
    assert_eq!(life.len(), 16, "{line}");
    assert!(at.starts_with("AT "), "{line}");
    Some((number.parse().unwrap(), at.to_owned()))
}

fn client_of(at: &str) -> &str {
    at.split(' ').nth(3).unwrap()
}

/// Dials as an operator, and says `FOLLOW`. Returns the connection and the answer.
fn raw(herd: &Herd, name: &str, start: &str) -> (Client, String) {
    let (mut follower, _) = operator(herd, name, SECRET).unwrap();
    follower.send(format!("FOLLOW {start}\n"));
    let answer = follower.line();
    (follower, answer)
}

fn position_in(answer: &str) -> &str {
    answer.split(' ').nth(1).unwrap()
}

#[test]
fn the_lines_of_a_follower_are_as_documented() {
    let herd = Herd::single();
    let server = herd.start("Riley");
    let (mut follower, answer) = raw(&herd, "Riley", "all");
    let status = status_of(&herd, "Riley", SECRET).unwrap();
    let life = value(&status, "boot");
    assert_eq!(value(&status, "followers"), "1");
    assert_eq!(
        answer,
        format!("FOLLOWING {life}-0 behind=0 heartbeat=3000 silence=10000 ttl=0")
    );
    follower.expect(format!("SYNC {life}-0\n"));
    let told = server.client().ask("IAMAT kiwi +1+2 3");
    follower.expect(format!("CHANGE {life}-1 {told}\n"));
    let (_, told) = forget(&herd, "kiwi", &[]);
    assert!(told.starts_with("kiwi is forgotten"), "{told}");
    let line = follower.line();
    assert!(
        line.starts_with(&format!("CHANGE {life}-2 AT Riley +")) && line.ends_with(" kiwi - 3"),
        "{line}"
    );
    follower.send("ALIVE\nIAMAT x +1+2 3\n");
    follower.expect("BYE not the neighbours' protocol: IAMAT x +1+2 3\n");
    follower.expect_end();
    server.wait_for_log(
        "operator 127.",
        &format!(": follows from {life}-0, 0 changes behind"),
    );
    for (bad, answer) in [
        ("FOLLOW", "BYE not the neighbours' protocol: FOLLOW"),
        ("FOLLOW a b", "BYE not the neighbours' protocol: FOLLOW a b"),
        (
            "FOLLOW yesterday",
            "BYE FOLLOW needs now, all, or a position such as 0123456789abcdef-7 after it",
        ),
        ("ALIVE", "BYE not the neighbours' protocol: ALIVE"),
    ] {
        let (mut operator, _) = operator(&herd, "Riley", SECRET).unwrap();
        operator.send(format!("{bad}\n"));
        operator.expect(format!("{answer}\n"));
        operator.expect_end();
    }
    let mut client = server.client();
    client.send("FOLLOW all\n").expect("? FOLLOW all\n");
}

#[test]
fn every_answered_update_of_two_servers_is_told_in_order() {
    const UPDATES: usize = 150;
    let herd = two();
    let servers = herd.start_all();
    let mut follow = Follow::begun(&herd, &["Riley", "--from", "all"]);
    let answers: Vec<String> = thread::scope(|scope| {
        let clients = ["Riley", "Jaquez", "Riley", "Jaquez"].map(|name| servers[name].client());
        let threads = clients.into_iter().zip(0..).map(|(mut client, number)| {
            scope.spawn(move || {
                let mut answers = Vec::new();
                for update in 0..UPDATES {
                    // One name that moves, and names that come once.
                    for name in [format!("mover{number}"), format!("client{number}-{update}")] {
                        let time = 1_000_000 + update;
                        answers.push(client.ask(&format!("IAMAT {name} +1+2 {time}")));
                    }
                }
                answers
            })
        });
        let threads: Vec<_> = threads.collect();
        threads
            .into_iter()
            .flat_map(|it| it.join().unwrap())
            .collect()
    });
    let last = servers["Riley"].client().ask("IAMAT last +1+2 3");
    let mut told: Vec<(u64, String)> = Vec::new();
    while told.last().is_none_or(|(_, at)| *at != last) || told.len() < 4 * UPDATES {
        let line = follow.line();
        told.extend(change(&line));
        // The last update of Jaquez may come after that of Riley.
        let seen: BTreeSet<&String> = told.iter().map(|(_, at)| at).collect();
        let is_whole = |at: &String| client_of(at).starts_with("mover") || seen.contains(at);
        if told.len() % 50 == 1 && seen.contains(&last) && answers.iter().all(is_whole) {
            break;
        }
        if seen.contains(&last) && answers.iter().all(is_whole) {
            break;
        }
    }
    assert!(
        told.is_sorted_by(|(one, _), (other, _)| one < other),
        "in the order of the feed"
    );
    let seen: BTreeSet<&str> = told.iter().map(|(_, at)| &**at).collect();
    assert_eq!(seen.len(), told.len(), "each change once");
    // By client, the changes are some of its answers, in their order, and the newest is there.
    let mut of_client: HashMap<&str, Vec<&str>> = HashMap::new();
    for at in &answers {
        of_client.entry(client_of(at)).or_default().push(at);
    }
    for (client, answers) in of_client {
        let told: Vec<&str> = told
            .iter()
            .filter(|(_, at)| client_of(at) == client)
            .map(|(_, at)| &**at)
            .collect();
        let mut rest = answers.iter();
        assert!(
            told.iter().all(|at| rest.any(|answer| answer == at)),
            "{client}: {told:?}"
        );
        if !client.starts_with("mover") {
            assert_eq!(told, answers, "{client}");
        }
    }
    follow.signal(Signal::INT);
    let (status, _, errors) = follow.end();
    assert_eq!(status, Some(0));
    assert!(
        errors.contains("herd-client: ended by a signal; to continue: --from "),
        "{errors}"
    );
}

#[test]
fn a_follower_resumes_after_each_kill_of_the_server_without_a_gap_or_a_repetition() {
    for fsync in ["always", "interval"] {
        let herd = Herd::single().with_top("data_dir = \"data\"\n");
        let start = || Server::start(herd.command("Riley").args(["--fsync", fsync]));
        let mut server = start();
        let mut follow = Follow::begun(&herd, &["Riley", "--from", "now"]);
        let mut answered = BTreeSet::new();
        let mut told = Vec::new();
        for round in 0..4 {
            let mut client = server.client();
            // Changes are on their way when the server is killed.
            let is_killed = AtomicBool::new(false);
            thread::scope(|scope| {
                let writer = scope.spawn(|| {
                    let mut answers = Vec::new();
                    for number in 0.. {
                        let command = format!("IAMAT r{round}-{number} +1+2 {number}\nIAMAT mover +1+2 {round}.{number:06}\n");
                        if is_killed.load(Ordering::Relaxed) && number > 0 {
                            break;
                        }
                        client.send(command);
                        let Some(answer) = client.line_or_end() else { break };
                        answers.push(answer);
                        if client.line_or_end().is_none() || number > 20_000 {
                            break;
                        }
                    }
                    answers
                });
                while told.len() < (round + 1) * 50 {
                    told.extend(change(&follow.line()).filter(|(_, at)| client_of(at) != "mover"));
                }
                is_killed.store(true, Ordering::Relaxed);
                answered.extend(writer.join().unwrap());
            });
            server.kill();
            server = start();
        }
        let last = server.client().ask("IAMAT last +1+2 3");
        loop {
            let line = follow.line();
            assert!(!line.starts_with("RESTART"), "{line}");
            let Some((number, at)) = change(&line) else {
                continue;
            };
            if at == last {
                break;
            }
            if client_of(&at) != "mover" {
                told.push((number, at));
            }
        }
        assert!(
            told.is_sorted_by(|(one, _), (other, _)| one < other),
            "no repetition"
        );
        let told: BTreeSet<String> = told.into_iter().map(|(_, at)| at).collect();
        let lost: Vec<_> = answered.difference(&told).collect();
        assert!(
            lost.is_empty(),
            "{fsync}: {} of {} lost: {lost:?}",
            lost.len(),
            answered.len()
        );
    }
}

#[test]
fn a_slow_follower_of_many_changes_gets_the_newest_of_each_client_in_order() {
    const CLIENTS: usize = 500;
    let herd = Herd::single().level("warn");
    let server = herd.start("Riley");
    let (mut follower, _) = raw(&herd, "Riley", "now");
    let before = server.status("VmRSS");
    let mut writer = server.client();
    let rounds = many() / CLIENTS;
    let command = |round: usize| {
        let one = |client| format!("IAMAT client{client} +1+2 {}\n", 1_000 + round);
        (0..CLIENTS).map(one).collect::<String>()
    };
    for round in 0..rounds {
        writer.send(command(round));
        for _ in 0..CLIENTS {
            writer.line_of_bytes();
        }
        // Slower than the server: a part of what comes.
        if round % 8 == 0 {
            follower.send("ALIVE\n").line();
        }
    }
    assert!(
        server.status("VmRSS") - before < 20_000,
        "no queue of changes"
    );
    let mut newest: HashMap<String, String> = HashMap::new();
    let (mut last, mut count) = (0, 0);
    while newest.len() < CLIENTS
        || newest
            .values()
            .any(|at| !at.ends_with(&format!(" {}", 1_000 + rounds - 1)))
    {
        let line = follower.line();
        follower.send("ALIVE\n");
        let Some((number, at)) = change(&line) else {
            continue;
        };
        assert!(number > last, "change {number} after {last}");
        (last, count) = (number, count + 1);
        newest.insert(client_of(&at).to_owned(), at);
    }
    assert_eq!(last, (rounds * CLIENTS) as u64);
    assert!(count <= last);
}

/// A server with 12 MB of records.
fn server_with_long_records(herd: &Herd) -> Server {
    let server = herd.start("Riley");
    let mut client = server.client();
    for number in 0..3_000 {
        let name = format!("{number}{}", "x".repeat(4_000));
        client.send(format!("IAMAT {name} +1+2 {}\n", seconds_ago(0)));
        client.line_of_bytes();
    }
    server
}

#[test]
fn a_follower_that_stops_reading_is_closed_after_output_stall_ms() {
    let herd = Herd::single()
        .level("info")
        .with("[limits]\noutput_stall_ms = 700\n");
    let server = server_with_long_records(&herd);
    let (mut follower, answer) = raw(&herd, "Riley", "all");
    assert!(answer.starts_with("FOLLOWING "), "{answer}");
    // It lives, and does not read.
    let mut alive = follower.stream().try_clone().unwrap();
    let has_ended = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !has_ended.load(Ordering::Relaxed) {
                let _ = std::io::Write::write_all(&mut alive, b"ALIVE\n");
                thread::sleep(Duration::from_millis(50));
            }
        });
        server.wait_for_log(
            "operator 127.",
            ": it read nothing for 700 ms (limits.output_stall_ms)",
        );
        has_ended.store(true, Ordering::Relaxed);
    });
    let mut lines = 0;
    while follower.line_or_end().is_some() {
        lines += 1;
    }
    assert!(lines < 3_000, "{lines} lines");
    let status = status_of(&herd, "Riley", SECRET).unwrap();
    assert_eq!(value(&status, "followers"), "0");
}

#[test]
fn followers_above_max_followers_are_refused_and_those_below_cost_little() {
    let herd = Herd::single()
        .level("warn")
        .with("[limits]\nmax_followers = 100\n");
    let server = server_with_long_records(&herd);
    let before = server.status("VmRSS");
    let mut followers: Vec<Client> = Vec::new();
    for _ in 0..100 {
        let (follower, answer) = raw(&herd, "Riley", "all");
        assert!(answer.contains(" behind=3000 "), "{answer}");
        followers.push(follower);
    }
    let (mut refused, answer) = raw(&herd, "Riley", "all");
    assert_eq!(
        answer,
        "BYE 100 followers are there, and limits.max_followers allows no more"
    );
    refused.expect_end();
    // None of them reads, and each has 12 MB before it.
    let status = status_of(&herd, "Riley", SECRET).unwrap();
    let buffers = value(&status, "buffers");
    let held: usize = buffers.split(':').next().unwrap().parse().unwrap();
    assert!(held < 100 * 60_000, "the buffers hold {held} bytes");
    let grown = server.status("VmRSS").saturating_sub(before);
    assert!(grown < 20_000, "it has grown by {grown} KiB");
    // Clients are served.
    let mut client = server.client();
    assert!(client.ask("IAMAT kiwi +1+2 3").starts_with("AT "));
    drop(followers.pop());
    wait_until("a place is free", || {
        raw(&herd, "Riley", "now").1.starts_with("FOLLOWING ")
    });
}

#[test]
fn positions_of_other_lives_and_of_the_future_restart_the_stream() {
    let herd = Herd::single();
    let server = herd.start("Riley");
    let kiwi = server.client().ask("IAMAT kiwi +1+2 3");
    let (_, answer) = raw(&herd, "Riley", "now");
    let now = position_in(&answer).to_owned();
    let life = now.split('-').next().unwrap();
    for (start, reason) in [
        (format!("{life}-2"), "fewer changes"),
        (format!("{life}-18446744073709551615"), "fewer changes"),
        ("00000000000000aa-1".to_owned(), "does not know"),
    ] {
        let (status, told, errors) =
            Follow::once(&herd, &["Riley", "--from", &start, "--until-caught-up"]);
        let lines: Vec<&str> = told.lines().collect();
        assert_eq!(status, Some(0), "{errors}");
        assert!(
            lines[0].starts_with("RESTART ") && lines[0].contains(reason),
            "{told}"
        );
        assert_eq!(
            lines[1..],
            [format!("CHANGE {now} {kiwi}"), format!("SYNC {now}")]
        );
        assert!(
            errors.contains("the stream starts again with all records"),
            "{errors}"
        );
    }
    let resumed = Follow::once(&herd, &["Riley", "--from", &now, "--until-caught-up"]);
    assert_eq!((resumed.0, resumed.1), (Some(0), format!("SYNC {now}\n")));
    // Without a data directory, a restart is another life.
    server.stop();
    let _server = herd.start("Riley");
    let (_, told, _) = Follow::once(
        &herd,
        &["Riley", "--from", &now, "--until-caught-up", "--json"],
    );
    assert!(
        told.starts_with("{\"restart\":\"the server does not know"),
        "{told}"
    );
    assert!(told.ends_with("-0\"}\n"), "{told}");
}

#[test]
fn only_own_changes_are_printed_and_expired_and_replaced_ones_are_not() {
    let herd = two().with("[limits]\nrecord_ttl_ms = 86400000\n");
    let servers = herd.start_all();
    let mut clients = ["Riley", "Jaquez"].map(|name| servers[name].client());
    clients[0].ask(&format!("IAMAT old +1+2 {}", seconds_ago(90_000)));
    clients[0].ask(&format!("IAMAT kiwi +1+2 {}", seconds_ago(60)));
    let ada = clients[1].ask(&format!("IAMAT ada +1+2 {}", seconds_ago(60)));
    clients[0].wait_for_record("ada", |line| line == ada);
    clients[0].ask(&format!("IAMAT kiwi +3+4 {}", seconds_ago(0)));
    assert_eq!(forget(&herd, "ada", &["--server", "Jaquez"]).0, 0);
    wait_until("Riley has the tombstone", || {
        value(&status_of(&herd, "Riley", SECRET).unwrap(), "forgotten") == "1"
    });
    let follow = |arguments: &[&str]| {
        let all = ["Riley", "--from", "all", "--until-caught-up"];
        let (status, told, errors) = Follow::once(&herd, &[&all, arguments].concat());
        assert_eq!(status, Some(0), "{errors}");
        told
    };
    let told = follow(&[]);
    let changes: Vec<(u64, String)> = told.lines().filter_map(change).collect();
    assert_eq!(changes.len(), 2, "{told}");
    assert!(changes[0].1.contains(" kiwi +3+4 "), "{told}");
    assert!(
        changes[1].1.starts_with("AT Jaquez ") && changes[1].1.contains(" ada - "),
        "{told}"
    );
    let own = follow(&["--own"]);
    let lines: Vec<&str> = own.lines().collect();
    assert_eq!(lines.len(), 2, "{own}");
    assert!(lines[0].contains(" kiwi "), "{own}");
    // The position is after the change that is left out.
    let life = lines[1].strip_prefix("SYNC ").unwrap();
    assert!(life.ends_with(&format!("-{}", changes[1].0)), "{own}");
    let json = follow(&["--json"]);
    let objects: Vec<serde_json::Value> = json
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(objects[0]["client"], "kiwi");
    assert_eq!(objects[0]["latitude"], 3);
    assert_eq!(objects[1]["forgotten"], true);
    assert_eq!(objects[2]["sync"], life);
}

#[test]
fn a_follower_whose_output_nobody_reads_stays_connected_and_ends_when_it_is_closed() {
    let herd = Herd::single()
        .level("warn")
        .with("[limits]\nheartbeat_ms = 100\nlink_silence_ms = 600\n");
    let server = herd.start("Riley");
    let mut follow = Follow::begun(&herd, &["Riley"]);
    let mut client = server.client();
    for number in 0..6_000 {
        client.send(format!("IAMAT client{number} +1+2 3\n"));
        client.line_of_bytes();
    }
    // The pipe and the queue are full. Longer than the server waits for a silent follower.
    thread::sleep(Duration::from_millis(1_800));
    let mut last = String::new();
    while !last.contains(" client5999 ") {
        last = follow.line();
    }
    follow.signal(Signal::TERM);
    let (status, _, errors) = follow.end();
    assert_eq!(status, Some(0));
    assert!(
        !errors.contains("trying again"),
        "the connection was lost: {errors}"
    );
    // `herd-client follow … | head -1`
    let mut follow = Follow::begun(&herd, &["Riley", "--from", "all"]);
    follow.line();
    let Follow { process, lines, .. } = &mut follow;
    *lines = BufReader::new(
        client_command()
            .arg("--version")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap()
            .stdout
            .take()
            .unwrap(),
    );
    client.ask("IAMAT kiwi +1+2 3");
    assert_eq!(process.wait().unwrap().code(), Some(0), "nobody reads");
}
