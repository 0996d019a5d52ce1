//! The manifest: which segments are the store. A directory listing is not the truth, this is.

use std::fmt;

use super::{FORMAT_VERSION, Fields, Invalid, KeyHasher, SegmentId, SeqNo, StoreId};

const MAGIC: [u8; 8] = *b"CRABMAN\n";
/// Magic 8, version 4, flags 4, store 16, hash seed 8, hash bits 1, reserved 7, generation 8,
/// next segment 8, next sequence number 8, clock 8, segments 4, reserved 4.
const HEADER_LEN: usize = 8 + 4 + 4 + 16 + 8 + 1 + 7 + 8 + 8 + 8 + 8 + 4 + 4;
/// Id 8, data length 8, state 1, reserved 7.
const ENTRY_LEN: usize = 8 + 8 + 1 + 7;
const CHECKSUM_LEN: usize = 4;
/// The two marks of the history, between header and entries, where [`HAS_HISTORY`] says so.
const HISTORY_LEN: usize = 8 + 8;

/// The manifest says what compaction has dropped from the history of changes.
const HAS_HISTORY: u32 = 1;

/// What the manifest knows of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SegmentState {
    /// Being appended to: its end is found by scanning.
    Active,
    /// Was being appended to when the store was closed in good order, after syncing it: its
    /// records end at exactly this offset.
    Closed {
        /// Where its records end.
        data_len: u64,
    },
    /// Never changes again. Its records end at this offset, where the footer begins.
    Sealed {
        /// Where its records end.
        data_len: u64,
    },
}

impl SegmentState {
    /// Where the segment's records end, in bytes from its beginning; `None` of an active one, whose
    /// end is found by scanning.
    pub fn data_len(self) -> Option<u64> {
        match self {
            SegmentState::Active => None,
            SegmentState::Closed { data_len } | SegmentState::Sealed { data_len } => Some(data_len),
        }
    }
}

impl fmt::Display for SegmentState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            SegmentState::Active => "active",
            SegmentState::Closed { .. } => "closed",
            SegmentState::Sealed { .. } => "sealed",
        })
    }
}

/// How far back the log tells what has happened: what compaction has dropped lies below.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct History {
    /// Every record with this sequence number or a higher one is in the log as it was written.
    pub(crate) complete_from: SeqNo,
    /// Of every key, the newest record is in the log if it has this sequence number or a higher
    /// one; as a tombstone, if it has expired.
    pub(crate) deletions_from: SeqNo,
}

impl History {
    /// Nothing has been dropped.
    pub(crate) const WHOLE: History = History {
        complete_from: SeqNo(0),
        deletions_from: SeqNo(0),
    };

    /// Nobody knows what has been dropped, but all of it was below `next_seq`.
    pub(crate) fn unknown_below(next_seq: SeqNo) -> History {
        History {
            complete_from: next_seq,
            deletions_from: next_seq,
        }
    }

    /// Notes that a record is no longer in the log, or not as it was written.
    pub(crate) fn note_dropped(&mut self, seq: SeqNo) {
        self.complete_from = self.complete_from.max(seq.next());
    }

    /// Notes that a key's newest record, one that says that the key is gone, is no longer in the
    /// log.
    pub(crate) fn note_deletion_dropped(&mut self, seq: SeqNo) {
        self.note_dropped(seq);
        self.deletions_from = self.deletions_from.max(seq.next());
    }

    /// Notes everything that `other` has noted.
    pub(crate) fn note_all(&mut self, other: History) {
        self.complete_from = self.complete_from.max(other.complete_from);
        self.deletions_from = self.deletions_from.max(other.deletions_from);
    }
}

/// The whole state of a store, apart from its records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Manifest {
    pub(crate) store: StoreId,
    pub(crate) hasher: KeyHasher,
    /// Counts the commits.
    pub(crate) generation: u64,
    pub(crate) next_segment: SegmentId,
    /// No write before this commit has this sequence number or a higher one in a sealed segment.
    pub(crate) next_seq: SeqNo,
    /// The latest time the store has seen: its clock never goes back behind this.
    pub(crate) clock_ms: u64,
    /// `None` where a program that did not keep it wrote the manifest.
    pub(crate) history: Option<History>,
    /// In ascending order of their ids.
    pub(crate) segments: Vec<(SegmentId, SegmentState)>,
}

