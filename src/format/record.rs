//! The record: one put, tombstone or batch frame in a segment.
//!
//! ```text
//!  0        4      5        6         8           12          16
//!  +--------+------+--------+---------+-----------+-----------+----------+-----+---+-------+---+
//!  |checksum|kind, |synced  |key len  |value len  |sequence   |expiry    | key |pad| value |pad|
//!  |  u32   |flags |distance|  u16    |   u32     |delta u32  |u64, opt. |     |   |       |   |
//!  +--------+------+--------+---------+-----------+-----------+----------+-----+---+-------+---+
//! ```
//!
//! Records start on 8-byte boundaries, and so do their values. The checksum covers everything
//! after itself and starts from a seed of the segment's salt and id and the record's offset:
//! stale, moved and copied bytes do not decode.

use super::{Fields, Invalid, MAX_BATCH_BYTES, MAX_VALUE_LEN, SeqNo, align, crc};

/// Length of the fixed part: checksum 4, kind and flags 1, synced distance 1, key length 2,
/// value length 4, sequence delta 4.
pub(crate) const RECORD_HEADER_LEN: usize = 4 + 1 + 1 + 2 + 4 + 4;
/// Length of the expiry, where there is one.
pub(crate) const EXPIRY_LEN: usize = 8;

const _: () = assert!(RECORD_HEADER_LEN == 16 && align(RECORD_HEADER_LEN) == RECORD_HEADER_LEN);

const KIND_MASK: u8 = 0b0000_0111;
const EXPIRES: u8 = 0b0000_1000;
const COMPRESSED: u8 = 0b0001_0000;
const COLLIDES: u8 = 0b0010_0000;
const BATCHED: u8 = 0b0100_0000;
const RESERVED: u8 = 0b1000_0000;

/// What a record is. Zero is no kind, so that zeros never decode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    /// A key and its value.
    Put = 1,
    /// A deleted key.
    Tombstone = 2,
    /// The frame around the records of a batch: valid as a whole or not at all.
    Frame = 3,
}

/// How far before a record everything in its segment was durable when it was written.
///
/// One byte: 0 says up to the record itself, `e` up to `4 << e` bytes before it, 255 nothing. The
/// distance is rounded up, so the claim is never more than what was synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SyncedDistance(u8);

impl SyncedDistance {
    pub(crate) const UNKNOWN: SyncedDistance = SyncedDistance(u8::MAX);

    pub(crate) fn between(synced_upto: u64, offset: u64) -> SyncedDistance {
        match offset.saturating_sub(synced_upto) {
            0 => SyncedDistance(0),
            distance => {
                let exponent = distance.div_ceil(4).next_power_of_two().trailing_zeros();
                SyncedDistance(u8::try_from(exponent.max(1)).unwrap_or(u8::MAX))
            }
        }
    }

    /// The byte in the record's header.
    pub(crate) fn encoded(self) -> u8 {
        self.0
    }

    /// Up to where the record at `offset` claims its segment was durable.
    pub(crate) fn synced_upto(self, offset: u64) -> u64 {
        match self.0 {
            0 => offset,
            exponent @ 1..=60 => offset.saturating_sub(4 << exponent),
            _ => 0,
        }
    }
}

/// What goes into a record.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RecordFields<'a> {
    pub(crate) kind: Kind,
    pub(crate) key: &'a [u8],
    /// As stored: compressed if `compressed` says so.
    pub(crate) value: &'a [u8],
    pub(crate) compressed: bool,
    pub(crate) expires_at_ms: Option<u64>,
    /// Another key with the same hash was live when this was written.
    pub(crate) collides: bool,
    /// Part of a batch frame.
    pub(crate) batched: bool,
    pub(crate) seq_delta: u32,
    pub(crate) synced: SyncedDistance,
}

/// The length of a record on disk, padding included.
#[inline]
pub(crate) fn encoded_len(key_len: usize, value_len: usize, expires: bool) -> usize {
    value_offset(key_len, expires) + align(value_len)
}

