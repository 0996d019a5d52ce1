//! Commands that read and write whole values.

use std::time::{Duration, SystemTime};

use super::Flag::{DenyOom, Fast, ReadOnly, Write};
use super::Run::Directly;
use super::{Call, Command, Failure, integer, is};
use crate::server::keyspace::Change;

pub(crate) const COMMANDS: &[Command] = &[
    Command::new("get", 2, &[ReadOnly, Fast], Directly(get))
        .keys(1, 1, 1)
        .about("string", "Returns the string value of a key."),
    Command::new("set", -3, &[Write, DenyOom], Directly(set))
        .keys(1, 1, 1)
        .about(
            "string",
            "Sets the string value of a key, ignoring its type.",
        ),
];

fn get(call: &mut Call<'_, '_>) -> Result<(), Failure> {
    let reply = &mut call.reply;
    call.keyspace.read(call.words[1], |current| match current {
        Some(current) => reply.bulk(current.value),
        None => reply.null(),
    })
}

/// What `SET` is told beside key and value.
#[derive(Default)]
struct SetOptions {
    expiry: SetExpiry,
    /// Only if the key is there (`Some(true)`), or is not (`Some(false)`).
    if_there: Option<bool>,
    wants_old: bool,
}

#[derive(Clone, Copy, Default)]
enum SetExpiry {
    #[default]
    Default,
    Keep,
    At(SystemTime),
}

fn set(call: &mut Call<'_, '_>) -> Result<(), Failure> {
    let (key, value) = (call.words[1], call.words[2]);
    let options = set_options(&call.words[3..])?;
    let by_default = call.default_expiry();
    if options.if_there.is_none() && !options.wants_old {
        match options.expiry {
            SetExpiry::Default => call.keyspace.put(key, value, by_default)?,
            SetExpiry::At(at) => call.keyspace.put(key, value, Some(at))?,
            SetExpiry::Keep => call.keyspace.modify(key, |current| {
                let expires_at = current.map_or(by_default, |current| current.expires_at);
                Ok((Change::Put(value.to_vec(), expires_at), ()))
            })?,
        }
        call.reply.ok();
        return Ok(());
    }
    let (is_set, old) = call.keyspace.modify(key, |current| {
        let old = current.map(|current| current.value.to_vec());
        if options
            .if_there
            .is_some_and(|there| there != current.is_some())
        {
            return Ok((Change::Keep, (false, old)));
        }
        let expires_at = match (options.expiry, current) {
            (SetExpiry::At(at), _) => Some(at),
            (SetExpiry::Keep, Some(current)) => current.expires_at,
            _ => by_default,
        };
        Ok((Change::Put(value.to_vec(), expires_at), (true, old)))
    })?;
    match old {
        Some(old) if options.wants_old => call.reply.bulk(&old),
        None if options.wants_old => call.reply.null(),
        _ if is_set => call.reply.ok(),
        _ => call.reply.null(),
    }
    Ok(())
}

fn set_options(mut words: &[&[u8]]) -> Result<SetOptions, Failure> {
    let mut options = SetOptions::default();
    let mut has_expiry = false;
    while let Some((word, rest)) = words.split_first() {
        words = rest;
        if is(word, "nx") || is(word, "xx") {
            let there = is(word, "xx");
            if options.if_there.is_some_and(|other| other != there) {
                return Err(Failure::syntax());
            }
            options.if_there = Some(there);
        } else if is(word, "get") {
            options.wants_old = true;
        } else if is(word, "keepttl") && !has_expiry {
            has_expiry = true;
            options.expiry = SetExpiry::Keep;
        } else if let (false, Some((time, rest))) = (has_expiry, words.split_first()) {
            has_expiry = true;
            words = rest;
            options.expiry = SetExpiry::At(expiry(word, time, "set")?);
        } else {
            return Err(Failure::syntax());
        }
    }
    Ok(options)
}

/// The moment that `EX`, `PX`, `EXAT` or `PXAT` names with a number; it must be positive.
pub(crate) fn expiry(unit: &[u8], number: &[u8], command: &str) -> Result<SystemTime, Failure> {
    let (per_second, is_absolute) = match unit.to_ascii_lowercase().as_slice() {
        b"ex" => (true, false),
        b"px" => (false, false),
        b"exat" => (true, true),
        b"pxat" => (false, true),
        _ => return Err(Failure::syntax()),
    };
    let invalid = || Failure::new(format!("ERR invalid expire time in '{command}' command"));
    let number = u64::try_from(integer(number)?).map_err(|_| invalid())?;
    if number == 0 {
        return Err(invalid());
    }
    let ms = if per_second {
        number.checked_mul(1000).ok_or_else(invalid)?
    } else {
        number
    };
    // Times are milliseconds in 64 bits with a sign, to Redis.
    let from = if is_absolute {
        SystemTime::UNIX_EPOCH
    } else {
        SystemTime::now()
    };
    if i64::try_from(ms).is_err() {
        return Err(invalid());
    }
    from.checked_add(Duration::from_millis(ms))
        .ok_or_else(invalid)
}
