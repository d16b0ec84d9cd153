//! An archive of all programs with their manual pages and completions: for `cargo binstall`, and for
//! machines without a package manager. It is a tar file without compression.

use std::fs;
use std::path::{Path, PathBuf};

use herd_testkit::failure::{Failure, system};

use crate::cli::ArchiveOptions;
use crate::tar::{Entry, Tar};
use crate::{build, completions, files, man, programs};

/// What the archive has of the checkout.
const FROM_CHECKOUT: [&str; 3] = ["LICENSE-MIT", "LICENSE-APACHE", "README.md"];

/// Makes the archive. Returns its path.
///
/// # Errors
/// A program cannot be built or read, or the archive cannot be written.
pub(crate) fn make(options: &ArchiveOptions) -> Result<PathBuf, Failure> {
    let target = match &options.target {
        Some(target) => target.clone(),
        None => build::host()?,
    };
    // `[package.metadata.binstall]` has this name, too.
    let name = format!("herd-mio-{}-{target}", env!("CARGO_PKG_VERSION"));
    let mut tar = Tar::default();
    let mut add = |path: &str, contents: &[u8], mode| {
        tar.file(
            &format!("{name}/{path}"),
            contents,
            Entry { mode, owner: 0 },
        );
    };
    for program in programs::all() {
        let path = match &options.programs {
            Some(directory) => directory.join(program.name()),
            None => build::program(
                program.name(),
                &["--locked", "--release", "--target", &target],
            )?,
        };
        add(program.name(), &read(&path)?, 0o755);
    }
    for path in FROM_CHECKOUT {
        add(path, &read(&build::root().join(path))?, 0o644);
    }
    let made = tempfile::tempdir().map_err(system("make a directory"))?;
    man::write_all(&made.path().join("man"))?;
    completions::write_all(&made.path().join("completions"))?;
    for folder in [
        "man",
        "completions/bash",
        "completions/fish",
        "completions/zsh",
    ] {
        for path in sorted(&made.path().join(folder))? {
            let file = path.file_name().unwrap_or_default().to_string_lossy();
            add(&format!("{folder}/{file}"), &read(&path)?, 0o644);
        }
    }
    let out = match &options.out {
        Some(out) => out.clone(),
        None => build::files_dir().join(format!("{name}.tar")),
    };
    files::write(&out, &tar.finish())?;
    Ok(out)
}

fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    fs::read(path).map_err(system(format_args!("read {}", path.display())))
}

/// The files in a folder, in the same order each time.
fn sorted(folder: &Path) -> Result<Vec<PathBuf>, Failure> {
    let read = || system(format!("read {}", folder.display()));
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder).map_err(read())? {
        paths.push(entry.map_err(read())?.path());
    }
    paths.sort();
    Ok(paths)
}
