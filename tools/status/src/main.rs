//! `herd-status`: asks every server of a herd how it stands, and says whether all hold the same records.

#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::net::ToSocketAddrs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::Parser;
use herd_mio::cli::{one_line, parse};
use herd_mio::config::{ConfigError, HerdConfig, Member, Overrides, Source};
use herd_mio::core::counted::Counted;
use herd_mio::core::link::OPERATOR;
use herd_mio::core::settings::{NeighbourTls, Secret};
use herd_programs::{output, signals};
use herd_status::{LinkStanding, Standing};

/// Clocks that are further apart are told of.
const CLOCK_TOLERANCE_MS: i128 = 1_000;

/// How long a server may take for each step of its answer.
const PATIENCE: Duration = Duration::from_secs(3);

/// Ask every server of a herd how it stands: records, digest, clients, links
///
/// Servers that hold the same records have the same digest. Behind a neighbour's name stands how
/// many changes it has not confirmed to keep, if there are any. Below the table stands which
/// servers lack records that they had to refuse, how often TLS with clients failed and why, and
/// whose clocks disagree by more than a second.
/// Each is asked on its neighbours' port, with the herd's secret; where the herd has [peers.tls],
/// also with a certificate for the name operator.
#[derive(Parser)]
#[command(name = "herd-status", version, args_override_self = true, after_help = AFTER_HELP, max_term_width = 110)]
struct Cli {
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

const AFTER_HELP: &str = "\
Examples:
  herd-status                          the herd of 2021 on this machine
  herd-status --config herd.toml       your own herd
  until herd-status; do sleep 1; done  wait until all agree

Exit status: 0 if all servers answered and hold the same records, 1 if not, 2 for a mistake in usage or configuration.";

fn main() -> ExitCode {
    signals::unblock();
    let arguments: Vec<_> = std::env::args_os().collect();
    let cli: Cli = match parse(&arguments) {
        Ok((cli, _)) => cli,
        Err(error) if error.exit_code() == 0 => return output::show(&error),
        Err(error) => {
            return mistake(&one_line(&error).replace("herd-mio --help", "herd-status --help"));
        }
    };
    match herd(&cli) {
        Ok((herd, secret, tls)) => report(&herd, &secret, tls.as_ref()),
        Err(error) => mistake(&error.to_string()),
    }
}

fn mistake(what: &str) -> ExitCode {
    let _ = writeln!(io::stderr(), "herd-status: {what}");
    ExitCode::from(2)
}

fn herd(cli: &Cli) -> Result<(HerdConfig, Secret, Option<NeighbourTls>), ConfigError> {
    let source = match (&cli.config, &cli.herd) {
        (Some(path), _) => Source::File(path.clone()),
        (None, Some(year)) => Source::Preset(year.clone()),
        (None, None) => Source::Name,
    };
    let herd = HerdConfig::load(&source, None)?;
    let secret = std::env::var("HERD_SECRET")
        .ok()
        .map(|text| text.trim().to_owned())
        .filter(|text| !text.is_empty());
    let overrides = Overrides {
        secret_file: cli.secret_file.clone(),
        secret: secret.map(|text| Secret::new(text.into_bytes())),
        ..Overrides::default()
    };
    let (secret, _) = herd.secret(&overrides)?;
    let tls = herd.tls_files(OPERATOR).read_for_neighbours()?;
    Ok((herd, secret, tls))
}

/// A server's answer, and by how many milliseconds its clock was ahead of ours.
type Answer = (Standing, i128);

/// This machine's wall clock, in milliseconds since the epoch.
#[allow(
    clippy::disallowed_methods,
    reason = "a server's clock is compared with this machine's"
)]
fn wall_ms() -> i128 {
    let wall = SystemTime::now().duration_since(UNIX_EPOCH);
    wall.map_or(0, |wall| wall.as_millis() as i128)
}

/// Asks one server, wherever its name leads.
fn ask(member: &Member, secret: &Secret, tls: Option<&NeighbourTls>) -> Result<Answer, String> {
    let address = member
        .peers
        .as_ref()
        .ok_or("it has no address for neighbours")?;
    let found = (address.host.as_str(), address.port)
        .to_socket_addrs()
        .map_err(|error| error.to_string())?;
    let mut failure = "its name has no address".to_owned();
    for address in found {
        match herd_status::ask(address, &member.name, secret, tls, PATIENCE) {
            Ok(standing) => {
                let ahead = i128::from(standing.wall / 1_000_000) - wall_ms();
                return Ok((standing, ahead));
            }
            Err(error) => failure = format!("{address}: {error}"),
        }
    }
    Err(failure)
}

/// A link in the table.
fn shown(link: &LinkStanding) -> String {
    match link.unconfirmed {
        0 => link.name.clone(),
        unconfirmed => format!("{} ({unconfirmed} unconfirmed)", link.name),
    }
}

