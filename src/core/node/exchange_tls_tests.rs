//! Tests of TLS below an exchange, which is an HTTPS connection to Google Places. Certificates are
//! checked against the time of the event, not against the system's clock. The request is sent with
//! the last message of the handshake. Before the exchange closes, it sends `close_notify`.

use std::io::{Read, Write};
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, date_time_ymd};
use rustls::crypto::ring::default_provider;
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::{ClientConfig, RootCertStore, ServerConfig, ServerConnection};

use super::{ConnId, Node, Request};
use crate::config::{HerdConfig, Overrides, Source};
use crate::core::base::clock::{Now, Time};
use crate::core::base::settings::Secret;
use crate::core::session::disposition::Disposition;
use crate::core::session::tls::TlsSession;

const IN_2021: u64 = 1_621_464_827_000_000_000;
const IN_2023: u64 = 1_684_536_827_000_000_000;

/// A server, a client that has asked a question about places, and a simulated Google Places. The
/// certificate of the simulated Places is valid only in 2021.
struct Scene {
    node: Node,
    client: ConnId,
    /// The connection to Places.
    exchange: ConnId,
    places: ServerConnection,
    now: Now,
}

/// Returns a scene in which the socket to Places has just connected. The wall clock shows `wall`.
fn connected_at(wall: u64) -> Scene {
    let mut authority = CertificateParams::default();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let authority = CertifiedIssuer::self_signed(authority, key).unwrap();
    let mut params = CertificateParams::new(["places.test".to_owned()]).unwrap();
    params.not_before = date_time_ymd(2021, 1, 1);
    params.not_after = date_time_ymd(2021, 12, 31);
    let key = KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, &authority).unwrap();
    let provider = Arc::new(default_provider());
    let places = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![certificate.der().clone()],
            PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
        )
        .unwrap();
    let places = ServerConnection::new(Arc::new(places)).unwrap();

    let herd = HerdConfig::load(&Source::Name, Some("Riley")).unwrap();
    let server = herd.server("Riley", &Overrides::default()).unwrap();
    let mut settings = server.settings;
    settings.neighbours.clear();
    settings.places.key = Some(Secret::new(b"a key of Google's".to_vec()));
    settings.places.origin.host = "places.test".to_owned();
    let mut roots = RootCertStore::empty();
    roots.add(authority.der().clone()).unwrap();
    let trusting = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    settings.places.tls = Arc::new(trusting);

    let now = Now {
        time: Time::from_nanos(0),
        wall,
    };
    let mut node = Node::new(settings, &[7; 32], now);
    let address = "192.0.2.9:1".parse().unwrap();
    let client = node.handle_client_connected(address, now).unwrap();
    node.handle_data_received(client, b"IAMAT x +1+2 3\nWHATSAT x 1 1\n", now);
    assert!(matches!(node.poll_request(), Some(Request::Resolve { .. })));
    let found = Ok(vec!["192.0.2.1".parse().unwrap()]);
    node.handle_resolved("places.test", found, now);
    let Some(Request::Connect { id, .. }) = node.poll_request() else {
        panic!("it connects");
    };
    node.handle_connection_made(id, now);
    Scene {
        node,
        client,
        exchange: id,
        places,
        now,
    }
}

impl Scene {
    /// Passes the output of the exchange to Places, then passes the reply of Places to the node.
    /// Returns the length of the output.
    fn flush(&mut self) -> usize {
        let Scene {
            node,
            exchange,
            places,
            now,
            ..
        } = self;
        let output = node.poll_output(*exchange).to_vec();
        node.handle_output_sent(*exchange, output.len(), *now);
        places.read_tls(&mut output.as_slice()).unwrap();
        let _ = places.process_new_packets(); // fails if the exchange sent an alert
        self.answer();
        output.len()
    }

    /// Passes to the node all bytes that Places has written.
    fn answer(&mut self) {
        let mut answer = Vec::new();
        self.places.write_tls(&mut answer).unwrap();
        self.node
            .handle_data_received(self.exchange, &answer, self.now);
    }

    /// Returns the plaintext that Places has received.
    fn received(&mut self) -> String {
        let mut received = vec![0; 4_096];
        let length = self.places.reader().read(&mut received).unwrap_or(0);
        String::from_utf8_lossy(&received[..length]).into_owned()
    }
}

/// Runs an exchange while the server's wall clock shows `wall`. Returns the output for the client,
/// and the plaintext that Places received.
fn asked_at(wall: u64) -> (String, String) {
    let mut scene = connected_at(wall);
    for _ in 0..4 {
        scene.flush();
    }
    let received = scene.received();
    let answer = scene.node.poll_output(scene.client);
    (String::from_utf8_lossy(answer).into_owned(), received)
}

#[test]
fn the_memory_of_tls_is_counted_at_the_end_of_a_turn() {
    let Scene { mut node, now, .. } = connected_at(IN_2021);
    while let Some(id) = node.poll_dirty() {
        let count = node.poll_output(id).len();
        node.handle_output_sent(id, count, now);
        assert_eq!(node.poll_disposition(id, now), Disposition::Open);
    }
    node.check_invariants().unwrap();
    let least = TlsSession::MIN_HELD_BYTES as u64;
    assert!(node.tally.buffers.held_bytes() >= least);
}

#[test]
fn certificate_validity_is_checked_at_the_event_time() {
    let (_, request) = asked_at(IN_2021);
    assert!(request.starts_with("GET "), "{request}");
    let (answer, request) = asked_at(IN_2023);
    assert_eq!(request, "", "the key is not sent");
    assert!(answer.contains("expired"), "{answer}");
}

#[test]
fn the_request_is_sent_with_the_tls_finished() {
    let mut scene = connected_at(IN_2021);
    assert!(scene.flush() > 0, "the hello");
    assert_eq!(scene.received(), "");
    assert!(scene.flush() > 0, "one write, and no second");
    assert!(scene.received().starts_with("GET "));
    assert_eq!(scene.flush(), 0);
}

#[test]
fn an_exchange_sends_close_notify_before_it_closes() {
    let mut scene = connected_at(IN_2021);
    scene.flush();
    scene.flush();
    let response = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}";
    scene.places.writer().write_all(response).unwrap();
    scene.answer();
    let answer = scene.node.poll_output(scene.client);
    assert!(answer.ends_with(b"{}\n\n"), "{}", answer.escape_ascii());
    let (id, now) = (scene.exchange, scene.now);
    assert_eq!(scene.node.poll_disposition(id, now), Disposition::Open);
    let goodbye = scene.node.poll_output(id).to_vec();
    scene.places.read_tls(&mut goodbye.as_slice()).unwrap();
    let state = scene.places.process_new_packets().unwrap();
    assert!(state.peer_has_closed(), "close_notify");
    assert_eq!(scene.node.poll_disposition(id, now), Disposition::Close);
}
