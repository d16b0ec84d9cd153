//! Where a server listens: on every address of a name.

use std::fs;
use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, ToSocketAddrs};
use std::process::Command;

use herd_testkit::client::Client;
use herd_testkit::herd::{Herd, Server};

/// The addresses for clients in the ready line.
fn clients_on(server: &Server) -> Vec<SocketAddr> {
    let line = server.wait_for_log("clients on ", "");
    let (_, rest) = line.split_once("clients on ").unwrap();
    let addresses = rest.split(", ").map_while(|it| it.parse().ok());
    addresses.collect()
}

/// The command of a server in a mount namespace with its own `/etc/hosts`, where `many.test` has
/// these addresses. Returns `None`, with a message, where that is not possible.
pub(crate) fn with_hosts(herd: &Herd, addresses: &[&str], arguments: &[&str]) -> Option<Command> {
    let file = herd.directory.path().join("hosts");
    let lines = addresses
        .iter()
        .map(|address| format!("{address} many.test\n"));
    fs::write(&file, lines.collect::<String>()).unwrap();
    let script = "mount --bind \"$0\" /etc/hosts && exec \"$@\"";
    let in_namespace = || {
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", script]).arg(&file);
        command
    };
    let asked = in_namespace()
        .args(["getent", "ahosts", "many.test"])
        .output();
    let found = asked.map_or(String::new(), |it| {
        String::from_utf8_lossy(&it.stdout).into_owned()
    });
    if !addresses.iter().all(|address| found.contains(address)) {
        let _ = writeln!(
            std::io::stderr(),
            "skipped: a name with several addresses (it takes root, unshare, mount and getent)"
        );
        return None;
    }
    let server = herd.command("Riley");
    let mut command = in_namespace();
    command
        .arg(server.get_program())
        .args(server.get_args())
        .args(arguments)
        .current_dir(herd.directory.path());
    for (name, value) in server.get_envs() {
        if let Some(value) = value {
            command.env(name, value);
        }
    }
    Some(command)
}

#[test]
fn an_unavailable_address_of_a_name_is_skipped_and_logged() {
    let herd = Herd::single();
    // One address is listed twice, as in many hosts files.
    let addresses = ["127.0.77.1", "127.0.77.2", "127.0.77.1", "192.0.2.77"];
    let listen = ["--listen", "many.test:0", "--listen-peers", "many.test:0"];
    let Some(mut command) = with_hosts(&herd, &addresses, &listen) else {
        return;
    };
    let server = Server::start(&mut command);
    let served = clients_on(&server);
    for ip in ["127.0.77.1", "127.0.77.2"] {
        let address = SocketAddr::new(ip.parse().unwrap(), served[0].port());
        assert!(served.contains(&address), "{address} in {served:?}");
        Client::connect(address).send("x\n").expect("? x\n");
    }
    assert_eq!(served.len(), 2);
    let told = "not listening on 192.0.2.77, which is an address of many.test:0: Cannot assign";
    server.wait_for_nth_log(2, told, "[WARN ]");
    server.stop();

    let mut check = with_hosts(&herd, &addresses, &listen).unwrap();
    let output = check.arg("--check").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert_eq!(text.matches(told).count(), 2, "{text}");
}

#[test]
fn a_listen_name_may_give_ipv4_and_ipv6_addresses() {
    if !has_ipv6() {
        return;
    }
    for addresses in [["127.0.0.1", "::1"], ["0.0.0.0", "::"]] {
        let herd = Herd::single();
        let Some(mut command) = with_hosts(&herd, &addresses, &["--listen", "many.test:0"]) else {
            return;
        };
        let server = Server::start(&mut command);
        let served = clients_on(&server);
        assert_eq!(served.len(), 2, "{served:?}");
        for ip in [
            Ipv4Addr::LOCALHOST.into(),
            IpAddr::from(Ipv6Addr::LOCALHOST),
        ] {
            let address = SocketAddr::new(ip, served[0].port());
            Client::connect(address).send("x\n").expect("? x\n");
        }
        server.stop();
    }
}

fn has_ipv6() -> bool {
    TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_ok()
}

#[test]
fn every_address_of_a_name_is_served_on_one_port() {
    let expected: Vec<_> = ("localhost", 0).to_socket_addrs().unwrap().collect();
    let herd = Herd::single();
    let mut command = herd.command("Riley");
    command.args(["--listen", "localhost:0", "--listen-peers", "localhost:0"]);
    let server = Server::start(&mut command);
    let addresses = clients_on(&server);
    for address in &expected {
        let is_there = addresses.iter().any(|it| it.ip() == address.ip());
        let is_told = server.log_lines().iter().any(|line| {
            line.contains(&format!(
                "not listening on {}, which is an address of localhost",
                address.ip()
            ))
        });
        assert!(is_there || is_told, "{address} in {addresses:?}");
    }
    for address in &addresses {
        assert_eq!(address.port(), addresses[0].port());
        Client::connect(*address).send("x\n").expect("? x\n");
    }
    server.stop();
}

#[test]
fn a_port_in_use_on_one_address_prevents_the_start() {
    let addresses: Vec<_> = ("localhost", 0).to_socket_addrs().unwrap().collect();
    let last = *addresses.last().unwrap();
    let Ok(taken) = TcpListener::bind(last) else {
        return; // this machine does not have the address
    };
    let place = format!("localhost:{}", taken.local_addr().unwrap().port());
    let herd = Herd::single();
    let output = herd
        .command("Riley")
        .args(["--listen", &place])
        .output()
        .unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(told.contains("another program has that port"), "{told}");
}

#[test]
fn wildcard_listen_addresses_follow_the_system() {
    let herd = Herd::single();
    let mut command = herd.command("Riley");
    command.args(["--listen", "0.0.0.0:0"]);
    let server = Server::start(&mut command);
    let port = clients_on(&server)[0].port();
    Client::connect((Ipv4Addr::LOCALHOST, port).into())
        .send("x\n")
        .expect("? x\n");
    server.stop();
    if !has_ipv6() {
        return;
    }
    // On Linux, [::] stands for both families unless `bindv6only` is set.
    let mut command = herd.command("Riley");
    command.args(["--listen", "[::]:0"]);
    let server = Server::start(&mut command);
    let port = clients_on(&server)[0].port();
    Client::connect((Ipv6Addr::LOCALHOST, port).into())
        .send("x\n")
        .expect("? x\n");
    let only = std::fs::read_to_string("/proc/sys/net/ipv6/bindv6only").unwrap_or_default();
    if only.trim() == "0" {
        Client::connect((Ipv4Addr::LOCALHOST, port).into())
            .send("x\n")
            .expect("? x\n");
    }
    server.stop();
}
