//! The hint file: what the index needs to know of a sealed segment, sorted by key hash.
//!
//! Loading it fills the index in order; a single key can also be looked up in place. A segment of
//! 64 MiB with 100-byte values has half a million records, so every byte of an entry counts: the
//! first one or two bytes of the hash are said once, by a table of bucket ends, as `fst` and
//! SSTable indexes do for common prefixes.
//!
//! ```text
//!  header | bucket ends: u32 each | entries: 14 to 16 bytes each | expiries: u64 each | checksum
//! ```
//!
//! An entry is the rest of the hash, then the record's position and flags (`u32`), its sequence
//! number as a distance from the segment's base (`u32`) and its length in units of 8 (`u16`).
//! All records of the segment are listed, stale ones too: so the lengths add up to the data.

mod entry;

use std::ops::Range;

pub(crate) use self::entry::{HintEntry, PackedEntry};
use super::hash::HASH_BITS;
use super::{FORMAT_VERSION, Fields, Invalid, KeyHash, SegmentId, SeqNo, StoreId};
use crate::bugs::{Bug, is_planted};

const MAGIC: [u8; 8] = *b"CRABHNT\n";
/// Magic 8, version 4, flags 4, store 16, segment 8, data length 8, base sequence number 8, data
/// checksum 4, entries 4, prefix bytes 1, reserved 3.
const HEADER_LEN: usize = 8 + 4 + 4 + 16 + 8 + 8 + 8 + 4 + 4 + 1 + 3;
const CHECKSUM_LEN: usize = 4;
const HASH_BYTES: usize = HASH_BITS as usize / 8;
const EXPIRY_LEN: usize = 8;

/// There is a column of expiries.
const HAS_EXPIRIES: u32 = 1;

/// From this many entries on, one byte of the hash is said by the bucket table.
const ONE_PREFIX_BYTE_FROM: usize = 1 << 12;
/// From this many on, two: the table takes 256 KiB, an entry one byte less.
const TWO_PREFIX_BYTES_FROM: usize = 1 << 18;

/// Which segment a hint file belongs to, in which state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct HintOwner {
    pub(crate) store: StoreId,
    pub(crate) segment: SegmentId,
    pub(crate) base_seq: SeqNo,
    pub(crate) data_len: u64,
    pub(crate) data_checksum: u32,
}

impl HintOwner {
    /// The owner that a hint file names, nothing checked: for those who have no segment to ask.
    pub(crate) fn read(bytes: &[u8]) -> Result<HintOwner, Invalid> {
        let mut fields = Fields(bytes);
        fields.bytes::<16>()?;
        Ok(HintOwner {
            store: StoreId(fields.bytes()?),
            segment: SegmentId(fields.u64()?),
            data_len: fields.u64()?,
            base_seq: SeqNo(fields.u64()?),
            data_checksum: fields.u32()?,
        })
    }
}

/// Encodes a hint file. `entries` are sorted by hash, then by sequence number.
pub(crate) fn encode(
    owner: &HintOwner,
    entries: impl ExactSizeIterator<Item = HintEntry> + Clone,
) -> Vec<u8> {
    debug_assert!(
        entries
            .clone()
            .is_sorted_by_key(|entry| (entry.hash, entry.seq))
    );
    let has_expiries = entries.clone().any(|entry| entry.expires_at_ms != u64::MAX);
    let prefix_bytes = match entries.len() {
        TWO_PREFIX_BYTES_FROM.. => 2,
        ONE_PREFIX_BYTE_FROM.. => 1,
        _ => 0,
    };
    let layout = Layout::new(entries.len(), prefix_bytes, has_expiries);
    let mut out = Vec::with_capacity(layout.file_len);
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
    out.extend_from_slice(&if has_expiries { HAS_EXPIRIES } else { 0 }.to_le_bytes());
    out.extend_from_slice(&owner.store.0);
    out.extend_from_slice(&owner.segment.0.to_le_bytes());
    out.extend_from_slice(&owner.data_len.to_le_bytes());
    out.extend_from_slice(&owner.base_seq.0.to_le_bytes());
    out.extend_from_slice(&owner.data_checksum.to_le_bytes());
    out.extend_from_slice(&(entries.len() as u32).to_le_bytes());
    out.extend_from_slice(&[prefix_bytes as u8, 0, 0, 0]);
    let mut end: u32 = 0;
    let mut to_count = entries.clone().peekable();
    for bucket in 0..layout.buckets() as u64 {
        while to_count
            .next_if(|entry| layout.bucket_of(entry.hash) == bucket)
            .is_some()
        {
            end += 1;
        }
        out.extend_from_slice(&end.to_le_bytes());
    }
    for entry in entries.clone() {
        out.extend_from_slice(&entry.hash.get().to_le_bytes()[..layout.suffix_bytes()]);
        out.extend_from_slice(&PackedEntry::new(&entry, owner.base_seq).tail());
    }
    if has_expiries {
        for entry in entries {
            out.extend_from_slice(&entry.expires_at_ms.to_le_bytes());
        }
    }
    let checksum = crc32fast::hash(&out);
    out.extend_from_slice(&checksum.to_le_bytes());
    out
}

