//! `herd-package`: makes what a package of herd-mio has.
//!
//! | file | what it makes |
//! |---|---|
//! | `programs` | the list of the programs that are packed, with their command lines |
//! | `man`, `pages` | manual pages: from the command lines, and what clap does not know |
//! | `completions` | completions for bash, zsh and fish |
//! | `changelog` | the commits, by version and by what they change |
//! | `sbom` | the crates in the programs, as CycloneDX JSON |
//! | `deb` | a Debian package, with cargo-deb |
//! | `image` | an OCI image without a container engine |
//! | `archive` | a tar file with all programs |
//! | `build`, `files`, `tar` | runs cargo and git; writes files and tar files |
//!
//! The same checkout gives the same bytes: no file has the time of its making.

#![forbid(unsafe_code)]

mod archive;
mod build;
mod changelog;
mod cli;
mod completions;
mod deb;
mod files;
mod image;
mod man;
mod pages;
mod programs;
mod sbom;
mod tar;

use std::path::Path;
use std::process::ExitCode;

use herd_testkit::failure::{Failure, command_line};
use herd_testkit::{output, say, signals};

use crate::cli::{Cli, Command};

fn main() -> ExitCode {
    signals::unblock();
    let cli: Cli = match command_line("herd-package") {
        Ok(cli) => cli,
        Err(status) => return status,
    };
    match run(&cli.command) {
        Ok(()) => output::status(0),
        Err(failure) => failure.tell(),
    }
}

fn run(command: &Command) -> Result<(), Failure> {
    match command {
        Command::Files { out } => make_files(&out.clone().unwrap_or_else(build::files_dir)),
        Command::Man { out } => man::write_all(out),
        Command::Completions { out } => completions::write_all(out),
        Command::Changelog => {
            output::say(changelog::text()?);
            Ok(())
        }
        Command::Sbom { package } => {
            output::say(sbom::text(package)?);
            Ok(())
        }
        Command::Deb(options) => {
            make_files(&build::files_dir())?;
            let made = deb::make(options)?;
            say!("{}", made.display());
            Ok(())
        }
        Command::Archive(options) => {
            let made = archive::make(options)?;
            say!("{}", made.display());
            Ok(())
        }
        Command::Image(options) => {
            let made = image::make(options)?;
            say!("{}", made.display());
            Ok(())
        }
    }
}

/// Makes manual pages, completions, the changelog and the SBOM.
fn make_files(directory: &Path) -> Result<(), Failure> {
    man::write_all(&directory.join("man"))?;
    completions::write_all(&directory.join("completions"))?;
    files::write(
        &directory.join("changelog.md"),
        changelog::text()?.as_bytes(),
    )?;
    let all = programs::packages();
    files::write(
        &directory.join("sbom.cdx.json"),
        sbom::text(&all)?.as_bytes(),
    )
}
