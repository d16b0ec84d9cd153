//! From a preset or a TOML file, the environment and the flags to the settings of one server.
//!
//! Flags win over the environment, the environment over the file. Whatever is wrong is said in one line: where, what, and what to do.

pub mod discretion;
mod herd;
mod tls;

pub use herd::{HerdConfig, Member, Source};
pub use tls::{TlsFiles, for_a_client};

use std::borrow::Cow;
use std::fmt::{self, Write as _};
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use log::LevelFilter;

use self::discretion::{discreet, of_url};
use crate::core::durability::Fsync;
use crate::core::settings::{
    HostPort, NeighbourSettings, PlacesApi, PlacesSettings, Secret, Settings,
};
use crate::shell::event_loop::JournalConfig;

/// What is wrong, in one line.
#[derive(Debug, PartialEq, Eq)]
pub struct ConfigError(pub String);

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ConfigError {}

fn wrong<T>(what: impl Into<String>) -> Result<T, ConfigError> {
    Err(ConfigError(what.into()))
}

/// What the command line and the environment say; it wins over the file.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    /// Where this server listens for clients.
    pub listen: Option<String>,
    /// Where this server listens for neighbours.
    pub listen_peers: Option<String>,
    /// The file with the herd's secret.
    pub secret_file: Option<PathBuf>,
    /// The herd's secret, from the environment.
    pub secret: Option<Secret>,
    /// Places' origin.
    pub places_url: Option<String>,
    /// The certificate authority to trust for Places.
    pub places_ca: Option<PathBuf>,
    /// Which of Google's interfaces.
    pub places_api: Option<PlacesApi>,
    /// The file with the API key.
    pub places_key_file: Option<PathBuf>,
    /// The API key, from the environment.
    pub places_key: Option<Secret>,
    /// Which fields to ask the New API for.
    pub places_field_mask: Option<String>,
    /// Where the journal is kept.
    pub data_dir: Option<PathBuf>,
    /// When it is synced.
    pub fsync: Option<Fsync>,
    /// Where the log goes.
    pub log_file: Option<PathBuf>,
    /// How much is logged.
    pub log_level: Option<LevelFilter>,
}

/// One server, ready to start.
pub struct Config {
    /// What the core has to know.
    pub settings: Settings,
    /// Where to listen for clients.
    pub listen: HostPort,
    /// Where to listen for neighbours, if it has any.
    pub listen_peers: Option<HostPort>,
    /// Where positions are kept, if they are to outlast the server.
    pub journal: Option<JournalConfig>,
    /// Where the log goes; `-` is the standard error.
    pub log_file: PathBuf,
    /// How much is logged.
    pub log_level: LevelFilter,
    /// What the operator should know, though it is not wrong.
    pub notes: Vec<String>,
    /// Where its certificates and keys are, to be read anew.
    pub tls_files: TlsFiles,
    herd: String,
    secret_source: String,
    key_source: String,
    ca_source: String,
}

/// What the New API is asked for unless something else is wanted.
const FIELD_MASK: &str = "places.displayName,places.formattedAddress,places.location,places.types";
/// A shorter secret is said to be short.
const SHORT_SECRET: usize = 16;

