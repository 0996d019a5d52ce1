//! Which records of a segment go on, told from its hint file: the data is read only where it is
//! copied. A segment of which nothing goes on is not read at all.
//!
//! What does not go on:
//!
//! - a put that the index does not point at,
//! - a tombstone, once no segment outside the merge can hold an older put of its key,
//! - an expired put, under the same condition; otherwise it goes on as a tombstone, since it still
//!   hides what is older.

use std::collections::BTreeMap;

use super::merge::Surroundings;
use crate::bugs::{Bug, is_planted};
use crate::disk::{Disk, Region};
use crate::error::Result;
use crate::format::hint::{Hint, HintEntry};
use crate::format::manifest::History;
use crate::format::record::Record;
use crate::format::{ALIGNMENT, KeyHash, SegmentId};
use crate::index::Location;
use crate::log::Slot;
use crate::segment::Segment;

/// What looking at an entry counts for, in bytes of work.
const WORK_PER_ENTRY: u64 = 32;

/// What asking a segment's hint for a hash counts for: about an eighth of a microsecond, at the
/// speed at which a mebibyte is copied.
const WORK_PER_QUESTION: u64 = 8;

/// An index entry whose record has expired, with the record's length.
#[derive(Clone, Copy)]
pub(crate) struct Expired {
    pub(crate) hash: KeyHash,
    pub(crate) location: Location,
    pub(crate) len: usize,
}

/// What becomes of a segment's records.
#[derive(Default)]
pub(crate) struct Plan {
    /// Records that are copied, or go on as tombstones.
    pub(crate) kept: Offsets,
    /// Those of them that have expired: only their tombstones go on.
    pub(crate) expired: Offsets,
    pub(crate) kept_records: u64,
    /// About how long the kept records are.
    pub(crate) kept_bytes: u64,
    pub(crate) dropped: Dropped,
    /// Segments that hold what a kept tombstone hides, one for each tombstone, with how many bytes
    /// of records are kept for their sake.
    pub(crate) hidden_in: BTreeMap<SegmentId, u64>,
}

/// What a merge drops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Dropped {
    pub(crate) records: u64,
    /// What the history of changes loses with them.
    pub(crate) history: History,
}

impl Default for Dropped {
    fn default() -> Dropped {
        Dropped {
            records: 0,
            history: History::WHOLE,
        }
    }
}

impl Dropped {
    pub(crate) fn add(&mut self, other: &Dropped) {
        self.records += other.records;
        self.history.note_all(other.history);
    }
}

/// Goes through a hint and makes a plan of it.
pub(crate) struct Planner {
    hint: Hint<Region>,
    next: usize,
    plan: Plan,
}

impl Planner {
    pub(crate) fn new(hint: Hint<Region>) -> Planner {
        Planner {
            hint,
            next: 0,
            plan: Plan::default(),
        }
    }

