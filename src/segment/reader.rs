//! A segment as readers see it: records by their offset, from a map or by `pread`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::disk::{Disk, DiskFile, Region};
use crate::error::{Error, Result};
use crate::format::hint::Hint;
use crate::format::record::{self, RECORD_HEADER_LEN, Record};
use crate::format::segment::SegmentHeader;
use crate::format::{Invalid, SegmentId, names};
use crate::sync::{AtomicBool, OnceLock, Ordering};

/// How sealed segments are read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReadMode {
    /// Through a memory map, with no copy. A segment that cannot be mapped (the address space or
    /// `vm.max_map_count` is used up) is read as by [`ReadMode::Pread`].
    #[default]
    Mmap,
    /// By positioned reads into memory of their own. For file systems where reading a map can
    /// fault: network file systems, FUSE. A failed read is an error then, not a signal.
    Pread,
}

/// How many bytes a `pread` asks for before it knows how long the record is.
const FIRST_PREAD_LEN: usize = 4096;

/// A readable segment.
pub(crate) struct Segment<D: Disk> {
    header: SegmentHeader,
    seed: u32,
    path: PathBuf,
    source: Source<D::File>,
    /// Its hint, once somebody asked for it; `None` if it cannot be read.
    hint: OnceLock<Option<Hint<Region>>>,
    /// Set when the segment left the manifest: its files go with the last reader.
    doomed: AtomicBool,
    disk: D,
}

enum Source<F> {
    Mapped(Option<Arc<Region>>),
    File { file: F, data_len: u64 },
}

impl<D: Disk> Segment<D> {
    /// A segment whose bytes are in `region`: a map, or an append buffer.
    pub(crate) fn mapped(
        disk: D,
        path: PathBuf,
        header: SegmentHeader,
        region: Arc<Region>,
    ) -> Segment<D> {
        Segment::new(disk, path, header, Source::Mapped(Some(region)))
    }

    /// Opens a sealed segment's data for reading as `mode` says. The file is closed again once
    /// it is mapped.
    pub(crate) fn sealed(
        disk: D,
        path: PathBuf,
        header: SegmentHeader,
        data_len: u64,
        mode: ReadMode,
    ) -> Result<Segment<D>> {
        let file = disk
            .open(&path, crate::disk::OpenMode::Read)
            .map_err(|e| Error::io("open", &path, e))?;
        let map = match mode {
            ReadMode::Mmap => usize::try_from(data_len)
                .ok()
                .and_then(|len| file.map(len).ok()),
            ReadMode::Pread => None,
        };
        let source = match map {
            Some(region) => Source::Mapped(Some(Arc::new(region))),
            None => Source::File { file, data_len },
        };
        Ok(Segment::new(disk, path, header, source))
    }

    fn new(disk: D, path: PathBuf, header: SegmentHeader, source: Source<D::File>) -> Segment<D> {
        let seed = header.checksum_seed();
        Segment {
            header,
            seed,
            path,
            source,
            hint: OnceLock::new(),
            doomed: AtomicBool::new(false),
            disk,
        }
    }

    pub(crate) fn id(&self) -> SegmentId {
        self.header.id
    }

