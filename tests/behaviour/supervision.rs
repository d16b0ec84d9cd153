//! What the server tells a service manager such as systemd: sd_notify(3).

use std::fs;
use std::net::TcpListener;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use herd_testkit::client::{SOON, wait_until};
use herd_testkit::herd::{Herd, Server, server_program};
use rustix::process::Signal;
use rustix::time::{ClockId, clock_gettime};

use crate::outside::skipped;

/// A service manager: the receiving end of `$NOTIFY_SOCKET`.
struct Manager {
    socket: UnixDatagram,
    path: PathBuf,
}

impl Manager {
    fn new(herd: &Herd) -> Manager {
        let path = herd.directory.path().join("notify");
        Manager {
            socket: UnixDatagram::bind(&path).unwrap(),
            path,
        }
    }

    fn start(&self, command: &mut Command) -> Server {
        Server::start(command.env("NOTIFY_SOCKET", &self.path))
    }

    /// The next message, or `None` if there is none within that time.
    fn next_within(&self, time: Duration) -> Option<String> {
        let mut buffer = [0; 4_096];
        self.socket.set_read_timeout(Some(time)).unwrap();
        let length = self.socket.recv(&mut buffer).ok()?;
        Some(String::from_utf8(buffer[..length].to_vec()).unwrap())
    }

    /// The next message that does not only tell the status.
    fn next(&self) -> String {
        loop {
            let message = self.next_within(SOON).expect("no message");
            if !message.starts_with("STATUS=") {
                return message;
            }
        }
    }
}

fn monotonic_micros() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000 + now.tv_nsec as u64 / 1_000
}

/// Reloads, and returns what `RELOADING` says of the time.
fn reload(manager: &Manager, server: &Server) {
    let before = monotonic_micros();
    server.signal(Signal::HUP);
    let message = manager.next();
    let time = message.strip_prefix("RELOADING=1\nMONOTONIC_USEC=");
    let time: u64 = time.unwrap_or_else(|| panic!("{message}")).parse().unwrap();
    assert!((before..=monotonic_micros()).contains(&time), "{message}");
    assert_eq!(manager.next(), "READY=1");
}

#[test]
fn the_service_manager_is_told_of_start_reload_and_stop_in_order() {
    let mut herd = Herd::single();
    let directory = herd.directory.path().join("data");
    herd = herd.with_top(&format!("data_dir = {directory:?}\n"));
    let manager = Manager::new(&herd);
    let secret = herd.directory.path().join("herd.secret");
    fs::write(&secret, "one secret\n").unwrap();
    let mut command = herd.command("Riley");
    command
        .env_remove("HERD_SECRET")
        .arg("--secret-file")
        .arg(&secret);
    let server = manager.start(&mut command);
    let first = manager.next();
    assert_eq!(
        first,
        "EXTEND_TIMEOUT_USEC=30000000\nSTATUS=starting: the journal is read"
    );
    assert_eq!(
        manager.next(),
        "READY=1\nSTATUS=0 records, 0 clients, 0 of 0 links up"
    );
    let mut client = server.client();
    client.ask("IAMAT x +1+2 3");
    assert_eq!(
        manager.next_within(SOON).as_deref(),
        Some("STATUS=1 record, 1 client, 0 of 0 links up")
    );
    reload(&manager, &server);
    // A reload that fails ends, too.
    fs::remove_file(&secret).unwrap();
    reload(&manager, &server);
    server.wait_for_log("the old herd secret stays in use", "");
    server.stop();
    assert_eq!(manager.next(), "STOPPING=1\nSTATUS=stopping");
    assert_eq!(manager.next_within(Duration::from_millis(1)), None);
}

#[test]
fn a_reload_that_has_nothing_to_read_ends_at_once() {
    let herd = Herd::single();
    let manager = Manager::new(&herd);
    let server = manager.start(&mut herd.command("Riley"));
    assert!(manager.next().starts_with("READY=1\n"));
    reload(&manager, &server);
    server.stop();
}

#[test]
fn a_server_that_cannot_bind_its_port_is_never_ready() {
    let herd = Herd::single();
    let manager = Manager::new(&herd);
    let _taken = TcpListener::bind(herd.clients_address("Riley")).unwrap();
    let output = herd
        .command("Riley")
        .env("NOTIFY_SOCKET", &manager.path)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(manager.next_within(Duration::from_millis(1)), None);
}

