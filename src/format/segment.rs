//! A segment's header and footer: who it is, and once sealed, what is in it.

use super::{FORMAT_VERSION, Fields, Invalid, SegmentId, SeqNo, StoreId, crc};
use crate::bugs::{Bug, is_planted};

const HEADER_MAGIC: [u8; 8] = *b"CRABSEG\n";
const FOOTER_MAGIC: [u8; 8] = *b"CRABEND\n";

/// Length of a segment's header: magic 8, version 4, flags 4, store 16, id 8, base sequence
/// number 8, salt 8, reserved 4, checksum 4.
pub(crate) const HEADER_LEN: usize = 8 + 4 + 4 + 16 + 8 + 8 + 8 + 4 + 4;
/// Length of a segment's footer: magic 8, data length 8, records 8, lowest and highest sequence
/// number 8 each, earliest and latest expiry 8 each, data checksum 4, checksum 4.
pub(crate) const FOOTER_LEN: usize = 8 + 8 + 8 + 8 + 8 + 8 + 8 + 4 + 4;

const _: () = assert!(HEADER_LEN == 64 && FOOTER_LEN == 64);

/// The first bytes of every segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    pub(crate) store: StoreId,
    pub(crate) id: SegmentId,
    /// Records say their sequence number as a distance from this.
    pub(crate) base_seq: SeqNo,
    /// Drawn anew for each segment, so that bytes of another life of the file never decode.
    pub(crate) salt: u64,
}

impl SegmentHeader {
    pub(crate) fn encode(&self) -> [u8; HEADER_LEN] {
        let mut out = Vec::with_capacity(HEADER_LEN);
        out.extend_from_slice(&HEADER_MAGIC);
        out.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&self.store.0);
        out.extend_from_slice(&self.id.0.to_le_bytes());
        out.extend_from_slice(&self.base_seq.0.to_le_bytes());
        out.extend_from_slice(&self.salt.to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        seal(out)
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<SegmentHeader, Invalid> {
        let mut fields = Fields(bytes);
        fields.magic(HEADER_MAGIC)?;
        // The version is read before the checksum: a newer format may have another checksum.
        fields.version()?;
        let bytes = check(bytes)?;
        let mut fields = Fields(bytes.get(12..).ok_or(Invalid::Short)?);
        let flags = fields.u32()?;
        if flags != 0 {
            return Err(Invalid::Features(flags));
        }
        let header = SegmentHeader {
            store: StoreId(fields.bytes()?),
            id: SegmentId(fields.u64()?),
            base_seq: SeqNo(fields.u64()?),
            salt: fields.u64()?,
        };
        fields.reserved::<4>()?;
        Ok(header)
    }

    /// The base sequence number in an encoded header, which was decoded before.
    pub(crate) fn base_seq_in(bytes: &[u8]) -> Option<SeqNo> {
        let at = HEADER_LEN - (8 + 8 + 4 + 4);
        Some(SeqNo(Fields(bytes.get(at..)?).u64().ok()?))
    }

    /// Whether the checksum fits, whatever the version.
    pub(crate) fn is_intact(bytes: &[u8]) -> bool {
        check(bytes).is_ok()
    }

    /// What the checksums of this segment's records start from, before the offset is mixed in.
    pub(crate) fn checksum_seed(&self) -> u32 {
        let mut hasher = crc32fast::Hasher::new();
        if !is_planted(Bug::IgnoreSalt) {
            hasher.update(&self.salt.to_le_bytes());
        }
        hasher.update(&self.id.0.to_le_bytes());
        hasher.finalize()
    }
}

impl SegmentHeader {
    /// A salt with which the segment `id` has this seed, for one whose salt is lost.
    pub(crate) fn salt_for(seed: u32, id: SegmentId) -> u64 {
        let behind_salt = crc::start_of(seed, &id.0.to_le_bytes());
        let half = [0; 4];
        let other = crc::bridge(crc32fast::hash(&half), behind_salt);
        let mut salt = [0; 8];
        salt[4..].copy_from_slice(&other);
        u64::from_le_bytes(salt)
    }
}

/// The last bytes of a sealed segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentFooter {
    /// The length of header and records; where the footer starts.
    pub(crate) data_len: u64,
    pub(crate) records: u64,
    /// Both equal to the base sequence number where there is no record.
    pub(crate) lowest_seq: SeqNo,
    pub(crate) highest_seq: SeqNo,
    /// The earliest and latest expiry of the puts, in milliseconds since the epoch. A put that
    /// never expires makes the latest `u64::MAX`; without any expiry both are `u64::MAX`.
    pub(crate) earliest_expiry_ms: u64,
    pub(crate) latest_expiry_ms: u64,
    /// CRC-32 of the header and all records.
    pub(crate) data_checksum: u32,
}

