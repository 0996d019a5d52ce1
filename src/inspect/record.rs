//! One record, one batch frame, or bytes that are neither: what a segment is made of.

use std::borrow::Cow;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use super::source::{Fault, Source, damage};
use super::view::View;
use crate::disk::Disk;
use crate::error::{Error, Result};
use crate::format::batch::FRAME_OVERHEAD;
use crate::format::manifest::SegmentState;
use crate::format::record::{self, Kind};
use crate::format::{Invalid, SegmentId, SeqNo, value};
use crate::segment::{ReadMode, Segment};
use crate::verify::DamageKind;

/// Something in a segment, from [`Records`](super::Records).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Item {
    /// A put or a tombstone, with a checksum that fits. Those of a batch come one by one, behind
    /// their frame.
    Record(Record),
    /// The frame around the records of a batch, with a checksum that fits.
    BatchFrame(BatchFrame),
    /// Bytes that were durable once and are not what was written.
    Damaged(DamagedRange),
    /// The end of the active segment, if a crash left an unfinished write there, or one is being made
    /// right now. Not damage: nobody was told that this was written.
    TornTail(DamagedRange),
}

impl Item {
    /// Where it begins, in bytes from the beginning of its segment.
    pub fn offset(&self) -> u64 {
        match self {
            Item::Record(record) => record.info.offset,
            Item::BatchFrame(frame) => frame.offset,
            Item::Damaged(range) | Item::TornTail(range) => range.offset,
        }
    }
}

/// What a record's header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RecordInfo {
    /// Where it begins, in bytes from the beginning of its segment.
    pub offset: u64,
    /// How long it is, with its header and padding, in bytes.
    pub len: u64,
    /// What it does to its key.
    pub kind: RecordKind,
    /// Its sequence number: the version that it gave the key.
    pub seq: SeqNo,
    /// The key's length, in bytes.
    pub key_len: usize,
    /// How many bytes the value takes in the segment; 0 for a tombstone.
    pub stored_len: usize,
    /// How long the value is, in bytes; `None` for a compressed one that does not say it.
    pub value_len: Option<usize>,
    /// Whether the value is stored compressed.
    pub compressed: bool,
    /// When it expires, in milliseconds since the epoch.
    pub expires_at_ms: Option<u64>,
    /// Whether another key with the same hash had a value when this was written.
    pub collides: bool,
    /// Whether it lies in a batch frame.
    pub batched: bool,
    /// Up to where the segment was on the disk when this was written, as far as the record says it.
    pub durable_upto: Option<u64>,
}

/// What a record does to its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RecordKind {
    /// Gives it a value.
    Put,
    /// Deletes it.
    Tombstone,
}

impl fmt::Display for RecordKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            RecordKind::Put => "put",
            RecordKind::Tombstone => "tombstone",
        })
    }
}

impl RecordInfo {
    pub(super) fn of(record: &record::Record<'_>, offset: u64, base_seq: SeqNo) -> RecordInfo {
        let stored = record.value();
        let compressed = record.is_compressed();
        RecordInfo {
            offset,
            len: record.len() as u64,
            kind: match record.kind() {
                Kind::Tombstone => RecordKind::Tombstone,
                Kind::Put | Kind::Frame => RecordKind::Put,
            },
            seq: record.seq(base_seq),
            key_len: record.key().len(),
            stored_len: stored.len(),
            value_len: if compressed {
                value::decompressed_len(stored).ok()
            } else {
                Some(stored.len())
            },
            compressed,
            expires_at_ms: record.expires_at_ms(),
            collides: record.collides(),
            batched: record.is_batched(),
            durable_upto: claim(record, offset),
        }
    }
}

fn claim(record: &record::Record<'_>, offset: u64) -> Option<u64> {
    Some(record.synced().synced_upto(offset)).filter(|upto| *upto > 0)
}

/// A put or a tombstone, with key and value.
///
/// It shares the memory that its segment was read into, and keeps it.
#[derive(Clone)]
#[non_exhaustive]
pub struct Record {
    /// What its header says.
    pub info: RecordInfo,
    memory: Arc<Memory>,
    /// Where in the memory it begins.
    at: usize,
}

/// What was read of a segment.
pub(super) struct Memory {
    pub(super) path: PathBuf,
    pub(super) bytes: Vec<u8>,
}

impl Record {
    pub(super) fn new(info: RecordInfo, memory: Arc<Memory>, at: usize) -> Record {
        Record { info, memory, at }
    }

