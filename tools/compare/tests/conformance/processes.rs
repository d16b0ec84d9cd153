//! The server as a process: its log, its end, and its report of a mistake on the command line.

use std::fs;
use std::process::{Command, Stdio};
use std::thread;

use herd_compare::workshop::Program;
use herd_testkit::client::wait_until;

use crate::scene::{KEY, SECRET, Scene};

/// All tests of the process.
pub(crate) fn transcript(program: &Program) {
    logs_everything(program);
    mistakes(program);
}

fn logs_everything(program: &Program) {
    let mut scene = Scene::new(program);
    let mut client = scene.client();
    client.ask("IAMAT kiwi +34.068930-118.445127 1621464827.959498503");
    let at = client.ask("IAMAT mango +27.5916+086.5640 1621464827.959498503");
    client.send("WHATSAT kiwi 10 5\n").places();
    client.refused(b"\x1b[31mred\xff\t");
    wait_until("it is all in the log", || {
        let log = scene.server().log();
        log.contains("IAMAT mango")
            && log.contains(&at)
            && log.contains("WHATSAT kiwi 10 5")
            && log.contains("[31mred")
    });
    // A client is still connected and idle. It does not delay the server's end, and its connection
    // ends without a reset.
    let log_file = scene.server().plan().log_file();
    let client = thread::spawn(move || client.expect_end());
    scene.server.take().unwrap().stop().unwrap();
    client.join().unwrap();
    let log = fs::read(&log_file).unwrap();
    let raw = log.iter().find(|byte| !matches!(byte, b' '..=b'~' | b'\n'));
    assert!(
        raw.is_none(),
        "bytes from outside are escaped in the log: {}",
        log.escape_ascii()
    );
    let text = String::from_utf8(log).unwrap();
    assert!(!text.contains(KEY) && !text.contains(SECRET), "{text}");
    for line in text.lines() {
        assert!(
            line.contains(':') && line.len() > 12,
            "a line without a time: {line:?}"
        );
    }
}

/// A mistake ends with exit status 2 and a message on the standard error.
fn mistakes(program: &Program) {
    let directory = tempfile::tempdir().unwrap();
    let run = |arguments: &[&str]| {
        let output = Command::new(&program.executable)
            .args(&program.arguments)
            .args(arguments)
            .envs(program.environment.iter().cloned())
            .env_remove("HERD_SECRET")
            .current_dir(directory.path())
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {errors}");
        assert!(
            !errors.trim().is_empty(),
            "{arguments:?}: nothing on the standard error"
        );
        assert!(
            output.stdout.is_empty(),
            "{arguments:?}: {}",
            output.stdout.escape_ascii()
        );
    };
    let addresses = ["--listen", "127.0.0.1:0", "--listen-peers", "127.0.0.1:0"];
    let said = |more: &[&'static str]| {
        [&["Riley"], &addresses[..], &["--log-file", "x.log"], more].concat()
    };
    let mistakes = [
        vec![],
        said(&["--no-such-option"]),
        vec![
            "Riley",
            "--listen",
            "nonsense",
            "--listen-peers",
            "127.0.0.1:0",
            "--log-file",
            "x.log",
        ],
    ];
    // They run in parallel, because some need a second.
    thread::scope(|scope| {
        for mistake in &mistakes {
            scope.spawn(|| run(mistake));
        }
    });
}
