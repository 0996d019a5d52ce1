//! What the fuzzers in `fuzz/` call: the decoders, with the oracles that hold for any bytes.
//!
//! No part of the public interface: it is there with the `fuzzing` feature only, and changes
//! whenever the format's code does. Each function takes any bytes at all and panics when a
//! promise is broken: what is accepted comes out again as the same bytes, and nothing is read
//! beyond the end.
//!
//! A fuzzer does not find checksums by chance, so each function looks at the bytes twice: as they
//! are, and with the checksums made right.

mod mend;

pub use mend::{Mending, directory};

use crate::format::batch;
use crate::format::hint::{self, Hint, HintEntry, HintOwner, PackedEntry};
use crate::format::manifest::Manifest;
use crate::format::record::{self, Kind, RECORD_HEADER_LEN, Record, RecordFields, SyncedDistance};
use crate::format::segment::{HEADER_LEN, SegmentFooter, SegmentHeader};
use crate::format::{Invalid, KeyHasher, SeqNo, value};
use crate::segment::hint::Summary;
use crate::segment::salvage::{self, Walk};
use crate::segment::scanner::{self, Behind, Check};

/// A manifest.
///
/// # Panics
///
/// When a promise is broken.
pub fn manifest(bytes: &[u8]) {
    for bytes in [bytes, &mend::with_checksum(bytes)] {
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
    for bytes in [bytes, &mend::with_checksum(bytes)] {
        let Ok(hint) = Hint::decode(bytes, &owner) else {
            continue;
        };
        assert_eq!(hint.bytes(), bytes);
        assert!(
            bytes.len() <= hint::max_file_len(hint.len()),
            "longer than can be"
        );
        let entries: Vec<HintEntry> = hint.entries(0..hint.len()).collect();
        assert_eq!(entries.len(), hint.len(), "entries are missing");
        for entry in &entries {
            assert!(
                hint.find(entry.hash).any(|found| found == *entry),
                "an entry is not found by its hash"
            );
        }
        let seqs = entries.iter().map(|entry| entry.seq.next());
        assert_eq!(hint.next_seq(), seqs.fold(owner.base_seq, SeqNo::max));
        let expiries = entries.iter().map(|entry| entry.expires_at_ms);
        assert_eq!(
            Some(hint.earliest_expiry_ms()),
            expiries.chain([u64::MAX]).min()
        );
        assert!(entries.iter().all(|entry| {
            let packed = PackedEntry::new(entry, owner.base_seq);
            packed.unpack(owner.base_seq, entry.expires_at_ms) == *entry
        }));
        let again = hint::encode(&owner, entries.iter().copied());
        let again = Hint::decode(again, &owner).map(|hint| {
            let entries: Vec<HintEntry> = hint.entries(0..hint.len()).collect();
            entries
        });
        assert_eq!(again, Ok(entries), "other entries come out");
    }
}

/// One record, for the seed and the offset that the first eight bytes say.
///
/// # Panics
///
/// When a promise is broken.
pub fn record(bytes: &[u8]) {
    let Some((place, bytes)) = bytes.split_first_chunk::<8>() else {
        return;
    };
    let seed = u32::from_le_bytes([place[0], place[1], place[2], place[3]]);
    let unit = u32::from_le_bytes([place[4], place[5], place[6], place[7]]);
    // Beyond the highest offset in a segment, the next would not tell places apart.
    let offset = u64::from(unit % (1 << 29)) * 8;
    one_record(bytes, seed, offset);
    if let Ok(record) = Record::parse(bytes) {
        let mut mended = bytes.to_vec();
        mend::record(&mut mended[..record.len()], seed, offset);
        one_record(&mended, seed, offset);
    }
}

/// A look for the plain value says what parsing says.
fn look_for_its_value(bytes: &[u8]) {
    let Ok(record) = Record::parse(bytes) else {
        return;
    };
    let (key, is_plain) = (record.key(), record.kind() == Kind::Put);
    let is_plain = is_plain && !record.is_compressed() && record.expires_at_ms().is_none();
    let expected = is_plain.then(|| record.value());
    assert_eq!(record::plain_value(key, bytes), expected);
    let other = [key, b"?"].concat();
    assert_eq!(record::plain_value(&other, bytes), None);
}

fn one_record(bytes: &[u8], seed: u32, offset: u64) {
    if let Some(head) = bytes.first_chunk::<RECORD_HEADER_LEN>() {
        let announced = record::announced_len(head);
        match Record::parse(bytes) {
            Ok(record) => assert_eq!(announced, Ok(record.len())),
            Err(Invalid::Short) => assert!(announced.is_ok_and(|len| len > bytes.len())),
            Err(other) => assert_eq!(announced, Err(other)),
        }
    }
    look_for_its_value(bytes);
    let Ok(record) = Record::decode(bytes, seed, offset) else {
        return;
    };
    let len = record.len();
    assert!(len <= bytes.len() && len % 8 == 0, "a length that is none");
    assert_eq!(record::seed_of(&record, offset), seed);
    for shorter in [0, RECORD_HEADER_LEN - 1, RECORD_HEADER_LEN, len - 1] {
        let is_short = Record::parse(&bytes[..shorter.min(len - 1)]).is_err();
        assert!(is_short, "a part of a record is a record");
    }
    for (seed, offset) in [(seed ^ 1, offset), (seed, offset ^ 8)] {
        let elsewhere = Record::decode(bytes, seed, offset).err();
        assert_eq!(elsewhere, Some(Invalid::Checksum), "it fits elsewhere too");
    }
    assert_eq!(header_with(seed).checksum_seed(), seed, "another salt");
    let claimed = record.synced().synced_upto(offset);
    assert!(claimed <= offset, "it claims what is not written");
    let again = SyncedDistance::between(claimed, offset);
    assert!(
        again.synced_upto(offset) <= claimed,
        "it claims more than is synced"
    );
    if record.kind() == Kind::Frame {
        frame(&record, seed, offset);
        return;
    }
    assert_eq!(encode_again(&record, seed, offset), record.bytes());
    if record.is_compressed() {
        compressed(record.value());
    }
    copied(&record);
}

/// A header with this seed, as a repair makes one when the salt is lost.
fn header_with(seed: u32) -> SegmentHeader {
    let header = mend::own_header();
    let salt = SegmentHeader::salt_for(seed, header.id);
    SegmentHeader { salt, ..header }
}

/// What compaction makes of a record: the same, in another place.
fn copied(record: &Record<'_>) {
    let mut copy = record.bytes().to_vec();
    record::set_collides(&mut copy, !record.collides());
    record::rewrite(&mut copy, 7, 8, 64);
    let Ok(copy) = Record::decode(&copy, 8, 64) else {
        panic!("a copy is no record");
    };
    assert_eq!((copy.key(), copy.value()), (record.key(), record.value()));
    assert_eq!(copy.expires_at_ms(), record.expires_at_ms());
    assert_eq!(copy.kind(), record.kind());
    assert_eq!(copy.is_compressed(), record.is_compressed());
    assert_eq!(copy.collides(), !record.collides());
    assert_eq!((copy.seq(SeqNo(1)), copy.is_batched()), (SeqNo(8), false));
    assert_eq!(copy.synced(), SyncedDistance::UNKNOWN);
}

/// A frame that is accepted holds what it says, and comes out again as the same bytes.
fn frame(record: &Record<'_>, seed: u32, offset: u64) {
    let Ok(members) = batch::members(record, seed, offset) else {
        return;
    };
    let mut again = vec![0; record.len()];
    let mut at = batch::FRAME_OVERHEAD;
    for (member_at, member) in &members {
        assert_eq!(*member_at, offset + at as u64, "a gap in a frame");
        at = batch::encode_member(&fields_of(member), seed, offset, at, &mut again);
    }
    let (count, seq_delta) = (members.len() as u32, record.seq(SeqNo(0)).get() as u32);
    let synced = record.synced();
    batch::encode_frame(count, seq_delta, synced, seed, offset, &mut again);
    assert_eq!(again, record.bytes(), "another frame comes out");
}

/// What decompresses is as long as it says, and survives another compression.
fn compressed(stored: &[u8]) {
    let Ok(plain) = value::decompress(stored) else {
        return;
    };
    assert_eq!(value::decompressed_len(stored), Ok(plain.len()));
    if let Some(again) = value::compress(&plain) {
        assert!(again.len() < plain.len(), "it was not worth it");
        assert_eq!(value::decompress(&again), Ok(plain));
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
    let header = mend::own_header();
    let mut mended = header.encode().to_vec();
    mended.extend_from_slice(bytes.get(HEADER_LEN..).unwrap_or_default());
    mend::records(&mut mended, &header);
    let data_len = mend::end_of_records(&mended);
    mend::footer(&mut mended, data_len);
    records(&mended, &header);
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
    let walked_len = walks(bytes, header);
    let hasher = KeyHasher::new(1, 48);
    let (summary, scan) = Summary::of(bytes, header, hasher, Check::Sealed);
    assert!(walked_len >= summary.len(), "a walk misses records");
    let data_len = scan.end;
    if let Some(data) = bytes.get(..data_len as usize) {
        let footer = summary.footer_of(data);
        let again = SegmentFooter::decode(&footer.encode(), data_len);
        assert_eq!(again, Ok(footer), "a segment's own footer is refused");
        assert!(summary.next_seq() >= header.base_seq && footer.lowest_seq <= footer.highest_seq);
    }
    let owner = HintOwner {
        store: header.store,
        segment: header.id,
        base_seq: header.base_seq,
        data_len,
        data_checksum: 0,
    };
    let hint = Hint::decode(hint::encode(&owner, summary.entries()), &owner);
    let entries = hint.map(|hint| hint.entries(0..hint.len()).collect::<Vec<_>>());
    assert_eq!(
        entries.as_ref().map(Vec::len),
        Ok(summary.len()),
        "a segment's own hint is refused"
    );
}

/// Walks past damage in all ways; gives how many records a sealed segment has.
fn walks(bytes: &[u8], header: &SegmentHeader) -> usize {
    let partial = Walk {
        takes_partial_batches: true,
        ..Walk::SEALED
    };
    let [sealed, ..] = [Walk::SEALED, Walk::CLOSED, Walk::ACTIVE, partial].map(|walk| {
        let mut last_end = HEADER_LEN as u64;
        let is_sealed = walk.check == Check::Sealed && !walk.takes_partial_batches;
        let mut count = 0;
        let walked = walk.run(bytes, header, |offset, record| {
            assert!(offset >= last_end && offset % 8 == 0, "records overlap");
            last_end = offset + record.len() as u64;
            count += 1;
        });
        assert!(
            last_end <= walked.end.max(HEADER_LEN as u64),
            "beyond the end"
        );
        let mut end = HEADER_LEN as u64;
        for damaged in &walked.damage {
            assert!(damaged.start >= end && damaged.end > damaged.start);
            let has_next = damaged.end < bytes.len() as u64;
            assert!(
                !has_next || !is_sealed || salvage::is_sound_at(bytes, header, damaged.end),
                "damage ends where nothing is sound"
            );
            end = damaged.end;
        }
        count
    });
    sealed
}

fn encode_again(record: &Record<'_>, seed: u32, offset: u64) -> Vec<u8> {
    let mut out = vec![0; record.len()];
    record::encode(&fields_of(record), seed, offset, &mut out);
    out
}

fn fields_of<'a>(record: &Record<'a>) -> RecordFields<'a> {
    RecordFields {
        kind: record.kind(),
        key: record.key(),
        value: record.value(),
        compressed: record.is_compressed(),
        expires_at_ms: record.expires_at_ms(),
        collides: record.collides(),
        batched: record.is_batched(),
        seq_delta: record.seq(SeqNo(0)).get() as u32,
        synced: record.synced(),
    }
}
