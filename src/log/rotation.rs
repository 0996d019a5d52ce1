//! From one active segment to the next: announce, rotate, seal, close.
//!
//! Each is a protocol whose last step is a manifest commit: a crash, or a full disk, before it
//! leaves the log as it was.

use super::{Active, Expiries, Log, LogError, Room, Usage};
use crate::bugs::{Bug, is_planted};
use crate::disk::Disk;
use crate::error::Error;
use crate::format::SegmentId;
use crate::format::manifest::{Manifest, SegmentState};
use crate::format::segment::{FOOTER_LEN, HEADER_LEN};
use crate::segment::{SegmentWriter, writer};

/// What a segment is begun with on a full disk, for tombstones alone: one part in so many of the
/// usual, less than what the store keeps in reserve.
const PART_OF_SMALL_SEGMENT: u64 = 32;

/// What sealing the active segment found out.
struct Sealed {
    data_len: u64,
    records: u64,
    expiries: Expiries,
}

impl<D: Disk> Log<D> {
    /// Makes room: announces the active segment, or seals it and begins the next. Everything
    /// appended so far is durable after it.
    pub(crate) fn make_room(&mut self, room: Room, clock_ms: u64) -> Result<(), LogError> {
        if let Some(active) = &self.active {
            if !active.announced && active.writer.has_room(self.with_end(room)) {
                return self.announce(clock_ms);
            }
        }
        self.rotate(room, self.options.segment_size, clock_ms)
    }

    /// As [`make_room`](Log::make_room), with a small new segment: for a disk that has no room for
    /// another.
    pub(crate) fn make_small_room(&mut self, room: Room, clock_ms: u64) -> Result<(), LogError> {
        let capacity = self.options.segment_size / PART_OF_SMALL_SEGMENT;
        self.rotate(room, capacity, clock_ms)
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

    /// Seals the active segment and begins one of this capacity, or more if the room needs it.
    ///
    /// The new file comes first: a full disk is met before anything has changed.
    fn rotate(&mut self, room: Room, capacity: u64, clock_ms: u64) -> Result<(), LogError> {
        // Set aside whatever comes of it: a file that cannot be removed again keeps its name.
        let id = self.reserve_id().map_err(LogError::Unchanged)?;
        let mut next = self.next_manifest(clock_ms);
        let header = self.new_header(id, self.next_seq);
        let needed = HEADER_LEN + self.with_end(room) + FOOTER_LEN;
        let capacity = (capacity as usize).max(needed);
        let buffer = || self.spare.take(capacity);
        let mut writer = SegmentWriter::create_with(&self.disk, &self.dir, header, buffer)
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
        writer.trade_buffer(&mut self.spare);
        self.spare.offer();
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
    fn retire_active(&mut self, sealed: Option<Sealed>) {
        match (self.active.take(), sealed) {
            (Some(Active { writer, slot, .. }), Some(sealed)) => {
                let next_seq = self.next_seq;
                if let Some(usage) = self.usage_mut(slot) {
                    usage.sealed = true;
                    usage.next_seq = next_seq;
                    usage.expiries = sealed.expiries;
                    // What was taken back had been counted.
                    usage.records = sealed.records;
                }
                self.spare.keep(writer.buffer());
                let reader = writer.into_sealed(sealed.data_len, self.options.read_mode);
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
    fn seal_active(&mut self, next: &mut Manifest) -> Result<Option<Sealed>, LogError> {
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
        if !is_planted(Bug::RotateBeforeSync) {
            active.writer.sync().map_err(LogError::Broken)?;
        }
        // Without its hint file a segment only takes longer to open.
        let _ = writer::write_hint(&self.disk, &self.dir, &header, &summary, &footer);
        set_state(
            next,
            header.id,
            SegmentState::Sealed {
                data_len: footer.data_len,
            },
        );
        Ok(Some(Sealed {
            data_len: footer.data_len,
            records: footer.records,
            expiries: Expiries::of(footer.earliest_expiry_ms, || summary.entries()),
        }))
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
        self.spare.offer();
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
}

fn set_state(manifest: &mut Manifest, id: SegmentId, state: SegmentState) {
    for (other, its_state) in &mut manifest.segments {
        if *other == id {
            *its_state = state;
        }
    }
}
