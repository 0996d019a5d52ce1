//! Commands that look at all keys, or at some that nobody named.

use crabkv::Store;

use super::super::{Call, Failure, integer, is};
use crate::server::glob::{Glob, TooLong};
use crate::server::keyspace::Keyspace;
use crate::server::limits::REPLY_BYTES;

/// How many keys a step of a long walk looks at.
pub(super) const STEP: usize = 1000;

/// How many keys one `SCAN` looks at, when it does not say and at most: what it asks for is a hint.
const SCANNED: usize = 10;
const MAX_SCANNED: usize = 10_000;

/// Among how many keys one is chosen at random. In a store of fewer, each is as likely.
const DRAWN_FROM: usize = 32;

/// How many times so many are looked at before the search goes on elsewhere.
const DRAWS: usize = 50;

/// Up to how many keys are counted one by one where some may have expired.
const COUNTED: usize = 10_000;

pub(super) fn keys(call: &mut Call<'_, '_>) -> Result<(), Failure> {
    let pattern = glob(call.words[1])?;
    if let Some(key) = pattern.literal() {
        let is_there = call.keyspace.contains(&key)?;
        call.reply.array(usize::from(is_there));
        if is_there {
            call.reply.bulk(&key);
        }
        return Ok(());
    }
    if call.keyspace.is_transaction() {
        let mut found = call.keyspace.pending_keys();
        let mut position = Some(0);
        while let Some(at) = position {
            let (some, next) = call.keyspace.scan(at, STEP)?;
            found.extend(some);
            position = next;
        }
        found.retain(|key| pattern.matches(key));
        found.sort_unstable();
        // One whose page of the index was split meanwhile was met twice.
        found.dedup();
        call.reply.bulks(&found);
        return Ok(());
    }
    call.later(move |shared, reply| {
        let (mut found, mut bytes) = (Vec::new(), 0);
        for key in shared.store.keys() {
            let key = key?;
            if pattern.matches(&key) {
                bytes += key.len();
                found.push(key);
            }
            if bytes > REPLY_BYTES {
                return Err(Failure::new(format!(
                    "ERR the reply has more than {REPLY_BYTES} bytes: SCAN gives it in parts"
                )));
            }
        }
        reply.bulks(&found);
        Ok(())
    });
    Ok(())
}

pub(super) fn scan(call: &mut Call<'_, '_>) -> Result<(), Failure> {
    let position = cursor(call.words[1])?;
    let mut options = &call.words[2..];
    let mut pattern = None;
    let mut count = SCANNED;
    let mut has_type = true;
    loop {
        options = match options {
            [] => break,
            [word, number, rest @ ..] if is(word, "count") => {
                let number = integer(number)?;
                if number < 1 {
                    return Err(Failure::syntax());
                }
                count = usize::try_from(number).unwrap_or(usize::MAX);
                rest
            }
            [word, glob_word, rest @ ..] if is(word, "match") => {
                pattern = Some(glob(glob_word)?);
                rest
            }
            [word, type_, rest @ ..] if is(word, "type") => {
                has_type = is(type_, "string");
                rest
            }
            _ => return Err(Failure::syntax()),
        };
    }
    let (mut found, next) = call.keyspace.scan(position, count.min(MAX_SCANNED))?;
    if position == 0 {
        found.extend(call.keyspace.pending_keys());
    }
    found.retain(|key| has_type && pattern.as_ref().is_none_or(|pattern| pattern.matches(key)));
    call.reply.array(2);
    call.reply.bulk(next.unwrap_or(0).to_string().as_bytes());
    call.reply.bulks(&found);
    Ok(())
}

/// A cursor, as Redis reads it: digits, perhaps behind a plus or minus; nothing is 0.
fn cursor(word: &[u8]) -> Result<u64, Failure> {
    let invalid = || Failure::new("ERR invalid cursor");
    let (is_negative, digits) = match word {
        [] => return Ok(0),
        [b'-', digits @ ..] => (true, digits),
        [b'+', digits @ ..] | digits => (false, digits),
    };
    if !digits.iter().all(u8::is_ascii_digit) {
        return Err(invalid());
    }
    let digits = std::str::from_utf8(digits).map_err(|_| invalid())?;
    let number: u64 = digits.parse().map_err(|_| invalid())?;
    Ok(if is_negative {
        number.wrapping_neg()
    } else {
        number
    })
}

