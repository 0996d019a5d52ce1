//! What the machine allows: a bare hash table over one mapped file.
//!
//! Not a store: it is made once and never changes, checks nothing, and knows no expiry,
//! no deletion, no second segment. It does what no store that keeps its records on the disk
//! can do without: hash the key, find it in a table (one cache miss), compare it in the record
//! (another); walk the file to fill the table, or a list of hashes and offsets; copy what is live.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
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

/// An entry of the list is a hash and an offset.
const ENTRY_LEN: usize = 16;

/// Files are written this many bytes at a time.
const WRITE_LEN: usize = 1 << 20;

/// Appends a record to a buffer.
pub(crate) fn encode(buffer: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    buffer.extend_from_slice(&(key.len() as u32).to_le_bytes());
    buffer.extend_from_slice(&(value.len() as u32).to_le_bytes());
    buffer.extend_from_slice(key);
    buffer.extend_from_slice(value);
}

pub(crate) struct Bare {
    path: PathBuf,
    file: Mmap,
    table: Arc<Table>,
}

/// A record in the file, and where it is.
struct Record<'a> {
    offset: usize,
    bytes: &'a [u8],
    key: &'a [u8],
    value: &'a [u8],
}

impl Bare {
    /// Writes a file of records and fills the table from it. Of a key that comes twice the later
    /// record is live.
    pub(crate) fn build<V: AsRef<[u8]>>(
        path: &Path,
        records: impl Iterator<Item = (Key, V)>,
    ) -> io::Result<Bare> {
        let mut file = BufWriter::with_capacity(WRITE_LEN, File::create_new(path)?);
        file.write_all(&[0; HEADER_LEN])?;
        let mut buffer = Vec::new();
        let mut count = 0;
        for (key, value) in records {
            buffer.clear();
            encode(&mut buffer, &key, value.as_ref());
            file.write_all(&buffer)?;
            count += 1;
        }
        file.into_inner()?.sync_all()?;
        Bare::scan(path, count, |_| ())
    }

    /// Fills a table for so many records by walking the file, with a look at each.
    pub(crate) fn scan(path: &Path, count: usize, look: impl Fn(&[u8])) -> io::Result<Bare> {
        let file = map(path)?;
        let table = Table::with_room(count);
        for record in records(&file) {
            look(record.bytes);
            let hash = xxh3_64_with_seed(record.key, SEED);
            let has_its_key =
                |offset| record_at(&file, offset).is_some_and(|other| other.key == record.key);
            table.insert(hash, record.offset, has_its_key);
        }
        Ok(Bare {
            path: path.to_path_buf(),
            file,
            table: Arc::new(table),
        })
    }

    /// Writes the list of what is live, from which [`from_list`](Bare::from_list) fills a table.
    pub(crate) fn write_list(&self, path: &Path) -> io::Result<()> {
        let mut list = BufWriter::new(File::create_new(path)?);
        for record in self.live() {
            let hash = xxh3_64_with_seed(record.key, SEED);
            list.write_all(&hash.to_le_bytes())?;
            list.write_all(&(record.offset as u64).to_le_bytes())?;
        }
        list.into_inner()?.sync_all()
    }

    /// Fills a table from a list of hashes and offsets, without looking at a record.
    pub(crate) fn from_list(path: &Path, list: &Path) -> io::Result<Bare> {
        let list = map(list)?;
        let table = Table::with_room(list.len() / ENTRY_LEN);
        for entry in list.chunks_exact(ENTRY_LEN) {
            let word = |at: usize| {
                entry[at..]
                    .first_chunk()
                    .map_or(0, |w| u64::from_le_bytes(*w))
            };
            table.insert(word(0), word(8) as usize, |_| false);
        }
        Ok(Bare {
            path: path.to_path_buf(),
            file: map(path)?,
            table: Arc::new(table),
        })
    }

    /// The same table over a map of its own, of which the system has not yet been asked for a page.
    pub(crate) fn mapped_again(&self) -> io::Result<Bare> {
        Ok(Bare {
            path: self.path.clone(),
            file: map(&self.path)?,
            table: Arc::clone(&self.table),
        })
    }

    #[inline]
    pub(crate) fn get(&self, key: &[u8]) -> Option<&[u8]> {
        self.find(key).map(|record| record.value)
    }

