//! What is counted as the server works: each command's calls and time, errors by their codes,
//! connections that were refused.
//!
//! Commands are counted without a lock or a shared cache line for each: a connection's turn keeps a
//! [`Tally`], with one look at the clock for each command, and adds it up when another command
//! comes or the turn ends.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::histogram::Distribution;

/// Codes of errors that are told apart. A client cannot make up codes, but failures of the store
/// may have any words.
const MAX_ERROR_CODES: usize = 128;

pub(crate) struct Metrics {
    /// By the commands' numbers.
    commands: Box<[Counters]>,
    errors: Mutex<BTreeMap<String, u64>>,
    rejected_connections: AtomicU64,
    rate: Mutex<Rate>,
}

#[derive(Default)]
struct Counters {
    calls: AtomicU64,
    nanos: AtomicU64,
    failed: AtomicU64,
    rejected: AtomicU64,
    /// Calls by their time: a bucket for each of [`TIMES`], and one for what is above.
    buckets: [AtomicU64; BUCKETS],
}

/// How calls are told apart by the time they take: up to so long.
const TIMES: [Duration; BUCKETS - 1] = [
    Duration::from_micros(1),
    Duration::from_micros(5),
    Duration::from_micros(10),
    Duration::from_micros(50),
    Duration::from_micros(100),
    Duration::from_micros(500),
    Duration::from_millis(1),
    Duration::from_millis(5),
    Duration::from_millis(10),
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_secs(10),
];

const BUCKETS: usize = 15;

/// Most calls take less than the first times, so these are looked at first.
fn bucket_of(took: Duration) -> usize {
    let bucket = TIMES.iter().position(|time| took <= *time);
    bucket.unwrap_or(BUCKETS - 1)
}

/// A command's figures.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct CommandFigures {
    pub(crate) calls: u64,
    pub(crate) time: Duration,
    /// Calls that were answered with an error.
    pub(crate) failed: u64,
    /// Requests that did not become calls: of the wrong length, or not allowed.
    pub(crate) rejected: u64,
}

/// How many commands there were in the last second.
struct Rate {
    since: Instant,
    calls_then: u64,
    per_second: u64,
}

impl Metrics {
    /// For so many commands.
    pub(crate) fn new(commands: usize) -> Metrics {
        Metrics {
            commands: (0..commands).map(|_| Counters::default()).collect(),
            errors: Mutex::default(),
            rejected_connections: AtomicU64::new(0),
            rate: Mutex::new(Rate {
                since: Instant::now(),
                calls_then: 0,
                per_second: 0,
            }),
        }
    }

    /// Notes a call.
    pub(crate) fn note(&self, number: usize, took: Duration, failed: bool) {
        let mut calls = Calls::default();
        calls.note(1, took, failed);
        self.add(number, &calls);
    }

    fn add(&self, number: usize, calls: &Calls) {
        let counters = &self.commands[number];
        counters.calls.fetch_add(calls.count, Ordering::Relaxed);
        let nanos = u64::try_from(calls.time.as_nanos()).unwrap_or(u64::MAX);
        counters.nanos.fetch_add(nanos, Ordering::Relaxed);
        if calls.failed > 0 {
            counters.failed.fetch_add(calls.failed, Ordering::Relaxed);
        }
        for (bucket, more) in counters.buckets.iter().zip(calls.buckets) {
            if more > 0 {
                bucket.fetch_add(u64::from(more), Ordering::Relaxed);
            }
        }
    }

    pub(crate) fn note_rejected(&self, number: usize) {
        self.commands[number]
            .rejected
            .fetch_add(1, Ordering::Relaxed);
    }

    /// Notes an error reply, by its first word.
    pub(crate) fn note_error(&self, text: &str) {
        let code = text.split(' ').next().unwrap_or_default();
        let mut errors = lock(&self.errors);
        if let Some(count) = errors.get_mut(code) {
            *count += 1;
        } else if errors.len() < MAX_ERROR_CODES {
            errors.insert(code.to_owned(), 1);
        }
    }

    pub(crate) fn note_rejected_connection(&self) {
        self.rejected_connections.fetch_add(1, Ordering::Relaxed);
    }

    /// Measures the rate of commands anew, once a second or more rarely.
    pub(crate) fn tick(&self) {
        let calls = self.calls();
        let mut rate = lock(&self.rate);
        let elapsed_ms = rate.since.elapsed().as_millis() as u64;
        if elapsed_ms >= 900 {
            let more = calls.saturating_sub(rate.calls_then);
            rate.per_second = more.saturating_mul(1000) / elapsed_ms;
            rate.since = Instant::now();
            rate.calls_then = calls;
        }
    }

    pub(crate) fn calls_per_second(&self) -> u64 {
        lock(&self.rate).per_second
    }

    /// Calls of all commands.
    pub(crate) fn calls(&self) -> u64 {
        let calls = self.commands.iter();
        calls.map(|c| c.calls.load(Ordering::Relaxed)).sum()
    }

    /// The figures of the command of a number.
    pub(crate) fn command(&self, number: usize) -> CommandFigures {
        let counters = &self.commands[number];
        CommandFigures {
            calls: counters.calls.load(Ordering::Relaxed),
            time: Duration::from_nanos(counters.nanos.load(Ordering::Relaxed)),
            failed: counters.failed.load(Ordering::Relaxed),
            rejected: counters.rejected.load(Ordering::Relaxed),
        }
    }

