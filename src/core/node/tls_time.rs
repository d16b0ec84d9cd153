//! Certificates are checked against the time of the event, not against the system's clock.

use std::io::Read;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, date_time_ymd};
use rustls::crypto::ring::default_provider;
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::{ClientConfig, RootCertStore, ServerConfig, ServerConnection};

use super::{Node, Request};
use crate::config::{HerdConfig, Overrides, Source};
use crate::core::base::clock::{Now, Time};
use crate::core::base::settings::Secret;

const IN_2021: u64 = 1_621_464_827_000_000_000;
const IN_2023: u64 = 1_684_536_827_000_000_000;

/// Places has a certificate for 2021, and the wall clock of the server shows `wall`. Returns the
/// answer to the client, and the request that Places received.
fn asked_at(wall: u64) -> (String, String) {
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
    let mut places = ServerConnection::new(Arc::new(places)).unwrap();

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
    for _ in 0..4 {
        let output = node.poll_output(id).to_vec();
        node.handle_output_sent(id, output.len(), now);
        places.read_tls(&mut output.as_slice()).unwrap();
        let _ = places.process_new_packets(); // an alert is an error
        let mut answer = Vec::new();
        places.write_tls(&mut answer).unwrap();
        node.handle_data_received(id, &answer, now);
    }
    let mut heard = vec![0; 4_096];
    let length = places.reader().read(&mut heard).unwrap_or(0);
    let told = String::from_utf8_lossy(node.poll_output(client)).into_owned();
    (told, String::from_utf8_lossy(&heard[..length]).into_owned())
}

#[test]
fn a_certificate_is_judged_by_the_time_of_the_event() {
    let (_, request) = asked_at(IN_2021);
    assert!(request.starts_with("GET "), "{request}");
    let (told, request) = asked_at(IN_2023);
    assert_eq!(request, "", "the key is not sent");
    assert!(told.contains("expired"), "{told}");
}
