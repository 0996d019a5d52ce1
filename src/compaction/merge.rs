//! The merge: what is still needed of some segments, written into new ones.
//!
//! A record is copied without being decompressed, its checksum verified before and made anew for
//! its new place; sequence number and expiry stay. What is no longer needed:
//!
//! - a put that the index does not point at,
//! - a tombstone, once no segment outside the merge can hold an older record of its key,
//! - an expired put, under the same condition; otherwise it goes on as a tombstone, since it still
//!   hides what is older.

use std::path::Path;

use crate::disk::Disk;
use crate::error::{Error, Result};
use crate::format::record::{Kind, Record, RecordFields, SyncedDistance};
use crate::format::segment::{FOOTER_LEN, HEADER_LEN, SegmentHeader};
use crate::format::{KeyHash, KeyHasher, SegmentId, SeqNo};
use crate::index::Location;
use crate::log::{LogOptions, Slot};
use crate::recovery::Source;
use crate::segment::scanner::{self, Check};
use crate::segment::writer::write_hint;
use crate::segment::{Segment, SegmentWriter};

/// What the merge asks of the store around it.
pub(crate) trait Surroundings {
    /// Whether the index points at this record.
    fn is_live(&self, hash: KeyHash, location: Location) -> bool;
    /// Whether something that expires then has expired.
    fn has_expired(&self, expires_at_ms: u64) -> bool;
    /// Whether a segment outside the merge can hold a record of this hash older than `seq`.
    fn may_hide(&self, hash: KeyHash, seq: SeqNo) -> bool;
    /// The header of a new segment, with an id that nothing else has.
    fn new_header(&self, base_seq: SeqNo) -> SegmentHeader;
}

/// An index entry that is to follow its record.
#[derive(Clone, Copy)]
pub(crate) struct Move {
    pub(crate) hash: KeyHash,
    pub(crate) from: Location,
    /// The new offset, in the output.
    pub(crate) to_offset: u64,
    pub(crate) len: usize,
}

/// A finished output.
pub(crate) struct Output<D: Disk> {
    pub(crate) id: SegmentId,
    pub(crate) segment: Segment<D>,
    pub(crate) data_len: u64,
    pub(crate) records: u64,
    pub(crate) tombstone_bytes: u64,
    pub(crate) earliest_expiry_ms: u64,
    pub(crate) moves: Vec<Move>,
}

/// What a merge made.
pub(crate) struct Merged<D: Disk> {
    pub(crate) outputs: Vec<Output<D>>,
    /// Entries of the index whose records have expired and are gone.
    pub(crate) expired: Vec<(KeyHash, Location)>,
    pub(crate) records_dropped: u64,
}

/// Merges segments; needs room for a segment in memory, whatever their number.
pub(crate) struct Merge<'a, D: Disk, S> {
    disk: &'a D,
    dir: &'a Path,
    hasher: KeyHasher,
    options: LogOptions,
    around: &'a S,
    writing: Option<Writing<D>>,
    merged: Merged<D>,
}

/// The output that is being written.
struct Writing<D: Disk> {
    writer: SegmentWriter<D>,
    moves: Vec<Move>,
    tombstone_bytes: u64,
}

impl<'a, D: Disk, S: Surroundings> Merge<'a, D, S> {
    pub(crate) fn new(source: &Source<'a, D>, options: LogOptions, around: &'a S) -> Self {
        let merged = Merged {
            outputs: Vec::new(),
            expired: Vec::new(),
            records_dropped: 0,
        };
        let Source {
            disk, dir, hasher, ..
        } = *source;
        Merge {
            disk,
            dir,
            hasher,
            options,
            around,
            writing: None,
            merged,
        }
    }

    /// Merges the inputs, which come in the order of their base sequence numbers.
    ///
    /// # Errors
    ///
    /// When a record is damaged, or the outputs cannot be written; they are removed then, and the
    /// inputs are as they were.
    pub(crate) fn run(
        mut self,
        source: &Source<'_, D>,
        inputs: &[(Slot, &Segment<D>, u64)],
    ) -> Result<Merged<D>> {
        let run = || {
            for (slot, segment, data_len) in inputs {
                self.add(source, *slot, segment, *data_len)?;
            }
            self.finish_output()
        };
        match { run }() {
            Ok(()) => Ok(self.merged),
            Err(error) => {
                if let Some(writing) = self.writing.take() {
                    let path = writing.writer.path().to_path_buf();
                    drop(writing);
                    let _ = self.disk.unlink(&path);
                }
                self.merged.discard();
                Err(error)
            }
        }
    }

