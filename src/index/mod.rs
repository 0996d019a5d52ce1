//! From key hash to location, in memory.
//!
//! Extendible hashing: a [directory](directory) of pointers, indexed by the top bits of the hash,
//! over fixed-size [pages](page), in which an entry is found by a few more bits. A page that is full
//! is split in two, and that is the most a write ever pays for growth (with, seldom, a copy of the
//! directory's pointers). Eleven bytes a slot, eight of them on the path of a read.
//!
//! Promises: readers take no lock and write no shared memory, but for the one bit that says that
//! a record was verified. Each key by itself is linearizable. An entry is a key's location and
//! thirty-nine bits of its hash: thirty at the top, nine for its home bucket.
//!
//! Owns: slots, pages, and their memory. Does not know: files, keys, values. Whether a candidate is
//! the key, its caller says, by a closure. Memory is not given back when entries are removed; it is
//! used for other entries.
//!
//! How readers and the one [writer](writer) keep out of each other's way:
//!
//! 1. A slot is one word, so an entry is seen whole. A key's new location goes to its old slot.
//! 2. Inside a page nothing moves. To split or clear a page, new pages are made of it while it
//!    is left as it is; then the directory points at them; then the old one is
//!    [retired](crate::reclaim). So a reader in an old page sees the moment before the split.
//! 3. The same goes for the directory, when it is doubled.

mod chain;
mod directory;
mod glance;
mod hash;
mod loading;
mod page;
mod slab;
mod slot;
mod stretch;
mod writer;

#[cfg(all(test, loom))]
mod loom_tests;
#[cfg(all(test, not(any(loom, shuttle))))]
mod tests;

use std::sync::Arc;

use self::chain::{Draft, Ledgers};
use self::directory::Directory;
use self::page::{Page, Search};
use self::slab::Slab;
use crate::reclaim::{Collector, Pin, Shared};
use crate::sync::{AtomicUsize, Ordering};

pub(crate) use self::hash::IndexHash;
pub(crate) use self::loading::partition_bits;
pub(crate) use self::slot::{Candidate, Listed, Location, Trust};
pub(crate) use self::writer::IndexWriter;

/// The reading end of the index.
pub(crate) struct Index {
    directory: Shared<Directory>,
    collector: Arc<Collector>,
    slab: Arc<Slab>,
    counters: Counters,
}

/// On a line of their own: every write changes them, and readers must not miss for that.
#[repr(align(128))]
#[derive(Default)]
struct Counters {
    len: AtomicUsize,
    pages: AtomicUsize,
}

impl Index {
    /// The position beyond all hashes, see [`page_at`](Index::page_at).
    pub(crate) const END: u64 = 1 << IndexHash::BITS;

    /// An empty index, and its one writer.
    pub(crate) fn new(collector: Arc<Collector>) -> (Arc<Index>, IndexWriter) {
        let slab = Arc::new(Slab::new());
        let mut ledgers = Ledgers::default();
        let first = ledgers.adopt(Draft::new(&slab, 0));
        let index = Arc::new(Index {
            directory: Shared::new(Box::new(Directory::new(&[(0, first)]))),
            collector,
            slab,
            counters: Counters::default(),
        });
        let writer = IndexWriter::new(Arc::clone(&index), ledgers);
        (index, writer)
    }

