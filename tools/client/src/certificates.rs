//! The command line of `herd-certificates`.

use std::path::PathBuf;

use clap::Parser;
use herd_mio::config::Source;

/// The default validity of a certificate. It is the longest that Apple's systems accept, also from
/// private authorities.
const DEFAULT_DAYS: &str = "825";

/// Make a certificate authority for one herd, and a certificate for each of its servers
///
/// A server with [peers.tls] in its config file accepts only neighbours that have a certificate of this authority for their own
/// name. With [clients.tls] it uses TLS with clients. The command keeps files that exist, and makes those that are missing. So
/// run it again when a server has joined the herd.
#[derive(Debug, Parser)]
#[command(name = "herd-certificates", version, after_help = AFTER_HELP, max_term_width = 110)]
pub struct Cli {
    /// The TOML file that describes the herd, as for herd-mio [default: the course's herd of 2021]
    #[arg(long, value_name = "FILE", conflicts_with = "herd")]
    pub config: Option<PathBuf>,

    /// A herd of the course, by year
    #[arg(long, value_name = "PRESET")]
    herd: Option<String>,

    /// The directory of the certificates and keys; it is made if it does not exist
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,

    /// The validity of new certificates, in days; the authority itself is valid for ten years
    #[arg(long, value_name = "DAYS", default_value = DEFAULT_DAYS, value_parser = clap::value_parser!(i64).range(1..=3653))]
    pub days: i64,

    /// Also make clients.pem, for TLS with clients that connect to these names or IP addresses
    #[arg(long, value_name = "HOST,…", value_delimiter = ',')]
    pub client_names: Vec<String>,

    /// Only replace the certificates and keys of these servers; `operator` and `clients` are allowed too
    #[arg(long, value_name = "NAME", num_args = 1..)]
    pub renew: Vec<String>,

    /// Only list the certificates in DIR and when they expire
    #[arg(long, conflicts_with_all = ["config", "herd", "days", "client_names", "renew"])]
    pub list: bool,
}

// At most 79 columns, so that the lines fit every terminal.
const AFTER_HELP: &str = "\
Examples:
  herd-certificates --config herd.toml --out certificates
  herd-certificates --config herd.toml --out certificates \\
      --client-names herd.example.net,192.0.2.7     for TLS with clients too
  herd-certificates --out certificates --list       when they expire
  herd-certificates --config herd.toml --out certificates --renew Alice Bob
  herd-certificates --out certificates              the herd of 2021, to try it

DIR has NAME.pem and NAME.key for each server NAME, operator.pem and
operator.key for tools such as herd-client status, ca.pem for all hosts, and
ca.key. Keep ca.key secret: with it, an attacker can pose as any server. Only
--renew replaces files, and it makes a new key too. A server loads new files at
SIGHUP, and keeps its connections.

A single certificate cannot be revoked. If a key was stolen, or the authority
expires, make a new authority in another directory. Then, on all servers:
  1. set ca_file to a file with both ca.pem (cat old new)
  2. install the new certificates
  3. set ca_file to the new ca.pem alone
Each step is a copy and a SIGHUP.

--list warns of certificates with less than 30 days left.

Exit status: 0 if there was no error; 1 if a file cannot be read, written or
used, or a certificate has expired; 2 for a mistake in usage or configuration.";

impl Cli {
    /// The herd that the arguments name.
    pub fn source(&self) -> Source {
        match (&self.config, &self.herd) {
            (Some(path), _) => Source::File(path.clone()),
            (None, Some(year)) => Source::Preset(year.clone()),
            (None, None) => Source::Name,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn repeated_list_options_are_merged() {
        let cli = Cli::parse_from([
            "herd-certificates",
            "--renew",
            "A",
            "B",
            "--out",
            "x",
            "--renew",
            "C",
            "--client-names",
            "a,b",
            "--client-names=c",
        ]);
        assert_eq!(cli.renew, ["A", "B", "C"]);
        assert_eq!(cli.client_names, ["a", "b", "c"]);
        assert_eq!(cli.days, 825);
    }

    #[test]
    fn a_line_of_the_help_fits_a_terminal() {
        for line in AFTER_HELP.lines() {
            assert!(line.chars().count() < 80, "{line}");
        }
    }
}
