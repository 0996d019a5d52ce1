//! Values that say whose they are, so that every read can be checked.
//!
//! A value begins with the first word of its key, changed by a small version; the rest follows from
//! that word and looks random. So one comparison says whether a read has brought a value of the key
//! that was asked for, and the whole value can be checked by anyone who has the key.

use crate::common::{Key, mix};

/// The version that loading writes.
pub(crate) const LOADED: u64 = 0;
/// Versions are below this.
const VERSIONS: u64 = 16;

pub(crate) fn value(key: &Key, version: u64, len: usize) -> Vec<u8> {
    let mut value = vec![0; len];
    fill(&mut value, key, version);
    value
}

pub(crate) fn fill(value: &mut [u8], key: &Key, version: u64) {
    let first = word(key) ^ version;
    for (place, at) in value.chunks_mut(8).zip(0_u64..) {
        place.copy_from_slice(&word_at(first, at).to_le_bytes()[..place.len()]);
    }
}

/// Whether a value that begins with this word is one of the key's.
#[inline]
pub(crate) fn is_of(key: &Key, first_word: u64) -> bool {
    first_word ^ word(key) < VERSIONS
}

/// The version of a value of this length, if each of its bytes is as it was written.
pub(crate) fn version(key: &Key, value: &[u8], len: usize) -> Option<u64> {
    let first = u64::from_le_bytes(*value.first_chunk()?);
    let is_right = value.chunks(8).zip(0_u64..).all(|(place, at)| {
        let expected = word_at(first, at).to_le_bytes();
        place == &expected[..place.len()]
    });
    let version = first ^ word(key);
    (value.len() == len && version < VERSIONS && is_right).then_some(version)
}

#[inline]
fn word(key: &Key) -> u64 {
    key.first_chunk()
        .map_or(0, |word| u64::from_le_bytes(*word))
}

#[inline]
fn word_at(first: u64, at: u64) -> u64 {
    if at == 0 {
        first
    } else {
        mix(first ^ at << 48)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::common::key;

    #[test]
    fn a_value_knows_its_key_and_version() {
        let value = value(&key(1), 5, 100);
        assert_eq!(version(&key(1), &value, 100), Some(5));
        assert_eq!(version(&key(2), &value, 100), None);
        assert_eq!(version(&key(1), &value, 1024), None);
        assert!(is_of(&key(1), crate::common::first_word(&value)));
        assert!(!is_of(&key(2), crate::common::first_word(&value)));
    }

    #[test]
    fn a_changed_byte_is_noticed_wherever_it_is() {
        for at in 0..100 {
            let mut value = value(&key(1), 5, 100);
            value[at] ^= 0x80;
            assert_eq!(version(&key(1), &value, 100), None, "byte {at}");
        }
    }
}
