//! Where pages come from: big anonymous maps that huge pages can back, so that a random lookup
//! does not pay for a TLB miss on top of its cache miss.
//!
//! Pages come back from whichever thread let go of them last, without a lock; they are used again
//! before new ones are carved. Memory goes back to the system only with the slab.

use std::sync::PoisonError;

use super::page::{PAGE_BYTES, Page, PagePtr};
use crate::sync::{AtomicUsize, Mutex, Ordering};

#[cfg(not(any(loom, shuttle)))]
pub(super) use mapped::Slab;
#[cfg(any(loom, shuttle))]
pub(super) use modelled::Slab;

#[cfg(not(any(loom, shuttle)))]
mod mapped {
    use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
    use std::ptr;

    use memmap2::MmapMut;

    use super::{AtomicUsize, Mutex, Ordering, PAGE_BYTES, Page, PagePtr, PoisonError};
    use crate::sync::AtomicPtr;

    const HUGE_PAGE_BYTES: usize = 2 * 1024 * 1024;
    const MIN_CHUNK_BYTES: usize = HUGE_PAGE_BYTES;
    /// The first chunk is ordinary memory: the index of a small store needs an empty page, and the
    /// one that it is loaded into, and a map would cost more to make than to fill. Pages keep to
    /// their own size there, too, so that they touch no more of the system's pages than in a map.
    const FIRST_CHUNK_BYTES: usize = 2 * PAGE_BYTES;
    const MAX_CHUNK_BYTES: usize = 64 * 1024 * 1024;
    /// A new chunk is this part of what there is, within the bounds: few maps. And huge pages are
    /// asked for once one of them is no more than this part: little slack, and a small store stays
    /// small, which finds its pages in the TLB anyway.
    const CHUNK_FRACTION: usize = 8;

    /// The pages of one index.
    pub(in super::super) struct Slab {
        carving: Mutex<Carving>,
        /// The pages that came back since the last look, linked by their overflow pointers.
        returned: AtomicPtr<Page>,
        touched_bytes: AtomicUsize,
    }

    struct Carving {
        chunks: Vec<Chunk>,
        /// How many bytes of the last chunk are carved.
        carved_bytes: usize,
        total_bytes: usize,
        pages: u32,
        free: Vec<PagePtr>,
    }

    struct Chunk {
        /// Aligned to a page of the index; in a map, to a huge page.
        base: *mut u8,
        bytes: usize,
        /// How much of the chunk the system backs at a time.
        touch_bytes: usize,
        backing: Backing,
    }

    enum Backing {
        Map {
            _map: MmapMut,
        },
        /// Of the first chunk, and when the system refuses another map.
        Heap {
            layout: Layout,
        },
    }

    // SAFETY: a chunk owns its memory, which nothing ties to a thread.
    unsafe impl Send for Chunk {}

    impl Slab {
        pub(in super::super) fn new() -> Slab {
            Slab {
                carving: Mutex::new(Carving {
                    chunks: Vec::new(),
                    carved_bytes: 0,
                    total_bytes: 0,
                    pages: 0,
                    free: Vec::new(),
                }),
                returned: AtomicPtr::new(ptr::null_mut()),
                touched_bytes: AtomicUsize::new(0),
            }
        }

        /// An empty page.
        ///
        /// Aborts the process, as other allocations do, when there is no memory.
        pub(in super::super) fn allocate(&self) -> PagePtr {
            let mut carving = self.carving.lock().unwrap_or_else(PoisonError::into_inner);
            if carving.free.is_empty() {
                self.collect_returned(&mut carving.free);
            }
            let used = carving.free.pop();
            let page = used.unwrap_or_else(|| self.carve(&mut carving));
            drop(carving);
            // SAFETY: the page came back, so nobody looks at it, or it is new; its header is valid.
            let number = unsafe { page.page() }.number();
            // Of a new page, too, which is zeros already: entries are placed by reading first, and the
            // system would map its page of zeros, then copy it at the write, and tell all other
            // processors each time.
            // SAFETY: as above: it is ours alone, and zeros are a valid page.
            unsafe { ptr::write_bytes(page.as_ptr(), 0, 1) };
            // SAFETY: as above.
            unsafe { page.page() }.set_number(number as u32);
            page
        }

