//! Iteration in the order of the keys' hashes, which no write changes.
//!
//! The index is read a page at a time; a page covers a range of hashes, and the next page is
//! looked for by the hash it begins at. A page that splits meanwhile, a record that is moved by
//! compaction, a key that is overwritten: none of them changes which range a key belongs to. So a
//! key that is there throughout is met exactly once.

use std::collections::VecDeque;
use std::sync::Arc;

use super::Verify;
use super::engine::Handle;
use super::value::Value;
use crate::disk::{Disk, OsDisk};
use crate::error::{Error, Result};
use crate::format::KeyHash;
use crate::index::{Index, IndexHash, Location};

/// Where an iteration has come to; iterating from it gives the keys that are still to come, also
/// in another process and after the store was opened again.
///
/// ```
/// # let dir = tempfile::tempdir()?;
/// let store = crabkv::Store::open(dir.path())?;
/// for i in 0..10 {
///     store.put(format!("key{i}"), "x")?;
/// }
/// let mut iter = store.iter();
/// let first: Vec<_> = iter.by_ref().take(4).collect::<Result<_, _>>()?;
/// let cursor = crabkv::Cursor::from_bytes(&iter.cursor().to_bytes());
/// let rest: Vec<_> = store.iter_from(&cursor).collect::<Result<_, _>>()?;
/// assert_eq!(first.len() + rest.len(), 10);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cursor {
    /// The hash and the key of the last entry that was given out.
    after: Option<(KeyHash, Vec<u8>)>,
}

impl Cursor {
    /// The cursor as bytes, to be kept: the key it has come to, or nothing at the start.
    pub fn to_bytes(&self) -> Vec<u8> {
        match &self.after {
            None => Vec::new(),
            Some((hash, key)) => [&hash.get().to_le_bytes()[..], key].concat(),
        }
    }

    /// A cursor from what [`to_bytes`](Cursor::to_bytes) gave. Other bytes give a cursor to some
    /// other place, never an error.
    pub fn from_bytes(bytes: &[u8]) -> Cursor {
        let split = bytes.split_first_chunk::<8>();
        let after =
            split.map(|(hash, key)| (KeyHash::new(u64::from_le_bytes(*hash)), key.to_vec()));
        Cursor { after }
    }
}

/// The entries of a store, in no order that means anything; see [`Store::iter`](crate::Store::iter).
pub struct Iter<D: Disk = OsDisk> {
    engine: Arc<Handle<D>>,
    prefix: Vec<u8>,
    /// The entries of the page that was read last, after the cursor.
    page: VecDeque<(KeyHash, Vec<u8>, Value)>,
    /// The hash that the next page begins at.
    position: u64,
    cursor: Cursor,
    /// A flush that failed before the first entry.
    failed: Option<Error>,
}

impl<D: Disk> Iter<D> {
    pub(crate) fn new(engine: &Arc<Handle<D>>, prefix: &[u8], cursor: &Cursor) -> Iter<D> {
        Iter {
            engine: Arc::clone(engine),
            prefix: prefix.to_vec(),
            page: VecDeque::new(),
            position: cursor
                .after
                .as_ref()
                .map_or(0, |(hash, _)| IndexHash::from(*hash).position()),
            cursor: cursor.clone(),
            failed: engine.flush_write_back().err(),
        }
    }

    /// Where the iteration has come to.
    pub fn cursor(&self) -> Cursor {
        self.cursor.clone()
    }

    /// Reads pages until one has an entry to give out, or there are no more.
    fn fill(&mut self) -> Result<()> {
        let mut locations: Vec<Location> = Vec::new();
        while self.page.is_empty() && self.position < Index::END {
            let pin = self.engine.collector.pin();
            locations.clear();
            let next = self
                .engine
                .index
                .page_at(&pin, self.position, &mut locations);
            let mut page = Vec::with_capacity(locations.len());
            for &location in &locations {
                let verify = self.engine.verify != Verify::Never;
                let hit = self.engine.read(&pin, location, verify)?;
                let record = hit.record()?;
                let key = record.key();
                let entry = (self.engine.hash(key), key);
                let after = self
                    .cursor
                    .after
                    .as_ref()
                    .map(|(hash, key)| (*hash, &key[..]));
                let expired = record
                    .expires_at_ms()
                    .is_some_and(|at| self.engine.clock.has_passed(at));
                if expired || !key.starts_with(&self.prefix) || after.is_some_and(|a| entry <= a) {
                    continue;
                }
                page.push((entry.0, key.to_vec(), self.engine.value(&hit)?));
            }
            page.sort_unstable_by(|a: &(_, _, Value), b| {
                (a.0, &a.1, b.2.version()).cmp(&(b.0, &b.1, a.2.version()))
            });
            // A key that was deleted and put again while the page was read may be met twice: the
            // newest comes first.
            page.dedup_by(|later, first| later.1 == first.1);
            self.page = page.into();
            self.position = next;
        }
        Ok(())
    }
}

impl<D: Disk> Iterator for Iter<D> {
    type Item = Result<(Vec<u8>, Value)>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(error) = self.failed.take() {
            self.position = u64::MAX;
            return Some(Err(error));
        }
        if let Err(error) = self.fill() {
            self.position = u64::MAX;
            return Some(Err(error));
        }
        let (hash, key, value) = self.page.pop_front()?;
        self.cursor.after = Some((hash, key.clone()));
        Some(Ok((key, value)))
    }
}
