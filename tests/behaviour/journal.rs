//! The data directory: answered updates survive every end of the server's process. What the server
//! cannot trust it reports, and does not guess.

use std::fs;
use std::io::Read as _;
use std::os::unix::fs::{FileExt, PermissionsExt as _};
use std::path::PathBuf;
use std::process::Stdio;

use herd_mio::core::journal::format::{Entry, Replay};
use herd_testkit::client::{Client, wait_until};
use herd_testkit::herd::{Herd, Server};
use rustix::process::{Pid, Resource, Rlimit, Signal, prlimit};

use crate::command_line::Ended;

pub(crate) fn data_dir(herd: &Herd, name: &str) -> PathBuf {
    herd.directory.path().join("data").join(name)
}

/// Gives each server of the herd a data directory.
pub(crate) fn keeping(herd: Herd) -> Herd {
    herd.with_top("data_dir = \"data\"\n")
}

pub(crate) fn single() -> Herd {
    keeping(Herd::single())
}

/// The offset at which the entries of a journal end. Reserved room follows.
fn end_of(path: &std::path::Path, server: &str) -> u64 {
    let mut replay = Replay::new(server, 0);
    replay
        .data_received(&fs::read(path).unwrap(), |_| ())
        .unwrap();
    replay.finish().unwrap().offset
}

/// The log line of a started server about its journal.
fn told_of_journal(server: &Server) -> String {
    server.wait_for_log("journal: ", " entries of records in ")
}

#[test]
fn answered_updates_survive_a_stop_and_a_kill() {
    for fsync in ["always", "interval", "never"] {
        let herd = single().with_top(&format!("fsync = {fsync:?}\n"));
        let mut answers = Vec::new();
        for life in 0..4 {
            let server = herd.start("Riley");
            assert!(
                told_of_journal(&server).contains(&format!("journal: {life} entries of records"))
            );
            let mut client = server.client();
            for (number, at) in answers.iter().enumerate() {
                assert_eq!(&client.wait_for_record(&format!("x{number}"), |_| true), at);
            }
            answers.push(client.ask(&format!("IAMAT x{life} +1+2 {life}")));
            if life % 2 == 0 {
                server.kill()
            } else {
                drop(server.stop())
            }
        }
    }
}

#[test]
fn a_frozen_neighbour_catches_up_on_100_000_updates() {
    let herd = Herd::new(
        &["Riley", "Jaquez", "Juzang"],
        &[("Riley", "Jaquez"), ("Riley", "Juzang")],
    )
    .level("warn");
    let servers = herd.start_all_quietly();
    let mut client = servers["Riley"].client();
    client.ask("IAMAT warm +1+2 3");
    servers["Juzang"]
        .client()
        .wait_for_record("warm", |line| line.starts_with("AT "));
    servers["Jaquez"]
        .client()
        .wait_for_record("warm", |line| line.starts_with("AT "));
    let total = 100_000;
    let send = |client: &mut Client, rounds: std::ops::Range<usize>| {
        let commands: String = rounds
            .clone()
            .map(|round| format!("IAMAT x{} +1+2 {round}\n", round % 500))
            .collect();
        let writer = std::thread::spawn({
            let mut stream = client.stream().try_clone().unwrap();
            move || std::io::Write::write_all(&mut stream, commands.as_bytes()).unwrap()
        });
        let last = rounds.map(|_| client.line()).last().unwrap();
        writer.join().unwrap();
        last
    };
    send(&mut client, 0..5000); // now all records exist, and all buffers have grown
    let before = servers["Riley"].status("VmRSS");
    servers["Jaquez"].signal(Signal::STOP);
    let last = send(&mut client, 5000..total);
    let id = format!("x{}", (total - 1) % 500);
    let grown = servers["Riley"].status("VmRSS").saturating_sub(before);
    assert!(grown < 1024, "grown by {grown} KiB for a frozen neighbour");
    servers["Juzang"]
        .client()
        .wait_for_record(&id, |line| line == last);
    servers["Jaquez"].signal(Signal::CONT);
    servers["Jaquez"]
        .client()
        .wait_for_record(&id, |line| line == last);
}

