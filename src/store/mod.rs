//! The store: orchestration of log, index and threads, behind the public types.
//!
//! Lock order, from first to last; each is taken only while holding locks before it:
//!
//! 1. the compaction lock (in a read-only store: the follower's lock),
//! 2. the flush lock of the write-back buffer,
//! 3. the write-back buffer itself (never held while waiting for the disk to write),
//! 4. the lead ([`commit`]),
//! 5. the writer lock.
//!
//! Readers take none of them, but for the write-back buffer where there is one.

mod background;
mod batch;
mod builder;
mod cache;
mod changes;

mod checkpoint;
mod clock;
mod commit;
mod compact;
mod compactor;
mod conditional;
mod engine;
mod explain;
mod feed;
mod follow;
mod hidden;
mod iter;
mod leaving;
mod pending;
mod read;
mod reader;
mod reserve;
mod scan;
mod stats;
mod value;
mod walk;
mod watch;
mod write;
mod write_back;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

pub use batch::WriteBatch;
pub use builder::{CrabKvBuilder, Durability, Verify};
pub use changes::{Change, ChangeKind, Changes};
pub use conditional::Modification;
pub use explain::{NextCompaction, NotYetFree, SegmentExplanation, SpaceExplanation};
pub use iter::{Cursor, Iter};
pub use reader::Reader;
pub use scan::ScannedKeys;
pub use stats::{SegmentStats, Stats};
pub use value::Value;
pub use watch::Watch;

use crate::compaction::CompactionReport;
use crate::disk::{Disk, OsDisk};
use crate::error::Result;
#[cfg(any(test, feature = "sim"))]
use crate::format::SegmentId;
use crate::recovery::RecoveryReport;
use batch::Ttl;
use engine::{Engine, Handle};

/// A key-value store for bytes, in a directory of its own.
///
/// Cloning a store gives another handle to the same one; handles can be used by any number of
/// threads. Reads run in parallel and never wait for writes; writes are serialized. The directory
/// is locked until the last handle, reader, iterator is dropped. Other processes can open it
/// [read-only](Store::open_read_only) meanwhile.
///
/// ```
/// # let dir = tempfile::tempdir()?;
/// let store = crabkv::Store::open(dir.path())?;
/// store.put("hello", "world")?;
/// assert_eq!(store.get("hello")?.unwrap(), "world");
/// assert!(store.delete("hello")?);
/// assert!(store.get("hello")?.is_none());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Store<D: Disk = OsDisk> {
    engine: Arc<Handle<D>>,
}

impl<D: Disk> Clone for Store<D> {
    fn clone(&self) -> Store<D> {
        Store {
            engine: Arc::clone(&self.engine),
        }
    }
}

impl<D: Disk> std::fmt::Debug for Store<D> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store")
            .field("dir", &self.dir())
            .finish_non_exhaustive()
    }
}

impl<D: Disk> IntoIterator for &Store<D> {
    type Item = Result<(Vec<u8>, Value)>;
    type IntoIter = Iter<D>;

    /// As [`Store::iter`].
    fn into_iter(self) -> Iter<D> {
        self.iter()
    }
}

impl Store {
    /// Opens the store in `dir` with the default options, making it if there is none.
    ///
    /// # Errors
    ///
    /// [`Error::Locked`](crate::Error::Locked) when it is open elsewhere,
    /// [`Error::Corrupt`](crate::Error::Corrupt) when a file is damaged,
    /// [`Error::UnsupportedVersion`](crate::Error::UnsupportedVersion) when a newer CrabKv wrote
    /// it, [`Error::ForeignFile`](crate::Error::ForeignFile) when `dir` has other things in it,
    /// [`Error::Io`](crate::Error::Io) when it is no directory or cannot be written to. Nothing
    /// has been changed then.
    pub fn open(dir: impl AsRef<Path>) -> Result<Store> {
        Store::builder(dir).build_store()
    }

