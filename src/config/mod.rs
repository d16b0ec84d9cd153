//! Makes the configuration of one server. The sources are a preset or a TOML file, the environment
//! variables, and the flags on the command line.
//!
//! Flags override the environment, and the environment overrides the file. Each error is one line
//! that says where the mistake is, what is wrong, and what to do.

mod address;
mod describe;
mod herd;
mod http;
mod memory;
mod places;
mod proxies;
pub mod redact;
pub mod secrets;
mod server;
mod tls;

pub use address::address;
pub use herd::{HerdConfig, Member, Source};
pub use memory::WorstCase;
pub use secrets::SecretSource;
pub use tls::{TlsFiles, client_tls_config};

use std::fmt;
use std::path::PathBuf;

use log::LevelFilter;

use crate::core::base::settings::{PlacesApi, Secret, Settings};
use crate::core::journal::durability::Fsync;
use crate::logging::LogConfig;
use crate::shell::ports::Ports;
use crate::shell::start::JournalConfig;

/// A mistake in the configuration, described in one line.
#[derive(Debug, PartialEq, Eq)]
pub struct ConfigError(pub String);

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ConfigError {}

fn invalid<T>(what: impl Into<String>) -> Result<T, ConfigError> {
    Err(ConfigError(what.into()))
}

/// The settings from the command line and the environment. A value that is not `None` overrides the
/// value in the config file.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    /// The address on which this server listens for clients.
    pub listen: Option<String>,
    /// The address on which this server listens for neighbours.
    pub listen_peers: Option<String>,
    /// The address on which this server listens for HTTP.
    pub http: Option<String>,
    /// Whether other machines may reach the HTTP port.
    pub http_exposed: Option<bool>,
    /// Whether proxies may send a PROXY header that contains the client's address.
    pub proxy_protocol: Option<bool>,
    /// The addresses and networks of the trusted proxies, joined by commas.
    pub proxies: Option<String>,
    /// The file with the herd's secret.
    pub secret_file: Option<PathBuf>,
    /// The herd's secret, from the environment.
    pub secret: Option<Secret>,
    /// The URL of Places: scheme, host and port.
    pub places_url: Option<String>,
    /// The file with the certificate authorities to trust for Places.
    pub places_ca: Option<PathBuf>,
    /// Which API of Google Places to use.
    pub places_api: Option<PlacesApi>,
    /// The file with the API key.
    pub places_key_file: Option<PathBuf>,
    /// The API key, from the environment.
    pub places_key: Option<Secret>,
    /// The fields to request from the New API.
    pub places_field_mask: Option<String>,
    /// The directory of the journal.
    pub data_dir: Option<PathBuf>,
    /// When the journal is synced.
    pub fsync: Option<Fsync>,
    /// The file to log to; `-` is the standard error.
    pub log_file: Option<PathBuf>,
    /// The least severe level that is logged.
    pub log_level: Option<LevelFilter>,
}

/// The complete configuration of one server.
pub struct Config {
    /// The settings of the core.
    pub settings: Settings,
    /// The addresses to listen on.
    pub ports: Ports,
    /// The directory of the journal, and when to sync it. `None` if the server keeps no journal.
    pub journal: Option<JournalConfig>,
    /// The file to log to, the level, and the rotation.
    pub log: LogConfig,
    /// Notes for the operator about settings that work but may be unintended.
    pub notes: Vec<String>,
    /// The paths of the files with certificates and keys. A running server reads these files again
    /// after a SIGHUP.
    pub tls_files: TlsFiles,
    /// Where the herd's secret was found. If the secret is in a file, a running server can read
    /// this file again.
    pub secret_source: SecretSource,
    herd: String,
    key_source: String,
    ca_source: String,
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;
    use std::path::Path;

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
    fn a_config_file_configures_a_server() {
        let config = herd(TWO)
            .unwrap()
            .server("B", &Overrides::default())
            .unwrap();
        assert_eq!(config.ports.clients.to_string(), "127.0.0.1:3");
        assert_eq!(config.settings.neighbours[0].name, "A");
        assert!(
            !config.settings.neighbours[0].we_dial,
            "the first of a link dials"
        );
        assert_eq!(config.log.file, PathBuf::from("B.log"));
    }

