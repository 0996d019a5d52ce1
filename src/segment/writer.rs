//! The active segment's writing end: records into the append buffer, the buffer into the file.
//!
//! Three marks, always in this order: `synced <= written <= appended`. Bytes below `appended` are
//! in memory, below `written` in the file, below `synced` on the disk.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::hint::{Entries, Summary};
use super::reader::{ReadMode, Segment};
use super::scanner::{self, Check};
use crate::bugs::{Bug, is_planted};
use crate::disk::{AppendBuffer, Disk, DiskFile, OpenMode, Region, Spare};
use crate::error::{Error, Result};
use crate::format::batch::{self, FRAME_OVERHEAD};
use crate::format::hint::{self, HintOwner};
use crate::format::record::{self, Record, RecordFields, SyncedDistance};
use crate::format::segment::{FOOTER_LEN, HEADER_LEN, SegmentFooter, SegmentHeader};
use crate::format::{KeyHash, KeyHasher, names};

/// Appends to one segment.
pub(crate) struct SegmentWriter<D: Disk> {
    disk: D,
    path: PathBuf,
    header: SegmentHeader,
    seed: u32,
    file: Arc<D::File>,
    buffer: AppendBuffer,
    /// What its hint file is to list, without reading the records again; `None` if some of them
    /// came without their hash.
    entries: Option<Entries>,
    written: u64,
    synced: u64,
}

/// Bytes on their way to the disk, which can be written and synced without holding a lock.
pub(crate) struct Unsynced<D: Disk> {
    file: Arc<D::File>,
    region: Arc<Region>,
    path: PathBuf,
    written: u64,
    appended: u64,
}

impl<D: Disk> Unsynced<D> {
    /// Writes what is not in the file yet.
    pub(crate) fn write(&self) -> Result<()> {
        let len = (self.appended - self.written) as usize;
        let bytes = self
            .region
            .slice(self.written as usize, len)
            .unwrap_or_default();
        if bytes.is_empty() {
            return Ok(());
        }
        self.file
            .write_at(bytes, self.written)
            .map_err(|e| Error::io("write", &self.path, e))
    }

    /// Makes everything that was written durable. Not to be tried again after a failure.
    pub(crate) fn sync(&self) -> Result<()> {
        self.file
            .sync_data()
            .map_err(|e| Error::io("sync", &self.path, e))
    }
}

impl<D: Disk> SegmentWriter<D> {
    /// Makes a segment file with room for `capacity` bytes, reserved on the disk, and syncs its
    /// header. Nothing is left behind on failure.
    pub(crate) fn create(
        disk: &D,
        dir: &Path,
        header: SegmentHeader,
        capacity: usize,
    ) -> Result<SegmentWriter<D>> {
        SegmentWriter::create_with(disk, dir, header, || AppendBuffer::new(capacity))
    }

    /// As [`create`](SegmentWriter::create), with the buffer that `buffer` gives.
    pub(crate) fn create_with(
        disk: &D,
        dir: &Path,
        header: SegmentHeader,
        buffer: impl FnOnce() -> io::Result<AppendBuffer>,
    ) -> Result<SegmentWriter<D>> {
        let path = dir.join(names::segment(header.id));
        let file = disk
            .open(&path, OpenMode::CreateNew)
            .map_err(|e| Error::io("create", &path, e))?;
        let encoded = header.encode();
        let begin = || {
            let mut buffer = buffer()?;
            buffer.append(HEADER_LEN, |out| out.copy_from_slice(&encoded));
            file.preallocate(buffer.region().capacity() as u64)?;
            file.write_at(&encoded, 0)?;
            file.sync_data()?;
            Ok(buffer)
        };
        match begin() {
            Ok(buffer) => Ok(SegmentWriter::new(
                disk.clone(),
                path,
                header,
                Arc::new(file),
                buffer,
            )),
            Err(e) => {
                drop(file);
                // Should this fail too, the file is an orphan that the next open removes.
                let _ = disk.unlink(&path);
                Err(Error::io("begin", &path, e))
            }
        }
    }

