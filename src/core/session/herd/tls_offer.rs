//! Where TLS is offered to neighbours and not required: whether one is dialled with it or without.
//!
//! TLS is tried first. A neighbour that speaks plain says so, and is dialled without at once. One
//! that says nothing may be about to restart, so TLS is tried twice. An attempt without TLS is
//! followed by one with it, however it ended: a link that is lost is dialled with TLS.
//!
//! ```text
//!            refused, or unanswered twice
//!   TLS next ─────────────────────────────► plain next
//!       ▲                                        │ any other ending
//!       └────────────────────────────────────────┘
//! ```
//!
//! What each pair of settings makes of a link, whichever of the two dials:
//!
//! | | none | `offered` | `required` |
//! |---|---|---|---|
//! | none | plain | plain | no link |
//! | `offered` | plain | TLS | TLS |
//! | `required` | no link | TLS | TLS |

/// How a dialled connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// There was TLS on it, the neighbour said something, and there was no link.
    TlsRefused,
    /// There was TLS on it, and the neighbour said nothing.
    TlsUnanswered,
    /// It was not made, or it was plain, or there was a link.
    Other,
}

/// What is tried next with one neighbour.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TlsOffer {
    is_plain_next: bool,
    /// The last attempt was TLS, and not answered.
    is_unanswered: bool,
}

impl TlsOffer {
    /// Whether the next attempt goes without TLS.
    #[must_use]
    pub fn is_plain_next(self) -> bool {
        self.is_plain_next
    }

    /// A dialled connection has ended.
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
    fn plain_is_tried_once_after_a_refusal_or_two_silences() {
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
