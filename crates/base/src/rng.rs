//! Chance: one seeded generator that components share by cloning a handle.
//!
//! A production program seeds it from the kernel; a test seeds it with a number that it prints. Keys and
//! tokens are never made from it: those come from `ring`.

use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;

/// The alphabet of generated name suffixes: no vowels and nothing that reads like another character.
pub const SUFFIX_ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";

/// A handle on a seeded generator (SplitMix64). Clones share one sequence.
#[derive(Clone, Debug)]
pub struct Rng(Arc<Mutex<u64>>);

impl Rng {
    #[must_use]
    pub fn from_seed(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(seed)))
    }

    /// Seeded by the kernel.
    #[must_use]
    pub fn from_entropy() -> Self {
        use ring::rand::SecureRandom;
        let mut bytes = [0u8; 8];
        // A kernel without randomness is one that cannot run TLS either: a fixed seed loses nothing more.
        let _ = ring::rand::SystemRandom::new().fill(&mut bytes);
        Self::from_seed(u64::from_le_bytes(bytes))
    }

    #[must_use]
    pub fn next_u64(&self) -> u64 {
        let mut state = self.0.lock();
        *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = *state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number in `0..bound`; 0 for a bound of 0.
    #[must_use]
    pub fn below(&self, bound: u64) -> u64 {
        if bound == 0 { 0 } else { self.next_u64() % bound }
    }

    /// A suffix of generated names, as in `web-7d4b9c6f5d-x2k8p`.
    #[must_use]
    pub fn suffix(&self, length: usize) -> String {
        (0..length)
            .map(|_| char::from(SUFFIX_ALPHABET[self.below(SUFFIX_ALPHABET.len() as u64) as usize]))
            .collect()
    }

    /// A random (version 4) UUID in its usual spelling.
    #[must_use]
    pub fn uuid(&self) -> String {
        let (hi, lo) = (self.next_u64(), self.next_u64());
        format!(
            "{:08x}-{:04x}-4{:03x}-{:04x}-{:012x}",
            hi >> 32,
            (hi >> 16) & 0xffff,
            hi & 0x0fff,
            0x8000 | (lo >> 48) & 0x3fff,
            lo & 0xffff_ffff_ffff
        )
    }

    /// `base` lengthened by a random share of up to `factor` of itself.
    #[must_use]
    pub fn jitter(&self, base: Duration, factor: f64) -> Duration {
        let share = (self.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
        base.mul_f64(1.0 + share * factor.max(0.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_fixes_the_sequence() {
        let (a, b) = (Rng::from_seed(7), Rng::from_seed(7));
        assert_eq!(a.uuid(), b.uuid());
        assert_eq!(a.suffix(5), b.suffix(5));
    }

    #[test]
    fn uuids_have_version_and_variant() {
        let id = Rng::from_seed(1).uuid();
        assert_eq!(id.len(), 36);
        assert_eq!(&id[14..15], "4");
        assert!(matches!(&id[19..20], "8" | "9" | "a" | "b"));
    }
}
