//! Randomness as an argument: one seed from the shell, everything unpredictable in the core grows
//! from it.
//!
//! A seed of the operating system gives nonces that cannot be guessed; a seed of the simulator
//! gives the same run again.

use ring::hmac;

/// A stream of random bytes: HMAC-SHA256 of a counter, keyed with the seed.
pub struct Entropy {
    key: hmac::Key,
    counter: u64,
}

impl Entropy {
    /// A stream of its own for each seed.
    #[must_use]
    pub fn new(seed: &[u8; 32]) -> Entropy {
        Entropy {
            key: hmac::Key::new(hmac::HMAC_SHA256, seed),
            counter: 0,
        }
    }

    /// The next 16 bytes.
    pub fn bytes(&mut self) -> [u8; 16] {
        self.counter += 1;
        let tag = hmac::sign(&self.key, &self.counter.to_be_bytes());
        let mut bytes = [0; 16];
        for (byte, random) in bytes.iter_mut().zip(tag.as_ref()) {
            *byte = *random;
        }
        bytes
    }

    /// The next number.
    pub fn number(&mut self) -> u64 {
        let [a, b, c, d, e, f, g, h, ..] = self.bytes();
        u64::from_be_bytes([a, b, c, d, e, f, g, h])
    }
}