    /// Options for opening the store in `dir`.
    pub fn builder(dir: impl AsRef<Path>) -> CrabKvBuilder {
        CrabKvBuilder::new(dir)
    }
}

impl<D: Disk> Store<D> {
    pub(crate) fn open_on(disk: D, settings: builder::Settings) -> Result<Store<D>> {
        Ok(Store {
            engine: Arc::new(Handle::new(Engine::open(disk, settings)?)),
        })
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        &self.engine.settings.dir
    }

    /// What opening the store found and did.
    pub fn recovery_report(&self) -> &RecoveryReport {
        &self.engine.report
    }

    /// Puts a value, replacing the one before, with the default TTL.
    ///
    /// Keys are up to [`MAX_KEY_LEN`](crate::MAX_KEY_LEN), values up to
    /// [`MAX_VALUE_LEN`](crate::MAX_VALUE_LEN) bytes long; both may be empty.
    ///
    /// # Errors
    ///
    /// [`Error::KeyTooLarge`](crate::Error::KeyTooLarge),
    /// [`Error::ValueTooLarge`](crate::Error::ValueTooLarge);
    /// [`Error::DiskFull`](crate::Error::DiskFull), after which nothing was written and writes
    /// work again when there is room; [`Error::Io`](crate::Error::Io) for another failure, after
    /// which all writes fail with [`Error::Poisoned`](crate::Error::Poisoned) until the store is
    /// opened again, and it is not known whether this one will be there.
    pub fn put(&self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<()> {
        self.engine.put(key.as_ref(), value.as_ref(), Ttl::Default)
    }

    /// Puts a value that expires `ttl` from now: it is gone then, to the millisecond.
    ///
    /// # Errors
    ///
    /// As [`put`](Store::put).
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// let store = crabkv::Store::open(dir.path())?;
    /// store.put_with_ttl("code", "1234", std::time::Duration::from_millis(1))?;
    /// std::thread::sleep(std::time::Duration::from_millis(2));
    /// assert!(store.get("code")?.is_none());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn put_with_ttl(
        &self,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
        ttl: Duration,
    ) -> Result<()> {
        self.engine.put(key.as_ref(), value.as_ref(), Ttl::For(ttl))
    }

