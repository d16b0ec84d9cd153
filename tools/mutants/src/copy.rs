//! A copy of the checkout. Bugs are planted in the copy, and the checkout is only read.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

/// The copy. Dropping it removes its files.
pub(crate) struct Copy {
    directory: TempDir,
    target: PathBuf,
    temporary: PathBuf,
}

impl Copy {
    /// Copies the files that git tracks, and new files that git does not ignore.
    pub(crate) fn make(root: &Path) -> Result<Copy, String> {
        let listed = Command::new("git")
            .args(["ls-files", "-co", "--exclude-standard", "-z"])
            .current_dir(root)
            .output()
            .map_err(|error| format!("cannot run git: {error}"))?;
        if !listed.status.success() {
            let text = String::from_utf8_lossy(&listed.stderr);
            return Err(format!("git cannot list the files: {}", text.trim()));
        }
        let directory =
            TempDir::new().map_err(|error| format!("cannot make a directory: {error}"))?;
        let files = listed.stdout.split(|&byte| byte == 0);
        for file in files.filter(|file| !file.is_empty()) {
            let file = Path::new(OsStr::from_bytes(file));
            // Git still lists a deleted file until the deletion is staged.
            if root.join(file).is_file() {
                copy_one(root, directory.path(), file)
                    .map_err(|error| format!("cannot copy {}: {error}", file.display()))?;
            }
        }
        // The mutants have their own target directory, so that cargo does not mix them up with the
        // checkout's builds. Under CARGO_TARGET_DIR it is kept for the next run.
        let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(
            || directory.path().join("target"),
            |target| PathBuf::from(target).join("mutants"),
        );
        let target = std::path::absolute(target)
            .map_err(|error| format!("cannot find the target directory: {error}"))?;
        let temporary = directory.path().join("tmp");
        fs::create_dir(&temporary)
            .map_err(|error| format!("cannot make {}: {error}", temporary.display()))?;
        Ok(Copy {
            directory,
            target,
            temporary,
        })
    }

    /// The directory of the copy.
    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// The target directory of its builds.
    pub(crate) fn target(&self) -> &Path {
        &self.target
    }

    /// The directory for temporary files of its tests.
    pub(crate) fn temporary(&self) -> &Path {
        &self.temporary
    }

    /// Reads a file of the copy.
    pub(crate) fn read(&self, file: &str) -> Result<String, String> {
        fs::read_to_string(self.directory().join(file))
            .map_err(|error| format!("cannot read {file}: {error}"))
    }

    /// Writes a file of the copy. Its new modification time makes cargo build it again.
    pub(crate) fn write(&self, file: &str, text: &str) -> Result<(), String> {
        fs::write(self.directory().join(file), text)
            .map_err(|error| format!("cannot write {file}: {error}"))
    }
}

fn copy_one(from: &Path, to: &Path, file: &Path) -> std::io::Result<()> {
    let to = to.join(file);
    if let Some(parent) = to.parent() {
        fs::create_dir_all(parent)?;
    }
    fs::copy(from.join(file), to).map(|_| ())
}
