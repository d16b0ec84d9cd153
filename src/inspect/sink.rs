//! Output to the standard output, to a device or to a file. The functions return an error if a part
//! of the output cannot be written. A file gets its name only when it is complete and synced.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, ErrorKind, StdoutLock, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGXFSZ};
use signal_hook::flag;

use super::{Failure, report};

/// The number of the signal that asked the program to end, or 0 if none has arrived. After such a
/// signal, the program removes the incomplete output file and ends.
#[derive(Clone, Default)]
pub(super) struct Stop(Arc<AtomicUsize>);

impl Stop {
    /// Catches the signals that ask the program to end. From now on, [`Stop::check`] returns an
    /// error after such a signal, so that the program can clean up.
    pub(super) fn catch() -> Result<Stop, Failure> {
        let stop = Stop::default();
        let caught = [SIGINT, SIGTERM, SIGHUP]
            .into_iter()
            .try_for_each(|signal| {
                flag::register_usize(signal, stop.0.clone(), signal as usize).map(drop)
            })
            // `SIGXFSZ` is caught and ignored. By default, a write beyond the file size limit would
            // kill the program by this signal. Now the write returns an error instead.
            .and_then(|()| flag::register(SIGXFSZ, Arc::default()).map(drop));
        match caught {
            Ok(()) => Ok(stop),
            Err(error) => Err(Failure::new(format_args!("cannot catch signals: {error}"))),
        }
    }

    pub(super) fn check(&self) -> Result<(), Failure> {
        match u8::try_from(self.0.load(Ordering::Relaxed)) {
            Ok(0) | Err(_) => Ok(()),
            Ok(signal) => Err(Failure::Signalled(signal)),
        }
    }
}

/// A target of output.
pub(super) enum Sink {
    Stdout(BufWriter<StdoutLock<'static>>),
    /// A device or a named pipe.
    Device(PathBuf, BufWriter<File>),
    File(NewFile),
}

impl Sink {
    pub(super) fn stdout() -> Sink {
        Sink::Stdout(BufWriter::new(io::stdout().lock()))
    }

    /// Opens the output `path`; `-` is the standard output. An existing file is replaced only when
    /// the new file is complete.
    pub(super) fn open(path: &Path) -> Result<Sink, Failure> {
        if path == Path::new("-") {
            return Ok(Sink::stdout());
        }
        let target = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        match fs::metadata(&target) {
            Ok(found) if found.is_dir() => Err(Failure::new(format_args!(
                "{} is a directory; name a file",
                path.display()
            ))),
            Ok(found) if !found.is_file() => {
                let file = OpenOptions::new().write(true).open(&target);
                let file = file.map_err(|error| unwritable(path, &error))?;
                Ok(Sink::Device(path.to_owned(), BufWriter::new(file)))
            }
            Ok(_) | Err(_) => Ok(Sink::File(NewFile::create(&target)?)),
        }
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        match self {
            Sink::Stdout(stdout) => stdout
                .write_all(bytes)
                .map_err(|error| Failure::unwritten(&error)),
            Sink::Device(path, file) => file.write_all(bytes).map_err(|error| ended(path, &error)),
            Sink::File(file) => file.write(bytes),
        }
    }