fn glob(pattern: &[u8]) -> Result<Glob, Failure> {
    Glob::new(pattern).map_err(|TooLong| Failure::new("ERR pattern is too long between two stars"))
}

pub(super) fn randomkey(call: &mut Call<'_, '_>) -> Result<(), Failure> {
    match some_keys(call.keyspace)? {
        Drawn::Some(mut keys) => {
            let chosen = random(keys.len() as u64)? as usize;
            call.reply.bulk(&keys.swap_remove(chosen));
        }
        Drawn::None => call.reply.null(),
        Drawn::HardToFind => call.later(|shared, reply| {
            match shared.store.keys().next() {
                Some(key) => reply.bulk(&key?),
                None => reply.null(),
            }
            Ok(())
        }),
    }
    Ok(())
}

enum Drawn {
    Some(Vec<Vec<u8>>),
    None,
    /// Most of what was there has expired.
    HardToFind,
}

/// Some keys from anywhere.
fn some_keys(keyspace: &Keyspace<'_>) -> Result<Drawn, Failure> {
    let mut keys = keyspace.pending_keys();
    let mut steps = if keyspace.store().is_empty() {
        0
    } else {
        DRAWS
    };
    let begin = random(Store::SCAN_POSITIONS)?;
    // Round once, back to where it began.
    for (mut position, end) in [(begin, u64::MAX), (0, begin)] {
        while position < end && keys.len() < DRAWN_FROM && steps > 0 {
            let (some, next) = keyspace.scan(position, DRAWN_FROM)?;
            keys.extend(some);
            position = next.unwrap_or(u64::MAX);
            // Others wait for a loop, but not for who is alone already.
            steps -= usize::from(!keyspace.is_transaction());
            if steps == 0 && keys.is_empty() {
                return Ok(Drawn::HardToFind);
            }
        }
    }
    // What lies around the beginning is met at the end, too.
    keys.sort_unstable();
    keys.dedup();
    Ok(if keys.is_empty() {
        Drawn::None
    } else {
        Drawn::Some(keys)
    })
}

/// A number below `end`.
fn random(end: u64) -> Result<u64, Failure> {
    let random = getrandom::u64();
    let random = random.map_err(|error| Failure::new(format!("ERR no random numbers: {error}")))?;
    // Not quite even, by less than anybody can tell.
    Ok(((u128::from(random) * u128::from(end)) >> u64::BITS) as u64)
}

pub(super) fn dbsize(call: &mut Call<'_, '_>) -> Result<(), Failure> {
    let count = count(call.keyspace)?;
    call.reply.count(count);
    Ok(())
}

/// How many keys there are. It is exact unless there are many and some have expired, which count
/// until compaction removes them.
fn count(keyspace: &Keyspace<'_>) -> Result<usize, Failure> {
    let store = keyspace.store();
    let mut count = store.len();
    if count <= COUNTED && store.stats().may_have_expired {
        count = 0;
        for key in store.keys() {
            key?;
            count += 1;
        }
    }
    let (added, removed) = keyspace.pending_difference()?;
    Ok((count + added).saturating_sub(removed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_any_number_of_64_bits() {
        for (word, number) in [
            ("", 0),
            ("0", 0),
            ("18446744073709551615", u64::MAX),
            ("-1", u64::MAX),
            ("+5", 5),
        ] {
            assert_eq!(cursor(word.as_bytes()).unwrap(), number, "{word}");
        }
        for word in ["x", "1x", "-", " 1", "0x1", "18446744073709551616", "+-1"] {
            assert!(cursor(word.as_bytes()).is_err(), "{word}");
        }
    }

    #[test]
    fn random_numbers_are_below_their_end_and_come_to_all_below() {
        let mut seen = [false; 3];
        for _ in 0..200 {
            seen[random(3).unwrap() as usize] = true;
        }
        assert_eq!(seen, [true; 3]);
        assert_eq!(random(1).unwrap(), 0);
    }
}
