//! What has to change in the index of a follower, and the change itself.
//!
//! Segments arrive (sealed ones, with their hints), the tail has grown, segments leave. All their
//! entries are gone through in the order of their hashes, a part of the hashes at a time, so that
//! memory stays bounded. For each hash:
//!
//! 1. A record that leaves in one segment and arrives in another was moved by a merge: its
//!    sequence number says that it is the same. The index follows, if it points there.
//! 2. Records with sequence numbers that were not applied before are news: the highest of each key
//!    is what counts. Older ones that arrive are copies: they say nothing new, and are never
//!    inserted, since their key may have been deleted, or overwritten, since.
//! 3. What the index still points at in a leaving segment is of a key that was deleted, or has
//!    expired, and was compacted away together with its tombstone.
//!
//! In this order, so that readers meet a key that is there throughout, and no older value after a
//! newer one: an entry goes from one place to the next by one store, and is removed only when
//! nothing else is to stand for the key.
//!
//! A tail that left may have had records that its writer took back. What they hid is looked for in
//! everything there is.
//!
//! All of it can be done again: it comes to the same.

use std::collections::BTreeMap;

use super::sources::Sources;
use super::tail::Tail;
use crate::bugs::{Bug, is_planted};
use crate::disk::{Disk, Region};
use crate::error::Result;
use crate::format::hint::{Hint, HintEntry};
use crate::format::{KeyHash, KeyHasher, SeqNo};
use crate::index::{IndexWriter, Location, partition_bits};
use crate::log::{Log, SegmentTable, Slot};
use crate::reclaim::{Collector, Pin};
use crate::recovery::load::{first_of, len_of, newest_by_key, with_record};
use crate::segment::hint::Summary;

/// Entries, sorted by hash and sequence number.
pub(super) enum Listed {
    Hint(Hint<Region>),
    Sorted(Summary),
}

/// A segment that is not part of the store any more.
struct Leaving {
    entries: Listed,
    /// Whether it may have records that never came to be part of the store, and hid older ones.
    uncovers: bool,
}

#[derive(Default)]
pub(super) struct Changes {
    arrived: Vec<Slot>,
    leaving: BTreeMap<Slot, Leaving>,
}

/// An entry on its way in or out.
#[derive(Clone, Copy)]
struct Step {
    entry: HintEntry,
    slot: Slot,
    /// Out before in, of the same record.
    way: Way,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Way {
    Out,
    In,
}

impl Step {
    fn location(&self) -> Location {
        Location::new(self.slot, self.entry.offset)
    }
}

impl Listed {
    fn len(&self) -> usize {
        match self {
            Listed::Hint(hint) => hint.len(),
            Listed::Sorted(summary) => summary.len(),
        }
    }

    /// Adds the entries with hashes from `low` to before `high`.
    fn collect(&self, low: u64, high: u64, add: impl FnMut(HintEntry)) {
        match self {
            Listed::Hint(hint) => collect_hint(hint, low, high, add),
            Listed::Sorted(summary) => summary.within(low, high).for_each(add),
        }
    }

    /// The entry of this hash at this offset.
    fn at(&self, hash: KeyHash, offset: u64) -> Option<HintEntry> {
        let mut found = None;
        self.collect(hash.get(), hash.get() + 1, |entry| {
            if entry.offset == offset {
                found = Some(entry);
            }
        });
        found
    }
}

fn collect_hint(hint: &Hint<Region>, low: u64, high: u64, add: impl FnMut(HintEntry)) {
    let range = hint.lower_bound(low)..hint.lower_bound(high);
    hint.entries(range).for_each(add);
}

impl Changes {
    /// A sealed segment is new, or the tail has become one.
    pub(super) fn arrive(&mut self, slot: Slot) {
        self.arrived.push(slot);
    }

    /// A segment is no longer part of the store.
    pub(super) fn leave(&mut self, slot: Slot, entries: Listed, uncovers: bool) {
        self.leaving.insert(slot, Leaving { entries, uncovers });
    }

    pub(super) fn arrived(&self) -> &[Slot] {
        &self.arrived
    }

    /// The slots of the segments that leave.
    pub(super) fn leaving(&self) -> impl Iterator<Item = Slot> {
        self.leaving.keys().copied()
    }

