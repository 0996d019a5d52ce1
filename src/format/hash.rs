//! The hash of a key: 48 bits, the same on every machine and for ever, seeded per store.
//!
//! XXH3 is specified byte by byte, so an index can be rebuilt from hint files that another
//! machine wrote; the seed keeps somebody who chooses keys from choosing collisions. 48 bits are
//! what a hint file stores: enough that two keys of a store of 10 million share one about once in
//! five stores, and every such case is settled by comparing the keys.
//!
//! Source: <https://github.com/Cyan4973/xxHash/blob/dev/doc/xxhash_spec.md>.

use xxhash_rust::xxh3::xxh3_64_with_seed;

/// How many bits of a key's hash are used.
pub(crate) const HASH_BITS: u32 = 48;

/// The hash of a key: 48 bits, kept at the top of the number, where a lookup wants them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct KeyHash(u64);

impl KeyHash {
    /// Takes the low 48 bits.
    #[inline]
    pub(crate) const fn new(bits: u64) -> KeyHash {
        KeyHash(bits << (u64::BITS - HASH_BITS))
    }

    /// The 48 bits as a number.
    #[inline]
    pub(crate) const fn get(self) -> u64 {
        self.0 >> (u64::BITS - HASH_BITS)
    }

    /// The 48 bits as a fraction of 2^64.
    #[inline]
    pub(crate) const fn fraction(self) -> u64 {
        self.0
    }

    /// Its first `bits` bits as a number.
    #[inline]
    pub(crate) const fn first_bits(self, bits: u32) -> u64 {
        self.0 >> (u64::BITS - bits)
    }
}

/// Hashes keys as one store does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct KeyHasher {
    seed: u64,
    bits: u8,
    /// The top `bits` of 64.
    mask: u64,
}

impl KeyHasher {
    /// `bits` is how many of the 48 bits count, from the top, at least one; fewer than all only in
    /// stores that test collisions.
    pub(crate) const fn new(seed: u64, bits: u8) -> KeyHasher {
        let mask = !(u64::MAX >> bits);
        KeyHasher { seed, bits, mask }
    }

    pub(crate) fn seed(self) -> u64 {
        self.seed
    }

    pub(crate) fn bits(self) -> u8 {
        self.bits
    }

    #[inline]
    pub(crate) fn hash(self, key: &[u8]) -> KeyHash {
        KeyHash(xxh3_64_with_seed(key, self.seed) & self.mask)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The values were computed with the reference implementation (`XXH3_64bits_withSeed`).
    #[test]
    fn the_hash_never_changes() {
        let hasher = KeyHasher::new(0x0102_0304_0506_0708, 48);
        assert_eq!(hasher.hash(b"hello").get(), 0x2454_47e1_74c5);
        let long: Vec<u8> = (0..200).chain(0..200).collect();
        let hasher = KeyHasher::new(7, 48);
        assert_eq!(hasher.hash(&long).get(), 0x917a_8bcf_1f0a);
    }

    #[test]
    fn a_narrow_hash_keeps_only_its_top_bits() {
        let narrow = KeyHasher::new(7, 4);
        let full = KeyHasher::new(7, 48);
        assert_eq!(
            narrow.hash(b"key").get(),
            full.hash(b"key").get() >> 44 << 44
        );
    }
}
