//! Commands about values that are numbers.

use super::begun;
use super::extended::Extended;
use crate::server::commands::{Call, Failure, integer};
use crate::server::keyspace::Change;

pub(super) fn incr(call: &mut Call<'_, '_>) -> Result<(), Failure> {
    add(call, 1)
}

pub(super) fn decr(call: &mut Call<'_, '_>) -> Result<(), Failure> {
    add(call, -1)
}

pub(super) fn incrby(call: &mut Call<'_, '_>) -> Result<(), Failure> {
    add(call, integer(call.words[2])?)
}

pub(super) fn decrby(call: &mut Call<'_, '_>) -> Result<(), Failure> {
    let decrement = integer(call.words[2])?;
    let increment = decrement
        .checked_neg()
        .ok_or(Failure::new("ERR decrement would overflow"))?;
    add(call, increment)
}

fn add(call: &mut Call<'_, '_>, increment: i64) -> Result<(), Failure> {
    let by_default = call.default_expiry();
    let sum = call.keyspace.modify(call.words[1], |current| {
        let number = current.map_or(Ok(0), |current| integer(current.value))?;
        let sum = number
            .checked_add(increment)
            .ok_or(Failure::new("ERR increment or decrement would overflow"))?;
        let (_, expires_at) = begun(current, by_default);
        Ok((Change::Put(sum.to_string().into_bytes(), expires_at), sum))
    })?;
    call.reply.integer(sum);
    Ok(())
}

pub(super) fn incrbyfloat(call: &mut Call<'_, '_>) -> Result<(), Failure> {
    let parse = |word: &[u8]| {
        let invalid = || Failure::new("ERR value is not a valid float");
        Extended::parse(word).ok_or_else(invalid)
    };
    // Looked at first, as the value's error is the same.
    let increment = parse(call.words[2])?;
    let by_default = call.default_expiry();
    let sum = call.keyspace.modify(call.words[1], |current| {
        let number = current.map_or(Ok(Extended::ZERO), |current| parse(current.value))?;
        let sum = number
            .plus(increment)
            .to_text()
            .ok_or(Failure::new("ERR increment would produce NaN or Infinity"))?;
        let (_, expires_at) = begun(current, by_default);
        let change = Change::Put(sum.clone().into_bytes(), expires_at);
        Ok((change, sum))
    })?;
    call.reply.bulk(sum.as_bytes());
    Ok(())
}
