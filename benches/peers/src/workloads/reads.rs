//! Reading from a full engine that nobody writes to.

use std::hint::black_box;
use std::time::{Duration, Instant};

use super::{Answer, Job, rate, rate_on_threads, rest, verify};
use crate::common::{Key, below, first_word, key, median, mix, zipfian};
use crate::data;
use crate::engines::{BARE, Engine, Outcome, Reader};
use crate::machine::{anonymous_bytes, forget_cached, transferred};

/// Reads between two looks at the clock.
const CHUNK: usize = 1024;
/// How many keys are drawn before they are asked for, again and again in the same order: enough
/// that what a round has brought into the caches is gone when the next begins.
const DRAWN_AT_MOST: usize = 4 << 20;
/// Keys of a `get_many`.
const MANY: [usize; 2] = [32, 64];
/// Gets from a cold page cache: so few that what the system reads ahead for one is seldom met by
/// another.
const KEYS_PER_COLD_GET: usize = 5000;
const COLD_GETS: std::ops::RangeInclusive<usize> = 20..=2000;
/// Where nobody writes, this long is enough: what opening has started is soon done.
const QUIET_SECONDS: f64 = 1.0;

pub(super) fn in_memory<E: Engine>(job: &Job) -> Outcome<Answer> {
    let place = &job.place;
    let mut answer = Answer::default();
    let before = anonymous_bytes()?;
    let start = Instant::now();
    let engine = E::open(place)?;
    let time = start.elapsed();
    if job.engine != BARE {
        answer.note("reopen", time.as_secs_f64() * 1e3);
    }
    verify(&engine, place, Some(data::LOADED))?;
    let anonymous = anonymous_bytes()?.saturating_sub(before);
    answer.note("anon", anonymous as f64 / place.keys as f64);

    let drawn = draw(place.keys, |random| below(place.keys, random));
    let absent = draw(place.keys, |random| place.keys + below(place.keys, random));
    let skewed: Vec<_> = zipfian(place.keys)
        .into_iter()
        .take(DRAWN_AT_MOST)
        .map(key)
        .collect();
    for (measure, threads) in [("get", 1), ("get_2", 2)] {
        answer.note(measure, hits(&engine, job, &drawn, threads)?);
    }
    for (measure, threads) in [("miss", 1), ("miss_2", 2)] {
        answer.note(measure, misses(&engine, job, &absent, threads)?);
    }
    for (measure, threads) in [("zipf", 1), ("zipf_2", 2)] {
        answer.note(measure, hits(&engine, job, &skewed, threads)?);
    }
    answer.note("dependent", dependent(&engine, job)?);
    if E::READS_IN_MORE_WAYS {
        answer.note("guard", guard(&engine, job, &drawn)?);
        for many in MANY {
            let rate = many_at_once(&engine, job, &drawn, many)?;
            answer.note(&format!("get_many_{many}"), rate);
        }
    }
    if job.engine != BARE {
        answer.note("iterate", iterate(&engine, job)?);
    }
    engine.close()?;
    Ok(answer)
}

/// Gets of values of one size.
pub(super) fn sized<E: Engine>(job: &Job) -> Outcome<Answer> {
    let place = &job.place;
    let engine = E::open(place)?;
    verify(&engine, place, Some(data::LOADED))?;
    let drawn = draw(place.keys, |random| below(place.keys, random));
    let mut answer = Answer::default();
    let kib = place.value_len >> 10;
    for (measure, threads) in [(format!("get_{kib}k"), 1), (format!("get_{kib}k_2"), 2)] {
        answer.note(&measure, hits(&engine, job, &drawn, threads)?);
    }
    engine.close()?;
    Ok(answer)
}

/// Keys, as many as there are in the engine but not without end, whose numbers are made of random
/// ones.
fn draw(keys: usize, number: impl Fn(u64) -> usize) -> Vec<Key> {
    (0..keys.clamp(CHUNK, DRAWN_AT_MOST) as u64)
        .map(|at| key(number(mix(at << 1 | 1))))
        .collect()
}

/// Whole chunks, each thread beginning at its own.
fn chunks(keys: &[Key], thread: usize, threads: usize) -> impl Iterator<Item = &[Key]> {
    let chunks = keys.chunks_exact(CHUNK);
    let skipped = chunks.len() / threads * thread;
    chunks.cycle().skip(skipped)
}

fn hits<E: Engine>(engine: &E, job: &Job, keys: &[Key], threads: usize) -> Outcome<f64> {
    rate_on_threads(threads, |thread, ready| {
        let reader = engine.reader();
        let mut chunks = chunks(keys, thread, threads);
        ready.wait();
        let reader = reader?;
        rate(job.time(), || {
            let keys = chunks.next().unwrap_or_default();
            let mut wrong = 0;
            for key in keys {
                let word = reader.get(key, first_word)?;
                wrong += usize::from(!word.is_some_and(|word| data::is_of(key, word)));
            }
            all_right(keys, wrong)
        })
    })
}

