//! The directory of certificates and keys: what is there, and how something gets there. Keys are readable by their owner alone from
//! the moment they exist, files appear whole, and nothing is replaced unless that was asked for.

use std::fs::{self, DirBuilder, File, Permissions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use herd_testkit::failure::{Failure, system};

/// A certificate and its key, to be written.
pub(crate) struct Pems {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

/// Where a certificate and its key are.
pub(crate) struct Files {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
}

/// Which of the two are there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Presence {
    Both,
    Neither,
    OnlyCertificate,
    OnlyKey,
}

/// A directory that exists.
pub(crate) struct Directory {
    pub(crate) path: PathBuf,
}

impl Directory {
    /// One that should be there already.
    pub(crate) fn open(path: &Path) -> Result<Directory, Failure> {
        let doing = format!("read the directory {}", path.display());
        let is_directory = fs::metadata(path).map_err(system(doing))?.is_dir();
        if !is_directory {
            return Err(Failure::Failed(format!(
                "{} is no directory; name one with --out",
                path.display()
            )));
        }
        Ok(Directory {
            path: path.to_owned(),
        })
    }

    /// One that may have to be made; nobody else may look into it then.
    pub(crate) fn make(path: &Path) -> Result<Directory, Failure> {
        let doing = format!("make the directory {}", path.display());
        match DirBuilder::new().recursive(true).mode(0o700).create(path) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(system(doing)(error)),
            // Something else than a directory may be there; opening says so.
            Ok(()) | Err(_) => Directory::open(path),
        }
    }

    /// Where the two files of `stem` are, if they are there.
    pub(crate) fn files(&self, stem: &str) -> Files {
        Files {
            certificate: self.path.join(format!("{stem}.pem")),
            key: self.path.join(format!("{stem}.key")),
        }
    }

    /// Which of them are there.
    pub(crate) fn presence(&self, stem: &str) -> Result<Presence, Failure> {
        let files = self.files(stem);
        let is_there = |path: &Path| {
            path.try_exists()
                .map_err(system(format!("look for {}", path.display())))
        };
        Ok(
            match (is_there(&files.certificate)?, is_there(&files.key)?) {
                (true, true) => Presence::Both,
                (false, false) => Presence::Neither,
                (true, false) => Presence::OnlyCertificate,
                (false, true) => Presence::OnlyKey,
            },
        )
    }

    /// The mode of a key that somebody else than its owner can read or write.
    pub(crate) fn exposed(path: &Path) -> Option<u32> {
        let mode = fs::metadata(path).ok()?.mode() & 0o777;
        (mode & 0o077 != 0).then_some(mode)
    }

    /// Writes both, where there is neither.
    pub(crate) fn add(&self, stem: &str, pems: &Pems) -> Result<(), Failure> {
        let files = self.files(stem);
        let (certificate, key) = self.beside(pems)?;
        no_replacing(key, &files.key)?;
        if let Err(failure) = no_replacing(certificate, &files.certificate) {
            // A key alone would be in the way of the next attempt. It is our own: nothing was replaced.
            let _ = fs::remove_file(&files.key);
            return Err(failure);
        }
        self.sync()
    }

    /// Writes both, in place of what is there. Between the two renames they do not match; a server that reads them at that moment
    /// says so and stays with what it had.
    pub(crate) fn replace(&self, stem: &str, pems: &Pems) -> Result<(), Failure> {
        let files = self.files(stem);
        let (certificate, key) = self.beside(pems)?;
        for (new, path) in [(key, &files.key), (certificate, &files.certificate)] {
            new.persist(path)
                .map_err(|error| system(format!("replace {}", path.display()))(error.error))?;
        }
        self.sync()
    }

    /// Both as temporary files, safe on the disk, so that all that is left to do is rename them.
    fn beside(&self, pems: &Pems) -> Result<(NamedTempFile, NamedTempFile), Failure> {
        let written = |text: &str, mode: u32| -> io::Result<NamedTempFile> {
            let mut file = tempfile::Builder::new()
                .prefix(".herd-certificates-")
                .permissions(Permissions::from_mode(mode))
                .tempfile_in(&self.path)?;
            file.write_all(text.as_bytes())?;
            file.as_file().sync_all()?;
            Ok(file)
        };
        let both = || {
            Ok((
                written(&pems.certificate, 0o644)?,
                written(&pems.key, 0o600)?,
            ))
        };
        both().map_err(|error: io::Error| {
            // Without the name of the temporary file, which says nothing to anybody.
            let error = io::Error::from(error.kind());
            system(format!("write into the directory {}", self.path.display()))(error)
        })
    }

    fn sync(&self) -> Result<(), Failure> {
        File::open(&self.path)
            .and_then(|directory| directory.sync_all())
            .map_err(system(format!(
                "sync the directory {}",
                self.path.display()
            )))
    }
}

fn no_replacing(file: NamedTempFile, path: &Path) -> Result<(), Failure> {
    match file.persist_noclobber(path) {
        Ok(_) => Ok(()),
        Err(error) => Err(system(format!("write {}", path.display()))(error.error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pems(text: &str) -> Pems {
        Pems {
            certificate: format!("{text} certificate"),
            key: format!("{text} key"),
        }
    }

    #[test]
    fn what_is_there_is_kept_unless_it_is_to_be_replaced() {
        let temporary = tempfile::tempdir().unwrap();
        let directory = Directory::open(temporary.path()).unwrap();
        assert_eq!(directory.presence("A"), Ok(Presence::Neither));
        directory.add("A", &pems("first")).unwrap();
        assert_eq!(directory.presence("A"), Ok(Presence::Both));
        directory.add("A", &pems("second")).unwrap_err();

        let files = directory.files("A");
        let read = || {
            (
                fs::read_to_string(&files.certificate).unwrap(),
                fs::read_to_string(&files.key).unwrap(),
            )
        };
        assert_eq!(read(), ("first certificate".into(), "first key".into()));
        directory.replace("A", &pems("third")).unwrap();
        assert_eq!(read(), ("third certificate".into(), "third key".into()));
        assert_eq!(Directory::exposed(&files.key), None);
        assert!(Directory::exposed(&files.certificate).is_some());
    }

    #[test]
    fn a_key_does_not_stay_behind_without_its_certificate() {
        let temporary = tempfile::tempdir().unwrap();
        let directory = Directory::open(temporary.path()).unwrap();
        fs::write(directory.files("A").certificate, "somebody else's").unwrap();
        assert_eq!(directory.presence("A"), Ok(Presence::OnlyCertificate));
        directory.add("A", &pems("ours")).unwrap_err();
        assert_eq!(directory.presence("A"), Ok(Presence::OnlyCertificate));
        let left = fs::read_dir(temporary.path()).unwrap().count();
        assert_eq!(left, 1, "and no temporary file either");
    }
}
