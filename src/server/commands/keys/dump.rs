//! `DUMP` and `RESTORE`, in the format of [`rdb`].

use crabkv::MAX_VALUE_LEN;

use super::super::{Call, Failure, integer, is};
use super::expiry::{now_ms, time_at};
use crate::server::keyspace::Change;
use crate::server::rdb::{self, Refused};

pub(super) fn dump(call: &mut Call<'_, '_>) -> Result<(), Failure> {
    let payload = call.keyspace.read(call.words[1], |current| {
        current.map(|current| rdb::encode(current.value))
    })?;
    match payload {
        Some(payload) => call.reply.bulk(&payload),
        None => call.reply.null(),
    }
    Ok(())
}

#[derive(Default)]
struct RestoreOptions {
    replaces: bool,
    /// The time is one of Unix time.
    is_absolute: bool,
    /// What Redis would note of the key's use, and this store does not.
    has_use: bool,
}

pub(super) fn restore(call: &mut Call<'_, '_>) -> Result<(), Failure> {
    let (key, ttl, payload) = (call.words[1], call.words[2], call.words[3]);
    let options = restore_options(&call.words[4..])?;
    if !options.replaces && call.keyspace.contains(key)? {
        return Err(busy());
    }
    let ttl_ms = integer(ttl)?;
    if ttl_ms < 0 {
        return Err(Failure::new("ERR Invalid TTL value, must be >= 0"));
    }
    let value = rdb::decode(payload, MAX_VALUE_LEN).map_err(|refused| match refused {
        Refused::NotWhole => Failure::new("ERR DUMP payload version or checksum are wrong"),
        Refused::NoString => Failure::new("ERR Bad data format"),
    })?;
    let base_ms = if options.is_absolute { 0 } else { now_ms() };
    let at = time_at(ttl_ms.saturating_add(base_ms)).filter(|_| ttl_ms != 0);
    call.keyspace.modify(key, |current| {
        if current.is_some() && !options.replaces {
            return Err(busy());
        }
        Ok((Change::Put(value.clone(), at), ()))
    })?;
    call.reply.ok();
    Ok(())
}

fn restore_options(mut words: &[&[u8]]) -> Result<RestoreOptions, Failure> {
    let mut options = RestoreOptions::default();
    loop {
        words = match words {
            [] => return Ok(options),
            [word, rest @ ..] if is(word, "replace") => {
                options.replaces = true;
                rest
            }
            [word, rest @ ..] if is(word, "absttl") => {
                options.is_absolute = true;
                rest
            }
            [word, number, rest @ ..] if is(word, "idletime") && !options.has_use => {
                if integer(number)? < 0 {
                    return Err(Failure::new("ERR Invalid IDLETIME value, must be >= 0"));
                }
                options.has_use = true;
                rest
            }
            [word, number, rest @ ..] if is(word, "freq") && !options.has_use => {
                if !(0..=255).contains(&integer(number)?) {
                    return Err(Failure::new(
                        "ERR Invalid FREQ value, must be >= 0 and <= 255",
                    ));
                }
                options.has_use = true;
                rest
            }
            _ => return Err(Failure::syntax()),
        };
    }
}

fn busy() -> Failure {
    Failure::new("BUSYKEY Target key name already exists.")
}