fn misses<E: Engine>(engine: &E, job: &Job, keys: &[Key], threads: usize) -> Outcome<f64> {
    rate_on_threads(threads, |thread, ready| {
        let reader = engine.reader();
        let mut chunks = chunks(keys, thread, threads);
        ready.wait();
        let reader = reader?;
        rate(job.time(), || {
            let keys = chunks.next().unwrap_or_default();
            let mut wrong = 0;
            for key in keys {
                wrong += usize::from(reader.get(key, first_word)?.is_some());
            }
            all_right(keys, wrong)
        })
    })
}

/// Gets whose key depends on the value before: nothing overlaps.
fn dependent<E: Engine>(engine: &E, job: &Job) -> Outcome<f64> {
    let reader = engine.reader()?;
    let mut word = 0_u64;
    let mut step = 0_u64;
    rate(job.time(), || {
        let mut wrong = 0;
        for _ in 0..CHUNK {
            step += 1;
            let number = below(job.place.keys, mix(word.wrapping_add(step)));
            let key = key(number);
            word = reader.get(&key, first_word)?.unwrap_or(!0);
            wrong += usize::from(!data::is_of(&key, word));
        }
        if wrong > 0 {
            return Err(format!("{wrong} of {CHUNK} dependent gets were wrong").into());
        }
        Ok(CHUNK)
    })
}

fn guard<E: Engine>(engine: &E, job: &Job, keys: &[Key]) -> Outcome<f64> {
    let mut chunks = chunks(keys, 0, 1);
    rate(job.time(), || {
        let keys = chunks.next().unwrap_or_default();
        let mut wrong = 0;
        for key in keys {
            let word = engine.guard(key, first_word)?;
            wrong += usize::from(!word.is_some_and(|word| data::is_of(key, word)));
        }
        all_right(keys, wrong)
    })
}

fn many_at_once<E: Engine>(engine: &E, job: &Job, keys: &[Key], many: usize) -> Outcome<f64> {
    let reader = engine.reader()?;
    let mut chunks = chunks(keys, 0, 1);
    rate(job.time(), || {
        let keys = chunks.next().unwrap_or_default();
        let (mut right, mut visited) = (0, 0);
        for keys in keys.chunks(many) {
            reader.get_many(keys, |at, value| {
                visited += 1;
                let word = value.map(first_word);
                right += usize::from(word.is_some_and(|word| data::is_of(&keys[at], word)));
            })?;
        }
        if visited != keys.len() {
            return Err(format!("{visited} of {} keys were visited", keys.len()).into());
        }
        all_right(keys, visited - right)
    })
}

fn all_right(keys: &[Key], wrong: usize) -> Outcome<usize> {
    if wrong > 0 {
        return Err(format!("{wrong} of {} gets were wrong", keys.len()).into());
    }
    Ok(keys.len())
}

/// Megabytes a second of the keys and values that are handed out, the first word of each value
/// looked at, as often as there is time for.
fn iterate<E: Engine>(engine: &E, job: &Job) -> Outcome<f64> {
    let place = &job.place;
    let expected = (0..place.keys).fold(0_u64, |sum, number| {
        sum.wrapping_add(first_word(&data::value(&key(number), data::LOADED, 8)))
    });
    let bytes_per_second = rate(job.time(), || {
        let (mut bytes, mut entries, mut sum) = (0, 0, 0_u64);
        engine.iterate(|key_len, value| {
            bytes += key_len + value.len();
            entries += 1;
            sum = sum.wrapping_add(first_word(value));
        })?;
        if entries != place.keys || sum != expected {
            return Err(format!("an iteration met {entries} entries, or others").into());
        }
        Ok(bytes)
    })?;
    Ok(bytes_per_second / 1e6)
}

/// Opening and reading when nothing of the files is in the page cache.
pub(super) fn cold<E: Engine>(job: &Job) -> Outcome<Answer> {
    let place = &job.place;
    let mut answer = Answer::default();
    forget_cached(&place.dir)?;
    let start = Instant::now();
    let engine = E::open(place)?;
    let time = start.elapsed();
    if job.engine != BARE {
        answer.note("reopen_cold", time.as_secs_f64() * 1e3);
    }
    // Opening reads as much as it likes, and what it starts may go on for a while; the gets are
    // not to profit from it.
    let quiet = Duration::from_secs_f64(job.quiet_seconds.min(QUIET_SECONDS));
    rest::wait(&place.dir, quiet)?;
    forget_cached(&place.dir)?;
    let reader = engine.reader()?;
    let gets = (place.keys / KEYS_PER_COLD_GET).clamp(*COLD_GETS.start(), *COLD_GETS.end());
    let before = transferred()?;
    let mut times = Vec::with_capacity(gets);
    for at in 0..gets {
        let key = key(below(place.keys, mix((at as u64) << 2 | 2)));
        let start = Instant::now();
        let word = reader.get(&key, first_word)?;
        times.push(start.elapsed().as_secs_f64() * 1e6);
        if !black_box(word).is_some_and(|word| data::is_of(&key, word)) {
            return Err("a cold get was wrong".into());
        }
    }
    let read = transferred()?.read_bytes - before.read_bytes;
    answer.note("cold_p50", median(times));
    answer.note("cold_bytes", read as f64 / gets as f64);
    drop(reader);
    engine.close()?;
    Ok(answer)
}
