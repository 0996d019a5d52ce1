//! The directory: from the top bits of a hash to the page.
//!
//! Two to the power of its depth pointers; a page of a lesser local depth is pointed at by a run of
//! neighbours. Pointers are exchanged in place; to double, the directory is replaced as a whole.

use std::ops::Range;

use super::hash::IndexHash;
use super::page::PagePtr;
use crate::reclaim::PROTECT;
use crate::sync::{AtomicPtr, Ordering};

pub(super) struct Directory {
    /// By how many bits a position is shifted to the right, so that its top `depth` bits are left.
    shift: u32,
    pointers: Box<[AtomicPtr<super::page::Page>]>,
}

impl Directory {
    /// A directory over pages of these local depths, in the order of their hashes.
    ///
    /// # Panics
    ///
    /// When the pages do not cover the hashes exactly.
    pub(super) fn new(pages: &[(u32, PagePtr)]) -> Directory {
        let depth = pages
            .iter()
            .map(|&(local_depth, _)| local_depth)
            .max()
            .unwrap_or(0);
        let pointers: Box<[_]> = pages
            .iter()
            .flat_map(|&(local_depth, page)| {
                (0..1_u64 << (depth - local_depth)).map(move |_| AtomicPtr::new(page.as_ptr()))
            })
            .collect();
        assert_eq!(
            pointers.len() as u64,
            1 << depth,
            "pages leave a gap or overlap"
        );
        Directory {
            shift: IndexHash::BITS - depth,
            pointers,
        }
    }

    /// Twice as deep, over the same pages.
    pub(super) fn doubled(&self) -> Directory {
        let twice = |pointer: &AtomicPtr<_>| {
            let page = pointer.load(Ordering::Relaxed);
            [AtomicPtr::new(page), AtomicPtr::new(page)]
        };
        Directory {
            shift: self.shift - 1,
            pointers: self.pointers.iter().flat_map(twice).collect(),
        }
    }

    pub(super) fn depth(&self) -> u32 {
        IndexHash::BITS - self.shift
    }

    pub(super) fn bytes(&self) -> usize {
        size_of_val(&*self.pointers)
    }

    /// The page that covers this hash.
    #[inline]
    pub(super) fn page(&self, hash: IndexHash) -> PagePtr {
        let at = (hash.position() >> self.shift) as usize;
        // SAFETY: positions are below 2^48, so the top `depth` bits are below 2^depth, which is
        // how many pointers there are (asserted by `new`, kept by `doubled`).
        let pointer = unsafe { self.pointers.get_unchecked(at) };
        // SAFETY: made of page addresses only, which are not null.
        unsafe { PagePtr::new(pointer.load(PROTECT)).unwrap_unchecked() }
    }

    /// Points the run of the page that covers this hash, of this local depth, at new pages: one
    /// for all, or one for each half.
    pub(super) fn set(&self, hash: IndexHash, local_depth: u32, pages: &[PagePtr]) {
        let run = self.run(hash, local_depth);
        let each = run.len() / pages.len();
        for (pointers, page) in self.pointers[run].chunks(each).zip(pages) {
            for pointer in pointers {
                pointer.store(page.as_ptr(), Ordering::Release);
            }
        }
    }

    fn run(&self, hash: IndexHash, local_depth: u32) -> Range<usize> {
        let len = 1_usize << (self.depth() - local_depth);
        let at = (hash.position() >> self.shift) as usize;
        let start = at & !(len - 1);
        start..start + len
    }
}
