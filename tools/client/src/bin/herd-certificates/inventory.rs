//! The files that the directory has already, and whether they can stay: name, authority, key and
//! validity.

use herd_testkit::failure::Failure;
use rustls::crypto::ring;
use time::OffsetDateTime;

use crate::certificate::Certificate;
use crate::directory::{Directory, Presence};
use crate::subject::{AUTHORITY, CLIENTS, Subject, listed};

/// With fewer days left, a certificate should be renewed.
pub(crate) const SOON_DAYS: i64 = 30;

/// Whether there is an authority. One file without the other is an error.
pub(crate) fn has_authority(directory: &Directory) -> Result<bool, Failure> {
    let files = directory.files(AUTHORITY);
    let (certificate, key) = (files.certificate.display(), files.key.display());
    match directory.presence(AUTHORITY)? {
        Presence::Both => Ok(true),
        Presence::Neither => Ok(false),
        Presence::OnlyCertificate => Err(Failure::Failed(format!(
            "{certificate} exists, but {key} does not, and nothing can be signed without it; put it back, or start again in another directory"
        ))),
        Presence::OnlyKey => Err(Failure::Failed(format!(
            "{key} exists, but {certificate} does not; put it back, or start again in another directory"
        ))),
    }
}

/// The certificate for clients, if there is one, with the names that it has.
pub(crate) fn clients(directory: &Directory) -> Result<Option<Subject>, Failure> {
    if directory.presence(CLIENTS)? == Presence::Neither {
        return Ok(None);
    }
    let path = directory.files(CLIENTS).certificate;
    let names = Certificate::read(&path)?.names;
    if names.is_empty() {
        return Err(Failure::Failed(format!(
            "{} has no name at all; move it away",
            path.display()
        )));
    }
    Ok(Some(Subject::clients(names)))
}

/// The certificate of `subject`, if there is one. One file without the other is an error, and so is
/// a certificate that servers would not accept.
pub(crate) fn kept(
    directory: &Directory,
    subject: &Subject,
    authority: &Certificate,
) -> Result<Option<Certificate>, Failure> {
    let files = directory.files(&subject.stem);
    let (shown, shown_key) = (files.certificate.display(), files.key.display());
    let stem = &subject.stem;
    let half = |is: &dyn std::fmt::Display, is_not: &dyn std::fmt::Display| {
        Failure::Failed(format!(
            "{is} exists, but {is_not} does not; put it back, or make new ones of both with --renew {stem}"
        ))
    };
    match directory.presence(stem)? {
        Presence::Both => {}
        Presence::Neither => return Ok(None),
        Presence::OnlyCertificate => return Err(half(&shown, &shown_key)),
        Presence::OnlyKey => return Err(half(&shown_key, &shown)),
    }
    let certificate = Certificate::read(&files.certificate)?;
    let checked = certificate
        .check(subject, &authority.der)
        .and_then(|()| certificate.check_key(&files.key, &ring::default_provider()));
    checked.map_err(|what| {
        Failure::Failed(format!(
            "{shown} cannot be used in this herd: {what}; put the right one back, or make a new one with --renew {stem}"
        ))
    })?;
    Ok(Some(certificate))
}

/// An error if the certificate for clients has other names than the wanted ones.
pub(crate) fn same_names(is: &Subject, wanted: &Subject) -> Result<(), Failure> {
    let all_in = |some: &Subject, others: &Subject| {
        some.names.iter().all(|name| others.names.contains(name))
    };
    if all_in(is, wanted) && all_in(wanted, is) {
        return Ok(());
    }
    let wanted = listed(&wanted.names);
    Err(Failure::Failed(format!(
        "{CLIENTS}.pem is for {}; make one for {wanted} with --renew {CLIENTS} --client-names {wanted}",
        listed(&is.names)
    )))
}

/// A warning about a certificate that ends soon. `None` if its end is far away. `file` is its name
/// in the directory.
pub(crate) fn ending(certificate: &Certificate, file: &str, now: OffsetDateTime) -> Option<String> {
    let remedy = if certificate.is_authority {
        crate::authority::NEW_AUTHORITY.to_owned()
    } else {
        let stem = file.strip_suffix(".pem").unwrap_or(file);
        format!("make a new one with --renew {stem}")
    };
    let (first, last) = (certificate.not_before.date(), certificate.not_after.date());
    if certificate.not_after <= now {
        return Some(format!("{file} has expired on {last}; {remedy}"));
    }
    if certificate.not_before > now {
        return Some(format!(
            "{file} is valid from {first} on, and today is {}; check this machine's clock",
            now.date()
        ));
    }
    let days = certificate.days_left(now);
    (days < SOON_DAYS).then(|| format!("{file} expires on {last}, days left: {days}; {remedy}"))
}