#[inline]
fn value_offset(key_len: usize, expires: bool) -> usize {
    align(RECORD_HEADER_LEN + if expires { EXPIRY_LEN } else { 0 } + key_len)
}

/// Mixes a record's offset into its segment's seed. Offsets of a segment are distinct multiples
/// of 8 below 2^35, so no two of them give the same seed.
#[inline]
fn checksum(seed: u32, offset: u64, bytes: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new_with_initial(seed ^ mixed(offset));
    hasher.update(bytes);
    hasher.finalize()
}

#[inline]
fn mixed(offset: u64) -> u32 {
    ((offset >> 3) as u32).wrapping_mul(0x9e37_79b1)
}

/// The seed with which the checksum of what may be a record at `offset` fits: there is exactly one.
pub(crate) fn seed_of(record: &Record<'_>, offset: u64) -> u32 {
    let checksum = Fields(record.bytes).u32().unwrap_or(0);
    crc::start_of(checksum, &record.bytes[4..]) ^ mixed(offset)
}

/// Writes a record over all of `out`, which has the length that [`encoded_len`] says.
///
/// # Panics
///
/// When `out` is shorter, or a length does not fit its field: the callers check both.
pub(crate) fn encode(fields: &RecordFields<'_>, seed: u32, offset: u64, out: &mut [u8]) {
    let expires = fields.expires_at_ms.is_some();
    let value_at = encode_head(fields, out);
    let (value, padding) = out[value_at..].split_at_mut(fields.value.len());
    value.copy_from_slice(fields.value);
    padding.fill(0);
    debug_assert_eq!(
        out.len(),
        encoded_len(fields.key.len(), fields.value.len(), expires)
    );
    finish(seed, offset, out);
}

/// Writes everything before the value; gives the value's offset.
fn encode_head(fields: &RecordFields<'_>, out: &mut [u8]) -> usize {
    let mut kind = fields.kind as u8;
    for (set, flag) in [
        (fields.expires_at_ms.is_some(), EXPIRES),
        (fields.compressed, COMPRESSED),
        (fields.collides, COLLIDES),
        (fields.batched, BATCHED),
    ] {
        kind |= if set { flag } else { 0 };
    }
    out[4] = kind;
    out[5] = fields.synced.encoded();
    out[6..8].copy_from_slice(&(fields.key.len() as u16).to_le_bytes());
    out[8..12].copy_from_slice(&(fields.value.len() as u32).to_le_bytes());
    out[12..16].copy_from_slice(&fields.seq_delta.to_le_bytes());
    let mut at = RECORD_HEADER_LEN;
    if let Some(expiry) = fields.expires_at_ms {
        out[at..at + EXPIRY_LEN].copy_from_slice(&expiry.to_le_bytes());
        at += EXPIRY_LEN;
    }
    let key_end = at + fields.key.len();
    out[at..key_end].copy_from_slice(fields.key);
    let value_at = align(key_end);
    out[key_end..value_at].fill(0);
    value_at
}

/// Puts the checksum in front of an otherwise complete record.
pub(crate) fn finish(seed: u32, offset: u64, out: &mut [u8]) {
    let checksum = checksum(seed, offset, &out[4..]);
    out[..4].copy_from_slice(&checksum.to_le_bytes());
}

/// Makes a copied record valid in a new place, outside any batch frame.
pub(crate) fn rewrite(out: &mut [u8], seq_delta: u32, seed: u32, offset: u64) {
    out[4] &= !BATCHED;
    out[5] = SyncedDistance::UNKNOWN.encoded();
    out[12..16].copy_from_slice(&seq_delta.to_le_bytes());
    finish(seed, offset, out);
}

/// Says anew whether another key shares a copied record's hash; its checksum is made afterwards.
pub(crate) fn set_collides(out: &mut [u8], collides: bool) {
    out[4] = out[4] & !COLLIDES | if collides { COLLIDES } else { 0 };
}

