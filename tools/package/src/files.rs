//! Writes files.

use std::fs::{self, Permissions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use herd_testkit::failure::{Failure, system};

/// Writes a file that every user can read. It appears whole or not at all. Missing directories are
/// made.
///
/// # Errors
/// A directory or the file cannot be written.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let shown = path.display();
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        Some(_) | None => Path::new("."),
    };
    fs::create_dir_all(folder).map_err(system(format_args!("make {}", folder.display())))?;
    let mut file = tempfile::Builder::new()
        .permissions(Permissions::from_mode(0o644))
        .tempfile_in(folder)
        .map_err(system(format_args!("write {shown}")))?;
    file.write_all(bytes)
        .map_err(system(format_args!("write {shown}")))?;
    file.persist(path)
        .map_err(|error| system(format_args!("write {shown}"))(error.error))?;
    Ok(())
}
