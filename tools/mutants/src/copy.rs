//! A copy of the checkout to plant bugs in; the checkout itself is only read.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

/// The copy; it is gone when this is.
pub(crate) struct Copy {
    directory: TempDir,
    target: PathBuf,
    temporary: PathBuf,
}

impl Copy {
    /// Copies what git knows, and what it would if it were added.
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
            // One that was removed, and not yet for git, is listed all the same.
            if root.join(file).is_file() {
                copy_one(root, directory.path(), file)
                    .map_err(|error| format!("cannot copy {}: {error}", file.display()))?;
            }
        }
        // A directory of its own: mutants must not be taken for the checkout's own builds. It is kept if there is a place for it.
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

    /// Where it is.
    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Where it is built.
    pub(crate) fn target(&self) -> &Path {
        &self.target
    }

    /// Where what runs in it puts its temporary files.
    pub(crate) fn temporary(&self) -> &Path {
        &self.temporary
    }

    /// A file of it.
    pub(crate) fn read(&self, file: &str) -> Result<String, String> {
        fs::read_to_string(self.directory().join(file))
            .map_err(|error| format!("cannot read {file}: {error}"))
    }

    /// Writes a file of it; that it is newer now is what makes cargo build it again.
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