/// A record in place: fields are read where they lie.
#[derive(Clone, Copy)]
pub(crate) struct Record<'a> {
    bytes: &'a [u8],
    flags: u8,
    key_len: u16,
    value_len: u32,
}

impl<'a> Record<'a> {
    /// Reads the record that `bytes` begins with, checking its lengths but not its checksum.
    ///
    /// # Errors
    ///
    /// When a field has a value that it cannot have, or the record is longer than `bytes`.
    #[inline]
    pub(crate) fn parse(bytes: &'a [u8]) -> Result<Record<'a>, Invalid> {
        let head = bytes
            .first_chunk::<RECORD_HEADER_LEN>()
            .ok_or(Invalid::Short)?;
        let flags = head[4];
        let key_len = u16::from_le_bytes([head[6], head[7]]);
        let value_len = u32::from_le_bytes([head[8], head[9], head[10], head[11]]);
        if !flags_are_known(flags) {
            return Err(unknown_flags(flags));
        }
        let len = encoded_len(
            usize::from(key_len),
            value_len as usize,
            flags & EXPIRES != 0,
        );
        let bytes = bytes.get(..len).ok_or(Invalid::Short)?;
        Ok(Record {
            bytes,
            flags,
            key_len,
            value_len,
        })
    }

    /// Reads and verifies the record that `bytes` begins with.
    pub(crate) fn decode(bytes: &'a [u8], seed: u32, offset: u64) -> Result<Record<'a>, Invalid> {
        let record = Record::parse(bytes)?;
        if !record.is_valid(seed, offset) {
            return Err(Invalid::Checksum);
        }
        record.check_fields()?;
        Ok(record)
    }

    /// What a record with a good checksum must still satisfy: rules against hostile files. Also
    /// the cheap half of looking whether a record begins somewhere.
    pub(crate) fn check_fields(&self) -> Result<(), Invalid> {
        let max_value = match self.kind() {
            Kind::Put => MAX_VALUE_LEN as u64,
            Kind::Tombstone => 0,
            Kind::Frame => MAX_BATCH_BYTES,
        };
        if u64::from(self.value_len) > max_value {
            return Err(Invalid::Field("the value is too long"));
        }
        if self.kind() != Kind::Put && self.flags & (EXPIRES | COMPRESSED) != 0 {
            return Err(Invalid::Field("a flag that only a put can have"));
        }
        if self.kind() == Kind::Frame && (self.key_len != 0 || self.flags & !KIND_MASK != 0) {
            return Err(Invalid::Field("a batch frame with a key or flags"));
        }
        let key_end = self.key_offset() + usize::from(self.key_len);
        let value_at = value_offset(usize::from(self.key_len), self.expires());
        let value_end = value_at + self.value_len as usize;
        let padding = [&self.bytes[key_end..value_at], &self.bytes[value_end..]];
        if padding.iter().any(|pad| pad.iter().any(|&byte| byte != 0)) {
            return Err(Invalid::Field("the padding is not zero"));
        }
        Ok(())
    }

    /// Whether the checksum fits a record at `offset` of the segment with this seed.
    #[inline]
    pub(crate) fn is_valid(&self, seed: u32, offset: u64) -> bool {
        checksum(seed, offset, &self.bytes[4..]).to_le_bytes() == self.bytes[..4]
    }

    #[inline]
    pub(crate) fn kind(&self) -> Kind {
        match self.flags & KIND_MASK {
            1 => Kind::Put,
            2 => Kind::Tombstone,
            _ => Kind::Frame,
        }
    }

    #[inline]
    fn expires(&self) -> bool {
        self.flags & EXPIRES != 0
    }

    #[inline]
    fn key_offset(&self) -> usize {
        RECORD_HEADER_LEN + if self.expires() { EXPIRY_LEN } else { 0 }
    }

    #[inline]
    pub(crate) fn key(&self) -> &'a [u8] {
        let at = self.key_offset();
        &self.bytes[at..at + usize::from(self.key_len)]
    }

    /// Where in the record the value starts.
    #[inline]
    pub(crate) fn value_offset(&self) -> usize {
        value_offset(usize::from(self.key_len), self.expires())
    }

    /// The value as stored.
    #[inline]
    pub(crate) fn value(&self) -> &'a [u8] {
        let at = self.value_offset();
        &self.bytes[at..at + self.value_len as usize]
    }

