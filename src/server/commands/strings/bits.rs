//! Commands about the bits of a value. The first is the highest of the first byte.

use std::ops::RangeInclusive;

use super::ranges::{copied, part};
use super::{begun, places, signed};
use crate::server::commands::{Call, Failure, integer, is};
use crate::server::keyspace::Change;

/// Where a bit is: its byte, and how far it is from that byte's lowest.
fn place(offset: &[u8]) -> Result<(usize, u32), Failure> {
    let invalid = || Failure::new("ERR bit offset is not an integer or out of range");
    let bit = integer(offset).map_err(|_| invalid())?;
    let byte = usize::try_from(bit / 8).map_err(|_| invalid())?;
    if bit < 0 || byte >= crabkv::MAX_VALUE_LEN {
        return Err(invalid());
    }
    Ok((byte, shift(bit)))
}

/// How far a bit is from the lowest of its byte.
fn shift(bit: i64) -> u32 {
    7 - (bit.unsigned_abs() % 8) as u32
}

pub(super) fn getbit(call: &mut Call<'_, '_>) -> Result<(), Failure> {
    let (byte, shift) = place(call.words[2])?;
    let reply = &mut call.reply;
    call.keyspace.read(call.words[1], |current| {
        let byte = current.and_then(|current| current.value.get(byte).copied());
        reply.integer(i64::from(byte.unwrap_or(0) >> shift & 1));
    })
}

pub(super) fn setbit(call: &mut Call<'_, '_>) -> Result<(), Failure> {
    let (byte, shift) = place(call.words[2])?;
    let bit = match call.words[3] {
        b"0" => 0,
        b"1" => 1,
        _ => return Err(Failure::new("ERR bit is not an integer or out of range")),
    };
    let by_default = call.default_expiry();
    let old = call.keyspace.modify(call.words[1], |current| {
        let (value, expires_at) = begun(current, by_default);
        let old = value.get(byte).map(|byte| byte >> shift & 1);
        if old == Some(bit) {
            return Ok((Change::Keep, bit));
        }
        let mut value = copied(value, byte + 1);
        value[byte] = value[byte] & !(1 << shift) | bit << shift;
        Ok((Change::Put(value, expires_at), old.unwrap_or(0)))
    })?;
    call.reply.integer(i64::from(old));
    Ok(())
}

/// What two numbers in a command count.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Unit {
    Byte,
    Bit,
}

impl Unit {
    fn named(word: &[u8]) -> Result<Unit, Failure> {
        if is(word, "byte") {
            Ok(Unit::Byte)
        } else if is(word, "bit") {
            Ok(Unit::Bit)
        } else {
            Err(Failure::syntax())
        }
    }

    /// The bits of a value that two places name.
    fn bits(self, start: i64, end: i64, value: &[u8]) -> Option<RangeInclusive<i64>> {
        let len = signed(value.len());
        match self {
            Unit::Byte => places(start, end, len).map(|(start, end)| start * 8..=end * 8 + 7),
            Unit::Bit => places(start, end, len * 8).map(|(start, end)| start..=end),
        }
    }
}

pub(super) fn bitcount(call: &mut Call<'_, '_>) -> Result<(), Failure> {
    let (start, end, unit) = match *call.arguments() {
        [_] => (0, -1, Unit::Byte),
        [_, start, end] => (integer(start)?, integer(end)?, Unit::Byte),
        [_, start, end, unit] => {
            let (start, end) = (integer(start)?, integer(end)?);
            (start, end, Unit::named(unit)?)
        }
        _ => return Err(Failure::syntax()),
    };
    let reply = &mut call.reply;
    call.keyspace.read(call.words[1], |current| {
        let value = current.map_or(&b""[..], |current| current.value);
        // Backwards, and so nothing, even where both are before the beginning.
        let is_backwards = start < 0 && end < 0 && start > end;
        let bits = unit.bits(start, end, value).filter(|_| !is_backwards);
        reply.integer(bits.map_or(0, |bits| count(value, bits)));
    })
}

