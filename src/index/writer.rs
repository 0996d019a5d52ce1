//! The writing end of the index. There is one, and its methods take `&mut self`: that only one
//! thread at a time changes pages is checked when this is compiled.

use std::convert::Infallible;
use std::sync::Arc;

use super::chain::{Counts, Draft, Ledgers};
use super::directory::Directory;
use super::hash::{IndexHash, Trace};
use super::loading::{self, Loader, PartialIndex};
use super::page::{Page, PagePtr, Search};
use super::slot::{Candidate, Location, Word};
use super::{Index, find_from};
use crate::bugs::{Bug, is_planted};
use crate::sync::{AtomicU64, Ordering};

/// The directory may have one pointer for so many entries: a few times as many as even hashes
/// need, and a bound on what uneven ones can make of it.
const MIN_ENTRIES_PER_POINTER: usize = if cfg!(any(loom, shuttle)) { 1 } else { 256 };

/// Changes the index.
pub(crate) struct IndexWriter {
    index: Arc<Index>,
    ledgers: Ledgers,
}

/// A slot of a page.
#[derive(Clone, Copy)]
struct Place {
    page: PagePtr,
    position: usize,
}

impl IndexWriter {
    pub(super) fn new(index: Arc<Index>, ledgers: Ledgers) -> IndexWriter {
        let writer = IndexWriter { index, ledgers };
        writer.count_pages();
        writer
    }

