//! Faults of the disk under a server with a journal: slow calls, errors, and missing features of
//! the file system. Also a journal that takes long to read.

use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use herd_mio::core::journal::format::{Entry, Salt, header, header_of_format_1, write_checksums};
use herd_testkit::client::wait_until;
use herd_testkit::herd::{Herd, Server};
use rustix::process::Signal;

use crate::command_line::Ended;
use crate::journal::{data_dir, keeping, single};
use crate::outside;

/// A server whose system calls strace delays or lets fail.
fn meddled(herd: &Herd, calls: &str, inject: &str) -> (Server, outside::Trace) {
    let (calls, inject) = (format!("trace={calls}"), format!("inject={inject}"));
    let trace = outside::Trace::new(herd, &["-e", &calls, "-e", &inject]);
    (
        Server::start(&mut trace.command(&herd.command("Riley"))),
        trace,
    )
}

#[test]
fn a_slow_journal_write_delays_only_its_own_answers() {
    if !outside::can_trace("a slow write of the journal") {
        return;
    }
    let herd = keeping(Herd::new(&["Riley", "Jaquez"], &[("Riley", "Jaquez")]))
        .with("[limits]\nheartbeat_ms = 200\nlink_silence_ms = 1500\n")
        .level("info");
    let jaquez = herd.start("Jaquez");
    // The first write belongs to the start.
    let (riley, _trace) = meddled(&herd, "pwrite64", "pwrite64:delay_enter=4000000:when=2+");
    riley.wait_for_log("neighbour Jaquez", ": linked");
    let mut waiting = riley.client();
    let began = Instant::now();
    waiting.send("IAMAT slow +1+2 3\n");
    let mut asking = riley.client();
    while began.elapsed() < Duration::from_secs(3) {
        let asked = Instant::now();
        assert_eq!(asking.ask("WHATSAT slower 1 1"), "? WHATSAT slower 1 1");
        assert!(
            asked.elapsed() < Duration::from_secs(1),
            "{:?}",
            asked.elapsed()
        );
    }
    assert!(waiting.line().starts_with("AT Riley "));
    assert!(
        began.elapsed() > Duration::from_secs(3),
        "it waited for the disk"
    );
    for server in [&riley, &jaquez] {
        let log = server.log_lines();
        assert!(
            !log.iter().any(|line| line.contains(": lost: ")),
            "{log:#?}"
        );
    }
}

#[test]
fn a_server_runs_without_fallocate() {
    if !outside::can_trace("a file system that cannot reserve room") {
        return;
    }
    for error in ["EPERM", "EINVAL", "ENODEV", "EOPNOTSUPP", "ENOSYS"] {
        let herd = single();
        let (server, trace) = meddled(&herd, "fallocate", &format!("fallocate:error={error}"));
        let at = server.client().ask("IAMAT x +1+2 3");
        assert!(at.starts_with("AT Riley "), "{error}: {at}");
        wait_until("it was asked", || trace.text().contains("(INJECTED)"));
    }
}

#[test]
fn missing_file_locks_and_directory_syncs_are_logged() {
    if !outside::can_trace("a file system without locks") {
        return;
    }
    for (calls, inject, told) in [
        ("flock", "flock:error=ENOLCK", "has no locks"),
        // The first fsync is of the journal file. The later ones are of directories.
        ("fsync", "fsync:error=EINVAL:when=2+", "cannot be synced"),
    ] {
        let herd = single()
            .with("[limits]\ncompact_bytes = 10000\njournal_ahead_bytes = 16384\n")
            .level("info");
        let (server, _trace) = meddled(&herd, calls, inject);
        server.wait_for_log("[WARN ] journal: ", told);
        let mut client = server.client();
        for round in 0..400 {
            let at = client.ask(&format!("IAMAT x +1+2 {round}"));
            assert!(at.starts_with("AT Riley "), "{at}");
        }
        server.wait_for_log("journal: compacted from", "");
        server.stop();
    }
}

#[test]
fn a_failed_rename_aborts_only_the_compaction() {
    if !outside::can_trace("a rename that is refused") {
        return;
    }
    for error in ["ENOSPC", "EBUSY", "EACCES"] {
        let herd = single()
            .with("[limits]\ncompact_bytes = 10000\njournal_ahead_bytes = 16384\n")
            .level("info");
        let inject = format!("?renameat,?renameat2:error={error}");
        let (server, _trace) = meddled(&herd, "?renameat,?renameat2", &inject);
        let mut client = server.client();
        let mut last = String::new();
        for round in 0..200 {
            last = client.ask(&format!("IAMAT x +1+2 {round}"));
            assert!(last.starts_with("AT Riley "), "{error}: {last}");
        }
        server.wait_for_log("[WARN ] journal: not compacted: ", "");
        server.kill();
        let server = herd.start("Riley");
        assert_eq!(server.client().wait_for_record("x", |_| true), last);
    }
}

#[test]
fn a_sync_without_room_is_followed_by_a_compaction() {
    if !outside::can_trace("a sync that finds no room") {
        return;
    }
    let herd = single()
        .with_top("fsync = \"interval\"\n")
        .with("[limits]\nfsync_ms = 20\n")
        .level("info");
    // strace counts the calls of each thread separately. The two syncs of the start succeed, and so
    // do the first two of the background thread; its third fails.
    let (server, _trace) = meddled(&herd, "fdatasync", "fdatasync:error=ENOSPC:when=3");
    let mut client = server.client();
    let (mut first, mut round) = (String::new(), 0);
    wait_until("a sync fails", || {
        round += 1;
        let answer = client.ask(&format!("IAMAT x +1+2 {round}"));
        if answer.starts_with("AT ") {
            first = answer;
        }
        server
            .log_lines()
            .iter()
            .any(|line| line.contains("journal: no room: "))
    });
    server.wait_for_log("journal: compacted from", "");
    let mut second = String::new();
    wait_until("updates are accepted again", || {
        second = client.ask("IAMAT y +1+2 3");
        second.starts_with("AT ")
    });
    server.kill();
    let server = herd.start("Riley");
    let mut client = server.client();
    assert_eq!(client.wait_for_record("x", |_| true), first);
    assert_eq!(client.wait_for_record("y", |_| true), second);
}

