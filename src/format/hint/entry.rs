//! An entry of a hint file: what it says of one record, and how it says it in few bytes.

use crate::format::hash::HASH_BITS;
use crate::format::{ALIGNMENT, KeyHash, SeqNo};

const POSITION_MASK: u32 = (1 << 29) - 1;
const TOMBSTONE: u32 = 1 << 31;
const COLLIDES: u32 = 1 << 30;
const RESERVED: u32 = 1 << 29;

/// A length that does not fit its field; the record itself says it.
const LONG: u16 = u16::MAX;

const LEN_BITS: u32 = 64 - HASH_BITS;
const _: () = assert!(LEN_BITS == u16::BITS);

/// One record of the segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct HintEntry {
    pub(crate) hash: KeyHash,
    pub(crate) offset: u64,
    /// In bytes, padding included; 0 for a record of 512 KiB or more: ask the record.
    pub(crate) len: u32,
    pub(crate) seq: SeqNo,
    pub(crate) tombstone: bool,
    /// Another key with this hash was live when the record was written.
    pub(crate) collides: bool,
    /// `u64::MAX` where it never expires.
    pub(crate) expires_at_ms: u64,
}

/// An entry in half the room, without its expiry: for the records of a segment that is being written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PackedEntry {
    /// The length is in units of 8, in the bits that the hash leaves.
    hash_and_len: u64,
    position_and_flags: u32,
    seq_delta: u32,
}

impl PackedEntry {
    /// Position and flags 4, sequence delta 4, length 2.
    pub(super) const TAIL_LEN: usize = 4 + 4 + 2;

    /// Packs an entry of a segment with this base; a long length is left to the record.
    #[inline]
    pub(crate) fn new(entry: &HintEntry, base_seq: SeqNo) -> PackedEntry {
        let units = match entry.len as usize / ALIGNMENT {
            0 => LONG,
            units => u16::try_from(units).unwrap_or(LONG),
        };
        let position = (entry.offset / ALIGNMENT as u64) as u32;
        let tombstone = if entry.tombstone { TOMBSTONE } else { 0 };
        let collides = if entry.collides { COLLIDES } else { 0 };
        PackedEntry {
            hash_and_len: entry.hash.get() << LEN_BITS | u64::from(units),
            position_and_flags: position | tombstone | collides,
            seq_delta: (entry.seq.0 - base_seq.0) as u32,
        }
    }

    /// The entry, as it reads once it has been written.
    #[inline]
    pub(crate) fn unpack(self, base_seq: SeqNo, expires_at_ms: u64) -> HintEntry {
        let units = self.hash_and_len as u16;
        HintEntry {
            hash: self.hash(),
            offset: u64::from(self.position_and_flags & POSITION_MASK) * ALIGNMENT as u64,
            len: if units == LONG {
                0
            } else {
                u32::from(units) * ALIGNMENT as u32
            },
            seq: SeqNo(base_seq.0.saturating_add(u64::from(self.seq_delta))),
            tombstone: self.position_and_flags & TOMBSTONE != 0,
            collides: self.position_and_flags & COLLIDES != 0,
            expires_at_ms,
        }
    }

    #[inline]
    pub(crate) fn hash(self) -> KeyHash {
        KeyHash::new(self.hash_and_len >> LEN_BITS)
    }

    /// Reads what follows the rest of the hash in an entry.
    #[inline]
    pub(super) fn read(hash: u64, tail: &[u8]) -> PackedEntry {
        // The file's length was checked against its layout, so no read can be short.
        let tail = tail
            .first_chunk()
            .copied()
            .unwrap_or([u8::MAX; Self::TAIL_LEN]);
        let [p0, p1, p2, p3, d0, d1, d2, d3, l0, l1] = tail;
        PackedEntry {
            hash_and_len: hash << LEN_BITS | u64::from(u16::from_le_bytes([l0, l1])),
            position_and_flags: u32::from_le_bytes([p0, p1, p2, p3]),
            seq_delta: u32::from_le_bytes([d0, d1, d2, d3]),
        }
    }

    /// What follows the rest of the hash in an entry.
    pub(super) fn tail(self) -> [u8; Self::TAIL_LEN] {
        let mut tail = [0; Self::TAIL_LEN];
        tail[..4].copy_from_slice(&self.position_and_flags.to_le_bytes());
        tail[4..8].copy_from_slice(&self.seq_delta.to_le_bytes());
        tail[8..].copy_from_slice(&(self.hash_and_len as u16).to_le_bytes());
        tail
    }

    /// Whether it has a flag that this version does not know.
    pub(super) fn has_unknown_flag(self) -> bool {
        self.position_and_flags & RESERVED != 0
    }

    /// What a hint file is sorted by.
    #[inline]
    pub(crate) fn order(self) -> (KeyHash, u32) {
        (self.hash(), self.seq_delta)
    }
}
