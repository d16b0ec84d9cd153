//! Makes missing certificates, or replaces some.

use std::fmt::Write as _;

use herd_mio::config::HerdConfig;
use herd_testkit::failure::Failure;
use time::{Duration, OffsetDateTime};

use crate::advice;
use crate::authority::{AUTHORITY_DAYS, Authority, NEW_AUTHORITY};
use crate::certificate::Certificate;
use crate::directory::{Directory, Presence};
use crate::inventory;
use crate::subject::{self, AUTHORITY, CLIENTS, Subject};
use herd_client::certificates::Cli;

/// The actions for the standard output, and warnings for the standard error.
#[derive(Default)]
pub(crate) struct Report {
    pub(crate) text: String,
    pub(crate) warnings: Vec<String>,
}

impl Report {
    fn line(&mut self, verb: &str, file: &str, certificate: &Certificate) {
        let end = certificate.not_after.date();
        // Writing into a String never fails.
        let _ = writeln!(self.text, "{verb:<8} {file:<20} until {end}");
    }

    /// Reports a certificate that stays, with warnings about it.
    fn kept(
        &mut self,
        directory: &Directory,
        stem: &str,
        certificate: &Certificate,
        now: OffsetDateTime,
    ) {
        let file = format!("{stem}.pem");
        self.line("kept", &file, certificate);
        self.warnings
            .extend(inventory::ending(certificate, &file, now));
        let key = directory.files(stem).key;
        if let Some(mode) = Directory::exposed(&key) {
            let key = key.display();
            self.warnings.push(format!(
                "users other than its owner can read or write {key} (mode {mode:03o}); fix it with: chmod 600 {key}"
            ));
        }
    }

    /// Reports a new certificate that was to last so many days. One warning covers all that end
    /// earlier.
    fn made(&mut self, verb: &str, stem: &str, certificate: &Certificate, days: i64) {
        self.line(verb, &format!("{stem}.pem"), certificate);
        if certificate.not_after - certificate.not_before < Duration::days(days) {
            let warning = format!(
                "new certificates end with the authority, on {}",
                certificate.not_after.date()
            );
            if !self.warnings.contains(&warning) {
                self.warnings.push(warning);
            }
        }
    }
}

/// Makes the authority and all missing certificates. Errors in existing files are found first.
pub(crate) fn missing(
    cli: &Cli,
    herd: &HerdConfig,
    now: OffsetDateTime,
) -> Result<Report, Failure> {
    let mut subjects = subject::of_herd(herd)?;
    let wanted = match cli.client_names.as_slice() {
        [] => None,
        names => Some(subject::of_clients(names, &subjects)?),
    };
    let directory = Directory::make(&cli.out)?;
    let clients = match (inventory::clients(&directory)?, wanted) {
        (Some(is), Some(wanted)) => {
            inventory::same_names(&is, &wanted)?;
            Some(is)
        }
        (is, wanted) => is.or(wanted),
    };
    let has_clients = clients.is_some();
    subjects.extend(clients);

    let mut report = Report::default();
    let (authority, new_authority) = if inventory::has_authority(&directory)? {
        let authority = Authority::read(&directory, now)?;
        report.kept(&directory, AUTHORITY, &authority.certificate, now);
        (authority, None)
    } else {
        refuse_orphans(&directory, &subjects)?;
        let (authority, pems) = Authority::make(now)?;
        (authority, Some(pems))
    };
    // Everything is signed before anything is written, so a failure leaves no half-done work.
    let mut planned = Vec::new();
    for subject in &subjects {
        planned.push(
            match inventory::kept(&directory, subject, &authority.certificate)? {
                Some(certificate) => (subject, certificate, None),
                None => {
                    let (certificate, pems) = authority.sign(subject, cli.days, now)?;
                    (subject, certificate, Some(pems))
                }
            },
        );
    }
    if let Some(pems) = &new_authority {
        directory.add(AUTHORITY, pems)?;
        report.made("made", AUTHORITY, &authority.certificate, AUTHORITY_DAYS);
    }
    for (subject, certificate, pems) in &planned {
        let stem = &subject.stem;
        match pems {
            Some(pems) => {
                directory.add(stem, pems)?;
                report.made("made", stem, certificate, cli.days);
            }
            None => report.kept(&directory, stem, certificate, now),
        }
    }
    report.text += &advice::install(cli, herd, &directory, has_clients);
    Ok(report)
}

