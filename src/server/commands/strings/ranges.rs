//! Commands about the bytes of a value.

use super::{begun, grown, places, signed};
use crate::server::commands::{Call, Failure, integer};
use crate::server::keyspace::Change;

pub(super) fn append(call: &mut Call<'_, '_>) -> Result<(), Failure> {
    let end = call.words[2];
    let by_default = call.default_expiry();
    let len = call.keyspace.modify(call.words[1], |current| {
        let (begin, expires_at) = begun(current, by_default);
        let len = grown(begin.len(), end.len())?;
        Ok((Change::Put([begin, end].concat(), expires_at), len))
    })?;
    call.reply.count(len);
    Ok(())
}

pub(super) fn strlen(call: &mut Call<'_, '_>) -> Result<(), Failure> {
    let reply = &mut call.reply;
    call.keyspace.read(call.words[1], |current| {
        reply.count(current.map_or(0, |current| current.value.len()));
    })
}

/// `GETRANGE`, and `SUBSTR`, which is its former name.
pub(super) fn getrange(call: &mut Call<'_, '_>) -> Result<(), Failure> {
    let (start, end) = (integer(call.words[2])?, integer(call.words[3])?);
    let reply = &mut call.reply;
    call.keyspace.read(call.words[1], |current| {
        let value = current.map_or(&b""[..], |current| current.value);
        reply.bulk(part(value, start, end));
    })
}

/// The bytes from `start` to `end`, both included and from the end if negative.
pub(super) fn part(value: &[u8], start: i64, end: i64) -> &[u8] {
    // Backwards, and so nothing, even where both are before the beginning.
    if start < 0 && end < 0 && start > end {
        return &[];
    }
    let place = |place| usize::try_from(place).ok();
    places(start, end, signed(value.len()))
        .and_then(|(start, end)| value.get(place(start)?..=place(end)?))
        .unwrap_or_default()
}

pub(super) fn setrange(call: &mut Call<'_, '_>) -> Result<(), Failure> {
    let offset = integer(call.words[2])?;
    let Ok(offset) = u64::try_from(offset) else {
        return Err(Failure::new("ERR offset is out of range"));
    };
    // What does not fit is too far for a value as well.
    let offset = usize::try_from(offset).unwrap_or(usize::MAX);
    let part = call.words[3];
    if part.is_empty() {
        // Nothing is put, not even where there was nothing.
        return strlen(call);
    }
    let end = grown(offset, part.len())?;
    let by_default = call.default_expiry();
    let len = call.keyspace.modify(call.words[1], |current| {
        let (old, expires_at) = begun(current, by_default);
        let mut value = copied(old, end);
        value[offset..end].copy_from_slice(part);
        let len = value.len();
        Ok((Change::Put(value, expires_at), len))
    })?;
    call.reply.count(len);
    Ok(())
}

/// A copy of a value, with zeros behind it if it is shorter than `min_len`.
pub(super) fn copied(value: &[u8], min_len: usize) -> Vec<u8> {
    // Zeros of the system's, which take no memory before they are touched.
    let mut copy = vec![0; value.len().max(min_len)];
    copy[..value.len()].copy_from_slice(value);
    copy
}
