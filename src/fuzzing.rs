//! What the fuzzers in `fuzz/` call: the decoders, with the oracles that hold for any bytes.
//!
//! No part of the public interface: it is there with the `fuzzing` feature only, and changes
//! whenever the format's code does. Each function takes any bytes at all and panics when a
//! promise is broken: what is accepted comes out again as the same bytes, and nothing is read
//! beyond the end.
//!
//! A fuzzer does not find checksums by chance, so each function looks at the bytes twice: as they
//! are, and with the checksums made right.

use crate::format::batch::FRAME_OVERHEAD;
use crate::format::hint::{self, Hint, HintEntry, HintOwner};
use crate::format::manifest::Manifest;
use crate::format::record::{self, Kind, Record, RecordFields};
use crate::format::segment::{HEADER_LEN, SegmentFooter, SegmentHeader};
use crate::format::{KeyHasher, SegmentId, SeqNo, StoreId, value};
use crate::segment::hint::Summary;
use crate::segment::salvage::Walk;
use crate::segment::scanner::{self, Behind, Check};

const CHECKSUM_LEN: usize = 4;

/// A manifest.
///
/// # Panics
///
/// When a promise is broken.
pub fn manifest(bytes: &[u8]) {
    for bytes in [bytes, &with_checksum(bytes)] {
        if let Ok(manifest) = Manifest::decode(bytes) {
            assert_eq!(manifest.encode(), bytes, "another manifest comes out");
        }
    }
}

/// A hint file, of whatever segment it says it is.
///
/// # Panics
///
/// When a promise is broken.
pub fn hint(bytes: &[u8]) {
    let Ok(owner) = HintOwner::read(bytes) else {
        return;
    };
    for bytes in [bytes, &with_checksum(bytes)] {
        let Ok(hint) = Hint::decode(bytes, &owner) else {
            continue;
        };
        let entries: Vec<HintEntry> = hint.entries(0..hint.len()).collect();
        assert_eq!(entries.len(), hint.len(), "entries are missing");
        for entry in &entries {
            assert!(
                hint.find(entry.hash).any(|found| found == *entry),
                "an entry is not found by its hash"
            );
        }
        let again = hint::encode(&owner, &entries);
        let again = Hint::decode(again, &owner).map(|hint| {
            let entries: Vec<HintEntry> = hint.entries(0..hint.len()).collect();
            entries
        });
        assert_eq!(again, Ok(entries), "other entries come out");
    }
}

/// A segment: header, records, footer, or any part of that.
///
/// # Panics
///
/// When a promise is broken.
pub fn segment(bytes: &[u8]) {
    if let Ok(header) = SegmentHeader::decode(bytes) {
        assert_eq!(header.encode(), bytes[..HEADER_LEN]);
        records(bytes, &header);
    }
    let header = SegmentHeader {
        store: StoreId([1; 16]),
        id: SegmentId(1),
        base_seq: SeqNo(1),
        salt: 1,
    };
    let mut repaired = header.encode().to_vec();
    repaired.extend_from_slice(bytes.get(HEADER_LEN..).unwrap_or_default());
    repair_records(&mut repaired, &header);
    records(&repaired, &header);
}

/// Scans a segment in all ways, and checks what is found.
fn records(bytes: &[u8], header: &SegmentHeader) {
    let seed = header.checksum_seed();
    for check in [Check::Appended, Check::Sealed, Check::Trusted] {
        let mut last_end = HEADER_LEN as u64;
        let scan = scanner::scan(bytes, header, last_end, check, |offset, record| {
            assert!(offset >= last_end && offset % 8 == 0, "records overlap");
            last_end = offset + record.len() as u64;
            assert!(last_end <= bytes.len() as u64, "a record beyond the end");
            if check != Check::Trusted {
                assert_eq!(encode_again(&record, seed, offset), record.bytes());
            }
            if record.is_compressed() {
                let _ = value::decompress(record.value());
            }
        });
        assert!(last_end <= scan.end, "a record beyond the scan's end");
        let rest = &bytes[(scan.end as usize).min(bytes.len())..];
        if let Ok(footer) = SegmentFooter::decode(rest, scan.end) {
            assert_eq!(footer.encode(), rest[..footer.encode().len()]);
        }
        if let Behind::DurableRecord { offset } = scanner::look_ahead(bytes, header, scan.end) {
            assert!(offset > scan.end, "a look ahead that looks back");
        }
    }
    let mut last_end = HEADER_LEN as u64;
    let mut walked_len = 0;
    let walked = Walk::SEALED.run(bytes, header, |offset, record| {
        assert!(offset >= last_end && offset % 8 == 0, "records overlap");
        last_end = offset + record.len() as u64;
        walked_len += 1;
    });
    let mut end = HEADER_LEN as u64;
    for damaged in &walked.damage {
        assert!(damaged.start >= end && damaged.end > damaged.start);
        end = damaged.end;
    }
    let hasher = KeyHasher::new(1, 48);
    let (summary, scan) = Summary::of(bytes, header, hasher, Check::Sealed);
    assert!(walked_len >= summary.entries.len(), "a walk misses records");
    let data_len = scan.end;
    let owner = HintOwner {
        store: header.store,
        segment: header.id,
        base_seq: header.base_seq,
        data_len,
        data_checksum: 0,
    };
    let hint = Hint::decode(hint::encode(&owner, &summary.entries), &owner);
    let entries = hint.map(|hint| hint.entries(0..hint.len()).collect::<Vec<_>>());
    assert_eq!(
        entries.as_ref().map(Vec::len),
        Ok(summary.entries.len()),
        "a segment's own hint is refused"
    );
}

fn encode_again(record: &Record<'_>, seed: u32, offset: u64) -> Vec<u8> {
    let mut out = vec![0; record.len()];
    let fields = RecordFields {
        kind: record.kind(),
        key: record.key(),
        value: record.value(),
        compressed: record.is_compressed(),
        expires_at_ms: record.expires_at_ms(),
        collides: record.collides(),
        batched: record.is_batched(),
        seq_delta: record.seq(SeqNo(0)).get() as u32,
        synced: record.synced(),
    };
    record::encode(&fields, seed, offset, &mut out);
    out
}

/// Makes the checksum of every record right that has possible lengths, and those in frames first.
fn repair_records(bytes: &mut [u8], header: &SegmentHeader) {
    let seed = header.checksum_seed();
    let mut at = HEADER_LEN;
    while let Some((len, kind)) = shape_at(bytes, at) {
        if kind == Kind::Frame {
            let mut member_at = at + FRAME_OVERHEAD;
            while let Some((member_len, _)) = shape_at(bytes, member_at) {
                if member_at + member_len > at + len {
                    break;
                }
                let member = &mut bytes[member_at..member_at + member_len];
                record::finish(seed, member_at as u64, member);
                member_at += member_len;
            }
        }
        record::finish(seed, at as u64, &mut bytes[at..at + len]);
        at += len;
    }
}

fn shape_at(bytes: &[u8], at: usize) -> Option<(usize, Kind)> {
    let record = Record::parse(bytes.get(at..)?).ok()?;
    Some((record.len(), record.kind()))
}

/// The bytes with their last four made the checksum of the others.
fn with_checksum(bytes: &[u8]) -> Vec<u8> {
    let covered = &bytes[..bytes.len().saturating_sub(CHECKSUM_LEN)];
    [covered, &crc32fast::hash(covered).to_le_bytes()].concat()
}
