//! How many bytes of each segment are live: what stats report and compaction decides by.

use crate::format::hint::HintEntry;
use crate::format::segment::HEADER_LEN;
use crate::format::{SegmentId, SeqNo};

/// What one segment holds, as far as the index knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Usage {
    pub(crate) id: SegmentId,
    /// Header and records, live or not.
    pub(crate) data_len: u64,
    /// All records, live or not, tombstones included.
    pub(crate) records: u64,
    /// When its values expire.
    pub(crate) expiries: Expiries,
    /// Records that the index points at.
    pub(crate) live_records: u64,
    pub(crate) live_bytes: u64,
    /// Tombstones, which hide older records but hold nothing themselves.
    pub(crate) tombstone_bytes: u64,
    /// Tombstones that a merge could not drop: as long as what they hide is there, another merge
    /// would gain nothing.
    pub(crate) retained_bytes: u64,
    pub(crate) sealed: bool,
    /// All records of a sealed one have lower sequence numbers.
    pub(crate) next_seq: SeqNo,
}

impl Usage {
    pub(crate) fn new(id: SegmentId) -> Usage {
        Usage {
            id,
            data_len: 0,
            records: 0,
            expiries: Expiries::default(),
            live_records: 0,
            live_bytes: 0,
            tombstone_bytes: 0,
            retained_bytes: 0,
            sealed: false,
            next_seq: SeqNo(u64::MAX),
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

    /// Bytes of everything but live records, tombstones included.
    pub(crate) fn stale_bytes(&self) -> u64 {
        let records = self.data_len.saturating_sub(HEADER_LEN as u64);
        records.saturating_sub(self.live_bytes)
    }

    /// Whether any record is not live. Batch frames alone make stale bytes without it.
    pub(crate) fn has_stale_records(&self) -> bool {
        self.records > self.live_records
    }

    /// About how many bytes of live records have expired.
    pub(crate) fn expired_bytes(&self, now_ms: u64) -> u64 {
        match self.expiries.expired_eighths(now_ms) {
            8 => self.live_bytes,
            eighths => self.live_bytes / 8 * eighths,
        }
    }

    /// About how many bytes a merge would give back.
    pub(crate) fn reclaimable_bytes(&self, now_ms: u64) -> u64 {
        let stale = if self.has_stale_records() {
            self.stale_bytes().saturating_sub(self.retained_bytes)
        } else {
            0
        };
        stale + self.expired_bytes(now_ms)
    }

    /// About how many bytes a merge would copy.
    pub(crate) fn kept_bytes(&self, now_ms: u64) -> u64 {
        let records = self.data_len.saturating_sub(HEADER_LEN as u64);
        records.saturating_sub(self.reclaimable_bytes(now_ms))
    }
}

/// When a segment's values expire: the times at which an eighth of them, two eighths, and so on,
/// will have. [`u64::MAX`] is never.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Expiries {
    eighths: [u64; 8],
    earliest_ms: u64,
}

/// How many of a segment's records the eighths are told from.
const SAMPLED_RECORDS: usize = 1024;

impl Default for Expiries {
    /// Those of a segment without values.
    fn default() -> Expiries {
        Expiries {
            eighths: [0; 8],
            earliest_ms: u64::MAX,
        }
    }
}

impl Expiries {
    /// Those of a sealed segment, which says what its earliest expiry is.
    pub(crate) fn of<I: Iterator<Item = HintEntry>>(
        earliest_ms: u64,
        entries: impl Fn() -> I,
    ) -> Expiries {
        if earliest_ms == u64::MAX {
            return Expiries {
                eighths: [u64::MAX; 8],
                earliest_ms,
            };
        }
        let puts = || entries().filter(|entry| !entry.tombstone);
        let step = puts().count().div_ceil(SAMPLED_RECORDS).max(1);
        let expiries = puts().map(|entry| entry.expires_at_ms);
        let mut sample: Vec<u64> = expiries.step_by(step).collect();
        sample.sort_unstable();
        let eighth = |number: usize| {
            let at = ((number + 1) * sample.len()).div_ceil(8);
            sample.get(at.saturating_sub(1)).copied().unwrap_or(0)
        };
        Expiries {
            eighths: std::array::from_fn(eighth),
            earliest_ms,
        }
    }

    /// Notes another put. Where the eighths are is known once the segment is sealed; until then
    /// all values count as expired when the last one is.
    pub(crate) fn add(&mut self, expires_at_ms: Option<u64>) {
        let expires_at_ms = expires_at_ms.unwrap_or(u64::MAX);
        self.earliest_ms = self.earliest_ms.min(expires_at_ms);
        let latest = self.eighths[7].max(expires_at_ms);
        self.eighths = [latest; 8];
    }

    pub(crate) fn earliest_ms(&self) -> u64 {
        self.earliest_ms
    }

    /// How many eighths of the values have expired.
    fn expired_eighths(&self, now_ms: u64) -> u64 {
        let expired = self.eighths.iter().filter(|&&at| at <= now_ms);
        if self.earliest_ms == u64::MAX {
            0
        } else {
            expired.count() as u64
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::{KeyHash, SeqNo};

    fn entry_expiring_at(expires_at_ms: u64) -> HintEntry {
        HintEntry {
            hash: KeyHash::new(1),
            offset: 64,
            len: 32,
            seq: SeqNo(1),
            tombstone: false,
            collides: false,
            expires_at_ms,
        }
    }

    #[test]
    fn expired_bytes_are_told_by_eighths() {
        let mut usage = Usage {
            live_bytes: 8000,
            expiries: Expiries::of(100, || (0..80).map(|i| entry_expiring_at(100 + i))),
            ..Usage::new(SegmentId(1))
        };
        assert_eq!(usage.expired_bytes(99), 0);
        assert_eq!(usage.expired_bytes(109), 1000);
        assert_eq!(usage.expired_bytes(178), 7000);
        assert_eq!(usage.expired_bytes(179), 8000);
        usage.expiries.add(None);
        assert_eq!(usage.expired_bytes(u64::MAX - 1), 0);
    }

    #[test]
    fn a_segment_without_values_has_nothing_expired() {
        let usage = Usage::new(SegmentId(1));
        assert_eq!(usage.reclaimable_bytes(u64::MAX), 0);
    }

    #[test]
    fn what_a_merge_had_to_retain_is_not_reclaimable() {
        let usage = Usage {
            data_len: 1064,
            records: 10,
            live_records: 5,
            live_bytes: 500,
            retained_bytes: 300,
            ..Usage::new(SegmentId(1))
        };
        assert_eq!(usage.reclaimable_bytes(0), 200);
        assert_eq!(usage.kept_bytes(0), 800);
    }
}
