//! A page: buckets of slots, one cache line each, in which keys are found by linear probing.
//!
//! Invariants, kept by the one writer:
//!
//! 1. An entry lies in the first bucket, from its home on and around the end, that had a free slot
//!    when it came, and it never moves inside its page.
//! 2. A bucket is filled from its first slot on. So its last slot is used last, and a bucket has an
//!    EMPTY slot exactly if its last slot is EMPTY.
//! 3. A bucket whose last slot is used never has an EMPTY slot again: what is removed there is
//!    DELETED.
//! 4. An entry lies in the overflow page only if its page had no free slot when it came.
//!
//! From 1 and 3: a search may end at the first bucket whose last slot is EMPTY.

use std::ops::Range;
use std::ptr::{self, NonNull};

use super::glance::glance;
use super::slot::Word;
use crate::reclaim::PROTECT;
use crate::sync::{AtomicPtr, AtomicU32, AtomicU64, Ordering};

pub(super) const SLOTS_PER_BUCKET: usize = if cfg!(any(loom, shuttle)) { 2 } else { 8 };
/// One less than a power of two: with its header, a page is exactly 32 KiB.
pub(super) const BUCKETS: usize = if cfg!(any(loom, shuttle)) { 2 } else { 511 };
pub(super) const SLOTS: usize = BUCKETS * SLOTS_PER_BUCKET;
pub(super) const PAGE_BYTES: usize = size_of::<Page>();

#[cfg(not(any(loom, shuttle)))]
const _: () = {
    const CACHE_LINE_BYTES: usize = 64;
    assert!(PAGE_BYTES == 32 * 1024);
    assert!(size_of::<Header>() == CACHE_LINE_BYTES && size_of::<Bucket>() == CACHE_LINE_BYTES);
};

/// All zeros is a valid page, an empty one of depth 0 and number 0.
#[repr(C)]
pub(super) struct Page {
    // First, so that a bucket's address takes no addition.
    buckets: [Bucket; BUCKETS],
    header: Header,
}

#[repr(C, align(64))]
struct Header {
    /// Where an entry is that found no free slot here.
    overflow: AtomicPtr<Page>,
    /// How many top bits of the hash the entries have in common. Fixed before readers come.
    local_depth: AtomicU32,
    /// Which page of its slab this is. Fixed.
    number: AtomicU32,
    /// Loom reports whoever reads this without being ordered before the reclamation.
    #[cfg(loom)]
    in_use: loom::cell::UnsafeCell<bool>,
    /// Under shuttle, which runs one thread at a time, no order is needed.
    #[cfg(shuttle)]
    in_use: std::sync::atomic::AtomicBool,
}

#[repr(C, align(64))]
struct Bucket {
    slots: [AtomicU64; SLOTS_PER_BUCKET],
}

/// How a search in one page ended.
pub(super) enum Search<R> {
    Found(R),
    /// At an EMPTY slot: it is nowhere.
    Absent,
    /// No EMPTY slot in the page: it may be in the overflow page.
    Full,
}

/// Asks the processor to fetch the line that something begins in.
#[inline]
pub(super) fn fetch<T>(what: &T) {
    #[cfg(all(target_arch = "x86_64", not(any(loom, shuttle))))]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a prefetch is a hint, and the address is that of something we borrow.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(ptr::from_ref(what).cast()) };
    }
    #[cfg(not(all(target_arch = "x86_64", not(any(loom, shuttle)))))]
    let _ = what;
}

