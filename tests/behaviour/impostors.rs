//! Impostors of Google Places, of every kind. None of them receives the key or a request, and
//! nothing they send becomes an answer to a client.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use herd_testkit::client::SOON;
use herd_testkit::herd::{Herd, Server};
use rustls::{ServerConfig, ServerConnection, SupportedProtocolVersion};
use socket2::SockRef;

use crate::certificates::{Flaw, Identity, identity};
use crate::places::message;
use crate::tls::Authority;

/// A key that is easy to find in any output.
const KEY: &str = "AIzaImpostorsMustNotSee-0123456789_abcd";

/// How the impostor behaves.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Guise {
    /// Does a TLS handshake with such a certificate.
    Showing(Flaw, &'static SupportedProtocolVersion),
    /// Speaks no TLS: sends these bytes at once, and reads.
    Saying(&'static [u8]),
    /// Reads the ClientHello, sends these bytes, and shuts down its writing side.
    Ending(&'static [u8]),
    /// Sends back all bytes that it reads.
    Echoing,
    /// Reads from the ClientHello, and resets the connection.
    Resetting,
    /// Sends nothing until the server closes.
    Silent,
    /// Sends an endless handshake message, byte by byte.
    Trickling,
}

/// Everything that the impostor received: the raw bytes of the sockets, and the decrypted bytes.
#[derive(Default)]
struct Heard {
    raw: Vec<u8>,
    plain: Vec<u8>,
}

/// A socket that stores a copy of everything that is read from it.
struct Tap<'a>(&'a TcpStream, &'a Mutex<Heard>);

impl Read for Tap<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.0.read(buffer)?;
        self.1
            .lock()
            .unwrap()
            .raw
            .extend_from_slice(&buffer[..count]);
        Ok(count)
    }
}

