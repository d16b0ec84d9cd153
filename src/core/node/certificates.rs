//! Warnings about certificates that expire. From two weeks before one of its own certificates
//! expires, a [`Node`] warns once a day. If a neighbour's certificate expires while the link is up,
//! the node warns once.
//!
//! Such a link stays up. Otherwise an expired certificate would cut the herd apart at once. The
//! neighbours cannot make a new link with that certificate, because an expired certificate is
//! refused. Links do not use TLS session resumption, which would skip this check.

use std::time::Duration;

use log::warn;
use rustls::pki_types::UnixTime;

use super::session::Session;
use super::{ConnId, Node, Timer};
use crate::core::base::clock::{Now, Time};
use crate::core::session::certificate::{Minute, not_after};
use crate::core::session::tls::TlsSession;

/// The time between two warnings about the same certificate of this server.
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// The certificates that the server watches, and the times at which it checks them.
#[derive(Default)]
pub(super) struct Certificates {
    /// Links, each with the time at which the certificate of the other side expires.
    links: Vec<(ConnId, UnixTime)>,
    /// The time of the next check of this server's own certificates.
    next_own_check: Time,
    /// The earliest certificate check that is in the heap of deadlines.
    armed: Option<Time>,
}

fn wall(now: Now) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_nanos(now.wall))
}

impl Node {
    /// Schedules the first check of this server's own certificates in one day. The first check is
    /// not needed earlier: the configuration warns at start of certificates that expire soon, and
    /// `handle_reload` warns at a reload.
    pub(super) fn watch_own_certificates(&mut self, now: Now) {
        self.certificates.next_own_check = now.time + DAY;
        self.watch_certificates(now);
    }

    /// If the connection is a link, watches the certificate of the other side. Called when the TLS
    /// handshake of the connection is done.
    pub(super) fn watch_link_certificate(&mut self, id: ConnId, now: Now) {
        if let Some(slot) = self.sessions.get(id)
            && let Session::Link(_) = &slot.session
            && let Some(certificate) = slot.tls.as_deref().and_then(TlsSession::certificate)
            && let Some(ends) = not_after(certificate)
        {
            self.certificates.links.push((id, ends));
            self.watch_certificates(now);
        }
    }

    /// Adds the time of the next certificate check to the heap of deadlines, unless an earlier
    /// check is already in the heap.
    fn watch_certificates(&mut self, now: Now) {
        let own = match self.settings.tls.own.is_empty() {
            true => None,
            false => Some(self.certificates.next_own_check),
        };
        let remaining = |(_, ends): &(ConnId, UnixTime)| {
            let seconds = ends.as_secs().saturating_sub(wall(now).as_secs());
            now.time + Duration::from_secs(seconds + 1)
        };
        let links = self.certificates.links.iter().map(remaining);
        if let Some(next) = links.chain(own).min()
            && self.certificates.armed.is_none_or(|armed| next < armed)
        {
            self.certificates.armed = Some(next);
            self.deadlines.call_at(next, Timer::Certificates);
        }
    }

    pub(super) fn certificates_due(&mut self, now: Now) {
        if self
            .certificates
            .armed
            .is_some_and(|armed| armed > now.time)
        {
            return; // this entry of the heap is old: its check was already done
        }
        self.certificates.armed = None;
        if self.certificates.next_own_check <= now.time {
            self.certificates.next_own_check = now.time + DAY;
            self.warn_of_own_certificates(now);
        }
        let (sessions, herd) = (&self.sessions, &self.herd);
        self.certificates.links.retain(|&(id, ends)| {
            let Some(Session::Link(link)) = sessions.get(id).map(|slot| &slot.session) else {
                return false;
            };
            let has_expired = ends.as_secs() < wall(now).as_secs();
            if has_expired && let Some(neighbour) = link.neighbour() {
                warn!(
                    "neighbour {}: its certificate ended on {}; the link stays up, and is not made again with that certificate",
                    herd.get(neighbour).name(),
                    Minute(ends)
                );
            }
            !has_expired
        });
        self.watch_certificates(now);
    }

