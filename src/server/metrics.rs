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
        self.add(number, 1, took, u64::from(failed));
    }

    fn add(&self, number: usize, calls: u64, time: Duration, failed: u64) {
        let counters = &self.commands[number];
        counters.calls.fetch_add(calls, Ordering::Relaxed);
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        counters.nanos.fetch_add(nanos, Ordering::Relaxed);
        if failed > 0 {
            counters.failed.fetch_add(failed, Ordering::Relaxed);
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
    calls: u64,
    time: Duration,
    failed: u64,
}

impl<'a> Tally<'a> {
    pub(crate) fn begin(metrics: &'a Metrics) -> Tally<'a> {
        Tally {
            metrics,
            last: Instant::now(),
            number: 0,
            calls: 0,
            time: Duration::ZERO,
            failed: 0,
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
        self.calls += calls;
        self.time += took;
        self.failed += if failed { calls } else { 0 };
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
        if self.calls > 0 {
            self.metrics
                .add(self.number, self.calls, self.time, self.failed);
            (self.calls, self.time, self.failed) = (0, Duration::ZERO, 0);
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
