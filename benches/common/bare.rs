//! What the machine allows: a bare hash table over one mapped file.
//!
//! Not a store: it cannot be written to, checks nothing, and knows no expiry, no deletion, no second
//! segment. It does what no store that keeps its records on the disk can do without: hash the key,
//! find it in a table (one cache miss), compare it in the record (another).

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use memmap2::Mmap;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::Key;

const SEED: u64 = 0x0123_4567_89ab_cdef;

/// A record is these two lengths, the key, the value. The file begins with as many zeros, so that
/// no record has offset 0, which is what an empty slot holds.
const KEY_LEN_BYTES: usize = 4;
const VALUE_LEN_BYTES: usize = 4;
const HEADER_LEN: usize = KEY_LEN_BYTES + VALUE_LEN_BYTES;

/// A slot is 16 bits of the hash and the record's offset.
const OFFSET_BITS: u32 = 48;

pub(crate) struct Bare {
    file: Mmap,
    slots: Box<[AtomicU64]>,
}

impl Bare {
    /// Writes a file of records and builds the table over it, at most half full.
    pub(crate) fn build<V: AsRef<[u8]>>(
        path: &Path,
        records: impl ExactSizeIterator<Item = (Key, V)>,
    ) -> io::Result<Bare> {
        let slots = (records.len() * 2).next_power_of_two();
        let slots: Box<[_]> = std::iter::repeat_with(AtomicU64::default)
            .take(slots)
            .collect();
        let mut file = BufWriter::new(File::create_new(path)?);
        file.write_all(&[0; HEADER_LEN])?;
        let mut offset = HEADER_LEN as u64;
        for (key, value) in records {
            let value = value.as_ref();
            file.write_all(&(key.len() as u32).to_le_bytes())?;
            file.write_all(&(value.len() as u32).to_le_bytes())?;
            file.write_all(&key)?;
            file.write_all(value)?;
            let hash = xxh3_64_with_seed(&key, SEED);
            let mut at = hash as usize & (slots.len() - 1);
            while slots[at].load(Ordering::Relaxed) != 0 {
                at = (at + 1) & (slots.len() - 1);
            }
            let word = hash >> OFFSET_BITS << OFFSET_BITS | offset;
            slots[at].store(word, Ordering::Relaxed);
            offset += (HEADER_LEN + key.len() + value.len()) as u64;
        }
        file.into_inner()?.sync_all()?;
        let file = File::open(path)?;
        // SAFETY: the file is ours, in a directory of our own, and nobody writes to it any more.
        let file = unsafe { Mmap::map(&file)? };
        Ok(Bare { file, slots })
    }

    #[inline]
    pub(crate) fn get(&self, key: &[u8]) -> Option<&[u8]> {
        let hash = xxh3_64_with_seed(key, SEED);
        let mut at = hash as usize & (self.slots.len() - 1);
        loop {
            let word = self.slots[at].load(Ordering::Acquire);
            if word == 0 {
                return None;
            }
            if word >> OFFSET_BITS == hash >> OFFSET_BITS {
                let offset = (word & ((1 << OFFSET_BITS) - 1)) as usize;
                let (its_key, value) = self.record(offset)?;
                if its_key == key {
                    return Some(value);
                }
            }
            at = (at + 1) & (self.slots.len() - 1);
        }
    }

    #[inline]
    fn record(&self, offset: usize) -> Option<(&[u8], &[u8])> {
        let (key_len, rest) = self.file.get(offset..)?.split_first_chunk()?;
        let (value_len, rest) = rest.split_first_chunk()?;
        let (key, rest) = rest.split_at_checked(u32::from_le_bytes(*key_len) as usize)?;
        let value = rest.get(..u32::from_le_bytes(*value_len) as usize)?;
        Some((key, value))
    }
}
