//! The command line: its options and environment variables, and the messages about mistakes in
//! them.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use clap::builder::{BoolishValueParser, Resettable};
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::parser::ValueSource;
use clap::{ArgMatches, Command, CommandFactory, Parser, ValueEnum};
use log::LevelFilter;

use crate::config::redact::redact;
use crate::config::{Config, ConfigError, HerdConfig, Overrides, Source};
use crate::core::base::settings::{PlacesApi, Secret};
use crate::core::journal::durability::Fsync;

/// One server of a herd.
///
/// Clients connect over TCP and send their position (IAMAT). The servers of a herd pass the
/// positions on to each other. So a client can ask any server what is near any other client
/// (WHATSAT); the server then asks Google Places.
#[derive(Debug, Parser)]
#[command(name = "herd-mio", version, args_override_self = true, after_help = AFTER_HELP, max_term_width = 110)]
pub struct Cli {
    /// The name of this server in its herd
    #[arg(env = "HERD_NAME")]
    pub name: String,

    /// A TOML file that describes the herd: its servers, links, Places, limits and log
    #[arg(long, value_name = "FILE", env = "HERD_CONFIG")]
    config: Option<PathBuf>,

    /// A built-in herd, by year: 2016, 2018, 2020, 2021, 2022 or 2023 [default: 2021, or the newest
    /// herd with a server NAME]
    #[arg(long, value_name = "PRESET")]
    herd: Option<String>,

    /// The address on which to listen for clients, instead of the one in the herd's description;
    /// with port 0, the system chooses a port
    #[arg(long, value_name = "HOST:PORT", env = "HERD_LISTEN")]
    listen: Option<String>,

    /// The address on which to listen for neighbours, instead of the one in the herd's description
    #[arg(long, value_name = "HOST:PORT", env = "HERD_LISTEN_PEERS")]
    listen_peers: Option<String>,

    /// The address on which to listen for HTTP: health, metrics and states for operators, read-only
    /// [default: no such port]
    #[arg(long, value_name = "HOST:PORT", env = "HERD_HTTP")]
    http: Option<String>,

    /// Let other machines reach the HTTP port; without this, only a loopback address is allowed
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true",
        value_parser = BoolishValueParser::new(), env = "HERD_HTTP_EXPOSED")]
    http_exposed: Option<bool>,

    /// Read PROXY headers (HAProxy: send-proxy, send-proxy-v2) from the addresses in --proxies, and
    /// take the client's address from the header
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true",
        value_parser = BoolishValueParser::new(), env = "HERD_PROXY_PROTOCOL")]
    proxy_protocol: Option<bool>,

    /// The addresses and networks of the proxies that send a PROXY header, joined by commas:
    /// 10.0.0.2,fd00::/8. A connection from such an address must begin with the header. From any
    /// other address, the header is an invalid command
    #[arg(long, value_name = "ADDRESSES", env = "HERD_PROXIES")]
    proxies: Option<String>,

    /// The file with the secret that the herd's servers share; it has two lines while the secret is
    /// being changed (or give the secret in HERD_SECRET)
    #[arg(long, value_name = "FILE", env = "HERD_SECRET_FILE")]
    secret_file: Option<PathBuf>,

    /// The server to ask for places: https://host or https://host:port [default: Google's host for
    /// the API]
    #[arg(long, value_name = "URL", env = "HERD_PLACES_URL")]
    places_url: Option<String>,

    /// Trust this certificate authority (PEM) for Places, instead of those that browsers trust
    #[arg(long, value_name = "FILE", env = "HERD_PLACES_CA")]
    places_ca: Option<PathBuf>,

    /// Which of Google's two Places APIs to use [default: legacy]
    #[arg(long, value_name = "API", ignore_case = true, env = "HERD_PLACES_API")]
    places_api: Option<Api>,

    /// The file with the key for Google Places (or give the key in HERD_PLACES_KEY)
    #[arg(long, value_name = "FILE", env = "HERD_PLACES_KEY_FILE")]
    places_key_file: Option<PathBuf>,

    /// The fields to request from the New API, joined by commas
    #[arg(long, value_name = "FIELDS", env = "HERD_PLACES_FIELD_MASK")]
    places_field_mask: Option<String>,

    /// Keep a journal in this directory, so that positions survive a restart; without it, positions
    /// are only in memory
    #[arg(long, value_name = "DIR", env = "HERD_DATA_DIR")]
    data_dir: Option<PathBuf>,

    /// When the journal is synced to the disk: always (before each answer), interval (every second)
    /// or never [default: interval]
    #[arg(long, value_name = "WHEN", ignore_case = true, env = "HERD_FSYNC")]
    fsync: Option<When>,

    /// Where the log goes; - is the standard error [default: NAME.log]
    #[arg(long, value_name = "FILE", env = "HERD_LOG_FILE")]
    log_file: Option<PathBuf>,

    /// How much is logged [default: info]
    #[arg(long, value_name = "LEVEL", ignore_case = true, env = "HERD_LOG_LEVEL")]
    log_level: Option<Level>,

    /// Check whether the server can start, without serving: print the configuration, try the log,
    /// the ports and the journal, and leave all files as they are
    #[arg(long)]
    pub check: bool,
}

