//! Filling an empty index at once, by several threads: each builds parts of it from entries in the
//! order of their hashes, and the writer puts the parts together.

use std::sync::Arc;

use super::chain::Draft;
use super::hash::{IndexHash, Trace};
use super::page::SLOTS;
use super::slab::Slab;
use super::slot::{Location, Word};
use super::writer::max_depth;

/// Pages are loaded to at most 82 percent, so that they are not split by the next few writes.
const MAX_LOAD: usize = SLOTS * 82 / 100;

/// Into how many partitions, as a power of two, to divide the hashes of so many entries, so that
/// each fills one page or, where hashes are dense, two or three. Rounded down: partitions that are
/// too small leave pages half empty.
pub(crate) fn partition_bits(total_entries: usize) -> u32 {
    let pages = total_entries.div_ceil(MAX_LOAD).max(1);
    pages.ilog2().min(Trace::BITS)
}

/// Builds parts of one index; threads may share it.
#[derive(Clone)]
pub(crate) struct Loader {
    slab: Arc<Slab>,
}

/// The entries of one partition of the hashes.
pub(crate) struct PartialIndex {
    partition: u32,
    partition_bits: u32,
    drafts: Vec<Draft>,
    slab: Arc<Slab>,
}

impl Loader {
    pub(super) fn new(slab: Arc<Slab>) -> Loader {
        Loader { slab }
    }

    /// Builds the part for the hashes of one [partition](IndexHash::partition). Takes
    /// sixteen bytes of memory for each entry while it builds.
    ///
    /// # Panics
    ///
    /// When a hash is of another partition, or the hashes do not ascend. Equal hashes may follow
    /// each other: they are of different keys.
    pub(crate) fn build(
        &self,
        partition: u32,
        partition_bits: u32,
        entries: impl Iterator<Item = (IndexHash, Location)>,
    ) -> PartialIndex {
        assert!(
            partition_bits <= Trace::BITS,
            "{partition_bits} partition bits are too many"
        );
        let entries: Vec<_> = entries.collect();
        let ascend = entries.is_sorted_by_key(|&(hash, _)| hash);
        assert!(ascend, "the hashes of partition {partition} do not ascend");
        for (hash, _) in entries.first().into_iter().chain(entries.last()) {
            let own = hash.partition(partition_bits);
            assert_eq!(own, partition, "a hash of another partition");
        }
        let deepest = partition_bits + max_depth(entries.len());
        let mut part = PartialIndex {
            partition,
            partition_bits,
            drafts: Vec::new(),
            slab: Arc::clone(&self.slab),
        };
        part.fill(partition_bits, deepest.min(Trace::BITS), &entries);
        part
    }
}

impl PartialIndex {
    fn fill(&mut self, depth: u32, deepest: u32, entries: &[(IndexHash, Location)]) {
        if entries.len() > MAX_LOAD && parts_at(entries) < deepest {
            let middle = entries.partition_point(|&(hash, _)| !Trace::of(hash).bit(depth));
            self.fill(depth + 1, deepest, &entries[..middle]);
            self.fill(depth + 1, deepest, &entries[middle..]);
            return;
        }
        let mut draft = Draft::new(&self.slab, depth);
        for &(hash, location) in entries {
            let word = Word::new(hash.tag(), location, false);
            draft.place(&self.slab, Trace::of(hash), word);
        }
        self.drafts.push(draft);
    }
}

/// The least depth at which these entries, which ascend, do not all go the same way.
fn parts_at(entries: &[(IndexHash, Location)]) -> u32 {
    match (entries.first(), entries.last()) {
        (Some(&(first, _)), Some(&(last, _))) => Trace::of(first).parts_at(Trace::of(last)),
        _ => Trace::BITS,
    }
}

/// The chains of all parts, in the order of their hashes.
///
/// # Panics
///
/// When the parts are not all partitions of one number of bits, or were built for another index.
pub(super) fn in_order(mut parts: Vec<PartialIndex>, slab: &Arc<Slab>) -> Vec<Draft> {
    parts.sort_unstable_by_key(|part| part.partition);
    let bits = parts.first().map_or(0, |part| part.partition_bits);
    assert_eq!(
        parts.len() as u64,
        1 << bits,
        "a part is missing, or there is one too many"
    );
    for (partition, part) in (0..).zip(&parts) {
        assert_eq!(
            (part.partition, part.partition_bits),
            (partition, bits),
            "not the parts of one"
        );
        assert!(Arc::ptr_eq(&part.slab, slab), "a part of another index");
    }
    parts.into_iter().flat_map(|part| part.drafts).collect()
}