    /// The key's whole record, of which a store would verify a checksum.
    #[inline]
    pub(crate) fn get_record(&self, key: &[u8]) -> Option<&[u8]> {
        self.find(key).map(|record| record.bytes)
    }

    /// The values, as they lie in the file.
    pub(crate) fn values(&self) -> impl Iterator<Item = &[u8]> {
        records(&self.file).map(|record| record.value)
    }

    /// The whole records, as they lie in the file.
    pub(crate) fn records(&self) -> impl Iterator<Item = &[u8]> {
        records(&self.file).map(|record| record.bytes)
    }

    /// Copies the live records into another file, durably; says how many there are.
    pub(crate) fn copy_live(&self, to: &Path) -> io::Result<usize> {
        let mut file = BufWriter::with_capacity(WRITE_LEN, File::create_new(to)?);
        file.write_all(&[0; HEADER_LEN])?;
        let mut count = 0;
        for record in self.live() {
            file.write_all(record.bytes)?;
            count += 1;
        }
        file.into_inner()?.sync_data()?;
        Ok(count)
    }

    #[inline]
    fn find(&self, key: &[u8]) -> Option<Record<'_>> {
        let hash = xxh3_64_with_seed(key, SEED);
        self.table.find(hash, |offset| {
            record_at(&self.file, offset).filter(|record| record.key == key)
        })
    }

    fn live(&self) -> impl Iterator<Item = Record<'_>> {
        records(&self.file)
            .filter(|record| self.find(record.key).map(|found| found.offset) == Some(record.offset))
    }
}

fn map(path: &Path) -> io::Result<Mmap> {
    let file = File::open(path)?;
    // SAFETY: the file is ours, in a directory of our own, and nobody writes to it any more.
    unsafe { Mmap::map(&file) }
}

#[inline]
fn record_at(file: &[u8], offset: usize) -> Option<Record<'_>> {
    let record = file.get(offset..)?;
    let (key_len, rest) = record.split_first_chunk()?;
    let (value_len, rest) = rest.split_first_chunk()?;
    let (key, rest) = rest.split_at_checked(u32::from_le_bytes(*key_len) as usize)?;
    let value = rest.get(..u32::from_le_bytes(*value_len) as usize)?;
    Some(Record {
        offset,
        bytes: &record[..HEADER_LEN + key.len() + value.len()],
        key,
        value,
    })
}

fn records(file: &[u8]) -> impl Iterator<Item = Record<'_>> {
    let first = record_at(file, HEADER_LEN);
    std::iter::successors(first, |record| {
        record_at(file, record.offset + record.bytes.len())
    })
}

/// Open addressing, at most half full.
struct Table {
    slots: Box<[AtomicU64]>,
}

impl Table {
    fn with_room(count: usize) -> Table {
        let slots = (count * 2).next_power_of_two();
        let slots = std::iter::repeat_with(AtomicU64::default).take(slots);
        Table {
            slots: slots.collect(),
        }
    }

    /// Points at a record, instead of at another of the same key if there is one.
    fn insert(&self, hash: u64, offset: usize, is_same: impl Fn(usize) -> bool) {
        let mut at = hash as usize & (self.slots.len() - 1);
        loop {
            let word = self.slots[at].load(Ordering::Relaxed);
            if word == 0 || (tag(word) == tag(hash) && is_same(offset_of(word))) {
                let word = tag(hash) << OFFSET_BITS | offset as u64;
                return self.slots[at].store(word, Ordering::Relaxed);
            }
            at = (at + 1) & (self.slots.len() - 1);
        }
    }

    #[inline]
    fn find<T>(&self, hash: u64, look: impl Fn(usize) -> Option<T>) -> Option<T> {
        let mut at = hash as usize & (self.slots.len() - 1);
        loop {
            let word = self.slots[at].load(Ordering::Acquire);
            if word == 0 {
                return None;
            }
            if tag(word) == tag(hash) {
                if let Some(found) = look(offset_of(word)) {
                    return Some(found);
                }
            }
            at = (at + 1) & (self.slots.len() - 1);
        }
    }
}

#[inline]
fn tag(word: u64) -> u64 {
    word >> OFFSET_BITS
}

#[inline]
fn offset_of(word: u64) -> usize {
    (word & ((1 << OFFSET_BITS) - 1)) as usize
}
