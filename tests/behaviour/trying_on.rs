//! A server dials an unreachable neighbour for ever. It logs each kind of reason once, with a
//! remedy.

use std::fs;

use herd_mio::core::link::OPERATOR;
use herd_testkit::herd::{Herd, Server, status_command};

use crate::listening::with_hosts;
use crate::tls::{Authority, FOR_PEERS};

/// Waits until a server has dialled this often. Returns the number of its warnings with these
/// words.
fn warnings_after(server: &Server, attempts: usize, words: &str) -> usize {
    server.wait_for_nth_log(attempts, "dialling again in", "");
    let log = server.log_lines();
    let warned = log.iter().filter(|line| line.contains("[WARN ]"));
    warned.filter(|line| line.contains(words)).count()
}

/// One address of the neighbour's name refuses connections, and the other is unreachable. The two
/// reasons alternate.
#[test]
fn two_alternating_dial_errors_give_two_warnings() {
    let near =
        Herd::new(&["Riley", "Far"], &[("Riley", "Far")]).with("[limits]\nlink_connect_ms = 100\n");
    let port = near.peers_address("Far").port();
    let config = near.config_file();
    let text = fs::read_to_string(&config).unwrap();
    let peers = near.peers_address("Far").to_string();
    let text = text.replace(&peers, &format!("many.test:{port}"));
    let addresses = ["127.0.78.1", "2001:db8::1"];
    let Some(mut command) = with_hosts(&near, &addresses, &[]) else {
        return;
    };
    fs::write(&config, text).unwrap();
    let server = Server::start(&mut command);
    assert_eq!(
        warnings_after(&server, 8, "not linked: Connection refused"),
        1
    );
    // Systems report an unreachable address in different ways, and may change the way. Each one is
    // logged once.
    let log = server.log_lines();
    let warned = log
        .iter()
        .filter(|line| line.contains("[WARN ] neighbour Far "));
    let mut texts: Vec<_> = warned
        .map(|line| line.split_once("not linked: ").unwrap().1)
        .collect();
    assert!((2..=3).contains(&texts.len()), "{log:#?}");
    texts.sort_unstable();
    assert!(
        texts.windows(2).all(|pair| pair[0] != pair[1]),
        "{texts:#?}"
    );
    server.stop();
}

#[test]
fn failed_attempts_are_counted_in_the_linked_line() {
    let herd = Herd::new(&["Riley", "Jaquez"], &[("Riley", "Jaquez")]);
    let riley = herd.start("Riley");
    assert_eq!(
        warnings_after(&riley, 3, "not linked: Connection refused"),
        1
    );
    let _jaquez = herd.start("Jaquez");
    riley.wait_for_log(
        "neighbour Jaquez",
        "linked, to be sent all 0 records, after ",
    );
    riley.wait_for_log("neighbour Jaquez", " attempts that failed");
}

/// `[peers.tls]` is set at one end only. Both ends log the reason once, whichever of them dials.
#[test]
fn tls_at_one_end_only_is_logged_once_with_a_fix() {
    let authority = Authority::new();
    for (dialler, acceptor) in [("Alice", "Bob"), ("Bob", "Alice")] {
        let ports = Herd::new(&["Alice", "Bob"], &[]);
        let any = "127.0.0.1:0".parse().unwrap();
        let members = ["Alice", "Bob"].map(|name| (name, any, ports.peers_address(name)));
        let over_tls = Herd::at(&members, &[(dialler, acceptor)]).with(FOR_PEERS);
        authority.certify(over_tls.directory.path(), "Alice", "Alice", false);
        fs::write(over_tls.directory.path().join("ca.pem"), authority.pem()).unwrap();
        let plain = Herd::at(&members, &[(dialler, acceptor)]);
        let (alice, bob) = (over_tls.start("Alice"), plain.start("Bob"));
        let dialling = if dialler == "Alice" { &alice } else { &bob };
        dialling.wait_for_nth_log(6, "dialling again in", "");

        let advice = "[peers.tls] has to be in the config of both servers, or of neither";
        alice.wait_for_log("it does not speak TLS", advice);
        bob.wait_for_log("it speaks TLS", advice);
        // `herd-client status` says the same, for either server.
        for (herd, asked) in [
            (&plain, "it speaks TLS; "),
            (&over_tls, "it does not speak TLS; "),
        ] {
            let directory = herd.directory.path();
            authority.certify(directory, OPERATOR, OPERATOR, false);
            let mut status = status_command();
            status.arg("--config").arg(herd.config_file());
            let output = status.env("HERD_SECRET", "the herd's own secret").output();
            let text = String::from_utf8(output.unwrap().stdout).unwrap();
            assert!(
                text.contains(asked) && text.contains("[peers.tls]"),
                "{text}"
            );
        }
        for server in [&alice, &bob] {
            let log = server.log_lines();
            // A server may dial before the other one listens.
            let warned = log
                .iter()
                .filter(|line| line.contains("[WARN ]") && !line.contains("Connection refused"));
            let of_link =
                |line: &&String| line.contains("neighbour ") || line.contains("unproven peer ");
            let warned: Vec<_> = warned.filter(of_link).collect();
            assert!(
                (1..=2).contains(&warned.len()),
                "{dialler} dials: {warned:#?}"
            );
            assert!(
                warned.iter().all(|line| !line.contains("\\x16")),
                "{warned:#?}"
            );
        }
    }
}
