//! The directory of certificates and keys. Only the owner can read a key, from the moment it
//! exists. A file appears complete or not at all. Nothing is replaced without `--renew`.

use std::fs::{self, DirBuilder, File, Permissions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use herd_testkit::failure::{Failure, system};

/// The text of a certificate and of its key.
pub(crate) struct Pems {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

/// The paths of a certificate and of its key.
pub(crate) struct Files {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
}

/// Which of the two files exist.
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
    /// Opens a directory that has to exist.
    pub(crate) fn open(path: &Path) -> Result<Directory, Failure> {
        let doing = format!("read the directory {}", path.display());
        let is_directory = fs::metadata(path).map_err(system(doing))?.is_dir();
        if !is_directory {
            return Err(Failure::Failed(format!(
                "{} is not a directory; name one with --out",
                path.display()
            )));
        }
        Ok(Directory {
            path: path.to_owned(),
        })
    }

    /// Opens a directory, or makes it with access for the owner only.
    pub(crate) fn make(path: &Path) -> Result<Directory, Failure> {
        let doing = format!("make the directory {}", path.display());
        match DirBuilder::new().recursive(true).mode(0o700).create(path) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(system(doing)(error)),
            // Something else than a directory may be there. `open` reports that.
            Ok(()) | Err(_) => Directory::open(path),
        }
    }

    /// The paths of the two files of `stem`.
    pub(crate) fn files(&self, stem: &str) -> Files {
        Files {
            certificate: self.path.join(format!("{stem}.pem")),
            key: self.path.join(format!("{stem}.key")),
        }
    }

    /// Which of the two files of `stem` exist.
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

    /// The mode of a key file, if users other than its owner have access to it.
    pub(crate) fn exposed(path: &Path) -> Option<u32> {
        let mode = fs::metadata(path).ok()?.mode() & 0o777;
        (mode & 0o077 != 0).then_some(mode)
    }

    /// Writes both files. An error if one of them exists.
    pub(crate) fn add(&self, stem: &str, pems: &Pems) -> Result<(), Failure> {
        let files = self.files(stem);
        let (certificate, key) = self.beside(pems)?;
        no_replacing(key, &files.key)?;
        if let Err(failure) = no_replacing(certificate, &files.certificate) {
            // A key alone would stop the next attempt. It is the new key, because nothing was
            // replaced.
            let _ = fs::remove_file(&files.key);
            return Err(failure);
        }
        self.sync()
    }

    /// Replaces both files. Between the two renames they do not match. A server that reads them
    /// then reports that, and keeps its old certificate.
    pub(crate) fn replace(&self, stem: &str, pems: &Pems) -> Result<(), Failure> {
        let files = self.files(stem);
        let (certificate, key) = self.beside(pems)?;
        for (new, path) in [(key, &files.key), (certificate, &files.certificate)] {
            new.persist(path)
                .map_err(|error| system(format!("replace {}", path.display()))(error.error))?;
        }
        self.sync()
    }

    /// Writes both as synced temporary files, so that only the renames remain.
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
            // The kind alone leaves out the temporary file's name, which means nothing to the
            // operator.
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
    fn existing_files_are_kept_unless_replaced() {
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
    fn a_failed_write_leaves_no_key_without_certificate() {
        let temporary = tempfile::tempdir().unwrap();
        let directory = Directory::open(temporary.path()).unwrap();
        fs::write(directory.files("A").certificate, "another program's").unwrap();
        assert_eq!(directory.presence("A"), Ok(Presence::OnlyCertificate));
        directory.add("A", &pems("ours")).unwrap_err();
        assert_eq!(directory.presence("A"), Ok(Presence::OnlyCertificate));
        let left = fs::read_dir(temporary.path()).unwrap().count();
        assert_eq!(left, 1, "and no temporary file either");
    }
}
