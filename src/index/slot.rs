//! What a slot holds: where a record lies, a few bits of its key's hash, and whether a reader has
//! verified the record.
//!
//! ```text
//! 63         62 .. 48      47 .. 29        28 .. 0
//! verified   tag           segment slot    offset / 8
//! ```

use super::hash::IndexHash;
use crate::bugs::{Bug, is_planted};
use crate::sync::{AtomicU64, Ordering};

const OFFSET_BITS: u32 = 29;
const SEGMENT_BITS: u32 = 19;
const LOCATION_BITS: u32 = SEGMENT_BITS + OFFSET_BITS;
const LOCATION_MASK: u64 = (1 << LOCATION_BITS) - 1;
const TAG_MASK: u64 = ((1 << IndexHash::TAG_BITS) - 1) << LOCATION_BITS;
const VERIFIED: u64 = 1 << 63;

const _: () = assert!(LOCATION_BITS + IndexHash::TAG_BITS + 1 == u64::BITS);

/// Where a record lies: the slot of its segment in the segment table, and its offset there.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct Location(u64);

impl Location {
    /// How many segments there can be at a time.
    pub(crate) const MAX_SEGMENTS: u32 = 1 << SEGMENT_BITS;
    /// What offsets are multiples of.
    pub(crate) const OFFSET_UNIT: u64 = 8;
    /// The highest offset of a record in its segment.
    pub(crate) const MAX_OFFSET: u64 = ((1 << OFFSET_BITS) - 1) * Self::OFFSET_UNIT;

    /// The record at `offset_bytes` of the segment in `segment_slot`.
    ///
    /// # Panics
    ///
    /// When a part is out of its range, or the offset is not a multiple of 8. The first two units
    /// of segment slot 0 stand for slots without a record; every segment begins with a header, so
    /// no record lies there.
    pub(crate) fn new(segment_slot: u32, offset_bytes: u64) -> Location {
        assert!(
            segment_slot < Self::MAX_SEGMENTS,
            "segment slot {segment_slot} is out of range"
        );
        assert!(
            offset_bytes <= Self::MAX_OFFSET && offset_bytes % Self::OFFSET_UNIT == 0,
            "offset {offset_bytes} is out of range or out of step"
        );
        let offset_bytes = if is_planted(Bug::NarrowOffset) {
            offset_bytes % (1 << 12)
        } else {
            offset_bytes
        };
        let bits = (u64::from(segment_slot) << OFFSET_BITS) | (offset_bytes / Self::OFFSET_UNIT);
        assert!(
            bits > Word::DELETED.0,
            "no record lies at offset {offset_bytes}"
        );
        Location(bits)
    }

    /// Which slot of the segment table.
    #[inline]
    pub(crate) fn segment_slot(self) -> u32 {
        (self.0 >> OFFSET_BITS) as u32
    }

    /// The record's offset in its segment, in bytes.
    #[inline]
    pub(crate) fn offset(self) -> u64 {
        (self.0 & ((1 << OFFSET_BITS) - 1)) * Self::OFFSET_UNIT
    }
}

/// The content of a slot at some moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Word(u64);

impl Word {
    /// Never used: a search ends here.
    pub(super) const EMPTY: Word = Word(0);
    /// Used once: a search goes on.
    pub(super) const DELETED: Word = Word(1);

    pub(super) fn new(tag: u16, location: Location, verified: bool) -> Word {
        Word(u64::from(verified) << 63 | u64::from(tag) << LOCATION_BITS | location.0)
    }

    #[inline]
    pub(super) fn read(slot: &AtomicU64, order: Ordering) -> Word {
        Word(slot.load(order))
    }

    #[inline]
    pub(super) fn write(self, slot: &AtomicU64, order: Ordering) {
        slot.store(self.0, order);
    }

    /// Whether the tag is this one. True also of `EMPTY` and `DELETED` when the tag is 0.
    #[cfg(any(test, not(target_arch = "x86_64"), miri, loom, shuttle))]
    #[inline]
    pub(super) fn has_tag(self, tag: u16) -> bool {
        (self.0 ^ u64::from(tag) << LOCATION_BITS) & TAG_MASK == 0
    }

    #[inline]
    pub(super) fn is_live(self) -> bool {
        self.0 > Word::DELETED.0
    }

    pub(super) fn tag(self) -> u16 {
        ((self.0 & TAG_MASK) >> LOCATION_BITS) as u16
    }

