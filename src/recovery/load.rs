//! Hint files to index: the newest record of every key, found by merging the hints by hash.
//!
//! The hash space is cut into partitions, filled by several threads. In a partition the entries
//! of all segments are sorted by hash and sequence number; the last of a hash is the newest, and
//! no record needs to be looked at. Only where keys share a hash do the keys decide: a record
//! written while another key with its hash was live says so (`collides`), and an unmarked record
//! tells that no other key of its hash was live then, so that the highest sequence number still
//! decides alone.

use std::sync::{Arc, PoisonError};

use crate::bugs::{Bug, is_planted};
use crate::disk::{Disk, Region};
use crate::error::Result;
use crate::format::hash::HASH_BITS;
use crate::format::hint::{Hint, HintEntry};
use crate::format::record::Record;
use crate::index::{IndexHash, IndexWriter, Location, partition_bits};
use crate::log::{SegmentTable, Slot, Usage};
use crate::reclaim::{Collector, Pin};
use crate::recovery::in_parallel;
use crate::segment::Segment;
use crate::sync::{AtomicU32, Mutex, MutexGuard, Ordering};

/// A segment's hint, and the slot it has in the table.
pub(crate) struct Loaded {
    pub(crate) slot: Slot,
    pub(crate) hint: Hint<Region>,
}

/// A key, and an entry of it with its segment's slot.
pub(super) type KeyEntry = (Vec<u8>, (HintEntry, Slot));

/// About how often is told how far an index is filled.
const TELLS: u32 = 200;

/// Fills an empty index and sums up what is live in each slot. Tells how many records it has come past.
pub(crate) fn load<D: Disk>(
    index: &mut IndexWriter,
    table: &SegmentTable<D>,
    collector: &Arc<Collector>,
    segments: &[Loaded],
    usage: &mut [Option<Usage>],
    threads: usize,
    tell: &(dyn Fn(u64) + Sync),
) -> Result<()> {
    let records: usize = segments.iter().map(|segment| segment.hint.len()).sum();
    let bits = partition_bits(records);
    let next = AtomicU32::new(0);
    let partitions = 1_u32 << bits;
    let filled = Mutex::new(0_u32);
    tell(0);
    let done = Mutex::new((Vec::new(), vec![None::<Usage>; usage.len()]));
    for (sum, usage) in lock(&done).1.iter_mut().zip(&*usage) {
        *sum = usage.map(|usage| Usage::new(usage.id));
    }
    let loader = index.loader();
    let work = || -> Result<()> {
        let pin = collector.pin();
        let mut partition = Partition {
            table,
            segments,
            pin: &pin,
            entries: Vec::new(),
        };
        let mut parts = Vec::new();
        let mut sums: Vec<Option<Usage>> = lock(&done).1.clone();
        sums.iter_mut()
            .flatten()
            .for_each(|usage| *usage = Usage::new(usage.id));
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= partitions {
                break;
            }
            let live = partition.live(number, bits, &mut sums)?;
            parts.push(loader.build(number, bits, live.into_iter()));
            let mut filled = lock(&filled);
            *filled += 1;
            if *filled % partitions.div_ceil(TELLS) == 0 || *filled == partitions {
                tell((records as u64).saturating_mul(u64::from(*filled)) / u64::from(partitions));
            }
        }
        let mut done = lock(&done);
        done.0.append(&mut parts);
        for (total, sum) in done.1.iter_mut().zip(sums) {
            if let (Some(total), Some(sum)) = (total, sum) {
                total.live_records += sum.live_records;
                total.live_bytes += sum.live_bytes;
                total.tombstone_bytes += sum.tombstone_bytes;
            }
        }
        Ok(())
    };
    in_parallel(threads, work)?;
    let (parts, sums) = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    index.assemble(parts);
    for (usage, sum) in usage.iter_mut().zip(sums) {
        if let (Some(usage), Some(sum)) = (usage, sum) {
            usage.live_records = sum.live_records;
            usage.live_bytes = sum.live_bytes;
            usage.tombstone_bytes = sum.tombstone_bytes;
        }
    }
    Ok(())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The first hash of a partition, as a number; the number of hashes for the partition after the