    /// Makes a segment of the sound records that another one, of this header and these bytes, has
    /// from an offset on, batch frames taken apart: they were durable. Their sequence numbers are
    /// counted from the same base. It is still to be sealed.
    pub(crate) fn create_copy(
        disk: &D,
        dir: &Path,
        header: SegmentHeader,
        (other, bytes, from): (&SegmentHeader, &[u8], u64),
    ) -> Result<SegmentWriter<D>> {
        let capacity = HEADER_LEN + bytes.len() - from as usize + FOOTER_LEN;
        let mut writer = SegmentWriter::create(disk, dir, header, capacity)?;
        let mut is_complete = true;
        let copy = |_, record: Record<'_>| {
            let delta = (record.seq(header.base_seq).0 - header.base_seq.0) as u32;
            is_complete &= writer.append_copy(record.bytes(), delta).is_some();
        };
        scanner::scan(bytes, other, from, Check::Sealed, copy);
        if is_complete {
            Ok(writer)
        } else {
            // Not reached: the copies take no more room than the records.
            Err(Error::Exhausted {
                what: "room for a copy of records",
            })
        }
    }

    /// Continues a segment that was closed in good order: `data` is all of it.
    pub(crate) fn resume(
        disk: &D,
        path: PathBuf,
        header: SegmentHeader,
        file: D::File,
        buffer: AppendBuffer,
    ) -> SegmentWriter<D> {
        SegmentWriter::new(disk.clone(), path, header, Arc::new(file), buffer)
    }

    fn new(
        disk: D,
        path: PathBuf,
        header: SegmentHeader,
        file: Arc<D::File>,
        buffer: AppendBuffer,
    ) -> SegmentWriter<D> {
        let len = buffer.len() as u64;
        let seed = header.checksum_seed();
        let is_empty = len <= HEADER_LEN as u64;
        SegmentWriter {
            disk,
            path,
            header,
            seed,
            file,
            buffer,
            entries: is_empty.then(Entries::default),
            written: len,
            synced: len,
        }
    }

    pub(crate) fn header(&self) -> &SegmentHeader {
        &self.header
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// How far the segment is filled, in memory.
    pub(crate) fn appended(&self) -> u64 {
        self.buffer.len() as u64
    }

    /// The room left, the footer's included.
    pub(crate) fn remaining(&self) -> u64 {
        self.buffer.remaining() as u64
    }

    /// Whether there are no records.
    pub(crate) fn is_empty(&self) -> bool {
        self.buffer.len() <= HEADER_LEN
    }

    /// Whether everything is on the disk.
    pub(crate) fn is_synced(&self) -> bool {
        self.synced == self.appended()
    }

    /// How far the segment is durable.
    pub(crate) fn synced(&self) -> u64 {
        self.synced
    }

    /// Whether `len` more bytes fit, the footer still to come.
    pub(crate) fn has_room(&self, len: usize) -> bool {
        len.checked_add(FOOTER_LEN)
            .is_some_and(|len| len <= self.buffer.remaining())
    }

    /// A reader of everything appended so far and later.
    pub(crate) fn reader(&self) -> Segment<D> {
        let region = Arc::clone(self.buffer.region());
        Segment::mapped(self.disk.clone(), self.path.clone(), self.header, region)
    }

    /// The append buffer.
    pub(crate) fn buffer(&self) -> &AppendBuffer {
        &self.buffer
    }

    /// Goes on in the memory of a full buffer instead of its own, as long as nobody reads this one.
    pub(crate) fn trade_buffer(&mut self, spare: &mut Spare) {
        spare.trade(&mut self.buffer);
    }

    /// Reserves the file's room on the disk again, which closing it gave back.
    pub(crate) fn preallocate(&self) -> Result<()> {
        self.file
            .preallocate(self.buffer.region().capacity() as u64)
            .map_err(|e| Error::io("preallocate", &self.path, e))
    }

    /// How far the segment was durable, as the record appended next will say it.
    pub(crate) fn synced_distance(&self) -> SyncedDistance {
        if is_planted(Bug::NeverAdvanceSyncedUpto) {
            return SyncedDistance::UNKNOWN;
        }
        SyncedDistance::between(self.synced, self.appended())
    }

    /// Appends a record, whose key has this hash, to the buffer; gives its offset. The caller has
    /// asked for room.
    pub(crate) fn append(
        &mut self,
        fields: &RecordFields<'_>,
        hash: KeyHash,
    ) -> Option<(u64, usize)> {
        let offset = self.appended();
        let expires = fields.expires_at_ms.is_some();
        let len = record::encoded_len(fields.key.len(), fields.value.len(), expires);
        let seed = self.seed;
        self.buffer
            .append(len, |out| record::encode(fields, seed, offset, out))?;
        if let Some(entries) = &mut self.entries {
            entries.add_written((offset, len), fields, hash);
        }
        Some((offset, len))
    }

    /// Appends a copy of a record of another segment; gives its offset.
    pub(crate) fn append_copy(&mut self, bytes: &[u8], seq_delta: u32) -> Option<u64> {
        let offset = self.appended();
        let seed = self.seed;
        self.buffer.append(bytes.len(), |out| {
            out.copy_from_slice(bytes);
            record::rewrite(out, seq_delta, seed, offset);
        })?;
        self.entries = None;
        Some(offset)
    }

    /// Appends a batch frame around `members`, each with its key's hash, which take `members_len`
    /// bytes; calls `placed` with each one's offset and length.
    pub(crate) fn append_frame<'a>(
        &mut self,
        members: impl ExactSizeIterator<Item = (RecordFields<'a>, KeyHash)>,
        members_len: usize,
        seq_delta: u32,
        mut placed: impl FnMut(u64, usize),
    ) -> Option<()> {
        let offset = self.appended();
        let seed = self.seed;
        let synced = self.synced_distance();
        let count = members.len() as u32;
        let entries = &mut self.entries;
        self.buffer.append(FRAME_OVERHEAD + members_len, |out| {
            let mut at = FRAME_OVERHEAD;
            for (fields, hash) in members {
                let end = batch::encode_member(&fields, seed, offset, at, out);
                let place = (offset + at as u64, end - at);
                if let Some(entries) = entries {
                    entries.add_written(place, &fields, hash);
                }
                placed(place.0, place.1);
                at = end;
            }
            batch::encode_frame(count, seq_delta, synced, seed, offset, out);
        })
    }

    /// What still has to be written and synced.
    pub(crate) fn unsynced(&self) -> Unsynced<D> {
        Unsynced {
            file: Arc::clone(&self.file),
            region: Arc::clone(self.buffer.region()),
            path: self.path.clone(),
            written: self.written,
            appended: self.appended(),
        }
    }

    /// Notes that `job` was written.
    pub(crate) fn note_written(&mut self, job: &Unsynced<D>) {
        self.written = self.written.max(job.appended);
    }

    /// Notes that `job` was written and synced.
    pub(crate) fn note_synced(&mut self, job: &Unsynced<D>) {
        self.note_written(job);
        self.synced = self.synced.max(job.appended);
    }

    /// Writes the buffer into the file.
    pub(crate) fn write(&mut self) -> Result<()> {
        let len = self.buffer.len() - self.written as usize;
        let bytes = self
            .buffer
            .region()
            .slice(self.written as usize, len)
            .unwrap_or_default();
        if !bytes.is_empty() {
            self.file
                .write_at(bytes, self.written)
                .map_err(|e| Error::io("write", &self.path, e))?;
            self.written = self.appended();
        }
        Ok(())
    }

    /// Takes back what was appended beyond what is in the file, and cuts off what part of it got
    /// into the file before the write failed. The bytes go into a new buffer: the old one may
    /// have readers, whose bytes must not change. Its readers are to be given the new one.
    pub(crate) fn take_back_unwritten(&mut self) -> Result<()> {
        let path = &self.path;
        let fail = |op| move |e| Error::io(op, path, e);
        let old = self.buffer.region();
        let mut buffer = AppendBuffer::new(old.capacity()).map_err(fail("buffer"))?;
        let kept = old.slice(0, self.written as usize).unwrap_or_default();
        buffer.append(kept.len(), |out| out.copy_from_slice(kept));
        self.file.set_len(self.written).map_err(fail("cut back"))?;
        // Durably: what a power cut brought back would have been refused, and could stand before
        // records that are written in its place.
        if !is_planted(Bug::CutRefusedWriteUnsynced) {
            self.file.sync_data().map_err(fail("sync"))?;
        }
        self.synced = self.written;
        self.buffer = buffer;
        self.entries = None;
        Ok(())
    }

    /// Seals the segment: footer, then sync. A crash before the sync leaves a torn footer behind
    /// the records, a crash after it a sealed file that the manifest does not know as such yet;
    /// recovery takes both for an active segment that ends here.
    pub(crate) fn seal(&mut self, hasher: KeyHasher) -> Result<(Summary, SegmentFooter)> {
        let sealed = self.write_footer(hasher)?;
        self.sync()?;
        Ok(sealed)
    }

    /// The first half of [`seal`](SegmentWriter::seal). When it fails, the segment can still be
    /// appended to, in the footer's place.
    pub(crate) fn write_footer(&mut self, hasher: KeyHasher) -> Result<(Summary, SegmentFooter)> {
        self.write()?;
        let data = self.buffer.region().tail(0).unwrap_or_default();
        let summary = match self.entries.take() {
            Some(entries) => Summary::of_written(entries, self.header.base_seq),
            None => Summary::of(data, &self.header, hasher, Check::Trusted).0,
        };
        debug_assert!(
            (summary.entries()).eq(Summary::of(data, &self.header, hasher, Check::Trusted)
                .0
                .entries()),
            "what was noted of the records is what they are"
        );
        let footer = summary.footer_of(data);
        let path = &self.path;
        let fail = |op| move |e| Error::io(op, path, e);
        let end = footer.data_len + FOOTER_LEN as u64;
        self.file
            .write_at(&footer.encode(), footer.data_len)
            .map_err(fail("write"))?;
        // Gives back what was reserved and not used.
        self.file.set_len(end).map_err(fail("cut"))?;
        Ok((summary, footer))
    }

    /// Makes everything that was written durable. Not to be tried again after a failure.
    pub(crate) fn sync(&mut self) -> Result<()> {
        self.file
            .sync_data()
            .map_err(|e| Error::io("sync", &self.path, e))?;
        self.synced = self.written;
        Ok(())
    }

    /// Gives the reserved room back and syncs, without sealing.
    pub(crate) fn close(&mut self) -> Result<()> {
        self.write()?;
        self.file
            .set_len(self.written)
            .and_then(|()| self.file.sync_data())
            .map_err(|e| Error::io("close", &self.path, e))?;
        self.synced = self.written;
        Ok(())
    }

    /// The sealed segment, to be read in place of the append buffer. Falls back to the buffer
    /// where the file cannot be opened again just now.
    pub(crate) fn into_sealed(self, data_len: u64, mode: ReadMode) -> Segment<D> {
        let path = self.path.clone();
        Segment::sealed(self.disk.clone(), path, self.header, data_len, mode)
            .unwrap_or_else(|_| self.reader())
    }
}