/// The longest that a sound hint file with this many entries can be.
pub(crate) fn max_file_len(entries: usize) -> usize {
    // Each prefix length saves a byte of an entry and adds its table.
    let layouts = [0, 1, 2].map(|prefix_bytes| Layout::new(entries, prefix_bytes, true).file_len);
    layouts.into_iter().max().unwrap_or(0)
}

/// Where things are in a hint file.
#[derive(Clone, Copy, Debug)]
struct Layout {
    entries: usize,
    prefix_bytes: usize,
    has_expiries: bool,
    file_len: usize,
}

impl Layout {
    fn new(entries: usize, prefix_bytes: usize, has_expiries: bool) -> Layout {
        let mut layout = Layout {
            entries,
            prefix_bytes,
            has_expiries,
            file_len: 0,
        };
        layout.file_len = layout.expiries_at()
            + if has_expiries {
                entries * EXPIRY_LEN
            } else {
                0
            }
            + CHECKSUM_LEN;
        layout
    }

    fn buckets(&self) -> usize {
        if self.prefix_bytes == 0 {
            0
        } else {
            1 << (8 * self.prefix_bytes)
        }
    }

    fn suffix_bytes(&self) -> usize {
        HASH_BYTES - self.prefix_bytes
    }

    fn bucket_of(&self, hash: KeyHash) -> u64 {
        hash.get() >> (8 * self.suffix_bytes())
    }

    fn entry_len(&self) -> usize {
        self.suffix_bytes() + PackedEntry::TAIL_LEN
    }

    fn entries_at(&self) -> usize {
        HEADER_LEN + 4 * self.buckets()
    }

    fn expiries_at(&self) -> usize {
        self.entries_at() + self.entries * self.entry_len()
    }
}

/// A hint file that has been checked, read in place.
pub(crate) struct Hint<B> {
    bytes: B,
    layout: Layout,
    base_seq: SeqNo,
    data_len: u64,
    next_seq: SeqNo,
    earliest_expiry_ms: u64,
}

