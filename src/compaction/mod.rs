//! Compaction: merging segments, so that what is stale gives its room back.
//!
//! [`pick`] decides from figures alone; [`merge`] writes the outputs. Committing them to the
//! manifest and pointing the index at them is the store's part.

pub(crate) mod merge;
pub(crate) mod pick;

use std::time::Duration;

/// What a compaction did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CompactionReport {
    /// How many segments were merged.
    pub segments_merged: usize,
    /// How many segments came of it.
    pub segments_written: usize,
    /// Bytes in the segments that were merged.
    pub bytes_before: u64,
    /// Bytes in the segments that came of it.
    pub bytes_after: u64,
    /// Records that were kept.
    pub records_kept: u64,
    /// Records that were dropped: overwritten, deleted, expired, and tombstones that hid nothing
    /// any more.
    pub records_dropped: u64,
    /// How long it took.
    pub elapsed: Duration,
}
