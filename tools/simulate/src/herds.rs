//! The simulated herds, and the settings of their servers.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, OnceLock};

use herd_mio::core::base::limits::Limits;
use herd_mio::core::base::network::Networks;
use herd_mio::core::base::settings::{
    HostPort, NeighbourSettings, PlacesApi, PlacesQuota, PlacesSettings, Secret, Settings,
    TlsSettings,
};
use herd_mio::presets;
use rustls::{ClientConfig, RootCertStore};

use herd_testkit::rng::Rng;

const PEER_PORT: u16 = 11_000;
const CLIENT_PORT: u16 = 10_000;

/// The herds that are not presets.
const INVENTED: [(&str, usize); 4] = [
    ("pair", 2),
    ("ring-50", 50),
    ("tree-200", 200),
    ("graph-1000", 1_000),
];

/// The servers and links of a herd.
#[derive(Clone)]
pub(crate) struct Herd {
    /// In order.
    pub(crate) servers: Vec<String>,
    /// The links, as indices into `servers`. The first of a pair dials.
    pub(crate) edges: Vec<(usize, usize)>,
}

/// All names that [`Herd::new`] knows, the small herds first.
pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    let years = presets::PRESETS.iter().map(|preset| preset.year);
    years.chain(INVENTED.iter().map(|(name, _)| *name))
}

impl Herd {
    /// The herd of that name. The seed decides a random graph.
    pub(crate) fn new(name: &str, seed: u64) -> Option<Herd> {
        if let Some(preset) = presets::by_year(name) {
            let place = |server: &str| preset.servers.iter().position(|name| *name == server);
            return Some(Herd {
                servers: preset.servers.map(str::to_owned).to_vec(),
                edges: preset
                    .links
                    .iter()
                    .filter_map(|(a, b)| Some((place(a)?, place(b)?)))
                    .collect(),
            });
        }
        let (_, count) = *INVENTED.iter().find(|(known, _)| *known == name)?;
        let mut rng = Rng::new(seed, "herd");
        let mut edges: Vec<(usize, usize)> = match name {
            "ring-50" => (0..count).map(|at| (at, (at + 1) % count)).collect(),
            // Each server is linked with an earlier one, so the graph is connected and has no
            // cycle.
            _ => (1..count).map(|at| (at, rng.below(at))).collect(),
        };
        if name == "graph-1000" {
            for _ in 0..count / 2 {
                let (a, b) = (rng.below(count), rng.below(count));
                if a != b && !edges.contains(&(a, b)) && !edges.contains(&(b, a)) {
                    edges.push((a, b));
                }
            }
        }
        Some(Herd {
            servers: (0..count).map(|at| format!("Server{at}")).collect(),
            edges,
        })
    }

    /// For a reader.
    pub(crate) fn describe(&self) -> String {
        let count = self.servers.len();
        if count > 10 {
            return format!("{count} servers, {} edges", self.edges.len());
        }
        let edges = self.edges.iter().enumerate();
        let edges = edges.map(|(edge, (a, b))| {
            format!(
                "{edge}: {}({a})–{}({b})",
                self.servers[*a], self.servers[*b]
            )
        });
        edges.collect::<Vec<_>>().join(", ")
    }

    /// The settings of the server at `place`. With `by_name`, its neighbours have host names, which
    /// have to be looked up.
    pub(crate) fn settings(&self, place: usize, limits: &Limits, by_name: bool) -> Settings {
        let neighbours = self.edges.iter().filter_map(|&(dialler, acceptor)| {
            let (other, we_dial) = match place {
                _ if place == dialler => (acceptor, true),
                _ if place == acceptor => (dialler, false),
                _ => return None,
            };
            let host = if by_name {
                host_name(other)
            } else {
                ip(other).to_string()
            };
            Some(NeighbourSettings {
                name: self.servers[other].clone(),
                address: HostPort {
                    host,
                    port: PEER_PORT,
                },
                we_dial,
            })
        });
        Settings {
            name: self.servers[place].clone(),
            herd: self.servers.clone(),
            neighbours: neighbours.collect(),
            secrets: Secret::new(b"known to the herd alone".to_vec()).into(),
            proxies: Networks::default(),
            tls: TlsSettings::default(),
            places: PlacesSettings {
                api: PlacesApi::Legacy,
                origin: HostPort {
                    host: "192.0.2.1".to_owned(),
                    port: 443,
                },
                key: None,
                field_mask: String::new(),
                quota: PlacesQuota::default(),
                tls: tls(),
            },
            http: None,
            limits: limits.clone(),
        }
    }
}

fn ip(place: usize) -> IpAddr {
    // Herds have fewer servers than 10.0.0.0/16 has addresses.
    let place = place as u16;
    let [high, low] = place.to_be_bytes();
    Ipv4Addr::new(10, 0, high, low).into()
}

/// The name of a server's host.
fn host_name(place: usize) -> String {
    format!("host{place}.example")
}

/// The answer of the name server: two addresses. No server listens at the first.
pub(crate) fn look_up(name: &str) -> Option<Vec<IpAddr>> {
    let place: usize = name
        .strip_prefix("host")?
        .strip_suffix(".example")?
        .parse()
        .ok()?;
    let nobody = Ipv4Addr::new(10, 1, 0, 1).into();
    Some(vec![nobody, ip(place)])
}

/// The server that listens at this address, if any.
pub(crate) fn listener(address: SocketAddr) -> Option<usize> {
    match address.ip() {
        IpAddr::V4(ip) => match ip.octets() {
            [10, 0, high, low] => Some(usize::from(u16::from_be_bytes([high, low]))),
            _ => None,
        },
        IpAddr::V6(_) => None,
    }
}

/// The address from which a server dials.
pub(crate) fn server_address(place: usize) -> SocketAddr {
    SocketAddr::new(ip(place), CLIENT_PORT)
}

/// The source address of a client, as a server sees it.
pub(crate) fn client_address(session: usize) -> SocketAddr {
    SocketAddr::new(
        Ipv4Addr::new(198, 51, 100, (session % 250) as u8).into(),
        CLIENT_PORT,
    )
}

/// The TLS configuration for Places. The settings need one, although without a key Places is never
/// asked.
fn tls() -> Arc<ClientConfig> {
    static TLS: OnceLock<Arc<ClientConfig>> = OnceLock::new();
    #[allow(clippy::expect_used, reason = "a constant of the library below")]
    let config = TLS.get_or_init(|| {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("ring's provider speaks TLS 1.2 and 1.3")
            .with_root_certificates(RootCertStore::empty())
            .with_no_client_auth();
        Arc::new(config)
    });
    Arc::clone(config)
}