impl<B: AsRef<[u8]>> Hint<B> {
    /// Checks everything: the checksum, the owner, every bucket and the order of the entries.
    ///
    /// # Errors
    ///
    /// On any mismatch. A hint file is then to be ignored, never to be trusted in part.
    pub(crate) fn decode(source: B, owner: &HintOwner) -> Result<Hint<B>, Invalid> {
        let bytes = source.as_ref();
        let mut fields = Fields(bytes);
        fields.magic(MAGIC)?;
        fields.version()?;
        let covered = bytes
            .len()
            .checked_sub(CHECKSUM_LEN)
            .ok_or(Invalid::Short)?;
        let is_sound = crc32fast::hash(&bytes[..covered]).to_le_bytes() == bytes[covered..];
        if !is_sound && !is_planted(Bug::TrustHintWithoutChecksum) {
            return Err(Invalid::Checksum);
        }
        let flags = fields.u32()?;
        if flags & !HAS_EXPIRIES != 0 {
            return Err(Invalid::Field("unknown flags"));
        }
        let store = StoreId(fields.bytes()?);
        let segment = SegmentId(fields.u64()?);
        let data_len = fields.u64()?;
        let base_seq = SeqNo(fields.u64()?);
        let data_checksum = fields.u32()?;
        let its_owner = HintOwner {
            store,
            segment,
            base_seq,
            data_len,
            data_checksum,
        };
        let is_stale = (store, segment) == (owner.store, owner.segment);
        let is_believed =
            is_planted(Bug::AcceptForeignHint) || (is_stale && is_planted(Bug::AcceptStaleHint));
        if its_owner != *owner && !is_believed {
            return Err(Invalid::Field("it belongs to another segment"));
        }
        let entries = fields.u32()? as usize;
        let prefix_bytes = usize::from(fields.u8()?);
        fields.reserved::<3>()?;
        if prefix_bytes > 2 {
            return Err(Invalid::Field("too many prefix bytes"));
        }
        let layout = Layout::new(entries, prefix_bytes, flags & HAS_EXPIRIES != 0);
        if layout.file_len != bytes.len() {
            return Err(Invalid::Field(
                "the length does not fit the number of entries",
            ));
        }
        let next_seq = base_seq;
        let earliest_expiry_ms = u64::MAX;
        let mut hint = Hint {
            bytes: source,
            layout,
            base_seq,
            data_len,
            next_seq,
            earliest_expiry_ms,
        };
        hint.check_order()?;
        Ok(hint)
    }

    /// Also notes what is the highest sequence number and the earliest expiry.
    fn check_order(&mut self) -> Result<(), Invalid> {
        let mut last = 0;
        for bucket in 0..self.layout.buckets() {
            let end = self.bucket_end(bucket);
            if end < last || end > self.len() {
                return Err(Invalid::Field("the buckets are out of order"));
            }
            last = end;
        }
        if self.layout.buckets() > 0 && last != self.len() {
            return Err(Invalid::Field("the buckets do not hold all entries"));
        }
        let mut previous = (KeyHash::new(0), SeqNo(0));
        let (mut next_seq, mut earliest_expiry_ms) = (self.base_seq, u64::MAX);
        for (i, packed) in self.packed_entries(0..self.len()) {
            if packed.has_unknown_flag() {
                return Err(Invalid::Field("an unknown flag"));
            }
            let entry = packed.unpack(self.base_seq, self.expires_at_ms(i));
            if (entry.hash, entry.seq) < previous {
                return Err(Invalid::Field("the entries are out of order"));
            }
            if entry.offset + u64::from(entry.len) > self.data_len {
                return Err(Invalid::Field("an entry lies outside the segment"));
            }
            previous = (entry.hash, entry.seq);
            next_seq = next_seq.max(SeqNo(entry.seq.0.saturating_add(1)));
            earliest_expiry_ms = earliest_expiry_ms.min(entry.expires_at_ms);
        }
        self.next_seq = next_seq;
        self.earliest_expiry_ms = earliest_expiry_ms;
        Ok(())
    }

    /// The whole file.
    pub(crate) fn bytes(&self) -> &[u8] {
        self.bytes.as_ref()
    }

    /// The sequence number after the highest one of the segment.
    pub(crate) fn next_seq(&self) -> SeqNo {
        self.next_seq
    }

    /// The earliest expiry of a record; `u64::MAX` if none expires.
    pub(crate) fn earliest_expiry_ms(&self) -> u64 {
        self.earliest_expiry_ms
    }

    /// How many bytes of the hash the bucket table says.
    pub(crate) fn prefix_bytes(&self) -> u8 {
        self.layout.prefix_bytes as u8
    }

    /// The flags that say what of the format's optional parts is there.
    pub(crate) fn flags(&self) -> u32 {
        if self.layout.has_expiries {
            HAS_EXPIRIES
        } else {
            0
        }
    }

    /// How many entries there are.
    pub(crate) fn len(&self) -> usize {
        self.layout.entries
    }

    fn bucket_end(&self, bucket: usize) -> usize {
        let at = HEADER_LEN + 4 * bucket;
        Fields(&self.bytes.as_ref()[at..])
            .u32()
            .map_or(0, |end| end as usize)
    }

