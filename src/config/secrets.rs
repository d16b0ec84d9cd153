//! Reads the herd's secret from a file or an environment variable. A running server can read the
//! file again. The text has one line, or two lines while the secret is being changed.

use std::borrow::Cow;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::redact::redact;
use super::{ConfigError, HerdConfig, Overrides, invalid};
use crate::core::base::settings::{Secret, Secrets};
use crate::shell::disk::JOURNAL;
use crate::shell::start::JournalConfig;

/// If a secret has fewer bytes than this, a note for the operator says that it can be guessed.
const SHORT_SECRET: usize = 16;
/// The maximum size, in bytes, of a file with a secret. A larger file is refused and not read to
/// its end, because the operator probably named the wrong file.
const MAX_FILE_BYTES: u64 = 64 << 10;

/// Where the herd's secret was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretSource {
    /// The herd has no secret.
    None,
    /// The variable `HERD_SECRET`. A running server cannot read a changed value, because the
    /// environment of a process is set at its start.
    Variable,
    /// A file. A running server can read it again.
    File(PathBuf),
}

impl fmt::Display for SecretSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SecretSource::None => f.write_str("none"),
            SecretSource::Variable => f.write_str("HERD_SECRET"),
            SecretSource::File(path) => path.display().fmt(f),
        }
    }
}

impl SecretSource {
    /// Returns the path of the file, if the secret is in one.
    #[must_use]
    pub fn file(&self) -> Option<&Path> {
        match self {
            SecretSource::File(path) => Some(path),
            SecretSource::None | SecretSource::Variable => None,
        }
    }
}

impl HerdConfig {
    /// Returns the herd's secrets, and where they were found.
    ///
    /// # Errors
    /// The secrets cannot be read, or there are more than two.
    pub fn secrets(&self, overrides: &Overrides) -> Result<(Secrets, SecretSource), ConfigError> {
        let source = match (&overrides.secret_file, &overrides.secret) {
            (Some(path), _) => SecretSource::File(path.clone()),
            (None, Some(_)) => SecretSource::Variable,
            (None, None) => match &self.file.secret_file {
                Some(path) => SecretSource::File(self.path(path)),
                None => SecretSource::None,
            },
        };
        let secrets = match (&source, &overrides.secret) {
            (SecretSource::File(path), _) => read_secrets(path)?,
            (SecretSource::Variable, Some(text)) => parse_secrets(text, &source)?,
            (SecretSource::Variable, None) | (SecretSource::None, _) => Secrets::default(),
        };
        Ok((secrets, source))
    }
}

/// Reads the herd's secrets from a file with one secret on each line.
///
/// # Errors
/// The file cannot be read, is empty, or has more than two secrets.
pub fn read_secrets(path: &Path) -> Result<Secrets, ConfigError> {
    let text = read_secret(path, "the herd secret", "--secret-file or HERD_SECRET_FILE")?;
    parse_secrets(&text, &SecretSource::File(path.to_path_buf()))
}

/// Reads the herd's secrets again while a server runs. The file must be a regular file, because a
/// pipe delivers its contents only once.
///
/// # Errors
/// The errors of [`read_secrets`], or the file is no regular file.
pub fn reread_secrets(path: &Path) -> Result<Secrets, ConfigError> {
    if fs::metadata(path).is_ok_and(|metadata| !metadata.is_file()) {
        return invalid(format!(
            "{} is no regular file, so another secret takes a restart",
            path.display()
        ));
    }
    read_secrets(path)
}

/// Returns the secrets in `text`: one for each line, without the white space around it. Blank lines
/// and repeated lines are skipped, because a start script may append the same line at each start.
fn parse_secrets(text: &Secret, source: &SecretSource) -> Result<Secrets, ConfigError> {
    let lines = text.expose().split(|&byte| byte == b'\n');
    let mut secrets: Vec<Secret> = Vec::new();
    for line in lines.map(<[u8]>::trim_ascii) {
        if !line.is_empty() && secrets.iter().all(|other| other.expose() != line) {
            secrets.push(Secret::new(line.to_vec()));
        }
    }
    match <[Secret; 2]>::try_from(secrets) {
        Ok([primary, secondary]) => Ok(Secrets::pair(primary, secondary)),
        Err(secrets) if secrets.len() < 2 => {
            Ok(secrets.into_iter().next().unwrap_or_default().into())
        }
        Err(secrets) => invalid(format!(
            "the herd secret in {source} has {} different lines; it is one line, or two while it is being changed",
            secrets.len()
        )),
    }
}

