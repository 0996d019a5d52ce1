//! One look at a bucket: which of its slots have a tag.
//!
//! This is where a lookup waits for memory, and what decides how many lookups the processor keeps
//! under way at a time is the number of loads that wait for the line: with eight and one more for
//! the match, a hit among ten million entries took 80 ns on the machine this was measured on, with
//! four of sixteen bytes 23 ns. Rust has no atomic loads of sixteen bytes, but has assembly.

use super::page::SLOTS_PER_BUCKET;
use crate::sync::AtomicU64;

/// A bit for each slot with the tag; also for those that are EMPTY or DELETED, if the tag is 0. Loads
/// as if by relaxed atomic loads, slot by slot, in any order.
/// The slots of a bucket that have a tag, from the first on: two bits for each, as the processor's
/// instructions give them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Matches(u32);

impl Iterator for Matches {
    type Item = usize;

    #[inline]
    fn next(&mut self) -> Option<usize> {
        if self.0 == 0 {
            return None;
        }
        let at = self.0.trailing_zeros() / 2;
        self.0 &= self.0 - 1;
        self.0 &= self.0 - 1;
        // Below 8; the mask tells the compiler.
        Some(at as usize % SLOTS_PER_BUCKET)
    }
}

#[cfg(all(target_arch = "x86_64", not(any(miri, loom, shuttle))))]
#[inline]
pub(super) fn glance(slots: &[AtomicU64; SLOTS_PER_BUCKET], tag: u16) -> Matches {
    use std::arch::asm;
    use std::arch::x86_64::{
        __m128i, _mm_and_si128, _mm_castps_si128, _mm_castsi128_ps, _mm_cmpeq_epi32,
        _mm_movemask_epi8, _mm_packs_epi32, _mm_set1_epi32, _mm_shuffle_ps,
    };

    const TAG_IN_HIGH_HALF: i32 = 0x7fff << 16;
    const HIGH_HALVES: i32 = 0b11_01_11_01;

    let (a, b, c, d): (__m128i, __m128i, __m128i, __m128i);
    // SAFETY: reads the 64 bytes of the bucket, which we borrow and which are aligned to 64 (a
    // const assertion of `page` holds that), and nothing else. The processor reads each aligned
    // eight bytes, even more so each tag, whole, so this does what relaxed atomic loads would.
    unsafe {
        asm!(
            "movdqa {a}, [{slots}]",
            "movdqa {b}, [{slots} + 16]",
            "movdqa {c}, [{slots} + 32]",
            "movdqa {d}, [{slots} + 48]",
            slots = in(reg) slots.as_ptr(),
            a = lateout(xmm_reg) a,
            b = lateout(xmm_reg) b,
            c = lateout(xmm_reg) c,
            d = lateout(xmm_reg) d,
            options(nostack, preserves_flags, readonly),
        );
    }
    // SAFETY: SSE2 is part of every x86-64, and these only compute.
    unsafe {
        let mask = _mm_set1_epi32(TAG_IN_HIGH_HALF);
        let wanted = _mm_set1_epi32(i32::from(tag) << 16);
        let four_matches = |low: __m128i, high: __m128i| {
            let (low, high) = (_mm_castsi128_ps(low), _mm_castsi128_ps(high));
            let tags = _mm_castps_si128(_mm_shuffle_ps::<HIGH_HALVES>(low, high));
            _mm_cmpeq_epi32(_mm_and_si128(tags, mask), wanted)
        };
        // Two bytes of ones for each match.
        let matches = _mm_packs_epi32(four_matches(a, b), four_matches(c, d));
        #[expect(clippy::cast_sign_loss, reason = "a mask of sixteen bits")]
        let matches = _mm_movemask_epi8(matches) as u32;
        Matches(matches)
    }
}

/// A bit for each slot with the tag; also for those that are EMPTY or DELETED, if the tag is 0. Loads
/// as if by relaxed atomic loads, slot by slot, in any order.
#[cfg(any(test, not(target_arch = "x86_64"), miri, loom, shuttle))]
#[inline]
pub(super) fn glance_by_slots(slots: &[AtomicU64; SLOTS_PER_BUCKET], tag: u16) -> Matches {
    use super::slot::Word;
    use crate::sync::Ordering;

    let words = std::array::from_fn::<_, SLOTS_PER_BUCKET, _>(|at| {
        Word::read(&slots[at], Ordering::Relaxed)
    });
    // All tags are compared before the first branch: where in the bucket the key is, no branch
    // predictor can know.
    let matches = (0..)
        .zip(words)
        .map(|(at, word): (u32, Word)| (u32::from(word.has_tag(tag)) * 0b11) << (2 * at));
    Matches(matches.fold(0, |all, one| all | one))
}

#[cfg(any(not(target_arch = "x86_64"), miri, loom, shuttle))]
pub(super) use glance_by_slots as glance;

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;
    use crate::index::slot::{Location, Word};
    use crate::sync::Ordering;

    #[repr(align(64))]
    struct Aligned([AtomicU64; 8]);

    #[test]
    fn tags_are_told_from_each_other_in_every_slot() {
        let bucket = Aligned(Default::default());
        let all = |tag| glance(&bucket.0, tag).collect::<Vec<_>>();
        assert_eq!(all(0), [0, 1, 2, 3, 4, 5, 6, 7]);
        assert_eq!(all(1), []);
        for (at, slot) in bucket.0.iter().enumerate() {
            let tag = 1 << at | 0x4000;
            // A location of all ones, verified or not.
            let location = Location::new(524_287, 4_294_967_288);
            Word::new(tag, location, at % 2 == 0).write(slot, Ordering::Relaxed);
            assert_eq!(all(tag), [at]);
        }
        for tag in 0..=0x7fff {
            assert_eq!(glance(&bucket.0, tag), glance_by_slots(&bucket.0, tag));
        }
        Word::DELETED.write(&bucket.0[7], Ordering::Relaxed);
        assert_eq!(all(0), [7]);
    }
}
