//! A string as `DUMP` gives it and `RESTORE` takes it: a value of Redis' file format, the format's
//! version, a checksum. Only this much of the format is known here; what holds a list or a hash is
//! refused.
//!
//! ```text
//! type (0: string) | length and bytes | version, 2 bytes | CRC64 of all before, 8 bytes
//! ```
//!
//! Lengths take one byte, two, five or nine, as their first two bits say; the fourth kind of first
//! byte is an integer in binary, or compressed bytes. Compressed bytes are read but never written.

/// The version that is written: no later one writes strings otherwise, and servers refuse what is
/// newer than they are. This is that of Redis 5.
const WRITTEN_VERSION: u16 = 9;
/// The last version that is known to have the same strings: that of Redis 7.4.
const LAST_VERSION: u16 = 12;

const TYPE_STRING: u8 = 0;
const VERSION_LEN: usize = 2;
const CRC_LEN: usize = 8;

/// What the first byte of a length says, with the length's top bits or a kind in the others.
mod prefix {
    pub(super) const SIX_BITS: u8 = 0b00 << 6;
    pub(super) const FOURTEEN_BITS: u8 = 0b01 << 6;
    pub(super) const THIRTY_TWO_BITS: u8 = 0x80;
    pub(super) const SIXTY_FOUR_BITS: u8 = 0x81;
    pub(super) const INT_8: u8 = 0xc0;
    pub(super) const INT_16: u8 = 0xc1;
    pub(super) const INT_32: u8 = 0xc2;
    pub(super) const COMPRESSED: u8 = 0xc3;
}

/// Why a payload is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// Its version is not known, or the checksum is another.
    NotWhole,
    /// It is whole, but no string.
    NoString,
}

pub(crate) fn encode(value: &[u8]) -> Vec<u8> {
    let mut payload = Vec::with_capacity(value.len() + 24);
    payload.push(TYPE_STRING);
    if let Some(integer) = small_integer(value) {
        push_integer(&mut payload, integer);
    } else {
        push_length(&mut payload, value.len());
        payload.extend_from_slice(value);
    }
    payload.extend_from_slice(&WRITTEN_VERSION.to_le_bytes());
    let crc = crc64(&payload);
    payload.extend_from_slice(&crc.to_le_bytes());
    payload
}

/// The value of a payload, if it is a string of `max_len` bytes at most.
pub(crate) fn decode(payload: &[u8], max_len: usize) -> Result<Vec<u8>, Refused> {
    let (checked, crc) = split_end(payload, CRC_LEN).ok_or(Refused::NotWhole)?;
    let (value, version) = split_end(checked, VERSION_LEN).ok_or(Refused::NotWhole)?;
    let version = number(version.iter().rev());
    if version > u64::from(LAST_VERSION) || number(crc.iter().rev()) != crc64(checked) {
        return Err(Refused::NotWhole);
    }
    let string = value.strip_prefix(&[TYPE_STRING]);
    let string = string.ok_or(Refused::NoString)?;
    decode_string(string, max_len).ok_or(Refused::NoString)
}

fn split_end(bytes: &[u8], len: usize) -> Option<(&[u8], &[u8])> {
    Some(bytes.split_at(bytes.len().checked_sub(len)?))
}

/// The number of these bytes, the highest first.
fn number<'a>(bytes: impl Iterator<Item = &'a u8>) -> u64 {
    bytes.fold(0, |number, byte| number << 8 | u64::from(*byte))
}

fn decode_string(mut bytes: &[u8], max_len: usize) -> Option<Vec<u8>> {
    let value = match take_prefix(&mut bytes)? {
        Prefix::Length(len) => take(&mut bytes, len)?.to_vec(),
        Prefix::Integer(len) => {
            let bytes = take(&mut bytes, len)?;
            // The sign is that of the highest byte.
            let is_negative = bytes.last().is_some_and(|byte| *byte >= 0x80);
            let mut extended = [if is_negative { 0xff } else { 0 }; 8];
            extended[..len].copy_from_slice(bytes);
            let signed = i64::from_le_bytes(extended);
            signed.to_string().into_bytes()
        }
        Prefix::Compressed => {
            let Prefix::Length(compressed_len) = take_prefix(&mut bytes)? else {
                return None;
            };
            let Prefix::Length(len) = take_prefix(&mut bytes)? else {
                return None;
            };
            decompress(take(&mut bytes, compressed_len)?, len.min(max_len))
                .filter(|value| value.len() == len)?
        }
    };
    (bytes.is_empty() && value.len() <= max_len).then_some(value)
}

