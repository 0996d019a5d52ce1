//! Commands that read and write whole values.

use std::slice::ChunksExact;
use std::time::SystemTime;

use super::options::{Life, Options, Unit, moment};
use crate::server::commands::{Call, Failure, wrong_arity};
use crate::server::keyspace::Change;

pub(super) fn get(call: &mut Call<'_, '_>) -> Result<(), Failure> {
    let reply = &mut call.reply;
    call.keyspace.read(call.words[1], |current| match current {
        Some(current) => reply.bulk(current.value),
        None => reply.null(),
    })
}

/// A value, or that there is none.
fn reply_value(call: &mut Call<'_, '_>, value: Option<&[u8]>) {
    match value {
        Some(value) => call.reply.bulk(value),
        None => call.reply.null(),
    }
}

/// When a value that is set expires.
#[derive(Clone, Copy)]
enum Expiry {
    /// As the one before it does, or by default if there was none.
    Kept,
    At(Option<SystemTime>),
}

pub(super) fn set(call: &mut Call<'_, '_>) -> Result<(), Failure> {
    let (key, value) = (call.words[1], call.words[2]);
    let options = Options::of_set(&call.words[3..])?;
    let by_default = call.default_expiry();
    let expiry = match options.life {
        Life::Default | Life::Persist => Expiry::At(by_default),
        Life::Keep => Expiry::Kept,
        Life::Until(unit, number) => Expiry::At(Some(moment(unit, number, "set")?)),
    };
    if let (None, false, Expiry::At(at)) = (options.if_there, options.wants_old, expiry) {
        // What stands there need not be looked at.
        call.keyspace.put(key, value, at)?;
        call.reply.ok();
        return Ok(());
    }
    let (is_set, old) = call.keyspace.modify(key, |current| {
        let old = current.filter(|_| options.wants_old);
        let old = old.map(|current| current.value.to_vec());
        if options
            .if_there
            .is_some_and(|there| there != current.is_some())
        {
            return Ok((Change::Keep, (false, old)));
        }
        let expires_at = match expiry {
            Expiry::At(at) => at,
            Expiry::Kept => current.map_or(by_default, |current| current.expires_at),
        };
        Ok((Change::Put(value.to_vec(), expires_at), (true, old)))
    })?;
    if options.wants_old {
        reply_value(call, old.as_deref());
    } else if is_set {
        call.reply.ok();
    } else {
        call.reply.null();
    }
    Ok(())
}

pub(super) fn setnx(call: &mut Call<'_, '_>) -> Result<(), Failure> {
    let value = call.words[2];
    let by_default = call.default_expiry();
    let is_set = call.keyspace.modify(call.words[1], |current| {
        Ok(match current {
            Some(_) => (Change::Keep, false),
            None => (Change::Put(value.to_vec(), by_default), true),
        })
    })?;
    call.reply.integer(i64::from(is_set));
    Ok(())
}

pub(super) fn setex(call: &mut Call<'_, '_>) -> Result<(), Failure> {
    set_for(call, Unit::Seconds, "setex")
}

pub(super) fn psetex(call: &mut Call<'_, '_>) -> Result<(), Failure> {
    set_for(call, Unit::Milliseconds, "psetex")
}

fn set_for(call: &mut Call<'_, '_>, unit: Unit, command: &str) -> Result<(), Failure> {
    let at = moment(unit, call.words[2], command)?;
    call.keyspace.put(call.words[1], call.words[3], Some(at))?;
    call.reply.ok();
    Ok(())
}

pub(super) fn getset(call: &mut Call<'_, '_>) -> Result<(), Failure> {
    let value = call.words[2];
    let by_default = call.default_expiry();
    let old = call.keyspace.modify(call.words[1], |current| {
        let old = current.map(|current| current.value.to_vec());
        Ok((Change::Put(value.to_vec(), by_default), old))
    })?;
    reply_value(call, old.as_deref());
    Ok(())
}

pub(super) fn getdel(call: &mut Call<'_, '_>) -> Result<(), Failure> {
    let old = call.keyspace.modify(call.words[1], |current| {
        let old = current.map(|current| current.value.to_vec());
        let change = if old.is_some() {
            Change::Delete
        } else {
            Change::Keep
        };
        Ok((change, old))
    })?;
    reply_value(call, old.as_deref());
    Ok(())
}

pub(super) fn getex(call: &mut Call<'_, '_>) -> Result<(), Failure> {
    let options = Options::of_getex(&call.words[2..])?;
    if options.life == Life::Default {
        return get(call);
    }
    let value = call.keyspace.modify(call.words[1], |current| {
        let Some(current) = current else {
            // The number is of no interest then, not even whether it is one.
            return Ok((Change::Keep, None));
        };
        let expires_at = match options.life {
            Life::Until(unit, number) => Some(moment(unit, number, "getex")?),
            _ => None,
        };
        let change = if expires_at == current.expires_at {
            Change::Keep
        } else {
            Change::Put(current.value.to_vec(), expires_at)
        };
        Ok((change, Some(current.value.to_vec())))
    })?;
    reply_value(call, value.as_deref());
    Ok(())
}

pub(super) fn mget(call: &mut Call<'_, '_>) -> Result<(), Failure> {
    let keys = &call.words[1..];
    call.reply.array(keys.len());
    for key in keys {
        call.has_room()?;
        let reply = &mut call.reply;
        call.keyspace.read(key, |current| match current {
            Some(current) => reply.bulk(current.value),
            None => reply.null(),
        })?;
    }
    Ok(())
}

pub(super) fn mset(call: &mut Call<'_, '_>) -> Result<(), Failure> {
    put_all(call, pairs(call.words, "mset")?)?;
    call.reply.ok();
    Ok(())
}

pub(super) fn msetnx(call: &mut Call<'_, '_>) -> Result<(), Failure> {
    let pairs = pairs(call.words, "msetnx")?;
    for pair in pairs.clone() {
        if call.keyspace.contains(pair[0])? {
            call.reply.integer(0);
            return Ok(());
        }
    }
    put_all(call, pairs)?;
    call.reply.integer(1);
    Ok(())
}

/// The keys with their values.
fn pairs<'a>(words: &'a [&'a [u8]], command: &str) -> Result<ChunksExact<'a, &'a [u8]>, Failure> {
    let pairs = words[1..].chunks_exact(2);
    if pairs.remainder().is_empty() {
        Ok(pairs)
    } else {
        Err(wrong_arity(command))
    }
}

fn put_all(call: &Call<'_, '_>, pairs: ChunksExact<'_, &[u8]>) -> Result<(), Failure> {
    let by_default = call.default_expiry();
    for pair in pairs {
        call.keyspace.put(pair[0], pair[1], by_default)?;
    }
    Ok(())
}
