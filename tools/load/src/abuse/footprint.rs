//! The growth of the server's process and files during the attack.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use herd_testkit::failure::Failure;
use serde::Serialize;

use crate::process::{descriptors, resident_bytes};

/// The interval between samples.
const INTERVAL: Duration = Duration::from_millis(250);

/// The process and the files to sample.
#[derive(Clone, Debug, Default)]
pub(crate) struct Watched {
    pub(crate) pid: Option<u32>,
    pub(crate) log_file: Option<PathBuf>,
    pub(crate) data_dir: Option<PathBuf>,
}

/// The samples so far.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Seen {
    pub(crate) memory: Option<Level>,
    pub(crate) descriptors: Option<Level>,
    pub(crate) log: Option<Growth>,
    pub(crate) data: Option<Growth>,
}

/// A value that rises and falls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Level {
    pub(crate) before: u64,
    pub(crate) most: u64,
    pub(crate) after: u64,
}

/// Bytes of files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Growth {
    pub(crate) before_bytes: u64,
    pub(crate) after_bytes: u64,
    /// The sum of all growth. A truncated or rotated file does not reduce it.
    pub(crate) written_bytes: u64,
    pub(crate) bytes_per_s: f64,
}

impl Watched {
    /// Takes the first sample.
    ///
    /// # Errors
    /// The process, file or directory does not exist.
    pub(crate) fn begin(&self) -> Result<Seen, Failure> {
        let process = |what| {
            Failure::Usage(format!(
                "{what}; give --pid the id of a process on this machine"
            ))
        };
        let level = |value: Result<u64, String>| {
            value.map_err(process).map(|value| Level {
                before: value,
                most: value,
                after: value,
            })
        };
        let growth = |path: &Path, option: &str, bytes: io::Result<u64>| {
            let before_bytes = bytes.map_err(|error| {
                Failure::Usage(format!(
                    "cannot read {}: {error}; give {option} the server's",
                    path.display()
                ))
            })?;
            Ok::<Growth, Failure>(Growth {
                before_bytes,
                after_bytes: before_bytes,
                ..Growth::default()
            })
        };
        let log = self.log_file.as_deref();
        let data = self.data_dir.as_deref();
        let memory = self.pid.map(|pid| level(resident_bytes(pid)));
        let descriptors = self.pid.map(|pid| level(descriptors(pid)));
        let log = log.map(|path| growth(path, "--log-file", file_bytes(path)));
        let data = data.map(|path| growth(path, "--data-dir", directory_bytes(path)));
        Ok(Seen {
            memory: memory.transpose()?,
            descriptors: descriptors.transpose()?,
            log: log.transpose()?,
            data: data.transpose()?,
        })
    }

    /// Takes samples until the attack ends.
    pub(crate) fn watch(&self, mut seen: Seen, ends: &AtomicBool) -> Seen {
        loop {
            let is_last = ends.load(Ordering::Relaxed);
            self.look(&mut seen);
            if is_last {
                return seen;
            }
            thread::sleep(INTERVAL);
        }
    }

    /// Takes a sample. A missing process or file keeps its last value.
    fn look(&self, seen: &mut Seen) {
        if let (Some(pid), Some(memory)) = (self.pid, &mut seen.memory) {
            memory.note(resident_bytes(pid).unwrap_or(memory.after));
        }
        if let (Some(pid), Some(open)) = (self.pid, &mut seen.descriptors) {
            open.note(descriptors(pid).unwrap_or(open.after));
        }
        if let (Some(path), Some(log)) = (&self.log_file, &mut seen.log) {
            // A shorter file is a new one, so all of its bytes were written.
            log.note(file_bytes(path).unwrap_or(log.after_bytes), |bytes| bytes);
        }
        if let (Some(path), Some(data)) = (&self.data_dir, &mut seen.data) {
            // A file was removed, such as a journal after its compaction.
            data.note(directory_bytes(path).unwrap_or(data.after_bytes), |_| 0);
        }
    }
}

impl Seen {
    /// Computes the growth in a second.
    pub(crate) fn over(mut self, seconds: f64) -> Seen {
        for growth in [&mut self.log, &mut self.data].into_iter().flatten() {
            growth.bytes_per_s = growth.written_bytes as f64 / seconds.max(0.001);
        }
        self
    }
}

impl Level {
    fn note(&mut self, value: u64) {
        self.most = self.most.max(value);
        self.after = value;
    }
}

impl Growth {
    /// Notes the present number of bytes. `written` gives the number of written bytes if there are
    /// fewer bytes than before.
    fn note(&mut self, bytes: u64, written: impl Fn(u64) -> u64) {
        let more = bytes.checked_sub(self.after_bytes);
        self.written_bytes += more.unwrap_or_else(|| written(bytes));
        self.after_bytes = bytes;
    }
}

fn file_bytes(path: &Path) -> io::Result<u64> {
    fs::metadata(path).map(|metadata| metadata.len())
}

fn directory_bytes(path: &Path) -> io::Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(path)? {
        // A file may be removed while the directory is read.
        if let Ok(metadata) = entry?.metadata() {
            bytes += if metadata.is_file() {
                metadata.len()
            } else {
                0
            };
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rotated_file_does_not_reduce_the_written_bytes() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        fs::write(&path, "12345").unwrap();
        let watched = Watched {
            log_file: Some(path.clone()),
            data_dir: Some(directory.path().to_owned()),
            pid: Some(std::process::id()),
        };
        let mut seen = watched.begin().unwrap();
        for text in ["1234567", "123", ""] {
            fs::write(&path, text).unwrap();
            watched.look(&mut seen);
        }
        fs::remove_file(&path).unwrap();
        watched.look(&mut seen);
        let seen = seen.over(2.0);
        let (log, data) = (seen.log.unwrap(), seen.data.unwrap());
        assert_eq!((log.before_bytes, log.written_bytes), (5, 5));
        assert_eq!(log.bytes_per_s, 2.5);
        assert_eq!((data.written_bytes, data.after_bytes), (2, 0));
    }

    #[test]
    fn a_missing_file_or_process_is_a_usage_error() {
        let nowhere = PathBuf::from("/nowhere");
        for watched in [
            Watched {
                log_file: Some(nowhere.clone()),
                ..Watched::default()
            },
            Watched {
                data_dir: Some(nowhere),
                ..Watched::default()
            },
            Watched {
                pid: Some(u32::MAX),
                ..Watched::default()
            },
        ] {
            assert!(
                matches!(watched.begin(), Err(Failure::Usage(_))),
                "{watched:?}"
            );
        }
    }
}
