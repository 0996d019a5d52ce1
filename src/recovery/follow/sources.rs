//! Where a follower's records are: the hints of the sealed segments, and the tail.
//!
//! Hints stay mapped as long as their segments are known: when a segment leaves the manifest they
//! say which keys it had. They are backed by their files and take no memory of their own, but for
//! the hints of segments whose hint file could not be used.

use std::collections::BTreeMap;

use super::News;
use super::changes::{Changes, Listed};
use super::tail::Tail;
use crate::disk::{Disk, Region};
use crate::error::Result;
use crate::format::hint::Hint;
use crate::format::manifest::{Manifest, SegmentState};
use crate::format::{SegmentId, SeqNo};
use crate::log::{Expiries, Log, Slot, Usage};
use crate::recovery::sealed::Opened;

/// A sealed segment.
pub(super) struct Known {
    pub(super) id: SegmentId,
    pub(super) data_len: u64,
    pub(super) hint: Hint<Region>,
}

pub(super) struct Sources<D: Disk> {
    sealed: BTreeMap<Slot, Known>,
    slots: BTreeMap<SegmentId, Slot>,
    tail: Option<(Slot, Tail<D>)>,
}

impl<D: Disk> Default for Sources<D> {
    fn default() -> Sources<D> {
        Sources {
            sealed: BTreeMap::new(),
            slots: BTreeMap::new(),
            tail: None,
        }
    }
}

pub(super) fn usage_of(id: SegmentId, data_len: u64, hint: &Hint<Region>) -> Usage {
    let tombstones = hint.entries(0..hint.len()).filter(|entry| entry.tombstone);
    Usage {
        data_len,
        sealed: true,
        records: hint.len() as u64,
        tombstone_bytes: tombstones.map(|entry| u64::from(entry.len)).sum(),
        expiries: Expiries::of(hint.earliest_expiry_ms(), || hint.entries(0..hint.len())),
        next_seq: hint.next_seq(),
        ..Usage::new(id)
    }
}

pub(super) fn usage_of_tail<D: Disk>(tail: &Tail<D>) -> Usage {
    Usage {
        data_len: tail.end(),
        records: tail.records(),
        tombstone_bytes: tail.tombstone_bytes(),
        expiries: tail.expiries(),
        ..Usage::new(tail.id())
    }
}

impl<D: Disk> Sources<D> {
    pub(super) fn add(&mut self, slot: Slot, known: Known) {
        self.slots.insert(known.id, slot);
        self.sealed.insert(slot, known);
    }

    fn remove(&mut self, slot: Slot) -> Option<Known> {
        let known = self.sealed.remove(&slot)?;
        self.slots.remove(&known.id);
        Some(known)
    }

    /// Whether this segment is known as sealed at this length.
    pub(super) fn is_known(&self, id: SegmentId, data_len: u64) -> bool {
        let known = self.slots.get(&id).and_then(|slot| self.sealed.get(slot));
        known.is_some_and(|known| known.data_len == data_len)
    }

    /// The sealed segments, with their slots.
    pub(super) fn sealed(&self) -> impl Iterator<Item = (Slot, &Known)> {
        self.sealed.iter().map(|(slot, known)| (*slot, known))
    }

    pub(super) fn sealed_in(&self, slot: Slot) -> Option<&Known> {
        self.sealed.get(&slot)
    }

    pub(super) fn tail(&self) -> Option<&Tail<D>> {
        self.tail.as_ref().map(|(_, tail)| tail)
    }

    pub(super) fn tail_mut(&mut self) -> Option<&mut Tail<D>> {
        self.tail.as_mut().map(|(_, tail)| tail)
    }

    pub(super) fn tail_slot(&self) -> Option<Slot> {
        self.tail.as_ref().map(|(slot, _)| *slot)
    }

    pub(super) fn set_tail(&mut self, slot: Slot, tail: Tail<D>) {
        self.tail = Some((slot, tail));
    }

    /// The number after the highest sequence number among what arrived.
    pub(super) fn next_seq(&self, changes: &Changes) -> SeqNo {
        let arrived = changes.arrived().iter();
        let sealed = arrived.filter_map(|slot| Some(self.sealed.get(slot)?.hint.next_seq()));
        let tail = self.tail().map(|tail| tail.fresh().next_seq());
        sealed.chain(tail).max().unwrap_or(SeqNo(0))
    }