enum Prefix {
    Length(usize),
    /// In so many bytes.
    Integer(usize),
    Compressed,
}

fn take_prefix(bytes: &mut &[u8]) -> Option<Prefix> {
    let (&first, rest) = bytes.split_first()?;
    *bytes = rest;
    let top_bits = first & (0b11 << 6);
    let mut length = |len| Some(number(take(bytes, len)?.iter()));
    let len = match first {
        prefix::INT_8 => return Some(Prefix::Integer(1)),
        prefix::INT_16 => return Some(Prefix::Integer(2)),
        prefix::INT_32 => return Some(Prefix::Integer(4)),
        prefix::COMPRESSED => return Some(Prefix::Compressed),
        prefix::THIRTY_TWO_BITS => length(4)?,
        prefix::SIXTY_FOUR_BITS => length(8)?,
        _ if top_bits == prefix::SIX_BITS => u64::from(first),
        _ if top_bits == prefix::FOURTEEN_BITS => u64::from(first & 0x3f) << 8 | length(1)?,
        _ => return None,
    };
    usize::try_from(len).ok().map(Prefix::Length)
}

fn take<'a>(bytes: &mut &'a [u8], len: usize) -> Option<&'a [u8]> {
    let (taken, rest) = bytes.split_at_checked(len)?;
    *bytes = rest;
    Some(taken)
}

/// What LZF made of some bytes, if they are `max_len` at most. Each piece begins with a byte: below
/// 32, one more than that many bytes follow as they are; otherwise it has three bits of a length,
/// and five of how far back the same bytes are.
fn decompress(mut input: &[u8], max_len: usize) -> Option<Vec<u8>> {
    let mut output = Vec::new();
    while let Some((&control, rest)) = input.split_first() {
        input = rest;
        if control < 32 {
            output.extend_from_slice(take(&mut input, usize::from(control) + 1)?);
        } else {
            let mut byte = || Some(usize::from(take(&mut input, 1)?[0]));
            let mut len = usize::from(control >> 5) + 2;
            if len == 7 + 2 {
                len += byte()?;
            }
            let back = (usize::from(control & 0x1f) << 8) + byte()? + 1;
            let from = output.len().checked_sub(back)?;
            // It may repeat what it is just now writing.
            (from..from + len).for_each(|at| output.push(output[at]));
        }
        if output.len() > max_len {
            return None;
        }
    }
    Some(output)
}

/// The integer that a value is the text of, if it fits 32 bits.
fn small_integer(value: &[u8]) -> Option<i32> {
    let integer: i32 = std::str::from_utf8(value).ok()?.parse().ok()?;
    (integer.to_string().as_bytes() == value).then_some(integer)
}

fn push_integer(payload: &mut Vec<u8>, integer: i32) {
    let (prefix, len) = match integer {
        -0x80..0x80 => (prefix::INT_8, 1),
        -0x8000..0x8000 => (prefix::INT_16, 2),
        _ => (prefix::INT_32, 4),
    };
    payload.push(prefix);
    payload.extend_from_slice(&integer.to_le_bytes()[..len]);
}

fn push_length(payload: &mut Vec<u8>, len: usize) {
    // Little-endian, to be taken from the other end.
    let bytes = (len as u64).to_le_bytes();
    let count = match len {
        0..0x40 => {
            payload.push(prefix::SIX_BITS | bytes[0]);
            return;
        }
        0x40..0x4000 => {
            payload.push(prefix::FOURTEEN_BITS | bytes[1]);
            1
        }
        0x4000..=0xffff_ffff => {
            payload.push(prefix::THIRTY_TWO_BITS);
            4
        }
        _ => {
            payload.push(prefix::SIXTY_FOUR_BITS);
            8
        }
    };
    payload.extend(bytes[..count].iter().rev());
}

/// The CRC of 64 bits by Jones, from the low bit up.
fn crc64(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |crc, byte| {
        CRC_TABLE[usize::from(crc as u8 ^ byte)] ^ crc >> 8
    })
}

