//! `--check` does everything that a start does, but does not serve. An error that would end the
//! start ends the check, too. A check leaves nothing behind.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use herd_testkit::herd::{Herd, Server};

fn command(herd: &Herd, extra: &[&str]) -> Command {
    let mut command = herd.command("Riley");
    command.args(extra);
    command
}

/// Runs a check. Returns its status and its output: the meaning of all settings, then notes or the
/// error.
fn check(herd: &Herd, extra: &[&str]) -> (Option<i32>, String) {
    let output = command(herd, extra).arg("--check").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.starts_with("server      Riley of "), "{text}");
    let errors = String::from_utf8(output.stderr).unwrap();
    assert_eq!(
        output.status.code() == Some(0),
        errors.is_empty(),
        "{errors}"
    );
    (output.status.code(), text + &errors)
}

/// Runs a check and a start with these arguments. Both must fail with this status and these words.
fn both_fail(herd: &Herd, extra: &[&str], status: i32, words: &str) {
    let (checked, told) = check(herd, extra);
    assert!(told.contains(words), "{told}");
    assert_eq!(checked, Some(status), "{told}");
    let started = command(herd, extra).output().unwrap();
    let told = String::from_utf8_lossy(&started.stderr);
    assert!(told.contains(words), "{told}");
    assert_eq!(started.status.code(), Some(status), "{told}");
}

/// Lists all files below a directory, with their lengths.
fn files(directory: &Path) -> Vec<(String, u64)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap().map_while(Result::ok) {
        let metadata = entry.metadata().unwrap();
        found.push((entry.path().display().to_string(), metadata.len()));
        if metadata.is_dir() {
            found.extend(files(&entry.path()));
        }
    }
    found.sort();
    found
}

#[test]
fn check_fails_where_the_start_fails() {
    let herd = Herd::single();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let words = format!("cannot listen on {address}: Address already in use");
    both_fail(&herd, &["--listen", &address], 1, &words);
    both_fail(&herd, &["--listen-peers", &address], 1, &words);
    let nowhere = ["--listen", "no-such-host.invalid:10000"];
    both_fail(
        &herd,
        &nowhere,
        1,
        "cannot listen on no-such-host.invalid:10000",
    );
    let foreign = ["--listen", "192.0.2.1:10000"];
    both_fail(
        &herd,
        &foreign,
        1,
        "no interface of this machine has that address",
    );
    let no_log = ["--log-file", "/nonexistent/log"];
    both_fail(
        &herd,
        &no_log,
        2,
        "cannot write the log /nonexistent/log: No such file",
    );
    let directory_as_log = ["--log-file", "/tmp"];
    both_fail(
        &herd,
        &directory_as_log,
        2,
        "cannot write the log /tmp: Is a directory",
    );

    let file = herd.directory.path().join("file");
    fs::write(&file, "").unwrap();
    let below_a_file = ["--data-dir", "file/data"];
    both_fail(
        &herd,
        &below_a_file,
        1,
        "cannot make the data directory file/data: ",
    );
    fs::create_dir(herd.directory.path().join("piped")).unwrap();
    let pipe = herd.directory.path().join("piped/journal");
    let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    both_fail(&herd, &["--data-dir", "piped"], 1, "no regular file");
}

#[test]
fn check_fails_on_a_bad_journal_and_does_not_change_it() {
    let herd = Herd::single();
    let data = herd.directory.path().join("data");
    let with_data = ["--data-dir", "data"];
    let server = Server::start(&mut command(&herd, &with_data));
    let mut client = server.client();
    for number in 0..100 {
        client.ask(&format!("IAMAT x{number} +1+2 3"));
    }
    // The server still runs and has locked its data directory. Other ports are free, so the lock is
    // the only error.
    let elsewhere = [&with_data[..], &["--listen", "127.0.0.1:0"]].concat();
    let elsewhere = [&elsewhere[..], &["--listen-peers", "127.0.0.1:0"]].concat();
    both_fail(
        &herd,
        &elsewhere,
        1,
        "another process uses the data directory data",
    );
    server.stop();
    let before = files(&data);
    assert_eq!(check(&herd, &with_data).0, Some(0));

    // A check reports a torn tail and does not change it. Only a start cuts it off.
    let journal = data.join("journal");
    let whole = fs::read(&journal).unwrap();
    // Reserved room, which is full of zeros, follows the entries.
    let end = whole.iter().rposition(|byte| *byte != 0).unwrap();
    fs::write(&journal, &whole[..end - 3]).unwrap();
    let (status, told) = check(&herd, &with_data);
    assert_eq!(status, Some(0), "{told}");
    assert!(
        told.contains("were not written whole; a start cuts them off"),
        "{told}"
    );
    assert_eq!(fs::read(&journal).unwrap(), whole[..end - 3]);

    let mut damaged = whole.clone();
    damaged[end / 2] ^= 1;
    fs::write(&journal, &damaged).unwrap();
    both_fail(&herd, &with_data, 1, "put a good copy in its place");
    assert_eq!(files(&data), before);
}

