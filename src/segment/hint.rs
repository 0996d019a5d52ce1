//! Sums a segment up: the entries of its hint file, and the figures of its footer.

use std::ops::Range;

use super::scanner::{self, Check, ScanEnd};
use crate::format::hint::{HintEntry, PackedEntry};
use crate::format::record::{Kind, Record, RecordFields};
use crate::format::segment::{HEADER_LEN, SegmentFooter, SegmentHeader};
use crate::format::{KeyHash, KeyHasher, SeqNo};

/// Entries of hint files, as many of them are kept in memory.
#[derive(Default)]
pub(crate) struct Entries {
    packed: Vec<PackedEntry>,
    /// When each expires; none as long as none does.
    expiries: Vec<u64>,
}

/// What a segment holds.
pub(crate) struct Summary {
    /// Every record; once sorted, by hash, then by sequence number.
    entries: Entries,
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
            entries: Entries::default(),
            lowest_seq: None,
            highest_seq: None,
            earliest_expiry_ms: u64::MAX,
            latest_expiry_ms: None,
            base_seq,
        }
    }

    /// The summary of a segment with these records, which were written in this order.
    pub(crate) fn of_written(entries: Entries, base_seq: SeqNo) -> Summary {
        let mut summary = Summary::new(base_seq);
        let all = 0..entries.packed.len();
        entries
            .range(all, base_seq)
            .for_each(|entry| summary.count(&entry));
        summary.entries = entries;
        summary.sort();
        summary
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.packed.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The entries, in their order.
    pub(crate) fn entries(&self) -> impl ExactSizeIterator<Item = HintEntry> + Clone + '_ {
        self.entries.range(0..self.len(), self.base_seq)
    }

    /// The entries, once sorted, with hashes from `low` to before `high`.
    pub(crate) fn within(&self, low: u64, high: u64) -> impl Iterator<Item = HintEntry> + '_ {
        let packed = &self.entries.packed;
        let from = |bound| packed.partition_point(|entry| entry.hash().get() < bound);
        self.entries.range(from(low)..from(high), self.base_seq)
    }

    /// Brings the entries into the order of a hint file.
    pub(crate) fn sort(&mut self) {
        self.entries.sort();
    }

    /// Adds a record; [`sort`](Summary::sort) when all are there.
    pub(crate) fn add(&mut self, offset: u64, record: &Record<'_>, hasher: KeyHasher) {
        let entry = HintEntry {
            hash: hasher.hash(record.key()),
            offset,
            len: u32::try_from(record.len()).unwrap_or(0),
            seq: record.seq(self.base_seq),
            tombstone: record.kind() == Kind::Tombstone,
            collides: record.collides(),
            expires_at_ms: record.expires_at_ms().unwrap_or(u64::MAX),
        };
        self.count(&entry);
        self.entries.push(&entry, self.base_seq);
    }

    fn count(&mut self, entry: &HintEntry) {
        let seq = entry.seq;
        self.lowest_seq = Some(self.lowest_seq.map_or(seq, |lowest| lowest.min(seq)));
        self.highest_seq = self.highest_seq.max(Some(seq));
        if !entry.tombstone {
            let expires_at_ms = entry.expires_at_ms;
            self.earliest_expiry_ms = self.earliest_expiry_ms.min(expires_at_ms);
            self.latest_expiry_ms = self.latest_expiry_ms.max(Some(expires_at_ms));
        }
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
            records: self.len() as u64,
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

impl Entries {
    /// Adds a record that was just written, whose key has this hash.
    #[inline]
    pub(crate) fn add_written(
        &mut self,
        (offset, len): (u64, usize),
        fields: &RecordFields<'_>,
        hash: KeyHash,
    ) {
        let entry = HintEntry {
            hash,
            offset,
            len: u32::try_from(len).unwrap_or(0),
            seq: SeqNo(u64::from(fields.seq_delta)),
            tombstone: fields.kind == Kind::Tombstone,
            collides: fields.collides,
            expires_at_ms: fields.expires_at_ms.unwrap_or(u64::MAX),
        };
        // Counted from the base already.
        self.push(&entry, SeqNo(0));
    }

    #[inline]
    fn push(&mut self, entry: &HintEntry, base_seq: SeqNo) {
        if entry.expires_at_ms != u64::MAX || !self.expiries.is_empty() {
            self.expiries.resize(self.packed.len(), u64::MAX);
            self.expiries.push(entry.expires_at_ms);
        }
        self.packed.push(PackedEntry::new(entry, base_seq));
    }

    fn range(
        &self,
        range: Range<usize>,
        base_seq: SeqNo,
    ) -> impl ExactSizeIterator<Item = HintEntry> + Clone + '_ {
        let start = range.start;
        let packed = self.packed[range].iter().enumerate();
        packed.map(move |(i, entry)| {
            let expiry = self.expiries.get(start + i).copied();
            entry.unpack(base_seq, expiry.unwrap_or(u64::MAX))
        })
    }

    fn sort(&mut self) {
        if self.expiries.is_empty() {
            sort_by_order(&mut self.packed, |&entry| entry);
        } else {
            let expiries = std::mem::take(&mut self.expiries);
            let mut pairs: Vec<_> = self.packed.drain(..).zip(expiries).collect();
            sort_by_order(&mut pairs, |&(entry, _)| entry);
            (self.packed, self.expiries) = pairs.into_iter().unzip();
        }
    }
}

