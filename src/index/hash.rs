//! Which bits of a key's hash are used for what.
//!
//! ```text
//! 47 .. 33                    32 .. 18   17 .. 0
//! directory, and side array   tag        home bucket
//! ```
//!
//! A page keeps the tag in the slot, and the top bits and the home bucket in its side array: with
//! these thirty bits it can be split, as deep as depth 30, without asking a record for its key.
//!
//! If hashes came evenly to the pages, all pages would grow full and be split at about the same
//! time, at every doubling of the entries, and memory for each entry would swing between 13 and 25
//! bytes. So hashes are spread: the low ones denser, the high ones thinner, down to half as dense.
//! Then at any time some pages are about to be split and others were just now, in like measure.

use super::page::BUCKETS;

/// A key's hash, as much of it as the index uses, and spread over its pages. The order of hashes
/// is the order of their low 48 bits (some neighbours become equal).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct IndexHash(u64);

const TOP_BITS: u32 = 15;
const HOME_BITS: u32 = 18;

impl IndexHash {
    /// How many bits are used, the low ones.
    pub(crate) const BITS: u32 = TOP_BITS + Self::TAG_BITS + HOME_BITS;
    pub(super) const TAG_BITS: u32 = 15;

    /// Of the low 48 bits of `hash`.
    pub(crate) fn new(hash: u64) -> IndexHash {
        IndexHash::from(crate::format::KeyHash::new(hash))
    }

    /// The hash at a position of the walk.
    #[inline]
    pub(super) fn at_position(position: u64) -> IndexHash {
        debug_assert!(position >> Self::BITS == 0);
        IndexHash(position)
    }

    /// The lowest hash with this home of those whose top bits are the same.
    #[inline]
    pub(super) fn with_home(self, home: usize) -> IndexHash {
        debug_assert!(home < BUCKETS);
        let low = ((home as u64) << HOME_BITS).div_ceil(BUCKETS as u64);
        IndexHash(self.0 >> HOME_BITS << HOME_BITS | low)
    }

    /// Its position in the walk: below 2^48.
    #[inline]
    pub(crate) fn position(self) -> u64 {
        self.0
    }

    /// Which of 2^`bits` partitions of the hashes it is in, see [`Loader`](super::loading::Loader).
    pub(crate) fn partition(self, bits: u32) -> u32 {
        (self.0 >> (Self::BITS - bits)) as u32
    }

    #[inline]
    pub(super) fn tag(self) -> u16 {
        (self.0 >> HOME_BITS) as u16 & ((1 << Self::TAG_BITS) - 1)
    }

    /// The bucket in which the search begins.
    #[inline]
    pub(super) fn home(self) -> usize {
        let low = self.0 & ((1 << HOME_BITS) - 1);
        ((low * BUCKETS as u64) >> HOME_BITS) as usize
    }
}

impl From<crate::format::KeyHash> for IndexHash {
    #[inline]
    fn from(hash: crate::format::KeyHash) -> IndexHash {
        /// A third, as a fraction of 2^64.
        const THIRD: u64 = u64::MAX / 3;
        let product = |a: u64, b: u64| ((u128::from(a) * u128::from(b)) >> 64) as u64;
        // From x in 0..1 to x + x (1 - x) / 3, which rises by 4/3 at 0 and by 2/3 at 1.
        let x = hash.fraction();
        let spread = x + product(x, THIRD - product(x, THIRD));
        IndexHash(spread >> (u64::BITS - Self::BITS))
    }
}

/// What the index keeps of a hash.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Trace {
    /// The top bits and the tag.
    bits: u32,
    home: u16,
}

impl Trace {
    /// How many of the hash's top bits are kept: no page can be deeper.
    pub(super) const BITS: u32 = TOP_BITS + IndexHash::TAG_BITS;

    pub(super) fn of(hash: IndexHash) -> Trace {
        Trace {
            bits: (hash.0 >> HOME_BITS) as u32,
            home: hash.home() as u16,
        }
    }

