//! Clients update at full speed while the disk is small. The journal stays within its bound, and
//! afterwards all updates are accepted again.
//!
//! The disk is a tmpfs of 400 MB in the server's own mount namespace. This needs root and
//! `unshare`. Where one of these is missing, the test is skipped, and the standard error says why.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::Shutdown;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use herd_mio::core::base::limits::Limits;

use herd_testkit::herd::{Herd, Server};

/// How long the load lasts. `HERD_FLOOD_S=60 cargo test --release flood_at_full` makes it longer.
fn flood() -> Duration {
    let seconds = std::env::var("HERD_FLOOD_S");
    Duration::from_secs(seconds.map_or(5, |text| text.parse().expect("HERD_FLOOD_S is a number")))
}

/// How soon after the load all updates must be accepted.
const RECOVERY: Duration = Duration::from_secs(5);
const DISK_BYTES: u64 = 400 << 20;
/// The number of clients and the length of their names: a table of about 70 MB.
const CLIENTS: u64 = 20_000;
const NAME_BYTES: usize = 3_400;
const CONNECTIONS: u64 = 4;
/// What an entry has besides the command's bytes: frame, sequence number, `AT`, the server's name,
/// the skew.
const ENTRY_BYTES: u64 = 80;

fn name(client: u64) -> String {
    format!("{client:0>NAME_BYTES$}")
}

/// Why this machine cannot mount a disk for the test. `None` if it can.
pub(crate) fn obstacle() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("it takes root".to_owned());
    }
    let tried = Command::new("unshare")
        .args(["--mount", "sh", "-c", "mount -t tmpfs tmpfs /mnt"])
        .output();
    match tried {
        Ok(output) if output.status.success() => None,
        Ok(output) => Some(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
        Err(error) => Some(format!("unshare: {error}")),
    }
}

/// The server's command, in a mount namespace with a disk of this size in this folder.
pub(crate) fn on_disk_of(herd: &Herd, folder: &str, bytes: u64) -> Command {
    let data = herd.directory.path().join(folder);
    fs::create_dir(&data).unwrap();
    let server = herd.command("Riley");
    let script = format!("mount -t tmpfs -o size={bytes} tmpfs \"$0\" && exec \"$@\"");
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "sh", "-c", &script])
        .arg(&data)
        .arg(server.get_program())
        .args(server.get_args())
        .current_dir(herd.directory.path());
    for (name, value) in server.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command
}

/// The length of the server's journal, with its reserved room.
fn journal_bytes(herd: &Herd, server: &Server) -> u64 {
    let root = format!("/proc/{}/root", server.pid());
    let path = herd.directory.path().join("data/Riley/journal");
    fs::metadata(format!("{root}{}", path.display())).map_or(0, |metadata| metadata.len())
}

#[test]
fn a_flood_at_full_speed_keeps_the_journal_under_its_bound() {
    if let Some(obstacle) = obstacle() {
        eprintln!("skipped, as no disk of 400 MB can be had: {obstacle}");
        return;
    }
    let herd = Herd::single()
        .with_top("data_dir = \"data\"\n")
        .level("warn");
    let server = Server::start(&mut on_disk_of(&herd, "data", DISK_BYTES));
    let limits = Limits::default();
    let table = CLIENTS * (NAME_BYTES as u64 + ENTRY_BYTES);
    // Twice the table, the size below which a journal is not compacted, and the room reserved
    // ahead.
    let bound = 2 * table + limits.compact_bytes + 3 * limits.journal_ahead_bytes;
    let is_over = AtomicBool::new(false);
    let (accepted, refused) = (AtomicU64::new(0), AtomicU64::new(0));
    let mut late = 0;
    std::thread::scope(|scope| {
        for connection in 0..CONNECTIONS {
            let stream = server.client().stream().try_clone().unwrap();
            let mut writer = stream.try_clone().unwrap();
            let is_over = &is_over;
            scope.spawn(move || {
                for count in 0_u64.. {
                    if is_over.load(Ordering::Relaxed) {
                        break;
                    }
                    let client = (count * CONNECTIONS + connection) % CLIENTS;
                    let line = format!("IAMAT {} +1+2 {count}\n", name(client));
                    if writer.write_all(line.as_bytes()).is_err() {
                        break;
                    }
                }
                // The connection may be closed already. Then the reader gets fewer answers.
                let _ = writer.shutdown(Shutdown::Write);
            });
            let (accepted, refused) = (&accepted, &refused);
            scope.spawn(move || {
                for line in BufReader::new(stream).split(b'\n') {
                    let line = line.expect("an answer");
                    let count = match line.starts_with(b"AT ") {
                        true => accepted,
                        false => refused,
                    };
                    count.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let until = Instant::now() + flood();
        let mut before = 0;
        while Instant::now() < until {
            let bytes = journal_bytes(&herd, &server);
            assert!(
                bytes <= bound,
                "the journal has {bytes} bytes, {bound} at most"
            );
            std::thread::park_timeout(Duration::from_millis(100));
            let left = until.saturating_duration_since(Instant::now());
            if left < Duration::from_secs(2) {
                late += accepted.load(Ordering::Relaxed) - before;
            }
            before = accepted.load(Ordering::Relaxed);
        }
        is_over.store(true, Ordering::Relaxed);
    });
    let (accepted, refused) = (accepted.into_inner(), refused.into_inner());
    eprintln!("{accepted} accepted, {refused} refused, {late} in the last 2 s");
    assert!(accepted > 0, "nothing was accepted");
    assert!(late > 0, "nothing was accepted at the end of the flood");
    let over = Instant::now();
    let mut client = server.client();
    // The server first works through the commands that it has read. After that it must not refuse
    // any update.
    let mut refusals = 0;
    let mut next = 0;
    while next < 500 {
        let answer = client.ask(&format!("IAMAT {} +1+2 {}", name(next), 1_000_000_000));
        if answer.starts_with("AT ") {
            next += 1;
        } else {
            (next, refusals) = (0, refusals + 1);
            assert!(
                over.elapsed() < RECOVERY,
                "still refused {RECOVERY:?} after the flood, {refusals} times"
            );
            std::thread::park_timeout(Duration::from_millis(20));
        }
    }
    let bytes = journal_bytes(&herd, &server);
    assert!(
        bytes <= bound,
        "the journal has {bytes} bytes, {bound} at most"
    );
    server.stop();
}
