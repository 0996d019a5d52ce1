//! Reading and writing at once, and overwriting.

use std::time::{Duration, Instant};

use super::load::{batch_len, entries};
use super::{Answer, Job, rate, rate_on_threads, rest, verify};
use crate::common::{Key, first_word, key, mix, shuffled, zipfian};
use crate::data;
use crate::engines::{Engine, Outcome, Reader};
use crate::machine::transferred;

/// Cooper et al., "Benchmarking cloud serving systems with YCSB", 2010: A is half updates, B one in
/// twenty, C none; all read and write whole records, zipfian. The writing ones come last.
const WORKLOADS: [(&str, u64); 3] = [("ycsb_c", 0), ("ycsb_b", 5), ("ycsb_a", 50)];
const THREADS: usize = 2;
/// The version that updates write.
const UPDATED: u64 = 6;
/// A reader sees what was written, by this thread at once, by others after so many operations.
const REFRESH_EVERY: usize = 32;

const OVERWRITES: u64 = 5;

pub(super) fn ycsb<E: Engine>(job: &Job) -> Outcome<Answer> {
    let place = &job.place;
    let engine = E::open(place)?;
    let keys: Vec<_> = zipfian(place.keys).into_iter().map(key).collect();
    let mut answer = Answer::default();
    for (measure, updates) in WORKLOADS {
        let rate = rate_on_threads(THREADS, |thread, ready| {
            let reader = engine.reader();
            ready.wait();
            let mut client = Client {
                engine: &engine,
                reader: reader?,
                // Each from its own place on.
                at: keys.len() / THREADS * thread,
                keys: &keys,
                updates,
                value: vec![0; place.value_len],
            };
            rate(job.time(), || client.run(REFRESH_EVERY))
        })?;
        answer.note(measure, rate);
    }
    verify(&engine, place, None)?;
    engine.close()?;
    Ok(answer)
}

struct Client<'e, E: Engine + 'e> {
    engine: &'e E,
    reader: E::Reader<'e>,
    keys: &'e [Key],
    at: usize,
    /// Of a hundred operations.
    updates: u64,
    value: Vec<u8>,
}

impl<'e, E: Engine + 'e> Client<'e, E> {
    fn run(&mut self, operations: usize) -> Outcome<usize> {
        let mut is_fresh = false;
        for _ in 0..operations {
            let key = &self.keys[self.at % self.keys.len()];
            if mix(self.at as u64) % 100 < self.updates {
                data::fill(&mut self.value, key, UPDATED);
                self.engine.put(key, &self.value)?;
                is_fresh = false;
            } else {
                if !is_fresh {
                    self.reader.refresh()?;
                    is_fresh = true;
                }
                match self.reader.get(key, first_word)? {
                    Some(word) if data::is_of(key, word) => {}
                    found => return Err(format!("a get brought {found:x?}").into()),
                }
            }
            self.at += 1;
        }
        Ok(operations)
    }
}

pub(super) fn overwrite<E: Engine>(job: &Job) -> Outcome<Answer> {
    let place = &job.place;
    let before = transferred()?;
    let engine = E::open(place)?;
    let order = shuffled(place.keys);
    let mut time = Duration::ZERO;
    for version in 1..=OVERWRITES {
        for numbers in order.chunks(batch_len(place)) {
            let entries = entries(numbers.iter().copied(), version, place.value_len);
            let start = Instant::now();
            engine.put_batch(&entries)?;
            time += start.elapsed();
        }
    }
    let is_at_rest = rest::wait(&place.dir, Duration::from_secs_f64(job.quiet_seconds))?;
    verify(&engine, place, Some(OVERWRITES))?;
    engine.close()?;
    let put = OVERWRITES as f64 * place.keys as f64;
    let put_bytes = put * (size_of::<Key>() + place.value_len) as f64;
    let written = transferred()?.written_bytes - before.written_bytes;
    let mut answer = Answer::default();
    answer.note("overwrite", put / time.as_secs_f64());
    answer.note("written_overwritten", written as f64 / put_bytes);
    answer.note("unrested", f64::from(u8::from(!is_at_rest)));
    Ok(answer)
}