    /// Calls `visit` for the entries that may be this key's, until it gives something.
    #[inline]
    pub(crate) fn find<R>(
        &self,
        pin: &Pin<'_>,
        hash: IndexHash,
        visit: impl FnMut(Candidate<'_>) -> Option<R>,
    ) -> Option<R> {
        find_from(self.page(pin, hash), hash, visit)
    }

    /// The candidate that [`find`](Index::find) would come across first, or now and then none that it
    /// would visit: for one hash in 32,768 it may be no entry at all, with a location that no
    /// segment has.
    ///
    /// Most often it is the key, and whoever finds out that it is not asks `find`: so this is no loop.
    #[inline]
    pub(crate) fn first<'p>(&'p self, pin: &'p Pin<'_>, hash: IndexHash) -> Option<Candidate<'p>> {
        let page = self.page(pin, hash);
        match page.first_at_home(hash.home(), hash.tag()) {
            Search::Found((slot, word)) => Some(Candidate::new(slot, word)),
            Search::Absent => None,
            Search::Full => first_elsewhere(page, hash),
        }
    }

    /// Asks the processor to fetch what [`find`](Index::find) will look at first.
    #[inline]
    pub(crate) fn prefetch(&self, pin: &Pin<'_>, hash: IndexHash) {
        self.page(pin, hash).prefetch(hash.home());
    }

    /// Where this key's record most likely is, so that it can be fetched too; for certainty there
    /// is [`find`](Index::find).
    #[inline]
    pub(crate) fn first_match(&self, pin: &Pin<'_>, hash: IndexHash) -> Option<Location> {
        match self.page(pin, hash).first_at_home(hash.home(), hash.tag()) {
            Search::Found((_, word)) if word.is_live() => Some(word.location()),
            _ => None,
        }
    }

    /// Calls `visit` with every entry whose hash is in the page that covers `position`, and gives the
    /// position after that page: begin at 0, go on until [`END`](Index::END).
    ///
    /// Entries that are there throughout come exactly once in such a walk, whatever is split
    /// meanwhile. Hashes below `position` may come, too, if it was not given by this function.
    pub(crate) fn page_at(
        &self,
        pin: &Pin<'_>,
        position: u64,
        mut visit: impl FnMut(Listed),
    ) -> u64 {
        if position >= Self::END {
            return Self::END;
        }
        let mut page = self.page(pin, IndexHash::at_position(position));
        let page_span = Self::END >> page.local_depth();
        loop {
            page.entries()
                .for_each(|(_, word)| visit(Listed::new(word)));
            match page.overflow() {
                // SAFETY: found under the pin, from a page that was found under it.
                Some(next) => page = unsafe { next.page() },
                None => return (position / page_span + 1) * page_span,
            }
        }
    }

    /// How many entries there are.
    pub(crate) fn len(&self) -> usize {
        self.counters.len.load(Ordering::Relaxed)
    }

    /// How much memory the index takes: pages as far as the system backs them with memory, side
    /// arrays, directory.
    pub(crate) fn memory_bytes(&self) -> usize {
        let side_bytes = self.counters.pages.load(Ordering::Relaxed) * Ledgers::BYTES_PER_PAGE;
        let directory_bytes = self.directory.load(&self.collector.pin()).bytes();
        self.slab.touched_bytes() + side_bytes + directory_bytes
    }

    #[inline]
    fn page<'p>(&'p self, pin: &'p Pin<'_>, hash: IndexHash) -> &'p Page {
        let page = self.directory.load(pin).page(hash);
        // SAFETY: found under the pin, in a directory that was found under it: the page is retired
        // only after it was taken out of the newest directory, and who still holds an older one
        // was pinned then.
        unsafe { page.page() }
    }
}

#[inline]
fn find_from<'p, R>(
    mut page: &'p Page,
    hash: IndexHash,
    mut visit: impl FnMut(Candidate<'p>) -> Option<R>,
) -> Option<R> {
    loop {
        let found = page.search(hash.home(), hash.tag(), |_, slot, word| {
            visit(Candidate::new(slot, word))
        });
        match found {
            Search::Found(found) => return Some(found),
            Search::Absent => return None,
            // SAFETY: the caller may look at `page`, by a pin or as the writer, and the same holds
            // for its overflow page: a chain is retired as a whole.
            Search::Full => page = unsafe { page.overflow()?.page() },
        }
    }
}

/// The first candidate, if it is not in its home bucket.
#[inline(never)]
fn first_elsewhere(page: &Page, hash: IndexHash) -> Option<Candidate<'_>> {
    find_from(page, hash, Some)
}