        /// Takes a page back.
        ///
        /// # Safety
        ///
        /// The page is from this slab, is given back once, and nobody looks at it any more.
        pub(in super::super) unsafe fn give_back(&self, page: PagePtr) {
            let mut head = self.returned.load(Ordering::Relaxed);
            loop {
                // SAFETY: the caller gives the page to us alone.
                unsafe { page.page() }.set_overflow(PagePtr::new(head));
                // The whole list is taken at once, so there is no ABA.
                match self.returned.compare_exchange_weak(
                    head,
                    page.as_ptr(),
                    Ordering::Release,
                    Ordering::Relaxed,
                ) {
                    Ok(_) => return,
                    Err(other) => head = other,
                }
            }
        }

        /// How much memory is in use, counted in what the system backs at a time.
        pub(in super::super) fn touched_bytes(&self) -> usize {
            self.touched_bytes.load(Ordering::Relaxed)
        }

        fn collect_returned(&self, free: &mut Vec<PagePtr>) {
            let mut next = PagePtr::new(self.returned.swap(ptr::null_mut(), Ordering::Acquire));
            while let Some(page) = next {
                // SAFETY: pages on the list came back, and the swap made them ours.
                next = unsafe { page.page() }.overflow();
                free.push(page);
            }
        }

        fn carve(&self, carving: &mut Carving) -> PagePtr {
            let full = carving
                .chunks
                .last()
                .is_none_or(|c| carving.carved_bytes == c.bytes);
            if full {
                let chunk = Chunk::after(carving.total_bytes);
                carving.total_bytes += chunk.bytes;
                carving.carved_bytes = 0;
                carving.chunks.push(chunk);
            }
            let chunk = &carving.chunks[carving.chunks.len() - 1];
            if carving.carved_bytes % chunk.touch_bytes == 0 {
                self.touched_bytes
                    .fetch_add(chunk.touch_bytes, Ordering::Relaxed);
            }
            #[expect(clippy::cast_ptr_alignment, reason = "chunks are aligned to pages")]
            // SAFETY: chunks are whole pages and this one is not full, so it stays inside.
            let page = unsafe { chunk.base.add(carving.carved_bytes) }.cast::<Page>();
            carving.carved_bytes += PAGE_BYTES;
            let page = PagePtr::new(page).expect("chunks do not begin at address zero");
            // SAFETY: nobody else knows the page; it is zeros, which are valid, and aligned, as
            // the chunk is.
            unsafe { page.page() }.set_number(carving.pages);
            carving.pages += 1;
            page
        }
    }

    impl Chunk {
        /// The next chunk, for a slab that has so much.
        fn after(total_bytes: usize) -> Chunk {
            if total_bytes == 0 {
                return Chunk::on_heap(FIRST_CHUNK_BYTES);
            }
            let bytes = (total_bytes / CHUNK_FRACTION)
                .next_multiple_of(HUGE_PAGE_BYTES)
                .clamp(MIN_CHUNK_BYTES, MAX_CHUNK_BYTES);
            let huge = total_bytes >= CHUNK_FRACTION * HUGE_PAGE_BYTES;
            Chunk::mapped(bytes, huge).unwrap_or_else(|| Chunk::on_heap(MIN_CHUNK_BYTES))
        }

        /// A chunk in a map; `None` if the system refuses it.
        fn mapped(bytes: usize, huge: bool) -> Option<Chunk> {
            // Room to begin at a huge page's address; never touched, so it costs no memory.
            let mut map = MmapMut::map_anon(bytes + HUGE_PAGE_BYTES).ok()?;
            let skipped = map.as_ptr().align_offset(HUGE_PAGE_BYTES);
            let huge = huge && advise_huge(&map, skipped, bytes);
            Some(Chunk {
                // In bounds: less than one huge page is skipped.
                base: map[skipped..][..bytes].as_mut_ptr(),
                bytes,
                touch_bytes: if huge { HUGE_PAGE_BYTES } else { PAGE_BYTES },
                backing: Backing::Map { _map: map },
            })
        }

        fn on_heap(bytes: usize) -> Chunk {
            let layout = Layout::from_size_align(bytes, PAGE_BYTES)
                .expect("a chunk's layout is a constant and valid");
            // SAFETY: the size is not zero.
            let base = unsafe { alloc_zeroed(layout) };
            if base.is_null() {
                handle_alloc_error(layout);
            }
            Chunk {
                base,
                bytes,
                touch_bytes: PAGE_BYTES,
                backing: Backing::Heap { layout },
            }
        }
    }

