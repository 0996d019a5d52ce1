//! Commands about keys, whatever their values are.

mod dump;
mod expiry;
mod flush;
mod object;
mod walk;

use super::Flag::{Admin, DenyOom, Fast, ReadOnly, Write};
use super::Run::{Alone, AloneIfMany, Directly};
use super::{Call, Command, Failure, integer, is, no_such_database, only_database};
use crate::server::keyspace::Change;

pub(crate) const COMMANDS: &[Command] = &[
    Command::new("del", -2, &[Write], AloneIfMany(del))
        .keys(1, -1, 1)
        .about("generic", "Deletes one or more keys."),
    Command::new("unlink", -2, &[Write, Fast], AloneIfMany(del))
        .keys(1, -1, 1)
        .about("generic", "Deletes one or more keys, as DEL does."),
    Command::new("exists", -2, &[ReadOnly, Fast], Directly(exists))
        .keys(1, -1, 1)
        .about("generic", "Counts those of the keys that exist."),
    Command::new("touch", -2, &[ReadOnly, Fast], Directly(exists))
        .keys(1, -1, 1)
        .about(
            "generic",
            "Counts those of the keys that exist: uses are not noted.",
        ),
    Command::new("type", 2, &[ReadOnly, Fast], Directly(type_))
        .keys(1, 1, 1)
        .about(
            "generic",
            "Says what type a key's value has: string, or none.",
        ),
    Command::new("rename", 3, &[Write], Alone(rename))
        .keys(1, 2, 1)
        .about(
            "generic",
            "Gives a value another key, in the place of that key's own.",
        ),
    Command::new("renamenx", 3, &[Write, Fast], Alone(renamenx))
        .keys(1, 2, 1)
        .about(
            "generic",
            "Gives a value another key, if there is none such.",
        ),
    Command::new("copy", -3, &[Write, DenyOom], Alone(copy))
        .keys(1, 2, 1)
        .about(
            "generic",
            "Copies a value, with its expiry, to another key.",
        ),
    Command::new("move", 3, &[Write, Fast], Directly(move_))
        .keys(1, 1, 1)
        .about("generic", "Moves a key to another database: there is none."),
    Command::new("swapdb", 3, &[Write, Fast], Directly(swapdb))
        .about("server", "Exchanges two databases: there is only one."),
    Command::new("ttl", 2, &[ReadOnly, Fast], Directly(expiry::ttl))
        .keys(1, 1, 1)
        .about("generic", "Says how many seconds a key has left."),
    Command::new("pttl", 2, &[ReadOnly, Fast], Directly(expiry::pttl))
        .keys(1, 1, 1)
        .about("generic", "Says how many milliseconds a key has left."),
    Command::new(
        "expiretime",
        2,
        &[ReadOnly, Fast],
        Directly(expiry::expiretime),
    )
    .keys(1, 1, 1)
    .about(
        "generic",
        "Says when a key expires, in seconds of Unix time.",
    ),
    Command::new(
        "pexpiretime",
        2,
        &[ReadOnly, Fast],
        Directly(expiry::pexpiretime),
    )
    .keys(1, 1, 1)
    .about(
        "generic",
        "Says when a key expires, in milliseconds of Unix time.",
    ),
    Command::new("expire", -3, &[Write, Fast], Directly(expiry::expire))
        .keys(1, 1, 1)
        .about("generic", "Lets a key expire in so many seconds."),
    Command::new("pexpire", -3, &[Write, Fast], Directly(expiry::pexpire))
        .keys(1, 1, 1)
        .about("generic", "Lets a key expire in so many milliseconds."),
    Command::new("expireat", -3, &[Write, Fast], Directly(expiry::expireat))
        .keys(1, 1, 1)
        .about("generic", "Lets a key expire at a second of Unix time."),
    Command::new("pexpireat", -3, &[Write, Fast], Directly(expiry::pexpireat))
        .keys(1, 1, 1)
        .about(
            "generic",
            "Lets a key expire at a millisecond of Unix time.",
        ),
    Command::new("persist", 2, &[Write, Fast], Directly(expiry::persist))
        .keys(1, 1, 1)
        .about("generic", "Lets a key live for ever."),
    Command::new("keys", 2, &[ReadOnly], Directly(walk::keys))
        .about("generic", "Lists the keys that match a pattern."),
    Command::new("scan", -2, &[ReadOnly], Directly(walk::scan))
        .about("generic", "Lists some keys, and says how to go on."),
    Command::new("randomkey", 1, &[ReadOnly], Directly(walk::randomkey))
        .about("generic", "Gives some key."),
    Command::new("dbsize", 1, &[ReadOnly, Fast], Directly(walk::dbsize))
        .about("server", "Counts the keys."),
    Command::new("flushdb", -1, &[Write], Directly(flush::flush))
        .about("server", "Deletes all keys."),
    Command::new("flushall", -1, &[Write], Directly(flush::flush))
        .about("server", "Deletes all keys."),
    Command::new("object", -2, &[ReadOnly], Directly(object::object))
        .keys(2, 2, 1)
        .about("generic", "Tells how a value is kept, by subcommands."),
    Command::new("memory", -2, &[ReadOnly], Directly(object::memory)).about(
        "server",
        "Tells what takes how much memory, by subcommands.",
    ),
    Command::new("dump", 2, &[ReadOnly], Directly(dump::dump))
        .keys(1, 1, 1)
        .about("generic", "Gives a value in a form that RESTORE takes."),
    Command::new(
        "restore",
        -4,
        &[Write, DenyOom, Admin],
        Directly(dump::restore),
    )
    .keys(1, 1, 1)
    .about("generic", "Makes a key of what DUMP gave."),
];

