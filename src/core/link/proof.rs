//! How the two ends of a link prove to one another that they know the herd's secret, without
//! telling it.
//!
//! Each side proves itself with the HMAC-SHA256, keyed with the secret, of these lines, each ended
//! by LF: `herd-mio link 1`, `dialler` or `acceptor` (who speaks), the dialler's name, the
//! acceptor's, the dialler's nonce, the acceptor's. Both nonces are in it, so an old proof proves
//! nothing; the speaker's side is in it, so a proof that is sent back proves nothing either.

use ring::hmac;

use crate::core::base::hex::{Hex, unhex};
use crate::core::base::settings::Secret;

/// Random bytes that a side has never used before.
pub type Nonce = [u8; 16];

/// The two ends of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The one that made the connection.
    Dialler,
    /// The one that it was made to.
    Acceptor,
}

impl Side {
    /// The other end.
    #[must_use]
    pub const fn other(self) -> Side {
        match self {
            Side::Dialler => Side::Acceptor,
            Side::Acceptor => Side::Dialler,
        }
    }
}

/// Who is at the two ends: a name and a nonce for each.
#[derive(Clone, Copy, Debug)]
pub struct Parties<'a> {
    /// The one that made the connection.
    pub dialler: (&'a str, &'a Nonce),
    /// The one that it was made to.
    pub acceptor: (&'a str, &'a Nonce),
}

impl Parties<'_> {
    /// What `speaker` says to prove itself: 64 hexadecimal digits.
    #[must_use]
    pub fn prove(&self, speaker: Side, secret: &Secret) -> String {
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret.expose());
        Hex(hmac::sign(&key, self.text(speaker).as_bytes()).as_ref()).to_string()
    }

    /// Whether `proof` is what `speaker` would say who knows the secret. Takes as long for every
    /// wrong proof.
    #[must_use]
    pub fn is_proven(&self, speaker: Side, secret: &Secret, proof: &[u8]) -> bool {
        let Some(claimed) = unhex::<32>(proof) else {
            return false;
        };
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret.expose());
        hmac::verify(&key, self.text(speaker).as_bytes(), &claimed).is_ok()
    }

    fn text(&self, speaker: Side) -> String {
        let speaker = match speaker {
            Side::Dialler => "dialler",
            Side::Acceptor => "acceptor",
        };
        let Parties { dialler, acceptor } = self;
        format!(
            "herd-mio link 1\n{speaker}\n{}\n{}\n{}\n{}\n",
            dialler.0,
            acceptor.0,
            Hex(dialler.1),
            Hex(acceptor.1)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_right_side_with_the_right_secret_names_and_nonces_is_believed() {
        let (nonce, other) = (&[1; 16], &[2; 16]);
        let secret = Secret::new(b"secret".to_vec());
        let parties = Parties {
            dialler: ("Riley", nonce),
            acceptor: ("Jaquez", other),
        };
        let proof = parties.prove(Side::Dialler, &secret);
        assert!(parties.is_proven(Side::Dialler, &secret, proof.as_bytes()));
        assert!(
            !parties.is_proven(Side::Acceptor, &secret, proof.as_bytes()),
            "reflected"
        );
        assert!(
            !parties.is_proven(Side::Dialler, &Secret::default(), proof.as_bytes()),
            "guessed"
        );
        assert!(
            !parties.is_proven(Side::Dialler, &secret, &proof.as_bytes()[1..]),
            "cut"
        );
        for other in [
            Parties {
                dialler: ("Riley", other),
                ..parties
            },
            Parties {
                dialler: ("Bernard", nonce),
                ..parties
            },
            Parties {
                acceptor: ("Jaquez", nonce),
                ..parties
            },
            Parties {
                acceptor: ("Juzang", other),
                ..parties
            },
        ] {
            assert!(
                !other.is_proven(Side::Dialler, &secret, proof.as_bytes()),
                "{other:?}"
            );
        }
    }
}