    fn bucket_range(&self, bucket: u64) -> Range<usize> {
        if self.layout.buckets() == 0 {
            return 0..self.len();
        }
        let bucket = bucket as usize;
        let start = if bucket == 0 {
            0
        } else {
            self.bucket_end(bucket - 1)
        };
        start..self.bucket_end(bucket)
    }

    fn suffix(&self, entry: usize) -> u64 {
        let at = self.layout.entries_at() + entry * self.layout.entry_len();
        // What follows the suffix makes an entry longer than eight bytes.
        let wide = self.bytes.as_ref()[at..].first_chunk();
        let wide = wide.map_or(0, |bytes| u64::from_le_bytes(*bytes));
        wide & ((1 << (8 * self.layout.suffix_bytes())) - 1)
    }

    /// The first entry whose hash is at least `hash`; the number of entries if there is none.
    pub(crate) fn lower_bound(&self, hash: u64) -> usize {
        if hash >> HASH_BITS != 0 {
            return self.len();
        }
        let hash = KeyHash::new(hash);
        let suffix_bits = 8 * self.layout.suffix_bytes();
        let suffix = hash.get() & ((1 << suffix_bits) - 1);
        let range = self.bucket_range(self.layout.bucket_of(hash));
        let (mut low, mut high) = (range.start, range.end);
        while low < high {
            let middle = low.midpoint(high);
            if self.suffix(middle) < suffix {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }

    /// The entries of one hash, oldest first.
    pub(crate) fn find(&self, hash: KeyHash) -> impl Iterator<Item = HintEntry> + '_ {
        let range = self.lower_bound(hash.get())..self.lower_bound(hash.get() + 1);
        self.entries(range)
    }

    /// The entries of a range of positions, in order.
    pub(crate) fn entries(&self, range: Range<usize>) -> impl Iterator<Item = HintEntry> + '_ {
        self.packed_entries(range)
            .map(|(i, entry)| entry.unpack(self.base_seq, self.expires_at_ms(i)))
    }

