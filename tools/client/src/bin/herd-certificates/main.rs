//! `herd-certificates`: makes a certificate authority for one herd, and a certificate for each of
//! its servers.
//!
//! With them, neighbours know one another by name, and no third party can read or change the
//! traffic of a link (mutual TLS, `[peers.tls]` in the config file). Servers can also use TLS with
//! clients (`[clients.tls]`).
//!
//! ```text
//!   ca.key ── signs ──► Alice.pem      the neighbour Alice: both ends of a link
//!   ca.pem              Bob.pem        …
//!   (what all trust)    operator.pem   tools that ask servers for their status: they only dial
//!                       clients.pem    the server side of connections from clients
//! ```
//!
//! One operator runs a herd of a few servers, so the whole authority is one directory. Each run
//! makes what is missing. `--renew` replaces some certificates, and `--list` shows their ends.
//! Before the program writes anything, it checks all existing files. It never writes a certificate
//! that the servers' own verifiers would refuse.
//!
//! ```text
//!   cli ──► subject ──► make ──► authority ──► certificate     (names; what is missing; sign; check)
//!                        │  └──► inventory ──► certificate     (existing files)
//!                        │  └──► directory                     (reads and writes files)
//!                        └─────► advice                        (next steps for the operator)
//!   cli ──► list ──► certificate
//! ```

#![forbid(unsafe_code)]

use std::process::ExitCode;

use herd_mio::config::HerdConfig;
use herd_testkit::failure::{self, Failure};
use herd_testkit::{clock, output, signals};
use time::OffsetDateTime;

use herd_client::certificates::Cli;

mod advice;
mod authority;
mod certificate;
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

/// The current time in UTC. Certificates have no fractions of a second.
fn now() -> OffsetDateTime {
    let now = OffsetDateTime::from(clock::wall());
    now.replace_nanosecond(0).unwrap_or(now)
}
