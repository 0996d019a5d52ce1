//! How many bytes of each segment are live: what stats report and compaction decides by.

use crate::format::SegmentId;
use crate::format::segment::HEADER_LEN;

/// What one segment holds, as far as the index knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Usage {
    pub(crate) id: SegmentId,
    /// Header and records, live or not.
    pub(crate) data_len: u64,
    /// All records, live or not, tombstones included.
    pub(crate) records: u64,
    /// The earliest expiry of any of them, `u64::MAX` if none expires.
    pub(crate) earliest_expiry_ms: u64,
    /// Records that the index points at.
    pub(crate) live_records: u64,
    pub(crate) live_bytes: u64,
    /// Tombstones, which hide older records but hold nothing themselves.
    pub(crate) tombstone_bytes: u64,
    pub(crate) sealed: bool,
}

impl Usage {
    pub(crate) fn new(id: SegmentId) -> Usage {
        Usage {
            id,
            data_len: 0,
            records: 0,
            earliest_expiry_ms: u64::MAX,
            live_records: 0,
            live_bytes: 0,
            tombstone_bytes: 0,
            sealed: false,
        }
    }

    pub(crate) fn add_live(&mut self, len: usize) {
        self.live_records += 1;
        self.live_bytes += len as u64;
    }

    pub(crate) fn remove_live(&mut self, len: usize) {
        debug_assert!(self.live_records > 0 && self.live_bytes >= len as u64);
        self.live_records = self.live_records.saturating_sub(1);
        self.live_bytes = self.live_bytes.saturating_sub(len as u64);
    }

    /// What compaction could give back, tombstones included.
    pub(crate) fn stale_bytes(&self) -> u64 {
        let records = self.data_len.saturating_sub(HEADER_LEN as u64);
        records.saturating_sub(self.live_bytes)
    }

    /// Whether any record is not live, so that compaction has something to give back. Batch
    /// frames alone make stale bytes without it.
    pub(crate) fn has_stale_records(&self) -> bool {
        self.records > self.live_records
    }
}
