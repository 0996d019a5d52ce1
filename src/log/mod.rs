//! The log: the active segment and the sealed ones as one sequence of records.
//!
//! The waist of the house: below it are files, above it keys and threads. All of it runs under
//! the store's writer lock, but for [`SegmentTable`], which readers use without any.
//!
//! Invariants:
//!
//! 1. The manifest names exactly the segments in the table, and every file it names is durable.
//! 2. At most one segment is active. Only it is written to, only at its end.
//! 3. Sequence numbers ascend in the order of appending and are never used twice.
//! 4. A segment's records are durable before the first record of the next segment is written:
//!    so what a power cut takes is a suffix, never a hole.

mod accounting;
pub(crate) mod checkpoint_file;
mod followed;
pub(crate) mod manifest_file;
mod rotation;
mod table;

use std::path::PathBuf;

pub(crate) use accounting::{Expiries, Usage};
pub(crate) use table::{SegmentTable, Slot};

use crate::bugs::{Bug, is_planted};
use crate::disk::{Disk, Spare};
use crate::error::{Error, Result};
use crate::format::manifest::Manifest;
use crate::format::record::{Kind, RecordFields, SyncedDistance};
use crate::format::segment::SegmentHeader;
use crate::format::{KeyHash, SegmentId, SeqNo};
use crate::index::Location;
use crate::segment::writer::Unsynced;
use crate::segment::{ReadMode, Segment, SegmentWriter};
use manifest_file::CommitError;

/// How the log cuts and reads segments.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LogOptions {
    pub(crate) segment_size: u64,
    pub(crate) read_mode: ReadMode,
}

/// A record to be appended; the log adds its sequence number and its place.
#[derive(Clone, Copy)]
pub(crate) struct Entry<'a> {
    pub(crate) kind: Kind,
    pub(crate) key: &'a [u8],
    pub(crate) hash: KeyHash,
    pub(crate) value: &'a [u8],
    pub(crate) compressed: bool,
    pub(crate) expires_at_ms: Option<u64>,
    pub(crate) collides: bool,
}

impl<'a> Entry<'a> {
    fn fields(&self, batched: bool, seq_delta: u32, synced: SyncedDistance) -> RecordFields<'a> {
        RecordFields {
            kind: self.kind,
            key: self.key,
            value: self.value,
            compressed: self.compressed,
            expires_at_ms: self.expires_at_ms,
            collides: self.collides,
            batched,
            seq_delta,
            synced,
        }
    }
}

/// Room for a record or frame in the active segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Room {
    pub(crate) len: usize,
    /// Only tombstones: the end of each segment is theirs, so that a store on a full disk can
    /// still delete.
    pub(crate) is_for_deletes: bool,
}

/// The end of a segment that is left to tombstones is one part in so many of it.
const PART_FOR_DELETES: u64 = 64;

/// Where an appended record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Placed {
    pub(crate) location: Location,
    pub(crate) len: usize,
    pub(crate) seq: SeqNo,
}

/// A failure that leaves the log as it was, or one after which nobody knows what is on the disk.
#[derive(Debug)]
pub(crate) enum LogError {
    Unchanged(Error),
    Broken(Error),
}

impl From<CommitError> for LogError {
    fn from(error: CommitError) -> LogError {
        match error {
            CommitError::Unchanged(error) => LogError::Unchanged(error),
            CommitError::Unknown(error) => LogError::Broken(error),
        }
    }
}

/// The active segment.
pub(crate) struct Active<D: Disk> {
    pub(crate) writer: SegmentWriter<D>,
    pub(crate) slot: Slot,
    /// Whether the manifest says that it is being appended to. Opening a store that was closed in
    /// good order does not change the manifest; the first write does.
    pub(crate) announced: bool,
}

/// What recovery hands over.
pub(crate) struct LogParts<D: Disk> {
    pub(crate) disk: D,
    pub(crate) dir: PathBuf,
    pub(crate) options: LogOptions,
    pub(crate) table: SegmentTable<D>,
    pub(crate) manifest: Manifest,
    pub(crate) active: Option<Active<D>>,
    pub(crate) next_seq: SeqNo,
    /// By slot.
    pub(crate) usage: Vec<Option<Usage>>,
}

pub(crate) struct Log<D: Disk> {
    disk: D,
    dir: PathBuf,
    options: LogOptions,
    table: SegmentTable<D>,
    manifest: Manifest,
    active: Option<Active<D>>,
    next_seq: SeqNo,
    usage: Vec<Option<Usage>>,
    /// The append buffer of the segment before the active one.
    spare: Spare,
    /// Bytes appended since the store was opened.
    appended_bytes: u64,
    /// How many of them there were when it was last looked whether compaction is worth it.
    checked_bytes: u64,
}

/// How many bytes are appended between two looks at whether compaction is worth it: 1 MiB.
/// A record or two in shuttle's tests.
const CHECK_EVERY_BYTES: u64 = if cfg!(shuttle) { 128 } else { 1 << 20 };

