//! Filling an empty engine: one put at a time, in batches, durably.

use std::fs;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::{Answer, Job, rate, rate_on_threads, verify, version_of};
use crate::common::{Key, key};
use crate::data;
use crate::engines::{Engine, Entry, Outcome, Place};
use crate::machine::transferred;

/// Entries of one batch.
const BATCH: usize = 1000;
/// Fewer, if values are large.
const BATCH_BYTES: usize = 4 << 20;
/// The index's memory is averaged over so many sizes while it doubles: one that grows in steps is
/// not to be measured at its best or its worst.
const SIZES: usize = 64;

/// Entries with these numbers.
pub(super) fn entries(
    numbers: impl Iterator<Item = usize>,
    version: u64,
    len: usize,
) -> Vec<Entry> {
    numbers
        .map(|number| {
            let key = key(number);
            (key, data::value(&key, version, len))
        })
        .collect()
}

pub(super) fn batch_len(place: &Place) -> usize {
    BATCH.min(BATCH_BYTES / (size_of::<Key>() + place.value_len))
}

/// Only the puts are timed, not the making of keys and values.
pub(super) fn put_each<E: Engine>(job: &Job) -> Outcome<Answer> {
    let place = &job.place;
    let engine = E::open(place)?;
    let mut time = Duration::ZERO;
    for first in (0..place.keys).step_by(BATCH) {
        let numbers = first..place.keys.min(first + BATCH);
        let entries = entries(numbers, data::LOADED, place.value_len);
        let start = Instant::now();
        for (key, value) in &entries {
            engine.put(key, value)?;
        }
        time += start.elapsed();
    }
    // Whoever asked for this kills the process now: nothing may be done by the engine's end.
    std::mem::forget(engine);
    let mut answer = Answer::default();
    answer.note("put", place.keys as f64 / time.as_secs_f64());
    Ok(answer)
}

pub(super) fn after_kill<E: Engine>(job: &Job) -> Outcome<Answer> {
    let place = &job.place;
    let start = Instant::now();
    let engine = E::open(place)?;
    let time = start.elapsed();
    let reader = engine.reader()?;
    let mut lost = 0;
    for number in 0..place.keys {
        if version_of::<E>(&reader, &key(number), place.value_len)?.is_none() {
            lost += 1;
        }
    }
    drop(reader);
    engine.close()?;
    let mut answer = Answer::default();
    answer.note("reopen_killed", time.as_secs_f64() * 1e3);
    answer.note("put_lost", f64::from(lost) / place.keys as f64 * 100.0);
    Ok(answer)
}

pub(super) fn batches<E: Engine>(job: &Job) -> Outcome<Answer> {
    let place = &job.place;
    let before = transferred()?;
    let engine = E::open(place)?;
    let mut index_bytes_per_key = Vec::new();
    let step = (place.keys / 2 / SIZES).max(1);
    let mut time = Duration::ZERO;
    let len = batch_len(place);
    for first in (0..place.keys).step_by(len) {
        let end = place.keys.min(first + len);
        let entries = entries(first..end, data::LOADED, place.value_len);
        let start = Instant::now();
        engine.put_batch(&entries)?;
        time += start.elapsed();
        let next = place.keys / 2 + index_bytes_per_key.len() * step;
        if end >= next {
            let bytes = engine.index_bytes().map(|bytes| bytes as f64 / end as f64);
            index_bytes_per_key.extend(bytes);
        }
    }
    engine.close()?;
    let live = place.keys * (size_of::<Key>() + place.value_len);
    let written = transferred()?.written_bytes - before.written_bytes;
    let mut answer = Answer::default();
    answer.note("batch", place.keys as f64 / time.as_secs_f64());
    answer.note("written_loaded", written as f64 / live as f64);
    if !index_bytes_per_key.is_empty() {
        let sizes = index_bytes_per_key.len() as f64;
        answer.note("index", index_bytes_per_key.iter().sum::<f64>() / sizes);
    }
    Ok(answer)
}

pub(super) fn durable<E: Engine>(job: &Job) -> Outcome<Answer> {
    let mut answer = Answer::default();
    for threads in [1, 8] {
        // As fresh for 8 threads as for 1.
        let dir = job.place.dir.join(format!("of-{threads}"));
        fs::create_dir(&dir)?;
        let mut place = Place {
            dir,
            ..job.place.clone()
        };
        let engine = E::open(&place)?;
        let next = AtomicUsize::new(0);
        let put = || {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let key = key(number);
            engine.put(&key, &data::value(&key, data::LOADED, place.value_len))?;
            Ok(1)
        };
        // The first files are made.
        put()?;
        let rate = rate_on_threads(threads, |_, ready| {
            ready.wait();
            rate(job.time(), put)
        })?;
        answer.note(&format!("durable_{threads}"), rate);
        place.keys = next.load(Ordering::Relaxed);
        verify(&engine, &place, Some(data::LOADED))?;
        engine.close()?;
    }
    Ok(answer)
}