/// What has to be said of a server that the table does not show.
fn remarks(name: &str, own: &Result<Answer, String>, all: &[Result<Answer, String>]) -> String {
    let links = all.iter().flatten().flat_map(|(it, _)| &it.links);
    let lacks = links
        .filter(|link| link.name == name)
        .map(|link| link.lacks);
    let mut text = String::new();
    if let Some(lacks) = lacks.max().filter(|lacks| *lacks > 0) {
        text += &format!(
            "{name} lacks {} that it had to refuse because of its limits (max_records, max_record_bytes)\n",
            Counted(lacks, "record")
        );
    }
    if let Ok((standing, _)) = own
        && !standing.handshakes.is_empty()
    {
        let (kinds, counts): (Vec<_>, Vec<_>) = standing
            .handshakes
            .iter()
            .map(|(kind, count)| (format!("{count} {kind}"), *count))
            .unzip();
        text += &format!(
            "TLS with clients of {name} failed {}: {}; its log says more\n",
            Counted(counts.iter().sum(), "time"),
            kinds.join(", ")
        );
    }
    if let Ok((_, ahead_ms)) = own
        && ahead_ms.abs() > CLOCK_TOLERANCE_MS
    {
        let than = if *ahead_ms > 0 { "ahead of" } else { "behind" };
        let seconds = ahead_ms.abs() as f64 / 1_000.0;
        text += &format!("the clock of {name} is {seconds:.1} s {than} this machine's\n");
    }
    text
}

/// Which versions they run, as far as they say.
fn versions(herd: &HerdConfig, standings: &[Result<Answer, String>]) -> String {
    let mut servers: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (member, standing) in herd.members.iter().zip(standings) {
        if let Ok((
            Standing {
                version: Some(version),
                ..
            },
            _,
        )) = standing
        {
            servers.entry(version).or_default().push(&member.name);
        }
    }
    let list = |(version, names): (&str, Vec<&str>)| format!("{version} ({})", names.join(" "));
    match servers.len() {
        0 => String::new(),
        1 => servers
            .into_keys()
            .map(|version| format!("version {version}\n"))
            .collect(),
        _ => {
            let versions: Vec<_> = servers.into_iter().map(list).collect();
            format!(
                "their versions differ: {}; upgrade them one at a time\n",
                versions.join(", ")
            )
        }
    }
}

fn report(herd: &HerdConfig, secret: &Secret, tls: Option<&NeighbourTls>) -> ExitCode {
    let standings: Vec<Result<Answer, String>> = thread::scope(|scope| {
        let asked: Vec<_> = herd
            .members
            .iter()
            .map(|member| scope.spawn(move || ask(member, secret, tls)))
            .collect();
        let answer = |thread: thread::ScopedJoinHandle<'_, _>| {
            thread
                .join()
                .unwrap_or_else(|_| Err("the question failed".to_owned()))
        };
        asked.into_iter().map(answer).collect()
    });
    let width = herd
        .members
        .iter()
        .map(|member| member.name.len())
        .max()
        .unwrap_or(0)
        .max("server".len());
    let mut text = format!(
        "{:<width$}  {:>10}  {:<16}  {:>8}  linked with\n",
        "server", "records", "digest", "clients"
    );
    for (member, standing) in herd.members.iter().zip(&standings) {
        let line = match standing {
            Ok((standing, _)) => {
                let linked: Vec<String> = standing.links.iter().map(shown).collect();
                let linked = if linked.is_empty() {
                    "nobody".to_owned()
                } else {
                    linked.join(" ")
                };
                let Standing {
                    records,
                    digest,
                    clients,
                    ..
                } = standing;
                format!("{records:>10}  {digest:016x}  {clients:>8}  {linked}")
            }
            Err(reason) => format!("no answer: {reason}"),
        };
        text.push_str(&format!("{:<width$}  {line}\n", member.name));
    }
    for (member, standing) in herd.members.iter().zip(&standings) {
        text.push_str(&remarks(&member.name, standing, &standings));
    }
    text.push_str(&versions(herd, &standings));
    let answered: Vec<&Standing> = standings.iter().flatten().map(|(it, _)| it).collect();
    let agree = answered
        .windows(2)
        .all(|pair| (pair[0].records, pair[0].digest) == (pair[1].records, pair[1].digest));
    let everybody = answered.len() == standings.len();
    let verdict = match (answered.as_slice(), everybody, agree) {
        ([], ..) => {
            "nobody answered: do they run, and is this their herd (--config, --herd)?".to_owned()
        }
        ([one, ..], true, true) => format!(
            "all {} hold the same {}",
            answered.len(),
            Counted(one.records, "record")
        ),
        (_, true, false) => {
            "they differ; under load this is normal, on a quiet herd it should pass within a second"
                .to_owned()
        }
        ([_], false, _) => format!("1 of {} answered", standings.len()),
        (_, false, true) => format!(
            "{} of {} answered; those hold the same records",
            answered.len(),
            standings.len()
        ),
        (_, false, false) => format!(
            "{} of {} answered; those differ",
            answered.len(),
            standings.len()
        ),
    };
    let status = u8::from(!(everybody && agree));
    output::say(format_args!("{text}{verdict}\n"));
    output::status(status)
}
