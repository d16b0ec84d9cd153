//! `herd-journal` on journals that servers wrote, whole and damaged, and servers on journals that
//! it repaired.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use herd_testkit::client::wait_until;
use herd_testkit::herd::Herd;
use proptest::prelude::*;

use crate::journal::{data_dir, keeping, single};

/// The status and the output of a command.
struct Told {
    status: i32,
    out: String,
    errors: String,
}

pub(crate) fn herd_journal() -> Command {
    Command::new(env!("CARGO_BIN_EXE_herd-journal"))
}

fn inspect(arguments: &[&dyn AsRef<std::ffi::OsStr>]) -> Told {
    let mut command = herd_journal();
    for argument in arguments {
        command.arg(argument.as_ref());
    }
    let output = command.output().unwrap();
    Told {
        status: output.status.code().unwrap_or(-1),
        out: String::from_utf8(output.stdout).unwrap(),
        errors: String::from_utf8(output.stderr).unwrap(),
    }
}

/// The latest position of each client, as `list` prints it.
fn positions(journal: &Path) -> BTreeMap<String, String> {
    let told = inspect(&[&"list", &journal]);
    let client = |line: &str| line.split(' ').nth(3).unwrap().to_owned();
    told.out
        .lines()
        .map(|line| (client(line), line.to_owned()))
        .collect()
}

/// A journal that a server wrote, and the latest answer for each client. There are `count` clients,
/// and each sent two positions.
fn written(count: usize) -> (Herd, PathBuf, BTreeMap<String, String>) {
    let herd = single();
    let server = herd.start("Riley");
    let mut client = server.client();
    let mut newest = BTreeMap::new();
    for time in [1, 2] {
        for number in 0..count {
            let at = client.ask(&format!("IAMAT x{number} +1+2 {time}"));
            newest.insert(format!("x{number}"), at.trim().to_owned());
        }
    }
    server.stop();
    let journal = data_dir(&herd, "Riley").join("journal");
    (herd, journal, newest)
}

/// The offset of the `n`th match of `what` in a file, counted from 0.
fn place(file: &[u8], what: &[u8], n: usize) -> usize {
    let mut places = file
        .windows(what.len())
        .enumerate()
        .filter(|(_, window)| *window == what);
    places.nth(n).unwrap().0
}

#[test]
fn verify_stats_list_and_export_read_a_whole_journal() {
    let (herd, journal, newest) = written(5);
    let told = inspect(&[&"verify", &journal]);
    assert_eq!(told.status, 0, "{}{}", told.out, told.errors);
    for expected in [
        "journal: whole\n",
        "server        Riley\n",
        "format        2\n",
        "lives         1, ",
        "10 of them records; the last change is number 10\n",
        "a start       reads all of it\n",
    ] {
        assert!(told.out.contains(expected), "{expected:?} in {}", told.out);
    }
    // A command also takes the data directory instead of the journal.
    let directory = journal.parent().unwrap();
    let told = inspect(&[&"stats", &directory]);
    assert_eq!(told.status, 0);
    assert!(told.out.contains("clients       5\n"), "{}", told.out);
    let stats = inspect(&[&"stats", &directory, &"--json"]);
    let stats: serde_json::Value = serde_json::from_str(&stats.out).unwrap();
    assert_eq!(
        (&stats["clients"], &stats["heard_by"]["Riley"]),
        (&5.into(), &10.into())
    );
    assert!(stats["compacted_bytes"].as_u64() < stats["bytes"].as_u64());

    assert_eq!(positions(&journal), newest);
    let one = inspect(&[&"list", &journal, &"--client", &"x3"]);
    assert_eq!(one.out.trim(), newest["x3"]);
    let later = inspect(&[&"list", &journal, &"--since", &"2.5"]);
    assert_eq!((later.status, &*later.out), (0, ""));
    let all = inspect(&[&"list", &journal, &"--all", &"--client", &"x3"]);
    assert_eq!(all.out.lines().count(), 2, "{}", all.out);
    let json = inspect(&[&"list", &journal, &"--format", &"json"]);
    let clients = json.out.lines().map(|line| {
        let record: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!(record["time"], "2");
        record["client"].as_str().unwrap().to_owned()
    });
    assert!(clients.eq(newest.keys().cloned()), "{}", json.out);

    // Another server accepts the commands of an export.
    let exported = herd.directory.path().join("commands");
    let told = inspect(&[
        &"export",
        &journal,
        &"--format",
        &"iamat",
        &"--output",
        &exported,
    ]);
    assert_eq!((told.status, &*told.out), (0, ""), "{}", told.errors);
    let other = single();
    let server = other.start("Riley");
    let mut client = server.client();
    for line in fs::read_to_string(&exported).unwrap().lines() {
        assert!(client.ask(line).starts_with("AT Riley "), "{line}");
    }
    server.stop();
    let imported = positions(&data_dir(&other, "Riley"));
    assert!(imported.keys().eq(newest.keys()));
}

