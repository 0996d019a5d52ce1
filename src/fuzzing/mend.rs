//! Makes checksums, and what else must fit together, right in bytes that a fuzzer made: it does not
//! find them by chance, and what they guard is not reached without them.

use crate::format::batch::FRAME_OVERHEAD;
use crate::format::hint::{self, HintOwner};
use crate::format::manifest::{Manifest, SegmentState};
use crate::format::names::{self, FileName};
use crate::format::record::{self, Kind, Record};
use crate::format::segment::{FOOTER_LEN, HEADER_LEN, SegmentHeader};
use crate::format::{KeyHasher, SegmentId, SeqNo, StoreId};
use crate::segment::hint::Summary;
use crate::segment::scanner::Check;

const CHECKSUM_LEN: usize = 4;
/// Magic 8, version 4, flags 4 come first in every file; then the store, 16 bytes.
const STORE_AT: usize = 16;
/// Behind it, the segment's id, in segments and hint files.
const ID_AT: usize = STORE_AT + 16;
/// In a hint file: the data's length, the base sequence number, the data's checksum.
const HINT_DATA_LEN_AT: usize = ID_AT + 8;
const HINT_BASE_AT: usize = HINT_DATA_LEN_AT + 8;
const HINT_DATA_CHECKSUM_AT: usize = HINT_BASE_AT + 8;
/// In a footer: the magic 8, then the data's length; its checksum stands before the footer's own.
const FOOTER_DATA_LEN_AT: usize = 8;
const FOOTER_DATA_CHECKSUM_AT: usize = FOOTER_LEN - 2 * CHECKSUM_LEN;

/// What [`directory`] makes right.
#[derive(Clone, Copy, Debug)]
#[allow(clippy::struct_excessive_bools, reason = "each is a choice by itself")]
pub struct Mending {
    /// The manifest's checksum.
    pub manifest: bool,
    /// Each segment's header: it belongs to the manifest's store and has the id of its name. The
    /// checksum of each record.
    pub records: bool,
    /// The length and the checksum in each footer; the manifest's lengths of segments, too.
    pub footers: bool,
    /// To which segment, in which state, each hint file belongs; its checksum.
    pub hints: bool,
    /// Each hint file is made from its segment, where there is one.
    pub fresh_hints: bool,
}

/// Makes right what belongs together in the files of a data directory, as far as `mending` says.
pub fn directory(files: &mut [(String, Vec<u8>)], mending: Mending) {
    let manifest_at = files.iter().position(|(name, _)| name == names::MANIFEST);
    if let Some(at) = manifest_at.filter(|_| mending.manifest) {
        files[at].1 = with_checksum(&files[at].1);
    }
    let manifest = manifest_at.and_then(|at| Manifest::decode(&files[at].1).ok());
    let store = manifest.as_ref().map_or(StoreId([0; 16]), |m| m.store);
    let mut segments = Vec::new();
    for (name, bytes) in files.iter_mut() {
        let FileName::Segment(id) = names::parse(name) else {
            continue;
        };
        if mending.records {
            write(bytes, STORE_AT, &store.0);
            write(bytes, ID_AT, &id.0.to_le_bytes());
            mend_checksum_of_first(bytes, HEADER_LEN);
        }
        let Ok(header) = SegmentHeader::decode(bytes) else {
            continue;
        };
        if mending.records {
            records(bytes, &header);
        }
        let data_len = end_of_records(bytes);
        if mending.footers {
            footer(bytes, data_len);
        }
        segments.push((header, data_len, crc32fast::hash(&bytes[..data_len])));
    }
    if let (Some(at), Some(mut manifest)) = (manifest_at, manifest) {
        if mending.manifest && mending.footers {
            lengths(&mut manifest, &segments);
            files[at].1 = manifest.encode();
        }
        if mending.fresh_hints {
            fresh_hints(files, manifest.hasher, &segments);
        }
    }
    for (name, bytes) in files.iter_mut().filter(|_| mending.hints) {
        let FileName::Hint(id) = names::parse(name) else {
            continue;
        };
        if let Some((header, data_len, checksum)) = find(&segments, id) {
            write(bytes, STORE_AT, &header.store.0);
            write(bytes, ID_AT, &id.0.to_le_bytes());
            write(bytes, HINT_DATA_LEN_AT, &(*data_len as u64).to_le_bytes());
            write(bytes, HINT_BASE_AT, &header.base_seq.0.to_le_bytes());
            write(bytes, HINT_DATA_CHECKSUM_AT, &checksum.to_le_bytes());
        }
        *bytes = with_checksum(bytes);
    }
}

/// A segment's header, where its records end, and their checksum.
type Known = (SegmentHeader, usize, u32);

