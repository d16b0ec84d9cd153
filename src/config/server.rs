//! From the configuration of a herd to that of one of its servers.

use std::borrow::Cow;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use log::LevelFilter;

use super::address::{address, is_loopback};
use super::discretion::discreet;
use super::{Config, ConfigError, HerdConfig, Member, Overrides, TlsFiles, wrong};
use crate::core::durability::Fsync;
use crate::core::settings::{HostPort, NeighbourSettings, Secret, Settings};
use crate::shell::event_loop::JournalConfig;

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
        let (listen, listen_peers) = listens_at(member, overrides)?;
        let (secret, secret_source) = self.secret(overrides)?;
        let tls_files = self.tls_files(name);
        let tls = tls_files.read()?;
        if secret.expose().is_empty() && !tls_files.has_neighbours() {
            self.links_stay_on_this_machine(listen_peers.as_ref())?;
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
            secret,
            proxies,
            tls,
            places,
            limits: self.file.limits.clone(),
        };
        Ok(Config {
            listen,
            listen_peers,
            journal: self.journal(name, overrides)?,
            log_level: self.log_level(overrides)?,
            log_file: self.log_file(name, overrides),
            notes: self.notes(&settings, &tls_files, overrides),
            settings,
            tls_files,
            herd: self.title,
            secret_source,
            key_source,
            ca_source,
        })
    }

    /// Whom the links join with `name`.
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

    /// Of a herd whose servers cannot prove who they are: that no link leaves this machine. `own`
    /// is where this one listens for neighbours, whatever the herd's configuration says. Where
    /// clients connect does not matter: they prove nothing anyway.
    fn links_stay_on_this_machine(&self, own: Option<&HostPort>) -> Result<(), ConfigError> {
        let is_linked = |member: &&Member| {
            self.links
                .iter()
                .any(|(a, b)| [a, b].contains(&&member.name))
        };
        let linked = self.members.iter().filter(is_linked);
        let mut addresses = linked.filter_map(|member| member.peers.as_ref()).chain(own);
        match addresses.find(|address| !is_loopback(&address.host)) {
            None => Ok(()),
            Some(exposed) => wrong(format!(
                "the herd has no secret, and not all of its addresses are loopback ({exposed} is not); give every server the same \
                 secret with --secret-file or HERD_SECRET (openssl rand -hex 32 makes a good one), or certificates with [peers.tls]"
            )),
        }
    }

    /// What the operator should know, though it is not wrong.
    fn notes(
        &self,
        settings: &Settings,
        tls_files: &TlsFiles,
        overrides: &Overrides,
    ) -> Vec<String> {
        let mut notes = Vec::new();
        let lost = self.unreachable();
        if !lost.is_empty() {
            notes.push(format!(
                "no chain of links joins {} with {}: updates will not cross",
                self.members[0].name,
                lost.join(", ")
            ));
        }
        let secret_bytes = settings.secret.expose().len();
        if secret_bytes == 0 && !tls_files.has_neighbours() && !settings.neighbours.is_empty() {
            notes.push("the herd has no secret: any program on this machine can pose as a neighbour (--secret-file, HERD_SECRET)".into());
        }
        if (1..SHORT_SECRET).contains(&secret_bytes) {
            notes.push(format!("the herd secret has fewer than {SHORT_SECRET} bytes, which can be guessed; openssl rand -hex 32 makes a good one"));
        }
        if let Some(all) = settings.proxies.0.iter().find(|it| it.is_everything()) {
            notes.push(format!(
                "clients.proxies has {all}: any client can claim any address in a PROXY header"
            ));
        }
        if settings.places.key.is_none() {
            notes.push("no key for Google Places: WHATSAT is answered with an error (--places-key-file, HERD_PLACES_KEY)".into());
        }
        let secret_files = [self.secret_file(overrides), self.places_key_file(overrides)];
        let secret_files = secret_files.into_iter().flatten().chain(tls_files.keys());
        let mut readable: Vec<_> = secret_files.filter(|it| may_be_read_by_all(it)).collect();
        readable.dedup(); // clients and neighbours may be shown the same certificate
        for file in readable {
            let file = file.display();
            notes.push(format!(
                "the mode of {file} lets every user of this machine read it: chmod 600 {file}"
            ));
        }
        notes
    }

    fn log_level(&self, overrides: &Overrides) -> Result<LevelFilter, ConfigError> {
        match (&overrides.log_level, &self.file.log.level) {
            (Some(level), _) => Ok(*level),
            (None, Some(text)) => text.parse().or_else(|_| {
                wrong(format!(
                    "{}: log.level is {:?}; it may be off, error, warn, info, debug or trace",
                    self.title,
                    discreet(text)
                ))
            }),
            (None, None) => Ok(LevelFilter::Info),
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

    /// The herd's secret (empty if it has none), and where it was found.
    ///
    /// # Errors
    /// It can not be read.
    pub fn secret(&self, overrides: &Overrides) -> Result<(Secret, String), ConfigError> {
        let from_file = |path: &Path| {
            Ok((
                read_secret(path, "the herd secret", "--secret-file or HERD_SECRET_FILE")?,
                path.display().to_string(),
            ))
        };
        match (self.secret_file(overrides), &overrides.secret) {
            (Some(path), _) => from_file(&path),
            (None, Some(secret)) => Ok((secret.clone(), "HERD_SECRET".into())),
            (None, None) => Ok((Secret::default(), "none".into())),
        }
    }

    /// The file with the herd's secret, if it is in one.
    fn secret_file(&self, overrides: &Overrides) -> Option<PathBuf> {
        match (&overrides.secret_file, &overrides.secret) {
            (Some(path), _) => Some(path.clone()),
            (None, Some(_)) => None,
            (None, None) => self.file.secret_file.as_ref().map(|path| self.path(path)),
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
}

/// Where a server listens: for clients, and for neighbours if it has any.
fn listens_at(
    member: &Member,
    overrides: &Overrides,
) -> Result<(HostPort, Option<HostPort>), ConfigError> {
    let clients = match &overrides.listen {
        Some(text) => address(text, "where to listen for clients (--listen, HERD_LISTEN)")?,
        None => member.clients.clone(),
    };
    let peers = match &overrides.listen_peers {
        Some(text) => Some(address(
            text,
            "where to listen for neighbours (--listen-peers, HERD_LISTEN_PEERS)",
        )?),
        None => member.peers.clone(),
    };
    Ok((clients, peers))
}

/// Whether its mode lets everybody read a file that only the server's user should.
fn may_be_read_by_all(file: &Path) -> bool {
    fs::metadata(file).is_ok_and(|metadata| metadata.permissions().mode() & 0o004 != 0)
}

/// A secret from a file, without the white space around it.
pub(super) fn read_secret(path: &Path, what: &str, option: &str) -> Result<Secret, ConfigError> {
    let bytes = fs::read(path).map_err(|error| {
        // The file's own name may be what should be in it; its directory is not.
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let file = match discreet(&name) {
            Cow::Borrowed(_) => path.display().to_string(),
            Cow::Owned(unsaid) => path.with_file_name(unsaid).display().to_string(),
        };
        let advice = match error.kind() {
            io::ErrorKind::PermissionDenied => "let the user who runs this read it".to_owned(),
            io::ErrorKind::NotFound => format!("make that file, or name another with {option}"),
            _ => format!("name another file with {option}"),
        };
        ConfigError(format!("cannot read {what} from {file}: {error}; {advice}"))
    })?;
    let secret = bytes.trim_ascii();
    if secret.is_empty() {
        return wrong(format!("{what} in {} is empty", path.display()));
    }
    Ok(Secret::new(secret.to_vec()))
}
