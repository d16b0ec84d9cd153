//! Finds out when a certificate becomes valid and when it expires. Warns before this server's own
//! certificate expires.
//!
//! No dependency has a parser for these two dates. But if rustls's verifier refuses a certificate
//! because of the time, the error contains the date. So [`not_after`] calls the verifier with a
//! time far in the future, and the error shows when the certificate expires.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, Error, RootCertStore};
use time::OffsetDateTime;
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;

use crate::core::base::settings::OwnCertificate;

/// A server warns of its own certificate if the certificate expires within this time.
const WARNING_PERIOD: Duration = Duration::from_secs(14 * 24 * 60 * 60);
/// A time at which every certificate has expired. The last date that a certificate can contain is
/// 9999-12-31.
const FAR_FUTURE: UnixTime = UnixTime::since_unix_epoch(Duration::from_secs(1 << 40));

const MINUTE_FORMAT: &[BorrowedFormatItem<'_>] =
    format_description!("[year]-[month]-[day] [hour]:[minute] UTC");

/// Returns the time at which a certificate expires. `None` if the bytes are not a certificate.
#[must_use]
pub fn not_after(certificate: &CertificateDer<'_>) -> Option<UnixTime> {
    match refusal(certificate, FAR_FUTURE)? {
        CertificateError::ExpiredContext { not_after, .. } => Some(not_after),
        _ => None,
    }
}

/// Returns the time at which a certificate becomes valid, if that is after `at`.
#[must_use]
pub fn future_not_before(certificate: &CertificateDer<'_>, at: UnixTime) -> Option<UnixTime> {
    match refusal(certificate, at)? {
        CertificateError::NotValidYetContext { not_before, .. } => Some(not_before),
        _ => None,
    }
}

/// Returns the reason why the verifier refuses the certificate at the time `at`. A verifier must
/// trust at least one authority. It does not matter which one, because the verifier checks the time
/// before it looks for the certificate's authority.
fn refusal(certificate: &CertificateDer<'_>, at: UnixTime) -> Option<CertificateError> {
    let mut roots = RootCertStore::empty();
    roots
        .roots
        .extend(webpki_roots::TLS_SERVER_ROOTS.first().cloned());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = WebPkiServerVerifier::builder_with_provider(roots.into(), provider)
        .build()
        .ok()?;
    let name = ServerName::try_from("any.test").ok()?;
    match verifier.verify_server_cert(certificate, &[], &name, &[], at) {
        Err(Error::InvalidCertificate(reason)) => Some(reason),
        Err(_) | Ok(_) => None,
    }
}

/// Formats a time to the minute, for messages.
pub struct Minute(pub UnixTime);

impl fmt::Display for Minute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = i64::try_from(self.0.as_secs())
            .ok()
            .and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok())
            .and_then(|time| time.format(MINUTE_FORMAT).ok());
        match time {
            Some(time) => f.write_str(&time),
            None => write!(f, "second {} since 1970", self.0.as_secs()),
        }
    }
}

impl OwnCertificate {
    /// Returns a warning for the operator if the certificate has expired before the time `at`, or
    /// expires within two weeks after `at`.
    #[must_use]
    pub fn warning(&self, at: UnixTime) -> Option<String> {
        let OwnCertificate { file, not_after } = self;
        let left = not_after.as_secs().saturating_sub(at.as_secs());
        let advice = "put a new one in its place and send SIGHUP";
        if not_after.as_secs() < at.as_secs() {
            let ended = Minute(*not_after);
            return Some(format!(
                "the certificate {file} ended on {ended}, and is refused: {advice}"
            ));
        }
        let days = left / (24 * 60 * 60);
        (left <= WARNING_PERIOD.as_secs()).then(|| {
            format!(
                "the certificate {file} ends on {}, in {days} days: {advice}",
                Minute(*not_after)
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair, date_time_ymd};

    const DAY: u64 = 24 * 60 * 60;

    fn at(seconds: u64) -> UnixTime {
        UnixTime::since_unix_epoch(Duration::from_secs(seconds))
    }

    #[test]
    fn not_before_and_not_after_are_parsed() {
        for (year, is_ca) in [(2030, false), (2051, true), (9999, false)] {
            let mut params = CertificateParams::new(["name.test".to_owned()]).unwrap();
            params.not_before = date_time_ymd(2020, 1, 1);
            params.not_after = date_time_ymd(year, 12, 31);
            if is_ca {
                params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            }
            let key = KeyPair::generate().unwrap();
            let certificate = params.self_signed(&key).unwrap();
            let not_after = not_after(certificate.der()).unwrap();
            assert_eq!(
                Minute(not_after).to_string(),
                format!("{year}-12-31 00:00 UTC")
            );
            let begins = future_not_before(certificate.der(), at(0)).unwrap();
            assert_eq!(Minute(begins).to_string(), "2020-01-01 00:00 UTC");
            assert_eq!(future_not_before(certificate.der(), begins), None);
        }
    }

    proptest! {
        #[test]
        fn bytes_that_are_no_certificate_have_no_not_after(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            prop_assert_eq!(not_after(&CertificateDer::from(bytes)), None);
        }
    }

    #[test]
    fn a_certificate_is_warned_of_14_days_before_its_end() {
        let own = OwnCertificate {
            file: "own.pem".into(),
            not_after: at(100 * DAY),
        };
        assert_eq!(own.warning(at(86 * DAY - 1)), None);
        let warning_at = |seconds| own.warning(at(seconds)).unwrap();
        assert_eq!(
            warning_at(86 * DAY),
            "the certificate own.pem ends on 1970-04-11 00:00 UTC, in 14 days: put a new one in its place and send SIGHUP"
        );
        assert!(warning_at(100 * DAY).contains("in 0 days"));
        assert!(
            warning_at(100 * DAY + 1).contains(" ended on 1970-04-11 00:00 UTC, and is refused")
        );
    }
}
