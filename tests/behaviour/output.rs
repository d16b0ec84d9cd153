//! The standard output: a write error is a failure, but a reader that closes early is not.

use std::fs::File;
use std::process::{Command, Stdio};

use herd_testkit::herd::{Herd, Server, server_command};

fn check() -> Command {
    let mut command = server_command();
    command.args(["Riley", "--check", "--log-file", "-"]);
    command.args(["--listen", "127.0.0.1:0", "--listen-peers", "127.0.0.1:0"]);
    command
}

fn flag(flag: &str) -> Command {
    let mut command = server_command();
    command.arg(flag);
    command
}

#[test]
fn a_full_stdout_exits_with_status_1() {
    for mut command in [flag("--help"), flag("--version"), check()] {
        let full = File::options().write(true).open("/dev/full").unwrap();
        let output = command.stdout(full).output().unwrap();
        let told = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{command:?}: {told}");
        assert!(
            told.contains("herd-mio: cannot write to the standard output: No space left on device"),
            "{told}"
        );
        assert_eq!(told.lines().count(), 1, "{told}");
    }
}

#[test]
fn a_closed_stdout_pipe_exits_with_status_0() {
    for mut command in [flag("--help"), flag("--version"), check()] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = command
            .stdout(writer)
            .stderr(Stdio::piped())
            .output()
            .unwrap();
        let told = String::from_utf8(output.stderr).unwrap();
        assert_eq!(
            (output.status.code(), told.as_str()),
            (Some(0), ""),
            "{command:?}"
        );
    }
}

#[test]
fn a_server_serves_when_its_ready_line_cannot_be_written() {
    let herd = Herd::single();
    let log = herd.directory.path().join("own.log");
    let mut command = herd.command("Riley");
    command
        .args(["--log-file", "own.log"])
        .stdin(Stdio::null())
        .stdout(File::options().write(true).open("/dev/full").unwrap());
    let _ended_with_the_test = crate::command_line::Ended(command.spawn().unwrap());
    let logged = |text: &str| std::fs::read_to_string(&log).is_ok_and(|log| log.contains(text));
    herd_testkit::client::wait_until("it says so", || {
        logged("cannot say on the standard output that the server is ready: No space left")
    });
    // The log goes to the standard error, and the ready line says so.
    let server = Server::start(&mut Herd::single().command("Riley"));
    server.stop();
}
