//! The command line and the environment.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use tracing::Level;

use crate::proof::OPERATOR;

/// One server of a herd, written with tokio.
///
/// Environment: HERD_SECRET is the secret that the herd's servers share, HERD_PLACES_KEY the key for Google Places.
#[derive(Parser)]
#[command(name = "herd-tokio", version, max_term_width = 110)]
pub(crate) struct Cli {
    /// Which server of the herd this is
    #[arg(value_parser = server_name)]
    pub(crate) name: String,

    /// Where to listen for clients; port 0 lets the system choose
    #[arg(long, value_name = "HOST:PORT", value_parser = address)]
    pub(crate) listen: String,

    /// Where to listen for neighbours; port 0 lets the system choose
    #[arg(long, value_name = "HOST:PORT", value_parser = address)]
    pub(crate) listen_peers: String,

    /// A neighbour that this server connects to
    #[arg(long, value_name = "NAME=HOST:PORT", value_parser = dialled)]
    pub(crate) dial: Vec<Dialled>,

    /// A neighbour that connects to this server
    #[arg(long, value_name = "NAME", value_parser = server_name)]
    pub(crate) accept: Vec<String>,

    /// Whom to ask for places: https://host or https://host:port
    #[arg(
        long,
        value_name = "URL",
        default_value = "https://maps.googleapis.com"
    )]
    pub(crate) places_url: String,

    /// Trust this certificate authority (PEM) for Places, instead of those that browsers trust
    #[arg(long, value_name = "FILE")]
    pub(crate) places_ca: Option<PathBuf>,

    /// Where to log, appending
    #[arg(long, value_name = "FILE")]
    pub(crate) log_file: PathBuf,

    /// How much to log: everything, or only trouble
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    pub(crate) log_level: LogLevel,
}

/// The log level.
#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum LogLevel {
    Info,
    Warn,
}

impl From<LogLevel> for tracing::level_filters::LevelFilter {
    fn from(level: LogLevel) -> Self {
        Self::from_level(match level {
            LogLevel::Info => Level::INFO,
            LogLevel::Warn => Level::WARN,
        })
    }
}

/// A neighbour that this server connects to.
#[derive(Clone)]
pub(crate) struct Dialled {
    pub(crate) name: String,
    pub(crate) address: String,
}

impl Cli {
    /// Parses the arguments. An error is the exit status.
    pub(crate) fn from_arguments() -> Result<Cli, ExitCode> {
        let cli = Cli::try_parse().map_err(|error| {
            let status = if error.exit_code() == 0 { 0 } else { 2 };
            // This shows the help, the version or a mistake. A closed pipe is ignored.
            let _ = error.print();
            ExitCode::from(status)
        })?;
        let names = cli.dial.iter().map(|dialled| &dialled.name);
        let mut names: Vec<&String> = names.chain(&cli.accept).chain([&cli.name]).collect();
        names.sort();
        match names.windows(2).find(|pair| pair[0] == pair[1]) {
            Some(twice) => Err(mistake(&format!("{} is named twice", twice[0]))),
            None => Ok(cli),
        }
    }
}

/// Reports a mistake in the command line.
pub(crate) fn mistake(what: &str) -> ExitCode {
    let _ = writeln!(io::stderr(), "herd-tokio: {what}");
    ExitCode::from(2)
}

/// The value of an environment variable without white space around it. `None` if that is empty.
pub(crate) fn variable(name: &str) -> Option<String> {
    let text = std::env::var(name).ok()?.trim().to_owned();
    (!text.is_empty()).then_some(text)
}

fn server_name(text: &str) -> Result<String, String> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_graphic()) || text == OPERATOR {
        return Err(format!(
            "a server's name is printable ASCII without spaces, and not {OPERATOR:?}"
        ));
    }
    Ok(text.to_owned())
}

fn dialled(text: &str) -> Result<Dialled, String> {
    let (name, address) = text.split_once('=').ok_or("NAME=HOST:PORT is wanted")?;
    if !address.contains(':') {
        return Err(format!("{address:?} has no port"));
    }
    Ok(Dialled {
        name: server_name(name)?,
        address: address.to_owned(),
    })
}

/// Checks `HOST:PORT`.
fn address(text: &str) -> Result<String, String> {
    match text.rsplit_once(':') {
        Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok() => {
            Ok(text.to_owned())
        }
        _ => Err("it must be HOST:PORT".to_owned()),
    }
}
