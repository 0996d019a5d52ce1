//! The pinned reader: values borrowed as they lie, without a reference count.

use std::ops::ControlFlow;
use std::sync::Arc;

use elsa::FrozenVec;

use super::engine::Engine;
use super::read::{Straight, make_value};
use super::write_back::Buffered;
use crate::disk::{Disk, OsDisk};
use crate::error::Result;
use crate::format::KeyHash;
use crate::index::Index;
use crate::reclaim::Pin;

/// How many lookups of a [`Reader::get_many`] are under way at a time: enough to overlap their
/// cache misses, few enough for the core's line buffers.
pub(crate) const OVERLAPPED: usize = 32;

/// Reads values as slices that it lends: the cheapest way to read.
///
/// A reader sees every write as soon as it is visible; it is not a snapshot. While it lives, the
/// memory of what is replaced meanwhile (parts of the index, the segments that compaction has
/// done with) is kept, so hold it for a burst of reads, not for ever, or call
/// [`refresh`](Reader::refresh) now and then. It stays on its thread.
///
/// ```
/// # let dir = tempfile::tempdir()?;
/// let store = crabkv::Store::open(dir.path())?;
/// store.put("a", "1")?;
/// store.put("b", "2")?;
/// let reader = store.reader();
/// let (a, b) = (reader.get("a")?, reader.get("b")?);
/// assert_eq!((a, b), (Some(&b"1"[..]), Some(&b"2"[..])));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// What it lends cannot outlive it:
///
/// ```compile_fail
/// # let dir = tempfile::tempdir().unwrap();
/// let store = crabkv::Store::open(dir.path()).unwrap();
/// let value = {
///     let reader = store.reader();
///     reader.get("a").unwrap()
/// };
/// println!("{value:?}");
/// ```
pub struct Reader<'s, D: Disk = OsDisk> {
    engine: &'s Engine<D>,
    pin: Pin<'s>,
    /// Values that had to be made: decompressed, read by `pread`, or still in the write-back
    /// buffer.
    held: FrozenVec<Arc<[u8]>>,
}