    /// How long the calls of some commands took.
    pub(crate) fn times(&self, numbers: &[usize]) -> Distribution {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let of_each = || numbers.iter().map(|number| &self.commands[*number]);
        let mut count = 0;
        let mut up_to_bucket = |bucket: usize| {
            let in_bucket = of_each().map(|counters| load(&counters.buckets[bucket]));
            count += in_bucket.sum::<u64>();
            count
        };
        Distribution {
            up_to: (0..)
                .zip(TIMES)
                .map(|(bucket, time)| (time, up_to_bucket(bucket)))
                .collect(),
            count: up_to_bucket(BUCKETS - 1),
            sum: Duration::from_nanos(of_each().map(|counters| load(&counters.nanos)).sum()),
        }
    }

    /// Error replies by their codes.
    pub(crate) fn errors(&self) -> BTreeMap<String, u64> {
        lock(&self.errors).clone()
    }

    pub(crate) fn rejected_connections(&self) -> u64 {
        self.rejected_connections.load(Ordering::Relaxed)
    }

    /// Begins to count from 0.
    pub(crate) fn reset(&self) {
        for counters in &self.commands {
            for counter in [
                &counters.calls,
                &counters.nanos,
                &counters.failed,
                &counters.rejected,
            ] {
                counter.store(0, Ordering::Relaxed);
            }
            for bucket in &counters.buckets {
                bucket.store(0, Ordering::Relaxed);
            }
        }
        lock(&self.errors).clear();
        self.rejected_connections.store(0, Ordering::Relaxed);
        let mut rate = lock(&self.rate);
        rate.calls_then = 0;
        rate.per_second = 0;
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The commands of one turn of a connection. The end of one is the begin of the next, so a
/// command's time includes that of finding it in what arrived.
pub(crate) struct Tally<'a> {
    metrics: &'a Metrics,
    last: Instant,
    /// Calls of the same command, one after the other, that are not added up yet.
    number: usize,
    calls: Calls,
}

/// Calls of a command.
#[derive(Default)]
struct Calls {
    count: u64,
    time: Duration,
    failed: u64,
    buckets: [u32; BUCKETS],
}

impl Calls {
    /// Notes calls that took so long in all, each as long as the others.
    fn note(&mut self, count: u32, took: Duration, failed: bool) {
        self.count += u64::from(count);
        self.time += took;
        self.failed += if failed { u64::from(count) } else { 0 };
        self.buckets[bucket_of(took / count.max(1))] += count;
    }
}

impl<'a> Tally<'a> {
    pub(crate) fn begin(metrics: &'a Metrics) -> Tally<'a> {
        Tally {
            metrics,
            last: Instant::now(),
            number: 0,
            calls: Calls::default(),
        }
    }

    /// Notes a call that has ended just now; how long it took.
    pub(crate) fn note(&mut self, number: usize, failed: bool) -> Duration {
        self.note_many(number, 1, failed)
    }

    /// Notes calls of one command that were done together; how long they took in all.
    pub(crate) fn note_many(&mut self, number: usize, calls: u64, failed: bool) -> Duration {
        let now = Instant::now();
        let took = now.duration_since(self.last);
        self.last = now;
        if number != self.number {
            self.add_up();
            self.number = number;
        }
        let calls = u32::try_from(calls).unwrap_or(u32::MAX);
        self.calls.note(calls, took, failed);
        took
    }

    /// Something was done that is no call.
    pub(crate) fn pass(&mut self) {
        self.last = Instant::now();
    }

    /// When the last call ended.
    pub(crate) fn last(&self) -> Instant {
        self.last
    }

    fn add_up(&mut self) {
        if self.calls.count > 0 {
            self.metrics.add(self.number, &self.calls);
            self.calls = Calls::default();
        }
    }
}

impl Drop for Tally<'_> {
    fn drop(&mut self) {
        self.add_up();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turns_calls_are_all_there_when_it_ends() {
        let metrics = Metrics::new(3);
        let mut tally = Tally::begin(&metrics);
        for (number, failed) in [(1, false), (1, true), (2, false), (1, false)] {
            tally.note(number, failed);
        }
        drop(tally);
        let calls = |number| {
            let figures = metrics.command(number);
            (figures.calls, figures.failed)
        };
        assert_eq!([calls(0), calls(1), calls(2)], [(0, 0), (3, 1), (1, 0)]);
        assert_eq!(metrics.calls(), 4);
        metrics.reset();
        assert_eq!(metrics.command(1), CommandFigures::default());
    }

    #[test]
    fn times_of_several_commands_are_added_up() {
        let metrics = Metrics::new(3);
        metrics.note(0, Duration::from_micros(1), false);
        metrics.note(1, Duration::from_nanos(1001), false);
        metrics.note(1, Duration::from_secs(60), true);
        metrics.note(2, Duration::from_secs(1), false);
        let times = metrics.times(&[0, 1]);
        assert_eq!(times.count, 3);
        assert_eq!(times.sum, Duration::from_nanos(60_000_002_001));
        assert_eq!(times.up_to[0], (Duration::from_micros(1), 1));
        assert_eq!(times.up_to[1], (Duration::from_micros(5), 2));
        assert_eq!(times.up_to[13], (Duration::from_secs(10), 2));
        metrics.reset();
        assert_eq!(metrics.times(&[0, 1, 2]).count, 0);
    }

    #[test]
    fn errors_are_counted_by_their_codes_and_these_have_a_limit() {
        let metrics = Metrics::new(0);
        metrics.note_error("ERR syntax error");
        metrics.note_error("ERR no such key");
        metrics.note_error("NOAUTH Authentication required.");
        assert_eq!(metrics.errors()["ERR"], 2);
        assert_eq!(metrics.errors()["NOAUTH"], 1);
        for i in 0..1000 {
            metrics.note_error(&format!("E{i} x"));
        }
        assert_eq!(metrics.errors().len(), 128);
    }
}
