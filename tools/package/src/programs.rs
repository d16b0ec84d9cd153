//! The programs that are packed.

use clap::{Command, CommandFactory};

use crate::pages::{self, Page};

/// A program.
pub(crate) struct Program {
    /// The package of the workspace that has it.
    pub(crate) package: &'static str,
    /// Its command line. The name of the command is the name of the program.
    pub(crate) command: Command,
    /// What its manual page says beyond the command line.
    pub(crate) page: Page,
}

impl Program {
    /// The name of the program.
    pub(crate) fn name(&self) -> &str {
        self.command.get_name()
    }
}

/// All programs that are packed.
pub(crate) fn all() -> Vec<Program> {
    let program = |package, command: Command, page| Program {
        package,
        command,
        page,
    };
    vec![
        program("herd-mio", herd_mio::cli::Cli::command(), pages::HERD_MIO),
        program(
            "herd-mio",
            herd_mio::inspect::command(),
            pages::HERD_JOURNAL,
        ),
        program(
            "herd-client",
            herd_client::program::command(),
            pages::HERD_CLIENT,
        ),
        program(
            "herd-client",
            herd_client::certificates::Cli::command(),
            pages::HERD_CERTIFICATES,
        ),
        program("herd-load", herd_load::command(), pages::HERD_LOAD),
        program(
            "herd-places",
            herd_places::cli::Arguments::command(),
            pages::HERD_PLACES,
        ),
    ]
}

/// The packages that have the programs, each once.
pub(crate) fn packages() -> Vec<String> {
    let mut packages: Vec<String> = all()
        .iter()
        .map(|program| program.package.to_owned())
        .collect();
    packages.dedup();
    packages
}