impl Page {
    /// Calls `visit` with the position, slot and word of each entry with this tag, in the order of
    /// the search, until it gives something. To a reader, an entry may by then have become another.
    #[inline]
    pub(super) fn search<'p, R>(
        &'p self,
        home: usize,
        tag: u16,
        mut visit: impl FnMut(usize, &'p AtomicU64, Word) -> Option<R>,
    ) -> Search<R> {
        self.assert_in_use();
        let mut bucket = home;
        let mut slots = &self.buckets[home].slots;
        loop {
            // In what order this reads the slots does not matter, see invariants 1 and 3; a match
            // is read again, in order.
            for at in glance(slots, tag) {
                let slot = &slots[at];
                let word = Word::read(slot, Ordering::Acquire);
                if word.is_live() {
                    if let Some(found) = visit(bucket * SLOTS_PER_BUCKET + at, slot, word) {
                        return Search::Found(found);
                    }
                }
            }
            // By a load of its own, which only those pay for who did not find their key: once it is
            // used it stays so, thus it was EMPTY before, too.
            let last = &slots[SLOTS_PER_BUCKET - 1];
            if Word::read(last, Ordering::Relaxed) == Word::EMPTY {
                return Search::Absent;
            }
            bucket = if bucket + 1 == BUCKETS { 0 } else { bucket + 1 };
            if bucket == home {
                return Search::Full;
            }
            slots = &self.buckets[bucket].slots;
        }
    }

    /// The first slot with this tag in the home bucket; where the tag is 0, it may be one without an
    /// entry. `Full` means that the search is to go on.
    #[inline]
    pub(super) fn first_at_home(&self, home: usize, tag: u16) -> Search<(&AtomicU64, Word)> {
        self.assert_in_use();
        let slots = &self.buckets[home].slots;
        if let Some(at) = glance(slots, tag).next() {
            let slot = &slots[at];
            return Search::Found((slot, Word::read(slot, Ordering::Acquire)));
        }
        // As in `search`.
        let last = &slots[SLOTS_PER_BUCKET - 1];
        match Word::read(last, Ordering::Relaxed) {
            Word::EMPTY => Search::Absent,
            _ => Search::Full,
        }
    }

    /// Asks the processor to fetch what says of the page as a whole.
    pub(super) fn prefetch_head(&self) {
        fetch(&self.header);
    }

    /// Asks the processor to fetch a bucket.
    #[inline]
    pub(super) fn prefetch(&self, home: usize) {
        fetch(&self.buckets[home]);
    }

    /// The position that the next entry with this home goes to (invariants 1 and 2).
    pub(super) fn free_position(&self, home: usize) -> Option<usize> {
        let buckets = (home..BUCKETS).chain(0..home);
        for bucket in buckets {
            for (at, slot) in self.buckets[bucket].slots.iter().enumerate() {
                if !Word::read(slot, Ordering::Relaxed).is_live() {
                    return Some(bucket * SLOTS_PER_BUCKET + at);
                }
            }
        }
        None
    }

    /// What the slot of a removed entry must hold (invariant 3).
    pub(super) fn word_for_removed(&self, position: usize) -> Word {
        let last = &self.buckets[position / SLOTS_PER_BUCKET].slots[SLOTS_PER_BUCKET - 1];
        match Word::read(last, Ordering::Relaxed) {
            Word::EMPTY => Word::EMPTY,
            _ => Word::DELETED,
        }
    }

    pub(super) fn slot(&self, position: usize) -> &AtomicU64 {
        &self.buckets[position / SLOTS_PER_BUCKET].slots[position % SLOTS_PER_BUCKET]
    }

    /// All entries, with their positions.
    pub(super) fn entries(&self) -> impl Iterator<Item = (usize, Word)> {
        self.assert_in_use();
        let slots = self.buckets.iter().flat_map(|bucket| &bucket.slots);
        slots
            .map(|slot| Word::read(slot, Ordering::Acquire))
            .enumerate()
            .filter(|(_, word)| word.is_live())
    }

    /// Calls `visit` with the entries that lie in `buckets`, in order, and ends behind the first
    /// bucket with an EMPTY slot at which `is_enough`: no entry with a home up to there lies
    /// beyond. Gives the bucket after that one, or `None` if there is none such.
    pub(super) fn entries_in(
        &self,
        buckets: Range<usize>,
        mut visit: impl FnMut(Word),
        mut is_enough: impl FnMut() -> bool,
    ) -> Option<usize> {
        self.assert_in_use();
        for bucket in buckets {
            let mut last = Word::EMPTY;
            for slot in &self.buckets[bucket].slots {
                last = Word::read(slot, Ordering::Acquire);
                if last.is_live() {
                    visit(last);
                }
            }
            if last == Word::EMPTY && is_enough() {
                return Some(bucket + 1);
            }
        }
        None
    }