/// Refuses certificates without their authority: a new authority would not match them.
fn refuse_orphans(directory: &Directory, subjects: &[Subject]) -> Result<(), Failure> {
    for subject in subjects {
        if directory.presence(&subject.stem)? != Presence::Neither {
            let files = directory.files(AUTHORITY);
            return Err(Failure::Failed(format!(
                "{} has files of {}, but no authority; put {} and {} back, or start again in another directory",
                directory.path.display(),
                subject.stem,
                files.certificate.display(),
                files.key.display()
            )));
        }
    }
    Ok(())
}

/// Replaces the certificates and keys that `--renew` names.
pub(crate) fn anew(cli: &Cli, herd: &HerdConfig, now: OffsetDateTime) -> Result<Report, Failure> {
    let subjects = subject::of_herd(herd)?;
    let mut renewed: Vec<Subject> = Vec::new();
    for stem in &cli.renew {
        if renewed.iter().all(|subject| subject.stem != *stem) {
            renewed.push(find(stem, cli, herd, &subjects)?);
        }
    }
    let renews_clients = renewed.iter().any(|subject| subject.stem == CLIENTS);
    if !cli.client_names.is_empty() && !renews_clients {
        return Err(Failure::Usage(format!(
            "--client-names applies to {CLIENTS}.pem, which --renew does not name; add it: --renew {CLIENTS}"
        )));
    }

    let directory = Directory::open(&cli.out)?;
    if !inventory::has_authority(&directory)? {
        return Err(Failure::Failed(format!(
            "{} has no authority (ca.pem, ca.key), so there is nothing to renew; run this without --renew to make one",
            directory.path.display()
        )));
    }
    let authority = Authority::read(&directory, now)?;
    for subject in &mut renewed {
        let stem = &subject.stem;
        if directory.presence(stem)? == Presence::Neither {
            return Err(Failure::Failed(format!(
                "{stem} has no certificate in {} to renew; run this without --renew to make one",
                directory.path.display()
            )));
        }
        if subject.names.is_empty() {
            *subject = inventory::clients(&directory)?.unwrap_or_else(|| subject.clone());
        }
    }
    let mut signed = Vec::new();
    for subject in &renewed {
        signed.push(authority.sign(subject, cli.days, now)?);
    }
    let mut report = Report::default();
    for (subject, (certificate, pems)) in renewed.iter().zip(&signed) {
        directory.replace(&subject.stem, pems)?;
        report.made("renewed", &subject.stem, certificate, cli.days);
    }
    report.text += &advice::renewed(&renewed);
    Ok(report)
}

/// The subject that a name of `--renew` stands for. Without `--client-names`, the names of the
/// certificate for clients are not known yet.
fn find(
    stem: &str,
    cli: &Cli,
    herd: &HerdConfig,
    subjects: &[Subject],
) -> Result<Subject, Failure> {
    if stem == CLIENTS {
        return subject::of_clients(&cli.client_names, subjects);
    }
    if stem == AUTHORITY {
        return Err(Failure::Usage(format!(
            "--renew {AUTHORITY}: the authority cannot be renewed in place, because servers would no longer accept the certificates that it has signed; {}",
            NEW_AUTHORITY
        )));
    }
    let found = subjects.iter().find(|subject| subject.stem == stem);
    found.cloned().ok_or_else(|| {
        let names: Vec<&str> = subjects.iter().map(|one| one.stem.as_str()).collect();
        Failure::Usage(format!(
            "--renew {stem:?}: {} has no such server; there are: {} {CLIENTS}",
            herd.title,
            names.join(" ")
        ))
    })
}
