//! What recovery found and did: data for the caller, not an error and not only a log line.

use std::path::PathBuf;
use std::time::Duration;

use crate::format::SegmentId;

/// What opening a store found and did. What is normal after a crash is in here, not an error.
///
/// ```
/// # let dir = tempfile::tempdir()?;
/// let store = crabkv::Store::open(dir.path())?;
/// let report = store.recovery_report();
/// assert!(report.clean && report.torn_tail.is_none());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RecoveryReport {
    /// Whether the store was made by this open.
    pub created: bool,
    /// Whether the store had been closed in good order. Of a read-only store: whether nobody was
    /// writing to it, or had died while doing so.
    pub clean: bool,
    /// How many segments there are.
    pub segments: usize,
    /// How many records they hold, stale ones and tombstones included.
    pub records: u64,
    /// How many keys there are, expired ones that compaction has not yet removed included.
    pub keys: u64,
    /// How many segments were loaded from their hint files.
    pub hints_used: usize,
    /// The segments that had to be scanned, and why; their hint files were written again,
    /// but by a read-only store.
    pub scanned: Vec<ScannedSegment>,
    /// What a crash left of the last write, if anything; it had not been acknowledged.
    pub torn_tail: Option<TornTail>,
    /// Files of interrupted steps, which were removed.
    pub orphans_removed: Vec<String>,
    /// Files in the directory that are not the store's, which were left alone.
    pub foreign_files: Vec<String>,
    /// How long opening took.
    pub elapsed: Duration,
}

/// A segment that was read in full because its hint file could not be used.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ScannedSegment {
    /// The segment.
    pub segment: SegmentId,
    /// Why its hint file was not used.
    pub reason: String,
}

/// The bytes behind the last sound record of a segment that was being written to.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TornTail {
    /// The segment.
    pub segment: SegmentId,
    /// Where the sound records end, in bytes.
    pub offset: u64,
    /// How many bytes were cut off.
    pub len: u64,
    /// A copy of what was cut off. It can be deleted.
    pub saved_to: PathBuf,
}

/// How far opening has come; see
/// [`CrabKvBuilder::on_recovery_progress`](crate::CrabKvBuilder::on_recovery_progress).
///
/// There are two parts, one after the other: segments are read, then their records put into the index.
/// Where there are hint files the second takes most of the time, else the first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RecoveryProgress {
    /// Segments that have been read.
    pub segments_done: usize,
    /// Segments to read; for a read-only store the sealed ones.
    pub segments: usize,
    /// Bytes of data in the segments that have been read; with hint files fewer bytes are read.
    pub bytes_done: u64,
    /// Bytes of data in all segments; of one that a crash interrupted, those of its file.
    pub bytes: u64,
    /// Records that have been put into the index, about; stale ones and tombstones included.
    pub records_done: u64,
    /// Records that are put into the index; 0 until all segments have been read.
    pub records: u64,
}
