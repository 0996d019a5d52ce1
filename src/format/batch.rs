//! The batch frame: a record around the records of a batch, so that one checksum decides for all.
//!
//! The frame's value is a count (`u32`), four reserved bytes, and that many complete records.
//! Each of them has its own checksum for its own offset, so it can be read and verified alone.

use super::record::{self, Kind, RECORD_HEADER_LEN, Record, RecordFields, SyncedDistance};
use super::{Fields, Invalid};
use crate::bugs::{Bug, is_planted};

/// Length of the count and the reserved bytes after it.
const COUNT_LEN: usize = 4 + 4;

/// What a frame takes beyond its records.
pub(crate) const FRAME_OVERHEAD: usize = RECORD_HEADER_LEN + COUNT_LEN;

/// Completes the frame in `out`: the records are already at [`FRAME_OVERHEAD`].
pub(crate) fn encode_frame(
    count: u32,
    seq_delta: u32,
    synced: SyncedDistance,
    seed: u32,
    offset: u64,
    out: &mut [u8],
) {
    let value_len = (out.len() - RECORD_HEADER_LEN) as u32;
    out[4] = Kind::Frame as u8;
    out[5] = synced.encoded();
    out[6..8].fill(0);
    out[8..12].copy_from_slice(&value_len.to_le_bytes());
    out[12..16].copy_from_slice(&seq_delta.to_le_bytes());
    out[16..20].copy_from_slice(&count.to_le_bytes());
    out[20..24].fill(0);
    record::finish(seed, offset, out);
}

/// The records in a frame, each with its offset in the segment.
///
/// # Errors
///
/// When the frame does not hold exactly as many sound records as it says.
pub(crate) fn members<'a>(
    frame: &Record<'a>,
    seed: u32,
    offset: u64,
) -> Result<Vec<(u64, Record<'a>)>, Invalid> {
    let mut fields = Fields(frame.value());
    let count = fields.u32()?;
    fields.reserved::<4>()?;
    let mut rest = fields.0;
    let mut at = offset + FRAME_OVERHEAD as u64;
    // Not sized by `count`, which a hostile file chooses.
    let mut members = Vec::new();
    while !rest.is_empty() {
        let member = match Record::decode(rest, seed, at) {
            Err(_) if is_planted(Bug::AcceptTornBatch) => return Ok(members),
            member => member?,
        };
        if member.kind() == Kind::Frame || !member.is_batched() {
            return Err(Invalid::Field("not a record of a batch"));
        }
        members.push((at, member));
        at += member.len() as u64;
        rest = &rest[member.len()..];
    }
    if members.len() != count as usize {
        return Err(Invalid::Field(
            "a batch frame with another count of records",
        ));
    }
    Ok(members)
}

/// Encodes records one after another as a frame's content, each for its place in the segment.
pub(crate) fn encode_member(
    fields: &RecordFields<'_>,
    seed: u32,
    frame_offset: u64,
    at: usize,
    out: &mut [u8],
) -> usize {
    let expires = fields.expires_at_ms.is_some();
    let len = record::encoded_len(fields.key.len(), fields.value.len(), expires);
    record::encode(
        fields,
        seed,
        frame_offset + at as u64,
        &mut out[at..at + len],
    );
    at + len
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::SeqNo;

    const SEED: u32 = 99;

    fn frame(keys: &[&[u8]], count: u32) -> Vec<u8> {
        let len: usize = keys
            .iter()
            .map(|key| record::encoded_len(key.len(), 1, false))
            .sum();
        let mut out = vec![0xff; FRAME_OVERHEAD + len];
        let mut at = FRAME_OVERHEAD;
        for (i, key) in keys.iter().enumerate() {
            let fields = RecordFields {
                kind: Kind::Put,
                key,
                value: b"v",
                compressed: false,
                expires_at_ms: None,
                collides: false,
                batched: true,
                seq_delta: 10 + i as u32,
                synced: SyncedDistance::UNKNOWN,
            };
            at = encode_member(&fields, SEED, 64, at, &mut out);
        }
        encode_frame(
            count,
            10,
            SyncedDistance::between(64, 64),
            SEED,
            64,
            &mut out,
        );
        out
    }

    #[test]
    fn the_frame_is_these_bytes() {
        let bytes = frame(&[b"a"], 1);
        assert_eq!(
            bytes[4..24],
            *b"\x03\0\0\0\x28\0\0\0\x0a\0\0\0\x01\0\0\0\0\0\0\0"
        );
        assert_eq!(bytes[28], 0x41, "a put that is part of a batch");
        assert_eq!(bytes.len(), 24 + 32);
    }

    #[test]
    fn members_come_out_as_they_went_in() {
        let bytes = frame(&[b"a", b"bb", b"ccc"], 3);
        let frame = Record::decode(&bytes, SEED, 64).unwrap();
        let members = members(&frame, SEED, 64).unwrap();
        let keys: Vec<_> = members.iter().map(|(_, member)| member.key()).collect();
        assert_eq!(keys, [&b"a"[..], b"bb", b"ccc"]);
        assert_eq!(members[2].1.seq(SeqNo(0)), SeqNo(12));
        assert_eq!(members[1].0, 64 + 24 + 32);
    }

    #[test]
    fn a_frame_with_another_count_is_refused() {
        for count in [0, 1, 3, u32::MAX] {
            let bytes = frame(&[b"a", b"b"], count);
            let frame = Record::decode(&bytes, SEED, 64).unwrap();
            assert!(members(&frame, SEED, 64).is_err());
        }
    }

    #[test]
    fn a_flipped_bit_in_any_record_spoils_the_whole_frame() {
        let bytes = frame(&[b"a", b"b"], 2);
        for bit in 0..bytes.len() * 8 {
            let mut bytes = bytes.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(Record::decode(&bytes, SEED, 64).is_err(), "bit {bit}");
        }
    }
}
