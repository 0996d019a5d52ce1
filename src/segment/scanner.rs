//! Walks the records of a segment from front to back, and looks ahead where one is broken.

use crate::bugs::{Bug, is_planted};
use crate::format::record::{Kind, RECORD_HEADER_LEN, Record};
use crate::format::segment::SegmentHeader;
use crate::format::{ALIGNMENT, Invalid, SeqNo, batch};

/// What a scan insists on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Check {
    /// Checksums, and sequence numbers that ascend: a segment that was appended to.
    Appended,
    /// Checksums: a sealed segment, which may be the output of a merge.
    Sealed,
    /// Only that the lengths fit: bytes that this process wrote, or verified, and never let go of.
    Trusted,
}

/// Where and why a scan ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ScanEnd {
    /// The end of the last sound record.
    pub(crate) end: u64,
    /// Why the next one is none; `None` at the end of the bytes.
    pub(crate) problem: Option<Invalid>,
    /// The most that any record claims was durable when it was written.
    pub(crate) synced_upto: u64,
}

/// Calls `visit` with the offset of each record from `from` to the end of `bytes`, those in batch
/// frames one by one, until one is not sound. `bytes` begins with the segment's first byte.
pub(crate) fn scan<'a>(
    bytes: &'a [u8],
    header: &SegmentHeader,
    from: u64,
    check: Check,
    visit: impl FnMut(u64, Record<'a>),
) -> ScanEnd {
    let part = bytes.get(from as usize..).unwrap_or_default();
    scan_part(part, from, header, check, &mut None, visit)
}

/// As [`scan`], of a part of a segment that begins at its offset `part_at`, where a record does.
/// `last_seq` is the sequence number of the record before it, and then of the last one in it.
pub(crate) fn scan_part<'a>(
    part: &'a [u8],
    part_at: u64,
    header: &SegmentHeader,
    check: Check,
    last_seq: &mut Option<SeqNo>,
    mut visit: impl FnMut(u64, Record<'a>),
) -> ScanEnd {
    let seed = header.checksum_seed();
    let mut scan = ScanEnd {
        end: part_at,
        problem: None,
        synced_upto: 0,
    };
    while scan.end - part_at < part.len() as u64 {
        let rest = &part[(scan.end - part_at) as usize..];
        match sound_record(rest, seed, scan.end, check, header.base_seq, last_seq) {
            Ok(Sound { record, members }) => {
                scan.synced_upto = scan.synced_upto.max(record.synced().synced_upto(scan.end));
                match members {
                    Some(members) => members
                        .into_iter()
                        .for_each(|(at, member)| visit(at, member)),
                    None => visit(scan.end, record),
                }
                scan.end += record.len() as u64;
            }
            Err(problem) => {
                scan.problem = Some(problem);
                break;
            }
        }
    }
    scan
}

/// A record, or a frame with its records.
pub(crate) struct Sound<'a> {
    pub(crate) record: Record<'a>,
    /// The records of a batch frame, with their offsets.
    pub(crate) members: Option<Vec<(u64, Record<'a>)>>,
}

/// The record that `bytes` begin with, if it is sound and follows the one of `last_seq`.
pub(super) fn sound_record<'a>(
    bytes: &'a [u8],
    seed: u32,
    offset: u64,
    check: Check,
    base: SeqNo,
    last_seq: &mut Option<SeqNo>,
) -> Result<Sound<'a>, Invalid> {
    let is_frame = || Record::parse(bytes).is_ok_and(|record| record.kind() == Kind::Frame);
    let record = match check {
        Check::Trusted => Record::parse(bytes)?,
        _ if is_planted(Bug::AcceptTornBatch) && is_frame() => Record::parse(bytes)?,
        Check::Appended | Check::Sealed => Record::decode(bytes, seed, offset)?,
    };
    let members = match record.kind() {
        Kind::Frame => Some(batch::members(&record, seed, offset)?),
        _ if record.is_batched() => {
            return Err(Invalid::Field("a record of a batch outside its frame"));
        }
        _ => None,
    };
    if check == Check::Appended {
        let single = [(offset, record)];
        let records = members.as_deref().unwrap_or(&single);
        let mut last = *last_seq;
        for (_, record) in records {
            let seq = record.seq(base);
            if last.is_some_and(|last| seq <= last) {
                return Err(Invalid::Field("the sequence numbers do not ascend"));
            }
            last = Some(seq);
        }
        *last_seq = last;
    }
    Ok(Sound { record, members })
}

/// How often the bytes after a broken record may be checksummed over again before a look ahead
/// gives up: bytes made to look like many long records would take quadratic time.
const LOOK_AHEAD_PASSES: u64 = 16;

/// What stands behind a broken record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Behind {
    /// Nothing that says the broken record had been durable: the tail was torn by a crash.
    TornTail,
    /// A record at this offset was written after the broken one had been synced: what is broken
    /// had been acknowledged.
    DurableRecord {
        /// Where that record is.
        offset: u64,
    },
}

/// Looks behind the broken record at `broken` for one that was written after it was durable.
/// `bytes` begins with the segment's first byte.
pub(crate) fn look_ahead(bytes: &[u8], header: &SegmentHeader, broken: u64) -> Behind {
    let rest = bytes.get(broken as usize..).unwrap_or_default();
    look_ahead_in(rest, bytes.len() as u64, header, broken)
}

/// As [`look_ahead`], with only the bytes `rest` from the broken record on, of `scanned` that were
/// scanned in all.
pub(crate) fn look_ahead_in(
    rest: &[u8],
    scanned: u64,
    header: &SegmentHeader,
    broken: u64,
) -> Behind {
    if is_planted(Bug::SkipLookAhead) {
        return Behind::TornTail;
    }
    let seed = header.checksum_seed();
    let mut budget = scanned.saturating_mul(LOOK_AHEAD_PASSES);
    let mut at = ALIGNMENT;
    while at + RECORD_HEADER_LEN <= rest.len() {
        let candidate = Record::parse(&rest[at..]).ok();
        if let Some(record) = candidate {
            budget = budget.saturating_sub(record.len() as u64);
            let offset = broken + at as u64;
            let claims = record.synced().synced_upto(offset) > broken;
            if budget == 0 || (claims && record.is_valid(seed, offset)) {
                return Behind::DurableRecord { offset };
            }
        }
        at += ALIGNMENT;
    }
    Behind::TornTail
}
