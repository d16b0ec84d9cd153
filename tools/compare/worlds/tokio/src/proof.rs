//! The proof with which both ends of a link show that they know the herd's secret, without sending
//! it. It is an HMAC-SHA256 over the speaker's side, both names and both nonces. The nonces make an
//! old proof invalid. The side makes a reflected proof invalid.

use std::fmt;

use ring::hmac;
use ring::rand::{SecureRandom, SystemRandom};

/// The name under which a tool connects to get the status of a server. No server has this name.
pub(crate) const OPERATOR: &str = "operator";

/// Random bytes, new for each connection.
pub(crate) type Nonce = [u8; 16];

/// One end of a link.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Dialler,
    Acceptor,
}

impl Side {
    pub(crate) const fn other(self) -> Side {
        match self {
            Side::Dialler => Side::Acceptor,
            Side::Acceptor => Side::Dialler,
        }
    }
}

/// The names and the nonces of both ends.
pub(crate) struct Parties<'a> {
    pub(crate) dialler: (&'a str, &'a Nonce),
    pub(crate) acceptor: (&'a str, &'a Nonce),
}

impl Parties<'_> {
    /// The proof of `speaker`: 64 hexadecimal digits.
    pub(crate) fn prove(&self, speaker: Side, secret: &hmac::Key) -> String {
        Hex(hmac::sign(secret, self.text(speaker).as_bytes()).as_ref()).to_string()
    }

    /// Checks a proof of `speaker`. The time is the same for every wrong proof.
    pub(crate) fn is_proven(&self, speaker: Side, secret: &hmac::Key, proof: &[u8]) -> bool {
        unhex::<32>(proof).is_some_and(|claimed| {
            hmac::verify(secret, self.text(speaker).as_bytes(), &claimed).is_ok()
        })
    }

    fn text(&self, speaker: Side) -> String {
        let speaker = match speaker {
            Side::Dialler => "dialler",
            Side::Acceptor => "acceptor",
        };
        let (dialler, dialler_nonce) = self.dialler;
        let (acceptor, acceptor_nonce) = self.acceptor;
        let (dialler_nonce, acceptor_nonce) = (Hex(dialler_nonce), Hex(acceptor_nonce));
        format!(
            "herd-mio link 1\n{speaker}\n{dialler}\n{acceptor}\n{dialler_nonce}\n{acceptor_nonce}\n"
        )
    }
}

/// Random bytes from the system.
pub(crate) fn random<const N: usize>() -> Result<[u8; N], String> {
    let mut bytes = [0; N];
    match SystemRandom::new().fill(&mut bytes) {
        Ok(()) => Ok(bytes),
        Err(_) => Err("the system has no random numbers".to_owned()),
    }
}

/// Bytes as lower-case hexadecimal digits.
pub(crate) struct Hex<'a>(pub(crate) &'a [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Parses exactly `2 * N` hexadecimal digits.
pub(crate) fn unhex<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    if text.len() != 2 * N {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        let digit = |at: usize| char::from(pair[at]).to_digit(16);
        *byte = u8::try_from(digit(0)? * 16 + digit(1)?).ok()?;
    }
    Some(bytes)
}
