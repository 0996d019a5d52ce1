//! When keys expire. Times are milliseconds of Unix time in 64 bits with a sign, as in Redis.

use std::cmp::Ordering;
use std::time::{Duration, SystemTime};

use super::super::{Call, Failure, integer, is};
use crate::server::keyspace::Change;

const MS_PER_SECOND: i64 = 1000;

/// The replies about a key that is not there, and about one that never expires.
const ABSENT: i64 = -2;
const NEVER: i64 = -1;

/// Whether a time counts from now on, or is one of Unix time.
#[derive(Clone, Copy, PartialEq, Eq)]
enum From {
    Now,
    Epoch,
}

pub(super) fn ttl(call: &mut Call<'_, '_>) -> Result<(), Failure> {
    tell(call, From::Now, in_seconds)
}

pub(super) fn pttl(call: &mut Call<'_, '_>) -> Result<(), Failure> {
    tell(call, From::Now, |ms| ms)
}

pub(super) fn expiretime(call: &mut Call<'_, '_>) -> Result<(), Failure> {
    tell(call, From::Epoch, in_seconds)
}

pub(super) fn pexpiretime(call: &mut Call<'_, '_>) -> Result<(), Failure> {
    tell(call, From::Epoch, |ms| ms)
}

/// To the nearest.
fn in_seconds(ms: i64) -> i64 {
    ms.saturating_add(MS_PER_SECOND / 2) / MS_PER_SECOND
}

fn tell(call: &mut Call<'_, '_>, from: From, in_unit: fn(i64) -> i64) -> Result<(), Failure> {
    let told = call.keyspace.read(call.words[1], |current| {
        let Some(current) = current else {
            return ABSENT;
        };
        let Some(at) = current.expires_at else {
            return NEVER;
        };
        in_unit(match from {
            From::Now => (ms_of(at) - now_ms()).max(0),
            From::Epoch => ms_of(at),
        })
    })?;
    call.reply.integer(told);
    Ok(())
}

pub(super) fn expire(call: &mut Call<'_, '_>) -> Result<(), Failure> {
    set(call, "expire", From::Now, MS_PER_SECOND)
}

pub(super) fn pexpire(call: &mut Call<'_, '_>) -> Result<(), Failure> {
    set(call, "pexpire", From::Now, 1)
}

pub(super) fn expireat(call: &mut Call<'_, '_>) -> Result<(), Failure> {
    set(call, "expireat", From::Epoch, MS_PER_SECOND)
}

pub(super) fn pexpireat(call: &mut Call<'_, '_>) -> Result<(), Failure> {
    set(call, "pexpireat", From::Epoch, 1)
}

fn set(call: &mut Call<'_, '_>, command: &str, from: From, unit_ms: i64) -> Result<(), Failure> {
    let condition = Condition::parse(&call.words[3..])?;
    let number = integer(call.words[2])?;
    let base_ms = if from == From::Now { now_ms() } else { 0 };
    let at_ms = number.checked_mul(unit_ms);
    let at_ms = at_ms.and_then(|ms| ms.checked_add(base_ms));
    let invalid = || Failure::new(format!("ERR invalid expire time in '{command}' command"));
    let at_ms = at_ms.ok_or_else(invalid)?;
    let at = time_at(at_ms).ok_or_else(invalid)?;
    let is_set = call.keyspace.modify(call.words[1], |current| {
        let Some(current) = current else {
            return Ok((Change::Keep, false));
        };
        if !condition.allows(current.expires_at.map(ms_of), at_ms) {
            return Ok((Change::Keep, false));
        }
        // A time that has passed deletes it.
        Ok((Change::Put(current.value.to_vec(), Some(at)), true))
    })?;
    call.reply.integer(i64::from(is_set));
    Ok(())
}

