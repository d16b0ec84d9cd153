//! The proof that the two ends of a link know the herd's secret. The secret itself is not sent.
//!
//! The proof of a side is an HMAC-SHA256 with the secret as its key. The message has six lines,
//! each ended by LF: `herd-mio link 1`; `dialler` or `acceptor`, which is the side that sends the
//! proof; both names; both nonces. The dialler's name and nonce come before the acceptor's. A
//! recorded proof is useless later, because the message contains both nonces. A proof that is sent
//! back to its sender is useless too, because the message contains the sender's side.

use ring::hmac;

use crate::core::base::hex::{Hex, unhex};
use crate::core::base::settings::Secret;

/// Random bytes. A side uses each nonce for one link only.
pub type Nonce = [u8; 16];

/// An end of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The end that made the connection.
    Dialler,
    /// The end that accepted the connection.
    Acceptor,
}

impl Side {
    /// Returns the other end.
    #[must_use]
    pub const fn other(self) -> Side {
        match self {
            Side::Dialler => Side::Acceptor,
            Side::Acceptor => Side::Dialler,
        }
    }
}

/// The two ends of one link: a name and a nonce for each.
#[derive(Clone, Copy, Debug)]
pub struct Parties<'a> {
    /// The name and the nonce of the end that made the connection.
    pub dialler: (&'a str, &'a Nonce),
    /// The name and the nonce of the end that accepted the connection.
    pub acceptor: (&'a str, &'a Nonce),
}

impl Parties<'_> {
    /// Returns the proof that `sender` sends: 64 hexadecimal digits.
    #[must_use]
    pub fn prove(&self, sender: Side, secret: &Secret) -> String {
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret.expose());
        Hex(hmac::sign(&key, self.text(sender).as_bytes()).as_ref()).to_string()
    }

    /// Whether `proof` is the right proof of `sender`, made with `secret`. The comparison takes
    /// constant time, so a peer cannot find the right proof by measuring times.
    #[must_use]
    pub fn is_valid_proof(&self, sender: Side, secret: &Secret, proof: &[u8]) -> bool {
        let Some(claimed) = unhex::<32>(proof) else {
            return false;
        };
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret.expose());
        hmac::verify(&key, self.text(sender).as_bytes(), &claimed).is_ok()
    }

    fn text(&self, sender: Side) -> String {
        let sender = match sender {
            Side::Dialler => "dialler",
            Side::Acceptor => "acceptor",
        };
        let Parties { dialler, acceptor } = self;
        format!(
            "herd-mio link 1\n{sender}\n{}\n{}\n{}\n{}\n",
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
    fn a_proof_is_bound_to_side_secret_names_and_nonces() {
        let (nonce, other) = (&[1; 16], &[2; 16]);
        let secret = Secret::new(b"secret".to_vec());
        let parties = Parties {
            dialler: ("Riley", nonce),
            acceptor: ("Jaquez", other),
        };
        let proof = parties.prove(Side::Dialler, &secret);
        assert!(parties.is_valid_proof(Side::Dialler, &secret, proof.as_bytes()));
        assert!(
            !parties.is_valid_proof(Side::Acceptor, &secret, proof.as_bytes()),
            "reflected"
        );
        assert!(
            !parties.is_valid_proof(Side::Dialler, &Secret::default(), proof.as_bytes()),
            "guessed"
        );
        assert!(
            !parties.is_valid_proof(Side::Dialler, &secret, &proof.as_bytes()[1..]),
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
                !other.is_valid_proof(Side::Dialler, &secret, proof.as_bytes()),
                "{other:?}"
            );
        }
    }
}