    pub(super) fn home(self) -> usize {
        usize::from(self.home)
    }

    /// The bit that decides to which half of a page of this depth the entry goes.
    pub(super) fn bit(self, depth: u32) -> bool {
        self.bits >> (Self::BITS - 1 - depth) & 1 == 1
    }

    /// The depth at which the bit is that tells the two apart, first of all.
    pub(super) fn parts_at(self, other: Trace) -> u32 {
        (self.bits ^ other.bits).leading_zeros() - (u32::BITS - Self::BITS)
    }

    /// The part that is not in the slot's tag, for the side array: 15 top bits, 9 home bits.
    pub(super) fn pack(self) -> [u8; 3] {
        let [low, high] = ((self.bits >> IndexHash::TAG_BITS) as u16).to_le_bytes();
        let [home, home_high] = self.home.to_le_bytes();
        [low, high | home_high << 7, home]
    }

    /// Twin of [`pack`](Trace::pack).
    pub(super) fn unpack([low, high, home]: [u8; 3], tag: u16) -> Trace {
        let top = u16::from_le_bytes([low, high & 0x7f]);
        Trace {
            bits: u32::from(top) << IndexHash::TAG_BITS | u32::from(tag),
            home: u16::from_le_bytes([home, high >> 7]),
        }
    }
}

const _: () = assert!(
    BUCKETS <= 1 << 9,
    "a home bucket has nine bits in the side array"
);

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;

    #[test]
    fn traces_survive_the_side_array() {
        for position in [
            0,
            (1 << 48) - 1,
            1 << 47,
            1 << 33,
            1 << 32,
            1 << 18,
            0x3_ffff,
            0x0123_4567_89ab,
        ] {
            let hash = IndexHash::at_position(position);
            let trace = Trace::of(hash);
            assert_eq!(Trace::unpack(trace.pack(), hash.tag()), trace);
            assert_eq!(trace.home(), hash.home());
        }
    }

    #[test]
    fn bits_are_counted_from_the_top() {
        let trace = Trace::of(IndexHash::at_position((1 << 47) | (1 << 18)));
        assert!(trace.bit(0) && !trace.bit(1) && trace.bit(29));
        let zero = Trace::of(IndexHash::at_position(0));
        assert_eq!(trace.parts_at(zero), 0);
        assert_eq!(
            Trace::of(IndexHash::at_position(1 << 18)).parts_at(zero),
            29
        );
        assert_eq!(zero.parts_at(zero), 30);
    }

    #[test]
    fn spreading_keeps_the_order_and_uses_the_whole_range() {
        assert_eq!(IndexHash::new(0).position(), 0);
        assert_eq!(IndexHash::new(u64::MAX).position(), (1 << 48) - 1);
        assert_eq!(IndexHash::new(0xabcd << 48), IndexHash::new(0));
        assert_eq!(IndexHash::new(1 << 47).partition(4), 9);
        // Twice as many hashes come to the last partition of 64 as to the first.
        let of = |partition| {
            (0..6_400_000_u64).filter(move |n| {
                IndexHash::new(n * ((1 << 48) / 6_400_000)).partition(6) == partition
            })
        };
        assert!(
            (74_000..77_000).contains(&of(0).count()),
            "{}",
            of(0).count()
        );
        assert!(
            (145_000..150_000).contains(&of(63).count()),
            "{}",
            of(63).count()
        );
        for start in [0, 1 << 20, (1 << 47) - 500, (1 << 48) - 1_001] {
            let hashes = (start..start + 1_000).map(IndexHash::new);
            assert!(hashes.is_sorted());
        }
    }

    #[test]
    fn the_highest_hash_has_the_last_bucket_for_its_home() {
        assert_eq!(IndexHash::new(u64::MAX).home(), 510);
        assert_eq!(IndexHash::new(0).home(), 0);
    }
}
