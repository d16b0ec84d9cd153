//! The journal's files: does what [`DiskWork`] says, and nothing of its own.
//!
//! In the data directory: `journal`, `journal.new` while a compaction writes it, and `lock`, which one process at a time holds.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use log::{info, warn};
use mio::Waker;
use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::{Errno, retry_on_intr};

use crate::core::durability::{DiskDone, DiskError, DiskWork, Which};
use crate::core::journal::{Entry, Replay};
use crate::shell::clock::Clock;
use crate::shell::executor::Executor;

/// Bytes read from the journal at once when it is read back.
const READ_BYTES: usize = 1 << 20;

/// Where clients are is nobody else's business.
const OWNERS: u32 = 0o600;

/// The files of one server.
pub struct Disk {
    directory: PathBuf,
    /// The directory itself, held open: to sync a name in it must not fail for want of a descriptor.
    names: Arc<File>,
    /// Held for as long as the process lives.
    _lock: File,
    current: Arc<File>,
    next: Option<Arc<File>>,
    /// One thread, so that what is done to the files is done in order.
    executor: Executor<Job, DiskDone>,
}

/// What the executor's thread does.
enum Job {
    Reserve {
        file: Arc<File>,
        which: Which,
        offset: u64,
        bytes: u64,
    },
    Sync(Vec<Arc<File>>),
    Switch {
        directory: PathBuf,
        names: Arc<File>,
    },
}

impl Disk {
    /// Opens the journal of `server` in `directory` (both are made if they are not there), and tells what stands in it. Returns the
    /// disk, how long the journal is, and the machine's boot id.
    ///
    /// # Errors
    /// In words: the directory is in use, not to be used, or what is in it can not be trusted.
    pub fn open(
        directory: &Path,
        server: &str,
        waker: Arc<Waker>,
        mut tell: impl FnMut(Entry<'_>),
    ) -> Result<(Disk, u64, u64), String> {
        let at = |what: &str, error: io::Error| {
            format!(
                "cannot {what} in the data directory {}: {error}",
                directory.display()
            )
        };
        // Those above it may be others', too.
        let above = directory.parent().map_or(Ok(()), fs::create_dir_all);
        let mut make = DirBuilder::new();
        make.recursive(true).mode(0o700);
        above
            .and_then(|()| make.create(directory))
            .map_err(|error| {
                format!(
                    "cannot make the data directory {}: {error}; choose another",
                    directory.display()
                )
            })?;
        let lock =
            File::create(directory.join("lock")).map_err(|error| at("make a lock", error))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(format!(
                    "another process uses the data directory {}: end it, or choose another directory",
                    directory.display()
                ));
            }
            Err(TryLockError::Error(error)) => return Err(at("lock", error)),
        }
        // What a compaction left that did not come to its end; the journal itself is whole.
        match fs::remove_file(directory.join("journal.new")) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(at("remove journal.new", error));
            }
            Ok(()) | Err(_) => {}
        }
        let path = directory.join("journal");
        let open = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(OWNERS)
            .open(&path);
        let file = open.map_err(|error| at("open the journal", error))?;
        // A pipe or a device may have no end, and nothing that is read there comes back.
        let is_file = file.metadata().map(|metadata| metadata.is_file());
        if !is_file.map_err(|error| at("look at the journal", error))? {
            return Err(format!(
                "the journal {} is no regular file: move it away, or choose another directory",
                path.display()
            ));
        }
        let machine = machine_boot_id();
        let length = read_back(&file, &path, server, machine, &mut tell)?;
        // The file may be new, and so may the directory.
        let names = File::open(directory).map_err(|error| at("read what is", error))?;
        let names = Arc::new(names);
        names
            .sync_all()
            .map_err(|error| at("sync what is", error))?;
        if let Some(parent) = directory.parent() {
            // The parent of a relative path of one name is the empty path.
            let parent = Path::new(".").join(parent);
            let synced = File::open(&parent).and_then(|parent| parent.sync_all());
            synced.map_err(|error| {
                format!("cannot sync the directory {}: {error}", parent.display())
            })?;
        }
        let disk = Disk {
            directory: directory.to_owned(),
            names,
            _lock: lock,
            current: Arc::new(file),
            next: None,
            executor: Executor::new("disk", 1, waker, work),
        };
        Ok((disk, length, machine))
    }

    /// Does what is asked, or has it done; `None` if [`Disk::finished`] will tell.
    pub fn perform(&mut self, work: DiskWork) -> Option<DiskDone> {
        match work {
            DiskWork::Append {
                file,
                offset,
                bytes,
            } => {
                let written = self
                    .file(file)
                    .and_then(|file| file.write_all_at(&bytes, offset));
                Some(DiskDone::Appended {
                    file,
                    bytes,
                    outcome: written.map_err(disk_error),
                })
            }
            DiskWork::Create => {
                let create = OpenOptions::new()
                    .write(true)
                    .create(true)
                    .truncate(true)
                    .mode(OWNERS)
                    .open(self.directory.join("journal.new"));
                Some(DiskDone::Created(
                    create
                        .map(|file| self.next = Some(Arc::new(file)))
                        .map_err(disk_error),
                ))
            }
            DiskWork::Discard => {
                self.next = None;
                // If it can not be removed now, the next start does it.
                let _ = fs::remove_file(self.directory.join("journal.new"));
                None
            }
            DiskWork::Reserve {
                file: which,
                offset,
                bytes,
            } => match self.file(which) {
                Ok(file) => self.submit(
                    Job::Reserve {
                        file,
                        which,
                        offset,
                        bytes,
                    },
                    |error| DiskDone::Reserved(which, Err(error)),
                ),
                Err(error) => Some(DiskDone::Reserved(which, Err(disk_error(error)))),
            },
            DiskWork::Sync { both } => {
                let next = self.next.clone().filter(|_| both);
                let files = [Some(self.current.clone()), next]
                    .into_iter()
                    .flatten()
                    .collect();
                self.submit(Job::Sync(files), |error| DiskDone::Synced(Err(error)))
            }
            DiskWork::Switch => {
                let job = Job::Switch {
                    directory: self.directory.clone(),
                    names: self.names.clone(),
                };
                self.submit(job, |error| DiskDone::Switched(Err(error)))
            }
        }
    }

    fn submit(&mut self, job: Job, failed: impl FnOnce(DiskError) -> DiskDone) -> Option<DiskDone> {
        self.executor
            .submit(job)
            .err()
            .map(|error| failed(disk_error(error)))
    }

    fn file(&self, which: Which) -> io::Result<Arc<File>> {
        match which {
            Which::Current => Ok(self.current.clone()),
            Which::Next => self
                .next
                .clone()
                .ok_or_else(|| io::Error::from(ErrorKind::NotFound)),
        }
    }

    /// What the executor's thread did, if it did something.
    pub fn finished(&mut self) -> Option<DiskDone> {
        let done = self.executor.finished()?;
        if done == DiskDone::Switched(Ok(()))
            && let Some(next) = self.next.take()
        {
            self.current = next;
        }
        Some(done)
    }

    /// The server stops: what was appended is made to outlast a loss of power, however long that takes.
    ///
    /// # Errors
    /// What the system says.
    pub fn finish(&self) -> io::Result<()> {
        self.current.sync_data()
    }
}

