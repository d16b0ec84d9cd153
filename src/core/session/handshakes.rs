//! TLS failures of client connections: the kinds of failures, their counts, and what is logged.
//!
//! Any machine on the internet can fail a handshake as often as it likes. So a failure is logged as
//! a warning only if the count of its kind is a power of two. All other failures are logged at
//! level debug. `herd-client status` shows the counts.

use std::fmt;

use log::{debug, warn};
use rustls::{AlertDescription, Error, InvalidMessage, PeerIncompatible};

use crate::core::session::peer_label::PeerLabel;

/// The kind of a TLS failure. Here "the client" is the other side of the connection. Links and
/// connections to Places use the same kinds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureKind {
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
    /// The client ended the connection before the handshake was finished, or cancelled the
    /// handshake with an alert.
    CutOff,
    /// The client uses TLS, but the clients' port does not.
    Unexpected,
}

impl FailureKind {
    /// All kinds, in the order of the enum.
    pub const ALL: [FailureKind; 11] = [
        FailureKind::PlainText,
        FailureKind::Version,
        FailureKind::Cipher,
        FailureKind::Distrust,
        FailureKind::Alert,
        FailureKind::Certificate,
        FailureKind::Malformed,
        FailureKind::TooLarge,
        FailureKind::TooSlow,
        FailureKind::CutOff,
        FailureKind::Unexpected,
    ];

    /// The name of the kind in the output of `herd-client status`: lower case, without spaces.
    ///
    /// ```
    /// use herd_mio::core::session::handshakes::FailureKind;
    ///
    /// assert_eq!(FailureKind::PlainText.name(), "plain-text");
    /// ```
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            FailureKind::PlainText => "plain-text",
            FailureKind::Version => "version",
            FailureKind::Cipher => "cipher",
            FailureKind::Distrust => "distrust",
            FailureKind::Alert => "alert",
            FailureKind::Certificate => "certificate",
            FailureKind::Malformed => "malformed",
            FailureKind::TooLarge => "too-large",
            FailureKind::TooSlow => "too-slow",
            FailureKind::CutOff => "cut-off",
            FailureKind::Unexpected => "unexpected-tls",
        }
    }

    /// Returns advice for the log: what the operator can do about failures of this kind.
    fn advice(self) -> &'static str {
        match self {
            FailureKind::PlainText => {
                "with [clients.tls] in this server's config clients have to speak TLS (herd-client --tls)"
            }
            FailureKind::Version => {
                "this server speaks TLS 1.2 and 1.3; the client has to be updated"
            }
            FailureKind::Cipher => {
                "this server wants ECDHE (X25519, P-256 or P-384) with AES-GCM or ChaCha20-Poly1305, and a client that takes its certificate's kind of key"
            }
            FailureKind::Distrust => {
                "the client has to trust the authority (herd-client --ca) and to call a name that is in the certificate of [clients.tls]"
            }
            FailureKind::Alert | FailureKind::Certificate => "the client's own log may say more",
            FailureKind::Malformed => {
                "the client is broken, or something between changes what it sends"
            }
            FailureKind::TooLarge => "raise that limit if the client means well",
            FailureKind::TooSlow => {
                "a slow network, or a client that waits for the server to speak first"
            }
            FailureKind::CutOff => {
                "a network that breaks, or a client that refuses the certificate without a word"
            }
            FailureKind::Unexpected => {
                "set [clients.tls] in this server's config, or connect without TLS"
            }
        }
    }

    /// Returns the kind of an error of rustls.
    #[must_use]
    pub fn of(error: &Error) -> FailureKind {
        match error {
            Error::InvalidMessage(
                InvalidMessage::InvalidContentType
                | InvalidMessage::InvalidEmptyPayload
                | InvalidMessage::MessageTooLarge
                | InvalidMessage::UnknownProtocolVersion,
            ) => FailureKind::PlainText,
            Error::PeerIncompatible(
                PeerIncompatible::Tls12NotOffered
                | PeerIncompatible::Tls12NotOfferedOrEnabled
                | PeerIncompatible::ServerDoesNotSupportTls12Or13
                | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig
                | PeerIncompatible::SupportedVersionsExtensionRequired
                // TLS 1.2 introduced this extension, so a client without it is older.
                | PeerIncompatible::SignatureAlgorithmsExtensionRequired,
            ) => FailureKind::Version,
            Error::PeerIncompatible(_) => FailureKind::Cipher,
            Error::AlertReceived(alert) => FailureKind::of_alert(*alert),
            Error::InvalidCertificate(_) | Error::NoCertificatesPresented => FailureKind::Certificate,
            _ => FailureKind::Malformed,
        }
    }

    fn of_alert(alert: AlertDescription) -> FailureKind {
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
            | AlertDescription::UnrecognisedName => FailureKind::Distrust,
            AlertDescription::CloseNotify | AlertDescription::UserCanceled => FailureKind::CutOff,
            AlertDescription::ProtocolVersion => FailureKind::Version,
            AlertDescription::HandshakeFailure | AlertDescription::InsufficientSecurity => {
                FailureKind::Cipher
            }
            _ => FailureKind::Alert,
        }
    }
}

/// The number of failures of TLS with clients, by kind.
#[derive(Debug, Default)]
pub struct Handshakes {
    failed: [u64; FailureKind::ALL.len()],
}

impl Handshakes {
    /// Counts a failure and logs it. `reason` follows the label of the client in the log. It is a
    /// clause, such as "it speaks TLS".
    #[cold]
    pub fn count_failure(&mut self, label: PeerLabel, kind: FailureKind, reason: &str) {
        let failed = &mut self.failed[kind as usize];
        *failed += 1;
        if failed.is_power_of_two() {
            warn!("{label}: {reason}; {}; {failed} so far", kind.advice());
        } else {
            debug!("{label}: {reason}; {failed} so far");
        }
    }

    /// The number of failures of this kind.
    #[must_use]
    pub fn count(&self, kind: FailureKind) -> u64 {
        self.failed[kind as usize]
    }
}

impl fmt::Display for Handshakes {
    /// Writes `<kind>:<count>` for each kind that occurred, with commas between them. Writes
    /// nothing if there was no failure.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let occurred = FailureKind::ALL
            .into_iter()
            .filter(|kind| self.count(*kind) > 0);
        for (index, kind) in occurred.enumerate() {
            let comma = if index > 0 { "," } else { "" };
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
        for (index, kind) in FailureKind::ALL.into_iter().enumerate() {
            assert_eq!(kind as usize, index);
            let namesakes = FailureKind::ALL
                .iter()
                .filter(|it| it.name() == kind.name());
            assert_eq!(namesakes.count(), 1, "{}", kind.name());
        }
    }

    #[test]
    fn only_nonzero_counts_are_shown() {
        let mut handshakes = Handshakes::default();
        assert_eq!(handshakes.to_string(), "");
        let label = PeerLabel::new(1, std::net::SocketAddr::from(([192, 0, 2, 1], 1)));
        for kind in [
            FailureKind::CutOff,
            FailureKind::PlainText,
            FailureKind::CutOff,
        ] {
            handshakes.count_failure(label, kind, "it is a test");
        }
        assert_eq!(handshakes.to_string(), "plain-text:1,cut-off:2");
    }
}