    pub(super) fn local_depth(&self) -> u32 {
        self.header.local_depth.load(Ordering::Relaxed)
    }

    pub(super) fn number(&self) -> usize {
        self.header.number.load(Ordering::Relaxed) as usize
    }

    pub(super) fn overflow(&self) -> Option<PagePtr> {
        PagePtr::new(self.header.overflow.load(PROTECT))
    }

    /// Lets readers go on to `page`.
    pub(super) fn set_overflow(&self, page: Option<PagePtr>) {
        let pointer = page.map_or(ptr::null_mut(), PagePtr::as_ptr);
        self.header.overflow.store(pointer, Ordering::Release);
    }

    /// Before readers come.
    pub(super) fn set_local_depth(&self, depth: u32) {
        self.header.local_depth.store(depth, Ordering::Relaxed);
    }

    /// Before readers come.
    pub(super) fn set_number(&self, number: u32) {
        self.header.number.store(number, Ordering::Relaxed);
    }

    #[cfg(not(any(loom, shuttle)))]
    #[inline]
    #[expect(clippy::unused_self, reason = "loom and shuttle check here")]
    fn assert_in_use(&self) {}

    #[cfg(loom)]
    fn assert_in_use(&self) {
        // SAFETY: a read of a bool; loom reports it if it races with `mark_reclaimed`.
        self.header
            .in_use
            .with(|in_use| assert!(unsafe { *in_use }, "the page was reclaimed"));
    }

    #[cfg(loom)]
    pub(super) fn mark_reclaimed(&self) {
        // SAFETY: a write of a bool; loom reports it if it races with `assert_in_use`.
        self.header
            .in_use
            .with_mut(|in_use| unsafe { *in_use = false });
    }

    #[cfg(shuttle)]
    fn assert_in_use(&self) {
        let in_use = self.header.in_use.load(Ordering::Relaxed);
        assert!(in_use, "the page was reclaimed");
    }

    #[cfg(shuttle)]
    pub(super) fn mark_reclaimed(&self) {
        self.header.in_use.store(false, Ordering::Relaxed);
    }

    /// An empty page; neither loom's nor shuttle's atomics can be made of zeros.
    #[cfg(any(loom, shuttle))]
    pub(super) fn boxed() -> Box<Page> {
        Box::new(Page {
            header: Header {
                overflow: AtomicPtr::new(ptr::null_mut()),
                local_depth: AtomicU32::new(0),
                number: AtomicU32::new(0),
                #[cfg(loom)]
                in_use: loom::cell::UnsafeCell::new(true),
                #[cfg(shuttle)]
                in_use: std::sync::atomic::AtomicBool::new(true),
            },
            buckets: std::array::from_fn(|_| Bucket {
                slots: std::array::from_fn(|_| AtomicU64::new(0)),
            }),
        })
    }
}

/// The address of a page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct PagePtr(NonNull<Page>);

// SAFETY: an address; looking at the page is `page`, whose caller answers for it, and a page is
// made of atomics, so that threads may share it.
unsafe impl Send for PagePtr {}
// SAFETY: as above.
unsafe impl Sync for PagePtr {}

impl PagePtr {
    #[inline]
    pub(super) fn new(pointer: *mut Page) -> Option<PagePtr> {
        NonNull::new(pointer).map(PagePtr)
    }

    #[inline]
    pub(super) fn as_ptr(self) -> *mut Page {
        self.0.as_ptr()
    }

    /// The page.
    ///
    /// # Safety
    ///
    /// The page is not given back to its slab, nor the slab dropped, while the reference lives:
    /// the caller holds a pin under which it found the page, or is the only one who retires pages,
    /// or has not shown the page to anybody.
    #[inline]
    pub(super) unsafe fn page<'p>(self) -> &'p Page {
        // SAFETY: slabs give out valid pages, and the caller promises that this one stays.
        unsafe { self.0.as_ref() }
    }
}