#[test]
fn a_restarted_server_resumes_without_a_full_transfer() {
    let herd = keeping(Herd::new(&["Riley", "Jaquez"], &[("Riley", "Jaquez")]));
    let mut servers = herd.start_all();
    let mut client = servers["Riley"].client();
    for number in 0..100 {
        client.ask(&format!("IAMAT x{number} +1+2 3"));
    }
    servers["Jaquez"]
        .client()
        .wait_for_record("x99", |line| line.starts_with("AT "));
    // Within a second the journal notes how far the neighbour's feed was read.
    let noted = || {
        let mut replay = Replay::new("Jaquez", 0);
        let mut position = 0;
        let tell = |entry: Entry<'_>| {
            if let Entry::Received {
                position: heard, ..
            } = entry
            {
                position = heard;
            }
        };
        replay
            .data_received(
                &fs::read(data_dir(&herd, "Jaquez").join("journal")).unwrap(),
                tell,
            )
            .unwrap();
        position >= 100
    };
    wait_until("what was heard of Riley is noted", noted);
    servers.remove("Jaquez").unwrap().kill();
    let missed = client.ask("IAMAT missed +1+2 3");
    let jaquez = herd.start("Jaquez");
    jaquez
        .client()
        .wait_for_record("missed", |line| line == missed);
    // Riley was not restarted, so it knows how far behind Jaquez is.
    let linked = servers["Riley"].wait_for_nth_log(2, "neighbour Jaquez", ": linked, ");
    assert!(
        linked.contains("1 change behind") || linked.contains(" changes behind"),
        "{linked}"
    );
    // When Riley restarts, Jaquez resumes where it was in Riley's feed.
    servers.remove("Riley").unwrap().kill();
    let riley = herd.start("Riley");
    let linked = riley.wait_for_log("neighbour Jaquez", ": linked, ");
    assert!(linked.contains(" behind"), "{linked}");
    let after = riley.client().ask("IAMAT after +1+2 3");
    jaquez
        .client()
        .wait_for_record("after", |line| line == after);
}

#[test]
fn a_torn_tail_is_truncated_with_a_warning() {
    let herd = single();
    let server = herd.start("Riley");
    let kept = server.client().ask("IAMAT kept +1+2 3");
    server.client().ask("IAMAT torn +1+2 3");
    server.stop();
    let path = data_dir(&herd, "Riley").join("journal");
    let end = end_of(&path, "Riley") as usize;
    let mut torn = fs::read(&path).unwrap();
    torn.truncate(end - 5);
    // The torn tail is longer than the next entry. So the test notices if a part of it remains.
    torn.extend([b'?'; 2_000]);
    fs::write(&path, torn).unwrap();
    let server = herd.start("Riley");
    server.wait_for_log(
        "[WARN ] journal: the last ",
        "were not written whole; they are cut off",
    );
    assert_eq!(server.client().wait_for_record("kept", |_| true), kept);
    assert_eq!(
        server.client().ask("WHATSAT torn 1 1"),
        "? WHATSAT torn 1 1"
    );
    let again = server.client().ask("IAMAT again +1+2 3");
    server.kill();
    let server = herd.start("Riley");
    assert_eq!(server.client().wait_for_record("again", |_| true), again);
    let log = server.stop();
    let cuts = log
        .iter()
        .filter(|line| line.contains("were not written whole"));
    assert_eq!(cuts.count(), 0, "{log:?}");
}

