//! Clients behind a proxy that sends a PROXY header. Limits and log use the client's address. The
//! server ignores a header from an address that is not listed.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::thread::park_timeout;
use std::time::{Duration, Instant};

use herd_testkit::client::{Client, SOON, without_skew};
use herd_testkit::herd::{Herd, Server, server_command};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConnection, RootCertStore};

use crate::tls::{Authority, FOR_CLIENTS, Secure, builder, line};

/// The address of the proxy in these tests, and the addresses of other clients.
pub(crate) const PROXY: &str = "127.0.0.77";
const OTHER: &str = "127.0.0.78";
const ANOTHER: &str = "127.0.0.79";

const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

const NO_HEADER: &str =
    "? a connection from this address has to begin with a PROXY header (clients.proxies)\n";

fn herd(limits: &str) -> Herd {
    Herd::single()
        .with(&format!(
            "[clients]\nproxy_protocol = true\nproxies = [\"{PROXY}\"]\n"
        ))
        .with(&format!("[limits]\n{limits}\n"))
}

fn start(limits: &str) -> Server {
    herd(limits).start("Riley")
}

/// A connection from this address.
pub(crate) fn from(ip: &str, server: SocketAddr) -> Client {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    let ip: IpAddr = ip.parse().unwrap();
    socket.bind(&SocketAddr::new(ip, 0).into()).unwrap();
    socket.connect_timeout(&server.into(), SOON).unwrap();
    Client::of(socket.into())
}

fn proxy(server: &Server) -> Client {
    from(PROXY, server.address)
}

/// A header of version 1.
pub(crate) fn header_1(source: &str) -> Vec<u8> {
    let source: SocketAddr = source.parse().unwrap();
    let (family, destination) = match source {
        SocketAddr::V4(_) => ("TCP4", "198.51.100.1"),
        SocketAddr::V6(_) => ("TCP6", "2001:db8::1"),
    };
    let (ip, port) = (source.ip(), source.port());
    format!("PROXY {family} {ip} {destination} {port} 10000\r\n").into()
}

/// A header of version 2, with TLVs.
fn header_2(source: &str, tlvs: &[u8]) -> Vec<u8> {
    let source: SocketAddr = source.parse().unwrap();
    let (family, addresses) = match source.ip() {
        IpAddr::V4(v4) => (0x11, [v4.octets().to_vec(), vec![1; 4]].concat()),
        IpAddr::V6(v6) => (0x21, [v6.octets().to_vec(), vec![1; 16]].concat()),
    };
    let ports = [source.port().to_be_bytes(), [0x27, 0x10]].concat();
    binary(0x21, family, &[&addresses, &ports[..], tlvs].concat())
}

fn binary(version_and_command: u8, family: u8, block: &[u8]) -> Vec<u8> {
    let length = u16::try_from(block.len()).unwrap().to_be_bytes();
    let fixed = [version_and_command, family, length[0], length[1]];
    [SIGNATURE, &fixed, block].concat()
}

/// The warnings about connections. A start may log other warnings.
fn warnings(server: &Server) -> Vec<String> {
    let is_warning =
        |line: &String| line.contains("[WARN ] proxy ") || line.contains("[WARN ] client ");
    server.log_lines().into_iter().filter(is_warning).collect()
}

#[test]
fn the_log_shows_the_client_s_and_the_proxy_s_address() {
    let server = start("");
    for (header, source) in [
        (header_1("203.0.113.9:5511"), "203.0.113.9:5511"),
        (header_1("[2001:db8::9]:5512"), "[2001:db8::9]:5512"),
        (header_1("[::ffff:203.0.113.9]:5513"), "203.0.113.9:5513"),
        (header_2("203.0.113.9:5514", &[]), "203.0.113.9:5514"),
        (
            header_2("203.0.113.9:5515", &[3, 0, 4, 1, 2, 3, 4, 4, 0, 0]),
            "203.0.113.9:5515",
        ),
        (header_2("[2001:db8::9]:5516", &[]), "[2001:db8::9]:5516"),
        (
            header_2("[::ffff:203.0.113.9]:5517", &[]),
            "203.0.113.9:5517",
        ),
    ] {
        let mut client = proxy(&server);
        client.send([&header[..], b"IAMAT x +1+2 3\nno\n"].concat());
        assert_eq!(without_skew(&client.line()), "AT Riley x +1+2 3");
        client.expect("? no\n");
        let own = client.stream().local_addr().unwrap();
        server.wait_for_log(&format!("{source}: connected through {own}"), "client ");
        server.wait_for_log(&format!("{source} <- IAMAT x +1+2 3"), "client ");
        client.finish().expect_end();
    }
}