    #[test]
    fn config_errors_have_a_position_and_a_reason() {
        let error = |text: &str| herd(text).unwrap_err().0;
        assert_eq!(
            error("servers = 3"),
            "herd.toml:1:11: invalid type: integer `3`, expected a sequence"
        );
        assert!(
            error(&format!("{TWO}[limits]\nmax_cleints = 3\n"))
                .starts_with("herd.toml:11:1: unknown field `max_cleints`; did you mean `max_clients`? (expected one of")
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
    fn limits_set_in_the_config_file_are_recorded() {
        let text = format!("{TWO}[limits]\nmax_clients_per_address = 50_000\n");
        let config = herd(&text).unwrap().server("A", &Overrides::default());
        let limits = config.unwrap().settings.limits;
        assert!(limits.set.iter().eq(["max_clients_per_address"]));
    }

    #[test]
    fn the_default_rate_limit_applies_to_google_only() {
        let check = |places: &str| {
            let text = format!("{TWO}[places]\n{places}");
            let config = herd(&text).unwrap().server("A", &Overrides::default());
            let described = config.map(|config| config.describe());
            let line = described.map(|text| {
                let line = text.lines().find_map(|it| it.strip_prefix("questions   "));
                line.unwrap().to_owned()
            });
            line.unwrap_or_else(|ConfigError(what)| {
                what.split_once("places.").unwrap().1.to_owned()
            })
        };
        let second = "at most 100 a second (places.max_per_second)";
        let no_day = "any number in 24 hours (places.max_per_day)";
        assert_eq!(check(""), format!("{second}, {no_day}"));
        assert_eq!(check("api = \"new\""), format!("{second}, {no_day}"));
        assert_eq!(
            check("url = \"https://localhost:1\""),
            format!("any number a second (places.max_per_second), {no_day}")
        );
        assert_eq!(
            check("max_per_second = 0\nmax_per_day = 1_000"),
            "any number a second (places.max_per_second), at most 1000 in 24 hours (places.max_per_day), at most 62 for one address after half, loopback excepted (places.max_per_day_per_address)"
        );
        assert_eq!(
            check("max_per_day = 9\nmax_per_day_per_address = 3"),
            format!(
                "{second}, at most 9 in 24 hours (places.max_per_day), at most 3 for one address after half (places.max_per_day_per_address)"
            )
        );
        assert_eq!(
            check("max_per_second = 1_000_001"),
            "max_per_second is 1000001, must be 0 to 1000000"
        );
    }

    #[test]
    fn a_world_readable_secret_file_is_noted() {
        let directory = tempfile::tempdir().unwrap();
        let files = ["secret", "key"].map(|name| directory.path().join(name));
        let overrides = Overrides {
            secret_file: Some(files[0].clone()),
            places_key_file: Some(files[1].clone()),
            ..Overrides::default()
        };
        let notes = |modes: [u32; 2]| {
            for (file, mode) in files.iter().zip(modes) {
                fs::write(file, "0123456789abcdef").unwrap();
                fs::set_permissions(file, fs::Permissions::from_mode(mode)).unwrap();
            }
            herd(TWO).unwrap().server("A", &overrides).unwrap().notes
        };
        let note = |file: &Path| {
            let file = file.display();
            format!("the mode of {file} lets every user of this machine read it: chmod 600 {file}")
        };
        assert_eq!(notes([0o600, 0o640]), [""; 0]);
        assert_eq!(notes([0o604, 0o600]), [note(&files[0])]);
        assert_eq!(notes([0o644, 0o644]), [note(&files[0]), note(&files[1])]);
    }

    #[test]
    fn links_to_other_hosts_need_a_secret() {
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
            listen_peers: Some("0.0.0.0:2".into()),
            ..Overrides::default()
        };
        assert!(herd(TWO).unwrap().server("A", &exposed).is_err());
        // No link leaves the machine.
        let open_to_clients = Overrides {
            listen: Some("0.0.0.0:1".into()),
            ..Overrides::default()
        };
        assert!(herd(TWO).unwrap().server("A", &open_to_clients).is_ok());
        let far_clients = TWO.replace("127.0.0.1:3", "192.0.2.1:3");
        assert!(
            herd(&far_clients)
                .unwrap()
                .server("A", &Overrides::default())
                .is_ok()
        );
        let alone = far.replace("links = [[\"A\", \"B\"]]\n", "");
        assert!(
            herd(&alone)
                .unwrap()
                .server("A", &Overrides::default())
                .is_ok()
        );
    }

    #[test]
    fn flags_override_variables_which_override_the_file() {
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
                text(settings.secrets.primary()),
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
    fn secrets_are_not_in_describe_or_debug_output() {
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
