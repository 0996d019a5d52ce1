//! A hint file: its header, and its entries one by one.

use std::fmt;
use std::path::PathBuf;

use super::source::Source;
use super::view::View;
use crate::disk::Disk;
use crate::error::{Error, Result};
use crate::format::hint::{self, Hint, HintOwner};
use crate::format::manifest::SegmentState;
use crate::format::{FORMAT_VERSION, SegmentId, SeqNo, StoreId};
use crate::segment::writer::hint_owner;
use crate::verify::bytes;

/// A hint file, from [`Inspector::hint`](super::Inspector::hint). Holds it in memory.
#[non_exhaustive]
pub struct HintInfo {
    /// The file.
    pub path: PathBuf,
    /// How long it is, in bytes.
    pub file_len: u64,
    /// The format's version.
    pub version: u32,
    /// Which optional parts of the format are used. Bit 0: entries say when they expire.
    pub flags: u32,
    /// The store that it belongs to.
    pub store: StoreId,
    /// The segment that it sums up.
    pub segment: SegmentId,
    /// Where the segment's records end, in bytes.
    pub data_len: u64,
    /// The segment's base of sequence numbers.
    pub base_seq: SeqNo,
    /// CRC-32 of the segment's header and records.
    pub data_checksum: u32,
    /// How many of the six bytes of a hash the table of buckets says: 0, 1 or 2.
    pub prefix_bytes: u8,
    /// How many entries there are: one for each record, stale ones and tombstones included.
    pub records: usize,
    /// When the first value expires, in milliseconds since the epoch; `None` if none does.
    pub earliest_expiry_ms: Option<u64>,
    hint: Hint<Vec<u8>>,
}

/// What a hint file says of one record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct HintEntry {
    /// The hash of the record's key: 48 bits.
    pub hash: u64,
    /// Where in the segment the record begins, in bytes.
    pub offset: u64,
    /// How long the record is, in bytes; `None` from 512 KiB on, when only the record says it.
    pub len: Option<u64>,
    /// Its sequence number.
    pub seq: SeqNo,
    /// Whether it is a tombstone.
    pub tombstone: bool,
    /// Whether another key with the same hash had a value when it was written.
    pub collides: bool,
    /// When it expires, in milliseconds since the epoch.
    pub expires_at_ms: Option<u64>,
}

impl HintEntry {
    fn of(entry: &hint::HintEntry) -> HintEntry {
        HintEntry {
            hash: entry.hash.get(),
            offset: entry.offset,
            len: (entry.len != 0).then_some(u64::from(entry.len)),
            seq: entry.seq,
            tombstone: entry.tombstone,
            collides: entry.collides,
            expires_at_ms: time(entry.expires_at_ms),
        }
    }
}

fn time(ms: u64) -> Option<u64> {
    (ms != u64::MAX).then_some(ms)
}

impl HintInfo {
    /// The entries in their order: by hash, then by sequence number.
    pub fn entries(&self) -> impl Iterator<Item = HintEntry> + '_ {
        let entries = self.hint.entries(0..self.hint.len());
        entries.map(|entry| HintEntry::of(&entry))
    }
}

impl fmt::Debug for HintInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HintInfo")
            .field("path", &self.path)
            .field("records", &self.records)
            .finish_non_exhaustive()
    }
}

/// Reads and checks a hint file; nothing where there is none.
pub(super) fn read<D: Disk>(source: &Source<D>, id: SegmentId) -> Result<Option<HintInfo>> {
    let view = View::read(source)?;
    let path = source.hint_path(id);
    let file = bytes::read(&source.disk, &path, u64::MAX);
    let Some(file) = file.map_err(|e| Error::io("read", &path, e))? else {
        return Ok(None);
    };
    // A writer makes it before the manifest says that the segment is sealed: it may be half there.
    let is_sealed = matches!(view.find(id).1, Some(SegmentState::Sealed { .. }));
    let may_be_half = view.manifest.is_ok() && !is_sealed;
    if let Some(bad) = file.unreadable.first() {
        return Err(Error::corrupt(&path, bad.start, &bad.reason[..]));
    }
    let decoded = HintOwner::read(&file.bytes)
        .and_then(|owner| Hint::decode(file.bytes, &owner).map(|hint| (hint, owner)));
    let (hint, owner) = match decoded {
        Ok(decoded) => decoded,
        Err(_) if may_be_half => return Ok(None),
        Err(reason) => return Err(Error::invalid(&path, 0, "hint file", &reason)),
    };
    if !fits(source, &view, id, &owner) {
        let (segment, store) = (owner.segment, owner.store);
        let reason = format!("it belongs to segment {segment} of store {store}, in another state");
        return Err(Error::corrupt(&path, 0, reason));
    }
    Ok(Some(HintInfo {
        path,
        file_len: file.file_len,
        version: FORMAT_VERSION,
        flags: hint.flags(),
        store: owner.store,
        segment: owner.segment,
        data_len: owner.data_len,
        base_seq: owner.base_seq,
        data_checksum: owner.data_checksum,
        prefix_bytes: hint.prefix_bytes(),
        records: hint.len(),
        earliest_expiry_ms: time(hint.earliest_expiry_ms()),
        hint,
    }))
}

/// Whether a hint file belongs to a segment, as far as there is something to compare it with.
fn fits<D: Disk>(source: &Source<D>, view: &View, id: SegmentId, owner: &HintOwner) -> bool {
    if owner.segment != id || view.store().is_some_and(|store| store != owner.store) {
        return false;
    }
    let Ok(file) = source.open(view, id) else {
        return true;
    };
    let Ok(header) = &file.header else {
        return true;
    };
    let data_len = match view.find(id).1 {
        Some(SegmentState::Sealed { data_len }) => data_len,
        // Nobody says that it is sealed, but itself.
        _ => owner.data_len,
    };
    match file.footer(data_len) {
        Ok(footer) => *owner == hint_owner(header, &footer),
        Err(_) => (owner.store, owner.base_seq) == (header.store, header.base_seq),
    }
}
