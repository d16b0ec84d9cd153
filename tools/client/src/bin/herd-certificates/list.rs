//! The list of a directory's certificates and their ends.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use herd_mio::core::wire::escape::Escaped;
use herd_testkit::failure::{Failure, system};
use time::OffsetDateTime;

use crate::certificate::Certificate;
use crate::inventory;
use crate::subject::listed;

/// The table, and warnings about its certificates.
#[derive(Default)]
pub(crate) struct Listing {
    pub(crate) text: String,
    pub(crate) warnings: Vec<String>,
    /// Whether a certificate has expired, or a file could not be read.
    pub(crate) is_bad: bool,
}

/// Lists every certificate in `*.pem`, from any authority.
pub(crate) fn list(directory: &Path, now: OffsetDateTime) -> Result<Listing, Failure> {
    let mut listing = Listing::default();
    let mut rows = Vec::new();
    for path in files(directory)? {
        let file = path.file_name().unwrap_or_default().to_string_lossy();
        let certificates = match Certificate::read_all(&path) {
            Ok(certificates) => certificates,
            Err(Failure::Failed(what) | Failure::Usage(what)) => {
                listing.warnings.push(what);
                listing.is_bad = true;
                continue;
            }
        };
        for certificate in certificates {
            listing.is_bad |= certificate.not_after <= now;
            listing
                .warnings
                .extend(inventory::ending(&certificate, &file, now));
            let names = if certificate.names.is_empty() {
                &certificate.common_name
            } else {
                &listed(&certificate.names)
            };
            let name = Escaped(names.as_bytes()).to_string();
            rows.push((name, file.to_string(), certificate));
        }
    }
    if rows.is_empty() && !listing.is_bad {
        return Err(Failure::Failed(format!(
            "there is no certificate (*.pem) in {}",
            directory.display()
        )));
    }
    let widest = |column: fn(&(String, String, Certificate)) -> &String| {
        let widths = rows.iter().map(|row| column(row).chars().count());
        widths.max().unwrap_or_default().max("name".len())
    };
    let (names, files) = (widest(|row| &row.0), widest(|row| &row.1));
    let mut line = |name: &str, file: &str, end: &str, days: &str| {
        // Writing into a String never fails.
        let _ = writeln!(
            listing.text,
            "{name:<names$}  {file:<files$}  {end:<16}  {days:>9}"
        );
    };
    line("name", "file", "until (UTC)", "days left");
    for (name, file, certificate) in &rows {
        let end = certificate.not_after;
        let end = format!("{} {:02}:{:02}", end.date(), end.hour(), end.minute());
        let days = if certificate.not_after <= now {
            "expired".to_owned()
        } else {
            certificate.days_left(now).to_string()
        };
        line(name, file, &end, &days);
    }
    Ok(listing)
}

/// All `*.pem` files, sorted by name.
fn files(directory: &Path) -> Result<Vec<PathBuf>, Failure> {
    let doing = || format!("read the directory {}", directory.display());
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).map_err(system(doing()))? {
        let path = entry.map_err(system(doing()))?.path();
        if path.extension().is_some_and(|extension| extension == "pem") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}
