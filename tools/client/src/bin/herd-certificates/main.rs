//! `herd-certificates`: makes a certificate authority for one herd, and a certificate for each of its servers.
//!
//! With them, neighbours know one another by name and nobody between them can read or change what they say (mutual TLS, `[peers.tls]`
//! of the config file), and clients can be spoken to in TLS (`[clients.tls]`).
//!
//! ```text
//!   ca.key ── signs ──► Alice.pem      a neighbour called Alice: both ends of a link
//!   ca.pem              Bob.pem        …
//!   (what all trust)    operator.pem   tools that ask how servers stand: they only dial
//!                       clients.pem    what clients connect to: it is only dialled
//! ```
//!
//! A herd is a handful of servers that one person runs, so the whole authority is a directory: run again, the program makes what is
//! missing; with `--renew`, it makes some of it anew; `--list` says what ends when. Nothing is written before all that is there was
//! found to fit, and nothing is handed out that the servers' own verifiers would not believe.
//!
//! ```text
//!   cli ──► subject ──► make ──► authority ──► certificate     (who; what is missing; who signs; is it believed)
//!                        │  └──► inventory ──► certificate     (what is there already)
//!                        │  └──► directory                     (how files get there)
//!                        └─────► advice                        (what to do with them)
//!   cli ──► list ──► certificate
//! ```

#![forbid(unsafe_code)]

use std::process::ExitCode;

use herd_mio::config::HerdConfig;
use herd_testkit::failure::{self, Failure};
use herd_testkit::{clock, output, signals};
use time::OffsetDateTime;

use crate::cli::Cli;

mod advice;
mod authority;
mod certificate;
mod cli;
mod directory;
mod inventory;
mod list;
mod make;
mod subject;

fn main() -> ExitCode {
    signals::unblock();
    let cli: Cli = match failure::command_line("herd-certificates") {
        Ok(cli) => cli,
        Err(status) => return status,
    };
    run(&cli).unwrap_or_else(|failure| failure.tell())
}

fn run(cli: &Cli) -> Result<ExitCode, Failure> {
    let now = now();
    let (text, warnings, status) = if cli.list {
        let listing = list::list(&cli.out, now)?;
        (listing.text, listing.warnings, u8::from(listing.is_bad))
    } else {
        let herd = HerdConfig::load(&cli.source(), None)?;
        let report = if cli.renew.is_empty() {
            make::missing(cli, &herd, now)?
        } else {
            make::anew(cli, &herd, now)?
        };
        (report.text, report.warnings, 0)
    };
    output::say(text);
    for warning in &warnings {
        output::tell(warning);
    }
    Ok(output::status(status))
}

/// Now, in UTC. Certificates have no fractions of a second.
fn now() -> OffsetDateTime {
    let now = OffsetDateTime::from(clock::wall());
    now.replace_nanosecond(0).unwrap_or(now)
}