impl HerdConfig {
    /// The server `name` of this herd, with `overrides` applied and every file read.
    ///
    /// # Errors
    /// Something is missing, wrong or unreadable.
    pub fn server(self, name: &str, overrides: &Overrides) -> Result<Config, ConfigError> {
        let Some(member) = self.members.iter().find(|member| member.name == name) else {
            return wrong(format!("{} has no server {name:?}", self.title));
        };
        let mut notes = Vec::new();
        let lost = self.unreachable();
        if !lost.is_empty() {
            notes.push(format!(
                "no chain of links joins {} with {}: updates will not cross",
                self.members[0].name,
                lost.join(", ")
            ));
        }

        let listen = overrides
            .listen
            .as_deref()
            .map(|text| address(text, "where to listen for clients (--listen, HERD_LISTEN)"))
            .transpose()?
            .unwrap_or_else(|| member.clients.clone());
        let listen_peers = match overrides.listen_peers.as_deref() {
            Some(text) => Some(address(
                text,
                "where to listen for neighbours (--listen-peers, HERD_LISTEN_PEERS)",
            )?),
            None => member.peers.clone(),
        };
        let neighbours = self.links.iter().filter_map(|(a, b)| {
            let (other, we_dial) = if a == name {
                (b, true)
            } else if b == name {
                (a, false)
            } else {
                return None;
            };
            let address = self
                .members
                .iter()
                .find(|member| member.name == *other)?
                .peers
                .clone()?;
            Some(NeighbourSettings {
                name: other.clone(),
                address,
                we_dial,
            })
        });
        let neighbours: Vec<NeighbourSettings> = neighbours.collect();

        let (secret, secret_source) = self.secret(overrides)?;
        let tls_files = self.tls_files(name);
        let tls = tls_files.read()?;
        if secret.expose().is_empty() && !tls_files.has_neighbours() {
            let own = [Some(&listen), listen_peers.as_ref()].into_iter().flatten();
            let exposed = self
                .members
                .iter()
                .flat_map(Member::addresses)
                .chain(own)
                .find(|address| !is_loopback(&address.host));
            if let Some(address) = exposed {
                return wrong(format!(
                    "the herd has no secret, and not all of its addresses are loopback ({address} is not); give every server the same \
                     secret with --secret-file or HERD_SECRET (openssl rand -hex 32 makes a good one), or certificates with [peers.tls]"
                ));
            }
            if !neighbours.is_empty() {
                notes.push("the herd has no secret: any program on this machine can pose as a neighbour (--secret-file, HERD_SECRET)".into());
            }
        }

        if (1..SHORT_SECRET).contains(&secret.expose().len()) {
            notes.push(format!("the herd secret has only {} bytes, which can be guessed; openssl rand -hex 32 makes a good one", secret.expose().len()));
        }
        let (places, key_source, ca_source) = self.places(overrides)?;
        if places.key.is_none() {
            notes.push("no key for Google Places: WHATSAT is answered with an error (--places-key-file, HERD_PLACES_KEY)".into());
        }
        let journal = self.journal(name, overrides)?;
        let log_level = match (&overrides.log_level, &self.file.log.level) {
            (Some(level), _) => *level,
            (None, Some(text)) => text.parse().or_else(|_| {
                wrong(format!(
                    "{}: log.level is {:?}; it may be off, error, warn, info, debug or trace",
                    self.title,
                    discreet(text)
                ))
            })?,
            (None, None) => LevelFilter::Info,
        };
        let log_file = match (&overrides.log_file, &self.file.log.file) {
            (Some(path), _) => path.clone(),
            (None, Some(path)) if path == Path::new("-") => path.clone(),
            (None, Some(path)) => self.path(path),
            (None, None) => PathBuf::from(format!("{name}.log")),
        };
        Ok(Config {
            settings: Settings {
                name: name.into(),
                herd: self
                    .members
                    .iter()
                    .map(|member| member.name.clone())
                    .collect(),
                neighbours,
                secret,
                tls,
                places,
                limits: self.file.limits.clone(),
            },
            listen,
            listen_peers,
            journal,
            log_file,
            log_level,
            notes,
            tls_files,
            herd: self.title,
            secret_source,
            key_source,
            ca_source,
        })
    }

    /// The herd's secret (empty if it has none), and where it was found.
    ///
    /// # Errors
    /// It can not be read.
    pub fn secret(&self, overrides: &Overrides) -> Result<(Secret, String), ConfigError> {
        let from_file = |path: &Path| {
            Ok((
                read_secret(path, "the herd secret")?,
                path.display().to_string(),
            ))
        };
        match (
            &overrides.secret_file,
            &overrides.secret,
            &self.file.secret_file,
        ) {
            (Some(path), _, _) => from_file(path),
            (None, Some(secret), _) => Ok((secret.clone(), "HERD_SECRET".into())),
            (None, None, Some(path)) => from_file(&self.path(path)),
            (None, None, None) => Ok((Secret::default(), "none".into())),
        }
    }

