//! Sums a segment up: the entries of its hint file, and the figures of its footer.

use super::scanner::{self, Check, ScanEnd};
use crate::format::hint::HintEntry;
use crate::format::record::{Kind, Record};
use crate::format::segment::{HEADER_LEN, SegmentFooter, SegmentHeader};
use crate::format::{KeyHasher, SeqNo};

/// What a segment holds.
pub(crate) struct Summary {
    /// Every record, sorted by hash, then by sequence number.
    pub(crate) entries: Vec<HintEntry>,
    lowest_seq: Option<SeqNo>,
    highest_seq: Option<SeqNo>,
    earliest_expiry_ms: u64,
    latest_expiry_ms: Option<u64>,
    base_seq: SeqNo,
}

impl Summary {
    /// Scans a segment's records; `bytes` begins with its header.
    pub(crate) fn of(
        bytes: &[u8],
        header: &SegmentHeader,
        hasher: KeyHasher,
        check: Check,
    ) -> (Summary, ScanEnd) {
        let mut summary = Summary::new(header.base_seq);
        let end = scanner::scan(bytes, header, HEADER_LEN as u64, check, |offset, record| {
            summary.add(offset, &record, hasher);
        });
        summary.sort();
        (summary, end)
    }

    /// The summary of a segment without records.
    pub(crate) fn new(base_seq: SeqNo) -> Summary {
        Summary {
            entries: Vec::new(),
            lowest_seq: None,
            highest_seq: None,
            earliest_expiry_ms: u64::MAX,
            latest_expiry_ms: None,
            base_seq,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Brings the entries into the order of a hint file.
    pub(crate) fn sort(&mut self) {
        self.entries
            .sort_unstable_by_key(|entry| (entry.hash, entry.seq));
    }

    /// Adds a record; [`sort`](Summary::sort) when all are there.
    pub(crate) fn add(&mut self, offset: u64, record: &Record<'_>, hasher: KeyHasher) {
        let seq = record.seq(self.base_seq);
        let expires_at_ms = record.expires_at_ms().unwrap_or(u64::MAX);
        self.lowest_seq = Some(self.lowest_seq.map_or(seq, |lowest| lowest.min(seq)));
        self.highest_seq = self.highest_seq.max(Some(seq));
        if record.kind() == Kind::Put {
            self.earliest_expiry_ms = self.earliest_expiry_ms.min(expires_at_ms);
            self.latest_expiry_ms = self.latest_expiry_ms.max(Some(expires_at_ms));
        }
        self.entries.push(HintEntry {
            hash: hasher.hash(record.key()),
            offset,
            len: u32::try_from(record.len()).unwrap_or(0),
            seq,
            tombstone: record.kind() == Kind::Tombstone,
            collides: record.collides(),
            expires_at_ms,
        });
    }

    /// The highest sequence number, if there is any record.
    pub(crate) fn highest_seq(&self) -> Option<SeqNo> {
        self.highest_seq
    }

    /// The sequence number after the highest one.
    pub(crate) fn next_seq(&self) -> SeqNo {
        self.highest_seq
            .map_or(self.base_seq, |highest| SeqNo(highest.0.saturating_add(1)))
    }

    /// The footer of the segment whose header and records take `data_len` bytes.
    pub(crate) fn footer(&self, data_len: u64, data_checksum: u32) -> SegmentFooter {
        SegmentFooter {
            data_len,
            records: self.entries.len() as u64,
            lowest_seq: self.lowest_seq.unwrap_or(self.base_seq),
            highest_seq: self.highest_seq.unwrap_or(self.base_seq),
            earliest_expiry_ms: self.earliest_expiry_ms,
            latest_expiry_ms: self.latest_expiry_ms.unwrap_or(u64::MAX),
            data_checksum,
        }
    }

    /// As [`footer`](Summary::footer), of a segment whose header and records are `data`.
    pub(crate) fn footer_of(&self, data: &[u8]) -> SegmentFooter {
        self.footer(data.len() as u64, crc32fast::hash(data))
    }
}