#[test]
fn verify_accepts_a_torn_tail_and_reports_damage() {
    let (herd, journal, _) = written(5);
    let good = fs::read(&journal).unwrap();
    let torn = good[..place(&good, b"x4 +1+2 2", 0)].to_vec();
    fs::write(&journal, torn).unwrap();
    let told = inspect(&[&"verify", &journal]);
    assert_eq!(told.status, 0, "{}", told.out);
    assert!(
        told.out.contains("journal: torn at its end\n")
            && told.out.contains("as a crash leaves it"),
        "{}",
        told.out
    );
    let mut damaged = good.clone();
    damaged[place(&good, b"x1 +1+2 2", 0)] ^= 1;
    fs::write(&journal, &damaged).unwrap();
    let told = inspect(&[&"verify", &journal]);
    assert_eq!(told.status, 1);
    let start = told.out.lines().find(|line| line.contains("a start"));
    assert!(start.unwrap().contains("refuses it"), "{}", told.out);
    // The start reports the same offset.
    let refused = herd.command("Riley").output().unwrap();
    let refused = String::from_utf8(refused.stderr).unwrap();
    let offset = refused.split("damaged at byte ").nth(1).unwrap();
    let offset = offset.split(',').next().unwrap();
    assert!(
        told.out
            .contains(&format!("damaged       bytes {offset} to ")),
        "{} {refused}",
        told.out
    );
    assert!(refused.contains("herd-journal repair"), "{refused}");
    // The undamaged entries are listed. Status 1 says that something is missing.
    let listed = inspect(&[&"list", &journal]);
    assert_eq!((listed.status, listed.out.lines().count()), (1, 5));
    assert!(listed.out.contains(" x1 +1+2 1\n"), "the older one");
}

#[test]
fn a_repaired_journal_begins_a_new_life_and_is_refilled() {
    let herd = keeping(Herd::new(
        &["Riley", "Jaquez", "Juzang"],
        &[("Riley", "Jaquez"), ("Riley", "Juzang")],
    ));
    let mut servers = herd.start_all();
    let mut newest = BTreeMap::new();
    for number in 0..40 {
        let name = ["Riley", "Jaquez", "Juzang"][number % 3];
        for time in [1, 2] {
            let at = servers[name]
                .client()
                .ask(&format!("IAMAT x{number} +1+2 {time}"));
            newest.insert(format!("x{number}"), at.trim().to_owned());
        }
    }
    let has_all = |server: &herd_testkit::herd::Server| {
        let mut client = server.client();
        for (name, at) in &newest {
            client.wait_for_record(name, |line| line.trim() == at);
        }
    };
    servers.values().for_each(has_all);
    // The journal also notes how far the neighbours' feeds were read.
    let journal = data_dir(&herd, "Riley").join("journal");
    wait_until("what was heard is noted", || {
        let stats = inspect(&[&"stats", &journal, &"--json"]);
        let stats: serde_json::Value = serde_json::from_str(&stats.out).unwrap();
        let heard = |name: &str| stats["neighbours"][name]["heard_up_to"].as_u64();
        heard("Jaquez")
            .zip(heard("Juzang"))
            .is_some_and(|(a, b)| a.min(b) >= 26)
    });
    // The journal of a running server can be read, but not repaired.
    let told = inspect(&[&"verify", &journal]);
    assert!(told.errors.contains("Riley is running"), "{}", told.errors);
    assert_eq!(told.status, 0, "{}", told.out);
    let link = herd.directory.path().join("a-link");
    std::os::unix::fs::symlink(&journal, &link).unwrap();
    let told = inspect(&[&"verify", &link]);
    assert!(told.errors.contains("Riley is running"), "{}", told.errors);
    for name in [&journal, &link] {
        let refused = inspect(&[&"repair", name, &"--in-place"]);
        assert!(
            refused.status == 2 && refused.errors.contains("is running: stop it first"),
            "{}{}",
            refused.out,
            refused.errors
        );
    }
    servers.remove("Riley").unwrap().kill();

    // A part in the middle is damaged: records of Riley's own clients, and records from its
    // neighbours.
    let mut file = fs::read(&journal).unwrap();
    let (from, to) = (
        place(&file, b" x10 +1+2 2", 0),
        place(&file, b" x20 +1+2 1", 0),
    );
    file[from..to].fill(0xa5);
    fs::write(&journal, &file).unwrap();
    let before = fs::metadata(&journal).unwrap();
    let told = inspect(&[&"repair", &journal, &"--in-place"]);
    assert_eq!(told.status, 0, "{}{}", told.out, told.errors);
    for expected in ["taken out     bytes ", "new life", "journal.damaged"] {
        assert!(told.out.contains(expected), "{expected:?} in {}", told.out);
    }
    let backup = journal.with_file_name("journal.damaged");
    assert_eq!(fs::read(&backup).unwrap(), file);
    let after = fs::metadata(&journal).unwrap();
    assert_eq!(
        (after.permissions().mode(), after.uid()),
        (before.permissions().mode(), before.uid())
    );
    let told = inspect(&[&"verify", &journal]);
    assert!(
        told.status == 0 && told.out.contains("lives         none"),
        "{}",
        told.out
    );
    let again = inspect(&[&"repair", &journal, &"--in-place"]);
    assert!(again.out.contains("nothing to repair"), "{}", again.out);

    // One neighbour is down. The other has all records, and sends all of them to Riley's new life
    // (run of its process).
    servers.remove("Juzang").unwrap().kill();
    let riley = herd.start("Riley");
    has_all(&riley);
    let linked = riley.wait_for_log("neighbour Jaquez", ": linked, ");
    assert!(linked.contains("to be sent all"), "{linked}");
    has_all(&herd.start("Juzang"));
    let last = riley.client().ask("IAMAT last +1+2 3");
    servers["Jaquez"]
        .client()
        .wait_for_record("last", |line| line == last);
    riley.kill();
    let riley = herd.start("Riley");
    has_all(&riley);
    riley.client().wait_for_record("last", |line| line == last);
}

