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
//! Each row is the setting of one side, and each column is the setting of the other side. It does
//! not matter which side dials:
//!
//! | | none | `offered` | `required` |
//! |---|---|---|---|
//! | none | plain | plain | no link |
//! | `offered` | plain | TLS | TLS |
//! | `required` | no link | TLS | TLS |

/// How a dialled connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
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
    is_plain_next: bool,
    /// Whether the last attempt used TLS and was not answered.
    is_unanswered: bool,
}

impl TlsOffer {
    /// Whether the next attempt is without TLS.
    #[must_use]
    pub fn is_plain_next(self) -> bool {
        self.is_plain_next
    }

    /// A dialled connection has ended in this way.
    pub fn ended(&mut self, ending: Ending) {
        *self = match ending {
            Ending::TlsRefused => TlsOffer {
                is_plain_next: true,
                is_unanswered: false,
            },
            Ending::TlsUnanswered => TlsOffer {
                is_plain_next: self.is_unanswered,
                is_unanswered: !self.is_unanswered,
            },
            Ending::Other => TlsOffer::default(),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::Ending::{Other, TlsRefused, TlsUnanswered};
    use super::*;

    #[test]
    fn plain_is_dialled_after_one_tls_refusal_or_two_timeouts() {
        for (endings, is_plain_next) in [
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
            endings.iter().for_each(|&ending| offer.ended(ending));
            assert_eq!(offer.is_plain_next(), is_plain_next, "{endings:?}");
        }
    }
}
