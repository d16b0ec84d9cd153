//! Rare faults of a machine. The server's process stands still for seconds, or the reader of its
//! log ends. Or the server is process 1 of a container.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::process::Stdio;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use herd_places::Behaviour;
use herd_testkit::client::{Client, SOON, wait_until};
use herd_testkit::herd::{Herd, Server};
use rustix::process::Signal;

use crate::command_line::Ended;
use crate::outside::{self, wrapped};
use crate::places::stand_in;

#[test]
fn a_suspended_server_closes_no_client_for_lateness() {
    // More clients than one poll returns events.
    const CROWD: usize = 1500;
    let places = stand_in();
    places.set_behaviour(Behaviour::Hold);
    let server = Herd::single()
        .asking(&places)
        .with("[limits]\nline_ms = 1500\nplaces_ms = 1500\n")
        .level("warn")
        .start("Riley");
    server.client().ask("IAMAT x +1+2 3");
    let mut crowd: Vec<Client> = (0..CROWD).map(|_| server.client()).collect();
    let mut asking: Vec<Client> = (1..=3).map(|_| server.client()).collect();
    for client in &mut crowd {
        client.send("half ");
    }
    for (radius, client) in (1..).zip(&mut asking) {
        client.send(format!("WHATSAT x {radius} 5\n"));
    }
    assert!(places.wait_for_requests(3, SOON));
    // By this answer, the server has read the input of all earlier clients.
    server.client().ask("all");
    server.signal(Signal::STOP);
    let stopped = Instant::now();
    for client in &mut crowd {
        client.send("a line\n");
    }
    places.release();
    while stopped.elapsed() < Duration::from_secs(2) {
        std::thread::park_timeout(Duration::from_secs(2).saturating_sub(stopped.elapsed()));
    }
    server.signal(Signal::CONT);
    for client in &mut crowd {
        client.expect("? half a line\n");
        client.send("and on\n").expect("? and on\n");
    }
    for client in &mut asking {
        let json = client.places().1;
        assert!(json.contains("\"status\" : \"OK\""), "{json}");
    }
    let log = server.stop();
    let blamed: Vec<_> = log.iter().filter(|line| line.contains("closing")).collect();
    assert!(blamed.is_empty(), "{blamed:#?}");
}

#[test]
fn input_during_a_delayed_poll_meets_its_deadline() {
    let what = "a server that is not run between its poll and its deadlines";
    if !outside::can_trace(what) {
        return;
    }
    let herd = Herd::single()
        .with("[limits]\nline_ms = 500\n")
        .level("warn");
    // strace delays the return of each `epoll_wait` by one second.
    let inject = "inject=epoll_wait:delay_exit=1000000";
    let trace = outside::Trace::new(&herd, &["-e", "trace=epoll_wait", "-e", inject]);
    let server = Server::start(&mut trace.command(&herd.command("Riley")));
    let (mut slow, mut other) = (server.client(), server.client());
    slow.ask("begin");
    other.ask("begin");
    let polls = || trace.text().matches("(DELAYED)").count();
    // The server waits in a poll: both clients have their answers, and nothing else is ready.
    let before = polls();
    slow.send("half ");
    wait_until("a poll tells of it", || polls() > before);
    // The server reads this half line one second later, which starts the line's 500 ms. The next
    // poll ends because of the other client. The server learns of it another second later.
    other.send("x\n");
    wait_until("a poll tells of another", || polls() > before + 1);
    // The line is finished before that.
    slow.send("a line\n").expect("? half a line\n");
    other.expect("? x\n");
    slow.ask("and on");
    drop((slow, other));
    server.stop();
}

