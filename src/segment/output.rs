//! The output of a merge: written from front to back through a small buffer, read only once it
//! is sealed. So a merge takes little memory, however large segments are.

use std::path::{Path, PathBuf};

use super::hint::Summary;
use super::reader::{ReadMode, Segment};
use super::writer::write_hint;
use crate::bugs::{Bug, is_planted};
use crate::disk::{Disk, DiskFile, OpenMode};
use crate::error::{Error, Result};
use crate::format::record::{self, Record, RecordFields};
use crate::format::segment::{FOOTER_LEN, HEADER_LEN, SegmentFooter, SegmentHeader};
use crate::format::{KeyHasher, names};

/// How much is written at a time: 1 MiB.
const BUFFER_LEN: usize = 1 << 20;

/// How much is written between two syncs: 8 MiB. Left to the end, the sync of a whole segment
/// would hold up every other sync of the disk.
const SYNC_EVERY_BYTES: u64 = 8 << 20;

/// An output is finished when it has this many records, however small they are: what is kept in
/// memory for each until its hint file is written must not grow with the size of segments.
pub(crate) const MAX_RECORDS: usize = 1 << 20;

/// A sealed output, before the manifest names it.
pub(crate) struct SealedOutput<D: Disk> {
    pub(crate) segment: Segment<D>,
    pub(crate) summary: Summary,
    pub(crate) footer: SegmentFooter,
}

/// Writes one output. Dropped before it is sealed, it removes its files.
pub(crate) struct OutputWriter<D: Disk> {
    disk: D,
    dir: PathBuf,
    path: PathBuf,
    header: SegmentHeader,
    seed: u32,
    hasher: KeyHasher,
    file: Option<D::File>,
    /// How long the segment may become, footer included.
    max_len: u64,
    /// What is not in the file yet.
    buffer: Vec<u8>,
    written: u64,
    synced: u64,
    checksum: crc32fast::Hasher,
    summary: Summary,
    is_sealed: bool,
}

impl<D: Disk> OutputWriter<D> {
    /// Begins an output of about `expected_len` bytes, which are reserved on the disk, and at most
    /// `max_len`, but for a record that is longer alone.
    pub(crate) fn create(
        disk: &D,
        dir: &Path,
        header: SegmentHeader,
        hasher: KeyHasher,
        expected_len: u64,
        max_len: u64,
    ) -> Result<OutputWriter<D>> {
        let path = dir.join(names::segment(header.id));
        let file = disk
            .open(&path, OpenMode::CreateNew)
            .map_err(|e| Error::io("create", &path, e))?;
        let output = OutputWriter {
            disk: disk.clone(),
            dir: dir.to_path_buf(),
            seed: header.checksum_seed(),
            hasher,
            max_len,
            buffer: header.encode().to_vec(),
            written: 0,
            synced: 0,
            checksum: crc32fast::Hasher::new(),
            summary: Summary::new(header.base_seq),
            is_sealed: false,
            header,
            path,
            file: Some(file),
        };
        output.on_file("preallocate", |file| file.preallocate(expected_len))?;
        Ok(output)
    }

    /// Runs an operation on the file, which is there until the output is sealed or dropped.
    fn on_file(
        &self,
        op: &'static str,
        run: impl FnOnce(&D::File) -> std::io::Result<()>,
    ) -> Result<()> {
        let file = self.file.as_ref().ok_or(Error::Exhausted {
            what: "the output of a merge",
        })?;
        run(file).map_err(|e| Error::io(op, &self.path, e))
    }

    pub(crate) fn header(&self) -> &SegmentHeader {
        &self.header
    }

    /// Where the next record goes.
    fn end(&self) -> u64 {
        self.written + self.buffer.len() as u64
    }

    /// Whether `len` more bytes fit, the footer still to come. Anything fits into an empty one.
    pub(crate) fn has_room(&self, len: usize) -> bool {
        let end = self.end() + (len + FOOTER_LEN) as u64;
        self.summary.is_empty() || (end <= self.max_len && self.summary.len() < MAX_RECORDS)
    }

    /// Appends a copy of a record of another segment.
    pub(crate) fn append_copy(&mut self, bytes: &[u8], seq_delta: u32) -> Result<()> {
        self.place(bytes.len(), |out, seed, offset| {
            out.copy_from_slice(bytes);
            record::rewrite(out, seq_delta, seed, offset);
        })
    }

    /// Appends a record.
    pub(crate) fn append(&mut self, fields: &RecordFields<'_>) -> Result<()> {
        let expires = fields.expires_at_ms.is_some();
        let len = record::encoded_len(fields.key.len(), fields.value.len(), expires);
        self.place(len, |out, seed, offset| {
            record::encode(fields, seed, offset, out);
        })
    }

    fn place(&mut self, len: usize, fill: impl FnOnce(&mut [u8], u32, u64)) -> Result<()> {
        let (offset, start) = (self.end(), self.buffer.len());
        self.buffer.resize(start + len, 0);
        fill(&mut self.buffer[start..], self.seed, offset);
        let record = Record::parse(&self.buffer[start..])
            .map_err(|reason| Error::corrupt(&self.path, offset, reason.to_string()))?;
        self.summary.add(offset, &record, self.hasher);
        if self.buffer.len() >= BUFFER_LEN {
            self.write()?;
        }
        Ok(())
    }

    fn write(&mut self) -> Result<()> {
        self.on_file("write", |file| file.write_at(&self.buffer, self.written))?;
        self.checksum.update(&self.buffer);
        self.written += self.buffer.len() as u64;
        self.buffer.clear();
        if self.written - self.synced >= SYNC_EVERY_BYTES {
            self.on_file("sync", DiskFile::sync_data)?;
            self.synced = self.written;
        }
        Ok(())
    }

    /// Writes footer and hint file. All of it is durable after this, but for the names.
    pub(crate) fn seal(mut self, mode: ReadMode) -> Result<SealedOutput<D>> {
        self.write()?;
        let mut summary = std::mem::replace(&mut self.summary, Summary::new(self.header.base_seq));
        summary.sort();
        let footer = summary.footer(self.written, self.checksum.clone().finalize());
        self.on_file("write", |file| {
            file.write_at(&footer.encode(), footer.data_len)
        })?;
        // Gives back what was reserved and not used.
        self.on_file("cut", |file| {
            file.set_len(footer.data_len + FOOTER_LEN as u64)
        })?;
        if !is_planted(Bug::NameUnsyncedOutput) {
            self.on_file("sync", DiskFile::sync_data)?;
        }
        write_hint(&self.disk, &self.dir, &self.header, &summary, &footer)?;
        let segment = Segment::sealed(
            self.disk.clone(),
            self.path.clone(),
            self.header,
            footer.data_len,
            mode,
        )?;
        self.is_sealed = true;
        Ok(SealedOutput {
            segment,
            summary,
            footer,
        })
    }
}

impl<D: Disk> Drop for OutputWriter<D> {
    fn drop(&mut self) {
        self.file = None;
        if !self.is_sealed && !is_planted(Bug::LeaveOutputsOnFullDisk) {
            // What cannot be removed is an orphan that the next open removes.
            let _ = self.disk.unlink(&self.path);
            let _ = self
                .disk
                .unlink(&self.dir.join(names::hint(self.header.id)));
        }
    }
}

const _: () = assert!(BUFFER_LEN > HEADER_LEN);
