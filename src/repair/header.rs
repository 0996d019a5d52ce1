//! A segment's header where it is damaged: made again from what else the segment says.
//!
//! Records need two things of it: the seed of their checksums, and the base of their sequence
//! numbers. A single flipped bit is found by trying each. Otherwise:
//!
//! - The seed follows from any sound record, for a CRC can be run backwards. Two records that stand
//!   one after the other and give the same seed are the proof; any two others do once in four
//!   billion.
//! - The base stands in the hint file too, and follows from the footer's lowest and highest sequence
//!   numbers.

use crate::format::batch::FRAME_OVERHEAD;
use crate::format::hint::HintOwner;
use crate::format::record::{self, Kind, RECORD_HEADER_LEN, Record};
use crate::format::segment::{FOOTER_LEN, HEADER_LEN, SegmentFooter, SegmentHeader};
use crate::format::{ALIGNMENT, SegmentId, SeqNo, StoreId};
use crate::segment::salvage::Walk;

/// How many bytes are checksummed in search of the seed: what a damaged header and some damaged
/// records behind it take.
const SEARCH_BYTES: usize = 16 << 20;

/// The header of a segment whose own is damaged.
pub(super) fn rebuild(
    bytes: &[u8],
    store: StoreId,
    id: SegmentId,
    hint: Option<&HintOwner>,
) -> Option<SegmentHeader> {
    let is_right = |header: &SegmentHeader| header.store == store && header.id == id;
    flip_back(bytes).filter(is_right).or_else(|| {
        let seed = find_seed(bytes)?;
        let header = SegmentHeader {
            store,
            id,
            base_seq: SeqNo(0),
            salt: SegmentHeader::salt_for(seed, id),
        };
        let base_seq = match hint {
            Some(hint) => hint.base_seq,
            None => base_by_footer(bytes, &header)?,
        };
        Some(SegmentHeader { base_seq, ..header })
    })
}

/// The header if one bit of it is flipped.
fn flip_back(bytes: &[u8]) -> Option<SegmentHeader> {
    let mut header = *bytes.first_chunk::<HEADER_LEN>()?;
    (0..HEADER_LEN * 8).find_map(|bit| {
        header[bit / 8] ^= 1 << (bit % 8);
        let decoded = SegmentHeader::decode(&header).ok();
        header[bit / 8] ^= 1 << (bit % 8);
        decoded
    })
}

/// The seed of a segment's checksums, by its records.
fn find_seed(bytes: &[u8]) -> Option<u32> {
    let mut left = SEARCH_BYTES;
    let mut at = HEADER_LEN;
    while at + RECORD_HEADER_LEN <= bytes.len() {
        if let Some((record, seed)) = seed_at(bytes, at, &mut left) {
            let next = if record.kind() == Kind::Frame {
                at + FRAME_OVERHEAD
            } else {
                at + record.len()
            };
            if seed_at(bytes, next, &mut left).is_some_and(|(_, other)| other == seed) {
                return Some(seed);
            }
        }
        at += ALIGNMENT;
    }
    None
}

/// What looks like a record, and the seed with which its checksum fits.
fn seed_at<'a>(bytes: &'a [u8], at: usize, left: &mut usize) -> Option<(Record<'a>, u32)> {
    let record = Record::parse(bytes.get(at..)?).ok()?;
    record.check_fields().ok()?;
    *left = left.checked_sub(record.len())?;
    Some((record, record::seed_of(&record, at as u64)))
}

/// The base sequence number, as the footer's figures and the records' distances say it together.
fn base_by_footer(bytes: &[u8], with_base_0: &SegmentHeader) -> Option<SeqNo> {
    let data_len = bytes.len().checked_sub(FOOTER_LEN)?;
    let footer = SegmentFooter::decode(&bytes[data_len..], data_len as u64).ok()?;
    let mut deltas: Option<(u64, u64)> = None;
    Walk::SEALED.run(&bytes[..data_len], with_base_0, |_, record| {
        let delta = record.seq(SeqNo(0)).0;
        let (low, high) = deltas.unwrap_or((delta, delta));
        deltas = Some((low.min(delta), high.max(delta)));
    });
    let (low, high) = deltas?;
    let base = footer.lowest_seq.0.checked_sub(low)?;
    // Unless the records with the lowest and the highest are both there, the two differ.
    (footer.highest_seq.0.checked_sub(high)? == base).then_some(SeqNo(base))
}
