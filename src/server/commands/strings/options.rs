//! The options of `SET` and `GETEX`, and the times in them.

use std::time::{Duration, SystemTime};

use crate::server::commands::{Failure, integer, is, now};

/// What `SET` and `GETEX` are told beside keys and values.
#[derive(Default)]
pub(super) struct Options<'a> {
    pub(super) life: Life<'a>,
    /// Only if the key is there (`Some(true)`), or is not (`Some(false)`).
    pub(super) if_there: Option<bool>,
    pub(super) wants_old: bool,
}

/// How long a value is to live.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Life<'a> {
    /// Nothing was said.
    #[default]
    Default,
    /// As long as the value before it.
    Keep,
    /// For ever.
    Persist,
    /// A number of this unit, which is not looked at yet.
    Until(Unit, &'a [u8]),
}

/// What a number that is a time counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unit {
    Seconds,
    Milliseconds,
    SecondsSinceEpoch,
    MillisecondsSinceEpoch,
}

impl Unit {
    fn named(word: &[u8]) -> Option<Unit> {
        [
            ("ex", Unit::Seconds),
            ("px", Unit::Milliseconds),
            ("exat", Unit::SecondsSinceEpoch),
            ("pxat", Unit::MillisecondsSinceEpoch),
        ]
        .into_iter()
        .find_map(|(name, unit)| is(word, name).then_some(unit))
    }
}

impl<'a> Life<'a> {
    /// Whether both can stand in one command: the same word may be there twice, and the last
    /// number counts.
    fn goes_with(self, other: Life<'_>) -> bool {
        match (self, other) {
            (Life::Default, _) => true,
            (Life::Until(unit, _), Life::Until(other, _)) => unit == other,
            _ => self == other,
        }
    }

    /// Takes the option that `words` begin with, if it is of these.
    fn parse<'w>(words: &'w [&'a [u8]]) -> Option<(Life<'a>, &'w [&'a [u8]])> {
        match words {
            [word, rest @ ..] if is(word, "keepttl") => Some((Life::Keep, rest)),
            [word, rest @ ..] if is(word, "persist") => Some((Life::Persist, rest)),
            [word, number, rest @ ..] => Some((Life::Until(Unit::named(word)?, number), rest)),
            _ => None,
        }
    }
}

impl<'a> Options<'a> {
    pub(super) fn of_set(mut words: &[&'a [u8]]) -> Result<Options<'a>, Failure> {
        let mut options = Options::default();
        while let [word, rest @ ..] = words {
            if is(word, "nx") || is(word, "xx") {
                let there = is(word, "xx");
                if options.if_there.is_some_and(|other| other != there) {
                    return Err(Failure::syntax());
                }
                options.if_there = Some(there);
                words = rest;
            } else if is(word, "get") {
                options.wants_old = true;
                words = rest;
            } else {
                words = options.live(words, Life::Persist)?;
            }
        }
        Ok(options)
    }

    pub(super) fn of_getex(mut words: &[&'a [u8]]) -> Result<Options<'a>, Failure> {
        let mut options = Options::default();
        while !words.is_empty() {
            words = options.live(words, Life::Keep)?;
        }
        Ok(options)
    }

    /// Takes an option about the value's life, but not this one, and gives the words behind it.
    fn live<'w>(
        &mut self,
        words: &'w [&'a [u8]],
        unknown: Life<'_>,
    ) -> Result<&'w [&'a [u8]], Failure> {
        match Life::parse(words) {
            Some((life, rest)) if life != unknown && self.life.goes_with(life) => {
                self.life = life;
                Ok(rest)
            }
            _ => Err(Failure::syntax()),
        }
    }
}

/// The moment that a number names; it must be positive. Times are milliseconds since the epoch in 64
/// bits with a sign, to Redis, and no later one can be named.
pub(super) fn moment(unit: Unit, number: &[u8], command: &str) -> Result<SystemTime, Failure> {
    let number = integer(number)?;
    let ms = match unit {
        Unit::Seconds | Unit::SecondsSinceEpoch => number.checked_mul(1000),
        Unit::Milliseconds | Unit::MillisecondsSinceEpoch => Some(number),
    };
    let begin = match unit {
        Unit::Seconds | Unit::Milliseconds => now(),
        Unit::SecondsSinceEpoch | Unit::MillisecondsSinceEpoch => SystemTime::UNIX_EPOCH,
    };
    let since_epoch = begin
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    ms.filter(|ms| *ms > 0)
        .filter(|ms| u128::from(ms.unsigned_abs()) + since_epoch.as_millis() <= i64::MAX as u128)
        .and_then(|ms| begin.checked_add(Duration::from_millis(ms.unsigned_abs())))
        .ok_or_else(|| Failure::new(format!("ERR invalid expire time in '{command}' command")))
}