/// Returns notes for the operator about secrets that work but are weak or readable by every user.
#[must_use]
pub fn secret_notes(secrets: &Secrets, source: &SecretSource) -> Vec<String> {
    let mut notes = Vec::new();
    let is_short = |secret: &Secret| (1..SHORT_SECRET).contains(&secret.expose().len());
    if secrets.accepted().any(is_short) {
        notes.push(format!(
            "the herd secret has fewer than {SHORT_SECRET} bytes, which can be guessed; openssl rand -hex 32 makes a good one"
        ));
    }
    notes.extend(source.file().and_then(mode_note));
    notes
}

/// Returns a note if the file's mode lets every user of the machine read it.
pub(super) fn mode_note(file: &Path) -> Option<String> {
    let metadata = fs::metadata(file).ok()?;
    let file = file.display();
    (metadata.permissions().mode() & 0o004 != 0).then(|| {
        format!("the mode of {file} lets every user of this machine read it: chmod 600 {file}")
    })
}

/// Returns a note for the operator if every user can write to the data directory, and so can change
/// the journal. Returns another note if every user can read the journal.
pub(super) fn journal_notes(journal: &JournalConfig) -> Vec<String> {
    let directory = &journal.directory;
    let is_world_writable =
        fs::metadata(directory).is_ok_and(|it| it.permissions().mode() & 0o002 != 0);
    let write_note = is_world_writable.then(|| {
        let directory = directory.display();
        format!(
            "the mode of {directory} lets every user of this machine change the journal in it: chmod 700 {directory}"
        )
    });
    let read_note = mode_note(&directory.join(JOURNAL));
    write_note.into_iter().chain(read_note).collect()
}

/// Reads a secret from a file, without the white space around it.
pub(super) fn read_secret(path: &Path, subject: &str, option: &str) -> Result<Secret, ConfigError> {
    let bytes = read_start(path, MAX_FILE_BYTES + 1).map_err(|error| {
        // If the operator wrote the secret in place of the file's name, the error must not print
        // that name. The directory is printed.
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let file = match redact(&name) {
            Cow::Borrowed(_) => path.display().to_string(),
            Cow::Owned(redacted) => path.with_file_name(redacted).display().to_string(),
        };
        let advice = match error.kind() {
            io::ErrorKind::PermissionDenied => "let the user who runs this read it".to_owned(),
            io::ErrorKind::NotFound => format!("make that file, or name another with {option}"),
            _ => format!("name another file with {option}"),
        };
        ConfigError(format!(
            "cannot read {subject} from {file}: {error}; {advice}"
        ))
    })?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return invalid(format!(
            "{} has more than {MAX_FILE_BYTES} bytes, so it is not {subject}; name another file with {option}",
            path.display()
        ));
    }
    let secret = bytes.trim_ascii();
    if secret.is_empty() {
        return invalid(format!("{subject} in {} is empty", path.display()));
    }
    Ok(Secret::new(secret.to_vec()))
}

/// Reads at most `max_bytes` bytes from the start of a file.
fn read_start(path: &Path, max_bytes: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(max_bytes).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_file_has_one_or_two_secrets() {
        let read = |text: &str| parse_secrets(&Secret::new(text.into()), &SecretSource::Variable);
        let one = |secret: &str| Secret::new(secret.into());
        for text in ["old", "old\n", "\r\n\n  old \t\r\n\n", "old\nold\nold\n"] {
            assert_eq!(read(text), Ok(one("old").into()), "{text:?}");
        }
        for text in ["new\nold", "new\r\nold\r\n", "\n new\n\n\told \n new\nold"] {
            let secrets = read(text).unwrap();
            assert_eq!(secrets, Secrets::pair(one("new"), one("old")), "{text:?}");
            assert_eq!((secrets.primary(), secrets.count()), (&one("new"), 2));
        }
        assert_eq!(
            read("correct horse").unwrap().primary(),
            &one("correct horse")
        );
        let ConfigError(error) = read("a-first\nb-second\nc-third\n").unwrap_err();
        assert_eq!(
            error,
            "the herd secret in HERD_SECRET has 3 different lines; it is one line, or two while it is being changed"
        );
    }
}
