//! The segments that a location can name, by their slot; readers look them up without a lock.
//!
//! Invariant: a slot is given to another segment only once no reader can still hold a location of
//! the one before.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use crate::disk::Disk;
use crate::error::{Error, Result};
use crate::index::Location;
use crate::reclaim::{Collector, Pin, SharedArc};
use crate::segment::Segment;

const CHUNK_LEN: usize = 1024;
const CHUNKS: usize = Location::MAX_SEGMENTS as usize / CHUNK_LEN;

/// A segment's place in the table: small and dense, used again, known only in memory.
pub(crate) type Slot = u32;

type Chunk<D> = Box<[SharedArc<Segment<D>>]>;

pub(crate) struct SegmentTable<D: Disk> {
    collector: Arc<Collector>,
    /// Chunks never move, so a reader needs no more than their address.
    chunks: Arc<[OnceLock<Chunk<D>>]>,
    free: Arc<Mutex<FreeSlots>>,
}

#[derive(Default)]
struct FreeSlots {
    returned: Vec<Slot>,
    /// Slots from here on were never used. Slot 0 neither: locations start at 1.
    next: Slot,
}

impl<D: Disk> SegmentTable<D> {
    pub(crate) fn new(collector: Arc<Collector>) -> SegmentTable<D> {
        let chunks = std::iter::repeat_with(OnceLock::new).take(CHUNKS).collect();
        let free = FreeSlots {
            returned: Vec::new(),
            next: 1,
        };
        SegmentTable {
            collector,
            chunks,
            free: Arc::new(Mutex::new(free)),
        }
    }

    /// The segment in a slot.
    #[inline]
    pub(crate) fn get<'p>(&'p self, pin: &'p Pin<'_>, slot: Slot) -> Option<&'p Segment<D>> {
        let slot = slot as usize;
        self.chunks.get(slot / CHUNK_LEN)?.get()?[slot % CHUNK_LEN].load(pin)
    }

    /// The segment in a slot, to be kept.
    pub(crate) fn get_arc(&self, pin: &Pin<'_>, slot: Slot) -> Option<Arc<Segment<D>>> {
        let slot = slot as usize;
        self.chunks.get(slot / CHUNK_LEN)?.get()?[slot % CHUNK_LEN].load_arc(pin)
    }

    fn cell(&self, slot: Slot) -> &SharedArc<Segment<D>> {
        cell(&self.chunks, slot)
    }

    /// Gives a segment a slot.
    ///
    /// # Errors
    ///
    /// When all half a million slots are taken.
    pub(crate) fn insert(&self, segment: Segment<D>) -> Result<Slot> {
        let slot = {
            let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
            match free.returned.pop() {
                Some(slot) => slot,
                None if free.next < Location::MAX_SEGMENTS => {
                    free.next += 1;
                    free.next - 1
                }
                None => return Err(Error::Exhausted { what: "segments" }),
            }
        };
        self.replace(slot, segment);
        Ok(slot)
    }

    /// Puts another reader of the same bytes in place of the one before.
    pub(crate) fn replace(&self, slot: Slot, segment: Segment<D>) {
        self.cell(slot)
            .replace(Some(Arc::new(segment)), &self.collector);
    }

    /// Takes a segment that the index no longer names out of its slot, once no reader can still
    /// have a location there: until then it must be found.
    pub(crate) fn remove(&self, slot: Slot) {
        let chunks = Arc::clone(&self.chunks);
        let free = Arc::clone(&self.free);
        // A collector that is being dropped has no readers left, and the table empties itself.
        let collector = Arc::downgrade(&self.collector);
        self.collector.retire_with(Box::new(move || {
            let Some(collector) = collector.upgrade() else {
                return;
            };
            cell(&chunks, slot).replace(None, &collector);
            free.lock()
                .unwrap_or_else(PoisonError::into_inner)
                .returned
                .push(slot);
        }));
    }
}

fn cell<D: Disk>(chunks: &[OnceLock<Chunk<D>>], slot: Slot) -> &SharedArc<Segment<D>> {
    let slot = slot as usize;
    let chunk = chunks[slot / CHUNK_LEN].get_or_init(|| {
        std::iter::repeat_with(SharedArc::default)
            .take(CHUNK_LEN)
            .collect()
    });
    &chunk[slot % CHUNK_LEN]
}
