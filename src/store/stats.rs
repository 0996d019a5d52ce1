//! Figures for operators: what takes how much room, on the disk and in memory.

use super::engine::Engine;
use super::write_back::WriteBack;
use crate::disk::Disk;
use crate::format::SegmentId;

/// A store's figures, from [`Store::stats`](crate::Store::stats).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Keys in the index, expired ones that compaction has not yet removed included.
    pub keys: u64,
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
    /// Bytes in all segments: live, stale, tombstones, headers.
    pub data_bytes: u64,
    /// Bytes of the records that hold the keys' values.
    pub live_bytes: u64,
    /// Bytes that compaction could give back, tombstones included.
    pub stale_bytes: u64,
    /// Bytes of tombstones.
    pub tombstone_bytes: u64,
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
    /// Records that hold a key's value.
    pub live_records: u64,
    /// Bytes of those.
    pub live_bytes: u64,
    /// Bytes that compaction could give back, tombstones included.
    pub stale_bytes: u64,
    /// Bytes of its tombstones.
    pub tombstone_bytes: u64,
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
}

impl<D: Disk> Engine<D> {
    pub(crate) fn stats(&self) -> Stats {
        let (buffered_keys, buffered_bytes) =
            self.write_back.as_ref().map_or((0, 0), WriteBack::usage);
        let writer = self.lock_writer();
        let mut segments: Vec<_> = writer
            .log
            .usages()
            .map(|(_, usage)| SegmentStats {
                id: usage.id,
                sealed: usage.sealed,
                data_bytes: usage.data_len,
                live_records: usage.live_records,
                live_bytes: usage.live_bytes,
                stale_bytes: usage.stale_bytes(),
                tombstone_bytes: usage.tombstone_bytes,
            })
            .collect();
        segments.sort_unstable_by_key(|segment| segment.id);
        let sum = |figure: fn(&SegmentStats) -> u64| segments.iter().map(figure).sum();
        Stats {
            keys: self.index.len() as u64,
            index_bytes: self.index.memory_bytes() as u64,
            append_buffer_bytes: writer.log.append_buffer_bytes(),
            buffered_keys: buffered_keys as u64,
            buffered_bytes: buffered_bytes as u64,
            cached_values: self.cache.as_ref().map_or(0, |cache| cache.len() as u64),
            data_bytes: sum(|s| s.data_bytes),
            live_bytes: sum(|s| s.live_bytes),
            stale_bytes: sum(|s| s.stale_bytes),
            tombstone_bytes: sum(|s| s.tombstone_bytes),
            segments,
        }
    }
}