    #[inline]
    pub(crate) fn is_compressed(&self) -> bool {
        self.flags & COMPRESSED != 0
    }

    pub(crate) fn collides(&self) -> bool {
        self.flags & COLLIDES != 0
    }

    pub(crate) fn is_batched(&self) -> bool {
        self.flags & BATCHED != 0
    }

    /// When the value expires, in milliseconds since the epoch.
    #[inline]
    pub(crate) fn expires_at_ms(&self) -> Option<u64> {
        if !self.expires() {
            return None;
        }
        Fields(&self.bytes[RECORD_HEADER_LEN..]).u64().ok()
    }

    #[inline]
    pub(crate) fn seq(&self, base: SeqNo) -> SeqNo {
        let delta = Fields(&self.bytes[12..]).u32().unwrap_or(0);
        SeqNo(base.0.saturating_add(u64::from(delta)))
    }

    pub(crate) fn synced(&self) -> SyncedDistance {
        SyncedDistance(self.bytes[5])
    }

    /// The whole record, padding included.
    pub(crate) fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The length on disk.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }
}

/// The value of the record that `bytes` begin with, if it is the record of this key and as most are: a
/// put whose value is stored as it is and never expires. Asks for no more than that takes; what it
/// says of the bytes is what [`Record::parse`] would say, and where it says nothing, ask that.
#[inline]
pub(crate) fn plain_value<'a>(key: &[u8], bytes: &'a [u8]) -> Option<&'a [u8]> {
    let (head, its_key) = bytes
        .get(..RECORD_HEADER_LEN + key.len())?
        .split_first_chunk::<RECORD_HEADER_LEN>()?;
    let word = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
    // Kind, flags and the key's length at once; of the two bytes of flags, the second says nothing
    // of the record itself.
    let shape = word(4) & !u32::from_le_bytes([COLLIDES | BATCHED, 0xff, 0, 0]);
    let is_plain = u64::from(shape) == u64::from(Kind::Put as u8) | (key.len() as u64) << 16;
    if !is_plain || its_key != key {
        return None;
    }
    let value = bytes.get(plain_value_offset(key.len())..)?;
    value.get(..word(8) as usize)
}

/// Where in such a record the value starts.
#[inline]
pub(crate) fn plain_value_offset(key_len: usize) -> usize {
    value_offset(key_len, false)
}

/// The length that the header in `head` announces, for a reader that has only the header.
pub(crate) fn announced_len(head: &[u8; RECORD_HEADER_LEN]) -> Result<usize, Invalid> {
    if !flags_are_known(head[4]) {
        return Err(unknown_flags(head[4]));
    }
    let key_len = u16::from_le_bytes([head[6], head[7]]);
    let value_len = u32::from_le_bytes([head[8], head[9], head[10], head[11]]);
    Ok(encoded_len(
        usize::from(key_len),
        value_len as usize,
        head[4] & EXPIRES != 0,
    ))
}

#[inline]
fn flags_are_known(flags: u8) -> bool {
    matches!(flags & KIND_MASK, 1..=3) && flags & RESERVED == 0
}