    /// Changes the index and the accounting.
    ///
    /// # Errors
    ///
    /// When a record cannot be read that must be compared. Some changes have been made then; they
    /// can be made again.
    pub(super) fn make<D: Disk>(
        &self,
        sources: &Sources<D>,
        applied: SeqNo,
        index: &mut IndexWriter,
        log: &mut Log<D>,
        collector: &Collector,
    ) -> Result<()> {
        let fresh = sources.tail_slot().zip(sources.tail().map(Tail::fresh));
        let hints = self.arrived.iter().filter_map(|slot| {
            let known = sources.sealed_in(*slot)?;
            Some((*slot, &known.hint))
        });
        let hints: Vec<_> = hints.collect();
        let arriving: usize = hints.iter().map(|(_, hint)| hint.len()).sum();
        let leaving: usize = (self.leaving.values())
            .map(|leaving| leaving.entries.len())
            .sum();
        let bits = partition_bits(arriving + fresh.map_or(0, |(_, fresh)| fresh.len()) + leaving);
        let table = log.table().clone();
        let hasher = log.manifest().hasher;
        let mut steps = Vec::new();
        for number in 0..1_u32 << bits {
            let (low, high) = (first_of(number, bits), first_of(number + 1, bits));
            steps.clear();
            let step = |slot, way| move |entry| Step { entry, slot, way };
            for (slot, leaving) in &self.leaving {
                let step = step(*slot, Way::Out);
                let add = |entry| steps.push(step(entry));
                leaving.entries.collect(low, high, add);
            }
            for (slot, hint) in &hints {
                let step = step(*slot, Way::In);
                collect_hint(hint, low, high, |entry| steps.push(step(entry)));
            }
            if let Some((slot, fresh)) = fresh {
                steps.extend(fresh.within(low, high).map(step(slot, Way::In)));
            }
            steps.sort_unstable_by_key(|step| (step.entry.hash, step.entry.seq, step.way));
            let pin = collector.pin();
            let mut making = Making {
                eyes: Eyes {
                    changes: self,
                    sources,
                    table: &table,
                    pin: &pin,
                    hasher,
                },
                index,
                log,
            };
            for group in steps.chunk_by(|a, b| a.entry.hash == b.entry.hash) {
                making.settle(group, applied)?;
            }
        }
        Ok(())
    }
}

/// What is looked at to make changes.
struct Eyes<'a, D: Disk> {
    changes: &'a Changes,
    sources: &'a Sources<D>,
    table: &'a SegmentTable<D>,
    pin: &'a Pin<'a>,
    hasher: KeyHasher,
}

/// The changes of a part of the hashes, being made.
struct Making<'a, D: Disk> {
    eyes: Eyes<'a, D>,
    index: &'a mut IndexWriter,
    log: &'a mut Log<D>,
}

impl<D: Disk> Eyes<'_, D> {
    /// The length of the record there if its key has this hash.
    fn len_if(&self, hash: KeyHash, at: Location) -> Result<Option<usize>> {
        let (slot, offset) = (at.segment_slot(), at.offset());
        let entry = match (
            self.changes.leaving.get(&slot),
            self.sources.sealed_in(slot),
        ) {
            (Some(leaving), _) => leaving.entries.at(hash, offset),
            (None, Some(known)) => known.hint.find(hash).find(|entry| entry.offset == offset),
            // The tail, which is all in memory.
            (None, None) => {
                return with_record(self.table, self.pin, slot, offset, |record| {
                    (self.hasher.hash(record.key()) == hash).then(|| record.len())
                });
            }
        };
        entry.map(|entry| self.len_of(slot, &entry)).transpose()
    }

    fn len_of(&self, slot: Slot, entry: &HintEntry) -> Result<usize> {
        len_of(self.table, self.pin, entry, slot)
    }

    fn has_key(&self, at: Location, key: &[u8]) -> Result<bool> {
        let same = |record: &crate::format::record::Record<'_>| record.key() == key;
        with_record(self.table, self.pin, at.segment_slot(), at.offset(), same)
    }

    /// Every record of a hash that there is now, in the order of their sequence numbers. The tail
    /// is all news when this is asked.
    fn all_of(&self, hash: KeyHash) -> Vec<(HintEntry, Slot)> {
        let mut all = Vec::new();
        for (slot, known) in self.sources.sealed() {
            all.extend(known.hint.find(hash).map(|entry| (entry, slot)));
        }
        if let (Some(slot), Some(tail)) = (self.sources.tail_slot(), self.sources.tail()) {
            let entries = tail.fresh().within(hash.get(), hash.get() + 1);
            all.extend(entries.map(|entry| (entry, slot)));
        }
        all.sort_unstable_by_key(|(entry, _)| entry.seq);
        all
    }
}