impl<D: Disk> Log<D> {
    pub(crate) fn new(parts: LogParts<D>) -> Log<D> {
        let LogParts {
            disk,
            dir,
            options,
            table,
            manifest,
            active,
            next_seq,
            usage,
        } = parts;
        Log {
            disk,
            dir,
            options,
            table,
            manifest,
            active,
            next_seq,
            usage,
            spare: Spare::default(),
            appended_bytes: 0,
            checked_bytes: 0,
        }
    }

    pub(crate) fn table(&self) -> &SegmentTable<D> {
        &self.table
    }

    /// Whether the active segment holds so much that scanning it at the next open would cost more
    /// than sealing it now.
    pub(crate) fn is_worth_sealing(&self) -> bool {
        self.active.as_ref().is_some_and(|active| {
            active.announced && active.writer.appended() >= self.options.segment_size / 8
        })
    }

    pub(crate) fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The active segment's slot, and its base: all records of the others have lower sequence
    /// numbers.
    pub(crate) fn active(&self) -> Option<(Slot, SeqNo)> {
        let active = self.active.as_ref()?;
        Some((active.slot, active.writer.header().base_seq))
    }

    /// Whether there is room without touching other files.
    pub(crate) fn has_room(&self, room: Room) -> bool {
        let deltas_fit = |writer: &SegmentWriter<D>| {
            self.next_seq.0 - writer.header().base_seq.0 < u64::from(u32::MAX / 2)
        };
        let len = self.with_end(room);
        self.active.as_ref().is_some_and(|active| {
            let is_announced = active.announced || is_planted(Bug::AppendUnannounced);
            is_announced && active.writer.has_room(len) && deltas_fit(&active.writer)
        })
    }

    /// How much must be left for this room to be given: other writes than deletes leave the end of
    /// the segment to them.
    fn with_end(&self, room: Room) -> usize {
        if room.is_for_deletes {
            room.len
        } else {
            room.len + (self.options.segment_size / PART_FOR_DELETES) as usize
        }
    }

    /// Appends one record. The caller has asked for room.
    pub(crate) fn append(&mut self, entry: &Entry<'_>) -> Option<Placed> {
        let active = self.active.as_mut()?;
        let seq = self.next_seq;
        let delta = (seq.0 - active.writer.header().base_seq.0) as u32;
        let fields = entry.fields(false, delta, active.writer.synced_distance());
        let (offset, len) = active.writer.append(&fields, entry.hash)?;
        self.next_seq = SeqNo(seq.0 + 1);
        let placed = Placed {
            location: Location::new(active.slot, offset),
            len,
            seq,
        };
        self.appended_bytes += len as u64;
        self.note_appended(std::slice::from_ref(entry));
        Some(placed)
    }