fn find(segments: &[Known], id: SegmentId) -> Option<&Known> {
    segments.iter().find(|(header, ..)| header.id == id)
}

fn lengths(manifest: &mut Manifest, segments: &[Known]) {
    for (id, state) in &mut manifest.segments {
        let Some((_, end, _)) = find(segments, *id) else {
            continue;
        };
        match state {
            SegmentState::Closed { data_len } | SegmentState::Sealed { data_len } => {
                *data_len = *end as u64;
            }
            SegmentState::Active => {}
        }
    }
}

/// Puts a hint file in the place of each that has a sound segment.
fn fresh_hints(files: &mut [(String, Vec<u8>)], hasher: KeyHasher, segments: &[Known]) {
    for (header, data_len, data_checksum) in segments {
        let bytes_of = |name: &str| files.iter().position(|(other, _)| other == name);
        let segment = bytes_of(&names::segment(header.id));
        let (Some(segment), Some(at)) = (segment, bytes_of(&names::hint(header.id))) else {
            continue;
        };
        let data = &files[segment].1[..*data_len];
        let (summary, _) = Summary::of(data, header, hasher, Check::Sealed);
        let owner = HintOwner {
            store: header.store,
            segment: header.id,
            base_seq: header.base_seq,
            data_len: *data_len as u64,
            data_checksum: *data_checksum,
        };
        files[at].1 = hint::encode(&owner, summary.entries());
    }
}

/// Makes the checksum of every record right that has possible lengths, and those in frames first.
pub(super) fn records(bytes: &mut [u8], header: &SegmentHeader) {
    let seed = header.checksum_seed();
    let mut at = HEADER_LEN;
    while let Some((len, _)) = shape_at(bytes, at) {
        record(&mut bytes[at..at + len], seed, at as u64);
        at += len;
    }
}

/// Makes the checksum of a record right, and before it those of the records in it if it is a frame.
pub(super) fn record(bytes: &mut [u8], seed: u32, offset: u64) {
    if shape_at(bytes, 0).is_some_and(|(_, kind)| kind == Kind::Frame) {
        let mut at = FRAME_OVERHEAD;
        while let Some((len, _)) = shape_at(bytes, at) {
            record::finish(seed, offset + at as u64, &mut bytes[at..at + len]);
            at += len;
        }
    }
    record::finish(seed, offset, bytes);
}

fn shape_at(bytes: &[u8], at: usize) -> Option<(usize, Kind)> {
    let record = Record::parse(bytes.get(at..)?).ok()?;
    Some((record.len(), record.kind()))
}

/// Where the first record is that has impossible lengths: there a footer would begin.
pub(super) fn end_of_records(bytes: &[u8]) -> usize {
    let mut at = HEADER_LEN;
    while let Some((len, _)) = shape_at(bytes, at) {
        at += len;
    }
    at
}

/// Makes the footer right that begins where the records end, if there are bytes for one.
pub(super) fn footer(bytes: &mut [u8], data_len: usize) {
    if bytes.len() < data_len + FOOTER_LEN {
        return;
    }
    let (data, footer) = bytes.split_at_mut(data_len);
    write(footer, FOOTER_DATA_LEN_AT, &(data_len as u64).to_le_bytes());
    write(
        footer,
        FOOTER_DATA_CHECKSUM_AT,
        &crc32fast::hash(data).to_le_bytes(),
    );
    mend_checksum_of_first(footer, FOOTER_LEN);
}

/// The bytes with their last four made the checksum of the others.
pub(super) fn with_checksum(bytes: &[u8]) -> Vec<u8> {
    let covered = &bytes[..bytes.len().saturating_sub(CHECKSUM_LEN)];
    [covered, &crc32fast::hash(covered).to_le_bytes()].concat()
}

/// Makes the last four of the first `len` bytes the checksum of those before them.
fn mend_checksum_of_first(bytes: &mut [u8], len: usize) {
    if let Some(bytes) = bytes.get_mut(..len) {
        let (covered, checksum) = bytes.split_at_mut(len - CHECKSUM_LEN);
        checksum.copy_from_slice(&crc32fast::hash(covered).to_le_bytes());
    }
}

/// Writes over what is there, if there is room.
fn write(bytes: &mut [u8], at: usize, what: &[u8]) {
    if let Some(place) = bytes.get_mut(at..at + what.len()) {
        place.copy_from_slice(what);
    }
}

/// A base sequence number for a header of one's own.
pub(super) fn own_header() -> SegmentHeader {
    SegmentHeader {
        store: StoreId([1; 16]),
        id: SegmentId(1),
        base_seq: SeqNo(1),
        salt: 1,
    }
}
