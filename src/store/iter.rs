//! Iteration in the order of the keys' hashes, which no write changes.
//!
//! The index is read a page at a time; a page covers a range of hashes, and the next page is
//! looked for by the hash it begins at. A page that splits meanwhile, a record that is moved by
//! compaction, a key that is overwritten: none of them changes which range a key belongs to. So a
//! key that is there throughout is met exactly once.

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::sync::Arc;

use super::engine::{Engine, Handle};
use super::read::Hit;
use super::value::Value;
use crate::disk::{Disk, OsDisk};
use crate::error::{Error, Result};
use crate::format::KeyHash;
use crate::format::record::Record;
use crate::index::{Index, IndexHash, Listed};
use crate::reclaim::Pin;

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
        let engine = Arc::clone(&self.engine);
        let mut listed = Vec::new();
        while self.page.is_empty() && self.position < Index::END {
            let pin = engine.collector.pin();
            let mut page = Vec::new();
            let after = self.cursor.after.as_ref();
            let after = after.map(|(hash, key)| (*hash, &key[..]));
            let next = engine.walk_page(&pin, self.position, &mut listed, |hit, record| {
                let key = record.key();
                let hash = engine.hash(key);
                if key.starts_with(&self.prefix) && after.is_none_or(|after| (hash, key) > after) {
                    page.push((hash, key.to_vec(), engine.value(hit)?));
                }
                Ok(ControlFlow::Continue(()))
            })?;
            // Keys with the same hash are few, so that they are looked at only then. A key that was
            // deleted and put again while the page was read may be met twice: the newest comes first.
            page.sort_unstable_by(|a: &(KeyHash, Vec<u8>, Value), b| {
                let newest_first = || b.2.version().cmp(&a.2.version());
                a.0.cmp(&b.0)
                    .then_with(|| a.1.cmp(&b.1))
                    .then_with(newest_first)
            });
            page.dedup_by(|later, first| later.0 == first.0 && later.1 == first.1);
            self.page = page.into();
            self.position = next;
        }
        Ok(())
    }
}

/// How many records of a walk are on their way from memory at a time.
const AHEAD: usize = 16;

impl<D: Disk> Engine<D> {
    /// Calls `visit` with every live record of the index page that covers `position`, and gives the
    /// position after that page, or the end if `visit` breaks off. `listed` is for its use, so that it need not be made for each page.
    pub(crate) fn walk_page(
        &self,
        pin: &Pin<'_>,
        position: u64,
        listed: &mut Vec<Listed>,
        mut visit: impl FnMut(&Hit<'_, D>, &Record<'_>) -> Result<ControlFlow<()>>,
    ) -> Result<u64> {
        listed.clear();
        let next = self
            .index
            .page_at(pin, position, |entry| listed.push(entry));
        let fetch = |entry: &Listed| {
            let location = entry.location();
            if let Some(region) = self.table.region(pin, location.segment_slot()) {
                region.get().prefetch(location.offset() as usize);
            }
        };
        listed.iter().take(AHEAD).for_each(fetch);
        for (at, entry) in listed.iter().enumerate() {
            listed.get(at + AHEAD).into_iter().for_each(fetch);
            let hit = self.read(pin, entry.location(), !entry.is_trusted(self.trust))?;
            let record = hit.record()?;
            let expiry = record.expires_at_ms();
            let has_expired = expiry.is_some_and(|at| self.clock.has_passed(at));
            if !has_expired && visit(&hit, &record)?.is_break() {
                return Ok(Index::END);
            }
        }
        Ok(next)
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
        // In the room that the key before has left.
        let mut last = self.cursor.after.take().map_or(Vec::new(), |(_, key)| key);
        last.clone_from(&key);
        self.cursor.after = Some((hash, last));
        Some(Ok((key, value)))
    }
}
