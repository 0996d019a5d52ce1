//! Commands about strings, which all values here are: as wholes ([`values`]), by bytes ([`ranges`])
//! and bits ([`bits`]), as numbers ([`numbers`]), and two of them compared ([`lcs`]).

mod bits;
mod extended;
mod lcs;
mod natural;
mod numbers;
mod options;
mod ranges;
mod values;

use std::time::SystemTime;

use super::Flag::{DenyOom, Fast, ReadOnly, Write};
use super::Run::{Alone, Directly};
use super::{Command, Failure};
use crate::server::keyspace::Current;

pub(crate) const COMMANDS: &[Command] = &[
    Command::new("get", 2, &[ReadOnly, Fast], Directly(values::get))
        .keys(1, 1, 1)
        .about("string", "Returns the value of a key."),
    Command::new("set", -3, &[Write, DenyOom], Directly(values::set))
        .keys(1, 1, 1)
        .about(
            "string",
            "Gives a key a value, perhaps only if it has one or has none.",
        ),
    Command::new("setnx", 3, &[Write, DenyOom, Fast], Directly(values::setnx))
        .keys(1, 1, 1)
        .about("string", "Gives a key a value if it has none."),
    Command::new("setex", 4, &[Write, DenyOom], Directly(values::setex))
        .keys(1, 1, 1)
        .about("string", "Gives a key a value for some seconds."),
    Command::new("psetex", 4, &[Write, DenyOom], Directly(values::psetex))
        .keys(1, 1, 1)
        .about("string", "Gives a key a value for some milliseconds."),
    Command::new(
        "getset",
        3,
        &[Write, DenyOom, Fast],
        Directly(values::getset),
    )
    .keys(1, 1, 1)
    .about("string", "Gives a key a value, and returns the one before."),
    Command::new("getdel", 2, &[Write, Fast], Directly(values::getdel))
        .keys(1, 1, 1)
        .about("string", "Returns the value of a key, and deletes it."),
    Command::new("getex", -2, &[Write, Fast], Directly(values::getex))
        .keys(1, 1, 1)
        .about(
            "string",
            "Returns the value of a key, and changes when it expires.",
        ),
    Command::new("mget", -2, &[ReadOnly, Fast], Directly(values::mget))
        .keys(1, -1, 1)
        .about("string", "Returns the values of several keys."),
    Command::new("mset", -3, &[Write, DenyOom], Alone(values::mset))
        .keys(1, -1, 2)
        .about("string", "Gives several keys their values at once."),
    Command::new("msetnx", -3, &[Write, DenyOom], Alone(values::msetnx))
        .keys(1, -1, 2)
        .about(
            "string",
            "Gives several keys their values if none of them has one.",
        ),
    Command::new(
        "append",
        3,
        &[Write, DenyOom, Fast],
        Directly(ranges::append),
    )
    .keys(1, 1, 1)
    .about("string", "Appends to the value of a key."),
    Command::new("strlen", 2, &[ReadOnly, Fast], Directly(ranges::strlen))
        .keys(1, 1, 1)
        .about("string", "Returns the length of a value in bytes."),
    Command::new("getrange", 4, &[ReadOnly], Directly(ranges::getrange))
        .keys(1, 1, 1)
        .about("string", "Returns a part of a value."),
    Command::new("substr", 4, &[ReadOnly], Directly(ranges::getrange))
        .keys(1, 1, 1)
        .about("string", "Returns a part of a value, as GETRANGE does."),
    Command::new("setrange", 4, &[Write, DenyOom], Directly(ranges::setrange))
        .keys(1, 1, 1)
        .about("string", "Overwrites a part of a value."),
    Command::new("getbit", 3, &[ReadOnly, Fast], Directly(bits::getbit))
        .keys(1, 1, 1)
        .about("bitmap", "Returns one bit of a value."),
    Command::new("setbit", 4, &[Write, DenyOom], Directly(bits::setbit))
        .keys(1, 1, 1)
        .about(
            "bitmap",
            "Sets or clears one bit of a value, and returns what it was.",
        ),
    Command::new("bitcount", -2, &[ReadOnly], Directly(bits::bitcount))
        .keys(1, 1, 1)
        .about(
            "bitmap",
            "Counts the bits that are set in a value or in a part of it.",
        ),
    Command::new("bitpos", -3, &[ReadOnly], Directly(bits::bitpos))
        .keys(1, 1, 1)
        .about("bitmap", "Finds the first bit that is set, or is not."),
    Command::new("incr", 2, &[Write, DenyOom, Fast], Directly(numbers::incr))
        .keys(1, 1, 1)
        .about("string", "Adds one to an integer; no value counts as 0."),
    Command::new("decr", 2, &[Write, DenyOom, Fast], Directly(numbers::decr))
        .keys(1, 1, 1)
        .about(
            "string",
            "Subtracts one from an integer; no value counts as 0.",
        ),
    Command::new(
        "incrby",
        3,
        &[Write, DenyOom, Fast],
        Directly(numbers::incrby),
    )
    .keys(1, 1, 1)
    .about("string", "Adds to an integer; no value counts as 0."),
    Command::new(
        "decrby",
        3,
        &[Write, DenyOom, Fast],
        Directly(numbers::decrby),
    )
    .keys(1, 1, 1)
    .about("string", "Subtracts from an integer; no value counts as 0."),
    Command::new(
        "incrbyfloat",
        3,
        &[Write, DenyOom, Fast],
        Directly(numbers::incrbyfloat),
    )
    .keys(1, 1, 1)
    .about(
        "string",
        "Adds to a number that may have a fraction; no value counts as 0.",
    ),
    Command::new("lcs", -3, &[ReadOnly], Directly(lcs::lcs))
        .keys(1, 2, 1)
        .about(
            "string",
            "Finds the longest common subsequence of two values.",
        ),
];

/// What a command that changes a part of a value begins with: all of it and when that expires, or
/// nothing and when a new value does.
fn begun(
    current: Option<Current<'_>>,
    by_default: Option<SystemTime>,
) -> (&[u8], Option<SystemTime>) {
    match current {
        Some(current) => (current.value, current.expires_at),
        None => (&[], by_default),
    }
}

/// The length of a value that is about to grow, if values can be that long.
fn grown(begin: usize, len: usize) -> Result<usize, Failure> {
    let end = begin.checked_add(len);
    end.filter(|end| *end <= crabkv::MAX_VALUE_LEN)
        .ok_or(Failure::new(
            "ERR string exceeds maximum allowed size (proto-max-bulk-len)",
        ))
}

/// The places from `start` to `end`, both included and from the end if negative, of `len`. `None`
/// for none.
fn places(start: i64, end: i64, len: i64) -> Option<(i64, i64)> {
    let from_begin = |place: i64| if place < 0 { place + len } else { place };
    let (start, end) = (
        from_begin(start).max(0),
        from_begin(end).max(0).min(len - 1),
    );
    (start <= end).then_some((start, end))
}

/// How many of something a value has: it fits, as nothing is longer than memory.
fn signed(len: usize) -> i64 {
    i64::try_from(len).unwrap_or(i64::MAX)
}
