//! Walking the index a little at a time, without anything that must be kept in between: where the
//! walk has come to is one number, a *place*.
//!
//! The order of the walk is that of the pages, and in a page that of the entries' home buckets. A
//! place is the lowest hash of the page with the home that is next. An entry's home is a part of its hash, so neither what is put or removed meanwhile nor a page that
//! is made anew changes on which side of a place an entry is. Only when a page is split while the
//! walk is inside does an entry of its second half change sides, and always to where the walk has
//! yet to come: then it comes once more.

use std::cell::Cell;
use std::ops::Range;

use super::page::BUCKETS;
use super::slot::{Location, Word};
use super::{Index, IndexHash};
use crate::reclaim::Pin;

/// The entries whose homes are some neighbouring buckets of a page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stretch {
    homes: Range<usize>,
    /// The place after it, [`Index::END`] at the end of the walk.
    pub(crate) next: u64,
}

impl Stretch {
    /// Whether the entry of a hash is one of it. It lies among others'.
    pub(crate) fn has(&self, hash: IndexHash) -> bool {
        self.homes.contains(&hash.home())
    }
}

impl Index {
    /// Adds to `out` the locations of a stretch's entries, and of others that lie between: whose
    /// they are, the records say. The stretch begins at `place` and has at least so many entries,
    /// unless its page has fewer from there on. Begin at 0, go on from [`Stretch::next`].
    ///
    /// Any number is a place; those that this function did not give are some place or other.
    pub(crate) fn stretch_at(
        &self,
        pin: &Pin<'_>,
        place: u64,
        at_least: usize,
        out: &mut Vec<Location>,
    ) -> Stretch {
        if place >= Self::END {
            return Stretch {
                homes: 0..0,
                next: Self::END,
            };
        }
        let from = IndexHash::at_position(place);
        let home = from.home();
        let page = self.page(pin, from);
        let enough = out.len() + at_least;
        let count = Cell::new(out.len());
        let mut visit = |word: Word| {
            out.push(word.location());
            count.set(out.len());
        };
        let end = page.entries_in(home..BUCKETS, &mut visit, || count.get() >= enough);
        if let Some(end) = end.filter(|end| *end < BUCKETS) {
            return Stretch {
                homes: home..end,
                next: from.with_home(end).position(),
            };
        }
        // Entries with homes at the end of the page can lie at its beginning, and in other pages
        // if it is full.
        if end.is_none() && page.entries_in(0..home, &mut visit, || true).is_none() {
            let mut overflow = page.overflow();
            while let Some(next) = overflow {
                // SAFETY: found under the pin, from a page that was found under it.
                let page = unsafe { next.page() };
                page.entries().for_each(|(_, word)| visit(word));
                overflow = page.overflow();
            }
        }
        let page_span = Self::END >> page.local_depth();
        Stretch {
            homes: home..BUCKETS,
            next: (place / page_span + 1) * page_span,
        }
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
pub(super) mod tests {
    use std::collections::HashMap;

    use super::super::tests::{SEVERAL_PAGES, even, key_at, mix, new_index, put, remove};
    use super::*;

    /// All locations, sorted, a stretch at a time.
    pub(in crate::index) fn walk_stretches(
        index: &Index,
        pin: &Pin<'_>,
        at_least: usize,
        hash: impl Fn(u64) -> IndexHash,
    ) -> Vec<Location> {
        let (mut all, mut place) = (Vec::new(), 0);
        while place < Index::END {
            let mut some = Vec::new();
            let stretch = index.stretch_at(pin, place, at_least, &mut some);
            all.extend(some.iter().filter(|at| stretch.has(hash(key_at(**at)))));
            place = stretch.next;
        }
        all.sort_unstable();
        all
    }

    #[test]
    #[cfg_attr(miri, ignore = "slow")]
    fn a_walk_by_stretches_meets_what_stays_while_pages_split_and_are_made_anew() {
        let (collector, index, mut writer) = new_index();
        let stays = |key: u64| key % 2 == 0;
        for key in (0..SEVERAL_PAGES).filter(|key| stays(*key)) {
            put(&mut writer, even(key), key, 0);
        }
        let mut met = HashMap::new();
        let (mut place, mut step) = (0, 0);
        while place < Index::END {
            // What comes and goes splits pages, and leaves DELETED slots.
            for _ in 0..40 {
                let key = (mix(step) % (4 * SEVERAL_PAGES)) | 1;
                if step % 4 == 0 {
                    remove(&mut writer, even(key), key);
                } else {
                    put(&mut writer, even(key), key, 1);
                }
                step += 1;
            }
            let pin = collector.pin();
            let mut some = Vec::new();
            let stretch = index.stretch_at(&pin, place, 10, &mut some);
            for key in some.into_iter().map(key_at) {
                if stays(key) && stretch.has(even(key)) {
                    *met.entry(key).or_insert(0) += 1;
                }
            }
            place = stretch.next;
        }
        assert_eq!(met.len() as u64, SEVERAL_PAGES / 2);
        let twice = met.values().filter(|count| **count > 1).count() as u64;
        assert!(twice < SEVERAL_PAGES / 4, "{twice} keys were met again");
    }

    #[test]
    fn any_number_is_a_place() {
        let (collector, index, mut writer) = new_index();
        put(&mut writer, even(1), 1, 0);
        let pin = collector.pin();
        for place in [
            0,
            1,
            0x3_ffff,
            0x4_0000,
            Index::END - 1,
            Index::END,
            u64::MAX,
        ] {
            let mut some = Vec::new();
            let stretch = index.stretch_at(&pin, place, 10, &mut some);
            assert!(stretch.next > place || stretch.next == Index::END);
            assert!(stretch.next <= Index::END);
        }
    }
}
