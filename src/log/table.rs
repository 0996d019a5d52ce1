//! The segments that a location can name, by their slot; readers look them up without a lock.
//!
//! Invariant: a slot is given to another segment only once no reader can still hold a location of
//! the one before.

use std::sync::{Arc, PoisonError};

use crate::disk::{Disk, Region};
use crate::error::{Error, Result};
use crate::index::Location;
use crate::reclaim::{Collector, Held, Pin, SharedArc};
use crate::segment::Segment;
use crate::sync::Mutex;

const CHUNK_LEN: usize = if cfg!(shuttle) { 4 } else { 1024 };
const CHUNKS: usize = MAX_SLOTS as usize / CHUNK_LEN;

/// How many slots there are: as many as a location can name. Shuttle's tests need few, and make
/// them all anew for each schedule.
const MAX_SLOTS: Slot = if cfg!(shuttle) {
    64
} else {
    Location::MAX_SEGMENTS
};

/// A segment's place in the table: small and dense, used again, known only in memory.
pub(crate) type Slot = u32;

/// Places for something of each slot. Chunks of them never move, so a reader needs no more than
/// their address; all lengths are fixed, so it has nothing to compare.
struct Places<T> {
    chunks: [SharedArc<Chunk<T>>; CHUNKS],
}

type Chunk<T> = [SharedArc<T>; CHUNK_LEN];

/// Clones are the same table.
pub(crate) struct SegmentTable<D: Disk> {
    collector: Arc<Collector>,
    places: Arc<SegmentPlaces<D>>,
    free: Arc<Mutex<FreeSlots>>,
}

/// A segment, and again its bytes if they can be read in place: what most lookups need.
struct SegmentPlaces<D: Disk> {
    segments: Places<Segment<D>>,
    regions: Places<Region>,
}

#[derive(Default)]
struct FreeSlots {
    returned: Vec<Slot>,
    /// Slots from here on were never used.
    next: Slot,
}

/// Slot 0 is never used: locations start at 1.
const FIRST_SLOT: Slot = 1;

impl<D: Disk> Clone for SegmentTable<D> {
    fn clone(&self) -> SegmentTable<D> {
        SegmentTable {
            collector: Arc::clone(&self.collector),
            places: Arc::clone(&self.places),
            free: Arc::clone(&self.free),
        }
    }
}

impl<D: Disk> SegmentTable<D> {
    pub(crate) fn new(collector: Arc<Collector>) -> SegmentTable<D> {
        let free = FreeSlots {
            returned: Vec::new(),
            next: FIRST_SLOT,
        };
        SegmentTable {
            collector,
            places: Arc::new(SegmentPlaces {
                segments: Places::new(),
                regions: Places::new(),
            }),
            free: Arc::new(Mutex::new(free)),
        }
    }

    /// The segment in a slot.
    #[inline]
    pub(crate) fn get<'p>(&'p self, pin: &'p Pin<'_>, slot: Slot) -> Option<&'p Segment<D>> {
        self.places.segments.get(pin, slot)?.load(pin)
    }

    /// The bytes of the segment in a slot, if they can be read in place.
    #[inline]
    pub(crate) fn region<'p>(&'p self, pin: &'p Pin<'_>, slot: Slot) -> Option<Held<'p, Region>> {
        self.places.regions.get(pin, slot)?.hold(pin)
    }

    /// The segment in a slot, to be kept.
    pub(crate) fn get_arc(&self, pin: &Pin<'_>, slot: Slot) -> Option<Arc<Segment<D>>> {
        Some(self.places.segments.get(pin, slot)?.hold(pin)?.share())
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
                None if free.next < MAX_SLOTS => {
                    let slot = free.next;
                    // Under the lock, so that nobody else makes the same places. Nothing may be
                    // pinned here: what a pin has kept back may wait for the lock when it goes.
                    if slot == FIRST_SLOT || slot as usize % CHUNK_LEN == 0 {
                        self.places.regions.make(slot, &self.collector);
                        self.places.segments.make(slot, &self.collector);
                    }
                    free.next += 1;
                    slot
                }
                None => return Err(Error::Exhausted { what: "segments" }),
            }
        };
        self.replace(slot, segment);
        Ok(slot)
    }

    /// Puts another reader of the same bytes in place of the one before.
    pub(crate) fn replace(&self, slot: Slot, segment: Segment<D>) {
        self.places
            .put(slot, Some(Arc::new(segment)), &self.collector);
    }

    /// Takes a segment that the index no longer names out of its slot, once no reader can still
    /// have a location there: until then it must be found.
    pub(crate) fn remove(&self, slot: Slot) {
        let places = Arc::clone(&self.places);
        let free = Arc::clone(&self.free);
        // A collector that is being dropped has no readers left, and the table empties itself.
        let collector = Arc::downgrade(&self.collector);
        self.collector.retire_with(Box::new(move || {
            let Some(collector) = collector.upgrade() else {
                return;
            };
            places.put(slot, None, &collector);
            free.lock()
                .unwrap_or_else(PoisonError::into_inner)
                .returned
                .push(slot);
        }));
    }
}

impl<T> Places<T> {
    fn new() -> Places<T> {
        Places {
            chunks: std::array::from_fn(|_| SharedArc::default()),
        }
    }

    #[inline]
    fn get<'p>(&'p self, pin: &'p Pin<'_>, slot: Slot) -> Option<&'p SharedArc<T>> {
        let slot = slot as usize;
        let chunk = self.chunks[slot / CHUNK_LEN % CHUNKS].load(pin)?;
        Some(&chunk[slot % CHUNK_LEN])
    }
}

impl<T: Send + Sync + 'static> Places<T> {
    /// Makes the places of this slot and those after it, which were never used.
    fn make(&self, slot: Slot, collector: &Collector) {
        let places: Chunk<T> = std::array::from_fn(|_| SharedArc::default());
        self.chunks[slot as usize / CHUNK_LEN].replace(Some(Arc::new(places)), collector);
    }

    /// Puts something in a place that is there.
    fn put(&self, slot: Slot, value: Option<Arc<T>>, collector: &Collector) {
        let pin = collector.pin();
        let place = self.get(&pin, slot);
        let place =
            place.unwrap_or_else(|| unreachable!("a slot's place is made before it is used"));
        place.replace(value, collector);
    }
}

impl<D: Disk> SegmentPlaces<D> {
    fn put(&self, slot: Slot, segment: Option<Arc<Segment<D>>>, collector: &Collector) {
        let region = segment
            .as_ref()
            .and_then(|segment| segment.region().cloned());
        self.regions.put(slot, region, collector);
        self.segments.put(slot, segment, collector);
    }
}
