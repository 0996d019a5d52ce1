//! Compaction: merging segments, so that what is stale gives its room back.
//!
//! [`pick`] decides from figures alone; [`plan`] finds out from the hint files what goes on;
//! [`merge`] writes the outputs. Committing them to the manifest and pointing the index at them is
//! the store's part, and so is when all this runs.

pub(crate) mod merge;
pub(crate) mod pick;
pub(crate) mod plan;

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
    /// Records that were kept, tombstones that still hide something included.
    pub records_kept: u64,
    /// Records that were dropped: overwritten, deleted, expired, and tombstones that hid nothing
    /// any more.
    pub records_dropped: u64,
    /// Whether it was [cancelled](crate::Store::cancel_compaction). What it had finished stays.
    pub cancelled: bool,
    /// How long it took.
    pub elapsed: Duration,
}

impl CompactionReport {
    /// Adds what another merge did.
    pub(crate) fn add(&mut self, other: &CompactionReport) {
        self.segments_merged += other.segments_merged;
        self.segments_written += other.segments_written;
        self.bytes_before += other.bytes_before;
        self.bytes_after += other.bytes_after;
        self.records_kept += other.records_kept;
        self.records_dropped += other.records_dropped;
    }
}

/// How far a merge has come; see
/// [`CrabKvBuilder::on_compaction_progress`](crate::CrabKvBuilder::on_compaction_progress).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CompactionProgress {
    /// How many segments are being merged.
    pub segments: usize,
    /// Bytes in those segments.
    pub bytes_before: u64,
    /// About how many bytes are copied in all, told before it began.
    pub bytes_to_copy: u64,
    /// Bytes of work done so far; looking at an entry counts, so it comes to somewhat more than
    /// `bytes_to_copy`.
    pub bytes_done: u64,
    /// Whether it is finished.
    pub finished: bool,
}

/// Called as merges go on.
pub(crate) type CompactionProgressFn = dyn Fn(&CompactionProgress) + Send + Sync;