    /// Goes on until about `budget` bytes of work are done; gives how much it was.
    pub(crate) fn advance<D: Disk>(
        &mut self,
        slot: Slot,
        segment: &Segment<D>,
        around: &impl Surroundings<D>,
        budget: u64,
    ) -> Result<u64> {
        let (mut gone, mut work) = (Vec::new(), 0);
        for entry in self.hint.entries(self.next..self.hint.len()) {
            let location = Location::new(slot, entry.offset);
            let len = match entry.len {
                0 => segment.with_record(entry.offset, |record: &Record<'_>| record.len())?,
                len => len as usize,
            };
            let asked = &mut 0;
            if self
                .plan
                .decide(&entry, segment, location, len, around, asked)
            {
                gone.push(Expired {
                    hash: entry.hash,
                    location,
                    len,
                });
            }
            // A tombstone may be a question to each of thousands of segments.
            work += WORK_PER_ENTRY + *asked * WORK_PER_QUESTION;
            self.next += 1;
            if work >= budget {
                break;
            }
        }
        around.forget(&gone);
        Ok(work)
    }

    /// The plan, once everything was looked at.
    pub(crate) fn finished(&mut self) -> Option<Plan> {
        (self.next == self.hint.len()).then(|| std::mem::take(&mut self.plan))
    }
}

impl Plan {
    /// Decides about one record; tells whether the index is to forget it, for it has expired.
    fn decide<D: Disk>(
        &mut self,
        entry: &HintEntry,
        segment: &Segment<D>,
        location: Location,
        len: usize,
        around: &impl Surroundings<D>,
        asked: &mut u64,
    ) -> bool {
        let is_live = !entry.tombstone && around.is_live(entry.hash, location);
        // Also where the index has forgotten it: an earlier merge may have been given up.
        let is_expired = !entry.tombstone && around.has_expired(entry.expires_at_ms);
        if is_live && !is_expired {
            self.keep(entry, len);
        } else if entry.tombstone || is_expired {
            let hidden_in = around.hides_in(entry.hash, entry.seq, asked);
            let drops = if is_expired {
                is_planted(Bug::DropExpiredInMiddleMerge)
            } else {
                is_planted(Bug::DropTombstoneInMiddleMerge)
            };
            if let Some(segment) = hidden_in.filter(|_| !drops) {
                *self.hidden_in.entry(segment).or_default() += len as u64;
                self.keep(entry, len);
                if is_expired {
                    self.expired.insert(entry.offset);
                    self.dropped.history.note_dropped(entry.seq);
                }
            } else {
                self.drop_record(entry);
                // A tombstone whose key was put again nobody misses: the newer record is there.
                if !around.is_replaced(entry.hash, segment, location) {
                    self.dropped.history.note_deletion_dropped(entry.seq);
                }
            }
        } else {
            self.drop_record(entry);
        }
        is_live && is_expired
    }

    fn keep(&mut self, entry: &HintEntry, len: usize) {
        self.kept.insert(entry.offset);
        self.kept_records += 1;
        self.kept_bytes += len as u64;
    }

    fn drop_record(&mut self, entry: &HintEntry) {
        self.dropped.records += 1;
        self.dropped.history.note_dropped(entry.seq);
    }
}

/// A set of record offsets in a segment: a bit for each place where a record can begin, up to the
/// last that is in it. So what is dropped takes no memory.
#[derive(Default)]
pub(crate) struct Offsets {
    words: Vec<u64>,
}

impl Offsets {
    fn insert(&mut self, offset: u64) {
        let place = offset / ALIGNMENT as u64;
        let at = (place / 64) as usize;
        if self.words.len() <= at {
            self.words.resize(at + 1, 0);
        }
        self.words[at] |= 1 << (place % 64);
    }

    pub(crate) fn contains(&self, offset: u64) -> bool {
        let place = offset / ALIGNMENT as u64;
        let word = self.words.get((place / 64) as usize);
        word.is_some_and(|word| word >> (place % 64) & 1 == 1)
    }

    /// The first offset at or after `from`.
    pub(crate) fn next_from(&self, from: u64) -> Option<u64> {
        let place = from.div_ceil(ALIGNMENT as u64);
        let mut at = (place / 64) as usize;
        let mut word = self.words.get(at)? & (u64::MAX << (place % 64));
        while word == 0 {
            at += 1;
            word = *self.words.get(at)?;
        }
        let place = at as u64 * 64 + u64::from(word.trailing_zeros());
        Some(place * ALIGNMENT as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_come_in_ascending_order() {
        let mut offsets = Offsets::default();
        for offset in [4088, 64, 72, 512] {
            offsets.insert(offset);
        }
        let mut found = Vec::new();
        let mut from = 0;
        while let Some(offset) = offsets.next_from(from) {
            found.push(offset);
            from = offset + 8;
        }
        assert_eq!(found, [64, 72, 512, 4088]);
        assert!(offsets.contains(72) && !offsets.contains(80));
        assert_eq!(Offsets::default().next_from(0), None);
    }
}