    #[inline]
    pub(super) fn location(self) -> Location {
        Location(self.0 & LOCATION_MASK)
    }
}

/// Which records are used without verifying them, as the bits of a slot of which one must be set.
#[derive(Clone, Copy)]
pub(crate) struct Trust(u64);

impl Trust {
    /// Those that have been verified in this process.
    pub(crate) const VERIFIED: Trust = Trust(VERIFIED);
    /// All: no slot that is in use is zero.
    pub(crate) const ALL: Trust = Trust(u64::MAX);
    pub(crate) const NONE: Trust = Trust(0);
}

/// An entry that a walk came across.
#[derive(Clone, Copy)]
pub(crate) struct Listed(Word);

impl Listed {
    pub(super) fn new(word: Word) -> Listed {
        Listed(word)
    }

    #[inline]
    pub(crate) fn location(self) -> Location {
        self.0.location()
    }

    /// Whether the record may be used as it is.
    #[inline]
    pub(crate) fn is_trusted(self, trust: Trust) -> bool {
        self.0.0 & trust.0 != 0
    }
}

/// A slot whose tag is the one searched for. Whether it is the key, only its record can tell.
pub(crate) struct Candidate<'p> {
    slot: &'p AtomicU64,
    word: Word,
}

impl<'p> Candidate<'p> {
    #[inline]
    pub(super) fn new(slot: &'p AtomicU64, word: Word) -> Candidate<'p> {
        Candidate { slot, word }
    }

    /// Where its record lies.
    #[inline]
    pub(crate) fn location(&self) -> Location {
        self.word.location()
    }

    /// Whether this record's checksum has been verified in this process.
    #[cfg(test)]
    pub(crate) fn is_verified(&self) -> bool {
        self.is_trusted(Trust::VERIFIED)
    }

    /// Whether the record may be used as it is.
    #[inline]
    pub(crate) fn is_trusted(&self, trust: Trust) -> bool {
        self.word.0 & trust.0 != 0
    }

    /// Remembers that the record's checksum is right. Forgotten if the slot was changed or copied
    /// meanwhile: then the record is verified once more.
    pub(crate) fn mark_verified(&self) {
        // The bit says nothing about other memory, so no order is asked for; and a segment slot
        // gets a new segment only after every pin that could have seen the old one is gone, so the
        // word cannot come to mean another record between the read and the exchange.
        let _ = self.slot.compare_exchange(
            self.word.0,
            self.word.0 | VERIFIED,
            Ordering::Relaxed,
            Ordering::Relaxed,
        );
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;

    #[test]
    fn a_word_holds_its_parts_at_both_ends_of_their_ranges() {
        for (segment_slot, offset) in [
            (0, 16),
            (1, 0),
            (524_287, 4_294_967_288),
            (0, 4_294_967_288),
            (524_287, 0),
        ] {
            for tag in [0, 1, 0x7fff] {
                for verified in [false, true] {
                    let location = Location::new(segment_slot, offset);
                    let word = Word::new(tag, location, verified);
                    let slot = AtomicU64::new(word.0);
                    let candidate = Candidate::new(&slot, word);
                    assert_eq!(candidate.location(), location);
                    assert_eq!(location.segment_slot(), segment_slot);
                    assert_eq!(location.offset(), offset);
                    assert_eq!(candidate.is_verified(), verified);
                    assert_eq!(word.tag(), tag);
                    assert!(word.is_live() && word.has_tag(tag) && !word.has_tag(tag ^ 0x4000));
                }
            }
        }
    }

    #[test]
    fn verified_is_marked_only_on_the_word_that_was_seen() {
        let word = Word::new(7, Location::new(3, 64), false);
        let slot = AtomicU64::new(word.0);
        Candidate::new(&slot, word).mark_verified();
        let marked = Word::read(&slot, Ordering::Relaxed);
        assert_eq!(marked, Word::new(7, Location::new(3, 64), true));
        let moved = Word::new(7, Location::new(4, 64), false);
        moved.write(&slot, Ordering::Relaxed);
        Candidate::new(&slot, word).mark_verified();
        assert_eq!(Word::read(&slot, Ordering::Relaxed), moved);
    }

    #[test]
    #[should_panic(expected = "no record lies at offset 8")]
    fn locations_that_would_read_as_deleted_are_refused() {
        Location::new(0, 8);
    }

    #[test]
    #[should_panic(expected = "out of step")]
    fn offsets_between_units_are_refused() {
        Location::new(0, 68);
    }
}
