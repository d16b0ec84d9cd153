//! The common part of an operator's commands: the options that name the herd and its secret.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser};
use herd_mio::cli::parse;
use herd_mio::config::{HerdConfig, Overrides, Source};
use herd_mio::core::base::settings::Secret;
use herd_mio::core::link::OPERATOR;
use herd_testkit::failure::{Failure, one_line};
use herd_testkit::output;

use crate::survey::Question;

/// The options that name the herd and its secret.
#[derive(Args)]
pub(crate) struct HerdOptions {
    /// The TOML file that describes the herd [default: the course's herd of 2021]
    #[arg(long, value_name = "FILE", conflicts_with = "herd")]
    config: Option<PathBuf>,

    /// A herd of the course, by year
    #[arg(long, value_name = "PRESET")]
    herd: Option<String>,

    /// The file with the secret that the herd's servers share (or give it in HERD_SECRET)
    #[arg(long, value_name = "FILE", env = "HERD_SECRET_FILE")]
    secret_file: Option<PathBuf>,
}

/// Parses the command line of the command `name`, and runs it.
pub(crate) fn main<C: Parser>(
    name: &str,
    arguments: &[OsString],
    run: impl FnOnce(C) -> Result<ExitCode, Failure>,
) -> ExitCode {
    match parse(arguments) {
        Ok((cli, _)) => run(cli).unwrap_or_else(|failure| failure.tell()),
        Err(error) if error.exit_code() == 0 => output::show(&error),
        Err(error) => Failure::Usage(one_line(&error, name)).tell(),
    }
}

/// Reads a time of the command line.
pub(crate) fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    match (0.01..=3_600.0).contains(&seconds) {
        true => Ok(Duration::from_secs_f64(seconds)),
        false => Err("not from 0.01 to 3600".to_owned()),
    }
}

impl HerdOptions {
    /// The herd, and a question to its servers. It has to have `server`, if that is given.
    pub(crate) fn read(
        &self,
        server: Option<&str>,
        timeout: Duration,
    ) -> Result<(HerdConfig, Question), Failure> {
        let source = match (&self.config, &self.herd) {
            (Some(path), _) => Source::File(path.clone()),
            (None, Some(year)) => Source::Preset(year.clone()),
            (None, None) => Source::Name,
        };
        let herd = HerdConfig::load(&source, server)?;
        let secret = std::env::var("HERD_SECRET")
            .ok()
            .map(|text| text.trim().to_owned())
            .filter(|text| !text.is_empty());
        let overrides = Overrides {
            secret_file: self.secret_file.clone(),
            secret: secret.map(|text| Secret::new(text.into_bytes())),
            ..Overrides::default()
        };
        let (secrets, _) = herd.secrets(&overrides)?;
        let tls = herd.tls_files(OPERATOR).read_for_neighbours()?;
        let is_there = |name: &str| herd.members.iter().any(|member| member.name == name);
        if let Some(server) = server.filter(|name| !is_there(name)) {
            let names: Vec<_> = herd.members.iter().map(|member| &*member.name).collect();
            return Err(Failure::Usage(format!(
                "{} has no server {server:?}; its servers are {}",
                herd.title,
                names.join(", ")
            )));
        }
        let question = Question {
            secrets,
            tls,
            timeout,
            wish: None,
        };
        Ok((herd, question))
    }
}