/// A journal with this many records.
fn long_journal(records: u64) -> Vec<u8> {
    let salt = Salt(7);
    let mut file = header("Riley", salt);
    let start = file.len();
    for seq in 1..=records {
        let line =
            format!("AT Riley +0.000000000 client{seq} +34.068930-118.445127 1621464827.959498503");
        let line = line.as_bytes();
        Entry::Record {
            seq,
            epoch: 0,
            line,
        }
        .write(&mut file);
    }
    write_checksums(&mut file[start..], salt, start as u64);
    file
}

#[test]
fn a_signal_stops_a_server_that_reads_its_journal() {
    let herd = single().level("info");
    let directory = data_dir(&herd, "Riley");
    fs::create_dir_all(&directory).unwrap();
    fs::write(directory.join("journal"), long_journal(2_000_000)).unwrap();
    let mut command = herd.command("Riley");
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let Ended(child) = &mut Ended(command.spawn().unwrap());
    // The server handles signals before it takes the lock.
    wait_until("it begins", || directory.join("lock").exists());
    let signalled = Instant::now();
    let pid = rustix::process::Pid::from_raw(child.id() as i32).unwrap();
    rustix::process::kill_process(pid, Signal::TERM).unwrap();
    wait_until("it ends", || child.try_wait().unwrap().is_some());
    assert!(
        signalled.elapsed() < Duration::from_secs(1),
        "{:?}",
        signalled.elapsed()
    );
    assert_eq!(child.wait().unwrap().code(), Some(0));
    let said = std::io::read_to_string(child.stdout.take().unwrap()).unwrap();
    assert_eq!(said, "", "it was never ready");
}

#[test]
fn a_journal_of_format_1_is_rewritten_in_format_2() {
    let herd = single().level("info");
    let directory = data_dir(&herd, "Riley");
    fs::create_dir_all(&directory).unwrap();
    let mut file = header_of_format_1("Riley");
    for client in ["x", "y"] {
        let mut payload = vec![b'R'];
        payload.extend_from_slice(&u64::from(client == "y").to_le_bytes());
        payload.extend_from_slice(format!("AT Riley +0.000000000 {client} +1+2 3").as_bytes());
        let length = (payload.len() as u32).to_le_bytes();
        let mut sum = crc32fast::Hasher::new();
        sum.update(&length);
        sum.update(&payload);
        file.extend_from_slice(&length);
        file.extend_from_slice(&sum.finalize().to_le_bytes());
        file.extend_from_slice(&payload);
    }
    fs::write(directory.join("journal"), file).unwrap();
    for _ in 0..2 {
        let server = herd.start("Riley");
        let mut client = server.client();
        for name in ["x", "y"] {
            let line = client.wait_for_record(name, |_| true);
            assert_eq!(line, format!("AT Riley +0.000000000 {name} +1+2 3"));
        }
        let journal = fs::read(directory.join("journal")).unwrap();
        assert!(journal.starts_with(b"herd-mio journal 2 Riley "));
        server.kill();
    }
}

#[test]
fn a_journal_that_is_a_mount_point_is_refused() {
    let what = "a journal that is a mount point";
    if !outside::is_root(what) || !outside::has_program("unshare", what) {
        return;
    }
    let herd = single();
    herd.start("Riley").stop();
    let journal = data_dir(&herd, "Riley").join("journal");
    let other = herd.directory.path().join("other");
    fs::copy(&journal, &other).unwrap();
    let mount = format!(
        "mount --bind {} {} && exec \"$0\" \"$@\"",
        other.display(),
        journal.display()
    );
    let mut command = outside::wrapped(
        &["unshare", "-m", "sh", "-c", &mount],
        &[],
        &herd.command("Riley"),
    );
    if let Err(why) = outside::run_to_end("unshare -m true") {
        return outside::skipped(what, &why);
    }
    let output = Command::output(&mut command).unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains("is a mount point, which cannot be renamed over"),
        "{said}"
    );
}

#[test]
fn a_slow_sync_delays_no_answers_with_fsync_interval() {
    if !outside::can_trace("a slow sync of the journal") {
        return;
    }
    let herd = single()
        .with_top("fsync = \"interval\"\n")
        .with("[limits]\nfsync_ms = 20\njournal_ahead_bytes = 16384\n");
    // The first sync belongs to the start.
    let (server, _trace) = meddled(&herd, "fdatasync", "fdatasync:delay_enter=4000000:when=2+");
    let mut client = server.client();
    let (name, began, mut answers) = ("x".repeat(200), Instant::now(), 0);
    // The updates need many times the room that is reserved ahead.
    while began.elapsed() < Duration::from_secs(3) {
        let asked = Instant::now();
        let answer = client.ask(&format!("IAMAT {name}{} +1+2 {answers}", answers % 7));
        assert!(answer.starts_with("AT Riley "), "{answer}");
        assert!(
            asked.elapsed() < Duration::from_secs(1),
            "{:?}",
            asked.elapsed()
        );
        answers += 1;
    }
    assert!(answers > 500, "{answers} answers");
}