impl Manifest {
    /// How far back the log tells what has happened, as far as that is known.
    pub(crate) fn history(&self) -> History {
        let unknown = || History::unknown_below(self.next_seq);
        self.history.unwrap_or_else(unknown)
    }

    /// The flags that say what of the format's optional parts is there.
    pub(crate) fn flags(&self) -> u32 {
        self.history.map_or(0, |_| HAS_HISTORY)
    }

    /// Sets an id aside, that no segment has had. `None` if there are no more: the highest is never
    /// given out, since the next one has to be higher.
    pub(crate) fn take_id(&mut self) -> Option<SegmentId> {
        let id = self.next_segment;
        self.next_segment = SegmentId(id.0.checked_add(1)?);
        Some(id)
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let len = HEADER_LEN + HISTORY_LEN + self.segments.len() * ENTRY_LEN + CHECKSUM_LEN;
        let mut out = Vec::with_capacity(len);
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
        out.extend_from_slice(&self.flags().to_le_bytes());
        out.extend_from_slice(&self.store.0);
        out.extend_from_slice(&self.hasher.seed().to_le_bytes());
        out.extend_from_slice(&[self.hasher.bits(), 0, 0, 0, 0, 0, 0, 0]);
        out.extend_from_slice(&self.generation.to_le_bytes());
        out.extend_from_slice(&self.next_segment.0.to_le_bytes());
        out.extend_from_slice(&self.next_seq.0.to_le_bytes());
        out.extend_from_slice(&self.clock_ms.to_le_bytes());
        out.extend_from_slice(&(self.segments.len() as u32).to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        if let Some(history) = &self.history {
            out.extend_from_slice(&history.complete_from.0.to_le_bytes());
            out.extend_from_slice(&history.deletions_from.0.to_le_bytes());
        }
        for (id, state) in &self.segments {
            let (state, data_len) = match *state {
                SegmentState::Active => (1, 0),
                SegmentState::Closed { data_len } => (2, data_len),
                SegmentState::Sealed { data_len } => (3, data_len),
            };
            out.extend_from_slice(&id.0.to_le_bytes());
            out.extend_from_slice(&data_len.to_le_bytes());
            out.extend_from_slice(&[state, 0, 0, 0, 0, 0, 0, 0]);
        }
        let checksum = crc32fast::hash(&out);
        out.extend_from_slice(&checksum.to_le_bytes());
        out
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Manifest, Invalid> {
        let mut fields = Fields(bytes);
        fields.magic(MAGIC)?;
        // The version is read before the checksum: a newer format may have another checksum.
        fields.version()?;
        let covered = bytes
            .len()
            .checked_sub(CHECKSUM_LEN)
            .ok_or(Invalid::Short)?;
        if crc32fast::hash(&bytes[..covered]).to_le_bytes() != bytes[covered..] {
            return Err(Invalid::Checksum);
        }
        let flags = fields.u32()?;
        if flags & !HAS_HISTORY != 0 {
            return Err(Invalid::Features(flags & !HAS_HISTORY));
        }
        let history_len = if flags & HAS_HISTORY == 0 {
            0
        } else {
            HISTORY_LEN
        };
        let store = StoreId(fields.bytes()?);
        let (seed, bits) = (fields.u64()?, fields.u8()?);
        fields.reserved::<7>()?;
        if bits == 0 || u32::from(bits) > super::hash::HASH_BITS {
            return Err(Invalid::Field("the hash has an impossible width"));
        }
        let hasher = KeyHasher::new(seed, bits);
        let generation = fields.u64()?;
        let next_segment = SegmentId(fields.u64()?);
        let next_seq = SeqNo(fields.u64()?);
        let clock_ms = fields.u64()?;
        let count = fields.u32()? as usize;
        fields.reserved::<4>()?;
        if bytes.len() != HEADER_LEN + history_len + count * ENTRY_LEN + CHECKSUM_LEN {
            return Err(Invalid::Field(
                "the length does not fit the number of segments",
            ));
        }
        let history = if history_len == 0 {
            None
        } else {
            Some(decode_history(&mut fields)?)
        };
        let mut segments = Vec::with_capacity(count);
        for _ in 0..count {
            let id = SegmentId(fields.u64()?);
            let data_len = fields.u64()?;
            let state = match fields.u8()? {
                1 if data_len == 0 => SegmentState::Active,
                2 => SegmentState::Closed { data_len },
                3 => SegmentState::Sealed { data_len },
                _ => return Err(Invalid::Field("a segment in an unknown state")),
            };
            fields.reserved::<7>()?;
            segments.push((id, state));
        }
        if next_segment.0 == 0 || segments.first().is_some_and(|(id, _)| id.0 == 0) {
            return Err(Invalid::Field("a segment has no number"));
        }
        let ascending = segments.windows(2).all(|pair| pair[0].0 < pair[1].0);
        if !ascending || segments.last().is_some_and(|(id, _)| *id >= next_segment) {
            return Err(Invalid::Field("the segments are out of order"));
        }
        Ok(Manifest {
            store,
            hasher,
            generation,
            next_segment,
            next_seq,
            clock_ms,
            history,
            segments,
        })
    }
}

fn decode_history(fields: &mut Fields<'_>) -> Result<History, Invalid> {
    let complete_from = SeqNo(fields.u64()?);
    let deletions_from = SeqNo(fields.u64()?);
    if deletions_from > complete_from {
        return Err(Invalid::Field("the history has impossible marks"));
    }
    Ok(History {
        complete_from,
        deletions_from,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest() -> Manifest {
        Manifest {
            store: StoreId(*b"0123456789abcdef"),
            hasher: KeyHasher::new(0x0807_0605_0403_0201, 48),
            generation: 4,
            next_segment: SegmentId(10),
            next_seq: SeqNo(77),
            clock_ms: 0x1234,
            history: None,
            segments: vec![
                (SegmentId(3), SegmentState::Sealed { data_len: 4096 }),
                (SegmentId(8), SegmentState::Closed { data_len: 64 }),
                (SegmentId(9), SegmentState::Active),
            ],
        }
    }

    /// Found by a fuzzer: looking for what is damaged began behind number 0.
    #[test]
    fn a_segment_without_a_number_is_refused() {
        let no_number = Err(Invalid::Field("a segment has no number"));
        let mut named = manifest();
        named.segments[0].0 = SegmentId(0);
        assert_eq!(Manifest::decode(&named.encode()), no_number);
        let next = Manifest {
            next_segment: SegmentId(0),
            segments: Vec::new(),
            ..manifest()
        };
        assert_eq!(Manifest::decode(&next.encode()), no_number);
    }

    #[test]
    fn the_highest_id_is_never_given_out() {
        let mut manifest = manifest();
        manifest.next_segment = SegmentId(u64::MAX - 1);
        assert_eq!(manifest.take_id(), Some(SegmentId(u64::MAX - 1)));
        assert_eq!(manifest.take_id(), None);
        assert_eq!(manifest.next_segment, SegmentId(u64::MAX));
        assert!(Manifest::decode(&manifest.encode()).is_ok());
    }

    #[test]
    fn the_manifest_is_these_bytes() {
        let bytes = manifest().encode();
        assert_eq!(
            &bytes[..32],
            b"CRABMAN\n\x01\0\0\0\0\0\0\x000123456789abcdef"
        );
        assert_eq!(
            &bytes[32..48],
            b"\x01\x02\x03\x04\x05\x06\x07\x08\x30\0\0\0\0\0\0\0"
        );
        assert_eq!(&bytes[48..64], b"\x04\0\0\0\0\0\0\0\x0a\0\0\0\0\0\0\0");
        assert_eq!(
            &bytes[64..88],
            b"\x4d\0\0\0\0\0\0\0\x34\x12\0\0\0\0\0\0\x03\0\0\0\0\0\0\0"
        );
        assert_eq!(
            &bytes[88..112],
            b"\x03\0\0\0\0\0\0\0\0\x10\0\0\0\0\0\0\x03\0\0\0\0\0\0\0"
        );
        assert_eq!(bytes.len(), 88 + 3 * 24 + 4);
        assert_eq!(Manifest::decode(&bytes), Ok(manifest()));
    }

    fn with_history() -> Manifest {
        Manifest {
            history: Some(History {
                complete_from: SeqNo(0x4c),
                deletions_from: SeqNo(0x2a),
            }),
            ..manifest()
        }
    }

    #[test]
    fn the_history_is_a_flag_and_two_numbers_before_the_segments() {
        let (bytes, without) = (with_history().encode(), manifest().encode());
        assert_eq!(&bytes[8..16], b"\x01\0\0\0\x01\0\0\0");
        assert_eq!(bytes[16..88], without[16..88]);
        assert_eq!(&bytes[88..104], b"\x4c\0\0\0\0\0\0\0\x2a\0\0\0\0\0\0\0");
        assert_eq!(bytes[104..176], without[88..160]);
        assert_eq!(bytes.len(), 88 + 16 + 3 * 24 + 4);
        assert_eq!(Manifest::decode(&bytes), Ok(with_history()));
    }

    #[test]
    fn a_history_that_lacks_deletions_but_nothing_else_is_refused() {
        let impossible = Manifest {
            history: Some(History {
                complete_from: SeqNo(1),
                deletions_from: SeqNo(2),
            }),
            ..manifest()
        };
        assert!(Manifest::decode(&impossible.encode()).is_err());
    }

    #[test]
    fn a_flipped_bit_or_a_missing_byte_is_noticed() {
        for manifest in [manifest(), with_history()] {
            notices_damage(&manifest.encode());
        }
    }

    fn notices_damage(bytes: &[u8]) {
        for bit in 0..bytes.len() * 8 {
            let mut bytes = bytes.to_vec();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(Manifest::decode(&bytes).is_err(), "bit {bit}");
        }
        for len in 0..bytes.len() {
            assert!(Manifest::decode(&bytes[..len]).is_err(), "length {len}");
        }
    }

    #[test]
    fn a_newer_manifest_is_told_from_damage() {
        let mut bytes = manifest().encode();
        bytes[8] = 9;
        assert_eq!(Manifest::decode(&bytes), Err(Invalid::Version(9)));
    }

    #[test]
    fn only_the_unknown_flags_are_named() {
        let mut bytes = with_history().encode();
        bytes[12] = 0b101;
        let covered = bytes.len() - CHECKSUM_LEN;
        let checksum = crc32fast::hash(&bytes[..covered]);
        bytes[covered..].copy_from_slice(&checksum.to_le_bytes());
        assert_eq!(Manifest::decode(&bytes), Err(Invalid::Features(0b100)));
    }

    #[test]
    fn a_hash_of_impossible_width_is_refused_though_the_checksum_fits() {
        for bits in [0, 49, 64, u8::MAX] {
            let mut bytes = manifest().encode();
            bytes[40] = bits;
            let covered = bytes.len() - CHECKSUM_LEN;
            let checksum = crc32fast::hash(&bytes[..covered]);
            bytes[covered..].copy_from_slice(&checksum.to_le_bytes());
            let refused = Err(Invalid::Field("the hash has an impossible width"));
            assert_eq!(Manifest::decode(&bytes), refused, "{bits} bits");
        }
    }

    #[test]
    fn segments_out_of_order_are_refused_though_the_checksum_fits() {
        let mut twice = manifest();
        twice.segments[1].0 = SegmentId(3);
        assert!(Manifest::decode(&twice.encode()).is_err());
        let beyond = Manifest {
            next_segment: SegmentId(9),
            ..manifest()
        };
        assert!(Manifest::decode(&beyond.encode()).is_err());
    }
}