#[test]
fn a_proxy_header_may_arrive_one_byte_at_a_time() {
    let server = start("");
    for header in [
        header_1("203.0.113.9:5511"),
        header_2("203.0.113.9:5512", &[4, 0, 3, 1, 2, 3]),
        b"PROXY UNKNOWN\r\n".to_vec(),
    ] {
        let mut client = proxy(&server);
        for byte in [&header[..], b"mine\n"].concat() {
            client.send([byte]);
            park_timeout(Duration::from_micros(500));
        }
        client.expect("? mine\n").finish().expect_end();
    }
    assert_eq!(warnings(&server), [""; 0]);
}

#[test]
fn clients_are_counted_by_their_own_address_not_the_proxy_s() {
    let server = start("max_clients_per_address = 2");
    let through = |header: Vec<u8>| {
        let mut client = proxy(&server);
        client.send([&header[..], b"x\n"].concat());
        client
    };
    let many: Vec<Client> = (1..=20)
        .map(|host| {
            let mut client = through(header_1(&format!("203.0.113.{host}:1")));
            client.expect("? x\n");
            client
        })
        .collect();
    // The same address in all its forms.
    let mut second = through(header_2("203.0.113.9:2", &[]));
    second.expect("? x\n");
    for form in ["203.0.113.9:3", "[::ffff:203.0.113.9]:4"] {
        for header in [header_1(form), header_2(form, &[])] {
            through(header)
                .expect("? there are 2 clients from its address, which is limits.max_clients_per_address\n")
                .expect_end();
        }
    }
    server.wait_for_log(
        &format!("client 203.0.113.9:3 through {PROXY}:"),
        "refused: there are 2 clients from its address, which is limits.max_clients_per_address; 1 so far",
    );
    // Other clients of the proxy are not affected, and a client without the proxy is not either.
    through(header_1("203.0.113.99:1")).expect("? x\n");
    from(OTHER, server.address).send("x\n").expect("? x\n");
    drop(second);
    drop(many);
}

#[test]
fn local_proxy_headers_keep_the_socket_s_address() {
    let server = start("");
    let block = [
        &[192, 0, 2, 1, 192, 0, 2, 2, 0, 1, 0, 2][..],
        &[4, 0, 2, 7, 7],
    ]
    .concat();
    for header in [
        b"PROXY UNKNOWN\r\n".to_vec(),
        b"PROXY UNKNOWN ffff::1 whatever 1 2\r\n".to_vec(),
        binary(0x20, 0, &[]),
        binary(0x20, 0x11, &block),
        binary(0x21, 0, &[]),
        binary(0x21, 0x12, &block),
        binary(0x21, 0x31, &[b'/'; 216]),
    ] {
        let mut client = proxy(&server);
        client
            .send([&header[..], b"mine\n"].concat())
            .expect("? mine\n");
        let own = client.stream().local_addr().unwrap();
        server.wait_for_log(&format!("{own} <- mine"), "client ");
    }
    assert_eq!(warnings(&server), [""; 0]);
}

