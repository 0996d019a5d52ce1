//! Figures for operators: what takes how much room, on the disk and in memory, and what is going
//! on.

use super::Store;
use super::engine::Engine;
use super::write_back::WriteBack;
use crate::disk::Disk;
use crate::format::{SegmentId, SeqNo};
use crate::segment::ReadMode;
use crate::sync::{AtomicU64, Ordering};

/// A store's figures, from [`Store::stats`](crate::Store::stats).
///
/// `data_bytes` is the sum of `live_bytes`, `stale_bytes` and the headers; tombstones are part of
/// the stale bytes, expired values part of the live ones until compaction has been there.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Keys in the index, expired ones that compaction has not yet removed included.
    pub keys: u64,
    /// Whether any of the keys may have expired. If not, `keys` is the exact number of keys that
    /// have a value.
    pub may_have_expired: bool,
    /// What the index takes in memory, in bytes.
    pub index_bytes: u64,
    /// What the append buffer of the active segment takes in memory, in bytes.
    pub append_buffer_bytes: u64,
    /// Keys in the write-back buffer.
    pub buffered_keys: u64,
    /// What the write-back buffer takes in memory, about, in bytes.
    pub buffered_bytes: u64,
    /// Values in the cache.
    pub cached_values: u64,
    /// Bytes of sealed segments that are mapped: address space, and page cache as far as they have
    /// been read; [`Store::resident_bytes`] says how far.
    pub mapped_bytes: u64,
    /// Bytes in all segments: live, stale, tombstones, headers.
    pub data_bytes: u64,
    /// Bytes of the records that hold the keys' values.
    pub live_bytes: u64,
    /// Bytes of everything else but headers, tombstones included.
    pub stale_bytes: u64,
    /// Bytes of tombstones.
    pub tombstone_bytes: u64,
    /// About how many of the live bytes have expired.
    pub expired_bytes: u64,
    /// Bytes of segments that have been merged but are still read: their files go when the last
    /// reader, iterator or value lets go of them.
    pub pinned_bytes: u64,
    /// The sequence number that the next write gets.
    pub next_seq: SeqNo,
    /// Bytes of records appended since the store was opened.
    pub appended_bytes: u64,
    /// Syncs of the log since the store was opened. With several writers one serves many writes.
    pub syncs: u64,
    /// Merges finished since the store was opened.
    pub merges: u64,
    /// Bytes that they wrote.
    pub merged_bytes: u64,
    /// Whether compaction is at work on its own thread just now.
    pub compacting: bool,
    /// Whether compaction is [paused](crate::Store::pause_compaction).
    pub compaction_paused: bool,
    /// Why the last automatic compaction failed; `None` once one has succeeded. A damaged segment
    /// stays here: compaction passes it over until the store is opened again.
    pub compaction_failure: Option<String>,
    /// Why the last [refresh](crate::Store::refresh) of a read-only store failed, by itself at its
    /// interval or called; `None` once one has succeeded.
    pub refresh_failure: Option<String>,
    /// Why the store refuses writes, if it does.
    pub poisoned: Option<String>,
    /// Each segment's figures, in the order of their ids.
    pub segments: Vec<SegmentStats>,
}

/// One segment's figures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SegmentStats {
    /// Its number.
    pub id: SegmentId,
    /// Whether it is sealed; otherwise it is the active one.
    pub sealed: bool,
    /// Bytes of its header and records.
    pub data_bytes: u64,
    /// Records of all kinds.
    pub records: u64,
    /// Records that hold a key's value.
    pub live_records: u64,
    /// Bytes of those.
    pub live_bytes: u64,
    /// Bytes of everything else but the header, tombstones included.
    pub stale_bytes: u64,
    /// Bytes of its tombstones.
    pub tombstone_bytes: u64,
    /// Bytes of tombstones that the last merge had to keep, for they hide something older in
    /// another segment.
    pub retained_bytes: u64,
    /// About how many of the live bytes have expired.
    pub expired_bytes: u64,
}

impl Stats {
    /// Memory that the index takes for each key, in bytes; 0 for an empty store.
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// let store = crabkv::Store::open(dir.path())?;
    /// assert_eq!(store.stats().index_bytes_per_key(), 0.0);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[expect(clippy::cast_precision_loss, reason = "a figure to look at")]
    pub fn index_bytes_per_key(&self) -> f64 {
        if self.keys == 0 {
            0.0
        } else {
            self.index_bytes as f64 / self.keys as f64
        }
    }

    /// Bytes written for each byte appended, by compaction too; 1 before anything was written.
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// let store = crabkv::Store::open(dir.path())?;
    /// assert_eq!(store.stats().write_amplification(), 1.0);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[expect(clippy::cast_precision_loss, reason = "a figure to look at")]
    pub fn write_amplification(&self) -> f64 {
        if self.appended_bytes == 0 {
            1.0
        } else {
            (self.appended_bytes + self.merged_bytes) as f64 / self.appended_bytes as f64
        }
    }
}

