//! Pages as their writer sees them: a page and its overflow pages, what is known of each entry's
//! hash, and new chains being filled before any reader sees them.

use super::hash::Trace;
use super::page::{PagePtr, SLOTS, SLOTS_PER_BUCKET, fetch};
use super::slab::Slab;
use super::slot::Word;
use crate::sync::Ordering;

/// The side array of a page: what its entries' tags do not say of their hashes.
pub(super) struct Side(Box<[[u8; 3]]>);

impl Side {
    pub(super) const BYTES: usize = SLOTS * size_of::<[u8; 3]>();

    fn new() -> Side {
        Side(vec![[0; 3]; SLOTS].into_boxed_slice())
    }

    /// Asks the processor to fetch what belongs to a bucket.
    pub(super) fn prefetch(&self, home: usize) {
        fetch(&self.0[home * SLOTS_PER_BUCKET]);
    }

    pub(super) fn set(&mut self, position: usize, trace: Trace) {
        self.0[position] = trace.pack();
    }

    pub(super) fn get(&self, position: usize, tag: u16) -> Trace {
        Trace::unpack(self.0[position], tag)
    }
}

/// A chain that no reader sees yet: entries are put in, none is taken out.
///
/// Dropping a draft leaves its pages to the slab, which frees them when it goes.
pub(super) struct Draft {
    pages: Vec<(PagePtr, Side)>,
    live: usize,
}

impl Draft {
    pub(super) fn new(slab: &Slab, local_depth: u32) -> Draft {
        let mut draft = Draft {
            pages: Vec::with_capacity(1),
            live: 0,
        };
        draft.add_page(slab, local_depth);
        draft
    }

    pub(super) fn place(&mut self, slab: &Slab, trace: Trace, word: Word) {
        // All pages before the last one are full: nothing is ever taken out.
        if self.live == self.pages.len() * SLOTS {
            let local_depth = self.local_depth();
            self.add_page(slab, local_depth);
        }
        let (page, side) = self.pages.last_mut().expect("a draft has a page");
        // SAFETY: nobody else knows the page.
        let page = unsafe { page.page() };
        let position = page
            .free_position(trace.home())
            .expect("the last page has room");
        side.set(position, trace);
        // Readers come through a pointer that is published after this.
        word.write(page.slot(position), Ordering::Relaxed);
        self.live += 1;
    }

    pub(super) fn first(&self) -> PagePtr {
        self.pages[0].0
    }

    pub(super) fn local_depth(&self) -> u32 {
        // SAFETY: nobody else knows the page.
        unsafe { self.first().page() }.local_depth()
    }

    pub(super) fn live(&self) -> usize {
        self.live
    }

    pub(super) fn into_pages(self) -> Vec<(PagePtr, Side)> {
        self.pages
    }

    fn add_page(&mut self, slab: &Slab, local_depth: u32) {
        let added = slab.allocate();
        // SAFETY: nobody else knows the page.
        unsafe { added.page() }.set_local_depth(local_depth);
        if let Some((last, _)) = self.pages.last() {
            // SAFETY: as above.
            unsafe { last.page() }.set_overflow(Some(added));
        }
        self.pages.push((added, Side::new()));
    }
}

/// What the writer knows of a page.
pub(super) struct Ledger {
    pub(super) side: Side,
    /// The counts of its chain, if this is the chain's first page.
    pub(super) counts: Counts,
}

#[derive(Clone, Copy, Default)]
pub(super) struct Counts {
    pub(super) live: usize,
    /// Live and DELETED.
    pub(super) used: usize,
    /// How many may be used before the chain is split or rebuilt.
    pub(super) limit: usize,
}

impl Counts {
    /// A page is split before searches in it grow long: at seven slots of eight.
    pub(super) const PAGE_LIMIT: usize = SLOTS * 7 / 8;

    /// Whether so many are DELETED that clearing them out gives room for long: one in five. The
    /// next rebuilding is then hundreds of writes away.
    pub(super) fn clearing_pays(self) -> bool {
        self.live * 5 < self.used * 4
    }
}

/// The ledgers of all pages that readers can reach, by page number.
#[derive(Default)]
pub(super) struct Ledgers {
    by_number: Vec<Option<Ledger>>,
    pages: usize,
}

impl Ledgers {
    /// How much memory a page costs outside of its slab.
    pub(super) const BYTES_PER_PAGE: usize = Side::BYTES + size_of::<Option<Ledger>>();

    /// Enters the pages of a draft and gives the first.
    pub(super) fn adopt(&mut self, draft: Draft) -> PagePtr {
        let first = draft.first();
        let live = draft.live();
        let mut counts = Counts {
            live,
            used: live,
            limit: Counts::PAGE_LIMIT,
        };
        for (page, side) in draft.into_pages() {
            self.insert(page, Ledger { side, counts });
            counts = Counts::default();
        }
        first
    }

    /// Enters an empty overflow page.
    pub(super) fn adopt_overflow(&mut self, draft: Draft) -> PagePtr {
        let first = draft.first();
        for (page, side) in draft.into_pages() {
            self.insert(
                page,
                Ledger {
                    side,
                    counts: Counts::default(),
                },
            );
        }
        first
    }

    pub(super) fn remove(&mut self, page: PagePtr) {
        self.by_number[number(page)] = None;
        self.pages -= 1;
    }

    pub(super) fn side(&self, page: PagePtr) -> &Side {
        &self.by_number[number(page)].as_ref().expect(IN_REACH).side
    }

    pub(super) fn side_mut(&mut self, page: PagePtr) -> &mut Side {
        &mut self.by_number[number(page)].as_mut().expect(IN_REACH).side
    }

    /// The counts of the chain that begins with this page.
    pub(super) fn counts(&mut self, first: PagePtr) -> &mut Counts {
        &mut self.by_number[number(first)]
            .as_mut()
            .expect(IN_REACH)
            .counts
    }

    pub(super) fn pages(&self) -> usize {
        self.pages
    }

    fn insert(&mut self, page: PagePtr, ledger: Ledger) {
        let number = number(page);
        if number >= self.by_number.len() {
            self.by_number.resize_with(number + 1, || None);
        }
        self.by_number[number] = Some(ledger);
        self.pages += 1;
    }
}

const IN_REACH: &str = "every page in reach has a ledger";

fn number(page: PagePtr) -> usize {
    // SAFETY: only the writer, who owns the ledgers, retires pages, and asks before it does.
    unsafe { page.page() }.number()
}