#[test]
fn a_listed_proxy_without_a_valid_header_is_refused() {
    let server = start("proxy_header_bytes = 232");
    let long = "x".repeat(107);
    for (bytes, why) in [
        (
            &b"IAMAT x +1+2 3\n"[..],
            "it did not begin with a PROXY header",
        ),
        (
            b"\x16\x03\x01\x02\x00",
            "it did not begin with a PROXY header",
        ),
        (
            b"PROXY TCP4 203.0.113.9 198.51.100.1 1\r\nx\n",
            "version 1 is not of the form",
        ),
        (
            b"PROXY TCP4 203.0.113.9 198.51.100.1 1 2\nx\n",
            "version 1 is not of the form",
        ),
        (
            format!("PROXY UNKNOWN {long}").as_bytes(),
            "has no CR LF within 107 bytes",
        ),
        (&binary(0x31, 0x11, &[1; 12]), "says version 3, not 1 or 2"),
        (
            &binary(0x2f, 0x11, &[1; 12]),
            "has the command 0xf, neither LOCAL nor PROXY",
        ),
        (
            &binary(0x21, 0x51, &[1; 12]),
            "address family and transport 0x51",
        ),
        (
            &binary(0x21, 0x11, &[1; 11]),
            "leaves 11 bytes for the addresses",
        ),
        (
            &binary(0x21, 0x11, &[1; 300]),
            "has 316 bytes, more than limits.proxy_header_bytes (232)",
        ),
    ] {
        let mut client = proxy(&server);
        client.send(bytes);
        let told = String::from_utf8(client.rest()).unwrap();
        if why.starts_with("it did not begin") {
            assert_eq!(told, NO_HEADER);
        } else {
            let is_why = told.starts_with("? its PROXY header ") && told.contains(why);
            assert!(is_why, "{why}: {told}");
        }
        let own = client.stream().local_addr().unwrap();
        server.wait_for_log(&format!("proxy {own}: refused: "), why);
    }
    // A header of the largest allowed size.
    let tlv = [vec![4, 0, 232 - 16 - 12 - 3], vec![0; 232 - 16 - 12 - 3]].concat();
    let most = header_2("203.0.113.9:1", &tlv);
    assert_eq!(most.len(), 232);
    proxy(&server).send(most).send("x\n").expect("? x\n");
    server.wait_for_log("203.0.113.9:1 <- x", "");
    let lines = server.log_lines();
    let acted_on = lines.iter().filter(|line| line.contains(" <- "));
    assert_eq!(acted_on.count(), 1, "{lines:?}");
}

#[test]
fn missing_proxy_headers_are_logged_rarely() {
    let server = start("");
    for _ in 0..40 {
        proxy(&server).send("x\n").expect(NO_HEADER).expect_end();
    }
    server.wait_for_log("did not begin with a PROXY header; 32 so far", "[WARN ]");
    let told = warnings(&server);
    assert_eq!(told.len(), 6, "{told:?}");
}

#[test]
fn an_empty_probe_is_not_logged_but_a_cut_off_header_is() {
    let server = start("");
    for reset in [false, true] {
        for _ in 0..10 {
            let check = proxy(&server);
            let own = check.stream().local_addr().unwrap();
            if reset {
                socket2::SockRef::from(check.stream())
                    .set_linger(Some(Duration::ZERO))
                    .unwrap();
            }
            drop(check);
            server.wait_for_log(&format!("proxy {own}: gone"), "[DEBUG]");
        }
    }
    assert_eq!(warnings(&server), [""; 0]);
    let mut cut = proxy(&server);
    let own = cut.stream().local_addr().unwrap();
    cut.send("PROXY TCP4 203").finish().expect_end();
    server.wait_for_log(
        &format!("proxy {own}: refused: it ended in the middle of its PROXY header; 1 so far"),
        "[WARN ]",
    );
}

#[test]
fn slow_bytes_do_not_extend_the_proxy_header_deadline() {
    let server = start("proxy_header_ms = 300");
    let begun = Instant::now();
    let mut silent = proxy(&server);
    let mut slow = proxy(&server);
    let header = header_1("203.0.113.9:5511");
    let mut other = proxy(&server);
    other.send(&header).send("x\n").expect("? x\n");
    for byte in &header[..20] {
        if slow.stream().write_all(&[*byte]).is_err() {
            break;
        }
        park_timeout(Duration::from_millis(40));
    }
    silent.expect(NO_HEADER).expect_end();
    slow.expect(NO_HEADER);
    assert!(begun.elapsed() >= Duration::from_millis(300));
    server.wait_for_log(
        "refused: it sent no whole PROXY header within 300 ms; 2 so far",
        "",
    );
    // After its header, a client may be silent.
    other.send("x\n").expect("? x\n");
}