#[cold]
fn unknown_flags(flags: u8) -> Invalid {
    if flags & KIND_MASK == 0 {
        Invalid::Field("no record starts here")
    } else {
        Invalid::Field("an unknown kind or flag")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields<'a>(key: &'a [u8], value: &'a [u8]) -> RecordFields<'a> {
        RecordFields {
            kind: Kind::Put,
            key,
            value,
            compressed: false,
            expires_at_ms: None,
            collides: false,
            batched: false,
            seq_delta: 3,
            synced: SyncedDistance(0),
        }
    }

    fn encoded(fields: &RecordFields<'_>, offset: u64) -> Vec<u8> {
        let expires = fields.expires_at_ms.is_some();
        let mut out = vec![0xff; encoded_len(fields.key.len(), fields.value.len(), expires)];
        encode(fields, 0x1234_5678, offset, &mut out);
        out
    }

    #[test]
    fn the_plain_value_is_that_of_a_plain_record_with_this_key() {
        let encoded = |fields: &RecordFields<'_>| {
            let expires = fields.expires_at_ms.is_some();
            let mut out = vec![0; encoded_len(fields.key.len(), fields.value.len(), expires)];
            encode(fields, 1, 8, &mut out);
            out
        };
        let plain = fields(b"key", b"value");
        let bytes = encoded(&plain);
        assert_eq!(plain_value(b"key", &bytes), Some(&b"value"[..]));
        for other in [
            "",
            "ke",
            "kez",
            "keys",
            "a much longer key than this record is long",
        ] {
            assert_eq!(plain_value(other.as_bytes(), &bytes), None);
        }
        // As long as this one, modulo 65,536.
        let long = [b"key".to_vec(), vec![0; 1 << 16]].concat();
        let mut record = bytes.clone();
        record.resize(1 << 17, 0);
        assert_eq!(plain_value(&long, &record), None);
        // Cut off, it is left to those who say what is wrong with it.
        for len in [0, RECORD_HEADER_LEN - 1, RECORD_HEADER_LEN + 12] {
            assert_eq!(plain_value(b"key", &bytes[..len]), None);
        }
        for fields in [
            RecordFields {
                expires_at_ms: Some(7),
                ..plain
            },
            RecordFields {
                compressed: true,
                ..plain
            },
            RecordFields {
                kind: Kind::Tombstone,
                value: b"",
                ..plain
            },
        ] {
            assert_eq!(plain_value(b"key", &encoded(&fields)), None);
        }
        let marked = RecordFields {
            collides: true,
            ..plain
        };
        assert_eq!(plain_value(b"key", &encoded(&marked)), Some(&b"value"[..]));
    }

    #[test]
    fn a_put_is_these_bytes() {
        let bytes = encoded(&fields(b"hello", b"world"), 64);
        assert_eq!(
            bytes[4..24],
            *b"\x01\x00\x05\0\x05\0\0\0\x03\0\0\0hello\0\0\0"
        );
        assert_eq!(bytes[24..], *b"world\0\0\0");
        assert_eq!(bytes[..4], [0xbf, 0xee, 0x53, 0x4a]);
    }

    #[test]
    fn a_put_that_expires_is_these_bytes() {
        let put = RecordFields {
            expires_at_ms: Some(0x0102),
            ..fields(b"k", b"12345678")
        };
        let bytes = encoded(&put, 64);
        assert_eq!(
            bytes[4..25],
            *b"\x09\x00\x01\0\x08\0\0\0\x03\0\0\0\x02\x01\0\0\0\0\0\0k"
        );
        assert_eq!(bytes[25..], *b"\0\0\0\0\0\0\x0012345678");
        let record = Record::decode(&bytes, 0x1234_5678, 64).unwrap();
        assert_eq!(record.expires_at_ms(), Some(0x0102));
        assert_eq!(
            (record.key(), record.value()),
            (&b"k"[..], &b"12345678"[..])
        );
    }

    #[test]
    fn sixteen_byte_keys_and_hundred_byte_values_take_136_bytes() {
        assert_eq!(encoded_len(16, 100, false), 136);
    }

    #[test]
    fn values_start_on_eight_byte_boundaries() {
        for key_len in 0..40 {
            for expires in [false, true] {
                assert_eq!(value_offset(key_len, expires) % 8, 0);
                assert_eq!(encoded_len(key_len, 3, expires) % 8, 0);
            }
        }
    }

    #[test]
    fn a_flipped_bit_anywhere_is_noticed() {
        let bytes = encoded(&fields(b"key", b"value of some length"), 128);
        assert!(Record::decode(&bytes, 0x1234_5678, 128).is_ok());
        for bit in 0..bytes.len() * 8 {
            let mut bytes = bytes.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(
                Record::decode(&bytes, 0x1234_5678, 128).is_err(),
                "bit {bit}"
            );
        }
    }

    #[test]
    fn moved_bytes_and_bytes_of_another_segment_do_not_decode() {
        let bytes = encoded(&fields(b"key", b"value"), 128);
        assert_eq!(
            Record::decode(&bytes, 0x1234_5678, 136).err(),
            Some(Invalid::Checksum)
        );
        assert_eq!(
            Record::decode(&bytes, 0x1234_5679, 128).err(),
            Some(Invalid::Checksum)
        );
    }

    #[test]
    fn zeros_and_short_bytes_do_not_decode() {
        assert!(Record::parse(&[0; 64]).is_err());
        let bytes = encoded(&fields(b"key", b"value"), 128);
        for len in 0..bytes.len() {
            assert_eq!(Record::parse(&bytes[..len]).err(), Some(Invalid::Short));
        }
    }

    #[test]
    fn a_tombstone_with_a_value_is_refused_though_its_checksum_fits() {
        let bytes = encoded(
            &RecordFields {
                kind: Kind::Tombstone,
                ..fields(b"k", b"v")
            },
            64,
        );
        assert!(matches!(
            Record::decode(&bytes, 0x1234_5678, 64),
            Err(Invalid::Field("the value is too long"))
        ));
    }

    #[test]
    fn a_rewritten_record_is_valid_in_its_new_place() {
        let mut bytes = encoded(
            &RecordFields {
                batched: true,
                ..fields(b"key", b"value")
            },
            128,
        );
        rewrite(&mut bytes, 9, 42, 4096);
        let record = Record::decode(&bytes, 42, 4096).unwrap();
        assert_eq!((record.key(), record.value()), (&b"key"[..], &b"value"[..]));
        assert_eq!(record.seq(SeqNo(100)), SeqNo(109));
        assert!(!record.is_batched());
        assert_eq!(record.synced().synced_upto(4096), 0);
    }

    #[test]
    fn a_copy_can_say_anew_whether_it_collides() {
        let mut bytes = encoded(&fields(b"key", b"value"), 128);
        for collides in [true, true, false] {
            set_collides(&mut bytes, collides);
            rewrite(&mut bytes, 3, 42, 64);
            let record = Record::decode(&bytes, 42, 64).unwrap();
            assert_eq!(record.collides(), collides);
            assert_eq!((record.kind(), record.key()), (Kind::Put, &b"key"[..]));
        }
    }

    #[test]
    fn the_seed_of_a_checksum_can_be_found_again() {
        let bytes = encoded(&fields(b"key", b"value"), 128);
        let record = Record::parse(&bytes).unwrap();
        assert_eq!(seed_of(&record, 128), 0x1234_5678);
        assert_ne!(seed_of(&record, 136), 0x1234_5678);
    }

    #[test]
    fn a_synced_distance_never_claims_more_than_was_synced() {
        for offset in [64, 72, 4096, 1 << 26, u64::from(u32::MAX)] {
            for distance in [0, 8, 16, 24, 100, 4096, 5000, 1 << 25] {
                let synced_upto = offset - distance.min(offset);
                let claim = SyncedDistance::between(synced_upto, offset).synced_upto(offset);
                assert!(claim <= synced_upto, "{synced_upto} {offset} {claim}");
                assert!(
                    offset - claim <= 2 * distance,
                    "{synced_upto} {offset} {claim}"
                );
            }
        }
        assert_eq!(SyncedDistance::between(100, 100).synced_upto(100), 100);
    }
}