#[test]
fn a_server_survives_a_closed_stdout_and_stderr_pipe() {
    let herd = Herd::single().with("[limits]\nlinger_ms = 50\n");
    let mut command = herd.command("Riley");
    command.stdin(Stdio::null());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let Ended(child) = &mut Ended(command.spawn().unwrap());
    let mut ready = String::new();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    output.read_line(&mut ready).unwrap();
    let (_, rest) = ready.split_once("clients on ").unwrap();
    let address = rest.split(',').next().unwrap().parse().unwrap();
    let mut client = Client::connect(address);
    client.send("x\n").expect("? x\n");
    // Both pipes of the server are closed, so it cannot write its log anywhere.
    drop((output, child.stderr.take()));
    for _ in 0..200 {
        client.send("x\n").expect("? x\n");
        Client::connect(address).send("x\n").expect("? x\n");
    }
    rustix::process::kill_process(rustix::process::Pid::from_child(child), Signal::TERM).unwrap();
    client.expect_end();
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn a_log_fifo_without_a_reader_blocks_no_client() {
    let herd = Herd::single().with("[limits]\nlog_buffer_bytes = 20000\nlog_faults_bytes = 1000000000\nlog_client_faults_bytes = 1000000000\n");
    let pipe = herd.directory.path().join("pipe");
    let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    // If opening the pipe blocks, this thread opens the other end. Then the test fails instead of
    // hanging.
    let begun = Instant::now();
    let (tell, is_started) = channel::<()>();
    let late = pipe.clone();
    std::thread::spawn(move || {
        if is_started.recv_timeout(SOON) == Err(RecvTimeoutError::Timeout) {
            drop(fs::File::options().read(true).write(true).open(late));
        }
    });
    let server = Server::start(herd.command("Riley").args(["--log-file", "pipe"]));
    drop(tell);
    assert!(begun.elapsed() < SOON, "it waited for a reader");
    let mut client = server.client();
    for _ in 0..3000 {
        client.send(format!("{}\n", "x".repeat(100))).line();
    }
    // Now a reader opens the pipe. It gets the kept lines, and a line that counts the dropped ones.
    let reader = BufReader::new(fs::File::open(&pipe).unwrap());
    let (told, lines) = channel();
    std::thread::spawn(move || {
        for line in reader.lines().map_while(Result::ok) {
            if told.send(line).is_err() {
                return;
            }
        }
    });
    let mut lost = 0;
    wait_until("the lost lines are counted", || {
        client.send("again\n").line();
        for line in lines.try_iter() {
            if let Some((_, rest)) = line.split_once("[WARN ] log: ") {
                lost += rest.split(' ').next().unwrap().parse::<u64>().unwrap();
            }
        }
        lost > 1000
    });
    server.stop();
}

#[test]
fn process_1_obeys_signals_and_has_no_children() {
    let what = "a server that is process 1";
    if !outside::is_root(what) || !outside::has_program("unshare", what) {
        return;
    }
    if let Err(why) = outside::run_to_end("unshare --pid --kill-child --mount-proc true") {
        return outside::skipped(what, &why);
    }
    for signal in [Signal::TERM, Signal::INT] {
        let herd = Herd::single().with("[limits]\nlinger_ms = 50\n");
        let contained = &mut wrapped(
            // `--kill-child` ends the server if the test fails.
            &["unshare", "--pid", "--kill-child", "--mount-proc"],
            &[],
            &herd.command("Riley"),
        );
        let server = Server::start(contained);
        let children = |process: &str| {
            let path = format!("/proc/{process}/task/{process}/children");
            fs::read_to_string(path).unwrap()
        };
        // `unshare` has one child, the server.
        let inner = children(&server.pid().to_string()).trim().to_owned();
        let status = fs::read_to_string(format!("/proc/{inner}/status")).unwrap();
        let numbers = status.lines().find(|line| line.starts_with("NSpid:"));
        assert!(numbers.unwrap().ends_with("\t1"), "{numbers:?}");
        let mut client = server.client();
        client.send("x\n").expect("? x\n");
        assert_eq!(children(&inner), "");
        let pid = rustix::process::Pid::from_raw(inner.parse().unwrap()).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
        client.expect_end();
        let (status, log) = server.wait();
        assert_eq!(status.code(), Some(0), "{}", log.join("\n"));
        assert!(log.last().unwrap().ends_with("stopped"), "{log:?}");
    }
}