    pub(super) fn warn_of_own_certificates(&self, now: Now) {
        let own = self.settings.tls.own.iter();
        own.filter_map(|own| own.warning(wall(now)))
            .for_each(|warning| warn!("TLS: {warning}"));
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::sync::Once;

    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
    use rustls::crypto::ring::default_provider;
    use rustls::pki_types::PrivatePkcs8KeyDer;
    use rustls::server::WebPkiClientVerifier;
    use rustls::{ClientConfig, RootCertStore, ServerConfig};

    use super::*;
    use crate::config::{HerdConfig, Overrides, Source};
    use crate::core::base::settings::{NeighbourTls, OwnCertificate, TlsMode, TlsSettings};
    use crate::core::node::Request;

    const NOON: u64 = 1_800_000_000;

    thread_local! {
        /// The warnings that this test's thread logged.
        static LOGGED: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
    }

    struct Capture;

    impl log::Log for Capture {
        fn enabled(&self, _: &log::Metadata<'_>) -> bool {
            true
        }

        fn log(&self, record: &log::Record<'_>) {
            if record.level() <= log::Level::Warn {
                LOGGED.with_borrow_mut(|logged| logged.push(record.args().to_string()));
            }
        }

        fn flush(&self) {}
    }

    fn capture() {
        static SET: Once = Once::new();
        SET.call_once(|| {
            log::set_logger(&Capture).unwrap();
            log::set_max_level(log::LevelFilter::Warn);
        });
        LOGGED.take();
    }

    /// Returns the time `seconds` after the beginning of a test.
    fn at(seconds: u64) -> Now {
        Now {
            time: Time::from_nanos(seconds * 1_000_000_000),
            wall: (NOON + seconds) * 1_000_000_000,
        }
    }

    fn unix(seconds: u64) -> UnixTime {
        UnixTime::since_unix_epoch(Duration::from_secs(NOON + seconds))
    }

    /// Returns the server `name` of the built-in herd, with only Riley or Jaquez as a neighbour.
    fn node(name: &str, tls: TlsSettings) -> Node {
        let config = HerdConfig::load(&Source::Name, Some(name)).unwrap();
        let mut settings = config.server(name, &Overrides::default()).unwrap().settings;
        settings
            .neighbours
            .retain(|it| ["Riley", "Jaquez"].contains(&it.name.as_str()));
        settings.tls = tls;
        Node::new(settings, &[7; 32], at(0))
    }

    #[test]
    fn an_expiring_own_certificate_is_logged_once_a_day() {
        capture();
        let tls = TlsSettings {
            own: vec![OwnCertificate {
                file: "own.pem".into(),
                not_after: unix(20 * 86_400),
            }],
            ..TlsSettings::default()
        };
        let mut node = node("Bernard", tls);
        let mut logged_days = Vec::new();
        for hour in 0..24 * 22 {
            node.handle_deadlines(at(hour * 3_600));
            let warnings = LOGGED.take();
            let about_own = warnings.iter().filter(|line| line.contains("own.pem"));
            logged_days.extend(about_own.map(|line| (hour / 24, line.contains(" ended on "))));
        }
        let expected: Vec<_> = (6..22).map(|day| (day, day > 20)).collect();
        assert_eq!(logged_days, expected);
    }

    fn mutual(authority: &CertifiedIssuer<'static, KeyPair>, name: &str, ends: u64) -> TlsSettings {
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        let seconds = i64::try_from(NOON + ends).unwrap();
        params.not_after = time::OffsetDateTime::from_unix_timestamp(seconds).unwrap();
        let key = KeyPair::generate().unwrap();
        let chain = vec![params.signed_by(&key, authority).unwrap().der().clone()];
        let key = || PrivatePkcs8KeyDer::from(key.serialize_der()).into();
        let mut roots = RootCertStore::empty();
        roots.add(authority.der().clone()).unwrap();
        let roots = std::sync::Arc::new(roots);
        let provider = std::sync::Arc::new(default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone());
        let accepting = ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(verifier.build().unwrap())
            .with_single_cert(chain.clone(), key())
            .unwrap();
        let dialling = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key())
            .unwrap();
        TlsSettings {
            neighbours: Some(NeighbourTls {
                mode: TlsMode::Required,
                dialling: dialling.into(),
                accepting: accepting.into(),
            }),
            ..TlsSettings::default()
        }
    }

    #[test]
    fn a_link_that_outlives_its_neighbour_s_certificate_stays_up() {
        capture();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let authority = CertifiedIssuer::self_signed(params, key).unwrap();
        let mut dialling = node("Riley", mutual(&authority, "Riley", 86_400 * 900));
        let mut accepting = node("Jaquez", mutual(&authority, "Jaquez", 7));
        let dial = |node: &mut Node| {
            std::iter::from_fn(|| node.poll_request()).find_map(|request| match request {
                Request::Connect { id, .. } => Some(id),
                Request::Resolve { .. } | Request::Measure { .. } => None,
            })
        };
        let (mut from, mut to) = (&mut dialling, &mut accepting);
        let mut id = dial(from);
        if id.is_none() {
            // The built-in configuration decides which of the two servers dials.
            (from, to) = (to, from);
            id = dial(from);
        }
        let id = id.unwrap();
        let other = to
            .handle_neighbour_connected("127.0.0.1:4000".parse().unwrap(), at(0))
            .unwrap();
        from.handle_connection_made(id, at(0));
        for second in 0..12 {
            for _ in 0..20 {
                for (one, one_id, two, two_id) in [(0, id, 1, other), (1, other, 0, id)] {
                    let nodes = [&mut *from, &mut *to];
                    let [first, second_node] = nodes;
                    let (sender, receiver) = match (one, two) {
                        (0, 1) => (first, second_node),
                        _ => (second_node, first),
                    };
                    let output = sender.poll_output(one_id).to_vec();
                    sender.handle_output_sent(one_id, output.len(), at(second));
                    if !output.is_empty() {
                        receiver.handle_data_received(two_id, &output, at(second));
                    }
                    sender.poll_disposition(one_id, at(second));
                }
            }
            from.handle_deadlines(at(second));
            to.handle_deadlines(at(second));
            let warnings = LOGGED.take();
            let ended = warnings.iter().filter(|line| {
                line.starts_with("neighbour Jaquez: its certificate ended on 2027-01-15 08:00 UTC")
            });
            assert_eq!(ended.count(), usize::from(second == 8), "{warnings:#?}");
        }
        let links = [&*from, &*to].map(|node| {
            let neighbours = node.herd.iter();
            neighbours.filter(|it| it.link().is_some()).count()
        });
        assert_eq!(links, [1, 1], "the link is up");
    }
}