pub(super) fn persist(call: &mut Call<'_, '_>) -> Result<(), Failure> {
    let is_changed = call.keyspace.modify(call.words[1], |current| {
        Ok(match current {
            Some(current) if current.expires_at.is_some() => {
                (Change::Put(current.value.to_vec(), None), true)
            }
            _ => (Change::Keep, false),
        })
    })?;
    call.reply.integer(i64::from(is_changed));
    Ok(())
}

/// On what expiry, as it is before, a new one depends.
#[derive(Default)]
struct Condition {
    /// `NX` and `XX`: that there is none, or one.
    is_there: Option<bool>,
    /// `GT` and `LT`: how the new one compares with it.
    compares: Option<Ordering>,
}

impl Condition {
    fn parse(words: &[&[u8]]) -> Result<Condition, Failure> {
        let (mut nx, mut xx, mut gt, mut lt) = (false, false, false, false);
        for word in words {
            let flag = match () {
                () if is(word, "nx") => &mut nx,
                () if is(word, "xx") => &mut xx,
                () if is(word, "gt") => &mut gt,
                () if is(word, "lt") => &mut lt,
                () => {
                    let word = String::from_utf8_lossy(word);
                    return Err(Failure::new(format!("ERR Unsupported option {word}")));
                }
            };
            *flag = true;
        }
        if nx && (xx || gt || lt) {
            return Err(Failure::new(
                "ERR NX and XX, GT or LT options at the same time are not compatible",
            ));
        }
        if gt && lt {
            return Err(Failure::new(
                "ERR GT and LT options at the same time are not compatible",
            ));
        }
        Ok(Condition {
            is_there: (nx || xx).then_some(xx),
            compares: match (gt, lt) {
                (true, _) => Some(Ordering::Greater),
                (_, true) => Some(Ordering::Less),
                _ => None,
            },
        })
    }

    /// Whether an expiry may become this one. Never is later than any.
    fn allows(&self, before_ms: Option<i64>, at_ms: i64) -> bool {
        let is_there = before_ms.is_some();
        let order = before_ms.map_or(Ordering::Less, |before_ms| at_ms.cmp(&before_ms));
        self.is_there.is_none_or(|wanted| wanted == is_there)
            && self.compares.is_none_or(|wanted| wanted == order)
    }
}

pub(super) fn now_ms() -> i64 {
    ms_of(SystemTime::now())
}

/// Milliseconds since the epoch, 0 for what is before it.
fn ms_of(time: SystemTime) -> i64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH);
    i64::try_from(since.unwrap_or_default().as_millis()).unwrap_or(i64::MAX)
}

/// The moment so many milliseconds after the epoch; the epoch itself for any before it, since both
/// have passed. `None` where the system cannot say it.
pub(super) fn time_at(ms: i64) -> Option<SystemTime> {
    let since = Duration::from_millis(u64::try_from(ms).unwrap_or(0));
    SystemTime::UNIX_EPOCH.checked_add(since)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_compares_with_the_expiry_before() {
        let never = None;
        for (options, before, allowed) in [
            ("", never, true),
            ("nx", never, true),
            ("nx", Some(5), false),
            ("xx", never, false),
            ("xx", Some(5), true),
            ("gt", Some(9), true),
            ("gt", Some(10), false),
            ("gt", never, false),
            ("lt", Some(11), true),
            ("lt", Some(10), false),
            ("lt", never, true),
            ("XX lt", never, false),
        ] {
            let words: Vec<_> = options.split_whitespace().map(str::as_bytes).collect();
            let condition = Condition::parse(&words).unwrap();
            let what = format!("{options} after {before:?}");
            assert_eq!(condition.allows(before, 10), allowed, "{what}");
        }
    }

    #[test]
    fn a_time_before_the_epoch_has_passed_too() {
        assert_eq!(time_at(-1), Some(SystemTime::UNIX_EPOCH));
        assert_eq!(in_seconds(1499), 1);
        assert_eq!(in_seconds(1500), 2);
        assert_eq!(in_seconds(i64::MAX), 9_223_372_036_854_775);
    }
}