    impl Drop for Chunk {
        fn drop(&mut self) {
            if let Backing::Heap { layout } = self.backing {
                // SAFETY: `base` is what the allocator gave for this layout; whoever drops the
                // slab has nobody looking at its pages.
                unsafe { dealloc(self.base, layout) };
            }
        }
    }

    #[cfg(target_os = "linux")]
    fn advise_huge(map: &MmapMut, offset: usize, len: usize) -> bool {
        map.advise_range(memmap2::Advice::HugePage, offset, len)
            .is_ok()
    }

    #[cfg(not(target_os = "linux"))]
    fn advise_huge(_map: &MmapMut, _offset: usize, _len: usize) -> bool {
        false
    }

    #[cfg(test)]
    mod tests {
        use super::*;
        use crate::index::slot::{Location, Word};

        #[test]
        fn pages_come_back_empty_under_their_number() {
            let slab = Slab::new();
            let first = slab.allocate();
            let second = slab.allocate();
            // SAFETY: nobody gave the page back.
            let page = unsafe { first.page() };
            assert_eq!(page.number(), 0);
            page.set_local_depth(3);
            page.set_overflow(Some(second));
            Word::new(1, Location::new(1, 8), false).write(page.slot(77), Ordering::Relaxed);
            // SAFETY: nobody looks at them any more.
            unsafe {
                slab.give_back(first);
                slab.give_back(second);
            }
            let again = [slab.allocate(), slab.allocate()];
            assert!(again.contains(&first) && again.contains(&second));
            // SAFETY: nobody gave the page back.
            let page = unsafe { first.page() };
            assert_eq!(page.entries().count(), 0);
            assert_eq!((page.number(), page.local_depth()), (0, 0));
            assert!(page.overflow().is_none());
        }

        #[test]
        fn a_small_slab_touches_only_its_pages_and_a_big_one_little_more() {
            let slab = Slab::new();
            slab.allocate();
            assert_eq!(slab.touched_bytes(), 32 * 1024);
            for _ in 1..1000 {
                let page = slab.allocate();
                assert_eq!(page.as_ptr() as usize % 32768, 0);
            }
            let used = 1000 * 32 * 1024;
            assert!((used..=used + HUGE_PAGE_BYTES).contains(&slab.touched_bytes()));
        }
    }
}

#[cfg(any(loom, shuttle))]
mod modelled {
    use super::*;

    /// Boxes that are never used again, so that loom and shuttle see whoever looks at one too late.
    pub(in super::super) struct Slab {
        pages: Mutex<Vec<PagePtr>>,
        touched_bytes: AtomicUsize,
    }

    impl Slab {
        pub(in super::super) fn new() -> Slab {
            Slab {
                pages: Mutex::default(),
                touched_bytes: AtomicUsize::new(0),
            }
        }

        pub(in super::super) fn allocate(&self) -> PagePtr {
            let page = Page::boxed();
            let mut pages = self.pages.lock().unwrap_or_else(PoisonError::into_inner);
            page.set_number(pages.len() as u32);
            let page = PagePtr::new(Box::into_raw(page)).expect("boxes are not null");
            pages.push(page);
            drop(pages);
            self.touched_bytes.fetch_add(PAGE_BYTES, Ordering::Relaxed);
            page
        }

        /// # Safety
        ///
        /// As for the mapped slab.
        pub(in super::super) unsafe fn give_back(&self, page: PagePtr) {
            // SAFETY: the page is kept until the slab goes.
            unsafe { page.page() }.mark_reclaimed();
        }

        pub(in super::super) fn touched_bytes(&self) -> usize {
            self.touched_bytes.load(Ordering::Relaxed)
        }
    }

    impl Drop for Slab {
        fn drop(&mut self) {
            for page in self
                .pages
                .get_mut()
                .unwrap_or_else(PoisonError::into_inner)
                .drain(..)
            {
                // SAFETY: made by `Box::into_raw`, once; whoever drops the slab has nobody
                // looking at its pages.
                drop(unsafe { Box::from_raw(page.as_ptr()) });
            }
        }
    }
}