#[test]
fn a_drain_is_told_and_is_no_stop_until_it_ends() {
    let herd = Herd::single().with("[limits]\ndrain_ms = 7000\n");
    let manager = Manager::new(&herd);
    let server = manager.start(&mut herd.command("Riley"));
    assert!(manager.next().starts_with("READY=1\n"));
    let mut clients = [server.client(), server.client()];
    clients[0].send("x\n").expect("? x\n");
    clients[1].send("x\n").expect("? x\n");
    server.signal(Signal::USR2);
    loop {
        let message = manager.next_within(SOON).unwrap();
        assert!(message.starts_with("STATUS="), "{message}");
        if message.starts_with("STATUS=draining: 0 records, 1 client") {
            break;
        }
    }
    drop(clients);
    assert_eq!(manager.next(), "STOPPING=1\nSTATUS=stopping");
    assert_eq!(server.wait().0.code(), Some(0));
}

#[test]
fn a_loop_that_hangs_sends_no_pings() {
    let herd = Herd::single();
    let manager = Manager::new(&herd);
    let mut command = herd.command("Riley");
    // The process does not know its id before it starts, so a shell tells it.
    let mut shell = Command::new("sh");
    shell
        .args(["-c", "export WATCHDOG_PID=$$; exec \"$@\"", "sh"])
        .arg(command.get_program())
        .args(command.get_args())
        .envs(
            command
                .get_envs()
                .filter_map(|(name, it)| Some((name, it?))),
        )
        .current_dir(herd.directory.path())
        .env("WATCHDOG_USEC", "400000");
    command = shell;
    let server = manager.start(&mut command);
    assert!(manager.next().starts_with("READY=1\n"));
    let began = Instant::now();
    for _ in 0..6 {
        assert_eq!(manager.next(), "WATCHDOG=1");
    }
    // The first comes at once, five more at intervals of 200 ms.
    assert!(
        began.elapsed() >= Duration::from_millis(800),
        "{:?}",
        began.elapsed()
    );
    server.signal(Signal::STOP);
    wait_until("it is stopped", || {
        let status = fs::read_to_string(format!("/proc/{}/status", server.pid())).unwrap();
        status.contains("State:\tT")
    });
    while manager.next_within(Duration::from_millis(1)).is_some() {}
    assert_eq!(manager.next_within(Duration::from_millis(1_000)), None);
    server.signal(Signal::CONT);
    assert_eq!(manager.next(), "WATCHDOG=1");
    server.stop();
}

#[test]
fn a_watchdog_of_another_process_gets_no_pings() {
    let herd = Herd::single();
    let manager = Manager::new(&herd);
    let mut command = herd.command("Riley");
    command
        .env("WATCHDOG_USEC", "1000")
        .env("WATCHDOG_PID", "1");
    let server = manager.start(&mut command);
    assert!(manager.next().starts_with("READY=1\n"));
    server.client().send("x\n").expect("? x\n");
    server.stop();
    assert_eq!(manager.next(), "STOPPING=1\nSTATUS=stopping");
}

/// The queue of a datagram socket is short: /proc/sys/net/unix/max_dgram_qlen.
#[test]
fn a_full_socket_blocks_nothing_and_gets_everything_later() {
    let herd = Herd::single();
    let manager = Manager::new(&herd);
    let filler = UnixDatagram::unbound().unwrap();
    filler.set_nonblocking(true).unwrap();
    while filler.send_to(b"FULL=1", &manager.path).is_ok() {}
    let server = manager.start(&mut herd.command("Riley"));
    server.client().send("x\n").expect("? x\n");
    server.signal(Signal::HUP);
    server.wait_for_log("SIGHUP", "");
    server.client().send("x\n").expect("? x\n");
    let mut message = manager.next();
    while message == "FULL=1" {
        message = manager.next();
    }
    assert!(message.starts_with("READY=1\nSTATUS="), "{message}");
    assert!(manager.next().starts_with("RELOADING=1\n"));
    assert_eq!(manager.next(), "READY=1");
    server.stop();
}

#[test]
fn a_stop_does_not_wait_for_a_full_socket() {
    let herd = Herd::single();
    let manager = Manager::new(&herd);
    let filler = UnixDatagram::unbound().unwrap();
    filler.set_nonblocking(true).unwrap();
    while filler.send_to(b"FULL=1", &manager.path).is_ok() {}
    let server = manager.start(&mut herd.command("Riley"));
    let begun = Instant::now();
    server.stop();
    assert!(begun.elapsed() < Duration::from_secs(5));
}

#[test]
fn a_socket_that_is_gone_is_logged_once_and_stops_nothing() {
    let herd = Herd::single();
    for path in ["gone", "relative", "@", "vsock:2:1"] {
        let told = match path {
            "gone" => herd.directory.path().join(path),
            _ => PathBuf::from(path),
        };
        let mut command = herd.command("Riley");
        let server = Server::start(
            command
                .env("NOTIFY_SOCKET", &told)
                .env("WATCHDOG_USEC", "9000"),
        );
        server.client().send("x\n").expect("? x\n");
        let log = server.stop();
        let about = log.iter().filter(|line| line.contains("NOTIFY_SOCKET"));
        let about: Vec<_> = about.collect();
        assert!(
            about.len() == 1 && about[0].contains("[WARN ] "),
            "{path}: {about:?}"
        );
    }
}