/// What is counted as it happens.
#[derive(Default)]
pub(crate) struct Counters {
    syncs: AtomicU64,
    merges: AtomicU64,
    merged_bytes: AtomicU64,
}

impl Counters {
    pub(crate) fn note_sync(&self) {
        self.syncs.fetch_add(1, Ordering::Relaxed);
    }

    /// Notes a merge that wrote so many bytes.
    pub(crate) fn note_merge(&self, bytes: u64) {
        self.merges.fetch_add(1, Ordering::Relaxed);
        self.merged_bytes.fetch_add(bytes, Ordering::Relaxed);
    }
}

impl<D: Disk> Store<D> {
    /// How many of the [`mapped_bytes`](Stats::mapped_bytes) are in memory now, in the page cache
    /// that all processes share: reading them does not wait for the disk.
    ///
    /// `None` where the system does not say: it does on Linux and macOS, for segments that are
    /// [mapped](crate::ReadMode::Mmap). Linux tells it only to those who may write to the files, and
    /// tells everybody else that all is in memory.
    ///
    /// It asks about each page, and so takes time in proportion to the mapped bytes and is no part of
    /// [`stats`](Store::stats). No lock is held meanwhile.
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// let store = crabkv::Store::open(dir.path())?;
    /// if let Some(resident) = store.resident_bytes() {
    ///     assert!(resident <= store.stats().mapped_bytes);
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn resident_bytes(&self) -> Option<u64> {
        self.engine.resident_bytes()
    }
}

impl<D: Disk> Engine<D> {
    fn resident_bytes(&self) -> Option<u64> {
        if self.settings.read_mode == ReadMode::Pread {
            return None;
        }
        let sealed: Vec<_> = {
            let writer = self.lock_writer();
            let pin = self.collector.pin();
            let slots = writer.log.usages().filter(|(_, usage)| usage.sealed);
            slots
                .filter_map(|(slot, _)| self.table.get_arc(&pin, slot))
                .collect()
        };
        let maps = sealed.iter().filter_map(|segment| segment.region());
        maps.map(|map| map.resident_bytes()).sum()
    }

    pub(crate) fn stats(&self) -> Stats {
        let (buffered_keys, buffered_bytes) =
            self.write_back.as_ref().map_or((0, 0), WriteBack::usage);
        let now_ms = self.clock.now_ms();
        let compaction_failure = self.compactor.failure().map(|error| error.to_string());
        let writer = self.lock_writer();
        let pin = self.collector.pin();
        let mut mapped_bytes = 0;
        let mut segments = Vec::new();
        let mut may_have_expired = false;
        for (slot, usage) in writer.log.usages() {
            may_have_expired |= usage.expiries.earliest_ms() <= now_ms;
            if usage.sealed && self.table.region(&pin, slot).is_some() {
                mapped_bytes += usage.data_len;
            }
            segments.push(SegmentStats {
                id: usage.id,
                sealed: usage.sealed,
                data_bytes: usage.data_len,
                records: usage.records,
                live_records: usage.live_records,
                live_bytes: usage.live_bytes,
                stale_bytes: usage.stale_bytes(),
                tombstone_bytes: usage.tombstone_bytes,
                retained_bytes: usage.retained_bytes,
                expired_bytes: usage.expired_bytes(now_ms),
            });
        }
        segments.sort_unstable_by_key(|segment| segment.id);
        let sum = |figure: fn(&SegmentStats) -> u64| segments.iter().map(figure).sum();
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Stats {
            keys: self.index.len() as u64,
            may_have_expired,
            index_bytes: self.index.memory_bytes() as u64,
            append_buffer_bytes: writer.log.append_buffer_bytes(),
            buffered_keys: buffered_keys as u64,
            buffered_bytes: buffered_bytes as u64,
            cached_values: self.cache.as_ref().map_or(0, |cache| cache.len() as u64),
            mapped_bytes,
            data_bytes: sum(|s| s.data_bytes),
            live_bytes: sum(|s| s.live_bytes),
            stale_bytes: sum(|s| s.stale_bytes),
            tombstone_bytes: sum(|s| s.tombstone_bytes),
            expired_bytes: sum(|s| s.expired_bytes),
            pinned_bytes: self.leaving.bytes(),
            next_seq: writer.log.next_seq(),
            appended_bytes: writer.log.appended_bytes(),
            syncs: count(&self.counters.syncs),
            merges: count(&self.counters.merges),
            merged_bytes: count(&self.counters.merged_bytes),
            compacting: self.background.is_compacting(),
            compaction_paused: self.background.is_paused(),
            compaction_failure,
            refresh_failure: self.refresh_failure(),
            poisoned: self.poison.get().map(std::string::ToString::to_string),
            segments,
        }
    }
}
