//! Reads the description of a herd, its servers and links, from a preset or a TOML file, and checks
//! it.

use std::collections::{BTreeSet, HashSet};
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use rustls::pki_types::ServerName;
use serde::Deserialize;

use super::http::FileHttp;
use super::redact::redact_parser_message;
use super::tls::{FileClients, FilePeers, TlsFiles};
use super::{ConfigError, address, invalid};
use crate::core::base::limits::Limits;
use crate::core::base::settings::HostPort;
use crate::core::link::OPERATOR;
use crate::presets::{self, Preset};

/// Where the description of the herd comes from.
#[derive(Clone, Debug)]
pub enum Source {
    /// The preset that contains the server given to [`HerdConfig::load`]: the preset of 2021 if
    /// that one contains the server, otherwise the newest preset that does. If no server is given,
    /// the preset of 2021.
    Name,
    /// The preset of a year.
    Preset(String),
    /// A config file.
    File(PathBuf),
}

/// A server of a herd, and its addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// The name of the server.
    pub name: String,
    /// The address that clients connect to.
    pub clients: HostPort,
    /// The address that neighbours connect to. `None` is allowed for a server without links.
    pub peers: Option<HostPort>,
    /// The address of the HTTP port in the server's own `[[servers]]` table. `None` if this table
    /// has no such address; the `[http]` table or a flag can still set one.
    pub http: Option<HostPort>,
}

/// The description of a herd.
#[derive(Clone, Debug)]
pub struct HerdConfig {
    /// The name of the herd in error messages: the path of the config file, or the word `preset`
    /// and a year.
    pub title: String,
    /// The servers of the herd, in the order of the description.
    pub members: Vec<Member>,
    pub(super) links: Vec<(String, String)>,
    pub(super) file: File,
    /// The directory of the config file. Relative paths in the file are relative to it.
    directory: PathBuf,
}

