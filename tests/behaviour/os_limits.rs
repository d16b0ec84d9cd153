//! Low limits of the operating system (rlimits). A server that cannot start says why in one line. A
//! running server goes on with what it has.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, Stdio};

use herd_testkit::client::wait_until;
use herd_testkit::herd::{Herd, Server};
use rustix::process::{Pid, Resource, Rlimit, Signal, kill_process, prlimit};

use crate::command_line::Ended;
use crate::outside::{self, wrapped};
use crate::places::stand_in;

/// The same command, started by a shell that lowers its limits first.
fn limited(limits: &str, command: &Command) -> Command {
    let script = format!("{limits} && exec \"$@\"");
    wrapped(&["sh", "-c", &script, "sh"], &[], command)
}

/// Sets a limit of a running server. `None` removes the limit.
fn allow(server: &Server, what: Resource, amount: Option<u64>) {
    let limit = Rlimit {
        current: amount,
        maximum: None,
    };
    prlimit(
        Some(Pid::from_raw(server.pid() as i32).unwrap()),
        what,
        limit,
    )
    .unwrap();
}

/// Starts a server that may fail. `Err` holds its status and its standard error. A server that did
/// start is stopped again.
fn try_start(command: &mut Command) -> Result<(), (Option<i32>, String)> {
    command.stdin(Stdio::null());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let Ended(child) = &mut Ended(command.spawn().unwrap());
    let mut ready = String::new();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    output.read_line(&mut ready).unwrap();
    let has_started = ready.contains("clients on ");
    if has_started {
        kill_process(Pid::from_child(child), Signal::TERM).unwrap();
    }
    let mut said = String::new();
    let mut errors = child.stderr.take().unwrap();
    errors.read_to_string(&mut said).unwrap();
    let status = child.wait().unwrap();
    if has_started {
        assert_eq!(status.code(), Some(0), "{said}");
        return Ok(());
    }
    Err((status.code(), said))
}

#[test]
fn too_few_descriptors_fail_the_start_with_one_line() {
    let herd = Herd::single();
    let mut refusals = 0;
    for descriptors in 5.. {
        assert!(descriptors < 40, "it never starts");
        let command = herd.command("Riley");
        let Err((status, said)) =
            try_start(&mut limited(&format!("ulimit -n {descriptors}"), &command))
        else {
            break;
        };
        assert_eq!(status, Some(1), "{descriptors}: {said}");
        let told: Vec<_> = said
            .lines()
            .filter(|line| line.starts_with("herd-mio: "))
            .collect();
        assert!(
            told.len() == 1
                && told[0].ends_with(
                    "Too many open files (os error 24); raise the limit of open files (ulimit -n)"
                ),
            "{descriptors}: {said}"
        );
        refusals += 1;
    }
    assert!(refusals >= 3, "{refusals}");
}

#[test]
fn a_descriptor_limit_below_max_clients_is_logged() {
    for (max_clients, is_told) in [(837, false), (838, true)] {
        // The server reserves descriptors for one neighbour, 128 unproven peers, 2 connections to
        // Places, and 32 for itself. So 837 are left.
        let herd = Herd::new(&["Riley", "Jaquez"], &[("Riley", "Jaquez")]).with(&format!(
            "[limits]\nmax_clients = {max_clients}\nmax_places_connections = 2\n"
        ));
        let server = Server::start(&mut limited("ulimit -n 1000", &herd.command("Riley")));
        server.wait_for_log("clients on ", "");
        server.client().ask("what is noted is logged by now");
        let told = server.log_lines();
        let mut told = told
            .iter()
            .filter(|line| line.contains("files may be open"));
        assert_eq!(told.next().is_some(), is_told);
    }
}

#[test]
fn lines_lost_to_a_file_size_limit_are_counted() {
    let herd = Herd::single().with("[limits]\nlog_client_faults_bytes = 1000000\n");
    let server = Server::start(herd.command("Riley").args(["--log-file", "own.log"]));
    let mut client = server.client();
    let path = herd.directory.path().join("own.log");
    let log = || fs::read_to_string(&path).unwrap();
    client.ask("before");
    wait_until("it is logged", || log().contains("-> ? before"));
    // The kernel also sends SIGXFSZ, which by default ends the process.
    allow(&server, Resource::Fsize, Some(log().len() as u64 + 1000));
    for number in 0..500 {
        client.ask(&format!("lost {number}"));
    }
    server.wait_for_log("cannot write the log own.log: File too large", "");
    allow(&server, Resource::Fsize, None);
    wait_until("the lost lines are counted", || {
        client.ask("after");
        log().contains("lines were dropped, the disk did not keep up")
    });
    let text = log();
    let lost: u64 = text
        .lines()
        .filter_map(|line| {
            line.split_once("[WARN ] log: ")?
                .1
                .split(' ')
                .next()?
                .parse::<u64>()
                .ok()
        })
        .sum();
    // Each command logs two lines. A failed write may have written some of them.
    let kept = text.matches("lost ").count() as u64;
    assert!(
        lost >= 100 && lost + kept >= 990,
        "{lost} lost, {kept} kept"
    );
    drop(client);
    server.stop();
}

