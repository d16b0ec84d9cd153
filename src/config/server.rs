//! Derives the configuration of one server from the description of its herd.

use std::path::{Path, PathBuf};

use log::LevelFilter;
use rustls::pki_types::UnixTime;

use super::address::{address, is_loopback};
use super::redact::redact;
use super::secrets::{SecretSource, journal_notes, mode_note, secret_notes};
use super::{Config, ConfigError, HerdConfig, Member, Overrides, TlsFiles, invalid};
use crate::core::base::settings::{HostPort, NeighbourSettings, Settings, TlsMode};
use crate::core::journal::durability::Fsync;
use crate::logging::{LogConfig, Rotation};
use crate::shell::ports::Ports;
use crate::shell::start::JournalConfig;

/// The default number of rotated logs that are kept.
const DEFAULT_LOGS_KEPT: u64 = 5;
const LOGS_KEPT_RANGE: (u64, u64) = (1, 1_000);
const LOG_BYTES_RANGE: (u64, u64) = (4_096, 1_099_511_627_776);

impl HerdConfig {
    /// Returns the configuration of the server `name`. Applies `overrides`, and reads every file
    /// that the configuration names.
    ///
    /// # Errors
    /// Something is missing, wrong or unreadable.
    pub fn server(self, name: &str, overrides: &Overrides) -> Result<Config, ConfigError> {
        let Some(member) = self.members.iter().find(|member| member.name == name) else {
            return invalid(format!("{} has no server {name:?}", self.title));
        };
        let http = self.http(member, overrides)?;
        let ports = Ports {
            http: http.as_ref().map(|http| http.listen.clone()),
            ..listen_addresses(member, overrides)?
        };
        let (secrets, secret_source) = self.secrets(overrides)?;
        let tls_files = self.tls_files(name);
        let tls = tls_files.read()?;
        if secrets.is_none() && tls_files.for_neighbours() != Some(TlsMode::Required) {
            self.check_links_are_local(ports.neighbours.as_ref())?;
        }
        let proxies = self.proxies(overrides)?;
        let (places, key_source, ca_source) = self.places(overrides)?;
        let settings = Settings {
            name: name.into(),
            herd: self
                .members
                .iter()
                .map(|member| member.name.clone())
                .collect(),
            neighbours: self.neighbours(name),
            secrets,
            proxies,
            tls,
            places,
            http,
            limits: self.file.limits.clone(),
        };
        let journal = self.journal(name, overrides)?;
        let log = LogConfig {
            file: self.log_file(name, overrides),
            level: self.log_level(overrides)?,
            rotation: self.log_rotation()?,
        };
        Ok(Config {
            ports,
            notes: self.notes(
                &settings,
                &log,
                journal.as_ref(),
                &secret_source,
                &tls_files,
                overrides,
            ),
            log,
            journal,
            settings,
            tls_files,
            herd: self.title,
            secret_source,
            key_source,
            ca_source,
        })
    }

    /// Returns the servers that a link connects with `name`.
    fn neighbours(&self, name: &str) -> Vec<NeighbourSettings> {
        let neighbour = |(a, b): &(String, String)| {
            let (other, we_dial) = if a == name {
                (b, true)
            } else if b == name {
                (a, false)
            } else {
                return None;
            };
            let member = self.members.iter().find(|member| member.name == *other)?;
            Some(NeighbourSettings {
                name: other.clone(),
                address: member.peers.clone()?,
                we_dial,
            })
        };
        self.links.iter().filter_map(neighbour).collect()
    }

    /// Checks that both ends of each link are on this machine. The caller requires this of a herd
    /// whose servers cannot prove their identity (no secret, and TLS is not required). `own` is the
    /// address where this server listens for neighbours, after overrides. The address for clients
    /// is not checked, because clients prove no identity in any herd.
    fn check_links_are_local(&self, own: Option<&HostPort>) -> Result<(), ConfigError> {
        let is_linked = |member: &&Member| {
            self.links
                .iter()
                .any(|(a, b)| [a, b].contains(&&member.name))
        };
        let linked = self.members.iter().filter(is_linked);
        let mut addresses = linked.filter_map(|member| member.peers.as_ref()).chain(own);
        match addresses.find(|address| !is_loopback(&address.host)) {
            None => Ok(()),
            Some(exposed) => invalid(format!(
                "the herd has no secret, and not all of its addresses are loopback ({exposed} is not); give every server the same \
                 secret with --secret-file or HERD_SECRET (openssl rand -hex 32 makes a good one), or certificates with [peers.tls], required"
            )),
        }
    }

