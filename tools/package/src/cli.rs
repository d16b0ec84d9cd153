//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

/// Makes what a package of herd-mio has: manual pages, completions, a changelog, an SBOM, a Debian
/// package and an OCI image
#[derive(Debug, Parser)]
#[command(name = "herd-package", version, args_override_self = true, disable_help_subcommand = true,
    after_help = AFTER_HELP, max_term_width = 110)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

const AFTER_HELP: &str = "\
Examples:
  herd-package files              into target/package: man, completions, changelog, SBOM
  herd-package man --out man      then: man -l man/herd-mio.1
  herd-package deb                builds the programs, then runs cargo-deb
  herd-package image              builds static programs, then writes target/package/herd-mio.oci.tar

All commands run cargo or git in the checkout from which herd-package was built.

Exit status: 0 if all was made; 1 if something is missing or failed; 2 for a mistake in usage.";

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make manual pages, completions, the changelog and the SBOM
    Files {
        /// The directory for them [default: target/package of the checkout]
        #[arg(long, value_name = "DIR")]
        out: Option<PathBuf>,
    },
    /// Make the manual pages of all programs
    Man {
        /// The directory for them; it is made if it is missing
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
    },
    /// Make completions for bash, zsh and fish
    Completions {
        /// The directory for them: a folder for each shell
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
    },
    /// Print the changelog: the commits, by version and by what they change
    Changelog,
    /// Print an SBOM (CycloneDX 1.5, JSON): the crates in the programs of a package
    Sbom {
        /// The package; with several, the crates of all
        #[arg(long, value_name = "PACKAGE", default_value = "herd-mio")]
        package: Vec<String>,
    },
    /// Make a Debian package with cargo-deb, and print its path
    Deb(DebOptions),
    /// Make an archive of all programs, manual pages and completions, and print its path
    Archive(ArchiveOptions),
    /// Make an OCI image of the server, herd-client and herd-journal, and print its path
    Image(ImageOptions),
}

/// What goes into the Debian package, and where it is written.
#[derive(Debug, Args)]
pub(crate) struct DebOptions {
    /// A directory with programs that were built before [default: build them]
    #[arg(long, value_name = "DIR")]
    pub(crate) programs: Option<PathBuf>,

    /// The package [default: into target/debian, with the name that Debian expects]
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
}

/// What goes into the archive, and where it is written.
#[derive(Debug, Args)]
pub(crate) struct ArchiveOptions {
    /// A directory with programs that were built before [default: build them]
    #[arg(long, value_name = "DIR")]
    pub(crate) programs: Option<PathBuf>,

    /// The target for which the programs are built [default: this machine's]
    #[arg(long, value_name = "TRIPLE")]
    pub(crate) target: Option<String>,

    /// The archive: a tar file [default: target/package/herd-mio-VERSION-TRIPLE.tar]
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
}

/// What goes into the image, and where it is written.
#[derive(Debug, Args)]
pub(crate) struct ImageOptions {
    /// A directory with programs that were built before; they must be static [default: build them]
    #[arg(long, value_name = "DIR")]
    pub(crate) programs: Option<PathBuf>,

    /// The target for which the programs are built
    #[arg(
        long,
        value_name = "TRIPLE",
        default_value = "x86_64-unknown-linux-musl"
    )]
    pub(crate) target: String,

    /// The image: a tar file with an OCI layout [default: target/package/herd-mio.oci.tar]
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }
}