    /// As [`Index::find`], without a pin: only the writer frees pages.
    pub(crate) fn find<R>(
        &self,
        hash: IndexHash,
        visit: impl FnMut(Candidate<'_>) -> Option<R>,
    ) -> Option<R> {
        find_from(self.look(self.first_page(hash)), hash, visit)
    }

    /// Sets the location of a key and gives the one before, if the key was there.
    ///
    /// # Errors
    ///
    /// Those of `is_same_key`; then nothing is changed.
    pub(crate) fn upsert<E>(
        &mut self,
        hash: IndexHash,
        location: Location,
        verified: bool,
        is_same_key: impl FnMut(Location) -> Result<bool, E>,
    ) -> Result<Option<Location>, E> {
        let word = Word::new(hash.tag(), location, verified);
        if let Some((place, old)) = self.locate(hash, is_same_key)? {
            word.write(self.slot(place), Ordering::Release);
            return Ok(Some(old.location()));
        }
        self.insert(hash, word);
        Ok(None)
    }

    /// Asks the processor to fetch the head of the page that a coming
    /// [`prefetch`](IndexWriter::prefetch) looks at. All heads lie at the same place of their pages,
    /// where they drive each other out of the caches.
    pub(crate) fn prefetch_head(&self, hash: IndexHash) {
        self.look(self.first_page(hash)).prefetch_head();
    }

    /// Asks the processor to fetch what a coming [`upsert`](IndexWriter::upsert) of a new key
    /// writes beside the bucket.
    pub(crate) fn prefetch(&mut self, hash: IndexHash) {
        let first = self.first_page(hash);
        self.ledgers.side_mut(first).prefetch(hash.home());
    }

    /// Removes a key and gives its location, if it was there.
    ///
    /// # Errors
    ///
    /// Those of `is_same_key`; then nothing is changed.
    pub(crate) fn remove<E>(
        &mut self,
        hash: IndexHash,
        is_same_key: impl FnMut(Location) -> Result<bool, E>,
    ) -> Result<Option<Location>, E> {
        let Some((place, old)) = self.locate(hash, is_same_key)? else {
            return Ok(None);
        };
        let word = self.look(place.page).word_for_removed(place.position);
        word.write(self.slot(place), Ordering::Release);
        let first = self.first_page(hash);
        let counts = self.ledgers.counts(first);
        counts.live -= 1;
        counts.used -= usize::from(word == Word::EMPTY);
        self.set_len(self.index.len() - 1);
        Ok(Some(old.location()))
    }

    /// Moves an entry, not yet verified in its new place, if it still points at `from`.
    pub(crate) fn relocate(&mut self, hash: IndexHash, from: Location, to: Location) -> bool {
        let is_it = |location| location == from || is_planted(Bug::MoveIndexUnconditionally);
        let Ok(found) = self.locate::<Infallible>(hash, |location| Ok(is_it(location)));
        let Some((place, _)) = found else {
            return false;
        };
        Word::new(hash.tag(), to, false).write(self.slot(place), Ordering::Release);
        true
    }

    /// What threads need to build parts of this index.
    pub(crate) fn loader(&self) -> Loader {
        Loader::new(Arc::clone(&self.index.slab))
    }

    /// Fills an empty index with the parts that its [`loader`](IndexWriter::loader) built.
    ///
    /// # Panics
    ///
    /// When the index is not empty, or the parts are not all partitions of one number of bits.
    pub(crate) fn assemble(&mut self, parts: Vec<PartialIndex>) {
        assert_eq!(self.index.len(), 0, "only an empty index is assembled");
        let old_pages = self.distinct_pages();
        let mut len = 0;
        let mut pages = Vec::new();
        for draft in loading::in_order(parts, &self.index.slab) {
            len += draft.live();
            pages.push((draft.local_depth(), self.ledgers.adopt(draft)));
        }
        self.index
            .directory
            .replace(Box::new(Directory::new(&pages)), &self.index.collector);
        for first in old_pages {
            self.retire(first);
        }
        self.set_len(len);
        self.count_pages();
    }

    fn locate<E>(
        &self,
        hash: IndexHash,
        mut is_same_key: impl FnMut(Location) -> Result<bool, E>,
    ) -> Result<Option<(Place, Word)>, E> {
        for page in self.chain(self.first_page(hash)) {
            let found = self
                .look(page)
                .search(hash.home(), hash.tag(), |position, _, word| {
                    if !word.is_live() {
                        return None;
                    }
                    match is_same_key(word.location()) {
                        Ok(true) => Some(Ok((Place { page, position }, word))),
                        Ok(false) => None,
                        Err(error) => Some(Err(error)),
                    }
                });
            match found {
                Search::Found(found) => return found.map(Some),
                Search::Absent => return Ok(None),
                Search::Full => {}
            }
        }
        Ok(None)
    }

    fn insert(&mut self, hash: IndexHash, word: Word) {
        let first = self.first_page(hash);
        let counts = *self.ledgers.counts(first);
        if counts.used >= counts.limit {
            self.make_room(hash, first);
        }
        let first = self.first_page(hash);
        let trace = Trace::of(hash);
        let free = self.chain(first).find_map(|page| {
            let position = self.look(page).free_position(trace.home())?;
            Some(Place { page, position })
        });
        let place = free.unwrap_or_else(|| self.extend(first, trace));
        self.ledgers.side_mut(place.page).set(place.position, trace);
        let slot = self.slot(place);
        let was_empty = Word::read(slot, Ordering::Relaxed) == Word::EMPTY;
        word.write(slot, Ordering::Release);
        let counts = self.ledgers.counts(first);
        counts.live += 1;
        counts.used += usize::from(was_empty);
        self.set_len(self.index.len() + 1);
    }

    /// Clears out or splits the chain, or lets it grow where neither would help.
    fn make_room(&mut self, hash: IndexHash, first: PagePtr) {
        let local_depth = self.look(first).local_depth();
        let counts = *self.ledgers.counts(first);
        if counts.clearing_pays() {
            let mut draft = Draft::new(&self.index.slab, local_depth);
            for (trace, word) in self.entries(first) {
                draft.place(&self.index.slab, trace, word);
            }
            self.exchange(hash, first, [draft]);
        } else if self.parts_at(first) < max_depth(self.index.len()) {
            let mut halves = [(); 2].map(|()| Draft::new(&self.index.slab, local_depth + 1));
            let lost = usize::from(is_planted(Bug::LoseSlotInGrowth));
            for (trace, word) in self.entries(first).skip(lost) {
                halves[usize::from(trace.bit(local_depth))].place(&self.index.slab, trace, word);
            }
            self.exchange(hash, first, halves);
        } else {
            // Not worth trying again soon.
            let counts = self.ledgers.counts(first);
            counts.limit = counts.used + (counts.used / 8).max(1);
        }
    }

    /// The least depth at which the entries of the chain do not all go the same way.
    fn parts_at(&self, first: PagePtr) -> u32 {
        let mut traces = self.entries(first).map(|(trace, _)| trace);
        let Some(one) = traces.next() else {
            return Trace::BITS;
        };
        traces
            .map(|other| one.parts_at(other))
            .min()
            .unwrap_or(Trace::BITS)
    }

    /// Puts new chains in the place of an old one: one for all of it, or one for each half.
    fn exchange<const N: usize>(&mut self, hash: IndexHash, old: PagePtr, new: [Draft; N]) {
        let local_depth = self.look(old).local_depth();
        let new = new.map(|draft| self.ledgers.adopt(draft));
        if N == 2 && local_depth == self.directory().depth() {
            let doubled = self.directory().doubled();
            doubled.set(hash, local_depth, &new);
            self.index
                .directory
                .replace(Box::new(doubled), &self.index.collector);
        } else {
            self.directory().set(hash, local_depth, &new);
        }
        self.retire(old);
        self.count_pages();
    }

    /// Adds an overflow page and gives the place in it for an entry.
    fn extend(&mut self, first: PagePtr, trace: Trace) -> Place {
        let last = self.chain(first).last().unwrap_or(first);
        let draft = Draft::new(&self.index.slab, self.look(first).local_depth());
        let page = self.ledgers.adopt_overflow(draft);
        self.look(last).set_overflow(Some(page));
        self.count_pages();
        let position = self
            .look(page)
            .free_position(trace.home())
            .expect("the page is empty");
        Place { page, position }
    }

    /// Gives the pages of a chain back to the slab once nobody can be looking at them.
    fn retire(&mut self, first: PagePtr) {
        let pages: Vec<PagePtr> = self.chain(first).collect();
        for &page in &pages {
            self.ledgers.remove(page);
        }
        let slab = Arc::clone(&self.index.slab);
        self.index.collector.retire_with(Box::new(move || {
            for page in pages {
                // SAFETY: the chain was taken out of the directory before it was retired, and
                // this runs once, after every pin that may have found it is gone.
                unsafe { slab.give_back(page) };
            }
        }));
    }

    fn distinct_pages(&self) -> Vec<PagePtr> {
        let mut pages = Vec::new();
        let mut position = 0;
        while position < Index::END {
            let first = self.first_page(IndexHash::at_position(position));
            pages.push(first);
            position += Index::END >> self.look(first).local_depth();
        }
        pages
    }

    fn entries(&self, first: PagePtr) -> impl Iterator<Item = (Trace, Word)> {
        self.chain(first).flat_map(move |page| {
            let side = self.ledgers.side(page);
            let entries = self.look(page).entries();
            entries.map(move |(position, word)| (side.get(position, word.tag()), word))
        })
    }

    fn chain(&self, first: PagePtr) -> impl Iterator<Item = PagePtr> {
        std::iter::successors(Some(first), |&page| self.look(page).overflow())
    }

    fn directory(&self) -> &Directory {
        // SAFETY: only the writer replaces the directory, by methods that take `&mut self`.
        unsafe { self.index.directory.load_unpinned() }
    }

    fn first_page(&self, hash: IndexHash) -> PagePtr {
        self.directory().page(hash)
    }

    #[expect(
        clippy::unused_self,
        reason = "the page may be looked at as long as `self` lives"
    )]
    fn look(&self, page: PagePtr) -> &Page {
        // SAFETY: pages that the writer finds are in the newest directory; only the writer retires
        // them, by methods that take `&mut self`, and the slab lives as long as `self`.
        unsafe { page.page() }
    }

    fn slot(&self, place: Place) -> &AtomicU64 {
        self.look(place.page).slot(place.position)
    }

    fn set_len(&self, len: usize) {
        self.index.counters.len.store(len, Ordering::Relaxed);
    }

    fn count_pages(&self) {
        self.index
            .counters
            .pages
            .store(self.ledgers.pages(), Ordering::Relaxed);
    }
}

/// How deep a directory over so many entries may be.
pub(super) fn max_depth(entries: usize) -> u32 {
    let pointers = (entries / MIN_ENTRIES_PER_POINTER)
        .max(1)
        .next_power_of_two();
    pointers.trailing_zeros().min(Trace::BITS)
}

const _: () = assert!(
    Counts::PAGE_LIMIT >= MIN_ENTRIES_PER_POINTER * 2,
    "a full page may split"
);