/// last. The index spreads hashes over its partitions unevenly, but in their order.
pub(super) fn first_of(partition: u32, bits: u32) -> u64 {
    let (mut low, mut high) = (0_u64, 1 << HASH_BITS);
    while low < high {
        let middle = low.midpoint(high);
        if IndexHash::new(middle).partition(bits) < partition {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    low
}

struct Partition<'a, D: Disk> {
    table: &'a SegmentTable<D>,
    segments: &'a [Loaded],
    pin: &'a Pin<'a>,
    /// Kept for its memory.
    entries: Vec<(HintEntry, Slot)>,
}

impl<D: Disk> Partition<'_, D> {
    /// The live records of one partition, in the order of their hashes.
    fn live(
        &mut self,
        number: u32,
        bits: u32,
        sums: &mut [Option<Usage>],
    ) -> Result<Vec<(IndexHash, Location)>> {
        let (low, high) = (first_of(number, bits), first_of(number + 1, bits));
        let mut entries = std::mem::take(&mut self.entries);
        entries.clear();
        for Loaded { slot, hint } in self.segments {
            let range = hint.lower_bound(low)..hint.lower_bound(high);
            entries.extend(hint.entries(range).map(|entry| (entry, *slot)));
        }
        entries.sort_unstable_by_key(|(entry, _)| (entry.hash, entry.seq));
        let mut live = Vec::with_capacity(entries.len());
        for group in entries.chunk_by(|a, b| a.0.hash == b.0.hash) {
            let collides = group.iter().any(|(entry, _)| entry.collides);
            if collides && !is_planted(Bug::IgnoreCollisions) {
                self.newest_by_key(group, sums, &mut live)?;
            } else if let Some(newest) = group.last() {
                self.settle(newest, sums, &mut live)?;
            }
            // Tombstones take room whether or not they are the newest.
            for (entry, slot) in group.iter().filter(|(entry, _)| entry.tombstone) {
                let len = self.len_of(entry, *slot)?;
                if let Some(Some(sum)) = sums.get_mut(*slot as usize) {
                    sum.tombstone_bytes += len as u64;
                }
            }
        }
        self.entries = entries;
        Ok(live)
    }

    /// Settles entries of one hash that belong to several keys.
    fn newest_by_key(
        &self,
        group: &[(HintEntry, Slot)],
        sums: &mut [Option<Usage>],
        live: &mut Vec<(IndexHash, Location)>,
    ) -> Result<()> {
        newest_by_key(self.table, self.pin, group)?
            .iter()
            .try_for_each(|(_, entry)| self.settle(entry, sums, live))
    }

    fn settle(
        &self,
        (entry, slot): &(HintEntry, Slot),
        sums: &mut [Option<Usage>],
        live: &mut Vec<(IndexHash, Location)>,
    ) -> Result<()> {
        if entry.tombstone {
            return Ok(());
        }
        let len = self.len_of(entry, *slot)?;
        if let Some(Some(sum)) = sums.get_mut(*slot as usize) {
            sum.add_live(len);
        }
        live.push((entry.hash.into(), Location::new(*slot, entry.offset)));
        Ok(())
    }

    fn len_of(&self, entry: &HintEntry, slot: Slot) -> Result<usize> {
        len_of(self.table, self.pin, entry, slot)
    }
}

/// The newest entry of each key among entries of one hash, which ascend by sequence number.
///
/// # Errors
///
/// [`Error::Corrupt`](crate::Error::Corrupt) of a record that is damaged: nobody knows which key's
/// older values it hides.
pub(super) fn newest_by_key<D: Disk>(
    table: &SegmentTable<D>,
    pin: &Pin<'_>,
    group: &[(HintEntry, Slot)],
) -> Result<Vec<KeyEntry>> {
    let mut newest: Vec<KeyEntry> = Vec::new();
    for &(entry, slot) in group {
        let segment = segment_in(table, pin, slot);
        let key = segment.with_sound_record(entry.offset, |record| record.key().to_vec())?;
        // Ascending sequence numbers: the last one seen of a key is its newest.
        match newest.iter_mut().find(|(other, _)| *other == key) {
            Some((_, settled)) => *settled = (entry, slot),
            None => newest.push((key, (entry, slot))),
        }
    }
    Ok(newest)
}

/// The length of an entry's record, which a hint file does not say of the longest ones.
pub(super) fn len_of<D: Disk>(
    table: &SegmentTable<D>,
    pin: &Pin<'_>,
    entry: &HintEntry,
    slot: Slot,
) -> Result<usize> {
    if entry.len != 0 {
        return Ok(entry.len as usize);
    }
    with_record(table, pin, slot, entry.offset, |record: &Record<'_>| {
        record.len()
    })
}

/// Shows the record at an offset of a segment in the table to `read`.
pub(super) fn with_record<D: Disk, R>(
    table: &SegmentTable<D>,
    pin: &Pin<'_>,
    slot: Slot,
    offset: u64,
    read: impl FnOnce(&Record<'_>) -> R,
) -> Result<R> {
    segment_in(table, pin, slot).with_record(offset, read)
}

fn segment_in<'p, D: Disk>(
    table: &'p SegmentTable<D>,
    pin: &'p Pin<'_>,
    slot: Slot,
) -> &'p Segment<D> {
    let segment = table.get(pin, slot);
    segment.unwrap_or_else(|| unreachable!("a slot is filled before it is loaded"))
}
