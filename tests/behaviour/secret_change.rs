//! A change of the herd's secret: a server accepts two secrets, neighbouring steps of the change
//! can link, and no restart is needed.

use std::fs;

use herd_testkit::herd::{Herd, Server};
use rustix::process::Signal;

use crate::fleet::Fleet;
use crate::neighbours::{NONCE, pose_as_riley, proof, status_of, two};

const OLD: &str = "the old secret of the herd";
const NEW: &str = "the new secret of the herd";

/// The content of the secret file before the change, and in its three steps. A server proves itself
/// with the first line.
const STEPS: [&[&str]; 4] = [&[OLD], &[OLD, NEW], &[NEW, OLD], &[NEW]];

fn text(step: usize) -> String {
    STEPS[step].join("\n") + "\n"
}

/// A herd whose secret is in a file.
fn herd_with(secret: &str) -> Herd {
    let herd = two()
        .env("HERD_SECRET", "")
        .with_top("secret_file = \"herd.secret\"\n");
    write(&herd, secret);
    herd
}

fn write(herd: &Herd, secret: &str) {
    fs::write(herd.directory.path().join("herd.secret"), secret).unwrap();
}

/// Lets a server read the file again, and waits for the `n`th log line with `said`.
fn reload(server: &Server, n: usize, said: &str) -> String {
    server.signal(Signal::HUP);
    server.wait_for_nth_log(n, said, "")
}

/// During a change, two servers are in the same step or in neighbouring ones. A server that was
/// left behind may be further apart.
#[test]
fn adjacent_secret_steps_link_and_others_log_the_reason() {
    let fleet = Fleet::new(&["Alice", "Bob"], &[("Alice", "Bob")]);
    for (bobs, of_bob) in STEPS.iter().enumerate() {
        fleet.secret("Bob", &text(bobs));
        let bob = fleet.start("Bob");
        let mut links = 0;
        for (alices, of_alice) in STEPS.iter().enumerate() {
            let links_expected = of_bob.contains(&of_alice[0]);
            assert!(links_expected || alices.abs_diff(bobs) > 1);
            fleet.secret("Alice", &text(alices));
            let alice = fleet.start("Alice");
            if links_expected {
                links += 1;
                alice.wait_for_log("neighbour Bob", ": linked, ");
                bob.wait_for_nth_log(links, "neighbour Alice", ": linked, ");
            } else {
                let reason = match of_bob.len() {
                    1 => "the secret that Alice proves is not the one here; both need the same",
                    _ => "the secret that Alice proves is none of the 2 here; both need the same",
                };
                let told = format!("not linked: it said goodbye: a wrong proof: {reason}");
                alice.wait_for_log("neighbour Bob", &told);
                bob.wait_for_log("claiming to be Alice: refused: a wrong proof: ", reason);
            }
            let log = alice.stop();
            let is_linked = log.iter().any(|line| line.contains(": linked, "));
            assert_eq!(is_linked, links_expected, "{log:#?}");
        }
        assert_eq!(links, [2, 4, 4, 2][bobs]);
    }
}

/// The acceptor must answer with the secret that the dialler used, because the dialler may have
/// only that one.
#[test]
fn a_proof_is_answered_with_the_dialler_s_secret() {
    let herd = herd_with(&text(2));
    let _jaquez = herd.start("Jaquez");
    for secret in [OLD, NEW] {
        let (mut riley, theirs) = pose_as_riley(&herd);
        let prove = |side| format!("PROOF {}", proof(secret.as_bytes(), side, NONCE, &theirs));
        riley.send(prove("dialler") + "\n");
        assert_eq!(riley.line(), prove("acceptor"), "{secret}");
        assert!(riley.line().starts_with("LIFE "));
    }
    for wrong in ["", "the old secret", &format!("{NEW}\n{OLD}")] {
        let (mut riley, theirs) = pose_as_riley(&herd);
        let wrong = proof(wrong.as_bytes(), "dialler", NONCE, &theirs);
        riley.send(format!("PROOF {wrong}\n"));
        assert!(riley.line().starts_with("BYE a wrong proof: "));
    }
    // The status says which secret the operator used. So it shows whether the server has finished
    // the change.
    let status = |secret: &str| status_of(&herd, "Jaquez", secret.as_bytes()).unwrap();
    assert!(status(NEW).contains(" secret=1/2 plain=0"));
    assert!(status(OLD).contains(" secret=2/2 plain=0"));
}