#[test]
fn an_abstract_socket_is_used() {
    let herd = Herd::single();
    let name = format!("herd-mio-test-{}", herd.clients_address("Riley"));
    let address = SocketAddr::from_abstract_name(&name).unwrap();
    let manager = Manager {
        socket: UnixDatagram::bind_addr(&address).unwrap(),
        path: PathBuf::from(format!("@{name}")),
    };
    let server = manager.start(&mut herd.command("Riley"));
    assert!(manager.next().starts_with("READY=1\n"));
    server.stop();
    assert_eq!(manager.next(), "STOPPING=1\nSTATUS=stopping");
}

/// The unit file and its drop-in, with the server's program of this build, in a directory.
fn units(herd: &Herd) -> PathBuf {
    let package = Path::new(env!("CARGO_MANIFEST_DIR")).join("tools/package/systemd");
    let directory = herd.directory.path().join("units");
    let drop_ins = directory.join("herd-mio@.service.d");
    fs::create_dir_all(&drop_ins).unwrap();
    let unit = fs::read_to_string(package.join("herd-mio@.service")).unwrap();
    let program = server_program().to_str().unwrap();
    fs::write(
        directory.join("herd-mio@.service"),
        unit.replace("/usr/bin/herd-mio", program),
    )
    .unwrap();
    let drop_in = "credentials.conf";
    fs::copy(package.join(drop_in), drop_ins.join(drop_in)).unwrap();
    directory
}

/// `systemd-analyze` with these arguments: whether it succeeds, and what it prints.
fn analyze(arguments: &[&str], directory: &Path) -> Option<(bool, String)> {
    let mut command = Command::new("systemd-analyze");
    let output = command.args(arguments).current_dir(directory).output();
    let Ok(output) = output else {
        skipped("the unit file", "this machine has no systemd-analyze");
        return None;
    };
    let text = [output.stdout, output.stderr].concat();
    Some((
        output.status.success(),
        String::from_utf8_lossy(&text).into_owned(),
    ))
}

#[test]
fn the_unit_file_is_valid_and_leaves_the_server_little() {
    let herd = Herd::single();
    let directory = units(&herd);
    let unit = "./herd-mio@Riley.service";
    let Some((is_valid, told)) = analyze(&["verify", "--man=no", unit], &directory) else {
        return;
    };
    // systemd before 253 does not know this type, and uses the line before.
    let told = told.lines().filter(|line| {
        !line.contains("Failed to parse service type, ignoring: notify-reload") && !line.is_empty()
    });
    let told: Vec<_> = told.collect();
    assert!(is_valid && told.is_empty(), "{told:?}");
    // A tenth of it: at most 2.0 of 10.
    let security = [
        "security",
        "--offline=true",
        "--threshold=20",
        "./herd-mio@.service",
    ];
    let (is_low, told) = analyze(&security, &directory).unwrap();
    assert!(is_low, "{told}");
}

/// What the unit file starts, and what its drop-in sets, is understood.
#[test]
fn the_command_lines_of_the_unit_file_work() {
    let herd = Herd::single();
    let unit = fs::read_to_string(units(&herd).join("herd-mio@.service")).unwrap();
    let config = herd.config_file();
    let command_line = |key: &str| {
        let line = unit.lines().find_map(|line| line.strip_prefix(key));
        let line = line.unwrap().replace("%i", "Riley");
        line.replace("/etc/herd-mio/herd.toml", config.to_str().unwrap())
    };
    // As the files in the directory that systemd makes for %d.
    let secret = herd.directory.path().join("herd.secret");
    fs::write(&secret, "one-secret\n").unwrap();
    let start = |line: &str| {
        let mut words = line.split(' ');
        let mut command = Command::new(words.next().unwrap());
        command
            .args(words)
            .current_dir(herd.directory.path())
            .env("HERD_LOG_FILE", "-")
            .env("HERD_SECRET_FILE", &secret)
            .env("HERD_PLACES_KEY_FILE", &secret);
        command
    };
    let check = start(&command_line("ExecStartPre=")).output().unwrap();
    let told = [check.stdout, check.stderr].concat();
    let told = String::from_utf8_lossy(&told);
    assert_eq!(check.status.code(), Some(0), "{told}");
    let manager = Manager::new(&herd);
    let server = manager.start(&mut start(&command_line("ExecStart=")));
    assert!(manager.next().starts_with("READY=1\n"));
    server.stop();
}