    /// Puts a value that expires at `at`: it is gone then, to the millisecond (rounded up, so that
    /// it is never gone early).
    ///
    /// If `at` has passed, the key is deleted: there is no value then, an older one included,
    /// whatever becomes of the clock.
    ///
    /// # Errors
    ///
    /// As [`put`](Store::put).
    ///
    /// ```
    /// use std::time::{Duration, SystemTime};
    ///
    /// # let dir = tempfile::tempdir()?;
    /// let store = crabkv::Store::open(dir.path())?;
    /// let noon = SystemTime::UNIX_EPOCH + Duration::from_secs(32_472_187_200); // in 2999
    /// store.put_expiring_at("ticket", "A7", noon)?;
    /// assert_eq!(store.expires_at("ticket")?, Some(noon));
    ///
    /// store.put_expiring_at("ticket", "A8", SystemTime::UNIX_EPOCH)?;
    /// assert!(store.get("ticket")?.is_none());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn put_expiring_at(
        &self,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
        at: SystemTime,
    ) -> Result<()> {
        let ttl = Ttl::At(clock::ms_of(at));
        self.engine.put(key.as_ref(), value.as_ref(), ttl)
    }

    /// Applies a batch: after a crash all of it is there, or nothing.
    ///
    /// # Errors
    ///
    /// As [`put`](Store::put), and [`Error::BatchTooLarge`](crate::Error::BatchTooLarge).
    pub fn write(&self, batch: &WriteBatch) -> Result<()> {
        self.engine.write(batch)
    }

    /// Puts many values at once, as [`write`](Store::write) does: all of them or none.
    ///
    /// # Errors
    ///
    /// As [`write`](Store::write).
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// let store = crabkv::Store::open(dir.path())?;
    /// store.put_batch([("a", "1"), ("b", "2")])?;
    /// assert_eq!(store.len(), 2);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn put_batch<K: AsRef<[u8]>, V: AsRef<[u8]>>(
        &self,
        entries: impl IntoIterator<Item = (K, V)>,
    ) -> Result<()> {
        let mut batch = WriteBatch::new();
        for (key, value) in entries {
            batch.put(key, value)?;
        }
        self.write(&batch)
    }

    /// The value of a key, or `None` if it is absent or expired.
    ///
    /// The [`Value`] keeps its bytes alive; nothing is copied unless it is compressed. For many
    /// reads in a row a [`reader`](Store::reader) is faster still.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`](crate::Error::Corrupt) when the record is damaged,
    /// [`Error::Io`](crate::Error::Io) when it cannot be read.
    #[inline]
    pub fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<Value>> {
        self.engine.get(key.as_ref())
    }

    /// The values of many keys, in their order, overlapping the cache misses of the lookups.
    ///
    /// # Errors
    ///
    /// As [`get`](Store::get), at the first key that fails.
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// let store = crabkv::Store::open(dir.path())?;
    /// store.put("a", "1")?;
    /// let values = store.get_many(&["a", "b"])?;
    /// assert!(values[0].is_some() && values[1].is_none());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn get_many<K: AsRef<[u8]>>(&self, keys: &[K]) -> Result<Vec<Option<Value>>> {
        let mut hashes = [crate::format::KeyHash::new(0); reader::OVERLAPPED];
        let mut values = Vec::with_capacity(keys.len());
        for chunk in keys.chunks(reader::OVERLAPPED) {
            let pin = self.engine.collector.pin();
            self.engine.prefetch(&pin, chunk, &mut hashes);
            for (key, hash) in chunk.iter().zip(hashes) {
                values.push(self.engine.get_hashed(&pin, hash, key.as_ref())?);
            }
        }
        Ok(values)
    }

    /// Whether a key has a value.
    ///
    /// # Errors
    ///
    /// As [`get`](Store::get).
    pub fn contains_key(&self, key: impl AsRef<[u8]>) -> Result<bool> {
        self.engine.contains_key(key.as_ref())
    }

    /// A reader that lends values instead of guarding each: the cheapest way to read.
    pub fn reader(&self) -> Reader<'_, D> {
        Reader::new(&self.engine)
    }

    /// How many keys there are, those included that have expired and are not yet compacted away.
    /// Takes no time. Keys that are only in the write-back buffer do not count yet.
    pub fn len(&self) -> usize {
        self.engine.index.len()
    }

    /// Whether there are no keys, counted as [`len`](Store::len) does.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All keys and their values, in no order that means anything.
    ///
    /// It is not a snapshot: a key that is there from beginning to end is met exactly once, with
    /// a value that it had meanwhile; one that comes or goes meanwhile may be met or not. Writes
    /// and compaction go on. A write-back buffer is flushed first.
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// let store = crabkv::Store::open(dir.path())?;
    /// store.put("a", "1")?;
    /// for entry in store.iter() {
    ///     let (key, value) = entry?;
    ///     assert_eq!((&key[..], &*value), (&b"a"[..], &b"1"[..]));
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn iter(&self) -> Iter<D> {
        Iter::new(&self.engine, b"", &Cursor::default())
    }

    /// As [`iter`](Store::iter), going on from where another iteration had come to.
    pub fn iter_from(&self, cursor: &Cursor) -> Iter<D> {
        Iter::new(&self.engine, b"", cursor)
    }

    /// All keys; otherwise as [`iter`](Store::iter).
    pub fn keys(&self) -> impl Iterator<Item = Result<Vec<u8>>> + use<D> {
        self.iter().map(|entry| entry.map(|(key, _)| key))
    }

    /// The keys that begin with `prefix`, with their values; otherwise as [`iter`](Store::iter).
    /// Looks at every key: there is no order of keys to search in.
    pub fn scan_prefix(&self, prefix: impl AsRef<[u8]>) -> Iter<D> {
        Iter::new(&self.engine, prefix.as_ref(), &Cursor::default())
    }

    /// As [`scan_prefix`](Store::scan_prefix), going on from where another scan had come to.
    pub fn scan_prefix_from(&self, prefix: impl AsRef<[u8]>, cursor: &Cursor) -> Iter<D> {
        Iter::new(&self.engine, prefix.as_ref(), cursor)
    }

    /// Writes what waits in the write-back buffer to the log, with the store's durability. Does
    /// nothing without such a buffer.
    ///
    /// # Errors
    ///
    /// As [`put`](Store::put); what could not be written goes on waiting.
    pub fn flush(&self) -> Result<()> {
        self.engine.check_not_read_only()?;
        self.engine.flush_write_back()
    }

    /// Makes everything so far durable, what waits in a write-back buffer included.
    ///
    /// # Errors
    ///
    /// As [`put`](Store::put).
    pub fn sync(&self) -> Result<()> {
        self.engine.flush_write_back()?;
        self.engine.sync()
    }

    /// Compacts now: gives back all that stale records take. Waits for a merge that is under way.
    ///
    /// It merges a segment's worth at a time, each with a commit of its own, so it needs room for
    /// one more segment on the disk, not for another copy of the data.
    ///
    /// # Errors
    ///
    /// As [`put`](Store::put), and [`Error::Corrupt`](crate::Error::Corrupt) when a record that
    /// is to be moved is damaged. What was not merged yet is then as it was.
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// let store = crabkv::Store::open(dir.path())?;
    /// store.put("key", "old")?;
    /// store.put("key", "new")?;
    /// let report = store.compact()?;
    /// assert_eq!(report.records_dropped, 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn compact(&self) -> Result<CompactionReport> {
        self.engine.flush_write_back()?;
        self.engine.compact_all()
    }

    /// Keeps automatic compaction, inline or in the background, from working until
    /// [`resume_compaction`](Store::resume_compaction) has been called as often as this. A merge
    /// that is under way rests where it is. [`compact`](Store::compact) works nevertheless.
    pub fn pause_compaction(&self) {
        self.engine.background.pause();
    }

    /// Lets automatic compaction work again.
    pub fn resume_compaction(&self) {
        self.engine.background.resume();
    }

    /// Gives up the merge that is under way, by [`compact`](Store::compact) or in the background,
    /// at the next point where it can be; what it wrote is removed, what earlier merges gave back
    /// stays. Does not wait for it.
    pub fn cancel_compaction(&self) {
        self.engine.compactor.cancel();
    }

    /// Says where the bytes are, and why those that are not needed are still there.
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// let store = crabkv::Store::open(dir.path())?;
    /// store.put("key", "old")?;
    /// store.put("key", "new")?;
    /// let space = store.explain_compaction();
    /// assert!(space.stale_bytes > 0);
    /// assert_eq!(space.segments[0].reason, crabkv::NotYetFree::Active);
    /// println!("{space}");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn explain_compaction(&self) -> SpaceExplanation {
        self.engine.explain_compaction()
    }

    /// Seals the active segment, then merges just these, sealed ones, whatever they have to give:
    /// for tests, which want merges in every order.
    ///
    /// # Errors
    ///
    /// As [`compact`](Store::compact).
    #[cfg(any(test, feature = "sim"))]
    #[doc(hidden)]
    pub fn compact_segments(&self, segments: &[SegmentId]) -> Result<CompactionReport> {
        self.engine.compact_segments(segments)
    }

    /// The store's figures. Takes time in proportion to the number of segments.
    pub fn stats(&self) -> Stats {
        self.engine.stats()
    }

    /// Closes the store in good order: everything is flushed and durable. Dropping the last
    /// handle does the same, but cannot report a failure. Handles that are left can still read;
    /// a write opens the log again.
    ///
    /// # Errors
    ///
    /// As [`put`](Store::put).
    ///
    /// Of a read-only store there is nothing to be closed: nothing happens.
    pub fn close(&self) -> Result<()> {
        self.engine.close()
    }
}