    fn add(
        &mut self,
        source: &Source<'_, D>,
        slot: Slot,
        segment: &Segment<D>,
        data_len: u64,
    ) -> Result<()> {
        let data = source.data_of(segment, data_len)?;
        let header = segment.header();
        let mut result = Ok(());
        let bytes: &[u8] = data.as_ref().as_ref();
        let end = scanner::scan(
            bytes,
            header,
            HEADER_LEN as u64,
            Check::Sealed,
            |offset, record| {
                if result.is_ok() {
                    let location = Location::new(slot, offset);
                    result = self.record(header.base_seq, location, &record);
                }
            },
        );
        result?;
        match end.problem {
            Some(problem) => Err(segment.damage(end.end, &problem)),
            None => Ok(()),
        }
    }

    fn record(&mut self, base: SeqNo, location: Location, record: &Record<'_>) -> Result<()> {
        let hash = self.hasher.hash(record.key());
        let seq = record.seq(base);
        let live = record.kind() == Kind::Put && self.around.is_live(hash, location);
        let expired = record
            .expires_at_ms()
            .is_some_and(|at| self.around.has_expired(at));
        if live && !expired {
            let output = self.output(record.len(), base, seq)?;
            let delta = (seq.0 - output.writer.header().base_seq.0) as u32;
            let to_offset = output.writer.append_copy(record.bytes(), delta);
            let to_offset = to_offset.ok_or(Error::Exhausted {
                what: "room in a merge output",
            })?;
            output.moves.push(Move {
                hash,
                from: location,
                to_offset,
                len: record.len(),
            });
            return Ok(());
        }
        if live {
            self.merged.expired.push((hash, location));
        }
        let hides = record.kind() == Kind::Tombstone || (live && expired);
        if hides && self.around.may_hide(hash, seq) {
            return self.tombstone(base, seq, record);
        }
        self.merged.records_dropped += 1;
        Ok(())
    }

    fn tombstone(&mut self, base: SeqNo, seq: SeqNo, record: &Record<'_>) -> Result<()> {
        let output = self.output(record.len(), base, seq)?;
        let fields = RecordFields {
            kind: Kind::Tombstone,
            key: record.key(),
            value: &[],
            compressed: false,
            expires_at_ms: None,
            collides: record.collides(),
            batched: false,
            seq_delta: (seq.0 - output.writer.header().base_seq.0) as u32,
            synced: SyncedDistance::UNKNOWN,
        };
        let placed = output.writer.append(&fields);
        let (_, len) = placed.ok_or(Error::Exhausted {
            what: "room in a merge output",
        })?;
        output.tombstone_bytes += len as u64;
        Ok(())
    }

    /// The output to write a record of `len` bytes into; `base` is at most every sequence number
    /// that is still to come.
    fn output(&mut self, len: usize, base: SeqNo, seq: SeqNo) -> Result<&mut Writing<D>> {
        let fits = self.writing.as_ref().is_some_and(|writing| {
            let delta = seq.0.checked_sub(writing.writer.header().base_seq.0);
            writing.writer.has_room(len) && delta.is_some_and(|d| u32::try_from(d).is_ok())
        });
        if !fits {
            self.finish_output()?;
            let header = self.around.new_header(base);
            let capacity = (self.options.segment_size as usize).max(HEADER_LEN + len + FOOTER_LEN);
            let writer = SegmentWriter::create(self.disk, self.dir, header, capacity)?;
            self.writing = Some(Writing {
                writer,
                moves: Vec::new(),
                tombstone_bytes: 0,
            });
        }
        self.writing.as_mut().ok_or(Error::Exhausted {
            what: "merge outputs",
        })
    }

    /// Seals the output that is being written: it and its hint file are durable after this, but
    /// for their names.
    fn finish_output(&mut self) -> Result<()> {
        let Some(writing) = &mut self.writing else {
            return Ok(());
        };
        let (summary, footer) = writing.writer.seal(self.hasher)?;
        let header = *writing.writer.header();
        write_hint(self.disk, self.dir, &header, &summary, &footer)?;
        let Some(Writing {
            writer,
            moves,
            tombstone_bytes,
        }) = self.writing.take()
        else {
            return Ok(());
        };
        self.merged.outputs.push(Output {
            id: header.id,
            segment: writer.into_sealed(footer.data_len, self.options.read_mode),
            data_len: footer.data_len,
            records: footer.records,
            tombstone_bytes,
            earliest_expiry_ms: footer.earliest_expiry_ms,
            moves,
        });
        Ok(())
    }
}

impl<D: Disk> Merged<D> {
    /// Removes the outputs' files: the manifest never came to name them.
    pub(crate) fn discard(self) {
        for output in self.outputs {
            output.segment.doom();
        }
    }
}