/// Up to so many entries are sorted by comparing them.
const FEW_ENTRIES: usize = 64;

/// Sorts entries as a hint file wants them. The hashes are even, so that many entries are dealt out
/// by their first bits into piles of a few, and those are sorted: in a third of the time.
fn sort_by_order<T: Copy>(entries: &mut Vec<T>, packed: impl Fn(&T) -> PackedEntry) {
    if entries.len() > FEW_ENTRIES {
        let bits = (entries.len() / 8).ilog2().min(16);
        let pile_of = |entry: &T| packed(entry).hash().first_bits(bits) as usize;
        let mut ends = vec![0_usize; (1 << bits) + 1];
        for entry in &*entries {
            ends[pile_of(entry) + 1] += 1;
        }
        let mut sum = 0;
        for end in &mut ends {
            sum += *end;
            *end = sum;
        }
        // `ends[pile]` is where the pile begins, and once all are dealt where it ends.
        let mut dealt = entries.clone();
        for entry in &*entries {
            let end = &mut ends[pile_of(entry)];
            dealt[*end] = *entry;
            *end += 1;
        }
        let mut start = 0;
        for &end in &ends {
            dealt[start..end].sort_unstable_by_key(|entry| packed(entry).order());
            start = end;
        }
        *entries = dealt;
    } else {
        entries.sort_unstable_by_key(|entry| packed(entry).order());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Some hashes come many times over, most of them once.
    fn entry(number: u64) -> HintEntry {
        let spread = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 16;
        HintEntry {
            hash: KeyHash::new(if number % 5 == 0 { number % 3 } else { spread }),
            offset: 64 + 32 * number,
            len: 32,
            seq: SeqNo(100 + number),
            tombstone: number % 7 == 0,
            collides: false,
            expires_at_ms: u64::MAX,
        }
    }

    #[test]
    fn entries_come_in_the_order_of_a_hint_file_however_many_there_are() {
        for count in [0, 1, 2, 64, 65, 66, 5000] {
            for expire in [false, true] {
                let expiry = |number| {
                    if expire && number % 2 == 1 {
                        number
                    } else {
                        u64::MAX
                    }
                };
                let numbers: Vec<_> = (0..count).rev().collect();
                let entry = |&number: &u64| HintEntry {
                    expires_at_ms: expiry(number),
                    ..entry(number)
                };
                let mut expected: Vec<_> = numbers.iter().map(entry).collect();
                let mut entries = Entries::default();
                for entry in &expected {
                    entries.push(entry, SeqNo(100));
                }
                let summary = Summary::of_written(entries, SeqNo(100));
                expected.sort_by_key(|entry| (entry.hash, entry.seq));
                assert!(summary.entries().eq(expected.iter().copied()));
                assert_eq!(summary.len() as u64, count);
                let within = summary.within(1, 3).map(|entry| entry.hash.get());
                assert!(
                    within.eq(expected
                        .iter()
                        .map(|entry| entry.hash.get())
                        .filter(|hash| (1..3).contains(hash)))
                );
            }
        }
    }
}
