//! What is done with an engine, in a process of its own: one [`Job`] in, one [`Answer`] out.

mod load;
mod mixed;
mod reads;
mod rest;

use std::collections::BTreeMap;
use std::hint::black_box;
use std::sync::Barrier;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::common::{Key, key};
use crate::data;
use crate::engines::{Engine, Outcome, Place, Reader, Work, with_engine};

/// Work for one process.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Job {
    pub(crate) engine: String,
    pub(crate) task: Task,
    pub(crate) place: Place,
    /// How long one measurement of a rate takes, in seconds.
    pub(crate) seconds: f64,
    /// How long an engine that was written to has to do nothing to be at rest, in seconds.
    pub(crate) quiet_seconds: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Task {
    /// Loads one put at a time; is killed when it has answered.
    Put,
    /// Opens what the one before has left, and counts what is lost.
    AfterKill,
    /// Loads in batches.
    Batch,
    Reads,
    Cold,
    Ycsb,
    /// Overwrites everything five times, and waits until compaction is at rest.
    Overwrite,
    /// Durable puts of 1 and 8 threads.
    Durable,
    /// Gets of values as large as the place says.
    Sized,
}

/// What a process has measured: figures by the names of [`crate::measures`].
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Answer {
    pub(crate) figures: BTreeMap<String, f64>,
    pub(crate) failure: Option<String>,
}

impl Answer {
    fn note(&mut self, measure: &str, figure: f64) {
        self.figures.insert(measure.to_owned(), figure);
    }
}

/// Does a job here.
pub(crate) fn run(job: &Job) -> Outcome<Answer> {
    with_engine(&job.engine, Run(job))
}

struct Run<'a>(&'a Job);

impl Work for Run<'_> {
    type Output = Answer;

    fn run<E: Engine>(self) -> Outcome<Answer> {
        let job = self.0;
        match job.task {
            Task::Put => load::put_each::<E>(job),
            Task::AfterKill => load::after_kill::<E>(job),
            Task::Batch => load::batches::<E>(job),
            Task::Reads => reads::in_memory::<E>(job),
            Task::Cold => reads::cold::<E>(job),
            Task::Ycsb => mixed::ycsb::<E>(job),
            Task::Overwrite => mixed::overwrite::<E>(job),
            Task::Durable => load::durable::<E>(job),
            Task::Sized => reads::sized::<E>(job),
        }
    }
}

impl Job {
    fn time(&self) -> Duration {
        Duration::from_secs_f64(self.seconds)
    }
}

/// Runs `work` on several threads, which begin at once; gives the sum of their rates. Each must wait
/// at the barrier, also if it has failed before, or the others wait for ever.
fn rate_on_threads<F>(threads: usize, work: F) -> Outcome<f64>
where
    F: Fn(usize, &Barrier) -> Outcome<f64> + Sync,
{
    let ready = Barrier::new(threads);
    let (work, ready) = (&work, &ready);
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|thread| scope.spawn(move || work(thread, ready)))
            .collect();
        workers
            .into_iter()
            .map(|worker| {
                worker
                    .join()
                    .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            })
            .sum()
    })
}

/// How many times a second `work` gets done, which is called again and again for some time, and
/// says how much it has done.
fn rate(time: Duration, mut work: impl FnMut() -> Outcome<usize>) -> Outcome<f64> {
    let start = Instant::now();
    let mut done = 0;
    loop {
        done += black_box(work()?);
        let elapsed = start.elapsed();
        if elapsed >= time {
            return Ok(done as f64 / elapsed.as_secs_f64());
        }
    }
}

/// Reads every key and checks every byte of its value; it must be of this version, if one is given.
fn verify<E: Engine>(engine: &E, place: &Place, version: Option<u64>) -> Outcome<()> {
    let reader = engine.reader()?;
    for number in 0..place.keys {
        let key = key(number);
        let found = version_of::<E>(&reader, &key, place.value_len)?;
        let found = found.ok_or_else(|| format!("key {number} is missing"))?;
        if version.is_some_and(|version| found != version) {
            return Err(format!("key {number} has a value of version {found}").into());
        }
    }
    Ok(())
}

/// The version of a key's value; an error if the value is not as it was written.
fn version_of<E: Engine>(reader: &E::Reader<'_>, key: &Key, len: usize) -> Outcome<Option<u64>> {
    let found = reader.get(key, |value| data::version(key, value, len))?;
    found
        .map(|version| version.ok_or_else(|| "a value is not what was put".into()))
        .transpose()
}