#[test]
fn connections_without_a_header_are_limited() {
    const MOST: usize = 128;
    let server = start(&format!(
        "max_unidentified = {MOST}\nmax_clients = 5\nproxy_header_ms = 60000"
    ));
    let mut served = Vec::new();
    let mut silent: Vec<Client> = (0..MOST).map(|_| proxy(&server)).collect();
    for number in 0..5 {
        let mut client = proxy(&server);
        client
            .send(header_1(&format!("203.0.113.{number}:1")))
            .send("x\n");
        client.expect("? x\n");
        served.push(client);
        silent.push(proxy(&server));
    }
    // The oldest connections were closed, without a message.
    for client in silent.drain(..silent.len() - MOST) {
        let mut rest = Vec::new();
        let _ = client.stream().read_to_end(&mut rest);
        assert_eq!(rest, b"");
    }
    server.wait_for_log(
        "refused: as many as limits.max_unidentified waited for their PROXY header",
        "",
    );
    // A connection that waits for its header is not a client yet. It counts as one when the header
    // has arrived.
    served.pop();
    let mut waited = silent.pop().unwrap();
    waited.send(header_2("203.0.113.200:1", &[])).send("x\n");
    let answer = waited.line();
    assert!(
        answer == "? x" || answer.contains("limits.max_clients"),
        "{answer}"
    );
    for client in &mut served {
        client.send("y\n").expect("? y\n");
    }
}

#[test]
fn a_header_from_an_address_that_is_not_listed_is_ignored() {
    for (clients, why) in [
        (
            format!("[clients]\nproxy_protocol = true\nproxies = [\"{PROXY}\"]\n"),
            "but its address is not in clients.proxies",
        ),
        (
            format!("[clients]\nproxy_protocol = false\nproxies = [\"{OTHER}\"]\n"),
            "but clients.proxy_protocol is off",
        ),
        (String::new(), "but clients.proxy_protocol is off"),
    ] {
        let server = Herd::single().with(&clients).start("Riley");
        for number in 0..5 {
            let mut client = from(OTHER, server.address);
            let header = header_1("203.0.113.9:5511");
            client.send([&header[..], b"mine\n"].concat());
            client.expect("? ").expect(header.trim_ascii_end());
            client.expect("\n? mine\n");
            let own = client.stream().local_addr().unwrap();
            server.wait_for_log(&format!("{own} <- mine"), "client ");
            if number == 0 {
                server.wait_for_log(
                    &format!("{own}: it sent a PROXY header, {why}; 1 so far"),
                    "",
                );
            }
        }
        let mut client = from(OTHER, server.address);
        client.send(header_2("203.0.113.9:5511", &[])).finish();
        assert!(client.rest().starts_with(b"? \0\n? QUIT\n? "));
        let told = warnings(&server);
        let told: Vec<_> = told.iter().filter(|line| line.contains(why)).collect();
        assert_eq!(told.len(), 3, "1, 2 and 4: {told:?}");
        // Behind a listed proxy, a second header from the client is a command like any other.
        if !clients.is_empty() && !clients.contains("false") {
            let mut behind = proxy(&server);
            behind
                .send(header_1("203.0.113.9:1"))
                .send("PROXY UNKNOWN\r\n");
            behind.expect("? PROXY UNKNOWN\n");
        }
    }
}

/// A client over TLS. The proxy sends `header` before the client's first byte.
fn secure_through(server: &Server, authority: &Authority, ip: &str, header: &[u8]) -> Secure {
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(authority.pem().as_bytes()).unwrap())
        .unwrap();
    let config = builder()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from("localhost").unwrap();
    let connection = ClientConnection::new(Arc::new(config), name).unwrap();
    let mut proxy = from(ip, server.address);
    proxy.send(header);
    Secure::new(connection, proxy.stream().try_clone().unwrap())
}