    pub(crate) fn header(&self) -> &SegmentHeader {
        &self.header
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn checksum_seed(&self) -> u32 {
        self.seed
    }

    /// The bytes, where they can be read in place.
    #[inline]
    pub(crate) fn region(&self) -> Option<&Arc<Region>> {
        match &self.source {
            Source::Mapped(region) => region.as_ref(),
            Source::File { .. } => None,
        }
    }

    /// The record at `offset` of a region, with its lengths checked but not its checksum.
    #[inline]
    pub(crate) fn record_in<'r>(&self, region: &'r Region, offset: u64) -> Result<Record<'r>> {
        let bytes = region.tail(offset as usize).ok_or(Invalid::Short);
        bytes
            .and_then(Record::parse)
            .map_err(|reason| self.damage(offset, &reason))
    }

    /// The bytes of the record at `offset`, copied.
    pub(crate) fn copy_record(&self, offset: u64) -> Result<Vec<u8>> {
        let (file, data_len) = match &self.source {
            Source::Mapped(Some(region)) => {
                return self
                    .record_in(region, offset)
                    .map(|record| record.bytes().to_vec());
            }
            Source::Mapped(None) => return Err(self.damage(offset, &Invalid::Short)),
            Source::File { file, data_len } => (file, *data_len),
        };
        let read = |buf: &mut [u8], offset| {
            file.read_at(buf, offset)
                .map_err(|e| Error::io("read", &self.path, e))
        };
        let remaining = data_len.saturating_sub(offset) as usize;
        let mut bytes = vec![0; remaining.min(FIRST_PREAD_LEN)];
        if read(&mut bytes, offset).is_err() {
            // What cannot be read may be behind the record.
            bytes.truncate(RECORD_HEADER_LEN);
            read(&mut bytes, offset)?;
        }
        let head = bytes
            .first_chunk::<RECORD_HEADER_LEN>()
            .ok_or(Invalid::Short);
        let len = head
            .and_then(record::announced_len)
            .and_then(|len| {
                if len <= remaining {
                    Ok(len)
                } else {
                    Err(Invalid::Short)
                }
            })
            .map_err(|reason| self.damage(offset, &reason))?;
        let have = bytes.len();
        bytes.resize(len, 0);
        if len > have {
            read(&mut bytes[have..], offset + have as u64)?;
        }
        Ok(bytes)
    }

    /// The segment's hint, opened when it is first asked for and kept from then on: it is mapped,
    /// and takes no memory of its own.
    pub(crate) fn hint(
        &self,
        open: impl FnOnce() -> Option<Hint<Region>>,
    ) -> Option<&Hint<Region>> {
        self.hint.get_or_init(open).as_ref()
    }

    /// Shows `read` the record at `offset`, with its lengths checked but not its checksum.
    pub(crate) fn with_record<R>(
        &self,
        offset: u64,
        read: impl FnOnce(&Record<'_>) -> R,
    ) -> Result<R> {
        if let Some(region) = self.region() {
            return self.record_in(region, offset).map(|record| read(&record));
        }
        let bytes = self.copy_record(offset)?;
        Record::parse(&bytes)
            .map(|record| read(&record))
            .map_err(|reason| self.damage(offset, &reason))
    }

    /// As [`with_record`](Segment::with_record), of a record whose checksum is right.
    pub(crate) fn with_sound_record<R>(
        &self,
        offset: u64,
        read: impl FnOnce(&Record<'_>) -> R,
    ) -> Result<R> {
        let read = |record: &Record<'_>| {
            let is_sound = record.is_valid(self.checksum_seed(), offset);
            is_sound.then(|| read(record))
        };
        self.with_record(offset, read)?
            .ok_or_else(|| self.damage(offset, &Invalid::Checksum))
    }

    /// The error for a record at `offset` that is not sound.
    #[cold]
    pub(crate) fn damage(&self, offset: u64, reason: &Invalid) -> Error {
        Error::corrupt(&self.path, offset, reason.to_string())
    }

    /// Removes the file, and its hint file, as soon as nobody reads it any more.
    pub(crate) fn doom(&self) {
        self.doomed.store(true, Ordering::Release);
    }

    /// Leaves the file where it is after all: an orphan, which the next open removes.
    pub(crate) fn spare(&self) {
        self.doomed.store(false, Ordering::Release);
    }
}

impl<D: Disk> Drop for Segment<D> {
    fn drop(&mut self) {
        if !self.doomed.load(Ordering::Acquire) {
            return;
        }
        // The maps first: Windows does not remove a mapped file.
        self.hint.take();
        if let Source::Mapped(region) = &mut self.source {
            *region = None;
        }
        // A file that cannot be removed now is an orphan that the next open removes: the manifest
        // no longer names it.
        let _ = self.disk.unlink(&self.path);
        let _ = self
            .disk
            .unlink(&self.path.with_file_name(names::hint(self.id())));
    }
}
