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
pub(crate) mod manifest_file;
mod table;

use std::path::PathBuf;
use std::sync::Arc;

pub(crate) use accounting::Usage;
pub(crate) use table::{SegmentTable, Slot};

use crate::disk::Disk;
use crate::error::{Error, Result};
use crate::format::manifest::{Manifest, SegmentState};
use crate::format::record::{Kind, RecordFields, SyncedDistance};
use crate::format::segment::{FOOTER_LEN, HEADER_LEN, SegmentHeader};
use crate::format::{SegmentId, SeqNo};
use crate::index::Location;
use crate::segment::writer::{self, Unsynced};
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
    pub(crate) table: Arc<SegmentTable<D>>,
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
    table: Arc<SegmentTable<D>>,
    manifest: Manifest,
    active: Option<Active<D>>,
    next_seq: SeqNo,
    usage: Vec<Option<Usage>>,
    /// Bytes appended since it was last looked whether compaction is worth it.
    unchecked_bytes: u64,
}

/// How many bytes are appended between two looks at whether compaction is worth it: 1 MiB.
const CHECK_EVERY_BYTES: u64 = 1 << 20;

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
        let unchecked_bytes = CHECK_EVERY_BYTES;
        Log {
            disk,
            dir,
            options,
            table,
            manifest,
            active,
            next_seq,
            usage,
            unchecked_bytes,
        }
    }

    pub(crate) fn table(&self) -> &Arc<SegmentTable<D>> {
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

    /// Whether a record or frame of `len` bytes can be appended without touching other files.
    pub(crate) fn has_room(&self, len: usize) -> bool {
        let deltas_fit = |writer: &SegmentWriter<D>| {
            self.next_seq.0 - writer.header().base_seq.0 < u64::from(u32::MAX / 2)
        };
        self.active.as_ref().is_some_and(|active| {
            active.announced && active.writer.has_room(len) && deltas_fit(&active.writer)
        })
    }

    /// Appends one record. The caller has asked for room.
    pub(crate) fn append(&mut self, entry: &Entry<'_>) -> Option<Placed> {
        let active = self.active.as_mut()?;
        let seq = self.next_seq;
        let delta = (seq.0 - active.writer.header().base_seq.0) as u32;
        let fields = entry.fields(false, delta, active.writer.synced_distance());
        let (offset, len) = active.writer.append(&fields)?;
        self.next_seq = SeqNo(seq.0 + 1);
        let placed = Placed {
            location: Location::new(active.slot, offset),
            len,
            seq,
        };
        self.unchecked_bytes += len as u64;
        self.note_appended(1, entry.expires_at_ms.unwrap_or(u64::MAX));
        Some(placed)
    }

    /// Appends a batch frame of records that take `len` bytes without the frame.
    pub(crate) fn append_frame(
        &mut self,
        entries: &[Entry<'_>],
        len: usize,
        mut placed: impl FnMut(Placed),
    ) -> Option<()> {
        let active = self.active.as_mut()?;
        let first = self.next_seq;
        let first_delta = (first.0 - active.writer.header().base_seq.0) as u32;
        let slot = active.slot;
        let mut seq = first;
        let members = entries.iter().enumerate().map(|(i, entry)| {
            let delta = first_delta + i as u32;
            // The frame says how far the segment was synced.
            entry.fields(true, delta, SyncedDistance::UNKNOWN)
        });
        active
            .writer
            .append_frame(members, len, first_delta, |offset, len| {
                placed(Placed {
                    location: Location::new(slot, offset),
                    len,
                    seq,
                });
                seq = SeqNo(seq.0 + 1);
            })?;
        self.next_seq = seq;
        self.unchecked_bytes += len as u64;
        let expiries = entries.iter().filter_map(|entry| entry.expires_at_ms);
        self.note_appended(entries.len() as u64, expiries.min().unwrap_or(u64::MAX));
        Some(())
    }

    fn note_appended(&mut self, records: u64, earliest_expiry_ms: u64) {
        if let Some(Active { writer, slot, .. }) = &self.active {
            if let Some(Some(usage)) = self.usage.get_mut(*slot as usize) {
                usage.data_len = writer.appended();
                usage.records += records;
                usage.earliest_expiry_ms = usage.earliest_expiry_ms.min(earliest_expiry_ms);
            }
        }
    }

    /// What the append buffer takes in memory.
    pub(crate) fn append_buffer_bytes(&self) -> u64 {
        self.active
            .as_ref()
            .map_or(0, |active| active.writer.appended())
    }

    /// Whether it is time to look whether compaction is worth it; asked once, answered once.
    pub(crate) fn take_check_due(&mut self) -> bool {
        let due = self.unchecked_bytes >= CHECK_EVERY_BYTES;
        if due {
            self.unchecked_bytes = 0;
        }
        due
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
        // The count of records stays too high, which at worst compacts the segment once more.
        self.note_appended(0, u64::MAX);
        Ok(())
    }

    /// Makes room for a record or frame of `len` bytes: announces the active segment, or seals it
    /// and begins the next. Everything appended so far is durable after it.
    pub(crate) fn make_room(&mut self, len: usize, clock_ms: u64) -> Result<(), LogError> {
        if let Some(active) = &self.active {
            if !active.announced && active.writer.has_room(len) {
                return self.announce(clock_ms);
            }
        }
        self.rotate(len, clock_ms)
    }

    /// Tells the manifest that a segment that was closed in good order is appended to again:
    /// from now on its end is found by scanning.
    fn announce(&mut self, clock_ms: u64) -> Result<(), LogError> {
        let Some(active) = &self.active else {
            return Ok(());
        };
        active.writer.preallocate().map_err(LogError::Unchanged)?;
        let id = active.writer.header().id;
        let mut next = self.next_manifest(clock_ms);
        set_state(&mut next, id, SegmentState::Active);
        self.commit(next)?;
        if let Some(active) = &mut self.active {
            active.announced = true;
        }
        Ok(())
    }

    /// Seals the active segment and begins one with room for `len` bytes.
    ///
    /// The new file comes first: a full disk is met before anything has changed.
    fn rotate(&mut self, len: usize, clock_ms: u64) -> Result<(), LogError> {
        // Set aside whatever comes of it: a file that cannot be removed again keeps its name.
        let id = self.reserve_id();
        let mut next = self.next_manifest(clock_ms);
        let header = self.new_header(id, self.next_seq);
        let capacity = (self.options.segment_size as usize).max(HEADER_LEN + len + FOOTER_LEN);
        let writer = SegmentWriter::create(&self.disk, &self.dir, header, capacity)
            .map_err(LogError::Unchanged)?;
        next.segments.push((id, SegmentState::Active));
        let sealed = match self.seal_active(&mut next) {
            Ok(sealed) => sealed,
            Err(error) => {
                self.discard(writer);
                return Err(error);
            }
        };
        if let Err(error) = self.commit(next) {
            // What was sealed is complete on the disk, but the manifest still calls it active: it
            // stays so, and the next attempt seals it again. The new file goes, unless the manifest
            // may name it.
            if matches!(error, LogError::Unchanged(_)) {
                self.discard(writer);
            }
            return Err(error);
        }
        self.retire_active(sealed);
        let slot = self
            .table
            .insert(writer.reader())
            .map_err(LogError::Broken)?;
        self.set_usage(
            slot,
            Usage {
                data_len: HEADER_LEN as u64,
                ..Usage::new(id)
            },
        );
        self.active = Some(Active {
            writer,
            slot,
            announced: true,
        });
        Ok(())
    }

    /// Lets readers use the sealed segment in place of the append buffer; an empty one goes.
    fn retire_active(&mut self, sealed: Option<u64>) {
        match (self.active.take(), sealed) {
            (Some(Active { writer, slot, .. }), Some(data_len)) => {
                if let Some(usage) = self.usage_mut(slot) {
                    usage.sealed = true;
                }
                let reader = writer.into_sealed(data_len, self.options.read_mode);
                self.table.replace(slot, reader);
            }
            (Some(Active { writer, slot, .. }), None) => {
                self.table.remove(slot);
                self.usage[slot as usize] = None;
                self.discard(writer);
            }
            (None, _) => {}
        }
    }

    /// Seals the active segment on the disk and in `next`; an empty one is dropped from it.
    fn seal_active(&mut self, next: &mut Manifest) -> Result<Option<u64>, LogError> {
        let hasher = self.manifest.hasher;
        let Some(active) = &mut self.active else {
            return Ok(None);
        };
        let header = *active.writer.header();
        if active.writer.is_empty() {
            next.segments.retain(|(id, _)| *id != header.id);
            return Ok(None);
        }
        let (summary, footer) =
            active
                .writer
                .write_footer(hasher)
                .map_err(|error| match error {
                    // The records are still in memory, to be written again in the same place.
                    Error::DiskFull { .. } => LogError::Unchanged(error),
                    _ => LogError::Broken(error),
                })?;
        active.writer.sync().map_err(LogError::Broken)?;
        // Without its hint file a segment only takes longer to open.
        let _ = writer::write_hint(&self.disk, &self.dir, &header, &summary, &footer);
        set_state(
            next,
            header.id,
            SegmentState::Sealed {
                data_len: footer.data_len,
            },
        );
        Ok(Some(footer.data_len))
    }

    /// Removes the file of a segment that the manifest does not name.
    fn discard(&self, writer: SegmentWriter<D>) {
        let path = writer.path().to_path_buf();
        drop(writer);
        // Should this fail, it is an orphan that the next open removes.
        let _ = self.disk.unlink(&path);
    }

    /// Seals the active segment if it holds any record, so that all records are in sealed ones.
    /// The next write begins a new one.
    pub(crate) fn seal(&mut self, clock_ms: u64) -> Result<(), LogError> {
        if self
            .active
            .as_ref()
            .is_none_or(|active| active.writer.is_empty())
        {
            return Ok(());
        }
        let mut next = self.next_manifest(clock_ms);
        let sealed = self.seal_active(&mut next)?;
        self.commit(next)?;
        self.retire_active(sealed);
        Ok(())
    }

    /// Ends in good order: everything is durable, and the manifest says where it ends.
    pub(crate) fn close(&mut self, clock_ms: u64) -> Result<(), LogError> {
        let Some(active) = &mut self.active else {
            return Ok(());
        };
        if !active.announced {
            return Ok(());
        }
        active.writer.close().map_err(LogError::Broken)?;
        let (id, data_len) = (active.writer.header().id, active.writer.appended());
        let mut next = self.next_manifest(clock_ms);
        set_state(&mut next, id, SegmentState::Closed { data_len });
        self.commit(next)?;
        if let Some(active) = &mut self.active {
            active.announced = false;
        }
        Ok(())
    }

    /// Sets an id aside for the output of a merge.
    pub(crate) fn reserve_id(&mut self) -> SegmentId {
        let id = self.manifest.next_segment;
        self.manifest.next_segment = id.next();
        id
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
        next.generation += 1;
        next.next_seq = self.next_seq;
        next.clock_ms = next.clock_ms.max(clock_ms);
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

    pub(crate) fn options(&self) -> LogOptions {
        self.options
    }
}

fn set_state(manifest: &mut Manifest, id: SegmentId, state: SegmentState) {
    for (other, its_state) in &mut manifest.segments {
        if *other == id {
            *its_state = state;
        }
    }
}