impl Write for Tap<'_> {
    fn write(&mut self, buffer: &[u8]) -> std::io::Result<usize> {
        self.0.write(buffer)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

pub(crate) struct Impostor {
    pub(crate) url: String,
    heard: Arc<Mutex<Heard>>,
    /// Receives one message for each connection that has ended.
    gone: Receiver<()>,
}

impl Impostor {
    pub(crate) fn start(guise: Guise, authority: &Authority) -> Impostor {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let heard = Arc::new(Mutex::new(Heard::default()));
        let (tell, gone) = channel();
        let config = match guise {
            Guise::Showing(flaw, version) => Some(config(authority, flaw, version)),
            Guise::Saying(_)
            | Guise::Ending(_)
            | Guise::Echoing
            | Guise::Resetting
            | Guise::Silent
            | Guise::Trickling => None,
        };
        let config = config.map(Arc::new);
        thread::spawn({
            let heard = heard.clone();
            move || {
                for stream in listener.incoming() {
                    let stream = stream.unwrap();
                    stream.set_read_timeout(Some(SOON)).unwrap();
                    pose(guise, &stream, config.clone(), &heard);
                    drop(stream);
                    if tell.send(()).is_err() {
                        return;
                    }
                }
            }
        });
        let url = format!("https://localhost:{port}");
        Impostor { url, heard, gone }
    }
}

fn config(
    authority: &Authority,
    flaw: Flaw,
    version: &'static SupportedProtocolVersion,
) -> ServerConfig {
    let Identity { chain, key } = identity(authority, "localhost", flaw);
    ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_protocol_versions(&[version])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap()
}

/// Serves one connection until it ends. It is correct if the server closes in the middle.
fn pose(guise: Guise, stream: &TcpStream, config: Option<Arc<ServerConfig>>, heard: &Mutex<Heard>) {
    let mut tap = Tap(stream, heard);
    let mut buffer = [0; 4096];
    let mut listen =
        |tap: &mut Tap<'_>| while tap.read(&mut buffer).is_ok_and(|count| count > 0) {};
    match guise {
        Guise::Showing(..) => {
            let Some(config) = config else { return };
            let mut connection = ServerConnection::new(config).unwrap();
            let mut plain = [0; 4096];
            // If the server sends a request, this is the answer.
            while let Ok((read, written)) = connection.complete_io(&mut tap) {
                while let Ok(count @ 1..) = connection.reader().read(&mut plain) {
                    heard
                        .lock()
                        .unwrap()
                        .plain
                        .extend_from_slice(&plain[..count]);
                    let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 14\r\n\r\n{\"forged\" : 1}";
                    connection.writer().write_all(answer).unwrap();
                }
                if read + written == 0 {
                    return;
                }
            }
        }
        Guise::Saying(words) => {
            let _ = tap.write_all(words);
            listen(&mut tap);
        }
        Guise::Ending(words) => {
            let _ = tap.read(&mut [0; 4096]);
            let _ = tap.write_all(words);
            let _ = stream.shutdown(Shutdown::Write);
            listen(&mut tap);
        }
        Guise::Echoing => {
            let mut echoed = [0; 4096];
            while let Ok(count @ 1..) = tap.read(&mut echoed) {
                if tap.write_all(&echoed[..count]).is_err() {
                    return;
                }
            }
        }
        Guise::Resetting => {
            let _ = tap.read(&mut [0; 16]);
            SockRef::from(stream)
                .set_linger(Some(Duration::ZERO))
                .unwrap();
        }
        Guise::Silent => listen(&mut tap),
        Guise::Trickling => {
            let _ = tap.read(&mut [0; 4096]);
            let _ = tap.write_all(b"\x16\x03\x03\x40\x00\x02\x00\x3f\xfc");
            while tap.write_all(b"\x03").is_ok() {
                thread::park_timeout(Duration::from_millis(20));
            }
            listen(&mut tap);
        }
    }
}

/// Whether the bytes contain the key, plain or as hexadecimal digits.
fn tells_key(bytes: &[u8]) -> bool {
    let hex: String = KEY.bytes().map(|byte| format!("{byte:02x}")).collect();
    let has = |needle: &[u8]| bytes.windows(needle.len()).any(|window| window == needle);
    // Even a part of the key must not appear.
    has(&KEY.as_bytes()[4..16]) || has(&KEY.as_bytes()[20..]) || has(&hex.as_bytes()[8..32])
}

const GUISES: &[(Guise, &str)] = {
    const TLS12: &SupportedProtocolVersion = &rustls::version::TLS12;
    const TLS13: &SupportedProtocolVersion = &rustls::version::TLS13;
    const REFUSED: &str = "its certificate was refused";
    const NO_TLS: &str = "it does not speak TLS";
    const CLOSED: &str = "it closed the connection";
    const TOO_LATE: &str = "no TLS handshake within 0.4 s";
    use Guise::{Echoing, Ending, Resetting, Saying, Showing, Silent, Trickling};
    &[
        (Showing(Flaw::OtherName, TLS13), REFUSED),
        (Showing(Flaw::OtherName, TLS12), REFUSED),
        (Showing(Flaw::OtherWildcard, TLS13), REFUSED),
        (Showing(Flaw::SubjectOnly, TLS13), REFUSED),
        (Showing(Flaw::Expired, TLS13), REFUSED),
        (Showing(Flaw::Expired, TLS12), REFUSED),
        (Showing(Flaw::NotYetValid, TLS13), REFUSED),
        (Showing(Flaw::ForClientsOnly, TLS13), REFUSED),
        (Showing(Flaw::SelfSigned, TLS13), REFUSED),
        (Showing(Flaw::SelfSigned, TLS12), REFUSED),
        (Showing(Flaw::UnknownAuthority, TLS13), REFUSED),
        (Showing(Flaw::SignedByAPeer, TLS13), REFUSED),

        (Saying(b"HTTP/1.1 200 OK\r\nContent-Length: 14\r\n\r\n{\"forged\" : 1}"), NO_TLS),
        (Saying(b"HTTP/1.1 400 Bad Request\r\n\r\nuse http://"), NO_TLS),
        (Saying(b"{\"forged\" : 1}\n"), NO_TLS),
        (Saying(b"SSH-2.0-OpenSSH_9.2\r\n"), NO_TLS),
        (Saying(b"220 mail.test ESMTP\r\n"), NO_TLS),
        (Saying(b"\x16\x03\x03\xff\xff garbage"), NO_TLS),
        (Saying(&[0; 64]), NO_TLS),
        (Saying(b"\x15\x03\x03\x00\x02\x02\x28"), "it refused the TLS handshake: HandshakeFailure"),
        (Saying(b"\x15\x03\x03\x00\x02\x02\x70"), "it refused the TLS handshake: UnrecognisedName"),
        (Saying(b"\x15\x03\x03\x00\x02\x02\x46"), "it refused the TLS handshake: ProtocolVersion"),
        // A ServerHello of TLS 1.1, and a ServerHello with a cipher suite that was not offered.
        (Saying(b"\x16\x03\x02\x00\x2a\x02\x00\x00\x26\x03\x0201234567890123456789012345678901\x00\x00\x2f\x00"), "TLS failed"),
        (Saying(b"\x16\x03\x03\x00\x2a\x02\x00\x00\x26\x03\x0301234567890123456789012345678901\x00\x00\x00\x00"), "TLS failed"),
        // Application data before there are keys.
        (Saying(b"\x17\x03\x03\x00\x0e{\"forged\" : 1}"), "TLS failed"),
        (Ending(b"\x15\x03\x03\x00\x02\x01\x00"), CLOSED),
        (Ending(b"\x16\x03\x03"), CLOSED),
        (Ending(b""), CLOSED),
        (Echoing, "TLS failed"),
        (Resetting, "Connection reset"),
        (Silent, TOO_LATE),
        (Trickling, TOO_LATE),
    ]
};

fn no_guise_gets_anything(api: &'static str) {
    let authority = Authority::new();
    let herd = Herd::single()
        .level("trace")
        .env("HERD_PLACES_KEY", KEY)
        .with("[limits]\nplaces_handshake_ms = 400\n");
    let ca = herd.directory.path().join("ca.pem");
    std::fs::write(&ca, authority.pem()).unwrap();
    for (guise, reason) in GUISES {
        let impostor = Impostor::start(*guise, &authority);
        let mut command = herd.command("Riley");
        command.args(["--places-url", &impostor.url, "--places-api", api]);
        command.arg("--places-ca").arg(&ca);
        let server = Server::start(&mut command);
        let mut client = server.client();
        let at = client.ask("IAMAT kiwi +34.068930-118.445127 1");
        let (line, json) = client.send("WHATSAT kiwi 10 5\n").places();
        assert_eq!(line, at);
        let error = serde_json::from_str(&json).unwrap();
        assert!(
            message(&error).contains("Google Places cannot be reached: ")
                && message(&error).contains(reason),
            "{guise:?}: {json}"
        );
        client.send("no\n").expect("? no\n");
        drop(client);
        // `localhost` has one or two addresses, and the server tries each.
        impostor.gone.recv_timeout(SOON).unwrap();
        let log = server.stop().join("\n");
        let heard = impostor.heard.lock().unwrap();
        let told = String::from_utf8_lossy(&heard.raw);
        assert!(
            !heard.raw.is_empty() || matches!(guise, Guise::Saying(_)),
            "{guise:?}"
        );
        assert_eq!(heard.plain.escape_ascii().to_string(), "", "{guise:?}");
        assert!(
            !told.contains("34.06893") && !told.contains("HTTP/1.1"),
            "{guise:?}: {told}"
        );
        for shown in [heard.raw.as_slice(), log.as_bytes(), json.as_bytes()] {
            assert!(!tells_key(shown), "{guise:?}");
        }
    }
}

#[test]
fn no_impostor_gets_the_legacy_api_key() {
    no_guise_gets_anything("legacy");
}

#[test]
fn no_impostor_gets_the_new_api_key() {
    no_guise_gets_anything("new");
}

#[test]
fn a_server_with_a_valid_certificate_gets_the_request() {
    let authority = Authority::new();
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let impostor = Impostor::start(Guise::Showing(Flaw::None, version), &authority);
        let herd = Herd::single().env("HERD_PLACES_KEY", KEY);
        let ca = herd.directory.path().join("ca.pem");
        std::fs::write(&ca, authority.pem()).unwrap();
        let mut command = herd.command("Riley");
        command
            .args(["--places-url", &impostor.url, "--places-ca"])
            .arg(&ca);
        let server = Server::start(&mut command);
        let mut client = server.client();
        client.ask("IAMAT kiwi +34.068930-118.445127 1");
        let (_, json) = client.send("WHATSAT kiwi 10 5\n").places();
        assert_eq!(json, "{\"forged\" : 1}");
        drop(client);
        server.stop();
        let heard = impostor.heard.lock().unwrap();
        assert!(tells_key(&heard.plain) && !tells_key(&heard.raw));
    }
}