#[test]
fn a_damaged_journal_prevents_the_start() {
    let herd = single();
    let server = herd.start("Riley");
    for number in 0..3 {
        server.client().ask(&format!("IAMAT x{number} +1+2 3"));
    }
    server.stop();
    let path = data_dir(&herd, "Riley").join("journal");
    let before = fs::read(&path).unwrap();
    let at = before
        .windows(3)
        .position(|window| window == b" x1")
        .unwrap() as u64;
    fs::File::options()
        .write(true)
        .open(&path)
        .unwrap()
        .write_all_at(b"X", at)
        .unwrap();
    let output = herd.command("Riley").output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stderr).unwrap();
    let line = text
        .lines()
        .find(|line| line.starts_with("herd-mio: "))
        .unwrap_or_else(|| panic!("{text}"));
    let offset: u64 = line
        .split("damaged at byte ")
        .nth(1)
        .unwrap()
        .split(',')
        .next()
        .unwrap()
        .parse()
        .unwrap();
    assert!(offset < at && at < offset + 100, "{line}");
    assert!(
        line.contains("put a good copy in its place, or move it away"),
        "{line}"
    );
    // The refused start changed nothing. After the journal is moved away, the server starts empty.
    assert_eq!(fs::read(&path).unwrap().len(), before.len());
    fs::rename(&path, path.with_extension("bad")).unwrap();
    assert_eq!(
        herd.start("Riley").client().ask("WHATSAT x0 1 1"),
        "? WHATSAT x0 1 1"
    );
}

#[test]
fn a_journal_that_is_no_regular_file_is_refused() {
    let herd = single();
    let directory = data_dir(&herd, "Riley");
    fs::create_dir_all(&directory).unwrap();
    let journal = directory.join("journal");
    let make_pipe = || {
        let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &journal,
            rustix::fs::FileType::Fifo,
            mode,
            0,
        )
        .unwrap();
    };
    let make_link = || std::os::unix::fs::symlink("elsewhere", &journal).unwrap();
    let is_pipe = "journal is no regular file: move it away";
    let is_link = "journal is a symbolic link, which a compaction would replace";
    for (make, reason) in [(&make_pipe as &dyn Fn(), is_pipe), (&make_link, is_link)] {
        make();
        let mut command = herd.command("Riley");
        command.stdout(Stdio::null()).stderr(Stdio::piped());
        let Ended(child) = &mut Ended(command.spawn().unwrap());
        wait_until("it gives up", || child.try_wait().unwrap().is_some());
        let mut said = String::new();
        let mut errors = child.stderr.take().unwrap();
        errors.read_to_string(&mut said).unwrap();
        let told: Vec<_> = said
            .lines()
            .filter(|line| line.starts_with("herd-mio: "))
            .collect();
        assert!(told.len() == 1 && told[0].contains(reason), "{said}");
        assert_eq!(child.wait().unwrap().code(), Some(1));
        fs::remove_file(&journal).unwrap();
    }
    assert!(
        herd.start("Riley")
            .client()
            .ask("IAMAT x +1+2 3")
            .starts_with("AT ")
    );
}

#[test]
fn a_data_directory_in_use_or_of_another_server_is_refused() {
    let herd = keeping(Herd::new(&["Riley", "Jaquez"], &[("Riley", "Jaquez")]));
    let riley = herd.start("Riley");
    let refused = |reason: &str| {
        let output = herd
            .command("Jaquez")
            .arg("--data-dir")
            .arg(data_dir(&herd, "Riley"))
            .output()
            .unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{text}");
        assert!(text.contains(reason), "{text}");
    };
    refused("another process uses the data directory");
    riley.kill();
    refused("its first bytes are not those of a journal of this server");
}