    /// Writes out what is still buffered. A file is also synced, and gets its final name.
    pub(super) fn finish(self) -> Result<(), Failure> {
        match self {
            Sink::Stdout(mut stdout) => stdout.flush().map_err(|error| Failure::unwritten(&error)),
            Sink::Device(path, mut file) => file.flush().map_err(|error| ended(&path, &error)),
            Sink::File(file) => {
                let synced_file = file.sync()?;
                fs::rename(&synced_file.part, &synced_file.target)
                    .map_err(|error| unwritable(&synced_file.target, &error))?;
                sync_directory(&synced_file.target)
            }
        }
    }
}

/// Returns the failure for an error in writing to a device. A closed pipe is not an error.
fn ended(path: &Path, error: &io::Error) -> Failure {
    match error.kind() {
        ErrorKind::BrokenPipe => Failure::OutputClosed,
        _ => unwritable(path, error),
    }
}

pub(super) fn unwritable(path: &Path, error: &io::Error) -> Failure {
    Failure::new(format_args!("cannot write {}: {error}", path.display()))
}

/// A file that is being written under a temporary name (the name of its target and `.part`), in the
/// directory of the target. The temporary name is removed when this value is dropped.
pub(super) struct NewFile {
    target: PathBuf,
    part: PathBuf,
    file: BufWriter<File>,
}

impl NewFile {
    pub(super) fn create(target: &Path) -> Result<NewFile, Failure> {
        let mut part = target.as_os_str().to_owned();
        part.push(".part");
        let part = PathBuf::from(part);
        let opened = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&part);
        match opened {
            Ok(file) => Ok(NewFile {
                target: target.to_owned(),
                part,
                file: BufWriter::with_capacity(1 << 20, file),
            }),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                Err(Failure::new(format_args!(
                    "{} is there: another herd-journal is at work, or was killed; if none runs, remove it",
                    part.display()
                )))
            }
            Err(error) => Err(unwritable(&part, &error)),
        }
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        let written = self.file.write_all(bytes);
        written.map_err(|error| unwritable(&self.part, &error))
    }

    /// Gives the new file the owner and the permissions of `other`, so that the same user can open
    /// the new file. If the owner cannot be set, this function only warns.
    pub(super) fn copy_owner_and_mode(&mut self, other: &File) -> Result<(), Failure> {
        let file = self.file.get_ref();
        let failed = |error: io::Error| unwritable(&self.part, &error);
        let (own, theirs) = (
            file.metadata().map_err(failed)?,
            other.metadata().map_err(failed)?,
        );
        if (own.uid(), own.gid()) != (theirs.uid(), theirs.gid())
            && let Err(error) =
                std::os::unix::fs::fchown(file, Some(theirs.uid()), Some(theirs.gid()))
        {
            report(format_args!(
                "the new journal cannot be given to the owner of the old one ({error}): chown {}:{} {} before the server starts",
                theirs.uid(),
                theirs.gid(),
                self.target.display()
            ));
        }
        let mode = fs::Permissions::from_mode(theirs.permissions().mode() & 0o777);
        file.set_permissions(mode).map_err(failed)
    }

    /// Writes all bytes to the disk, so that the bytes survive a loss of power. The file does not
    /// have its final name yet.
    pub(super) fn sync(mut self) -> Result<SyncedFile, Failure> {
        let synced = self
            .file
            .flush()
            .and_then(|()| self.file.get_ref().sync_all());
        synced.map_err(|error| unwritable(&self.part, &error))?;
        Ok(SyncedFile {
            target: self.target.clone(),
            part: self.part.clone(),
            _unnamed: self,
        })
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.part); // after a rename there is nothing to remove
    }
}

/// A complete and synced file that still has its temporary name.
pub(super) struct SyncedFile {
    pub(super) target: PathBuf,
    pub(super) part: PathBuf,
    /// Removes the temporary name when this value is dropped.
    _unnamed: NewFile,
}

/// Syncs the directory of `path`. After this call, the names in the directory survive a loss of
/// power. A file system that cannot sync directories is not an error.
pub(super) fn sync_directory(path: &Path) -> Result<(), Failure> {
    let parent = path.parent().unwrap_or(Path::new(""));
    let parent = Path::new(".").join(parent);
    match File::open(&parent).and_then(|directory| directory.sync_all()) {
        Ok(()) => Ok(()),
        Err(error) if crate::shell::disk::cannot_sync_directory(&error) => Ok(()),
        Err(error) => Err(Failure::new(format_args!(
            "cannot sync the directory {}: {error}",
            parent.display()
        ))),
    }
}