    /// The index knows of everything in the tail.
    pub(super) fn settle(&mut self) {
        if let Some(tail) = self.tail_mut() {
            tail.settle();
        }
    }

    /// Gives what was found places in the table, and says what this changes for the index. Readers
    /// come to see it when the index does.
    ///
    /// # Errors
    ///
    /// When the table is full; then nothing has been done.
    pub(super) fn take_in(&mut self, news: News<D>, log: &mut Log<D>) -> Result<Changes> {
        let News {
            manifest,
            mut sealed,
            tail: new_tail,
        } = news;
        let is_same_manifest = manifest.generation == log.manifest().generation;
        // The segment that was the tail, sealed: its map takes the place of the buffer.
        let continued = self.tail().and_then(|tail| {
            let opened = sealed.get(&tail.id())?;
            let fits = tail.is_continued_by(&opened.segment, opened.data_len);
            fits.then_some(tail.id())
        });
        let continued = continued.and_then(|id| sealed.remove(&id));
        // What can fail comes first.
        let mut added = Vec::with_capacity(sealed.len());
        let new_tail = add_all(log, sealed, new_tail, &mut added).inspect_err(|_| {
            for (slot, _) in &added {
                log.let_go(*slot);
            }
        })?;
        let mut changes = Changes::default();
        if let Some((slot, mut tail)) = self.tail.take() {
            if let Some(opened) = continued {
                let (id, data_len, hint) = (tail.id(), opened.data_len, opened.hint);
                log.table().replace(slot, opened.segment);
                log.update_usage(slot, usage_of(id, data_len, &hint));
                added.push((slot, Known { id, data_len, hint }));
            } else if new_tail.is_none() && is_unsealed(&manifest, tail.id()) {
                if let Some(reader) = tail.take_moved() {
                    log.table().replace(slot, reader);
                }
                log.update_usage(slot, usage_of_tail(&tail));
                self.tail = Some((slot, tail));
            } else {
                // Replaced, or gone; records may have been taken back before it was sealed and
                // merged, and what they hid is to be seen again.
                let entries = Listed::Sorted(tail.summary(manifest.hasher));
                changes.leave(slot, entries, true);
            }
        }
        if !is_same_manifest {
            for slot in self.gone(&manifest) {
                if let Some(known) = self.remove(slot) {
                    changes.leave(slot, Listed::Hint(known.hint), false);
                }
            }
        }
        for (slot, known) in added {
            self.add(slot, known);
            changes.arrive(slot);
        }
        if new_tail.is_some() {
            self.tail = new_tail;
        }
        Ok(changes)
    }

    /// The slots of the sealed segments that the manifest does not name.
    fn gone(&self, manifest: &Manifest) -> Vec<Slot> {
        let is_named = |known: &Known| {
            let data_len = known.data_len;
            state_of(manifest, known.id) == Some(SegmentState::Sealed { data_len })
        };
        let gone = self.sealed.iter().filter(|(_, known)| !is_named(known));
        gone.map(|(slot, _)| *slot).collect()
    }
}

/// Puts new segments into the table; what was put there is in `added`, also after a failure.
fn add_all<D: Disk>(
    log: &mut Log<D>,
    sealed: BTreeMap<SegmentId, Opened<D>>,
    tail: Option<Tail<D>>,
    added: &mut Vec<(Slot, Known)>,
) -> Result<Option<(Slot, Tail<D>)>> {
    for (id, opened) in sealed {
        let (data_len, hint) = (opened.data_len, opened.hint);
        let slot = log.add_sealed(opened.segment, usage_of(id, data_len, &hint))?;
        added.push((slot, Known { id, data_len, hint }));
    }
    tail.map(|tail| Ok((log.add_sealed(tail.reader(), usage_of_tail(&tail))?, tail)))
        .transpose()
}

fn state_of(manifest: &Manifest, id: SegmentId) -> Option<SegmentState> {
    let segments = &manifest.segments;
    let found = segments.binary_search_by_key(&id, |(id, _)| *id).ok()?;
    Some(segments[found].1)
}

fn is_unsealed(manifest: &Manifest, id: SegmentId) -> bool {
    state_of(manifest, id).is_some_and(|state| !matches!(state, SegmentState::Sealed { .. }))
}