fn del(call: &mut Call<'_, '_>) -> Result<(), Failure> {
    let mut deleted = 0;
    for key in &call.words[1..] {
        deleted += usize::from(call.keyspace.delete(key)?);
    }
    call.reply.count(deleted);
    Ok(())
}

fn exists(call: &mut Call<'_, '_>) -> Result<(), Failure> {
    let mut found = 0;
    for key in &call.words[1..] {
        found += usize::from(call.keyspace.contains(key)?);
    }
    call.reply.count(found);
    Ok(())
}

fn type_(call: &mut Call<'_, '_>) -> Result<(), Failure> {
    let is_there = call.keyspace.contains(call.words[1])?;
    call.reply.simple(if is_there { "string" } else { "none" });
    Ok(())
}

fn rename(call: &mut Call<'_, '_>) -> Result<(), Failure> {
    let (from, to) = (call.words[1], call.words[2]);
    let put = put_of(call, from)?.ok_or_else(no_such_key)?;
    if from != to {
        call.keyspace.delete(from)?;
        change(call, to, put)?;
    }
    call.reply.ok();
    Ok(())
}

fn renamenx(call: &mut Call<'_, '_>) -> Result<(), Failure> {
    let (from, to) = (call.words[1], call.words[2]);
    let put = put_of(call, from)?.ok_or_else(no_such_key)?;
    let is_free = !call.keyspace.contains(to)?;
    if is_free {
        call.keyspace.delete(from)?;
        change(call, to, put)?;
    }
    call.reply.integer(i64::from(is_free));
    Ok(())
}

fn copy(call: &mut Call<'_, '_>) -> Result<(), Failure> {
    let (from, to) = (call.words[1], call.words[2]);
    let mut options = &call.words[3..];
    let mut replaces = false;
    loop {
        options = match options {
            [] => break,
            [word, rest @ ..] if is(word, "replace") => {
                replaces = true;
                rest
            }
            [word, database, rest @ ..] if is(word, "db") => {
                only_database(database)?;
                rest
            }
            _ => return Err(Failure::syntax()),
        };
    }
    if from == to {
        return Err(same_objects());
    }
    let put = put_of(call, from)?;
    let copied = match put {
        Some(put) if replaces || !call.keyspace.contains(to)? => {
            change(call, to, put)?;
            true
        }
        _ => false,
    };
    call.reply.integer(i64::from(copied));
    Ok(())
}

fn move_(call: &mut Call<'_, '_>) -> Result<(), Failure> {
    only_database(call.words[2])?;
    Err(same_objects())
}

fn swapdb(call: &mut Call<'_, '_>) -> Result<(), Failure> {
    let first = integer(call.words[1]);
    let first = first.map_err(|_| Failure::new("ERR invalid first DB index"))?;
    let second = integer(call.words[2]);
    let second = second.map_err(|_| Failure::new("ERR invalid second DB index"))?;
    if (first, second) != (0, 0) {
        return Err(no_such_database());
    }
    call.reply.ok();
    Ok(())
}

/// What would put a key's value, as it is now, elsewhere.
fn put_of(call: &Call<'_, '_>, key: &[u8]) -> Result<Option<Change>, Failure> {
    call.keyspace.read(key, |current| {
        current.map(|current| Change::Put(current.value.to_vec(), current.expires_at))
    })
}

fn change(call: &Call<'_, '_>, key: &[u8], change: Change) -> Result<(), Failure> {
    let mut change = Some(change);
    // In a transaction it is asked once.
    let mut take = || change.take().unwrap_or(Change::Keep);
    call.keyspace.modify(key, |_| Ok((take(), ())))
}

fn no_such_key() -> Failure {
    Failure::new("ERR no such key")
}

fn same_objects() -> Failure {
    Failure::new("ERR source and destination objects are the same")
}