#[test]
fn repairing_only_a_torn_tail_keeps_the_life() {
    let (herd, journal, newest) = written(5);
    let mut file = fs::read(&journal).unwrap();
    let end = place(&file, b"x4 +1+2 2", 0) + 9;
    file.truncate(end);
    file.extend([b'?'; 100]);
    fs::write(&journal, &file).unwrap();
    let copy = herd.directory.path().join("copy");
    let told = inspect(&[&"repair", &journal, &"--output", &copy]);
    assert_eq!(told.status, 0, "{}{}", told.out, told.errors);
    assert!(
        told.out.contains("cut off       bytes ") && !told.out.contains("new life"),
        "{}",
        told.out
    );
    assert_eq!(fs::read(&journal).unwrap(), file, "it is left as it was");
    assert_eq!(positions(&copy), newest);
    assert!(
        inspect(&[&"verify", &copy])
            .out
            .contains("lives         1, ")
    );
    let refused = inspect(&[&"repair", &journal, &"--output", &copy]);
    assert!(
        refused.errors.contains("is there already"),
        "{}",
        refused.errors
    );
    fs::rename(&copy, &journal).unwrap();
    let server = herd.start("Riley");
    let mut client = server.client();
    for (name, at) in &newest {
        client.wait_for_record(name, |line| line.trim() == at);
    }
}