static CRC_TABLE: [u64; 256] = {
    /// The polynomial 0xad93d23594c935a9, from its other end.
    const POLYNOMIAL: u64 = 0x95ac_9329_ac4b_c9b5;
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = byte as u64;
        let mut bit = 0;
        while bit < 8 {
            crc = (crc >> 1) ^ ((crc & 1) * POLYNOMIAL);
            bit += 1;
        }
        table[byte] = crc;
        byte += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;

    /// By `DUMP` of Redis 7.0.15, with `SET a 1`.
    const ONE: &[u8] = b"\x00\xc0\x01\n\x00&x\xe7\xb6\xd1\x01\x11\xfc";
    /// The same of the digits four times over, which it compresses.
    const DIGITS: &[u8] = b"\x00\xc3\x12(\n01234567890\xe0\x12\t\x0189\n\x00]\x9b\x94\xa2{[?J";

    fn sealed(mut payload: Vec<u8>) -> Vec<u8> {
        payload.extend(10_u16.to_le_bytes());
        let crc = crc64(&payload);
        payload.extend(crc.to_le_bytes());
        payload
    }

    #[test]
    fn the_checksum_is_the_published_one() {
        assert_eq!(crc64(b"123456789"), 0xe9c6_d914_c4b8_d9ca);
    }

    #[test]
    fn what_redis_dumps_is_restored() {
        assert_eq!(decode(ONE, 100).unwrap(), b"1");
        assert_eq!(decode(DIGITS, 100).unwrap(), b"0123456789".repeat(4));
    }

    #[test]
    fn integers_and_lengths_are_written_as_the_format_has_them() {
        let begin = |value: &[u8], len: usize| encode(value)[..len].to_vec();
        assert_eq!(begin(b"1", 3), b"\x00\xc0\x01");
        assert_eq!(begin(b"-128", 3), b"\x00\xc0\x80");
        assert_eq!(begin(b"128", 4), b"\x00\xc1\x80\x00");
        assert_eq!(begin(b"65536", 6), b"\x00\xc2\x00\x00\x01\x00");
        assert_eq!(begin(b"01", 4), b"\x00\x0201");
        assert_eq!(begin(b"+1", 4), b"\x00\x02+1");
        assert_eq!(begin(&[b'a'; 0x3f], 3), b"\x00\x3fa");
        assert_eq!(begin(&[b'a'; 0x1234], 4), b"\x00\x52\x34a");
        assert_eq!(
            begin(&vec![b'a'; 0x1_2345], 7),
            b"\x00\x80\x00\x01\x23\x45a"
        );
    }

    #[test]
    fn every_value_comes_back() {
        for value in [
            "",
            "a",
            "0",
            "-1",
            "-0",
            "-32769",
            "2147483647",
            "2147483648",
        ] {
            assert_eq!(
                decode(&encode(value.as_bytes()), 100).unwrap(),
                value.as_bytes()
            );
        }
        for len in [63, 64, 16383, 16384, 100_000] {
            let value = vec![b'x'; len];
            assert_eq!(decode(&encode(&value), len).unwrap(), value);
            assert_eq!(decode(&encode(&value), len - 1), Err(Refused::NoString));
        }
    }

    #[test]
    fn what_is_not_whole_is_refused() {
        for len in 0..ONE.len() {
            assert_eq!(decode(&ONE[..len], 100), Err(Refused::NotWhole));
        }
        for at in 0..ONE.len() {
            let mut damaged = ONE.to_vec();
            damaged[at] ^= 1;
            assert_eq!(decode(&damaged, 100), Err(Refused::NotWhole), "at {at}");
        }
    }

    #[test]
    fn what_is_whole_and_no_string_is_refused() {
        let payloads: [&[u8]; 11] = [
            b"",
            b"\x01\x00",
            b"\x00",
            b"\x00\x02a",
            b"\x00\x01ab",
            b"\x00\x81\xff\xff\xff\xff\xff\xff\xff\xff",
            b"\x00\xc4",
            // Compressed, and the pieces go back too far, end early, give too little, too much.
            b"\x00\xc3\x02\x03\x20\x00",
            b"\x00\xc3\x02\x02\x01a",
            b"\x00\xc3\x02\x02\x00a",
            b"\x00\xc3\x05\x04\x00a\xe0\xff\x00",
        ];
        for payload in payloads {
            let refused = decode(&sealed(payload.to_vec()), 1000);
            assert_eq!(refused, Err(Refused::NoString), "{payload:?}");
        }
    }
}