const AFTER_HELP: &str = "\
Examples:
  herd-mio Riley                          a server of the course's herd of 2021, on 127.0.0.1:10000
  herd-mio Clark --herd 2022 --check      what it would do, and whether it can
  herd-mio Alice --config herd.toml       a server of your own herd

Then, from another terminal:
  echo 'IAMAT kiwi +34.068930-118.445127 1621464827.959498503' | nc -N 127.0.0.1 10000
  echo 'WHATSAT kiwi 10 5' | nc -N 127.0.0.1 10000

Flags win over the environment, the environment wins over the file. An empty variable is as good as none.
Signals: TERM and INT stop. HUP reads certificates, keys and the secret again, and opens the log again. USR1 opens
the log again. USR2 drains: no new clients, the others are closed over limits.drain_ms, then it stops.
Exit status: 0 after a clean stop, 1 if something failed while running, 2 for a mistake in usage or configuration.";

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Api {
    Legacy,
    New,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Level {
    Off,
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum When {
    Always,
    Interval,
    Never,
}

impl Cli {
    /// Parses the arguments of this process. For `--help` and `--version`, clap returns an error
    /// too; its `clap::Error::exit_code` is 0.
    ///
    /// # Errors
    /// The error of clap.
    pub fn from_arguments() -> Result<Cli, clap::Error> {
        Cli::from(std::env::args_os().collect())
    }

    fn from(arguments: Vec<OsString>) -> Result<Cli, clap::Error> {
        let (mut cli, matches): (Cli, _) = parse(&arguments)?;
        if cli.config.is_some() && cli.herd.is_some() {
            // The flag `--herd` overrides the variable `HERD_CONFIG`. It cannot be combined with
            // the flag `--config`.
            if matches.value_source("config") != Some(ValueSource::EnvVariable) {
                let both = "the argument '--config <FILE>' cannot be used with '--herd <PRESET>'";
                return Err(Cli::command().error(ErrorKind::ArgumentConflict, both));
            }
            cli.config = None;
        }
        Ok(cli)
    }

    /// Returns the configuration that the command line and the environment give.
    ///
    /// # Errors
    /// Something is missing, wrong or unreadable.
    pub fn config(&self) -> Result<Config, ConfigError> {
        let source = match (&self.config, &self.herd) {
            (Some(path), _) => Source::File(path.clone()),
            (None, Some(year)) => Source::Preset(year.clone()),
            (None, None) => Source::Name,
        };
        let overrides = Overrides {
            listen: self.listen.clone(),
            listen_peers: self.listen_peers.clone(),
            http: self.http.clone(),
            http_exposed: self.http_exposed,
            proxy_protocol: self.proxy_protocol,
            proxies: self.proxies.clone(),
            secret_file: self.secret_file.clone(),
            secret: secret_of("HERD_SECRET"),
            places_url: self.places_url.clone(),
            places_ca: self.places_ca.clone(),
            places_api: self.places_api.map(|api| match api {
                Api::Legacy => PlacesApi::Legacy,
                Api::New => PlacesApi::New,
            }),
            places_key_file: self.places_key_file.clone(),
            places_key: secret_of("HERD_PLACES_KEY"),
            places_field_mask: self.places_field_mask.clone(),
            data_dir: self.data_dir.clone(),
            fsync: self.fsync.map(|when| match when {
                When::Always => Fsync::Always,
                When::Interval => Fsync::Interval,
                When::Never => Fsync::Never,
            }),
            log_file: self.log_file.clone(),
            log_level: self.log_level.map(|level| match level {
                Level::Off => LevelFilter::Off,
                Level::Error => LevelFilter::Error,
                Level::Warn => LevelFilter::Warn,
                Level::Info => LevelFilter::Info,
                Level::Debug => LevelFilter::Debug,
                Level::Trace => LevelFilter::Trace,
            }),
        };
        let herd =
            HerdConfig::load(&source, Some(&self.name)).map_err(|ConfigError(message)| {
                // The error of `load` names only `--config`, because other programs that call
                // `load` do not read the variable `HERD_CONFIG`. This program does, so the name of
                // the variable is added here.
                let hint = "name another with --config or HERD_CONFIG";
                ConfigError(message.replace("name another with --config", hint))
            })?;
        herd.server(&self.name, &overrides)
    }
}

/// Parses a command line and its environment variables. An empty variable counts as not set. An
/// error about the value of a variable names the variable.
///
/// # Errors
/// The error of clap.
pub fn parse<C: Parser>(arguments: &[OsString]) -> Result<(C, ArgMatches), clap::Error> {
    let mut command = without_empty_variables(C::command());
    let matches = command
        .try_get_matches_from_mut(arguments)
        .map_err(|error| name_variable_in_error(error, &command, arguments))?;
    let parsed = C::from_arg_matches(&matches).map_err(|error| error.format(&mut command))?;
    Ok((parsed, matches))
}

/// Returns `command`, changed to ignore each environment variable that is empty. For example,
/// `HERD_LISTEN: ${LISTEN:-}` in a compose file sets an empty variable.
fn without_empty_variables(command: Command) -> Command {
    let is_empty = |variable: &OsStr| {
        std::env::var_os(variable)
            .is_some_and(|value| value.as_encoded_bytes().trim_ascii().is_empty())
    };
    let empty: Vec<_> = command
        .get_arguments()
        .filter(|argument| argument.get_env().is_some_and(is_empty))
        .map(|argument| argument.get_id().clone())
        .collect();
    empty.into_iter().fold(command, |command, id| {
        command.mut_arg(id, |argument| argument.env(Resettable::Reset))
    })
}

/// Changes `error` if the wrong value comes from an environment variable: the returned error names
/// that variable instead of the flag.
fn name_variable_in_error(
    mut error: clap::Error,
    command: &Command,
    arguments: &[OsString],
) -> clap::Error {
    let Some(ContextValue::String(invalid_argument)) = error.get(ContextKind::InvalidArg) else {
        return error;
    };
    let is_given = |flag: &str| {
        let given = |argument: &OsString| {
            let rest = argument.as_encoded_bytes().strip_prefix(flag.as_bytes());
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(b"="))
        };
        arguments.iter().skip(1).any(given)
    };
    let variable = command
        .get_arguments()
        .find(|argument| argument.to_string() == *invalid_argument)
        .filter(|argument| !is_given(&format!("--{}", argument.get_long().unwrap_or_default())))
        .and_then(|argument| argument.get_env())
        .filter(|variable| std::env::var_os(variable).is_some());
    if let Some(variable) = variable {
        let variable = variable.to_string_lossy().into_owned();
        error.insert(ContextKind::InvalidArg, ContextValue::String(variable));
    }
    error
}

/// Returns a secret from an environment variable. An empty variable counts as not set.
fn secret_of(variable: &str) -> Option<Secret> {
    use std::os::unix::ffi::OsStrExt;
    let value = std::env::var_os(variable)?;
    let value = value.as_bytes().trim_ascii();
    (!value.is_empty()).then(|| Secret::new(value.to_vec()))
}

/// Returns the first paragraph of an error of clap as one line, with possible secrets replaced.
#[must_use]
pub fn one_line(error: &clap::Error) -> String {
    let text = error.to_string();
    let first_paragraph = text
        .lines()
        .take_while(|line| !line.trim().is_empty())
        .map(str::trim);
    let joined = first_paragraph.collect::<Vec<_>>().join(" ");
    let joined = redact(&joined);
    format!(
        "{}; see herd-mio --help",
        joined.strip_prefix("error: ").unwrap_or(&joined)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_usage_error_is_one_line() {
        let mistake = |arguments: &[&str]| {
            one_line(&Cli::from(arguments.iter().map(Into::into).collect()).unwrap_err())
        };
        assert_eq!(
            mistake(&["herd-mio"]),
            "the following required arguments were not provided: <NAME>; see herd-mio --help"
        );
        assert_eq!(
            mistake(&["herd-mio", "Riley", "--prot", "1"]),
            "unexpected argument '--prot' found; see herd-mio --help"
        );
        let api = mistake(&["herd-mio", "Riley", "--places-api", "old"]);
        assert_eq!(
            api,
            "invalid value 'old' for '--places-api <API>' [possible values: legacy, new]; see herd-mio --help"
        );
    }
}