/// Reads the journal back and cuts its torn tail off; returns how long it is then.
fn read_back(
    mut file: &File,
    path: &Path,
    server: &str,
    machine: u64,
    tell: &mut impl FnMut(Entry<'_>),
) -> Result<u64, String> {
    let path = path.display();
    let failed =
        |what: &str, error: io::Error| format!("cannot {what} the journal {path}: {error}");
    let unusable = |error: crate::core::journal::JournalError| {
        format!(
            "the journal {path} cannot be used: {error}; put a good copy in its place, or move it away: then this server begins \
             empty, and is sent what its neighbours know"
        )
    };
    let clock = Clock::start();
    let mut replay = Replay::new(server, machine);
    let mut buffer = vec![0; READ_BYTES];
    let mut records = 0_u64;
    loop {
        match file.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => {
                let tell = |entry: Entry<'_>| {
                    records += u64::from(matches!(entry, Entry::Record { .. }));
                    tell(entry);
                };
                replay
                    .data_received(&buffer[..count], tell)
                    .map_err(unusable)?;
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(failed("read", error)),
        }
    }
    let end = replay.finish().map_err(unusable)?;
    if end.torn > 0 {
        warn!(
            "journal: the last {} bytes of {path} were not written whole; they are cut off",
            end.torn
        );
    }
    // Reserved room is given back, too; it is reserved anew. What was read is what this life begins with, so it has to outlast
    // a loss of power as if this life had written it; and what was cut off must not come back.
    file.set_len(end.offset)
        .map_err(|error| failed("cut", error))?;
    file.sync_all().map_err(|error| failed("sync", error))?;
    let seconds = clock.now().time.since(Default::default()).as_secs_f64();
    info!(
        "journal: {records} records in {} bytes of {path}, read in {seconds:.3} s",
        end.offset
    );
    Ok(end.offset)
}

/// A number that is another one after each start of the machine; 0 where the system has none to offer.
fn machine_boot_id() -> u64 {
    let id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let digits: String = id
        .chars()
        .filter(char::is_ascii_hexdigit)
        .take(16)
        .collect();
    u64::from_str_radix(&digits, 16).unwrap_or(0)
}

/// On the executor's thread.
fn work(job: Job) -> DiskDone {
    match job {
        Job::Reserve {
            file,
            which,
            offset,
            bytes,
        } => DiskDone::Reserved(which, reserve(&file, offset, bytes).map_err(disk_error)),
        Job::Sync(files) => DiskDone::Synced(
            files
                .iter()
                .try_for_each(|file| file.sync_data())
                .map_err(disk_error),
        ),
        Job::Switch { directory, names } => {
            DiskDone::Switched(switch(&directory, &names).map_err(disk_error))
        }
    }
}

/// Reserves room behind what is written: zeros, which reading back passes over. As the file's length stays the same while it is
/// filled, syncing it is cheaper, too.
fn reserve(file: &File, offset: u64, bytes: u64) -> io::Result<()> {
    match retry_on_intr(|| fallocate(file, FallocateFlags::empty(), offset, bytes)) {
        // A file system that can not reserve: there is room for as long as there is.
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(()),
        outcome => outcome.map_err(io::Error::from),
    }
}

/// The new journal takes the old one's name, and the directory remembers it.
fn switch(directory: &Path, names: &File) -> io::Result<()> {
    fs::rename(directory.join("journal.new"), directory.join("journal"))?;
    names.sync_all()
}

fn disk_error(error: io::Error) -> DiskError {
    let is_full = matches!(
        error.kind(),
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge
    );
    DiskError {
        is_full,
        text: error.to_string(),
    }
}
