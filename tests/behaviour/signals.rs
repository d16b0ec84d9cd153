//! What each signal does, even if the program that started the server blocked or ignored it.

use std::process::Command;
use std::thread;

use nix::sys::signal::SigSet;
use rustix::process::Signal;

use herd_testkit::herd::{Herd, Server};

/// Starts a server from a thread that has blocked all signals. A child inherits the signal mask.
fn start_with_all_blocked(command: &mut Command) -> Server {
    thread::scope(|scope| {
        let starter = scope.spawn(|| {
            SigSet::all().thread_block().unwrap();
            Server::start(command)
        });
        starter.join().unwrap()
    })
}

/// Starts a server with these signals ignored, as `nohup` and `trap '' …` do.
fn start_with_ignored(herd: &Herd, signals: &str) -> Server {
    let server = herd.command("Riley");
    let mut command = Command::new("sh");
    command
        .args(["-c", &format!("trap '' {signals}; exec \"$@\""), "sh"])
        .arg(server.get_program())
        .args(server.get_args())
        .current_dir(herd.directory.path());
    for (name, value) in server.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    Server::start(&mut command)
}

#[test]
fn signals_blocked_by_the_parent_are_handled() {
    let herd = Herd::single();
    for stop in [Signal::TERM, Signal::INT] {
        let server = start_with_all_blocked(&mut herd.command("Riley"));
        server.signal(Signal::HUP);
        server.wait_for_log("SIGHUP", "");
        server.signal(Signal::USR1);
        server.wait_for_log("SIGUSR1", "");
        server.signal(stop);
        assert_eq!(server.wait().0.code(), Some(0), "{stop:?}");
    }
    let server = start_with_all_blocked(&mut herd.command("Riley"));
    server.signal(Signal::USR2);
    server.wait_for_log("SIGUSR2: the server drains", "");
    assert_eq!(server.wait().0.code(), Some(0));
}

#[test]
fn signals_ignored_by_the_parent_are_handled() {
    let herd = Herd::single();
    for stop in [Signal::TERM, Signal::INT] {
        let server = start_with_ignored(&herd, "HUP INT TERM USR1 USR2 XFSZ");
        server.signal(Signal::HUP);
        server.wait_for_log("SIGHUP", "");
        server.signal(stop);
        assert_eq!(server.wait().0.code(), Some(0), "{stop:?}");
    }
}

#[test]
fn signals_other_than_stop_are_logged_and_do_not_stop() {
    let server = Herd::single().start("Riley");
    let mut client = server.client();
    for (signal, told) in [
        (
            Signal::HUP,
            "SIGHUP: the log is opened anew, there are no certificates to read anew; \
             a changed config file, secret or Places key takes a restart",
        ),
        (Signal::USR1, "SIGUSR1: the log is opened anew"),
    ] {
        server.signal(signal);
        server.wait_for_log(told, "");
        client.send("x\n").expect("? x\n");
    }
    server.stop();
}

/// The same during the start. Only a stop interrupts a start that reads a long journal.
#[test]
fn signals_other_than_stop_do_not_stop_the_start() {
    let herd = Herd::single();
    for signal in [Signal::HUP, Signal::USR1] {
        let mut command = herd.command("Riley");
        let pipe = herd.directory.path().join(format!("key-{signal:?}"));
        let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        command.arg("--places-key-file").arg(&pipe);
        let starting = thread::spawn(move || Server::start(&mut command));
        // Opening a pipe for writing blocks until it has a reader. So the server is reading its key
        // file now.
        let mut key = std::fs::File::options().write(true).open(&pipe).unwrap();
        signal_all_named(&pipe, signal);
        std::io::Write::write_all(&mut key, b"test-key").unwrap();
        drop(key);
        let server = starting.join().unwrap();
        server.client().send("x\n").expect("? x\n");
        server.stop();
    }
}

/// Sends a signal to all processes that have `path` as an argument.
fn signal_all_named(path: &std::path::Path, signal: Signal) {
    let path = path.as_os_str().as_encoded_bytes();
    for entry in std::fs::read_dir("/proc").unwrap().map_while(Result::ok) {
        let Some(process) = entry.file_name().to_str().and_then(|it| it.parse().ok()) else {
            continue;
        };
        let arguments = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        if arguments.split(|byte| *byte == 0).any(|it| it == path) {
            let process = rustix::process::Pid::from_raw(process).unwrap();
            rustix::process::kill_process(process, signal).unwrap();
        }
    }
}