impl<D: Disk> Making<'_, D> {
    /// Makes the changes of one hash.
    fn settle(&mut self, group: &[Step], applied: SeqNo) -> Result<()> {
        let hash = group[0].entry.hash;
        let mut gone = Vec::new();
        let mut uncovered = false;
        for record in group.chunk_by(|a, b| a.entry.seq == b.entry.seq) {
            let Some(out) = record.iter().find(|step| step.way == Way::Out) else {
                continue;
            };
            let copy = record.iter().find(|step| step.way == Way::In);
            if out.entry.tombstone {
                // The index shows no trace of what it hid.
                uncovered |= copy.is_none() && self.uncovers(out.slot);
                continue;
            }
            // An expired record arrives as a tombstone.
            match copy.filter(|copy| !copy.entry.tombstone) {
                Some(copy) => self.relocate(hash, out, copy)?,
                None if self.points_at(hash, out.location()) => {
                    uncovered |= self.uncovers(out.slot);
                    gone.push(*out);
                }
                None => {}
            }
        }
        let takes_all = is_planted(Bug::FollowerTakesCopyForNews);
        let is_news =
            |step: &&Step| step.way == Way::In && (step.entry.seq >= applied || takes_all);
        let news = group.iter().filter(is_news);
        let news: Vec<_> = news.map(|step| (step.entry, step.slot)).collect();
        if uncovered {
            let all = self.eyes.all_of(hash);
            self.replace_all(hash, &all)?;
        } else if news.iter().any(|(entry, _)| entry.collides) {
            for (key, newest) in newest_by_key(self.eyes.table, self.eyes.pin, &news)? {
                self.set(hash, &key, &newest)?;
            }
        } else if let Some(newest) = news.last() {
            // When it was written, no other key of this hash had a value.
            self.replace_all(hash, std::slice::from_ref(newest))?;
        }
        for out in gone {
            let is_it = |other| Ok(other == out.location());
            if let Some(old) = self.index.remove(hash.into(), is_it)? {
                self.count_out(old, self.eyes.len_of(out.slot, &out.entry)?);
            }
        }
        Ok(())
    }

    fn uncovers(&self, slot: Slot) -> bool {
        let leaving = self.eyes.changes.leaving.get(&slot);
        leaving.is_some_and(|leaving| leaving.uncovers)
    }

    fn points_at(&self, hash: KeyHash, location: Location) -> bool {
        let same = |candidate: crate::index::Candidate<'_>| {
            (candidate.location() == location).then_some(())
        };
        self.index.find(hash.into(), same).is_some()
    }

    /// Follows a record that was moved, if the index points at it.
    fn relocate(&mut self, hash: KeyHash, out: &Step, copy: &Step) -> Result<()> {
        let len = self.eyes.len_of(copy.slot, &copy.entry)?;
        let (from, to) = (out.location(), copy.location());
        if self.index.relocate(hash.into(), from, to) {
            self.count_out(from, len);
            self.count_in(to, len);
        }
        Ok(())
    }

    /// Makes these the only keys of a hash: the newest of each, of entries in the order of their
    /// sequence numbers.
    fn replace_all(&mut self, hash: KeyHash, entries: &[(HintEntry, Slot)]) -> Result<()> {
        let mut kept = Vec::new();
        if entries.iter().any(|(entry, _)| entry.collides) {
            for (key, newest) in newest_by_key(self.eyes.table, self.eyes.pin, entries)? {
                kept.extend(self.set(hash, &key, &newest)?);
            }
        } else if let Some((entry, slot)) = entries.last().filter(|(entry, _)| !entry.tombstone) {
            let to = Location::new(*slot, entry.offset);
            let len = self.eyes.len_of(*slot, entry)?;
            // It may be there in its place already, beside another one that would be replaced.
            if !self.points_at(hash, to) {
                let mut old_len = 0;
                let eyes = &self.eyes;
                let same_hash = |at| -> Result<bool> {
                    let found = eyes.len_if(hash, at)?;
                    old_len = found.unwrap_or(old_len);
                    Ok(found.is_some())
                };
                let old = self.index.upsert(hash.into(), to, false, same_hash)?;
                if let Some(old) = old {
                    self.count_out(old, old_len);
                }
                self.count_in(to, len);
            }
            kept.push(to);
        }
        loop {
            let mut old_len = 0;
            let eyes = &self.eyes;
            let is_other = |at| -> Result<bool> {
                if kept.contains(&at) {
                    return Ok(false);
                }
                let found = eyes.len_if(hash, at)?;
                old_len = found.unwrap_or(old_len);
                Ok(found.is_some())
            };
            match self.index.remove(hash.into(), is_other)? {
                Some(old) => self.count_out(old, old_len),
                None => return Ok(()),
            }
        }
    }

    /// Gives a key its newest record; where the index points then, if it is a put.
    fn set(
        &mut self,
        hash: KeyHash,
        key: &[u8],
        (entry, slot): &(HintEntry, Slot),
    ) -> Result<Option<Location>> {
        let mut old_len = 0;
        let eyes = &self.eyes;
        let same_key = |at| -> Result<bool> {
            let Some(len) = eyes.len_if(hash, at)? else {
                return Ok(false);
            };
            old_len = len;
            eyes.has_key(at, key)
        };
        let (old, new) = if entry.tombstone {
            (self.index.remove(hash.into(), same_key)?, None)
        } else {
            let to = Location::new(*slot, entry.offset);
            let old = self.index.upsert(hash.into(), to, false, same_key)?;
            (old, Some(to))
        };
        if let Some(old) = old {
            self.count_out(old, old_len);
        }
        if let Some(new) = new {
            let len = self.eyes.len_of(*slot, entry)?;
            self.count_in(new, len);
        }
        Ok(new)
    }

    fn count_in(&mut self, location: Location, len: usize) {
        if let Some(usage) = self.log.usage_mut(location.segment_slot()) {
            usage.add_live(len);
        }
    }

    fn count_out(&mut self, location: Location, len: usize) {
        if let Some(usage) = self.log.usage_mut(location.segment_slot()) {
            usage.remove_live(len);
        }
    }
}