#[test]
fn sighup_reloads_the_secret_and_keeps_links() {
    let herd = herd_with(&text(0));
    let servers = herd.start_all();
    let (riley, jaquez) = (&servers["Riley"], &servers["Jaquez"]);
    write(&herd, &text(1));
    for server in [riley, jaquez] {
        reload(
            server,
            1,
            "the herd secret was read anew: changed, there are two: the first is proven, both are taken",
        );
        server.wait_for_log(
            "SIGHUP: ",
            "the herd secret is read anew, there are no certificates",
        );
    }
    reload(
        riley,
        1,
        "the herd secret was read anew: no change, there are two",
    );
    write(&herd, &text(3));
    for server in [riley, jaquez] {
        reload(
            server,
            1,
            "the herd secret was read anew: changed, there is one",
        );
    }
    assert!(status_of(&herd, "Riley", OLD.as_bytes()).is_err());
    let status = status_of(&herd, "Riley", NEW.as_bytes()).unwrap();
    assert!(status.contains(" secret=1/1 ") && status.contains(":Jaquez"));
    for server in [riley, jaquez] {
        let log = server.log_lines();
        assert!(!log.iter().any(|line| line.contains("lost:")), "{log:#?}");
    }
}

#[test]
fn skipped_steps_and_partial_secret_files_are_logged() {
    let herd = herd_with(&text(0));
    let jaquez = herd.start("Jaquez");
    let read = "the herd secret was read anew: changed, ";
    let warned =
        "[WARN ] this server and neighbours that have the herd secret of before do not link anew";
    for (n, step) in [1, 2, 3, 2, 1].into_iter().enumerate() {
        write(&herd, &text(step));
        reload(&jaquez, n + 1, read);
    }
    write(&herd, &text(3));
    reload(&jaquez, 1, warned);
    write(&herd, &NEW[..20]);
    reload(&jaquez, 2, warned);
    let log = jaquez.stop();
    let warnings = log.iter().filter(|line| line.contains(warned));
    assert_eq!(warnings.count(), 2, "{log:#?}");
}

#[test]
fn an_invalid_secret_file_keeps_the_old_secret() {
    let herd = herd_with(&text(0));
    let jaquez = herd.start("Jaquez");
    let path = herd.directory.path().join("herd.secret");
    let stays = "[WARN ] the old herd secret stays in use: ";
    for (n, (bad, reason)) in [
        ("", "is empty"),
        (" \r\n\n", "is empty"),
        (
            "a\nb\nc\n",
            "has 3 different lines; it is one line, or two while it is being changed",
        ),
    ]
    .into_iter()
    .enumerate()
    {
        write(&herd, bad);
        let said = reload(&jaquez, n + 1, stays);
        assert!(said.contains(reason) && !said.contains("anew: a"), "{said}");
    }
    fs::remove_file(&path).unwrap();
    assert!(reload(&jaquez, 4, stays).contains("No such file"));
    // A pipe. Reading it would block the thread for ever.
    let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
    rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    assert!(reload(&jaquez, 5, stays).contains("is no regular file"));
    assert!(status_of(&herd, "Jaquez", OLD.as_bytes()).is_ok());
    // A file that is too long to compare line by line.
    fs::remove_file(&path).unwrap();
    let lines: Vec<String> = (0..300_000).map(|n| format!("{n:032}")).collect();
    write(&herd, &lines.join("\n"));
    assert!(reload(&jaquez, 6, stays).contains("has more than 65536 bytes"));
    // A short secret, or one that all users may read, is reported again.
    fs::remove_file(&path).unwrap();
    write(&herd, "short\n");
    reload(
        &jaquez,
        1,
        "the herd secret was read anew: changed, there is one",
    );
    jaquez.wait_for_log("[WARN ] the herd secret has fewer than 16 bytes", "");
    assert!(status_of(&herd, "Jaquez", b"short").is_ok());
    let warned = jaquez.stop();
    assert!(!warned.iter().any(|line| line.contains("short\n")));
}

#[test]
fn more_than_two_secrets_are_refused_at_the_start() {
    let herd = herd_with("one-of-three\ntwo-of-three\nthree-of-three\n");
    let output = herd.command("Riley").arg("--check").output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(
        said.contains("has 3 different lines; it is one line, or two while"),
        "{said}"
    );
    assert!(!said.contains("of-three"), "{said}");
    // Two secrets are allowed in the environment, too.
    let herd = two().env("HERD_SECRET", &text(1));
    let output = herd.command("Riley").arg("--check").output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(
        said.contains("secret      HERD_SECRET: two, the first is proven, both are taken"),
        "{said}"
    );
}