/// Damage at many places: the header, the middle, the end. `repair` never panics, adds nothing, and
/// keeps every undamaged entry. A server starts with the result.
#[test]
fn repair_keeps_every_undamaged_entry() {
    let (herd, journal, newest) = written(12);
    let good = fs::read(&journal).unwrap();
    let end = place(&good, b"x11 +1+2 2", 0) + 10;
    let repaired = herd.directory.path().join("repaired");
    let damaged = herd.directory.path().join("damaged");
    let entries = |file: &Path| -> Vec<String> {
        let told = inspect(&[&"list", &file, &"--all"]);
        let of_record = told
            .out
            .lines()
            .filter_map(|line| line.split_once("record   "));
        of_record.map(|(_, record)| record.to_owned()).collect()
    };
    let all = entries(&journal);
    assert_eq!(all.len(), 24);
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig {
        cases: 25,
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    let faults = proptest::collection::vec((0..end, 0u8..8), 1..4);
    let outcome = runner.run(&faults, |faults| {
        let mut file = good.clone();
        for (at, bit) in &faults {
            file[*at] ^= 1 << bit;
        }
        fs::write(&damaged, &file).unwrap();
        let _ = fs::remove_file(&repaired);
        let told = inspect(&[&"repair", &damaged, &"--output", &repaired]);
        if told.status == 1 {
            prop_assert!(
                told.errors.contains("and with it the salt"),
                "{}",
                told.errors
            );
            return Ok(());
        }
        if told.status == 2 {
            let in_header = faults.iter().filter(|(at, _)| *at < 59).count();
            prop_assert!(in_header > 1, "{}", told.errors);
            return Ok(());
        }
        let kept = entries(&repaired);
        let is_touched = |record: &&String| {
            let line = record.split_once(' ').unwrap().1;
            let start = place(&good, line.as_bytes(), 0) - 21;
            let touched = start..start + 21 + line.len();
            faults.iter().any(|(at, _)| touched.contains(at))
                && file[touched.clone()] != good[touched]
        };
        let expected: Vec<_> = all.iter().filter(|it| !is_touched(it)).cloned().collect();
        prop_assert_eq!(kept, expected);
        Ok(())
    });
    outcome.unwrap();
    fs::copy(&repaired, &journal).unwrap();
    let server = herd.start("Riley");
    let mut client = server.client();
    for name in positions(&repaired).keys() {
        client.wait_for_record(name, |line| line.contains(&newest[name][..9]));
    }
}

#[test]
fn a_file_that_is_no_journal_is_reported_in_one_line() {
    let (herd, journal, _) = written(1);
    let directory = herd.directory.path();
    let good = fs::read(&journal).unwrap();
    let file = |name: &str, bytes: &[u8]| {
        let path = directory.join(name);
        fs::write(&path, bytes).unwrap();
        path
    };
    let pipe = directory.join("pipe");
    let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    let mut hole = good.clone();
    hole[..512].fill(0);
    hole[600] = 1;
    let later = b"herd-mio journal 3 Riley something else\n".as_slice();
    let nowhere = directory.join("nowhere");
    for (path, status, expected) in [
        (
            file("garbage", b"\xff\0garbage"),
            2,
            "does not begin as the journal",
        ),
        (file("hole", &hole), 1, "and with it the salt"),
        (
            file("later", later),
            2,
            "is a journal of format 3, which version",
        ),
        (pipe, 2, "is no regular file"),
        (nowhere, 2, "cannot look at"),
        (directory.join("data"), 2, "there is one in"),
        (directory.to_owned(), 2, "there is no journal in"),
    ] {
        let shown = path.display();
        for command in ["verify", "stats", "list", "export"] {
            let told = inspect(&[&command, &path]);
            assert_eq!(told.status, status, "{command} {shown}: {}", told.errors);
            assert!(
                told.errors.starts_with("herd-journal: ")
                    && told.errors.contains(expected)
                    && told.errors.lines().count() == 1
                    && told.out.is_empty(),
                "{command} {shown}: {}{}",
                told.errors,
                told.out
            );
        }
    }
    for empty in [file("empty", b""), file("cut", &good[..30])] {
        let told = inspect(&[&"verify", &empty]);
        assert!(
            told.status == 0 && told.out.contains(": empty\n"),
            "{}",
            told.out
        );
        assert_eq!(inspect(&[&"list", &empty]).status, 0);
    }
}

#[test]
fn full_stdout_fails_and_a_closed_pipe_succeeds() {
    let (herd, journal, _) = written(50);
    for arguments in [
        &["verify"][..],
        &["stats"],
        &["list"],
        &["export"],
        &["list", "--all"],
    ] {
        let run = |stdout: Stdio| {
            let mut command = herd_journal();
            command.args(arguments).arg(&journal).stdout(stdout);
            command.stderr(Stdio::piped()).output().unwrap()
        };
        let full = fs::File::options().write(true).open("/dev/full").unwrap();
        let output = run(full.into());
        let told = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {told}");
        assert!(
            told.contains("cannot write to the standard output"),
            "{told}"
        );
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = run(writer.into());
        let told = String::from_utf8(output.stderr).unwrap();
        assert_eq!(
            (output.status.code(), &*told),
            (Some(0), ""),
            "{arguments:?}"
        );
    }
    let told = inspect(&[&"export", &journal, &"-o", &"/dev/full"]);
    assert!(
        told.status == 2 && told.errors.contains("cannot write /dev/full"),
        "{}",
        told.errors
    );
    // If the output cannot be written, no file is left.
    let target = herd.directory.path().join("no").join("such");
    assert_eq!(inspect(&[&"export", &journal, &"-o", &target]).status, 2);
    let told = inspect(&[&"export", &journal, &"-o", &journal]);
    assert!(
        told.status == 2 && told.errors.contains("is the journal itself"),
        "{}",
        told.errors
    );
    assert_eq!(inspect(&[&"verify", &journal]).status, 0);
    // An existing file is replaced when the new one is complete.
    let target = herd.directory.path().join("exported");
    let mut old = fs::File::create(&target).unwrap();
    old.write_all(b"old").unwrap();
    assert_eq!(inspect(&[&"export", &journal, &"-o", &target]).status, 0);
    assert_eq!(fs::read_to_string(&target).unwrap().lines().count(), 50);
    let left: Vec<_> = fs::read_dir(herd.directory.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.ends_with(".part"))
        .collect();
    assert_eq!(left, [""; 0]);
}