/// The contents of the TOML file.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct File {
    servers: Vec<FileServer>,
    pub(super) links: Vec<(String, String)>,
    pub(super) secret_file: Option<PathBuf>,
    /// The directory for the journals. Each server has a subdirectory here, with the server's name.
    pub(super) data_dir: Option<PathBuf>,
    pub(super) fsync: Option<String>,
    pub(super) peers: FilePeers,
    pub(super) clients: FileClients,
    pub(super) places: FilePlaces,
    pub(super) http: FileHttp,
    pub(super) limits: Limits,
    pub(super) log: FileLog,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileServer {
    name: String,
    clients: String,
    peers: Option<String>,
    http: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct FilePlaces {
    pub(super) api: Option<String>,
    pub(super) url: Option<String>,
    pub(super) ca_file: Option<PathBuf>,
    pub(super) key_file: Option<PathBuf>,
    pub(super) field_mask: Option<String>,
    /// Questions a second; 0: any number.
    pub(super) max_per_second: Option<u64>,
    /// Questions in 24 hours; 0: any number.
    pub(super) max_per_day: Option<u64>,
    /// Questions of one address in 24 hours, after half of `max_per_day` is used; 0: any number.
    pub(super) max_per_day_per_address: Option<u64>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct FileLog {
    pub(super) file: Option<PathBuf>,
    pub(super) level: Option<String>,
    /// The length of the file, in bytes, at which the server rotates it.
    pub(super) max_bytes: Option<u64>,
    /// The number of rotated files that are kept.
    pub(super) keep: Option<u64>,
}

/// The maximum length of a server's name, in bytes.
const NAME_BYTES: usize = 64;

impl HerdConfig {
    /// Returns the pairs of linked servers. The first server of a pair dials the second.
    #[must_use]
    pub fn links(&self) -> &[(String, String)] {
        &self.links
    }

    /// Reads the description of a herd. If `name` is given, the herd must have a server of that
    /// name.
    ///
    /// # Errors
    /// There is no such herd or server, or the description cannot be read, or is wrong.
    pub fn load(source: &Source, name: Option<&str>) -> Result<HerdConfig, ConfigError> {
        let herd = match source {
            Source::File(path) => HerdConfig::from_file(path)?,
            Source::Preset(year) => match presets::by_year(year) {
                Some(preset) => HerdConfig::from_preset(preset),
                None => {
                    return invalid(format!(
                        "there is no preset {year:?}; there are: {}",
                        presets::list()
                    ));
                }
            },
            Source::Name => {
                match name.map_or_else(
                    || presets::by_year(presets::DEFAULT_YEAR),
                    presets::by_server,
                ) {
                    Some(preset) => HerdConfig::from_preset(preset),
                    None => {
                        let name = name.unwrap_or_default();
                        let all = presets::PRESETS.iter().flat_map(|preset| preset.servers);
                        let suggestion = closest_match(name, all)
                            .map_or(String::new(), |suggestion| {
                                format!(" did you mean {suggestion}?")
                            });
                        return invalid(format!(
                            "no preset has a server {name:?};{suggestion} there are: {}; or describe your own herd with --config",
                            presets::list()
                        ));
                    }
                }
            }
        };
        match name {
            Some(name) if !herd.members.iter().any(|member| member.name == name) => {
                let names: Vec<&str> = herd
                    .members
                    .iter()
                    .map(|member| member.name.as_str())
                    .collect();
                invalid(format!(
                    "{} has no server {name:?}; it has: {}",
                    herd.title,
                    names.join(" ")
                ))
            }
            Some(_) | None => Ok(herd),
        }
    }

    fn from_preset(preset: &Preset) -> HerdConfig {
        let at = |port: u16| HostPort {
            host: "127.0.0.1".into(),
            port,
        };
        let members = (0..).zip(preset.servers).map(|(index, name)| Member {
            name: name.into(),
            clients: at(presets::CLIENT_PORT + index),
            peers: Some(at(presets::PEER_PORT + index)),
            http: None,
        });
        HerdConfig {
            title: format!("preset {}", preset.year),
            members: members.collect(),
            links: preset
                .links
                .iter()
                .map(|&(a, b)| (a.into(), b.into()))
                .collect(),
            file: File::default(),
            directory: PathBuf::new(),
        }
    }

    fn from_file(path: &Path) -> Result<HerdConfig, ConfigError> {
        let title = path.display().to_string();
        let text = fs::read_to_string(path).map_err(|error| {
            ConfigError(format!(
                "cannot read the config file {title}: {error}; name another with --config"
            ))
        })?;
        let mut file: File = toml::from_str(&text).map_err(|error| {
            let (line, column) = line_and_column(&text, error.span().map_or(0, |span| span.start));
            let what = redact_parser_message(&with_suggestion(error.message()))
                .replace("expected u64", "expected a whole number");
            ConfigError(format!("{title}:{line}:{column}: {what}"))
        })?;
        file.limits.set = limits_set(&text);
        let herd = HerdConfig {
            members: file
                .servers
                .iter()
                .map(Member::from_file)
                .collect::<Result<_, _>>()
                .map_err(|what| ConfigError(format!("{title}: {what}")))?,
            links: file.links.clone(),
            directory: path.parent().map(Path::to_path_buf).unwrap_or_default(),
            title,
            file,
        };
        herd.check()
            .map_err(|what| ConfigError(format!("{}: {what}", herd.title)))?;
        Ok(herd)
    }

    fn check(&self) -> Result<(), String> {
        if self.members.is_empty() {
            return Err("it has no servers; add a [[servers]] table with a name, clients and peers for each".into());
        }
        let mut names = HashSet::new();
        let mut addresses = HashSet::new();
        for member in &self.members {
            let name = &member.name;
            if name.is_empty()
                || name.len() > NAME_BYTES
                || !name.bytes().all(|byte| byte.is_ascii_graphic())
            {
                return Err(format!(
                    "a server's name is 1 to {NAME_BYTES} printable ASCII characters without spaces, {name:?} is not"
                ));
            }
            if name == OPERATOR {
                return Err(format!(
                    "no server can be called {OPERATOR}: that is what tools call themselves that ask how a server stands"
                ));
            }
            if !names.insert(name.as_str()) {
                return Err(format!("two servers are called {name}"));
            }
            // The same address may not be used twice. Wildcard addresses and port 0 are exceptions:
            // two servers on different hosts can both listen on the wildcard address, and the
            // system chooses a free port for port 0.
            let is_fixed_address =
                |address: &&HostPort| address.port != 0 && !is_unspecified(&address.host);
            for address in member.addresses().filter(is_fixed_address) {
                if !addresses.insert(address) {
                    return Err(format!(
                        "the address {address} is used twice, the second time by {name}"
                    ));
                }
            }
        }
        let mut edges = HashSet::new();
        for (a, b) in &self.links {
            for name in [a, b] {
                match self.members.iter().find(|member| member.name == *name) {
                    None => {
                        return Err(format!(
                            "the link {a:?} – {b:?} names {name:?}, which is no server of this herd"
                        ));
                    }
                    Some(member) if member.peers.as_ref().is_none_or(|peers| peers.port == 0) => {
                        return Err(format!(
                            "{name} is linked, so it needs `peers`: an address with a port where it listens for neighbours"
                        ));
                    }
                    Some(_) => {}
                }
            }
            if a == b {
                return Err(format!("{a} is linked with itself"));
            }
            if !edges.insert((a.min(b), a.max(b))) {
                return Err(format!("{a} and {b} are linked twice"));
            }
        }
        if let Some(tls) = &self.file.peers.tls {
            tls.mode()?;
            self.check_names_for_certificates()?;
        }
        self.file.limits.check()
    }

    /// Checks that each server's name is a valid DNS name, because a server's certificate contains
    /// its name as a DNS name. DNS names allow fewer characters than server names. They also ignore
    /// case, so two names must not differ only in case.
    fn check_names_for_certificates(&self) -> Result<(), String> {
        let mut names = HashSet::new();
        for Member { name, .. } in &self.members {
            let is_dns_name = matches!(
                ServerName::try_from(name.as_str()),
                Ok(ServerName::DnsName(_))
            );
            // DNS names in certificates ignore case, so the value of `OPERATOR` is reserved in
            // upper, lower and mixed case.
            if !is_dns_name || name.ends_with('.') || name.eq_ignore_ascii_case(OPERATOR) {
                return Err(format!(
                    "with [peers.tls] a server's name has to be one that a certificate can have: letters, digits and hyphens; {name:?} is not"
                ));
            }
            if !names.insert(name.to_lowercase()) {
                return Err(format!(
                    "with [peers.tls] names have to differ in more than upper and lower case; {name:?} does not"
                ));
            }
        }
        Ok(())
    }

    /// Returns the paths of the certificates and keys of `name`. `name` is a server of the herd, or
    /// [`OPERATOR`] for a tool that connects to a server.
    #[must_use]
    pub fn tls_files(&self, name: &str) -> TlsFiles {
        TlsFiles::new(name, &self.directory, &self.file.clients, &self.file.peers)
    }

    /// Returns the servers that no chain of links connects with the first server of the
    /// description. Positions do not pass between these servers and the first server.
    pub(super) fn unreachable(&self) -> Vec<&str> {
        let mut reached: HashSet<&str> = self
            .members
            .first()
            .map(|member| member.name.as_str())
            .into_iter()
            .collect();
        for _ in &self.members {
            for (a, b) in &self.links {
                if reached.contains(a.as_str()) || reached.contains(b.as_str()) {
                    reached.extend([a.as_str(), b.as_str()]);
                }
            }
        }
        self.members
            .iter()
            .map(|member| member.name.as_str())
            .filter(|name| !reached.contains(name))
            .collect()
    }

    pub(super) fn path(&self, path: &Path) -> PathBuf {
        self.directory.join(path)
    }
}

impl Member {
    fn from_file(entry: &FileServer) -> Result<Member, String> {
        let setting = |key: &str| format!("servers.{key} of {:?}", entry.name);
        let clients = address(&entry.clients, &setting("clients")).map_err(|error| error.0)?;
        let optional = |text: &Option<String>, key: &str| {
            let address = text.as_deref().map(|text| address(text, &setting(key)));
            address.transpose().map_err(|error| error.0)
        };
        let peers = optional(&entry.peers, "peers")?;
        let http = optional(&entry.http, "http")?;
        Ok(Member {
            name: entry.name.clone(),
            clients,
            peers,
            http,
        })
    }

    pub(super) fn addresses(&self) -> impl Iterator<Item = &HostPort> {
        [Some(&self.clients), self.peers.as_ref(), self.http.as_ref()]
            .into_iter()
            .flatten()
    }
}

/// Adds the most similar valid key to the parser's message about an unknown key. There are many
/// keys, and most of them are limits, so a spelling mistake is likely.
fn with_suggestion(message: &str) -> String {
    let suggestion = || {
        let rest = message.strip_prefix("unknown field `")?;
        let (key, rest) = rest.split_once("`, expected ")?;
        let keys = rest.split('`').skip(1).step_by(2);
        Some((key, closest_match(key, keys)?, rest))
    };
    match suggestion() {
        Some((key, suggestion, rest)) => {
            format!("unknown field `{key}`; did you mean `{suggestion}`? (expected {rest})")
        }
        None => message.to_owned(),
    }
}

/// Returns the name in `names` that is most similar to `name`, if it is similar enough.
fn closest_match<'a>(name: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let similarity =
        |other: &str| strsim::jaro_winkler(&name.to_lowercase(), &other.to_lowercase());
    let similar = names
        .map(|other| (similarity(other), other))
        .filter(|(similarity, _)| *similarity > 0.8);
    similar
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, other)| other)
}

fn is_unspecified(host: &str) -> bool {
    host.parse::<IpAddr>().is_ok_and(|ip| ip.is_unspecified())
}

/// Returns the names of the limits that a config file sets. `text` is valid TOML.
fn limits_set(text: &str) -> BTreeSet<String> {
    let table: toml::Table = toml::from_str(text).unwrap_or_default();
    let limits = table.get("limits").and_then(toml::Value::as_table);
    limits.map_or_else(BTreeSet::new, |limits| limits.keys().cloned().collect())
}

/// Returns the line and the column of a byte offset, both counted from 1.
fn line_and_column(text: &str, at: usize) -> (usize, usize) {
    let before = text.get(..at).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before.chars().rev().take_while(|&c| c != '\n').count() + 1;
    (line, column)
}