#[test]
fn check_creates_and_removes_no_files() {
    let herd = Herd::single();
    herd.config_file();
    let before = files(herd.directory.path());
    let all_new = ["--data-dir", "a/b/c", "--log-file", "own.log"];
    assert_eq!(check(&herd, &all_new).0, Some(0));
    assert_eq!(files(herd.directory.path()), before);
    // A check does not remove existing files and directories either.
    fs::create_dir(herd.directory.path().join("a")).unwrap();
    fs::write(herd.directory.path().join("own.log"), "kept\n").unwrap();
    let before = files(herd.directory.path());
    assert_eq!(check(&herd, &all_new).0, Some(0));
    assert_eq!(files(herd.directory.path()), before);
}

#[test]
fn check_fails_on_paths_without_write_permission() {
    let herd = Herd::single();
    let data = herd.directory.path().join("data");
    fs::create_dir(&data).unwrap();
    fs::set_permissions(&data, fs::Permissions::from_mode(0o500)).unwrap();
    if fs::write(data.join("probe"), "").is_ok() {
        return; // root may write everywhere
    }
    both_fail(&herd, &["--data-dir", "data"], 1, "Permission denied");
    both_fail(&herd, &["--log-file", "data/log"], 2, "Permission denied");
}

#[test]
fn check_notes_an_unresolvable_neighbour_and_passes() {
    let herd = Herd::single().with(
        "[[servers]]\nname = \"Far\"\nclients = \"far.invalid:1\"\npeers = \"far.invalid:2\"\n",
    );
    let config = herd.config_file();
    let text = fs::read_to_string(&config).unwrap();
    fs::write(
        &config,
        text.replace("links = []", "links = [[\"Riley\", \"Far\"]]"),
    )
    .unwrap();
    let mut command = herd_testkit::herd::server_command();
    command.args(["Riley", "--check", "--log-file", "-", "--config"]);
    let output = command
        .arg(&config)
        .env("HERD_SECRET", "the herd's own secret")
        .output()
        .unwrap();
    let told = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{told}");
    assert!(
        told.contains("the name far.invalid has no address now: "),
        "{told}"
    );
}

#[test]
fn modes_that_let_others_change_or_read_data_are_logged() {
    let herd = Herd::single();
    let data = herd.directory.path().join("data");
    fs::create_dir(&data).unwrap();
    fs::write(data.join("journal"), "").unwrap();
    let notes = |directory_mode: u32, journal_mode: u32| {
        let mode = fs::Permissions::from_mode;
        fs::set_permissions(&data, mode(directory_mode)).unwrap();
        fs::set_permissions(data.join("journal"), mode(journal_mode)).unwrap();
        let (status, told) = check(&herd, &["--data-dir", "data"]);
        assert_eq!(status, Some(0), "{told}");
        let of_modes = told
            .lines()
            .filter(|line| line.contains("note        the mode of "));
        of_modes.map(str::to_owned).collect::<Vec<_>>()
    };
    let open = "note        the mode of data lets every user of this machine change the journal in it: chmod 700 data";
    let read = "note        the mode of data/journal lets every user of this machine read it: chmod 600 data/journal";
    assert_eq!(notes(0o700, 0o600), [""; 0]);
    assert_eq!(notes(0o755, 0o640), [""; 0]);
    assert_eq!(notes(0o777, 0o600), [open]);
    assert_eq!(notes(0o1777, 0o644), [open, read]);
    // A start logs the same notes.
    let server = Server::start(herd.command("Riley").args(["--data-dir", "data"]));
    server.wait_for_log("[WARN ] the mode of data lets", "");
    server.wait_for_log("[WARN ] the mode of data/journal lets", "");
}