/// How many bits are set.
fn count(value: &[u8], bits: RangeInclusive<i64>) -> i64 {
    let (first, last) = (*bits.start(), *bits.end());
    let bytes = part(value, first / 8, last / 8);
    let mut words = bytes.chunks_exact(8);
    let mut count = 0;
    for word in &mut words {
        let mut eight = [0; 8];
        eight.copy_from_slice(word);
        count += i64::from(u64::from_le_bytes(eight).count_ones());
    }
    let rest = words.remainder().iter();
    count += rest.map(|byte| i64::from(byte.count_ones())).sum::<i64>();
    // Less those before the first bit and behind the last.
    let before = bytes
        .first()
        .map_or(0, |byte| byte & !(0xff >> (first % 8)));
    let behind = bytes
        .last()
        .map_or(0, |byte| byte & ((1 << shift(last)) - 1));
    count - i64::from(before.count_ones()) - i64::from(behind.count_ones())
}

pub(super) fn bitpos(call: &mut Call<'_, '_>) -> Result<(), Failure> {
    let bit = match integer(call.words[2])? {
        0 => false,
        1 => true,
        _ => return Err(Failure::new("ERR The bit argument must be 1 or 0.")),
    };
    let (start, end, unit) = match call.words[3..] {
        [] => (0, None, Unit::Byte),
        [start] => (integer(start)?, None, Unit::Byte),
        [start, end] => (integer(start)?, Some(integer(end)?), Unit::Byte),
        [start, end, unit] => {
            let unit = Unit::named(unit)?;
            (integer(start)?, Some(integer(end)?), unit)
        }
        _ => return Err(Failure::syntax()),
    };
    let reply = &mut call.reply;
    call.keyspace.read(call.words[1], |current| {
        let Some(current) = current else {
            // A value of zeros without an end.
            return reply.integer(if bit { -1 } else { 0 });
        };
        let bits = unit.bits(start, end.unwrap_or(-1), current.value);
        let found = bits.map(|bits| first(current.value, bits, bit));
        reply.integer(match found {
            Some(Some(place)) => place,
            // Behind a value whose end was not named there are zeros.
            Some(None) if !bit && end.is_none() => signed(current.value.len()) * 8,
            _ => -1,
        });
    })
}

/// The first of some bits that is set, or is not.
fn first(value: &[u8], bits: RangeInclusive<i64>, bit: bool) -> Option<i64> {
    let (first, last) = (*bits.start(), *bits.end());
    let bytes = part(value, first / 8, last / 8);
    // As if bits that are set were looked for.
    let flip = if bit { 0 } else { 0xff };
    let begin = (bytes.first()? ^ flip) & (0xff >> (first % 8));
    let (at, byte) = if begin == 0 {
        let rest = bytes.iter().enumerate().skip(1);
        rest.map(|(at, byte)| (at, byte ^ flip))
            .find(|(_, byte)| *byte != 0)?
    } else {
        (0, begin)
    };
    let place = (first / 8 + signed(at)) * 8 + i64::from(byte.leading_zeros());
    (place <= last).then_some(place)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_range_of_bits_is_counted_and_searched_as_if_bit_by_bit() {
        let value = [0x00, 0xff, 0x81, 0x00, 0x7e, 0xff, 0xff, 0x10, 0x00, 0x03];
        let is_set = |bit: &i64| {
            let byte = usize::try_from(*bit / 8).unwrap();
            value[byte] >> shift(*bit) & 1 == 1
        };
        for start in 0..80 {
            for end in start..80 {
                let ones = (start..=end).filter(is_set).count();
                assert_eq!(count(&value, start..=end), signed(ones), "{start} {end}");
                for bit in [false, true] {
                    let place = (start..=end).find(|place| is_set(place) == bit);
                    assert_eq!(
                        first(&value, start..=end, bit),
                        place,
                        "{start} {end} {bit}"
                    );
                }
            }
        }
    }
}