#[test]
fn the_proxy_header_comes_before_the_tls_client_hello() {
    let herd = Herd::single()
        .with(&format!(
            "[clients]\nproxy_protocol = true\nproxies = [\"{PROXY}\"]\n"
        ))
        .with(FOR_CLIENTS)
        .with("[limits]\nmax_clients_per_address = 1\n");
    let authority = Authority::new();
    authority.certify(herd.directory.path(), "clients", "localhost", false);
    let server = herd.start("Riley");
    for header in [
        header_1("203.0.113.9:5511"),
        header_2("203.0.113.8:5512", &[]),
    ] {
        let mut client = secure_through(&server, &authority, PROXY, &header);
        client.write_all(b"IAMAT x +1+2 3\n").unwrap();
        assert!(line(&mut client).starts_with("AT Riley +"));
        // A second client of the same address is closed without a handshake.
        let mut second = secure_through(&server, &authority, PROXY, &header);
        assert!(second.write_all(b"x\n").is_err() || second.read(&mut [0]).is_err());
    }
    server.wait_for_log("client ", "203.0.113.9:5511 <- IAMAT x +1+2 3");
    // A ClientHello without a header, and a header that the server ignores.
    let mut bare = secure_through(&server, &authority, PROXY, b"");
    let failed = bare
        .write_all(b"x\n")
        .and_then(|()| bare.read(&mut [0]).map(drop));
    assert!(failed.is_err());
    server.wait_for_log(
        "refused: it did not begin with a PROXY header; 1 so far",
        "proxy ",
    );
    for (ip, header) in [
        (OTHER, header_1("203.0.113.7:1")),
        (ANOTHER, header_2("203.0.113.7:1", &[])),
    ] {
        let mut client = secure_through(&server, &authority, ip, &header);
        let failed = client
            .write_all(b"x\n")
            .and_then(|()| client.read(&mut [0]).map(drop));
        assert!(failed.is_err());
    }
    server.wait_for_log(
        "it sent a PROXY header, but its address is not in clients.proxies; 2 so far",
        "",
    );
    // Five bytes are enough to see that this is not TLS.
    for (ip, header) in [
        (OTHER, header_1("203.0.113.7:1")),
        (ANOTHER, header_2("203.0.113.7:1", &[])),
    ] {
        let mut client = from(ip, server.address);
        assert_eq!(client.send(&header[..5]).rest().len(), 7, "an alert");
    }
    server.wait_for_log(
        "it sent a PROXY header, but its address is not in clients.proxies; 4 so far",
        "",
    );
}

#[test]
fn an_ipv4_proxy_matches_on_a_dual_stack_socket() {
    let herd = herd("");
    let server = Server::start(herd.command("Riley").args(["--listen", "[::]:0"]));
    let address = SocketAddr::from(([127, 0, 0, 1], server.address.port()));
    let mut client = from(PROXY, address);
    client
        .send(header_1("203.0.113.9:5511"))
        .send("x\n")
        .expect("? x\n");
    let own = client.stream().local_addr().unwrap();
    server.wait_for_log(&format!("203.0.113.9:5511: connected through {own}"), "");
    from(OTHER, address).send("x\n").expect("? x\n");
}

#[test]
fn a_stop_does_not_wait_for_proxy_headers() {
    let server = start("proxy_header_ms = 60000");
    let (_silent, mut begun) = (proxy(&server), proxy(&server));
    begun.send("PROXY TCP4 ");
    let mut client = proxy(&server);
    client
        .send(header_1("203.0.113.9:1"))
        .send("x\n")
        .expect("? x\n");
    drop(client);
    let asked = Instant::now();
    server.stop();
    assert!(
        asked.elapsed() < Duration::from_secs(4),
        "{:?}",
        asked.elapsed()
    );
}

#[test]
fn the_peer_port_refuses_proxy_headers() {
    let herd = herd("");
    let server = herd.start("Riley");
    for header in [
        header_1("203.0.113.9:5511"),
        header_2("203.0.113.9:5511", &[]),
    ] {
        for step in [header.len(), 1] {
            let mut front = from(PROXY, herd.peers_address("Riley"));
            for piece in header[..14].chunks(step) {
                front.send(piece);
                park_timeout(Duration::from_micros(500));
            }
            let told = String::from_utf8(front.rest()).unwrap();
            assert!(
                told.starts_with("BYE it sent a PROXY header, which"),
                "{told}"
            );
        }
    }
    server.wait_for_log(
        "it sent a PROXY header, which only the clients' port takes",
        "",
    );
}

/// Runs `--check`. Returns its status, its standard output and its standard error.
fn check(clients: &str, arguments: &[&str], environment: &[(&str, &str)]) -> (i32, String, String) {
    let herd = Herd::single().with(clients);
    let output = server_command()
        .args(["Riley", "--check", "--log-file", "-", "--config"])
        .arg(herd.config_file())
        .args(arguments)
        .envs(environment.iter().copied())
        .output()
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    let status = output.status.code().unwrap();
    (status, text(output.stdout), text(output.stderr))
}

