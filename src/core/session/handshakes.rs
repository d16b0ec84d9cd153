//! TLS failures of client connections: the kinds of failures, their counts, and what is logged.
//!
//! Any machine on the internet can fail a handshake as often as it likes. So a failure is logged as
//! a warning only if the count of its kind is a power of two. `herd-client status` shows the
//! counts.

use std::fmt;

use log::{debug, warn};
use rustls::{AlertDescription, Error, InvalidMessage, PeerIncompatible};

use crate::core::session::peer_label::PeerLabel;

/// The kind of a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The first bytes are not a TLS record.
    PlainText,
    /// The client offers neither TLS 1.2 nor TLS 1.3.
    Version,
    /// Client and server have no cipher suite, group or signature scheme in common.
    Cipher,
    /// The client does not accept our certificate.
    Distrust,
    /// The client sent an alert that belongs to none of the other kinds.
    Alert,
    /// The client's certificate is missing or not accepted.
    Certificate,
    /// The client sent TLS records or handshake messages that are invalid, or TLS failed for a
    /// reason that is not in this list.
    Malformed,
    /// The handshake, or a later series of TLS records without data, was larger than the limits
    /// allow.
    TooLarge,
    /// The handshake, or a later TLS record, was not finished in time.
    TooSlow,
    /// The connection ended before the handshake was finished.
    CutOff,
    /// The client speaks TLS where plain text is expected.
    Unexpected,
}

impl Kind {
    /// All kinds, in the order of the enum.
    pub const ALL: [Kind; 11] = [
        Kind::PlainText,
        Kind::Version,
        Kind::Cipher,
        Kind::Distrust,
        Kind::Alert,
        Kind::Certificate,
        Kind::Malformed,
        Kind::TooLarge,
        Kind::TooSlow,
        Kind::CutOff,
        Kind::Unexpected,
    ];

    /// The name of the kind in the output of `herd-client status`: lower case, without spaces.
    ///
    /// ```
    /// use herd_mio::core::session::handshakes::Kind;
    ///
    /// assert_eq!(Kind::PlainText.name(), "plain-text");
    /// ```
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Kind::PlainText => "plain-text",
            Kind::Version => "version",
            Kind::Cipher => "cipher",
            Kind::Distrust => "distrust",
            Kind::Alert => "alert",
            Kind::Certificate => "certificate",
            Kind::Malformed => "malformed",
            Kind::TooLarge => "too-large",
            Kind::TooSlow => "too-slow",
            Kind::CutOff => "cut-off",
            Kind::Unexpected => "unexpected-tls",
        }
    }

    /// What the operator can do about failures of this kind.
    fn advice(self) -> &'static str {
        match self {
            Kind::PlainText => {
                "with [clients.tls] in this server's config clients have to speak TLS (herd-client --tls)"
            }
            Kind::Version => "this server speaks TLS 1.2 and 1.3; the client has to be updated",
            Kind::Cipher => {
                "this server wants ECDHE (X25519, P-256 or P-384) with AES-GCM or ChaCha20-Poly1305, and a client that takes its certificate's kind of key"
            }
            Kind::Distrust => {
                "the client has to trust the authority (herd-client --ca) and to call a name that is in the certificate of [clients.tls]"
            }
            Kind::Alert | Kind::Certificate => "the client's own log may say more",
            Kind::Malformed => "the client is broken, or something between changes what it sends",
            Kind::TooLarge => "raise that limit if the client means well",
            Kind::TooSlow => "a slow network, or a client that waits for the server to speak first",
            Kind::CutOff => {
                "a network that breaks, or a client that refuses the certificate without a word"
            }
            Kind::Unexpected => "set [clients.tls] in this server's config, or connect without TLS",
        }
    }

    /// Returns the kind of an error of rustls.
    #[must_use]
    pub fn of(error: &Error) -> Kind {
        match error {
            Error::InvalidMessage(
                InvalidMessage::InvalidContentType
                | InvalidMessage::InvalidEmptyPayload
                | InvalidMessage::MessageTooLarge
                | InvalidMessage::UnknownProtocolVersion,
            ) => Kind::PlainText,
            Error::PeerIncompatible(
                PeerIncompatible::Tls12NotOffered
                | PeerIncompatible::Tls12NotOfferedOrEnabled
                | PeerIncompatible::ServerDoesNotSupportTls12Or13
                | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig
                | PeerIncompatible::SupportedVersionsExtensionRequired
                // TLS 1.2 introduced this extension, so a client without it is older.
                | PeerIncompatible::SignatureAlgorithmsExtensionRequired,
            ) => Kind::Version,
            Error::PeerIncompatible(_) => Kind::Cipher,
            Error::AlertReceived(alert) => Kind::of_alert(*alert),
            Error::InvalidCertificate(_) | Error::NoCertificatesPresented => Kind::Certificate,
            _ => Kind::Malformed,
        }
    }

    fn of_alert(alert: AlertDescription) -> Kind {
        match alert {
            AlertDescription::NoCertificate
            | AlertDescription::BadCertificate
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateUnknown
            | AlertDescription::UnknownCA
            // The client could not verify a signature. For example, another authority with the same
            // name made the signature.
            | AlertDescription::DecryptError
            | AlertDescription::BadCertificateStatusResponse
            | AlertDescription::UnrecognisedName => Kind::Distrust,
            AlertDescription::CloseNotify | AlertDescription::UserCanceled => Kind::CutOff,
            AlertDescription::ProtocolVersion => Kind::Version,
            AlertDescription::HandshakeFailure | AlertDescription::InsufficientSecurity => {
                Kind::Cipher
            }
            _ => Kind::Alert,
        }
    }
}