    fn journal(
        &self,
        name: &str,
        overrides: &Overrides,
    ) -> Result<Option<JournalConfig>, ConfigError> {
        let fsync = match (overrides.fsync, self.file.fsync.as_deref()) {
            (Some(fsync), _) => fsync,
            (None, Some("always")) => Fsync::Always,
            (None, Some("interval") | None) => Fsync::Interval,
            (None, Some("never")) => Fsync::Never,
            (None, Some(other)) => {
                return wrong(format!(
                    "{}: fsync is {:?}; it may be \"always\", \"interval\" or \"never\"",
                    self.title,
                    discreet(other)
                ));
            }
        };
        let of_file = || {
            self.file
                .data_dir
                .as_ref()
                .map(|directory| self.path(directory).join(name))
        };
        let directory = overrides.data_dir.clone().or_else(of_file);
        Ok(directory.map(|directory| JournalConfig { directory, fsync }))
    }

    fn places(
        &self,
        overrides: &Overrides,
    ) -> Result<(PlacesSettings, String, String), ConfigError> {
        let file = &self.file.places;
        let api = match (overrides.places_api, file.api.as_deref()) {
            (Some(api), _) => api,
            (None, Some("legacy") | None) => PlacesApi::Legacy,
            (None, Some("new")) => PlacesApi::New,
            (None, Some(other)) => {
                return wrong(format!(
                    "{}: places.api is {:?}; it may be \"legacy\" or \"new\"",
                    self.title,
                    discreet(other)
                ));
            }
        };
        let origin = match overrides.places_url.as_ref().or(file.url.as_ref()) {
            Some(url) => origin(url)?,
            None => HostPort {
                host: match api {
                    PlacesApi::Legacy => "maps.googleapis.com".into(),
                    PlacesApi::New => "places.googleapis.com".into(),
                },
                port: 443,
            },
        };
        let key_file = match (&overrides.places_key_file, &overrides.places_key) {
            (Some(path), _) => Some(path.clone()),
            (None, Some(_)) => None,
            (None, None) => file.key_file.as_ref().map(|path| self.path(path)),
        };
        let (key, key_source) = match (key_file, &overrides.places_key) {
            (Some(path), _) => (
                Some(read_secret(&path, "the Places key")?),
                path.display().to_string(),
            ),
            (None, Some(key)) => (Some(key.clone()), "HERD_PLACES_KEY".into()),
            (None, None) => (None, "none".into()),
        };
        if key.as_ref().is_some_and(|key| {
            key.expose().is_empty() || !key.expose().iter().all(u8::is_ascii_graphic)
        }) {
            return wrong(format!(
                "the Places key from {key_source} is empty or has characters that no key has (spaces, controls, non-ASCII)"
            ));
        }
        let field_mask = overrides
            .places_field_mask
            .clone()
            .or(file.field_mask.clone())
            .unwrap_or_else(|| FIELD_MASK.into());
        if field_mask.is_empty() || !field_mask.bytes().all(|byte| byte.is_ascii_graphic()) {
            return wrong(format!(
                "the field mask {:?} must be names joined by commas, without spaces",
                discreet(&field_mask)
            ));
        }
        let ca_file = overrides
            .places_ca
            .clone()
            .or(file.ca_file.as_ref().map(|path| self.path(path)));
        let (roots, ca_source) = match ca_file {
            Some(path) => (
                tls::roots_of(&path, "--places-ca")?,
                path.display().to_string(),
            ),
            None => (
                tls::of_browsers(),
                "the Mozilla list that is built in".into(),
            ),
        };
        Ok((
            PlacesSettings {
                api,
                origin,
                key,
                field_mask,
                tls: tls::trusting(roots)?,
            },
            key_source,
            ca_source,
        ))
    }
}

