//! The Debian package. `[package.metadata.deb]` in the Cargo.toml of the server says what is in it.

use std::fs;
use std::path::{Path, PathBuf};

use herd_testkit::cargo;
use herd_testkit::failure::{Failure, system};

use crate::cli::DebOptions;
use crate::{build, programs};

/// Builds the programs, and packs them with cargo-deb. Returns the path of the package.
///
/// # Errors
/// A program cannot be built or read, or cargo-deb is missing or fails.
pub(crate) fn make(options: &DebOptions) -> Result<PathBuf, Failure> {
    build::cargo(&["deb", "--version"]).map_err(|_| {
        Failure::Failed("cargo-deb is missing; install it with: cargo install cargo-deb".to_owned())
    })?;
    let mut command = cargo::command();
    command.args(["deb", "--package", "herd-mio", "--no-build"]);
    command.args(["--locked", "--offline"]);
    // cargo-deb takes the programs from the folder `release` of a target directory.
    let target = tempfile::tempdir().map_err(system("make a directory"))?;
    match &options.programs {
        Some(directory) => {
            copy_programs(directory, &target.path().join("release"))?;
            command.env("CARGO_TARGET_DIR", target.path());
        }
        None => {
            for program in programs::all() {
                build::program(program.name(), &["--locked", "--release"])?;
            }
        }
    }
    let out = match &options.out {
        Some(out) => Some(std::path::absolute(out).map_err(system("find the working directory"))?),
        // The directory above goes away.
        None if options.programs.is_some() => Some(build::root().join("target/debian")),
        None => None,
    };
    if let Some(out) = out {
        command.arg("--output").arg(out);
    }
    let said = build::output(&mut command)?;
    let path = said.lines().rev().find(|line| line.ends_with(".deb"));
    path.map(PathBuf::from).ok_or_else(|| {
        let said = said.trim();
        Failure::Failed(format!("cargo-deb named no package; it printed: {said}"))
    })
}

fn copy_programs(from: &Path, to: &Path) -> Result<(), Failure> {
    fs::create_dir_all(to).map_err(system(format_args!("make {}", to.display())))?;
    for program in programs::all() {
        let from = from.join(program.name());
        fs::copy(&from, to.join(program.name()))
            .map_err(system(format_args!("copy {}", from.display())))?;
    }
    Ok(())
}
