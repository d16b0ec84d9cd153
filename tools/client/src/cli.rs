//! The command line, and the report of a mistake in it.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use crate::dial::TlsOptions;
use clap::Parser;
use herd_mio::config::Source;

use crate::helpers;
use crate::show::Style;

/// A client for the servers of a herd-mio herd.
///
/// With a COMMAND, it sends that command and prints the answer. Without a COMMAND, it gives a prompt on a terminal. Else it
/// sends each line of the standard input.
#[derive(Debug, Parser)]
#[command(name = "herd-client", version, after_help = format!("{}\n{AFTER_HELP}", helpers::COMMANDS), max_term_width = 110, override_usage = USAGE)]
pub(crate) struct Cli {
    /// The server: its name in the herd, or its address as host:port
    pub(crate) server: String,

    /// One command for the server, such as: whatsat kiwi 10 5
    // After the command's first word, everything belongs to the command: -118.44 is no option. In
    // place of the first word, --tsl is a misspelt option.
    #[arg(trailing_var_arg = true)]
    command: Vec<OsString>,

    /// The TOML file that describes the herd, as for herd-mio
    #[arg(long, value_name = "FILE", conflicts_with = "herd")]
    config: Option<PathBuf>,

    /// A herd of the course, by year: 2016, 2018, 2020, 2021, 2022 or 2023 [default: 2021, or the newest that has SERVER]
    #[arg(long, value_name = "YEAR")]
    herd: Option<String>,

    #[command(flatten)]
    pub(crate) tls: TlsOptions,

    /// The longest time to wait for an answer
    #[arg(long, value_name = "SECONDS", default_value = "15", value_parser = seconds)]
    pub(crate) timeout: Duration,

    /// Print answers with explanations, even if the standard output is no terminal
    #[arg(long, conflicts_with = "raw")]
    pretty: bool,

    /// Print answers byte for byte, even on a terminal (where control characters are still escaped)
    #[arg(long)]
    raw: bool,
}

const USAGE: &str = "\
herd-client [OPTIONS] <SERVER> [COMMAND]...
       herd-client status [OPTIONS]    check the herd (herd-client status --help)
       herd-client forget <CLIENT>     make the herd forget a client (herd-client forget --help)
       herd-client follow <SERVER>     print each change as it happens (herd-client follow --help)
       herd-client drain <NAME>        make a server drain and stop (herd-client drain --help)";

// At most 79 columns, so that the lines fit every terminal.
const AFTER_HELP: &str = "\
Examples:
  herd-client Riley                                a prompt
  herd-client Riley iamat kiwi 34.0689 -118.4452   one command
  herd-client Riley --raw whatsat kiwi 10 5        options go before the command
  echo 'whatsat kiwi 2' | herd-client Jaquez       a pipe, to another server
  herd-client 127.0.0.1:10000 < commands.txt       many commands, pipelined
  herd-client Alice --config herd.toml             a server of your own herd
  herd-client herd.example.net:10000 --tls         over TLS
  herd-client status --config herd.toml            check the herd
  herd-client 192.0.2.7:10000 --ca tls/ca.pem --tls-name herd.example.net
                                                   with another certified name

Answers go to the standard output: with explanations on a terminal, else byte
for byte.
NO_COLOR turns colours off. The prompt keeps its history in
$XDG_STATE_HOME/herd-client/history (~/.local/state/herd-client/history).

Exit status, the greatest that applies (a prompt ends with 0):
  0  every command was answered, and none was refused
  1  a command was refused (its answer begins with ?), or Places had an error
  2  a mistake in the command line, the config file, an iamat or a whatsat (a
     command with a mistake is not sent)
  3  the connection failed or was lost, or there was no answer in time";

impl Cli {
    /// The herd in which SERVER is a name.
    pub(crate) fn source(&self) -> Source {
        match (&self.config, &self.herd) {
            (Some(path), _) => Source::File(path.clone()),
            (None, Some(year)) => Source::Preset(year.clone()),
            (None, None) => Source::Name,
        }
    }

    /// The style of answers, if an option names it.
    pub(crate) fn style(&self) -> Option<Style> {
        match (self.raw, self.pretty) {
            (true, _) => Some(Style::Raw),
            (false, true) => Some(Style::Readable),
            (false, false) => None,
        }
    }

    /// The command among the arguments, as a line without its LF.
    pub(crate) fn command_line(&self) -> Option<Vec<u8>> {
        use std::os::unix::ffi::OsStrExt;
        let words: Vec<&[u8]> = self.command.iter().map(|word| word.as_bytes()).collect();
        (!words.is_empty()).then(|| words.join(&b' '))
    }
}

fn seconds(text: &str) -> Result<Duration, &'static str> {
    const LIMITS: std::ops::RangeInclusive<f64> = 0.001..=86_400.0;
    let seconds = text.parse().ok().filter(|s| LIMITS.contains(s));
    seconds
        .map(Duration::from_secs_f64)
        .ok_or("it must be a number of seconds from 0.001 to 86400")
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;
    use herd_testkit::failure::one_line;

    fn parse(arguments: &str) -> Result<Cli, String> {
        let words = std::iter::once("herd-client").chain(arguments.split(' '));
        Cli::try_parse_from(words).map_err(|error| one_line(&error, "herd-client"))
    }

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn arguments_after_the_server_form_the_command() {
        let cli = parse("Riley iamat kiwi -34.07 -118.44").unwrap();
        assert_eq!(cli.command_line().unwrap(), b"iamat kiwi -34.07 -118.44");
        for options_first in [
            "Riley --raw --timeout 2.5 whatsat kiwi 10 5",
            "--raw --timeout 2.5 Riley whatsat kiwi 10 5",
        ] {
            let cli = parse(options_first).unwrap();
            assert_eq!(cli.style(), Some(Style::Raw), "{options_first}");
            assert_eq!(cli.timeout, Duration::from_millis(2500));
            assert_eq!(cli.command_line().unwrap(), b"whatsat kiwi 10 5");
        }
        assert_eq!(parse("Riley").unwrap().command_line(), None);
    }

    #[test]
    fn a_usage_error_is_one_line() {
        let mistake = |arguments: &str| parse(arguments).unwrap_err();
        assert!(mistake("Riley --tsl").starts_with("unexpected argument '--tsl' found"));
        assert!(mistake("Riley --tsl whatsat kiwi").contains("'--tsl'"));
        assert!(mistake("--raw --pretty Riley").contains("cannot be used with"));
        assert!(mistake("--herd 2022 --config x Riley").contains("cannot be used with"));
        for bad in ["0", "-1", "nan", "inf", "1e9", "soon"] {
            let what = mistake(&format!("--timeout={bad} Riley"));
            assert!(
                what.contains("from 0.001 to 86400; see herd-client --help"),
                "{what}"
            );
        }
    }
}