impl SegmentFooter {
    pub(crate) fn encode(&self) -> [u8; FOOTER_LEN] {
        let mut out = Vec::with_capacity(FOOTER_LEN);
        out.extend_from_slice(&FOOTER_MAGIC);
        out.extend_from_slice(&self.data_len.to_le_bytes());
        out.extend_from_slice(&self.records.to_le_bytes());
        out.extend_from_slice(&self.lowest_seq.0.to_le_bytes());
        out.extend_from_slice(&self.highest_seq.0.to_le_bytes());
        out.extend_from_slice(&self.earliest_expiry_ms.to_le_bytes());
        out.extend_from_slice(&self.latest_expiry_ms.to_le_bytes());
        out.extend_from_slice(&self.data_checksum.to_le_bytes());
        seal(out)
    }

    /// Decodes the footer of a segment that starts at `data_len`.
    pub(crate) fn decode(bytes: &[u8], data_len: u64) -> Result<SegmentFooter, Invalid> {
        let bytes = check(bytes)?;
        let mut fields = Fields(bytes);
        fields.magic(FOOTER_MAGIC)?;
        let footer = SegmentFooter {
            data_len: fields.u64()?,
            records: fields.u64()?,
            lowest_seq: SeqNo(fields.u64()?),
            highest_seq: SeqNo(fields.u64()?),
            earliest_expiry_ms: fields.u64()?,
            latest_expiry_ms: fields.u64()?,
            data_checksum: fields.u32()?,
        };
        if footer.data_len != data_len {
            return Err(Invalid::Field("the footer belongs to another length"));
        }
        Ok(footer)
    }
}

/// Appends the checksum of everything before it.
fn seal<const N: usize>(mut out: Vec<u8>) -> [u8; N] {
    let checksum = crc32fast::hash(&out);
    out.extend_from_slice(&checksum.to_le_bytes());
    let mut array = [0; N];
    array.copy_from_slice(&out);
    array
}

/// Checks the checksum in the last four of the 64 bytes; gives the bytes before it.
fn check(bytes: &[u8]) -> Result<&[u8], Invalid> {
    let bytes = bytes.get(..HEADER_LEN).ok_or(Invalid::Short)?;
    let (covered, checksum) = bytes.split_at(HEADER_LEN - 4);
    if crc32fast::hash(covered).to_le_bytes() != checksum {
        return Err(Invalid::Checksum);
    }
    Ok(covered)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> SegmentHeader {
        SegmentHeader {
            store: StoreId(*b"0123456789abcdef"),
            id: SegmentId(7),
            base_seq: SeqNo(1000),
            salt: 0x1122_3344_5566_7788,
        }
    }

    #[test]
    fn the_header_is_these_bytes() {
        let expected = b"CRABSEG\n\x01\0\0\0\0\0\0\x000123456789abcdef\x07\0\0\0\0\0\0\0\
                         \xe8\x03\0\0\0\0\0\0\x88\x77\x66\x55\x44\x33\x22\x11\0\0\0\0";
        let encoded = header().encode();
        assert_eq!(&encoded[..60], expected);
        assert_eq!(SegmentHeader::decode(&encoded), Ok(header()));
    }

    #[test]
    fn a_flipped_bit_anywhere_in_the_header_is_noticed() {
        for bit in 0..HEADER_LEN * 8 {
            let mut bytes = header().encode();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(SegmentHeader::decode(&bytes).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn a_salt_can_be_found_for_any_seed() {
        for seed in [0, 1, 0xdead_beef, header().checksum_seed()] {
            let salt = SegmentHeader::salt_for(seed, header().id);
            let other = SegmentHeader { salt, ..header() };
            assert_eq!(other.checksum_seed(), seed);
        }
    }

    #[test]
    fn a_newer_version_is_told_from_damage() {
        let mut bytes = header().encode();
        bytes[8] = 2;
        assert_eq!(SegmentHeader::decode(&bytes), Err(Invalid::Version(2)));
    }

    #[test]
    fn the_footer_is_these_bytes_and_belongs_to_one_length() {
        let footer = SegmentFooter {
            data_len: 64,
            records: 0,
            lowest_seq: SeqNo(5),
            highest_seq: SeqNo(5),
            earliest_expiry_ms: u64::MAX,
            latest_expiry_ms: u64::MAX,
            data_checksum: 0xdead_beef,
        };
        let bytes = footer.encode();
        assert_eq!(&bytes[..16], b"CRABEND\n\x40\0\0\0\0\0\0\0");
        assert_eq!(&bytes[56..60], b"\xef\xbe\xad\xde");
        assert_eq!(SegmentFooter::decode(&bytes, 64), Ok(footer));
        assert!(SegmentFooter::decode(&bytes, 72).is_err());
        for bit in 0..FOOTER_LEN * 8 {
            let mut bytes = bytes;
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(SegmentFooter::decode(&bytes, 64).is_err(), "bit {bit}");
        }
    }
}