/// The number of failures of TLS with clients, by kind.
#[derive(Debug, Default)]
pub struct Handshakes {
    failed: [u64; Kind::ALL.len()],
}

impl Handshakes {
    /// Counts a failure and logs it. `reason` follows the label of the client in the log. It is a
    /// clause, such as "it speaks TLS".
    #[cold]
    pub fn failed(&mut self, who: PeerLabel, kind: Kind, reason: &str) {
        let failed = &mut self.failed[kind as usize];
        *failed += 1;
        if failed.is_power_of_two() {
            warn!("{who}: {reason}; {}; {failed} so far", kind.advice());
        } else {
            debug!("{who}: {reason}; {failed} so far");
        }
    }

    /// The number of failures of this kind.
    #[must_use]
    pub fn count(&self, kind: Kind) -> u64 {
        self.failed[kind as usize]
    }
}

impl fmt::Display for Handshakes {
    /// Writes `<kind>:<count>` for each kind that occurred, with commas between them. Writes
    /// nothing if there was no failure.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let came = Kind::ALL.into_iter().filter(|kind| self.count(*kind) > 0);
        for (place, kind) in came.enumerate() {
            let comma = if place > 0 { "," } else { "" };
            write!(f, "{comma}{}:{}", kind.name(), self.count(kind))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_handshake_failure_has_its_own_count_and_name() {
        for (place, kind) in Kind::ALL.into_iter().enumerate() {
            assert_eq!(kind as usize, place);
            let namesakes = Kind::ALL.iter().filter(|it| it.name() == kind.name());
            assert_eq!(namesakes.count(), 1, "{}", kind.name());
        }
    }

    #[test]
    fn only_nonzero_counts_are_shown() {
        let mut handshakes = Handshakes::default();
        assert_eq!(handshakes.to_string(), "");
        let who = PeerLabel::new(1, std::net::SocketAddr::from(([192, 0, 2, 1], 1)));
        for kind in [Kind::CutOff, Kind::PlainText, Kind::CutOff] {
            handshakes.failed(who, kind, "it is a test");
        }
        assert_eq!(handshakes.to_string(), "plain-text:1,cut-off:2");
    }
}