#[test]
fn proxies_are_set_by_file_variable_or_flag() {
    const LISTED: &str = "proxies     10.0.0.2, fd00::/8, which have to send a PROXY header\n";
    const NONE: &str = "proxies     none: a PROXY header is not believed\n";
    let file = "[clients]\nproxy_protocol = true\nproxies = [\"10.0.0.2\", \"fd00::/8\"]\n";
    let list = "10.0.0.2, fd00::/8";
    let variables = [("HERD_PROXY_PROTOCOL", "true"), ("HERD_PROXIES", list)];
    for (clients, arguments, environment, meant) in [
        ("", &[][..], &[][..], NONE),
        (file, &[], &[], LISTED),
        ("", &["--proxy-protocol", "--proxies", list], &[], LISTED),
        ("", &["--proxies", list, "--proxy-protocol=on"], &[], LISTED),
        ("", &[], &variables, LISTED),
        ("", &["--proxy-protocol=false"], &variables, NONE),
        (file, &[], &[("HERD_PROXY_PROTOCOL", "no")], NONE),
        (
            file,
            &["--proxies", "192.0.2.0/24"],
            &[("HERD_PROXIES", "::1")],
            "proxies     192.0.2.0/24, which",
        ),
        (
            file,
            &[],
            &[("HERD_PROXIES", ""), ("HERD_PROXY_PROTOCOL", " ")],
            LISTED,
        ),
    ] {
        let (status, text, told) = check(clients, arguments, environment);
        assert_eq!(status, 0, "{told}");
        assert!(
            text.contains(meant),
            "{arguments:?} {environment:?}: {text}"
        );
    }
    let all = "[clients]\nproxy_protocol = true\nproxies = [\"0.0.0.0/0\"]\n";
    let (_, text, _) = check(all, &[], &[]);
    assert!(
        text.contains("note        clients.proxies has 0.0.0.0/0: any client can claim"),
        "{text}"
    );
}

#[test]
fn an_invalid_proxy_list_is_reported_with_a_fix() {
    let file = |rest: &str| format!("[clients]\n{rest}\n");
    for (clients, arguments, meant) in [
        (
            file("proxy_protocol = true"),
            &[][..],
            "clients.proxies is empty",
        ),
        (
            file("proxy_protocol = true\nproxies = []"),
            &[],
            "clients.proxies is empty",
        ),
        (
            file("proxies = [\"10.0.0.2\"]"),
            &[],
            "clients.proxy_protocol is not set",
        ),
        (
            file("proxy_protocol = 1"),
            &[],
            "invalid type: integer `1`, expected a boolean",
        ),
        (
            file("proxy_protocl = true"),
            &[],
            "did you mean `proxy_protocol`?",
        ),
        (file("proxies = \"10.0.0.2\""), &[], "expected a sequence"),
        (
            file("proxy_protocol = true\nproxies = [\"lb.example\"]"),
            &[],
            "clients.proxies: \"lb.example\": it must be an address or a network, such as 10.0.0.2",
        ),
        (
            file("proxy_protocol = true\nproxies = [\"10.0.0.1/8\"]"),
            &[],
            "write 10.0.0.0/8 for the network",
        ),
        (
            file("proxy_protocol = true\nproxies = [\"10.0.0.0/33\"]"),
            &[],
            "the length behind its slash must be 0 to 32",
        ),
        (
            String::new(),
            &["--proxy-protocol"],
            "(--proxies, HERD_PROXIES)",
        ),
        (
            String::new(),
            &["--proxies", "::1"],
            "(--proxy-protocol, HERD_PROXY_PROTOCOL)",
        ),
        (
            String::new(),
            &["--proxies", "::1,", "--proxy-protocol"],
            "\"\": it must be an address",
        ),
        (
            String::new(),
            &["--proxy-protocol=maybe"],
            "invalid value 'maybe'",
        ),
    ] {
        let (status, _, told) = check(&clients, arguments, &[]);
        assert_eq!(status, 2, "{told}");
        assert_eq!(told.lines().count(), 1, "{told}");
        assert!(told.contains(meant), "{meant}: {told}");
    }
}
