//! Decides whether the next attempt to dial a neighbour uses TLS, if TLS is offered and not
//! required.
//!
//! TLS is tried first. If the neighbour answers in plain text, the neighbour is dialled without TLS
//! at once. If the neighbour sends nothing, the neighbour may be restarting, so TLS is tried twice.
//! After an attempt without TLS, the next attempt uses TLS. So after a link is lost, the neighbour
//! is dialled with TLS.
//!
//! ```text
//!            refused, or unanswered twice
//!   TLS next ─────────────────────────────► plain next
//!       ▲                                        │ any other ending
//!       └────────────────────────────────────────┘
//! ```
//!
//! The table shows how two servers link. Each row is the `mode` of `[peers.tls]` in the config of
//! one server, and each column is that of the other server. "none" means that the config has no
//! `[peers.tls]`. The result is the same, whichever server dials:
//!
//! | | none | `offered` | `required` |
//! |---|---|---|---|
//! | none | plain | plain | no link |
//! | `offered` | plain | TLS | TLS |
//! | `required` | no link | TLS | TLS |

/// How a dialled connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttemptOutcome {
    /// The attempt used TLS. The neighbour sent something, but no valid `HERD` over TLS.
    TlsRefused,
    /// The attempt used TLS, and the neighbour sent nothing.
    TlsUnanswered,
    /// The connection was not made, or the attempt used no TLS, or TLS worked.
    Other,
}

/// Whether TLS is used in the next attempt to dial one neighbour.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TlsOffer {
    next_is_plaintext: bool,
    /// Whether the last attempt used TLS and was not answered, but the attempt before it was not
    /// such an attempt.
    is_unanswered: bool,
}

impl TlsOffer {
    /// Whether the next attempt is without TLS.
    #[must_use]
    pub fn next_is_plaintext(self) -> bool {
        self.next_is_plaintext
    }

    /// Chooses between TLS and plain text for the next attempt, from how the last attempt ended.
    pub fn record(&mut self, outcome: AttemptOutcome) {
        *self = match outcome {
            AttemptOutcome::TlsRefused => TlsOffer {
                next_is_plaintext: true,
                is_unanswered: false,
            },
            AttemptOutcome::TlsUnanswered => TlsOffer {
                next_is_plaintext: self.is_unanswered,
                is_unanswered: !self.is_unanswered,
            },
            AttemptOutcome::Other => TlsOffer::default(),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::AttemptOutcome::{Other, TlsRefused, TlsUnanswered};
    use super::*;

    #[test]
    fn plain_is_dialled_after_one_tls_refusal_or_two_timeouts() {
        for (outcomes, next_is_plaintext) in [
            (&[][..], false),
            (&[TlsRefused], true),
            (&[TlsRefused, Other], false),
            (&[TlsRefused, Other, TlsRefused], true),
            (&[TlsUnanswered], false),
            (&[TlsUnanswered, TlsUnanswered], true),
            (&[TlsUnanswered, Other, TlsUnanswered], false),
            (&[TlsUnanswered, TlsUnanswered, Other], false),
            (&[TlsUnanswered, TlsRefused], true),
            (&[TlsUnanswered, TlsUnanswered, Other, TlsUnanswered], false),
        ] {
            let mut offer = TlsOffer::default();
            outcomes.iter().for_each(|&outcome| offer.record(outcome));
            assert_eq!(offer.next_is_plaintext(), next_is_plaintext, "{outcomes:?}");
        }
    }
}