    fn packed_entries(
        &self,
        range: Range<usize>,
    ) -> impl Iterator<Item = (usize, PackedEntry)> + '_ {
        let hint = self;
        // The bucket of the first entry; later ones only move forward.
        let mut bucket = 0;
        let mut high = hint.layout.buckets();
        while bucket < high {
            let middle = bucket.midpoint(high);
            if hint.bucket_end(middle) <= range.start {
                bucket = middle + 1;
            } else {
                high = middle;
            }
        }
        let end_of = |bucket| {
            if bucket < hint.layout.buckets() {
                hint.bucket_end(bucket)
            } else {
                hint.len()
            }
        };
        let mut end = end_of(bucket);
        range.map(move |i| {
            while end <= i && bucket < hint.layout.buckets() {
                bucket += 1;
                end = end_of(bucket);
            }
            (i, hint.packed(i, bucket as u64))
        })
    }

    fn packed(&self, i: usize, bucket: u64) -> PackedEntry {
        let at = self.layout.entries_at() + i * self.layout.entry_len();
        let hash = bucket << (8 * self.layout.suffix_bytes()) | self.suffix(i);
        PackedEntry::read(
            hash,
            &self.bytes.as_ref()[at + self.layout.suffix_bytes()..],
        )
    }

    fn expires_at_ms(&self, i: usize) -> u64 {
        if !self.layout.has_expiries {
            return u64::MAX;
        }
        let at = self.layout.expiries_at() + i * EXPIRY_LEN;
        Fields(&self.bytes.as_ref()[at..]).u64().unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner() -> HintOwner {
        HintOwner {
            store: StoreId([7; 16]),
            segment: SegmentId(3),
            base_seq: SeqNo(100),
            data_len: 1 << 26,
            data_checksum: 0x0102_0304,
        }
    }

    fn entry(hash: u64, n: u64) -> HintEntry {
        HintEntry {
            hash: KeyHash::new(hash),
            offset: 64 + 32 * n,
            len: 32,
            seq: SeqNo(100 + n),
            tombstone: n % 7 == 0,
            collides: n % 5 == 0,
            expires_at_ms: u64::MAX,
        }
    }

    fn many(count: u64) -> Vec<HintEntry> {
        let hash = |n: u64| n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 16;
        let mut entries: Vec<_> = (0..count).map(|n| entry(hash(n), n)).collect();
        entries.sort_by_key(|entry| (entry.hash, entry.seq));
        entries
    }

    #[test]
    fn a_small_hint_is_these_bytes() {
        let entries = [HintEntry {
            expires_at_ms: 9,
            ..entry(0x0102_0304_0506, 7)
        }];
        let bytes = encode(&owner(), entries.iter().copied());
        assert_eq!(bytes[..16], *b"CRABHNT\n\x01\0\0\0\x01\0\0\0");
        assert_eq!(bytes[60..68], [1, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(
            bytes[68..92],
            [
                6, 5, 4, 3, 2, 1, 36, 0, 0, 0x80, 7, 0, 0, 0, 4, 0, 9, 0, 0, 0, 0, 0, 0, 0
            ]
        );
        assert_eq!(bytes.len(), 92 + 4);
    }

    #[test]
    fn entries_come_out_as_they_went_in_at_every_prefix_length() {
        for (count, prefix_bytes) in [(0, 0), (1, 0), (4095, 0), (4096, 1), (1 << 18, 2)] {
            let entries = many(count);
            let bytes = encode(&owner(), entries.iter().copied());
            let hint = Hint::decode(&bytes, &owner()).unwrap();
            assert_eq!(hint.layout.prefix_bytes, prefix_bytes);
            assert!(hint.entries(0..hint.len()).eq(entries.iter().copied()));
            let step = entries.len() / 50 + 1;
            for (i, entry) in entries.iter().enumerate().step_by(step) {
                assert_eq!(hint.lower_bound(entry.hash.get()), i);
                assert_eq!(hint.find(entry.hash).next(), Some(*entry));
                assert_eq!(hint.find(KeyHash::new(entry.hash.get() ^ 1)).count(), 0);
            }
            assert_eq!(hint.lower_bound(1 << 48), entries.len());
        }
    }

    #[test]
    fn half_a_million_entries_take_less_than_fifteen_bytes_each() {
        let entries = many(493_000);
        assert!(encode(&owner(), entries.iter().copied()).len() < 15 * entries.len());
    }

    #[test]
    fn expiries_tombstones_and_long_records_are_kept() {
        let mut entries = many(10);
        entries[3].expires_at_ms = 12345;
        entries[4].len = 0;
        let bytes = encode(&owner(), entries.iter().copied());
        let hint = Hint::decode(&bytes, &owner()).unwrap();
        assert!(hint.entries(0..10).eq(entries.iter().copied()));
    }

    #[test]
    fn a_flipped_bit_anywhere_spoils_the_hint() {
        let bytes = encode(&owner(), many(3).into_iter());
        for bit in 0..bytes.len() * 8 {
            let mut bytes = bytes.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(Hint::decode(&bytes, &owner()).is_err(), "bit {bit}");
        }
        for len in 0..bytes.len() {
            assert!(
                Hint::decode(&bytes[..len], &owner()).is_err(),
                "length {len}"
            );
        }
    }

    #[test]
    fn a_reserved_bit_is_refused_though_the_checksum_fits() {
        let mut bytes = encode(&owner(), many(3).into_iter());
        let covered = bytes.len() - CHECKSUM_LEN;
        bytes[HEADER_LEN + HASH_BYTES + 3] |= 0x20;
        let checksum = crc32fast::hash(&bytes[..covered]);
        bytes[covered..].copy_from_slice(&checksum.to_le_bytes());
        assert_eq!(
            Hint::decode(&bytes, &owner()).err(),
            Some(Invalid::Field("an unknown flag"))
        );
    }

    #[test]
    fn a_hint_of_another_state_of_the_segment_is_refused() {
        let bytes = encode(&owner(), many(3).into_iter());
        let others = [
            HintOwner {
                segment: SegmentId(4),
                ..owner()
            },
            HintOwner {
                store: StoreId([8; 16]),
                ..owner()
            },
            HintOwner {
                data_len: 1 << 25,
                ..owner()
            },
            HintOwner {
                data_checksum: 5,
                ..owner()
            },
            HintOwner {
                base_seq: SeqNo(101),
                ..owner()
            },
        ];
        for other in others {
            assert!(Hint::decode(&bytes, &other).is_err());
        }
    }
}