/// Writes a segment's hint file. It is not needed for anything but speed, and not trusted without
/// its checksum, so it needs no rename and no synced name.
pub(crate) fn write_hint<D: Disk>(
    disk: &D,
    dir: &Path,
    header: &SegmentHeader,
    summary: &Summary,
    footer: &SegmentFooter,
) -> Result<()> {
    let path = dir.join(names::hint(header.id));
    let bytes = hint::encode(&hint_owner(header, footer), summary.entries());
    let write = || {
        let file = match disk.open(&path, OpenMode::CreateNew) {
            // Not rewritten in place: somebody may have the old one mapped.
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                disk.unlink(&path)?;
                disk.open(&path, OpenMode::CreateNew)?
            }
            opened => opened?,
        };
        file.write_at(&bytes, 0)?;
        file.sync_data()
    };
    write().map_err(|e| {
        let _ = disk.unlink(&path);
        Error::io("write", &path, e)
    })
}

/// Which segment in which state a hint file must belong to.
pub(crate) fn hint_owner(header: &SegmentHeader, footer: &SegmentFooter) -> HintOwner {
    HintOwner {
        store: header.store,
        segment: header.id,
        base_seq: header.base_seq,
        data_len: footer.data_len,
        data_checksum: footer.data_checksum,
    }
}