impl<'s, D: Disk> Reader<'s, D> {
    pub(crate) fn new(engine: &'s Engine<D>) -> Reader<'s, D> {
        Reader {
            engine,
            pin: engine.collector.pin(),
            held: FrozenVec::new(),
        }
    }

    /// The value of a key, or `None` if it is absent or expired.
    ///
    /// The slice starts on an 8-byte boundary if the value is not compressed and segments are
    /// mapped. Values that cannot be lent as they lie are kept by the reader until it is dropped
    /// or refreshed.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`](crate::Error::Corrupt) when the record is damaged;
    /// [`Error::Io`](crate::Error::Io) when it cannot be read.
    #[expect(
        clippy::inline_always,
        reason = "it keeps a fifth more lookups under way"
    )]
    #[inline(always)]
    pub fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<&[u8]>> {
        let key = key.as_ref();
        self.get_hashed(self.engine.hash(key), key)
    }

    #[expect(clippy::inline_always, reason = "see `get`")]
    #[inline(always)]
    fn get_hashed(&self, hash: KeyHash, key: &[u8]) -> Result<Option<&[u8]>> {
        let engine = self.engine;
        match engine.find_straight(&self.pin, hash, key, |_, _, value| value) {
            Straight::Found(value) => Ok(Some(value)),
            Straight::Absent if engine.write_back.is_none() => Ok(None),
            _ => self.get_by_detour(hash, key),
        }
    }

    #[inline(never)]
    fn get_by_detour(&self, hash: KeyHash, key: &[u8]) -> Result<Option<&[u8]>> {
        let engine = self.engine;
        match engine.buffered(key) {
            Some(Buffered::Put {
                value,
                expires_at_ms,
            }) => {
                let expired = expires_at_ms.is_some_and(|at| engine.clock.has_passed(at));
                return Ok((!expired).then(|| self.held.push_get(value)));
            }
            Some(Buffered::Delete) => return Ok(None),
            None => {}
        }
        let Some(hit) = engine.find_hashed(&self.pin, hash, key)? else {
            return Ok(None);
        };
        match hit.borrowed() {
            Some(value) => Ok(Some(value)),
            None => engine
                .owned_value(&hit)
                .map(|value| Some(self.held.push_get(value))),
        }
    }

    /// Looks many keys up, overlapping the cache misses of one with those of the others, and
    /// calls `visit` with each key's position in `keys` and its value, in order.
    ///
    /// # Errors
    ///
    /// As [`get`](Reader::get), at the first key that fails.
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// let store = crabkv::Store::open(dir.path())?;
    /// store.put("a", "1")?;
    /// let reader = store.reader();
    /// let mut found = 0;
    /// reader.get_many(&["a", "b"], |_, value| found += usize::from(value.is_some()))?;
    /// assert_eq!(found, 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn get_many<'r, K: AsRef<[u8]>>(
        &'r self,
        keys: &[K],
        mut visit: impl FnMut(usize, Option<&'r [u8]>),
    ) -> Result<()> {
        let mut hashes = [KeyHash::new(0); OVERLAPPED];
        for (chunk, first) in keys.chunks(OVERLAPPED).zip((0..).step_by(OVERLAPPED)) {
            self.engine.prefetch(&self.pin, chunk, &mut hashes);
            for ((key, hash), i) in chunk.iter().zip(hashes).zip(first..) {
                visit(i, self.get_hashed(hash, key.as_ref())?);
            }
        }
        Ok(())
    }

    /// Calls `visit` with every key and its value, as they lie, until it breaks off: the fastest way
    /// over everything, in no order that means anything. Nothing is allocated but for values that
    /// must be made (compressed ones, or with [`ReadMode::Pread`](crate::ReadMode::Pread)); those are
    /// gone after the call.
    ///
    /// As with [`Store::iter`](crate::Store::iter), a key that is there throughout is met exactly
    /// once; one that is deleted and put again meanwhile may be met twice. Writes and compaction go
    /// on beside it. A write-back buffer is flushed first.
    ///
    /// # Errors
    ///
    /// As [`get`](Reader::get), at the first record that fails, and of the flush as
    /// [`put`](crate::Store::put).
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// use std::ops::ControlFlow;
    ///
    /// let store = crabkv::Store::open(dir.path())?;
    /// store.put("a", "1")?;
    /// store.put("b", "22")?;
    /// let mut bytes = 0;
    /// store.reader().for_each(|key, value| {
    ///     bytes += key.len() + value.len();
    ///     ControlFlow::Continue(())
    /// })?;
    /// assert_eq!(bytes, 5);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn for_each(&self, mut visit: impl FnMut(&[u8], &[u8]) -> ControlFlow<()>) -> Result<()> {
        self.engine.flush_write_back()?;
        let (mut position, mut listed) = (0, Vec::new());
        while position < Index::END {
            let next = self
                .engine
                .walk_page(&self.pin, position, &mut listed, |hit, record| {
                    Ok(match hit.borrowed() {
                        Some(value) => visit(record.key(), value),
                        None => visit(record.key(), &make_value(hit)?),
                    })
                });
            position = next?;
        }
        Ok(())
    }

    /// Whether a key has a value.
    ///
    /// # Errors
    ///
    /// As [`get`](Reader::get).
    pub fn contains_key(&self, key: impl AsRef<[u8]>) -> Result<bool> {
        self.engine.contains_key(key.as_ref())
    }

    /// Lets go of everything that was kept for this reader: what it has lent so far, and what
    /// was replaced meanwhile.
    pub fn refresh(&mut self) {
        self.held = FrozenVec::new();
        self.pin.repin();
    }
}

impl<D: Disk> Engine<D> {
    /// Hashes up to [`OVERLAPPED`] keys, and starts to load their index lines, then their records.
    pub(crate) fn prefetch<K: AsRef<[u8]>>(
        &self,
        pin: &Pin<'_>,
        keys: &[K],
        hashes: &mut [KeyHash; OVERLAPPED],
    ) {
        for (key, hash) in keys.iter().zip(hashes.iter_mut()) {
            *hash = self.hash(key.as_ref());
            self.index.prefetch(pin, (*hash).into());
        }
        for hash in &hashes[..keys.len()] {
            self.prefetch_record(pin, *hash);
        }
    }

    /// Starts to load what is most likely the record of this hash; waits for its index line.
    #[inline]
    pub(crate) fn prefetch_record(&self, pin: &Pin<'_>, hash: KeyHash) {
        let Some(location) = self.index.first_match(pin, hash.into()) else {
            return;
        };
        let segment = self.table.get(pin, location.segment_slot());
        if let Some(region) = segment.and_then(|segment| segment.region()) {
            region.prefetch(location.offset() as usize);
        }
    }

    pub(crate) fn contains_key(&self, key: &[u8]) -> Result<bool> {
        if let Some(write) = self.buffered(key) {
            return Ok(self.buffered_value(write).is_some());
        }
        let (pin, hash) = (self.collector.pin(), self.hash(key));
        match self.find_straight(&pin, hash, key, |_, _, _| ()) {
            Straight::Found(()) => Ok(true),
            Straight::Absent => Ok(false),
            Straight::Detour => Ok(self.find_hashed(&pin, hash, key)?.is_some()),
        }
    }
}