    /// Returns notes for the operator about settings that work but may be unintended.
    fn notes(
        &self,
        settings: &Settings,
        log: &LogConfig,
        journal: Option<&JournalConfig>,
        secret_source: &SecretSource,
        tls_files: &TlsFiles,
        overrides: &Overrides,
    ) -> Vec<String> {
        let mut notes = Vec::new();
        let unreachable = self.unreachable();
        if !unreachable.is_empty() {
            notes.push(format!(
                "no chain of links joins {} with {}: updates will not cross",
                self.members[0].name,
                unreachable.join(", ")
            ));
        }
        let tls_mode = tls_files.for_neighbours();
        if tls_mode == Some(TlsMode::Offered) && !settings.neighbours.is_empty() {
            notes.push("TLS is only offered to neighbours: links may be plain, and an attacker who can change what passes between two servers can make theirs so; set peers.tls.mode to \"required\" when every server has [peers.tls]".into());
        }
        if settings.secrets.is_none()
            && tls_mode != Some(TlsMode::Required)
            && !settings.neighbours.is_empty()
        {
            notes.push("the herd has no secret: any program on this machine can pose as a neighbour (--secret-file, HERD_SECRET)".into());
        }
        notes.extend(secret_notes(&settings.secrets, secret_source));
        if let Some(all) = settings
            .proxies
            .0
            .iter()
            .find(|it| it.contains_every_address())
        {
            notes.push(format!(
                "clients.proxies has {all}: any client can claim any address in a PROXY header"
            ));
        }
        if settings.http.as_ref().is_some_and(|http| http.is_exposed) {
            notes.push("the HTTP port is exposed: any machine that reaches it can read every client's position (http.exposed)".into());
        }
        if settings.places.key.is_none() {
            notes.push("no key for Google Places: WHATSAT is answered with an error (--places-key-file, HERD_PLACES_KEY)".into());
        }
        notes.extend(rotation_note(log));
        let key_files = self.places_key_file(overrides).into_iter();
        let modes = key_files.chain(tls_files.keys());
        notes.extend(modes.filter_map(|file| mode_note(&file)));
        let own = settings.tls.own.iter();
        notes.extend(own.filter_map(|own| own.warning(UnixTime::now())));
        notes.extend(journal.into_iter().flat_map(journal_notes));
        notes.dedup(); // clients and neighbours may share a certificate
        notes
    }

    fn log_level(&self, overrides: &Overrides) -> Result<LevelFilter, ConfigError> {
        match (&overrides.log_level, &self.file.log.level) {
            (Some(level), _) => Ok(*level),
            (None, Some(text)) => text.parse().or_else(|_| {
                invalid(format!(
                    "{}: log.level is {:?}; it may be off, error, warn, info, debug or trace",
                    self.title,
                    redact(text)
                ))
            }),
            (None, None) => Ok(LevelFilter::Info),
        }
    }

    /// Returns when the server rotates its log, and how many rotated files it keeps. `None` if the
    /// server does not rotate the log.
    fn log_rotation(&self) -> Result<Option<Rotation>, ConfigError> {
        let log = &self.file.log;
        let within = |name: &str, value: u64, (min, max): (u64, u64)| {
            if (min..=max).contains(&value) {
                return Ok(value);
            }
            invalid(format!(
                "{}: log.{name} is {value}, must be {min} to {max}",
                self.title
            ))
        };
        let keep = within(
            "keep",
            log.keep.unwrap_or(DEFAULT_LOGS_KEPT),
            LOGS_KEPT_RANGE,
        )?;
        match log.max_bytes {
            Some(max_bytes) => Ok(Some(Rotation {
                max_bytes: within("max_bytes", max_bytes, LOG_BYTES_RANGE)?,
                keep,
            })),
            None if log.keep.is_some() => invalid(format!(
                "{}: log.keep is for a log that the server rotates: set log.max_bytes, too",
                self.title
            )),
            None => Ok(None),
        }
    }

    fn log_file(&self, name: &str, overrides: &Overrides) -> PathBuf {
        match (&overrides.log_file, &self.file.log.file) {
            (Some(path), _) => path.clone(),
            (None, Some(path)) if path == Path::new("-") => path.clone(),
            (None, Some(path)) => self.path(path),
            (None, None) => PathBuf::from(format!("{name}.log")),
        }
    }

    fn journal(
        &self,
        name: &str,
        overrides: &Overrides,
    ) -> Result<Option<JournalConfig>, ConfigError> {
        let fsync = match (overrides.fsync, self.file.fsync.as_deref()) {
            (Some(fsync), _) => fsync,
            (None, None) => Fsync::Interval,
            (None, Some(word)) if word.eq_ignore_ascii_case("always") => Fsync::Always,
            (None, Some(word)) if word.eq_ignore_ascii_case("interval") => Fsync::Interval,
            (None, Some(word)) if word.eq_ignore_ascii_case("never") => Fsync::Never,
            (None, Some(other)) => {
                return invalid(format!(
                    "{}: fsync is {:?}; it may be \"always\", \"interval\" or \"never\"",
                    self.title,
                    redact(other)
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
}

/// Returns a note for the operator if the configuration sets a rotation of the log, but the log's
/// file cannot be rotated.
fn rotation_note(log: &LogConfig) -> Option<String> {
    log.rotation.as_ref()?;
    let file = log.file.display();
    if log.file == Path::new("-") || log.file.exists() && !log.file.is_file() {
        return Some(format!(
            "log.max_bytes changes nothing: the log {file} is no plain file"
        ));
    }
    let named = log.file.canonicalize().unwrap_or_else(|_| log.file.clone());
    let directory = match named.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    let error = rustix::fs::access(directory, rustix::fs::Access::WRITE_OK).err()?;
    Some(format!(
        "the log {file} cannot be rotated: {}: {}; let the user who runs this write that directory",
        directory.display(),
        std::io::Error::from(error)
    ))
}

/// Returns the addresses on which a server listens for clients and for neighbours; `http` is `None`
/// in the result. A server without links may have no address for neighbours.
fn listen_addresses(member: &Member, overrides: &Overrides) -> Result<Ports, ConfigError> {
    let clients = match &overrides.listen {
        Some(text) => address(text, "where to listen for clients (--listen, HERD_LISTEN)")?,
        None => member.clients.clone(),
    };
    let neighbours = match &overrides.listen_peers {
        Some(text) => Some(address(
            text,
            "where to listen for neighbours (--listen-peers, HERD_LISTEN_PEERS)",
        )?),
        None => member.peers.clone(),
    };
    Ok(Ports {
        clients,
        neighbours,
        http: None,
    })
}