    fn parsed(&self) -> Option<record::Record<'_>> {
        record::Record::parse(self.memory.bytes.get(self.at..)?).ok()
    }

    /// The key.
    pub fn key(&self) -> &[u8] {
        self.parsed().map_or(&[], |record| record.key())
    }

    /// The value as it is stored: compressed, if [`RecordInfo::compressed`] says so. Empty for a
    /// tombstone.
    pub fn stored_value(&self) -> &[u8] {
        self.parsed().map_or(&[], |record| record.value())
    }

    /// The value, decompressed if need be; `None` for a tombstone.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`] when a compressed value does not decompress.
    pub fn value(&self) -> Result<Option<Cow<'_, [u8]>>> {
        if self.info.kind == RecordKind::Tombstone {
            return Ok(None);
        }
        let stored = self.stored_value();
        if !self.info.compressed {
            return Ok(Some(Cow::Borrowed(stored)));
        }
        value::decompress(stored)
            .map(|value| Some(Cow::Owned(value)))
            .map_err(|reason| {
                Error::corrupt(&self.memory.path, self.info.offset, reason.to_string())
            })
    }
}

impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Record")
            .field("key", &format_args!("{}", self.key().escape_ascii()))
            .field("info", &self.info)
            .finish_non_exhaustive()
    }
}

/// The frame around the records of a batch: it is there as a whole, or not at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BatchFrame {
    /// Where it begins, in bytes from the beginning of its segment.
    pub offset: u64,
    /// How long it is, with all its records, in bytes.
    pub len: u64,
    /// How many records it holds.
    pub records: usize,
    /// The first one's sequence number.
    pub seq: SeqNo,
    /// Up to where the segment was on the disk when this was written, as far as the frame says it.
    pub durable_upto: Option<u64>,
}

impl BatchFrame {
    pub(super) fn of(
        frame: &record::Record<'_>,
        records: usize,
        offset: u64,
        base_seq: SeqNo,
    ) -> BatchFrame {
        BatchFrame {
            offset,
            len: frame.len() as u64,
            records,
            seq: frame.seq(base_seq),
            durable_upto: claim(frame, offset),
        }
    }

    /// Where its first record begins.
    pub(super) fn first_member(&self) -> u64 {
        self.offset + FRAME_OVERHEAD as u64
    }
}

/// Bytes in which there is no sound record.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DamagedRange {
    /// Where they begin, in bytes from the beginning of their segment.
    pub offset: u64,
    /// How many they are.
    pub len: u64,
    /// What is wrong where they begin.
    pub reason: String,
}

impl fmt::Display for DamagedRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes at {}: {}", self.len, self.offset, self.reason)
    }
}

/// Reads the one record at an offset.
pub(super) fn read<D: Disk>(
    source: &Source<D>,
    view: &View,
    id: SegmentId,
    state: Option<SegmentState>,
    offset: u64,
) -> Result<Record, Fault> {
    let file = source.open(view, id)?;
    let header = file.header.map_err(Fault::Damaged)?;
    let end = state.and_then(SegmentState::data_len).unwrap_or(file.len);
    let segment = Segment::sealed(source.disk.clone(), file.path, header, end, ReadMode::Pread);
    let segment = segment.map_err(fault)?;
    let (info, bytes) = read_from(&segment, offset)?;
    let path = segment.path().to_path_buf();
    Ok(Record::new(info, Arc::new(Memory { path, bytes }), 0))
}

/// A record that was found at an offset, verified.
pub(super) fn read_from<D: Disk>(
    segment: &Segment<D>,
    offset: u64,
) -> Result<(RecordInfo, Vec<u8>), Fault> {
    let bytes = segment.copy_record(offset).map_err(fault)?;
    let seed = segment.checksum_seed();
    let decoded = record::Record::decode(&bytes, seed, offset)
        .and_then(|record| match record.kind() {
            Kind::Frame => Err(Invalid::Field("a batch frame begins here, and no record")),
            Kind::Put | Kind::Tombstone => Ok(record),
        })
        .map(|record| RecordInfo::of(&record, offset, segment.header().base_seq));
    match decoded {
        Ok(info) => Ok((info, bytes)),
        Err(reason) => {
            let (path, reason) = (segment.path(), reason.to_string());
            let damaged = damage(path, offset, DamageKind::Record, &reason);
            Err(Fault::Damaged(damaged))
        }
    }
}

/// What an error of reading a segment comes to here.
pub(super) fn fault(error: Error) -> Fault {
    match error {
        Error::Io { source, .. } if source.kind() == std::io::ErrorKind::NotFound => Fault::Missing,
        Error::Io { source, path, .. } => {
            let reason = source.to_string();
            Fault::Damaged(damage(&path, 0, DamageKind::Unreadable, &reason))
        }
        Error::Corrupt {
            file,
            offset,
            reason,
        } => Fault::Damaged(damage(&file, offset, DamageKind::Record, &reason)),
        other => Fault::Failed(other),
    }
}
