//! Randomness as an argument. The shell gives the core one random seed, and the core derives all
//! its random values from this seed.
//!
//! With a seed from the operating system, no peer can guess the nonces. With a fixed seed, the
//! simulator can repeat a run exactly.

use ring::hmac;

/// A stream of random bytes: HMAC-SHA256 of a counter, keyed with the seed.
pub struct Entropy {
    key: hmac::Key,
    counter: u64,
}

impl Entropy {
    /// Creates a stream. The same seed always gives the same stream.
    #[must_use]
    pub fn new(seed: &[u8; 32]) -> Entropy {
        Entropy {
            key: hmac::Key::new(hmac::HMAC_SHA256, seed),
            counter: 0,
        }
    }

    /// Returns the next 16 bytes of the stream.
    pub fn next_bytes(&mut self) -> [u8; 16] {
        self.counter += 1;
        let tag = hmac::sign(&self.key, &self.counter.to_be_bytes());
        let mut bytes = [0; 16];
        for (byte, random) in bytes.iter_mut().zip(tag.as_ref()) {
            *byte = *random;
        }
        bytes
    }

    /// Returns a random number: the first 8 of the next 16 bytes of the stream.
    pub fn next_u64(&mut self) -> u64 {
        let [a, b, c, d, e, f, g, h, ..] = self.next_bytes();
        u64::from_be_bytes([a, b, c, d, e, f, g, h])
    }
}