#[test]
fn a_file_size_limit_of_0_refuses_only_updates() {
    let herd = Herd::single().with_top("data_dir = \"data\"\n");
    let mut command = herd.command("Riley");
    command.args(["--log-file", "own.log"]);
    let server = Server::start(&mut limited("ulimit -f 0", &command));
    let mut client = server.client();
    assert_eq!(client.ask("hello"), "? hello");
    // The server does not accept an update that it cannot store.
    assert_eq!(client.ask("IAMAT x +1+2 3"), "? IAMAT x +1+2 3");
    server.wait_for_log("cannot write the log own.log: File too large", "");
    drop(client);
    server.stop();
}

#[test]
fn too_few_threads_fail_the_start_or_the_name_lookup() {
    let what = "a server that may have no threads";
    if !outside::is_root(what)
        || !outside::has_program("prlimit", what)
        || !outside::has_program("setpriv", what)
    {
        return;
    }
    // The limit does not apply to root, so the server runs as a user with no other processes.
    let user = (60_000 + std::process::id() % 5000).to_string();
    let herd = |top: &str| {
        let herd = Herd::single().with_top(top).env("HERD_PLACES_KEY", "key");
        let all = fs::Permissions::from_mode(0o777);
        fs::set_permissions(herd.directory.path(), all).unwrap();
        herd
    };
    let probe = herd("");
    let program = probe.command("Riley");
    let (program, directory) = (
        program.get_program().display(),
        probe.directory.path().display(),
    );
    if let Err(why) = outside::run_to_end(&format!(
        "setpriv --reuid {user} --clear-groups test -x {program} -a -w {directory}"
    )) {
        return outside::skipped(what, &format!("another user cannot run the server: {why}"));
    }
    let with_threads = |count: u32, command: &Command| {
        let processes = format!("--nproc={}", count + 1); // the main thread counts, too
        let before = [
            "prlimit",
            &processes,
            "setpriv",
            "--reuid",
            &user,
            "--clear-groups",
        ];
        wrapped(&before, &[], command)
    };
    let (status, said) = try_start(&mut with_threads(0, &probe.command("Riley"))).unwrap_err();
    assert_eq!(status, Some(1));
    assert_eq!(
        said,
        "herd-mio: no thread to write the log -: Resource temporarily unavailable (os error 11); raise the limits of processes and of \
         memory (ulimit -u, -v)\n"
    );
    // There is a thread for the log, and none to resolve names.
    let mut command = with_threads(1, &probe.command("Riley"));
    let server = Server::start(command.args(["--places-url", "https://places.test"]));
    let mut client = server.client();
    let at = client.ask("IAMAT x +1+2 3");
    let (line, json) = client.send("WHATSAT x 10 5\n").places();
    assert_eq!(line, at);
    assert!(json.contains("no thread to look it up"), "{json}");
    drop(client);
    server.stop();
    // A journal needs two threads.
    let keeping = herd("data_dir = \"data\"\n");
    let (status, said) = try_start(&mut with_threads(2, &keeping.command("Riley"))).unwrap_err();
    assert_eq!(status, Some(1));
    let told = "herd-mio: no thread to write the journal: Resource temporarily unavailable (os error 11); raise the limits of processes";
    assert!(said.contains(told), "{said}");
}

#[test]
fn a_server_runs_with_a_small_stack_and_no_locked_memory() {
    let places = stand_in();
    let herd = Herd::single()
        .asking(&places)
        .with_top("data_dir = \"data\"\n");
    let limits = "ulimit -s 1024 && ulimit -c 0 && ulimit -l 0";
    let server = Server::start(&mut limited(limits, &herd.command("Riley")));
    let mut client = server.client();
    assert!(client.ask("IAMAT x +1+2 3").starts_with("AT Riley "));
    let json = client.send("WHATSAT x 10 20\n").places().1;
    assert!(json.contains("\"status\" : \"OK\""), "{json}");
    drop(client);
    server.stop();
}

#[test]
fn running_out_of_memory_loses_no_answered_update() {
    let herd = Herd::single()
        .with_top("data_dir = \"data\"\n")
        .level("warn");
    let server = herd.start("Riley");
    let mut client = server.client();
    assert!(client.ask("IAMAT x0 +1+2 3").starts_with("AT "));
    let room_kib = 8 * 1024;
    allow(
        &server,
        Resource::As,
        Some((server.status("VmSize") + room_kib) * 1024),
    );
    // The server goes on until the table needs more memory than that.
    let filler = "f".repeat(3000);
    let mut answers = Vec::new();
    while let Some(at) = client.try_ask(&format!("IAMAT x{}{filler} +1+2 3\n", answers.len())) {
        assert!(at.starts_with("AT Riley "), "{at}");
        answers.push(at);
        assert!(answers.len() < 50_000, "it needs no memory");
    }
    assert!(answers.len() > 500, "{} answers", answers.len());
    let (status, log) = server.wait();
    assert_eq!(status.signal(), Some(Signal::ABORT.as_raw()), "{log:?}");
    assert!(
        log.iter().any(|line| line.contains("memory allocation of")),
        "{log:?}"
    );
    let server = herd.start("Riley");
    let mut client = server.client();
    for (number, at) in answers.iter().enumerate() {
        assert_eq!(
            &client.wait_for_record(&format!("x{number}{filler}"), |_| true),
            at
        );
    }
}