    /// Appends a batch frame of records that take `len` bytes without the frame; calls `placed`
    /// with where each of them is.
    pub(crate) fn append_frame(
        &mut self,
        entries: &[Entry<'_>],
        len: usize,
        mut placed: impl FnMut(&Entry<'_>, Placed),
    ) -> Option<()> {
        let active = self.active.as_mut()?;
        let first = self.next_seq;
        let first_delta = (first.0 - active.writer.header().base_seq.0) as u32;
        let slot = active.slot;
        let mut seq = first;
        let mut unplaced = entries.iter();
        let members = entries.iter().enumerate().map(|(i, entry)| {
            let delta = first_delta + i as u32;
            // The frame says how far the segment was synced.
            let fields = entry.fields(true, delta, SyncedDistance::UNKNOWN);
            (fields, entry.hash)
        });
        active
            .writer
            .append_frame(members, len, first_delta, |offset, len| {
                let location = Location::new(slot, offset);
                if let Some(entry) = unplaced.next() {
                    placed(entry, Placed { location, len, seq });
                }
                seq = SeqNo(seq.0 + 1);
            })?;
        self.next_seq = seq;
        self.appended_bytes += len as u64;
        self.note_appended(entries);
        Some(())
    }

    fn note_appended(&mut self, entries: &[Entry<'_>]) {
        if let Some(Active { writer, slot, .. }) = &self.active {
            if let Some(Some(usage)) = self.usage.get_mut(*slot as usize) {
                usage.data_len = writer.appended();
                usage.records += entries.len() as u64;
                for entry in entries.iter().filter(|entry| entry.kind == Kind::Put) {
                    usage.expiries.add(entry.expires_at_ms);
                }
            }
        }
    }

    /// What the append buffer takes in memory.
    pub(crate) fn append_buffer_bytes(&self) -> u64 {
        let unsealed = self.usages().find(|(_, usage)| !usage.sealed);
        unsealed.map_or(0, |(_, usage)| usage.data_len)
    }

    /// What is reserved for the active segment beyond what was appended.
    pub(crate) fn unwritten_bytes(&self) -> u64 {
        let active = self.active.as_ref().filter(|active| active.announced);
        active.map_or(0, |active| active.writer.remaining())
    }

    pub(crate) fn next_seq(&self) -> SeqNo {
        self.next_seq
    }

    /// Whether it is time to look whether compaction is worth it; asked once, answered once. The
    /// first time is after the first write: there may be work from before.
    pub(crate) fn take_check_due(&mut self) -> bool {
        let is_first = self.checked_bytes == 0 && self.appended_bytes > 0;
        let due = is_first || self.appended_bytes - self.checked_bytes >= CHECK_EVERY_BYTES;
        if due {
            self.checked_bytes = self.appended_bytes;
            self.spare.offer();
        }
        due
    }

    /// Bytes appended since the store was opened.
    pub(crate) fn appended_bytes(&self) -> u64 {
        self.appended_bytes
    }

    /// What has to be written and synced; `None` when everything is durable.
    pub(crate) fn unsynced(&self) -> Option<Unsynced<D>> {
        let active = self.active.as_ref()?;
        (!active.writer.is_synced()).then(|| active.writer.unsynced())
    }

    pub(crate) fn note_synced(&mut self, job: &Unsynced<D>) {
        if let Some(active) = &mut self.active {
            active.writer.note_synced(job);
        }
    }

    /// Up to where the active segment is durable.
    pub(crate) fn durable_end(&self) -> Option<u64> {
        Some(self.active.as_ref()?.writer.synced())
    }

    /// Writes what was appended into the file, without syncing it.
    pub(crate) fn write(&mut self) -> Result<()> {
        self.active
            .as_mut()
            .map_or(Ok(()), |active| active.writer.write())
    }

    /// Takes back everything that was appended but not written.
    pub(crate) fn take_back_unwritten(&mut self) -> Result<()> {
        let Some(active) = &mut self.active else {
            return Ok(());
        };
        active.writer.take_back_unwritten()?;
        self.table.replace(active.slot, active.writer.reader());
        // The count of records stays too high until the segment is sealed.
        self.note_appended(&[]);
        Ok(())
    }

    /// Sets an id aside for the output of a merge.
    pub(crate) fn reserve_id(&mut self) -> Result<SegmentId> {
        let what = "segment ids";
        self.manifest.take_id().ok_or(Error::Exhausted { what })
    }

    /// The header of a segment that begins now.
    pub(crate) fn new_header(&self, id: SegmentId, base_seq: SeqNo) -> SegmentHeader {
        SegmentHeader {
            store: self.manifest.store,
            id,
            base_seq,
            salt: self.disk.random_u64(),
        }
    }

    /// The manifest of the commit after this one, nothing changed yet.
    pub(crate) fn next_manifest(&self, clock_ms: u64) -> Manifest {
        let mut next = self.manifest.clone();
        next.generation = next.generation.wrapping_add(1);
        next.next_seq = self.next_seq;
        next.clock_ms = next.clock_ms.max(clock_ms);
        if is_planted(Bug::ReuseFileId) {
            let highest = next.segments.last();
            next.next_segment = highest.map_or(SegmentId(1), |(id, _)| id.next());
        }
        next
    }

    /// Makes `next` the manifest.
    pub(crate) fn commit(&mut self, next: Manifest) -> Result<(), LogError> {
        manifest_file::commit(&self.disk, &self.dir, &next)?;
        self.manifest = next;
        Ok(())
    }

    /// Puts a segment that the manifest names since the last commit into the table.
    pub(crate) fn add_sealed(&mut self, segment: Segment<D>, usage: Usage) -> Result<Slot> {
        let slot = self.table.insert(segment)?;
        self.set_usage(slot, usage);
        Ok(slot)
    }

    /// Takes out a segment that the manifest no longer names; its files go with the last reader.
    pub(crate) fn remove_sealed(&mut self, slot: Slot, segment: &Segment<D>) {
        segment.doom();
        self.table.remove(slot);
        if let Some(usage) = self.usage.get_mut(slot as usize) {
            *usage = None;
        }
    }

    fn set_usage(&mut self, slot: Slot, usage: Usage) {
        let slot = slot as usize;
        if self.usage.len() <= slot {
            self.usage.resize(slot + 1, None);
        }
        self.usage[slot] = Some(usage);
    }

    pub(crate) fn usage_mut(&mut self, slot: Slot) -> Option<&mut Usage> {
        self.usage.get_mut(slot as usize)?.as_mut()
    }

    /// Every segment's usage, with its slot.
    pub(crate) fn usages(&self) -> impl Iterator<Item = (Slot, &Usage)> {
        (0..)
            .zip(&self.usage)
            .filter_map(|(slot, usage)| Some((slot, usage.as_ref()?)))
    }

    /// Every segment's usage, to be changed.
    pub(crate) fn usages_mut(&mut self) -> impl Iterator<Item = &mut Usage> {
        self.usage.iter_mut().flatten()
    }

    pub(crate) fn options(&self) -> LogOptions {
        self.options
    }
}