#[test]
fn a_full_disk_refuses_only_updates_and_recovers() {
    let herd = keeping(Herd::new(&["Riley", "Jaquez"], &[("Riley", "Jaquez")])).level("info");
    let servers = herd.start_all();
    let (riley, jaquez) = (&servers["Riley"], &servers["Jaquez"]);
    let mut client = riley.client();
    let first = client.ask("IAMAT first +1+2 3");
    // A limit of the file size acts like a full disk: reserving room beyond it fails in the same
    // way.
    let limit = |bytes: Option<u64>| {
        let limit = Rlimit {
            current: bytes,
            maximum: None,
        };
        prlimit(Pid::from_raw(riley.pid() as i32), Resource::Fsize, limit).unwrap();
    };
    limit(Some(6 << 20));
    let mut accepted = 0;
    let refusal = loop {
        let answer = client.ask(&format!("IAMAT x{accepted} +1.{}-2 3", "0".repeat(3000)));
        if !answer.starts_with("AT ") {
            break answer;
        }
        accepted += 1;
        assert!(accepted < 10_000, "never full");
    };
    assert!(
        refusal.starts_with(&format!("? IAMAT x{accepted} +1.000")),
        "{}",
        &refusal[..60]
    );
    riley.wait_for_log(
        "[WARN ] journal: no room: ",
        "IAMATs are refused until 128 KiB are free",
    );
    // Reading records and receiving updates still work.
    assert_eq!(client.wait_for_record("first", |_| true), first);
    let flooded = jaquez.client().ask("IAMAT flooded +1+2 3");
    client.wait_for_record("flooded", |line| line == flooded);
    limit(None);
    let mut recovered = String::new();
    wait_until("updates are accepted again", || {
        recovered = client.ask("IAMAT recovered +1+2 3");
        recovered.starts_with("AT ")
    });
    riley.wait_for_log("journal: there is room again", "");
    riley.signal(Signal::KILL);
    drop(servers);
    let alone = herd.start("Riley");
    let mut client = alone.client();
    for (id, at) in [
        ("first", &first),
        ("flooded", &flooded),
        ("recovered", &recovered),
    ] {
        assert_eq!(&client.wait_for_record(id, |_| true), at);
    }
}

#[test]
fn a_journal_is_compacted_while_updates_arrive() {
    let herd = single()
        .with("[limits]\ncompact_bytes = 20000\n")
        .level("info");
    let server = herd.start("Riley");
    let mut client = server.client();
    let mut newest = Vec::new();
    for round in 0..40 {
        newest = (0..50)
            .map(|number| client.ask(&format!("IAMAT x{number} +1+2 {round}")))
            .collect();
    }
    server.wait_for_log("journal: compacted from ", "");
    let last = client.ask("IAMAT last +1+2 3");
    // The server wrote 2,000 entries of about 80 bytes. The last compaction may still be running.
    let path = data_dir(&herd, "Riley").join("journal");
    wait_until("it is short", || end_of(&path, "Riley") < 25_000);
    // Other users must not be able to read the positions of clients.
    let next = data_dir(&herd, "Riley").join("journal.new");
    for path in [&path, &next, &data_dir(&herd, "Riley")] {
        let mode = fs::metadata(path).unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{}: {mode:o}", path.display());
    }
    server.kill();
    let server = herd.start("Riley");
    let mut client = server.client();
    for (number, at) in newest.iter().enumerate() {
        assert_eq!(&client.wait_for_record(&format!("x{number}"), |_| true), at);
    }
    assert_eq!(client.wait_for_record("last", |_| true), last);
}

#[test]
fn ten_thousand_pipelined_updates_survive_a_restart() {
    for fsync in ["always", "interval"] {
        let herd = single()
            .with_top(&format!("fsync = {fsync:?}\n"))
            .level("warn");
        let server = herd.start("Riley");
        let mut client = server.client();
        let commands: String = (0..10_000)
            .map(|number| format!("IAMAT x{number} +1+2 3\n"))
            .collect();
        let writer = std::thread::spawn({
            let mut stream = client.stream().try_clone().unwrap();
            move || std::io::Write::write_all(&mut stream, commands.as_bytes()).unwrap()
        });
        let answers: Vec<String> = (0..10_000).map(|_| client.line()).collect();
        writer.join().unwrap();
        server.kill();
        let server = herd.start("Riley");
        let mut client = server.client();
        for (number, at) in answers.iter().enumerate() {
            assert_eq!(&client.wait_for_record(&format!("x{number}"), |_| true), at);
        }
    }
}