impl Config {
    /// What all of it means, for `--check`.
    #[must_use]
    pub fn describe(&self) -> String {
        let Settings {
            name,
            neighbours,
            places,
            limits,
            ..
        } = &self.settings;
        let (for_clients, for_neighbours) = self.tls_files.describe();
        let mut text = format!(
            "server      {name} of {}\nclients     {}\n",
            self.herd, self.listen
        );
        // Writing into a String does not fail.
        if let Some(address) = &self.listen_peers {
            let _ = writeln!(text, "neighbours  {address}");
        }
        for neighbour in neighbours {
            let how = if neighbour.we_dial {
                "dialled at"
            } else {
                "dials us from"
            };
            let host = if neighbour.we_dial {
                neighbour.address.to_string()
            } else {
                neighbour.address.host.clone()
            };
            let _ = writeln!(text, "link        {}, {how} {host}", neighbour.name);
        }
        let api = match places.api {
            PlacesApi::Legacy => "legacy",
            PlacesApi::New => "new",
        };
        let _ = writeln!(text, "secret      {}", self.secret_source);
        let _ = writeln!(text, "for clients {for_clients}");
        let _ = writeln!(text, "for peers   {for_neighbours}");
        let _ = writeln!(text, "places      https://{}, {api} API", places.origin);
        if places.api == PlacesApi::New {
            let _ = writeln!(text, "field mask  {}", places.field_mask);
        }
        let _ = writeln!(text, "places key  {}", self.key_source);
        let _ = writeln!(text, "places CA   {}", self.ca_source);
        let _ = match &self.journal {
            Some(JournalConfig { directory, fsync }) => {
                let when = match fsync {
                    Fsync::Always => "before each answer",
                    Fsync::Interval => "at intervals (limits.fsync_ms)",
                    Fsync::Never => "when the system likes",
                };
                writeln!(
                    text,
                    "journal     in {}, synced {when}",
                    directory.display()
                )
            }
            None => writeln!(text, "journal     none: positions live in memory"),
        };
        let _ = writeln!(
            text,
            "log         {}, level {}",
            self.log_file.display(),
            self.log_level.as_str().to_lowercase()
        );
        for note in &self.notes {
            let _ = writeln!(text, "note        {note}");
        }
        text.push_str("limits\n");
        for limit in limits.all() {
            let _ = writeln!(
                text,
                "  {:<24}{:>12}  {}",
                limit.name, limit.value, limit.about
            );
        }
        text
    }
}

/// `host:port` or `[v6]:port`.
///
/// # Errors
/// It is not that; `place` says where it was written.
pub fn address(text: &str, place: &str) -> Result<HostPort, ConfigError> {
    let error = || {
        ConfigError(format!(
            "{place} is {:?}; it must be host:port, such as 127.0.0.1:10000 or [::1]:10000",
            discreet(text)
        ))
    };
    let (host, port) = text.rsplit_once(':').ok_or_else(error)?;
    let port = Some(port)
        .filter(|port| port.bytes().all(|byte| byte.is_ascii_digit()))
        .and_then(|port| port.parse().ok())
        .ok_or_else(error)?;
    let host = match host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
    {
        Some(v6) if v6.parse::<std::net::Ipv6Addr>().is_ok() => v6,
        Some(_) => return Err(error()),
        None if host.contains([':', '[', ']']) => return Err(error()),
        None => host,
    };
    let name = host
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || b".-_:".contains(&byte));
    if host.is_empty() || !name {
        Err(error())
    } else {
        Ok(HostPort {
            host: host.into(),
            port,
        })
    }
}

/// `https://host[:port]`, and nothing behind it: the path follows from the API.
fn origin(url: &str) -> Result<HostPort, ConfigError> {
    let error = || {
        ConfigError(format!(
            "the Places URL {:?} must be https://host or https://host:port, without a path",
            of_url(url)
        ))
    };
    let rest = url.strip_prefix("https://").ok_or_else(error)?;
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    let has_port = rest
        .rsplit_once(':')
        .is_some_and(|(host, _)| !host.contains(':') || host.ends_with(']'));
    let with_port = if has_port {
        rest.to_owned()
    } else {
        format!("{rest}:443")
    };
    address(&with_port, "the Places URL")
        .ok()
        .filter(|origin| origin.port != 0)
        .ok_or_else(error)
}

fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// A secret from a file, without the white space around it.
fn read_secret(path: &Path, what: &str) -> Result<Secret, ConfigError> {
    let bytes = fs::read(path).map_err(|error| {
        // The file's own name may be what should be in it; its directory is not.
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let file = match discreet(&name) {
            Cow::Borrowed(_) => path.display().to_string(),
            Cow::Owned(unsaid) => path.with_file_name(unsaid).display().to_string(),
        };
        ConfigError(format!(
            "cannot read {what} from {file}: {error}; make that file, or name another"
        ))
    })?;
    let secret = bytes.trim_ascii();
    if secret.is_empty() {
        return wrong(format!("{what} in {} is empty", path.display()));
    }
    Ok(Secret::new(secret.to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn herd(text: &str) -> Result<HerdConfig, ConfigError> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("herd.toml");
        fs::write(&path, text).unwrap();
        let loaded = HerdConfig::load(&Source::File(path.clone()), None);
        loaded.map_err(|ConfigError(what)| {
            ConfigError(what.replace(path.to_str().unwrap(), "herd.toml"))
        })
    }

    const TWO: &str = "links = [[\"A\", \"B\"]]\n\
        [[servers]]\nname = \"A\"\nclients = \"127.0.0.1:1\"\npeers = \"127.0.0.1:2\"\n\
        [[servers]]\nname = \"B\"\nclients = \"127.0.0.1:3\"\npeers = \"127.0.0.1:4\"\n";

    #[test]
    fn a_file_becomes_a_server() {
        let config = herd(TWO)
            .unwrap()
            .server("B", &Overrides::default())
            .unwrap();
        assert_eq!(config.listen.to_string(), "127.0.0.1:3");
        assert_eq!(config.settings.neighbours[0].name, "A");
        assert!(
            !config.settings.neighbours[0].we_dial,
            "the first of a link dials"
        );
        assert_eq!(config.log_file, PathBuf::from("B.log"));
    }

    #[test]
    fn errors_say_where_and_what() {
        let error = |text: &str| herd(text).unwrap_err().0;
        assert_eq!(
            error("servers = 3"),
            "herd.toml:1:11: invalid type: integer `3`, expected a sequence"
        );
        assert!(
            error(&format!("{TWO}[limits]\nmax_cleints = 3\n"))
                .starts_with("herd.toml:11:1: unknown field `max_cleints`, expected one of")
        );
        assert_eq!(
            error(&format!("{TWO}[limits]\nmax_clients = 0\n")),
            "herd.toml: limits.max_clients is 0, must be 1 to 4000000"
        );
        assert!(error("").contains("no servers"));
        assert!(error(&TWO.replace("\"B\"", "\"A\"")).contains("two servers are called A"));
        assert!(error(&TWO.replace("\"A\", \"B\"", "\"A\", \"C\"")).contains("names \"C\""));
        assert!(error(&TWO.replace("\"A\", \"B\"", "\"A\", \"A\"")).contains("linked with itself"));
        assert!(
            error(&TWO.replace("[\"A\", \"B\"]", "[\"A\", \"B\"], [\"B\", \"A\"]"))
                .contains("linked twice")
        );
        assert!(error(&TWO.replace("127.0.0.1:4", "127.0.0.1:1")).contains("used twice"));
        assert!(error(&TWO.replace("127.0.0.1:4", "127.0.0.1")).contains("must be host:port"));
        assert!(error(&TWO.replace("peers = \"127.0.0.1:4\"\n", "")).contains("needs `peers`"));
        assert!(error(&TWO.replace("name = \"B\"", "name = \"B b\"")).contains("printable ASCII"));
    }

    #[test]
    fn a_herd_beyond_this_machine_needs_a_secret() {
        let far = TWO.replace("127.0.0.1:4", "192.0.2.1:4");
        let error = herd(&far)
            .unwrap()
            .server("A", &Overrides::default())
            .err()
            .unwrap();
        assert!(error.0.contains("(192.0.2.1:4 is not)"), "{error}");
        let with_secret = Overrides {
            secret: Some(Secret::new(b"x".to_vec())),
            ..Overrides::default()
        };
        assert!(herd(&far).unwrap().server("A", &with_secret).is_ok());
        let exposed = Overrides {
            listen: Some("0.0.0.0:1".into()),
            ..Overrides::default()
        };
        assert!(herd(TWO).unwrap().server("A", &exposed).is_err());
    }

    #[test]
    fn addresses_and_origins() {
        let good = |text: &str| address(text, "x").map(|a| a.to_string()).ok();
        assert_eq!(good("localhost:0").as_deref(), Some("localhost:0"));
        assert_eq!(good("[::1]:80").as_deref(), Some("[::1]:80"));
        for bad in [
            "", "a", ":1", "a:", "a:65536", "a:+1", "::1:80", "[a]:1", "a b:1",
        ] {
            assert_eq!(good(bad), None, "{bad}");
        }
        let origin = |url: &str| origin(url).map(|o| o.to_string()).ok();
        assert_eq!(
            origin("https://maps.googleapis.com").as_deref(),
            Some("maps.googleapis.com:443")
        );
        assert_eq!(origin("https://[::1]/").as_deref(), Some("[::1]:443"));
        assert_eq!(
            origin("https://localhost:8443/").as_deref(),
            Some("localhost:8443")
        );
        for bad in [
            "http://a",
            "a",
            "https://",
            "https://a/b",
            "https://a:0",
            "https://u@a",
            "https://a?b",
        ] {
            assert_eq!(origin(bad), None, "{bad}");
        }
    }

    #[test]
    fn flags_win_over_the_environment_and_the_environment_over_the_file() {
        let directory = tempfile::tempdir().unwrap();
        let write = |name: &str| {
            let path = directory.path().join(name);
            fs::write(&path, format!("{name}\n")).unwrap();
            path
        };
        let (flag, file) = (write("flag"), write("file"));
        let text = format!(
            "secret_file = {file:?}\n{TWO}[places]\nkey_file = {file:?}\nurl = \"https://file\"\n"
        );
        let secrets = |overrides: Overrides| {
            let settings = herd(&text)
                .unwrap()
                .server("A", &overrides)
                .unwrap()
                .settings;
            let text = |secret: &Secret| String::from_utf8(secret.expose().to_vec()).unwrap();
            (
                text(&settings.secret),
                text(settings.places.key.as_ref().unwrap()),
            )
        };
        let environment = Overrides {
            secret: Some(Secret::new(b"env".to_vec())),
            places_key: Some(Secret::new(b"env".to_vec())),
            ..Overrides::default()
        };
        let flags = Overrides {
            secret_file: Some(flag.clone()),
            places_key_file: Some(flag),
            ..environment.clone()
        };
        assert_eq!(
            secrets(Overrides::default()),
            ("file".into(), "file".into())
        );
        assert_eq!(secrets(environment), ("env".into(), "env".into()));
        assert_eq!(secrets(flags), ("flag".into(), "flag".into()));
    }

    #[test]
    fn nothing_secret_is_described_or_debugged() {
        let overrides = Overrides {
            secret: Some(Secret::new(b"herd-secret".to_vec())),
            places_key: Some(Secret::new(b"places-key".to_vec())),
            ..Overrides::default()
        };
        let config = herd(TWO).unwrap().server("A", &overrides).unwrap();
        let shown = format!("{}{overrides:?}", config.describe());
        assert!(
            !shown.contains("herd-secret") && !shown.contains("places-key"),
            "{shown}"
        );
    }
}
