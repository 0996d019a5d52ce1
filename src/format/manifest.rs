//! The manifest: which segments are the store. A directory listing is not the truth, this is.

use super::{FORMAT_VERSION, Fields, Invalid, KeyHasher, SegmentId, SeqNo, StoreId};

const MAGIC: [u8; 8] = *b"CRABMAN\n";
/// Magic 8, version 4, flags 4, store 16, hash seed 8, hash bits 1, reserved 7, generation 8,
/// next segment 8, next sequence number 8, clock 8, segments 4, reserved 4.
const HEADER_LEN: usize = 8 + 4 + 4 + 16 + 8 + 1 + 7 + 8 + 8 + 8 + 8 + 4 + 4;
/// Id 8, data length 8, state 1, reserved 7.
const ENTRY_LEN: usize = 8 + 8 + 1 + 7;
const CHECKSUM_LEN: usize = 4;

/// What the manifest knows of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SegmentState {
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
    /// In ascending order of their ids.
    pub(crate) segments: Vec<(SegmentId, SegmentState)>,
}

impl Manifest {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let len = HEADER_LEN + self.segments.len() * ENTRY_LEN + CHECKSUM_LEN;
        let mut out = Vec::with_capacity(len);
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&self.store.0);
        out.extend_from_slice(&self.hasher.seed().to_le_bytes());
        out.extend_from_slice(&[self.hasher.bits(), 0, 0, 0, 0, 0, 0, 0]);
        out.extend_from_slice(&self.generation.to_le_bytes());
        out.extend_from_slice(&self.next_segment.0.to_le_bytes());
        out.extend_from_slice(&self.next_seq.0.to_le_bytes());
        out.extend_from_slice(&self.clock_ms.to_le_bytes());
        out.extend_from_slice(&(self.segments.len() as u32).to_le_bytes());
        out.extend_from_slice(&[0; 4]);
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
        if flags != 0 {
            return Err(Invalid::Features(flags));
        }
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
        if bytes.len() != HEADER_LEN + count * ENTRY_LEN + CHECKSUM_LEN {
            return Err(Invalid::Field(
                "the length does not fit the number of segments",
            ));
        }
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
            segments,
        })
    }
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
            segments: vec![
                (SegmentId(3), SegmentState::Sealed { data_len: 4096 }),
                (SegmentId(8), SegmentState::Closed { data_len: 64 }),
                (SegmentId(9), SegmentState::Active),
            ],
        }
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

    #[test]
    fn a_flipped_bit_or_a_missing_byte_is_noticed() {
        let bytes = manifest().encode();
        for bit in 0..bytes.len() * 8 {
            let mut bytes = bytes.clone();
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
