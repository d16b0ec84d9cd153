//! Completions for shells.

use std::path::Path;

use clap_complete::{Shell, generate};
use herd_testkit::failure::Failure;

use crate::files;
use crate::programs::{self, Program};

/// The shells, each with its folder, and with what it expects before and behind the name of the
/// program in the name of the file.
const SHELLS: [(Shell, &str, &str, &str); 3] = [
    (Shell::Bash, "bash", "", ""),
    (Shell::Zsh, "zsh", "_", ""),
    (Shell::Fish, "fish", "", ".fish"),
];

/// Writes a file for each program and shell.
///
/// # Errors
/// A file cannot be written.
pub(crate) fn write_all(directory: &Path) -> Result<(), Failure> {
    for program in programs::all() {
        for (shell, folder, before, behind) in SHELLS {
            let file = format!("{before}{}{behind}", program.name());
            let path = directory.join(folder).join(file);
            files::write(&path, &script(&program, shell))?;
        }
    }
    Ok(())
}

fn script(program: &Program, shell: Shell) -> Vec<u8> {
    let mut script = Vec::new();
    let mut command = program.command.clone();
    let name = program.name();
    generate(shell, &mut command, name.to_owned(), &mut script);
    match shell {
        Shell::Bash => with_subcommands_of_one_name(&script, name),
        _ => script,
    }
}

/// clap_complete 4.6 has two names in a bash script for a subcommand of a program with a hyphen in
/// its name, and then bash offers nothing behind the subcommand. This writes the one for the other.
fn with_subcommands_of_one_name(script: &[u8], program: &str) -> Vec<u8> {
    let used = format!("{}__subcmd__", program.replace('-', "__"));
    let defined = format!("{}__subcmd__", program.replace('-', "__subcmd__"));
    String::from_utf8_lossy(script)
        .replace(&defined, &used)
        .into_bytes()
}
